/* buf.h - a growing byte buffer.  Once an append fails for lack of memory the buffer stays `failed` and further appends
 * do nothing, so a writer checks once at the end. */
#ifndef NB_BUF_H
#define NB_BUF_H

#include "kernels/base.h"

typedef struct {
    char  *data; /* always NUL-terminated once something was appended; NULL before */
    size_t size, capacity;
    bool   failed;
} nb_buf;

void nb_buf_free(nb_buf *b); /* leaves an empty buffer */
void nb_buf_clear(nb_buf *b);
void nb_buf_add(nb_buf *b, const void *bytes, size_t n);
void nb_buf_str(nb_buf *b, const char *s);
void nb_buf_char(nb_buf *b, char c);
void nb_buf_printf(nb_buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* JSON: a quoted string (bytes that are not UTF-8 become U+FFFD); a number in the fewest digits that read back the same
 * (up to 17), or null if it is not finite. */
void nb_buf_json_string(nb_buf *b, const char *s, size_t n);
void nb_buf_json_number(nb_buf *b, double v);
nb_status nb_buf_status(const nb_buf *b, const char *what, nb_error *err);

#endif
