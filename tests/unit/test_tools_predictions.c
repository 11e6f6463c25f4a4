/* test_tools_predictions.c - every golden benchmark prediction: tables, prompts, pictures, engine and greedy decoding at once.
 *
 * tests/golden/predictions.tsv holds transformers' greedy answer (float32, at most 32 tokens) to all 681 rows.  ref must give
 * every one of them; the fast levels are counted, at least 99 % must be equal. */
#include "golden.h"
#include "runtime/engine/generate.h"
#include "tools/eval/task.h"

static nb_pool *pool;

typedef struct {
    char benchmark[16], index[16], prediction[256];
} expected;

static expected *expectations;
static size_t    expectation_count;

static void read_expectations(void)
{
    char  line[1024];
    FILE *f = fopen(unit_path("tests/golden/predictions.tsv"), "r");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof line, f));
    expectations = calloc(1000, sizeof *expectations);
    while (fgets(line, sizeof line, f)) {
        expected *e = &expectations[expectation_count++];
        char     *rest = line;
        snprintf(e->benchmark, sizeof e->benchmark, "%s", strsep(&rest, "\t"));
        snprintf(e->index, sizeof e->index, "%s", strsep(&rest, "\t"));
        snprintf(e->prediction, sizeof e->prediction, "%s", strsep(&rest, "\t"));
    }
    fclose(f);
    assert_int_equal(expectation_count, 681);
}

static const char *expectation(const char *benchmark, const char *index)
{
    for (size_t i = 0; i < expectation_count; i++)
        if (!strcmp(expectations[i].benchmark, benchmark) && !strcmp(expectations[i].index, index)) return expectations[i].prediction;
    fail_msg("no expectation for %s %s", benchmark, index);
    return NULL;
}

typedef struct {
    nb_model   *model;
    nb_task     task;
    const char *benchmark;
    int         equal, total;
} run;

static nb_status prompt_at(void *context, size_t i, nb_prompt *out, nb_generate_options *o, nb_error *err)
{
    run              *r = context;
    nb_chat           chat;
    char              where[256];
    nb_prompt_source  source = nb_model_source(r->model);
    nb_prompt_options options = { .template_options = { .add_generation_prompt = true } };
    *o = (nb_generate_options){ .sampling = { .greedy = true, .temperature = 1, .top_p = 1, .repetition_penalty = 1 }, .max_new_tokens = 32 };
    NB_TRY(nb_task_chat(&r->task, i, &chat, where, err));
    nb_status status = nb_prompt_build(out, &chat, &source, &options, err);
    nb_chat_free(&chat);
    return status;
}

static nb_status answer_at(void *context, size_t i, nb_answer *answer, nb_error *err)
{
    run        *r = context;
    const char *want = expectation(r->benchmark, nb_tsv_index(r->task.table, i)), *got = answer->text.data ? answer->text.data : "";
    r->total++;
    if (!strcmp(want, got))
        r->equal++;
    else
        fprintf(stderr, "%s: %s row %s: '%s', expected '%s'\n", r->model->ops.name, r->benchmark, nb_tsv_index(r->task.table, i), got, want);
    return nb_task_answer(&r->task, i, got, err);
}

/* All four benchmarks at one level. */
static void check_level(nb_isa isa, nb_dtype kv, double least)
{
    static const char *const names[] = { "mmbench", "docvqa", "mathvista", "mmmu" };
    nb_error          err;
    nb_ops            ops;
    nb_engine        *e;
    run               r = { 0 };
    nb_engine_options options = { .max_tokens = 32768, .chunk = 256, .kv_type = kv };
    if (!golden_level(isa)) return;
    nb_ops_init(&ops, isa, pool);
    OK(nb_model_open(&r.model, GOLDEN_MODEL, &ops, 0, &err), &err);
    OK(nb_engine_new(&e, r.model, &options, &err), &err);
    for (size_t b = 0; b < NB_COUNT(names); b++) {
        char spec[1200];
        snprintf(spec, sizeof spec, "demo_%s:%s/tools/demo/eval/demo_%s.tsv", names[b], NIBBLE_SOURCE, names[b]);
        r.benchmark = names[b];
        OK(nb_task_open(&r.task, spec, false, 0, &err), &err);
        OK(nb_generate_many(e, r.task.rows, 16, prompt_at, answer_at, &r, &err), &err);
        nb_task_close(&r.task);
    }
    printf("%s, KV %s: %d of %d predictions equal\n", ops.name, kv == NB_F32 ? "f32" : "bf16", r.equal, r.total);
    assert_int_equal(r.total, 681);
    assert_true(r.equal >= least * r.total);
    nb_engine_free(e);
    nb_model_close(r.model);
}

static void test_ref(void **state)
{
    (void)state;
    check_level(NB_ISA_REF, NB_F32, 1);
}
static void test_vectors(void **state)
{
    (void)state;
    for (nb_isa isa = NB_ISA_REF + 1; isa < NB_ISA_LEVELS; isa++) check_level(isa, NB_BF16, 0.99);
}
static int set_up(void **state)
{
    (void)state;
    read_expectations();
    return nb_pool_new(&pool, 2, NULL);
}
static int tear_down(void **state)
{
    (void)state;
    nb_pool_free(pool);
    free(expectations);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_ref), cmocka_unit_test(test_vectors) };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
