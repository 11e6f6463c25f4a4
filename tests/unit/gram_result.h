/* gram_result.h - sums of a gram call in memory of their exact size, and their values. */
#ifndef NB_GRAM_RESULT_H
#define NB_GRAM_RESULT_H

#include "levels.h"

typedef struct {
    size_t       k;
    nb_gram_sums s;
} gram_result;

static inline gram_result new_result(size_t k)
{
    gram_result r = {k, {calloc(k * k, 8), calloc(k, 8), calloc(2 * k, 8), calloc(k, 4), nb_calloc_aligned(nb_gram_work(k), 4)}};
    return r;
}

static inline void free_result(gram_result *r)
{
    free(r->s.h), free(r->s.diagonal), free(r->s.sum_abs), free(r->s.max_abs), free(r->s.work);
}

static inline double h_at(const gram_result *r, size_t i, size_t j)
{
    size_t a = i < j ? i : j, b = i < j ? j : i, k = r->k;
    return nb_fixed_value(r->s.h[a * k + b], a == b ? r->s.diagonal[a] : r->s.h[nb_gram_low(k, a, b)]);
}

static inline double abs_at(const gram_result *r, size_t i)
{
    return nb_fixed_value(r->s.sum_abs[i], r->s.sum_abs[r->k + i]);
}

static inline void assert_same_result(const gram_result *a, const gram_result *b)
{
    assert_memory_equal(a->s.h, b->s.h, a->k * a->k * 8);
    assert_memory_equal(a->s.diagonal, b->s.diagonal, a->k * 8);
    assert_memory_equal(a->s.sum_abs, b->s.sum_abs, 2 * a->k * 8);
    assert_memory_equal(a->s.max_abs, b->s.max_abs, a->k * 4);
}

#endif
