/* config.c - reading config.json of old and new layouts into one struct, every value bounded before it is used.
 *
 * Files saved by transformers 4.52 and later nest the language model's fields in text_config, sometimes beside the old
 * top-level ones; nested wins.  Vision fields that equal the class default are absent from many published files.
 */
#include "runtime/model/config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/file.h"

enum { CONFIG_LIMIT = 16 << 20 };

/* ---- the language model's fields, nested or not ------------------------------------------------------------------------ */

typedef struct {
    const cJSON *root, *text;
} source;

static const cJSON *text_field(const source *s, const char *key)
{
    const cJSON *v = s->text ? nb_json_find(s->text, key) : NULL;
    return v ? v : nb_json_find(s->root, key);
}

/* The object that holds `key`, for the typed accessors. */
static const cJSON *owner(const source *s, const char *key)
{
    return s->text && nb_json_find(s->text, key) ? s->text : s->root;
}

static nb_status text_int(const source *s, const char *key, int64_t min, int64_t max, int *out, nb_error *err)
{
    int64_t v;
    NB_TRY(nb_json_get_int(owner(s, key), key, min, max, &v, "config.json", err));
    *out = (int)v;
    return NB_OK;
}

static nb_status token_id(const source *s, const char *key, int32_t *out, nb_error *err)
{
    int64_t v;
    NB_TRY(nb_json_get_int(owner(s, key), key, 0, 1 << 26, &v, "config.json", err));
    *out = (int32_t)v;
    return NB_OK;
}

/* ---- rotary positions -------------------------------------------------------------------------------------------------- */

/* YaRN as transformers 4.57 and 5 read it: the factor from the dict, the original length from the dict or
 * max_position_embeddings.  (Mid-4.x versions took factor = max_position_embeddings / original instead.) */
static nb_status read_yarn(nb_config *c, const cJSON *rope, nb_buf *notes, nb_error *err)
{
    const char *where = "config.json: rope_scaling";
    double      mscale = 0, mscale_all = 0, attention = -1;
    int64_t     original = c->max_positions;
    c->yarn = true;
    c->yarn_beta_fast = 32;
    c->yarn_beta_slow = 1;
    c->yarn_truncate = true;
    NB_TRY(nb_json_get_number(rope, "factor", 1, 1024, &c->yarn_factor, where, err));
    NB_TRY(nb_json_opt_int(rope, "original_max_position_embeddings", 1, 1 << 26, &original, where, err));
    NB_TRY(nb_json_opt_number(rope, "beta_fast", 0.01, 1e4, &c->yarn_beta_fast, where, err));
    NB_TRY(nb_json_opt_number(rope, "beta_slow", 0.01, 1e4, &c->yarn_beta_slow, where, err));
    NB_TRY(nb_json_opt_number(rope, "attention_factor", 0, 100, &attention, where, err));
    NB_TRY(nb_json_opt_number(rope, "mscale", 0, 100, &mscale, where, err));
    NB_TRY(nb_json_opt_number(rope, "mscale_all_dim", 0, 100, &mscale_all, where, err));
    NB_TRY(nb_json_opt_bool(rope, "truncate", &c->yarn_truncate, where, err));
    c->yarn_original = (int)original;
    if (attention >= 0)
        c->yarn_attention = attention;
    else if (c->yarn_factor <= 1)
        c->yarn_attention = 1;
    else if (mscale > 0 && mscale_all > 0)
        c->yarn_attention = (0.1 * mscale * log(c->yarn_factor) + 1) / (0.1 * mscale_all * log(c->yarn_factor) + 1);
    else
        c->yarn_attention = 0.1 * log(c->yarn_factor) + 1;
    double other = (double)c->max_positions / c->yarn_original;
    if (fabs(other - c->yarn_factor) > 1e-6)
        nb_buf_printf(notes,
                      "config.json: rope_scaling.factor %g is used; some transformers versions would take "
                      "max_position_embeddings / original_max_position_embeddings = %g\n",
                      c->yarn_factor, other);
    nb_buf_str(notes, "YaRN scaling is on: it lowers the precision of places and times in pictures\n");
    return NB_OK;
}

static nb_status read_rope(nb_config *c, const source *s, nb_buf *notes, nb_error *err)
{
    const cJSON *rope = text_field(s, "rope_scaling");
    if (!rope) rope = text_field(s, "rope_parameters"); /* transformers 5 */
    double theta = 0;
    NB_TRY(nb_json_opt_number(owner(s, "rope_theta"), "rope_theta", 1, 1e12, &theta, "config.json", err));
    if (rope && theta == 0) NB_TRY(nb_json_opt_number(rope, "rope_theta", 1, 1e12, &theta, "config.json: rope_parameters", err));
    if (theta == 0) return nb_fail(err, NB_ERR_INPUT, "config.json: rope_theta is missing");
    c->rope_theta = (float)theta;
    if (!rope)
        return nb_fail(err, NB_ERR_INPUT, "config.json: rope_scaling is missing: a Qwen2-VL needs its mrope_section");
    const cJSON *section = nb_json_find(rope, "mrope_section");
    if (!cJSON_IsArray(section) || cJSON_GetArraySize(section) != 3)
        return nb_fail(err, NB_ERR_INPUT, "config.json: rope_scaling.mrope_section must be three numbers");
    int sum = 0;
    for (int i = 0; i < 3; i++) {
        const cJSON *v = cJSON_GetArrayItem(section, i);
        if (!cJSON_IsNumber(v) || v->valuedouble < 0 || v->valuedouble > 4096 || v->valuedouble != floor(v->valuedouble))
            return nb_fail(err, NB_ERR_INPUT, "config.json: rope_scaling.mrope_section[%d] is not a small whole number", i);
        c->mrope[i] = (int)v->valuedouble;
        sum += c->mrope[i];
    }
    if (sum != c->head_dim / 2)
        return nb_fail(err, NB_ERR_INPUT, "config.json: rope_scaling.mrope_section sums to %d, half of the head size is %d", sum,
                       c->head_dim / 2);
    const char *type = NULL, *rope_type = NULL;
    NB_TRY(nb_json_opt_string(rope, "type", &type, "config.json: rope_scaling", err));
    NB_TRY(nb_json_opt_string(rope, "rope_type", &rope_type, "config.json: rope_scaling", err));
    if ((type && !strcmp(type, "yarn")) || (rope_type && !strcmp(rope_type, "yarn"))) return read_yarn(c, rope, notes, err);
    const char *found = rope_type ? rope_type : type;
    if (found && strcmp(found, "mrope") && strcmp(found, "default"))
        return nb_fail(err, NB_ERR_UNSUPPORTED, "config.json: rope_scaling type '%s' is not known (mrope, default and yarn are)",
                       found);
    return NB_OK;
}

/* ---- vision ------------------------------------------------------------------------------------------------------------ */

static nb_status read_vision(nb_config *c, const cJSON *root, nb_error *err)
{
    const cJSON *v = nb_json_find(root, "vision_config");
    if (!cJSON_IsObject(v)) return nb_fail(err, NB_ERR_INPUT, "config.json: vision_config is missing");
    struct {
        const char *key;
        int         value; /* the class default */
        int64_t     min, max;
        int        *out;
    } fields[] = {
        { "depth", 32, 1, 512, &c->v_depth },           { "embed_dim", 1280, 1, 65536, &c->v_dim },
        { "num_heads", 16, 1, 1024, &c->v_heads },      { "patch_size", 14, 1, 256, &c->v_patch },
        { "spatial_merge_size", 2, 1, 16, &c->v_merge }, { "temporal_patch_size", 2, 1, 16, &c->v_temporal },
        { "in_channels", 3, 3, 3, &c->v_channels },     { "hidden_size", 3584, 1, 65536, &c->v_out },
    };
    for (size_t i = 0; i < NB_COUNT(fields); i++) {
        int64_t n = fields[i].value;
        NB_TRY(nb_json_opt_int(v, fields[i].key, fields[i].min, fields[i].max, &n, "config.json: vision_config", err));
        *fields[i].out = (int)n;
    }
    double ratio = 4;
    NB_TRY(nb_json_opt_number(v, "mlp_ratio", 0.01, 64, &ratio, "config.json: vision_config", err));
    c->v_inner = (int)(c->v_dim * ratio);
    const char *act = "quick_gelu";
    NB_TRY(nb_json_opt_string(v, "hidden_act", &act, "config.json: vision_config", err));
    if (strcmp(act, "quick_gelu"))
        return nb_fail(err, NB_ERR_UNSUPPORTED, "config.json: vision_config.hidden_act '%s' is not Qwen2-VL's quick_gelu", act);
    if (c->v_dim % c->v_heads || c->v_dim / c->v_heads % 4)
        return nb_fail(err, NB_ERR_INPUT, "config.json: vision_config: embed_dim %d does not give heads of a multiple of 4 over %d heads",
                       c->v_dim, c->v_heads);
    c->v_head_dim = c->v_dim / c->v_heads;
    if (c->v_out != c->hidden)
        return nb_fail(err, NB_ERR_INPUT, "config.json: vision_config.hidden_size %d is not the language model's hidden_size %d",
                       c->v_out, c->hidden);
    return NB_OK;
}

/* ---- quantization ------------------------------------------------------------------------------------------------------ */

static nb_status read_group(const cJSON *q, const char *key, const char *alias, int *out, const char *where, nb_error *err)
{
    int64_t group = 0;
    if (nb_json_find(q, key))
        NB_TRY(nb_json_get_int(q, key, -1, 1 << 20, &group, where, err));
    else if (alias && nb_json_find(q, alias))
        NB_TRY(nb_json_get_int(q, alias, -1, 1 << 20, &group, where, err));
    else
        return nb_fail(err, NB_ERR_INPUT, "%s.%s is missing", where, key);
    if (group == 0) return nb_fail(err, NB_ERR_INPUT, "%s.%s is 0 (a positive size, or -1 for one group a row)", where, key);
    *out = group < 0 ? 0 : (int)group;
    return NB_OK;
}

/* A scheme that some matrices have; the first one of a file that names no other is the main one. */
static nb_status add_scheme(nb_quant_config *out, const nb_quant_scheme *s, const char *where, nb_error *err)
{
    if (s->bits != 4 && s->bits != 8)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: %d bits (4 and 8 are supported)", where, s->bits);
    if (out->bits == s->bits && out->group == s->group && out->sym == s->sym && out->desc_act == s->desc_act) return NB_OK;
    for (int i = 0; i < out->more_count; i++)
        if (!memcmp(&out->more[i], s, sizeof *s)) return NB_OK;
    if (out->more_count == NB_QUANT_SCHEMES)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: more than %d schemes", where, NB_QUANT_SCHEMES);
    out->more[out->more_count++] = *s;
    return NB_OK;
}

static nb_status read_ct_group(nb_quant_config *out, const cJSON *group, const char *where, nb_error *err)
{
    const cJSON    *w = nb_json_find(group, "weights");
    nb_quant_scheme s;
    memset(&s, 0, sizeof s); /* compared as bytes */
    if (!cJSON_IsObject(w)) return nb_fail(err, NB_ERR_INPUT, "%s: config_groups.%s.weights is missing", where, group->string);
    int64_t     bits = 0;
    const char *strategy = "group", *order = NULL, *type = "int";
    s.sym = true;
    NB_TRY(nb_json_get_int(w, "num_bits", 1, 32, &bits, where, err));
    NB_TRY(nb_json_opt_bool(w, "symmetric", &s.sym, where, err));
    NB_TRY(nb_json_opt_string(w, "strategy", &strategy, where, err));
    NB_TRY(nb_json_opt_string(w, "type", &type, where, err));
    if (cJSON_IsString(nb_json_find(w, "actorder"))) NB_TRY(nb_json_opt_string(w, "actorder", &order, where, err));
    s.bits = (int)bits;
    s.desc_act = order && (!strcmp(order, "group") || !strcmp(order, "dynamic"));
    if (strcmp(type, "int")) return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: weights of type '%s' (int is read)", where, type);
    if (!strcmp(strategy, "group"))
        NB_TRY(read_group(w, "group_size", NULL, &s.group, where, err));
    else if (strcmp(strategy, "channel"))
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: strategy '%s' (group and channel are read)", where, strategy);
    if (nb_json_find(group, "input_activations"))
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: quantised activations are not supported, only weights", where);
    if (out->bits) return add_scheme(out, &s, where, err);
    out->bits = s.bits;
    out->group = s.group;
    out->sym = s.sym;
    out->desc_act = s.desc_act;
    return NB_OK;
}

static nb_status read_compressed_tensors(nb_quant_config *out, const cJSON *q, const char *where, nb_error *err)
{
    out->method = NB_QUANT_CT;
    const char *format = "";
    NB_TRY(nb_json_opt_string(q, "format", &format, where, err));
    const cJSON *groups = nb_json_find(q, "config_groups");
    if (strcmp(format, "pack-quantized"))
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: compressed-tensors format '%s' (pack-quantized is read)", where, format);
    if (!cJSON_IsObject(groups) || !groups->child)
        return nb_fail(err, NB_ERR_INPUT, "%s: config_groups must be an object with at least one group", where);
    for (const cJSON *group = groups->child; group; group = group->next) NB_TRY(read_ct_group(out, group, where, err));
    return NB_OK;
}

/* GPTQModel's overrides: a pattern to what differs for the matrices that it matches, or, with "-:", that they are float. */
static nb_status read_dynamic(nb_quant_config *out, const cJSON *rules, const char *where, nb_error *err)
{
    if (!rules) return NB_OK;
    if (!cJSON_IsObject(rules)) return nb_fail(err, NB_ERR_INPUT, "%s.dynamic is not an object", where);
    for (const cJSON *rule = rules->child; rule; rule = rule->next) {
        nb_quant_scheme s;
        int64_t         bits = out->bits;
        if (!strncmp(rule->string, "-:", 2)) continue;
        if (!cJSON_IsObject(rule)) return nb_fail(err, NB_ERR_INPUT, "%s.dynamic['%s'] is not an object", where, rule->string);
        memset(&s, 0, sizeof s);
        s.group = out->group;
        s.sym = out->sym;
        s.desc_act = out->desc_act;
        NB_TRY(nb_json_opt_int(rule, "bits", 1, 32, &bits, where, err));
        NB_TRY(nb_json_opt_bool(rule, "sym", &s.sym, where, err));
        NB_TRY(nb_json_opt_bool(rule, "desc_act", &s.desc_act, where, err));
        if (nb_json_find(rule, "group_size")) NB_TRY(read_group(rule, "group_size", NULL, &s.group, where, err));
        s.bits = (int)bits;
        NB_TRY(add_scheme(out, &s, where, err));
    }
    return NB_OK;
}

static nb_status read_quantization(nb_quant_config *out, const cJSON *q, const char *where, nb_error *err)
{
    if (!cJSON_IsObject(q)) return nb_fail(err, NB_ERR_INPUT, "%s is not an object", where);
    const char *method = "gptq", *version = NULL;
    NB_TRY(nb_json_opt_string(q, "quant_method", &method, where, err));
    out->sym = true;
    if (!strcmp(method, "compressed-tensors")) {
        NB_TRY(read_compressed_tensors(out, q, where, err));
    } else if (!strcmp(method, "awq") || !strcmp(method, "gptq")) {
        int64_t bits = 0;
        bool    awq = !strcmp(method, "awq");
        out->method = awq ? NB_QUANT_AWQ : NB_QUANT_GPTQ;
        const char *bits_key = nb_json_find(q, "bits") || !awq ? "bits" : "w_bit";
        NB_TRY(nb_json_get_int(q, bits_key, 1, 32, &bits, where, err));
        out->bits = (int)bits;
        NB_TRY(read_group(q, "group_size", awq ? "q_group_size" : NULL, &out->group, where, err));
        NB_TRY(nb_json_opt_string(q, awq ? "version" : "checkpoint_format", &version, where, err));
        if (!version) NB_TRY(nb_json_opt_string(q, "format", &version, where, err));
        if (awq) {
            out->sym = false;
            if (version && strcasecmp(version, "gemm"))
                return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: AWQ version '%s' (gemm is read)", where, version);
        } else {
            NB_TRY(nb_json_opt_bool(q, "sym", &out->sym, where, err));
            NB_TRY(nb_json_opt_bool(q, "desc_act", &out->desc_act, where, err));
            out->v2 = version && !strcmp(version, "gptq_v2");
            if (version && strcmp(version, "gptq") && !out->v2)
                return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: GPTQ checkpoint_format '%s' (gptq and gptq_v2 are read)", where, version);
            NB_TRY(read_dynamic(out, nb_json_find(q, "dynamic"), where, err));
        }
    } else {
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: quant_method '%s' (awq, gptq and compressed-tensors are read)", where, method);
    }
    if (out->bits != 4 && out->bits != 8)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: %d bits (4 and 8 are supported)", where, out->bits);
    if (out->method == NB_QUANT_AWQ && out->bits != 4)
        return nb_fail(err, NB_ERR_INPUT, "%s: AWQ with %d bits: the form holds 4 bits only", where, out->bits);
    return NB_OK;
}

/* config.json names it; old files carry it beside. */
static nb_status find_quantization(nb_quant_config *out, const cJSON *root, const char *directory, nb_error *err)
{
    const cJSON *q = nb_json_find(root, "quantization_config");
    if (q) return read_quantization(out, q, "config.json: quantization_config", err);
    static const char *beside[] = { "quantize_config.json", "quant_config.json" };
    for (size_t i = 0; i < NB_COUNT(beside); i++) {
        char *path = nb_path_join(directory, beside[i]);
        if (!path) return nb_fail(err, NB_ERR_MEMORY, "no memory for a path");
        cJSON    *tree = NULL;
        nb_status status = NB_OK;
        bool      there = nb_file_exists(path);
        if (there) status = nb_json_file(&tree, path, CONFIG_LIMIT, err);
        if (there && status == NB_OK) {
            bool awq = nb_json_find(tree, "w_bit") && !nb_json_find(tree, "quant_method");
            if (awq) cJSON_AddStringToObject(tree, "quant_method", "awq");
            status = read_quantization(out, tree, beside[i], err);
        }
        cJSON_Delete(tree);
        free(path);
        if (there || status != NB_OK) return status;
    }
    return NB_OK;
}

/* ---- the whole file ---------------------------------------------------------------------------------------------------- */

static nb_status read_config(nb_config *c, const cJSON *root, const char *directory, nb_buf *notes, nb_error *err)
{
    source      s = { root, nb_json_find(root, "text_config") };
    const char *type = "", *act = "silu", *dtype = NULL;
    bool        sliding = false;
    double      eps = 0;
    int64_t     head_dim = 0;
    if (s.text && !cJSON_IsObject(s.text)) return nb_fail(err, NB_ERR_INPUT, "config.json: text_config is not an object");
    NB_TRY(nb_json_get_string(root, "model_type", &type, "config.json", err));
    if (strcmp(type, "qwen2_vl"))
        return nb_fail(err, NB_ERR_UNSUPPORTED, "config.json: model_type '%s': nibble reads Qwen2-VL (qwen2_vl)", type);
    NB_TRY(text_int(&s, "hidden_size", 1, 65536, &c->hidden, err));
    NB_TRY(text_int(&s, "intermediate_size", 1, 1 << 20, &c->intermediate, err));
    NB_TRY(text_int(&s, "num_hidden_layers", 1, 1024, &c->layers, err));
    NB_TRY(text_int(&s, "num_attention_heads", 1, 1024, &c->heads, err));
    NB_TRY(text_int(&s, "num_key_value_heads", 1, 1024, &c->kv_heads, err));
    NB_TRY(text_int(&s, "vocab_size", 1, 1 << 22, &c->vocab, err));
    NB_TRY(text_int(&s, "max_position_embeddings", 1, 1 << 26, &c->max_positions, err));
    NB_TRY(nb_json_get_number(owner(&s, "rms_norm_eps"), "rms_norm_eps", 0, 1, &eps, "config.json", err));
    c->rms_eps = (float)eps;
    if (c->heads % c->kv_heads)
        return nb_fail(err, NB_ERR_INPUT, "config.json: num_attention_heads %d is not a multiple of num_key_value_heads %d", c->heads,
                       c->kv_heads);
    NB_TRY(nb_json_opt_int(owner(&s, "head_dim"), "head_dim", 2, 1024, &head_dim, "config.json", err));
    if (!head_dim && c->hidden % c->heads)
        return nb_fail(err, NB_ERR_INPUT, "config.json: hidden_size %d is not a multiple of num_attention_heads %d", c->hidden, c->heads);
    c->head_dim = head_dim ? (int)head_dim : c->hidden / c->heads;
    if (c->head_dim % 2 || c->head_dim > 1024)
        return nb_fail(err, NB_ERR_INPUT, "config.json: heads of %d elements (an even number up to 1024 is needed)", c->head_dim);
    NB_TRY(nb_json_opt_string(owner(&s, "hidden_act"), "hidden_act", &act, "config.json", err));
    if (strcmp(act, "silu")) return nb_fail(err, NB_ERR_UNSUPPORTED, "config.json: hidden_act '%s' is not Qwen2-VL's silu", act);
    NB_TRY(nb_json_opt_bool(owner(&s, "use_sliding_window"), "use_sliding_window", &sliding, "config.json", err));
    if (sliding) return nb_fail(err, NB_ERR_UNSUPPORTED, "config.json: use_sliding_window true is not supported");
    NB_TRY(nb_json_opt_bool(root, "tie_word_embeddings", &c->tied, "config.json", err));
    if (!nb_json_find(root, "tie_word_embeddings") && s.text)
        NB_TRY(nb_json_opt_bool(s.text, "tie_word_embeddings", &c->tied, "config.json: text_config", err));
    const char *dtype_key = text_field(&s, "dtype") ? "dtype" : "torch_dtype";
    NB_TRY(nb_json_opt_string(owner(&s, dtype_key), dtype_key, &dtype, "config.json", err));
    c->dtype = !dtype || !strcmp(dtype, "bfloat16") ? NB_BF16 : !strcmp(dtype, "float16") ? NB_F16 : NB_F32;
    NB_TRY(token_id(&s, "vision_start_token_id", &c->vision_start, err));
    NB_TRY(token_id(&s, "vision_end_token_id", &c->vision_end, err));
    NB_TRY(token_id(&s, "image_token_id", &c->image_pad, err));
    NB_TRY(token_id(&s, "video_token_id", &c->video_pad, err));
    int32_t ids[] = { c->vision_start, c->vision_end, c->image_pad, c->video_pad };
    for (size_t i = 0; i < NB_COUNT(ids); i++)
        if (ids[i] >= c->vocab)
            return nb_fail(err, NB_ERR_INPUT, "config.json: special token id %d is outside the vocabulary of %d", ids[i], c->vocab);
    NB_TRY(read_rope(c, &s, notes, err));
    NB_TRY(read_vision(c, root, err));
    return find_quantization(&c->quant, root, directory, err);
}

static nb_status open_json(cJSON **out, const char *directory, const char *name, bool *missing, nb_error *err)
{
    *out = NULL;
    char *path = nb_path_join(directory, name);
    if (!path) return nb_fail(err, NB_ERR_MEMORY, "no memory for a path");
    *missing = !nb_file_exists(path);
    nb_status status = *missing ? NB_OK : nb_json_file(out, path, CONFIG_LIMIT, err);
    if (status == NB_OK && !*missing && !cJSON_IsObject(*out)) {
        status = nb_fail(err, NB_ERR_INPUT, "%s: not a JSON object", path);
        cJSON_Delete(*out);
        *out = NULL;
    }
    free(path);
    return status;
}

nb_status nb_config_open(nb_config *out, const char *directory, nb_buf *notes, nb_error *err)
{
    cJSON *root;
    bool   missing;
    memset(out, 0, sizeof *out);
    NB_TRY(open_json(&root, directory, "config.json", &missing, err));
    if (missing)
        return nb_fail(err, NB_ERR_INPUT, "%s: there is no config.json: not a checkpoint directory", directory);
    nb_status status = read_config(out, root, directory, notes, err);
    cJSON_Delete(root);
    if (status != NB_OK) nb_error_within(err, "%s", directory);
    return status;
}

/* ---- generation_config.json -------------------------------------------------------------------------------------------- */

static nb_status read_eos(nb_generation_config *g, const cJSON *value, const char *where, nb_error *err)
{
    const cJSON *item = cJSON_IsArray(value) ? value->child : value;
    for (g->eos_count = 0; item; item = cJSON_IsArray(value) ? item->next : NULL) {
        if (!cJSON_IsNumber(item) || item->valuedouble < 0 || item->valuedouble > 1 << 26 || item->valuedouble != floor(item->valuedouble))
            return nb_fail(err, NB_ERR_INPUT, "%s: eos_token_id must be token ids", where);
        if (g->eos_count == (int)NB_COUNT(g->eos))
            return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: more than %d eos_token_id", where, (int)NB_COUNT(g->eos));
        g->eos[g->eos_count++] = (int32_t)item->valuedouble;
    }
    return NB_OK;
}

static nb_status read_generation(nb_generation_config *g, const cJSON *root, nb_error *err)
{
    const char *where = "generation_config.json";
    int64_t     top_k = 50; /* transformers' default when sampling */
    NB_TRY(nb_json_opt_bool(root, "do_sample", &g->do_sample, where, err));
    NB_TRY(nb_json_opt_int(root, "top_k", 0, 1 << 22, &top_k, where, err));
    NB_TRY(nb_json_opt_number(root, "top_p", 0, 1, &g->top_p, where, err));
    NB_TRY(nb_json_opt_number(root, "temperature", 0, 100, &g->temperature, where, err));
    NB_TRY(nb_json_opt_number(root, "repetition_penalty", 0.01, 100, &g->repetition_penalty, where, err));
    g->top_k = (int)top_k;
    const cJSON *eos = nb_json_find(root, "eos_token_id");
    return eos ? read_eos(g, eos, where, err) : NB_OK;
}

nb_status nb_generation_config_open(nb_generation_config *out, const char *directory, nb_error *err)
{
    cJSON *root;
    bool   missing;
    *out = (nb_generation_config){ .top_p = 1, .temperature = 1, .repetition_penalty = 1 };
    NB_TRY(open_json(&root, directory, "generation_config.json", &missing, err));
    nb_status status = NB_OK;
    if (!missing) {
        status = read_generation(out, root, err);
        cJSON_Delete(root);
    }
    if (status == NB_OK && out->eos_count == 0) { /* older checkpoints name it in config.json alone */
        status = open_json(&root, directory, "config.json", &missing, err);
        if (status == NB_OK && !missing) {
            const cJSON *eos = nb_json_find(root, "eos_token_id");
            const cJSON *text = nb_json_find(root, "text_config");
            if (!eos && text) eos = nb_json_find(text, "eos_token_id");
            if (eos) status = read_eos(out, eos, "config.json", err);
            cJSON_Delete(root);
        }
    }
    if (status != NB_OK) nb_error_within(err, "%s", directory);
    return status;
}
