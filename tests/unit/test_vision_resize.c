/* The bicubic resize and the size rule, against the vectors of the reference text and a table of integer weights. */
#include "unit_vision.h"

#include "runtime/vision/preprocess.h"

/* FNV-1a of the result for generated pictures, as Pillow 12.3 gives them. */
static void resize_matches_pillow(void **state)
{
    static const struct {
        int      in_w, in_h, w, h;
        uint64_t hash;
        uint8_t  first[9];
    } cases[] = {
        { 50, 40, 56, 56, 0x4e7e9cd9852c5fdb, { 0, 0, 142, 144, 214, 30, 131, 181, 117 } },
        { 100, 75, 84, 56, 0x108526d6680e07b2, { 20, 100, 129, 114, 218, 40, 159, 83, 162 } },
        { 640, 480, 644, 476, 0x092b57f823187e3b, { 6, 4, 140, 161, 230, 29, 126, 142, 150 } },
        { 13, 7, 28, 28, 0x34c6a1b4b8a0b4ec, { 0, 0, 150, 19, 15, 120, 109, 161, 45 } },
        { 56, 40, 56, 56, 0xe78a3c165a2720e2, { 4, 0, 139, 171, 242, 27, 122, 145, 161 } },
        { 2048, 1365, 2044, 1372, 0x53398d648ecb9c8c, { 5, 4, 139, 162, 232, 28, 126, 139, 152 } },
    };
    nb_error err;
    (void)state;
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        nb_image in = unit_generated(cases[i].in_w, cases[i].in_h), out;
        OK(nb_image_resize(&out, &in, cases[i].w, cases[i].h, &err), &err);
        assert_int_equal(out.width, cases[i].w);
        assert_int_equal(out.height, cases[i].h);
        assert_memory_equal(out.rgb, cases[i].first, 9);
        assert_int_equal(unit_fnv(out.rgb, (size_t)out.width * out.height * 3), cases[i].hash);
        nb_image_free(&in);
        nb_image_free(&out);
    }
}

/* One output place from the published integer weights, along both axes: clip((2^21 + sum w p) >> 22). */
static void weights_are_pillows(void **state)
{
    static const struct {
        int in, out, place, first, n;
        int w[8];
    } cases[] = {
        { 3, 2, 0, 0, 3, { 2726634, 1635981, -168311 } },
        { 2, 4, 0, 0, 2, { 4564390, -370086 } },
        { 2, 4, 1, 0, 2, { 3325484, 868820 } },
        { 2, 4, 2, 0, 2, { 868820, 3325484 } },
        { 4, 2, 0, 0, 4, { 1923834, 1923834, 502623, -155987 } },
        { 8, 3, 1, 0, 8, { -113649, 59548, 732425, 1418827, 1418827, 732425, 59548, -113649 } },
    };
    nb_error err;
    uint64_t seed = 5;
    (void)state;
    for (size_t i = 0; i < NB_COUNT(cases); i++)
        for (int round = 0; round < 200; round++) {
            int     n = cases[i].in;
            uint8_t pixels[24];
            int64_t sum[3] = { 1 << 21, 1 << 21, 1 << 21 };
            for (int j = 0; j < 3 * n; j++) pixels[j] = round == 0 ? 255 : (uint8_t)unit_random(&seed);
            for (int j = 0; j < cases[i].n; j++)
                for (int c = 0; c < 3; c++) sum[c] += (int64_t)cases[i].w[j] * pixels[3 * (cases[i].first + j) + c];
            nb_image across = { pixels, n, 1 }, down = { pixels, 1, n }, a, d;
            OK(nb_image_resize(&a, &across, cases[i].out, 1, &err), &err);
            OK(nb_image_resize(&d, &down, 1, cases[i].out, &err), &err);
            for (int c = 0; c < 3; c++) {
                int64_t want = sum[c] >> 22;
                want = want < 0 ? 0 : want > 255 ? 255 : want;
                assert_int_equal(a.rgb[3 * cases[i].place + c], want);
                assert_int_equal(d.rgb[3 * cases[i].place + c], want);
            }
            nb_image_free(&a);
            nb_image_free(&d);
        }
}

static void same_size_copies_and_bad_sizes_fail(void **state)
{
    nb_error err;
    nb_image in = unit_generated(9, 5), out;
    (void)state;
    OK(nb_image_resize(&out, &in, 9, 5, &err), &err);
    assert_memory_equal(in.rgb, out.rgb, 9 * 5 * 3);
    assert_ptr_not_equal(in.rgb, out.rgb);
    nb_image_free(&out);
    FAILS(nb_image_resize(&out, &in, 0, 5, &err), NB_ERR_ARGUMENT, "0 x 5", &err);
    assert_null(out.rgb);
    FAILS(nb_image_resize(&out, &in, 5, -1, &err), NB_ERR_ARGUMENT, "5 x -1", &err);
    FAILS(nb_image_resize(&out, &in, INT32_MAX, INT32_MAX, &err), NB_ERR_ARGUMENT, "too large", &err);
    assert_null(out.rgb);
    nb_image_free(&in);
    nb_image_free(&in); /* harmless */
    nb_image_free(NULL);
}

/* A flat picture stays flat whatever the window: the weights of each place sum to one within rounding. */
static void flat_stays_flat(void **state)
{
    static const int sizes[] = { 1, 2, 3, 5, 28, 29, 100, 997 };
    nb_error         err;
    (void)state;
    for (size_t i = 0; i < NB_COUNT(sizes); i++)
        for (size_t j = 0; j < NB_COUNT(sizes); j++) {
            int      w = sizes[i], h = sizes[j];
            nb_image in = { malloc((size_t)w * 7 * 3), w, 7 }, out;
            memset(in.rgb, 201, (size_t)w * 7 * 3);
            OK(nb_image_resize(&out, &in, h, 11, &err), &err);
            for (int k = 0; k < h * 11 * 3; k++) assert_int_equal(out.rgb[k], 201);
            nb_image_free(&in);
            nb_image_free(&out);
        }
}

static void size_rule(void **state)
{
    static const struct {
        int     h, w;
        int64_t min, max;
        int     to_h, to_w;
    } cases[] = {
        { 1365, 2048, 3136, 12845056, 1372, 2044 },
        { 480, 640, 3136, 12845056, 476, 644 },
        { 42, 70, 3136, 12845056, 56, 56 },
        { 14, 100, 3136, 12845056, 28, 168 }, /* utils alone would say 28 x 112 */
        { 1, 1, 3136, 12845056, 56, 56 },
        { 4000, 6000, 3136, 12845056, 2912, 4368 },
        { 1080, 1920, 256 * 784, 1280 * 784, 728, 1316 },
        { 720, 1280, 128 * 784, 768 * 784, 560, 1008 },
        { 360, 420, 50176, 50176, 196, 224 },
        { 639, 31, 3136, 15680, 560, 28 }, /* the zero guard */
        { 31, 639, 3136, 15680, 28, 560 },
        { 1, 200, 3136, 12845056, 28, 812 },
        { 2880, 2304, 3136, 1003520, 1120, 868 }, /* 896 with w / (beta * 28) */
        { 304, 76, 200704, 12845056, 924, 252 },  /* 224 with w * (beta / 28) */

        { 28, 28, 1, 784, 28, 28 },
        { 13, 13, 1, 784, 28, 28 }, /* rounds to 0 x 0 first */
    };
    nb_error err;
    int      h, w;
    (void)state;
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        OK(nb_smart_resize(cases[i].h, cases[i].w, 28, cases[i].min, cases[i].max, &h, &w, &err), &err);
        if (h != cases[i].to_h || w != cases[i].to_w)
            fail_msg("%d x %d gave %d x %d, expected %d x %d", cases[i].h, cases[i].w, h, w, cases[i].to_h, cases[i].to_w);
    }
    /* every size: multiples of 28, inside the limits unless the ratio forces a side to 28 */
    uint64_t seed = 3;
    for (int i = 0; i < 20000; i++) {
        int a = 1 + (int)(unit_random(&seed) % 5000), b = 1 + (int)(unit_random(&seed) % 5000);
        if (a > 200 * b || b > 200 * a) continue;
        OK(nb_smart_resize(a, b, 28, 3136, 1003520, &h, &w, &err), &err);
        assert_true(h >= 28 && w >= 28 && h % 28 == 0 && w % 28 == 0);
        assert_true((int64_t)h * w >= 3136);
        assert_true((int64_t)h * w <= 1003520 || h == 28 || w == 28);
    }
}

static void size_rule_refuses(void **state)
{
    nb_error err;
    int      h = 7, w = 7;
    (void)state;
    OK(nb_smart_resize(1000, 5, 28, 3136, 12845056, &h, &w, &err), &err); /* exactly 200 */
    FAILS(nb_smart_resize(1001, 5, 28, 3136, 12845056, &h, &w, &err), NB_ERR_INPUT,
          "5 x 1001 pixels (width x height), a ratio of 200.2", &err);
    FAILS(nb_smart_resize(1, 201, 28, 3136, 12845056, &h, &w, &err), NB_ERR_INPUT, "ratio of 201", &err);
    FAILS(nb_smart_resize(0, 5, 28, 3136, 12845056, &h, &w, &err), NB_ERR_INPUT, "5 x 0", &err);
    FAILS(nb_smart_resize(50, 50, 28, 5000, 4000, &h, &w, &err), NB_ERR_ARGUMENT, "min_pixels 5000 and max_pixels 4000", &err);
    FAILS(nb_smart_resize(50, 50, 28, 0, 4000, &h, &w, &err), NB_ERR_ARGUMENT, "min_pixels 0", &err);
    FAILS(nb_smart_resize(50, 50, 28, INT64_C(1) << 40, INT64_C(1) << 41, &h, &w, &err), NB_ERR_ARGUMENT, "lower max_pixels",
          &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resize_matches_pillow),
        cmocka_unit_test(weights_are_pillows),
        cmocka_unit_test(same_size_copies_and_bad_sizes_fail),
        cmocka_unit_test(flat_stays_flat),
        cmocka_unit_test(size_rule),
        cmocka_unit_test(size_rule_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
