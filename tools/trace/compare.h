/* compare.h - two traces side by side, in the order of computation: where do they part? */
#ifndef NB_TRACE_COMPARE_H
#define NB_TRACE_COMPARE_H

#include "runtime/io/safetensors.h"
#include "runtime/io/scan.h"

typedef struct {
    char        name[96];
    const char *verdict;   /* "same", "close", "DIFFERS", "SHAPE", "only in A", "only in B" */
    bool        compared, differs;
    uint64_t    rows, width;
    double      max_abs, relative, cosine;
    uint64_t    token;     /* row of the largest difference */
    uint64_t    first;     /* first row that differs by more than the tolerance; valid when differs */
    double      first_abs, first_relative;
} nb_trace_row;

typedef struct {
    nb_trace_row *rows;
    size_t        count;
    size_t        parting; /* number of the first row that differs; count when none does */
} nb_trace_comparison;

/* tolerance: relative RMS error of a row (a token) that is still taken for the same. */
nb_status nb_trace_compare(nb_trace_comparison *out, const char *a, const char *b, double tolerance, nb_error *err);
void      nb_trace_comparison_free(nb_trace_comparison *c);

#endif
