/* matmul_avx2.c - pack, release, matmul and embed for AVX2 with FMA and F16C.
 *
 * The algorithm is matmul_body.h; here are 16 lanes in two registers and tiles that 16 registers hold.  vpmaddwd
 * multiplies pairs of 16-bit numbers exactly, so the ints need no saturating byte products.
 */
#include <immintrin.h>
#include <stdint.h>

/* rows, panels: at most 6 sums of two registers, beside the weights and one broadcast */
#define ROW_TILES(X, ...) X(6, 1, __VA_ARGS__) X(4, 1, __VA_ARGS__) X(2, 2, __VA_ARGS__) X(1, 4, __VA_ARGS__)
enum { MAX_ROWS = 6, SPLIT_SUMS = 0 };

typedef struct { __m256 lo, hi; } lanes;
typedef struct { __m256i lo, hi; } vectors; /* 16 int32, or 16 pairs of int16, or 64 codes */

static inline lanes f_zero(void) { return (lanes){ _mm256_setzero_ps(), _mm256_setzero_ps() }; }
static inline lanes f_set1(float f) { return (lanes){ _mm256_set1_ps(f), _mm256_set1_ps(f) }; }
static inline lanes f_load(const float *p) { return (lanes){ _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8) }; }
static inline lanes f_add(lanes a, lanes b) { return (lanes){ _mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi) }; }
static inline lanes f_mul(lanes a, lanes b) { return (lanes){ _mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi) }; }
static inline void  f_store(float *p, lanes a)
{
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}
static inline lanes f_fma(lanes a, lanes b, lanes c)
{
    return (lanes){ _mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi) };
}

static inline __m256 bf16_to_f32(const void *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(p)), 16));
}
static inline lanes f_from_bf16(const uint8_t *p) { return (lanes){ bf16_to_f32(p), bf16_to_f32(p + 16) }; }
static inline lanes f_from_f16(const uint8_t *p)
{
    const __m128i *halves = (const void *)p;
    return (lanes){ _mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1)) };
}

static inline vectors i_zero(void) { return (vectors){ _mm256_setzero_si256(), _mm256_setzero_si256() }; }
static inline vectors i_set1(int32_t i) { return (vectors){ _mm256_set1_epi32(i), _mm256_set1_epi32(i) }; }
static inline vectors i_load_codes(const void *p)
{
    return (vectors){ _mm256_loadu_si256(p), _mm256_loadu_si256((const __m256i *)p + 1) };
}
static inline vectors i_add(vectors a, vectors b)
{
    return (vectors){ _mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi) };
}
static inline lanes   i_to_f(vectors a) { return (lanes){ _mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi) }; }
static inline vectors i_round(lanes a) { return (vectors){ _mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi) }; }

/* sum + the products of 16 pairs of int16 */
static inline vectors i_dot(vectors sum, vectors w, vectors a)
{
    return i_add(sum, (vectors){ _mm256_madd_epi16(w.lo, a.lo), _mm256_madd_epi16(w.hi, a.hi) });
}

static inline __m256i nibble_pairs(__m256i v, int q)
{
    const __m256i low = _mm256_set1_epi16(15);
    switch (q) {
    case 0: return _mm256_and_si256(v, low);
    case 1: return _mm256_and_si256(_mm256_srli_epi16(v, 8), low);
    case 2: return _mm256_and_si256(_mm256_srli_epi16(v, 4), low);
    default: return _mm256_srli_epi16(v, 12);
    }
}

/* Pair q = 0..3 of the eight inputs of an int4 vector: (0,2) (1,3) (4,6) (5,7). */
static inline vectors i_nibble_pairs(vectors v, int q)
{
    return (vectors){ nibble_pairs(v.lo, q), nibble_pairs(v.hi, q) };
}

/* Pair q = 0..1 of the four inputs of an int8 vector: (0,2) (1,3). */
static inline vectors i_byte_pairs(vectors v, int q)
{
    const __m256i low = _mm256_set1_epi16(255);
    if (q) return (vectors){ _mm256_srli_epi16(v.lo, 8), _mm256_srli_epi16(v.hi, 8) };
    return (vectors){ _mm256_and_si256(v.lo, low), _mm256_and_si256(v.hi, low) };
}

/* 16 zero points z as pairs (z, 128 z) */
static inline vectors i_zero_points(const uint8_t *p)
{
    __m128i z = _mm_loadu_si128((const void *)p);
    __m256i lo = _mm256_cvtepu8_epi32(z), hi = _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(z, z));
    return (vectors){ _mm256_or_si256(lo, _mm256_slli_epi32(lo, 23)), _mm256_or_si256(hi, _mm256_slli_epi32(hi, 23)) };
}

static inline int32_t i_sum(vectors a)
{
    __m256i s = _mm256_add_epi32(a.lo, a.hi);
    __m128i t = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    t = _mm_add_epi32(t, _mm_unpackhi_epi64(t, t));
    return _mm_cvtsi128_si32(_mm_add_epi32(t, _mm_shuffle_epi32(t, 1)));
}

/* The largest |x[i]| as its bit pattern, which orders like the number, with NaN above infinity. */
static inline int32_t i_max_magnitude(const float *x, int count)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i       most = _mm256_setzero_si256();
    for (int i = 0; i < count; i += 8)
        most = _mm256_max_epi32(most, _mm256_and_si256(_mm256_loadu_si256((const void *)(x + i)), magnitude));
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    m = _mm_max_epi32(m, _mm_unpackhi_epi64(m, m));
    return _mm_cvtsi128_si32(_mm_max_epi32(m, _mm_shuffle_epi32(m, 1)));
}

/* 16 numbers to int16, each four in the order 0 2 1 3 */
static inline void i_store_pairs(int16_t *p, vectors a)
{
    __m256i h = _mm256_permute4x64_epi64(_mm256_packs_epi32(a.lo, a.hi), _MM_SHUFFLE(3, 1, 2, 0));
    h = _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(h, _MM_SHUFFLE(3, 1, 2, 0)), _MM_SHUFFLE(3, 1, 2, 0));
    _mm256_storeu_si256((void *)p, h);
}

#include "kernels/cpu/matmul_body.h"

void nb_avx2_fill_matmul(nb_ops *ops)
{
    fill(ops);
}
