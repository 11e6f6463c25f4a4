/* attention_speed.c - attention at the sizes of a 7B, beside what this machine's memory and multipliers can do.
 *
 *     attention_speed [THREADS [DEPTH]]
 *
 * decode   one query row over DEPTH tokens (30720), 28 layers of distinct pages with made-up keys and values: bytes of K and V
 *          in a second beside a read of the same memory by as many threads
 * prefill  512 and 4096 rows of causal attention, and full attention over the 10,764 patches of one picture of 1932 x 1092
 *          with heads of 80: operations in a second of CPU time, beside fused multiply-adds on registers
 *
 * The best of ROUNDS rounds counts.  NIBBLE_ISA lowers the level.
 */
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/ops.h"

enum { LAYERS = 28, HEADS = 28, KV_HEADS = 4, D = 128, ROUNDS = 3, SLAB = 8 /* pages, as the engine has them */ };

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float *random_floats(size_t n)
{
    float   *p = malloc(n * sizeof *p);
    uint64_t state = 1;
    for (size_t i = 0; p && i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        p[i] = (float)(int32_t)(state >> 32) * 0x1p-31f;
    }
    if (!p) exit(1);
    return p;
}

/* ---- yardsticks ----------------------------------------------------------------------------------------------------------- */

typedef long long words __attribute__((vector_size(16), aligned(16)));

typedef struct {
    char *const *pages;
    size_t       count, bytes, threads;
    long long    sink[64];
} reading;

/* Pages first .. of the thread's share, read in four streams. */
static void read_share(void *context, size_t item, int thread)
{
    (void)thread;
    reading *r = context;
    words    sum[4] = { { 0 } };
    for (size_t p = item * r->count / r->threads; p < (item + 1) * r->count / r->threads; p++) {
        size_t       quarter = r->bytes / 4 / sizeof(words);
        const words *w = (const words *)(const void *)r->pages[p];
        for (size_t i = 0; i < quarter; i += 4)
            for (size_t j = 0; j < 4; j++)
                for (size_t s = 0; s < 4; s++) sum[j] ^= w[s * quarter + i + j];
    }
    words all = sum[0] ^ sum[1] ^ sum[2] ^ sum[3];
    r->sink[item] = all[0] ^ all[1];
}

__attribute__((target("avx512f"))) static double fma_512(size_t n)
{
    __m512 a[16], x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(1e-9f);
    for (int i = 0; i < 16; i++) a[i] = _mm512_set1_ps((float)i);
    for (size_t k = 0; k < n; k++) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) a[i] = _mm512_fmadd_ps(a[i], x, y);
    }
    for (int i = 1; i < 16; i++) a[0] = _mm512_add_ps(a[0], a[i]);
    return (double)_mm512_reduce_add_ps(a[0]);
}

__attribute__((target("avx2,fma"))) static double fma_256(size_t n)
{
    __m256 a[12], x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(1e-9f);
    for (int i = 0; i < 12; i++) a[i] = _mm256_set1_ps((float)i);
    for (size_t k = 0; k < n; k++) {
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++) a[i] = _mm256_fmadd_ps(a[i], x, y);
    }
    for (int i = 1; i < 12; i++) a[0] = _mm256_add_ps(a[0], a[i]);
    return (double)_mm256_cvtss_f32(a[0]);
}

/* GFLOP/s of one core: 1 multiply-add is 2 */
static double fma_peak(nb_isa isa)
{
    double best = 0;
    if (isa == NB_ISA_REF) return 0;
    for (int round = 0; round < ROUNDS; round++) {
        size_t          n = 20000000;
        volatile double keep;
        double          start = cpu_seconds();
        keep = isa == NB_ISA_AVX512 ? fma_512(n) : fma_256(n);
        (void)keep;
        double rate = (isa == NB_ISA_AVX512 ? 16.0 * 16 : 12.0 * 8) * 2 * (double)n / (cpu_seconds() - start) * 1e-9;
        best = rate > best ? rate : best;
    }
    return best;
}

/* ---- decode --------------------------------------------------------------------------------------------------------------- */

static void decode(const nb_ops *ops, size_t depth, nb_dtype type, const char *name)
{
    size_t half = nb_kv_layer_bytes(KV_HEADS, D, type), count = (depth + NB_KV_PAGE) / NB_KV_PAGE;
    size_t bytes = LAYERS * 2 * half, threads = (size_t)nb_pool_threads(ops->pool);
    void **pages = calloc(count, sizeof *pages);
    float *values = random_floats(NB_KV_PAGE * KV_HEADS * D), *q = random_floats(HEADS * D), *out = random_floats(HEADS * D);
    nb_attn a = { .heads = HEADS, .kv_heads = KV_HEADS, .head_dim = D, .scale = 0.0883883f, .kv_type = type };
    for (size_t p = 0; pages && p < count; p++) {
        pages[p] = p % SLAB ? (char *)pages[p - 1] + bytes : ops->alloc(ops, SLAB * bytes);
        if (!pages[p]) exit(1);
        nb_span full = { .rows = NB_KV_PAGE, .pages = pages + p };
        for (int l = 0; l < LAYERS; l++) {
            a.k_offset = (size_t)l * 2 * half;
            a.v_offset = a.k_offset + half;
            ops->kv_store(ops, &a, &full, 1, values, values, KV_HEADS * D);
        }
    }
    nb_span one = { .rows = 1, .past = depth, .pages = pages };
    double  best = 1e9, read = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        reading r = { .pages = (char *const *)pages, .count = count, .bytes = bytes, .threads = threads };
        double  start = nb_seconds();
        nb_parallel(ops->pool, threads, read_share, &r);
        double t = nb_seconds() - start;
        read = t < read ? t : read;
        start = nb_seconds();
        for (int l = 0; l < LAYERS; l++) {
            a.k_offset = (size_t)l * 2 * half;
            a.v_offset = a.k_offset + half;
            ops->attend(ops, &a, &one, 1, out, HEADS * D, q, HEADS * D);
        }
        t = nb_seconds() - start;
        best = t < best ? t : best;
    }
    double total = (double)bytes * (double)count * 1e-9;
    printf("decode %-5s depth %zu: %6.1f ms, %5.1f GB/s; reading %5.1f GB/s; share %.2f\n", name, depth, best * 1e3, total / best,
           total / read, read / best);
    for (size_t p = 0; p < count; p += SLAB) ops->free(ops, pages[p]);
    free(pages), free(values), free(q), free(out);
}

/* ---- prefill -------------------------------------------------------------------------------------------------------------- */

static void prefill(const nb_ops *ops, size_t rows, double peak)
{
    size_t  half = (size_t)KV_HEADS * NB_KV_PAGE * D * 2, count = rows / NB_KV_PAGE, ld = KV_HEADS * D;
    float  *k = random_floats(rows * ld), *q = random_floats(rows * HEADS * D), *out = random_floats(rows * HEADS * D);
    char   *memory = ops->alloc(ops, count * 2 * half);
    void  **pages = calloc(count, sizeof *pages);
    nb_attn a = { .heads = HEADS, .kv_heads = KV_HEADS, .head_dim = D, .scale = 0.0883883f, .kv_type = NB_BF16, .v_offset = half };
    nb_span all = { .rows = rows, .pages = pages };
    if (!memory || !pages) exit(1);
    for (size_t p = 0; p < count; p++) pages[p] = memory + p * 2 * half;
    ops->kv_store(ops, &a, &all, 1, k, k, ld);
    double best = 1e9, operations = 4.0 * HEADS * D * (double)rows * (double)(rows + 1) / 2;
    for (int round = 0; round < ROUNDS; round++) {
        double start = cpu_seconds();
        ops->attend(ops, &a, &all, 1, out, HEADS * D, q, HEADS * D);
        double t = cpu_seconds() - start;
        best = t < best ? t : best;
    }
    printf("prefill %5zu rows: %8.1f ms of CPU, %6.1f GFLOP/s a core, share %.2f\n", rows, best * 1e3, operations / best * 1e-9,
           operations / best * 1e-9 / peak);
    ops->free(ops, memory);
    free(pages), free(k), free(q), free(out);
}

static void picture(const nb_ops *ops, double peak)
{
    enum { PATCHES = 10764, OF_VISION = 4, WIDTH = 80, LD = 3 * OF_VISION * WIDTH }; /* 4 of the 16 heads */
    float *qkv = random_floats((size_t)PATCHES * LD), *out = random_floats((size_t)PATCHES * OF_VISION * WIDTH);
    size_t bounds[2] = { 0, PATCHES };
    double best = 1e9, operations = 4.0 * OF_VISION * WIDTH * PATCHES * PATCHES;
    for (int round = 0; round < ROUNDS; round++) {
        double start = cpu_seconds();
        ops->attend_full(ops, out, OF_VISION * WIDTH, qkv, LD, bounds, 1, OF_VISION, WIDTH, 0.111803f);
        double t = cpu_seconds() - start;
        best = t < best ? t : best;
    }
    printf("picture %5d rows: %8.1f ms of CPU, %6.1f GFLOP/s a core, share %.2f\n", PATCHES, best * 1e3, operations / best * 1e-9,
           operations / best * 1e-9 / peak);
    free(qkv), free(out);
}

int main(int argc, char **argv)
{
    int      threads = argc > 1 ? atoi(argv[1]) : 2;
    size_t   depth = argc > 2 ? (size_t)atol(argv[2]) : 30720;
    nb_error err;
    nb_pool *pool;
    nb_ops   ops;
    nb_isa   isa;
    if (nb_isa_from_environment(&isa, &err) || nb_pool_new(&pool, threads, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    nb_ops_init(&ops, isa, pool);
    double peak = fma_peak(isa);
    printf("%s, %d threads; multiply-adds %.1f GFLOP/s a core\n", ops.name, threads, peak);
    prefill(&ops, 512, peak);
    prefill(&ops, 4096, peak);
    picture(&ops, peak);
    decode(&ops, depth, NB_BF16, "bf16");
    decode(&ops, depth, NB_I8, "int8");
    nb_pool_free(pool);
    return 0;
}
