/* resolve.c - what was asked for against what the formats hold: a format and the bits of every matrix, before weights are read.
 *
 * Whatever is changed on the way, or loads in fewer places than usual, is told in a line of its own.
 */
#include <math.h>
#include <string.h>

#include "quant/float_layer.h"
#include "quant/pipeline.h"

bool nb_quantize_permutes(const nb_quantize_options *o)
{
    return (o->method == NB_METHOD_GPTQ || o->method == NB_METHOD_AWQ_GPTQ) && o->order == NB_ORDER_FULL && !o->static_groups;
}

static bool sets_bits(const nb_quantize_options *o)
{
    for (size_t i = 0; i < o->rule_count; i++)
        if (!o->rules[i].keep) return true;
    return false;
}

static nb_status resolve_format(nb_quantize_options *o, nb_buf *notes, nb_error *err)
{
    if (o->format == NB_FORMAT_AWQ && (o->grid.bits != 4 || o->grid.group == 0)) {
        o->format = NB_FORMAT_GPTQ;
        o->grid.sym = true;
        nb_buf_printf(notes, "the AWQ format holds 4 bits in groups only: %d bits%s are written in GPTQ's form, symmetric\n",
                      o->grid.bits, o->grid.group ? "" : " with one scale a row");
    }
    if (o->format == NB_FORMAT_GPTQ && !o->grid.sym) {
        o->format = NB_FORMAT_GPTQ_V2;
        nb_buf_str(notes, "asymmetric zeros are written as gptq_v2, which vLLM refuses; GPTQModel and nibble read it\n");
    }
    if (o->format == NB_FORMAT_AWQ && nb_quantize_permutes(o))
        return nb_fail(err, NB_ERR_ARGUMENT, "the AWQ format has no g_idx: full activation order needs static groups there");
    if (o->format == NB_FORMAT_AWQ && sets_bits(o))
        return nb_fail(err, NB_ERR_ARGUMENT, "the AWQ format cannot give single matrices other bits or groups: use compressed-tensors or gptq");
    if (o->format != NB_FORMAT_CT && (o->vision || o->head || o->embeddings))
        return nb_fail(err, NB_ERR_ARGUMENT, "codes for the vision tower, the head or the embedding need the compressed-tensors format");
    return NB_OK;
}

nb_status nb_quantize_resolve(nb_quantize_options *o, nb_buf *notes, nb_error *err)
{
    if (o->grid.bits != 4 && o->grid.bits != 8)
        return nb_fail(err, NB_ERR_ARGUMENT, "%d bits cannot be written; 4 and 8 can", o->grid.bits);
    if (o->grid.group < 0) return nb_fail(err, NB_ERR_ARGUMENT, "a group of %d inputs makes no sense", o->grid.group);
    NB_TRY(resolve_format(o, notes, err));
    if ((o->target_bytes > 0) + (o->target_bpw > 0) + (o->target_kl > 0) > 1)
        return nb_fail(err, NB_ERR_ARGUMENT, "a size, bits a weight and a divergence cannot be aimed at together: give one");
    bool target = o->target_bytes || o->target_bpw > 0 || o->target_kl > 0;
    if (target && o->format == NB_FORMAT_AWQ)
        return nb_fail(err, NB_ERR_ARGUMENT, "the AWQ format cannot mix bits to meet a target: use compressed-tensors or gptq");
    if (target && !nb_samples_wanted(&o->data))
        return nb_fail(err, NB_ERR_ARGUMENT, "a target needs calibration data: what bits cost is measured on it");
    double heaviest = 0;
    for (int i = 0; i < 3; i++) {
        float w = o->modality_weights[i];
        if (!isfinite(w) || w < 0) return nb_fail(err, NB_ERR_ARGUMENT, "modality weight %d is %g; give 0 or more", i, (double)w);
        if (w > heaviest) heaviest = w;
    }
    if (o->method == NB_METHOD_RTN) {
        o->asym = false;
        return NB_OK;
    }
    if (o->asym && !o->propagate_quantized)
        return nb_fail(err, NB_ERR_ARGUMENT, "asymmetric calibration corrects what the quantized layers lose: propagate those");
    bool sequential = o->method == NB_METHOD_AWQ_GPTQ || (o->method == NB_METHOD_GPTQ && o->true_sequential);
    if (o->artifact_count && (o->propagate_quantized || sequential))
        return nb_fail(err, NB_ERR_ARGUMENT, "an artifact holds what the float model sees: inputs from quantized layers (propagate, "
                       "true sequential, awq+gptq) need calibration data");
    if (!nb_samples_wanted(&o->data) && !o->artifact_count)
        return nb_fail(err, NB_ERR_ARGUMENT, "AWQ and GPTQ need calibration data; only rtn works without");
    if (heaviest == 0) return nb_fail(err, NB_ERR_ARGUMENT, "all modality weights are 0: no token would count");
    return NB_OK;
}

/* ---- matrices ---------------------------------------------------------------------------------------------------------- */

static nb_status check_shape(const char *name, int n, int k, const nb_grid *grid, nb_format format, nb_error *err)
{
    int group = grid->group ? grid->group : k;
    if (format == NB_FORMAT_CT) return NB_OK;
    bool awq = format == NB_FORMAT_AWQ;
    if (awq ? n % 8 || k % group : n % 32 || k % 32)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: %d outputs of %d inputs do not fit %s: outputs must be a multiple of %d and "
                       "inputs of %d", name, n, k, awq ? "the AWQ format" : "GPTQ's form", awq ? 8 : 32, awq ? group : 32);
    return NB_OK;
}

/* All layers have the same shapes: a group that does not divide is told once for each matrix and group. */
static nb_status check_shapes(const nb_choice *c, const nb_config *config, nb_format format, nb_buf *notes, nb_error *err)
{
    for (int layer = 0; layer < c->layers; layer++) {
        nb_float_layer f;
        nb_float_layer_shape(&f, config, layer);
        for (int i = 0; i < NB_LINEARS; i++) {
            const nb_pick *p = nb_choice_linear(c, layer, i);
            bool           told = false;
            if (p->keep) continue;
            NB_TRY(check_shape(f.name[i], f.n[i], f.k[i], &p->grid, format, err));
            for (int before = 0; before < layer && !told; before++) told = nb_pick_equal(nb_choice_linear(c, before, i), p);
            if (!told && p->grid.group && f.k[i] % p->grid.group)
                nb_buf_printf(notes, "%s: %d inputs are not a multiple of the group %d; vLLM refuses such a layer\n",
                              strchr(f.name[i] + 13, '.') + 1, f.k[i], p->grid.group);
        }
    }
    return NB_OK;
}

static void tell_limits(const nb_quantize_options *o, const nb_choice *c, nb_buf *notes)
{
    bool mixed = c->mixed || o->target_bytes || o->target_bpw > 0 || o->target_kl > 0;
    if (mixed && (o->format == NB_FORMAT_GPTQ || o->format == NB_FORMAT_GPTQ_V2))
        nb_buf_str(notes, "bits of single matrices are written as GPTQModel's 'dynamic': GPTQModel, vLLM and nibble read it, transformers does not\n");
    if (o->format == NB_FORMAT_CT && !o->grid.sym)
        nb_buf_str(notes, o->grid.bits == 8 ? "asymmetric 8-bit codes have no fast kernel in vLLM, and few versions of transformers load them; --sym has no such limits\n"
                                            : "asymmetric compressed-tensors load in vLLM from 2025 on and in few versions of transformers; --sym loads everywhere\n");
    if (o->format == NB_FORMAT_CT && nb_quantize_permutes(o))
        nb_buf_str(notes, "a g_idx is written (actorder 'group'): vLLM and compressed-tensors 0.12 read it, 0.19 and later refuse it; "
                   "--static-groups avoids it\n");
    if (nb_choice_outer(c, "lm_head"))
        nb_buf_str(notes, "an int8 head needs a vLLM that takes codes there (0.29 and later are known to); nibble reads it\n");
    if (nb_choice_outer(c, "model.embed_tokens"))
        nb_buf_str(notes, "an int8 embedding loads in vLLM 0.29 and later and in few versions of transformers; others refuse the checkpoint\n");
    if (c->untied)
        nb_buf_str(notes, "the head was tied to the embedding; now it has weights of its own and tie_word_embeddings is false\n");
}

nb_status nb_quantize_choose(nb_choice *out, const nb_quantize_options *o, const nb_config *config, nb_buf *notes, nb_error *err)
{
    const nb_choice_options want = {.main = o->grid, .rules = o->rules, .rule_count = o->rule_count, .vision = o->vision,
                                    .head = o->head, .embeddings = o->embeddings};
    NB_TRY(nb_choice_make(out, config, &want, notes, err));
    nb_status status = check_shapes(out, config, o->format, notes, err);
    if (status)
        nb_choice_free(out);
    else
        tell_limits(o, out, notes);
    return status;
}
