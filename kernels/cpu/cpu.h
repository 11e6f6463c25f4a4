/* cpu.h - what the files of kernels/cpu promise each other; nobody outside kernels/ includes it.
 *
 * A level is made by filling the whole table with the definitions (ref) and letting each level that the machine has
 * override what it does better, in ascending order.  A level's fill functions are called only where it was detected.
 *
 * Files named *_avx2.c, *_avx512.c and *_amx.c are compiled with the flags of their level, *_neon.c where the processor is a
 * 64-bit ARM; nothing else may hold such code, and they hold nothing that a lower level calls.  Vector code that the
 * levels share is written once, in a body file (*_body.h) over the vector types of vec_avx2.h, vec_avx512.h or vec_neon.h.
 */
#ifndef NB_CPU_H
#define NB_CPU_H

#include "kernels/gemm.h"
#include "kernels/ops.h"
#include "kernels/resize.h"

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

/* What amx takes from avx512: the whole operation, and the fixed-point activations of a block (x [NB_BLOCK of packed.h] with zeros
 * behind its end; a, scale and zero_pair as matmul_body.h has them). */
void nb_avx512_matmul(const nb_ops *ops, float *y, size_t ldy, const float *x, size_t ldx, size_t rows, const nb_matrix *m,
                      const float *bias, bool add);
void nb_avx512_quantize_block(const float *x, int16_t *a, float *scale, int32_t *zero_pair);

/* Over a table that avx512 has filled: matmul alone, since both read the same packed matrix. */
void nb_amx_fill_matmul(nb_ops *ops);
/* NULL when this process may use tiles (Linux is asked for them, once), or what stands against it, in words. */
const char *nb_amx_missing(void);
/* The same from what was found: CPUID leaf 7 EDX, the XCR0 register, and a question to the system that is asked last. */
const char *nb_amx_lacks(uint32_t leaf7_edx, uint64_t xcr0, bool (*permitted)(void));

void nb_neon_fill_matmul(nb_ops *ops);
void nb_neon_fill_rows(nb_ops *ops);
void nb_neon_fill_attention(nb_ops *ops);
void nb_neon_fill_gram(nb_ops *ops);

/* The products of gemm.h; ref is in gemm.c. */
extern const nb_gemm nb_avx2_gemm, nb_avx512_gemm, nb_neon_gemm;

/* The passes of resize.h; ref is in resize.c. */
extern const nb_resize nb_avx2_resize;

/* What pack checks before it looks at numbers, the same at every level: count > 0; one kind, k and (ints) group; equal or
 * trivial g_idx with 0 <= g_idx[i] < groups.  Fills kind, dtype, k, group and n (the sum) of *out and zeroes the rest. */
nb_status nb_pack_check(nb_matrix *out, const nb_weights *parts, int count, nb_error *err);

/* First byte of K (offset k_offset) or V (v_offset) of one token and KV head. */
static inline void *nb_kv_at(const nb_attn *a, void *const *pages, size_t offset, size_t token, int head)
{
    char *of_head = (char *)pages[token / NB_KV_PAGE] + offset + (size_t)head * nb_kv_head_bytes(a->head_dim, a->kv_type);
    return of_head + token % NB_KV_PAGE * (size_t)a->head_dim * nb_kv_element(a->kv_type);
}

/* The same token's scale, of I8 pages. */
static inline uint16_t *nb_kv_scale_at(const nb_attn *a, void *const *pages, size_t offset, size_t token, int head)
{
    char *of_head = (char *)pages[token / NB_KV_PAGE] + offset + (size_t)head * nb_kv_head_bytes(a->head_dim, a->kv_type);
    return (uint16_t *)(void *)(of_head + NB_KV_PAGE * (size_t)a->head_dim) + token % NB_KV_PAGE;
}

#endif
