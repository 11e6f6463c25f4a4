/* test_kernels_cuda_emulated.c - what only the CUDA filling has: its packed layout, two kernels of matmul that must agree to
 * the bit, first errors, and the loader.  The kernels are the GPU's, compiled for the CPU (kernels/cuda/emulate.h).
 *
 * What is right: a double-precision loop over nb_weights_to_f32, written here. */
#include "levels_cuda.h"

#include "gram_result.h"

#include <float.h>

/* ---- weights ------------------------------------------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    nb_wkind    kind;
    nb_dtype    dtype;
    int         n, k, group;
    bool        zeros, act_order, f32_scales;
} shape;

/* Tails in n and k, more than one segment of 32 chunks of 32, groups that are no multiple of a chunk, longer than k, of one. */
static const shape shapes[] = {
    { "f32 one", NB_W_FLOAT, NB_F32, 1, 1, 0, false, false, false },
    { "f32 tails", NB_W_FLOAT, NB_F32, 130, 1070, 0, false, false, false },
    { "bf16 tails", NB_W_FLOAT, NB_BF16, 77, 2113, 0, false, false, false },
    { "f16 whole", NB_W_FLOAT, NB_F16, 64, 1024, 0, false, false, false },
    { "int4 g128", NB_W_INT4, NB_F32, 65, 1280, 128, true, false, false },
    { "int4 g128 symmetric, odd k", NB_W_INT4, NB_F32, 31, 1003, 128, false, false, true },
    { "int4 g32, f32 scales", NB_W_INT4, NB_F32, 100, 224, 32, true, false, true },
    { "int4 g20", NB_W_INT4, NB_F32, 20, 210, 20, true, false, false },
    { "int4 g1", NB_W_INT4, NB_F32, 9, 37, 1, true, false, false },
    { "int4 whole row", NB_W_INT4, NB_F32, 48, 1176, 1176, true, false, false },
    { "int4 group above k", NB_W_INT4, NB_F32, 48, 100, 128, true, false, false },
    { "int4 act-order ragged", NB_W_INT4, NB_F32, 50, 1333, 128, true, true, false },
    { "int4 act-order g20", NB_W_INT4, NB_F32, 50, 333, 20, false, true, true },
    { "int8 g64 ragged", NB_W_INT8, NB_F32, 71, 451, 64, true, false, false },
    { "int8 whole row symmetric", NB_W_INT8, NB_F32, 40, 1176, 1176, false, false, true },
    { "int8 act-order", NB_W_INT8, NB_F32, 35, 300, 64, true, true, false },
};

typedef struct {
    nb_weights w;
    void      *owned[5];
} random_weights;

static random_weights make_weights(const shape *s, int n, uint64_t seed)
{
    random_weights r = { .w = { .kind = s->kind, .dtype = s->dtype, .n = n, .k = s->k, .group = s->group } };
    size_t         count = (size_t)n * (size_t)s->k;
    if (s->kind == NB_W_FLOAT) {
        float *f = random_floats(count, false, seed);
        void  *data = malloc(4 * count);
        nb_from_f32(data, s->dtype, f, count);
        r.w.data = r.owned[0] = data;
        r.owned[1] = f;
        return r;
    }
    size_t   groups = ((size_t)s->k + (size_t)s->group - 1) / (size_t)s->group;
    unsigned top = s->kind == NB_W_INT4 ? 15 : 255;
    uint8_t *codes = malloc(count), *zeros = malloc((size_t)n * groups);
    float   *scales = filled((size_t)n * groups, 0);
    int32_t *g_idx = malloc((size_t)s->k * 4);
    for (size_t i = 0; i < count; i++) codes[i] = (uint8_t)(unit_random(&seed) % (top + 1));
    for (size_t i = 0; i < (size_t)n * groups; i++) {
        zeros[i] = (uint8_t)(i % 3 == 0 ? 0 : i % 3 == 1 ? top : unit_random(&seed) % (top + 1));
        scales[i] = (1.5f + unit_uniform(&seed)) / 20 / (float)top; /* never near zero: no lost chunk can hide */
        if (!s->f32_scales) scales[i] = nb_f16_to_f32(nb_f32_to_f16(scales[i]));
    }
    uint64_t order = 99; /* the same for every part of a stack */
    for (int i = 0; i < s->k; i++) g_idx[i] = i / s->group;
    for (int i = s->k - 1; i > 0; i--) {
        int     j = (int)(unit_random(&order) % (unsigned)(i + 1));
        int32_t t = g_idx[i];
        g_idx[i] = g_idx[j];
        g_idx[j] = t;
    }
    r.w.codes = r.owned[0] = codes;
    r.w.scales = r.owned[1] = scales;
    r.owned[2] = zeros;
    r.owned[3] = g_idx;
    if (s->zeros) r.w.zeros = zeros;
    if (s->act_order) r.w.g_idx = g_idx;
    return r;
}

static void free_weights(random_weights *r)
{
    for (size_t i = 0; i < NB_COUNT(r->owned); i++) free(r->owned[i]);
}

/* ---- matmul and embed ------------------------------------------------------------------------------------------------------ */

/* Error of a sum in chunks of 32 products, segments of 32 chunks, k / 1024 segments: each of the 2 * 32 + 32 + k / 1024 + 3
 * roundings (an emulated multiply-add may round twice) is 2^-24 of a partial sum, which is at most sum |w x|. */
static void against_definition(const nb_ops *ops)
{
    enum { ROWS = 67 };
    static const size_t counts[] = { 1, 3, 8, 9, ROWS };
    for (size_t i = 0; i < NB_COUNT(shapes); i++) {
        const shape   *s = &shapes[i];
        size_t         n = (size_t)s->n, k = (size_t)s->k, ldx = k + 3, ldy = n + 2;
        random_weights w = make_weights(s, s->n, i + 1);
        float         *dense = filled(n * k, 0), *x = random_floats(ROWS * ldx, true, 7);
        nb_matrix      m;
        nb_error       err;
        for (size_t r = 0; r < ROWS; r++)
            for (size_t j = k; j < ldx; j++) x[r * ldx + j] = NAN; /* reading beyond a row shows */
        nb_weights_to_f32(dense, &w.w);
        OK(ops->pack(ops, &m, &w.w, 1, &err), &err);
        assert_true(m.bytes > 0 && m.n == s->n && m.k == s->k);
        for (size_t c = 0; c < NB_COUNT(counts); c++) {
            size_t rows = counts[c];
            float *y = guarded(rows * ldy);
            ops->matmul(ops, y, ldy, x, ldx, rows, &m, NULL, false);
            for (size_t r = 0; r < rows; r++)
                for (size_t o = 0; o < n; o++) {
                    double want = 0, size = 0;
                    for (size_t j = 0; j < k; j++) {
                        want += (double)dense[o * k + j] * x[r * ldx + j];
                        size += fabs((double)dense[o * k + j] * x[r * ldx + j]);
                    }
                    if (!(fabs(y[r * ldy + o] - want) <= (99 + (double)k / 1024) * 0x1p-24 * size + FLT_MIN))
                        fail_msg("%s, %zu rows: y[%zu, %zu] = %.9g, expected %.9g", s->name, rows, r, o, y[r * ldy + o], want);
                }
            for (size_t r = 0; r < rows; r++) assert_true(isnan(y[r * ldy + n]) && isnan(y[r * ldy + n + 1]));
            assert_true(fences_stand(y, rows * ldy));
            free_guarded(y);
        }
        ops->release(ops, &m);
        assert_null(m.storage);
        free(dense), free(x), free_weights(&w);
    }
}

/* Rows through the kernel for few rows, one by one, and through that for many: the same bits; bias and add one rounding each. */
static void two_kernels_agree(const nb_ops *ops)
{
    enum { ROWS = 131 };
    static const size_t counts[] = { 2, 5, 8, 9, 64, 65, ROWS };
    for (size_t i = 0; i < NB_COUNT(shapes); i++) {
        const shape   *s = &shapes[i];
        size_t         n = (size_t)s->n, k = (size_t)s->k;
        random_weights w = make_weights(s, s->n, i + 1);
        float         *x = random_floats(ROWS * k, true, 8), *bias = random_floats(n, false, 9);
        float         *alone = filled(ROWS * n, NAN), *y = filled(ROWS * n, 0), *before = random_floats(ROWS * n, false, 10);
        nb_matrix      m;
        nb_error       err;
        OK(ops->pack(ops, &m, &w.w, 1, &err), &err);
        for (size_t r = 0; r < ROWS; r++) ops->matmul(ops, alone + r * n, n, x + r * k, k, 1, &m, NULL, false);
        for (size_t j = 0; j < ROWS * n; j++) alone[j] = (alone[j] + bias[j % n]) + before[j];
        for (size_t c = 0; c < NB_COUNT(counts); c++) {
            size_t rows = counts[c], first = ROWS - rows;
            memcpy(y, before, 4 * ROWS * n);
            ops->matmul(ops, y + first * n, n, x + first * k, k, rows, &m, bias, true);
            if (memcmp(y + first * n, alone + first * n, 4 * rows * n)) fail_msg("%s: %zu rows are not as alone", s->name, rows);
            assert_memory_equal(y, before, 4 * first * n);
        }
        ops->matmul(ops, NULL, n, NULL, k, 0, &m, NULL, false);
        ops->release(ops, &m);
        free(x), free(bias), free(alone), free(y), free(before), free_weights(&w);
    }
}

/* Parts that are stacked are what they are alone, and rows come back exactly as the definition has them. */
static void parts_and_rows(const nb_ops *ops)
{
    enum { PARTS = 3, N = 37 };
    static const int heights[PARTS] = { 20, 16, 1 };
    for (size_t i = 0; i < NB_COUNT(shapes); i++) {
        const shape   *s = &shapes[i];
        size_t         k = (size_t)s->k;
        random_weights w[PARTS];
        nb_weights     parts[PARTS];
        float         *dense = filled(N * k, 0), *at = dense, *rows = guarded((N + 1) * k), *x = random_floats(k, true, 3), y[N], z[N];
        nb_matrix      m, one;
        nb_error       err;
        for (int p = 0; p < PARTS; p++) {
            w[p] = make_weights(s, heights[p], i * 10 + (uint64_t)p);
            parts[p] = w[p].w;
            if (p == 1) parts[p].zeros = NULL; /* symmetric beside others */
            nb_weights_to_f32(at, &parts[p]);
            at += (size_t)heights[p] * k;
        }
        OK(ops->pack(ops, &m, parts, PARTS, &err), &err);
        int32_t ids[N + 1];
        for (int o = 0; o < N; o++) ids[o] = N - 1 - o;
        ids[N] = 3;
        ops->embed(ops, rows, ids, N + 1, &m);
        for (int o = 0; o <= N; o++)
            if (memcmp(rows + (size_t)o * k, dense + (size_t)ids[o] * k, 4 * k)) fail_msg("%s: row %d", s->name, (int)ids[o]);
        assert_true(fences_stand(rows, (N + 1) * k));
        ops->matmul(ops, y, N, x, k, 1, &m, NULL, false);
        for (int p = 0, first = 0; p < PARTS; first += heights[p++]) {
            OK(ops->pack(ops, &one, &parts[p], 1, &err), &err);
            ops->matmul(ops, z, N, x, k, 1, &one, NULL, false);
            assert_memory_equal(z, y + first, 4 * (size_t)heights[p]);
            ops->release(ops, &one);
        }
        ops->release(ops, &m);
        for (int p = 0; p < PARTS; p++) free_weights(&w[p]);
        free(dense), free(x), free_guarded(rows);
    }
}

/* A NaN or an infinity is not lost and harms no other row. */
static void not_numbers(const nb_ops *ops)
{
    for (size_t i = 0; i < NB_COUNT(shapes); i++) {
        const shape   *s = &shapes[i];
        size_t         n = (size_t)s->n, k = (size_t)s->k;
        random_weights w = make_weights(s, s->n, i + 1);
        float         *x = random_floats(11 * k, false, 8), *y = filled(11 * n, 0);
        nb_matrix      m;
        nb_error       err;
        OK(ops->pack(ops, &m, &w.w, 1, &err), &err);
        x[2 * k + k / 2] = NAN;
        x[10 * k + k - 1] = NAN;
        for (size_t rows = 5; rows <= 11; rows += 6) {
            ops->matmul(ops, y, n, x, k, rows, &m, NULL, false);
            for (size_t j = 0; j < rows * n; j++)
                if (isnan(y[j]) != (j / n == 2 || j / n == 10)) fail_msg("%s: row %zu", s->name, j / n);
        }
        ops->release(ops, &m);
        free(x), free(y), free_weights(&w);
    }
}

static void test_matmul(void **state)
{
    (void)state;
    each_level(against_definition);
    each_level(two_kernels_agree);
    each_level(parts_and_rows);
    each_level(not_numbers);
}

/* ---- every operation: the threads of a block in any order, and a step's tables ------------------------------------------------ */

/* All operations once over odd sizes; everything they wrote in one array. */
static float *run_all(const nb_ops *ops, size_t *count)
{
    enum { ROWS = 37, D = 24, HEADS = 6, KV = 2, WIDE = (HEADS + 2 * KV) * D, N = 61 };
    *count = 3 * ROWS * WIDE + 2 * ROWS * HEADS * D + ROWS * N + 2 * N * N + 5 * N;
    float *x = random_floats(ROWS * WIDE, true, 1), *w = random_floats(WIDE, false, 2), *b = random_floats(WIDE, false, 3);
    float *cosines = random_floats(ROWS * D / 2, false, 4), *sines = random_floats(ROWS * D / 2, false, 5);
    float *all = guarded(*count), *at = all;
    ops->rmsnorm(ops, at, x, w, ROWS, WIDE, 1e-6f), at += ROWS * WIDE;
    ops->layernorm(ops, at, x, w, b, ROWS, WIDE, 1e-6f), at += ROWS * WIDE;
    ops->rope(ops, at - ROWS * WIDE, WIDE, ROWS, HEADS + KV, D, cosines, sines);
    float *qkv = at - ROWS * WIDE;
    memcpy(at, x, 4 * ROWS * WIDE), ops->add(ops, at, qkv, ROWS * WIDE), ops->activate(ops, at, ROWS * WIDE, NB_ACT_GELU);
    at += ROWS * WIDE;
    nb_attn a = { .heads = HEADS, .kv_heads = KV, .head_dim = D, .scale = 0.2f, .kv_type = NB_BF16, .v_offset = KV * NB_KV_PAGE * D * 2 };
    void   *pages[3] = { ops->alloc(ops, 2 * a.v_offset), ops->alloc(ops, 2 * a.v_offset), ops->alloc(ops, 2 * a.v_offset) };
    nb_span spans[2] = { { .first = 0, .rows = 20, .past = 20, .pages = pages }, { .first = 20, .rows = 17, .past = 3, .pages = pages + 2 } };
    ops->kv_store(ops, &a, spans, 2, qkv + HEADS * D, qkv + (HEADS + KV) * D, WIDE);
    ops->attend(ops, &a, spans, 2, at, HEADS * D, qkv, WIDE), at += ROWS * HEADS * D;
    size_t bounds[3] = { 0, 13, ROWS };
    ops->attend_full(ops, at, HEADS * D, x, WIDE, bounds, 2, 3, D, 0.2f); /* leaves the other heads as they are */
    for (size_t r = 0; r < ROWS; r++) memset(at + r * HEADS * D + 3 * D, 0, 4 * 3 * D);
    at += ROWS * HEADS * D;
    random_weights weights = make_weights(&shapes[10], N, 5); /* int4, k = 100 */
    nb_matrix      m;
    nb_error       err;
    OK(ops->pack(ops, &m, &weights.w, 1, &err), &err);
    ops->matmul(ops, at, N, x, WIDE, ROWS, &m, b, false), at += ROWS * N;
    memset(at, 0, 4 * (2 * N * N + 5 * N));
    gram_result r = new_result(N);
    size_t samples[3] = { 0, 20, ROWS };
    for (size_t i = 0; i < ROWS; i++) w[i] = fabsf(w[i]);
    ops->gram(ops, &r.s, x, WIDE, N, samples, 2, w);
    memcpy(at, r.s.h, 8 * N * N), memcpy(at + 2 * N * N, r.s.sum_abs, 16 * N), memcpy(at + 2 * N * N + 4 * N, r.s.max_abs, 4 * N);
    OK(ops->status(ops, &err), &err);
    assert_true(fences_stand(all, *count));
    for (int p = 0; p < 3; p++) ops->free(ops, pages[p]);
    ops->release(ops, &m);
    free_result(&r), free(x), free(w), free(b), free(cosines), free(sines), free_weights(&weights);
    return all;
}

static void test_order(void **state)
{
    (void)state;
    float *result[2];
    size_t count = 0;
    for (int i = 0; i < 2; i++) {
        setenv("NIBBLE_EMULATE", i ? "reverse" : "", 1);
        nb_ops ops = emulated_ops(NULL);
        result[i] = run_all(&ops, &count);
        nb_cuda_ops_free(&ops);
    }
    assert_memory_equal(result[0], result[1], 4 * count);
    free_guarded(result[0]), free_guarded(result[1]);
}

/* Long sums are folded every 256 rows: 256 roundings of 2^-24 at most, where one chain of 40,000 would drift. */
static void test_gram_folds(void **state)
{
    (void)state;
    enum { ROWS = 40000 };
    nb_ops   ops = emulated_ops(NULL);
    nb_error err;
    float   *x = filled(ROWS, 0.1f);
    gram_result r = new_result(1);
    double   want = (double)0.1f * 0.1f * ROWS;
    ops.gram(&ops, &r.s, x, 1, 1, (const size_t[]){ 0, ROWS }, 1, NULL);
    OK(ops.status(&ops, &err), &err);
    NEAR(h_at(&r, 0, 0), want, 256 * 0x1p-24 * want);
    NEAR(abs_at(&r, 0), (double)0.1f * ROWS, 1e-9);
    free_result(&r);
    nb_cuda_ops_free(&ops);
    free(x);
}

/* Tables are sent only when they differ: the same addresses with other contents, and a shorter table after a longer one. */
static void tables(const nb_ops *ops)
{
    random_weights w = make_weights(&shapes[1], 130, 1);
    size_t         k = (size_t)shapes[1].k;
    nb_matrix      m;
    nb_error       err;
    OK(ops->pack(ops, &m, &w.w, 1, &err), &err);
    float  *y = filled(40 * k, 0), *dense = filled(130 * k, 0);
    int32_t ids[40];
    nb_weights_to_f32(dense, &w.w);
    for (int call = 0; call < 6; call++) {
        size_t rows = call % 3 == 2 ? 40 : 3;
        for (size_t i = 0; i < rows; i++) ids[i] = (int32_t)((i * 7 + (size_t)call / 2 * 11) % 130);
        ops->embed(ops, y, ids, rows, &m);
        for (size_t i = 0; i < rows; i++) assert_memory_equal(y + i * k, dense + (size_t)ids[i] * k, 4 * k);
    }
    ops->release(ops, &m);
    free(y), free(dense), free_weights(&w);
}

static void test_tables(void **state)
{
    (void)state;
    each_level(tables);
}

/* ---- memory and errors --------------------------------------------------------------------------------------------------------- */

static void test_memory(void **state)
{
    (void)state;
    setenv("NIBBLE_EMULATE", "", 1);
    nb_error err;
    nb_ops   ops = emulated_ops(NULL);
    char     in[100], out[100], *p = ops.alloc(&ops, sizeof in), *empty = ops.alloc(&ops, 0);
    assert_non_null(p);
    assert_non_null(empty);
    ops.download(&ops, out, p, sizeof out);
    for (size_t i = 0; i < sizeof out; i++) assert_int_equal(out[i], 0);
    for (size_t i = 0; i < sizeof in; i++) in[i] = (char)i;
    ops.upload(&ops, p, in, sizeof in);
    ops.download(&ops, out, p + 10, 90);
    assert_memory_equal(out, in + 10, 90);
    ops.upload(&ops, NULL, NULL, 0);
    ops.free(&ops, p), ops.free(&ops, empty), ops.free(&ops, NULL);
    assert_null(ops.alloc(&ops, SIZE_MAX / 2)); /* NULL is the whole report: */
    OK(ops.status(&ops, &err), &err);

    setenv("NIBBLE_EMULATE", "full", 1);
    random_weights w = make_weights(&shapes[4], 65, 1);
    nb_matrix      m;
    FAILS(ops.pack(&ops, &m, &w.w, 1, &err), NB_ERR_MEMORY, "matrix [65, 1280]", &err);
    assert_null(m.storage);
    OK(ops.status(&ops, &err), &err);
    float   y[8], x[8] = { 0 };
    size_t  bounds[2] = { 0, 1 };
    ops.attend_full(&ops, y, 2, x, 6, bounds, 1, 1, 2, 1);
    FAILS(ops.status(&ops, &err), NB_ERR_MEMORY, "smaller chunk", &err);
    setenv("NIBBLE_EMULATE", "", 1);
    nb_cuda_ops_free(&ops);
    free_weights(&w);
}

static void test_first_error(void **state)
{
    (void)state;
    nb_error err;
    float    x[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, y[8];
    setenv("NIBBLE_EMULATE", "", 1);
    nb_ops ops = emulated_ops(NULL);
    ops.rmsnorm(&ops, y, x, x, 2, 4, 1e-6f);
    OK(ops.status(&ops, &err), &err);
    setenv("NIBBLE_EMULATE", "bad-launch", 1); /* refused at once */
    ops.gate(&ops, y, x, 2, 2, NB_ACT_SILU);
    setenv("NIBBLE_EMULATE", "", 1);
    ops.add(&ops, y, x, 8);
    FAILS(ops.status(&ops, &err), NB_ERR_DEVICE, "invalid configuration argument in gate", &err);
    assert_non_null(strstr(err.text, "gate [2, 2, 1] (kernels/cuda/rows.cu)"));
    nb_matrix      m;
    random_weights w = make_weights(&shapes[0], 1, 1);
    FAILS(ops.pack(&ops, &m, &w.w, 1, &err), NB_ERR_DEVICE, "in gate", &err); /* the first stays the one that is reported */
    nb_cuda_ops_free(&ops);

    ops = emulated_ops(NULL);
    setenv("NIBBLE_EMULATE", "crash", 1); /* found out when somebody waits */
    ops.rmsnorm(&ops, y, x, x, 2, 4, 1e-6f);
    setenv("NIBBLE_EMULATE", "", 1);
    ops.add(&ops, y, x, 8);
    FAILS(ops.status(&ops, &err), NB_ERR_DEVICE, "unspecified launch failure in waiting", &err);
    assert_non_null(strstr(err.text, "the last operation asked for was add [8, 1, 1]"));
    nb_cuda_ops_free(&ops);

    ops = emulated_ops(NULL);
    setenv("NIBBLE_EMULATE", "crash", 1);
    assert_null(ops.alloc(&ops, 8)); /* not for want of memory, so it is kept */
    setenv("NIBBLE_EMULATE", "", 1);
    FAILS(ops.status(&ops, &err), NB_ERR_DEVICE, "unspecified launch failure in alloc", &err);
    nb_cuda_ops_free(&ops);

    ops = emulated_ops(NULL);
    nb_attn a = { .heads = 1, .kv_heads = 1, .head_dim = 257, .scale = 1, .kv_type = NB_F32 };
    ops.attend(&ops, &a, NULL, 0, y, 0, x, 0);
    FAILS(ops.status(&ops, &err), NB_ERR_UNSUPPORTED, "at most 256", &err);
    nb_cuda_ops_free(&ops);
    nb_cuda_ops_free(&ops);
    free_weights(&w);
}

static void test_devices(void **state)
{
    (void)state;
    nb_error err;
    nb_ops   ops;
    char     text[256], small[12];
    setenv("NIBBLE_EMULATE", "", 1);
    setenv("NIBBLE_CUDA_PLUGIN", NIBBLE_EMULATED, 1);
    assert_int_equal(nb_cuda_device_count(text, sizeof text), 1);
    assert_string_equal(text, "0: emulated device 0, 17.2 GB, compute capability 9.0");
    assert_int_equal(nb_cuda_device_count(small, sizeof small), 1);
    assert_string_equal(small, "0: emulated");
    FAILS(nb_cuda_ops_new(&ops, 1, NULL, &err), NB_ERR_ARGUMENT, "no GPU 1", &err);
    FAILS(nb_cuda_ops_new(&ops, -1, NULL, &err), NB_ERR_ARGUMENT, "no GPU -1", &err);
    static const char *const words[][2] = { { "no-driver", "driver" }, { "no-device", "no CUDA-capable device" }, { "old-device", "7.5" } };
    for (size_t i = 0; i < NB_COUNT(words); i++) {
        setenv("NIBBLE_EMULATE", words[i][0], 1);
        FAILS(nb_cuda_ops_new(&ops, 0, NULL, &err), NB_ERR_UNSUPPORTED, words[i][1], &err);
        assert_null(ops.state);
        assert_int_equal(nb_cuda_device_count(text, sizeof text), i < 2 ? 0 : 1);
        assert_true(text[0] != 0);
    }
    setenv("NIBBLE_EMULATE", "", 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_devices), cmocka_unit_test(test_memory),      cmocka_unit_test(test_first_error),
        cmocka_unit_test(test_tables),  cmocka_unit_test(test_order),       cmocka_unit_test(test_matmul),
        cmocka_unit_test(test_gram_folds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
