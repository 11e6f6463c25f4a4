/* gguf_blocks.c - see gguf_blocks.h. */
#include "quant/gguf_blocks.h"

#include <math.h>
#include <string.h>

#include "kernels/float.h"

enum { BLOCK = 32 };

nb_gguf_type nb_gguf_type_of(const nb_grid *grid, bool permuted, int k)
{
    if (permuted || k % BLOCK || grid->group % BLOCK) return NB_GGUF_F16;
    if (grid->bits == 4) return grid->sym ? NB_GGUF_Q4_0 : NB_GGUF_Q4_1;
    return grid->sym ? NB_GGUF_Q8_0 : NB_GGUF_F16;
}

static void put_f16(uint8_t *out, float value)
{
    uint16_t half = nb_f32_to_f16(value);
    memcpy(out, &half, sizeof half);
}

static void put_nibbles(uint8_t *out, const uint8_t *codes)
{
    for (int j = 0; j < BLOCK / 2; j++) out[j] = (uint8_t)(codes[j] | codes[j + BLOCK / 2] << 4);
}

void nb_gguf_blocks(uint8_t *out, nb_gguf_type type, const nb_codes *c, int r, double *worst)
{
    const uint8_t *codes = c->codes + (size_t)r * (size_t)c->k;
    for (int i = 0; i < c->k; i += BLOCK, codes += BLOCK) {
        size_t at = (size_t)r * (size_t)c->groups + (size_t)(i / c->group);
        float  scale = c->scales[at];
        int    zero = c->zeros[at];
        put_f16(out, scale);
        out += 2;
        if (type == NB_GGUF_Q4_1) {
            float exact = -(float)zero * scale, stored = nb_f16_to_f32(nb_f32_to_f16(exact));
            double off = fabs((double)stored - exact) / fabs((double)scale);
            if (!(off <= *worst)) *worst = off;
            put_f16(out, exact);
            out += 2;
        }
        if (type == NB_GGUF_Q8_0) {
            for (int j = 0; j < BLOCK; j++) out[j] = (uint8_t)(int8_t)(codes[j] - zero);
            out += BLOCK;
        } else {
            put_nibbles(out, codes);
            out += BLOCK / 2;
        }
    }
}
