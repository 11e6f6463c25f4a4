/* matmul.cu - y = x W' for few rows and for many, and rows of a table.
 *
 * Two kernels with one order of summation (packed.h), so that a row gets the same bits from either:
 *
 *   few rows    a block makes 8 outputs, one warp each, of up to 4 rows; a lane takes every 32nd chunk.  Reads the weights
 *               once per 4 rows: n k (bytes per weight) for one token, the memory-bound case.
 *   many rows   a block makes 64 rows x 64 outputs; chunks of both go through shared memory, dequantised once per block.
 *               2 rows n k operations in f32 on the ordinary cores.
 *
 * No tensor cores and no cuBLAS: the first changes the numbers, the second the order of sums with the number of rows.
 */
#include "kernels/cuda/packed.h"

/* ---- few rows ----------------------------------------------------------------------------------------------------------------- */

enum { THREADS = 256, LANES = 32, OUTPUTS = THREADS / LANES, ROWS = 4, FEW_ROWS = 8 };

static __global__ void multiply_few(float *y, size_t ldy, const float *x, size_t ldx, size_t rows, nb_cuda_weights w,
                                    const float *bias, bool add)
{
    __shared__ float xs[ROWS][NB_SEGMENT][NB_CHUNK + 1]; /* + 1: lanes read the same place of neighbouring chunks */
    __shared__ float part[OUTPUTS][ROWS][NB_SEGMENT];
    __shared__ float total[OUTPUTS][ROWS];
    size_t           first_row = (size_t)blockIdx.y * ROWS;
    NB_PHASE
    {
        if (threadIdx.x < OUTPUTS * ROWS) total[threadIdx.x / ROWS][threadIdx.x % ROWS] = 0;
    }
    for (int first = 0; first < w.chunks; first += NB_SEGMENT) {
        int chunks = w.chunks - first < NB_SEGMENT ? w.chunks - first : NB_SEGMENT;
        NB_PHASE /* the inputs of a segment, in packed order */
        {
            for (int j = (int)threadIdx.x; j < chunks * NB_CHUNK; j += THREADS) {
                int from = nb_weight_input(&w, first * NB_CHUNK + j);
                for (size_t r = 0; r < ROWS; r++)
                    xs[r][j / NB_CHUNK][j % NB_CHUNK] =
                        from >= 0 && first_row + r < rows ? x[(first_row + r) * ldx + (size_t)from] : 0;
            }
        }
        NB_PHASE /* one chunk of one output for each thread */
        {
            int    lane = (int)(threadIdx.x % LANES), warp = (int)(threadIdx.x / LANES);
            size_t o = (size_t)blockIdx.x * OUTPUTS + (size_t)warp;
            if (lane < chunks && o < (size_t)w.n) {
                float sum[ROWS] = { 0 }, weight[NB_PIECE], scale = nb_weight_scale(&w, o, first + lane);
                for (int j = 0; j < NB_CHUNK; j += NB_PIECE) {
                    nb_weight_piece(weight, &w, o, (first + lane) * NB_CHUNK + j);
                    for (int r = 0; r < ROWS; r++)
                        for (int i = 0; i < NB_PIECE; i++) sum[r] = nb_fma(weight[i], xs[r][lane][j + i], sum[r]);
                }
                for (int r = 0; r < ROWS; r++) part[warp][r][lane] = scale * sum[r];
            }
        }
        NB_PHASE
        {
            int r = (int)(threadIdx.x % LANES), warp = (int)(threadIdx.x / LANES);
            if (r < ROWS && (size_t)blockIdx.x * OUTPUTS + (size_t)warp < (size_t)w.n) {
                float segment = 0;
                for (int c = 0; c < chunks; c++) segment += part[warp][r][c];
                total[warp][r] += segment;
            }
        }
    }
    NB_PHASE
    {
        size_t r = threadIdx.x % LANES, warp = threadIdx.x / LANES, o = (size_t)blockIdx.x * OUTPUTS + warp, row = first_row + r;
        if (r < ROWS && row < rows && o < (size_t)w.n) {
            float *to = y + row * ldy + o, sum = total[warp][r];
            if (bias) sum += bias[o];
            if (add) sum += *to;
            *to = sum;
        }
    }
}

/* ---- many rows ---------------------------------------------------------------------------------------------------------------- */

enum { TILE = 64, SIDE = 16, EACH = TILE / SIDE }; /* a thread makes EACH x EACH outputs, at a distance of SIDE */

typedef struct {
    float segment[EACH][EACH], total[EACH][EACH]; /* [row][output] */
} tile_sums;

static __global__ void multiply_many(float *y, size_t ldy, const float *x, size_t ldx, size_t rows, nb_cuda_weights w,
                                     const float *bias, bool add)
{
    __shared__ float xs[NB_CHUNK][TILE + 1], ws[NB_CHUNK][TILE + 1], scale[TILE];
    NB_PRIVATE(tile_sums, sums);
    size_t first_row = (size_t)blockIdx.y * TILE, first_output = (size_t)blockIdx.x * TILE;
    NB_PHASE { memset(&sums[NB_ME], 0, sizeof(tile_sums)); }
    for (int chunk = 0; chunk < w.chunks; chunk++) {
        NB_PHASE
        {
            int j = (int)(threadIdx.x % NB_CHUNK), from = nb_weight_input(&w, chunk * NB_CHUNK + j);
            for (size_t r = threadIdx.x / NB_CHUNK; r < TILE; r += THREADS / NB_CHUNK)
                xs[j][r] = from >= 0 && first_row + r < rows ? x[(first_row + r) * ldx + (size_t)from] : 0;
            int    output = (int)(threadIdx.x / (NB_CHUNK / NB_PIECE)), piece = (int)(threadIdx.x % (NB_CHUNK / NB_PIECE));
            size_t o = first_output + (size_t)output;
            float  weight[NB_PIECE] = { 0 };
            if (o < (size_t)w.n) nb_weight_piece(weight, &w, o, chunk * NB_CHUNK + piece * NB_PIECE);
            for (int i = 0; i < NB_PIECE; i++) ws[piece * NB_PIECE + i][output] = weight[i];
            if (piece == 0) scale[output] = o < (size_t)w.n ? nb_weight_scale(&w, o, chunk) : 0;
        }
        NB_PHASE
        {
            unsigned   across = threadIdx.x % SIDE, down = threadIdx.x / SIDE;
            tile_sums *mine = &sums[NB_ME];
            float      sum[EACH][EACH] = { { 0 } };
            for (int j = 0; j < NB_CHUNK; j++)
                for (int r = 0; r < EACH; r++)
                    for (int o = 0; o < EACH; o++)
                        sum[r][o] = nb_fma(ws[j][across + SIDE * o], xs[j][down + SIDE * r], sum[r][o]);
            bool ends = (chunk + 1) % NB_SEGMENT == 0 || chunk + 1 == w.chunks;
            for (int r = 0; r < EACH; r++)
                for (int o = 0; o < EACH; o++) {
                    mine->segment[r][o] += scale[across + SIDE * o] * sum[r][o];
                    if (ends) {
                        mine->total[r][o] += mine->segment[r][o];
                        mine->segment[r][o] = 0;
                    }
                }
        }
    }
    NB_PHASE
    {
        for (int r = 0; r < EACH; r++)
            for (int o = 0; o < EACH; o++) {
                size_t row = first_row + threadIdx.x / SIDE + SIDE * (size_t)r;
                size_t output = first_output + threadIdx.x % SIDE + SIDE * (size_t)o;
                if (row < rows && output < (size_t)w.n) {
                    float *to = y + row * ldy + output, sum = sums[NB_ME].total[r][o];
                    if (bias) sum += bias[output];
                    if (add) sum += *to;
                    *to = sum;
                }
            }
    }
}

static void matmul(const nb_ops *ops, float *y, size_t ldy, const float *x, size_t ldx, size_t rows, const nb_matrix *m,
                   const float *bias, bool add)
{
    if (rows == 0) return;
    nb_cuda               *c = nb_cuda_enter(ops);
    const nb_cuda_weights *w = nb_cuda_packed(m);
    if (rows <= FEW_ROWS)
        NB_LAUNCH(multiply_few, dim3(nb_blocks((size_t)w->n, OUTPUTS), nb_blocks(rows, ROWS)), THREADS, c->stream, y, ldy, x, ldx,
                  rows, *w, bias, add);
    else
        NB_LAUNCH(multiply_many, dim3(nb_blocks((size_t)w->n, TILE), nb_blocks(rows, TILE)), THREADS, c->stream, y, ldy, x, ldx,
                  rows, *w, bias, add);
    nb_cuda_leave(c, "matmul.cu", "matmul", rows, (size_t)w->n, (size_t)w->k);
}

/* ---- embed -------------------------------------------------------------------------------------------------------------------- */

/* One block per row: y[r, input of column j] = weight of column j, one rounding for ints and none for floats. */
static __global__ void copy_rows(float *y, const int32_t *ids, nb_cuda_weights w)
{
    NB_PHASE
    {
        float *to = y + (size_t)blockIdx.x * (size_t)w.k, weight[NB_PIECE];
        size_t o = (size_t)ids[blockIdx.x];
        for (int first = (int)threadIdx.x * NB_PIECE; first < w.chunks * NB_CHUNK; first += THREADS * NB_PIECE) {
            float scale = nb_weight_scale(&w, o, first / NB_CHUNK);
            nb_weight_piece(weight, &w, o, first);
            for (int i = 0; i < NB_PIECE; i++) {
                int input = nb_weight_input(&w, first + i);
                if (input >= 0) to[input] = weight[i] * scale;
            }
        }
    }
}

static void embed(const nb_ops *ops, float *y, const int32_t *ids, size_t rows, const nb_matrix *m)
{
    if (rows == 0) return;
    nb_cuda       *c = nb_cuda_enter(ops);
    const int32_t *ids_d = (const int32_t *)nb_cuda_table_put(c, &c->ids, ids, rows * sizeof *ids);
    if (ids_d) NB_LAUNCH(copy_rows, dim3((unsigned)rows), THREADS, c->stream, y, ids_d, *nb_cuda_packed(m));
    nb_cuda_leave(c, "matmul.cu", "embed", rows, (size_t)m->n, (size_t)m->k);
}

void nb_cuda_fill_matmul(nb_ops *ops)
{
    ops->pack = nb_cuda_pack;
    ops->release = nb_cuda_release;
    ops->matmul = matmul;
    ops->embed = embed;
}
