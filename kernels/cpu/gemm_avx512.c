/* gemm_avx512.c - the solvers' products for AVX-512: gemm_body.h, 24 sums in 32 registers. */
#include <immintrin.h>

#define ROW_TILES(X, V) X(12, V) X(8, V) X(4, V) X(2, V) X(1, V)
enum { COLUMNS = 2, LANES32 = 16 };

typedef __m512  s_vector;
typedef __m512d d_vector;

static inline s_vector s_zero(void) { return _mm512_setzero_ps(); }
static inline s_vector s_set(float x) { return _mm512_set1_ps(x); }
static inline s_vector s_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void     s_store(float *p, s_vector a) { _mm512_storeu_ps(p, a); }
static inline s_vector s_fma(s_vector a, s_vector b, s_vector c) { return _mm512_fmadd_ps(a, b, c); }
static inline s_vector s_fnma(s_vector a, s_vector b, s_vector c) { return _mm512_fnmadd_ps(a, b, c); }
static inline s_vector s_add(s_vector a, s_vector b) { return _mm512_add_ps(a, b); }
static inline s_vector s_sub(s_vector a, s_vector b) { return _mm512_sub_ps(a, b); }
static inline d_vector d_zero(void) { return _mm512_setzero_pd(); }
static inline d_vector d_set(double x) { return _mm512_set1_pd(x); }
static inline d_vector d_load(const double *p) { return _mm512_loadu_pd(p); }
static inline void     d_store(double *p, d_vector a) { _mm512_storeu_pd(p, a); }
static inline d_vector d_fma(d_vector a, d_vector b, d_vector c) { return _mm512_fmadd_pd(a, b, c); }
static inline d_vector d_add(d_vector a, d_vector b) { return _mm512_add_pd(a, b); }
static inline d_vector d_sub(d_vector a, d_vector b) { return _mm512_sub_pd(a, b); }

#include "kernels/cpu/gemm_body.h"

const nb_gemm nb_avx512_gemm = NB_GEMM_TABLE;
