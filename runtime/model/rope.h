/* rope.h - rotary frequencies and tables, made in float32 step by step as torch makes them. */
#ifndef NB_ROPE_H
#define NB_ROPE_H

#include "runtime/model/config.h"

/* out[j] = 1 / base^(2j / d), j < d / 2, the exponent, the power and the reciprocal each rounded to f32. */
void nb_rope_frequencies(float *out, double base, int d);
/* The same for the language model, with YaRN where the config asks for it (qwen2-vl through transformers 4.57). */
void nb_rope_model_frequencies(float *out, const nb_config *config);

/* cos, sin [rows, d/2] from positions [3, stride]: frequency j turns with the axis that mrope_section gives it. */
void nb_rope_table(float *cos_out, float *sin_out, const float *inv_freq, float scale, const int mrope[3], int d,
                   const int32_t *position, size_t stride, size_t rows);
/* cos, sin [t*h*w, d/2] for the patches of one picture: the first d/4 angles from the row, the others from the column, in
 * the merge x merge block order of the patch rows. */
void nb_rope_vision_table(float *cos_out, float *sin_out, const float *inv_freq, int d, int t, int h, int w, int merge);

#endif
