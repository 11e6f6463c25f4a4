/* generate.c - a sequence that answers: each row of logits becomes a token, each token text, until something ends it. */
#include "runtime/engine/generate.h"

#include <stdlib.h>
#include <string.h>

void nb_answer_free(nb_answer *a)
{
    nb_ids_free(&a->ids);
    nb_buf_free(&a->text);
    memset(a, 0, sizeof *a);
}

/* ---- one answer in the making ------------------------------------------------------------------------------------------ */

typedef struct {
    nb_engine          *engine;
    const nb_model     *model;
    nb_generate_options options;
    nb_sequence        *sequence;
    nb_sampler         *sampler;
    nb_detok            detok;
    nb_buf              pending; /* text held back because it may be the beginning of a stop string */
    nb_answer           answer;
    bool                finished;
    double              started, first; /* nb_seconds */
} stream;

static void stream_close(stream *s)
{
    nb_sequence_free(s->sequence);
    nb_sampler_free(s->sampler);
    nb_buf_free(&s->pending);
    s->sequence = NULL;
    s->sampler = NULL;
}

static void stream_free(stream *s)
{
    if (!s) return;
    stream_close(s);
    nb_answer_free(&s->answer);
    free(s);
}

static void emit(stream *s, size_t n)
{
    if (n == 0) return;
    nb_buf_add(&s->answer.text, s->pending.data, n);
    if (s->options.on_text && !s->options.on_text(s->options.context, s->pending.data, n)) {
        s->finished = true;
        s->answer.finish = NB_FINISH_CANCELLED;
    }
    memmove(s->pending.data, s->pending.data + n, s->pending.size - n);
    s->pending.size -= n;
    s->pending.data[s->pending.size] = 0;
}

/* Where the first stop string begins in the pending text, or its size; *hold = bytes at the end that may begin one. */
static size_t find_stop(const stream *s, size_t *hold)
{
    size_t found = s->pending.size;
    *hold = 0;
    for (int i = 0; i < s->options.stop_count; i++) {
        const char *stop = s->options.stop[i];
        size_t      n = strlen(stop);
        if (n == 0) continue;
        const char *at = s->pending.size >= n ? memmem(s->pending.data, s->pending.size, stop, n) : NULL;
        if (at && (size_t)(at - s->pending.data) < found) found = (size_t)(at - s->pending.data);
        for (size_t k = n - 1 < s->pending.size ? n - 1 : s->pending.size; k > *hold; k--)
            if (!memcmp(s->pending.data + s->pending.size - k, stop, k)) *hold = k;
    }
    return found;
}

static void finish(stream *s, nb_finish how)
{
    if (!s->finished) s->answer.finish = how;
    s->finished = true;
    s->answer.past_trained = s->answer.prompt_tokens + s->answer.ids.count > (size_t)s->model->config.max_positions;
    s->answer.decode_s = nb_seconds() - s->first;
}

static bool is_eos(const stream *s, int32_t id)
{
    if (s->options.ignore_eos) return false;
    for (int i = 0; i < s->model->generation.eos_count; i++)
        if (s->model->generation.eos[i] == id) return true;
    return false;
}

/* The text of what was held back, at the end of an answer. */
static void flush(stream *s)
{
    size_t hold;
    nb_detok_finish(&s->detok, &s->pending);
    emit(s, find_stop(s, &hold));
}

static nb_status on_logits(void *context, nb_sequence *sequence, size_t row, float *logits, nb_error *err)
{
    stream *s = context;
    (void)row;
    if (s->finished) return NB_OK;
    int32_t id = nb_sampler_next(s->sampler, logits, NULL);
    if (s->answer.ids.count == 0) {
        s->first = nb_seconds();
        s->answer.prefill_s = s->first - s->started;
    }
    if (is_eos(s, id)) {
        flush(s);
        finish(s, NB_FINISH_STOP);
        return nb_buf_status(&s->answer.text, "the answer", err);
    }
    NB_TRY(nb_ids_push(&s->answer.ids, id, err));
    nb_detok_push(&s->detok, id, &s->pending);
    size_t hold, stop = find_stop(s, &hold);
    if (stop < s->pending.size) {
        emit(s, stop);
        finish(s, NB_FINISH_STOP);
    } else {
        emit(s, s->pending.size - hold);
        if (s->finished) {
            finish(s, NB_FINISH_CANCELLED);
        } else if (s->answer.ids.count >= (size_t)s->options.max_new_tokens) {
            flush(s);
            finish(s, NB_FINISH_LENGTH);
        } else {
            NB_TRY(nb_sequence_push(sequence, id, err));
        }
    }
    if (s->pending.failed) return nb_buf_status(&s->pending, "the answer", err);
    return nb_buf_status(&s->answer.text, "the answer", err);
}

static size_t total_tokens(const nb_prompt *p, const nb_generate_options *o)
{
    return p->count + (o->max_new_tokens > 0 ? (size_t)o->max_new_tokens : 0);
}

static nb_status stream_open(stream **out, nb_engine *e, const nb_model *model, const nb_prompt *prompt,
                             const nb_generate_options *options, nb_error *err)
{
    NB_TRY(nb_alloc(out, 1, sizeof **out, "an answer", err));
    stream *s = *out;
    s->engine = e;
    s->model = model;
    s->options = *options;
    s->answer.prompt_tokens = prompt->count;
    s->started = s->first = nb_seconds();
    nb_detok_start(&s->detok, model->tokenizer, true);
    nb_status status = nb_sampler_new(&s->sampler, &options->sampling, model->config.vocab, err);
    if (status == NB_OK) {
        nb_sampler_saw(s->sampler, prompt->ids, prompt->count);
        status = nb_sequence_new(&s->sequence, e, prompt, total_tokens(prompt, options), prompt->count - 1, on_logits, s, err);
    }
    if (status == NB_OK && options->max_new_tokens <= 0) finish(s, NB_FINISH_LENGTH);
    if (status != NB_OK) {
        stream_free(s);
        *out = NULL;
    }
    return status;
}

nb_status nb_generate(nb_engine *e, const nb_prompt *prompt, const nb_generate_options *options, nb_answer *out, nb_error *err)
{
    stream *s;
    memset(out, 0, sizeof *out);
    NB_TRY(stream_open(&s, e, nb_engine_model(e), prompt, options, err));
    nb_status status = NB_OK;
    while (status == NB_OK && !s->finished) {
        size_t advanced;
        status = nb_engine_step(e, &advanced, err);
    }
    if (status == NB_OK) {
        *out = s->answer;
        memset(&s->answer, 0, sizeof s->answer);
    }
    stream_free(s);
    return status;
}

/* ---- many -------------------------------------------------------------------------------------------------------------- */

typedef struct {
    nb_engine    *engine;
    stream      **streams; /* [count] NULL before its start and after its answer was handed over */
    size_t        count, next, handed; /* next prompt to start; answers handed over */
    size_t        running;
    int           parallel;
    nb_prompt_at *prompt;
    nb_answer_at *answer;
    void         *context;
    nb_prompt     waiting; /* a prompt that was built but did not fit yet */
    nb_generate_options waiting_options;
    bool          has_waiting;
} many;

static nb_status start_some(many *m, nb_error *err)
{
    const nb_model *model = nb_engine_model(m->engine);
    while (m->next < m->count && m->running < (size_t)m->parallel) {
        if (!m->has_waiting) {
            memset(&m->waiting_options, 0, sizeof m->waiting_options);
            NB_TRY(m->prompt(m->context, m->next, &m->waiting, &m->waiting_options, err));
            m->has_waiting = true;
        }
        if (m->running > 0 && !nb_engine_fits(m->engine, total_tokens(&m->waiting, &m->waiting_options))) return NB_OK;
        NB_TRY(stream_open(&m->streams[m->next], m->engine, model, &m->waiting, &m->waiting_options, err));
        nb_prompt_free(&m->waiting);
        m->has_waiting = false;
        m->next++;
        m->running++;
    }
    return NB_OK;
}

/* Free the pages of what has finished, hand over answers whose turn it is. */
static nb_status collect(many *m, nb_error *err)
{
    for (size_t i = m->handed; i < m->next; i++) {
        stream *s = m->streams[i];
        if (s && s->finished && s->sequence) {
            stream_close(s);
            m->running--;
        }
    }
    while (m->handed < m->next && m->streams[m->handed]->finished) {
        stream *s = m->streams[m->handed];
        NB_TRY(m->answer(m->context, m->handed, &s->answer, err));
        stream_free(s);
        m->streams[m->handed++] = NULL;
    }
    return NB_OK;
}

nb_status nb_generate_many(nb_engine *e, size_t count, int parallel, nb_prompt_at *prompt, nb_answer_at *answer, void *context,
                           nb_error *err)
{
    many m = { .engine = e, .count = count, .parallel = parallel < 1 ? 1 : parallel, .prompt = prompt, .answer = answer,
               .context = context };
    NB_TRY(nb_alloc(&m.streams, count, sizeof *m.streams, "answers", err));
    nb_status status = NB_OK;
    while (status == NB_OK && m.handed < count) {
        size_t advanced;
        status = start_some(&m, err);
        if (status == NB_OK) status = nb_engine_step(e, &advanced, err);
        if (status == NB_OK) status = collect(&m, err);
    }
    for (size_t i = m.handed; i < m.next; i++) stream_free(m.streams[i]);
    if (m.has_waiting) nb_prompt_free(&m.waiting);
    free(m.streams);
    return status;
}
