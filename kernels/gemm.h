/* gemm.h - dense products for the solvers, on the calling thread: one call is one tile of somebody's parallel loop.
 *
 * The right side is given in panels: its columns are cut into panels of `width`, the last one filled up with zeros, and element
 * (i, j) of a side with `deep` rows lies at (j / width) * width * deep + i * width + j % width.  Sums run over i in ascending order with one FMA each (ref: a
 * product and a sum), from zero again every NB_GEMM_DEPTH terms; so the result of an element depends on its row and its column
 * alone, neither on m nor on n.  The levels avx2, avx512 and neon give the same bits.
 *
 * What it is not: an operation of nb_ops.  It works on host memory and knows no device.
 */
#ifndef NB_GEMM_H
#define NB_GEMM_H

#include "kernels/ops.h"

enum { NB_GEMM_DEPTH = 256, NB_GIVE_ROWS = 48 };

typedef struct {
    size_t width32, width64; /* of a panel */
    /* c [m, n] = a [m, k] b, or c -= a b, with the first k <= deep rows of b.  c must not overlap a or b. */
    void (*f32)(float *c, size_t ldc, const float *a, size_t lda, const float *b, size_t deep, size_t m, size_t n, size_t k,
                bool subtract);
    void (*f64)(double *c, size_t ldc, const double *a, size_t lda, const double *b, size_t deep, size_t m, size_t n, size_t k,
                bool subtract);
    /* columns [count, NB_GIVE_ROWS] -= u [count] e [NB_GIVE_ROWS]': an error is given to the columns that follow */
    void (*give)(float *columns, const float *e, const float *u, size_t count);
} nb_gemm;

/* For the level; it lives forever. */
const nb_gemm *nb_gemm_of(nb_isa isa);

/* Rows of b [n, k], ldb apart, become the columns of a right side: a b'.  `to` has (n rounded up to width) * k values. */
void nb_gemm_panels64(double *to, const double *b, size_t ldb, size_t n, size_t k, size_t width);

#endif
