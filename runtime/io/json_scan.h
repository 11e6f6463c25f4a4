/* json_scan.h - JSON as a sequence of tokens, judged strictly (RFC 8259), without recursion and without building anything.
 *
 * The validator in front of cJSON, and readers that need exact integers or little memory (the safetensors header), sit
 * on this.  It refuses what the grammar forbids, bytes that are not UTF-8, lone surrogate escapes, \u0000 (strings here
 * end at a NUL), numbers that overflow a double, and nesting deeper than NB_JSON_DEPTH.  Duplicate keys are the
 * reader's business. */
#ifndef NB_JSON_SCAN_H
#define NB_JSON_SCAN_H

#include "runtime/io/buf.h"

enum { NB_JSON_DEPTH = 256 };

typedef enum {
    NB_TOKEN_END, /* after the one value, with nothing but white space behind it */
    NB_TOKEN_OBJECT, NB_TOKEN_OBJECT_END, NB_TOKEN_ARRAY, NB_TOKEN_ARRAY_END,
    NB_TOKEN_KEY, NB_TOKEN_STRING, NB_TOKEN_NUMBER, NB_TOKEN_TRUE, NB_TOKEN_FALSE, NB_TOKEN_NULL
} nb_token;

typedef struct {
    const char *text, *name;   /* name: of the file, for messages */
    size_t      size, at;      /* at: the next byte to look at */
    size_t      line, column;  /* of text[0], 1-based; not 1, 1 when the text is a part of a file */
    nb_token    token;         /* the current one, and its bytes; a string's without the quotes */
    size_t      start, length;
    bool        escaped;       /* the string holds a backslash */
    int         depth;
    int         expect;        /* private to json_scan.c, as is nest */
    bool        nest[NB_JSON_DEPTH]; /* true: an object */
} nb_json_scan;

void      nb_json_scan_begin(nb_json_scan *s, const char *text, size_t size, const char *name);
nb_status nb_json_scan_next(nb_json_scan *s, nb_error *err);
/* Append the current key or string, escapes resolved. */
void      nb_json_scan_string(const nb_json_scan *s, nb_buf *out);
/* The current key or string with its escapes resolved, which never makes it longer than s->length: returns its bytes.  No NUL
 * is added. */
size_t    nb_json_scan_decode(const nb_json_scan *s, char *out);
/* NB_ERR_INPUT "NAME: line L, column C: ..." for the byte at `at`. */
nb_status nb_json_scan_fail(const nb_json_scan *s, size_t at, nb_error *err, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
