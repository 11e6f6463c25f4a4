/* answers.h - greedy answers of two models to the same questions, side by side, for people to read.
 *
 * Questions are held-out conversations without their last message, which is kept as the answer of the data.  One model with all its
 * layers is in memory at a time, so this is the part of judging that needs room (plan.h counts it).
 */
#ifndef NB_ANSWERS_H
#define NB_ANSWERS_H

#include "runtime/engine/generate.h"

enum { NB_ANSWER_TOKENS = 128, NB_ANSWER_PICTURES = 4 /* shown of a conversation at most */ };

typedef struct {
    char     where[256];     /* FILE line N */
    char    *question;       /* "user: ..." lines, pictures as [picture] */
    char    *expected;       /* the data's own answer */
    char    *answer[2];      /* original, quantized; NULL: not generated */
    bool     cut[2];         /* at NB_ANSWER_TOKENS */
    bool     same;           /* word for word */
    char    *picture[NB_ANSWER_PICTURES]; /* data: URLs of thumbnails; NULL: none to show */
    int      pictures;       /* in the conversation, videos included */
    nb_prompt prompt;        /* until generated */
} nb_question;

typedef struct {
    nb_question        *questions; /* [count] */
    size_t              count, wanted;
    const nb_model     *model;     /* whose tokenizer and processor make the prompts */
    nb_prompt_options   prompt;
} nb_answers;

void nb_answers_free(nb_answers *a);
nb_status nb_answers_init(nb_answers *a, size_t wanted, const nb_model *model, const nb_prompt_options *prompt, nb_error *err);
/* An nb_sample_seen: keep the row while questions are wanted.  Rows that do not end with an assistant's answer to something are
 * passed over. */
nb_status nb_answers_seen(void *answers, const nb_chat *chat, const nb_prompt *prompt, const char *root, const char *where, nb_error *err);
/* Load the layers of a model that has none, answer everything, drop them.  which: 0 original, 1 quantized; after 1 the prompts are
 * gone.  step as in judge.h. */
nb_status nb_answers_generate(nb_answers *a, int which, nb_model *model, bool (*step)(void *context, size_t done, size_t total, const char *what),
                              void *context, nb_error *err);

#endif
