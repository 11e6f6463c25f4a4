/* probe_avx512.c - probes of AVX-512 with VNNI: probe_body.h over registers of 64 bytes, and the product of bytes. */
#include <immintrin.h>

enum { CHAINS = 16, s_lanes = 16, d_lanes = 8 };
#define LEVEL(name) nb_avx512_probe_##name

typedef __m512  s_vector;
typedef __m512d d_vector;
typedef __m512i i_vector;

static inline s_vector s_load(const float *p) { return _mm512_loadu_ps(p); }
static inline s_vector s_fma(s_vector a, s_vector b, s_vector c) { return _mm512_fmadd_ps(a, b, c); }
static inline d_vector d_load(const double *p) { return _mm512_loadu_pd(p); }
static inline d_vector d_fma(d_vector a, d_vector b, d_vector c) { return _mm512_fmadd_pd(a, b, c); }
static inline i_vector i_load(const void *p) { return _mm512_loadu_si512(p); }
static inline i_vector i_xor(i_vector a, i_vector b) { return _mm512_xor_si512(a, b); }
static inline i_vector i_dot16(i_vector sum, i_vector a, i_vector b) { return _mm512_dpwssd_epi32(sum, a, b); }
static inline i_vector i_dot8(i_vector sum, i_vector a, i_vector b) { return _mm512_dpbusd_epi32(sum, a, b); }

#include "kernels/cpu/probe_body.h"

DOT(dot8, i_dot8)

_Static_assert((int)CHAINS == (int)NB_AVX512_CHAINS, "probe.c counts these");
