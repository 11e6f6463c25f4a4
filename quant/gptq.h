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

/* What the matrices of one site share: the order of the columns and the factor of the damped H. */
typedef struct nb_gptq_factor nb_gptq_factor;

/* h [k, k] symmetric, borrowed until the factor is freed.  Its upper triangle is read and stays; below the diagonal the factor is
 * put.  NaN and infinity are refused by name; a matrix that cannot be factored at damp_max is no error (the solver then rounds
 * to nearest).  Takes 8 * 240 k + 4 * block * k bytes, and 8 * 256 k more while it works. */
nb_status nb_gptq_factor_new(nb_gptq_factor **out, double *h, int k, const nb_gptq_options *options, nb_pool *pool, nb_error *err);
void      nb_gptq_factor_free(nb_gptq_factor *f);
/* Whether a factor serves these options too. */
bool      nb_gptq_factor_fits(const nb_gptq_factor *f, const nb_gptq_options *options);

/* w [n, k], k the factor's.  Deterministic for any number of threads.  NaN or infinity in w, and |w| beyond f16, are refused by
 * name.  Takes n k bytes beside out, 8 * min(n, slab) k with slab = 192 rows a thread, at least 768, and 4 * block * k. */
nb_status nb_gptq_solve(nb_codes *out, const float *w, int n, const nb_gptq_factor *f, const nb_gptq_options *options, nb_pool *pool,
                        nb_gptq_report *report, nb_error *err);

/* Both for one matrix; h is copied. */
nb_status nb_gptq(nb_codes *out, const float *w, const double *h, int n, int k, const nb_gptq_options *options, nb_pool *pool,
                  nb_gptq_report *report, nb_error *err);

#endif
