/* stats.h - what the inputs of a linear site look like: the Gram matrix and channel magnitudes, weighted by modality.
 *
 * Until nb_stats_finish everything is an exact sum over pieces of samples (kernels/gram_sums.h): any order of the same samples, and
 * any split into statistics that are merged, gives the same bits. */
#ifndef NB_STATS_H
#define NB_STATS_H

#include "kernels/ops.h"

enum {
    NB_MODALITIES = 3, /* nb_modality */
    /* In place of an nb_modality: a token that is seen and counted, but has no weight (--loss-on assistant). */
    NB_TOKEN_UNCOUNTED = NB_MODALITIES,
    NB_TOKEN_KINDS
};

/* The tokens of one call: rows bounds[i] .. bounds[i+1]-1 are sample i, whole. */
typedef struct {
    const size_t  *bounds;   /* host [count + 1]; bounds[0] = 0 */
    size_t         count;
    const uint8_t *modality; /* host [rows]: nb_modality or NB_TOKEN_UNCOUNTED */
} nb_sample_rows;

typedef struct {
    int          k;
    nb_gram_sums sums;   /* until nb_stats_finish; h is then gram */
    double      *gram;   /* [k, k] the same memory; after nb_stats_finish E[x x'], symmetric */
    float       *max_abs; /* [k] */
    double       weight; /* sum of w_t, after nb_stats_finish */
    float        weights[NB_MODALITIES]; /* of a token, by modality */
    uint64_t     tokens[NB_TOKEN_KINDS]; /* by nb_modality, and those without weight */
    size_t       pieces; /* added since the last carry */
} nb_stats;

/* weights[m], 0 or more, is the weight of a token of modality m. */
nb_status nb_stats_init(nb_stats *s, int k, const float weights[NB_MODALITIES], nb_error *err);
void      nb_stats_free(nb_stats *s);
void      nb_stats_reset(nb_stats *s, const float weights[NB_MODALITIES]);
/* x [rows, k] in backend memory with stride ld. */
void      nb_stats_add(nb_stats *s, const nb_ops *ops, const float *x, size_t ld, const nb_sample_rows *rows);
/* The sums of `other`, of the same k and weights, on top; it is carried. */
void      nb_stats_merge(nb_stats *s, nb_stats *other, nb_pool *pool);
/* The sums of `part`, made with weights of 1, times `weight` on top, each rounded once. */
void      nb_stats_merge_weighted(nb_stats *s, const nb_stats *part, double weight, nb_pool *pool);
/* Every sum in its one form: the same value has the same words. */
void      nb_stats_carry(nb_stats *s, nb_pool *pool);
/* Inputs that are not numbers, or are beyond what the sums hold (NB_GRAM_LIMIT), are refused by column. */
nb_status nb_stats_check(const nb_stats *s, nb_error *err);
/* Once, after the last add: the Gram matrix mirrored and divided by the total weight, H = E[x x'], so that a loss on it is
 * a mean over tokens.  A set without weight leaves zeros.  Checks first. */
nb_status nb_stats_finish(nb_stats *s, nb_pool *pool, nb_error *err);
void      nb_stats_mean_abs(const nb_stats *s, float *out); /* [k] mean |x|, after nb_stats_finish */
float     nb_stats_max(const nb_stats *s);                  /* the largest |x| of all channels */

#endif
