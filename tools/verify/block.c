/* block.c - the three dialects of quantization_config as one struct.  Nothing is refused here but what cannot be understood:
 * which values a loader takes is for its rules. */
#include "tools/verify/block.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "tools/verify/pattern.h"

static bool whole(const cJSON *o, const char *key, int64_t *out)
{
    const cJSON *v = nb_json_find(o, key);
    if (!cJSON_IsNumber(v) || v->valuedouble != floor(v->valuedouble) || fabs(v->valuedouble) > 1e9) return false;
    *out = (int64_t)v->valuedouble;
    return true;
}

static bool truth(const cJSON *o, const char *key, bool *out)
{
    const cJSON *v = nb_json_find(o, key);
    if (!cJSON_IsBool(v)) return false;
    *out = cJSON_IsTrue(v);
    return true;
}

static const char *word(const cJSON *o, const char *key)
{
    return cJSON_GetStringValue(nb_json_find(o, key));
}

static void read_plain(nb_block *b)
{
    int64_t v;
    bool    awq = b->kind == NB_BLOCK_AWQ;
    b->has_bits = whole(b->json, "bits", &v) || (awq && whole(b->json, "w_bit", &v));
    if (b->has_bits) b->base.bits = v < 1 || v > 32 ? 0 : (int)v;
    b->has_group = whole(b->json, "group_size", &v) || (awq && whole(b->json, "q_group_size", &v));
    if (b->has_group) b->base.group = v < 0 ? 0 : v;
    b->base.quantized = true;
    b->base.sym = !awq;
    b->has_sym = truth(b->json, "sym", &b->base.sym);
    b->has_desc_act = truth(b->json, "desc_act", &b->base.desc_act);
    b->has_zero_point = truth(b->json, "zero_point", &b->zero_point);
    b->version = word(b->json, awq ? "version" : "checkpoint_format");
    if (!b->version) b->version = word(b->json, "format");
    b->v2 = b->version && !strcmp(b->version, "gptq_v2");
    truth(b->json, "lm_head", &b->lm_head);
    const cJSON *skip = nb_json_find(b->json, "modules_to_not_convert"),
                *only = nb_json_find(b->json, "modules_in_block_to_quantize");
    if (cJSON_IsArray(skip)) b->skip = skip;
    if (cJSON_IsArray(only) && only->child) b->only = only;
    const cJSON *dynamic = nb_json_find(b->json, "dynamic");
    if (cJSON_IsObject(dynamic) && dynamic->child) b->dynamic = dynamic;
}

static void read_group(nb_ct_group *g, const cJSON *group)
{
    int64_t      bits = 0, size = 0;
    const cJSON *w = nb_json_find(group, "weights"), *targets = nb_json_find(group, "targets");
    g->name = group->string;
    g->targets = cJSON_IsArray(targets) ? targets : NULL;
    g->scheme = (nb_scheme){.quantized = cJSON_IsObject(w), .sym = true};
    g->activations = nb_json_find(group, "input_activations") || nb_json_find(group, "output_activations");
    if (!g->scheme.quantized) return;
    const char *strategy = word(w, "strategy"), *type = word(w, "type");
    if (whole(w, "num_bits", &bits) && bits > 0 && bits <= 32) g->scheme.bits = (int)bits;
    if (whole(w, "group_size", &size) && size > 0) g->scheme.group = size;
    truth(w, "symmetric", &g->scheme.sym);
    truth(w, "dynamic", &g->dynamic);
    g->actorder = word(w, "actorder");
    if (strategy && !strcmp(strategy, "channel")) g->scheme.group = 0;
    g->other = (strategy && strcmp(strategy, "channel") && strcmp(strategy, "group")) || (type && strcmp(type, "int"));
}

static void read_compressed(nb_block *b, nb_findings *findings)
{
    const cJSON *groups = nb_json_find(b->json, "config_groups"), *skip = nb_json_find(b->json, "ignore");
    b->version = word(b->json, "format");
    if (cJSON_IsArray(skip)) b->skip = skip;
    for (const cJSON *g = cJSON_IsObject(groups) ? groups->child : NULL; g; g = g->next) {
        if (b->group_count == NB_CT_GROUPS) {
            nb_found(findings, NB_ERROR, NB_FOR_ALL, 0, "config", b->where, "use fewer config_groups",
                     "config_groups holds more than %d groups", NB_CT_GROUPS);
            break;
        }
        read_group(&b->groups[b->group_count++], g);
    }
    if (b->group_count == 0)
        nb_found(findings, NB_ERROR, NB_FOR_ALL, 0, "config", b->where, "write config_groups with targets and weights",
                 "config_groups is missing or empty");
}

void nb_block_read(nb_description *d, nb_findings *findings)
{
    nb_block    *b = &d->block;
    const cJSON *text = nb_json_find(d->config, "text_config");
    b->json = nb_json_find(d->config, "quantization_config");
    snprintf(b->where, sizeof b->where, "config.json: quantization_config");
    if (!b->json && cJSON_IsObject(text) && nb_json_find(text, "quantization_config")) {
        b->json = nb_json_find(text, "quantization_config");
        b->in_text = true;
        snprintf(b->where, sizeof b->where, "config.json: text_config.quantization_config");
    }
    if (!b->json && d->beside) {
        b->json = d->beside;
        snprintf(b->where, sizeof b->where, "%s", d->beside_name);
    }
    if (!b->json) return;
    if (!cJSON_IsObject(b->json)) {
        nb_found(findings, NB_ERROR, NB_FOR_ALL, 0, "config", b->where, "write an object", "is not an object");
        b->json = NULL;
        return;
    }
    const char *method = word(b->json, "quant_method");
    if (!method) method = nb_json_find(b->json, "w_bit") ? "awq" : "gptq"; /* the files beside config.json name none */
    snprintf(b->method, sizeof b->method, "%s", method);
    b->kind = !strcasecmp(method, "awq")                  ? NB_BLOCK_AWQ
              : !strcasecmp(method, "gptq")               ? NB_BLOCK_GPTQ
              : !strcasecmp(method, "compressed-tensors") ? NB_BLOCK_CT
                                                          : NB_BLOCK_OTHER;
    if (b->kind == NB_BLOCK_AWQ || b->kind == NB_BLOCK_GPTQ) read_plain(b);
    if (b->kind == NB_BLOCK_CT) read_compressed(b, findings);
    if (b->kind == NB_BLOCK_OTHER)
        nb_found(findings, NB_ERROR, NB_FOR_ALL, 0, "method", b->where, "quantize to awq, gptq or compressed-tensors",
                 "quant_method '%.30s' is none that verify knows", b->method);
    if ((b->kind == NB_BLOCK_AWQ || b->kind == NB_BLOCK_GPTQ) && (!b->has_bits || !b->has_group))
        nb_found(findings, NB_ERROR, NB_FOR_ALL, 0, "config", b->where,
                 "add it, with the value that the weights were made with", "%s is missing or no whole number",
                 b->has_bits ? "group_size" : "bits");
}

const char *nb_list_item(const cJSON *list, int i)
{
    for (const cJSON *item = list ? list->child : NULL; item; item = item->next) {
        if (cJSON_IsArray(item)) {
            for (const cJSON *inner = item->child; inner; inner = inner->next)
                if (cJSON_IsString(inner) && i-- == 0) return inner->valuestring;
        } else if (cJSON_IsString(item) && i-- == 0) {
            return item->valuestring;
        }
    }
    return NULL;
}

bool nb_block_names(const nb_block *b, const char *name, bool anywhere)
{
    const char *item;
    size_t      n = strlen(name);
    for (int i = 0; (item = nb_list_item(b->only, i)); i++) {
        size_t m = strlen(item);
        if (anywhere ? strstr(name, item) != NULL : n >= m && !strcmp(name + n - m, item)) return true;
    }
    return false;
}

nb_scheme nb_scheme_dynamic(const nb_block *b, const char *name, nb_scheme base, bool *unknown)
{
    for (const cJSON *rule = b->dynamic ? b->dynamic->child : NULL; rule; rule = rule->next) {
        const char *pattern = rule->string;
        bool        negative = !strncmp(pattern, "-:", 2);
        if (negative || !strncmp(pattern, "+:", 2)) pattern += 2;
        nb_pattern_answer match = nb_pattern_match(pattern, name);
        if (match == NB_PATTERN_UNKNOWN) *unknown = true;
        if (match != NB_PATTERN_YES) continue;
        int64_t v;
        if (negative) base.quantized = false;
        if (negative) return base;
        if (whole(rule, "bits", &v)) base.bits = v > 0 && v <= 32 ? (int)v : 0;
        if (whole(rule, "group_size", &v)) base.group = v < 0 ? 0 : v;
        truth(rule, "sym", &base.sym);
        truth(rule, "desc_act", &base.desc_act);
        return base;
    }
    return base;
}

/* compressed-tensors: a target is a class name, a module's name, or "re:" and a pattern.  Names are looked at first. */
static bool targeted(const nb_ct_group *g, const char *name, bool by_class, bool *unknown)
{
    const char *item;
    for (int i = 0; (item = nb_list_item(g->targets, i)); i++) {
        if (by_class && !strcmp(item, "Linear")) return true;
        if (by_class) continue;
        if (!strcmp(item, name)) return true;
        if (strncmp(item, "re:", 3)) continue;
        nb_pattern_answer match = nb_pattern_match(item + 3, name);
        if (match == NB_PATTERN_UNKNOWN) *unknown = true;
        if (match == NB_PATTERN_YES) return true;
    }
    return false;
}

bool nb_scheme_same(nb_scheme a, nb_scheme b)
{
    return a.quantized == b.quantized && a.bits == b.bits && a.group == b.group && a.sym == b.sym && a.desc_act == b.desc_act;
}

const nb_ct_group *nb_block_group(const nb_block *b, const char *name, bool linear, bool *unknown)
{
    for (int by_class = 0; by_class < (linear ? 2 : 1); by_class++)
        for (int i = 0; i < b->group_count; i++)
            if (targeted(&b->groups[i], name, by_class, unknown)) return &b->groups[i];
    return NULL;
}

nb_scheme nb_block_scheme(const nb_block *b, const nb_module *m, bool *unknown)
{
    nb_scheme          none = {0};
    char               spelling[NB_MODULE];
    const nb_ct_group *by_class = NULL;
    if (b->kind == NB_BLOCK_AWQ) return b->base;
    if (b->kind == NB_BLOCK_GPTQ) {
        nb_scheme plain = nb_scheme_dynamic(b, m->name, b->base, unknown);
        if (!nb_scheme_same(plain, b->base)) return plain;
        nb_module_name(spelling, m, NB_NAMES_NEW);
        return nb_scheme_dynamic(b, spelling, b->base, unknown);
    }
    for (int naming = NB_NAMES_OLD; b->kind == NB_BLOCK_CT && naming <= NB_NAMES_VLLM; naming++) {
        nb_module_name(spelling, m, (nb_naming)naming);
        for (int i = 0; i < b->group_count; i++)
            if (targeted(&b->groups[i], spelling, false, unknown)) return b->groups[i].scheme;
        if (!by_class && m->part != NB_PART_EMBED) by_class = nb_block_group(b, "", true, unknown);
    }
    return by_class ? by_class->scheme : none;
}
