/* ref_matmul.c - definition of pack, release, matmul and embed.
 *
 * Packing dequantises to f32 [n, k], row after row: with that the definition is a dot product, and what a code means is
 * said in one place only (matrix.c).  It costs 4 bytes per weight; this level is for checking, not for running.
 */
#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

/* ---- pack ------------------------------------------------------------------ */

static nb_status check_part(const nb_weights *first, const nb_weights *w, int part, nb_error *err)
{
    if (w->n <= 0 || w->k <= 0)
        return nb_fail(err, NB_ERR_ARGUMENT, "pack: part %d is an empty matrix [%d, %d]", part, w->n, w->k);
    if (w->kind != first->kind || w->k != first->k)
        return nb_fail(err, NB_ERR_ARGUMENT, "pack: part %d has %d inputs of kind %d, the first part %d of kind %d", part,
                       w->k, (int)w->kind, first->k, (int)first->kind);
    if (w->kind == NB_W_FLOAT) {
        if (w->dtype != NB_F32 && w->dtype != NB_BF16 && w->dtype != NB_F16)
            return nb_fail(err, NB_ERR_UNSUPPORTED, "pack: part %d is neither F32, BF16 nor F16", part);
        if (w->dtype != first->dtype)
            return nb_fail(err, NB_ERR_UNSUPPORTED, "pack: part %d has another element type than the first part", part);
        return NB_OK;
    }
    if (w->group <= 0 || w->group != first->group)
        return nb_fail(err, NB_ERR_ARGUMENT, "pack: part %d has group %d, the first part %d", part, w->group, first->group);
    if (!w->g_idx != !first->g_idx)
        return nb_fail(err, NB_ERR_ARGUMENT, "pack: of parts 0 and %d only one has a g_idx", part);
    int groups = (int)(((int64_t)w->k + w->group - 1) / w->group);
    for (int i = 0; w->g_idx && i < w->k; i++) {
        if (w->g_idx[i] < 0 || w->g_idx[i] >= groups)
            return nb_fail(err, NB_ERR_INPUT, "pack: g_idx[%d] = %d, but there are %d groups", i, w->g_idx[i], groups);
        if (w->g_idx[i] != first->g_idx[i])
            return nb_fail(err, NB_ERR_ARGUMENT, "pack: g_idx of parts 0 and %d differ at input %d", part, i);
    }
    return NB_OK;
}

nb_status nb_pack_check(nb_matrix *out, const nb_weights *parts, int count, nb_error *err)
{
    *out = (nb_matrix){ 0 };
    if (count <= 0) return nb_fail(err, NB_ERR_ARGUMENT, "pack: no parts");
    int64_t n = 0;
    for (int p = 0; p < count; p++) {
        NB_TRY(check_part(&parts[0], &parts[p], p, err));
        n += parts[p].n;
    }
    if (n > INT_MAX) return nb_fail(err, NB_ERR_UNSUPPORTED, "pack: %lld outputs are too many", (long long)n);
    *out = (nb_matrix){ .kind = parts[0].kind, .dtype = parts[0].dtype, .n = (int)n, .k = parts[0].k,
                        .group = parts[0].group };
    return NB_OK;
}

static nb_status pack(const nb_ops *ops, nb_matrix *out, const nb_weights *parts, int count, nb_error *err)
{
    (void)ops;
    NB_TRY(nb_pack_check(out, parts, count, err));
    size_t elements;
    float *rows = nb_mul((size_t)out->n, (size_t)out->k, &elements) ? nb_calloc_aligned(elements, sizeof *rows) : NULL;
    if (!rows) {
        nb_status status = nb_fail(err, NB_ERR_MEMORY, "no memory for a matrix [%d, %d] of f32", out->n, out->k);
        *out = (nb_matrix){ 0 };
        return status;
    }
    out->storage = rows;
    out->bytes = elements * sizeof *rows;
    for (int p = 0; p < count; p++) {
        nb_weights_to_f32(rows, &parts[p]);
        rows += (size_t)parts[p].n * (size_t)parts[p].k;
    }
    return NB_OK;
}

static void release(const nb_ops *ops, nb_matrix *m)
{
    (void)ops;
    if (!m->borrowed) free(m->storage);
    *m = (nb_matrix){ 0 };
}

static void describe(nb_matrix_image *out, const nb_matrix *m)
{
    *out = (nb_matrix_image){ .kind = m->kind, .dtype = m->dtype, .n = m->n, .k = m->k, .group = m->group, .bytes = m->storage, .size = m->bytes };
}

static nb_status attach(const nb_ops *ops, nb_matrix *out, const nb_matrix_image *from, nb_error *err)
{
    size_t size = sizeof(float);
    (void)ops;
    *out = (nb_matrix){ 0 };
    if (from->n <= 0 || from->k <= 0 || from->flags || from->perm || from->table_bytes)
        return nb_fail(err, NB_ERR_INPUT, "it describes no matrix");
    if (!nb_mul(size, (size_t)from->n, &size) || !nb_mul(size, (size_t)from->k, &size) || size != from->size || (uintptr_t)from->bytes % 64)
        return nb_fail(err, NB_ERR_INPUT, "its size is not that of a matrix [%d, %d]", from->n, from->k);
    *out = (nb_matrix){ .kind = from->kind, .dtype = from->dtype, .n = from->n, .k = from->k, .group = from->group, .bytes = size,
                        .storage = (void *)from->bytes, .borrowed = true };
    return NB_OK;
}

/* ---- matmul ---------------------------------------------------------------- */

typedef struct {
    float           *y;
    const float     *x, *bias;
    size_t           ldy, ldx, rows;
    const nb_matrix *w;
    bool             add;
} matmul_call;

/* One item is one output o for all rows: y[:, o]. */
static void matmul_output(void *context, size_t o, int thread)
{
    (void)thread;
    const matmul_call *c = context;
    const float       *w = (const float *)c->w->storage + o * (size_t)c->w->k;
    for (size_t r = 0; r < c->rows; r++) {
        const float *x = c->x + r * c->ldx;
        float       *y = c->y + r * c->ldy + o;
        double       sum = 0;
        for (int i = 0; i < c->w->k; i++) sum += (double)x[i] * w[i];
        if (c->bias) sum += c->bias[o];
        if (c->add) sum += *y;
        *y = (float)sum;
    }
}

static void matmul(const nb_ops *ops, float *y, size_t ldy, const float *x, size_t ldx, size_t rows, const nb_matrix *w,
                   const float *bias, bool add)
{
    matmul_call call = { .y = y, .x = x, .bias = bias, .ldy = ldy, .ldx = ldx, .rows = rows, .w = w, .add = add };
    nb_parallel(ops->pool, rows ? (size_t)w->n : 0, matmul_output, &call);
}

static void embed(const nb_ops *ops, float *y, const int32_t *ids, size_t rows, const nb_matrix *w)
{
    (void)ops;
    size_t k = (size_t)w->k;
    for (size_t r = 0; r < rows; r++) {
        assert(ids[r] >= 0 && ids[r] < w->n);
        memcpy(y + r * k, (const float *)w->storage + (size_t)ids[r] * k, k * sizeof *y);
    }
}

void nb_ref_fill_matmul(nb_ops *ops)
{
    ops->pack = pack;
    ops->release = release;
    ops->layout = "rows of f32, 1";
    ops->describe = describe;
    ops->attach = attach;
    ops->matmul = matmul;
    ops->embed = embed;
}
