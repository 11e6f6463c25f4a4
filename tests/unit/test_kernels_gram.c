/* test_kernels_gram.c - input statistics: a case by hand, every level against ref at odd sizes, and that no order, batch or number
 * of threads changes a bit.
 *
 * Bound: f32 sums of at most 256 products, 1e-5 of sqrt(H_ii H_jj) (about 90 roundings of 2^-23). */
#include "gram_result.h"

static void by_hand(const nb_ops *ops)
{
    float  x[6] = { 1, -2, 9, 3, 4, 9 }, weight[2] = { 2, 0.5f }; /* rows (1, -2), (3, 4); ldx 3 */
    gram_result r = new_result(2);
    size_t bounds[3] = { 0, 1, 2 };
    r.s.max_abs[1] = 5;
    nb_fixed_add(&r.s.sum_abs[1], &r.s.sum_abs[3], 100);
    ops->gram(ops, &r.s, x, 3, 2, bounds, 2, weight);
    NEAR(h_at(&r, 0, 0), 2 * 1 + 0.5 * 9, 0);
    NEAR(h_at(&r, 0, 1), 2 * -2 + 0.5 * 12, 0);
    NEAR(h_at(&r, 1, 1), 2 * 4 + 0.5 * 16, 0);
    NEAR(abs_at(&r, 0), 3.5, 0);
    NEAR(abs_at(&r, 1), 106, 0);
    NEAR(r.s.max_abs[0], 3, 0);
    NEAR(r.s.max_abs[1], 5, 0);
    free_result(&r);
}

/* Bounds of samples that make `rows` rows together: of no row, one, a few, more than a piece. */
static size_t make_bounds(size_t *bounds, size_t rows, uint64_t seed)
{
    static const size_t lengths[] = { 1, 0, 7, 300, 64, 256, 513, 2 };
    size_t count = 0;
    for (bounds[0] = 0; bounds[count] < rows; count++) {
        size_t n = lengths[unit_random(&seed) % NB_COUNT(lengths)], left = rows - bounds[count];
        bounds[count + 1] = bounds[count] + (n < left ? n : left);
    }
    return count;
}

static void against_ref(const nb_ops *ops)
{
    nb_ops       ref = level_ops(NB_ISA_REF, ops->pool);
    const size_t shapes[][2] = { { 1, 1 }, { 3, 17 }, { 255, 95 }, { 256, 97 }, { 257, 130 }, { 600, 33 }, { 40, 200 }, { 0, 5 },
                                 { 1500, 70 }, { 30, 391 } };
    for (size_t s = 0; s < NB_COUNT(shapes); s++) {
        for (int weighted = 0; weighted < 3; weighted++) {
            size_t rows = shapes[s][0], k = shapes[s][1], ldx = k + 2, *bounds = malloc((4 * rows + 2) * sizeof *bounds);
            size_t samples = make_bounds(bounds, rows, s);
            float *x = random_floats(rows * ldx, true, s + 1), *weight = random_floats(rows, false, 9);
            for (size_t r = 0; r < rows; r++) weight[r] = weighted == 2 || r % 5 == 0 ? 0 : fabsf(weight[r]);
            gram_result got = new_result(k), want = new_result(k);
            for (int call = 0; call < 2; call++) { /* the second adds to the first */
                ref.gram(&ref, &want.s, x, ldx, (int)k, bounds, samples, weighted ? weight : NULL);
                ops->gram(ops, &got.s, x, ldx, (int)k, bounds, samples, weighted ? weight : NULL);
            }
            for (size_t i = 0; i < k; i++) {
                for (size_t j = 0; j < k; j++) {
                    double within = 1e-5 * sqrt(h_at(&want, i, i) * h_at(&want, j, j));
                    if (!(fabs(h_at(&got, i, j) - h_at(&want, i, j)) <= within))
                        fail_msg("%s: %zu rows, k %zu: H[%zu, %zu] = %g, expected %g", ops->name, rows, k, i, j, h_at(&got, i, j),
                                 h_at(&want, i, j));
                }
                NEAR(abs_at(&got, i), abs_at(&want, i), 1e-6 * abs_at(&want, i));
                NEAR(got.s.max_abs[i], want.s.max_abs[i], 0);
            }
            free_result(&got), free_result(&want), free(x), free(weight), free(bounds);
        }
    }
}

/* The same samples in one call, or in several in another order, with other threads. */
static void no_order_matters(const nb_ops *ops)
{
    enum { ROWS = 1700, K = 210, MAX = 4 * ROWS };
    static size_t bounds[MAX + 2];
    float  *x = random_floats(ROWS * K, true, 1), *weight = random_floats(ROWS, false, 2);
    size_t  samples = make_bounds(bounds, ROWS, 3);
    for (size_t r = 0; r < ROWS; r++) weight[r] = r % 3 == 0 ? 0 : fabsf(weight[r]);
    for (size_t i = 0; i < ROWS * K; i++) x[i] *= i % K % 3 ? 1e-6f : 1e3f; /* far apart, so that any rounding would show */
    gram_result first = new_result(K);
    ops->gram(ops, &first.s, x, K, K, bounds, samples, weight);
    for (int threads = 1; threads <= 4; threads *= 2) {
        nb_error err;
        nb_ops   other = *ops;
        OK(nb_pool_new(&other.pool, threads, &err), &err);
        gram_result r = new_result(K);
        for (size_t end = samples, begin; end > 0; end = begin) { /* from behind, one to three samples a call, long ones in halves */
            begin = end > (size_t)threads ? end - (size_t)threads : 0;
            size_t part[5], at = bounds[begin], n = bounds[end] - at;
            for (size_t i = begin; i <= end; i++) part[i - begin] = bounds[i] - at;
            if (end - begin == 1 && n > NB_GRAM_ROWS) { /* what is behind a piece may come first */
                size_t later[2] = { 0, n - NB_GRAM_ROWS }, sooner[2] = { 0, NB_GRAM_ROWS };
                other.gram(&other, &r.s, x + (at + NB_GRAM_ROWS) * K, K, K, later, 1, weight + at + NB_GRAM_ROWS);
                other.gram(&other, &r.s, x + at * K, K, K, sooner, 1, weight + at);
            } else
                other.gram(&other, &r.s, x + at * K, K, K, part, end - begin, weight + at);
        }
        assert_same_result(&r, &first);
        free_result(&r);
        nb_pool_free(other.pool);
    }
    free_result(&first), free(x), free(weight);
}

/* What is not a number, or too large, marks its column and harms no other; a row without weight does neither to the sums. */
static void strange_values(const nb_ops *ops)
{
    enum { ROWS = 300, K = 210 };
    float  *x = random_floats(ROWS * K, true, 1), *weight = filled(ROWS, 1);
    size_t  bounds[2] = { 0, ROWS };
    gram_result clean = new_result(K), r = new_result(K);
    weight[7] = 0;
    ops->gram(ops, &clean.s, x, K, K, bounds, 1, weight);
    x[5 * K + 3] = NAN;
    x[200 * K + 3] = 5;
    x[5 * K + 8] = 6e6f; /* 3.6e13 > 2^45 */
    x[9 * K + 9] = -5.9e6f; /* 3.48e13 < 2^45 */
    x[7 * K + 10] = INFINITY;
    x[7 * K + 11] = NAN;
    ops->gram(ops, &r.s, x, K, K, bounds, 1, weight);
    assert_true(isnan(r.s.max_abs[3]) && isinf(r.s.max_abs[8]) && isinf(r.s.max_abs[10]) && isnan(r.s.max_abs[11]));
    NEAR(r.s.max_abs[9], 5.9e6f, 0);
    for (size_t i = 0; i < K; i++)
        for (size_t j = 0; j < K; j++)
            if (i != 3 && j != 3 && i != 8 && j != 8 && i != 9 && j != 9) NEAR(h_at(&r, i, j), h_at(&clean, i, j), 0);
    ops->gram(ops, &r.s, x, K, K, bounds, 1, weight);
    assert_true(isnan(r.s.max_abs[3]) && isinf(r.s.max_abs[8])); /* a mark stays */
    free_result(&clean), free_result(&r), free(x), free(weight);
}

static void test_gram(void **state)
{
    (void)state;
    each_level(by_hand);
    each_level(against_ref);
    each_level(no_order_matters);
    each_level(strange_values);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_gram) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
