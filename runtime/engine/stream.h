/* stream.h - a sequence that answers: each row of logits becomes a token, each token text, until something ends it. */
#ifndef NB_STREAM_H
#define NB_STREAM_H

#include "runtime/engine/engine.h"
#include "runtime/engine/grammar.h"

typedef enum { NB_FINISH_STOP, NB_FINISH_LENGTH, NB_FINISH_CANCELLED, NB_FINISH_FAILED } nb_finish;

typedef struct {
    nb_sampling  sampling;
    int          max_new_tokens, min_new_tokens; /* nothing that ends the answer may come before min_new_tokens */
    bool         ignore_eos;
    bool         include_stop;  /* the stop string, or the text of the stop token, belongs to the answer */
    bool         keep_special;  /* special tokens are shown as text */
    const char *const *stop;    /* strings that end the answer */
    int          stop_count;
    const int32_t *stop_ids;    /* tokens that do, beside the checkpoint's own */
    int          stop_id_count;
    int          draft;         /* tokens guessed at a time from what the text repeats, and checked by the model: the same answer in
                                 * fewer steps; 0: none */
    nb_grammar  *grammar;       /* the form that the answer must have, at its beginning (borrowed); NULL: any */
    bool         logprobs;      /* on_token gets them, with the `top_logprobs` best */
    int          top_logprobs;
    nb_visual *const *visual;   /* as in nb_sequence_options */
    int          priority;
    uint64_t     salt;
    /* Called for every token of the answer, before its text; logprobs is NULL unless asked for. */
    void       (*on_token)(void *context, int32_t id, const nb_logprobs *logprobs);
    /* Called with new text (whole characters); return false to stop. */
    bool       (*on_text)(void *context, const char *text, size_t n);
    void        *context;
} nb_generate_options;

typedef struct {
    nb_ids    ids;             /* generated tokens without the stop token */
    nb_buf    text;
    nb_finish finish;
    int       stop_string;     /* which one ended it; -1: none did */
    int32_t   stop_token;      /* which one ended it; -1: none did */
    size_t    prompt_tokens, found_tokens; /* found: those that the prefix cache had */
    size_t    drafted, accepted;
    double    prefill_s, decode_s; /* time to the first token, and from there to the last */
    bool      past_trained;    /* went beyond max_position_embeddings: quality is not assured */
} nb_answer;
void nb_answer_free(nb_answer *a);

typedef struct nb_stream nb_stream;

/* Copies options but not what they point to.  The first token comes from a coming nb_engine_step. */
nb_status  nb_stream_open(nb_stream **out, nb_engine *e, const nb_prompt *prompt, const nb_generate_options *options, nb_error *err);
/* After every step: whether there is nothing more to come.  A failure of this answer alone ends it with NB_FINISH_FAILED. */
bool       nb_stream_finished(nb_stream *s);
const nb_error *nb_stream_failure(const nb_stream *s); /* NULL: none */
void       nb_stream_release(nb_stream *s); /* its pages; the answer stays */
nb_answer *nb_stream_answer(nb_stream *s);
size_t     nb_stream_total(const nb_prompt *prompt, const nb_generate_options *options); /* tokens that it may need */
void       nb_stream_free(nb_stream *s);

#endif
