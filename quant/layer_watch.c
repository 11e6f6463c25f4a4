/* layer_watch.c - running a layer over all samples, with a tap at its four linear sites that feeds the statistics. */
#include <math.h>

#include "quant/layer_work.h"

static void tap(void *context, nb_site site, const float *x, size_t ld, size_t rows, int k, const uint8_t *modality)
{
    nb_layer_work *l = context;
    if (!l->stats[site].k) return;
    nb_moment start = nb_moment_now();
    nb_stats_add(&l->stats[site], l->job->ops, x, ld, rows, modality, l->job->options.modality_weights);
    nb_job_spent(l->job, NB_PHASE_GRAM, start, (double)rows * k * k);
}

/* What the matrices before the last of the first `sites` sites compute for all samples, or all of them, and attention if it is
 * reached. */
static double forward_flop(const nb_layer_work *l, int sites, bool whole)
{
    const nb_samples *s = &l->job->samples;
    double            flop = 0, q = l->f.n[NB_Q];
    for (int i = 0; i < NB_LINEARS; i++)
        if (whole || i < nb_site_first[sites - 1]) flop += 2.0 * (double)s->tokens * l->f.n[i] * l->f.k[i];
    for (size_t i = 0; i < s->count && (whole || sites > NB_SITE_O); i++)
        flop += 2 * q * (double)s->prompts[i].count * (double)s->prompts[i].count; /* two products, half of a square */
    return flop;
}

nb_status nb_layer_run(nb_layer_work *l, const nb_linear linears[NB_LINEARS], int sites, bool keep, nb_error *err)
{
    nb_job       *job = l->job;
    nb_layer      packed;
    nb_linear     wanted[NB_LINEARS];
    nb_moment     start = nb_moment_now();
    bool          whole = keep || !sites;
    nb_sample_tap watcher = {.site = tap, .context = l, .sites = sites};
    for (int i = 0; i < NB_LINEARS; i++) /* a pass that ends before a matrix does not need it */
        wanted[i] = whole || i < nb_site_first[sites - 1] ? linears[i] : (nb_linear){0};
    NB_TRY(nb_layer_pack(&job->model->ops, &packed, &job->model->config, l->f.norm[0], l->f.norm[1], wanted, err));
    nb_job_spent(job, NB_PHASE_PACK, start, 0);
    start = nb_moment_now();
    nb_phase_time *phases = job->report->phases, gram = phases[NB_PHASE_GRAM];
    double         waited = job->samples.waited_s;
    nb_status      status = nb_samples_layer(&job->samples, job->model, &packed, sites ? &watcher : NULL, keep, err);
    nb_layer_release(&job->model->ops, &packed);
    waited = job->samples.waited_s - waited;
    phases[NB_PHASE_SPOOL].seconds += waited;
    nb_job_spent(job, NB_PHASE_FORWARD, start, forward_flop(l, sites, whole));
    phases[NB_PHASE_FORWARD].seconds -= waited + phases[NB_PHASE_GRAM].seconds - gram.seconds; /* which were inside */
    phases[NB_PHASE_FORWARD].cpu -= phases[NB_PHASE_GRAM].cpu - gram.cpu;
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
    l->job->report->site_max[l->index * NB_SITES + site] = max;
    if (!(max <= l->job->report->max_input)) l->job->report->max_input = max;
    return NB_OK;
}

nb_status nb_layer_watch(nb_layer_work *l, nb_site first, nb_site last, bool keep, nb_error *err)
{
    for (int site = (int)first; site <= (int)last; site++)
        NB_TRY(nb_stats_init(&l->stats[site], l->f.k[nb_site_first[site]], err));
    NB_TRY(nb_layer_run(l, l->now, (int)last + 1, keep, err));
    nb_moment start = nb_moment_now();
    for (int site = (int)first; site <= (int)last; site++) NB_TRY(nb_layer_finish_stats(l, (nb_site)site, err));
    nb_job_spent(l->job, NB_PHASE_GRAM, start, 0);
    return NB_OK;
}
