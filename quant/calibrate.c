/* calibrate.c - the passes of a quantization without the quantization: statistics of the float layer at its four sites, its outputs
 * as the inputs of the next layer.
 *
 * What a layer is, is what quantize makes of it (float_layer.h), so that AWQ, which looks at the float model alone, finds here exactly
 * what it would have found itself.
 */
#include "quant/calibrate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calib/ranks.h"
#include "quant/float_layer.h"
#include "quant/plain.h"
#include "quant/float_model.h"

typedef struct {
    const nb_ops               *ops;
    const nb_calibrate_options *options;
    nb_progress                *progress;
    void                       *context;
    nb_calibrate_report        *report;
    nb_float_model              source;
    nb_plain                    plain;
    nb_samples                  samples;
    nb_artifact_writer         *writer;   /* of rank 0 */
    bool                       *has;      /* [layers] written already */
    nb_stats                    stats[NB_SITES * NB_MODALITIES]; /* [site][part] */
    double                      gram_s;   /* time in the tap, of a layer */
} calibration;

void nb_calibrate_report_free(nb_calibrate_report *r)
{
    nb_buf_free(&r->adapters);
    nb_buf_free(&r->notes);
    memset(r, 0, sizeof *r);
}

static nb_status step(const calibration *c, size_t done, const char *what, int layer, nb_error *err)
{
    char text[80];
    int  layers = c->report->info.layers;
    snprintf(text, sizeof text, layer < 0 ? "%s" : "%s of layer %d of %d", what, layer + 1, layers);
    if (!c->progress || c->progress(c->context, done, (size_t)layers + 2, text)) return NB_OK;
    return nb_fail(err, NB_ERR_STOPPED, layer > 0 ? "%s: stopped before %s; the same command goes on from there" : "%s: stopped before %s",
                   c->options->out_dir, text);
}

/* ---- a layer ----------------------------------------------------------------------------------------------------------- */

static void tap(void *context, nb_site site, const float *x, size_t ld, int k, const nb_sample_rows *rows)
{
    calibration *c = context;
    int          parts = nb_artifact_parts(&c->report->info);
    double       start = nb_seconds();
    (void)k; /* the site's own */
    for (int part = 0; part < parts; part++) nb_stats_add(&c->stats[(int)site * parts + part], c->ops, x, ld, rows);
    c->gram_s += nb_seconds() - start;
}

/* Kept apart, a part weighs its own modality alone, and counts it alone. */
static nb_status start_stats(calibration *c, nb_error *err)
{
    const nb_artifact_info *info = &c->report->info;
    int                     parts = nb_artifact_parts(info);
    for (int i = 0; i < NB_SITES * parts; i++) {
        float weights[NB_MODALITIES] = {0};
        if (info->per_modality)
            weights[i % parts] = 1;
        else
            memcpy(weights, info->weights, sizeof weights);
        if (c->stats[i].k)
            nb_stats_reset(&c->stats[i], weights);
        else
            NB_TRY(nb_stats_init(&c->stats[i], info->k[i / parts], weights, err));
    }
    return NB_OK;
}

static nb_status check_counts(calibration *c, int layer, nb_error *err)
{
    const nb_artifact_info *info = &c->report->info;
    int                     parts = nb_artifact_parts(info);
    for (int i = 0; i < NB_SITES * parts; i++) {
        NB_TRY(nb_ranks_merge(&c->stats[i], c->ops->pool, err));
        if (nb_ranks_mine()) continue;
        if (memcmp(c->stats[i].tokens, info->tokens, sizeof info->tokens))
            return nb_fail(err, NB_ERR_DIFFERENT, "layer %d saw other tokens than there are; this is a bug in nibble", layer);
        for (int m = 0; info->per_modality && m < NB_TOKEN_KINDS; m++) /* uncounted ones are in the first part */
            if (m != i % parts && !(m == NB_TOKEN_UNCOUNTED && i % parts == 0)) c->stats[i].tokens[m] = 0;
        nb_status status = nb_stats_check(&c->stats[i], err);
        if (status) {
            nb_error_within(err, "layer %d, site %d", layer, i / parts);
            return status;
        }
    }
    return NB_OK;
}

static nb_status run_layer(calibration *c, const nb_float_layer *f, bool watch, bool keep, nb_error *err)
{
    const nb_model *model = c->source.model;
    nb_sample_tap   watcher = {.site = tap, .context = c};
    nb_linear       linears[NB_LINEARS];
    nb_layer        packed;
    double          start = nb_seconds();
    c->gram_s = 0;
    for (int i = 0; i < NB_LINEARS; i++) linears[i] = (nb_linear){.weights = f->source[i].weights, .bias = i <= NB_V ? f->bias[i] : NULL};
    NB_TRY(nb_layer_pack(&model->ops, &packed, &model->config, f->norm[0], f->norm[1], linears, err));
    nb_status status = nb_samples_layer(&c->samples, model, &packed, watch ? &watcher : NULL, keep, err);
    nb_layer_release(&model->ops, &packed);
    c->report->gram_s += c->gram_s;
    c->report->forward_s += nb_seconds() - start - c->gram_s;
    return status;
}

static nb_status do_layer(calibration *c, int layer, bool keep, nb_error *err)
{
    nb_float_layer f;
    bool           watch = !c->has[layer];
    if (watch) NB_TRY(start_stats(c, err));
    NB_TRY(nb_float_layer_read(&f, c->source.model, &c->plain, layer, err));
    nb_status status = run_layer(c, &f, watch, keep, err);
    nb_float_layer_free(&f);
    if (status || !watch) return status;
    NB_TRY(check_counts(c, layer, err));
    double start = nb_seconds();
    if (c->writer) NB_TRY(nb_artifact_put(c->writer, layer, c->stats, c->ops->pool, err));
    c->report->write_s += nb_seconds() - start;
    return NB_OK;
}

/* ---- the whole --------------------------------------------------------------------------------------------------------- */

static void join_modalities(nb_artifact_info *info, const float weights[NB_MODALITIES])
{
    for (int i = 0; i < NB_MODALITIES; i++) info->weights[i] = info->per_modality ? 1 : weights[i];
}

static nb_status load(calibration *c, nb_error *err)
{
    nb_calibrate_report *r = c->report;
    nb_artifact_info    *info = &r->info;
    nb_samples_options   data = c->options->data;
    double               start = nb_seconds(), weight = 0;
    uint64_t             counts[2 + NB_TOKEN_KINDS];
    data.embed = true;
    data.share = (size_t)nb_ranks_mine();
    data.shares = (size_t)nb_ranks_count();
    NB_TRY(nb_samples_load(&c->samples, c->source.model, &data, err));
    NB_TRY(nb_samples_embed(&c->samples, c->source.model, err));
    nb_model_drop_embedding(c->source.model);
    counts[0] = c->samples.hash;
    counts[1] = c->samples.count;
    memcpy(counts + 2, c->samples.counted, sizeof c->samples.counted);
    counts[2 + NB_TOKEN_UNCOUNTED] = c->samples.tokens - counts[2] - counts[3] - counts[4];
    NB_TRY(nb_ranks_sum_for_all(counts, NB_COUNT(counts), err));
    info->data = counts[0];
    info->samples = counts[1];
    memcpy(info->tokens, counts + 2, sizeof info->tokens);
    r->too_long = c->samples.too_long;
    for (int i = 0; i < NB_MODALITIES; i++) weight += (double)info->weights[i] * (double)info->tokens[i];
    if (weight == 0) return nb_fail(err, NB_ERR_ARGUMENT, "the calibration data: no token has a weight, by its modality or because only answers count");
    r->forward_s += nb_seconds() - start;
    return NB_OK;
}

static nb_status describe(calibration *c, nb_error *err)
{
    nb_artifact_info *info = &c->report->info;
    nb_float_layer    shape;
    const nb_config  *config = &c->source.model->config;
    nb_float_layer_shape(&shape, config, 0);
    info->layers = config->layers;
    info->per_modality = c->options->per_modality;
    snprintf(info->arithmetic, sizeof info->arithmetic, "%s", c->ops->name);
    for (int i = 0; i < NB_SITES; i++) info->k[i] = shape.k[nb_site_first[i]];
    join_modalities(info, c->options->modality_weights);
    return nb_artifact_model(&info->model, c->source.model->checkpoint, err);
}

static nb_status run(calibration *c, nb_error *err)
{
    const nb_calibrate_options *o = c->options;
    nb_calibrate_report        *r = c->report;
    NB_TRY(nb_float_model_open(&c->source, c->ops, o->model_dir, o->loras, o->lora_count, &r->adapters, &r->notes, err));
    NB_TRY(nb_plain_scan(&c->plain, c->source.model->checkpoint, &c->source.model->config, err));
    NB_TRY(describe(c, err));
    NB_TRY(step(c, 0, "the calibration data", -1, err));
    NB_TRY(load(c, err));
    int layers = r->info.layers, last = layers - 1; /* the last that is missing */
    NB_TRY(nb_alloc(&c->has, (size_t)layers, sizeof *c->has, "layers", err));
    if (nb_ranks_mine() == 0) {
        NB_TRY(nb_artifact_create(&c->writer, o->out_dir, &r->info, o->force, o->anew, err));
        for (int i = 0; i < layers; i++) c->has[i] = nb_artifact_has(c->writer, i);
    }
    NB_TRY(nb_ranks_share(c->has, (size_t)layers * sizeof *c->has, err));
    while (last >= 0 && c->has[last]) last--;
    for (int i = 0; i <= last; i++) {
        r->taken += c->has[i];
        NB_TRY(step(c, (size_t)i + 1, c->has[i] ? "outputs" : "statistics", i, err));
        NB_TRY(do_layer(c, i, i < last, err));
    }
    r->taken += (size_t)(layers - 1 - last);
    if (!c->writer) return NB_OK;
    r->bytes = nb_artifact_written(c->writer);
    return nb_artifact_commit(c->writer, err);
}

nb_status nb_calibrate(const nb_ops *ops, const nb_calibrate_options *options, nb_progress *progress, void *context,
                       nb_calibrate_report *report, nb_error *err)
{
    calibration c = {.ops = ops, .options = options, .progress = progress, .context = context, .report = report};
    double      start = nb_seconds();
    memset(report, 0, sizeof *report);
    nb_status status = run(&c, err);
    for (size_t i = 0; i < NB_COUNT(c.stats); i++) nb_stats_free(&c.stats[i]);
    nb_artifact_writer_free(c.writer);
    nb_samples_free(&c.samples);
    nb_float_model_close(&c.source);
    free(c.has);
    report->seconds = nb_seconds() - start;
    if (status) nb_calibrate_report_free(report);
    return status;
}

/* ---- merging ----------------------------------------------------------------------------------------------------------- */

static nb_status merge_layer(calibration *c, const nb_artifact *from, int layer, nb_error *err)
{
    int parts = nb_artifact_parts(&c->report->info);
    NB_TRY(start_stats(c, err));
    for (int i = 0; i < NB_SITES * parts; i++)
        NB_TRY(nb_artifact_add(from, &c->stats[i], layer, (nb_site)(i / parts), i % parts, c->ops->pool, err));
    return nb_artifact_put(c->writer, layer, c->stats, c->ops->pool, err);
}

static nb_status merge(calibration *c, const nb_artifact *from, nb_error *err)
{
    const nb_calibrate_options *o = c->options;
    c->report->info = *nb_artifact_about(from);
    NB_TRY(nb_artifact_create(&c->writer, o->out_dir, &c->report->info, o->force, o->anew, err));
    for (int i = 0; i < c->report->info.layers; i++) {
        NB_TRY(step(c, (size_t)i + 1, "sums", i, err));
        if (!nb_artifact_has(c->writer, i)) NB_TRY(merge_layer(c, from, i, err));
    }
    c->report->bytes = nb_artifact_written(c->writer);
    return nb_artifact_commit(c->writer, err);
}

nb_status nb_calibrate_merge(nb_pool *pool, const char *const *directories, size_t count, const char *out_dir, bool force,
                             nb_progress *progress, void *context, nb_calibrate_report *report, nb_error *err)
{
    nb_ops               ops = {.pool = pool}; /* nothing is run */
    nb_calibrate_options options = {.out_dir = out_dir, .force = force};
    calibration          c = {.ops = &ops, .options = &options, .progress = progress, .context = context, .report = report};
    nb_artifact         *from;
    double               start = nb_seconds();
    memset(report, 0, sizeof *report);
    NB_TRY(nb_artifact_open(&from, directories, count, err));
    nb_status status = merge(&c, from, err);
    for (size_t i = 0; i < NB_COUNT(c.stats); i++) nb_stats_free(&c.stats[i]);
    nb_artifact_writer_free(c.writer);
    nb_artifact_close(from);
    report->seconds = nb_seconds() - start;
    return status;
}
