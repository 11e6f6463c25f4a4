/* normalize.c - NFC in linear time, on top of utf8proc's tables.
 *
 * utf8proc_map is not used: it refuses ill-formed bytes, and orders marks by swapping neighbours, which a long run of marks
 * makes quadratic.  Only the short stretches around a character that could change are taken apart; all else is copied.
 *
 * The published tokenizer normalizes with tables of about Unicode 9.  Marks that are newer are inert there: neither
 * reordered nor composed.  `newer_marks` lists them (made by tests/oracle/tokenizer_oracle.py classes).
 */
#include "runtime/text/normalize.h"

#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "runtime/text/code_point.h"

static const int32_t newer_marks[][2] = {
    {0x07FD, 0x07FD},   {0x0898, 0x089F},   {0x08CA, 0x08D3},   {0x09FE, 0x09FE},   {0x0C3C, 0x0C3C},   {0x0D3B, 0x0D3C},
    {0x0EBA, 0x0EBA},   {0x1715, 0x1715},   {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},   {0x10D24, 0x10D27},
    {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B},
    {0x1145E, 0x1145E}, {0x11839, 0x1183A}, {0x11930, 0x11930}, {0x1193D, 0x1193E}, {0x11943, 0x11943}, {0x119E0, 0x119E0},
    {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97},
    {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF},
    {0x1E4EC, 0x1E4EF},
};
/* Characters of combining class 0 that can be the second of a pair that composes. */
static const int32_t second_starters[][2] = {
    {0x09BE, 0x09BE}, {0x09D7, 0x09D7}, {0x0B3E, 0x0B3E}, {0x0B56, 0x0B57}, {0x0BBE, 0x0BBE}, {0x0BD7, 0x0BD7},
    {0x0CC2, 0x0CC2}, {0x0CD5, 0x0CD6}, {0x0D3E, 0x0D3E}, {0x0D57, 0x0D57}, {0x0DCF, 0x0DCF}, {0x0DDF, 0x0DDF},
    {0x102E, 0x102E}, {0x1161, 0x1175}, {0x11A8, 0x11C2}, {0x1B35, 0x1B35}, {0x11127, 0x11127}, {0x1133E, 0x1133E},
    {0x11357, 0x11357}, {0x114B0, 0x114B0}, {0x114BA, 0x114BA}, {0x114BD, 0x114BD}, {0x115AF, 0x115AF},
};

static bool listed(const int32_t (*ranges)[2], size_t count, int32_t code)
{
    for (size_t i = 0; i < count && ranges[i][0] <= code; i++) /* in increasing order */
        if (code <= ranges[i][1]) return true;
    return false;
}

enum { MOST_PARTS = 8 }; /* Unicode promises at most 4 for a canonical decomposition */

/* The full canonical decomposition, which is the character itself for most; returns its length. */
static size_t decompose(int32_t code, int32_t *parts)
{
    int              bound = 0;
    utf8proc_ssize_t count = utf8proc_decompose_char(code, parts, MOST_PARTS, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, &bound);
    if (count >= 1 && count <= MOST_PARTS) return (size_t)count;
    parts[0] = code;
    return 1;
}

/* What a character can do to its neighbours:
 *   PLAIN   stays as it is, and nothing before it reaches across it; may compose with what follows
 *   INERT   as PLAIN, and does not compose with what follows either
 *   OPENS   may change, but nothing before it reaches across it
 *   JOINS   may reorder or compose with what stands before it */
typedef enum { PLAIN, INERT, OPENS, JOINS } role;

static role role_of(int32_t code)
{
    if (code < 0) return INERT;
    if (code < 0x300 || (code >= 0x4E00 && code <= 0x9FFF) || (code >= 0xAC00 && code <= 0xD7A3)) return PLAIN;
    if (listed(newer_marks, NB_COUNT(newer_marks), code)) return INERT;
    int32_t parts[MOST_PARTS];
    size_t  count = decompose(code, parts);
    if (utf8proc_get_property(parts[0])->combining_class) return JOINS;
    if (listed(second_starters, NB_COUNT(second_starters), parts[0])) return JOINS;
    return count == 1 && parts[0] == code ? PLAIN : OPENS;
}

/* One character of text[0..n); an ill-formed byte is code -1, length 1. */
static size_t read_char(const char *text, size_t n, int32_t *code)
{
    int length = nb_utf8_step(text, n, code);
    return *code < 0 ? 1 : (size_t)length;
}

bool nb_nfc_quick_check(const char *text, size_t n)
{
    size_t i = 0;
    while (i < n) {
        if ((unsigned char)text[i] < 0x80) {
            i++;
            continue;
        }
        int32_t code;
        i += read_char(text + i, n - i, &code);
        if (role_of(code) >= OPENS) return false;
    }
    return true;
}

/* Canonical ordering: within each run of marks, a stable sort by combining class.  Counting sort, so that no run is slow.
 * spare: [count] scratch. */
static void order_marks(int32_t *codes, int32_t *spare, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t end = i;
        bool   sorted = true;
        for (int before = 0; end < count; end++) {
            int class = utf8proc_get_property(codes[end])->combining_class;
            if (!class) break;
            sorted = sorted && class >= before;
            before = class;
        }
        if (!sorted) {
            size_t place[257] = {0};
            for (size_t k = i; k < end; k++) place[utf8proc_get_property(codes[k])->combining_class + 1]++;
            for (int c = 1; c < 257; c++) place[c] += place[c - 1];
            for (size_t k = i; k < end; k++) spare[place[utf8proc_get_property(codes[k])->combining_class]++] = codes[k];
            memcpy(codes + i, spare, (end - i) * sizeof *codes);
        }
        i = end > i ? end - 1 : i;
    }
}

typedef struct {
    int32_t *codes, *spare;
    size_t   capacity, spare_capacity;
} scratch;

/* Decompose, order and compose text[0..n), which is well-formed and at whose ends nothing composes. */
static nb_status normalize_stretch(nb_buf *out, const char *text, size_t n, scratch *s, nb_error *err)
{
    size_t count = 0;
    for (size_t i = 0; i < n;) {
        int32_t code;
        i += read_char(text + i, n - i, &code);
        if (count + MOST_PARTS > s->capacity)
            NB_TRY(nb_grow(&s->codes, &s->capacity, count + MOST_PARTS, sizeof *s->codes, "characters to normalize", err));
        count += decompose(code, s->codes + count);
    }
    if (count > s->spare_capacity)
        NB_TRY(nb_grow(&s->spare, &s->spare_capacity, count, sizeof *s->spare, "characters to normalize", err));
    order_marks(s->codes, s->spare, count);
    utf8proc_ssize_t left =
        utf8proc_normalize_utf32(s->codes, (utf8proc_ssize_t)count, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    for (utf8proc_ssize_t i = 0; i < left; i++) {
        utf8proc_uint8_t bytes[4];
        nb_buf_add(out, bytes, (size_t)utf8proc_encode_char(s->codes[i], bytes));
    }
    return NB_OK;
}

static nb_status normalize_all(nb_buf *out, const char *text, size_t n, scratch *s, nb_error *err)
{
    size_t copied = 0;      /* text[0..copied) is in out */
    size_t starter = 0;     /* the character before i, when one can compose with what stands at i; otherwise i */
    for (size_t i = 0; i < n;) {
        int32_t code;
        size_t  length = read_char(text + i, n - i, &code);
        role    r = role_of(code);
        if (r == PLAIN || r == INERT) {
            starter = r == PLAIN ? i : i + length;
            i += length;
            continue;
        }
        size_t end = i + length; /* the stretch ends before the next character that nothing reaches across */
        while (end < n) {
            length = read_char(text + end, n - end, &code);
            if (role_of(code) != JOINS) break;
            end += length;
        }
        nb_buf_add(out, text + copied, starter - copied);
        NB_TRY(normalize_stretch(out, text + starter, end - starter, s, err));
        copied = starter = i = end;
    }
    nb_buf_add(out, text + copied, n - copied);
    return nb_buf_status(out, "normalized text", err);
}

nb_status nb_nfc(nb_buf *out, const char *text, size_t n, nb_error *err)
{
    scratch   s = {0};
    nb_status status = normalize_all(out, text, n, &s, err);
    free(s.codes);
    free(s.spare);
    return status;
}
