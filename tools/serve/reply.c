/* reply.c - JSON written in one pass, and the state of a stream. */
#include "tools/serve/reply.h"

#include <stdio.h>
#include <string.h>

#include "tools/cli/output.h"

static const char *finish_reason(const nb_call *call, const nb_call_choice *c, const nb_tool_calls *tools)
{
    if (c->finish != NB_FINISH_STOP) return "length";
    return tools && tools->count && !call->request.named_tool ? "tool_calls" : "stop";
}

/* The string or token that ended it, when that was asked for; null for the model's own end. */
static void emit_stop_reason(nb_emit *e, const nb_call *c, const nb_call_choice *choice)
{
    if (choice->stop_string >= 0) {
        nb_emit_string(e, "stop_reason", c->request.stops[choice->stop_string]);
        return;
    }
    for (int i = 0; i < c->request.generate.stop_id_count; i++)
        if (choice->stop_token == c->request.stop_ids[i]) {
            nb_emit_int(e, "stop_reason", choice->stop_token);
            return;
        }
    nb_emit_string(e, "stop_reason", NULL);
}

/* ---- log probabilities --------------------------------------------------------------------------------------------------- */

static void emit_token(nb_emit *e, const char *key, const nb_token_logprob *t, const nb_tokenizer *tokenizer)
{
    nb_buf text = {0};
    nb_tokenizer_decode(tokenizer, &t->id, 1, false, &text);
    nb_emit_open(e, key, '{');
    nb_emit_bytes(e, "token", text.data ? text.data : "", text.size);
    nb_emit_number(e, "logprob", t->logprob < -9999.0f ? -9999.0 : (double)t->logprob);
    nb_emit_open(e, "bytes", '[');
    for (size_t i = 0; i < text.size; i++) nb_emit_int(e, NULL, (uint8_t)text.data[i]);
    nb_emit_close(e);
    nb_buf_free(&text);
}

static void emit_chat_logprobs(nb_emit *e, const nb_call_choice *c, size_t from, const nb_tokenizer *tokenizer)
{
    nb_emit_open(e, "logprobs", '{');
    nb_emit_open(e, "content", '[');
    for (size_t i = from; i < c->token_count; i++) {
        const nb_call_token *t = &c->tokens[i];
        emit_token(e, NULL, &t->chosen, tokenizer);
        nb_emit_open(e, "top_logprobs", '[');
        for (int k = 0; k < t->count; k++) {
            emit_token(e, NULL, &t->top[k], tokenizer);
            nb_emit_close(e);
        }
        nb_emit_close(e);
        nb_emit_close(e);
    }
    nb_emit_close(e);
    nb_emit_string(e, "refusal", NULL);
    nb_emit_close(e);
}

/* The older form: parallel arrays, and a map for the alternatives. */
static void emit_completion_logprobs(nb_emit *e, const nb_call_choice *c, size_t from, const nb_tokenizer *tokenizer)
{
    size_t at = 0;
    nb_buf text = {0};
    nb_emit_open(e, "logprobs", '{');
    nb_emit_open(e, "tokens", '[');
    for (size_t i = from; i < c->token_count; i++) {
        nb_buf_clear(&text);
        nb_tokenizer_decode(tokenizer, &c->tokens[i].id, 1, false, &text);
        nb_emit_bytes(e, NULL, text.data ? text.data : "", text.size);
    }
    nb_emit_close(e);
    nb_emit_open(e, "token_logprobs", '[');
    for (size_t i = from; i < c->token_count; i++) nb_emit_number(e, NULL, c->tokens[i].chosen.logprob);
    nb_emit_close(e);
    nb_emit_open(e, "top_logprobs", '[');
    for (size_t i = from; i < c->token_count; i++) {
        nb_emit_open(e, NULL, '{');
        for (int k = 0; k < c->tokens[i].count; k++) {
            nb_buf key = {0};
            nb_tokenizer_decode(tokenizer, &c->tokens[i].top[k].id, 1, false, &key);
            nb_utf8_repair(&key);
            nb_emit_number(e, key.data ? key.data : "", c->tokens[i].top[k].logprob);
            nb_buf_free(&key);
        }
        nb_emit_close(e);
    }
    nb_emit_close(e);
    nb_emit_open(e, "text_offset", '[');
    for (size_t i = 0; i < c->token_count; i++) {
        nb_buf_clear(&text);
        nb_tokenizer_decode(tokenizer, &c->tokens[i].id, 1, false, &text);
        if (i >= from) nb_emit_int(e, NULL, (int64_t)at);
        at += text.size;
    }
    nb_emit_close(e);
    nb_emit_close(e);
    nb_buf_free(&text);
}

static void emit_logprobs(nb_emit *e, const nb_call *c, const nb_call_choice *choice, size_t from, const nb_tokenizer *tokenizer)
{
    if (!c->request.generate.logprobs) nb_emit_string(e, "logprobs", NULL);
    else if (c->request.kind == NB_CALL_CHAT) emit_chat_logprobs(e, choice, from, tokenizer);
    else emit_completion_logprobs(e, choice, from, tokenizer);
}

/* ---- counts -------------------------------------------------------------------------------------------------------------- */

static size_t completion_tokens(const nb_call *c)
{
    size_t n = 0;
    for (int i = 0; i < c->request.n; i++) n += c->choices[i].completion_tokens;
    return n;
}

static void emit_usage(nb_emit *e, const nb_call *c)
{
    size_t completion = completion_tokens(c);
    nb_emit_open(e, "usage", '{');
    nb_emit_int(e, "prompt_tokens", (int64_t)c->prompt_tokens);
    nb_emit_int(e, "completion_tokens", (int64_t)completion);
    nb_emit_int(e, "total_tokens", (int64_t)(c->prompt_tokens + completion));
    nb_emit_open(e, "prompt_tokens_details", '{');
    nb_emit_int(e, "cached_tokens", (int64_t)c->cached_tokens);
    nb_emit_int(e, "image_tokens", (int64_t)c->image_tokens);
    nb_emit_int(e, "video_tokens", (int64_t)c->video_tokens);
    nb_emit_close(e);
    nb_emit_close(e);
}

static void emit_timings(nb_emit *e, const nb_call *c)
{
    size_t n = completion_tokens(c), computed = c->prompt_tokens - c->cached_tokens;
    double prompt = c->first_token > 0 ? c->first_token - c->started : 0, decode = c->last_token - c->first_token;
    nb_emit_open(e, "timings", '{');
    nb_emit_int(e, "cache_n", (int64_t)c->cached_tokens);
    nb_emit_int(e, "prompt_n", (int64_t)computed);
    nb_emit_number(e, "prompt_ms", prompt * 1e3);
    nb_emit_number(e, "prompt_per_second", prompt > 0 ? (double)computed / prompt : 0);
    nb_emit_int(e, "predicted_n", (int64_t)n);
    nb_emit_number(e, "predicted_ms", decode * 1e3);
    nb_emit_number(e, "predicted_per_second", decode > 0 && n > 1 ? (double)(n - 1) / decode : 0);
    nb_emit_number(e, "queue_ms", c->started > 0 ? (c->started - c->prepared) * 1e3 : 0);
    nb_emit_number(e, "media_ms", c->fetch_s * 1e3);
    nb_emit_number(e, "vision_ms", c->encode_s * 1e3);
    nb_emit_close(e);
}

static void emit_ids(nb_emit *e, const char *key, const nb_ids *ids)
{
    nb_emit_open(e, key, '[');
    for (size_t i = 0; i < ids->count; i++) nb_emit_int(e, NULL, ids->data[i]);
    nb_emit_close(e);
}

static void emit_choice_ids(nb_emit *e, const nb_call_choice *c, size_t from)
{
    nb_emit_open(e, "token_ids", '[');
    for (size_t i = from; i < c->token_count; i++) nb_emit_int(e, NULL, c->tokens[i].id);
    nb_emit_close(e);
}

static void emit_head(nb_emit *e, const nb_call *c, const nb_reply_source *source, bool chunk)
{
    bool chat = c->request.kind == NB_CALL_CHAT;
    nb_emit_open(e, NULL, '{');
    nb_emit_string(e, "id", c->id);
    nb_emit_string(e, "object", !chat ? "text_completion" : chunk ? "chat.completion.chunk" : "chat.completion");
    nb_emit_int(e, "created", c->created);
    nb_emit_string(e, "model", source->model);
    nb_emit_string(e, "system_fingerprint", source->fingerprint);
}

/* ---- whole --------------------------------------------------------------------------------------------------------------- */

static bool is_blank(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (text[i] != ' ' && text[i] != '\n' && text[i] != '\t' && text[i] != '\r') return false;
    return true;
}

static void emit_tool_calls(nb_emit *e, const nb_tool_calls *tools, const char *text)
{
    nb_emit_open(e, "tool_calls", '[');
    for (int i = 0; i < tools->count; i++) {
        size_t      n;
        const char *arguments = nb_tool_call_arguments(&tools->calls[i], text, &n);
        nb_emit_open(e, NULL, '{');
        nb_emit_string(e, "id", tools->calls[i].id);
        nb_emit_string(e, "type", "function");
        nb_emit_open(e, "function", '{');
        nb_emit_string(e, "name", tools->calls[i].name);
        nb_emit_bytes(e, "arguments", arguments, n);
        nb_emit_close(e);
        nb_emit_close(e);
    }
    nb_emit_close(e);
}

static void emit_message(nb_emit *e, const nb_call_choice *choice, const nb_tool_calls *tools)
{
    const char *text = choice->text.data ? choice->text.data : "";
    size_t      n = tools->count ? tools->content_end : choice->text.size;
    nb_emit_open(e, "message", '{');
    nb_emit_string(e, "role", "assistant");
    if (tools->count && is_blank(text, n)) nb_emit_string(e, "content", NULL);
    else nb_emit_bytes(e, "content", text, n);
    nb_emit_string(e, "refusal", NULL);
    if (tools->count) emit_tool_calls(e, tools, text);
    nb_emit_close(e);
}

/* With echo the prompt stands before the answer. */
static void emit_text(nb_emit *e, const nb_call *c, const nb_call_choice *choice, const nb_tokenizer *tokenizer)
{
    nb_buf all = {0};
    if (c->request.echo) nb_tokenizer_decode(tokenizer, c->request.ids.data, c->request.ids.count, true, &all);
    nb_buf_add(&all, choice->text.data, choice->text.size);
    nb_emit_bytes(e, "text", all.data ? all.data : "", all.size);
    if (all.failed) e->buf->failed = true;
    nb_buf_free(&all);
}

void nb_reply_whole(nb_buf *out, const nb_call *c, const nb_reply_source *source)
{
    nb_emit e = nb_emit_start(out, false);
    emit_head(&e, c, source, false);
    nb_emit_open(&e, "choices", '[');
    for (int i = 0; i < c->request.n; i++) {
        const nb_call_choice *choice = &c->choices[i];
        nb_tool_calls         tools = {0};
        if (c->request.tools) nb_tool_calls_update(&tools, choice->text.data ? choice->text.data : "", choice->text.size, true);
        nb_emit_open(&e, NULL, '{');
        nb_emit_int(&e, "index", i);
        if (c->request.kind == NB_CALL_CHAT) emit_message(&e, choice, &tools);
        else emit_text(&e, c, choice, source->tokenizer);
        emit_logprobs(&e, c, choice, 0, source->tokenizer);
        nb_emit_string(&e, "finish_reason", finish_reason(c, choice, &tools));
        emit_stop_reason(&e, c, choice);
        if (c->request.return_token_ids) emit_choice_ids(&e, choice, 0);
        nb_emit_close(&e);
        nb_tool_calls_free(&tools);
    }
    nb_emit_close(&e);
    emit_usage(&e, c);
    if (c->request.return_token_ids) emit_ids(&e, "prompt_token_ids", &c->prompt_ids);
    emit_timings(&e, c);
    nb_emit_close(&e);
}

/* ---- events -------------------------------------------------------------------------------------------------------------- */

static nb_emit event_open(nb_buf *out, const nb_call *c, const nb_reply_source *source)
{
    nb_buf_str(out, "data: ");
    nb_emit e = nb_emit_start(out, false);
    emit_head(&e, c, source, true);
    return e;
}

static void event_close(nb_emit *e, const nb_call *c)
{
    if (c->request.continuous_usage) emit_usage(e, c);
    else if (c->request.include_usage) nb_emit_string(e, "usage", NULL);
    nb_emit_close(e);
    nb_buf_char(e->buf, '\n'); /* the line has ended; an empty one ends the event */
}

static void begin_choice(nb_buf *out, const nb_call *c, int i, const nb_reply_source *source)
{
    nb_emit e = event_open(out, c, source);
    nb_emit_open(&e, "choices", '[');
    nb_emit_open(&e, NULL, '{');
    nb_emit_int(&e, "index", i);
    nb_emit_open(&e, "delta", '{');
    nb_emit_string(&e, "role", "assistant");
    nb_emit_string(&e, "content", "");
    nb_emit_close(&e);
    nb_emit_string(&e, "logprobs", NULL);
    nb_emit_string(&e, "finish_reason", NULL);
    nb_emit_close(&e);
    nb_emit_close(&e);
    event_close(&e, c);
}

/* What is new of the calls: names as soon as they are known, arguments as they come. */
static void emit_call_deltas(nb_emit *e, nb_reply_stream *s, int i, const char *text)
{
    nb_tool_calls *t = &s->choices[i].tools;
    nb_emit_open(e, "tool_calls", '[');
    for (int k = s->choices[i].calls ? s->choices[i].calls - 1 : 0; k < t->count && t->calls[k].named; k++) {
        size_t      n;
        const char *arguments = nb_tool_call_arguments(&t->calls[k], text, &n);
        bool        fresh = k >= s->choices[i].calls;
        size_t      from = fresh ? 0 : s->choices[i].arguments;
        if (!fresh && n == from) continue;
        nb_emit_open(e, NULL, '{');
        nb_emit_int(e, "index", k);
        if (fresh) {
            nb_emit_string(e, "id", t->calls[k].id);
            nb_emit_string(e, "type", "function");
        }
        nb_emit_open(e, "function", '{');
        if (fresh) nb_emit_string(e, "name", t->calls[k].name);
        nb_emit_bytes(e, "arguments", arguments + from, n - from);
        nb_emit_close(e);
        nb_emit_close(e);
        s->choices[i].calls = k + 1;
        s->choices[i].arguments = n;
    }
    nb_emit_close(e);
}

/* Whether a call has something that was not sent. */
static bool calls_grew(const nb_reply_stream *s, int i)
{
    const nb_tool_calls *t = &s->choices[i].tools;
    int                  sent = s->choices[i].calls;
    if (t->count > sent && t->calls[sent].named) return true;
    if (!sent || sent > t->count) return false;
    const nb_tool_call *c = &t->calls[sent - 1];
    return (c->own.size ? c->own.size : c->end - c->args) > s->choices[i].arguments;
}

/* How much of the text is content that may be sent. */
static size_t shown(const nb_call *c, const nb_call_choice *choice, nb_reply_stream *s, int i)
{
    if (!c->request.tools) return choice->text.size;
    nb_tool_calls *t = &s->choices[i].tools;
    nb_tool_calls_update(t, choice->text.data ? choice->text.data : "", choice->text.size, choice->finished);
    return t->content_end > s->choices[i].text ? t->content_end : s->choices[i].text;
}

/* New text, calls and tokens of a choice; ended: and its finish reason. */
static void continue_choice(nb_buf *out, const nb_call *c, int i, nb_reply_stream *s, size_t until, bool ended, const nb_reply_source *source)
{
    const nb_call_choice *choice = &c->choices[i];
    const char           *text = choice->text.data ? choice->text.data : "";
    bool   chat = c->request.kind == NB_CALL_CHAT;
    size_t at = s->choices[i].text, tokens = s->choices[i].tokens;
    nb_emit e = event_open(out, c, source);
    nb_emit_open(&e, "choices", '[');
    nb_emit_open(&e, NULL, '{');
    nb_emit_int(&e, "index", i);
    if (chat) nb_emit_open(&e, "delta", '{');
    if (!chat || until > at) nb_emit_bytes(&e, chat ? "content" : "text", text + at, until - at);
    if (chat && calls_grew(s, i)) emit_call_deltas(&e, s, i, text);
    if (chat) nb_emit_close(&e);
    if (choice->token_count > tokens) emit_logprobs(&e, c, choice, tokens, source->tokenizer);
    else nb_emit_string(&e, "logprobs", NULL);
    nb_emit_string(&e, "finish_reason", ended ? finish_reason(c, choice, &s->choices[i].tools) : NULL);
    if (ended) emit_stop_reason(&e, c, choice);
    if (c->request.return_token_ids) emit_choice_ids(&e, choice, tokens);
    nb_emit_close(&e);
    nb_emit_close(&e);
    event_close(&e, c);
    s->choices[i].text = until;
    s->choices[i].tokens = choice->token_count;
}

void nb_reply_stream_free(nb_reply_stream *s)
{
    for (int i = 0; i < NB_CALL_MAX_CHOICES; i++) nb_tool_calls_free(&s->choices[i].tools);
}

static void end_stream(nb_buf *out, const nb_call *c, const nb_reply_source *source)
{
    if (c->error.status) {
        nb_buf_str(out, "data: ");
        nb_api_error_body(out, &c->error);
        nb_buf_char(out, '\n');
    } else if (c->request.include_usage) {
        nb_emit e = event_open(out, c, source);
        nb_emit_open(&e, "choices", '[');
        nb_emit_close(&e);
        emit_usage(&e, c);
        emit_timings(&e, c);
        nb_emit_close(&e);
        nb_buf_char(out, '\n');
    }
    nb_buf_str(out, "data: [DONE]\n\n");
}

void nb_reply_next(nb_buf *out, nb_call *c, nb_reply_stream *s, const nb_reply_source *source)
{
    pthread_mutex_lock(&c->lock);
    for (int i = 0; i < c->request.n && !s->finished; i++) {
        const nb_call_choice *choice = &c->choices[i];
        bool                  ended = choice->finished && !s->choices[i].ended;
        if (!s->choices[i].began && (choice->completion_tokens || choice->finished)) {
            s->choices[i].began = true;
            if (c->request.kind == NB_CALL_CHAT) begin_choice(out, c, i, source);
        }
        /* Tokens whose text is still held back go with the text that they become a part of. */
        size_t until = shown(c, choice, s, i);
        if (until > s->choices[i].text || calls_grew(s, i) || ended) continue_choice(out, c, i, s, until, ended, source);
        if (ended) s->choices[i].ended = true;
    }
    if (c->stage == NB_STAGE_DONE && !s->finished) {
        end_stream(out, c, source);
        s->finished = true;
    }
    pthread_mutex_unlock(&c->lock);
}
