/* utf8.h - the one place that knows which bytes are UTF-8 (Unicode 15, table 3-7: no surrogates, no overlong forms,
 * nothing above U+10FFFF). */
#ifndef NB_UTF8_H
#define NB_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes (1..4) of the well-formed character at s, of which n are left; 0 when there is none. */
size_t nb_utf8_next(const char *s, size_t n);

/* True when all of s is well-formed. */
bool nb_utf8_valid(const char *s, size_t n);

#endif
