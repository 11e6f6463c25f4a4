/* matrix.c - what the numbers in a quantized checkpoint mean.
 *
 * The definition: W[o, i] = (code - zero) * scale, one multiplication rounded once to f32 (the difference is an integer of
 * at most 9 bits, so it is exact).  Every packed layout is tested against this loop.
 */
#include "kernels/matrix.h"

#include <assert.h>

void nb_weights_to_f32(float *dst, const nb_weights *w)
{
    size_t k = (size_t)w->k;
    if (w->kind == NB_W_FLOAT) {
        nb_to_f32(dst, w->data, w->dtype, (size_t)w->n * k);
        return;
    }
    assert(w->group > 0);
    size_t groups = (k + (size_t)w->group - 1) / (size_t)w->group;
    int    middle = w->kind == NB_W_INT4 ? 8 : 128;
    for (size_t o = 0; o < (size_t)w->n; o++) {
        const float   *scales = w->scales + o * groups;
        const uint8_t *zeros = w->zeros ? w->zeros + o * groups : NULL;
        const uint8_t *codes = w->codes + o * k;
        for (size_t i = 0; i < k; i++) {
            size_t g = w->g_idx ? (size_t)w->g_idx[i] : i / (size_t)w->group;
            int    zero = zeros ? zeros[g] : middle;
            dst[o * k + i] = (float)(codes[i] - zero) * scales[g];
        }
    }
}
