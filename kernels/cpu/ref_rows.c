/* ref_rows.c - definition of what happens to rows one by one: norms, activations, rotation, and storing K and V.
 *
 * All of it is a function of one row (or one element), computed in double and rounded once at the end.
 */
#include <math.h>

#include "kernels/cpu/cpu.h"

/* ---- norms ------------------------------------------------------------------ */

typedef struct {
    float       *y;
    const float *x, *w, *b; /* b NULL: root mean square, no centring */
    size_t       d;
    float        eps;
} norm_call;

/* y = x / sqrt(mean(x^2) + eps) * w  [Zhang & Sennrich 2019, eq. 4] */
static void rmsnorm_row(void *context, size_t row, int thread)
{
    (void)thread;
    const norm_call *c = context;
    const float     *x = c->x + row * c->d;
    float           *y = c->y + row * c->d;
    double           squares = 0;
    for (size_t j = 0; j < c->d; j++) squares += (double)x[j] * x[j];
    double scale = 1 / sqrt(squares / (double)c->d + c->eps);
    for (size_t j = 0; j < c->d; j++) y[j] = (float)(x[j] * scale * c->w[j]);
}

/* y = (x - mean(x)) / sqrt(var(x) + eps) * w + b, var divided by d */
static void layernorm_row(void *context, size_t row, int thread)
{
    (void)thread;
    const norm_call *c = context;
    const float     *x = c->x + row * c->d;
    float           *y = c->y + row * c->d;
    double           sum = 0, squares = 0;
    for (size_t j = 0; j < c->d; j++) sum += x[j];
    double mean = sum / (double)c->d;
    for (size_t j = 0; j < c->d; j++) squares += (x[j] - mean) * (x[j] - mean);
    double scale = 1 / sqrt(squares / (double)c->d + c->eps);
    for (size_t j = 0; j < c->d; j++) y[j] = (float)((x[j] - mean) * scale * c->w[j] + c->b[j]);
}

static void rmsnorm(const nb_ops *ops, float *y, const float *x, const float *w, size_t rows, int d, float eps)
{
    norm_call call = { .y = y, .x = x, .w = w, .d = (size_t)d, .eps = eps };
    nb_parallel(ops->pool, rows, rmsnorm_row, &call);
}

static void layernorm(const nb_ops *ops, float *y, const float *x, const float *w, const float *b, size_t rows, int d,
                      float eps)
{
    norm_call call = { .y = y, .x = x, .w = w, .b = b, .d = (size_t)d, .eps = eps };
    nb_parallel(ops->pool, rows, layernorm_row, &call);
}

/* ---- activations ------------------------------------------------------------ */

static double act_value(double x, nb_act act)
{
    switch (act) {
    case NB_ACT_SILU:       return x / (1 + exp(-x));
    case NB_ACT_QUICK_GELU: return x / (1 + exp(-1.702 * x));
    case NB_ACT_GELU:       return 0.5 * x * erfc(-x * M_SQRT1_2); /* x Phi(x); erfc keeps the digits of a far tail */
    }
    return NAN;
}

typedef struct {
    float       *y;
    const float *x;
    size_t       n;
    nb_act       act;
} act_call;

static void gate_row(void *context, size_t row, int thread)
{
    (void)thread;
    const act_call *c = context;
    const float    *gate = c->x + row * 2 * c->n, *up = gate + c->n;
    for (size_t j = 0; j < c->n; j++) c->y[row * c->n + j] = (float)(act_value(gate[j], c->act) * up[j]);
}

static void gate(const nb_ops *ops, float *y, const float *x, size_t rows, int n, nb_act act)
{
    act_call call = { .y = y, .x = x, .n = (size_t)n, .act = act };
    nb_parallel(ops->pool, rows, gate_row, &call);
}

enum { ELEMENTS = 4096 }; /* of an array, in one item */

static void activate_block(void *context, size_t block, int thread)
{
    (void)thread;
    const act_call *c = context;
    size_t          end = (block + 1) * ELEMENTS < c->n ? (block + 1) * ELEMENTS : c->n;
    for (size_t j = block * ELEMENTS; j < end; j++) c->y[j] = (float)act_value(c->x[j], c->act);
}

static void activate(const nb_ops *ops, float *x, size_t count, nb_act act)
{
    act_call call = { .y = x, .x = x, .n = count, .act = act };
    nb_parallel(ops->pool, (count + ELEMENTS - 1) / ELEMENTS, activate_block, &call);
}

static void add(const nb_ops *ops, float *y, const float *x, size_t count)
{
    (void)ops;
    for (size_t j = 0; j < count; j++) y[j] += x[j];
}

/* ---- rotation ---------------------------------------------------------------- */

typedef struct {
    float       *x;
    const float *cosines, *sines;
    size_t       ld, heads, half;
} rope_call;

static void rope_row(void *context, size_t row, int thread)
{
    (void)thread;
    const rope_call *c = context;
    const float     *cosines = c->cosines + row * c->half, *sines = c->sines + row * c->half;
    for (size_t h = 0; h < c->heads; h++) {
        float *first = c->x + row * c->ld + h * 2 * c->half, *second = first + c->half;
        for (size_t j = 0; j < c->half; j++) {
            double a = first[j], b = second[j];
            first[j] = (float)(a * cosines[j] - b * sines[j]);
            second[j] = (float)(b * cosines[j] + a * sines[j]);
        }
    }
}

static void rope(const nb_ops *ops, float *x, size_t ld, size_t rows, int heads, int d, const float *cosines,
                 const float *sines)
{
    rope_call call = { .x = x, .cosines = cosines, .sines = sines, .ld = ld, .heads = (size_t)heads, .half = (size_t)d / 2 };
    nb_parallel(ops->pool, rows, rope_row, &call);
}

/* ---- K and V into pages -------------------------------------------------------- */

static void store_codes(int8_t *codes, uint16_t *scale, const float *x, size_t d)
{
    float top = 0;
    bool  finite = true;
    for (size_t j = 0; j < d; j++) {
        finite = finite && isfinite(x[j]);
        top = fabsf(x[j]) > top ? fabsf(x[j]) : top;
    }
    *scale = nb_f32_to_bf16(finite ? top / 127.0f : NAN);
    float step = nb_bf16_to_f32(*scale);
    for (size_t j = 0; j < d; j++) {
        float code = step > 0 ? rintf(x[j] / step) : 0;
        codes[j] = (int8_t)(code > 127 ? 127 : code < -127 ? -127 : code); /* only where the scale is subnormal */
    }
}

/* d values into the page of a token and head */
static void store_head(const nb_attn *a, void *const *pages, size_t offset, size_t token, int head, const float *x)
{
    void *to = nb_kv_at(a, pages, offset, token, head);
    if (a->kv_type == NB_I8)
        store_codes(to, nb_kv_scale_at(a, pages, offset, token, head), x, (size_t)a->head_dim);
    else
        nb_from_f32(to, a->kv_type, x, (size_t)a->head_dim);
}

static void kv_store(const nb_ops *ops, const nb_attn *a, const nb_span *spans, size_t count, const float *k, const float *v,
                     size_t ld)
{
    (void)ops;
    size_t d = (size_t)a->head_dim;
    for (size_t s = 0; s < count; s++) {
        for (size_t r = 0; r < spans[s].rows; r++) {
            for (int h = 0; h < a->kv_heads; h++) {
                size_t from = (spans[s].first + r) * ld + (size_t)h * d, token = spans[s].past + r;
                store_head(a, spans[s].pages, a->k_offset, token, h, k + from);
                store_head(a, spans[s].pages, a->v_offset, token, h, v + from);
            }
        }
    }
}

void nb_ref_fill_rows(nb_ops *ops)
{
    ops->rmsnorm = rmsnorm;
    ops->layernorm = layernorm;
    ops->gate = gate;
    ops->activate = activate;
    ops->add = add;
    ops->rope = rope;
    ops->kv_store = kv_store;
}
