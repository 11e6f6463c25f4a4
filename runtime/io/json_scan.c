/* json_scan.c - the JSON grammar as a small state machine: what may come next depends only on `expect` and on whether
 * the innermost bracket is an object, so nesting costs one bool a level and no stack.
 *
 * It is fast by treating a string as runs of plain ASCII; columns are counted only when something is wrong. */
#include "runtime/io/json_scan.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/utf8.h"

enum { VALUE, VALUE_OR_CLOSE, KEY, KEY_OR_CLOSE, AFTER_VALUE };

void nb_json_scan_begin(nb_json_scan *s, const char *text, size_t size, const char *name)
{
    *s = (nb_json_scan){.text = text, .size = size, .name = name, .line = 1, .column = 1, .expect = VALUE};
}

nb_status nb_json_scan_fail(const nb_json_scan *s, size_t at, nb_error *err, const char *format, ...)
{
    size_t line = s->line, column = s->column;
    for (size_t i = 0; i < at && i < s->size; i++) {
        if (s->text[i] == '\n') {
            line++;
            column = 1;
        } else if (((unsigned char)s->text[i] & 0xC0) != 0x80) {
            column++; /* a character, not its continuation bytes */
        }
    }
    char    what[400];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return nb_fail(err, NB_ERR_INPUT, "%s: line %zu, column %zu: %s", s->name, line, column, what);
}

/* "expected X" with what stands there instead. */
static nb_status unexpected(const nb_json_scan *s, const char *wanted, nb_error *err)
{
    if (s->at >= s->size) return nb_json_scan_fail(s, s->at, err, "the text ends where %s should be", wanted);
    unsigned char c = (unsigned char)s->text[s->at];
    if (s->at == 0 && s->size >= 3 && !memcmp(s->text, "\xEF\xBB\xBF", 3))
        return nb_json_scan_fail(s, 0, err, "the file begins with a byte order mark: save it as plain UTF-8");
    if (c > 0x20 && c < 0x7F) return nb_json_scan_fail(s, s->at, err, "expected %s, found '%c'", wanted, c);
    return nb_json_scan_fail(s, s->at, err, "expected %s, found byte 0x%02x", wanted, c);
}

static void skip_space(nb_json_scan *s)
{
    while (s->at < s->size && (s->text[s->at] == ' ' || s->text[s->at] == '\n' || s->text[s->at] == '\r' ||
                               s->text[s->at] == '\t'))
        s->at++;
}

/* Four hexadecimal digits at `at`, or -1. */
static int hex4(const nb_json_scan *s, size_t at)
{
    int v = 0;
    if (s->size - at < 4) return -1;
    for (size_t i = at; i < at + 4; i++) {
        char c = s->text[i];
        int  d = c >= '0' && c <= '9'   ? c - '0'
                 : c >= 'a' && c <= 'f' ? c - 'a' + 10
                 : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                        : -1;
        if (d < 0) return -1;
        v = v * 16 + d;
    }
    return v;
}

/* s->at is on a backslash. */
static nb_status scan_escape(nb_json_scan *s, nb_error *err)
{
    s->escaped = true;
    size_t at  = s->at;
    char   c   = at + 1 < s->size ? s->text[at + 1] : 0;
    if (c && strchr("\"\\/bfnrt", c)) {
        s->at += 2;
        return NB_OK;
    }
    if (c != 'u') return nb_json_scan_fail(s, at, err, "a backslash in a string must be followed by one of \"\\/bfnrtu");
    int unit = hex4(s, at + 2);
    if (unit < 0) return nb_json_scan_fail(s, at, err, "\\u must be followed by four hexadecimal digits");
    if (unit == 0) return nb_json_scan_fail(s, at, err, "\\u0000 (a NUL character) is not allowed in a string here");
    s->at += 6;
    if (unit < 0xD800 || unit > 0xDFFF) return NB_OK;
    bool pair = unit < 0xDC00 && s->size - s->at >= 6 && s->text[s->at] == '\\' && s->text[s->at + 1] == 'u';
    int  low  = pair ? hex4(s, s->at + 2) : -1;
    if (low < 0xDC00 || low > 0xDFFF) return nb_json_scan_fail(s, at, err, "\\u%04x is half of a surrogate pair", unit);
    s->at += 6;
    return NB_OK;
}

/* The first byte of [p, end) that is not printable ASCII, or is '"' or '\\', eight at a time.  A byte of v - n * 0x01.. borrows
 * into its top bit exactly where it is below n (and below 0x80); a borrow can only make later bytes look like stops, so on a
 * little-endian machine the lowest one is right. */
static const char *plain_run(const char *p, const char *end)
{
    const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
    for (; end - p >= 8; p += 8) {
        uint64_t x;
        memcpy(&x, p, 8);
        uint64_t quote = x ^ ones * '"', slash = x ^ ones * '\\';
        uint64_t stop = (((x - ones * 0x20) & ~x) | ((quote - ones) & ~quote) | ((slash - ones) & ~slash) | x) & high;
        if (!stop) continue;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        return p + (__builtin_ctzll(stop) >> 3);
#else
        break;
#endif
    }
    while (p < end && (unsigned char)*p >= 0x20 && (unsigned char)*p < 0x80 && *p != '"' && *p != '\\') p++;
    return p;
}

/* s->at is on the opening quote. */
static nb_status scan_string(nb_json_scan *s, nb_error *err)
{
    size_t open = s->at++;
    s->start    = s->at;
    s->escaped  = false;
    for (;;) {
        const char *end = s->text + s->size, *p = plain_run(s->text + s->at, end);
        s->at = (size_t)(p - s->text);
        if (p == end) return nb_json_scan_fail(s, open, err, "the string that begins here is never closed");
        if (*p == '"') break;
        if (*p == '\\') {
            NB_TRY(scan_escape(s, err));
            continue;
        }
        size_t n = nb_utf8_next(p, (size_t)(end - p));
        if (n == 0) return nb_json_scan_fail(s, s->at, err, "byte 0x%02x is not UTF-8", (unsigned char)*p);
        if ((unsigned char)*p < 0x20)
            return nb_json_scan_fail(s, s->at, err, "byte 0x%02x in a string must be escaped", (unsigned char)*p);
        s->at += n;
    }
    s->length = s->at++ - s->start;
    return NB_OK;
}

static size_t skip_digits(nb_json_scan *s)
{
    size_t from = s->at;
    while (s->at < s->size && s->text[s->at] >= '0' && s->text[s->at] <= '9') s->at++;
    return s->at - from;
}

static bool at_char(const nb_json_scan *s, const char *set)
{
    return s->at < s->size && s->text[s->at] && strchr(set, s->text[s->at]);
}

/* True when the digits overflow a double.  Only an exponent or hundreds of digits can do that. */
static bool overflows(const char *digits, size_t n, bool *known)
{
    char  small[64];
    char *copy = n < sizeof small ? small : malloc(n + 1);
    *known     = copy != NULL;
    if (!copy) return false;
    memcpy(copy, digits, n);
    copy[n]       = 0;
    bool infinite = isinf(strtod(copy, NULL));
    if (copy != small) free(copy);
    return infinite;
}

static nb_status scan_number(nb_json_scan *s, nb_error *err)
{
    bool exponent = false, known;
    s->start      = s->at;
    if (at_char(s, "-")) s->at++;
    size_t zero = s->at, whole = skip_digits(s);
    if (whole == 0) return unexpected(s, "a digit", err);
    if (whole > 1 && s->text[zero] == '0')
        return nb_json_scan_fail(s, zero, err, "a number must not begin with a superfluous zero");
    if (at_char(s, ".")) {
        s->at++;
        if (skip_digits(s) == 0) return unexpected(s, "a digit after the decimal point", err);
    }
    if (at_char(s, "eE")) {
        exponent = true;
        s->at++;
        if (at_char(s, "+-")) s->at++;
        if (skip_digits(s) == 0) return unexpected(s, "a digit of the exponent", err);
    }
    s->length = s->at - s->start;
    if (exponent || whole > 300) {
        if (overflows(s->text + s->start, s->length, &known))
            return nb_json_scan_fail(s, s->start, err, "the number is too large for a double");
        if (!known) return nb_fail(err, NB_ERR_MEMORY, "%s: no memory for a number of %zu digits", s->name, s->length);
    }
    return NB_OK;
}

static nb_status scan_word(nb_json_scan *s, const char *word, nb_error *err)
{
    size_t n  = strlen(word);
    s->start  = s->at;
    s->length = n;
    if (s->size - s->at < n || memcmp(s->text + s->at, word, n) != 0)
        return nb_json_scan_fail(s, s->at, err, "expected a value (true, false and null are the only bare words)");
    s->at += n;
    return NB_OK;
}

static nb_status open_bracket(nb_json_scan *s, bool object, nb_error *err)
{
    if (s->depth == NB_JSON_DEPTH) return nb_json_scan_fail(s, s->at, err, "nested deeper than %d levels", NB_JSON_DEPTH);
    s->nest[s->depth++] = object;
    s->token            = object ? NB_TOKEN_OBJECT : NB_TOKEN_ARRAY;
    s->expect           = object ? KEY_OR_CLOSE : VALUE_OR_CLOSE;
    s->start            = s->at++;
    s->length           = 1;
    return NB_OK;
}

static nb_status close_bracket(nb_json_scan *s)
{
    s->token  = s->nest[--s->depth] ? NB_TOKEN_OBJECT_END : NB_TOKEN_ARRAY_END;
    s->expect = AFTER_VALUE;
    s->start  = s->at++;
    s->length = 1;
    return NB_OK;
}

static nb_status scan_value(nb_json_scan *s, nb_error *err)
{
    char c    = s->at < s->size ? s->text[s->at] : 0;
    s->expect = AFTER_VALUE;
    switch (c) {
    case '{': return open_bracket(s, true, err);
    case '[': return open_bracket(s, false, err);
    case '"': s->token = NB_TOKEN_STRING; return scan_string(s, err);
    case 't': s->token = NB_TOKEN_TRUE; return scan_word(s, "true", err);
    case 'f': s->token = NB_TOKEN_FALSE; return scan_word(s, "false", err);
    case 'n': s->token = NB_TOKEN_NULL; return scan_word(s, "null", err);
    case 'N': case 'I': case 'T': case 'F':
        return nb_json_scan_fail(s, s->at, err, "expected a value (NaN, Infinity, None, True and False are not JSON)");
    case '-': case '0': case '1': case '2': case '3': case '4': case '5': case '6': case '7': case '8': case '9':
        s->token = NB_TOKEN_NUMBER;
        return scan_number(s, err);
    default: return unexpected(s, "a value", err);
    }
}

static nb_status scan_key(nb_json_scan *s, nb_error *err)
{
    if (!at_char(s, "\""))
        return unexpected(s, s->expect == KEY ? "a key in double quotes" : "a key in double quotes or '}'", err);
    NB_TRY(scan_string(s, err));
    skip_space(s);
    if (!at_char(s, ":")) return unexpected(s, "':' after the key", err);
    s->at++;
    s->token  = NB_TOKEN_KEY;
    s->expect = VALUE;
    return NB_OK;
}

nb_status nb_json_scan_next(nb_json_scan *s, nb_error *err)
{
    skip_space(s);
    if (s->expect == AFTER_VALUE) {
        if (s->depth == 0) {
            if (s->at < s->size) return unexpected(s, "nothing more after the value", err);
            s->token = NB_TOKEN_END;
            return NB_OK;
        }
        bool object = s->nest[s->depth - 1];
        if (at_char(s, object ? "}" : "]")) return close_bracket(s);
        if (!at_char(s, ",")) return unexpected(s, object ? "',' or '}'" : "',' or ']'", err);
        s->at++;
        s->expect = object ? KEY : VALUE;
        skip_space(s);
    }
    if (s->expect == VALUE_OR_CLOSE && at_char(s, "]")) return close_bracket(s);
    if (s->expect == KEY_OR_CLOSE && at_char(s, "}")) return close_bracket(s);
    if (s->expect == KEY || s->expect == KEY_OR_CLOSE) return scan_key(s, err);
    return scan_value(s, err);
}

/* ---- decoding -------------------------------------------------------------------------------------------------------- */

static char *add_utf8(char *out, unsigned code)
{
    if (code < 0x80) {
        *out++ = (char)code;
        return out;
    }
    int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3; /* continuation bytes */
    *out++ = (char)((0xFF80 >> more & 0xFF) | code >> 6 * more);
    while (more-- > 0) *out++ = (char)(0x80 | (code >> 6 * more & 0x3F));
    return out;
}

size_t nb_json_scan_decode(const nb_json_scan *s, char *out)
{
    const char *p = s->text + s->start, *end = p + s->length;
    char       *to = out;
    while (p < end) {
        const char *slash = s->escaped ? memchr(p, '\\', (size_t)(end - p)) : NULL;
        size_t      run = (size_t)((slash ? slash : end) - p);
        memcpy(to, p, run);
        to += run;
        p += run;
        if (p == end) break;
        if (p[1] != 'u') {
            static const char from[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
            *to++ = means[strchr(from, p[1]) - from];
            p += 2;
            continue;
        }
        unsigned code = (unsigned)hex4(s, (size_t)(p + 2 - s->text));
        p += 6;
        if (code >= 0xD800 && code <= 0xDFFF) { /* scan_escape made sure of the second half */
            code = 0x10000 + ((code - 0xD800) << 10) + ((unsigned)hex4(s, (size_t)(p + 2 - s->text)) - 0xDC00);
            p += 6;
        }
        to = add_utf8(to, code);
    }
    return (size_t)(to - out);
}

void nb_json_scan_string(const nb_json_scan *s, nb_buf *out)
{
    size_t from = out->size;
    nb_buf_add(out, s->text + s->start, s->length); /* as long as it can get */
    if (out->failed) return;
    out->size = from + nb_json_scan_decode(s, out->data + from);
    out->data[out->size] = 0;
}
