/* stats.h - what the inputs of a linear site look like: the Gram matrix and channel magnitudes, weighted by modality. */
#ifndef NB_STATS_H
#define NB_STATS_H

#include "kernels/ops.h"
#include "runtime/model/model.h"

/* In place of an nb_modality: a token that is seen and counted, but has no weight (--loss-on assistant). */
enum { NB_TOKEN_UNCOUNTED = 3, NB_TOKEN_KINDS };

typedef struct {
    int      k;
    double  *gram;      /* [k, k] sum of w_t x_t x_t', upper triangle; after nb_stats_finish E[x x'], symmetric */
    double  *sum_abs;   /* [k] sum of w_t |x_t| */
    float   *max_abs;   /* [k] */
    double   weight;    /* sum of w_t */
    uint64_t tokens[NB_TOKEN_KINDS]; /* by nb_modality, and those without weight */
} nb_stats;

nb_status nb_stats_init(nb_stats *s, int k, nb_error *err);
void      nb_stats_free(nb_stats *s);
void      nb_stats_reset(nb_stats *s);
/* rows of x with the modality of each; weights[m] is the weight of modality m, NB_TOKEN_UNCOUNTED has none. */
void      nb_stats_add(nb_stats *s, const nb_ops *ops, const float *x, size_t ld, size_t rows, const uint8_t *modality,
                       const float weights[3]);
/* Once, after the last add: the Gram matrix mirrored and divided by the total weight, H = E[x x'], so that a loss on it is
 * a mean over tokens.  A set without weight leaves zeros. */
void      nb_stats_finish(nb_stats *s);
void      nb_stats_mean_abs(const nb_stats *s, float *out); /* [k] mean |x| */
float     nb_stats_max(const nb_stats *s);                  /* the largest |x| of all channels */

#endif
