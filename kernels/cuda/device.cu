/* device.cu - memory, errors and the life of a table; no arithmetic.
 *
 * The first error is kept with what was being asked for, and everything after it is let run into the void: results are
 * looked at only after ops->status.  A GPU reports the failure of a kernel at some later call, so for those the sentence
 * says which operation was the last one and how to find the guilty one.
 */
#include <stdarg.h>

#include "kernels/cuda/device.h"

enum { OLDEST = 75 }; /* compute capability 7.5: the first for which code is built */

/* ---- errors --------------------------------------------------------------------------------------------------------------- */

void nb_cuda_refuse(nb_cuda *c, nb_status status, const char *sentence)
{
    if (c->failed != NB_OK) return;
    c->failed = status;
    snprintf(c->text, sizeof c->text, "%s", sentence);
}

bool nb_cuda_check(nb_cuda *c, cudaError_t e, const char *file, const char *doing)
{
    if (e == cudaSuccess) return true;
    char text[sizeof c->text];
    snprintf(text, sizeof text,
             "GPU %d: %s in %s (kernels/cuda/%s); the last operation asked for was %s [%zu, %zu, %zu] (kernels/cuda/%s); with "
             "CUDA_LAUNCH_BLOCKING=1 the error appears at the operation that fails",
             c->device, cudaGetErrorString(e), doing, file, c->operation, c->shape[0], c->shape[1], c->shape[2], c->file);
    nb_cuda_refuse(c, NB_ERR_DEVICE, text);
    return false;
}

nb_cuda *nb_cuda_enter(const nb_ops *ops)
{
    nb_cuda *c = (nb_cuda *)ops->state;
    pthread_mutex_lock(&c->lock);
    nb_cuda_check(c, cudaSetDevice(c->device), "device.cu", "choosing the device"); /* it is a setting of each host thread */
    return c;
}

void nb_cuda_leave(nb_cuda *c, const char *file, const char *operation, size_t a, size_t b, size_t d)
{
    c->file = file;
    c->operation = operation;
    c->shape[0] = a;
    c->shape[1] = b;
    c->shape[2] = d;
    nb_cuda_check(c, cudaGetLastError(), file, operation);
    pthread_mutex_unlock(&c->lock);
}

static nb_status status(const nb_ops *ops, nb_error *err)
{
    nb_cuda *c = nb_cuda_enter(ops);
    nb_cuda_check(c, cudaStreamSynchronize(c->stream), "device.cu", "waiting for the device");
    nb_status failed = c->failed == NB_OK ? NB_OK : nb_fail(err, c->failed, "%s", c->text);
    pthread_mutex_unlock(&c->lock);
    return failed;
}

/* ---- memory --------------------------------------------------------------------------------------------------------------- */

void *nb_cuda_alloc(nb_cuda *c, size_t bytes)
{
    void *p = NULL;
    cudaError_t e = cudaMalloc(&p, bytes ? bytes : 1);
    if (e == cudaErrorMemoryAllocation) {
        cudaGetLastError(); /* said by NULL, and not to be found by the next operation */
        return NULL;
    }
    if (!nb_cuda_check(c, e, "device.cu", "alloc")) return NULL; /* an earlier kernel's failure comes out here */
    if (nb_cuda_check(c, cudaMemsetAsync(p, 0, bytes ? bytes : 1, c->stream), "device.cu", "clearing memory")) return p;
    cudaFree(p);
    return NULL;
}

bool nb_cuda_send(nb_cuda *c, void *to, const void *from, size_t bytes, const char *file, const char *doing)
{
    return nb_cuda_check(c, cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, c->stream), file, doing) &&
           nb_cuda_check(c, cudaStreamSynchronize(c->stream), file, doing);
}

static void *allocate(const nb_ops *ops, size_t bytes)
{
    nb_cuda *c = nb_cuda_enter(ops);
    void    *p = nb_cuda_alloc(c, bytes);
    nb_cuda_leave(c, "device.cu", "alloc", bytes, 1, 1);
    return p;
}

static void release(const nb_ops *ops, void *p)
{
    if (!p) return;
    nb_cuda *c = nb_cuda_enter(ops);
    nb_cuda_check(c, cudaFree(p), "device.cu", "free"); /* waits for the work that uses it */
    pthread_mutex_unlock(&c->lock);
}

static void upload(const nb_ops *ops, void *dst, const void *src, size_t bytes)
{
    if (bytes == 0) return;
    nb_cuda *c = nb_cuda_enter(ops);
    nb_cuda_send(c, dst, src, bytes, "device.cu", "upload");
    nb_cuda_leave(c, "device.cu", "upload", bytes, 1, 1);
}

static void download(const nb_ops *ops, void *dst, const void *src, size_t bytes)
{
    if (bytes == 0) return;
    nb_cuda *c = nb_cuda_enter(ops);
    if (nb_cuda_check(c, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, c->stream), "device.cu", "download"))
        nb_cuda_check(c, cudaStreamSynchronize(c->stream), "device.cu", "download");
    nb_cuda_leave(c, "device.cu", "download", bytes, 1, 1);
}

/* ---- tables --------------------------------------------------------------------------------------------------------------- */

static void table_free(nb_cuda_table *t)
{
    cudaFree(t->device);
    free(t->host);
    memset(t, 0, sizeof *t);
}

static bool table_grow(nb_cuda *c, nb_cuda_table *t, size_t bytes)
{
    if (bytes <= t->capacity) return true;
    table_free(t);
    size_t want = bytes + bytes / 2;
    t->host = malloc(want);
    t->device = t->host ? nb_cuda_alloc(c, want) : NULL;
    if (t->device) {
        t->capacity = want;
        return true;
    }
    table_free(t);
    nb_cuda_refuse(c, NB_ERR_MEMORY, "no memory on the GPU for a table of a step: use a smaller chunk or context");
    return false;
}

const void *nb_cuda_table_put(nb_cuda *c, nb_cuda_table *t, const void *data, size_t bytes)
{
    if (!table_grow(c, t, bytes)) return NULL;
    if (bytes == t->bytes && memcmp(t->host, data, bytes) == 0) return t->device; /* every layer of a step asks the same */
    t->bytes = 0;
    if (!nb_cuda_send(c, t->device, data, bytes, "device.cu", "sending a table")) return NULL;
    memcpy(t->host, data, bytes);
    t->bytes = bytes;
    return t->device;
}

/* ---- the table of operations ---------------------------------------------------------------------------------------------- */

static void append(char *text, size_t n, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void append(char *text, size_t n, const char *format, ...)
{
    size_t  used = strlen(text);
    va_list arguments;
    va_start(arguments, format);
    if (used < n) vsnprintf(text + used, n - used, format, arguments);
    va_end(arguments);
}

int nb_cuda_devices(char *text, size_t n)
{
    int         count = 0;
    cudaError_t e = cudaGetDeviceCount(&count);
    text[0] = 0;
    if (e != cudaSuccess || count <= 0) {
        cudaGetLastError();
        if (e == cudaErrorInsufficientDriver)
            append(text, n, "there is no NVIDIA driver, or it is older than this build's CUDA runtime");
        else
            append(text, n, "%s", e == cudaSuccess ? "no CUDA-capable device is detected" : cudaGetErrorString(e));
        return 0;
    }
    for (int i = 0; i < count; i++) {
        cudaDeviceProp p;
        memset(&p, 0, sizeof p);
        e = cudaGetDeviceProperties(&p, i);
        if (e != cudaSuccess)
            append(text, n, "%s%d: %s", i ? "\n" : "", i, cudaGetErrorString(e));
        else
            append(text, n, "%s%d: %s, %.1f GB, compute capability %d.%d%s", i ? "\n" : "", i, p.name,
                   1e-9 * (double)p.totalGlobalMem, p.major, p.minor, 10 * p.major + p.minor < OLDEST ? " (too old)" : "");
    }
    return count;
}

static nb_status check_device(int device, nb_error *err)
{
    char           text[512];
    cudaDeviceProp p;
    int            count = nb_cuda_devices(text, sizeof text);
    if (count == 0) return nb_fail(err, NB_ERR_UNSUPPORTED, "no GPU can be used: %s", text);
    if (device < 0 || device >= count)
        return nb_fail(err, NB_ERR_ARGUMENT, "there is no GPU %d: this machine has %d, counted from 0", device, count);
    memset(&p, 0, sizeof p);
    cudaError_t e = cudaGetDeviceProperties(&p, device);
    if (e == cudaSuccess) e = cudaSetDevice(device);
    if (e != cudaSuccess) return nb_fail(err, NB_ERR_DEVICE, "GPU %d: %s", device, cudaGetErrorString(e));
    if (10 * p.major + p.minor < OLDEST)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "GPU %d (%s) has compute capability %d.%d; nibble needs %d.%d or later", device,
                       p.name, p.major, p.minor, OLDEST / 10, OLDEST % 10);
    return NB_OK;
}

nb_status nb_cuda_state_new(nb_ops *ops, int device, nb_pool *pool, nb_error *err)
{
    memset(ops, 0, sizeof *ops);
    NB_TRY(check_device(device, err));
    nb_cuda *c = (nb_cuda *)calloc(1, sizeof *c);
    if (!c) return nb_fail(err, NB_ERR_MEMORY, "no memory for the state of a GPU");
    cudaError_t e = cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking);
    if (e != cudaSuccess) {
        free(c);
        return nb_fail(err, NB_ERR_DEVICE, "GPU %d: %s", device, cudaGetErrorString(e));
    }
    pthread_mutex_init(&c->lock, NULL);
    c->device = device;
    c->file = "device.cu";
    c->operation = "none";
    ops->name = "cuda";
    ops->isa = NB_ISA_LEVELS; /* none of the CPU's */
    ops->pool = pool;
    ops->state = c;
    ops->alloc = allocate;
    ops->free = release;
    ops->upload = upload;
    ops->download = download;
    ops->status = status;
    nb_cuda_fill_matmul(ops);
    nb_cuda_fill_rows(ops);
    nb_cuda_fill_attention(ops);
    nb_cuda_fill_gram(ops);
    return NB_OK;
}

void nb_cuda_state_free(nb_ops *ops)
{
    nb_cuda *c = (nb_cuda *)ops->state;
    if (c) {
        cudaSetDevice(c->device);
        cudaStreamSynchronize(c->stream);
        nb_cuda_table *tables[] = { &c->spans, &c->ids, &c->bounds, &c->weight };
        for (size_t i = 0; i < NB_COUNT(tables); i++) table_free(tables[i]);
        cudaFree(c->strip_d);
        free(c->strip);
        cudaStreamDestroy(c->stream);
        pthread_mutex_destroy(&c->lock);
        free(c);
    }
    memset(ops, 0, sizeof *ops);
}
