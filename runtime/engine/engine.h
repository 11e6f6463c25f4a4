/* engine.h - many sequences at once over one pool of KV pages.
 *
 * A sequence is a prompt and what was generated after it.  One call of nb_engine_step advances any set of sequences: it
 * takes prompt rows (in chunks) and single decode rows together, runs the layers once over all of them, and hands the
 * logits of the rows that were asked for to the owner.  `run` is one sequence, `eval` a batch of them, the server a queue
 * in front: there is no second way to call the decoder.  An engine belongs to one thread.
 *
 * What a sequence computes does not depend on its company, on how its prompt was cut into chunks, on whether its first pages were
 * found or computed, or on how often it was preempted.
 */
#ifndef NB_ENGINE_H
#define NB_ENGINE_H

#include "runtime/engine/pages.h"
#include "runtime/engine/sampler.h"
#include "runtime/model/visual.h"

typedef struct nb_engine nb_engine;
typedef struct nb_sequence nb_sequence;

typedef struct {
    size_t   max_tokens;   /* KV capacity over all sequences; pages are committed on use.  0: 32768 */
    size_t   chunk;        /* rows in one step; 0: 512 */
    size_t   mixed_chunk;  /* prompt rows in a step in which others decode, so that they need not wait long; 0: chunk */
    int      max_sequences;/* 0: 64 */
    nb_dtype kv_type;      /* NB_F32, NB_BF16 or NB_I8 (see ops.h) */
    bool     prefix_cache; /* full pages are found again by sequences that begin alike */
    bool     overcommit;   /* sequences reserve nothing; when pages run out the last in line gives its own back and is computed again
                            * later */
} nb_engine_options;

nb_status nb_engine_new(nb_engine **out, const nb_model *model, const nb_engine_options *options, nb_error *err);
void      nb_engine_free(nb_engine *e); /* its sequences first */
const nb_model *nb_engine_model(const nb_engine *e);
size_t    nb_engine_kv_bytes(const nb_engine *e); /* committed now */
nb_dtype  nb_engine_kv_type(const nb_engine *e);
void      nb_engine_watch(nb_engine *e, nb_see *see, void *context); /* the decoder's rows of all coming steps; NULL: nobody */

typedef struct {
    nb_pages_stats pages;
    size_t   page_bytes, sequences; /* sequences now */
    uint64_t prefix_queries, prefix_hits;    /* prompt tokens asked for and found */
    uint64_t preemptions, steps, rows;
} nb_engine_stats;
nb_engine_stats nb_engine_look(const nb_engine *e);

/* Whether a sequence of `tokens` tokens in all would find its pages now (with overcommit: in an empty engine) / in an empty engine. */
bool      nb_engine_fits(const nb_engine *e, size_t tokens);
bool      nb_engine_could_fit(const nb_engine *e, size_t tokens);
size_t    nb_engine_capacity(const nb_engine *e); /* tokens */

/* Logits of one row.  row counts the sequence's tokens from 0; logits [vocab] host, may be changed.  The callback may push
 * to its sequence; it must not create or free sequences. */
typedef nb_status nb_on_logits(void *context, nb_sequence *s, size_t row, float *logits, nb_error *err);

/* total: tokens in all, at least the prompt's.  logits_from: first row whose logits are wanted (count - 1: the last only; 0: all). */
typedef struct {
    size_t        total, logits_from;
    nb_on_logits *on_logits;
    void         *context;
    nb_visual *const *visual; /* [prompt->media_count] rows of its pictures (held on to); NULL: computed here and now */
    int           priority;   /* higher goes first */
    uint64_t      salt;       /* pages are shared only among sequences with the same one */
} nb_sequence_options;

/* A sequence takes a copy of what it needs of the prompt.  Without overcommit it reserves pages for `total` tokens, so that a step
 * never runs out.  NB_ERR_BUDGET when they are not there. */
nb_status nb_sequence_new(nb_sequence **out, nb_engine *e, const nb_prompt *prompt, const nb_sequence_options *options, nb_error *err);
void      nb_sequence_free(nb_sequence *s);
/* Give the next token; a coming step computes it.  NB_ERR_ARGUMENT beyond `total`. */
nb_status nb_sequence_push(nb_sequence *s, int32_t token, nb_error *err);
size_t    nb_sequence_length(const nb_sequence *s); /* tokens known */
size_t    nb_sequence_done(const nb_sequence *s);   /* tokens computed */
const int32_t *nb_sequence_ids(const nb_sequence *s); /* [nb_sequence_length], until the next call that changes it */
size_t    nb_sequence_found(const nb_sequence *s);  /* tokens of the prompt that were found in the prefix cache, at its first step */
/* Not NULL: memory for its pages was refused; the sequence will not advance any more. */
const nb_error *nb_sequence_failure(const nb_sequence *s);
/* Forget tokens from `length` on; length must not be below the prompt's.  Also inside on_logits: rows that were computed for tokens
 * that are forgotten are not handed out. */
void      nb_sequence_truncate(nb_sequence *s, size_t length);

/* One step over every sequence that has rows to compute; *advanced = rows computed (0: nothing to do, or with overcommit no memory
 * for the one sequence that has: see nb_sequence_failure). */
nb_status nb_engine_step(nb_engine *e, size_t *advanced, nb_error *err);

#endif
