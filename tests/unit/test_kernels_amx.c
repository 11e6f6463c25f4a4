/* test_kernels_amx.c - the amx level on machines that have it and on those that do not.
 *
 *   emulated   matmul_amx.c over tiles of plain memory: it takes its place above the other levels in the tests of
 *              test_kernels_matmul.c, and has those below
 *   trapped    the machine code of the program, its tile instructions emulated where the processor refuses them
 *   real       the processor's own, where it has AMX
 *
 * All need AVX-512; what the machine lacks is skipped and said. */
#include "amx_emulated.h"
#include "tiles_trapped.h"
#include "unit.h"

/* The levels of test_kernels_matmul.c: ref, avx2, avx512 and the emulation. */
static inline void init_emulated_level(nb_ops *ops, nb_isa isa, nb_pool *pool)
{
    if (isa == NB_ISA_AMX)
        emulated_amx_init(ops, pool);
    else
        nb_ops_init(ops, isa, pool);
}

static bool has_avx512(void)
{
    return nb_isa_detect(NB_ISA_AVX512) == NB_ISA_AVX512;
}

#define LAST_LEVEL (has_avx512() ? NB_ISA_AMX : nb_isa_detect(NB_ISA_AVX512))
#define init_level init_emulated_level
#define MORE_TESTS                                                                                   \
    cmocka_unit_test(instructions_do_what_the_manual_says), cmocka_unit_test(what_a_machine_lacks_is_said), \
    cmocka_unit_test(ints_give_the_bits_of_avx512), cmocka_unit_test(ints_at_the_end_of_their_range), \
    cmocka_unit_test(bf16_is_within_its_bound), cmocka_unit_test(bf16_rows_do_not_depend_on_their_company), \
    cmocka_unit_test(bf16_of_unusual_numbers), cmocka_unit_test(no_heap_changes_nothing), \
    cmocka_unit_test(tiles_are_used_and_released), cmocka_unit_test(faults_are_noticed),

static void instructions_do_what_the_manual_says(void **state);
static void what_a_machine_lacks_is_said(void **state);
static void ints_give_the_bits_of_avx512(void **state);
static void ints_at_the_end_of_their_range(void **state);
static void bf16_is_within_its_bound(void **state);
static void bf16_rows_do_not_depend_on_their_company(void **state);
static void bf16_of_unusual_numbers(void **state);
static void no_heap_changes_nothing(void **state);
static void tiles_are_used_and_released(void **state);
static void faults_are_noticed(void **state);

#include "test_kernels_matmul.c"

#include "kernels/cpu/cpu.h"

/* ---- the ways to run it ------------------------------------------------------ */

typedef enum { EMULATED, TRAPPED, REAL, WAYS } way;

static const char *const way_names[WAYS] = { "emulated", "trapped", "real" };

/* NULL, or why not. */
static const char *way_missing(way w)
{
    if (!has_avx512()) return "this machine has no AVX-512";
    if (w == EMULATED) return NULL;
#ifndef NIBBLE_AMX
    return "the compiler cannot make tile instructions";
#endif
    bool real = nb_isa_detect(NB_ISA_AMX) == NB_ISA_AMX;
    return w == REAL && !real ? nb_amx_missing() : w == TRAPPED && real ? "this machine has AMX itself" : NULL;
}

static nb_ops way_ops(way w)
{
    nb_ops ops = { 0 };
    if (w == EMULATED) emulated_amx_init(&ops, pools[2]);
#ifdef NIBBLE_AMX
    if (w == REAL) nb_ops_init(&ops, NB_ISA_AMX, pools[1]);
    if (w == TRAPPED) {
        trap_tiles();
        nb_ops_init(&ops, NB_ISA_AVX512, pools[0]); /* the caller's thread alone */
        nb_amx_fill_matmul(&ops);
        ops.isa = NB_ISA_AMX;
    }
#endif
    ops.name = way_names[w];
    return ops;
}

/* Nothing below is worth running without AVX-512. */
static void each_way(const char *test, void (*body)(const nb_ops *ops, const nb_ops *avx512))
{
    for (way w = EMULATED; w < WAYS; w++) {
        if (way_missing(w)) {
            fprintf(stderr, "SKIP %s, %s: %s\n", test, way_names[w], way_missing(w));
            continue;
        }
        nb_ops ops = way_ops(w), avx512;
        long   products = nb_tiles_products;
        nb_ops_init(&avx512, NB_ISA_AVX512, pools[1]);
        body(&ops, &avx512);
        assert_int_equal(nb_tiles_products > products, w == TRAPPED);
        assert_int_equal(nb_tiles_configured, 0);
    }
}

/* ---- the instructions --------------------------------------------------------- */

static void configure_two_by_two(nb_tiles *t, int rows, int row_bytes, int b_rows)
{
    nb_tile_config c = { .palette = 1 };
    for (int i = 0; i < 3; i++) c.rows[i] = (uint8_t)(i < 2 ? rows : b_rows), c.row_bytes[i] = (uint16_t)(i == 1 ? row_bytes : 8);
    nb_tiles_configure(t, &c);
}

/* By hand: C [2, 2] += A [2, 4 or 8 bytes] B; tile 0 is C, 1 is A, 2 is B. */
static void instructions_do_what_the_manual_says(void **state)
{
    (void)state;
    nb_tiles t = { 0 };
    int32_t  c[4] = { 1000, 2000, 3000, INT32_MAX };
    uint8_t  a[8] = { 1, 255, 3, 128, 0, 0, 0, 1 }, b[8] = { 10, 20, 255, 128, 1, 2, 3, 200 };
    static const int32_t want[4][4] = {
        /* signed A, signed B */ { 1000 + 10 - 20 - 3 + 128 * 128, 2000 + 1 - 2 + 9 + 128 * 56, 3000 - 128, INT32_MAX - 56 },
        /* signed, unsigned */ { 1000 + 10 - 20 + 765 - 128 * 128, 2000 + 1 - 2 + 9 - 128 * 200, 3000 + 128, INT32_MIN + 199 },
        /* unsigned, signed */ { 1000 + 10 + 255 * 20 - 3 - 128 * 128, 2000 + 1 + 510 + 9 - 128 * 56, 3000 - 128, INT32_MAX - 56 },
        /* unsigned */ { 1000 + 10 + 255 * 20 + 765 + 128 * 128, 2000 + 1 + 510 + 9 + 128 * 200, 3000 + 128, INT32_MIN + 199 },
    };
    for (int i = 0; i < 4; i++) {
        int32_t got[4];
        configure_two_by_two(&t, 2, 4, 1);
        nb_tile_load(&t, 0, c, 8);
        nb_tile_load(&t, 1, a, 4);
        nb_tile_load(&t, 2, b, 8);
        nb_tile_bytes(&t, 0, 1, 2, i < 2, i % 2 == 0, "tdpb");
        nb_tile_store(&t, 0, got, 8);
        assert_memory_equal(got, want[i], sizeof got);
    }

    /* Even and odd products are chains apart: 2^24 + 1 - 2^24 is 0 in the chain of the even ones, and the odd one's 1 is added last. */
    static const float x[4] = { 0x1p24f, 1, 1, 0 }, factor[4] = { 1, 1, -0x1p24f, 1 };
    uint16_t ax[8] = { 0 }, bx[8] = { 0 };
    float    sums[4] = { 0.5f, 0, 0, 0 };
    for (int i = 0; i < 4; i++) ax[i] = nb_f32_to_bf16(x[i]);
    ax[4] = 0x0001; /* a denormal counts as zero */
    bx[0] = bx[1] = bx[2] = nb_f32_to_bf16(1);
    bx[3] = bx[2];
    bx[4] = nb_f32_to_bf16(factor[2]);
    bx[6] = bx[7] = nb_f32_to_bf16(0x1p100f);
    configure_two_by_two(&t, 2, 8, 2);
    nb_tile_load(&t, 0, sums, 8);
    nb_tile_load(&t, 1, ax, 8);
    nb_tile_load(&t, 2, bx, 8);
    nb_tile_bf16(&t, 0, 1, 2);
    nb_tile_store(&t, 0, sums, 8);
    NEAR(sums[0], 1.5, 0); /* (2^24 - 2^24) + 1, then + 0.5 */
    NEAR(sums[1], 0x1p100, 0);
    NEAR(sums[2], 0, 0);
    nb_tiles_release(&t);
    assert_int_equal(nb_tiles_configured, 0);
}

/* ---- detection ------------------------------------------------------------------ */

static bool asked;

static bool linux_says_yes(void)
{
    asked = true;
    return true;
}
static bool linux_says_no(void)
{
    asked = true;
    return false;
}

static void what_a_machine_lacks_is_said(void **state)
{
    (void)state;
    const uint32_t all = 1u << 22 | 1u << 24 | 1u << 25;
    const uint64_t saved = 3u << 17 | 0xe7;
    for (int bit = 0; bit < 32; bit++) /* every part is needed, and no other bit */
        if (all >> bit & 1)
            assert_non_null(strstr(nb_amx_lacks(~(1u << bit), saved, linux_says_yes), "processor"));
    assert_non_null(strstr(nb_amx_lacks(all, 1u << 17, linux_says_yes), "does not save"));
    assert_non_null(strstr(nb_amx_lacks(all, 1u << 18, linux_says_yes), "does not save"));
    assert_false(asked); /* in vain */
    assert_non_null(strstr(nb_amx_lacks(all, saved, linux_says_no), "Linux"));
    assert_null(nb_amx_lacks(all, saved, linux_says_yes));

    nb_error err;
    nb_isa   isa;
    setenv("NIBBLE_ISA", "amx", 1);
    if (nb_isa_detect(NB_ISA_AMX) == NB_ISA_AMX) {
        OK(nb_isa_from_environment(&isa, &err), &err);
        assert_int_equal(isa, NB_ISA_AMX);
    } else {
        FAILS(nb_isa_from_environment(&isa, &err), NB_ERR_UNSUPPORTED, "NIBBLE_ISA=amx, but the best level", &err);
        if (nb_amx_missing()) assert_non_null(strstr(err.text, nb_amx_missing()));
    }
    unsetenv("NIBBLE_ISA");
    assert_string_equal(nb_isa_name(NB_ISA_AMX), "amx");
    assert_true(nb_gemm_of(NB_ISA_AMX) == nb_gemm_of(NB_ISA_AVX512));
}

/* ---- ints -------------------------------------------------------------------------- */

/* Blocks of every kind of step: 128, 64, 32, 24, 8, 72 and 104 (halves of 40 and 56); a last block that needs one step where
 * others need two; several segments of 1024; one panel, an odd number of panels. */
static const shape int_shapes[] = {
    { "int4 g128", NB_W_INT4, NB_F32, 50, 2200, 128, true, false, SCALES_F16 },
    { "int4 g128 symmetric", NB_W_INT4, NB_F32, 33, 1000, 128, false, false, SCALES_F32 },
    { "int4 g64", NB_W_INT4, NB_F32, 17, 451, 64, true, false, SCALES_F16 },
    { "int4 g32", NB_W_INT4, NB_F32, 77, 333, 32, true, false, SCALES_F32 },
    { "int4 g20", NB_W_INT4, NB_F32, 16, 210, 20, false, false, SCALES_F16 },
    { "int4 g8", NB_W_INT4, NB_F32, 1, 61, 8, true, false, SCALES_F16 },
    { "int4 g72", NB_W_INT4, NB_F32, 20, 300, 72, true, false, SCALES_F16 },
    { "int4 g100", NB_W_INT4, NB_F32, 40, 407, 100, true, false, SCALES_F16 },
    { "int4 whole row", NB_W_INT4, NB_F32, 48, 1176, 1176, true, false, SCALES_F16 },
    { "int4 short row", NB_W_INT4, NB_F32, 48, 5, 128, true, false, SCALES_F16 },
    { "int4 act-order", NB_W_INT4, NB_F32, 50, 640, 128, true, true, SCALES_F16 },
    { "int4 act-order g32", NB_W_INT4, NB_F32, 50, 333, 32, false, true, SCALES_F32 },
    { "int8 g128", NB_W_INT8, NB_F32, 65, 1300, 128, true, false, SCALES_F16 },
    { "int8 whole row", NB_W_INT8, NB_F32, 40, 1176, 1176, false, false, SCALES_F32 },
    { "int8 g64", NB_W_INT8, NB_F32, 23, 451, 64, true, false, SCALES_F16 },
    { "int8 act-order", NB_W_INT8, NB_F32, 35, 300, 64, true, true, SCALES_F16 },
};

/* Outliers, and rows that hold a NaN, an infinity, zeros, denormals and numbers near the ends of the range. */
static float *make_unusual_rows(size_t rows, size_t k, uint64_t *seed)
{
    float *x = make_rows(rows, k, true, seed);
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < k; i++) {
            float *at = &x[r * k + i];
            switch (r % 13) {
            case 2: *at = i == k / 2 ? NAN : *at; break;
            case 3: *at = i == k - 1 ? -INFINITY : *at; break;
            case 5: *at = 0; break;
            case 7: *at *= 1e-40f; break;
            case 8: *at *= i % 3 ? 1e-40f : 1; break;
            case 11: *at *= 1e34f; break;
            default: break;
            }
        }
    return x;
}

static void compare_ints(const nb_ops *ops, const nb_ops *avx512)
{
    uint64_t seed = 11;
    enum { ROWS = 150 };
    for (size_t i = 0; i < NB_COUNT(int_shapes); i++) {
        const shape *s = &int_shapes[i];
        nb_error     err;
        nb_matrix    m;
        int32_t     *g_idx = make_g_idx(s, &seed);
        nb_weights   w = make_weights(s, s->n, g_idx, &seed);
        float       *x = make_unusual_rows(ROWS, (size_t)s->k, &seed);
        OK(avx512->pack(avx512, &m, &w, 1, &err), &err);
        float *want = multiply(avx512, &m, x, ROWS);
        for (size_t rows = 1; rows <= ROWS; rows += rows < 70 && i < 3 ? 1 : rows < 70 ? 9 : 37) {
            float *y = multiply(ops, &m, x, rows);
            if (memcmp(y, want, rows * (size_t)s->n * sizeof *y)) fail_msg("%s, %s: %zu rows", ops->name, s->name, rows);
            free(y);
        }
        avx512->release(avx512, &m);
        free(want), free(x), free(g_idx);
        free_weights(&w);
    }
}

static void ints_give_the_bits_of_avx512(void **state)
{
    (void)state;
    each_way(__func__, compare_ints);
}

/* Sums that are as large as they can become, with the zero point at the other end, times -32639, 32639 and what splits into bytes of
 * -128 and 127. */
static void compare_extremes(const nb_ops *ops, const nb_ops *avx512)
{
    (void)avx512;
    enum { N = 16, K = 256, ROWS = 20 };
    for (int kind = NB_W_INT4; kind <= NB_W_INT8; kind++)
        for (int reverse = 0; reverse < 2; reverse++) {
            int       top = kind == NB_W_INT4 ? 15 : 255;
            uint8_t   codes[N * K], zeros[N * 2];
            float     scales[N * 2], x[ROWS * K];
            nb_error  err;
            nb_matrix m;
            memset(codes, reverse ? 0 : top, sizeof codes);
            memset(zeros, reverse ? top : 0, sizeof zeros);
            for (int i = 0; i < N * 2; i++) scales[i] = 0.5f;
            for (int i = 0; i < ROWS * K; i++) {
                int r = i / K, edge = i % 128 == 0;
                x[i] = r % 4 == 0 ? -32639 : r % 4 == 1 || edge ? 32639 : r % 4 == 2 ? -128 : 32383; /* 126 * 256 + 127 */
            }
            nb_weights w = { .kind = (nb_wkind)kind, .n = N, .k = K, .group = 128, .codes = codes, .scales = scales, .zeros = zeros };
            OK(ops->pack(ops, &m, &w, 1, &err), &err);
            float *y = multiply(ops, &m, x, ROWS);
            for (int r = 0; r < ROWS; r++) {
                double sum = 0;
                for (int i = 0; i < K; i++) sum += (double)x[r * K + i];
                for (int o = 0; o < N; o++) NEAR(y[r * N + o], (reverse ? -0.5 : 0.5) * top * sum, 0.5 * top * K * 32639 * 4e-7);
            }
            free(y);
            ops->release(ops, &m);
        }
}

static void ints_at_the_end_of_their_range(void **state)
{
    (void)state;
    each_way(__func__, compare_extremes);
}

/* ---- bf16 ---------------------------------------------------------------------------- */

/* Tails of a step (32) and of a segment (512) in k, of a panel and of a pair of panels in n. */
static const shape bf16_shapes[] = {
    { "one", NB_W_FLOAT, NB_BF16, 1, 1, 0, false, false, 0 },      { "17 x 31", NB_W_FLOAT, NB_BF16, 17, 31, 0, false, false, 0 },
    { "32 x 33", NB_W_FLOAT, NB_BF16, 32, 33, 0, false, false, 0 }, { "50 x 513", NB_W_FLOAT, NB_BF16, 50, 513, 0, false, false, 0 },
    { "77 x 1177", NB_W_FLOAT, NB_BF16, 77, 1177, 0, false, false, 0 },
};

static void bound_bf16(const nb_ops *ops, const nb_ops *avx512)
{
    (void)avx512;
    uint64_t seed = 12;
    enum { ROWS = 70 };
    double largest_share = 0;
    for (size_t i = 0; i < NB_COUNT(bf16_shapes); i++)
        for (int outliers = 0; outliers < 2; outliers++) {
            const shape *s = &bf16_shapes[i];
            size_t       n = (size_t)s->n, k = (size_t)s->k;
            nb_error     err;
            nb_matrix    m;
            nb_weights   w = make_weights(s, s->n, NULL, &seed);
            float       *dense = allocate(n * k * sizeof *dense), *x = make_rows(ROWS, k, outliers, &seed);
            double      *want = allocate(n * sizeof *want), *bound = allocate(n * sizeof *bound);
            nb_weights_to_f32(dense, &w);
            OK(ops->pack(ops, &m, &w, 1, &err), &err);
            float *y = multiply(ops, &m, x, ROWS);
            for (size_t r = 0; r < ROWS; r++) {
                multiply_exactly(want, bound, dense, x + r * k, &w, s->n, NB_ISA_AMX);
                if (!agrees(y + r * n, want, bound, s->n)) fail_msg("%s, %s: row %zu", ops->name, s->name, r);
                for (size_t o = 0; o < n; o++) {
                    double size = 0; /* the contract: 1e-4 of the product of the norms, and of sum |w x|, which is smaller */
                    for (size_t j = 0; j < k; j++) size += fabs((double)dense[o * k + j] * x[r * k + j]);
                    assert_true(bound[o] <= 1e-4 * size + FLT_MIN * (1e6 + 1e6 * size));
                    largest_share = fmax(largest_share, fabs(y[r * n + o] - want[o]) / bound[o]);
                }
            }
            ops->release(ops, &m);
            free(y), free(dense), free(x), free(want), free(bound);
            free_weights(&w);
        }
    assert_true(largest_share > 0.02); /* the bound is not idle */
    printf("%s: the largest error is %.2f of its bound\n", ops->name, largest_share);
}

static void bf16_is_within_its_bound(void **state)
{
    (void)state;
    each_way(__func__, bound_bf16);
}

static void company_of_bf16(const nb_ops *ops, const nb_ops *avx512)
{
    (void)avx512;
    uint64_t seed = 13;
    enum { ROWS = 135 };
    for (size_t i = 0; i < NB_COUNT(bf16_shapes); i++) {
        const shape *s = &bf16_shapes[i];
        size_t       n = (size_t)s->n, k = (size_t)s->k;
        nb_error     err;
        nb_matrix    m;
        nb_weights   w = make_weights(s, s->n, NULL, &seed);
        float       *x = make_unusual_rows(ROWS, k, &seed), *alone = allocate(ROWS * n * sizeof *alone);
        OK(ops->pack(ops, &m, &w, 1, &err), &err);
        for (size_t r = 0; r < ROWS; r++) {
            float *y = multiply(ops, &m, x + r * k, 1);
            memcpy(alone + r * n, y, n * sizeof *y);
            free(y);
        }
        for (size_t rows = 2; rows <= ROWS; rows += rows < 70 && i < 4 ? 1 : 13) {
            size_t first = rows < ROWS ? rows % 2 : 0;
            float *y = multiply(ops, &m, x + first * k, rows);
            if (memcmp(y, alone + first * n, rows * n * sizeof *y)) fail_msg("%s, %s: %zu rows", ops->name, s->name, rows);
            free(y);
        }
        ops->release(ops, &m);
        free(x), free(alone);
        free_weights(&w);
    }
}

static void bf16_rows_do_not_depend_on_their_company(void **state)
{
    (void)state;
    each_way(__func__, company_of_bf16);
}

/* What is not finite in avx512 is the same here (NaN or an infinity of the same sign); what is finite there is within the bound here,
 * denormals and the largest numbers included. */
static void unusual_bf16(const nb_ops *ops, const nb_ops *avx512)
{
    enum { N = 33, K = 300, ROWS = 40 };
    static const shape s = { "", NB_W_FLOAT, NB_BF16, N, K, 0, false, false, 0 };
    uint64_t   seed = 14;
    nb_error   err;
    nb_matrix  m;
    nb_weights w = make_weights(&s, N, NULL, &seed);
    float     *x = make_unusual_rows(ROWS, K, &seed), *dense = allocate(N * K * sizeof *dense);
    uint16_t  *bits = (uint16_t *)(uintptr_t)w.data;
    for (int i = 0; i < K; i++) {
        bits[i] = (uint16_t)(i % 2 ? 0x0040 : 0x8003); /* output 0: denormal weights */
        bits[K + i] = (uint16_t)(unit_random(&seed) % 2 ? 0x0080 : 0x8080); /* output 1: the smallest normal ones */
        x[0 * K + i] = i ? 0 : FLT_MAX;                          /* rounds to infinity in bf16 */
        x[1 * K + i] = i % 2 ? -3.3999e38f : 3.3999e38f;         /* the same; sums stay finite with small weights */
        x[4 * K + i] = FLT_MIN * unit_uniform(&seed);            /* denormals */
        x[6 * K + i] = FLT_MIN * 300 * unit_uniform(&seed);      /* their low pieces are denormal */
    }
    x[9 * K + 7] = INFINITY;
    x[10 * K + 7] = -INFINITY;
    x[10 * K + 8] = NAN;
    uint32_t payload = 0x7f800001; /* a NaN whose high half is that of an infinity */
    memcpy(&x[12 * K + 3], &payload, 4);
    nb_weights_to_f32(dense, &w);
    OK(ops->pack(ops, &m, &w, 1, &err), &err);
    float *y = multiply(ops, &m, x, ROWS), *other = multiply(avx512, &m, x, ROWS);
    for (int r = 0; r < ROWS; r++) {
        double want[N], bound[N];
        multiply_exactly(want, bound, dense, x + r * K, &w, N, NB_ISA_AMX);
        for (int o = 0; o < N; o++) {
            float got = y[r * N + o], there = other[r * N + o];
            if (o == 0 && !isfinite(there)) /* infinity times a weight that counts as zero */
                assert_true(isnan(got));
            else if (!isfinite(there))
                assert_true(isnan(there) ? isnan(got) : got == there);
            else
                NEAR(got, want[o], bound[o]);
        }
    }
    assert_true(isfinite(y[0 * N + 5]) && isfinite(y[1 * N + 1]));
    assert_true(isinf(y[9 * N + 5]) && isnan(y[10 * N + 5]) && isnan(y[12 * N + 5]));
    ops->release(ops, &m);
    free(y), free(other), free(x), free(dense);
    free_weights(&w);
}

static void bf16_of_unusual_numbers(void **state)
{
    (void)state;
    each_way(__func__, unusual_bf16);
}

/* ---- the call ------------------------------------------------------------------------- */

/* A matrix, some rows, and their product by the emulation in each of its ways to be wrong. */
typedef struct {
    nb_ops     ops;
    nb_weights w;
    nb_matrix  m;
    float     *x;
    size_t     rows;
} faulty;

static faulty make_faulty(const shape *s, size_t rows, uint64_t seed)
{
    faulty   f = { .rows = rows };
    nb_error err;
    emulated_amx_init(&f.ops, pools[1]);
    f.w = make_weights(s, s->n, NULL, &seed);
    f.x = make_rows(rows, (size_t)s->k, false, &seed);
    OK(f.ops.pack(&f.ops, &f.m, &f.w, 1, &err), &err);
    return f;
}

static void free_faulty(faulty *f)
{
    f->ops.release(&f->ops, &f->m);
    free_weights(&f->w);
    free(f->x);
}

static float *multiply_with(const faulty *f, emulated_faults fault)
{
    emulated_fault = fault;
    float *y = multiply(&f->ops, &f->m, f->x, f->rows);
    emulated_fault = EMULATED_CORRECT;
    return y;
}

static const shape call_int4 = { "int4", NB_W_INT4, NB_F32, 40, 5000, 128, true, false, SCALES_F16 },
                   call_int8 = { "int8", NB_W_INT8, NB_F32, 40, 2000, 128, true, false, SCALES_F16 },
                   call_bf16 = { "bf16", NB_W_FLOAT, NB_BF16, 40, 5000, 0, false, false, 0 };

#define NEEDS_AVX512()                                                              \
    do {                                                                            \
        if (!has_avx512()) {                                                        \
            fprintf(stderr, "SKIP %s: this machine has no AVX-512\n", __func__);    \
            skip();                                                                 \
        }                                                                           \
    } while (0)

/* 100 rows of 5000 inputs do not fit the stack. */
static void no_heap_changes_nothing(void **state)
{
    (void)state;
    NEEDS_AVX512();
    const shape *const calls[] = { &call_int4, &call_bf16 };
    for (int i = 0; i < 2; i++) {
        faulty f = make_faulty(calls[i], 100, 15);
        float *y = multiply_with(&f, EMULATED_CORRECT);
        long   products = emulated_products();
        float *other = multiply_with(&f, EMULATED_NO_HEAP);
        assert_memory_equal(y, other, f.rows * (size_t)f.w.n * sizeof *y);
        assert_int_equal(emulated_products() > products, calls[i] == &call_bf16); /* ints go to avx512 */
        free(y), free(other);
        free_faulty(&f);
    }
}

static void tiles_are_used_and_released(void **state)
{
    (void)state;
    NEEDS_AVX512();
    const shape *const calls[] = { &call_int4, &call_int8, &call_bf16 };
    static const size_t rows[] = { 1, 15, 16, 100 };
    for (int i = 0; i < 3; i++)
        for (size_t r = 0; r < NB_COUNT(rows); r++) {
            faulty f = make_faulty(calls[i], rows[r], 16);
            long   products = emulated_products();
            free(multiply_with(&f, EMULATED_CORRECT));
            assert_int_equal(emulated_products() > products, calls[i] == &call_bf16 || rows[r] >= 16);
            assert_int_equal(emulated_configured(), 0);
            free_faulty(&f);
        }
    faulty f = make_faulty(&call_bf16, 20, 17);
    free(multiply_with(&f, EMULATED_NO_RELEASE));
    assert_true(emulated_configured() > 0); /* a thread that keeps its tiles is seen */
    for (int i = 0; i < 1000 && emulated_configured(); i++) free(multiply_with(&f, EMULATED_CORRECT)); /* until each thread had an item */
    assert_int_equal(emulated_configured(), 0);
    free_faulty(&f);
}

/* The comparisons above would not pass these. */
static void faults_are_noticed(void **state)
{
    (void)state;
    NEEDS_AVX512();
    static const struct {
        const shape    *call;
        emulated_faults fault;
    } cases[] = { { &call_int4, EMULATED_UNSIGNED_ROWS }, { &call_int8, EMULATED_UNSIGNED_ROWS }, { &call_int8, EMULATED_SIGNED_CODES },
                  { &call_int4, EMULATED_LOST_STORE },    { &call_bf16, EMULATED_LOST_STORE },    { &call_bf16, EMULATED_LOST_PRODUCTS } };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        faulty f = make_faulty(cases[i].call, 32, 18);
        size_t n = (size_t)f.w.n, k = (size_t)f.w.k;
        float *y = multiply_with(&f, EMULATED_CORRECT), *wrong = multiply_with(&f, cases[i].fault);
        float *dense = allocate(n * k * sizeof *dense);
        bool   seen = false;
        nb_weights_to_f32(dense, &f.w);
        for (size_t r = 0; r < f.rows; r++) {
            double want[40], bound[40];
            multiply_exactly(want, bound, dense, f.x + r * k, &f.w, f.w.n, NB_ISA_AMX);
            assert_true(agrees(y + r * n, want, bound, f.w.n));
            seen = seen || !agrees(wrong + r * n, want, bound, f.w.n);
        }
        if (!seen) fail_msg("%s: fault %d went unnoticed", cases[i].call->name, (int)cases[i].fault);
        assert_true(memcmp(y, wrong, f.rows * n * sizeof *y) != 0);
        free(y), free(wrong), free(dense);
        free_faulty(&f);
    }
}
