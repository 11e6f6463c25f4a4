/* Calibration data from the command line: several files with shares, in `data` and in `quantize`. */
#include "unit.h"

#include "program.h"
#include "runtime/vision/media_cache.h"
#include "temp_files.h"
#include "tools/data_script.h"

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

static void loss_on_answers(void **state)
{
    (void)state;
    char        out[200], asked[160];
    nb_error    err;
    double      ratio[2];
    const char *model = unit_path("tools/demo/model");
    snprintf(out, sizeof out, "%s/answers", (write_file("x", ""), folder));
    for (int i = 0; i < 2; i++) {
        ENDS(0, "quantize", model, "--out", out, "--data", unit_path("tools/demo/calib/chat.jsonl"), "--samples", "6", "--loss-on",
             i ? "assistant" : "all", "--json", "--method", "gptq");
        cJSON *tree = printed_json();
        assert_true(i ? number(tree, "counted_tokens") < number(tree, "tokens") / 2 : number(tree, "counted_tokens") == number(tree, "tokens"));
        assert_string_equal(nb_json_find(nb_json_find(nb_json_find(tree, "recipe"), "quantize"), "loss_on")->valuestring, i ? "assistant" : "all");
        ratio[i] = number(tree, "mean_loss_ratio");
        cJSON_Delete(tree);
        OK(nb_remove_folder(out, &err), &err);
    }
    assert_true(ratio[0] != ratio[1]); /* it does reach the solver */
    snprintf(asked, sizeof asked, "%s", write_file("asked.jsonl", "{\"messages\":[{\"role\":\"user\",\"content\":\"Anyone?\"}]}\n"));
    ENDS(5, "quantize", model, "--out", out, "--data", asked, "--loss-on", "assistant");
    holds(printed[1], "has no answers of the assistant");
    ENDS(0, "quantize", model, "--out", out, "--data", unit_path("tools/demo/calib/chat.jsonl"), "--samples", "2", "--loss-on", "assistant");
    holds(printed[0], " of answers count");
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

/* Words of known length in every script; ASCII, which is counted eight bytes at a time, against its definition. */
static void scripts_are_told_apart(void **state)
{
    (void)state;
    static const struct { nb_script script; unsigned letters; const char *text; } words[] = {
        {NB_SCRIPT_LATIN, 11, "naïve Straße 123, ½"}, {NB_SCRIPT_GREEK, 8, "Ελλάδα, ἀβ"}, {NB_SCRIPT_CYRILLIC, 6, "Київ, я… є"}, {NB_SCRIPT_ARMENIAN, 4, "Հայր"},
        {NB_SCRIPT_HEBREW, 4, "שלום"}, {NB_SCRIPT_ARABIC, 5, "سلام، ا"}, {NB_SCRIPT_DEVANAGARI, 6, "हिन्दी।"}, {NB_SCRIPT_BENGALI, 5, "বাংলা"},
        {NB_SCRIPT_GURMUKHI, 6, "ਪੰਜਾਬੀ"}, {NB_SCRIPT_GUJARATI, 7, "ગુજરાતી"}, {NB_SCRIPT_ORIYA, 5, "ଓଡ଼ିଆ"}, {NB_SCRIPT_TAMIL, 5, "தமிழ்"},
        {NB_SCRIPT_TELUGU, 6, "తెలుగు"}, {NB_SCRIPT_KANNADA, 5, "ಕನ್ನಡ"}, {NB_SCRIPT_MALAYALAM, 6, "മലയാളം"}, {NB_SCRIPT_SINHALA, 5, "සිංහල"},
        {NB_SCRIPT_THAI, 3, "ไทย"}, {NB_SCRIPT_LAO, 3, "ລາວ"}, {NB_SCRIPT_TIBETAN, 3, "བོད"}, {NB_SCRIPT_MYANMAR, 6, "မြန်မာ"}, {NB_SCRIPT_GEORGIAN, 7, "ქართული"},
        {NB_SCRIPT_HANGUL, 3, "한국어 42"}, {NB_SCRIPT_ETHIOPIC, 4, "አማርኛ"}, {NB_SCRIPT_KHMER, 5, "ខ្មែរ"}, {NB_SCRIPT_MONGOLIAN, 6, "ᠮᠣᠩᠭᠣᠯ"},
        {NB_SCRIPT_KANA, 6, "ひらがなカナ、。"}, {NB_SCRIPT_HAN, 4, "汉字漢字，！"}, {NB_SCRIPT_OTHER, 3, "ᏣᎳᎩ"}, {NB_SCRIPTS, 0, "1 + 1 = 2 😀 €"},
    };
    assert_int_equal(NB_COUNT(words), NB_SCRIPTS + 1);
    for (size_t i = 0; i < NB_COUNT(words); i++) {
        nb_script_count c = {{0}};
        nb_script_add(&c, words[i].text);
        for (int s = 0; s < NB_SCRIPTS; s++)
            if (c.characters[s] != (s == (int)words[i].script ? words[i].letters : 0))
                fail_msg("%s: %u of %s", words[i].text, c.characters[s], nb_script_name((nb_script)s));
        assert_int_equal(nb_script_main(&c), words[i].script);
    }
    nb_script_count japanese = {{0}};
    nb_script_add(&japanese, "日本語文字数 は"); /* a tenth of kana is enough */
    assert_int_equal(nb_script_main(&japanese), NB_SCRIPT_KANA);
    uint64_t random = 5;
    for (int round = 0; round < 3000; round++) {
        char            text[64];
        unsigned        letters = 0;
        size_t          n = unit_random(&random) % 63;
        nb_script_count c = {{0}};
        for (size_t i = 0; i < n; i++) {
            text[i] = (char)(1 + unit_random(&random) % 127);
            letters += (text[i] >= 'A' && text[i] <= 'Z') || (text[i] >= 'a' && text[i] <= 'z');
        }
        text[n] = 0;
        nb_script_add(&c, text);
        assert_int_equal(c.characters[NB_SCRIPT_LATIN], letters);
    }
    for (int c = 1; c < 128; c++) assert_int_equal(nb_script_of((uint32_t)c) == NB_SCRIPT_LATIN, (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'));
}

#define CHAT(q, a) "{\"messages\":[{\"role\":\"user\",\"content\":" q "},{\"role\":\"assistant\",\"content\":\"" a "\"}]}\n"

/* What check says beside counts: scripts, why rows are dropped, the first prompts; and that threads change nothing of it. */
static void check_tells_what_is_there(void **state)
{
    (void)state;
    char        chats[160], picture[1200];
    const char *model = unit_path("tools/demo/model");
    nb_buf      text = {0}, one = {0}, many = {0};
    snprintf(picture, sizeof picture, "%s", unit_path("tools/demo/calib/images/chat-0000-0.png"));
    nb_buf_str(&text, CHAT("\"Hello there\"", "General greetings"));
    nb_buf_printf(&text, CHAT("[{\"type\":\"image\",\"image\":\"%s\"},{\"type\":\"text\",\"text\":\"Что это?\"}]", "Чек"), picture);
    nb_buf_str(&text, CHAT("[{\"type\":\"image\",\"image\":\"missing.png\"}]", "A"));
    nb_buf_str(&text, "{\"messages\": 3}\n");
    nb_buf_str(&text, CHAT("\"Look at this <image>\"", "A"));
    for (int i = 0; i < 600; i++) nb_buf_printf(&text, CHAT("\"Say %d\"", "%d it is"), i, i);
    nb_buf_str(&text, "{\"messages\": [\n");
    nb_buf_str(&text, CHAT("\"Last\"", "Word"));
    snprintf(chats, sizeof chats, "%s", write_file("told.jsonl", text.data));
    ENDS(5, "data", "check", chats, "--model", model, "--seq-len", "30", "--list", "3", "--rows", "2");
    holds(printed[0], "scripts     Latin ");
    holds(printed[0], "Cyrillic ");
    holds(printed[0], "bad: 3 rows cannot be used, 1 of them for a picture or video");
    holds(printed[0], "line 3: messages[0].content[0]");
    holds(printed[0], "line 4: messages: expected a list");
    holds(printed[0], "line 606");
    holds(printed[0], "marks       1 rows hold <image>");
    holds(printed[0], "<|im_start|>user\nHello there<|im_end|>");
    holds(printed[0], "<|image_pad|> x ");
    holds(printed[0], "rows by their tokens of");
    lacks(printed[0], "Say 0");
    for (int t = 1; t <= 4; t += 3) {
        nb_buf *out = t == 1 ? &one : &many;
        ENDS(5, "data", "check", chats, "--model", model, "--seq-len", "40", "--json", "-t", t == 1 ? "1" : "4");
        nb_buf_str(out, printed[0]);
    }
    assert_string_equal(one.data, many.data);
    cJSON *tree;
    nb_error err;
    OK(nb_json_parse(&tree, one.data, strcspn(one.data, "\n"), "report", &err), &err); /* the error is a line of its own */
    NEAR(number(tree, "good"), 604, 0);
    NEAR(number(tree, "marks_as_text"), 1, 0);
    NEAR(number(nb_json_find(tree, "dropped"), "pictures"), 1, 0);
    NEAR(number(nb_json_find(tree, "dropped"), "rows"), 2, 0);
    NEAR(number(nb_json_find(tree, "dropped"), "too_long"), 1, 0); /* the one with the picture */
    NEAR(number(nb_json_find(tree, "rows_by_script"), "Cyrillic"), 1, 0);
    NEAR(number(nb_json_find(tree, "scripts"), "Cyrillic"), 9, 0);
    assert_int_equal(cJSON_GetArraySize(nb_json_find(tree, "prompts")), 3);
    NEAR(number(nb_json_find(nb_json_find(tree, "tokens_by_modality"), "image"), "count"), 1, 0);
    cJSON_Delete(tree);
    nb_buf_free(&one);
    nb_buf_free(&many);
    nb_buf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(files_have_weights), cmocka_unit_test(quantize_takes_several_files), cmocka_unit_test(tables_calibrate),
                                       cmocka_unit_test(offline_reads_the_cache), cmocka_unit_test(builtin_data), cmocka_unit_test(loss_on_answers),
                                       cmocka_unit_test(scripts_are_told_apart), cmocka_unit_test(check_tells_what_is_there)};
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
