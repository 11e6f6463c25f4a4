/* gptq_solve.c - GPTQ's loop over the columns (the formulas are in gptq.c).
 *
 * Rows never meet.  They are taken in slabs, so that what is in work is small whatever the matrix; in a slab, blocks of columns go
 * from left to right, and tiles of ROWS rows are the units of parallel work.  D = W - Q grows from the left over a copy of W:
 *
 *     D   [rows, k]        columns before the block: errors; after it: weights
 *     P   [end, block]     R_<b,b and R_bb under it, in f32, in the order in which products read it
 *     G = D_<b R_<b,b      one product a tile; then, column by column, what the block's own errors add
 *
 * A tile holds the block transposed, [columns, ROWS], which turns every inner loop into a fixed number of independent rows.
 *
 * The same P gives the loss of any other codes, |D' R|^2 with D' = W - Q': of rounding to nearest, and of the refined ones.
 *
 * W is f32 and the factor double: the factor is where digits are lost.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/gemm.h"
#include "quant/gptq_factor.h"
#include "quant/range.h"
#include "quant/refine.h"

enum {
    ROWS = NB_GIVE_ROWS,
    SLAB_TILES = 16, SLAB_TILES_PER_THREAD = 4,
    PANEL_ROWS = 256, /* of P, filled by one item */
};

typedef struct {
    double solved[2], judged[2]; /* |e|^2 and |D|^2 over live columns, of a tile */
} tile_loss;

typedef struct {
    const nb_gptq_factor  *f;
    const nb_gptq_options *options;
    const nb_gemm         *gemm;
    nb_codes       *out, *nearest;
    const nb_codes *judged;      /* whose loss is found beside */
    bool            solves;      /* or only that */
    const float    *weights;     /* [n, k] in the order of the model */
    int             n, k, width;
    size_t          ld;          /* of d: a power of two would put all rows of a tile into the same lines of the cache */
    float          *d, *d_judged; /* [slab, ld] in the order of the steps */
    float          *energy;      /* [k] diag H over its mean at each step: weights of the range search */
    float          *p;           /* [end, width] of the block, in panels */
    float          *scratch;     /* [threads, scratch_size] */
    size_t          scratch_size;
    tile_loss      *loss;        /* [tiles of the matrix] */
    int             first, rows; /* the slab */
    int             begin, end;  /* the block */
} solver;

/* ---- the slab -------------------------------------------------------------------------------------------------------- */

static void load_row(void *context, size_t item, int thread)
{
    (void)thread;
    const solver   *s = context;
    const int32_t  *order = s->f->order;
    const nb_codes *q = s->judged;
    size_t          row = (size_t)s->first + item;
    const float    *w = s->weights + row * (size_t)s->k, *scales = q->scales + row * (size_t)q->groups;
    const uint8_t  *codes = q->codes + row * (size_t)s->k, *zeros = q->zeros + row * (size_t)q->groups;
    float          *d = s->d + item * s->ld, *near = s->d_judged + item * s->ld;
    for (int i = 0; i < s->k; i++) {
        int c = order[i], g = q->g_idx ? q->g_idx[c] : c / q->group;
        d[i] = w[c];
        near[i] = w[c] - (float)(codes[c] - zeros[g]) * scales[g];
    }
}

/* Rows of P: R_<b,b, and R_bb with zeros under its diagonal. */
static void fill_panel(void *context, size_t item, int thread)
{
    (void)thread;
    const solver *s = context;
    size_t width = s->gemm->width32, deep = (size_t)s->end;
    int    from = (int)item * PANEL_ROWS, to = from + PANEL_ROWS < s->end ? from + PANEL_ROWS : s->end, n = s->end - s->begin;
    for (size_t first = 0; first < (size_t)n; first += width) {
        float *row = s->p + first * deep + (size_t)from * width;
        for (int i = from; i < to; i++, row += width) {
            /* R[i, j] = L[k-1-i, k-1-j]: backwards through a row of L, up to its diagonal */
            int lr = s->k - 1 - i, square = lr / NB_LOWER_TILE * NB_LOWER_TILE;
            const double *left = nb_lower_at(&s->f->lower, lr, 0), *here = nb_lower_at(&s->f->lower, lr, square) - square;
            for (size_t t = 0; t < width; t++) {
                int j = s->begin + (int)(first + t), lc = s->k - 1 - j;
                row[t] = j >= s->end || j < i ? 0.0f : (float)(lc < square ? left[lc] : here[lc]);
            }
        }
    }
}

/* ---- one block of one tile ------------------------------------------------------------------------------------------- */

static void fit_group(const solver *s, const float *w, const float *energy, int count, size_t at)
{
    const nb_gptq_options *o = s->options;
    float *scale = s->out->scales + at, power = o->mse > 0.0f ? o->mse : o->range == NB_RANGE_MSE ? 2.4f : 2.0f;
    uint8_t *zero = s->out->zeros + at;
    if (o->range == NB_RANGE_FULL)
        nb_grid_fit(&o->grid, w, count, 1.0f, scale, zero);
    else
        nb_grid_search(&o->grid, w, o->range == NB_RANGE_ENERGY ? energy : NULL, count, power, scale, zero);
}

/* Scales from the original weights, before the loop. */
static nb_status fit_static_groups(const solver *s, nb_pool *pool, nb_error *err)
{
    const nb_gptq_options *o = s->options;
    size_t groups = (size_t)s->n * (size_t)s->out->groups;
    nb_codes fitted;
    NB_TRY(nb_range_round(&fitted, s->weights, s->f->h, s->n, s->k, &o->grid, o->range, o->mse, pool, err));
    memcpy(s->out->scales, fitted.scales, groups * sizeof *fitted.scales);
    memcpy(s->out->zeros, fitted.zeros, groups);
    nb_codes_free(&fitted);
    return NB_OK;
}

/* Scales of the group that starts at step i, from the weights as they are now: columns of this block are in the tile, later
 * ones, of a group that is the whole row, are still as they were. */
static void fit_dynamic_group(const solver *s, const float *tile, int first, int rows, int i, float *row)
{
    int count = 1;
    while (i + count < s->k && s->f->group_of[i + count] == s->f->group_of[i]) count++;
    for (int r = 0; r < rows; r++) {
        for (int j = i; j < i + count; j++)
            row[j - i] = j < s->end ? tile[(j - s->begin) * ROWS + r] : s->d[(size_t)(first + r) * s->ld + j];
        fit_group(s, row, s->energy + i, count, (size_t)(s->first + first + r) * s->out->groups + s->f->group_of[i]);
    }
}

/* |e|^2 and |D|^2 of rows [rows, columns begin .. end), e with stride lde. */
static void add_loss(const solver *s, double loss[2], const float *e, size_t lde, const float *d, int rows)
{
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < s->end - s->begin; t++) {
            int column = s->f->order[s->begin + t];
            if (!(s->f->h[(size_t)column * s->k + column] > 0.0)) continue;
            double error = e[(size_t)r * lde + t], difference = d[(size_t)r * s->ld + s->begin + t];
            loss[0] += error * error;
            loss[1] += difference * difference;
        }
}

/* tile [width, ROWS] = the weights of the block after the errors of all earlier columns.  product: scratch [ROWS, width]. */
static void load_tile(const solver *s, float *tile, float *product, const float *d, int rows)
{
    int   width = s->end - s->begin;
    float e[ROWS] = { 0 };
    for (int t = 0; t < width; t++)
        for (int r = 0; r < ROWS; r++) tile[t * ROWS + r] = r < rows ? d[(size_t)r * s->ld + s->begin + t] : 0.0f;
    if (!s->begin) return;
    s->gemm->f32(product, (size_t)width, d, s->ld, s->p, (size_t)s->end, (size_t)rows, (size_t)width, (size_t)s->begin, false);
    for (int t = 0; t < width; t++) {
        for (int r = 0; r < rows; r++) e[r] = -product[(size_t)r * width + t];
        s->gemm->give(tile + t * ROWS, e, s->f->inverse + (size_t)(s->begin + t) * s->width + t, (size_t)(width - t));
    }
}

/* Round the block's columns one after the other; D takes the errors, errors [ROWS, width] e. */
static void round_tile(const solver *s, float *tile, float *errors, float *d, float *row, int first, int rows)
{
    nb_codes *out = s->out;
    int k = s->k, width = s->end - s->begin;
    float scale[ROWS], zero[ROWS], code[ROWS], e[ROWS], maxq = (float)((1 << out->bits) - 1);
    for (int r = 0; r < ROWS; r++) { /* rows past the last are zeros */
        scale[r] = 1.0f;
        zero[r] = 0.0f;
    }
    for (int t = 0; t < width; t++) {
        int i = s->begin + t, g = s->f->group_of[i], column = s->f->order[i];
        bool starts = i == 0 || s->f->group_of[i - 1] != g;
        if (starts && !s->options->static_groups) fit_dynamic_group(s, tile, first, rows, i, row);
        if (starts || t == 0)
            for (int r = 0; r < rows; r++) {
                size_t at = (size_t)(s->first + first + r) * out->groups + g;
                scale[r] = out->scales[at];
                zero[r] = (float)out->zeros[at];
            }
        const float *w = tile + t * ROWS;
        float pivot = s->f->pivot[i];
        for (int r = 0; r < ROWS; r++) {
            code[r] = nb_round_within(w[r] / scale[r], -zero[r], maxq - zero[r]);
            e[r] = (w[r] - code[r] * scale[r]) * pivot;
        }
        s->gemm->give(tile + (t + 1) * ROWS, e, s->f->inverse + (size_t)i * s->width + t + 1, (size_t)(width - t - 1));
        for (int r = 0; r < rows; r++) {
            out->codes[(size_t)(s->first + first + r) * k + column] = (uint8_t)(code[r] + zero[r]);
            d[(size_t)r * s->ld + i] -= code[r] * scale[r];
            errors[(size_t)r * width + t] = e[r];
        }
    }
}

static void solve_tile(void *context, size_t item, int thread)
{
    const solver *s = context;
    int    first = (int)item * ROWS, rows = s->rows - first < ROWS ? s->rows - first : ROWS;
    size_t square = (size_t)s->width * ROWS, width = (size_t)(s->end - s->begin);
    float *tile = s->scratch + (size_t)thread * s->scratch_size, *product = tile + square, *row = product + square;
    float *d = s->d + (size_t)first * s->ld, *judged = s->d_judged + (size_t)first * s->ld;
    tile_loss *loss = &s->loss[(size_t)s->first / ROWS + item];
    if (s->solves) {
        load_tile(s, tile, product, d, rows);
        round_tile(s, tile, product, d, row, first, rows);
        add_loss(s, loss->solved, product, width, d, rows);
    }
    s->gemm->f32(product, width, judged, s->ld, s->p, (size_t)s->end, (size_t)rows, width, (size_t)s->end, false);
    add_loss(s, loss->judged, product, width, judged, rows);
}

/* ---- the whole ------------------------------------------------------------------------------------------------------- */

static size_t slab_rows(const solver *s, nb_pool *pool)
{
    size_t tiles = SLAB_TILES_PER_THREAD * (size_t)nb_pool_threads(pool), slab = (tiles > SLAB_TILES ? tiles : SLAB_TILES) * ROWS;
    return slab < (size_t)s->n ? slab : (size_t)s->n;
}

static nb_status allocate(solver *s, nb_pool *pool, nb_error *err)
{
    size_t k = (size_t)s->k, slab = slab_rows(s, pool);
    s->ld = (k + 15) / 16 * 16 + 16;
    s->scratch_size = 2 * (size_t)s->width * ROWS + k;
    NB_TRY(nb_alloc(&s->d, slab, s->ld * sizeof(float), "GPTQ errors", err));
    NB_TRY(nb_alloc(&s->d_judged, slab, s->ld * sizeof(float), "rounding errors", err));
    NB_TRY(nb_alloc(&s->p, k, ((size_t)s->width + s->gemm->width32) * sizeof(float), "GPTQ block of the factor", err));
    NB_TRY(nb_alloc(&s->scratch, (size_t)nb_pool_threads(pool), s->scratch_size * sizeof(float), "GPTQ tiles", err));
    NB_TRY(nb_alloc(&s->energy, k, sizeof *s->energy, "GPTQ energies", err));
    for (size_t i = 0; i < k; i++) s->energy[i] = (float)(s->f->h[(size_t)s->f->order[i] * (k + 1)] / s->f->unit);
    return NB_OK;
}

/* Slab by slab, block by block: solve and judge, or judge alone. */
static void go_through(solver *s, nb_pool *pool)
{
    int slab = (int)slab_rows(s, pool);
    for (s->first = 0; s->first < s->n; s->first += slab) {
        s->rows = s->n - s->first < slab ? s->n - s->first : slab;
        nb_parallel(pool, (size_t)s->rows, load_row, s);
        for (int b = 0; b < s->f->blocks; b++) {
            s->begin = b ? s->f->end[b - 1] : 0;
            s->end = s->f->end[b];
            nb_parallel(pool, ((size_t)s->end + PANEL_ROWS - 1) / PANEL_ROWS, fill_panel, s);
            nb_parallel(pool, ((size_t)s->rows + ROWS - 1) / ROWS, solve_tile, s);
        }
    }
}

/* tr(D H D') / n from |D R|^2 and |D|^2 over tiles; what rounding makes negative is zero. */
static double mean_loss(const solver *s, bool solved)
{
    double sum[2] = { 0 };
    for (size_t i = 0; i < ((size_t)s->n + ROWS - 1) / ROWS; i++)
        for (int j = 0; j < 2; j++) sum[j] += solved ? s->loss[i].solved[j] : s->loss[i].judged[j];
    return fmax(0.0, s->f->unit * (sum[0] - s->f->lambda * sum[1])) / s->n;
}

static nb_status solve(solver *s, nb_pool *pool, nb_gptq_report *report, nb_error *err)
{
    size_t tiles = ((size_t)s->n + ROWS - 1) / ROWS;
    NB_TRY(allocate(s, pool, err));
    if (s->options->static_groups) NB_TRY(fit_static_groups(s, pool, err));
    s->judged = s->nearest;
    s->solves = true;
    go_through(s, pool);
    report->loss = mean_loss(s, true);
    report->rtn_loss = mean_loss(s, false);
    if (s->options->sweeps == 0) return NB_OK;
    nb_refine_options refine = { .sweeps = s->options->sweeps, .scales = true, .damp = s->f->damp };
    NB_TRY(nb_refine(s->out, s->weights, s->f->h, s->options->grid.sym, &refine, pool, err));
    memset(s->loss, 0, tiles * sizeof *s->loss);
    s->judged = s->out;
    s->solves = false;
    go_through(s, pool);
    report->loss = mean_loss(s, false);
    return NB_OK;
}

/* Without a factor: H is put together again, and asked. */
static nb_status loss_without_factor(const solver *s, nb_pool *pool, nb_gptq_report *report, nb_error *err)
{
    double *h = s->f->h;
    float  *q;
    for (size_t r = 0; r < (size_t)s->k; r++)
        for (size_t c = 0; c < r; c++) h[r * (size_t)s->k + c] = h[c * (size_t)s->k + r];
    NB_TRY(nb_alloc(&q, (size_t)s->n * (size_t)s->k, sizeof *q, "a rounded matrix", err));
    nb_codes_dequantize(s->nearest, q);
    report->loss = report->rtn_loss = nb_gram_loss(s->weights, q, h, s->n, s->k, pool) / s->n;
    free(q);
    if (isnan(report->loss)) return nb_fail(err, NB_ERR_MEMORY, "no memory for the loss of a matrix of %d x %d", s->n, s->k);
    return NB_OK;
}

static nb_status solve_or_round(solver *s, nb_pool *pool, nb_gptq_report *report, nb_error *err)
{
    NB_TRY(nb_rtn(s->nearest, s->weights, s->n, s->k, &s->options->grid, pool, err));
    NB_TRY(nb_alloc(&s->loss, ((size_t)s->n + ROWS - 1) / ROWS, sizeof *s->loss, "losses", err));
    if (s->f->has_g_idx) {
        NB_TRY(nb_alloc(&s->out->g_idx, (size_t)s->k, sizeof(int32_t), "g_idx", err));
        for (int i = 0; i < s->k; i++) s->out->g_idx[s->f->order[i]] = s->f->group_of[i];
    }
    if (s->f->found) {
        NB_TRY(solve(s, pool, report, err));
    } else {
        NB_TRY(loss_without_factor(s, pool, report, err));
    }
    if (!s->f->found || report->loss > report->rtn_loss * (1.0 + 1e-5)) { /* equal codes have losses equal in f32 */
        nb_codes swap = *s->out;
        *s->out = *s->nearest;
        *s->nearest = swap;
        report->loss = report->rtn_loss;
        report->fallback = true;
    }
    return NB_OK;
}

nb_status nb_gptq_solve(nb_codes *out, const float *w, int n, const nb_gptq_factor *f, const nb_gptq_options *options, nb_pool *pool,
                        nb_gptq_report *report, nb_error *err)
{
    nb_codes nearest = { 0 };
    *out = (nb_codes){ 0 };
    *report = (nb_gptq_report){ .damp = f->damp, .dead = f->dead };
    NB_TRY(nb_codes_init(out, n, f->k, &options->grid, err));
    solver s = { .f = f, .options = options, .gemm = nb_gemm_of(nb_isa_best()), .out = out, .nearest = &nearest, .weights = w, .n = n,
                 .k = f->k, .width = f->width };
    nb_status status = solve_or_round(&s, pool, report, err);
    free(s.d);
    free(s.d_judged);
    free(s.energy);
    free(s.p);
    free(s.scratch);
    free(s.loss);
    nb_codes_free(&nearest);
    if (status) nb_codes_free(out);
    return status;
}
