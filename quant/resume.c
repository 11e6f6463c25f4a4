/* resume.c - fingerprints, and taking over finished layers.
 *
 * A layer counts as finished when its bytes in OUT.partial have the hash that the journal gives.  Hidden states are not kept: the
 * finished layers are read back and run once over the samples, which costs a small part of solving them and gives the same bits.
 */
#include "quant/resume.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "runtime/io/file.h"

static void add_file(XXH64_state_t *state, const char *path)
{
    struct stat    st;
    const uint64_t missing = 0;
    if (stat(path, &st)) {
        XXH64_update(state, &missing, sizeof missing);
        return;
    }
    const uint64_t says[3] = {(uint64_t)st.st_size, (uint64_t)st.st_mtim.tv_sec, (uint64_t)st.st_mtim.tv_nsec};
    XXH64_update(state, says, sizeof says);
}

static void add_file_in(XXH64_state_t *state, const char *folder, const char *name)
{
    char path[4200];
    snprintf(path, sizeof path, "%.4000s/%s", folder, name);
    add_file(state, path);
}

/* Headers, and size and time of the files; the weights themselves would take as long to read as a layer to solve. */
static void add_model(XXH64_state_t *state, const nb_job *job)
{
    const nb_checkpoint       *c = job->model->checkpoint;
    const nb_quantize_options *o = &job->options;
    for (size_t i = 0; i < nb_checkpoint_shards(c); i++) add_file(state, nb_safetensors_path(nb_checkpoint_shard(c, i)));
    for (size_t i = 0; i < nb_checkpoint_count(c); i++) {
        const nb_entry  *e = nb_checkpoint_at(c, i);
        const nb_tensor *t = e->tensor;
        const uint64_t   says[3] = {t->offset, t->bytes, (uint64_t)t->dtype};
        XXH64_update(state, e->name, strlen(e->name) + 1);
        XXH64_update(state, says, sizeof says);
    }
    add_file_in(state, o->model_dir, "config.json");
    for (size_t i = 0; i < o->lora_count; i++) {
        add_file_in(state, o->loras[i].directory, "adapter_config.json");
        add_file_in(state, o->loras[i].directory, "adapter_model.safetensors");
        add_file_in(state, o->loras[i].directory, "adapter_model.bin");
    }
}

nb_status nb_resume_check_model(nb_job *job, nb_error *err)
{
    const nb_quantize_options *o = &job->options;
    if (!job->journal) return NB_OK;
    XXH64_state_t *state = XXH64_createState();
    if (!state) return nb_fail(err, NB_ERR_MEMORY, "out of memory for a fingerprint");
    XXH64_reset(state, 0);
    add_model(state, job);
    uint64_t hash = XXH64_digest(state);
    XXH64_freeState(state);
    NB_TRY(nb_journal_identity(job->journal, "the model", hash, err));
    const char *recipe = o->recipe_json ? o->recipe_json : "";
    NB_TRY(nb_journal_identity(job->journal, "the command's options", XXH64(recipe, strlen(recipe), 0), err));
    NB_TRY(nb_journal_identity(job->journal, "the bits of the matrices", nb_choice_hash(&job->choice), err));
    return nb_journal_identity(job->journal, "the instruction set or device", XXH64(job->ops->name, strlen(job->ops->name), 0), err);
}

nb_status nb_resume_check_data(nb_job *job, nb_error *err)
{
    return job->journal ? nb_journal_identity(job->journal, "the calibration data", job->samples.hash, err) : NB_OK;
}

static void prefix_of(char out[64], int layer)
{
    snprintf(out, 64, "model.layers.%d.", layer);
}

nb_status nb_resume_layers(nb_job *job, int *first, nb_error *err)
{
    *first = 0;
    if (!job->journal) return NB_OK;
    int finished = (int)nb_journal_layers(job->journal);
    for (; *first < finished; ++*first) {
        const nb_layer_record *r = nb_journal_layer(job->journal, (size_t)*first);
        char                   prefix[64];
        uint64_t               bytes, hash;
        prefix_of(prefix, *first);
        NB_TRY(nb_writer_hash(job->writer, prefix, &bytes, &hash, err));
        if (bytes != r->bytes || hash != r->hash) break;
    }
    NB_TRY(nb_journal_forget(job->journal, (size_t)*first, err));
    for (int i = 0; i < *first; i++) {
        const nb_layer_record *r = nb_journal_layer(job->journal, (size_t)i);
        char                   prefix[64];
        prefix_of(prefix, i);
        nb_writer_take(job->writer, prefix);
        for (int site = 0; site < NB_SITES; site++) {
            float max = r->site_max[site];
            job->report->site_max[i * NB_SITES + site] = max;
            if (!(max <= job->report->max_input)) job->report->max_input = max;
        }
        memcpy(job->report->matrices + (size_t)i * NB_LINEARS, r->matrices, sizeof r->matrices);
        NB_TRY(nb_layer_job_replay(job, i, err));
    }
    return NB_OK;
}

nb_status nb_resume_record(nb_job *job, int layer, nb_error *err)
{
    nb_layer_record r = {0};
    char            prefix[64];
    if (!job->journal) return NB_OK;
    prefix_of(prefix, layer);
    NB_TRY(nb_writer_hash(job->writer, prefix, &r.bytes, &r.hash, err));
    memcpy(r.site_max, job->report->site_max + (size_t)layer * NB_SITES, sizeof r.site_max);
    memcpy(r.matrices, job->report->matrices + (size_t)layer * NB_LINEARS, sizeof r.matrices);
    return nb_journal_add(job->journal, &r, err);
}
