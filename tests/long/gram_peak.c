/* gram_peak.c - the Gram kernel beside OpenBLAS's ssyrk and the fastest matrix product: shares and ratios of one run.
 *
 *     gram_peak [THREADS [ROUNDS [K ...]]]
 *
 * Every candidate adds the upper triangle of x' x for samples of 512 and 2048 rows and of 514 (two whole pieces and one of two
 * rows); an operation count of rows k (k + 1) for all of them.  ssyrk keeps f32 sums and has OpenBLAS's threads; the others have
 * the pool's.  "registers" is FMA that touches no memory, "gemm" nibble's own f32 product on 256 x 256 outputs, depth 1536.  With
 * one thread the clock is the thread's, which other work on the machine changes little; else it is the wall's, and the machine must be
 * idle.  Candidates take turns and the best round counts.
 */
#include <cblas.h>
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/gemm.h"
#include "kernels/ops.h"

enum { DEPTH = 1536, SIDE = 256, TILES = 32, CHAINS = 16, CHAINS_256 = 12, SPIN = 10000000 };

/* COUNT independent sums in registers; the compiler may not see that nobody wants them */
#define SPIN_BODY(type, zero, fma, COUNT)                                                  \
    (void)context, (void)item, (void)thread;                                               \
    type sum[COUNT], a = zero;                                                             \
    for (int i = 0; i < (COUNT); i++) sum[i] = a;                                          \
    for (int n = 0; n < SPIN; n++) {                                                       \
        _Pragma("GCC unroll 16") for (int i = 0; i < (COUNT); i++) sum[i] = fma(a, a, sum[i]); \
        __asm__ volatile("" : "+x"(a));                                                    \
    }                                                                                      \
    for (int i = 0; i < (COUNT); i++) __asm__ volatile("" : : "x"(sum[i]));

__attribute__((target("avx512f"))) static void spin512(void *context, size_t item, int thread)
{
    SPIN_BODY(__m512, _mm512_setzero_ps(), _mm512_fmadd_ps, CHAINS)
}

__attribute__((target("avx2,fma"))) static void spin256(void *context, size_t item, int thread)
{
    SPIN_BODY(__m256, _mm256_setzero_ps(), _mm256_fmadd_ps, CHAINS_256)
}

static bool one_thread;

static double clock_seconds(void)
{
    struct timespec t;
    if (!one_thread) return nb_seconds();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct {
    const nb_gemm *gemm;
    float         *x, *panels, *y;
} product;

static void multiply(void *context, size_t item, int thread)
{
    (void)thread;
    product *p = context;
    p->gemm->f32(p->y + item * SIDE * SIDE, SIDE, p->x + item * SIDE * DEPTH, DEPTH, p->panels, DEPTH, SIDE, SIDE, DEPTH, false);
}

static double faster(double best, double flop, double seconds)
{
    return flop / seconds / 1e9 > best ? flop / seconds / 1e9 : best;
}

typedef struct {
    nb_ops       *ops;
    float        *x, *h; /* h: of ssyrk, [k, k] */
    nb_gram_sums  sums;
    double        product;
    int           rounds;
} bench;

static void compare(bench *b, size_t k, size_t rows, size_t samples)
{
    size_t bounds[5];
    double flop = (double)(rows * samples) * (double)k * (double)(k + 1), gram = 0, syrk = 0;
    for (size_t i = 0; i <= samples; i++) bounds[i] = i * rows;
    for (int round = 0; round < b->rounds; round++) {
        double start = clock_seconds();
        b->ops->gram(b->ops, &b->sums, b->x, k, (int)k, bounds, samples, NULL);
        gram = faster(gram, flop, clock_seconds() - start);
        start = clock_seconds();
        for (size_t i = 0; i < samples; i++)
            cblas_ssyrk(CblasRowMajor, CblasUpper, CblasTrans, (int)k, (int)rows, 1, b->x + i * rows * k, (int)k, 1, b->h, (int)k);
        syrk = faster(syrk, flop, clock_seconds() - start);
    }
    printf("| %zu | %zu x %zu | %.0f | %.0f | %.2f | %.0f %% |\n", k, samples, rows, gram, syrk, gram / syrk, 100 * gram / b->product);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    nb_error err;
    nb_pool *pool;
    nb_ops   ops;
    nb_isa   isa;
    int      threads = argc > 1 ? atoi(argv[1]) : 0;
    if (nb_pool_new(&pool, threads, &err) || nb_isa_from_environment(&isa, &err)) return 1;
    isa = nb_isa_detect(isa);
    nb_ops_init(&ops, isa, pool);
    threads = nb_pool_threads(pool);
    one_thread = threads == 1;
    openblas_set_num_threads(threads);
    static const size_t usual[] = { 1536, 3584, 8960, 18944 };
    bench    b = { .ops = &ops, .rounds = argc > 2 ? atoi(argv[2]) : 3 };
    product  p = { .gemm = nb_gemm_of(isa) };
    size_t   most = (size_t)TILES * SIDE * DEPTH;
    double   registers = 0;
    p.x = malloc(most * 4), p.panels = malloc((size_t)SIDE * DEPTH * 4), p.y = malloc((size_t)TILES * SIDE * SIDE * 4);
    if (!p.x || !p.panels || !p.y) return 1;
    for (size_t i = 0; i < most; i++) p.x[i] = (float)(i * 2654435761u % 2001) / 1000 - 1;
    for (size_t i = 0; i < (size_t)SIDE * DEPTH; i++) p.panels[i] = (float)(i * 40503u % 2001) / 1000 - 1;
    for (int round = 0; round < b.rounds + 2; round++) {
        double start = clock_seconds();
        if (isa >= NB_ISA_AVX2) nb_parallel(pool, (size_t)threads, isa >= NB_ISA_AVX512 ? spin512 : spin256, NULL);
        double each = isa >= NB_ISA_AVX512 ? 2.0 * 16 * CHAINS : 2.0 * 8 * CHAINS_256;
        registers = faster(registers, each * SPIN * threads, clock_seconds() - start);
        start = clock_seconds();
        nb_parallel(pool, TILES, multiply, &p);
        b.product = faster(b.product, 2.0 * SIDE * SIDE * DEPTH * TILES, clock_seconds() - start);
    }
    printf("%d threads, %s; OpenBLAS takes the machine for %s; GFLOP/s: registers %.0f, gemm %.0f\n", threads, nb_isa_name(isa),
           openblas_get_corename(), registers, b.product);
    printf("| k | samples | gram | ssyrk | times ssyrk | of gemm |\n| ---: | ---: | ---: | ---: | ---: | ---: |\n");
    for (int i = 0; i < (argc > 3 ? argc - 3 : 4); i++) {
        size_t k = argc > 3 ? (size_t)atoll(argv[3 + i]) : usual[i];
        b.x = malloc(2056 * k * 4), b.h = calloc(k * k, 4);
        b.sums = (nb_gram_sums){ .h = nb_calloc_aligned(k * k, 8), .diagonal = calloc(k, 8), .sum_abs = calloc(2 * k, 8), .max_abs = calloc(k, 4),
                                 .work = nb_calloc_aligned(nb_gram_work(k), 4) };
        if (!b.x || !b.h || !b.sums.h || !b.sums.diagonal || !b.sums.sum_abs || !b.sums.max_abs || !b.sums.work) return 1;
        for (size_t j = 0; j < 2056 * k; j++) b.x[j] = (float)(j * 2654435761u % 2001) / 1000 - 1;
        compare(&b, k, 512, 1);
        compare(&b, k, 514, 4);
        compare(&b, k, 2048, 1);
        free(b.x), free(b.h), free(b.sums.h), free(b.sums.diagonal), free(b.sums.sum_abs), free(b.sums.max_abs), free(b.sums.work);
    }
    free(p.x), free(p.panels), free(p.y);
    nb_pool_free(pool);
    return 0;
}
