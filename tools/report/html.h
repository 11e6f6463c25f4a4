/* html.h - one self-contained page: no script, nothing from elsewhere, light and dark, readable without its pictures.
 *
 * Everything that comes from outside (names, answers, notes) goes through nb_html_text; what is put into the buffer
 * directly is the program's own.  The page forbids itself everything by a Content-Security-Policy but its one style sheet, by its hash, and data:
 * pictures.  Style attributes would be refused too: colours are classes (s0 .. s7 are the eight series colours).
 */
#ifndef NB_HTML_H
#define NB_HTML_H

#include "runtime/io/buf.h"

extern const char nb_html_style[];      /* the style sheet between <style> and </style> */
extern const char nb_html_style_hash[]; /* "sha256-..." of it, as browsers count it; a test holds them together */

void nb_html_begin(nb_buf *out, const char *title); /* up to and with <main><h1>title</h1> */
void nb_html_end(nb_buf *out);

/* Escaped: text and attribute values.  Bytes that are no UTF-8 and control characters become U+FFFD, line ends stay. */
void nb_html_text(nb_buf *out, const char *text);
void nb_html_printf(nb_buf *out, const char *format, ...) __attribute__((format(printf, 2, 3))); /* escaped */
/* <tag>text</tag>; attributes ("class=\"note\"") or NULL. */
void nb_html_element(nb_buf *out, const char *tag, const char *attributes, const char *text);
void nb_html_section(nb_buf *out, const char *id, const char *title); /* ends the one before */

/* A table whose first column names the row.  Cells are text; those of `numeric` columns are aligned to the right. */
typedef struct {
    const char *title;
    bool        numeric;
} nb_html_column;
void nb_html_table(nb_buf *out, const char *caption, const nb_html_column *columns, size_t count);
void nb_html_row(nb_buf *out, const nb_html_column *columns, size_t count, const char *const *cells);
void nb_html_table_end(nb_buf *out);

#endif
