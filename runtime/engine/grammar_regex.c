/* grammar_regex.c - regular expressions to rules: a reader of one pass over the pattern, code point by code point.
 *
 * A set of characters is a list of ranges of code points, kept sorted and apart.  Inside a JSON string a pattern speaks of the text
 * after unescaping: what needs an escape there is written with it (a quote, a backslash), control characters are left out of sets.
 */
#include <stdlib.h>
#include <string.h>

#include "runtime/engine/grammar_rules.h"
#include "runtime/text/code_point.h"

enum { MAX_DEPTH = 64, MAX_REPEAT = 10000, MAX_RANGES = 512, LAST = 0x10FFFF };

typedef struct {
    uint32_t range[MAX_RANGES][2];
    size_t   count;
} char_set;

typedef struct {
    nb_rules   *r;
    const char *at, *end, *begin;
    bool        in_string;
    int         depth;
} reader;

static void bad(reader *p, const char *what)
{
    nb_rules_fail(p->r, NB_ERR_INPUT, "the pattern at character %zu: %s", (size_t)(p->at - p->begin) + 1, what);
}

/* ---- sets ---------------------------------------------------------------------------------------------------------------- */

static void set_add(reader *p, char_set *s, uint32_t from, uint32_t to)
{
    if (from > to) bad(p, "a range that ends before it begins");
    else if (s->count == MAX_RANGES) bad(p, "too many ranges in a class");
    else s->range[s->count][0] = from, s->range[s->count++][1] = to;
}

static int by_start(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return (x[0] > y[0]) - (x[0] < y[0]);
}

static void set_sort(char_set *s)
{
    size_t n = 0;
    qsort(s->range, s->count, sizeof s->range[0], by_start);
    for (size_t i = 0; i < s->count; i++) {
        if (n && s->range[i][0] <= s->range[n - 1][1] + 1) {
            if (s->range[i][1] > s->range[n - 1][1]) s->range[n - 1][1] = s->range[i][1];
        } else {
            s->range[n][0] = s->range[i][0];
            s->range[n++][1] = s->range[i][1];
        }
    }
    s->count = n;
}

static void set_invert(reader *p, char_set *s)
{
    char_set out = { .count = 0 };
    uint32_t from = 0;
    set_sort(s);
    for (size_t i = 0; i < s->count; i++) {
        if (s->range[i][0] > from) set_add(p, &out, from, s->range[i][0] - 1);
        from = s->range[i][1] + 1;
    }
    if (from <= LAST) set_add(p, &out, from, LAST);
    *s = out;
}

/* \d \w \s as in ECMA regular expressions without the unicode flag's extras. */
static void set_named(reader *p, char_set *s, char name)
{
    switch (name) {
    case 'd': set_add(p, s, '0', '9'); break;
    case 'w':
        set_add(p, s, '0', '9');
        set_add(p, s, 'A', 'Z');
        set_add(p, s, '_', '_');
        set_add(p, s, 'a', 'z');
        break;
    default:
        set_add(p, s, '\t', '\r');
        set_add(p, s, ' ', ' ');
        set_add(p, s, 0xA0, 0xA0);
        break;
    }
}

static void set_remove_escaped(reader *p, char_set *s)
{
    char_set without = { .count = 0 };
    set_sort(s);
    for (size_t i = 0; i < s->count; i++) {
        uint32_t from = s->range[i][0], to = s->range[i][1];
        static const uint32_t cuts[] = { '"', '\\' };
        if (from < 0x20) from = 0x20;
        for (size_t k = 0; k < NB_COUNT(cuts) && from <= to; k++)
            if (from <= cuts[k] && cuts[k] <= to) {
                if (from < cuts[k]) set_add(p, &without, from, cuts[k] - 1);
                from = cuts[k] + 1;
            }
        if (from <= to) set_add(p, &without, from, to);
    }
    *s = without;
}

static nb_symbol set_symbol(reader *p, char_set *s)
{
    nb_symbol parts[3];
    size_t    n = 0;
    bool      quote = false, backslash = false;
    set_sort(s);
    for (size_t i = 0; p->in_string && i < s->count; i++) {
        quote |= s->range[i][0] <= '"' && '"' <= s->range[i][1];
        backslash |= s->range[i][0] <= '\\' && '\\' <= s->range[i][1];
    }
    if (p->in_string) set_remove_escaped(p, s);
    if (quote) parts[n++] = nb_symbol_text(p->r, "\\\"", 2);
    if (backslash) parts[n++] = nb_symbol_text(p->r, "\\\\", 2);
    if (s->count) parts[n++] = nb_symbol_characters(p->r, (const uint32_t(*)[2])s->range, s->count);
    if (n == 0) {
        bad(p, "a set in which no character is left");
        return (nb_symbol){ 0, NB_SYMBOL_END };
    }
    return nb_symbol_choice(p->r, parts, n);
}

/* ---- reading ------------------------------------------------------------------------------------------------------------- */

static uint32_t next_character(reader *p)
{
    int32_t code;
    int     n = nb_utf8_step(p->at, (size_t)(p->end - p->at), &code);
    if (n <= 0) {
        bad(p, "not UTF-8");
        p->at = p->end;
        return 0;
    }
    p->at += n;
    return (uint32_t)code;
}

static uint32_t hex(reader *p, int digits)
{
    uint32_t v = 0;
    for (int i = 0; i < digits; i++) {
        char c = p->at < p->end ? *p->at++ : 0;
        if (c >= '0' && c <= '9') v = v * 16 + (uint32_t)(c - '0');
        else if ((c | 32) >= 'a' && (c | 32) <= 'f') v = v * 16 + (uint32_t)((c | 32) - 'a' + 10);
        else return bad(p, "an escape needs hexadecimal digits"), 0;
    }
    return v;
}

/* After a backslash: a set (true), or one character. */
static bool escape(reader *p, char_set *s, uint32_t *one)
{
    if (p->at == p->end) return bad(p, "a backslash at the end"), false;
    uint32_t c = next_character(p);
    switch (c) {
    case 'd': case 'w': case 's': return set_named(p, s, (char)c), true;
    case 'D': case 'W': case 'S':
        set_named(p, s, (char)(c | 32));
        set_invert(p, s);
        return true;
    case 'n': *one = '\n'; return false;
    case 'r': *one = '\r'; return false;
    case 't': *one = '\t'; return false;
    case 'f': *one = '\f'; return false;
    case 'v': *one = '\v'; return false;
    case '0': *one = 0; return false;
    case 'x': *one = hex(p, 2); return false;
    case 'u': *one = hex(p, 4); return false;
    default:
        if ((c >= '1' && c <= '9') || (c < 128 && ((c | 32) >= 'a' && (c | 32) <= 'z')))
            nb_rules_fail(p->r, NB_ERR_UNSUPPORTED, "the pattern at character %zu: \\%c is not supported", (size_t)(p->at - p->begin), (char)c);
        *one = c;
        return false;
    }
}

static nb_symbol class_atom(reader *p)
{
    char_set s = { .count = 0 };
    bool     inverted = p->at < p->end && *p->at == '^';
    p->at += inverted;
    for (bool first = true; !p->r->failure.status; first = false) {
        char_set named = { .count = 0 };
        uint32_t from = 0, to;
        if (p->at == p->end) {
            bad(p, "a class that is not closed");
            break;
        }
        if (*p->at == ']' && !first) {
            p->at++;
            break;
        }
        if (*p->at == '\\') {
            p->at++;
            if (escape(p, &named, &from)) {
                for (size_t i = 0; i < named.count; i++) set_add(p, &s, named.range[i][0], named.range[i][1]);
                continue;
            }
        } else {
            from = next_character(p);
        }
        to = from;
        if (p->end - p->at >= 2 && *p->at == '-' && p->at[1] != ']') {
            p->at++;
            if (*p->at == '\\') {
                p->at++;
                if (escape(p, &named, &to)) bad(p, "a range that ends in a set");
            } else {
                to = next_character(p);
            }
        }
        set_add(p, &s, from, to);
    }
    if (inverted) set_invert(p, &s);
    return p->r->failure.status ? (nb_symbol){ 0, NB_SYMBOL_END } : set_symbol(p, &s);
}

static nb_symbol alternatives(reader *p);

static nb_symbol atom(reader *p)
{
    char_set s = { .count = 0 };
    uint32_t one = 0;
    char     c = *p->at;
    if (c == '(') {
        p->at++;
        if (p->end - p->at >= 2 && !strncmp(p->at, "?:", 2)) p->at += 2;
        else if (p->at < p->end && *p->at == '?') nb_rules_fail(p->r, NB_ERR_UNSUPPORTED, "the pattern: (?...) groups are not supported");
        if (++p->depth > MAX_DEPTH) bad(p, "groups nested too deep");
        nb_symbol inner = alternatives(p);
        p->depth--;
        if (p->at == p->end || *p->at != ')') bad(p, "a group that is not closed");
        else p->at++;
        return inner;
    }
    if (c == '[') return p->at++, class_atom(p);
    if (c == '.') {
        p->at++;
        set_add(p, &s, 0, '\n' - 1);
        set_add(p, &s, '\n' + 1, LAST);
        return set_symbol(p, &s);
    }
    if (c == '\\') {
        p->at++;
        if (escape(p, &s, &one)) return set_symbol(p, &s);
    } else {
        if (strchr("*+?{}^$", c)) bad(p, "this character needs a backslash here");
        one = next_character(p);
    }
    set_add(p, &s, one, one);
    return p->r->failure.status ? (nb_symbol){ 0, NB_SYMBOL_END } : set_symbol(p, &s);
}

static bool number(reader *p, int *out)
{
    const char *from = p->at;
    for (*out = 0; p->at < p->end && *p->at >= '0' && *p->at <= '9' && *out <= MAX_REPEAT; p->at++) *out = *out * 10 + (*p->at - '0');
    if (*out > MAX_REPEAT) bad(p, "a repetition beyond 10000");
    return p->at > from;
}

static nb_symbol quantified(reader *p, nb_symbol s)
{
    int min = 1, max = 1;
    if (p->at == p->end) return s;
    switch (*p->at) {
    case '*': min = 0, max = -1, p->at++; break;
    case '+': min = 1, max = -1, p->at++; break;
    case '?': min = 0, max = 1, p->at++; break;
    case '{':
        p->at++;
        if (!number(p, &min)) bad(p, "a repetition needs a number");
        max = min;
        if (p->at < p->end && *p->at == ',') {
            p->at++;
            if (!number(p, &max)) max = -1;
        }
        if (p->at == p->end || *p->at++ != '}') bad(p, "a repetition that is not closed");
        if (max >= 0 && max < min) bad(p, "a repetition whose most is less than its least");
        break;
    default: return s;
    }
    if (p->at < p->end && (*p->at == '?' || *p->at == '+')) p->at++; /* lazy, possessive: the same texts */
    return p->r->failure.status ? s : nb_symbol_repeat(p->r, s, min, max);
}

static nb_symbol sequence(reader *p)
{
    nb_symbol rule = nb_rule_declare(p->r), *parts = NULL;
    size_t    n = 0, capacity = 0;
    while (!p->r->failure.status && p->at < p->end && *p->at != '|' && *p->at != ')') {
        nb_symbol s = quantified(p, atom(p));
        if (nb_grow(&parts, &capacity, n + 1, sizeof *parts, "a pattern", &p->r->failure)) break;
        parts[n++] = s;
    }
    if (!p->r->failure.status) nb_rule_add(p->r, rule, parts, n);
    free(parts);
    return rule;
}

static nb_symbol alternatives(reader *p)
{
    nb_symbol first = sequence(p);
    if (p->at == p->end || *p->at != '|') return first;
    nb_symbol rule = nb_rule_declare(p->r);
    if (!p->r->failure.status) nb_rule_add(p->r, rule, &first, 1);
    while (!p->r->failure.status && p->at < p->end && *p->at == '|') {
        p->at++;
        nb_symbol next = sequence(p);
        if (!p->r->failure.status) nb_rule_add(p->r, rule, &next, 1);
    }
    return rule;
}

static nb_symbol read_pattern(nb_rules *r, const char *pattern, size_t n, bool in_string)
{
    reader    p = { .r = r, .at = pattern, .begin = pattern, .end = pattern + n, .in_string = in_string };
    nb_symbol whole[3], any = { 0, NB_SYMBOL_END };
    size_t    count = 0;
    bool      from_start = n > 0 && *p.at == '^';
    bool      to_end = n > 0 && p.end[-1] == '$' && (n < 2 || p.end[-2] != '\\');
    p.at += from_start;
    p.end -= to_end;
    if (p.at > p.end) p.end = p.at;
    if (in_string && !(from_start && to_end)) { /* a pattern of a schema may match anywhere */
        char_set s = { .count = 0 };
        set_add(&p, &s, 0x20, LAST);
        any = nb_symbol_repeat(r, set_symbol(&p, &s), 0, -1);
    }
    if (in_string && !from_start) whole[count++] = any;
    whole[count++] = alternatives(&p);
    if (!r->failure.status && p.at < p.end) bad(&p, "a closing parenthesis without an opening one");
    if (in_string && !to_end) whole[count++] = any;
    return nb_symbol_sequence(r, whole, count);
}

nb_symbol nb_rules_regex(nb_rules *r, const char *pattern, size_t n) { return read_pattern(r, pattern, n, false); }
nb_symbol nb_rules_regex_in_string(nb_rules *r, const char *pattern, size_t n) { return read_pattern(r, pattern, n, true); }
