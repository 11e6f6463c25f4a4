/* score_text.c - see score_text.h. */
#include "tools/eval/score_text.h"

#include <stdlib.h>
#include <string.h>

char *nb_stripped(const char *s, size_t n, const char *drop)
{
    while (n && strchr(drop, *s)) s++, n--;
    while (n && strchr(drop, s[n - 1])) n--;
    return strndup(s, n);
}

bool nb_text_number(const char *s, double *out)
{
    char *end;
    if (strpbrk(s, "xXpP(")) return false; /* strtod would take hexadecimals and nan(...) */
    *out = strtod(s, &end);
    return end != s && end[strspn(end, NB_BLANKS)] == 0;
}

nb_status nb_no_answer_memory(nb_error *err)
{
    return nb_fail(err, NB_ERR_MEMORY, "no memory for an answer");
}
