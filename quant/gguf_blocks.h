/* gguf_blocks.h - codes to the blocks of 32 that llama.cpp calculates with.
 *
 *     Q4_0  18 bytes  f16 d, 16 bytes: element j in the low half of byte j, j + 16 in the high one     (q - 8) d
 *     Q4_1  20 bytes  f16 d, f16 m, the same                                                          q d + m
 *     Q8_0  34 bytes  f16 d, 32 signed bytes                                                           q d
 */
#ifndef NB_GGUF_BLOCKS_H
#define NB_GGUF_BLOCKS_H

#include "quant/gguf_file.h"
#include "quant/grid.h"

/* The type that holds codes of this grid in rows of k without change, but for Q4_1's m = -zero scale, which is rounded to f16.  F16
 * when none does: blocks across groups, inputs in an order of their own, asymmetric 8 bits. */
nb_gguf_type nb_gguf_type_of(const nb_grid *grid, bool permuted, int k);

/* Row r of c as blocks; out [nb_gguf_out_row_bytes(type, k)].  Scales must be f16 values.  *worst: the largest |m - exact m| / scale seen. */
void nb_gguf_blocks(uint8_t *out, nb_gguf_type type, const nb_codes *c, int r, double *worst);

#endif
