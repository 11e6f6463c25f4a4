/* describe.c - one description of a checkpoint directory, made without believing it.
 *
 * The config is read leniently, key by key: a value that nibble itself would refuse may be fine elsewhere, and the other way
 * round.  Only what no rule can do without (sizes of the model) is required here.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/file.h"
#include "tools/verify/block.h"
#include "tools/verify/pattern.h"

enum { CONFIG_LIMIT = 16 << 20 };

const char *const nb_tensor_roles[NB_T_COUNT] = {
    "weight",       "bias",         "qweight",           "qzeros",      "scales", "g_idx", "weight_packed",
    "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx"};

/* ---- config.json ------------------------------------------------------------------------------------------------------- */

static nb_status read_json(cJSON **out, const char *directory, const char *name, nb_findings *findings, nb_error *err)
{
    nb_error why = {0};
    char    *path = nb_path_join(directory, name);
    *out = NULL;
    if (!path) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", directory);
    nb_status status = nb_json_file(out, path, CONFIG_LIMIT, &why);
    free(path);
    if (status == NB_ERR_MEMORY) {
        *err = why;
        return status;
    }
    if (status == NB_OK && cJSON_IsObject(*out)) return NB_OK;
    nb_found(findings, NB_ERROR, NB_FOR_ALL, 0, "config", name, "restore the file from where the checkpoint came from", "%s",
             status != NB_OK ? why.text : "is not an object");
    cJSON_Delete(*out);
    *out = NULL;
    return NB_OK;
}

typedef struct {
    nb_findings *findings;
    const cJSON *root, *part; /* config.json; text_config or vision_config, looked at first */
    const char  *name;        /* of the part */
    bool         good;
} fields;

static const cJSON *field(const fields *f, const char *key)
{
    const cJSON *v = cJSON_IsObject(f->part) ? nb_json_find(f->part, key) : NULL;
    return v ? v : f->root ? nb_json_find(f->root, key) : NULL;
}

/* fallback 0: required. */
static void read_size(fields *f, const char *key, int64_t fallback, int64_t most, int64_t *out)
{
    char         where[80];
    const cJSON *v = field(f, key);
    *out = fallback;
    if (!v && fallback) return;
    snprintf(where, sizeof where, "config.json: %s%s", f->name, key);
    if (v && cJSON_IsNumber(v) && v->valuedouble >= 1 && v->valuedouble <= (double)most &&
        v->valuedouble == floor(v->valuedouble)) {
        *out = (int64_t)v->valuedouble;
        return;
    }
    nb_found(f->findings, NB_ERROR, NB_FOR_ALL, 0, "config", where, "restore it from the model this one was made from", "%s",
             v ? "is not a whole number of a possible size" : "is missing");
    f->good = false;
}

static bool read_sizes(nb_description *d, nb_findings *findings)
{
    fields text = {findings, d->config, nb_json_find(d->config, "text_config"), "", true};
    read_size(&text, "hidden_size", 0, 1 << 20, &d->hidden);
    read_size(&text, "intermediate_size", 0, 1 << 22, &d->inner);
    read_size(&text, "num_hidden_layers", 0, 1 << 10, &d->layers);
    read_size(&text, "num_attention_heads", 0, 1 << 12, &d->heads);
    read_size(&text, "num_key_value_heads", d->heads ? d->heads : 1, 1 << 12, &d->kv_heads);
    read_size(&text, "vocab_size", 0, 1 << 26, &d->vocab);
    if (text.good) read_size(&text, "head_dim", d->hidden / d->heads ? d->hidden / d->heads : 1, 1 << 12, &d->head_dim);
    const cJSON *tied = field(&text, "tie_word_embeddings"), *dtype = nb_json_find(d->config, "torch_dtype");
    if (!dtype) dtype = nb_json_find(d->config, "dtype"); /* transformers 5 */
    d->tied = cJSON_IsTrue(tied);
    if (cJSON_IsString(dtype)) snprintf(d->dtype, sizeof d->dtype, "%s", dtype->valuestring);

    fields  vision = {findings, NULL, nb_json_find(d->config, "vision_config"), "vision_config.", true};
    int64_t ratio;
    if (!cJSON_IsObject(vision.part))
        nb_found(findings, NB_ERROR, NB_FOR_ALL, 0, "config", "config.json: vision_config",
                 "restore it from the original model", "is missing: this is no Qwen2-VL that any loader could build");
    read_size(&vision, "depth", 32, 1 << 10, &d->v_depth); /* the class defaults: published files leave them out */
    read_size(&vision, "embed_dim", 1280, 1 << 20, &d->v_dim);
    read_size(&vision, "num_heads", 16, 1 << 12, &d->v_heads);
    read_size(&vision, "mlp_ratio", 4, 64, &ratio);
    read_size(&vision, "hidden_size", 3584, 1 << 20, &d->v_out);
    read_size(&vision, "patch_size", 14, 1 << 10, &d->v_patch);
    read_size(&vision, "spatial_merge_size", 2, 64, &d->v_merge);
    read_size(&vision, "temporal_patch_size", 2, 64, &d->v_temporal);
    read_size(&vision, "in_channels", 3, 64, &d->v_channels);
    d->v_inner = d->v_dim * ratio;
    return text.good && vision.good && cJSON_IsObject(vision.part);
}

/* ---- modules ----------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    bool        bias;
} decoder[7] = {{"self_attn.q_proj", true}, {"self_attn.k_proj", true}, {"self_attn.v_proj", true}, {"self_attn.o_proj", false},
                {"mlp.gate_proj", false},   {"mlp.up_proj", false},     {"mlp.down_proj", false}},
  vision[4] = {{"attn.qkv", true}, {"attn.proj", true}, {"mlp.fc1", true}, {"mlp.fc2", true}};

static void add_module(nb_description *d, nb_part_of part, int layer, int index, const char *name, bool bias, int64_t n,
                       int64_t k)
{
    nb_module *m = &d->modules[d->module_count++];
    *m = (nb_module){.part = part, .layer = layer, .index = index, .n = (uint64_t)n, .k = (uint64_t)k, .bias = bias};
    if (part == NB_PART_DECODER) snprintf(m->name, sizeof m->name, "model.layers.%d.%s", layer, name);
    else if (layer >= 0) snprintf(m->name, sizeof m->name, "visual.blocks.%d.%s", layer, name);
    else snprintf(m->name, sizeof m->name, "%s", name);
}

static nb_status list_modules(nb_description *d, nb_error *err)
{
    int64_t q = d->heads * d->head_dim, kv = d->kv_heads * d->head_dim, v = d->v_dim, wide = v * d->v_merge * d->v_merge;
    int64_t n7[7] = {q, kv, kv, d->hidden, d->inner, d->inner, d->hidden};
    int64_t k7[7] = {d->hidden, d->hidden, d->hidden, q, d->hidden, d->hidden, d->inner};
    int64_t n4[4] = {3 * v, v, d->v_inner, v}, k4[4] = {v, v, v, d->v_inner};
    NB_TRY(
        nb_alloc(&d->modules, (size_t)(d->layers * 7 + d->v_depth * 4 + 4), sizeof *d->modules, "the modules of a model", err));
    for (int l = 0; l < d->layers; l++)
        for (int i = 0; i < 7; i++) add_module(d, NB_PART_DECODER, l, i, decoder[i].name, decoder[i].bias, n7[i], k7[i]);
    for (int l = 0; l < d->v_depth; l++)
        for (int i = 0; i < 4; i++) add_module(d, NB_PART_VISION, l, i, vision[i].name, true, n4[i], k4[i]);
    add_module(d, NB_PART_VISION, -1, 0, "visual.merger.mlp.0", true, wide, wide);
    add_module(d, NB_PART_VISION, -1, 1, "visual.merger.mlp.2", true, d->v_out, wide);
    add_module(d, NB_PART_EMBED, -1, 0, "model.embed_tokens", false, d->vocab, d->hidden);
    add_module(d, NB_PART_HEAD, -1, 0, "lm_head", false, d->vocab, d->hidden);
    return NB_OK;
}

/* "prefix." of name becomes `with`, or nothing happens. */
static bool respell(char out[NB_MODULE], const char *name, const char *prefix, const char *with)
{
    size_t n = strlen(prefix);
    if (strncmp(name, prefix, n)) return false;
    snprintf(out, NB_MODULE, "%s%.70s", with, name + n);
    return true;
}

void nb_module_name(char out[NB_MODULE], const nb_module *m, nb_naming naming)
{
    if (naming == NB_NAMES_NEW &&
        (respell(out, m->name, "model.", "model.language_model.") || respell(out, m->name, "visual.", "model.visual.")))
        return;
    if (naming == NB_NAMES_VLLM && (respell(out, m->name, "model.", "language_model.model.") ||
                                    respell(out, m->name, "lm_head", "language_model.lm_head")))
        return;
    snprintf(out, NB_MODULE, "%s", m->name);
}

/* ---- what is stored ---------------------------------------------------------------------------------------------------- */

bool nb_scheme_stored(nb_scheme *out, const nb_module *m)
{
    const nb_entry *words = m->tensor[m->stored == NB_STORED_PACKED ? NB_T_PACKED : NB_T_QWEIGHT];
    const nb_entry *scales = m->tensor[m->stored == NB_STORED_PACKED ? NB_T_SCALE : NB_T_SCALES];
    *out = (nb_scheme){0};
    if (m->stored == NB_STORED_NOT) return false;
    if (m->stored == NB_STORED_FLOAT) return true;
    if (!words || !scales || words->tensor->rank != 2 || scales->tensor->rank != 2) return false;
    bool     packed = m->stored == NB_STORED_PACKED;
    uint64_t a = words->tensor->shape[0], b = words->tensor->shape[1], groups = scales->tensor->shape[packed ? 1 : 0];
    out->quantized = true;
    /* AWQ packs along n: [k, n bits/32]; GPTQ along k: [k bits/32, n]; compressed-tensors along k: [n, k bits/32] */
    uint64_t bits = packed && a == m->n    ? b * 32 / m->k
                    : !packed && a == m->k ? b * 32 / m->n
                    : !packed && b == m->n ? a * 32 / m->k
                                           : 0;
    if (bits < 1 || bits > 32 || groups == 0 || groups > m->k) return false;
    out->bits = (int)bits;
    out->group = groups == 1 ? 0 : (int64_t)((m->k + groups - 1) / groups);
    return true;
}

static nb_status read_g_idx(nb_module *m, nb_error *err)
{
    const nb_entry *e = m->tensor[NB_T_G_IDX] ? m->tensor[NB_T_G_IDX] : m->tensor[NB_T_CT_G_IDX];
    nb_scheme       stored;
    void           *data;
    if (!e || e->tensor->rank != 1 || e->tensor->count != m->k || e->tensor->dtype != NB_I32 || !nb_scheme_stored(&stored, m))
        return NB_OK;
    NB_TRY(nb_entry_read(e, &data, err));
    const int32_t *g = data;
    uint64_t       group = stored.group ? (uint64_t)stored.group : m->k, groups = (m->k + group - 1) / group;
    m->g_idx_read = m->g_idx_plain = m->g_idx_in_range = true;
    for (uint64_t i = 0; i < m->k; i++) {
        m->g_idx_plain = m->g_idx_plain && (uint64_t)(uint32_t)g[i] == i / group;
        m->g_idx_in_range = m->g_idx_in_range && g[i] >= 0 && (uint64_t)g[i] < groups;
    }
    free(data);
    return NB_OK;
}

static nb_status find_tensors(nb_description *d, nb_findings *findings, nb_error *err)
{
    char name[NB_MODULE + 24];
    bool unknown = false;
    for (size_t i = 0; i < d->module_count; i++) {
        nb_module *m = &d->modules[i];
        for (int r = 0; r < NB_T_COUNT; r++) {
            snprintf(name, sizeof name, "%s.%s", m->name, nb_tensor_roles[r]);
            m->tensor[r] = nb_checkpoint_find(d->checkpoint, name);
        }
        m->stored = m->tensor[NB_T_QWEIGHT]  ? NB_STORED_WORDS
                    : m->tensor[NB_T_PACKED] ? NB_STORED_PACKED
                    : m->tensor[NB_T_WEIGHT] ? NB_STORED_FLOAT
                                             : NB_STORED_NOT;
        d->any_quantized = d->any_quantized || m->stored == NB_STORED_WORDS || m->stored == NB_STORED_PACKED;
        m->scheme = nb_block_scheme(&d->block, m, &unknown);
        NB_TRY(read_g_idx(m, err));
    }
    const char *item;
    for (int i = 0; (item = nb_list_item(d->block.skip, i)); i++)
        unknown = unknown || (!strncmp(item, "re:", 3) && nb_pattern_match(item + 3, "") == NB_PATTERN_UNKNOWN);
    if (unknown)
        nb_found(findings, NB_WARNING, NB_FOR_ALL, 0, "pattern", d->block.where,
                 "write the pattern without lookaround and back references",
                 "holds a regular expression that verify cannot judge; what it should match is taken as not matched");
    return NB_OK;
}

static void see_names(nb_description *d)
{
    for (size_t i = 0; i < nb_checkpoint_count(d->checkpoint); i++) {
        const char *name = nb_checkpoint_at(d->checkpoint, i)->tensor->name;
        if (!strncmp(name, "model.language_model.", 21) || !strncmp(name, "model.visual.", 13)) d->names_new = true;
        else if (!strncmp(name, "language_model.", 15)) d->names_other = true;
        else if (strncmp(name, "lm_head.", 8)) d->names_old = true;
    }
}

/* ---- the whole --------------------------------------------------------------------------------------------------------- */

static nb_status describe(nb_description *d, nb_findings *findings, bool *usable, nb_error *err)
{
    nb_error why = {0};
    NB_TRY(read_json(&d->config, d->path, "config.json", findings, err));
    static const char *const beside[] = {"quantize_config.json", "quant_config.json"};
    for (size_t i = 0; i < NB_COUNT(beside) && !d->beside; i++) {
        char *path = nb_path_join(d->path, beside[i]);
        if (!path) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", d->path);
        bool there = nb_file_exists(path);
        free(path);
        if (!there) continue;
        d->beside_name = beside[i];
        NB_TRY(read_json(&d->beside, d->path, beside[i], findings, err));
    }
    bool sizes = d->config && read_sizes(d, findings);
    if (d->config) nb_block_read(d, findings);
    nb_status status = nb_checkpoint_open(&d->checkpoint, d->path, &why);
    if (status == NB_ERR_MEMORY) {
        *err = why;
        return status;
    }
    if (status != NB_OK)
        nb_found(findings, NB_ERROR, NB_FOR_ALL, 0, "weights", d->path, "download or write the checkpoint again", "%s",
                 why.text);
    *usable = sizes && status == NB_OK;
    if (!*usable) return NB_OK;
    NB_TRY(list_modules(d, err));
    see_names(d);
    return find_tensors(d, findings, err);
}

nb_status nb_describe(nb_description *out, const char *directory, nb_findings *findings, bool *usable, nb_error *err)
{
    *out = (nb_description){.path = directory};
    *usable = false;
    nb_status status = describe(out, findings, usable, err);
    if (status != NB_OK) nb_description_free(out);
    return status;
}

void nb_description_free(nb_description *d)
{
    nb_checkpoint_close(d->checkpoint);
    cJSON_Delete(d->config);
    cJSON_Delete(d->beside);
    free(d->modules);
    *d = (nb_description){0};
}
