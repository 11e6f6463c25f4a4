/* pack.h - codes to the words of the published layouts.
 *
 *   AWQ GEMM   qweight I32 [k, n/8]  field i of a word holds column 8c + (0,2,4,6,1,3,5,7)[i];  qzeros I32 [groups, n/8] in
 *              the same order, zeros as they are;  scales F16 [groups, n]
 *   GPTQ v1    qweight I32 [k*bits/32, n]  packed along k, lowest bits first;  qzeros I32 [groups, n*bits/32] packed along n,
 *              zero - 1;  scales F16 [groups, n];  g_idx I32 [k]
 *   GPTQ v2    the same with zeros as they are
 *   compressed-tensors (pack-quantized)
 *              weight_packed I32 [n, ceil(k*bits/32)] packed along k, lowest bits first, field = signed code + 2^(bits-1), which
 *              is the unsigned code;  weight_scale F16 [n, groups];  weight_shape I64 [n, k];  only asymmetric:
 *              weight_zero_point I32 [ceil(n*bits/32), groups] packed along n;  only with an order: weight_g_idx I32 [k]
 */
#ifndef NB_PACK_H
#define NB_PACK_H

#include "quant/grid.h"

typedef enum { NB_FORMAT_AWQ, NB_FORMAT_GPTQ, NB_FORMAT_GPTQ_V2, NB_FORMAT_CT } nb_format;

typedef struct {
    uint32_t *qweight, *qzeros;
    uint16_t *scales;             /* f16 bits */
    int32_t  *g_idx;              /* GPTQ always, compressed-tensors when it permutes, AWQ never */
    size_t    qweight_shape[2], qzeros_shape[2], scales_shape[2];
} nb_packed;

/* Refuses what the format cannot hold (AWQ: 4 bits, n % 8, k % group, trivial g_idx; GPTQ: n, k % 32; v1: asymmetric zeros
 * of 0), naming `name`.  Compressed-tensors takes every shape. */
nb_status nb_pack(nb_packed *out, const nb_codes *c, nb_format format, const char *name, nb_error *err);
void      nb_packed_free(nb_packed *p);

#endif
