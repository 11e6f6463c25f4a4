/* grammar.c - stacks that share their lower parts, states that are sets of them, and what a state allows.
 *
 * A stack is the chain of places to go on at: (element, stack below).  Stacks and states are kept in tables where equal ones are one,
 * so a step from a state by a byte is computed once; the tables start anew from the present state when they have grown large.
 */
#include "runtime/engine/grammar.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/engine/grammar_rules.h"

enum { MAX_NODES = 1 << 19, MAX_STATES = 1 << 14, MAX_MASKS = 128, MAX_STACKS = 4096, DEAD = -1, MAX_TOKEN_BYTES = 512 };

/* ---- the vocabulary as a trie ------------------------------------------------------------------------------------------- */

typedef struct {
    uint32_t child, sibling; /* 0: none */
    int32_t  token;          /* -1: no token ends here */
    uint8_t  byte;
} trie_node;

struct nb_token_trie {
    const nb_tokenizer *tokenizer;
    int        vocab, end_count;
    int32_t    ends[16];
    trie_node *nodes; /* 0 is the root */
    size_t     count, capacity;
    int32_t   *same;  /* [vocab] the next token with the same bytes, or -1 */
};

static nb_status trie_insert(nb_token_trie *t, const char *bytes, size_t n, int32_t id, nb_error *err)
{
    uint32_t at = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t child = t->nodes[at].child;
        while (child && t->nodes[child].byte != (uint8_t)bytes[i]) child = t->nodes[child].sibling;
        if (!child) {
            NB_TRY(nb_grow(&t->nodes, &t->capacity, t->count + 1, sizeof *t->nodes, "the vocabulary", err));
            child = (uint32_t)t->count++;
            t->nodes[child] = (trie_node){ .sibling = t->nodes[at].child, .token = -1, .byte = (uint8_t)bytes[i] };
            t->nodes[at].child = child;
        }
        at = child;
    }
    t->same[id] = t->nodes[at].token;
    t->nodes[at].token = id;
    return NB_OK;
}

nb_status nb_token_trie_new(nb_token_trie **out, const nb_tokenizer *tokenizer, int vocab, const int32_t *ends, int end_count, nb_error *err)
{
    NB_TRY(nb_alloc(out, 1, sizeof **out, "the vocabulary", err));
    nb_token_trie *t = *out;
    nb_buf         bytes = { 0 };
    t->tokenizer = tokenizer;
    t->vocab = vocab;
    for (int i = 0; i < end_count && t->end_count < (int)NB_COUNT(t->ends); i++) t->ends[t->end_count++] = ends[i];
    nb_status status = nb_alloc(&t->same, (size_t)vocab, sizeof *t->same, "the vocabulary", err);
    if (status == NB_OK) status = nb_grow(&t->nodes, &t->capacity, (size_t)vocab * 3 + 1, sizeof *t->nodes, "the vocabulary", err);
    if (status == NB_OK) t->nodes[t->count++] = (trie_node){ .token = -1 };
    for (int32_t id = 0; id < vocab && status == NB_OK; id++) {
        t->same[id] = -1;
        if (nb_tokenizer_is_special(tokenizer, id)) continue;
        nb_buf_clear(&bytes);
        nb_tokenizer_decode(tokenizer, &id, 1, false, &bytes);
        if (bytes.failed) status = nb_buf_status(&bytes, "the vocabulary", err);
        else if (bytes.size && bytes.size <= MAX_TOKEN_BYTES) status = trie_insert(t, bytes.data, bytes.size, id, err);
    }
    nb_buf_free(&bytes);
    if (status != NB_OK) {
        nb_token_trie_free(t);
        *out = NULL;
    }
    return status;
}

void nb_token_trie_free(nb_token_trie *t)
{
    if (!t) return;
    free(t->nodes);
    free(t->same);
    free(t);
}

/* ---- tables -------------------------------------------------------------------------------------------------------------- */

typedef struct {
    uint32_t element, below; /* where to go on; the stack under it, 0: none */
} node;

typedef struct {
    uint32_t  first, count; /* of stacks */
    uint64_t *mask;         /* NULL: not computed */
    int32_t   next[256];    /* DEAD - 1: not computed */
} state;

struct nb_grammar {
    const nb_token_trie *trie;
    nb_rules             rules;
    node     *nodes;      /* 0 is the empty stack */
    size_t    node_count, node_capacity;
    uint32_t *node_table; /* [table_size] indices, 0: free */
    size_t    node_table_size;
    state   **states;
    size_t    state_count, state_capacity;
    int32_t  *state_table;
    size_t    state_table_size;
    uint32_t *stacks;     /* of all states */
    size_t    stack_count, stack_capacity;
    uint32_t *work;       /* [MAX_STACKS] a state in the making */
    size_t    work_count;
    node     *seen;       /* places visited while one is made */
    size_t    seen_count, seen_capacity;
    size_t    masks;
    int32_t   now;
    bool      failed;     /* out of memory or of bounds: nothing is allowed any more */
};

static uint64_t mix(uint64_t h) { return (h ^ h >> 29) * 0xbf58476d1ce4e5b9u; }

static uint32_t intern_node(nb_grammar *g, uint32_t element, uint32_t below)
{
    size_t mask = g->node_table_size - 1, at = mix((uint64_t)element << 32 | below) & mask;
    for (; g->node_table[at]; at = (at + 1) & mask) {
        const node *n = &g->nodes[g->node_table[at]];
        if (n->element == element && n->below == below) return g->node_table[at];
    }
    if (g->node_count >= MAX_NODES || nb_grow(&g->nodes, &g->node_capacity, g->node_count + 1, sizeof *g->nodes, "a grammar", NULL)) {
        g->failed = true;
        return 0;
    }
    g->nodes[g->node_count] = (node){ element, below };
    g->node_table[at] = (uint32_t)g->node_count;
    return (uint32_t)g->node_count++;
}

static void add_work(nb_grammar *g, uint32_t stack)
{
    for (size_t i = 0; i < g->work_count; i++)
        if (g->work[i] == stack) return;
    if (g->work_count == MAX_STACKS) g->failed = true;
    else g->work[g->work_count++] = stack;
}

/* Every stack that has bytes on top and comes of going on at an element: rules are opened, ends fall through. */
static void expand(nb_grammar *g, uint32_t element, uint32_t below)
{
    if (g->failed) return;
    for (size_t i = 0; i < g->seen_count; i++)
        if (g->seen[i].element == element && g->seen[i].below == below) return;
    if (g->seen_count >= MAX_STACKS || nb_grow(&g->seen, &g->seen_capacity, g->seen_count + 1, sizeof *g->seen, "a grammar", NULL)) {
        g->failed = true;
        return;
    }
    g->seen[g->seen_count++] = (node){ element, below };
    nb_symbol s = g->rules.elements[element];
    if (s.kind == NB_SYMBOL_BYTES) {
        add_work(g, intern_node(g, element, below));
    } else if (s.kind == NB_SYMBOL_END) {
        if (!below) add_work(g, 0);
        else expand(g, g->nodes[below].element, g->nodes[below].below);
    } else {
        /* A rule at the end of a sequence needs no place to come back to: lists do not make stacks deeper. */
        bool     last = g->rules.elements[element + 1].kind == NB_SYMBOL_END;
        uint32_t back = last ? below : intern_node(g, element + 1, below);
        for (uint32_t a = g->rules.rules[s.ref]; a; a = g->rules.alternatives[a - 1].next)
            expand(g, g->rules.alternatives[a - 1].start, back);
    }
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The state of the stacks in work; DEAD for none. */
static int32_t intern_state(nb_grammar *g)
{
    if (g->failed || g->work_count == 0) return DEAD;
    uint64_t h = g->work_count;
    qsort(g->work, g->work_count, sizeof *g->work, by_number);
    for (size_t i = 0; i < g->work_count; i++) h = mix(h * 31 + g->work[i]);
    size_t mask = g->state_table_size - 1, at = h & mask;
    for (; g->state_table[at] >= 0; at = (at + 1) & mask) {
        const state *s = g->states[g->state_table[at]];
        if (s->count == g->work_count && !memcmp(g->stacks + s->first, g->work, s->count * sizeof *g->work)) return g->state_table[at];
    }
    state *s = NULL;
    if (g->state_count >= MAX_STATES * 3 / 4 ||
        nb_grow(&g->states, &g->state_capacity, g->state_count + 1, sizeof *g->states, "a grammar", NULL) ||
        nb_grow(&g->stacks, &g->stack_capacity, g->stack_count + g->work_count, sizeof *g->stacks, "a grammar", NULL) ||
        nb_alloc(&s, 1, sizeof *s, "a grammar", NULL)) {
        g->failed = true;
        return DEAD;
    }
    s->first = (uint32_t)g->stack_count;
    s->count = (uint32_t)g->work_count;
    for (int b = 0; b < 256; b++) s->next[b] = DEAD - 1;
    memcpy(g->stacks + g->stack_count, g->work, g->work_count * sizeof *g->work);
    g->stack_count += g->work_count;
    g->states[g->state_count] = s;
    g->state_table[at] = (int32_t)g->state_count;
    return (int32_t)g->state_count++;
}

static int32_t step(nb_grammar *g, int32_t from, uint8_t byte)
{
    state *s = g->states[from];
    if (s->next[byte] >= DEAD) return s->next[byte];
    g->work_count = g->seen_count = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        uint32_t stack = g->stacks[s->first + i];
        if (!stack) continue;
        node n = g->nodes[stack];
        if (nb_byte_set_has(&g->rules.sets[g->rules.elements[n.element].ref], byte)) expand(g, n.element + 1, n.below);
    }
    int32_t to = intern_state(g);
    if (!g->failed) g->states[from]->next[byte] = to;
    return to;
}

static void forget_states(nb_grammar *g)
{
    for (size_t i = 0; i < g->state_count; i++) {
        free(g->states[i]->mask);
        free(g->states[i]);
    }
    g->state_count = g->stack_count = g->masks = 0;
    memset(g->state_table, 0xff, g->state_table_size * sizeof *g->state_table);
}

/* A chain of the old table in the new one. */
static uint32_t copy_stack(nb_grammar *g, const node *old, uint32_t stack)
{
    return stack ? intern_node(g, old[stack].element, copy_stack(g, old, old[stack].below)) : 0;
}

/* Keep the present state alone when the tables are half full. */
static void tidy(nb_grammar *g)
{
    if (g->failed || (g->node_count < MAX_NODES / 2 && g->state_count < MAX_STATES / 4)) return;
    const state *s = g->states[g->now];
    size_t       count = s->count;
    node        *old = g->nodes;
    uint32_t    *stacks = malloc(count * sizeof *stacks);
    if (!stacks) {
        g->failed = true;
        return;
    }
    memcpy(stacks, g->stacks + s->first, count * sizeof *stacks);
    g->nodes = NULL;
    g->node_capacity = g->node_count = 0;
    memset(g->node_table, 0, g->node_table_size * sizeof *g->node_table);
    forget_states(g);
    if (nb_grow(&g->nodes, &g->node_capacity, 1, sizeof *g->nodes, "a grammar", NULL) == NB_OK) g->nodes[g->node_count++] = (node){ 0, 0 };
    else g->failed = true;
    g->work_count = 0;
    for (size_t i = 0; i < count && !g->failed; i++) add_work(g, copy_stack(g, old, stacks[i]));
    g->now = intern_state(g);
    free(stacks);
    free(old);
}

/* ---- masks --------------------------------------------------------------------------------------------------------------- */

static void walk(nb_grammar *g, uint32_t at, int32_t from, uint64_t *mask)
{
    const nb_token_trie *t = g->trie;
    for (uint32_t c = t->nodes[at].child; c && !g->failed; c = t->nodes[c].sibling) {
        int32_t to = step(g, from, t->nodes[c].byte);
        if (to == DEAD) continue;
        for (int32_t id = t->nodes[c].token; id >= 0; id = t->same[id]) mask[id / 64] |= 1ull << (id % 64);
        walk(g, c, to, mask);
    }
}

static bool is_complete(const nb_grammar *g, int32_t at)
{
    return at >= 0 && g->stacks[g->states[at]->first] == 0; /* sorted: the empty stack is first */
}

static bool is_end(const nb_token_trie *t, int32_t id)
{
    for (int i = 0; i < t->end_count; i++)
        if (t->ends[i] == id) return true;
    return false;
}

const uint64_t *nb_grammar_allowed(nb_grammar *g)
{
    tidy(g);
    if (g->failed || g->now < 0) return NULL;
    state *s = g->states[g->now];
    if (s->mask) return s->mask;
    if (g->masks == MAX_MASKS) {
        for (size_t i = 0; i < g->state_count; i++) {
            free(g->states[i]->mask);
            g->states[i]->mask = NULL;
        }
        g->masks = 0;
    }
    uint64_t *mask = calloc(((size_t)g->trie->vocab + 63) / 64, sizeof *mask);
    if (!mask) return NULL;
    walk(g, 0, g->now, mask);
    if (g->failed) {
        free(mask);
        return NULL;
    }
    if (is_complete(g, g->now))
        for (int i = 0; i < g->trie->end_count; i++) {
            int32_t id = g->trie->ends[i];
            if (id >= 0 && id < g->trie->vocab) mask[id / 64] |= 1ull << (id % 64);
        }
    g->masks++;
    return g->states[g->now]->mask = mask;
}

bool nb_grammar_may_end(const nb_grammar *g) { return !g->failed && is_complete(g, g->now); }
bool nb_grammar_must_end(const nb_grammar *g) { return nb_grammar_may_end(g) && g->states[g->now]->count == 1; }

bool nb_grammar_accept_bytes(nb_grammar *g, const char *bytes, size_t n)
{
    tidy(g);
    int32_t at = g->now;
    for (size_t i = 0; i < n && at >= 0; i++) at = step(g, at, (uint8_t)bytes[i]);
    if (at < 0) return false;
    g->now = at;
    return true;
}

bool nb_grammar_accept(nb_grammar *g, int32_t id)
{
    if (g->failed || g->now < 0) return false;
    if (is_end(g->trie, id)) return is_complete(g, g->now);
    if (nb_tokenizer_is_special(g->trie->tokenizer, id)) return false;
    nb_buf bytes = { 0 };
    nb_tokenizer_decode(g->trie->tokenizer, &id, 1, false, &bytes);
    bool ok = !bytes.failed && bytes.size && nb_grammar_accept_bytes(g, bytes.data, bytes.size);
    nb_buf_free(&bytes);
    return ok;
}

/* ---- life ---------------------------------------------------------------------------------------------------------------- */

/* Takes the rules over, also when it fails. */
nb_status nb_grammar_from_rules(nb_grammar **out, nb_rules *rules, nb_symbol start, const nb_token_trie *trie, nb_error *err)
{
    *out = NULL;
    nb_symbol whole = nb_rule_declare(rules);
    if (!rules->failure.status) nb_rule_add(rules, whole, &start, 1);
    nb_status status = nb_rules_status(rules, err);
    if (status == NB_OK) status = nb_alloc(out, 1, sizeof **out, "a grammar", err);
    if (status != NB_OK) {
        nb_rules_free(rules);
        return status;
    }
    nb_grammar *g = *out;
    g->trie = trie;
    g->rules = *rules;
    memset(rules, 0, sizeof *rules);
    g->node_table_size = 2 * MAX_NODES;
    g->state_table_size = 2 * MAX_STATES;
    status = nb_alloc(&g->node_table, g->node_table_size, sizeof *g->node_table, "a grammar", err);
    if (status == NB_OK) status = nb_alloc(&g->state_table, g->state_table_size, sizeof *g->state_table, "a grammar", err);
    if (status == NB_OK) status = nb_alloc(&g->work, MAX_STACKS, sizeof *g->work, "a grammar", err);
    if (status == NB_OK) status = nb_grow(&g->nodes, &g->node_capacity, 1, sizeof *g->nodes, "a grammar", err);
    if (status == NB_OK) {
        g->nodes[g->node_count++] = (node){ 0, 0 };
        memset(g->state_table, 0xff, g->state_table_size * sizeof *g->state_table);
        expand(g, g->rules.alternatives[g->rules.rules[whole.ref] - 1].start, 0);
        g->now = intern_state(g);
        if (g->now < 0) status = nb_fail(err, NB_ERR_BUDGET, "the form that is asked for is too large, or nothing can have it");
    }
    if (status != NB_OK) {
        nb_grammar_free(g);
        *out = NULL;
    }
    return status;
}

void nb_grammar_free(nb_grammar *g)
{
    if (!g) return;
    if (g->state_table) forget_states(g);
    nb_rules_free(&g->rules);
    free(g->nodes);
    free(g->node_table);
    free(g->states);
    free(g->state_table);
    free(g->stacks);
    free(g->work);
    free(g->seen);
    free(g);
}

nb_status nb_grammar_choice(nb_grammar **out, const char *const *texts, int count, const nb_token_trie *trie, nb_error *err)
{
    nb_rules  r = { 0 };
    nb_symbol choice = nb_rule_declare(&r);
    *out = NULL;
    if (count < 1) {
        nb_rules_free(&r);
        return nb_fail(err, NB_ERR_INPUT, "a choice of no texts");
    }
    for (int i = 0; i < count && !r.failure.status; i++) {
        nb_symbol text = nb_symbol_text(&r, texts[i], strlen(texts[i]));
        if (!r.failure.status) nb_rule_add(&r, choice, &text, 1);
    }
    return nb_grammar_from_rules(out, &r, choice, trie, err);
}

nb_status nb_grammar_regex(nb_grammar **out, const char *pattern, const nb_token_trie *trie, nb_error *err)
{
    nb_rules  r = { 0 };
    nb_symbol s = nb_rules_regex(&r, pattern, strlen(pattern));
    return nb_grammar_from_rules(out, &r, s, trie, err);
}
