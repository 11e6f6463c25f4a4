/* routes.c - what each path does, once its body is complete. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli/output.h"
#include "tools/serve/exchange.h"
#include "tools/serve/page.h"
#include "tools/serve/request.h"

/* ---- bodies -------------------------------------------------------------------------------------------------------------- */

/* NULL after a refusal.  A body that names a model chooses it. */
static cJSON *read_body(nb_exchange *x)
{
    nb_error err;
    cJSON   *body;
    if (nb_json_parse(&body, x->body.data ? x->body.data : "", x->body.size, "the body", &err) != NB_OK) {
        nb_exchange_fail(x, 400, "", "%s", err.text);
        return NULL;
    }
    const cJSON *name = nb_json_find(body, "model");
    x->model = nb_server_model(x->server, cJSON_IsString(name) ? name->valuestring : NULL);
    if (x->model) {
        nb_metrics_count(x->model->metrics, NB_COUNT_REQUEST_BYTES, x->body.size);
        return body;
    }
    nb_exchange_fail(x, 404, "model", "there is no model '%.128s'; GET /v1/models lists them", name->valuestring);
    cJSON_Delete(body);
    return NULL;
}

/* ---- answers of the model ------------------------------------------------------------------------------------------------ */

static void submit(nb_exchange *x, nb_call_request *request, const char *prefix)
{
    nb_error err;
    request->model = nb_strdup(x->model->names[0]);
    if (!request->model || nb_call_new(&x->call, request, prefix, &err) != NB_OK) {
        nb_call_request_free(request);
        nb_exchange_fail(x, 503, "", "the server is out of memory for this request");
        return;
    }
    if (nb_service_submit(x->model->service, x->call, &x->error)) return;
    nb_call_drop(x->call);
    x->call = NULL;
}

static void chat_completions(nb_exchange *x)
{
    nb_call_request request;
    cJSON          *body = read_body(x);
    if (!body) return;
    if (nb_request_chat(&request, body, x->model->service, &x->error)) submit(x, &request, "chatcmpl-");
    cJSON_Delete(body);
}

static void completions(nb_exchange *x)
{
    nb_call_request request;
    cJSON          *body = read_body(x);
    if (!body) return;
    if (nb_request_completion(&request, body, x->model->service, &x->error)) submit(x, &request, "cmpl-");
    cJSON_Delete(body);
}

/* ---- texts and tokens ---------------------------------------------------------------------------------------------------- */

/* The messages of a body as the template renders them, one pad a picture. */
static bool render(nb_exchange *x, const cJSON *body, nb_buf *text)
{
    nb_call_request request = {0};
    nb_rendered     rendered = {0};
    nb_error        err;
    bool ok = nb_request_messages(&request, body, x->model->service, &x->error);
    if (ok && nb_chat_render(&rendered, &request.chat, &request.prompt.template_options, &err) != NB_OK)
        ok = nb_api_fail_from(&x->error, &err, "messages");
    if (ok) nb_rendered_string(&rendered, text);
    nb_rendered_free(&rendered);
    nb_call_request_free(&request);
    return ok;
}

static void apply_template(nb_exchange *x)
{
    nb_buf text = {0};
    cJSON *body = read_body(x);
    if (body && render(x, body, &text)) {
        nb_emit e = nb_emit_start(&x->out, false);
        nb_emit_open(&e, NULL, '{');
        nb_emit_bytes(&e, "prompt", text.data ? text.data : "", text.size);
        nb_emit_close(&e);
    }
    nb_buf_free(&text);
    cJSON_Delete(body);
}

static bool text_of(nb_exchange *x, const cJSON *body, nb_buf *text, bool *special)
{
    const cJSON *prompt = nb_json_find(body, "prompt"), *content = nb_json_find(body, "content");
    *special = false;
    if (!prompt) prompt = content; /* as llama-server calls it */
    if (cJSON_IsString(prompt)) return nb_buf_str(text, prompt->valuestring), true;
    if (prompt) return nb_exchange_fail(x, 400, "prompt", "prompt has to be a text"), false;
    *special = true; /* control tokens of the template; what users wrote cannot hold any, or counts as if it did */
    return render(x, body, text);
}

static void tokenize(nb_exchange *x)
{
    nb_ids   ids = {0};
    nb_buf   text = {0};
    nb_error err;
    bool     special;
    cJSON   *body = read_body(x);
    if (body && text_of(x, body, &text, &special)) {
        const nb_model *m = nb_service_model(x->model->service);
        if (nb_tokenizer_encode(m->tokenizer, text.data ? text.data : "", text.size, special, &ids, &err) != NB_OK) {
            nb_api_fail_from(&x->error, &err, "prompt");
        } else {
            nb_emit e = nb_emit_start(&x->out, false);
            nb_emit_open(&e, NULL, '{');
            nb_emit_int(&e, "count", (int64_t)ids.count);
            nb_emit_int(&e, "max_model_len", (int64_t)nb_service_settings(x->model->service)->max_model_len);
            nb_emit_open(&e, "tokens", '[');
            for (size_t i = 0; i < ids.count; i++) nb_emit_int(&e, NULL, ids.data[i]);
            nb_emit_close(&e);
            nb_emit_close(&e);
        }
    }
    nb_ids_free(&ids);
    nb_buf_free(&text);
    cJSON_Delete(body);
}

static void detokenize(nb_exchange *x)
{
    nb_buf   text = {0};
    nb_ids   ids = {0};
    nb_error err;
    cJSON   *body = read_body(x);
    if (!body) return;
    const cJSON    *tokens = nb_json_find(body, "tokens");
    const nb_model *m = nb_service_model(x->model->service);
    if (!cJSON_IsArray(tokens)) nb_exchange_fail(x, 400, "tokens", "tokens has to be an array of token ids");
    for (const cJSON *c = cJSON_IsArray(tokens) ? tokens->child : NULL; c && !x->error.status; c = c->next) {
        if (!cJSON_IsNumber(c) || !(c->valuedouble >= 0 && c->valuedouble < m->config.vocab))
            nb_exchange_fail(x, 400, "tokens", "tokens: an id is a whole number from 0 to %d", m->config.vocab - 1);
        else if (nb_ids_push(&ids, (int32_t)c->valuedouble, &err) != NB_OK)
            nb_api_fail_from(&x->error, &err, "tokens");
    }
    if (!x->error.status) {
        nb_emit e = nb_emit_start(&x->out, false);
        nb_tokenizer_decode(m->tokenizer, ids.data, ids.count, false, &text);
        nb_emit_open(&e, NULL, '{');
        nb_emit_bytes(&e, "prompt", text.data ? text.data : "", text.size);
        nb_emit_close(&e);
    }
    nb_buf_free(&text);
    nb_ids_free(&ids);
    cJSON_Delete(body);
}

/* ---- about the server ---------------------------------------------------------------------------------------------------- */

static void emit_model(nb_emit *e, const nb_exchange *x, const nb_served_model *m, int name)
{
    nb_emit_open(e, NULL, '{');
    nb_emit_string(e, "id", m->names[name]);
    nb_emit_string(e, "object", "model");
    nb_emit_int(e, "created", (int64_t)nb_server_started(x->server));
    nb_emit_string(e, "owned_by", "nibble");
    nb_emit_string(e, "root", m->names[0]);
    nb_emit_string(e, "parent", NULL);
    nb_emit_int(e, "max_model_len", (int64_t)nb_service_settings(m->service)->max_model_len);
    nb_emit_open(e, "architecture", '{');
    nb_emit_open(e, "input_modalities", '[');
    nb_emit_string(e, NULL, "text");
    nb_emit_string(e, NULL, "image");
    nb_emit_string(e, NULL, "video");
    nb_emit_close(e);
    nb_emit_open(e, "output_modalities", '[');
    nb_emit_string(e, NULL, "text");
    nb_emit_close(e);
    nb_emit_close(e);
    nb_emit_close(e);
}

static void models(nb_exchange *x)
{
    nb_emit e = nb_emit_start(&x->out, false);
    nb_emit_open(&e, NULL, '{');
    nb_emit_string(&e, "object", "list");
    nb_emit_open(&e, "data", '[');
    for (int i = 0; i < x->options->model_count; i++)
        for (int k = 0; k < x->options->models[i].name_count; k++) emit_model(&e, x, &x->options->models[i], k);
    nb_emit_close(&e);
    nb_emit_close(&e);
}

static void one_model(nb_exchange *x)
{
    const nb_served_model *m = nb_server_model(x->server, x->rest);
    if (!m) {
        nb_exchange_fail(x, 404, "model", "there is no model '%.128s'; GET /v1/models lists them", x->rest);
        return;
    }
    nb_emit e = nb_emit_start(&x->out, false);
    for (int k = 0; k < m->name_count; k++)
        if (!strcmp(m->names[k], x->rest)) emit_model(&e, x, m, k);
}

static bool all_healthy(const nb_exchange *x)
{
    for (int i = 0; i < x->options->model_count; i++)
        if (!nb_service_healthy(x->options->models[i].service)) return false;
    return true;
}

static void health(nb_exchange *x)
{
    bool ok = all_healthy(x) && !nb_server_is_draining(x->server);
    if (!ok) {
        nb_exchange_fail(x, 503, "", nb_server_is_draining(x->server) ? "the server is shutting down" : "an engine failed");
        x->error.retry_after_s = 5;
        return;
    }
    nb_buf_str(&x->out, "{\"status\":\"ok\"}\n");
}

static void version(nb_exchange *x)
{
    nb_buf_str(&x->out, "{\"version\":\"" NIBBLE_VERSION "\"}\n");
}

static void metrics(nb_exchange *x)
{
    if (!x->options->metrics) {
        nb_exchange_fail(x, 501, "", "metrics are off; start the server without --no-metrics");
        return;
    }
    x->content_type = "text/plain; version=0.0.4; charset=utf-8";
    for (int i = 0; i < x->options->model_count; i++) {
        const nb_served_model *m = &x->options->models[i];
        nb_service_load l = nb_service_look(m->service);
        nb_gauges g = {.running = l.running, .waiting = l.queued + l.preparing + l.waiting,
                       .kv_usage = l.engine.pages.max ? (double)l.engine.pages.held / (double)l.engine.pages.max : 0,
                       .prefix_queries = l.engine.prefix_queries, .prefix_hits = l.engine.prefix_hits, .vision_queries = l.vision.queries,
                       .vision_hits = l.vision.hits, .preemptions = l.engine.preemptions, .steps = l.engine.steps,
                       .vision_bytes = l.vision.bytes};
        nb_metrics_print(m->metrics, &g, x->options->metrics_vllm, &x->out);
    }
    nb_http_counts_print(nb_server_http_counts(x->server), &x->out);
    nb_process_print(&x->out, nb_server_started(x->server));
}

/* What the page's live panel shows, and anybody's scripts may. */
static void slots(nb_exchange *x)
{
    if (!x->options->slots) {
        nb_exchange_fail(x, 501, "", "this is off; start the server without --no-slots");
        return;
    }
    nb_emit e = nb_emit_start(&x->out, false);
    nb_emit_open(&e, NULL, '{');
    nb_emit_open(&e, "models", '[');
    for (int i = 0; i < x->options->model_count; i++) {
        const nb_served_model *m = &x->options->models[i];
        nb_service_load l = nb_service_look(m->service);
        nb_emit_open(&e, NULL, '{');
        nb_emit_string(&e, "model", m->names[0]);
        nb_emit_int(&e, "running", l.running);
        nb_emit_int(&e, "waiting", l.waiting);
        nb_emit_int(&e, "preparing", l.preparing);
        nb_emit_int(&e, "queued", l.queued);
        nb_emit_int(&e, "kv_pages", (int64_t)l.engine.pages.max);
        nb_emit_int(&e, "kv_pages_held", (int64_t)l.engine.pages.held);
        nb_emit_int(&e, "kv_pages_cached", (int64_t)l.engine.pages.cached);
        nb_emit_int(&e, "kv_bytes", (int64_t)(l.engine.pages.committed * l.engine.page_bytes));
        nb_emit_int(&e, "prefix_queries", (int64_t)l.engine.prefix_queries);
        nb_emit_int(&e, "prefix_hits", (int64_t)l.engine.prefix_hits);
        nb_emit_int(&e, "vision_queries", (int64_t)l.vision.queries);
        nb_emit_int(&e, "vision_hits", (int64_t)l.vision.hits);
        nb_emit_int(&e, "preemptions", (int64_t)l.engine.preemptions);
        nb_emit_int(&e, "steps", (int64_t)l.engine.steps);
        nb_emit_int(&e, "generated", (int64_t)nb_metrics_counter(m->metrics, NB_COUNT_GENERATION_TOKENS));
        nb_emit_close(&e);
    }
    nb_emit_close(&e);
    nb_emit_close(&e);
}

/* What a client needs to ask well: limits, sampling defaults, how pixels become tokens. */
static void props(nb_exchange *x)
{
    nb_emit e = nb_emit_start(&x->out, false);
    nb_emit_open(&e, NULL, '{');
    nb_emit_string(&e, "version", NIBBLE_VERSION);
    nb_emit_open(&e, "models", '[');
    for (int i = 0; i < x->options->model_count; i++) {
        const nb_served_model    *m = &x->options->models[i];
        const nb_service_options *o = nb_service_settings(m->service);
        const nb_model           *model = nb_service_model(m->service);
        nb_sampling               s = nb_sampling_default(&model->generation);
        nb_emit_open(&e, NULL, '{');
        nb_emit_string(&e, "model", m->names[0]);
        nb_emit_string(&e, "system_fingerprint", m->fingerprint);
        nb_emit_int(&e, "max_model_len", (int64_t)o->max_model_len);
        nb_emit_int(&e, "max_images", o->max_images);
        nb_emit_int(&e, "max_videos", o->max_videos);
        nb_emit_int(&e, "min_pixels", o->limits.min_pixels ? o->limits.min_pixels : model->processor.min_pixels);
        nb_emit_int(&e, "max_pixels", o->limits.max_pixels ? o->limits.max_pixels : model->processor.max_pixels);
        nb_emit_int(&e, "pixels_per_token", (int64_t)model->processor.patch * model->processor.patch * model->processor.merge * model->processor.merge);
        nb_emit_number(&e, "temperature", s.greedy ? 0 : s.temperature);
        nb_emit_number(&e, "top_p", s.top_p);
        nb_emit_int(&e, "top_k", s.top_k);
        nb_emit_number(&e, "repetition_penalty", s.repetition_penalty);
        nb_emit_close(&e);
    }
    nb_emit_close(&e);
    nb_emit_close(&e);
}

static void page(nb_exchange *x)
{
    if (!x->options->webui) {
        nb_exchange_fail(x, 404, "", "the page is off (--no-webui); the API is under /v1");
        return;
    }
    x->content_type = "text/html; charset=utf-8";
    nb_buf_add(&x->out, nb_page_html, nb_page_size);
}

const nb_route nb_routes[] = {
    {"/", "GET", false, page},
    {"/health", "GET", true, health},
    {"/ready", "GET", true, health},
    {"/ping", "GET", true, health},
    {"/version", "GET", false, version},
    {"/metrics", "GET", false, metrics},
    {"/props", "GET", false, props},
    {"/slots", "GET", false, slots},
    {"/v1/models", "GET", false, models},
    {"/models", "GET", false, models},
    {"/v1/models/", "GET", false, one_model},
    {"/v1/chat/completions", "POST", false, chat_completions},
    {"/chat/completions", "POST", false, chat_completions},
    {"/v1/completions", "POST", false, completions},
    {"/completions", "POST", false, completions},
    {"/tokenize", "POST", false, tokenize},
    {"/detokenize", "POST", false, detokenize},
    {"/apply-template", "POST", false, apply_template},
};
const size_t nb_route_count = NB_COUNT(nb_routes);
