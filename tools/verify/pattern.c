/* pattern.c - a pattern becomes a small program of states; the text is run through all of them at once.
 *
 *     char set     one character in a set of 256 bits, then on       split a, b     both at once
 *     start, end   only at the start or end of the text              match          yes
 *
 * Parts that repeat a counted number of times are compiled that many times. */
#include "tools/verify/pattern.h"

#include <ctype.h>
#include <string.h>

enum { STATES = 2048, DEPTH = 32, REPEAT = 255 };

typedef enum { OP_SET, OP_SPLIT, OP_JUMP, OP_START, OP_END, OP_MATCH } op_kind;

typedef struct {
    op_kind  kind;
    uint16_t a, b; /* next states of SPLIT and JUMP */
    uint8_t  set[32];
} op;

typedef struct {
    const char *at;
    op          ops[STATES];
    int         count, depth;
    bool        bad;
} compiler;

static int emit(compiler *c, op_kind kind)
{
    if (c->count == STATES) {
        c->bad = true;
        return STATES - 1;
    }
    memset(&c->ops[c->count], 0, sizeof c->ops[0]);
    c->ops[c->count].kind = kind;
    return c->count++;
}

static void include(op *o, int byte)
{
    o->set[byte >> 3] |= (uint8_t)(1 << (byte & 7));
}

/* The class that \letter stands for, added to o; false: not a class. */
static bool class_of(op *o, char letter)
{
    char lower = (char)tolower((unsigned char)letter);
    if (lower != 'd' && lower != 'w' && lower != 's') return false;
    for (int i = 0; i < 256; i++) {
        bool in = lower == 'd'   ? i >= '0' && i <= '9'
                  : lower == 's' ? i == ' ' || (i >= 9 && i <= 13)
                                 : i == '_' || (i < 128 && isalnum(i));
        if (in == (letter == lower)) include(o, i);
    }
    return true;
}

/* \n, \t and escaped punctuation; anything else is refused. */
static bool escaped(char letter, int *byte)
{
    *byte = letter == 'n' ? '\n' : letter == 't' ? '\t' : (unsigned char)letter;
    return letter == 'n' || letter == 't' || (letter && !isalnum((unsigned char)letter));
}

static void compile_class(compiler *c)
{
    op  *o = &c->ops[emit(c, OP_SET)];
    bool inverted = *c->at == '^', first = true;
    if (inverted) c->at++;
    for (; *c->at && (*c->at != ']' || first); first = false) {
        int low = (unsigned char)*c->at++, high;
        if (low == '\\') {
            char letter = *c->at ? *c->at++ : 0;
            if (class_of(o, letter)) continue;
            if (!escaped(letter, &low)) c->bad = true;
        }
        high = low;
        if (c->at[0] == '-' && c->at[1] && c->at[1] != ']') {
            high = (unsigned char)c->at[1];
            c->at += 2;
            if (high == '\\' && !escaped(*c->at ? *c->at++ : 0, &high)) c->bad = true;
        }
        if (high < low) c->bad = true;
        for (int i = low; i <= high; i++) include(o, i);
    }
    if (*c->at != ']') c->bad = true;
    else c->at++;
    if (inverted)
        for (size_t i = 0; i < sizeof o->set; i++) o->set[i] = (uint8_t)~o->set[i];
}

static void compile_choice(compiler *c);

static void compile_atom(compiler *c)
{
    char letter = *c->at++;
    if (letter == '(') {
        if (c->at[0] == '?') {
            if (c->at[1] == ':') c->at += 2;
            else if (c->at[1] == 'P' && c->at[2] == '<' && strchr(c->at, '>')) c->at = strchr(c->at, '>') + 1;
            else c->bad = true; /* lookaround, flags */
        }
        if (++c->depth > DEPTH) c->bad = true;
        if (!c->bad) compile_choice(c);
        c->depth--;
        if (*c->at == ')') c->at++;
        else c->bad = true;
    } else if (letter == '[') {
        compile_class(c);
    } else if (letter == '.') {
        op *o = &c->ops[emit(c, OP_SET)];
        for (int i = 0; i < 256; i++)
            if (i != '\n') include(o, i);
    } else if (letter == '^' || letter == '$') {
        emit(c, letter == '^' ? OP_START : OP_END);
    } else if (letter == '\\') {
        char name = *c->at ? *c->at++ : 0;
        int  byte;
        op  *o = &c->ops[emit(c, OP_SET)];
        if (!class_of(o, name)) {
            if (escaped(name, &byte)) include(o, byte);
            else c->bad = true;
        }
    } else if (strchr("*+?{)", letter)) {
        c->bad = true;
    } else {
        include(&c->ops[emit(c, OP_SET)], (unsigned char)letter);
    }
}

static int number(compiler *c)
{
    int v = 0;
    if (!isdigit((unsigned char)*c->at)) return -1;
    while (isdigit((unsigned char)*c->at) && v <= REPEAT) v = v * 10 + (*c->at++ - '0');
    if (v > REPEAT) c->bad = true;
    return v;
}

/* Insert one state before `from`: what lies behind moves up, and jumps into it follow. */
static void insert(compiler *c, int from, op_kind kind)
{
    if (c->count == STATES) {
        c->bad = true;
        return;
    }
    memmove(&c->ops[from + 1], &c->ops[from], (size_t)(c->count - from) * sizeof *c->ops);
    c->count++;
    for (int i = from + 1; i < c->count; i++) {
        if (c->ops[i].kind != OP_SPLIT && c->ops[i].kind != OP_JUMP) continue;
        c->ops[i].a = (uint16_t)(c->ops[i].a + 1); /* a part jumps only inside itself */
        c->ops[i].b = (uint16_t)(c->ops[i].b + 1);
    }
    memset(&c->ops[from], 0, sizeof c->ops[0]);
    c->ops[from].kind = kind;
}

static void loop(compiler *c, int from, bool once, bool again)
{
    if (!once) { /* L: split L+1, behind */
        insert(c, from, OP_SPLIT);
        c->ops[from].a = (uint16_t)(from + 1);
        if (again) c->ops[emit(c, OP_JUMP)].a = (uint16_t)from;
        c->ops[from].b = (uint16_t)c->count;
    } else if (again) {
        int split = emit(c, OP_SPLIT);
        c->ops[split].a = (uint16_t)from;
        c->ops[split].b = (uint16_t)c->count;
    }
}

static void compile_counted(compiler *c, int from, const char *atom, int least, int most)
{
    const char *behind = c->at;
    int         have = 1;
    if (least == 0 && most == 0) c->count = from;
    if (most == 0) return;
    if (least == 0) loop(c, from, false, most < 0);
    if (most < 0 && least == 1) loop(c, from, true, true);
    for (; !c->bad && have < (most < 0 ? least : most); have++) {
        int start = c->count;
        c->at = atom;
        compile_atom(c);
        if (have >= least) loop(c, start, false, false);
        else if (most < 0 && have + 1 == least) loop(c, start, true, true);
    }
    c->at = behind;
}

static void compile_piece(compiler *c)
{
    const char *atom = c->at;
    int         from = c->count, least = -1, most = -1;
    compile_atom(c);
    if (c->bad) return;
    if (*c->at == '*') least = 0, c->at++;
    else if (*c->at == '+') least = 1, c->at++;
    else if (*c->at == '?') least = 0, most = 1, c->at++;
    else if (*c->at == '{') {
        c->at++;
        least = number(c);
        if (*c->at == ',') c->at++, most = number(c);
        else most = least;
        if (least < 0 || (most >= 0 && most < least) || *c->at != '}') c->bad = true;
        else c->at++;
    } else return;
    if (c->bad) return;
    if (*c->at == '?') c->at++; /* lazy: the same yes or no */
    compile_counted(c, from, atom, least, most);
}

static void compile_sequence(compiler *c)
{
    while (!c->bad && *c->at && *c->at != '|' && *c->at != ')') compile_piece(c);
}

static void compile_choice(compiler *c)
{
    int from = c->count;
    compile_sequence(c);
    while (!c->bad && *c->at == '|') { /* split left, right; left ends with a jump behind */
        c->at++;
        insert(c, from, OP_SPLIT);
        int jump = emit(c, OP_JUMP);
        c->ops[from].a = (uint16_t)(from + 1);
        c->ops[from].b = (uint16_t)c->count;
        compile_sequence(c);
        c->ops[jump].a = (uint16_t)c->count;
    }
}

typedef struct {
    uint16_t state[STATES];
    int      count;
    bool     in[STATES];
} states;

/* state and all that it reaches without a character. */
static void reach(const compiler *c, states *s, int state, bool at_start, bool at_end)
{
    uint16_t stack[STATES];
    int      n = 0;
    if (!s->in[state]) stack[n++] = (uint16_t)state, s->in[state] = true;
    while (n) {
        int       i = stack[--n], next[2] = {-1, -1};
        const op *o = &c->ops[i];
        s->state[s->count++] = (uint16_t)i;
        if (o->kind == OP_SPLIT) next[0] = o->a, next[1] = o->b;
        else if (o->kind == OP_JUMP) next[0] = o->a;
        else if ((o->kind == OP_START && at_start) || (o->kind == OP_END && at_end)) next[0] = i + 1;
        for (int j = 0; j < 2; j++)
            if (next[j] >= 0 && !s->in[next[j]]) stack[n++] = (uint16_t)next[j], s->in[next[j]] = true;
    }
}

static bool run(const compiler *c, const char *text)
{
    static const states nothing;
    states              now = nothing;
    reach(c, &now, 0, true, !*text);
    for (const char *at = text;; at++) {
        states next = nothing;
        for (int i = 0; i < now.count; i++) {
            const op *o = &c->ops[now.state[i]];
            int       byte = (unsigned char)*at;
            if (o->kind == OP_MATCH) return true;
            if (o->kind == OP_SET && byte && o->set[byte >> 3] >> (byte & 7) & 1)
                reach(c, &next, now.state[i] + 1, false, !at[1]);
        }
        if (!*at || !next.count) return false;
        now = next;
    }
}

nb_pattern_answer nb_pattern_match(const char *pattern, const char *text)
{
    compiler c = {.at = pattern};
    if (strlen(pattern) > STATES / 2) return NB_PATTERN_UNKNOWN;
    compile_choice(&c);
    if (*c.at) c.bad = true; /* an unmatched ')' */
    emit(&c, OP_MATCH);
    if (c.bad) return NB_PATTERN_UNKNOWN;
    return run(&c, text) ? NB_PATTERN_YES : NB_PATTERN_NO;
}
