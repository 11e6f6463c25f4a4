/* ref_gram.c - definition of the input statistics of a linear layer: H += sum_r w_r x_r x_r', and two per column.
 *
 * One item is one column j of the input: row j of the upper triangle of H (columns j..k-1), summed in double.
 */
#include <math.h>

#include "kernels/cpu/cpu.h"

typedef struct {
    double      *h, *sum_abs;
    float       *max_abs;
    const float *x, *weight;
    size_t       ldx, rows, k;
} gram_call;

static void gram_column(void *context, size_t j, int thread)
{
    (void)thread;
    const gram_call *c = context;
    for (size_t r = 0; r < c->rows; r++) {
        const float *x = c->x + r * c->ldx;
        double       weight = c->weight ? c->weight[r] : 1;
        for (size_t i = j; i < c->k; i++) c->h[j * c->k + i] += weight * x[j] * x[i];
        c->sum_abs[j] += weight * fabs(x[j]);
        if (fabsf(x[j]) > c->max_abs[j] || isnan(x[j])) c->max_abs[j] = fabsf(x[j]); /* a NaN stays */
    }
}

static void gram(const nb_ops *ops, double *h, double *sum_abs, float *max_abs, const float *x, size_t ldx, size_t rows,
                 int k, const float *weight)
{
    gram_call call = { .h = h, .sum_abs = sum_abs, .max_abs = max_abs, .x = x, .weight = weight, .ldx = ldx, .rows = rows,
                       .k = (size_t)k };
    nb_parallel(ops->pool, (size_t)k, gram_column, &call);
}

void nb_ref_fill_gram(nb_ops *ops)
{
    ops->gram = gram;
}
