/* divergence.c - see divergence.h. */
#include "tools/eval/divergence.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void nb_divergence_free(nb_divergence *d)
{
    free(d->tokens);
    memset(d, 0, sizeof *d);
}

/* ---- one position ------------------------------------------------------------------------------------------------------ */

/* ln sum exp and the first index of the largest; NaN when anything is not finite. */
static double log_total(const float *x, int n, int *top)
{
    int    best = 0;
    double sum = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    for (int i = 0; i < n; i++) sum += exp((double)x[i] - x[best]);
    *top = best;
    return x[best] + log(sum);
}

size_t nb_divergence_first_visual(const nb_prompt *prompt)
{
    size_t first = 0;
    while (first < prompt->count && prompt->modality[first] == NB_TOKEN_TEXT) first++;
    return first;
}

void nb_divergence_score(nb_token_score *out, const float *reference, const float *logits, int vocab, const nb_prompt *prompt, size_t row,
                         size_t first_visual)
{
    if (row + 1 >= prompt->count) return;
    int            token = prompt->ids[row + 1], top, ref_top = 0;
    double         total = log_total(logits, vocab, &top);
    nb_token_score t = { .nll = (float)(total - logits[token]), .answer = prompt->answer[row + 1], .visual = row >= first_visual,
                         .pad = prompt->modality[row + 1] != NB_TOKEN_TEXT };
    if (!isfinite(total)) t.nll = NAN;
    if (reference) {
        double ref_total = log_total(reference, vocab, &ref_top), kl = 0;
        for (int i = 0; i < vocab; i++) {
            double p = reference[i] - ref_total;
            if (p > -INFINITY) kl += exp(p) * (p - (logits[i] - total)); /* 0 ln 0 is 0 */
        }
        int better = 0;
        for (int i = 0; i < vocab; i++) better += logits[i] > logits[ref_top];
        t.kl = kl < 0 ? 0 : (float)kl; /* rounding can leave -1e-17; a NaN stays one */
        t.ref_nll = isfinite(ref_total) ? (float)(ref_total - reference[token]) : NAN;
        t.same_top = top == ref_top;
        t.in_top5 = better < 5;
    }
    *out = t;
}

nb_status nb_divergence_take(nb_divergence *d, const nb_token_score *score, bool has_reference, const nb_prompt *prompt, size_t row,
                             nb_error *err)
{
    if (row + 1 >= prompt->count) return NB_OK;
    if (!isfinite(score->nll) || (isfinite(score->ref_nll) && !isfinite(score->kl)))
        return nb_fail(err, NB_ERR_INPUT, "the model's scores at token %zu are not finite: its weights or their scales are damaged", row);
    if (has_reference && !isfinite(score->ref_nll)) return nb_fail(err, NB_ERR_INPUT, "the reference's scores at token %zu are not finite", row);
    NB_TRY(nb_grow(&d->tokens, &d->capacity, d->count + 1, sizeof *d->tokens, "token scores", err));
    d->tokens[d->count++] = *score;
    return NB_OK;
}

/* ---- one conversation -------------------------------------------------------------------------------------------------- */

/* Logits of a step of the reference wait here until the model's step has made its own. */
typedef struct {
    nb_divergence   *d;
    const nb_prompt *prompt;
    int              vocab;
    float           *kept;     /* [rows of a chunk, vocab] reference logits */
    size_t           first, rows, capacity, first_visual;
    bool             has_reference;
} lockstep;

static nb_status keep_reference(void *context, nb_sequence *s, size_t row, float *logits, nb_error *err)
{
    lockstep *l = context;
    (void)s;
    if (l->rows == 0) l->first = row;
    NB_TRY(nb_grow(&l->kept, &l->capacity, (l->rows + 1) * (size_t)l->vocab, sizeof *l->kept, "reference logits", err));
    memcpy(l->kept + l->rows++ * (size_t)l->vocab, logits, (size_t)l->vocab * sizeof *logits);
    return NB_OK;
}

static nb_status compare(void *context, nb_sequence *s, size_t row, float *logits, nb_error *err)
{
    lockstep    *l = context;
    const float *reference = l->has_reference ? l->kept + (row - l->first) * (size_t)l->vocab : NULL;
    (void)s;
    nb_token_score score = { 0 };
    nb_divergence_score(&score, reference, logits, l->vocab, l->prompt, row, l->first_visual);
    return nb_divergence_take(l->d, &score, reference != NULL, l->prompt, row, err);
}

nb_status nb_divergence_add(nb_divergence *d, nb_engine *reference, nb_engine *engine, const nb_prompt *prompt, nb_error *err)
{
    lockstep     l = { .d = d, .prompt = prompt, .vocab = nb_engine_model(engine)->config.vocab, .has_reference = reference != NULL,
                         .first_visual = nb_divergence_first_visual(prompt) };
    nb_sequence *base = NULL, *model = NULL;
    size_t       advanced = 1;
    nb_status    status = NB_OK;
    if (reference && nb_engine_model(reference)->config.vocab != l.vocab)
        return nb_fail(err, NB_ERR_INPUT, "the models have vocabularies of %d and %d: they cannot be compared",
                       nb_engine_model(reference)->config.vocab, l.vocab);
    const nb_sequence_options of_reference = {.on_logits = keep_reference, .context = &l}, of_model = {.on_logits = compare, .context = &l};
    if (reference) status = nb_sequence_new(&base, reference, prompt, &of_reference, err);
    if (status == NB_OK) status = nb_sequence_new(&model, engine, prompt, &of_model, err);
    while (status == NB_OK && advanced) {
        l.rows = 0;
        if (base) status = nb_engine_step(reference, &advanced, err);
        if (status == NB_OK) status = nb_engine_step(engine, &advanced, err);
    }
    nb_sequence_free(base);
    nb_sequence_free(model);
    free(l.kept);
    if (status == NB_OK) d->samples++;
    return status;
}

/* ---- statistics -------------------------------------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Linear interpolation at fraction * (n - 1) of the sorted values. */
static double quantile(const double *sorted, size_t n, double fraction)
{
    double at = fraction * (double)(n - 1);
    size_t i = (size_t)at;
    return i + 1 < n ? sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

static double mean_error(double sum, double squares, size_t n)
{
    if (n < 2) return 0;
    double variance = (squares - sum * sum / (double)n) / (double)(n - 1);
    return variance > 0 ? sqrt(variance / (double)n) : 0;
}

nb_status nb_divergence_summarize(nb_divergence_summary *out, const nb_divergence *d, nb_scope scope, nb_over over, nb_error *err)
{
    double *kl, sum = 0, squares = 0, nll = 0, nll2 = 0, ref = 0, diff = 0, diff2 = 0;
    size_t  n = 0, top1 = 0, top5 = 0;
    memset(out, 0, sizeof *out);
    NB_TRY(nb_alloc(&kl, d->count, sizeof *kl, "token scores", err));
    for (size_t i = 0; i < d->count; i++) {
        const nb_token_score *t = &d->tokens[i];
        if ((scope == NB_SCOPE_ANSWER && !t->answer) || (over != NB_OVER_BOTH && (t->pad || t->visual != (over == NB_OVER_VISUAL)))) continue;
        double delta = (double)t->nll - t->ref_nll;
        kl[n++] = t->kl;
        sum += t->kl;
        squares += (double)t->kl * t->kl;
        nll += t->nll;
        nll2 += (double)t->nll * t->nll;
        ref += t->ref_nll;
        diff += delta;
        diff2 += delta * delta;
        top1 += t->same_top;
        top5 += t->in_top5;
    }
    out->tokens = n;
    if (n > 0) {
        double count = (double)n;
        qsort(kl, n, sizeof *kl, ascending);
        out->kl_mean = sum / count;
        out->kl_error = mean_error(sum, squares, n);
        out->kl_median = quantile(kl, n, 0.5);
        out->kl_p90 = quantile(kl, n, 0.9);
        out->kl_p95 = quantile(kl, n, 0.95);
        out->kl_p99 = quantile(kl, n, 0.99);
        out->kl_p999 = quantile(kl, n, 0.999);
        out->kl_max = kl[n - 1];
        out->top1 = (double)top1 / count;
        out->top5 = (double)top5 / count;
        out->ppl = exp(nll / count);
        out->ppl_error = out->ppl * mean_error(nll, nll2, n);
        out->ref_ppl = exp(ref / count);
        out->ln_ratio = diff / count;
        out->ln_ratio_error = mean_error(diff, diff2, n);
    }
    free(kl);
    return NB_OK;
}
