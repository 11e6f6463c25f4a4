/* grammar_rules.h - building rules over bytes: symbols that stand for a set of bytes or for a rule, put together like expressions.
 *
 * Symbols are small numbers and never freed one by one.  After the first failure (a limit, or memory) all calls do nothing and
 * nb_rules_status tells.
 */
#ifndef NB_GRAMMAR_RULES_H
#define NB_GRAMMAR_RULES_H

#include "runtime/engine/grammar.h"

enum { NB_RULES_MAX = 400000 /* elements: what a schema of 256 KiB needs, and what a bomb is stopped at */ };

typedef struct {
    uint32_t ref;
    enum { NB_SYMBOL_END, NB_SYMBOL_BYTES, NB_SYMBOL_RULE } kind;
} nb_symbol;

typedef struct {
    uint8_t bits[32]; /* of 256 bytes */
} nb_byte_set;

typedef struct {
    nb_symbol   *elements; /* sequences one after the other, each with an END */
    size_t       element_count, element_capacity;
    nb_byte_set *sets;
    size_t       set_count, set_capacity;
    struct {
        uint32_t start, next; /* of elements; alternative index + 1, 0: the last */
    }           *alternatives;
    size_t       alternative_count, alternative_capacity;
    uint32_t    *rules;    /* first alternative + 1 */
    size_t       rule_count, rule_capacity;
    nb_error     failure;  /* status NB_OK: none */
} nb_rules;

void      nb_rules_free(nb_rules *r);
nb_status nb_rules_status(const nb_rules *r, nb_error *err);
void      nb_rules_fail(nb_rules *r, nb_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

nb_symbol nb_rule_declare(nb_rules *r);                      /* without alternatives yet: for recursion */
void      nb_rule_add(nb_rules *r, nb_symbol rule, const nb_symbol *sequence, size_t n);

nb_symbol nb_symbol_bytes(nb_rules *r, const nb_byte_set *set);
nb_symbol nb_symbol_byte(nb_rules *r, uint8_t byte);
nb_symbol nb_symbol_text(nb_rules *r, const char *text, size_t n);
nb_symbol nb_symbol_sequence(nb_rules *r, const nb_symbol *parts, size_t n);
nb_symbol nb_symbol_choice(nb_rules *r, const nb_symbol *parts, size_t n);
nb_symbol nb_symbol_optional(nb_rules *r, nb_symbol s);
nb_symbol nb_symbol_repeat(nb_rules *r, nb_symbol s, int min, int max /* -1: no limit */);
/* UTF-8 of the code points in ranges [n][2], ascending, without surrogates. */
nb_symbol nb_symbol_characters(nb_rules *r, const uint32_t (*ranges)[2], size_t n);

static inline void nb_byte_set_add(nb_byte_set *s, uint8_t byte) { s->bits[byte / 8] |= (uint8_t)(1 << byte % 8); }
static inline bool nb_byte_set_has(const nb_byte_set *s, uint8_t byte) { return s->bits[byte / 8] >> byte % 8 & 1; }

/* The grammar whose texts are those of `start`.  Takes the rules over, also when it fails. */
nb_status nb_grammar_from_rules(nb_grammar **out, nb_rules *rules, nb_symbol start, const nb_token_trie *trie, nb_error *err);

/* The sources of rules, each a file of its own. */
nb_symbol nb_rules_regex(nb_rules *r, const char *pattern, size_t n);
/* The characters of a regex inside a JSON string: quotes, backslashes and control characters are not among them. */
nb_symbol nb_rules_regex_in_string(nb_rules *r, const char *pattern, size_t n);

#endif
