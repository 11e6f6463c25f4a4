/* matrix.h - weight matrices: as a checkpoint holds them (nb_weights) and as a backend multiplies them (nb_matrix). */
#ifndef NB_MATRIX_H
#define NB_MATRIX_H

#include "kernels/base.h"
#include "kernels/float.h"

typedef enum { NB_W_FLOAT, NB_W_INT4, NB_W_INT8 } nb_wkind;

/* Where the codes of a matrix lie.  Words hold 32 / bits of them each. */
typedef enum {
    NB_CODES_BYTES,   /* codes u8 [n, k] */
    NB_CODES_ROWS,    /* words [n, ceil(k / per)]: consecutive inputs of one output, the first in the lowest bits */
    NB_CODES_INPUTS,  /* words [k / per, n]: the same words, those of all outputs side by side; per divides k */
    NB_CODES_OUTPUTS, /* words [k, n / 8] of 4-bit codes: eight outputs of one input, output j in field (0,4,1,5,2,6,3,7)[j] */
} nb_code_order;

/* One linear layer's weight W [n, k] (y = x W'), in plain arrays, whatever file format it came from.
 *
 *   FLOAT        data [n, k] of `dtype` (F32, BF16, F16)
 *   INT4, INT8   W[o, i] = (codes[o, i] - zeros[o, g]) * scales[o, g],  g = g_idx ? g_idx[i] : i / group
 *                codes [n, k], 0..15 or 0..255, one byte each or words as `order` says; scales, zeros [n, groups],
 *                groups = ceil(k / group);
 *                zeros NULL means 8 or 128 everywhere. */
typedef struct {
    nb_wkind       kind;
    int            n, k;
    nb_dtype       dtype;
    const void    *data;
    int            group;
    nb_code_order  order;
    const uint8_t *codes;  /* of NB_CODES_BYTES, else NULL */
    const uint32_t *words; /* of the other orders */
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
    bool     borrowed; /* the numbers are in memory that somebody else gave and keeps (ops->attach) */
    int32_t *perm;     /* act-order: packed column j is input perm[j]; NULL when trivial */
} nb_matrix;

/* A packed matrix as plain bytes, which can be kept and read again by a backend with the same layout. */
typedef struct {
    nb_wkind       kind;
    nb_dtype       dtype;
    int            n, k, group;
    unsigned       flags;       /* the backend's own */
    const int32_t *perm;        /* [k] or NULL */
    const void    *table;       /* the backend's own, small, 4-byte aligned; NULL when table_bytes is 0 */
    size_t         table_bytes;
    const void    *bytes;       /* the numbers, 64-byte aligned */
    size_t         size;
} nb_matrix_image;

/* Codes of outputs row .. row + rows - 1, inputs first .. first + count - 1, one byte each into out [rows, ld].  first is a
 * multiple of 8. */
void nb_weights_codes(uint8_t *out, size_t ld, const nb_weights *w, size_t row, size_t rows, size_t first, size_t count);
/* Words that hold 4-bit codes of eight outputs (NB_CODES_OUTPUTS), `inputs` (1..8) of them `stride` words apart, as words that
 * hold eight inputs of one output each, the first in the lowest bits; inputs that are not there get code 0. */
void nb_codes_transpose(uint32_t out[8], const uint32_t *words, size_t stride, size_t inputs);
/* Dequantise to f32 [n, k]: the definition of what the file means, used by tests and by `ref`. */
void nb_weights_to_f32(float *dst, const nb_weights *w);

#endif
