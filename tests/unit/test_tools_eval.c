/* test_tools_eval.c - tables, list literals, option inference, ANLS, MathVista's rules, summaries, and divergence statistics,
 * each against cases worked out by hand from the harness's description, and the published ANLS cases. */
#include "temp_files.h"

#include "runtime/io/json.h"
#include "tools/eval/divergence.h"
#include "runtime/io/literal.h"
#include "tools/eval/score.h"
#include "tools/eval/task.h"
#include "runtime/io/tsv.h"

/* ---- tables ------------------------------------------------------------------------------------------------------------ */

static void test_table(void **state)
{
    (void)state;
    nb_error err;
    nb_tsv  *t;
    OK(nb_tsv_open(&t, write_file("good.tsv", "\xef\xbb\xbfindex\tquestion\tanswer\r\n"
                                              "7\tplain\tA\r\n"
                                              "\"8\"\t\"a \"\"quoted\"\"\tfield\nover lines\"\tNA\n"
                                              "\n"
                                              "9\tsay \"hi\" now\t\"NA\""),
                   true, &err),
       &err);
    assert_int_equal(nb_tsv_rows(t), 3);
    assert_string_equal(nb_tsv_index(t, 1), "8");
    assert_int_equal(nb_tsv_find(t, "9"), 2);
    assert_true(nb_tsv_find(t, "10") == SIZE_MAX);
    assert_int_equal(nb_tsv_line(t, 1), 3);
    assert_int_equal(nb_tsv_line(t, 2), 6);
    OK(nb_tsv_row(t, 1, &err), &err);
    assert_string_equal(nb_tsv_get(t, "question"), "a \"quoted\"\tfield\nover lines");
    assert_string_equal(nb_tsv_get(t, "answer"), ""); /* pandas reads NA as missing */
    OK(nb_tsv_row(t, 2, &err), &err);
    assert_string_equal(nb_tsv_get(t, "question"), "say \"hi\" now");
    assert_string_equal(nb_tsv_get(t, "answer"), "NA"); /* quoted: text */
    OK(nb_tsv_row(t, 0, &err), &err);
    assert_string_equal(nb_tsv_get(t, "answer"), "A");
    assert_null(nb_tsv_get(t, "none"));
    nb_tsv_close(t);

    struct {
        const char *text, *message;
    } bad[] = {
        { "", "empty" },
        { "a\tb\n1\t2\n", "no column 'index'" },
        { "index\tb\n", "no rows" },
        { "index\tb\n1\n", "line 2 has 1 columns" },
        { "index\tb\n1\t2\t3\n", "line 2 has 3 columns" },
        { "index\tb\n1\tx\n1\ty\n", "lines 2 and 3 have the same index" },
        { "index\tb\n1\t\"never\nclosed\n", "never closed" },
    };
    for (size_t i = 0; i < NB_COUNT(bad); i++) {
        FAILS(nb_tsv_open(&t, write_file("bad.tsv", bad[i].text), false, &err), NB_ERR_INPUT, bad[i].message, &err);
        assert_null(t);
    }
    FAILS(nb_tsv_open(&t, "/nowhere.tsv", false, &err), NB_ERR_INPUT, "/nowhere.tsv", &err);
    FAILS(nb_tsv_open(&t, "/tmp", false, &err), NB_ERR_INPUT, "not a regular file", &err);
}

static void test_literal(void **state)
{
    (void)state;
    nb_error err;
    struct {
        const char *text, *items[4];
    } cases[] = {
        { "['a', 'b']", { "a", "b" } },
        { " [ 'it\\'s' , \"say \\\"x\\\"\", 12, 'l\\n' ] ", { "it's", "say \"x\"", "12", "l\n" } },
        { "[\"it's\"]", { "it's" } },
        { "['\\u00e9\\x41\\q']", { "\xc3\xa9" "A\\q" } },
        { "plain text", { "plain text" } },
        { "['unfinished", { "['unfinished" } },
        { "['a'] tail", { "['a'] tail" } },
        { "", { "" } },
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        nb_list l;
        size_t  n = 0;
        while (n < 4 && cases[i].items[n]) n++;
        OK(nb_list_parse(&l, cases[i].text, &err), &err);
        assert_int_equal(l.count, n);
        for (size_t j = 0; j < n; j++) assert_string_equal(l.items[j], cases[i].items[j]);
        nb_list_free(&l);
    }
    nb_list empty;
    OK(nb_list_parse(&empty, "[]", &err), &err);
    assert_int_equal(empty.count, 0);
    nb_list_free(&empty);
}

/* ---- rules ------------------------------------------------------------------------------------------------------------- */

static void test_option(void **state)
{
    (void)state;
    const char *options[26] = { "red", "Green", "", "dark blue" }; /* no option C */
    struct {
        const char *answer;
        char        want;
    } cases[] = {
        { "A", 'A' },
        { "(B).", 'B' },
        { "The answer is B: Green", 'B' },
        { "A or B", 0 },                 /* two letters; then no option's text: undecided */
        { "C", 0 },                      /* not an option */
        { "B B", 'B' },                  /* distinct letters count */
        { "it is GREEN", 'B' },          /* text, lower case */
        { "red or green", 0 },
        { "Dark Blue!", 'D' },
        { "", 0 },
        { "Z", 'Z' },
        { "I'm sorry, but without the image provided nothing can be said", 'Z' },
        { "Failed to obtain answer via API. A", 0 },
        { "AB", 0 },
        { "{D}", 'D' },
        { "A dark blue one", 'A' },      /* quirk of the rule: the article is a letter */
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        char got = nb_score_option(cases[i].answer, options);
        if (got != cases[i].want) fail_msg("'%s': got %c, expected %c", cases[i].answer, got ? got : '0', cases[i].want ? cases[i].want : '0');
    }
}

static double anls(const char *answer, const char *accepted)
{
    nb_error err;
    nb_list  l;
    double   s;
    OK(nb_list_parse(&l, accepted, &err), &err);
    OK(nb_score_anls(&s, answer, &l, &err), &err);
    nb_list_free(&l);
    return s;
}

static void test_anls(void **state)
{
    (void)state;
    NEAR(anls("Coca  cola ", "['Coca Cola']"), 1, 0);
    NEAR(anls("CocaCola", "['Coca Cola', 'Coca Cola Company']"), 1 - 1.0 / 9, 1e-12);
    NEAR(anls("The Coca", "['Coca Cola']"), 0, 0);           /* 0.44 is below one half */
    NEAR(anls("abcd", "['abxx']"), 0.5, 1e-12);              /* exactly one half counts */
    NEAR(anls("", "['']"), 1, 0);
    NEAR(anls("", "['x']"), 0, 0);
    NEAR(anls("a   b", "['a b']"), 1, 0);
    NEAR(anls("a   bc", "['a bd']"), 1 - 1.0 / 6, 1e-12);    /* divided by the longer text as it is, spaces included */
    NEAR(anls("\xc3\x89T\xc3\x89", "['\xc3\xa9t\xc3\xa9']"), 1, 0); /* code points, lower case */
    NEAR(anls("\xc3\xa9", "['e']"), 0, 0);
}

/* Similarities published with the ANLS package: those of one half and more are what our score gives. */
static void test_anls_published(void **state)
{
    (void)state;
    NEEDS_DATA("eval/anls/cases.json");
    nb_error err;
    cJSON   *root;
    int      seen = 0;
    OK(nb_json_file(&root, unit_data("eval/anls/cases.json"), 1 << 20, &err), &err);
    for (const cJSON *c = cJSON_GetObjectItem(root, "similarity")->child; c; c = c->next)
        for (int i = 0; i < cJSON_GetArraySize(cJSON_GetObjectItem(c, "gold")); i++, seen++) {
            nb_list one = { .items = (char *[]){ cJSON_GetArrayItem(cJSON_GetObjectItem(c, "gold"), i)->valuestring }, .count = 1 };
            double  got, want = cJSON_GetArrayItem(cJSON_GetObjectItem(c, "similarity"), i)->valuedouble;
            OK(nb_score_anls(&got, cJSON_GetObjectItem(c, "prediction")->valuestring, &one, &err), &err);
            NEAR(got, want < 0.5 ? 0 : want, 0.1);
        }
    assert_int_equal(seen, 10);
    cJSON_Delete(root);
}

static void test_math(void **state)
{
    (void)state;
    const char *options[26] = { "12", "15" };
    struct {
        const char  *reply;
        nb_math_type type;
        char         right;
        const char  *answer;
        bool         hit, prefetch, undecided;
    } cases[] = {
        { "B", NB_MATH_CHOICE, 'B', "15", true, true, false },
        { "15", NB_MATH_CHOICE, 'B', "15", true, true, false },
        { "neither", NB_MATH_CHOICE, 'B', "15", false, false, true },
        { "7", NB_MATH_INTEGER, 0, "7", true, true, false },
        { " 7 \n", NB_MATH_INTEGER, 0, "7", true, true, false },
        { "7.0", NB_MATH_INTEGER, 0, "7", false, false, false }, /* int('7.0') fails; the last number is "7.0" again */
        { "about 1,200 people", NB_MATH_INTEGER, 0, "1200", true, false, false },
        { "The answer is \"3\".", NB_MATH_INTEGER, 0, "3", true, false, false },
        { "8", NB_MATH_INTEGER, 0, "7", false, false, false },
        { "many", NB_MATH_INTEGER, 0, "7", false, false, true },
        { "1.50", NB_MATH_FLOAT, 0, "1.5", true, true, false },
        { "-0.25", NB_MATH_FLOAT, 0, "-0.25", true, true, false },
        { "nan", NB_MATH_FLOAT, 0, "1", false, false, true },
        { "0x10", NB_MATH_INTEGER, 0, "16", false, false, false },
        { "[1, 2]", NB_MATH_TEXT, 0, "[1, 2]", true, false, false },
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        nb_math_score s = nb_score_math(cases[i].reply, cases[i].type, options, cases[i].right, cases[i].answer);
        if (s.hit != cases[i].hit || s.prefetch != cases[i].prefetch || s.undecided != cases[i].undecided)
            fail_msg("'%s': hit %d prefetch %d undecided %d", cases[i].reply, s.hit, s.prefetch, s.undecided);
    }
}

/* ---- benchmarks as a whole ----------------------------------------------------------------------------------------------- */

static const char *spec(const char *name, const char *file)
{
    static char text[400];
    snprintf(text, sizeof text, "%s:%s", name, file);
    return text;
}

/* A one-pixel PNG. */
#define PIXEL "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"

static void check_prompt(const char *name, const char *tsv, size_t row, int pictures, const char *want)
{
    nb_error err;
    nb_task  t;
    nb_chat  chat;
    char     where[256];
    OK(nb_task_open(&t, spec(name, write_file("task.tsv", tsv)), false, 0, &err), &err);
    OK(nb_task_chat(&t, row, &chat, where, &err), &err);
    assert_int_equal(chat.count, 1);
    assert_int_equal(chat.messages[0].count, pictures + 1);
    for (int i = 0; i < pictures; i++) assert_int_equal(chat.messages[0].parts[i].kind, NB_PART_IMAGE);
    assert_string_equal(chat.messages[0].parts[pictures].text, want);
    nb_chat_free(&chat);
    nb_task_close(&t);
}

static void test_prompts(void **state)
{
    (void)state;
    const char *columns = "index\timage\tquestion\thint\tA\tB\tC\tanswer\tsplit\n";
    char        tsv[4096];
    snprintf(tsv, sizeof tsv, "%s1\t%s\tWhat?\tLook.\tone\t\tthree\tA\tvalidation\n2\t1\tOpen?\t\t\t\t\t42\tdev\n3\t\"['%s', '%s']\"\tTwo?\t\tx\ty\t\tB\tdev\n",
             columns, PIXEL, PIXEL, PIXEL);
    check_prompt("MMMU_DEV_VAL", tsv, 0, 1,
                 "Hint: Look.\nQuestion: What?\nOptions:\nA. one\nC. three\nPlease select the correct answer from the options above.");
    check_prompt("MMMU_DEV_VAL", tsv, 1, 1, "Question: Open?"); /* the picture of row 1, by its index */
    check_prompt("MMMU_DEV_VAL", tsv, 2, 2, "Question: Two?\nOptions:\nA. x\nB. y\nPlease select the correct answer from the options above.");
    check_prompt("mmbench", tsv, 0, 1,
                 "Hint: Look.\nQuestion: What?\nOptions:\nA. one\nC. three\nPlease select the correct answer from the options above.");
    check_prompt("DocVQA_VAL", tsv, 0, 1, "What?\nPlease try to answer the question with short words or phrases if possible.");
    snprintf(tsv, sizeof tsv, "%s1\t%s\t\xe8\xbf\x99\t\tone\ttwo\t\tA\tdev\n", columns, PIXEL);
    check_prompt("MMBench_DEV_EN", tsv, 0, 1,
                 "Question: \xe8\xbf\x99\nOptions:\nA. one\nB. two\n\xe8\xaf\xb7\xe7\x9b\xb4\xe6\x8e\xa5\xe5\x9b\x9e\xe7\xad\x94\xe9\x80\x89\xe9\xa1\xb9"
                 "\xe5\xad\x97\xe6\xaf\x8d\xe3\x80\x82");

    nb_error err;
    nb_task  t;
    nb_chat  chat;
    char     where[256];
    FAILS(nb_task_open(&t, "nofile", false, 0, &err), NB_ERR_ARGUMENT, "NAME:FILE.tsv", &err);
    FAILS(nb_task_open(&t, "chartqa:x.tsv", false, 0, &err), NB_ERR_INPUT, "x.tsv", &err);
    FAILS(nb_task_open(&t, spec("mathvista", write_file("task.tsv", tsv)), false, 0, &err), NB_ERR_INPUT, "question_type", &err);
    snprintf(tsv, sizeof tsv, "%s1\t99\tWhat?\t\ta\tb\t\tA\tdev\n2\t\tWhat?\t\ta\tb\t\tA\tdev\n", columns);
    OK(nb_task_open(&t, spec("mmmu", write_file("task.tsv", tsv)), false, 0, &err), &err);
    FAILS(nb_task_chat(&t, 0, &chat, where, &err), NB_ERR_INPUT, "line 2", &err);
    FAILS(nb_task_chat(&t, 1, &chat, where, &err), NB_ERR_INPUT, "empty", &err);
    nb_task_close(&t);
}

static nb_task_summary score_by(nb_score_rules rules, const char *name, const char *tsv, const char *const *answers)
{
    nb_error        err;
    nb_task         t;
    nb_task_summary s;
    OK(nb_task_open(&t, spec(name, write_file("task.tsv", tsv)), false, 0, &err), &err);
    t.scoring = rules;
    for (size_t i = 0; i < t.rows; i++) OK(nb_task_answer(&t, i, answers[i], &err), &err);
    OK(nb_task_summarize(&s, &t, &err), &err);
    nb_task_close(&t);
    return s;
}

static nb_task_summary score_all(const char *name, const char *tsv, const char *const *answers)
{
    return score_by(NB_RULES_PUBLISHED, name, tsv, answers);
}

/* Answers on which the three sets of rules differ. */
static void test_rules(void **state)
{
    (void)state;
    const char *mmmu = "index\timage\tquestion\tA\tB\tanswer\n1\tx\tq\tr\ts\tB\n2\tx\tq\t\t\t1000\n3\tx\tq\tr\ts\tA\n";
    const char *said[] = { "(A) no, (B)", "the answer is 1,000", "A is the one that I take from them" };
    const char *math = "index\timage\tquestion\tquestion_type\tanswer_type\tchoices\tanswer\tanswer_option\tprecision\n"
                       "1\tx\tq\tfree_form\tfloat\t\t1.2\t\t1\n2\tx\tq\tmulti_choice\ttext\t['ab', 'xyz']\tab\tA\t\n";
    const char  *replies[] = { "1.24", "a b" };
    const double want[3][2] = { { 100.0 / 3, 0 }, { 0, 0 }, { 100, 100 } };
    for (int rules = 0; rules < 3; rules++) {
        nb_task_summary s = score_by((nb_score_rules)rules, "mmmu", mmmu, said);
        NEAR(s.value, want[rules][0], 1e-9);
        nb_task_summary_free(&s);
        s = score_by((nb_score_rules)rules, "mathvista", math, replies);
        NEAR(s.value, want[rules][1], 1e-9);
        nb_task_summary_free(&s);
    }
}

static double part(const nb_task_summary *s, const char *label)
{
    for (size_t i = 0; i < s->part_count; i++)
        if (!strcmp(s->parts[i].label, label)) return s->parts[i].value;
    return NAN;
}

static void test_summaries(void **state)
{
    (void)state;
    const char *bench = "index\timage\tquestion\tA\tB\tanswer\tcategory\tl2-category\n"
                        "1\tx\tq\tr\ts\tA\tc\tCP\n1000001\t1\tq\ts\tr\tB\tc\tCP\n"  /* both right */
                        "2\tx\tq\tr\ts\tA\tc\tLR\n1000002\t2\tq\ts\tr\tB\tc\tLR\n"  /* base right, rotation wrong */
                        "3\tx\tq\tr\ts\tB\tc\tLR\n";                                /* undecided */
    nb_task_summary s = score_all("mmbench", bench, (const char *[]){ "A", "B", "A", "A", "hm" });
    NEAR(s.value, 100.0 / 3, 1e-9);
    assert_int_equal(s.items, 3);
    assert_int_equal(s.undecided, 1);
    NEAR(s.error, 100 * sqrt((1.0 / 3 - 1.0 / 9) / 2), 1e-9);
    NEAR(part(&s, "vanilla, base rows"), 200.0 / 3, 1e-9);
    NEAR(part(&s, "vanilla, all rows"), 60, 1e-9);
    NEAR(part(&s, "l2-category: CP"), 100, 1e-9);
    NEAR(part(&s, "l2-category: LR"), 0, 1e-9);
    nb_task_summary_free(&s);

    const char *mmmu = "index\timage\tquestion\tA\tB\tanswer\tsplit\n1\tx\tq\tr\ts\tA\tdev\n2\tx\tq\tr\ts\tB\tvalidation\n"
                       "3\tx\tq\t\t\t42 cm\tvalidation\n4\tx\tq\t\t\t7\tvalidation\n";
    s = score_all("mmmu", mmmu, (const char *[]){ "B", "B", "It is 42 CM long", "eight" });
    NEAR(s.value, 200.0 / 3, 1e-9); /* validation only; the open answers by their text */
    NEAR(part(&s, "split: dev"), 0, 0);
    nb_task_summary_free(&s);

    const char *doc = "index\timage\tquestion\tanswer\n1\tx\tq\t\"['$5', '5 dollars']\"\n2\tx\tq\tabcd\n";
    s = score_all("docvqa", doc, (const char *[]){ "5 dollar", "abce" });
    NEAR(s.value, 100 * ((1 - 1.0 / 9) + 0.75) / 2, 1e-9);
    assert_string_equal(s.metric, "ANLS");
    nb_task_summary_free(&s);

    const char *math = "index\timage\tquestion\tquestion_type\tanswer_type\tchoices\tanswer\tanswer_option\ttask\n"
                       "1\tx\tq\tmulti_choice\ttext\t['a', 'b']\tb\tB\tt\n2\tx\tq\tfree_form\tinteger\t\t5\t\tt\n";
    s = score_all("mathvista", math, (const char *[]){ "b", "I count 5 of them" });
    NEAR(s.value, 100, 1e-9);
    NEAR(part(&s, "prefetch rate"), 50, 1e-9);
    nb_task_summary_free(&s);
}

/* ---- statistics -------------------------------------------------------------------------------------------------------- */

static void test_statistics(void **state)
{
    (void)state;
    nb_error       err;
    nb_token_score tokens[] = {
        { .kl = 0.1f, .nll = 1, .ref_nll = 0.5f, .same_top = true, .in_top5 = true, .answer = true },
        { .kl = 0.3f, .nll = 2, .ref_nll = 2.5f, .same_top = false, .in_top5 = true, .answer = true, .visual = true },
        { .kl = 0.2f, .nll = 3, .ref_nll = 3, .same_top = false, .in_top5 = false },
    };
    nb_divergence         d = { .tokens = tokens, .count = 3, .samples = 2 };
    nb_divergence_summary s;
    OK(nb_divergence_summarize(&s, &d, NB_SCOPE_ALL, NB_OVER_BOTH, &err), &err);
    assert_int_equal(s.tokens, 3);
    NEAR(s.kl_mean, 0.2, 1e-7);
    NEAR(s.kl_error, 0.1 / sqrt(3), 1e-7);
    NEAR(s.kl_median, 0.2, 1e-7);
    NEAR(s.kl_p90, 0.28, 1e-7);
    NEAR(s.kl_max, 0.3, 1e-7);
    NEAR(s.top1, 1.0 / 3, 1e-9);
    NEAR(s.top5, 2.0 / 3, 1e-9);
    NEAR(s.ppl, exp(2), 1e-6);
    NEAR(s.ref_ppl, exp(2), 1e-6);
    NEAR(s.ln_ratio, 0, 1e-7);
    NEAR(s.ln_ratio_error, 0.5 / sqrt(3), 1e-7);
    OK(nb_divergence_summarize(&s, &d, NB_SCOPE_ANSWER, NB_OVER_VISUAL, &err), &err);
    assert_int_equal(s.tokens, 1);
    NEAR(s.kl_mean, 0.3, 1e-7);
    NEAR(s.kl_error, 0, 0);
    OK(nb_divergence_summarize(&s, &d, NB_SCOPE_ANSWER, NB_OVER_TEXT, &err), &err);
    NEAR(s.kl_p999, 0.1, 1e-7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),   cmocka_unit_test(test_literal),        cmocka_unit_test(test_option),
        cmocka_unit_test(test_anls),    cmocka_unit_test(test_anls_published), cmocka_unit_test(test_math),
        cmocka_unit_test(test_prompts), cmocka_unit_test(test_summaries),      cmocka_unit_test(test_statistics),
        cmocka_unit_test(test_rules),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
