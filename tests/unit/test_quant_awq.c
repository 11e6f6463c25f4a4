/* test_quant_awq.c - the scale and clip searches against NumPy versions that judge by the inputs themselves
 * (tests/oracle/quant_oracle.py), and what must hold for any input. */
#include "quant/awq.h"
#include "unit_quant.h"

enum { MAX_CONSUMERS = 3 };

typedef struct {
    const float *consumers[MAX_CONSUMERS];
    int rows[MAX_CONSUMERS], count;
} split;

static split split_rows(const unit_layer *l, const int *rows, int count)
{
    split s = { .count = count };
    const float *w = l->w;
    for (int i = 0; i < count; i++) {
        s.consumers[i] = w;
        s.rows[i] = rows[i];
        w += (size_t)rows[i] * l->k;
    }
    return s;
}

static void matches_numpy(void **state)
{
    (void)state;
    cJSON *cases = unit_fixture("tests/golden/quant_awq.json"), *c;
    nb_pool *pool = unit_pool(2);
    int seen = 0;
    cJSON_ArrayForEach(c, cases)
    {
        const cJSON *rows_json = cJSON_GetObjectItem(c, "rows"), *tie_json = cJSON_GetObjectItem(c, "tie");
        const cJSON *want = cJSON_GetObjectItem(c, "expected"), *kept = cJSON_GetObjectItem(want, "kept");
        int rows[MAX_CONSUMERS], count = cJSON_GetArraySize(rows_json), n = 0;
        for (int i = 0; i < count; i++) n += rows[i] = cJSON_GetArrayItem(rows_json, i)->valueint;
        unit_layer l = unit_layer_make((uint64_t)unit_number(c, "seed"), n, (int)unit_number(c, "k"),
                                       (int)unit_number(c, "tokens"), cJSON_GetObjectItem(c, "dead"));
        split consumers = split_rows(&l, rows, count);
        int32_t tie[600];
        for (int i = 0; i < cJSON_GetArraySize(tie_json); i++) tie[i] = cJSON_GetArrayItem(tie_json, i)->valueint;
        nb_awq_options o = { .grid = { (int)unit_number(c, "bits"), (int)unit_number(c, "group"), unit_true(c, "sym") },
                             .points = (int)unit_number(c, "points"), .duo = unit_true(c, "duo") };
        nb_awq_report report;
        nb_error err;
        float s[600];
        OK(nb_awq_search(s, consumers.consumers, consumers.rows, count, l.k, l.h, l.mean_abs,
                         cJSON_GetArraySize(tie_json) ? tie : NULL, &o, pool, &report, &err), &err);
        NEAR(report.plain_loss, unit_number(want, "plain"), 1e-5 * unit_number(want, "plain"));
        NEAR(report.loss, unit_number(want, "loss"), 1e-4 * unit_number(want, "loss")); /* an f16 step of s moves a code */
        NEAR(report.ratio, unit_number(want, "ratio"), 1e-6);
        for (int i = 0; i < l.k; i++) {
            double expected = nb_f16_to_f32((uint16_t)unit_hex(want, "s", (size_t)i, 4));
            NEAR(s[i], expected, 1e-3 * expected);
        }
        float *clipped = malloc((size_t)n * l.k * sizeof *clipped);
        memcpy(clipped, l.w, (size_t)n * l.k * sizeof *clipped);
        OK(nb_awq_clip(clipped, l.h, n, l.k, &o.grid, pool, &err), &err);
        int group = o.grid.group ? o.grid.group : l.k, differ = 0, total = 0;
        for (int r = 0; r < n; r++)
            for (int b = 0; b < l.k; b += group, total++) {
                float before = 0.0f, after = 0.0f;
                for (int i = r * l.k + b; i < r * l.k + (b + group < l.k ? b + group : l.k); i++) {
                    before = fmaxf(before, fabsf(l.w[i]));
                    after = fmaxf(after, fabsf(clipped[i]));
                }
                for (int i = r * l.k + b; i < r * l.k + (b + group < l.k ? b + group : l.k); i++)
                    NEAR(clipped[i], fmin(fmax(l.w[i], -after), after), 0);
                differ += fabs(after / before * 20.0 - cJSON_GetArrayItem(kept, total)->valueint) > 1e-3;
            }
        if (differ * 100 > total) fail_msg("case %d: %d of %d groups are clipped elsewhere", seen, differ, total);
        free(clipped);
        unit_layer_free(&l);
        seen++;
    }
    assert_int_equal(seen, 9);
    cJSON_Delete(cases);
    nb_pool_free(pool);
}

/* The reported loss is that of the returned s by the definition, and never above plain rounding. */
static void never_worse_than_plain(void **state)
{
    (void)state;
    nb_pool *pool = unit_pool(2);
    for (int trial = 0; trial < 12; trial++) {
        unit_layer l = unit_layer_make(500 + (uint64_t)trial, 12, 48 + 16 * trial, 3 + 20 * (trial % 3), NULL);
        split c = split_rows(&l, (int[]){ 5, 7 }, 2);
        nb_awq_options o = { .grid = { trial % 4 == 3 ? 8 : 4, trial % 5 ? 32 : 0, trial & 1 }, .points = 5, .duo = trial & 2 };
        nb_awq_report report;
        nb_error err;
        float s[256], *scaled = malloc((size_t)l.n * l.k * sizeof *scaled), *q = malloc((size_t)l.n * l.k * sizeof *q);
        OK(nb_awq_search(s, c.consumers, c.rows, c.count, l.k, l.h, l.mean_abs, NULL, &o, pool, &report, &err), &err);
        assert_true(report.loss <= report.plain_loss);
        for (int i = 0; i < l.n * l.k; i++) scaled[i] = l.w[i] * s[i % l.k];
        nb_codes codes;
        OK(nb_rtn(&codes, scaled, l.n, l.k, &o.grid, pool, &err), &err);
        nb_codes_dequantize(&codes, q);
        for (int i = 0; i < l.n * l.k; i++) q[i] /= s[i % l.k];
        double want = unit_loss(l.w, q, l.h, l.n, l.k);
        NEAR(report.loss, want, 1e-6 * want);
        nb_codes_free(&codes);
        free(q);
        free(scaled);
        unit_layer_free(&l);
    }
    nb_pool_free(pool);
}

static void tied_and_dead_channels(void **state)
{
    (void)state;
    nb_pool *pool = unit_pool(2);
    cJSON *dead = cJSON_Parse("[2, 10, 11, 42]");
    unit_layer l = unit_layer_make(77, 16, 64, 60, dead);
    int32_t tie[64];
    for (int i = 0; i < 64; i++) tie[i] = i < 8 ? i : 8 + i % 8; /* 8 .. 63 in steps of 8 share */
    split c = split_rows(&l, (int[]){ 16 }, 1);
    nb_awq_options o = { .grid = { 4, 32, false }, .points = 20, .duo = true };
    nb_awq_report report;
    nb_error err;
    float s[64];
    OK(nb_awq_search(s, c.consumers, c.rows, 1, 64, l.h, l.mean_abs, tie, &o, pool, &report, &err), &err);
    assert_true(report.ratio >= 0.0);
    for (int i = 0; i < 64; i++) NEAR(s[i], s[tie[i]], 0);
    NEAR(s[2], 1, 0);
    OK(nb_awq_search(s, c.consumers, c.rows, 1, 64, l.h, l.mean_abs, NULL, &o, pool, &report, &err), &err);
    NEAR(s[2], 1, 0);
    NEAR(s[42], 1, 0);
    float least = INFINITY, most = 0.0f;
    for (int i = 0; i < 64; i++) least = fminf(least, s[i]), most = fmaxf(most, s[i]);
    NEAR(least * most, 1, 2e-3); /* centred over live channels */
    cJSON_Delete(dead);
    unit_layer_free(&l);
    nb_pool_free(pool);
}

static void same_bits_for_any_number_of_threads(void **state)
{
    (void)state;
    unit_layer l = unit_layer_make(21, 150, 300, 40, NULL);
    split c = split_rows(&l, (int[]){ 70, 79, 1 }, 3);
    nb_awq_options o = { .grid = { 4, 64, true }, .points = 6, .duo = true };
    nb_grid grid = { 4, 64, false };
    float s[3][300], *w[3];
    nb_awq_report report[3];
    for (int i = 0; i < 3; i++) {
        nb_error err;
        nb_pool *pool = unit_pool(1 << i);
        OK(nb_awq_search(s[i], c.consumers, c.rows, 3, 300, l.h, l.mean_abs, NULL, &o, pool, &report[i], &err), &err);
        w[i] = malloc(150 * 300 * sizeof(float));
        memcpy(w[i], l.w, 150 * 300 * sizeof(float));
        OK(nb_awq_clip(w[i], l.h, 150, 300, &grid, pool, &err), &err);
        nb_pool_free(pool);
        assert_memory_equal(s[i], s[0], sizeof s[0]);
        assert_memory_equal(w[i], w[0], 150 * 300 * sizeof(float));
        NEAR(report[i].loss, report[0].loss, 0);
        NEAR(report[i].plain_loss, report[0].plain_loss, 0);
    }
    assert_true(report[0].ratio >= 0.0 && report[0].loss < report[0].plain_loss);
    for (int i = 0; i < 3; i++) free(w[i]);
    unit_layer_free(&l);
}

/* Large enough that the search looks at a sample of the rows: the last word is still on all of them. */
static void large_layers_are_sampled(void **state)
{
    (void)state;
    enum { K = 1536, N = 4000, LOUD = 8 };
    nb_pool *pool = unit_pool(2);
    float *w = malloc((size_t)N * K * sizeof *w), mean_abs[K], s[K];
    double *h = calloc((size_t)K * K, sizeof *h);
    uint64_t seed = 1;
    for (size_t i = 0; i < (size_t)N * K; i++) w[i] = unit_uniform(&seed) * (i % K % 200 == LOUD ? 0.1f : 1.0f);
    for (int i = 0; i < K; i++) {
        mean_abs[i] = i % 200 == LOUD ? 30.0f : 1.0f;
        h[(size_t)i * K + i] = mean_abs[i] * mean_abs[i];
    }
    split c = { { w, w + (size_t)3000 * K }, { 3000, 1000 }, 2 };
    nb_awq_options o = { .grid = { 4, 128, true }, .points = 2, .duo = false };
    nb_awq_report report;
    nb_error err;
    OK(nb_awq_search(s, c.consumers, c.rows, 2, K, h, mean_abs, NULL, &o, pool, &report, &err), &err);
    assert_true(report.loss < 0.5 * report.plain_loss && report.ratio == 0.5);
    NEAR(s[LOUD] / s[0], sqrt(30.0), 0.02);
    free(w);
    free(h);
    nb_pool_free(pool);
}

static void hostile_numbers(void **state)
{
    (void)state;
    nb_error err;
    nb_pool *pool = unit_pool(2);
    enum { N = 4, K = 40 };
    float w[N * K], clipped[N * K], x[K], s[K];
    double h[K * K];
    for (int kind = 0; kind < 7; kind++)
        for (int weights = 0; weights < 5; weights++) {
            uint64_t seed = 8;
            for (int i = 0; i < N * K; i++) {
                float v = unit_normal(&seed);
                w[i] = weights == 0 ? v : weights == 1 ? 0.0f : weights == 2 ? 65504.0f : weights == 3 ? v * 1e-30f : i % K == 3 ? 0.0f : v * 1e-8f;
            }
            for (int i = 0; i < K; i++) {
                const float by_kind[] = { 0.0f, 1.0f, i == 4 ? 1e30f : 1e-30f, 1e-38f, i % 2 ? 0.0f : 2.0f, 1e30f, 1.0f };
                x[i] = by_kind[kind];
                for (int j = 0; j < K; j++)
                    h[i * K + j] = kind == 6 ? (i == j ? 0.0 : -1.0) /* nonsense */ : i == j ? (double)x[i] * x[i] : 0.0;
            }
            const float *consumers[] = { w };
            nb_awq_options o = { .grid = { 4, 16, kind & 1 }, .points = 4, .duo = true };
            nb_awq_report r;
            OK(nb_awq_search(s, consumers, (int[]){ N }, 1, K, h, x, NULL, &o, pool, &r, &err), &err);
            assert_true(isfinite(r.loss) && r.loss <= r.plain_loss);
            for (int i = 0; i < K; i++) assert_true(s[i] >= 1.0f / 256 && s[i] <= 256.0f);
            if (kind == 0) assert_true(r.ratio < 0.0 && s[7] == 1.0f);
            memcpy(clipped, w, sizeof w);
            OK(nb_awq_clip(clipped, h, N, K, &o.grid, pool, &err), &err);
            for (int i = 0; i < N * K; i++) assert_true(fabsf(clipped[i]) <= fabsf(w[i]) && fabsf(clipped[i]) >= 0.5f * fabsf(w[i]));
            if (kind == 0) assert_memory_equal(clipped, w, sizeof w);
        }
    nb_pool_free(pool);
}

static void refusals_name_the_place(void **state)
{
    (void)state;
    nb_error err;
    nb_pool *pool = unit_pool(1);
    unit_layer l = unit_layer_make(3, 4, 32, 8, NULL);
    split c = split_rows(&l, (int[]){ 1, 3 }, 2);
    nb_awq_options o = { .grid = { 4, 16, true }, .points = 4, .duo = true };
    nb_awq_report r;
    float s[32];
    int32_t tie[32] = { 0 };
#define SEARCH() nb_awq_search(s, c.consumers, c.rows, c.count, 32, l.h, l.mean_abs, tie, &o, pool, &r, &err)
    OK(SEARCH(), &err);
    l.w[2 * 32 + 3] = NAN;
    FAILS(SEARCH(), NB_ERR_INPUT, "matrix 2 of the 2", &err);
    FAILS(nb_awq_clip(l.w, l.h, 4, 32, &o.grid, pool, &err), NB_ERR_INPUT, "weight [2, 3]", &err);
    l.w[2 * 32 + 3] = 1e30f; /* no f16 */
    FAILS(SEARCH(), NB_ERR_INPUT, "matrix 2 of the 2", &err);
    FAILS(nb_awq_clip(l.w, l.h, 4, 32, &o.grid, pool, &err), NB_ERR_INPUT, "weight [2, 3]", &err);
    l.w[2 * 32 + 3] = 0.0f;
    l.h[33] = NAN;
    FAILS(SEARCH(), NB_ERR_INPUT, "Gram matrix [1, 1]", &err);
    FAILS(nb_awq_clip(l.w, l.h, 4, 32, &o.grid, pool, &err), NB_ERR_INPUT, "Gram matrix [1, 1]", &err);
    l.h[33] = 1.0;
    l.mean_abs[6] = -1.0f;
    FAILS(SEARCH(), NB_ERR_INPUT, "channel 6", &err);
    l.mean_abs[6] = INFINITY;
    FAILS(SEARCH(), NB_ERR_INPUT, "channel 6", &err);
    l.mean_abs[6] = 1.0f;
    tie[9] = 32;
    FAILS(SEARCH(), NB_ERR_ARGUMENT, "channel 9", &err);
    tie[9] = 0;
    o.points = 0;
    FAILS(SEARCH(), NB_ERR_ARGUMENT, "0 ratios", &err);
    o.points = 4;
    c.rows[1] = 0;
    FAILS(SEARCH(), NB_ERR_ARGUMENT, "0 rows", &err);
    c.rows[1] = 3;
    o.grid.bits = 2;
    FAILS(SEARCH(), NB_ERR_ARGUMENT, "2 bits", &err);
    unit_layer_free(&l);
    nb_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_numpy),
        cmocka_unit_test(never_worse_than_plain),
        cmocka_unit_test(tied_and_dead_channels),
        cmocka_unit_test(same_bits_for_any_number_of_threads),
        cmocka_unit_test(large_layers_are_sampled),
        cmocka_unit_test(hostile_numbers),
        cmocka_unit_test(refusals_name_the_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
