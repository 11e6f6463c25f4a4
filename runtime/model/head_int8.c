/* head_int8.c - the head in int8 groups of 128 in the place of the checkpoint's floats.
 *
 * Every generated token reads all of the head: 0.47 GB of bf16 on a 2B, more than a third of what an int4 checkpoint reads in
 * all.  Symmetric round to nearest, code = element / scale, scale = largest |element| of the group / 127. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/model/model.h"

enum { GROUP = 128 };

typedef struct {
    const nb_weights *from;
    uint8_t          *codes;  /* [n, k] */
    float            *scales; /* [n, groups] */
} rounding;

/* The scale is an f16 number where that costs it no digits (packed matrices keep such ones in 16 bits); infinite when an element
 * is not finite. */
static void round_group(uint8_t *codes, float *scale, const float *x, size_t n)
{
    float top = 0;
    for (size_t i = 0; i < n; i++) top = !isfinite(x[i]) ? INFINITY : fabsf(x[i]) > top ? fabsf(x[i]) : top;
    float half = nb_f16_to_f32(nb_f32_to_f16(top / 127.0f));
    *scale = half >= 0x1p-14f && isfinite(half) ? half : top / 127.0f;
    for (size_t i = 0; i < n; i++) {
        float code = *scale > 0 ? rintf(x[i] / *scale) : 0;
        codes[i] = (uint8_t)(128 + (code > 127 ? 127 : code < -127 ? -127 : code));
    }
}

static void round_row(void *context, size_t row, int thread)
{
    const rounding *r = context;
    size_t          k = (size_t)r->from->k, groups = (k + GROUP - 1) / GROUP, size = nb_dtype_size(r->from->dtype);
    const char     *from = (const char *)r->from->data + row * k * size;
    (void)thread;
    for (size_t g = 0; g < groups; g++) {
        float  x[GROUP];
        size_t first = g * GROUP, n = k - first < GROUP ? k - first : GROUP;
        nb_to_f32(x, from + first * size, r->from->dtype, n);
        round_group(r->codes + row * k + first, &r->scales[row * groups + g], x, n);
    }
}

/* Pack the head of l into *out; one that holds codes stays as it is. */
static nb_status pack_head(nb_matrix *out, const nb_ops *ops, nb_linear *l, nb_error *err)
{
    nb_weights *w = &l->weights;
    size_t      groups = ((size_t)w->k + GROUP - 1) / GROUP;
    NB_TRY(nb_alloc(&l->codes, (size_t)w->n * (size_t)w->k, 1, "the head's codes", err));
    NB_TRY(nb_alloc(&l->scales, (size_t)w->n * groups, sizeof *l->scales, "the head's scales", err));
    rounding r = { .from = w, .codes = l->codes, .scales = l->scales };
    nb_parallel(ops->pool, (size_t)w->n, round_row, &r);
    for (size_t i = 0; i < (size_t)w->n * groups; i++)
        if (!isfinite(l->scales[i])) return nb_fail(err, NB_ERR_INPUT, "the head holds a value that is not finite in row %zu", i / groups);
    free(l->data); /* before the packed form needs its memory */
    l->data = NULL;
    *w = (nb_weights){ .kind = NB_W_INT8, .n = w->n, .k = w->k, .group = GROUP, .codes = l->codes, .scales = l->scales };
    return ops->pack(ops, out, w, 1, err);
}

nb_status nb_model_head_int8(nb_model *m, nb_error *err)
{
    const nb_config *c = &m->config;
    nb_matrix        packed;
    nb_linear        l;
    if (nb_model_head(m)->kind != NB_W_FLOAT) return NB_OK; /* codes already */
    NB_TRY(nb_linear_read(&l, m->checkpoint, &c->quant, c->tied ? "model.embed_tokens" : "lm_head", c->vocab, c->hidden, 0, err));
    nb_status status = pack_head(&packed, &m->ops, &l, err);
    nb_linear_free(&l);
    if (status != NB_OK) return nb_error_within(err, "%s", nb_checkpoint_path(m->checkpoint));
    m->weight_bytes += packed.bytes - m->head.bytes;
    m->ops.release(&m->ops, &m->head);
    m->head = packed;
    return NB_OK;
}
