/* layer_watch.c - running a layer over all samples, with a tap at its four linear sites that feeds the statistics; or finding the
 * statistics in an artifact. */
#include <math.h>

#include "calib/ranks.h"
#include "quant/layer_work.h"

static void tap(void *context, nb_site site, const float *x, size_t ld, int k, const nb_sample_rows *rows)
{
    nb_layer_work *l = context;
    if (!l->stats[site].k) return;
    nb_moment start = nb_moment_now();
    nb_stats_add(&l->stats[site], l->job->ops, x, ld, rows);
    nb_job_spent(l->job, NB_PHASE_GRAM, start, (double)rows->bounds[rows->count] * k * k);
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

/* The sums of a site out of the artifact; of modalities that are kept apart, with the weights of now. */
static nb_status recall_site(nb_layer_work *l, nb_site site, nb_error *err)
{
    const nb_artifact      *a = l->job->artifact;
    const nb_artifact_info *info = nb_artifact_about(a);
    nb_stats               *s = &l->stats[site], part;
    nb_pool                *pool = l->job->ops->pool;
    if (!info->per_modality) return nb_artifact_add(a, s, l->index, site, 0, pool, err);
    NB_TRY(nb_stats_init(&part, s->k, info->weights, err));
    nb_status status = NB_OK;
    for (int m = 0; m < NB_MODALITIES && !status; m++) {
        nb_stats_reset(&part, info->weights);
        status = nb_artifact_add(a, &part, l->index, site, m, pool, err);
        if (!status) nb_stats_merge_weighted(s, &part, (double)s->weights[m], pool);
    }
    nb_stats_free(&part);
    return status;
}

/* One site of all samples of all ranks: complete, finished where it is wanted. */
static nb_status finish_site(nb_layer_work *l, nb_site site, nb_error *err)
{
    nb_job   *job = l->job;
    nb_stats *s = &l->stats[site];
    NB_TRY(nb_ranks_merge(s, job->ops->pool, err));
    if (nb_ranks_mine()) return NB_OK;
    uint64_t seen = s->tokens[0] + s->tokens[1] + s->tokens[2] + s->tokens[NB_TOKEN_UNCOUNTED];
    if (seen != job->tokens && job->artifact)
        return nb_fail(err, NB_ERR_INPUT, "the artifact has sums of %llu tokens here, and artifact.json counts %zu; calibrate again",
                       (unsigned long long)seen, job->tokens);
    if (seen != job->tokens)
        return nb_fail(err, NB_ERR_DIFFERENT, "saw %llu tokens of %zu; this is a bug in nibble", (unsigned long long)seen, job->tokens);
    float max = nb_stats_max(s);
    if (!isfinite(max))
        return nb_fail(err, NB_ERR_INPUT, "its inputs reach %f on the calibration data, so that it cannot be quantized; the weights of "
                       "layer %d, or of what comes before it, are damaged or too large", (double)max, l->index + 1);
    NB_TRY(nb_stats_finish(s, job->ops->pool, err));
    float *most = &job->report->site_max[l->index * NB_SITES + (int)site]; /* over all passes: a resumed job knows only this */
    if (!(max <= *most)) *most = max;
    if (!(max <= job->report->max_input)) job->report->max_input = max;
    return NB_OK;
}

nb_status nb_layer_finish_stats(nb_layer_work *l, nb_site site, nb_error *err)
{
    nb_status status = finish_site(l, site, err);
    if (status) nb_error_within(err, "%s", l->f.name[nb_site_first[site]]);
    return status;
}

nb_status nb_layer_watch(nb_layer_work *l, nb_site first, nb_site last, bool keep, nb_error *err)
{
    nb_job *job = l->job;
    for (int site = (int)first; site <= (int)last; site++)
        NB_TRY(nb_stats_init(&l->stats[site], l->f.k[nb_site_first[site]], job->options.modality_weights, err));
    if (!job->artifact) NB_TRY(nb_layer_run(l, l->now, (int)last + 1, keep, err));
    nb_moment start = nb_moment_now();
    for (int site = (int)first; site <= (int)last; site++) {
        if (job->artifact) NB_TRY(recall_site(l, (nb_site)site, err));
        NB_TRY(nb_layer_finish_stats(l, (nb_site)site, err));
    }
    nb_job_spent(job, NB_PHASE_GRAM, start, 0);
    return NB_OK;
}
