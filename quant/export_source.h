/* export_source.h - the checkpoint that an export starts from: its matrices, and what is known about their codes. */
#ifndef NB_EXPORT_SOURCE_H
#define NB_EXPORT_SOURCE_H

#include "quant/choice.h"
#include "quant/export.h"

/* One matrix. */
typedef struct {
    char    name[64];
    int     n, k;          /* as the source has it */
    int     rows, columns; /* as the result has it: not less */
    int     layer;         /* -1 outside the decoder layers */
    bool    coded;
    bool    permuted;      /* inputs are ordered across groups */
    bool    zero_zero;     /* some zero point is 0 */
    nb_grid grid;          /* of codes; sym: every zero point is in the middle */
} nb_item;

typedef struct {
    nb_checkpoint *checkpoint;
    nb_config      config;
    nb_buf         notes;   /* of opening */
    nb_item       *items;   /* 7 a layer first, then the tower's, the embedding, and a head that is not tied */
    size_t         count;
    size_t         coded;   /* items with codes */
} nb_source;

/* Reads headers only; nb_source_look reads the codes. */
nb_status nb_source_open(nb_source *out, const char *directory, nb_error *err);
void      nb_source_close(nb_source *s);
/* Fill in permuted, zero_zero and grid.sym of an item. */
nb_status nb_source_look(const nb_source *s, nb_item *item, nb_error *err);

/* Whether a tensor belongs to one of the matrices: its weight, or a part of its codes (a bias is not). */
bool nb_source_is_matrix(const nb_source *s, const char *tensor);

/* The choice that made such a checkpoint: the commonest grid is the main one.  Matrices of a grid (bits and group) are symmetric
 * together or not at all. */
nb_status nb_source_choice(nb_choice *out, const nb_source *s, nb_error *err);

/* Codes of an item with its padding, as plain arrays. */
nb_status nb_source_codes(nb_codes *out, const nb_source *s, const nb_item *item, nb_error *err);

/* The values of an item, some rows at a time: codes are what they mean, padding is zero. */
typedef struct nb_rows nb_rows;
nb_status nb_rows_open(nb_rows **out, const nb_source *s, const nb_item *item, nb_error *err);
/* Rows first .. first + count of the result into values [count, columns]. */
nb_status nb_rows_read(nb_rows *r, int first, int count, float *values, nb_error *err);
void      nb_rows_close(nb_rows *r);

#endif
