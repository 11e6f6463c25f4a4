/* mend.c - one Cholesky factor, and a triangular product from either side for every tile of rows. */
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
    double       *y;           /* [k, k] upper triangle: Y with (H / unit + damp I)^-1 = Y Y' */
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
    cblas_dtrmm(CblasRowMajor, CblasRight, CblasUpper, CblasNoTrans, CblasNonUnit, rows, t->k, 1.0, t->y, t->k, b, t->k);
    cblas_dtrmm(CblasRowMajor, CblasRight, CblasUpper, CblasTrans, CblasNonUnit, rows, t->k, 1.0, t->y, t->k, b, t->k);
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
    size_t k = (size_t)t->k;
    *found = false;
    double most = fmax(damp, 1.0);
    for (; !*found && damp <= most && isfinite(damp); damp = fmax(2.0 * damp, 0.01)) {
        for (size_t i = 0; i < k * k; i++) t->y[i] = h[i] / t->unit;
        for (size_t i = 0; i < k; i++) t->y[i * (k + 1)] += damp;
        NB_TRY(nb_cholesky_inverse(t->y, t->k, t->k * DBL_EPSILON, found, pool, err));
    }
    return NB_OK;
}

nb_status nb_mend(float *w, const double *h, const float *lost, const float *drift, int n, int k, double damp,
                            nb_pool *pool, nb_error *err)
{
    mender t = { .w = w, .lost = lost, .drift = drift, .n = n, .k = k };
    int dead;
    bool found;
    NB_TRY(nb_check_gram(h, k, err));
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
