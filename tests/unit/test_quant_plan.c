/* The plan against what is true: the size of the result to the byte, the memory of a real run from above, and hand-computed parts
 * of the published 2B shape's layer. */
#include "unit.h"

#include <sys/resource.h>
#include <sys/wait.h>

#include "quant/linalg.h"
#include "quant/plan_time.h"
#include "quant_folder.h"

static nb_quantize_options request(nb_method method, int bits, int group, nb_format format)
{
    return (nb_quantize_options){
        .model_dir = source, .out_dir = in_folder("out"), .method = method, .grid = {.bits = bits, .group = group, .sym = format != NB_FORMAT_AWQ},
        .format = format, .awq_points = 2, .awq_clip = true, .damp = 0.01, .damp_max = 1, .block = 128, .true_sequential = true,
        .modality_weights = {1, 1, 1}, .data = {.path = chats, .samples = 4, .seq_len = 1024, .dataset = {.need_answer = true}},
        .shard_size = 4000000, .recipe_json = "{}",
    };
}

static void size_of_the_result_is_exact(void **state)
{
    (void)state;
    static const struct { int bits, group; nb_format format; } kinds[] = {
        {4, 64, NB_FORMAT_AWQ}, {4, 0, NB_FORMAT_AWQ}, {8, 64, NB_FORMAT_AWQ}, {4, 128, NB_FORMAT_GPTQ}, {8, 0, NB_FORMAT_GPTQ},
        {4, 96, NB_FORMAT_GPTQ}, /* not a divisor: the last group is short */
    };
    nb_error err;
    nb_pool *pool;
    nb_ops   ops;
    OK(nb_pool_new(&pool, 2, &err), &err);
    nb_ops_init(&ops, nb_isa_detect(NB_ISA_LEVELS - 1), pool);
    for (size_t i = 0; i < NB_COUNT(kinds); i++) {
        nb_quantize_options o = request(NB_METHOD_RTN, kinds[i].bits, kinds[i].group, kinds[i].format);
        nb_quantize_report  r;
        nb_plan             p;
        OK(nb_plan_make(&p, &o, 2, &err), &err);
        OK(nb_quantize(&ops, &o, NULL, NULL, &r, &err), &err);
        assert_int_equal(p.output, r.bytes_out);
        assert_true(p.ram > 0 && p.ram == p.ram_spool && p.hidden == 0);
        nb_quantize_report_free(&r);
        OK(nb_remove_folder(o.out_dir, &err), &err);
    }
    nb_pool_free(pool);
}

/* Sums of two words in the place of a Gram matrix, their k diagonal and 2 k magnitude words, maxima, room for 1024 rows. */
static uint64_t statistics(uint64_t k)
{
    return k * k * 8 + k * 28 + (k + 31) / 32 * 32 * 4096;
}

static void parts_of_the_demo(void **state)
{
    (void)state;
    nb_error            err;
    nb_plan             p, q;
    nb_config           c;
    nb_buf              notes = {0};
    nb_quantize_options o = request(NB_METHOD_GPTQ, 4, 64, NB_FORMAT_GPTQ);
    OK(nb_config_open(&c, source, &notes, &err), &err);
    nb_buf_free(&notes);
    uint64_t hidden = (uint64_t)c.hidden, inner = (uint64_t)c.intermediate;
    OK(nb_plan_make(&p, &o, 2, &err), &err);
    assert_int_equal(p.statistics, statistics(inner)); /* one site at a time */
    assert_int_equal(p.tokens, 4 * 1024);
    assert_int_equal(p.hidden, 4 * 1024 * hidden * 4);
    assert_int_equal(p.disk_spool, 2 * p.hidden);
    assert_true(p.solver > inner * (NB_LOWER_TILE * 8 + 128 * 4)); /* the factor's diagonal and a block of it */
    assert_true(p.work > p.statistics + p.solver && p.work < p.layer + p.statistics + p.solver + p.packed + p.batch);
    assert_true(p.ram >= p.ram_spool && p.ram <= p.ram_spool + p.hidden);
    assert_true(p.ram_spool >= p.fixed + p.work && p.ram_spool >= p.fixed + p.model + p.picture);
    o.propagate_quantized = true; /* the float layer is given back matrix by matrix */
    OK(nb_plan_make(&q, &o, 2, &err), &err);
    assert_true(q.work < p.work);
    o.propagate_quantized = false;
    assert_true(p.judge == 0 && p.judge_hidden == 0 && p.answers == 0);
    o.judge_samples = 8; /* both models' states, and both without their layers */
    o.judge_answers = 2;
    OK(nb_plan_make(&q, &o, 2, &err), &err);
    assert_int_equal(q.judge_hidden, 8 * 1024 * 2 * hidden * 4);
    assert_int_equal(q.disk_spool, 2 * q.judge_hidden);
    assert_true(q.judge > q.fixed + 2 * q.model + q.picture && q.judge < q.fixed + 2 * q.model + q.picture + q.batch + 6 * q.layer + (1 << 20));
    assert_true(q.ram_spool >= q.judge && q.ram_spool >= p.ram_spool && q.ram >= q.judge + q.judge_hidden && q.ram >= p.ram);
    assert_true(q.answers > q.judge + (uint64_t)c.layers * q.packed - q.picture - q.batch - 2 * q.packed);
    o.method = NB_METHOD_RTN; /* which runs nothing itself */
    OK(nb_plan_make(&q, &o, 2, &err), &err);
    assert_true(q.packed == 0 && q.judge_hidden == 8 * 1024 * 2 * hidden * 4 && q.ram_spool >= q.judge && q.judge > q.fixed + 2 * q.model);
    o.method = NB_METHOD_GPTQ;
    o.judge_samples = o.judge_answers = 0;
    o.true_sequential = false;
    OK(nb_plan_make(&q, &o, 2, &err), &err);
    assert_int_equal(q.statistics, 3 * statistics(hidden) + statistics(inner));
    o.asym = o.propagate_quantized = true; /* two streams; what is lost on the way, of one site at a time */
    OK(nb_plan_make(&q, &o, 2, &err), &err);
    assert_int_equal(q.hidden, 2 * p.hidden);
    assert_int_equal(q.statistics, statistics(inner)); /* and what was lost on the way, which is part of the work */
    assert_true(q.batch > p.batch && q.layer > p.layer);
    o.asym = o.propagate_quantized = false;
    OK(nb_plan_make(&p, &o, 2, &err), &err);
    o.data.seq_len = 100; /* the batch stays: 1024 rows */
    OK(nb_plan_make(&q, &o, 2, &err), &err);
    assert_true(q.picture < p.picture && q.batch <= p.batch);
    o.data.samples = 0; /* all, however many */
    OK(nb_plan_make(&q, &o, 2, &err), &err);
    assert_int_equal(q.ram, NB_PLAN_UNKNOWN);
    assert_int_equal(q.hidden, NB_PLAN_UNKNOWN);
    assert_true(q.ram_spool > 0);
    o.data.samples = 2000000000; /* absurd, and no overflow */
    o.data.seq_len = SIZE_MAX / 2;
    OK(nb_plan_make(&q, &o, 2, &err), &err);
    assert_true(q.ram > (uint64_t)1 << 62 && q.ram_spool > (uint64_t)1 << 62);
    o.model_dir = folder;
    FAILS(nb_plan_make(&q, &o, 2, &err), NB_ERR_INPUT, folder, &err);
}

/* Time by phase: linear in tokens where it depends on them, and no solver for plain rounding. */
static void time_by_phase(void **state)
{
    (void)state;
    nb_error            err;
    const nb_machine    m = {.f32 = 1e11, .f64 = 5e10, .disk = 1e8};
    double              a[NB_PHASES], b[NB_PHASES];
    nb_quantize_options o = request(NB_METHOD_GPTQ, 4, 64, NB_FORMAT_GPTQ);
    o.propagate_quantized = true;
    OK(nb_plan_time(a, &o, &m, 1000, &err), &err);
    OK(nb_plan_time(b, &o, &m, 3000, &err), &err);
    NEAR(b[NB_PHASE_FORWARD], 3 * a[NB_PHASE_FORWARD], 1e-12);
    NEAR(b[NB_PHASE_GRAM], 3 * a[NB_PHASE_GRAM], 1e-12);
    NEAR(b[NB_PHASE_FACTOR], a[NB_PHASE_FACTOR], 0);
    assert_true(a[NB_PHASE_FORWARD] > 0 && a[NB_PHASE_GRAM] > 0 && a[NB_PHASE_FACTOR] > 0 && a[NB_PHASE_SOLVE] > 0 && a[NB_PHASE_WRITE] > 0);
    o = request(NB_METHOD_RTN, 4, 64, NB_FORMAT_GPTQ);
    OK(nb_plan_time(b, &o, &m, 1000, &err), &err);
    assert_true(b[NB_PHASE_FORWARD] == 0 && b[NB_PHASE_FACTOR] == 0 && b[NB_PHASE_SOLVE] == 0);
    NEAR(b[NB_PHASE_WRITE], a[NB_PHASE_WRITE], 0);

    nb_machine found;
    nb_pool   *pool;
    OK(nb_pool_new(&pool, 2, &err), &err);
    OK(nb_machine_probe(&found, pool, in_folder("out"), &err), &err);
    assert_true(found.f32 > 1e7 && found.f64 > 1e7 && found.f32 < 1e15 && found.f64 < 1e15 && found.disk >= 0);
    nb_pool_free(pool);
}

static void budgets(void **state)
{
    (void)state;
    nb_error err;
    bool     spool;
    nb_plan  p = {.ram = 1000, .ram_spool = 600, .batch = 1};
    OK(nb_plan_fit(&p, 0, &spool, &err), &err);
    assert_false(spool);
    OK(nb_plan_fit(&p, 1000, &spool, &err), &err);
    assert_false(spool);
    OK(nb_plan_fit(&p, 999, &spool, &err), &err);
    assert_true(spool);
    OK(nb_plan_fit(&p, 600, &spool, &err), &err);
    assert_true(spool);
    FAILS(nb_plan_fit(&p, 599, &spool, &err), NB_ERR_BUDGET, "600 bytes", &err);
    p.ram = NB_PLAN_UNKNOWN;
    OK(nb_plan_fit(&p, 1000000, &spool, &err), &err);
    assert_true(spool);
}

/* A run of its own, so that its peak is its own. */
static void a_run_stays_within_its_plan(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    fprintf(stderr, "SKIP %s: a sanitizer has memory of its own\n", __func__);
    skip();
#endif
    for (int method = NB_METHOD_RTN; method <= NB_METHOD_AWQ_GPTQ; method++) {
        nb_error            err;
        nb_plan             p;
        nb_quantize_options o = request((nb_method)method, 4, 64, method == NB_METHOD_AWQ ? NB_FORMAT_AWQ : NB_FORMAT_GPTQ);
        char                spool[600];
        snprintf(spool, sizeof spool, "%s/spool", folder);
        o.data.spool = spool;
        o.asym = o.propagate_quantized = method == NB_METHOD_AWQ_GPTQ;
        o.asym_damp = 0.01;
        o.range = o.asym ? NB_RANGE_ENERGY : NB_RANGE_FULL;
        o.sweeps = o.asym;
        OK(nb_plan_make(&p, &o, 2, &err), &err);
        fflush(NULL);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            nb_pool           *pool;
            nb_ops             ops;
            nb_quantize_report r;
            if (nb_pool_new(&pool, 2, &err)) _exit(1);
            nb_ops_init(&ops, nb_isa_detect(NB_ISA_LEVELS - 1), pool);
            _exit(nb_quantize(&ops, &o, NULL, NULL, &r, &err) != NB_OK);
        }
        int           code;
        struct rusage usage;
        assert_int_equal(wait4(child, &code, 0, &usage), child);
        assert_int_equal(code, 0);
        assert_true((uint64_t)usage.ru_maxrss * 1024 <= p.ram_spool);
        assert_true((uint64_t)usage.ru_maxrss * 1024 >= p.ram_spool / 20); /* the test means something */
        OK(nb_remove_folder(o.out_dir, &err), &err);
        assert_false(nb_file_exists(spool));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(size_of_the_result_is_exact), cmocka_unit_test(parts_of_the_demo), cmocka_unit_test(budgets), cmocka_unit_test(time_by_phase),
        cmocka_unit_test(a_run_stays_within_its_plan),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
