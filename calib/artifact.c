/* artifact.c - what an artifact says about itself: artifact.json, the model's fingerprint, and which artifacts belong together. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "calib/artifact_info.h"
#include "runtime/io/file.h"
#include "runtime/io/json.h"

#define FORMAT "nibble-calibration"

enum {
    VERSION = 1,
    INFO_LIMIT = 1 << 20,
    MOST_LAYERS = 4096,
    MOST_INPUTS = 1 << 20,
    ROWS_LOOKED_AT = 4096, /* values of a tensor in the fingerprint, about */
};

static const char *const site_keys[NB_SITES] = {"qkv", "o", "gate_up", "down"};
static const char *const modality_keys[NB_TOKEN_KINDS] = {"text", "image", "video", "uncounted"};

/* ---- artifact.json ----------------------------------------------------------------------------------------------------- */

void nb_artifact_info_print(nb_buf *out, const nb_artifact_info *info)
{
    nb_buf_printf(out, "{\n  \"format\": \"" FORMAT "\",\n  \"version\": %d,\n  \"model\": \"%016llx\",\n  \"data\": \"%016llx\",\n", VERSION,
                  (unsigned long long)info->model, (unsigned long long)info->data);
    nb_buf_printf(out, "  \"arithmetic\": \"%s\",\n  \"per_modality\": %s,\n  \"layers\": %d,\n  \"inputs\": {", info->arithmetic,
                  info->per_modality ? "true" : "false", info->layers);
    for (int i = 0; i < NB_SITES; i++) nb_buf_printf(out, "%s\"%s\": %d", i ? ", " : "", site_keys[i], info->k[i]);
    nb_buf_printf(out, "},\n  \"samples\": %llu,\n  \"tokens\": {", (unsigned long long)info->samples);
    for (int i = 0; i < NB_TOKEN_KINDS; i++)
        nb_buf_printf(out, "%s\"%s\": %llu", i ? ", " : "", modality_keys[i], (unsigned long long)info->tokens[i]);
    nb_buf_str(out, "},\n  \"modality_weights\": {");
    for (int i = 0; i < NB_MODALITIES; i++) {
        nb_buf_printf(out, "%s\"%s\": ", i ? ", " : "", modality_keys[i]);
        nb_buf_json_number(out, (double)info->weights[i]);
    }
    nb_buf_str(out, "}\n}\n");
}

static nb_status read_hash(uint64_t *out, const cJSON *tree, const char *key, const char *path, nb_error *err)
{
    const char *text;
    char       *end;
    NB_TRY(nb_json_get_string(tree, key, &text, path, err));
    *out = strtoull(text, &end, 16);
    if (strlen(text) != 16 || *end || strspn(text, "0123456789abcdef") != 16)
        return nb_fail(err, NB_ERR_INPUT, "%s: %s is not a hash of 16 digits", path, key);
    return NB_OK;
}

static nb_status read_counts(nb_artifact_info *out, const cJSON *tree, const char *path, nb_error *err)
{
    const cJSON *inputs = nb_json_find(tree, "inputs"), *tokens = nb_json_find(tree, "tokens"), *weights = nb_json_find(tree, "modality_weights");
    int64_t      n;
    NB_TRY(nb_json_get_int(tree, "layers", 1, MOST_LAYERS, &n, path, err));
    out->layers = (int)n;
    NB_TRY(nb_json_get_int(tree, "samples", 0, INT64_C(1) << 50, &n, path, err));
    out->samples = (uint64_t)n;
    for (int i = 0; i < NB_SITES; i++) {
        NB_TRY(nb_json_get_int(inputs, site_keys[i], 1, MOST_INPUTS, &n, path, err));
        out->k[i] = (int)n;
    }
    for (int i = 0; i < NB_TOKEN_KINDS; i++) {
        NB_TRY(nb_json_get_int(tokens, modality_keys[i], 0, INT64_C(1) << 50, &n, path, err));
        out->tokens[i] = (uint64_t)n;
    }
    for (int i = 0; i < NB_MODALITIES; i++) {
        double weight;
        NB_TRY(nb_json_get_number(weights, modality_keys[i], 0, 1e6, &weight, path, err));
        out->weights[i] = (float)weight;
    }
    return NB_OK;
}

static nb_status read_info(nb_artifact_info *out, const cJSON *tree, const char *path, nb_error *err)
{
    const char *format = NULL, *arithmetic;
    int64_t     version;
    NB_TRY(nb_json_opt_string(tree, "format", &format, path, err));
    if (!format || strcmp(format, FORMAT)) return nb_fail(err, NB_ERR_INPUT, "%s: is not that of a nibble calibration artifact", path);
    NB_TRY(nb_json_get_int(tree, "version", 1, INT32_MAX, &version, path, err));
    if (version > VERSION)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: has version %lld of the format, and this nibble reads up to %d; use a newer one", path,
                       (long long)version, VERSION);
    NB_TRY(nb_json_get_string(tree, "arithmetic", &arithmetic, path, err));
    if (!*arithmetic || strlen(arithmetic) >= sizeof out->arithmetic || strspn(arithmetic, "abcdefghijklmnopqrstuvwxyz0123456789+") != strlen(arithmetic))
        return nb_fail(err, NB_ERR_INPUT, "%s: arithmetic: '%.40s' is no list of levels", path, arithmetic);
    snprintf(out->arithmetic, sizeof out->arithmetic, "%s", arithmetic);
    NB_TRY(nb_json_opt_bool(tree, "per_modality", &out->per_modality, path, err));
    NB_TRY(read_hash(&out->model, tree, "model", path, err));
    NB_TRY(read_hash(&out->data, tree, "data", path, err));
    return read_counts(out, tree, path, err);
}

nb_status nb_artifact_info_read(nb_artifact_info *out, const char *directory, nb_error *err)
{
    memset(out, 0, sizeof *out);
    char *path = nb_path_join(directory, "artifact.json");
    if (!path) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", directory);
    cJSON    *tree = NULL;
    nb_status status = NB_OK;
    if (!nb_file_exists(path))
        status = nb_fail(err, NB_ERR_INPUT, "%s: is no calibration artifact: it has no artifact.json", directory);
    if (!status) status = nb_json_file(&tree, path, INFO_LIMIT, err);
    if (!status && !cJSON_IsObject(tree)) status = nb_fail(err, NB_ERR_INPUT, "%s: expected an object", path);
    if (!status) status = read_info(out, tree, path, err);
    cJSON_Delete(tree);
    free(path);
    return status;
}

/* ---- places and sizes -------------------------------------------------------------------------------------------------- */

char *nb_artifact_layer_path(const char *directory, int layer)
{
    char *path;
    return asprintf(&path, "%s/layer-%04d.stats", directory, layer) < 0 ? NULL : path;
}

size_t nb_artifact_largest(const nb_artifact_info *info)
{
    size_t largest = 0;
    for (int i = 0; i < NB_SITES; i++) {
        size_t words = nb_chunk_largest((size_t)info->k[i]);
        if (words > largest) largest = words;
    }
    return largest;
}

uint64_t nb_artifact_bytes(const nb_artifact_info *info)
{
    uint64_t bytes = 0;
    for (int i = 0; i < NB_SITES; i++) {
        uint64_t k = (uint64_t)info->k[i];
        bytes += 8 * (k * (k + 1) + nb_chunk_columns((size_t)k));
        for (size_t row = 0, words; row < k; row = nb_chunk_rows((size_t)k, row, &words)) bytes += sizeof(nb_chunk_head);
        bytes += sizeof(nb_chunk_head);
    }
    return bytes * (uint64_t)info->layers * (uint64_t)nb_artifact_parts(info);
}

/* ---- the model --------------------------------------------------------------------------------------------------------- */

static nb_status add_rows(XXH64_state_t *state, const nb_entry *e, nb_error *err)
{
    uint64_t rows = nb_entry_rows(e), row = nb_entry_row_size(e);
    if (rows == 0 || row == 0 || (e->tensor->dtype != NB_F32 && e->tensor->dtype != NB_BF16 && e->tensor->dtype != NB_F16)) return NB_OK;
    uint64_t some = row < ROWS_LOOKED_AT / 3 ? ROWS_LOOKED_AT / 3 / row : 1;
    if (some > rows) some = rows;
    const uint64_t first[3] = {0, (rows - some) / 2, rows - some};
    float         *values;
    NB_TRY(nb_alloc(&values, (size_t)(some * row), sizeof *values, e->name, err));
    nb_status status = NB_OK;
    for (int i = 0; i < 3 && !status; i++) {
        status = nb_entry_read_rows_f32(e, first[i], some, values, err);
        if (!status) XXH64_update(state, values, (size_t)(some * row) * sizeof *values);
    }
    free(values);
    return status;
}

nb_status nb_artifact_model(uint64_t *out, const nb_checkpoint *c, nb_error *err)
{
    nb_buf config = {0};
    char  *path = nb_path_join(nb_checkpoint_path(c), "config.json");
    XXH64_state_t *state = XXH64_createState();
    nb_status      status = path && state ? nb_file_read(&config, path, 16 << 20, err) : nb_fail(err, NB_ERR_MEMORY, "out of memory for a fingerprint");
    if (!status) {
        XXH64_reset(state, 0);
        XXH64_update(state, config.data, config.size);
    }
    for (size_t i = 0; i < nb_checkpoint_count(c) && !status; i++) { /* sorted by name */
        const nb_entry  *e = nb_checkpoint_at(c, i);
        const nb_tensor *t = e->tensor;
        const uint64_t   says[2] = {(uint64_t)t->dtype, (uint64_t)t->rank};
        XXH64_update(state, e->name, strlen(e->name) + 1);
        XXH64_update(state, says, sizeof says);
        XXH64_update(state, t->shape, (size_t)t->rank * sizeof *t->shape);
        status = add_rows(state, e, err);
    }
    if (!status) *out = XXH64_digest(state);
    XXH64_freeState(state);
    nb_buf_free(&config);
    free(path);
    return status;
}

/* ---- several ----------------------------------------------------------------------------------------------------------- */

/* The levels of both, each once, in order of their names. */
static void join_arithmetic(char out[32], const char *other)
{
    static const char *const levels[] = {"amx", "avx2", "avx512", "cuda", "neon", "ref"};
    char joined[64] = "";
    for (size_t i = 0; i < NB_COUNT(levels); i++) {
        bool        has = false;
        const char *lists[2] = {out, other};
        for (int l = 0; l < 2; l++)
            for (const char *at = lists[l]; *at; at += strcspn(at, "+"), at += *at == '+')
                has = has || (strcspn(at, "+") == strlen(levels[i]) && !strncmp(at, levels[i], strlen(levels[i])));
        if (has) snprintf(joined + strlen(joined), sizeof joined - strlen(joined), "%s%s", *joined ? "+" : "", levels[i]);
    }
    if (*joined && strlen(joined) < 32) memcpy(out, joined, strlen(joined) + 1); /* at most "amx+avx2+avx512+cuda+neon+ref" */
}

nb_status nb_artifact_join(nb_artifact_info *a, const nb_artifact_info *b, const char *a_name, const char *b_name, nb_error *err)
{
    if (a->model != b->model || a->layers != b->layers || memcmp(a->k, b->k, sizeof a->k))
        return nb_fail(err, NB_ERR_INPUT, "%s and %s are of different models: fingerprints %016llx and %016llx", a_name, b_name,
                       (unsigned long long)a->model, (unsigned long long)b->model);
    if (a->per_modality != b->per_modality)
        return nb_fail(err, NB_ERR_INPUT, "%s: keeps modalities %s, and %s does not; make both with --per-modality or both without",
                       a_name, a->per_modality ? "apart" : "together", b_name);
    for (int i = 0; i < NB_MODALITIES; i++)
        if (a->weights[i] != b->weights[i])
            return nb_fail(err, NB_ERR_INPUT, "%s weighs a token of %s with %g, and %s with %g; their sums cannot be added", a_name,
                           modality_keys[i], (double)a->weights[i], b_name, (double)b->weights[i]);
    if (a->data == b->data && a->samples == b->samples)
        return nb_fail(err, NB_ERR_INPUT, "%s and %s are of the same conversations, which would count twice", a_name, b_name);
    join_arithmetic(a->arithmetic, b->arithmetic);
    a->data += b->data;
    a->samples += b->samples;
    for (int i = 0; i < NB_TOKEN_KINDS; i++) a->tokens[i] += b->tokens[i];
    return NB_OK;
}
