/* flatten.c - a JSON tree as paths and values, so that two trees are compared by one walk down two sorted lists. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/file.h"
#include "tools/compare/diff.h"

enum { JSON_LIMIT = 256 << 20, DEPTH = 64 };

void nb_diff_free(nb_diff *d)
{
    for (size_t i = 0; i < d->count; i++) {
        free(d->items[i].where);
        free(d->items[i].a);
        free(d->items[i].b);
    }
    for (size_t i = 0; i < d->row_count; i++) free(d->rows[i].name);
    free(d->items);
    free(d->rows);
    *d = (nb_diff){0};
}

void nb_diff_add(nb_diff *d, const char *part, const char *where, const char *a, const char *b, const char *note)
{
    if (nb_grow(&d->items, &d->capacity, d->count + 1, sizeof *d->items, "differences", NULL) != NB_OK) {
        d->failed = true;
        return;
    }
    nb_difference *x = &d->items[d->count++];
    *x = (nb_difference){part, nb_strdup(where), nb_strdup(a), nb_strdup(b), note};
    d->failed = d->failed || !x->where || (a && !x->a) || (b && !x->b);
    d->differing += note == NULL;
}

nb_status nb_diff_read(cJSON **out, const char *directory, const char *name, nb_error *err)
{
    char *path = nb_path_join(directory, name);
    *out = NULL;
    if (!path) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", directory);
    nb_status status = nb_file_exists(path) ? nb_json_file(out, path, JSON_LIMIT, err) : NB_OK;
    free(path);
    return status;
}

void nb_leaves_free(nb_leaves *l)
{
    for (size_t i = 0; i < l->count; i++) {
        free(l->items[i].path);
        free(l->items[i].value);
    }
    free(l->items);
    *l = (nb_leaves){0};
}

static int by_path(const void *a, const void *b)
{
    const nb_leaf *x = a, *y = b;
    int            order = strcmp(x->path, y->path);
    return order ? order : (x->rank > y->rank) - (x->rank < y->rank);
}

void nb_leaves_sort(nb_leaves *l)
{
    if (l->count) qsort(l->items, l->count, sizeof *l->items, by_path);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The items of an array in order of their text, as one value. */
static nb_status sorted_items(nb_buf *out, const cJSON *array, nb_error *err)
{
    size_t n = (size_t)cJSON_GetArraySize(array), i = 0;
    char **texts;
    NB_TRY(nb_alloc(&texts, n, sizeof *texts, "a JSON array", err));
    nb_status status = NB_OK;
    for (const cJSON *item = array->child; item && status == NB_OK; item = item->next, i++) {
        nb_buf one = {0};
        nb_json_print(&one, item, NB_JSON_COMPACT);
        status = nb_buf_status(&one, "a JSON array", err);
        texts[i] = one.data;
    }
    if (status == NB_OK) qsort(texts, n, sizeof *texts, by_text);
    for (size_t j = 0; j < n && status == NB_OK; j++) nb_buf_printf(out, "%s%s", j ? ", " : "[", texts[j]);
    nb_buf_char(out, ']');
    for (size_t j = 0; j < n; j++) free(texts[j]);
    free(texts);
    return status;
}

static bool is_set(const cJSON *array)
{
    const char *key = array->string ? array->string : "";
    bool        strings = array->child != NULL;
    for (const cJSON *item = array->child; item; item = item->next) strings = strings && cJSON_IsString(item);
    return strings || !strcmp(key, "eos_token_id");
}

static nb_status add_leaf(nb_leaves *out, const char *path, nb_buf *value, nb_error *err)
{
    nb_status status = nb_buf_status(value, path, err);
    if (status == NB_OK) status = nb_grow(&out->items, &out->capacity, out->count + 1, sizeof *out->items, "JSON values", err);
    if (status == NB_OK) {
        nb_leaf *leaf = &out->items[out->count++];
        *leaf = (nb_leaf){nb_strdup(path), value->data, 0};
        *value = (nb_buf){0};
        if (!leaf->path || !leaf->value) status = nb_fail(err, NB_ERR_MEMORY, "out of memory for JSON values");
    }
    nb_buf_free(value);
    return status;
}

static nb_status flatten(nb_leaves *out, const cJSON *item, nb_buf *path, int depth, nb_error *err)
{
    nb_buf value = {0};
    if (cJSON_IsNull(item) || depth > DEPTH) return NB_OK;
    if (cJSON_IsArray(item) && is_set(item)) {
        NB_TRY(sorted_items(&value, item, err));
        return add_leaf(out, path->data, &value, err);
    }
    if ((cJSON_IsObject(item) || cJSON_IsArray(item)) && item->child) {
        size_t end = path->size, i = 0;
        for (const cJSON *child = item->child; child; child = child->next, i++) {
            if (cJSON_IsObject(item)) nb_buf_printf(path, "%s%s", end ? "." : "", child->string);
            else nb_buf_printf(path, "[%zu]", i);
            NB_TRY(nb_buf_status(path, "a JSON path", err));
            NB_TRY(flatten(out, child, path, depth + 1, err));
            path->size = end;
            path->data[end] = 0;
        }
        return NB_OK;
    }
    nb_json_print(&value, item, NB_JSON_COMPACT); /* strings with quotes, {} and [] */
    return add_leaf(out, path->data, &value, err);
}

nb_status nb_flatten(nb_leaves *out, const cJSON *tree, nb_error *err)
{
    nb_buf path = {0};
    *out = (nb_leaves){0};
    nb_buf_str(&path, "");
    nb_status status = nb_buf_status(&path, "a JSON path", err);
    if (status == NB_OK && tree) status = flatten(out, tree, &path, 0, err);
    nb_buf_free(&path);
    nb_leaves_sort(out);
    if (status != NB_OK) nb_leaves_free(out);
    return status;
}
