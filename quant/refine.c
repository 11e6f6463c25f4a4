/* refine.c - coordinate descent over codes, closed form over scales.
 *
 * For one row let R = Q - V and G = H R, half the gradient of R H R'.  Moving the code of column j by the whole number d moves
 * Q_j by d s and the loss by
 *
 *     d s (2 G_j + d s H_jj),     least at the whole number nearest to -G_j / (s H_jj)
 *
 * so that every visit of a column is exact, and the loss falls.  With the codes of a group held, c = codes - zero, the same
 * parabola in the scale has its minimum at s - c'G / c'Hc; the scale moves there, rounded to f16, when that lowers the loss.  A
 * zero moves by the whole number nearest to the minimum of the same parabola along a vector of ones.
 *
 * GPTQ decides each column knowing only those before it and never looks back; this looks at all of them.  Rows never meet: tiles
 * of ROWS rows are the units of work, held transposed as [columns, ROWS].  Inside a group each move is applied to G at once;
 * the columns of all other groups get a group's moves in one matrix product, as GPTQ's lazy blocks do.
 */
#include "quant/refine.h"

#include <cblas.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/float.h"
#include "quant/linalg.h"

enum { ROWS = 64 };

typedef struct {
    nb_codes    *q;
    const float *v;           /* [n, k] */
    int          n, k;
    bool         sym, scales;
    int          sweeps;
    int32_t     *column;      /* [k] columns in the order of the sweep: group by group */
    int32_t     *start;       /* [groups + 1] where each group begins in that order */
    float       *h;           /* [k, k] in that order, over the mean of the diagonal */
    float       *scratch;     /* [threads, scratch_size] */
    size_t       scratch_size;
    int          widest;      /* columns of the largest group */
} refiner;

/* One tile while it is worked on. */
typedef struct {
    const refiner *f;
    int    first, rows;
    float *g;    /* [k, ROWS] G */
    float *move; /* [widest, ROWS] what the group's columns moved by, since G of the others was told */
    float *c;    /* [widest, ROWS] codes - zero of the group */
    float *hc;   /* [widest, ROWS] */
    float  scale[ROWS], zero[ROWS];
    bool   moved;
} tile;

/* G of all columns outside the group, or of all with inside, += H move. */
static void tell(const tile *t, int group, bool inside)
{
    const refiner *f = t->f;
    int begin = f->start[group], end = f->start[group + 1], count = end - begin;
    const float *h = f->h + begin;
    if (inside) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, f->k, ROWS, count, 1.0f, h, f->k, t->move, ROWS, 1.0f, t->g, ROWS);
        return;
    }
    if (begin > 0)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, begin, ROWS, count, 1.0f, h, f->k, t->move, ROWS, 1.0f, t->g, ROWS);
    if (end < f->k)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, f->k - end, ROWS, count, 1.0f, h + (size_t)end * f->k, f->k,
                    t->move, ROWS, 1.0f, t->g + (size_t)end * ROWS, ROWS);
}

static void load_group(tile *t, int group)
{
    const refiner *f = t->f;
    const nb_codes *q = f->q;
    for (int r = 0; r < ROWS; r++) {
        t->scale[r] = 1.0f;
        t->zero[r] = 0.0f;
    }
    for (int r = 0; r < t->rows; r++) {
        t->scale[r] = q->scales[(size_t)(t->first + r) * q->groups + group];
        t->zero[r] = (float)q->zeros[(size_t)(t->first + r) * q->groups + group];
    }
    for (int i = f->start[group]; i < f->start[group + 1]; i++) {
        float *c = t->c + (i - f->start[group]) * ROWS;
        for (int r = 0; r < ROWS; r++)
            c[r] = r < t->rows ? (float)q->codes[(size_t)(t->first + r) * f->k + f->column[i]] - t->zero[r] : 0.0f;
    }
}

static void store_group(const tile *t, int group)
{
    const refiner *f = t->f;
    nb_codes *q = f->q;
    for (int r = 0; r < t->rows; r++) {
        q->scales[(size_t)(t->first + r) * q->groups + group] = t->scale[r];
        q->zeros[(size_t)(t->first + r) * q->groups + group] = (uint8_t)t->zero[r];
    }
    for (int i = f->start[group]; i < f->start[group + 1]; i++) {
        const float *c = t->c + (i - f->start[group]) * ROWS;
        for (int r = 0; r < t->rows; r++)
            q->codes[(size_t)(t->first + r) * f->k + f->column[i]] = (uint8_t)(c[r] + t->zero[r]);
    }
}

/* G of the tile as it starts: the group's Q - V stand in for moves. */
static void start_gradient(tile *t)
{
    const refiner *f = t->f;
    memset(t->g, 0, (size_t)f->k * ROWS * sizeof *t->g);
    for (int group = 0; group < f->q->groups; group++) {
        load_group(t, group);
        for (int i = f->start[group]; i < f->start[group + 1]; i++) {
            size_t at = (size_t)(i - f->start[group]) * ROWS;
            for (int r = 0; r < ROWS; r++)
                t->move[at + r] = r < t->rows ? t->c[at + r] * t->scale[r] - f->v[(size_t)(t->first + r) * f->k + f->column[i]] : 0.0f;
        }
        tell(t, group, true);
    }
}

/* Every column of the group to the best code there is for it. */
static void move_codes(tile *t, int group)
{
    const refiner *f = t->f;
    int begin = f->start[group], count = f->start[group + 1] - begin;
    float maxq = (float)((1 << f->q->bits) - 1), inverse[ROWS];
    for (int r = 0; r < ROWS; r++) inverse[r] = 1.0f / t->scale[r];
    for (int i = 0; i < count; i++) {
        const float *h = f->h + (size_t)(begin + i) * f->k + begin, *g = t->g + (size_t)(begin + i) * ROWS;
        float *c = t->c + i * ROWS, d[ROWS], self = h[i], any = 0.0f;
        if (!(self > 0.0f)) continue; /* no token touches it */
        for (int r = 0; r < ROWS; r++) {
            float best = nb_round_within(c[r] - g[r] * inverse[r] / self, -t->zero[r], maxq - t->zero[r]);
            d[r] = (best - c[r]) * t->scale[r];
            any = any > fabsf(d[r]) ? any : fabsf(d[r]);
            c[r] = best;
        }
        if (any == 0.0f) continue;
        t->moved = true;
        float *move = t->move + i * ROWS;
        for (int r = 0; r < ROWS; r++) move[r] += d[r];
        for (int j = 0; j < count; j++) {
            float *later = t->g + (size_t)(begin + j) * ROWS, factor = h[j];
            for (int r = 0; r < ROWS; r++) later[r] += d[r] * factor;
        }
    }
}

/* After the weights of a group moved along `direction` [count, ROWS] by step[r]; product: H direction inside the group. */
static void move_along(tile *t, int group, const float *direction, const float *product, const float step[ROWS])
{
    int begin = t->f->start[group], count = t->f->start[group + 1] - begin;
    for (int i = 0; i < count; i++) {
        float *g = t->g + (size_t)(begin + i) * ROWS, *move = t->move + i * ROWS;
        for (int r = 0; r < ROWS; r++) {
            g[r] += step[r] * product[i * ROWS + r];
            move[r] += step[r] * direction[i * ROWS + r];
        }
    }
}

static void move_scales(tile *t, int group)
{
    const refiner *f = t->f;
    int begin = f->start[group], count = f->start[group + 1] - begin;
    double slope[ROWS] = { 0 }, curve[ROWS] = { 0 };
    float step[ROWS];
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, count, ROWS, count, 1.0f, f->h + (size_t)begin * f->k + begin, f->k,
                t->c, ROWS, 0.0f, t->hc, ROWS);
    for (int i = 0; i < count; i++)
        for (int r = 0; r < ROWS; r++) {
            slope[r] += (double)t->c[i * ROWS + r] * t->g[(size_t)(begin + i) * ROWS + r];
            curve[r] += (double)t->c[i * ROWS + r] * t->hc[i * ROWS + r];
        }
    bool any = false;
    for (int r = 0; r < ROWS; r++) {
        step[r] = 0.0f;
        if (!(curve[r] > 0.0)) continue;
        float to = nb_f16_to_f32(nb_f32_to_f16((float)(t->scale[r] - slope[r] / curve[r])));
        double d = (double)to - t->scale[r];
        if (!(to > 0.0f && to <= 65504.0f) || !(d * (2.0 * slope[r] + d * curve[r]) < 0.0)) continue;
        step[r] = (float)d;
        t->scale[r] = to;
        any = true;
    }
    if (!any) return;
    t->moved = true;
    move_along(t, group, t->c, t->hc, step);
}

/* zero + d with the codes held moves every weight of the group by -d s. */
static void move_zeros(tile *t, int group)
{
    const refiner *f = t->f;
    int begin = f->start[group], count = f->start[group + 1] - begin;
    float maxq = (float)((1 << f->q->bits) - 1), step[ROWS];
    double slope[ROWS] = { 0 }, curve = 0.0;
    for (int i = 0; i < count; i++) {
        const float *h = f->h + (size_t)(begin + i) * f->k + begin;
        float sum = 0.0f;
        for (int j = 0; j < count; j++) sum += h[j];
        curve += sum;
        for (int r = 0; r < ROWS; r++) {
            t->hc[i * ROWS + r] = -sum;
            slope[r] -= t->g[(size_t)(begin + i) * ROWS + r];
        }
    }
    if (!(curve > 0.0)) return;
    bool any = false;
    for (int r = 0; r < ROWS; r++) {
        float to = nb_round_within((float)(t->zero[r] - slope[r] / (curve * t->scale[r])), 0.0f, maxq), d = to - t->zero[r];
        step[r] = d * t->scale[r];
        t->zero[r] = to;
        any = any || d != 0.0f;
    }
    if (!any) return;
    t->moved = true;
    for (int i = 0; i < count; i++)
        for (int r = 0; r < ROWS; r++) {
            float d = step[r] / t->scale[r];
            t->g[(size_t)(begin + i) * ROWS + r] += step[r] * t->hc[i * ROWS + r];
            t->move[i * ROWS + r] -= step[r];
            t->c[i * ROWS + r] -= d;
        }
}

static void refine_tile(void *context, size_t item, int thread)
{
    const refiner *f = context;
    size_t wide = (size_t)f->widest * ROWS;
    tile t = { .f = f, .first = (int)item * ROWS };
    t.rows = f->n - t.first < ROWS ? f->n - t.first : ROWS;
    t.g = f->scratch + (size_t)thread * f->scratch_size;
    t.move = t.g + (size_t)f->k * ROWS;
    t.c = t.move + wide;
    t.hc = t.c + wide;
    start_gradient(&t);
    t.moved = true;
    for (int sweep = 0; sweep < f->sweeps && t.moved; sweep++) {
        t.moved = false;
        for (int group = 0; group < f->q->groups; group++) {
            bool before = t.moved;
            t.moved = false;
            load_group(&t, group);
            memset(t.move, 0, wide * sizeof *t.move);
            move_codes(&t, group);
            if (f->scales) move_scales(&t, group);
            if (f->scales && !f->sym) move_zeros(&t, group);
            if (t.moved) {
                store_group(&t, group);
                tell(&t, group, false);
            }
            t.moved = t.moved || before;
        }
    }
}

/* Columns group by group, and H in that order. */
static nb_status prepare(refiner *f, const double *h, double damp, nb_pool *pool, nb_error *err)
{
    size_t k = (size_t)f->k;
    const nb_codes *q = f->q;
    NB_TRY(nb_alloc(&f->column, k, sizeof *f->column, "column order", err));
    NB_TRY(nb_alloc(&f->start, (size_t)q->groups + 1, sizeof *f->start, "column groups", err));
    NB_TRY(nb_alloc(&f->h, k * k, sizeof *f->h, "Gram matrix for the refinement", err));
    for (int i = 0; i < f->k; i++) f->start[(q->g_idx ? q->g_idx[i] : i / q->group) + 1]++;
    for (int g = 0; g < q->groups; g++) {
        if (f->start[g + 1] > f->widest) f->widest = f->start[g + 1];
        f->start[g + 1] += f->start[g];
    }
    for (int i = 0; i < f->k; i++) f->column[f->start[q->g_idx ? q->g_idx[i] : i / q->group]++] = i;
    for (int g = q->groups; g > 0; g--) f->start[g] = f->start[g - 1];
    f->start[0] = 0;
    f->scratch_size = (k + 3 * (size_t)f->widest) * ROWS;
    NB_TRY(nb_alloc(&f->scratch, (size_t)nb_pool_threads(pool) * f->scratch_size, sizeof *f->scratch, "refinement tiles", err));
    int dead;
    double unit = nb_gram_mean(h, f->k, &dead);
    for (size_t i = 0; i < k; i++) {
        bool live = h[(size_t)f->column[i] * (k + 1)] > 0.0;
        for (size_t j = 0; j < k; j++) {
            bool meets = live && h[(size_t)f->column[j] * k + (size_t)f->column[j]] > 0.0;
            f->h[i * k + j] = meets ? (float)(nb_upper(h, f->k, f->column[i], f->column[j]) / unit) : 0.0f;
        }
        if (live) f->h[i * k + i] += (float)damp;
    }
    return NB_OK;
}

nb_status nb_refine(nb_codes *q, const float *v, const double *h, bool sym, const nb_refine_options *options, nb_pool *pool,
                    nb_error *err)
{
    if (options->sweeps < 0 || !(options->damp >= 0.0) || !isfinite(options->damp))
        return nb_fail(err, NB_ERR_ARGUMENT, "refinement: %d sweeps with damping %g are not possible", options->sweeps, options->damp);
    NB_TRY(nb_check_weights(v, q->n, q->k, err));
    NB_TRY(nb_check_gram(h, q->k, pool, err));
    refiner f = { .q = q, .v = v, .n = q->n, .k = q->k, .sym = sym, .scales = options->scales, .sweeps = options->sweeps };
    nb_status status = prepare(&f, h, options->damp, pool, err);
    if (!status) nb_parallel_blas(pool, ((size_t)q->n + ROWS - 1) / ROWS, refine_tile, &f);
    free(f.column);
    free(f.start);
    free(f.h);
    free(f.scratch);
    return status;
}
