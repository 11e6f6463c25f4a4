/* shapes.c - what a Qwen2-VL is made of, and how large its random weights may be.
 *
 * Scale.  A linear layer's weights have the standard deviation 1 / sqrt(inputs), so that inputs of size 1 give outputs
 * of size 1.  Every block of a pre-norm transformer sees a normalised input, so its output has one size whatever the
 * depth, and the residual stream grows as sqrt(blocks): to about 30 after the 160 of 72B.  Shrinking o_proj and
 * down_proj by that factor as well, as is done before training, would leave weights near 5e-4, and int8 scales (range /
 * 255) below the normal numbers of fp16.
 *
 * Outliers.  Trained models have a few channels far above the rest, and it is they that a quantizer has to get right:
 *   - 0.3 % of the residual channels have a norm weight of 8 to 30 instead of 1, the same channels in every layer: the
 *     inputs of q, k, v, gate and up;
 *   - as many rows of v_proj and up_proj are larger by such a factor: the inputs of o_proj and down_proj;
 *   - the biases of q and k have entries of a few units and of tens.
 * With 0.3 % at about 20 the mean square of an input roughly doubles; nothing comes near the limits of fp16.
 */
#include "tools/synth/shapes.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* tiny is not published: the smallest that has every part, with heads of 16 and rows of two groups of 32. */
const nb_synth_shape nb_synth_shapes[NB_SYNTH_SIZES] = {
    {.name = "tiny", .hidden = 64, .intermediate = 128, .layers = 2, .published_layers = 2, .heads = 4, .kv_heads = 2,
     .vocab = 1024, .max_positions = 4096, .mrope = {2, 3, 3}, .tied = true, .v_depth = 2, .v_dim = 32, .v_heads = 2},
    {.name = "2b", .hidden = 1536, .intermediate = 8960, .layers = 28, .published_layers = 28, .heads = 12, .kv_heads = 2,
     .vocab = 151936, .max_positions = 32768, .mrope = {16, 24, 24},
     .tied = true, .v_depth = 32, .v_dim = 1280, .v_heads = 16},
    {.name = "7b", .hidden = 3584, .intermediate = 18944, .layers = 28, .published_layers = 28, .heads = 28, .kv_heads = 4,
     .vocab = 152064, .max_positions = 32768, .mrope = {16, 24, 24},
     .tied = false, .v_depth = 32, .v_dim = 1280, .v_heads = 16},
    {.name = "72b", .hidden = 8192, .intermediate = 29568, .layers = 80, .published_layers = 80, .heads = 64, .kv_heads = 8,
     .vocab = 152064, .max_positions = 32768, .mrope = {16, 24, 24},
     .tied = false, .v_depth = 32, .v_dim = 1280, .v_heads = 16},
};

/* ---- kinds of values --------------------------------------------------------------------------------------------- */

static const double outlier_share = 0.003, outlier_min = 8, outlier_max = 30;

static nb_synth_values linear_values(int inputs)
{
    return (nb_synth_values){.std = 1 / sqrt(inputs)};
}

/* A linear layer whose output rows hold outliers: those of its consumer's input. */
static nb_synth_values producer_values(int inputs)
{
    return (nb_synth_values){.std = 1 / sqrt(inputs), .outliers = outlier_share, .gain_min = outlier_min,
                             .gain_max = outlier_max};
}

static nb_synth_values norm_values(void)
{
    return (nb_synth_values){.mean = 1, .std = 0.1, .outliers = outlier_share, .gain_min = outlier_min,
                             .gain_max = outlier_max, .channels = true};
}

static nb_synth_values bias_values(double std)
{
    return (nb_synth_values){.std = std};
}

static nb_synth_values large_bias_values(double std, double gain_max)
{
    return (nb_synth_values){.std = std, .outliers = 0.03, .gain_min = outlier_min, .gain_max = gain_max};
}

/* Rows of ids that have no token are small: they never win against the ones that have, so that answers are text.  They
 * are not zeros, which file systems store and GPUs multiply at another speed. */
static nb_synth_values table_values(int hidden, int tokens)
{
    return (nb_synth_values){.std = 1 / sqrt(hidden), .faint_from = (uint64_t)tokens};
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

typedef struct {
    nb_synth_visit *visit;
    void           *context;
    nb_error       *err;
    nb_status       status; /* of the first visit that failed; later ones are left out */
} walk;

static void give(walk *w, nb_synth_values values, int rank, const uint64_t *shape, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
static void give(walk *w, nb_synth_values values, int rank, const uint64_t *shape, const char *format, ...)
{
    nb_synth_tensor t = {.rank = rank, .values = values};
    va_list         list;
    va_start(list, format);
    vsnprintf(t.name, sizeof t.name, format, list);
    va_end(list);
    memcpy(t.shape, shape, (size_t)rank * sizeof *shape);
    if (w->status == NB_OK) w->status = w->visit(w->context, &t, w->err);
}
#define MATRIX(w, values, n, k, ...) give(w, values, 2, (const uint64_t[]){(uint64_t)(n), (uint64_t)(k)}, __VA_ARGS__)
#define VECTOR(w, values, n, ...) give(w, values, 1, (const uint64_t[]){(uint64_t)(n)}, __VA_ARGS__)

static void vision_block(walk *w, int i, int d)
{
    int inner = NB_SYNTH_MLP_RATIO * d;
    for (int norm = 1; norm <= 2; norm++) {
        VECTOR(w, norm_values(), d, "visual.blocks.%d.norm%d.weight", i, norm);
        VECTOR(w, bias_values(0.05), d, "visual.blocks.%d.norm%d.bias", i, norm);
    }
    MATRIX(w, linear_values(d), 3 * d, d, "visual.blocks.%d.attn.qkv.weight", i);
    VECTOR(w, bias_values(0.5), 3 * d, "visual.blocks.%d.attn.qkv.bias", i);
    MATRIX(w, linear_values(d), d, d, "visual.blocks.%d.attn.proj.weight", i);
    VECTOR(w, bias_values(0.02), d, "visual.blocks.%d.attn.proj.bias", i);
    MATRIX(w, producer_values(d), inner, d, "visual.blocks.%d.mlp.fc1.weight", i);
    VECTOR(w, bias_values(0.1), inner, "visual.blocks.%d.mlp.fc1.bias", i);
    MATRIX(w, linear_values(inner), d, inner, "visual.blocks.%d.mlp.fc2.weight", i);
    VECTOR(w, bias_values(0.02), d, "visual.blocks.%d.mlp.fc2.bias", i);
}

static void vision(walk *w, const nb_synth_shape *s)
{
    int            d = s->v_dim, wide = d * NB_SYNTH_MERGE * NB_SYNTH_MERGE;
    const uint64_t patch[] = {(uint64_t)d, NB_SYNTH_CHANNELS, NB_SYNTH_TEMPORAL, NB_SYNTH_PATCH, NB_SYNTH_PATCH};
    give(w, linear_values(NB_SYNTH_CHANNELS * NB_SYNTH_TEMPORAL * NB_SYNTH_PATCH * NB_SYNTH_PATCH), 5, patch,
         "visual.patch_embed.proj.weight");
    for (int i = 0; i < s->v_depth; i++) vision_block(w, i, d);
    VECTOR(w, ((nb_synth_values){.mean = 1, .std = 0.1}), d, "visual.merger.ln_q.weight");
    VECTOR(w, bias_values(0.05), d, "visual.merger.ln_q.bias");
    MATRIX(w, linear_values(wide), wide, wide, "visual.merger.mlp.0.weight");
    VECTOR(w, bias_values(0.1), wide, "visual.merger.mlp.0.bias");
    MATRIX(w, linear_values(wide), s->hidden, wide, "visual.merger.mlp.2.weight");
    VECTOR(w, bias_values(0.02), s->hidden, "visual.merger.mlp.2.bias");
}

static void decoder_layer(walk *w, int i, const nb_synth_shape *s)
{
    int h = s->hidden, head = h / s->heads, kv = s->kv_heads * head;
    VECTOR(w, norm_values(), h, "model.layers.%d.input_layernorm.weight", i);
    MATRIX(w, linear_values(h), h, h, "model.layers.%d.self_attn.q_proj.weight", i);
    VECTOR(w, large_bias_values(0.3, 15), h, "model.layers.%d.self_attn.q_proj.bias", i);
    MATRIX(w, linear_values(h), kv, h, "model.layers.%d.self_attn.k_proj.weight", i);
    VECTOR(w, large_bias_values(1, 30), kv, "model.layers.%d.self_attn.k_proj.bias", i);
    MATRIX(w, producer_values(h), kv, h, "model.layers.%d.self_attn.v_proj.weight", i);
    VECTOR(w, bias_values(0.02), kv, "model.layers.%d.self_attn.v_proj.bias", i);
    MATRIX(w, linear_values(h), h, h, "model.layers.%d.self_attn.o_proj.weight", i);
    VECTOR(w, norm_values(), h, "model.layers.%d.post_attention_layernorm.weight", i);
    MATRIX(w, linear_values(h), s->intermediate, h, "model.layers.%d.mlp.gate_proj.weight", i);
    MATRIX(w, producer_values(h), s->intermediate, h, "model.layers.%d.mlp.up_proj.weight", i);
    MATRIX(w, linear_values(s->intermediate), h, s->intermediate, "model.layers.%d.mlp.down_proj.weight", i);
}

nb_status nb_synth_each(const nb_synth_shape *s, int tokens, nb_synth_visit *visit, void *context, nb_error *err)
{
    walk w = {visit, context, err, NB_OK};
    vision(&w, s);
    MATRIX(&w, table_values(s->hidden, tokens), s->vocab, s->hidden, "model.embed_tokens.weight");
    for (int i = 0; i < s->layers; i++) decoder_layer(&w, i, s);
    /* With rows of size 1 in the head this gives logits of size 4: enough for the ids that have text to outweigh
     * 150,000 that have none, and about as sure of themselves as a trained model. */
    VECTOR(&w, ((nb_synth_values){.mean = 4, .std = 0.4}), s->hidden, "model.norm.weight");
    if (!s->tied) MATRIX(&w, table_values(s->hidden, tokens), s->vocab, s->hidden, "lm_head.weight");
    return w.status;
}
