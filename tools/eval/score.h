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

/* The same by the harness's later rules (2026): the letter is among the last four words, an option's text does not count in an answer of
 * more than twice the length of all of them, and at last "(correct) answer is **B**" decides. */
char nb_score_option_current(const char *answer, const char *const options[26]);

/* MMMU's own scorer.  A letter: "(B)", else " B ", else in an answer of more than five words an option's text; the last of several.  It
 * guesses when it finds none; this returns 0 and leaves the guess out. */
char nb_score_mmmu_option(const char *answer, const char *const options[26]);
/* An open question: the ends of sentences that say what it is, and the numbers in them, hold or equal an accepted answer. */
nb_status nb_score_mmmu_open(bool *right, const char *answer, const nb_list *accepted, nb_error *err);

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

/* Edit distance over code points. */
nb_status nb_edit_distance(size_t *out, const char *a, const char *b, nb_error *err);
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
/* MathVista's own comparison of what was extracted from a reply: a choice by its letter, else by the smallest edit distance; an integer cut
 * off, a float rounded to `precision` decimals.  choices [count]; right: the answer as the table has it. */
nb_status nb_score_math_official(bool *right, const char *extraction, nb_math_type type, const nb_list *choices, int precision, const char *answer,
                                 nb_error *err);
/* What the rules take for the answer of a free-form reply: all of it, `The answer is "..."`, or its last number.  false: nothing. */
bool nb_score_math_extract(const char *reply, nb_math_type type, char *out, size_t size);
nb_math_score nb_score_math(const char *reply, nb_math_type type, const char *const options[26], char right_option, const char *answer);

#endif
