/* gram.cu - H += sum_r w_r x_r x_r' and two sums per column, added to arrays in host memory.
 *
 * H is made in strips of its rows: a block makes 64 x 64 elements, as chains of fused multiply-adds over 256 rows in f32
 * which are folded into f64.  A strip goes to the host and is added there, upper triangle only.  So the device holds one
 * strip, whatever k is; the price is that 8 k^2 / 2 bytes cross the bus for each call.
 */
#include "kernels/cuda/device.h"

enum { THREADS = 256, TILE = 64, SIDE = 16, EACH = TILE / SIDE, DEEP = 16, FOLD = 256, STRIP = 256 };

typedef struct {
    float  chain[EACH][EACH];
    double total[EACH][EACH];
} tile_sums;

static __device__ inline float column_value(const float *x, size_t ldx, size_t row, size_t rows, size_t column, size_t k)
{
    return row < rows && column < k ? x[row * ldx + column] : 0;
}

/* strip[i - first, j] for rows i of H from `first` on and columns j >= the block's i; others are not written. */
static __global__ void make_strip(double *strip, const float *x, size_t ldx, size_t rows, size_t k, const float *weight,
                                  size_t first)
{
    __shared__ float left[DEEP][TILE], right[DEEP][TILE];
    NB_PRIVATE(tile_sums, sums);
    size_t top = first + (size_t)blockIdx.y * TILE, across = (size_t)blockIdx.x * TILE;
    if (across + TILE <= top) return; /* below the diagonal, the same for the whole block */
    NB_PHASE { memset(&sums[NB_ME], 0, sizeof(tile_sums)); }
    for (size_t r = 0; r < rows; r += DEEP) {
        NB_PHASE
        {
            size_t j = threadIdx.x % TILE;
            for (size_t i = threadIdx.x / TILE; i < DEEP; i += THREADS / TILE) {
                float w = weight && r + i < rows ? weight[r + i] : 1;
                left[i][j] = w * column_value(x, ldx, r + i, rows, top + j, k);
                right[i][j] = column_value(x, ldx, r + i, rows, across + j, k);
            }
        }
        NB_PHASE
        {
            tile_sums *mine = &sums[NB_ME];
            unsigned   x0 = threadIdx.x % SIDE, y0 = threadIdx.x / SIDE;
            bool       fold = (r + DEEP) % FOLD == 0 || r + DEEP >= rows;
            for (int a = 0; a < EACH; a++)
                for (int b = 0; b < EACH; b++) {
                    float sum = mine->chain[a][b];
                    for (int i = 0; i < DEEP; i++) sum = nb_fma(left[i][y0 + SIDE * a], right[i][x0 + SIDE * b], sum);
                    if (fold) mine->total[a][b] += (double)sum;
                    mine->chain[a][b] = fold ? 0 : sum;
                }
        }
    }
    NB_PHASE
    {
        for (int a = 0; a < EACH; a++)
            for (int b = 0; b < EACH; b++) {
                size_t i = top + threadIdx.x / SIDE + SIDE * (size_t)a, j = across + threadIdx.x % SIDE + SIDE * (size_t)b;
                if (i < k && j < k) strip[(i - first) * k + j] = sums[NB_ME].total[a][b];
            }
    }
}

/* sums[j] = sum_r weight |x_rj|, sums[k + j] = max |x_rj| (a NaN stays); one thread per column */
static __global__ void sum_columns(double *sums, const float *x, size_t ldx, size_t rows, size_t k, const float *weight)
{
    NB_PHASE
    {
        size_t j = (size_t)blockIdx.x * THREADS + threadIdx.x;
        if (j < k) {
            double sum = 0;
            float  top = 0;
            for (size_t r = 0; r < rows; r++) {
                float v = fabsf(x[r * ldx + j]);
                sum += (weight ? (double)weight[r] : 1.0) * (double)v;
                if (v > top || v != v) top = v;
            }
            sums[j] = sum;
            sums[k + j] = (double)top;
        }
    }
}

/* Room for `bytes` in strip and strip_d; false after an error (kept). */
static bool grow_strip(nb_cuda *c, size_t bytes)
{
    if (bytes <= c->strip_bytes) return true;
    cudaFree(c->strip_d);
    free(c->strip);
    c->strip = (double *)malloc(bytes);
    c->strip_d = c->strip ? (double *)nb_cuda_alloc(c, bytes) : NULL;
    c->strip_bytes = c->strip_d ? bytes : 0;
    if (!c->strip_d) nb_cuda_refuse(c, NB_ERR_MEMORY, "no memory for a strip of statistics on the GPU");
    return c->strip_d != NULL;
}

/* strip = the first `count` numbers of strip_d; false after an error (kept) */
static bool fetch(nb_cuda *c, size_t count)
{
    return nb_cuda_check(c, cudaGetLastError(), "gram.cu", "gram") &&
           nb_cuda_check(c, cudaMemcpyAsync(c->strip, c->strip_d, count * sizeof(double), cudaMemcpyDeviceToHost, c->stream),
                         "gram.cu", "fetching statistics") &&
           nb_cuda_check(c, cudaStreamSynchronize(c->stream), "gram.cu", "fetching statistics");
}

static void add_columns(nb_cuda *c, double *sum_abs, float *max_abs, const float *x, size_t ldx, size_t rows, size_t k,
                        const float *weight_d)
{
    NB_LAUNCH(sum_columns, dim3(nb_blocks(k, THREADS)), THREADS, c->stream, c->strip_d, x, ldx, rows, k, weight_d);
    if (!fetch(c, 2 * k)) return;
    for (size_t j = 0; j < k; j++) {
        float top = (float)c->strip[k + j];
        sum_abs[j] += c->strip[j];
        if (top > max_abs[j] || top != top) max_abs[j] = top;
    }
}

static void add_strip(nb_cuda *c, double *h, const float *x, size_t ldx, size_t rows, size_t k, const float *weight_d,
                      size_t first)
{
    size_t height = k - first < (size_t)STRIP ? k - first : (size_t)STRIP;
    NB_LAUNCH(make_strip, dim3(nb_blocks(k, TILE), nb_blocks(height, TILE)), THREADS, c->stream, c->strip_d, x, ldx, rows, k,
              weight_d, first);
    if (!fetch(c, height * k)) return;
    for (size_t i = 0; i < height; i++)
        for (size_t j = first + i; j < k; j++) h[(first + i) * k + j] += c->strip[i * k + j];
}

static void gram(const nb_ops *ops, double *h, double *sum_abs, float *max_abs, const float *x, size_t ldx, size_t rows, int k,
                 const float *weight)
{
    if (rows == 0) return;
    nb_cuda     *c = nb_cuda_enter(ops);
    size_t       wide = (size_t)k;
    const float *weight_d = weight ? (const float *)nb_cuda_table_put(c, &c->weight, weight, rows * sizeof *weight) : NULL;
    if ((weight_d || !weight) && grow_strip(c, STRIP * wide * sizeof(double))) {
        add_columns(c, sum_abs, max_abs, x, ldx, rows, wide, weight_d);
        for (size_t first = 0; first < wide && c->failed == NB_OK; first += STRIP)
            add_strip(c, h, x, ldx, rows, wide, weight_d, first);
    }
    nb_cuda_leave(c, "gram.cu", "gram", rows, wide, 1);
}

void nb_cuda_fill_gram(nb_ops *ops)
{
    ops->gram = gram;
}
