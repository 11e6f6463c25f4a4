/* content.c - by content: a file that was only touched, or copied to the same place, is the same. */
#include "runtime/io/content.h"

#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>

#include "runtime/io/file.h"

enum { CHUNK = 1 << 20, BLOCK = 4096, BLOCKS = 512, HEADER_LIMIT = 100000000 };

/* Feed bytes [at, at + n) of a file to a hash. */
static nb_status hash_range(XXH64_state_t *state, int fd, uint64_t at, uint64_t n, char *chunk, const char *path, nb_error *err)
{
    while (n) {
        size_t some = n < CHUNK ? (size_t)n : CHUNK;
        NB_TRY(nb_read_at(fd, chunk, some, at, path, err));
        XXH64_update(state, chunk, some);
        at += some;
        n -= some;
    }
    return NB_OK;
}

static nb_status hash_whole(XXH64_state_t *state, int fd, uint64_t size, char *chunk, const char *path, nb_error *err)
{
    return hash_range(state, fd, 0, size, chunk, path, err);
}

/* The header of a safetensors file, whose length its first 8 bytes give, and blocks at equal distances behind it. */
static nb_status hash_spread(XXH64_state_t *state, int fd, uint64_t size, char *chunk, const char *path, nb_error *err)
{
    uint64_t header = 0;
    uint8_t  length[8] = {0};
    if (size >= sizeof length) NB_TRY(nb_read_at(fd, length, sizeof length, 0, path, err));
    for (int i = 0; i < 8; i++) header |= (uint64_t)length[i] << 8 * i;
    header = header > HEADER_LIMIT || header + 8 > size ? size : header + 8;
    if (size - header <= (uint64_t)BLOCK * BLOCKS) return hash_whole(state, fd, size, chunk, path, err);
    NB_TRY(hash_range(state, fd, 0, header, chunk, path, err));
    uint64_t step = (size - header - BLOCK) / (BLOCKS - 1);
    for (uint64_t i = 0; i < BLOCKS; i++) NB_TRY(hash_range(state, fd, header + i * step, BLOCK, chunk, path, err));
    return NB_OK;
}

typedef nb_status hash_some(XXH64_state_t *state, int fd, uint64_t size, char *chunk, const char *path, nb_error *err);

static nb_status content(uint64_t *out, uint64_t *size, const char *path, hash_some *hash, nb_error *err)
{
    int   fd;
    char *chunk;
    NB_TRY(nb_open_regular(&fd, size, path, err));
    nb_status      status = nb_alloc(&chunk, 1, CHUNK, "a chunk to hash", err);
    XXH64_state_t *state = XXH64_createState();
    if (!status && !state) status = nb_fail(err, NB_ERR_MEMORY, "out of memory for a fingerprint");
    if (!status) {
        XXH64_reset(state, 0);
        status = hash(state, fd, *size, chunk, path, err);
        *out = XXH64_digest(state);
    }
    XXH64_freeState(state);
    free(chunk);
    close(fd);
    return status;
}

nb_status nb_content_whole(uint64_t *hash, uint64_t *size, const char *path, nb_error *err)
{
    return content(hash, size, path, hash_whole, err);
}

nb_status nb_content_spread(uint64_t *hash, uint64_t *size, const char *path, nb_error *err)
{
    return content(hash, size, path, hash_spread, err);
}
