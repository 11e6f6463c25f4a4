/* config_out.c - the quantization_config block that every loader dispatches on, and the side files.
 *
 * The source's config.json is edited, never rewritten from what nibble understands of it: transformers, vLLM and SGLang read
 * keys that nibble does not.
 */
#include "quant/config_out.h"

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

/* vLLM matches these by substring, transformers 5 by the start of the new names: both spellings of the tower are needed. */
static cJSON *awq_block(const nb_quantize_options *o)
{
    static const char *const kept[] = {"visual", "model.visual", "lm_head"};
    cJSON *q = cJSON_CreateObject();
    bool   good = q && set(q, "quant_method", cJSON_CreateString("awq")) && set(q, "bits", cJSON_CreateNumber(o->grid.bits)) &&
                set(q, "group_size", cJSON_CreateNumber(o->grid.group)) && set(q, "zero_point", cJSON_CreateTrue()) &&
                set(q, "version", cJSON_CreateString("gemm")) &&
                set(q, "modules_to_not_convert", cJSON_CreateStringArray(kept, NB_COUNT(kept)));
    if (good) return q;
    cJSON_Delete(q);
    return NULL;
}

/* desc_act says whether g_idx permutes: with static groups, and with groups ordered as wholes, it does not. */
static cJSON *gptq_block(const nb_quantize_options *o)
{
    bool   gptq = o->method == NB_METHOD_GPTQ;
    bool   desc_act = gptq && o->order == NB_ORDER_FULL && !o->static_groups;
    double damp = gptq && o->damp > 0 && o->damp < 1 ? o->damp : 0.01; /* loaders want a number in (0, 1) */
    cJSON *q = cJSON_CreateObject();
    bool   good = q && set(q, "quant_method", cJSON_CreateString("gptq")) && set(q, "bits", cJSON_CreateNumber(o->grid.bits)) &&
                set(q, "group_size", cJSON_CreateNumber(o->grid.group ? o->grid.group : -1)) &&
                set(q, "sym", cJSON_CreateBool(o->grid.sym)) && set(q, "desc_act", cJSON_CreateBool(desc_act)) &&
                set(q, "true_sequential", cJSON_CreateBool(gptq && o->true_sequential)) &&
                set(q, "damp_percent", cJSON_CreateNumber(damp)) &&
                set(q, "static_groups", cJSON_CreateBool(gptq && o->static_groups)) && set(q, "dataset", cJSON_CreateNull()) &&
                set(q, "modules_in_block_to_quantize", cJSON_CreateNull()) &&
                set(q, "checkpoint_format", cJSON_CreateString(o->format == NB_FORMAT_GPTQ_V2 ? "gptq_v2" : "gptq"));
    if (good) return q;
    cJSON_Delete(q);
    return NULL;
}

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
static bool set_float16(cJSON *config)
{
    static const char *const parts[] = {"text_config", "vision_config"};
    bool good = cJSON_HasObjectItem(config, "dtype") ? set(config, "dtype", cJSON_CreateString("float16"))
                                                     : set(config, "torch_dtype", cJSON_CreateString("float16"));
    if (cJSON_HasObjectItem(config, "dtype") && cJSON_HasObjectItem(config, "torch_dtype"))
        good = good && set(config, "torch_dtype", cJSON_CreateString("float16"));
    for (size_t i = 0; i < NB_COUNT(parts); i++) {
        cJSON *part = cJSON_GetObjectItemCaseSensitive(config, parts[i]);
        for (int j = 0; j < 2; j++) {
            const char *key = j ? "dtype" : "torch_dtype";
            if (cJSON_IsString(cJSON_GetObjectItemCaseSensitive(part, key)))
                good = good && set(part, key, cJSON_CreateString("float16"));
        }
    }
    return good;
}

static nb_status write_config(nb_writer *w, const nb_quantize_options *o, bool f16, nb_error *err)
{
    char *path = nb_path_join(o->model_dir, "config.json");
    if (!path) return nb_fail(err, NB_ERR_MEMORY, "out of memory for config.json");
    cJSON    *config = NULL, *block = o->format == NB_FORMAT_AWQ ? awq_block(o) : gptq_block(o);
    nb_status status = nb_json_file(&config, path, CONFIG_LIMIT, err);
    if (!status && !cJSON_IsObject(config)) status = nb_fail(err, NB_ERR_INPUT, "%s: expected an object", path);
    if (!status && block && o->format != NB_FORMAT_AWQ) status = write_tree(w, "quantize_config.json", block, err);
    if (!status) {
        bool good = block && set(config, "quantization_config", block);
        if (good) block = NULL; /* the tree has it now */
        good = good && (!f16 || set_float16(config));
        status = good ? write_tree(w, "config.json", config, err) : nb_fail(err, NB_ERR_MEMORY, "out of memory for config.json");
    }
    cJSON_Delete(block);
    cJSON_Delete(config);
    free(path);
    return status;
}

static nb_status copy_side_files(nb_writer *w, const char *directory, nb_error *err)
{
    static const char *const names[] = {
        "generation_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json",
        "added_tokens.json", "chat_template.json", "chat_template.jinja", "preprocessor_config.json",
        "video_preprocessor_config.json", "processor_config.json",
    };
    nb_status status = NB_OK;
    for (size_t i = 0; i < NB_COUNT(names) && !status; i++) {
        char *path = nb_path_join(directory, names[i]);
        if (!path)
            status = nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", directory);
        else if (nb_file_exists(path))
            status = nb_writer_copy(w, directory, names[i], err);
        free(path);
    }
    return status;
}

nb_status nb_config_out(nb_writer *w, const nb_quantize_options *options, bool f16, nb_error *err)
{
    NB_TRY(write_config(w, options, f16, err));
    NB_TRY(copy_side_files(w, options->model_dir, err));
    if (!options->recipe_json) return NB_OK;
    return nb_writer_file(w, "recipe.json", options->recipe_json, strlen(options->recipe_json), err);
}
