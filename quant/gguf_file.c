/* gguf_file.c - the container of llama.cpp.  Little endian, as the machine is. */
#include "quant/gguf_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/io/file.h"

enum { ALIGNMENT = 32, VERSION = 3, BLOCK = 32 };
enum { U32 = 4, I32 = 5, F32 = 6, BOOL = 7, STRING = 8, ARRAY = 9 }; /* types of values */

typedef struct {
    uint64_t bytes, offset;
} place;

struct nb_gguf_out {
    nb_buf    keys, infos;
    uint64_t  key_count, bytes; /* bytes: of data, with the gaps */
    uint64_t  payload;          /* without them */
    place    *tensors;
    size_t    count, capacity;
    size_t    current;          /* tensor being written */
    uint64_t  written;          /* of it */
    char     *path;
    int       fd;
};

static void put(nb_buf *b, const void *value, size_t n)
{
    nb_buf_add(b, value, n);
}

static void put_u32(nb_buf *b, uint32_t v)
{
    put(b, &v, sizeof v);
}

static void put_u64(nb_buf *b, uint64_t v)
{
    put(b, &v, sizeof v);
}

static void put_string(nb_buf *b, const char *text, size_t n)
{
    put_u64(b, n);
    put(b, text, n);
}

static void begin_key(nb_gguf_out *g, const char *key, uint32_t type)
{
    put_string(&g->keys, key, strlen(key));
    put_u32(&g->keys, type);
    g->key_count++;
}

nb_status nb_gguf_out_new(nb_gguf_out **out, nb_error *err)
{
    NB_TRY(nb_alloc(out, 1, sizeof **out, "a GGUF file", err));
    (*out)->fd = -1;
    return NB_OK;
}

void nb_gguf_out_free(nb_gguf_out *g)
{
    if (!g) return;
    if (g->fd >= 0) close(g->fd);
    nb_buf_free(&g->keys);
    nb_buf_free(&g->infos);
    free(g->tensors);
    free(g->path);
    free(g);
}

void nb_gguf_out_u32(nb_gguf_out *g, const char *key, uint32_t value)
{
    begin_key(g, key, U32);
    put_u32(&g->keys, value);
}

void nb_gguf_out_f32(nb_gguf_out *g, const char *key, float value)
{
    begin_key(g, key, F32);
    put(&g->keys, &value, sizeof value);
}

void nb_gguf_out_bool(nb_gguf_out *g, const char *key, bool value)
{
    begin_key(g, key, BOOL);
    nb_buf_char(&g->keys, value ? 1 : 0);
}

void nb_gguf_out_string(nb_gguf_out *g, const char *key, const char *text, size_t n)
{
    begin_key(g, key, STRING);
    put_string(&g->keys, text, n);
}

static void begin_array(nb_gguf_out *g, const char *key, uint32_t type, size_t count)
{
    begin_key(g, key, ARRAY);
    put_u32(&g->keys, type);
    put_u64(&g->keys, count);
}

void nb_gguf_out_i32s(nb_gguf_out *g, const char *key, const int32_t *values, size_t count)
{
    begin_array(g, key, I32, count);
    put(&g->keys, values, count * sizeof *values);
}

void nb_gguf_out_f32s(nb_gguf_out *g, const char *key, const float *values, size_t count)
{
    begin_array(g, key, F32, count);
    put(&g->keys, values, count * sizeof *values);
}

void nb_gguf_out_strings(nb_gguf_out *g, const char *key, size_t count)
{
    begin_array(g, key, STRING, count);
}

void nb_gguf_out_next_string(nb_gguf_out *g, const char *text, size_t n)
{
    put_string(&g->keys, text, n);
}

uint64_t nb_gguf_out_row_bytes(nb_gguf_type type, uint64_t k)
{
    switch (type) {
    case NB_GGUF_F32: return k * 4;
    case NB_GGUF_F16:
    case NB_GGUF_BF16: return k * 2;
    case NB_GGUF_Q4_0: return k % BLOCK ? 0 : k / BLOCK * 18;
    case NB_GGUF_Q4_1: return k % BLOCK ? 0 : k / BLOCK * 20;
    case NB_GGUF_Q8_0: return k % BLOCK ? 0 : k / BLOCK * 34;
    }
    return 0;
}

nb_status nb_gguf_out_tensor(nb_gguf_out *g, const char *name, nb_gguf_type type, int rank, const uint64_t *dims, nb_error *err)
{
    uint64_t bytes = nb_gguf_out_row_bytes(type, dims[0]);
    if (!bytes) return nb_fail(err, NB_ERR_ARGUMENT, "'%s': rows of %llu values do not fit GGUF type %d", name,
                               (unsigned long long)dims[0], type);
    NB_TRY(nb_grow(&g->tensors, &g->capacity, g->count + 1, sizeof *g->tensors, "GGUF tensors", err));
    put_string(&g->infos, name, strlen(name));
    put_u32(&g->infos, (uint32_t)rank);
    for (int i = 0; i < rank; i++) {
        put_u64(&g->infos, dims[i]);
        if (i) bytes *= dims[i];
    }
    put_u32(&g->infos, (uint32_t)type);
    put_u64(&g->infos, g->bytes);
    g->tensors[g->count++] = (place){.bytes = bytes, .offset = g->bytes};
    g->payload += bytes;
    g->bytes += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return NB_OK;
}

uint64_t nb_gguf_out_bytes(const nb_gguf_out *g)
{
    return g->payload;
}

static nb_status fail_errno(const nb_gguf_out *g, const char *doing, nb_error *err)
{
    return nb_fail(err, NB_ERR_IO, "%s: %s: %s", g->path, doing, strerror(errno));
}

nb_status nb_gguf_out_begin(nb_gguf_out *g, const char *path, nb_error *err)
{
    nb_buf head = {0};
    g->path = nb_strdup(path);
    if (!g->path) return nb_fail(err, NB_ERR_MEMORY, "out of memory for a path");
    put(&head, "GGUF", 4);
    put_u32(&head, VERSION);
    put_u64(&head, g->count);
    put_u64(&head, g->key_count);
    nb_buf_add(&head, g->keys.data, g->keys.size);
    nb_buf_add(&head, g->infos.data, g->infos.size);
    while (head.size % ALIGNMENT && !head.failed) nb_buf_char(&head, 0);
    head.failed = head.failed || g->keys.failed || g->infos.failed;
    nb_status status = nb_buf_status(&head, path, err);
    if (!status) {
        g->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (g->fd < 0) status = fail_errno(g, "cannot create it", err);
    }
    /* A disk that is too small is told now; not every file system can allocate ahead. */
    if (!status && fallocate(g->fd, 0, 0, (off_t)(head.size + g->bytes)) && errno == ENOSPC)
        status = fail_errno(g, "cannot allocate it", err);
    if (!status) status = nb_write_all(g->fd, head.data, head.size, path, err);
    nb_buf_free(&head);
    return status;
}

nb_status nb_gguf_out_data(nb_gguf_out *g, const void *data, uint64_t bytes, nb_error *err)
{
    static const char zeros[ALIGNMENT];
    if (g->current >= g->count || bytes > g->tensors[g->current].bytes - g->written)
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: more data than tensor %zu announced", g->path, g->current);
    NB_TRY(nb_write_all(g->fd, data, (size_t)bytes, g->path, err));
    g->written += bytes;
    uint64_t size = g->tensors[g->current].bytes;
    if (g->written < size) return NB_OK;
    g->current++;
    g->written = 0;
    return size % ALIGNMENT ? nb_write_all(g->fd, zeros, ALIGNMENT - size % ALIGNMENT, g->path, err) : NB_OK;
}

nb_status nb_gguf_out_end(nb_gguf_out *g, nb_error *err)
{
    if (g->current != g->count) return nb_fail(err, NB_ERR_ARGUMENT, "%s: tensor %zu was announced and not written",
                                               g->path, g->current);
    int failed = fsync(g->fd), reason = errno;
    failed |= close(g->fd);
    g->fd = -1;
    if (!failed) return NB_OK;
    errno = reason;
    return fail_errno(g, "cannot bring it to disk", err);
}
