/* grammar.h - which tokens may come next, when an answer has to have a form: JSON, a JSON schema, a regular expression, one of some
 * texts.
 *
 * A grammar is rules over bytes without left recursion.  The state of an answer is the set of all stacks of things still to come; a
 * token is allowed when its bytes can be read from there.  Equal sets of stacks are one state, and what a state allows is computed
 * once: inside a string most tokens come again and again to the same few states.
 *
 * A grammar belongs to one thread.
 */
#ifndef NB_GRAMMAR_H
#define NB_GRAMMAR_H

#include "runtime/io/json.h"
#include "runtime/text/tokenizer.h"

typedef struct nb_grammar nb_grammar;
typedef struct nb_token_trie nb_token_trie;

/* The vocabulary by bytes, special tokens left out; shared, read-only.  ends [end_count]: the tokens that end an answer, allowed where it
 * is complete. */
nb_status nb_token_trie_new(nb_token_trie **out, const nb_tokenizer *tokenizer, int vocab, const int32_t *ends, int end_count, nb_error *err);
void      nb_token_trie_free(nb_token_trie *t);

/* schema: a JSON schema, or true for any JSON value.  What cannot be guaranteed is refused by its path (NB_ERR_UNSUPPORTED), what is
 * no schema too (NB_ERR_INPUT).  Objects have their properties in the order of the schema; without additionalProperties no others, but
 * an object schema that names no properties allows any. */
nb_status nb_grammar_json_schema(nb_grammar **out, const cJSON *schema, const nb_token_trie *trie, nb_error *err);
nb_status nb_grammar_json_object(nb_grammar **out, const nb_token_trie *trie, nb_error *err); /* any JSON object */
/* Whole-text match.  Literals, classes, ., \d \w \s and their opposites, groups, |, * + ? {m,n}; no look-around, back-references. */
nb_status nb_grammar_regex(nb_grammar **out, const char *pattern, const nb_token_trie *trie, nb_error *err);
nb_status nb_grammar_choice(nb_grammar **out, const char *const *texts, int count, const nb_token_trie *trie, nb_error *err);
/* One or more calls of the form <tool_call>\n{"name": NAME, "arguments": ...}\n</tool_call>; single: exactly one.  names and
 * schemas (NULL: any object) [count]. */
nb_status nb_grammar_tools(nb_grammar **out, const char *const *names, const cJSON *const *schemas, int count, bool single,
                           const nb_token_trie *trie, nb_error *err);
void      nb_grammar_free(nb_grammar *g);

/* Bit per id of the vocabulary, for nb_sampler_step; borrowed until the next call.  NULL when there is no memory for it. */
const uint64_t *nb_grammar_allowed(nb_grammar *g);
bool nb_grammar_may_end(const nb_grammar *g);
bool nb_grammar_must_end(const nb_grammar *g); /* nothing can follow */
/* Go on with this token; false when it was not allowed (the state is then as before). */
bool nb_grammar_accept(nb_grammar *g, int32_t id);
bool nb_grammar_accept_bytes(nb_grammar *g, const char *bytes, size_t n);

#endif
