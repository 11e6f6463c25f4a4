/* vec_avx2.h - the vector type of the body files: 8 floats.  Same names and meaning as vec_avx512.h.
 *
 * "part" operations touch the first n elements, 0 <= n <= LANES, and read or write no byte beyond; the other lanes load
 * as zero.  Sums across lanes have one fixed order. */
#ifndef NB_VEC_H
#define NB_VEC_H

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/gram_sums.h"

#define NB_TILE_ROWS 6 /* of two vectors each: 12 sums, 2 columns and 1 factor in 16 registers */
#define NB_TILE_VECTORS 2
enum { LANES = 8, TILE_ROWS = NB_TILE_ROWS, TILE_VECTORS = NB_TILE_VECTORS };

typedef __m256 vf;

static inline vf vf_set(float x) { return _mm256_set1_ps(x); }
static inline vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void vf_store(float *p, vf x) { _mm256_storeu_ps(p, x); }
static inline __m256i vf_mask(size_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vf vf_load_part(const float *p, size_t n)
{
    return n >= LANES ? vf_load(p) : _mm256_maskload_ps(p, vf_mask(n));
}
static inline void vf_store_part(float *p, vf x, size_t n)
{
    if (n >= LANES)
        vf_store(p, x);
    else
        _mm256_maskstore_ps(p, vf_mask(n), x);
}
/* x in the first n lanes (n may exceed LANES), `other` behind them */
static inline vf vf_first(vf x, vf other, size_t n)
{
    return n >= LANES ? x : _mm256_blendv_ps(other, x, _mm256_castsi256_ps(vf_mask(n)));
}

static inline vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm256_div_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }   /* a b + c */
static inline vf vf_fms(vf a, vf b, vf c) { return _mm256_fmsub_ps(a, b, c); }   /* a b - c */
static inline vf vf_fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); } /* c - a b */
static inline vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); } /* b when either is NaN */
static inline vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); } /* b when either is NaN */
static inline vf vf_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline vf vf_round(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/* a < 0 ? b : c */
static inline vf vf_if_negative(vf a, vf b, vf c)
{
    return _mm256_blendv_ps(c, b, _mm256_cmp_ps(a, _mm256_setzero_ps(), _CMP_LT_OQ));
}
/* a * 2^n for integral n in -127 .. 128, where 2^-127 counts as 0 and 2^128 as infinity */
static inline vf vf_scale(vf a, vf n)
{
    __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(a, _mm256_castsi256_ps(exponent));
}

static inline bool vf_any_above(vf a, vf b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)) != 0; } /* a NaN is not above */

static inline __m128 vf_low(vf a) { return _mm256_castps256_ps128(a); }
static inline __m128 vf_high(vf a) { return _mm256_extractf128_ps(a, 1); }
static inline float vf_sum(vf a)
{
    __m128 c = _mm_add_ps(vf_low(a), vf_high(a));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
static inline float vf_top(vf a) /* the largest lane; unspecified when one is NaN */
{
    __m128 c = _mm_max_ps(vf_low(a), vf_high(a));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

/* A lane's two integers (gram_sums.h), plus NB_FIXED_HIGH and NB_FIXED_LOW as bits, of 4 lanes */
static inline void vf_cut_half(__m256d c, __m256i *high, __m256i *low)
{
    __m256d h = _mm256_set1_pd(NB_FIXED_HIGH), t = _mm256_add_pd(c, h);
    *high = _mm256_castpd_si256(t);
    *low = _mm256_castpd_si256(_mm256_add_pd(_mm256_sub_pd(c, _mm256_sub_pd(t, h)), _mm256_set1_pd(NB_FIXED_LOW)));
}
static inline __m256i vf_load_words(const int64_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
static inline void vf_store_words(int64_t *p, __m256i a) { _mm256_storeu_si256((__m256i *)p, a); }
/* LANES sums = the lanes' integers with those bits, or += them */
static inline void vf_set_fixed(int64_t *high, int64_t *low, vf a)
{
    for (int i = 0; i < 2; i++) {
        __m256i t, u;
        vf_cut_half(_mm256_cvtps_pd(i ? vf_high(a) : vf_low(a)), &t, &u);
        vf_store_words(high + 4 * i, t);
        vf_store_words(low + 4 * i, u);
    }
}
static inline void vf_add_fixed(int64_t *high, int64_t *low, vf a)
{
    for (int i = 0; i < 2; i++) {
        __m256i t, u;
        vf_cut_half(_mm256_cvtps_pd(i ? vf_high(a) : vf_low(a)), &t, &u);
        vf_store_words(high + 4 * i, _mm256_add_epi64(vf_load_words(high + 4 * i), t));
        vf_store_words(low + 4 * i, _mm256_add_epi64(vf_load_words(low + 4 * i), u));
    }
}
/* LANES words at to_high and to_low += the sums and the lanes' integers, less `bias` each, modulo 2^64 */
static inline void vf_take_word(int64_t *to, const int64_t *sum, __m256i last, int64_t bias)
{
    __m256i all = _mm256_add_epi64(vf_load_words(sum), _mm256_sub_epi64(last, _mm256_set1_epi64x(bias)));
    vf_store_words(to, _mm256_add_epi64(vf_load_words(to), all));
}
static inline void vf_take_fixed(int64_t *to_high, int64_t *to_low, const int64_t *high, const int64_t *low, vf a, const int64_t bias[2])
{
    for (int i = 0; i < 2; i++) {
        __m256i t, u;
        vf_cut_half(_mm256_cvtps_pd(i ? vf_high(a) : vf_low(a)), &t, &u);
        vf_take_word(to_high + 4 * i, high + 4 * i, t, bias[0]);
        vf_take_word(to_low + 4 * i, low + 4 * i, u, bias[1]);
    }
}
/* LANES doubles */
typedef struct {
    __m256d low, high;
} vd;
static inline vd vd_zero(void) { return (vd){_mm256_setzero_pd(), _mm256_setzero_pd()}; }
static inline vd vd_add_magnitudes(vd sum, vf a, vf w) /* sum + w |a|, the product rounded to f32 */
{
    vf v = _mm256_mul_ps(vf_abs(a), w);
    return (vd){_mm256_add_pd(sum.low, _mm256_cvtps_pd(vf_low(v))), _mm256_add_pd(sum.high, _mm256_cvtps_pd(vf_high(v)))};
}
static inline void vd_store(double *p, vd a)
{
    _mm256_storeu_pd(p, a.low);
    _mm256_storeu_pd(p + 4, a.high);
}

static inline vf vf_load_bf16(const uint16_t *p)
{
    __m128i h = _mm_loadu_si128((const __m128i *)p);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
static inline vf vf_load_bf16_part(const uint16_t *p, size_t n)
{
    uint16_t whole[LANES] = { 0 };
    memcpy(whole, p, 2 * n);
    return vf_load_bf16(whole);
}
/* LANES pairs of bf16 as they lie in memory, moved about as f32 lanes; then the first and the second of each pair */
static inline vf vf_load_pairs(const uint16_t *p) { return _mm256_loadu_ps((const float *)(const void *)p); }
static inline vf vf_first_of_pairs(vf a)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a), 16));
}
static inline vf vf_second_of_pairs(vf a)
{
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(a), _mm256_set1_epi32((int)0xffff0000)));
}
/* as nb_f32_to_bf16 */
static inline __m128i vf_to_bf16(vf x)
{
    __m256i u = _mm256_castps_si256(x), h = _mm256_srli_epi32(u, 16);
    __m256i bias = _mm256_add_epi32(_mm256_and_si256(h, _mm256_set1_epi32(1)), _mm256_set1_epi32(0x7fff));
    __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(u, bias), 16);
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    __m256i words = _mm256_blendv_epi8(rounded, _mm256_or_si256(h, _mm256_set1_epi32(0x40)), nan);
    return _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}
static inline void vf_store_bf16(uint16_t *p, vf x) { _mm_storeu_si128((__m128i *)p, vf_to_bf16(x)); }
static inline void vf_store_bf16_part(uint16_t *p, vf x, size_t n)
{
    uint16_t whole[LANES];
    vf_store_bf16(whole, x);
    memcpy(p, whole, 2 * n);
}

/* LANES signed bytes, and back (whole numbers of -128 .. 127) */
static inline vf vf_load_i8(const int8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}
static inline vf vf_load_i8_part(const int8_t *p, size_t n)
{
    int8_t whole[LANES] = { 0 };
    memcpy(whole, p, n);
    return vf_load_i8(whole);
}
static inline void vf_store_i8_part(int8_t *p, vf x, size_t n)
{
    int8_t  whole[LANES];
    __m256i i = _mm256_cvtps_epi32(x);
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1));
    _mm_storel_epi64((__m128i *)(void *)whole, _mm_packs_epi16(words, words));
    memcpy(p, whole, n < LANES ? n : LANES);
}
/* LANES quads of signed bytes, moved about as f32 lanes; then number i of each quad, 0 .. 3, a constant */
static inline vf vf_load_quads(const int8_t *p) { return _mm256_loadu_ps((const float *)(const void *)p); }
static inline vf vf_of_quads(vf a, int i)
{
    __m256i q = _mm256_castps_si256(a);
    __m256i left = i == 0 ? _mm256_slli_epi32(q, 24) : i == 1 ? _mm256_slli_epi32(q, 16) : i == 2 ? _mm256_slli_epi32(q, 8) : q;
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(left, 24));
}

static inline void vf_prefetch(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); }

/* Lane j of vector i moves to lane i of vector j: pairs, quads, then 128-bit halves change places. */
static inline void vf_transpose(vf r[LANES])
{
    vf a[8], b[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        a[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) { /* b[i + j]: column j of each half, rows i .. i + 3 */
        b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
        b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
        b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        r[j] = _mm256_permute2f128_ps(b[j], b[4 + j], 0x20);
        r[4 + j] = _mm256_permute2f128_ps(b[j], b[4 + j], 0x31);
    }
}

#endif
