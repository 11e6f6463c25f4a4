/* checkpoint_index.c - {"weight_map": {tensor: file}} against the files themselves.
 *
 * The index is input like any other: a file name in it may not leave the directory, and what it says must be exactly
 * what the shards hold, in both directions.  A tensor that only one of them knows is a stale or mixed-up shard, and
 * loading it would give a model that nobody trained.  metadata.total_size is informative (writers count it in different
 * ways) and not looked at. */
#include "runtime/io/checkpoint_index.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/io/file.h"

enum { MAX_INDEX = 64 << 20 };

typedef struct {
    const char *tensor, *file;
    size_t      shard; /* number of file in the shards */
} place;

typedef struct {
    char  *path;  /* of the index */
    cJSON *tree;  /* owns the names */
    place *places;
    size_t count;
} index_file;

static int by_file(const void *a, const void *b)
{
    return strcmp(((const place *)a)->file, ((const place *)b)->file);
}

static int by_tensor(const void *a, const void *b)
{
    return strcmp(((const place *)a)->tensor, ((const place *)b)->tensor);
}

/* A plain name of a safetensors file in the same directory. */
static bool plain_name(const char *name)
{
    size_t n = strlen(name), m = strlen(".safetensors");
    for (size_t i = 0; i < n; i++)
        if (name[i] == '/' || name[i] == '\\' || (unsigned char)name[i] < 0x20) return false;
    return n > m && !strcmp(name + n - m, ".safetensors");
}

static nb_status read_index(index_file *x, nb_error *err)
{
    NB_TRY(nb_json_file(&x->tree, x->path, MAX_INDEX, err));
    const cJSON *map = nb_json_find(x->tree, "weight_map");
    if (!cJSON_IsObject(map)) return nb_fail(err, NB_ERR_INPUT, "%s: weight_map is missing or no object", x->path);
    if (!map->child) return nb_fail(err, NB_ERR_INPUT, "%s: weight_map is empty", x->path);
    NB_TRY(nb_alloc(&x->places, (size_t)cJSON_GetArraySize(map), sizeof *x->places, "the index of a checkpoint", err));
    for (const cJSON *item = map->child; item; item = item->next) {
        if (!cJSON_IsString(item))
            return nb_fail(err, NB_ERR_INPUT, "%s: weight_map.%.200s is not a file name", x->path, item->string);
        if (!plain_name(item->valuestring))
            return nb_fail(err, NB_ERR_INPUT,
                           "%s: weight_map.%.200s names '%.200s', which is not a plain *.safetensors file name",
                           x->path, item->string, item->valuestring);
        x->places[x->count++] = (place){.tensor = item->string, .file = item->valuestring};
    }
    return NB_OK;
}

/* Open each named file once; x->places is sorted by file. */
static nb_status open_files(nb_shards *out, index_file *x, const char *directory, nb_error *err)
{
    size_t capacity = 0;
    for (size_t i = 0; i < x->count; i++) {
        if (i == 0 || strcmp(x->places[i - 1].file, x->places[i].file)) {
            NB_TRY(nb_grow(&out->file, &capacity, out->count + 1, sizeof *out->file, "the shards of a checkpoint", err));
            char *path = nb_path_join(directory, x->places[i].file);
            if (!path) return nb_fail(err, NB_ERR_MEMORY, "%s: no memory for a path", directory);
            nb_status status = nb_safetensors_open(&out->file[out->count], path, err);
            if (status != NB_OK && !nb_file_exists(path)) nb_error_within(err, "%s names a missing shard", x->path);
            free(path);
            if (status != NB_OK) return status;
            out->count++;
        }
        x->places[i].shard = out->count - 1;
    }
    return NB_OK;
}

/* Every tensor of every shard is where the index says; x->places is sorted by tensor. */
static nb_status check_shard(const nb_shards *s, const index_file *x, size_t shard, nb_error *err)
{
    const nb_safetensors *file = s->file[shard];
    for (size_t i = 0; i < nb_safetensors_count(file); i++) {
        const char  *name   = nb_safetensors_at(file, i)->name;
        place        wanted = {.tensor = name};
        const place *p      = bsearch(&wanted, x->places, x->count, sizeof *x->places, by_tensor);
        if (!p)
            return nb_fail(err, NB_ERR_INPUT, "%s: holds tensor '%.200s', which %s does not list",
                           nb_safetensors_path(file), name, x->path);
        if (p->shard == shard) continue;
        if (nb_safetensors_find(s->file[p->shard], name))
            return nb_fail(err, NB_ERR_INPUT, "%s: tensor '%.200s' is also in '%.200s'", nb_safetensors_path(file),
                           name, p->file);
        return nb_fail(err, NB_ERR_INPUT, "%s: holds tensor '%.200s', which %s places in '%.200s'",
                       nb_safetensors_path(file), name, x->path, p->file);
    }
    return NB_OK;
}

static nb_status open_all(nb_shards *out, index_file *x, const char *directory, nb_error *err)
{
    NB_TRY(read_index(x, err));
    qsort(x->places, x->count, sizeof *x->places, by_file);
    NB_TRY(open_files(out, x, directory, err));
    qsort(x->places, x->count, sizeof *x->places, by_tensor);
    for (size_t i = 0; i < out->count; i++) NB_TRY(check_shard(out, x, i, err));
    for (size_t i = 0; i < x->count; i++) {
        const place *p = &x->places[i];
        if (!nb_safetensors_find(out->file[p->shard], p->tensor))
            return nb_fail(err, NB_ERR_INPUT, "%s: lists tensor '%.200s' in '%.200s', which does not hold it", x->path,
                           p->tensor, p->file);
    }
    return NB_OK;
}

nb_status nb_shards_open(nb_shards *out, const char *directory, const char *index, nb_error *err)
{
    index_file x = {.path = nb_path_join(directory, index)};
    if (!x.path) return nb_fail(err, NB_ERR_MEMORY, "%s: no memory for a path", directory);
    nb_status status = open_all(out, &x, directory, err);
    cJSON_Delete(x.tree);
    free(x.places);
    free(x.path);
    return status;
}

void nb_shards_close(nb_shards *s)
{
    for (size_t i = 0; i < s->count; i++) nb_safetensors_close(s->file[i]);
    free(s->file);
    *s = (nb_shards){0};
}
