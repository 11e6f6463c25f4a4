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

/* ChartQA: the same text but for the case of letters, or numbers within 5 % of the right one (a % sign divides by 100); the best over
 * the accepted answers, 0 or 1. */
nb_status nb_score_relaxed(double *out, const char *answer, const nb_list *accepted, nb_error *err);

/* TextVQA: agreement with ten people.  Leaving out each in turn, a third of the others who said the same, at most 1; the mean.  Texts
 * are compared after VQA's clean-up of punctuation, articles, small numbers and apostrophes.  accepted: what each person said. */
nb_status nb_score_people(double *out, const char *answer, const nb_list *accepted, nb_error *err);

/* OCRBench: one of the accepted texts is a part of the answer, whatever the case of letters; formula: blanks do not count, case does. */
nb_status nb_score_contains(double *out, const char *answer, const nb_list *accepted, bool formula, nb_error *err);
/* MTVQA: the right text is a part of the answer, whatever the case of letters, without full stops. */
nb_status nb_score_contains_plain(double *out, const char *answer, const char *right, nb_error *err);

/* MME, HallusionBench: "Yes" or "No" when just one of the two words is in the answer, otherwise NULL. */
const char *nb_score_yes_no(const char *answer);

/* Lower case, code point by code point, of UTF-8; malloc'd, NULL without memory. */
char *nb_lower(const char *s);

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
