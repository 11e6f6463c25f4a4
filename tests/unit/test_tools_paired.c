/* test_tools_paired.c - comparing question by question: McNemar's test and the bootstrap against figures worked out by hand, the log of
 * answered rows (torn, foreign, incomplete), --resume, --baseline and --fail-if of the program. */
#include "program.h"
#include "temp_files.h"

#include <math.h>

#include "tools/eval/fail_if.h"
#include "tools/eval/paired.h"
#include "tools/eval/row_log.h"

/* ---- figures ------------------------------------------------------------------------------------------------------------- */

/* n questions: the first `lost` right only in the baseline, the next `gained` only in the other, the rest in both. */
static nb_paired compare(size_t n, size_t lost, size_t gained)
{
    nb_error  err;
    nb_paired p;
    double   *scores = calloc(2 * n + 1, sizeof *scores);
    for (size_t i = 0; i < n; i++) {
        scores[i] = i < lost || i >= lost + gained;
        scores[n + i] = i >= lost;
    }
    OK(nb_paired_compare(&p, scores, scores + n, n, &err), &err);
    free(scores);
    return p;
}

static void test_mcnemar(void **state)
{
    (void)state;
    const struct {
        size_t n, lost, gained;
        double p;
    } cases[] = {
        { 50, 0, 0, 1 },
        { 50, 6, 6, 1 },                    /* 2 P(X <= 6) is above 1 */
        { 50, 0, 6, 2.0 / 64 },
        { 50, 10, 2, 2 * 79.0 / 4096 },     /* 1 + 12 + 66 */
        { 50, 2, 10, 2 * 79.0 / 4096 },
        { 50, 1, 0, 1 },
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        nb_paired p = compare(cases[i].n, cases[i].lost, cases[i].gained);
        assert_int_equal(p.items, cases[i].n);
        assert_int_equal(p.lost, cases[i].lost);
        assert_int_equal(p.gained, cases[i].gained);
        NEAR(p.p, cases[i].p, 1e-12);
        NEAR(p.difference, 100 * ((double)cases[i].gained - (double)cases[i].lost) / (double)cases[i].n, 1e-9);
    }
    nb_paired p = compare(4000, 2000, 1900); /* 2^-3900 is 0 in double; the normal distribution says 2 Phi(-99 / sqrt(3900)) = 0.1129 */
    NEAR(p.p, 0.1129, 0.0002);
    assert_int_equal(compare(0, 0, 0).items, 0);
}

/* 10 of 100 lost: the number lost in a resample is Binomial(100, 1/10), whose 2.5 and 97.5 % quantiles are 5 and 16. */
static void test_interval(void **state)
{
    (void)state;
    nb_paired p = compare(100, 10, 0), again = compare(100, 10, 0);
    NEAR(p.low, -16, 1.01);
    NEAR(p.high, -5, 1.01);
    assert_memory_equal(&p, &again, sizeof p);
    p = compare(100, 0, 0);
    NEAR(p.low, 0, 0);
    NEAR(p.high, 0, 0);
}

/* ---- conditions ------------------------------------------------------------------------------------------------------------ */

static void test_conditions(void **state)
{
    (void)state;
    nb_error     err;
    nb_fail_if   f = { 0 };
    nb_eval_task tasks[2][1] = { { { .name = "MMMU_DEV_VAL", .summary = { .value = 53 } } },
                                 { { .name = "MMMU_DEV_VAL", .summary = { .value = 51 },
                                     .paired = { .items = 900, .difference = -2, .low = -4, .high = 0.5 } } } };
    nb_eval_row rows[2] = { { .model = "A", .tasks = tasks[0], .task_count = 1 }, { .model = "B", .tasks = tasks[1], .task_count = 1 } };
    const struct {
        const char *text, *found; /* "": passes */
    } cases[] = {
        { "mmmu<-1.0", "B: the difference of MMMU_DEV_VAL is -2.00, below -1" },
        { "mmmu<-2.0", "" },
        { "mmmu<-2.5", "" },
        { "mmmu.high<0", "" },
        { "mmmu.high<1", "B: the upper end" },
        { "mmmu.low<-3", "B: the lower end" },
        { "DEV_VAL.score<52", "B: the score of MMMU_DEV_VAL is 51.00" },
        { "mmmu.score<54", "A: the score of MMMU_DEV_VAL is 53.00, below 54; B: " },
        { "mmmu<-9,mmmu.low<-3", "B: the lower end" },
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        nb_buf found = { 0 };
        OK(nb_fail_if_add(&f, cases[i].text, &err), &err);
        OK(nb_fail_if_check(&f, rows, 2, &found, &err), &err);
        if (!*cases[i].found) assert_int_equal(found.size, 0);
        else holds(found.data ? found.data : "", cases[i].found);
        nb_buf_free(&found);
        nb_fail_if_free(&f);
    }
    static const char *const bad[] = { "mmmu", "mmmu<", "<1", "mmmu<x", "mmmu<1x", "mmmu.most<1", "mmmu<nan", "mmmu>1", "a<1,,b<2" };
    for (size_t i = 0; i < NB_COUNT(bad); i++) {
        FAILS(nb_fail_if_add(&f, bad[i], &err), NB_ERR_ARGUMENT, "is not a condition", &err);
        nb_fail_if_free(&f);
    }
    nb_buf found = { 0 };
    OK(nb_fail_if_add(&f, "docvqa<-1", &err), &err);
    FAILS(nb_fail_if_check(&f, rows, 2, &found, &err), NB_ERR_ARGUMENT, "no benchmark of this run whose name holds 'docvqa'", &err);
    nb_fail_if_free(&f);
    OK(nb_fail_if_add(&f, "mmmu<-1", &err), &err);
    FAILS(nb_fail_if_check(&f, rows, 1, &found, &err), NB_ERR_ARGUMENT, "compared with a baseline", &err);
    nb_fail_if_free(&f);
    nb_buf_free(&found);
}

/* ---- the log ------------------------------------------------------------------------------------------------------------- */

#define TABLE "index\timage\tquestion\tA\tB\tanswer\n1\tx\tq\tr\ts\tA\n2\tx\tq\tr\ts\tB\n3\tx\tq\tr\ts\tA\n"

static void open_table(nb_task *t)
{
    nb_error    err;
    char        spec[400];
    snprintf(spec, sizeof spec, "mmmu:%s", write_file("log-table.tsv", TABLE));
    OK(nb_task_open(t, spec, false, 0, &err), &err);
}

static void test_log(void **state)
{
    (void)state;
    nb_error      err;
    nb_task       t;
    nb_row_log   *log;
    nb_row_log_of of = { .model = "m", .checkpoint = "c1", .settings = "predict=9" };
    char          path[300];
    bool          answered[3] = { false };
    snprintf(path, sizeof path, "%s", write_file("rows.jsonl", ""));
    FAILS(nb_row_log_open(&log, path, false, &err), NB_ERR_IO, "--resume goes on with it", &err);
    remove(path);
    OK(nb_row_log_open(&log, path, false, &err), &err);
    open_table(&t);
    OK(nb_task_answer(&t, 0, "A \"quoted\"\n", &err), &err);
    OK(nb_row_log_add(log, &of, &t, 0, &err), &err);
    OK(nb_task_answer(&t, 1, "A", &err), &err);
    OK(nb_row_log_add(log, &of, &t, 1, &err), &err);
    nb_task_close(&t);
    OK(nb_row_log_close(log, &err), &err);
    FILE *f = fopen(path, "a");
    fputs("{\"model\": \"m\", \"checkpoint\": \"c1\", \"settings\": \"predict=9\", \"task\": \"mmmu\", \"index\": \"3\", \"predi", f); /* killed here */
    fclose(f);

    OK(nb_row_log_open(&log, path, true, &err), &err);
    open_table(&t);
    FAILS(nb_row_log_load(path, &t, &err), NB_ERR_INPUT, "no answer to row '3'", &err);
    OK(nb_row_log_recall(log, &of, &t, answered, &err), &err);
    assert_true(answered[0] && answered[1] && !answered[2]);
    assert_string_equal(t.scores[0].prediction, "A \"quoted\"\n");
    NEAR(t.scores[0].score, 1, 0);
    NEAR(t.scores[1].score, 0, 0);
    OK(nb_task_answer(&t, 2, "A", &err), &err);
    OK(nb_row_log_add(log, &of, &t, 2, &err), &err);
    OK(nb_row_log_load(path, &t, &err), &err);
    NEAR(t.scores[2].score, 1, 0);

    nb_row_log_of other = of;
    strcpy(other.checkpoint, "c2");
    FAILS(nb_row_log_recall(log, &other, &t, answered, &err), NB_ERR_INPUT, "line 1: the answer is of other files", &err);
    other = of;
    other.settings = "predict=8";
    FAILS(nb_row_log_recall(log, &other, &t, answered, &err), NB_ERR_INPUT, "with 'predict=9', not with 'predict=8'", &err);
    other.model = "n"; /* has nothing in the log */
    memset(answered, 0, sizeof answered);
    OK(nb_row_log_recall(log, &other, &t, answered, &err), &err);
    assert_false(answered[0]);
    OK(nb_row_log_close(log, &err), &err);
    nb_task_close(&t);
}

static void test_foreign_logs(void **state)
{
    (void)state;
    nb_error err;
    nb_task  t;
    const struct {
        const char *text, *message;
    } bad[] = {
        { "", "no answer to row '1'" },
        { "not json\n", "line 1" },
        { "{\"task\": \"mmmu\"}\n", "index is missing" },
        { "{\"task\": \"mmmu\", \"index\": 1, \"prediction\": \"A\"}\n", "index" },
        { "{\"task\": \"mmmu\", \"index\": \"1\"}\n", "prediction is missing" },
        { "{\"task\": \"mmmu\", \"index\": \"77\", \"prediction\": \"A\"}\n", "has no row '77'" },
        { "[]\n{}\n", "text after the end of the array" },
    };
    open_table(&t);
    for (size_t i = 0; i < NB_COUNT(bad); i++)
        FAILS(nb_row_log_load(write_file("foreign.jsonl", bad[i].text), &t, &err), NB_ERR_INPUT, bad[i].message, &err);
    nb_task_close(&t);
}

/* ---- the program ----------------------------------------------------------------------------------------------------------- */

static char model[300], task[400];

static const cJSON *model_of(const cJSON *report, int i)
{
    return cJSON_GetArrayItem(nb_json_find(report, "models"), i);
}

/* A run that is cut after some rows and goes on has the log and the report of one that was not; the same model is no different from
 * itself; a log is a baseline. */
static void test_program(void **state)
{
    (void)state;
    char whole[300], cut[300], line[4096];
    snprintf(whole, sizeof whole, "%s", write_file("whole.jsonl", ""));
    snprintf(cut, sizeof cut, "%s", write_file("cut.jsonl", ""));
    remove(whole);
    remove(cut);
    ENDS(0, "eval", model, "--tasks", task, "--limit", "12", "--log-samples", whole, "--json", "-q");
    char *report = nb_strdup(printed[0]);
    FILE *from = fopen(whole, "r"), *to = fopen(cut, "w");
    for (int i = 0; i < 5; i++) assert_non_null(fgets(line, sizeof line, from)), fputs(line, to);
    assert_non_null(fgets(line, 60, from)), fputs(line, to); /* and a part of the sixth */
    fclose(from);
    fclose(to);
    ENDS(1, "eval", model, "--tasks", task, "--limit", "12", "--log-samples", cut, "-q");
    holds(printed[1], "--resume goes on with it");
    ENDS(5, "eval", model, "--tasks", task, "--limit", "12", "--log-samples", cut, "--resume", "-q", "-n", "7");
    holds(printed[1], "predict=7");
    ENDS(0, "eval", model, "--tasks", task, "--limit", "12", "--log-samples", cut, "--resume", "--json");
    holds(printed[1], "5 of 12 rows of demo_mmmu are taken from");
    assert_string_equal(printed[0], report);
    free(report);
    nb_error err;
    nb_buf   a = { 0 }, b = { 0 };
    OK(nb_file_read(&a, whole, 1 << 20, &err), &err);
    OK(nb_file_read(&b, cut, 1 << 20, &err), &err);
    assert_string_equal(a.data, b.data);
    nb_buf_free(&a);
    nb_buf_free(&b);

    ENDS(0, "eval", model, "--tasks", task, "--limit", "12", "--baseline", whole, "--fail-if", "mmmu<-1", "--json", "-q");
    cJSON       *o = printed_json();
    const cJSON *paired = nb_json_find(nb_json_find(nb_json_find(model_of(o, 0), "tasks"), "demo_mmmu"), "paired");
    assert_non_null(paired);
    NEAR(cJSON_GetObjectItem(paired, "mcnemar_p")->valuedouble, 1, 0);
    assert_string_equal(cJSON_GetObjectItem(o, "baseline")->valuestring, whole);
    cJSON_Delete(o);

    ENDS(3, "eval", model, "--tasks", task, "--limit", "12", "--fail-if", "mmmu.score<101", "-q");
    holds(printed[0], "demo_mmmu"); /* the report is there all the same */
    holds(printed[1], "below 101");
    ENDS(2, "eval", model, "--tasks", task, "--limit", "12", "--baseline", "/nowhere", "-q");
    ENDS(2, "eval", model, "--tasks", task, "--resume", "-q");
    ENDS(2, "eval", model, "--tasks", task, "--fail-if", "mmmu", "-q");

    ENDS(0, "eval", model, model, "--tasks", task, "--limit", "4", "-q");
    holds(printed[0], "Question by question against");
    holds(printed[0], "| demo_mmmu |   0.00 | +0.00 .. +0.00 |    0 |      0 |    1.0000 |");
}

int main(void)
{
    snprintf(model, sizeof model, "%s", unit_path("tools/demo/model"));
    snprintf(task, sizeof task, "demo_mmmu:%s", unit_path("tools/demo/eval/demo_mmmu.tsv"));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mcnemar), cmocka_unit_test(test_interval),     cmocka_unit_test(test_conditions),
        cmocka_unit_test(test_log),     cmocka_unit_test(test_foreign_logs), cmocka_unit_test(test_program),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
