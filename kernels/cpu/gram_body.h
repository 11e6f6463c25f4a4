/* gram_body.h - H += sum_r w_r x_r x_r' on vectors; compiled once per level.
 *
 * The upper triangle is cut into squares of SIDE columns.  An item is one square over all rows of the call: for every 256
 * rows it packs its two strips of X, multiplies them with f32 FMA, and adds the product to a square of doubles, which stays
 * in the cache; H in memory is touched once.  256 terms per f32 sum keep its error near 1e-6 of the diagonal; the number of
 * rows is then unlimited.
 *
 *   strip   f32 [SIDE / panel][256][panel]   so that the register tile reads both strips front to back
 *   work    2 SIDE^2 FLOPs per row against 2 SIDE values packed: SIDE FLOPs per value
 */
#ifndef NB_GRAM_BODY_H
#define NB_GRAM_BODY_H

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec_tile.h"

enum {
    ROWS = 256,
    PANEL = 2 * LANES,               /* columns of a register tile */
    SIDE = LANES == 16 ? 128 : 96,   /* a multiple of PANEL and of TILE_ROWS */
};
_Static_assert(SIDE % PANEL == 0 && SIDE % TILE_ROWS == 0, "a square is cut into whole register tiles");

typedef struct {
    double      *h, *sum_abs;
    float       *max_abs;
    const float *x, *weight;
    size_t       ldx, rows, k;
} gram_call;

/* 400 KB of stack, all of it in use */
typedef struct {
    _Alignas(64) double sum[SIDE * SIDE];
    _Alignas(64) float  left[SIDE * ROWS + LANES], right[SIDE * ROWS + LANES], product[TILE_ROWS * PANEL];
} square;

/* Columns j .. j+SIDE-1 of n rows of X, times the weights unless NULL; columns from k on are zero.  A row of a panel is
 * written in whole vectors; what is too much is overwritten by the next row, at the end of the strip it falls into a pad. */
static inline __attribute__((always_inline)) void
pack_strip(float *strip, const gram_call *c, size_t j, size_t row, size_t n, size_t panel, const float *weight)
{
    size_t have = c->k - j < SIDE ? c->k - j : SIDE;
    for (size_t p = 0; p < SIDE; p += panel) {
        const float *x = c->x + row * c->ldx + j + p;
        float       *to = strip + p * ROWS;
        for (size_t r = 0; r < n; r++, x += c->ldx, to += panel) {
            vf w = vf_set(weight ? weight[row + r] : 1.0f);
            for (size_t i = 0; i < panel; i += LANES) {
                size_t left = have > p + i ? have - p - i : 0;
                vf_store(to + i, vf_mul(left ? vf_load_part(x + i, left) : vf_set(0.0f), w));
            }
        }
    }
}

/* Register tile (row, column) of the square, over n rows. */
static void add_tile(square *s, size_t row, size_t column, size_t n)
{
    tile t = { .c = s->product, .a = s->left + row * ROWS, .b = s->right + column * ROWS, .ldc = PANEL, .a_row = 1,
               .a_inner = TILE_ROWS, .ldb = PANEL, .inner = n, .fresh = true };
    tile_run(&t, 0, 0, TILE_ROWS, 2);
    for (size_t i = 0; i < TILE_ROWS; i++) {
        double *sum = s->sum + (row + i) * SIDE + column;
        vf_add_to_doubles(sum, vf_load(s->product + i * PANEL));
        vf_add_to_doubles(sum + LANES, vf_load(s->product + i * PANEL + LANES));
    }
}

/* sum |x| in f64 and max |x| of columns j .. j+SIDE-1 */
static void column_statistics(const gram_call *c, size_t j)
{
    size_t end = c->k - j < SIDE ? c->k : j + SIDE;
    for (size_t r = 0; r < c->rows; r++) {
        double weight = c->weight ? c->weight[r] : 1;
        for (size_t i = j; i < end; i++) {
            float magnitude = __builtin_fabsf(c->x[r * c->ldx + i]);
            c->sum_abs[i] += weight * magnitude;
            if (magnitude > c->max_abs[i] || magnitude != magnitude) c->max_abs[i] = magnitude; /* a NaN stays */
        }
    }
}

static void add_to_h(const gram_call *c, const square *s, size_t top, size_t left)
{
    size_t rows = c->k - top < SIDE ? c->k - top : SIDE, columns = c->k - left < SIDE ? c->k - left : SIDE;
    for (size_t i = 0; i < rows; i++) {
        double *h = c->h + (top + i) * c->k + left;
        for (size_t j = top == left ? i : 0; j < columns; j++) h[j] += s->sum[i * SIDE + j];
    }
}

static void gram_square(void *context, size_t item, int thread)
{
    (void)thread;
    const gram_call *c = context;
    size_t           squares = (c->k + SIDE - 1) / SIDE, row = 0; /* row `row` of squares has squares - row of them */
    for (; item >= squares - row; row++) item -= squares - row;
    size_t top = row * SIDE, left = (row + item) * SIDE;
    square s;
    for (size_t i = 0; i < SIDE * SIDE; i++) s.sum[i] = 0;
    for (size_t r = 0; r < c->rows; r += ROWS) {
        size_t n = c->rows - r < ROWS ? c->rows - r : ROWS;
        pack_strip(s.left, c, top, r, n, TILE_ROWS, c->weight);
        pack_strip(s.right, c, left, r, n, PANEL, NULL);
        for (size_t j = 0; j < SIDE; j += PANEL)
            for (size_t i = 0; i < SIDE && (top < left || i < j + PANEL); i += TILE_ROWS) add_tile(&s, i, j, n);
    }
    add_to_h(c, &s, top, left);
    if (top == left) column_statistics(c, top);
}

static void gram(const nb_ops *ops, double *h, double *sum_abs, float *max_abs, const float *x, size_t ldx, size_t rows,
                 int k, const float *weight)
{
    gram_call call = { .h = h, .sum_abs = sum_abs, .max_abs = max_abs, .x = x, .weight = weight, .ldx = ldx, .rows = rows,
                       .k = (size_t)k };
    size_t    squares = (call.k + SIDE - 1) / SIDE;
    nb_parallel(ops->pool, squares * (squares + 1) / 2, gram_square, &call);
}

static void fill_gram(nb_ops *ops)
{
    ops->gram = gram;
}

#endif
