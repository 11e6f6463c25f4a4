/* The JSON layer: what must be accepted and refused (RFC 8259 and our limits), typed members, the printer, streams, and
 * the time that the largest real file takes. */
#include "unit.h"

#include <float.h>
#include <fcntl.h>

#include "runtime/io/file.h"
#include "runtime/io/json.h"

typedef struct {
    const char *text;
    size_t      size;
    const char *part; /* of the message; NULL when it must be accepted */
} json_case;

#define GOOD(s)      {s, sizeof(s) - 1, NULL}
#define BAD(s, part) {s, sizeof(s) - 1, part}

static const json_case cases[] = {
    /* scalars and structure */
    GOOD("null"), GOOD("true"), GOOD("false"), GOOD("0"), GOOD("\"\""), GOOD("[]"), GOOD("{}"), GOOD(" \t\r\n[ ] \n"),
    GOOD("[null]"), GOOD("[1,2,3]"), GOOD("[[],{},[[]]]"), GOOD("{\"a\":1}"), GOOD("{\"a\":{\"a\":{\"a\":1}}}"),
    GOOD("{\"\":0}"), GOOD("{\"a\":1,\"A\":2,\"a \":3}"), GOOD("[{\"a\":1},{\"a\":2}]"), GOOD("{\"b\":{\"a\":1},\"a\":1}"),
    GOOD("{\"a\":[{\"x\":1},{\"x\":1}],\"x\":1}"), GOOD("[\"a\", true , false,null]"),
    /* numbers */
    GOOD("-0"), GOOD("-1"), GOOD("10"), GOOD("0.5"), GOOD("-0.0"), GOOD("1e5"), GOOD("1E5"), GOOD("1e+5"), GOOD("1e-5"),
    GOOD("0e1"), GOOD("0e+1"), GOOD("123.456e-7"), GOOD("1.7976931348623157e308"), GOOD("5e-324"), GOOD("1e-400"),
    GOOD("9007199254740993"), GOOD("18446744073709551616"), GOOD("100000000000000000000000000000000000000000"),
    GOOD("-0.000000000000000000000000000000000000000000000000000000000000000000000000000001"),
    GOOD("1234567890123456789012345678901234567890123456789012345678901234567890"), GOOD("[1 ,2\n]"),
    /* strings */
    GOOD("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""), GOOD("\"\\u0041\""), GOOD("\"\\u00e9\\u4e2d\\uFFFF\""), GOOD("\"\\ud83d\\ude00\""),
    GOOD("\"\\uD834\\uDD1E x\""), GOOD("\"\x7f\""), GOOD("\"\xc2\xa2\""), GOOD("\"\xe4\xb8\xad\""), GOOD("\"\xf0\x9f\x98\x80\""),
    GOOD("\"\xed\x9f\xbf\xee\x80\x80\""), GOOD("\"\xf4\x8f\xbf\xbf\""), GOOD("\"\xef\xbb\xbf\""), GOOD("\"\\u0001\""),
    GOOD("\"a/b // * #\""), GOOD("\"\\\\u0000\""), GOOD("\"\xe2\x80\xa8\""), GOOD("{\"k\\u00e9y\":1,\"key\":2}"),
    GOOD("[\"\\\\\"]"), GOOD("\"\\ud800\\udc00\""), GOOD("\"\\udbff\\udfff\""),
    /* nothing, too much, not closed */
    BAD("", "text ends where a value"), BAD(" ", "text ends where a value"), BAD("[", "text ends"), BAD("{", "text ends"),
    BAD("[1", "text ends"), BAD("[1,", "text ends"), BAD("{\"a\"", "text ends"), BAD("{\"a\":", "text ends"),
    BAD("{\"a\":1", "text ends"), BAD("{\"a\":1,", "text ends"), BAD("1 2", "nothing more"), BAD("{} {}", "nothing more"),
    BAD("[]]", "nothing more"), BAD("{}x", "nothing more after the value, found 'x'"), BAD("[] #", "nothing more"),
    BAD("null\0", "found byte 0x00"), BAD("\"a\"\"b\"", "nothing more"),
    /* structure */
    BAD("]", "expected a value, found ']'"), BAD("}", "expected a value"), BAD(",", "expected a value"), BAD("[,]", "expected a value"),
    BAD("[1,]", "expected a value, found ']'"), BAD("[1,,2]", "expected a value"), BAD("[1 2]", "',' or ']'"), BAD("[1:2]", "',' or ']'"),
    BAD("[}", "expected a value"), BAD("[1}", "',' or ']'"), BAD("{]", "a key"), BAD("{,}", "a key"), BAD("{1:2}", "a key"),
    BAD("{a:1}", "a key in double quotes"), BAD("{'a':1}", "a key in double quotes"), BAD("{\"a\"}", "':' after the key"),
    BAD("{\"a\" 1}", "':' after the key"), BAD("{\"a\":}", "expected a value"), BAD("{\"a\":1,}", "a key in double quotes"),
    BAD("{\"a\":1]", "',' or '}'"), BAD("{\"a\":1 \"b\":2}", "',' or '}'"), BAD("{\"a\",1}", "':' after the key"),
    BAD("{\"a\"::1}", "expected a value"), BAD("{null:1}", "a key"), BAD("/* c */ 1", "expected a value"), BAD("[1] // c", "nothing more"),
    BAD("\x0b[]", "byte 0x0b"), BAD("\x0c" "1", "byte 0x0c"), BAD("\xc2\xa0" "1", "byte 0xc2"),
    /* words */
    BAD("True", "not JSON"), BAD("NULL", "not JSON"), BAD("tru", "bare words"), BAD("nul", "bare words"), BAD("falsy", "bare words"),
    BAD("nan", "bare words"), BAD("NaN", "NaN"), BAD("Infinity", "Infinity"), BAD("-Infinity", "a digit, found 'I'"), BAD("-NaN", "a digit"),
    BAD("[nullx]", "',' or ']'"), BAD("undefined", "expected a value"), BAD("inf", "expected a value"),
    /* numbers */
    BAD("01", "superfluous zero"), BAD("-01", "superfluous zero"), BAD("00", "superfluous zero"), BAD("+1", "expected a value"),
    BAD(".5", "expected a value"), BAD("1.", "decimal point"), BAD("1.e5", "decimal point"), BAD("-", "a digit"), BAD("--1", "a digit"),
    BAD("1e", "exponent"), BAD("1e+", "exponent"), BAD("1e5.5", "nothing more"), BAD("0x10", "nothing more"), BAD("1_000", "nothing more"),
    BAD("1e400", "too large"), BAD("-1e309", "too large"), BAD("[1e99999999999999999999]", "too large"), BAD("\xef\xbc\x91", "byte 0xef"),
    BAD("1.7976931348623159e308", "too large"), BAD("1 e5", "nothing more"), BAD("- 1", "a digit"), BAD("1e 5", "exponent"),
    /* strings */
    BAD("\"", "never closed"), BAD("\"abc", "never closed"), BAD("[\"a]", "never closed"), BAD("'a'", "expected a value"),
    BAD("\"\\\"", "never closed"), BAD("\"\\", "backslash"), BAD("\"\\x41\"", "backslash"), BAD("\"\\'\"", "backslash"), BAD("\"\\a\"", "backslash"),
    BAD("\"\\\0\"", "backslash"), BAD("\"\\u\"", "hexadecimal"), BAD("\"\\u12\"", "hexadecimal"), BAD("\"\\u12g4\"", "hexadecimal"),
    BAD("\"\\u+123\"", "hexadecimal"), BAD("\"\\u 123\"", "hexadecimal"), BAD("\"\\u123", "hexadecimal"), BAD("\"\\U0041\"", "backslash"),
    BAD("\"\\u0000\"", "NUL"), BAD("{\"a\\u0000b\":1}", "NUL"), BAD("\"\\ud800\"", "surrogate"), BAD("\"\\udc00\"", "surrogate"),
    BAD("\"\\ud800\\ud800\"", "surrogate"), BAD("\"\\ud800x\"", "surrogate"), BAD("\"\\ud800\\n\"", "surrogate"), BAD("\"\\udc00\\ud800\"", "surrogate"),
    BAD("\"\\ud83d\\u0041\"", "surrogate"), BAD("{\"\\udfff\":1}", "surrogate"), BAD("\"\\ud800\\u\"", "surrogate"), BAD("\"\\udc00\\udc00\"", "surrogate"),
    BAD("\"a\nb\"", "must be escaped"), BAD("\"a\tb\"", "must be escaped"), BAD("\"\0\"", "must be escaped"), BAD("\"\x1f\"", "must be escaped"),
    /* UTF-8 */
    BAD("\"\xff\"", "0xff is not UTF-8"), BAD("\"\x80\"", "not UTF-8"), BAD("\"\xc3\"", "not UTF-8"), BAD("\"\xc0\xaf\"", "not UTF-8"),
    BAD("\"\xc1\xbf\"", "not UTF-8"), BAD("\"\xe0\x9f\xbf\"", "not UTF-8"), BAD("\"\xed\xa0\x80\"", "not UTF-8"), BAD("\"\xed\xbf\xbf\"", "not UTF-8"),
    BAD("\"\xf0\x8f\xbf\xbf\"", "not UTF-8"), BAD("\"\xf4\x90\x80\x80\"", "not UTF-8"), BAD("\"\xf5\x80\x80\x80\"", "not UTF-8"),
    BAD("\"\xe4\xb8\"", "not UTF-8"), BAD("\"\xf0\x9f\x98\"", "not UTF-8"), BAD("\"\xe4\xb8", "not UTF-8"), BAD("{\"\xe9\":1}", "not UTF-8"),
    BAD("\xef\xbb\xbf{}", "byte order mark"), BAD("\xff\xfe[\0]\0", "byte 0xff"),
    /* duplicate keys */
    BAD("{\"a\":1,\"a\":1}", "duplicate key 'a'"), BAD("{\"\":1,\"\":2}", "duplicate key ''"), BAD("{\"a\":1,\"b\":2,\"a\":3}", "column 14: duplicate key 'a'"),
    BAD("[{\"x\":{\"k\":1,\"k\":2}}]", "duplicate key 'k'"), BAD("{\"a\":1,\"\\u0061\":2}", "duplicate key 'a'"),
    BAD("{\"\\u00e9\":1,\"\xc3\xa9\":2}", "duplicate key '\xc3\xa9'"), BAD("{\"\\/\":1,\"/\":2}", "duplicate key '/'"),
    BAD("{\"a\":{\"b\":1},\"c\":{\"b\":1},\"a\":0}", "duplicate key 'a'"), BAD("{\"x\":1,\"y\":1,\"y\":2,\"x\":2}", "column 14: duplicate key 'y'"),
    BAD("{\"\\ud83d\\ude00\":1,\"\xf0\x9f\x98\x80\":2}", "duplicate key"),
};

static void test_accept_and_refuse(void **state)
{
    (void)state;
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        const json_case *c = &cases[i];
        /* An exact copy without a terminator: the sanitizer sees any read past the end. */
        char *copy = malloc(c->size ? c->size : 1);
        memcpy(copy, c->text, c->size);
        nb_error  err  = {0};
        cJSON    *tree = (cJSON *)1;
        nb_status s    = nb_json_parse(&tree, copy, c->size, "t.json", &err);
        free(copy);
        if (c->part &&
            (s != NB_ERR_INPUT || tree || !strstr(err.text, c->part) || strncmp(err.text, "t.json: line ", 13)))
            fail_msg("case %zu (%s): status %d, '%s', expected '%s'", i, c->text, s, err.text, c->part);
        if (!c->part && (s != NB_OK || !tree)) fail_msg("case %zu (%s): %s", i, c->text, err.text);
        cJSON_Delete(tree);
    }
}

static void test_position(void **state)
{
    (void)state;
    nb_error    err;
    cJSON      *tree;
    const char *text = "{\n  \"\xc3\xa9\": 1,\n  \"a\": 2, \"\xc3\xa9\xc3\xa9\": 3, \"a\": 4\n}";
    FAILS(nb_json_parse(&tree, text, strlen(text), "tokenizer.json", &err), NB_ERR_INPUT,
          "tokenizer.json: line 3, column 20: duplicate key 'a'", &err);
    FAILS(nb_json_parse(&tree, "[1,\n2,\n x]", 10, "f", &err), NB_ERR_INPUT,
          "f: line 3, column 2: expected a value, found 'x'", &err);
}

static void test_limits(void **state)
{
    (void)state;
    nb_error err;
    cJSON   *tree;
    nb_buf   b = {0};
    for (int i = 0; i < 256; i++) nb_buf_str(&b, i % 2 ? "{\"a\":" : "[");
    nb_buf_char(&b, '1');
    for (int i = 255; i >= 0; i--) nb_buf_char(&b, i % 2 ? '}' : ']');
    OK(nb_json_parse(&tree, b.data, b.size, "deep", &err), &err);
    cJSON_Delete(tree);
    nb_buf_clear(&b);
    for (int i = 0; i < 100000; i++) nb_buf_char(&b, '[');
    FAILS(nb_json_parse(&tree, b.data, b.size, "deep", &err), NB_ERR_INPUT, "column 257: nested deeper than 256", &err);
    assert_null(tree);
    nb_buf_clear(&b);
    nb_buf_char(&b, '1');
    for (int i = 0; i < 400; i++) nb_buf_char(&b, '0');
    FAILS(nb_json_parse(&tree, b.data, b.size, "long", &err), NB_ERR_INPUT, "too large for a double", &err);
    /* A duplicate key that is long and not ASCII is cut between characters. */
    nb_buf_clear(&b);
    nb_buf_str(&b, "{\"");
    for (int i = 0; i < 50; i++) nb_buf_str(&b, "\xe4\xb8\xad");
    nb_buf_str(&b, "\":1,\"");
    for (int i = 0; i < 50; i++) nb_buf_str(&b, "\xe4\xb8\xad");
    nb_buf_str(&b, "\":1}");
    FAILS(nb_json_parse(&tree, b.data, b.size, "t", &err), NB_ERR_INPUT, "\xe4\xb8\xad'", &err);
    nb_buf_free(&b);
    /* err may be NULL everywhere. */
    assert_int_equal(nb_json_parse(&tree, "{\"a\":1,\"a\":2}", 13, "t", NULL), NB_ERR_INPUT);
}

/* Many keys must not make the duplicate check quadratic. */
static void test_many_keys(void **state)
{
    (void)state;
    nb_error err;
    cJSON   *tree;
    nb_buf   b = {0};
    nb_buf_char(&b, '{');
    for (int i = 0; i < 300000; i++) nb_buf_printf(&b, "\"a long common prefix of many bytes %d\":%d,", i, i);
    size_t at = b.size;
    nb_buf_str(&b, "\"end\":0}");
    double from = nb_seconds();
    OK(nb_json_parse(&tree, b.data, b.size, "keys", &err), &err);
    double took = nb_seconds() - from;
    assert_int_equal(cJSON_GetArraySize(tree), 300001);
    cJSON_Delete(tree);
    assert_true(took < 10); /* a quadratic check would need minutes */
    b.size = at;
    nb_buf_str(&b, "\"a long common prefix of many bytes 777\":0}");
    FAILS(nb_json_parse(&tree, b.data, b.size, "keys", &err), NB_ERR_INPUT,
          "duplicate key 'a long common prefix of many bytes 777'", &err);
    nb_buf_free(&b);
}

/* ---- typed members ---- */

static cJSON *parse(const char *text)
{
    nb_error err;
    cJSON   *tree;
    OK(nb_json_parse(&tree, text, strlen(text), "test", &err), &err);
    return tree;
}

static void test_integers(void **state)
{
    (void)state;
    cJSON *t = parse(
        "{\"zero\":0,\"neg\":-5,\"big\":9007199254740991,\"round\":4e2,\"whole\":3.0,\"half\":1.5,\"two53\":9007199254740992,"
        "\"more\":9007199254740993,\"huge\":1e300,\"text\":\"7\",\"yes\":true,\"none\":null,\"list\":[1],\"obj\":{}}");
    nb_error err;
    int64_t  v;
    const char *w = "config.json";
    OK(nb_json_get_int(t, "zero", 0, 10, &v, w, &err), &err);
    assert_int_equal(v, 0);
    OK(nb_json_get_int(t, "neg", -5, -5, &v, w, &err), &err);
    assert_int_equal(v, -5);
    OK(nb_json_get_int(t, "big", 0, INT64_MAX, &v, w, &err), &err);
    assert_true(v == 9007199254740991);
    OK(nb_json_get_int(t, "round", 0, 1000, &v, w, &err), &err);
    assert_int_equal(v, 400);
    OK(nb_json_get_int(t, "whole", 0, 1000, &v, w, &err), &err);
    assert_int_equal(v, 3);
    v = 77;
    FAILS(nb_json_get_int(t, "half", 0, 10, &v, w, &err), NB_ERR_INPUT,
          "config.json: half is 1.5, expected a whole number", &err);
    FAILS(nb_json_get_int(t, "two53", 0, INT64_MAX, &v, w, &err), NB_ERR_INPUT, "below 2^53", &err);
    FAILS(nb_json_get_int(t, "more", 0, INT64_MAX, &v, w, &err), NB_ERR_INPUT, "below 2^53", &err);
    FAILS(nb_json_get_int(t, "huge", 0, INT64_MAX, &v, w, &err), NB_ERR_INPUT, "below 2^53", &err);
    FAILS(nb_json_get_int(t, "text", 0, 10, &v, w, &err), NB_ERR_INPUT,
          "config.json: text is a string, expected a whole number", &err);
    FAILS(nb_json_get_int(t, "yes", 0, 10, &v, w, &err), NB_ERR_INPUT, "a truth value", &err);
    FAILS(nb_json_get_int(t, "list", 0, 10, &v, w, &err), NB_ERR_INPUT, "an array", &err);
    FAILS(nb_json_get_int(t, "obj", 0, 10, &v, w, &err), NB_ERR_INPUT, "an object", &err);
    FAILS(nb_json_get_int(t, "none", 0, 10, &v, w, &err), NB_ERR_INPUT, "config.json: none is missing", &err);
    FAILS(nb_json_get_int(t, "Zero", 0, 10, &v, "config.json: vision_config", &err), NB_ERR_INPUT,
          "config.json: vision_config.Zero is missing", &err);
    FAILS(nb_json_get_int(t, "neg", 0, 10, &v, "config.json: vision_config", &err), NB_ERR_INPUT,
          "config.json: vision_config.neg is -5, expected 0 to 10", &err);
    FAILS(nb_json_get_int(t, "big", 0, 10, &v, w, &err), NB_ERR_INPUT, "expected 0 to 10", &err);
    FAILS(nb_json_get_int(NULL, "big", 0, 10, &v, w, &err), NB_ERR_INPUT, "is missing", &err);
    OK(nb_json_opt_int(t, "absent", 0, 10, &v, w, &err), &err);
    OK(nb_json_opt_int(t, "none", 0, 10, &v, w, &err), &err);
    assert_int_equal(v, 77); /* nothing above touched it */
    FAILS(nb_json_opt_int(t, "half", 0, 10, &v, w, &err), NB_ERR_INPUT, "whole number", &err);
    cJSON_Delete(t);
}

static void test_other_members(void **state)
{
    (void)state;
    cJSON      *t = parse("{\"n\":0.25,\"s\":\"text\",\"b\":true,\"f\":false,\"z\":null,\"o\":{\"x\":1}}");
    nb_error    err;
    const char *w = "c", *s = "kept";
    double      d = 9;
    bool        b = false;
    OK(nb_json_get_number(t, "n", 0, 1, &d, w, &err), &err);
    NEAR(d, 0.25, 0);
    FAILS(nb_json_get_number(t, "n", 1, 2, &d, w, &err), NB_ERR_INPUT, "c: n is 0.25, expected 1 to 2", &err);
    FAILS(nb_json_get_number(t, "s", 1, 2, &d, w, &err), NB_ERR_INPUT, "a string, expected a number", &err);
    FAILS(nb_json_get_number(t, "q", 1, 2, &d, w, &err), NB_ERR_INPUT, "c: q is missing", &err);
    OK(nb_json_opt_number(t, "q", 1, 2, &d, w, &err), &err);
    NEAR(d, 0.25, 0);
    OK(nb_json_opt_bool(t, "b", &b, w, &err), &err);
    assert_true(b);
    OK(nb_json_opt_bool(t, "z", &b, w, &err), &err);
    assert_true(b);
    OK(nb_json_opt_bool(t, "f", &b, w, &err), &err);
    assert_false(b);
    FAILS(nb_json_opt_bool(t, "n", &b, w, &err), NB_ERR_INPUT, "expected true or false", &err);
    OK(nb_json_opt_string(t, "z", &s, w, &err), &err);
    assert_string_equal(s, "kept");
    OK(nb_json_get_string(t, "s", &s, w, &err), &err);
    assert_string_equal(s, "text");
    FAILS(nb_json_get_string(t, "z", &s, w, &err), NB_ERR_INPUT, "c: z is missing", &err);
    FAILS(nb_json_get_string(t, "o", &s, w, &err), NB_ERR_INPUT, "c: o is an object, expected a string", &err);
    assert_null(nb_json_find(t, "z"));
    assert_null(nb_json_find(t, "S"));
    assert_null(nb_json_find(nb_json_find(t, "s"), "x"));
    assert_non_null(nb_json_find(nb_json_find(t, "o"), "x"));
    cJSON_Delete(t);
}

/* ---- printing ---- */

static void test_print(void **state)
{
    (void)state;
    cJSON *t = parse("{\"b\":[1,-2.5,1e21,true,null,[],{}],\"a\":{\"k\\n\":\"\xc3\xa9\\u0001\\\"\\\\/\"}}");
    nb_buf b = {0};
    nb_json_print(&b, t, NB_JSON_COMPACT);
    assert_string_equal(b.data, "{\"b\":[1,-2.5,1e+21,true,null,[],{}],\"a\":{\"k\\n\":\"\xc3\xa9\\u0001\\\"\\\\/\"}}");
    nb_buf_clear(&b);
    nb_json_print(&b, t, NB_JSON_SPACED); /* as Python's json.dumps(..., ensure_ascii=False) writes it */
    assert_string_equal(
        b.data, "{\"b\": [1, -2.5, 1e+21, true, null, [], {}], \"a\": {\"k\\n\": \"\xc3\xa9\\u0001\\\"\\\\/\"}}");
    nb_buf_clear(&b);
    nb_json_print(&b, t, NB_JSON_INDENTED); /* and with indent=2 */
    assert_string_equal(b.data,
                        "{\n  \"b\": [\n    1,\n    -2.5,\n    1e+21,\n    true,\n    null,\n    [],\n    {}\n  ],\n"
                        "  \"a\": {\n    \"k\\n\": \"\xc3\xa9\\u0001\\\"\\\\/\"\n  }\n}");
    cJSON_Delete(t);
    nb_buf_free(&b);
}

static void print_number(double v, const char *want)
{
    nb_buf b = {0};
    nb_buf_json_number(&b, v);
    if (strcmp(b.data, want)) fail_msg("%.17g printed as %s, expected %s", v, b.data, want);
    nb_buf_free(&b);
}

static void test_numbers(void **state)
{
    (void)state;
    print_number(0, "0");
    print_number(-0.0, "-0");
    print_number(1e6, "1000000");
    print_number(9007199254740991.0, "9007199254740991");
    print_number(0.1, "0.1");
    print_number(1.0 / 3, "0.3333333333333333");
    print_number(0.1 + 0.2, "0.30000000000000004");
    print_number(1e-5, "1e-05");
    print_number(1e-6, "1e-06");
    print_number(5e-324, "5e-324");
    print_number(DBL_MAX, "1.7976931348623157e+308");
    print_number(NAN, "null");
    print_number(INFINITY, "null");
    print_number(-INFINITY, "null");
    uint64_t seed = 1;
    nb_buf   b    = {0};
    for (int i = 0; i < 20000; i++) { /* any bits that are a number come back the same */
        uint64_t bits = (uint64_t)unit_random(&seed) << 42 ^ (uint64_t)unit_random(&seed) << 21 ^ unit_random(&seed);
        double   v;
        memcpy(&v, &bits, sizeof v);
        if (!isfinite(v)) continue;
        nb_buf_clear(&b);
        nb_buf_json_number(&b, v);
        cJSON *t = parse(b.data);
        if (memcmp(&t->valuedouble, &v, sizeof v))
            fail_msg("%.17g printed as %s reads as %.17g", v, b.data, t->valuedouble);
        cJSON_Delete(t);
    }
    nb_buf_free(&b);
}

static void test_strings(void **state)
{
    (void)state;
    nb_buf b = {0};
    nb_buf_json_string(&b, "a\0b\xff\xe4\xb8\xad\xe4\xb8\x1f\x7f", 11);
    assert_string_equal(b.data, "\"a\\u0000b\xEF\xBF\xBD\xe4\xb8\xad\xEF\xBF\xBD\xEF\xBF\xBD\\u001f\x7f\"");
    nb_buf_clear(&b);
    uint64_t seed = 5;
    for (int i = 0; i < 3000; i++) { /* whatever bytes go in, valid JSON comes out */
        char   bytes[24];
        size_t n = unit_random(&seed) % sizeof bytes;
        for (size_t k = 0; k < n; k++) bytes[k] = (char)(unit_random(&seed) % 3 ? unit_random(&seed) % 255 + 1 : '\\');
        nb_buf_clear(&b);
        nb_buf_json_string(&b, bytes, n);
        cJSON *t = parse(b.data);
        if (nb_utf8_valid(bytes, n)) {
            assert_int_equal(strlen(t->valuestring), n);
            assert_memory_equal(t->valuestring, bytes, n);
        }
        cJSON_Delete(t);
    }
    nb_buf_free(&b);
}

/* Definition of UTF-8 by encoding: the 1,112,064 scalar values and nothing else. */
static void test_utf8(void **state)
{
    (void)state;
    size_t accepted = 0;
    for (unsigned a = 0; a < 256; a++)
        for (unsigned b = 0; b < 256; b++) {
            char two[2] = {(char)a, (char)b};
            accepted += nb_utf8_next(two, 2) == 2;
        }
    assert_int_equal(accepted, 0x800 - 0x80);
    accepted = 0;
    for (unsigned v = 0; v < 1u << 24; v++) {
        char three[3] = {(char)(v >> 16), (char)(v >> 8), (char)v};
        accepted += v >> 16 >= 0xE0 && nb_utf8_next(three, 3) == 3;
    }
    assert_int_equal(accepted, 0x10000 - 0x800 - 0x800);
    for (unsigned code = 0x10000; code < 0x200000; code++) {
        char four[4] = {(char)(0xF0 | code >> 18), (char)(0x80 | (code >> 12 & 63)), (char)(0x80 | (code >> 6 & 63)),
                        (char)(0x80 | (code & 63))};
        if (nb_utf8_valid(four, 4) != (code < 0x110000)) fail_msg("U+%X judged wrongly", code);
        if (code < 0x110000 && nb_utf8_valid(four, 3)) fail_msg("U+%X cut off was accepted", code);
    }
    assert_true(nb_utf8_valid("", 0));
}

/* ---- streams ---- */

static char folder[] = "/tmp/nibble-json-XXXXXX";

static const char *write_file(const char *name, const void *data, size_t n)
{
    static char path[128];
    nb_error    err;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    OK(nb_file_write_atomic(path, data, n, &err), &err);
    return path;
}

typedef struct {
    const char *text, *rows; /* rows printed compactly, each with "@line ", separated by '|' */
    const char *part;        /* of the error after those rows; NULL when the file ends well */
} stream_case;

static const stream_case streams[] = {
    {"", "", NULL},
    {" \n\n \t\r\n", "", NULL},
    {"\xef\xbb\xbf", "", NULL},
    {"{\"a\":1}", "@1 {\"a\":1}", NULL},
    {"{\"a\":1}\n{\"a\":2}\n", "@1 {\"a\":1}|@2 {\"a\":2}", NULL},
    {"\xef\xbb\xbf{\"a\":1}\r\n\r\n  {\"a\":2}", "@1 {\"a\":1}|@3 {\"a\":2}", NULL},
    {"{\n \"messages\": [\n {\"x\": \"}\"}\n ]\n}\n", "@1 {\"messages\":[{\"x\":\"}\"}]}", NULL},
    {"{\n\"a\":1}\n{\n\"a\":2\n}\n{\"a\":3}", "@1 {\"a\":1}|@3 {\"a\":2}|@6 {\"a\":3}", NULL},
    {"1\n\"x\"\nnull\n", "@1 1|@2 \"x\"|@3 null", NULL},
    {"[]", "", NULL},
    {" \n [ \n ] \n", "", NULL},
    {"[1]", "@1 1", NULL},
    {"\xef\xbb\xbf[{\"a\":1},{\"a\":2}]", "@1 {\"a\":1}|@1 {\"a\":2}", NULL},
    {"[\n  {\"a\": \"],[\\\"\"},\n\n  [1,\n2] ,\n 3\n]\n", "@2 {\"a\":\"],[\\\"\"}|@4 [1,2]|@6 3", NULL},
    {"{\"a\":\"\\\\\"}\n{\"b\":\"\\\"{\"}\n", "@1 {\"a\":\"\\\\\"}|@2 {\"b\":\"\\\"{\"}", NULL},
    /* damaged */
    {"{\"a\":1}\n{\"a\":\n", "@1 {\"a\":1}", "line 2, column 6: the value is not closed at the end of the line"},
    {"{\"a\":1}\n{\"a\":2", "@1 {\"a\":1}", "line 2, column 7: the text ends where"},
    {"{\"a\":1}\n{\"a\":\"x\n{\"a\":3}\n", "@1 {\"a\":1}", "line 2, column 8: a string is not closed"},
    {"{\"a\":1} {\"a\":2}\n", "", "line 1, column 9: expected nothing more after the value, found '{'"},
    {"{\"a\":1},\n{\"a\":2}\n", "", "line 1, column 8: expected nothing more"},
    {"{\"a\":1}\n\n {\"a\":1,\"a\":2}\n", "@1 {\"a\":1}", "line 3, column 9: duplicate key 'a'"},
    {"{\"a\":1}\n{'a':1}\n{\"a\":3}", "@1 {\"a\":1}", "line 2, column 2: expected a key"},
    {"hello\n", "", "line 1, column 1: expected a value"},
    {"{\n\"a\":1\n", "", "line 3, column 1: the text ends"},
    {"[1,2", "@1 1", "the file ends inside the array"},
    {"[", "", "the file ends inside the array"},
    {"[1,", "@1 1", "the file ends inside the array"},
    {"[1,]", "@1 1", "line 1, column 4: expected a value"},
    {"[,1]", "", "line 1, column 2: expected a value"},
    {"[1,,2]", "@1 1", "line 1, column 4: expected a value"},
    {"[1,\n{}{}]", "@1 1", "line 2, column 3: expected nothing more"},
    {"[1]\n[2]\n", "", "line 2, column 1: text after the end of the array"},
    {"[\n{\"a\":\"x\n\"}]", "", "line 2, column 8: a string is not closed"},
    {"[{\"a\":1]", "", "line 1, column 9: the file ends inside the array"},
    {"[\"\xff\"]", "", "line 1, column 3: byte 0xff is not UTF-8"},
    {"\x1f\x8b\x08junk", "", "gzip"},
    {"{\"t\":NaN}\n", "", "NaN"},
};

static void test_streams(void **state)
{
    (void)state;
    for (size_t i = 0; i < NB_COUNT(streams); i++) {
        const stream_case *c    = &streams[i];
        const char        *path = write_file("s", c->text, strlen(c->text));
        nb_error           err  = {0};
        nb_json_stream    *s;
        nb_buf             rows   = {0};
        cJSON             *row    = NULL;
        size_t             line   = 0;
        nb_status          status = nb_json_stream_open(&s, path, &err);
        nb_buf_str(&rows, "");
        while (status == NB_OK && (status = nb_json_stream_next(s, &row, &line, &err)) == NB_OK && row) {
            nb_buf_printf(&rows, "%s@%zu ", rows.size ? "|" : "", line);
            nb_json_print(&rows, row, NB_JSON_COMPACT);
            cJSON_Delete(row);
        }
        if (status != NB_OK) assert_null(row);
        bool right = c->part ? status != NB_OK && strstr(err.text, c->part) && strstr(err.text, path) : status == NB_OK;
        if (!right || strcmp(rows.data, c->rows))
            fail_msg("stream %zu (%s): status %d, '%s', rows %s; expected '%s', rows %s", i, c->text, status, err.text,
                     rows.data, c->part ? c->part : "no error", c->rows);
        if (s && status != NB_OK) FAILS(nb_json_stream_next(s, &row, NULL, &err), status, "earlier error", &err);
        if (s && status == NB_OK) OK(nb_json_stream_next(s, &row, NULL, &err), &err); /* the end stays the end */
        nb_json_stream_close(s);
        nb_buf_free(&rows);
    }
}

/* Rows longer than the read buffer, cut by it at every place. */
static void test_stream_buffer(void **state)
{
    (void)state;
    nb_buf b = {0};
    for (int form = 0; form < 2; form++) {
        nb_buf_clear(&b);
        if (form) nb_buf_str(&b, "[\n");
        for (int i = 0; i < 300; i++) {
            nb_buf_printf(&b, "{\"i\": %d, \"s\": \"", i);
            for (int k = 0; k < i * 7; k++) nb_buf_str(&b, k % 3 ? "\\\"" : "\xe4\xb8\xad,]}");
            nb_buf_str(&b, form && i < 299 ? "\"},\n" : "\"}\n");
        }
        if (form) nb_buf_str(&b, "]\n");
        assert_true(b.size > 5 * 65536);
        const char     *path = write_file("big", b.data, b.size);
        nb_json_stream *s;
        nb_error        err;
        cJSON          *row;
        size_t          line;
        OK(nb_json_stream_open(&s, path, &err), &err);
        for (int i = 0; i < 300; i++) {
            int64_t     v;
            const char *text;
            OK(nb_json_stream_next(s, &row, &line, &err), &err);
            assert_non_null(row);
            assert_int_equal(line, i + 1 + form);
            OK(nb_json_get_int(row, "i", 0, 300, &v, "row", &err), &err);
            OK(nb_json_get_string(row, "s", &text, "row", &err), &err);
            assert_int_equal(v, i);
            size_t want = 0;
            for (int k = 0; k < i * 7; k++) want += k % 3 ? 1 : 6;
            assert_int_equal(strlen(text), want);
            cJSON_Delete(row);
        }
        OK(nb_json_stream_next(s, &row, &line, &err), &err);
        assert_null(row);
        nb_json_stream_close(s);
    }
    nb_buf_free(&b);
    nb_error        err;
    nb_json_stream *s;
    FAILS(nb_json_stream_open(&s, folder, &err), NB_ERR_INPUT, "is a folder", &err);
    assert_null(s);
    FAILS(nb_json_stream_open(&s, "/nowhere/x.jsonl", &err), NB_ERR_INPUT, "no such file", &err);
    nb_json_stream_close(NULL);
}

/* A row without an end stops at 256 MiB, not at the end of memory: the file is sparse, so it costs no disk. */
static void test_stream_row_limit(void **state)
{
    (void)state;
    const char *path = write_file("endless", "[\"", 2);
    assert_int_equal(truncate(path, 300 << 20), 0);
    nb_error        err;
    nb_json_stream *s;
    cJSON          *row;
    OK(nb_json_stream_open(&s, path, &err), &err);
    FAILS(nb_json_stream_next(s, &row, NULL, &err), NB_ERR_INPUT, "line 1: a value of more than 256 MiB", &err);
    nb_json_stream_close(s);
    unlink(path);
}

/* ---- real files ---- */

static void test_tokenizer_time(void **state)
{
    (void)state;
    NEEDS_DATA("qwen2-vl-2b-instruct-awq/tokenizer.json");
    const char *path = unit_data("qwen2-vl-2b-instruct-awq/tokenizer.json");
    nb_error    err;
    double      best = 1e9;
    for (int i = 0; i < 5; i++) {
        cJSON *t;
        double from = nb_seconds();
        OK(nb_json_file(&t, path, 64 << 20, &err), &err);
        double took = nb_seconds() - from;
        if (took < best) best = took;
        assert_int_equal(cJSON_GetArraySize(nb_json_find(nb_json_find(t, "model"), "vocab")), 151643);
        cJSON_Delete(t);
    }
    printf("tokenizer.json, 7.0 MB: read, validated and parsed in %.1f ms (best of 5)\n", best * 1e3);
    cJSON *t;
    FAILS(nb_json_file(&t, path, 1 << 20, &err), NB_ERR_INPUT, "more than the 1048576 allowed", &err);
    assert_null(t);
}

/* What is printed and parsed again prints the same. */
static void test_round_trip(void **state)
{
    (void)state;
    static const char *files[] = {"tools/demo/model/config.json", "tools/demo/model/tokenizer_config.json",
                                  "tools/demo/model/tokenizer.json"};
    for (size_t i = 0; i < NB_COUNT(files); i++) {
        cJSON   *t;
        nb_error err;
        nb_buf   one = {0}, two = {0};
        OK(nb_json_file(&t, unit_path(files[i]), 1 << 20, &err), &err);
        for (nb_json_style style = NB_JSON_COMPACT; style <= NB_JSON_INDENTED; style++) {
            nb_buf_clear(&one);
            nb_buf_clear(&two);
            nb_json_print(&one, t, style);
            cJSON_Delete(t);
            t = parse(one.data);
            nb_json_print(&two, t, style);
            assert_string_equal(one.data, two.data);
        }
        cJSON_Delete(t);
        nb_buf_free(&one);
        nb_buf_free(&two);
    }
}

static void test_buf(void **state)
{
    (void)state;
    nb_buf   b = {0};
    nb_error err;
    assert_null(b.data);
    nb_buf_str(&b, "");
    assert_string_equal(b.data, "");
    for (int i = 0; i < 1000; i++) nb_buf_printf(&b, "%d,", i);
    assert_int_equal(b.size, 10 * 2 + 90 * 3 + 900 * 4);
    assert_int_equal(strlen(b.data), b.size);
    OK(nb_buf_status(&b, "x", &err), &err);
    nb_buf_add(&b, "x", SIZE_MAX); /* no such size: the buffer fails, and stays as it is */
    size_t size = b.size;
    nb_buf_str(&b, "more");
    assert_int_equal(b.size, size);
    FAILS(nb_buf_status(&b, "a page", &err), NB_ERR_MEMORY, "a page", &err);
    nb_buf_free(&b);
    assert_null(b.data);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return nb_remove_folder(folder, NULL) == NB_OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accept_and_refuse),
        cmocka_unit_test(test_position),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_many_keys),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_other_members),
        cmocka_unit_test(test_print),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_stream_buffer),
        cmocka_unit_test(test_stream_row_limit),
        cmocka_unit_test(test_tokenizer_time),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_buf),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
