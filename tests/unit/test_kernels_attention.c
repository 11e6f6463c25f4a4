/* test_kernels_attention.c - attend and attend_full: a case by hand, every level against ref (odd head dimensions, mixed
 * spans, every KV type), and that a row depends neither on its company, nor on how its prompt was cut, nor on threads.
 *
 * Pages start as NaN everywhere, so that a token which is not there, or not yet, cannot be used unnoticed.
 *
 * Bound: weights sum to one, so an output is within the range of V; scores are dot products of d terms, whose f32 error is
 * an error of the exponent.  1e-5 of the largest |V| for scores of order 1, 1e-4 with outliers (scores of order 100). */
#include "levels.h"

/* ---- a sequence in pages ---------------------------------------------------------- */

enum { MAX_PAGES = 64 };

typedef struct {
    void *pages[MAX_PAGES];
} sequence;

static size_t page_bytes(nb_attn *a)
{
    size_t half = nb_kv_layer_bytes(a->kv_heads, a->head_dim, a->kv_type);
    a->k_offset = 192; /* as if an earlier layer were in front */
    a->v_offset = 192 + half;
    return 192 + 2 * half;
}

static sequence new_sequence(nb_attn *a, size_t tokens)
{
    sequence s = { { NULL } };
    for (size_t p = 0; p * NB_KV_PAGE < tokens; p++) {
        assert_true(p < MAX_PAGES);
        s.pages[p] = malloc(page_bytes(a));
        memset(s.pages[p], 0xff, page_bytes(a)); /* NaN in every type: of codes it is the scale */
    }
    return s;
}

static void free_sequence(sequence *s)
{
    for (int p = 0; p < MAX_PAGES; p++) free(s->pages[p]);
}

/* ---- by hand ------------------------------------------------------------------------ */

/* One head of dimension 2, scale 1: q = (1, 0), keys (0, 5), (ln 3, 7): weights 1/4 and 3/4. */
static void by_hand(const nb_ops *ops)
{
    nb_attn  a = { .heads = 1, .kv_heads = 1, .head_dim = 2, .scale = 1, .kv_type = NB_F32 };
    sequence s = new_sequence(&a, 2);
    float    k[4] = { 0, 5, logf(3), 7 }, v[4] = { 4, 0, 8, -4 }, q[4] = { 1, 0, 1, 0 }, out[4];
    nb_span  span = { .first = 0, .rows = 2, .past = 0, .pages = s.pages };
    ops->kv_store(ops, &a, &span, 1, k, v, 2);
    ops->attend(ops, &a, &span, 1, out, 2, q, 2);
    NEAR(out[0], 4, 1e-6); /* the first row sees the first token only */
    NEAR(out[1], 0, 1e-6);
    NEAR(out[2], 7, 3e-6);
    NEAR(out[3], -3, 3e-6);
    free_sequence(&s);

    float  qkv[12] = { 1, 0, 0, 5, 4, 0, 1, 0, logf(3), 7, 8, -4 };
    size_t bounds[3] = { 0, 2, 2 }; /* and an empty segment */
    ops->attend_full(ops, out, 2, qkv, 6, bounds, 2, 1, 2, 1);
    NEAR(out[0], 7, 3e-6);
    NEAR(out[3], -3, 3e-6);
}

/* Two tokens whose scores differ by s: weights 1 / (1 + e^s) and e^s / (1 + e^s), so that the exponential shows itself.
 * Bound: 4e-7 for it, and s log2(e) is rounded twice at a relative 6e-8, which is an error of the exponent. */
static void weights_of_two(const nb_ops *ops)
{
    nb_attn  a = { .heads = 1, .kv_heads = 1, .head_dim = 2, .scale = 1, .kv_type = NB_F32 };
    sequence p = new_sequence(&a, 2);
    for (int i = 0; i <= 800; i++) {
        float   s = (float)(i - 400) * 0.0501f, k[4] = { 0, 0, s, 0 }, v[4] = { 1, 0, 0, 1 }, q[2] = { 1, 0 }, out[2];
        nb_span stored = { .first = 0, .rows = 2, .past = 0, .pages = p.pages };
        nb_span asked = { .first = 0, .rows = 1, .past = 1, .pages = p.pages };
        ops->kv_store(ops, &a, &stored, 1, k, v, 2);
        ops->attend(ops, &a, &asked, 1, out, 2, q, 2);
        double want[2] = { 1 / (1 + exp(s)), 1 / (1 + exp(-s)) }, within = 4e-7 + 1.2e-7 * fabs(s);
        NEAR(out[0], want[0], within * want[0]);
        NEAR(out[1], want[1], within * want[1]);
    }
    free_sequence(&p);
}

/* ---- against ref ---------------------------------------------------------------------- */

static void mixed_spans(const nb_ops *ops, int heads, int kv_heads, int d, nb_dtype type, bool outliers)
{
    nb_ops  ref = level_ops(NB_ISA_REF, ops->pool);
    nb_attn a = { .heads = heads, .kv_heads = kv_heads, .head_dim = d, .scale = 1 / sqrtf((float)d), .kv_type = type };
    /* prefill from nothing; a later chunk; single rows on a page's edges and beyond a chunk; rows 3.. only */
    const size_t rows[] = { 40, 9, 1, 1, 1, 0 }, past[] = { 0, 60, 0, 31, 1040, 5 };
    enum { SPANS = 6, FIRST = 3 };
    sequence s[SPANS];
    nb_span  spans[SPANS];
    size_t   width = (size_t)(heads * d), kv_width = (size_t)(kv_heads * d), ldq = width + 3, ldo = width + 1, total = FIRST;
    for (int i = 0; i < SPANS; i++) {
        s[i] = new_sequence(&a, past[i] + rows[i]);
        size_t n = past[i] + rows[i];
        float *k = random_floats(n * kv_width, false, (uint64_t)i + 1), *v = random_floats(n * kv_width, outliers, 50);
        if (outliers)
            for (size_t j = 0; j < n * kv_width; j += 97) k[j] *= 30;
        nb_span all = { .first = 0, .rows = n, .past = 0, .pages = s[i].pages };
        ref.kv_store(&ref, &a, &all, 1, k, v, kv_width);
        spans[i] = (nb_span){ .first = total, .rows = rows[i], .past = past[i], .pages = s[i].pages };
        total += rows[i];
        free(k), free(v);
    }
    float *q = random_floats(total * ldq, outliers, 60), *got = guarded(total * ldo), *want = guarded(total * ldo);
    for (size_t i = 0; i < total * ldo; i++) got[i] = want[i] = -5;
    ref.attend(&ref, &a, spans, SPANS, want, ldo, q, ldq);
    ops->attend(ops, &a, spans, SPANS, got, ldo, q, ldq);
    AGREE(ops, got, want, total * ldo, 0, outliers ? 1e-4 * 300 : 1e-5 * 6, "attend heads %d/%d, d %d, type %d, outliers %d",
          heads, kv_heads, d, type, outliers);
    for (size_t r = 0; r < total; r++) NEAR(got[r * ldo + width], -5, 0);
    for (size_t j = 0; j < FIRST * ldo; j++) NEAR(got[j], -5, 0);
    for (int i = 0; i < SPANS; i++) free_sequence(&s[i]);
    free(q), free_guarded(got), free_guarded(want);
}

static void attend_against_ref(const nb_ops *ops)
{
    mixed_spans(ops, 7, 1, 128, NB_BF16, false);
    mixed_spans(ops, 6, 3, 64, NB_F32, true);
    mixed_spans(ops, 4, 4, 16, NB_BF16, true);
    mixed_spans(ops, 2, 1, 80, NB_BF16, false);
    mixed_spans(ops, 3, 1, 37, NB_F32, false);
    mixed_spans(ops, 3, 1, 21, NB_BF16, false);
    mixed_spans(ops, 70, 1, 8, NB_F32, false); /* more heads on a KV head than an item takes */
    mixed_spans(ops, 16, 2, 64, NB_BF16, true);
    mixed_spans(ops, 7, 1, 128, NB_I8, false);
    mixed_spans(ops, 12, 2, 64, NB_I8, true);
    mixed_spans(ops, 4, 4, 16, NB_I8, true);
    mixed_spans(ops, 2, 1, 80, NB_I8, false);
    mixed_spans(ops, 3, 1, 37, NB_I8, false);
    mixed_spans(ops, 70, 1, 8, NB_I8, false);
}

static void full_against_ref(const nb_ops *ops)
{
    nb_ops       ref = level_ops(NB_ISA_REF, ops->pool);
    const int    dims[] = { 1, 16, 33, 48, 64, 80, 128 };
    const size_t bounds[] = { 2, 3, 3, 67, 100, 229 };
    for (size_t i = 0; i < NB_COUNT(dims); i++) {
        for (int outliers = 0; outliers < 2; outliers++) {
            int    d = dims[i], heads = 2;
            size_t width = (size_t)(heads * d), ld = 3 * width + 2, ldo = width + 1, rows = 230;
            float *qkv = random_floats(rows * ld, outliers, (uint64_t)d);
            float *got = guarded(rows * ldo), *want = guarded(rows * ldo), scale = 1 / sqrtf((float)d);
            for (size_t j = 0; j < rows * ldo; j++) got[j] = want[j] = -5;
            for (size_t j = 0; j < ld; j++) qkv[j] = qkv[229 * ld + j] = NAN; /* rows outside all segments */
            ref.attend_full(&ref, want, ldo, qkv, ld, bounds, 5, heads, d, scale);
            ops->attend_full(ops, got, ldo, qkv, ld, bounds, 5, heads, d, scale);
            /* outliers make scores of thousands, whose f32 error shifts the exponent by 1e-3 */
            AGREE(ops, got, want, rows * ldo, 0, outliers ? 2e-3 * 300 : 6e-5, "attend_full d %d, outliers %d", d, outliers);
            for (size_t j = 0; j < 2 * ldo; j++) NEAR(got[j], -5, 0);
            free(qkv), free_guarded(got), free_guarded(want);
        }
    }
    ops->attend_full(ops, NULL, 1, NULL, 1, bounds, 0, 1, 8, 1);
}

/* ---- independence ------------------------------------------------------------------------ */

typedef struct {
    const float *q, *k, *v;
    size_t       width, kv_width;
} tensors;

/* A prompt of `tokens` rows whose chunks have the sizes of `cuts`, over and over; each chunk is stored, then attended. */
static void run_prompt(const nb_ops *ops, nb_attn *a, const tensors *t, size_t tokens, const size_t *cuts, size_t count,
                       float *out)
{
    sequence s = new_sequence(a, tokens);
    for (size_t past = 0, i = 0; past < tokens; i++) {
        size_t  rows = cuts[i % count] < tokens - past ? cuts[i % count] : tokens - past;
        nb_span span = { .first = 0, .rows = rows, .past = past, .pages = s.pages };
        ops->kv_store(ops, a, &span, 1, t->k + past * t->kv_width, t->v + past * t->kv_width, t->kv_width);
        ops->attend(ops, a, &span, 1, out + past * t->width, t->width, t->q + past * t->width, t->width);
        past += rows;
    }
    free_sequence(&s);
}

static void chunks_and_threads_of(const nb_ops *ops, int d, nb_dtype type)
{
    enum { TOKENS = 1100 };
    nb_attn  a = { .heads = 6, .kv_heads = 2, .head_dim = d, .scale = 0.2f, .kv_type = type };
    tensors  t = { .width = 6 * (size_t)d, .kv_width = 2 * (size_t)d };
    float   *q = random_floats(TOKENS * t.width, false, 1), *k = random_floats(TOKENS * t.kv_width, false, 2);
    float   *v = random_floats(TOKENS * t.kv_width, false, 3), *whole = filled(TOKENS * t.width, 0), *cut = filled(TOKENS * t.width, 0);
    size_t   once[] = { TOKENS }, uneven[] = { 1, 31, 33, 7, 128, 500 }, single[] = { 600, 1 };
    t.q = q, t.k = k, t.v = v;
    run_prompt(ops, &a, &t, TOKENS, once, 1, whole);
    for (int threads = 1; threads <= 4; threads *= 2) {
        nb_error err;
        nb_ops   other = *ops;
        OK(nb_pool_new(&other.pool, threads, &err), &err);
        run_prompt(&other, &a, &t, TOKENS, once, 1, cut);
        assert_memory_equal(whole, cut, 4 * TOKENS * t.width);
        run_prompt(&other, &a, &t, TOKENS, uneven, NB_COUNT(uneven), cut);
        assert_memory_equal(whole, cut, 4 * TOKENS * t.width);
        run_prompt(&other, &a, &t, TOKENS, single, 2, cut); /* 600, 1, 600: and so on */
        assert_memory_equal(whole, cut, 4 * TOKENS * t.width);

        /* the last row alone and beside three others: with four threads the former is split along the context */
        sequence s = new_sequence(&a, TOKENS);
        nb_span  all = { .first = 0, .rows = TOKENS, .past = 0, .pages = s.pages };
        other.kv_store(&other, &a, &all, 1, k, v, t.kv_width);
        for (size_t others = 0; others < 4; others++) {
            nb_span spans[4];
            for (size_t i = 0; i <= others; i++)
                spans[i] = (nb_span){ .first = TOKENS - 1 - 300 * i, .rows = 1, .past = TOKENS - 1 - 300 * i, .pages = s.pages };
            memset(cut, 0, 4 * TOKENS * t.width);
            other.attend(&other, &a, spans, others + 1, cut, t.width, q, t.width);
            for (size_t i = 0; i <= others; i++)
                assert_memory_equal(whole + spans[i].first * t.width, cut + spans[i].first * t.width, 4 * t.width);
        }
        free_sequence(&s);
        nb_pool_free(other.pool);
    }
    free(q), free(k), free(v), free(whole), free(cut);
}

/* 64 is a size for which a lone row takes another way than a chunk. */
static void chunks_and_threads(const nb_ops *ops)
{
    if (ops->isa == NB_ISA_REF) return; /* one row at a time by construction, and slow */
    chunks_and_threads_of(ops, 40, NB_BF16);
    chunks_and_threads_of(ops, 64, NB_BF16);
    chunks_and_threads_of(ops, 40, NB_I8);
    chunks_and_threads_of(ops, 64, NB_I8);
}

static void full_rows_alone(const nb_ops *ops)
{
    enum { ROWS = 150, HEADS = 2, D = 48, LD = 3 * HEADS * D };
    float *qkv = random_floats(ROWS * LD, false, 1), *all = filled(ROWS * HEADS * D, 0), *one = filled(ROWS * HEADS * D, 0);
    size_t bounds[] = { 0, 70, ROWS }, second[] = { 70, ROWS };
    ops->attend_full(ops, all, HEADS * D, qkv, LD, bounds, 2, HEADS, D, 0.1f);
    for (int threads = 1; threads <= 4; threads *= 2) {
        nb_error err;
        nb_ops   other = *ops;
        OK(nb_pool_new(&other.pool, threads, &err), &err);
        memset(one, 0, 4 * ROWS * HEADS * D);
        other.attend_full(&other, one, HEADS * D, qkv, LD, second, 1, HEADS, D, 0.1f);
        assert_memory_equal(all + 70 * HEADS * D, one + 70 * HEADS * D, 4 * 80 * HEADS * D);
        nb_pool_free(other.pool);
    }
    free(qkv), free(all), free(one);
}

/* More keys and values than are prepared at a time: heads go in groups, and each is what it is alone. */
static void full_heads_alone(const nb_ops *ops)
{
    if (ops->isa == NB_ISA_REF || ops->isa == NB_ISA_LEVELS) return; /* one row at a time by construction, and slow */
    enum { ROWS = 5500, HEADS = 3, D = 128, WIDTH = HEADS * D };
    float *qkv = random_floats((size_t)ROWS * 3 * WIDTH, false, 1), *one = filled((size_t)ROWS * 3 * D, 0);
    float *all = filled((size_t)ROWS * WIDTH, 0), *alone = filled((size_t)ROWS * D, 0);
    size_t bounds[] = { 0, 100, ROWS };
    ops->attend_full(ops, all, WIDTH, qkv, 3 * WIDTH, bounds, 2, HEADS, D, 0.09f);
    for (size_t h = 0; h < HEADS; h++) {
        for (size_t r = 0; r < ROWS; r++)
            for (size_t part = 0; part < 3; part++)
                memcpy(one + (r * 3 + part) * D, qkv + r * 3 * WIDTH + part * WIDTH + h * D, 4 * D);
        ops->attend_full(ops, alone, D, one, 3 * D, bounds, 2, 1, D, 0.09f);
        for (size_t r = 0; r < ROWS; r++) assert_memory_equal(all + r * WIDTH + h * D, alone + r * D, 4 * D);
    }
    free(qkv), free(one), free(all), free(alone);
}

/* Numbers that are none: no crash, and nothing leaks into rows that cannot see them. */
static void not_numbers_of(const nb_ops *ops, nb_dtype type)
{
    nb_attn  a = { .heads = 2, .kv_heads = 1, .head_dim = 16, .scale = 1, .kv_type = type };
    enum { ROWS = 40, BAD = 21 };
    sequence s = new_sequence(&a, ROWS);
    float   *q = random_floats(ROWS * 32, false, 1), *k = random_floats(ROWS * 16, false, 2), *v = random_floats(ROWS * 16, false, 3);
    float   *out = filled(ROWS * 32, 0);
    v[BAD * 16 + 3] = INFINITY;
    v[BAD * 16 + 4] = NAN;
    k[(BAD + 5) * 16] = INFINITY;
    k[(BAD + 6) * 16] = NAN;
    q[3 * 32 + 1] = -INFINITY;
    nb_span span = { .first = 0, .rows = ROWS, .past = 0, .pages = s.pages };
    ops->kv_store(ops, &a, &span, 1, k, v, 16);
    ops->attend(ops, &a, &span, 1, out, 32, q, 32);
    for (size_t r = 0; r < BAD; r++)
        for (size_t j = 0; j < 32; j++)
            if (r != 3 && !isfinite(out[r * 32 + j])) fail_msg("%s: row %zu is not finite", ops->name, r);
    assert_true(isnan(out[BAD * 32 + 4]));
    assert_true(isnan(out[(ROWS - 1) * 32]));
    free_sequence(&s);
    free(q), free(k), free(v), free(out);
}

static void not_numbers(const nb_ops *ops)
{
    not_numbers_of(ops, NB_F32);
    not_numbers_of(ops, NB_BF16);
    not_numbers_of(ops, NB_I8);
}

static void test_by_hand(void **state)
{
    (void)state;
    each_level(by_hand);
    each_level(weights_of_two);
}
static void test_attend(void **state)
{
    (void)state;
    each_level(attend_against_ref);
}
static void test_full(void **state)
{
    (void)state;
    each_level(full_against_ref);
}
static void test_independence(void **state)
{
    (void)state;
    each_level(chunks_and_threads);
    each_level(full_rows_alone);
    each_level(full_heads_alone);
}
static void test_not_numbers(void **state)
{
    (void)state;
    each_level(not_numbers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),      cmocka_unit_test(test_attend),      cmocka_unit_test(test_full),
        cmocka_unit_test(test_independence), cmocka_unit_test(test_not_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
