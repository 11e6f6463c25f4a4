/* rope.c - see rope.h.
 *
 * YaRN (Peng et al. 2023, arXiv 2309.00071): frequency j is divided by `factor` below a correction range of wavelengths and
 * kept above it, with a linear ramp between:
 *     corr(r) = d ln(L / (2 pi r)) / (2 ln base)
 *     ramp_j  = clamp((j - low) / (high - low), 0, 1),  low = floor corr(beta_fast), high = ceil corr(beta_slow)
 *     inv_j   = (inv_freq_j / factor) ramp_j + inv_freq_j (1 - ramp_j)
 */
#include "runtime/model/rope.h"

#include <math.h>

static float power(double base, int j, int d)
{
    float exponent = (float)(2 * j) / (float)d;
    return (float)pow(base, (double)exponent);
}

void nb_rope_frequencies(float *out, double base, int d)
{
    for (int j = 0; j < d / 2; j++) out[j] = 1.0f / power(base, j, d);
}

static double correction(double rotations, int d, double base, double length)
{
    return d * log(length / (rotations * 2 * M_PI)) / (2 * log(base));
}

void nb_rope_model_frequencies(float *out, const nb_config *c)
{
    int d = c->head_dim;
    nb_rope_frequencies(out, c->rope_theta, d);
    if (!c->yarn) return;
    double low = correction(c->yarn_beta_fast, d, c->rope_theta, c->yarn_original);
    double high = correction(c->yarn_beta_slow, d, c->rope_theta, c->yarn_original);
    if (c->yarn_truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = low < 0 ? 0 : low;
    high = high > d - 1 ? d - 1 : high;
    if (low == high) high += 0.001;
    for (int j = 0; j < d / 2; j++) {
        float ramp = (float)((j - low) / (high - low));
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        float keep = 1 - ramp;
        float divided = 1.0f / ((float)c->yarn_factor * power(c->rope_theta, j, d));
        out[j] = divided * (1 - keep) + out[j] * keep;
    }
}

void nb_rope_table(float *cos_out, float *sin_out, const float *inv_freq, float scale, const int mrope[3], int d,
                   const int32_t *position, size_t stride, size_t rows)
{
    int half = d / 2, t_end = mrope[0], h_end = mrope[0] + mrope[1];
    for (size_t r = 0; r < rows; r++)
        for (int j = 0; j < half; j++) {
            int   axis = j < t_end ? 0 : j < h_end ? 1 : 2;
            float angle = (float)position[axis * stride + r] * inv_freq[j];
            cos_out[r * half + j] = cosf(angle) * scale;
            sin_out[r * half + j] = sinf(angle) * scale;
        }
}

void nb_rope_vision_table(float *cos_out, float *sin_out, const float *inv_freq, int d, int t, int h, int w, int merge)
{
    int    quarter = d / 4;
    size_t r = 0;
    for (int frame = 0; frame < t; frame++)
        for (int by = 0; by < h / merge; by++)
            for (int bx = 0; bx < w / merge; bx++)
                for (int my = 0; my < merge; my++)
                    for (int mx = 0; mx < merge; mx++, r++) {
                        float *c = cos_out + r * 2 * quarter, *s = sin_out + r * 2 * quarter;
                        float  at[2] = { (float)(by * merge + my), (float)(bx * merge + mx) };
                        for (int j = 0; j < 2 * quarter; j++) {
                            float angle = at[j / quarter] * inv_freq[j % quarter];
                            c[j] = cosf(angle);
                            s[j] = sinf(angle);
                        }
                    }
}
