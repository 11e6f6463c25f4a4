/* target.c - a cheap first pass: what rounding would do to each matrix's output.
 *
 *     score(site, bits) = sum over its matrices of tr((W - Q) H (W - Q)') / tr(W H W')       H = E[x x'] of the float model
 *
 * with Q rounded to nearest.  Bytes then go where the score falls most for each (allocate.h).  A divergence is foretold from one
 * measurement: KL of the model with every free site at its main bits, times the share of the score that is left.  The solvers do better
 * than rounding, so that is on the safe side; `nibble eval` measures the result.
 */
#include "quant/target.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant/allocate.h"
#include "quant/form.h"
#include "quant/layer_work.h"
#include "quant/plan.h"

enum { HEAD_ROWS = 32 };

bool nb_target_wanted(const nb_quantize_options *o)
{
    return o->target_bytes || o->target_bpw > 0 || o->target_kl > 0;
}

/* ---- scores ------------------------------------------------------------------------------------------------------------ */

static nb_grid grid_of(const nb_pick *pick, int level)
{
    nb_grid grid = pick->grid;
    if (level == NB_LEVEL_INT8) grid.bits = 8;
    if (level == NB_LEVEL_INT8 && pick->grid.bits == 4) grid.sym = true; /* as for --set */
    return grid;
}

/* Relative output errors of matrix i at a level; its codes stay in l->codes when keep. */
static nb_status score_matrix(double *score, nb_layer_work *l, int i, const nb_grid *grid, const double *h, double energy,
                              bool keep, nb_error *err)
{
    nb_pool *pool = l->job->ops->pool;
    nb_codes codes;
    float   *q;
    int      n = l->f.n[i], k = l->f.k[i];
    NB_TRY(nb_rtn(&codes, l->f.w[i], n, k, grid, pool, err));
    nb_status status = nb_alloc(&q, (size_t)n * (size_t)k, sizeof *q, "a dequantized matrix", err);
    if (!status) {
        nb_codes_dequantize(&codes, q);
        *score += energy > 0 ? nb_gram_loss(l->f.w[i], q, h, n, k, pool) / energy : 0;
        free(q);
    }
    if (status || !keep)
        nb_codes_free(&codes);
    else
        l->codes[i] = codes;
    return status;
}

static nb_status score_site(nb_site_cost *cost, nb_layer_work *l, nb_site site, bool codes, nb_error *err)
{
    const double *h = l->stats[site].gram;
    for (int i = nb_site_first[site]; i < nb_site_first[site] + nb_site_count[site]; i++) {
        const nb_pick *pick = nb_choice_linear(&l->job->choice, l->index, i);
        size_t         count = (size_t)l->f.n[i] * (size_t)l->f.k[i];
        float         *nothing;
        if (pick->keep) continue;
        NB_TRY(nb_float_layer_floats(&l->f, i, l->job->ops->pool, err));
        NB_TRY(nb_alloc(&nothing, count, sizeof *nothing, "a matrix of zeros", err));
        double energy = nb_gram_loss(l->f.w[i], nothing, h, l->f.n[i], l->f.k[i], l->job->ops->pool);
        free(nothing);
        for (int level = NB_LEVEL_MAIN; level < NB_LEVEL_FLOAT; level++) {
            nb_grid grid = grid_of(pick, level);
            NB_TRY(score_matrix(&cost->score[level], l, i, &grid, h, energy, codes && level == NB_LEVEL_MAIN, err));
        }
        free(l->f.w[i]);
        l->f.w[i] = NULL;
    }
    return NB_OK;
}

static void count_bytes(nb_site_cost *cost, const nb_layer_work *l, nb_site site)
{
    const nb_quantize_options *o = &l->job->options;
    for (int i = nb_site_first[site]; i < nb_site_first[site] + nb_site_count[site]; i++) {
        const nb_pick *pick = nb_choice_linear(&l->job->choice, l->index, i);
        uint64_t       plain = (uint64_t)l->f.n[i] * (uint64_t)l->f.k[i] * nb_dtype_size(nb_plain_dtype(&l->job->plain, l->f.source[i].weights.dtype));
        cost->fixed = pick->fixed || pick->keep;
        if (pick->keep) cost->level = NB_LEVEL_FLOAT;
        cost->bytes[NB_LEVEL_FLOAT] += plain;
        for (int level = NB_LEVEL_MAIN; level < NB_LEVEL_FLOAT && !pick->keep; level++) {
            nb_grid grid = grid_of(pick, level);
            cost->bytes[level] += nb_form_bytes(o->format, &grid, nb_quantize_permutes(o), l->f.n[i], l->f.k[i]);
        }
    }
}

/* ---- the pass ---------------------------------------------------------------------------------------------------------- */

/* One layer: the float samples move on, and, with KL wanted, the rounded ones, which `rounded` holds. */
static nb_status pass_layer(nb_layer_work *l, nb_site_cost *costs, nb_job *rounded, nb_error *err)
{
    nb_job *job = l->job;
    NB_TRY(nb_float_layer_read(&l->f, job->model, &job->plain, l->index, err));
    for (int i = 0; i < NB_LINEARS; i++)
        l->now[i] = (nb_linear){.weights = l->f.source[i].weights, .bias = i <= NB_V ? l->f.bias[i] : NULL};
    NB_TRY(nb_layer_watch(l, NB_SITE_QKV, NB_SITE_DOWN, true, err));
    for (int site = 0; site < NB_SITES; site++) {
        NB_TRY(score_site(&costs[site], l, (nb_site)site, rounded != NULL, err));
        count_bytes(&costs[site], l, (nb_site)site);
        nb_stats_free(&l->stats[site]);
    }
    if (!rounded) return NB_OK;
    for (int i = 0; i < NB_LINEARS; i++) {
        const nb_codes *c = &l->codes[i];
        if (c->codes)
            l->now[i].weights = (nb_weights){.kind = c->bits == 4 ? NB_W_INT4 : NB_W_INT8, .n = c->n, .k = c->k,
                                             .group = c->group,
                                             .codes = c->codes, .scales = c->scales, .zeros = c->zeros};
    }
    l->job = rounded;
    nb_status status = nb_layer_run(l, l->now, 0, true, err);
    l->job = job;
    return status;
}

/* log of the sum of exponentials */
static double log_sum(const float *x, size_t n)
{
    double top = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++) top = x[i] > top ? x[i] : top;
    for (size_t i = 0; i < n; i++) sum += exp(x[i] - top);
    return top + log(sum);
}

static double divergence(const float *p, const float *q, size_t n)
{
    double a = log_sum(p, n), b = log_sum(q, n), kl = 0;
    for (size_t i = 0; i < n; i++) kl += exp(p[i] - a) * ((p[i] - a) - (q[i] - b));
    return kl;
}

typedef struct {
    const nb_model *model;
    nb_scratch     *scratch;
    float          *x, *y;       /* [HEAD_ROWS, hidden], [HEAD_ROWS, vocab] in backend memory */
    float          *logits[2];   /* host */
} head;

static void head_free(head *h)
{
    const nb_ops *ops = &h->model->ops;
    nb_scratch_free(h->scratch);
    ops->free(ops, h->x);
    ops->free(ops, h->y);
    free(h->logits[0]);
    free(h->logits[1]);
}

static nb_status head_open(head *h, const nb_model *model, nb_error *err)
{
    const nb_ops *ops = &model->ops;
    size_t        hidden = (size_t)model->config.hidden, vocab = (size_t)model->config.vocab;
    *h = (head){.model = model};
    nb_status status = nb_scratch_new(&h->scratch, model, HEAD_ROWS, err);
    h->x = ops->alloc(ops, HEAD_ROWS * hidden * sizeof(float));
    h->y = ops->alloc(ops, HEAD_ROWS * vocab * sizeof(float));
    if (!status && (!h->x || !h->y)) status = nb_fail(err, NB_ERR_MEMORY, "no memory for %d rows of logits", HEAD_ROWS);
    for (int i = 0; i < 2 && !status; i++) status = nb_alloc(&h->logits[i], HEAD_ROWS * vocab, sizeof(float), "logits", err);
    if (status) head_free(h);
    return status;
}

/* Mean over all tokens of KL(float || rounded). */
static nb_status measure_kl(double *out, const nb_job *floats, const nb_job *rounded, nb_error *err)
{
    const nb_model *model = floats->model;
    const nb_ops   *ops = &model->ops;
    size_t          hidden = (size_t)model->config.hidden, vocab = (size_t)model->config.vocab, tokens = 0;
    double          sum = 0;
    head            h;
    NB_TRY(head_open(&h, model, err));
    for (size_t i = 0; i < floats->samples.count; i++)
        for (size_t first = 0, n = floats->samples.prompts[i].count; first < n; first += HEAD_ROWS) {
            size_t rows = n - first < HEAD_ROWS ? n - first : HEAD_ROWS;
            for (int which = 0; which < 2; which++) {
                const nb_samples *s = which ? &rounded->samples : &floats->samples;
                ops->upload(ops, h.x, s->hidden[i] + first * hidden, rows * hidden * sizeof(float));
                nb_head_forward(model, h.scratch, h.x, rows, h.y);
                ops->download(ops, h.logits[which], h.y, rows * vocab * sizeof(float));
            }
            for (size_t r = 0; r < rows; r++) sum += divergence(h.logits[0] + r * vocab, h.logits[1] + r * vocab, vocab);
            tokens += rows;
        }
    head_free(&h);
    *out = tokens ? sum / (double)tokens : 0;
    return ops->status(ops, err);
}

static nb_status pass_layers(nb_job *job, nb_job *floats, nb_job *rounded, nb_site_cost *costs, nb_error *err)
{
    nb_status status = NB_OK;
    for (int layer = 0; layer < job->model->config.layers && !status; layer++) {
        nb_layer_work *l;
        NB_TRY(nb_job_step(job, err, "what bits cost in layer %d of %d", layer + 1, job->model->config.layers));
        NB_TRY(nb_alloc(&l, 1, sizeof *l, "a layer", err));
        l->job = floats;
        l->index = layer;
        status = pass_layer(l, costs + layer * NB_SITES, rounded, err);
        for (int i = 0; i < NB_LINEARS; i++) nb_codes_free(&l->codes[i]);
        for (int site = 0; site < NB_SITES; site++) nb_stats_free(&l->stats[site]);
        nb_float_layer_free(&l->f);
        free(l);
    }
    return status;
}

static nb_status load(nb_job *pass, const nb_job *job, nb_error *err)
{
    nb_samples_options o = job->options.data;
    if (o.samples <= 0 || o.samples > NB_TARGET_SAMPLES) o.samples = NB_TARGET_SAMPLES;
    o.spool = NULL;
    o.embed = true;
    *pass = *job;
    memset(&pass->samples, 0, sizeof pass->samples);
    NB_TRY(nb_samples_load(&pass->samples, job->model, &o, err));
    pass->tokens = pass->samples.tokens;
    return nb_samples_embed(&pass->samples, job->model, err);
}

/* Scores and sizes of all sites, and the divergence at main bits if it is asked for. */
static nb_status measure(nb_job *job, nb_site_cost *costs, double *kl, nb_error *err)
{
    bool      wants_kl = job->options.target_kl > 0;
    nb_job    floats = {0}, rounded = {0};
    nb_status status = load(&floats, job, err);
    if (!status && wants_kl) status = load(&rounded, job, err);
    if (!status) status = pass_layers(job, &floats, wants_kl ? &rounded : NULL, costs, err);
    if (!status && wants_kl) status = measure_kl(kl, &floats, &rounded, err);
    nb_samples_free(&floats.samples);
    nb_samples_free(&rounded.samples);
    return status;
}

/* ---- the choice -------------------------------------------------------------------------------------------------------- */

static uint64_t weights_of_layers(const nb_config *c)
{
    nb_float_layer f;
    uint64_t       count = 0;
    nb_float_layer_shape(&f, c, 0);
    for (int i = 0; i < NB_LINEARS; i++) count += (uint64_t)f.n[i] * (uint64_t)f.k[i];
    return count * (uint64_t)c->layers;
}

static nb_status too_small(const nb_job *job, uint64_t least, nb_error *err)
{
    const nb_quantize_options *o = &job->options;
    if (o->target_bytes)
        return nb_fail(err, NB_ERR_BUDGET, "a size of %llu bytes is too little: %llu are needed with %d bits everywhere",
                       (unsigned long long)o->target_bytes, (unsigned long long)least, o->grid.bits);
    return nb_fail(err, NB_ERR_BUDGET, "%g bits a weight are too few: %d bits everywhere take %.4g with their scales",
                   o->target_bpw,
                   o->grid.bits, 8.0 * (double)least / (double)weights_of_layers(&job->model->config));
}

static nb_status allocate(nb_job *job, nb_site_cost *costs, size_t count, double kl, nb_error *err)
{
    const nb_quantize_options *o = &job->options;
    uint64_t                   used = nb_allocated_bytes(costs, count), rest = 0, budget;
    double                     before = nb_allocated_score(costs, count);
    if (o->target_kl > 0) {
        double goal = kl > 0 ? before * o->target_kl / kl : before;
        if (!nb_allocate_score(costs, count, goal))
            return nb_fail(err, NB_ERR_BUDGET, "a divergence of %g cannot be reached with the matrices that rules leave "
                           "free", o->target_kl);
        nb_buf_printf(&job->report->notes, "plain rounding to %d bits has KL %.3g; %.3g is foretold for the bits that were "
                      "chosen\n", o->grid.bits,
                      kl, before > 0 ? kl * nb_allocated_score(costs, count) / before : 0);
        return NB_OK;
    }
    if (o->target_bytes) { /* what is not in the layers is written, too */
        nb_quantize_options plain = *o;
        nb_plan             plan;
        plain.target_bytes = 0;
        NB_TRY(nb_plan_make(&plan, &plain, 1, err));
        rest = plan.output - used;
        budget = o->target_bytes > rest ? o->target_bytes - rest : 0;
    } else {
        budget = (uint64_t)(o->target_bpw / 8 * (double)weights_of_layers(&job->model->config));
    }
    return nb_allocate_bytes(costs, count, budget) ? NB_OK : too_small(job, used + rest, err);
}

/* Picks of the sites that were raised. */
static void raise_picks(nb_choice *c, const nb_site_cost *costs, nb_buf *notes)
{
    const nb_pick main = {.grid = c->main};
    size_t        int8 = 0, floats = 0;
    for (int layer = 0; layer < c->layers; layer++)
        for (int site = 0; site < NB_SITES; site++) {
            const nb_site_cost *cost = &costs[layer * NB_SITES + site];
            if (cost->fixed || cost->level == NB_LEVEL_MAIN) continue;
            for (int i = nb_site_first[site]; i < nb_site_first[site] + nb_site_count[site]; i++) {
                nb_pick *p = &c->linears[layer * NB_LINEARS + i];
                p->keep = cost->level == NB_LEVEL_FLOAT;
                p->grid = grid_of(p, cost->level);
                int8 += !p->keep;
                floats += p->keep;
                c->mixed = c->mixed || !nb_pick_equal(p, &main);
            }
        }
    nb_buf_printf(notes, "of %d matrices, %zu were given 8 bits and %zu stay float\n", c->layers * NB_LINEARS, int8, floats);
}

nb_status nb_target_settle(nb_job *job, nb_error *err)
{
    size_t        count = (size_t)job->model->config.layers * NB_SITES;
    nb_site_cost *costs;
    double        kl = 0;
    if (!nb_target_wanted(&job->options)) return NB_OK;
    NB_TRY(nb_alloc(&costs, count, sizeof *costs, "the cost of bits", err));
    job->total += (size_t)job->model->config.layers;
    nb_status status = measure(job, costs, &kl, err);
    if (!status) status = allocate(job, costs, count, kl, err);
    if (!status) raise_picks(&job->choice, costs, &job->report->notes);
    free(costs);
    return status;
}
