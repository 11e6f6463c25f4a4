/* json.h - the one JSON layer: cJSON behind a strict validator, and typed access that names the place.
 *
 * cJSON alone accepts duplicate keys, trailing text and bytes that are not UTF-8; nb_json_parse refuses them first, with
 * line and column, and caps size and depth.  Objects are linked lists: iterate big ones, never look up by key in them.
 */
#ifndef NB_JSON_H
#define NB_JSON_H

#include <cjson/cJSON.h>

#include "runtime/io/buf.h"
#include "runtime/io/reader.h"
#include "runtime/io/utf8.h"

/* name: the file (or "line 12 of FILE") for messages.  *out must be freed with cJSON_Delete; NULL on failure. */
nb_status nb_json_parse(cJSON **out, const char *text, size_t n, const char *name, nb_error *err);
nb_status nb_json_file(cJSON **out, const char *path, size_t limit, nb_error *err);

/* Typed members of an object.  `where` is what to call the object in a message ("config.json: vision_config").
 * nb_json_find: NULL when the key is missing or null.  get_*: missing or wrong type or out of [min, max] is NB_ERR_INPUT.
 * opt_*: missing or null keeps *out. */
const cJSON *nb_json_find(const cJSON *object, const char *key);
nb_status nb_json_get_int(const cJSON *o, const char *key, int64_t min, int64_t max, int64_t *out, const char *where, nb_error *err);
nb_status nb_json_opt_int(const cJSON *o, const char *key, int64_t min, int64_t max, int64_t *out, const char *where, nb_error *err);
nb_status nb_json_get_number(const cJSON *o, const char *key, double min, double max, double *out, const char *where, nb_error *err);
nb_status nb_json_opt_number(const cJSON *o, const char *key, double min, double max, double *out, const char *where, nb_error *err);
nb_status nb_json_opt_bool(const cJSON *o, const char *key, bool *out, const char *where, nb_error *err);
nb_status nb_json_get_string(const cJSON *o, const char *key, const char **out, const char *where, nb_error *err);
nb_status nb_json_opt_string(const cJSON *o, const char *key, const char **out, const char *where, nb_error *err);
/* Compact or indented text of a tree in its own key order.  Non-ASCII is kept as it is.  spaced: ", " and ": " separators
 * on one line (Python's json.dumps form, used for tool lists). */
typedef enum { NB_JSON_COMPACT, NB_JSON_SPACED, NB_JSON_INDENTED } nb_json_style;
void nb_json_print(nb_buf *out, const cJSON *tree, nb_json_style style);

/* Streaming reader for data sets: a JSON array of values or JSON lines, one value at a time, never the whole file; gzip and
 * zstd are unpacked on the way.  line is the 1-based line (of the unpacked text) on which the value starts (may be NULL).
 * *out NULL at the end.  Pretty-printed objects one after the other are taken too.  At most 256 MiB a value; after an error
 * the stream only repeats that it failed, unless nb_json_stream_resume finds where the next value begins: behind a value of
 * an array whose end is known, or on the next line (of pretty-printed objects: the next that begins with '{').  false: the
 * rest cannot be read. */
typedef struct nb_json_stream nb_json_stream;
nb_status nb_json_stream_open(nb_json_stream **out, const char *path, nb_error *err);
nb_status nb_json_stream_open_bytes(nb_json_stream **out, const char *name, const void *bytes, size_t n, nb_error *err);
nb_status nb_json_stream_next(nb_json_stream *s, cJSON **out, size_t *line, nb_error *err);
bool      nb_json_stream_resume(nb_json_stream *s);
/* The text of the next value instead, not judged yet and appended to `text`, for callers that parse several at once
 * (nb_json_parse_at): *end true after the last.  A failure is the stream's own, as above.  A value that turns out not to be JSON
 * is nothing to the stream, except when the file is of pretty-printed objects: then call nb_json_stream_refuse, and resume. */
typedef struct {
    size_t begin, size;  /* in the caller's buffer */
    size_t line, column; /* where it starts */
} nb_json_span;
nb_status nb_json_stream_take(nb_json_stream *s, nb_buf *text, nb_json_span *out, bool *end, nb_error *err);
bool      nb_json_stream_is_pretty(const nb_json_stream *s);
void      nb_json_stream_refuse(nb_json_stream *s);
/* nb_json_parse of text whose first byte is at this line and column (1-based) of the file `name`. */
nb_status nb_json_parse_at(cJSON **out, const char *text, size_t n, const char *name, size_t line, size_t column,
                           nb_error *err);
void      nb_json_stream_close(nb_json_stream *s);
bool      nb_json_stream_is_array(const nb_json_stream *s);
const nb_reader *nb_json_stream_reader(const nb_json_stream *s); /* for progress */

#endif
