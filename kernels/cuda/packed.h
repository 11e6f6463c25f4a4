/* packed.h - a weight matrix in the order in which the GPU reads it.
 *
 * Output rows one after the other; a row is its inputs in chunks of 32, and a chunk lies within one group:
 *
 *     values   [n][chunks][32]   INT4: 16 bytes a chunk, input j of a word of 8 in bits 4 j .. 4 j + 3
 *                                INT8: 32 bytes;  FLOAT: the source's own type, 64 or 128 bytes
 *     scales   [n][groups]       f16 if every one of them is an f16 number, else f32: packing never rounds
 *     zeros    [n][groups] u8    NULL: 8 or 128 everywhere
 *     group_of [chunks]          of a chunk
 *     input    [32 chunks]       which x a packed column multiplies, -1: none (padding).  NULL: column j is input j, and
 *                                columns from k on are padding.  Under act-order the columns are sorted by group.
 *
 * Rows start at multiples of 16 bytes, so that 8 inputs are one load of 4 to 32 bytes.
 *
 * The order of a dot product is the same in every kernel, which makes a row's result the same in every kernel:
 *
 *     chunk     a chain of 32 fused multiply-adds from 0, in the order of the columns; times the scale, rounded
 *     segment   32 chunks, added in ascending order from 0
 *     total     segments, added in ascending order from 0; then bias, then the old y
 */
#ifndef NB_CUDA_PACKED_H
#define NB_CUDA_PACKED_H

#include "kernels/cuda/device.h"

enum { NB_CHUNK = 32, NB_SEGMENT = 32, NB_PIECE = 8 }; /* inputs; chunks; inputs of one load */

typedef struct { /* all pointers into device memory; passed to kernels by value */
    int            kind, dtype, n, k, groups, chunks, middle;
    bool           half_scales;
    size_t         row_bytes; /* of values */
    uint8_t       *values;
    void          *scales;
    uint8_t       *zeros;
    const int32_t *group_of, *input;
} nb_cuda_weights;            /* nb_matrix.storage points to one in host memory */

static inline const nb_cuda_weights *nb_cuda_packed(const nb_matrix *m) { return (const nb_cuda_weights *)m->storage; }

static __device__ inline float nb_weight_scale(const nb_cuda_weights *w, size_t o, int chunk)
{
    if (w->kind == NB_W_FLOAT) return 1.0f;
    size_t at = o * (size_t)w->groups + (size_t)w->group_of[chunk];
    return w->half_scales ? nb_half_float(((const uint16_t *)w->scales)[at]) : ((const float *)w->scales)[at];
}

/* The 8 inputs from column `first` of output o, without the scale: code - zero, or the number itself. */
static __device__ inline void nb_weight_piece(float out[NB_PIECE], const nb_cuda_weights *w, size_t o, int first)
{
    const uint8_t *row = w->values + o * w->row_bytes;
    if (w->kind == NB_W_FLOAT) {
        if (w->dtype == NB_F32) {
            const float *v = (const float *)row + first;
            for (int j = 0; j < NB_PIECE; j++) out[j] = v[j];
        } else {
            const uint16_t *v = (const uint16_t *)row + first;
            for (int j = 0; j < NB_PIECE; j++) out[j] = w->dtype == NB_BF16 ? nb_bf16_float(v[j]) : nb_half_float(v[j]);
        }
        return;
    }
    int zero = w->zeros ? w->zeros[o * (size_t)w->groups + (size_t)w->group_of[first / NB_CHUNK]] : w->middle;
    if (w->kind == NB_W_INT4) {
        uint32_t word = *(const uint32_t *)(row + first / 2);
        for (int j = 0; j < NB_PIECE; j++) out[j] = (float)((int)(word >> 4 * j & 15) - zero);
    } else {
        const uint8_t *v = row + first;
        for (int j = 0; j < NB_PIECE; j++) out[j] = (float)((int)v[j] - zero);
    }
}

/* The input of packed column j, or -1. */
static __device__ inline int nb_weight_input(const nb_cuda_weights *w, int j)
{
    if (w->input) return w->input[j];
    return j < w->k ? j : -1;
}

/* pack.cu: ops->pack and ops->release */
nb_status nb_cuda_pack(const nb_ops *ops, nb_matrix *out, const nb_weights *parts, int count, nb_error *err);
void      nb_cuda_release(const nb_ops *ops, nb_matrix *m);

#endif
