/* gptq.c - GPTQ in the form that is both lazy and parallel.
 *
 * With H = X'X + lambda I and U the upper triangular factor of H^-1 = U'U, column i of W is rounded to q_i and the columns
 * after it take over its error (the paper's equations 2 and 3 through the Cholesky form of its section 3.3):
 *
 *     e = (w_i - q_i) / U_ii          w_j -= e U_ij   for j > i
 *
 * U comes from one Cholesky factor.  With J the reversal of the order of columns, J H J = L L' gives H = R R' with R = J L J
 * upper triangular, so U = R^-1 = J L^-1 J.  nb_cholesky_inverse leaves Y = (L^-1)':   U[i, j] = Y[k-1-j, k-1-i].
 *
 * Columns go in blocks.  Inside a block each error is applied at once to the block's columns; the columns after it get all of
 * the block's errors in one matrix product.  Rows never meet, so tiles of ROWS rows are the units of parallel work; in a tile
 * the block is held transposed, [columns, ROWS], which turns every inner loop into a fixed number of independent rows.
 *
 * W is f32 and H double: the factor is where digits are lost.  H is divided by the mean of its diagonal first, so that its
 * unit does not matter.
 */
#include "quant/gptq.h"

#include <cblas.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant/linalg.h"
#include "quant/range.h"
#include "quant/refine.h"

enum { ROWS = 64, FACTOR_ROWS = 64 };

typedef struct {
    const nb_gptq_options *options;
    nb_codes     *out;
    const float  *weights;  /* [n, k] in the order of the model */
    const double *h;        /* [k, k] in the order of the model */
    int           n, k, width;
    int32_t      *order;    /* [k] the column at each step */
    int32_t      *group_of; /* [k] the group of each step's column */
    float        *energy;   /* [k] diag H over its mean at each step: weights of the range search */
    double       *y;        /* [k, k] */
    float        *w;        /* [n, k] in the order of the steps, updated */
    float        *u;        /* [width, k] rows begin .. end - 1 of U; element j is column begin + j */
    float        *scratch;  /* [threads, scratch_size] */
    size_t        scratch_size;
    double        unit, lambda;
    int           begin, end; /* the block */
} solver;

/* ---- order of the columns -------------------------------------------------------------------------------------------- */

typedef struct {
    double  first, second; /* larger first */
    int32_t group, column; /* then smaller first, which makes the sort stable */
} sort_key;

static int compare_keys(const void *left, const void *right)
{
    const sort_key *a = left, *b = right;
    if (a->first != b->first) return a->first > b->first ? -1 : 1;
    if (a->group != b->group) return a->group < b->group ? -1 : 1;
    if (a->second != b->second) return a->second > b->second ? -1 : 1;
    return a->column < b->column ? -1 : a->column > b->column;
}

/* FULL: all columns by falling diag H.  GROUP (GAR, arXiv 2505.14638): groups by their largest diag H, columns inside each
 * group by theirs; a short last group stays last. */
static nb_status choose_order(solver *s, nb_error *err)
{
    int k = s->k, group = s->out->group;
    nb_act_order order = s->options->order;
    sort_key *keys;
    NB_TRY(nb_alloc(&keys, (size_t)k, sizeof *keys, "column order", err));
    for (int c = 0; c < k; c++) {
        int g = order == NB_ORDER_GROUP ? c / group : 0, first = g * group;
        double energy = s->h[(size_t)c * k + c];
        keys[c] = (sort_key){ 0.0, energy, g, c };
        if (order != NB_ORDER_GROUP) continue;
        if (k - first < group)
            keys[c].first = -1.0;
        else
            keys[c].first = c > first && keys[c - 1].first > energy ? keys[c - 1].first : energy;
        if (c + 1 == first + group)
            for (int i = first; i < c; i++) keys[i].first = keys[c].first;
    }
    if (order != NB_ORDER_NONE) qsort(keys, (size_t)k, sizeof *keys, compare_keys);
    bool fixed_groups = order != NB_ORDER_FULL || s->options->static_groups;
    for (int i = 0; i < k; i++) {
        s->order[i] = keys[i].column;
        s->group_of[i] = (fixed_groups ? keys[i].column : i) / group;
    }
    free(keys);
    if (fixed_groups || s->out->groups == 1) return NB_OK;
    NB_TRY(nb_alloc(&s->out->g_idx, (size_t)k, sizeof(int32_t), "g_idx", err));
    for (int i = 0; i < k; i++) s->out->g_idx[s->order[i]] = s->group_of[i];
    return NB_OK;
}

/* ---- factor ---------------------------------------------------------------------------------------------------------- */

/* Rows of J (H / unit + lambda I) J, lower triangle.  A dead column is made one of the identity: it meets no other. */
static void fill_factor(void *context, size_t item, int thread)
{
    (void)thread;
    const solver *s = context;
    int k = s->k, first = (int)item * FACTOR_ROWS, last = first + FACTOR_ROWS < k ? first + FACTOR_ROWS : k;
    for (int r = first; r < last; r++) {
        const double *h = s->h + (size_t)s->order[k - 1 - r] * k;
        double *y = s->y + (size_t)r * k, self = h[s->order[k - 1 - r]];
        for (int c = 0; c <= r; c++) y[c] = self > 0.0 ? h[s->order[k - 1 - c]] / s->unit : 0.0;
        y[r] = self > 0.0 ? self / s->unit + s->lambda : 1.0;
    }
}

/* The same for the column of a dead input, which symmetry says is zero, but hostile numbers need not. */
static void clear_dead(solver *s)
{
    int k = s->k;
    for (int c = 0; c < k; c++) {
        int column = s->order[k - 1 - c];
        if (s->h[(size_t)column * k + column] > 0.0) continue;
        for (int r = c + 1; r < k; r++) s->y[(size_t)r * k + c] = 0.0;
    }
}

/* Raise the damping until the factorisation succeeds; *found is false when it does not at damp_max.  A pivot below
 * k * epsilon is rounding noise: with it U would be noise amplified, so it counts as failure. */
static nb_status find_factor(solver *s, nb_pool *pool, nb_gptq_report *report, bool *found, nb_error *err)
{
    double damp = s->options->damp, most = fmax(damp, s->options->damp_max);
    for (;;) {
        s->lambda = damp;
        nb_parallel(pool, ((size_t)s->k + FACTOR_ROWS - 1) / FACTOR_ROWS, fill_factor, s);
        clear_dead(s);
        NB_TRY(nb_cholesky_inverse(s->y, s->k, s->k * DBL_EPSILON, found, pool, err));
        report->damp = damp;
        if (*found || damp >= most) return NB_OK;
        damp = fmin(fmax(2.0 * damp, 0.01), most);
    }
}

/* u[t, j] = U[begin + t, begin + j] for one tile of j.  Below the diagonal it is left as it is: nobody reads it. */
static void fill_panel(void *context, size_t item, int thread)
{
    (void)thread;
    const solver *s = context;
    int k = s->k, ahead = k - s->begin, first = (int)item * 256, last = first + 256 < ahead ? first + 256 : ahead;
    for (int j = first; j < last; j++) {
        const double *y = s->y + (size_t)(k - 1 - s->begin - j) * k + (k - 1 - s->begin);
        for (int t = 0; t < s->end - s->begin && t <= j; t++) s->u[(size_t)t * k + j] = (float)y[-t];
    }
}

/* ---- the loop over columns ------------------------------------------------------------------------------------------- */

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
static nb_status fit_static_groups(solver *s, nb_pool *pool, nb_error *err)
{
    const nb_gptq_options *o = s->options;
    size_t groups = (size_t)s->n * (size_t)s->out->groups;
    nb_codes fitted;
    NB_TRY(nb_range_round(&fitted, s->weights, s->h, s->n, s->k, &o->grid, o->range, o->mse, pool, err));
    memcpy(s->out->scales, fitted.scales, groups * sizeof *fitted.scales);
    memcpy(s->out->zeros, fitted.zeros, groups);
    nb_codes_free(&fitted);
    return NB_OK;
}

/* Scales of the group that starts at step i, from the weights as they are now: columns of this block are in the tile, later
 * ones in w, where every earlier block has been applied (choose_end sees to it that no block ends inside a group that
 * started after the block did). */
static void fit_dynamic_group(const solver *s, const float *tile, int first, int rows, int i, float *row)
{
    int count = 1;
    while (i + count < s->k && s->group_of[i + count] == s->group_of[i]) count++;
    for (int r = 0; r < rows; r++) {
        for (int j = i; j < i + count; j++)
            row[j - i] = j < s->end ? tile[(j - s->begin) * ROWS + r] : s->w[(size_t)(first + r) * s->k + j];
        fit_group(s, row, s->energy + i, count, (size_t)(first + r) * s->out->groups + s->group_of[i]);
    }
}

/* One block of one tile of rows: round its columns, then give its errors to the columns after it. */
static void solve_tile(void *context, size_t item, int thread)
{
    const solver *s = context;
    nb_codes *out = s->out;
    int k = s->k, begin = s->begin, width = s->end - begin, first = (int)item * ROWS;
    int rows = s->n - first < ROWS ? s->n - first : ROWS;
    float *tile = s->scratch + (size_t)thread * s->scratch_size, *errors = tile + (size_t)s->width * ROWS;
    float *row = errors + (size_t)s->width * ROWS;
    float scale[ROWS], zero[ROWS], code[ROWS], e[ROWS], maxq = (float)((1 << out->bits) - 1);
    for (int r = 0; r < ROWS; r++) { /* rows past the last are zeros */
        scale[r] = 1.0f;
        zero[r] = 0.0f;
        for (int t = 0; t < width; t++) tile[t * ROWS + r] = r < rows ? s->w[(size_t)(first + r) * k + begin + t] : 0.0f;
    }
    for (int t = 0; t < width; t++) {
        int i = begin + t, g = s->group_of[i];
        bool starts = i == 0 || s->group_of[i - 1] != g;
        if (starts && !s->options->static_groups) fit_dynamic_group(s, tile, first, rows, i, row);
        if (starts || t == 0)
            for (int r = 0; r < rows; r++) {
                scale[r] = out->scales[(size_t)(first + r) * out->groups + g];
                zero[r] = (float)out->zeros[(size_t)(first + r) * out->groups + g];
            }
        const float *u = s->u + (size_t)t * k, *w = tile + t * ROWS;
        for (int r = 0; r < ROWS; r++) { /* e is local so that the compiler sees that it meets no other array */
            code[r] = nb_round_within(w[r] / scale[r], -zero[r], maxq - zero[r]);
            e[r] = (w[r] - code[r] * scale[r]) / u[t];
        }
        for (int j = t + 1; j < width; j++) {
            float *later = tile + j * ROWS, factor = u[j];
            for (int r = 0; r < ROWS; r++) later[r] -= e[r] * factor;
        }
        memcpy(errors + t * ROWS, e, sizeof e);
        for (int r = 0; r < rows; r++) out->codes[(size_t)(first + r) * k + s->order[i]] = (uint8_t)(code[r] + zero[r]);
    }
    if (s->end < k)
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, rows, k - s->end, width, -1.0f, errors, ROWS, s->u + width, k,
                    1.0f, s->w + (size_t)first * k + s->end, k);
}

/* The block ends where a group ends: a group that started inside a block and went on beyond it would be measured on columns
 * that still lack the block's errors.  A group wider than a block starts with one, and may be cut. */
static int choose_end(const solver *s)
{
    int end = s->begin + s->width;
    if (end >= s->k) return s->k;
    if (s->options->static_groups) return end;
    for (int i = end; i > s->begin; i--)
        if (s->group_of[i] != s->group_of[i - 1]) return i;
    return end;
}

static void solve(solver *s, nb_pool *pool)
{
    size_t tiles = ((size_t)s->n + ROWS - 1) / ROWS;
    for (int r = 0; r < s->n; r++)
        for (int i = 0; i < s->k; i++) s->w[(size_t)r * s->k + i] = s->weights[(size_t)r * s->k + s->order[i]];
    for (s->begin = 0; s->begin < s->k; s->begin = s->end) {
        s->end = choose_end(s);
        nb_parallel(pool, ((size_t)(s->k - s->begin) + 255) / 256, fill_panel, s);
        nb_parallel_blas(pool, tiles, solve_tile, s);
    }
}

/* ---- the whole ------------------------------------------------------------------------------------------------------- */

static nb_status check_options(const nb_gptq_options *o, nb_error *err)
{
    NB_TRY(nb_grid_check(&o->grid, err));
    if (!(o->damp >= 0.0) || !isfinite(o->damp) || !isfinite(o->damp_max))
        return nb_fail(err, NB_ERR_ARGUMENT, "GPTQ: damping %g up to %g is not possible: use 0.01 up to 1", o->damp, o->damp_max);
    if (o->block <= 0) return nb_fail(err, NB_ERR_ARGUMENT, "GPTQ: a block of %d columns is not possible: use 128", o->block);
    if (!(o->mse >= 0.0f) || !isfinite(o->mse))
        return nb_fail(err, NB_ERR_ARGUMENT, "GPTQ: %g is no exponent of the range search: use 2.4, or 0 for none", (double)o->mse);
    if (o->range == NB_RANGE_BLOCK && !o->static_groups)
        return nb_fail(err, NB_ERR_ARGUMENT, "GPTQ: ranges by blocks of the Gram matrix need static groups");
    if (o->sweeps < 0) return nb_fail(err, NB_ERR_ARGUMENT, "GPTQ: %d sweeps of refinement are not possible: use 2, or 0 for none", o->sweeps);
    if (o->order != NB_ORDER_NONE && o->order != NB_ORDER_GROUP && o->order != NB_ORDER_FULL)
        return nb_fail(err, NB_ERR_ARGUMENT, "GPTQ: unknown order of columns %d", (int)o->order);
    return NB_OK;
}

static nb_status prepare(solver *s, nb_pool *pool, nb_error *err)
{
    size_t n = (size_t)s->n, k = (size_t)s->k, width = (size_t)s->width;
    s->scratch_size = 2 * width * ROWS + k;
    NB_TRY(nb_alloc(&s->order, k, sizeof *s->order, "GPTQ column order", err));
    NB_TRY(nb_alloc(&s->group_of, k, sizeof *s->group_of, "GPTQ column groups", err));
    NB_TRY(nb_alloc(&s->energy, k, sizeof *s->energy, "GPTQ energies", err));
    NB_TRY(nb_alloc(&s->y, k * k, sizeof *s->y, "GPTQ factor of the Gram matrix", err));
    NB_TRY(nb_alloc(&s->w, n * k, sizeof *s->w, "GPTQ working weights", err));
    NB_TRY(nb_alloc(&s->u, width * k, sizeof *s->u, "GPTQ block of the factor", err));
    NB_TRY(nb_alloc(&s->scratch, (size_t)nb_pool_threads(pool) * s->scratch_size, sizeof *s->scratch, "GPTQ tiles", err));
    NB_TRY(choose_order(s, err));
    for (size_t i = 0; i < k; i++) s->energy[i] = (float)(s->h[(size_t)s->order[i] * (k + 1)] / s->unit);
    return NB_OK;
}

static nb_status loss_of(const solver *s, const nb_codes *codes, nb_pool *pool, double *loss, nb_error *err)
{
    nb_codes_dequantize(codes, s->w); /* no longer needed as weights */
    *loss = nb_gram_loss(s->weights, s->w, s->h, s->n, s->k, pool) / s->n;
    if (isnan(*loss)) return nb_fail(err, NB_ERR_MEMORY, "no memory for the loss of a matrix of %d x %d", s->n, s->k);
    return NB_OK;
}

static nb_status solve_or_round(solver *s, nb_codes *nearest, nb_pool *pool, nb_gptq_report *report, nb_error *err)
{
    bool found;
    NB_TRY(prepare(s, pool, err));
    NB_TRY(find_factor(s, pool, report, &found, err));
    if (found && s->options->static_groups) NB_TRY(fit_static_groups(s, pool, err));
    if (found) solve(s, pool);
    free(s->y); /* the refinement needs as much */
    s->y = NULL;
    if (found && s->options->sweeps > 0) {
        nb_refine_options r = { .sweeps = s->options->sweeps, .scales = true, .damp = report->damp };
        NB_TRY(nb_refine(s->out, s->weights, s->h, s->options->grid.sym, &r, pool, err));
    }
    if (found) NB_TRY(loss_of(s, s->out, pool, &report->loss, err));
    NB_TRY(nb_rtn(nearest, s->weights, s->n, s->k, &s->options->grid, pool, err));
    NB_TRY(loss_of(s, nearest, pool, &report->rtn_loss, err));
    if (!found || report->loss > report->rtn_loss * (1.0 + 1e-9)) {
        nb_codes swap = *s->out;
        *s->out = *nearest;
        *nearest = swap;
        report->loss = report->rtn_loss;
        report->fallback = true;
    }
    return NB_OK;
}

nb_status nb_gptq(nb_codes *out, const float *w, const double *h, int n, int k, const nb_gptq_options *options, nb_pool *pool,
                  nb_gptq_report *report, nb_error *err)
{
    *out = (nb_codes){ 0 };
    *report = (nb_gptq_report){ 0 };
    NB_TRY(check_options(options, err));
    NB_TRY(nb_codes_init(out, n, k, &options->grid, err));
    solver s = { .options = options, .out = out, .weights = w, .h = h, .n = n, .k = k };
    s.width = options->block < k ? options->block : k;
    nb_codes nearest = { 0 };
    nb_status status = nb_check_weights(w, n, k, err);
    if (status == NB_OK) status = nb_check_gram(h, k, err);
    if (status == NB_OK) {
        s.unit = nb_gram_mean(h, k, &report->dead);
        status = solve_or_round(&s, &nearest, pool, report, err);
    }
    free(s.order);
    free(s.group_of);
    free(s.energy);
    free(s.y);
    free(s.w);
    free(s.u);
    free(s.scratch);
    nb_codes_free(&nearest);
    if (status != NB_OK) nb_codes_free(out);
    return status;
}
