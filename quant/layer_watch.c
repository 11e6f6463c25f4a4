/* layer_watch.c - running a layer over all samples, with a tap at its four linear sites that feeds the statistics. */
#include <math.h>

#include "quant/layer_work.h"

static void tap(void *context, nb_site site, const float *x, size_t ld, size_t rows, int k, const uint8_t *modality)
{
    nb_layer_work *l = context;
    (void)k; /* the site's own */
    if (!l->stats[site].k) return;
    double start = nb_seconds();
    nb_stats_add(&l->stats[site], l->job->ops, x, ld, rows, modality, l->job->options.modality_weights);
    l->gram_s += nb_seconds() - start;
}

/* Only tapped passes that keep nothing may end early. */
static int sites_wanted(const nb_layer_work *l, bool keep)
{
    int sites = 0;
    for (int site = 0; site < NB_SITES && !keep; site++)
        if (l->stats[site].k) sites = site + 1;
    return sites;
}

nb_status nb_layer_run(nb_layer_work *l, const nb_linear linears[NB_LINEARS], bool watch, bool keep, nb_error *err)
{
    nb_job  *job = l->job;
    nb_layer packed;
    double   start = nb_seconds();
    l->gram_s = 0;
    nb_sample_tap   watcher = {.site = tap, .context = l, .sites = sites_wanted(l, keep)};
    NB_TRY(nb_layer_pack(&job->model->ops, &packed, &job->model->config, l->f.norm[0], l->f.norm[1], linears, err));
    nb_status status = nb_samples_layer(&job->samples, job->model, &packed, watch ? &watcher : NULL, keep, err);
    nb_layer_release(&job->model->ops, &packed);
    job->report->gram_s += l->gram_s;
    job->report->forward_s += nb_seconds() - start - l->gram_s;
    return status;
}

nb_status nb_layer_finish_stats(nb_layer_work *l, nb_site site, nb_error *err)
{
    nb_stats *st = &l->stats[site];
    size_t    tokens = l->job->samples.tokens;
    uint64_t  seen = st->tokens[0] + st->tokens[1] + st->tokens[2] + st->tokens[NB_TOKEN_UNCOUNTED];
    if (seen != tokens)
        return nb_fail(err, NB_ERR_DIFFERENT, "%s: saw %llu tokens of %zu; this is a bug in nibble",
                       l->f.name[nb_site_first[site]], (unsigned long long)seen, tokens);
    nb_stats_finish(st);
    float max = nb_stats_max(st);
    if (!isfinite(max))
        return nb_fail(err, NB_ERR_INPUT, "%s: its inputs reach %f on the calibration data, so that it cannot be quantized; the weights "
                       "of layer %d, or of what comes before it, are damaged or too large", l->f.name[nb_site_first[site]],
                       (double)max, l->index + 1);
    float *most = &l->job->report->site_max[l->index * NB_SITES + site]; /* over all passes: a resumed job knows only this */
    if (!(max <= *most)) *most = max;
    if (!(max <= l->job->report->max_input)) l->job->report->max_input = max;
    return NB_OK;
}

nb_status nb_layer_watch(nb_layer_work *l, nb_site first, nb_site last, bool keep, nb_error *err)
{
    for (int site = (int)first; site <= (int)last; site++)
        NB_TRY(nb_stats_init(&l->stats[site], l->f.k[nb_site_first[site]], err));
    NB_TRY(nb_layer_run(l, l->now, true, keep, err));
    for (int site = (int)first; site <= (int)last; site++) NB_TRY(nb_layer_finish_stats(l, (nb_site)site, err));
    return NB_OK;
}
