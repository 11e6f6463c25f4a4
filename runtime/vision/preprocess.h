/* preprocess.h - pictures to the rows of numbers that the vision tower reads (transformers' slow Qwen2VLImageProcessor). */
#ifndef NB_PREPROCESS_H
#define NB_PREPROCESS_H

#include "kernels/base.h"
#include "runtime/vision/image.h"

typedef struct {
    int64_t min_pixels, max_pixels; /* of the picture after resizing */
    int     patch, temporal, merge; /* 14, 2, 2 */
    float   mean[3], std[3];
} nb_processor;

/* preprocessor_config.json of a checkpoint directory; a missing file means the published defaults (and min/max
 * 3136 .. 12845056).  Reads min_pixels/max_pixels, size {shortest_edge, longest_edge} or {min_pixels, max_pixels}. */
nb_status nb_processor_open(nb_processor *out, const char *directory, nb_error *err);

/* transformers 4.57.1 rule plus the zero guards of qwen-vl-utils; all in double, round half to even.  Ratio over 200 is an
 * error. */
nb_status nb_smart_resize(int height, int width, int factor, int64_t min_pixels, int64_t max_pixels, int *out_h, int *out_w,
                          nb_error *err);

/* rows [t * h * w, 3 * temporal * patch * patch] f32 in the tower's order; grid in patches. */
typedef struct {
    float *rows;
    int    t, h, w;
} nb_patches;
void nb_patches_free(nb_patches *p);

/* Per-item limits; zeros mean the processor's own.  resized_height and resized_width (both) replace the picture's size in
 * the rule. */
typedef struct {
    int64_t min_pixels, max_pixels, resized_height, resized_width;
} nb_pixel_limits;

/* One picture (count 1) or the frames of a video (all brought to the size the rule gives for the first; odd count: the
 * last frame is repeated). */
nb_status nb_preprocess(nb_patches *out, const nb_image *frames, int count, const nb_processor *p, const nb_pixel_limits *limits,
                        nb_error *err);

#endif
