/* table.c - cells are kept in one growing array, row after row; the formats are four walks over it. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli/output.h"
#include "tools/cli/table.h"

typedef enum { CELL_EMPTY, CELL_TEXT, CELL_INT, CELL_NUMBER, CELL_BOOL, CELL_PAIR, CELL_JSON } cell_kind;

typedef struct {
    cell_kind kind;
    char     *text; /* TEXT, PAIR */
    int64_t   integer;
    double    number;
} cell;

struct nb_table {
    const nb_column *columns;
    size_t           count; /* of columns */
    cell            *cells;
    size_t           used, capacity;
    bool             failed;
};

nb_status nb_table_new(nb_table **out, const nb_column *columns, size_t count, nb_error *err)
{
    NB_TRY(nb_alloc(out, 1, sizeof **out, "a table", err));
    (*out)->columns = columns;
    (*out)->count = count;
    return NB_OK;
}

void nb_table_free(nb_table *t)
{
    if (!t) return;
    for (size_t i = 0; i < t->used; i++) free(t->cells[i].text);
    free(t->cells);
    free(t);
}

static void push(nb_table *t, cell c)
{
    if (!t->failed && nb_grow(&t->cells, &t->capacity, t->used + 1, sizeof c, "a table", NULL) == NB_OK) {
        t->cells[t->used++] = c;
        return;
    }
    free(c.text);
    t->failed = true;
}

void nb_table_text(nb_table *t, const char *text)
{
    cell c = {.kind = text ? CELL_TEXT : CELL_EMPTY, .text = nb_strdup(text)};
    if (text && !c.text) t->failed = true;
    push(t, c);
}

void nb_table_int(nb_table *t, int64_t value)
{
    push(t, (cell){.kind = CELL_INT, .integer = value});
}

void nb_table_number(nb_table *t, double value)
{
    push(t, (cell){.kind = isfinite(value) ? CELL_NUMBER : CELL_EMPTY, .number = value});
}

void nb_table_bool(nb_table *t, bool value)
{
    push(t, (cell){.kind = CELL_BOOL, .integer = value});
}

void nb_table_pair(nb_table *t, const char *text, double value)
{
    cell c = {.kind = CELL_PAIR, .text = nb_strdup(text ? text : ""), .number = value};
    if (!c.text) t->failed = true;
    push(t, c);
}

void nb_table_json(nb_table *t, const char *json)
{
    cell c = {.kind = CELL_JSON, .text = nb_strdup(json)};
    if (!c.text) t->failed = true;
    push(t, c);
}

size_t nb_table_rows(const nb_table *t)
{
    return t->used / t->count;
}

/* Code point of well-formed UTF-8; a stray byte counts as one character. */
static uint32_t next_point(const unsigned char **s)
{
    const unsigned char *c = *s;
    int      more = c[0] < 0xc0 ? 0 : c[0] < 0xe0 ? 1 : c[0] < 0xf0 ? 2 : 3;
    uint32_t v = more == 0 ? c[0] : c[0] & (0x3fu >> more);
    (*s)++;
    for (; more > 0 && (**s & 0xc0) == 0x80; more--, (*s)++) v = v << 6 | (**s & 0x3f);
    return v;
}

int nb_text_width(const char *s)
{
    int width = 0;
    for (const unsigned char *c = (const unsigned char *)s; *c;) {
        uint32_t p = next_point(&c);
        bool combining = (p >= 0x300 && p <= 0x36f) || p == 0x200b || p == 0x200d || (p >= 0xfe00 && p <= 0xfe0f);
        bool wide = (p >= 0x1100 && p <= 0x115f) || (p >= 0x2e80 && p <= 0xa4cf) || (p >= 0xac00 && p <= 0xd7a3) ||
                    (p >= 0xf900 && p <= 0xfaff) || (p >= 0xfe30 && p <= 0xfe6f) || (p >= 0xff00 && p <= 0xff60) ||
                    (p >= 0xffe0 && p <= 0xffe6) || (p >= 0x1f300 && p <= 0x1faff) || (p >= 0x20000 && p <= 0x3fffd);
        width += combining ? 0 : wide ? 2 : 1;
    }
    return width;
}

/* ---- the formats ------------------------------------------------------------------------------------------------- */

/* A cell for people: no control characters, '|' escaped. */
static void md_cell(const cell *c, int digits, nb_buf *out)
{
    switch (c->kind) {
    case CELL_EMPTY: break;
    case CELL_INT: nb_buf_printf(out, "%" PRId64, c->integer); break;
    case CELL_NUMBER: nb_buf_printf(out, "%.*f", digits, c->number); break;
    case CELL_BOOL: nb_buf_str(out, c->integer ? "yes" : "no"); break;
    case CELL_TEXT:
    case CELL_PAIR:
    case CELL_JSON:
        for (const char *s = c->text ? c->text : ""; *s; s++) {
            if (*s == '|') nb_buf_char(out, '\\');
            nb_buf_char(out, (unsigned char)*s < 32 || *s == 127 ? ' ' : *s);
        }
        break;
    }
    if (!out->data) nb_buf_str(out, "");
}

static bool right_aligned(const nb_table *t, size_t column)
{
    if (t->columns[column].right) return true;
    for (size_t i = column; i < t->used; i += t->count)
        if (t->cells[i].kind != CELL_EMPTY)
            return t->cells[i].kind == CELL_INT || t->cells[i].kind == CELL_NUMBER || t->cells[i].kind == CELL_PAIR;
    return false;
}

static void pad(nb_buf *out, const char *text, int width, bool right)
{
    int fill = width - nb_text_width(text);
    if (fill < 0) fill = 0;
    nb_buf_printf(out, "| %*s%s%*s ", right ? fill : 0, "", text, right ? 0 : fill, "");
}

static void print_md(const nb_table *t, nb_buf *out)
{
    size_t rows = nb_table_rows(t);
    int   *width = NULL;
    nb_buf b = {0};
    if (nb_alloc(&width, t->count, sizeof *width, "a table", NULL) != NB_OK) {
        out->failed = true;
        return;
    }
    for (size_t c = 0; c < t->count; c++) {
        if (!t->columns[c].title) continue;
        width[c] = nb_text_width(t->columns[c].title);
        if (width[c] < 3) width[c] = 3;
        for (size_t r = 0; r < rows; r++) {
            nb_buf_clear(&b);
            md_cell(&t->cells[r * t->count + c], t->columns[c].digits, &b);
            int w = b.data ? nb_text_width(b.data) : 0;
            if (w > width[c]) width[c] = w;
        }
    }
    for (size_t c = 0; c < t->count; c++)
        if (t->columns[c].title) pad(out, t->columns[c].title, width[c], right_aligned(t, c));
    nb_buf_str(out, "|\n");
    for (size_t c = 0; c < t->count; c++) {
        if (!t->columns[c].title) continue;
        bool right = right_aligned(t, c);
        nb_buf_str(out, "| ");
        for (int i = 0; i < width[c] - right; i++) nb_buf_char(out, '-');
        nb_buf_str(out, right ? ": " : " ");
    }
    nb_buf_str(out, "|\n");
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < t->count; c++) {
            if (!t->columns[c].title) continue;
            nb_buf_clear(&b);
            md_cell(&t->cells[r * t->count + c], t->columns[c].digits, &b);
            if (b.failed || !b.data) out->failed = true;
            else pad(out, b.data, width[c], right_aligned(t, c));
        }
        nb_buf_str(out, "|\n");
    }
    nb_buf_free(&b);
    free(width);
}

static void csv_field(nb_buf *out, const char *text)
{
    nb_buf_char(out, '"');
    for (; *text; text++) {
        if (*text == '"') nb_buf_char(out, '"');
        nb_buf_char(out, *text);
    }
    nb_buf_char(out, '"');
}

static void csv_cell(const cell *c, nb_buf *out)
{
    char text[40] = "";
    if (c->kind == CELL_INT) snprintf(text, sizeof text, "%" PRId64, c->integer);
    if (c->kind == CELL_BOOL) snprintf(text, sizeof text, "%s", c->integer ? "true" : "false");
    if ((c->kind == CELL_NUMBER || c->kind == CELL_PAIR) && isfinite(c->number))
        snprintf(text, sizeof text, "%.17g", c->number);
    csv_field(out, (c->kind == CELL_TEXT || c->kind == CELL_JSON) && c->text ? c->text : text);
}

static void print_csv(const nb_table *t, nb_buf *out)
{
    const char *comma = "";
    for (size_t c = 0; c < t->count; c++) {
        if (!t->columns[c].key) continue;
        nb_buf_str(out, comma);
        csv_field(out, t->columns[c].key);
        comma = ",";
    }
    nb_buf_char(out, '\n');
    for (size_t r = 0; r < nb_table_rows(t); r++) {
        comma = "";
        for (size_t c = 0; c < t->count; c++) {
            if (!t->columns[c].key) continue;
            nb_buf_str(out, comma);
            csv_cell(&t->cells[r * t->count + c], out);
            comma = ",";
        }
        nb_buf_char(out, '\n');
    }
}

static void json_row(const nb_table *t, size_t r, nb_emit *e)
{
    nb_emit_open(e, NULL, '{');
    for (size_t c = 0; c < t->count; c++) {
        const char *key = t->columns[c].key;
        const cell *v = &t->cells[r * t->count + c];
        if (!key) continue;
        switch (v->kind) {
        case CELL_EMPTY: nb_emit_raw(e, key, "null"); break;
        case CELL_TEXT: nb_emit_string(e, key, v->text); break;
        case CELL_JSON: nb_emit_raw(e, key, v->text ? v->text : "null"); break;
        case CELL_INT: nb_emit_int(e, key, v->integer); break;
        case CELL_BOOL: nb_emit_bool(e, key, v->integer != 0); break;
        case CELL_NUMBER:
        case CELL_PAIR: nb_emit_number(e, key, v->number); break;
        }
    }
    nb_emit_close(e);
}

void nb_table_print(const nb_table *t, nb_table_format format, nb_buf *out)
{
    if (t->failed) {
        out->failed = true;
        return;
    }
    nb_emit e = nb_emit_start(out, format == NB_TABLE_JSON);
    switch (format) {
    case NB_TABLE_MD: print_md(t, out); break;
    case NB_TABLE_CSV: print_csv(t, out); break;
    case NB_TABLE_JSON:
        nb_emit_open(&e, NULL, '[');
        for (size_t r = 0; r < nb_table_rows(t); r++) json_row(t, r, &e);
        nb_emit_close(&e);
        break;
    case NB_TABLE_JSONL:
        for (size_t r = 0; r < nb_table_rows(t); r++) json_row(t, r, &e);
        break;
    }
}
