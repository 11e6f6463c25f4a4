/* grammar_schema.c - JSON schemas to rules.
 *
 * A keyword that would narrow what is allowed and is not understood is refused: what is promised is kept.  Keywords that only describe
 * (title, description, examples, default, ...) are passed over.  Definitions become rules of their own, so they may be recursive.
 * White space is what models write anyway: nothing or one space between tokens, or a line break with indentation.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/engine/grammar.h"
#include "runtime/engine/grammar_rules.h"

enum { MAX_DEPTH = 32, MAX_ENUM = 4096, MAX_ITEMS = 4096, MAX_LENGTH = 10000, MAX_PROPERTIES = 1024, MAX_DEFINITIONS = 512, PATH = 256 };

typedef struct {
    nb_rules    r;
    const cJSON *root;
    struct {
        const cJSON *schema;
        nb_symbol    rule;
    }           definitions[MAX_DEFINITIONS]; /* schemas that a $ref points to */
    int         definition_count;
    int         depth;
    char        path[PATH];
    /* Made when first used; kind NB_SYMBOL_END: not yet. */
    nb_symbol   space, character, string, number, integer, value, object, array;
} compiler;

static nb_symbol none(void) { return (nb_symbol){ 0, NB_SYMBOL_END }; }

static nb_symbol refuse(compiler *c, nb_status status, const char *what)
{
    nb_rules_fail(&c->r, status, "the schema at %s: %s", c->path[0] ? c->path : "its root", what);
    return none();
}

static size_t enter(compiler *c, const char *name)
{
    size_t n = strlen(c->path);
    snprintf(c->path + n, PATH - n, "/%s", name);
    return n;
}

static void leave(compiler *c, size_t n) { c->path[n] = 0; }

static nb_symbol literal(compiler *c, const char *text) { return nb_symbol_text(&c->r, text, strlen(text)); }

#define SEQUENCE(...) nb_symbol_sequence(&c->r, (nb_symbol[]){ __VA_ARGS__ }, sizeof((nb_symbol[]){ __VA_ARGS__ }) / sizeof(nb_symbol))
#define CHOICE(...) nb_symbol_choice(&c->r, (nb_symbol[]){ __VA_ARGS__ }, sizeof((nb_symbol[]){ __VA_ARGS__ }) / sizeof(nb_symbol))

/* ---- the words of JSON --------------------------------------------------------------------------------------------------- */

static nb_symbol regex(compiler *c, const char *pattern) { return nb_rules_regex(&c->r, pattern, strlen(pattern)); }

static nb_symbol space(compiler *c)
{
    if (!c->space.kind) c->space = regex(c, "( |\\n[ \\t]{0,20})?");
    return c->space;
}

/* One character of a string, escaped or not. */
static nb_symbol character(compiler *c)
{
    static const uint32_t plain[][2] = { { 0x20, 0x21 }, { 0x23, 0x5B }, { 0x5D, 0x10FFFF } };
    if (!c->character.kind)
        c->character = CHOICE(nb_symbol_characters(&c->r, plain, 3), regex(c, "\\\\([\"\\\\/bfnrt]|u[0-9a-fA-F]{4})"));
    return c->character;
}

static nb_symbol string(compiler *c)
{
    if (!c->string.kind) c->string = SEQUENCE(literal(c, "\""), nb_symbol_repeat(&c->r, character(c), 0, -1), literal(c, "\""));
    return c->string;
}

static nb_symbol integer(compiler *c)
{
    if (!c->integer.kind) c->integer = regex(c, "-?(0|[1-9][0-9]{0,17})");
    return c->integer;
}

static nb_symbol number(compiler *c)
{
    if (!c->number.kind) c->number = regex(c, "-?(0|[1-9][0-9]{0,17})(\\.[0-9]{1,18})?([eE][-+]?[0-9]{1,3})?");
    return c->number;
}

/* item (, item)* with spaces, or nothing, between brackets. */
static nb_symbol list(compiler *c, const char *open, nb_symbol item, int min, int max, const char *close)
{
    nb_symbol more = SEQUENCE(literal(c, ","), space(c), item, space(c)), inside;
    if (max == 0) return SEQUENCE(literal(c, open), space(c), literal(c, close));
    inside = SEQUENCE(item, space(c), nb_symbol_repeat(&c->r, more, min > 0 ? min - 1 : 0, max > 0 ? max - 1 : -1));
    if (min == 0) inside = nb_symbol_optional(&c->r, inside);
    return SEQUENCE(literal(c, open), space(c), inside, literal(c, close));
}

static nb_symbol member(compiler *c, nb_symbol key, nb_symbol value) { return SEQUENCE(key, space(c), literal(c, ":"), space(c), value); }

static nb_symbol any_object(compiler *c);

static nb_symbol any_value(compiler *c)
{
    if (c->value.kind) return c->value;
    c->value = nb_rule_declare(&c->r);
    nb_symbol object = any_object(c);
    c->array = list(c, "[", c->value, 0, -1, "]");
    nb_symbol all[] = { object, c->array, string(c), number(c), literal(c, "true"), literal(c, "false"), literal(c, "null") };
    for (size_t i = 0; i < NB_COUNT(all) && !c->r.failure.status; i++) nb_rule_add(&c->r, c->value, &all[i], 1);
    return c->value;
}

static nb_symbol any_object(compiler *c)
{
    if (c->object.kind) return c->object;
    c->object = nb_rule_declare(&c->r);
    nb_symbol inside = list(c, "{", member(c, string(c), any_value(c)), 0, -1, "}");
    if (!c->r.failure.status) nb_rule_add(&c->r, c->object, &inside, 1);
    return c->object;
}

/* A JSON value as it is printed. */
static nb_symbol constant(compiler *c, const cJSON *v)
{
    nb_buf text = { 0 };
    nb_json_print(&text, v, NB_JSON_SPACED);
    nb_symbol s = text.failed ? none() : nb_symbol_text(&c->r, text.data, text.size);
    if (text.failed) nb_rules_fail(&c->r, NB_ERR_MEMORY, "out of memory for a schema");
    nb_buf_free(&text);
    return s;
}

/* ---- keywords ------------------------------------------------------------------------------------------------------------ */

static const char *const describing[] = { "title", "description", "examples", "default", "$schema", "$id", "$comment", "$defs", "definitions",
                                          "deprecated", "readOnly", "writeOnly", "strict", "contentMediaType", "contentEncoding", "example" };

/* Keywords of a schema of one type; all others are refused. */
static bool only(compiler *c, const cJSON *schema, const char *const *allowed, size_t n)
{
    for (const cJSON *k = schema->child; k; k = k->next) {
        bool fine = false;
        for (size_t i = 0; i < NB_COUNT(describing) && !fine; i++) fine = !strcmp(describing[i], k->string);
        for (size_t i = 0; i < n && !fine; i++) fine = !strcmp(allowed[i], k->string);
        if (fine) continue;
        char text[160];
        snprintf(text, sizeof text, "'%.64s' cannot be guaranteed here; leave it out or write the schema without it", k->string);
        refuse(c, NB_ERR_UNSUPPORTED, text);
        return false;
    }
    return true;
}
#define ONLY(...) only(c, schema, (const char *const[]){ __VA_ARGS__ }, sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(char *))

static bool count_of(compiler *c, const cJSON *schema, const char *key, int max, int *out)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(schema, key);
    if (!v) return true;
    if (!cJSON_IsNumber(v) || v->valuedouble < 0 || v->valuedouble != floor(v->valuedouble)) {
        char text[96];
        snprintf(text, sizeof text, "%.32s has to be a whole number", key);
        refuse(c, NB_ERR_INPUT, text);
        return false;
    }
    if (v->valuedouble > max) {
        char text[96];
        snprintf(text, sizeof text, "%.32s beyond %d is not supported", key, max);
        refuse(c, NB_ERR_UNSUPPORTED, text);
        return false;
    }
    *out = (int)v->valuedouble;
    return true;
}

static nb_symbol schema_symbol(compiler *c, const cJSON *schema);

static nb_symbol string_schema(compiler *c, const cJSON *schema)
{
    static const struct {
        const char *name, *pattern;
    } formats[] = {
        { "date", "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$" },
        { "time", "^([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])?$" },
        { "date-time", "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$" },
        { "uuid", "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$" },
        { "email", "^[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(\\.[A-Za-z0-9-]{1,63}){1,4}$" },
        { "ipv4", "^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])$" },
    };
    const cJSON *pattern = cJSON_GetObjectItemCaseSensitive(schema, "pattern"), *format = cJSON_GetObjectItemCaseSensitive(schema, "format");
    const char  *text = NULL;
    int          min = 0, max = -1;
    if (!ONLY("type", "minLength", "maxLength", "pattern", "format") || !count_of(c, schema, "minLength", MAX_LENGTH, &min) ||
        !count_of(c, schema, "maxLength", MAX_LENGTH, &max))
        return none();
    if (pattern && !cJSON_IsString(pattern)) return refuse(c, NB_ERR_INPUT, "pattern has to be a text");
    if (pattern) text = pattern->valuestring;
    if (format && !cJSON_IsString(format)) return refuse(c, NB_ERR_INPUT, "format has to be a text");
    for (size_t i = 0; format && !text && i < NB_COUNT(formats); i++)
        if (!strcmp(formats[i].name, format->valuestring)) text = formats[i].pattern;
    if (format && !text) return refuse(c, NB_ERR_UNSUPPORTED, "this format is not supported; date, time, date-time, uuid, email and ipv4 are");
    if (text && (min > 0 || max >= 0)) return refuse(c, NB_ERR_UNSUPPORTED, "a pattern or format together with a length");
    if (max >= 0 && max < min) return refuse(c, NB_ERR_INPUT, "maxLength is less than minLength");
    if (text) return SEQUENCE(literal(c, "\""), nb_rules_regex_in_string(&c->r, text, strlen(text)), literal(c, "\""));
    if (min == 0 && max < 0) return string(c);
    return SEQUENCE(literal(c, "\""), nb_symbol_repeat(&c->r, character(c), min, max), literal(c, "\""));
}

/* Digits of the numbers from a to b, which have the same length. */
static nb_symbol digits_between(compiler *c, const char *a, const char *b)
{
    if (!a[1]) {
        nb_byte_set set = { { 0 } };
        for (int d = a[0]; d <= b[0]; d++) nb_byte_set_add(&set, (uint8_t)d);
        return nb_symbol_bytes(&c->r, &set);
    }
    if (a[0] == b[0]) return SEQUENCE(nb_symbol_byte(&c->r, (uint8_t)a[0]), digits_between(c, a + 1, b + 1));
    char      nines[24], zeros[24];
    size_t    n = strlen(a) - 1, count = 0;
    nb_symbol parts[3];
    snprintf(nines, sizeof nines, "%.*s", (int)n, "99999999999999999999");
    snprintf(zeros, sizeof zeros, "%.*s", (int)n, "00000000000000000000");
    parts[count++] = SEQUENCE(nb_symbol_byte(&c->r, (uint8_t)a[0]), digits_between(c, a + 1, nines));
    if (b[0] - a[0] > 1) {
        nb_byte_set set = { { 0 } };
        for (int d = a[0] + 1; d < b[0]; d++) nb_byte_set_add(&set, (uint8_t)d);
        parts[count++] = SEQUENCE(nb_symbol_bytes(&c->r, &set), digits_between(c, zeros, nines));
    }
    parts[count++] = SEQUENCE(nb_symbol_byte(&c->r, (uint8_t)b[0]), digits_between(c, zeros, b + 1));
    return nb_symbol_choice(&c->r, parts, count);
}

/* Whole numbers 0 <= a .. b, by length. */
static nb_symbol naturals(compiler *c, int64_t a, int64_t b)
{
    nb_symbol parts[20];
    size_t    n = 0;
    while (a <= b) {
        char    from[24], to[24];
        int64_t last = 9;
        while (last < a) last = last * 10 + 9;
        if (last > b) last = b;
        snprintf(from, sizeof from, "%lld", (long long)a);
        snprintf(to, sizeof to, "%lld", (long long)last);
        parts[n++] = digits_between(c, from, to);
        a = last + 1;
    }
    return nb_symbol_choice(&c->r, parts, n);
}

static nb_symbol integer_schema(compiler *c, const cJSON *schema)
{
    const int64_t limit = 999999999999999;
    int64_t       low = -limit, high = limit;
    const char   *keys[] = { "minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum" };
    bool          any = false;
    if (!ONLY("type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "format")) return none();
    for (int i = 0; i < 4; i++) {
        const cJSON *v = cJSON_GetObjectItemCaseSensitive(schema, keys[i]);
        if (!v) continue;
        if (!cJSON_IsNumber(v)) return refuse(c, NB_ERR_INPUT, "a limit has to be a number");
        double d = v->valuedouble;
        if (!(fabs(d) <= (double)limit)) return refuse(c, NB_ERR_UNSUPPORTED, "a limit beyond 10^15");
        int64_t at = i < 2 ? (int64_t)ceil(d) : (int64_t)floor(d);
        if (i == 1 && (double)at == d) at++;
        if (i == 3 && (double)at == d) at--;
        if (i < 2 && at > low) low = at;
        if (i >= 2 && at < high) high = at;
        any = true;
    }
    if (!any) return integer(c);
    if (low > high) return refuse(c, NB_ERR_INPUT, "no whole number is within the limits");
    nb_symbol parts[2];
    size_t    n = 0;
    if (low < 0) parts[n++] = SEQUENCE(literal(c, "-"), naturals(c, high < 0 ? -high : 1, -low));
    if (high >= 0) parts[n++] = naturals(c, low > 0 ? low : 0, high);
    return nb_symbol_choice(&c->r, parts, n);
}

static nb_symbol array_schema(compiler *c, const cJSON *schema)
{
    const cJSON *items = cJSON_GetObjectItemCaseSensitive(schema, "items"), *prefix = cJSON_GetObjectItemCaseSensitive(schema, "prefixItems");
    int          min = 0, max = -1;
    if (!ONLY("type", "items", "prefixItems", "minItems", "maxItems") || !count_of(c, schema, "minItems", MAX_ITEMS, &min) ||
        !count_of(c, schema, "maxItems", MAX_ITEMS, &max))
        return none();
    if (max >= 0 && max < min) return refuse(c, NB_ERR_INPUT, "maxItems is less than minItems");
    if (!prefix) {
        size_t    at = enter(c, "items");
        nb_symbol item = items ? schema_symbol(c, items) : any_value(c);
        leave(c, at);
        return c->r.failure.status ? none() : list(c, "[", item, min, max, "]");
    }
    if (!cJSON_IsArray(prefix) || !prefix->child || (items && !cJSON_IsFalse(items)) || min > cJSON_GetArraySize(prefix) || max >= 0)
        return refuse(c, NB_ERR_UNSUPPORTED, "prefixItems is supported alone: every item in it once");
    nb_symbol all = literal(c, "[");
    for (const cJSON *i = prefix->child; i && !c->r.failure.status; i = i->next)
        all = i == prefix->child ? SEQUENCE(all, space(c), schema_symbol(c, i), space(c))
                                 : SEQUENCE(all, literal(c, ","), space(c), schema_symbol(c, i), space(c));
    return SEQUENCE(all, literal(c, "]"));
}

/* ---- objects ------------------------------------------------------------------------------------------------------------- */

static bool is_required(const cJSON *required, const char *name)
{
    for (const cJSON *r = required ? required->child : NULL; r; r = r->next)
        if (cJSON_IsString(r) && !strcmp(r->valuestring, name)) return true;
    return false;
}

static nb_symbol key_of(compiler *c, const char *name)
{
    nb_buf text = { 0 };
    nb_buf_json_string(&text, name, strlen(name));
    nb_symbol s = text.failed ? none() : nb_symbol_text(&c->r, text.data, text.size);
    nb_buf_free(&text);
    return s;
}

/* Properties i .. count - 1 after one that was written (comma) or at the beginning; from the last to the first, so that each is a
 * rule that the ones before share. */
static nb_symbol properties(compiler *c, const nb_symbol *members, const bool *required, int count, nb_symbol rest_first, nb_symbol rest_next)
{
    nb_symbol after = rest_next, begin = rest_first; /* what may follow when something / nothing was written before */
    for (int i = count - 1; i >= 0 && !c->r.failure.status; i--) {
        nb_symbol with_comma = SEQUENCE(literal(c, ","), space(c), members[i], space(c), after);
        nb_symbol without = SEQUENCE(members[i], space(c), after);
        nb_symbol new_after = required[i] ? with_comma : CHOICE(with_comma, after);
        begin = required[i] ? without : CHOICE(without, begin);
        after = new_after;
    }
    return begin;
}

static nb_symbol object_schema(compiler *c, const cJSON *schema)
{
    const cJSON *named = cJSON_GetObjectItemCaseSensitive(schema, "properties"), *required = cJSON_GetObjectItemCaseSensitive(schema, "required");
    const cJSON *others = cJSON_GetObjectItemCaseSensitive(schema, "additionalProperties");
    if (!ONLY("type", "properties", "required", "additionalProperties")) return none();
    if (named && !cJSON_IsObject(named)) return refuse(c, NB_ERR_INPUT, "properties has to be an object");
    if (required && !cJSON_IsArray(required)) return refuse(c, NB_ERR_INPUT, "required has to be an array");
    int  count = named ? cJSON_GetArraySize(named) : 0;
    bool open = others ? !cJSON_IsFalse(others) : count == 0;
    if (count > MAX_PROPERTIES) return refuse(c, NB_ERR_UNSUPPORTED, "more than 1024 properties");
    for (const cJSON *r = required ? required->child : NULL; r; r = r->next)
        if (!cJSON_IsString(r) || !named || !cJSON_GetObjectItemCaseSensitive(named, r->valuestring))
            return refuse(c, NB_ERR_UNSUPPORTED, "required names a property that properties does not have");
    nb_symbol  empty = nb_symbol_sequence(&c->r, NULL, 0), rest_first = empty, rest_next = empty;
    nb_symbol *members = NULL;
    bool      *needed = NULL;
    if (open) {
        size_t    at = enter(c, "additionalProperties");
        nb_symbol value = others && cJSON_IsObject(others) ? schema_symbol(c, others) : any_value(c);
        leave(c, at);
        nb_symbol one = SEQUENCE(member(c, string(c), value), space(c)), more = SEQUENCE(literal(c, ","), space(c), one);
        rest_next = nb_symbol_repeat(&c->r, more, 0, -1);
        rest_first = nb_symbol_optional(&c->r, SEQUENCE(one, rest_next));
    }
    if (nb_alloc(&members, (size_t)count, sizeof *members, "a schema", &c->r.failure) == NB_OK)
        nb_alloc(&needed, (size_t)count, sizeof *needed, "a schema", &c->r.failure);
    int i = 0;
    for (const cJSON *p = named ? named->child : NULL; p && !c->r.failure.status; p = p->next, i++) {
        size_t at = enter(c, "properties");
        enter(c, p->string);
        nb_symbol value = schema_symbol(c, p);
        leave(c, at);
        if (c->r.failure.status) break;
        members[i] = member(c, key_of(c, p->string), value);
        needed[i] = is_required(required, p->string);
    }
    nb_symbol all = none();
    if (!c->r.failure.status)
        all = SEQUENCE(literal(c, "{"), space(c), properties(c, members, needed, count, rest_first, rest_next), literal(c, "}"));
    free(members);
    free(needed);
    return all;
}

/* ---- any schema ---------------------------------------------------------------------------------------------------------- */

static nb_symbol typed(compiler *c, const cJSON *schema, const char *type)
{
    if (!strcmp(type, "object")) return object_schema(c, schema);
    if (!strcmp(type, "array")) return array_schema(c, schema);
    if (!strcmp(type, "string")) return string_schema(c, schema);
    if (!strcmp(type, "integer")) return integer_schema(c, schema);
    if (!strcmp(type, "number")) return ONLY("type", "format") ? number(c) : none();
    if (!strcmp(type, "boolean")) return ONLY("type") ? CHOICE(literal(c, "true"), literal(c, "false")) : none();
    if (!strcmp(type, "null")) return ONLY("type") ? literal(c, "null") : none();
    return refuse(c, NB_ERR_INPUT, "this type does not exist");
}

/* Schemas of an array, one of which holds. */
static nb_symbol one_of(compiler *c, const cJSON *all, const char *key)
{
    nb_symbol rule = nb_rule_declare(&c->r);
    int       n = 0;
    if (!cJSON_IsArray(all) || !all->child) return refuse(c, NB_ERR_INPUT, "anyOf, oneOf and allOf are arrays with at least one schema");
    for (const cJSON *s = all->child; s && !c->r.failure.status; s = s->next, n++) {
        char   name[40];
        snprintf(name, sizeof name, "%s/%d", key, n);
        size_t    at = enter(c, name);
        nb_symbol part = schema_symbol(c, s);
        leave(c, at);
        if (!c->r.failure.status) nb_rule_add(&c->r, rule, &part, 1);
    }
    return rule;
}

static nb_symbol enumeration(compiler *c, const cJSON *all)
{
    nb_symbol rule = nb_rule_declare(&c->r);
    if (!cJSON_IsArray(all) || !all->child) return refuse(c, NB_ERR_INPUT, "enum has to be an array with at least one value");
    if (cJSON_GetArraySize(all) > MAX_ENUM) return refuse(c, NB_ERR_UNSUPPORTED, "an enum of more than 4096 values");
    for (const cJSON *v = all->child; v && !c->r.failure.status; v = v->next) {
        nb_symbol s = constant(c, v);
        if (!c->r.failure.status) nb_rule_add(&c->r, rule, &s, 1);
    }
    return rule;
}

/* "#", "#/$defs/NAME", any JSON pointer into the schema. */
static const cJSON *resolve(compiler *c, const char *pointer)
{
    const cJSON *at = c->root;
    if (pointer[0] != '#') return NULL;
    for (pointer++; at && *pointer == '/';) {
        char   name[128];
        size_t n = 0;
        for (pointer++; *pointer && *pointer != '/'; pointer++) {
            char ch = *pointer;
            if (ch == '~' && (pointer[1] == '0' || pointer[1] == '1')) ch = *++pointer == '0' ? '~' : '/';
            if (n + 1 == sizeof name) return NULL;
            name[n++] = ch;
        }
        name[n] = 0;
        at = cJSON_IsArray(at) ? cJSON_GetArrayItem(at, atoi(name)) : cJSON_GetObjectItemCaseSensitive(at, name);
    }
    return *pointer ? NULL : at;
}

static nb_symbol reference(compiler *c, const cJSON *ref)
{
    const cJSON *target = cJSON_IsString(ref) ? resolve(c, ref->valuestring) : NULL;
    if (!target) return refuse(c, NB_ERR_INPUT, "a $ref that leads nowhere in this schema");
    for (int i = 0; i < c->definition_count; i++)
        if (c->definitions[i].schema == target) return c->definitions[i].rule;
    if (c->definition_count == MAX_DEFINITIONS) return refuse(c, NB_ERR_UNSUPPORTED, "too many definitions");
    nb_symbol rule = nb_rule_declare(&c->r);
    c->definitions[c->definition_count].schema = target;
    c->definitions[c->definition_count++].rule = rule;
    int depth = c->depth;
    c->depth = 0; /* what was nested around the reference does not count for what it points to */
    nb_symbol body = schema_symbol(c, target);
    c->depth = depth;
    if (!c->r.failure.status) nb_rule_add(&c->r, rule, &body, 1);
    return rule;
}

static nb_symbol schema_of(compiler *c, const cJSON *schema)
{
    if (cJSON_IsTrue(schema)) return any_value(c);
    if (!cJSON_IsObject(schema)) return refuse(c, NB_ERR_INPUT, "a schema has to be an object or true");
    const cJSON *ref = cJSON_GetObjectItemCaseSensitive(schema, "$ref"), *one = cJSON_GetObjectItemCaseSensitive(schema, "const"),
                *list_of = cJSON_GetObjectItemCaseSensitive(schema, "enum"), *any = cJSON_GetObjectItemCaseSensitive(schema, "anyOf"),
                *type = cJSON_GetObjectItemCaseSensitive(schema, "type");
    if (ref) return ONLY("$ref") ? reference(c, ref) : none();
    if (one) return ONLY("const", "type") ? constant(c, one) : none();
    if (list_of) return ONLY("enum", "type") ? enumeration(c, list_of) : none();
    if (any) return ONLY("anyOf", "type") ? one_of(c, any, "anyOf") : none();
    if ((any = cJSON_GetObjectItemCaseSensitive(schema, "oneOf")) != NULL) return ONLY("oneOf", "type", "discriminator") ? one_of(c, any, "oneOf") : none();
    if ((any = cJSON_GetObjectItemCaseSensitive(schema, "allOf")) != NULL) {
        if (!ONLY("allOf")) return none();
        return cJSON_GetArraySize(any) == 1 ? one_of(c, any, "allOf") : refuse(c, NB_ERR_UNSUPPORTED, "allOf of several schemas");
    }
    if (cJSON_IsString(type)) return typed(c, schema, type->valuestring);
    if (cJSON_IsArray(type) && type->child) {
        nb_symbol rule = nb_rule_declare(&c->r);
        for (const cJSON *t = type->child; t && !c->r.failure.status; t = t->next) {
            /* Only the keywords of this type count for it. */
            cJSON *copy = cJSON_Duplicate(schema, true);
            if (!copy) return refuse(c, NB_ERR_MEMORY, "out of memory");
            static const char *const of[][12] = { { "object", "properties", "required", "additionalProperties" },
                                                  { "array", "items", "prefixItems", "minItems", "maxItems" },
                                                  { "string", "minLength", "maxLength", "pattern", "format" },
                                                  { "integer", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum" } };
            for (size_t k = 0; k < NB_COUNT(of) && cJSON_IsString(t); k++)
                for (int j = 1; strcmp(of[k][0], t->valuestring) && of[k][j]; j++) cJSON_DeleteItemFromObjectCaseSensitive(copy, of[k][j]);
            nb_symbol part = cJSON_IsString(t) ? typed(c, copy, t->valuestring) : refuse(c, NB_ERR_INPUT, "type has to be a text");
            cJSON_Delete(copy);
            if (!c->r.failure.status) nb_rule_add(&c->r, rule, &part, 1);
        }
        return rule;
    }
    if (type) return refuse(c, NB_ERR_INPUT, "type has to be a text or an array of texts");
    if (cJSON_GetObjectItemCaseSensitive(schema, "properties")) return object_schema(c, schema);
    if (cJSON_GetObjectItemCaseSensitive(schema, "items")) return array_schema(c, schema);
    return ONLY("type") ? any_value(c) : none();
}

static nb_symbol schema_symbol(compiler *c, const cJSON *schema)
{
    if (c->r.failure.status) return none();
    if (c->depth == MAX_DEPTH) return refuse(c, NB_ERR_UNSUPPORTED, "schemas nested more than 32 deep");
    c->depth++;
    nb_symbol s = schema_of(c, schema);
    c->depth--;
    return s;
}

/* ---- grammars ------------------------------------------------------------------------------------------------------------ */

static nb_status new_compiler(compiler **out, const cJSON *root, nb_error *err)
{
    NB_TRY(nb_alloc(out, 1, sizeof **out, "a schema", err));
    (*out)->root = root;
    return NB_OK;
}

nb_status nb_grammar_json_schema(nb_grammar **out, const cJSON *schema, const nb_token_trie *trie, nb_error *err)
{
    compiler *c;
    *out = NULL;
    NB_TRY(new_compiler(&c, schema, err));
    nb_symbol s = schema_symbol(c, schema);
    nb_status status = nb_grammar_from_rules(out, &c->r, s, trie, err);
    free(c);
    return status;
}

nb_status nb_grammar_json_object(nb_grammar **out, const nb_token_trie *trie, nb_error *err)
{
    compiler *c;
    *out = NULL;
    NB_TRY(new_compiler(&c, NULL, err));
    nb_symbol s = any_object(c);
    nb_status status = nb_grammar_from_rules(out, &c->r, s, trie, err);
    free(c);
    return status;
}

static nb_symbol tool_call(compiler *c, const char *name, const cJSON *schema)
{
    size_t at = enter(c, name);
    c->root = schema;
    c->definition_count = 0;
    nb_symbol arguments = schema ? schema_symbol(c, schema) : any_object(c);
    leave(c, at);
    if (c->r.failure.status) return none();
    return SEQUENCE(literal(c, "<tool_call>\n{\"name\": "), key_of(c, name), literal(c, ", \"arguments\": "), arguments,
                    literal(c, "}\n</tool_call>"));
}

nb_status nb_grammar_tools(nb_grammar **out, const char *const *names, const cJSON *const *schemas, int count, bool single,
                           const nb_token_trie *trie, nb_error *err)
{
    compiler *cp;
    *out = NULL;
    NB_TRY(new_compiler(&cp, NULL, err));
    compiler *c = cp;
    nb_symbol one = nb_rule_declare(&c->r);
    for (int i = 0; i < count && !c->r.failure.status; i++) {
        nb_symbol call = tool_call(c, names[i], schemas[i]);
        if (!c->r.failure.status) nb_rule_add(&c->r, one, &call, 1);
    }
    nb_symbol all = one;
    if (!single && !c->r.failure.status) all = SEQUENCE(one, nb_symbol_repeat(&c->r, SEQUENCE(literal(c, "\n"), one), 0, 15));
    nb_status status = nb_grammar_from_rules(out, &c->r, all, trie, err);
    free(c);
    return status;
}
