/* tsv.c - see tsv.h.  The same state machine serves the scan and the reading of a row, so that both agree on where a row
 * ends. */
#include "runtime/io/tsv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/io/file.h"

enum { BLOCK = 1 << 20, COLUMNS = 256, MAX_ROW = 1 << 29 };

typedef struct {
    uint64_t offset, size; /* bytes of the row in the file, its line end included */
    size_t   line;
    char    *index;
} place;

struct nb_tsv {
    char   *path;
    int     fd;
    bool    pandas;
    char  **columns;
    int     column_count, index_column;
    place  *rows;
    size_t  count, capacity;
    size_t *by_index;     /* row numbers sorted by index text */
    nb_buf  text;         /* unquoted fields of the current row, each NUL-terminated */
    size_t  field[COLUMNS]; /* offset of each field in text */
};

/* ---- the state machine ------------------------------------------------------------------------------------------------- */

/* A quote opens a quoted field only at its beginning, as in general CSV readers. */
typedef enum { START, PLAIN, QUOTED, QUOTE_IN_QUOTED } state;
typedef enum { TAKE, SKIP, FIELD_END, ROW_END } action;

static action step(state *s, char c)
{
    if (*s == QUOTED) {
        if (c != '"') return TAKE;
        *s = QUOTE_IN_QUOTED;
        return SKIP;
    }
    if (*s == QUOTE_IN_QUOTED && c == '"') {
        *s = QUOTED;
        return TAKE;
    }
    if (c == '\t' || c == '\n') {
        *s = START;
        return c == '\t' ? FIELD_END : ROW_END;
    }
    if (*s == START && c == '"') {
        *s = QUOTED;
        return SKIP;
    }
    if (c == '\r') return SKIP;
    *s = *s == QUOTE_IN_QUOTED ? QUOTE_IN_QUOTED : PLAIN;
    return TAKE;
}

static bool missing(const char *s)
{
    static const char *const texts[] = { "NA",   "N/A",  "n/a",  "NaN",     "nan",   "-NaN",    "-nan",  "NULL",    "null",
                                         "<NA>", "#N/A", "#NA",  "#N/A N/A", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN" };
    for (size_t i = 0; i < NB_COUNT(texts); i++)
        if (!strcmp(s, texts[i])) return true;
    return false;
}

/* Split the bytes of one row into t->text and t->field. */
static nb_status split(nb_tsv *t, const char *bytes, size_t n, int *fields, size_t line, nb_error *err)
{
    state  s = START;
    bool   quoted = false;
    int    count = 0;
    nb_buf_clear(&t->text);
    t->field[0] = 0;
    for (size_t i = 0; i <= n; i++) {
        action a = i < n ? step(&s, bytes[i]) : ROW_END;
        quoted = quoted || s == QUOTED;
        if (a == TAKE) nb_buf_char(&t->text, bytes[i]);
        if (a != FIELD_END && a != ROW_END) continue;
        nb_buf_char(&t->text, 0);
        if (t->text.failed) break;
        if (t->pandas && !quoted && missing(t->text.data + t->field[count])) t->text.data[t->field[count]] = 0;
        quoted = false;
        if (++count == COLUMNS)
            return nb_fail(err, NB_ERR_INPUT, "%s: line %zu has more than %d columns", t->path, line, COLUMNS - 1);
        t->field[count] = t->text.size;
        if (a == ROW_END) break;
    }
    *fields = count;
    return nb_buf_status(&t->text, "a table row", err);
}

/* ---- opening ----------------------------------------------------------------------------------------------------------- */

static nb_status read_header(nb_tsv *t, const char *bytes, size_t n, nb_error *err)
{
    int fields;
    if (n >= 3 && !memcmp(bytes, "\xef\xbb\xbf", 3)) bytes += 3, n -= 3;
    NB_TRY(split(t, bytes, n, &fields, 1, err));
    NB_TRY(nb_alloc(&t->columns, (size_t)fields, sizeof *t->columns, "columns", err));
    for (; t->column_count < fields; t->column_count++)
        if (!(t->columns[t->column_count] = nb_strdup(t->text.data + t->field[t->column_count])))
            return nb_fail(err, NB_ERR_MEMORY, "no memory for column names");
    t->index_column = nb_tsv_column(t, "index");
    if (t->index_column < 0)
        return nb_fail(err, NB_ERR_INPUT, "%s: the header has no column 'index': not a benchmark table (tab-separated)", t->path);
    return NB_OK;
}

/* What the scan knows of the row it is in. */
typedef struct {
    uint64_t offset; /* where it starts */
    size_t   line, lines;
    int      fields;
    bool     any;    /* holds more than a line end */
    nb_buf   header, index;
} scan;

static nb_status end_row(nb_tsv *t, scan *s, uint64_t end, nb_error *err)
{
    if (s->header.data || t->column_count == 0) {
        NB_TRY(nb_buf_status(&s->header, "the header", err));
        NB_TRY(read_header(t, s->header.data ? s->header.data : "", s->header.size, err));
        nb_buf_free(&s->header);
    } else if (s->any) {
        if (s->fields + 1 != t->column_count)
            return nb_fail(err, NB_ERR_INPUT, "%s: line %zu has %d columns, the header has %d", t->path, s->line, s->fields + 1,
                           t->column_count);
        if (end - s->offset > MAX_ROW)
            return nb_fail(err, NB_ERR_INPUT, "%s: the row at line %zu is larger than %d MiB", t->path, s->line, MAX_ROW >> 20);
        NB_TRY(nb_grow(&t->rows, &t->capacity, t->count + 1, sizeof *t->rows, "rows", err));
        nb_buf_char(&s->index, 0);
        NB_TRY(nb_buf_status(&s->index, "an index", err));
        char *index = nb_strdup(s->index.data);
        if (!index) return nb_fail(err, NB_ERR_MEMORY, "no memory for an index");
        t->rows[t->count++] = (place){ s->offset, end - s->offset, s->line, index };
    }
    nb_buf_clear(&s->index);
    s->offset = end;
    s->line = s->lines + 1;
    s->fields = 0;
    s->any = false;
    return NB_OK;
}

static nb_status scan_file(nb_tsv *t, char *block, scan *s, nb_error *err)
{
    state    at = START;
    uint64_t offset = 0;
    for (;;) {
        ssize_t n = read(t->fd, block, BLOCK);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return nb_fail(err, NB_ERR_IO, "%s: cannot read: %s", t->path, strerror(errno));
        if (n == 0) break;
        for (ssize_t i = 0; i < n; i++) {
            bool   header = t->column_count == 0;
            action a = step(&at, block[i]);
            if (block[i] == '\n') s->lines++;
            if (header) nb_buf_char(&s->header, block[i]);
            if (a == TAKE && !header && s->fields == t->index_column && s->index.size < 256) nb_buf_char(&s->index, block[i]);
            if (a == FIELD_END) s->fields++;
            s->any = s->any || (block[i] != '\n' && block[i] != '\r');
            if (a == ROW_END) {
                if (header) s->header.size--; /* without the line end */
                NB_TRY(end_row(t, s, offset + (uint64_t)i + 1, err));
            }
        }
        offset += (uint64_t)n;
    }
    if (at == QUOTED) return nb_fail(err, NB_ERR_INPUT, "%s: the quote opened in the row at line %zu is never closed", t->path, s->line);
    return s->any || t->column_count == 0 ? end_row(t, s, offset, err) : NB_OK;
}

static int compare_index(const void *a, const void *b, void *context)
{
    const nb_tsv *t = context;
    size_t        x = *(const size_t *)a, y = *(const size_t *)b;
    int           c = strcmp(t->rows[x].index, t->rows[y].index);
    return c ? c : (x > y) - (x < y);
}

static nb_status sort_index(nb_tsv *t, nb_error *err)
{
    if (t->count == 0) return nb_fail(err, NB_ERR_INPUT, "%s: the table has a header and no rows", t->path);
    NB_TRY(nb_alloc(&t->by_index, t->count, sizeof *t->by_index, "row index", err));
    for (size_t i = 0; i < t->count; i++) t->by_index[i] = i;
    qsort_r(t->by_index, t->count, sizeof *t->by_index, compare_index, t);
    for (size_t i = 1; i < t->count; i++) {
        size_t a = t->by_index[i - 1], b = t->by_index[i];
        if (!strcmp(t->rows[a].index, t->rows[b].index))
            return nb_fail(err, NB_ERR_INPUT, "%s: lines %zu and %zu have the same index '%s'", t->path, t->rows[a].line, t->rows[b].line,
                           t->rows[a].index);
    }
    return NB_OK;
}

static nb_status open_file(nb_tsv *t, nb_error *err)
{
    struct stat st;
    t->fd = open(t->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (t->fd < 0) return nb_fail(err, NB_ERR_INPUT, "%s: cannot open: %s", t->path, strerror(errno));
    if (fstat(t->fd, &st) != 0 || !S_ISREG(st.st_mode)) return nb_fail(err, NB_ERR_INPUT, "%s: not a regular file", t->path);
    if (st.st_size == 0) return nb_fail(err, NB_ERR_INPUT, "%s: the file is empty", t->path);
    char *block;
    scan  s = { .line = 1 };
    NB_TRY(nb_alloc(&block, BLOCK, 1, "a read buffer", err));
    nb_status status = scan_file(t, block, &s, err);
    nb_buf_free(&s.header);
    nb_buf_free(&s.index);
    free(block);
    return status == NB_OK ? sort_index(t, err) : status;
}

nb_status nb_tsv_open(nb_tsv **out, const char *path, bool missing_as_pandas, nb_error *err)
{
    NB_TRY(nb_alloc(out, 1, sizeof **out, "a table", err));
    nb_tsv *t = *out;
    t->fd = -1;
    t->pandas = missing_as_pandas;
    t->path = nb_strdup(path);
    nb_status status = t->path ? open_file(t, err) : nb_fail(err, NB_ERR_MEMORY, "no memory for a path");
    if (status != NB_OK) {
        nb_tsv_close(t);
        *out = NULL;
    }
    return status;
}

void nb_tsv_close(nb_tsv *t)
{
    if (!t) return;
    if (t->fd >= 0) close(t->fd);
    for (int i = 0; i < t->column_count; i++) free(t->columns[i]);
    for (size_t i = 0; i < t->count; i++) free(t->rows[i].index);
    free(t->columns);
    free(t->rows);
    free(t->by_index);
    nb_buf_free(&t->text);
    free(t->path);
    free(t);
}

/* ---- access ------------------------------------------------------------------------------------------------------------ */

size_t nb_tsv_rows(const nb_tsv *t) { return t->count; }
size_t nb_tsv_line(const nb_tsv *t, size_t i) { return t->rows[i].line; }
const char *nb_tsv_index(const nb_tsv *t, size_t i) { return t->rows[i].index; }

uint64_t nb_tsv_offset(const nb_tsv *t, size_t i)
{
    return i < t->count ? t->rows[i].offset : t->rows[t->count - 1].offset + t->rows[t->count - 1].size;
}

int nb_tsv_column(const nb_tsv *t, const char *name)
{
    for (int i = 0; i < t->column_count; i++)
        if (!strcmp(t->columns[i], name)) return i;
    return -1;
}

nb_status nb_tsv_row(nb_tsv *t, size_t i, nb_error *err)
{
    char *bytes;
    int   fields = 0;
    NB_TRY(nb_alloc(&bytes, t->rows[i].size, 1, "a table row", err));
    nb_status status = nb_read_at(t->fd, bytes, t->rows[i].size, t->rows[i].offset, t->path, err);
    if (status == NB_OK) status = split(t, bytes, t->rows[i].size, &fields, t->rows[i].line, err);
    if (status == NB_OK && fields != t->column_count)
        status = nb_fail(err, NB_ERR_INPUT, "%s: line %zu changed while the table was in use", t->path, t->rows[i].line);
    free(bytes);
    return status;
}

const char *nb_tsv_get(const nb_tsv *t, const char *name)
{
    int column = nb_tsv_column(t, name);
    return column < 0 ? NULL : t->text.data + t->field[column];
}

size_t nb_tsv_find(const nb_tsv *t, const char *index)
{
    size_t low = 0, high = t->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int    c = strcmp(t->rows[t->by_index[middle]].index, index);
        if (c == 0) return t->by_index[middle];
        if (c < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return SIZE_MAX;
}
