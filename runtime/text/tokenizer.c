/* tokenizer.c - opens a tokenizer from the files of a checkpoint directory.
 *
 * tokenizer.json alone, or vocab.json + merges.txt with the added tokens of tokenizer_config.json or added_tokens.json.
 * A file that asks for anything but byte-level BPE as Qwen2 does it is refused by the name of the field: near enough would
 * be wrong ids, and nothing later would notice.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/file.h"
#include "runtime/text/split.h"
#include "runtime/text/vocabulary.h"

#define FILE_LIMIT ((size_t)64 << 20) /* the published files have 7 to 11 MB */

static nb_status unsupported(const char *file, const char *field, const char *expected, nb_error *err)
{
    return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: %s is not %s; only byte-level BPE as in Qwen2 is supported", file, field,
                   expected);
}

static bool is_string(const cJSON *object, const char *key, const char *want)
{
    const cJSON *item = nb_json_find(object, key);
    return cJSON_IsString(item) && strcmp(item->valuestring, want) == 0;
}

/* Missing, null or an empty string. */
static bool is_empty(const cJSON *object, const char *key)
{
    return !nb_json_find(object, key) || is_string(object, key, "");
}

static bool is_true(const cJSON *object, const char *key)
{
    return cJSON_IsTrue(nb_json_find(object, key));
}

static nb_status check_normalizer(const char *file, const cJSON *root, nb_error *err)
{
    const cJSON *n = nb_json_find(root, "normalizer");
    if (is_string(n, "type", "Sequence")) { /* of one */
        const cJSON *list = nb_json_find(n, "normalizers");
        n = cJSON_IsArray(list) && cJSON_GetArraySize(list) == 1 ? list->child : NULL;
    }
    return is_string(n, "type", "NFC") ? NB_OK : unsupported(file, "normalizer", "NFC", err);
}

static nb_status check_pre_tokenizer(const char *file, const cJSON *root, nb_error *err)
{
    const cJSON *p = nb_json_find(root, "pre_tokenizer"), *list = nb_json_find(p, "pretokenizers");
    if (!is_string(p, "type", "Sequence") || !cJSON_IsArray(list) || cJSON_GetArraySize(list) != 2)
        return unsupported(file, "pre_tokenizer", "a Sequence of Split and ByteLevel", err);
    const cJSON *split = list->child, *bytes = split->next;
    if (!is_string(split, "type", "Split") || !is_string(split, "behavior", "Isolated") || is_true(split, "invert"))
        return unsupported(file, "pre_tokenizer.pretokenizers[0]", "a Split with behavior Isolated", err);
    if (!is_string(nb_json_find(split, "pattern"), "Regex", nb_split_pattern))
        return unsupported(file, "pre_tokenizer.pretokenizers[0].pattern.Regex", "the pattern of Qwen2", err);
    const cJSON *regex = nb_json_find(bytes, "use_regex"), *prefix = nb_json_find(bytes, "add_prefix_space");
    if (!is_string(bytes, "type", "ByteLevel") || !cJSON_IsFalse(regex) || !cJSON_IsFalse(prefix)) /* both default to true */
        return unsupported(file, "pre_tokenizer.pretokenizers[1]", "ByteLevel without regex and prefix space", err);
    return NB_OK;
}

static nb_status check_model(const char *file, const cJSON *root, const cJSON *model, nb_error *err)
{
    if (!is_string(model, "type", "BPE")) return unsupported(file, "model.type", "BPE", err);
    const cJSON *dropout = nb_json_find(model, "dropout");
    if (dropout && !(cJSON_IsNumber(dropout) && dropout->valuedouble == 0))
        return unsupported(file, "model.dropout", "null", err);
    if (!is_empty(model, "continuing_subword_prefix"))
        return unsupported(file, "model.continuing_subword_prefix", "empty", err);
    if (!is_empty(model, "end_of_word_suffix")) return unsupported(file, "model.end_of_word_suffix", "empty", err);
    if (is_true(model, "ignore_merges")) return unsupported(file, "model.ignore_merges", "false", err);
    const cJSON *post = nb_json_find(root, "post_processor"), *decoder = nb_json_find(root, "decoder");
    if (post && !is_string(post, "type", "ByteLevel")) return unsupported(file, "post_processor", "ByteLevel", err);
    if (decoder && !is_string(decoder, "type", "ByteLevel")) return unsupported(file, "decoder", "ByteLevel", err);
    return NB_OK;
}

/* An added token as tokenizer.json and tokenizer_config.json describe it, but for its id. */
static nb_status add_token(nb_builder *b, const cJSON *item, int64_t id, const char *where, nb_error *err)
{
    const char *text;
    bool        special = false, normalized = true, other[3] = {0};
    const char *names[3] = {"single_word", "lstrip", "rstrip"};
    NB_TRY(nb_json_get_string(item, "content", &text, where, err));
    NB_TRY(nb_json_opt_bool(item, "special", &special, where, err));
    normalized = !special;
    NB_TRY(nb_json_opt_bool(item, "normalized", &normalized, where, err));
    for (int i = 0; i < 3; i++) {
        NB_TRY(nb_json_opt_bool(item, names[i], &other[i], where, err));
        if (other[i])
            return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: '%s' is true, which nibble does not support", where, names[i]);
    }
    return nb_builder_add(b, text, id, special, normalized, err);
}

static nb_status add_json_merge(nb_builder *b, const cJSON *item, nb_error *err)
{
    if (cJSON_IsString(item)) {
        const char *space = strchr(item->valuestring, ' ');
        if (space && !strchr(space + 1, ' '))
            return nb_builder_merge(b, item->valuestring, (size_t)(space - item->valuestring), space + 1, strlen(space + 1),
                                    err);
    } else if (cJSON_IsArray(item) && cJSON_GetArraySize(item) == 2) {
        const cJSON *left = item->child, *right = left->next;
        if (cJSON_IsString(left) && cJSON_IsString(right))
            return nb_builder_merge(b, left->valuestring, strlen(left->valuestring), right->valuestring,
                                    strlen(right->valuestring), err);
    }
    return nb_fail(err, NB_ERR_INPUT, "%s: merges[%zu] is neither \"LEFT RIGHT\" nor [\"LEFT\", \"RIGHT\"]", b->file,
                   b->merge_count);
}

static nb_status build_from_json(nb_builder *b, const cJSON *root, nb_error *err)
{
    const cJSON *model = nb_json_find(root, "model"), *added = nb_json_find(root, "added_tokens"), *item;
    const cJSON *merges = nb_json_find(model, "merges");
    NB_TRY(check_model(b->file, root, model, err));
    NB_TRY(check_normalizer(b->file, root, err));
    NB_TRY(check_pre_tokenizer(b->file, root, err));
    if (!cJSON_IsArray(merges)) return nb_fail(err, NB_ERR_INPUT, "%s: model.merges is not an array", b->file);
    if (added && !cJSON_IsArray(added)) return nb_fail(err, NB_ERR_INPUT, "%s: added_tokens is not an array", b->file);

    int64_t largest = -1, id;
    char    where[512];
    int     index = 0;
    cJSON_ArrayForEach(item, added)
    {
        snprintf(where, sizeof where, "%s: added_tokens[%d]", b->file, index++);
        NB_TRY(nb_json_get_int(item, "id", 0, NB_ID_LIMIT - 1, &id, where, err));
        if (id > largest) largest = id;
    }
    NB_TRY(nb_builder_vocabulary(b, nb_json_find(model, "vocab"), largest, err));
    index = 0;
    cJSON_ArrayForEach(item, added)
    {
        snprintf(where, sizeof where, "%s: added_tokens[%d]", b->file, index++);
        NB_TRY(nb_json_get_int(item, "id", 0, NB_ID_LIMIT - 1, &id, where, err));
        NB_TRY(add_token(b, item, id, where, err));
    }
    NB_TRY(nb_merges_init(&b->tokenizer->merges, (size_t)cJSON_GetArraySize(merges), err));
    cJSON_ArrayForEach(item, merges) NB_TRY(add_json_merge(b, item, err));
    return nb_builder_finish(b, err);
}

/* ---- vocab.json + merges.txt */

/* The added tokens, from one of two files, either of which may be missing.
 *   tokenizer_config.json  {"added_tokens_decoder": {"ID": {content, special, ...}}}
 *   added_tokens.json      {"TEXT": ID}, which does not say what is special: all are */
typedef struct {
    cJSON       *root;
    const cJSON *list; /* NULL: there are none */
    bool         decoder;
    char        *path;
} added_file;

static nb_status added_open(added_file *a, const char *directory, nb_error *err)
{
    a->path = nb_path_join(directory, "tokenizer_config.json");
    if (!a->path) return nb_fail(err, NB_ERR_MEMORY, "out of memory for a path");
    if (nb_file_exists(a->path)) {
        NB_TRY(nb_json_file(&a->root, a->path, FILE_LIMIT, err));
        a->list = nb_json_find(a->root, "added_tokens_decoder");
        a->decoder = true;
    }
    if (!a->list) {
        cJSON_Delete(a->root);
        free(a->path);
        a->root = NULL;
        a->decoder = false;
        a->path = nb_path_join(directory, "added_tokens.json");
        if (!a->path) return nb_fail(err, NB_ERR_MEMORY, "out of memory for a path");
        if (!nb_file_exists(a->path)) return NB_OK;
        NB_TRY(nb_json_file(&a->root, a->path, FILE_LIMIT, err));
        a->list = a->root;
    }
    if (!cJSON_IsObject(a->list)) return nb_fail(err, NB_ERR_INPUT, "%s: the added tokens are not an object", a->path);
    return NB_OK;
}

static nb_status added_id(const added_file *a, const cJSON *item, int64_t *id, nb_error *err)
{
    if (!a->decoder && cJSON_IsNumber(item) && item->valuedouble >= 0 && item->valuedouble < NB_ID_LIMIT) {
        *id = (int64_t)item->valuedouble;
        if ((double)*id == item->valuedouble) return NB_OK;
    } else if (a->decoder && item->string[0] >= '0' && item->string[0] <= '9' && strlen(item->string) <= 7) {
        char *end;
        *id = strtol(item->string, &end, 10);
        if (*end == 0 && *id < NB_ID_LIMIT) return NB_OK;
    }
    return nb_fail(err, NB_ERR_INPUT, "%s: added token '%.60s' needs a whole number from 0 to %d as its id", a->path,
                   item->string, NB_ID_LIMIT - 1);
}

static nb_status add_tokens(nb_builder *b, const added_file *a, nb_error *err)
{
    const cJSON *item;
    const char  *file = b->file;
    b->file = a->path;
    cJSON_ArrayForEach(item, a->list)
    {
        int64_t id;
        char    where[512];
        NB_TRY(added_id(a, item, &id, err));
        snprintf(where, sizeof where, "%s: added_tokens_decoder.%s", a->path, item->string);
        NB_TRY(a->decoder ? add_token(b, item, id, where, err) : nb_builder_add(b, item->string, id, true, false, err));
    }
    b->file = file;
    return NB_OK;
}

/* One merge a line, lowest rank first; a "#version" line may come before them. */
static nb_status read_merges(nb_builder *b, const nb_buf *text, nb_error *err)
{
    size_t lines = 1, number = 0;
    for (size_t i = 0; i < text->size; i++) lines += text->data[i] == '\n';
    NB_TRY(nb_merges_init(&b->tokenizer->merges, lines, err));
    for (size_t i = 0; i < text->size;) {
        const char *line = text->data + i, *end = memchr(line, '\n', text->size - i);
        size_t      n = end ? (size_t)(end - line) : text->size - i;
        i += n + 1;
        number++;
        if (n && line[n - 1] == '\r') n--;
        if (n == 0 || (number == 1 && n >= 8 && memcmp(line, "#version", 8) == 0)) continue;
        const char *space = memchr(line, ' ', n);
        size_t      left = space ? (size_t)(space - line) : n, right = space ? n - left - 1 : 0;
        if (!space || memchr(space + 1, ' ', right))
            return nb_fail(err, NB_ERR_INPUT, "%s: line %zu is not 'LEFT RIGHT'", b->file, number);
        NB_TRY(nb_builder_merge(b, line, left, space + 1, right, err));
    }
    return NB_OK;
}

static nb_status build_from_parts(nb_builder *b, const cJSON *vocabulary, const char *merges_path, const added_file *added,
                                  nb_error *err)
{
    int64_t      largest = -1, id;
    const cJSON *item;
    cJSON_ArrayForEach(item, added->list)
    {
        NB_TRY(added_id(added, item, &id, err));
        if (id > largest) largest = id;
    }
    NB_TRY(nb_builder_vocabulary(b, vocabulary, largest, err));
    NB_TRY(add_tokens(b, added, err));
    nb_buf      text = {0};
    const char *vocabulary_path = b->file;
    nb_status   status = nb_file_read(&text, merges_path, FILE_LIMIT, err);
    b->file = merges_path;
    if (status == NB_OK) status = read_merges(b, &text, err);
    b->file = vocabulary_path;
    nb_buf_free(&text);
    NB_TRY(status);
    return nb_builder_finish(b, err);
}

static nb_status open_from_parts(nb_builder *b, const char *directory, const char *merges_path, nb_error *err)
{
    cJSON     *vocabulary = NULL;
    added_file added = {0};
    nb_status  status = nb_json_file(&vocabulary, b->file, FILE_LIMIT, err);
    if (status == NB_OK) status = added_open(&added, directory, err);
    if (status == NB_OK) status = build_from_parts(b, vocabulary, merges_path, &added, err);
    cJSON_Delete(vocabulary);
    cJSON_Delete(added.root);
    free(added.path);
    return status;
}

static nb_status open_json(nb_builder *b, nb_error *err)
{
    cJSON *root;
    NB_TRY(nb_json_file(&root, b->file, FILE_LIMIT, err));
    nb_status status = build_from_json(b, root, err);
    cJSON_Delete(root);
    return status;
}

nb_status nb_tokenizer_open(nb_tokenizer **out, const char *directory, nb_error *err)
{
    nb_builder b = {0};
    *out = NULL;
    NB_TRY(nb_alloc(&b.tokenizer, 1, sizeof *b.tokenizer, "tokenizer", err));
    char     *json = nb_path_join(directory, "tokenizer.json"), *vocabulary = nb_path_join(directory, "vocab.json");
    char     *merges = nb_path_join(directory, "merges.txt");
    nb_status status;
    if (!json || !vocabulary || !merges) {
        status = nb_fail(err, NB_ERR_MEMORY, "out of memory for a path");
    } else if (nb_file_exists(json)) {
        b.file = json;
        status = open_json(&b, err);
    } else if (nb_file_exists(vocabulary) && nb_file_exists(merges)) {
        b.file = vocabulary;
        status = open_from_parts(&b, directory, merges, err);
    } else {
        status = nb_fail(err, NB_ERR_INPUT, "%s: there is no tokenizer (tokenizer.json, or vocab.json and merges.txt); copy it "
                                            "from the model that was fine-tuned", directory);
    }
    free(json);
    free(vocabulary);
    free(merges);
    nb_builder_free(&b);
    if (status != NB_OK)
        nb_tokenizer_close(b.tokenizer);
    else
        *out = b.tokenizer;
    return status;
}

void nb_tokenizer_close(nb_tokenizer *t)
{
    if (!t) return;
    free(t->tokens);
    free(t->added);
    nb_buf_free(&t->bytes);
    nb_merges_free(&t->merges);
    free(t);
}
