/* mend.c - one Cholesky factor, and a triangular solution from either side for every tile of rows. */
#include "quant/mend.h"

#include <cblas.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant/linalg.h"

enum { ROWS = 64 };

typedef struct {
    float        *w;           /* [n, k] W, becomes V */
    const float  *lost, *drift;
    double       *y;           /* [k, k] lower triangle: L with H / unit + damp I = L L' */
    double       *room;        /* [threads, ROWS, 2 k] */
    double        unit;
    int           n, k;
} mender;

static void correct_tile(void *context, size_t item, int thread)
{
    const mender *t = context;
    size_t k = (size_t)t->k, first = item * ROWS;
    int rows = (size_t)t->n - first < ROWS ? t->n - (int)first : ROWS;
    double *b = t->room + (size_t)thread * ROWS * k * 2;
    float *w = t->w + first * k, *product = (float *)(b + ROWS * k);
    if (t->drift) memcpy(product, t->drift + first * k, (size_t)rows * k * sizeof *product);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, t->k, t->k, 1.0f, w, t->k, t->lost, t->k,
                t->drift ? 1.0f : 0.0f, product, t->k);
    for (size_t i = 0; i < (size_t)rows * k; i++) b[i] = product[i] / t->unit;
    cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, rows, t->k, 1.0, t->y, t->k, b, t->k);
    cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, CblasNoTrans, CblasNonUnit, rows, t->k, 1.0, t->y, t->k, b, t->k);
    for (int r = 0; r < rows; r++) {
        float *row = w + (size_t)r * k;
        const double *move = b + (size_t)r * k;
        bool good = true;
        for (size_t i = 0; i < k; i++) good = good && fabs(row[i] + move[i]) <= 65504.0;
        for (size_t i = 0; i < k && good; i++) row[i] = (float)(row[i] + move[i]);
    }
}

static nb_status factor(mender *t, const double *h, double damp, bool *found, nb_pool *pool, nb_error *err)
{
    nb_lower lower;
    *found = false;
    NB_TRY(nb_lower_init(&lower, t->y, t->k, err));
    nb_status status = NB_OK;
    double most = fmax(damp, 1.0);
    for (; !status && !*found && damp <= most && isfinite(damp); damp = fmax(2.0 * damp, 0.01)) {
        for (int r = 0; r < t->k; r++)
            for (int c = 0; c <= r; c++) *nb_lower_at(&lower, r, c) = nb_upper(h, t->k, r, c) / t->unit + (r == c ? damp : 0.0);
        status = nb_lower_factor(&lower, t->k * DBL_EPSILON, found, pool, err);
    }
    for (int r = 0; r < t->k; r++) /* the squares of the diagonal to their place */
        for (int c = r / NB_LOWER_TILE * NB_LOWER_TILE; c <= r; c++) t->y[(size_t)r * t->k + c] = *nb_lower_at(&lower, r, c);
    nb_lower_free(&lower);
    return status;
}

nb_status nb_mend(float *w, const double *h, const float *lost, const float *drift, int n, int k, double damp,
                            nb_pool *pool, nb_error *err)
{
    mender t = { .w = w, .lost = lost, .drift = drift, .n = n, .k = k };
    int dead;
    bool found;
    NB_TRY(nb_check_gram(h, k, pool, err));
    t.unit = nb_gram_mean(h, k, &dead);
    if (dead == k) return NB_OK;
    nb_status status = nb_alloc(&t.y, (size_t)k * (size_t)k, sizeof *t.y, "factor of the Gram matrix", err);
    if (!status)
        status = nb_alloc(&t.room, (size_t)nb_pool_threads(pool) * ROWS * (size_t)k * 2, sizeof *t.room, "corrections", err);
    if (!status) status = factor(&t, h, damp, &found, pool, err);
    if (!status && found) nb_parallel_blas(pool, ((size_t)n + ROWS - 1) / ROWS, correct_tile, &t);
    free(t.y);
    free(t.room);
    return status;
}
