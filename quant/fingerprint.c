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

#include "runtime/io/content.h"
#include "runtime/io/file.h"

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

typedef nb_status content(uint64_t *hash, uint64_t *size, const char *path, nb_error *err);

static nb_status add_file(nb_journal *j, const char *path, content *read, nb_error *err)
{
    uint64_t hash, size;
    char     text[64];
    if (!nb_file_exists(path)) return nb_journal_fact(j, path, "absent", err);
    NB_TRY(read(&hash, &size, path, err));
    snprintf(text, sizeof text, "%" PRIu64 " bytes, %016" PRIx64, size, hash);
    return nb_journal_fact(j, path, text, err);
}

nb_status nb_fingerprint_file(nb_journal *j, const char *folder, const char *name, nb_error *err)
{
    char *path = nb_path_join(folder, name);
    if (!path) return nb_fail(err, NB_ERR_MEMORY, "out of memory for a path");
    nb_status status = add_file(j, path, nb_content_whole, err);
    free(path);
    return status;
}

nb_status nb_fingerprint_shard(nb_journal *j, const char *path, nb_error *err)
{
    return add_file(j, path, nb_content_spread, err);
}
