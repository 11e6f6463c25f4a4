/* kernel_bits.c - one line for each operation and shape: a checksum of the result's bits at the level of NIBBLE_ISA.
 *
 * The same lines must come from avx2 and from neon (vec_neon.h), on whatever machine; tests/long/neon.sh compares them.  Inputs come
 * from a generator that uses no library, and hold outliers, denormals, zeros of both signs, infinities and NaN.  Every NaN counts
 * as the same: processors give theirs different signs. */
#include "kernels/gemm.h"
#include "levels.h"

static nb_ops ops;

/* ---- checksums --------------------------------------------------------------------- */

static uint64_t add_bytes(uint64_t sum, const void *p, size_t n) /* FNV-1a */
{
    for (const unsigned char *c = p; n > 0; n--) sum = (sum ^ *c++) * 0x100000001b3u;
    return sum;
}

static const uint64_t empty = 0xcbf29ce484222325u;

static uint64_t sum_floats(const float *p, size_t n)
{
    uint64_t sum = empty;
    for (size_t i = 0; i < n; i++) {
        float x = isnan(p[i]) ? NAN : p[i];
        uint32_t u;
        memcpy(&u, &x, 4);
        u = isnan(x) ? 0x7fc00000u : u;
        sum = add_bytes(sum, &u, 4);
    }
    return sum;
}

#define SAY(sum, ...) (printf(__VA_ARGS__), printf(" %016llx\n", (unsigned long long)(sum)))

/* ---- inputs ------------------------------------------------------------------------ */

/* `strange`: one in 20 is an extreme or no number at all */
static float *inputs(size_t n, bool strange, uint64_t seed)
{
    static const float rare[] = { 0.0f, -0.0f, 1e-40f, -3e-45f, 0x1p-126f, 1e30f, -1e38f, INFINITY, -INFINITY, NAN, 88.8f, -104.0f };
    float *p = random_floats(n, true, seed);
    for (size_t i = 0; strange && i < n; i++)
        if (unit_random(&seed) % 20 == 0) p[i] = rare[unit_random(&seed) % NB_COUNT(rare)];
    return p;
}

/* ---- matmul and embed --------------------------------------------------------------- */

enum { F32, BF16, F16, INT4, INT4_ZEROS, INT4_ORDER, INT8, INT8_ZEROS, KINDS };

typedef struct {
    nb_weights w;
    void      *data;
    uint8_t   *codes, *zeros;
    float     *scales;
    int32_t   *order;
} weights;

static weights new_weights(int kind, int n, int k, int group, bool half_scales, uint64_t seed)
{
    size_t  count = (size_t)n * (size_t)k, groups = (size_t)((k + group - 1) / group);
    weights a = { .w = { .kind = kind <= F16 ? NB_W_FLOAT : kind < INT8 ? NB_W_INT4 : NB_W_INT8, .n = n, .k = k, .group = group } };
    if (kind <= F16) {
        float *f = random_floats(count, false, seed);
        a.w.dtype = kind == F32 ? NB_F32 : kind == BF16 ? NB_BF16 : NB_F16;
        if (kind != F32 && count > 5) f[1] = 1e-7f, f[2] = -0.0f, f[5] = 6e-8f; /* denormal as f16 */
        a.data = malloc(4 * count);
        nb_from_f32(a.data, a.w.dtype, f, count);
        a.w.data = a.data;
        free(f);
        return a;
    }
    uint32_t highest = a.w.kind == NB_W_INT4 ? 15 : 255;
    a.codes = malloc(count), a.zeros = malloc((size_t)n * groups), a.scales = malloc(4 * (size_t)n * groups), a.order = malloc(4 * (size_t)k);
    for (size_t i = 0; i < count; i++) a.codes[i] = (uint8_t)(unit_random(&seed) & highest);
    for (size_t i = 0; i < (size_t)n * groups; i++) {
        a.zeros[i] = (uint8_t)(unit_random(&seed) & highest);
        a.scales[i] = 0.01f + 0.001f * unit_uniform(&seed);
        if (half_scales) a.scales[i] = nb_f16_to_f32(nb_f32_to_f16(a.scales[i]));
    }
    for (size_t i = 0; i < (size_t)k; i++) a.order[i] = (int32_t)(unit_random(&seed) % groups);
    a.w.codes = a.codes, a.w.scales = a.scales;
    if (kind == INT4_ZEROS || kind == INT8_ZEROS) a.w.zeros = a.zeros;
    if (kind == INT4_ORDER) a.w.g_idx = a.order;
    return a;
}

static void free_weights(weights *a)
{
    free(a->data), free(a->codes), free(a->zeros), free(a->scales), free(a->order);
}

static void matmul(void)
{
    static const int    shapes[][4] = { { 1, 1, 32, 1 }, { 17, 100, 32, 0 }, { 40, 257, 128, 1 }, { 33, 384, 64, 0 }, { 130, 300, 300, 1 } };
    static const size_t rows[] = { 1, 2, 3, 5, 6, 11, 100 };
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t s = 0; s < NB_COUNT(shapes); s++)
            for (size_t r = 0; r < NB_COUNT(rows); r++)
                for (int strange = 0; strange < 2; strange++) {
                    int       n = shapes[s][0], k = shapes[s][1];
                    size_t    count = rows[r] * (size_t)n;
                    nb_error  err;
                    nb_matrix m;
                    weights   a = new_weights(kind, n, k, shapes[s][2], shapes[s][3], 7 + s);
                    float    *x = inputs(rows[r] * (size_t)k, strange && rows[r] < 12, 3 + r), *bias = random_floats((size_t)n, false, 5);
                    float    *y = random_floats(count, false, 6);
                    OK(ops.pack(&ops, &m, &a.w, 1, &err), &err);
                    ops.matmul(&ops, y, (size_t)n, x, (size_t)k, rows[r], &m, strange ? bias : NULL, strange);
                    SAY(sum_floats(y, count), "matmul %d [%d, %d] %zu %d", kind, n, k, rows[r], strange);
                    if (r == 0 && !strange) {
                        const int32_t ids[] = { n - 1, 0 };
                        float        *e = malloc(8 * (size_t)k);
                        ops.embed(&ops, e, ids, 2, &m);
                        SAY(sum_floats(e, 2 * (size_t)k), "embed %d [%d, %d]", kind, n, k);
                        free(e);
                    }
                    ops.release(&ops, &m);
                    free_weights(&a);
                    free(x), free(bias), free(y);
                }
}

/* ---- gemm ---------------------------------------------------------------------------- */

#define GEMM(name, type, call, panel)                                                                             \
    static void name(const nb_gemm *g, size_t m, size_t n, size_t k, bool subtract)                               \
    {                                                                                                             \
        size_t   width = g->panel, whole = (n + width - 1) / width * width;                                       \
        uint64_t seed = m + n + k, sum = empty;                                                                   \
        type    *a = malloc((m * k + 1) * sizeof *a), *b = calloc(whole * k + 1, sizeof *b), *c = malloc(m * n * sizeof *c); \
        for (size_t i = 0; i < m * k; i++) a[i] = (type)unit_normal(&seed);                                       \
        for (size_t i = 0; i < k; i++)                                                                            \
            for (size_t j = 0; j < n; j++) b[j / width * width * k + i * width + j % width] = (type)unit_normal(&seed); \
        for (size_t i = 0; i < m * n; i++) c[i] = (type)unit_normal(&seed);                                       \
        g->call(c, n, a, k, b, k, m, n, k, subtract);                                                             \
        SAY(add_bytes(sum, c, m * n * sizeof *c), #name " %zu %zu %zu %d", m, n, k, subtract);                    \
        free(a), free(b), free(c);                                                                                \
    }
GEMM(gemm32, float, f32, width32)
GEMM(gemm64, double, f64, width64)

static void gemm(void)
{
    static const size_t shapes[][3] = { { 1, 1, 1 }, { 5, 17, 3 }, { 12, 32, 256 }, { 13, 33, 257 }, { 48, 128, 100 }, { 7, 31, 600 }, { 3, 20, 0 } };
    const nb_gemm      *g = nb_gemm_of(ops.isa);
    for (size_t s = 0; s < NB_COUNT(shapes); s++)
        for (int subtract = 0; subtract < 2; subtract++) {
            gemm32(g, shapes[s][0], shapes[s][1], shapes[s][2], subtract);
            gemm64(g, shapes[s][0], shapes[s][1], shapes[s][2], subtract);
        }
    float *columns = random_floats(3 * NB_GIVE_ROWS, false, 1), *e = random_floats(NB_GIVE_ROWS, true, 2), u[3] = { 0.3f, -2.7f, 1e-3f };
    g->give(columns, e, u, 3);
    SAY(sum_floats(columns, 3 * NB_GIVE_ROWS), "give");
    free(columns), free(e);
}

/* ---- rows ------------------------------------------------------------------------------ */

static void rows_of(int d, bool strange)
{
    enum { ROWS = 3 };
    size_t n = ROWS * (size_t)d;
    float *x = inputs(2 * n, strange, 11), *w = random_floats((size_t)d, false, 12), *b = random_floats((size_t)d, false, 13);
    float *y = malloc(8 * n), *angles = random_floats(n, false, 14);
    ops.rmsnorm(&ops, y, x, w, ROWS, d, 1e-6f);
    SAY(sum_floats(y, n), "rmsnorm %d %d", d, strange);
    ops.layernorm(&ops, y, x, w, b, ROWS, d, 1e-6f);
    SAY(sum_floats(y, n), "layernorm %d %d", d, strange);
    for (int act = NB_ACT_SILU; act <= NB_ACT_GELU; act++) {
        ops.gate(&ops, y, x, ROWS, d, (nb_act)act);
        SAY(sum_floats(y, n), "gate %d %d %d", act, d, strange);
        memcpy(y, x, 8 * n);
        ops.activate(&ops, y, 2 * n, (nb_act)act);
        SAY(sum_floats(y, 2 * n), "activate %d %d %d", act, d, strange);
    }
    ops.add(&ops, y, x, 2 * n);
    SAY(sum_floats(y, 2 * n), "add %d %d", d, strange);
    memcpy(y, x, 8 * n);
    ops.rope(&ops, y, 2 * (size_t)d, ROWS, 1, 2 * d, angles, angles);
    SAY(sum_floats(y, 2 * n), "rope %d %d", d, strange);
    free(x), free(w), free(b), free(y), free(angles);
}

/* Steps of the activations are 2^-10: what lies between the ranges of an approximation is met. */
static void activations(void)
{
    enum { N = 1 << 17 };
    float *x = filled(N, 0), *y = filled(N, 0);
    for (int i = 0; i < N; i++) x[i] = (float)(i - N / 2) * (2.0f / 1024) * ((i & 3) == 3 ? 0.1f : 1.0f);
    for (int act = NB_ACT_SILU; act <= NB_ACT_GELU; act++) {
        memcpy(y, x, sizeof *x * N);
        ops.activate(&ops, y, N, (nb_act)act);
        SAY(sum_floats(y, N), "activate %d in a range", act);
    }
    free(x), free(y);
}

static void rows(void)
{
    static const int sizes[] = { 1, 7, 8, 9, 37, 264, 1536 };
    for (size_t i = 0; i < NB_COUNT(sizes); i++)
        for (int strange = 0; strange < 2; strange++) rows_of(sizes[i], strange);
    activations();
}

/* ---- attention --------------------------------------------------------------------------- */

static void attend_pages(int heads, int kv_heads, int d, nb_dtype type, bool strange)
{
    enum { SPANS = 4, PAGES = 34 };
    static const size_t rows[SPANS] = { 40, 9, 1, 1 }, past[SPANS] = { 0, 60, 31, 1040 };
    size_t  half = (size_t)kv_heads * NB_KV_PAGE * (size_t)d * (type == NB_BF16 ? 2 : 4), width = (size_t)(heads * d), kv = (size_t)(kv_heads * d);
    nb_attn a = { .heads = heads, .kv_heads = kv_heads, .head_dim = d, .scale = 0.3f, .kv_type = type, .k_offset = 0, .v_offset = half };
    nb_span spans[SPANS];
    void   *pages[SPANS][PAGES];
    size_t  total = 0;
    uint64_t stored = empty;
    for (size_t s = 0; s < SPANS; s++) {
        size_t n = past[s] + rows[s];
        for (size_t p = 0; p < PAGES; p++) pages[s][p] = calloc(2, half);
        float  *k = random_floats(n * kv, false, s + 1), *v = inputs(n * kv, strange, s + 9);
        nb_span all = { .first = 0, .rows = n, .past = 0, .pages = pages[s] };
        ops.kv_store(&ops, &a, &all, 1, k, v, kv);
        for (size_t p = 0; p < PAGES; p++) stored = add_bytes(stored, pages[s][p], 2 * half);
        spans[s] = (nb_span){ .first = total, .rows = rows[s], .past = past[s], .pages = pages[s] };
        total += rows[s];
        free(k), free(v);
    }
    float *q = random_floats(total * width, true, 20), *out = filled(total * width, 0);
    ops.attend(&ops, &a, spans, SPANS, out, width, q, width);
    SAY(stored, "kv_store %d/%d %d %d %d", heads, kv_heads, d, type == NB_BF16, strange);
    SAY(sum_floats(out, total * width), "attend %d/%d %d %d %d", heads, kv_heads, d, type == NB_BF16, strange);
    for (size_t s = 0; s < SPANS; s++)
        for (size_t p = 0; p < PAGES; p++) free(pages[s][p]);
    free(q), free(out);
}

static void attention(void)
{
    static const int    shapes[][3] = { { 7, 1, 128 }, { 6, 3, 64 }, { 4, 4, 16 }, { 2, 1, 80 }, { 3, 1, 37 }, { 3, 1, 21 }, { 70, 1, 8 } };
    static const int    dims[] = { 1, 16, 33, 80, 128 };
    static const size_t bounds[] = { 0, 1, 1, 65, 98, 227 };
    for (size_t i = 0; i < NB_COUNT(shapes); i++)
        for (int type = 0; type < 4; type++)
            attend_pages(shapes[i][0], shapes[i][1], shapes[i][2], type & 1 ? NB_BF16 : NB_F32, type & 2);
    for (size_t i = 0; i < NB_COUNT(dims); i++)
        for (int strange = 0; strange < 2; strange++) {
            enum { HEADS = 2, ROWS = 227 };
            size_t width = HEADS * (size_t)dims[i];
            float *qkv = inputs(ROWS * 3 * width, strange, 30), *out = filled(ROWS * width, 0);
            ops.attend_full(&ops, out, width, qkv, 3 * width, bounds, 5, HEADS, dims[i], 0.11f);
            SAY(sum_floats(out, ROWS * width), "attend_full %d %d", dims[i], strange);
            free(qkv), free(out);
        }
}

/* ---- gram ---------------------------------------------------------------------------------- */

static void gram(void)
{
    static const size_t sizes[] = { 1, 3, 16, 17, 100, 205 }, bounds[] = { 0, 1, 300, 300, 813 };
    for (size_t i = 0; i < NB_COUNT(sizes); i++)
        for (int way = 0; way < 3; way++) { /* all ones; weights; weights and strange inputs */
            size_t       k = sizes[i];
            nb_gram_sums s = { calloc(k * k, 8), calloc(k, 8), calloc(2 * k, 8), calloc(k, 4), nb_calloc_aligned(nb_gram_work(k), 4) };
            float       *x = inputs(813 * k, way == 2, 40), *weight = random_floats(813, false, 41);
            for (size_t r = 0; r < 813; r++) weight[r] = r % 5 ? fabsf(weight[r]) : 0;
            ops.gram(&ops, &s, x, k, (int)k, bounds, 4, way ? weight : NULL);
            uint64_t sum = sum_floats(s.max_abs, k);
            for (size_t a = 0; a < k; a++) { /* what a column with a mark holds is anything */
                bool fine = isfinite(s.max_abs[a]);
                if (fine) sum = add_bytes(add_bytes(add_bytes(sum, &s.diagonal[a], 8), &s.sum_abs[a], 8), &s.sum_abs[k + a], 8);
                for (size_t b = a; b < k; b++)
                    if (fine && isfinite(s.max_abs[b])) {
                        sum = add_bytes(sum, &s.h[a * k + b], 8);
                        if (b > a) sum = add_bytes(sum, &s.h[nb_gram_low(k, a, b)], 8);
                    }
            }
            SAY(sum, "gram %zu %d", k, way);
            free(s.h), free(s.diagonal), free(s.sum_abs), free(s.max_abs), free(s.work), free(x), free(weight);
        }
}

int main(void)
{
    nb_error err;
    nb_pool *pool;
    nb_isa   isa;
    OK(nb_isa_from_environment(&isa, &err), &err);
    OK(nb_pool_new(&pool, 2, &err), &err);
    nb_ops_init(&ops, isa, pool);
    matmul();
    gemm();
    rows();
    attention();
    gram();
    nb_pool_free(pool);
    return 0;
}
