/* gram.cu - H += sum_r w_r x_r x_r' and two sums per column, added to exact sums (gram_sums.h) in host memory.
 *
 * H is made in strips of its rows: a block makes 64 x 64 elements, for each piece of at most 256 rows as one chain of fused
 * multiply-adds in f32, which is added to a fixed-point sum of two words.  A strip goes to the host and is added there, upper
 * triangle only.  So the device holds one strip, whatever k is; the price is that 16 k^2 / 2 bytes cross the bus for each call.
 */
#include "kernels/cuda/device.h"

enum { THREADS = 256, TILE = 64, SIDE = 16, EACH = TILE / SIDE, DEEP = 16, STRIP = 256 };

typedef struct {
    float   chain[EACH][EACH];
    int64_t high[EACH][EACH], low[EACH][EACH];
} tile_sums;

/* *high, *low += c, as nb_fixed_add does it (gram_sums.h is for the host: memcpy there, the same bits here) */
static __device__ inline void add_fixed(int64_t *high, int64_t *low, double c)
{
    double t = c + NB_FIXED_HIGH, rest = c - (t - NB_FIXED_HIGH), u = rest + NB_FIXED_LOW;
    *high = (int64_t)((uint64_t)*high + (uint64_t)(nb_double_bits(t) - nb_double_bits(NB_FIXED_HIGH)));
    *low = (int64_t)((uint64_t)*low + (uint64_t)(nb_double_bits(u) - nb_double_bits(NB_FIXED_LOW)));
}

static __device__ inline float column_value(const float *x, size_t ldx, size_t row, size_t rows, size_t column, size_t k)
{
    return row < rows && column < k ? x[row * ldx + column] : 0;
}

/* strip[i - first, j] for rows i of H from `first` on and columns j >= the block's i; others are not written.  High words; the low
 * ones lie `words` further.  Piece p is rows bounds[p] .. bounds[p + 1] - 1.  A row without weight counts as zeros. */
static __global__ void make_strip(int64_t *strip, size_t words, const float *x, size_t ldx, size_t k, const size_t *bounds,
                                  size_t pieces, const float *weight, size_t first)
{
    __shared__ float left[DEEP][TILE], right[DEEP][TILE];
    NB_PRIVATE(tile_sums, sums);
    size_t top = first + (size_t)blockIdx.y * TILE, across = (size_t)blockIdx.x * TILE;
    if (across + TILE <= top) return; /* below the diagonal, the same for the whole block */
    NB_PHASE { memset(&sums[NB_ME], 0, sizeof(tile_sums)); }
    for (size_t piece = 0; piece < pieces; piece++) {
        size_t end = bounds[piece + 1];
        for (size_t r = bounds[piece]; r < end; r += DEEP) {
            NB_PHASE
            {
                size_t j = threadIdx.x % TILE;
                for (size_t i = threadIdx.x / TILE; i < DEEP; i += THREADS / TILE) {
                    float w = r + i < end ? weight ? weight[r + i] : 1 : 0;
                    left[i][j] = w != 0 ? w * column_value(x, ldx, r + i, end, top + j, k) : 0;
                    right[i][j] = w != 0 ? column_value(x, ldx, r + i, end, across + j, k) : 0;
                }
            }
            NB_PHASE
            {
                tile_sums *mine = &sums[NB_ME];
                unsigned   x0 = threadIdx.x % SIDE, y0 = threadIdx.x / SIDE;
                bool       fold = r + DEEP >= end;
                for (int a = 0; a < EACH; a++)
                    for (int b = 0; b < EACH; b++) {
                        float sum = mine->chain[a][b];
                        for (int i = 0; i < DEEP; i++) sum = nb_fma(left[i][y0 + SIDE * a], right[i][x0 + SIDE * b], sum);
                        if (fold) add_fixed(&mine->high[a][b], &mine->low[a][b], (double)sum);
                        mine->chain[a][b] = fold ? 0 : sum;
                    }
            }
        }
    }
    NB_PHASE
    {
        for (int a = 0; a < EACH; a++)
            for (int b = 0; b < EACH; b++) {
                size_t i = top + threadIdx.x / SIDE + SIDE * (size_t)a, j = across + threadIdx.x % SIDE + SIDE * (size_t)b;
                if (i < k && j < k) {
                    strip[(i - first) * k + j] = sums[NB_ME].high[a][b];
                    strip[words + (i - first) * k + j] = sums[NB_ME].low[a][b];
                }
            }
    }
}

/* For column j: words[j], words[k + j] = high and low of sum_r weight |x_rj|, words[2 k + j] = bits of max |x_rj| as a float (a NaN
 * stays; infinity marks a piece beyond the range); one thread per column. */
static __global__ void sum_columns(int64_t *words, const float *x, size_t ldx, size_t k, const size_t *bounds, size_t pieces,
                                   const float *weight)
{
    NB_PHASE
    {
        size_t j = (size_t)blockIdx.x * THREADS + threadIdx.x;
        if (j < k) {
            float top = 0;
            words[j] = words[k + j] = 0;
            for (size_t piece = 0; piece < pieces; piece++) {
                double sum = 0, squares = 0;
                for (size_t r = bounds[piece]; r < bounds[piece + 1]; r++) {
                    double w = weight ? (double)weight[r] : 1.0, v;
                    float  magnitude = fabsf(x[r * ldx + j]);
                    if (magnitude > top || magnitude != magnitude) top = magnitude;
                    v = (double)magnitude;
                    if (w != 0) sum += w * v, squares += w * v * v;
                }
                add_fixed(&words[j], &words[k + j], sum);
                if (!(squares < NB_GRAM_LIMIT) && top == top) top = squares != squares ? (float)squares : nb_bits_float(0x7f800000u);
            }
            words[2 * k + j] = (int64_t)nb_float_bits(top);
        }
    }
}

/* Room for `bytes` in strip and strip_d; false after an error (kept). */
static bool grow_strip(nb_cuda *c, size_t bytes)
{
    if (bytes <= c->strip_bytes) return true;
    cudaFree(c->strip_d);
    free(c->strip);
    c->strip = (int64_t *)malloc(bytes);
    c->strip_d = c->strip ? (int64_t *)nb_cuda_alloc(c, bytes) : NULL;
    c->strip_bytes = c->strip_d ? bytes : 0;
    if (!c->strip_d) nb_cuda_refuse(c, NB_ERR_MEMORY, "no memory for a strip of statistics on the GPU");
    return c->strip_d != NULL;
}

/* strip = the first `count` words of strip_d; false after an error (kept) */
static bool fetch(nb_cuda *c, size_t count)
{
    return nb_cuda_check(c, cudaGetLastError(), "gram.cu", "gram") &&
           nb_cuda_check(c, cudaMemcpyAsync(c->strip, c->strip_d, count * sizeof(int64_t), cudaMemcpyDeviceToHost, c->stream),
                         "gram.cu", "fetching statistics") &&
           nb_cuda_check(c, cudaStreamSynchronize(c->stream), "gram.cu", "fetching statistics");
}

/* A call, with what kernels read of it in device memory. */
typedef struct {
    const nb_gram_sums *sums;
    const float        *x, *weight;
    size_t              ldx, k, pieces;
    const size_t       *bounds;
} gram_call;

static void add_columns(nb_cuda *c, const gram_call *g)
{
    size_t k = g->k;
    NB_LAUNCH(sum_columns, dim3(nb_blocks(k, THREADS)), THREADS, c->stream, c->strip_d, g->x, g->ldx, k, g->bounds, g->pieces,
              g->weight);
    if (!fetch(c, 3 * k)) return;
    for (size_t j = 0; j < k; j++) {
        uint32_t bits = (uint32_t)c->strip[2 * k + j];
        float    top;
        memcpy(&top, &bits, sizeof top);
        g->sums->sum_abs[j] = nb_fixed_sum(g->sums->sum_abs[j], c->strip[j]);
        g->sums->sum_abs[k + j] = nb_fixed_sum(g->sums->sum_abs[k + j], c->strip[k + j]);
        if (g->sums->max_abs[j] == g->sums->max_abs[j]) g->sums->max_abs[j] = nb_gram_larger(g->sums->max_abs[j], top);
    }
}

static void add_strip(nb_cuda *c, const gram_call *g, size_t first)
{
    size_t   k = g->k, height = k - first < (size_t)STRIP ? k - first : (size_t)STRIP, words = height * k;
    int64_t *h = g->sums->h;
    NB_LAUNCH(make_strip, dim3(nb_blocks(k, TILE), nb_blocks(height, TILE)), THREADS, c->stream, c->strip_d, words, g->x, g->ldx,
              k, g->bounds, g->pieces, g->weight, first);
    if (!fetch(c, 2 * words)) return;
    for (size_t r = 0; r < height; r++) {
        size_t i = first + r;
        for (size_t j = i; j < k; j++) {
            int64_t *low = j == i ? &g->sums->diagonal[i] : &h[nb_gram_low(k, i, j)];
            h[i * k + j] = nb_fixed_sum(h[i * k + j], c->strip[r * k + j]);
            *low = nb_fixed_sum(*low, c->strip[words + r * k + j]);
        }
    }
}

/* The pieces of the samples as bounds: malloc'd, *pieces + 1; NULL for none, or for no memory (kept). */
static size_t *pieces_of(nb_cuda *c, size_t *pieces, const size_t *bounds, size_t samples)
{
    size_t n = 0, at = 0;
    for (size_t s = 0; s < samples; s++) n += (bounds[s + 1] - bounds[s] + NB_GRAM_ROWS - 1) / NB_GRAM_ROWS;
    *pieces = n;
    size_t *out = n ? (size_t *)malloc((n + 1) * sizeof *out) : NULL;
    if (n && !out) nb_cuda_refuse(c, NB_ERR_MEMORY, "no memory for a table of statistics");
    if (!out) return NULL;
    for (size_t s = 0; s < samples; s++)
        for (size_t r = bounds[s]; r < bounds[s + 1]; r += NB_GRAM_ROWS) out[at++] = r;
    out[n] = bounds[samples];
    return out;
}

static void gram(const nb_ops *ops, const nb_gram_sums *sums, const float *x, size_t ldx, int k, const size_t *bounds,
                 size_t samples, const float *weight)
{
    nb_cuda  *c = nb_cuda_enter(ops);
    gram_call g = {sums, x, NULL, ldx, (size_t)k, 0, NULL};
    size_t   *pieces = pieces_of(c, &g.pieces, bounds, samples);
    if (pieces) {
        size_t height = g.k < (size_t)STRIP ? g.k : (size_t)STRIP, words = 2 * height * g.k;
        g.bounds = (const size_t *)nb_cuda_table_put(c, &c->bounds, pieces, (g.pieces + 1) * sizeof *pieces);
        if (weight) g.weight = (const float *)nb_cuda_table_put(c, &c->weight, weight, bounds[samples] * sizeof *weight);
        if (g.bounds && (g.weight || !weight) && grow_strip(c, (words > 3 * g.k ? words : 3 * g.k) * sizeof(int64_t))) {
            add_columns(c, &g);
            for (size_t first = 0; first < g.k && c->failed == NB_OK; first += STRIP) add_strip(c, &g, first);
        }
        free(pieces);
    }
    nb_cuda_leave(c, "gram.cu", "gram", bounds[samples], g.k, 1);
}

void nb_cuda_fill_gram(nb_ops *ops)
{
    ops->gram = gram;
}
