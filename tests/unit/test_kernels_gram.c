/* test_kernels_gram.c - input statistics: a case by hand, every level against ref at odd sizes, threads, accumulation.
 *
 * Bound: f32 sums of at most 256 products, 1e-5 of sqrt(H_ii H_jj) (about 90 roundings of 2^-23). */
#include "levels.h"

typedef struct {
    double *h, *sum_abs;
    float  *max_abs;
} result;

static result new_result(size_t k)
{
    result r = { malloc(k * k * 8), malloc(k * 8), malloc(k * 4) };
    for (size_t i = 0; i < k * k; i++) r.h[i] = i % k < i / k ? -777 : 0.5; /* lower triangle: must stay */
    for (size_t i = 0; i < k; i++) r.sum_abs[i] = 1, r.max_abs[i] = 0.25f;
    return r;
}

static void free_result(result *r)
{
    free(r->h), free(r->sum_abs), free(r->max_abs);
}

static void by_hand(const nb_ops *ops)
{
    float  x[6] = { 1, -2, 9, 3, 4, 9 }, weight[2] = { 2, 0.5f }, max_abs[2] = { 0, 5 }; /* rows (1, -2), (3, 4); ldx 3 */
    double h[4] = { 0, 0, 7, 0 }, sum_abs[2] = { 0, 100 };
    ops->gram(ops, h, sum_abs, max_abs, x, 3, 2, 2, weight);
    NEAR(h[0], 2 * 1 + 0.5 * 9, 1e-6);
    NEAR(h[1], 2 * -2 + 0.5 * 12, 1e-6);
    NEAR(h[2], 7, 0);
    NEAR(h[3], 2 * 4 + 0.5 * 16, 1e-6);
    NEAR(sum_abs[0], 3.5, 1e-6);
    NEAR(sum_abs[1], 106, 1e-6);
    NEAR(max_abs[0], 3, 0);
    NEAR(max_abs[1], 5, 0);
}

static void against_ref(const nb_ops *ops)
{
    nb_ops       ref = level_ops(NB_ISA_REF, ops->pool);
    const size_t shapes[][2] = { { 1, 1 }, { 3, 17 }, { 255, 95 }, { 256, 97 }, { 257, 130 }, { 600, 33 }, { 40, 300 }, { 0, 5 } };
    for (size_t s = 0; s < NB_COUNT(shapes); s++) {
        for (int weighted = 0; weighted < 2; weighted++) {
            size_t rows = shapes[s][0], k = shapes[s][1], ldx = k + 2;
            float *x = random_floats(rows * ldx, true, s + 1), *weight = random_floats(rows, false, 9);
            for (size_t r = 0; r < rows; r++) weight[r] = r % 5 == 0 ? 0 : fabsf(weight[r]);
            result got = new_result(k), want = new_result(k);
            for (int call = 0; call < 2; call++) { /* the second adds to the first */
                ref.gram(&ref, want.h, want.sum_abs, want.max_abs, x, ldx, rows, (int)k, weighted ? weight : NULL);
                ops->gram(ops, got.h, got.sum_abs, got.max_abs, x, ldx, rows, (int)k, weighted ? weight : NULL);
            }
            for (size_t i = 0; i < k; i++) {
                for (size_t j = 0; j < k; j++) {
                    double within = j < i ? 0 : 1e-5 * sqrt(want.h[i * k + i] * want.h[j * k + j]);
                    if (!(fabs(got.h[i * k + j] - want.h[i * k + j]) <= within))
                        fail_msg("%s: %zu rows, k %zu: H[%zu, %zu] = %g, expected %g", ops->name, rows, k, i, j,
                                 got.h[i * k + j], want.h[i * k + j]);
                }
                NEAR(got.sum_abs[i], want.sum_abs[i], 1e-6 * want.sum_abs[i]);
                NEAR(got.max_abs[i], want.max_abs[i], 0);
            }
            free_result(&got), free_result(&want), free(x), free(weight);
        }
    }
}

static void threads_do_not_matter(const nb_ops *ops)
{
    enum { ROWS = 300, K = 210 };
    float *x = random_floats(ROWS * K, true, 1);
    result first = new_result(K);
    ops->gram(ops, first.h, first.sum_abs, first.max_abs, x, K, ROWS, K, NULL);
    for (int threads = 1; threads <= 4; threads *= 2) {
        nb_error err;
        nb_ops   other = *ops;
        OK(nb_pool_new(&other.pool, threads, &err), &err);
        result r = new_result(K);
        other.gram(&other, r.h, r.sum_abs, r.max_abs, x, K, ROWS, K, NULL);
        assert_memory_equal(r.h, first.h, K * K * 8);
        assert_memory_equal(r.sum_abs, first.sum_abs, K * 8);
        free_result(&r);
        nb_pool_free(other.pool);
    }
    x[5 * K + 3] = NAN; /* is kept, wherever it is, and harms only its own row and column */
    x[200 * K + 3] = 5;
    ops->gram(ops, first.h, first.sum_abs, first.max_abs, x, K, ROWS, K, NULL);
    assert_true(isnan(first.h[3 * K + 3]) && isnan(first.h[3 * K + 100]) && isnan(first.h[3]) && isnan(first.sum_abs[3]));
    assert_true(isnan(first.max_abs[3]) && isfinite(first.h[0]) && isfinite(first.h[2 * K + 5]));
    free_result(&first), free(x);
}

static void test_gram(void **state)
{
    (void)state;
    each_level(by_hand);
    each_level(against_ref);
    each_level(threads_do_not_matter);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_gram) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
