/* quant_config.c - one table from the keys that other tools write to our flags; whatever it does not know is reported. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "runtime/io/json.h"
#include "tools/quant_config.h"

/* How a JSON value becomes the text of a flag. */
typedef enum {
    PLAIN,      /* number, bool or string as it is */
    OPPOSITE,   /* bool, negated */
    ACT_ORDER,  /* desc_act true -> full, false -> none */
    GROUP_AWARE,/* act_group_aware true -> group; false says nothing */
    ACTORDER,   /* compressed-tensors' "static" | "weight" | "group" | "dynamic" | null */
    METHOD,     /* awq | gptq; "compressed-tensors" says nothing about the solver */
    CHECKPOINT, /* gptq | gptq_v2; gemm is what AWQ always is */
    SILENT,     /* carries nothing to decide: bookkeeping of the tool that wrote it */
} conversion;

static const struct {
    const char *key, *flag;
    conversion  how;
} keys[] = {
    {"quant_method", "method", METHOD},          {"method", "method", METHOD},
    {"bits", "bits", PLAIN},                     {"w_bit", "bits", PLAIN},
    {"num_bits", "bits", PLAIN},                 {"group_size", "group-size", PLAIN},
    {"q_group_size", "group-size", PLAIN},       {"sym", "sym", PLAIN},
    {"symmetric", "sym", PLAIN},                 {"zero_point", "sym", OPPOSITE},
    {"act_group_aware", "act-order", GROUP_AWARE}, {"desc_act", "act-order", ACT_ORDER},
    {"actorder", "act-order", ACTORDER},         {"damp_percent", "damp", PLAIN},
    {"dampening_frac", "damp", PLAIN},           {"static_groups", "static-groups", PLAIN},
    {"true_sequential", "true-sequential", PLAIN}, {"mse", "mse", PLAIN},
    {"duo_scaling", "duo-scaling", PLAIN},       {"n_grid", "grid", PLAIN},
    {"apply_clip", "clip", PLAIN},               {"checkpoint_format", "format", CHECKPOINT},
    {"format", "format", CHECKPOINT},            {"version", "format", CHECKPOINT},
    {"max_calib_samples", "samples", PLAIN},     {"max_calib_seq_len", "seq-len", PLAIN},
    {"model_name_or_path", NULL, SILENT},        {"model_file_base_name", NULL, SILENT},
    {"quantization_status", NULL, SILENT},       {"pack_dtype", NULL, SILENT},
    {"strategy", NULL, SILENT},                  {"targets", NULL, SILENT},
    {"observer", NULL, SILENT},                  {"type", NULL, SILENT},
};

/* The flag's text for a value; false when the value says nothing to us. */
static bool convert(conversion how, const cJSON *v, char text[64])
{
    const char *word = cJSON_IsString(v) ? v->valuestring : NULL;
    switch (how) {
    case PLAIN:
        if (cJSON_IsBool(v)) snprintf(text, 64, "%s", cJSON_IsTrue(v) ? "true" : "false");
        else if (cJSON_IsNumber(v)) snprintf(text, 64, "%.12g", v->valuedouble);
        else if (word) snprintf(text, 64, "%s", word);
        else return false;
        return true;
    case OPPOSITE: snprintf(text, 64, "%s", cJSON_IsTrue(v) ? "false" : "true"); return cJSON_IsBool(v);
    case ACT_ORDER: snprintf(text, 64, "%s", cJSON_IsTrue(v) ? "full" : "none"); return cJSON_IsBool(v);
    case GROUP_AWARE: snprintf(text, 64, "group"); return cJSON_IsTrue(v);
    case ACTORDER:
        /* "static" and "weight" (the same thing) keep the stored index trivial, as GROUP does; "group" and "dynamic" do not */
        snprintf(text, 64, "%s", word && (strcmp(word, "group") == 0 || strcmp(word, "dynamic") == 0) ? "full" : "group");
        return word != NULL;
    case METHOD:
        snprintf(text, 64, "%s", word ? word : "");
        return word && (strcmp(word, "awq") == 0 || strcmp(word, "gptq") == 0);
    case CHECKPOINT: snprintf(text, 64, "%s", word ? word : ""); return word && strncmp(word, "gptq", 4) == 0;
    case SILENT: return false;
    }
    return false;
}

static nb_status apply_object(nb_args *args, const cJSON *object, const char *name, nb_error *err)
{
    for (size_t i = 0; i < NB_COUNT(keys); i++) {
        const cJSON *v = nb_json_find(object, keys[i].key);
        char         text[64], where[160];
        if (!v || !convert(keys[i].how, v, text)) continue;
        /* optimum writes both, desc_act false beside act_group_aware true: an order is used, only g_idx stays trivial */
        if (strcmp(keys[i].key, "desc_act") == 0 && cJSON_IsFalse(v) &&
            cJSON_IsTrue(nb_json_find(object, "act_group_aware")))
            continue;
        snprintf(where, sizeof where, "%.120s: %s", name, keys[i].key);
        NB_TRY(nb_args_suggest(args, keys[i].flag, text, where, err));
    }
    return NB_OK;
}

/* handled: a member that was dealt with elsewhere, or NULL. */
static void list_unknown(const cJSON *object, const cJSON *handled, nb_buf *ignored)
{
    const cJSON *v;
    cJSON_ArrayForEach(v, object)
    {
        bool known = cJSON_IsNull(v) || v == handled;
        for (size_t i = 0; i < NB_COUNT(keys) && !known; i++) known = strcmp(v->string, keys[i].key) == 0;
        if (!known) nb_buf_printf(ignored, "%s%s", ignored->size ? ", " : "", v->string);
    }
}

/* Versions of AutoAWQ's kernel layouts that we do not write. */
static nb_status check_version(const cJSON *object, const char *name, nb_error *err)
{
    const cJSON *version = nb_json_find(object, "version");
    if (!cJSON_IsString(version) || strcasecmp(version->valuestring, "gemm") == 0) return NB_OK;
    return nb_fail(err, NB_ERR_UNSUPPORTED,
                   "%s: version \"%s\" is a kernel layout that nibble does not write; use \"gemm\"", name,
                   version->valuestring);
}

/* compressed-tensors: the weights of the only config group. */
static nb_status apply_groups(nb_args *args, const cJSON *groups, const char *name, nb_buf *ignored, nb_error *err)
{
    const cJSON *group = groups->child, *weights = group && cJSON_IsObject(group) ? nb_json_find(group, "weights") : NULL;
    if (!weights || !cJSON_IsObject(weights) || group->next)
        return nb_fail(err, NB_ERR_UNSUPPORTED,
                       "%s: config_groups must hold one group with weights; mixed schemes are not supported", name);
    const cJSON *strategy = nb_json_find(weights, "strategy");
    if (cJSON_IsString(strategy) && strcmp(strategy->valuestring, "channel") == 0) {
        char where[160];
        snprintf(where, sizeof where, "%.120s: strategy", name);
        NB_TRY(nb_args_suggest(args, "group-size", "-1", where, err));
    }
    NB_TRY(apply_object(args, weights, name, err));
    list_unknown(weights, NULL, ignored);
    return NB_OK;
}

/* AutoAWQ's dict and AutoGPTQ's file do not say whose they are; each has words that only it uses. */
static const char *unnamed_method(const cJSON *block)
{
    static const char *const gptq[] = {"desc_act", "damp_percent", "static_groups", "true_sequential", "act_group_aware"};
    if (nb_json_find(block, "quant_method") || nb_json_find(block, "method")) return NULL;
    if (nb_json_find(block, "w_bit") || nb_json_find(block, "q_group_size")) return "awq";
    for (size_t i = 0; i < NB_COUNT(gptq); i++)
        if (nb_json_find(block, gptq[i])) return "gptq";
    return NULL;
}

static nb_status apply_tree(nb_args *args, const cJSON *tree, const char *name, nb_buf *ignored, nb_error *err)
{
    const cJSON *inner = cJSON_IsObject(tree) ? nb_json_find(tree, "quantization_config") : NULL;
    const cJSON *block = inner ? inner : tree;
    if (!cJSON_IsObject(block)) return nb_fail(err, NB_ERR_ARGUMENT, "%s: not a JSON object of quantization settings", name);
    const cJSON *groups = nb_json_find(block, "config_groups");
    if (groups && !cJSON_IsObject(groups)) return nb_fail(err, NB_ERR_ARGUMENT, "%s: config_groups is not an object", name);
    NB_TRY(check_version(block, name, err));
    const char *method = unnamed_method(block);
    if (method) NB_TRY(nb_args_suggest(args, "method", method, name, err));
    if (groups) NB_TRY(apply_groups(args, groups, name, ignored, err));
    NB_TRY(apply_object(args, block, name, err));
    list_unknown(block, groups, ignored);
    return nb_buf_status(ignored, "the list of keys", err);
}

nb_status nb_quant_config_apply(nb_args *args, const char *text, nb_buf *ignored, nb_error *err)
{
    cJSON      *tree;
    bool        is_text = text[strspn(text, " \t\n")] == '{';
    const char *name = is_text ? "--quant-config" : text;
    if (is_text) NB_TRY(nb_json_parse(&tree, text, strlen(text), name, err));
    else NB_TRY(nb_json_file(&tree, text, 16 << 20, err));
    nb_status s = apply_tree(args, tree, name, ignored, err);
    cJSON_Delete(tree);
    return s;
}
