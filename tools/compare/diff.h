/* diff.h - what differs between two checkpoints, by meaning and not by bytes.
 *
 * A difference is one line: a part, a place, what stands on either side.  Two things can be spelled differently and mean the same
 * (a key left out and its default, torch_dtype and dtype, nested and flat text fields, names of tensors in two layouts): then the
 * line is a note, which says why, and does not count.
 */
#ifndef NB_COMPARE_DIFF_H
#define NB_COMPARE_DIFF_H

#include "runtime/io/json.h"
#include "tools/verify/verify.h"

typedef struct {
    const char *part;    /* "config", "tokenizer", "template", "processor", "generation", "tensors", "values" */
    char       *where;   /* JSON path, tensor, file */
    char       *a, *b;   /* NULL: not there */
    const char *note;    /* why it does not count; NULL: it does */
} nb_difference;

/* One matrix or tensor whose values were compared. */
typedef struct {
    char   *name;
    char    a[40], b[40];       /* "BF16", "awq 4 bits, groups of 128" */
    double  relative, max_abs, cosine;
    int64_t codes;              /* integer codes that differ; -1: the two are not integers of one grid */
    uint64_t count;             /* elements */
} nb_value_row;

typedef struct {
    nb_difference *items;
    size_t         count, capacity, differing;
    nb_value_row  *rows;
    size_t         row_count, row_capacity;
    uint64_t       same_values; /* tensors whose values are equal, left out of rows */
    bool           failed;      /* memory ran out */
} nb_diff;

void nb_diff_free(nb_diff *d);
void nb_diff_add(nb_diff *d, const char *part, const char *where, const char *a, const char *b, const char *note);

/* config.json, generation_config.json, the processor's files, the chat template. */
nb_status nb_diff_side_files(nb_diff *d, const char *a, const char *b, nb_error *err);
nb_status nb_diff_tokenizer(nb_diff *d, const char *a, const char *b, nb_error *err);
/* Names, forms, shapes and types; with `values` also what the matrices mean, a piece at a time. */
nb_status nb_diff_weights(nb_diff *d, const char *a, const char *b, bool values, nb_error *err);

/* ---- JSON as a list of leaves (flatten.c) ----------------------------------------------------------------------------------- */

typedef struct {
    char *path, *value; /* "rope_scaling.mrope_section[0]", "16" */
    int   rank;         /* among leaves of one path: the lowest counts */
} nb_leaf;

typedef struct {
    nb_leaf *items;
    size_t   count, capacity;
} nb_leaves;

/* Sorted by path.  Arrays of strings, and arrays of numbers under a name that means a set (eos_token_id), are one leaf with their
 * items in order.  null counts as not there. */
nb_status nb_flatten(nb_leaves *out, const cJSON *tree, nb_error *err);
void      nb_leaves_free(nb_leaves *l);
void      nb_leaves_sort(nb_leaves *l); /* by path, then rank */

/* Reads directory/name when it is there; *out NULL when not. */
nb_status nb_diff_read(cJSON **out, const char *directory, const char *name, nb_error *err);

#endif
