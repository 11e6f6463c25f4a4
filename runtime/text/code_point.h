/* code_point.h - one step through UTF-8 that may be ill-formed; the only decoder in this part.
 *
 * It never replaces anything: callers decide what a bad byte means (an ordinary character when encoding, U+FFFD when
 * text is shown).
 */
#ifndef NB_CODE_POINT_H
#define NB_CODE_POINT_H

#include <stddef.h>
#include <stdint.h>

/* Reads one character of text[0..n), n >= 1.  Well-formed: its length, *code is the code point.  Ill-formed: the length of
 * the maximal subpart (Unicode 3.9, table 3-7), *code is -1.  Cut off inside a character that could still be completed: 0,
 * *code is -1. */
static inline int nb_utf8_step(const char *text, size_t n, int32_t *code)
{
    const uint8_t *s = (const uint8_t *)text;
    *code = -1;
    if (s[0] < 0x80) {
        *code = s[0];
        return 1;
    }
    if (s[0] < 0xC2 || s[0] > 0xF4) return 1;
    int     length = s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    /* Only the second byte has lead-dependent limits: no overlong forms, no surrogates, nothing above U+10FFFF. */
    uint8_t low = s[0] == 0xE0 ? 0xA0 : s[0] == 0xF0 ? 0x90 : 0x80;
    uint8_t high = s[0] == 0xED ? 0x9F : s[0] == 0xF4 ? 0x8F : 0xBF;
    int32_t value = s[0] & (0xFF >> (length + 1));
    for (int i = 1; i < length; i++) {
        if ((size_t)i == n) return 0;
        if (s[i] < low || s[i] > high) return i;
        value = value << 6 | (s[i] & 0x3F);
        low = 0x80;
        high = 0xBF;
    }
    *code = value;
    return length;
}

#endif
