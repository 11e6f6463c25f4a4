/* linalg.c - blocked Cholesky factor in place, and the checks of what the solvers are given.
 *
 * LAPACK's own routine would run on one core: 30 s and more for the 18944 inputs of a 7B model's down_proj.  Here the matrix
 * is cut into squares; LAPACK factors the diagonal ones, and the products of gemm.h do the rest, square by square.
 *
 * Row-major and lower here is column-major and upper to Fortran: "U" below.
 */
#include "quant/linalg.h"

#include <cblas.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/gemm.h"

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

/* ---- a = L L' -------------------------------------------------------------------------------------------------------- */

nb_status nb_lower_init(nb_lower *l, double *a, int k, nb_error *err)
{
    *l = (nb_lower){ .k = k, .blocks = (k + NB_LOWER_TILE - 1) / NB_LOWER_TILE, .a = a };
    return nb_alloc(&l->tiles, (size_t)l->blocks, sizeof(double) * NB_LOWER_TILE * NB_LOWER_TILE, "diagonal of a factor", err);
}

void nb_lower_free(nb_lower *l)
{
    free(l->tiles);
    *l = (nb_lower){ 0 };
}

typedef struct {
    const nb_lower *l;
    const nb_gemm  *gemm;
    double         *panels;  /* row of squares `step` left of the diagonal, as the right side of a product */
    double         *inverse; /* [TILE, TILE] of the diagonal square, as a right side: by its transpose */
    double         *scratch; /* [threads, TILE, TILE] */
    int             step;
} factor;

static int block_size(const nb_lower *l, int block)
{
    return block == l->blocks - 1 ? l->k - block * NB_LOWER_TILE : NB_LOWER_TILE;
}

static double *tile_at(const nb_lower *l, int block)
{
    return l->tiles + (size_t)block * NB_LOWER_TILE * NB_LOWER_TILE;
}

static double *block_at(const nb_lower *l, int row, int column)
{
    return l->a + (size_t)row * NB_LOWER_TILE * l->k + (size_t)column * NB_LOWER_TILE;
}

/* One panel of the row of squares L_j0 .. L_j,j-1. */
static void pack_panel(void *context, size_t item, int thread)
{
    (void)thread;
    const factor   *f = context;
    const nb_lower *l = f->l;
    size_t          width = f->gemm->width64, first = item * width, left = (size_t)block_size(l, f->step) - first;
    size_t          columns = (size_t)f->step * NB_LOWER_TILE;
    nb_gemm_panels64(f->panels + first * columns, block_at(l, f->step, 0) + first * (size_t)l->k, (size_t)l->k,
                     left < width ? left : width, columns, width);
}

/* A_ij <- A_ij - sum_m<j L_im L_jm' for the column j of this step and one i >= j. */
static void update_block(void *context, size_t item, int thread)
{
    (void)thread;
    const factor   *f = context;
    const nb_lower *l = f->l;
    int             j = f->step, i = j + (int)item;
    bool            diagonal = i == j;
    f->gemm->f64(diagonal ? tile_at(l, j) : block_at(l, i, j), diagonal ? NB_LOWER_TILE : (size_t)l->k, block_at(l, i, 0),
                 (size_t)l->k, f->panels, (size_t)j * NB_LOWER_TILE, (size_t)block_size(l, i), (size_t)block_size(l, j),
                 (size_t)j * NB_LOWER_TILE, true);
}

/* L_ij <- A_ij L_jj^-T below the diagonal square of this step. */
static void solve_block(void *context, size_t item, int thread)
{
    const factor   *f = context;
    const nb_lower *l = f->l;
    int             j = f->step, i = j + 1 + (int)item, m = block_size(l, i), n = block_size(l, j);
    double         *to = block_at(l, i, j), *from = f->scratch + (size_t)thread * NB_LOWER_TILE * NB_LOWER_TILE;
    for (int r = 0; r < m; r++) memcpy(from + (size_t)r * NB_LOWER_TILE, to + (size_t)r * l->k, (size_t)n * sizeof *to);
    f->gemm->f64(to, (size_t)l->k, from, NB_LOWER_TILE, f->inverse, (size_t)n, (size_t)m, (size_t)n, (size_t)n,
                 false);
}

/* The diagonal square of this step: its factor, and the inverse of that for the squares below. */
static bool factor_tile(const factor *f, double floor)
{
    int     n = block_size(f->l, f->step), ld = NB_LOWER_TILE, info;
    double *tile = tile_at(f->l, f->step), *inverse = f->scratch;
    dpotrf_("U", &n, tile, &ld, &info);
    if (info != 0) return false;
    for (int r = 0; r < n; r++) { /* LAPACK lets a NaN pass */
        double pivot = tile[r * ld + r];
        if (!(pivot * pivot > floor) || !isfinite(pivot)) return false;
        for (int c = 0; c < ld; c++) inverse[r * ld + c] = c <= r ? tile[r * ld + c] : 0.0;
    }
    dtrtri_("U", "N", &n, inverse, &ld, &info);
    nb_gemm_panels64(f->inverse, inverse, (size_t)ld, (size_t)n, (size_t)n, f->gemm->width64);
    return true;
}

/* From left to right, every square written once: one long product per square keeps the sums in registers and the matrix out of
 * the way of the memory bus. */
static bool factorize(factor *f, double floor, nb_pool *pool)
{
    for (int j = 0; j < f->l->blocks; j++) {
        f->step = j;
        size_t width = f->gemm->width64, panels = ((size_t)block_size(f->l, j) + width - 1) / width;
        if (j) nb_parallel(pool, panels, pack_panel, f);
        if (j) nb_parallel(pool, (size_t)(f->l->blocks - j), update_block, f);
        if (!factor_tile(f, floor)) return false;
        nb_parallel(pool, (size_t)(f->l->blocks - 1 - j), solve_block, f);
    }
    return true;
}

nb_status nb_lower_factor(nb_lower *l, double floor, bool *positive, nb_pool *pool, nb_error *err)
{
    factor       f = { .l = l, .gemm = nb_gemm_of(nb_isa_best()) };
    const size_t square = (size_t)NB_LOWER_TILE * NB_LOWER_TILE, threads = (size_t)nb_pool_threads(pool);
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    *positive = false;
    pthread_once(&once, single_threaded);
    /* Panels are whole: for the last, narrower square they can have more columns than it. */
    nb_status status = nb_alloc(&f.panels, (size_t)NB_LOWER_TILE + f.gemm->width64, sizeof(double) * (size_t)l->k, "a row of a factor", err);
    if (!status) status = nb_alloc(&f.inverse, square + NB_LOWER_TILE * f.gemm->width64, sizeof(double), "a square of a factor", err);
    if (!status) status = nb_alloc(&f.scratch, square * threads, sizeof(double), "squares of a factor", err);
    if (!status) *positive = factorize(&f, floor, pool);
    free(f.panels);
    free(f.inverse);
    free(f.scratch);
    return status;
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

typedef struct {
    const double *h;
    int           k;
    atomic_bool   bad;
} gram_check;

/* One row of the upper triangle. */
static void check_row(void *context, size_t item, int thread)
{
    (void)thread;
    gram_check   *c = context;
    const double *row = c->h + item * (size_t)c->k;
    bool          good = row[item] >= 0.0;
    for (size_t i = item; i < (size_t)c->k; i++) good &= fabs(row[i]) <= 1e100;
    if (!good) atomic_store_explicit(&c->bad, true, memory_order_relaxed);
}

nb_status nb_check_gram(const double *h, int k, nb_pool *pool, nb_error *err)
{
    gram_check check = { .h = h, .k = k };
    nb_parallel(pool, (size_t)k, check_row, &check);
    for (int r = 0; r < k && check.bad; r++) {
        for (int c = r; c < k; c++)
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
