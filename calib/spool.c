/* spool.c - generations of hidden states as files of compressed chunks.
 *
 * A file is a row of chunks, each a head and one zstd frame.  The bytes of a float lie in four planes inside a chunk (all low
 * bytes first), because signs and exponents repeat and mantissas do not.  A head says what its chunk is and carries the xxHash64
 * of itself and of the frame; where chunks lie is known from writing them, so nothing that was read decides what is read next.
 *
 * A spool lives as long as the process that made it.  It does not recover the generations of another run: it removes them.
 */
#include "calib/spool.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

#include "runtime/io/file.h"

#define PREFIX "hidden-"
#define SUFFIX ".spool"

typedef struct {
    uint64_t hash;       /* of all that follows, frame included; must stay first */
    uint64_t generation, sample, part; /* part: chunk of the sample */
    uint64_t values;     /* floats in the chunk */
    uint64_t packed;     /* bytes of the frame */
} chunk_head;

typedef struct {
    char     *path;      /* NULL: there is no such generation */
    int       fd;
    uint64_t  number, bytes;
    uint64_t *start;     /* [chunks] offset of each; it ends where the next one starts, the last one at bytes */
    size_t   *first;     /* [samples] first chunk of each */
    size_t   *values;    /* [samples] floats of each */
    size_t    chunks, samples, chunk_capacity, first_capacity, values_capacity;
} generation;

struct nb_spool {
    char      *directory;
    bool       made;     /* the folder is ours to remove */
    int        lock;     /* the folder, held by flock */
    size_t     chunk;
    uint64_t   written, next; /* next: number of the next generation */
    generation current, coming;
    uint8_t   *planes;   /* [4 chunk] */
    uint8_t   *packed;   /* head and frame */
    size_t     packed_size;
    ZSTD_CCtx *deflate;
    ZSTD_DCtx *inflate;
};

static nb_status fail_errno(nb_error *err, const char *path, const char *doing)
{
    return nb_fail(err, NB_ERR_IO, "%s: %s: %s", path, doing, strerror(errno));
}

static void drop(generation *g)
{
    if (g->path) {
        if (g->fd >= 0) close(g->fd);
        unlink(g->path);
    }
    free(g->path);
    free(g->start);
    free(g->first);
    free(g->values);
    memset(g, 0, sizeof *g);
}

/* ---- the folder -------------------------------------------------------------------------------------------------- */

static bool is_generation(const char *name)
{
    size_t n = strlen(name), prefix = strlen(PREFIX), suffix = strlen(SUFFIX);
    if (n <= prefix + suffix || strncmp(name, PREFIX, prefix) || strcmp(name + n - suffix, SUFFIX)) return false;
    return strspn(name + prefix, "0123456789") == n - prefix - suffix;
}

static nb_status remove_left(const nb_spool *s, nb_error *err)
{
    DIR *dir = opendir(s->directory);
    if (!dir) return fail_errno(err, s->directory, "cannot list the spool");
    nb_status status = NB_OK;
    for (const struct dirent *e; !status && (e = readdir(dir));)
        if (is_generation(e->d_name) && unlinkat(dirfd(dir), e->d_name, 0))
            status = fail_errno(err, s->directory, "cannot remove what an earlier run left");
    closedir(dir);
    return status;
}

static nb_status open_folder(nb_spool *s, nb_error *err)
{
    if (mkdir(s->directory, 0777) == 0)
        s->made = true;
    else if (errno != EEXIST)
        return fail_errno(err, s->directory, "cannot create the spool");
    s->lock = open(s->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->lock < 0) return fail_errno(err, s->directory, "cannot open the spool");
    if (flock(s->lock, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK) /* other reasons: a file system without locks */
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: another run spools there; wait for it or choose another folder", s->directory);
    return remove_left(s, err);
}

nb_status nb_spool_new(nb_spool **out, const char *directory, int level, size_t chunk, nb_error *err)
{
    nb_spool *s;
    *out = NULL;
    if (level < 0 || level > 19) return nb_fail(err, NB_ERR_ARGUMENT, "a zstd level of %d; give 1 to 19", level);
    NB_TRY(nb_alloc(&s, 1, sizeof *s, "a spool", err));
    s->lock = -1;
    s->chunk = chunk ? chunk : NB_SPOOL_CHUNK;
    s->packed_size = sizeof(chunk_head) + ZSTD_compressBound(s->chunk * sizeof(float));
    s->directory = nb_strdup(directory);
    s->planes = nb_calloc_aligned(s->chunk, sizeof(float));
    s->packed = nb_calloc_aligned(s->packed_size, 1);
    s->deflate = ZSTD_createCCtx();
    s->inflate = ZSTD_createDCtx();
    bool ready = s->directory && s->planes && s->packed && s->deflate && s->inflate &&
                 !ZSTD_isError(ZSTD_CCtx_setParameter(s->deflate, ZSTD_c_compressionLevel, level ? level : NB_SPOOL_LEVEL));
    nb_status status = ready ? open_folder(s, err) : nb_fail(err, NB_ERR_MEMORY, "%s: out of memory for a spool", directory);
    if (status)
        nb_spool_free(s);
    else
        *out = s;
    return status;
}

void nb_spool_free(nb_spool *s)
{
    if (!s) return;
    drop(&s->coming);
    drop(&s->current);
    if (s->made) rmdir(s->directory); /* stays when somebody put something there */
    if (s->lock >= 0) close(s->lock);
    ZSTD_freeCCtx(s->deflate);
    ZSTD_freeDCtx(s->inflate);
    free(s->planes);
    free(s->packed);
    free(s->directory);
    free(s);
}

uint64_t nb_spool_bytes(const nb_spool *s)
{
    return s->current.bytes;
}

uint64_t nb_spool_written(const nb_spool *s)
{
    return s->written;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

nb_status nb_spool_start(nb_spool *s, nb_error *err)
{
    generation *g = &s->coming;
    drop(g);
    g->number = s->next++;
    if (asprintf(&g->path, "%s/" PREFIX "%llu" SUFFIX, s->directory, (unsigned long long)g->number) < 0) {
        g->path = NULL;
        return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", s->directory);
    }
    g->fd = open(g->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    return g->fd < 0 ? fail_errno(err, g->path, "cannot create it") : NB_OK;
}

static void split_planes(uint8_t *planes, const float *values, size_t n)
{
    const uint8_t *bytes = (const uint8_t *)values;
    for (size_t plane = 0; plane < 4; plane++)
        for (size_t i = 0; i < n; i++) planes[plane * n + i] = bytes[4 * i + plane];
}

static void join_planes(float *values, const uint8_t *planes, size_t n)
{
    uint8_t *bytes = (uint8_t *)values;
    for (size_t plane = 0; plane < 4; plane++)
        for (size_t i = 0; i < n; i++) bytes[4 * i + plane] = planes[plane * n + i];
}

static uint64_t chunk_hash(const uint8_t *chunk, size_t bytes)
{
    return XXH64(chunk + sizeof(uint64_t), bytes - sizeof(uint64_t), 0);
}

static nb_status write_chunk(nb_spool *s, size_t part, const float *values, size_t n, nb_error *err)
{
    generation *g = &s->coming;
    NB_TRY(nb_grow(&g->start, &g->chunk_capacity, g->chunks + 1, sizeof *g->start, "a spool", err));
    split_planes(s->planes, values, n);
    size_t packed = ZSTD_compress2(s->deflate, s->packed + sizeof(chunk_head), s->packed_size - sizeof(chunk_head), s->planes, 4 * n);
    if (ZSTD_isError(packed)) return nb_fail(err, NB_ERR_MEMORY, "%s: zstd: %s", g->path, ZSTD_getErrorName(packed));
    chunk_head head = {.generation = g->number, .sample = g->samples, .part = part, .values = n, .packed = packed};
    size_t     bytes = sizeof head + packed;
    memcpy(s->packed, &head, sizeof head);
    head.hash = chunk_hash(s->packed, bytes);
    memcpy(s->packed, &head, sizeof head);
    NB_TRY(nb_write_all(g->fd, s->packed, bytes, g->path, err));
    g->start[g->chunks++] = g->bytes;
    g->bytes += bytes;
    s->written += bytes;
    return NB_OK;
}

nb_status nb_spool_put(nb_spool *s, const float *values, size_t count, nb_error *err)
{
    generation *g = &s->coming;
    assert(g->path);
    NB_TRY(nb_grow(&g->first, &g->first_capacity, g->samples + 1, sizeof *g->first, "a spool", err));
    NB_TRY(nb_grow(&g->values, &g->values_capacity, g->samples + 1, sizeof *g->values, "a spool", err));
    g->first[g->samples] = g->chunks;
    g->values[g->samples] = count;
    for (size_t at = 0, part = 0; at < count; part++) {
        size_t n = count - at < s->chunk ? count - at : s->chunk;
        NB_TRY(write_chunk(s, part, values + at, n, err));
        at += n;
    }
    g->samples++;
    return NB_OK;
}

nb_status nb_spool_finish(nb_spool *s, nb_error *err)
{
    assert(s->coming.path);
    if (fdatasync(s->coming.fd)) return fail_errno(err, s->coming.path, "cannot bring it to disk");
    drop(&s->current);
    s->current = s->coming;
    memset(&s->coming, 0, sizeof s->coming);
    return NB_OK;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static nb_status read_chunk(nb_spool *s, size_t sample, size_t part, float *values, size_t n, nb_error *err)
{
    const generation *g = &s->current;
    size_t            i = g->first[sample] + part;
    uint64_t          end = i + 1 < g->chunks ? g->start[i + 1] : g->bytes;
    size_t            bytes = (size_t)(end - g->start[i]);
    chunk_head        head;
    const char       *wrong = NULL;
    nb_status         status = nb_read_at(g->fd, s->packed, bytes, g->start[i], g->path, err);
    if (status) {
        nb_error_within(err, "chunk %zu of sample %zu", part, sample);
        return status;
    }
    memcpy(&head, s->packed, sizeof head);
    if (head.hash != chunk_hash(s->packed, bytes))
        wrong = "its checksum does not match";
    else if (head.generation != g->number || head.sample != sample || head.part != part || head.values != n ||
             head.packed != bytes - sizeof head)
        wrong = "it is another chunk";
    else if (ZSTD_decompressDCtx(s->inflate, s->planes, 4 * n, s->packed + sizeof head, bytes - sizeof head) != 4 * n)
        wrong = "zstd cannot unpack it";
    if (wrong)
        return nb_fail(err, NB_ERR_IO, "%s: chunk %zu of sample %zu (byte %llu) is damaged: %s; repeat the command, with the spool on a "
                       "disk that keeps what it is given", g->path, part, sample, (unsigned long long)g->start[i], wrong);
    join_planes(values, s->planes, n);
    return NB_OK;
}

nb_status nb_spool_get(nb_spool *s, size_t sample, float *values, size_t count, nb_error *err)
{
    const generation *g = &s->current;
    assert(g->path && sample < g->samples && g->values[sample] == count);
    for (size_t at = 0, part = 0; at < count; part++) {
        size_t n = count - at < s->chunk ? count - at : s->chunk;
        NB_TRY(read_chunk(s, sample, part, values + at, n, err));
        at += n;
    }
    return NB_OK;
}
