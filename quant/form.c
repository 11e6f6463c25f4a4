/* form.c - which tensors a quantized matrix becomes.  One table serves the plan, the declaration and the writing, so that they
 * cannot disagree. */
#include "quant/form.h"

#include <stdio.h>
#include <stdlib.h>

enum { NAME = 256 };

int nb_form_parts(nb_form_part out[NB_FORM_PARTS], nb_format format, const nb_grid *grid, bool permuted, int rows, int columns)
{
    uint64_t n = (uint64_t)rows, k = (uint64_t)columns, group = grid->group > 0 ? (uint64_t)grid->group : k;
    uint64_t groups = (k + group - 1) / group, fields = 32 / (uint64_t)grid->bits;
    int      count = 0;
    if (format == NB_FORMAT_CT) {
        out[count++] = (nb_form_part){".weight_packed", NB_I32, 2, {n, (k + fields - 1) / fields}};
        out[count++] = (nb_form_part){".weight_scale", NB_F16, 2, {n, groups}};
        out[count++] = (nb_form_part){".weight_shape", NB_I64, 1, {2, 0}};
        if (!grid->sym) out[count++] = (nb_form_part){".weight_zero_point", NB_I32, 2, {(n + fields - 1) / fields, groups}};
        if (permuted) out[count++] = (nb_form_part){".weight_g_idx", NB_I32, 1, {k, 0}};
        return count;
    }
    bool awq = format == NB_FORMAT_AWQ;
    out[count++] = (nb_form_part){".qweight", NB_I32, 2, {awq ? k : k / fields, awq ? n / fields : n}};
    out[count++] = (nb_form_part){".qzeros", NB_I32, 2, {groups, n / fields}};
    out[count++] = (nb_form_part){".scales", NB_F16, 2, {groups, n}};
    if (!awq) out[count++] = (nb_form_part){".g_idx", NB_I32, 1, {k, 0}};
    return count;
}

static uint64_t part_bytes(const nb_form_part *p)
{
    return p->shape[0] * (p->rank > 1 ? p->shape[1] : 1) * nb_dtype_size(p->dtype);
}

uint64_t nb_form_bytes(nb_format format, const nb_grid *grid, bool permuted, int n, int k)
{
    nb_form_part parts[NB_FORM_PARTS];
    uint64_t     bytes = 0;
    int          count = nb_form_parts(parts, format, grid, permuted, n, k);
    for (int i = 0; i < count; i++) bytes += part_bytes(&parts[i]);
    return bytes;
}

nb_status nb_form_declare(nb_writer *w, const char *name, nb_format format, const nb_grid *grid, bool permuted, int n, int k,
                          nb_error *err)
{
    nb_form_part parts[NB_FORM_PARTS];
    int          count = nb_form_parts(parts, format, grid, permuted, n, k);
    for (int i = 0; i < count; i++) {
        char full[NAME];
        snprintf(full, sizeof full, "%s%s", name, parts[i].suffix);
        NB_TRY(nb_writer_declare(w, full, parts[i].dtype, parts[i].rank, parts[i].shape, err));
    }
    return NB_OK;
}

static nb_status put(nb_writer *w, const char *name, const char *suffix, const void *data, uint64_t bytes, nb_error *err)
{
    char full[NAME];
    snprintf(full, sizeof full, "%s%s", name, suffix);
    return nb_writer_append(w, full, data, bytes, err);
}

/* Symmetric codes whose zeros are elsewhere would be written as if they were not. */
static nb_status check_middle(const nb_codes *c, const char *name, nb_error *err)
{
    for (size_t i = 0; i < (size_t)c->n * (size_t)c->groups; i++)
        if (c->zeros[i] != 1 << (c->bits - 1))
            return nb_fail(err, NB_ERR_ARGUMENT, "%s: zero point %d of output %zu is not the middle, as symmetric codes "
                           "have it", name,
                           c->zeros[i], i / (size_t)c->groups);
    return NB_OK;
}

nb_status nb_form_shape(nb_writer *w, const char *name, int n, int k, nb_error *err)
{
    const int64_t shape[2] = {n, k};
    return put(w, name, ".weight_shape", shape, sizeof shape, err);
}

/* The order of inputs: by its words, or k / group where the solver found that nothing moves. */
static nb_status write_order(nb_writer *w, const char *name, bool ct, const nb_codes *c, const nb_packed *p, nb_error *err)
{
    const char *suffix = ct ? ".weight_g_idx" : ".g_idx";
    uint64_t    bytes = (uint64_t)c->k * sizeof(int32_t);
    int32_t    *trivial;
    if (p->g_idx) return put(w, name, suffix, p->g_idx, bytes, err);
    NB_TRY(nb_alloc(&trivial, (size_t)c->k, sizeof *trivial, "g_idx", err));
    for (int i = 0; i < c->k; i++) trivial[i] = i / c->group;
    nb_status status = put(w, name, suffix, trivial, bytes, err);
    free(trivial);
    return status;
}

static nb_status write_parts(nb_writer *w, const char *name, nb_format format, const nb_grid *grid, bool permuted,
                             const nb_codes *c,
                             const nb_packed *p, nb_error *err)
{
    bool     ct = format == NB_FORMAT_CT;
    uint64_t words = p->qweight_shape[0] * p->qweight_shape[1] * 4, zeros = p->qzeros_shape[0] * p->qzeros_shape[1] * 4;
    uint64_t scales = p->scales_shape[0] * p->scales_shape[1] * 2;
    NB_TRY(put(w, name, ct ? ".weight_packed" : ".qweight", p->qweight, words, err));
    NB_TRY(put(w, name, ct ? ".weight_scale" : ".scales", p->scales, scales, err));
    if (!ct || !grid->sym) NB_TRY(put(w, name, ct ? ".weight_zero_point" : ".qzeros", p->qzeros, zeros, err));
    if (ct) NB_TRY(nb_form_shape(w, name, c->n, c->k, err));
    return format == NB_FORMAT_AWQ || (ct && !permuted) ? NB_OK : write_order(w, name, ct, c, p, err);
}

nb_status nb_form_write(nb_writer *w, const char *name, nb_format format, const nb_grid *grid, bool permuted, const nb_codes *c,
                        nb_error *err)
{
    nb_packed p;
    if (grid->sym) NB_TRY(check_middle(c, name, err));
    for (int i = 0; c->g_idx && !permuted && i < c->k; i++)
        if (c->g_idx[i] != i / c->group)
            return nb_fail(err, NB_ERR_ARGUMENT, "%s: input %d is in group %d, but no order was announced", name, i,
                           (int)c->g_idx[i]);
    NB_TRY(nb_pack(&p, c, format, name, err));
    nb_status status = write_parts(w, name, format, grid, permuted, c, &p, err);
    nb_packed_free(&p);
    return status;
}

nb_status nb_form_append(nb_writer *w, const char *name, const nb_codes *rows, nb_error *err)
{
    nb_packed p;
    NB_TRY(check_middle(rows, name, err));
    NB_TRY(nb_pack(&p, rows, NB_FORMAT_CT, name, err));
    nb_status status = put(w, name, ".weight_packed", p.qweight, p.qweight_shape[0] * p.qweight_shape[1] * 4, err);
    if (!status) status = put(w, name, ".weight_scale", p.scales, p.scales_shape[0] * p.scales_shape[1] * 2, err);
    nb_packed_free(&p);
    return status;
}
