/* engine.c - the step: gather rows of many sequences, run the layers once, hand out logits.
 *
 * Rows of a step lie in one array: first one row of every sequence that decodes, then prompt chunks, in the order in which
 * sequences were made.  By the contract of the operation table a row's result does not depend on the others.
 */
#include "runtime/engine/engine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD_ROWS = 32 }; /* rows of logits computed at a time */

struct nb_engine {
    const nb_model   *model;
    nb_engine_options options;
    size_t            page_bytes, layer_bytes; /* of one page over all layers; K and V of one layer */
    size_t            max_pages, reserved, allocated, idle_count;
    void            **idle;                    /* [max_pages] pages that belong to nobody */
    nb_sequence     **sequences;               /* in order of creation */
    size_t            count;
    nb_scratch       *scratch;
    float            *x;                       /* backend [chunk, hidden] */
    float            *logits;                  /* backend [HEAD_ROWS, vocab] */
    float            *host_logits;             /* [HEAD_ROWS, vocab] */
    int32_t          *ids, *position;          /* [chunk], [3, chunk] */
    nb_span          *spans;                   /* [max_sequences] */
    nb_sequence     **owners;                  /* [max_sequences] */
};

struct nb_sequence {
    nb_engine    *engine;
    int32_t      *ids, *position; /* [total] known tokens; [3, prompt] */
    uint8_t      *modality;       /* [prompt] */
    float        *visual;         /* host [visual rows, hidden], until the prompt is done */
    size_t        visual_next;    /* visual rows used */
    size_t        prompt, known, done, total;
    int32_t       rope_delta;
    size_t        logits_from;
    nb_on_logits *on_logits;
    void         *context;
    void        **pages;
    size_t        page_count, page_limit;
};

/* ---- the engine -------------------------------------------------------------------------------------------------------- */

static nb_status engine_init(nb_engine *e, nb_error *err)
{
    const nb_config *c = &e->model->config;
    const nb_ops    *ops = &e->model->ops;
    size_t           rows = e->options.chunk, sequences = (size_t)e->options.max_sequences;
    size_t           element = nb_dtype_size(e->options.kv_type);
    e->layer_bytes = 2 * (size_t)c->kv_heads * NB_KV_PAGE * c->head_dim * element;
    e->page_bytes = e->layer_bytes * c->layers;
    e->max_pages = (e->options.max_tokens + NB_KV_PAGE - 1) / NB_KV_PAGE;
    NB_TRY(nb_alloc(&e->idle, e->max_pages, sizeof *e->idle, "KV pages", err));
    NB_TRY(nb_alloc(&e->sequences, sequences, sizeof *e->sequences, "sequences", err));
    NB_TRY(nb_alloc(&e->owners, sequences, sizeof *e->owners, "sequences", err));
    NB_TRY(nb_alloc(&e->spans, sequences, sizeof *e->spans, "sequences", err));
    NB_TRY(nb_alloc(&e->ids, rows, sizeof *e->ids, "token ids", err));
    NB_TRY(nb_alloc(&e->position, 3 * rows, sizeof *e->position, "positions", err));
    NB_TRY(nb_alloc(&e->host_logits, HEAD_ROWS * (size_t)c->vocab, sizeof *e->host_logits, "logits", err));
    NB_TRY(nb_scratch_new(&e->scratch, e->model, rows, err));
    e->x = ops->alloc(ops, rows * c->hidden * sizeof(float));
    e->logits = ops->alloc(ops, HEAD_ROWS * (size_t)c->vocab * sizeof(float));
    if (!e->x || !e->logits) return nb_fail(err, NB_ERR_MEMORY, "no memory for the activations of %zu tokens", rows);
    return NB_OK;
}

nb_status nb_engine_new(nb_engine **out, const nb_model *model, const nb_engine_options *options, nb_error *err)
{
    NB_TRY(nb_alloc(out, 1, sizeof **out, "engine", err));
    nb_engine *e = *out;
    e->model = model;
    if (options) e->options = *options;
    if (e->options.max_tokens == 0) e->options.max_tokens = 32768;
    if (e->options.chunk == 0) e->options.chunk = 512;
    if (e->options.max_sequences == 0) e->options.max_sequences = 64;
    if (e->options.chunk < (size_t)e->options.max_sequences) e->options.chunk = (size_t)e->options.max_sequences;
    nb_status status = engine_init(e, err);
    if (status != NB_OK) {
        nb_engine_free(e);
        *out = NULL;
    }
    return status;
}

void nb_engine_free(nb_engine *e)
{
    if (!e) return;
    const nb_ops *ops = &e->model->ops;
    for (size_t i = 0; i < e->idle_count; i++) ops->free(ops, e->idle[i]);
    ops->free(ops, e->x);
    ops->free(ops, e->logits);
    nb_scratch_free(e->scratch);
    free(e->idle);
    free(e->sequences);
    free(e->owners);
    free(e->spans);
    free(e->ids);
    free(e->position);
    free(e->host_logits);
    free(e);
}

static size_t pages_for(size_t tokens) { return (tokens + NB_KV_PAGE - 1) / NB_KV_PAGE; }

const nb_model *nb_engine_model(const nb_engine *e) { return e->model; }
size_t nb_engine_kv_bytes(const nb_engine *e) { return e->allocated * e->page_bytes; }
nb_dtype nb_engine_kv_type(const nb_engine *e) { return e->options.kv_type; }
size_t nb_engine_capacity(const nb_engine *e) { return e->max_pages * NB_KV_PAGE; }
bool   nb_engine_could_fit(const nb_engine *e, size_t tokens) { return pages_for(tokens) <= e->max_pages; }
bool   nb_engine_fits(const nb_engine *e, size_t tokens)
{
    return e->count < (size_t)e->options.max_sequences && pages_for(tokens) <= e->max_pages - e->reserved;
}

/* ---- sequences --------------------------------------------------------------------------------------------------------- */

static nb_status sequence_init(nb_sequence *s, const nb_prompt *p, nb_error *err)
{
    size_t rows;
    NB_TRY(nb_alloc(&s->ids, s->total, sizeof *s->ids, "token ids", err));
    NB_TRY(nb_alloc(&s->position, 3 * p->count, sizeof *s->position, "positions", err));
    NB_TRY(nb_alloc(&s->modality, p->count, 1, "tokens", err));
    NB_TRY(nb_alloc(&s->pages, s->page_limit, sizeof *s->pages, "KV page table", err));
    memcpy(s->ids, p->ids, p->count * sizeof *s->ids);
    memcpy(s->position, p->position, 3 * p->count * sizeof *s->position);
    memcpy(s->modality, p->modality, p->count);
    return nb_prompt_visual(s->engine->model, p, &s->visual, &rows, err);
}

static void sequence_release(nb_sequence *s)
{
    free(s->ids);
    free(s->position);
    free(s->modality);
    free(s->visual);
    free(s->pages);
    free(s);
}

nb_status nb_sequence_new(nb_sequence **out, nb_engine *e, const nb_prompt *prompt, size_t total, size_t logits_from,
                          nb_on_logits *on_logits, void *context, nb_error *err)
{
    *out = NULL;
    if (total < prompt->count) total = prompt->count;
    if (!nb_engine_fits(e, total))
        return nb_fail(err, NB_ERR_BUDGET,
                       "a sequence of %zu tokens (%zu of them the prompt) does not fit: room for %zu of %zu tokens is left; raise the "
                       "context size or lower max_pixels",
                       total, prompt->count, (e->max_pages - e->reserved) * NB_KV_PAGE, nb_engine_capacity(e));
    NB_TRY(nb_alloc(out, 1, sizeof **out, "sequence", err));
    nb_sequence *s = *out;
    *s = (nb_sequence){ .engine = e, .prompt = prompt->count, .known = prompt->count, .total = total, .rope_delta = prompt->rope_delta,
                        .logits_from = logits_from, .on_logits = on_logits, .context = context, .page_limit = pages_for(total) };
    nb_status status = sequence_init(s, prompt, err);
    if (status != NB_OK) {
        sequence_release(s);
        *out = NULL;
        return status;
    }
    e->reserved += s->page_limit;
    e->sequences[e->count++] = s;
    return NB_OK;
}

void nb_sequence_free(nb_sequence *s)
{
    if (!s) return;
    nb_engine *e = s->engine;
    for (size_t i = 0; i < s->page_count; i++) e->idle[e->idle_count++] = s->pages[i];
    e->reserved -= s->page_limit;
    size_t at = 0;
    while (e->sequences[at] != s) at++;
    memmove(e->sequences + at, e->sequences + at + 1, (--e->count - at) * sizeof *e->sequences);
    sequence_release(s);
}

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
size_t nb_sequence_done(const nb_sequence *s) { return s->done; }

void nb_sequence_truncate(nb_sequence *s, size_t length)
{
    if (length < s->prompt) length = s->prompt;
    if (length < s->known) s->known = length;
    if (s->done > s->known) s->done = s->known;
}

/* Pages for tokens up to `tokens`; the reservation guarantees that there are enough. */
static nb_status sequence_grow(nb_sequence *s, size_t tokens, nb_error *err)
{
    nb_engine    *e = s->engine;
    const nb_ops *ops = &e->model->ops;
    while (s->page_count < pages_for(tokens)) {
        if (s->page_count + 1 > s->page_limit) return nb_fail(err, NB_ERR_BUDGET, "the sequence outgrew its %zu tokens", s->total);
        bool  fresh = e->idle_count == 0;
        void *page = fresh ? ops->alloc(ops, e->page_bytes) : e->idle[--e->idle_count];
        if (!page) return nb_fail(err, NB_ERR_MEMORY, "no memory for a KV page of %zu bytes after %zu pages", e->page_bytes, e->allocated);
        e->allocated += fresh;
        s->pages[s->page_count++] = page;
    }
    return NB_OK;
}

/* ---- the step ---------------------------------------------------------------------------------------------------------- */

/* Take `rows` rows of s into the step at `first`. */
static nb_status take(nb_engine *e, nb_sequence *s, size_t span, size_t first, size_t rows, nb_error *err)
{
    NB_TRY(sequence_grow(s, s->done + rows, err));
    e->spans[span] = (nb_span){ .first = first, .rows = rows, .past = s->done, .pages = s->pages };
    e->owners[span] = s;
    size_t stride = e->options.chunk;
    for (size_t r = 0; r < rows; r++) {
        size_t t = s->done + r;
        e->ids[first + r] = s->ids[t];
        for (int a = 0; a < 3; a++)
            e->position[a * stride + first + r] = t < s->prompt ? s->position[a * s->prompt + t] : (int32_t)t + s->rope_delta;
    }
    return NB_OK;
}

/* Decode rows first, then as much of the waiting prompts as the chunk holds. */
static nb_status gather(nb_engine *e, size_t *span_count, size_t *row_count, nb_error *err)
{
    size_t spans = 0, rows = 0;
    for (int decode = 1; decode >= 0; decode--)
        for (size_t i = 0; i < e->count && rows < e->options.chunk; i++) {
            nb_sequence *s = e->sequences[i];
            size_t       left = s->known - s->done;
            if (left == 0 || (left == 1 && s->done >= s->prompt) != decode) continue;
            size_t n = left < e->options.chunk - rows ? left : e->options.chunk - rows;
            NB_TRY(take(e, s, spans++, rows, n, err));
            rows += n;
        }
    *span_count = spans;
    *row_count = rows;
    return NB_OK;
}

/* x = embedding rows, then the visual rows over the pads. */
static void embed(nb_engine *e, size_t spans, size_t rows)
{
    const nb_model *m = e->model;
    const nb_ops   *ops = &m->ops;
    size_t          hidden = (size_t)m->config.hidden;
    ops->embed(ops, e->x, e->ids, rows, &m->embed);
    for (size_t i = 0; i < spans; i++) {
        nb_sequence *s = e->owners[i];
        if (!s->visual) continue;
        for (size_t r = 0; r < e->spans[i].rows; r++) {
            size_t t = e->spans[i].past + r, run = 0;
            while (r + run < e->spans[i].rows && t + run < s->prompt && s->modality[t + run] != NB_TOKEN_TEXT) run++;
            if (run == 0) continue;
            ops->upload(ops, e->x + (e->spans[i].first + r) * hidden, s->visual + s->visual_next * hidden, run * hidden * sizeof(float));
            s->visual_next += run;
            r += run - 1;
        }
    }
}

static void run_layers(nb_engine *e, size_t spans, size_t rows)
{
    const nb_model  *m = e->model;
    const nb_config *c = &m->config;
    nb_attn          attn = { .heads = c->heads, .kv_heads = c->kv_heads, .head_dim = c->head_dim,
                              .scale = 1.0f / sqrtf((float)c->head_dim), .kv_type = e->options.kv_type };
    nb_rope_prepare(m, e->scratch, e->position, e->options.chunk, rows);
    for (int i = 0; i < c->layers; i++) {
        attn.k_offset = e->layer_bytes * i;
        attn.v_offset = attn.k_offset + e->layer_bytes / 2;
        nb_layer_forward(m, &m->layers[i], e->scratch, &attn, e->spans, spans, e->x, rows, NULL, NULL);
    }
}

static bool wanted(const nb_engine *e, size_t span, size_t row)
{
    return e->owners[span]->on_logits && row >= e->owners[span]->logits_from;
}

/* Head over the wanted rows in runs of neighbours, at most HEAD_ROWS at a time. */
static nb_status hand_out(nb_engine *e, size_t spans, nb_error *err)
{
    const nb_model *m = e->model;
    const nb_ops   *ops = &m->ops;
    size_t          vocab = (size_t)m->config.vocab, hidden = (size_t)m->config.hidden;
    struct {
        nb_sequence *s;
        size_t       row;
    } run[HEAD_ROWS];
    size_t n = 0, first = 0;
    for (size_t i = 0; i <= spans; i++) {
        size_t rows = i < spans ? e->spans[i].rows : 1;
        for (size_t r = 0; r < rows; r++) {
            bool   want = i < spans && wanted(e, i, e->spans[i].past + r);
            size_t at = i < spans ? e->spans[i].first + r : 0;
            if (n && (n == HEAD_ROWS || !want || at != first + n)) {
                nb_head_forward(m, e->scratch, e->x + first * hidden, n, e->logits);
                ops->download(ops, e->host_logits, e->logits, n * vocab * sizeof(float));
                NB_TRY(ops->status(ops, err));
                for (size_t j = 0; j < n; j++)
                    NB_TRY(run[j].s->on_logits(run[j].s->context, run[j].s, run[j].row, e->host_logits + j * vocab, err));
                n = 0;
            }
            if (!want) continue;
            if (n == 0) first = at;
            run[n].s = e->owners[i];
            run[n++].row = e->spans[i].past + r;
        }
    }
    return NB_OK;
}

nb_status nb_engine_step(nb_engine *e, size_t *advanced, nb_error *err)
{
    size_t spans, rows;
    *advanced = 0;
    NB_TRY(gather(e, &spans, &rows, err));
    if (rows == 0) return NB_OK;
    embed(e, spans, rows);
    run_layers(e, spans, rows);
    NB_TRY(e->model->ops.status(&e->model->ops, err));
    for (size_t i = 0; i < spans; i++) {
        nb_sequence *s = e->owners[i];
        s->done += e->spans[i].rows;
        if (s->done >= s->prompt) {
            free(s->visual);
            s->visual = NULL;
        }
    }
    *advanced = rows;
    return hand_out(e, spans, err);
}
