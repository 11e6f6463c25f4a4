/* test_quant_grid.c - the grids against hand-computed cases and the loss against its definition. */
#include "unit_quant.h"

static const nb_grid SYM4 = { 4, 0, true }, ASYM4 = { 4, 0, false }, SYM8 = { 8, 0, true }, ASYM8 = { 8, 0, false };

static void expect_fit(const nb_grid *grid, const float *w, int count, float want_scale, int want_zero)
{
    float scale;
    uint8_t zero;
    nb_grid_fit(grid, w, count, 1.0f, &scale, &zero);
    if (!(scale == want_scale) || zero != want_zero)
        fail_msg("scale %.9g zero %d, expected %.9g %d", (double)scale, zero, (double)want_scale, want_zero);
}

static void fit_by_hand(void **state)
{
    (void)state;
    expect_fit(&SYM4, (float[]){ -7.5f, 3.0f }, 2, 1.0f, 8);          /* absmax / 7.5 */
    expect_fit(&SYM4, (float[]){ 1.0f, 15.0f }, 2, 2.0f, 8);          /* mirrored though nothing is negative */
    expect_fit(&SYM8, (float[]){ 127.5f, 0.0f }, 2, 1.0f, 128);
    expect_fit(&ASYM4, (float[]){ -3.0f, 12.0f }, 2, 1.0f, 3);
    expect_fit(&ASYM4, (float[]){ 5.0f, 15.0f }, 2, 1.0f, 0);         /* widened down to 0 */
    expect_fit(&ASYM4, (float[]){ -15.0f, -5.0f }, 2, 1.0f, 15);      /* widened up to 0 */
    expect_fit(&ASYM4, (float[]){ -2.5f, 12.5f }, 2, 1.0f, 2);        /* the zero, too, ties to even */
    expect_fit(&ASYM8, (float[]){ -55.0f, 200.0f }, 2, 1.0f, 55);
    expect_fit(&SYM4, (float[]){ 1.0f, 0.0f }, 2, 0x1.11p-3f, 8);     /* 2/15 rounded to the 11 bits of f16 */
    float scale;
    uint8_t zero;
    nb_grid_fit(&SYM4, (float[]){ -7.5f, 7.5f }, 2, 0.5f, &scale, &zero);
    NEAR(scale, 0.5, 0);
    nb_grid_fit(&ASYM4, (float[]){ -6.0f, 24.0f }, 2, 0.5f, &scale, &zero);
    NEAR(scale, 1.0, 0);
    assert_int_equal(zero, 3);
}

static void degenerate_groups(void **state)
{
    (void)state;
    const nb_grid *grids[] = { &SYM4, &ASYM4, &SYM8, &ASYM8 };
    const float hostile[] = { 0.0f, -0.0f, 1e-12f, -1e-12f, 1e-45f, 1e-5f, 65504.0f, -65504.0f, 1e30f, -1e30f, 3e38f, INFINITY,
                              NAN };
    for (size_t g = 0; g < NB_COUNT(grids); g++)
        for (size_t a = 0; a < NB_COUNT(hostile); a++)
            for (size_t b = 0; b < NB_COUNT(hostile); b++) {
                float w[2] = { hostile[a], hostile[b] }, scale[2] = { 0 };
                uint8_t zero[2];
                int maxq = (1 << grids[g]->bits) - 1;
                nb_grid_fit(grids[g], w, 2, 1.0f, &scale[0], &zero[0]);
                nb_grid_search(grids[g], w, NULL, 2, 2.4f, &scale[1], &zero[1]);
                for (int i = 0; i < 2; i++) {
                    assert_true(scale[i] > 0.0f && scale[i] <= 65504.0f && zero[i] <= maxq);
                    assert_true(nb_f16_to_f32(nb_f32_to_f16(scale[i])) == scale[i]);
                    for (int j = 0; j < 2; j++) assert_true(nb_grid_code(grids[g], w[j], scale[i], zero[i]) <= maxq);
                    if (w[0] == 0.0f && w[1] == 0.0f) assert_int_equal(nb_grid_code(grids[g], 0.0f, scale[i], zero[i]), zero[i]);
                }
            }
    expect_fit(&SYM4, (float[]){ 0.0f, 0.0f }, 2, 0x1.11p-3f, 8);
    expect_fit(&ASYM4, (float[]){ 0.0f, 0.0f }, 2, 0x1.11p-3f, 8);
    expect_fit(&SYM4, (float[]){ 1e-12f, 0.0f }, 2, 0x1p-24f, 8);
}

static void codes_round_half_to_even_and_stay_in_range(void **state)
{
    (void)state;
    const struct { float w; int code; } cases[] = {
        { 0.5f, 8 }, { 1.5f, 10 }, { -0.5f, 8 }, { -1.5f, 6 }, { 2.49f, 10 }, { 2.51f, 11 }, { 6.5f, 14 }, { 7.4f, 15 },
        { 7.5f, 15 }, { 100.0f, 15 }, { -7.5f, 0 }, { -8.4f, 0 }, { -1e30f, 0 }, { INFINITY, 15 }, { -INFINITY, 0 } };
    for (size_t i = 0; i < NB_COUNT(cases); i++)
        assert_int_equal(nb_grid_code(&SYM4, cases[i].w, 1.0f, 8), cases[i].code);
    assert_int_equal(nb_grid_code(&ASYM4, 3.5f, 0.5f, 3), 10);
    for (int i = -400; i <= 400; i++) { /* against the C library's rounding */
        float x = (float)i / 4.0f;
        NEAR(nb_round_within(x, -50.0f, 60.0f), fmin(fmax(nearbyint(x), -50.0), 60.0), 0);
    }
}

static void search_finds_the_least_error(void **state)
{
    (void)state;
    uint64_t seed = 5;
    for (int trial = 0; trial < 40; trial++) {
        nb_grid grid = trial & 1 ? SYM4 : ASYM4;
        float w[64], h[64], power = trial & 2 ? 2.0f : 2.4f, scale, got = 0.0f;
        uint8_t zero;
        for (int i = 0; i < 64; i++) w[i] = unit_normal(&seed) * (i == 7 ? 0.5f : 0.1f), h[i] = fabsf(unit_normal(&seed)) + 0.01f;
        double least = INFINITY, error;
        for (int step = 0; step <= 80; step++) {
            nb_grid_fit(&grid, w, 64, 1.0f - (float)step / 100.0f, &scale, &zero);
            error = 0.0;
            for (int i = 0; i < 64; i++)
                error += h[i] * pow(fabs((nb_grid_code(&grid, w[i], scale, zero) - zero) * (double)scale - w[i]), power);
            if (error < least) least = error, got = scale;
        }
        nb_grid_search(&grid, w, h, 64, power, &scale, &zero);
        error = 0.0;
        for (int i = 0; i < 64; i++)
            error += h[i] * pow(fabs((nb_grid_code(&grid, w[i], scale, zero) - zero) * (double)scale - w[i]), power);
        NEAR(error, least, 1e-5 * least);
        NEAR(scale, got, 0.02 * got);
    }
}

static void rtn_and_dequantize(void **state)
{
    (void)state;
    nb_error err;
    nb_pool *pool = unit_pool(2);
    uint64_t seed = 9;
    enum { N = 130, K = 70 };
    float w[N * K], back[N * K];
    for (int i = 0; i < N * K; i++) w[i] = unit_normal(&seed) * 0.02f;
    for (int variant = 0; variant < 8; variant++) {
        nb_grid grid = { variant & 1 ? 8 : 4, variant & 4 ? 0 : 32, variant & 2 };
        nb_codes c;
        OK(nb_rtn(&c, w, N, K, &grid, pool, &err), &err);
        assert_int_equal(c.groups, grid.group ? 3 : 1); /* 32 + 32 + 6 */
        nb_codes_dequantize(&c, back);
        for (int r = 0; r < N; r++)
            for (int i = 0; i < K; i++) {
                /* Half a step, but for what the end of the range (zero rounded, scale rounded to f16) saturates. */
                int code = c.codes[r * K + i], maxq = (1 << grid.bits) - 1;
                double step = c.scales[r * c.groups + i / c.group];
                NEAR(back[r * K + i], w[r * K + i], (code == 0 || code == maxq ? 1.1 : 0.5001) * step);
            }
        nb_codes_free(&c);
    }
    nb_codes c;
    OK(nb_codes_init(&c, 1, 4, &(nb_grid){ 4, 2, false }, &err), &err);
    memcpy(c.codes, (uint8_t[]){ 1, 2, 3, 15 }, 4);
    memcpy(c.scales, (float[]){ 1.0f, 10.0f }, 8);
    memcpy(c.zeros, (uint8_t[]){ 0, 3 }, 2);
    nb_codes_dequantize(&c, back);
    assert_memory_equal(back, ((float[]){ 1.0f, 2.0f, 0.0f, 120.0f }), 16);
    c.g_idx = calloc(4, sizeof(int32_t));
    memcpy(c.g_idx, (int32_t[]){ 1, 0, 1, 0 }, 16);
    nb_codes_dequantize(&c, back);
    assert_memory_equal(back, ((float[]){ -20.0f, 2.0f, 0.0f, 15.0f }), 16);
    nb_codes_free(&c);

    w[77] = NAN;
    FAILS(nb_rtn(&c, w, N, K, &SYM4, pool, &err), NB_ERR_INPUT, "[1, 7]", &err);
    assert_null(c.codes);
    w[77] = 1e30f;
    FAILS(nb_rtn(&c, w, N, K, &SYM4, pool, &err), NB_ERR_INPUT, "65504", &err);
    FAILS(nb_rtn(&c, w, N, K, &(nb_grid){ 3, 32, true }, pool, &err), NB_ERR_ARGUMENT, "3 bits", &err);
    FAILS(nb_rtn(&c, w, N, K, &(nb_grid){ 4, -1, true }, pool, &err), NB_ERR_ARGUMENT, "-1", &err);
    FAILS(nb_rtn(&c, w, 0, K, &SYM4, pool, &err), NB_ERR_ARGUMENT, "0 x 70", &err);
    nb_codes_free(&c); /* as a refused constructor leaves it */
    nb_codes_free(NULL);
    nb_pool_free(pool);
}

static void loss_is_its_definition(void **state)
{
    (void)state;
    const int shapes[][2] = { { 1, 1 }, { 3, 65 }, { 65, 257 }, { 2, 600 } };
    nb_pool *pools[] = { unit_pool(1), unit_pool(2), unit_pool(4) };
    for (size_t i = 0; i < NB_COUNT(shapes); i++) {
        unit_layer l = unit_layer_make(i + 1, shapes[i][0], shapes[i][1], 5, NULL);
        float *q = calloc((size_t)l.n * l.k, sizeof *q);
        uint64_t seed = 3;
        for (int j = 0; j < l.n * l.k; j++) q[j] = l.w[j] + 0.01f * unit_normal(&seed);
        double want = unit_loss(l.w, q, l.h, l.n, l.k), got = nb_gram_loss(l.w, q, l.h, l.n, l.k, pools[0]);
        NEAR(got, want, 1e-9 * want);
        for (int p = 1; p < 3; p++) NEAR(nb_gram_loss(l.w, q, l.h, l.n, l.k, pools[p]), got, 0);
        NEAR(nb_gram_loss(l.w, l.w, l.h, l.n, l.k, pools[1]), 0, 0);
        free(q);
        unit_layer_free(&l);
    }
    for (int p = 0; p < 3; p++) nb_pool_free(pools[p]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fit_by_hand),
        cmocka_unit_test(degenerate_groups),
        cmocka_unit_test(codes_round_half_to_even_and_stay_in_range),
        cmocka_unit_test(search_finds_the_least_error),
        cmocka_unit_test(rtn_and_dequantize),
        cmocka_unit_test(loss_is_its_definition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
