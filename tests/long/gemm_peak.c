/* gemm_peak.c - how fast this machine multiplies: the yardstick of tests/long/phases.sh.
 *
 *     gemm_peak [THREADS]
 *
 * For every arithmetic the best of several candidates (OpenBLAS, nibble's own products) on sizes of a 2B model, and beside it the
 * operations that quantizing is made of.  Rates are in GFLOP per second of CPU time, summed over threads, and per second of wall
 * time: the first does not suffer from other work on the machine.  Candidates take turns, five rounds of a tenth of a second or more; the median
 * counts: the CPU time of a few milliseconds can come out far too short on a virtual machine.
 */
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "calib/stats.h"
#include "kernels/gemm.h"
#include "quant/linalg.h"

enum { ROWS = 1024, K = 1536, N = 8960, TILE = 96, ROUNDS = 5, CANDIDATES = 7, REPEATS = 24 /* of products that take milliseconds */ };

typedef struct {
    const nb_gemm *gemm;
    float         *x, *w, *y, *panels; /* [ROWS, N], [N, K], [ROWS, N] */
    double        *a, *b, *c, *panels64;
    size_t         k, n;
} work;

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void blas32(void *context, size_t item, int thread)
{
    (void)thread;
    work *w = context;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, 256, 256, (int)w->k, 1, w->x + item / 4 * 256 * w->k, (int)w->k,
                w->w + item % 4 * 256 * w->k, (int)w->k, 0, w->y + item * 65536, 256);
}

static void blas64(void *context, size_t item, int thread)
{
    (void)thread;
    work *w = context;
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, 256, 256, (int)w->k, 1, w->a + item / 4 * 256 * w->k, (int)w->k,
                w->b + item % 4 * 256 * w->k, (int)w->k, 0, w->c + item * 65536, 256);
}

static void own32(void *context, size_t item, int thread)
{
    (void)thread;
    work *w = context;
    w->gemm->f32(w->y + item * 65536, 256, w->x + item / 4 * 256 * w->k, w->k, w->panels, w->k, 256, 256, w->k, false);
}

static void own64(void *context, size_t item, int thread)
{
    (void)thread;
    work *w = context;
    w->gemm->f64(w->c + item * 65536, 256, w->a + item / 4 * 256 * w->k, w->k, w->panels64, w->k, 256, 256, w->k, false);
}

typedef struct {
    double cpu[ROUNDS], wall[ROUNDS]; /* GFLOP a second; sorted by median */
} rates;

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values)
{
    qsort(values, ROUNDS, sizeof *values, ascending);
    return values[ROUNDS / 2];
}

int main(int argc, char **argv)
{
    nb_error  err;
    nb_pool  *pool;
    nb_ops    ops;
    nb_isa    isa;
    nb_matrix m32, m16;
    rates     all[CANDIDATES];
    if (nb_pool_new(&pool, argc > 1 ? atoi(argv[1]) : 0, &err) || nb_isa_from_environment(&isa, &err)) return 1;
    nb_ops_init(&ops, isa, pool);
    work w = { .gemm = nb_gemm_of(nb_isa_best()), .k = K };
    size_t big = (size_t)N * K;
    w.x = malloc((size_t)ROWS * N * 4), w.y = malloc((size_t)ROWS * N * 4), w.w = malloc(big * 4), w.panels = malloc(256 * K * 4);
    w.a = malloc((size_t)ROWS * K * 8), w.b = malloc((size_t)ROWS * K * 8), w.c = malloc(16 * 65536 * 8), w.panels64 = malloc(256 * K * 8);
    nb_stats       stats;
    uint8_t        modality[ROWS] = { 0 };
    const size_t   bounds[2] = { 0, ROWS };
    nb_sample_rows one = { .bounds = bounds, .count = 1, .modality = modality };
    if (nb_stats_init(&stats, 4096, (const float[]){ 1, 1, 1 }, &err)) return 1;
    uint16_t *half = malloc(big * 2);
    for (size_t i = 0; i < (size_t)ROWS * N; i++) w.x[i] = (float)(i * 2654435761u % 2001) / 1000 - 1;
    for (size_t i = 0; i < big; i++) w.w[i] = (float)(i * 40503u % 2001) / 1000 - 1, half[i] = nb_f32_to_bf16(w.w[i]);
    for (size_t i = 0; i < (size_t)ROWS * K; i++) w.a[i] = w.x[i], w.b[i] = w.w[i];
    for (size_t i = 0; i < (size_t)256 * K; i++) w.panels[i] = w.w[i], w.panels64[i] = w.w[i];
    nb_weights f32 = { .kind = NB_W_FLOAT, .n = N, .k = K, .dtype = NB_F32, .data = w.w };
    nb_weights f16 = { .kind = NB_W_FLOAT, .n = N, .k = K, .dtype = NB_BF16, .data = half };
    if (ops.pack(&ops, &m32, &f32, 1, &err) || ops.pack(&ops, &m16, &f16, 1, &err)) return 1;
    nb_parallel_blas(pool, 1, blas32, &w); /* OpenBLAS sends its threads home */
    nb_body *const bodies[] = { blas32, own32, blas64, own64 };
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < CANDIDATES; i++) {
            double cpu = cpu_seconds(), wall = nb_seconds(), flop;
            if (i < 4) {
                for (int again = 0; again < REPEATS; again++) nb_parallel_blas(pool, 16, bodies[i], &w);
                flop = REPEATS * 2.0 * 1024 * 1024 * K;
            } else if (i < 6) {
                ops.matmul(&ops, w.y, N, w.x, K, ROWS, i == 4 ? &m32 : &m16, NULL, false);
                flop = 2.0 * ROWS * (double)big;
            } else {
                nb_stats_add(&stats, &ops, w.x, 4096, &one);
                flop = 4096.0 * 4096 * ROWS;
            }
            all[i].cpu[round] = flop / (cpu_seconds() - cpu) / 1e9;
            all[i].wall[round] = flop / (nb_seconds() - wall) / 1e9;
        }
    static const char *const names[] = { "openblas_f32", "gemm_f32", "openblas_f64", "gemm_f64", "matmul_f32", "matmul_bf16", "gram" };
    double f32_best = 0, f64_best = 0, f32_wall = 0, f64_wall = 0;
    printf("{\"threads\": %d, \"isa\": \"%s\"", nb_pool_threads(pool), nb_isa_name(isa));
    for (int i = 0; i < CANDIDATES; i++) {
        double  cpu = median(all[i].cpu), wall = median(all[i].wall);
        double *top = i == 2 || i == 3 ? &f64_best : &f32_best, *top_wall = i == 2 || i == 3 ? &f64_wall : &f32_wall;
        printf(", \"%s\": {\"cpu\": %.1f, \"wall\": %.1f}", names[i], cpu, wall);
        if (i < 6 && cpu > *top) *top = cpu;
        if (i < 6 && wall > *top_wall) *top_wall = wall;
    }
    printf(", \"f32\": {\"cpu\": %.1f, \"wall\": %.1f}, \"f64\": {\"cpu\": %.1f, \"wall\": %.1f}}\n", f32_best, f32_wall, f64_best, f64_wall);
    nb_pool_free(pool);
    return 0;
}
