/* ops.h - the operation table: everything the model above is built from.
 *
 * A backend is one filling of this table (ref, avx2, avx512, amx or ref, neon; CUDA is another).  The model code is written once, against
 * the table, and never asks which filling it got.  Pointers named *_d below point into memory from ops->alloc.
 *
 * Meaning.  Activations and sums are f32.  Weight-only arithmetic: dequantised weight times activation, accumulated in
 * f32; an implementation may hold activations as 16-bit fixed point per group (relative error of a product <= 1e-4).
 * `ref` accumulates in double and is what every other level is tested against.
 *
 * Determinism.  The result of a row depends on that row and the weights alone: not on the number of rows in the call,
 * the number of threads, or timing.  (One sequence's answer does not depend on its company.)
 *
 * Kernels return nothing: all that can fail on a CPU is checked before.  A device backend keeps the first failure and
 * reports it from ops->status.
 */
#ifndef NB_OPS_H
#define NB_OPS_H

#include "kernels/base.h"
#include "kernels/float.h"
#include "kernels/gram_sums.h"
#include "kernels/matrix.h"
#include "kernels/threads.h"

/* Ascending, NB_ISA_LEVELS - 1 is the highest.  AVX512 needs F BW VL DQ VNNI; AMX needs TILE INT8 BF16 and AVX512; every 64-bit ARM
 * processor has NEON. */
#if defined(__aarch64__)
typedef enum { NB_ISA_REF, NB_ISA_NEON, NB_ISA_LEVELS } nb_isa;
#define NB_ISA_CHOICES "ref or neon"
#else
typedef enum { NB_ISA_REF, NB_ISA_AVX2, NB_ISA_AVX512, NB_ISA_AMX, NB_ISA_LEVELS } nb_isa;
#define NB_ISA_CHOICES "ref, avx2, avx512 or amx"
#endif

enum { NB_KV_PAGE = 32 }; /* tokens in a KV page */

/* Shape of an attention call.  A KV page holds, for one layer, at byte k_offset:  K [kv_heads, NB_KV_PAGE, head_dim]
 * and at v_offset V in the same shape, elements of kv_type (F32, BF16 or I8).
 *
 * I8: each head's [NB_KV_PAGE, head_dim] codes of -127 .. 127 are followed by its scales, bf16 [NB_KV_PAGE], one for each token.
 * An element is code * scale; scale = largest |element| of the token in that head / 127, to nearest; code = element / scale, to
 * nearest even.  Of a row with an element that is not finite the scale is NaN.  Scales are bf16 because f16 ends at 65504. */
typedef struct {
    int      heads, kv_heads, head_dim;
    float    scale;
    nb_dtype kv_type;
    size_t   k_offset, v_offset;
} nb_attn;

static inline size_t nb_kv_element(nb_dtype kv_type) { return kv_type == NB_F32 ? 4 : kv_type == NB_BF16 ? 2 : 1; }
/* Bytes of the keys, or of the values, of one head and of one layer in a page. */
static inline size_t nb_kv_head_bytes(int head_dim, nb_dtype kv_type)
{
    return NB_KV_PAGE * ((size_t)head_dim * nb_kv_element(kv_type) + (kv_type == NB_I8 ? sizeof(uint16_t) : 0));
}
static inline size_t nb_kv_layer_bytes(int kv_heads, int head_dim, nb_dtype kv_type)
{
    return (size_t)kv_heads * nb_kv_head_bytes(head_dim, kv_type);
}

/* The part of a step that belongs to one sequence: rows first .. first+rows-1 of the step's activations are its tokens
 * number past .. past+rows-1.  Token t lives in pages[t / NB_KV_PAGE] at slot t % NB_KV_PAGE. */
typedef struct {
    size_t       first, rows, past;
    void *const *pages;
} nb_span;

typedef enum { NB_ACT_SILU, NB_ACT_QUICK_GELU, NB_ACT_GELU } nb_act;

typedef struct nb_ops nb_ops;
struct nb_ops {
    const char *name; /* "ref", "avx2", "avx512", "amx", "neon"; "cuda" with isa NB_ISA_LEVELS */
    nb_isa      isa;
    nb_pool    *pool; /* borrowed */

    /* memory of the backend; alloc returns zeroed, 64-byte aligned memory or NULL */
    void *(*alloc)(const nb_ops *, size_t bytes);
    void (*free)(const nb_ops *, void *p_d);
    void (*upload)(const nb_ops *, void *dst_d, const void *src, size_t bytes);
    void (*download)(const nb_ops *, void *dst, const void *src_d, size_t bytes);
    nb_status (*status)(const nb_ops *, nb_error *err); /* wait for what was asked, report the first failure */

    /* Stack `parts` (same k, same kind; ints: same group and trivial or equal g_idx) along n into one packed matrix. */
    nb_status (*pack)(const nb_ops *, nb_matrix *out, const nb_weights *parts, int count, nb_error *err);
    void (*release)(const nb_ops *, nb_matrix *m); /* a zeroed matrix is fine */

    /* Keeping packed matrices.  layout names the order of their bytes, at most 31 characters; backends with one name read each
     * other's images.  A device backend has NULL for all three.  describe: the image points into the matrix.  attach: a matrix
     * over an image's bytes, which stay where they are, unchanged, until it is released; perm and table are copied.  An image
     * may come from a damaged file: what could lead out of its bytes is found, and an error of what is wrong with it. */
    const char *layout;
    void (*describe)(nb_matrix_image *out, const nb_matrix *m);
    nb_status (*attach)(const nb_ops *, nb_matrix *out, const nb_matrix_image *from, nb_error *err);

    /* y[r, 0..n) = x[r, 0..k) W' + bias  (+ y[r] when add).  bias f32 [n] or NULL.  x and y must not overlap. */
    void (*matmul)(const nb_ops *, float *y_d, size_t ldy, const float *x_d, size_t ldx, size_t rows, const nb_matrix *w,
                   const float *bias_d, bool add);
    /* y[r, :] = W[ids[r], :]; ids are host memory, each 0 <= id < n */
    void (*embed)(const nb_ops *, float *y_d, const int32_t *ids, size_t rows, const nb_matrix *w);

    void (*rmsnorm)(const nb_ops *, float *y_d, const float *x_d, const float *w_d, size_t rows, int d, float eps);
    void (*layernorm)(const nb_ops *, float *y_d, const float *x_d, const float *w_d, const float *b_d, size_t rows, int d,
                      float eps);
    /* y[r, j] = act(x[r, j]) * x[r, n + j]  (gate in the first half, up in the second) */
    void (*gate)(const nb_ops *, float *y_d, const float *x_d, size_t rows, int n, nb_act act);
    void (*activate)(const nb_ops *, float *x_d, size_t count, nb_act act); /* in place */
    void (*add)(const nb_ops *, float *y_d, const float *x_d, size_t count);

    /* Half-split rotation in place: element j of each head pairs with j + d/2 and uses cos[r, j], sin[r, j], j < d/2.
     * Row r starts at x + r * ld and holds `heads` consecutive heads of d. */
    void (*rope)(const nb_ops *, float *x_d, size_t ld, size_t rows, int heads, int d, const float *cos_d, const float *sin_d);

    /* Write rows of K and V (row r at k + r * ld, [kv_heads, head_dim]) into the pages of their sequences. */
    void (*kv_store)(const nb_ops *, const nb_attn *a, const nb_span *spans, size_t count, const float *k_d, const float *v_d,
                     size_t ld);
    /* Causal attention over the pages: query row r of a span sees tokens 0 .. past + r.  Query head h reads KV head
     * h / (heads / kv_heads).  q row r at q + r * ldq [heads, head_dim]; out row r at out + r * ldo, same shape. */
    void (*attend)(const nb_ops *, const nb_attn *a, const nb_span *spans, size_t count, float *out_d, size_t ldo,
                   const float *q_d, size_t ldq);
    /* Full attention inside segments: rows bounds[s] .. bounds[s+1]-1 see each other and nothing else.
     * qkv row r at qkv + r * ld: Q [heads, d], K [heads, d], V [heads, d].  bounds are host memory, segments + 1. */
    void (*attend_full)(const nb_ops *, float *out_d, size_t ldo, const float *qkv_d, size_t ld, const size_t *bounds,
                        size_t segments, int heads, int d, float scale);

    /* Statistics of the inputs of a linear layer, added to *sums (host memory, see gram_sums.h for what is exact about it):
     * h += sum_r w_r x_r x_r', sum_abs += sum_r w_r |x_r|, max_abs = max(max_abs, |x_r|).  Rows bounds[s] .. bounds[s+1]-1 are
     * a sample, or what follows behind a multiple of NB_GRAM_ROWS of its rows; bounds are host memory, samples + 1, bounds[0] = 0.
     * A piece is summed in f32 FMA, in double in ref.  weight host f32 [rows], 0 or more, or NULL for all ones; a row without
     * weight counts for max_abs alone. */
    void (*gram)(const nb_ops *, const nb_gram_sums *sums, const float *x_d, size_t ldx, int k, const size_t *bounds,
                 size_t samples, const float *weight);

    void *state; /* the backend's own (stream, device, first error); the CPU levels have none: NULL */
};

/* The best level that this CPU and OS allow, at most `limit`. */
nb_isa      nb_isa_detect(nb_isa limit);
const char *nb_isa_name(nb_isa isa);
/* Level from NIBBLE_ISA (NB_ISA_CHOICES; unset: the best).  An unknown or unavailable level is an error. */
nb_status   nb_isa_from_environment(nb_isa *out, nb_error *err);
/* The same for what has no table of its own (gemm.h, resize.h): a value that cannot be used was refused long before, or counts as none. */
nb_isa      nb_isa_best(void);
/* Fill the table for a level the machine has.  The pool must outlive it. */
void nb_ops_init(nb_ops *ops, nb_isa isa, nb_pool *pool);

#endif
