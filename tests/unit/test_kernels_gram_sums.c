/* test_kernels_gram_sums.c - the fixed-point sums by themselves, against integers of 128 bits; and that doubles would not do. */
#include "gram_result.h"

enum { TERMS = 2000 };

/* Signs and magnitudes from 1e-20 to 1e12. */
static void random_terms(double *terms, uint64_t seed)
{
    for (int i = 0; i < TERMS; i++) {
        double magnitude = pow(10, -20 + 32 * (unit_random(&seed) * 0x1p-31));
        terms[i] = unit_random(&seed) & 1 ? magnitude : -magnitude;
    }
}

static void shuffle(double *terms, uint64_t *seed)
{
    for (size_t i = TERMS - 1; i > 0; i--) {
        size_t j = (size_t)(unit_random(seed) % (i + 1));
        double t = terms[i];
        terms[i] = terms[j], terms[j] = t;
    }
}

/* Every term is its nearest multiple of 2^-56, and the sum is that of integers. */
static void sums_are_those_of_integers(void **state)
{
    (void)state;
    double   terms[TERMS];
    uint64_t seed = 1;
    int      plain_sums_that_differ = 0;
    for (int set = 0; set < 20; set++) {
        random_terms(terms, (uint64_t)set);
        __int128 want = 0;
        double   plain = 0;
        for (int i = 0; i < TERMS; i++) want += (__int128)rintl((long double)terms[i] * 0x1p56L), plain += terms[i];
        for (int order = 0; order < 5; order++) {
            int64_t high[3] = {0}, low[3] = {0}; /* the same by three ways: at once, and as two parts that are merged */
            double  again = 0;
            shuffle(terms, &seed);
            for (int i = 0; i < TERMS; i++) {
                int part = i % 7 < order ? 1 : 2;
                nb_fixed_add(&high[0], &low[0], terms[i]);
                nb_fixed_add(&high[part], &low[part], terms[i]);
                if (i % 100 == 0) nb_fixed_carry(&high[part], &low[part]); /* changes no value */
                again += terms[i];
            }
            high[1] = nb_fixed_sum(high[1], high[2]), low[1] = nb_fixed_sum(low[1], low[2]);
            for (int way = 0; way < 2; way++) {
                __int128 got = (high[way] * ((__int128)1 << NB_FIXED_LOW_BITS)) + low[way];
                assert_true(got == want);
                nb_fixed_carry(&high[way], &low[way]);
                assert_true(low[way] >= 0 && low[way] >> NB_FIXED_LOW_BITS == 0);
                assert_true((high[way] * ((__int128)1 << NB_FIXED_LOW_BITS)) + low[way] == want);
                long double value = (long double)want * 0x1p-56L;
                NEAR(nb_fixed_value(high[way], low[way]), value, 0x1p-52 * fabsl(value));
            }
            plain_sums_that_differ += again != plain;
        }
    }
    assert_true(plain_sums_that_differ > 50); /* of 100: a sum of doubles fails this test */
}

static void edges(void **state)
{
    (void)state;
    const double exact[] = { 0, 0x1p45, -0x1p45, 0x1p-5, -0x1p-5, 0x1p-4, 0x1p-56, -0x1p-56, 0x1p46 - 0x1p-6, 3 * 0x1p-57 };
    for (size_t i = 0; i < NB_COUNT(exact); i++) {
        int64_t high = 0, low = 0;
        nb_fixed_add(&high, &low, exact[i]);
        assert_true((high * ((__int128)1 << NB_FIXED_LOW_BITS) + low) == (__int128)rintl((long double)exact[i] * 0x1p56L));
        for (int n = 1; n < NB_GRAM_PIECES; n++) nb_fixed_add(&high, &low, exact[i]); /* no word overflows between carries */
        __int128 want = (__int128)rintl((long double)exact[i] * 0x1p56L) * NB_GRAM_PIECES;
        assert_true((high * ((__int128)1 << NB_FIXED_LOW_BITS) + low) == want);
    }
}

/* The low words fill what is below the diagonal, each place once. */
static void every_low_word_has_its_place(void **state)
{
    (void)state;
    for (size_t k = 1; k < 40; k++) {
        char *taken = calloc(k * k, 1);
        for (size_t i = 0; i < k; i++)
            for (size_t j = i + 1; j < k; j++) {
                size_t at = nb_gram_low(k, i, j);
                assert_true(at < k * k && at % k < at / k && !taken[at]++);
            }
        free(taken);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(sums_are_those_of_integers), cmocka_unit_test(edges),
                                       cmocka_unit_test(every_low_word_has_its_place)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
