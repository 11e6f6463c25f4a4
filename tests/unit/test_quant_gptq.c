/* test_quant_gptq.c - GPTQ against a textbook version in NumPy (tests/oracle/quant_oracle.py), its factor against the
 * definition, and what must hold for any input. */
#include "quant/gptq.h"
#include "kernels/ops.h"
#include "quant/linalg.h"
#include "unit_quant.h"

static nb_gptq_options plain_options(void)
{
    return (nb_gptq_options){ .grid = { 4, 32, true }, .damp = 0.01, .damp_max = 1.0, .block = 128 };
}

/* The loss by its definition, from the codes. */
static double unit_loss_of(const nb_codes *q, const unit_layer *l)
{
    size_t k = (size_t)q->k;
    float *w = malloc((size_t)q->n * k * sizeof *w);
    double loss = 0;
    nb_codes_dequantize(q, w);
    for (size_t r = 0; r < (size_t)q->n; r++)
        for (size_t i = 0; i < k; i++) {
            double sum = 0;
            for (size_t j = 0; j < k; j++) sum += l->h[i * k + j] * ((double)l->w[r * k + j] - w[r * k + j]);
            loss += ((double)l->w[r * k + i] - w[r * k + i]) * sum;
        }
    free(w);
    return loss / q->n;
}

static nb_act_order order_named(const cJSON *c)
{
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(c, "order"));
    return !strcmp(name, "none") ? NB_ORDER_NONE : !strcmp(name, "group") ? NB_ORDER_GROUP : NB_ORDER_FULL;
}

/* f32 against float64: a code may differ where a weight lies half way between two, and a scale where it lies half way between
 * two f16 values. */
static void matches_textbook(void **state)
{
    (void)state;
    cJSON *cases = unit_fixture("tests/golden/quant_gptq.json"), *c;
    nb_pool *pool = unit_pool(2);
    int seen = 0;
    cJSON_ArrayForEach(c, cases)
    {
        unit_layer l = unit_layer_make((uint64_t)unit_number(c, "seed"), (int)unit_number(c, "n"), (int)unit_number(c, "k"),
                                       (int)unit_number(c, "tokens"), cJSON_GetObjectItem(c, "dead"));
        nb_gptq_options o = { .grid = { (int)unit_number(c, "bits"), (int)unit_number(c, "group"), unit_true(c, "sym") },
                              .damp = unit_number(c, "damp"), .damp_max = 1.0, .block = (int)unit_number(c, "block"),
                              .order = order_named(c), .static_groups = unit_true(c, "static"), .mse = (float)unit_number(c, "mse"),
                              .range = unit_number(c, "mse") > 0 ? NB_RANGE_MSE : NB_RANGE_FULL };
        const cJSON *want = cJSON_GetObjectItem(c, "expected"), *g_idx = cJSON_GetObjectItem(want, "g_idx");
        nb_codes q;
        nb_gptq_report report;
        nb_error err;
        OK(nb_gptq(&q, l.w, l.h, l.n, l.k, &o, pool, &report, &err), &err);
        size_t wrong = 0, far = 0, groups = (size_t)l.n * q.groups, count = (size_t)l.n * l.k;
        for (size_t i = 0; i < count; i++) {
            int distance = abs((int)q.codes[i] - (int)unit_hex(want, "codes", i, 2));
            wrong += distance != 0;
            far += distance > 1;
        }
        if (wrong * 500 > count || far) fail_msg("case %d: %zu of %zu codes differ, %zu by more than 1", seen, wrong, count, far);
        for (size_t i = 0; i < groups; i++) {
            assert_int_equal(nb_f32_to_f16(q.scales[i]), unit_hex(want, "scales", i, 4));
            assert_int_equal(q.zeros[i], unit_hex(want, "zeros", i, 2));
        }
        for (int i = 0; i < l.k; i++)
            assert_int_equal(q.g_idx ? q.g_idx[i] : i / q.group, cJSON_GetArrayItem(g_idx, i)->valueint);
        NEAR(report.loss, unit_number(want, "loss"), 1e-5 * unit_number(want, "loss"));
        NEAR(report.rtn_loss, unit_number(want, "rtn_loss"), 1e-5 * unit_number(want, "rtn_loss"));
        NEAR(report.damp, o.damp, 0);
        assert_int_equal(report.dead, cJSON_GetArraySize(cJSON_GetObjectItem(c, "dead")));
        assert_false(report.fallback);
        nb_codes_free(&q);
        unit_layer_free(&l);
        seen++;
    }
    assert_int_equal(seen, 21);
    cJSON_Delete(cases);
    nb_pool_free(pool);
}

/* L L' is the matrix, for one thread and four, at every level, at, below and above the size of a square; nothing above the diagonal
 * squares is touched. */
static void factor_multiplies_back(void **state)
{
    (void)state;
    const int sizes[] = { 1, 2, NB_LOWER_TILE - 1, NB_LOWER_TILE, NB_LOWER_TILE + 1, 700 };
    nb_pool *pools[] = { unit_pool(1), unit_pool(4) };
    for (int level = 0; level < NB_ISA_LEVELS; level++) {
        if (nb_isa_detect((nb_isa)level) != (nb_isa)level) continue;
        setenv("NIBBLE_ISA", nb_isa_name((nb_isa)level), 1);
        for (size_t s = 0; s < NB_COUNT(sizes); s++) {
            int k = sizes[s];
            unit_layer l = unit_layer_make(40 + s, 1, k, k + 50 < 300 ? k + 50 : 300, NULL);
            double *a[2];
            nb_lower lower[2];
            for (int i = 0; i < k; i++) l.h[(size_t)i * k + i] += 10.0;
            for (int p = 0; p < 2; p++) {
                nb_error err;
                bool positive;
                a[p] = malloc((size_t)k * k * sizeof(double));
                for (int i = 0; i < k * k; i++) a[p][i] = NAN; /* not to be read */
                OK(nb_lower_init(&lower[p], a[p], k, &err), &err);
                for (int i = 0; i < k; i++)
                    for (int j = 0; j <= i; j++) *nb_lower_at(&lower[p], i, j) = l.h[(size_t)i * k + j];
                OK(nb_lower_factor(&lower[p], 1e-12, &positive, pools[p], &err), &err);
                assert_true(positive);
            }
            for (int i = 0; i < k; i++)
                for (int j = 0; j < k; j++) {
                    if (j > i || j >= i / NB_LOWER_TILE * NB_LOWER_TILE) assert_true(isnan(a[0][(size_t)i * k + j]));
                    if (j > i) continue;
                    NEAR(*nb_lower_at(&lower[0], i, j), *nb_lower_at(&lower[1], i, j), 0);
                    double sum = 0;
                    for (int m = 0; m <= j; m++) sum += *nb_lower_at(&lower[0], i, m) * *nb_lower_at(&lower[0], j, m);
                    NEAR(sum, l.h[(size_t)i * k + j], 1e-12 * sqrt(l.h[(size_t)i * k + i] * l.h[(size_t)j * k + j]));
                }
            for (int p = 0; p < 2; p++) free(a[p]), nb_lower_free(&lower[p]);
            unit_layer_free(&l);
        }
        unsetenv("NIBBLE_ISA");
    }
    nb_pool_free(pools[0]);
    nb_pool_free(pools[1]);
}

/* What must not pass for positive definite: a pivot at the level of rounding noise, a negative one, NaN; in the first block and
 * in the second. */
static void factor_refuses_noise(void **state)
{
    (void)state;
    enum { K = 300 };
    const double bad[] = { 0.0, 1e-13, -1.0, NAN, INFINITY };
    nb_pool *pool = unit_pool(2);
    double *a = malloc(sizeof(double) * K * K);
    for (size_t i = 0; i < NB_COUNT(bad); i++)
        for (int at = 7; at < K; at += 283) {
            nb_error err;
            bool positive = true;
            nb_lower lower;
            OK(nb_lower_init(&lower, a, K, &err), &err);
            for (int r = 0; r < K; r++)
                for (int c = 0; c <= r; c++) *nb_lower_at(&lower, r, c) = r == c;
            *nb_lower_at(&lower, at, at) = bad[i];
            OK(nb_lower_factor(&lower, 1e-12, &positive, pool, &err), &err);
            assert_false(positive);
            nb_lower_free(&lower);
        }
    free(a);
    nb_pool_free(pool);
}

/* Matrices of one site with one factor, and several groups of one thread's rows, are solved as each on its own; the upper triangle
 * of H stays, and a factor says for which options it is good. */
static void matrices_share_a_factor(void **state)
{
    (void)state;
    enum { K = 300 };
    nb_error err;
    nb_pool *pool = unit_pool(3);
    const int rows[] = { 5, 850, 48 };
    for (int order = NB_ORDER_NONE; order <= NB_ORDER_FULL; order++) {
        nb_gptq_options o = plain_options();
        nb_gptq_factor *f;
        o.order = (nb_act_order)order;
        unit_layer l = unit_layer_make(77, rows[1], K, 200, NULL);
        double *h = malloc(sizeof(double) * K * K);
        memcpy(h, l.h, sizeof(double) * K * K);
        OK(nb_gptq_factor_new(&f, h, K, &o, pool, &err), &err);
        for (int r = 0; r < K; r++) assert_memory_equal(h + r * K + r, l.h + r * K + r, sizeof(double) * (size_t)(K - r));
        for (size_t i = 0; i < NB_COUNT(rows); i++) {
            nb_codes       shared, own;
            nb_gptq_report a, b;
            OK(nb_gptq_solve(&shared, l.w, rows[i], f, &o, pool, &a, &err), &err);
            OK(nb_gptq(&own, l.w, l.h, rows[i], K, &o, pool, &b, &err), &err);
            unit_same_codes(&shared, &own);
            NEAR(a.loss, b.loss, 0);
            NEAR(a.rtn_loss, b.rtn_loss, 0);
            assert_true(a.loss < a.rtn_loss && !a.fallback);
            if (i == 1) NEAR(a.loss, unit_loss_of(&shared, &l), 1e-5 * a.loss);
            nb_codes_free(&shared);
            nb_codes_free(&own);
        }
        nb_gptq_options other = o;
        assert_true(nb_gptq_factor_fits(f, &other));
        other.grid.bits = 8;
        other.mse = 2.4f;
        assert_true(nb_gptq_factor_fits(f, &other)); /* of the matrix, not of its inputs */
        other.grid.group = 64;
        assert_false(nb_gptq_factor_fits(f, &other));
        other = o;
        other.damp = 0.02;
        assert_false(nb_gptq_factor_fits(f, &other));
        nb_gptq_factor_free(f);
        unit_layer_free(&l);
        free(h);
    }
    nb_pool_free(pool);
}

/* A column whose own energy is zero meets no other, whatever its row of h claims. */
static void dead_columns_meet_nobody(void **state)
{
    (void)state;
    nb_error err;
    nb_pool *pool = unit_pool(1);
    cJSON *dead = cJSON_Parse("[3, 50]");
    unit_layer l = unit_layer_make(31, 6, 64, 90, dead);
    nb_codes clean, claimed;
    nb_gptq_report r;
    nb_gptq_options o = plain_options();
    OK(nb_gptq(&clean, l.w, l.h, 6, 64, &o, pool, &r, &err), &err);
    assert_int_equal(r.dead, 2);
    for (int i = 0; i < 64; i++)
        if (i != 3 && i != 50) l.h[i * 64 + 3] = l.h[3 * 64 + i] = l.h[i * 64 + 50] = l.h[50 * 64 + i] = 60.0;
    OK(nb_gptq(&claimed, l.w, l.h, 6, 64, &o, pool, &r, &err), &err);
    assert_false(r.fallback);
    unit_same_codes(&clean, &claimed);
    nb_codes_free(&clean);
    nb_codes_free(&claimed);
    cJSON_Delete(dead);
    unit_layer_free(&l);
    nb_pool_free(pool);
}

static void same_bits_for_any_number_of_threads(void **state)
{
    (void)state;
    unit_layer l = unit_layer_make(7, 150, 600, 60, NULL);
    for (int order = 0; order < 3; order++) {
        nb_gptq_options o = plain_options();
        o.order = (nb_act_order)order;
        o.static_groups = order == 2;
        o.range = order == 1 ? NB_RANGE_MSE : NB_RANGE_FULL;
        nb_codes q[3];
        nb_gptq_report report[3];
        for (int i = 0; i < 3; i++) {
            nb_error err;
            nb_pool *pool = unit_pool(1 << i);
            OK(nb_gptq(&q[i], l.w, l.h, l.n, l.k, &o, pool, &report[i], &err), &err);
            nb_pool_free(pool);
            unit_same_codes(&q[0], &q[i]);
            NEAR(report[i].loss, report[0].loss, 0);
        }
        assert_true(report[0].loss < 0.6 * report[0].rtn_loss);
        for (int i = 0; i < 3; i++) nb_codes_free(&q[i]);
    }
    unit_layer_free(&l);
}

/* H only through its shape: a power of two in front changes no bit, 1e-30 and 1e30 change next to nothing.  A diagonal H
 * leaves nothing to compensate: round to nearest.  h itself is not touched. */
static void scale_and_shape_of_h(void **state)
{
    (void)state;
    nb_error err;
    nb_pool *pool = unit_pool(2);
    unit_layer l = unit_layer_make(11, 20, 96, 150, NULL);
    size_t size = (size_t)l.k * l.k;
    double *h = malloc(size * sizeof *h);
    const double factors[] = { 1.0, 0x1p-60, 0x1p60, 1e-30, 1e30, 1e-80, 1e80 };
    nb_gptq_options o = plain_options();
    o.order = NB_ORDER_FULL;
    nb_codes first, q;
    nb_gptq_report want, got;
    OK(nb_gptq(&first, l.w, l.h, l.n, l.k, &o, pool, &want, &err), &err);
    for (size_t f = 0; f < NB_COUNT(factors); f++) {
        for (size_t i = 0; i < size; i++) h[i] = l.h[i] * factors[f];
        double *before = malloc(size * sizeof *h);
        memcpy(before, h, size * sizeof *h);
        OK(nb_gptq(&q, l.w, h, l.n, l.k, &o, pool, &got, &err), &err);
        assert_memory_equal(before, h, size * sizeof *h);
        if (f < 3) unit_same_codes(&first, &q);
        NEAR(got.loss / factors[f], want.loss, 0.01 * want.loss);
        assert_false(got.fallback);
        nb_codes_free(&q);
        free(before);
    }
    for (int i = 0; i < l.k; i++)
        for (int j = 0; j < l.k; j++) h[(size_t)i * l.k + j] = i == j ? 1.0 + i % 5 : 0.0;
    nb_codes nearest;
    o.order = NB_ORDER_NONE;
    OK(nb_gptq(&q, l.w, h, l.n, l.k, &o, pool, &got, &err), &err);
    OK(nb_rtn(&nearest, l.w, l.n, l.k, &o.grid, pool, &err), &err);
    unit_same_codes(&q, &nearest);
    NEAR(got.loss, got.rtn_loss, 0);
    nb_codes_free(&nearest);
    nb_codes_free(&q);
    nb_codes_free(&first);
    free(h);
    unit_layer_free(&l);
    nb_pool_free(pool);
}

static void expect_finite(const nb_codes *q, const nb_gptq_report *r)
{
    int maxq = (1 << q->bits) - 1;
    for (size_t i = 0; i < (size_t)q->n * q->k; i++) assert_true(q->codes[i] <= maxq);
    for (size_t i = 0; i < (size_t)q->n * q->groups; i++) assert_true(q->scales[i] > 0.0f && q->scales[i] <= 65504.0f);
    assert_true(isfinite(r->loss) && isfinite(r->rtn_loss));
    assert_true(r->loss <= r->rtn_loss * 1.00001); /* both are sums of f32 errors */
}

/* Gram matrices that no exact arithmetic would factor, and weights without information. */
static void hostile_numbers(void **state)
{
    (void)state;
    nb_error err;
    nb_pool *pool = unit_pool(2);
    enum { N = 5, K = 80 };
    float w[N * K];
    double h[K * K];
    for (int kind = 0; kind < 9; kind++)
        for (int weights = 0; weights < 4; weights++)
            for (int variant = 0; variant < 6; variant++) {
                uint64_t seed = 100;
                for (int i = 0; i < N * K; i++) {
                    float v = unit_normal(&seed);
                    w[i] = weights == 0 ? v * 0.05f : weights == 1 ? 0.0f : weights == 2 ? 0.25f : i % 9 ? v : 65504.0f;
                }
                for (int i = 0; i < K; i++)
                    for (int j = 0; j < K; j++) {
                        double same = i == j;
                        const double by_kind[] = { 0.0, 1.0 /* rank one */, same, same ? 1.0 : 10.0 /* indefinite */,
                                                   (double)((i + 1) * (j + 1)), same ? 1e-300 : 0.0,
                                                   same ? 1.0 : 0.999999999999, i / 40 == j / 40 && i >= 40 ? 1.0 : 0.0,
                                                   i == 3 && same ? 1e60 : same ? 1e-60 : 1e90 /* nonsense */ };
                        h[i * K + j] = by_kind[kind];
                    }
                nb_gptq_options o = plain_options();
                o.order = (nb_act_order)(variant % 3);
                o.static_groups = variant >= 3;
                o.damp = variant & 1 ? 0.0 : 0.01;
                o.range = variant == 4 ? NB_RANGE_ENERGY : variant == 5 ? NB_RANGE_BLOCK : NB_RANGE_FULL;
                o.sweeps = variant >= 2 ? 3 : 0;
                nb_codes q;
                nb_gptq_report r;
                OK(nb_gptq(&q, w, h, N, K, &o, pool, &r, &err), &err);
                expect_finite(&q, &r);
                if (kind == 0) assert_int_equal(r.dead, K);
                if (kind == 7) assert_int_equal(r.dead, 40);
                if (kind == 3) assert_true(r.fallback && r.damp == 1.0);
                if (kind == 1 && o.damp == 0.0 && weights == 0) assert_true(r.damp > 0.0 && !r.fallback);
                if (r.fallback) {
                    nb_codes nearest;
                    OK(nb_rtn(&nearest, w, N, K, &o.grid, pool, &err), &err);
                    unit_same_codes(&q, &nearest);
                    nb_codes_free(&nearest);
                }
                nb_codes_free(&q);
            }
    nb_pool_free(pool);
}

/* Weights and inputs far from 1: a scale of the inputs changes no code, tiny weights come out as the smallest float16 scales allow, and
 * what no float16 scale can hold is refused by name. */
static void scaled_numbers(void **state)
{
    (void)state;
    nb_error err;
    nb_pool *pool = unit_pool(2);
    unit_layer l = unit_layer_make(6, 6, 64, 48, NULL);
    const size_t count = (size_t)l.n * l.k, area = (size_t)l.k * l.k;
    double *h = malloc(area * sizeof *h);
    float *w = malloc(count * sizeof *w);
    const double scales[] = { 1e-30, 1.0, 1e30 };
    for (int effort = 0; effort < 2; effort++)
        for (int sym = 0; sym < 2; sym++) {
            nb_gptq_options o = plain_options();
            nb_codes q, first = { 0 };
            nb_gptq_report r;
            o.grid.sym = sym;
            o.static_groups = effort;
            o.sweeps = effort ? 8 : 0;
            o.range = effort ? NB_RANGE_BLOCK : NB_RANGE_FULL;
            OK(nb_gptq(&first, l.w, l.h, l.n, l.k, &o, pool, &r, &err), &err);
            for (size_t x = 0; x < 3; x++) {
                for (size_t i = 0; i < area; i++) h[i] = l.h[i] * scales[x] * scales[x];
                OK(nb_gptq(&q, l.w, h, l.n, l.k, &o, pool, &r, &err), &err);
                expect_finite(&q, &r);
                assert_false(r.fallback);
                size_t off = 0;
                for (size_t i = 0; i < count; i++) off += q.codes[i] != first.codes[i];
                if (off * 50 > count) fail_msg("inputs times %g: %zu of %zu codes differ", scales[x], off, count);
                nb_codes_free(&q);
                for (size_t i = 0; i < count; i++) w[i] = l.w[i] * 1e-30f;
                OK(nb_gptq(&q, w, h, l.n, l.k, &o, pool, &r, &err), &err);
                expect_finite(&q, &r);
                nb_codes_dequantize(&q, w);
                for (size_t i = 0; i < count; i++) assert_true(fabsf(w[i]) < 1e-6f);
                nb_codes_free(&q);
                for (size_t i = 0; i < count; i++) w[i] = l.w[i] * 1e30f;
                FAILS(nb_gptq(&q, w, h, l.n, l.k, &o, pool, &r, &err), NB_ERR_INPUT, "weight [0, 0]", &err);
                assert_null(q.codes);
            }
            nb_codes_free(&first);
        }
    free(w);
    free(h);
    unit_layer_free(&l);
    nb_pool_free(pool);
}

static void refusals_name_the_place(void **state)
{
    (void)state;
    nb_error err;
    nb_pool *pool = unit_pool(1);
    unit_layer l = unit_layer_make(3, 4, 32, 8, NULL);
    nb_codes q;
    nb_gptq_report r;
    const double bad[] = { NAN, INFINITY, -INFINITY, 1e200 };
    for (size_t i = 0; i < NB_COUNT(bad); i++) {
        nb_gptq_options o = plain_options();
        double kept = l.h[5 * 32 + 9];
        l.h[5 * 32 + 9] = bad[i];
        FAILS(nb_gptq(&q, l.w, l.h, 4, 32, &o, pool, &r, &err), NB_ERR_INPUT, "Gram matrix [5, 9]", &err);
        l.h[5 * 32 + 9] = kept;
        float weight = l.w[2 * 32 + 3];
        l.w[2 * 32 + 3] = (float)bad[i];
        FAILS(nb_gptq(&q, l.w, l.h, 4, 32, &o, pool, &r, &err), NB_ERR_INPUT, "weight [2, 3]", &err);
        l.w[2 * 32 + 3] = weight;
        assert_null(q.codes);
    }
    l.h[0] = -1.0;
    nb_gptq_options o = plain_options();
    FAILS(nb_gptq(&q, l.w, l.h, 4, 32, &o, pool, &r, &err), NB_ERR_INPUT, "negative", &err);
    l.h[0] = 1.0;
    o.block = 0;
    FAILS(nb_gptq(&q, l.w, l.h, 4, 32, &o, pool, &r, &err), NB_ERR_ARGUMENT, "block of 0", &err);
    o = plain_options();
    o.damp = -0.5;
    FAILS(nb_gptq(&q, l.w, l.h, 4, 32, &o, pool, &r, &err), NB_ERR_ARGUMENT, "-0.5", &err);
    o.damp = NAN;
    FAILS(nb_gptq(&q, l.w, l.h, 4, 32, &o, pool, &r, &err), NB_ERR_ARGUMENT, "damping", &err);
    o = plain_options();
    o.mse = -1.0f;
    FAILS(nb_gptq(&q, l.w, l.h, 4, 32, &o, pool, &r, &err), NB_ERR_ARGUMENT, "exponent", &err);
    o = plain_options();
    o.grid.bits = 5;
    FAILS(nb_gptq(&q, l.w, l.h, 4, 32, &o, pool, &r, &err), NB_ERR_ARGUMENT, "5 bits", &err);
    o = plain_options();
    o.grid.group = 1000; /* wider than the row: one group */
    OK(nb_gptq(&q, l.w, l.h, 1, 1, &o, pool, &r, &err), &err);
    assert_int_equal(q.groups, 1);
    nb_codes_free(&q);
    unit_layer_free(&l);
    nb_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_textbook),
        cmocka_unit_test(factor_multiplies_back),
        cmocka_unit_test(factor_refuses_noise),
        cmocka_unit_test(matrices_share_a_factor), cmocka_unit_test(dead_columns_meet_nobody),
        cmocka_unit_test(same_bits_for_any_number_of_threads),
        cmocka_unit_test(scale_and_shape_of_h),
        cmocka_unit_test(hostile_numbers),
        cmocka_unit_test(scaled_numbers),
        cmocka_unit_test(refusals_name_the_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
