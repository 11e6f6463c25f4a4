/* test_tools_official.c - MMMU's and MathVista's own scorers against their published verdicts, and the harness's later rules for options
 * against cases worked out by hand. */
#include "unit.h"

#include "runtime/io/json.h"
#include "tools/eval/score.h"

static const char *text_of(const cJSON *o, const char *key)
{
    const cJSON *v = nb_json_find(o, key);
    return cJSON_IsString(v) ? v->valuestring : "";
}

static nb_list strings_of(const cJSON *array)
{
    nb_list l = { 0 };
    if (!cJSON_IsArray(array)) return l;
    l.items = calloc((size_t)cJSON_GetArraySize(array) + 1, sizeof *l.items);
    for (const cJSON *c = array->child; c; c = c->next) l.items[l.count++] = c->valuestring;
    return l;
}

/* The accepted answers of a row: one text or several. */
static nb_list answers_of(const cJSON *row)
{
    const cJSON *a = nb_json_find(row, "answer");
    if (cJSON_IsArray(a)) return strings_of(a);
    nb_list l = { .items = calloc(1, sizeof *l.items), .count = 1 };
    l.items[0] = a->valuestring;
    return l;
}

typedef struct {
    size_t rows, checked, open, correct;
} seen;

static seen check_mmmu(const char *file)
{
    nb_error        err;
    nb_json_stream *s;
    seen            n = { 0 };
    OK(nb_json_stream_open(&s, unit_data(file), &err), &err);
    for (;; n.rows++) {
        cJSON *row;
        OK(nb_json_stream_next(s, &row, NULL, &err), &err);
        if (!row) break;
        const cJSON *expected = nb_json_find(row, "expected"), *correct = nb_json_find(expected, "correct");
        const char  *options[26] = { NULL }, *response = text_of(row, "response");
        const cJSON *texts = nb_json_find(row, "index2ans"), *list = nb_json_find(row, "options");
        if (cJSON_IsTrue(nb_json_find(expected, "random_fallback"))) { /* their guess; we make none */
            for (const cJSON *c = texts ? texts->child : NULL; c; c = c->next) options[*c->string - 'A'] = c->valuestring;
            for (int i = 0; cJSON_IsArray(list) && i < cJSON_GetArraySize(list); i++) options[i] = cJSON_GetArrayItem(list, i)->valuestring;
            assert_int_equal(nb_score_mmmu_option(response, options), 0);
        } else if (!strcmp(text_of(row, "question_type"), "short-answer")) {
            bool    right;
            nb_list accepted = answers_of(row);
            OK(nb_score_mmmu_open(&right, response, &accepted, &err), &err);
            if (right != cJSON_IsTrue(correct)) fail_msg("%s: %d", text_of(row, "id"), right);
            free(accepted.items);
            n.open++;
            n.checked++;
            n.correct += right;
        } else {
            for (const cJSON *c = texts ? texts->child : NULL; c; c = c->next) options[*c->string - 'A'] = c->valuestring;
            for (int i = 0; cJSON_IsArray(list) && i < cJSON_GetArraySize(list); i++) options[i] = cJSON_GetArrayItem(list, i)->valuestring;
            char        got[2] = { nb_score_mmmu_option(response, options), 0 };
            const char *want = text_of(expected, "parsed");
            if (strcmp(got, want)) fail_msg("%s: '%s', expected '%s'", text_of(row, "id"), got, want);
            n.checked++;
            n.correct += !strcmp(got, text_of(row, "answer"));
        }
        cJSON_Delete(row);
    }
    nb_json_stream_close(s);
    return n;
}

static void test_mmmu(void **state)
{
    (void)state;
    NEEDS_DATA("eval/mmmu/qwen_vl.responses.jsonl");
    seen llava = check_mmmu("eval/mmmu/llava1.5_13b.responses.jsonl"), qwen = check_mmmu("eval/mmmu/qwen_vl.responses.jsonl");
    assert_int_equal(llava.rows, 450);
    assert_int_equal(llava.checked, 449);
    assert_int_equal(qwen.rows, 450);
    assert_int_equal(qwen.checked, 426);
    assert_int_equal(llava.open, 9);
    assert_int_equal(qwen.open, 9);
}

static void check_mathvista(const char *file, int published)
{
    nb_error        err;
    nb_json_stream *s;
    int             rows = 0, correct = 0;
    OK(nb_json_stream_open(&s, unit_data(file), &err), &err);
    for (;; rows++) {
        cJSON *row;
        bool   right;
        OK(nb_json_stream_next(s, &row, NULL, &err), &err);
        if (!row) break;
        const char  *kind = text_of(row, "answer_type");
        nb_math_type type = !strcmp(text_of(row, "question_type"), "multi_choice") ? NB_MATH_CHOICE
                            : !strcmp(kind, "integer") ? NB_MATH_INTEGER : !strcmp(kind, "float") ? NB_MATH_FLOAT : NB_MATH_TEXT;
        nb_list      choices = strings_of(nb_json_find(row, "choices"));
        const cJSON *precision = nb_json_find(row, "precision");
        OK(nb_score_math_official(&right, text_of(row, "extraction"), type, &choices, precision ? (int)precision->valuedouble : 0, text_of(row, "answer"), &err), &err);
        if (right != cJSON_IsTrue(nb_json_find(nb_json_find(row, "expected"), "correct")))
            fail_msg("%s: '%s' for '%s': %d", text_of(row, "pid"), text_of(row, "extraction"), text_of(row, "answer"), right);
        correct += right;
        free(choices.items);
        cJSON_Delete(row);
    }
    nb_json_stream_close(s);
    assert_int_equal(rows, 1000);
    assert_int_equal(correct, published);
}

static int published_correct(const char *file)
{
    nb_error err;
    cJSON   *o;
    OK(nb_json_file(&o, unit_data(file), 1 << 20, &err), &err);
    int n = cJSON_GetObjectItem(cJSON_GetObjectItem(o, "average"), "correct")->valueint;
    cJSON_Delete(o);
    return n;
}

static void test_mathvista(void **state)
{
    (void)state;
    NEEDS_DATA("eval/mathvista/bard.jsonl");
    check_mathvista("eval/mathvista/bard.jsonl", published_correct("eval/mathvista/bard.scores.json"));
    check_mathvista("eval/mathvista/llava_llama_2_13b.jsonl", published_correct("eval/mathvista/llava_llama_2_13b.scores.json"));
}

/* Without the data: every branch once. */
static void test_by_hand(void **state)
{
    (void)state;
    nb_error    err;
    bool        right;
    const char *options[26] = { "red wine", "green tea", "blue milk" };
    const struct {
        const char *answer;
        char        want;
    } letters[] = {
        { "B", 'B' }, { "B.", 'B' }, { "'B'", 'B' }, { "(A) or rather (C)", 'C' }, { "A is wrong, so B is right", 'B' }, { "(B) not A at all", 'B' },
        { "I would say that it must be Green Tea here", 'B' }, { "green tea", 0 }, { "red wine and then blue milk and no more", 'C' }, { "", 0 }, { "AB", 0 },
    };
    for (size_t i = 0; i < NB_COUNT(letters); i++)
        if (nb_score_mmmu_option(letters[i].answer, options) != letters[i].want) fail_msg("'%s'", letters[i].answer);
    const struct {
        const char *answer, *right;
        bool        want;
    } opens[] = {
        { "The answer is 12.", "12", true },          { "The answer is 12.004", "12", true },    { "so 12,500 in all", "12500", true },
        { "about 1.2e4", "12000", true },             { "x = 3 + 4 = 7", "7", true },            { "is 8\nis 9", "8", true },
        { "It is the mitral valve", "mitral", true }, { "it is x", "x", true },                  { "it is fixed", "x", false },
        { "12", "13", false },                        { "is 1/64", "1/64", true },               { "", "5", false },
        { "is -5", "5", false },                      { "is 3.14159", "3.14", true },            { "is .5", "0.5", true },
    };
    for (size_t i = 0; i < NB_COUNT(opens); i++) {
        nb_list one = { .items = (char *[]){ (char *)opens[i].right }, .count = 1 };
        OK(nb_score_mmmu_open(&right, opens[i].answer, &one, &err), &err);
        if (right != opens[i].want) fail_msg("'%s' for '%s': %d", opens[i].answer, opens[i].right, right);
    }
    nb_list choices = { .items = (char *[]){ "12 cm", "15 cm", "18 cm" }, .count = 3 };
    const struct {
        const char  *extraction;
        nb_math_type type;
        int          precision;
        const char  *answer;
        bool         want;
    } maths[] = {
        { "B", NB_MATH_CHOICE, 0, "15 cm", true },   { "(b) 12 cm", NB_MATH_CHOICE, 0, "15 cm", true }, { "18cm", NB_MATH_CHOICE, 0, "18 cm", true },
        { "7.9", NB_MATH_INTEGER, 0, "7", true },    { " -7.9 ", NB_MATH_INTEGER, 0, "-7", true },      { "-0.5", NB_MATH_INTEGER, 0, "0", true },
        { "1e3", NB_MATH_INTEGER, 0, "1000", true }, { "7 kg", NB_MATH_INTEGER, 0, "7", false },        { "nan", NB_MATH_INTEGER, 0, "0", false },
        { "1.249", NB_MATH_FLOAT, 1, "1.2", true },  { "3", NB_MATH_FLOAT, 1, "3.0", true },            { "0.504", NB_MATH_FLOAT, 2, "0.5", true },
        { "0.5", NB_MATH_FLOAT, 2, "0.50", false },  { "[1, 2]", NB_MATH_TEXT, 0, "[1, 2]", true },     { "", NB_MATH_FLOAT, 1, "0.0", false },
    };
    for (size_t i = 0; i < NB_COUNT(maths); i++) {
        OK(nb_score_math_official(&right, maths[i].extraction, maths[i].type, &choices, maths[i].precision, maths[i].answer, &err), &err);
        if (right != maths[i].want) fail_msg("'%s' for '%s': %d", maths[i].extraction, maths[i].answer, right);
    }
}

static void test_current(void **state)
{
    (void)state;
    const char *options[26] = { "red", "Green" };
    const struct {
        const char *answer;
        char        want;
    } cases[] = {
        { "B", 'B' }, { "(B)", 'B' }, { "it is B one two three", 'B' }, { "it is B one two three four", 0 }, /* fifth from the end is too early */
        { "The correct answer is **B**. It has a long explanation behind it", 'B' }, { "the ANSWER  is a long story told by others again", 'A' },
        { "A or B", 0 }, { "green", 'B' }, { "it might be green after all of this talk", 0 }, /* more than twice the options' eight letters */
        { "Z", 'Z' }, { "no idea Z", 'Z' }, { "I can't process this file.", 'Z' }, { "answer is D", 0 }, { "", 0 },
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        char got = nb_score_option_current(cases[i].answer, options);
        if (got != cases[i].want) fail_msg("'%s': %c, expected %c", cases[i].answer, got ? got : '0', cases[i].want ? cases[i].want : '0');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mmmu), cmocka_unit_test(test_mathvista), cmocka_unit_test(test_by_hand), cmocka_unit_test(test_current),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
