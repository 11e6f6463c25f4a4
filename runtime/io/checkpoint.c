/* checkpoint.c - finds the weights in a directory and gives every tensor its canonical name.
 *
 * Which files belong to a checkpoint is decided by one rule, in the order in which other loaders look: model.safetensors;
 * else the shards that model.safetensors.index.json names (checkpoint_index.c); else the only *.safetensors file there.
 * Weights are not read here, and nothing is guessed: two candidates are an error. */
#include "runtime/io/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/io/checkpoint_index.h"
#include "runtime/io/file.h"

#define SINGLE_NAME "model.safetensors"
#define INDEX_NAME  "model.safetensors.index.json"

struct nb_checkpoint {
    char          *path;
    nb_layout      layout;
    nb_shards      shards;
    nb_entry      *entries; /* by canonical name */
    size_t         count;
    char          *renamed; /* the canonical names that are no part of a name in a file, one after the other */
};

/* ---- canonical names ------------------------------------------------------------------------------------------------- */

#define NEW_TEXT "model.language_model." /* the only prefix whose canonical name is not a tail of the name in the file */

/* The rest of name behind prefix, or NULL; the rest is not empty. */
static const char *behind(const char *name, const char *prefix)
{
    size_t n = strlen(prefix);
    return !strncmp(name, prefix, n) && name[n] ? name + n : NULL;
}

/* transformers >= 4.52 keeps the text model under model.language_model and the tower under model.visual; some converters
 * write language_model.model and language_model.lm_head.  *room is where a new name may be put. */
static const char *canonical_name(const char *name, char **room, nb_layout *layout)
{
    const char *rest = behind(name, NEW_TEXT);
    if (rest) {
        char *made = *room;
        *room      = stpcpy(stpcpy(made, "model."), rest) + 1;
        *layout    = NB_LAYOUT_NEW;
        return made;
    }
    if (behind(name, "model.visual.")) {
        *layout = NB_LAYOUT_NEW;
        return name + strlen("model.");
    }
    if (behind(name, "language_model.model.") || !strcmp(name, "language_model.lm_head.weight"))
        return name + strlen("language_model.");
    return name;
}

bool nb_checkpoint_canonical(char *out, size_t n, const char *name)
{
    char     *room = out;
    nb_layout ignored;
    if (strlen(name) >= n) return false;
    const char *canonical = canonical_name(name, &room, &ignored);
    if (canonical != out) memmove(out, canonical, strlen(canonical) + 1);
    return true;
}

static int compare_entries(const void *a, const void *b)
{
    return strcmp(((const nb_entry *)a)->name, ((const nb_entry *)b)->name);
}

static nb_status collect_entries(nb_checkpoint *c, nb_error *err)
{
    size_t count = 0, bytes = 0;
    for (size_t s = 0; s < c->shards.count; s++) {
        for (size_t i = 0; i < nb_safetensors_count(c->shards.file[s]); i++) {
            const char *name = nb_safetensors_at(c->shards.file[s], i)->name;
            count++;
            if (behind(name, NEW_TEXT)) bytes += strlen(name);
        }
    }
    if (count == 0) return nb_fail(err, NB_ERR_INPUT, "%s: its safetensors hold no tensor", c->path);
    NB_TRY(nb_alloc(&c->entries, count, sizeof *c->entries, "the tensors of a checkpoint", err));
    NB_TRY(nb_alloc(&c->renamed, bytes, 1, "the names of a checkpoint's tensors", err));
    char *room = c->renamed;
    for (size_t s = 0; s < c->shards.count; s++) {
        const nb_safetensors *file = c->shards.file[s];
        for (size_t i = 0; i < nb_safetensors_count(file); i++) {
            const nb_tensor *t = nb_safetensors_at(file, i);
            c->entries[c->count++] = (nb_entry){.name = canonical_name(t->name, &room, &c->layout), .tensor = t, .file = file};
        }
    }
    qsort(c->entries, count, sizeof *c->entries, compare_entries);
    for (size_t i = 1; i < count; i++) {
        const nb_entry *a = &c->entries[i - 1], *b = &c->entries[i];
        if (!strcmp(a->name, b->name))
            return nb_fail(err, NB_ERR_INPUT, "%s: tensors '%.200s' and '%.200s' (%s) are both '%.200s'",
                           nb_safetensors_path(a->file), a->tensor->name, b->tensor->name, nb_safetensors_path(b->file),
                           a->name);
    }
    return NB_OK;
}

/* ---- finding the files ----------------------------------------------------------------------------------------------- */

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

/* What a directory without the two known names holds. */
typedef struct {
    char  *single; /* the last *.safetensors seen */
    size_t safetensors, pytorch, gguf;
} contents;

static nb_status look_around(const char *path, contents *found, nb_error *err)
{
    DIR *names = opendir(path);
    if (!names) return nb_fail(err, NB_ERR_IO, "%s: cannot list the directory: %s", path, strerror(errno));
    nb_status status = NB_OK;
    for (struct dirent *e; status == NB_OK && (e = readdir(names));) {
        const char *name = e->d_name;
        if (name[0] == '.') continue; /* also the litter of other systems, ._model.safetensors */
        found->pytorch += ends_with(name, ".bin") || ends_with(name, ".pt") || ends_with(name, ".pth");
        found->gguf += ends_with(name, ".gguf");
        if (!ends_with(name, ".safetensors")) continue;
        found->safetensors++;
        free(found->single);
        found->single = nb_strdup(name);
        if (!found->single) status = nb_fail(err, NB_ERR_MEMORY, "%s: no memory to list the directory", path);
    }
    closedir(names);
    return status;
}

static nb_status nothing_usable(const char *path, const contents *found, nb_error *err)
{
    if (found->safetensors > 1)
        return nb_fail(err, NB_ERR_INPUT, "%s: has %zu *.safetensors files but neither " SINGLE_NAME " nor " INDEX_NAME
                       " to say which belong together", path, found->safetensors);
    if (found->safetensors == 1)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: holds only a LoRA adapter: give its base model, and this directory as "
                       "--lora of quantize", path);
    if (found->pytorch)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: has only PyTorch weights (.bin): convert them to safetensors first "
                       "(in transformers: save_pretrained with safe_serialization=True)", path);
    if (found->gguf)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: has only GGUF weights: give the safetensors checkpoint", path);
    return nb_fail(err, NB_ERR_INPUT,
                   "%s: has no weights: looked for " SINGLE_NAME ", " INDEX_NAME " and a single *.safetensors", path);
}

static nb_status open_single(nb_checkpoint *c, const char *name, nb_error *err)
{
    char *path = nb_path_join(c->path, name);
    if (!path) return nb_fail(err, NB_ERR_MEMORY, "%s: no memory for a path", c->path);
    nb_safetensors *file;
    nb_status       status = nb_safetensors_open(&file, path, err);
    free(path);
    if (status != NB_OK) return status;
    status = nb_alloc(&c->shards.file, 1, sizeof *c->shards.file, "a shard", err);
    if (status != NB_OK) {
        nb_safetensors_close(file);
        return status;
    }
    c->shards.file[c->shards.count++] = file;
    return NB_OK;
}

static nb_status open_only(nb_checkpoint *c, nb_error *err)
{
    contents  found  = {0};
    nb_status status = look_around(c->path, &found, err);
    if (status == NB_OK)
        status = found.safetensors == 1 && strcmp(found.single, "adapter_model.safetensors")
                     ? open_single(c, found.single, err)
                     : nothing_usable(c->path, &found, err);
    free(found.single);
    return status;
}

/* True when `name` stands in the directory, whatever it is: a dangling link or a FIFO is an error to report and no
 * reason to look for something else. */
static nb_status stands_in(const char *directory, const char *name, bool *yes, nb_error *err)
{
    char *path = nb_path_join(directory, name);
    char  target[1];
    if (!path) return nb_fail(err, NB_ERR_MEMORY, "%s: no memory for a path", directory);
    *yes = nb_file_exists(path) || readlink(path, target, sizeof target) >= 0;
    free(path);
    return NB_OK;
}

/* The directory must exist, be one, and, unless its writer asks, be finished. */
static nb_status check_directory(const char *path, bool finished, nb_error *err)
{
    if (!nb_file_exists(path)) {
        if (errno != ENOENT && errno != ENOTDIR)
            return nb_fail(err, NB_ERR_IO, "%s: cannot be reached: %s", path, strerror(errno));
        return nb_fail(err, NB_ERR_INPUT, "%s: there is no such model directory", path);
    }
    if (!nb_is_directory(path))
        return nb_fail(err, NB_ERR_INPUT, "%s: is a file: give the directory that holds config.json and the weights",
                       path);
    char *real = realpath(path, NULL);
    if (!real) return nb_fail(err, NB_ERR_IO, "%s: cannot be resolved: %s", path, strerror(errno));
    bool unfinished = finished && ends_with(real, ".partial");
    free(real);
    if (unfinished)
        return nb_fail(err, NB_ERR_INPUT, "%s: is an unfinished checkpoint: let the command that was writing it finish",
                       path);
    return NB_OK;
}

static nb_status open_directory(nb_checkpoint **out, const char *directory, bool finished, nb_error *err)
{
    *out = NULL;
    NB_TRY(check_directory(directory, finished, err));
    nb_checkpoint *c;
    NB_TRY(nb_alloc(&c, 1, sizeof *c, "a checkpoint", err));
    c->path          = nb_strdup(directory);
    nb_status status = c->path ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "%s: no memory to open it", directory);
    bool      single = false, index = false;
    if (status == NB_OK) status = stands_in(directory, SINGLE_NAME, &single, err);
    if (status == NB_OK) status = stands_in(directory, INDEX_NAME, &index, err);
    if (status == NB_OK)
        status = single  ? open_single(c, SINGLE_NAME, err)
                 : index ? nb_shards_open(&c->shards, directory, INDEX_NAME, err)
                         : open_only(c, err);
    if (status == NB_OK) status = collect_entries(c, err);
    if (status != NB_OK) {
        nb_checkpoint_close(c);
        return status;
    }
    *out = c;
    return NB_OK;
}

nb_status nb_checkpoint_open(nb_checkpoint **out, const char *directory, nb_error *err)
{
    return open_directory(out, directory, true, err);
}

nb_status nb_checkpoint_open_unfinished(nb_checkpoint **out, const char *directory, nb_error *err)
{
    return open_directory(out, directory, false, err);
}

void nb_checkpoint_close(nb_checkpoint *c)
{
    if (!c) return;
    nb_shards_close(&c->shards);
    free(c->entries);
    free(c->renamed);
    free(c->path);
    free(c);
}

/* ---- access ---------------------------------------------------------------------------------------------------------- */

const char *nb_checkpoint_path(const nb_checkpoint *c)
{
    return c->path;
}

nb_layout nb_checkpoint_layout(const nb_checkpoint *c)
{
    return c->layout;
}

size_t nb_checkpoint_count(const nb_checkpoint *c)
{
    return c->count;
}

const nb_entry *nb_checkpoint_at(const nb_checkpoint *c, size_t i)
{
    return i < c->count ? &c->entries[i] : NULL;
}

const nb_entry *nb_checkpoint_find(const nb_checkpoint *c, const char *canonical)
{
    nb_entry wanted = {.name = canonical};
    return bsearch(&wanted, c->entries, c->count, sizeof *c->entries, compare_entries);
}

nb_status nb_checkpoint_edit(nb_checkpoint *c, const char *canonical, nb_edit *fn, void *context, nb_error *err)
{
    nb_entry *e = (nb_entry *)nb_checkpoint_find(c, canonical);
    if (!e) return nb_fail(err, NB_ERR_INPUT, "%s: tensor '%s' is missing", c->path, canonical);
    nb_dtype type = e->tensor->dtype;
    if (type != NB_F32 && type != NB_BF16 && type != NB_F16)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: tensor '%.200s' is %s and cannot be changed; only F32, BF16 and F16 can",
                       nb_safetensors_path(e->file), e->tensor->name, e->tensor->dtype_name);
    e->edit         = fn;
    e->edit_context = context;
    return NB_OK;
}

size_t nb_checkpoint_shards(const nb_checkpoint *c)
{
    return c->shards.count;
}

const nb_safetensors *nb_checkpoint_shard(const nb_checkpoint *c, size_t i)
{
    return i < c->shards.count ? c->shards.file[i] : NULL;
}

static void print_shape(nb_buf *out, int rank, const uint64_t *shape)
{
    nb_buf_char(out, '[');
    for (int i = 0; i < rank; i++) nb_buf_printf(out, i ? ", %llu" : "%llu", (unsigned long long)shape[i]);
    nb_buf_char(out, ']');
}

nb_status nb_checkpoint_get(const nb_checkpoint *c, const char *canonical, int rank, const uint64_t *shape,
                            const nb_entry **out, nb_error *err)
{
    *out              = NULL;
    const nb_entry *e = nb_checkpoint_find(c, canonical);
    if (!e) return nb_fail(err, NB_ERR_INPUT, "%s: tensor '%s' is missing", c->path, canonical);
    bool same = e->tensor->rank == rank;
    for (int i = 0; same && i < rank; i++) same = e->tensor->shape[i] == shape[i];
    if (same) {
        *out = e;
        return NB_OK;
    }
    nb_buf found = {0}, wanted = {0};
    print_shape(&found, e->tensor->rank, e->tensor->shape);
    print_shape(&wanted, rank, shape);
    nb_status status = nb_buf_status(&found, "a message", err);
    if (status == NB_OK) status = nb_buf_status(&wanted, "a message", err);
    if (status == NB_OK)
        status = nb_fail(err, NB_ERR_INPUT, "%s: tensor '%.200s' has shape %s, expected %s", nb_safetensors_path(e->file),
                         e->tensor->name, found.data, wanted.data);
    nb_buf_free(&found);
    nb_buf_free(&wanted);
    return status;
}
