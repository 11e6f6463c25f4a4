/* vec_neon.h - the vector type of the body files: 8 floats in two registers.  Same names and meaning as vec_avx2.h.
 *
 * As many lanes as avx2 has and the same order of every sum, so that both levels give the same bits, but for the sign and the
 * payload of a NaN.  ARMv8.0 only: what every 64-bit ARM processor has.
 *
 * "part" operations touch the first n elements, 0 <= n <= LANES, and read or write no byte beyond; the other lanes load
 * as zero.  There are no masked loads: an end goes through the stack. */
#ifndef NB_VEC_H
#define NB_VEC_H

#include <arm_neon.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/gram_sums.h"

#define NB_TILE_ROWS 6 /* of two vectors each: 24 registers of sums, 4 of columns and 1 factor out of 32 */
#define NB_TILE_VECTORS 2
enum { LANES = 8, TILE_ROWS = NB_TILE_ROWS, TILE_VECTORS = NB_TILE_VECTORS };

typedef struct { float32x4_t lo, hi; } vf;

static inline vf vf_set(float x) { return (vf){ vdupq_n_f32(x), vdupq_n_f32(x) }; }
static inline vf vf_load(const float *p) { return (vf){ vld1q_f32(p), vld1q_f32(p + 4) }; }
static inline void vf_store(float *p, vf x)
{
    vst1q_f32(p, x.lo);
    vst1q_f32(p + 4, x.hi);
}
static inline vf vf_load_part(const float *p, size_t n)
{
    if (n >= LANES) return vf_load(p);
    float whole[LANES] = { 0 };
    memcpy(whole, p, n * sizeof *p);
    return vf_load(whole);
}
static inline void vf_store_part(float *p, vf x, size_t n)
{
    if (n >= LANES) {
        vf_store(p, x);
        return;
    }
    float whole[LANES];
    vf_store(whole, x);
    memcpy(p, whole, n * sizeof *p);
}
/* x in the first n lanes (n may exceed LANES), `other` behind them */
static inline vf vf_first(vf x, vf other, size_t n)
{
    if (n >= LANES) return x;
    const uint32x4_t lane = { 0, 1, 2, 3 }, end = vdupq_n_u32((uint32_t)n);
    return (vf){ vbslq_f32(vcltq_u32(lane, end), x.lo, other.lo),
                 vbslq_f32(vcltq_u32(vaddq_u32(lane, vdupq_n_u32(4)), end), x.hi, other.hi) };
}

static inline vf vf_add(vf a, vf b) { return (vf){ vaddq_f32(a.lo, b.lo), vaddq_f32(a.hi, b.hi) }; }
static inline vf vf_sub(vf a, vf b) { return (vf){ vsubq_f32(a.lo, b.lo), vsubq_f32(a.hi, b.hi) }; }
static inline vf vf_mul(vf a, vf b) { return (vf){ vmulq_f32(a.lo, b.lo), vmulq_f32(a.hi, b.hi) }; }
static inline vf vf_div(vf a, vf b) { return (vf){ vdivq_f32(a.lo, b.lo), vdivq_f32(a.hi, b.hi) }; }
static inline vf vf_fma(vf a, vf b, vf c) { return (vf){ vfmaq_f32(c.lo, a.lo, b.lo), vfmaq_f32(c.hi, a.hi, b.hi) }; } /* a b + c */
static inline vf vf_fnma(vf a, vf b, vf c) { return (vf){ vfmsq_f32(c.lo, a.lo, b.lo), vfmsq_f32(c.hi, a.hi, b.hi) }; } /* c - a b */
static inline vf vf_fms(vf a, vf b, vf c) { return vf_fma(a, b, (vf){ vnegq_f32(c.lo), vnegq_f32(c.hi) }); } /* a b - c */

/* b when either is NaN, unlike the instructions of that name, and when both are zeros */
static inline float32x4_t larger(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline float32x4_t lesser(float32x4_t a, float32x4_t b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
static inline vf vf_max(vf a, vf b) { return (vf){ larger(a.lo, b.lo), larger(a.hi, b.hi) }; }
static inline vf vf_min(vf a, vf b) { return (vf){ lesser(a.lo, b.lo), lesser(a.hi, b.hi) }; }

static inline vf vf_abs(vf a) { return (vf){ vabsq_f32(a.lo), vabsq_f32(a.hi) }; }
static inline vf vf_round(vf a) { return (vf){ vrndnq_f32(a.lo), vrndnq_f32(a.hi) }; } /* to nearest even */
/* a < 0 ? b : c */
static inline vf vf_if_negative(vf a, vf b, vf c)
{
    return (vf){ vbslq_f32(vcltzq_f32(a.lo), b.lo, c.lo), vbslq_f32(vcltzq_f32(a.hi), b.hi, c.hi) };
}
/* a * 2^n for integral n in -127 .. 128, where 2^-127 counts as 0 and 2^128 as infinity */
static inline float32x4_t power_of_two(float32x4_t n)
{
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127)), 23));
}
static inline vf vf_scale(vf a, vf n) { return vf_mul(a, (vf){ power_of_two(n.lo), power_of_two(n.hi) }); }

static inline bool vf_any_above(vf a, vf b) /* a NaN is not above */
{
    return vmaxvq_u32(vorrq_u32(vcgtq_f32(a.lo, b.lo), vcgtq_f32(a.hi, b.hi))) != 0;
}

static inline float vf_sum(vf a)
{
    float32x4_t c = vaddq_f32(a.lo, a.hi);
    float32x2_t d = vadd_f32(vget_low_f32(c), vget_high_f32(c));
    return vget_lane_f32(d, 0) + vget_lane_f32(d, 1);
}
static inline float vf_top(vf a) { return vmaxvq_f32(vmaxq_f32(a.lo, a.hi)); } /* the largest lane; unspecified when one is NaN */

/* A lane's two integers (gram_sums.h), plus NB_FIXED_HIGH and NB_FIXED_LOW as bits, of lanes 2 i and 2 i + 1 */
static inline void vf_cut_pair(vf a, int i, int64x2_t *high, int64x2_t *low)
{
    float32x4_t half = i < 2 ? a.lo : a.hi;
    float64x2_t c = i % 2 ? vcvt_high_f64_f32(half) : vcvt_f64_f32(vget_low_f32(half));
    float64x2_t h = vdupq_n_f64(NB_FIXED_HIGH), t = vaddq_f64(c, h);
    *high = vreinterpretq_s64_f64(t);
    *low = vreinterpretq_s64_f64(vaddq_f64(vsubq_f64(c, vsubq_f64(t, h)), vdupq_n_f64(NB_FIXED_LOW)));
}
/* LANES sums = the lanes' integers with those bits, or += them */
static inline void vf_set_fixed(int64_t *high, int64_t *low, vf a)
{
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        int64x2_t t, u;
        vf_cut_pair(a, i, &t, &u);
        vst1q_s64(high + 2 * i, t);
        vst1q_s64(low + 2 * i, u);
    }
}
static inline void vf_add_fixed(int64_t *high, int64_t *low, vf a)
{
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        int64x2_t t, u;
        vf_cut_pair(a, i, &t, &u);
        vst1q_s64(high + 2 * i, vaddq_s64(vld1q_s64(high + 2 * i), t));
        vst1q_s64(low + 2 * i, vaddq_s64(vld1q_s64(low + 2 * i), u));
    }
}
/* LANES words at to_high and to_low += the sums and the lanes' integers, less `bias` each, modulo 2^64 */
static inline void vf_take_word(int64_t *to, const int64_t *sum, int64x2_t last, int64_t bias)
{
    int64x2_t all = vaddq_s64(vld1q_s64(sum), vsubq_s64(last, vdupq_n_s64(bias)));
    vst1q_s64(to, vaddq_s64(vld1q_s64(to), all));
}
static inline void vf_take_fixed(int64_t *to_high, int64_t *to_low, const int64_t *high, const int64_t *low, vf a, const int64_t bias[2])
{
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        int64x2_t t, u;
        vf_cut_pair(a, i, &t, &u);
        vf_take_word(to_high + 2 * i, high + 2 * i, t, bias[0]);
        vf_take_word(to_low + 2 * i, low + 2 * i, u, bias[1]);
    }
}
/* LANES doubles */
typedef struct { float64x2_t a, b, c, d; } vd;
static inline vd vd_zero(void) { return (vd){ vdupq_n_f64(0), vdupq_n_f64(0), vdupq_n_f64(0), vdupq_n_f64(0) }; }
static inline vd vd_add_magnitudes(vd sum, vf a, vf w) /* sum + w |a|, the product rounded to f32 */
{
    vf v = vf_mul(vf_abs(a), w);
    return (vd){ vaddq_f64(sum.a, vcvt_f64_f32(vget_low_f32(v.lo))), vaddq_f64(sum.b, vcvt_high_f64_f32(v.lo)),
                 vaddq_f64(sum.c, vcvt_f64_f32(vget_low_f32(v.hi))), vaddq_f64(sum.d, vcvt_high_f64_f32(v.hi)) };
}
static inline void vd_store(double *p, vd a)
{
    vst1q_f64(p, a.a);
    vst1q_f64(p + 2, a.b);
    vst1q_f64(p + 4, a.c);
    vst1q_f64(p + 6, a.d);
}

static inline float32x4_t widen_bf16(uint16x4_t h) { return vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(h), 16)); }
static inline vf vf_load_bf16(const uint16_t *p)
{
    uint16x8_t h = vld1q_u16(p);
    return (vf){ widen_bf16(vget_low_u16(h)), widen_bf16(vget_high_u16(h)) };
}
static inline vf vf_load_bf16_part(const uint16_t *p, size_t n)
{
    uint16_t whole[LANES] = { 0 };
    memcpy(whole, p, 2 * n);
    return vf_load_bf16(whole);
}
/* LANES pairs of bf16 as they lie in memory, moved about as f32 lanes; then the first and the second of each pair */
static inline vf vf_load_pairs(const uint16_t *p)
{
    return (vf){ vreinterpretq_f32_u16(vld1q_u16(p)), vreinterpretq_f32_u16(vld1q_u16(p + 8)) };
}
static inline float32x4_t first_of_pairs(float32x4_t a) { return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(a), 16)); }
static inline float32x4_t second_of_pairs(float32x4_t a)
{
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(a), vdupq_n_u32(0xffff0000u)));
}
static inline vf vf_first_of_pairs(vf a) { return (vf){ first_of_pairs(a.lo), first_of_pairs(a.hi) }; }
static inline vf vf_second_of_pairs(vf a) { return (vf){ second_of_pairs(a.lo), second_of_pairs(a.hi) }; }
/* as nb_f32_to_bf16 */
static inline uint16x4_t to_bf16(float32x4_t x)
{
    uint32x4_t u = vreinterpretq_u32_f32(x), h = vshrq_n_u32(u, 16);
    uint32x4_t bias = vaddq_u32(vandq_u32(h, vdupq_n_u32(1)), vdupq_n_u32(0x7fff));
    uint32x4_t rounded = vshrq_n_u32(vaddq_u32(u, bias), 16);
    return vmovn_u32(vbslq_u32(vceqq_f32(x, x), rounded, vorrq_u32(h, vdupq_n_u32(0x40)))); /* a NaN is not equal to itself */
}
static inline void vf_store_bf16(uint16_t *p, vf x) { vst1q_u16(p, vcombine_u16(to_bf16(x.lo), to_bf16(x.hi))); }
static inline void vf_store_bf16_part(uint16_t *p, vf x, size_t n)
{
    uint16_t whole[LANES];
    vf_store_bf16(whole, x);
    memcpy(p, whole, 2 * n);
}

/* LANES signed bytes, and back (whole numbers of -128 .. 127) */
static inline vf vf_from_i8(int8x8_t b)
{
    int16x8_t h = vmovl_s8(b);
    return (vf){ vcvtq_f32_s32(vmovl_s16(vget_low_s16(h))), vcvtq_f32_s32(vmovl_high_s16(h)) };
}
static inline vf vf_load_i8(const int8_t *p) { return vf_from_i8(vld1_s8(p)); }
static inline vf vf_load_i8_part(const int8_t *p, size_t n)
{
    int8_t whole[LANES] = { 0 };
    memcpy(whole, p, n);
    return vf_load_i8(whole);
}
static inline void vf_store_i8_part(int8_t *p, vf x, size_t n)
{
    int8_t    whole[LANES];
    int16x8_t h = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(x.lo)), vqmovn_s32(vcvtnq_s32_f32(x.hi)));
    vst1_s8(whole, vqmovn_s16(h));
    memcpy(p, whole, n < LANES ? n : LANES);
}
/* LANES quads of signed bytes, moved about as f32 lanes; then number i of each quad, 0 .. 3, a constant */
static inline vf vf_load_quads(const int8_t *p)
{
    return (vf){ vreinterpretq_f32_s8(vld1q_s8(p)), vreinterpretq_f32_s8(vld1q_s8(p + 16)) };
}
static inline float32x4_t of_quads(float32x4_t a, int i)
{
    int32x4_t q = vreinterpretq_s32_f32(a);
    int32x4_t left = i == 0 ? vshlq_n_s32(q, 24) : i == 1 ? vshlq_n_s32(q, 16) : i == 2 ? vshlq_n_s32(q, 8) : q;
    return vcvtq_f32_s32(vshrq_n_s32(left, 24));
}
static inline vf vf_of_quads(vf a, int i) { return (vf){ of_quads(a.lo, i), of_quads(a.hi, i) }; }

static inline void vf_prefetch(const void *p) { __builtin_prefetch(p); }

/* r[j] of `to` is column j of four rows */
static inline void transpose4(float32x4_t to[4], float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t d)
{
    float64x2_t ab_even = vreinterpretq_f64_f32(vtrn1q_f32(a, b)), ab_odd = vreinterpretq_f64_f32(vtrn2q_f32(a, b));
    float64x2_t cd_even = vreinterpretq_f64_f32(vtrn1q_f32(c, d)), cd_odd = vreinterpretq_f64_f32(vtrn2q_f32(c, d));
    to[0] = vreinterpretq_f32_f64(vtrn1q_f64(ab_even, cd_even));
    to[1] = vreinterpretq_f32_f64(vtrn1q_f64(ab_odd, cd_odd));
    to[2] = vreinterpretq_f32_f64(vtrn2q_f64(ab_even, cd_even));
    to[3] = vreinterpretq_f32_f64(vtrn2q_f64(ab_odd, cd_odd));
}
/* Lane j of vector i moves to lane i of vector j: the four squares of 4 x 4 one by one. */
static inline void vf_transpose(vf r[LANES])
{
    float32x4_t upper_left[4], upper_right[4], lower_left[4], lower_right[4];
    transpose4(upper_left, r[0].lo, r[1].lo, r[2].lo, r[3].lo);
    transpose4(upper_right, r[0].hi, r[1].hi, r[2].hi, r[3].hi);
    transpose4(lower_left, r[4].lo, r[5].lo, r[6].lo, r[7].lo);
    transpose4(lower_right, r[4].hi, r[5].hi, r[6].hi, r[7].hi);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        r[j] = (vf){ upper_left[j], lower_left[j] };
        r[4 + j] = (vf){ upper_right[j], lower_right[j] };
    }
}

#endif
