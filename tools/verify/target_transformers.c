/* target_transformers.c - transformers with GPTQModel, AutoAWQ or compressed-tensors behind it.
 *
 * Since 4.52 its modules are model.language_model.layers.N.* and model.visual.*; files with the published names are renamed while
 * they are read, but the entries of a skip list are not.  How they are matched:
 *
 *     AWQ, 5.x   from the start of the name up to a dot or the end (as a pattern), or at its end
 *     AWQ, 4.x   anywhere in the name; the names are the published ones before 4.52
 *     compressed-tensors   the whole name, or "re:" and a pattern from its start
 *     GPTQ       no list: optimum quantizes what stands under the decoder layers and nothing else, and of that what
 *                modules_in_block_to_quantize names by its end
 */
#include <stdio.h>
#include <string.h>

#include "tools/verify/pattern.h"
#include "tools/verify/verify.h"

static const char LIST[] =
    "list the vision tower in both spellings: \"visual\" and \"model.visual\" (compressed-tensors: \"re:.*visual.*\")";

static bool starts_as(const char *entry, const char *name)
{
    char bounded[600];
    if (strlen(entry) > 500) return false;
    snprintf(bounded, sizeof bounded, "(?:%s)(?:\\.|$)", entry);
    return nb_pattern_match(bounded, name) == NB_PATTERN_YES;
}

static bool ends_as(const char *entry, const char *name)
{
    size_t n = strlen(entry), m = strlen(name);
    return m >= n && !strcmp(name + m - n, entry);
}

typedef enum { RULE_5, RULE_4, RULE_OLD, RULES } version; /* 5.x; 4.52 to 4.x; before 4.52 */

static bool skipped(const nb_block *b, const nb_module *m, version v)
{
    const char *item;
    char        name[NB_MODULE];
    nb_module_name(name, m, v == RULE_OLD ? NB_NAMES_OLD : NB_NAMES_NEW);
    for (int i = 0; (item = nb_list_item(b->skip, i)); i++) {
        if (b->kind == NB_BLOCK_CT) {
            if (!strncmp(item, "re:", 3) ? nb_pattern_match(item + 3, name) == NB_PATTERN_YES : !strcmp(item, name))
                return true;
        } else if (v == RULE_5 ? starts_as(item, name) || ends_as(item, name) : strstr(name, item) != NULL) {
            return true;
        }
    }
    return false;
}

static bool builds_quantized(const nb_block *b, const nb_module *m, version v)
{
    bool unknown = false;
    char name[NB_MODULE];
    nb_module_name(name, m, v == RULE_OLD ? NB_NAMES_OLD : NB_NAMES_NEW);
    if (b->kind == NB_BLOCK_AWQ) return m->part != NB_PART_HEAD && m->part != NB_PART_EMBED && !skipped(b, m, v);
    if (b->kind == NB_BLOCK_CT) return !skipped(b, m, v) && nb_block_group(b, name, m->part != NB_PART_EMBED, &unknown);
    if (b->kind == NB_BLOCK_GPTQ)
        return m->part == NB_PART_DECODER
                   ? (!b->only || nb_block_names(b, name, false)) && nb_scheme_dynamic(b, name, b->base, &unknown).quantized
                   : m->part == NB_PART_HEAD && b->lm_head;
    return false;
}

static void check_lists(const nb_rules *r)
{
    static const char *const versions[RULES] = {"transformers 5", "transformers 4.52 and later", "transformers before 4.52"};
    const nb_description    *d = r->d;
    for (int v = 0; v < RULES; v++)
        for (size_t i = 0; i < d->module_count; i++) {
            const nb_module *m = &d->modules[i];
            bool             builds = builds_quantized(&d->block, m, (version)v), stored = m->stored >= NB_STORED_WORDS;
            if (m->stored == NB_STORED_NOT || builds == stored) continue;
            nb_found(r->out, v == RULE_5 ? NB_ERROR : NB_WARNING, NB_FOR_TRANSFORMERS, 0,
                     v == RULE_5   ? "skip-list"
                     : v == RULE_4 ? "skip-list-4"
                                   : "skip-list-old",
                     m->name, builds ? LIST : "take it out of the list, or store it in float",
                     builds ? "is float in the file, but %s builds it quantized"
                            : "is quantized in the file, but %s builds it in float",
                     versions[v]);
        }
}

static void check_gptq(const nb_rules *r)
{
    static const int64_t sizes[] = {0, 16, 32, 64, 128, 256, 512, 1024};
    const nb_block      *b = &r->d->block;
    const cJSON         *damp = nb_json_find(b->json, "damp_percent"), *meta = nb_json_find(b->json, "meta");
    const cJSON         *writer = cJSON_IsObject(meta) ? nb_json_find(meta, "quantizer") : NULL;
    bool                 size = false, gptqmodel = false;
    for (size_t i = 0; i < NB_COUNT(sizes); i++) size = size || b->base.group == sizes[i];
    if (cJSON_IsArray(writer)) writer = writer->child;
    gptqmodel = cJSON_IsString(writer) && !strncmp(writer->valuestring, "gptqmodel", 9);
    if (b->base.bits != 2 && b->base.bits != 3 && b->base.bits != 4 && b->base.bits != 8)
        nb_found(r->out, NB_ERROR, NB_FOR_TRANSFORMERS, 0, "bits", b->where, "quantize to 4 or 8 bits",
                 "%d bits; 2, 3, 4 and 8 are taken", b->base.bits);
    if (!size)
        nb_found(r->out, NB_ERROR, NB_FOR_TRANSFORMERS, 0, "group-size", b->where,
                 "quantize with a power of two from 16 to 1024, or whole rows", "GPTQModel takes no groups of %lld",
                 (long long)b->base.group);
    if (cJSON_IsNumber(damp) && !(damp->valuedouble > 0 && damp->valuedouble < 1))
        nb_found(r->out, NB_ERROR, NB_FOR_TRANSFORMERS, 0, "gptq-keys", b->where, "write a number between 0 and 1",
                 "damp_percent %g is refused", damp->valuedouble);
    if (!b->base.sym && !b->v2 && !gptqmodel)
        nb_found(r->out, NB_ERROR, NB_FOR_TRANSFORMERS, 0, "gptq-sym", b->where, "write asymmetric weights as gptq_v2",
                 "is asymmetric in the v1 form, which GPTQModel takes only from itself");
    if (!b->base.sym && b->v2)
        nb_found(r->out, NB_WARNING, NB_FOR_TRANSFORMERS, 0, "gptq-sym", b->where,
                 "quantize symmetrically for transformers 4 with auto-gptq",
                 "is asymmetric: GPTQModel reads it, auto-gptq does not");
    for (size_t i = 0; i < r->d->module_count; i++) {
        const nb_module *m = &r->d->modules[i];
        if (m->stored != NB_STORED_WORDS) continue;
        if (m->n % 32 || m->k % 32)
            nb_found(r->out, NB_ERROR, NB_FOR_TRANSFORMERS, 0, "gptq-size", m->name, "keep this layer in float",
                     "%llu x %llu are no multiples of 32", (unsigned long long)m->n, (unsigned long long)m->k);
        if (m->g_idx_read && !m->g_idx_plain && !m->scheme.desc_act)
            nb_found(r->out, NB_ERROR, NB_FOR_TRANSFORMERS, 0, "g-idx", m->name,
                     "set desc_act to true, or write the rows in order of their groups",
                     "g_idx is not in order although desc_act is false: fast kernels do not look at it");
    }
}

static void check_awq(const nb_rules *r)
{
    const nb_block *b = &r->d->block;
    if (b->base.bits != 4)
        nb_found(r->out, NB_ERROR, NB_FOR_TRANSFORMERS, 0, "bits", b->where, "AWQ holds 4 bits: use gptq for 8", "%d bits",
                 b->base.bits);
    if (b->version && strcasecmp(b->version, "gemm"))
        nb_found(r->out, strcasecmp(b->version, "gemv") ? NB_ERROR : NB_WARNING, NB_FOR_TRANSFORMERS, 0, "awq-version",
                 b->where, "write the gemm version", "version '%s' is not gemm", b->version);
    if (b->base.group == 0)
        nb_found(r->out, NB_ERROR, NB_FOR_TRANSFORMERS, 0, "group-size", b->where, "quantize with a group size",
                 "AWQ without groups has no reliable loader");
    for (size_t i = 0; i < r->d->module_count; i++) {
        const nb_module *m = &r->d->modules[i];
        if (m->stored == NB_STORED_WORDS && b->base.group && (m->k % (uint64_t)b->base.group || m->n % 8))
            nb_found(r->out, NB_ERROR, NB_FOR_TRANSFORMERS, 0, "awq-size", m->name, "keep this layer in float",
                     "%llu inputs are no whole groups, or %llu outputs no octets", (unsigned long long)m->k,
                     (unsigned long long)m->n);
    }
}

static void check_ct(const nb_rules *r)
{
    const nb_block *b = &r->d->block;
    if (!b->version || strcmp(b->version, "pack-quantized"))
        nb_found(r->out, NB_ERROR, NB_FOR_TRANSFORMERS, 0, "ct-format", b->where, "write it as pack-quantized",
                 "format '%s' does not say how the weights are packed", b->version ? b->version : "");
    for (int i = 0; i < b->group_count; i++) {
        const char *order = b->groups[i].actorder;
        if (order && (!strcmp(order, "group") || !strcmp(order, "dynamic")))
            nb_found(r->out, NB_ERROR, NB_FOR_TRANSFORMERS, 0, "ct-actorder", b->where, "use actorder static, or leave it out",
                     "actorder '%s' is refused by compressed-tensors 0.19", order);
        if (!b->groups[i].scheme.sym)
            nb_found(r->out, NB_WARNING, NB_FOR_TRANSFORMERS, 0, "ct-asymmetric", b->where,
                     "quantize with --sym for transformers; vLLM reads it as it is",
                     "is asymmetric: of the versions that were tried, 5.17 loads it packed, 4.57 and 5.24 do not");
    }
    for (size_t i = 0; i < r->d->module_count; i++) {
        const nb_module *m = &r->d->modules[i];
        if (m->stored == NB_STORED_PACKED && !m->tensor[NB_T_SHAPE])
            nb_found(r->out, NB_ERROR, NB_FOR_TRANSFORMERS, 0, "ct-shape", m->name, "write weight_shape",
                     "has no weight_shape, which decompression needs");
        if (m->stored == NB_STORED_PACKED && m->part == NB_PART_EMBED)
            nb_found(r->out, NB_WARNING, NB_FOR_TRANSFORMERS, 0, "vocabulary-quantized", m->name, "keep it in float for transformers 5",
                     "is quantized: transformers 5 cannot make such an embedding, 4.57 with compressed-tensors 0.19 can");
    }
}

nb_status nb_rules_transformers(const nb_rules *r, nb_error *err)
{
    (void)err;
    const nb_description *d = r->d;
    if (d->names_other)
        nb_found(r->out, NB_ERROR, NB_FOR_TRANSFORMERS, 0, "names", "language_model.*",
                 "write the checkpoint with one of the two published layouts of names",
                 "is a spelling that transformers does not map");
    if (d->names_new)
        nb_found(r->out, NB_WARNING, NB_FOR_TRANSFORMERS, 0, "names", "model.language_model.*",
                 "write the published names (model.layers.*, visual.*)",
                 "is the spelling of 4.52 and later; older versions cannot map it back");
    if (d->names_old && d->block.kind != NB_BLOCK_NONE && d->block.kind != NB_BLOCK_CT)
        nb_found(r->out, NB_NOTE, NB_FOR_TRANSFORMERS, 0, "names", "model.layers.*",
                 "load through transformers, not GPTQModel.load",
                 "is the published spelling: transformers maps it, GPTQModel's own load does not");
    for (size_t i = 0; i < nb_checkpoint_shards(d->checkpoint); i++) {
        const nb_safetensors *file = nb_checkpoint_shard(d->checkpoint, i);
        const char *format = nb_safetensors_metadata(file, "format"), *slash = strrchr(nb_safetensors_path(file), '/');
        if (!format || strcmp(format, "pt"))
            nb_found(r->out, NB_ERROR, NB_FOR_TRANSFORMERS, 0, "metadata", slash ? slash + 1 : nb_safetensors_path(file),
                     "write __metadata__ {\"format\": \"pt\"}", "its __metadata__ does not say format pt");
    }
    if (d->block.kind == NB_BLOCK_AWQ) check_awq(r);
    if (d->block.kind == NB_BLOCK_GPTQ) check_gptq(r);
    if (d->block.kind == NB_BLOCK_CT) check_ct(r);
    if (d->block.kind == NB_BLOCK_AWQ || d->block.kind == NB_BLOCK_GPTQ || d->block.kind == NB_BLOCK_CT) check_lists(r);
    return NB_OK;
}
