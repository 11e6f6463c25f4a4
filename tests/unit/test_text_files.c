/* Opening a tokenizer: the file forms it comes in, and what is refused and how. */
#include "unit_text.h"

static nb_tokenizer *demo;

static int setup(void **state)
{
    (void)state;
    nb_error err;
    OK(nb_tokenizer_open(&demo, unit_path("tools/demo/model"), &err), &err);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    nb_tokenizer_close(demo);
    return 0;
}

static char folder[64];

static void write_file(const char *name, const char *text, size_t n)
{
    char  path[128];
    FILE *f;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void new_folder(void)
{
    snprintf(folder, sizeof folder, "/tmp/nibble-text-XXXXXX");
    assert_non_null(mkdtemp(folder));
}

static void drop_folder(void)
{
    nb_error err;
    OK(nb_remove_folder(folder, &err), &err);
}

static void copy_file(const char *from, const char *name)
{
    nb_buf   text = {0};
    nb_error err;
    OK(nb_file_read(&text, from, 1 << 24, &err), &err);
    write_file(name, text.data, text.size);
    nb_buf_free(&text);
}

static void assert_same_ids(const nb_tokenizer *a, const nb_tokenizer *b)
{
    uint64_t seed = 21;
    nb_buf   text = {0};
    assert_int_equal(nb_tokenizer_size(a), nb_tokenizer_size(b));
    for (int i = 0; i < 100; i++) {
        random_string(&text, &seed);
        nb_ids x = encode(a, text.data, text.size, true), y = encode(b, text.data, text.size, true);
        assert_int_equal(x.count, y.count);
        assert_memory_equal(x.data, y.data, x.count * sizeof *x.data);
        nb_ids_free(&x);
        nb_ids_free(&y);
    }
    nb_buf_free(&text);
}

static void test_opens_from_parts(void **state)
{
    (void)state;
    nb_error      err;
    nb_tokenizer *t;
    nb_buf        merges = {0}, changed = {0};
    new_folder();
    FAILS(nb_tokenizer_open(&t, folder, &err), NB_ERR_INPUT, "there is no tokenizer", &err);
    assert_null(t);
    copy_file(unit_path("tools/demo/model/vocab.json"), "vocab.json");
    copy_file(unit_path("tools/demo/model/tokenizer_config.json"), "tokenizer_config.json");
    OK(nb_file_read(&merges, unit_path("tools/demo/model/merges.txt"), 1 << 20, &err), &err);
    const char *body = strncmp(merges.data, "#version", 8) == 0 ? strchr(merges.data, '\n') + 1 : merges.data;
    write_file("merges.txt", body, strlen(body)); /* no header */
    OK(nb_tokenizer_open(&t, folder, &err), &err);
    assert_same_ids(t, demo);
    nb_tokenizer_close(t);
    nb_buf_str(&changed, "#version: 0.2\r\n"); /* header and CRLF */
    for (const char *c = body; *c; c++) {
        if (*c == '\n') nb_buf_char(&changed, '\r');
        nb_buf_char(&changed, *c);
    }
    write_file("merges.txt", changed.data, changed.size);
    OK(nb_tokenizer_open(&t, folder, &err), &err);
    assert_same_ids(t, demo);
    nb_tokenizer_close(t);

    /* added_tokens.json in place of tokenizer_config.json */
    write_file("tokenizer_config.json", "{}", 2);
    nb_buf_clear(&changed);
    nb_buf_str(&changed, "{");
    const char *separator = "";
    for (int32_t id = 944; id < 958; id++) {
        nb_buf one = {0};
        nb_tokenizer_decode(demo, &id, 1, false, &one);
        nb_buf_printf(&changed, "%s\"%s\": %d", separator, one.data, id);
        nb_buf_free(&one);
        separator = ", ";
    }
    nb_buf_str(&changed, "}");
    write_file("added_tokens.json", changed.data, changed.size);
    OK(nb_tokenizer_open(&t, folder, &err), &err);
    assert_same_ids(t, demo);
    assert_int_equal(nb_tokenizer_special(t, "<|im_end|>"), 946);
    nb_tokenizer_close(t);

    write_file("added_tokens.json", "{\"<|im_end|>\": 1.5}", 19);
    FAILS(nb_tokenizer_open(&t, folder, &err), NB_ERR_INPUT, "added_tokens.json: added token '<|im_end|>' needs a whole number", &err);
    write_file("added_tokens.json", "{}", 2);
    write_file("merges.txt", "i n\na\n", 6);
    FAILS(nb_tokenizer_open(&t, folder, &err), NB_ERR_INPUT, "merges.txt: line 2 is not", &err);
    write_file("merges.txt", "i n\na b c\n", 10);
    FAILS(nb_tokenizer_open(&t, folder, &err), NB_ERR_INPUT, "merges.txt: line 2 is not", &err);
    write_file("merges.txt", "i n\nzq q\n", 9);
    FAILS(nb_tokenizer_open(&t, folder, &err), NB_ERR_INPUT, "merges[1] ('zq' + 'q')", &err);
    nb_buf_free(&merges);
    nb_buf_free(&changed);
    drop_folder();
}

static void test_published_parts_equal_json(void **state)
{
    (void)state;
    NEEDS_DATA(PUBLISHED "/vocab.json");
    nb_error      err;
    nb_tokenizer *t, *published;
    OK(nb_tokenizer_open(&published, unit_data(PUBLISHED), &err), &err);
    new_folder();
    copy_file(unit_data(PUBLISHED "/vocab.json"), "vocab.json");
    copy_file(unit_data(PUBLISHED "/merges.txt"), "merges.txt");
    copy_file(unit_data(PUBLISHED "/added_tokens.json"), "added_tokens.json");
    OK(nb_tokenizer_open(&t, folder, &err), &err);
    assert_same_ids(t, published);
    assert_int_equal(nb_tokenizer_special(t, "<|image_pad|>"), 151655);
    nb_tokenizer_close(t);
    nb_tokenizer_close(published);
    drop_folder();
}

/* One change to the demo's tokenizer.json: `path` (dots between keys, numbers index arrays) becomes the JSON `value`, or
 * goes when value is NULL, or is appended when the last step is "+". */
static cJSON *changed_json(const char *path, const char *value)
{
    cJSON   *root;
    nb_error err;
    char     steps[160], *save = NULL;
    OK(nb_json_file(&root, unit_path("tools/demo/model/tokenizer.json"), 1 << 20, &err), &err);
    snprintf(steps, sizeof steps, "%s", path);
    cJSON *at = root;
    for (char *step = strtok_r(steps, ".", &save), *next; step; step = next) {
        next = strtok_r(NULL, ".", &save);
        cJSON *child = cJSON_IsArray(at) ? (*step == '+' ? NULL : cJSON_GetArrayItem(at, atoi(step))) : cJSON_GetObjectItemCaseSensitive(at, step);
        if (next) {
            assert_non_null(child);
            at = child;
            continue;
        }
        cJSON *new = NULL;
        if (value) OK(nb_json_parse(&new, value, strlen(value), "value", &err), &err);
        if (!new)
            cJSON_Delete(cJSON_DetachItemViaPointer(at, child));
        else if (child && cJSON_IsObject(at))
            assert_true(cJSON_ReplaceItemInObjectCaseSensitive(at, step, new));
        else if (child)
            assert_true(cJSON_ReplaceItemViaPointer(at, child, new));
        else if (cJSON_IsArray(at))
            cJSON_AddItemToArray(at, new);
        else
            cJSON_AddItemToObject(at, step, new);
    }
    return root;
}

static void write_changed(const char *path, const char *value)
{
    cJSON *root = changed_json(path, value);
    nb_buf text = {0};
    nb_json_print(&text, root, NB_JSON_COMPACT);
    write_file("tokenizer.json", text.data, text.size);
    nb_buf_free(&text);
    cJSON_Delete(root);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *path, *value;
        nb_status   status;
        const char *text;
    } cases[] = {
        {"model.type", "\"Unigram\"", NB_ERR_UNSUPPORTED, "model.type"},
        {"model.dropout", "0.1", NB_ERR_UNSUPPORTED, "model.dropout"},
        {"model.ignore_merges", "true", NB_ERR_UNSUPPORTED, "model.ignore_merges"},
        {"model.end_of_word_suffix", "\"</w>\"", NB_ERR_UNSUPPORTED, "end_of_word_suffix"},
        {"model.continuing_subword_prefix", "\"##\"", NB_ERR_UNSUPPORTED, "continuing_subword_prefix"},
        {"normalizer", "null", NB_ERR_UNSUPPORTED, "normalizer"},
        {"normalizer.type", "\"NFKC\"", NB_ERR_UNSUPPORTED, "normalizer"},
        {"pre_tokenizer", NULL, NB_ERR_UNSUPPORTED, "pre_tokenizer"},
        {"pre_tokenizer.type", "\"Metaspace\"", NB_ERR_UNSUPPORTED, "pre_tokenizer"},
        {"pre_tokenizer.pretokenizers.0.behavior", "\"Removed\"", NB_ERR_UNSUPPORTED, "pretokenizers[0]"},
        {"pre_tokenizer.pretokenizers.0.pattern.Regex", "\"(a+)+$\"", NB_ERR_UNSUPPORTED, "pattern.Regex"},
        {"pre_tokenizer.pretokenizers.1.add_prefix_space", "true", NB_ERR_UNSUPPORTED, "pretokenizers[1]"},
        {"pre_tokenizer.pretokenizers.1.use_regex", NULL, NB_ERR_UNSUPPORTED, "pretokenizers[1]"},
        {"post_processor", "{\"type\": \"TemplateProcessing\"}", NB_ERR_UNSUPPORTED, "post_processor"},
        {"decoder", "{\"type\": \"WordPiece\"}", NB_ERR_UNSUPPORTED, "decoder"},
        {"model.vocab", "[]", NB_ERR_INPUT, "vocabulary is not an object"},
        {"model.vocab.a", NULL, NB_ERR_INPUT, "no token for the byte 0x61"},
        {"model.vocab.\u0120", "-1", NB_ERR_INPUT, "needs a whole number"},
        {"model.vocab.a", "4194304", NB_ERR_INPUT, "needs a whole number"},
        {"model.vocab.a", "1.5", NB_ERR_INPUT, "needs a whole number"},
        {"model.vocab.a", "1e300", NB_ERR_INPUT, "needs a whole number"},
        {"model.vocab.a", "\"64\"", NB_ERR_INPUT, "needs a whole number"},
        {"model.vocab.a", "65", NB_ERR_INPUT, "twice"},
        {"model.merges", "{}", NB_ERR_INPUT, "model.merges"},
        {"model.merges.1", "\"a b c\"", NB_ERR_INPUT, "merges[1]"},
        {"model.merges.2", "[\"a\", 3]", NB_ERR_INPUT, "merges[2]"},
        {"model.merges.2", "[\"a\"]", NB_ERR_INPUT, "merges[2]"},
        {"model.merges.3", "\"nowhere b\"", NB_ERR_INPUT, "merges[3] ('nowhere' + 'b') has a left piece"},
        {"model.merges.3", "\"b nowhere\"", NB_ERR_INPUT, "right piece"},
        {"model.merges.3", "\"Z Q\"", NB_ERR_INPUT, "union"},
        {"model.merges.3", "[\"\", \"a\"]", NB_ERR_INPUT, "empty piece"},
        {"added_tokens", "3", NB_ERR_INPUT, "added_tokens is not an array"},
        {"added_tokens.0.id", "4194304", NB_ERR_INPUT, "added_tokens[0]"},
        {"added_tokens.0.id", "-1", NB_ERR_INPUT, "added_tokens[0]"},
        {"added_tokens.0.id", "945", NB_ERR_INPUT, "another token"},
        {"added_tokens.0.id", "64", NB_ERR_INPUT, "another token"},
        {"added_tokens.0.content", "\"\"", NB_ERR_INPUT, "is empty"},
        {"added_tokens.0.content", "\"a\"", NB_ERR_INPUT, "the vocabulary gives it 64"},
        {"added_tokens.0.content", "\"<|im_end|>\"", NB_ERR_INPUT, "same text"},
        {"added_tokens.0.content", "7", NB_ERR_INPUT, "added_tokens[0]"},
        {"added_tokens.0.lstrip", "true", NB_ERR_UNSUPPORTED, "lstrip"},
    };
    nb_error err;
    new_folder();
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        nb_tokenizer *t = (nb_tokenizer *)&err;
        write_changed(cases[i].path, cases[i].value);
        if (nb_tokenizer_open(&t, folder, &err) != cases[i].status || !strstr(err.text, cases[i].text))
            fail_msg("%s = %s: status %d, '%s'", cases[i].path, cases[i].value ? cases[i].value : "(gone)", err.status, err.text);
        assert_null(t);
        assert_non_null(strstr(err.text, "tokenizer.json"));
    }
    drop_folder();
}

/* Merges twice, damage by random bytes, and text that is cut short: refused or read, never a crash. */
static void test_damaged_files(void **state)
{
    (void)state;
    nb_error      err;
    nb_tokenizer *t;
    nb_buf        text = {0};
    uint64_t      seed = 17;
    new_folder();
    cJSON *root = changed_json("version", "\"1.0\"");
    cJSON *merges = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(root, "model"), "merges");
    cJSON_AddItemToArray(merges, cJSON_Duplicate(merges->child, true));
    nb_json_print(&text, root, NB_JSON_COMPACT);
    cJSON_Delete(root);
    write_file("tokenizer.json", text.data, text.size);
    FAILS(nb_tokenizer_open(&t, folder, &err), NB_ERR_INPUT, "an earlier merge", &err);
    for (int round = 0; round < 60; round++) {
        nb_buf bad = {0};
        nb_buf_add(&bad, text.data, round % 4 ? text.size : unit_random(&seed) % text.size);
        for (int k = 0; k < 4 && round % 4; k++) bad.data[unit_random(&seed) % bad.size] = (char)(32 + unit_random(&seed) % 95);
        write_file("tokenizer.json", bad.data ? bad.data : "", bad.size);
        if (nb_tokenizer_open(&t, folder, &err) != NB_OK) assert_null(t);
        nb_tokenizer_close(t);
        nb_buf_free(&bad);
    }
    nb_buf_free(&text);
    drop_folder();
}

/* Gaps in the ids, merges as pairs or strings, and added tokens that are not special or are looked for after NFC. */
static void test_variants(void **state)
{
    (void)state;
    nb_error      err;
    nb_tokenizer *t;
    new_folder();
    write_changed("added_tokens.+", "{\"id\": 3000000, \"content\": \"caf\\u00e9\", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
                                    "\"normalized\": true, \"special\": false}");
    OK(nb_tokenizer_open(&t, folder, &err), &err);
    assert_int_equal(nb_tokenizer_size(t), 3000001);
    nb_ids ids = encode(t, "xcafe\u0301x", 8, false); /* ordinary vocabulary, so not held back from user text */
    assert_int_equal(ids.count, 3);
    assert_int_equal(ids.data[1], 3000000);
    assert_false(nb_tokenizer_is_special(t, 3000000));
    assert_int_equal(nb_tokenizer_special(t, "caf\u00e9"), 3000000);
    nb_buf  out = {0};
    int32_t some[] = {2000000, 3000000, 958};
    nb_tokenizer_decode(t, some, 3, true, &out);
    assert_string_equal(out.data, "caf\u00e9");
    nb_buf_free(&out);
    nb_ids_free(&ids);
    ids = encode(t, "<|im_end|>caf\u00e9", 15, false); /* the control token is held back all the same */
    assert_true(ids.count > 2 && ids.data[ids.count - 1] == 3000000);
    for (size_t i = 0; i < ids.count; i++) assert_false(nb_tokenizer_is_special(t, ids.data[i]));
    nb_ids_free(&ids);
    nb_tokenizer_close(t);

    /* One that is not normalized is looked for before NFC only: the two-character spelling is not it. */
    cJSON *two = changed_json("added_tokens.+", "{\"id\": 958, \"content\": \"q\\u00e9\", \"normalized\": false, \"special\": false}");
    cJSON_AddItemToArray(cJSON_GetObjectItemCaseSensitive(two, "added_tokens"), cJSON_Parse("{\"id\": 959, \"content\": \"zz\"}"));
    nb_buf both = {0};
    nb_json_print(&both, two, NB_JSON_COMPACT);
    write_file("tokenizer.json", both.data, both.size);
    nb_buf_free(&both);
    cJSON_Delete(two);
    OK(nb_tokenizer_open(&t, folder, &err), &err);
    ids = encode(t, "zzq\u00e9", 5, false);
    assert_int_equal(ids.count, 2);
    assert_int_equal(ids.data[1], 958);
    nb_ids_free(&ids);
    ids = encode(t, "<|im_end|>q\u00e9", 13, false);
    assert_int_equal(ids.data[ids.count - 1], 958);
    for (size_t i = 0; i < ids.count; i++) assert_false(nb_tokenizer_is_special(t, ids.data[i]));
    nb_ids_free(&ids);
    ids = encode(t, "zzqe\u0301", 6, false);
    assert_true(ids.count > 2 && ids.data[0] == 959 && ids.data[1] != 958);
    nb_ids_free(&ids);
    nb_tokenizer_close(t);

    /* The longest of the added tokens that start at one place wins, the leftmost before it. */
    write_changed("added_tokens.+", "{\"id\": 958, \"content\": \"<|im_end|><|im\", \"single_word\": false, \"lstrip\": false, "
                                    "\"rstrip\": false, \"normalized\": false, \"special\": true}");
    OK(nb_tokenizer_open(&t, folder, &err), &err);
    ids = encode(t, "<|im_end|><|im_end|>", 20, true);
    assert_int_equal(ids.data[0], 958);
    assert_true(ids.count > 1 && ids.data[1] != 946);
    nb_ids_free(&ids);
    ids = encode(t, "<|im_end|><|i", 13, true);
    assert_int_equal(ids.data[0], 946);
    nb_ids_free(&ids);
    nb_tokenizer_close(t);

    cJSON *root = changed_json("version", "\"1.0\""), *model = cJSON_GetObjectItemCaseSensitive(root, "model");
    cJSON *old = cJSON_GetObjectItemCaseSensitive(model, "merges"), *new = cJSON_CreateArray(), *m;
    cJSON_ArrayForEach(m, old)
    {
        char joined[200];
        if (cJSON_IsArray(m)) {
            snprintf(joined, sizeof joined, "%s %s", m->child->valuestring, m->child->next->valuestring);
            cJSON_AddItemToArray(new, cJSON_CreateString(joined));
        } else {
            snprintf(joined, sizeof joined, "%s", m->valuestring);
            char *space = strchr(joined, ' ');
            *space = 0;
            cJSON *pair = cJSON_CreateArray();
            cJSON_AddItemToArray(pair, cJSON_CreateString(joined));
            cJSON_AddItemToArray(pair, cJSON_CreateString(space + 1));
            cJSON_AddItemToArray(new, pair);
        }
    }
    cJSON_ReplaceItemInObjectCaseSensitive(model, "merges", new);
    nb_buf text = {0};
    nb_json_print(&text, root, NB_JSON_COMPACT);
    write_file("tokenizer.json", text.data, text.size);
    OK(nb_tokenizer_open(&t, folder, &err), &err);
    assert_same_ids(t, demo);
    nb_tokenizer_close(t);
    nb_buf_free(&text);
    cJSON_Delete(root);
    drop_folder();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opens_from_parts), cmocka_unit_test(test_published_parts_equal_json),
        cmocka_unit_test(test_refusals),         cmocka_unit_test(test_damaged_files),
        cmocka_unit_test(test_variants),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
