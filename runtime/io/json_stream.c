/* json_stream.c - the values of a data set, one at a time: of a JSON array, or one a line.
 *
 * Only brackets and quotes are followed here, to find where a value ends; whether it is JSON is nb_json_parse's
 * judgement.  A value may never hold a raw line break inside a string, so a lost quote is noticed at the end of its line
 * and does not swallow the file.  In JSON lines a row that is still open at the end of its line is an error too, unless
 * it is the first: then the file is taken as pretty-printed objects, one after the other. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/io/file.h"
#include "runtime/io/json_parse.h"

enum { CHUNK = 1 << 16, MAX_ROW = 256 << 20 };

struct nb_json_stream {
    int      fd;
    char    *path;
    size_t   at, have;     /* what is left of chunk */
    uint64_t offset;       /* in the file, of the end of chunk */
    size_t   line, column; /* of chunk[at], 1-based, column in characters */
    enum { LINES, OBJECTS, ARRAY } form;
    bool     first;  /* no value was read yet */
    bool     done;   /* the closing bracket of an array was read */
    nb_status broken; /* the status of an earlier failure */
    nb_buf   row;
    size_t   row_line, row_column;
    char     chunk[CHUNK];
};

/* Make chunk[at] readable; false at the end of the file. */
static nb_status fill(nb_json_stream *s, bool *more, nb_error *err)
{
    *more = s->at < s->have;
    if (*more) return NB_OK;
    ssize_t got;
    do got = pread(s->fd, s->chunk, CHUNK, (off_t)s->offset);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return nb_fail(err, NB_ERR_IO, "%s: cannot read at byte %llu: %s", s->path, (unsigned long long)s->offset,
                       strerror(errno));
    s->at   = 0;
    s->have = (size_t)got;
    s->offset += (size_t)got;
    *more = got > 0;
    return NB_OK;
}

static void count(nb_json_stream *s, char c)
{
    if (c == '\n') {
        s->line++;
        s->column = 1;
    } else if (((unsigned char)c & 0xC0) != 0x80) {
        s->column++;
    }
}

/* To the next byte that is not white space; *c is that byte, or -1 at the end of the file. */
static nb_status skip_space(nb_json_stream *s, int *c, nb_error *err)
{
    for (;;) {
        bool more;
        NB_TRY(fill(s, &more, err));
        *c = more ? (unsigned char)s->chunk[s->at] : -1;
        if (*c != ' ' && *c != '\n' && *c != '\r' && *c != '\t') return NB_OK;
        count(s, (char)*c);
        s->at++;
    }
}

static nb_status fail_here(nb_json_stream *s, nb_error *err, const char *what)
{
    return nb_fail(err, NB_ERR_INPUT, "%s: line %zu, column %zu: %s", s->path, s->line, s->column, what);
}

/* Collect the text of one value into row.  In an array it ends before the ',' or ']' that follows it; otherwise with
 * the line on which its brackets are closed. */
static nb_status take_row(nb_json_stream *s, nb_error *err)
{
    size_t depth = 0;
    bool   quoted = false, escaped = false, ended = false;
    nb_buf_clear(&s->row);
    s->row_line   = s->line;
    s->row_column = s->column;
    while (!ended) {
        bool more;
        NB_TRY(fill(s, &more, err));
        if (!more && s->form == ARRAY) return fail_here(s, err, "the file ends inside the array");
        if (!more) return NB_OK; /* the last line needs no line break; what else it lacks, parsing will say */
        size_t from = s->at;
        for (; s->at < s->have; s->at++) {
            char c = s->chunk[s->at];
            if (c == '\n' && quoted) return fail_here(s, err, "a string is not closed at the end of the line");
            if (c == '\n' && s->form == LINES && depth > 0) {
                if (!s->first) return fail_here(s, err, "the value is not closed at the end of the line");
                s->form = OBJECTS;
            }
            if (quoted) {
                if (c == '"' && !escaped) quoted = false;
                escaped = c == '\\' && !escaped;
            } else if (depth == 0 && (s->form == ARRAY ? c == ',' || c == ']' : c == '\n')) {
                ended = true;
                break;
            } else if (c == '"') {
                quoted = true;
            } else if (c == '{' || c == '[') {
                depth++;
            } else if ((c == '}' || c == ']') && depth > 0) {
                depth--;
            }
            count(s, c);
        }
        if (s->at - from > MAX_ROW - s->row.size)
            return nb_fail(err, NB_ERR_INPUT, "%s: line %zu: a value of more than %d MiB", s->path, s->row_line,
                           MAX_ROW >> 20);
        nb_buf_add(&s->row, s->chunk + from, s->at - from);
        NB_TRY(nb_buf_status(&s->row, s->path, err));
    }
    return NB_OK;
}

/* Behind an array's value: a comma, or the end of the array and of the file. */
static nb_status after_value(nb_json_stream *s, nb_error *err)
{
    int c;
    if (s->chunk[s->at] == ',') {
        count(s, ',');
        s->at++;
        return NB_OK;
    }
    count(s, ']');
    s->at++;
    s->done = true;
    NB_TRY(skip_space(s, &c, err));
    return c < 0 ? NB_OK : fail_here(s, err, "text after the end of the array");
}

static nb_status next(nb_json_stream *s, cJSON **out, size_t *line, nb_error *err)
{
    int c;
    if (s->done) return NB_OK;
    NB_TRY(skip_space(s, &c, err));
    if (c < 0) return s->form == ARRAY ? fail_here(s, err, "the file ends inside the array") : NB_OK;
    if (s->form == ARRAY && s->first && c == ']') return after_value(s, err);
    if (s->form == ARRAY && (c == ',' || c == ']')) return fail_here(s, err, "expected a value");
    NB_TRY(take_row(s, err));
    if (line) *line = s->row_line;
    s->first = false;
    NB_TRY(nb_json_parse_at(out, s->row.data, s->row.size, s->path, s->row_line, s->row_column, err));
    if (s->form != ARRAY) return NB_OK;
    nb_status status = after_value(s, err);
    if (status != NB_OK) {
        cJSON_Delete(*out);
        *out = NULL;
    }
    return status;
}

nb_status nb_json_stream_next(nb_json_stream *s, cJSON **out, size_t *line, nb_error *err)
{
    *out = NULL;
    if (s->broken != NB_OK) return nb_fail(err, s->broken, "%s: reading stopped at an earlier error", s->path);
    s->broken = next(s, out, line, err);
    return s->broken;
}

/* What kind of file it is: the first byte that is not white space decides. */
static nb_status begin(nb_json_stream *s, nb_error *err)
{
    bool more;
    int  c;
    NB_TRY(fill(s, &more, err));
    if (s->have >= 2 && !memcmp(s->chunk, "\x1F\x8B", 2))
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: is compressed with gzip: unpack it first", s->path);
    if (s->have >= 3 && !memcmp(s->chunk, "\xEF\xBB\xBF", 3)) s->at = 3;
    NB_TRY(skip_space(s, &c, err));
    if (c != '[') return NB_OK;
    s->form = ARRAY;
    count(s, '[');
    s->at++;
    return NB_OK;
}

nb_status nb_json_stream_open(nb_json_stream **out, const char *path, nb_error *err)
{
    *out              = NULL;
    nb_json_stream *s = calloc(1, sizeof *s);
    if (!s) return nb_fail(err, NB_ERR_MEMORY, "%s: no memory to read it", path);
    s->fd    = -1;
    s->line  = 1;
    s->column = 1;
    s->first = true;
    s->path  = nb_strdup(path);
    nb_status status = s->path ? nb_open_regular(&s->fd, NULL, path, err)
                               : nb_fail(err, NB_ERR_MEMORY, "%s: no memory to read it", path);
    if (status == NB_OK) status = begin(s, err);
    if (status != NB_OK) {
        nb_json_stream_close(s);
        return status;
    }
    *out = s;
    return NB_OK;
}

void nb_json_stream_close(nb_json_stream *s)
{
    if (!s) return;
    if (s->fd >= 0) close(s->fd);
    nb_buf_free(&s->row);
    free(s->path);
    free(s);
}
