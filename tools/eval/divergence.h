/* divergence.h - how far a model's next-token distributions are from a reference model's, token by token.
 *
 * Position t of a conversation predicts token t + 1.  For every position: KL(p || q) = sum p (ln p - ln q) with p the
 * reference, in nats and double; whether both have the same top token; and the negative log likelihood of the true token
 * under each.  Counted over all positions and over answer tokens (an assistant's words and the mark that ends them), and
 * apart for words that follow a picture and words that do not; the places of a picture itself, which nobody predicts, count
 * among all positions only.  The two models run in lockstep, a chunk at a time (or a layer at a time: judge.h), so that memory
 * holds a few rows of logits, never a file of them.
 */
#ifndef NB_DIVERGENCE_H
#define NB_DIVERGENCE_H

#include "runtime/engine/engine.h"

typedef enum { NB_SCOPE_ALL, NB_SCOPE_ANSWER, NB_SCOPES } nb_scope;
typedef enum { NB_OVER_BOTH, NB_OVER_TEXT, NB_OVER_VISUAL, NB_OVERS } nb_over; /* words without and with a picture before them */

/* One token's comparison; without a reference kl is 0, same_top 0 and ref_nll 0. */
typedef struct {
    float kl, nll, ref_nll;
    bool  same_top, in_top5; /* reference's top token is the model's top token / among its five best */
    bool  answer, visual, pad; /* belongs to an answer; comes after a picture or video, or in one; is in one */
} nb_token_score;

/* The first token of a picture or video; the prompt's length when it has none. */
size_t    nb_divergence_first_visual(const nb_prompt *prompt);

typedef struct {
    nb_token_score *tokens;
    size_t          count, capacity;
    size_t          samples;
} nb_divergence;
void nb_divergence_free(nb_divergence *d);

/* What position `row` predicts: logits and reference (or NULL) [vocab].  The last row predicts nothing: *out is left alone.  Scores that
 * are not finite give a score that is not, which nb_divergence_take refuses. */
void      nb_divergence_score(nb_token_score *out, const float *reference, const float *logits, int vocab, const nb_prompt *prompt, size_t row,
                              size_t first_visual);
/* Append it, unless it is the last row's.  has_reference: there was one. */
nb_status nb_divergence_take(nb_divergence *d, const nb_token_score *score, bool has_reference, const nb_prompt *prompt, size_t row,
                             nb_error *err);

/* Run one conversation through both engines (reference may be NULL: likelihood only).  Both engines must have been made
 * with the same chunk.  rows whose token is not finite are an error that names the row. */
nb_status nb_divergence_add(nb_divergence *d, nb_engine *reference, nb_engine *engine, const nb_prompt *prompt, nb_error *err);

typedef struct {
    size_t tokens;
    double kl_mean, kl_error; /* standard error of the mean */
    double kl_median, kl_p90, kl_p95, kl_p99, kl_p999, kl_max;
    double top1, top5;        /* shares */
    double ppl, ppl_error, ref_ppl;
    double ln_ratio, ln_ratio_error; /* mean of nll - ref_nll: ln(ppl / ref_ppl), from the paired differences */
} nb_divergence_summary;
nb_status nb_divergence_summarize(nb_divergence_summary *out, const nb_divergence *d, nb_scope scope, nb_over over, nb_error *err);

#endif
