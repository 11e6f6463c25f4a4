/* levels.h - for tests of kernels: every level of the machine, guarded buffers, comparisons with a bound per element. */
#ifndef NB_LEVELS_H
#define NB_LEVELS_H

#include "kernels/ops.h"
#include "unit.h"

/* Run `body(ops)` for every level that the machine has, with two threads; say which are skipped. */
static inline void each_level(void (*body)(const nb_ops *ops))
{
    for (nb_isa isa = NB_ISA_REF; isa < NB_ISA_LEVELS; isa++) {
        if (nb_isa_detect(isa) != isa) {
            fprintf(stderr, "SKIP level %s: this machine does not have it\n", nb_isa_name(isa));
            continue;
        }
        nb_error err;
        nb_pool *pool;
        nb_ops   ops;
        OK(nb_pool_new(&pool, 2, &err), &err);
        nb_ops_init(&ops, isa, pool);
        body(&ops);
        nb_pool_free(pool);
    }
}

static inline nb_ops level_ops(nb_isa isa, nb_pool *pool)
{
    nb_ops ops;
    nb_ops_init(&ops, isa, pool);
    return ops;
}

/* ---- buffers --------------------------------------------------------------- */

/* n floats of NaN (an output that is not written stays one) between two fences. */
enum { FENCE = 32 };
static const uint32_t fence_bits = 0x7fabcdefu, poison_bits = 0x7fc0dead;

static inline float *guarded(size_t n)
{
    uint32_t *p = malloc((n + 2 * FENCE) * 4);
    assert_non_null(p);
    for (size_t i = 0; i < n + 2 * FENCE; i++) p[i] = i < FENCE || i >= FENCE + n ? fence_bits : poison_bits;
    return (float *)(p + FENCE);
}

/* True when nothing was written around the n floats. */
static inline bool fences_stand(const float *p, size_t n)
{
    for (size_t i = 0; i < FENCE; i++) {
        uint32_t before, behind;
        memcpy(&before, p - FENCE + i, 4);
        memcpy(&behind, p + n + i, 4);
        if (before != fence_bits || behind != fence_bits) return false;
    }
    return true;
}

static inline void free_guarded(float *p)
{
    if (p) free(p - FENCE);
}

/* Exactly n floats, so that a sanitizer sees an over-read. */
static inline float *filled(size_t n, float value)
{
    float *p = malloc(n ? 4 * n : 1);
    assert_non_null(p);
    for (size_t i = 0; i < n; i++) p[i] = value;
    return p;
}

/* Normal numbers; with `outliers` one in 50 is 100 times as large, as activations of language models are. */
static inline float *random_floats(size_t n, bool outliers, uint64_t seed)
{
    float *p = filled(n, 0);
    for (size_t i = 0; i < n; i++) {
        p[i] = unit_normal(&seed);
        if (outliers && unit_random(&seed) % 50 == 0) p[i] *= 100;
    }
    return p;
}

/* ---- comparison -------------------------------------------------------------- */

/* Index of the first element with |got - want| > relative |want| + absolute, or n.  A NaN disagrees with everything. */
static inline size_t first_difference(const float *got, const float *want, size_t n, double relative, double absolute)
{
    size_t i = 0;
    while (i < n && fabs((double)got[i] - want[i]) <= relative * fabs((double)want[i]) + absolute) i++;
    return i;
}

#define AGREE(ops, got, want, n, relative, absolute, ...)                                                       \
    do {                                                                                                        \
        size_t agree_at = first_difference(got, want, n, relative, absolute);                                   \
        if (agree_at < (n)) {                                                                                   \
            fprintf(stderr, "%s: " , (ops)->name);                                                              \
            fprintf(stderr, __VA_ARGS__);                                                                       \
            fail_msg(": element %zu is %.9g, expected %.9g", agree_at, (got)[agree_at], (want)[agree_at]);      \
        }                                                                                                       \
        assert_true(fences_stand(got, n));                                                                      \
    } while (0)

static inline double largest(const float *p, size_t n)
{
    double m = 0;
    for (size_t i = 0; i < n; i++) m = fabs((double)p[i]) > m ? fabs((double)p[i]) : m;
    return m;
}

#endif
