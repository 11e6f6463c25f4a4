/* test_io_scan.c - the figures about arrays, by hand. */
#include "unit.h"

#include "runtime/io/scan.h"

static void test_scan(void **state)
{
    (void)state;
    const float x[] = {0, -0.0f, 1, -2, NAN, 0.25f, INFINITY, -4};
    nb_scan     s;
    nb_scan_start(&s);
    nb_scan_add(&s, x, 3);
    nb_scan_add(&s, x + 3, 5);
    assert_int_equal(s.count, 8);
    assert_int_equal(s.not_finite, 2);
    assert_int_equal(s.first_not_finite, 4);
    assert_int_equal(s.zeros, 2);
    assert_int_equal(s.negative, 2);
    NEAR(s.least, 0.25, 0);
    NEAR(s.most, 4, 0);
    nb_scan_start(&s);
    assert_true(isinf(s.least) && s.most == 0);
}

static void test_contrast(void **state)
{
    (void)state;
    const float a[] = {3, 0, 4, 0}, b[] = {3, 0, 4.5f, 0.5f}, c[] = {3, 0, NAN, 0};
    nb_contrast x;
    nb_contrast_start(&x);
    nb_contrast_add(&x, a, b, 2);
    nb_contrast_add(&x, a + 2, b + 2, 2);
    assert_int_equal(x.differing, 2);
    assert_int_equal(x.first, 2);
    assert_int_equal(x.worst, 2);
    NEAR(x.max_abs, 0.5, 0);
    NEAR(nb_contrast_relative(&x), sqrt(0.5) / 5, 1e-15);
    NEAR(nb_contrast_cosine(&x), (9 + 18) / (5 * sqrt(9 + 20.25 + 0.25)), 1e-15);
    nb_contrast_start(&x);
    nb_contrast_add(&x, a, c, 4);
    assert_int_equal(x.not_finite, 1);
    assert_int_equal(x.worst, 2);
    assert_true(isinf(nb_contrast_relative(&x)));
    assert_true(isnan(nb_contrast_cosine(&x)));
    nb_contrast_start(&x);
    nb_contrast_add(&x, c, c, 4); /* the same NaN on both sides is no difference */
    assert_int_equal(x.differing, 0);
    NEAR(nb_contrast_relative(&x), 0, 0);
    const float zero[4] = {0};
    nb_contrast_start(&x);
    nb_contrast_add(&x, zero, a, 4);
    assert_true(isinf(nb_contrast_relative(&x)));
    NEAR(nb_contrast_cosine(&x), 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_scan), cmocka_unit_test(test_contrast)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
