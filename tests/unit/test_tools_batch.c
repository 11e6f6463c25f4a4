/* test_tools_batch.c - `nibble batch`: answers in the order of the calls and independent of how many run side by side, errors where they
 * belong, going on after a cut. */
#include "program.h"
#include "temp_files.h"

static char model[300], pictures[300];

/* `count` calls; every fourth is broken in a way of its own. */
static const char *calls(int count)
{
    nb_buf text = { 0 };
    for (int i = 0; i < count; i++) {
        nb_buf_printf(&text, "{\"custom_id\": \"call-%d\", \"method\": \"%s\", \"url\": \"%s\", \"body\": ", i, i % 16 == 3 ? "GET" : "POST",
                      i % 16 == 7 ? "/v1/models" : i % 2 ? "/v1/completions" : "/v1/chat/completions");
        if (i % 16 == 11) nb_buf_str(&text, "7");
        else if (i % 16 == 15) nb_buf_str(&text, "{\"prompt\": \"x\", \"temperature\": 9}");
        else if (i % 2) nb_buf_printf(&text, "{\"prompt\": \"Question %d: what is\", \"max_tokens\": %d, \"temperature\": 0, \"stream\": true}", i, 1 + i % 5);
        else if (i % 4)
            nb_buf_printf(&text, "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image_url\", \"image_url\": {\"url\": \"file://%s/chat-0000-0.png\"}}, "
                                 "{\"type\": \"text\", \"text\": \"Read number %d.\"}]}], \"max_tokens\": 12, \"temperature\": 0}", pictures, i);
        else nb_buf_printf(&text, "{\"messages\": [{\"role\": \"user\", \"content\": \"How much is %d and 5?\"}], \"max_tokens\": 8, \"temperature\": 0}", i);
        nb_buf_str(&text, "}\n");
    }
    const char *path = write_file("calls.jsonl", text.data);
    nb_buf_free(&text);
    return path;
}

static char *fresh(char path[300], const char *name)
{
    snprintf(path, 300, "%s", write_file(name, ""));
    remove(path);
    return path;
}

/* custom_id, status and text of every line; malloc'd. */
static char *essence(const char *path)
{
    nb_error        err;
    nb_json_stream *s;
    nb_buf          out = { 0 };
    OK(nb_json_stream_open(&s, path, &err), &err);
    for (;;) {
        cJSON *o;
        OK(nb_json_stream_next(s, &o, NULL, &err), &err);
        if (!o) break;
        const cJSON *response = nb_json_find(o, "response"), *error = nb_json_find(o, "error"), *body = nb_json_find(response, "body");
        nb_buf_printf(&out, "%s ", cJSON_GetObjectItem(o, "custom_id")->valuestring);
        if (error) nb_buf_str(&out, cJSON_GetObjectItem(error, "code")->valuestring);
        else nb_buf_printf(&out, "%d ", cJSON_GetObjectItem(response, "status_code")->valueint);
        const cJSON *choice = cJSON_GetArrayItem(nb_json_find(body, "choices"), 0), *text = nb_json_find(choice, "text");
        if (choice && !text) text = nb_json_find(nb_json_find(choice, "message"), "content");
        nb_buf_printf(&out, "%s\n", cJSON_IsString(text) ? text->valuestring : "");
        cJSON_Delete(o);
    }
    nb_json_stream_close(s);
    return out.data;
}

static void test_batch(void **state)
{
    (void)state;
    char        whole[300], alone[300], cut[300], line[8192];
    const char *input = calls(32);
    fresh(whole, "whole.jsonl");
    fresh(alone, "alone.jsonl");
    fresh(cut, "cut.jsonl");
    ENDS(0, "batch", model, input, "-o", whole, "--allowed-local-media-path", pictures, "--json", "-q");
    cJSON *o = printed_json();
    assert_int_equal(cJSON_GetObjectItem(o, "answered")->valueint, 24);
    assert_int_equal(cJSON_GetObjectItem(o, "failed")->valueint, 8);
    cJSON_Delete(o);
    char *want = essence(whole);
    const char *at = want;
    for (int i = 0; i < 32; i++) { /* in the order of the calls */
        char id[20];
        snprintf(id, sizeof id, "%scall-%d ", i ? "\n" : "", i);
        assert_non_null(at = strstr(at, id));
    }
    holds(want, "call-0 200 ");
    holds(want, "call-3 invalid_method\ncall-4 200 ");
    holds(want, "call-7 invalid_url\n");
    holds(want, "call-11 invalid_body\n");
    holds(want, "call-15 400 \n");
    lacks(want, " 500 ");
    lacks(want, "call-2 200 \n"); /* the picture was read and something was said */

    ENDS(0, "batch", model, input, "-o", alone, "--allowed-local-media-path", pictures, "--concurrency", "1", "-q");
    char *got = essence(alone);
    assert_string_equal(got, want);
    free(got);

    FILE *from = fopen(whole, "r"), *to = fopen(cut, "w");
    for (int i = 0; i < 9; i++) assert_non_null(fgets(line, sizeof line, from)), fputs(line, to);
    assert_non_null(fgets(line, 80, from)), fputs(line, to); /* the tenth was being written */
    fclose(from);
    fclose(to);
    ENDS(1, "batch", model, input, "-o", cut, "-q");
    holds(printed[1], "--resume goes on with it");
    ENDS(0, "batch", model, input, "-o", cut, "--resume", "--allowed-local-media-path", pictures, "-q");
    holds(printed[0], "17 calls answered, 6 failed, 9 were there");
    got = essence(cut);
    assert_string_equal(got, want);
    free(got);
    free(want);
}

static void test_refusals(void **state)
{
    (void)state;
    char out[300];
    fresh(out, "refused.jsonl");
    ENDS(2, "batch", model, calls(1), "-q");
    ENDS(5, "batch", model, "/nowhere.jsonl", "-o", out, "-q");
    ENDS(5, "batch", model, write_file("in.jsonl", "{\"custom_id\": \"a\"}\n{\"method\": \"POST\"}\n"), "-o", out, "-q");
    holds(printed[1], "in.jsonl line 2: custom_id is missing");
    remove(out);
    ENDS(5, "batch", model, write_file("in.jsonl", "{\"custom_id\": \"a\", \n"), "-o", out, "-q");
    holds(printed[1], "in.jsonl: line");
    remove(out);
    /* a picture that may not be read fails its call and no other */
    ENDS(0, "batch", model, calls(3), "-o", out, "-q");
    holds(printed[0], "2 calls answered, 1 failed");
}

int main(void)
{
    snprintf(model, sizeof model, "%s", unit_path("tools/demo/model"));
    snprintf(pictures, sizeof pictures, "%s", unit_path("tools/demo/calib/images"));
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_batch), cmocka_unit_test(test_refusals) };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
