/* linear.c - the readers of the published layouts.  The writers (quant/pack.c) are separate code on purpose: a round trip
 * through both is a test of both.
 *
 *   AWQ GEMM   qweight I32 [k, n/8], qzeros I32 [groups, n/8]: column j of an octet sits in field (0,4,1,5,2,6,3,7)[j];
 *              scales [groups, n]
 *   GPTQ       qweight I32 [k*bits/32, n]: fields along k; qzeros I32 [groups, n*bits/32]: fields along n, stored minus one
 *              in v1; scales [groups, n]; g_idx I32 [k], optional
 *   compressed-tensors   weight_packed I32 [n, ceil(k*bits/32)]: fields along k, value + 2^(bits-1); weight_scale [n, groups];
 *              weight_zero_point I32 [ceil(n*bits/32), groups] when asymmetric: fields along n;  weight_g_idx I32 [k] when inputs
 *              were ordered across groups
 */
#include "runtime/model/linear.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME = 256 };

void nb_linear_free(nb_linear *l)
{
    free(l->data);
    free(l->words);
    free(l->codes);
    free(l->zeros);
    free(l->scales);
    free(l->g_idx);
    free(l->bias);
    memset(l, 0, sizeof *l);
}

/* One layer being read: what every layout needs. */
typedef struct {
    const nb_checkpoint   *checkpoint;
    const nb_quant_config *q;
    const char            *prefix;
    int                    n, k, bits, group, groups;
    bool                   sym, desc_act;
    nb_linear             *out;
} reading;

static nb_status fetch(const reading *r, const char *suffix, nb_dtype dtype, uint64_t d0, uint64_t d1, void **out, nb_error *err)
{
    char name[NAME];
    snprintf(name, sizeof name, "%s.%s", r->prefix, suffix);
    const nb_entry *e;
    NB_TRY(nb_checkpoint_get(r->checkpoint, name, d1 ? 2 : 1, (uint64_t[]){ d0, d1 }, &e, err));
    if (e->tensor->dtype != dtype)
        return nb_fail(err, NB_ERR_INPUT, "%s: tensor '%s' is %s, expected %s", nb_safetensors_path(e->file), e->tensor->name,
                       e->tensor->dtype_name, dtype == NB_I64 ? "I64" : "I32");
    return nb_entry_read(e, out, err);
}

/* The codes as they are; the layout's function goes on with what belongs to them. */
static nb_status fetch_words(const reading *r, const char *suffix, uint64_t d0, uint64_t d1, nb_code_order order, nb_error *err)
{
    void *words;
    NB_TRY(fetch(r, suffix, NB_I32, d0, d1, &words, err));
    r->out->words = words;
    r->out->weights.order = order;
    return NB_OK;
}

static bool present(const reading *r, const char *suffix)
{
    char name[NAME];
    snprintf(name, sizeof name, "%s.%s", r->prefix, suffix);
    return nb_checkpoint_find(r->checkpoint, name) != NULL;
}

/* A float tensor of rows x cols (cols 0: rank 1) as f32, malloc'd. */
static nb_status fetch_f32(const reading *r, const char *suffix, uint64_t rows, uint64_t cols, float **out, nb_error *err)
{
    char name[NAME];
    snprintf(name, sizeof name, "%s.%s", r->prefix, suffix);
    const nb_entry *e;
    NB_TRY(nb_checkpoint_get(r->checkpoint, name, cols ? 2 : 1, (uint64_t[]){ rows, cols }, &e, err));
    NB_TRY(nb_alloc(out, e->tensor->count, sizeof **out, name, err));
    nb_status status = nb_entry_read_f32(e, *out, err);
    if (status == NB_OK)
        for (size_t i = 0; i < e->tensor->count; i++)
            if (!isfinite((*out)[i])) {
                status = nb_fail(err, NB_ERR_INPUT, "%s: tensor '%s' holds a value that is not finite at element %zu",
                                 nb_safetensors_path(e->file), e->tensor->name, i);
                break;
            }
    if (status != NB_OK) {
        free(*out);
        *out = NULL;
    }
    return status;
}

static unsigned field(uint32_t word, int bits, int i) { return word >> (bits * i) & ((1u << bits) - 1); }

/* scales [groups, n] in the file -> [n, groups] */
static nb_status read_scales_transposed(reading *r, nb_error *err)
{
    float *file;
    NB_TRY(fetch_f32(r, "scales", (uint64_t)r->groups, (uint64_t)r->n, &file, err));
    for (int o = 0, next; o < r->n; o = next) { /* a cache line of each group at a time */
        next = r->n - o < 16 ? r->n : o + 16;
        for (int g = 0; g < r->groups; g++)
            for (int i = o; i < next; i++) r->out->scales[(size_t)i * r->groups + g] = file[(size_t)g * r->n + i];
    }
    free(file);
    return NB_OK;
}

static nb_status read_awq(reading *r, nb_error *err)
{
    static const int place[8] = { 0, 4, 1, 5, 2, 6, 3, 7 };
    if (r->n % 8)
        return nb_fail(err, NB_ERR_INPUT, "%s: %s: %d outputs cannot be packed by eights as AWQ does",
                       nb_checkpoint_path(r->checkpoint), r->prefix, r->n);
    void  *zeros = NULL;
    size_t octets = (size_t)r->n / 8;
    NB_TRY(fetch_words(r, "qweight", (uint64_t)r->k, octets, NB_CODES_OUTPUTS, err));
    NB_TRY(fetch(r, "qzeros", NB_I32, (uint64_t)r->groups, octets, &zeros, err));
    const uint32_t *w = zeros;
    for (int g = 0; g < r->groups; g++)
        for (int o = 0; o < r->n; o++)
            r->out->zeros[(size_t)o * r->groups + g] = (uint8_t)field(w[g * octets + o / 8], 4, place[o % 8]);
    free(zeros);
    return read_scales_transposed(r, err);
}

static nb_status read_g_idx(reading *r, const char *suffix, nb_error *err)
{
    if (!present(r, suffix))
        return !r->desc_act ? NB_OK
                            : nb_fail(err, NB_ERR_INPUT, "%s: config.json says %s, but there is no %s.%s", r->prefix,
                                      r->q->method == NB_QUANT_CT ? "actorder group" : "desc_act", r->prefix, suffix);
    void *data;
    NB_TRY(fetch(r, suffix, NB_I32, (uint64_t)r->k, 0, &data, err));
    const int32_t *g = data;
    bool           trivial = true;
    for (int i = 0; i < r->k; i++) {
        if (g[i] < 0 || g[i] >= r->groups) {
            nb_status status = nb_fail(err, NB_ERR_INPUT, "%s: %s.%s: element %d is %d, there are %d groups",
                                       nb_checkpoint_path(r->checkpoint), r->prefix, suffix, i, g[i], r->groups);
            free(data);
            return status;
        }
        trivial = trivial && g[i] == i / r->group;
    }
    if (trivial)
        free(data);
    else
        r->out->g_idx = data;
    return NB_OK;
}

static nb_status read_gptq(reading *r, nb_error *err)
{
    int per = 32 / r->bits;
    if (r->k % per || r->n % per)
        return nb_fail(err, NB_ERR_INPUT, "%s: %s: %d x %d cannot be packed as GPTQ does (%d values a word)",
                       nb_checkpoint_path(r->checkpoint), r->prefix, r->n, r->k, per);
    void *zeros = NULL;
    NB_TRY(fetch_words(r, "qweight", (uint64_t)r->k / per, (uint64_t)r->n, NB_CODES_INPUTS, err));
    NB_TRY(fetch(r, "qzeros", NB_I32, (uint64_t)r->groups, (uint64_t)r->n / per, &zeros, err));
    const uint32_t *w = zeros;
    unsigned mask = (1u << r->bits) - 1;
    for (int g = 0; g < r->groups; g++)
        for (int o = 0; o < r->n; o++) {
            unsigned z = field(w[(size_t)g * (r->n / per) + o / per], r->bits, o % per);
            /* v1 stores zero - 1; a stored all-ones field is either 2^bits or a wrapped 0, and 0 is the only legal one */
            r->out->zeros[(size_t)o * r->groups + g] = (uint8_t)(r->q->v2 ? z : (z + 1) & mask);
        }
    free(zeros);
    NB_TRY(read_scales_transposed(r, err));
    return read_g_idx(r, "g_idx", err);
}

static nb_status read_ct(reading *r, nb_error *err)
{
    int      per = 32 / r->bits;
    size_t   row = ((size_t)r->k + per - 1) / per;
    unsigned half = 1u << (r->bits - 1);
    void    *zeros = NULL;
    void    *shape = NULL;
    NB_TRY(fetch(r, "weight_shape", NB_I64, 2, 0, &shape, err));
    int64_t n = ((int64_t *)shape)[0], k = ((int64_t *)shape)[1];
    free(shape);
    if (n != r->n || k != r->k)
        return nb_fail(err, NB_ERR_INPUT, "%s: %s.weight_shape says %lld x %lld, expected %d x %d",
                       nb_checkpoint_path(r->checkpoint), r->prefix, (long long)n, (long long)k, r->n, r->k);
    NB_TRY(fetch_words(r, "weight_packed", (uint64_t)r->n, row, NB_CODES_ROWS, err));
    if (present(r, "weight_zero_point")) {
        NB_TRY(fetch(r, "weight_zero_point", NB_I32, ((uint64_t)r->n + per - 1) / per, (uint64_t)r->groups, &zeros, err));
        const uint32_t *w = zeros;
        for (int o = 0; o < r->n; o++)
            for (int g = 0; g < r->groups; g++)
                r->out->zeros[(size_t)o * r->groups + g] = (uint8_t)field(w[(size_t)(o / per) * r->groups + g], r->bits, o % per);
        free(zeros);
    } else if (!r->sym) {
        return nb_fail(err, NB_ERR_INPUT, "%s: config.json says asymmetric, but there is no %s.weight_zero_point", r->prefix, r->prefix);
    } else {
        memset(r->out->zeros, (int)half, (size_t)r->n * r->groups);
    }
    float *scales;
    NB_TRY(fetch_f32(r, "weight_scale", (uint64_t)r->n, (uint64_t)r->groups, &scales, err));
    memcpy(r->out->scales, scales, (size_t)r->n * r->groups * sizeof *scales);
    free(scales);
    return read_g_idx(r, "weight_g_idx", err);
}

static uint64_t dimension(const reading *r, const char *suffix, int d)
{
    char name[NAME];
    snprintf(name, sizeof name, "%s.%s", r->prefix, suffix);
    const nb_entry *e = nb_checkpoint_find(r->checkpoint, name);
    return e && d < e->tensor->rank ? e->tensor->shape[d] : 0;
}

/* Whether the tensors have the sizes that a scheme gives them. */
static bool fits(const reading *r, const nb_quant_scheme *s)
{
    uint64_t group = s->group ? (uint64_t)s->group : (uint64_t)r->k, groups = ((uint64_t)r->k + group - 1) / group;
    uint64_t per = 32 / (uint64_t)s->bits, words = ((uint64_t)r->k + per - 1) / per;
    if (r->q->method == NB_QUANT_CT)
        return dimension(r, "weight_packed", 1) == words && dimension(r, "weight_scale", 1) == groups &&
               present(r, "weight_zero_point") == !s->sym && (!s->desc_act || present(r, "weight_g_idx"));
    return dimension(r, "qweight", 0) == words && dimension(r, "scales", 0) == groups;
}

static void take_scheme(reading *r, const nb_quant_scheme *s)
{
    r->bits = s->bits;
    r->sym = s->sym;
    r->desc_act = s->desc_act;
    r->group = s->group ? s->group : r->k;
    r->groups = (r->k + r->group - 1) / r->group;
}

/* The scheme of this matrix.  Where none fits it is the main one, whose sizes the errors then speak of. */
static nb_status find_scheme(reading *r, nb_error *err)
{
    const nb_quant_scheme main = {r->q->bits, r->q->group, r->q->sym, r->q->desc_act};
    bool                  found = r->q->more_count > 0 && r->q->method != NB_QUANT_AWQ && fits(r, &main);
    take_scheme(r, &main);
    for (int i = 0; i < r->q->more_count && r->q->method != NB_QUANT_AWQ; i++) {
        const nb_quant_scheme *s = &r->q->more[i];
        if (!fits(r, s)) continue;
        int group = s->group ? s->group : r->k;
        if (found && group != r->group && r->groups > 1)
            return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: config.json speaks of groups of %d and of %d, and the sizes of its tensors fit both",
                           r->prefix, r->group, group);
        if (!found) take_scheme(r, s);
        found = true;
    }
    return NB_OK;
}

static nb_status read_quantized(reading *r, nb_error *err)
{
    nb_linear *l = r->out;
    NB_TRY(find_scheme(r, err));
    NB_TRY(nb_alloc(&l->zeros, (size_t)r->n * r->groups, 1, r->prefix, err));
    NB_TRY(nb_alloc(&l->scales, (size_t)r->n * r->groups, sizeof *l->scales, r->prefix, err));
    switch (r->q->method) {
    case NB_QUANT_AWQ: NB_TRY(read_awq(r, err)); break;
    case NB_QUANT_GPTQ: NB_TRY(read_gptq(r, err)); break;
    case NB_QUANT_CT: NB_TRY(read_ct(r, err)); break;
    default:
        return nb_fail(err, NB_ERR_INPUT, "%s: %s is quantized but config.json has no quantization_config",
                       nb_checkpoint_path(r->checkpoint), r->prefix);
    }
    l->weights = (nb_weights){ .kind = r->bits == 4 ? NB_W_INT4 : NB_W_INT8, .n = r->n, .k = r->k, .group = r->group,
                               .order = l->weights.order, .words = l->words, .scales = l->scales, .zeros = l->zeros, .g_idx = l->g_idx };
    return NB_OK;
}

static nb_status read_float(reading *r, nb_error *err)
{
    char name[NAME];
    snprintf(name, sizeof name, "%s.weight", r->prefix);
    const nb_entry *e;
    NB_TRY(nb_checkpoint_get(r->checkpoint, name, 2, (uint64_t[]){ (uint64_t)r->n, (uint64_t)r->k }, &e, err));
    nb_dtype type = e->tensor->dtype;
    if (type != NB_F32 && type != NB_BF16 && type != NB_F16)
        return nb_fail(err, NB_ERR_INPUT, "%s: tensor '%s' is %s, expected F32, BF16 or F16", nb_safetensors_path(e->file),
                       e->tensor->name, e->tensor->dtype_name);
    NB_TRY(nb_entry_read(e, &r->out->data, err));
    r->out->weights = (nb_weights){ .kind = NB_W_FLOAT, .n = r->n, .k = r->k, .dtype = type, .data = r->out->data };
    return NB_OK;
}

static nb_status read_bias(reading *r, int wanted, nb_error *err)
{
    bool there = present(r, "bias");
    if (wanted == 0 && there)
        return nb_fail(err, NB_ERR_INPUT, "%s: %s.bias: this layer of a Qwen2-VL has no bias",
                       nb_checkpoint_path(r->checkpoint), r->prefix);
    if (!there && wanted != 1) return NB_OK;
    return fetch_f32(r, "bias", (uint64_t)r->n, 0, &r->out->bias, err);
}

nb_status nb_linear_read_bias(nb_linear *out, const nb_checkpoint *c, const char *prefix, int n, nb_error *err)
{
    memset(out, 0, sizeof *out);
    return read_bias(&(reading){ .checkpoint = c, .prefix = prefix, .n = n, .out = out }, 1, err);
}

nb_status nb_linear_read_words(nb_linear *out, const nb_checkpoint *c, const nb_quant_config *q, const char *prefix, int n, int k,
                               int bias_wanted, nb_error *err)
{
    memset(out, 0, sizeof *out);
    reading   r = { .checkpoint = c, .q = q, .prefix = prefix, .n = n, .k = k, .out = out };
    nb_status status = present(&r, "qweight") || present(&r, "weight_packed") ? read_quantized(&r, err) : read_float(&r, err);
    if (status == NB_OK) status = read_bias(&r, bias_wanted, err);
    if (status != NB_OK) nb_linear_free(out);
    return status;
}

/* Words to bytes. */
static nb_status unpack(nb_linear *l, const char *what, nb_error *err)
{
    nb_weights *w = &l->weights;
    size_t      n = (size_t)w->n, k = (size_t)w->k;
    if (!l->words) return NB_OK;
    NB_TRY(nb_alloc(&l->codes, n * k, 1, what, err));
    nb_weights_codes(l->codes, k, w, 0, n, 0, k);
    free(l->words);
    l->words = NULL;
    w->words = NULL;
    w->order = NB_CODES_BYTES;
    w->codes = l->codes;
    return NB_OK;
}

nb_status nb_linear_read(nb_linear *out, const nb_checkpoint *c, const nb_quant_config *q, const char *prefix, int n, int k,
                         int bias_wanted, nb_error *err)
{
    NB_TRY(nb_linear_read_words(out, c, q, prefix, n, k, bias_wanted, err));
    nb_status status = unpack(out, prefix, err);
    if (status != NB_OK) nb_linear_free(out);
    return status;
}
