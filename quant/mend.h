/* mend.h - the matrix that a solver should round when its inputs are no longer those of the original model. */
#ifndef NB_MEND_H
#define NB_MEND_H

#include "kernels/base.h"
#include "kernels/threads.h"

/* w [n, k] becomes V = W + (W D + P) (H + lambda I)^-1, lambda = damp * mean(diag H) over the live columns: what comes nearest to
 * W x + r from y, of all matrices that stay near W along inputs that the data hardly shows.
 *     h [k, k] E[y y'], symmetric     lost [k, k] D = E[(x - y) y']     drift [n, k] P = E[r y'], or NULL
 * The damping is raised up to 1 while the factorisation fails, and then w is left alone, as are rows that no f16 could hold.
 * Deterministic for any number of threads; takes 8 k^2 + threads * 64 * 16 k bytes.  Refuses NaN and infinity in h by name. */
nb_status nb_mend(float *w, const double *h, const float *lost, const float *drift, int n, int k, double damp,
                            nb_pool *pool, nb_error *err);

#endif
