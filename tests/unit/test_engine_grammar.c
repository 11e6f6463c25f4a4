/* test_engine_grammar.c - forms of answers: what they allow and refuse, byte by byte, and that the mask of a state allows exactly the
 * tokens that can be accepted from it. */
#include "runtime/engine/grammar.h"
#include "runtime/model/config.h"
#include "unit.h"

static nb_tokenizer  *tokenizer;
static nb_token_trie *trie;
static int            vocab;
static int32_t        end_id;

typedef struct {
    const char *form, *yes[8], *no[10]; /* whole texts; a text in `no` must not be accepted as complete */
} table;

/* Read a text byte by byte; complete only when the state may end there. */
static bool takes(nb_grammar *g, const char *text)
{
    for (size_t i = 0; i < strlen(text); i++)
        if (!nb_grammar_accept_bytes(g, text + i, 1)) return false;
    return nb_grammar_may_end(g);
}

static void check(nb_status (*make)(nb_grammar **, const char *, nb_error *), const table *t, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (int side = 0; side < 2; side++) {
            const char *const *texts = side ? t[i].no : t[i].yes;
            for (int k = 0; k < (side ? 10 : 8) && texts[k]; k++) {
                nb_error    err;
                nb_grammar *g;
                OK(make(&g, t[i].form, &err), &err);
                if (takes(g, texts[k]) == (side == 1)) fail_msg("%s: '%s' should be %s", t[i].form, texts[k], side ? "refused" : "accepted");
                nb_grammar_free(g);
            }
        }
}

static nb_status make_regex(nb_grammar **g, const char *form, nb_error *err) { return nb_grammar_regex(g, form, trie, err); }

static nb_status make_schema(nb_grammar **g, const char *form, nb_error *err)
{
    cJSON *schema;
    OK(nb_json_parse(&schema, form, strlen(form), "schema", err), err);
    nb_status status = nb_grammar_json_schema(g, schema, trie, err);
    cJSON_Delete(schema);
    return status;
}

static void test_regex(void **state)
{
    (void)state;
    const table t[] = {
        { "abc", { "abc" }, { "", "ab", "abcd", "abd" } },
        { "a|bc|", { "a", "bc", "" }, { "b", "ab", "abc" } },
        { "(a|b)*c+", { "c", "abac", "bbccc" }, { "", "ab", "ac1" } },
        { "^[0-9]{3}-[0-9]{2,4}$", { "123-45", "123-4567" }, { "123-4", "123-45678", "12-345", "123-45-" } },
        { "[^a-c]x?", { "d", "dx", "\xC3\xA9x", "\xF0\x9F\x98\x80" }, { "a", "bx", "dxx", "\xC3" } },
        { "\\d+\\.\\d{2}", { "3.14", "100.00" }, { "3.1", ".12", "a.12" } },
        { "\\w\\W\\s\\S", { "a. b", "_!\tZ" }, { "..  ", "a.bb" } },
        { "(?:ab){2}", { "abab" }, { "ab", "ababab", "aba" } },
        { "(a*)*b", { "b", "aab" }, { "a", "ba" } }, /* nothing, as often as you like */
        { "[\\u00e0-\\u017f]{2}", { "\xC3\xA9\xC5\xBE" }, { "ee", "\xC3\xA9" } },
        { "[\\x{", { NULL }, { NULL } },
        { ".", { "x", "\xE4\xB8\xAD" }, { "\n", "xy", "\x80" } },
        { "[]a]+", { "]a]" }, { "b" } },
        { "[a-]b", { "-b", "ab" }, { "b" } },
        { "a{2,}", { "aa", "aaaaa" }, { "a" } },
    };
    for (size_t i = 0; i < NB_COUNT(t); i++)
        if (t[i].yes[0]) check(make_regex, &t[i], 1);
    static const char *const wrong[] = { "(", ")", "[a", "a{", "a{3,2}", "*a", "\\", "[b-a]", "a{99999}", "\\xZZ", "a**" };
    static const char *const not_here[] = { "(?=a)b", "(a)\\1", "\\bword" };
    for (size_t i = 0; i < NB_COUNT(wrong); i++) {
        nb_error    err;
        nb_grammar *g;
        assert_int_not_equal(make_regex(&g, wrong[i], &err), NB_OK);
        assert_null(g);
    }
    for (size_t i = 0; i < NB_COUNT(not_here); i++) {
        nb_error    err;
        nb_grammar *g;
        FAILS(make_regex(&g, not_here[i], &err), NB_ERR_UNSUPPORTED, "not supported", &err);
    }
}

static void test_schema(void **state)
{
    (void)state;
    const table t[] = {
        { "true", { "1", "\"x\"", "[1, {\"a\": null}]", "{\"a\": [true, false]}", "-1.5e3" }, { "", "01", "{a: 1}", "[1,]", "nul", "'x'", "1 2" } },
        { "{\"type\": \"string\"}", { "\"\"", "\"a\\n\\u00e9\"", "\"\xC3\xA9\"" }, { "\"\n\"", "\"a", "a", "\"\\x\"", "1" } },
        { "{\"type\": \"string\", \"minLength\": 2, \"maxLength\": 3}", { "\"ab\"", "\"a\\nb\"", "\"\xC3\xA9\xC3\xA9\"" }, { "\"a\"", "\"abcd\"" } },
        { "{\"type\": \"string\", \"pattern\": \"^[a-z]+$\"}", { "\"abc\"" }, { "\"\"", "\"aB\"", "\"ab1\"" } },
        { "{\"type\": \"string\", \"pattern\": \"b\"}", { "\"b\"", "\"abc\"" }, { "\"ac\"" } },
        { "{\"type\": \"string\", \"pattern\": \"^\\\"q\\\"$\"}", { "\"\\\"q\\\"\"" }, { "\"\"q\"\"" } },
        { "{\"type\": \"string\", \"format\": \"date\"}", { "\"2024-02-29\"" }, { "\"2024-13-01\"", "\"24-01-01\"" } },
        { "{\"type\": \"integer\"}", { "0", "-7", "123" }, { "1.5", "00", "-", "\"1\"" } },
        { "{\"type\": \"integer\", \"minimum\": 5, \"maximum\": 123}", { "5", "9", "10", "99", "100", "123" }, { "4", "124", "-5", "05", "1000", "0" } },
        { "{\"type\": \"integer\", \"minimum\": -12, \"exclusiveMaximum\": 3}", { "-12", "-1", "0", "2" }, { "3", "-13", "-0", "-20" } },
        { "{\"type\": [\"integer\", \"null\"]}", { "3", "null" }, { "nul", "\"\"" } },
        { "{\"enum\": [\"red\", 5, null, {\"a\": 1}]}", { "\"red\"", "5", "null", "{\"a\": 1}" }, { "red", "6", "{}" } },
        { "{\"const\": \"x\\\"y\"}", { "\"x\\\"y\"" }, { "\"x\"" } },
        { "{\"type\": \"array\", \"items\": {\"type\": \"boolean\"}, \"minItems\": 1, \"maxItems\": 2}", { "[true]", "[true, false]", "[true,false]" },
          { "[]", "[true, true, true]", "[1]", "[true,]" } },
        { "{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\"}, \"b\": {\"type\": \"string\"}, \"c\": {}}, \"required\": [\"b\"]}",
          { "{\"b\": \"\"}", "{\"a\": 1, \"b\": \"x\"}", "{\"a\":1,\"b\":\"x\",\"c\":[1]}", "{\n  \"b\": \"\"\n}" },
          { "{}", "{\"a\": 1}", "{\"b\": \"\", \"a\": 1}", "{\"b\": 1}", "{\"b\": \"\", \"d\": 1}", "{\"b\": \"\",}", "{, \"b\": \"\"}" } },
        { "{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"null\"}}, \"additionalProperties\": {\"type\": \"integer\"}}",
          { "{}", "{\"a\": null}", "{\"x\": 1}", "{\"a\": null, \"x\": 1, \"y\": 2}" }, { "{\"x\": \"s\"}", "{\"x\": 1,}" } },
        { "{\"type\": \"object\"}", { "{}", "{\"x\": {\"y\": 2}}" }, { "[]", "1" } },
        { "{\"anyOf\": [{\"type\": \"integer\"}, {\"type\": \"string\"}]}", { "1", "\"x\"" }, { "true" } },
        { "{\"$defs\": {\"tree\": {\"type\": \"object\", \"properties\": {\"v\": {\"type\": \"integer\"}, \"kids\": {\"type\": \"array\", \"items\": "
          "{\"$ref\": \"#/$defs/tree\"}}}, \"required\": [\"v\"]}}, \"$ref\": \"#/$defs/tree\"}",
          { "{\"v\": 1}", "{\"v\": 1, \"kids\": [{\"v\": 2, \"kids\": []}, {\"v\": 3}]}" }, { "{}", "{\"v\": 1, \"kids\": [1]}" } },
        { "{\"type\": \"array\", \"prefixItems\": [{\"type\": \"integer\"}, {\"type\": \"null\"}]}", { "[1, null]" }, { "[1]", "[null, 1]" } },
    };
    check(make_schema, t, NB_COUNT(t));
    static const struct {
        const char *schema, *says;
        nb_status   status;
    } wrong[] = {
        { "{\"type\": \"number\", \"minimum\": 1}", "'minimum' cannot be guaranteed", NB_ERR_UNSUPPORTED },
        { "{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"string\", \"pattern\": \"(\"}}}", "pattern", NB_ERR_INPUT },
        { "{\"type\": \"object\", \"properties\": {\"a\": {\"not\": {}}}}", "/properties/a", NB_ERR_UNSUPPORTED },
        { "{\"type\": \"thing\"}", "does not exist", NB_ERR_INPUT },
        { "{\"$ref\": \"#/$defs/none\"}", "leads nowhere", NB_ERR_INPUT },
        { "{\"$ref\": \"http://x/y\"}", "leads nowhere", NB_ERR_INPUT },
        { "{\"type\": \"string\", \"format\": \"hostname\"}", "format", NB_ERR_UNSUPPORTED },
        { "{\"type\": \"integer\", \"minimum\": 3, \"maximum\": 2}", "no whole number", NB_ERR_INPUT },
        { "{\"type\": \"object\", \"properties\": {\"a\": {}}, \"required\": [\"b\"]}", "required", NB_ERR_UNSUPPORTED },
        { "{\"enum\": []}", "at least one", NB_ERR_INPUT },
        { "{\"type\": \"string\", \"maxLength\": 1e9}", "beyond", NB_ERR_UNSUPPORTED },
        { "{\"$defs\": {\"a\": {\"$ref\": \"#/$defs/a\"}}, \"$ref\": \"#/$defs/a\"}", "nothing can have it", NB_ERR_BUDGET },
        { "[]", "has to be an object", NB_ERR_INPUT },
    };
    for (size_t i = 0; i < NB_COUNT(wrong); i++) {
        nb_error    err;
        nb_grammar *g;
        FAILS(make_schema(&g, wrong[i].schema, &err), wrong[i].status, wrong[i].says, &err);
        assert_null(g);
    }
}

/* The mask against trying every token, along random answers. */
static void test_masks(void **state)
{
    (void)state;
    static const char *const schemas[] = {
        "{\"type\": \"object\", \"properties\": {\"name\": {\"type\": \"string\"}, \"n\": {\"type\": \"integer\"}}, \"required\": [\"name\"]}", "true",
        "{\"enum\": [\"blue\", \"black\", \"green\"]}" };
    uint64_t seed = 7;
    for (size_t i = 0; i < NB_COUNT(schemas); i++) {
        nb_error    err;
        nb_grammar *g;
        OK(make_schema(&g, schemas[i], &err), &err);
        for (int turn = 0; turn < 40; turn++) {
            const uint64_t *allowed = nb_grammar_allowed(g);
            assert_non_null(allowed);
            int32_t chosen = -1, seen = 0;
            for (int32_t id = 0; id < vocab; id++) {
                bool bit = allowed[id / 64] >> (id % 64) & 1;
                if (id == end_id) {
                    assert_int_equal(bit, nb_grammar_may_end(g));
                    continue;
                }
                if (!bit) {
                    assert_false(nb_grammar_accept(g, id)); /* and leaves the state as it was */
                    continue;
                }
                seed = seed * 6364136223846793005u + 1442695040888963407u;
                if ((seed >> 33) % (uint64_t)++seen == 0) chosen = id;
            }
            if (chosen < 0) {
                assert_true(nb_grammar_must_end(g));
                break;
            }
            assert_true(nb_grammar_accept(g, chosen));
        }
        nb_grammar_free(g);
    }
}

/* Deep nesting and long answers keep to their tables. */
static void test_long(void **state)
{
    (void)state;
    nb_error    err;
    nb_grammar *g;
    OK(make_schema(&g, "true", &err), &err);
    for (int i = 0; i < 20000; i++) assert_true(nb_grammar_accept_bytes(g, "[", 1));
    assert_non_null(nb_grammar_allowed(g));
    for (int i = 0; i < 20000; i++) assert_true(nb_grammar_accept_bytes(g, "]", 1));
    assert_true(nb_grammar_may_end(g));
    nb_grammar_free(g);
    OK(make_schema(&g, "{\"type\": \"array\", \"items\": {\"type\": \"integer\"}}", &err), &err);
    assert_true(nb_grammar_accept_bytes(g, "[1", 2));
    for (int i = 0; i < 100000; i++) assert_true(nb_grammar_accept_bytes(g, ", 12", 4));
    assert_true(nb_grammar_accept_bytes(g, "]", 1));
    assert_true(nb_grammar_must_end(g));
    nb_grammar_free(g);
}

static void test_tools(void **state)
{
    (void)state;
    nb_error    err;
    nb_grammar *g;
    cJSON      *schema;
    const char *text = "{\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}}, \"required\": [\"city\"]}";
    OK(nb_json_parse(&schema, text, strlen(text), "schema", &err), &err);
    const char  *names[] = { "weather", "date" };
    const cJSON *schemas[] = { schema, NULL };
    const char  *call = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Bonn\"}}\n</tool_call>";
    const char  *other = "<tool_call>\n{\"name\": \"date\", \"arguments\": {}}\n</tool_call>";
    OK(nb_grammar_tools(&g, names, schemas, 2, false, trie, &err), &err);
    assert_true(takes(g, call));
    assert_true(nb_grammar_accept_bytes(g, "\n", 1));
    assert_true(takes(g, other));
    nb_grammar_free(g);
    OK(nb_grammar_tools(&g, names, schemas, 1, true, trie, &err), &err);
    assert_true(takes(g, call));
    assert_true(nb_grammar_must_end(g));
    nb_grammar_free(g);
    OK(nb_grammar_tools(&g, names, schemas, 1, true, trie, &err), &err);
    assert_false(takes(g, other));
    nb_grammar_free(g);
    const char *colours[] = { "red", "reddish", "blue" };
    OK(nb_grammar_choice(&g, colours, 3, trie, &err), &err);
    assert_true(takes(g, "red"));
    assert_false(nb_grammar_must_end(g));
    assert_true(takes(g, "dish"));
    assert_true(nb_grammar_must_end(g));
    nb_grammar_free(g);
    cJSON_Delete(schema);
}

static int set_up(void **state)
{
    (void)state;
    nb_error  err;
    nb_config config;
    nb_buf    notes = { 0 };
    OK(nb_tokenizer_open(&tokenizer, unit_path("tools/demo/model"), &err), &err);
    OK(nb_config_open(&config, unit_path("tools/demo/model"), &notes, &err), &err);
    nb_buf_free(&notes);
    vocab = config.vocab;
    end_id = nb_tokenizer_special(tokenizer, "<|im_end|>");
    OK(nb_token_trie_new(&trie, tokenizer, vocab, &end_id, 1, &err), &err);
    return 0;
}
static int tear_down(void **state)
{
    (void)state;
    nb_token_trie_free(trie);
    nb_tokenizer_close(tokenizer);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_regex), cmocka_unit_test(test_schema), cmocka_unit_test(test_masks),
                                        cmocka_unit_test(test_long), cmocka_unit_test(test_tools) };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
