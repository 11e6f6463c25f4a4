/* engine.h - many sequences at once over one pool of KV pages.
 *
 * A sequence is a prompt and what was generated after it.  One call of nb_engine_step advances any set of sequences: it
 * takes prompt rows (in chunks) and single decode rows together, runs the layers once over all of them, and hands the
 * logits of the rows that were asked for to the owner.  `run` is one sequence, `eval` a batch of them, the server a queue
 * in front: there is no second way to call the decoder.  An engine belongs to one thread.
 */
#ifndef NB_ENGINE_H
#define NB_ENGINE_H

#include "runtime/engine/sampler.h"
#include "runtime/model/model.h"

typedef struct nb_engine nb_engine;
typedef struct nb_sequence nb_sequence;

typedef struct {
    size_t   max_tokens;   /* KV capacity over all sequences; pages are committed on use.  0: 32768 */
    size_t   chunk;        /* prompt rows in one step; 0: 512 */
    int      max_sequences;/* 0: 64 */
    nb_dtype kv_type;      /* NB_F32 or NB_BF16 */
} nb_engine_options;

nb_status nb_engine_new(nb_engine **out, const nb_model *model, const nb_engine_options *options, nb_error *err);
void      nb_engine_free(nb_engine *e); /* its sequences first */
const nb_model *nb_engine_model(const nb_engine *e);
size_t    nb_engine_kv_bytes(const nb_engine *e); /* committed now */
nb_dtype  nb_engine_kv_type(const nb_engine *e);

/* Whether a sequence of `tokens` tokens in all would find its pages now / in an empty engine. */
bool      nb_engine_fits(const nb_engine *e, size_t tokens);
bool      nb_engine_could_fit(const nb_engine *e, size_t tokens);
size_t    nb_engine_capacity(const nb_engine *e); /* tokens */

/* Logits of one row.  row counts the sequence's tokens from 0; logits [vocab] host, may be changed.  The callback may push
 * to its sequence; it must not create or free sequences. */
typedef nb_status nb_on_logits(void *context, nb_sequence *s, size_t row, float *logits, nb_error *err);

/* A sequence takes a copy of what it needs of the prompt and reserves pages for `total` tokens (at least the prompt's), so
 * that a step never runs out.  logits_from: first row whose logits are wanted (count - 1: the last only; 0: all).
 * NB_ERR_BUDGET when the pages are not there. */
nb_status nb_sequence_new(nb_sequence **out, nb_engine *e, const nb_prompt *prompt, size_t total, size_t logits_from,
                          nb_on_logits *on_logits, void *context, nb_error *err);
void      nb_sequence_free(nb_sequence *s);
/* Give the next token; a coming step computes it.  NB_ERR_ARGUMENT beyond `total`. */
nb_status nb_sequence_push(nb_sequence *s, int32_t token, nb_error *err);
size_t    nb_sequence_length(const nb_sequence *s); /* tokens known */
size_t    nb_sequence_done(const nb_sequence *s);   /* tokens computed */
/* Forget tokens from `length` on; length must not be below the prompt's. */
void      nb_sequence_truncate(nb_sequence *s, size_t length);

/* One step over every sequence that has rows to compute; *advanced = rows computed (0: nothing to do). */
nb_status nb_engine_step(nb_engine *e, size_t *advanced, nb_error *err);

#endif
