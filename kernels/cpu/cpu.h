/* cpu.h - what the files of kernels/cpu promise each other; nobody outside kernels/ includes it.
 *
 * A level is made by filling the whole table with the definitions (ref) and letting each level that the machine has
 * override what it does better, in ascending order.  A level's fill functions are called only where it was detected.
 *
 * Files named *_avx2.c and *_avx512.c are compiled with the flags of their level, *_neon.c where the processor is a
 * 64-bit ARM; nothing else may hold such code, and they hold nothing that a lower level calls.  Vector code that the
 * levels share is written once, in a body file (*_body.h) over the vector types of vec_avx2.h, vec_avx512.h or vec_neon.h.
 */
#ifndef NB_CPU_H
#define NB_CPU_H

#include "kernels/gemm.h"
#include "kernels/ops.h"

/* The definition of every operation (not memory and status, which belong to ops.c), and its parts, one per file. */
void nb_ref_fill(nb_ops *ops);
void nb_ref_fill_matmul(nb_ops *ops);    /* pack release matmul embed */
void nb_ref_fill_rows(nb_ops *ops);      /* rmsnorm layernorm gate activate add rope kv_store */
void nb_ref_fill_attention(nb_ops *ops); /* attend attend_full */
void nb_ref_fill_gram(nb_ops *ops);      /* gram */

/* A packed matrix belongs to the level that packed it: pack, release, matmul and embed are overridden together. */
void nb_avx2_fill_matmul(nb_ops *ops);
void nb_avx2_fill_rows(nb_ops *ops);
void nb_avx2_fill_attention(nb_ops *ops);
void nb_avx2_fill_gram(nb_ops *ops);

void nb_avx512_fill_matmul(nb_ops *ops);
void nb_avx512_fill_rows(nb_ops *ops);
void nb_avx512_fill_attention(nb_ops *ops);
void nb_avx512_fill_gram(nb_ops *ops);

void nb_neon_fill_matmul(nb_ops *ops);
void nb_neon_fill_rows(nb_ops *ops);
void nb_neon_fill_attention(nb_ops *ops);
void nb_neon_fill_gram(nb_ops *ops);

/* The products of gemm.h; ref is in gemm.c. */
extern const nb_gemm nb_avx2_gemm, nb_avx512_gemm, nb_neon_gemm;

/* What pack checks before it looks at numbers, the same at every level: count > 0; one kind, k and (ints) group; equal or
 * trivial g_idx with 0 <= g_idx[i] < groups.  Fills kind, dtype, k, group and n (the sum) of *out and zeroes the rest. */
nb_status nb_pack_check(nb_matrix *out, const nb_weights *parts, int count, nb_error *err);

/* First byte of K (offset k_offset) or V (v_offset) of one token and KV head. */
static inline void *nb_kv_at(const nb_attn *a, void *const *pages, size_t offset, size_t token, int head)
{
    size_t size = a->kv_type == NB_BF16 ? 2 : 4;
    size_t row = (size_t)head * NB_KV_PAGE + token % NB_KV_PAGE;
    return (char *)pages[token / NB_KV_PAGE] + offset + row * (size_t)a->head_dim * size;
}

#endif
