/* linalg.c - blocked Cholesky factor and its inverse, in place, and the checks of what the solvers are given.
 *
 * LAPACK's own routines would run on one core: 60 s and more for the 18944 inputs of a 7B model's down_proj.  Here the matrix
 * is cut into TILE x TILE blocks; LAPACK factors the diagonal ones and BLAS updates the others, which are independent.
 *
 * Row-major and lower here is column-major and upper to Fortran: "U" below.
 */
#include "quant/linalg.h"

#include <cblas.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { TILE = 256 };

/* The pthread flavour is linked because the serial one shares its buffers without a lock (0.3.21), but it starts threads when
 * it is loaded: they are sent home, nibble's pool is the only one.  Weak: another flavour may stand in its place. */
extern int blas_thread_shutdown_(void) __attribute__((weak));

static void single_threaded(void)
{
    openblas_set_num_threads(1);
    if (openblas_get_parallel() == OPENBLAS_THREAD && blas_thread_shutdown_) blas_thread_shutdown_();
}

void nb_parallel_blas(nb_pool *pool, size_t items, nb_body *body, void *context)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, single_threaded);
    if (openblas_get_parallel() == OPENBLAS_THREAD)
        nb_parallel(pool, items, body, context);
    else
        for (size_t i = 0; i < items; i++) body(context, i, 0);
}

typedef struct {
    double *a;        /* [k, k] */
    double *diagonal; /* [blocks, TILE, TILE] transposed inverses of the diagonal blocks: a itself still holds the factors */
    int     k, blocks, step;
} factor;

static int block_size(const factor *f, int block)
{
    return block == f->blocks - 1 ? f->k - block * TILE : TILE;
}

static double *block_at(const factor *f, int row, int column)
{
    return f->a + (size_t)row * TILE * f->k + (size_t)column * TILE;
}

/* ---- a = L L' -------------------------------------------------------------------------------------------------------- */

/* A_ij <- A_ij L_jj^-T below the diagonal block of this step. */
static void solve_panel(void *context, size_t item, int thread)
{
    (void)thread;
    const factor *f = context;
    int j = f->step, i = j + 1 + (int)item;
    cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, block_size(f, i), block_size(f, j), 1.0,
                block_at(f, j, j), f->k, block_at(f, i, j), f->k);
}

/* A_il <- A_il - A_ij A_lj' for one pair l <= i right of the panel. */
static void update_trailing(void *context, size_t item, int thread)
{
    (void)thread;
    const factor *f = context;
    size_t row = 0;
    while ((row + 1) * (row + 2) / 2 <= item) row++;
    int j = f->step, i = j + 1 + (int)row, l = j + 1 + (int)(item - row * (row + 1) / 2);
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, block_size(f, i), block_size(f, l), block_size(f, j), -1.0,
                block_at(f, i, j), f->k, block_at(f, l, j), f->k, 1.0, block_at(f, i, l), f->k);
}

static bool factorize(factor *f, double floor, nb_pool *pool)
{
    for (int j = 0; j < f->blocks; j++) {
        int n = block_size(f, j), info;
        double *diagonal = block_at(f, j, j);
        dpotrf_("U", &n, diagonal, &f->k, &info);
        if (info != 0) return false;
        for (int i = 0; i < n; i++) { /* LAPACK lets a NaN pass */
            double pivot = diagonal[(size_t)i * f->k + i];
            if (!(pivot * pivot > floor) || !isfinite(pivot)) return false;
        }
        f->step = j;
        size_t below = (size_t)(f->blocks - 1 - j);
        nb_parallel_blas(pool, below, solve_panel, f);
        nb_parallel_blas(pool, below * (below + 1) / 2, update_trailing, f);
    }
    return true;
}

/* ---- (L^-1)' --------------------------------------------------------------------------------------------------------- */

/* Block row j of Y = (L^-1)'.  From L X = I, with Y_ji = X_ij' and l from j to i-1:  Y_ji = -(sum_l Y_jl L_il') L_ii^-T.
 * It is written above the diagonal and reads, below the diagonal, what nobody writes. */
static void invert_row(void *context, size_t item, int thread)
{
    (void)thread;
    const factor *f = context;
    int j = (int)item, n = block_size(f, j), tile = TILE, info;
    double *inverse = f->diagonal + item * TILE * TILE;
    for (int r = 0; r < n; r++)
        for (int c = 0; c <= r; c++) inverse[r * TILE + c] = block_at(f, j, j)[(size_t)r * f->k + c];
    dtrtri_("U", "N", &n, inverse, &tile, &info);
    for (int r = 0; r < n; r++)
        for (int c = 0; c < r; c++) {
            inverse[c * TILE + r] = inverse[r * TILE + c];
            inverse[r * TILE + c] = 0.0;
        }
    for (int i = j + 1; i < f->blocks; i++) {
        int m = block_size(f, i), between = (i - j - 1) * TILE;
        double *out = block_at(f, j, i);
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, m, n, 1.0, inverse, TILE, block_at(f, i, j), f->k, 0.0, out,
                    f->k);
        if (between > 0)
            cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, m, between, 1.0, block_at(f, j, j + 1), f->k,
                        block_at(f, i, j + 1), f->k, 1.0, out, f->k);
        cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, n, m, -1.0, block_at(f, i, i), f->k,
                    out, f->k);
    }
}

nb_status nb_cholesky_inverse(double *a, int k, double floor, bool *positive, nb_pool *pool, nb_error *err)
{
    factor f = { .a = a, .k = k, .blocks = (k + TILE - 1) / TILE };
    *positive = false;
    openblas_set_num_threads(1);
    NB_TRY(nb_alloc(&f.diagonal, (size_t)f.blocks, sizeof(double) * TILE * TILE, "inverse of the diagonal blocks", err));
    if (factorize(&f, floor, pool)) {
        nb_parallel_blas(pool, (size_t)f.blocks, invert_row, &f);
        for (int j = 0; j < f.blocks; j++)
            for (int r = 0; r < block_size(&f, j); r++)
                memcpy(block_at(&f, j, j) + (size_t)r * k + r, f.diagonal + ((size_t)j * TILE + r) * TILE + r,
                       sizeof(double) * (size_t)(block_size(&f, j) - r));
        *positive = true;
    }
    free(f.diagonal);
    return NB_OK;
}

/* ---- checks ---------------------------------------------------------------------------------------------------------- */

nb_status nb_check_weights(const float *w, int n, int k, nb_error *err)
{
    for (int r = 0; r < n; r++)
        for (int c = 0; c < k; c++) {
            float v = w[(size_t)r * k + c];
            if (!(fabsf(v) <= 65504.0f))
                return nb_fail(err, NB_ERR_INPUT,
                               "weight [%d, %d] is %g: NaN, infinite or beyond 65504, the largest f16, in which every format "
                               "stores its scales; the checkpoint is damaged or not meant for half precision", r, c, (double)v);
        }
    return NB_OK;
}

nb_status nb_check_gram(const double *h, int k, nb_error *err)
{
    for (int r = 0; r < k; r++) {
        for (int c = 0; c < k; c++)
            if (!(fabs(h[(size_t)r * k + c]) <= 1e100)) /* f32 inputs stay below 1e77 a token */
                return nb_fail(err, NB_ERR_INPUT,
                               "Gram matrix [%d, %d] is %g: an input of this layer overflowed or is NaN; check the checkpoint "
                               "and the calibration data", r, c, h[(size_t)r * k + c]);
        if (h[(size_t)r * k + r] < 0.0)
            return nb_fail(err, NB_ERR_INPUT, "Gram matrix [%d, %d] is %g, but a sum of squares cannot be negative", r, r,
                           h[(size_t)r * k + r]);
    }
    return NB_OK;
}

/* Mean of diag H over live columns without overflow; 1 when none is alive. */
double nb_gram_mean(const double *h, int k, int *dead)
{
    double largest = 0.0, sum = 0.0;
    *dead = 0;
    for (int c = 0; c < k; c++) largest = fmax(largest, h[(size_t)c * k + c]);
    for (int c = 0; c < k; c++) {
        double energy = h[(size_t)c * k + c];
        if (energy > 0.0)
            sum += energy / largest;
        else
            ++*dead;
    }
    return *dead == k ? 1.0 : largest * (sum / (k - *dead));
}
