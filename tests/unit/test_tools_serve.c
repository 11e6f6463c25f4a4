/* test_tools_serve.c - the server from outside, over sockets: forms of requests and refusals, streams, keys, abuse, deadlines, clients
 * that hang up; and the scanner of tool calls from inside. */
#include <pthread.h>

#include "http_client.h"
#include "runtime/io/file.h"
#include "tools/serve/server.h"
#include "tools/serve/tool_calls.h"

#define MODEL unit_path("tools/demo/model")
#define ASK "{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}], \"max_tokens\": 8, \"temperature\": 0"

static nb_pool        *pool;
static nb_model       *model;
static nb_server      *server;
static nb_served_model served;
static const char     *names[] = {"demo", "other-name"}, *keys[] = {"secret-1", "secret-2"}, *origins[] = {"https://page.example"};

static nb_service_options service_options(void)
{
    nb_service_options o = {.engine = {.max_tokens = 4096, .mixed_chunk = 32, .max_sequences = 8, .kv_type = NB_BF16, .prefix_cache = true,
                                       .overcommit = true},
                            .vision_cache_bytes = 1 << 20, .max_queue = 64, .max_images = 4, .max_videos = 1, .draft = 4};
    o.media.offline = true;
    return o;
}

static void start(nb_service_options o, nb_server_options so)
{
    nb_error err;
    OK(nb_metrics_new(&served.metrics, "demo", &err), &err);
    OK(nb_service_start(&served.service, model, &o, served.metrics, &err), &err);
    served.names = names;
    served.name_count = 2;
    so.models = &served;
    so.model_count = 1;
    so.metrics = so.webui = so.slots = true;
    OK(nb_server_start(&server, &so, &err), &err);
    http_port = nb_server_port(server);
}

static void stop(void)
{
    nb_service_stop(served.service, 5);
    nb_server_stop(server);
    nb_metrics_free(served.metrics);
}

static nb_service_load wait_idle(void)
{
    nb_service_load l;
    for (int i = 0; i < 500; i++) {
        l = nb_service_look(served.service);
        if (l.running + l.waiting + l.preparing + l.queued == 0 && l.engine.pages.held == 0) break;
        usleep(10000);
    }
    return l;
}

/* ---- tool calls ---------------------------------------------------------------------------------------------------------- */

/* "NAME(ARGUMENTS)..." of a text, content first; fed in one piece or byte by byte. */
static void scan(char *out, size_t size, const char *text, size_t piece)
{
    nb_tool_calls s = {0};
    size_t        n = strlen(text), used;
    for (size_t at = piece; at < n; at += piece) nb_tool_calls_update(&s, text, at, false);
    nb_tool_calls_update(&s, text, n, true);
    used = (size_t)snprintf(out, size, "%.*s|", (int)s.content_end, text);
    for (int i = 0; i < s.count; i++) {
        size_t      m;
        const char *a = nb_tool_call_arguments(&s.calls[i], text, &m);
        used += (size_t)snprintf(out + used, size - used, "%s(%.*s)", s.calls[i].name, (int)m, a);
    }
    nb_tool_calls_free(&s);
}

static void test_tool_scanner(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"no calls here", "no calls here|"},
        {"<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>", "|f({\"a\": 1})"},
        {"Let me see.\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n<tool_call>{\"name\": \"g\", \"arguments\": {\"x\": [1, {\"y\": \"}]\\\"\"}]}}</tool_call> bye",
         "Let me see.\n|f({})g({\"x\": [1, {\"y\": \"}]\\\"\"}]})"},
        {"<tool_call>{\"arguments\": {\"a\": \"\xC3\xA9\"}, \"name\": \"f\"}</tool_call>", "|f({\"a\": \"\xC3\xA9\"})"},
        {"<tool_call>{\"name\": \"f\"}</tool_call>", "|f({})"},
        {"<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>", "|f({\"a\": 1})"},
        {"<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}", "|f({\"a\": 1})"}, /* the closing tag was left out */
        {"<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": ", "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": |"},
        {"<tool_call>not json</tool_call>", "<tool_call>not json</tool_call>|"},
        {"<tool_call>{\"name\": 5, \"arguments\": {}}</tool_call>", "<tool_call>{\"name\": 5, \"arguments\": {}}</tool_call>|"},
        {"half a tag <tool_c", "half a tag <tool_c|"},
        {"</tool_call> alone", "</tool_call> alone|"},
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++)
        for (size_t piece = 1; piece < 200; piece = piece * 2 + 1) {
            char got[512];
            scan(got, sizeof got, cases[i].text, piece);
            assert_string_equal(got, cases[i].want);
        }
}

/* ---- requests ------------------------------------------------------------------------------------------------------------ */

static void test_requests(void **state)
{
    (void)state;
    static const struct {
        const char *path, *body;
        int         status;
        const char *says; /* part of the body */
    } cases[] = {
        {"/v1/chat/completions", ASK "}", 200, "\"object\": \"chat.completion\""},
        {"/chat/completions", ASK ", \"model\": \"other-name\"}", 200, "\"model\": \"demo\""},
        {"/v1/chat/completions", ASK ", \"n\": 3}", 200, "\"index\": 2"},
        {"/v1/chat/completions", ASK ", \"logprobs\": true, \"top_logprobs\": 2}", 200, "\"top_logprobs\": [{\"token\""},
        {"/v1/chat/completions", ASK ", \"stop\": [\"e\", \"a\"], \"seed\": 5}", 200, "\"finish_reason\": \"stop\""},
        {"/v1/chat/completions", ASK ", \"logit_bias\": {\"5\": -100}, \"user\": \"me\", \"unheard_of\": 1}", 200, "choices"},
        {"/v1/chat/completions", ASK ", \"min_tokens\": 8}", 200, "\"completion_tokens\": 8"},
        {"/v1/chat/completions", ASK ", \"response_format\": {\"type\": \"json_schema\", \"json_schema\": {\"name\": \"x\", \"schema\": {\"enum\": [\"q\"]}}}}", 200,
         "\"content\": \"\\\"q\\\"\""},
        {"/v1/chat/completions", ASK ", \"return_token_ids\": true}", 200, "\"prompt_token_ids\": ["},
        {"/v1/completions", "{\"prompt\": \"The\", \"max_tokens\": 4}", 200, "\"object\": \"text_completion\""},
        {"/v1/completions", "{\"prompt\": [40, 41, 42], \"max_tokens\": 2, \"echo\": true}", 200, "text"},
        {"/v1/completions", "{\"prompt\": \"x\", \"max_tokens\": 0}", 200, "\"finish_reason\": \"length\""},
        {"/tokenize", "{\"prompt\": \"Hello\"}", 200, "\"tokens\": ["},
        {"/tokenize", "{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}", 200, "\"count\":"},
        {"/detokenize", "{\"tokens\": [40, 41]}", 200, "\"prompt\":"},
        {"/apply-template", "{\"messages\": [{\"role\": \"user\", \"content\": \"<|im_end|>\"}]}", 200, "<|im_start|>user"},

        {"/v1/chat/completions", "", 400, "error"},
        {"/v1/chat/completions", "{", 400, "error"},
        {"/v1/chat/completions", "[]", 400, "JSON object"},
        {"/v1/chat/completions", "{} {}", 400, "error"},
        {"/v1/chat/completions", "{\"messages\": 5}", 400, "\"param\": \"messages\""},
        {"/v1/chat/completions", "{\"messages\": []}", 400, "at least one message"},
        {"/v1/chat/completions", "{\"messages\": [{\"role\": \"wizard\", \"content\": \"x\"}]}", 400, "wizard"},
        {"/v1/chat/completions", "{\"messages\": [{\"role\": \"user\", \"content\": 7}]}", 400, "messages[0]"},
        {"/v1/chat/completions", "{\"messages\": [{\"role\": \"user\", \"content\": null}]}", 400, "messages[0]"},
        {"/v1/chat/completions", ASK ", \"n\": 0}", 400, "n has to be"},
        {"/v1/chat/completions", ASK ", \"n\": 1000000000}", 400, "from 1 to 8"},
        {"/v1/chat/completions", "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"temperature\": -1}", 400, "from 0 to 2"},
        {"/v1/chat/completions", ASK ", \"temperature\": 1e308}", 400, "error"},
        {"/v1/chat/completions", ASK ", \"top_p\": \"x\"}", 400, "top_p"},
        {"/v1/chat/completions", ASK ", \"max_completion_tokens\": 1.5}", 400, "whole number"},
        {"/v1/chat/completions", ASK ", \"max_completion_tokens\": -1}", 400, "whole number"},
        {"/v1/chat/completions", ASK ", \"max_completion_tokens\": 2147483648}", 400, "whole number"},
        {"/v1/chat/completions", ASK ", \"max_completion_tokens\": 5000}", 400, "more than the context of"},
        {"/v1/chat/completions", ASK ", \"stop\": \"\"}", 400, "stop"},
        {"/v1/chat/completions", ASK ", \"stop\": [1]}", 400, "stop"},
        {"/v1/chat/completions", ASK ", \"logit_bias\": {\"-1\": 1}}", 400, "logit_bias"},
        {"/v1/chat/completions", ASK ", \"logit_bias\": {\"99999999\": 1}}", 400, "logit_bias"},
        {"/v1/chat/completions", ASK ", \"logit_bias\": {\"5\": 1000}}", 400, "-100 to 100"},
        {"/v1/chat/completions", ASK ", \"top_logprobs\": 3}", 400, "logprobs: true"},
        {"/v1/chat/completions", ASK ", \"stream_options\": {\"include_usage\": true}}", 400, "stream: true"},
        {"/v1/chat/completions", ASK ", \"stream\": \"yes\"}", 400, "true or false"},
        {"/v1/chat/completions", ASK ", \"seed\": 1e300}", 400, "seed"},
        {"/v1/chat/completions", ASK ", \"model\": \"nobody\"}", 404, "nobody"},
        {"/v1/chat/completions", ASK ", \"tools\": []}", 400, "tools"},
        {"/v1/chat/completions", ASK ", \"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"a b\"}}]}", 400, "name of 1 to 64"},
        {"/v1/chat/completions", ASK ", \"tool_choice\": \"required\"}", 400, "only for requests with tools"},
        {"/v1/chat/completions", ASK ", \"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\"}}], \"tool_choice\": {\"type\": \"function\", \"function\": {\"name\": \"g\"}}}",
         400, "does not have"},
        {"/v1/chat/completions", ASK ", \"response_format\": {\"type\": \"json_schema\"}}", 400, "needs a schema"},
        {"/v1/chat/completions", ASK ", \"response_format\": {\"type\": \"yaml\"}}", 400, "json_object"},
        {"/v1/chat/completions", ASK ", \"guided_regex\": \"(\"}", 400, "pattern"},
        {"/v1/chat/completions", ASK ", \"guided_json\": {\"$ref\": \"#/x\"}}", 400, "leads nowhere"},
        {"/v1/chat/completions", "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image_url\", \"image_url\": {\"url\": \"file:///etc/passwd\"}}]}]}", 400,
         "local files"},
        {"/v1/chat/completions", "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image\", \"image\": \"/etc/passwd\"}]}]}", 400, "local files"},
        {"/v1/chat/completions", "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image_url\", \"image_url\": {\"url\": \"http://x.example/a.png\"}}]}]}", 400,
         "offline"},
        {"/v1/chat/completions", "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image_url\", \"image_url\": {\"url\": \"data:image/png;base64,AAAA\"}}]}]}", 422,
         "messages[0].content[0]"},
        {"/v1/completions", "{\"prompt\": []}", 400, "empty"},
        {"/v1/completions", "{\"prompt\": [1.5]}", 400, "token ids"},
        {"/v1/completions", "{\"prompt\": {}}", 400, "prompt"},
        {"/detokenize", "{\"tokens\": [-1]}", 400, "whole number"},
        {"/v1/nothing", "{}", 404, "nothing at this path"},
        {"/health", "{}", 405, "does not take"},
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        http_answer a = http_ask("POST", cases[i].path, "", cases[i].body);
        if (a.status != cases[i].status || !a.body.data || !strstr(a.body.data, cases[i].says))
            fail_msg("%s %s: status %d (expected %d), body %s (expected to hold %s)", cases[i].path, cases[i].body, a.status, cases[i].status,
                     a.body.data, cases[i].says);
        cJSON *o = http_json(&a);
        if (a.status >= 400) {
            const cJSON *e = nb_json_find(o, "error");
            assert_true(cJSON_IsString(nb_json_find(e, "message")) && cJSON_IsString(nb_json_find(e, "type")));
            assert_int_equal(nb_json_find(e, "code")->valueint, a.status);
        }
        cJSON_Delete(o);
        http_answer_free(&a);
    }
    static const char odd[] = ASK ", \"unheard_of\": 1, \"other\": 2}";
    uint64_t          bytes = nb_metrics_counter(served.metrics, NB_COUNT_REQUEST_BYTES);
    http_answer       ignored = http_ask("POST", "/v1/chat/completions", "", odd);
    assert_int_equal(nb_metrics_counter(served.metrics, NB_COUNT_REQUEST_BYTES) - bytes, strlen(odd));
    assert_non_null(strstr(ignored.head.data, "X-Nibble-Ignored: unheard_of,other"));
    http_answer_free(&ignored);
}

static void test_pages(void **state)
{
    (void)state;
    static const struct {
        const char *path, *says;
    } cases[] = {{"/", "<!doctype html>"}, {"/health", "ok"}, {"/ready", "ok"}, {"/version", "version"}, {"/v1/models", "other-name"},
                 {"/v1/models/other-name", "\"id\": \"other-name\""}, {"/metrics", "nibble:num_requests_running{model_name=\"demo\"} 0"},
                 {"/props", "max_model_len"}, {"/slots", "kv_pages"}};
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        http_answer a = http_ask("GET", cases[i].path, "", NULL);
        assert_int_equal(a.status, 200);
        if (!strstr(a.body.data, cases[i].says)) fail_msg("%s: %s", cases[i].path, a.body.data);
        if (i == 0) assert_non_null(strstr(a.head.data, "script-src 'sha256-"));
        http_answer_free(&a);
        a = http_ask("HEAD", cases[i].path, "", NULL);
        assert_int_equal(a.status, 200);
        assert_int_equal(a.body.size, 0);
        http_answer_free(&a);
    }
    assert_int_equal(http_status("GET", "/v1/models/none", "", NULL), 404);
    assert_int_equal(http_status("OPTIONS", "/v1/models", "", NULL), 403);
}

/* ---- streams ------------------------------------------------------------------------------------------------------------- */

/* Put together what a stream says; counts its [DONE]. */
static void join_stream(nb_buf *content, nb_buf *calls, char reason[32], int *done, const http_answer *a)
{
    *done = 0;
    reason[0] = 0;
    for (const char *line = a->body.data; line && *line;) {
        const char *end = strchr(line, '\n');
        nb_error    err;
        cJSON      *o;
        assert_non_null(end);
        if (!strncmp(line, "data: [DONE]", 12)) ++*done;
        if (!strncmp(line, "data: {", 7)) {
            OK(nb_json_parse(&o, line + 6, (size_t)(end - line) - 6, "an event", &err), &err);
            const cJSON *choice = nb_json_find(o, "choices")->child, *delta = choice ? nb_json_find(choice, "delta") : NULL;
            const cJSON *text = delta ? nb_json_find(delta, "content") : NULL, *call = delta ? nb_json_find(delta, "tool_calls") : NULL;
            if (text) nb_buf_str(content, text->valuestring);
            for (const cJSON *c = call ? call->child : NULL; c; c = c->next) nb_buf_str(calls, nb_json_find(nb_json_find(c, "function"), "arguments")->valuestring);
            const cJSON *why = choice ? nb_json_find(choice, "finish_reason") : NULL;
            if (why) snprintf(reason, 32, "%s", why->valuestring);
            cJSON_Delete(o);
        }
        line = end + 1;
    }
}

static void test_stream_equals_whole(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "\"messages\": [{\"role\": \"user\", \"content\": \"Tell me about the \xC3\xA9t\xC3\xA9 \xF0\x9F\x98\x80 \xE4\xB8\xAD\"}], \"max_tokens\": 60, \"seed\": 1, \"temperature\": 1.3, \"top_k\": 0",
        "\"messages\": [{\"role\": \"user\", \"content\": \"Count\"}], \"max_tokens\": 40, \"seed\": 2, \"temperature\": 1, \"stop\": [\" the\", \"xyz\"]",
        "\"messages\": [{\"role\": \"user\", \"content\": \"What is the date?\"}], \"max_tokens\": 150, \"temperature\": 0, \"tool_choice\": \"required\", \"parallel_tool_calls\": false, \"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"date\", \"parameters\": {\"type\": \"object\", \"properties\": {\"zone\": {\"enum\": [\"UTC\", \"CET\"]}}, \"required\": [\"zone\"]}}}]",
    };
    for (size_t i = 0; i < NB_COUNT(bodies); i++) {
        nb_buf body = {0}, content = {0}, calls = {0};
        char   reason[32];
        int    done;
        nb_buf_printf(&body, "{%s}", bodies[i]);
        http_answer whole = http_ask("POST", "/v1/chat/completions", "", body.data);
        nb_buf_clear(&body);
        nb_buf_printf(&body, "{%s, \"stream\": true, \"stream_options\": {\"include_usage\": true}}", bodies[i]);
        http_answer stream = http_ask("POST", "/v1/chat/completions", "", body.data);
        assert_int_equal(whole.status, 200);
        assert_int_equal(stream.status, 200);
        join_stream(&content, &calls, reason, &done, &stream);
        cJSON       *o = http_json(&whole);
        const cJSON *choice = nb_json_find(o, "choices")->child, *message = nb_json_find(choice, "message"), *text = nb_json_find(message, "content");
        assert_int_equal(done, 1);
        assert_string_equal(content.data ? content.data : "", text ? text->valuestring : "");
        assert_string_equal(reason, nb_json_find(choice, "finish_reason")->valuestring);
        if (i == 2) {
            assert_string_equal(reason, "tool_calls");
            assert_string_equal(calls.data, nb_json_find(nb_json_find(nb_json_find(message, "tool_calls")->child, "function"), "arguments")->valuestring);
        }
        cJSON_Delete(o);
        nb_buf_free(&body);
        nb_buf_free(&content);
        nb_buf_free(&calls);
        http_answer_free(&whole);
        http_answer_free(&stream);
    }
}

/* ---- many, and gone ------------------------------------------------------------------------------------------------------ */

typedef struct {
    int  number;
    char text[4096];
} asker;

static void *ask_one(void *context)
{
    asker *a = context;
    char   body[512];
    snprintf(body, sizeof body, "{\"messages\": [{\"role\": \"user\", \"content\": \"Question %d, please\"}], \"max_tokens\": 24, \"seed\": %d, \"temperature\": 0.9, \"top_k\": 0}",
             a->number % 4, a->number % 4);
    http_answer answer = http_ask("POST", "/v1/chat/completions", "", body);
    const char *content = answer.status == 200 ? strstr(answer.body.data, "\"content\": ") : NULL;
    snprintf(a->text, sizeof a->text, "%s", content ? content : "none");
    char *end = strstr(a->text, "\"refusal\"");
    if (end) *end = 0;
    http_answer_free(&answer);
    return NULL;
}

/* The same question with the same seed has the same answer alone and among others. */
static void test_company(void **state)
{
    (void)state;
    pthread_t threads[16];
    asker     askers[16], alone[4];
    for (int i = 0; i < 4; i++) {
        alone[i].number = i;
        ask_one(&alone[i]);
    }
    for (int i = 0; i < 16; i++) {
        askers[i].number = i;
        pthread_create(&threads[i], NULL, ask_one, &askers[i]);
    }
    for (int i = 0; i < 16; i++) {
        pthread_join(threads[i], NULL);
        assert_string_not_equal(askers[i].text, "none");
        assert_string_equal(askers[i].text, alone[i % 4].text);
    }
}

/* Clients that hang up at random moments leave nothing behind, and are counted. */
static void test_aborts(void **state)
{
    (void)state;
    uint64_t seed = 11;
    for (int i = 0; i < 60; i++) {
        char body[256], request[512];
        int  fd = http_connect();
        snprintf(body, sizeof body, "{\"messages\": [{\"role\": \"user\", \"content\": \"Tell a story %d\"}], \"max_tokens\": 3000, \"ignore_eos\": true, \"stream\": %s}", i,
                 i % 2 ? "true" : "false");
        int n = snprintf(request, sizeof request, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                         strlen(body), body);
        http_send(fd, request, (size_t)n - (i % 10 == 9 ? 5 : 0)); /* some in the middle of their body */
        usleep(unit_random(&seed) % 30000);
        close(fd);
    }
    nb_service_load l = wait_idle();
    assert_int_equal(l.running + l.waiting + l.preparing + l.queued, 0);
    assert_int_equal(l.engine.pages.held, 0);
    uint64_t ended = 0;
    for (int o = 0; o < NB_OUTCOMES; o++) ended += nb_metrics_outcomes(served.metrics, (nb_outcome)o);
    assert_int_equal(ended, nb_metrics_counter(served.metrics, NB_COUNT_ACCEPTED));
    assert_true(nb_metrics_outcomes(served.metrics, NB_OUTCOME_ABORT) > 40);
    assert_int_equal(http_status("POST", "/v1/chat/completions", "", ASK "}"), 200);
}

/* ---- abuse --------------------------------------------------------------------------------------------------------------- */

static int raw(const char *bytes, size_t n)
{
    int fd = http_connect();
    http_send(fd, bytes, n);
    shutdown(fd, SHUT_WR);
    nb_buf      all = http_read_all(fd, 5);
    http_answer a = http_split(&all);
    int         status = a.status;
    close(fd);
    http_answer_free(&a);
    return status;
}

static void test_abuse(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int         low, high; /* status; 0: closed without one */
    } cases[] = {
        {"GARBAGE\r\n\r\n", 0, 499},
        {"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 0, 505},
        {"CONNECT example.com:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", 0, 499},
        {"GET /health HTTP/1.1\r\n\r\n", 0, 499},
        {"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: abc\r\n\r\n", 0, 499},
        {"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n", 0, 499},
        {"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n", 0, 499},
        {"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", 0, 499},
        {"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", 415, 415},
        {"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", 415, 415},
        {"DELETE /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, 405},
        {"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, 404},
        {"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403, 403},
        {"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", 403, 403},
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        int status = raw(cases[i].text, strlen(cases[i].text));
        if (status && (status < cases[i].low || status > cases[i].high || status < 400)) fail_msg("%s: status %d", cases[i].text, status);
        if (!status && cases[i].low) fail_msg("%s: no answer", cases[i].text);
    }
    nb_buf big = {0};
    nb_buf_str(&big, "GET /health HTTP/1.1\r\nHost: localhost\r\n");
    for (int i = 0; i < 10000; i++) nb_buf_printf(&big, "X-H%d: v\r\n", i);
    nb_buf_str(&big, "\r\n");
    int status = raw(big.data, big.size);
    assert_true(status == 0 || (status >= 400 && status < 500));
    nb_buf_clear(&big);
    nb_buf_str(&big, "GET /");
    for (int i = 0; i < 1000000; i++) nb_buf_char(&big, 'a');
    nb_buf_str(&big, " HTTP/1.1\r\nHost: localhost\r\n\r\n");
    status = raw(big.data, big.size);
    assert_true(status == 0 || (status >= 400 && status < 500));
    /* A body at the limit, beyond it, and beyond it without saying so. */
    nb_buf_clear(&big);
    nb_buf_str(&big, "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 60; i++) {
        nb_buf_str(&big, "1000\r\n");
        for (int k = 0; k < 4096; k++) nb_buf_char(&big, ' ');
        nb_buf_str(&big, "\r\n");
    }
    nb_buf_str(&big, "0\r\n\r\n");
    assert_int_equal(raw(big.data, big.size), 413);
    nb_buf_clear(&big);
    nb_buf_str(&big, "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 70000\r\n\r\n");
    assert_int_equal(raw(big.data, big.size), 413);
    nb_buf_free(&big);
    assert_int_equal(http_status("GET", "/health", "", NULL), 200);
}

/* One byte at a time, headers or body: closed at its deadline, whatever comes in between. */
static void test_slow_client(void **state)
{
    (void)state;
    for (int body = 0; body < 2; body++) {
        const char *begin = body ? "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n" : "GET /health HTTP/1.1\r\n";
        double      start = nb_seconds();
        int         fd = http_connect();
        bool        closed = false;
        http_send(fd, begin, strlen(begin));
        while (!closed && nb_seconds() - start < 6) {
            struct pollfd p = {.fd = fd, .events = POLLIN | POLLRDHUP};
            char          byte;
            http_send(fd, "x", 1);
            if (poll(&p, 1, 100) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR) || recv(fd, &byte, 1, 0) == 0)) closed = true;
        }
        assert_true(closed);
        NEAR(nb_seconds() - start, 1, 1);
        close(fd);
    }
}

/* ---- who may ------------------------------------------------------------------------------------------------------------- */

static void test_keys(void **state)
{
    (void)state;
    stop();
    start(service_options(), (nb_server_options){.api_keys = keys, .api_key_count = 2, .cors_origins = origins, .cors_count = 1});
    assert_int_equal(http_status("GET", "/health", "", NULL), 200);
    static const char *const guarded[] = {"/", "/v1/models", "/metrics", "/version", "/props", "/slots", "/nothing"};
    for (size_t i = 0; i < NB_COUNT(guarded); i++) {
        assert_int_equal(http_status("GET", guarded[i], "", NULL), 401);
        assert_int_equal(http_status("GET", guarded[i], "Authorization: Bearer secret-3\r\n", NULL), 401);
        assert_int_equal(http_status("GET", guarded[i], "Authorization: Bearer secret-2\r\n", NULL), i == NB_COUNT(guarded) - 1 ? 404 : 200);
    }
    assert_int_equal(http_status("GET", "/", "Authorization: Basic OnNlY3JldC0x\r\n", NULL), 200); /* ":secret-1" */
    assert_int_equal(http_status("POST", "/v1/chat/completions", "", ASK "}"), 401);
    assert_int_equal(http_status("POST", "/v1/chat/completions", "Authorization: bearer secret-1\r\n", ASK "}"), 200);
    http_answer a = http_ask("OPTIONS", "/v1/chat/completions", "Origin: https://page.example\r\n", NULL);
    assert_int_equal(a.status, 204);
    assert_non_null(strstr(a.head.data, "Access-Control-Allow-Origin: https://page.example"));
    http_answer_free(&a);
    assert_int_equal(http_status("OPTIONS", "/v1/chat/completions", "Origin: https://evil.example\r\n", NULL), 403);
    stop();
    start(service_options(), (nb_server_options){.max_body = 65536, .header_timeout_s = 1, .body_timeout_s = 1});
}

/* A full queue refuses at once and says when to come again; a request that takes too long ends with 504. */
static void test_limits(void **state)
{
    (void)state;
    nb_service_options o = service_options();
    char               body[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"Story\"}], \"max_tokens\": 4000, \"ignore_eos\": true}", request[512];
    int                fds[3], n;
    stop();
    o.max_queue = 3;
    o.request_timeout_s = 1;
    start(o, (nb_server_options){0});
    n = snprintf(request, sizeof request, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
    for (int i = 0; i < 3; i++) {
        fds[i] = http_connect();
        http_send(fds[i], request, (size_t)n);
    }
    for (int i = 0; i < 100; i++) {
        nb_service_load l = nb_service_look(served.service);
        if (nb_metrics_counter(served.metrics, NB_COUNT_ACCEPTED) == 3 && l.queued == 0) break;
        usleep(5000);
    }
    http_answer full = http_ask("POST", "/v1/chat/completions", "", ASK "}");
    assert_int_equal(full.status, 503);
    assert_non_null(strstr(full.head.data, "Retry-After: "));
    http_answer_free(&full);
    for (int i = 0; i < 3; i++) {
        nb_buf      all = http_read_all(fds[i], 20);
        http_answer a = http_split(&all);
        assert_true(a.status == 504 || a.status == 200); /* 200: a fast machine */
        http_answer_free(&a);
        close(fds[i]);
    }
    wait_idle();
    assert_int_equal(http_status("POST", "/v1/chat/completions", "", ASK "}"), 200);
    nb_server_draining(server);
    assert_int_equal(http_status("GET", "/health", "", NULL), 503);
    stop();
    start(service_options(), (nb_server_options){.max_body = 65536, .header_timeout_s = 1, .body_timeout_s = 1});
}

static int set_up(void **state)
{
    (void)state;
    nb_error err;
    nb_ops   ops;
    if (nb_pool_new(&pool, 2, NULL)) return 1;
    nb_ops_init(&ops, nb_isa_detect(NB_ISA_LEVELS - 1), pool);
    OK(nb_model_open(&model, MODEL, &ops, 0, &err), &err);
    start(service_options(), (nb_server_options){.max_body = 65536, .header_timeout_s = 1, .body_timeout_s = 1});
    return 0;
}
static int tear_down(void **state)
{
    (void)state;
    stop();
    nb_model_close(model);
    nb_pool_free(pool);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tool_scanner), cmocka_unit_test(test_requests), cmocka_unit_test(test_pages),
        cmocka_unit_test(test_stream_equals_whole), cmocka_unit_test(test_company), cmocka_unit_test(test_aborts),
        cmocka_unit_test(test_abuse), cmocka_unit_test(test_slow_client), cmocka_unit_test(test_keys), cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
