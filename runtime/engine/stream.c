/* stream.c - tokens out of logits, text out of tokens, and everything that ends an answer.
 *
 * Guessing ahead: where the last few tokens have occurred before, what followed them then is pushed along with the new token; the
 * model computes all of it in one step, and every row is sampled as if it had come alone.  The first guess that is not what was
 * sampled is forgotten with all behind it, so the answer is the same, draws of random numbers included.
 */
#include "runtime/engine/stream.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LOOK_BACK = 3 /* tokens that must have occurred before */ };

void nb_answer_free(nb_answer *a)
{
    nb_ids_free(&a->ids);
    nb_buf_free(&a->text);
    memset(a, 0, sizeof *a);
}

struct nb_stream {
    const nb_model     *model;
    nb_generate_options options;
    nb_sequence        *sequence;
    nb_sampler         *sampler;
    nb_detok            detok;
    nb_buf              pending; /* text held back because it may be the beginning of a stop string */
    nb_answer           answer;
    bool                finished;
    nb_error            failure;
    double              started, first; /* nb_seconds */
};

void nb_stream_release(nb_stream *s)
{
    if (s->sequence) s->answer.found_tokens = nb_sequence_found(s->sequence);
    nb_sequence_free(s->sequence);
    nb_sampler_free(s->sampler);
    nb_buf_free(&s->pending);
    s->sequence = NULL;
    s->sampler = NULL;
}

void nb_stream_free(nb_stream *s)
{
    if (!s) return;
    nb_stream_release(s);
    nb_answer_free(&s->answer);
    free(s);
}

nb_answer *nb_stream_answer(nb_stream *s) { return &s->answer; }
const nb_error *nb_stream_failure(const nb_stream *s) { return s->failure.status ? &s->failure : NULL; }

static void emit(nb_stream *s, size_t n)
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
static size_t find_stop(const nb_stream *s, size_t *hold, int *which)
{
    size_t found = s->pending.size;
    *hold = 0;
    *which = -1;
    for (int i = 0; i < s->options.stop_count; i++) {
        const char *stop = s->options.stop[i];
        size_t      n = strlen(stop);
        if (n == 0) continue;
        const char *at = s->pending.size >= n ? memmem(s->pending.data, s->pending.size, stop, n) : NULL;
        if (at && (size_t)(at - s->pending.data) < found) {
            found = (size_t)(at - s->pending.data);
            *which = i;
        }
        for (size_t k = n - 1 < s->pending.size ? n - 1 : s->pending.size; k > *hold; k--)
            if (!memcmp(s->pending.data + s->pending.size - k, stop, k)) *hold = k;
    }
    return found;
}

static void finish(nb_stream *s, nb_finish how)
{
    if (!s->finished) s->answer.finish = how;
    s->finished = true;
    s->answer.past_trained = s->answer.prompt_tokens + s->answer.ids.count > (size_t)s->model->config.max_positions;
    s->answer.decode_s = nb_seconds() - s->first;
}

static nb_status fail(nb_stream *s, nb_status status, const char *text)
{
    if (!s->failure.status) nb_fail(&s->failure, status, "%s", text);
    finish(s, NB_FINISH_FAILED);
    return NB_OK; /* the step goes on for the others */
}

/* ---- one token ----------------------------------------------------------------------------------------------------------- */

static bool ends(const nb_stream *s, int32_t id)
{
    const nb_generation_config *g = &s->model->generation;
    for (int i = 0; i < s->options.stop_id_count; i++)
        if (s->options.stop_ids[i] == id) return true;
    if (s->options.ignore_eos) return false;
    for (int i = 0; i < g->eos_count; i++)
        if (g->eos[i] == id) return true;
    return false;
}

/* Everything that ends() says yes to, while the answer is shorter than it has to be. */
static int banned(const nb_stream *s, int32_t out[64])
{
    const nb_generation_config *g = &s->model->generation;
    int n = 0;
    if (s->answer.ids.count >= (size_t)(s->options.min_new_tokens > 0 ? s->options.min_new_tokens : 0)) return 0;
    for (int i = 0; i < s->options.stop_id_count && n < 64; i++) out[n++] = s->options.stop_ids[i];
    for (int i = 0; i < g->eos_count && n < 64; i++) out[n++] = g->eos[i];
    return n;
}

/* Text of the token that was just pushed to pending: what goes out, and whether a stop string ends the answer. */
static void put_text(nb_stream *s, bool last)
{
    size_t hold;
    int    which;
    if (last) nb_detok_finish(&s->detok, &s->pending);
    size_t stop = find_stop(s, &hold, &which);
    bool   too_early = s->answer.ids.count < (size_t)(s->options.min_new_tokens > 0 ? s->options.min_new_tokens : 0);
    if (which >= 0 && !too_early) {
        s->answer.stop_string = which;
        emit(s, s->options.include_stop ? stop + strlen(s->options.stop[which]) : stop);
        finish(s, NB_FINISH_STOP);
    } else {
        emit(s, last || which >= 0 ? s->pending.size : s->pending.size - hold);
    }
}

/* What followed the last occurrence of the last tokens, at most `want` of them. */
static size_t guess(const nb_stream *s, int32_t *out, size_t want)
{
    size_t         n = nb_sequence_length(s->sequence);
    const int32_t *ids = nb_sequence_ids(s->sequence);
    for (size_t at = n > LOOK_BACK ? n - 1 : 0; at-- >= LOOK_BACK;) {
        if (memcmp(ids + at + 1 - LOOK_BACK, ids + n - LOOK_BACK, LOOK_BACK * sizeof *ids)) continue;
        size_t found = n - at - 1 < want ? n - at - 1 : want;
        memcpy(out, ids + at + 1, found * sizeof *ids);
        return found;
    }
    return 0;
}

/* The token goes on as input, with guesses behind it. */
static nb_status go_on(nb_stream *s, int32_t id, nb_error *err)
{
    int32_t guesses[64];
    NB_TRY(nb_sequence_push(s->sequence, id, err));
    size_t left = (size_t)s->options.max_new_tokens - s->answer.ids.count; /* tokens still to come; the last is no input */
    size_t want = s->options.draft > 0 ? (size_t)s->options.draft : 0;
    if (want > NB_COUNT(guesses)) want = NB_COUNT(guesses);
    if (want >= left) want = left - 1;
    size_t n = want ? guess(s, guesses, want) : 0;
    for (size_t i = 0; i < n; i++) NB_TRY(nb_sequence_push(s->sequence, guesses[i], err));
    s->answer.drafted += n;
    return NB_OK;
}

/* Take the token; false when the answer is at its end. */
static bool accept(nb_stream *s, int32_t id, const nb_logprobs *logprobs)
{
    if (s->answer.ids.count == 0) {
        s->first = nb_seconds();
        s->answer.prefill_s = s->first - s->started;
    }
    if (ends(s, id)) {
        s->answer.stop_token = id;
        if (s->options.include_stop) nb_detok_push(&s->detok, id, &s->pending);
        put_text(s, true);
        finish(s, NB_FINISH_STOP);
        return false;
    }
    if (nb_ids_push(&s->answer.ids, id, &s->failure) != NB_OK) return finish(s, NB_FINISH_FAILED), false;
    if (s->options.on_token) s->options.on_token(s->options.context, id, logprobs);
    nb_detok_push(&s->detok, id, &s->pending);
    bool last = s->answer.ids.count >= (size_t)s->options.max_new_tokens;
    bool complete = s->options.grammar && nb_grammar_must_end(s->options.grammar);
    put_text(s, last || complete);
    if (complete) finish(s, NB_FINISH_STOP);
    if (s->finished) finish(s, s->answer.finish);
    else if (last) finish(s, NB_FINISH_LENGTH);
    if (s->pending.failed || s->answer.text.failed) fail(s, NB_ERR_MEMORY, "out of memory for the answer");
    return !s->finished;
}

static nb_status on_logits(void *context, nb_sequence *sequence, size_t row, float *logits, nb_error *err)
{
    nb_stream      *s = context;
    nb_logprobs     logprobs;
    int32_t         never[64];
    nb_sampler_step step = { .banned = never, .logprobs = s->options.logprobs ? &logprobs : NULL, .top = s->options.top_logprobs };
    if (s->finished) return NB_OK;
    if (s->options.grammar) {
        step.allowed = nb_grammar_allowed(s->options.grammar);
        if (!step.allowed) return fail(s, NB_ERR_MEMORY, "the form that is asked for takes more memory than there is for it");
    } else {
        step.banned_count = banned(s, never);
    }
    int32_t id = nb_sampler_next(s->sampler, logits, &step);
    if (id >= 0 && s->options.grammar && !nb_grammar_accept(s->options.grammar, id))
        return fail(s, NB_ERR_DIFFERENT, "a token that the form does not allow was chosen; this is a bug in nibble");
    if (id < 0) return fail(s, NB_ERR_INPUT, "the model computed no usable number for the next token (NaN): its weights or the KV memory are damaged");
    bool guessed = row + 1 < nb_sequence_length(sequence);
    bool right = guessed && nb_sequence_ids(sequence)[row + 1] == id;
    s->answer.accepted += right;
    if (!accept(s, id, step.logprobs) || right) return NB_OK;
    if (guessed) nb_sequence_truncate(sequence, row + 1);
    return go_on(s, id, err);
}

/* ---- life ---------------------------------------------------------------------------------------------------------------- */

size_t nb_stream_total(const nb_prompt *p, const nb_generate_options *o)
{
    return p->count + (o->max_new_tokens > 0 ? (size_t)o->max_new_tokens : 0);
}

nb_status nb_stream_open(nb_stream **out, nb_engine *e, const nb_prompt *prompt, const nb_generate_options *options, nb_error *err)
{
    const nb_model *model = nb_engine_model(e);
    NB_TRY(nb_alloc(out, 1, sizeof **out, "an answer", err));
    nb_stream *s = *out;
    s->model = model;
    s->options = *options;
    s->answer.prompt_tokens = prompt->count;
    s->answer.stop_string = s->answer.stop_token = -1;
    s->started = s->first = nb_seconds();
    nb_detok_start(&s->detok, model->tokenizer, !options->keep_special);
    nb_status status = nb_sampler_new(&s->sampler, &options->sampling, model->config.vocab, err);
    if (status == NB_OK) {
        const nb_sequence_options sequence = { .total = nb_stream_total(prompt, options), .logits_from = prompt->count - 1,
                                               .on_logits = on_logits, .context = s, .visual = options->visual,
                                               .priority = options->priority, .salt = options->salt };
        nb_sampler_saw(s->sampler, prompt->ids, prompt->count);
        status = nb_sequence_new(&s->sequence, e, prompt, &sequence, err);
    }
    if (status == NB_OK && options->max_new_tokens <= 0) finish(s, NB_FINISH_LENGTH);
    if (status != NB_OK) {
        nb_stream_free(s);
        *out = NULL;
    }
    return status;
}

bool nb_stream_finished(nb_stream *s)
{
    const nb_error *failure = s->sequence ? nb_sequence_failure(s->sequence) : NULL;
    if (failure && !s->finished) fail(s, failure->status, failure->text);
    return s->finished;
}
