/* sampler.c - see sampler.h.  With the values that Qwen2-VL ships (top_k 1) every path ends in the argmax of the penalised
 * logits. */
#include "runtime/engine/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    float   logit;
    int32_t id;
} candidate;

struct nb_sampler {
    nb_sampling options;
    int         vocab;
    uint8_t    *seen;       /* [vocab] with a repetition penalty */
    uint32_t   *produced;   /* [vocab] how often, with one of the other penalties */
    candidate  *candidates; /* [vocab] unless greedy */
    double     *weight;     /* [vocab] unless greedy */
    float      *raw;        /* [vocab] the logits as they came, from the first time that a log probability is asked for */
    uint64_t    state;
};

nb_sampling nb_sampling_default(const nb_generation_config *g)
{
    return (nb_sampling){ .greedy = !g->do_sample || g->temperature == 0,
                          .top_k = g->top_k,
                          .top_p = g->top_p,
                          .temperature = g->temperature,
                          .repetition_penalty = g->repetition_penalty };
}

nb_status nb_sampler_new(nb_sampler **out, const nb_sampling *s, int vocab, nb_error *err)
{
    NB_TRY(nb_alloc(out, 1, sizeof **out, "sampler", err));
    nb_sampler *p = *out;
    p->options = *s;
    p->vocab = vocab;
    p->state = s->seed;
    bool      draws = !s->greedy && s->top_k != 1;
    nb_status status = NB_OK;
    if (s->repetition_penalty != 1) status = nb_alloc(&p->seen, (size_t)vocab, 1, "sampler", err);
    if (status == NB_OK && (s->presence_penalty != 0 || s->frequency_penalty != 0))
        status = nb_alloc(&p->produced, (size_t)vocab, sizeof *p->produced, "sampler", err);
    if (status == NB_OK && draws) status = nb_alloc(&p->candidates, (size_t)vocab, sizeof *p->candidates, "sampler", err);
    if (status == NB_OK && draws) status = nb_alloc(&p->weight, (size_t)vocab, sizeof *p->weight, "sampler", err);
    if (status != NB_OK) {
        nb_sampler_free(p);
        *out = NULL;
    }
    return status;
}

void nb_sampler_free(nb_sampler *s)
{
    if (!s) return;
    free(s->seen);
    free(s->produced);
    free(s->raw);
    free(s->candidates);
    free(s->weight);
    free(s);
}

void nb_sampler_saw(nb_sampler *s, const int32_t *ids, size_t n)
{
    for (size_t i = 0; s->seen && i < n; i++)
        if (ids[i] >= 0 && ids[i] < s->vocab) s->seen[ids[i]] = 1;
}

static int32_t argmax(const float *x, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best] || isnan(x[best])) best = i;
    return best;
}

static double log_sum_exp(const float *x, int n, float top)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += exp((double)x[i] - top);
    return top + log(sum);
}

static double uniform(uint64_t *state)
{
    return (double)(nb_random64(state) >> 11) * 0x1p-53;
}

/* Largest logit first; equal logits by id, so that the order is one and the same everywhere. */
static int descending(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

/* Candidates worth sorting: within 40 nats of the best.  What lies below has a share of less than 2^22 e^-40 < 2e-11. */
static int gather(nb_sampler *s, const float *logits, float top)
{
    int n = 0;
    for (int i = 0; i < s->vocab; i++)
        if (logits[i] >= top - 40.0f) s->candidates[n++] = (candidate){ logits[i], i };
    return n;
}

static int32_t draw(nb_sampler *s, const float *logits)
{
    const nb_sampling *o = &s->options;
    int32_t            best = argmax(logits, s->vocab);
    int                n = gather(s, logits, logits[best]);
    if (n < 2) return best;
    qsort(s->candidates, (size_t)n, sizeof *s->candidates, descending);
    if (o->top_k > 0 && o->top_k < n) { /* ties with the k-th survive */
        int k = o->top_k;
        while (k < n && s->candidates[k].logit == s->candidates[o->top_k - 1].logit) k++;
        n = k;
    }
    double total = 0, least = o->min_p > 0 ? log(o->min_p) : -INFINITY;
    while (n > 1 && s->candidates[n - 1].logit - s->candidates[0].logit < least) n--;
    for (int i = 0; i < n; i++) total += s->weight[i] = exp((double)s->candidates[i].logit - s->candidates[0].logit);
    if (o->top_p < 1) { /* drop from the small end while the dropped share stays at or below 1 - top_p */
        double dropped = 0, limit = (1 - o->top_p) * total;
        while (n > 1 && dropped + s->weight[n - 1] <= limit) dropped += s->weight[--n];
        total -= dropped;
    }
    double at = uniform(&s->state) * total;
    for (int i = 0; i < n - 1; i++) {
        at -= s->weight[i];
        if (at < 0) return s->candidates[i].id;
    }
    return s->candidates[n - 1].id;
}

/* The `top` largest by insertion into a short sorted list; ids come in ascending order, so that equal ones stay in it.  Returns the log
 * of the sum of all exponentials. */
static double log_probabilities(nb_logprobs *out, const float *logits, int vocab, int top)
{
    double all = log_sum_exp(logits, vocab, logits[argmax(logits, vocab)]);
    out->count = 0;
    for (int i = 0; i < vocab && top > 0; i++) {
        int at = out->count < top ? out->count : top;
        if (at == top && !(logits[i] > out->top[top - 1].logprob)) continue;
        if (out->count < top) out->count++;
        else at--;
        for (; at > 0 && logits[i] > out->top[at - 1].logprob; at--) out->top[at] = out->top[at - 1];
        out->top[at] = (nb_token_logprob){ i, logits[i] };
    }
    for (int i = 0; i < out->count; i++) out->top[i].logprob = (float)(out->top[i].logprob - all);
    return all;
}

static void adjust(const nb_sampler *s, float *logits, const nb_sampler_step *step)
{
    const nb_sampling *o = &s->options;
    if (s->seen) {
        float p = (float)o->repetition_penalty;
        for (int i = 0; i < s->vocab; i++)
            if (s->seen[i]) logits[i] = logits[i] < 0 ? logits[i] * p : logits[i] / p;
    }
    if (s->produced)
        for (int i = 0; i < s->vocab; i++)
            if (s->produced[i])
                logits[i] -= (float)(o->presence_penalty + o->frequency_penalty * (double)s->produced[i]);
    for (int i = 0; i < o->bias_count; i++) logits[o->bias[i].id] += o->bias[i].value;
    if (!step) return;
    if (step->allowed)
        for (int i = 0; i < s->vocab; i++)
            if (!(step->allowed[i / 64] >> (i % 64) & 1)) logits[i] = -INFINITY;
    for (int i = 0; i < step->banned_count; i++)
        if (step->banned[i] >= 0 && step->banned[i] < s->vocab) logits[step->banned[i]] = -INFINITY;
}

int32_t nb_sampler_next(nb_sampler *s, float *logits, const nb_sampler_step *step)
{
    const nb_sampling *o = &s->options;
    nb_logprobs       *wanted = step ? step->logprobs : NULL;
    double             all = 0;
    if (wanted) {
        all = log_probabilities(wanted, logits, s->vocab, step->top < NB_TOP_LOGPROBS ? step->top : NB_TOP_LOGPROBS);
        if (!s->raw) s->raw = malloc((size_t)s->vocab * sizeof *s->raw);
        if (s->raw) memcpy(s->raw, logits, (size_t)s->vocab * sizeof *s->raw);
    }
    adjust(s, logits, step);
    int32_t id;
    if (o->greedy || o->top_k == 1) {
        id = argmax(logits, s->vocab);
    } else {
        if (o->temperature != 1)
            for (int i = 0; i < s->vocab; i++) logits[i] /= (float)o->temperature;
        id = draw(s, logits);
    }
    if (wanted) {
        wanted->chosen.id = id;
        wanted->chosen.logprob = s->raw ? (float)(s->raw[id] - all) : NAN;
    }
    if (!(logits[id] > -INFINITY)) return -1;
    if (s->seen) s->seen[id] = 1;
    if (s->produced) s->produced[id]++;
    return id;
}
