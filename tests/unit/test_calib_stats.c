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

/* Samples of many lengths, longer than a piece and a batch, and of no rows. */
static const size_t lengths[] = {700, 1, 0, 255, 256, 257, 2500, 3, 90, 938};
enum { SAMPLES = NB_COUNT(lengths) };

static void add(nb_stats *s, const nb_ops *ops, size_t first, size_t count)
{
    size_t bounds[SAMPLES + 1] = {0}, begin = 0;
    for (size_t i = 0; i < first; i++) begin += lengths[i];
    for (size_t i = 0; i < count; i++) bounds[i + 1] = bounds[i] + lengths[first + i];
    nb_stats_add(s, ops, x + begin * LD, LD, &(nb_sample_rows){.bounds = bounds, .count = count, .modality = modality + begin});
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
    OK(nb_stats_init(&s, K, weights[0], &err), &err);
    for (nb_isa isa = NB_ISA_REF; isa <= nb_isa_detect(NB_ISA_LEVELS - 1); isa++) {
        nb_ops_init(&ops, isa, pool);
        for (int i = 0; i < 2; i++) {
            uint64_t counts[3] = {0};
            nb_stats_reset(&s, weights[i]);
            add(&s, &ops, 0, 4);
            add(&s, &ops, 4, SAMPLES - 4);
            OK(nb_stats_finish(&s, pool, &err), &err);
            check(&s, weights[i]);
            for (size_t r = 0; r < ROWS; r++) counts[modality[r]]++;
            for (int m = 0; m < 3; m++) assert_int_equal(s.tokens[m], counts[m]);
        }
    }
    nb_stats_free(&s);
    nb_pool_free(pool);
}

/* Any order, any split, merged in any order, any number of threads: the same words before nb_stats_finish, the same means after. */
static void any_way_gives_the_same(void **state)
{
    (void)state;
    const float weights[3] = {1, 0.1f, 2.7f};
    nb_error    err;
    fill();
    for (size_t i = 0; i < ROWS * LD; i++) x[i] *= i % LD % 2 ? 3e-5f : 1e4f; /* where a sum of doubles loses the small ones */
    for (nb_isa isa = NB_ISA_REF; isa <= nb_isa_detect(NB_ISA_LEVELS - 1); isa++) {
        nb_stats want;
        OK(nb_stats_init(&want, K, weights, &err), &err);
        for (int way = 0; way < 6; way++) {
            nb_pool *pool;
            nb_ops   ops;
            nb_stats part[3];
            OK(nb_pool_new(&pool, 1 << way % 3, &err), &err);
            nb_ops_init(&ops, isa, pool);
            for (int i = 0; i < 3; i++) OK(nb_stats_init(&part[i], K, weights, &err), &err);
            for (size_t i = 0; i < SAMPLES; i++) /* way 0: one after the other; otherwise from behind into three */
                add(way ? &part[i * (size_t)way % 3] : &want, &ops, way ? SAMPLES - 1 - i : i, 1);
            if (way == 0) nb_stats_carry(&want, pool);
            nb_stats_merge(&part[2], &part[way % 2], pool);
            nb_stats_merge(&part[1 - way % 2], &part[2], pool);
            nb_stats *got = &part[1 - way % 2];
            if (way) {
                assert_memory_equal(got->sums.h, want.sums.h, K * K * 8);
                assert_memory_equal(got->sums.diagonal, want.sums.diagonal, K * 8);
                assert_memory_equal(got->sums.sum_abs, want.sums.sum_abs, 2 * K * 8);
                assert_memory_equal(got->max_abs, want.max_abs, K * 4);
                assert_memory_equal(got->tokens, want.tokens, sizeof want.tokens);
            }
            if (way == 5) {
                OK(nb_stats_finish(got, pool, &err), &err);
                OK(nb_stats_finish(&want, pool, &err), &err);
                assert_memory_equal(got->gram, want.gram, K * K * 8);
                check(got, weights);
            }
            for (int i = 0; i < 3; i++) nb_stats_free(&part[i]);
            nb_pool_free(pool);
        }
        nb_stats_free(&want);
    }
}

/* More pieces than the words hold without a carry. */
static void many_pieces(void **state)
{
    (void)state;
    enum { TOKENS = 6 * NB_GRAM_PIECES + 5 };
    static float   one[TOKENS];
    static uint8_t text[TOKENS];
    static size_t  bounds[TOKENS + 1];
    const float    weights[3] = {1, 1, 1};
    nb_error       err;
    nb_pool       *pool;
    nb_ops         ops;
    nb_stats       s;
    for (size_t i = 0; i < TOKENS; i++) one[i] = i % 8 ? 0.1767766952966369f : 5.9e6f, bounds[i + 1] = i + 1; /* 2^-5, almost 2^45 */
    OK(nb_pool_new(&pool, 1, &err), &err);
    nb_ops_init(&ops, nb_isa_detect(NB_ISA_LEVELS - 1), pool);
    OK(nb_stats_init(&s, 1, weights, &err), &err);
    nb_stats_add(&s, &ops, one, 1, &(nb_sample_rows){.bounds = bounds, .count = TOKENS, .modality = text});
    nb_stats_carry(&s, pool);
    int      large_ones = (TOKENS + 7) / 8;
    double   large = (float)(5.9e6f * 5.9e6f), small = (float)(one[1] * one[1]);
    __int128 got = (s.sums.h[0] * ((__int128)1 << NB_FIXED_LOW_BITS)) + s.sums.diagonal[0];
    __int128 want = (__int128)rintl((long double)large * 0x1p56L) * large_ones + (__int128)rintl((long double)small * 0x1p56L) * (TOKENS - large_ones);
    assert_true(got == want);
    nb_stats_free(&s);
    nb_pool_free(pool);
}

static void what_cannot_be_summed_is_refused(void **state)
{
    (void)state;
    const float  weights[3] = {1, 1, 1};
    const size_t bounds[2] = {0, 300};
    const nb_sample_rows rows = {.bounds = bounds, .count = 1, .modality = modality};
    nb_error err;
    nb_pool *pool;
    nb_ops   ops;
    nb_stats s;
    fill();
    OK(nb_pool_new(&pool, 1, &err), &err);
    nb_ops_init(&ops, nb_isa_detect(NB_ISA_LEVELS - 1), pool);
    OK(nb_stats_init(&s, K, weights, &err), &err);
    x[20 * LD + 5] = 1e7f;
    nb_stats_add(&s, &ops, x, LD, &rows);
    FAILS(nb_stats_finish(&s, pool, &err), NB_ERR_INPUT, "input 5 is too large", &err);
    x[20 * LD + 5] = NAN;
    nb_stats_reset(&s, weights);
    nb_stats_add(&s, &ops, x, LD, &rows);
    FAILS(nb_stats_finish(&s, pool, &err), NB_ERR_INPUT, "input 5 is not a number", &err);
    nb_stats_reset(&s, weights);
    s.sums.h[7 * K + 7] = (int64_t)1 << 62; /* half of what a word holds */
    FAILS(nb_stats_finish(&s, pool, &err), NB_ERR_INPUT, "input 7 is too large", &err);
    nb_stats_free(&s);
    nb_pool_free(pool);
}

static void nothing_weighed_gives_zeros(void **state)
{
    (void)state;
    const float  weights[3] = {0, 0, 0};
    const size_t bounds[2] = {0, 10};
    nb_error     err;
    nb_pool     *pool;
    nb_ops       ops;
    nb_stats     s;
    float        mean[K];
    OK(nb_pool_new(&pool, 1, &err), &err);
    nb_ops_init(&ops, NB_ISA_REF, pool);
    OK(nb_stats_init(&s, K, weights, &err), &err);
    fill();
    nb_stats_add(&s, &ops, x, LD, &(nb_sample_rows){.bounds = bounds, .count = 1, .modality = modality});
    OK(nb_stats_finish(&s, pool, &err), &err);
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(sums_match_the_definition), cmocka_unit_test(any_way_gives_the_same),
                                       cmocka_unit_test(many_pieces), cmocka_unit_test(what_cannot_be_summed_is_refused),
                                       cmocka_unit_test(nothing_weighed_gives_zeros)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
