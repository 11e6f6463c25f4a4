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
    uint8_t    *seen;       /* [vocab] */
    candidate  *candidates; /* [vocab] */
    double     *weight;     /* [vocab] */
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
    nb_status status = nb_alloc(&p->seen, (size_t)vocab, 1, "sampler", err);
    if (status == NB_OK) status = nb_alloc(&p->candidates, (size_t)vocab, sizeof *p->candidates, "sampler", err);
    if (status == NB_OK) status = nb_alloc(&p->weight, (size_t)vocab, sizeof *p->weight, "sampler", err);
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
    free(s->candidates);
    free(s->weight);
    free(s);
}

void nb_sampler_saw(nb_sampler *s, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
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

/* splitmix64 */
static double uniform(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
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
    double total = 0;
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

int32_t nb_sampler_next(nb_sampler *s, float *logits, float *logprob)
{
    const nb_sampling *o = &s->options;
    double             all = 0;
    float             *raw = NULL;
    if (logprob) {
        all = log_sum_exp(logits, s->vocab, logits[argmax(logits, s->vocab)]);
        raw = malloc((size_t)s->vocab * sizeof *raw);
        if (raw) memcpy(raw, logits, (size_t)s->vocab * sizeof *raw);
    }
    if (o->repetition_penalty != 1) {
        float p = (float)o->repetition_penalty;
        for (int i = 0; i < s->vocab; i++)
            if (s->seen[i]) logits[i] = logits[i] < 0 ? logits[i] * p : logits[i] / p;
    }
    int32_t id;
    if (o->greedy || o->top_k == 1) {
        id = argmax(logits, s->vocab);
    } else {
        if (o->temperature != 1)
            for (int i = 0; i < s->vocab; i++) logits[i] /= (float)o->temperature;
        id = draw(s, logits);
    }
    if (logprob) *logprob = raw ? (float)(raw[id] - all) : NAN;
    free(raw);
    s->seen[id] = 1;
    return id;
}
