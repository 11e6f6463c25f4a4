/* literal.c - see literal.h. */
#include "runtime/io/literal.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

void nb_list_free(nb_list *l)
{
    for (size_t i = 0; i < l->count; i++) free(l->items[i]);
    free(l->items);
    memset(l, 0, sizeof *l);
}

static nb_status push(nb_list *l, const char *text, size_t n, nb_error *err)
{
    NB_TRY(nb_grow(&l->items, &l->capacity, l->count + 1, sizeof *l->items, "a list", err));
    char *item = malloc(n + 1);
    if (!item) return nb_fail(err, NB_ERR_MEMORY, "no memory for a list item of %zu bytes", n);
    if (n) memcpy(item, text, n);
    item[n] = 0;
    l->items[l->count++] = item;
    return NB_OK;
}

static void add_code_point(nb_buf *b, unsigned c)
{
    if (c < 0x80) {
        nb_buf_char(b, (char)c);
    } else if (c < 0x800) {
        nb_buf_char(b, (char)(0xc0 | c >> 6));
        nb_buf_char(b, (char)(0x80 | (c & 63)));
    } else {
        nb_buf_char(b, (char)(0xe0 | c >> 12));
        nb_buf_char(b, (char)(0x80 | (c >> 6 & 63)));
        nb_buf_char(b, (char)(0x80 | (c & 63)));
    }
}

/* The character after a backslash; returns how many bytes were used, 0 when the escape is not one. */
static size_t escape(nb_buf *b, const char *s)
{
    static const char from[] = "nrt\\'\"abfv0", to[] = "\n\r\t\\'\"\a\b\f\v";
    const char       *at = *s ? strchr(from, *s) : NULL;
    if (at && *s != '0') {
        nb_buf_char(b, to[at - from]);
        return 1;
    }
    size_t digits = *s == 'x' ? 2 : *s == 'u' ? 4 : 0;
    if (!digits) return 0;
    char hex[5] = { 0 };
    for (size_t i = 0; i < digits; i++) {
        if (!isxdigit((unsigned char)s[1 + i])) return 0;
        hex[i] = s[1 + i];
    }
    add_code_point(b, (unsigned)strtoul(hex, NULL, 16));
    return 1 + digits;
}

/* One quoted item at s (which is the quote); NULL when it is not well formed. */
static const char *quoted(nb_buf *b, const char *s)
{
    char quote = *s++;
    while (*s && *s != quote) {
        if (*s != '\\') {
            nb_buf_char(b, *s++);
            continue;
        }
        size_t used = escape(b, s + 1);
        if (used == 0) nb_buf_char(b, '\\'); /* Python keeps an unknown escape as it is */
        s += 1 + used;
    }
    return *s == quote ? s + 1 : NULL;
}

static const char *blank(const char *s)
{
    while (*s && isspace((unsigned char)*s)) s++;
    return s;
}

/* True when the whole text was a list. */
static nb_status parse(nb_list *l, const char *s, nb_buf *b, bool *is_list, nb_error *err)
{
    *is_list = false;
    s = blank(s);
    if (*s++ != '[') return NB_OK;
    for (s = blank(s); *s && *s != ']';) {
        nb_buf_clear(b);
        if (*s == '\'' || *s == '"') {
            s = quoted(b, s);
            if (!s) return NB_OK;
        } else {
            while (*s && *s != ',' && *s != ']') nb_buf_char(b, *s++);
            while (b->size && isspace((unsigned char)b->data[b->size - 1])) b->size--;
            if (b->size == 0) return NB_OK;
        }
        NB_TRY(nb_buf_status(b, "a list", err));
        NB_TRY(push(l, b->data ? b->data : "", b->size, err));
        s = blank(s);
        if (*s == ',')
            s = blank(s + 1);
        else if (*s != ']')
            return NB_OK;
    }
    *is_list = *s == ']' && !*blank(s + 1);
    return NB_OK;
}

nb_status nb_list_parse(nb_list *out, const char *text, nb_error *err)
{
    nb_buf b = { 0 };
    bool   is_list;
    memset(out, 0, sizeof *out);
    nb_status status = parse(out, text, &b, &is_list, err);
    nb_buf_free(&b);
    if (status == NB_OK && !is_list) {
        nb_list_free(out);
        status = push(out, text, strlen(text), err);
    }
    if (status != NB_OK) nb_list_free(out);
    return status;
}
