/* gemm_neon.c - the solvers' products for NEON: gemm_body.h, 24 sums in 32 registers. */
#include <arm_neon.h>

#define ROW_TILES(X, V) X(6, V) X(4, V) X(2, V) X(1, V)
enum { COLUMNS = 4, LANES32 = 4 };

typedef float32x4_t s_vector;
typedef float64x2_t d_vector;

static inline s_vector s_zero(void) { return vdupq_n_f32(0); }
static inline s_vector s_set(float x) { return vdupq_n_f32(x); }
static inline s_vector s_load(const float *p) { return vld1q_f32(p); }
static inline void     s_store(float *p, s_vector a) { vst1q_f32(p, a); }
static inline s_vector s_fma(s_vector a, s_vector b, s_vector c) { return vfmaq_f32(c, a, b); }
static inline s_vector s_fnma(s_vector a, s_vector b, s_vector c) { return vfmsq_f32(c, a, b); }
static inline s_vector s_add(s_vector a, s_vector b) { return vaddq_f32(a, b); }
static inline s_vector s_sub(s_vector a, s_vector b) { return vsubq_f32(a, b); }
static inline d_vector d_zero(void) { return vdupq_n_f64(0); }
static inline d_vector d_set(double x) { return vdupq_n_f64(x); }
static inline d_vector d_load(const double *p) { return vld1q_f64(p); }
static inline void     d_store(double *p, d_vector a) { vst1q_f64(p, a); }
static inline d_vector d_fma(d_vector a, d_vector b, d_vector c) { return vfmaq_f64(c, a, b); }
static inline d_vector d_add(d_vector a, d_vector b) { return vaddq_f64(a, b); }
static inline d_vector d_sub(d_vector a, d_vector b) { return vsubq_f64(a, b); }

#include "kernels/cpu/gemm_body.h"

const nb_gemm nb_neon_gemm = NB_GEMM_TABLE;
