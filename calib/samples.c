/* samples.c - choosing rows, building their prompts, embedding them.  The passes through the layers are in samples_layer.c.
 *
 * Hidden states take tokens * hidden * 4 bytes.  Only this file and samples_layer.c touch them, so that nobody else notices
 * whether they are in memory or in a spool.
 */
#include "calib/samples.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

void nb_samples_free(nb_samples *s)
{
    for (size_t i = 0; i < s->count; i++) {
        if (!s->twin) nb_prompt_free(&s->prompts[i]);
        if (s->hidden) free(s->hidden[i]);
    }
    if (!s->twin) free(s->prompts);
    free(s->hidden);
    free(s->by_source);
    nb_spool_free(s->spool);
    nb_visual_cache_free(s->pictures_seen);
    memset(s, 0, sizeof *s);
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

/* A set that is being loaded. */
typedef struct {
    nb_samples               *s;
    const nb_model           *model;
    const nb_samples_options *o;
    XXH64_state_t            *identity;
    size_t                    found; /* samples of all shares */
} loading;

static void add_identity(XXH64_state_t *state, const nb_prompt *p, const nb_processor *processor, bool answers_only)
{
    size_t   columns = 3 * (size_t)processor->temporal * (size_t)processor->patch * (size_t)processor->patch; /* of a patch */
    uint64_t head[2] = {p->count, (uint64_t)p->media_count};
    XXH64_update(state, head, sizeof head);
    XXH64_update(state, p->ids, p->count * sizeof *p->ids);
    XXH64_update(state, p->position, 3 * p->count * sizeof *p->position);
    if (answers_only) XXH64_update(state, p->answer, p->count);
    for (int j = 0; j < p->media_count; j++) {
        const nb_patches *m = &p->media[j];
        int32_t           grid[3] = {m->t, m->h, m->w};
        XXH64_update(state, grid, sizeof grid);
        XXH64_update(state, m->rows, (size_t)m->t * (size_t)m->h * (size_t)m->w * columns * sizeof *m->rows);
    }
}

static void drop_media(nb_prompt *p)
{
    for (int j = 0; j < p->media_count; j++) nb_patches_free(&p->media[j]); /* by far the largest part of a prompt */
}

/* The same picture in several conversations goes through the vision tower once, as long as its rows find room in the cache. */
static nb_status embed(float **out, nb_prompt *p, nb_samples *s, const nb_model *model, nb_error *err)
{
    nb_visual **rows;
    if (!s->pictures_seen && p->media_count) NB_TRY(nb_visual_cache_new(&s->pictures_seen, NB_SAMPLES_PICTURES, err));
    NB_TRY(nb_visual_of_prompt(&rows, model, p, s->pictures_seen, err));
    nb_status status = nb_prompt_embed_rows(model, p, rows, out, err);
    nb_visual_drop_all(rows, p->media_count);
    if (status) return status;
    drop_media(p);
    return NB_OK;
}

static nb_status embed_into_spool(nb_prompt *p, nb_samples *s, const nb_model *model, nb_error *err)
{
    float *hidden;
    NB_TRY(embed(&hidden, p, s, model, err));
    nb_status status = nb_spool_put(s->spool, hidden, p->count * (size_t)model->config.hidden, err);
    free(hidden);
    return status;
}

static void count_prompt(nb_samples *s, const nb_prompt *p, size_t source)
{
    nb_source_count *from = &s->by_source[source];
    s->count++;
    s->tokens += p->count;
    from->samples++;
    from->tokens += p->count;
    for (size_t i = 0; i < p->count; i++) {
        s->by_modality[p->modality[i]]++;
        from->by_modality[p->modality[i]]++;
        s->counted[p->modality[i]] += !s->answers_only || p->answer[i];
    }
}

/* *used false: the row is left out. */
static nb_status take_row(loading *l, const nb_dataset *d, size_t from, const nb_chat *chat, const char *where, bool *used,
                          nb_error *err)
{
    *used = false;
    nb_samples               *s = l->s;
    const nb_samples_options *o = l->o;
    const nb_model           *model = l->model;
    nb_prompt_options options = o->prompt;
    options.where = where;
    if (!options.media.root) options.media.root = nb_dataset_root(d);
    nb_prompt_source source = nb_model_source(model);
    bool in_memory = o->embed && !s->spool && !o->known;
    NB_TRY(nb_grow(&s->prompts, &s->capacity, s->count + 1, sizeof *s->prompts, "samples", err));
    if (in_memory) {
        NB_TRY(nb_grow(&s->hidden, &s->hidden_capacity, s->count + 1, sizeof *s->hidden, "samples", err));
        s->hidden[s->count] = NULL;
    }
    nb_prompt *p = &s->prompts[s->count];
    memset(p, 0, sizeof *p);
    NB_TRY(nb_prompt_build(p, chat, &source, &options, err));
    if (!p->count || (o->seq_len && p->count > o->seq_len)) {
        s->too_long += p->count != 0;
        s->by_source[from].too_long += p->count != 0;
        nb_prompt_free(p);
        return NB_OK;
    }
    if (o->seen) {
        nb_status status = o->seen(o->seen_context, chat, p, options.media.root, where, err);
        if (status) {
            nb_prompt_free(p);
            return status;
        }
    }
    *used = true;
    if (l->found++ % (o->shares ? o->shares : 1) != o->share) { /* another rank has it */
        nb_prompt_free(p);
        return NB_OK;
    }
    count_prompt(s, p, from);
    XXH64_reset(l->identity, 0);
    add_identity(l->identity, p, &model->processor, s->answers_only);
    s->hash += XXH64_digest(l->identity); /* a sum: samples count, their order does not */
    if (o->known) drop_media(p);
    if (s->spool) return embed_into_spool(p, s, model, err);
    return in_memory ? embed(&s->hidden[s->count - 1], p, s, model, err) : NB_OK;
}

/* Whether skip_bad passes over a row that failed so. */
static bool pass_over(const loading *l, nb_status status)
{
    return l->o->skip_bad && (status == NB_ERR_INPUT || status == NB_ERR_UNSUPPORTED);
}

static void count_bad(nb_samples *s, const nb_error *err)
{
    if (!s->bad++) snprintf(s->first_bad, sizeof s->first_bad, "%.255s", err->text);
}

static nb_status load_rows(loading *l, const nb_data_source *sources, size_t count, nb_error *err)
{
    const nb_samples_options *o = l->o;
    nb_mix_options how = {.dataset = o->dataset, .samples = (size_t)o->samples, .skip = (size_t)o->skip, .shuffle = o->shuffle,
                          .held = o->held, .seed = o->seed};
    nb_mix        *mix;
    NB_TRY(nb_alloc(&l->s->by_source, count, sizeof *l->s->by_source, "the counts of data files", err));
    l->s->source_count = count;
    NB_TRY(nb_mix_open(&mix, sources, count, &how, err));
    nb_status status = NB_OK;
    for (bool end = false; !status && !end;) {
        nb_chat chat;
        char    where[256];
        size_t  source;
        bool    used = false;
        if (o->go_on && !o->go_on(o->context)) {
            status = nb_fail(err, NB_ERR_STOPPED, "stopped after %zu conversations of the calibration data; nothing is lost but their embedding", l->s->count);
            break;
        }
        status = nb_mix_next(mix, &chat, where, &source, &end, err);
        if (pass_over(l, status)) {
            count_bad(l->s, err);
            status = NB_OK;
            if (nb_mix_resume(mix)) continue;
            break; /* the rest cannot be read */
        }
        if (!status && !end) status = take_row(l, nb_mix_dataset(mix), source, &chat, where, &used, err);
        if (pass_over(l, status)) {
            count_bad(l->s, err);
            status = NB_OK;
        }
        if (used) nb_mix_took(mix);
        nb_chat_free(&chat);
    }
    nb_mix_close(mix);
    return status;
}

nb_status nb_samples_load(nb_samples *out, const nb_model *model, const nb_samples_options *options, nb_error *err)
{
    memset(out, 0, sizeof *out);
    out->answers_only = options->answers_only;
    out->kv_type = options->kv_type;
    if (options->samples < 0 || options->skip < 0)
        return nb_fail(err, NB_ERR_ARGUMENT, "the number of samples (%d) and of rows to skip (%d) cannot be negative",
                       options->samples, options->skip);
    const nb_data_source  one = {.path = options->path, .weight = 1, .hold = options->hold, .total = options->total};
    const nb_data_source *sources = options->path ? &one : options->sources;
    size_t                count = options->path ? 1 : options->source_count;
    if (!count) return nb_fail(err, NB_ERR_ARGUMENT, "there are no data files to calibrate on");
    loading   l = {.s = out, .model = model, .o = options, .identity = XXH64_createState()};
    nb_status status = l.identity ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "out of memory for calibration data");
    if (!status && options->spool && !options->known) {
        status = nb_spool_new(&out->spool, options->spool, options->spool_level, options->spool_chunk, err);
        if (!status) status = nb_spool_start(out->spool, err);
    }
    if (!status) status = load_rows(&l, sources, count, err);
    if (!status && !l.found)
        status = nb_fail(err, NB_ERR_INPUT, "%s%s: no row is left to %s (%d skipped, %zu longer than %zu tokens)", sources[0].path,
                         count > 1 ? " and the other files" : "", options->held ? "judge on" : "calibrate on", options->skip, out->too_long,
                         options->seq_len);
    XXH64_freeState(l.identity);
    if (status) nb_samples_free(out);
    return status;
}

static void forget_pictures(nb_samples *s)
{
    if (!s->pictures_seen) return;
    nb_visual_cache_stats seen = nb_visual_cache_look(s->pictures_seen);
    s->pictures = seen.queries;
    s->pictures_new = seen.queries - seen.hits;
    nb_visual_cache_free(s->pictures_seen);
    s->pictures_seen = NULL;
}

nb_status nb_samples_embed(nb_samples *s, const nb_model *model, nb_error *err)
{
    if (s->spool) {
        forget_pictures(s);
        return nb_spool_finish(s->spool, err); /* embedded while loading */
    }
    if (!s->hidden) NB_TRY(nb_alloc(&s->hidden, s->count, sizeof *s->hidden, "hidden states", err));
    for (size_t i = 0; i < s->count; i++)
        if (!s->hidden[i]) NB_TRY(embed(&s->hidden[i], &s->prompts[i], s, model, err));
    forget_pictures(s);
    return NB_OK;
}

/* ---- to a spool and from one --------------------------------------------------------------------------------------- */

nb_status nb_samples_save(const nb_samples *s, const nb_model *model, nb_spool *to, nb_error *err)
{
    NB_TRY(nb_spool_start(to, err));
    for (size_t i = 0; i < s->count; i++)
        NB_TRY(nb_spool_put(to, s->hidden[i], s->prompts[i].count * (size_t)model->config.hidden, err));
    return nb_spool_finish(to, err);
}

nb_status nb_samples_adopt(nb_samples *s, const nb_model *model, nb_spool *from, bool keep, nb_error *err)
{
    size_t hidden = (size_t)model->config.hidden;
    bool   same = nb_spool_samples(from) == s->count;
    for (size_t i = 0; i < s->count && same; i++) same = nb_spool_values(from, i) == s->prompts[i].count * hidden;
    if (!same) return nb_fail(err, NB_ERR_DIFFERENT, "the hidden states on disk are those of another calibration set");
    if (keep) {
        s->spool = from;
        return NB_OK;
    }
    NB_TRY(nb_alloc(&s->hidden, s->count, sizeof *s->hidden, "hidden states", err));
    for (size_t i = 0; i < s->count; i++) {
        size_t n = s->prompts[i].count * hidden;
        NB_TRY(nb_alloc(&s->hidden[i], n, sizeof(float), "hidden states", err));
        NB_TRY(nb_spool_get(from, i, s->hidden[i], n, err));
    }
    return NB_OK;
}

nb_status nb_samples_state(const nb_samples *s, size_t sample, size_t hidden, float *out, nb_error *err)
{
    size_t values = s->prompts[sample].count * hidden; /* exists, so it fits */
    if (s->spool) return nb_spool_get(s->spool, sample, out, values, err);
    memcpy(out, s->hidden[sample], values * sizeof *out);
    return NB_OK;
}

/* ---- a second set of states -------------------------------------------------------------------------------------- */

static nb_status copy_states(nb_samples *out, const nb_samples *s, size_t hidden, nb_error *err)
{
    if (out->spool) NB_TRY(nb_spool_start(out->spool, err));
    for (size_t i = 0; i < s->count; i++) {
        size_t values = s->prompts[i].count * hidden;
        float *copy;
        NB_TRY(nb_alloc(&copy, values, sizeof *copy, "hidden states", err));
        nb_status status = s->spool ? nb_spool_get(s->spool, i, copy, values, err) : NB_OK;
        if (!s->spool) memcpy(copy, s->hidden[i], values * sizeof *copy);
        if (!status && out->spool) status = nb_spool_put(out->spool, copy, values, err);
        if (!status && !out->spool) out->hidden[i] = copy;
        if (status || out->spool) free(copy);
        NB_TRY(status);
    }
    return out->spool ? nb_spool_finish(out->spool, err) : NB_OK;
}

static void begin_twin(nb_samples *out, const nb_samples *s)
{
    *out = *s;
    out->twin = true;
    out->hidden = NULL;
    out->spool = NULL;
    out->by_source = NULL;
    out->source_count = 0;
}

nb_status nb_samples_twin(nb_samples *out, const nb_samples *s, const nb_model *model, nb_spool *to, nb_error *err)
{
    begin_twin(out, s);
    out->spool = to;
    nb_status status = to ? NB_OK : nb_alloc(&out->hidden, s->count, sizeof *out->hidden, "hidden states", err);
    if (!status) status = copy_states(out, s, (size_t)model->config.hidden, err);
    if (status) nb_samples_free(out);
    return status;
}

nb_status nb_samples_twin_adopt(nb_samples *out, const nb_samples *s, const nb_model *model, nb_spool *from, bool keep, nb_error *err)
{
    begin_twin(out, s);
    nb_status status = nb_samples_adopt(out, model, from, keep, err);
    if (status) nb_samples_free(out);
    return status;
}
