/* preprocess.c - RGB pictures to the rows of numbers that the vision tower reads.
 *
 * The arithmetic is that of transformers' slow image processor: resize, value / 255, (value - mean) / std.  A pixel has
 * 256 values and 3 channels, so the last two steps are a table of 768 floats.  For a video transformers uses torchvision's
 * resize instead; here frames go through the same resize as pictures (equal up to 2.4e-7 when no resize is needed).
 *
 * A row is one patch, and rows come in blocks of merge x merge patches, because the tower later joins such blocks:
 *
 *     row    = ((t * h/m + block_y) * w/m + block_x) * m*m + (y % m) * m + x % m        y, x in patches, m = merge
 *     column = ((channel * temporal + frame of the group) * patch + pixel_y) * patch + pixel_x
 */
#include "runtime/vision/preprocess.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/file.h"
#include "runtime/io/json.h"
#include "runtime/vision/large.h"

enum { CONFIG_LIMIT = 1 << 20, MAX_FRAMES = 4096 };

void nb_patches_free(nb_patches *p)
{
    if (!p) return;
    free(p->rows);
    *p = (nb_patches){ 0 };
}

/* ---- preprocessor_config.json ---- */

static nb_status read_triple(const cJSON *tree, const char *key, double least, float out[3], const char *path, nb_error *err)
{
    const cJSON *list = nb_json_find(tree, key);
    if (!list) return NB_OK;
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != 3)
        return nb_fail(err, NB_ERR_INPUT, "%s: %s must be a list of three numbers", path, key);
    int i = 0;
    for (const cJSON *v = list->child; v; v = v->next, i++) {
        if (!cJSON_IsNumber(v) || !(fabs(v->valuedouble) <= 1e4) || v->valuedouble < least)
            return nb_fail(err, NB_ERR_INPUT, "%s: %s[%d] must be a number from %g to 10000", path, key, i, least);
        out[i] = (float)v->valuedouble;
    }
    return NB_OK;
}

static nb_status read_small(const cJSON *tree, const char *key, int max, int *out, const char *path, nb_error *err)
{
    int64_t v = *out;
    NB_TRY(nb_json_opt_int(tree, key, 1, max, &v, path, err));
    *out = (int)v;
    return NB_OK;
}

/* A step that the arithmetic takes for granted must not be switched off. */
static nb_status require_step(const cJSON *tree, const char *key, const char *path, nb_error *err)
{
    bool on = true;
    NB_TRY(nb_json_opt_bool(tree, key, &on, path, err));
    return on ? NB_OK : nb_fail(err, NB_ERR_UNSUPPORTED, "%s: %s is false, which is not supported", path, key);
}

static nb_status read_config(nb_processor *p, const cJSON *tree, const char *path, nb_error *err)
{
    const int64_t max = INT64_C(1) << 40;
    const cJSON  *size = nb_json_find(tree, "size");
    if (cJSON_IsObject(size)) {
        NB_TRY(nb_json_opt_int(size, "shortest_edge", 1, max, &p->min_pixels, path, err));
        NB_TRY(nb_json_opt_int(size, "longest_edge", 1, max, &p->max_pixels, path, err));
        NB_TRY(nb_json_opt_int(size, "min_pixels", 1, max, &p->min_pixels, path, err));
        NB_TRY(nb_json_opt_int(size, "max_pixels", 1, max, &p->max_pixels, path, err));
    }
    NB_TRY(nb_json_opt_int(tree, "min_pixels", 1, max, &p->min_pixels, path, err));
    NB_TRY(nb_json_opt_int(tree, "max_pixels", 1, max, &p->max_pixels, path, err));
    if (p->min_pixels > p->max_pixels)
        return nb_fail(err, NB_ERR_INPUT, "%s: min_pixels %lld is above max_pixels %lld", path, (long long)p->min_pixels,
                       (long long)p->max_pixels);
    NB_TRY(read_small(tree, "patch_size", 64, &p->patch, path, err));
    NB_TRY(read_small(tree, "temporal_patch_size", 8, &p->temporal, path, err));
    NB_TRY(read_small(tree, "merge_size", 8, &p->merge, path, err));
    NB_TRY(read_triple(tree, "image_mean", -1e4, p->mean, path, err));
    NB_TRY(read_triple(tree, "image_std", 1e-4, p->std, path, err));
    NB_TRY(require_step(tree, "do_resize", path, err));
    NB_TRY(require_step(tree, "do_rescale", path, err));
    NB_TRY(require_step(tree, "do_normalize", path, err));
    double  rescale = 1 / 255.0;
    int64_t resample = 3;
    NB_TRY(nb_json_opt_number(tree, "rescale_factor", 0, 1, &rescale, path, err));
    NB_TRY(nb_json_opt_int(tree, "resample", 0, 100, &resample, path, err));
    if (!(fabs(rescale - 1 / 255.0) < 1e-9))
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: rescale_factor is %g, only 1/255 is supported", path, rescale);
    if (resample != 3)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: resample is %d, only 3 (bicubic) is supported", path, (int)resample);
    return NB_OK;
}

nb_status nb_processor_open(nb_processor *out, const char *directory, nb_error *err)
{
    *out = (nb_processor){
        .min_pixels = 56 * 56,
        .max_pixels = 28 * 28 * 16384,
        .patch = 14,
        .temporal = 2,
        .merge = 2,
        .mean = { 0.48145466f, 0.4578275f, 0.40821073f },
        .std = { 0.26862954f, 0.26130258f, 0.27577711f },
    };
    char *path = nb_path_join(directory, "preprocessor_config.json");
    if (!path) return nb_fail(err, NB_ERR_MEMORY, "no memory for the path of preprocessor_config.json in '%s'", directory);
    nb_status status = NB_OK;
    if (nb_file_exists(path)) {
        cJSON *tree = NULL;
        status = nb_json_file(&tree, path, CONFIG_LIMIT, err);
        if (!status && !cJSON_IsObject(tree)) status = nb_fail(err, NB_ERR_INPUT, "%s: must hold a JSON object", path);
        if (!status) status = read_config(out, tree, path, err);
        cJSON_Delete(tree);
    }
    free(path);
    return status;
}

/* ---- pixels to rows ---- */

/* The size after the rule, for the first frame. */
static nb_status target_size(const nb_image *image, const nb_processor *p, const nb_pixel_limits *limits, int *h, int *w,
                             nb_error *err)
{
    nb_pixel_limits own = limits ? *limits : (nb_pixel_limits){ 0 };
    int64_t         min = p->min_pixels, max = p->max_pixels;
    if (own.resized_height || own.resized_width) {
        if (own.resized_height < 1 || own.resized_width < 1 || own.resized_height > INT32_MAX || own.resized_width > INT32_MAX)
            return nb_fail(err, NB_ERR_ARGUMENT,
                           "resized_height %lld and resized_width %lld must both be given, as numbers of pixels",
                           (long long)own.resized_height, (long long)own.resized_width);
        return nb_smart_resize((int)own.resized_height, (int)own.resized_width, p->patch * p->merge, min, max, h, w, err);
    }
    if (own.min_pixels) min = own.min_pixels;
    if (own.max_pixels) max = own.max_pixels;
    return nb_smart_resize(image->height, image->width, p->patch * p->merge, min, max, h, w, err);
}

/* x = float(u8 * (1/255)) in double, then (x - mean) / std in float. */
static void fill_table(float table[3][256], const nb_processor *p)
{
    for (int c = 0; c < 3; c++)
        for (int v = 0; v < 256; v++) table[c][v] = ((float)(v * (1 / 255.0)) - p->mean[c]) / p->std[c];
}

/* One frame into `slots` slots from `slot` on of every row of its group: a last group that is not full repeats its last frame.  first:
 * the row of the group's first patch. */
static void cut_frame(const nb_patches *out, float *first, int slot, int slots, const nb_image *frame, const nb_processor *p,
                      float table[3][256])
{
    size_t area = (size_t)p->patch * p->patch, columns = 3 * (size_t)p->temporal * area, line = (size_t)frame->width * 3;
    float *row = first + slot * area;
    for (int by = 0; by < out->h; by += p->merge)
        for (int bx = 0; bx < out->w; bx += p->merge)
            for (int my = 0; my < p->merge; my++)
                for (int mx = 0; mx < p->merge; mx++, row += columns) {
                    const uint8_t *pixels = frame->rgb + (size_t)(by + my) * p->patch * line + (size_t)(bx + mx) * p->patch * 3;
                    for (int c = 0; c < 3; c++) {
                        float *start = row + c * p->temporal * area, *to = start;
                        for (int py = 0; py < p->patch; py++)
                            for (int px = 0; px < p->patch; px++) *to++ = table[c][pixels[py * line + px * 3 + c]];
                        for (int i = 1; i < slots; i++) memcpy(start + i * area, start, area * sizeof *start);
                    }
                }
}

nb_status nb_preprocess(nb_patches *out, const nb_image *frames, int count, const nb_processor *p,
                        const nb_pixel_limits *limits, nb_error *err)
{
    *out = (nb_patches){ 0 };
    if (count < 1 || count > MAX_FRAMES)
        return nb_fail(err, NB_ERR_ARGUMENT, "%d frames given; a picture is one and a video 1 to %d", count, MAX_FRAMES);
    int height, width;
    NB_TRY(target_size(frames, p, limits, &height, &width, err));
    *out = (nb_patches){ .t = (count + p->temporal - 1) / p->temporal, .h = height / p->patch, .w = width / p->patch };

    size_t    rows = (size_t)out->h * out->w, columns = 3 * (size_t)p->temporal * p->patch * p->patch, n = 0;
    size_t    bytes;
    bool      fits = nb_mul(rows, columns, &n) && nb_mul(n, (size_t)out->t * sizeof(float), &bytes);
    nb_status status = fits && (out->rows = nb_large_alloc(bytes)) ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "no memory for the patches of a picture");
    float     table[3][256];
    fill_table(table, p);
    for (int f = 0; !status && f < count; f++) {
        nb_image resized = { 0 };
        bool     same = frames[f].width == width && frames[f].height == height;
        if (!same) status = nb_image_resize(&resized, &frames[f], width, height, err);
        float *first = out->rows + (size_t)(f / p->temporal) * n;
        int    slot = f % p->temporal;
        int    slots = f == count - 1 ? p->temporal - slot : 1;
        if (!status) cut_frame(out, first, slot, slots, same ? &frames[f] : &resized, p, table);
        nb_image_free(&resized);
    }
    if (status) nb_patches_free(out);
    return status;
}
