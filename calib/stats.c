/* stats.c - sums over tokens, in the backend's gram kernel; here only the weights of the tokens and the finishing.
 *
 * The order of the sums is the order of the calls, whatever the number of threads, so that the same samples give the same
 * bytes.
 */
#include "calib/stats.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 2048 }; /* rows whose weights are on the stack at a time */

nb_status nb_stats_init(nb_stats *s, int k, nb_error *err)
{
    memset(s, 0, sizeof *s);
    s->k = k;
    size_t square;
    bool   fits = nb_mul((size_t)k, (size_t)k, &square);
    s->gram = fits ? nb_calloc_aligned(square, sizeof *s->gram) : NULL;
    s->sum_abs = nb_calloc_aligned((size_t)k, sizeof *s->sum_abs);
    s->max_abs = nb_calloc_aligned((size_t)k, sizeof *s->max_abs);
    if (s->gram && s->sum_abs && s->max_abs) return NB_OK;
    nb_stats_free(s);
    return nb_fail(err, NB_ERR_MEMORY, "out of memory for the statistics of %d inputs (%.1f GB)", k, 8e-9 * k * k);
}

void nb_stats_free(nb_stats *s)
{
    free(s->gram);
    free(s->sum_abs);
    free(s->max_abs);
    memset(s, 0, sizeof *s);
}

void nb_stats_reset(nb_stats *s)
{
    size_t k = (size_t)s->k;
    memset(s->gram, 0, k * k * sizeof *s->gram);
    memset(s->sum_abs, 0, k * sizeof *s->sum_abs);
    memset(s->max_abs, 0, k * sizeof *s->max_abs);
    memset(s->tokens, 0, sizeof s->tokens);
    s->weight = 0;
}

void nb_stats_add(nb_stats *s, const nb_ops *ops, const float *x, size_t ld, size_t rows, const uint8_t *modality,
                  const float weights[3])
{
    bool        plain = weights[0] == 1 && weights[1] == 1 && weights[2] == 1;
    const float of[NB_TOKEN_KINDS] = {weights[0], weights[1], weights[2], 0};
    for (size_t begin = 0; begin < rows; begin += BATCH) {
        float  row_weight[BATCH];
        size_t n = rows - begin < BATCH ? rows - begin : BATCH, without = 0;
        for (size_t r = 0; r < n; r++) {
            uint8_t m = modality[begin + r];
            assert(m < NB_TOKEN_KINDS);
            row_weight[r] = of[m];
            s->weight += of[m];
            s->tokens[m]++;
            without += m == NB_TOKEN_UNCOUNTED;
        }
        ops->gram(ops, s->gram, s->sum_abs, s->max_abs, x + begin * ld, ld, n, s->k, plain && !without ? NULL : row_weight);
    }
}

void nb_stats_finish(nb_stats *s)
{
    size_t k = (size_t)s->k;
    for (size_t i = 0; i < k; i++)
        for (size_t j = i; j < k; j++) {
            double mean = s->weight > 0 ? s->gram[i * k + j] / s->weight : 0;
            s->gram[i * k + j] = s->gram[j * k + i] = mean;
        }
}

void nb_stats_mean_abs(const nb_stats *s, float *out)
{
    for (int i = 0; i < s->k; i++) out[i] = s->weight > 0 ? (float)(s->sum_abs[i] / s->weight) : 0;
}

float nb_stats_max(const nb_stats *s)
{
    float max = 0;
    for (int i = 0; i < s->k; i++) {
        if (isnan(s->max_abs[i])) return NAN; /* nothing may hide it */
        if (s->max_abs[i] > max) max = s->max_abs[i];
    }
    return max;
}
