/* gate.h - conditions that a quantized model has to meet, in words of a flag: `kl=0.02,top1=0.97,ppl=1.02,image.kl.p99<0.5`.
 *
 *     [PART.]METRIC  =, < or <=, > or >=  NUMBER
 *
 *     PART    all (when left out), text, image, answer, answer_text, answer_image: as divergence.h splits positions
 *     METRIC  kl (kl.mean), kl.median, kl.p90, kl.p95, kl.p99, kl.p99.9, kl.max   nats, at most NUMBER
 *             ppl      perplexity divided by the original's, at most NUMBER
 *             top1, top5   shares, at least NUMBER
 *
 * '=' is whichever limit makes sense, and the wrong one of < and > is refused.  A condition on a part without tokens is not met,
 * and neither is one whose figure is not a number.
 */
#ifndef NB_GATE_H
#define NB_GATE_H

#include "tools/eval/divergence.h"

typedef enum {
    NB_GATE_KL, NB_GATE_KL_MEDIAN, NB_GATE_KL_P90, NB_GATE_KL_P95, NB_GATE_KL_P99, NB_GATE_KL_P999, NB_GATE_KL_MAX, NB_GATE_PPL,
    NB_GATE_TOP1, NB_GATE_TOP5
} nb_gate_metric;

typedef struct {
    char           name[48];  /* "image.kl.p99" */
    nb_scope       scope;
    nb_over        over;
    nb_gate_metric metric;
    bool           at_least;  /* the limit is a floor */
    double         limit;
    double         value;     /* once checked; NaN: nothing to measure */
    bool           met;
} nb_gate_rule;

typedef struct {
    nb_gate_rule *rules; /* none: everything passes */
    size_t        count, capacity;
} nb_gate;
void nb_gate_free(nb_gate *g);

/* Limits that only a damaged checkpoint misses: between 2-bit and 4-bit quantization of models of this size. */
#define NB_GATE_DEFAULT "kl=0.5,top1=0.7,ppl=1.5"

/* "default", "off" or "none", conditions separated by commas, or the name of a file with conditions, one a line, # for comments. */
nb_status nb_gate_parse(nb_gate *out, const char *text, nb_error *err);
/* Fill value and met of every rule. */
nb_status nb_gate_check(nb_gate *g, const nb_divergence *d, nb_error *err);
bool      nb_gate_met(const nb_gate *g);
/* What was not met, for one sentence: "kl is 0.31, at most 0.02 was asked for; ...". */
void      nb_gate_failures(const nb_gate *g, nb_buf *out);

#endif
