/* layer_solve.c - from floats and statistics to codes, one site at a time: which solver, and what it reports.
 *
 * What takes the place of a float matrix is what the file holds: codes and 16-bit scales after rounding.
 */
#include <stdlib.h>
#include <string.h>

#include "calib/ranks.h"
#include "quant/layer_work.h"
#include "quant/range.h"
#include "quant/refine.h"
#include "quant/smooth.h"

static const char *const site_names[NB_SITES] = {"self_attn.q_proj, k_proj, v_proj", "self_attn.o_proj",
                                                 "mlp.gate_proj, up_proj", "mlp.down_proj"};

nb_matrix_report *nb_layer_matrix(nb_layer_work *l, int i)
{
    return &l->job->report->matrices[l->index * NB_LINEARS + i];
}

/* Mean squared error of an output, over tokens and rows, of codes for w on inputs with Gram matrix h.  Rows that AWQ divided
 * (divisor [n], or NULL) count as what they become again in the consumer that was multiplied, so that losses compare. */
static nb_status loss_of(double *out, const nb_codes *c, const float *w, const float *divisor, const double *h, nb_pool *pool,
                         nb_error *err)
{
    float *q;
    NB_TRY(nb_alloc(&q, (size_t)c->n * (size_t)c->k, sizeof *q, "a dequantized matrix", err));
    nb_codes_dequantize(c, q);
    for (int r = 0; divisor && r < c->n; r++)
        for (int i = 0; i < c->k; i++) {
            size_t at = (size_t)r * c->k + i;
            q[at] = w[at] - (w[at] - q[at]) * divisor[r];
        }
    *out = nb_gram_loss(w, q, h, c->n, c->k, pool) / c->n;
    free(q);
    return NB_OK;
}

/* From here on the layer runs with the codes in place of the float matrix. */
static void take_codes(nb_layer_work *l, int i)
{
    const nb_codes *c = &l->codes[i];
    l->now[i] = (nb_linear){.weights = {.kind = c->bits == 4 ? NB_W_INT4 : NB_W_INT8, .n = c->n, .k = c->k, .group = c->group,
                                        .codes = c->codes, .scales = c->scales, .zeros = c->zeros, .g_idx = c->g_idx},
                            .bias = i <= NB_V ? l->f.bias[i] : NULL};
    free(l->f.w[i]);
    l->f.w[i] = NULL;
}

/* The matrices of a site share its factor. */
static nb_status factor_of(nb_layer_work *l, int i, double *h, const nb_gptq_options *options, nb_error *err)
{
    nb_moment start = nb_moment_now();
    double    k = l->f.k[i];
    if (l->factor && nb_gptq_factor_fits(l->factor, options)) return NB_OK;
    nb_gptq_factor_free(l->factor);
    NB_TRY(nb_gptq_factor_new(&l->factor, h, l->f.k[i], options, l->job->ops->pool, err));
    nb_job_spent(l->job, NB_PHASE_FACTOR, start, k * k * k / 3);
    return NB_OK;
}

static nb_status solve_gptq(nb_layer_work *l, int i, double *h, nb_error *err)
{
    const nb_quantize_options *o = &l->job->options;
    nb_gptq_options            options = {.grid = l->grid[i], .damp = o->damp, .damp_max = o->damp_max, .block = o->block,
                                          .order = o->order, .static_groups = o->static_groups, .mse = o->mse,
                                          .range = o->range, .sweeps = o->sweeps};
    nb_gptq_report             r = {0};
    NB_TRY(factor_of(l, i, h, &options, err));
    nb_moment start = nb_moment_now();
    double    k = l->f.k[i];
    NB_TRY(nb_gptq_solve(&l->codes[i], l->f.w[i], l->f.n[i], l->factor, &options, l->job->ops->pool, &r, err));
    nb_job_spent(l->job, NB_PHASE_SOLVE, start, 2.0 * l->f.n[i] * k * k);
    nb_matrix_report *m = nb_layer_matrix(l, i);
    m->loss = r.loss;
    m->rtn_loss = r.rtn_loss;
    m->damp = r.damp;
    m->dead = r.dead;
    m->fallback = r.fallback;
    return NB_OK;
}

static nb_status solve_rtn(nb_layer_work *l, int i, nb_error *err)
{
    return nb_rtn(&l->codes[i], l->f.w[i], l->f.n[i], l->f.k[i], &l->grid[i], l->job->ops->pool, err);
}

/* AutoAWQ's clamp, or the range search in its place.  The clamp leaves q and k alone: their errors meet in a product and a softmax,
 * which the error of either alone does not tell. */
static nb_status solve_awq(nb_layer_work *l, int i, const double *h, nb_error *err)
{
    const nb_quantize_options *o = &l->job->options;
    size_t    bytes = (size_t)l->f.n[i] * (size_t)l->f.k[i] * sizeof(float);
    float    *before = NULL;
    nb_pool  *pool = l->job->ops->pool;
    nb_status status = NB_OK;
    if (o->range == NB_RANGE_FULL && o->awq_clip && i != NB_Q && i != NB_K) {
        NB_TRY(nb_alloc(&before, 1, bytes, "a matrix before clipping", err));
        memcpy(before, l->f.w[i], bytes);
        status = nb_awq_clip(l->f.w[i], h, l->f.n[i], l->f.k[i], &l->grid[i], pool, err);
    }
    if (!status)
        status = nb_range_round(&l->codes[i], l->f.w[i], h, l->f.n[i], l->f.k[i], &l->grid[i], o->range, o->mse, pool, err);
    if (!status && o->sweeps > 0) {
        nb_refine_options r = {.sweeps = o->sweeps, .scales = true, .damp = o->damp};
        status = nb_refine(&l->codes[i], before ? before : l->f.w[i], h, l->grid[i].sym, &r, pool, err);
    }
    if (!status) status = loss_of(&nb_layer_matrix(l, i)->loss, &l->codes[i], before ? before : l->f.w[i], l->f.divisor[i], h, pool, err);
    free(before);
    return status;
}

nb_status nb_layer_step(nb_layer_work *l, nb_site site, nb_error *err)
{
    return nb_job_step(l->job, err, "layer %d of %d: %s", l->index + 1, l->job->model->config.layers, site_names[site]);
}

static nb_status solve_matrix(nb_layer_work *l, int i, double *h, nb_error *err)
{
    nb_method method = l->job->options.method;
    nb_moment start = nb_moment_now();
    if (method == NB_METHOD_GPTQ || method == NB_METHOD_AWQ_GPTQ) return solve_gptq(l, i, h, err);
    nb_status status = method == NB_METHOD_AWQ ? solve_awq(l, i, h, err) : solve_rtn(l, i, err);
    nb_job_spent(l->job, NB_PHASE_SOLVE, start, 0);
    return status;
}

/* Every rank gets what AWQ made of a matrix that stays float, of the biases and of the norms on rank 0. */
static nb_status share_floats(nb_layer_work *l, int i, nb_error *err)
{
    size_t hidden = (size_t)l->job->model->config.hidden, n = (size_t)l->f.n[i], k = (size_t)l->f.k[i];
    if (l->kept[i]) NB_TRY(nb_ranks_share(l->kept[i], n * k * nb_dtype_size(l->kept_dtype[i]), err));
    if (i <= NB_V) NB_TRY(nb_ranks_share(l->f.bias[i], n * sizeof *l->f.bias[i], err));
    return i < 2 ? nb_ranks_share(l->f.norm[i], hidden * sizeof *l->f.norm[i], err) : NB_OK;
}

/* ... and the codes that it found. */
static nb_status share_matrix(nb_layer_work *l, int i, nb_error *err)
{
    nb_codes *c = &l->codes[i];
    int32_t   has_g_idx = c->g_idx != NULL;
    if (nb_ranks_count() == 1) return NB_OK;
    if (nb_ranks_mine()) NB_TRY(nb_codes_init(c, l->f.n[i], l->f.k[i], &l->grid[i], err));
    size_t n = (size_t)c->n, k = (size_t)c->k, groups = (size_t)c->groups;
    NB_TRY(nb_ranks_share(&has_g_idx, sizeof has_g_idx, err));
    if (has_g_idx && !c->g_idx) NB_TRY(nb_alloc(&c->g_idx, k, sizeof *c->g_idx, "a group index", err));
    NB_TRY(nb_ranks_share(c->codes, n * k, err));
    NB_TRY(nb_ranks_share(c->scales, n * groups * sizeof *c->scales, err));
    NB_TRY(nb_ranks_share(c->zeros, n * groups, err));
    if (has_g_idx) NB_TRY(nb_ranks_share(c->g_idx, k * sizeof *c->g_idx, err));
    return share_floats(l, i, err);
}

/* One matrix from float to what it will be; its source is given back unless the float layer is run again. */
static nb_status solve_linear(nb_layer_work *l, int i, double *h, nb_error *err)
{
    nb_moment start = nb_moment_now();
    if (l->keep[i] || !nb_ranks_mine()) NB_TRY(nb_float_layer_floats(&l->f, i, l->job->ops->pool, err));
    nb_job_spent(l->job, NB_PHASE_READ, start, 0);
    if (l->keep[i]) {
        NB_TRY(nb_layer_keep(l, i, err));
        NB_TRY(share_floats(l, i, err));
    } else {
        if (!nb_ranks_mine()) NB_TRY(solve_matrix(l, i, h, err));
        NB_TRY(share_matrix(l, i, err));
        take_codes(l, i);
    }
    if (!l->keep_source) nb_linear_free(&l->f.source[i]);
    return NB_OK;
}

nb_status nb_layer_solve(nb_layer_work *l, nb_site site, nb_error *err)
{
    nb_status status = NB_OK;
    for (int i = nb_site_first[site]; i < nb_site_first[site] + nb_site_count[site] && !status; i++) {
        status = solve_linear(l, i, l->stats[site].gram, err);
        if (status) nb_error_within(err, "%s", l->f.name[i]);
    }
    nb_gptq_factor_free(l->factor);
    l->factor = NULL;
    nb_stats_free(&l->stats[site]);
    return status;
}

nb_status nb_layer_smooth(nb_layer_work *l, nb_error *err)
{
    nb_job        *job = l->job;
    nb_pool       *pool = job->ops->pool;
    nb_awq_options options[NB_SITES];
    nb_awq_report  reports[NB_SITES];
    double        *gram[NB_SITES];
    float         *mean_abs[NB_SITES] = {0};
    nb_moment      start = nb_moment_now();
    nb_status      status = NB_OK;
    for (int i = 0; i < NB_LINEARS && !status; i++) status = nb_float_layer_floats(&l->f, i, pool, err);
    for (int site = 0; site < NB_SITES && !status; site++) {
        nb_stats *st = &l->stats[site];
        int       first = nb_site_first[site];
        options[site] = (nb_awq_options){.points = job->options.awq_points, .duo = job->options.awq_duo};
        if (!l->keep[first]) options[site].grid = l->grid[first]; /* all matrices of a site are alike */
        gram[site] = st->gram;
        status = nb_alloc(&mean_abs[site], (size_t)st->k, sizeof(float), "channel magnitudes", err);
        if (!status) nb_stats_mean_abs(st, mean_abs[site]);
        for (int i = first; i < first + nb_site_count[site] && !status && !l->keep[first]; i++) {
            status = solve_rtn(l, i, err);
            if (!status) status = loss_of(&nb_layer_matrix(l, i)->rtn_loss, &l->codes[i], l->f.w[i], NULL, st->gram, pool, err);
            nb_codes_free(&l->codes[i]);
        }
    }
    if (!status)
        status = nb_smooth_layer(&l->f, &job->model->config, gram, (const float *const *)mean_abs, options, pool, l->scale, reports, err);
    for (int site = 0; site < NB_SITES && !status; site++)
        for (int i = nb_site_first[site]; i < nb_site_first[site] + nb_site_count[site]; i++)
            nb_layer_matrix(l, i)->ratio = reports[site].ratio;
    for (int site = 0; site < NB_SITES; site++) {
        free(mean_abs[site]);
        if (job->options.asym || job->options.method == NB_METHOD_AWQ_GPTQ) nb_stats_free(&l->stats[site]); /* taken again */
    }
    nb_job_spent(job, NB_PHASE_SOLVE, start, 0);
    return status;
}
