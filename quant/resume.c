/* resume.c - finding what an interrupted run left, believing only what proves itself, and leaving the same for the next one.
 *
 *     layers, sites   whole when their bytes in OUT.partial have the hash that the journal gives, and worth having when the model still
 *                     holds the matrices they were made from
 *     hidden states   whole when the generation in the spool has the mark that the journal gives; otherwise, and for layers that were
 *                     finished after it, finished layers are read back and run over the samples, which gives the same bits
 *
 * A run with a spool leaves its states after every layer.  One with states in memory writes them out now and then, where there is
 * room, so that the next one has few layers to run again; that it could not is no reason to fail.
 */
#include "quant/resume.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>

#include "quant/config_out.h"
#include "quant/fingerprint.h"
#include "runtime/io/file.h"

enum { ROOM = 64 << 20 /* bytes that saved states leave free on their disk */ };

nb_status nb_resume_open(nb_job *job, nb_error *err)
{
    const nb_quantize_options *o = &job->options;
    size_t                     n = strlen(o->out_dir);
    char                      *folder;
    if (!o->job) return NB_OK;
    while (n > 1 && o->out_dir[n - 1] == '/') n--;
    if (asprintf(&folder, "%.*s%s", o->job_dir ? (int)strlen(o->job_dir) : (int)n, o->job_dir ? o->job_dir : o->out_dir,
                 o->job_dir ? "" : ".job") < 0)
        return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", o->out_dir);
    nb_status status = nb_journal_open(&job->journal, folder, o->out_dir, !o->anew, err);
    free(folder);
    return status;
}

/* ---- what must be the same ----------------------------------------------------------------------------------------- */

static nb_status check_files(nb_journal *j, const nb_job *job, nb_error *err)
{
    const nb_quantize_options *o = &job->options;
    const nb_checkpoint       *c = job->model->checkpoint;
    NB_TRY(nb_fingerprint_file(j, o->model_dir, "config.json", err));
    for (size_t i = 0; i < nb_config_out_copied_count; i++)
        NB_TRY(nb_fingerprint_file(j, o->model_dir, nb_config_out_copied[i], err));
    for (size_t i = 0; i < o->lora_count; i++) {
        NB_TRY(nb_fingerprint_file(j, o->loras[i].directory, "adapter_config.json", err));
        NB_TRY(nb_fingerprint_file(j, o->loras[i].directory, "adapter_model.safetensors", err));
    }
    for (size_t i = 0; i < nb_checkpoint_shards(c); i++)
        NB_TRY(nb_fingerprint_shard(j, nb_safetensors_path(nb_checkpoint_shard(c, i)), err));
    return NB_OK;
}

nb_status nb_resume_check_model(nb_job *job, nb_error *err)
{
    nb_journal *j = job->journal;
    if (!j) return NB_OK;
    NB_TRY(nb_fingerprint_options(j, job->options.recipe_json, err));
    NB_TRY(nb_journal_fact(j, "the instruction set or device", job->ops->name, err));
    NB_TRY(check_files(j, job, err));
    if (job->options.command_json) NB_TRY(nb_journal_command(j, job->options.command_json, err));
    return nb_alloc(&job->plain_hash, nb_checkpoint_shards(job->model->checkpoint), sizeof *job->plain_hash, "a fingerprint", err);
}

nb_status nb_resume_check_choice(nb_job *job, nb_error *err)
{
    return job->journal ? nb_fingerprint_hash(job->journal, "the bits chosen for the matrices", nb_choice_hash(&job->choice), err) : NB_OK;
}

void nb_resume_look(void *context, const nb_entry *e, const float *values, size_t n)
{
    nb_job              *job = context;
    const nb_checkpoint *c = job->model->checkpoint;
    size_t               shard = 0;
    if (!job->plain_hash) return;
    while (nb_checkpoint_shard(c, shard) != e->file) shard++;
    job->plain_hash[shard] = XXH64(e->name, strlen(e->name), job->plain_hash[shard]);
    job->plain_hash[shard] = XXH64(values, n * sizeof *values, job->plain_hash[shard]);
}

nb_status nb_resume_check_plain(nb_job *job, nb_error *err)
{
    const nb_checkpoint *c = job->model->checkpoint;
    nb_status            status = NB_OK;
    for (size_t i = 0; job->plain_hash && i < nb_checkpoint_shards(c) && !status; i++) {
        char *what;
        if (asprintf(&what, "%s (norms, biases, embedding, vision tower)", nb_safetensors_path(nb_checkpoint_shard(c, i))) < 0)
            return nb_fail(err, NB_ERR_MEMORY, "out of memory for a fingerprint");
        status = nb_fingerprint_hash(job->journal, what, job->plain_hash[i], err);
        free(what);
    }
    return status;
}

nb_status nb_resume_check_data(const nb_job *job, nb_error *err)
{
    const nb_samples_options *o = &job->options.data;
    nb_buf                    what = {0};
    if (!job->journal) return NB_OK;
    if (o->path) nb_buf_str(&what, o->path);
    for (size_t i = 0; !o->path && i < o->source_count; i++) nb_buf_printf(&what, i ? ", %s" : "%s", o->sources[i].path);
    for (size_t i = 0; i < job->options.artifact_count; i++) nb_buf_printf(&what, i ? ", %s" : "%s", job->options.artifacts[i]);
    nb_buf_str(&what, job->artifact ? " (the data of these statistics)" : " (a conversation that is used, or a picture in one)");
    nb_status status = nb_buf_status(&what, "a fingerprint", err);
    if (!status) status = nb_fingerprint_hash(job->journal, what.data, job->samples.hash, err);
    nb_buf_free(&what);
    return status;
}

static nb_status same_source(const nb_job *job, int layer, const uint64_t then[NB_LINEARS], const uint64_t source[NB_LINEARS],
                             nb_error *err)
{
    nb_float_layer names;
    char           tensor[80];
    nb_float_layer_shape(&names, &job->model->config, layer);
    for (int i = 0; i < NB_LINEARS; i++) {
        if (source[i] == then[i]) continue;
        snprintf(tensor, sizeof tensor, "%s.weight", names.name[i]);
        const nb_entry *e = nb_checkpoint_find(job->model->checkpoint, tensor);
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: tensor '%s' changed since the job in %s quantized it; put it back, or start anew with "
                       "--no-resume", e ? nb_safetensors_path(e->file) : job->options.model_dir, tensor, nb_journal_folder(job->journal));
    }
    return NB_OK;
}

nb_status nb_resume_same_source(nb_job *job, int layer, const uint64_t source[NB_LINEARS], nb_error *err)
{
    if (!job->journal || !job->sites) return NB_OK;
    return same_source(job, layer, nb_journal_site(job->journal, 0)->source, source, err);
}

/* ---- what is there ------------------------------------------------------------------------------------------------- */

static void layer_prefix(char out[100], int layer)
{
    snprintf(out, 100, "model.layers.%d.", layer);
}

/* Hash of what the writer's folder holds of a site's matrices. */
static nb_status hash_site(nb_job *job, int layer, int site, uint64_t *bytes, uint64_t *hash, nb_error *err)
{
    nb_float_layer names;
    nb_float_layer_shape(&names, &job->model->config, layer);
    *bytes = *hash = 0;
    for (int i = nb_site_first[site]; i < nb_site_first[site] + nb_site_count[site]; i++) {
        char     prefix[100];
        uint64_t some, of[2] = {*hash, 0};
        snprintf(prefix, sizeof prefix, "%s.", names.name[i]);
        NB_TRY(nb_writer_hash(job->writer, prefix, &some, &of[1], err));
        *bytes += some;
        *hash = XXH64(of, sizeof of, 0);
    }
    return NB_OK;
}

static void take_report(nb_job *job, int layer, const nb_layer_record *r, int first, int count)
{
    nb_float_layer names;
    nb_float_layer_shape(&names, &job->model->config, layer);
    for (int i = first; i < first + count; i++) {
        nb_matrix_report *m = &job->report->matrices[layer * NB_LINEARS + i];
        *m = r->matrices[i];
        snprintf(m->name, sizeof m->name, "%s", names.name[i]);
    }
    for (int site = 0; site < NB_SITES; site++) {
        if (nb_site_first[site] < first || nb_site_first[site] >= first + count) continue;
        float max = r->site_max[site];
        job->report->site_max[layer * NB_SITES + site] = max;
        if (!(max <= job->report->max_input)) job->report->max_input = max;
    }
}

void nb_resume_report_sites(nb_job *job)
{
    for (int site = 0; job->journal && site < job->sites; site++)
        take_report(job, job->finished, nb_journal_site(job->journal, site), nb_site_first[site], nb_site_count[site]);
}

static nb_status find_layers(nb_job *job, nb_error *err)
{
    int recorded = (int)nb_journal_layers(job->journal);
    for (; job->finished < recorded; job->finished++) {
        const nb_layer_record *r = nb_journal_layer(job->journal, (size_t)job->finished);
        char                   prefix[100];
        uint64_t               bytes, hash, source[NB_LINEARS];
        layer_prefix(prefix, job->finished);
        NB_TRY(nb_writer_hash(job->writer, prefix, &bytes, &hash, err));
        if (bytes != r->bytes || hash != r->hash) return NB_OK;
        NB_TRY(nb_float_layer_hash(source, job->model, job->finished, err));
        NB_TRY(same_source(job, job->finished, r->source, source, err));
        nb_writer_take(job->writer, prefix);
        take_report(job, job->finished, r, 0, NB_LINEARS);
    }
    return NB_OK;
}

static nb_status find_sites(nb_job *job, nb_error *err)
{
    nb_float_layer names;
    nb_float_layer_shape(&names, &job->model->config, job->finished);
    for (; job->sites < nb_journal_sites(job->journal); job->sites++) {
        const nb_layer_record *r = nb_journal_site(job->journal, job->sites);
        int                    first = nb_site_first[job->sites], count = nb_site_count[job->sites];
        uint64_t               bytes, hash;
        NB_TRY(hash_site(job, job->finished, job->sites, &bytes, &hash, err));
        if (bytes != r->bytes || hash != r->hash) return NB_OK;
        for (int i = first; i < first + count; i++) {
            char prefix[100];
            snprintf(prefix, sizeof prefix, "%s.", names.name[i]);
            nb_writer_take(job->writer, prefix);
        }
        take_report(job, job->finished, r, first, count);
    }
    return NB_OK;
}

nb_status nb_resume_find(nb_job *job, nb_error *err)
{
    nb_journal *j = job->journal;
    if (!j) return NB_OK;
    NB_TRY(find_layers(job, err));
    if (job->finished == (int)nb_journal_layers(j) && job->finished < job->model->config.layers) NB_TRY(find_sites(job, err));
    return nb_journal_forget(j, (size_t)job->finished, job->sites, err);
}

/* ---- hidden states ------------------------------------------------------------------------------------------------- */

/* With asymmetric calibration there are two streams of states, which are of use only together.  Those of the original model lie in a
 * folder inside the other's. */
static nb_status name_original(nb_job *job, nb_error *err)
{
    const char *within = job->options.data.spool ? job->options.data.spool : job->journal ? nb_journal_folder(job->journal) : NULL;
    if (!job->options.asym || !within) return NB_OK;
    job->original_folder = nb_path_join(within, "original");
    return job->original_folder ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", within);
}

/* Where states that are in memory are saved. */
static nb_status open_saver(nb_spool **saver, const nb_job *job, const char *folder, nb_error *err)
{
    if (*saver) return NB_OK;
    NB_TRY(nb_spool_new(saver, folder, job->options.data.spool_level, job->options.data.spool_chunk, err));
    nb_spool_keep(*saver);
    return NB_OK;
}

static bool room_to_save(const nb_job *job)
{
    struct statvfs fs;
    double         streams = job->original.count ? 2 : 1;
    double         need = streams * (double)job->samples.tokens * job->model->config.hidden * sizeof(float) + ROOM;
    return statvfs(nb_journal_folder(job->journal), &fs) == 0 && (double)fs.f_bavail * (double)fs.f_frsize >= need;
}

static nb_status save_both(nb_job *job, nb_error *err)
{
    NB_TRY(open_saver(&job->saver, job, nb_journal_folder(job->journal), err));
    NB_TRY(nb_samples_save(&job->samples, job->model, job->saver, err));
    if (!job->original.count) return NB_OK;
    NB_TRY(open_saver(&job->original_saver, job, job->original_folder, err));
    return nb_samples_save(&job->original, job->model, job->original_saver, err);
}

/* States in memory to disk.  *saved is false where the disk does not take them. */
static nb_status save_from_memory(nb_job *job, bool *saved, nb_error *err)
{
    nb_error why = {0};
    *saved = false;
    if (job->options.save_states <= 0) return NB_OK;
    if (!room_to_save(job)) {
        nb_fail(&why, NB_ERR_IO, "%s: too little room", nb_journal_folder(job->journal));
    } else if (save_both(job, &why) == NB_OK) {
        *saved = true;
        return NB_OK;
    }
    nb_buf_printf(&job->report->run_notes, "hidden states are not saved for a resumed run, which will take longer: %s\n", why.text);
    nb_spool_free(job->saver);
    nb_spool_free(job->original_saver);
    job->saver = job->original_saver = NULL;
    job->options.save_states = 0; /* once is enough */
    return nb_buf_status(&job->report->run_notes, "notes", err);
}

/* The inputs of job->states are the samples' states: on disk, and written down. */
static nb_status record_states(nb_job *job, nb_error *err)
{
    nb_spool *spool = job->samples.spool, *original = job->original.spool;
    bool      saved = true;
    if (!spool) {
        NB_TRY(save_from_memory(job, &saved, err));
        spool = job->saver;
        original = job->original_saver;
    }
    if (!saved) return NB_OK;
    nb_states_record r = {.layer = (size_t)job->states, .mark = nb_spool_marked(spool), .twin = job->original.count > 0};
    if (r.twin) r.original = nb_spool_marked(original);
    NB_TRY(nb_journal_add_states(job->journal, &r, err));
    nb_spool_settle(spool);
    if (r.twin) nb_spool_settle(original);
    return NB_OK;
}

static nb_status load_anew(nb_job *job, nb_error *err)
{
    NB_TRY(nb_samples_load(&job->samples, job->model, &job->options.data, err));
    NB_TRY(nb_samples_embed(&job->samples, job->model, err));
    NB_TRY(nb_resume_check_data(job, err));
    if (!job->journal) return NB_OK;
    if (job->samples.spool) nb_spool_keep(job->samples.spool);
    bool media = job->samples.by_modality[1] + job->samples.by_modality[2] > 0; /* without, embedding is only copying rows */
    return job->samples.spool || media ? record_states(job, err) : NB_OK;
}

/* The states of a mark, or *spool = NULL. */
static nb_status recover(nb_spool **spool, nb_job *job, const char *folder, const nb_spool_mark *mark, nb_error *err)
{
    const nb_samples_options *o = &job->options.data;
    nb_buf                    why = {0};
    nb_status                 status = nb_spool_recover(spool, folder, o->spool_level, o->spool_chunk, mark, &why, err);
    if (!status && why.size) {
        nb_buf_printf(&job->report->run_notes, "hidden states of an earlier run are not used, but computed again: %s\n", why.data);
        nb_spool_free(*spool);
        *spool = NULL;
    } else if (!status) {
        nb_spool_keep(*spool);
    }
    nb_buf_free(&why);
    return status;
}

/* The states that the journal speaks of, all of them, or *spool = NULL.  *original = NULL: the same as *spool. */
static nb_status recover_states(nb_spool **spool, nb_spool **original, nb_job *job, nb_error *err)
{
    const nb_quantize_options *o = &job->options;
    const nb_states_record    *r = job->journal ? nb_journal_states(job->journal) : NULL;
    *spool = *original = NULL;
    if (!r || (o->asym && !r->twin && r->layer)) return NB_OK;
    NB_TRY(recover(spool, job, o->data.spool ? o->data.spool : nb_journal_folder(job->journal), &r->mark, err));
    if (!o->asym || !r->twin) return NB_OK;
    nb_status status = recover(original, job, job->original_folder, &r->original, err);
    if (!status && *spool && *original) return NB_OK;
    nb_spool **half = *spool ? spool : original; /* of no use alone */
    if (*half && !status) nb_spool_discard(*half);
    nb_spool_free(*half);
    *spool = *original = NULL;
    return status;
}

static nb_status load_recovered(nb_job *job, nb_spool *spool, nb_error *err)
{
    nb_samples_options *data = &job->options.data;
    data->known = true;
    nb_status status = nb_samples_load(&job->samples, job->model, data, err);
    if (!status) status = nb_resume_check_data(job, err);
    if (!status) status = nb_samples_adopt(&job->samples, job->model, spool, data->spool != NULL, err);
    if (!status) job->states = (int)nb_journal_states(job->journal)->layer;
    if (job->samples.spool != spool) job->saver = spool;
    return status;
}

/* The original stream: recovered with the other, or, before the first layer, its copy. */
static nb_status make_twin(nb_job *job, nb_spool *original, nb_error *err)
{
    const nb_samples_options *o = &job->options.data;
    nb_spool                 *spool = NULL;
    if (original) {
        nb_status status = nb_samples_twin_adopt(&job->original, &job->samples, job->model, original, o->spool != NULL, err);
        if (job->original.spool != original) job->original_saver = original;
        return status;
    }
    if (o->spool) NB_TRY(nb_spool_new(&spool, job->original_folder, o->spool_level, o->spool_chunk, err));
    NB_TRY(nb_samples_twin(&job->original, &job->samples, job->model, spool, err));
    if (spool && job->journal) nb_spool_keep(spool);
    return NB_OK;
}

/* All layers are finished: of the samples only what they are is asked for, and what an earlier run kept of their states can go. */
static nb_status load_known(nb_job *job, nb_error *err)
{
    nb_samples_options *data = &job->options.data;
    const char         *folders[] = {job->original_folder, data->spool ? data->spool : nb_journal_folder(job->journal)};
    for (size_t i = 0; i < NB_COUNT(folders); i++) {
        nb_spool *left;
        if (!folders[i] || !nb_is_directory(folders[i])) continue;
        NB_TRY(nb_spool_new(&left, folders[i], 0, 0, err)); /* which removes them */
        nb_spool_free(left);
    }
    data->known = true;
    NB_TRY(nb_samples_load(&job->samples, job->model, data, err));
    return nb_resume_check_data(job, err);
}

nb_status nb_resume_load(nb_job *job, nb_error *err)
{
    nb_samples_options *data = &job->options.data;
    nb_spool           *spool, *original;
    data->embed = true; /* pictures of all samples at once can be larger than everything else */
    NB_TRY(name_original(job, err));
    if (job->finished == job->model->config.layers) return load_known(job, err);
    NB_TRY(recover_states(&spool, &original, job, err));
    nb_status status = spool ? load_recovered(job, spool, err) : load_anew(job, err);
    if (!status && job->options.asym) return make_twin(job, original, err);
    nb_spool_free(original);
    return status;
}

nb_status nb_resume_replay(nb_job *job, nb_error *err)
{
    const nb_quantize_options *o = &job->options;
    int                        layers = job->model->config.layers, again = job->finished - job->states;
    if (job->finished || job->sites || job->states) {
        char text[200];
        int  n = job->finished == layers ? snprintf(text, sizeof text, "goes on after the last of %d layers", layers)
                                         : snprintf(text, sizeof text, "goes on at layer %d of %d", job->finished + 1, layers);
        if (job->sites) n += snprintf(text + n, sizeof text - (size_t)n, ", of which %d of %d steps are finished", job->sites, NB_SITES);
        if (o->method != NB_METHOD_RTN && job->finished < layers)
            snprintf(text + n, sizeof text - (size_t)n, again ? "; %d finished layer%s run again" : "; its inputs are on disk", again,
                     again == 1 ? " is" : "s are");
        if (o->tell) o->tell(job->context, text);
    }
    job->report->resumed_layers = (size_t)job->finished;
    for (int i = 0; i < job->finished; i++) {
        NB_TRY(nb_job_step(job, err, "layer %d of %d, which is finished", i + 1, layers));
        job->done += NB_SITES - 1;
        if (i < job->states || job->finished == layers) continue;
        NB_TRY(nb_layer_job_replay(job, i, err));
        job->report->replayed_layers++;
    }
    job->states = job->finished;
    return NB_OK;
}

/* ---- what is left for the next run --------------------------------------------------------------------------------- */

nb_status nb_resume_record_site(nb_job *job, int layer, int site, const uint64_t source[NB_LINEARS], nb_error *err)
{
    nb_layer_record r = {0};
    if (!job->journal) return NB_OK;
    NB_TRY(hash_site(job, layer, site, &r.bytes, &r.hash, err));
    memcpy(r.source, source, sizeof r.source);
    memcpy(r.site_max, job->report->site_max + (size_t)layer * NB_SITES, sizeof r.site_max);
    memcpy(r.matrices, job->report->matrices + (size_t)layer * NB_LINEARS, sizeof r.matrices);
    return nb_journal_add_site(job->journal, &r, err);
}

nb_status nb_resume_record_layer(nb_job *job, int layer, const uint64_t source[NB_LINEARS], nb_error *err)
{
    nb_layer_record r = {0};
    char            prefix[100];
    job->sites = 0;
    job->states = layer + 1;
    if (!job->journal) return NB_OK;
    layer_prefix(prefix, layer);
    NB_TRY(nb_writer_hash(job->writer, prefix, &r.bytes, &r.hash, err));
    memcpy(r.source, source, sizeof r.source);
    memcpy(r.site_max, job->report->site_max + (size_t)layer * NB_SITES, sizeof r.site_max);
    memcpy(r.matrices, job->report->matrices + (size_t)layer * NB_LINEARS, sizeof r.matrices);
    NB_TRY(nb_journal_add_layer(job->journal, &r, err));
    if (job->options.method == NB_METHOD_RTN || job->artifact || layer + 1 == job->model->config.layers) return NB_OK; /* no states, or their end */
    const nb_states_record *last = nb_journal_states(job->journal);
    int                     behind = layer + 1 - (last ? (int)last->layer : 0);
    return job->samples.spool || behind >= job->options.save_states ? record_states(job, err) : NB_OK;
}

nb_status nb_resume_committing(nb_job *job, nb_error *err)
{
    return job->journal ? nb_journal_committing(job->journal, nb_writer_partial(job->writer), err) : NB_OK;
}

static void free_states(nb_job *job, bool keep)
{
    nb_spool *all[] = {job->samples.spool, job->original.spool, job->saver, job->original_saver};
    for (size_t i = 0; i < NB_COUNT(all) && !keep; i++)
        if (all[i]) nb_spool_discard(all[i]);
    nb_samples_free(&job->original);
    nb_samples_free(&job->samples);
    nb_spool_free(job->saver);
    nb_spool_free(job->original_saver);
    job->saver = job->original_saver = NULL;
    if (job->original_folder) rmdir(job->original_folder); /* a run that was killed had made it */
}

void nb_resume_drop_states(nb_job *job)
{
    free_states(job, false);
}

void nb_resume_close(nb_job *job, bool keep)
{
    free_states(job, keep);
    free(job->original_folder);
    nb_journal_close(job->journal, !keep);
    free(job->plain_hash);
}
