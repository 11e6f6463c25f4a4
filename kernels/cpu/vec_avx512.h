/* vec_avx512.h - the vector type of the body files: 16 floats.  Same names and meaning as vec_avx2.h.
 *
 * "part" operations touch the first n elements, 0 <= n <= LANES, and read or write no byte beyond; the other lanes load
 * as zero.  Sums across lanes have one fixed order. */
#ifndef NB_VEC_H
#define NB_VEC_H

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/gram_sums.h"

#define NB_TILE_ROWS 8 /* of two vectors each: 16 of 32 registers, enough to hide the latency of FMA */
#define NB_TILE_VECTORS 3
enum { LANES = 16, TILE_ROWS = NB_TILE_ROWS, TILE_VECTORS = NB_TILE_VECTORS };

typedef __m512 vf;

static inline vf vf_set(float x) { return _mm512_set1_ps(x); }
static inline vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vf_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
static inline __mmask16 vf_mask(size_t n) { return (__mmask16)((1u << n) - 1); }
static inline vf vf_load_part(const float *p, size_t n)
{
    return n >= LANES ? vf_load(p) : _mm512_maskz_loadu_ps(vf_mask(n), p);
}
static inline void vf_store_part(float *p, vf x, size_t n)
{
    if (n >= LANES)
        vf_store(p, x);
    else
        _mm512_mask_storeu_ps(p, vf_mask(n), x);
}
/* x in the first n lanes (n may exceed LANES), `other` behind them */
static inline vf vf_first(vf x, vf other, size_t n)
{
    return n >= LANES ? x : _mm512_mask_blend_ps(vf_mask(n), other, x);
}

static inline vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }   /* a b + c */
static inline vf vf_fms(vf a, vf b, vf c) { return _mm512_fmsub_ps(a, b, c); }   /* a b - c */
static inline vf vf_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); } /* c - a b */
static inline vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); } /* b when either is NaN */
static inline vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); } /* b when either is NaN */
static inline vf vf_abs(vf a) { return _mm512_abs_ps(a); }
static inline vf vf_round(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/* a < 0 ? b : c */
static inline vf vf_if_negative(vf a, vf b, vf c)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, _mm512_setzero_ps(), _CMP_LT_OQ), c, b);
}
/* a * 2^n for integral n in -127 .. 128, where 2^-127 counts as 0 and 2^128 as infinity */
static inline vf vf_scale(vf a, vf n)
{
    __m512i exponent = _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23);
    return _mm512_mul_ps(a, _mm512_castsi512_ps(exponent));
}

static inline bool vf_any_above(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0; } /* a NaN is not above */

static inline __m256 vf_low(vf a) { return _mm512_castps512_ps256(a); }
static inline __m256 vf_high(vf a) { return _mm512_extractf32x8_ps(a, 1); }
static inline float vf_sum(vf a)
{
    __m256 b = _mm256_add_ps(vf_low(a), vf_high(a));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
static inline float vf_top(vf a) /* the largest lane; unspecified when one is NaN */
{
    __m256 b = _mm256_max_ps(vf_low(a), vf_high(a));
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

/* A lane's two integers (gram_sums.h), plus NB_FIXED_HIGH and NB_FIXED_LOW as bits, of 8 lanes */
static inline void vf_cut_half(__m512d c, __m512i *high, __m512i *low)
{
    __m512d h = _mm512_set1_pd(NB_FIXED_HIGH), t = _mm512_add_pd(c, h);
    *high = _mm512_castpd_si512(t);
    *low = _mm512_castpd_si512(_mm512_add_pd(_mm512_sub_pd(c, _mm512_sub_pd(t, h)), _mm512_set1_pd(NB_FIXED_LOW)));
}
/* LANES sums = the lanes' integers with those bits, or += them */
static inline void vf_set_fixed(int64_t *high, int64_t *low, vf a)
{
    for (int i = 0; i < 2; i++) {
        __m512i t, u;
        vf_cut_half(_mm512_cvtps_pd(i ? vf_high(a) : vf_low(a)), &t, &u);
        _mm512_storeu_si512(high + 8 * i, t);
        _mm512_storeu_si512(low + 8 * i, u);
    }
}
static inline void vf_add_fixed(int64_t *high, int64_t *low, vf a)
{
    for (int i = 0; i < 2; i++) {
        __m512i t, u;
        vf_cut_half(_mm512_cvtps_pd(i ? vf_high(a) : vf_low(a)), &t, &u);
        _mm512_storeu_si512(high + 8 * i, _mm512_add_epi64(_mm512_loadu_si512(high + 8 * i), t));
        _mm512_storeu_si512(low + 8 * i, _mm512_add_epi64(_mm512_loadu_si512(low + 8 * i), u));
    }
}
/* LANES words at to_high and to_low += the sums and the lanes' integers, less `bias` each, modulo 2^64 */
static inline void vf_take_word(int64_t *to, const int64_t *sum, __m512i last, int64_t bias)
{
    __m512i all = _mm512_add_epi64(_mm512_loadu_si512(sum), _mm512_sub_epi64(last, _mm512_set1_epi64(bias)));
    _mm512_storeu_si512(to, _mm512_add_epi64(_mm512_loadu_si512(to), all));
}
static inline void vf_take_fixed(int64_t *to_high, int64_t *to_low, const int64_t *high, const int64_t *low, vf a, const int64_t bias[2])
{
    for (int i = 0; i < 2; i++) {
        __m512i t, u;
        vf_cut_half(_mm512_cvtps_pd(i ? vf_high(a) : vf_low(a)), &t, &u);
        vf_take_word(to_high + 8 * i, high + 8 * i, t, bias[0]);
        vf_take_word(to_low + 8 * i, low + 8 * i, u, bias[1]);
    }
}
/* LANES doubles */
typedef struct {
    __m512d low, high;
} vd;
static inline vd vd_zero(void) { return (vd){_mm512_setzero_pd(), _mm512_setzero_pd()}; }
static inline vd vd_add_magnitudes(vd sum, vf a, vf w) /* sum + w |a|, the product rounded to f32 */
{
    vf v = _mm512_mul_ps(vf_abs(a), w);
    return (vd){_mm512_add_pd(sum.low, _mm512_cvtps_pd(vf_low(v))), _mm512_add_pd(sum.high, _mm512_cvtps_pd(vf_high(v)))};
}
static inline void vd_store(double *p, vd a)
{
    _mm512_storeu_pd(p, a.low);
    _mm512_storeu_pd(p + 8, a.high);
}

static inline vf vf_load_bf16(const uint16_t *p)
{
    __m256i h = _mm256_loadu_si256((const __m256i *)p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
static inline vf vf_load_bf16_part(const uint16_t *p, size_t n)
{
    __m256i h = _mm256_maskz_loadu_epi16(vf_mask(n), p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
/* LANES pairs of bf16 as they lie in memory, moved about as f32 lanes; then the first and the second of each pair */
static inline vf vf_load_pairs(const uint16_t *p) { return _mm512_loadu_ps((const float *)(const void *)p); }
static inline vf vf_first_of_pairs(vf a)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a), 16));
}
static inline vf vf_second_of_pairs(vf a)
{
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32((int)0xffff0000)));
}
/* as nb_f32_to_bf16 */
static inline __m256i vf_to_bf16(vf x)
{
    __m512i u = _mm512_castps_si512(x), h = _mm512_srli_epi32(u, 16);
    __m512i bias = _mm512_add_epi32(_mm512_and_si512(h, _mm512_set1_epi32(1)), _mm512_set1_epi32(0x7fff));
    __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(u, bias), 16);
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_mask_or_epi32(rounded, nan, h, _mm512_set1_epi32(0x40)));
}
static inline void vf_store_bf16(uint16_t *p, vf x) { _mm256_storeu_si256((__m256i *)p, vf_to_bf16(x)); }
static inline void vf_store_bf16_part(uint16_t *p, vf x, size_t n)
{
    _mm256_mask_storeu_epi16(p, vf_mask(n), vf_to_bf16(x));
}

/* LANES signed bytes, and back (whole numbers of -128 .. 127) */
static inline vf vf_load_i8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}
static inline vf vf_load_i8_part(const int8_t *p, size_t n)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(vf_mask(n), p)));
}
static inline void vf_store_i8_part(int8_t *p, vf x, size_t n)
{
    _mm_mask_storeu_epi8(p, n >= LANES ? 0xffff : vf_mask(n), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)));
}
/* LANES quads of signed bytes, moved about as f32 lanes; then number i of each quad, 0 .. 3, a constant */
static inline vf vf_load_quads(const int8_t *p) { return _mm512_loadu_ps((const float *)(const void *)p); }
static inline vf vf_of_quads(vf a, int i)
{
    __m512i q = _mm512_castps_si512(a);
    __m512i left = i == 0 ? _mm512_slli_epi32(q, 24) : i == 1 ? _mm512_slli_epi32(q, 16) : i == 2 ? _mm512_slli_epi32(q, 8) : q;
    return _mm512_cvtepi32_ps(_mm512_srai_epi32(left, 24));
}

static inline void vf_prefetch(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); }

/* Lane j of vector i moves to lane i of vector j: pairs, quads, then 128-bit quarters change places. */
static inline void vf_transpose(vf r[LANES])
{
    vf a[16], b[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        a[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) { /* b[i + j]: column j of each quarter, rows i .. i + 3 */
        b[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a[i]), _mm512_castps_pd(a[i + 2])));
        b[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a[i]), _mm512_castps_pd(a[i + 2])));
        b[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a[i + 1]), _mm512_castps_pd(a[i + 3])));
        b[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a[i + 1]), _mm512_castps_pd(a[i + 3])));
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        vf p = _mm512_shuffle_f32x4(b[j], b[4 + j], 0x44), q = _mm512_shuffle_f32x4(b[8 + j], b[12 + j], 0x44);
        vf s = _mm512_shuffle_f32x4(b[j], b[4 + j], 0xee), t = _mm512_shuffle_f32x4(b[8 + j], b[12 + j], 0xee);
        r[j] = _mm512_shuffle_f32x4(p, q, 0x88);
        r[4 + j] = _mm512_shuffle_f32x4(p, q, 0xdd);
        r[8 + j] = _mm512_shuffle_f32x4(s, t, 0x88);
        r[12 + j] = _mm512_shuffle_f32x4(s, t, 0xdd);
    }
}

#endif
