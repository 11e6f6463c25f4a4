/* awq.h - AWQ (Lin et al. 2023, arXiv 2306.00978): move activation magnitude into the weights before rounding them.
 *
 * For a scale s per input channel, W x = (W s)(x / s).  The loss of s on inputs with Gram matrix H is
 *     L(s) = tr(dW H dW'),  dW = W - Q(W s) / s
 * so that the search needs H alone, no stored activations.
 */
#ifndef NB_AWQ_H
#define NB_AWQ_H

#include "quant/grid.h"

typedef struct {
    nb_grid grid;
    int     points;      /* ratios r = i / points, 20 */
    bool    duo;         /* s = x^r / w^(1-r) as well as s = x^r; x: mean |input|, w: mean |weight| / largest of its group */
} nb_awq_options;

typedef struct {
    double loss;         /* of the chosen scale, over all consumers / rows */
    double plain_loss;   /* of s = 1 (round to nearest) */
    double ratio;        /* r; negative: s = 1 was best */
} nb_awq_report;

/* Find s [k] for the matrices that share one input: consumers[i] is [rows[i], k].  mean_abs [k], h [k, k].  s = 1 is always
 * a candidate, so the result is never worse than plain rounding by this loss.  Channels that no token touched get 1.  s is an f16 value in 1/256 .. 256.
 * Large layers are searched on a fixed sample of rows; the losses reported, and the last word on s = 1, are of all rows.
 * tie: NULL, or [k] with the index of a representative: channels with equal representatives must share one scale (GQA). */
nb_status nb_awq_search(float *s, const float *const *consumers, const int *rows, int count, int k, const double *h,
                        const float *mean_abs, const int32_t *tie, const nb_awq_options *options, nb_pool *pool,
                        nb_awq_report *report, nb_error *err);

/* Clip each group of w [n, k] in place at the |w| limit among 1, .95 .. .55 of its maximum that minimises the error of the
 * group's partial product on inputs with Gram matrix h (its diagonal block). */
nb_status nb_awq_clip(float *w, const double *h, int n, int k, const nb_grid *grid, nb_pool *pool, nb_error *err);

#endif
