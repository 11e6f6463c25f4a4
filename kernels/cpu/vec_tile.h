/* vec_tile.h - the register tile that attention and gram are made of:  C[q, 0..columns) += sum_i A[q, i] B[i, 0..columns).
 *
 * Each sum runs over i in ascending order, one fused multiply-add per term, whatever the size of the tile around it: that
 * a result does not depend on how rows are grouped rests on this.  A tile is at most TILE_ROWS x TILE_VECTORS vectors; two
 * vectors of B and one broadcast of A feed up to 2 TILE_ROWS independent sums.  Three are for what is left of an odd number. */
#ifndef NB_VEC_TILE_H
#define NB_VEC_TILE_H

#include <stdbool.h>

typedef struct {
    float       *c; /* [rows, columns] at ldc */
    const float *a; /* A[q, i] at a[q * a_row + i * a_inner] */
    const float *b; /* [inner, columns] at ldb */
    size_t       ldc, a_row, a_inner, ldb, inner;
    bool         fresh; /* C = instead of C += */
} tile;

/* `rows` and `vectors` are constants where this is inlined: the sums must live in registers. */
static inline __attribute__((always_inline)) void tile_run(const tile *t, size_t row, size_t column, int rows, int vectors)
{
    vf           sum[TILE_ROWS][TILE_VECTORS];
    float       *c = t->c + row * t->ldc + column;
    const float *a = t->a + row * t->a_row, *b = t->b + column;
    size_t       ldc = t->ldc, a_row = t->a_row, a_inner = t->a_inner, ldb = t->ldb;
#pragma GCC unroll 8
    for (int q = 0; q < rows; q++)
#pragma GCC unroll 3
        for (int v = 0; v < vectors; v++) sum[q][v] = t->fresh ? vf_set(0.0f) : vf_load(c + q * ldc + v * LANES);
    for (size_t i = t->inner; i > 0; i--, a += a_inner, b += ldb) {
        vf b0 = vf_load(b), b1 = vectors > 1 ? vf_load(b + LANES) : b0, b2 = vectors > 2 ? vf_load(b + 2 * LANES) : b0;
#pragma GCC unroll 8
        for (int q = 0; q < rows; q++) {
            vf factor = vf_set(a[q * a_row]);
            sum[q][0] = vf_fma(factor, b0, sum[q][0]);
            if (vectors > 1) sum[q][1] = vf_fma(factor, b1, sum[q][1]);
            if (vectors > 2) sum[q][vectors - 1] = vf_fma(factor, b2, sum[q][vectors - 1]);
        }
    }
#pragma GCC unroll 8
    for (int q = 0; q < rows; q++)
#pragma GCC unroll 3
        for (int v = 0; v < vectors; v++) vf_store(c + q * ldc + v * LANES, sum[q][v]);
}

#endif
