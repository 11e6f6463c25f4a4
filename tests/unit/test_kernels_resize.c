/* test_kernels_resize.c - both passes at every level against the sum that resize.h defines, in 64 bits, at odd sizes: fewer rows than
 * a block and more, windows longer than a stretch, weights that clip at both ends; nothing is written beside the result. */
#include "kernels/resize.h"
#include "levels.h"

enum { FENCE_BYTES = 64 };

/* Windows of `taps` or less that wander over `in` pixels, with weights of both signs. */
static nb_axis some_axis(int in, int out, int taps, uint64_t *seed)
{
    nb_axis a = { out, taps, malloc((size_t)out * sizeof(int)), malloc((size_t)out * sizeof(int)), malloc((size_t)out * (size_t)taps * 4) };
    for (int i = 0; i < out; i++) {
        a.first[i] = (int)((int64_t)(in - 1) * i / out);
        a.count[i] = a.first[i] + taps < in ? taps : in - a.first[i];
        for (int j = 0; j < taps; j++) a.weight[(size_t)i * (size_t)taps + (size_t)j] = (int32_t)(unit_random(seed) % 6000000 / (uint64_t)taps) - 1000000 / taps;
    }
    return a;
}

static uint8_t defined(const nb_axis *a, int place, const uint8_t *pixels, size_t step)
{
    int64_t sum = 1 << 21;
    for (int j = 0; j < a->count[place]; j++) sum += (int64_t)a->weight[place * a->taps + j] * pixels[(size_t)(a->first[place] + j) * step];
    sum >>= 22;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

static uint8_t *fenced(size_t n)
{
    uint8_t *p = malloc(n + 2 * FENCE_BYTES);
    memset(p, 0xa5, n + 2 * FENCE_BYTES);
    return p + FENCE_BYTES;
}

static void free_fenced(uint8_t *p, size_t n)
{
    for (int i = 0; i < FENCE_BYTES; i++) assert_true(p[-1 - i] == 0xa5 && p[n + (size_t)i] == 0xa5);
    free(p - FENCE_BYTES);
}

static void against_the_definition(const nb_resize *resize)
{
    static const int cases[][4] = { /* lines across the axis, in, out, taps */
        { 1, 1, 1, 1 }, { 15, 7, 13, 5 }, { 16, 100, 41, 9 }, { 17, 41, 100, 5 }, { 33, 700, 301, 11 }, { 18, 600, 700, 7 },
        { 19, 900, 3, 300 }, { 16, 300, 5, 256 }, { 32, 300, 5, 257 },
    };
    uint64_t seed = 7;
    for (size_t s = 0; s < NB_COUNT(cases); s++) {
        size_t   lines = (size_t)cases[s][0], in = (size_t)cases[s][1], out = (size_t)cases[s][2];
        nb_axis  a = some_axis((int)in, (int)out, cases[s][3], &seed);
        uint8_t *from = malloc(lines * in * 3), *to = fenced(lines * out * 3);
        for (size_t i = 0; i < lines * in * 3; i++) from[i] = i % 11 ? (uint8_t)unit_random(&seed) : i % 2 ? 255 : 0;
        resize->rows(to, from, lines, in, &a);
        for (size_t y = 0; y < lines; y++)
            for (size_t i = 0; i < 3 * out; i++)
                assert_int_equal(to[y * 3 * out + i], defined(&a, (int)(i / 3), from + y * in * 3 + i % 3, 3));
        memset(to, 0, lines * out * 3);
        resize->columns(to, from, lines * 3, &a);
        for (size_t y = 0; y < out; y++)
            for (size_t i = 0; i < 3 * lines; i++) assert_int_equal(to[y * 3 * lines + i], defined(&a, (int)y, from + i, 3 * lines));
        free_fenced(to, lines * out * 3);
        free(from), free(a.first), free(a.count), free(a.weight);
    }
}

static void test_resize(void **state)
{
    (void)state;
    for (nb_isa isa = NB_ISA_REF; isa < NB_ISA_LEVELS; isa++)
        if (nb_isa_detect(isa) == isa) against_the_definition(nb_resize_of(isa));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_resize) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
