/* test_tools_benchmarks.c - prompts, scoring and sums of the benchmarks beyond the four published tables, against cases worked out by
 * hand from the harness's description. */
#include "temp_files.h"

#include <math.h>

#include "tools/eval/score.h"
#include "tools/eval/task.h"

static nb_list list_of(const char *text)
{
    nb_error err;
    nb_list  l;
    OK(nb_list_parse(&l, text, &err), &err);
    return l;
}

/* ---- answers --------------------------------------------------------------------------------------------------------------- */

static void test_relaxed(void **state)
{
    (void)state;
    const struct {
        const char *answer, *accepted;
        double      want;
    } cases[] = {
        { "105", "100", 1 },  { "105.1", "100", 0 },   { " 95 \n", "100", 1 },    { "5.2%", "5%", 1 },        { "0.05", "5%", 1 },
        { "5", "5%", 0 },     { "Yes", "yes", 1 },     { "yes.", "yes", 0 },      { "0", "0", 1 },            { "0.0", "0", 0 },
        { "2020", "2019", 1 }, { "0x64", "100", 0 },   { "1e2", "100", 1 },       { "-100", "100", 0 },       { "", "100", 0 },
        { "blue", "['red', 'Blue']", 1 }, { "99", "['7', '100']", 1 }, { "1,000", "1000", 0 },
        { "\xc3\x89T\xc3\x89", "\xc3\xa9t\xc3\xa9", 1 },
    };
    nb_error err;
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        nb_list l = list_of(cases[i].accepted);
        double  got;
        OK(nb_score_relaxed(&got, cases[i].answer, &l, &err), &err);
        if (got != cases[i].want) fail_msg("'%s' for %s: %g", cases[i].answer, cases[i].accepted, got);
        nb_list_free(&l);
    }
}

/* Agreement with people of whom the first says `said` and none of the others anything like it, so that only the clean-up decides. */
static bool same_words(const char *answer, const char *said)
{
    nb_error err;
    double   score;
    nb_list  l = { .items = (char *[]){ (char *)said, (char *)said, (char *)said, (char *)said }, .count = 4 };
    OK(nb_score_people(&score, answer, &l, &err), &err);
    return score == 1;
}

static void test_people(void **state)
{
    (void)state;
    nb_error err;
    double   score;
    static const double want[] = { 0, 0.3, 0.6, 0.9, 1, 1 }; /* of 10 people 0 .. 5 say the same; 3: (3 * 2/3 + 7) / 10 */
    for (size_t same = 0; same < NB_COUNT(want); same++) {
        char   *said[10];
        nb_list l = { .items = said, .count = 10 };
        for (size_t i = 0; i < 10; i++) said[i] = i < same ? "Coca Cola" : "pepsi";
        OK(nb_score_people(&score, "coca cola", &l, &err), &err);
        NEAR(score, want[same], 1e-12);
    }
    const struct {
        const char *answer, *said;
        bool        same;
    } cases[] = {
        { "The dog", "dog", true },          { "two dogs", "2 dogs", true },      { "none", "zero", true },
        { "dont walk", "Don't walk", true }, { "its", "it's", false },            { "1,000", "1000", true },
        { "a-b", "b", true },                { "x - y", "xy", false },            { "x - y", "x y", true },
        { "3.5", "35", false },              { "the end.", "end", true },         { "u.s.a", "usa", true },
        { "yes!", "yes", true },             { "line\nbreak", "line break", true }, { "\xc3\x89T\xc3\x89", "\xc3\xa9t\xc3\xa9", true },
        { "7-up 1,5", "7up 15", true },      { "7-up", "7 up", true },            { "", "the", true },
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++)
        if (same_words(cases[i].answer, cases[i].said) != cases[i].same) fail_msg("'%s' and '%s'", cases[i].answer, cases[i].said);
}

static void test_contains(void **state)
{
    (void)state;
    const struct {
        const char *answer, *accepted;
        bool        formula;
        double      want;
    } cases[] = {
        { "it says hello\nworld!", "['Hello World']", false, 1 }, { "hello  world", "['hello world']", false, 0 },
        { "EXIT", "['entry', 'exit']", false, 1 },               { "", "['x']", false, 0 },
        { "x^2+1", "['x ^ 2 + 1']", true, 1 },                   { "X^2+1", "['x^2+1']", true, 0 },
        { "y = x ^ 2\n+ 1 ", "['x^2+1']", true, 1 },
    };
    nb_error err;
    double   score;
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        nb_list l = list_of(cases[i].accepted);
        OK(nb_score_contains(&score, cases[i].answer, &l, cases[i].formula, &err), &err);
        if (score != cases[i].want) fail_msg("'%s' for %s: %g", cases[i].answer, cases[i].accepted, score);
        nb_list_free(&l);
    }
    OK(nb_score_contains_plain(&score, "at St Anna.", "st. anna", &err), &err);
    NEAR(score, 1, 0);
    OK(nb_score_contains_plain(&score, "saint", "st. anna", &err), &err);
    NEAR(score, 0, 0);
}

static void test_yes_no(void **state)
{
    (void)state;
    const struct {
        const char *answer, *want;
    } cases[] = { { "Yes, it is.", "Yes" }, { "no", "No" }, { "NO.", "No" }, { "yes and no", NULL }, { "yes/no", NULL }, { "nope", NULL },
                  { "", NULL }, { "The answer is (yes)", "Yes" }, { "yesno", NULL } };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        const char *got = nb_score_yes_no(cases[i].answer);
        if (got != cases[i].want && (!got || !cases[i].want || strcmp(got, cases[i].want))) fail_msg("'%s': %s", cases[i].answer, got ? got : "nothing");
    }
}

/* ---- tables ---------------------------------------------------------------------------------------------------------------- */

static void open_task(nb_task *t, const char *name, const char *tsv)
{
    nb_error err;
    char     spec[400];
    snprintf(spec, sizeof spec, "%s:%s", name, write_file("bench.tsv", tsv));
    OK(nb_task_open(t, spec, false, 0, &err), &err);
}

static nb_task_summary score_all(const char *name, const char *tsv, const char *const *answers)
{
    nb_error        err;
    nb_task         t;
    nb_task_summary s;
    open_task(&t, name, tsv);
    for (size_t i = 0; i < t.rows; i++) OK(nb_task_answer(&t, i, answers[i], &err), &err);
    OK(nb_task_summarize(&s, &t, &err), &err);
    nb_task_close(&t);
    return s;
}

static double part(const nb_task_summary *s, const char *label)
{
    for (size_t i = 0; i < s->part_count; i++)
        if (!strcmp(s->parts[i].label, label)) return s->parts[i].value;
    return NAN;
}

static void test_mme(void **state)
{
    (void)state;
    const char *tsv = "index\timage\timage_path\tquestion\tanswer\tcategory\n"
                      "0\tx\tp1\tq\tYes\tcolor\n1\tx\tp1\tq\tNo\tcolor\n2\tx\tp2\tq\tYes\tcolor\n3\tx\tp2\tq\tNo\tcolor\n"
                      "4\tx\tp1\tq\tYes\tcode_reasoning\n5\tx\tp1\tq\tNo\tcode_reasoning\n";
    nb_task_summary s = score_all("MME", tsv, (const char *[]){ "Yes", "No", "Yes", "Maybe", "yes.", "no." });
    NEAR(s.value, 75 + 50 + 100 + 100, 1e-9);
    NEAR(part(&s, "category: color"), 125, 1e-9);
    NEAR(part(&s, "perception"), 125, 1e-9);
    NEAR(part(&s, "reasoning"), 200, 1e-9);
    NEAR(s.error, 75, 1e-9); /* pictures of 200 and 50 points: their standard deviation over the root of two */
    assert_int_equal(s.items, 6);
    assert_int_equal(s.undecided, 1);
    NEAR(s.units[3], 0, 0);
    NEAR(s.units[4], 1, 0);
    nb_task_summary_free(&s);
}

static void test_hallusion(void **state)
{
    (void)state;
    const char *tsv = "index\timage\tquestion\tanswer\tcategory\tl2-category\n"
                      "VS_chart_0_0_0_0\tx\tq\tYes\tVS\tchart\nVS_chart_0_0_0_1\tx\tq\tNo\tVS\tchart\n"
                      "VS_chart_0_0_1_0\tx\tq\tYes\tVS\tchart\nVS_chart_0_0_1_1\tx\tq\tNo\tVS\tchart\n";
    nb_task_summary s = score_all("HallusionBench", tsv, (const char *[]){ "Yes", "No", "No", "No" });
    NEAR(s.value, 75, 1e-9);
    NEAR(part(&s, "fAcc"), 50, 1e-9);
    NEAR(part(&s, "qAcc"), 50, 1e-9);
    NEAR(part(&s, "mean of aAcc, fAcc and qAcc"), 175.0 / 3, 1e-9);
    NEAR(part(&s, "l2-category: chart"), 75, 1e-9);
    nb_task_summary_free(&s);
}

static void test_means(void **state)
{
    (void)state;
    const struct {
        const char *name, *tsv, *answers[2], *metric;
        double      value;
    } cases[] = {
        { "ChartQA_TEST", "index\timage\tquestion\tanswer\n1\tx\tq\t10\n2\tx\tq\tred\n", { "10.4", "blue" }, "relaxed accuracy", 50 },
        { "TextVQA_VAL", "index\timage\tquestion\tanswer\n1\tx\tq\t\"['a b', 'a b', 'a b', 'c']\"\n2\tx\tq\t\"['c','c','c','c']\"\n", { "b", "d" },
          "VQA accuracy", 100 * (3 * 2.0 / 3 + 1) / 4 / 2 },
        { "OCRBench", "index\timage\tquestion\tanswer\tcategory\n1\tx\tq\t['exit']\tScene Text-centric VQA\n"
                      "2\tx\tq\t['x + 1']\tHandwritten Mathematical Expression Recognition\n", { "the EXIT", "x+1" }, "answers that hold the text", 100 },
        { "MTVQA_TEST", "index\timage\tquestion\tanswer\tcategory\n1\tx\tq\tja\tDE\n2\tx\tq\toui\tFR\n", { "Ja.", "non" }, "answers that hold the text", 50 },
        { "InfoVQA_VAL", "index\timage\tquestion\tanswer\n1\tx\tq\t['abcd']\n2\tx\tq\t['x']\n", { "abce", "y" }, "ANLS", 37.5 },
        { "MMStar", "index\timage\tquestion\tA\tB\tanswer\n1\tx\tq\tr\ts\tA\n2\tx\tq\tr\ts\tB\n", { "A", "A" }, "accuracy", 50 },
        { "RealWorldQA", "index\timage\tquestion\tA\tB\tanswer\n1\tx\tq\tr\ts\tA\n2\tx\tq\tr\ts\tB\n", { "A", "hm" }, "accuracy", 50 },
        { "mine", "index\timage\tquestion\tA\tB\tanswer\n1\tx\tq\tr\ts\tA\n2\tx\tq\tr\ts\tB\n", { "A", "B" }, "accuracy (options, by the columns)", 100 },
        { "mine", "index\timage\tquestion\tanswer\n1\tx\tq\tyes\n2\tx\tq\tNo\n", { "Yes", "yes" }, "accuracy (yes or no, by the answers)", 50 },
        { "mine", "index\timage\tquestion\tanswer\n1\tx\tq\tyes\n2\tx\tq\tabcd\n", { "yes", "abce" }, "ANLS (free text, by the columns)", 87.5 },
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        nb_task_summary s = score_all(cases[i].name, cases[i].tsv, cases[i].answers);
        assert_string_equal(s.metric, cases[i].metric);
        if (fabs(s.value - cases[i].value) > 1e-9) fail_msg("%s: %g, expected %g", cases[i].name, s.value, cases[i].value);
        assert_int_equal(s.items, 2);
        nb_task_summary_free(&s);
    }
    nb_error err;
    nb_task  t;
    char     spec[400];
    snprintf(spec, sizeof spec, "OCRBench:%s", write_file("bench.tsv", "index\timage\tquestion\tanswer\n1\tx\tq\t['a']\n"));
    FAILS(nb_task_open(&t, spec, false, 0, &err), NB_ERR_INPUT, "no column 'category', which OCRBench needs", &err);
    snprintf(spec, sizeof spec, "mine:%s", write_file("bench.tsv", "index\tquestion\tanswer\n1\tq\ta\n"));
    FAILS(nb_task_open(&t, spec, false, 0, &err), NB_ERR_INPUT, "no column 'image'", &err);
}

#define PIXEL "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"

static void test_prompts(void **state)
{
    (void)state;
    const char *tsv = "index\timage\timage_path\tquestion\tA\tB\tanswer\tcategory\tl2-category\n1\t" PIXEL "\tp\tIs it?\tone\ttwo\tA\tc\td\n";
    static const char short_words[] = "Is it?\nPlease try to answer the question with short words or phrases if possible.";
    static const char options[] = "Question: Is it?\nOptions:\nA. one\nB. two\nPlease select the correct answer from the options above.";
    const struct {
        const char *name, *want;
    } cases[] = { { "MME", "Is it?" }, { "HallusionBench", "Is it? Please answer yes or no." }, { "ChartQA_TEST", short_words },
                  { "OCRBench", short_words }, { "TextVQA_VAL", short_words }, { "MTVQA_TEST", short_words }, { "InfoVQA_VAL", short_words },
                  { "MMStar", options }, { "RealWorldQA", options }, { "mine", options } };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        nb_error err;
        nb_task  t;
        nb_chat  chat;
        char     where[256];
        open_task(&t, cases[i].name, tsv);
        OK(nb_task_chat(&t, 0, &chat, where, &err), &err);
        assert_string_equal(chat.messages[0].parts[1].text, cases[i].want);
        nb_chat_free(&chat);
        nb_task_close(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_relaxed), cmocka_unit_test(test_people),    cmocka_unit_test(test_contains), cmocka_unit_test(test_yes_no),
        cmocka_unit_test(test_mme),     cmocka_unit_test(test_hallusion), cmocka_unit_test(test_means),    cmocka_unit_test(test_prompts),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
