/* Pictures to patches, against transformers' slow processor (tests/oracle/vision_oracle.py) and the reference vectors. */
#include "unit_vision.h"

#include <sys/stat.h>

#include "runtime/vision/preprocess.h"

static nb_processor published(void)
{
    nb_error     err;
    nb_processor p;
    OK(nb_processor_open(&p, "/no such folder", &err), &err);
    return p;
}

/* u8 0, 1, 128, 255 after rescale and normalise; and the values are the same on both sides of the doubled frame. */
static void values(void **state)
{
    static const float   want[4][3] = { { -1.79226255f, -1.75209713f, -1.48021984f },
                                        { -1.77766407f, -1.73708928f, -1.46599972f },
                                        { 0.0763361454f, 0.168897316f, 0.339948773f },
                                        { 1.93033612f, 2.0748837f, 2.14589691f } };
    static const uint8_t level[4] = { 0, 1, 128, 255 };
    nb_error             err;
    nb_processor         p = published();
    (void)state;
    for (int i = 0; i < 4; i++) {
        uint8_t rgb[56 * 56 * 3];
        memset(rgb, level[i], sizeof rgb);
        nb_image   image = { rgb, 56, 56 };
        nb_patches out;
        OK(nb_preprocess(&out, &image, 1, &p, NULL, &err), &err);
        assert_true(out.t == 1 && out.h == 4 && out.w == 4);
        for (int r = 0; r < 16; r++)
            for (int c = 0; c < 1176; c++) assert_true(out.rows[r * 1176 + c] == want[i][c / 392]);
        nb_patches_free(&out);
    }
}

/* Which pixel each place of the rows holds, for a grid of 4 x 6 patches and two frames. */
static void patch_order(void **state)
{
    static const uint8_t want[24][2] = { { 0, 0 }, { 0, 1 }, { 1, 0 }, { 1, 1 }, { 0, 2 }, { 0, 3 }, { 1, 2 }, { 1, 3 },
                                         { 0, 4 }, { 0, 5 }, { 1, 4 }, { 1, 5 }, { 2, 0 }, { 2, 1 }, { 3, 0 }, { 3, 1 },
                                         { 2, 2 }, { 2, 3 }, { 3, 2 }, { 3, 3 }, { 2, 4 }, { 2, 5 }, { 3, 4 }, { 3, 5 } };
    nb_error             err;
    nb_processor         p = published();
    nb_image             frames[3];
    nb_patches           out;
    (void)state;
    for (int f = 0; f < 3; f++) {
        frames[f] = unit_generated(84, 56);
        for (int i = 0; i < 84 * 56 * 3; i++) frames[f].rgb[i] = (uint8_t)(frames[f].rgb[i] + 85 * f);
    }
    /* levels back from values: the table is increasing, so nearest is exact */
    for (int count = 1; count <= 3; count++) {
        OK(nb_preprocess(&out, frames, count, &p, NULL, &err), &err);
        assert_true(out.t == (count + 1) / 2 && out.h == 4 && out.w == 6);
        for (int t = 0; t < out.t; t++)
            for (int r = 0; r < 24; r++)
                for (int col = 0; col < 1176; col++) {
                    int c = col / 392, tp = col / 196 % 2, y = 14 * want[r][0] + col / 14 % 14, x = 14 * want[r][1] + col % 14;
                    int f = 2 * t + tp < count ? 2 * t + tp : count - 1;
                    double level = (out.rows[((size_t)t * 24 + r) * 1176 + col] * (double)p.std[c] + p.mean[c]) * 255;
                    NEAR(level, frames[f].rgb[(y * 84 + x) * 3 + c], 1e-3);
                }
        nb_patches_free(&out);
    }
    for (int f = 0; f < 3; f++) nb_image_free(&frames[f]);
}

static void check_run(const nb_image *image, const cJSON *run, const char *what)
{
    nb_error     err;
    nb_processor p = published();
    nb_patches   out;
    char         hash[65];
    nb_image     resized;
    const cJSON *grid = cJSON_GetObjectItem(run, "grid");
    p.min_pixels = (int64_t)unit_number(run, "min_pixels");
    p.max_pixels = (int64_t)unit_number(run, "max_pixels");
    OK(nb_preprocess(&out, image, 1, &p, NULL, &err), &err);
    if (out.t != grid->child->valueint || out.h != grid->child->next->valueint || out.w != grid->child->next->next->valueint)
        fail_msg("%s: grid %d %d %d is not the oracle's", what, out.t, out.h, out.w);
    OK(nb_image_resize(&resized, image, out.w * 14, out.h * 14, &err), &err);
    unit_image_hash(hash, &resized);
    if (strcmp(hash, unit_text(run, "resized_sha256"))) fail_msg("%s: resized pixels differ from Pillow's", what);
    nb_image_free(&resized);
    size_t n = (size_t)out.h * out.w * 1176;
    if (n < 4 << 20) unit_sha256(hash, (const uint8_t *)out.rows, n * sizeof *out.rows); /* hashing more takes too long */
    if (n < 4 << 20 && strcmp(hash, unit_text(run, "values_sha256")))
        fail_msg("%s: the values are not bit for bit transformers'", what);
    double sum = 0, absolute = 0;
    for (size_t i = 0; i < n; i++) sum += out.rows[i], absolute += fabsf(out.rows[i]);
    NEAR(sum, unit_number(run, "sum"), 1e-5 * unit_number(run, "abs_sum"));
    NEAR(absolute, unit_number(run, "abs_sum"), 1e-5 * unit_number(run, "abs_sum"));
    for (const cJSON *v = cJSON_GetObjectItem(run, "values")->child; v; v = v->next)
        NEAR(out.rows[(size_t)v->child->valueint * 1176 + v->child->next->valueint], v->child->next->next->valuedouble, 1e-5);
    nb_patches_free(&out);
}

static void generated_pictures_match_transformers(void **state)
{
    cJSON *tree = unit_fixture("tests/golden/vision_processor.json");
    int    n = 0;
    (void)state;
    for (const cJSON *row = cJSON_GetObjectItem(tree, "synthetic")->child; row; row = row->next, n++) {
        nb_image image = unit_generated((int)unit_number(row, "width"), (int)unit_number(row, "height"));
        char     what[64];
        snprintf(what, sizeof what, "generated %d x %d", image.width, image.height);
        check_run(&image, cJSON_GetObjectItem(row, "runs")->child, what);
        nb_image_free(&image);
    }
    assert_true(n >= 40);
    cJSON_Delete(tree);
}

static void files_match_transformers(void **state)
{
    nb_error err;
    int      n = 0;
    (void)state;
    NEEDS_DATA("images/decode_reference.json");
    cJSON *tree = unit_fixture("tests/golden/vision_processor.json");
    for (const cJSON *row = cJSON_GetObjectItem(tree, "pictures")->child; row; row = row->next, n++) {
        const char *file = unit_text(row, "file");
        nb_buf      bytes;
        nb_image    image;
        char        hash[65];
        OK(nb_media_read(&bytes, unit_data(file), NULL, &err), &err);
        OK(nb_image_decode(&image, bytes.data, bytes.size, file, NULL, &err), &err);
        unit_image_hash(hash, &image);
        if (strcmp(hash, unit_text(row, "rgb_sha256"))) fail_msg("%s: decoded pixels differ from Pillow's", file);
        for (const cJSON *run = cJSON_GetObjectItem(row, "runs")->child; run; run = run->next) check_run(&image, run, file);
        nb_buf_free(&bytes);
        nb_image_free(&image);
    }
    assert_true(n >= 25);
    cJSON_Delete(tree);
}

static void limits_of_one_picture(void **state)
{
    nb_error     err;
    nb_processor p = published();
    nb_image     image = unit_generated(640, 480);
    nb_patches   out;
    (void)state;
#define GRID(T, H, W, ...)                                                                                                     \
    do {                                                                                                                       \
        OK(nb_preprocess(&out, &image, 1, &p, &(nb_pixel_limits){ __VA_ARGS__ }, &err), &err);                                 \
        if (out.t != (T) || out.h != (H) || out.w != (W)) fail_msg("%s: %d x %d x %d", #__VA_ARGS__, out.t, out.h, out.w);     \
        nb_patches_free(&out);                                                                                                 \
    } while (0)
    GRID(1, 34, 46, .min_pixels = 0);
    GRID(1, 14, 20, .max_pixels = 256 * 256);
    GRID(1, 62, 84, .min_pixels = 1000000);
    GRID(1, 20, 8, .resized_height = 280, .resized_width = 112);
    GRID(1, 20, 8, .resized_height = 280, .resized_width = 112, .max_pixels = 5000); /* the pair wins */
    GRID(1, 4, 4, .resized_height = 1, .resized_width = 1);
    FAILS(nb_preprocess(&out, &image, 1, &p, &(nb_pixel_limits){ .resized_height = 280 }, &err), NB_ERR_ARGUMENT,
          "resized_width 0", &err);
    FAILS(nb_preprocess(&out, &image, 1, &p, &(nb_pixel_limits){ .max_pixels = 100 }, &err), NB_ERR_ARGUMENT, "max_pixels 100",
          &err);
    FAILS(nb_preprocess(&out, &image, 1, &p, &(nb_pixel_limits){ .resized_height = 28000, .resized_width = 28 }, &err),
          NB_ERR_INPUT, "ratio of 1000", &err);
    FAILS(nb_preprocess(&out, &image, 0, &p, NULL, &err), NB_ERR_ARGUMENT, "0 frames", &err);
    assert_null(out.rows);
    nb_image_free(&image);
}

/* Frames of other sizes are brought to the size that the first one gets. */
static void frames_of_several_sizes(void **state)
{
    nb_error     err;
    nb_processor p = published();
    nb_image     frames[2] = { unit_generated(84, 56), unit_generated(100, 75) }, small;
    nb_patches   out, one;
    (void)state;
    OK(nb_preprocess(&out, frames, 2, &p, NULL, &err), &err);
    assert_true(out.t == 1 && out.h == 4 && out.w == 6);
    OK(nb_image_resize(&small, &frames[1], 84, 56, &err), &err);
    OK(nb_preprocess(&one, &small, 1, &p, NULL, &err), &err);
    for (int r = 0; r < 24; r++)
        for (int c = 0; c < 3; c++)
            assert_memory_equal(out.rows + r * 1176 + c * 392 + 196, one.rows + r * 1176 + c * 392 + 196, 196 * sizeof(float));
    nb_patches_free(&out);
    nb_patches_free(&one);
    nb_image_free(&small);
    nb_image_free(&frames[0]);
    nb_image_free(&frames[1]);
}

static void with_config(const char *text, nb_processor *p, nb_status want, const char *part)
{
    nb_error err = { 0 };
    char     folder[] = "/tmp/nibble-vision-XXXXXX", path[80];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/preprocessor_config.json", folder);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    nb_status got = nb_processor_open(p, folder, &err);
    unlink(path);
    rmdir(folder);
    if (got != want || !strstr(err.text, part)) fail_msg("%s gave %d '%s', expected %d '%s'", text, got, err.text, want, part);
}

static void config_files(void **state)
{
    nb_processor p = published();
    (void)state;
    assert_true(p.min_pixels == 3136 && p.max_pixels == 12845056 && p.patch == 14 && p.temporal == 2 && p.merge == 2);
    with_config("{}", &p, NB_OK, "");
    assert_true(p.min_pixels == 3136 && p.max_pixels == 12845056);
    with_config("{\"size\": {\"shortest_edge\": 4000, \"longest_edge\": 50000}}", &p, NB_OK, "");
    assert_true(p.min_pixels == 4000 && p.max_pixels == 50000);
    with_config("{\"size\": {\"min_pixels\": 4001, \"max_pixels\": 50001}, \"max_pixels\": 60000}", &p, NB_OK, "");
    assert_true(p.min_pixels == 4001 && p.max_pixels == 60000);
    with_config("{\"image_mean\": [0.5, 0.25, 0], \"image_std\": [1, 2, 3], \"patch_size\": 16, \"merge_size\": 1}", &p, NB_OK,
                "");
    assert_true(p.mean[1] == 0.25f && p.std[2] == 3 && p.patch == 16 && p.merge == 1);
    with_config("[]", &p, NB_ERR_INPUT, "JSON object");
    with_config("{\"min_pixels\": 5000, \"max_pixels\": 4000}", &p, NB_ERR_INPUT, "above");
    with_config("{\"min_pixels\": \"5000\"}", &p, NB_ERR_INPUT, "min_pixels");
    with_config("{\"min_pixels\": 0}", &p, NB_ERR_INPUT, "min_pixels");
    with_config("{\"patch_size\": 1.5}", &p, NB_ERR_INPUT, "patch_size");
    with_config("{\"patch_size\": 100000}", &p, NB_ERR_INPUT, "patch_size");
    with_config("{\"image_std\": [1, 0, 1]}", &p, NB_ERR_INPUT, "image_std[1]");
    with_config("{\"image_mean\": [1, 1]}", &p, NB_ERR_INPUT, "image_mean");
    with_config("{\"image_mean\": 1e999}", &p, NB_ERR_INPUT, "");
    with_config("{\"do_normalize\": false}", &p, NB_ERR_UNSUPPORTED, "do_normalize");
    with_config("{\"resample\": 2}", &p, NB_ERR_UNSUPPORTED, "resample");
    with_config("{\"rescale_factor\": 1}", &p, NB_ERR_UNSUPPORTED, "rescale_factor");
    with_config("{\"min_pixels\": 1,", &p, NB_ERR_INPUT, "preprocessor_config.json");
}

static void published_config_files(void **state)
{
    nb_error     err;
    nb_processor p;
    (void)state;
    NEEDS_DATA("qwen2-vl-2b-instruct-awq/preprocessor_config.json");
    OK(nb_processor_open(&p, unit_data("qwen2-vl-2b-instruct-awq"), &err), &err);
    assert_true(p.min_pixels == 3136 && p.max_pixels == 1003520);
    OK(nb_processor_open(&p, unit_data("qwen2-vl-2b-instruct"), &err), &err);
    assert_true(p.min_pixels == 3136 && p.max_pixels == 12845056);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values),
        cmocka_unit_test(patch_order),
        cmocka_unit_test(generated_pictures_match_transformers),
        cmocka_unit_test(files_match_transformers),
        cmocka_unit_test(limits_of_one_picture),
        cmocka_unit_test(frames_of_several_sizes),
        cmocka_unit_test(config_files),
        cmocka_unit_test(published_config_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
