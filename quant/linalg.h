/* linalg.h - the dense double arithmetic behind the solvers.
 *
 * BLAS is called single-threaded from tiles whose shape depends on the problem alone, so that a result has the same bits
 * for any number of threads.
 */
#ifndef NB_LINALG_H
#define NB_LINALG_H

#include "kernels/base.h"
#include "kernels/threads.h"

/* nb_parallel for bodies that call BLAS.  A sequential or OpenMP build of OpenBLAS hands the same work buffer to two threads
 * now and then, and returns wrong numbers without a word; with one of those the items run on the calling thread.  The
 * pthreads build has the lock, and is told to use no threads of its own. */
void nb_parallel_blas(nb_pool *pool, size_t items, nb_body *body, void *context);

/* Fortran LAPACK as OpenBLAS exports it, column major. */
void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info);
void dtrtri_(const char *uplo, const char *diag, const int *n, double *a, const int *lda, int *info);

/* Refuse, naming the place: a weight of w [n, k] that is NaN, infinite or beyond f16 (a scale could not hold it); an entry
 * of the Gram matrix h [k, k] that is NaN or beyond 1e100, which no input in f32 gives, or a negative diagonal. */
nb_status nb_check_weights(const float *w, int n, int k, nb_error *err);
nb_status nb_check_gram(const double *h, int k, nb_error *err);

/* Mean of diag H over live columns, those with energy, without overflow; 1 when none is alive. */
double nb_gram_mean(const double *h, int k, int *dead);

/* a [k, k] row-major symmetric, of which only the lower triangle is read: a = L L'.  Afterwards the upper triangle with the
 * diagonal holds (L^-1)', and the rest is undefined.  *positive is false, and the upper triangle undefined, when a squared
 * pivot is not above floor: the matrix is not positive definite to working precision. */
nb_status nb_cholesky_inverse(double *a, int k, double floor, bool *positive, nb_pool *pool, nb_error *err);

#endif
