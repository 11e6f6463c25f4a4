/* generate.h - text out of a prompt: sampling, stop tokens and strings, streaming; for one prompt or many side by side. */
#ifndef NB_GENERATE_H
#define NB_GENERATE_H

#include "runtime/engine/engine.h"

typedef struct {
    nb_sampling  sampling;
    int          max_new_tokens;
    bool         ignore_eos;
    const char *const *stop; /* strings that end the answer and are not part of it */
    int          stop_count;
    /* called with new text (whole characters); return false to stop */
    bool       (*on_text)(void *context, const char *text, size_t n);
    void        *context;
} nb_generate_options;

typedef enum { NB_FINISH_STOP, NB_FINISH_LENGTH, NB_FINISH_CANCELLED } nb_finish;

typedef struct {
    nb_ids    ids;             /* generated tokens without the stop token */
    nb_buf    text;            /* special tokens skipped */
    nb_finish finish;
    size_t    prompt_tokens;
    double    prefill_s, decode_s; /* time to the first token, and from there to the last */
    bool      past_trained;    /* went beyond max_position_embeddings: quality is not assured */
} nb_answer;
void nb_answer_free(nb_answer *a);

nb_status nb_generate(nb_engine *e, const nb_prompt *prompt, const nb_generate_options *options, nb_answer *out, nb_error *err);

/* Many prompts, at most `parallel` sequences in flight; done(i) is called in input order. */
typedef nb_status nb_prompt_at(void *context, size_t i, nb_prompt *out, nb_generate_options *options, nb_error *err);
typedef nb_status nb_answer_at(void *context, size_t i, nb_answer *answer, nb_error *err);
nb_status nb_generate_many(nb_engine *e, size_t count, int parallel, nb_prompt_at *prompt, nb_answer_at *answer, void *context,
                           nb_error *err);

#endif
