/* float.h - element types and the only conversions between them in the tree.  All round to nearest, ties to even. */
#ifndef NB_FLOAT_H
#define NB_FLOAT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum { NB_F32, NB_BF16, NB_F16, NB_F64, NB_I8, NB_U8, NB_I16, NB_U16, NB_I32, NB_U32, NB_I64, NB_U64, NB_BOOL,
               NB_F8_E4M3, NB_F8_E5M2, NB_DTYPE_OTHER } nb_dtype; /* OTHER: legal in safetensors, never read by nibble */

static inline float nb_bf16_to_f32(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float    f;
    memcpy(&f, &u, 4);
    return f;
}

static inline uint16_t nb_f32_to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40); /* NaN stays NaN */
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}

float    nb_f16_to_f32(uint16_t h);
uint16_t nb_f32_to_f16(float f); /* overflow becomes infinity, subnormals are kept */

/* Convert n values of type F32, BF16 or F16 to f32 and back; src and dst may be unaligned, not overlapping. */
void nb_to_f32(float *dst, const void *src, nb_dtype type, size_t n);
void nb_from_f32(void *dst, nb_dtype type, const float *src, size_t n);

size_t nb_dtype_size(nb_dtype type); /* bytes; 0 for OTHER */

#endif
