/* request.c - field by field, in tables where fields are alike. */
#include "tools/serve/request.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "tools/serve/form.h"
#include "tools/serve/media_rules.h"

enum { MAX_MESSAGES = 1024, MAX_PARTS = 4096, MAX_STOP_BYTES = 256, MAX_BIAS = 1024 };

/* Understood here, or known to be without meaning for this server; everything else is reported as ignored. */
static const char *const known[] = {
    "model", "messages", "prompt", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p", "n", "stream",
    "stream_options", "stop", "seed", "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias", "logprobs",
    "top_logprobs", "tools", "tool_choice", "parallel_tool_calls", "response_format", "stop_token_ids", "ignore_eos", "min_tokens",
    "include_stop_str_in_output", "skip_special_tokens", "add_generation_prompt", "mm_processor_kwargs", "min_pixels", "max_pixels",
    "priority", "cache_salt", "return_token_ids", "echo", "user", "metadata", "store", "service_tier", "request_id",
    "chat_template_kwargs", "guided_json", "guided_regex", "guided_choice", "structured_outputs", "safety_identifier", "best_of", "suffix"};

static void list_ignored(nb_buf *out, const cJSON *body)
{
    for (const cJSON *c = body->child; c; c = c->next) {
        bool found = false;
        for (size_t i = 0; i < NB_COUNT(known) && !found; i++) found = !strcmp(known[i], c->string);
        if (!found && out->size + strlen(c->string) < 512) nb_buf_printf(out, "%s%s", out->size ? "," : "", c->string);
    }
}

/* ---- typed members: missing and null leave *out as it is ------------------------------------------------------------------ */

static bool get_int(int64_t *out, const cJSON *o, const char *key, int64_t min, int64_t max, nb_api_error *error)
{
    const cJSON *v = nb_json_find(o, key);
    if (!v) return true;
    double d = cJSON_IsNumber(v) ? v->valuedouble : NAN;
    if (!(d == floor(d)) || !(d >= (double)min && d <= (double)max))
        return nb_api_fail(error, 400, key, "%s has to be a whole number from %lld to %lld", key, (long long)min, (long long)max);
    *out = (int64_t)d;
    return true;
}

static bool get_number(double *out, const cJSON *o, const char *key, double min, double max, nb_api_error *error)
{
    const cJSON *v = nb_json_find(o, key);
    if (!v) return true;
    if (!cJSON_IsNumber(v) || !(v->valuedouble >= min && v->valuedouble <= max))
        return nb_api_fail(error, 400, key, "%s has to be a number from %g to %g", key, min, max);
    *out = v->valuedouble;
    return true;
}

static bool get_bool(bool *out, const cJSON *o, const char *key, nb_api_error *error)
{
    const cJSON *v = nb_json_find(o, key);
    if (!v) return true;
    if (!cJSON_IsBool(v)) return nb_api_fail(error, 400, key, "%s has to be true or false", key);
    *out = cJSON_IsTrue(v);
    return true;
}

static bool get_object(const cJSON **out, const cJSON *o, const char *key, nb_api_error *error)
{
    *out = nb_json_find(o, key);
    return !*out || cJSON_IsObject(*out) || nb_api_fail(error, 400, key, "%s has to be an object", key);
}

static bool no_memory(nb_api_error *error)
{
    return nb_api_fail(error, 503, "", "the server is out of memory for this request");
}

/* ---- sampling ------------------------------------------------------------------------------------------------------------ */

static bool read_sampling(nb_call_request *r, const cJSON *body, const nb_service *service, nb_api_error *error)
{
    const nb_service_options *settings = nb_service_settings(service);
    nb_sampling *s = &r->generate.sampling;
    double       temperature = NAN;
    int64_t      top_k = -1, seed = 0, priority = 0;
    *s = nb_sampling_default(&nb_service_model(service)->generation);
    if (settings->greedy_default) *s = (nb_sampling){.temperature = 1, .top_p = 1, .repetition_penalty = 1};
    if (!get_number(&temperature, body, "temperature", 0, 2, error) || !get_number(&s->top_p, body, "top_p", 0, 1, error) ||
        !get_int(&top_k, body, "top_k", -1, 1 << 20, error) || !get_number(&s->min_p, body, "min_p", 0, 1, error) ||
        !get_number(&s->presence_penalty, body, "presence_penalty", -2, 2, error) ||
        !get_number(&s->frequency_penalty, body, "frequency_penalty", -2, 2, error) ||
        !get_number(&s->repetition_penalty, body, "repetition_penalty", 0.01, 100, error) ||
        !get_int(&seed, body, "seed", -(1LL << 53), 1LL << 53, error) ||
        !get_int(&priority, body, "priority", -1000000, 1000000, error))
        return false;
    if (!isnan(temperature)) {
        s->greedy = temperature == 0;
        s->temperature = temperature > 0 ? temperature : 1;
        if (top_k < 0 && temperature > 0 && s->top_k == 1) s->top_k = 0; /* the checkpoint's 1 would make it greedy all the same */
    }
    if (s->top_p <= 0) s->top_p = 1e-9; /* the likeliest token alone */
    if (top_k >= 0) s->top_k = (int)top_k;
    r->has_seed = nb_json_find(body, "seed") != NULL;
    s->seed = (uint64_t)seed;
    if (!r->has_seed && getrandom(&s->seed, sizeof s->seed, 0) != (ssize_t)sizeof s->seed) return no_memory(error);
    r->generate.priority = (int)-priority; /* as vLLM's: lower goes first */
    return true;
}

static bool read_bias(nb_call_request *r, const cJSON *body, int vocab, nb_api_error *error)
{
    const cJSON *all;
    int          n = 0;
    if (!get_object(&all, body, "logit_bias", error)) return false;
    if (!all) return true;
    for (const cJSON *c = all->child; c; c = c->next) n++;
    if (n > MAX_BIAS) return nb_api_fail(error, 400, "logit_bias", "logit_bias has %d entries; at most %d are taken", n, MAX_BIAS);
    if (nb_alloc(&r->bias, (size_t)n, sizeof *r->bias, "biases", NULL) != NB_OK) return no_memory(error);
    for (const cJSON *c = all->child; c; c = c->next) {
        char  *end;
        long   id = strtol(c->string, &end, 10);
        double v = cJSON_IsNumber(c) ? c->valuedouble : NAN;
        if (*end || end == c->string || id < 0 || id >= vocab)
            return nb_api_fail(error, 400, "logit_bias", "logit_bias: '%.40s' is not a token id from 0 to %d", c->string, vocab - 1);
        if (!(v >= -100 && v <= 100)) return nb_api_fail(error, 400, "logit_bias", "logit_bias of %ld has to be from -100 to 100", id);
        r->bias[r->generate.sampling.bias_count++] = (nb_token_bias){(int32_t)id, (float)v};
    }
    return true;
}

static bool add_stop(nb_call_request *r, const cJSON *v, nb_api_error *error)
{
    int n = r->generate.stop_count;
    if (!cJSON_IsString(v) || !v->valuestring[0] || strlen(v->valuestring) > MAX_STOP_BYTES)
        return nb_api_fail(error, 400, "stop", "a stop string has to be a text of 1 to %d bytes", MAX_STOP_BYTES);
    if (n == NB_CALL_MAX_STOPS) return nb_api_fail(error, 400, "stop", "at most %d stop strings are taken", NB_CALL_MAX_STOPS);
    r->stops[n] = nb_strdup(v->valuestring);
    if (!r->stops[n]) return no_memory(error);
    r->generate.stop_count++;
    return true;
}

static bool read_stops(nb_call_request *r, const cJSON *body, int vocab, nb_api_error *error)
{
    const cJSON *stop = nb_json_find(body, "stop"), *ids = nb_json_find(body, "stop_token_ids");
    if (stop && !cJSON_IsArray(stop) && !add_stop(r, stop, error)) return false;
    if (cJSON_IsArray(stop))
        for (const cJSON *c = stop->child; c; c = c->next)
            if (!add_stop(r, c, error)) return false;
    if (ids && !cJSON_IsArray(ids)) return nb_api_fail(error, 400, "stop_token_ids", "stop_token_ids has to be an array of token ids");
    for (const cJSON *c = ids ? ids->child : NULL; c; c = c->next) {
        double v = cJSON_IsNumber(c) ? c->valuedouble : -1;
        if (!(v == floor(v)) || v < 0 || v >= vocab)
            return nb_api_fail(error, 400, "stop_token_ids", "stop_token_ids: a token id is a whole number from 0 to %d", vocab - 1);
        if (r->generate.stop_id_count == NB_CALL_MAX_STOPS)
            return nb_api_fail(error, 400, "stop_token_ids", "at most %d stop tokens are taken", NB_CALL_MAX_STOPS);
        r->stop_ids[r->generate.stop_id_count++] = (int32_t)v;
    }
    return true;
}

static bool read_stream(nb_call_request *r, const cJSON *body, nb_api_error *error)
{
    const cJSON *options;
    if (!get_bool(&r->stream, body, "stream", error) || !get_object(&options, body, "stream_options", error)) return false;
    if (!options) return true;
    if (!r->stream) return nb_api_fail(error, 400, "stream_options", "stream_options is only for stream: true");
    return get_bool(&r->include_usage, options, "include_usage", error) &&
           get_bool(&r->continuous_usage, options, "continuous_usage_stats", error);
}

/* What chat and text completions share. */
static bool read_common(nb_call_request *r, const cJSON *body, nb_service *service, nb_api_error *error)
{
    int     vocab = nb_service_model(service)->config.vocab;
    int64_t n = 1, min_tokens = 0;
    bool    skip_special = true;
    r->max_tokens = -1;
    if (!get_int(&r->max_tokens, body, "max_tokens", r->kind == NB_CALL_CHAT ? 1 : 0, INT32_MAX, error) ||
        !get_int(&r->max_tokens, body, "max_completion_tokens", 1, INT32_MAX, error) || !get_int(&n, body, "n", 1, NB_CALL_MAX_CHOICES, error) ||
        !get_int(&min_tokens, body, "min_tokens", 0, INT32_MAX, error) || !get_bool(&r->generate.ignore_eos, body, "ignore_eos", error) ||
        !get_bool(&r->generate.include_stop, body, "include_stop_str_in_output", error) ||
        !get_bool(&skip_special, body, "skip_special_tokens", error) ||
        !get_bool(&r->return_token_ids, body, "return_token_ids", error) || !read_sampling(r, body, service, error) ||
        !read_bias(r, body, vocab, error) || !read_stops(r, body, vocab, error) || !read_stream(r, body, error))
        return false;
    if (r->max_tokens >= 0 && min_tokens > r->max_tokens)
        return nb_api_fail(error, 400, "min_tokens", "min_tokens %lld is more than max_tokens %lld", (long long)min_tokens,
                           (long long)r->max_tokens);
    r->n = (int)n;
    r->generate.min_new_tokens = (int)min_tokens;
    r->generate.keep_special = !skip_special || r->tools; /* the tags of calls may be special tokens */
    const cJSON *salt = nb_json_find(body, "cache_salt"), *model = nb_json_find(body, "model");
    if (salt && !cJSON_IsString(salt)) return nb_api_fail(error, 400, "cache_salt", "cache_salt has to be a text");
    for (const char *c = salt ? salt->valuestring : ""; *c; c++)
        r->generate.salt = (r->generate.salt ^ (uint8_t)*c) * 0x100000001b3u + 1;
    if (model && !cJSON_IsString(model)) return nb_api_fail(error, 400, "model", "model has to be a text");
    list_ignored(&r->ignored, body);
    return true;
}

/* ---- chat ---------------------------------------------------------------------------------------------------------------- */

static bool read_pixels(nb_call_request *r, const cJSON *body, const nb_service *service, nb_api_error *error)
{
    const cJSON    *kwargs;
    nb_pixel_limits l = nb_service_settings(service)->limits;
    int64_t         most = l.max_pixels ? l.max_pixels : nb_service_model(service)->processor.max_pixels;
    if (!get_object(&kwargs, body, "mm_processor_kwargs", error)) return false;
    const cJSON *places[] = {body, kwargs};
    for (int i = 0; i < 2; i++)
        if (places[i] && (!get_int(&l.min_pixels, places[i], "min_pixels", 1, 1 << 30, error) ||
                          !get_int(&l.max_pixels, places[i], "max_pixels", 1, 1 << 30, error)))
            return false;
    if (l.max_pixels > most) l.max_pixels = most;
    if (l.min_pixels > most) l.min_pixels = most;
    r->prompt.limits = l;
    return true;
}

static bool check_messages(const cJSON *messages, nb_api_error *error)
{
    int parts = 0, count = cJSON_IsArray(messages) ? cJSON_GetArraySize(messages) : 0;
    if (!count) return nb_api_fail(error, 400, "messages", "messages has to be an array with at least one message");
    if (count > MAX_MESSAGES) return nb_api_fail(error, 400, "messages", "%d messages; at most %d are taken", count, MAX_MESSAGES);
    int at = 0;
    for (const cJSON *m = messages->child; m; m = m->next, at++) {
        static const char *const roles[] = {"system", "developer", "user", "assistant", "tool"};
        const cJSON *content = nb_json_find(m, "content"), *role = nb_json_find(m, "role");
        bool         known_role = false;
        for (size_t i = 0; i < NB_COUNT(roles) && cJSON_IsString(role); i++) known_role |= !strcmp(roles[i], role->valuestring);
        if (!known_role)
            return nb_api_fail(error, 400, "messages", "messages[%d].role '%.32s' has to be system, developer, user, assistant or tool", at,
                               cJSON_IsString(role) ? role->valuestring : "");
        if (cJSON_IsArray(content)) parts += cJSON_GetArraySize(content);
    }
    return parts <= MAX_PARTS || nb_api_fail(error, 400, "messages", "%d content parts; at most %d are taken", parts, MAX_PARTS);
}

bool nb_request_messages(nb_call_request *out, const cJSON *body, nb_service *service, nb_api_error *error)
{
    nb_error     err;
    const cJSON *messages = nb_json_find(body, "messages"), *tools = nb_json_find(body, "tools");
    out->kind = NB_CALL_CHAT;
    out->prompt.template_options.add_generation_prompt = true;
    if (!check_messages(messages, error) || !read_pixels(out, body, service, error) ||
        !get_bool(&out->prompt.template_options.add_generation_prompt, body, "add_generation_prompt", error))
        return false;
    if (tools && (!cJSON_IsArray(tools) || !tools->child || cJSON_GetArraySize(tools) > NB_FORM_TOOLS))
        return nb_api_fail(error, 400, "tools", "tools has to be an array of 1 to %d tools", NB_FORM_TOOLS);
    bool hide_tools;
    if (!nb_form_read(out, body, &hide_tools, error)) return false;
    if (nb_chat_from_json(&out->chat, messages, hide_tools ? NULL : tools, NULL, &err) != NB_OK) return nb_api_fail_from(error, &err, "messages");
    for (int i = 0; i < out->chat.count; i++) /* the newer name of the same */
        if (!strcmp(out->chat.messages[i].role, "developer")) strcpy(out->chat.messages[i].role, "system");
    return nb_media_rules_apply(out, nb_service_settings(service), nb_service_model(service), error);
}

bool nb_request_chat(nb_call_request *out, const cJSON *body, nb_service *service, nb_api_error *error)
{
    int64_t top = 0;
    memset(out, 0, sizeof *out);
    error->status = 0;
    bool ok = cJSON_IsObject(body) || nb_api_fail(error, 400, "", "the body has to be a JSON object");
    ok = ok && nb_request_messages(out, body, service, error) && read_common(out, body, service, error) &&
         get_bool(&out->generate.logprobs, body, "logprobs", error) && get_int(&top, body, "top_logprobs", 0, NB_TOP_LOGPROBS, error);
    if (ok && top && !out->generate.logprobs)
        ok = nb_api_fail(error, 400, "top_logprobs", "top_logprobs is only for logprobs: true");
    out->generate.top_logprobs = (int)top;
    if (!ok) nb_call_request_free(out);
    return ok;
}

/* ---- text completions ---------------------------------------------------------------------------------------------------- */

static bool read_prompt(nb_call_request *r, const cJSON *body, const nb_service *service, nb_api_error *error)
{
    nb_error        err;
    const nb_model *m = nb_service_model(service);
    const cJSON    *p = nb_json_find(body, "prompt");
    if (cJSON_IsArray(p) && p->child && !p->child->next && (cJSON_IsString(p->child) || cJSON_IsArray(p->child))) p = p->child;
    if (cJSON_IsString(p)) {
        if (nb_tokenizer_encode(m->tokenizer, p->valuestring, strlen(p->valuestring), false, &r->ids, &err) != NB_OK)
            return nb_api_fail_from(error, &err, "prompt");
    } else if (cJSON_IsArray(p)) {
        for (const cJSON *c = p->child; c; c = c->next) {
            double v = cJSON_IsNumber(c) ? c->valuedouble : -1;
            if (!(v == floor(v)) || v < 0 || v >= m->config.vocab)
                return nb_api_fail(error, 400, "prompt", "prompt has to be one text, or an array of token ids from 0 to %d", m->config.vocab - 1);
            int32_t id = (int32_t)v;
            if (id == m->config.image_pad || id == m->config.video_pad)
                return nb_api_fail(error, 400, "prompt", "token %d stands for a picture, which a text completion has none of", id);
            if (nb_ids_push(&r->ids, id, &err) != NB_OK) return no_memory(error);
        }
    } else {
        return nb_api_fail(error, 400, "prompt", "prompt has to be a text or an array of token ids");
    }
    return r->ids.count > 0 || nb_api_fail(error, 400, "prompt", "prompt is empty");
}

bool nb_request_completion(nb_call_request *out, const cJSON *body, nb_service *service, nb_api_error *error)
{
    int64_t logprobs = -1;
    memset(out, 0, sizeof *out);
    error->status = 0;
    out->kind = NB_CALL_COMPLETION;
    bool ok = cJSON_IsObject(body) || nb_api_fail(error, 400, "", "the body has to be a JSON object");
    bool hide_tools;
    ok = ok && read_prompt(out, body, service, error) && nb_form_read(out, body, &hide_tools, error) && read_common(out, body, service, error) &&
         get_int(&logprobs, body, "logprobs", 0, NB_TOP_LOGPROBS, error) && get_bool(&out->echo, body, "echo", error);
    if (ok && nb_json_find(body, "suffix")) ok = nb_api_fail(error, 400, "suffix", "suffix is not supported by this model");
    if (ok && out->max_tokens < 0) out->max_tokens = 16; /* the API's default */
    out->generate.logprobs = logprobs >= 0;
    out->generate.top_logprobs = logprobs > 0 ? (int)logprobs : 0;
    if (!ok) nb_call_request_free(out);
    return ok;
}
