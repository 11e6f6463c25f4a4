/* test_kernels_matmul.c - pack, release, matmul and embed of every level this machine has.
 *
 * What is right: a double-precision loop over nb_weights_to_f32, written here, with an error bound for each output that is
 * derived and not observed.  What must be equal: rows alone and among others, any number of threads, and the vector levels,
 * to the last bit (amx with bf16 weights excepted, which has an order of its own: kernels/cpu/matmul_amx.c).  Outputs are poisoned first, so that a kernel that writes nothing fails.
 */
#include <float.h>

#include "unit.h"

#include "kernels/ops.h"

/* ---- random matrices ------------------------------------------------------- */

typedef enum { SCALES_F16, SCALES_F32 } scale_kind;

typedef struct {
    const char *name;
    nb_wkind    kind;
    nb_dtype    dtype;
    int         n, k, group;
    bool        zeros, act_order;
    scale_kind  scales;
} shape;

/* Every kind, tails in n and k, groups below, equal to and above a block of 128, a ragged last group, odd group sizes. */
static const shape shapes[] = {
    { "bf16", NB_W_FLOAT, NB_BF16, 80, 256, 0, false, false, 0 },
    { "bf16 tails", NB_W_FLOAT, NB_BF16, 77, 1177, 0, false, false, 0 },
    { "f16 tails", NB_W_FLOAT, NB_F16, 33, 129, 0, false, false, 0 },
    { "f32 tails", NB_W_FLOAT, NB_F32, 130, 300, 0, false, false, 0 },
    { "f32 one", NB_W_FLOAT, NB_F32, 1, 1, 0, false, false, 0 },
    { "int4 g128", NB_W_INT4, NB_F32, 64, 512, 128, true, false, SCALES_F16 },
    { "int4 g128 symmetric", NB_W_INT4, NB_F32, 64, 512, 128, false, false, SCALES_F16 },
    { "int4 g32, f32 scales", NB_W_INT4, NB_F32, 100, 224, 32, true, false, SCALES_F32 },
    { "int4 g64 ragged", NB_W_INT4, NB_F32, 17, 1176, 64, true, false, SCALES_F16 },
    { "int4 g128, odd k", NB_W_INT4, NB_F32, 31, 1003, 128, false, false, SCALES_F32 },
    { "int4 whole row", NB_W_INT4, NB_F32, 48, 1176, 1176, true, false, SCALES_F16 },
    { "int4 group above k", NB_W_INT4, NB_F32, 48, 100, 128, true, false, SCALES_F16 },
    { "int4 g20", NB_W_INT4, NB_F32, 20, 210, 20, true, false, SCALES_F16 },
    { "int4 act-order", NB_W_INT4, NB_F32, 50, 640, 128, true, true, SCALES_F16 },
    { "int4 act-order ragged", NB_W_INT4, NB_F32, 50, 333, 32, false, true, SCALES_F32 },
    { "int8 g128", NB_W_INT8, NB_F32, 96, 512, 128, true, false, SCALES_F16 },
    { "int8 whole row", NB_W_INT8, NB_F32, 40, 1176, 1176, false, false, SCALES_F32 },
    { "int8 g64 ragged", NB_W_INT8, NB_F32, 23, 451, 64, true, false, SCALES_F16 },
    { "int8 act-order", NB_W_INT8, NB_F32, 35, 300, 64, true, true, SCALES_F16 },
};

static void *allocate(size_t bytes)
{
    void *p = malloc(bytes ? bytes : 1);
    assert_non_null(p);
    return p;
}

/* Weights in [-1/20, 1/20] of every kind; scales are never near zero, so that no lost block can hide. */
static nb_weights make_weights(const shape *s, int n, const int32_t *g_idx, uint64_t *seed)
{
    size_t     k = (size_t)s->k, count = (size_t)n * k;
    nb_weights w = { .kind = s->kind, .dtype = s->dtype, .n = n, .k = s->k, .group = s->group, .g_idx = g_idx };
    if (s->kind == NB_W_FLOAT) {
        float *values = allocate(count * sizeof *values);
        void  *data = allocate(count * nb_dtype_size(s->dtype));
        for (size_t i = 0; i < count; i++) values[i] = unit_uniform(seed) / 20;
        nb_from_f32(data, s->dtype, values, count);
        free(values);
        w.data = data;
        return w;
    }
    size_t   groups = ((size_t)s->k + (size_t)s->group - 1) / (size_t)s->group;
    unsigned top = s->kind == NB_W_INT4 ? 15 : 255;
    uint8_t *codes = allocate(count), *zeros = allocate((size_t)n * groups);
    float   *scales = allocate((size_t)n * groups * sizeof *scales);
    for (size_t i = 0; i < count; i++) codes[i] = (uint8_t)(unit_random(seed) % (top + 1));
    for (size_t i = 0; i < (size_t)n * groups; i++) {
        unsigned kind = unit_random(seed) % 4; /* the ends of the range as often as its middle */
        zeros[i] = (uint8_t)(kind == 0 ? 0 : kind == 1 ? top : unit_random(seed) % (top + 1));
        scales[i] = (1.5f + unit_uniform(seed)) / 20 / (float)top;
        if (s->scales == SCALES_F16) scales[i] = nb_f16_to_f32(nb_f32_to_f16(scales[i]));
    }
    w.codes = codes;
    w.scales = scales;
    if (s->zeros)
        w.zeros = zeros;
    else
        free(zeros);
    return w;
}

static void free_weights(nb_weights *w)
{
    free((void *)(uintptr_t)w->data);
    free((void *)(uintptr_t)w->codes);
    free((void *)(uintptr_t)w->scales);
    free((void *)(uintptr_t)w->zeros);
}

/* A random assignment of columns to groups of the right sizes, as act-order checkpoints have it; NULL without. */
static int32_t *make_g_idx(const shape *s, uint64_t *seed)
{
    if (!s->act_order) return NULL;
    int32_t *g = allocate((size_t)s->k * sizeof *g);
    for (int i = 0; i < s->k; i++) g[i] = i / s->group;
    for (int i = s->k - 1; i > 0; i--) {
        int     j = (int)(unit_random(seed) % (unsigned)(i + 1));
        int32_t t = g[i];
        g[i] = g[j];
        g[j] = t;
    }
    return g;
}

/* Normal activations; with outliers, one in 64 is 100 times as large. */
static float *make_rows(size_t rows, size_t ld, bool outliers, uint64_t *seed)
{
    float *x = allocate(rows * ld * sizeof *x);
    for (size_t i = 0; i < rows * ld; i++) {
        x[i] = unit_normal(seed);
        if (outliers && unit_random(seed) % 64 == 0) x[i] *= 100;
    }
    return x;
}

/* ---- what is right ----------------------------------------------------------- */

/* amx multiplies bf16 weights by activations in two pieces, in tiles. */
static bool by_bf16_tiles(nb_isa isa, const nb_weights *w)
{
#if defined(__aarch64__)
    (void)isa, (void)w;
    return false;
#else
    return isa == NB_ISA_AMX && w->kind == NB_W_FLOAT && w->dtype == NB_BF16;
#endif
}

/* y = x W' in double, and how far a kernel may be off, [n] each.
 *
 *   floats   FMAs over a block of 128 and then over blocks: each of the at most 128 + blocks roundings is 2^-24 of a
 *            partial sum, which is at most sum |w x|.
 *   ints     activations are rounded by half a step of (largest |x| of a block) / 32639, the largest of the group being at
 *            least that of each of its blocks: at most half a step times sum |w| for each group.  Then as above, with
 *            blocks that are exact before one product, one conversion and one sum each: 3 roundings more.
 *   tiles      as derived in matmul_amx.c. */
static void multiply_exactly(double *y, double *bound, const float *w, const float *x, const nb_weights *like, int n, nb_isa isa)
{
    int  k = like->k, groups = like->kind == NB_W_FLOAT ? 1 : (k + like->group - 1) / like->group;
    bool ints = like->kind != NB_W_FLOAT;
    for (int o = 0; o < n; o++) {
        double sum = 0, magnitude = 0, rounding = 0, sizes = 0;
        for (int i = 0; i < k; i++) {
            sum += (double)w[(size_t)o * (size_t)k + (size_t)i] * x[i];
            magnitude += fabs((double)w[(size_t)o * (size_t)k + (size_t)i] * x[i]);
            sizes += fabs((double)w[(size_t)o * (size_t)k + (size_t)i]) + fabs((double)x[i]);
        }
        for (int g = 0; ints && g < groups; g++) {
            double largest = 0, weights = 0;
            for (int i = 0; i < k; i++) {
                if ((like->g_idx ? like->g_idx[i] : i / like->group) != g) continue;
                largest = fmax(largest, fabs((double)x[i]));
                weights += fabs((double)w[(size_t)o * (size_t)k + (size_t)i]);
            }
            rounding += 0.5 * largest / 32639 * weights;
        }
        y[o] = sum;
        bound[o] = 1.001 * rounding + (128.0 + k / 20.0 + 8) * 0x1p-24 * magnitude + FLT_MIN;
        if (by_bf16_tiles(isa, like))
            bound[o] = (0x1p-17 + 1.01 * (64 + ceil(k / 512.0)) * 0x1p-24) * magnitude + FLT_MIN * (sizes + 3.0 * k + 6);
    }
}

/* True when every output is within its bound: written so that a NaN is not. */
static bool agrees(const float *got, const double *want, const double *bound, int n)
{
    for (int o = 0; o < n; o++)
        if (!(fabs(got[o] - want[o]) <= bound[o])) return false;
    return true;
}

/* ---- levels ------------------------------------------------------------------ */

static nb_pool *pools[3]; /* of 1, 2 and 4 threads */

static int make_pools(void **state)
{
    (void)state;
    nb_error err;
    for (int i = 0; i < 3; i++) OK(nb_pool_new(&pools[i], 1 << i, &err), &err);
    return 0;
}

static int free_pools(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) nb_pool_free(pools[i]);
    return 0;
}

/* test_kernels_amx.c has a level and tests of its own. */
#ifndef LAST_LEVEL
#define LAST_LEVEL nb_isa_detect(NB_ISA_LEVELS - 1)
#define init_level nb_ops_init
#define MORE_TESTS
#endif

#define FOR_EACH_LEVEL(ops, pool)                                                                \
    for (nb_isa isa = NB_ISA_REF; isa <= LAST_LEVEL; isa++)                                      \
        for (nb_ops ops, *once = (init_level(&ops, isa, pool), &ops); once; once = NULL)

/* x W' with the output poisoned first, [rows, n]. */
static float *multiply(const nb_ops *ops, const nb_matrix *m, const float *x, size_t rows)
{
    float *y = allocate(rows * (size_t)m->n * sizeof *y);
    for (size_t i = 0; i < rows * (size_t)m->n; i++) y[i] = NAN;
    ops->matmul(ops, y, (size_t)m->n, x, (size_t)m->k, rows, m, NULL, false);
    return y;
}

/* ---- tests ------------------------------------------------------------------- */

static void every_shape_is_within_its_bound(void **state)
{
    (void)state;
    uint64_t seed = 1;
    enum { ROWS = 29 }; /* every height of tile at both levels */
    for (size_t i = 0; i < NB_COUNT(shapes); i++)
        for (int outliers = 0; outliers < 2; outliers++) {
            const shape *s = &shapes[i];
            size_t       n = (size_t)s->n, k = (size_t)s->k;
            int32_t     *g_idx = make_g_idx(s, &seed);
            nb_weights   w = make_weights(s, s->n, g_idx, &seed);
            float       *dense = allocate(n * k * sizeof *dense), *x = make_rows(ROWS, k, outliers, &seed);
            double      *want = allocate(ROWS * n * sizeof *want), *bound = allocate(ROWS * n * sizeof *bound);
            nb_weights_to_f32(dense, &w);
            FOR_EACH_LEVEL(ops, pools[1])
            {
                nb_error  err;
                nb_matrix m;
                for (size_t r = 0; r < ROWS; r++) multiply_exactly(want + r * n, bound + r * n, dense, x + r * k, &w, s->n, isa);
                OK(ops.pack(&ops, &m, &w, 1, &err), &err);
                assert_int_equal(m.n, s->n);
                assert_int_equal(m.k, s->k);
                assert_true(m.bytes > 0);
                for (size_t rows = 1; rows <= ROWS; rows += 14) {
                    float *y = multiply(&ops, &m, x, rows);
                    for (size_t r = 0; r < rows; r++)
                        if (!agrees(y + r * n, want + r * n, bound + r * n, s->n))
                            fail_msg("%s, %s, outliers %d: row %zu of %zu", ops.name, s->name, outliers, r, rows);
                    free(y);
                }
                ops.release(&ops, &m);
            }
            free(dense), free(x), free(want), free(bound), free(g_idx);
            free_weights(&w);
        }
}

/* The bound above is a worst case.  Rounding errors are independent of the weights, so that the expected error of a dot
 * product, relative to |w| |x|, is that of x: at most 1.0e-4 however large an outlier is, 2e-5 for normal activations
 * (matmul_body.h).  Over 256 outputs the RMS is within a tenth of that. */
static void the_error_of_a_product_is_small(void **state)
{
    (void)state;
    enum { N = 256, K = 3584 };
    static const shape wide[] = { { "int4", NB_W_INT4, NB_F32, N, K, 128, true, false, SCALES_F16 },
                                  { "int8", NB_W_INT8, NB_F32, N, K, K, false, false, SCALES_F16 } };
    uint64_t seed = 2;
    for (size_t i = 0; i < NB_COUNT(wide); i++)
        for (int outliers = 0; outliers < 2; outliers++) {
            nb_weights w = make_weights(&wide[i], N, NULL, &seed);
            float     *x = make_rows(1, K, outliers, &seed), *dense = allocate(N * K * sizeof *dense);
            double    *want = allocate(N * sizeof *want), *bound = allocate(N * sizeof *bound), x2 = 0;
            nb_weights_to_f32(dense, &w);
            multiply_exactly(want, bound, dense, x, &w, N, NB_ISA_REF);
            for (int j = 0; j < K; j++) x2 += (double)x[j] * x[j];
            FOR_EACH_LEVEL(ops, pools[1])
            {
                nb_error  err;
                nb_matrix m;
                OK(ops.pack(&ops, &m, &w, 1, &err), &err);
                float *y = multiply(&ops, &m, x, 1);
                double sum = 0;
                for (int o = 0; o < N; o++) {
                    double w2 = 0;
                    for (int j = 0; j < K; j++) w2 += (double)dense[o * K + j] * dense[o * K + j];
                    sum += (y[o] - want[o]) * (y[o] - want[o]) / (w2 * x2);
                }
                NEAR(sqrt(sum / N), 0, isa == NB_ISA_REF ? 1e-7 : outliers ? 1.1e-4 : 2.2e-5);
                free(y);
                ops.release(&ops, &m);
            }
            free(want), free(bound), free(dense), free(x);
            free_weights(&w);
        }
}

/* Row r of a call is bit for bit the row alone, from any number of threads, and the vector levels agree. */
static void rows_do_not_depend_on_their_company(void **state)
{
    (void)state;
    uint64_t seed = 3;
    enum { ROWS = 211 }; /* three chunks, the last with every height of tile */
    for (size_t i = 0; i < NB_COUNT(shapes); i++) {
        const shape *s = &shapes[i];
        size_t       n = (size_t)s->n, k = (size_t)s->k;
        int32_t     *g_idx = make_g_idx(s, &seed);
        nb_weights   w = make_weights(s, s->n, g_idx, &seed);
        float       *x = make_rows(ROWS, k, true, &seed), *lower = NULL;
        FOR_EACH_LEVEL(ops, pools[0])
        {
            nb_error  err;
            nb_matrix m;
            OK(ops.pack(&ops, &m, &w, 1, &err), &err);
            float *alone = allocate(ROWS * n * sizeof *alone);
            for (size_t r = 0; r < ROWS; r++) {
                float *y = multiply(&ops, &m, x + r * k, 1);
                memcpy(alone + r * n, y, n * sizeof *y);
                free(y);
            }
            static const size_t counts[] = { 2, 3, 7, 8, 12, 13, 23, 96, 97, ROWS };
            for (size_t c = 0; c < NB_COUNT(counts); c++)
                for (int p = 0; p < 3; p++) {
                    nb_ops other = ops;
                    other.pool = pools[p];
                    size_t first = c % 2; /* not always the same row in the same place */
                    size_t rows = counts[c] - (counts[c] == ROWS ? first : 0);
                    float *y = multiply(&other, &m, x + first * k, rows);
                    if (memcmp(y, alone + first * n, rows * n * sizeof *y))
                        fail_msg("%s, %s: %zu rows on %d threads", ops.name, s->name, rows, nb_pool_threads(pools[p]));
                    free(y);
                }
            if (lower && !by_bf16_tiles(isa, &w) && memcmp(alone, lower, ROWS * n * sizeof *alone))
                fail_msg("%s differs from the level below: %s", ops.name, s->name);
            free(lower);
            lower = isa == NB_ISA_REF ? (free(alone), NULL) : alone;
            ops.release(&ops, &m);
        }
        free(lower), free(x), free(g_idx);
        free_weights(&w);
    }
}

/* More prepared activations than one pass holds. */
static void long_calls_go_in_passes(void **state)
{
    (void)state;
    static const shape long_rows[] = { { "int4", NB_W_INT4, NB_F32, 5, 18944, 128, true, false, SCALES_F16 },
                                       { "bf16", NB_W_FLOAT, NB_BF16, 5, 18944, 0, false, false, 0 } };
    uint64_t seed = 4;
    enum { ROWS = 130 };
    for (size_t i = 0; i < NB_COUNT(long_rows); i++) {
        nb_weights w = make_weights(&long_rows[i], 5, NULL, &seed);
        float     *x = make_rows(ROWS, 18944, false, &seed);
        FOR_EACH_LEVEL(ops, pools[1])
        {
            nb_error  err;
            nb_matrix m;
            OK(ops.pack(&ops, &m, &w, 1, &err), &err);
            float *y = multiply(&ops, &m, x, ROWS);
            for (size_t r = 0; r < ROWS; r += 43) {
                float *one = multiply(&ops, &m, x + r * 18944, 1);
                assert_memory_equal(one, y + r * 5, 5 * sizeof *y);
                free(one);
            }
            free(y);
            ops.release(&ops, &m);
        }
        free(x);
        free_weights(&w);
    }
}

/* Stacked parts of 20, 16 and 1 outputs give what they give alone, and embed gives each row as the definition has it. */
static void parts_stack_and_rows_come_back(void **state)
{
    (void)state;
    enum { PARTS = 3, N = 37 };
    static const int heights[PARTS] = { 20, 16, 1 };
    uint64_t         seed = 5;
    for (size_t i = 0; i < NB_COUNT(shapes); i++) {
        const shape *s = &shapes[i];
        size_t       k = (size_t)s->k;
        int32_t     *g_idx = make_g_idx(s, &seed);
        nb_weights   w[PARTS];
        float       *dense = allocate(N * k * sizeof *dense), *x = make_rows(2, k, false, &seed), *at = dense;
        for (int p = 0; p < PARTS; p++) {
            w[p] = make_weights(s, heights[p], g_idx, &seed);
            nb_weights_to_f32(at, &w[p]);
            at += (size_t)heights[p] * k;
        }
        FOR_EACH_LEVEL(ops, pools[1])
        {
            nb_error  err;
            nb_matrix whole, part;
            OK(ops.pack(&ops, &whole, w, PARTS, &err), &err);
            assert_int_equal(whole.n, N);
            float *y = multiply(&ops, &whole, x, 2);
            for (int p = 0, first = 0; p < PARTS; first += heights[p++]) {
                OK(ops.pack(&ops, &part, &w[p], 1, &err), &err);
                float *alone = multiply(&ops, &part, x, 2);
                for (int r = 0; r < 2; r++)
                    assert_memory_equal(y + r * N + first, alone + r * heights[p], (size_t)heights[p] * sizeof *y);
                free(alone);
                ops.release(&ops, &part);
            }
            int32_t ids[N + 1];
            float  *rows = allocate((N + 1) * k * sizeof *rows);
            for (int o = 0; o < N; o++) ids[o] = N - 1 - o;
            ids[N] = 3;
            ops.embed(&ops, rows, ids, N + 1, &whole);
            for (int o = 0; o <= N; o++)
                if (memcmp(rows + (size_t)o * k, dense + (size_t)ids[o] * k, k * sizeof *rows))
                    fail_msg("%s, %s: row %d", ops.name, s->name, (int)ids[o]);
            free(rows), free(y);
            ops.release(&ops, &whole);
        }
        for (int p = 0; p < PARTS; p++) free_weights(&w[p]);
        free(dense), free(x), free(g_idx);
    }
}

/* bias and add come after the sum, each one rounding; nothing outside the n columns of a row is touched. */
static void bias_and_residual_and_strides(void **state)
{
    (void)state;
    enum { ROWS = 14, GAP = 3 };
    uint64_t seed = 6;
    for (size_t i = 0; i < NB_COUNT(shapes); i++) {
        const shape *s = &shapes[i];
        size_t       n = (size_t)s->n, k = (size_t)s->k, ldx = k + GAP, ldy = n + GAP;
        int32_t     *g_idx = make_g_idx(s, &seed);
        nb_weights   w = make_weights(s, s->n, g_idx, &seed);
        float       *x = make_rows(ROWS, ldx, false, &seed), *bias = make_rows(1, n, false, &seed);
        float       *before = make_rows(ROWS, ldy, false, &seed), *y = allocate(ROWS * ldy * sizeof *y);
        float       *plain = allocate(ROWS * ldy * sizeof *plain);
        for (size_t r = 0; r < ROWS; r++)
            for (size_t j = k; j < ldx; j++) x[r * ldx + j] = NAN; /* reading beyond a row shows */
        FOR_EACH_LEVEL(ops, pools[1])
        {
            nb_error  err;
            nb_matrix m;
            OK(ops.pack(&ops, &m, &w, 1, &err), &err);
            for (size_t j = 0; j < ROWS * ldy; j++) plain[j] = NAN;
            ops.matmul(&ops, plain, ldy, x, ldx, ROWS, &m, NULL, false);
            for (int mode = 0; mode < 4; mode++) {
                memcpy(y, before, ROWS * ldy * sizeof *y);
                ops.matmul(&ops, y, ldy, x, ldx, ROWS, &m, mode & 1 ? bias : NULL, mode & 2);
                for (size_t r = 0; r < ROWS; r++)
                    for (size_t o = 0; o < ldy; o++) {
                        size_t at = r * ldy + o;
                        if (o >= n) {
                            assert_memory_equal(&y[at], &before[at], sizeof *y);
                            continue;
                        }
                        float want = plain[at];
                        if (mode & 1) want += bias[o];
                        if (mode & 2) want += before[at];
                        /* ref rounds the double sum once; the others are exact here */
                        float size = fabsf(plain[at]) + fabsf(bias[o]) + fabsf(before[at]);
                        NEAR(y[at], want, isa == NB_ISA_REF ? 4e-7 * size : 0);
                    }
            }
            ops.matmul(&ops, NULL, ldy, NULL, ldx, 0, &m, NULL, false); /* no rows: nothing happens */
            ops.release(&ops, &m);
        }
        free(x), free(y), free(bias), free(before), free(plain), free(g_idx);
        free_weights(&w);
    }
}

/* A row that holds a NaN or an infinity does not come out as plausible numbers, and harms no other row.  Rows of zeros and
 * of numbers too small for a scale come out as (nearly) zero; the largest numbers do not overflow on the way. */
static void unusual_activations(void **state)
{
    (void)state;
    static const shape kinds[] = { { "int4", NB_W_INT4, NB_F32, 33, 300, 128, true, false, SCALES_F16 },
                                   { "int8", NB_W_INT8, NB_F32, 33, 300, 128, true, false, SCALES_F16 },
                                   { "bf16", NB_W_FLOAT, NB_BF16, 33, 300, 0, false, false, 0 } };
    enum { ROWS = 7, N = 33, K = 300 };
    uint64_t seed = 7;
    for (size_t i = 0; i < NB_COUNT(kinds); i++) {
        nb_weights w = make_weights(&kinds[i], N, NULL, &seed);
        float     *x = make_rows(ROWS, K, false, &seed), *dense = allocate(N * K * sizeof *dense);
        nb_weights_to_f32(dense, &w);
        x[0 * K + 140] = NAN;
        x[2 * K + 299] = INFINITY;
        for (int j = 0; j < K; j++) {
            x[3 * K + j] = 0;
            x[4 * K + j] *= 1e-38f;
            x[5 * K + j] *= 1e33f;
        }
        FOR_EACH_LEVEL(ops, pools[1])
        {
            nb_error  err;
            nb_matrix m;
            OK(ops.pack(&ops, &m, &w, 1, &err), &err);
            float *y = multiply(&ops, &m, x, ROWS);
            for (int o = 0; o < N; o++) {
                assert_false(isfinite(y[0 * N + o]));
                assert_false(isfinite(y[2 * N + o]));
                if (isa != NB_ISA_REF && kinds[i].kind != NB_W_FLOAT) assert_true(isnan(y[2 * N + o]));
                NEAR(y[3 * N + o], 0, 0);
                NEAR(y[4 * N + o], 0, 1e-30);
            }
            for (int r = 1; r < ROWS; r += r == 1 ? 4 : 1) { /* 1, 5, 6 */
                double want[N], bound[N];
                multiply_exactly(want, bound, dense, x + r * K, &w, N, isa);
                assert_true(agrees(y + r * N, want, bound, N));
            }
            free(y);
            ops.release(&ops, &m);
        }
        free(x), free(dense);
        free_weights(&w);
    }
}

/* Integer sums at the end of their range: all codes at the top with the zero point at the bottom, and the reverse, times
 * the largest fixed-point activation in every place. */
static void integer_sums_do_not_overflow(void **state)
{
    (void)state;
    enum { N = 16, K = 256 };
    for (int kind = NB_W_INT4; kind <= NB_W_INT8; kind++)
        for (int reverse = 0; reverse < 2; reverse++) {
            int     top = kind == NB_W_INT4 ? 15 : 255;
            uint8_t codes[N * K], zeros[N * 2];
            float   scales[N * 2], x[K];
            memset(codes, reverse ? 0 : top, sizeof codes);
            memset(zeros, reverse ? top : 0, sizeof zeros);
            for (int i = 0; i < N * 2; i++) scales[i] = 0.5f;
            for (int i = 0; i < K; i++) x[i] = -2;
            nb_weights w = { .kind = (nb_wkind)kind, .n = N, .k = K, .group = 128, .codes = codes, .scales = scales,
                             .zeros = zeros };
            FOR_EACH_LEVEL(ops, pools[0])
            {
                nb_error  err;
                nb_matrix m;
                OK(ops.pack(&ops, &m, &w, 1, &err), &err);
                float *y = multiply(&ops, &m, x, 1);
                for (int o = 0; o < N; o++) NEAR(y[o], (reverse ? 1 : -1) * K * top, K * top * 4e-7);
                free(y);
                ops.release(&ops, &m);
            }
        }
}

/* Kernels that are broken in the usual ways must not pass the check that the others pass: without this, a bound that is too
 * wide would go unnoticed. */
static void broken_kernels_are_noticed(void **state)
{
    (void)state;
    enum { N = 8, K = 512 };
    uint64_t seed = 8;
    for (int kind = NB_W_FLOAT; kind <= NB_W_INT8; kind++) {
        shape      s = { "", (nb_wkind)kind, NB_BF16, N, K, 128, true, false, SCALES_F16 };
        nb_weights w = make_weights(&s, N, NULL, &seed);
        float     *x = make_rows(1, K, false, &seed), *dense = allocate(N * K * sizeof *dense), good[N];
        double     want[N], bound[N];
        nb_weights_to_f32(dense, &w);
        multiply_exactly(want, bound, dense, x, &w, N, NB_ISA_LEVELS - 1);
        for (int o = 0; o < N; o++) good[o] = (float)want[o];
        assert_true(agrees(good, want, bound, N));

        for (int fault = 0; fault < 6; fault++) {
            float y[N];
            for (int o = 0; o < N; o++) {
                double         sum = 0;
                const float   *row = dense + o * K;
                for (int i = 0; i < K; i++) {
                    int j = fault == 0 && i / 128 == 3 ? -1 : fault == 1 ? i ^ 1 : fault == 2 ? i ^ 4 : i; /* -1: dropped */
                    if (j >= 0) sum += (double)row[j] * x[i];
                }
                if (fault == 3) sum -= (double)row[K - 1] * x[K - 1]; /* the last input of the tail */
                if (fault == 4) sum *= 1.002;                          /* a scale rounded to 8 bits */
                y[o] = fault == 5 && o == N - 1 ? NAN : (float)sum;
            }
            if (agrees(y, want, bound, N)) fail_msg("kind %d, fault %d went unnoticed", kind, fault);
        }
        free(x), free(dense);
        free_weights(&w);
    }
}

static void pack_refuses_what_it_cannot_hold(void **state)
{
    (void)state;
    FOR_EACH_LEVEL(ops, pools[1])
    {
        nb_error  err;
        nb_matrix m = { 0 };
        ops.release(&ops, &m); /* a zeroed matrix is fine */

        float      data[4] = { 1, 2, 3, 4 };
        nb_weights w = { .kind = NB_W_FLOAT, .dtype = NB_F32, .n = 2, .k = 2, .data = data };
        FAILS(ops.pack(&ops, &m, &w, 0, &err), NB_ERR_ARGUMENT, "part", &err);
        assert_null(m.storage);
        nb_weights two[2] = { w, w };
        two[1].k = 1;
        FAILS(ops.pack(&ops, &m, two, 2, &err), NB_ERR_ARGUMENT, "part 1", &err);

        uint8_t codes[4] = { 0 };
        float   scales[4] = { 1, 1, 1, 1 };
        int32_t g_idx[2] = { 0, 2 };
        w = (nb_weights){ .kind = NB_W_INT4, .n = 2, .k = 2, .group = 1, .codes = codes, .scales = scales, .g_idx = g_idx };
        FAILS(ops.pack(&ops, &m, &w, 1, &err), NB_ERR_INPUT, "g_idx[1] = 2", &err);
        assert_null(m.storage);
        assert_null(m.perm);

        if (isa == NB_ISA_REF) continue;
        int   k = 1 << 20; /* prepared activations of one row would not fit the stack */
        void *wide = calloc((size_t)k, 2);
        assert_non_null(wide);
        w = (nb_weights){ .kind = NB_W_FLOAT, .dtype = NB_BF16, .n = 1, .k = k, .data = wide };
        FAILS(ops.pack(&ops, &m, &w, 1, &err), NB_ERR_UNSUPPORTED, "1048576 inputs", &err);
        assert_null(m.storage);
        free(wide);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shape_is_within_its_bound),
        cmocka_unit_test(the_error_of_a_product_is_small),
        cmocka_unit_test(rows_do_not_depend_on_their_company),
        cmocka_unit_test(long_calls_go_in_passes),
        cmocka_unit_test(parts_stack_and_rows_come_back),
        cmocka_unit_test(bias_and_residual_and_strides),
        cmocka_unit_test(unusual_activations),
        cmocka_unit_test(integer_sums_do_not_overflow),
        cmocka_unit_test(broken_kernels_are_noticed),
        cmocka_unit_test(pack_refuses_what_it_cannot_hold),
        MORE_TESTS
    };
    return cmocka_run_group_tests(tests, make_pools, free_pools);
}
