/* float_layer.c - reading one decoder layer of a float checkpoint. */
#include "quant/float_layer.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

const int nb_site_first[NB_SITES] = {NB_Q, NB_O, NB_GATE, NB_DOWN}, nb_site_count[NB_SITES] = {3, 1, 2, 1};

void nb_float_layer_shape(nb_float_layer *out, const nb_config *config, int layer)
{
    int q = config->heads * config->head_dim, kv = config->kv_heads * config->head_dim;
    const struct { const char *name; int n, k; } linears[NB_LINEARS] = {
        {"self_attn.q_proj", q, config->hidden},         {"self_attn.k_proj", kv, config->hidden},
        {"self_attn.v_proj", kv, config->hidden},        {"self_attn.o_proj", config->hidden, q},
        {"mlp.gate_proj", config->intermediate, config->hidden}, {"mlp.up_proj", config->intermediate, config->hidden},
        {"mlp.down_proj", config->hidden, config->intermediate},
    };
    memset(out, 0, sizeof *out);
    for (int i = 0; i < NB_LINEARS; i++) {
        snprintf(out->name[i], sizeof out->name[i], "model.layers.%d.%s", layer, linears[i].name);
        out->n[i] = linears[i].n;
        out->k[i] = linears[i].k;
    }
    snprintf(out->norm_name[0], sizeof out->norm_name[0], "model.layers.%d.input_layernorm.weight", layer);
    snprintf(out->norm_name[1], sizeof out->norm_name[1], "model.layers.%d.post_attention_layernorm.weight", layer);
}

void nb_float_layer_free(nb_float_layer *l)
{
    for (int i = 0; i < NB_LINEARS; i++) {
        nb_linear_free(&l->source[i]);
        free(l->w[i]);
        free(l->divisor[i]);
    }
    for (int i = 0; i < 3; i++) free(l->bias[i]);
    for (int i = 0; i < 2; i++) free(l->norm[i]);
    memset(l, 0, sizeof *l);
}

/* ---- a matrix as floats, row by row in parallel ------------------------------------------------------------------------- */

typedef struct {
    const nb_weights *w;
    float            *out; /* [n, k] */
    atomic_int        bad; /* first row with a value that is not finite, or n */
} float_rows;

static void row_to_floats(float *out, const nb_weights *w, size_t row, size_t first, size_t count)
{
    nb_to_f32(out, (const char *)w->data + (row * (size_t)w->k + first) * nb_dtype_size(w->dtype), w->dtype, count);
}

static void check_row(void *context, size_t row, int thread)
{
    (void)thread;
    float_rows *f = context;
    float       values[1024];
    size_t      k = (size_t)f->w->k;
    bool        finite = true;
    for (size_t first = 0; first < k; first += NB_COUNT(values)) {
        size_t   n = k - first < NB_COUNT(values) ? k - first : NB_COUNT(values);
        uint32_t most = 0; /* of the magnitudes as bits, which order as the numbers do */
        row_to_floats(values, f->w, row, first, n);
        for (size_t i = 0; i < n; i++) {
            uint32_t bits;
            memcpy(&bits, &values[i], sizeof bits);
            bits &= 0x7fffffff;
            most = bits > most ? bits : most;
        }
        finite &= most < 0x7f800000;
    }
    for (int seen = atomic_load(&f->bad); !finite && (int)row < seen;)
        if (atomic_compare_exchange_weak(&f->bad, &seen, (int)row)) break;
}

static void fill_row(void *context, size_t row, int thread)
{
    (void)thread;
    const float_rows *f = context;
    row_to_floats(f->out + row * (size_t)f->w->k, f->w, row, 0, (size_t)f->w->k);
}

nb_status nb_float_layer_floats(nb_float_layer *l, int i, nb_pool *pool, nb_error *err)
{
    if (l->w[i]) return NB_OK;
    NB_TRY(nb_alloc(&l->w[i], (size_t)l->n[i] * (size_t)l->k[i], sizeof(float), l->name[i], err));
    float_rows f = {.w = &l->source[i].weights, .out = l->w[i]};
    nb_parallel(pool, (size_t)l->n[i], fill_row, &f);
    return NB_OK;
}

static nb_status check_values(const nb_float_layer *l, int i, const nb_model *model, nb_error *err)
{
    const nb_weights *w = &l->source[i].weights;
    float_rows        f = {.w = w, .bad = w->n};
    nb_parallel(model->ops.pool, (size_t)w->n, check_row, &f);
    if (f.bad == w->n) return NB_OK;
    for (int c = 0; c < w->k; c++) {
        float value;
        row_to_floats(&value, w, (size_t)f.bad, (size_t)c, 1);
        if (!isfinite(value))
            return nb_fail(err, NB_ERR_INPUT, "%s: tensor '%s.weight' holds %f at row %d, column %d; a model with such a weight "
                           "cannot be quantized", nb_checkpoint_path(model->checkpoint), l->name[i], (double)value, f.bad, c);
    }
    return NB_OK;
}

/* ---- reading ------------------------------------------------------------------------------------------------------------ */

static uint64_t hash_source(const nb_weights *w)
{
    return XXH64(w->data, (size_t)w->n * (size_t)w->k * nb_dtype_size(w->dtype), 0);
}

static nb_status read_linear(nb_float_layer *out, int i, const nb_model *model, nb_error *err)
{
    nb_linear *source = &out->source[i];
    NB_TRY(nb_linear_read(source, model->checkpoint, &model->config.quant, out->name[i], out->n[i], out->k[i], i <= NB_V, err));
    if (source->weights.kind != NB_W_FLOAT)
        return nb_fail(err, NB_ERR_INPUT, "%s: '%s' is already quantized; give the float checkpoint it was made from",
                       nb_checkpoint_path(model->checkpoint), out->name[i]);
    out->source_hash[i] = hash_source(&source->weights);
    return check_values(out, i, model, err);
}

/* A vector as it will be written: values already rounded to the written type. */
static nb_status read_vector(float **out, nb_dtype *written, const char *name, int n, const nb_model *model, const nb_plain *plain,
                             nb_error *err)
{
    const nb_entry *e;
    uint64_t        shape = (uint64_t)n;
    NB_TRY(nb_checkpoint_get(model->checkpoint, name, 1, &shape, &e, err));
    NB_TRY(nb_alloc(out, (size_t)n, sizeof(float), name, err));
    NB_TRY(nb_entry_read_f32(e, *out, err));
    *written = nb_plain_dtype(plain, e->tensor->dtype);
    void *rounded;
    NB_TRY(nb_alloc(&rounded, (size_t)n, nb_dtype_size(*written), name, err));
    nb_from_f32(rounded, *written, *out, (size_t)n);
    nb_to_f32(*out, rounded, *written, (size_t)n);
    free(rounded);
    return NB_OK;
}

static nb_status read_all(nb_float_layer *out, const nb_model *model, const nb_plain *plain, nb_error *err)
{
    for (int i = 0; i < 2; i++)
        NB_TRY(read_vector(&out->norm[i], &out->norm_dtype[i], out->norm_name[i], model->config.hidden, model, plain, err));
    for (int i = 0; i < NB_LINEARS; i++) NB_TRY(read_linear(out, i, model, err));
    for (int i = 0; i < 3; i++) {
        char name[80];
        snprintf(name, sizeof name, "%s.bias", out->name[i]);
        NB_TRY(read_vector(&out->bias[i], &out->bias_dtype[i], name, out->n[i], model, plain, err));
    }
    return NB_OK;
}

nb_status nb_float_layer_read(nb_float_layer *out, const nb_model *model, const nb_plain *plain, int layer, nb_error *err)
{
    nb_float_layer_shape(out, &model->config, layer);
    nb_status status = read_all(out, model, plain, err);
    if (status) nb_float_layer_free(out);
    return status;
}

void nb_float_layer_read_ahead(const nb_model *model, int layer)
{
    nb_float_layer names;
    nb_float_layer_shape(&names, &model->config, layer);
    for (int i = 0; i < NB_LINEARS; i++) {
        char name[80];
        snprintf(name, sizeof name, "%s.weight", names.name[i]);
        const nb_entry *e = nb_checkpoint_find(model->checkpoint, name);
        if (e) nb_entry_read_ahead(e);
    }
}

nb_status nb_float_layer_hash(uint64_t hash[NB_LINEARS], const nb_model *model, int layer, nb_error *err)
{
    nb_float_layer f;
    nb_status      status = NB_OK;
    nb_float_layer_shape(&f, &model->config, layer);
    for (int i = 0; i < NB_LINEARS && !status; i++) {
        nb_linear linear = {0};
        status = nb_linear_read(&linear, model->checkpoint, &model->config.quant, f.name[i], f.n[i], f.k[i], i <= NB_V, err);
        if (!status) hash[i] = linear.weights.kind == NB_W_FLOAT ? hash_source(&linear.weights) : 0;
        nb_linear_free(&linear);
    }
    return status;
}
