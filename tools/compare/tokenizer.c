/* tokenizer.c - two tokenizers as three sorted lists: vocabulary, merges by rank, added tokens by id; and the rest of tokenizer.json
 * as leaves.  vocab.json and merges.txt stand in where there is no tokenizer.json. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/file.h"
#include "tools/compare/diff.h"

enum { SHOWN = 5, MERGES_LIMIT = 64 << 20 };

typedef struct {
    cJSON    *tree;   /* tokenizer.json, or vocab.json */
    nb_leaves vocab;  /* token, id */
    nb_leaves merges; /* path: rank as digits; value "a b" */
    nb_leaves added;  /* id, content and flags */
    nb_leaves rest;
    bool      there;
} tokenizer;

static void release(tokenizer *t)
{
    cJSON_Delete(t->tree);
    nb_leaves_free(&t->vocab);
    nb_leaves_free(&t->merges);
    nb_leaves_free(&t->added);
    nb_leaves_free(&t->rest);
}

static nb_status add(nb_leaves *l, const char *path, const char *value, nb_error *err)
{
    NB_TRY(nb_grow(&l->items, &l->capacity, l->count + 1, sizeof *l->items, "a tokenizer", err));
    nb_leaf *leaf = &l->items[l->count++];
    *leaf = (nb_leaf){nb_strdup(path), nb_strdup(value), 0};
    return leaf->path && leaf->value ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "out of memory for a tokenizer");
}

static nb_status add_merge(tokenizer *t, const char *first, const char *second, nb_error *err)
{
    char   rank[24];
    nb_buf pair = {0};
    snprintf(rank, sizeof rank, "%012zu", t->merges.count);
    nb_buf_printf(&pair, "%s%s%s", first, second ? " " : "", second ? second : "");
    nb_status s = nb_buf_status(&pair, "a merge", err);
    if (s == NB_OK) s = add(&t->merges, rank, pair.data, err);
    nb_buf_free(&pair);
    return s;
}

static nb_status read_vocab(tokenizer *t, const cJSON *vocab, nb_error *err)
{
    char id[32];
    for (const cJSON *v = cJSON_IsObject(vocab) ? vocab->child : NULL; v; v = v->next) {
        snprintf(id, sizeof id, "%.0f", cJSON_IsNumber(v) ? v->valuedouble : -1);
        NB_TRY(add(&t->vocab, v->string, id, err));
    }
    nb_leaves_sort(&t->vocab);
    return NB_OK;
}

/* tokenizer.json in full; what was taken out is removed from the tree, so that the rest can be flattened. */
static nb_status read_fast(tokenizer *t, nb_error *err)
{
    const cJSON *model = nb_json_find(t->tree, "model");
    if (cJSON_IsObject(model)) {
        NB_TRY(read_vocab(t, nb_json_find(model, "vocab"), err));
        const cJSON *merges = nb_json_find(model, "merges");
        for (const cJSON *m = cJSON_IsArray(merges) ? merges->child : NULL; m; m = m->next) {
            const char *first = cJSON_IsArray(m) && m->child ? cJSON_GetStringValue(m->child) : cJSON_GetStringValue(m);
            const char *second = cJSON_IsArray(m) && m->child && m->child->next ? cJSON_GetStringValue(m->child->next) : NULL;
            NB_TRY(add_merge(t, first ? first : "?", second, err));
        }
        cJSON_DeleteItemFromObjectCaseSensitive((cJSON *)model, "vocab");
        cJSON_DeleteItemFromObjectCaseSensitive((cJSON *)model, "merges");
    }
    const cJSON *added = nb_json_find(t->tree, "added_tokens");
    for (const cJSON *a = cJSON_IsArray(added) ? added->child : NULL; a; a = a->next) {
        char         id[32];
        nb_buf       text = {0};
        const cJSON *number = cJSON_IsObject(a) ? nb_json_find(a, "id") : NULL;
        snprintf(id, sizeof id, "id %.0f", cJSON_IsNumber(number) ? number->valuedouble : -1);
        nb_json_print(&text, a, NB_JSON_SPACED);
        nb_status s = nb_buf_status(&text, "an added token", err);
        if (s == NB_OK) s = add(&t->added, id, text.data, err);
        nb_buf_free(&text);
        NB_TRY(s);
    }
    nb_leaves_sort(&t->added);
    cJSON_DeleteItemFromObjectCaseSensitive(t->tree, "added_tokens");
    return nb_flatten(&t->rest, t->tree, err);
}

static nb_status read_merges(tokenizer *t, const char *directory, nb_error *err)
{
    nb_buf text = {0};
    char  *path = nb_path_join(directory, "merges.txt");
    if (!path) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", directory);
    nb_status s = nb_file_exists(path) ? nb_file_read(&text, path, MERGES_LIMIT, err) : NB_OK;
    free(path);
    for (char *at = text.data, *line; s == NB_OK && at && (line = strsep(&at, "\n"));)
        if (*line && strncmp(line, "#version", 8)) s = add_merge(t, line, NULL, err);
    nb_buf_free(&text);
    return s;
}

static nb_status read_tokenizer(tokenizer *t, const char *directory, nb_error *err)
{
    NB_TRY(nb_diff_read(&t->tree, directory, "tokenizer.json", err));
    t->there = t->tree != NULL;
    if (t->tree && cJSON_IsObject(t->tree)) return read_fast(t, err);
    cJSON_Delete(t->tree);
    t->tree = NULL;
    NB_TRY(nb_diff_read(&t->tree, directory, "vocab.json", err));
    t->there = t->there || t->tree;
    if (!t->tree) return NB_OK;
    NB_TRY(read_vocab(t, t->tree, err));
    return read_merges(t, directory, err);
}

/* Two sorted lists: the first few differences one by one, the others as a number. */
static void compare(nb_diff *d, const char *what, const nb_leaves *a, const nb_leaves *b)
{
    size_t i = 0, j = 0, found = 0;
    char   where[160], more[40];
    while (i < a->count || j < b->count) {
        const nb_leaf *x = i < a->count ? &a->items[i] : NULL, *y = j < b->count ? &b->items[j] : NULL;
        int            order = !x ? 1 : !y ? -1 : strcmp(x->path, y->path);
        const char    *left = order <= 0 ? x->value : NULL, *right = order >= 0 ? y->value : NULL;
        const char    *path = order <= 0 ? x->path : y->path;
        i += order <= 0;
        j += order >= 0;
        if (left && right && !strcmp(left, right)) continue;
        if (found++ >= SHOWN) continue;
        while (!strcmp(what, "merges") && path[0] == '0' && path[1]) path++; /* the rank without its zeros */
        snprintf(where, sizeof where, "%s: %.120s", what, path);
        nb_diff_add(d, "tokenizer", where, left, right, NULL);
    }
    if (found <= SHOWN) return;
    snprintf(where, sizeof where, "%s: all", what);
    snprintf(more, sizeof more, "%zu differ", found);
    nb_diff_add(d, "tokenizer", where, more, more, NULL);
}

nb_status nb_diff_tokenizer(nb_diff *d, const char *a, const char *b, nb_error *err)
{
    tokenizer x = {0}, y = {0};
    nb_status s = read_tokenizer(&x, a, err);
    if (s == NB_OK) s = read_tokenizer(&y, b, err);
    if (s == NB_OK && x.there != y.there) {
        nb_diff_add(d, "tokenizer", "tokenizer.json", x.there ? "there" : NULL, y.there ? "there" : NULL, NULL);
    } else if (s == NB_OK) {
        bool fast = x.rest.count && y.rest.count; /* without tokenizer.json the added tokens stand in tokenizer_config.json */
        compare(d, "vocab", &x.vocab, &y.vocab);
        compare(d, "merges", &x.merges, &y.merges);
        if (fast) compare(d, "added tokens", &x.added, &y.added);
        if (fast) compare(d, "tokenizer.json", &x.rest, &y.rest);
    }
    release(&x);
    release(&y);
    return s;
}
