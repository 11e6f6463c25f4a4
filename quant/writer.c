/* writer.c - safetensors shards and side files, in OUT.partial/ until all of them are whole.
 *
 *     declare ... declare | plan | tensor ... tensor, file, copy | commit
 *
 * Planning comes before the first byte: shards are filled greedily in the order of declaration (a tensor larger than the
 * limit has one to itself), each header is written at once and each file is allocated at its full size, so a disk that is
 * too small is told in the first second.  Inside a shard tensors lie by falling element size and then by name, and the header
 * is padded to 8 bytes: every tensor is aligned.
 *
 * A writer that resumes keeps shards whose size and header are those of the plan.  Which of their tensors are good is for the
 * caller to know (journal.h).
 */
#include "quant/writer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>

#include "runtime/io/file.h"
#include "runtime/io/safetensors.h"

enum { SIDE_FILES = 32 << 20 /* room left for the tokenizer and other small files */ };

typedef struct {
    char    *name;
    nb_dtype dtype;
    int      rank;
    uint64_t shape[NB_MAX_RANK];
    uint64_t bytes, offset; /* offset in its file */
    size_t   shard;
    uint64_t done;    /* bytes appended so far */
    bool     written; /* whole */
} out_tensor;

typedef struct {
    char     name[64];
    uint64_t bytes; /* of tensors */
    size_t   count;
} out_shard;

struct nb_writer {
    char       *out, *partial; /* OUT and OUT.partial */
    uint64_t    shard_size, bytes;
    bool        force, made, committed, planned, resumes, keep;
    nb_layout   layout;
    int         lock;          /* OUT.partial, held by flock */
    out_tensor *tensors;       /* in the order of declaration; by name once planned */
    size_t      count, capacity;
    out_shard  *shards;
    size_t      shard_count;
    int         fd;            /* the shard that is being written, or -1 */
    size_t      fd_shard;
};

static const char *const dtype_names[] = {
    [NB_F32] = "F32", [NB_BF16] = "BF16", [NB_F16] = "F16", [NB_F64] = "F64", [NB_I8] = "I8", [NB_U8] = "U8",
    [NB_I16] = "I16", [NB_U16] = "U16", [NB_I32] = "I32", [NB_U32] = "U32", [NB_I64] = "I64", [NB_U64] = "U64",
    [NB_BOOL] = "BOOL", [NB_F8_E4M3] = "F8_E4M3", [NB_F8_E5M2] = "F8_E5M2",
};

static nb_status fail_errno(nb_error *err, const char *path, const char *doing)
{
    return nb_fail(err, NB_ERR_IO, "%s: %s: %s", path, doing, strerror(errno));
}

/* ---- the directories --------------------------------------------------------------------------------------------------- */

/* What --force may replace: a directory of plain files.  Anything else is somebody's, not a checkpoint of ours. */
static nb_status check_replaceable(const char *path, nb_error *err)
{
    struct stat st;
    if (lstat(path, &st) || !S_ISDIR(st.st_mode))
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: exists and is not a directory; choose another output", path);
    DIR *dir = opendir(path);
    if (!dir) return fail_errno(err, path, "cannot list it");
    nb_status status = NB_OK;
    for (const struct dirent *e; !status && (e = readdir(dir));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        if (fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) || S_ISDIR(st.st_mode))
            status = nb_fail(err, NB_ERR_ARGUMENT, "%s: holds the folder '%s', so it is not a checkpoint to replace; remove it "
                             "yourself or choose another output", path, e->d_name);
    }
    closedir(dir);
    return status;
}

static nb_status check_out(const char *out, bool force, nb_error *err)
{
    struct stat st;
    char       *parent = nb_path_folder(out);
    if (!parent) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", out);
    nb_status status = NB_OK;
    if (!nb_is_directory(parent))
        status = nb_fail(err, NB_ERR_ARGUMENT, "%s: its folder '%s' does not exist; create it first", out, parent);
    else if (access(parent, W_OK | X_OK))
        status = fail_errno(err, parent, "cannot create an output folder there");
    else if (lstat(out, &st) == 0)
        status = force ? check_replaceable(out, err)
                       : nb_fail(err, NB_ERR_ARGUMENT, "%s: exists; choose another output or replace it with --force", out);
    free(parent);
    return status;
}

/* Open OUT.partial and lock it; a lock that somebody holds means a living run. */
static nb_status lock_partial(nb_writer *w, nb_error *err)
{
    w->lock = open(w->partial, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (w->lock < 0) return fail_errno(err, w->partial, "cannot open it");
    if (flock(w->lock, LOCK_EX | LOCK_NB) == 0) return NB_OK;
    if (errno == EWOULDBLOCK)
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: another run is writing there; wait for it or choose another output", w->partial);
    return NB_OK; /* a file system without locks */
}

static nb_status make_partial(nb_writer *w, nb_error *err)
{
    struct stat st;
    if (lstat(w->partial, &st) == 0 && w->resumes) {
        NB_TRY(lock_partial(w, err));
        NB_TRY(check_replaceable(w->partial, err));
        w->made = true; /* ours from here on */
        return NB_OK;
    }
    if (lstat(w->partial, &st) == 0) { /* what a killed run left */
        NB_TRY(lock_partial(w, err));
        NB_TRY(check_replaceable(w->partial, err));
        NB_TRY(nb_remove_folder(w->partial, err));
        close(w->lock);
        w->lock = -1;
    }
    if (mkdir(w->partial, 0777)) return fail_errno(err, w->partial, "cannot create it");
    w->made = true;
    return lock_partial(w, err);
}

static nb_status writer_new(nb_writer **out, const char *directory, uint64_t shard_size, bool force, bool resumes, nb_error *err)
{
    *out = NULL;
    size_t n = strlen(directory);
    while (n > 1 && directory[n - 1] == '/') n--;
    if (!n || shard_size == 0)
        return nb_fail(err, NB_ERR_ARGUMENT, "an output needs a name ('%s') and a shard size above 0 (%llu)", directory,
                       (unsigned long long)shard_size);
    nb_writer *w;
    NB_TRY(nb_alloc(&w, 1, sizeof *w, "a checkpoint writer", err));
    w->fd = w->lock = -1;
    w->shard_size = shard_size;
    w->force = force;
    w->resumes = resumes;
    w->out = strndup(directory, n);
    if (asprintf(&w->partial, "%.*s.partial", (int)n, directory) < 0) w->partial = NULL;
    nb_status status = w->out && w->partial ? check_out(w->out, force, err)
                                            : nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", directory);
    if (!status) status = make_partial(w, err);
    if (status)
        nb_writer_free(w);
    else
        *out = w;
    return status;
}

nb_status nb_writer_new(nb_writer **out, const char *directory, uint64_t shard_size, bool force, nb_error *err)
{
    return writer_new(out, directory, shard_size, force, false, err);
}

nb_status nb_writer_resume(nb_writer **out, const char *directory, uint64_t shard_size, bool force, nb_error *err)
{
    return writer_new(out, directory, shard_size, force, true, err);
}

void nb_writer_keep(nb_writer *w)
{
    w->keep = true;
}

void nb_writer_free(nb_writer *w)
{
    if (!w) return;
    if (w->fd >= 0) close(w->fd);
    if (w->made && !w->committed && !w->keep) nb_remove_folder(w->partial, NULL);
    if (w->lock >= 0) close(w->lock);
    for (size_t i = 0; i < w->count; i++) free(w->tensors[i].name);
    free(w->tensors);
    free(w->shards);
    free(w->out);
    free(w->partial);
    free(w);
}

void nb_writer_layout(nb_writer *w, nb_layout layout)
{
    w->layout = layout;
}

void nb_writer_no_tensors(nb_writer *w)
{
    w->planned = true; /* with no shard */
}

enum { NAME = 300 };

/* A canonical name, or the beginning of one, as the files spell it. */
static const char *spell(char room[NAME], const nb_writer *w, const char *name)
{
    bool text = !strncmp(name, "model.", 6), tower = !strncmp(name, "visual.", 7);
    if (w->layout == NB_LAYOUT_OLD || !(text || tower)) return name;
    snprintf(room, NAME, "%s%s", text ? "model.language_model." : "model.", text ? name + 6 : name);
    return room;
}

/* ---- planning ---------------------------------------------------------------------------------------------------------- */

nb_status nb_writer_declare(nb_writer *w, const char *canonical, nb_dtype dtype, int rank, const uint64_t *shape, nb_error *err)
{
    char        room[NAME];
    const char *name = spell(room, w, canonical);
    size_t bytes = nb_dtype_size(dtype);
    bool   fits = bytes > 0 && rank >= 0 && rank <= NB_MAX_RANK && !w->planned && name[0] && strcmp(name, "__metadata__");
    for (int i = 0; fits && i < rank; i++) fits = nb_mul(bytes, (size_t)shape[i], &bytes);
    if (!fits || !nb_add(bytes, (size_t)w->bytes, &(size_t){0}))
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: tensor '%s' (rank %d, type %d) cannot be declared", w->out, name, rank, dtype);
    NB_TRY(nb_grow(&w->tensors, &w->capacity, w->count + 1, sizeof *w->tensors, "tensors to write", err));
    out_tensor *t = &w->tensors[w->count];
    *t = (out_tensor){.name = nb_strdup(name), .dtype = dtype, .rank = rank, .bytes = bytes};
    if (!t->name) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", w->out);
    if (rank) memcpy(t->shape, shape, (size_t)rank * sizeof *shape);
    w->count++;
    w->bytes += bytes;
    return NB_OK;
}

/* Greedy in the order of declaration: a shard is closed when the next tensor would pass the limit. */
static nb_status fill_shards(nb_writer *w, nb_error *err)
{
    size_t capacity = 0;
    for (size_t i = 0; i < w->count || !w->shard_count; i++) {
        out_shard *s = w->shard_count ? &w->shards[w->shard_count - 1] : NULL;
        uint64_t   bytes = i < w->count ? w->tensors[i].bytes : 0;
        if (!s || (s->count && s->bytes + bytes > w->shard_size)) {
            NB_TRY(nb_grow(&w->shards, &capacity, w->shard_count + 1, sizeof *w->shards, "shards", err));
            s = &w->shards[w->shard_count++];
            memset(s, 0, sizeof *s);
        }
        if (i >= w->count) break; /* no tensors: one empty file */
        w->tensors[i].shard = w->shard_count - 1;
        s->bytes += bytes;
        s->count++;
    }
    if (w->shard_count > 99999)
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: a shard size of %llu bytes gives %zu files; make it larger", w->out,
                       (unsigned long long)w->shard_size, w->shard_count);
    for (size_t i = 0; i < w->shard_count; i++) {
        if (w->shard_count == 1)
            snprintf(w->shards[i].name, sizeof w->shards[i].name, "model.safetensors");
        else
            snprintf(w->shards[i].name, sizeof w->shards[i].name, "model-%05zu-of-%05zu.safetensors", i + 1, w->shard_count);
    }
    return NB_OK;
}

static int by_place(const void *a, const void *b)
{
    const out_tensor *x = *(out_tensor *const *)a, *y = *(out_tensor *const *)b;
    size_t            sx = nb_dtype_size(x->dtype), sy = nb_dtype_size(y->dtype);
    if (x->shard != y->shard) return x->shard < y->shard ? -1 : 1;
    if (sx != sy) return sx > sy ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const out_tensor *)a)->name, ((const out_tensor *)b)->name);
}

/* The header of the shard whose tensors are placed[0 .. count); leaves offsets from the start of the data. */
static void write_header(nb_buf *out, out_tensor **placed, size_t count)
{
    uint64_t offset = 0;
    nb_buf_str(out, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < count; i++) {
        out_tensor *t = placed[i];
        nb_buf_char(out, ',');
        nb_buf_json_string(out, t->name, strlen(t->name));
        nb_buf_printf(out, ":{\"dtype\":\"%s\",\"shape\":[", dtype_names[t->dtype]);
        for (int d = 0; d < t->rank; d++) nb_buf_printf(out, "%s%llu", d ? "," : "", (unsigned long long)t->shape[d]);
        t->offset = offset;
        offset += t->bytes;
        nb_buf_printf(out, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)t->offset, (unsigned long long)offset);
    }
    nb_buf_char(out, '}');
    while (out->size % 8 && !out->failed) nb_buf_char(out, ' ');
}

static nb_status need_disk(const nb_writer *w, uint64_t bytes, nb_error *err)
{
    struct statvfs fs;
    if (statvfs(w->partial, &fs)) return fail_errno(err, w->partial, "cannot ask for its free space");
    double free_bytes = (double)fs.f_bavail * (double)fs.f_frsize, need = (double)bytes + SIDE_FILES;
    if (free_bytes >= need) return NB_OK;
    return nb_fail(err, NB_ERR_BUDGET, "%s: %.0f bytes are needed and %.0f are free on its disk", w->out, need, free_bytes);
}

/* Whether a file has the size and the header of a shard; its tensors may be anything. */
static bool shard_stands(const char *path, const uint8_t size[8], const nb_buf *header, uint64_t total)
{
    uint64_t have;
    int      fd;
    char    *found = NULL;
    nb_error ignored;
    if (nb_open_regular(&fd, &have, path, &ignored)) return false;
    bool same = have == total && (found = malloc(8 + header->size)) != NULL &&
                nb_read_at(fd, found, 8 + header->size, 0, path, &ignored) == NB_OK && !memcmp(found, size, 8) &&
                !memcmp(found + 8, header->data, header->size);
    free(found);
    close(fd);
    return same;
}

/* Create a shard at its full size with its header in place. */
static nb_status create_shard(nb_writer *w, const out_shard *s, const nb_buf *header, nb_error *err)
{
    char *path = nb_path_join(w->partial, s->name);
    if (!path) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", w->out);
    uint64_t  n = header->size, total = 8 + n + s->bytes;
    uint8_t   size[8];
    nb_status status = NB_OK;
    for (int i = 0; i < 8; i++) size[i] = (uint8_t)(n >> 8 * i);
    if (w->resumes && shard_stands(path, size, header, total)) {
        free(path);
        return NB_OK;
    }
    if (w->resumes) unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) status = fail_errno(err, path, "cannot create it");
    /* Not every file system can allocate ahead; a size alone is the next best, and a full disk is then found on the way. */
    if (!status && fallocate(fd, 0, 0, (off_t)total) && (errno != EOPNOTSUPP || ftruncate(fd, (off_t)total)))
        status = nb_fail(err, NB_ERR_IO, "%s: cannot allocate %llu bytes: %s", path, (unsigned long long)total, strerror(errno));
    if (!status) status = nb_write_all(fd, size, sizeof size, path, err);
    if (!status) status = nb_write_all(fd, header->data, header->size, path, err);
    if (fd >= 0 && close(fd) && !status) status = fail_errno(err, path, "cannot close it");
    free(path);
    return status;
}

static nb_status create_shards(nb_writer *w, out_tensor **placed, nb_error *err)
{
    nb_status status = w->resumes ? NB_OK : need_disk(w, w->bytes, err); /* what stands is allocated */
    for (size_t i = 0; i < w->shard_count && !status; i++) {
        nb_buf header = {0};
        write_header(&header, placed, w->shards[i].count);
        status = nb_buf_status(&header, "a safetensors header", err);
        if (!status) status = create_shard(w, &w->shards[i], &header, err);
        for (size_t j = 0; j < w->shards[i].count; j++) placed[j]->offset += 8 + header.size;
        placed += w->shards[i].count;
        nb_buf_free(&header);
    }
    return status;
}

/* Side files that a dead run wrote, and shards of another plan. */
static nb_status remove_others(const nb_writer *w, nb_error *err)
{
    DIR *dir = opendir(w->partial);
    if (!dir) return fail_errno(err, w->partial, "cannot list it");
    nb_status status = NB_OK;
    for (const struct dirent *e; !status && (e = readdir(dir));) {
        bool stays = !strcmp(e->d_name, ".") || !strcmp(e->d_name, "..");
        for (size_t i = 0; i < w->shard_count && !stays; i++) stays = !strcmp(e->d_name, w->shards[i].name);
        if (!stays && unlinkat(dirfd(dir), e->d_name, 0)) status = fail_errno(err, w->partial, "cannot remove what a dead run left");
    }
    closedir(dir);
    return status;
}

/* ---- writing ----------------------------------------------------------------------------------------------------------- */

/* fsync and close the open shard.  A failed fsync is final: its pages may be gone. */
static nb_status close_shard(nb_writer *w, nb_error *err)
{
    if (w->fd < 0) return NB_OK;
    int reason = fsync(w->fd) ? errno : 0;
    if (close(w->fd) && !reason) reason = errno;
    w->fd = -1;
    if (!reason) return NB_OK;
    return nb_fail(err, NB_ERR_IO, "%s/%s: cannot bring it to disk: %s", w->partial, w->shards[w->fd_shard].name, strerror(reason));
}

/* One shard is open at a time, however many there are. */
static nb_status open_shard(nb_writer *w, size_t shard, nb_error *err)
{
    if (w->fd >= 0 && w->fd_shard == shard) return NB_OK;
    NB_TRY(close_shard(w, err));
    char *path = nb_path_join(w->partial, w->shards[shard].name);
    if (!path) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", w->out);
    w->fd = open(path, O_WRONLY | O_CLOEXEC);
    w->fd_shard = shard;
    nb_status status = w->fd < 0 ? fail_errno(err, path, "cannot open it") : NB_OK;
    free(path);
    return status;
}

static nb_status find_tensor(out_tensor **out, nb_writer *w, const char *name, nb_error *err)
{
    char       room[NAME];
    out_tensor key = {.name = (char *)spell(room, w, name)};
    *out = w->planned && w->count ? bsearch(&key, w->tensors, w->count, sizeof key, by_name) : NULL;
    return *out ? NB_OK : nb_fail(err, NB_ERR_ARGUMENT, "%s: tensor '%s' was not declared", w->out, name);
}

nb_status nb_writer_append(nb_writer *w, const char *name, const void *data, uint64_t bytes, nb_error *err)
{
    out_tensor *t;
    NB_TRY(find_tensor(&t, w, name, err));
    if (t->written || bytes > t->bytes - t->done)
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: tensor '%s': %llu bytes given after %llu, %llu declared%s", w->out, name,
                       (unsigned long long)bytes, (unsigned long long)t->done, (unsigned long long)t->bytes,
                       t->written ? ", and it was already written" : "");
    NB_TRY(open_shard(w, t->shard, err));
    char path[600];
    snprintf(path, sizeof path, "%.500s/%s", w->partial, w->shards[t->shard].name);
    if (lseek(w->fd, (off_t)(t->offset + t->done), SEEK_SET) < 0) return fail_errno(err, path, "cannot seek");
    if (bytes) NB_TRY(nb_write_all(w->fd, data, (size_t)bytes, path, err));
    t->done += bytes;
    t->written = t->done == t->bytes;
    return NB_OK;
}

nb_status nb_writer_tensor(nb_writer *w, const char *name, const void *data, uint64_t bytes, nb_error *err)
{
    out_tensor *t;
    NB_TRY(find_tensor(&t, w, name, err));
    if (t->done || bytes != t->bytes)
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: tensor '%s': %llu bytes given, %llu declared%s", w->out, name,
                       (unsigned long long)bytes, (unsigned long long)t->bytes,
                       t->done ? ", and it was already written" : "");
    return nb_writer_append(w, name, data, bytes, err);
}

static nb_status side_path(char **out, const nb_writer *w, const char *name, nb_error *err)
{
    *out = NULL;
    if (!name[0] || name[0] == '.' || strchr(name, '/'))
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: '%s' is not the name of a file in it", w->out, name);
    *out = nb_path_join(w->partial, name);
    return *out ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", w->out);
}

nb_status nb_writer_file(nb_writer *w, const char *name, const void *data, size_t bytes, nb_error *err)
{
    char *path;
    NB_TRY(side_path(&path, w, name, err));
    nb_status status = NB_OK;
    int       fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) status = fail_errno(err, path, "cannot create it");
    if (!status && bytes) status = nb_write_all(fd, data, bytes, path, err);
    if (!status && fsync(fd)) status = fail_errno(err, path, "cannot bring it to disk");
    if (fd >= 0 && close(fd) && !status) status = fail_errno(err, path, "cannot close it");
    free(path);
    return status;
}

nb_status nb_writer_copy(nb_writer *w, const char *from_directory, const char *name, nb_error *err)
{
    char *path;
    NB_TRY(side_path(&path, w, name, err));
    char     *from = nb_path_join(from_directory, name);
    nb_status status = from ? nb_file_copy(from, path, err) : nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", w->out);
    free(from);
    free(path);
    return status;
}

static nb_status hash_tensor(XXH64_state_t *state, const out_tensor *t, int fd, const char *path, void *chunk, size_t size, nb_error *err)
{
    for (uint64_t at = 0; at < t->bytes; at += size) {
        size_t n = t->bytes - at < size ? (size_t)(t->bytes - at) : size;
        NB_TRY(nb_read_at(fd, chunk, n, t->offset + at, path, err));
        XXH64_update(state, chunk, n);
    }
    return NB_OK;
}

static nb_status hash_tensors(nb_writer *w, XXH64_state_t *state, const char *beginning, uint64_t *bytes, void *chunk, size_t size,
                              nb_error *err)
{
    char        room[NAME];
    const char *prefix = spell(room, w, beginning);
    nb_status status = NB_OK;
    for (size_t i = 0; i < w->count && !status; i++) {
        const out_tensor *t = &w->tensors[i];
        int               fd = -1;
        if (strncmp(t->name, prefix, strlen(prefix))) continue;
        char *path = nb_path_join(w->partial, w->shards[t->shard].name);
        status = path ? nb_open_regular(&fd, NULL, path, err) : nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", w->out);
        if (!status) status = hash_tensor(state, t, fd, path, chunk, size, err);
        if (fd >= 0) close(fd);
        free(path);
        *bytes += t->bytes;
    }
    return status;
}

nb_status nb_writer_hash(nb_writer *w, const char *prefix, uint64_t *bytes, uint64_t *hash, nb_error *err)
{
    const size_t size = 1 << 20;
    void        *chunk;
    *bytes = *hash = 0;
    NB_TRY(close_shard(w, err));
    NB_TRY(nb_alloc(&chunk, 1, size, "a chunk to hash", err));
    XXH64_state_t *state = XXH64_createState();
    nb_status      status = state ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", w->out);
    if (!status) {
        XXH64_reset(state, 0);
        status = hash_tensors(w, state, prefix, bytes, chunk, size, err);
        *hash = XXH64_digest(state);
    }
    XXH64_freeState(state);
    free(chunk);
    return status;
}

void nb_writer_take(nb_writer *w, const char *beginning)
{
    char        room[NAME];
    const char *prefix = spell(room, w, beginning);
    for (size_t i = 0; i < w->count; i++)
        if (!strncmp(w->tensors[i].name, prefix, strlen(prefix))) {
            w->tensors[i].done = w->tensors[i].bytes;
            w->tensors[i].written = true;
        }
}

const char *nb_writer_partial(const nb_writer *w)
{
    return w->partial;
}

uint64_t nb_writer_bytes(const nb_writer *w)
{
    return w->bytes;
}

/* ---- the plan becomes files ------------------------------------------------------------------------------------------- */

static nb_status write_index(nb_writer *w, nb_error *err)
{
    nb_buf b = {0};
    nb_buf_printf(&b, "{\n  \"metadata\": {\n    \"total_size\": %llu\n  },\n  \"weight_map\": {", (unsigned long long)w->bytes);
    for (size_t i = 0; i < w->count; i++) {
        const out_tensor *t = &w->tensors[i];
        nb_buf_str(&b, i ? ",\n    " : "\n    ");
        nb_buf_json_string(&b, t->name, strlen(t->name));
        nb_buf_printf(&b, ": \"%s\"", w->shards[t->shard].name);
    }
    nb_buf_str(&b, "\n  }\n}\n");
    nb_status status = nb_buf_status(&b, "the index of shards", err);
    if (!status) status = nb_writer_file(w, "model.safetensors.index.json", b.data, b.size, err);
    nb_buf_free(&b);
    return status;
}

nb_status nb_writer_plan(nb_writer *w, nb_error *err)
{
    NB_TRY(fill_shards(w, err));
    if (w->resumes) NB_TRY(remove_others(w, err));
    if (w->count) qsort(w->tensors, w->count, sizeof *w->tensors, by_name); /* tensors are found by name from here on */
    for (size_t i = 1; i < w->count; i++)
        if (!strcmp(w->tensors[i - 1].name, w->tensors[i].name))
            return nb_fail(err, NB_ERR_ARGUMENT, "%s: tensor '%s' was declared twice", w->out, w->tensors[i].name);
    out_tensor **placed;
    NB_TRY(nb_alloc(&placed, w->count + 1, sizeof *placed, "tensors to write", err));
    for (size_t i = 0; i < w->count; i++) placed[i] = &w->tensors[i];
    if (w->count) qsort(placed, w->count, sizeof *placed, by_place);
    nb_status status = create_shards(w, placed, err);
    free(placed);
    if (!status && w->shard_count > 1) status = write_index(w, err);
    w->planned = !status;
    return status;
}

/* ---- committing -------------------------------------------------------------------------------------------------------- */

/* OUT.partial becomes OUT.  An old OUT changes places with it in one step, or, where the file system cannot, is moved aside
 * first; it is removed only after the new one stands. */
static nb_status put_in_place(nb_writer *w, nb_error *err)
{
    struct stat st;
    if (lstat(w->out, &st)) {
        if (rename(w->partial, w->out)) return fail_errno(err, w->out, "cannot rename the finished checkpoint to it");
        w->committed = true;
        return NB_OK;
    }
    if (!w->force) return nb_fail(err, NB_ERR_ARGUMENT, "%s: appeared while its replacement was being written", w->out);
    NB_TRY(check_replaceable(w->out, err));
    char *aside;
    if (asprintf(&aside, "%s.replaced", w->out) < 0) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", w->out);
    nb_status status = NB_OK;
    if (renameat2(AT_FDCWD, w->partial, AT_FDCWD, w->out, RENAME_EXCHANGE) == 0) {
        w->committed = true;
        status = nb_remove_folder(w->partial, err);
    } else if (rename(w->out, aside)) {
        status = fail_errno(err, w->out, "cannot move the old checkpoint aside");
    } else if (rename(w->partial, w->out)) {
        status = fail_errno(err, w->out, "cannot rename the finished checkpoint to it");
        if (rename(aside, w->out)) nb_error_within(err, "the old checkpoint is now %s", aside);
    } else {
        w->committed = true;
        status = nb_remove_folder(aside, err);
    }
    free(aside);
    return status;
}

nb_status nb_writer_commit(nb_writer *w, nb_error *err)
{
    for (size_t i = 0; i < w->count; i++)
        if (!w->tensors[i].written)
            return nb_fail(err, NB_ERR_ARGUMENT, "%s: tensor '%s' was declared and never written whole", w->out, w->tensors[i].name);
    if (!w->planned) return nb_fail(err, NB_ERR_ARGUMENT, "%s: nothing was planned", w->out);
    NB_TRY(close_shard(w, err));
    NB_TRY(nb_fsync_folder(w->partial, err));
    NB_TRY(put_in_place(w, err));
    char     *parent = nb_path_folder(w->out);
    nb_status status = parent ? nb_fsync_folder(parent, err) : nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", w->out);
    free(parent);
    return status;
}
