/* fingerprint.c - facts for the journal, by content: a file that was only touched, or copied to the same place, is the same.
 *
 * Weights are too large to be read through before the work begins.  Their headers and some blocks are hashed here; every value is
 * hashed when it is read for its own sake (resume.c), so that a difference that the blocks miss is found then.
 */
#include "quant/fingerprint.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "runtime/io/file.h"

enum { CHUNK = 1 << 20, BLOCK = 4096, BLOCKS = 512, HEADER_LIMIT = 100000000 };

nb_status nb_fingerprint_hash(nb_journal *j, const char *what, uint64_t hash, nb_error *err)
{
    char text[24];
    snprintf(text, sizeof text, "%016" PRIx64, hash);
    return nb_journal_fact(j, what, text, err);
}

static nb_status option(nb_journal *j, const cJSON *item, nb_error *err)
{
    nb_buf value = {0};
    char   name[100];
    snprintf(name, sizeof name, "--%.90s", item->string);
    for (char *c = name; *c; c++)
        if (*c == '_') *c = '-';
    nb_json_print(&value, item, NB_JSON_COMPACT);
    nb_status status = nb_buf_status(&value, "an option", err);
    if (!status) status = nb_journal_fact(j, name, value.data, err);
    nb_buf_free(&value);
    return status;
}

nb_status nb_fingerprint_options(nb_journal *j, const char *recipe_json, nb_error *err)
{
    cJSON *recipe;
    if (!recipe_json) return nb_journal_options_done(j, err);
    NB_TRY(nb_json_parse(&recipe, recipe_json, strlen(recipe_json), "the recipe", err));
    const cJSON *version = nb_json_find(recipe, "_nibble"), *options = nb_json_find(recipe, "quantize"), *item;
    nb_status    status = NB_OK;
    if (!options) options = recipe;
    if (cJSON_IsString(version)) status = nb_journal_fact(j, "--version", version->valuestring, err);
    cJSON_ArrayForEach(item, options)
        if (!status && item->string && item->string[0] != '_') status = option(j, item, err);
    cJSON_Delete(recipe);
    return status ? status : nb_journal_options_done(j, err);
}

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

static nb_status add_file(nb_journal *j, const char *path, hash_some *hash, nb_error *err)
{
    uint64_t       size;
    int            fd;
    char          *chunk, text[64];
    if (!nb_file_exists(path)) return nb_journal_fact(j, path, "absent", err);
    NB_TRY(nb_open_regular(&fd, &size, path, err));
    nb_status      status = nb_alloc(&chunk, 1, CHUNK, "a chunk to hash", err);
    XXH64_state_t *state = XXH64_createState();
    if (!status && !state) status = nb_fail(err, NB_ERR_MEMORY, "out of memory for a fingerprint");
    if (!status) {
        XXH64_reset(state, 0);
        status = hash(state, fd, size, chunk, path, err);
        snprintf(text, sizeof text, "%" PRIu64 " bytes, %016" PRIx64, size, (uint64_t)XXH64_digest(state));
    }
    if (!status) status = nb_journal_fact(j, path, text, err);
    XXH64_freeState(state);
    free(chunk);
    close(fd);
    return status;
}

nb_status nb_fingerprint_file(nb_journal *j, const char *folder, const char *name, nb_error *err)
{
    char *path = nb_path_join(folder, name);
    if (!path) return nb_fail(err, NB_ERR_MEMORY, "out of memory for a path");
    nb_status status = add_file(j, path, hash_whole, err);
    free(path);
    return status;
}

nb_status nb_fingerprint_shard(nb_journal *j, const char *path, nb_error *err)
{
    return add_file(j, path, hash_spread, err);
}
