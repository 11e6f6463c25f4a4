/* buf.c - a growing byte buffer and the JSON text that is written into one.
 *
 * Numbers never pass through the locale: a program that calls setlocale would otherwise write "0,5" into a config. */
#include "runtime/io/buf.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/utf8.h"

void nb_buf_free(nb_buf *b)
{
    free(b->data);
    *b = (nb_buf){0};
}

void nb_buf_clear(nb_buf *b)
{
    b->size   = 0;
    b->failed = false;
    if (b->data) b->data[0] = 0;
}

/* Room for n more bytes and the terminator. */
static bool reserve(nb_buf *b, size_t n)
{
    size_t need;
    if (b->failed) return false;
    if (!nb_add(b->size, n, &need) || !nb_add(need, 1, &need)) {
        b->failed = true;
        return false;
    }
    if (need <= b->capacity) return true;
    size_t capacity = b->capacity < 32 ? 64 : b->capacity;
    while (capacity < need)
        if (!nb_mul(capacity, 2, &capacity)) capacity = need;
    char *data = realloc(b->data, capacity);
    if (!data) {
        b->failed = true;
        return false;
    }
    b->data     = data;
    b->capacity = capacity;
    return true;
}

void nb_buf_add(nb_buf *b, const void *bytes, size_t n)
{
    if (!reserve(b, n)) return;
    if (n) memcpy(b->data + b->size, bytes, n);
    b->size += n;
    b->data[b->size] = 0;
}

void nb_buf_str(nb_buf *b, const char *s)
{
    nb_buf_add(b, s, strlen(s));
}

void nb_buf_char(nb_buf *b, char c)
{
    nb_buf_add(b, &c, 1);
}

void nb_buf_printf(nb_buf *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0) b->failed = true;
    if (n < 0 || !reserve(b, (size_t)n)) return;
    va_start(args, format);
    vsnprintf(b->data + b->size, (size_t)n + 1, format, args);
    va_end(args);
    b->size += (size_t)n;
}

void nb_buf_json_string(nb_buf *b, const char *s, size_t n)
{
    nb_buf_char(b, '"');
    size_t plain = 0; /* start of the run that needs no escape */
    for (size_t i = 0; i < n;) {
        unsigned char c      = (unsigned char)s[i];
        size_t        length = nb_utf8_next(s + i, n - i);
        if (length > 0 && c >= 0x20 && c != '"' && c != '\\') {
            i += length;
            continue;
        }
        nb_buf_add(b, s + plain, i - plain);
        const char *letter = c ? strchr("\"\"\\\\\bb\ff\nn\rr\tt", c) : NULL;
        if (length == 0)
            nb_buf_str(b, "\xEF\xBF\xBD");
        else if (letter)
            nb_buf_printf(b, "\\%c", letter[1]);
        else
            nb_buf_printf(b, "\\u%04x", c);
        plain = ++i;
    }
    nb_buf_add(b, s + plain, n - plain);
    nb_buf_char(b, '"');
}

void nb_buf_json_number(nb_buf *b, double v)
{
    if (!isfinite(v)) {
        nb_buf_str(b, "null");
        return;
    }
    if (v == floor(v) && fabs(v) < 9007199254740992.0) {
        nb_buf_printf(b, "%.0f", v);
        return;
    }
    /* Every decimal of up to 15 digits survives a double and %g drops trailing zeros, so the first precision that reads
     * back is the shortest, except among subnormals, which have fewer digits to give. */
    char text[40];
    for (int digits = fabs(v) < DBL_MIN ? 1 : 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    for (char *c = text; *c; c++)
        if (!strchr("+-0123456789e", *c)) *c = '.'; /* whatever the locale's decimal point is */
    nb_buf_str(b, text);
}

nb_status nb_buf_status(const nb_buf *b, const char *what, nb_error *err)
{
    if (b->failed) return nb_fail(err, NB_ERR_MEMORY, "not enough memory for %s (%zu bytes so far)", what, b->size);
    return NB_OK;
}
