/* samples_layer.c - one decoder layer over the whole calibration set.
 *
 * There is one decoder function, nb_layer_forward, and this calls it as the engine does: samples are the spans of a step,
 * several to a call while they fit NB_SAMPLES_ROWS rows.  What a row gives does not depend on its company, nor do the statistics
 * depend on what is added first, so the batches change nothing but the speed.  The KV pages are private, one layer deep, f32 (or
 * as the set says), and forgotten after each batch.
 */
#include "calib/samples.h"
#include "calib/stats.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/lane.h"

typedef struct {
    const nb_sample_tap *tap;
    const nb_pair_tap   *pair;     /* in place of tap */
    int                  stream;
    const float         *state_d;  /* [rows, hidden] of the batch, as the layer changes it */
    bool                 keep;     /* the pass goes on to its end */
    uint8_t             *modality; /* [max rows] of the batch */
    size_t              *bounds;   /* [max samples + 1] of the batch, in rows */
    size_t               count;    /* samples of the batch */
    size_t               seen;     /* rows that came through the first site */
} tap_batch;

typedef struct {
    size_t      rows, pages, spans; /* of the largest batch */
    nb_lane    *lane;               /* with a spool, the only one that touches it during the pass; NULL without */
    nb_samples *set;
    size_t      hidden;
    float      *in, *out;           /* [rows, hidden] the next batch from the spool, and the last one on its way to it */
    size_t      in_ticket, out_ticket;
    nb_scratch *scratch;
    nb_attn     attn;
    char       *pool_d;             /* the pages */
    float      *x_d;                /* [rows, hidden] */
    void      **page;               /* [pages] pointers into pool_d */
    nb_span    *span;               /* [spans] */
    int32_t    *position;           /* [3, rows] */
    tap_batch   tap;
} layer_pass;

static size_t pages_of(size_t tokens)
{
    return (tokens + NB_KV_PAGE - 1) / NB_KV_PAGE;
}

/* Samples first .. result-1 make one batch: at least one, then as many as fit. */
static size_t batch_end(const nb_samples *s, size_t first, size_t *rows, size_t *pages)
{
    size_t end = first;
    *rows = *pages = 0;
    while (end < s->count && (end == first || *rows + s->prompts[end].count <= NB_SAMPLES_ROWS)) {
        *rows += s->prompts[end].count;
        *pages += pages_of(s->prompts[end].count);
        end++;
    }
    return end;
}

static void measure(layer_pass *p, const nb_samples *s)
{
    for (size_t first = 0, end; first < s->count; first = end) {
        size_t rows, pages;
        end = batch_end(s, first, &rows, &pages);
        if (rows > p->rows) p->rows = rows;
        if (pages > p->pages) p->pages = pages;
        if (end - first > p->spans) p->spans = end - first;
    }
}

static void pass_free(layer_pass *p, const nb_ops *ops)
{
    nb_scratch_free(p->scratch);
    if (p->pool_d) ops->free(ops, p->pool_d);
    if (p->x_d) ops->free(ops, p->x_d);
    nb_lane_free(p->lane); /* before what its jobs write to */
    free(p->in);
    free(p->out);
    free(p->page);
    free(p->span);
    free(p->position);
    free(p->tap.modality);
    free(p->tap.bounds);
}

/* With a spool: room for a batch on its way, and, but for a pair of sets that take turns, the lane. */
static nb_status start_lane(layer_pass *p, bool keep, nb_error *err)
{
    NB_TRY(nb_alloc(&p->in, p->rows * p->hidden, sizeof *p->in, "hidden states", err));
    if (p->tap.pair) return NB_OK;
    if (keep) NB_TRY(nb_alloc(&p->out, p->rows * p->hidden, sizeof *p->out, "hidden states", err));
    return nb_lane_new(&p->lane, err);
}

static nb_status pass_new(layer_pass *p, nb_samples *s, const nb_model *model, bool keep, nb_error *err)
{
    const nb_config *c = &model->config;
    size_t half = nb_kv_layer_bytes(c->kv_heads, c->head_dim, s->kv_type); /* K, then V */
    measure(p, s);
    p->attn = (nb_attn){.heads = c->heads, .kv_heads = c->kv_heads, .head_dim = c->head_dim,
                        .scale = 1.0f / sqrtf((float)c->head_dim), .kv_type = s->kv_type, .k_offset = 0, .v_offset = half};
    NB_TRY(nb_scratch_new(&p->scratch, model, p->rows, err));
    NB_TRY(nb_alloc(&p->page, p->pages, sizeof *p->page, "calibration pages", err));
    NB_TRY(nb_alloc(&p->span, p->spans, sizeof *p->span, "calibration spans", err));
    NB_TRY(nb_alloc(&p->position, 3 * p->rows, sizeof *p->position, "calibration positions", err));
    NB_TRY(nb_alloc(&p->tap.modality, p->rows, 1, "calibration rows", err));
    p->set = s;
    p->hidden = (size_t)c->hidden;
    if (s->spool) NB_TRY(start_lane(p, keep, err));
    NB_TRY(nb_alloc(&p->tap.bounds, p->spans + 1, sizeof *p->tap.bounds, "calibration rows", err));
    p->pool_d = model->ops.alloc(&model->ops, p->pages * 2 * half);
    p->x_d = model->ops.alloc(&model->ops, p->rows * (size_t)c->hidden * sizeof(float));
    if (!p->pool_d || !p->x_d)
        return nb_fail(err, NB_ERR_MEMORY, "out of memory for a batch of %zu calibration tokens", p->rows);
    for (size_t i = 0; i < p->pages; i++) p->page[i] = p->pool_d + i * 2 * half;
    return NB_OK;
}

static bool forward_tap(void *context, nb_site site, const float *x, size_t ld, size_t rows, int k)
{
    tap_batch           *t = context;
    const nb_sample_rows all = {.bounds = t->bounds, .count = t->count, .modality = t->modality};
    if (site == NB_SITE_QKV) t->seen += rows;
    t->tap->site(t->tap->context, site, x, ld, k, &all);
    return t->keep || t->tap->sites == 0 || (int)site + 1 < t->tap->sites;
}

static bool pair_tap(void *context, nb_site site, const float *x, size_t ld, size_t rows, int k)
{
    tap_batch           *t = context;
    const nb_sample_rows all = {.bounds = t->bounds, .count = t->count, .modality = t->modality};
    (void)rows; /* all of the batch */
    if (site != t->pair->site_wanted) return true;
    t->pair->site(t->pair->context, t->stream, site, x, ld, k, t->state_d, &all);
    return false;
}

/* ---- the spool, on the lane: the next batch comes, and the last one goes, while this one is computed ----------------- */

static nb_status load_batch(void *context, size_t first, nb_error *err)
{
    layer_pass *p = context;
    size_t      rows, pages, end = batch_end(p->set, first, &rows, &pages);
    float      *to = p->in;
    for (size_t i = first; i < end; i++) {
        size_t values = p->set->prompts[i].count * p->hidden;
        NB_TRY(nb_spool_get(p->set->spool, i, to, values, err));
        to += values;
    }
    return NB_OK;
}

static nb_status store_batch(void *context, size_t first, nb_error *err)
{
    layer_pass  *p = context;
    size_t       rows, pages, end = batch_end(p->set, first, &rows, &pages);
    const float *from = p->out;
    for (size_t i = first; i < end; i++) {
        size_t values = p->set->prompts[i].count * p->hidden;
        NB_TRY(nb_spool_put(p->set->spool, from, values, err));
        from += values;
    }
    return NB_OK;
}

static nb_status wait_for(layer_pass *p, size_t ticket, nb_error *err)
{
    double    start = nb_seconds();
    nb_status status = nb_lane_wait(p->lane, ticket, err);
    p->set->waited_s += nb_seconds() - start;
    return status;
}

/* The states of a batch to x_d. */
static nb_status batch_in(layer_pass *p, size_t first, size_t end, size_t rows, const nb_ops *ops, nb_error *err)
{
    nb_samples *s = p->set;
    size_t      at = 0;
    for (size_t i = first; i < end && !s->spool; i++) {
        size_t values = s->prompts[i].count * p->hidden;
        ops->upload(ops, p->x_d + at, s->hidden[i], values * sizeof(float));
        at += values;
    }
    if (!s->spool) return NB_OK;
    NB_TRY(p->lane ? wait_for(p, p->in_ticket, err) : load_batch(p, first, err));
    ops->upload(ops, p->x_d, p->in, rows * p->hidden * sizeof(float));
    NB_TRY(ops->status(ops, err)); /* it has been read */
    if (p->lane && end < s->count) p->in_ticket = nb_lane_give(p->lane, load_batch, p, end);
    return NB_OK;
}

static nb_status batch_out(layer_pass *p, size_t first, size_t end, size_t rows, const nb_ops *ops, nb_error *err)
{
    nb_samples *s = p->set;
    size_t      at = 0;
    for (size_t i = first; i < end && !p->lane; i++) {
        size_t values = s->prompts[i].count * p->hidden;
        ops->download(ops, s->hidden[i], p->x_d + at, values * sizeof(float));
        at += values;
    }
    if (!p->lane) return ops->status(ops, err);
    NB_TRY(wait_for(p, p->out_ticket, err));
    ops->download(ops, p->out, p->x_d, rows * p->hidden * sizeof(float));
    NB_TRY(ops->status(ops, err));
    p->out_ticket = nb_lane_give(p->lane, store_batch, p, first);
    return NB_OK;
}

/* Lay the samples of a batch side by side, run, and take the outputs back when they are kept. */
static nb_status run_batch(layer_pass *p, size_t first, size_t end, size_t rows, const nb_model *model, const nb_layer *layer,
                           bool keep, nb_error *err)
{
    const nb_ops     *ops = &model->ops;
    const nb_samples *s = p->set;
    size_t            at = 0, page = 0;
    NB_TRY(batch_in(p, first, end, rows, ops, err));
    for (size_t i = first; i < end; i++) {
        const nb_prompt *prompt = &s->prompts[i];
        size_t           n = prompt->count;
        p->span[i - first] = (nb_span){.first = at, .rows = n, .past = 0, .pages = p->page + page};
        for (size_t axis = 0; axis < 3; axis++)
            memcpy(p->position + axis * rows + at, prompt->position + axis * n, n * sizeof *p->position);
        for (size_t t = 0; t < n; t++)
            p->tap.modality[at + t] = s->answers_only && !prompt->answer[t] ? NB_TOKEN_UNCOUNTED : prompt->modality[t];
        at += n;
        p->tap.bounds[i - first + 1] = at;
        page += pages_of(n);
    }
    assert(at == rows);
    p->tap.count = end - first;
    nb_rope_prepare(model, p->scratch, p->position, rows, rows);
    p->tap.keep = keep;
    p->tap.state_d = p->x_d;
    nb_layer_forward(model, layer, p->scratch, &p->attn, p->span, end - first, p->x_d, rows,
                     p->tap.pair ? pair_tap : p->tap.tap ? forward_tap : NULL, &p->tap);
    NB_TRY(ops->status(ops, err));
    return keep ? batch_out(p, first, end, rows, ops, err) : NB_OK;
}

nb_status nb_samples_layer(nb_samples *s, const nb_model *model, const nb_layer *layer, const nb_sample_tap *tap, bool keep,
                           nb_error *err)
{
    if (s->count == 0) return NB_OK; /* a share of nothing */
    assert(s->hidden || s->spool);
    layer_pass pass = {.tap = {.tap = tap}};
    nb_status  status = pass_new(&pass, s, model, keep, err);
    if (!status && keep && s->spool) status = nb_spool_start(s->spool, err);
    if (!status && pass.lane) pass.in_ticket = nb_lane_give(pass.lane, load_batch, &pass, 0);
    for (size_t first = 0, end; first < s->count && !status; first = end) {
        size_t rows, pages;
        end = batch_end(s, first, &rows, &pages);
        status = run_batch(&pass, first, end, rows, model, layer, keep, err);
    }
    if (!status && pass.lane) status = wait_for(&pass, keep ? pass.out_ticket : pass.in_ticket, err);
    if (!status && keep && s->spool) status = nb_spool_finish(s->spool, err);
    assert(status || !tap || pass.tap.seen == s->tokens);
    pass_free(&pass, &model->ops);
    return status;
}

nb_status nb_samples_pair(const nb_samples *set[2], const nb_layer *layer[2], const nb_model *model, const nb_pair_tap *tap,
                          nb_error *err)
{
    layer_pass pass = {.tap = {.pair = tap}};
    nb_samples reads[2] = {*set[0], *set[1]}; /* nothing is kept */
    nb_status  status = pass_new(&pass, &reads[0], model, false, err);
    for (size_t first = 0, end; first < set[0]->count && !status; first = end) {
        size_t rows, pages;
        end = batch_end(set[0], first, &rows, &pages);
        for (int i = 0; i < 2 && !status; i++) {
            pass.tap.stream = i;
            pass.set = &reads[i];
            status = run_batch(&pass, first, end, rows, model, layer[i], false, err);
        }
    }
    pass_free(&pass, &model->ops);
    return status;
}
