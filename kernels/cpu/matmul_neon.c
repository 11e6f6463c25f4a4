/* matmul_neon.c - pack, release, matmul and embed for NEON (ARMv8.0).
 *
 * The algorithm is matmul_body.h; here are 16 lanes in four registers.  There is no product of pairs of 16-bit numbers, but one
 * of eight 16-bit numbers with eight others, added to 32 bits: so what the body calls 16 pairs is kept as 16 first members and
 * 16 second ones, and vld2 takes the dwords of packed.h apart like that.
 */
#include <arm_neon.h>
#include <stdint.h>

/* rows, panels: at most 4 sums of four registers, beside the codes of a panel, its weights and two broadcasts */
#define ROW_TILES(X, ...) X(4, 1, __VA_ARGS__) X(2, 1, __VA_ARGS__) X(1, 2, __VA_ARGS__)
enum { MAX_ROWS = 4, SPLIT_SUMS = 0 };

typedef struct { float32x4_t a, b, c, d; } lanes;

/* 16 int32 in order; or 16 pairs of int16 as first 0-7, first 8-15, second 0-7, second 8-15; or the codes of such */
typedef struct { int32x4_t a, b, c, d; } vectors;

static inline lanes f_set1(float f) { return (lanes){ vdupq_n_f32(f), vdupq_n_f32(f), vdupq_n_f32(f), vdupq_n_f32(f) }; }
static inline lanes f_zero(void) { return f_set1(0); }
static inline lanes f_load(const float *p) { return (lanes){ vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12) }; }
static inline void  f_store(float *p, lanes v)
{
    vst1q_f32(p, v.a);
    vst1q_f32(p + 4, v.b);
    vst1q_f32(p + 8, v.c);
    vst1q_f32(p + 12, v.d);
}
static inline lanes f_add(lanes v, lanes w)
{
    return (lanes){ vaddq_f32(v.a, w.a), vaddq_f32(v.b, w.b), vaddq_f32(v.c, w.c), vaddq_f32(v.d, w.d) };
}
static inline lanes f_mul(lanes v, lanes w)
{
    return (lanes){ vmulq_f32(v.a, w.a), vmulq_f32(v.b, w.b), vmulq_f32(v.c, w.c), vmulq_f32(v.d, w.d) };
}
static inline lanes f_fma(lanes v, lanes w, lanes to)
{
    return (lanes){ vfmaq_f32(to.a, v.a, w.a), vfmaq_f32(to.b, v.b, w.b), vfmaq_f32(to.c, v.c, w.c), vfmaq_f32(to.d, v.d, w.d) };
}

static inline float32x4_t bf16_to_f32(uint16x4_t h) { return vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(h), 16)); }
static inline float32x4_t f16_to_f32(uint16x4_t h) { return vcvt_f32_f16(vreinterpret_f16_u16(h)); }
static inline uint16x8_t  load_halves(const uint8_t *p) { return vreinterpretq_u16_u8(vld1q_u8(p)); }
static inline lanes       f_from_bf16(const uint8_t *p)
{
    uint16x8_t lo = load_halves(p), hi = load_halves(p + 16);
    return (lanes){ bf16_to_f32(vget_low_u16(lo)), bf16_to_f32(vget_high_u16(lo)), bf16_to_f32(vget_low_u16(hi)),
                    bf16_to_f32(vget_high_u16(hi)) };
}
static inline lanes f_from_f16(const uint8_t *p)
{
    uint16x8_t lo = load_halves(p), hi = load_halves(p + 16);
    return (lanes){ f16_to_f32(vget_low_u16(lo)), f16_to_f32(vget_high_u16(lo)), f16_to_f32(vget_low_u16(hi)),
                    f16_to_f32(vget_high_u16(hi)) };
}

static inline vectors i_zero(void) { return (vectors){ vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0) }; }
static inline vectors i_add(vectors v, vectors w)
{
    return (vectors){ vaddq_s32(v.a, w.a), vaddq_s32(v.b, w.b), vaddq_s32(v.c, w.c), vaddq_s32(v.d, w.d) };
}
static inline lanes   i_to_f(vectors v) { return (lanes){ vcvtq_f32_s32(v.a), vcvtq_f32_s32(v.b), vcvtq_f32_s32(v.c), vcvtq_f32_s32(v.d) }; }
static inline vectors i_round(lanes v) /* to nearest even */
{
    return (vectors){ vcvtnq_s32_f32(v.a), vcvtnq_s32_f32(v.b), vcvtnq_s32_f32(v.c), vcvtnq_s32_f32(v.d) };
}

static inline vectors pairs(int16x8_t a, int16x8_t b, int16x8_t c, int16x8_t d)
{
    return (vectors){ vreinterpretq_s32_s16(a), vreinterpretq_s32_s16(b), vreinterpretq_s32_s16(c), vreinterpretq_s32_s16(d) };
}
/* One pair of int16, 16 times: its first member is the lower half. */
static inline vectors i_set1(int32_t i)
{
    int16x8_t first = vdupq_n_s16((int16_t)(uint16_t)i), second = vdupq_n_s16((int16_t)(i >> 16));
    return pairs(first, first, second, second);
}
/* 64 bytes of codes, the lower and the upper halves of the 16 dwords apart */
static inline vectors i_load_codes(const void *p)
{
    int16x8x2_t lo = vld2q_s16(p), hi = vld2q_s16((const int16_t *)p + 16);
    return pairs(lo.val[0], hi.val[0], lo.val[1], hi.val[1]);
}

/* to + the products of the lower and of the upper four */
static inline int32x4_t dot_low(int32x4_t to, int32x4_t w, int32x4_t a)
{
    return vmlal_s16(to, vget_low_s16(vreinterpretq_s16_s32(w)), vget_low_s16(vreinterpretq_s16_s32(a)));
}
static inline int32x4_t dot_high(int32x4_t to, int32x4_t w, int32x4_t a)
{
    return vmlal_high_s16(to, vreinterpretq_s16_s32(w), vreinterpretq_s16_s32(a));
}
/* sum + the products of 16 pairs of int16 */
static inline vectors i_dot(vectors sum, vectors w, vectors a)
{
    sum = (vectors){ dot_low(sum.a, w.a, a.a), dot_high(sum.b, w.a, a.a), dot_low(sum.c, w.b, a.b), dot_high(sum.d, w.b, a.b) };
    return (vectors){ dot_low(sum.a, w.c, a.c), dot_high(sum.b, w.c, a.c), dot_low(sum.c, w.d, a.d), dot_high(sum.d, w.d, a.d) };
}

static inline int32x4_t nibbles(int32x4_t v, int q)
{
    const uint16x8_t low = vdupq_n_u16(15);
    uint16x8_t       u = vreinterpretq_u16_s32(v);
    switch (q) {
    case 0: return vreinterpretq_s32_u16(vandq_u16(u, low));
    case 1: return vreinterpretq_s32_u16(vandq_u16(vshrq_n_u16(u, 8), low));
    case 2: return vreinterpretq_s32_u16(vandq_u16(vshrq_n_u16(u, 4), low));
    default: return vreinterpretq_s32_u16(vshrq_n_u16(u, 12));
    }
}
/* Pair q = 0..3 of the eight inputs of an int4 vector: (0,2) (1,3) (4,6) (5,7). */
static inline vectors i_nibble_pairs(vectors v, int q)
{
    return (vectors){ nibbles(v.a, q), nibbles(v.b, q), nibbles(v.c, q), nibbles(v.d, q) };
}

static inline int32x4_t bytes(int32x4_t v, int q)
{
    uint16x8_t u = vreinterpretq_u16_s32(v);
    return vreinterpretq_s32_u16(q ? vshrq_n_u16(u, 8) : vandq_u16(u, vdupq_n_u16(255)));
}
/* Pair q = 0..1 of the four inputs of an int8 vector: (0,2) (1,3). */
static inline vectors i_byte_pairs(vectors v, int q)
{
    return (vectors){ bytes(v.a, q), bytes(v.b, q), bytes(v.c, q), bytes(v.d, q) };
}

/* 16 zero points z as pairs (z, 128 z) */
static inline vectors i_zero_points(const uint8_t *p)
{
    uint8x16_t z = vld1q_u8(p);
    int16x8_t  lo = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(z))), hi = vreinterpretq_s16_u16(vmovl_high_u8(z));
    return pairs(lo, hi, vshlq_n_s16(lo, 7), vshlq_n_s16(hi, 7));
}

static inline int32_t i_sum(vectors v) { return vaddvq_s32(vaddq_s32(vaddq_s32(v.a, v.b), vaddq_s32(v.c, v.d))); }

/* The largest |x[i]| as its bit pattern, which orders like the number, with NaN above infinity. */
static inline int32_t i_max_magnitude(const float *x, int count)
{
    int32x4_t most = vdupq_n_s32(0);
    for (int i = 0; i < count; i += 4) most = vmaxq_s32(most, vreinterpretq_s32_f32(vabsq_f32(vld1q_f32(x + i))));
    return vmaxvq_s32(most);
}

/* 16 numbers to int16, each four in the order 0 2 1 3 */
static inline int16x8_t narrow_pairs(int32x4_t lo, int32x4_t hi)
{
    const uint8x16_t order = { 0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15 };
    int16x8_t        h = vcombine_s16(vqmovn_s32(lo), vqmovn_s32(hi));
    return vreinterpretq_s16_u8(vqtbl1q_u8(vreinterpretq_u8_s16(h), order));
}
static inline void i_store_pairs(int16_t *p, vectors v)
{
    vst1q_s16(p, narrow_pairs(v.a, v.b));
    vst1q_s16(p + 8, narrow_pairs(v.c, v.d));
}

#include "kernels/cpu/matmul_body.h"

void nb_neon_fill_matmul(nb_ops *ops)
{
    fill(ops);
}
