/* test_kernels_probe.c - probes do what they count: their results are computed again here in plain C, operation by operation, so that
 * nothing of their work can have been left out.  No test looks at a clock. */
#include "kernels/probe.h"
#include "unit.h"

#include <math.h>

/* As probe_body.h folds any bytes. */
static uint64_t fold(const void *bytes, size_t count)
{
    uint64_t all = 0, word;
    for (size_t i = 0; i + 8 <= count; i += 8) {
        memcpy(&word, (const uint8_t *)bytes + i, 8);
        all = all * 31 + word;
    }
    return all;
}

/* Chains and bytes of a register of a level. */
typedef struct {
    const char *level;
    int         chains, bytes;
} width;
static const width widths[] = { { "avx2", 10, 32 }, { "avx512", 16, 64 } };

static const width *width_of(const nb_probe *p)
{
    for (size_t i = 0; i < NB_COUNT(widths); i++)
        if (!strcmp(widths[i].level, p->level)) return &widths[i];
    return NULL;
}

static uint64_t f32_result(const width *w, const nb_probe_data *d, size_t steps)
{
    int      lanes = w->bytes / 4;
    uint64_t all = 0;
    for (int c = 0; c < w->chains; c++) {
        float sum[16];
        for (int l = 0; l < lanes; l++) {
            sum[l] = d->f32[c * lanes + l];
            for (size_t i = 0; i < 2 * steps; i++)
                sum[l] = fmaf(sum[l], d->f32[(w->chains + (int)(i % 2)) * lanes + l], d->f32[(w->chains + 2 + (int)(i % 2)) * lanes + l]);
        }
        all ^= fold(sum, (size_t)w->bytes);
    }
    return all;
}

static uint64_t f64_result(const width *w, const nb_probe_data *d, size_t steps)
{
    int      lanes = w->bytes / 8;
    uint64_t all = 0;
    for (int c = 0; c < w->chains; c++) {
        double sum[8];
        for (int l = 0; l < lanes; l++) {
            sum[l] = d->f64[c * lanes + l];
            for (size_t i = 0; i < 2 * steps; i++)
                sum[l] = fma(sum[l], d->f64[(w->chains + (int)(i % 2)) * lanes + l], d->f64[(w->chains + 2 + (int)(i % 2)) * lanes + l]);
        }
        all ^= fold(sum, (size_t)w->bytes);
    }
    return all;
}

static uint64_t ref_f64_result(const nb_probe_data *d, size_t steps)
{
    double all = 0;
    for (int c = 0; c < 8; c++) {
        double sum = d->f64[c];
        for (size_t i = 0; i < 2 * steps; i++) {
            double product = sum * d->f64[8 + i % 2];
            sum = product + d->f64[10 + i % 2];
        }
        all += sum;
    }
    uint64_t bits;
    memcpy(&bits, &all, 8);
    return bits;
}

static int16_t half_at(const uint8_t *p)
{
    int16_t v;
    memcpy(&v, p, 2);
    return v;
}

/* 32-bit sums that wrap around; a lane has four bytes. */
static uint64_t dot_result(const width *w, const nb_probe_data *d, size_t steps, bool bytes)
{
    uint64_t all = 0;
    for (int c = 0; c < w->chains; c++) {
        uint32_t sum[16];
        for (int l = 0; l < w->bytes / 4; l++) {
            memcpy(&sum[l], d->bits + c * w->bytes + 4 * l, 4);
            for (size_t i = 0; i < 2 * steps; i++) {
                const uint8_t *x = d->bits + (w->chains + (int)(i % 2)) * w->bytes + 4 * l, *y = x + 2 * w->bytes;
                int64_t        product = 0;
                if (bytes)
                    for (int b = 0; b < 4; b++) product += x[b] * (int8_t)y[b];
                else
                    for (int b = 0; b < 4; b += 2) product += (int64_t)half_at(x + b) * half_at(y + b);
                sum[l] += (uint32_t)product;
            }
        }
        all ^= fold(sum, (size_t)w->bytes);
    }
    return all;
}

static uint64_t expected(const nb_probe *p, const nb_probe_data *d, size_t steps)
{
    const width *w = width_of(p);
    if (!w) return ref_f64_result(d, steps);
    switch (p->kind) {
    case NB_PROBE_F32: return f32_result(w, d, steps);
    case NB_PROBE_F64: return f64_result(w, d, steps);
    case NB_PROBE_DOT16: return dot_result(w, d, steps, false);
    case NB_PROBE_DOT8: return dot_result(w, d, steps, true);
    default: fail_msg("a probe of a kind that this test does not know: %s", p->name);
    }
    return 0;
}

static void test_results(void **state)
{
    (void)state;
    nb_error         err;
    nb_probe_memory *m;
    int              tried = 0;
    OK(nb_probe_memory_new(&m, NULL, 0, &err), &err);
    for (size_t i = 0; i < nb_probe_count(); i++) {
        const nb_probe *p = nb_probe_at(i);
        if (p->read || p->kind >= NB_PROBE_TILE_BF16) continue;
        if (!nb_probe_there(p)) {
            fprintf(stderr, "SKIP probe %s of %s: this machine does not have it\n", p->name, p->level);
            continue;
        }
        for (size_t steps = 0; steps < 40; steps += 13)
            if (p->compute(&m->data, steps) != expected(p, &m->data, steps))
                fail_msg("%s of %s: after %zu steps the sums are others", p->name, p->level, steps);
        tried++;
    }
    assert_true(tried > 0);
    nb_probe_memory_free(m);
}

/* Tiles are not computed again here: on a machine that has them, more steps must give other sums. */
static void test_tiles(void **state)
{
    (void)state;
    nb_error         err;
    nb_probe_memory *m;
    OK(nb_probe_memory_new(&m, NULL, 0, &err), &err);
    for (size_t i = 0; i < nb_probe_count(); i++) {
        const nb_probe *p = nb_probe_at(i);
        if (p->kind < NB_PROBE_TILE_BF16) continue;
        if (nb_probe_there(p))
            assert_true(p->compute(&m->data, 1) != p->compute(&m->data, 2));
        else
            fprintf(stderr, "SKIP probe %s: this machine does not have it\n", p->name);
    }
    nb_probe_memory_free(m);
}

/* Operations of an item, counted by hand: 2048 steps of two instructions of each chain (tiles: one), of so many multiplications and as
 * many additions. */
static void test_counts(void **state)
{
    (void)state;
    static const struct {
        nb_probe_kind kind;
        const char   *level;
        double        work;
    } counts[] = {
        { NB_PROBE_READ, "ref", 4.0 * 512 * 1024 },
        { NB_PROBE_READ, "avx512", 4.0 * 512 * 1024 },
        { NB_PROBE_F64, "ref", 2048.0 * 2 * 8 * 1 * 2 },
        { NB_PROBE_F32, "avx2", 2048.0 * 2 * 10 * 8 * 2 },
        { NB_PROBE_F32, "avx512", 2048.0 * 2 * 16 * 16 * 2 },
        { NB_PROBE_F64, "avx512", 2048.0 * 2 * 16 * 8 * 2 },
        { NB_PROBE_DOT16, "avx2", 2048.0 * 2 * 10 * 16 * 2 },
        { NB_PROBE_DOT16, "avx512", 2048.0 * 2 * 16 * 32 * 2 },
        { NB_PROBE_DOT8, "avx512", 2048.0 * 2 * 16 * 64 * 2 },
        { NB_PROBE_TILE_BF16, "amx", 2048.0 * 4 * 16 * 16 * 32 * 2 },
        { NB_PROBE_TILE_INT8, "amx", 2048.0 * 4 * 16 * 16 * 64 * 2 },
    };
    for (size_t c = 0; c < NB_COUNT(counts); c++) {
        const nb_probe *found = NULL;
        for (size_t i = 0; i < nb_probe_count(); i++) {
            const nb_probe *p = nb_probe_at(i);
            if (p->kind == counts[c].kind && !strcmp(p->level, counts[c].level)) found = p;
        }
#if defined(__x86_64__)
        assert_non_null(found);
#endif
        if (found) NEAR(found->work, counts[c].work, 0);
    }
}

/* What an item reads, word by word. */
static void test_reads(void **state)
{
    (void)state;
    enum { SIZE = 3 * NB_PROBE_STREAMS * NB_PROBE_PIECE, STRIDE = SIZE / NB_PROBE_STREAMS };
    nb_error         err;
    nb_pool         *pool;
    nb_probe_memory *m;
    OK(nb_pool_new(&pool, 2, &err), &err);
    OK(nb_probe_memory_new(&m, pool, SIZE + 4095, &err), &err);
    assert_int_equal(m->size, SIZE);
    assert_int_equal((uintptr_t)m->bytes % (2 << 20), 0);
    uint64_t lines[NB_PROBE_STREAMS][8] = { { 0 } }, words = 0;
    for (size_t s = 0; s < NB_PROBE_STREAMS; s++)
        for (size_t i = 0; i < NB_PROBE_PIECE / 8; i++) {
            uint64_t word;
            memcpy(&word, m->bytes + NB_PROBE_PIECE + s * STRIDE + 8 * i, 8);
            lines[s][i % 8] ^= word;
            words ^= word;
        }
    for (size_t i = 0; i < nb_probe_count(); i++) {
        const nb_probe *p = nb_probe_at(i);
        if (!p->read || !nb_probe_there(p)) continue;
        uint64_t got = p->read(m->bytes + NB_PROBE_PIECE, STRIDE), want = width_of(p) ? fold(lines, sizeof lines) : words;
        if (got != want) fail_msg("%s of %s does not read what it says", p->name, p->level);
        NEAR(nb_probe_run(p, pool, m, 7), 7.0 * NB_PROBE_STREAMS * NB_PROBE_PIECE, 0); /* beyond the end it begins again */
    }
    nb_probe_memory_free(m);
    FAILS(nb_probe_memory_new(&m, pool, 1000, &err), NB_ERR_ARGUMENT, "not 1000", &err);
    FAILS(nb_probe_memory_new(&m, pool, SIZE_MAX / 2, &err), NB_ERR_MEMORY, "ask for less", &err);
    nb_pool_free(pool);
}

/* The best one that a level may use, and none that it may not. */
static void test_choice(void **state)
{
    (void)state;
    for (nb_isa isa = NB_ISA_REF; isa < NB_ISA_LEVELS; isa++) {
        if (nb_isa_detect(isa) != isa) continue;
        for (int kind = 0; kind < NB_PROBE_KINDS; kind++) {
            const nb_probe *p = nb_probe_of(kind, isa);
            if (p) assert_true(p->kind == (nb_probe_kind)kind && p->isa <= isa);
        }
        assert_non_null(nb_probe_of(NB_PROBE_READ, isa));
        assert_non_null(nb_probe_of(NB_PROBE_F64, isa));
    }
    assert_null(nb_probe_of(NB_PROBE_F32, NB_ISA_REF));
    assert_null(nb_probe_of(NB_PROBE_DOT16, NB_ISA_REF));
#if defined(__x86_64__)
#if defined(__x86_64__)
    if (nb_isa_detect(NB_ISA_AVX512) == NB_ISA_AVX512) {
        assert_string_equal(nb_probe_of(NB_PROBE_F32, NB_ISA_AVX2)->level, "avx2");
        assert_string_equal(nb_probe_of(NB_PROBE_F32, NB_ISA_AVX512)->level, "avx512");
        /* an instruction of twice the width counts twice the work a chain */
        assert_true(nb_probe_of(NB_PROBE_F32, NB_ISA_AVX512)->work / 16 == 2 * nb_probe_of(NB_PROBE_F32, NB_ISA_AVX2)->work / 10);
    }
#endif
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_results), cmocka_unit_test(test_tiles),  cmocka_unit_test(test_counts),
        cmocka_unit_test(test_reads),   cmocka_unit_test(test_choice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
