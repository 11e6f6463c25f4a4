/* score_text.h - what the rules of score.h share: white space, and texts that are numbers. */
#ifndef NB_SCORE_TEXT_H
#define NB_SCORE_TEXT_H

#include "kernels/base.h"

#define NB_BLANKS " \t\n\r\f\v"

static inline bool nb_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* A copy of s [n] without the characters of `drop` at both ends, malloc'd; NULL without memory. */
char *nb_stripped(const char *s, size_t n, const char *drop);

/* As Python's float(), but for its underscores: the whole text is a number, with or without white space around it. */
bool nb_text_number(const char *s, double *out);

/* NB_ERR_MEMORY, in the words of all of them. */
nb_status nb_no_answer_memory(nb_error *err);

#endif
