/* target_sglang.c - SGLang's rules, read in its sources (2024 to 2026), where they differ from vLLM's.
 *
 * Its Qwen2-VL never quantizes the vision tower, whatever the config says, and its modules have the published names
 * (model.layers.N.self_attn.qkv_proj), which the entries of a skip list are looked for in as they are: AWQ's as substrings of
 * the fused name, compressed-tensors' as whole names or patterns of each part. */
#include <stdio.h>
#include <string.h>

#include "tools/verify/pattern.h"
#include "tools/verify/verify.h"

static bool ct_listed(const nb_block *b, const char *name)
{
    const char *item;
    for (int i = 0; (item = nb_list_item(b->skip, i)); i++)
        if (!strncmp(item, "re:", 3) ? nb_pattern_match(item + 3, name) == NB_PATTERN_YES : !strcmp(item, name)) return true;
    return false;
}

static bool awq_listed(const nb_block *b, const nb_module *m)
{
    const char *item;
    char        name[NB_MODULE];
    snprintf(name, sizeof name, "%s", m->name);
    char *dot = strrchr(name, '.');
    if (dot && m->part == NB_PART_DECODER && m->index < 3) snprintf(dot, (size_t)(name + sizeof name - dot), ".qkv_proj");
    if (dot && m->part == NB_PART_DECODER && (m->index == 4 || m->index == 5))
        snprintf(dot, (size_t)(name + sizeof name - dot), ".gate_up_proj");
    for (int i = 0; (item = nb_list_item(b->skip, i)); i++)
        if (strstr(name, item)) return true;
    return false;
}

static void check_modules(const nb_rules *r)
{
    const nb_block *b = &r->d->block;
    for (size_t i = 0; i < r->d->module_count; i++) {
        const nb_module *m = &r->d->modules[i];
        bool             stored = m->stored >= NB_STORED_WORDS, unknown = false, builds = false;
        if (m->stored == NB_STORED_NOT) continue;
        if (m->part == NB_PART_VISION && stored) {
            nb_found(r->out, NB_ERROR, NB_FOR_SGLANG, 0, "vision-quantized", m->name, "keep the tower in float",
                     "SGLang builds the tower of a Qwen2-VL in float");
            continue;
        }
        if (m->part != NB_PART_DECODER && stored && b->kind == NB_BLOCK_CT)
            nb_found(r->out, NB_ERROR, NB_FOR_SGLANG, 0, "vocabulary-quantized", m->name, "keep embedding and head in float",
                     "SGLang builds embedding and head in float");
        if (m->part != NB_PART_DECODER) continue;
        if (b->kind == NB_BLOCK_AWQ) builds = !awq_listed(b, m);
        if (b->kind == NB_BLOCK_GPTQ) builds = nb_scheme_dynamic(b, m->name, b->base, &unknown).quantized;
        if (b->kind == NB_BLOCK_CT) builds = !ct_listed(b, m->name) && nb_block_group(b, m->name, true, &unknown);
        if (builds != stored)
            nb_found(r->out, NB_ERROR, NB_FOR_SGLANG, 0, "skip-list", m->name, "let the config say what the file holds",
                     builds ? "is float in the file, but SGLang builds it quantized"
                            : "is quantized in the file, but SGLang builds it in float");
    }
}

static void check_block(const nb_rules *r)
{
    const nb_block *b = &r->d->block;
    int64_t         g = b->base.group;
    bool            half = !strcmp(r->d->dtype, "float16"), marlin_group = g == 0 || g == 32 || g == 64 || g == 128;
    if (b->kind == NB_BLOCK_AWQ) {
        if (b->base.bits != 4)
            nb_found(r->out, NB_ERROR, NB_FOR_SGLANG, 0, "bits", b->where, "AWQ holds 4 bits: use gptq for 8", "%d bits",
                     b->base.bits);
        if (b->version && strcasecmp(b->version, "gemm"))
            nb_found(r->out, NB_ERROR, NB_FOR_SGLANG, 0, "awq-version", b->where, "write the gemm version",
                     "version '%s' is not gemm", b->version);
        if (!b->has_zero_point)
            nb_found(r->out, NB_ERROR, NB_FOR_SGLANG, 0, "awq-keys", b->where, "add \"zero_point\": true",
                     "zero_point is missing");
        if (g == 0)
            nb_found(r->out, NB_ERROR, NB_FOR_SGLANG, 0, "group-size", b->where, "quantize with a group size",
                     "AWQ without groups has no reliable loader");
        if ((!marlin_group || !b->zero_point) && !half)
            nb_found(r->out, NB_ERROR, NB_FOR_SGLANG, 0, "awq-dtype", "config.json: torch_dtype", "set it to float16",
                     "is '%s', and the plain AWQ kernel that these weights need takes float16 only", r->d->dtype);
    }
    if (b->kind == NB_BLOCK_GPTQ) {
        nb_serving_gptq(r, NB_FOR_SGLANG);
        bool fast = b->base.sym && (b->base.bits == 4 || b->base.bits == 8) && marlin_group && b->has_sym;
        if (!fast)
            nb_found(r->out, half ? NB_WARNING : NB_ERROR, NB_FOR_SGLANG, 0, b->base.sym ? "group-size" : "gptq-sym", b->where,
                     half ? "quantize symmetrically to 4 or 8 bits in groups of 32, 64 or 128 for the fast kernel"
                          : "set torch_dtype to float16",
                     "is not what Marlin takes (%d bits, %s): the plain GPTQ kernel, float16 only", b->base.bits,
                     b->base.sym ? "symmetric" : "asymmetric");
        if (b->base.bits != 2 && b->base.bits != 3 && b->base.bits != 4 && b->base.bits != 8)
            nb_found(r->out, NB_ERROR, NB_FOR_SGLANG, 0, "bits", b->where, "quantize to 4 or 8 bits",
                     "%d bits; 2, 3, 4 and 8 are taken", b->base.bits);
        if (b->version && strcmp(b->version, "gptq") && !b->v2)
            nb_found(r->out, NB_ERROR, NB_FOR_SGLANG, 0, "gptq-format", b->where, "write checkpoint_format gptq",
                     "checkpoint_format '%s' is not gptq", b->version);
    }
    for (int i = 0; b->kind == NB_BLOCK_CT && i < b->group_count; i++) {
        const nb_ct_group *c = &b->groups[i];
        bool               taken = c->scheme.quantized && !c->activations && !c->dynamic && !c->other &&
                     (c->scheme.bits == 4 || c->scheme.bits == 8) && (c->scheme.sym || c->scheme.bits == 4);
        if (c->scheme.quantized && !taken)
            nb_found(r->out, NB_ERROR, NB_FOR_SGLANG, 0, "ct-scheme", b->where,
                     "write pack-quantized weights of 4 or 8 bits, 8 bits symmetric",
                     "config_groups.%.60s is not static integer weights of 4 or 8 bits by group or channel alone", c->name);
    }
    if (b->kind == NB_BLOCK_CT && (!b->version || strcmp(b->version, "pack-quantized")))
        nb_found(r->out, NB_ERROR, NB_FOR_SGLANG, 0, "ct-format", b->where, "write it as pack-quantized",
                 "format '%s' is not pack-quantized", b->version ? b->version : "");
}

nb_status nb_rules_sglang(const nb_rules *r, nb_error *err)
{
    nb_block_kind kind = r->d->block.kind;
    nb_serving_names(r, NB_FOR_SGLANG);
    if (kind == NB_BLOCK_AWQ || kind == NB_BLOCK_GPTQ || kind == NB_BLOCK_CT) {
        check_block(r);
        check_modules(r);
        NB_TRY(nb_serving_fused(r, NB_FOR_SGLANG, err));
    }
    nb_serving_degrees(r, NB_FOR_SGLANG);
    return NB_OK;
}
