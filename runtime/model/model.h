/* model.h - the weights of a Qwen2-VL in a backend's own order, and the forward pass written once against the op table.
 *
 * A model is read-only once open and shared by any number of engines.  Activations are caller-owned buffers from ops->alloc.
 */
#ifndef NB_MODEL_H
#define NB_MODEL_H

#include "kernels/ops.h"
#include "runtime/io/checkpoint.h"
#include "runtime/model/config.h"
#include "runtime/model/linear.h"
#include "runtime/model/prompt.h"

typedef struct {
    float    *input_norm, *post_norm;  /* [hidden] */
    nb_matrix qkv;                     /* [(heads + 2 kv) head_dim, hidden]; rows q, k, v */
    float    *qkv_bias;
    nb_matrix o;                       /* [hidden, heads head_dim] */
    nb_matrix gate_up;                 /* [2 intermediate, hidden]; gate rows, then up rows */
    nb_matrix down;                    /* [hidden, intermediate] */
} nb_layer;

typedef struct nb_vision nb_vision;
typedef struct nb_pack_cache nb_pack_cache;

typedef struct {
    nb_config            config;
    nb_generation_config generation;
    nb_ops               ops;
    nb_tokenizer        *tokenizer;
    nb_processor         processor;
    nb_checkpoint       *checkpoint;
    nb_matrix            embed;        /* [vocab, hidden] */
    nb_matrix            head;         /* zeroed when tied and not in int8: nb_model_head */
    float               *norm;
    nb_layer            *layers;       /* [config.layers] */
    nb_vision           *vision;
    float               *inv_freq;     /* [head_dim / 2] host */
    float                rope_scale;   /* yarn attention factor, 1 otherwise */
    size_t               weight_bytes; /* packed storage of everything */
    nb_pack_cache       *packs;        /* whose bytes matrices may be; NULL: none */
    nb_buf               notes;        /* warnings gathered while opening, one line each */
} nb_model;

enum {
    NB_OPEN_NO_LAYERS = 1, /* leave layers[] zeroed: the quantizer loads and drops them one by one */
    NB_OPEN_NO_HEAD = 2,   /* leave head zeroed: nobody asks for logits */
};

nb_status nb_model_open(nb_model **out, const char *directory, const nb_ops *ops, unsigned flags, nb_error *err);
/* The same, all of it, with packed matrices kept in a file (pack_cache.h): mapped when it has them, else written after packing.
 * pack_cache: the file or a folder; NULL: none. */
nb_status nb_model_open_packed(nb_model **out, const char *directory, const nb_ops *ops, const char *pack_cache, nb_error *err);
/* The same from a checkpoint that is already open (its tensors may have edits); it belongs to the model from now on, and is
 * closed when this fails. */
nb_status nb_model_open_checkpoint(nb_model **out, nb_checkpoint *checkpoint, const nb_ops *ops, unsigned flags, nb_error *err);
void      nb_model_close(nb_model *model);
/* Give back what turns prompts into rows, the embedding and the vision tower, and the head: only layers are run from here on. */
void      nb_model_drop_embedding(nb_model *model);
/* From now on the head, if it holds floats, is int8 in groups of 128: half of the bytes of bf16 for each token, for a little
 * accuracy.  A tied embedding stays what it is; the head is then a matrix of its own. */
nb_status nb_model_head_int8(nb_model *model, nb_error *err);
/* The matrix that gives logits: a head of its own, else the embedding. */
static inline const nb_matrix *nb_model_head(const nb_model *model)
{
    return model->head.n ? &model->head : &model->embed;
}
/* Have all of it again. */
nb_status nb_model_reload_embedding(nb_model *model, nb_error *err);
nb_status nb_model_load_layer(nb_model *model, int layer, nb_layer *out, nb_error *err);
/* The same layer in host memory, for the quantizer: norms [hidden] each; free the linears with nb_linear_free.  Order of
 * linears everywhere: q k v o gate up down. */
nb_status nb_layer_read(const nb_model *model, int layer, float *input_norm, float *post_norm, nb_linear linears[7], nb_error *err);
/* Build a packed layer from host arrays (the quantizer's own weights).  linears: q k v o gate up down; matrices of which the first
 * linear has no outputs (n = 0) are left out, for passes that end before them. */
nb_status nb_layer_pack(const nb_ops *ops, nb_layer *out, const nb_config *config, const float *input_norm, const float *post_norm,
                        const nb_linear linears[7], nb_error *err);
void      nb_layer_release(const nb_ops *ops, nb_layer *layer);

/* The four linear input sites of a layer, in order of use. */
typedef enum { NB_SITE_QKV, NB_SITE_O, NB_SITE_GATE_UP, NB_SITE_DOWN, NB_SITES } nb_site;
/* Called with the input rows of a site: x [rows, k] with row stride ld (backend memory).  Also may be NULL.  false: what comes
 * after the site is not needed, and the forward pass ends there.  The x_d of nb_layer_forward is at that time what the outputs of
 * o and down are added to. */
typedef bool nb_tap(void *context, nb_site site, const float *x, size_t ld, size_t rows, int k);

/* Rows as a forward pass has just made them, for whoever compares them with another implementation.  They are in the order in
 * which they come; index is the block of the tower or the layer.  With somebody watching, the products that go straight into the
 * residual stream (o, down) are computed once more by themselves; what a pass computes stays the same, bit by bit. */
typedef enum {
    NB_SEE_PATCHES,   /* [patches, v_dim] */
    NB_SEE_BLOCK,     /* [patches, v_dim], behind each block */
    NB_SEE_VISUAL,    /* [rows, hidden], behind the merger */
    NB_SEE_INPUT,     /* [rows, hidden], of each layer; of layer 0 the embedding with the rows of pictures in place */
    NB_SEE_Q,         /* [rows, heads head_dim], rotated */
    NB_SEE_K,         /* [rows, kv_heads head_dim], rotated */
    NB_SEE_V,         /* [rows, kv_heads head_dim] */
    NB_SEE_ATTENTION, /* [rows, heads head_dim], before o */
    NB_SEE_ATTN_OUT,  /* [rows, hidden], behind o */
    NB_SEE_MLP_OUT,   /* [rows, hidden], behind down */
    NB_SEE_LAST,      /* [rows, hidden], behind the last layer; only rows whose logits are wanted */
    NB_SEE_NORM,      /* [rows, hidden], behind the last norm; the same rows */
} nb_see_point;
typedef void nb_see(void *context, nb_see_point point, int index, const float *x_d, size_t ld, size_t rows, int width);

/* Work space for up to `rows` tokens of one layer. */
typedef struct nb_scratch nb_scratch;
nb_status nb_scratch_new(nb_scratch **out, const nb_model *model, size_t rows, nb_error *err);
void      nb_scratch_free(nb_scratch *s);
size_t    nb_scratch_rows(const nb_scratch *s);
void      nb_scratch_watch(nb_scratch *s, nb_see *see, void *context); /* NULL: nobody */

/* Fill cos/sin [rows, head_dim / 2] of the scratch from positions [3, stride] (host): position[a * stride + r]. */
void nb_rope_prepare(const nb_model *model, nb_scratch *s, const int32_t *position, size_t stride, size_t rows);

/* One decoder layer over all spans, in place: x [rows, hidden].  attn describes this layer's place in the KV pages. */
void nb_layer_forward(const nb_model *model, const nb_layer *layer, nb_scratch *s, const nb_attn *attn, const nb_span *spans,
                      size_t span_count, float *x_d, size_t rows, nb_tap *tap, void *tap_context);
/* x [rows, hidden] -> logits [rows, vocab] (final norm and head). */
void nb_head_forward(const nb_model *model, nb_scratch *s, const float *x_d, size_t rows, float *logits_d);

/* Vision tower and merger: rows of patches -> [t*h*w / merge^2, hidden], malloc'd by ops->alloc into *out_d. */
nb_status nb_vision_forward(const nb_model *model, const nb_patches *media, float **out_d, size_t *rows, nb_error *err);
nb_status nb_vision_watched(const nb_model *model, const nb_patches *media, float **out_d, size_t *rows, nb_see *see, void *context,
                            nb_error *err); /* see NULL: the same as nb_vision_forward */
/* The visual rows of all media of a prompt, one after the other: host [*rows, hidden], malloc'd; NULL when there are none. */
nb_status nb_prompt_visual(const nb_model *model, const nb_prompt *prompt, float **out, size_t *rows, nb_error *err);
/* Embed the prompt's tokens and put the visual rows in their places: host [count, hidden], malloc'd. */
nb_status nb_prompt_embed(const nb_model *model, const nb_prompt *prompt, float **out, nb_error *err);

/* Every tensor of the checkpoint is one that the model would read. */
nb_status nb_names_check(const nb_checkpoint *checkpoint, const nb_config *config, nb_error *err);

/* Source for nb_prompt_build. */
nb_prompt_source nb_model_source(const nb_model *model);

#endif
