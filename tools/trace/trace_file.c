/* trace_file.c - a temporary file beside the one that is wanted, filled in places, renamed when whole. */
#include "tools/trace/trace_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/io/file.h"

typedef struct {
    char     name[96];
    nb_dtype dtype;
    int      rank;
    uint64_t shape[3];
    uint64_t bytes, offset, done; /* offset in the data */
} traced;

struct nb_trace_file {
    char    *path, *temporary;
    int      fd;
    traced  *tensors;
    size_t   count, capacity;
    uint64_t data, bytes; /* where the data begin; bytes of data */
};

nb_status nb_trace_file_new(nb_trace_file **out, const char *path, bool force, nb_error *err)
{
    *out = NULL;
    if (!force && nb_file_exists(path))
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: exists; choose another file or replace it with --force", path);
    nb_trace_file *f;
    nb_buf         name = {0};
    NB_TRY(nb_alloc(&f, 1, sizeof *f, "a trace", err));
    f->fd = -1;
    f->path = nb_strdup(path);
    nb_buf_printf(&name, "%s.XXXXXX", path);
    f->temporary = name.data;
    nb_status status = f->path && !name.failed ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", path);
    if (status == NB_OK && (f->fd = mkostemp(f->temporary, O_CLOEXEC)) < 0) {
        status = nb_fail(err, NB_ERR_IO, "%s: cannot be written: %s", path, strerror(errno));
        free(f->temporary);
        f->temporary = NULL; /* nothing to remove */
    }
    if (status != NB_OK) {
        nb_trace_file_free(f);
        return status;
    }
    *out = f;
    return NB_OK;
}

void nb_trace_file_free(nb_trace_file *f)
{
    if (!f) return;
    if (f->fd >= 0) close(f->fd);
    if (f->temporary) unlink(f->temporary);
    free(f->temporary);
    free(f->path);
    free(f->tensors);
    free(f);
}

static traced *find(const nb_trace_file *f, const char *name)
{
    for (size_t i = 0; i < f->count; i++)
        if (!strcmp(f->tensors[i].name, name)) return &f->tensors[i];
    return NULL;
}

bool nb_trace_file_has(const nb_trace_file *f, const char *name)
{
    return find(f, name) != NULL;
}

nb_status nb_trace_file_declare(nb_trace_file *f, const char *name, nb_dtype dtype, int rank, const uint64_t *shape,
                                nb_error *err)
{
    NB_TRY(nb_grow(&f->tensors, &f->capacity, f->count + 1, sizeof *f->tensors, "a trace", err));
    traced t = {.dtype = dtype, .rank = rank, .bytes = 4, .offset = f->bytes};
    snprintf(t.name, sizeof t.name, "%s", name);
    for (int i = 0; i < rank; i++) {
        t.shape[i] = shape[i];
        if (__builtin_mul_overflow(t.bytes, shape[i], &t.bytes))
            return nb_fail(err, NB_ERR_BUDGET, "%s: the trace is too large", name);
    }
    if (__builtin_add_overflow(f->bytes, t.bytes, &f->bytes))
        return nb_fail(err, NB_ERR_BUDGET, "%s: the trace is too large", name);
    f->tensors[f->count++] = t;
    return NB_OK;
}

nb_status nb_trace_file_begin(nb_trace_file *f, const char *const (*metadata)[2], size_t pairs, nb_error *err)
{
    nb_buf text = {0};
    nb_buf_str(&text, "{\"__metadata__\":{\"format\":\"pt\"");
    for (size_t i = 0; i < pairs; i++) {
        nb_buf_char(&text, ',');
        nb_buf_json_string(&text, metadata[i][0], strlen(metadata[i][0]));
        nb_buf_char(&text, ':');
        nb_buf_json_string(&text, metadata[i][1], strlen(metadata[i][1]));
    }
    nb_buf_char(&text, '}');
    for (size_t i = 0; i < f->count; i++) {
        const traced *t = &f->tensors[i];
        nb_buf_printf(&text, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name, t->dtype == NB_F32 ? "F32" : "I32");
        for (int d = 0; d < t->rank; d++) nb_buf_printf(&text, "%s%llu", d ? "," : "", (unsigned long long)t->shape[d]);
        nb_buf_printf(&text, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)t->offset,
                      (unsigned long long)(t->offset + t->bytes));
    }
    nb_buf_char(&text, '}');
    while (text.size % 8 && !text.failed) nb_buf_char(&text, ' ');
    unsigned char length[8];
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)(text.size >> 8 * i);
    f->data = 8 + text.size;
    nb_status status = nb_buf_status(&text, "a header", err);
    if (status == NB_OK) status = nb_write_all(f->fd, length, sizeof length, f->path, err);
    if (status == NB_OK) status = nb_write_all(f->fd, text.data, text.size, f->path, err);
    nb_buf_free(&text);
    return status;
}

uint64_t nb_trace_file_bytes(const nb_trace_file *f)
{
    return f->data + f->bytes;
}

nb_status nb_trace_file_add(nb_trace_file *f, const char *name, const void *data, uint64_t bytes, bool *taken, nb_error *err)
{
    traced *t = find(f, name);
    if (taken) *taken = t != NULL;
    if (!t) return NB_OK;
    if (bytes > t->bytes - t->done)
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: %llu bytes of '%s' after %llu of %llu", f->path, (unsigned long long)bytes,
                       name, (unsigned long long)t->done, (unsigned long long)t->bytes);
    if (lseek(f->fd, (off_t)(f->data + t->offset + t->done), SEEK_SET) < 0)
        return nb_fail(err, NB_ERR_IO, "%s: %s", f->path, strerror(errno));
    NB_TRY(nb_write_all(f->fd, data, (size_t)bytes, f->path, err));
    t->done += bytes;
    return NB_OK;
}

nb_status nb_trace_file_commit(nb_trace_file *f, nb_error *err)
{
    for (size_t i = 0; i < f->count; i++)
        if (f->tensors[i].done != f->tensors[i].bytes)
            return nb_fail(err, NB_ERR_ARGUMENT, "%s: '%s' has %llu of %llu bytes", f->path, f->tensors[i].name,
                           (unsigned long long)f->tensors[i].done, (unsigned long long)f->tensors[i].bytes);
    int failed = fsync(f->fd) || fchmod(f->fd, 0644), reason = errno;
    failed |= close(f->fd);
    f->fd = -1;
    if (failed) return nb_fail(err, NB_ERR_IO, "%s: cannot be brought to disk: %s", f->path, strerror(reason));
    if (rename(f->temporary, f->path))
        return nb_fail(err, NB_ERR_IO, "%s: cannot be put in place: %s", f->path, strerror(errno));
    free(f->temporary);
    f->temporary = NULL;
    char     *parent = nb_path_folder(f->path);
    nb_status status = parent ? nb_fsync_folder(parent, err) : nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", f->path);
    free(parent);
    return status;
}
