/* range.c - the search behind nb_range_round.
 *
 * A group is judged alone, by the error of its part of the dot product, as awq_clip.c does.  Three things move, one after the
 * other, and each only where the error falls: both ends of the range together; each end alone (an asymmetric grid); then the
 * scale to its closed form for the codes that came out, c'H w / c'H c, followed by rounding again.
 *
 * Every trial takes 64 rows at a time through one matrix product with H_gg.
 */
#include "quant/range.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/float.h"
#include "quant/linalg.h"

enum { ROWS = 64, STEPS = 22, SIDE_STEPS = 8, FITS = 2 };

typedef struct {
    nb_codes      *out;
    const float   *w; /* [n, k] */
    const double  *h; /* [k, k] */
    const nb_grid *grid;
    float          power;
    float         *energy; /* [k] diag H over its mean; NULL: all alike */
    int            row_tiles;
    float         *scratch; /* [threads, 2 ROWS + group, group] */
} ranger;

/* One group of one tile of rows. */
typedef struct {
    const ranger *f;
    int     first, rows, begin, count;
    float  *h, *error, *product;               /* [count, count], [rows, count], [rows, count] */
    float   lo[ROWS], hi[ROWS];                /* the full range */
    float   keep_lo[ROWS], keep_hi[ROWS];      /* shares of it, the best so far */
    float   scale[ROWS], zero[ROWS];           /* the best so far */
    double  least[ROWS];
} block;

static const float *row_of(const block *b, int r)
{
    return b->f->w + (size_t)(b->first + r) * b->f->out->k + b->begin;
}

static void grid_of(const block *b, int r, float keep_lo, float keep_hi, float *scale, float *zero)
{
    uint8_t z;
    nb_grid_range(b->f->grid, b->lo[r] * keep_lo, b->hi[r] * keep_hi, scale, &z);
    *zero = (float)z;
}

/* Keep what is better than the best. */
static void judge(block *b, const float scale[ROWS], const float zero[ROWS], const float keep_lo[ROWS], const float keep_hi[ROWS])
{
    float maxq = (float)((1 << b->f->grid->bits) - 1);
    for (int r = 0; r < b->rows; r++) {
        const float *w = row_of(b, r);
        float *e = b->error + (size_t)r * b->count;
        for (int i = 0; i < b->count; i++) e[i] = w[i] - nb_round_within(w[i] / scale[r], -zero[r], maxq - zero[r]) * scale[r];
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, b->rows, b->count, b->count, 1.0f, b->error, b->count, b->h, b->count,
                0.0f, b->product, b->count);
    for (int r = 0; r < b->rows; r++) {
        double loss = 0.0;
        for (int i = 0; i < b->count; i++) loss += (double)b->error[(size_t)r * b->count + i] * b->product[(size_t)r * b->count + i];
        if (!(loss < b->least[r])) continue;
        b->least[r] = loss;
        b->scale[r] = scale[r];
        b->zero[r] = zero[r];
        if (!keep_lo) continue;
        b->keep_lo[r] = keep_lo[r];
        b->keep_hi[r] = keep_hi[r];
    }
}

/* Both ends, or one with the other where it is best, at 1 - step * width of the full range. */
static void try_ends(block *b, bool low, bool high, int steps, float width)
{
    float held_lo[ROWS], held_hi[ROWS];
    memcpy(held_lo, b->keep_lo, sizeof held_lo);
    memcpy(held_hi, b->keep_hi, sizeof held_hi);
    for (int step = 0; step < steps; step++) {
        float scale[ROWS], zero[ROWS], lo[ROWS], hi[ROWS], keep = 1.0f - (float)step * width;
        for (int r = 0; r < b->rows; r++) {
            lo[r] = low ? keep : held_lo[r];
            hi[r] = high ? keep : held_hi[r];
            grid_of(b, r, lo[r], hi[r], &scale[r], &zero[r]);
        }
        judge(b, scale, zero, lo, hi);
    }
}

/* c'H w / c'H c for the codes of the best grid. */
static void try_closed_form(block *b)
{
    float maxq = (float)((1 << b->f->grid->bits) - 1), scale[ROWS];
    for (int r = 0; r < b->rows; r++) {
        const float *w = row_of(b, r);
        float *c = b->error + (size_t)r * b->count;
        for (int i = 0; i < b->count; i++) c[i] = nb_round_within(w[i] / b->scale[r], -b->zero[r], maxq - b->zero[r]);
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, b->rows, b->count, b->count, 1.0f, b->error, b->count, b->h, b->count,
                0.0f, b->product, b->count);
    for (int r = 0; r < b->rows; r++) {
        const float *w = row_of(b, r), *c = b->error + (size_t)r * b->count, *hc = b->product + (size_t)r * b->count;
        double top = 0.0, bottom = 0.0;
        for (int i = 0; i < b->count; i++) {
            top += (double)w[i] * hc[i];
            bottom += (double)c[i] * hc[i];
        }
        float to = bottom > 0.0 ? nb_f16_to_f32(nb_f32_to_f16((float)(top / bottom))) : b->scale[r];
        scale[r] = to > 0.0f && to <= 65504.0f ? to : b->scale[r];
    }
    judge(b, scale, b->zero, NULL, NULL);
}

static void store(const block *b, int group)
{
    nb_codes *out = b->f->out;
    for (int r = 0; r < b->rows; r++) {
        size_t at = (size_t)(b->first + r) * out->groups + group;
        out->scales[at] = b->scale[r];
        out->zeros[at] = (uint8_t)b->zero[r];
        uint8_t *codes = out->codes + (size_t)(b->first + r) * out->k + b->begin;
        for (int i = 0; i < b->count; i++) codes[i] = nb_grid_code(b->f->grid, row_of(b, r)[i], b->scale[r], (uint8_t)b->zero[r]);
    }
}

static void search_block(void *context, size_t item, int thread)
{
    const ranger *f = context;
    const nb_codes *out = f->out;
    int group = (int)(item / (size_t)f->row_tiles);
    size_t size = (size_t)out->group;
    block b = { .f = f, .first = (int)(item % (size_t)f->row_tiles) * ROWS, .begin = group * out->group };
    b.count = out->k - b.begin < out->group ? out->k - b.begin : out->group;
    b.rows = out->n - b.first < ROWS ? out->n - b.first : ROWS;
    b.error = f->scratch + (size_t)thread * (2 * ROWS + size) * size;
    b.product = b.error + ROWS * size;
    b.h = b.product + ROWS * size;
    double unit = 0.0;
    for (int i = 0; i < b.count; i++) unit = fmax(unit, f->h[(size_t)(b.begin + i) * out->k + b.begin + i]);
    for (int i = 0; i < b.count && unit > 0.0; i++)
        for (int j = 0; j < b.count; j++)
            b.h[i * b.count + j] = (float)(nb_upper(f->h, out->k, b.begin + i, b.begin + j) / unit);
    for (int r = 0; r < b.rows; r++) {
        uint8_t z;
        nb_grid_ends(f->grid, row_of(&b, r), b.count, &b.lo[r], &b.hi[r]);
        nb_grid_range(f->grid, b.lo[r], b.hi[r], &b.scale[r], &z);
        b.zero[r] = (float)z;
        b.keep_lo[r] = b.keep_hi[r] = 1.0f;
        b.least[r] = INFINITY;
    }
    if (unit > 0.0) {
        try_ends(&b, true, true, STEPS, 0.03f);
        if (!f->grid->sym) {
            try_ends(&b, true, false, SIDE_STEPS, 0.08f);
            try_ends(&b, false, true, SIDE_STEPS, 0.08f);
        }
        for (int fit = 0; fit < FITS; fit++) try_closed_form(&b);
    }
    store(&b, group);
}

/* One row: every group by itself. */
static void search_row(void *context, size_t item, int thread)
{
    (void)thread;
    const ranger *f = context;
    nb_codes *out = f->out;
    for (int g = 0; g < out->groups; g++) {
        int begin = g * out->group, count = out->k - begin < out->group ? out->k - begin : out->group;
        const float *w = f->w + item * (size_t)out->k + begin;
        float *scale = out->scales + item * (size_t)out->groups + g;
        uint8_t *zero = out->zeros + item * (size_t)out->groups + g, *codes = out->codes + item * (size_t)out->k + begin;
        nb_grid_search(f->grid, w, f->energy ? f->energy + begin : NULL, count, f->power, scale, zero);
        for (int i = 0; i < count; i++) codes[i] = nb_grid_code(f->grid, w[i], *scale, *zero);
    }
}

static nb_status search_rows(ranger *f, nb_range range, float power, nb_pool *pool, nb_error *err)
{
    size_t k = (size_t)f->out->k;
    int dead;
    double unit = nb_gram_mean(f->h, f->out->k, &dead);
    f->power = power > 0.0f ? power : range == NB_RANGE_MSE ? 2.4f : 2.0f;
    if (range != NB_RANGE_MSE && dead < f->out->k) {
        NB_TRY(nb_alloc(&f->energy, k, sizeof *f->energy, "range energies", err));
        for (size_t i = 0; i < k; i++) f->energy[i] = (float)(f->h[i * k + i] / unit);
    }
    nb_parallel(pool, (size_t)f->out->n, search_row, f);
    return NB_OK;
}

static nb_status search_blocks(ranger *f, nb_pool *pool, nb_error *err)
{
    size_t size = (size_t)f->out->group;
    NB_TRY(nb_alloc(&f->scratch, (size_t)nb_pool_threads(pool) * (2 * ROWS + size), size * sizeof(float), "range tiles", err));
    nb_parallel_blas(pool, (size_t)f->out->groups * (size_t)f->row_tiles, search_block, f);
    return NB_OK;
}

nb_status nb_range_round(nb_codes *out, const float *w, const double *h, int n, int k, const nb_grid *grid, nb_range range,
                         float power, nb_pool *pool, nb_error *err)
{
    if (range == NB_RANGE_FULL) return nb_rtn(out, w, n, k, grid, pool, err);
    NB_TRY(nb_codes_init(out, n, k, grid, err));
    ranger f = { .out = out, .w = w, .h = h, .grid = grid, .row_tiles = (n + ROWS - 1) / ROWS };
    nb_status status = nb_check_weights(w, n, k, err);
    if (!status) status = nb_check_gram(h, k, pool, err);
    if (!status)
        status = range == NB_RANGE_BLOCK && out->group <= NB_RANGE_WIDEST ? search_blocks(&f, pool, err)
                                                                         : search_rows(&f, range, power, pool, err);
    free(f.scratch);
    free(f.energy);
    if (status) nb_codes_free(out);
    return status;
}
