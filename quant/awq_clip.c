/* awq_clip.c - AWQ's clip search: a tighter range costs the largest weights of a group and sharpens all others.
 *
 * A group is judged alone, by the error of its part of the dot product, e H_gg e' with e = w - Q(clamp(w)) and H_gg the
 * group's diagonal block of the Gram matrix.  Only the clamp is kept; scale and zero follow from the clamped weights later.
 * Which matrices are clipped (AutoAWQ leaves q and k alone) is the caller's choice.
 */
#include "quant/awq.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>

#include "quant/linalg.h"

enum { ROWS = 64, STEPS = 10 };

typedef struct {
    float         *w; /* [n, k] */
    const double  *h; /* [k, k] */
    const nb_grid *grid;
    int            n, k, group, row_tiles;
    float         *scratch; /* [threads, 2 ROWS + group, group]: errors, H e, H_gg */
} clip;

static float largest_of(const float *w, int count)
{
    float largest = 0.0f;
    for (int i = 0; i < count; i++) largest = fmaxf(largest, fabsf(w[i]));
    return largest;
}

/* w and out may be the same. */
static void clamp_to(const float *w, float limit, int count, float *out)
{
    for (int i = 0; i < count; i++) out[i] = fminf(fmaxf(w[i], -limit), limit);
}

static void clip_tile(void *context, size_t item, int thread)
{
    const clip *job = context;
    int begin = (int)(item / (size_t)job->row_tiles) * job->group, first = (int)(item % (size_t)job->row_tiles) * ROWS;
    int count = job->k - begin < job->group ? job->k - begin : job->group, rows = job->n - first < ROWS ? job->n - first : ROWS;
    size_t size = (size_t)job->group;
    float *error = job->scratch + (size_t)thread * (2 * ROWS + size) * size, *product = error + ROWS * size;
    float *h = product + ROWS * size, best[ROWS], maxq = (float)((1 << job->grid->bits) - 1);
    double least[ROWS], unit = 0.0;
    for (int i = 0; i < count; i++) unit = fmax(unit, job->h[(size_t)(begin + i) * job->k + begin + i]);
    if (unit == 0.0) return; /* no token touches the group: nothing says that clipping helps */
    for (int i = 0; i < count; i++)
        for (int j = 0; j < count; j++) h[i * count + j] = (float)(job->h[(size_t)(begin + i) * job->k + begin + j] / unit);

    for (int step = 0; step < STEPS; step++) {
        float keep = 1.0f - (float)step / 20.0f;
        for (int r = 0; r < rows; r++) {
            const float *w = job->w + (size_t)(first + r) * job->k + begin;
            float *e = error + r * count, scale;
            uint8_t zero;
            clamp_to(w, largest_of(w, count) * keep, count, e);
            nb_grid_fit(job->grid, e, count, 1.0f, &scale, &zero);
            for (int i = 0; i < count; i++)
                e[i] = w[i] - nb_round_within(e[i] / scale, (float)-zero, maxq - (float)zero) * scale;
        }
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, count, count, 1.0f, error, count, h, count, 0.0f, product,
                    count);
        for (int r = 0; r < rows; r++) {
            double loss = 0.0;
            for (int i = 0; i < count; i++) loss += (double)error[r * count + i] * product[r * count + i];
            if (step == 0 || loss < least[r]) {
                least[r] = loss;
                best[r] = keep;
            }
        }
    }
    for (int r = 0; r < rows; r++) {
        float *w = job->w + (size_t)(first + r) * job->k + begin;
        clamp_to(w, largest_of(w, count) * best[r], count, w);
    }
}

nb_status nb_awq_clip(float *w, const double *h, int n, int k, const nb_grid *grid, nb_pool *pool, nb_error *err)
{
    NB_TRY(nb_grid_check(grid, err));
    if (n <= 0 || k <= 0) return nb_fail(err, NB_ERR_ARGUMENT, "AWQ: a matrix of %d x %d cannot be clipped", n, k);
    NB_TRY(nb_check_weights(w, n, k, err));
    NB_TRY(nb_check_gram(h, k, pool, err));
    clip job = { .w = w, .h = h, .grid = grid, .n = n, .k = k, .row_tiles = (n + ROWS - 1) / ROWS };
    job.group = grid->group > 0 && grid->group < k ? grid->group : k;
    size_t groups = ((size_t)k + (size_t)job.group - 1) / (size_t)job.group, size = (size_t)job.group;
    NB_TRY(nb_alloc(&job.scratch, (size_t)nb_pool_threads(pool) * (2 * ROWS + size), size * sizeof(float), "AWQ clip tiles", err));
    nb_parallel_blas(pool, groups * (size_t)job.row_tiles, clip_tile, &job);
    free(job.scratch);
    return NB_OK;
}
