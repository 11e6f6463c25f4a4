/* smooth.c - where the four AWQ scales of a decoder layer go.
 *
 *     producer, rows / s            consumers, columns * s        channel c of the input belongs to
 *     input_layernorm               q k v                         norm weight c
 *     v_proj                        o                             row of v: kv head of head(c), same place in the head
 *     post_attention_layernorm      gate up                       norm weight c
 *     up_proj                       down                          row c of up
 *
 * The layer computes the same function before and after, up to rounding.  A norm is stored in 16 bits: the scale that its
 * consumers get is the exact quotient of the old weight and the stored one, so that rounding it costs nothing.  v and up are
 * quantised after they were scaled, and v's bias rounds to 16 bits, which no exact quotient can mend: that is below a
 * thousandth of a weight that is itself rounded to 4 bits.
 */
#include "quant/smooth.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* [k] of o's input: the first channel that is fed by the same row of v.  Heads of one group share their kv head. */
static void tie_heads(int32_t *tie, const nb_config *c)
{
    int group = c->heads / c->kv_heads;
    for (int h = 0; h < c->heads; h++)
        for (int d = 0; d < c->head_dim; d++) tie[h * c->head_dim + d] = h / group * group * c->head_dim + d;
}

static nb_status search(float *scale[NB_SITES], const nb_float_layer *l, const nb_config *config, double *const gram[NB_SITES],
                        const float *const mean_abs[NB_SITES], const nb_awq_options options[NB_SITES], nb_pool *pool,
                        nb_awq_report report[NB_SITES], nb_error *err)
{
    int32_t *tie;
    NB_TRY(nb_alloc(&tie, (size_t)l->k[NB_O], sizeof *tie, "head groups", err));
    tie_heads(tie, config);
    nb_status status = NB_OK;
    for (int site = 0; site < NB_SITES && !status; site++) {
        int          first = nb_site_first[site], rows[3];
        const float *consumers[3];
        for (int i = 0; i < nb_site_count[site]; i++) {
            consumers[i] = l->w[first + i];
            rows[i] = l->n[first + i];
        }
        status = nb_alloc(&scale[site], (size_t)l->k[first], sizeof(float), "AWQ scales", err);
        for (int i = 0; i < l->k[first] && !status; i++) scale[site][i] = 1;
        report[site] = (nb_awq_report){.ratio = -1};
        if (!status && options[site].grid.bits)
            status = nb_awq_search(scale[site], consumers, rows, nb_site_count[site], l->k[first], gram[site], mean_abs[site],
                                   site == NB_SITE_O ? tie : NULL, &options[site], pool, &report[site], err);
        if (status) nb_error_within(err, "%s", l->name[first]);
    }
    free(tie);
    return status;
}

static float rounded(float x, nb_dtype type)
{
    uint32_t bits = 0;
    nb_from_f32(&bits, type, &x, 1);
    nb_to_f32(&x, &bits, type, 1);
    return x;
}

/* Divide a norm by s, round it, and leave in s the factor that it really lost. */
static void fold_norm(float *norm, nb_dtype type, float *s, int n)
{
    for (int i = 0; i < n; i++) {
        float stored = rounded(norm[i] / s[i], type), exact = stored == 0 ? 1 : norm[i] / stored;
        bool  usable = stored != 0 && isfinite(stored) && isfinite(exact) && exact > 0;
        s[i] = usable ? exact : 1; /* 0, or beyond the type: this channel is left alone */
        if (usable) norm[i] = stored;
    }
}

/* Divide the rows of matrix i by the scale of the input channel that each feeds, and remember by what. */
static nb_status fold_rows(nb_float_layer *l, int i, const float *s, const int32_t *channel, nb_error *err)
{
    int n = l->n[i], k = l->k[i];
    NB_TRY(nb_alloc(&l->divisor[i], (size_t)n, sizeof(float), "row scales", err));
    for (int r = 0; r < n; r++) {
        float divisor = l->divisor[i][r] = s[channel ? channel[r] : r];
        for (int c = 0; c < k; c++) l->w[i][(size_t)r * k + c] /= divisor;
    }
    return NB_OK;
}

static void scale_columns(float *w, int n, int k, const float *s)
{
    for (int r = 0; r < n; r++)
        for (int i = 0; i < k; i++) w[(size_t)r * k + i] *= s[i];
}

static void scale_gram(double *h, int k, const float *s)
{
    for (int i = 0; i < k; i++)
        for (int j = 0; j < k; j++) h[(size_t)i * k + j] /= (double)s[i] * s[j];
}

/* v and its bias; a bias that would leave its type keeps the channels it feeds unscaled. */
static nb_status fold_value(nb_float_layer *l, float *s, const nb_config *c, nb_error *err)
{
    int      n = l->n[NB_V], group = c->heads / c->kv_heads;
    int32_t *channel; /* [n] first input channel of o that row r of v feeds */
    NB_TRY(nb_alloc(&channel, (size_t)n, sizeof *channel, "head groups", err));
    for (int r = 0; r < n; r++) {
        channel[r] = r / c->head_dim * group * c->head_dim + r % c->head_dim;
        float bias = rounded(l->bias[NB_V][r] / s[channel[r]], l->bias_dtype[NB_V]);
        for (int g = 0; g < group && !isfinite(bias); g++) s[channel[r] + g * c->head_dim] = 1;
        if (isfinite(bias)) l->bias[NB_V][r] = bias;
    }
    nb_status status = fold_rows(l, NB_V, s, channel, err);
    free(channel);
    return status;
}

static nb_status apply(nb_float_layer *l, float *const scale[NB_SITES], const nb_config *config, double *const gram[NB_SITES],
                       nb_error *err)
{
    fold_norm(l->norm[0], l->norm_dtype[0], scale[NB_SITE_QKV], config->hidden);
    fold_norm(l->norm[1], l->norm_dtype[1], scale[NB_SITE_GATE_UP], config->hidden);
    NB_TRY(fold_value(l, scale[NB_SITE_O], config, err));
    NB_TRY(fold_rows(l, NB_UP, scale[NB_SITE_DOWN], NULL, err));
    for (int site = 0; site < NB_SITES; site++) {
        int first = nb_site_first[site];
        for (int i = first; i < first + nb_site_count[site]; i++) scale_columns(l->w[i], l->n[i], l->k[i], scale[site]);
        scale_gram(gram[site], l->k[first], scale[site]);
    }
    return NB_OK;
}

nb_status nb_smooth_layer(nb_float_layer *l, const nb_config *config, double *const gram[NB_SITES],
                          const float *const mean_abs[NB_SITES], const nb_awq_options options[NB_SITES], nb_pool *pool,
                          float *scale[NB_SITES], nb_awq_report report[NB_SITES], nb_error *err)
{
    nb_status status = search(scale, l, config, gram, mean_abs, options, pool, report, err);
    if (!status) status = apply(l, scale, config, gram, err);
    return status;
}
