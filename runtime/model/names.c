/* names.c - which tensors a Qwen2-VL has.  A tensor that nothing would read is a sign of a wrong or mixed-up file, so it is
 * named instead of being passed over. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/model/parts.h"

static bool listed(const char *s, const char *const *list)
{
    for (; *list; list++)
        if (!strcmp(s, *list)) return true;
    return false;
}

/* After "prefix": a whole number below count, then '.'; returns what follows, or NULL. */
static const char *indexed(const char *name, const char *prefix, int count)
{
    size_t n = strlen(prefix);
    if (strncmp(name, prefix, n)) return NULL;
    const char *digits = name + n;
    char       *end;
    if (*digits < '0' || *digits > '9' || (*digits == '0' && digits[1] != '.')) return NULL;
    long i = strtol(digits, &end, 10);
    return *end == '.' && i < count ? end + 1 : NULL;
}

/* Whether name is one of the linears followed by a tensor that one can have: float, or the codes of any format. */
static bool linear_tensor(const char *name, const char *const *linears)
{
    static const char *const kinds[] = { "weight",        "bias",         "qweight",      "qzeros",           "scales", "g_idx",
                                         "weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx", NULL };
    const char *dot = strrchr(name, '.');
    char        linear[64];
    if (!dot || (size_t)(dot - name) >= sizeof linear) return false;
    snprintf(linear, sizeof linear, "%.*s", (int)(dot - name), name);
    return listed(linear, linears) && listed(dot + 1, kinds);
}

static bool decoder_tensor(const char *rest)
{
    static const char *const norms[] = { "input_layernorm.weight", "post_attention_layernorm.weight", NULL };
    static const char *const linears[] = { "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                           "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj",    NULL };
    return listed(rest, norms) || !strcmp(rest, "self_attn.rotary_emb.inv_freq") || linear_tensor(rest, linears);
}

static bool vision_tensor(const char *rest)
{
    static const char *const norms[] = { "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", NULL };
    static const char *const linears[] = { "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", NULL };
    return listed(rest, norms) || linear_tensor(rest, linears);
}

nb_status nb_names_check(const nb_checkpoint *checkpoint, const nb_config *config, nb_error *err)
{
    static const char *const singles[] = { "model.norm.weight", "visual.patch_embed.proj.weight", "visual.merger.ln_q.weight",
                                           "visual.merger.ln_q.bias", "model.rotary_emb.inv_freq", "visual.rotary_pos_emb.inv_freq",
                                           NULL };
    static const char *const linears[] = { "model.embed_tokens", "lm_head", "visual.merger.mlp.0", "visual.merger.mlp.2", NULL };
    bool quantized = false;
    for (size_t i = 0; i < nb_checkpoint_count(checkpoint); i++) {
        const nb_entry *e = nb_checkpoint_at(checkpoint, i);
        const char     *rest;
        quantized = quantized || strstr(e->name, ".qweight") || strstr(e->name, ".weight_packed");
        if (listed(e->name, singles) || linear_tensor(e->name, linears)) continue;
        if ((rest = indexed(e->name, "model.layers.", config->layers)) && decoder_tensor(rest)) continue;
        if ((rest = indexed(e->name, "visual.blocks.", config->v_depth)) && vision_tensor(rest)) continue;
        return nb_fail(err, NB_ERR_INPUT, "%s: tensor '%s' is not part of a Qwen2-VL with %d layers and %d vision blocks",
                       nb_safetensors_path(e->file), e->tensor->name, config->layers, config->v_depth);
    }
    if (config->quant.method != NB_QUANT_NONE && !quantized)
        return nb_fail(err, NB_ERR_INPUT, "%s: config.json has a quantization_config, but no matrix is quantized: these weights belong to "
                       "another config.json", nb_checkpoint_path(checkpoint));
    return NB_OK;
}
