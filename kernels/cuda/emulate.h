/* emulate.h - the same kernel source for a GPU (nvcc) and, for tests, for a C++ compiler on a machine without one.
 *
 * The idea: a kernel is a sequence of phases.  A phase is what every thread of a block does between two barriers:
 *
 *     __shared__ float part[THREADS];
 *     NB_PHASE { part[threadIdx.x] = ...; }          each thread writes its own
 *     NB_PHASE { if (threadIdx.x == 0) ...; }        now every part is there
 *
 * On the GPU a phase is its body followed by __syncthreads().  In the emulation it is a loop over the threads, so that a
 * kernel is an ordinary function that runs one block.  A forgotten barrier cannot be written, and a race inside a phase
 * shows as a difference between the threads in ascending and in descending order (NIBBLE_EMULATE=reverse).
 *
 * Rules for kernels: threadIdx only inside a phase; no break or return out of one; no phase in a phase; loops around phases
 * the same for all threads; what a thread keeps from phase to phase is in an NB_PRIVATE, as name[NB_ME]; no warp intrinsics.
 * Contraction of a * b + c is off (-fmad=false): a fused multiply-add is written where it is meant.
 *
 * The emulation proves index arithmetic, the order of sums, and bounds (each allocation is its own malloc, for sanitizers).
 * It proves nothing about speed, memory models, the GPU's own expf, rsqrtf and erfcf, or f16 conversion.
 */
#ifndef NB_EMULATE_H
#define NB_EMULATE_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef NB_CUDA_EMULATE

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define NB_PHASE for (bool nb_first = true; nb_first; nb_first = false, __syncthreads())
#define NB_PRIVATE(type, name) type name[1]
#define NB_ME 0
#define NB_LAUNCH(kernel, blocks, threads, stream, ...) kernel<<<(blocks), (threads), 0, (stream)>>>(__VA_ARGS__)

static __device__ inline float nb_bits_float(uint32_t bits) { return __uint_as_float(bits); }
static __device__ inline uint32_t nb_float_bits(float f) { return __float_as_uint(f); }
static __device__ inline int64_t nb_double_bits(double x) { return __double_as_longlong(x); }
static __device__ inline float nb_half_float(uint16_t h) { return __half2float(__ushort_as_half(h)); }
static __device__ inline float nb_fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }

#else /* ---- the emulation ------------------------------------------------------------------------------------------- */

extern "C" {
#include "kernels/float.h"
}

#define __global__
#define __device__
#define __shared__ /* a variable of the block's function: stale values of another block are not there to be used */

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct nb_index {
    unsigned x, y, z;
};
static __thread nb_index threadIdx, blockIdx;
static __thread unsigned nb_block_threads;
static __thread bool     nb_reverse;

enum { NB_MAX_THREADS = 256 };

/* The threads of the block, one after the other. */
struct nb_each_thread {
    unsigned done;
    nb_each_thread() : done(0) { place(); }
    bool more() const { return done < nb_block_threads; }
    void next()
    {
        done++;
        place();
    }
    void place() const { threadIdx.x = nb_reverse ? nb_block_threads - 1 - done : done; }
};

#define NB_PHASE for (nb_each_thread nb_thread; nb_thread.more(); nb_thread.next())
#define NB_PRIVATE(type, name) type name[NB_MAX_THREADS]
#define NB_ME threadIdx.x
#define NB_LAUNCH(kernel, blocks, threads, stream, ...) \
    nb_emulated_launch(blocks, threads, stream, [&] { kernel(__VA_ARGS__); })

static inline float nb_bits_float(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
static inline uint32_t nb_float_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}
static inline int64_t nb_double_bits(double x)
{
    int64_t bits;
    memcpy(&bits, &x, 8);
    return bits;
}
static inline float nb_half_float(uint16_t h) { return nb_f16_to_f32(h); }
#ifdef __FMA__
static inline float nb_fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
#else /* rounded twice: a call of the software fmaf for each product would take minutes */
static inline float nb_fma(float a, float b, float c) { return a * b + c; }
#endif

/* ---- the part of the CUDA runtime that device.cu uses, over host memory ---------------------------------------------- */

typedef enum {
    cudaSuccess,
    cudaErrorMemoryAllocation,
    cudaErrorInvalidConfiguration,
    cudaErrorInsufficientDriver,
    cudaErrorNoDevice,
    cudaErrorLaunchFailure
} cudaError_t;
typedef enum { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost } cudaMemcpyKind;
enum { cudaStreamNonBlocking = 1 };
typedef struct nb_emulated_stream *cudaStream_t;
struct nb_emulated_stream {
    cudaError_t asynchronous; /* a kernel "failed" and nobody waited yet */
};
typedef struct {
    char   name[256];
    size_t totalGlobalMem;
    int    major, minor;
} cudaDeviceProp;

inline thread_local cudaError_t nb_last_error = cudaSuccess; /* one for all files, as in the runtime */

/* NIBBLE_EMULATE: words that change what happens: reverse; no-driver, no-device, old-device; full (no memory left);
 * bad-launch (a launch is refused), crash (a kernel fails while it runs). */
static inline bool nb_emulated(const char *word)
{
    const char *words = getenv("NIBBLE_EMULATE"), *at = words ? strstr(words, word) : NULL;
    return at != NULL;
}
static inline cudaError_t nb_emulated_result(cudaError_t e)
{
    if (e != cudaSuccess) nb_last_error = e;
    return e;
}

template <typename F> static void nb_emulated_launch(dim3 grid, unsigned threads, cudaStream_t stream, F block)
{
    bool fits = grid.x > 0 && grid.y > 0 && grid.z > 0 && grid.x <= 0x7fffffff && grid.y <= 65535 && grid.z <= 65535 &&
                threads > 0 && threads <= NB_MAX_THREADS;
    if (!fits || nb_emulated("bad-launch")) {
        nb_last_error = cudaErrorInvalidConfiguration;
        return;
    }
    if (nb_emulated("crash")) stream->asynchronous = cudaErrorLaunchFailure;
    nb_block_threads = threads;
    nb_reverse = nb_emulated("reverse");
    size_t blocks = (size_t)grid.x * grid.y * grid.z;
    for (size_t i = 0; i < blocks; i++) {
        size_t b = nb_reverse ? blocks - 1 - i : i;
        blockIdx.x = (unsigned)(b % grid.x);
        blockIdx.y = (unsigned)(b / grid.x % grid.y);
        blockIdx.z = (unsigned)(b / grid.x / grid.y);
        block();
    }
}

static inline cudaError_t cudaGetLastError(void)
{
    cudaError_t e = nb_last_error;
    nb_last_error = cudaSuccess;
    return e;
}
static inline const char *cudaGetErrorString(cudaError_t e)
{
    static const char *const text[] = { "no error", "out of memory", "invalid configuration argument",
                                        "CUDA driver version is insufficient for CUDA runtime version",
                                        "no CUDA-capable device is detected", "unspecified launch failure" };
    return text[e];
}
static inline cudaError_t cudaGetDeviceCount(int *count)
{
    *count = nb_emulated("no-d") ? 0 : 1;
    return nb_emulated_result(nb_emulated("no-driver") ? cudaErrorInsufficientDriver
                              : nb_emulated("no-device") ? cudaErrorNoDevice : cudaSuccess);
}
static inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device)
{
    snprintf(p->name, sizeof p->name, "emulated device %d", device);
    p->totalGlobalMem = (size_t)1 << 34;
    p->major = nb_emulated("old-device") ? 6 : 9;
    p->minor = 0;
    return cudaSuccess;
}
static inline cudaError_t cudaSetDevice(int device)
{
    (void)device;
    return cudaSuccess;
}
static inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    (void)flags;
    *stream = (cudaStream_t)calloc(1, sizeof **stream);
    return *stream ? cudaSuccess : nb_emulated_result(cudaErrorMemoryAllocation);
}
static inline cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    free(stream);
    return cudaSuccess;
}
static inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return nb_emulated_result(stream->asynchronous); }
static inline cudaError_t cudaMalloc(void **p, size_t bytes)
{
    *p = NULL;
    if (nb_emulated("crash")) return nb_emulated_result(cudaErrorLaunchFailure);
    if (nb_emulated("full") || bytes > (size_t)1 << 34 || posix_memalign(p, 256, bytes))
        return nb_emulated_result(cudaErrorMemoryAllocation);
    memset(*p, 0xff, bytes);
    return cudaSuccess;
}
static inline cudaError_t cudaFree(void *p)
{
    free(p);
    return cudaSuccess;
}
static inline cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream)
{
    (void)stream;
    memset(p, value, bytes);
    return cudaSuccess;
}
static inline cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream)
{
    (void)kind;
    (void)stream;
    memcpy(to, from, bytes);
    return cudaSuccess;
}
static inline cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                                            size_t height, cudaMemcpyKind kind, cudaStream_t stream)
{
    for (size_t r = 0; r < height; r++)
        cudaMemcpyAsync((char *)to + r * to_pitch, (const char *)from + r * from_pitch, width, kind, stream);
    return cudaSuccess;
}

#endif
#endif
