/* modality.c - a pass of the float model over a few conversations, with the outputs of each site and of its rounding errors beside it.
 *
 * The idea of weighing modalities by their sensitivity is that of MBQ (Li et al. 2024, arXiv 2412.19509), which takes it from gradients;
 * here it is the error itself, which needs no backward pass.
 */
#include "quant/modality.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant/float_layer.h"
#include "quant/grid.h"
#include "quant/plain.h"

enum { ROWS = 64 /* of a product at a time */ };

typedef struct {
    const nb_ops *ops;
    nb_matrix     error[NB_SITES]; /* dW of the site's linears, stacked */
    const nb_matrix *whole[NB_SITES];
    float        *y_d, *y;         /* [ROWS, widest n] on the device and here */
    double        sums[2][NB_SITES][NB_MODALITIES]; /* |W x|^2 and |dW x|^2 of the layer */
} measuring;

static void add_squares(measuring *m, double sums[NB_MODALITIES], const nb_matrix *w, const float *x, size_t ld, size_t rows,
                        const uint8_t *modality)
{
    size_t n = (size_t)w->n;
    m->ops->matmul(m->ops, m->y_d, n, x, ld, rows, w, NULL, false);
    m->ops->download(m->ops, m->y, m->y_d, rows * n * sizeof(float));
    for (size_t r = 0; r < rows; r++) {
        double sum = 0;
        for (size_t i = 0; i < n; i++) sum += (double)m->y[r * n + i] * (double)m->y[r * n + i];
        if (modality[r] < NB_MODALITIES) sums[modality[r]] += sum; /* one that does not count is in no sum */
    }
}

static void tap(void *context, nb_site site, const float *x, size_t ld, int k, const nb_sample_rows *rows)
{
    measuring *m = context;
    size_t     all = rows->bounds[rows->count];
    (void)k; /* the matrices' own */
    for (size_t r = 0; r < all; r += ROWS) {
        size_t some = all - r < ROWS ? all - r : ROWS;
        add_squares(m, m->sums[0][site], m->whole[site], x + r * ld, ld, some, rows->modality + r);
        add_squares(m, m->sums[1][site], &m->error[site], x + r * ld, ld, some, rows->modality + r);
    }
}

/* w [n, k] becomes what rounding takes from it. */
static nb_status to_error(float *w, int n, int k, const nb_grid *grid, nb_pool *pool, nb_error *err)
{
    nb_codes codes;
    float   *rounded;
    size_t   count = (size_t)n * (size_t)k;
    NB_TRY(nb_rtn(&codes, w, n, k, grid, pool, err));
    nb_status status = nb_alloc(&rounded, count, sizeof *rounded, "a rounded matrix", err);
    if (!status) {
        nb_codes_dequantize(&codes, rounded);
        for (size_t i = 0; i < count; i++) w[i] -= rounded[i];
        free(rounded);
    }
    nb_codes_free(&codes);
    return status;
}

static nb_status pack_errors(measuring *m, nb_float_layer *f, const nb_grid *grid, nb_error *err)
{
    for (int site = 0; site < NB_SITES; site++) {
        nb_weights parts[3];
        int        first = nb_site_first[site];
        for (int i = 0; i < nb_site_count[site]; i++) {
            int at = first + i;
            NB_TRY(to_error(f->w[at], f->n[at], f->k[at], grid, m->ops->pool, err));
            parts[i] = (nb_weights){.kind = NB_W_FLOAT, .dtype = NB_F32, .n = f->n[at], .k = f->k[at], .data = f->w[at]};
        }
        NB_TRY(m->ops->pack(m->ops, &m->error[site], parts, nb_site_count[site], err));
    }
    return NB_OK;
}

static nb_status run_layer(measuring *m, const nb_float_model *s, nb_samples *samples, nb_float_layer *f, const nb_grid *grid, nb_error *err)
{
    nb_linear linears[NB_LINEARS];
    nb_layer  packed;
    nb_sample_tap watcher = {.site = tap, .context = m};
    for (int i = 0; i < NB_LINEARS; i++) linears[i] = (nb_linear){.weights = f->source[i].weights, .bias = i <= NB_V ? f->bias[i] : NULL};
    NB_TRY(nb_layer_pack(m->ops, &packed, &s->model->config, f->norm[0], f->norm[1], linears, err));
    const nb_matrix *whole[NB_SITES] = {&packed.qkv, &packed.o, &packed.gate_up, &packed.down};
    memcpy(m->whole, whole, sizeof whole);
    memset(m->sums, 0, sizeof m->sums);
    nb_status status = pack_errors(m, f, grid, err);
    if (!status) status = nb_samples_layer(samples, s->model, &packed, &watcher, true, err);
    for (int site = 0; site < NB_SITES; site++) {
        m->ops->release(m->ops, &m->error[site]);
        memset(&m->error[site], 0, sizeof m->error[site]);
    }
    nb_layer_release(m->ops, &packed);
    return status;
}

static nb_status run_layers(nb_modality_report *out, measuring *m, const nb_float_model *s, nb_samples *samples, const nb_grid *grid, nb_error *err)
{
    double sums[NB_MODALITIES] = {0};
    int    sites = NB_SITES * s->model->config.layers;
    nb_plain plain;
    NB_TRY(nb_plain_scan(&plain, s->model->checkpoint, &s->model->config, err));
    for (int i = 0; i < s->model->config.layers; i++) {
        nb_float_layer f;
        NB_TRY(nb_float_layer_read(&f, s->model, &plain, i, err));
        nb_status status = NB_OK;
        for (int j = 0; j < NB_LINEARS && !status; j++) status = nb_float_layer_floats(&f, j, s->model->ops.pool, err);
        if (!status) status = run_layer(m, s, samples, &f, grid, err);
        nb_float_layer_free(&f);
        NB_TRY(status);
        for (int site = 0; site < NB_SITES; site++)
            for (int k = 0; k < NB_MODALITIES; k++) sums[k] += m->sums[0][site][k] > 0 ? m->sums[1][site][k] / m->sums[0][site][k] : 0;
    }
    for (int k = 0; k < NB_MODALITIES; k++) out->error[k] = out->tokens[k] ? sums[k] / sites : NAN;
    return NB_OK;
}

/* weights ~ error, mean over tokens 1, to three digits: what is shown is what is used. */
static void weigh(nb_modality_report *out)
{
    double sum = 0, tokens = 0;
    for (int k = 0; k < NB_MODALITIES; k++)
        if (out->tokens[k]) sum += (double)out->tokens[k] * out->error[k], tokens += (double)out->tokens[k];
    for (int k = 0; k < NB_MODALITIES; k++) {
        double weight = out->tokens[k] && sum > 0 ? out->error[k] * tokens / sum : 1;
        out->weights[k] = (float)(rint(weight * 1000) / 1000);
    }
}

static nb_status measure(nb_modality_report *out, measuring *m, const nb_float_model *s, nb_samples *samples, const nb_samples_options *data,
                         const nb_grid *grid, nb_error *err)
{
    const nb_config   *c = &s->model->config;
    nb_samples_options few = *data;
    size_t             widest = 2 * (size_t)c->intermediate, qkv = (size_t)(c->heads + 2 * c->kv_heads) * (size_t)c->head_dim;
    if (qkv > widest) widest = qkv;
    if ((size_t)c->hidden > widest) widest = (size_t)c->hidden;
    if (!few.samples || few.samples > NB_MODALITY_SAMPLES) few.samples = NB_MODALITY_SAMPLES;
    few.embed = true;
    few.spool = NULL;
    NB_TRY(nb_samples_load(samples, s->model, &few, err));
    NB_TRY(nb_samples_embed(samples, s->model, err));
    memcpy(out->tokens, samples->counted, sizeof out->tokens);
    NB_TRY(nb_alloc(&m->y, ROWS * widest, sizeof *m->y, "outputs", err));
    m->y_d = m->ops->alloc(m->ops, ROWS * widest * sizeof *m->y);
    if (!m->y_d) return nb_fail(err, NB_ERR_MEMORY, "out of memory for outputs");
    NB_TRY(run_layers(out, m, s, samples, grid, err));
    weigh(out);
    return m->ops->status(m->ops, err);
}

nb_status nb_modality_measure(nb_modality_report *out, const nb_ops *ops, const char *model_dir, const nb_lora *loras, size_t lora_count,
                              const nb_samples_options *data, const nb_grid *grid, nb_error *err)
{
    measuring  m = {.ops = ops};
    nb_float_model  source;
    nb_samples samples = {0};
    nb_buf     merged = {0}, notes = {0}; /* the run that follows makes them too */
    memset(out, 0, sizeof *out);
    nb_status status = nb_float_model_open(&source, ops, model_dir, loras, lora_count, &merged, &notes, err);
    if (!status) status = measure(out, &m, &source, &samples, data, grid, err);
    if (m.y_d) ops->free(ops, m.y_d);
    free(m.y);
    nb_samples_free(&samples);
    nb_float_model_close(&source);
    nb_buf_free(&merged);
    nb_buf_free(&notes);
    return status;
}
