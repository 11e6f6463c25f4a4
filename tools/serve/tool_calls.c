/* tool_calls.c - a scanner that goes on where it stopped. */
#include "tools/serve/tool_calls.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "runtime/io/json.h"

static const char opening[] = "<tool_call>", closing[] = "</tool_call>";

void nb_tool_calls_free(nb_tool_calls *s)
{
    for (int i = 0; i < s->count; i++) nb_buf_free(&s->calls[i].own);
    memset(s, 0, sizeof *s);
}

const char *nb_tool_call_arguments(const nb_tool_call *c, const char *text, size_t *n)
{
    *n = c->own.size ? c->own.size : c->end - c->args;
    return c->own.size ? c->own.data : text + c->args;
}

/* How many bytes at the end of the text may begin the word. */
static size_t may_begin(const char *text, size_t n, const char *word)
{
    for (size_t k = strlen(word) - 1 < n ? strlen(word) - 1 : n; k > 0; k--)
        if (!memcmp(text + n - k, word, k)) return k;
    return 0;
}

static const char *find(const char *text, size_t from, size_t n, const char *word)
{
    return from <= n ? memmem(text + from, n - from, word, strlen(word)) : NULL;
}

static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

/* ---- the head: {"name": "NAME", "arguments":  ---------------------------------------------------------------------------- */

typedef enum { MATCH_NO, MATCH_MORE, MATCH_YES } match;

/* The word after white space; at moves behind it. */
static match expect(const char *text, size_t *at, size_t n, const char *word)
{
    while (*at < n && is_space(text[*at])) ++*at;
    for (; *word; word++, ++*at) {
        if (*at == n) return MATCH_MORE;
        if (text[*at] != *word) return MATCH_NO;
    }
    return MATCH_YES;
}

static match read_name(nb_tool_call *c, const char *text, size_t *at, size_t n)
{
    size_t from = *at;
    while (*at < n && text[*at] != '"' && text[*at] != '\\' && *at - from < sizeof c->name - 1) ++*at;
    if (*at == n) return MATCH_MORE;
    if (text[*at] != '"' || *at == from) return MATCH_NO;
    snprintf(c->name, sizeof c->name, "%.*s", (int)(*at - from), text + from);
    ++*at;
    return MATCH_YES;
}

static match read_head(nb_tool_call *c, const char *text, size_t *at, size_t n)
{
    static const char *const before[] = {"{", "\"name\"", ":", "\""}, *const after[] = {",", "\"arguments\"", ":"};
    match m = MATCH_YES;
    for (size_t i = 0; i < NB_COUNT(before) && m == MATCH_YES; i++) m = expect(text, at, n, before[i]);
    if (m == MATCH_YES) m = read_name(c, text, at, n);
    for (size_t i = 0; i < NB_COUNT(after) && m == MATCH_YES; i++) m = expect(text, at, n, after[i]);
    while (m == MATCH_YES && *at < n && is_space(text[*at])) ++*at;
    if (m == MATCH_YES && *at == n) return MATCH_MORE;
    return m == MATCH_YES && text[*at] != '{' ? MATCH_NO : m;
}

/* ---- the body as a whole, when it is written another way ------------------------------------------------------------------ */

static bool read_whole(nb_tool_call *c, const char *text, size_t n)
{
    nb_error     err;
    cJSON       *o = NULL;
    bool         ok = nb_json_parse(&o, text, n, "a tool call", &err) == NB_OK && cJSON_IsObject(o);
    const cJSON *name = ok ? nb_json_find(o, "name") : NULL, *arguments = ok ? nb_json_find(o, "arguments") : NULL;
    ok = cJSON_IsString(name) && name->valuestring[0] && strlen(name->valuestring) < sizeof c->name;
    if (ok) {
        snprintf(c->name, sizeof c->name, "%s", name->valuestring);
        if (cJSON_IsString(arguments)) nb_buf_str(&c->own, arguments->valuestring);
        else if (arguments) nb_json_print(&c->own, arguments, NB_JSON_SPACED);
        if (!c->own.size) nb_buf_str(&c->own, "{}");
        ok = !c->own.failed;
        c->named = c->complete = ok;
    }
    cJSON_Delete(o);
    return ok;
}

/* ---- the scanner --------------------------------------------------------------------------------------------------------- */

static void break_off(nb_tool_calls *s, size_t n)
{
    for (int i = 0; i < s->count; i++) nb_buf_free(&s->calls[i].own);
    s->count = 0;
    s->broken = true;
    s->content_end = n;
}

/* False: more text is needed. */
static bool in_text(nb_tool_calls *s, const char *text, size_t n, bool last)
{
    const char *tag = find(text, s->at, n, opening);
    size_t      end = tag ? (size_t)(tag - text) : n - (last ? 0 : may_begin(text + s->at, n - s->at, opening));
    if (s->count == 0) s->content_end = end;
    s->at = tag ? end + strlen(opening) : end;
    if (!tag || s->count == NB_MAX_TOOL_CALLS) return false;
    nb_tool_call *c = &s->calls[s->count++];
    uint64_t      id = 0;
    memset(c, 0, sizeof *c);
    if (getrandom(&id, sizeof id, 0) != (ssize_t)sizeof id) id = (uint64_t)(nb_seconds() * 1e9);
    snprintf(c->id, sizeof c->id, "call_%016llx", (unsigned long long)id);
    s->body = s->at;
    s->phase = NB_TOOLS_HEAD;
    return true;
}

static bool in_head(nb_tool_calls *s, nb_tool_call *c, const char *text, size_t n, bool last)
{
    size_t at = s->body;
    match  m = read_head(c, text, &at, n);
    if (m == MATCH_MORE && !last) return false;
    if (m != MATCH_YES) {
        s->phase = NB_TOOLS_WHOLE;
        return true;
    }
    c->named = true;
    c->args = c->end = s->at = at;
    s->depth = 0;
    s->in_string = s->escaped = false;
    s->phase = NB_TOOLS_ARGUMENTS;
    return true;
}

static bool in_arguments(nb_tool_calls *s, nb_tool_call *c, const char *text, size_t n)
{
    for (; s->at < n; s->at++) {
        char b = text[s->at];
        if (s->in_string) {
            if (s->escaped) s->escaped = false;
            else if (b == '\\') s->escaped = true;
            else if (b == '"') s->in_string = false;
            continue;
        }
        if (b == '"') s->in_string = true;
        else if (b == '{' || b == '[') s->depth++;
        else if ((b == '}' || b == ']') && --s->depth == 0) {
            c->end = ++s->at;
            c->complete = true;
            s->phase = NB_TOOLS_TAIL;
            return true;
        }
    }
    c->end = n;
    return false;
}

/* The rest of the object and the closing tag. */
static bool in_tail(nb_tool_calls *s, const char *text, size_t n)
{
    const char *tag = find(text, s->at, n, closing);
    if (!tag) return false;
    s->at = (size_t)(tag - text) + strlen(closing);
    s->phase = NB_TOOLS_TEXT;
    return true;
}

static bool in_whole(nb_tool_calls *s, nb_tool_call *c, const char *text, size_t n, bool last)
{
    const char *tag = find(text, s->body, n, closing);
    size_t      end = tag ? (size_t)(tag - text) : n;
    if (!tag && !last) return false;
    if (!read_whole(c, text + s->body, end - s->body)) {
        break_off(s, n);
        return false;
    }
    s->at = tag ? end + strlen(closing) : end;
    s->phase = NB_TOOLS_TEXT;
    return tag != NULL;
}

void nb_tool_calls_update(nb_tool_calls *s, const char *text, size_t n, bool last)
{
    for (bool more = true; more && !s->broken;) {
        nb_tool_call *c = s->count ? &s->calls[s->count - 1] : NULL;
        switch (s->phase) {
        case NB_TOOLS_TEXT: more = in_text(s, text, n, last); break;
        case NB_TOOLS_HEAD: more = in_head(s, c, text, n, last); break;
        case NB_TOOLS_ARGUMENTS: more = in_arguments(s, c, text, n); break;
        case NB_TOOLS_TAIL: more = in_tail(s, text, n); break;
        case NB_TOOLS_WHOLE: more = in_whole(s, c, text, n, last); break;
        }
    }
    if (s->broken) s->content_end = n;
    else if (last && s->count && !s->calls[s->count - 1].complete) break_off(s, n); /* cut off in the middle: shown as it is */
}
