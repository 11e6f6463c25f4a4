/* ref_attention.c - definition of attention: out = softmax(scale * q K') V, in double.
 *
 * One item is one query row of one head.  The score of a token is computed twice, once for the maximum and once for its
 * weight, so that no memory grows with the context.
 */
#include <assert.h>
#include <math.h>

#include "kernels/cpu/cpu.h"

enum { MAX_HEAD_DIM = 256 };

/* Where the keys and values of one query are: token t has element j at k(t)[j]. */
typedef struct {
    const nb_attn *a;             /* paged when not NULL */
    const nb_span *span;
    const float   *keys, *values; /* else rows of f32 at a distance of ld */
    size_t         ld;
    int            head;
} source;

static double element(const source *s, bool value, size_t token, size_t j)
{
    if (!s->a) return (value ? s->values : s->keys)[token * s->ld + j];
    size_t      offset = value ? s->a->v_offset : s->a->k_offset;
    const void *p = nb_kv_at(s->a, s->span->pages, offset, token, s->head);
    if (s->a->kv_type == NB_I8)
        return ((const int8_t *)p)[j] * (double)nb_bf16_to_f32(*nb_kv_scale_at(s->a, s->span->pages, offset, token, s->head));
    return s->a->kv_type == NB_BF16 ? nb_bf16_to_f32(((const uint16_t *)p)[j]) : ((const float *)p)[j];
}

static double score(const source *s, const float *q, size_t token, size_t d)
{
    double sum = 0;
    for (size_t j = 0; j < d; j++) sum += q[j] * element(s, false, token, j);
    return sum;
}

static void attend_one(float *out, const float *q, const source *s, size_t tokens, size_t d, double scale)
{
    double sums[MAX_HEAD_DIM] = { 0 }, total = 0, top = -INFINITY;
    for (size_t t = 0; t < tokens; t++) {
        double x = scale * score(s, q, t, d);
        if (x > top) top = x;
    }
    for (size_t t = 0; t < tokens; t++) {
        double weight = exp(scale * score(s, q, t, d) - top);
        total += weight;
        for (size_t j = 0; j < d; j++) sums[j] += weight * element(s, true, t, j);
    }
    for (size_t j = 0; j < d; j++) out[j] = (float)(sums[j] / total);
}

/* ---- attend --------------------------------------------------------------------- */

typedef struct {
    const nb_attn *a;
    const nb_span *spans;
    size_t         count, ldo, ldq;
    float         *out;
    const float   *q;
} attend_call;

static void attend_item(void *context, size_t item, int thread)
{
    (void)thread;
    const attend_call *c = context;
    size_t             head = item % (size_t)c->a->heads, row = item / (size_t)c->a->heads, d = (size_t)c->a->head_dim;
    const nb_span     *span = c->spans;
    while (row >= span->rows) row -= span++->rows;
    source s = { .a = c->a, .span = span, .head = (int)head / (c->a->heads / c->a->kv_heads) };
    attend_one(c->out + (span->first + row) * c->ldo + head * d, c->q + (span->first + row) * c->ldq + head * d, &s,
               span->past + row + 1, d, c->a->scale);
}

static void attend(const nb_ops *ops, const nb_attn *a, const nb_span *spans, size_t count, float *out, size_t ldo,
                   const float *q, size_t ldq)
{
    assert(a->head_dim <= MAX_HEAD_DIM && a->heads % a->kv_heads == 0);
    attend_call call = { .a = a, .spans = spans, .count = count, .ldo = ldo, .ldq = ldq, .out = out, .q = q };
    size_t      rows = 0;
    for (size_t s = 0; s < count; s++) rows += spans[s].rows;
    nb_parallel(ops->pool, rows * (size_t)a->heads, attend_item, &call);
}

/* ---- attend_full ---------------------------------------------------------------- */

typedef struct {
    float        *out;
    const float  *qkv;
    size_t        ldo, ld, heads, d;
    const size_t *bounds;
    float         scale;
} full_call;

static void full_item(void *context, size_t item, int thread)
{
    (void)thread;
    const full_call *c = context;
    size_t           head = item % c->heads, row = c->bounds[0] + item / c->heads, segment = 0, width = c->heads * c->d;
    while (row >= c->bounds[segment + 1]) segment++;
    size_t       begin = c->bounds[segment], tokens = c->bounds[segment + 1] - begin;
    const float *base = c->qkv + begin * c->ld + head * c->d;
    source       s = { .keys = base + width, .values = base + 2 * width, .ld = c->ld };
    attend_one(c->out + row * c->ldo + head * c->d, c->qkv + row * c->ld + head * c->d, &s, tokens, c->d, c->scale);
}

static void attend_full(const nb_ops *ops, float *out, size_t ldo, const float *qkv, size_t ld, const size_t *bounds,
                        size_t segments, int heads, int d, float scale)
{
    assert(d <= MAX_HEAD_DIM);
    full_call call = { .out = out, .qkv = qkv, .ldo = ldo, .ld = ld, .heads = (size_t)heads, .d = (size_t)d,
                       .bounds = bounds, .scale = scale };
    nb_parallel(ops->pool, segments ? (bounds[segments] - bounds[0]) * (size_t)heads : 0, full_item, &call);
}

void nb_ref_fill_attention(nb_ops *ops)
{
    ops->attend = attend;
    ops->attend_full = attend_full;
}
