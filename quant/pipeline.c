/* pipeline.c - from a float checkpoint to a quantised one: check everything that can be checked, then layer by layer.
 *
 * The order is chosen so that a request that cannot end well is refused early: the output place first, then the model, the
 * format against every shape, the values, the disk, the data; only then does the long work start.  Decoder layers are in
 * memory one at a time.
 */
#include "quant/pipeline.h"

#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "calib/ranks.h"
#include "quant/config_out.h"
#include "quant/outer.h"
#include "quant/places.h"
#include "quant/resume.h"
#include "quant/target.h"
#include "runtime/io/file.h"

const char *const nb_phase_names[NB_PHASES] = {"data", "read", "forward", "gram", "factor", "solve", "pack", "spool", "write"};

void nb_quantize_report_free(nb_quantize_report *r)
{
    free(r->matrices);
    free(r->site_max);
    free(r->sources);
    nb_buf_free(&r->adapters);
    nb_buf_free(&r->notes);
    nb_buf_free(&r->run_notes);
    memset(r, 0, sizeof *r);
}

nb_status nb_job_step(nb_job *job, nb_error *err, const char *format, ...)
{
    char    what[160];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    size_t done = job->done++;
    bool go_on = !job->progress || job->progress(job->context, done, job->total, what);
    if (go_on) return NB_OK;
    if (job->journal && job->in_layer && !nb_layer_job_by_sites(job)) {
        job->stop = true; /* at the end of the layer, so that it was not in vain */
        return NB_OK;
    }
    if (job->journal && nb_journal_holds(job->journal))
        return nb_fail(err, NB_ERR_STOPPED, "%s: stopped before %s; the same command goes on from there", job->options.out_dir, what);
    return nb_fail(err, NB_ERR_STOPPED, "stopped before %s; nothing was left at '%s'", what, job->options.out_dir);
}

nb_moment nb_moment_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (nb_moment){.wall = nb_seconds(), .cpu = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec};
}

void nb_job_spent(nb_job *job, nb_phase phase, nb_moment start, double flop)
{
    nb_phase_time *p = &job->report->phases[phase];
    nb_moment      now = nb_moment_now();
    p->seconds += now.wall - start.wall;
    p->cpu += now.cpu - start.cpu;
    p->flop += flop;
}

/* ---- the stages -------------------------------------------------------------------------------------------------------- */

/* Linears that stay float are written in the type of the other float tensors. */
static nb_status look_at_kept(nb_job *job, nb_error *err)
{
    for (int layer = 0; layer < job->model->config.layers; layer++) {
        nb_float_layer f;
        nb_float_layer_shape(&f, &job->model->config, layer);
        for (int i = 0; i < NB_LINEARS; i++) {
            char            name[80];
            const nb_entry *e;
            if (!nb_choice_linear(&job->choice, layer, i)->keep) continue;
            snprintf(name, sizeof name, "%s.weight", f.name[i]);
            NB_TRY(nb_checkpoint_get(job->model->checkpoint, name, 2, (uint64_t[]){(uint64_t)f.n[i], (uint64_t)f.k[i]}, &e, err));
            NB_TRY(nb_plain_look(&job->plain, e, err));
        }
    }
    return NB_OK;
}

static nb_status open_source(nb_job *job, nb_error *err)
{
    const nb_quantize_options *o = &job->options;
    NB_TRY(nb_float_model_open(&job->source, job->ops, o->model_dir, o->loras, o->lora_count, &job->report->adapters, &job->report->notes, err));
    job->model = job->source.model;
    if (o->target_kl > 0) NB_TRY(nb_model_reload_embedding(job->model, err)); /* the head, too */
    const nb_config *c = &job->model->config;
    job->total = (size_t)c->layers * NB_SITES + 2;
    NB_TRY(nb_quantize_choose(&job->choice, &job->options, c, &job->report->notes, err));
    NB_TRY(nb_resume_check_model(job, err));
    NB_TRY(nb_plain_scan_with(&job->plain, job->model->checkpoint, c, nb_resume_look, job, err));
    NB_TRY(nb_resume_check_plain(job, err));
    nb_plain_notes(&job->plain, &job->report->notes);
    for (size_t i = 0; i < nb_checkpoint_count(job->model->checkpoint); i++)
        job->report->bytes_in += nb_checkpoint_at(job->model->checkpoint, i)->tensor->bytes;
    job->report->count = (size_t)c->layers * NB_LINEARS;
    NB_TRY(nb_alloc(&job->report->site_max, (size_t)c->layers * NB_SITES, sizeof *job->report->site_max, "the report", err));
    return nb_alloc(&job->report->matrices, job->report->count, sizeof *job->report->matrices, "the report", err);
}

static nb_status plan_output(nb_job *job, nb_error *err)
{
    const nb_config *c = &job->model->config;
    NB_TRY(nb_plain_declare(&job->plain, job->writer, job->model->checkpoint, c, &job->choice, err));
    NB_TRY(nb_outer_declare(job->writer, &job->choice, err));
    for (int i = 0; i < c->layers; i++) NB_TRY(nb_layer_job_declare(job, i, err));
    NB_TRY(nb_writer_plan(job->writer, err));
    job->report->bytes_out = nb_writer_bytes(job->writer);
    return NB_OK;
}

/* Calibration on chats that are nobody's own is a choice with quality at stake. */
static void note_builtin(nb_quantize_report *r, const nb_samples_options *data)
{
    for (size_t i = 0; i < data->source_count && !data->path; i++)
        if (data->sources[i].bytes && r->sources[i].samples)
            nb_buf_printf(&r->notes, "%zu of %zu conversations are from %s, which knows nothing of what the model is for: chats of your "
                          "own (--data) calibrate better\n", r->sources[i].samples, r->samples, data->sources[i].path);
}

/* How messages call the data: by its first file. */
static const char *data_name(const nb_samples_options *data)
{
    return data->path ? data->path : data->sources[0].path;
}

/* Statistics in the place of data: of this model, and with the weights that are asked for. */
static nb_status open_artifact(nb_job *job, nb_error *err)
{
    nb_quantize_options    *o = &job->options;
    nb_quantize_report     *r = job->report;
    nb_float_layer          shape;
    uint64_t                model;
    NB_TRY(nb_artifact_open(&job->artifact, o->artifacts, o->artifact_count, err));
    const nb_artifact_info *info = nb_artifact_about(job->artifact);
    NB_TRY(nb_artifact_model(&model, job->model->checkpoint, err));
    nb_float_layer_shape(&shape, &job->model->config, 0);
    bool same = model == info->model && info->layers == job->model->config.layers;
    for (int i = 0; i < NB_SITES; i++) same = same && info->k[i] == shape.k[nb_site_first[i]];
    if (!same)
        return nb_fail(err, NB_ERR_INPUT, "%s: is of another model than %s, adapters included: fingerprint %016llx, not %016llx",
                       o->artifacts[0], o->model_dir, (unsigned long long)info->model, (unsigned long long)model);
    for (int i = 0; i < NB_MODALITIES; i++) {
        if (!info->per_modality && info->weights[i] != o->modality_weights[i])
            return nb_fail(err, NB_ERR_ARGUMENT, "%s: was made with modality weights %g:%g:%g, not %g:%g:%g; one made with --per-modality "
                           "takes any", o->artifacts[0], (double)info->weights[0], (double)info->weights[1], (double)info->weights[2],
                           (double)o->modality_weights[0], (double)o->modality_weights[1], (double)o->modality_weights[2]);
        r->tokens_by_modality[i] = info->tokens[i];
        r->counted += info->tokens[i];
    }
    r->tokens = (size_t)(r->counted + info->tokens[NB_TOKEN_UNCOUNTED]);
    r->samples = (size_t)info->samples;
    r->artifact = true;
    job->tokens = r->tokens;
    job->samples.hash = info->data; /* the identity of the job's data */
    if (o->method == NB_METHOD_GPTQ)
        nb_buf_str(&r->notes, "statistics from an artifact: GPTQ saw the inputs of the float model, not those of the quantized layers "
                   "before; --data instead of --artifact corrects for these\n");
    return nb_resume_check_data(job, err);
}

static nb_status load_samples(nb_job *job, nb_error *err)
{
    nb_quantize_report *r = job->report;
    nb_moment           start = nb_moment_now();
    double              weight = 0;
    if (job->options.method == NB_METHOD_RTN) {
        nb_model_drop_embedding(job->model);
        return NB_OK;
    }
    memcpy(r->modality_weights, job->options.modality_weights, sizeof r->modality_weights);
    if (job->options.artifact_count) {
        nb_model_drop_embedding(job->model);
        return open_artifact(job, err);
    }
    job->options.data.go_on = job->options.go_on;
    job->options.data.context = job->context;
    job->options.data.share = (size_t)nb_ranks_mine();
    job->options.data.shares = (size_t)nb_ranks_count();
    nb_status loaded = nb_resume_load(job, err);
    if (loaded == NB_ERR_STOPPED) nb_error_within(err, "%s", job->options.out_dir);
    NB_TRY(loaded);
    uint64_t counts[3 + 2 * NB_MODALITIES] = {job->samples.hash, job->samples.count, job->samples.tokens};
    memcpy(counts + 3, job->samples.by_modality, sizeof job->samples.by_modality);
    memcpy(counts + 3 + NB_MODALITIES, job->samples.counted, sizeof job->samples.counted);
    NB_TRY(nb_ranks_sum_for_all(counts, NB_COUNT(counts), err));
    r->samples = (size_t)counts[1];
    r->tokens = job->tokens = (size_t)counts[2];
    r->too_long = job->samples.too_long;
    r->pictures = job->samples.pictures;
    r->pictures_new = job->samples.pictures_new;
    if (job->samples.spool) r->spool_bytes = nb_spool_bytes(job->samples.spool);
    r->sources = job->samples.by_source; /* handed over */
    r->source_count = job->samples.source_count;
    job->samples.by_source = NULL;
    note_builtin(r, &job->options.data);
    for (int i = 0; i < 3; i++) {
        r->tokens_by_modality[i] = counts[3 + i];
        r->counted += counts[3 + NB_MODALITIES + i];
        weight += (double)job->options.modality_weights[i] * (double)counts[3 + NB_MODALITIES + i];
    }
    if (!r->counted)
        return nb_fail(err, NB_ERR_INPUT, "%s: has no answers of the assistant, and only they are to count: use chats with answers, or "
                       "let all tokens count (--loss-on all)", data_name(&job->options.data));
    if (weight == 0)
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: every token has weight 0 by its modality",
                       data_name(&job->options.data));
    nb_model_drop_embedding(job->model);
    malloc_trim(0); /* the tower's matrices lie in pieces that the allocator would keep */
    nb_job_spent(job, NB_PHASE_DATA, start, 0);
    return NB_OK;
}

static nb_status run_layers(nb_job *job, nb_error *err)
{
    int layers = job->model->config.layers;
    NB_TRY(nb_lane_new(&job->reader, err));
    NB_TRY(nb_resume_replay(job, err));
    for (int i = job->finished; i < layers; i++) {
        job->in_layer = true;
        NB_TRY(nb_layer_job_run(job, i, err));
        job->in_layer = false;
        if (job->stop)
            return nb_fail(err, NB_ERR_STOPPED, "%s: stopped after layer %d of %d; the same command goes on from there",
                           job->options.out_dir, i + 1, layers);
    }
    return NB_OK;
}

static nb_status write_files(nb_job *job, nb_error *err)
{
    const nb_quantize_options *o = &job->options;
    bool                       gptq = o->method == NB_METHOD_GPTQ || o->method == NB_METHOD_AWQ_GPTQ;
    const nb_block_facts       block = {.format = o->format, .choice = &job->choice, .permuted = nb_quantize_permutes(o),
                                        .static_groups = gptq && o->static_groups, .true_sequential = gptq && o->true_sequential,
                                        .damp = gptq ? o->damp : 0};
    const nb_config_edits      edits = {.block = &block, .dtype = job->plain.f16 ? "float16" : NULL, .untied = job->choice.untied};
    NB_TRY(nb_config_out(job->writer, o->model_dir, &edits, err));
    return o->recipe_json ? nb_writer_file(job->writer, "recipe.json", o->recipe_json, strlen(o->recipe_json), err) : NB_OK;
}

/* Hidden states of the calibration data are not needed any more, and the judge has its own. */
static nb_status finish(nb_job *job, nb_error *err)
{
    const nb_quantize_options *o = &job->options;
    const nb_quantized         q = {.original = job->model, .writer = job->writer, .report = job->report};
    nb_resume_drop_states(job);
    return o->finish ? o->finish(o->finish_context, &q, err) : NB_OK;
}

static nb_status write_rest(nb_job *job, nb_error *err)
{
    nb_moment start = nb_moment_now();
    NB_TRY(nb_plain_write(&job->plain, job->writer, job->model->checkpoint, &job->model->config, &job->choice, err));
    NB_TRY(nb_outer_write(job->writer, job->model->checkpoint, &job->choice, job->ops->pool, err));
    NB_TRY(write_files(job, err));
    NB_TRY(nb_buf_status(&job->report->notes, "notes", err));
    nb_job_spent(job, NB_PHASE_WRITE, start, 0);
    NB_TRY(finish(job, err));
    start = nb_moment_now();
    NB_TRY(nb_resume_committing(job, err));
    NB_TRY(nb_writer_commit(job->writer, err));
    nb_job_spent(job, NB_PHASE_WRITE, start, 0);
    return NB_OK;
}

static nb_status run(nb_job *job, nb_error *err)
{
    const nb_quantize_options *o = &job->options;
    NB_TRY(nb_quantize_resolve(&job->options, &job->report->notes, err));
    NB_TRY(nb_places_check(o->model_dir, o->out_dir, err));
    if (nb_ranks_count() > 1 && nb_target_wanted(o))
        return nb_fail(err, NB_ERR_UNSUPPORTED, "what bits cost for a target is measured by one process: leave out mpirun, or the target");
    if (nb_ranks_count() > 1 && (o->asym || o->method == NB_METHOD_AWQ_GPTQ))
        return nb_fail(err, NB_ERR_UNSUPPORTED, "asymmetric calibration and awq+gptq are made by one process: leave out mpirun, or them");
    bool writes = nb_ranks_mine() == 0; /* one rank writes, and what ranks do is not journalled */
    if (nb_ranks_count() == 1) NB_TRY(nb_resume_open(job, err));
    bool resumes = job->journal && (nb_journal_layers(job->journal) || nb_journal_sites(job->journal));
    if (writes) NB_TRY((resumes ? nb_writer_resume : nb_writer_new)(&job->writer, o->out_dir, o->shard_size, o->force, err));
    NB_TRY(open_source(job, err));
    NB_TRY(nb_target_settle(job, err));
    NB_TRY(look_at_kept(job, err));
    NB_TRY(nb_resume_check_choice(job, err));
    if (writes) NB_TRY(plan_output(job, err));
    NB_TRY(nb_resume_find(job, err));
    NB_TRY(nb_job_step(job, err, o->method == NB_METHOD_RTN ? "the layers" : "the calibration data"));
    NB_TRY(load_samples(job, err));
    NB_TRY(run_layers(job, err));
    NB_TRY(nb_job_step(job, err, "the other tensors and files"));
    return writes ? write_rest(job, err) : NB_OK;
}

nb_status nb_quantize(const nb_ops *ops, const nb_quantize_options *options, nb_progress *progress, void *context,
                      nb_quantize_report *report, nb_error *err)
{
    double start = nb_seconds();
    nb_job job = {.ops = ops, .options = *options, .progress = progress, .context = context, .report = report};
    memset(report, 0, sizeof *report);
    nb_status status = run(&job, err);
    /* What the layers found wrong with the input is wrong the next time too. */
    bool hopeless = status == NB_ERR_INPUT && job.in_layer;
    bool keep = status && !hopeless && job.journal && nb_journal_holds(job.journal);
    if (job.writer && keep && (nb_journal_layers(job.journal) || nb_journal_sites(job.journal))) nb_writer_keep(job.writer);
    nb_lane_free(job.reader);
    nb_writer_free(job.writer);
    nb_resume_close(&job, keep);
    nb_artifact_close(job.artifact);
    nb_choice_free(&job.choice);
    nb_float_model_close(&job.source);
    report->seconds = nb_seconds() - start;
    if (status) nb_quantize_report_free(report);
    return status;
}
