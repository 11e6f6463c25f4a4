/* paired.c - see paired.h. */
#include "tools/eval/paired.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { RESAMPLES = 10000 };

/* 2 P(X <= min(lost, gained)) for X ~ Binomial(lost + gained, 1/2), at most 1.  Terms in logarithms: 2^-n is 0 from n = 1075 on. */
static double mcnemar(size_t lost, size_t gained)
{
    size_t n = lost + gained, least = lost < gained ? lost : gained;
    double sum = 0, term = -(double)n * log(2); /* ln of C(n, k) / 2^n, k = 0 */
    for (size_t k = 0; k <= least; k++) {
        sum += exp(term);
        term += log((double)(n - k)) - log((double)k + 1);
    }
    return fmin(1, 2 * sum);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Percentiles 2.5 and 97.5 of the mean of n questions drawn with replacement. */
static nb_status bootstrap(nb_paired *out, const double *difference, size_t n, nb_error *err)
{
    double  *means;
    uint64_t state = 0;
    NB_TRY(nb_alloc(&means, RESAMPLES, sizeof *means, "a bootstrap", err));
    for (int i = 0; i < RESAMPLES; i++) {
        double sum = 0;
        for (size_t j = 0; j < n; j++) sum += difference[(size_t)((nb_random64(&state) >> 32) * (uint64_t)n >> 32)];
        means[i] = 100 * sum / (double)n;
    }
    qsort(means, RESAMPLES, sizeof *means, ascending);
    out->low = means[RESAMPLES / 40];
    out->high = means[RESAMPLES - 1 - RESAMPLES / 40];
    free(means);
    return NB_OK;
}

nb_status nb_paired_compare(nb_paired *out, const double *baseline, const double *other, size_t n, nb_error *err)
{
    double *difference, sum = 0;
    *out = (nb_paired){ .items = n, .p = 1 };
    if (n == 0) return NB_OK;
    NB_TRY(nb_alloc(&difference, n, sizeof *difference, "differences", err));
    for (size_t i = 0; i < n; i++) {
        difference[i] = other[i] - baseline[i];
        sum += difference[i];
        out->lost += difference[i] < 0;
        out->gained += difference[i] > 0;
    }
    out->difference = 100 * sum / (double)n;
    out->p = mcnemar(out->lost, out->gained);
    nb_status status = bootstrap(out, difference, n, err);
    free(difference);
    return status;
}
