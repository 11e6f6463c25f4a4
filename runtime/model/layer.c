/* layer.c - one decoder layer: loading, packing, and the forward pass over any mix of sequences.
 *
 *     h = x + o(attention(rope(q), rope(k), v)),   q k v = norm(x) Wqkv' + b
 *     y = h + down(silu(gate) * up),               gate up = norm(h) Wgu'
 *
 * q, k and v are one matrix, and so are gate and up: one pass over the input each.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/model/parts.h"
#include "runtime/model/rope.h"

/* ---- loading ----------------------------------------------------------------------------------------------------------- */

nb_status nb_vector_upload(float **out_d, const nb_ops *ops, const float *values, size_t n, const char *what, nb_error *err)
{
    *out_d = ops->alloc(ops, n * sizeof(float));
    if (!*out_d) return nb_fail(err, NB_ERR_MEMORY, "%s: no memory for %zu values", what, n);
    ops->upload(ops, *out_d, values, n * sizeof(float));
    return NB_OK;
}

nb_status nb_vector_load(float **out_d, const nb_model *model, const char *name, int n, nb_error *err)
{
    const nb_entry *e;
    float          *host;
    NB_TRY(nb_checkpoint_get(model->checkpoint, name, 1, (uint64_t[]){ (uint64_t)n }, &e, err));
    NB_TRY(nb_alloc(&host, (size_t)n, sizeof *host, name, err));
    nb_status status = nb_entry_read_f32(e, host, err);
    if (status == NB_OK) status = nb_vector_upload(out_d, &model->ops, host, (size_t)n, name, err);
    free(host);
    return status;
}

void nb_layer_release(const nb_ops *ops, nb_layer *l)
{
    ops->free(ops, l->input_norm);
    ops->free(ops, l->post_norm);
    ops->free(ops, l->qkv_bias);
    ops->release(ops, &l->qkv);
    ops->release(ops, &l->o);
    ops->release(ops, &l->gate_up);
    ops->release(ops, &l->down);
    memset(l, 0, sizeof *l);
}

static nb_status pack_stack(const nb_ops *ops, nb_matrix *out, const nb_linear *linears, int count, nb_error *err)
{
    nb_weights parts[3];
    if (!linears[0].weights.n) return NB_OK;
    for (int i = 0; i < count; i++) parts[i] = linears[i].weights;
    return ops->pack(ops, out, parts, count, err);
}

static nb_status pack_all(const nb_ops *ops, nb_layer *out, const nb_config *c, const float *input_norm, const float *post_norm,
                          const nb_linear linears[7], nb_error *err)
{
    NB_TRY(nb_vector_upload(&out->input_norm, ops, input_norm, (size_t)c->hidden, "input_layernorm", err));
    NB_TRY(nb_vector_upload(&out->post_norm, ops, post_norm, (size_t)c->hidden, "post_attention_layernorm", err));
    NB_TRY(pack_stack(ops, &out->qkv, linears, 3, err));
    NB_TRY(pack_stack(ops, &out->o, linears + 3, 1, err));
    NB_TRY(pack_stack(ops, &out->gate_up, linears + 4, 2, err));
    NB_TRY(pack_stack(ops, &out->down, linears + 6, 1, err));
    float *bias, *at;
    if (!out->qkv.n) return NB_OK;
    NB_TRY(nb_alloc(&bias, (size_t)out->qkv.n, sizeof *bias, "qkv bias", err));
    at = bias;
    for (int i = 0; i < 3; i++) {
        if (linears[i].bias) memcpy(at, linears[i].bias, (size_t)linears[i].weights.n * sizeof *at);
        at += linears[i].weights.n;
    }
    nb_status status = nb_vector_upload(&out->qkv_bias, ops, bias, (size_t)out->qkv.n, "qkv bias", err);
    free(bias);
    return status;
}

nb_status nb_layer_pack(const nb_ops *ops, nb_layer *out, const nb_config *config, const float *input_norm, const float *post_norm,
                        const nb_linear linears[7], nb_error *err)
{
    memset(out, 0, sizeof *out);
    nb_status status = pack_all(ops, out, config, input_norm, post_norm, linears, err);
    if (status != NB_OK) nb_layer_release(ops, out);
    return status;
}

nb_status nb_layer_read(const nb_model *model, int layer, float *input_norm, float *post_norm, nb_linear linears[7], nb_error *err)
{
    const nb_config *c = &model->config;
    int              q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    struct {
        const char *name;
        int         n, k, bias;
    } shapes[7] = {
        { "self_attn.q_proj", q, c->hidden, 1 },  { "self_attn.k_proj", kv, c->hidden, 1 },
        { "self_attn.v_proj", kv, c->hidden, 1 }, { "self_attn.o_proj", c->hidden, q, 0 },
        { "mlp.gate_proj", c->intermediate, c->hidden, 0 }, { "mlp.up_proj", c->intermediate, c->hidden, 0 },
        { "mlp.down_proj", c->hidden, c->intermediate, 0 },
    };
    struct {
        const char *name;
        float      *out;
    } norms[2] = { { "input_layernorm", input_norm }, { "post_attention_layernorm", post_norm } };
    char name[128];
    memset(linears, 0, 7 * sizeof *linears);
    nb_status status = NB_OK;
    for (int i = 0; i < 2 && status == NB_OK; i++) {
        const nb_entry *e;
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, norms[i].name);
        status = nb_checkpoint_get(model->checkpoint, name, 1, (uint64_t[]){ (uint64_t)c->hidden }, &e, err);
        if (status == NB_OK) status = nb_entry_read_f32(e, norms[i].out, err);
    }
    for (int i = 0; i < 7 && status == NB_OK; i++) {
        snprintf(name, sizeof name, "model.layers.%d.%s", layer, shapes[i].name);
        status = nb_linear_read(&linears[i], model->checkpoint, &c->quant, name, shapes[i].n, shapes[i].k, shapes[i].bias, err);
    }
    if (status != NB_OK)
        for (int i = 0; i < 7; i++) nb_linear_free(&linears[i]);
    return status;
}

nb_status nb_layer_vectors(nb_layer *out, const nb_model *model, int layer, nb_error *err)
{
    char name[128];
    snprintf(name, sizeof name, "model.layers.%d.input_layernorm.weight", layer);
    NB_TRY(nb_vector_load(&out->input_norm, model, name, model->config.hidden, err));
    snprintf(name, sizeof name, "model.layers.%d.post_attention_layernorm.weight", layer);
    return nb_vector_load(&out->post_norm, model, name, model->config.hidden, err);
}

void nb_layer_list(nb_layer *out, const nb_config *c, int layer, nb_load list[NB_LAYER_LOADS])
{
    int q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    struct {
        nb_matrix  *to;
        float     **bias_d;
        const char *name;
        int         k;
        struct {
            const char *name;
            int         n;
        } part[3];
    } matrices[NB_LAYER_LOADS] = {
        { &out->qkv, &out->qkv_bias, "self_attn.qkv", c->hidden, { { "self_attn.q_proj", q }, { "self_attn.k_proj", kv }, { "self_attn.v_proj", kv } } },
        { &out->o, NULL, "self_attn.o", q, { { "self_attn.o_proj", c->hidden } } },
        { &out->gate_up, NULL, "mlp.gate_up", c->hidden, { { "mlp.gate_proj", c->intermediate }, { "mlp.up_proj", c->intermediate } } },
        { &out->down, NULL, "mlp.down", c->intermediate, { { "mlp.down_proj", c->hidden } } },
    };
    for (int i = 0; i < NB_LAYER_LOADS; i++) {
        char name[NB_LOAD_NAME];
        snprintf(name, sizeof name, "model.layers.%d.%s", layer, matrices[i].name);
        nb_load_init(&list[i], matrices[i].to, matrices[i].bias_d, matrices[i].k, name);
        for (int p = 0; p < 3 && matrices[i].part[p].name; p++) {
            snprintf(name, sizeof name, "model.layers.%d.%s", layer, matrices[i].part[p].name);
            nb_load_part(&list[i], name, matrices[i].part[p].n);
        }
    }
}

nb_status nb_model_load_layer(nb_model *model, int layer, nb_layer *out, nb_error *err)
{
    nb_load list[NB_LAYER_LOADS];
    size_t  bytes = 0;
    memset(out, 0, sizeof *out);
    nb_status status = nb_layer_vectors(out, model, layer, err);
    nb_layer_list(out, &model->config, layer, list);
    if (status == NB_OK) status = nb_load_all(model, list, NB_LAYER_LOADS, &bytes, err);
    if (status != NB_OK) nb_layer_release(&model->ops, out);
    return status;
}

/* ---- work space -------------------------------------------------------------------------------------------------------- */

struct nb_scratch {
    const nb_ops *ops;
    size_t        rows;
    float        *norm;    /* [rows, hidden] */
    float        *qkv;     /* [rows, (heads + 2 kv_heads) head_dim] */
    float        *attn;    /* [rows, heads head_dim] */
    float        *gate_up; /* [rows, 2 intermediate] */
    float        *act;     /* [rows, intermediate] */
    float        *cos, *sin; /* [rows, head_dim / 2] */
    float        *table;   /* host, the same */
    nb_see       *see;     /* NULL: nobody watches */
    void         *see_context;
};

nb_status nb_scratch_new(nb_scratch **out, const nb_model *model, size_t rows, nb_error *err)
{
    const nb_config *c = &model->config;
    const nb_ops    *ops = &model->ops;
    NB_TRY(nb_alloc(out, 1, sizeof **out, "work space", err));
    nb_scratch *s = *out;
    s->ops = ops;
    s->rows = rows;
    size_t half = (size_t)c->head_dim / 2;
    struct {
        float **to;
        size_t  width;
    } parts[] = {
        { &s->norm, (size_t)c->hidden },
        { &s->qkv, (size_t)(c->heads + 2 * c->kv_heads) * c->head_dim },
        { &s->attn, (size_t)c->heads * c->head_dim },
        { &s->gate_up, 2 * (size_t)c->intermediate },
        { &s->act, (size_t)c->intermediate },
        { &s->cos, half },
        { &s->sin, half },
    };
    for (size_t i = 0; i < NB_COUNT(parts); i++) {
        *parts[i].to = ops->alloc(ops, rows * parts[i].width * sizeof(float));
        if (!*parts[i].to) {
            nb_scratch_free(s);
            *out = NULL;
            return nb_fail(err, NB_ERR_MEMORY, "no memory for the work space of %zu tokens: use a smaller chunk", rows);
        }
    }
    nb_status status = nb_alloc(&s->table, 2 * rows * half, sizeof(float), "rotary tables", err);
    if (status != NB_OK) {
        nb_scratch_free(s);
        *out = NULL;
    }
    return status;
}

void nb_scratch_free(nb_scratch *s)
{
    if (!s) return;
    float *parts[] = { s->norm, s->qkv, s->attn, s->gate_up, s->act, s->cos, s->sin };
    for (size_t i = 0; i < NB_COUNT(parts); i++) s->ops->free(s->ops, parts[i]);
    free(s->table);
    free(s);
}

size_t nb_scratch_rows(const nb_scratch *s) { return s->rows; }

void nb_scratch_watch(nb_scratch *s, nb_see *see, void *context)
{
    s->see = see;
    s->see_context = context;
}

void nb_rope_prepare(const nb_model *model, nb_scratch *s, const int32_t *position, size_t stride, size_t rows)
{
    size_t n = rows * ((size_t)model->config.head_dim / 2);
    nb_rope_table(s->table, s->table + n, model->inv_freq, model->rope_scale, model->config.mrope, model->config.head_dim, position,
                  stride, rows);
    s->ops->upload(s->ops, s->cos, s->table, n * sizeof(float));
    s->ops->upload(s->ops, s->sin, s->table + n, n * sizeof(float));
}

/* ---- forward ----------------------------------------------------------------------------------------------------------- */

/* A product that is about to be added to the residual stream, by itself: in the place of the normed rows, which are used up. */
static void show_product(const nb_model *model, nb_scratch *s, nb_see_point point, int layer, const float *x, size_t ld, size_t rows,
                         const nb_matrix *w)
{
    size_t hidden = (size_t)model->config.hidden;
    if (!s->see) return;
    model->ops.matmul(&model->ops, s->norm, hidden, x, ld, rows, w, NULL, false);
    s->see(s->see_context, point, layer, s->norm, hidden, rows, model->config.hidden);
}

static void show_heads(const nb_scratch *s, int layer, size_t q, size_t kv, size_t rows)
{
    size_t wide = q + 2 * kv;
    if (!s->see) return;
    s->see(s->see_context, NB_SEE_Q, layer, s->qkv, wide, rows, (int)q);
    s->see(s->see_context, NB_SEE_K, layer, s->qkv + q, wide, rows, (int)kv);
    s->see(s->see_context, NB_SEE_V, layer, s->qkv + q + kv, wide, rows, (int)kv);
    s->see(s->see_context, NB_SEE_ATTENTION, layer, s->attn, q, rows, (int)q);
}

void nb_layer_forward(const nb_model *model, const nb_layer *l, nb_scratch *s, const nb_attn *attn, const nb_span *spans,
                      size_t span_count, float *x, size_t rows, nb_tap *tap, void *tap_context)
{
    const nb_config *c = &model->config;
    const nb_ops    *ops = &model->ops;
    size_t hidden = (size_t)c->hidden, inner = (size_t)c->intermediate, q = (size_t)c->heads * c->head_dim,
           kv = (size_t)c->kv_heads * c->head_dim, wide = q + 2 * kv;
    int number = s->see ? (int)(l - model->layers) : 0; /* who watches runs the layers of the model itself */

    if (s->see) s->see(s->see_context, NB_SEE_INPUT, number, x, hidden, rows, c->hidden);
    ops->rmsnorm(ops, s->norm, x, l->input_norm, rows, c->hidden, c->rms_eps);
    if (tap && !tap(tap_context, NB_SITE_QKV, s->norm, hidden, rows, c->hidden)) return;
    ops->matmul(ops, s->qkv, wide, s->norm, hidden, rows, &l->qkv, l->qkv_bias, false);
    ops->rope(ops, s->qkv, wide, rows, c->heads + c->kv_heads, c->head_dim, s->cos, s->sin); /* q and k lie side by side */
    ops->kv_store(ops, attn, spans, span_count, s->qkv + q, s->qkv + q + kv, wide);
    ops->attend(ops, attn, spans, span_count, s->attn, q, s->qkv, wide);
    show_heads(s, number, q, kv, rows);
    if (tap && !tap(tap_context, NB_SITE_O, s->attn, q, rows, (int)q)) return;
    show_product(model, s, NB_SEE_ATTN_OUT, number, s->attn, q, rows, &l->o);
    ops->matmul(ops, x, hidden, s->attn, q, rows, &l->o, NULL, true);

    ops->rmsnorm(ops, s->norm, x, l->post_norm, rows, c->hidden, c->rms_eps);
    if (tap && !tap(tap_context, NB_SITE_GATE_UP, s->norm, hidden, rows, c->hidden)) return;
    ops->matmul(ops, s->gate_up, 2 * inner, s->norm, hidden, rows, &l->gate_up, NULL, false);
    ops->gate(ops, s->act, s->gate_up, rows, c->intermediate, NB_ACT_SILU);
    if (tap && !tap(tap_context, NB_SITE_DOWN, s->act, inner, rows, c->intermediate)) return;
    show_product(model, s, NB_SEE_MLP_OUT, number, s->act, inner, rows, &l->down);
    ops->matmul(ops, x, hidden, s->act, inner, rows, &l->down, NULL, true);
}

void nb_head_forward(const nb_model *model, nb_scratch *s, const float *x, size_t rows, float *logits)
{
    const nb_ops    *ops = &model->ops;
    const nb_config *c = &model->config;
    if (s->see) s->see(s->see_context, NB_SEE_LAST, c->layers, x, (size_t)c->hidden, rows, c->hidden);
    ops->rmsnorm(ops, s->norm, x, model->norm, rows, c->hidden, c->rms_eps);
    if (s->see) s->see(s->see_context, NB_SEE_NORM, c->layers, s->norm, (size_t)c->hidden, rows, c->hidden);
    ops->matmul(ops, logits, (size_t)c->vocab, s->norm, (size_t)c->hidden, rows, nb_model_head(model), NULL, false);
}
