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
#include "calib/ranks.h"
#include "quant/layer_work.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/resume.h"

/* The layer as the checkpoint has it; biases are the rounded ones. */
static void start_float(nb_layer_work *l, nb_linear out[NB_LINEARS])
{
    for (int i = 0; i < NB_LINEARS; i++)
        out[i] = (nb_linear){.weights = l->f.source[i].weights, .bias = i <= NB_V ? l->f.bias[i] : NULL};
}

/* Linears first .. last as they stand in the writer's folder. */
static nb_status read_written(nb_layer_work *l, int first, int last, nb_linear out[NB_LINEARS], nb_error *err)
{
    const nb_format format = l->job->options.format;
    nb_checkpoint  *c;
    nb_status       status = NB_OK;
    NB_TRY(nb_checkpoint_open_unfinished(&c, nb_writer_partial(l->job->writer), err));
    for (int i = first; i <= last && !status; i++) {
        const nb_quant_config q = {.bits = l->grid[i].bits, .group = l->grid[i].group, .sym = l->grid[i].sym,
                                   .method = format == NB_FORMAT_AWQ ? NB_QUANT_AWQ : format == NB_FORMAT_CT ? NB_QUANT_CT : NB_QUANT_GPTQ,
                                   .v2 = format == NB_FORMAT_GPTQ_V2};
        status = nb_linear_read(&out[i], c, &q, l->f.name[i], l->f.n[i], l->f.k[i], i <= NB_V, err);
    }
    nb_checkpoint_close(c);
    return status;
}

static nb_status read_written_norms(nb_layer_work *l, nb_error *err)
{
    nb_checkpoint *c;
    uint64_t       hidden = (uint64_t)l->job->model->config.hidden;
    nb_status      status = NB_OK;
    NB_TRY(nb_checkpoint_open_unfinished(&c, nb_writer_partial(l->job->writer), err));
    for (int i = 0; i < 2 && !status; i++) {
        const nb_entry *e;
        status = nb_checkpoint_get(c, l->f.norm_name[i], 1, &hidden, &e, err);
        if (!status) status = nb_alloc(&l->f.norm[i], (size_t)hidden, sizeof(float), l->f.norm_name[i], err);
        if (!status) status = nb_entry_read_f32(e, l->f.norm[i], err);
    }
    nb_checkpoint_close(c);
    return status;
}

/* The sites that an earlier run solved take the place of the float matrices. */
static nb_status take_sites(nb_layer_work *l, nb_error *err)
{
    int sites = l->job->sites;
    if (!sites) return NB_OK;
    int last = nb_site_first[sites - 1] + nb_site_count[sites - 1] - 1;
    NB_TRY(read_written(l, 0, last, l->taken, err));
    for (int i = 0; i <= last; i++) {
        l->now[i] = l->taken[i];
        free(l->f.w[i]);
        l->f.w[i] = NULL;
    }
    nb_resume_report_sites(l->job);
    for (int site = 0; site < sites; site++)
        NB_TRY(nb_job_step(l->job, err, "step %d of layer %d of %d, which is finished", site + 1, l->index + 1,
                           l->job->model->config.layers));
    return NB_OK;
}

bool nb_layer_job_by_sites(const nb_job *job)
{
    const nb_quantize_options *o = &job->options;
    return o->asym || o->method == NB_METHOD_AWQ_GPTQ || (o->method == NB_METHOD_GPTQ && o->true_sequential);
}

static nb_status solve_layer(nb_layer_work *l, nb_error *err)
{
    const nb_quantize_options *o = &l->job->options;
    bool smooth = o->method == NB_METHOD_AWQ || o->method == NB_METHOD_AWQ_GPTQ;
    bool last = l->index == l->job->model->config.layers - 1, sequential = nb_layer_job_by_sites(l->job);
    bool rtn = o->method == NB_METHOD_RTN;
    bool keep_float = !rtn && !last && !o->propagate_quantized && !l->job->artifact;
    bool aside = o->asym || (smooth && sequential && keep_float); /* the float layer is run after AWQ has scaled it */
    l->keep_source = sequential && keep_float && !aside;
    start_float(l, l->now);
    if (aside) NB_TRY(nb_layer_pack(&l->job->model->ops, &l->original, &l->job->model->config, l->f.norm[0], l->f.norm[1], l->now, err));
    if (smooth || (!rtn && !sequential)) NB_TRY(nb_layer_watch(l, NB_SITE_QKV, NB_SITE_DOWN, keep_float && !sequential, err));
    if (smooth && nb_ranks_mine() == 0) NB_TRY(nb_layer_smooth(l, err));
    NB_TRY(take_sites(l, err));
    for (int site = l->job->sites; site < NB_SITES; site++) {
        NB_TRY(nb_layer_step(l, (nb_site)site, err));
        if (o->asym)
            NB_TRY(nb_layer_watch_pair(l, (nb_site)site, err));
        else if (sequential)
            NB_TRY(nb_layer_watch(l, (nb_site)site, (nb_site)site, false, err));
        NB_TRY(nb_layer_solve(l, (nb_site)site, err));
        NB_TRY(nb_layer_write_site(l, (nb_site)site, err));
        nb_moment start = nb_moment_now();
        if (sequential && site < NB_SITES - 1) NB_TRY(nb_resume_record_site(l->job, l->index, site, l->f.source_hash, err));
        nb_job_spent(l->job, NB_PHASE_WRITE, start, 0);
    }
    if (o->asym && !last) NB_TRY(nb_samples_layer(&l->job->original, l->job->model, &l->original, NULL, true, err));
    if (sequential && keep_float && aside) NB_TRY(nb_samples_layer(&l->job->samples, l->job->model, &l->original, NULL, true, err));
    if (l->keep_source) {
        nb_linear source[NB_LINEARS];
        start_float(l, source);
        NB_TRY(nb_layer_run(l, source, 0, true, err));
    }
    NB_TRY(nb_layer_write_norms(l, err));
    if (!rtn && !last && o->propagate_quantized) NB_TRY(nb_layer_run(l, l->now, 0, true, err));
    nb_moment start = nb_moment_now();
    nb_status status = nb_resume_record_layer(l->job, l->index, l->f.source_hash, err);
    nb_job_spent(l->job, NB_PHASE_WRITE, start, 0);
    return status;
}

static nb_status replay(nb_layer_work *l, nb_error *err)
{
    nb_job *job = l->job;
    if (job->options.propagate_quantized) {
        nb_float_layer_shape(&l->f, &job->model->config, l->index);
        NB_TRY(read_written_norms(l, err));
        NB_TRY(read_written(l, 0, NB_LINEARS - 1, l->f.source, err));
        memcpy(l->now, l->f.source, sizeof l->now);
    } else {
        NB_TRY(nb_float_layer_read(&l->f, job->model, &job->plain, l->index, err));
        start_float(l, l->now);
    }
    return nb_layer_run(l, l->now, 0, true, err);
}

/* The original stream past a layer. */
static nb_status replay_original(nb_layer_work *l, nb_error *err)
{
    nb_job        *job = l->job;
    nb_float_layer f;
    NB_TRY(nb_float_layer_read(&f, job->model, &job->plain, l->index, err));
    nb_linear source[NB_LINEARS];
    for (int i = 0; i < NB_LINEARS; i++)
        source[i] = (nb_linear){.weights = f.source[i].weights, .bias = i <= NB_V ? f.bias[i] : NULL};
    nb_status status = nb_layer_pack(&job->model->ops, &l->original, &job->model->config, f.norm[0], f.norm[1], source, err);
    if (!status) status = nb_samples_layer(&job->original, job->model, &l->original, NULL, true, err);
    nb_layer_release(&job->model->ops, &l->original);
    nb_float_layer_free(&f);
    return status;
}

nb_status nb_layer_job_replay(nb_job *job, int layer, nb_error *err)
{
    nb_layer_work *l;
    if (job->options.method == NB_METHOD_RTN || job->artifact || layer == job->model->config.layers - 1)
        return NB_OK; /* nobody needs its outputs */
    NB_TRY(nb_alloc(&l, 1, sizeof *l, "a layer", err));
    l->job = job;
    l->index = layer;
    nb_layer_pick(l);
    nb_status status = job->options.asym ? replay_original(l, err) : NB_OK;
    if (!status) status = replay(l, err);
    nb_float_layer_free(&l->f);
    free(l);
    return status;
}

static nb_status read_ahead(void *context, size_t layer, nb_error *err)
{
    (void)err;
    const nb_job *job = context;
    nb_float_layer_read_ahead(job->model, (int)layer);
    return NB_OK;
}

nb_status nb_layer_job_run(nb_job *job, int layer, nb_error *err)
{
    nb_layer_work *l;
    NB_TRY(nb_alloc(&l, 1, sizeof *l, "a layer", err));
    l->job = job;
    l->index = layer;
    nb_layer_pick(l);
    nb_moment start = nb_moment_now();
    nb_status status = nb_float_layer_read(&l->f, job->model, &job->plain, layer, err);
    nb_job_spent(job, NB_PHASE_READ, start, 0);
    if (!status) status = nb_resume_same_source(job, layer, l->f.source_hash, err);
    if (!status && layer + 1 < job->model->config.layers) nb_lane_give(job->reader, read_ahead, job, (size_t)layer + 1);
    for (int i = 0; i < NB_LINEARS && !status; i++)
        snprintf(nb_layer_matrix(l, i)->name, sizeof nb_layer_matrix(l, i)->name, "%s", l->f.name[i]);
    if (!status) status = solve_layer(l, err);
    nb_layer_release(&job->model->ops, &l->original);
    for (int site = 0; site < NB_SITES; site++) free(l->scale[site]);
    for (int i = 0; i < NB_LINEARS; i++) {
        nb_codes_free(&l->codes[i]);
        free(l->kept[i]);
        nb_linear_free(&l->taken[i]);
    }
    for (int site = 0; site < NB_SITES; site++) nb_stats_free(&l->stats[site]);
    nb_float_layer_free(&l->f);
    free(l);
    return status;
}
