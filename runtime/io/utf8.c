/* utf8.c - well-formed UTF-8, by the ranges of Unicode table 3-7.  It judges bytes; it does not decode code points. */
#include "runtime/io/utf8.h"

static bool between(unsigned char c, unsigned char low, unsigned char high)
{
    return c >= low && c <= high;
}

size_t nb_utf8_next(const char *s, size_t n)
{
    const unsigned char *u = (const unsigned char *)s;
    if (n == 0) return 0;
    if (u[0] < 0x80) return 1;
    if (between(u[0], 0xC2, 0xDF)) return n >= 2 && between(u[1], 0x80, 0xBF) ? 2 : 0;

    /* Only the second byte's range depends on the first: that is where overlong forms and surrogates are. */
    unsigned char low = 0x80, high = 0xBF;
    if (u[0] == 0xE0 || u[0] == 0xF0) low = u[0] == 0xE0 ? 0xA0 : 0x90;
    if (u[0] == 0xED || u[0] == 0xF4) high = u[0] == 0xED ? 0x9F : 0x8F;
    if (n < 3 || !between(u[1], low, high) || !between(u[2], 0x80, 0xBF)) return 0;
    if (between(u[0], 0xE0, 0xEF)) return 3;
    return between(u[0], 0xF0, 0xF4) && n >= 4 && between(u[3], 0x80, 0xBF) ? 4 : 0;
}

bool nb_utf8_valid(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t length = nb_utf8_next(s + i, n - i);
        if (length == 0) return false;
        i += length;
    }
    return true;
}
