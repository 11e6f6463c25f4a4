/* test_kernels_rows.c - norms, activations, rotation, add, kv_store, matmul and embed: hand-computed cases for the
 * definitions, every level against them, and that a row does not depend on its company or on the threads.
 *
 * Bounds.  A sum of n terms in f32 has a relative error of about sqrt(n) / lanes roundings; 2e-6 is 30 of them.  The
 * activations promise 4e-7 (vec_math.h) and one product follows. */
#include "levels.h"

static const size_t sizes[] = { 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 80, 127, 128, 129, 1000, 3584, 10007 };

/* ---- definitions, by hand ------------------------------------------------------ */

static void definitions(const nb_ops *ops)
{
    float x[4] = { 3, 4, 0, 0 }, w[4] = { 1, 2, 1, 1 }, b[4] = { 0, 0, 0, 1 }, y[4];
    ops->rmsnorm(ops, y, x, w, 1, 2, 0); /* mean square 12.5 */
    NEAR(y[0], 0.848528137, 1e-6);
    NEAR(y[1], 2.26274170, 1e-6);
    float z[4] = { 1, 3, 5, 7 };
    ops->layernorm(ops, y, z, w, b, 1, 4, 0); /* mean 4, variance 5 */
    NEAR(y[0], -1.34164079, 1e-6);
    NEAR(y[1], -0.894427191, 1e-6);
    NEAR(y[3], 2.34164079, 1e-6);
    float a[3] = { 1, -1, -6 };
    ops->activate(ops, a, 3, NB_ACT_GELU); /* Phi(1), Phi(-1), Phi(-6) = 9.8658765e-10 */
    NEAR(a[0], 0.841344746, 3e-7);
    NEAR(a[1], -0.158655254, 1e-7);
    NEAR(a[2], -5.9195259e-9, 6e-15);
    float s[2] = { 1, -20 };
    ops->activate(ops, s, 2, NB_ACT_SILU);
    NEAR(s[0], 0.731058579, 3e-7);
    NEAR(s[1], -4.12230724e-8, 1e-14);
    float q[1] = { 1 };
    ops->activate(ops, q, 1, NB_ACT_QUICK_GELU); /* 1 / (1 + exp(-1.702)) */
    NEAR(q[0], 0.845795922, 3e-7);
    float pair[4] = { 2, 3, 0.5f, 10 }; /* gate 2, 3; up 0.5, 10 */
    ops->gate(ops, y, pair, 1, 2, NB_ACT_SILU);
    NEAR(y[0], 0.880797078, 5e-7);
    NEAR(y[1], 28.5772238, 1e-5);
    float r[4] = { 1, 2, 3, 4 }, cosines[2] = { 0, 0.6f }, sines[2] = { 1, 0.8f }; /* 90 degrees; 3-4-5 */
    ops->rope(ops, r, 4, 1, 1, 4, cosines, sines);
    NEAR(r[0], -3, 1e-6);
    NEAR(r[2], 1, 1e-6);
    NEAR(r[1], 2 * 0.6 - 4 * 0.8, 1e-6);
    NEAR(r[3], 4 * 0.6 + 2 * 0.8, 1e-6);
    ops->add(ops, x, z, 4);
    NEAR(x[1], 7, 0);
}

static void test_definitions(void **state)
{
    (void)state;
    each_level(definitions);
}

/* ---- every level against ref --------------------------------------------------- */

static void against_ref(const nb_ops *ops)
{
    nb_ops ref = level_ops(NB_ISA_REF, ops->pool);
    for (size_t s = 0; s < NB_COUNT(sizes); s++) {
        for (int outliers = 0; outliers < 2; outliers++) {
            size_t d = sizes[s], rows = d > 3000 ? 2 : 5, n = rows * d;
            float *x = random_floats(n, outliers, d), *w = random_floats(d, false, 2), *b = random_floats(d, false, 3);
            float *got = guarded(n), *want = guarded(n);
            ref.rmsnorm(&ref, want, x, w, rows, (int)d, 1e-6f);
            ops->rmsnorm(ops, got, x, w, rows, (int)d, 1e-6f);
            AGREE(ops, got, want, n, 2e-6, 0, "rmsnorm of %zu", d);
            for (size_t i = 0; i < n; i++) x[i] += 3; /* a mean that must be taken out */
            ref.layernorm(&ref, want, x, w, b, rows, (int)d, 1e-6f);
            ops->layernorm(ops, got, x, w, b, rows, (int)d, 1e-6f);
            AGREE(ops, got, want, n, 2e-6, d == 1 ? 0 : 1e-5 * largest(w, d), "layernorm of %zu", d);
            for (size_t i = 0; i < n; i++) got[i] = want[i] = x[i];
            float *more = random_floats(n, outliers, d + 5);
            ref.add(&ref, want, more, n);
            ops->add(ops, got, more, n);
            AGREE(ops, got, want, n, 0, 0, "add of %zu", d);
            free(x), free(w), free(b), free(more), free_guarded(got), free_guarded(want);
        }
    }
}

static void test_against_ref(void **state)
{
    (void)state;
    each_level(against_ref);
}

/* Activations on a grid that covers their whole range and every tail length. */
static void activations(const nb_ops *ops)
{
    nb_ops ref = level_ops(NB_ISA_REF, ops->pool);
    for (int act = NB_ACT_SILU; act <= NB_ACT_GELU; act++) {
        enum { N = 40001 };
        float *got = guarded(N), *want = guarded(N), worst = 0;
        for (int i = 0; i < N; i++) got[i] = want[i] = (float)(i - N / 2) * (i % 2 ? 1e-3f : 2e-3f * 1.0001f);
        ref.activate(&ref, want, N, act);
        ops->activate(ops, got, N, act);
        AGREE(ops, got, want, N, act == NB_ACT_GELU ? 4.5e-7 : 2.5e-7, 1e-36, "activation %d", act);
        for (int i = 0; i < N; i++)
            if (fabsf(want[i]) > 1e-30f) worst = fmaxf(worst, fabsf(got[i] - want[i]) / fabsf(want[i]));
        printf("%s: activation %d: largest relative error %.1e\n", ops->name, act, worst);
        free_guarded(got), free_guarded(want);
        for (size_t s = 0; s < NB_COUNT(sizes); s++) {
            size_t n = sizes[s], rows = 3;
            float *x = random_floats(rows * 2 * n, true, n), *a = guarded(rows * n), *b = guarded(rows * n);
            ref.gate(&ref, b, x, rows, (int)n, act);
            ops->gate(ops, a, x, rows, (int)n, act);
            AGREE(ops, a, b, rows * n, 7e-7, 1e-35, "gate %d of %zu", act, n);
            free(x), free_guarded(a), free_guarded(b);
        }
    }
    float odd[5] = { INFINITY, -INFINITY, NAN, 1e38f, -1e38f };
    for (int act = NB_ACT_SILU; act <= NB_ACT_GELU; act++) {
        float x[5];
        memcpy(x, odd, sizeof x);
        ops->activate(ops, x, 5, act);
        assert_true(isnan(x[2]));
        NEAR(x[3], 1e38f, 1e31);
        NEAR(x[4], 0, 0);
    }
}

static void test_activations(void **state)
{
    (void)state;
    each_level(activations);
}

static void rotations(const nb_ops *ops)
{
    nb_ops    ref = level_ops(NB_ISA_REF, ops->pool);
    const int dims[] = { 2, 6, 16, 30, 34, 64, 80, 128 };
    for (size_t i = 0; i < NB_COUNT(dims); i++) {
        size_t d = (size_t)dims[i], heads = 3, rows = 70, ld = heads * d + 5, n = rows * ld;
        float *x = random_floats(n, true, d), *angles = random_floats(rows * d / 2, false, 4);
        float *cosines = filled(rows * d / 2, 0), *sines = filled(rows * d / 2, 0), *got = guarded(n), *want = guarded(n);
        for (size_t j = 0; j < rows * d / 2; j++) cosines[j] = cosf(9 * angles[j]), sines[j] = sinf(9 * angles[j]);
        memcpy(got, x, 4 * n);
        memcpy(want, x, 4 * n);
        ref.rope(&ref, want, ld, rows, (int)heads, (int)d, cosines, sines);
        ops->rope(ops, got, ld, rows, (int)heads, (int)d, cosines, sines);
        AGREE(ops, got, want, n, 0, 2e-7 * largest(x, n), "rope of %zu", d);
        for (size_t r = 0; r < rows; r++) assert_memory_equal(got + r * ld + heads * d, x + r * ld + heads * d, 20);
        free(x), free(angles), free(cosines), free(sines), free_guarded(got), free_guarded(want);
    }
}

static void test_rotations(void **state)
{
    (void)state;
    each_level(rotations);
}

/* ---- kv_store -------------------------------------------------------------------- */

/* I8 as ops.h defines it, in double: a code is the nearest whole number of scales. */
static void codes_of(unsigned char *codes, unsigned char *scale, const float *x, size_t d)
{
    double top = 0;
    for (size_t j = 0; j < d; j++) top = !isfinite(x[j]) ? NAN : fabs((double)x[j]) > top ? fabs((double)x[j]) : top;
    uint16_t bits = nb_f32_to_bf16((float)(top / 127));
    double   step = nb_bf16_to_f32(bits);
    memcpy(scale, &bits, 2);
    for (size_t j = 0; j < d; j++) codes[j] = (unsigned char)(signed char)(step > 0 ? nearbyint((float)(x[j] / step)) : 0);
}

/* Two spans, one that crosses pages, into pages of 0xff: the right bytes in the right slots and nothing else. */
static void store(const nb_ops *ops)
{
    for (int d = 3; d <= 80; d += 11) {
        for (int type = 0; type < 3; type++) {
            nb_attn a = { .heads = 2, .kv_heads = 2, .head_dim = d, .kv_type = (nb_dtype[]){ NB_F32, NB_BF16, NB_I8 }[type] };
            size_t  size = (size_t)(4 >> type), extra = type == 2 ? 2 : 0, of_head = NB_KV_PAGE * ((size_t)d * size + extra);
            size_t  half = 2 * of_head, ld = (size_t)(2 * d) + 3;
            assert_int_equal(nb_kv_layer_bytes(2, d, a.kv_type), half);
            a.k_offset = 64;
            a.v_offset = 64 + half;
            enum { PAGES = 4, ROWS = 52 };
            size_t         bytes = 64 + 2 * half + 8;
            unsigned char *memory = malloc(PAGES * bytes), *want = malloc(PAGES * bytes);
            void          *pages[PAGES];
            memset(memory, 0xff, PAGES * bytes);
            memset(want, 0xff, PAGES * bytes);
            for (int p = 0; p < PAGES; p++) pages[p] = memory + (size_t)p * bytes;
            float  *k = random_floats(ROWS * ld, true, 1), *v = random_floats(ROWS * ld, true, 2);
            nb_span spans[2] = { { .first = 2, .rows = 45, .past = 20, .pages = pages },
                                 { .first = 47, .rows = 1, .past = 7, .pages = pages + 3 } };
            k[3 * ld] = NAN, k[3 * ld + 1] = INFINITY, k[3 * ld + 2] = 1e-40f;
            for (size_t j = 0; j < (size_t)d; j++) v[5 * ld + j] = 0, v[6 * ld + j] *= 1e-43f, v[7 * ld + j] *= 1e34f;
            ops->kv_store(ops, &a, spans, 2, k, v, ld);
            for (size_t r = 0; r < 46; r++) {
                size_t token = r < 45 ? 20 + r : 3 * NB_KV_PAGE + 7;
                for (size_t h = 0; h < 2; h++) {
                    size_t head = token / NB_KV_PAGE * bytes + 64 + h * of_head, slot = token % NB_KV_PAGE;
                    size_t at = head + slot * (size_t)d * size, scale = head + of_head + 2 * slot - 2 * NB_KV_PAGE;
                    if (type == 2) {
                        codes_of(want + at, want + scale, k + (r + 2) * ld + h * (size_t)d, (size_t)d);
                        codes_of(want + at + half, want + scale + half, v + (r + 2) * ld + h * (size_t)d, (size_t)d);
                        continue;
                    }
                    nb_from_f32(want + at, a.kv_type, k + (r + 2) * ld + h * (size_t)d, (size_t)d);
                    nb_from_f32(want + at + half, a.kv_type, v + (r + 2) * ld + h * (size_t)d, (size_t)d);
                }
            }
            assert_memory_equal(memory, want, PAGES * bytes);
            free(memory), free(want), free(k), free(v);
        }
    }
}

static void test_store(void **state)
{
    (void)state;
    each_level(store);
}

/* ---- matmul and embed -------------------------------------------------------------- */

enum { FLOATS = 3 };
static const nb_dtype float_types[FLOATS] = { NB_F32, NB_BF16, NB_F16 };

typedef struct {
    nb_weights w;
    void      *owned[5];
} random_weights;

/* kind 0..2: floats of float_types[kind]; 3: int4, 4: int4 symmetric, 5: int8, 6: int4 with act-order */
static random_weights make_weights(int kind, int n, int k, int group, uint64_t seed)
{
    random_weights r = { .w = { .n = n, .k = k } };
    size_t         count = (size_t)n * (size_t)k, groups = (size_t)((k + group - 1) / group);
    if (kind < FLOATS) {
        float *f = random_floats(count, false, seed);
        void  *data = malloc(4 * count);
        nb_from_f32(data, float_types[kind], f, count);
        r.w.kind = NB_W_FLOAT;
        r.w.dtype = float_types[kind];
        r.w.data = r.owned[0] = data;
        r.owned[1] = f;
        return r;
    }
    int      top = kind == 5 ? 255 : 15;
    uint8_t *codes = malloc(count), *zeros = malloc((size_t)n * groups);
    float   *scales = filled((size_t)n * groups, 0);
    int32_t *g_idx = malloc((size_t)k * 4);
    for (size_t i = 0; i < count; i++) codes[i] = (uint8_t)(unit_random(&seed) % (unsigned)(top + 1));
    for (size_t i = 0; i < (size_t)n * groups; i++) {
        zeros[i] = (uint8_t)(i % 3 == 0 ? 0 : i % 3 == 1 ? top : (int)(unit_random(&seed) % (unsigned)(top + 1)));
        scales[i] = nb_f16_to_f32(nb_f32_to_f16(0.01f + 0.01f * fabsf(unit_uniform(&seed))));
    }
    for (int i = 0; i < k; i++) g_idx[i] = (int32_t)(i * 7 % k / group); /* every group gets its share when 7 does not divide k */
    r.w.kind = kind == 5 ? NB_W_INT8 : NB_W_INT4;
    r.w.group = group;
    r.w.codes = r.owned[0] = codes;
    r.w.scales = r.owned[1] = scales;
    r.owned[2] = zeros;
    r.owned[3] = g_idx;
    if (kind != 4) r.w.zeros = zeros;
    if (kind == 6) r.w.g_idx = g_idx;
    return r;
}

static void free_weights(random_weights *r)
{
    for (size_t i = 0; i < NB_COUNT(r->owned); i++) free(r->owned[i]);
}

/* The definition once more, by hand: x = (1, 2), W = [[(3-8) * 0.5, (9-8) * 0.5]] */
static void matmul_by_hand(const nb_ops *ops)
{
    uint8_t    codes[2] = { 3, 9 };
    float      scales[1] = { 0.5f }, x[2] = { 1, 2 }, bias[1] = { 10 }, y[1] = { 100 };
    nb_weights w = { .kind = NB_W_INT4, .n = 1, .k = 2, .group = 2, .codes = codes, .scales = scales };
    nb_matrix  m;
    nb_error   err;
    OK(ops->pack(ops, &m, &w, 1, &err), &err);
    ops->matmul(ops, y, 1, x, 2, 1, &m, bias, true);
    NEAR(y[0], 108.5, 1e-3);
    ops->matmul(ops, y, 1, x, 2, 1, &m, NULL, false);
    NEAR(y[0], -1.5, 3e-4);
    ops->release(ops, &m);
    ops->release(ops, &m);
}

static void matmul_against_ref(const nb_ops *ops)
{
    nb_ops   ref = level_ops(NB_ISA_REF, ops->pool);
    nb_error err;
    for (int kind = 0; kind < 7; kind++) {
        const int shapes[][4] = { { 1, 1, 1, 32 }, { 17, 100, 3, 32 }, { 40, 257, 9, 128 }, { 33, 384, 33, 64 } };
        for (size_t s = 0; s < NB_COUNT(shapes); s++) {
            int            n = shapes[s][0], k = shapes[s][1], group = shapes[s][3];
            size_t         rows = (size_t)shapes[s][2], ldx = (size_t)k + 3, ldy = (size_t)(2 * n) + 1;
            random_weights a = make_weights(kind, n, k, group, 5), b = make_weights(kind, n, k, group, 6);
            nb_weights     parts[2] = { a.w, b.w };
            nb_matrix      want_m, m;
            OK(ref.pack(&ref, &want_m, parts, 2, &err), &err);
            OK(ops->pack(ops, &m, parts, 2, &err), &err);
            assert_int_equal(m.n, 2 * n);
            float *x = random_floats(rows * ldx, true, 7), *bias = random_floats((size_t)(2 * n), false, 8);
            float *got = guarded(rows * ldy), *want = guarded(rows * ldy);
            for (size_t i = 0; i < rows * ldy; i++) got[i] = want[i] = (float)i;
            ref.matmul(&ref, want, ldy, x, ldx, rows, &want_m, bias, true);
            ops->matmul(ops, got, ldy, x, ldx, rows, &m, bias, true);
            /* relative to |x| |w|, as in ops.h; W of floats has elements near 1, of ints near 0.2 */
            double mass = largest(x, rows * ldx) * sqrt(k) * (kind < FLOATS ? 3 : 1);
            AGREE(ops, got, want, rows * ldy, 1e-6, 1e-4 * mass, "matmul kind %d [%d, %d]", kind, n, k);
            for (size_t r = 0; r < rows; r++) NEAR(got[r * ldy + ldy - 1], (double)(r * ldy + ldy - 1), 0);
            free_guarded(got), free_guarded(want);

            int32_t ids[4] = { 0, 2 * n - 1, n, 0 };
            float  *e = guarded(4 * (size_t)k), *f = guarded(4 * (size_t)k);
            ref.embed(&ref, f, ids, 4, &want_m);
            ops->embed(ops, e, ids, 4, &m);
            AGREE(ops, e, f, 4 * (size_t)k, 1e-6, 0, "embed kind %d [%d, %d]", kind, n, k);
            free_guarded(e), free_guarded(f);
            ops->release(ops, &m);
            ref.release(&ref, &want_m);
            free(x), free(bias), free_weights(&a), free_weights(&b);
        }
    }
}

static void bad_packs(const nb_ops *ops)
{
    nb_error       err;
    nb_matrix      m;
    random_weights a = make_weights(3, 4, 64, 32, 1), b = make_weights(5, 4, 64, 32, 1), c = make_weights(3, 4, 96, 32, 1);
    random_weights d = make_weights(6, 4, 64, 32, 1), f = make_weights(0, 4, 64, 32, 1);
    nb_weights     mixed[][2] = { { a.w, b.w }, { a.w, c.w }, { a.w, d.w }, { a.w, f.w } };
    for (size_t i = 0; i < NB_COUNT(mixed); i++) FAILS(ops->pack(ops, &m, mixed[i], 2, &err), NB_ERR_ARGUMENT, "pack", &err);
    FAILS(ops->pack(ops, &m, &a.w, 0, &err), NB_ERR_ARGUMENT, "pack", &err);
    ((int32_t *)d.owned[3])[5] = 2; /* groups are 0 and 1 */
    FAILS(ops->pack(ops, &m, &d.w, 1, &err), NB_ERR_INPUT, "g_idx[5]", &err);
    ((int32_t *)d.owned[3])[5] = -1;
    FAILS(ops->pack(ops, &m, &d.w, 1, &err), NB_ERR_INPUT, "g_idx[5]", &err);
    ops->release(ops, &m);
    free_weights(&a), free_weights(&b), free_weights(&c), free_weights(&d), free_weights(&f);
}

static void test_matmul(void **state)
{
    (void)state;
    each_level(matmul_by_hand);
    each_level(matmul_against_ref);
    each_level(bad_packs);
}

/* ---- a row does not depend on its company --------------------------------------------- */

typedef struct {
    size_t     rows, d;
    const float *x, *w, *b, *angles;
    nb_matrix *m;
} job;

/* All row-wise operations on rows first .. first+rows-1 of the job; out [5, rows of the call, d] for each operation */
static void run_job(const nb_ops *ops, const job *j, float *out, size_t first, size_t rows)
{
    size_t       d = j->d, n = rows * d;
    const float *x = j->x + first * d;
    ops->rmsnorm(ops, out, x, j->w, rows, (int)d, 1e-5f);
    ops->layernorm(ops, out + n, x, j->w, j->b, rows, (int)d, 1e-5f);
    ops->gate(ops, out + 2 * n, x, rows, (int)d / 2, NB_ACT_GELU);
    memset(out + 2 * n + rows * (d / 2), 0, 4 * (n - rows * (d / 2)));
    memcpy(out + 3 * n, x, 4 * n);
    ops->rope(ops, out + 3 * n, d, rows, 2, (int)d / 2, j->angles + first * (d / 4), j->angles + first * (d / 4));
    ops->matmul(ops, out + 4 * n, d, x, d, rows, j->m, j->b, false);
}

static void independence(const nb_ops *ops)
{
    enum { ROWS = 37, D = 264 };
    random_weights w = make_weights(3, D, D, 128, 3);
    nb_matrix      m;
    nb_error       err;
    OK(ops->pack(ops, &m, &w.w, 1, &err), &err);
    job    j = { .rows = ROWS, .d = D, .m = &m };
    float *x = random_floats(ROWS * D, true, 1), *a = random_floats(D, false, 2), *b = random_floats(D, false, 3);
    float *angles = random_floats(ROWS * D / 4, false, 4), *all = filled(5 * ROWS * D, 0), *some = filled(5 * ROWS * D, 0);
    j.x = x, j.w = a, j.b = b, j.angles = angles;
    run_job(ops, &j, all, 0, ROWS);
    for (int threads = 1; threads <= 4; threads *= 2) {
        nb_pool *pool;
        OK(nb_pool_new(&pool, threads, &err), &err);
        nb_ops other = *ops;
        other.pool = pool;
        run_job(&other, &j, some, 0, ROWS);
        assert_memory_equal(all, some, sizeof(float) * 5 * ROWS * D);
        for (size_t row = 0; row < ROWS; row += 4) {
            run_job(&other, &j, some, row, 1);
            for (size_t op = 0; op < 5; op++) {
                size_t width = op == 2 ? D / 2 : D; /* gate rows are half as long */
                if (memcmp(all + op * ROWS * D + row * width, some + op * D, 4 * width))
                    fail_msg("%s: operation %zu, row %zu, %d threads: alone is not as in company", ops->name, op, row, threads);
            }
        }
        nb_pool_free(pool);
    }
    ops->release(ops, &m);
    free_weights(&w), free(x), free(a), free(b), free(angles), free(all), free(some);
}

static void test_independence(void **state)
{
    (void)state;
    each_level(independence);
}

/* ---- the test itself ---------------------------------------------------------------- */

/* Known-bad results have to be seen: a lane too few, a NaN, a stale output, a write behind the end. */
static void test_the_test(void **state)
{
    (void)state;
    enum { N = 17 };
    float *want = guarded(N), *got = guarded(N);
    for (int i = 0; i < N; i++) want[i] = (float)i + 1;
    assert_int_equal(first_difference(got, want, N, 1, 1e9), 0); /* nothing written: poison */
    memcpy(got, want, 4 * N);
    assert_int_equal(first_difference(got, want, N, 0, 0), N);
    got[16] *= 1.00001f;
    assert_int_equal(first_difference(got, want, N, 2e-6, 0), 16);
    got[3] = NAN;
    assert_int_equal(first_difference(got, want, N, 1, 1e30), 3);
    want[3] = NAN;
    assert_int_equal(first_difference(got, want, N, 1, 1e30), 3);
    assert_true(fences_stand(got, N));
    got[N] = 0;
    assert_false(fences_stand(got, N));
    got[N] = got[N + 1];
    got[-1] = 0;
    assert_false(fences_stand(got, N));
    free_guarded(want), free_guarded(got);
}

static void test_environment(void **state)
{
    (void)state;
    nb_error err;
    nb_isa   isa;
    unsetenv("NIBBLE_ISA");
    OK(nb_isa_from_environment(&isa, &err), &err);
    assert_int_equal(isa, nb_isa_detect(NB_ISA_LEVELS - 1));
    setenv("NIBBLE_ISA", "ref", 1);
    OK(nb_isa_from_environment(&isa, &err), &err);
    assert_int_equal(isa, NB_ISA_REF);
    setenv("NIBBLE_ISA", "sse9", 1);
    FAILS(nb_isa_from_environment(&isa, &err), NB_ERR_ARGUMENT, "sse9", &err);
    FAILS(nb_isa_from_environment(&isa, &err), NB_ERR_ARGUMENT, NB_ISA_CHOICES, &err);
    for (nb_isa want = NB_ISA_REF; want < NB_ISA_LEVELS; want++) {
        assert_non_null(strstr(NB_ISA_CHOICES, nb_isa_name(want)));
        setenv("NIBBLE_ISA", nb_isa_name(want), 1);
        if (nb_isa_detect(want) != want) {
            FAILS(nb_isa_from_environment(&isa, &err), NB_ERR_UNSUPPORTED, nb_isa_name(want), &err);
            continue;
        }
        OK(nb_isa_from_environment(&isa, &err), &err);
        assert_int_equal(isa, want);
    }
    unsetenv("NIBBLE_ISA");
    assert_int_equal(nb_isa_detect(NB_ISA_REF), NB_ISA_REF);
    assert_string_equal(nb_isa_name(NB_ISA_REF), "ref");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_test),   cmocka_unit_test(test_environment), cmocka_unit_test(test_definitions),
        cmocka_unit_test(test_against_ref), cmocka_unit_test(test_activations), cmocka_unit_test(test_rotations),
        cmocka_unit_test(test_store),      cmocka_unit_test(test_matmul),      cmocka_unit_test(test_independence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
