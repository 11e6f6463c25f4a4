/* json.c - a strict parser that makes cJSON's trees, and typed members with messages that name the place.
 *
 * One pass over the tokens refuses everything cJSON would let through and builds the tree on the way; cJSON's own parser is not
 * used.  Duplicate keys are found per object by sorting (hash, bytes) when the object closes: no choice of
 * keys makes that slower than n log n, which a hash table with a known hash could not promise, and only the keys of objects
 * still open are held. */
#include "runtime/io/json.h"

#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/file.h"
#include "runtime/io/json_scan.h"

enum { FEW_KEYS = 8 };

/* ---- duplicate keys -------------------------------------------------------------------------------------------------- */

typedef struct {
    const char *bytes; /* in the text, or in decoded when the key held escapes */
    size_t      at;    /* where the key stands in the text */
    uint32_t    length, hash;
} key;

typedef struct {
    key   *keys; /* of all open objects, innermost last */
    size_t count, capacity;
    size_t first[NB_JSON_DEPTH + 1]; /* by depth: where that object's keys begin */
    nb_buf decoded;                  /* reserved once, as large as the text: what points into it never moves */
} key_stack;

static int compare_bytes(const key *a, const key *b)
{
    if (a->hash != b->hash) return a->hash < b->hash ? -1 : 1;
    if (a->length != b->length) return a->length < b->length ? -1 : 1;
    return memcmp(a->bytes, b->bytes, a->length);
}

static int compare_keys(const void *a, const void *b)
{
    const key *x = a, *y = b;
    int        c = compare_bytes(x, y);
    return c ? c : (x->at > y->at) - (x->at < y->at);
}

static nb_status push_key(key_stack *k, const nb_json_scan *s, nb_error *err)
{
    NB_TRY(nb_grow(&k->keys, &k->capacity, k->count + 1, sizeof *k->keys, s->name, err));
    key new = {.bytes = s->text + s->start, .at = s->start - 1, .length = (uint32_t)s->length, .hash = 2166136261u};
    if (s->escaped) {
        if (!k->decoded.data) { /* decoding never lengthens, so the text's own size is enough for all keys */
            k->decoded.data     = malloc(s->size + 1);
            k->decoded.capacity = s->size + 1;
            if (!k->decoded.data)
                return nb_fail(err, NB_ERR_MEMORY, "%s: no memory to check %zu bytes", s->name, s->size);
        }
        new.bytes  = k->decoded.data + k->decoded.size;
        new.length = (uint32_t)nb_json_scan_decode(s, k->decoded.data + k->decoded.size);
        k->decoded.size += new.length;
    }
    for (uint32_t i = 0; i < new.length; i++) new.hash = (new.hash ^ (unsigned char)new.bytes[i]) * 16777619u;
    k->keys[k->count++] = new;
    return NB_OK;
}

/* Few keys are compared with one another at once. */
static bool all_differ(const key *keys, size_t n)
{
    for (size_t i = 1; i < n; i++)
        for (size_t j = 0; j < i; j++)
            if (keys[i].hash == keys[j].hash && compare_bytes(&keys[i], &keys[j]) == 0) return false;
    return true;
}

static nb_status close_object(key_stack *k, const nb_json_scan *s, nb_error *err)
{
    size_t first = k->first[s->depth], n = k->count - first;
    k->count     = first;
    if (n < 2) return NB_OK;
    key *keys = k->keys + first;
    if (n <= FEW_KEYS && all_differ(keys, n)) return NB_OK;
    qsort(keys, n, sizeof *keys, compare_keys);
    const key *worst = NULL; /* the duplicate that stands first in the text */
    for (size_t i = 1; i < n; i++)
        if (compare_bytes(&keys[i - 1], &keys[i]) == 0 && (!worst || keys[i].at < worst->at)) worst = &keys[i];
    if (!worst) return NB_OK;
    int shown = worst->length < 80 ? (int)worst->length : 80;
    while (shown > 0 && shown < (int)worst->length && ((unsigned char)worst->bytes[shown] & 0xC0) == 0x80) shown--;
    return nb_json_scan_fail(s, worst->at, err, "duplicate key '%.*s'", shown, worst->bytes);
}

/* ---- parsing --------------------------------------------------------------------------------------------------------- */

typedef struct {
    cJSON *root;
    cJSON *open[NB_JSON_DEPTH]; /* the containers around the present token */
    char  *name;                /* of the member that comes next; NULL: none */
} builder;

/* The current key or string as cJSON keeps it; NULL on no memory. */
static char *take_string(const nb_json_scan *s)
{
    char *text = cJSON_malloc(s->length + 1);
    if (text) text[nb_json_scan_decode(s, text)] = 0;
    return text;
}

static locale_t       plain_locale; /* "C", in which the decimal point is a point; never freed */
static pthread_once_t plain_once = PTHREAD_ONCE_INIT;

static void make_locale(void)
{
    plain_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

/* The scanner has judged it: it is a number and not infinite.  (cJSON's parser is not asked: it writes to a global.) */
static cJSON *make_number(const nb_json_scan *s)
{
    char  small[64];
    char *copy = s->length < sizeof small ? small : malloc(s->length + 1);
    if (!copy) return NULL;
    memcpy(copy, s->text + s->start, s->length);
    copy[s->length] = 0;
    pthread_once(&plain_once, make_locale);
    cJSON *item = plain_locale ? cJSON_CreateNumber(strtod_l(copy, NULL, plain_locale)) : NULL;
    if (copy != small) free(copy);
    return item;
}

static cJSON *make_item(const nb_json_scan *s)
{
    switch (s->token) {
    case NB_TOKEN_OBJECT: return cJSON_CreateObject();
    case NB_TOKEN_ARRAY: return cJSON_CreateArray();
    case NB_TOKEN_TRUE: return cJSON_CreateTrue();
    case NB_TOKEN_FALSE: return cJSON_CreateFalse();
    case NB_TOKEN_NUMBER: return make_number(s);
    default: break;
    }
    cJSON *item = cJSON_CreateNull();
    if (item && s->token == NB_TOKEN_STRING) {
        item->type = cJSON_String;
        item->valuestring = take_string(s);
        if (!item->valuestring) {
            cJSON_Delete(item);
            return NULL;
        }
    }
    return item;
}

/* Behind the last child of the innermost open container, or as the root.  A list's first child knows its last one. */
static bool add_item(builder *t, const nb_json_scan *s)
{
    cJSON *item = make_item(s);
    int    around = s->token == NB_TOKEN_OBJECT || s->token == NB_TOKEN_ARRAY ? s->depth - 1 : s->depth;
    if (!item) return false;
    item->string = t->name;
    t->name = NULL;
    if (around == 0) {
        t->root = item;
    } else {
        cJSON *parent = t->open[around - 1], *first = parent->child;
        if (first) {
            item->prev = first->prev;
            first->prev->next = item;
            first->prev = item;
        } else {
            parent->child = item;
            item->prev = item;
        }
    }
    if (around < s->depth) t->open[around] = item;
    return true;
}

static nb_status build(builder *t, nb_json_scan *s, key_stack *k, nb_error *err)
{
    for (;;) {
        bool good = true;
        NB_TRY(nb_json_scan_next(s, err));
        switch (s->token) {
        case NB_TOKEN_END: return NB_OK;
        case NB_TOKEN_ARRAY_END: break;
        case NB_TOKEN_OBJECT_END: NB_TRY(close_object(k, s, err)); break;
        case NB_TOKEN_KEY:
            NB_TRY(push_key(k, s, err));
            t->name = take_string(s);
            good = t->name != NULL;
            break;
        case NB_TOKEN_OBJECT: k->first[s->depth - 1] = k->count; /* fall through */
        default: good = add_item(t, s);
        }
        if (!good) return nb_fail(err, NB_ERR_MEMORY, "%s: no memory for the tree of %zu bytes of JSON", s->name, s->size);
    }
}

nb_status nb_json_parse_at(cJSON **out, const char *text, size_t n, const char *name, size_t line, size_t column,
                           nb_error *err)
{
    *out = NULL;
    if (n >= UINT32_MAX)
        return nb_fail(err, NB_ERR_INPUT, "%s: %zu bytes of JSON are more than the 4 GiB that can be read", name, n);
    nb_json_scan s;
    key_stack    k = {0};
    builder      t = {0};
    nb_json_scan_begin(&s, text, n, name);
    s.line           = line;
    s.column         = column;
    nb_status status = build(&t, &s, &k, err);
    free(k.keys);
    nb_buf_free(&k.decoded);
    cJSON_free(t.name);
    if (status != NB_OK)
        cJSON_Delete(t.root);
    else
        *out = t.root;
    return status;
}

nb_status nb_json_parse(cJSON **out, const char *text, size_t n, const char *name, nb_error *err)
{
    return nb_json_parse_at(out, text, n, name, 1, 1, err);
}

nb_status nb_json_file(cJSON **out, const char *path, size_t limit, nb_error *err)
{
    *out = NULL;
    nb_buf text;
    NB_TRY(nb_file_read(&text, path, limit, err));
    nb_status status = nb_json_parse(out, text.data, text.size, path, err);
    nb_buf_free(&text);
    return status;
}

/* ---- typed members --------------------------------------------------------------------------------------------------- */

const cJSON *nb_json_find(const cJSON *object, const char *name)
{
    if (!cJSON_IsObject(object)) return NULL;
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsNull(item) ? NULL : item;
}

/* "config.json" + "depth" is "config.json: depth"; "config.json: vision_config" + "depth" has a dot. */
static const char *between(const char *where)
{
    return strstr(where, ": ") ? "." : ": ";
}

static const char *type_of(const cJSON *item)
{
    return cJSON_IsString(item)   ? "a string"
           : cJSON_IsNumber(item) ? "a number"
           : cJSON_IsObject(item) ? "an object"
           : cJSON_IsArray(item)  ? "an array"
           : cJSON_IsBool(item)   ? "a truth value"
                                  : "null";
}

static nb_status missing(const char *name, const char *where, nb_error *err)
{
    return nb_fail(err, NB_ERR_INPUT, "%s%s%s is missing", where, between(where), name);
}

nb_status nb_json_opt_int(const cJSON *o, const char *name, int64_t min, int64_t max, int64_t *out, const char *where,
                          nb_error *err)
{
    const cJSON *item = nb_json_find(o, name);
    if (!item) return NB_OK;
    if (!cJSON_IsNumber(item))
        return nb_fail(err, NB_ERR_INPUT, "%s%s%s is %s, expected a whole number", where, between(where), name,
                       type_of(item));
    double v = item->valuedouble;
    /* From 2^53 on a double no longer says which integer the file meant. */
    if (!(v == floor(v)) || !(fabs(v) < 9007199254740992.0))
        return nb_fail(err, NB_ERR_INPUT, "%s%s%s is %.17g, expected a whole number below 2^53", where, between(where),
                       name, v);
    if ((int64_t)v < min || (int64_t)v > max)
        return nb_fail(err, NB_ERR_INPUT, "%s%s%s is %lld, expected %lld to %lld", where, between(where), name,
                       (long long)v, (long long)min, (long long)max);
    *out = (int64_t)v;
    return NB_OK;
}

nb_status nb_json_get_int(const cJSON *o, const char *name, int64_t min, int64_t max, int64_t *out, const char *where,
                          nb_error *err)
{
    if (!nb_json_find(o, name)) return missing(name, where, err);
    return nb_json_opt_int(o, name, min, max, out, where, err);
}

nb_status nb_json_opt_number(const cJSON *o, const char *name, double min, double max, double *out, const char *where,
                             nb_error *err)
{
    const cJSON *item = nb_json_find(o, name);
    if (!item) return NB_OK;
    if (!cJSON_IsNumber(item))
        return nb_fail(err, NB_ERR_INPUT, "%s%s%s is %s, expected a number", where, between(where), name, type_of(item));
    if (!(item->valuedouble >= min && item->valuedouble <= max))
        return nb_fail(err, NB_ERR_INPUT, "%s%s%s is %.17g, expected %g to %g", where, between(where), name,
                       item->valuedouble, min, max);
    *out = item->valuedouble;
    return NB_OK;
}

nb_status nb_json_get_number(const cJSON *o, const char *name, double min, double max, double *out, const char *where,
                             nb_error *err)
{
    if (!nb_json_find(o, name)) return missing(name, where, err);
    return nb_json_opt_number(o, name, min, max, out, where, err);
}

nb_status nb_json_opt_bool(const cJSON *o, const char *name, bool *out, const char *where, nb_error *err)
{
    const cJSON *item = nb_json_find(o, name);
    if (!item) return NB_OK;
    if (!cJSON_IsBool(item))
        return nb_fail(err, NB_ERR_INPUT, "%s%s%s is %s, expected true or false", where, between(where), name,
                       type_of(item));
    *out = cJSON_IsTrue(item);
    return NB_OK;
}

nb_status nb_json_opt_string(const cJSON *o, const char *name, const char **out, const char *where, nb_error *err)
{
    const cJSON *item = nb_json_find(o, name);
    if (!item) return NB_OK;
    if (!cJSON_IsString(item))
        return nb_fail(err, NB_ERR_INPUT, "%s%s%s is %s, expected a string", where, between(where), name, type_of(item));
    *out = item->valuestring;
    return NB_OK;
}

nb_status nb_json_get_string(const cJSON *o, const char *name, const char **out, const char *where, nb_error *err)
{
    if (!nb_json_find(o, name)) return missing(name, where, err);
    return nb_json_opt_string(o, name, out, where, err);
}

/* ---- printing -------------------------------------------------------------------------------------------------------- */

static void new_line(nb_buf *out, int depth, nb_json_style style)
{
    if (style == NB_JSON_INDENTED) nb_buf_printf(out, "\n%*s", 2 * depth, "");
}

/* Recursive: a parsed tree is at most NB_JSON_DEPTH deep, and our own are shallow. */
static void print_value(nb_buf *out, const cJSON *v, nb_json_style style, int depth)
{
    bool object = cJSON_IsObject(v);
    if (cJSON_IsString(v)) {
        nb_buf_json_string(out, v->valuestring, strlen(v->valuestring));
    } else if (cJSON_IsNumber(v)) {
        nb_buf_json_number(out, v->valuedouble);
    } else if (object || cJSON_IsArray(v)) {
        nb_buf_char(out, object ? '{' : '[');
        for (const cJSON *child = v->child; child; child = child->next) {
            new_line(out, depth + 1, style);
            if (object) {
                nb_buf_json_string(out, child->string, strlen(child->string));
                nb_buf_str(out, style == NB_JSON_COMPACT ? ":" : ": ");
            }
            print_value(out, child, style, depth + 1);
            if (child->next) nb_buf_str(out, style == NB_JSON_SPACED ? ", " : ",");
        }
        if (v->child) new_line(out, depth, style);
        nb_buf_char(out, object ? '}' : ']');
    } else {
        nb_buf_str(out, cJSON_IsTrue(v) ? "true" : cJSON_IsFalse(v) ? "false" : "null");
    }
}

void nb_json_print(nb_buf *out, const cJSON *tree, nb_json_style style)
{
    print_value(out, tree, style, 0);
}
