/* target_vllm.c - vLLM's rules, read in its sources (2024 to 2026).
 *
 * Names: "model.language_model." becomes "language_model.model.", "model.visual." becomes "visual.", "lm_head." becomes
 * "language_model.lm_head.", and any other "model." becomes "language_model.model.".  The entries of skip lists go through the
 * same map, and are then looked for in vLLM's own module names, where q k v are one qkv_proj and gate up one gate_up_proj, and
 * where all parts must agree:
 *
 *     AWQ                  an entry skips a module when it is a substring of its name; an empty list is filled from the file
 *     GPTQ                 modules_in_block_to_quantize names what is quantized, by substring; without it what is float in the file
 *                          stays float; patterns of `dynamic` see fused names
 *     compressed-tensors   an entry is a whole name or "re:" and a pattern from its start; embedding and head are quantized (in the newest
 *                          versions) when a target names them, as neither is a "Linear"
 *
 * A float module that vLLM builds quantized is the KeyError that users report, and so is the opposite. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/verify/pattern.h"
#include "tools/verify/verify.h"

static const char LIST[] =
    "list the vision tower in both spellings: \"visual\" and \"model.visual\" (compressed-tensors: \"re:.*visual.*\")";

/* The map, applied to an entry of a list as to a tensor's name: prefixes in this order, each to what the last one made. */
static void mapped(char *out, size_t size, const char *entry)
{
    static const char *const map[][2] = {{"model.language_model.", "language_model.model."},
                                         {"model.visual.", "visual."},
                                         {"lm_head.", "language_model.lm_head."},
                                         {"model.", "language_model.model."}};
    snprintf(out, size, "%s", entry);
    for (size_t i = 0; i < NB_COUNT(map); i++) {
        size_t n = strlen(map[i][0]);
        if (strncmp(out, map[i][0], n)) continue;
        char *rest = nb_strdup(out + n);
        snprintf(out, size, "%s%s", map[i][1], rest ? rest : "");
        free(rest);
    }
}

/* Does an entry of the list take this module's name? */
static bool listed(const nb_block *b, const char *name)
{
    const char *item;
    char        entry[512];
    for (int i = 0; (item = nb_list_item(b->skip, i)); i++) {
        mapped(entry, sizeof entry, item);
        if (b->kind == NB_BLOCK_AWQ) {
            if (strstr(name, entry)) return true;
        } else if (!strncmp(entry, "re:", 3)) {
            if (nb_pattern_match(entry + 3, name) == NB_PATTERN_YES) return true;
        } else if (!strcmp(entry, name)) {
            return true;
        }
    }
    return false;
}

/* "...q_proj" to "...qkv_proj", for patterns that see fused names. */
static void fused_name(char out[NB_MODULE], const nb_module *m)
{
    nb_module_name(out, m, NB_NAMES_VLLM);
    char *dot = strrchr(out, '.');
    if (m->part != NB_PART_DECODER || !dot) return;
    if (m->index < 3) snprintf(dot, (size_t)(out + NB_MODULE - dot), ".qkv_proj");
    if (m->index == 4 || m->index == 5) snprintf(dot, (size_t)(out + NB_MODULE - dot), ".gate_up_proj");
}

static bool builds_quantized(const nb_description *d, const nb_module *m)
{
    const nb_block *b = &d->block;
    bool            unknown = false, stored = m->stored >= NB_STORED_WORDS;
    char            name[NB_MODULE], fused[NB_MODULE];
    nb_module_name(name, m, NB_NAMES_VLLM);
    fused_name(fused, m);
    bool vocabulary = m->part == NB_PART_HEAD || m->part == NB_PART_EMBED;
    if (vocabulary && b->kind != NB_BLOCK_CT) return m->part == NB_PART_HEAD && b->lm_head;
    if (b->kind == NB_BLOCK_AWQ) return b->skip && b->skip->child ? !listed(b, name) : stored;
    if (b->kind == NB_BLOCK_GPTQ && b->only && !nb_block_names(b, name, true)) return false;
    if (b->kind == NB_BLOCK_GPTQ) return (stored || b->only) && nb_scheme_dynamic(b, fused, b->base, &unknown).quantized;
    if (b->kind == NB_BLOCK_CT) return !listed(b, name) && nb_block_group(b, name, !vocabulary, &unknown);
    return false;
}

static void check_lists(const nb_rules *r)
{
    const nb_description *d = r->d;
    for (size_t i = 0; i < d->module_count; i++) {
        const nb_module *m = &d->modules[i];
        bool             builds = builds_quantized(d, m), stored = m->stored >= NB_STORED_WORDS;
        if (m->stored == NB_STORED_NOT || builds == stored) continue;
        if (builds)
            nb_found(r->out, NB_ERROR, NB_FOR_VLLM, 0, "skip-list", m->name, LIST,
                     "is float in the file, but vLLM builds it quantized (KeyError)");
        else
            nb_found(r->out, NB_ERROR, NB_FOR_VLLM, 0, "skip-list", m->name, "take it out of the list, or store it in float",
                     "is quantized in the file, but the config makes vLLM build it in float (KeyError)");
    }
    if (d->block.kind == NB_BLOCK_AWQ && !(d->block.skip && d->block.skip->child))
        nb_found(r->out, NB_WARNING, NB_FOR_VLLM, 0, "skip-list", d->block.where, LIST,
                 "modules_to_not_convert is empty: older versions do not look into the file and quantize the vision "
                 "tower");
}

/* A fused layer's parts must agree about the list (the file's own agreement is nb_serving_fused). */
static void check_parts(const nb_rules *r)
{
    const nb_description *d = r->d;
    for (size_t i = 0; i < d->module_count; i++) {
        const nb_module *m = &d->modules[i], *first = m - (m->index < 3 ? m->index : m->index == 5 ? 1 : 0);
        char             one[NB_MODULE], two[NB_MODULE];
        if (m->part != NB_PART_DECODER || first == m || d->block.kind == NB_BLOCK_GPTQ || d->block.kind == NB_BLOCK_NONE)
            continue;
        nb_module_name(one, first, NB_NAMES_VLLM);
        nb_module_name(two, m, NB_NAMES_VLLM);
        if (listed(&d->block, one) != listed(&d->block, two))
            nb_found(r->out, NB_ERROR, NB_FOR_VLLM, 0, "fused", m->name, "list all parts of a fused layer, or none",
                     "is %s the skip list, %s is not alike, and vLLM fuses them", listed(&d->block, two) ? "on" : "not on",
                     first->name);
    }
}

static void check_awq(const nb_rules *r)
{
    const nb_block *b = &r->d->block;
    nb_findings    *out = r->out;
    if (b->base.bits != 4)
        nb_found(out, NB_ERROR, NB_FOR_VLLM, 0, "bits", b->where, "AWQ holds 4 bits: use gptq for 8", "%d bits", b->base.bits);
    if (b->version && strcasecmp(b->version, "gemm"))
        nb_found(out, NB_ERROR, NB_FOR_VLLM, 0, "awq-version", b->where, "write the gemm version", "version '%s' is not gemm",
                 b->version);
    if (!b->has_zero_point)
        nb_found(out, NB_ERROR, NB_FOR_VLLM, 0, "awq-keys", b->where, "add \"zero_point\": true",
                 "zero_point is missing, and vLLM requires it");
    int64_t g = b->base.group;
    bool    marlin = (g == 0 || g == 32 || g == 64 || g == 128) && b->zero_point, half = !strcmp(r->d->dtype, "float16");
    if (g == 0)
        nb_found(out, NB_ERROR, NB_FOR_VLLM, 0, "group-size", b->where, "quantize with a group size",
                 "AWQ without groups has no reliable loader");
    else if (!marlin)
        nb_found(out, half ? NB_WARNING : NB_ERROR, NB_FOR_VLLM, 0, "group-size", b->where,
                 half ? "quantize with groups of 32, 64 or 128 for the fast kernel"
                      : "set torch_dtype to float16, or quantize with groups of 128",
                 b->zero_point
                     ? "groups of %lld are none that Marlin takes: the plain AWQ kernel, float16 only"
                     : "zero_point is false (groups of %lld), which Marlin does not take: the plain AWQ kernel, float16 only",
                 (long long)g);
    if (marlin && !half)
        nb_found(out, NB_WARNING, NB_FOR_VLLM, 0, "awq-dtype", "config.json: torch_dtype", "set it to float16",
                 "is '%s': the plain AWQ kernel and older versions take float16 only", r->d->dtype);
}

static void check_gptq(const nb_rules *r)
{
    const nb_block   *b = &r->d->block;
    static const char SYM[] = "quantize with --sym, or to awq or compressed-tensors, which may be asymmetric";
    nb_serving_gptq(r, NB_FOR_VLLM);
    if (!b->base.sym)
        nb_found(r->out, NB_ERROR, NB_FOR_VLLM, 0, "gptq-sym", b->where, SYM,
                 "is asymmetric: current vLLM takes symmetric GPTQ only");
    for (size_t i = 0; i < r->d->module_count; i++) {
        const nb_module *m = &r->d->modules[i];
        int64_t          g = m->scheme.group;
        if (m->stored != NB_STORED_WORDS) continue;
        if (!m->scheme.sym && b->base.sym)
            nb_found(r->out, NB_ERROR, NB_FOR_VLLM, 0, "gptq-sym", m->name, SYM, "is asymmetric by a dynamic pattern");
        if (m->scheme.bits != 4 && m->scheme.bits != 8)
            nb_found(r->out, NB_ERROR, NB_FOR_VLLM, 0, "bits", m->name, "quantize to 4 or 8 bits",
                     "has %d bits; 4 and 8 are taken", m->scheme.bits);
        if (g != 0 && g != 32 && g != 64 && g != 128)
            nb_found(r->out, NB_ERROR, NB_FOR_VLLM, 0, "group-size", m->name,
                     "quantize with groups of 32, 64, 128 or whole rows", "groups of %lld are not taken", (long long)g);
        if (m->part == NB_PART_VISION)
            nb_found(r->out, NB_ERROR, NB_FOR_VLLM, 0, "vision-quantized", m->name,
                     "keep the tower in float, or use compressed-tensors", "vLLM builds the tower of a GPTQ Qwen2-VL in float");
    }
    if (b->version && strcmp(b->version, "gptq") && !b->v2)
        nb_found(r->out, NB_ERROR, NB_FOR_VLLM, 0, "gptq-format", b->where, "write checkpoint_format gptq",
                 "checkpoint_format '%s' is not gptq", b->version);
}

static void check_ct(const nb_rules *r)
{
    const nb_block   *b = &r->d->block;
    static const char PACK[] = "write it as pack-quantized weights of 4 or 8 bits";
    if (!b->version || strcmp(b->version, "pack-quantized"))
        nb_found(r->out, NB_ERROR, NB_FOR_VLLM, 0, "ct-format", b->where, PACK, "format '%s' is not pack-quantized",
                 b->version ? b->version : "");
    for (int i = 0; i < b->group_count; i++) {
        const nb_ct_group *g = &b->groups[i];
        int64_t            size = g->scheme.group;
        char               where[160];
        snprintf(where, sizeof where, "%s.config_groups.%.60s", b->where, g->name);
        if (!g->scheme.quantized) continue;
        if (g->activations || g->dynamic || g->other)
            nb_found(r->out, NB_ERROR, NB_FOR_VLLM, 0, "ct-scheme", where, PACK,
                     "is not static integer weights by group or channel alone");
        if (g->scheme.bits != 4 && g->scheme.bits != 8)
            nb_found(r->out, NB_ERROR, NB_FOR_VLLM, 0, "bits", where, PACK, "has %d bits; 4 and 8 are taken", g->scheme.bits);
        if (g->scheme.bits == 8 && !g->scheme.sym)
            nb_found(r->out, NB_ERROR, NB_FOR_VLLM, 0, "ct-sym", where, "quantize 8 bits symmetrically",
                     "is asymmetric at 8 bits, which Marlin lacks");
        if (size != 0 && size != 32 && size != 64 && size != 128)
            nb_found(r->out, NB_ERROR, NB_FOR_VLLM, 0, "group-size", where, "quantize with groups of 32, 64, 128 or whole rows",
                     "groups of %lld are not taken", (long long)size);
    }
    for (size_t i = 0; i < r->d->module_count; i++) {
        const nb_module *m = &r->d->modules[i];
        bool             unknown = false;
        char             name[NB_MODULE];
        if (m->stored != NB_STORED_PACKED) continue;
        nb_module_name(name, m, NB_NAMES_VLLM);
        const nb_ct_group *g = nb_block_group(b, name, m->part < NB_PART_EMBED, &unknown);
        bool               ordered = g && g->actorder && (!strcmp(g->actorder, "group") || !strcmp(g->actorder, "dynamic"));
        if (ordered != (m->tensor[NB_T_CT_G_IDX] != NULL))
            nb_found(r->out, NB_ERROR, NB_FOR_VLLM, 0, "ct-actorder", m->name, "let actorder and weight_g_idx agree",
                     ordered ? "has no weight_g_idx, which actorder '%s' needs"
                             : "has a weight_g_idx that actorder '%s' does not announce",
                     g && g->actorder ? g->actorder : "none");
        if (m->part >= NB_PART_EMBED)
            nb_found(r->out, NB_WARNING, NB_FOR_VLLM, 0, "vocabulary-quantized", m->name, "keep it in float for older versions",
                     "is quantized, which only the newest versions read");
        if (!m->tensor[NB_T_SHAPE])
            nb_found(r->out, NB_WARNING, NB_FOR_VLLM, 0, "ct-shape", m->name, "write weight_shape", "has no weight_shape");
    }
}

nb_status nb_rules_vllm(const nb_rules *r, nb_error *err)
{
    nb_block_kind kind = r->d->block.kind;
    nb_serving_names(r, NB_FOR_VLLM);
    if (kind == NB_BLOCK_AWQ) check_awq(r);
    if (kind == NB_BLOCK_GPTQ) check_gptq(r);
    if (kind == NB_BLOCK_CT) check_ct(r);
    if (kind == NB_BLOCK_AWQ || kind == NB_BLOCK_GPTQ || kind == NB_BLOCK_CT) {
        check_lists(r);
        check_parts(r);
        NB_TRY(nb_serving_fused(r, NB_FOR_VLLM, err));
    }
    nb_serving_degrees(r, NB_FOR_VLLM);
    return NB_OK;
}
