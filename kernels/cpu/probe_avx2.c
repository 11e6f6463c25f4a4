/* probe_avx2.c - probes of AVX2 with FMA: probe_body.h over registers of 32 bytes. */
#include <immintrin.h>

enum { CHAINS = 10, s_lanes = 8, d_lanes = 4 };
#define LEVEL(name) nb_avx2_probe_##name

typedef __m256  s_vector;
typedef __m256d d_vector;
typedef __m256i i_vector;

static inline s_vector s_load(const float *p) { return _mm256_loadu_ps(p); }
static inline s_vector s_fma(s_vector a, s_vector b, s_vector c) { return _mm256_fmadd_ps(a, b, c); }
static inline d_vector d_load(const double *p) { return _mm256_loadu_pd(p); }
static inline d_vector d_fma(d_vector a, d_vector b, d_vector c) { return _mm256_fmadd_pd(a, b, c); }
static inline i_vector i_load(const void *p) { return _mm256_loadu_si256(p); }
static inline i_vector i_xor(i_vector a, i_vector b) { return _mm256_xor_si256(a, b); }
/* As matmul_avx2.c multiplies: two instructions. */
static inline i_vector i_dot16(i_vector sum, i_vector a, i_vector b) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }

#include "kernels/cpu/probe_body.h"

_Static_assert((int)CHAINS == (int)NB_AVX2_CHAINS, "probe.c counts these");
