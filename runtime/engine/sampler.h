/* sampler.h - from logits to a token, in transformers' order: repetition penalty, temperature, top-k, top-p, draw. */
#ifndef NB_SAMPLER_H
#define NB_SAMPLER_H

#include "runtime/model/config.h"

typedef struct {
    bool     greedy;             /* argmax after the penalty; lowest id wins a tie */
    int      top_k;              /* 0: off */
    double   top_p, temperature; /* 1: off */
    double   repetition_penalty; /* 1: off */
    uint64_t seed;
} nb_sampling;

/* The checkpoint's own defaults. */
nb_sampling nb_sampling_default(const nb_generation_config *g);

typedef struct nb_sampler nb_sampler;
nb_status nb_sampler_new(nb_sampler **out, const nb_sampling *s, int vocab, nb_error *err);
void      nb_sampler_free(nb_sampler *s);
/* Ids that the repetition penalty counts: the prompt, then every token produced (told by nb_sampler_next itself). */
void      nb_sampler_saw(nb_sampler *s, const int32_t *ids, size_t n);
/* logits [vocab] host memory, changed in place.  *logprob (may be NULL): natural log probability before penalties. */
int32_t   nb_sampler_next(nb_sampler *s, float *logits, float *logprob);

#endif
