/* gguf_tokenizer.c - from tokenizer.json.  Tokens and merges go over as they are spelled there, in the byte-mapped alphabet, which is
 * llama.cpp's "gpt2"; "qwen2" names the rule that cuts text before merging. */
#include "quant/gguf_tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/file.h"
#include "runtime/io/json.h"

enum { LIMIT = 256 << 20 };
enum { NORMAL = 1, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5 }; /* kinds of tokens */

typedef struct {
    const char **text; /* [vocab], into the tree */
    int32_t     *kind;
    int          vocab;
    const char  *file;
} tokens;

static nb_status put_token(tokens *t, const char *text, double id, int kind, nb_error *err)
{
    if (!(id >= 0) || id >= t->vocab || id != (int)id)
        return nb_fail(err, NB_ERR_INPUT, "%s: token '%s' has the id %g, the model's vocabulary ends at %d", t->file, text,
                       id, t->vocab - 1);
    t->text[(int)id] = text;
    t->kind[(int)id] = kind;
    return NB_OK;
}

static nb_status read_tokens(tokens *t, const cJSON *tree, nb_error *err)
{
    const cJSON *model = nb_json_find(tree, "model"), *vocabulary = model ? nb_json_find(model, "vocab") : NULL, *v;
    if (!cJSON_IsObject(vocabulary)) return nb_fail(err, NB_ERR_INPUT, "%s: model.vocab is not an object", t->file);
    cJSON_ArrayForEach(v, vocabulary)
    {
        if (!cJSON_IsNumber(v)) return nb_fail(err, NB_ERR_INPUT, "%s: model.vocab: '%s' is not a number", t->file, v->string);
        NB_TRY(put_token(t, v->string, v->valuedouble, NORMAL, err));
    }
    cJSON_ArrayForEach(v, nb_json_find(tree, "added_tokens"))
    {
        const cJSON *text = nb_json_find(v, "content"), *id = nb_json_find(v, "id");
        if (!cJSON_IsString(text) || !cJSON_IsNumber(id))
            return nb_fail(err, NB_ERR_INPUT, "%s: added_tokens: an entry lacks its content or id", t->file);
        NB_TRY(put_token(t, text->valuestring, id->valuedouble,
                         cJSON_IsTrue(nb_json_find(v, "special")) ? CONTROL : USER_DEFINED, err));
    }
    return NB_OK;
}

static void put_tokens(nb_gguf_out *g, tokens *t)
{
    nb_gguf_out_strings(g, "tokenizer.ggml.tokens", (size_t)t->vocab);
    for (int i = 0; i < t->vocab; i++) {
        char name[24];
        if (!t->text[i]) t->kind[i] = UNUSED;
        snprintf(name, sizeof name, "[PAD%d]", i);
        const char *text = t->text[i] ? t->text[i] : name;
        nb_gguf_out_next_string(g, text, strlen(text));
    }
    nb_gguf_out_i32s(g, "tokenizer.ggml.token_type", t->kind, (size_t)t->vocab);
}

/* "a b", or ["a", "b"] as newer files have it. */
static nb_status put_merges(nb_gguf_out *g, const cJSON *tree, const char *file, nb_error *err)
{
    const cJSON *model = nb_json_find(tree, "model"), *merges = model ? nb_json_find(model, "merges") : NULL, *m;
    if (!cJSON_IsArray(merges)) return nb_fail(err, NB_ERR_INPUT, "%s: model.merges is not a list", file);
    size_t count = 0;
    cJSON_ArrayForEach(m, merges) count++;
    nb_gguf_out_strings(g, "tokenizer.ggml.merges", count);
    cJSON_ArrayForEach(m, merges)
    {
        const cJSON *left = cJSON_IsArray(m) ? m->child : NULL, *right = left ? left->next : NULL;
        if (cJSON_IsString(m)) {
            nb_gguf_out_next_string(g, m->valuestring, strlen(m->valuestring));
            continue;
        }
        if (!cJSON_IsString(left) || !cJSON_IsString(right)) return nb_fail(err, NB_ERR_INPUT, "%s: model.merges holds something else than pairs", file);
        nb_buf pair = {0};
        nb_buf_printf(&pair, "%s %s", left->valuestring, right->valuestring);
        nb_status status = nb_buf_status(&pair, "a merge", err);
        if (!status) nb_gguf_out_next_string(g, pair.data, pair.size);
        nb_buf_free(&pair);
        if (status) return status;
    }
    return NB_OK;
}

/* A file of the directory as a tree; NULL when it is not there. */
static nb_status open_file(cJSON **out, const char *directory, const char *name, nb_error *err)
{
    *out = NULL;
    char *path = nb_path_join(directory, name);
    if (!path) return nb_fail(err, NB_ERR_MEMORY, "out of memory for a path");
    nb_status status = nb_file_exists(path) ? nb_json_file(out, path, LIMIT, err) : NB_OK;
    free(path);
    return status;
}

/* The id of a token that tokenizer_config.json names, as text or as an object with its content; -1 without one. */
static int named_token(const tokens *t, const cJSON *settings, const char *key)
{
    const cJSON *v = settings ? nb_json_find(settings, key) : NULL, *text = cJSON_IsObject(v) ? nb_json_find(v, "content") : v;
    for (int i = 0; cJSON_IsString(text) && i < t->vocab; i++)
        if (t->text[i] && !strcmp(t->text[i], text->valuestring)) return i;
    return -1;
}

static void put_special(nb_gguf_out *g, const tokens *t, const cJSON *config, const cJSON *settings)
{
    const cJSON *text = config ? nb_json_find(config, "text_config") : NULL;
    const cJSON *bos = config ? nb_json_find(config, "bos_token_id") : NULL;
    if (!bos && text) bos = nb_json_find(text, "bos_token_id");
    int eos = named_token(t, settings, "eos_token"), padding = named_token(t, settings, "pad_token");
    if (cJSON_IsNumber(bos) && bos->valuedouble >= 0 && bos->valuedouble < t->vocab)
        nb_gguf_out_u32(g, "tokenizer.ggml.bos_token_id", (uint32_t)bos->valuedouble);
    if (eos >= 0) nb_gguf_out_u32(g, "tokenizer.ggml.eos_token_id", (uint32_t)eos);
    if (padding >= 0) nb_gguf_out_u32(g, "tokenizer.ggml.padding_token_id", (uint32_t)padding);
    nb_gguf_out_bool(g, "tokenizer.ggml.add_bos_token", false);
}

/* In the order in which transformers looks. */
static nb_status put_template(nb_gguf_out *g, const char *directory, const cJSON *settings, nb_error *err)
{
    nb_buf raw = {0};
    char  *path = nb_path_join(directory, "chat_template.jinja");
    if (!path) return nb_fail(err, NB_ERR_MEMORY, "out of memory for a path");
    bool      there = nb_file_exists(path);
    nb_status status = there ? nb_file_read(&raw, path, LIMIT, err) : NB_OK;
    free(path);
    cJSON *own = NULL;
    if (!status && !there) status = open_file(&own, directory, "chat_template.json", err);
    const cJSON *text = own ? nb_json_find(own, "chat_template") : NULL;
    if (!text && settings) text = nb_json_find(settings, "chat_template");
    if (!status && there) nb_gguf_out_string(g, "tokenizer.chat_template", raw.data ? raw.data : "", raw.size);
    if (!status && !there && cJSON_IsString(text))
        nb_gguf_out_string(g, "tokenizer.chat_template", text->valuestring, strlen(text->valuestring));
    cJSON_Delete(own);
    nb_buf_free(&raw);
    return status;
}

static nb_status fill(nb_gguf_out *g, tokens *t, const cJSON *tree, const char *directory, nb_error *err)
{
    cJSON *config = NULL, *settings = NULL;
    NB_TRY(nb_alloc(&t->text, (size_t)t->vocab, sizeof *t->text, "tokens", err));
    NB_TRY(nb_alloc(&t->kind, (size_t)t->vocab, sizeof *t->kind, "tokens", err));
    NB_TRY(read_tokens(t, tree, err));
    nb_gguf_out_string(g, "tokenizer.ggml.model", "gpt2", 4);
    nb_gguf_out_string(g, "tokenizer.ggml.pre", "qwen2", 5);
    put_tokens(g, t);
    NB_TRY(put_merges(g, tree, t->file, err));
    nb_status status = open_file(&config, directory, "config.json", err);
    if (!status) status = open_file(&settings, directory, "tokenizer_config.json", err);
    if (!status) put_special(g, t, config, settings);
    if (!status) status = put_template(g, directory, settings, err);
    cJSON_Delete(config);
    cJSON_Delete(settings);
    return status;
}

nb_status nb_gguf_tokenizer(nb_gguf_out *g, const char *directory, int vocab, nb_error *err)
{
    cJSON *tree;
    tokens t = {.vocab = vocab, .file = "tokenizer.json"};
    NB_TRY(open_file(&tree, directory, "tokenizer.json", err));
    if (!tree) return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: there is no tokenizer.json, from which a GGUF file gets its "
                              "tokenizer", directory);
    nb_status status = fill(g, &t, tree, directory, err);
    if (status) nb_error_within(err, "%s", directory);
    free(t.text);
    free(t.kind);
    cJSON_Delete(tree);
    return status;
}
