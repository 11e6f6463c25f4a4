/* sequence.c - tokens known and done, pages held, and the keys by which full pages are found.
 *
 * The key of a page is a hash over the key of the page before it and over id, positions and, for a visual token, the picture's
 * content and the row in it, of each of its tokens.
 */
#include "runtime/engine/sequence.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* ---- making and freeing -------------------------------------------------------------------------------------------------- */

static nb_status take_visual(nb_sequence *s, const nb_prompt *p, nb_error *err)
{
    s->media_count = p->media_count;
    if (p->media_count == 0) return NB_OK;
    if (!s->options.visual) {
        NB_TRY(nb_visual_of_prompt(&s->visual, s->engine->model, p, NULL, err));
    } else {
        NB_TRY(nb_alloc(&s->visual, (size_t)p->media_count, sizeof *s->visual, "pictures", err));
        for (int i = 0; i < p->media_count; i++) s->visual[i] = nb_visual_hold(s->options.visual[i]);
        s->options.visual = NULL;
    }
    NB_TRY(nb_alloc(&s->visual_row, p->count, sizeof *s->visual_row, "tokens", err));
    int32_t next = 0;
    for (size_t t = 0; t < p->count; t++) s->visual_row[t] = p->modality[t] == NB_TOKEN_TEXT ? -1 : next++;
    return NB_OK;
}

static nb_status sequence_init(nb_sequence *s, const nb_prompt *p, nb_error *err)
{
    NB_TRY(nb_alloc(&s->ids, s->total, sizeof *s->ids, "token ids", err));
    NB_TRY(nb_alloc(&s->position, 3 * p->count, sizeof *s->position, "positions", err));
    NB_TRY(nb_alloc(&s->held, s->page_limit, sizeof *s->held, "KV page table", err));
    NB_TRY(nb_alloc(&s->pages, s->page_limit, sizeof *s->pages, "KV page table", err));
    if (s->engine->options.prefix_cache) NB_TRY(nb_alloc(&s->keys, s->page_limit, sizeof *s->keys, "KV page keys", err));
    memcpy(s->ids, p->ids, p->count * sizeof *s->ids);
    memcpy(s->position, p->position, 3 * p->count * sizeof *s->position);
    return take_visual(s, p, err);
}

static void sequence_release(nb_sequence *s)
{
    free(s->ids);
    free(s->position);
    free(s->visual_row);
    nb_visual_drop_all(s->visual, s->media_count);
    free(s->held);
    free(s->pages);
    free(s->keys);
    free(s);
}

/* Behind all that are at least as important. */
static void enter(nb_engine *e, nb_sequence *s)
{
    size_t at = e->count++;
    while (at > 0 && e->sequences[at - 1]->options.priority < s->options.priority) {
        e->sequences[at] = e->sequences[at - 1];
        at--;
    }
    e->sequences[at] = s;
}

nb_status nb_sequence_new(nb_sequence **out, nb_engine *e, const nb_prompt *prompt, const nb_sequence_options *options, nb_error *err)
{
    size_t total = options->total < prompt->count ? prompt->count : options->total;
    *out = NULL;
    if (!nb_engine_fits(e, total))
        return nb_fail(err, NB_ERR_BUDGET,
                       "a sequence of %zu tokens (%zu of them the prompt) does not fit: room for %zu of %zu tokens is left; raise the "
                       "context size or lower max_pixels",
                       total, prompt->count, (e->max_pages - e->reserved) * NB_KV_PAGE, nb_engine_capacity(e));
    NB_TRY(nb_alloc(out, 1, sizeof **out, "sequence", err));
    nb_sequence *s = *out;
    *s = (nb_sequence){ .engine = e, .options = *options, .prompt = prompt->count, .known = prompt->count, .total = total,
                        .handed = options->logits_from, .rope_delta = prompt->rope_delta, .page_limit = nb_pages_for(total) };
    nb_status status = sequence_init(s, prompt, err);
    if (status != NB_OK) {
        sequence_release(s);
        *out = NULL;
        return status;
    }
    if (!e->options.overcommit) e->reserved += s->page_limit;
    enter(e, s);
    return NB_OK;
}

/* The last page first, so that of a chain nobody holds the beginning is found longest. */
static void drop_pages(nb_sequence *s, size_t from)
{
    while (s->page_count > from) nb_pages_drop(s->engine->pages, s->held[--s->page_count]);
    if (s->settled > from) s->settled = from;
}

void nb_sequence_free(nb_sequence *s)
{
    if (!s) return;
    nb_engine *e = s->engine;
    drop_pages(s, 0);
    if (!e->options.overcommit) e->reserved -= s->page_limit;
    size_t at = 0;
    while (e->sequences[at] != s) at++;
    memmove(e->sequences + at, e->sequences + at + 1, (--e->count - at) * sizeof *e->sequences);
    sequence_release(s);
}

/* ---- tokens -------------------------------------------------------------------------------------------------------------- */

nb_status nb_sequence_push(nb_sequence *s, int32_t token, nb_error *err)
{
    if (s->known == s->total)
        return nb_fail(err, NB_ERR_ARGUMENT, "the sequence was made for %zu tokens", s->total);
    if (token < 0 || token >= s->engine->model->config.vocab)
        return nb_fail(err, NB_ERR_ARGUMENT, "token id %d is outside the vocabulary of %d", token, s->engine->model->config.vocab);
    s->ids[s->known++] = token;
    return NB_OK;
}

size_t nb_sequence_length(const nb_sequence *s) { return s->known; }
const int32_t *nb_sequence_ids(const nb_sequence *s) { return s->ids; }
size_t nb_sequence_done(const nb_sequence *s) { return s->done; }
size_t nb_sequence_found(const nb_sequence *s) { return s->found; }
const nb_error *nb_sequence_failure(const nb_sequence *s) { return s->failed ? &s->failure : NULL; }

void nb_sequence_truncate(nb_sequence *s, size_t length)
{
    if (length < s->prompt) length = s->prompt;
    if (length >= s->known) return;
    s->known = length;
    if (s->done > length) s->done = length;
    if (s->handed > length) s->handed = length;
    size_t whole = length / NB_KV_PAGE; /* pages that stay as they are */
    if (s->key_count > whole) s->key_count = whole;
    if (s->settled > whole) s->settled = whole;
    if (whole < s->page_count && nb_page_named(s->held[whole])) { /* others may read it: not to be written into again */
        drop_pages(s, whole);
        s->done = whole * NB_KV_PAGE;
    }
}

void nb_sequence_rewind(nb_sequence *s)
{
    drop_pages(s, 0);
    s->done = 0;
}

const float *nb_sequence_visual(const nb_sequence *s, size_t t, size_t most, size_t *run)
{
    size_t hidden = (size_t)s->engine->model->config.hidden;
    if (!s->visual_row || t >= s->prompt) {
        *run = most;
        return NULL;
    }
    size_t end = t + most < s->prompt ? t + most : s->prompt;
    *run = 1;
    if (s->visual_row[t] < 0) {
        while (t + *run < end && s->visual_row[t + *run] < 0) ++*run;
        return NULL;
    }
    size_t row = (size_t)s->visual_row[t], count = 0;
    int    i = 0;
    const float *rows = nb_visual_rows(s->visual[0], &count);
    while (row >= count) {
        row -= count;
        rows = nb_visual_rows(s->visual[++i], &count);
    }
    while (t + *run < end && s->visual_row[t + *run] >= 0 && row + *run < count) ++*run;
    return rows + row * hidden;
}

/* ---- keys ---------------------------------------------------------------------------------------------------------------- */

typedef struct {
    int32_t        id, position[3];
    nb_content_key picture; /* zeros for text */
    uint64_t       row;
} token_content;

static void describe(token_content *out, const nb_sequence *s, size_t t)
{
    memset(out, 0, sizeof *out);
    out->id = s->ids[t];
    for (int a = 0; a < 3; a++) out->position[a] = nb_sequence_position(s, a, t);
    if (!s->visual_row || t >= s->prompt || s->visual_row[t] < 0) return;
    size_t row = (size_t)s->visual_row[t], count;
    int    i = 0;
    for (nb_visual_rows(s->visual[0], &count); row >= count; nb_visual_rows(s->visual[++i], &count)) row -= count;
    out->picture = nb_visual_key(s->visual[i]);
    out->row = row;
}

/* The key of page i, all of whose tokens are known. */
static nb_page_key key_of(nb_sequence *s, size_t i)
{
    for (; s->key_count <= i; s->key_count++) {
        struct {
            nb_page_key   before;
            token_content tokens[NB_KV_PAGE];
        } content;
        content.before = s->key_count ? s->keys[s->key_count - 1] : (nb_page_key){ s->options.salt, 0 };
        for (size_t t = 0; t < NB_KV_PAGE; t++) describe(&content.tokens[t], s, s->key_count * NB_KV_PAGE + t);
        XXH128_hash_t h = XXH3_128bits_withSeed(&content, sizeof content, s->engine->seed);
        s->keys[s->key_count] = (nb_page_key){ h.low64, h.high64 };
    }
    return s->keys[i];
}

void nb_sequence_adopt(nb_sequence *s)
{
    nb_engine *e = s->engine;
    size_t     until = s->known - 1 < s->handed ? s->known - 1 : s->handed; /* rows from here on have to be computed */
    size_t     begin = s->done;
    while (s->done % NB_KV_PAGE == 0 && s->page_count == s->done / NB_KV_PAGE && s->done + NB_KV_PAGE <= until) {
        nb_page *page = nb_pages_find(e->pages, key_of(s, s->page_count));
        if (!page) break;
        s->held[s->page_count] = page;
        s->pages[s->page_count++] = nb_page_data(page);
        s->done += NB_KV_PAGE;
        s->settled = s->page_count;
    }
    if (!s->started) {
        e->stats.prefix_queries += s->prompt;
        s->started = true;
    }
    if (s->handed >= s->prompt) return; /* computed before, and preempted */
    s->found += s->done - begin;
    e->stats.prefix_hits += s->done - begin;
}

void nb_sequence_settle(nb_sequence *s)
{
    const nb_engine_options *o = &s->engine->options;
    for (; o->prefix_cache && s->settled < s->done / NB_KV_PAGE; s->settled++)
        nb_pages_name(s->engine->pages, s->held[s->settled], key_of(s, s->settled));
    if (s->done >= s->prompt && s->visual && !o->overcommit && !o->prefix_cache) {
        nb_visual_drop_all(s->visual, s->media_count);
        s->visual = NULL;
        free(s->visual_row);
        s->visual_row = NULL;
    }
}
