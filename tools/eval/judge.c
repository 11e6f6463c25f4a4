/* judge.c - see judge.h. */
#include "tools/eval/judge.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/session.h"

enum { HEAD_ROWS = 32 }; /* logits of 152k words take 600 kB a row, and there are two models */

void nb_judgement_free(nb_judgement *j)
{
    nb_divergence_free(&j->divergence);
    free(j->residual);
    memset(j, 0, sizeof *j);
}

/* One of the two models on its way through the conversations. */
typedef struct {
    nb_model   *model;
    nb_samples  samples;
    char       *spool;
    nb_scratch *scratch;  /* of the head */
    float      *x_d, *logits_d; /* backend [HEAD_ROWS, hidden], [HEAD_ROWS, vocab] */
    float      *state;    /* [longest, hidden] of one conversation */
    float      *logits;   /* [HEAD_ROWS, vocab] */
} side;

typedef struct {
    nb_judgement  *out;
    side           side[2]; /* original, quantized */
    nb_judge_step *step;
    void          *context;
    size_t         done, total;
} judging;

enum { ORIGINAL, QUANTIZED };
static const char *const side_names[] = { "original", "quantized" };

static void side_free(side *s)
{
    const nb_ops *ops = &s->model->ops;
    nb_samples_free(&s->samples);
    if (s->spool) rmdir(s->spool); /* a run that was killed had made it */
    nb_scratch_free(s->scratch);
    if (s->x_d) ops->free(ops, s->x_d);
    if (s->logits_d) ops->free(ops, s->logits_d);
    free(s->state);
    free(s->logits);
    free(s->spool);
}

static nb_status next_step(judging *j, const char *what, nb_error *err)
{
    size_t done = j->done++;
    if (!j->step || j->step(j->context, done, j->total, what)) return NB_OK;
    return nb_fail(err, NB_ERR_STOPPED, "stopped before judging was done, at %s", what);
}

/* ---- conversations ------------------------------------------------------------------------------------------------- */

static nb_status load(side *s, int which, const nb_samples_options *data, nb_error *err)
{
    nb_samples_options o = *data;
    o.embed = true; /* the pictures of one conversation at a time */
    o.kv_type = nb_kv_auto(s->model);
    if (which != ORIGINAL) o.seen = NULL;
    if (data->spool) {
        if (asprintf(&s->spool, "%s/judge-%s", data->spool, side_names[which]) < 0) {
            s->spool = NULL;
            return nb_fail(err, NB_ERR_MEMORY, "out of memory for the judge");
        }
        o.spool = s->spool;
    }
    NB_TRY(nb_samples_load(&s->samples, s->model, &o, err));
    return nb_samples_embed(&s->samples, s->model, err);
}

/* The two must have read the same tokens: another tokenizer or template would compare different texts. */
static nb_status check_same(const nb_samples *a, const nb_samples *b, nb_error *err)
{
    bool same = a->count == b->count;
    for (size_t i = 0; i < a->count && same; i++)
        same = a->prompts[i].count == b->prompts[i].count &&
               !memcmp(a->prompts[i].ids, b->prompts[i].ids, a->prompts[i].count * sizeof *a->prompts[i].ids);
    return same ? NB_OK : nb_fail(err, NB_ERR_DIFFERENT, "the two models read the same conversations as different tokens: they cannot be compared");
}

static size_t longest(const nb_samples *s)
{
    size_t most = 0;
    for (size_t i = 0; i < s->count; i++)
        if (s->prompts[i].count > most) most = s->prompts[i].count;
    return most;
}

static nb_status load_both(judging *j, const nb_samples_options *data, nb_error *err)
{
    for (int i = 0; i < 2; i++) {
        side  *s = &j->side[i];
        size_t hidden = (size_t)s->model->config.hidden, vocab = (size_t)s->model->config.vocab, values;
        NB_TRY(next_step(j, i == ORIGINAL ? "the conversations" : "the conversations, quantized", err));
        NB_TRY(load(s, i, data, err));
        if (!nb_mul(longest(&s->samples), hidden, &values)) return nb_fail(err, NB_ERR_MEMORY, "out of memory for the judge");
        NB_TRY(nb_alloc(&s->state, values, sizeof *s->state, "a conversation's states", err));
        NB_TRY(nb_alloc(&s->logits, HEAD_ROWS * vocab, sizeof *s->logits, "logits", err));
    }
    return check_same(&j->side[ORIGINAL].samples, &j->side[QUANTIZED].samples, err);
}

/* ---- layers -------------------------------------------------------------------------------------------------------- */

static nb_status run_layer(side *s, int layer, nb_error *err)
{
    nb_layer packed;
    NB_TRY(nb_model_load_layer(s->model, layer, &packed, err));
    nb_status status = nb_samples_layer(&s->samples, s->model, &packed, NULL, true, err);
    nb_layer_release(&s->model->ops, &packed);
    return status;
}

/* What a half-precision residual stream would have to hold. */
static nb_status measure_residual(float *out, side *s, nb_error *err)
{
    size_t hidden = (size_t)s->model->config.hidden;
    *out = 0;
    for (size_t i = 0; i < s->samples.count; i++) {
        NB_TRY(nb_samples_state(&s->samples, i, hidden, s->state, err));
        for (size_t k = 0; k < s->samples.prompts[i].count * hidden; k++)
            if (!(fabsf(s->state[k]) <= *out)) *out = fabsf(s->state[k]);
    }
    return NB_OK;
}

static nb_status run_layers(judging *j, nb_error *err)
{
    for (int layer = 0; layer < j->out->layers; layer++)
        for (int i = 0; i < 2; i++) {
            char what[64];
            snprintf(what, sizeof what, "layer %d of %d, %s", layer + 1, j->out->layers, side_names[i]);
            NB_TRY(next_step(j, what, err));
            NB_TRY(run_layer(&j->side[i], layer, err));
            if (i == QUANTIZED) NB_TRY(measure_residual(&j->out->residual[layer], &j->side[i], err));
        }
    return NB_OK;
}

/* ---- heads --------------------------------------------------------------------------------------------------------- */

static nb_status open_head(side *s, nb_error *err)
{
    const nb_ops *ops = &s->model->ops;
    size_t        hidden = (size_t)s->model->config.hidden, vocab = (size_t)s->model->config.vocab;
    NB_TRY(nb_scratch_new(&s->scratch, s->model, HEAD_ROWS, err));
    s->x_d = ops->alloc(ops, HEAD_ROWS * hidden * sizeof(float));
    s->logits_d = ops->alloc(ops, HEAD_ROWS * vocab * sizeof(float));
    return s->x_d && s->logits_d ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "out of memory for %d rows of logits", HEAD_ROWS);
}

static nb_status run_head(side *s, size_t first, size_t rows, nb_error *err)
{
    const nb_ops *ops = &s->model->ops;
    size_t        hidden = (size_t)s->model->config.hidden, vocab = (size_t)s->model->config.vocab;
    ops->upload(ops, s->x_d, s->state + first * hidden, rows * hidden * sizeof(float));
    nb_head_forward(s->model, s->scratch, s->x_d, rows, s->logits_d);
    ops->download(ops, s->logits, s->logits_d, rows * vocab * sizeof(float));
    return ops->status(ops, err);
}

/* Logits of a few positions of both models; a word costs three exponentials, so the rows are shared out. */
typedef struct {
    const judging   *j;
    const nb_prompt *prompt;
    size_t           first, visual, vocab;
    nb_token_score   scores[HEAD_ROWS];
} few_rows;

static void score_row(void *context, size_t row, int thread)
{
    few_rows *f = context;
    (void)thread;
    nb_divergence_score(&f->scores[row], f->j->side[ORIGINAL].logits + row * f->vocab, f->j->side[QUANTIZED].logits + row * f->vocab,
                        (int)f->vocab, f->prompt, f->first + row, f->visual);
}

static nb_status compare_sample(judging *j, size_t sample, nb_error *err)
{
    const nb_prompt *prompt = &j->side[ORIGINAL].samples.prompts[sample];
    few_rows         f = { .j = j, .prompt = prompt, .visual = nb_divergence_first_visual(prompt),
                           .vocab = (size_t)j->side[ORIGINAL].model->config.vocab };
    for (int i = 0; i < 2; i++)
        NB_TRY(nb_samples_state(&j->side[i].samples, sample, (size_t)j->side[i].model->config.hidden, j->side[i].state, err));
    for (size_t first = 0; first < prompt->count; first += HEAD_ROWS) {
        size_t rows = prompt->count - first < HEAD_ROWS ? prompt->count - first : HEAD_ROWS;
        for (int i = 0; i < 2; i++) NB_TRY(run_head(&j->side[i], first, rows, err));
        f.first = first;
        nb_parallel(j->side[ORIGINAL].model->ops.pool, rows, score_row, &f);
        for (size_t r = 0; r < rows; r++) NB_TRY(nb_divergence_take(&j->out->divergence, &f.scores[r], true, prompt, first + r, err));
    }
    j->out->divergence.samples++;
    return NB_OK;
}

static nb_status compare_all(judging *j, nb_error *err)
{
    size_t count = j->side[ORIGINAL].samples.count;
    for (int i = 0; i < 2; i++) NB_TRY(open_head(&j->side[i], err));
    for (size_t i = 0; i < count; i++) {
        char what[64];
        snprintf(what, sizeof what, "conversation %zu of %zu", i + 1, count);
        NB_TRY(next_step(j, what, err));
        nb_status status = compare_sample(j, i, err);
        if (status) return nb_error_within(err, "held-out conversation %zu", i + 1);
    }
    return NB_OK;
}

/* ---- all of it ----------------------------------------------------------------------------------------------------- */

static nb_status run(judging *j, const nb_samples_options *data, nb_error *err)
{
    const nb_config *a = &j->side[ORIGINAL].model->config, *b = &j->side[QUANTIZED].model->config;
    if (a->vocab != b->vocab || a->layers != b->layers)
        return nb_fail(err, NB_ERR_INPUT, "the models have vocabularies of %d and %d and %d and %d layers: they cannot be compared", a->vocab,
                       b->vocab, a->layers, b->layers);
    j->out->layers = a->layers;
    j->total = 2 + 2 * (size_t)a->layers + (size_t)(data->samples > 0 ? data->samples : 0);
    NB_TRY(nb_alloc(&j->out->residual, (size_t)a->layers, sizeof *j->out->residual, "the judgement", err));
    NB_TRY(load_both(j, data, err));
    const nb_samples *s = &j->side[ORIGINAL].samples;
    j->total = 2 + 2 * (size_t)a->layers + s->count;
    j->out->too_long = s->too_long;
    j->out->bad = s->bad;
    memcpy(j->out->first_bad, s->first_bad, sizeof s->first_bad);
    memcpy(j->out->by_modality, s->by_modality, sizeof s->by_modality);
    NB_TRY(run_layers(j, err));
    return compare_all(j, err);
}

nb_status nb_judge(nb_judgement *out, nb_model *original, nb_model *quantized, const nb_samples_options *data, nb_judge_step *step,
                   void *context, nb_error *err)
{
    judging j = { .out = out, .side = { { .model = original }, { .model = quantized } }, .step = step, .context = context };
    memset(out, 0, sizeof *out);
    bool      made = data->spool && mkdir(data->spool, 0777) == 0; /* what is in the way is found out by the spools */
    nb_status status = run(&j, data, err);
    for (int i = 0; i < 2; i++) side_free(&j.side[i]);
    if (made) rmdir(data->spool);
    if (status) nb_judgement_free(out);
    return status;
}
