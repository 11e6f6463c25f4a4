/* layer_pair.c - asymmetric calibration: a matrix that makes good what the quantized matrices before it have lost.
 *
 * Two streams of hidden states go through the layers: x of the original model, y of the model as quantized so far.  A site then
 * should give W x from y, not W y.  With the damped Gram matrix H = E[y y'] + lambda I the targets that do this best are
 *
 *     V = W + W D H^-1                D = E[(x - y) y']        (Qronos, arXiv 2505.11695, as a target; GPTAQ, arXiv 2504.02692)
 *     V = W + (W D + P) H^-1          P = E[(r - t) y']        for o and down
 *
 * where r and t are the residual streams that o and down add to: the sum that the next part of the model reads is what should
 * come out right, so these two also make good what is wrong with the stream itself.  Then any solver that takes H rounds V
 * instead of W.  lambda keeps V near W along inputs that the data hardly shows.
 *
 * This file measures D and P; mend.c makes V.  Nothing here rounds, or depends on the grid.
 */
#include <assert.h>
#include <cblas.h>
#include <stdlib.h>
#include <string.h>

#include "quant/layer_work.h"
#include "quant/linalg.h"
#include "quant/mend.h"

enum { TILE = 64 };

typedef struct {
    nb_layer_work *l;
    nb_site  site;
    size_t   k, hidden;
    bool     state;                 /* P is wanted */
    float   *x[2], *r[2];           /* [rows, k], [rows, hidden] of a batch, by stream; then x[0] and r[0] are differences */
    size_t   rows;
    float   *lost, *drift;         /* [k, k] D, [hidden, k] P */
} pair;

/* ---- D and P ------------------------------------------------------------------------------------------------------- */

/* out [columns, k] += a' y for TILE columns of a [rows, columns]. */
static void add_product(float *out, const float *a, size_t columns, const pair *p, size_t item)
{
    size_t first = item * TILE, count = columns - first < TILE ? columns - first : TILE;
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)count, (int)p->k, (int)p->rows, 1.0f, a + first, (int)columns,
                p->x[1], (int)p->k, 1.0f, out + first * p->k, (int)p->k);
}

static size_t tiles_of(size_t columns)
{
    return (columns + TILE - 1) / TILE;
}

static void add_tile(void *context, size_t item, int thread)
{
    (void)thread;
    const pair *p = context;
    size_t own = tiles_of(p->k);
    if (item < own)
        add_product(p->lost, p->x[0], p->k, p, item);
    else
        add_product(p->drift, p->r[0], p->hidden, p, item - own);
}

/* a = weight (a / scale - b) */
static void subtract(float *a, const float *b, const float *scale, size_t columns, size_t rows, const uint8_t *modality,
                     const float weights[3])
{
    for (size_t r = 0; r < rows; r++) {
        float weight = modality[r] < NB_TOKEN_UNCOUNTED ? weights[modality[r]] : 0, *to = a + r * columns;
        const float *from = b + r * columns;
        if (scale)
            for (size_t i = 0; i < columns; i++) to[i] = weight * (to[i] / scale[i] - from[i]);
        else
            for (size_t i = 0; i < columns; i++) to[i] = weight * (to[i] - from[i]);
    }
}

static void tap(void *context, int stream, nb_site site, const float *x, size_t ld, int k, const float *state,
                const nb_sample_rows *batch)
{
    size_t         rows = batch->bounds[batch->count];
    const uint8_t *modality = batch->modality;
    pair          *p = context;
    nb_layer_work *l = p->l;
    const nb_ops  *ops = l->job->ops;
    const float   *weights = l->job->options.modality_weights;
    assert(ld == p->k);
    nb_moment start = nb_moment_now();
    ops->download(ops, p->x[stream], x, rows * p->k * sizeof(float));
    if (p->state) ops->download(ops, p->r[stream], state, rows * p->hidden * sizeof(float));
    if (stream == 1) {
        nb_stats_add(&l->stats[site], ops, x, ld, batch);
        p->rows = rows;
        subtract(p->x[0], p->x[1], l->scale[site], p->k, rows, modality, weights);
        if (p->state) subtract(p->r[0], p->r[1], NULL, p->hidden, rows, modality, weights);
        nb_parallel_blas(ops->pool, tiles_of(p->k) + (p->state ? tiles_of(p->hidden) : 0), add_tile, p);
    }
    nb_job_spent(l->job, NB_PHASE_GRAM, start, stream == 1 ? (double)rows * k * (3.0 * k + (p->state ? 2.0 * (double)p->hidden : 0)) : 0);
}

static nb_status allocate(pair *p, nb_error *err)
{
    const nb_samples *s = &p->l->job->samples;
    size_t rows = NB_SAMPLES_ROWS;
    for (size_t i = 0; i < s->count; i++)
        if (s->prompts[i].count > rows) rows = s->prompts[i].count;
    for (int i = 0; i < 2; i++) {
        NB_TRY(nb_alloc(&p->x[i], rows * p->k, sizeof(float), "inputs of two streams", err));
        if (p->state) NB_TRY(nb_alloc(&p->r[i], rows * p->hidden, sizeof(float), "states of two streams", err));
    }
    NB_TRY(nb_alloc(&p->lost, p->k * p->k, sizeof(float), "what the inputs have lost", err));
    return p->state ? nb_alloc(&p->drift, p->hidden * p->k, sizeof(float), "what the states have lost", err) : NB_OK;
}

/* ---- the site ------------------------------------------------------------------------------------------------------ */

/* Few tokens say little about many directions, and V would fit their accidents: the damping is at least a tenth of k / tokens.  On
 * the demo with 16 conversations, about as many tokens as inputs of down, 0.1 is better than 0.01 and 1. */
static double damping(const pair *p)
{
    const uint64_t *kinds = p->l->stats[p->site].tokens;
    uint64_t        tokens = kinds[0] + kinds[1] + kinds[2];
    double          least = 0.1 * (double)p->k / (double)(tokens ? tokens : 1);
    return least > p->l->job->options.asym_damp ? least : p->l->job->options.asym_damp;
}

static nb_status correct(const pair *p, nb_error *err)
{
    nb_layer_work *l = p->l;
    int            first = nb_site_first[p->site];
    for (int i = first; i < first + nb_site_count[p->site]; i++) {
        if (l->keep[i]) continue; /* stays what it is */
        NB_TRY(nb_float_layer_floats(&l->f, i, l->job->ops->pool, err));
        nb_status status = nb_mend(l->f.w[i], l->stats[p->site].gram, p->lost, p->drift, l->f.n[i], l->f.k[i],
                                   damping(p), l->job->ops->pool, err);
        if (status) return nb_error_within(err, "%s", l->f.name[i]);
    }
    return NB_OK;
}

static nb_status watch(pair *p, nb_error *err)
{
    nb_layer_work    *l = p->l;
    nb_job           *job = l->job;
    const nb_samples *set[2] = {&job->original, &job->samples};
    nb_layer          now;
    nb_pair_tap       watcher = {.site = tap, .context = p, .site_wanted = p->site};
    nb_moment         start = nb_moment_now();
    NB_TRY(allocate(p, err));
    NB_TRY(nb_stats_init(&l->stats[p->site], (int)p->k, job->options.modality_weights, err));
    NB_TRY(nb_layer_pack(&job->model->ops, &now, &job->model->config, l->f.norm[0], l->f.norm[1], l->now, err));
    nb_job_spent(job, NB_PHASE_PACK, start, 0);
    start = nb_moment_now();
    nb_phase_time  *phases = job->report->phases, gram = phases[NB_PHASE_GRAM];
    const nb_layer *layers[2] = {&l->original, &now};
    nb_status       status = nb_samples_pair(set, layers, job->model, &watcher, err);
    nb_layer_release(&job->model->ops, &now);
    nb_job_spent(job, NB_PHASE_FORWARD, start, 0);
    phases[NB_PHASE_FORWARD].seconds -= phases[NB_PHASE_GRAM].seconds - gram.seconds; /* which was inside */
    phases[NB_PHASE_FORWARD].cpu -= phases[NB_PHASE_GRAM].cpu - gram.cpu;
    if (status) return status;
    NB_TRY(nb_layer_finish_stats(l, p->site, err));
    double weight = l->stats[p->site].weight;
    for (size_t i = 0; i < p->k * p->k && weight > 0; i++) p->lost[i] /= (float)weight;
    for (size_t i = 0; p->state && i < p->hidden * p->k && weight > 0; i++) p->drift[i] /= (float)weight;
    return NB_OK;
}

nb_status nb_layer_watch_pair(nb_layer_work *l, nb_site site, nb_error *err)
{
    pair p = {.l = l, .site = site, .k = (size_t)l->f.k[nb_site_first[site]], .hidden = (size_t)l->job->model->config.hidden,
              .state = site == NB_SITE_O || site == NB_SITE_DOWN};
    nb_status status = watch(&p, err);
    nb_moment start = nb_moment_now();
    if (!status && !(l->index == 0 && site == NB_SITE_QKV)) status = correct(&p, err); /* nothing is lost before the first */
    nb_job_spent(l->job, NB_PHASE_SOLVE, start, 0);
    for (int i = 0; i < 2; i++) {
        free(p.x[i]);
        free(p.r[i]);
    }
    free(p.lost);
    free(p.drift);
    return status;
}
