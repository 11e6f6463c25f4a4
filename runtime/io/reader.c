/* reader.c - see reader.h.  A packed file is read in blocks of 64 KiB into `in`; a plain one goes straight to the caller.
 *
 * Both decoders fit one shape: give them what is left of `in` and room for output, learn how much of each was used and
 * whether a member ended.  The loop around them is the same, and so are its errors.  Neither uses the last byte of a member
 * before all of its output was taken (gzip has its trailer to check, zstd holds one back), so the end of the file inside a
 * member always means that it is cut short.
 */
#include "runtime/io/reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ZLIB_CONST
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "runtime/io/file.h"

enum { BLOCK = 1 << 16, WINDOW_LOG = 27 };

typedef enum { PLAIN, GZIP, ZSTD } packing;

struct nb_reader {
    int      fd;           /* -1: the bytes are in memory */
    const uint8_t *bytes;
    char    *path;
    uint64_t offset, size; /* of the file */
    packing  kind;
    bool     inside;       /* a member has begun and not ended */
    nb_status broken;      /* the status of an earlier failure: a decoder cannot go on behind damage */
    size_t   at, have;     /* what is left of in */
    z_stream gzip;
    bool     gzip_open;
    ZSTD_DCtx *zstd;
    uint8_t  in[BLOCK];
};

static nb_status read_file(nb_reader *r, void *dst, size_t n, size_t *got, nb_error *err)
{
    ssize_t count;
    if (r->bytes) {
        *got = r->size - r->offset < n ? (size_t)(r->size - r->offset) : n;
        memcpy(dst, r->bytes + r->offset, *got);
        r->offset += *got;
        return NB_OK;
    }
    do count = pread(r->fd, dst, n, (off_t)r->offset);
    while (count < 0 && errno == EINTR);
    if (count < 0)
        return nb_fail(err, NB_ERR_IO, "%s: cannot read at byte %llu: %s", r->path, (unsigned long long)r->offset,
                       strerror(errno));
    r->offset += (size_t)count;
    *got = (size_t)count;
    return NB_OK;
}

/* ---- the decoders: *used of the input, *made of the output ------------------------------------------------------------ */

static nb_status gzip_begin(nb_reader *r, nb_error *err)
{
    r->gzip_open = inflateInit2(&r->gzip, MAX_WBITS + 16) == Z_OK; /* 16: a gzip header is expected, nothing else */
    return r->gzip_open ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "%s: no memory to unpack it", r->path);
}

static nb_status gzip_step(nb_reader *r, void *dst, size_t n, size_t *used, size_t *made, nb_error *err)
{
    z_stream *z = &r->gzip;
    if (!r->inside && inflateReset(z) != Z_OK) return nb_fail(err, NB_ERR_MEMORY, "%s: no memory to unpack it", r->path);
    z->next_in = r->in + r->at;
    z->avail_in = (uInt)(r->have - r->at);
    z->next_out = dst;
    z->avail_out = n < UINT32_MAX ? (uInt)n : UINT32_MAX;
    uInt room = z->avail_out;
    int  code = inflate(z, Z_NO_FLUSH);
    *used = r->have - r->at - z->avail_in;
    *made = room - z->avail_out;
    r->inside = code != Z_STREAM_END;
    if (code == Z_OK || code == Z_STREAM_END || code == Z_BUF_ERROR) return NB_OK;
    if (code == Z_MEM_ERROR) return nb_fail(err, NB_ERR_MEMORY, "%s: no memory to unpack it", r->path);
    return nb_fail(err, NB_ERR_INPUT, "%s: damaged gzip data before byte %llu (%s)", r->path,
                   (unsigned long long)(r->offset - z->avail_in), z->msg ? z->msg : "not understood");
}

static void gzip_end(nb_reader *r)
{
    if (r->gzip_open) inflateEnd(&r->gzip);
}

static nb_status zstd_begin(nb_reader *r, nb_error *err)
{
    r->zstd = ZSTD_createDCtx();
    if (!r->zstd || ZSTD_isError(ZSTD_DCtx_setParameter(r->zstd, ZSTD_d_windowLogMax, WINDOW_LOG)))
        return nb_fail(err, NB_ERR_MEMORY, "%s: no memory to unpack it", r->path);
    return NB_OK;
}

static nb_status zstd_step(nb_reader *r, void *dst, size_t n, size_t *used, size_t *made, nb_error *err)
{
    ZSTD_inBuffer  in = {r->in, r->have, r->at};
    ZSTD_outBuffer out = {dst, n, 0};
    size_t         code = ZSTD_decompressStream(r->zstd, &out, &in);
    *used = in.pos - r->at;
    *made = out.pos;
    r->inside = code != 0;
    if (!ZSTD_isError(code)) return NB_OK;
    switch (ZSTD_getErrorCode(code)) {
    case ZSTD_error_memory_allocation: return nb_fail(err, NB_ERR_MEMORY, "%s: no memory to unpack it", r->path);
    case ZSTD_error_frameParameter_windowTooLarge:
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: its zstd window is larger than %d MiB: unpack it first, or pack it without "
                       "--long and --ultra", r->path, 1 << (WINDOW_LOG - 20));
    default:
        return nb_fail(err, NB_ERR_INPUT, "%s: damaged zstd data before byte %llu (%s)", r->path,
                       (unsigned long long)(r->offset - (r->have - in.pos)), ZSTD_getErrorName(code));
    }
}

static void zstd_end(nb_reader *r)
{
    ZSTD_freeDCtx(r->zstd);
}

typedef nb_status decoder(nb_reader *r, void *dst, size_t n, size_t *used, size_t *made, nb_error *err);

static const struct {
    const char *name;
    nb_status (*begin)(nb_reader *r, nb_error *err);
    decoder    *step;
} packings[] = {[PLAIN] = {0}, [GZIP] = {"gzip", gzip_begin, gzip_step}, [ZSTD] = {"zstd", zstd_begin, zstd_step}};

/* ---- reading ------------------------------------------------------------------------------------------------------------ */

static nb_status read_some(nb_reader *r, void *dst, size_t n, size_t *got, nb_error *err)
{
    if (r->kind == PLAIN) {
        *got = r->have - r->at < n ? r->have - r->at : n; /* the bytes that told that it is plain */
        if (!*got) return read_file(r, dst, n, got, err);
        memcpy(dst, r->in + r->at, *got);
        r->at += *got;
        return NB_OK;
    }
    while (!*got) {
        if (r->at == r->have) {
            r->at = 0;
            NB_TRY(read_file(r, r->in, BLOCK, &r->have, err));
            if (!r->have && r->inside)
                return nb_fail(err, NB_ERR_INPUT, "%s: the %s data ends too early, at byte %llu: the file is cut short", r->path,
                               packings[r->kind].name, (unsigned long long)r->offset);
            if (!r->have) return NB_OK;
        }
        size_t used = 0;
        NB_TRY(packings[r->kind].step(r, dst, n, &used, got, err));
        r->at += used;
    }
    return NB_OK;
}

nb_status nb_reader_read(nb_reader *r, void *dst, size_t n, size_t *got, nb_error *err)
{
    *got = 0;
    if (n == 0) return NB_OK;
    if (r->broken) return nb_fail(err, r->broken, "%s: reading stopped at an earlier error", r->path);
    r->broken = read_some(r, dst, n, got, err);
    if (r->broken) *got = 0;
    return r->broken;
}

bool nb_reader_broken(const nb_reader *r)
{
    return r->broken != NB_OK;
}

static nb_status begin(nb_reader *r, nb_error *err)
{
    NB_TRY(read_file(r, r->in, BLOCK, &r->have, err));
    bool skippable = r->have >= 4 && (r->in[0] & 0xf0) == 0x50 && !memcmp(r->in + 1, "\x2a\x4d\x18", 3);
    if (r->have >= 2 && !memcmp(r->in, "\x1f\x8b", 2))
        r->kind = GZIP;
    else if (skippable || (r->have >= 4 && !memcmp(r->in, "\x28\xb5\x2f\xfd", 4)))
        r->kind = ZSTD;
    return r->kind == PLAIN ? NB_OK : packings[r->kind].begin(r, err);
}

/* bytes NULL: path is a file. */
static nb_status open_reader(nb_reader **out, const char *path, const void *bytes, size_t n, nb_error *err)
{
    *out = NULL;
    nb_reader *r = calloc(1, sizeof *r);
    if (!r) return nb_fail(err, NB_ERR_MEMORY, "%s: no memory to read it", path);
    r->fd = -1;
    r->path = nb_strdup(path);
    r->bytes = bytes;
    r->size = n;
    nb_status status = r->path ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "%s: no memory to read it", path);
    if (status == NB_OK && !bytes) status = nb_open_regular(&r->fd, &r->size, path, err);
    if (status == NB_OK) status = begin(r, err);
    if (status != NB_OK) {
        nb_reader_close(r);
        return status;
    }
    *out = r;
    return NB_OK;
}

nb_status nb_reader_open(nb_reader **out, const char *path, nb_error *err)
{
    return open_reader(out, path, NULL, 0, err);
}

nb_status nb_reader_open_bytes(nb_reader **out, const char *name, const void *bytes, size_t n, nb_error *err)
{
    return open_reader(out, name, bytes, n, err);
}

void nb_reader_close(nb_reader *r)
{
    if (!r) return;
    gzip_end(r);
    zstd_end(r);
    if (r->fd >= 0) close(r->fd);
    free(r->path);
    free(r);
}

uint64_t nb_reader_offset(const nb_reader *r)
{
    return r->offset;
}

uint64_t nb_reader_size(const nb_reader *r)
{
    return r->size;
}

const char *nb_reader_packing(const nb_reader *r)
{
    return packings[r->kind].name;
}
