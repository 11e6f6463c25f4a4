/* score.h - from an answer's text to right or wrong, by the rules of the published harness (VLMEvalKit, September 2024).
 *
 * No judge model: what the rules cannot decide is undecided, counts as wrong, and is counted.
 */
#ifndef NB_SCORE_H
#define NB_SCORE_H

#include "runtime/io/literal.h"

/* The option an answer names: its letter 'A'..'Z' (options[i] is the text of letter 'A' + i, NULL or "" where there is none),
 * 'Z' for a refusal, 0 when undecided.  First by letters that stand alone; then, when exactly one option's text is part of
 * the answer, by that. */
char nb_score_option(const char *answer, const char *const options[26]);

/* DocVQA: 1 - (edit distance / longer length), 0 below one half; the best over the accepted answers. */
nb_status nb_score_anls(double *out, const char *answer, const nb_list *accepted, nb_error *err);

/* MathVista without a judge.  Multiple choice by nb_score_option on the choices; free form: the whole reply, else what
 * `The answer is "..."` quotes, else the last number of the reply, compared as the answer's type asks. */
typedef enum { NB_MATH_CHOICE, NB_MATH_INTEGER, NB_MATH_FLOAT, NB_MATH_TEXT } nb_math_type;
typedef struct {
    bool hit;
    bool prefetch;  /* decided by the published rule that needs no judge */
    bool undecided;
} nb_math_score;
nb_math_score nb_score_math(const char *reply, nb_math_type type, const char *const options[26], char right_option, const char *answer);

#endif
