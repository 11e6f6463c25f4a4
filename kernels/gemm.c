/* gemm.c - which products a level has, their definition (ref), and the order of the right side. */
#include "kernels/gemm.h"

#include "kernels/cpu/cpu.h"

enum { REF_WIDTH = 8 };

/* c = a b or c -= a b as gemm.h says it, for one type. */
#define REF_GEMM(name, type)                                                                                              \
    static void name(type *c, size_t ldc, const type *a, size_t lda, const type *b, size_t deep, size_t m, size_t n,        \
                     size_t k, bool subtract)                                                                             \
    {                                                                                                                     \
        for (size_t r = 0; r < m; r++)                                                                                    \
            for (size_t j = 0; j < n; j++) {                                                                              \
                const type *panel = b + j / REF_WIDTH * REF_WIDTH * deep + j % REF_WIDTH;                                 \
                type        total = subtract ? c[r * ldc + j] : 0;                                                        \
                for (size_t i = 0; i < k;) {                                                                              \
                    type   sum = 0;                                                                                       \
                    size_t end = i + NB_GEMM_DEPTH < k ? i + NB_GEMM_DEPTH : k;                                           \
                    for (; i < end; i++) sum += a[r * lda + i] * panel[i * REF_WIDTH];                                    \
                    total = subtract ? total - sum : total + sum;                                                         \
                }                                                                                                         \
                c[r * ldc + j] = total;                                                                                   \
            }                                                                                                             \
    }
REF_GEMM(ref_f32, float)
REF_GEMM(ref_f64, double)

static void ref_give(float *columns, const float *e, const float *u, size_t count)
{
    for (size_t j = 0; j < count; j++)
        for (size_t r = 0; r < NB_GIVE_ROWS; r++) columns[j * NB_GIVE_ROWS + r] -= e[r] * u[j];
}

static const nb_gemm ref = { REF_WIDTH, REF_WIDTH, ref_f32, ref_f64, ref_give };

const nb_gemm *nb_gemm_of(nb_isa isa)
{
    switch (isa) {
#if defined(__aarch64__)
    case NB_ISA_NEON: return &nb_neon_gemm;
#else
    case NB_ISA_AMX:
    case NB_ISA_AVX512: return &nb_avx512_gemm;
    case NB_ISA_AVX2: return &nb_avx2_gemm;
#endif
    default: return &ref;
    }
}

void nb_gemm_panels64(double *to, const double *b, size_t ldb, size_t n, size_t k, size_t width)
{
    for (size_t first = 0; first < n; first += width, to += width * k) {
        size_t have = n - first < width ? n - first : width;
        for (size_t i = 0; i < k; i++) {
            for (size_t j = 0; j < have; j++) to[i * width + j] = b[(first + j) * ldb + i];
            for (size_t j = have; j < width; j++) to[i * width + j] = 0;
        }
    }
}
