/* config_out.c - the quantization_config block that every loader dispatches on, and the side files.
 *
 * The source's config.json is edited, never rewritten from what nibble understands of it: transformers, vLLM and SGLang read
 * keys that nibble does not.
 */
#include "quant/config_out.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/file.h"

enum { CONFIG_LIMIT = 16 << 20 };

static bool set(cJSON *object, const char *key, cJSON *value)
{
    if (!value) return false;
    if (cJSON_HasObjectItem(object, key)) return cJSON_ReplaceItemInObjectCaseSensitive(object, key, value);
    return cJSON_AddItemToObject(object, key, value);
}

/* ---- blocks ------------------------------------------------------------------------------------------------------------ */

/* Names of float matrices of the layers for a list that is matched by substring (vLLM, transformers 4) and by ending (transformers
 * 5): "layers.3.mlp.down_proj" is both.  vLLM's joined names stand beside their members. */
static bool add_kept(cJSON *list, const nb_choice *c)
{
    static const char *const names[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                        "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};
    bool good = true;
    for (int layer = 0; layer < c->layers; layer++)
        for (int i = 0; i < (int)NB_COUNT(names) && good; i++) {
            char name[64];
            if (!nb_choice_linear(c, layer, i)->keep) continue;
            snprintf(name, sizeof name, "layers.%d.%s", layer, names[i]);
            good = cJSON_AddItemToArray(list, cJSON_CreateString(name));
            snprintf(name, sizeof name, "layers.%d.%s", layer, i == 0 ? "self_attn.qkv_proj" : "mlp.gate_up_proj");
            if (i == 0 || i == 4) good = good && cJSON_AddItemToArray(list, cJSON_CreateString(name));
        }
    return good;
}

/* vLLM matches these by substring, transformers 5 by the start of the new names: both spellings of the tower are needed. */
static cJSON *awq_block(const nb_block_facts *f)
{
    static const char *const kept[] = {"visual", "model.visual", "lm_head"};
    const nb_grid           *main = &f->choice->main;
    cJSON                   *q = cJSON_CreateObject(), *list = cJSON_CreateStringArray(kept, NB_COUNT(kept));
    bool good = q && list && add_kept(list, f->choice) && set(q, "quant_method", cJSON_CreateString("awq")) &&
                set(q, "bits", cJSON_CreateNumber(main->bits)) && set(q, "group_size", cJSON_CreateNumber(main->group)) &&
                set(q, "zero_point", cJSON_CreateTrue()) && set(q, "version", cJSON_CreateString("gemm"));
    if (good && set(q, "modules_to_not_convert", list)) return q;
    cJSON_Delete(list);
    cJSON_Delete(q);
    return NULL;
}

/* GPTQModel's overrides: a pattern, matched from the start of a name, to what differs there; "-:" before it means float. */
typedef struct {
    cJSON         *rules;
    const nb_pick *pick;
    bool           sym; /* of the main scheme */
} overrides;

static nb_status add_override(void *context, const char *pattern, nb_error *err)
{
    overrides *o = context;
    nb_buf     key = {0};
    cJSON     *value = cJSON_CreateObject();
    nb_buf_printf(&key, "%s:%s", o->pick->keep ? "-" : "+", pattern);
    bool good = value && !key.failed;
    if (!o->pick->keep)
        good = good && set(value, "bits", cJSON_CreateNumber(o->pick->grid.bits)) &&
               set(value, "group_size", cJSON_CreateNumber(o->pick->grid.group ? o->pick->grid.group : -1));
    if (!o->pick->keep && o->pick->grid.sym != o->sym) good = good && set(value, "sym", cJSON_CreateBool(o->pick->grid.sym));
    good = good && set(o->rules, key.data, value);
    if (!good) cJSON_Delete(value);
    nb_buf_free(&key);
    return good ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "out of memory for quantization_config");
}

/* One entry for each pick that is not the main one; the first matrix that has it stands for it. */
static cJSON *dynamic_rules(const nb_choice *c)
{
    const nb_pick main = {.grid = c->main};
    overrides     o = {.rules = cJSON_CreateObject(), .sym = c->main.sym};
    nb_status     status = o.rules ? NB_OK : NB_ERR_MEMORY;
    for (int i = 0; i < c->layers * 7 && !status; i++) {
        bool seen = nb_pick_equal(&c->linears[i], &main);
        for (int j = 0; j < i && !seen; j++) seen = nb_pick_equal(&c->linears[j], &c->linears[i]);
        o.pick = &c->linears[i];
        if (!seen) status = nb_choice_patterns(c, o.pick, add_override, &o, NULL);
    }
    if (!status) return o.rules;
    cJSON_Delete(o.rules);
    return NULL;
}

/* desc_act says whether g_idx permutes: with static groups, and with groups ordered as wholes, it does not. */
static cJSON *gptq_block(const nb_block_facts *f)
{
    const nb_grid *main = &f->choice->main;
    double         damp = f->damp > 0 && f->damp < 1 ? f->damp : 0.01; /* loaders want a number in (0, 1) */
    cJSON         *q = cJSON_CreateObject();
    bool           good = q && set(q, "quant_method", cJSON_CreateString("gptq")) && set(q, "bits", cJSON_CreateNumber(main->bits)) &&
                set(q, "group_size", cJSON_CreateNumber(main->group ? main->group : -1)) &&
                set(q, "sym", cJSON_CreateBool(main->sym)) && set(q, "desc_act", cJSON_CreateBool(f->permuted)) &&
                set(q, "true_sequential", cJSON_CreateBool(f->true_sequential)) && set(q, "damp_percent", cJSON_CreateNumber(damp)) &&
                set(q, "static_groups", cJSON_CreateBool(f->static_groups)) && set(q, "dataset", cJSON_CreateNull()) &&
                set(q, "modules_in_block_to_quantize", cJSON_CreateNull()) &&
                set(q, "checkpoint_format", cJSON_CreateString(f->format == NB_FORMAT_GPTQ_V2 ? "gptq_v2" : "gptq"));
    if (good && f->choice->mixed) good = set(q, "dynamic", dynamic_rules(f->choice));
    if (good) return q;
    cJSON_Delete(q);
    return NULL;
}

cJSON *nb_config_block(const nb_block_facts *f)
{
    return f->format == NB_FORMAT_AWQ ? awq_block(f) : f->format == NB_FORMAT_CT ? nb_config_block_ct(f) : gptq_block(f);
}

/* ---- files ------------------------------------------------------------------------------------------------------------- */

static nb_status write_tree(nb_writer *w, const char *name, const cJSON *tree, nb_error *err)
{
    nb_buf text = {0};
    nb_json_print(&text, tree, NB_JSON_INDENTED);
    nb_buf_char(&text, '\n');
    nb_status status = nb_buf_status(&text, name, err);
    if (!status) status = nb_writer_file(w, name, text.data, text.size, err);
    nb_buf_free(&text);
    return status;
}

/* torch_dtype, or dtype as transformers 5 calls it, at the top and in the parts of the model. */
static bool set_dtype(cJSON *config, const char *dtype)
{
    static const char *const parts[] = {"text_config", "vision_config"};
    bool newer = cJSON_HasObjectItem(config, "dtype");
    bool good = set(config, newer ? "dtype" : "torch_dtype", cJSON_CreateString(dtype));
    if (newer && cJSON_HasObjectItem(config, "torch_dtype")) good = good && set(config, "torch_dtype", cJSON_CreateString(dtype));
    for (size_t i = 0; i < NB_COUNT(parts); i++) {
        cJSON *part = cJSON_GetObjectItemCaseSensitive(config, parts[i]);
        for (int j = 0; j < 2; j++) {
            const char *key = j ? "dtype" : "torch_dtype";
            if (cJSON_IsString(cJSON_GetObjectItemCaseSensitive(part, key)))
                good = good && set(part, key, cJSON_CreateString(dtype));
        }
    }
    return good;
}

/* A field of the language model: at the top, in text_config, or in both, as the source has it; at the top if nowhere. */
static bool set_text(cJSON *config, const char *key, double value, bool boolean)
{
    cJSON *text = cJSON_GetObjectItemCaseSensitive(config, "text_config");
    bool   nested = cJSON_HasObjectItem(text, key), good = true;
    if (nested) good = set(text, key, boolean ? cJSON_CreateBool(value != 0) : cJSON_CreateNumber(value));
    if (!nested || cJSON_HasObjectItem(config, key))
        good = good && set(config, key, boolean ? cJSON_CreateBool(value != 0) : cJSON_CreateNumber(value));
    return good;
}

static nb_status edit(cJSON *config, const nb_config_edits *e, cJSON **block, nb_error *err)
{
    bool good = true;
    if (e->block) {
        good = set(config, "quantization_config", *block);
        if (good) *block = NULL; /* the tree has it now */
    } else if (!e->keep_block) {
        cJSON_DeleteItemFromObjectCaseSensitive(config, "quantization_config");
    }
    if (e->dtype) good = good && set_dtype(config, e->dtype);
    if (e->untied) good = good && set_text(config, "tie_word_embeddings", 0,
                                           true) && set(config, "tie_word_embeddings", cJSON_CreateFalse());
    if (e->intermediate) good = good && set_text(config, "intermediate_size", e->intermediate, false);
    return good ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "out of memory for config.json");
}

static nb_status write_config(nb_writer *w, const char *directory, const nb_config_edits *e, nb_error *err)
{
    char *path = nb_path_join(directory, "config.json");
    if (!path) return nb_fail(err, NB_ERR_MEMORY, "out of memory for config.json");
    cJSON    *config = NULL, *block = e->block ? nb_config_block(e->block) : NULL;
    bool      twin = e->block && (e->block->format == NB_FORMAT_GPTQ || e->block->format == NB_FORMAT_GPTQ_V2);
    nb_status status = nb_json_file(&config, path, CONFIG_LIMIT, err);
    if (!status && !cJSON_IsObject(config)) status = nb_fail(err, NB_ERR_INPUT, "%s: expected an object", path);
    if (!status && e->block && !block) status = nb_fail(err, NB_ERR_MEMORY, "out of memory for quantization_config");
    if (!status && twin) status = write_tree(w, "quantize_config.json", block, err);
    if (!status) status = edit(config, e, &block, err);
    if (!status) status = write_tree(w, "config.json", config, err);
    cJSON_Delete(block);
    cJSON_Delete(config);
    free(path);
    return status;
}

/* Those that are there. */
static nb_status copy_files(nb_writer *w, const char *directory, const char *const *names, size_t count, nb_error *err)
{
    nb_status status = NB_OK;
    for (size_t i = 0; i < count && !status; i++) {
        char *path = nb_path_join(directory, names[i]);
        if (!path)
            status = nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", directory);
        else if (nb_file_exists(path))
            status = nb_writer_copy(w, directory, names[i], err);
        free(path);
    }
    return status;
}

const char *const nb_config_out_copied[] = {
    "generation_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json",
    "added_tokens.json", "chat_template.json", "chat_template.jinja", "preprocessor_config.json",
    "video_preprocessor_config.json", "processor_config.json",
};
const size_t nb_config_out_copied_count = NB_COUNT(nb_config_out_copied);

nb_status nb_config_out(nb_writer *w, const char *directory, const nb_config_edits *edits, nb_error *err)
{
    static const char *const blocks[] = {"quantize_config.json", "quant_config.json"};
    NB_TRY(write_config(w, directory, edits, err));
    if (edits->keep_block) NB_TRY(copy_files(w, directory, blocks, NB_COUNT(blocks), err));
    return copy_files(w, directory, nb_config_out_copied, nb_config_out_copied_count, err);
}
