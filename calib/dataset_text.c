/* dataset_text.c - see dataset_text.h.  One line after the other is appended to the paragraph, until an empty one. */
#include "calib/dataset_text.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "runtime/io/utf8.h"

enum { CHUNK = 1 << 16, MAX_PARAGRAPH = 256 << 20 };

struct nb_text_stream {
    nb_reader *reader;
    char      *path;
    size_t     at, have, line; /* line: of chunk[at], 1-based */
    bool       begun;          /* the byte order mark was looked for */
    nb_buf     text;
    char       chunk[CHUNK];
};

bool nb_text_stream_named(const char *path)
{
    static const char *const packed[] = {"", ".gz", ".zst"}, *const names[] = {".txt", ".text", ".md"};
    size_t n = strlen(path);
    for (size_t i = 0; i < NB_COUNT(packed); i++)
        for (size_t k = 0; k < NB_COUNT(names); k++) {
            size_t a = strlen(names[k]), b = strlen(packed[i]);
            if (n >= a + b && !strncasecmp(path + n - a - b, names[k], a) && !strcasecmp(path + n - b, packed[i])) return true;
        }
    return false;
}

/* Make chunk[at] readable; false at the end. */
static nb_status fill(nb_text_stream *s, bool *more, nb_error *err)
{
    if (s->at == s->have) {
        s->at = s->have = 0;
        NB_TRY(nb_reader_read(s->reader, s->chunk, CHUNK, &s->have, err));
        if (!s->begun && s->have >= 3 && !memcmp(s->chunk, "\xEF\xBB\xBF", 3)) s->at = 3;
        s->begun = true;
    }
    *more = s->at < s->have;
    return NB_OK;
}

/* Append the next line with its line break.  Of a paragraph that is too long already nothing is kept. */
static nb_status take_line(nb_text_stream *s, bool *more, nb_error *err)
{
    bool any = false;
    for (;;) {
        NB_TRY(fill(s, more, err));
        if (!*more) {
            *more = any;
            return NB_OK;
        }
        any = true;
        char  *from = s->chunk + s->at, *end = memchr(from, '\n', s->have - s->at);
        size_t n = end ? (size_t)(end + 1 - from) : s->have - s->at;
        if (s->text.size <= MAX_PARAGRAPH) nb_buf_add(&s->text, from, n);
        s->at += n;
        if (!end) continue;
        s->line++;
        return nb_buf_status(&s->text, s->path, err);
    }
}

/* "\r\n" to "\n" in the last line, which begins at `from`; true when it holds more than white space. */
static bool tidy_line(nb_text_stream *s, size_t from)
{
    char  *text = s->text.data;
    size_t n = s->text.size;
    if (n >= from + 2 && text[n - 1] == '\n' && text[n - 2] == '\r') {
        text[n - 2] = '\n';
        text[s->text.size = n - 1] = 0;
    }
    for (size_t i = from; i < s->text.size; i++)
        if (!strchr(" \t\r\n\f\v", text[i]) || !text[i]) return true;
    return false;
}

nb_status nb_text_stream_next(nb_text_stream *s, const char **out, size_t *line, nb_error *err)
{
    bool more = true;
    *out = NULL;
    nb_buf_clear(&s->text);
    *line = s->line;
    while (more) {
        size_t from = s->text.size, start = s->line;
        NB_TRY(take_line(s, &more, err));
        if (more && tidy_line(s, from)) {
            if (!from) *line = start;
            continue;
        }
        s->text.size = from;
        if (from) break;
    }
    if (!s->text.size) return NB_OK;
    while (s->text.size && s->text.data[s->text.size - 1] == '\n') s->text.size--;
    s->text.data[s->text.size] = 0;
    if (s->text.size >= MAX_PARAGRAPH)
        return nb_fail(err, NB_ERR_INPUT, "%s: line %zu: a paragraph of more than %d MiB", s->path, *line, MAX_PARAGRAPH >> 20);
    if (memchr(s->text.data, 0, s->text.size))
        return nb_fail(err, NB_ERR_INPUT, "%s: line %zu: a paragraph with a NUL byte, so this is no text", s->path, *line);
    if (!nb_utf8_valid(s->text.data, s->text.size))
        return nb_fail(err, NB_ERR_INPUT, "%s: line %zu: a paragraph that is not UTF-8", s->path, *line);
    *out = s->text.data;
    return NB_OK;
}

nb_status nb_text_stream_open(nb_text_stream **out, const char *path, nb_error *err)
{
    *out = NULL;
    nb_text_stream *s = calloc(1, sizeof *s);
    if (!s) return nb_fail(err, NB_ERR_MEMORY, "%s: no memory to read it", path);
    s->line = 1;
    s->path = nb_strdup(path);
    nb_status status = s->path ? nb_reader_open(&s->reader, path, err)
                               : nb_fail(err, NB_ERR_MEMORY, "%s: no memory to read it", path);
    if (status != NB_OK) {
        nb_text_stream_close(s);
        return status;
    }
    *out = s;
    return NB_OK;
}

void nb_text_stream_close(nb_text_stream *s)
{
    if (!s) return;
    nb_reader_close(s->reader);
    nb_buf_free(&s->text);
    free(s->path);
    free(s);
}

const nb_reader *nb_text_stream_reader(const nb_text_stream *s)
{
    return s->reader;
}
