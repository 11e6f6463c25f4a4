/* gram_body.h - H += sum_r w_r x_r x_r' in exact sums (gram_sums.h) on vectors; compiled once per level, which defines DOWN, the
 * rows of a register tile.
 *
 * Rows are taken in rounds of at most NB_GRAM_ROUND, in two passes.  The first copies the round's rows into panels of PANEL columns
 * and looks at the columns.  The second cuts the upper triangle of H into squares of SIDE columns; an item is a few squares side by
 * side.  It packs its left strip once, times the weights, and for every square and piece multiplies the strip with one panel after
 * the other in f32 FMA, one ascending chain a product.  Each product of a piece is added to the square's fixed-point sums, which
 * stay in the second-level cache; H in memory is touched once a round.
 *
 *   panels  f32 [piece][k / PANEL][rows][PANEL]         in the caller's work space; one fits the first-level cache
 *   strip   f32 [piece][SIDE / DOWN][rows][DOWN]
 *   sums    i64 [tile][high, low][DOWN][PANEL]          in the order in which tiles are made
 *   work    12 operations to add the product of a piece, 512 to make it
 *
 * Rows without weight are not packed: they cost nothing, and a chain is the same as with a product of zero in it.
 */
#ifndef NB_GRAM_BODY_H
#define NB_GRAM_BODY_H

#include "kernels/cpu/cpu.h"

enum {
    ROUND = NB_GRAM_ROUND,
    PANEL = 2 * LANES,               /* columns of a register tile */
    SIDE = 96,                       /* a multiple of PANEL and of DOWN; a square's sums are 147 KB, its strip 98 KB a piece */
    TILE = DOWN * PANEL,
    TILES_DOWN = SIDE / DOWN,
    LATE = 16,                       /* rows for each row of lines that is fetched */
    ACROSS = 8,                      /* squares of an item at most */
};
_Static_assert(SIDE % PANEL == 0 && SIDE % DOWN == 0, "a square is cut into whole register tiles");
_Static_assert(32 % PANEL == 0, "the panels fit the work space");

/* A round: its pieces, and their rows that have a weight; those of piece p are row[start[p]] .. row[start[p + 1] - 1]. */
typedef struct {
    size_t pieces, start[ROUND + 1], row[ROUND];
    size_t spans, begin[ROUND], end[ROUND]; /* the pieces with all their rows */
} round_rows;

typedef struct {
    const nb_gram_sums *sums;
    const float        *x, *weight;
    size_t              ldx, k, across;
    round_rows          rows;
} gram_call;

/* 0.5 MB of stack.  Rows top .. of H, columns left .. of it. */
typedef struct {
    _Alignas(64) int64_t sums[2 * SIDE * SIDE];
    _Alignas(64) float   strip[SIDE * ROUND + LANES];
    size_t               top, left, height, width; /* at most SIDE of each */
} square;

/* ---- the rows of a round ----------------------------------------------------------------------------------------------- */

/* What a piece's panels have side by side, they keep side by side in the caches. */
static float *panel_at(const gram_call *c, size_t piece, size_t panel)
{
    size_t first = c->rows.start[piece], n = c->rows.start[piece + 1] - first, panels = (c->k + PANEL - 1) / PANEL;
    return c->sums->work + (first * panels + n * panel) * PANEL;
}

static void pack_panel(const gram_call *c, size_t piece, size_t panel)
{
    size_t       have = c->k - panel * PANEL;
    const float *x = c->x + panel * PANEL;
    float       *to = panel_at(c, piece, panel);
    for (size_t r = c->rows.start[piece]; r < c->rows.start[piece + 1]; r++, to += PANEL) {
        const float *row = x + c->rows.row[r] * c->ldx;
        vf_store(to, vf_load_part(row, have));
        vf_store(to + LANES, vf_load_part(row + LANES, have > LANES ? have - LANES : 0));
    }
}

/* What the sums of one column of a piece say that is not finite or beyond the range, exactly. */
static void mark_column(const gram_call *c, size_t j, size_t begin, size_t n)
{
    float  max = c->sums->max_abs[j];
    double squares = 0;
    for (size_t r = begin; r < begin + n; r++) {
        float  x = c->x[r * c->ldx + j];
        double weight = c->weight ? c->weight[r] : 1;
        max = nb_gram_larger(max, __builtin_fabsf(x));
        if (weight != 0) squares += weight * x * x;
    }
    c->sums->max_abs[j] = nb_gram_mark(max, squares);
}

/* sum w |x| and max |x| of columns j .. j+PANEL-1 of rows begin .. begin+n-1, LANES columns at a time.  The largest |x| bounds the
 * sum of squares; only a column where that is not enough, or that is not finite, is looked at again. */
static void column_statistics(const gram_call *c, size_t j, size_t begin, size_t n)
{
    size_t end = c->k - j < PANEL ? c->k : j + PANEL;
    float  heaviest = 1;
    for (size_t r = begin; c->weight && r < begin + n; r++) heaviest = c->weight[r] > heaviest ? c->weight[r] : heaviest;
    for (; j < end; j += LANES) {
        size_t have = end - j;
        double sum[LANES];
        float  max[LANES], strange[LANES]; /* strange: 0, or NaN after a value that is not finite */
        vd     v_sum = vd_zero();
        vf     v_max = vf_set(0.0f), v_strange = v_max;
        for (size_t r = begin; r < begin + n; r++) {
            vf    x = vf_load_part(c->x + r * c->ldx + j, have);
            float w = c->weight ? c->weight[r] : 1;
            v_max = vf_max(v_max, vf_abs(x));
            v_strange = vf_fma(x, vf_set(0.0f), v_strange);
            if (w != 0) v_sum = vd_add_magnitudes(v_sum, x, vf_set(w));
        }
        vd_store(sum, v_sum);
        vf_store(max, v_max);
        vf_store(strange, v_strange);
        for (size_t i = 0; i < LANES && i < have; i++) {
            float *to = &c->sums->max_abs[j + i];
            nb_fixed_add(&c->sums->sum_abs[j + i], &c->sums->sum_abs[c->k + j + i], sum[i]);
            if (strange[i] == 0 && (double)max[i] * max[i] * heaviest < NB_GRAM_LIMIT / NB_GRAM_ROWS)
                *to = nb_gram_larger(*to, max[i]);
            else
                mark_column(c, j + i, begin, n);
        }
    }
}

/* A piece is packed while its rows are still in the first-level cache.  What has no row with a weight is no piece. */
static void prepare_panel(void *context, size_t panel, int thread)
{
    (void)thread;
    const gram_call  *c = context;
    const round_rows *o = &c->rows;
    for (size_t i = 0, piece = 0; i < o->spans; i++) {
        column_statistics(c, panel * PANEL, o->begin[i], o->end[i] - o->begin[i]);
        if (piece < o->pieces && o->row[o->start[piece]] < o->end[i]) pack_panel(c, piece++, panel);
    }
}

/* What the bits of a constant (vf_set_fixed) have added to a sum of all pieces of the round. */
static inline int64_t bias_of(const gram_call *c, double constant)
{
    return (int64_t)(c->rows.pieces * (uint64_t)nb_fixed_bits(constant));
}

/* ---- products ---------------------------------------------------------------------------------------------------------- */

/* The left strip of a piece out of its panels.  A row of DOWN is written as one or two whole vectors; what is too much is overwritten
 * by what follows: the next panel's part, row, tile or piece; or it falls behind the strip. */
static void pack_strip(square *s, const gram_call *c, size_t piece)
{
    size_t        n = c->rows.start[piece + 1] - c->rows.start[piece], panels = (c->k + PANEL - 1) / PANEL;
    const size_t *row = c->rows.row + c->rows.start[piece];
    float        *to = s->strip + c->rows.start[piece] * SIDE;
    for (size_t p = 0; p < s->height; p += DOWN) {
        size_t       panel = (s->top + p) / PANEL, within = (s->top + p) % PANEL, have = PANEL - within;
        const float *x = panel_at(c, piece, panel) + within, *more = panel + 1 < panels ? panel_at(c, piece, panel + 1) : NULL;
        for (size_t r = 0; r < n; r++, to += DOWN) {
            vf w = vf_set(c->weight ? c->weight[row[r]] : 1.0f);
            vf_store(to, vf_mul(vf_load_part(x + r * PANEL, have), w));
            if (have < DOWN && more) vf_store(to + have, vf_mul(vf_load(more + r * PANEL), w));
        }
    }
}

static inline __attribute__((always_inline)) void multiply_rows(vf sum[DOWN][2], const float *a, const float *b, size_t n)
{
    for (; n > 0; n--, a += DOWN, b += PANEL) {
        vf b0 = vf_load(b), b1 = vf_load(b + LANES);
#pragma GCC unroll 16
        for (int q = 0; q < DOWN; q++) {
            vf factor = vf_set(a[q]);
            sum[q][0] = vf_fma(factor, b0, sum[q][0]);
            sum[q][1] = vf_fma(factor, b1, sum[q][1]);
        }
    }
}

/* Where a tile goes: DOWN rows of PANEL words at two places, so many words apart. */
typedef struct {
    int64_t *high, *low;
    size_t   high_step, low_step; /* the second modulo 2^64 */
} destination;

/* One register tile over n rows.  The last of them pass while the lines that it goes to are fetched: a store that has to wait for its
 * line holds up all that follow it, and what is fetched sooner is pushed out again by the panel and the strip. */
static inline __attribute__((always_inline)) void multiply_tile(vf sum[DOWN][2], const float *a, const float *b, size_t n, destination to)
{
    size_t before = n > LATE * DOWN ? n - LATE * DOWN : 0, each = (n - before) / DOWN;
#pragma GCC unroll 16
    for (int q = 0; q < DOWN; q++) sum[q][0] = sum[q][1] = vf_set(0.0f);
    multiply_rows(sum, a, b, before);
    a += before * DOWN, b += before * PANEL, n -= before;
    for (size_t q = 0; q < DOWN; q++, n -= each, a += each * DOWN, b += each * PANEL) {
        for (size_t i = 0; i < PANEL; i += 8) vf_prefetch(to.high + i), vf_prefetch(to.low + i);
        to.high += to.high_step;
        to.low += to.low_step;
        multiply_rows(sum, a, b, each);
    }
    multiply_rows(sum, a, b, n);
}

/* A tile that lies right of the diagonal and is whole has its last piece: with its sums of the pieces before into H. */
static inline __attribute__((always_inline)) void last_tile(const gram_call *c, destination to, const int64_t *sums, const float *a,
                                                            const float *b, size_t n)
{
    int64_t bias[2] = {bias_of(c, NB_FIXED_HIGH), bias_of(c, NB_FIXED_LOW)};
    vf      sum[DOWN][2];
    multiply_tile(sum, a, b, n, to);
#pragma GCC unroll 16
    for (int q = 0; q < DOWN; q++, sums += PANEL) {
        vf_take_fixed(to.high, to.low, sums, sums + TILE, sum[q][0], bias);
        vf_take_fixed(to.high + LANES, to.low + LANES, sums + LANES, sums + TILE + LANES, sum[q][1], bias);
        to.high += to.high_step;
        to.low += to.low_step;
    }
}

/* The first piece of a tile sets its sums, the others are added. */
static inline __attribute__((always_inline)) void add_tile(int64_t *sums, const float *a, const float *b, size_t n, bool first)
{
    vf sum[DOWN][2];
    multiply_tile(sum, a, b, n, (destination){sums, sums + TILE, PANEL, PANEL});
#pragma GCC unroll 16
    for (int q = 0; q < DOWN; q++, sums += PANEL) {
        if (first) {
            vf_set_fixed(sums, sums + TILE, sum[q][0]);
            vf_set_fixed(sums + LANES, sums + TILE + LANES, sum[q][1]);
        } else {
            vf_add_fixed(sums, sums + TILE, sum[q][0]);
            vf_add_fixed(sums + LANES, sums + TILE + LANES, sum[q][1]);
        }
    }
}

/* The sums of a tile have all pieces of the round: into H, word by word. */
static void take_tile(const gram_call *c, const square *s, size_t i, size_t j, const int64_t *sums)
{
    size_t  k = c->k, rows = s->height - i < DOWN ? s->height - i : DOWN, columns = s->width - j < PANEL ? s->width - j : PANEL;
    int64_t high = bias_of(c, NB_FIXED_HIGH), low = bias_of(c, NB_FIXED_LOW);
    for (size_t q = 0; q < rows; q++, sums += PANEL) {
        size_t   row = s->top + i + q, column = s->left + j;
        int64_t *h = c->sums->h + row * k + column;
        for (size_t n = row > column ? row - column : 0; n < columns; n++) {
            int64_t *to = column + n == row ? &c->sums->diagonal[row] : &c->sums->h[nb_gram_low(k, row, column + n)];
            h[n] = nb_fixed_sum(h[n], nb_fixed_sum(sums[n], -high));
            *to = nb_fixed_sum(*to, nb_fixed_sum(sums[TILE + n], -low));
        }
    }
}

static void multiply_piece(square *s, const gram_call *c, size_t piece)
{
    bool         only = c->rows.pieces == 1, last = piece + 1 == c->rows.pieces;
    size_t       k = c->k, first = c->rows.start[piece], n = c->rows.start[piece + 1] - first;
    const float *strip = s->strip + first * SIDE;
    for (size_t j = 0; j < s->width; j += PANEL) {
        const float *panel = panel_at(c, piece, (s->left + j) / PANEL);
        int64_t     *sums = s->sums + 2 * TILE * TILES_DOWN * (j / PANEL);
        for (size_t i = 0; i < s->height && s->top + i < s->left + j + PANEL; i += DOWN, sums += 2 * TILE) {
            size_t row = s->top + i, column = s->left + j;
            if (last && !only && row + DOWN <= column && j + PANEL <= s->width && i + DOWN <= s->height) {
                destination to = {c->sums->h + row * k + column, c->sums->h + nb_gram_low(k, row, column), k, 0 - (k + 1)};
                last_tile(c, to, sums, strip + i * n, panel, n);
                continue;
            }
            if (piece == 0)
                add_tile(sums, strip + i * n, panel, n, true);
            else
                add_tile(sums, strip + i * n, panel, n, false);
            if (last) take_tile(c, s, i, j, sums);
        }
    }
}

static void gram_squares(void *context, size_t item, int thread)
{
    (void)thread;
    const gram_call *c = context;
    size_t           squares = (c->k + SIDE - 1) / SIDE, row = 0; /* row `row` of squares has squares - row of them */
    for (size_t items; items = (squares - row + c->across - 1) / c->across, item >= items; row++) item -= items;
    size_t first = row + item * c->across, end = first + c->across < squares ? first + c->across : squares;
    square s;
    s.top = row * SIDE;
    s.height = c->k - s.top < SIDE ? c->k - s.top : SIDE;
    for (size_t piece = 0; piece < c->rows.pieces; piece++) pack_strip(&s, c, piece);
    for (s.left = first * SIDE; s.left < end * SIDE; s.left += SIDE) {
        s.width = c->k - s.left < SIDE ? c->k - s.left : SIDE;
        for (size_t piece = 0; piece < c->rows.pieces; piece++) multiply_piece(&s, c, piece);
    }
}

/* ---- the call ---------------------------------------------------------------------------------------------------------- */

/* Where the call goes on: a row, and the sample that it belongs to. */
typedef struct {
    size_t row, sample;
} place;

/* Pieces from `at` on, as many as fit a round. */
static void take_rows(gram_call *c, place *at, const size_t *bounds, size_t samples)
{
    round_rows *o = &c->rows;
    o->pieces = o->spans = o->start[0] = 0;
    while (at->sample < samples && o->spans < ROUND && o->start[o->pieces] + NB_GRAM_ROWS <= ROUND) {
        size_t end = bounds[at->sample + 1], n = end - at->row < NB_GRAM_ROWS ? end - at->row : NB_GRAM_ROWS;
        size_t count = o->start[o->pieces];
        for (size_t r = at->row; r < at->row + n; r++)
            if (!c->weight || c->weight[r] != 0) o->row[count++] = r;
        if (count > o->start[o->pieces]) o->start[++o->pieces] = count;
        o->begin[o->spans] = at->row;
        o->end[o->spans++] = at->row += n;
        if (at->row == end) at->sample++;
    }
}

static size_t count_items(size_t squares, size_t across)
{
    size_t items = 0;
    for (size_t width = 1; width <= squares; width++) items += (width + across - 1) / across;
    return items;
}

static void gram(const nb_ops *ops, const nb_gram_sums *sums, const float *x, size_t ldx, int k, const size_t *bounds,
                 size_t samples, const float *weight)
{
    gram_call call = {.sums = sums, .x = x, .weight = weight, .ldx = ldx, .k = (size_t)k, .across = ACROSS};
    place     at = {0, 0};
    size_t    squares = (call.k + SIDE - 1) / SIDE, enough = 4 * (size_t)nb_pool_threads(ops->pool);
    while (call.across > 1 && count_items(squares, call.across) < enough) call.across--; /* how they are cut changes no sum */
    while (at.sample < samples) {
        take_rows(&call, &at, bounds, samples);
        nb_parallel(ops->pool, (call.k + PANEL - 1) / PANEL, prepare_panel, &call);
        if (call.rows.pieces) nb_parallel(ops->pool, count_items(squares, call.across), gram_squares, &call);
    }
}

static void fill_gram(nb_ops *ops)
{
    ops->gram = gram;
}

#endif
