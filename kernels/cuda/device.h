/* device.h - what the files of kernels/cuda share: the state behind a table, errors, small tables in device memory.
 *
 * Every operation has one shape:
 *
 *     nb_cuda *c = nb_cuda_enter(ops);                  lock, make the device current
 *     ... NB_LAUNCH(kernel, blocks, threads, c->stream, ...);
 *     nb_cuda_leave(c, "matmul.cu", "matmul", rows, n, k);    note what was asked, keep the first error, unlock
 *
 * All work goes to one stream, in the order of the calls.  The lock makes the table usable from several threads, as the
 * CPU levels are.
 */
#ifndef NB_CUDA_DEVICE_H
#define NB_CUDA_DEVICE_H

#include <pthread.h>

#include "kernels/cuda/emulate.h"

extern "C" {
#include "kernels/ops.h"
}

/* Host data that kernels read (ids, page tables): a device copy, sent only when it differs from what is there already. */
typedef struct {
    void  *device, *host; /* host: what device holds, `bytes` of it */
    size_t bytes, capacity;
} nb_cuda_table;

typedef struct {
    int             device;
    cudaStream_t    stream;
    pthread_mutex_t lock;

    nb_cuda_table spans, ids, bounds, weight;
    int64_t      *strip_d, *strip; /* gram.cu: rows of H, on the device and on the host */
    size_t        strip_bytes;

    /* the last operation that was asked for, and the first error */
    const char *file, *operation;
    size_t      shape[3];
    nb_status   failed;
    char        text[512];
} nb_cuda;

nb_cuda *nb_cuda_enter(const nb_ops *ops);
void     nb_cuda_leave(nb_cuda *c, const char *file, const char *operation, size_t a, size_t b, size_t d);

/* Keep the error unless an earlier one is kept; true when e is none. */
bool nb_cuda_check(nb_cuda *c, cudaError_t e, const char *file, const char *doing);
/* Keep a sentence as the first error: something that this backend cannot do. */
void nb_cuda_refuse(nb_cuda *c, nb_status status, const char *sentence);

/* Copy from host memory, and wait until it is read: on some machines the GPU reads pageable memory itself, later. */
bool nb_cuda_send(nb_cuda *c, void *to_d, const void *from, size_t bytes, const char *file, const char *doing);

/* The device copy of bytes at `data`, valid for work asked for before the next call on this table; NULL after an error. */
const void *nb_cuda_table_put(nb_cuda *c, nb_cuda_table *t, const void *data, size_t bytes);

/* Device memory, zeroed; NULL when there is none (that is not kept as an error: the caller reports it). */
void *nb_cuda_alloc(nb_cuda *c, size_t bytes);

/* Fill parts of the table, one file each. */
void nb_cuda_fill_matmul(nb_ops *ops);    /* matmul.cu, pack.cu: pack release matmul embed */
void nb_cuda_fill_rows(nb_ops *ops);      /* rows.cu: rmsnorm layernorm gate activate add rope */
void nb_cuda_fill_attention(nb_ops *ops); /* attention.cu: kv_store attend attend_full */
void nb_cuda_fill_gram(nb_ops *ops);      /* gram.cu */

/* device.cu: the whole table, and the devices there are */
nb_status nb_cuda_state_new(nb_ops *ops, int device, nb_pool *pool, nb_error *err);
void      nb_cuda_state_free(nb_ops *ops);
int       nb_cuda_devices(char *text, size_t n);

static inline unsigned nb_blocks(size_t items, size_t per_block) { return (unsigned)((items + per_block - 1) / per_block); }

/* ---- element types on the device ---------------------------------------------------------------------------------------- */

static __device__ inline float nb_bf16_float(uint16_t h) { return nb_bits_float((uint32_t)h << 16); }

/* to nearest, ties to even, a NaN stays one: the bits of nb_f32_to_bf16 */
static __device__ inline uint16_t nb_float_bf16(float f)
{
    uint32_t u = nb_float_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}

#endif
