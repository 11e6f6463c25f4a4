/* packed.h - a weight matrix in the order in which the vector levels, amx among them, read it.
 *
 * All of them share the bytes, so there is one pack, and a test at one level says something about the others.  Not for
 * `ref`, which keeps plain f32.
 *
 * Panels.  16 consecutive outputs form a panel: lane c of every vector belongs to output 16 p + c, no sum ever crosses
 * lanes, and a panel is one contiguous range that is read from its first byte to its last.  The last panel is filled
 * up with outputs of scale 0 and code 0.
 *
 * Blocks.  The k inputs are cut into blocks of at most NB_BLOCK that lie within one group; a product is exact within a
 * block (ints) or a chain of FMAs from zero (floats), and blocks are added in ascending order.  A group longer than
 * NB_BLOCK has several blocks with the same scale.  Under act-order the inputs are first sorted by group.  Blocks of
 * ints are padded with code 0 to a multiple of 8 inputs, whose activations are 0.
 *
 *   FLOAT   panel: [k][16] of the source's own type, 16 or 32 bits
 *
 *   INT4    panel: heads of all groups, zero bytes up to a multiple of 64, blocks
 *           head:  scale[16] f16 or f32, then zero[16] u8 unless the matrix is symmetric
 *           block: 64 bytes for each 8 inputs j..j+7.  Dword c, output c:
 *
 *                  bits   0-3     4-7     8-11    12-15   16-19   20-23   24-27   28-31
 *                  code   j       j + 4   j + 1   j + 5   j + 2   j + 6   j + 3   j + 7
 *
 *                  so that masks and shifts by 4, 8 and 12 give 16-bit pairs (0,2) (4,6) (1,3) (5,7), and `v & 15` and
 *                  `v >> 4 & 15` per byte give four consecutive inputs (what a byte-wise matrix unit wants)
 *
 *   INT8    the same with 128 bytes for each 8 inputs: dword c of each half holds 4 consecutive codes of output c
 *
 * Scales are kept as f16 only if every one of them is an f16 number: packing never rounds.
 */
#ifndef NB_PACKED_H
#define NB_PACKED_H

#include <assert.h>

#include "kernels/ops.h"

enum {
    NB_PANEL = 16,
    NB_BLOCK = 128,
    NB_VECTOR_INPUTS = 8,                  /* inputs of one int4 vector */
    NB_PREPARED_ROW_BYTES = 256 * 1024,    /* pack refuses rows whose prepared form (matmul_body.h) is longer */
};

/* A block of inputs, the same in every panel. */
typedef struct {
    int32_t first;  /* padded inputs before it */
    int32_t length; /* 1 .. NB_BLOCK inputs */
    int32_t padded; /* length, rounded up to NB_VECTOR_INPUTS for ints */
    int32_t group;  /* 0 for FLOAT */
} nb_block;

typedef struct {
    int       panels, groups, blocks, padded_k;
    bool      half_scales, has_zeros;
    size_t    head_bytes;  /* of one group in one panel */
    size_t    data_offset; /* of the first block in a panel */
    size_t    input_bytes; /* of one padded input in one panel: 16 weights */
    size_t    panel_bytes; /* a multiple of 64 */
    nb_block *block;       /* [blocks] */
    uint8_t  *bytes;       /* [panels, panel_bytes], 64-byte aligned */
} nb_packed;               /* nb_matrix.storage */

static_assert(NB_PANEL * NB_VECTOR_INPUTS / 2 == 64, "eight inputs of an int4 panel are one 64-byte vector");
static_assert(NB_BLOCK % NB_VECTOR_INPUTS == 0, "a full block needs no padding");
/* Codes reach 255 and activations 32,639 (matmul_body.h); the correction for the zero point is as large as the sum. */
static_assert(2ll * NB_BLOCK * 255 * 32639 <= INT32_MAX, "the sum over a block and its correction fit into int32");
static_assert(sizeof(nb_block) == 16, "no padding");

static inline const uint8_t *nb_packed_head(const nb_packed *w, size_t panel, int group)
{
    return w->bytes + panel * w->panel_bytes + (size_t)group * w->head_bytes;
}

static inline const uint8_t *nb_packed_data(const nb_packed *w, size_t panel, const nb_block *b)
{
    return w->bytes + panel * w->panel_bytes + w->data_offset + (size_t)b->first * w->input_bytes;
}

/* pack.c: ops->pack, release, describe and attach.  The name of the order changes with what this file draws. */
#define NB_PANELS_LAYOUT "panels of 16, 1"
nb_status nb_packed_new(const nb_ops *ops, nb_matrix *out, const nb_weights *parts, int count, nb_error *err);
void      nb_panels_describe(nb_matrix_image *out, const nb_matrix *m);
nb_status nb_panels_attach(const nb_ops *ops, nb_matrix *out, const nb_matrix_image *from, nb_error *err);
void      nb_panels_free(const nb_ops *ops, nb_matrix *m);

/* pack_rows.c: ops->embed, one row out of a panel, exactly the dequantised numbers */
void nb_packed_embed(const nb_ops *ops, float *y, const int32_t *ids, size_t rows, const nb_matrix *w);

#endif
