/* split.c - a scanner written by hand from the Qwen2 pattern; the alternatives are tried in its order.
 *
 *     (?i:'s|'t|'re|'ve|'m|'ll|'d) | [^\r\n\p{L}\p{N}]?\p{L}+ | \p{N} | ?[^\s\p{L}\p{N}]+[\r\n]* | \s*[\r\n]+ | \s+(?!\S) | \s+
 *
 * No regular-expression engine: every alternative is decided by the classes of the first two characters and a run, so
 * there is nothing to backtrack over.  A byte that is not UTF-8 counts as a character of its own that is neither space,
 * letter nor number.
 *
 * The classes are those of the published tokenizer (Unicode 16); utf8proc may know an older Unicode, so what it lacks is
 * listed here (made by tests/oracle/tokenizer_oracle.py classes, which asks that tokenizer about every code point).
 */
#include "runtime/text/split.h"

#include <stdbool.h>
#include <stdint.h>

#include <utf8proc.h>

#include "kernels/base.h"
#include "runtime/text/code_point.h"

const char nb_split_pattern[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
                                "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

typedef enum { OTHER, LETTER, NUMBER, SPACE, NEWLINE } char_class; /* SPACE: \s but CR and LF */

static const int32_t new_letters[][2] = {
    {0x1C89, 0x1C8A},   {0xA7CB, 0xA7CD},   {0xA7DA, 0xA7DC},   {0x105C0, 0x105F3}, {0x10D4A, 0x10D65}, {0x10D6F, 0x10D85},
    {0x10EC2, 0x10EC4}, {0x11380, 0x11389}, {0x1138B, 0x1138B}, {0x1138E, 0x1138E}, {0x11390, 0x113B5}, {0x113B7, 0x113B7},
    {0x113D1, 0x113D1}, {0x113D3, 0x113D3}, {0x11BC0, 0x11BE0}, {0x13460, 0x143FA}, {0x16100, 0x1611D}, {0x16D40, 0x16D6C},
    {0x18CFF, 0x18CFF}, {0x1E5D0, 0x1E5ED}, {0x1E5F0, 0x1E5F0}, {0x2EBF0, 0x2EE5D},
};
static const int32_t new_numbers[][2] = {
    {0x10D40, 0x10D49}, {0x116D0, 0x116E3}, {0x11BF0, 0x11BF9}, {0x16130, 0x16139},
    {0x16D70, 0x16D79}, {0x1CCF0, 0x1CCF9}, {0x1E5F1, 0x1E5FA},
};

static bool listed(const int32_t (*ranges)[2], size_t count, int32_t code)
{
    for (size_t i = 0; i < count && ranges[i][0] <= code; i++) /* in increasing order */
        if (code <= ranges[i][1]) return true;
    return false;
}

static char_class classify(int32_t code)
{
    if (code < 0x80) {
        if ((code | 32) >= 'a' && (code | 32) <= 'z') return LETTER;
        if (code >= '0' && code <= '9') return NUMBER;
        if (code == '\r' || code == '\n') return NEWLINE;
        return code == ' ' || (code >= 0x09 && code <= 0x0D) ? SPACE : OTHER;
    }
    if ((code >= 0x4E00 && code <= 0x9FFF) || (code >= 0xAC00 && code <= 0xD7A3)) return LETTER; /* Han, Hangul */
    if (code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
        code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000)
        return SPACE;
    switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_LU: case UTF8PROC_CATEGORY_LL: case UTF8PROC_CATEGORY_LT: case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return LETTER;
    case UTF8PROC_CATEGORY_ND: case UTF8PROC_CATEGORY_NL: case UTF8PROC_CATEGORY_NO:
        return NUMBER;
    case UTF8PROC_CATEGORY_CN: /* unassigned, as far as utf8proc knows */
        if (listed(new_letters, NB_COUNT(new_letters), code)) return LETTER;
        if (listed(new_numbers, NB_COUNT(new_numbers), code)) return NUMBER;
        return OTHER;
    default:
        return OTHER;
    }
}

/* Class and length of the character at s[0..n), n >= 1. */
static size_t read_char(const char *s, size_t n, char_class *class)
{
    int32_t code;
    int     length = nb_utf8_step(s, n, &code);
    if (code < 0) {
        *class = OTHER;
        return 1;
    }
    *class = classify(code);
    return (size_t)length;
}

/* End of the run of characters of class `want` that starts at `at`. */
static size_t run_end(const char *s, size_t at, size_t n, char_class want)
{
    while (at < n) {
        char_class class;
        size_t     length = read_char(s + at, n - at, &class);
        if (class != want) break;
        at += length;
    }
    return at;
}

/* Length of 's 't 're 've 'm 'll 'd at s, in any case, or 0.  U+017F (long s) folds to s. */
static size_t contraction(const char *s, size_t n)
{
    if (n < 2 || s[0] != '\'') return 0;
    char a = s[1] | 32, b = n > 2 ? s[2] | 32 : 0;
    if (s[1] >= 'A' && (a == 's' || a == 't' || a == 'm' || a == 'd')) return 2;
    bool two = (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l');
    if (n > 2 && s[1] >= 'A' && s[2] >= 'A' && two) return 3;
    if (n > 2 && (uint8_t)s[1] == 0xC5 && (uint8_t)s[2] == 0xBF) return 3;
    return 0;
}

/* The last three alternatives, on the whitespace run that starts at 0. */
static size_t split_space(const char *s, size_t n)
{
    size_t end = 0, newline_end = 0, last = 0; /* last: where the run's last character begins */
    while (end < n) {
        char_class class;
        size_t     length = read_char(s + end, n - end, &class);
        if (class != SPACE && class != NEWLINE) break;
        last = end;
        end += length;
        if (class == NEWLINE) newline_end = end;
    }
    if (newline_end) return newline_end; /* \s*[\r\n]+ : to the last line break of the run */
    if (end == n || last == 0) return end;
    return last; /* \s+(?!\S) : leaves one space for what follows */
}

size_t nb_split_next(const char *s, size_t n)
{
    size_t length = contraction(s, n);
    if (length) return length;
    char_class first, second = SPACE;
    length = read_char(s, n, &first);
    if (first == LETTER) return run_end(s, length, n, LETTER);
    if (first == NUMBER) return length;
    if (length < n) {
        read_char(s + length, n - length, &second);
        if (first != NEWLINE && second == LETTER) return run_end(s, length, n, LETTER);
    }
    bool space = s[0] == ' ' && length < n && second == OTHER;
    if (first == OTHER || space) return run_end(s, run_end(s, space ? 1 : 0, n, OTHER), n, NEWLINE);
    return split_space(s, n);
}
