/* grammar_rules.c - see grammar_rules.h. */
#include "runtime/engine/grammar_rules.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void nb_rules_free(nb_rules *r)
{
    free(r->elements);
    free(r->sets);
    free(r->alternatives);
    free(r->rules);
    memset(r, 0, sizeof *r);
}

void nb_rules_fail(nb_rules *r, nb_status status, const char *format, ...)
{
    char    text[512];
    va_list args;
    if (r->failure.status) return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    nb_fail(&r->failure, status, "%s", text);
}

nb_status nb_rules_status(const nb_rules *r, nb_error *err)
{
    return r->failure.status ? nb_fail(err, r->failure.status, "%s", r->failure.text) : NB_OK;
}

static bool room(nb_rules *r, void *array, size_t *capacity, size_t count, size_t size)
{
    if (r->failure.status) return false;
    if (count >= NB_RULES_MAX) nb_rules_fail(r, NB_ERR_BUDGET, "the form that is asked for is too large: it has more than %d parts", NB_RULES_MAX);
    else nb_grow(array, capacity, count + 1, size, "a grammar", &r->failure);
    return !r->failure.status;
}

static void push(nb_rules *r, nb_symbol s)
{
    if (room(r, &r->elements, &r->element_capacity, r->element_count, sizeof *r->elements)) r->elements[r->element_count++] = s;
}

nb_symbol nb_rule_declare(nb_rules *r)
{
    if (!room(r, &r->rules, &r->rule_capacity, r->rule_count, sizeof *r->rules)) return (nb_symbol){ 0, NB_SYMBOL_END };
    r->rules[r->rule_count] = 0;
    return (nb_symbol){ (uint32_t)r->rule_count++, NB_SYMBOL_RULE };
}

void nb_rule_add(nb_rules *r, nb_symbol rule, const nb_symbol *sequence, size_t n)
{
    size_t start = r->element_count;
    for (size_t i = 0; i < n; i++) push(r, sequence[i]);
    push(r, (nb_symbol){ 0, NB_SYMBOL_END });
    if (!room(r, &r->alternatives, &r->alternative_capacity, r->alternative_count, sizeof *r->alternatives)) return;
    /* Behind those that are there: the order of a choice is the order of its source. */
    uint32_t *at = &r->rules[rule.ref];
    while (*at) at = &r->alternatives[*at - 1].next;
    r->alternatives[r->alternative_count].start = (uint32_t)start;
    r->alternatives[r->alternative_count].next = 0;
    *at = (uint32_t)++r->alternative_count;
}

nb_symbol nb_symbol_bytes(nb_rules *r, const nb_byte_set *set)
{
    for (size_t i = r->set_count; i-- > 0 && i + 64 > r->set_count;)
        if (!memcmp(&r->sets[i], set, sizeof *set)) return (nb_symbol){ (uint32_t)i, NB_SYMBOL_BYTES };
    if (!room(r, &r->sets, &r->set_capacity, r->set_count, sizeof *r->sets)) return (nb_symbol){ 0, NB_SYMBOL_END };
    r->sets[r->set_count] = *set;
    return (nb_symbol){ (uint32_t)r->set_count++, NB_SYMBOL_BYTES };
}

nb_symbol nb_symbol_byte(nb_rules *r, uint8_t byte)
{
    nb_byte_set set = { { 0 } };
    nb_byte_set_add(&set, byte);
    return nb_symbol_bytes(r, &set);
}

nb_symbol nb_symbol_sequence(nb_rules *r, const nb_symbol *parts, size_t n)
{
    if (n == 1) return parts[0];
    nb_symbol rule = nb_rule_declare(r);
    if (!r->failure.status) nb_rule_add(r, rule, parts, n);
    return rule;
}

nb_symbol nb_symbol_text(nb_rules *r, const char *text, size_t n)
{
    if (n == 1) return nb_symbol_byte(r, (uint8_t)text[0]);
    nb_symbol rule = nb_rule_declare(r), *all = malloc((n + 1) * sizeof *all);
    if (!all) nb_rules_fail(r, NB_ERR_MEMORY, "out of memory for a grammar");
    for (size_t i = 0; all && i < n; i++) all[i] = nb_symbol_byte(r, (uint8_t)text[i]);
    if (!r->failure.status) nb_rule_add(r, rule, all, n);
    free(all);
    return rule;
}

nb_symbol nb_symbol_choice(nb_rules *r, const nb_symbol *parts, size_t n)
{
    if (n == 1) return parts[0];
    nb_symbol rule = nb_rule_declare(r);
    for (size_t i = 0; i < n && !r->failure.status; i++) nb_rule_add(r, rule, &parts[i], 1);
    return rule;
}

nb_symbol nb_symbol_optional(nb_rules *r, nb_symbol s)
{
    nb_symbol rule = nb_rule_declare(r);
    if (r->failure.status) return rule;
    nb_rule_add(r, rule, &s, 1);
    nb_rule_add(r, rule, NULL, 0);
    return rule;
}

nb_symbol nb_symbol_repeat(nb_rules *r, nb_symbol s, int min, int max)
{
    nb_symbol rest = nb_rule_declare(r);
    if (r->failure.status) return rest;
    if (max < 0) { /* rest = s rest | nothing */
        nb_rule_add(r, rest, (nb_symbol[]){ s, rest }, 2);
        nb_rule_add(r, rest, NULL, 0);
    } else { /* s (s (s ...)?)? from the inside out */
        nb_rule_add(r, rest, NULL, 0);
        for (int i = min; i < max && !r->failure.status; i++) {
            nb_symbol outer = nb_rule_declare(r);
            if (r->failure.status) break;
            nb_rule_add(r, outer, (nb_symbol[]){ s, rest }, 2);
            nb_rule_add(r, outer, NULL, 0);
            rest = outer;
        }
    }
    for (int i = 0; i < min && !r->failure.status; i++) rest = nb_symbol_sequence(r, (nb_symbol[]){ s, rest }, 2);
    return rest;
}

/* ---- UTF-8 --------------------------------------------------------------------------------------------------------------- */

static int encode(uint32_t c, uint8_t out[4])
{
    if (c < 0x80) return out[0] = (uint8_t)c, 1;
    if (c < 0x800) return out[0] = (uint8_t)(0xC0 | c >> 6), out[1] = (uint8_t)(0x80 | (c & 63)), 2;
    if (c < 0x10000)
        return out[0] = (uint8_t)(0xE0 | c >> 12), out[1] = (uint8_t)(0x80 | (c >> 6 & 63)), out[2] = (uint8_t)(0x80 | (c & 63)), 3;
    out[0] = (uint8_t)(0xF0 | c >> 18);
    out[1] = (uint8_t)(0x80 | (c >> 12 & 63));
    out[2] = (uint8_t)(0x80 | (c >> 6 & 63));
    out[3] = (uint8_t)(0x80 | (c & 63));
    return 4;
}

static nb_symbol byte_range(nb_rules *r, uint8_t from, uint8_t to)
{
    nb_byte_set set = { { 0 } };
    for (int b = from; b <= to; b++) nb_byte_set_add(&set, (uint8_t)b);
    return nb_symbol_bytes(r, &set);
}

/* Sequences of bytes between two encodings of the same length: cut where the tails are not whole blocks. */
static void add_range(nb_rules *r, nb_symbol choice, uint32_t from, uint32_t to)
{
    static const uint32_t last_of_length[] = { 0x7F, 0x7FF, 0xFFFF, 0x10FFFF };
    if (from > to || r->failure.status) return;
    for (int i = 0; i < 3; i++)
        if (from <= last_of_length[i] && to > last_of_length[i]) {
            add_range(r, choice, from, last_of_length[i]);
            add_range(r, choice, last_of_length[i] + 1, to);
            return;
        }
    uint8_t a[4], b[4];
    int     n = encode(from, a);
    for (int i = 1; i < n; i++) { /* the last i bytes: whole blocks of 64^i */
        uint32_t block = (1u << 6 * i) - 1;
        if ((from & ~block) == (to & ~block)) continue;
        if (from & block) {
            add_range(r, choice, from, from | block);
            add_range(r, choice, (from | block) + 1, to);
            return;
        }
        if ((to & block) != block) {
            add_range(r, choice, from, (to & ~block) - 1);
            add_range(r, choice, to & ~block, to);
            return;
        }
    }
    nb_symbol bytes[4];
    encode(to, b);
    for (int i = 0; i < n; i++) bytes[i] = byte_range(r, a[i], b[i]);
    nb_rule_add(r, choice, bytes, (size_t)n);
}

nb_symbol nb_symbol_characters(nb_rules *r, const uint32_t (*ranges)[2], size_t n)
{
    nb_symbol choice = nb_rule_declare(r);
    for (size_t i = 0; i < n; i++) { /* surrogates have no encoding */
        uint32_t from = ranges[i][0], to = ranges[i][1];
        if (from < 0xD800 && to >= 0xD800) {
            add_range(r, choice, from, 0xD7FF);
            from = 0xE000;
        } else if (from >= 0xD800 && from < 0xE000) {
            from = 0xE000;
        }
        if (to >= 0xD800 && to < 0xE000) to = 0xD7FF;
        add_range(r, choice, from, to);
    }
    return choice;
}
