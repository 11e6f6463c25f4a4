/* test_tools_roofline.c - rounds and their order, levels, and what `bench --roofline` prints, without a look at how fast anything is. */
#include "program.h"

#include "tools/bench/levels.h"
#include "tools/bench/roofline.h"
#include "tools/bench/rounds.h"

static void test_rounds(void **state)
{
    (void)state;
    nb_rounds r = { 0 };
    assert_true(isnan(nb_rounds_at(&r, 0.5)));
    assert_true(nb_rounds_add(&r, 4, 0));
    NEAR(nb_rounds_at(&r, 0), 4, 0);
    NEAR(nb_rounds_at(&r, 1), 4, 0);
    assert_true(nb_rounds_add(&r, 1, 0.01));
    assert_true(nb_rounds_add(&r, 2, 0));
    NEAR(nb_rounds_at(&r, 0.5), 2, 0);
    assert_true(nb_rounds_add(&r, 10, 0));
    NEAR(nb_rounds_at(&r, 0.5), 3, 0);
    NEAR(nb_rounds_at(&r, 0), 1, 0);
    NEAR(nb_rounds_at(&r, 1), 10, 0);
    NEAR(nb_rounds_at(&r, 0.25), 1.75, 1e-12);
    assert_int_equal(r.disturbed, 0);
    for (int i = 0; i < NB_ROUND_REPEATS; i++) assert_false(nb_rounds_add(&r, 100, 0.5)); /* made again ... */
    assert_int_equal(r.count, 4);
    assert_true(nb_rounds_add(&r, 100, 0.5)); /* ... but not for ever */
    assert_int_equal(r.count, 5);
    assert_int_equal(r.disturbed, 1);
    assert_int_equal(r.repeated, NB_ROUND_REPEATS);
    for (int i = 0; i < 2 * NB_ROUNDS; i++) assert_true(nb_rounds_add(&r, 5, 0));
    assert_int_equal(r.count, NB_ROUNDS);
}

/* Time that passes while the thread sleeps is lost to it, whatever the machine does. */
static void test_lost(void **state)
{
    (void)state;
    double    lost;
    nb_clocks from = nb_clocks_now();
    usleep(20000);
    double seconds = nb_clocks_since(&from, 0, &lost);
    assert_true(seconds >= 0.019);
    assert_true(lost > 0.5 && lost <= 1);
}

static void test_levels(void **state)
{
    (void)state;
    nb_error  err;
    nb_levels l;
    OK(nb_levels_parse(&l, "ref", &err), &err);
    assert_true(l.has[NB_ISA_REF] && !l.has[NB_ISA_REF + 1] && !l.has[NB_ISA_LEVELS]);
    OK(nb_levels_parse(&l, NULL, &err), &err);
    assert_true(l.has[NB_ISA_REF] && l.has[nb_isa_detect(NB_ISA_LEVELS - 1)] && l.has[NB_ISA_LEVELS]);
    setenv("NIBBLE_ISA", "ref", 1);
    OK(nb_levels_parse(&l, NULL, &err), &err);
    assert_true(l.has[NB_ISA_REF] && !l.has[NB_ISA_REF + 1]);
    if (nb_isa_detect(NB_ISA_REF + 1) == NB_ISA_REF + 1) {
        assert_false(l.has[NB_ISA_LEVELS]);
        char list[32];
        snprintf(list, sizeof list, "%s,ref", nb_isa_name(NB_ISA_REF + 1));
        OK(nb_levels_parse(&l, list, &err), &err); /* a list is a list, whatever the highest level is */
        assert_true(l.has[NB_ISA_REF] && l.has[NB_ISA_REF + 1] && !l.has[NB_ISA_LEVELS]);
    }
    unsetenv("NIBBLE_ISA");
    FAILS(nb_levels_parse(&l, "ref,sse9", &err), NB_ERR_ARGUMENT, "'sse9' is not a level; there are ref, avx2, avx512", &err);
    FAILS(nb_levels_parse(&l, "", &err), NB_ERR_ARGUMENT, "'' is not a level", &err);
    FAILS(nb_levels_parse(&l, "ref,", &err), NB_ERR_ARGUMENT, "'' is not a level", &err);
}

static void test_rates(void **state)
{
    (void)state;
    char text[32];
    nb_human_rate(text, 80.55e9, true);
    assert_string_equal(text, "80.5 GB/s");
    nb_human_rate(text, 1.009e12, false);
    assert_string_equal(text, "1.01 Top/s");
    nb_human_rate(text, 512e9, false);
    assert_string_equal(text, "512 Gop/s");
    nb_human_rate(text, NAN, false);
    assert_string_equal(text, "-");
}

static double field(const cJSON *row, const char *name)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(row, name);
    assert_non_null(v);
    return cJSON_IsNumber(v) ? v->valuedouble : NAN;
}

/* All rows say what they are; what is there has a rate above nothing, in order; what is not has none. */
static void check_rows(const cJSON *rows)
{
    const cJSON *row;
    int          there = 0;
    cJSON_ArrayForEach(row, rows) {
        assert_true(cJSON_IsString(cJSON_GetObjectItem(row, "probe")) && cJSON_IsString(cJSON_GetObjectItem(row, "level")));
        assert_true(field(row, "n_threads") == 1 || field(row, "n_threads") == 2);
        if (!cJSON_IsTrue(cJSON_GetObjectItem(row, "there"))) {
            assert_true(isnan(field(row, "median")));
            assert_true(field(row, "rounds") == 0);
            continue;
        }
        there++;
        assert_true(field(row, "rounds") == 1);
        assert_true(field(row, "min") > 0 && field(row, "median") >= field(row, "min") && field(row, "max") >= field(row, "median"));
        bool reads = !strcmp(cJSON_GetObjectItem(row, "unit")->valuestring, "bytes/s");
        assert_true(field(row, "memory_bytes") == (reads ? 16 << 20 : 0));
    }
    assert_true(there >= 4);
}

static void test_program(void **state)
{
    (void)state;
    ENDS(0, "bench", "--roofline", "--memory", "16M", "-r", "1", "-t", "2", "-o", "json");
    cJSON *rows = printed_json();
    check_rows(rows);
    int count = cJSON_GetArraySize(rows);
    cJSON_Delete(rows);

    ENDS(0, "bench", "--roofline", "--memory", "16M", "-r", "1", "-t", "2", "-o", "jsonl");
    int lines = 0;
    for (char *line = printed[0], *end; (end = strchr(line, '\n')) != NULL; line = end + 1, lines++) {
        nb_error err;
        cJSON   *row;
        OK(nb_json_parse(&row, line, (size_t)(end - line), "a line", &err), &err);
        assert_true(cJSON_IsObject(row));
        cJSON_Delete(row);
    }
    assert_int_equal(lines, count);

    ENDS(0, "bench", "--roofline", "--memory", "16M", "-r", "1", "-t", "1", "--isa", "ref", "-o", "csv");
    holds(printed[0], "\"probe\",\"level\",\"instruction\",\"n_threads\"");
    holds(printed[0], "\n\"read memory\",\"ref\",\"words\",\"1\",\"true\",\"bytes/s\"");
    lacks(printed[0], "avx2");
    lacks(printed[0], "\"2\",\"true\"");

    ENDS(0, "bench", "--roofline", "--memory", "16M", "-r", "1", "-t", "1", "--isa", "ref");
    holds(printed[0], "| probe ");
    holds(printed[0], "| f64 multiply, add | ref ");

    setenv("NIBBLE_ISA", "ref", 1); /* the highest level, as for every command: AMX is above it */
    ENDS(0, "bench", "--roofline", "--memory", "16M", "-r", "1", "-t", "1");
    unsetenv("NIBBLE_ISA");
    holds(printed[0], "| ref ");
    if (nb_isa_detect(NB_ISA_REF + 1) == NB_ISA_REF + 1) lacks(printed[0], "amx");
}

static void test_refusals(void **state)
{
    (void)state;
    ENDS(2, "bench");
    holds(printed[1], "no MODEL");
    ENDS(2, "bench", "--roofline", "somewhere");
    holds(printed[1], "takes no MODEL ('somewhere')");
    ENDS(2, "bench", "somewhere", "--isa", "ref");
    holds(printed[1], "--isa is for --roofline and --kernels; NIBBLE_ISA");
    ENDS(2, "bench", "somewhere", "--memory", "1G");
    holds(printed[1], "--memory is for --roofline and --kernels");
    ENDS(2, "bench", "--roofline", "--isa", "neo");
    holds(printed[1], "'neo' is not a level");
    ENDS(2, "bench", "--roofline", "-r", "65");
    holds(printed[1], "64 rounds at most");
    ENDS(2, "bench", "--roofline", "--memory", "1M");
    ENDS(4, "bench", "--roofline", "-r", "1", "--memory", "900000G");
    holds(printed[1], "more than half");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rounds), cmocka_unit_test(test_lost),    cmocka_unit_test(test_levels),
        cmocka_unit_test(test_rates),  cmocka_unit_test(test_program), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
