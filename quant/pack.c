/* pack.c - codes to words.  The layouts are drawn in pack.h; nothing is rounded or chosen here.
 *
 * Zeros of GPTQ v1 are stored minus one.  A zero of 0 would have to borrow from its neighbour in the word, and readers
 * disagree about what that means, so it is refused rather than written.
 */
#include "quant/pack.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/float.h"

/* The field of an AWQ word that holds column j of its octet: the inverse of 0 2 4 6 1 3 5 7. */
static const int AWQ_FIELD[8] = { 0, 4, 1, 5, 2, 6, 3, 7 };

static nb_status check_awq(const nb_codes *c, const char *name, nb_error *err)
{
    if (c->bits != 4)
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: AWQ files hold 4 bits, not %d; use a GPTQ format", name, c->bits);
    if (c->n % 8 != 0 || c->k % c->group != 0)
        return nb_fail(err, NB_ERR_UNSUPPORTED,
                       "%s: AWQ needs outputs in multiples of 8 and inputs in multiples of the group, not %d x %d with groups "
                       "of %d; use another group size or a GPTQ format", name, c->n, c->k, c->group);
    for (int i = 0; c->g_idx && i < c->k; i++)
        if (c->g_idx[i] != i / c->group)
            return nb_fail(err, NB_ERR_ARGUMENT,
                           "%s: AWQ files have no g_idx, but input %d is in group %d; use static groups or order 'group'", name, i,
                           (int)c->g_idx[i]);
    return NB_OK;
}

static nb_status check_bits(const nb_codes *c, const char *name, nb_error *err)
{
    if (c->bits == 4 || c->bits == 8) return NB_OK;
    return nb_fail(err, NB_ERR_ARGUMENT, "%s: %d bits cannot be packed: use 4 or 8", name, c->bits);
}

static nb_status check_g_idx(const nb_codes *c, const char *name, nb_error *err)
{
    for (int i = 0; c->g_idx && i < c->k; i++)
        if (c->g_idx[i] < 0 || c->g_idx[i] >= c->groups)
            return nb_fail(err, NB_ERR_ARGUMENT, "%s: input %d is in group %d of %d", name, i, (int)c->g_idx[i], c->groups);
    return NB_OK;
}

static nb_status check_gptq(const nb_codes *c, nb_format format, const char *name, nb_error *err)
{
    NB_TRY(check_bits(c, name, err));
    if (c->n % 32 != 0 || c->k % 32 != 0)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: GPTQ needs outputs and inputs in multiples of 32, not %d x %d", name, c->n,
                       c->k);
    NB_TRY(check_g_idx(c, name, err));
    for (size_t i = 0; format == NB_FORMAT_GPTQ && i < (size_t)c->n * (size_t)c->groups; i++)
        if (c->zeros[i] == 0)
            return nb_fail(err, NB_ERR_ARGUMENT,
                           "%s: output %zu, group %zu has zero point 0, which GPTQ v1 cannot hold (it stores zero - 1); use "
                           "format gptq_v2 or symmetric quantisation", name, i / (size_t)c->groups, i % (size_t)c->groups);
    return NB_OK;
}

static nb_status check_ct(const nb_codes *c, const char *name, nb_error *err)
{
    NB_TRY(check_bits(c, name, err));
    return check_g_idx(c, name, err);
}

/* A code or zero too large would spill into its neighbours; a scale that f16 changes is not the one the codes were made for. */
static nb_status check_range(const nb_codes *c, const char *name, nb_error *err)
{
    int maxq = (1 << c->bits) - 1;
    for (size_t i = 0; i < (size_t)c->n * (size_t)c->k; i++)
        if (c->codes[i] > maxq)
            return nb_fail(err, NB_ERR_ARGUMENT, "%s: code %d of weight [%zu, %zu] is more than %d bits hold", name,
                           c->codes[i], i / (size_t)c->k, i % (size_t)c->k, c->bits);
    for (size_t i = 0; i < (size_t)c->n * (size_t)c->groups; i++)
        if (c->zeros[i] > maxq)
            return nb_fail(err, NB_ERR_ARGUMENT, "%s: zero point %d of output %zu is more than %d bits hold", name, c->zeros[i],
                           i / (size_t)c->groups, c->bits);
    for (size_t i = 0; i < (size_t)c->n * (size_t)c->groups; i++)
        if (!(fabsf(c->scales[i]) <= 65504.0f) || nb_f16_to_f32(nb_f32_to_f16(c->scales[i])) != c->scales[i])
            return nb_fail(err, NB_ERR_ARGUMENT, "%s: scale %g of output %zu is not an f16 value", name, (double)c->scales[i],
                           i / (size_t)c->groups);
    return NB_OK;
}

/* Inputs in short runs, so that the words being filled stay in cache while the rows of codes go by. */
enum { RUN = 64 };

static void pack_awq(nb_packed *p, const nb_codes *c)
{
    size_t n = (size_t)c->n, k = (size_t)c->k, groups = (size_t)c->groups;
    for (size_t begin = 0; begin < k; begin += RUN)
        for (size_t r = 0; r < n; r++)
            for (size_t i = begin; i < begin + RUN && i < k; i++)
                p->qweight[i * (n / 8) + r / 8] |= (uint32_t)c->codes[r * k + i] << 4 * AWQ_FIELD[r % 8];
    for (size_t r = 0; r < n; r++)
        for (size_t g = 0; g < groups; g++)
            p->qzeros[g * (n / 8) + r / 8] |= (uint32_t)c->zeros[r * groups + g] << 4 * AWQ_FIELD[r % 8];
}

static void pack_gptq(nb_packed *p, const nb_codes *c, int minus)
{
    size_t n = (size_t)c->n, k = (size_t)c->k, groups = (size_t)c->groups, bits = (size_t)c->bits, fields = 32 / bits;
    for (size_t begin = 0; begin < k; begin += RUN)
        for (size_t r = 0; r < n; r++)
            for (size_t i = begin; i < begin + RUN && i < k; i++)
                p->qweight[i / fields * n + r] |= (uint32_t)c->codes[r * k + i] << i % fields * bits;
    for (size_t r = 0; r < n; r++)
        for (size_t g = 0; g < groups; g++)
            p->qzeros[g * (n / fields) + r / fields] |= (uint32_t)(c->zeros[r * groups + g] - minus) << r % fields * bits;
    for (size_t i = 0; i < k; i++) p->g_idx[i] = c->g_idx ? c->g_idx[i] : (int32_t)(i / (size_t)c->group);
}

static void pack_ct(nb_packed *p, const nb_codes *c)
{
    size_t n = (size_t)c->n, k = (size_t)c->k, groups = (size_t)c->groups, bits = (size_t)c->bits, fields = 32 / bits;
    size_t row = p->qweight_shape[1];
    for (size_t r = 0; r < n; r++)
        for (size_t i = 0; i < k; i++)
            p->qweight[r * row + i / fields] |= (uint32_t)c->codes[r * k + i] << i % fields * bits;
    for (size_t r = 0; r < n; r++)
        for (size_t g = 0; g < groups; g++)
            p->qzeros[r / fields * groups + g] |= (uint32_t)c->zeros[r * groups + g] << r % fields * bits;
    for (size_t i = 0; p->g_idx && i < k; i++) p->g_idx[i] = c->g_idx[i];
}

/* The arrays of a format, zeroed. */
static nb_status allocate(nb_packed *p, const nb_codes *c, nb_format format, nb_error *err)
{
    size_t n = (size_t)c->n, k = (size_t)c->k, groups = (size_t)c->groups, fields = 32 / (size_t)c->bits;
    bool   ct = format == NB_FORMAT_CT, awq = format == NB_FORMAT_AWQ;
    p->qweight_shape[0] = ct ? n : awq ? k : k / fields;
    p->qweight_shape[1] = ct ? (k + fields - 1) / fields : awq ? n / fields : n;
    p->qzeros_shape[0] = ct ? (n + fields - 1) / fields : groups;
    p->qzeros_shape[1] = ct ? groups : n / fields;
    p->scales_shape[0] = ct ? n : groups;
    p->scales_shape[1] = ct ? groups : n;
    NB_TRY(nb_alloc(&p->qweight, p->qweight_shape[0] * p->qweight_shape[1], sizeof *p->qweight, "packed codes", err));
    NB_TRY(nb_alloc(&p->qzeros, p->qzeros_shape[0] * p->qzeros_shape[1], sizeof *p->qzeros, "packed zeros", err));
    NB_TRY(nb_alloc(&p->scales, n * groups, sizeof *p->scales, "scales", err));
    return awq || (ct && !c->g_idx) ? NB_OK : nb_alloc(&p->g_idx, k, sizeof *p->g_idx, "g_idx", err);
}

nb_status nb_pack(nb_packed *out, const nb_codes *c, nb_format format, const char *name, nb_error *err)
{
    *out = (nb_packed){ 0 };
    NB_TRY(format == NB_FORMAT_AWQ  ? check_awq(c, name, err)
           : format == NB_FORMAT_CT ? check_ct(c, name, err)
                                    : check_gptq(c, format, name, err));
    NB_TRY(check_range(c, name, err));
    nb_packed p = { 0 };
    nb_status status = allocate(&p, c, format, err);
    if (status != NB_OK) {
        nb_packed_free(&p);
        return status;
    }
    size_t n = (size_t)c->n, groups = (size_t)c->groups;
    for (size_t r = 0; r < n; r++)
        for (size_t g = 0; g < groups; g++)
            p.scales[format == NB_FORMAT_CT ? r * groups + g : g * n + r] = nb_f32_to_f16(c->scales[r * groups + g]);
    if (format == NB_FORMAT_AWQ)
        pack_awq(&p, c);
    else if (format == NB_FORMAT_CT)
        pack_ct(&p, c);
    else
        pack_gptq(&p, c, format == NB_FORMAT_GPTQ ? 1 : 0);
    *out = p;
    return NB_OK;
}

void nb_packed_free(nb_packed *p)
{
    if (!p) return;
    free(p->qweight);
    free(p->qzeros);
    free(p->scales);
    free(p->g_idx);
    *p = (nb_packed){ 0 };
}
