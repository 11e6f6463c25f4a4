/* test_tools_client.c - calls to a server: eval --url against a server of our own gives the answers of eval; keys; what is tried again
 * and what is not, against a server that misbehaves on purpose. */
#include "program.h"
#include "temp_files.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <sys/socket.h>

#include "tools/client/api.h"
#include "tools/client/body.h"
#include "tools/serve/server.h"

static char model_dir[300], task[400];

/* ---- a server of our own -------------------------------------------------------------------------------------------------- */

static void test_eval(void **state)
{
    (void)state;
    static const char *const names[] = { "demo" }, *const keys[] = { "sesame" };
    nb_error           err;
    nb_pool           *pool;
    nb_ops             ops;
    nb_isa             isa;
    nb_model          *model;
    nb_server         *server;
    nb_served_model    served = { .names = names, .name_count = 1 };
    nb_service_options o = { .engine = { .max_tokens = 8192, .max_sequences = 8, .kv_type = NB_BF16, .prefix_cache = true, .overcommit = true },
                             .vision_cache_bytes = 1 << 24, .max_queue = 64, .max_images = 4 };
    OK(nb_pool_new(&pool, 2, &err), &err);
    OK(nb_isa_from_environment(&isa, &err), &err);
    nb_ops_init(&ops, isa, pool);
    OK(nb_model_open(&model, model_dir, &ops, 0, &err), &err);
    OK(nb_metrics_new(&served.metrics, "demo", &err), &err);
    OK(nb_service_start(&served.service, model, &o, served.metrics, &err), &err);
    OK(nb_server_start(&server, &(nb_server_options){ .models = &served, .model_count = 1, .api_keys = keys, .api_key_count = 1 }, &err), &err);
    char url[64], log[300];
    snprintf(url, sizeof url, "http://127.0.0.1:%d", nb_server_port(server));
    snprintf(log, sizeof log, "%s", write_file("log.jsonl", ""));
    remove(log);
    const char *key = write_file("key", "  sesame\nsecond line\n");
    assert_int_not_equal(RUN("eval", "demo", "--url", url, "--tasks", task, "--limit", "9", "-q"), 0); /* without the key */
    holds(printed[1], "401");
    snprintf(url + strlen(url), sizeof url - strlen(url), "/v1/"); /* however the address is written */
    ENDS(0, "eval", "demo", "--url", url, "--tasks", task, "--limit", "9", "-q", "--api-key-file", key, "--log-samples", log, "-np", "4");
    holds(printed[0], "served");
    /* the same rows here, compared with that log question by question: no difference */
    ENDS(0, "eval", model_dir, "--tasks", task, "--limit", "9", "-q", "--baseline", log, "--json");
    cJSON       *report = printed_json();
    const cJSON *paired = nb_json_find(nb_json_find(nb_json_find(cJSON_GetArrayItem(nb_json_find(report, "models"), 0), "tasks"), "demo_docvqa"), "paired");
    assert_int_equal(cJSON_GetObjectItem(paired, "lost")->valueint, 0);
    assert_int_equal(cJSON_GetObjectItem(paired, "gained")->valueint, 0);
    cJSON_Delete(report);
    assert_int_equal(RUN("eval", "no-such-model", "--url", url, "--tasks", task, "--limit", "2", "-q", "--api-key-file", key), 5);
    holds(printed[1], "404");
    ENDS(2, "eval", "demo", "--url", url, "--tasks", task, "--text", "x", "-q");
    nb_service_stop(served.service, 1);
    nb_server_stop(server);
    nb_metrics_free(served.metrics);
    nb_model_close(model);
    nb_pool_free(pool);
}

/* ---- a server that misbehaves ---------------------------------------------------------------------------------------------- */

static const char *script[16]; /* one reply a connection; NULL ends */
static int         listener, heard;
static char        request[8192]; /* the last one */

static void *misbehave(void *unused)
{
    (void)unused;
    for (; script[heard]; heard++) {
        int    fd = accept(listener, NULL, NULL);
        if (fd < 0) break; /* enough */
        size_t n = 0;
        for (ssize_t k; n + 1 < sizeof request && (k = recv(fd, request + n, sizeof request - 1 - n, 0)) > 0;) {
            n += (size_t)k;
            request[n] = 0;
            const char *body = strstr(request, "\r\n\r\n"), *length = strcasestr(request, "content-length:");
            if (body && length && strlen(body + 4) >= strtoul(length + 15, NULL, 10)) break;
        }
        ssize_t sent = send(fd, script[heard], strlen(script[heard]), MSG_NOSIGNAL);
        (void)sent; /* the client may have gone */
        close(fd);
    }
    return NULL;
}

#define REPLY(status, body) "HTTP/1.1 " status "\r\nConnection: close\r\n\r\n" body
#define GOOD REPLY("200 OK", "{\"choices\": [{\"message\": {\"content\": \"hello\"}, \"finish_reason\": \"stop\"}]}")

/* The result of one post whose tries meet the replies in turn. */
static nb_status post(const char *const *replies, nb_buf *said, nb_error *err)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t          size = sizeof a;
    pthread_t          thread;
    char               url[64];
    nb_buf             body = { 0 };
    nb_api_connection *c;
    cJSON             *reply;
    heard = 0;
    memset(script, 0, sizeof script);
    for (int i = 0; replies[i]; i++) script[i] = replies[i];
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(listener, 4), 0);
    getsockname(listener, (struct sockaddr *)&a, &size);
    snprintf(url, sizeof url, "http://127.0.0.1:%d", ntohs(a.sin_port));
    pthread_create(&thread, NULL, misbehave, NULL);
    nb_api api = { .url = url, .key = "k1", .timeout_s = 5, .retries = 3, .wait_s = 0.01 };
    OK(nb_api_connect(&c, &api, err), err);
    nb_buf_str(&body, "{\"x\": 1}");
    nb_status status = nb_api_post(c, "/chat/completions", &body, &reply, err);
    if (status == NB_OK) nb_buf_str(said, nb_api_text(reply) ? nb_api_text(reply) : "nothing");
    cJSON_Delete(reply);
    nb_buf_free(&body);
    nb_api_close(c);
    shutdown(listener, SHUT_RDWR);
    pthread_join(thread, NULL);
    close(listener);
    return status;
}

static void test_tries(void **state)
{
    (void)state;
    const struct {
        const char *replies[6];
        nb_status   status;
        int         tries;
        const char *says;
    } cases[] = {
        { { GOOD }, NB_OK, 1, "hello" },
        { { REPLY("503 Busy", "{\"error\": {\"message\": \"later\"}}"), REPLY("429 Many", ""), GOOD }, NB_OK, 3, "hello" },
        { { "", GOOD }, NB_OK, 2, "hello" }, /* hung up without a word */
        { { "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{\"cho", GOOD }, NB_OK, 2, "hello" },
        { { REPLY("400 Bad", "{\"error\": {\"message\": \"too long by 7\"}}"), GOOD }, NB_ERR_INPUT, 1, "400: too long by 7" },
        { { REPLY("401 No", "{\"detail\": \"who are you\"}"), GOOD }, NB_ERR_IO, 1, "401: who are you" },
        { { REPLY("302 There", ""), GOOD }, NB_ERR_IO, 1, "302" }, /* a key is not carried elsewhere */
        { { REPLY("500 Oh", "<html>"), REPLY("500 Oh", "<html>"), REPLY("500 Oh", "<html>"), REPLY("500 Oh", "<html>"), GOOD }, NB_ERR_IO, 4, "500: <html>" },
        { { REPLY("200 OK", "not json"), GOOD }, NB_ERR_INPUT, 1, "line 1" },
        { { REPLY("200 OK", "{\"choices\": []}") }, NB_OK, 1, "nothing" },
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        nb_error err = { 0 };
        nb_buf   said = { 0 };
        assert_int_equal(post(cases[i].replies, &said, &err), cases[i].status);
        if (!strstr(cases[i].status == NB_OK ? said.data : err.text, cases[i].says)) fail_msg("case %zu: '%s' '%s'", i, said.data ? said.data : "", err.text);
        if (heard != cases[i].tries && heard + 1 != cases[i].tries) fail_msg("case %zu: %d tries", i, heard); /* the last may not be counted yet */
        holds(request, "POST /v1/chat/completions HTTP/1.1");
        holds(request, "Authorization: Bearer k1");
        holds(request, "{\"x\": 1}");
        nb_buf_free(&said);
    }
    nb_error           err;
    nb_api_connection *c;
    cJSON             *reply;
    nb_buf             body = { 0 };
    nb_api             file = { .url = "file:///etc/passwd", .retries = 2, .wait_s = 0.01 };
    nb_buf_str(&body, "{}");
    OK(nb_api_connect(&c, &file, &err), &err);
    assert_int_equal(nb_api_post(c, "/x", &body, &reply, &err), NB_ERR_IO);
    nb_api_close(c);
    nb_buf_free(&body);
}

static void test_body(void **state)
{
    (void)state;
    nb_error    err;
    nb_chat     chat = { 0 };
    nb_message *m;
    nb_buf      out = { 0 };
    OK(nb_chat_add_message(&chat, "user", &m, &err), &err);
    OK(nb_chat_add_part(m, &(nb_part){ .kind = NB_PART_IMAGE, .text = "data:image;base64,/9j/AA" }, &err), &err);
    OK(nb_chat_add_part(m, &(nb_part){ .kind = NB_PART_IMAGE, .text = "data:image;base64,iVBORw" }, &err), &err);
    OK(nb_chat_add_part(m, &(nb_part){ .kind = NB_PART_IMAGE, .text = "http://example.com/a.png" }, &err), &err);
    OK(nb_chat_add_part(m, &(nb_part){ .kind = NB_PART_TEXT, .text = "a \"b\"\n" }, &err), &err);
    OK(nb_api_chat_body(&out, &chat, &(nb_api_ask){ .model = "m", .max_tokens = 5, .max_pixels = 784 }, &err), &err);
    assert_string_equal(out.data,
        "{\"model\": \"m\", \"max_tokens\": 5, \"temperature\": 0, \"mm_processor_kwargs\": {\"max_pixels\": 784}, \"messages\": [{\"role\": \"user\", "
        "\"content\": [{\"type\": \"image_url\", \"image_url\": {\"url\": \"data:image/jpeg;base64,/9j/AA\"}}, {\"type\": \"image_url\", \"image_url\": "
        "{\"url\": \"data:image/png;base64,iVBORw\"}}, {\"type\": \"image_url\", \"image_url\": {\"url\": \"http://example.com/a.png\"}}, "
        "{\"type\": \"text\", \"text\": \"a \\\"b\\\"\\n\"}]}]}\n");
    nb_buf_free(&out);
    nb_chat_free(&chat);
}

int main(void)
{
    unsetenv("OPENAI_API_KEY");
    snprintf(model_dir, sizeof model_dir, "%s", unit_path("tools/demo/model"));
    snprintf(task, sizeof task, "demo_docvqa:%s", unit_path("tools/demo/eval/demo_docvqa.tsv"));
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_eval), cmocka_unit_test(test_tries), cmocka_unit_test(test_body) };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
