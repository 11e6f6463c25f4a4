/* samples.c - choosing rows, building their prompts, embedding them.  The passes through the layers are in samples_layer.c.
 *
 * Hidden states take tokens * hidden * 4 bytes.  Only this file and samples_layer.c touch them, so that nobody else notices
 * whether they are in memory or in a spool.
 */
#include "calib/samples.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

void nb_samples_free(nb_samples *s)
{
    for (size_t i = 0; i < s->count; i++) {
        nb_prompt_free(&s->prompts[i]);
        if (s->hidden) free(s->hidden[i]);
    }
    free(s->prompts);
    free(s->hidden);
    nb_spool_free(s->spool);
    nb_visual_cache_free(s->pictures_seen);
    memset(s, 0, sizeof *s);
}

/* ---- choosing rows ----------------------------------------------------------------------------------------------- */

/* A permutation of the rows, made as far as it is used: places 0 .. drawn-1 are settled. */
typedef struct {
    size_t  *rows;
    size_t   count, drawn;
    uint64_t state;
} row_draw;

/* splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* One step of Fisher-Yates: the next place gets one of the rows that are left.  64 random bits make the bias of the
 * remainder smaller than 2^-32 for any file that fits a disk. */
static size_t draw_row(row_draw *d)
{
    size_t place = d->drawn++, from = place + (size_t)(next_random(&d->state) % (d->count - place));
    size_t row = d->rows[from];
    d->rows[from] = d->rows[place];
    d->rows[place] = row;
    return row;
}

static nb_status start_draw(row_draw *d, const nb_samples_options *o, nb_error *err)
{
    size_t total;
    NB_TRY(nb_dataset_count(&total, o->path, &o->dataset, err));
    size_t skip = (size_t)o->skip < total ? (size_t)o->skip : total;
    *d = (row_draw){.count = total - skip, .state = o->seed};
    NB_TRY(nb_alloc(&d->rows, d->count + 1, sizeof *d->rows, "row numbers", err));
    for (size_t i = 0; i < d->count; i++) d->rows[i] = skip + i;
    return NB_OK;
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

/* A set that is being loaded. */
typedef struct {
    nb_samples               *s;
    const nb_model           *model;
    const nb_samples_options *o;
    XXH64_state_t            *identity;
} loading;

static void add_identity(XXH64_state_t *state, const nb_prompt *p, const nb_processor *processor)
{
    size_t   columns = 3 * (size_t)processor->temporal * (size_t)processor->patch * (size_t)processor->patch; /* of a patch */
    uint64_t head[2] = {p->count, (uint64_t)p->media_count};
    XXH64_update(state, head, sizeof head);
    XXH64_update(state, p->ids, p->count * sizeof *p->ids);
    XXH64_update(state, p->position, 3 * p->count * sizeof *p->position);
    for (int j = 0; j < p->media_count; j++) {
        const nb_patches *m = &p->media[j];
        int32_t           grid[3] = {m->t, m->h, m->w};
        XXH64_update(state, grid, sizeof grid);
        XXH64_update(state, m->rows, (size_t)m->t * (size_t)m->h * (size_t)m->w * columns * sizeof *m->rows);
    }
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
    for (int j = 0; j < p->media_count; j++) nb_patches_free(&p->media[j]); /* by far the largest part of a prompt */
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

static nb_status take_row(const loading *l, const nb_dataset *d, const nb_chat *chat, const char *where, nb_error *err)
{
    nb_samples               *s = l->s;
    const nb_samples_options *o = l->o;
    const nb_model           *model = l->model;
    nb_prompt_options options = o->prompt;
    options.where = where;
    if (!options.media.root) options.media.root = nb_dataset_root(d);
    nb_prompt_source source = nb_model_source(model);
    bool in_memory = o->embed && !s->spool;
    NB_TRY(nb_grow(&s->prompts, &s->capacity, s->count + 1, sizeof *s->prompts, "samples", err));
    if (in_memory) {
        NB_TRY(nb_grow(&s->hidden, &s->hidden_capacity, s->count + 1, sizeof *s->hidden, "samples", err));
        s->hidden[s->count] = NULL;
    }
    nb_prompt *p = &s->prompts[s->count];
    memset(p, 0, sizeof *p);
    NB_TRY(nb_prompt_build(p, chat, &source, &options, err));
    if (!p->count || (o->seq_len && p->count > o->seq_len)) {
        if (p->count) s->too_long++;
        nb_prompt_free(p);
        return NB_OK;
    }
    s->count++;
    s->tokens += p->count;
    for (size_t i = 0; i < p->count; i++) s->by_modality[p->modality[i]]++;
    add_identity(l->identity, p, &model->processor);
    if (s->spool) return embed_into_spool(p, s, model, err);
    return in_memory ? embed(&s->hidden[s->count - 1], p, s, model, err) : NB_OK;
}

/* One walk over the file.  chosen [rows] or NULL: every row from o->skip on, until there are enough. */
static nb_status walk_rows(const loading *l, const bool *chosen, size_t rows, nb_error *err)
{
    const nb_samples_options *o = l->o;
    nb_dataset *d;
    NB_TRY(nb_dataset_open(&d, o->path, &o->dataset, err));
    nb_status status = NB_OK;
    for (size_t row = 0; !status; row++) {
        nb_chat chat;
        char    where[256];
        bool    end;
        if (chosen ? row >= rows : o->samples && l->s->count >= (size_t)o->samples) break;
        status = nb_dataset_next(d, &chat, where, &end, err);
        if (status || end) break;
        if (chosen ? chosen[row] : row >= (size_t)o->skip) status = take_row(l, d, &chat, where, err);
        nb_chat_free(&chat);
    }
    nb_dataset_close(d);
    return status;
}

/* Draw as many rows as are missing, walk, and draw again for those that were too long. */
static nb_status load_drawn(const loading *l, nb_error *err)
{
    const nb_samples_options *o = l->o;
    row_draw  draw = {0};
    bool     *chosen = NULL;
    nb_status status = start_draw(&draw, o, err);
    size_t    rows = (size_t)o->skip + draw.count;
    if (!status) status = nb_alloc(&chosen, rows + 1, sizeof *chosen, "row numbers", err);
    while (!status && draw.drawn < draw.count) {
        size_t missing = o->samples ? (size_t)o->samples - l->s->count : draw.count;
        if (!missing) break;
        memset(chosen, 0, rows);
        for (size_t i = 0; i < missing && draw.drawn < draw.count; i++) chosen[draw_row(&draw)] = true;
        status = walk_rows(l, chosen, rows, err);
    }
    free(chosen);
    free(draw.rows);
    return status;
}

nb_status nb_samples_load(nb_samples *out, const nb_model *model, const nb_samples_options *options, nb_error *err)
{
    memset(out, 0, sizeof *out);
    if (options->samples < 0 || options->skip < 0)
        return nb_fail(err, NB_ERR_ARGUMENT, "the number of samples (%d) and of rows to skip (%d) cannot be negative",
                       options->samples, options->skip);
    loading   l = {.s = out, .model = model, .o = options, .identity = XXH64_createState()};
    nb_status status = l.identity ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", options->path);
    if (!status) XXH64_reset(l.identity, 0);
    if (!status && options->spool) {
        status = nb_spool_new(&out->spool, options->spool, options->spool_level, options->spool_chunk, err);
        if (!status) status = nb_spool_start(out->spool, err);
    }
    if (!status) status = options->shuffle ? load_drawn(&l, err) : walk_rows(&l, NULL, 0, err);
    if (!status && !out->count)
        status = nb_fail(err, NB_ERR_INPUT, "%s: no row is left to calibrate on (%d skipped, %zu longer than %zu tokens)",
                         options->path, options->skip, out->too_long, options->seq_len);
    if (!status) out->hash = XXH64_digest(l.identity);
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
