/* gemm_body.h - the products of gemm.h on vectors; compiled once per level, which defines ROW_TILES (descending, the last one 1),
 * COLUMNS (vectors of a tile), and for each type T32 and T64 the vector and its zero, set, load, store, fma, fnma, add, sub.
 *
 * A tile of R rows and one panel keeps its sums in registers for NB_GEMM_DEPTH terms.  The panel's part of that depth (32 KB or
 * less) stays in L1 while all rows pass by, the rows' part (256 of them: 512 KB) in L2 while all panels do.
 */
#ifndef NB_GEMM_BODY_H
#define NB_GEMM_BODY_H

#include "kernels/cpu/cpu.h"
#include "kernels/gemm.h"

#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
enum { MAX_TILE_ROWS = 12 };

#define ONE_TILE(R, V)                                                                                     \
    if (left >= (R)) {                                                                                     \
        V##_tile(R, c, ldc, a, lda, b, columns, depth, subtract, first);                                   \
        done = (R);                                                                                        \
    } else

/* first: c is not read but by a subtraction.  A panel that is not whole goes through `edge`. */
#define GEMM(V, type, LANES)                                                                                                  \
    static inline __attribute__((always_inline)) void                                                                         \
    V##_tile(const int R, type *c, size_t ldc, const type *a, size_t lda, const type *b, size_t columns, size_t depth,         \
             bool subtract, bool first)                                                                                       \
    {                                                                                                                         \
        V##_vector sum[MAX_TILE_ROWS][COLUMNS];                                                                               \
        _Alignas(64) type edge[COLUMNS * (LANES)];                                                                            \
        UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < COLUMNS; v++) sum[r][v] = V##_zero();                    \
        for (size_t i = 0; i < depth; i++, b += COLUMNS * (LANES)) {                                                          \
            V##_vector w[COLUMNS];                                                                                            \
            UNROLL for (int v = 0; v < COLUMNS; v++) w[v] = V##_load(b + v * (LANES));                                        \
            UNROLL for (int r = 0; r < R; r++) {                                                                              \
                V##_vector x = V##_set(a[(size_t)r * lda + i]);                                                               \
                UNROLL for (int v = 0; v < COLUMNS; v++) sum[r][v] = V##_fma(x, w[v], sum[r][v]);                              \
            }                                                                                                                 \
        }                                                                                                                     \
        UNROLL for (int r = 0; r < R; r++) {                                                                                  \
            type *row = c + (size_t)r * ldc, *to = columns == COLUMNS * (LANES) ? row : edge;                                 \
            if (to == edge && (subtract || !first))                                                                           \
                for (size_t j = 0; j < columns; j++) edge[j] = row[j];                                                        \
            UNROLL for (int v = 0; v < COLUMNS; v++) {                                                                        \
                V##_vector s = sum[r][v];                                                                                     \
                if (subtract) s = V##_sub(V##_load(to + v * (LANES)), s);                                                     \
                else if (!first) s = V##_add(V##_load(to + v * (LANES)), s);                                                  \
                V##_store(to + v * (LANES), s);                                                                               \
            }                                                                                                                 \
            if (to == edge)                                                                                                   \
                for (size_t j = 0; j < columns; j++) row[j] = edge[j];                                                        \
        }                                                                                                                     \
    }                                                                                                                         \
    static size_t V##_rows(size_t left, type *c, size_t ldc, const type *a, size_t lda, const type *b, size_t columns,        \
                           size_t depth, bool subtract, bool first)                                                           \
    {                                                                                                                         \
        size_t done = 0;                                                                                                      \
        ROW_TILES(ONE_TILE, V) {}                                                                                             \
        return done;                                                                                                          \
    }                                                                                                                         \
    static void V##_gemm(type *c, size_t ldc, const type *a, size_t lda, const type *b, size_t deep, size_t m, size_t n,       \
                         size_t k, bool subtract)                                                                             \
    {                                                                                                                         \
        const size_t width = COLUMNS * (LANES);                                                                               \
        if (k == 0 && !subtract)                                                                                              \
            for (size_t r = 0; r < m; r++)                                                                                    \
                for (size_t j = 0; j < n; j++) c[r * ldc + j] = 0;                                                            \
        for (size_t i = 0; i < k; i += NB_GEMM_DEPTH) {                                                                       \
            size_t depth = k - i < NB_GEMM_DEPTH ? k - i : NB_GEMM_DEPTH;                                                     \
            for (size_t j = 0; j < n; j += width) {                                                                           \
                size_t columns = n - j < width ? n - j : width;                                                               \
                for (size_t r = 0, done; r < m; r += done)                                                                    \
                    done = V##_rows(m - r, c + r * ldc + j, ldc, a + r * lda + i, lda, b + j * deep + i * width, columns,      \
                                    depth, subtract, i == 0);                                                                 \
            }                                                                                                                 \
        }                                                                                                                     \
    }

GEMM(s, float, LANES32)
GEMM(d, double, LANES32 / 2)

static void give(float *columns, const float *e, const float *u, size_t count)
{
    s_vector error[NB_GIVE_ROWS / LANES32];
    UNROLL for (int v = 0; v < NB_GIVE_ROWS / LANES32; v++) error[v] = s_load(e + v * LANES32);
    for (size_t j = 0; j < count; j++, columns += NB_GIVE_ROWS) {
        s_vector factor = s_set(u[j]);
        UNROLL for (int v = 0; v < NB_GIVE_ROWS / LANES32; v++)
            s_store(columns + v * LANES32, s_fnma(factor, error[v], s_load(columns + v * LANES32)));
    }
}

#define NB_GEMM_TABLE { COLUMNS * LANES32, COLUMNS * LANES32 / 2, s_gemm, d_gemm, give }

#endif
