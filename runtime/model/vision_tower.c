/* vision_tower.c - patches to rows of the language model's width.
 *
 *     x = patches Wp'                                      (the 3-D convolution is a product: stride = kernel)
 *     x = x + proj(attention(rope(qkv(LN1 x))))            bidirectional, inside one (h, w) slice only
 *     x = x + fc2(quick_gelu(fc1(LN2 x)))
 *     y = mlp2(gelu(mlp0(LN x, four neighbours side by side)))
 *
 * Rows come in 2x2-block order, so the four patches that the merger joins are consecutive.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/model/parts.h"
#include "runtime/model/rope.h"

enum { MLP_ROWS = 1024 }; /* rows of the wide inner layer at a time, so that its memory does not grow with the picture */

typedef struct {
    float    *norm1_w, *norm1_b, *norm2_w, *norm2_b;
    nb_matrix qkv, proj, fc1, fc2;
    float    *qkv_bias, *proj_bias, *fc1_bias, *fc2_bias;
} block;

struct nb_vision {
    nb_matrix patch;                        /* [dim, 3 * temporal * patch * patch] */
    block    *blocks;
    int       depth;
    float    *ln_w, *ln_b;
    nb_matrix merge0, merge2;               /* [4 dim, 4 dim], [out, 4 dim] */
    float    *merge0_bias, *merge2_bias;
    float    *inv_freq;                     /* host [head_dim / 4] */
};

static int patch_width(const nb_config *c) { return c->v_channels * c->v_temporal * c->v_patch * c->v_patch; }

static nb_status open_norm(float **w, float **b, const nb_model *model, const char *prefix, nb_error *err)
{
    char name[128];
    snprintf(name, sizeof name, "%s.weight", prefix);
    NB_TRY(nb_vector_load(w, model, name, model->config.v_dim, err));
    snprintf(name, sizeof name, "%s.bias", prefix);
    return nb_vector_load(b, model, name, model->config.v_dim, err);
}

static nb_status open_norms(block *b, const nb_model *model, int i, nb_error *err)
{
    char name[128];
    snprintf(name, sizeof name, "visual.blocks.%d.norm1", i);
    NB_TRY(open_norm(&b->norm1_w, &b->norm1_b, model, name, err));
    snprintf(name, sizeof name, "visual.blocks.%d.norm2", i);
    return open_norm(&b->norm2_w, &b->norm2_b, model, name, err);
}

/* A matrix of one part, whose name is its own. */
static nb_load *list_one(nb_load *out, nb_matrix *to, float **bias_d, const char *name, int n, int k)
{
    nb_load_init(out, to, bias_d, k, name);
    nb_load_part(out, name, n);
    return out + 1;
}

static nb_load *list_block(nb_load *out, block *b, const nb_config *c, int i)
{
    int  d = c->v_dim, inner = c->v_inner;
    char name[NB_LOAD_NAME];
    struct {
        const char *name;
        nb_matrix  *m;
        float     **bias;
        int         n, k;
    } linears[] = {
        { "attn.qkv", &b->qkv, &b->qkv_bias, 3 * d, d },
        { "attn.proj", &b->proj, &b->proj_bias, d, d },
        { "mlp.fc1", &b->fc1, &b->fc1_bias, inner, d },
        { "mlp.fc2", &b->fc2, &b->fc2_bias, d, inner },
    };
    for (size_t j = 0; j < NB_COUNT(linears); j++) {
        snprintf(name, sizeof name, "visual.blocks.%d.%s", i, linears[j].name);
        out = list_one(out, linears[j].m, linears[j].bias, name, linears[j].n, linears[j].k);
    }
    return out;
}

/* The convolution's weight [dim, channels, temporal, patch, patch] read as the matrix it is. */
static nb_status read_patch(nb_linear *out, const nb_model *model, const nb_load *l, int part, nb_error *err)
{
    const nb_config *c = &model->config;
    const nb_entry  *e;
    char             name[NB_LOAD_NAME + 8];
    uint64_t shape[5] = { (uint64_t)c->v_dim, (uint64_t)c->v_channels, (uint64_t)c->v_temporal, (uint64_t)c->v_patch, (uint64_t)c->v_patch };
    snprintf(name, sizeof name, "%s.weight", l->part[part].prefix);
    NB_TRY(nb_checkpoint_get(model->checkpoint, name, 5, shape, &e, err));
    if (e->tensor->dtype != NB_F32 && e->tensor->dtype != NB_BF16 && e->tensor->dtype != NB_F16)
        return nb_fail(err, NB_ERR_INPUT, "%s: tensor '%s' is %s, expected F32, BF16 or F16", nb_safetensors_path(e->file), name,
                       e->tensor->dtype_name);
    NB_TRY(nb_entry_read(e, &out->data, err));
    out->weights = (nb_weights){ .kind = NB_W_FLOAT, .n = l->part[part].n, .k = l->k, .dtype = e->tensor->dtype, .data = out->data };
    return NB_OK;
}

static nb_status open_vectors(nb_vision *v, const nb_model *model, nb_error *err)
{
    const nb_config *c = &model->config;
    NB_TRY(nb_alloc(&v->blocks, (size_t)c->v_depth, sizeof *v->blocks, "vision blocks", err));
    v->depth = c->v_depth;
    NB_TRY(nb_alloc(&v->inv_freq, (size_t)c->v_head_dim / 4, sizeof *v->inv_freq, "vision frequencies", err));
    nb_rope_frequencies(v->inv_freq, 10000.0, c->v_head_dim / 2);
    for (int i = 0; i < v->depth; i++) NB_TRY(open_norms(&v->blocks[i], model, i, err));
    return open_norm(&v->ln_w, &v->ln_b, model, "visual.merger.ln_q", err);
}

nb_status nb_vision_new(nb_vision **out, nb_model *model, nb_error *err)
{
    NB_TRY(nb_alloc(out, 1, sizeof **out, "vision tower", err));
    nb_status status = open_vectors(*out, model, err);
    if (status != NB_OK) {
        nb_vision_close(&model->ops, *out);
        *out = NULL;
    }
    return status;
}

size_t nb_vision_loads(const nb_config *c) { return 4 * (size_t)c->v_depth + 3; }

void nb_vision_list(nb_vision *v, const nb_config *c, nb_load *out)
{
    int      wide = c->v_dim * c->v_merge * c->v_merge;
    nb_load *patch = out;
    out = list_one(out, &v->patch, NULL, "visual.patch_embed.proj", c->v_dim, patch_width(c));
    patch->read = read_patch;
    for (int i = 0; i < v->depth; i++) out = list_block(out, &v->blocks[i], c, i);
    out = list_one(out, &v->merge0, &v->merge0_bias, "visual.merger.mlp.0", wide, wide);
    list_one(out, &v->merge2, &v->merge2_bias, "visual.merger.mlp.2", c->v_out, wide);
}

void nb_vision_close(const nb_ops *ops, nb_vision *v)
{
    if (!v) return;
    for (int i = 0; v->blocks && i < v->depth; i++) {
        block *b = &v->blocks[i];
        float *vectors[] = { b->norm1_w, b->norm1_b, b->norm2_w, b->norm2_b, b->qkv_bias, b->proj_bias, b->fc1_bias, b->fc2_bias };
        for (size_t j = 0; j < NB_COUNT(vectors); j++) ops->free(ops, vectors[j]);
        nb_matrix *matrices[] = { &b->qkv, &b->proj, &b->fc1, &b->fc2 };
        for (size_t j = 0; j < NB_COUNT(matrices); j++) ops->release(ops, matrices[j]);
    }
    float *vectors[] = { v->ln_w, v->ln_b, v->merge0_bias, v->merge2_bias };
    for (size_t j = 0; j < NB_COUNT(vectors); j++) ops->free(ops, vectors[j]);
    ops->release(ops, &v->patch);
    ops->release(ops, &v->merge0);
    ops->release(ops, &v->merge2);
    free(v->blocks);
    free(v->inv_freq);
    free(v);
}

/* ---- forward ----------------------------------------------------------------------------------------------------------- */

/* Buffers of one call.  n patches. */
typedef struct {
    float  *patches; /* [n, patch width] */
    float  *x, *norm; /* [n, dim] */
    float  *qkv;     /* [n, 3 dim] */
    float  *inner;   /* [MLP_ROWS, max(inner, wide)] */
    float  *cos, *sin; /* [n, head_dim / 2] */
    float  *table;   /* host */
    size_t *bounds;  /* [t + 1] host */
} space;

static void space_free(const nb_ops *ops, space *s)
{
    float *parts[] = { s->patches, s->x, s->norm, s->qkv, s->inner, s->cos, s->sin };
    for (size_t i = 0; i < NB_COUNT(parts); i++) ops->free(ops, parts[i]);
    free(s->table);
    free(s->bounds);
}

static nb_status space_init(space *s, const nb_model *model, const nb_patches *media, nb_error *err)
{
    const nb_config *c = &model->config;
    const nb_ops    *ops = &model->ops;
    size_t n = (size_t)media->t * media->h * media->w, half = (size_t)c->v_head_dim / 2,
           wide = (size_t)c->v_dim * c->v_merge * c->v_merge, inner = (size_t)c->v_inner > wide ? (size_t)c->v_inner : wide;
    struct {
        float **to;
        size_t  count;
    } parts[] = {
        { &s->patches, n * (size_t)patch_width(c) }, { &s->x, n * c->v_dim },    { &s->norm, n * c->v_dim },
        { &s->qkv, n * 3 * c->v_dim },               { &s->inner, MLP_ROWS * inner }, { &s->cos, n * half }, { &s->sin, n * half },
    };
    for (size_t i = 0; i < NB_COUNT(parts); i++) {
        *parts[i].to = ops->alloc(ops, parts[i].count * sizeof(float));
        if (!*parts[i].to)
            return nb_fail(err, NB_ERR_MEMORY, "no memory for a picture of %zu patches: lower max_pixels", n);
    }
    NB_TRY(nb_alloc(&s->table, 2 * n * half, sizeof(float), "vision positions", err));
    NB_TRY(nb_alloc(&s->bounds, (size_t)media->t + 1, sizeof *s->bounds, "vision slices", err));
    for (int t = 0; t <= media->t; t++) s->bounds[t] = (size_t)t * media->h * media->w;
    return NB_OK;
}

static void block_forward(const nb_model *model, const block *b, space *s, size_t n, int slices)
{
    const nb_config *c = &model->config;
    const nb_ops    *ops = &model->ops;
    size_t           d = (size_t)c->v_dim, inner = (size_t)c->v_inner;
    const float      eps = 1e-6f;
    ops->layernorm(ops, s->norm, s->x, b->norm1_w, b->norm1_b, n, c->v_dim, eps);
    ops->matmul(ops, s->qkv, 3 * d, s->norm, d, n, &b->qkv, b->qkv_bias, false);
    ops->rope(ops, s->qkv, 3 * d, n, 2 * c->v_heads, c->v_head_dim, s->cos, s->sin); /* q and k lie side by side */
    ops->attend_full(ops, s->norm, d, s->qkv, 3 * d, s->bounds, (size_t)slices, c->v_heads, c->v_head_dim,
                     1.0f / sqrtf((float)c->v_head_dim));
    ops->matmul(ops, s->x, d, s->norm, d, n, &b->proj, b->proj_bias, true);
    ops->layernorm(ops, s->norm, s->x, b->norm2_w, b->norm2_b, n, c->v_dim, eps);
    for (size_t r = 0; r < n; r += MLP_ROWS) {
        size_t rows = n - r < MLP_ROWS ? n - r : MLP_ROWS;
        ops->matmul(ops, s->inner, inner, s->norm + r * d, d, rows, &b->fc1, b->fc1_bias, false);
        ops->activate(ops, s->inner, rows * inner, NB_ACT_QUICK_GELU);
        ops->matmul(ops, s->x + r * d, d, s->inner, inner, rows, &b->fc2, b->fc2_bias, true);
    }
}

nb_status nb_vision_watched(const nb_model *model, const nb_patches *media, float **out, size_t *rows, nb_see *see, void *context,
                            nb_error *err)
{
    const nb_config *c = &model->config;
    const nb_ops    *ops = &model->ops;
    const nb_vision *v = model->vision;
    size_t n = (size_t)media->t * media->h * media->w, four = (size_t)c->v_merge * c->v_merge, wide = (size_t)c->v_dim * four,
           width = (size_t)patch_width(c), half = (size_t)c->v_head_dim / 2;
    space  s = { 0 };
    *out = NULL;
    *rows = n / four;
    nb_status status = space_init(&s, model, media, err);
    if (status == NB_OK) {
        *out = ops->alloc(ops, *rows * (size_t)c->v_out * sizeof(float));
        if (!*out) status = nb_fail(err, NB_ERR_MEMORY, "no memory for %zu visual tokens", *rows);
    }
    if (status == NB_OK) {
        nb_rope_vision_table(s.table, s.table + n * half, v->inv_freq, c->v_head_dim, media->t, media->h, media->w, c->v_merge);
        ops->upload(ops, s.cos, s.table, n * half * sizeof(float));
        ops->upload(ops, s.sin, s.table + n * half, n * half * sizeof(float));
        ops->upload(ops, s.patches, media->rows, n * width * sizeof(float));
        ops->matmul(ops, s.x, (size_t)c->v_dim, s.patches, width, n, &v->patch, NULL, false);
        if (see) see(context, NB_SEE_PATCHES, 0, s.x, (size_t)c->v_dim, n, c->v_dim);
        for (int i = 0; i < v->depth; i++) {
            block_forward(model, &v->blocks[i], &s, n, media->t);
            if (see) see(context, NB_SEE_BLOCK, i, s.x, (size_t)c->v_dim, n, c->v_dim);
        }
        ops->layernorm(ops, s.norm, s.x, v->ln_w, v->ln_b, n, c->v_dim, 1e-6f);
        for (size_t r = 0; r < *rows; r += MLP_ROWS) {
            size_t m = *rows - r < MLP_ROWS ? *rows - r : MLP_ROWS;
            ops->matmul(ops, s.inner, wide, s.norm + r * wide, wide, m, &v->merge0, v->merge0_bias, false);
            ops->activate(ops, s.inner, m * wide, NB_ACT_GELU);
            ops->matmul(ops, *out + r * c->v_out, (size_t)c->v_out, s.inner, wide, m, &v->merge2, v->merge2_bias, false);
        }
        if (see) see(context, NB_SEE_VISUAL, 0, *out, (size_t)c->v_out, *rows, c->v_out);
        status = ops->status(ops, err);
    }
    space_free(ops, &s);
    if (status != NB_OK) {
        ops->free(ops, *out);
        *out = NULL;
    }
    return status;
}

nb_status nb_vision_forward(const nb_model *model, const nb_patches *media, float **out, size_t *rows, nb_error *err)
{
    return nb_vision_watched(model, media, out, rows, NULL, NULL, err);
}
