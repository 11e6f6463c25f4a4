/* json_stream.c - the values of a data set, one at a time: of a JSON array, or one a line.
 *
 * Only brackets and quotes are followed here, to find where a value ends; whether it is JSON is nb_json_parse's
 * judgement.  A value may never hold a raw line break inside a string, so a lost quote is noticed at the end of its line
 * and does not swallow the file.  In JSON lines a row that is still open at the end of its line is an error too, unless
 * it is the first: then the file is taken as pretty-printed objects, one after the other.
 *
 * Files of gigabytes come through here, most of them long strings: runs of bytes that cannot matter are passed over by a
 * table, and columns are counted only when an error is to be placed. */
#include <stdlib.h>
#include <string.h>

#include "runtime/io/json.h"
#include "runtime/io/reader.h"

enum { CHUNK = 1 << 16, MAX_ROW = 256 << 20 };

struct nb_json_stream {
    nb_reader *reader;
    char    *path;
    size_t   at, have;     /* what is left of chunk */
    size_t   line, column; /* of chunk[counted], 1-based, column in characters */
    size_t   counted;      /* chunk[0 .. counted-1] is in line and column; at most at */
    enum { LINES, OBJECTS, ARRAY } form;
    bool     first;  /* no value was read yet */
    bool     done;   /* the closing bracket of an array was read */
    bool     whole;  /* the text of the last value was found, whatever it is: at stands behind it */
    bool     behind; /* ... and the comma or bracket there was not read yet */
    nb_status broken; /* the status of an earlier failure */
    nb_buf   row;
    char     chunk[CHUNK];
};

/* Bring line and column up to chunk[at]. */
static void count(nb_json_stream *s)
{
    const char *from = s->chunk + s->counted, *end = s->chunk + s->at, *p;
    while (from < end && (p = memchr(from, '\n', (size_t)(end - from)))) {
        s->line++;
        s->column = 1;
        from = p + 1;
    }
    for (; from < end; from++) s->column += ((unsigned char)*from & 0xC0) != 0x80;
    s->counted = s->at;
}

/* Make chunk[at] readable; false at the end of the file. */
static nb_status fill(nb_json_stream *s, bool *more, nb_error *err)
{
    *more = s->at < s->have;
    if (*more) return NB_OK;
    count(s);
    s->at = s->counted = 0;
    s->have = 0;
    NB_TRY(nb_reader_read(s->reader, s->chunk, CHUNK, &s->have, err));
    *more = s->have > 0;
    return NB_OK;
}

/* To the next byte that is not white space; *c is that byte, or -1 at the end of the file.  A packed file of a kilobyte can
 * hold gigabytes of spaces, so they are limited as a row is. */
static nb_status skip_space(nb_json_stream *s, int *c, nb_error *err)
{
    for (size_t skipped = 0; skipped < MAX_ROW; skipped++) {
        bool more;
        NB_TRY(fill(s, &more, err));
        *c = more ? (unsigned char)s->chunk[s->at] : -1;
        if (*c != ' ' && *c != '\n' && *c != '\r' && *c != '\t') return NB_OK;
        s->at++;
    }
    return nb_fail(err, NB_ERR_INPUT, "%s: %d MiB of white space between two values", s->path, MAX_ROW >> 20);
}

static nb_status fail_here(nb_json_stream *s, nb_error *err, const char *what)
{
    count(s);
    return nb_fail(err, NB_ERR_INPUT, "%s: line %zu, column %zu: %s", s->path, s->line, s->column, what);
}

/* Bytes that take_row has to look at: all of them outside strings; within one, '"', '\\' and the line break. */
static bool stops(char c, bool quoted)
{
    switch (c) {
    case '"': case '\n': return true;
    case '\\': return quoted;
    case '{': case '}': case '[': case ']': case ',': return !quoted;
    default: return false;
    }
}

/* The first of '"', '\\' and line break in [p, end), eight bytes at a time: a byte of x ^ pattern is zero where they agree, and
 * (v - 0x01..) & ~v & 0x80.. has a bit only if some byte of v is zero; the lowest bit is that of the first. */
static const char *in_string(const char *p, const char *end)
{
    const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
    for (; end - p >= 8; p += 8) {
        uint64_t x;
        memcpy(&x, p, 8);
        uint64_t quote = x ^ ones * '"', slash = x ^ ones * '\\', line = x ^ ones * '\n';
        uint64_t stop = (((quote - ones) & ~quote) | ((slash - ones) & ~slash) | ((line - ones) & ~line)) & high;
        if (!stop) continue;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        return p + (__builtin_ctzll(stop) >> 3);
#else
        break;
#endif
    }
    while (p < end && !stops(*p, true)) p++;
    return p;
}

/* Append the text of one value.  In an array it ends before the ',' or ']' that follows it; otherwise with
 * the line on which its brackets are closed. */
static nb_status take_row(nb_json_stream *s, nb_buf *text, nb_json_span *out, nb_error *err)
{
    size_t depth = 0;
    bool   quoted = false, escaped = false, ended = false;
    count(s);
    *out = (nb_json_span){.begin = text->size, .line = s->line, .column = s->column};
    while (!ended) {
        bool more;
        NB_TRY(fill(s, &more, err));
        if (!more && s->form == ARRAY) return fail_here(s, err, "the file ends inside the array");
        if (!more) break; /* the last line needs no line break; what else it lacks, parsing will say */
        const char *from = s->chunk + s->at, *p = from, *end = s->chunk + s->have;
        for (; p < end; p++) {
            if (escaped && *p != '\n') {
                escaped = false;
                continue;
            }
            if (quoted) p = in_string(p, end);
            else while (p < end && !stops(*p, false)) p++;
            if (p == end) break;
            char c = *p;
            s->at = (size_t)(p - s->chunk);
            if (c == '\n' && quoted) return fail_here(s, err, "a string is not closed at the end of the line");
            if (c == '\n' && s->form == LINES && depth > 0) {
                if (!s->first) return fail_here(s, err, "the value is not closed at the end of the line");
                s->form = OBJECTS;
            }
            if (c == '\\') {
                escaped = true;
            } else if (c == '"') {
                quoted = !quoted;
            } else if (quoted) {
                continue;
            } else if (depth == 0 && (s->form == ARRAY ? c == ',' || c == ']' : c == '\n')) {
                ended = true;
                break;
            } else if (c == '{' || c == '[') {
                depth++;
            } else if ((c == '}' || c == ']') && depth > 0) {
                depth--;
            }
        }
        s->at = (size_t)(p - s->chunk);
        if ((size_t)(p - from) > MAX_ROW - (text->size - out->begin))
            return nb_fail(err, NB_ERR_INPUT, "%s: line %zu: a value of more than %d MiB", s->path, out->line,
                           MAX_ROW >> 20);
        nb_buf_add(text, from, (size_t)(p - from));
        NB_TRY(nb_buf_status(text, s->path, err));
    }
    out->size = text->size - out->begin;
    return NB_OK;
}

/* Behind an array's value: a comma, or the end of the array and of the file. */
static nb_status after_value(nb_json_stream *s, nb_error *err)
{
    int c;
    if (s->chunk[s->at++] == ',') return NB_OK;
    s->done = true;
    NB_TRY(skip_space(s, &c, err));
    return c < 0 ? NB_OK : fail_here(s, err, "text after the end of the array");
}

static nb_status take(nb_json_stream *s, nb_buf *text, nb_json_span *out, bool *end, nb_error *err)
{
    int c;
    *end = true;
    s->whole = false;
    if (s->behind) {
        s->behind = false;
        NB_TRY(after_value(s, err));
    }
    if (s->done) return NB_OK;
    NB_TRY(skip_space(s, &c, err));
    if (c < 0) return s->form == ARRAY ? fail_here(s, err, "the file ends inside the array") : NB_OK;
    if (s->form == ARRAY && s->first && c == ']') return after_value(s, err);
    if (s->form == ARRAY && (c == ',' || c == ']')) return fail_here(s, err, "expected a value");
    NB_TRY(take_row(s, text, out, err));
    *end = false;
    s->whole = true;
    s->behind = s->form == ARRAY;
    s->first = false;
    return NB_OK;
}

nb_status nb_json_stream_take(nb_json_stream *s, nb_buf *text, nb_json_span *out, bool *end, nb_error *err)
{
    *end = true;
    if (s->broken != NB_OK) return nb_fail(err, s->broken, "%s: reading stopped at an earlier error", s->path);
    s->broken = take(s, text, out, end, err);
    return s->broken;
}

void nb_json_stream_refuse(nb_json_stream *s)
{
    s->broken = NB_ERR_INPUT;
}

nb_status nb_json_stream_next(nb_json_stream *s, cJSON **out, size_t *line, nb_error *err)
{
    nb_json_span span;
    bool         end;
    *out = NULL;
    nb_buf_clear(&s->row);
    NB_TRY(nb_json_stream_take(s, &s->row, &span, &end, err));
    if (end) return NB_OK;
    if (line) *line = span.line;
    s->broken = nb_json_parse_at(out, s->row.data, s->row.size, s->path, span.line, span.column, err);
    if (s->broken || s->form != ARRAY) return s->broken;
    s->behind = false;
    s->broken = after_value(s, err);
    if (s->broken) {
        cJSON_Delete(*out);
        *out = NULL;
    }
    return s->broken;
}

/* ---- going on behind a bad value ---------------------------------------------------------------------------------------- */

/* Past the end of the line.  *more: something follows. */
static nb_status skip_line(nb_json_stream *s, bool *more, nb_error *err)
{
    for (;;) {
        NB_TRY(fill(s, more, err));
        if (!*more) return NB_OK;
        char *end = memchr(s->chunk + s->at, '\n', s->have - s->at);
        s->at = end ? (size_t)(end - s->chunk) + 1 : s->have;
        if (end) return fill(s, more, err);
    }
}

bool nb_json_stream_resume(nb_json_stream *s)
{
    nb_status status = s->broken;
    bool      more = true;
    if (status == NB_OK) return true;
    if (status != NB_ERR_INPUT || nb_reader_broken(s->reader) || s->done || (s->form == ARRAY && !s->whole)) return false;
    if (s->form == ARRAY) {
        s->behind = false;
        status = after_value(s, NULL);
    } else {
        status = skip_line(s, &more, NULL);
        while (status == NB_OK && more && s->form == OBJECTS && s->chunk[s->at] != '{') status = skip_line(s, &more, NULL);
    }
    s->first = false;
    if (status == NB_OK) s->broken = NB_OK;
    return status == NB_OK;
}

/* ---- opening ------------------------------------------------------------------------------------------------------------ */

/* What kind of file it is: the first byte that is not white space decides. */
static nb_status begin(nb_json_stream *s, nb_error *err)
{
    bool more;
    int  c;
    NB_TRY(fill(s, &more, err));
    if (s->have >= 3 && !memcmp(s->chunk, "\xEF\xBB\xBF", 3)) s->at = s->counted = 3;
    NB_TRY(skip_space(s, &c, err));
    if (c != '[') return NB_OK;
    s->form = ARRAY;
    s->at++;
    return NB_OK;
}

/* Takes the reader over, also when it fails. */
static nb_status open_on(nb_json_stream **out, nb_reader *reader, const char *path, nb_error *err)
{
    *out              = NULL;
    nb_json_stream *s = calloc(1, sizeof *s);
    if (!s) {
        nb_reader_close(reader);
        return nb_fail(err, NB_ERR_MEMORY, "%s: no memory to read it", path);
    }
    s->line   = 1;
    s->column = 1;
    s->first  = true;
    s->reader = reader;
    s->path   = nb_strdup(path);
    nb_status status = s->path ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "%s: no memory to read it", path);
    if (status == NB_OK) status = begin(s, err);
    if (status != NB_OK) {
        nb_json_stream_close(s);
        return status;
    }
    *out = s;
    return NB_OK;
}

nb_status nb_json_stream_open(nb_json_stream **out, const char *path, nb_error *err)
{
    nb_reader *reader;
    *out = NULL;
    NB_TRY(nb_reader_open(&reader, path, err));
    return open_on(out, reader, path, err);
}

nb_status nb_json_stream_open_bytes(nb_json_stream **out, const char *name, const void *bytes, size_t n, nb_error *err)
{
    nb_reader *reader;
    *out = NULL;
    NB_TRY(nb_reader_open_bytes(&reader, name, bytes, n, err));
    return open_on(out, reader, name, err);
}

void nb_json_stream_close(nb_json_stream *s)
{
    if (!s) return;
    nb_reader_close(s->reader);
    nb_buf_free(&s->row);
    free(s->path);
    free(s);
}

bool nb_json_stream_is_pretty(const nb_json_stream *s)
{
    return s->form == OBJECTS;
}

bool nb_json_stream_is_array(const nb_json_stream *s)
{
    return s->form == ARRAY;
}

const nb_reader *nb_json_stream_reader(const nb_json_stream *s)
{
    return s->reader;
}
