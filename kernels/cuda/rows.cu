/* rows.cu - what happens to rows one by one: norms, activations, rotation, addition.
 *
 * Norms: one block per row; a thread sums elements t, t + THREADS, ... and the sums meet in a tree of fixed shape, so that a
 * row's result is its own.  The rest: one thread per element (or pair of elements).
 * Bytes: every operation reads and writes its arrays once or twice; nothing here is worth a roofline.
 */
#include "kernels/cuda/device.h"

enum { THREADS = 256 };

/* ---- norms ---------------------------------------------------------------------------------------------------------------- */

/* y = x / sqrt(mean(x^2) + eps) * w; with b: of x - mean(x), plus b.  y may be x. */
static __global__ void normalize(float *y, const float *x, const float *w, const float *b, size_t d, float eps)
{
    __shared__ float part[THREADS];
    const float     *from = x + blockIdx.x * d;
    float           *to = y + blockIdx.x * d;
    float            mean = 0, scale;
    for (int pass = b ? 0 : 1; pass < 2; pass++) { /* the mean, then the mean square around it */
        NB_PHASE
        {
            float sum = 0;
            for (size_t j = threadIdx.x; j < d; j += THREADS) {
                float v = from[j] - mean;
                sum = pass == 0 ? sum + v : nb_fma(v, v, sum);
            }
            part[threadIdx.x] = sum;
        }
        for (unsigned width = THREADS / 2; width > 0; width /= 2) {
            NB_PHASE
            {
                if (threadIdx.x < width) part[threadIdx.x] += part[threadIdx.x + width];
            }
        }
        if (pass == 0) {
            mean = part[0] / (float)d;
            NB_PHASE {} /* everyone has read it */
        }
    }
    scale = 1.0f / sqrtf(part[0] / (float)d + eps);
    NB_PHASE
    {
        for (size_t j = threadIdx.x; j < d; j += THREADS) {
            float v = (from[j] - mean) * scale;
            to[j] = b ? nb_fma(v, w[j], b[j]) : v * w[j];
        }
    }
}

static void rmsnorm(const nb_ops *ops, float *y, const float *x, const float *w, size_t rows, int d, float eps)
{
    if (rows == 0) return;
    nb_cuda *c = nb_cuda_enter(ops);
    NB_LAUNCH(normalize, dim3((unsigned)rows), THREADS, c->stream, y, x, w, (const float *)NULL, (size_t)d, eps);
    nb_cuda_leave(c, "rows.cu", "rmsnorm", rows, (size_t)d, 1);
}

static void layernorm(const nb_ops *ops, float *y, const float *x, const float *w, const float *b, size_t rows, int d, float eps)
{
    if (rows == 0) return;
    nb_cuda *c = nb_cuda_enter(ops);
    NB_LAUNCH(normalize, dim3((unsigned)rows), THREADS, c->stream, y, x, w, b, (size_t)d, eps);
    nb_cuda_leave(c, "rows.cu", "layernorm", rows, (size_t)d, 1);
}

/* ---- activations ------------------------------------------------------------------------------------------------------------ */

/* Where an exponent is rounded before it is used, an x of 80 would cost 80 times that rounding: `low` is what was lost. */
static __device__ float act_value(float x, int act)
{
    if (act == NB_ACT_SILU) return x / (1.0f + expf(-x)); /* x / (1 + e^-x) */
    if (act == NB_ACT_QUICK_GELU) {                       /* x / (1 + e^(-1.702 x)); 1.702 = 1.702f - 2.1934509e-8 */
        float at = fminf(100.0f, fmaxf(-100.0f, x)), power = -1.702f * at;
        float low = nb_fma(2.1934509e-8f, at, fmaf(-1.702f, at, -power));
        float e = expf(power);
        if (e < 1e38f) e = nb_fma(e, low, e); /* infinity stays itself */
        return x / (1.0f + e);
    }
    /* x Phi(x) = x erfc(-x / sqrt 2) / 2, and erfc(z + low) = erfc(z) - 2 / sqrt(pi) e^(-z^2) low; sqrt(1/2) in two parts */
    float at = fminf(14.5f, fmaxf(-14.5f, x)), z = -0.70710678f * at;
    float low = nb_fma(-1.2101617e-8f, at, fmaf(-0.70710678f, at, -z));
    return 0.5f * x * nb_fma(-1.1283792f * expf(-z * z), low, erfcf(z));
}

static __global__ void activate_each(float *x, size_t count, int act)
{
    NB_PHASE
    {
        size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
        if (i < count) x[i] = act_value(x[i], act);
    }
}

/* y[r, j] = act(x[r, j]) x[r, n + j] */
static __global__ void gate_each(float *y, const float *x, size_t count, size_t n, int act)
{
    NB_PHASE
    {
        size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
        if (i < count) {
            const float *gate = x + i / n * 2 * n + i % n;
            y[i] = act_value(gate[0], act) * gate[n];
        }
    }
}

static __global__ void add_each(float *y, const float *x, size_t count)
{
    NB_PHASE
    {
        size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
        if (i < count) y[i] += x[i];
    }
}

static void gate(const nb_ops *ops, float *y, const float *x, size_t rows, int n, nb_act act)
{
    size_t count = rows * (size_t)n;
    if (count == 0) return;
    nb_cuda *c = nb_cuda_enter(ops);
    NB_LAUNCH(gate_each, dim3(nb_blocks(count, THREADS)), THREADS, c->stream, y, x, count, (size_t)n, (int)act);
    nb_cuda_leave(c, "rows.cu", "gate", rows, (size_t)n, 1);
}

static void activate(const nb_ops *ops, float *x, size_t count, nb_act act)
{
    if (count == 0) return;
    nb_cuda *c = nb_cuda_enter(ops);
    NB_LAUNCH(activate_each, dim3(nb_blocks(count, THREADS)), THREADS, c->stream, x, count, (int)act);
    nb_cuda_leave(c, "rows.cu", "activate", count, 1, 1);
}

static void add(const nb_ops *ops, float *y, const float *x, size_t count)
{
    if (count == 0) return;
    nb_cuda *c = nb_cuda_enter(ops);
    NB_LAUNCH(add_each, dim3(nb_blocks(count, THREADS)), THREADS, c->stream, y, x, count);
    nb_cuda_leave(c, "rows.cu", "add", count, 1, 1);
}

/* ---- rotation --------------------------------------------------------------------------------------------------------------- */

/* (a, b) = (x[j], x[j + d/2]) becomes (a cos - b sin, b cos + a sin); one thread per pair */
static __global__ void rotate(float *x, size_t ld, size_t count, size_t heads, size_t pairs, const float *cosines,
                              const float *sines)
{
    NB_PHASE
    {
        size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
        if (i < count) {
            size_t j = i % pairs, head = i / pairs % heads, row = i / pairs / heads;
            float *pair = x + row * ld + head * 2 * pairs + j, a = pair[0], b = pair[pairs];
            float  cosine = cosines[row * pairs + j], sine = sines[row * pairs + j];
            pair[0] = nb_fma(a, cosine, -(b * sine));
            pair[pairs] = nb_fma(b, cosine, a * sine);
        }
    }
}

static void rope(const nb_ops *ops, float *x, size_t ld, size_t rows, int heads, int d, const float *cosines, const float *sines)
{
    size_t pairs = (size_t)d / 2, count = rows * (size_t)heads * pairs;
    if (count == 0) return;
    nb_cuda *c = nb_cuda_enter(ops);
    NB_LAUNCH(rotate, dim3(nb_blocks(count, THREADS)), THREADS, c->stream, x, ld, count, (size_t)heads, pairs, cosines, sines);
    nb_cuda_leave(c, "rows.cu", "rope", rows, (size_t)heads, (size_t)d);
}

void nb_cuda_fill_rows(nb_ops *ops)
{
    ops->rmsnorm = rmsnorm;
    ops->layernorm = layernorm;
    ops->gate = gate;
    ops->activate = activate;
    ops->add = add;
    ops->rope = rope;
}
