/* linalg.h - the dense double arithmetic behind the solvers.
 *
 * Work is cut into tiles whose shape depends on the problem alone, so that a result has the same bits for any number of
 * threads; where BLAS does a tile it is single-threaded.
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
 * of the upper triangle of the Gram matrix h [k, k] that is NaN or beyond 1e100, which no input in f32 gives, or a negative diagonal. */
nb_status nb_check_weights(const float *w, int n, int k, nb_error *err);
nb_status nb_check_gram(const double *h, int k, nb_pool *pool, nb_error *err);

/* Mean of diag H over live columns, those with energy, without overflow; 1 when none is alive. */
double nb_gram_mean(const double *h, int k, int *dead);
/* Element of a symmetric matrix of which only the upper triangle may be read: a factor can lie below. */
static inline double nb_upper(const double *h, int k, int r, int c)
{
    return r <= c ? h[(size_t)r * k + c] : h[(size_t)c * k + r];
}

/* The lower triangle of a symmetric matrix, in squares of NB_LOWER_TILE: those of the diagonal lie in `tiles`, the others at
 * their place in a [k, k].  The rest of a is never touched: it may hold another matrix. */
enum { NB_LOWER_TILE = 240 }; /* whole register tiles at every level */
typedef struct {
    int     k, blocks;
    double *a;     /* borrowed */
    double *tiles; /* [blocks, NB_LOWER_TILE, NB_LOWER_TILE] */
} nb_lower;

nb_status nb_lower_init(nb_lower *l, double *a, int k, nb_error *err); /* tiles are not set */
void      nb_lower_free(nb_lower *l);

/* Element (r, c), c <= r; it is followed by (r, c + 1) unless that begins a square of the diagonal. */
static inline double *nb_lower_at(const nb_lower *l, int r, int c)
{
    int block = r / NB_LOWER_TILE;
    return c >= block * NB_LOWER_TILE ? l->tiles + ((size_t)block * NB_LOWER_TILE + r % NB_LOWER_TILE) * NB_LOWER_TILE + c % NB_LOWER_TILE
                                      : l->a + (size_t)r * l->k + c;
}

/* A = L L' in place; above the diagonal the tiles hold anything.  *positive is false, and l undefined, when a squared pivot is not
 * above floor: the matrix is not positive definite to working precision.  Takes 8 * 256 * k bytes and a little more. */
nb_status nb_lower_factor(nb_lower *l, double floor, bool *positive, nb_pool *pool, nb_error *err);

#endif
