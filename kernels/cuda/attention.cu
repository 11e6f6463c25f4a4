/* attention.cu - K and V into pages, and attention over pages and inside segments.
 *
 * One block is one query row of one head.  It walks over the keys in tiles of one key per thread with an online softmax
 * [Milakov & Gimelshein 2018]: with running maximum m, sum z and output o,
 *
 *     m' = max(m, max s_t),  f = e^(m - m'),  z' = f z + sum e^(s_t - m'),  o' = f o + sum e^(s_t - m') v_t
 *
 * Tiles start at multiples of TILE tokens from the first token that the row sees, so a row's result depends neither on its
 * company nor on how its prompt was cut.  K and V are read once per query row: right, and not yet fast (no sharing between
 * the heads of a KV head, no split of a long context over blocks).
 */
#include "kernels/cuda/device.h"

enum { THREADS = 128, TILE = THREADS, MAX_HEAD_DIM = 256, DIMS = MAX_HEAD_DIM / THREADS };

/* ---- the spans of a step in device memory ---------------------------------------------------------------------------------------- */

/* Rows begin .. begin + rows - 1 of all rows of the call, and where its pages are in the list behind the spans. */
typedef struct {
    uint64_t begin, first, rows, past, page;
} device_span;

typedef struct {
    const device_span *span; /* [count] */
    void *const       *pages;
    size_t             count, rows;
} device_spans;

static size_t pages_of(const nb_span *s) { return (s->past + s->rows + NB_KV_PAGE - 1) / NB_KV_PAGE; }

/* False after an error (kept) or when there is no row.  Every layer of a step sends the same bytes: only the first does. */
static bool put_spans(nb_cuda *c, device_spans *out, const nb_span *spans, size_t count)
{
    size_t pages = 0;
    memset(out, 0, sizeof *out);
    for (size_t s = 0; s < count; s++) {
        out->rows += spans[s].rows;
        if (spans[s].rows) out->count++, pages += pages_of(&spans[s]);
    }
    if (out->rows == 0) return false;
    size_t       head = out->count * sizeof(device_span), bytes = head + pages * sizeof(void *);
    char        *table = (char *)malloc(bytes);
    device_span *to = (device_span *)table;
    if (!table) {
        nb_cuda_refuse(c, NB_ERR_MEMORY, "no memory for the page tables of a step");
        return false;
    }
    uint64_t begin = 0, page = 0;
    for (size_t s = 0; s < count; s++) {
        if (spans[s].rows == 0) continue;
        size_t own = pages_of(&spans[s]);
        *to++ = { begin, spans[s].first, spans[s].rows, spans[s].past, page };
        memcpy(table + head + page * sizeof(void *), spans[s].pages, own * sizeof(void *));
        begin += spans[s].rows;
        page += own;
    }
    const char *device = (const char *)nb_cuda_table_put(c, &c->spans, table, bytes);
    free(table);
    out->span = (const device_span *)device;
    out->pages = (void *const *)(device + head);
    return device != NULL;
}

static __device__ inline const device_span *span_of_row(const device_spans *s, uint64_t row)
{
    const device_span *span = s->span;
    while (row >= span->begin + span->rows) span++;
    return span;
}

/* First byte of the K or V of one token and KV head: nb_kv_at, on the device. */
static __device__ inline char *kv_at(const nb_attn *a, const device_spans *s, const device_span *span, size_t offset,
                                     uint64_t token, int head)
{
    size_t row = (size_t)a->head_dim * (a->kv_type == NB_F32 ? 4 : a->kv_type == NB_BF16 ? 2 : 1);
    size_t of_head = NB_KV_PAGE * (row + (a->kv_type == NB_I8 ? 2 : 0));
    return (char *)s->pages[span->page + token / NB_KV_PAGE] + offset + (size_t)head * of_head + token % NB_KV_PAGE * row;
}

/* The scale of a token whose codes begin at p: nb_kv_scale_at. */
static __device__ inline uint16_t *scale_at(const nb_attn *a, char *p, uint64_t token)
{
    size_t d = (size_t)a->head_dim, slot = token % NB_KV_PAGE;
    return (uint16_t *)(p + (NB_KV_PAGE - slot) * d) + slot;
}

/* ---- store -------------------------------------------------------------------------------------------------------------------- */

static __device__ inline void store_element(char *to, int type, size_t j, float value)
{
    if (type == NB_BF16)
        ((uint16_t *)to)[j] = nb_float_bf16(value);
    else
        ((uint32_t *)to)[j] = nb_float_bits(value); /* bits: a NaN is stored as it is */
}

/* The scale of x [d], as ops.h says; every thread finds it by itself. */
static __device__ inline uint16_t scale_of(const float *x, size_t d)
{
    float top = 0, none = 0;
    for (size_t j = 0; j < d; j++) {
        float size = fabsf(x[j]);
        top = size > top ? size : top;
        none = nb_fma(x[j], 0.0f, none); /* NaN once something is not finite */
    }
    return nb_float_bf16(none == 0 ? top / 127.0f : nb_bits_float(0x7fc00000u));
}

static __device__ inline void store_code(char *to, size_t j, float value, float step)
{
    float code = step > 0 ? rintf(value / step) : 0;
    ((int8_t *)to)[j] = (int8_t)(code > 127 ? 127 : code < -127 ? -127 : code);
}

/* One block per row and KV head. */
static __global__ void store_kv(nb_attn a, device_spans s, const float *k, const float *v, size_t ld)
{
    const device_span *span = span_of_row(&s, blockIdx.x);
    uint64_t           row = blockIdx.x - span->begin, token = span->past + row;
    int                head = (int)blockIdx.y;
    char              *to_k = kv_at(&a, &s, span, a.k_offset, token, head), *to_v = kv_at(&a, &s, span, a.v_offset, token, head);
    size_t             from = (span->first + row) * ld + (size_t)head * (size_t)a.head_dim;
    NB_PHASE
    {
        size_t d = (size_t)a.head_dim;
        if (a.kv_type == NB_I8) {
            uint16_t k_scale = scale_of(k + from, d), v_scale = scale_of(v + from, d);
            if (threadIdx.x == 0) {
                *scale_at(&a, to_k, token) = k_scale;
                *scale_at(&a, to_v, token) = v_scale;
            }
            for (size_t j = threadIdx.x; j < d; j += THREADS) {
                store_code(to_k, j, k[from + j], nb_bf16_float(k_scale));
                store_code(to_v, j, v[from + j], nb_bf16_float(v_scale));
            }
        } else {
            for (size_t j = threadIdx.x; j < d; j += THREADS) {
                store_element(to_k, a.kv_type, j, k[from + j]);
                store_element(to_v, a.kv_type, j, v[from + j]);
            }
        }
    }
}

static void kv_store(const nb_ops *ops, const nb_attn *a, const nb_span *spans, size_t count, const float *k, const float *v,
                     size_t ld)
{
    nb_cuda     *c = nb_cuda_enter(ops);
    device_spans s;
    if (put_spans(c, &s, spans, count))
        NB_LAUNCH(store_kv, dim3((unsigned)s.rows, (unsigned)a->kv_heads), THREADS, c->stream, *a, s, k, v, ld);
    nb_cuda_leave(c, "attention.cu", "kv_store", s.rows, (size_t)a->kv_heads, (size_t)a->head_dim);
}

/* ---- attention ---------------------------------------------------------------------------------------------------------------- */

/* Where the keys and values of a query are. */
typedef struct {
    const nb_attn      *a; /* paged when not NULL */
    const device_spans *spans;
    const device_span  *span;
    int                 head;
    const float        *keys, *values; /* else rows of f32 at a distance of ld */
    size_t              ld;
} source;

typedef struct {
    float top, factor, total, out[DIMS];
} softmax;

/* Where a token's elements are, and what they are to be multiplied by. */
static __device__ inline char *token_at(const source *s, bool value, uint64_t token, float *scale)
{
    *scale = 1;
    if (!s->a) return (char *)((value ? s->values : s->keys) + token * s->ld);
    char *p = kv_at(s->a, s->spans, s->span, value ? s->a->v_offset : s->a->k_offset, token, s->head);
    if (s->a->kv_type == NB_I8) *scale = nb_bf16_float(*scale_at(s->a, p, token));
    return p;
}

static __device__ inline float element(const char *p, int type, size_t j)
{
    return type == NB_BF16 ? nb_bf16_float(((const uint16_t *)p)[j]) : type == NB_I8 ? ((const int8_t *)p)[j] : ((const float *)p)[j];
}

/* out[0 .. d) = softmax(scale q K') V over `tokens` keys; run by all threads of a block. */
static __device__ void attend_row(float *out, const float *q, const source *s, uint64_t tokens, size_t d, float scale)
{
    __shared__ float       query[MAX_HEAD_DIM], score[TILE], weight[TILE], value_scale[TILE];
    __shared__ const char *value[TILE];
    NB_PRIVATE(softmax, state); /* top, factor and total are the same in every thread */
    int type = s->a ? s->a->kv_type : NB_F32;
    NB_PHASE
    {
        for (size_t j = threadIdx.x; j < d; j += THREADS) query[j] = q[j];
        softmax *me = &state[NB_ME];
        me->top = -INFINITY;
        me->total = 0;
        for (int i = 0; i < DIMS; i++) me->out[i] = 0;
    }
    for (uint64_t first = 0; first < tokens; first += TILE) {
        unsigned n = tokens - first < TILE ? (unsigned)(tokens - first) : (unsigned)TILE;
        NB_PHASE /* one score for each thread */
        {
            if (threadIdx.x < n) {
                float       of_key, sum = 0;
                const char *key = token_at(s, false, first + threadIdx.x, &of_key);
                for (size_t j = 0; j < d; j++) sum = nb_fma(query[j], element(key, type, j), sum);
                score[threadIdx.x] = scale * (of_key * sum);
                value[threadIdx.x] = token_at(s, true, first + threadIdx.x, &value_scale[threadIdx.x]);
            }
        }
        NB_PHASE /* the new maximum, and one weight for each thread */
        {
            softmax *me = &state[NB_ME];
            float    top = me->top;
            for (unsigned t = 0; t < n; t++) top = score[t] > top ? score[t] : top; /* a NaN is no maximum ... */
            /* before any finite score, nothing has weight; else -inf - -inf would make it NaN */
            me->factor = me->top == -INFINITY ? 0.0f : expf(me->top - top);
            me->top = top;
            if (threadIdx.x < n)
                weight[threadIdx.x] = score[threadIdx.x] == -INFINITY ? 0.0f : expf(score[threadIdx.x] - top); /* ... but a NaN weight */
        }
        NB_PHASE /* each thread its elements of the output */
        {
            softmax *me = &state[NB_ME];
            me->total *= me->factor;
            for (int i = 0; i < DIMS; i++) me->out[i] *= me->factor;
            for (unsigned t = 0; t < n; t++) me->total += weight[t];
            for (int i = 0; i < DIMS; i++) {
                size_t j = threadIdx.x + (size_t)i * THREADS;
                float  sum = me->out[i];
                for (unsigned t = 0; j < d && t < n; t++) sum = nb_fma(weight[t] * value_scale[t], element(value[t], type, j), sum);
                me->out[i] = sum;
            }
        }
    }
    NB_PHASE
    {
        for (int i = 0; i < DIMS; i++) {
            size_t j = threadIdx.x + (size_t)i * THREADS;
            if (j < d) out[j] = state[NB_ME].out[i] / state[NB_ME].total;
        }
    }
}

/* One block per row and head. */
static __global__ void attend_paged(nb_attn a, device_spans spans, float *out, size_t ldo, const float *q, size_t ldq)
{
    const device_span *span = span_of_row(&spans, blockIdx.x);
    uint64_t           row = blockIdx.x - span->begin;
    int                head = (int)blockIdx.y;
    size_t             d = (size_t)a.head_dim, at = span->first + row;
    source             s = { &a, &spans, span, head / (a.heads / a.kv_heads), NULL, NULL, 0 };
    attend_row(out + at * ldo + (size_t)head * d, q + at * ldq + (size_t)head * d, &s, span->past + row + 1, d, a.scale);
}

static void attend(const nb_ops *ops, const nb_attn *a, const nb_span *spans, size_t count, float *out, size_t ldo,
                   const float *q, size_t ldq)
{
    nb_cuda     *c = nb_cuda_enter(ops);
    device_spans s;
    if (a->head_dim > MAX_HEAD_DIM)
        nb_cuda_refuse(c, NB_ERR_UNSUPPORTED, "the GPU kernels take heads of at most 256");
    else if (put_spans(c, &s, spans, count))
        NB_LAUNCH(attend_paged, dim3((unsigned)s.rows, (unsigned)a->heads), THREADS, c->stream, *a, s, out, ldo, q, ldq);
    nb_cuda_leave(c, "attention.cu", "attend", count, (size_t)a->heads, (size_t)a->head_dim);
}

/* One block per row (from bounds[0] on) and head. */
static __global__ void attend_segment(float *out, size_t ldo, const float *qkv, size_t ld, const uint64_t *bounds, size_t d,
                                      size_t heads, float scale)
{
    uint64_t row = bounds[0] + blockIdx.x;
    size_t   head = blockIdx.y, width = heads * d;
    while (row >= bounds[1]) bounds++;
    const float *base = qkv + bounds[0] * ld + head * d;
    source       s = { NULL, NULL, NULL, 0, base + width, base + 2 * width, ld };
    attend_row(out + row * ldo + head * d, qkv + row * ld + head * d, &s, bounds[1] - bounds[0], d, scale);
}

static void attend_full(const nb_ops *ops, float *out, size_t ldo, const float *qkv, size_t ld, const size_t *bounds,
                        size_t segments, int heads, int d, float scale)
{
    static_assert(sizeof(size_t) == sizeof(uint64_t), "bounds are sent as they are");
    size_t rows = segments ? bounds[segments] - bounds[0] : 0;
    if (rows == 0) return;
    nb_cuda *c = nb_cuda_enter(ops);
    if (d > MAX_HEAD_DIM) {
        nb_cuda_refuse(c, NB_ERR_UNSUPPORTED, "the GPU kernels take heads of at most 256");
    } else {
        const uint64_t *bounds_d = (const uint64_t *)nb_cuda_table_put(c, &c->bounds, bounds, (segments + 1) * sizeof *bounds);
        if (bounds_d)
            NB_LAUNCH(attend_segment, dim3((unsigned)rows, (unsigned)heads), THREADS, c->stream, out, ldo, qkv, ld, bounds_d,
                      (size_t)d, (size_t)heads, scale);
    }
    nb_cuda_leave(c, "attention.cu", "attend_full", rows, (size_t)heads, (size_t)d);
}

void nb_cuda_fill_attention(nb_ops *ops)
{
    ops->kv_store = kv_store;
    ops->attend = attend;
    ops->attend_full = attend_full;
}
