/* ref_gram.c - definition of the input statistics of a linear layer: H += sum_r w_r x_r x_r', and two per column.
 *
 * One item is one column j of the input: row j of the upper triangle of H (columns j..k-1).  A piece is summed in double, then
 * added to the exact sums.
 */
#include <math.h>

#include "kernels/cpu/cpu.h"

enum { COLUMNS = 64 /* summed side by side */ };

typedef struct {
    const nb_gram_sums *sums;
    const float        *x, *weight;
    size_t              ldx, k, samples;
    const size_t       *bounds;
} gram_call;

/* sums[i] = sum_r w_r x_rj x_r,first+i of rows begin .. end-1, i < n */
static void products_of(double *sums, const gram_call *c, size_t j, size_t first, size_t n, size_t begin, size_t end)
{
    for (size_t i = 0; i < n; i++) sums[i] = 0;
    for (size_t r = begin; r < end; r++) {
        const float *x = c->x + r * c->ldx;
        double       weight = c->weight ? c->weight[r] : 1;
        for (size_t i = 0; weight != 0 && i < n; i++) sums[i] += weight * x[j] * x[first + i];
    }
}

static void add_columns(const gram_call *c, size_t j, size_t first, size_t n, size_t begin, size_t end)
{
    const nb_gram_sums *s = c->sums;
    double              sums[COLUMNS];
    products_of(sums, c, j, first, n, begin, end);
    for (size_t i = first; i < first + n; i++) {
        int64_t *low = i == j ? &s->diagonal[j] : &s->h[nb_gram_low(c->k, j, i)];
        nb_fixed_add(&s->h[j * c->k + i], low, sums[i - first]);
        if (i == j) s->max_abs[j] = nb_gram_mark(s->max_abs[j], sums[i - first]);
    }
}

static void add_piece(const gram_call *c, size_t j, size_t begin, size_t end)
{
    const nb_gram_sums *s = c->sums;
    double              sum_abs = 0;
    for (size_t r = begin; r < end; r++) {
        double weight = c->weight ? c->weight[r] : 1;
        float  magnitude = fabsf(c->x[r * c->ldx + j]);
        if (weight != 0) sum_abs += weight * magnitude;
        s->max_abs[j] = nb_gram_larger(s->max_abs[j], magnitude);
    }
    nb_fixed_add(&s->sum_abs[j], &s->sum_abs[c->k + j], sum_abs);
    for (size_t i = j; i < c->k; i += COLUMNS) add_columns(c, j, i, c->k - i < COLUMNS ? c->k - i : COLUMNS, begin, end);
}

static void gram_column(void *context, size_t j, int thread)
{
    (void)thread;
    const gram_call *c = context;
    for (size_t sample = 0; sample < c->samples; sample++)
        for (size_t begin = c->bounds[sample], end = c->bounds[sample + 1]; begin < end; begin += NB_GRAM_ROWS)
            add_piece(c, j, begin, end - begin < NB_GRAM_ROWS ? end : begin + NB_GRAM_ROWS);
}

static void gram(const nb_ops *ops, const nb_gram_sums *sums, const float *x, size_t ldx, int k, const size_t *bounds,
                 size_t samples, const float *weight)
{
    gram_call call = {.sums = sums, .x = x, .weight = weight, .ldx = ldx, .k = (size_t)k, .samples = samples, .bounds = bounds};
    nb_parallel(ops->pool, (size_t)k, gram_column, &call);
}

void nb_ref_fill_gram(nb_ops *ops)
{
    ops->gram = gram;
}
