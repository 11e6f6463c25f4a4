/* The greedy choice of bits on numbers that can be checked by hand, and against all choices of a few random sites. */
#include "unit.h"

#include "quant/allocate.h"

/* Rates for a byte: b to int8 6/10, a to int8 4/10, a on to float 1/20, b on to float 1/20; c is fixed. */
static void start(nb_site_cost s[3])
{
    s[0] = (nb_site_cost){.score = {5, 1, 0}, .bytes = {10, 20, 40}};
    s[1] = (nb_site_cost){.score = {7, 1, 0}, .bytes = {10, 20, 40}};
    s[2] = (nb_site_cost){.score = {100, 1, 0}, .bytes = {10, 20, 40}, .fixed = true};
}

static void by_hand(void **state)
{
    (void)state;
    static const struct { uint64_t budget; int a, b; } cases[] = {
        {30, 0, 0}, {39, 0, 0}, {40, 0, 1}, {49, 0, 1}, {50, 1, 1}, {69, 1, 1}, {70, 2, 1}, {90, 2, 2}, {1000, 2, 2},
    };
    nb_site_cost s[3];
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        start(s);
        assert_true(nb_allocate_bytes(s, 3, cases[i].budget));
        assert_int_equal(s[0].level, cases[i].a);
        assert_int_equal(s[1].level, cases[i].b);
        assert_int_equal(s[2].level, 0);
        assert_true(nb_allocated_bytes(s, 3) <= cases[i].budget);
    }
    start(s);
    assert_false(nb_allocate_bytes(s, 3, 29));
    start(s);
    assert_true(nb_allocate_score(s, 3, 107));
    assert_true(s[0].level == 0 && s[1].level == 1);
    assert_true(nb_allocate_score(s, 3, 102));
    assert_true(s[0].level == 1 && s[1].level == 1);
    assert_false(nb_allocate_score(s, 3, 99)); /* what is fixed costs 100 */
    s[2].score[0] = NAN;
    assert_false(nb_allocate_score(s, 3, 1e9));
}

/* Never over the budget, no step left that would fit and help, and within a half of the best that there is. */
static void against_all_choices(void **state)
{
    (void)state;
    uint64_t seed = 9;
    for (int round = 0; round < 200; round++) {
        enum { N = 6 };
        nb_site_cost s[N];
        uint64_t     least = 0, most = 0;
        for (int i = 0; i < N; i++) {
            double high = 0.01 + fabs(unit_uniform(&seed));
            s[i] = (nb_site_cost){.score = {high, high * (0.02 + 0.3 * fabs(unit_uniform(&seed))), 0}};
            s[i].bytes[0] = 50 + unit_random(&seed) % 100;
            s[i].bytes[1] = 2 * s[i].bytes[0];
            s[i].bytes[2] = 4 * s[i].bytes[0];
            least += s[i].bytes[0];
            most += s[i].bytes[2];
        }
        uint64_t budget = least + unit_random(&seed) % (most - least);
        double   best = INFINITY;
        for (int code = 0; code < 729; code++) {
            uint64_t bytes = 0;
            double   score = 0;
            for (int i = 0, rest = code; i < N; i++, rest /= 3) bytes += s[i].bytes[rest % 3], score += s[i].score[rest % 3];
            if (bytes <= budget && score < best) best = score;
        }
        double before = nb_allocated_score(s, N);
        assert_true(nb_allocate_bytes(s, N, budget));
        uint64_t used = nb_allocated_bytes(s, N);
        double   after = nb_allocated_score(s, N);
        assert_true(used <= budget && after <= before);
        assert_true(before - after >= 0.5 * (before - best));
        for (int i = 0; i < N; i++)
            for (int to = s[i].level + 1; to < NB_LEVELS; to++) assert_true(used + s[i].bytes[to] - s[i].bytes[s[i].level] > budget);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(by_hand), cmocka_unit_test(against_all_choices)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
