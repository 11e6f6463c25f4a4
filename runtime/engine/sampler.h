/* sampler.h - from logits to a token, in transformers' order: penalties and biases, temperature, top-k, min-p, top-p, draw. */
#ifndef NB_SAMPLER_H
#define NB_SAMPLER_H

#include "runtime/model/config.h"

typedef struct {
    int32_t id;
    float   value; /* added to its logit */
} nb_token_bias;

typedef struct {
    bool     greedy;             /* argmax after the penalties; lowest id wins a tie */
    int      top_k;              /* 0: off */
    double   top_p, temperature; /* 1: off */
    double   min_p;              /* share of the best token's probability that a token needs; 0: off */
    double   repetition_penalty; /* over prompt and answer; 1: off */
    double   presence_penalty, frequency_penalty; /* over the answer, once and per occurrence; 0: off */
    const nb_token_bias *bias;   /* [bias_count], ids of the vocabulary; must outlive the sampler */
    int      bias_count;
    uint64_t seed;
} nb_sampling;

/* The checkpoint's own defaults. */
nb_sampling nb_sampling_default(const nb_generation_config *g);

enum { NB_TOP_LOGPROBS = 20 };
typedef struct {
    int32_t id;
    float   logprob; /* natural, of the logits as the model gave them */
} nb_token_logprob;
typedef struct {
    nb_token_logprob chosen, top[NB_TOP_LOGPROBS]; /* largest first, ties by id */
    int              count;
} nb_logprobs;

/* What holds for one token only. */
typedef struct {
    const uint64_t *allowed;     /* bit per id; NULL: all */
    const int32_t  *banned;      /* [banned_count] */
    int             banned_count;
    nb_logprobs    *logprobs;    /* filled when not NULL, with the `top` largest */
    int             top;
} nb_sampler_step;

typedef struct nb_sampler nb_sampler;
nb_status nb_sampler_new(nb_sampler **out, const nb_sampling *s, int vocab, nb_error *err);
void      nb_sampler_free(nb_sampler *s);
/* Ids that the repetition penalty counts: the prompt, then every token produced (told by nb_sampler_next itself). */
void      nb_sampler_saw(nb_sampler *s, const int32_t *ids, size_t n);
/* logits [vocab] host memory, changed in place.  step NULL: nothing special.  -1 when no token is left that has a number: the
 * logits are NaN, or everything is forbidden. */
int32_t   nb_sampler_next(nb_sampler *s, float *logits, const nb_sampler_step *step);

#endif
