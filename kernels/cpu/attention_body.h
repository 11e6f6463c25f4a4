/* attention_body.h - attention on vectors; compiled once per level.
 *
 * Tokens come in blocks of 32 (one KV page).  A block is brought to f32 once, keys transposed to [d, 32], and then serves
 * all the queries of an item: up to 64 rows that share a KV head.
 *
 *     S [q, 32] = Q [q, d] K' [d, 32]        lanes are tokens: no sums across lanes
 *     P = 2^(S - max)                        scale and log2(e) are folded into Q
 *     O [q, d] += P [q, n] V [n, d]          rescaled when the maximum of a row grows (Milakov & Gimelshein 2018, alg. 3)
 *
 * Codes of I8 pages enter the products as they are; the scales of keys are put on the scores, those of values on the weights.
 * Reading a block from memory costs more than its 4 q d * 32 FLOPs at q = 1, hence the sharing; at q = 64 preparing it is 4 %
 * of the work.
 *
 * A row's arithmetic must not depend on its company or on how its prompt was cut.  In S and O every element is its own
 * chain of FMAs (vec_tile.h); a row only ever uses tokens it can see, also in the block of the diagonal; and every CHUNK
 * tokens, counted from the start of the sequence, the running result is folded into a total.  So the chunks of a long
 * context may be computed by different threads and folded later with the same bits.
 */
#ifndef NB_ATTENTION_BODY_H
#define NB_ATTENTION_BODY_H

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec_math.h"
#include "kernels/cpu/vec_tile.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_D = 256,        /* head dimension */
    BLOCK = NB_KV_PAGE, /* tokens */
    QUERIES = 64,       /* of one item */
    CHUNK = 512,        /* tokens; see above */
};
_Static_assert(BLOCK % (2 * LANES) == 0 && CHUNK % BLOCK == 0, "blocks are whole tiles and pages");

/* Where tokens are: in pages, or f32 rows at a distance of ld. */
typedef struct {
    const nb_attn *a;
    void *const   *pages;
    int            head; /* of K and V */
    const float   *k, *v;
    size_t         ld;
    const float   *blocks; /* the same rows as load_block makes blocks of them, K' and V in turn; NULL: they are to be made */
} token_source;

/* Result of some queries over a range of tokens, not yet divided by `sum`. */
typedef struct {
    float *o;   /* [queries, width] */
    float *top; /* [queries] largest score, base 2; -inf before the first token */
    float *sum; /* [queries] */
} partial;

/* Everything an item works on: 200 KB of stack at d = 256, the used part is 100 KB at d = 128. */
typedef struct {
    size_t queries, d, width;       /* width: d rounded up to whole vectors; what lies between is zero */
    size_t limit[QUERIES];          /* tokens that a query sees */
    float  top[2][QUERIES], sum[2][QUERIES];
    _Alignas(64) float q[QUERIES * MAX_D], o[2][QUERIES * MAX_D], s[QUERIES * BLOCK];
    _Alignas(64) float k[MAX_D * BLOCK], v[BLOCK * MAX_D]; /* K' [width, BLOCK], V [BLOCK, width]; of I8 pages the codes */
    _Alignas(64) float sum_parts[QUERIES * LANES];         /* of the scan that is going on */
    _Alignas(64) float k_scale[BLOCK], v_scale[BLOCK];     /* of I8 pages */
    bool scaled;                                           /* they count */
    const float *keys, *values;                            /* of the block that is worked on */
} work;

static inline size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- products of any size from register tiles ------------------------------------- */

static inline __attribute__((always_inline)) void tile_rows(const tile *t, size_t row, size_t column, size_t rows, int vectors)
{
    switch (rows) {
    case 1: tile_run(t, row, column, 1, vectors); break;
    case 2: tile_run(t, row, column, 2, vectors); break;
    case 3: tile_run(t, row, column, 3, vectors); break;
    case 4: tile_run(t, row, column, 4, vectors); break;
    case 5: tile_run(t, row, column, 5, vectors); break;
    case 6: tile_run(t, row, column, 6, vectors); break;
#if NB_TILE_ROWS > 6
    case 7: tile_run(t, row, column, 7, vectors); break;
    case 8: tile_run(t, row, column, 8, vectors); break;
#endif
    }
}

static void tile_wide(const tile *t, size_t row, size_t column, size_t rows)
{
    tile_rows(t, row, column, rows, 2);
}

#if NB_TILE_VECTORS > 2
static void tile_widest(const tile *t, size_t row, size_t column, size_t rows)
{
    tile_rows(t, row, column, rows, 3);
}
#endif

static void tile_narrow(const tile *t, size_t row, size_t column, size_t rows)
{
    for (size_t end = row + rows; row < end;) {
        if (end - row >= 4) {
            tile_run(t, row, column, 4, 1);
            row += 4;
        } else {
            tile_run(t, row, column, 1, 1);
            row++;
        }
    }
}

/* columns a multiple of LANES; rows in tiles of equal size, because a tile of one row cannot hide the latency of FMA, and a tile
 * of one vector reads twice as much for each: the last three vectors of an odd number (a head of 80 is five) go together */
static void tile_product(const tile *t, size_t rows, size_t columns)
{
    size_t tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    for (size_t column = 0, vectors; column < columns; column += vectors * LANES) {
        vectors = (columns - column) / LANES;
        vectors = vectors == TILE_VECTORS || vectors < 2 ? vectors : 2;
        for (size_t i = 0; i < tiles; i++) {
            size_t begin = i * rows / tiles, end = (i + 1) * rows / tiles;
            if (vectors == 2)
                tile_wide(t, begin, column, end - begin);
            else if (vectors == 1)
                tile_narrow(t, begin, column, end - begin);
#if NB_TILE_VECTORS > 2
            else
                tile_widest(t, begin, column, end - begin);
#endif
        }
    }
}

/* ---- a block of tokens ---------------------------------------------------------- */

static inline vf load_f32(const void *row, size_t j, size_t n)
{
    return vf_load_part((const float *)row + j, n);
}

static inline vf load_i8(const void *row, size_t j, size_t n)
{
    return n >= LANES ? vf_load_i8((const int8_t *)row + j) : vf_load_i8_part((const int8_t *)row + j, n);
}

static inline vf load_bf16(const void *row, size_t j, size_t n)
{
    return n >= LANES ? vf_load_bf16((const uint16_t *)row + j) : vf_load_bf16_part((const uint16_t *)row + j, n);
}

/* Rows of keys or values: `rows` of them at `p`, `stride` bytes apart. */
typedef struct {
    const char *p;
    size_t      stride;
} rows_at;

/* w->k = K' from n rows of f32 or bf16; the tokens behind them become keys of zero. */
static inline __attribute__((always_inline)) void load_keys(work *w, rows_at keys, size_t n,
                                                            vf load(const void *, size_t, size_t))
{
    for (size_t j = 0; j < w->width; j += LANES) {
        size_t part = smaller(LANES, w->d - j);
        for (size_t t = 0; t < BLOCK; t += LANES) {
            vf r[LANES];
#pragma GCC unroll 16
            for (size_t i = 0; i < LANES; i++)
                r[i] = t + i < n ? load(keys.p + (t + i) * keys.stride, j, part) : vf_set(0.0f);
            vf_transpose(r);
#pragma GCC unroll 16
            for (size_t i = 0; i < LANES; i++) vf_store(w->k + (j + i) * BLOCK + t, r[i]);
        }
    }
}

/* The same for bf16 and d a multiple of 2 LANES: pairs of elements are transposed together, in half the shuffles. */
static void load_key_pairs(work *w, rows_at keys, size_t n, rows_at next)
{
    for (size_t j = 0; j < w->d; j += 2 * LANES) {
        for (size_t t = 0; t < BLOCK; t += LANES) {
            vf r[LANES];
#pragma GCC unroll 16
            for (size_t i = 0; i < LANES; i++) {
                r[i] = t + i < n ? vf_load_pairs((const uint16_t *)(keys.p + (t + i) * keys.stride) + j) : vf_set(0.0f);
                if (next.p) vf_prefetch(next.p + (t + i) * next.stride + 2 * j);
            }
            vf_transpose(r);
#pragma GCC unroll 16
            for (size_t i = 0; i < LANES; i++) {
                vf_store(w->k + (j + 2 * i) * BLOCK + t, vf_first_of_pairs(r[i]));
                vf_store(w->k + (j + 2 * i + 1) * BLOCK + t, vf_second_of_pairs(r[i]));
            }
        }
    }
}

/* The same for codes and d a multiple of 4 LANES: quads of them. */
static void load_key_quads(work *w, rows_at keys, size_t n, rows_at next)
{
    for (size_t j = 0; j < w->d; j += 4 * LANES) {
        for (size_t t = 0; t < BLOCK; t += LANES) {
            vf r[LANES];
#pragma GCC unroll 16
            for (size_t i = 0; i < LANES; i++) {
                r[i] = t + i < n ? vf_load_quads((const int8_t *)(keys.p + (t + i) * keys.stride) + j) : vf_set(0.0f);
                if (next.p) vf_prefetch(next.p + (t + i) * next.stride + j);
            }
            vf_transpose(r);
#pragma GCC unroll 16
            for (size_t i = 0; i < LANES; i++) {
                float *to = w->k + (j + 4 * i) * BLOCK + t;
                vf_store(to, vf_of_quads(r[i], 0));
                vf_store(to + BLOCK, vf_of_quads(r[i], 1));
                vf_store(to + 2 * BLOCK, vf_of_quads(r[i], 2));
                vf_store(to + 3 * BLOCK, vf_of_quads(r[i], 3));
            }
        }
    }
}

/* w->v = V, n rows */
static inline __attribute__((always_inline)) void load_values(work *w, rows_at values, size_t n, rows_at next,
                                                              vf load(const void *, size_t, size_t))
{
    for (size_t t = 0; t < n; t++) {
        const char *from = values.p + t * values.stride;
        for (size_t j = 0; j < w->width; j += LANES) vf_store(w->v + t * w->width + j, load(from, j, smaller(LANES, w->d - j)));
        if (next.p)
            for (size_t byte = 0; byte < next.stride; byte += 64) vf_prefetch(next.p + t * next.stride + byte);
    }
}

static rows_at rows_of_page(const token_source *from, size_t offset, size_t token, size_t element)
{
    return (rows_at){ nb_kv_at(from->a, from->pages, offset, token, from->head), (size_t)from->a->head_dim * element };
}

/* Scales of n tokens, and zeros behind them. */
static void load_scales(float *to, const token_source *from, size_t offset, size_t token, size_t n)
{
    const uint16_t *scale = nb_kv_scale_at(from->a, from->pages, offset, token, from->head);
    for (size_t t = 0; t < BLOCK; t += LANES) vf_store(to + t, load_bf16(scale, t, n > t ? n - t : 0));
}

static void load_block_scales(work *w, const token_source *from, size_t token, size_t n)
{
    load_scales(w->k_scale, from, from->a->k_offset, token, n);
    load_scales(w->v_scale, from, from->a->v_offset, token, n);
}

/* Fill w->k and w->v with tokens token .. token+n-1.  `more`: the block behind them is next, and pages are fetched ahead:
 * they are scattered over memory, and at one query per sequence waiting for them would be all the time there is. */
static void load_block(work *w, const token_source *from, size_t token, size_t n, bool more)
{
    w->keys = w->k;
    w->values = w->v;
    if (from->blocks) {
        w->keys = from->blocks + token / BLOCK * 2 * BLOCK * w->width;
        w->values = w->keys + BLOCK * w->width;
        return;
    }
    if (!from->a) {
        size_t stride = from->ld * sizeof(float);
        load_keys(w, (rows_at){ (const char *)(from->k + token * from->ld), stride }, n, load_f32);
        load_values(w, (rows_at){ (const char *)(from->v + token * from->ld), stride }, n, (rows_at){ NULL, 0 }, load_f32);
        return;
    }
    size_t  element = nb_kv_element(from->a->kv_type), next = token + BLOCK;
    rows_at k = rows_of_page(from, from->a->k_offset, token, element), next_k = { NULL, 0 };
    rows_at v = rows_of_page(from, from->a->v_offset, token, element), next_v = { NULL, 0 };
    if (more) {
        next_k = rows_of_page(from, from->a->k_offset, next, element);
        next_v = rows_of_page(from, from->a->v_offset, next, element);
    }
    if (element == 4) {
        load_keys(w, k, n, load_f32);
        load_values(w, v, n, next_v, load_f32);
    } else if (element == 1) {
        load_block_scales(w, from, token, n);
        if (w->d % (4 * LANES) == 0)
            load_key_quads(w, k, n, next_k);
        else
            load_keys(w, k, n, load_i8);
        load_values(w, v, n, next_v, load_i8);
    } else {
        if (w->d % (2 * LANES) == 0)
            load_key_pairs(w, k, n, next_k);
        else
            load_keys(w, k, n, load_bf16);
        load_values(w, v, n, next_v, load_bf16);
    }
}

#include "kernels/cpu/attention_few.h"

/* ---- the scan over tokens --------------------------------------------------------- */

/* Turn the scores s of one query of w into weights and make room for them in o: n > 0 of the block's tokens are visible.  sum is
 * kept in LANES parts until the end of a scan; the largest score is looked for only where it changes. */
static inline void weigh(const work *w, float *s, float *o, float *top, float *sum, size_t n)
{
    vf x[BLOCK / LANES], high = vf_set(-INFINITY);
    for (size_t i = 0; i < BLOCK / LANES; i++) {
        size_t visible = n > i * LANES ? n - i * LANES : 0;
        x[i] = vf_load(s + i * LANES);
        if (w->scaled) x[i] = vf_mul(x[i], vf_load(w->k_scale + i * LANES));
        x[i] = vf_first(x[i], vf_set(-INFINITY), visible);
        high = vf_max(high, x[i]);
    }
    vf total = vf_load(sum);
    if (vf_any_above(high, vf_set(*top))) { /* else the factor is 1 */
        float new_top = vf_top(high);
        vf    factor = vf_exp2(vf_set(*top - new_top));
        total = vf_mul(total, factor);
        for (size_t j = 0; j < w->width; j += LANES) vf_store(o + j, vf_mul(vf_load(o + j), factor));
        *top = new_top;
    }
    vf shift = vf_set(*top);
    for (size_t i = 0; i < BLOCK / LANES; i++) {
        vf p = vf_exp2(vf_sub(x[i], shift));
        vf_store(s + i * LANES, w->scaled ? vf_mul(p, vf_load(w->v_scale + i * LANES)) : p);
        total = vf_add(total, p);
    }
    vf_store(sum, total);
}

static size_t visible_tokens(const work *w, size_t query, size_t block, size_t n)
{
    return w->limit[query] > block ? smaller(w->limit[query] - block, n) : 0;
}

/* w->s [queries, BLOCK] = the scores of n tokens from `token` on. */
static void score_block(work *w, const token_source *source, size_t token, size_t n, bool more, bool few)
{
    if (few) {
        scores_few(w, source, token, n, more);
    } else {
        load_block(w, source, token, n, more);
        tile scores = { .c = w->s, .a = w->q, .b = w->keys, .ldc = BLOCK, .a_row = w->width, .a_inner = 1, .ldb = BLOCK,
                        .inner = w->d, .fresh = true };
        tile_product(&scores, w->queries, BLOCK);
    }
}

/* Tokens from .. to-1 for all queries of w into *out, from scratch.  `from` is a multiple of BLOCK. */
static void scan(work *w, partial *out, const token_source *source, size_t from, size_t to)
{
    bool few = queries_are_few(w, source);
    memset(out->o, 0, w->queries * w->width * sizeof(float));
    memset(w->sum_parts, 0, w->queries * LANES * sizeof(float));
    for (size_t q = 0; q < w->queries; q++) out->top[q] = -INFINITY;
    for (size_t block = from; block < to; block += BLOCK) {
        size_t n = smaller(BLOCK, to - block);
        score_block(w, source, block, n, block + BLOCK < to, few);
        for (size_t q = 0, end; q < w->queries; q = end) { /* queries that see equally much of this block */
            size_t visible = visible_tokens(w, q, block, n);
            for (end = q; end < w->queries && visible_tokens(w, end, block, n) == visible; end++)
                if (visible)
                    weigh(w, w->s + end * BLOCK, out->o + end * w->width, &out->top[end], w->sum_parts + end * LANES, visible);
            tile values = { .c = out->o + q * w->width, .a = w->s + q * BLOCK, .b = w->values, .ldc = w->width, .a_row = BLOCK,
                            .a_inner = 1, .ldb = w->width, .inner = visible };
            if (visible && few)
                values_few(w, values.c, values.a, end - q, source, block, visible);
            else if (visible)
                tile_product(&values, end - q, w->width);
        }
    }
    for (size_t q = 0; q < w->queries; q++) out->sum[q] = vf_sum(vf_load(w->sum_parts + q * LANES));
}

/* total += part for one query.  Every query sees token 0, so the total's top is finite; a part without tokens has top = -inf
 * and is added with a factor of 0. */
static void fold(float *o, float *top, float *sum, const float *part_o, float part_top, float part_sum, size_t width)
{
    float new_top = part_top > *top ? part_top : *top, lanes[2][LANES];
    vf    old = vf_exp2(vf_set(*top - new_top)), add = vf_exp2(vf_set(part_top - new_top));
    vf_store(lanes[0], old);
    vf_store(lanes[1], add);
    *sum = *sum * lanes[0][0] + part_sum * lanes[1][0];
    *top = new_top;
    for (size_t j = 0; j < width; j += LANES)
        vf_store(o + j, vf_fma(vf_load(part_o + j), add, vf_mul(vf_load(o + j), old)));
}

/* ---- attend ----------------------------------------------------------------------- */

typedef struct {
    const nb_attn *a;
    const nb_span *spans;
    size_t         count, ldo, ldq;
    float         *out;
    const float   *q;
    size_t         width;
    float         *scratch; /* split: [units, chunks] of `queries` x (width + 2): O, top, sum */
    size_t         chunks, queries;
    size_t         units;
} attend_call;

/* A unit: some rows of a span, and those query heads that share one KV head (or QUERIES of them, if they are more). */
typedef struct {
    const nb_span *span;
    size_t         row, rows;   /* in the span */
    size_t         head, heads; /* query heads */
    int            kv_head;
} unit;

static size_t heads_of_unit(const nb_attn *a)
{
    return smaller((size_t)(a->heads / a->kv_heads), QUERIES);
}

static size_t rows_of_unit(const nb_attn *a)
{
    return QUERIES / heads_of_unit(a);
}

static size_t head_blocks(const nb_attn *a)
{
    size_t group = (size_t)(a->heads / a->kv_heads), each = heads_of_unit(a);
    return (group + each - 1) / each;
}

static size_t units_of_span(const nb_attn *a, const nb_span *span)
{
    size_t each = rows_of_unit(a);
    return (span->rows + each - 1) / each * (size_t)a->kv_heads * head_blocks(a);
}

/* Later rows see more tokens: they come first, so that the loop does not end with its longest items. */
static unit find_unit(const attend_call *c, size_t index)
{
    const nb_attn *a = c->a;
    unit           u = { .span = c->spans };
    for (size_t n; index >= (n = units_of_span(a, u.span)); u.span++) index -= n;
    size_t group = (size_t)(a->heads / a->kv_heads), each = rows_of_unit(a), blocks = (u.span->rows + each - 1) / each;
    size_t per_row = (size_t)a->kv_heads * head_blocks(a), of_group = index % head_blocks(a) * heads_of_unit(a);
    u.row = (blocks - 1 - index / per_row) * each;
    u.rows = smaller(each, u.span->rows - u.row);
    u.kv_head = (int)(index % per_row / head_blocks(a));
    u.head = (size_t)u.kv_head * group + of_group;
    u.heads = smaller(heads_of_unit(a), group - of_group);
    return u;
}

static size_t tokens_of_unit(const unit *u)
{
    return u->span->past + u->row + u->rows;
}

/* One query [d], scaled for base 2, into row `query` of w. */
static void load_query(work *w, size_t query, const float *q, float scale)
{
    vf factor = vf_set(scale * (float)M_LOG2E);
    for (size_t j = 0; j < w->width; j += LANES)
        vf_store(w->q + query * w->width + j, vf_mul(vf_load_part(q + j, smaller(LANES, w->d - j)), factor));
}

/* Queries in the order row, head. */
static void load_unit(work *w, const attend_call *c, const unit *u)
{
    w->d = (size_t)c->a->head_dim;
    w->width = c->width;
    w->scaled = c->a->kv_type == NB_I8;
    w->queries = u->rows * u->heads;
    for (size_t i = 0; i < w->queries; i++) {
        size_t row = u->row + i / u->heads, head = u->head + i % u->heads;
        w->limit[i] = u->span->past + row + 1;
        load_query(w, i, c->q + (u->span->first + row) * c->ldq + head * w->d, c->a->scale);
    }
}

static void write_result(float *out, const float *o, float sum, size_t d)
{
    vf factor = vf_set(1.0f / sum);
    for (size_t j = 0; j < d; j += LANES) {
        size_t n = smaller(LANES, d - j);
        vf_store_part(out + j, vf_mul(vf_load(o + j), factor), n);
    }
}

static float *result_of(const attend_call *c, const unit *u, size_t query)
{
    size_t row = u->span->first + u->row + query / u->heads, head = u->head + query % u->heads;
    return c->out + row * c->ldo + head * (size_t)c->a->head_dim;
}

static void attend_unit(void *context, size_t item, int thread)
{
    (void)thread;
    const attend_call *c = context;
    unit               u = find_unit(c, item);
    work               w;
    load_unit(&w, c, &u);
    partial      total = { w.o[0], w.top[0], w.sum[0] }, part = { w.o[1], w.top[1], w.sum[1] };
    token_source source = { .a = c->a, .pages = u.span->pages, .head = u.kv_head };
    size_t       tokens = tokens_of_unit(&u);
    scan(&w, &total, &source, 0, smaller(CHUNK, tokens));
    for (size_t from = CHUNK; from < tokens; from += CHUNK) {
        scan(&w, &part, &source, from, smaller(from + CHUNK, tokens));
        for (size_t q = 0; q < w.queries; q++)
            fold(total.o + q * w.width, &total.top[q], &total.sum[q], part.o + q * w.width, part.top[q], part.sum[q],
                 w.width);
    }
    for (size_t q = 0; q < w.queries; q++) write_result(result_of(c, &u, q), total.o + q * w.width, total.sum[q], w.d);
}

/* ---- attend, split along the context: few rows, many threads ------------------------ */

static partial scratch_of(const attend_call *c, size_t index, size_t chunk)
{
    float *p = c->scratch + (index * c->chunks + chunk) * c->queries * (c->width + 2);
    return (partial){ p, p + c->queries * c->width, p + c->queries * (c->width + 1) };
}

static void attend_chunk(void *context, size_t item, int thread)
{
    (void)thread;
    const attend_call *c = context;
    size_t             index = item / c->chunks, chunk = item % c->chunks;
    unit               u = find_unit(c, index);
    size_t             from = chunk * CHUNK, tokens = tokens_of_unit(&u);
    if (from >= tokens) return;
    work w;
    load_unit(&w, c, &u);
    partial      part = scratch_of(c, index, chunk);
    token_source source = { .a = c->a, .pages = u.span->pages, .head = u.kv_head };
    scan(&w, &part, &source, from, smaller(from + CHUNK, tokens));
}

static void fold_unit(void *context, size_t item, int thread)
{
    (void)thread;
    const attend_call *c = context;
    unit               u = find_unit(c, item);
    partial            total = scratch_of(c, item, 0);
    for (size_t chunk = 1; chunk * CHUNK < tokens_of_unit(&u); chunk++) {
        partial part = scratch_of(c, item, chunk);
        for (size_t q = 0; q < u.rows * u.heads; q++)
            fold(total.o + q * c->width, &total.top[q], &total.sum[q], part.o + q * c->width, part.top[q], part.sum[q],
                 c->width);
    }
    for (size_t q = 0; q < u.rows * u.heads; q++)
        write_result(result_of(c, &u, q), total.o + q * c->width, total.sum[q], (size_t)c->a->head_dim);
}

/* Scratch for splitting, or NULL: when the units keep the threads busy anyway, or there is no memory.  Either way of
 * computing gives the same bits, so this may look at the number of threads. */
static float *split_scratch(attend_call *c, int threads)
{
    size_t longest = 0, most = 0, floats;
    for (size_t s = 0; s < c->count; s++) {
        size_t tokens = c->spans[s].rows ? c->spans[s].past + c->spans[s].rows : 0;
        longest = longest > tokens ? longest : tokens;
        most = most > c->spans[s].rows ? most : c->spans[s].rows;
    }
    if (threads == 1 || longest <= CHUNK || c->units >= 4 * (size_t)threads) return NULL;
    c->chunks = (longest + CHUNK - 1) / CHUNK;
    c->queries = smaller(most, rows_of_unit(c->a)) * heads_of_unit(c->a);
    if (!nb_mul(c->units * c->chunks, c->queries * (c->width + 2), &floats) || floats > SIZE_MAX / sizeof(float)) return NULL;
    return malloc(floats * sizeof(float));
}

static void attend(const nb_ops *ops, const nb_attn *a, const nb_span *spans, size_t count, float *out, size_t ldo,
                   const float *q, size_t ldq)
{
    assert(a->head_dim > 0 && a->head_dim <= MAX_D && a->heads % a->kv_heads == 0);
    attend_call call = { .a = a, .spans = spans, .count = count, .ldo = ldo, .ldq = ldq, .out = out, .q = q };
    call.width = ((size_t)a->head_dim + LANES - 1) / LANES * LANES;
    for (size_t s = 0; s < count; s++) call.units += units_of_span(a, &spans[s]);
    call.scratch = split_scratch(&call, nb_pool_threads(ops->pool));
    if (call.scratch) {
        nb_parallel(ops->pool, call.units * call.chunks, attend_chunk, &call);
        nb_parallel(ops->pool, call.units, fold_unit, &call);
        free(call.scratch);
    } else {
        nb_parallel(ops->pool, call.units, attend_unit, &call);
    }
}

/* ---- attend_full ---------------------------------------------------------------------- */

typedef struct {
    float        *out;
    const float  *qkv;
    size_t        ldo, ld, heads, d;
    const size_t *bounds;
    float         scale;
    float        *blocks; /* NULL, or [heads of a group, key_blocks, 2, BLOCK * width]: each head's keys and values, prepared once */
    size_t        key_blocks, first_head, group; /* of all segments; heads first_head .. first_head+group-1 are computed now */
} full_call;

enum { BLOCK_FLOATS = 1 << 22 }; /* prepared at a time at most: 16 MB, but at least one head */

static size_t key_blocks_of_segment(const full_call *c, size_t segment)
{
    return (c->bounds[segment + 1] - c->bounds[segment] + BLOCK - 1) / BLOCK;
}

static size_t blocks_of_segment(const full_call *c, size_t segment)
{
    return (c->bounds[segment + 1] - c->bounds[segment] + QUERIES - 1) / QUERIES;
}

static token_source rows_of_head(const full_call *c, size_t first, size_t head)
{
    const float *keys = c->qkv + first * c->ld + (c->heads + head) * c->d;
    return (token_source){ .k = keys, .v = keys + c->heads * c->d, .ld = c->ld };
}

/* An item: one block of the keys and values of one head. */
static void prepare_block(void *context, size_t item, int thread)
{
    (void)thread;
    const full_call *c = context;
    size_t           block = item / c->group, of_group = item % c->group, segment = 0, at = block;
    for (size_t n; at >= (n = key_blocks_of_segment(c, segment)); segment++) at -= n;
    size_t       first = c->bounds[segment], tokens = c->bounds[segment + 1] - first;
    token_source source = rows_of_head(c, first, c->first_head + of_group);
    work         w;
    w.d = c->d;
    w.width = (c->d + LANES - 1) / LANES * LANES;
    load_block(&w, &source, at * BLOCK, smaller(BLOCK, tokens - at * BLOCK), false);
    float *to = c->blocks + (of_group * c->key_blocks + block) * 2 * BLOCK * w.width;
    memcpy(to, w.k, BLOCK * w.width * sizeof *to);
    memcpy(to + BLOCK * w.width, w.v, smaller(BLOCK, tokens - at * BLOCK) * w.width * sizeof *to);
}

/* An item: QUERIES rows of a segment for one head; heads of the same rows follow each other. */
static void full_unit(void *context, size_t item, int thread)
{
    (void)thread;
    const full_call *c = context;
    size_t           block = item / c->group, of_group = item % c->group, head = c->first_head + of_group, segment = 0, before = 0;
    for (size_t n; block >= (n = blocks_of_segment(c, segment)); segment++) {
        block -= n;
        before += key_blocks_of_segment(c, segment);
    }
    size_t first = c->bounds[segment], tokens = c->bounds[segment + 1] - first, row = first + block * QUERIES;
    work   w;
    w.d = c->d;
    w.width = (c->d + LANES - 1) / LANES * LANES;
    w.scaled = false;
    w.queries = smaller(QUERIES, first + tokens - row);
    for (size_t i = 0; i < w.queries; i++) {
        w.limit[i] = tokens;
        load_query(&w, i, c->qkv + (row + i) * c->ld + head * c->d, c->scale);
    }
    token_source source = rows_of_head(c, first, head);
    if (c->blocks) source.blocks = c->blocks + (of_group * c->key_blocks + before) * 2 * BLOCK * w.width;
    partial      total = { w.o[0], w.top[0], w.sum[0] };
    scan(&w, &total, &source, 0, tokens);
    for (size_t i = 0; i < w.queries; i++)
        write_result(c->out + (row + i) * c->ldo + head * c->d, total.o + i * w.width, total.sum[i], c->d);
}

static void attend_full(const nb_ops *ops, float *out, size_t ldo, const float *qkv, size_t ld, const size_t *bounds,
                        size_t segments, int heads, int d, float scale)
{
    assert(d > 0 && d <= MAX_D);
    full_call call = { .out = out, .qkv = qkv, .ldo = ldo, .ld = ld, .heads = (size_t)heads, .d = (size_t)d,
                       .bounds = bounds, .scale = scale };
    size_t    blocks = 0, width = (call.d + LANES - 1) / LANES * LANES, head_floats;
    for (size_t s = 0; s < segments; s++) {
        blocks += blocks_of_segment(&call, s);
        call.key_blocks += key_blocks_of_segment(&call, s);
    }
    call.group = call.heads;
    /* Rows of one head lie a page apart: walking them for every block of queries costs more than the products. */
    if (blocks > segments && nb_mul(call.key_blocks, 2 * BLOCK * width, &head_floats) && head_floats <= SIZE_MAX / 4 / call.heads) {
        size_t fit = BLOCK_FLOATS / head_floats;
        call.group = fit == 0 ? 1 : smaller(fit, call.heads);
        call.blocks = malloc(call.group * head_floats * sizeof(float));
        if (!call.blocks) call.group = call.heads; /* without: the same bits */
    }
    for (; call.first_head < call.heads; call.first_head += call.group) {
        call.group = smaller(call.group, call.heads - call.first_head);
        if (call.blocks) nb_parallel(ops->pool, call.key_blocks * call.group, prepare_block, &call);
        nb_parallel(ops->pool, blocks * call.group, full_unit, &call);
    }
    free(call.blocks);
}

static void fill_attention(nb_ops *ops)
{
    ops->attend = attend;
    ops->attend_full = attend_full;
}

#endif
