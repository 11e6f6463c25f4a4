/* serving.c - what vLLM and SGLang share: fused layers, the split over ranks, the tiles of the Marlin kernels, GPTQ's flags.
 *
 * With t ranks, q k v and gate up are split along their outputs and o and down along their inputs.  A rank must get whole heads,
 * whole words and whole groups; the fast (Marlin) kernels further want 64 | n and 128 | k of a rank's share and a group of 32, 64,
 * 128 or the whole row, and without that a slower kernel is used where there is one. */
#include <stdlib.h>
#include <string.h>

#include "tools/verify/verify.h"

static const char DEGREE[] = "use fewer ranks, or quantize with a smaller --group-size (inspect lists the degrees)";

/* ---- names ------------------------------------------------------------------------------------------------------------- */

void nb_serving_names(const nb_rules *r, nb_target target)
{
    static const char RENAME[] = "write the checkpoint with one of the two published layouts of names";
    if (r->d->names_other && target != NB_FOR_VLLM)
        nb_found(r->out, NB_ERROR, target, 0, "names", "language_model.*", RENAME,
                 "is a spelling that the loader does not map");
    if (r->d->names_new && target == NB_FOR_SGLANG)
        nb_found(r->out, NB_WARNING, target, 0, "names", "model.language_model.*",
                 "write the published names (model.layers.*, visual.*)",
                 "is the spelling of transformers 4.52 and later: SGLang versions whose Qwen2-VL maps no names stop at it");
    if ((r->d->names_old && (r->d->names_new || r->d->names_other)))
        nb_found(r->out, NB_WARNING, target, 0, "names", "model.*", RENAME, "two layouts of names are mixed");
}

/* ---- fused layers ------------------------------------------------------------------------------------------------------ */

static const nb_module *member(const nb_rules *r, int layer, int index)
{
    return &r->d->modules[layer * 7 + index]; /* describe.c lists the decoder first */
}

/* Two orders of inputs: a fused layer has room for one. */
static nb_status same_order(bool *same, const nb_module *a, const nb_module *b, nb_error *err)
{
    *same = true;
    if (!a->g_idx_read || !b->g_idx_read || (a->g_idx_plain && b->g_idx_plain)) return NB_OK;
    nb_tensor_role role = a->tensor[NB_T_G_IDX] ? NB_T_G_IDX : NB_T_CT_G_IDX;
    void          *one, *two;
    if (!a->tensor[role] || !b->tensor[role] || a->k != b->k) return NB_OK;
    NB_TRY(nb_entry_read(a->tensor[role], &one, err));
    nb_status status = nb_entry_read(b->tensor[role], &two, err);
    if (status == NB_OK) {
        *same = memcmp(one, two, a->k * sizeof(int32_t)) == 0;
        free(two);
    }
    free(one);
    return status;
}

nb_status nb_serving_fused(const nb_rules *r, nb_target target, nb_error *err)
{
    static const struct {
        int         first, count;
        const char *name;
    } fused[] = {{0, 3, "self_attn.qkv_proj"}, {4, 2, "mlp.gate_up_proj"}};
    for (int l = 0; l < r->d->layers; l++)
        for (size_t f = 0; f < NB_COUNT(fused); f++) {
            const nb_module *first = member(r, l, fused[f].first);
            nb_scheme        one, other;
            bool             known = nb_scheme_stored(&one, first), ordered;
            for (int i = 1; i < fused[f].count; i++) {
                const nb_module *m = member(r, l, fused[f].first + i);
                bool             both = nb_scheme_stored(&other, m) && known;
                bool same = m->stored == first->stored && (!both || (one.bits == other.bits && one.group == other.group)) &&
                            (m->stored < NB_STORED_WORDS || nb_scheme_same(m->scheme, first->scheme));
                if (!same)
                    nb_found(r->out, NB_ERROR, target, 0, "fused", m->name,
                             "give the parts of a fused layer the same bits and group size, or keep all in float",
                             "is not quantized as %s is, and both are parts of %s", first->name, fused[f].name);
                NB_TRY(same_order(&ordered, first, m, err));
                if (!ordered)
                    nb_found(r->out, NB_ERROR, target, 0, "fused", m->name,
                             "quantize with --act-order group, or with one order for all parts",
                             "has another order of inputs (g_idx) than %s, and both are parts of %s", first->name,
                             fused[f].name);
            }
        }
    return NB_OK;
}

/* ---- GPTQ -------------------------------------------------------------------------------------------------------------- */

void nb_serving_gptq(const nb_rules *r, nb_target target)
{
    const nb_block   *b = &r->d->block;
    static const char RESTORE[] = "add it to quantization_config";
    if (!b->has_desc_act)
        nb_found(r->out, NB_ERROR, target, 0, "gptq-keys", b->where, RESTORE,
                 "desc_act is missing, and the loader requires it");
    if (!b->has_sym)
        nb_found(r->out, target == NB_FOR_VLLM ? NB_ERROR : NB_WARNING, target, 0, "gptq-keys", b->where, RESTORE,
                 "sym is missing%s", target == NB_FOR_VLLM ? ", and the loader requires it" : ": the fast kernel is not used");
    for (size_t i = 0; i < r->d->module_count; i++) {
        const nb_module *m = &r->d->modules[i];
        if (m->stored != NB_STORED_WORDS) continue;
        if (m->g_idx_read && !m->g_idx_plain && !m->scheme.desc_act)
            nb_found(r->out, NB_ERROR, target, 0, "g-idx", m->name,
                     "set desc_act to true, or write the rows in order of their groups",
                     "g_idx is not in order although desc_act is false: the loader does not look at it, and the weights come "
                     "out wrong");
        if (m->g_idx_read && m->g_idx_plain && m->scheme.desc_act && m->scheme.group)
            nb_found(r->out, NB_WARNING, target, 0, "g-idx", m->name, "set desc_act to false: the data are valid for it",
                     "g_idx is in order, but desc_act is true: the loader permutes activations for nothing");
        if (!m->tensor[NB_T_G_IDX] && !m->scheme.desc_act)
            nb_found(r->out, NB_WARNING, target, 0, "g-idx", m->name, "write g_idx, as every published file does",
                     "has no g_idx: older versions require it");
    }
}

/* ---- ranks ------------------------------------------------------------------------------------------------------------- */

static bool heads_fit(const nb_rules *r, nb_target target, int t)
{
    const nb_description *d = r->d;
    bool                  fits = true;
    if (d->heads % t) {
        nb_found(r->out, NB_ERROR, target, t, "tp-heads", "config.json: num_attention_heads", "use a degree that divides it",
                 "%lld heads over %d ranks", (long long)d->heads, t);
        fits = false;
    }
    if (d->kv_heads % t && t % d->kv_heads) {
        nb_found(r->out, NB_ERROR, target, t, "tp-heads", "config.json: num_key_value_heads",
                 "use a degree that divides it or that it divides", "%lld KV heads over %d ranks", (long long)d->kv_heads, t);
        fits = false;
    }
    if (d->v_heads % t) {
        nb_found(r->out, NB_ERROR, target, t, "tp-heads", "config.json: vision_config.num_heads",
                 "use a degree that divides it, or run the tower data-parallel", "%lld heads of the tower over %d ranks",
                 (long long)d->v_heads, t);
        fits = false;
    }
    if (d->inner % t || d->v_inner % t) {
        nb_found(r->out, NB_ERROR, target, t, "tp-heads", "config.json: intermediate_size", "use a degree that divides it",
                 "%lld (the tower's %lld) over %d ranks", (long long)d->inner, (long long)d->v_inner, t);
        fits = false;
    }
    return fits;
}

/* One rank's share of a layer of the decoder: n outputs of the smallest part, all outputs together, k inputs. */
static void check_share(const nb_rules *r, nb_target target, int t, const nb_module *m, uint64_t part, uint64_t n, uint64_t k)
{
    const nb_block *b = &r->d->block;
    nb_scheme       s = m->scheme;
    uint64_t        group = s.group > 0 ? (uint64_t)s.group : m->k, per = s.bits ? 32 / (uint64_t)s.bits : 1;
    bool            across = k != m->k; /* split along its inputs */
    if (k % group && (s.group > 0 || !across)) {
        nb_found(r->out, NB_ERROR, target, t, "tp-groups", m->name, DEGREE,
                 "a rank's %llu inputs are no whole groups of %llu (tensor parallel %d)", (unsigned long long)k,
                 (unsigned long long)group, t);
        return;
    }
    if (b->kind == NB_BLOCK_AWQ ? part % 8 : part % per || k % per) {
        nb_found(r->out, NB_ERROR, target, t, "tp-words", m->name, DEGREE,
                 "a rank's %llu x %llu are no whole words of %llu weights", (unsigned long long)part, (unsigned long long)k,
                 (unsigned long long)per);
        return;
    }
    if (n % 64 || k % 128) {
        /* A plain AWQ kernel exists, but only in float16. */
        bool stuck = b->kind == NB_BLOCK_AWQ && strcmp(r->d->dtype, "float16");
        nb_found(r->out, stuck ? NB_ERROR : NB_WARNING, target, t, "marlin-tile", m->name,
                 stuck ? "set torch_dtype to float16, or use fewer ranks" : "use fewer ranks if speed matters",
                 "a rank's share is %llu x %llu, but the Marlin kernels want multiples of 64 x 128: a slower kernel%s",
                 (unsigned long long)n, (unsigned long long)k, stuck ? " that takes float16 only" : " is used");
    }
    if (b->kind == NB_BLOCK_GPTQ && s.desc_act && across && s.group)
        nb_found(r->out, NB_WARNING, target, t, "desc-act-tp", m->name,
                 "quantize with --act-order group, which needs no desc_act",
                 "activation order over ranks: every rank keeps all scales and permutes its inputs");
}

void nb_serving_degrees(const nb_rules *r, nb_target target)
{
    const nb_description *d = r->d;
    for (int i = 0; i < r->tp_count; i++) {
        int t = r->tp[i];
        if (!heads_fit(r, target, t)) continue;
        uint64_t ranks = (uint64_t)t, dim = (uint64_t)d->head_dim, q = (uint64_t)d->heads * dim / ranks;
        uint64_t kv = (d->kv_heads >= t ? (uint64_t)(d->kv_heads / t) : 1) * dim, inner = (uint64_t)d->inner / ranks,
                 hidden = (uint64_t)d->hidden;
        for (int l = 0; l < d->layers; l++) {
            const struct {
                int      index;
                uint64_t part, n, k;
            } shares[] = {{0, q < kv ? q : kv, q + 2 * kv, hidden},
                          {3, hidden, hidden, q},
                          {4, inner, 2 * inner, hidden},
                          {6, hidden, hidden, inner}};
            for (size_t s = 0; s < NB_COUNT(shares); s++) {
                const nb_module *m = member(r, l, shares[s].index);
                if (m->stored >= NB_STORED_WORDS && m->scheme.quantized)
                    check_share(r, target, t, m, shares[s].part, shares[s].n, shares[s].k);
            }
        }
    }
}
