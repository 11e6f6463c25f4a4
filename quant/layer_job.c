/* layer_job.c - one decoder layer: read it, see what comes into its linears, solve them, write them, run it.
 *
 *     round to nearest   solve
 *     AWQ                statistics of the float layer at all four sites, fold the scales, clip, solve
 *     GPTQ               true_sequential: for each site in order, statistics with all earlier sites quantised, solve
 *                        otherwise: statistics of the float layer at all four sites, solve
 *
 * and then the outputs, from the quantised layer or from the float one, are the inputs of the next layer.  What runs here is
 * what the file holds: codes, 16-bit scales, norms and biases after rounding.
 */
#include "quant/layer_job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/smooth.h"

typedef struct {
    nb_job        *job;
    int            index;
    nb_float_layer f;
    nb_linear      now[NB_LINEARS];   /* the layer as it is: float, and codes once solved; borrows all its arrays */
    nb_codes       codes[NB_LINEARS];
    nb_stats       stats[NB_SITES];   /* k = 0: not wanted in the pass */
    double         gram_s;            /* time in the tap */
} layer_job;

static const char *const site_names[NB_SITES] = {"self_attn.q_proj, k_proj, v_proj", "self_attn.o_proj",
                                                 "mlp.gate_proj, up_proj", "mlp.down_proj"};

/* ---- declaring and writing --------------------------------------------------------------------------------------------- */

static nb_status declare(nb_writer *w, const char *prefix, const char *suffix, nb_dtype dtype, size_t rows, size_t columns,
                         nb_error *err)
{
    char           name[128];
    const uint64_t shape[2] = {rows, columns};
    snprintf(name, sizeof name, "%s%s", prefix, suffix);
    return nb_writer_declare(w, name, dtype, columns ? 2 : 1, shape, err);
}

static nb_status declare_linear(nb_job *job, const nb_float_layer *f, int i, nb_error *err)
{
    const nb_quantize_options *o = &job->options;
    size_t n = (size_t)f->n[i], k = (size_t)f->k[i], group = o->grid.group ? (size_t)o->grid.group : k;
    size_t groups = (k + group - 1) / group, fields = 32 / (size_t)o->grid.bits;
    bool   awq = o->format == NB_FORMAT_AWQ;
    NB_TRY(declare(job->writer, f->name[i], ".qweight", NB_I32, awq ? k : k / fields, awq ? n / fields : n, err));
    NB_TRY(declare(job->writer, f->name[i], ".qzeros", NB_I32, groups, n / fields, err));
    NB_TRY(declare(job->writer, f->name[i], ".scales", NB_F16, groups, n, err));
    return awq ? NB_OK : declare(job->writer, f->name[i], ".g_idx", NB_I32, k, 0, err);
}

static nb_status declare_vector(nb_job *job, const char *name, nb_error *err)
{
    const nb_entry *e = nb_checkpoint_find(job->model->checkpoint, name);
    if (!e)
        return nb_fail(err, NB_ERR_INPUT, "%s: tensor '%s' is missing", nb_checkpoint_path(job->model->checkpoint), name);
    const nb_tensor *t = e->tensor;
    return nb_writer_declare(job->writer, name, nb_plain_dtype(&job->plain, t->dtype), t->rank, t->shape, err);
}

nb_status nb_layer_job_declare(nb_job *job, int layer, nb_error *err)
{
    nb_float_layer f;
    nb_float_layer_shape(&f, &job->model->config, layer);
    for (int i = 0; i < 2; i++) NB_TRY(declare_vector(job, f.norm_name[i], err));
    for (int i = 0; i < NB_LINEARS; i++) {
        char bias[80];
        NB_TRY(declare_linear(job, &f, i, err));
        snprintf(bias, sizeof bias, "%s.bias", f.name[i]);
        if (i <= NB_V) NB_TRY(declare_vector(job, bias, err));
    }
    return NB_OK;
}

static nb_status write_part(nb_job *job, const char *prefix, const char *suffix, const void *data, size_t bytes, nb_error *err)
{
    char name[128];
    snprintf(name, sizeof name, "%s%s", prefix, suffix);
    return nb_writer_tensor(job->writer, name, data, bytes, err);
}

static nb_status write_codes(nb_job *job, const char *name, const nb_codes *c, nb_error *err)
{
    nb_packed p;
    NB_TRY(nb_pack(&p, c, job->options.format, name, err));
    nb_status status = write_part(job, name, ".qweight", p.qweight, p.qweight_shape[0] * p.qweight_shape[1] * 4, err);
    if (!status) status = write_part(job, name, ".qzeros", p.qzeros, p.qzeros_shape[0] * p.qzeros_shape[1] * 4, err);
    if (!status) status = write_part(job, name, ".scales", p.scales, p.scales_shape[0] * p.scales_shape[1] * 2, err);
    if (!status && p.g_idx) status = write_part(job, name, ".g_idx", p.g_idx, (size_t)c->k * 4, err);
    nb_packed_free(&p);
    return status;
}

static nb_status write_vector(nb_job *job, const char *prefix, const char *suffix, const float *values, int n, nb_dtype dtype,
                              nb_error *err)
{
    size_t bytes = (size_t)n * nb_dtype_size(dtype);
    void  *data;
    NB_TRY(nb_alloc(&data, 1, bytes, prefix, err));
    nb_from_f32(data, dtype, values, (size_t)n);
    nb_status status = write_part(job, prefix, suffix, data, bytes, err);
    free(data);
    return status;
}

static nb_status write_layer(layer_job *l, nb_error *err)
{
    double start = nb_seconds();
    for (int i = 0; i < 2; i++)
        NB_TRY(write_vector(l->job, l->f.norm_name[i], "", l->f.norm[i], l->job->model->config.hidden, l->f.norm_dtype[i], err));
    for (int i = 0; i < NB_LINEARS; i++) {
        NB_TRY(write_codes(l->job, l->f.name[i], &l->codes[i], err));
        if (i <= NB_V) NB_TRY(write_vector(l->job, l->f.name[i], ".bias", l->f.bias[i], l->f.n[i], l->f.bias_dtype[i], err));
    }
    l->job->report->write_s += nb_seconds() - start;
    return NB_OK;
}

/* ---- running ----------------------------------------------------------------------------------------------------------- */

static void tap(void *context, nb_site site, const float *x, size_t ld, size_t rows, int k, const uint8_t *modality)
{
    layer_job *l = context;
    (void)k; /* the site's own */
    if (!l->stats[site].k) return;
    double start = nb_seconds();
    nb_stats_add(&l->stats[site], l->job->ops, x, ld, rows, modality, l->job->options.modality_weights);
    l->gram_s += nb_seconds() - start;
}

/* Pack the given linears and run them over all samples. */
static nb_status run_layer(layer_job *l, const nb_linear linears[NB_LINEARS], bool watch, bool keep, nb_error *err)
{
    nb_job  *job = l->job;
    nb_layer packed;
    double   start = nb_seconds();
    l->gram_s = 0;
    nb_sample_tap   watcher = {.site = tap, .context = l};
    NB_TRY(nb_layer_pack(&job->model->ops, &packed, &job->model->config, l->f.norm[0], l->f.norm[1], linears, err));
    nb_status status = nb_samples_layer(&job->samples, job->model, &packed, watch ? &watcher : NULL, keep, err);
    nb_layer_release(&job->model->ops, &packed);
    job->report->gram_s += l->gram_s;
    job->report->forward_s += nb_seconds() - start - l->gram_s;
    return status;
}

/* Statistics of sites first .. last of the layer as it is now. */
static nb_status watch_sites(layer_job *l, nb_site first, nb_site last, bool keep, nb_error *err)
{
    const nb_samples *s = &l->job->samples;
    for (int site = (int)first; site <= (int)last; site++)
        NB_TRY(nb_stats_init(&l->stats[site], l->f.k[nb_site_first[site]], err));
    NB_TRY(run_layer(l, l->now, true, keep, err));
    for (int site = (int)first; site <= (int)last; site++) {
        nb_stats *st = &l->stats[site];
        uint64_t  seen = st->tokens[0] + st->tokens[1] + st->tokens[2];
        if (seen != s->tokens)
            return nb_fail(err, NB_ERR_DIFFERENT, "%s: saw %llu tokens of %zu; this is a bug in nibble",
                           l->f.name[nb_site_first[site]], (unsigned long long)seen, s->tokens);
        nb_stats_finish(st);
        float max = nb_stats_max(st);
        if (!(max <= l->job->report->max_input)) l->job->report->max_input = max;
    }
    return NB_OK;
}

/* ---- solving ----------------------------------------------------------------------------------------------------------- */

static nb_matrix_report *report_of(layer_job *l, int i)
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
static void take_codes(layer_job *l, int i)
{
    const nb_codes *c = &l->codes[i];
    l->now[i] = (nb_linear){.weights = {.kind = c->bits == 4 ? NB_W_INT4 : NB_W_INT8, .n = c->n, .k = c->k, .group = c->group,
                                        .codes = c->codes, .scales = c->scales, .zeros = c->zeros, .g_idx = c->g_idx},
                            .bias = i <= NB_V ? l->f.bias[i] : NULL};
    free(l->f.w[i]);
    l->f.w[i] = NULL;
}

static nb_status solve_gptq(layer_job *l, int i, const double *h, nb_error *err)
{
    const nb_quantize_options *o = &l->job->options;
    nb_gptq_options            options = {.grid = o->grid, .damp = o->damp, .damp_max = o->damp_max, .block = o->block,
                                          .order = o->order, .static_groups = o->static_groups, .mse = o->mse};
    nb_gptq_report             r = {0};
    NB_TRY(nb_gptq(&l->codes[i], l->f.w[i], h, l->f.n[i], l->f.k[i], &options, l->job->ops->pool, &r, err));
    nb_matrix_report *m = report_of(l, i);
    m->loss = r.loss;
    m->rtn_loss = r.rtn_loss;
    m->damp = r.damp;
    m->dead = r.dead;
    m->fallback = r.fallback;
    return NB_OK;
}

static nb_status solve_rtn(layer_job *l, int i, nb_error *err)
{
    return nb_rtn(&l->codes[i], l->f.w[i], l->f.n[i], l->f.k[i], &l->job->options.grid, l->job->ops->pool, err);
}

/* q and k are not clipped: their errors meet in a product and a softmax, which the error of either alone does not tell. */
static nb_status solve_awq(layer_job *l, int i, const double *h, nb_error *err)
{
    size_t    bytes = (size_t)l->f.n[i] * (size_t)l->f.k[i] * sizeof(float);
    float    *before = NULL;
    nb_pool  *pool = l->job->ops->pool;
    nb_status status = NB_OK;
    if (l->job->options.awq_clip && i != NB_Q && i != NB_K) {
        NB_TRY(nb_alloc(&before, 1, bytes, "a matrix before clipping", err));
        memcpy(before, l->f.w[i], bytes);
        status = nb_awq_clip(l->f.w[i], h, l->f.n[i], l->f.k[i], &l->job->options.grid, pool, err);
    }
    if (!status) status = solve_rtn(l, i, err);
    if (!status) status = loss_of(&report_of(l, i)->loss, &l->codes[i], before ? before : l->f.w[i], l->f.divisor[i], h, pool, err);
    free(before);
    return status;
}

static nb_status solve_site(layer_job *l, nb_site site, nb_error *err)
{
    nb_job *job = l->job;
    NB_TRY(nb_job_step(job, err, "layer %d of %d: %s", l->index + 1, job->model->config.layers, site_names[site]));
    double start = nb_seconds();
    for (int i = nb_site_first[site]; i < nb_site_first[site] + nb_site_count[site]; i++) {
        const double *h = l->stats[site].gram;
        nb_status     status = job->options.method == NB_METHOD_GPTQ  ? solve_gptq(l, i, h, err)
                             : job->options.method == NB_METHOD_AWQ ? solve_awq(l, i, h, err)
                                                                    : solve_rtn(l, i, err);
        if (status) {
            nb_error_within(err, "%s", l->f.name[i]);
            return status;
        }
        take_codes(l, i);
    }
    nb_stats_free(&l->stats[site]);
    job->report->solve_s += nb_seconds() - start;
    return NB_OK;
}

/* AWQ before rounding: what plain rounding would lose, then the scales. */
static nb_status smooth(layer_job *l, nb_error *err)
{
    nb_job        *job = l->job;
    nb_pool       *pool = job->ops->pool;
    nb_awq_options options = {.grid = job->options.grid, .points = job->options.awq_points, .duo = job->options.awq_duo};
    nb_awq_report  reports[NB_SITES];
    double        *gram[NB_SITES];
    float         *mean_abs[NB_SITES] = {0};
    double         start = nb_seconds();
    nb_status      status = NB_OK;
    for (int site = 0; site < NB_SITES && !status; site++) {
        nb_stats *st = &l->stats[site];
        gram[site] = st->gram;
        status = nb_alloc(&mean_abs[site], (size_t)st->k, sizeof(float), "channel magnitudes", err);
        if (!status) nb_stats_mean_abs(st, mean_abs[site]);
        for (int i = nb_site_first[site]; i < nb_site_first[site] + nb_site_count[site] && !status; i++) {
            status = solve_rtn(l, i, err);
            if (!status) status = loss_of(&report_of(l, i)->rtn_loss, &l->codes[i], l->f.w[i], NULL, st->gram, pool, err);
            nb_codes_free(&l->codes[i]);
        }
    }
    if (!status)
        status = nb_smooth_layer(&l->f, &job->model->config, gram, (const float *const *)mean_abs, &options, pool, reports, err);
    for (int site = 0; site < NB_SITES && !status; site++)
        for (int i = nb_site_first[site]; i < nb_site_first[site] + nb_site_count[site]; i++)
            report_of(l, i)->ratio = reports[site].ratio;
    for (int site = 0; site < NB_SITES; site++) free(mean_abs[site]);
    job->report->solve_s += nb_seconds() - start;
    return status;
}

/* ---- the layer --------------------------------------------------------------------------------------------------------- */

/* The layer as the checkpoint has it; biases are the rounded ones. */
static void start_float(layer_job *l, nb_linear out[NB_LINEARS])
{
    for (int i = 0; i < NB_LINEARS; i++)
        out[i] = (nb_linear){.weights = l->f.source[i].weights, .bias = i <= NB_V ? l->f.bias[i] : NULL};
}

static nb_status solve_layer(layer_job *l, nb_error *err)
{
    const nb_quantize_options *o = &l->job->options;
    bool last = l->index == l->job->model->config.layers - 1, sequential = o->method == NB_METHOD_GPTQ && o->true_sequential;
    bool rtn = o->method == NB_METHOD_RTN;
    bool keep_float = !rtn && !last && !o->propagate_quantized;
    start_float(l, l->now);
    if (!rtn && !sequential) NB_TRY(watch_sites(l, NB_SITE_QKV, NB_SITE_DOWN, keep_float, err));
    if (o->method == NB_METHOD_AWQ) NB_TRY(smooth(l, err));
    for (int site = 0; site < NB_SITES; site++) {
        if (sequential) NB_TRY(watch_sites(l, (nb_site)site, (nb_site)site, false, err));
        NB_TRY(solve_site(l, (nb_site)site, err));
    }
    if (sequential && keep_float) {
        nb_linear source[NB_LINEARS];
        start_float(l, source);
        NB_TRY(run_layer(l, source, false, true, err));
    }
    if (!rtn && !last && o->propagate_quantized) NB_TRY(run_layer(l, l->now, false, true, err));
    return write_layer(l, err);
}

static nb_status read_written(layer_job *l, nb_linear out[NB_LINEARS], nb_error *err)
{
    const nb_quantize_options *o = &l->job->options;
    const nb_quant_config      q = {.method = o->format == NB_FORMAT_AWQ ? NB_QUANT_AWQ : NB_QUANT_GPTQ, .bits = o->grid.bits,
                                    .group = o->grid.group, .sym = o->grid.sym, .v2 = o->format == NB_FORMAT_GPTQ_V2};
    nb_checkpoint             *c;
    NB_TRY(nb_checkpoint_open_unfinished(&c, nb_writer_partial(l->job->writer), err));
    uint64_t  hidden = (uint64_t)l->job->model->config.hidden;
    nb_status status = NB_OK;
    for (int i = 0; i < 2 && !status; i++) {
        const nb_entry *e;
        status = nb_checkpoint_get(c, l->f.norm_name[i], 1, &hidden, &e, err);
        if (!status) status = nb_alloc(&l->f.norm[i], (size_t)hidden, sizeof(float), l->f.norm_name[i], err);
        if (!status) status = nb_entry_read_f32(e, l->f.norm[i], err);
    }
    for (int i = 0; i < NB_LINEARS && !status; i++) {
        status = nb_linear_read(&l->f.source[i], c, &q, l->f.name[i], l->f.n[i], l->f.k[i], i <= NB_V, err);
        out[i] = l->f.source[i];
    }
    nb_checkpoint_close(c);
    return status;
}

static nb_status replay(layer_job *l, nb_error *err)
{
    nb_job *job = l->job;
    if (job->options.propagate_quantized) {
        nb_float_layer_shape(&l->f, &job->model->config, l->index);
        NB_TRY(read_written(l, l->now, err));
    } else {
        NB_TRY(nb_float_layer_read(&l->f, job->model, &job->plain, l->index, err));
        start_float(l, l->now);
    }
    return run_layer(l, l->now, false, true, err);
}

nb_status nb_layer_job_replay(nb_job *job, int layer, nb_error *err)
{
    nb_float_layer names;
    layer_job     *l;
    NB_TRY(nb_job_step(job, err, "layer %d of %d, which is finished", layer + 1, job->model->config.layers));
    job->done += NB_SITES - 1;
    nb_float_layer_shape(&names, &job->model->config, layer);
    for (int i = 0; i < NB_LINEARS; i++) {
        nb_matrix_report *m = &job->report->matrices[layer * NB_LINEARS + i];
        snprintf(m->name, sizeof m->name, "%s", names.name[i]);
    }
    if (job->options.method == NB_METHOD_RTN || layer == job->model->config.layers - 1) return NB_OK; /* nobody needs its outputs */
    NB_TRY(nb_alloc(&l, 1, sizeof *l, "a layer", err));
    l->job = job;
    l->index = layer;
    nb_status status = replay(l, err);
    nb_float_layer_free(&l->f);
    free(l);
    return status;
}

nb_status nb_layer_job_run(nb_job *job, int layer, nb_error *err)
{
    layer_job *l;
    NB_TRY(nb_alloc(&l, 1, sizeof *l, "a layer", err));
    l->job = job;
    l->index = layer;
    nb_status status = nb_float_layer_read(&l->f, job->model, &job->plain, layer, err);
    for (int i = 0; i < NB_LINEARS && !status; i++)
        snprintf(report_of(l, i)->name, sizeof report_of(l, i)->name, "%s", l->f.name[i]);
    if (!status) status = solve_layer(l, err);
    for (int i = 0; i < NB_LINEARS; i++) nb_codes_free(&l->codes[i]);
    for (int site = 0; site < NB_SITES; site++) nb_stats_free(&l->stats[site]);
    nb_float_layer_free(&l->f);
    free(l);
    return status;
}
