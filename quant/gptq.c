/* gptq.c - GPTQ's order of columns and its factor of H; the loop over the columns is in gptq_solve.c.
 *
 * With H = X'X + lambda I and U the upper triangular factor of H^-1 = U'U, column i of W is rounded to q_i and the columns
 * after it take over its error (the paper's equations 2 and 3 through the Cholesky form of its section 3.3):
 *
 *     e = (w_i - q_i) / U_ii          w_j -= e U_ij   for j > i
 *
 * H^-1 is never made.  With J the reversal of the order of columns, J H J = L L' gives H = R R' with R = J L J upper
 * triangular, and U = R^-1.  Before the block b of columns, after the columns < b were rounded with errors D = W - Q, the
 * weights as all those updates would have left them are
 *
 *     w_b = W_b + (D_<b R_<b,b) R_bb^-1        (minimise tr(D H D') over the columns that are left)
 *
 * so one triangular factor, and the inverses of its small diagonal blocks, do everything.  The errors of GPTQ's rounding are
 * e = D R, and so the loss comes for nothing: tr(D H D') = |e|^2 - lambda |D|^2.
 *
 * H stays above the diagonal, for another damping or another order; L is put below it.  H is divided by the mean of its
 * diagonal first, so that its unit does not matter.
 */
#include "quant/gptq.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant/gptq_factor.h"

enum { FACTOR_ROWS = 64 };

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

static bool fixed_groups(const nb_gptq_options *o)
{
    return o->order != NB_ORDER_FULL || o->static_groups;
}

/* FULL: all columns by falling diag H.  GROUP (GAR, arXiv 2505.14638): groups by their largest diag H, columns inside each
 * group by theirs; a short last group stays last. */
static nb_status choose_order(nb_gptq_factor *f, nb_error *err)
{
    int k = f->k, group = f->options.grid.group;
    nb_act_order order = f->options.order;
    sort_key *keys;
    NB_TRY(nb_alloc(&keys, (size_t)k, sizeof *keys, "column order", err));
    for (int c = 0; c < k; c++) {
        int g = order == NB_ORDER_GROUP ? c / group : 0, first = g * group;
        double energy = f->h[(size_t)c * k + c];
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
    for (int i = 0; i < k; i++) {
        f->order[i] = keys[i].column;
        f->group_of[i] = (fixed_groups(&f->options) ? keys[i].column : i) / group;
    }
    free(keys);
    f->has_g_idx = !fixed_groups(&f->options) && f->groups > 1;
    return NB_OK;
}

/* The block ends where a group ends: a group is measured when it starts, on weights that have the errors of all earlier blocks,
 * and those of a later block are not at hand.  (One group for the whole row starts before there are errors, and may be cut.) */
static nb_status choose_blocks(nb_gptq_factor *f, nb_error *err)
{
    bool dynamic = !f->options.static_groups && f->groups > 1;
    f->width = f->options.block;
    if (dynamic && f->options.grid.group > f->width) f->width = f->options.grid.group;
    if (f->width > f->k) f->width = f->k;
    NB_TRY(nb_alloc(&f->end, (size_t)f->k, sizeof *f->end, "GPTQ blocks", err));
    for (int begin = 0, end; begin < f->k; begin = end) {
        end = begin + f->width < f->k ? begin + f->width : f->k;
        for (int i = end; dynamic && end < f->k && i > begin; i--)
            if (f->group_of[i] != f->group_of[i - 1]) {
                end = i;
                break;
            }
        f->end[f->blocks++] = end;
    }
    return NB_OK;
}

/* ---- factor ---------------------------------------------------------------------------------------------------------- */

/* Rows of J (H / unit + lambda I) J, lower triangle.  A dead column is made one of the identity: it meets no other. */
static void fill_rows(void *context, size_t item, int thread)
{
    (void)thread;
    const nb_gptq_factor *f = context;
    int k = f->k, begin = (int)item * FACTOR_ROWS, end = begin + FACTOR_ROWS < k ? begin + FACTOR_ROWS : k;
    for (int r = begin; r < end; r++) {
        int    row = f->order[k - 1 - r], square = r / NB_LOWER_TILE * NB_LOWER_TILE;
        double self = f->h[(size_t)row * k + row], *left = nb_lower_at(&f->lower, r, 0), *here = nb_lower_at(&f->lower, r, square);
        for (int c = 0; c <= r; c++) {
            int    column = f->order[k - 1 - c];
            bool   live = self > 0.0 && f->h[(size_t)column * k + column] > 0.0;
            double value = !live ? 0.0 : f->h[row < column ? (size_t)row * k + column : (size_t)column * k + row] / f->unit;
            if (c == r) value = live ? value + f->lambda : 1.0;
            *(c < square ? left + c : here + (c - square)) = value;
        }
    }
}

/* Raise the damping until the factorisation succeeds; found is false when it does not at damp_max.  A pivot below
 * k * epsilon is rounding noise: with it U would be noise amplified, so it counts as failure. */
static nb_status find_factor(nb_gptq_factor *f, nb_pool *pool, nb_error *err)
{
    double damp = f->options.damp, most = fmax(damp, f->options.damp_max);
    for (;;) {
        f->lambda = f->damp = damp;
        nb_parallel(pool, ((size_t)f->k + FACTOR_ROWS - 1) / FACTOR_ROWS, fill_rows, f);
        NB_TRY(nb_lower_factor(&f->lower, f->k * DBL_EPSILON, &f->found, pool, err));
        if (f->found || damp >= most) return NB_OK;
        damp = fmin(fmax(2.0 * damp, 0.01), most);
    }
}

/* R_bb^-1 of one block, row by row from the last:  V_tj = -(sum_{t < s <= j} R_ts V_sj) / R_tt,  V_tt = 1 / R_tt. */
static void invert_block(void *context, size_t item, int thread)
{
    (void)thread;
    const nb_gptq_factor *f = context;
    int     begin = item ? f->end[item - 1] : 0, n = f->end[item] - begin;
    double *v = calloc((size_t)n * (size_t)n, sizeof *v);
    for (int t = n - 1; t >= 0; t--) {
        double pivot = nb_gptq_r(f, begin + t, begin + t);
        f->pivot[begin + t] = (float)pivot;
        float *out = f->inverse + (size_t)(begin + t) * f->width;
        if (!v) { /* NaN, which the solver takes for a matrix without a factor */
            for (int j = 0; j < n; j++) out[j] = NAN;
            continue;
        }
        double *row = v + (size_t)t * n;
        for (int s = t + 1; s < n; s++) {
            double r = nb_gptq_r(f, begin + t, begin + s);
            for (int j = s; j < n; j++) row[j] -= r * v[(size_t)s * n + j];
        }
        for (int j = t + 1; j < n; j++) row[j] /= pivot;
        row[t] = 1.0 / pivot;
        for (int j = 0; j < n; j++) out[j] = (float)row[j];
    }
    free(v);
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

static nb_status make_factor(nb_gptq_factor *f, nb_pool *pool, nb_error *err)
{
    size_t k = (size_t)f->k;
    NB_TRY(nb_check_gram(f->h, f->k, pool, err));
    f->unit = nb_gram_mean(f->h, f->k, &f->dead);
    NB_TRY(nb_alloc(&f->order, k, sizeof *f->order, "GPTQ column order", err));
    NB_TRY(nb_alloc(&f->group_of, k, sizeof *f->group_of, "GPTQ column groups", err));
    NB_TRY(choose_order(f, err));
    NB_TRY(choose_blocks(f, err));
    NB_TRY(nb_lower_init(&f->lower, f->h, f->k, err));
    NB_TRY(find_factor(f, pool, err));
    if (!f->found) return NB_OK;
    NB_TRY(nb_alloc(&f->inverse, k * (size_t)f->width, sizeof *f->inverse, "GPTQ blocks of the factor", err));
    NB_TRY(nb_alloc(&f->pivot, k, sizeof *f->pivot, "GPTQ pivots", err));
    nb_parallel(pool, (size_t)f->blocks, invert_block, f);
    for (size_t i = 0; i < k; i++)
        if (isnan(f->inverse[i * (size_t)f->width])) return nb_fail(err, NB_ERR_MEMORY, "no memory for a block of a factor");
    return NB_OK;
}

nb_status nb_gptq_factor_new(nb_gptq_factor **out, double *h, int k, const nb_gptq_options *options, nb_pool *pool, nb_error *err)
{
    nb_gptq_factor *f;
    *out = NULL;
    NB_TRY(check_options(options, err));
    if (k <= 0) return nb_fail(err, NB_ERR_ARGUMENT, "GPTQ: %d inputs cannot be quantised", k);
    NB_TRY(nb_alloc(&f, 1, sizeof *f, "a GPTQ factor", err));
    f->options = *options;
    if (f->options.grid.group <= 0) f->options.grid.group = k;
    f->k = k;
    f->h = h;
    f->groups = k / f->options.grid.group + (k % f->options.grid.group != 0);
    nb_status status = make_factor(f, pool, err);
    if (status)
        nb_gptq_factor_free(f);
    else
        *out = f;
    return status;
}

void nb_gptq_factor_free(nb_gptq_factor *f)
{
    if (!f) return;
    nb_lower_free(&f->lower);
    free(f->order);
    free(f->group_of);
    free(f->end);
    free(f->inverse);
    free(f->pivot);
    free(f);
}

bool nb_gptq_factor_fits(const nb_gptq_factor *f, const nb_gptq_options *o)
{
    int group = o->grid.group > 0 ? o->grid.group : f->k;
    return group == f->options.grid.group && o->damp == f->options.damp && o->damp_max == f->options.damp_max &&
           o->block == f->options.block && o->order == f->options.order && o->static_groups == f->options.static_groups;
}

nb_status nb_gptq(nb_codes *out, const float *w, const double *h, int n, int k, const nb_gptq_options *options, nb_pool *pool,
                  nb_gptq_report *report, nb_error *err)
{
    nb_gptq_factor *f;
    double         *copy;
    *out = (nb_codes){ 0 };
    *report = (nb_gptq_report){ 0 };
    NB_TRY(check_options(options, err));
    NB_TRY(nb_alloc(&copy, (size_t)k * (size_t)k, sizeof *copy, "a Gram matrix", err));
    memcpy(copy, h, (size_t)k * (size_t)k * sizeof *copy);
    nb_status status = nb_gptq_factor_new(&f, copy, k, options, pool, err);
    if (!status) status = nb_gptq_solve(out, w, n, f, options, pool, report, err);
    nb_gptq_factor_free(f);
    free(copy);
    return status;
}
