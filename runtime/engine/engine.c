/* engine.c - the step: gather rows of many sequences, run the layers once, hand out logits.
 *
 * Rows of a step lie in one array: first those of every sequence that decodes, then prompt chunks, in the order of priority and
 * arrival.  By the contract of the operation table a row's result does not depend on the others.
 */
#include "runtime/engine/engine.h"

#include <math.h>
#include <stdlib.h>
#include <sys/random.h>

#include "runtime/engine/sequence.h"

enum { HEAD_ROWS = 32 }; /* rows of logits computed at a time */

/* ---- the engine -------------------------------------------------------------------------------------------------------- */

static nb_status engine_init(nb_engine *e, nb_error *err)
{
    const nb_config *c = &e->model->config;
    const nb_ops    *ops = &e->model->ops;
    size_t           rows = e->options.chunk, sequences = (size_t)e->options.max_sequences;
    e->layer_bytes = 2 * nb_kv_layer_bytes(c->kv_heads, c->head_dim, e->options.kv_type);
    e->page_bytes = e->layer_bytes * c->layers;
    e->max_pages = nb_pages_for(e->options.max_tokens);
    if (getrandom(&e->seed, sizeof e->seed, 0) != (ssize_t)sizeof e->seed) return nb_fail(err, NB_ERR_IO, "the system gives no random numbers");
    NB_TRY(nb_pages_new(&e->pages, ops, e->page_bytes, e->max_pages, err));
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
    if (e->options.mixed_chunk == 0 || e->options.mixed_chunk > e->options.chunk) e->options.mixed_chunk = e->options.chunk;
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
    nb_pages_free(e->pages);
    ops->free(ops, e->x);
    ops->free(ops, e->logits);
    nb_scratch_free(e->scratch);
    free(e->sequences);
    free(e->owners);
    free(e->spans);
    free(e->ids);
    free(e->position);
    free(e->host_logits);
    free(e);
}

const nb_model *nb_engine_model(const nb_engine *e) { return e->model; }
size_t nb_engine_kv_bytes(const nb_engine *e) { return nb_pages_look(e->pages).committed * e->page_bytes; }
nb_dtype nb_engine_kv_type(const nb_engine *e) { return e->options.kv_type; }
void nb_engine_watch(nb_engine *e, nb_see *see, void *context) { nb_scratch_watch(e->scratch, see, context); }
size_t nb_engine_capacity(const nb_engine *e) { return e->max_pages * NB_KV_PAGE; }
bool   nb_engine_could_fit(const nb_engine *e, size_t tokens) { return nb_pages_for(tokens) <= e->max_pages; }
bool   nb_engine_fits(const nb_engine *e, size_t tokens)
{
    return e->count < (size_t)e->options.max_sequences && nb_pages_for(tokens) <= e->max_pages - e->reserved;
}

nb_engine_stats nb_engine_look(const nb_engine *e)
{
    nb_engine_stats s = e->stats;
    s.pages = nb_pages_look(e->pages);
    s.page_bytes = e->page_bytes;
    s.sequences = e->count;
    return s;
}

/* ---- gathering --------------------------------------------------------------------------------------------------------- */

/* Pages of the last in line that is behind s and not part of this step go back; false when there is nobody. */
static bool preempt_behind(nb_engine *e, const nb_sequence *s)
{
    for (size_t i = e->count; i-- > 0 && e->sequences[i] != s;) {
        nb_sequence *victim = e->sequences[i];
        if (victim->page_count == 0 || victim->in_step) continue;
        nb_sequence_rewind(victim);
        e->stats.preemptions++;
        return true;
    }
    return false;
}

/* Pages for the tokens up to `tokens`, as far as they can be had; returns how many tokens have one. */
static size_t grow(nb_engine *e, nb_sequence *s, size_t tokens)
{
    while (s->page_count < nb_pages_for(tokens)) {
        nb_page *page = nb_pages_take(e->pages);
        if (page) {
            s->held[s->page_count] = page;
            s->pages[s->page_count++] = nb_page_data(page);
        } else if (!preempt_behind(e, s)) {
            break;
        }
    }
    size_t room = s->page_count * NB_KV_PAGE;
    return room < tokens ? room : tokens;
}

/* Take up to `rows` rows of s into the step at `first`; returns how many. */
static size_t take(nb_engine *e, nb_sequence *s, size_t span, size_t first, size_t rows)
{
    rows = grow(e, s, s->done + rows) - s->done;
    if (rows == 0) return 0;
    e->spans[span] = (nb_span){ .first = first, .rows = rows, .past = s->done, .pages = s->pages };
    e->owners[span] = s;
    s->in_step = true;
    for (size_t r = 0; r < rows; r++) {
        e->ids[first + r] = s->ids[s->done + r];
        for (int a = 0; a < 3; a++) e->position[a * e->options.chunk + first + r] = nb_sequence_position(s, a, s->done + r);
    }
    return rows;
}

/* A sequence that has no pages begins only when all that it has to compute, and the next token, would find some. */
static bool may_begin(const nb_engine *e, const nb_sequence *s)
{
    nb_pages_stats p = nb_pages_look(e->pages);
    size_t         want = nb_pages_for(s->known + 1 < s->total ? s->known + 1 : s->total);
    return s->page_count > 0 || !e->options.overcommit || want <= p.max - p.held;
}

/* Decode rows first, then as much of the waiting prompts as the chunk holds. */
static void gather(nb_engine *e, size_t *span_count, size_t *row_count)
{
    size_t spans = 0, rows = 0, limit = e->options.chunk;
    for (size_t i = 0; i < e->count; i++) e->sequences[i]->in_step = false;
    for (int decode = 1; decode >= 0; decode--) {
        if (!decode && rows && rows + e->options.mixed_chunk < limit) limit = rows + e->options.mixed_chunk;
        for (size_t i = 0; i < e->count && rows < limit; i++) {
            nb_sequence *s = e->sequences[i];
            if (s->failed || s->known == s->done || (s->done >= s->prompt) != decode || !may_begin(e, s)) continue;
            if (!decode && e->options.prefix_cache) nb_sequence_adopt(s);
            size_t left = s->known - s->done, n = take(e, s, spans, rows, left < limit - rows ? left : limit - rows);
            rows += n;
            spans += n > 0;
        }
    }
    *span_count = spans;
    *row_count = rows;
}

/* Nobody advances although somebody has rows to compute: the first in line finds no memory even alone. */
static const nb_error *fail_first(nb_engine *e)
{
    for (size_t i = 0; i < e->count; i++) {
        nb_sequence *s = e->sequences[i];
        if (s->failed || s->known == s->done) continue;
        nb_pages_stats p = nb_pages_look(e->pages);
        nb_fail(&s->failure, p.refused ? NB_ERR_MEMORY : NB_ERR_BUDGET, "no memory for a KV page of %zu bytes: %zu of %zu are there, %zu of "
                "them in use", e->page_bytes, p.committed, p.max, p.held);
        nb_sequence_rewind(s);
        s->failed = true;
        return &s->failure;
    }
    return NULL;
}

/* ---- the step ---------------------------------------------------------------------------------------------------------- */

/* x = embedding rows, then the visual rows over the pads. */
static void embed(nb_engine *e, size_t spans, size_t rows)
{
    const nb_model *m = e->model;
    const nb_ops   *ops = &m->ops;
    size_t          hidden = (size_t)m->config.hidden;
    ops->embed(ops, e->x, e->ids, rows, &m->embed);
    for (size_t i = 0; i < spans; i++)
        for (size_t r = 0, run; r < e->spans[i].rows; r += run) {
            const float *visual = nb_sequence_visual(e->owners[i], e->spans[i].past + r, e->spans[i].rows - r, &run);
            if (visual) ops->upload(ops, e->x + (e->spans[i].first + r) * hidden, visual, run * hidden * sizeof(float));
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
    return e->owners[span]->options.on_logits && row >= e->owners[span]->handed;
}

typedef struct {
    nb_sequence *s;
    size_t       row;
} wanted_row;

/* Logits of n neighbouring rows from x + first on, to their owners. */
static nb_status hand_run(nb_engine *e, const wanted_row *run, size_t first, size_t n, nb_error *err)
{
    const nb_model *m = e->model;
    const nb_ops   *ops = &m->ops;
    size_t          vocab = (size_t)m->config.vocab;
    nb_head_forward(m, e->scratch, e->x + first * (size_t)m->config.hidden, n, e->logits);
    ops->download(ops, e->host_logits, e->logits, n * vocab * sizeof(float));
    NB_TRY(ops->status(ops, err));
    for (size_t j = 0; j < n; j++) {
        nb_sequence *s = run[j].s;
        if (run[j].row >= s->done) continue; /* its token was forgotten meanwhile */
        s->handed = run[j].row + 1;
        NB_TRY(s->options.on_logits(s->options.context, s, run[j].row, e->host_logits + j * vocab, err));
    }
    return NB_OK;
}

/* Head over the wanted rows in runs of neighbours, at most HEAD_ROWS at a time. */
static nb_status hand_out(nb_engine *e, size_t spans, nb_error *err)
{
    wanted_row run[HEAD_ROWS];
    size_t     n = 0, first = 0;
    for (size_t i = 0; i <= spans; i++) {
        size_t rows = i < spans ? e->spans[i].rows : 1;
        for (size_t r = 0; r < rows; r++) {
            bool   want = i < spans && wanted(e, i, e->spans[i].past + r);
            size_t at = i < spans ? e->spans[i].first + r : 0;
            if (n && (n == HEAD_ROWS || !want || at != first + n)) {
                NB_TRY(hand_run(e, run, first, n, err));
                n = 0;
            }
            if (!want) continue;
            if (n == 0) first = at;
            run[n++] = (wanted_row){ e->owners[i], e->spans[i].past + r };
        }
    }
    return NB_OK;
}

nb_status nb_engine_step(nb_engine *e, size_t *advanced, nb_error *err)
{
    size_t spans, rows;
    *advanced = 0;
    gather(e, &spans, &rows);
    if (rows == 0) {
        const nb_error *failure = fail_first(e);
        return failure && !e->options.overcommit ? nb_fail(err, failure->status, "%s", failure->text) : NB_OK;
    }
    embed(e, spans, rows);
    run_layers(e, spans, rows);
    NB_TRY(e->model->ops.status(&e->model->ops, err));
    for (size_t i = 0; i < spans; i++) e->owners[i]->done += e->spans[i].rows;
    e->stats.steps++;
    e->stats.rows += rows;
    *advanced = rows;
    NB_TRY(hand_out(e, spans, err));
    for (size_t i = 0; i < spans; i++) nb_sequence_settle(e->owners[i]);
    return NB_OK;
}
