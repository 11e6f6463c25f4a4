/* matmul_avx512.c - pack, release, matmul and embed for AVX-512 with VNNI.
 *
 * The algorithm is matmul_body.h; here are one register of 16 lanes and the largest tiles that 32 registers hold.  One
 * vpdpwssd multiplies 16 pairs of 16-bit numbers and adds: as many useful products as vpdpbusd on two planes of int8
 * activations, with half of the accumulators.
 */
#include <immintrin.h>
#include <stdint.h>

/* rows, panels: at most 24 sums, and at least 4 chains of FMAs to hide their latency */
#define ROW_TILES(X, ...) \
    X(12, 2, __VA_ARGS__) X(8, 2, __VA_ARGS__) X(4, 4, __VA_ARGS__) X(2, 4, __VA_ARGS__) X(1, 4, __VA_ARGS__)
enum { MAX_ROWS = 12, SPLIT_SUMS = 1 };

typedef __m512  lanes;
typedef __m512i vectors; /* 16 int32, or 16 pairs of int16, or 64 codes */

static inline lanes f_zero(void) { return _mm512_setzero_ps(); }
static inline lanes f_set1(float f) { return _mm512_set1_ps(f); }
static inline lanes f_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void  f_store(float *p, lanes a) { _mm512_storeu_ps(p, a); }
static inline lanes f_add(lanes a, lanes b) { return _mm512_add_ps(a, b); }
static inline lanes f_mul(lanes a, lanes b) { return _mm512_mul_ps(a, b); }
static inline lanes f_fma(lanes a, lanes b, lanes c) { return _mm512_fmadd_ps(a, b, c); }

static inline lanes f_from_bf16(const void *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)), 16));
}
static inline lanes f_from_f16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256(p)); }

static inline vectors i_zero(void) { return _mm512_setzero_si512(); }
static inline vectors i_set1(int32_t i) { return _mm512_set1_epi32(i); }
static inline vectors i_load(const void *p) { return _mm512_loadu_si512(p); }
/* The empty statement makes the compiler load once: it would fold the load into each of the seven uses of an int4 vector,
 * and two loads per cycle then limit what the multiplications do not. */
static inline vectors i_load_codes(const void *p)
{
    vectors v = _mm512_loadu_si512(p);
    __asm__("" : "+v"(v));
    return v;
}
static inline vectors i_add(vectors a, vectors b) { return _mm512_add_epi32(a, b); }
static inline lanes   i_to_f(vectors a) { return _mm512_cvtepi32_ps(a); }
static inline vectors i_round(lanes a) { return _mm512_cvtps_epi32(a); } /* to nearest even */
static inline int32_t i_sum(vectors a) { return _mm512_reduce_add_epi32(a); }

/* sum + the products of 16 pairs of int16 */
static inline vectors i_dot(vectors sum, vectors w, vectors a) { return _mm512_dpwssd_epi32(sum, w, a); }

/* Pair q = 0..3 of the eight inputs of an int4 vector: (0,2) (1,3) (4,6) (5,7). */
static inline vectors i_nibble_pairs(vectors v, int q)
{
    const vectors low = _mm512_set1_epi16(15);
    switch (q) {
    case 0: return _mm512_and_si512(v, low);
    case 1: return _mm512_and_si512(_mm512_srli_epi16(v, 8), low);
    case 2: return _mm512_and_si512(_mm512_srli_epi16(v, 4), low);
    default: return _mm512_srli_epi16(v, 12);
    }
}

/* Pair q = 0..1 of the four inputs of an int8 vector: (0,2) (1,3). */
static inline vectors i_byte_pairs(vectors v, int q)
{
    return q ? _mm512_srli_epi16(v, 8) : _mm512_and_si512(v, _mm512_set1_epi16(255));
}

/* 16 zero points z as pairs (z, 128 z) */
static inline vectors i_zero_points(const uint8_t *p)
{
    vectors z = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p));
    return _mm512_or_si512(z, _mm512_slli_epi32(z, 23));
}

/* The largest |x[i]| as its bit pattern, which orders like the number, with NaN above infinity. */
static inline int32_t i_max_magnitude(const float *x, int count)
{
    const vectors magnitude = _mm512_set1_epi32(0x7fffffff);
    vectors       most = _mm512_setzero_si512();
    for (int i = 0; i < count; i += 16) most = _mm512_max_epi32(most, _mm512_and_si512(i_load(x + i), magnitude));
    return _mm512_reduce_max_epi32(most);
}

/* 16 numbers to int16, each four in the order 0 2 1 3 */
static inline void i_store_pairs(int16_t *p, vectors a)
{
    __m256i h = _mm512_cvtepi32_epi16(a);
    h = _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(h, _MM_SHUFFLE(3, 1, 2, 0)), _MM_SHUFFLE(3, 1, 2, 0));
    _mm256_storeu_si256((void *)p, h);
}

#include "kernels/cpu/matmul_body.h"

void nb_avx512_matmul(const nb_ops *ops, float *y, size_t ldy, const float *x, size_t ldx, size_t rows, const nb_matrix *m,
                      const float *bias, bool add)
{
    matmul(ops, y, ldy, x, ldx, rows, m, bias, add);
}

void nb_avx512_quantize_block(const float *x, int16_t *a, float *scale, int32_t *zero_pair)
{
    quantize_block(x, a, scale, zero_pair);
}

void nb_avx512_fill_matmul(nb_ops *ops)
{
    fill(ops);
}
