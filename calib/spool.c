/* spool.c - generations of hidden states as files of compressed chunks.
 *
 * A file is a row of chunks, each a head and one zstd frame.  The bytes of a float lie in four planes inside a chunk (all low
 * bytes first), because signs and exponents repeat and mantissas do not.  A head says what its chunk is and carries the xxHash64
 * of itself and of the frame; where chunks lie is known from writing them, so nothing that was read decides what is read next.
 *
 * Chunks of a generation are chained by their hashes: one number (nb_spool_mark) stands for all of them, and a generation that
 * another process left is read through once and believed only if it gives that number.  All others are removed.
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
    uint64_t format;     /* NB_SPOOL_FORMAT; must stay second */
    uint64_t generation, sample, part; /* part: chunk of the sample */
    uint64_t values;     /* floats in the chunk */
    uint64_t packed;     /* bytes of the frame */
} chunk_head;

typedef struct {
    char     *path;      /* NULL: there is no such generation */
    int       fd;
    uint64_t  number, bytes, hash; /* hash: of the hashes of its chunks, each with the one before as seed */
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
    bool       keep;
    uint64_t   written, next; /* next: number of the next generation */
    generation previous, current, coming; /* previous: kept until the mark of current is written down */
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

/* Forget it; its file goes unless it stays. */
static void leave(generation *g, bool stays)
{
    if (g->path) {
        if (g->fd >= 0) close(g->fd);
        if (!stays) unlink(g->path);
    }
    free(g->path);
    free(g->start);
    free(g->first);
    free(g->values);
    memset(g, 0, sizeof *g);
}

static void drop(generation *g)
{
    leave(g, false);
}

/* ---- the folder -------------------------------------------------------------------------------------------------- */

static bool is_generation(const char *name)
{
    size_t n = strlen(name), prefix = strlen(PREFIX), suffix = strlen(SUFFIX);
    if (n <= prefix + suffix || strncmp(name, PREFIX, prefix) || strcmp(name + n - suffix, SUFFIX)) return false;
    return strspn(name + prefix, "0123456789") == n - prefix - suffix;
}

/* All generations but the current one. */
static nb_status remove_left(const nb_spool *s, nb_error *err)
{
    const char *stays = s->current.path ? strrchr(s->current.path, '/') + 1 : "";
    DIR *dir = opendir(s->directory);
    if (!dir) return fail_errno(err, s->directory, "cannot list the spool");
    nb_status status = NB_OK;
    for (const struct dirent *e; !status && (e = readdir(dir));)
        if (is_generation(e->d_name) && strcmp(e->d_name, stays) && unlinkat(dirfd(dir), e->d_name, 0))
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
    return NB_OK;
}

static nb_status spool_open(nb_spool **out, const char *directory, int level, size_t chunk, nb_error *err)
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

nb_status nb_spool_new(nb_spool **out, const char *directory, int level, size_t chunk, nb_error *err)
{
    NB_TRY(spool_open(out, directory, level, chunk, err));
    nb_status status = remove_left(*out, err);
    if (status) {
        nb_spool_free(*out);
        *out = NULL;
    }
    return status;
}

void nb_spool_free(nb_spool *s)
{
    if (!s) return;
    drop(&s->coming);
    leave(&s->current, s->keep);
    leave(&s->previous, s->keep);
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

void nb_spool_keep(nb_spool *s)
{
    s->keep = true;
}

void nb_spool_settle(nb_spool *s)
{
    drop(&s->previous);
}

void nb_spool_discard(nb_spool *s)
{
    s->keep = false;
}

nb_spool_mark nb_spool_marked(const nb_spool *s)
{
    const generation *g = &s->current;
    return (nb_spool_mark){.generation = g->number, .bytes = g->bytes, .samples = g->samples, .chunk = s->chunk, .hash = g->hash};
}

size_t nb_spool_samples(const nb_spool *s)
{
    return s->current.samples;
}

size_t nb_spool_values(const nb_spool *s, size_t sample)
{
    return s->current.values[sample];
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static nb_status name_generation(const nb_spool *s, generation *g, uint64_t number, nb_error *err)
{
    g->number = number;
    g->fd = -1;
    if (asprintf(&g->path, "%s/" PREFIX "%llu" SUFFIX, s->directory, (unsigned long long)g->number) >= 0) return NB_OK;
    g->path = NULL;
    return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", s->directory);
}

nb_status nb_spool_start(nb_spool *s, nb_error *err)
{
    generation *g = &s->coming;
    drop(g);
    NB_TRY(name_generation(s, g, s->next++, err));
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

static nb_status add_chunk(generation *g, uint64_t hash, size_t bytes, nb_error *err)
{
    NB_TRY(nb_grow(&g->start, &g->chunk_capacity, g->chunks + 1, sizeof *g->start, "a spool", err));
    g->start[g->chunks++] = g->bytes;
    g->bytes += bytes;
    g->hash = XXH64(&hash, sizeof hash, g->hash);
    return NB_OK;
}

static nb_status add_sample(generation *g, size_t values, nb_error *err)
{
    NB_TRY(nb_grow(&g->first, &g->first_capacity, g->samples + 1, sizeof *g->first, "a spool", err));
    NB_TRY(nb_grow(&g->values, &g->values_capacity, g->samples + 1, sizeof *g->values, "a spool", err));
    g->first[g->samples] = g->chunks;
    g->values[g->samples] = values;
    return NB_OK;
}

static nb_status write_chunk(nb_spool *s, size_t part, const float *values, size_t n, nb_error *err)
{
    generation *g = &s->coming;
    split_planes(s->planes, values, n);
    size_t packed = ZSTD_compress2(s->deflate, s->packed + sizeof(chunk_head), s->packed_size - sizeof(chunk_head), s->planes, 4 * n);
    if (ZSTD_isError(packed)) return nb_fail(err, NB_ERR_MEMORY, "%s: zstd: %s", g->path, ZSTD_getErrorName(packed));
    chunk_head head = {.format = NB_SPOOL_FORMAT, .generation = g->number, .sample = g->samples, .part = part, .values = n, .packed = packed};
    size_t     bytes = sizeof head + packed;
    memcpy(s->packed, &head, sizeof head);
    head.hash = chunk_hash(s->packed, bytes);
    memcpy(s->packed, &head, sizeof head);
    nb_status status = nb_write_all(g->fd, s->packed, bytes, g->path, err);
    if (status && s->current.bytes) /* the last generation tells what this one takes */
        nb_error_within(err, "the spool needs about %llu bytes, for two sets of hidden states", (unsigned long long)(2 * s->current.bytes));
    if (status) return status;
    s->written += bytes;
    return add_chunk(g, head.hash, bytes, err);
}

nb_status nb_spool_put(nb_spool *s, const float *values, size_t count, nb_error *err)
{
    generation *g = &s->coming;
    assert(g->path);
    NB_TRY(add_sample(g, count, err));
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
    if (s->keep) NB_TRY(nb_fsync_folder(s->directory, err));
    drop(&s->previous);
    if (s->keep) s->previous = s->current;
    else drop(&s->current);
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
    else if (head.format != NB_SPOOL_FORMAT || head.generation != g->number || head.sample != sample || head.part != part || head.values != n ||
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

/* ---- finding a generation again ---------------------------------------------------------------------------------- */

/* The next chunk of a generation that is read through; *why is set when it is not one. */
static nb_status walk_chunk(nb_spool *s, generation *g, uint64_t size, const char **why, nb_error *err)
{
    chunk_head head;
    uint64_t   left = size - g->bytes;
    *why = "it is cut off";
    if (left < sizeof head) return NB_OK;
    NB_TRY(nb_read_at(g->fd, &head, sizeof head, g->bytes, g->path, err));
    if (head.format > NB_SPOOL_FORMAT) *why = "it was written by a newer nibble";
    if (head.format > NB_SPOOL_FORMAT || head.packed > left - sizeof head || head.packed > s->packed_size - sizeof head) return NB_OK;
    size_t bytes = sizeof head + (size_t)head.packed;
    NB_TRY(nb_read_at(g->fd, s->packed, bytes, g->bytes, g->path, err));
    *why = "a checksum does not match";
    if (head.hash != chunk_hash(s->packed, bytes)) return NB_OK;
    *why = "it is not what was written last";
    bool next = head.sample == g->samples && head.part == 0;
    bool more = g->samples && head.sample == g->samples - 1 && head.part == g->chunks - g->first[g->samples - 1];
    if (!next && !more) return NB_OK;
    if (next) {
        NB_TRY(add_sample(g, 0, err));
        g->samples++;
    }
    g->values[g->samples - 1] += (size_t)head.values;
    *why = NULL;
    return add_chunk(g, head.hash, bytes, err);
}

static nb_status walk(nb_spool *s, generation *g, const nb_spool_mark *mark, const char **why, nb_error *err)
{
    uint64_t size;
    nb_error missing;
    if (nb_open_regular(&g->fd, &size, g->path, &missing)) {
        *why = "it is not there";
        return NB_OK;
    }
    *why = size != mark->bytes ? "its size is another" : mark->chunk != s->chunk ? "its chunks have another size" : NULL;
    while (!*why && g->bytes < size) NB_TRY(walk_chunk(s, g, size, why, err));
    if (!*why && (g->hash != mark->hash || g->samples != mark->samples)) *why = "it is not what was written last";
    return NB_OK;
}

nb_status nb_spool_recover(nb_spool **out, const char *directory, int level, size_t chunk, const nb_spool_mark *mark, nb_buf *why,
                           nb_error *err)
{
    generation  found = {0};
    const char *wrong = NULL;
    nb_error    read_error = {0};
    NB_TRY(spool_open(out, directory, level, chunk, err));
    nb_spool *s = *out;
    nb_status status = name_generation(s, &found, mark->generation, err);
    if (!status && walk(s, &found, mark, &wrong, &read_error)) wrong = read_error.text; /* a disk that cannot read it back */
    if (!status && wrong) nb_buf_printf(why, "%s: %s", found.path, wrong);
    if (status || wrong)
        leave(&found, true); /* removed with the others */
    else
        s->current = found;
    s->next = mark->generation + 1;
    if (!status) status = remove_left(s, err);
    if (status) {
        nb_spool_free(s);
        *out = NULL;
    }
    return status;
}
