/* pack.cu - plain host arrays to packed.h, on the device.
 *
 * The host decides the order of the columns and sends the codes as they are, one byte each, a stretch of rows at a time; a
 * kernel gathers and packs them.  It rounds nothing.  Floats are copied, with rows padded to whole chunks.
 */
#include <limits.h>

#include "kernels/cuda/packed.h"

extern "C" {
#include "kernels/cpu/cpu.h" /* nb_pack_check: what every backend checks first */
}

enum { THREADS = 256, STAGED = 64 << 20 /* bytes of codes on their way at a time */ };

/* ---- the order of the columns ----------------------------------------------------------------------------------------------- */

typedef struct {
    int      chunks;
    int32_t *group_of, *input; /* host, as in packed.h */
} column_order;

static void order_free(column_order *o)
{
    free(o->group_of);
    free(o->input);
    memset(o, 0, sizeof *o);
}

static int group_of_input(const nb_weights *w, int i) { return w->g_idx ? w->g_idx[i] : i / w->group; }

/* Every chunk lies within one group already when groups start at chunks and inputs are in order. */
static bool in_order(const nb_weights *w, int groups)
{
    if (w->kind == NB_W_FLOAT) return true;
    if (groups > 1 && w->group % NB_CHUNK) return false;
    for (int i = 0; w->g_idx && i < w->k; i++)
        if (w->g_idx[i] != i / w->group) return false;
    return true;
}

/* Columns stably sorted by group, each group padded to whole chunks.  next: [groups], zeroed. */
static nb_status sort_columns(column_order *o, const nb_weights *w, int groups, int64_t *next, nb_error *err)
{
    int64_t padded = 0;
    for (int i = 0; i < w->k; i++) next[group_of_input(w, i)]++;
    for (int g = 0; g < groups; g++) {
        int64_t count = next[g];
        next[g] = padded;
        padded += (count + NB_CHUNK - 1) / NB_CHUNK * NB_CHUNK;
    }
    if (padded > INT_MAX / 2)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "pack: %d inputs in groups of %d are more than the GPU kernels take", w->k, w->group);
    o->chunks = (int)(padded / NB_CHUNK);
    NB_TRY(nb_alloc(&o->group_of, (size_t)o->chunks, sizeof *o->group_of, "the groups of a matrix", err));
    NB_TRY(nb_alloc(&o->input, (size_t)padded, sizeof *o->input, "the order of the columns", err));
    for (int64_t j = 0; j < padded; j++) o->input[j] = -1;
    for (int i = 0; i < w->k; i++) {
        int     g = group_of_input(w, i);
        int64_t at = next[g]++;
        o->input[at] = i;
        o->group_of[at / NB_CHUNK] = g;
    }
    return NB_OK;
}

static nb_status order_columns(column_order *o, const nb_weights *w, int groups, nb_error *err)
{
    if (in_order(w, groups)) {
        o->chunks = (int)(((int64_t)w->k + NB_CHUNK - 1) / NB_CHUNK);
        NB_TRY(nb_alloc(&o->group_of, (size_t)o->chunks, sizeof *o->group_of, "the groups of a matrix", err));
        for (int c = 0; c < o->chunks; c++)
            o->group_of[c] = w->kind == NB_W_FLOAT ? 0 : (int)((int64_t)c * NB_CHUNK / w->group);
        return NB_OK;
    }
    int64_t *next;
    NB_TRY(nb_alloc(&next, (size_t)groups, sizeof *next, "the order of the columns", err));
    nb_status status = sort_columns(o, w, groups, next, err);
    free(next);
    return status;
}

/* ---- values ------------------------------------------------------------------------------------------------------------------- */

/* codes [rows, k], one byte each, to rows first .. of w; one thread makes the 8 codes of a piece. */
static __global__ void pack_codes(nb_cuda_weights w, const uint8_t *codes, size_t first, size_t rows)
{
    NB_PHASE
    {
        size_t pieces = (size_t)w.chunks * (NB_CHUNK / NB_PIECE), i = (size_t)blockIdx.x * THREADS + threadIdx.x;
        size_t row = i / pieces, piece = i % pieces;
        if (row < rows) {
            uint32_t low = 0, high = 0; /* codes 0..3 and 4..7 in bytes; int4: all in `low` */
            for (int j = 0; j < NB_PIECE; j++) {
                int      from = nb_weight_input(&w, (int)piece * NB_PIECE + j);
                uint32_t code = from < 0 ? 0 : codes[row * (size_t)w.k + (size_t)from];
                if (w.kind == NB_W_INT4)
                    low |= (code & 15) << 4 * j;
                else if (j < 4)
                    low |= code << 8 * j;
                else
                    high |= code << 8 * (j - 4);
            }
            uint32_t *to = (uint32_t *)(w.values + (first + row) * w.row_bytes);
            if (w.kind == NB_W_INT4) {
                to[piece] = low;
            } else {
                to[2 * piece] = low;
                to[2 * piece + 1] = high;
            }
        }
    }
}

static bool send_codes(nb_cuda *c, const nb_cuda_weights *w, const nb_weights *part, size_t first)
{
    size_t k = (size_t)w->k, rows = (size_t)part->n, most = STAGED / k ? STAGED / k : 1;
    if (most > rows) most = rows;
    bool     words = part->order != NB_CODES_BYTES;
    uint8_t *bytes = words ? (uint8_t *)malloc(most * k) : NULL; /* sent before it is filled again: it is pageable */
    uint8_t *staged = words && !bytes ? NULL : (uint8_t *)nb_cuda_alloc(c, most * k);
    if (!staged) {
        free(bytes);
        return false;
    }
    for (size_t r = 0; r < rows; r += most) {
        size_t m = rows - r < most ? rows - r : most;
        if (words) nb_weights_codes(bytes, k, part, r, m, 0, k);
        nb_cuda_send(c, staged, words ? bytes : part->codes + r * k, m * k, "pack.cu", "sending codes");
        size_t pieces = m * (size_t)w->chunks * (NB_CHUNK / NB_PIECE);
        NB_LAUNCH(pack_codes, dim3(nb_blocks(pieces, THREADS)), THREADS, c->stream, *w, staged, first + r, m);
        nb_cuda_check(c, cudaGetLastError(), "pack.cu", "packing codes");
    }
    nb_cuda_check(c, cudaStreamSynchronize(c->stream), "pack.cu", "packing codes");
    cudaFree(staged);
    free(bytes);
    return true;
}

static void send_floats(nb_cuda *c, const nb_cuda_weights *w, const nb_weights *part, size_t first)
{
    size_t bytes = (size_t)w->k * nb_dtype_size(part->dtype);
    nb_cuda_check(c, cudaMemcpy2DAsync(w->values + first * w->row_bytes, w->row_bytes, part->data, bytes, bytes, (size_t)part->n,
                                       cudaMemcpyHostToDevice, c->stream), "pack.cu", "sending floats");
}

/* ---- scales and zeros --------------------------------------------------------------------------------------------------------- */

static bool all_f16(const nb_weights *parts, int count, size_t groups)
{
    for (int p = 0; p < count; p++)
        for (size_t i = 0; i < (size_t)parts[p].n * groups; i++) {
            float back = nb_f16_to_f32(nb_f32_to_f16(parts[p].scales[i]));
            if (memcmp(&back, &parts[p].scales[i], sizeof back) != 0) return false;
        }
    return true;
}

static nb_status send_scales(nb_cuda *c, const nb_cuda_weights *w, const nb_weights *part, size_t first, nb_error *err)
{
    size_t count = (size_t)part->n * (size_t)w->groups, at = first * (size_t)w->groups, size = w->half_scales ? 2 : 4;
    void  *scales;
    NB_TRY(nb_alloc(&scales, count, size, "the scales of a matrix", err));
    nb_from_f32(scales, w->half_scales ? NB_F16 : NB_F32, part->scales, count);
    nb_cuda_send(c, (char *)w->scales + at * size, scales, count * size, "pack.cu", "sending scales");
    free(scales);
    if (w->zeros && part->zeros)
        nb_cuda_send(c, w->zeros + at, part->zeros, count, "pack.cu", "sending zeros");
    else if (w->zeros) /* a symmetric part of a stack that has others */
        nb_cuda_check(c, cudaMemsetAsync(w->zeros + at, w->middle, count, c->stream), "pack.cu", "filling zeros");
    return NB_OK;
}

/* ---- the whole ---------------------------------------------------------------------------------------------------------------- */

static void *new_array(nb_cuda *c, nb_matrix *m, size_t count, size_t size)
{
    size_t bytes;
    void  *p = nb_mul(count, size, &bytes) ? nb_cuda_alloc(c, bytes) : NULL;
    if (p) m->bytes += bytes;
    return p;
}

static void *send_array(nb_cuda *c, nb_matrix *m, const int32_t *from, size_t count)
{
    void *p = new_array(c, m, count, sizeof *from);
    if (p) nb_cuda_send(c, p, from, count * sizeof *from, "pack.cu", "sending the order of the columns");
    return p;
}

/* Device memory for everything; false when it does not fit. */
static bool allocate(nb_cuda *c, nb_matrix *m, nb_cuda_weights *w, const column_order *o, bool zeros)
{
    size_t n = (size_t)w->n, groups = (size_t)w->groups, columns = (size_t)o->chunks * NB_CHUNK;
    w->chunks = o->chunks;
    switch (m->kind) {
    case NB_W_INT4: w->row_bytes = columns / 2; break;
    case NB_W_INT8: w->row_bytes = columns; break;
    case NB_W_FLOAT: w->row_bytes = columns * nb_dtype_size(m->dtype); break;
    }
    w->values = (uint8_t *)new_array(c, m, n, w->row_bytes);
    w->group_of = (const int32_t *)send_array(c, m, o->group_of, (size_t)o->chunks);
    if (!w->values || !w->group_of) return false;
    if (o->input) {
        w->input = (const int32_t *)send_array(c, m, o->input, columns);
        if (!w->input) return false;
    }
    if (m->kind == NB_W_FLOAT) return true;
    w->scales = new_array(c, m, n, groups * (w->half_scales ? 2 : 4));
    if (zeros) w->zeros = (uint8_t *)new_array(c, m, n, groups);
    return w->scales && (w->zeros || !zeros);
}

static nb_status no_memory(const nb_matrix *m, nb_error *err)
{
    return nb_fail(err, NB_ERR_MEMORY, "no memory on the GPU for a matrix [%d, %d]", m->n, m->k);
}

static nb_status fill(nb_cuda *c, nb_matrix *m, nb_cuda_weights *w, const nb_weights *parts, int count, const column_order *o,
                      nb_error *err)
{
    bool zeros = false;
    w->half_scales = m->kind != NB_W_FLOAT && all_f16(parts, count, (size_t)w->groups);
    for (int p = 0; p < count; p++) zeros = zeros || parts[p].zeros;
    if (!allocate(c, m, w, o, zeros && m->kind != NB_W_FLOAT)) return no_memory(m, err);
    size_t first = 0;
    for (int p = 0; p < count; p++) {
        if (m->kind == NB_W_FLOAT) {
            send_floats(c, w, &parts[p], first);
        } else {
            if (!send_codes(c, w, &parts[p], first)) return no_memory(m, err);
            NB_TRY(send_scales(c, w, &parts[p], first, err));
        }
        first += (size_t)parts[p].n;
    }
    nb_cuda_check(c, cudaStreamSynchronize(c->stream), "pack.cu", "pack"); /* the caller may free its arrays */
    return c->failed == NB_OK ? NB_OK : nb_fail(err, c->failed, "%s", c->text);
}

nb_status nb_cuda_pack(const nb_ops *ops, nb_matrix *out, const nb_weights *parts, int count, nb_error *err)
{
    NB_TRY(nb_pack_check(out, parts, count, err));
    if (out->k > INT_MAX / 2) {
        nb_status status = nb_fail(err, NB_ERR_UNSUPPORTED, "pack: %d inputs are more than the GPU kernels take", out->k);
        memset(out, 0, sizeof *out);
        return status;
    }
    nb_cuda_weights *w;
    column_order     order = { 0, NULL, NULL };
    nb_status        status = nb_alloc(&w, 1, sizeof *w, "a matrix", err);
    if (status == NB_OK) {
        bool ints = out->kind != NB_W_FLOAT;
        out->storage = w;
        w->kind = out->kind;
        w->dtype = out->dtype;
        w->n = out->n;
        w->k = out->k;
        w->middle = out->kind == NB_W_INT4 ? 8 : 128;
        w->groups = ints ? (int)(((int64_t)out->k + out->group - 1) / out->group) : 1;
        status = order_columns(&order, &parts[0], w->groups, err);
    }
    if (status == NB_OK) {
        nb_cuda *c = nb_cuda_enter(ops);
        status = fill(c, out, w, parts, count, &order, err);
        nb_cuda_leave(c, "pack.cu", "pack", (size_t)out->n, (size_t)out->k, (size_t)out->group);
    }
    order_free(&order);
    if (status != NB_OK) nb_cuda_release(ops, out);
    return status;
}

void nb_cuda_release(const nb_ops *ops, nb_matrix *m)
{
    nb_cuda_weights *w = (nb_cuda_weights *)m->storage;
    if (w) {
        ops->free(ops, w->values);
        ops->free(ops, w->scales);
        ops->free(ops, w->zeros);
        ops->free(ops, (void *)w->group_of);
        ops->free(ops, (void *)w->input);
        free(w);
    }
    memset(m, 0, sizeof *m);
}
