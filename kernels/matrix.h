/* matrix.h - weight matrices: as a checkpoint holds them (nb_weights) and as a backend multiplies them (nb_matrix). */
#ifndef NB_MATRIX_H
#define NB_MATRIX_H

#include "kernels/base.h"
#include "kernels/float.h"

typedef enum { NB_W_FLOAT, NB_W_INT4, NB_W_INT8 } nb_wkind;

/* One linear layer's weight W [n, k] (y = x W'), in plain arrays, whatever file format it came from.
 *
 *   FLOAT        data [n, k] of `dtype` (F32, BF16, F16)
 *   INT4, INT8   W[o, i] = (codes[o, i] - zeros[o, g]) * scales[o, g],  g = g_idx ? g_idx[i] : i / group
 *                codes [n, k] one byte each (0..15 or 0..255); scales, zeros [n, groups], groups = ceil(k / group);
 *                zeros NULL means 8 or 128 everywhere. */
typedef struct {
    nb_wkind       kind;
    int            n, k;
    nb_dtype       dtype;
    const void    *data;
    int            group;
    const uint8_t *codes;
    const float   *scales;
    const uint8_t *zeros;
    const int32_t *g_idx; /* NULL: trivial */
} nb_weights;

/* A matrix in a backend's own order.  Opaque; made by ops->pack, released by ops->release. */
typedef struct {
    nb_wkind kind;
    nb_dtype dtype;    /* of FLOAT */
    int      n, k, group;
    size_t   bytes;    /* of packed storage, for the memory report */
    void    *storage;
    int32_t *perm;     /* act-order: packed column j is input perm[j]; NULL when trivial */
} nb_matrix;

/* Dequantise to f32 [n, k]: the definition of what the file means, used by tests and by `ref`. */
void nb_weights_to_f32(float *dst, const nb_weights *w);

#endif
