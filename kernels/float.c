/* float.c - half precision in software, and conversion of arrays.
 *
 * Plain C that gives the same bits on every machine.  The hot kernels convert in their own vector code; the arrays here
 * are weights at load time, bound by the disk.
 *
 *   f16:  1 sign, 5 exponent (bias 15), 10 fraction bits; exponent 0 means fraction * 2^-24, 31 means inf or NaN.
 */
#include "kernels/float.h"

#include <assert.h>

float nb_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ff, u;
    float    f;
    if (exponent == 0) { /* zero or subnormal: fraction is at most 10 bits, the product is exact */
        f = (float)fraction * 0x1p-24f;
        memcpy(&u, &f, 4);
        u |= sign;
    } else if (exponent == 31) {
        u = sign | 0x7f800000u | fraction << 13;
        if (fraction) u |= 0x400000; /* a NaN comes out quiet, as the processor's own conversion gives it */
    } else {
        u = sign | (exponent + 112) << 23 | fraction << 13;
    }
    memcpy(&f, &u, 4);
    return f;
}

uint16_t nb_f32_to_f16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    u &= 0x7fffffffu;
    if (u > 0x7f800000u) return (uint16_t)(sign | 0x7e00 | (u >> 13 & 0x3ff)); /* NaN, made quiet */
    if (u >= 0x477ff000u) return (uint16_t)(sign | 0x7c00); /* 65520, half way beyond the largest, and up */
    if (u < 0x38800000u) {                                  /* below 2^-14: subnormal, zero, or rounds up to 2^-14 */
        /* Adding 0.5 aligns the fraction so that the processor rounds at 2^-24, the unit of a subnormal. */
        float magnitude;
        memcpy(&magnitude, &u, 4);
        magnitude += 0.5f;
        memcpy(&u, &magnitude, 4);
        return (uint16_t)(sign | (u - 0x3f000000u));
    }
    u += 0xfffu + (u >> 13 & 1); /* to nearest, ties to even; a carry moves into the exponent as it should */
    return (uint16_t)(sign | ((u - 0x38000000u) >> 13));
}

void nb_to_f32(float *dst, const void *src, nb_dtype type, size_t n)
{
    assert(type == NB_F32 || type == NB_BF16 || type == NB_F16);
    if (type == NB_F32) {
        if (n) memcpy(dst, src, 4 * n);
        return;
    }
    const char *from = src;
    char       *to = (char *)dst;
    for (size_t i = 0; i < n; i++) { /* memcpy: a tensor in a file is aligned to nothing */
        uint16_t h;
        memcpy(&h, from + 2 * i, 2);
        float f = type == NB_BF16 ? nb_bf16_to_f32(h) : nb_f16_to_f32(h);
        memcpy(to + 4 * i, &f, 4);
    }
}

void nb_from_f32(void *dst, nb_dtype type, const float *src, size_t n)
{
    assert(type == NB_F32 || type == NB_BF16 || type == NB_F16);
    if (type == NB_F32) {
        if (n) memcpy(dst, src, 4 * n);
        return;
    }
    const char *from = (const char *)src;
    char       *to = dst;
    for (size_t i = 0; i < n; i++) {
        float f;
        memcpy(&f, from + 4 * i, 4);
        uint16_t h = type == NB_BF16 ? nb_f32_to_bf16(f) : nb_f32_to_f16(f);
        memcpy(to + 2 * i, &h, 2);
    }
}

size_t nb_dtype_size(nb_dtype type)
{
    switch (type) {
    case NB_I8: case NB_U8: case NB_BOOL: case NB_F8_E4M3: case NB_F8_E5M2: return 1;
    case NB_BF16: case NB_F16: case NB_I16: case NB_U16: return 2;
    case NB_F32: case NB_I32: case NB_U32: return 4;
    case NB_F64: case NB_I64: case NB_U64: return 8;
    case NB_DTYPE_OTHER: break;
    }
    return 0;
}
