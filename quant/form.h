/* form.h - the tensors that stand for one matrix in a checkpoint: names, types and shapes by format, announced to the writer and
 * later filled.  The words in them are pack.h's. */
#ifndef NB_FORM_H
#define NB_FORM_H

#include "quant/pack.h"
#include "quant/writer.h"

enum { NB_FORM_PARTS = 5 };

typedef struct {
    const char *suffix; /* ".qweight" */
    nb_dtype    dtype;
    int         rank;
    uint64_t    shape[2];
} nb_form_part;

/* How codes of n outputs and k inputs are stored; permuted: g_idx is not trivial.  Returns their number.  sym matters to
 * compressed-tensors alone, whose symmetric matrices have no zero points. */
int      nb_form_parts(nb_form_part out[NB_FORM_PARTS], nb_format format, const nb_grid *grid, bool permuted, int n, int k);
uint64_t nb_form_bytes(nb_format format, const nb_grid *grid, bool permuted, int n, int k);

nb_status nb_form_declare(nb_writer *w, const char *name, nb_format format, const nb_grid *grid, bool permuted, int n, int k,
                          nb_error *err);
/* Codes to the tensors that were declared with the same format, grid and order. */
nb_status nb_form_write(nb_writer *w, const char *name, nb_format format, const nb_grid *grid, bool permuted, const nb_codes *c,
                        nb_error *err);
/* Rows first .. of a matrix in compressed-tensors' form without order or zeros: c holds as many as it has, each behind the last. */
nb_status nb_form_append(nb_writer *w, const char *name, const nb_codes *rows, nb_error *err);
/* weight_shape of such a matrix. */
nb_status nb_form_shape(nb_writer *w, const char *name, int n, int k, nb_error *err);

#endif
