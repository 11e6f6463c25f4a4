/* grid.c - scale and zero of a group, rounding to nearest, and the loss of a rounded matrix.
 *
 *     symmetric   scale = 2 max|w| / maxq      zero = (maxq + 1) / 2      maxq = 2^bits - 1
 *     otherwise   scale = (hi - lo) / maxq     zero = round(-lo / scale)
 *
 * The symmetric range mirrors the larger side whatever the signs are: AutoGPTQ and its relatives mirror only a negative
 * bound, and so clip half of a group that has no negative weight.  The other range [lo, hi] always holds 0, for every
 * method.  AutoAWQ does not widen it, and then clamps the zero into 0 .. maxq, which saturates a group of one sign; since
 * the zero must be a code in every format, the widened range is the better grid.
 */
#include "quant/grid.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>

#include "kernels/float.h"
#include "quant/linalg.h"

enum { ROW_TILE = 64, COLUMN_TILE = 256 };

nb_status nb_grid_check(const nb_grid *grid, nb_error *err)
{
    if (grid->bits != 4 && grid->bits != 8)
        return nb_fail(err, NB_ERR_ARGUMENT, "%d bits are not a format nibble writes: use 4 or 8", grid->bits);
    if (grid->group < 0)
        return nb_fail(err, NB_ERR_ARGUMENT, "a group of %d inputs is not possible: use 32, 64, 128 or 0 for the whole row",
                       grid->group);
    return NB_OK;
}

nb_status nb_codes_init(nb_codes *c, int n, int k, const nb_grid *grid, nb_error *err)
{
    *c = (nb_codes){ 0 };
    NB_TRY(nb_grid_check(grid, err));
    if (n <= 0 || k <= 0) return nb_fail(err, NB_ERR_ARGUMENT, "a matrix of %d x %d cannot be quantised", n, k);
    *c = (nb_codes){ .n = n, .k = k, .bits = grid->bits, .group = grid->group > 0 ? grid->group : k };
    c->groups = k / c->group + (k % c->group != 0);
    nb_status status = nb_alloc(&c->codes, (size_t)n * (size_t)k, 1, "codes", err);
    if (status == NB_OK) status = nb_alloc(&c->scales, (size_t)n * (size_t)c->groups, sizeof(float), "scales", err);
    if (status == NB_OK) status = nb_alloc(&c->zeros, (size_t)n * (size_t)c->groups, 1, "zeros", err);
    if (status != NB_OK) nb_codes_free(c);
    return status;
}

void nb_codes_free(nb_codes *c)
{
    if (!c) return;
    free(c->codes);
    free(c->scales);
    free(c->zeros);
    free(c->g_idx);
    *c = (nb_codes){ 0 };
}

void nb_codes_dequantize(const nb_codes *c, float *w)
{
    for (int r = 0; r < c->n; r++) {
        const uint8_t *codes = c->codes + (size_t)r * c->k, *zeros = c->zeros + (size_t)r * c->groups;
        const float *scales = c->scales + (size_t)r * c->groups;
        float *out = w + (size_t)r * c->k;
        for (int i = 0; i < c->k; i++) {
            int g = c->g_idx ? c->g_idx[i] : i / c->group;
            out[i] = (float)(codes[i] - zeros[g]) * scales[g];
        }
    }
}

/* ---- one group ------------------------------------------------------------------------------------------------------- */

typedef struct { float lo, hi; } range;

static range range_of(const nb_grid *grid, const float *w, int count)
{
    range r = { 0.0f, 0.0f };
    for (int i = 0; i < count; i++) { /* a NaN changes nothing */
        r.lo = w[i] < r.lo ? w[i] : r.lo;
        r.hi = w[i] > r.hi ? w[i] : r.hi;
    }
    if (r.lo == 0.0f && r.hi == 0.0f) r = (range){ -1.0f, 1.0f }; /* any finite scale represents zeros */
    if (grid->sym) {
        r.hi = -r.lo > r.hi ? -r.lo : r.hi;
        r.lo = -r.hi;
    }
    return r;
}

/* Subnormal f16 scales (below 6.1e-5) are used: they cost less error than a larger scale would, and every consumer reads
 * them.  Where f16 has only 0 or infinity to offer, the nearest finite scale stands in, so that codes are always defined. */
static void grid_of_range(const nb_grid *grid, range r, float clip, float *scale, uint8_t *zero)
{
    float maxq = (float)((1 << grid->bits) - 1);
    float s = nb_f16_to_f32(nb_f32_to_f16((r.hi - r.lo) * clip / maxq));
    if (s == 0.0f) s = 0x1p-24f;
    if (!(s <= 65504.0f)) s = 65504.0f;
    *scale = s;
    *zero = grid->sym ? (uint8_t)(1 << (grid->bits - 1)) : (uint8_t)nb_round_within(-r.lo * clip / s, 0.0f, maxq);
}

void nb_grid_ends(const nb_grid *grid, const float *w, int count, float *lo, float *hi)
{
    range r = range_of(grid, w, count);
    *lo = r.lo;
    *hi = r.hi;
}

void nb_grid_range(const nb_grid *grid, float lo, float hi, float *scale, uint8_t *zero)
{
    grid_of_range(grid, (range){ lo, hi }, 1.0f, scale, zero);
}

void nb_grid_fit(const nb_grid *grid, const float *w, int count, float clip, float *scale, uint8_t *zero)
{
    grid_of_range(grid, range_of(grid, w, count), clip, scale, zero);
}

uint8_t nb_grid_code(const nb_grid *grid, float w, float scale, uint8_t zero)
{
    float z = (float)zero, maxq = (float)((1 << grid->bits) - 1);
    return (uint8_t)(nb_round_within(w / scale, -z, maxq - z) + z);
}

void nb_grid_search(const nb_grid *grid, const float *w, const float *h, int count, float power, float *scale, uint8_t *zero)
{
    range full = range_of(grid, w, count);
    float unit = 1.0f / fmaxf(full.hi, -full.lo); /* errors relative to the largest weight: no power underflows */
    double best = INFINITY;
    for (int step = 0; step <= 80; step++) {
        float s, maxq = (float)((1 << grid->bits) - 1);
        uint8_t z;
        grid_of_range(grid, full, 1.0f - (float)step / 100.0f, &s, &z);
        double error = 0.0;
        for (int i = 0; i < count && error < best; i++) {
            float e = fabsf(nb_round_within(w[i] / s, (float)-z, maxq - (float)z) * s - w[i]) * unit;
            error += (power == 2.0f ? e * e : powf(e, power)) * (h ? h[i] : 1.0f);
        }
        if (step == 0 || error < best) {
            best = error;
            *scale = s;
            *zero = z;
        }
    }
}

/* ---- round to nearest ------------------------------------------------------------------------------------------------ */

typedef struct {
    nb_codes      *out;
    const float   *w;
    const nb_grid *grid;
} rtn;

static void round_rows(void *context, size_t item, int thread)
{
    (void)thread;
    const rtn *job = context;
    nb_codes *out = job->out;
    int first = (int)item * ROW_TILE, last = first + ROW_TILE < out->n ? first + ROW_TILE : out->n;
    for (int r = first; r < last; r++)
        for (int g = 0; g < out->groups; g++) {
            int begin = g * out->group, count = out->k - begin < out->group ? out->k - begin : out->group;
            const float *w = job->w + (size_t)r * out->k + begin;
            uint8_t *codes = out->codes + (size_t)r * out->k + begin, zero;
            float scale;
            nb_grid_fit(job->grid, w, count, 1.0f, &scale, &zero);
            out->scales[(size_t)r * out->groups + g] = scale;
            out->zeros[(size_t)r * out->groups + g] = zero;
            for (int i = 0; i < count; i++) codes[i] = nb_grid_code(job->grid, w[i], scale, zero);
        }
}

nb_status nb_rtn(nb_codes *out, const float *w, int n, int k, const nb_grid *grid, nb_pool *pool, nb_error *err)
{
    NB_TRY(nb_codes_init(out, n, k, grid, err));
    nb_status status = nb_check_weights(w, n, k, err);
    if (status != NB_OK) {
        nb_codes_free(out);
        return status;
    }
    rtn job = { out, w, grid };
    nb_parallel(pool, ((size_t)n + ROW_TILE - 1) / ROW_TILE, round_rows, &job);
    return NB_OK;
}

/* ---- loss ------------------------------------------------------------------------------------------------------------ */

typedef struct {
    const float  *w, *q; /* [n, k] */
    const double *h;     /* [k, k] */
    double       *loss;  /* [tiles] */
    int           n, k;
} gram;

/* D = W - Q of rows first .. first + rows - 1 and columns begin .. begin + count - 1, as [rows, COLUMN_TILE]. */
static void difference(const gram *job, int first, int rows, int begin, int count, double *d)
{
    for (int r = 0; r < rows; r++) {
        size_t at = (size_t)(first + r) * job->k + begin;
        for (int i = 0; i < count; i++) d[r * COLUMN_TILE + i] = (double)job->w[at + i] - job->q[at + i];
    }
}

/* d H d' = sum over column tiles of d_c . (H_cc d_c + 2 sum_{b < c} H_bc d_b): symmetry halves the work. */
static void loss_of_rows(void *context, size_t item, int thread)
{
    (void)thread;
    const gram *job = context;
    double here[ROW_TILE * COLUMN_TILE], left[ROW_TILE * COLUMN_TILE], product[ROW_TILE * COLUMN_TILE], loss = 0.0;
    int first = (int)item * ROW_TILE, rows = job->n - first < ROW_TILE ? job->n - first : ROW_TILE;
    for (int c = 0; c < job->k; c += COLUMN_TILE) {
        int count = job->k - c < COLUMN_TILE ? job->k - c : COLUMN_TILE;
        difference(job, first, rows, c, count, here);
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, count, count, 1.0, here, COLUMN_TILE,
                    job->h + (size_t)c * job->k + c, job->k, 0.0, product, COLUMN_TILE);
        for (int b = 0; b < c; b += COLUMN_TILE) {
            difference(job, first, rows, b, COLUMN_TILE, left);
            cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, count, COLUMN_TILE, 2.0, left, COLUMN_TILE,
                        job->h + (size_t)b * job->k + c, job->k, 1.0, product, COLUMN_TILE);
        }
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < count; i++) loss += here[r * COLUMN_TILE + i] * product[r * COLUMN_TILE + i];
    }
    job->loss[item] = loss;
}

double nb_gram_loss(const float *w, const float *q, const double *h, int n, int k, nb_pool *pool)
{
    size_t tiles = ((size_t)n + ROW_TILE - 1) / ROW_TILE;
    gram job = { w, q, h, calloc(tiles ? tiles : 1, sizeof(double)), n, k };
    if (!job.loss) return NAN;
    nb_parallel_blas(pool, tiles, loss_of_rows, &job);
    double loss = 0.0;
    for (size_t i = 0; i < tiles; i++) loss += job.loss[i];
    free(job.loss);
    return loss;
}
