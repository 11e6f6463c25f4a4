/* test_model_positions.c - rotary frequencies (plain and YaRN) against transformers 4.57.1's float32 values, and M-RoPE
 * positions against cases worked out from get_rope_index. */
#include "runtime/model/prompt.h"
#include "runtime/model/rope.h"
#include "unit.h"

static nb_config qwen(void)
{
    return (nb_config){ .head_dim = 128, .rope_theta = 1e6f, .mrope = { 16, 24, 24 }, .max_positions = 32768, .v_merge = 2,
                        .vision_start = 1, .vision_end = 2, .image_pad = 3, .video_pad = 4, .vocab = 100 };
}

/* Equal to the last bit: transformers prints nine digits. */
static void same_float(float got, const char *want)
{
    char text[32];
    snprintf(text, sizeof text, "%.9g", (double)got);
    if (strcmp(text, want)) fail_msg("%s, expected %s", text, want);
}

static void test_frequencies(void **state)
{
    (void)state;
    float     f[64];
    nb_config c = qwen();
    nb_rope_model_frequencies(f, &c);
    same_float(f[0], "1");
    /* the exponent, the power and the reciprocal rounded one by one: at j = 37 torch alone leaves this recipe */
    NEAR(f[37], 0.000339820836, 4e-11);
    c.yarn = true;
    c.yarn_factor = 4;
    c.yarn_original = 32768;
    c.yarn_beta_fast = 32;
    c.yarn_beta_slow = 1;
    c.yarn_truncate = true;
    nb_rope_model_frequencies(f, &c);
    same_float(f[15], "0.0392418988"); /* all T frequencies are untouched */
    same_float(f[23], "0.00697830599");
    same_float(f[24], "0.00537532149");
    same_float(f[30], "0.00106436096");
    same_float(f[39], "6.4903943e-05");
    same_float(f[40], "4.44569851e-05"); /* from here on divided by 4 */
    same_float(f[63], "3.10234441e-07");
}

/* Each frequency turns with the axis of its section. */
static void test_table(void **state)
{
    (void)state;
    float   inv[4] = { 1, 0.5f, 0.25f, 0.125f }, cosines[4], sines[4];
    int32_t position[3] = { 1, 2, 3 };
    nb_rope_table(cosines, sines, inv, 2, (int[]){ 1, 2, 1 }, 8, position, 1, 1);
    float want[4] = { 1, 1, 0.5f, 0.375f };
    for (int j = 0; j < 4; j++) {
        NEAR(cosines[j], 2 * cos(want[j]), 1e-6);
        NEAR(sines[j], 2 * sin(want[j]), 1e-6);
    }
    /* vision, grid 2 x 4, merge 2, head 8: rows in block order (0,0) (0,1) (1,0) (1,1) (0,2) ... */
    float c[8 * 4], s[8 * 4], vision_inv[2] = { 1, 0.1f };
    int   row[8] = { 0, 0, 1, 1, 0, 0, 1, 1 }, column[8] = { 0, 1, 0, 1, 2, 3, 2, 3 };
    nb_rope_vision_table(c, s, vision_inv, 8, 1, 2, 4, 2);
    for (int r = 0; r < 8; r++)
        for (int j = 0; j < 2; j++) {
            NEAR(s[r * 4 + j], sin(row[r] * vision_inv[j]), 1e-6);
            NEAR(s[r * 4 + 2 + j], sin(column[r] * vision_inv[j]), 1e-6);
            NEAR(c[r * 4 + j], cos(row[r] * vision_inv[j]), 1e-6);
        }
}

typedef struct {
    int32_t ids[4096], position[3 * 4096], delta;
    size_t  count;
} built;

static void text(built *b, int n)
{
    for (int i = 0; i < n; i++) b->ids[b->count++] = 50;
}
static void picture(built *b, nb_patches *m, int32_t pad, int t, int h, int w) /* merged grid; vision_start is the last text token */
{
    b->ids[b->count - 1] = 1;
    for (int i = 0; i < t * h * w; i++) b->ids[b->count++] = pad;
    *m = (nb_patches){ .t = t, .h = 2 * h, .w = 2 * w };
}
static void run(built *b, nb_patches *media, int count)
{
    nb_error  err;
    nb_config c = qwen();
    OK(nb_positions(b->position, &b->delta, b->ids, b->count, media, count, &c, &err), &err);
}
static void at(const built *b, size_t i, int t, int h, int w)
{
    assert_int_equal(b->position[i], t);
    assert_int_equal(b->position[b->count + i], h);
    assert_int_equal(b->position[2 * b->count + i], w);
}

static void test_positions(void **state)
{
    (void)state;
    static built b;
    nb_patches   m[2];

    text(&b, 15); /* 15 text tokens, picture of 98 x 146 patches, 10 text tokens */
    picture(&b, m, 3, 1, 49, 73);
    text(&b, 10);
    run(&b, m, 1);
    assert_int_equal(b.count, 3602);
    at(&b, 14, 14, 14, 14);
    at(&b, 15, 15, 15, 15);
    at(&b, 15 + 72, 15, 15, 87);
    at(&b, 15 + 73, 15, 16, 15);
    at(&b, 15 + 3576, 15, 63, 87);
    at(&b, 15 + 3577, 88, 88, 88);
    at(&b, 3601, 97, 97, 97);
    assert_int_equal(b.delta, -3504);

    memset(&b, 0, sizeof b);
    text(&b, 3); /* video of 3 frame pairs, 2 x 2 */
    picture(&b, m, 4, 3, 2, 2);
    text(&b, 2);
    run(&b, m, 1);
    at(&b, 3, 3, 3, 3);
    at(&b, 4, 3, 3, 4);
    at(&b, 5, 3, 4, 3);
    at(&b, 7, 4, 3, 3);
    at(&b, 14, 5, 4, 4);
    at(&b, 15, 6, 6, 6);
    at(&b, 16, 7, 7, 7);
    assert_int_equal(b.delta, -9);

    memset(&b, 0, sizeof b);
    text(&b, 2);
    picture(&b, &m[0], 3, 1, 2, 3);
    text(&b, 2);
    picture(&b, &m[1], 4, 4, 2, 2);
    text(&b, 2);
    run(&b, m, 2);
    at(&b, 2, 2, 2, 2);
    at(&b, 8, 5, 5, 5);
    at(&b, 10, 7, 7, 7);
    at(&b, 26, 11, 11, 11);
    at(&b, 27, 12, 12, 12);
    assert_int_equal(b.delta, -15);

    memset(&b, 0, sizeof b);
    text(&b, 5);
    run(&b, NULL, 0);
    at(&b, 4, 4, 4, 4);
    assert_int_equal(b.delta, 0);

    nb_error  err;
    nb_config c = qwen();
    m[0] = (nb_patches){ .t = 1, .h = 4, .w = 4 };
    FAILS(nb_positions(b.position, &b.delta, b.ids, b.count, m, 1, &c, &err), NB_ERR_INPUT, "0 picture or video marks for 1", &err);
    b.ids[3] = 1;
    b.ids[4] = 3;
    FAILS(nb_positions(b.position, &b.delta, b.ids, b.count, m, 1, &c, &err), NB_ERR_INPUT, "needs 4 tokens, the prompt has 1 left", &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_frequencies), cmocka_unit_test(test_table), cmocka_unit_test(test_positions) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
