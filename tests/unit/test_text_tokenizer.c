/* Tokenizer against the ids of the tokenizers library (tests/golden/tokenizer_expected.json, made by
 * tests/oracle/tokenizer_oracle.py), round trips of arbitrary bytes, and streaming. */
#include "unit_text.h"

#include "runtime/text/normalize.h"
#include "runtime/text/split.h"

static nb_tokenizer *demo, *published; /* published: NULL without the shared data */
static cJSON        *expected;

static int setup(void **state)
{
    (void)state;
    nb_error err;
    OK(nb_tokenizer_open(&demo, unit_path("tools/demo/model"), &err), &err);
    if (access(unit_data(PUBLISHED "/tokenizer.json"), R_OK) == 0)
        OK(nb_tokenizer_open(&published, unit_data(PUBLISHED), &err), &err);
    OK(nb_json_file(&expected, unit_path("tests/golden/tokenizer_expected.json"), 1 << 20, &err), &err);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    nb_tokenizer_close(demo);
    nb_tokenizer_close(published);
    cJSON_Delete(expected);
    return 0;
}

#define FNV_START 0xCBF29CE484222325u
static uint64_t fnv(const void *data, size_t n, uint64_t h)
{
    for (size_t i = 0; i < n; i++) h = (h ^ ((const uint8_t *)data)[i]) * 0x100000001B3u;
    return h;
}

static uint64_t ids_hash(const nb_ids *ids)
{
    uint64_t h = FNV_START;
    for (size_t i = 0; i < ids->count; i++) {
        uint32_t v  = (uint32_t)ids->data[i];
        uint8_t  le[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
        h = fnv(le, 4, h);
    }
    return h;
}

static void assert_hash(uint64_t got, const cJSON *want, const char *what, int index)
{
    char text[20];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)got);
    if (!cJSON_IsString(want) || strcmp(text, want->valuestring) != 0) fail_msg("%s %d: another hash than the oracle's", what, index);
}

static void check_small(const nb_tokenizer *t, const char *which)
{
    const cJSON *row, *rows = nb_json_find(expected, "small");
    assert_true(cJSON_GetArraySize(rows) > 30);
    cJSON_ArrayForEach(row, rows)
    {
        const char *text = nb_json_find(row, "text")->valuestring;
        nb_ids      ids = encode(t, text, strlen(text), true);
        assert_ids(&ids, nb_json_find(row, which), text);
        nb_ids_free(&ids);
    }
}

/* Bytes of each piece that the pattern cuts. */
static nb_buf cuts(const char *text, size_t size)
{
    nb_buf out = {0};
    for (size_t i = 0, n; i < size; i += n) {
        n = nb_split_next(text + i, size - i);
        nb_buf_char(&out, (char)n);
    }
    return out;
}

static void test_cuts(void **state)
{
    (void)state;
    const cJSON *row, *item;
    cJSON_ArrayForEach(row, nb_json_find(expected, "small"))
    {
        const char *text = nb_json_find(row, "text")->valuestring;
        nb_buf      got = cuts(text, strlen(text));
        size_t      i = 0;
        cJSON_ArrayForEach(item, nb_json_find(row, "cuts"))
        {
            if (i >= got.size || (uint8_t)got.data[i] != item->valueint) fail_msg("'%s': piece %zu is not %d bytes", text, i, item->valueint);
            i++;
        }
        assert_int_equal(i, got.size);
        nb_buf_free(&got);
    }
}

static void test_compositions(void **state)
{
    (void)state;
    const cJSON *row;
    int          count = 0;
    cJSON_ArrayForEach(row, nb_json_find(expected, "compositions"))
    {
        const char *parts = row->child->valuestring, *want = row->child->next->valuestring;
        nb_buf      got = {0};
        nb_error    err;
        OK(nb_nfc(&got, parts, strlen(parts), &err), &err);
        assert_string_equal(got.data, want);
        if (strcmp(parts, want) != 0) assert_false(nb_nfc_quick_check(parts, strlen(parts)));
        nb_buf_free(&got);
        count++;
    }
    assert_true(count > 30);
}

static void test_small_cases(void **state)
{
    (void)state;
    check_small(demo, "demo");
    if (published) check_small(published, "published");
}

static void test_random_strings(void **state)
{
    (void)state;
    const cJSON *random = nb_json_find(expected, "random"), *row;
    uint64_t     seed = (uint64_t)nb_json_find(random, "seed")->valueint;
    nb_buf       text = {0};
    int          count = 0;
    cJSON_ArrayForEach(row, nb_json_find(random, "strings"))
    {
        random_string(&text, &seed);
        assert_hash(fnv(text.data, text.size, FNV_START), row->child, "the random string (generators differ)", count);
        nb_ids ids = encode(demo, text.data, text.size, true);
        assert_hash(ids_hash(&ids), row->child->next->next, "ids (demo) of random string", count);
        nb_ids_free(&ids);
        const cJSON *want_cuts = row->child->next->next->next;
        nb_buf       pieces = cuts(text.data, text.size), normal = {0};
        nb_error     err;
        assert_hash(fnv(pieces.data, pieces.size, FNV_START), want_cuts, "cuts of random string", count);
        OK(nb_nfc(&normal, text.data, text.size, &err), &err);
        assert_hash(fnv(normal.data, normal.size, FNV_START), want_cuts->next, "NFC of random string", count);
        nb_buf_free(&pieces);
        nb_buf_free(&normal);
        if (published) {
            ids = encode(published, text.data, text.size, true);
            assert_hash(ids_hash(&ids), row->child->next, "ids (published) of random string", count);
            nb_ids_free(&ids);
        }
        count++;
    }
    assert_true(count >= 600);
    nb_buf_free(&text);
}

/* Every code point there is, as a neighbour of letters, digits and line breaks: where the text is cut, and its NFC. */
static void test_every_code_point(void **state)
{
    (void)state;
    const cJSON *splits = nb_json_find(expected, "split_blocks"), *nfcs = nb_json_find(expected, "nfc_blocks");
    const cJSON *want_split = splits->child, *want_nfc = nfcs->child;
    nb_buf       x = {0}, text = {0}, normal = {0};
    nb_error     err;
    assert_int_equal(cJSON_GetArraySize(splits), 0x110);
    assert_int_equal(cJSON_GetArraySize(nfcs), 0x110);
    for (int block = 0; block < 0x110; block++, want_split = want_split->next, want_nfc = want_nfc->next) {
        uint64_t split = FNV_START, nfc = FNV_START;
        for (int32_t c = block * 0x1000; c < (block + 1) * 0x1000; c++) {
            if (c >= 0xD800 && c < 0xE000) continue;
            nb_buf_clear(&x);
            add_code(&x, c);
            nb_buf_clear(&text);
            nb_buf_add(&text, "a", 1);
            nb_buf_add(&text, x.data, x.size);
            nb_buf_str(&text, "a ");
            nb_buf_add(&text, x.data, x.size);
            nb_buf_str(&text, "1\n");
            nb_buf_add(&text, x.data, x.size);
            nb_buf pieces = cuts(text.data, text.size);
            split = fnv(pieces.data, pieces.size, split);
            nb_buf_free(&pieces);
            nb_buf_clear(&text);
            nb_buf_str(&text, "e");
            nb_buf_add(&text, x.data, x.size);
            nb_buf_str(&text, "\u0334\u0301");
            nb_buf_add(&text, x.data, x.size);
            nb_buf_clear(&normal);
            OK(nb_nfc(&normal, text.data, text.size, &err), &err);
            nfc = fnv(normal.data, normal.size, nfc);
            bool same = normal.size == text.size && memcmp(normal.data, text.data, text.size) == 0;
            if (nb_nfc_quick_check(text.data, text.size) && !same) fail_msg("quick check is wrong about U+%04X", (unsigned)c);
        }
        assert_hash(split, want_split, "cuts in block", block);
        assert_hash(nfc, want_nfc, "NFC in block", block);
    }
    nb_buf_free(&x);
    nb_buf_free(&text);
    nb_buf_free(&normal);
}

static void test_whole_texts(void **state)
{
    (void)state;
    NEEDS_DATA("text/tinyshakespeare.txt");
    const cJSON *row;
    nb_error     err;
    cJSON_ArrayForEach(row, nb_json_find(expected, "texts"))
    {
        const char *name = nb_json_find(row, "text")->valuestring;
        nb_buf      text = {0};
        OK(nb_file_read(&text, unit_data(name), 1 << 24, &err), &err);
        assert_int_equal(text.size, nb_json_find(row, "bytes")->valueint);
        for (int which = 0; which < 2; which++) {
            const nb_tokenizer *t = which ? published : demo;
            const cJSON        *want = nb_json_find(row, which ? "published" : "demo");
            if (!t) continue;
            nb_ids ids = encode(t, text.data, text.size, true);
            assert_int_equal(ids.count, want->child->valueint);
            assert_hash(ids_hash(&ids), want->child->next, name, which);
            assert_decodes_to(t, &ids, text.data, text.size);
            nb_ids_free(&ids);
        }
        nb_buf_free(&text);
    }
}

static void test_reference_cases(void **state)
{
    (void)state;
    NEEDS_DATA("tokenizer/transformersjs_qwen2.json");
    cJSON       *cases;
    const cJSON *row;
    nb_error     err;
    OK(nb_json_file(&cases, unit_data("tokenizer/transformersjs_qwen2.json"), 1 << 20, &err), &err);
    assert_true(cJSON_GetArraySize(cases) >= 13);
    cJSON_ArrayForEach(row, cases)
    {
        const char *text = nb_json_find(row, "text")->valuestring, *decoded = nb_json_find(row, "decoded")->valuestring;
        nb_ids      ids = encode(published, text, strlen(text), true);
        assert_ids(&ids, nb_json_find(row, "ids"), text);
        assert_decodes_to(published, &ids, decoded, strlen(decoded));
        nb_ids_free(&ids);
    }
    cJSON_Delete(cases);
}

static void test_special_tokens(void **state)
{
    (void)state;
    int32_t end = nb_tokenizer_special(demo, "<|im_end|>");
    assert_int_equal(end, 946);
    assert_int_equal(nb_tokenizer_special(demo, "the"), -1);
    assert_int_equal(nb_tokenizer_size(demo), 958);
    assert_true(nb_tokenizer_is_special(demo, end));
    assert_false(nb_tokenizer_is_special(demo, 13));
    assert_false(nb_tokenizer_is_special(demo, -1));
    assert_false(nb_tokenizer_is_special(demo, 1 << 30));

    const char *text = "a<|im_end|>b";
    nb_ids      ids = encode(demo, text, strlen(text), true);
    assert_int_equal(ids.count, 3);
    assert_int_equal(ids.data[1], end);
    nb_buf out = {0};
    nb_tokenizer_decode(demo, ids.data, ids.count, true, &out);
    assert_string_equal(out.data, "ab");
    nb_buf_clear(&out);
    int32_t odd[] = {-5, 64, 1 << 30, 957 + 1, 65};
    nb_tokenizer_decode(demo, odd, NB_COUNT(odd), false, &out);
    assert_string_equal(out.data, "ab");
    nb_ids_free(&ids);
    nb_buf_free(&out);

    /* What a user types stays text: no special id, same bytes back. */
    ids = encode(demo, text, strlen(text), false);
    assert_true(ids.count > 3);
    for (size_t i = 0; i < ids.count; i++) assert_false(nb_tokenizer_is_special(demo, ids.data[i]));
    assert_decodes_to(demo, &ids, text, strlen(text));
    nb_ids_free(&ids);
}

/* ASCII, bytes of all kinds, and cut characters: encode and decode give the same bytes as long as NFC has nothing to do. */
static void test_any_bytes_round_trip(void **state)
{
    (void)state;
    uint64_t seed = 3;
    char     text[200];
    for (int round = 0; round < 4000; round++) {
        size_t n = unit_random(&seed) % sizeof text;
        int    kind = round % 3;
        for (size_t i = 0; i < n; i++) {
            uint32_t r = unit_random(&seed), any = r & 0xFF, some = (uint8_t)" a1'\n\xE4\xBD\xA0\xF0\x9F"[r % 10];
            text[i] = (char)(kind == 0 ? any : kind == 1 ? some : r % 3 ? 'a' + r % 26 : any);
        }
        if (!nb_nfc_quick_check(text, n)) continue;
        nb_ids ids = encode(demo, text, n, round & 1);
        assert_decodes_to(demo, &ids, text, n);
        nb_ids_free(&ids);
    }
}

static void test_nul_bytes_are_text(void **state)
{
    (void)state;
    nb_ids ids = encode(demo, "a\0b", 3, true);
    assert_decodes_to(demo, &ids, "a\0b", 3);
    nb_ids_free(&ids);
}

/* The answer of merging must not depend on the length of the piece: words from the text, glued by letters only, against a
 * search written from the definition. */
static void naive_merge(nb_ids *ids, const cJSON *merges, const cJSON *vocabulary, const char *word)
{
    char pieces[200][64];
    int  n = 0;
    for (; word[n]; n++) snprintf(pieces[n], sizeof pieces[n], "%c", word[n]);
    for (bool again = true; again;) {
        const cJSON *m;
        again = false;
        cJSON_ArrayForEach(m, merges)
        {
            const char *left = cJSON_IsArray(m) ? m->child->valuestring : NULL, *right = left ? m->child->next->valuestring : NULL;
            char        copy[128];
            if (!left) {
                snprintf(copy, sizeof copy, "%s", m->valuestring);
                left = copy;
                copy[strcspn(copy, " ")] = 0;
                right = copy + strlen(copy) + 1;
            }
            for (int i = 0; i + 1 < n && !again; i++) {
                if (strcmp(pieces[i], left) != 0 || strcmp(pieces[i + 1], right) != 0) continue;
                strcat(pieces[i], right);
                memmove(pieces[i + 1], pieces[i + 2], sizeof pieces[0] * (size_t)(n - i - 2));
                n--;
                again = true;
            }
            if (again) break;
        }
    }
    nb_error err;
    for (int i = 0; i < n; i++) OK(nb_ids_push(ids, cJSON_GetObjectItemCaseSensitive(vocabulary, pieces[i])->valueint, &err), &err);
}

static void test_merging_by_definition(void **state)
{
    (void)state;
    cJSON   *root;
    nb_error err;
    uint64_t seed = 5;
    OK(nb_json_file(&root, unit_path("tools/demo/model/tokenizer.json"), 1 << 20, &err), &err);
    const cJSON *model = nb_json_find(root, "model");
    for (int length = 1; length < 150; length += 1 + length / 12) {
        char word[200];
        for (int i = 0; i < length; i++) word[i] = "etaoinshrdlu"[unit_random(&seed) % 12];
        word[length] = 0;
        nb_ids want = {0}, got = encode(demo, word, (size_t)length, false);
        naive_merge(&want, nb_json_find(model, "merges"), nb_json_find(model, "vocab"), word);
        assert_int_equal(got.count, want.count);
        assert_memory_equal(got.data, want.data, want.count * sizeof *want.data);
        nb_ids_free(&want);
        nb_ids_free(&got);
    }
    cJSON_Delete(root);
}

/* A megabyte without a space, and of marks that all want reordering: seconds would mean that something is quadratic. */
static void test_long_runs_are_not_quadratic(void **state)
{
    (void)state;
    enum { SIZE = 1 << 20 };
    char  *text = malloc(SIZE);
    double start = nb_seconds();
    for (int kind = 0; kind < 4; kind++) {
        for (size_t i = 0; i < SIZE; i++)
            text[i] = kind == 0 ? 'a' : kind == 1 ? (char)('a' + i * 7 % 26) : kind == 2 ? ' ' : "\xCC\x81\xCC\xA7"[i % 4];
        nb_ids ids = encode(demo, text, SIZE, true);
        if (kind < 3) assert_decodes_to(demo, &ids, text, SIZE);
        nb_ids_free(&ids);
    }
    assert_true(nb_seconds() - start < 60); /* about 1 s; also under a sanitizer */
    free(text);
}

/* ---- streaming and repair */

static void test_repair(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"plain \xE4\xBD\xA0", "plain \xE4\xBD\xA0"},
        {"\xE4\xBD", "\uFFFD"},                       /* one maximal subpart */
        {"\xF0\x9F\x98" "A", "\uFFFDA"},
        {"\xE4\xE4\xBD\xA0", "\uFFFD\xE4\xBD\xA0"},
        {"\x80\x80", "\uFFFD\uFFFD"},
        {"\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD"},       /* a surrogate: no prefix of it is a start */
        {"\xC0\xAF\xF5", "\uFFFD\uFFFD\uFFFD"},
        {"\xE0\x80", "\uFFFD\uFFFD"},
        {"\xF4\x90", "\uFFFD\uFFFD"},
        {"x\xF0\x9F\x98", "x\uFFFD"},
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        nb_buf b = {0};
        nb_buf_str(&b, cases[i][0]);
        nb_utf8_repair(&b);
        assert_string_equal(b.data, cases[i][1]);
        nb_buf_free(&b);
    }
    nb_buf empty = {0};
    nb_utf8_repair(&empty);
    assert_int_equal(empty.size, 0);
}

static void test_streaming_equals_whole(void **state)
{
    (void)state;
    uint64_t seed = 11;
    for (int round = 0; round < 3000; round++) {
        int32_t ids[24];
        size_t  n = unit_random(&seed) % NB_COUNT(ids);
        for (size_t i = 0; i < n; i++) /* half of them single bytes above 0x7F */
            ids[i] = (int32_t)(round & 1 ? unit_random(&seed) % 960 : 94 + unit_random(&seed) % 162);
        nb_buf whole = {0}, stream = {0};
        nb_tokenizer_decode(demo, ids, n, true, &whole);
        nb_utf8_repair(&whole);
        nb_detok d;
        nb_detok_start(&d, demo, true);
        for (size_t i = 0; i < n; i++) {
            nb_detok_push(&d, ids[i], &stream);
            nb_buf so_far = {0}; /* never inside a character */
            nb_buf_add(&so_far, stream.data, stream.size);
            nb_utf8_repair(&so_far);
            assert_int_equal(so_far.size, stream.size);
            nb_buf_free(&so_far);
        }
        nb_detok_finish(&d, &stream);
        assert_int_equal(stream.size, whole.size);
        if (whole.size) assert_memory_equal(stream.data, whole.data, whole.size);
        nb_buf_free(&whole);
        nb_buf_free(&stream);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts),                 cmocka_unit_test(test_compositions),
        cmocka_unit_test(test_small_cases),          cmocka_unit_test(test_random_strings),
        cmocka_unit_test(test_every_code_point),     cmocka_unit_test(test_whole_texts),
        cmocka_unit_test(test_reference_cases),      cmocka_unit_test(test_special_tokens),
        cmocka_unit_test(test_any_bytes_round_trip), cmocka_unit_test(test_nul_bytes_are_text),
        cmocka_unit_test(test_merging_by_definition), cmocka_unit_test(test_long_runs_are_not_quadratic),
        cmocka_unit_test(test_repair),               cmocka_unit_test(test_streaming_equals_whole),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
