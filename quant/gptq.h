/* gptq.h - GPTQ (Frantar et al. 2022, arXiv 2210.17323): round columns one by one, push each error into the columns left. */
#ifndef NB_GPTQ_H
#define NB_GPTQ_H

#include "quant/grid.h"

typedef enum { NB_ORDER_NONE, NB_ORDER_GROUP, NB_ORDER_FULL } nb_act_order; /* GROUP keeps g_idx trivial (GAR) */

typedef struct {
    nb_grid      grid;
    double       damp;          /* lambda = damp * mean(diag H) over the live columns, 0.01 */
    double       damp_max;      /* doubled up to this while the factorisation fails, 1.0 */
    int          block;         /* columns per lazy update, 128 */
    nb_act_order order;
    bool         static_groups; /* scales from the original weights before the loop; with FULL order g_idx stays trivial */
    nb_range     range;         /* how each group's range is found */
    int          sweeps;        /* of coordinate descent afterwards, with scales (refine.h), 0: none */
    float        mse;           /* exponent of the searches MSE and ENERGY (2.4 and 2 typical) */
} nb_gptq_options;

typedef struct {
    double loss;       /* tr((W-Q) H (W-Q)') / n */
    double rtn_loss;   /* the same for round-to-nearest on this grid */
    double damp;       /* used */
    int    dead;       /* columns that no token ever touched: rounded to nearest, not zeroed, since other data may touch them */
    bool   fallback;   /* rounded to nearest: the factorisation failed at damp_max, or the solution lost more than that */
} nb_gptq_report;

/* w [n, k]; h [k, k] symmetric, read only.  Deterministic for any number of threads.  NaN or infinity in w or h, and |w|
 * beyond f16, are refused by name.  Takes 8 k^2 + 8 n k bytes beside its arguments. */
nb_status nb_gptq(nb_codes *out, const float *w, const double *h, int n, int k, const nb_gptq_options *options, nb_pool *pool,
                  nb_gptq_report *report, nb_error *err);

#endif
