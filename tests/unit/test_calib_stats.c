/* Statistics against their definition: sums in double over every token, written out. */
#include "unit.h"

#include "calib/stats.h"

enum { K = 37, ROWS = 5000, LD = 40 };

static float   x[ROWS * LD];
static uint8_t modality[ROWS];

static void fill(void)
{
    uint64_t seed = 7;
    for (size_t i = 0; i < ROWS * LD; i++) x[i] = unit_normal(&seed) * (float)(1 + i % 5);
    for (size_t r = 0; r < ROWS; r++) modality[r] = (uint8_t)(unit_random(&seed) % 3);
}

static void check(const nb_stats *s, const float weights[3])
{
    double weight = 0;
    for (size_t r = 0; r < ROWS; r++) weight += weights[modality[r]];
    NEAR(s->weight, weight, 1e-6 * weight);
    float *mean = malloc(K * sizeof *mean);
    nb_stats_mean_abs(s, mean);
    for (int i = 0; i < K; i++) {
        double sum = 0, max = 0;
        for (size_t r = 0; r < ROWS; r++) {
            sum += weights[modality[r]] * fabs((double)x[r * LD + i]);
            max = fmax(max, fabs((double)x[r * LD + i]));
        }
        NEAR(mean[i], sum / weight, 1e-5 * sum / weight);
        NEAR(s->max_abs[i], max, 0);
        for (int j = 0; j < K; j++) {
            double h = 0, scale = 0;
            for (size_t r = 0; r < ROWS; r++) {
                double p = (double)x[r * LD + i] * x[r * LD + j] * weights[modality[r]];
                h += p;
                scale += fabs(p);
            }
            NEAR(s->gram[i * K + j], h / weight, 1e-5 * scale / weight);
        }
    }
    free(mean);
}

static void sums_match_the_definition(void **state)
{
    (void)state;
    const float weights[2][3] = {{1, 1, 1}, {1, 0.25f, 3}};
    nb_error    err;
    nb_pool    *pool;
    nb_ops      ops;
    nb_stats    s;
    fill();
    OK(nb_pool_new(&pool, 2, &err), &err);
    OK(nb_stats_init(&s, K, &err), &err);
    for (nb_isa isa = NB_ISA_REF; isa <= nb_isa_detect(NB_ISA_AVX512); isa++) {
        nb_ops_init(&ops, isa, pool);
        for (int i = 0; i < 2; i++) {
            uint64_t counts[3] = {0};
            nb_stats_reset(&s);
            nb_stats_add(&s, &ops, x, LD, 1234, modality, weights[i]); /* uneven calls; one is longer than a batch */
            nb_stats_add(&s, &ops, x + 1234 * LD, LD, ROWS - 1234, modality + 1234, weights[i]);
            nb_stats_finish(&s);
            check(&s, weights[i]);
            for (size_t r = 0; r < ROWS; r++) counts[modality[r]]++;
            for (int m = 0; m < 3; m++) assert_int_equal(s.tokens[m], counts[m]);
        }
    }
    nb_stats_free(&s);
    nb_pool_free(pool);
}

static void nothing_weighed_gives_zeros(void **state)
{
    (void)state;
    const float weights[3] = {0, 0, 0};
    nb_error    err;
    nb_pool    *pool;
    nb_ops      ops;
    nb_stats    s;
    float       mean[K];
    OK(nb_pool_new(&pool, 1, &err), &err);
    nb_ops_init(&ops, NB_ISA_REF, pool);
    OK(nb_stats_init(&s, K, &err), &err);
    nb_stats_add(&s, &ops, x, LD, 10, modality, weights);
    nb_stats_finish(&s);
    nb_stats_mean_abs(&s, mean);
    for (int i = 0; i < K; i++) NEAR(mean[i], 0, 0);
    for (int i = 0; i < K * K; i++) NEAR(s.gram[i], 0, 0);
    s.max_abs[3] = NAN;
    assert_true(isnan(nb_stats_max(&s))); /* a broken input cannot hide */
    nb_stats_free(&s);
    nb_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(sums_match_the_definition), cmocka_unit_test(nothing_weighed_gives_zeros)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
