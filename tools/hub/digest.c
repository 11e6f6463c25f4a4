/* digest.c - SHA-256 of a file, or the id that git gives it, through OpenSSL.  Git's SHA-1 is no protection against someone
 * who chooses the content; it tells damaged downloads from good ones, and hubs publish nothing else for small files. */
#include "tools/hub/digest.h"

#include <stdio.h>
#include <stdlib.h>

#include <openssl/evp.h>

#include "runtime/io/file.h"

enum { PIECE = 1 << 20 };

static nb_status update_file(EVP_MD_CTX *md, int fd, uint64_t size, const char *path, nb_hub_tick *tick, void *context,
                             nb_error *err)
{
    char *piece;
    NB_TRY(nb_alloc(&piece, PIECE, 1, "a piece of a file", err));
    nb_status status = NB_OK;
    for (uint64_t at = 0; at < size && !status;) {
        size_t n = size - at < PIECE ? (size_t)(size - at) : PIECE;
        status = nb_read_at(fd, piece, n, at, path, err);
        if (!status && EVP_DigestUpdate(md, piece, n) != 1) status = nb_fail(err, NB_ERR_IO, "%s: the digest failed", path);
        if (!status && tick && !tick(context, NULL, 0))
            status = nb_fail(err, NB_ERR_STOPPED, "%s: stopped while checking it", path);
        at += n;
    }
    free(piece);
    return status;
}

nb_status nb_digest_file(char out[65], int fd, uint64_t size, nb_digest_kind kind, const char *path, nb_hub_tick *tick,
                         void *context, nb_error *err)
{
    unsigned char raw[EVP_MAX_MD_SIZE];
    char          header[40];
    unsigned      bytes = 0;
    EVP_MD_CTX   *md = EVP_MD_CTX_new();
    bool          good = md && EVP_DigestInit_ex(md, kind == NB_DIGEST_GIT ? EVP_sha1() : EVP_sha256(), NULL) == 1;
    if (good && kind == NB_DIGEST_GIT) {
        int n = snprintf(header, sizeof header, "blob %llu", (unsigned long long)size);
        good = EVP_DigestUpdate(md, header, (size_t)n + 1) == 1; /* with its NUL */
    }
    nb_status status = good ? update_file(md, fd, size, path, tick, context, err)
                            : nb_fail(err, NB_ERR_IO, "%s: this system's OpenSSL offers no such digest", path);
    if (!status && (EVP_DigestFinal_ex(md, raw, &bytes) != 1 || bytes > 32))
        status = nb_fail(err, NB_ERR_IO, "%s: the digest failed", path);
    for (unsigned i = 0; i < bytes && !status; i++) snprintf(out + 2 * i, 3, "%02x", raw[i]);
    EVP_MD_CTX_free(md);
    return status;
}
