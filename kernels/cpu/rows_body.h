/* rows_body.h - norms, activations, rotation and storing K and V on vectors; compiled once per level.
 *
 * All of it is bound by memory, or small.  A row is computed by one thread in an order that depends on its length alone;
 * the ends of rows go through the same operations as the rest, with the lanes behind the end masked. */
#ifndef NB_ROWS_BODY_H
#define NB_ROWS_BODY_H

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec_math.h"

#include <math.h>
#include <string.h>

enum { ELEMENTS = 8192 }; /* in one item, about: 2 us of work pays for handing it to another thread */

static inline size_t at_most(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Rows of d elements in one item, and the items of a call. */
static size_t rows_of_item(size_t d)
{
    return d < ELEMENTS ? ELEMENTS / d : 1;
}

static size_t items_of(size_t count, size_t each)
{
    return (count + each - 1) / each;
}

/* ---- norms ------------------------------------------------------------------ */

typedef struct {
    float       *y;
    const float *x, *w, *b;
    size_t       rows, d;
    float        eps;
} norm_call;

/* sum of (x - mean)^2; mean 0 gives the sum of squares */
static float sum_squares(const float *x, size_t d, float mean)
{
    vf     sum[4] = { vf_set(0.0f), vf_set(0.0f), vf_set(0.0f), vf_set(0.0f) }, m = vf_set(mean);
    size_t j = 0;
    for (; j + 4 * LANES <= d; j += 4 * LANES) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            vf c = vf_sub(vf_load(x + j + i * LANES), m);
            sum[i] = vf_fma(c, c, sum[i]);
        }
    }
    for (; j < d; j += LANES) {
        size_t n = at_most(LANES, d - j);
        vf     c = vf_first(vf_sub(vf_load_part(x + j, n), m), vf_set(0.0f), n);
        sum[0] = vf_fma(c, c, sum[0]);
    }
    return vf_sum(vf_add(vf_add(sum[0], sum[1]), vf_add(sum[2], sum[3])));
}

static float sum_row(const float *x, size_t d)
{
    vf sum = vf_set(0.0f);
    for (size_t j = 0; j < d; j += LANES) sum = vf_add(sum, vf_load_part(x + j, at_most(LANES, d - j)));
    return vf_sum(sum);
}

static void rmsnorm_rows(void *context, size_t item, int thread)
{
    (void)thread;
    const norm_call *c = context;
    size_t           each = rows_of_item(c->d), end = at_most((item + 1) * each, c->rows);
    for (size_t row = item * each; row < end; row++) {
        const float *x = c->x + row * c->d;
        float       *y = c->y + row * c->d;
        vf           scale = vf_set(1.0f / sqrtf(sum_squares(x, c->d, 0.0f) / (float)c->d + c->eps));
        for (size_t j = 0; j < c->d; j += LANES) {
            size_t n = at_most(LANES, c->d - j);
            vf_store_part(y + j, vf_mul(vf_mul(vf_load_part(x + j, n), scale), vf_load_part(c->w + j, n)), n);
        }
    }
}

static void layernorm_rows(void *context, size_t item, int thread)
{
    (void)thread;
    const norm_call *c = context;
    size_t           each = rows_of_item(c->d), end = at_most((item + 1) * each, c->rows);
    for (size_t row = item * each; row < end; row++) {
        const float *x = c->x + row * c->d;
        float       *y = c->y + row * c->d;
        float        mean = sum_row(x, c->d) / (float)c->d;
        vf           scale = vf_set(1.0f / sqrtf(sum_squares(x, c->d, mean) / (float)c->d + c->eps)), m = vf_set(mean);
        for (size_t j = 0; j < c->d; j += LANES) {
            size_t n = at_most(LANES, c->d - j);
            vf     centred = vf_mul(vf_sub(vf_load_part(x + j, n), m), scale);
            vf_store_part(y + j, vf_fma(centred, vf_load_part(c->w + j, n), vf_load_part(c->b + j, n)), n);
        }
    }
}

static void rmsnorm(const nb_ops *ops, float *y, const float *x, const float *w, size_t rows, int d, float eps)
{
    norm_call call = { .y = y, .x = x, .w = w, .rows = rows, .d = (size_t)d, .eps = eps };
    nb_parallel(ops->pool, items_of(rows, rows_of_item(call.d)), rmsnorm_rows, &call);
}

static void layernorm(const nb_ops *ops, float *y, const float *x, const float *w, const float *b, size_t rows, int d,
                      float eps)
{
    norm_call call = { .y = y, .x = x, .w = w, .b = b, .rows = rows, .d = (size_t)d, .eps = eps };
    nb_parallel(ops->pool, items_of(rows, rows_of_item(call.d)), layernorm_rows, &call);
}

/* ---- activations ------------------------------------------------------------ */

typedef struct {
    float       *y;
    const float *x;
    size_t       n; /* gate: outputs of a row; else elements */
    nb_act       act;
} act_call;

static inline vf act_vector(vf x, nb_act act)
{
    return act == NB_ACT_SILU ? vf_silu(x) : act == NB_ACT_GELU ? vf_gelu(x) : vf_quick_gelu(x);
}

static void gate_block(void *context, size_t item, int thread)
{
    (void)thread;
    const act_call *c = context;
    size_t          blocks = items_of(c->n, ELEMENTS), row = item / blocks, begin = item % blocks * ELEMENTS;
    const float    *x = c->x + row * 2 * c->n;
    for (size_t end = at_most(begin + ELEMENTS, c->n), j = begin; j < end; j += LANES) {
        size_t n = at_most(LANES, end - j);
        vf     g = act_vector(vf_load_part(x + j, n), c->act);
        vf_store_part(c->y + row * c->n + j, vf_mul(g, vf_load_part(x + c->n + j, n)), n);
    }
}

static void gate(const nb_ops *ops, float *y, const float *x, size_t rows, int n, nb_act act)
{
    act_call call = { .y = y, .x = x, .n = (size_t)n, .act = act };
    nb_parallel(ops->pool, rows * items_of(call.n, ELEMENTS), gate_block, &call);
}

static void activate_block(void *context, size_t item, int thread)
{
    (void)thread;
    const act_call *c = context;
    for (size_t end = at_most((item + 1) * ELEMENTS, c->n), j = item * ELEMENTS; j < end; j += LANES) {
        size_t n = at_most(LANES, end - j);
        vf_store_part(c->y + j, act_vector(vf_load_part(c->x + j, n), c->act), n);
    }
}

static void activate(const nb_ops *ops, float *x, size_t count, nb_act act)
{
    act_call call = { .y = x, .x = x, .n = count, .act = act };
    nb_parallel(ops->pool, items_of(count, ELEMENTS), activate_block, &call);
}

static void add_block(void *context, size_t item, int thread)
{
    (void)thread;
    const act_call *c = context;
    for (size_t end = at_most((item + 1) * ELEMENTS, c->n), j = item * ELEMENTS; j < end; j += LANES) {
        size_t n = at_most(LANES, end - j);
        vf_store_part(c->y + j, vf_add(vf_load_part(c->y + j, n), vf_load_part(c->x + j, n)), n);
    }
}

static void add(const nb_ops *ops, float *y, const float *x, size_t count)
{
    act_call call = { .y = y, .x = x, .n = count };
    nb_parallel(ops->pool, items_of(count, ELEMENTS), add_block, &call);
}

/* ---- rotation ---------------------------------------------------------------- */

typedef struct {
    float       *x;
    const float *cosines, *sines;
    size_t       ld, rows, heads, half;
} rope_call;

static void rope_rows(void *context, size_t item, int thread)
{
    (void)thread;
    const rope_call *c = context;
    size_t           each = rows_of_item(2 * c->half * c->heads), end = at_most((item + 1) * each, c->rows);
    for (size_t row = item * each; row < end; row++) {
        for (size_t h = 0; h < c->heads; h++) {
            float *first = c->x + row * c->ld + h * 2 * c->half, *second = first + c->half;
            for (size_t j = 0; j < c->half; j += LANES) {
                size_t n = at_most(LANES, c->half - j);
                vf     a = vf_load_part(first + j, n), b = vf_load_part(second + j, n);
                vf     cosine = vf_load_part(c->cosines + row * c->half + j, n);
                vf     sine = vf_load_part(c->sines + row * c->half + j, n);
                vf_store_part(first + j, vf_fms(a, cosine, vf_mul(b, sine)), n);
                vf_store_part(second + j, vf_fma(b, cosine, vf_mul(a, sine)), n);
            }
        }
    }
}

static void rope(const nb_ops *ops, float *x, size_t ld, size_t rows, int heads, int d, const float *cosines,
                 const float *sines)
{
    rope_call call = { .x = x, .cosines = cosines, .sines = sines, .ld = ld, .rows = rows, .heads = (size_t)heads,
                       .half = (size_t)d / 2 };
    nb_parallel(ops->pool, items_of(rows, rows_of_item(2 * call.half * call.heads)), rope_rows, &call);
}

/* ---- K and V into pages -------------------------------------------------------- */

typedef struct {
    const nb_attn *a;
    const nb_span *spans;
    const float   *k, *v;
    size_t         rows, ld; /* rows of all spans */
} store_call;

static void store_bf16(uint16_t *to, const float *from, size_t n)
{
    size_t j = 0;
    for (; j + LANES <= n; j += LANES) vf_store_bf16(to + j, vf_load(from + j));
    if (j < n) vf_store_bf16_part(to + j, vf_load_part(from + j, n - j), n - j);
}

/* I8, as ops.h says.  Quotients are divided, not multiplied by an inverse: every level stores the same bytes. */
static void store_codes(int8_t *to, uint16_t *scale, const float *from, size_t d)
{
    vf top = vf_set(0.0f), none = vf_set(0.0f); /* none: NaN once something is not finite */
    for (size_t j = 0; j < d; j += LANES) {
        vf x = vf_load_part(from + j, at_most(LANES, d - j));
        top = vf_max(vf_abs(x), top);
        none = vf_fma(x, vf_set(0.0f), none);
    }
    float rest = vf_sum(none);
    *scale = nb_f32_to_bf16(rest == 0 ? vf_top(top) / 127.0f : NAN);
    float step = nb_bf16_to_f32(*scale);
    vf    factor = vf_set(step > 0 ? step : 1.0f), most = vf_set(127.0f);
    for (size_t j = 0; j < d; j += LANES) {
        size_t n = at_most(LANES, d - j);
        vf     code = step > 0 ? vf_round(vf_div(vf_load_part(from + j, n), factor)) : vf_set(0.0f);
        vf_store_i8_part(to + j, vf_max(vf_min(code, most), vf_sub(vf_set(0.0f), most)), n);
    }
}

static void store_head(const nb_attn *a, void *const *pages, size_t offset, size_t token, int head, const float *from)
{
    void  *to = nb_kv_at(a, pages, offset, token, head);
    size_t d = (size_t)a->head_dim;
    if (a->kv_type == NB_I8)
        store_codes(to, nb_kv_scale_at(a, pages, offset, token, head), from, d);
    else if (a->kv_type == NB_BF16)
        store_bf16(to, from, d);
    else
        memcpy(to, from, d * sizeof(float));
}

static void store_token(const store_call *c, const nb_span *span, size_t r)
{
    const nb_attn *a = c->a;
    size_t         d = (size_t)a->head_dim, token = span->past + r;
    for (int h = 0; h < a->kv_heads; h++) {
        size_t from = (span->first + r) * c->ld + (size_t)h * d;
        store_head(a, span->pages, a->k_offset, token, h, c->k + from);
        store_head(a, span->pages, a->v_offset, token, h, c->v + from);
    }
}

static void store_rows(void *context, size_t item, int thread)
{
    (void)thread;
    const store_call *c = context;
    size_t            each = rows_of_item((size_t)(2 * c->a->kv_heads * c->a->head_dim));
    size_t            row = item * each, end = at_most(row + each, c->rows);
    const nb_span    *span = c->spans;
    size_t            before = 0; /* rows of the spans before this one */
    for (; row < end; row++) {
        while (row - before >= span->rows) before += span++->rows;
        store_token(c, span, row - before);
    }
}

static void kv_store(const nb_ops *ops, const nb_attn *a, const nb_span *spans, size_t count, const float *k, const float *v,
                     size_t ld)
{
    store_call call = { .a = a, .spans = spans, .k = k, .v = v, .ld = ld };
    for (size_t s = 0; s < count; s++) call.rows += spans[s].rows;
    nb_parallel(ops->pool, items_of(call.rows, rows_of_item((size_t)(2 * a->kv_heads * a->head_dim))), store_rows, &call);
}

static void fill_rows(nb_ops *ops)
{
    ops->rmsnorm = rmsnorm;
    ops->layernorm = layernorm;
    ops->gate = gate;
    ops->activate = activate;
    ops->add = add;
    ops->rope = rope;
    ops->kv_store = kv_store;
}

#endif
