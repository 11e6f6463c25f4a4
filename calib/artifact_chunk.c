/* artifact_chunk.c - see the header.  What was read decides nothing but whether it is believed: sizes and places of chunks follow
 * from k alone, and a head that says otherwise is damage. */
#include "calib/artifact_chunk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

#include "runtime/io/file.h"

enum { TARGET = 1 << 19 /* words of a chunk */, LEVEL = 1 };

_Static_assert(sizeof(nb_chunk_head) == 48, "the file has it so");

struct nb_chunks {
    char      *path;
    int        fd;
    bool       writing;
    uint64_t   at, size;  /* the next byte, and of reading the last */
    size_t     largest, room;
    uint64_t  *words;     /* [largest] */
    uint8_t   *planes;    /* [8 largest] */
    uint8_t   *chunk;     /* [room] head and frame */
    ZSTD_CCtx *deflate;
    ZSTD_DCtx *inflate;
};

size_t nb_chunk_rows(size_t k, size_t first, size_t *words)
{
    size_t end = first;
    *words = 0;
    while (end < k && (end == first || *words + 2 * (k - end) <= TARGET)) *words += 2 * (k - end++);
    return end;
}

size_t nb_chunk_columns(size_t k)
{
    return NB_TOKEN_KINDS + 2 * k + (k + 1) / 2;
}

size_t nb_chunk_largest(size_t k)
{
    size_t row = 2 * k, columns = nb_chunk_columns(k), largest = row > columns ? row : columns;
    return largest > TARGET ? largest : TARGET;
}

/* ---- the file ---------------------------------------------------------------------------------------------------------- */

static nb_status open_chunks(nb_chunks **out, const char *path, size_t largest, bool writing, nb_error *err)
{
    nb_chunks *c;
    NB_TRY(nb_alloc(out, 1, sizeof **out, "a file of statistics", err));
    c = *out;
    c->fd = -1;
    c->writing = writing;
    c->largest = largest;
    c->room = sizeof(nb_chunk_head) + ZSTD_compressBound(8 * largest);
    c->path = nb_strdup(path);
    c->words = nb_calloc_aligned(largest, 8);
    c->planes = nb_calloc_aligned(largest, 8);
    c->chunk = nb_calloc_aligned(c->room, 1);
    c->deflate = writing ? ZSTD_createCCtx() : NULL;
    c->inflate = writing ? NULL : ZSTD_createDCtx();
    if (!c->path || !c->words || !c->planes || !c->chunk || !(writing ? c->deflate != NULL : c->inflate != NULL))
        return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", path);
    if (!writing) return nb_open_regular(&c->fd, &c->size, path, err);
    if (ZSTD_isError(ZSTD_CCtx_setParameter(c->deflate, ZSTD_c_compressionLevel, LEVEL)))
        return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", path);
    c->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    return c->fd < 0 ? nb_fail(err, NB_ERR_IO, "%s: cannot create it: %s", path, strerror(errno)) : NB_OK;
}

static nb_status open_or_free(nb_chunks **out, const char *path, size_t largest, bool writing, nb_error *err)
{
    nb_status status = open_chunks(out, path, largest, writing, err);
    if (status) {
        nb_chunks_close(*out);
        *out = NULL;
    }
    return status;
}

nb_status nb_chunks_create(nb_chunks **out, const char *path, size_t largest, nb_error *err)
{
    return open_or_free(out, path, largest, true, err);
}

nb_status nb_chunks_open(nb_chunks **out, const char *path, size_t largest, nb_error *err)
{
    return open_or_free(out, path, largest, false, err);
}

void nb_chunks_close(nb_chunks *c)
{
    if (!c) return;
    if (c->fd >= 0) close(c->fd);
    ZSTD_freeCCtx(c->deflate);
    ZSTD_freeDCtx(c->inflate);
    free(c->path);
    free(c->words);
    free(c->planes);
    free(c->chunk);
    free(c);
}

uint64_t *nb_chunks_words(nb_chunks *c)
{
    return c->words;
}

uint64_t nb_chunks_bytes(const nb_chunks *c)
{
    return c->at;
}

/* ---- chunks ------------------------------------------------------------------------------------------------------------ */

static void split_planes(uint8_t *planes, const uint64_t *words, size_t n)
{
    for (size_t plane = 0; plane < 8; plane++)
        for (size_t i = 0; i < n; i++) planes[plane * n + i] = (uint8_t)(words[i] >> 8 * plane);
}

static void join_planes(uint64_t *words, const uint8_t *planes, size_t n)
{
    for (size_t i = 0; i < n; i++) words[i] = planes[i];
    for (size_t plane = 1; plane < 8; plane++)
        for (size_t i = 0; i < n; i++) words[i] |= (uint64_t)planes[plane * n + i] << 8 * plane;
}

static uint64_t chunk_hash(const uint8_t *chunk, size_t bytes)
{
    return XXH64(chunk + sizeof(uint64_t), bytes - sizeof(uint64_t), 0);
}

nb_status nb_chunks_write(nb_chunks *c, nb_chunk_head head, nb_error *err)
{
    size_t n = (size_t)head.words;
    split_planes(c->planes, c->words, n);
    size_t packed = ZSTD_compress2(c->deflate, c->chunk + sizeof head, c->room - sizeof head, c->planes, 8 * n);
    if (ZSTD_isError(packed)) return nb_fail(err, NB_ERR_MEMORY, "%s: zstd: %s", c->path, ZSTD_getErrorName(packed));
    size_t bytes = sizeof head + packed;
    head.version = NB_CHUNK_VERSION;
    head.packed = packed;
    memcpy(c->chunk, &head, sizeof head);
    head.hash = chunk_hash(c->chunk, bytes);
    memcpy(c->chunk, &head, sizeof head);
    NB_TRY(nb_write_all(c->fd, c->chunk, bytes, c->path, err));
    c->at += bytes;
    return NB_OK;
}

static nb_status damaged(const nb_chunks *c, const nb_chunk_head *want, const char *why, nb_error *err)
{
    char where[64];
    if (want->first == NB_CHUNK_COLUMNS)
        snprintf(where, sizeof where, "columns");
    else
        snprintf(where, sizeof where, "rows from %llu on", (unsigned long long)want->first);
    return nb_fail(err, NB_ERR_INPUT, "%s: byte %llu: the chunk of site %u, part %u, %s is damaged: %s; calibrate again, or copy the file again",
                   c->path, (unsigned long long)c->at, want->site, want->part, where, why);
}

/* Head and, unless it is passed over, frame of the next chunk. */
static nb_status fetch(nb_chunks *c, const nb_chunk_head *want, nb_chunk_head *head, bool frame, nb_error *err)
{
    if (c->size - c->at < sizeof *head) return damaged(c, want, "the file ends in it", err);
    NB_TRY(nb_read_at(c->fd, c->chunk, sizeof *head, c->at, c->path, err));
    memcpy(head, c->chunk, sizeof *head);
    if (head->version != NB_CHUNK_VERSION || head->layer != want->layer || head->site != want->site || head->part != want->part ||
        head->first != want->first || head->words != want->words || head->packed > c->room - sizeof *head)
        return damaged(c, want, "its head is that of another chunk", err);
    if (c->size - c->at - sizeof *head < head->packed) return damaged(c, want, "the file ends in it", err);
    return frame ? nb_read_at(c->fd, c->chunk + sizeof *head, (size_t)head->packed, c->at + sizeof *head, c->path, err) : NB_OK;
}

nb_status nb_chunks_read(nb_chunks *c, nb_chunk_head want, nb_error *err)
{
    nb_chunk_head head;
    size_t        n = (size_t)want.words;
    NB_TRY(fetch(c, &want, &head, true, err));
    size_t packed = (size_t)head.packed;
    if (head.hash != chunk_hash(c->chunk, sizeof head + packed)) return damaged(c, &want, "its checksum does not match", err);
    if (ZSTD_decompressDCtx(c->inflate, c->planes, 8 * n, c->chunk + sizeof head, packed) != 8 * n)
        return damaged(c, &want, "zstd cannot unpack it", err);
    join_planes(c->words, c->planes, n);
    c->at += sizeof head + packed;
    return NB_OK;
}

nb_status nb_chunks_skip(nb_chunks *c, nb_chunk_head want, nb_error *err)
{
    nb_chunk_head head;
    NB_TRY(fetch(c, &want, &head, false, err));
    c->at += sizeof head + head.packed;
    return NB_OK;
}

nb_status nb_chunks_end(nb_chunks *c, nb_error *err)
{
    if (c->writing)
        return fsync(c->fd) ? nb_fail(err, NB_ERR_IO, "%s: cannot bring it to disk: %s", c->path, strerror(errno)) : NB_OK;
    if (c->at != c->size)
        return nb_fail(err, NB_ERR_INPUT, "%s: byte %llu: something follows the last chunk", c->path, (unsigned long long)c->at);
    return NB_OK;
}
