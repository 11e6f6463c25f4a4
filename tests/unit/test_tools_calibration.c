/* Calibration data from the command line: several files with shares, in `data` and in `quantize`. */
#include "unit.h"

#include "program.h"
#include "runtime/vision/media_cache.h"

static void write_rows(char path[160], const char *name, int count)
{
    nb_buf text = {0};
    for (int i = 0; i < count; i++)
        nb_buf_printf(&text, "{\"messages\":[{\"role\":\"user\",\"content\":\"%.1s%d?\"},{\"role\":\"assistant\",\"content\":\"Yes %d\"}]}\n", name, i, i);
    snprintf(path, 160, "%s", write_file(name, text.data));
    nb_buf_free(&text);
}

static double number(const cJSON *tree, const char *key)
{
    const cJSON *v = nb_json_find(tree, key);
    if (!cJSON_IsNumber(v)) fail_msg("no number '%s'", key);
    return v->valuedouble;
}

static void files_have_weights(void **state)
{
    (void)state;
    char a[160], b[160], odd[160], out[200], word[200], other[200];
    write_rows(a, "a.jsonl", 10);
    write_rows(b, "b.jsonl", 10);
    write_rows(odd, "c.jsonl:2", 3);
    snprintf(out, sizeof out, "%s/mixed.jsonl", folder);

    /* the one word that is a file and looks like a weight */
    ENDS(0, "data", "check", odd, "--json", "--no-tokens");
    holds(printed[0], "c.jsonl:2\"");
    snprintf(word, sizeof word, "%s:3", odd); /* its weight comes behind its name */
    ENDS(0, "data", "check", word, "--data", a, "--json", "--no-tokens");
    holds(printed[0], "c.jsonl:2\", \"form\": \"openai\"");
    holds(printed[0], "\"weight\": 3");
    ENDS(0, "data", "check", word, "--data", a, "--no-tokens");
    holds(printed[0], "of 128 samples");
    holds(printed[0], " 96 |");
    holds(printed[0], " 32 |");

    snprintf(word, sizeof word, "%s:3", a);
    snprintf(other, sizeof other, "%s:1", b);
    ENDS(0, "data", "convert", word, other, "--samples", "8", "--out", out, "--json");
    holds(printed[0], "\"rows\": 8");
    nb_buf   text;
    nb_error err;
    OK(nb_file_read(&text, out, 1 << 20, &err), &err);
    holds(text.data, "a5?");
    lacks(text.data, "a6?");
    holds(text.data, "b1?");
    lacks(text.data, "b2?");
    nb_buf_free(&text);
    ENDS(2, "data", "convert", word, other, "--out", out, "--force"); /* shares of what? */
    holds(printed[1], "weights of data files share out --samples");
    ENDS(0, "data", "convert", a, b, "--out", out, "--force", "--json");
    holds(printed[0], "\"rows\": 20");
    ENDS(0, "data", "show", "--data", word, "--rows", "1", "--skip", "10", "--data", b);
    holds(printed[0], "b0?");

    static const char *const bad[] = {"0", "-1", "1e7", "1e-999"};
    for (size_t i = 0; i < NB_COUNT(bad); i++) {
        snprintf(word, sizeof word, "%s:%s", a, bad[i]);
        ENDS(2, "data", "check", word);
        holds(printed[1], "must be above 0 and at most 1000000");
    }
    snprintf(word, sizeof word, "%s:x", a); /* no number: part of a name that is not there */
    ENDS(5, "data", "check", word);
    holds(printed[1], "a.jsonl:x");
    ENDS(2, "data", "check");
    holds(printed[1], "FILE is missing");
}

static void quantize_takes_several_files(void **state)
{
    (void)state;
    char a[160], b[160], word[200], out[200], recipe[240];
    write_rows(a, "a.jsonl", 10);
    write_rows(b, "b.jsonl", 10);
    snprintf(word, sizeof word, "%s:3", a);
    snprintf(out, sizeof out, "%s/quantized", folder);
    snprintf(recipe, sizeof recipe, "%s/recipe.json", out);
    const char *model = unit_path("tools/demo/model");
    ENDS(2, "quantize", model, "--out", out, "--data", word, "--data", b, "--samples", "0");
    holds(printed[1], "--samples 0 takes every row");
    ENDS(0, "quantize", model, "--out", out, "--data", word, "--data", b, "--samples", "4", "--json");
    cJSON       *tree = printed_json();
    const cJSON *first = nb_json_find(tree, "data")->child, *second = first->next;
    NEAR(number(first, "samples"), 3, 0);
    NEAR(number(first, "weight"), 3, 0);
    NEAR(number(second, "samples"), 1, 0);
    NEAR(number(first, "tokens") + number(second, "tokens"), number(tree, "tokens"), 0);
    assert_string_equal(nb_json_find(second, "file")->valuestring, b);
    const cJSON *data = nb_json_find(nb_json_find(nb_json_find(tree, "recipe"), "quantize"), "data");
    assert_int_equal(cJSON_GetArraySize(data), 2);
    assert_string_equal(data->child->valuestring, word);
    cJSON_Delete(tree);
    ENDS(0, "quantize", "--config", recipe, "--out", out, "--force");
    holds(printed[0], "3 conversations");
    holds(printed[0], b);
    nb_error err;
    OK(nb_remove_folder(out, &err), &err);
}

/* Benchmark tables are calibration data too: every one of the demo's, and what comes out of a conversion. */
static void tables_calibrate(void **state)
{
    (void)state;
    static const char packed[] = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xcb\xcc\x4b\x49\xad\xe0\x2c\x2c\x4d\x2d\x2e\xc9\xcc\xcf\xe3"
                                 "\x32\xe0\x0c\xe4\x02\x00\x83\xaf\xf5\x89\x13\x00\x00\x00"; /* index, question; 0, Q */
    static const struct { const char *name; int rows, pictures; } tables[] = {{"docvqa", 100, 100}, {"mathvista", 81, 81}, {"mmmu", 100, 200}};
    const char *model = unit_path("tools/demo/model");
    char        path[1200], out[200];
    nb_error    err;
    for (size_t i = 0; i < NB_COUNT(tables); i++) {
        snprintf(path, sizeof path, "%s/demo_%s.tsv", unit_path("tools/demo/eval"), tables[i].name);
        ENDS(0, "data", "check", path, "--model", model, "--deep", "--json");
        cJSON *tree = printed_json();
        NEAR(number(tree, "good"), tables[i].rows, 0);
        NEAR(number(tree, "pictures"), tables[i].pictures, 0);
        NEAR(number(tree, "without_answer"), 0, 0);
        cJSON_Delete(tree);
    }
    snprintf(out, sizeof out, "%s/tabled", folder);
    ENDS(0, "quantize", model, "--out", out, "--data", path, "--data-format", "tsv", "--samples", "2", "--json");
    cJSON *tree = printed_json();
    assert_true(number(tree, "image_tokens") > 0);
    cJSON_Delete(tree);
    OK(nb_remove_folder(out, &err), &err);
    OK(nb_file_write_atomic(write_file("t.tsv.gz", ""), packed, sizeof packed - 1, &err), &err);
    snprintf(path, sizeof path, "%s/t.tsv.gz", folder);
    ENDS(5, "data", "check", path);
    holds(printed[1], "is a packed benchmark table; unpack it first");
}

/* Pictures behind addresses: from the cache when offline, refused with what to do when they are not there. */
static void offline_reads_the_cache(void **state)
{
    (void)state;
    char     cache[200], chats[160];
    nb_buf   picture;
    nb_error err;
    snprintf(cache, sizeof cache, "%s/cache", (write_file("x", ""), folder));
    snprintf(chats, sizeof chats, "%s", write_file("remote.jsonl", "{\"query\":\"<image>Q\",\"response\":\"A\",\"images\":[\"https://example.org/a.png\"]}\n"));
    ENDS(5, "data", "check", chats, "--offline", "--media-cache", cache);
    holds(printed[0], "https://example.org/a.png: is not in the media cache");
    ENDS(5, "data", "check", chats, "--offline", "--media-cache", "none");
    holds(printed[0], "refused here (offline)");
    OK(nb_file_read(&picture, unit_path("tools/demo/calib/images/chat-0000-0.png"), 1 << 20, &err), &err);
    nb_media_cache_put(cache, 0, "https://example.org/a.png", picture.data, picture.size);
    nb_buf_free(&picture);
    if (!nb_media_cache_get(&picture, cache, "https://example.org/a.png", 1 << 20)) skip(); /* built without http */
    nb_buf_free(&picture);
    ENDS(0, "data", "check", chats, "--offline", "--media-cache", cache, "--deep");
    setenv("XDG_CACHE_HOME", folder, 1); /* its usual place is another folder */
    ENDS(5, "data", "check", chats, "--offline");
    holds(printed[0], "nibble/media");
    unsetenv("XDG_CACHE_HOME");
    for (int i = 0; i < 2; i++) {
        char below[240];
        snprintf(below, sizeof below, "%s/%s", cache, i ? "sha256" : "address");
        OK(nb_remove_folder(below, &err), &err);
    }
    rmdir(cache);
}

/* The chats inside the program: whole, varied, and never mistaken for one's own. */
static void builtin_data(void **state)
{
    (void)state;
    char        out[200];
    nb_error    err;
    const char *model = unit_path("tools/demo/model");
    ENDS(0, "data", "check", "--builtin-data", "--model", model, "--deep", "--json");
    cJSON *tree = printed_json();
    NEAR(number(tree, "good"), 68, 0);
    NEAR(number(tree, "with_pictures"), 20, 0);
    NEAR(number(tree, "without_answer"), 0, 0);
    NEAR(number(tree, "exact_duplicates"), 0, 0);
    NEAR(number(nb_json_find(tree, "duplicates"), "count"), 0, 0);
    cJSON_Delete(tree);
    snprintf(out, sizeof out, "%s/builtin", (write_file("x", ""), folder));
    ENDS(2, "quantize", model, "--out", out);
    holds(printed[1], "--builtin-data has some");
    ENDS(0, "quantize", model, "--out", out, "--builtin-data", "--samples", "4", "--json");
    tree = printed_json();
    NEAR(number(tree, "samples"), 4, 0);
    assert_true(number(tree, "image_tokens") > 0); /* among the first four already */
    holds(nb_json_find(tree, "notes")->valuestring, "4 of 4 conversations are from the built-in data");
    assert_true(cJSON_IsTrue(nb_json_find(nb_json_find(nb_json_find(tree, "recipe"), "quantize"), "builtin_data")));
    cJSON_Delete(tree);
    OK(nb_remove_folder(out, &err), &err);
    ENDS(0, "quantize", model, "--out", out, "--builtin-data", "--data", unit_path("tools/demo/calib/chat.jsonl"), "--samples", "4");
    holds(printed[1], "2 of 4 conversations are from the built-in data");
    OK(nb_remove_folder(out, &err), &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(files_have_weights), cmocka_unit_test(quantize_takes_several_files), cmocka_unit_test(tables_calibrate),
                                       cmocka_unit_test(offline_reads_the_cache), cmocka_unit_test(builtin_data)};
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
