/* generate.h - text out of prompts, to the end: one, or many side by side. */
#ifndef NB_GENERATE_H
#define NB_GENERATE_H

#include "runtime/engine/stream.h"

nb_status nb_generate(nb_engine *e, const nb_prompt *prompt, const nb_generate_options *options, nb_answer *out, nb_error *err);

/* Many prompts, at most `parallel` sequences in flight; done(i) is called in input order. */
typedef nb_status nb_prompt_at(void *context, size_t i, nb_prompt *out, nb_generate_options *options, nb_error *err);
typedef nb_status nb_answer_at(void *context, size_t i, nb_answer *answer, nb_error *err);
nb_status nb_generate_many(nb_engine *e, size_t count, int parallel, nb_prompt_at *prompt, nb_answer_at *answer, void *context,
                           nb_error *err);

#endif
