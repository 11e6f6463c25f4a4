/* refine.h - better codes and scales for a matrix that was already rounded, by coordinate descent on the output error
 *     tr((Q - V) H (Q - V)')
 * of targets V on inputs with Gram matrix H.  Never worse than what it starts from, by this loss. */
#ifndef NB_REFINE_H
#define NB_REFINE_H

#include "quant/grid.h"

typedef struct {
    int    sweeps; /* over all columns, at most; rows that stand still end earlier */
    bool   scales; /* re-fit scales, and zeros of an asymmetric grid, between the groups of a sweep */
    double damp;   /* H + lambda I in place of H, lambda = damp * mean(diag H) over the live columns */
} nb_refine_options;

/* q: the start and the result; its grid stays.  v [n, k], h [k, k] symmetric, its upper triangle read.  Deterministic for any number of threads.
 * Refuses what nb_gptq refuses.  Takes 4 k^2 + threads * 4 * 64 * (k + 2 group) bytes beside its arguments. */
nb_status nb_refine(nb_codes *q, const float *v, const double *h, bool sym, const nb_refine_options *options, nb_pool *pool,
                    nb_error *err);

#endif
