/* kernel_run.c - see kernel_run.h. */
#include "tools/bench/kernel_run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/gemm.h"

enum {
    SOURCE_ROWS = 256,      /* outputs of random weights; a matrix is as many copies of them as it needs */
    LAYERS = 28,            /* most turns over matrices and KV layers */
    GEMM_DEPTH = 256,       /* k of a solver's product */
    GEMM_ITEMS = 4,         /* products a thread in one call */
    GEMM_CALLS = 16,
    SMALL_CALLS = 200,      /* in a round of a case that stays in the cache */
    ROW_BYTES = 256 * 1024, /* what is smaller stays in the cache whatever is done */
};

/* ---- random numbers ---------------------------------------------------------------------------------------------------- */

static uint64_t next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

static float unit(uint64_t *state) /* [-1, 1) */
{
    return (float)(next(state) >> 40) * 0x1p-23f - 1.0f;
}

/* The first 64 KB are random, the rest repeats them at an odd distance. */
static void fill_floats(float *to, size_t count)
{
    enum { BLOCK = 16411 };
    uint64_t state = 88172645463325252u;
    for (size_t i = 0; i < count && i < BLOCK; i++) to[i] = unit(&state);
    for (size_t i = BLOCK; i < count; i += BLOCK) memcpy(to + i, to, (count - i < BLOCK ? count - i : BLOCK) * sizeof *to);
}

/* ---- room -------------------------------------------------------------------------------------------------------------- */

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Floats of one call: what it reads, and what it writes. */
static void call_floats(const nb_kernel_case *c, size_t *in, size_t *out)
{
    size_t w = (size_t)c->width, head = (size_t)c->d, rows = c->rows;
    *in = *out = rows * w;
    switch (c->op) {
    case NB_KERNEL_MATMUL:
        for (int i = 0; i < c->part.count; i++) {
            *in = larger(*in, rows * (size_t)c->part.site[i].k);
            *out = larger(*out, rows * (size_t)c->part.site[i].n);
        }
        break;
    case NB_KERNEL_ATTEND: *in = *out = rows * (size_t)c->heads * head; break;
    case NB_KERNEL_ATTEND_FULL:
        *out = rows * (size_t)c->heads * head;
        *in = 3 * *out;
        break;
    case NB_KERNEL_GATE: *in = 2 * rows * w; break;
    case NB_KERNEL_KV_STORE: *in = 2 * rows * w; break;
    default: break;
    }
}

nb_status nb_kernel_room_new(nb_kernel_room *out, nb_pool *pool, size_t rotation, const nb_kernel_case *cases, size_t count, nb_error *err)
{
    size_t floats = rotation / 4, widest = 0;
    size_t gemm = (size_t)nb_pool_threads(pool) * GEMM_ITEMS * 2 * GEMM_DEPTH * NB_KERNEL_GEMM_SIDES; /* operands in f64 */
    *out = (nb_kernel_room){ .pool = pool, .rotation = rotation };
    for (size_t i = 0; i < count; i++) {
        size_t in, result;
        call_floats(&cases[i], &in, &result);
        floats = larger(floats, larger(in, result) + 64);
        if (cases[i].op == NB_KERNEL_GRAM) widest = larger(widest, (size_t)cases[i].width);
        if (cases[i].op >= NB_KERNEL_GEMM_F32) floats = larger(floats, gemm);
    }
    uint64_t available = nb_available_memory();
    if (available && 8 * (uint64_t)floats > available / 2)
        return nb_fail(err, NB_ERR_BUDGET, "the activations of these shapes take %llu MB, more than half of what is available; choose others with --shapes",
                       (unsigned long long)(8 * (uint64_t)floats >> 20));
    out->x = nb_calloc_aligned(floats, sizeof *out->x);
    out->y = nb_calloc_aligned(floats, sizeof *out->y);
    out->floats = floats;
    if (widest) out->work = nb_calloc_aligned(nb_gram_work(widest), sizeof *out->work);
    if (!out->x || !out->y || (widest && !out->work)) {
        nb_kernel_room_free(out);
        return nb_fail(err, NB_ERR_MEMORY, "no memory for activations");
    }
    fill_floats(out->x, floats);
    fill_floats(out->y, floats);
    return NB_OK;
}

static void drop_matrices(nb_kernel_room *r)
{
    for (size_t i = 0; r->matrices && i < r->copies * (size_t)r->part.count; i++) r->packed_by.release(&r->packed_by, &r->matrices[i]);
    free(r->matrices);
    r->matrices = NULL;
    r->copies = 0;
}

void nb_kernel_room_free(nb_kernel_room *r)
{
    drop_matrices(r);
    free(r->x);
    free(r->y);
    free(r->work);
    *r = (nb_kernel_room){ 0 };
}

/* ---- matrices ---------------------------------------------------------------------------------------------------------- */

nb_kernel_part nb_kernel_part_at(const nb_kernel_part *part, nb_isa isa)
{
    nb_kernel_part p = *part;
    for (int i = 0; isa == NB_ISA_REF && i < p.count; i++)
        if (p.site[i].n > NB_KERNEL_REF_OUTPUTS) p.site[i].n = NB_KERNEL_REF_OUTPUTS;
    return p;
}

static double form_bytes(const nb_kernel_form *f, double n, double k)
{
    if (f->kind == NB_W_FLOAT) return n * k * (double)nb_dtype_size(f->dtype);
    return n * k * (f->kind == NB_W_INT4 ? 0.5 : 1) + n * ceil(k / f->group) * (f->zeros ? 3 : 2);
}

/* Random weights [SOURCE_ROWS, k] of a form. */
static nb_status new_source(nb_weights *w, const nb_kernel_form *f, int k, nb_error *err)
{
    uint64_t state = 0x9e3779b97f4a7c15u;
    size_t   count = (size_t)SOURCE_ROWS * (size_t)k, groups = f->group ? (size_t)SOURCE_ROWS * (((size_t)k + (size_t)f->group - 1) / (size_t)f->group) : 0;
    float    scale = 1 / sqrtf((float)k);
    *w = (nb_weights){ .kind = f->kind, .n = SOURCE_ROWS, .k = k, .dtype = f->dtype, .group = f->group };
    if (f->kind == NB_W_FLOAT) {
        void *data;
        NB_TRY(nb_alloc(&data, count, nb_dtype_size(f->dtype), "random weights", err));
        for (size_t i = 0; i < count; i++) {
            float    v = unit(&state) * scale;
            uint16_t h = nb_f32_to_bf16(v);
            if (f->dtype == NB_F32) memcpy((char *)data + 4 * i, &v, 4);
            else memcpy((char *)data + 2 * i, &h, 2);
        }
        w->data = data;
        return NB_OK;
    }
    uint8_t *codes, *zeros = NULL, mask = f->kind == NB_W_INT4 ? 15 : 255;
    float   *scales;
    NB_TRY(nb_alloc(&codes, count, 1, "random codes", err));
    w->codes = codes;
    NB_TRY(nb_alloc(&scales, groups, sizeof *scales, "random scales", err));
    w->scales = scales;
    if (f->zeros) NB_TRY(nb_alloc(&zeros, groups, 1, "random zeros", err));
    w->zeros = zeros;
    for (size_t i = 0; i < count; i++) codes[i] = (uint8_t)(next(&state) >> 32) & mask;
    for (size_t i = 0; i < groups; i++) {
        scales[i] = nb_f16_to_f32(nb_f32_to_f16(scale * (1.5f + unit(&state)) / (float)mask)); /* an f16 number, as in checkpoints */
        if (zeros) zeros[i] = (uint8_t)(next(&state) >> 32) & mask;
    }
    return NB_OK;
}

static void free_source(nb_weights *w)
{
    free((void *)(uintptr_t)w->data);
    free((void *)(uintptr_t)w->codes);
    free((void *)(uintptr_t)w->scales);
    free((void *)(uintptr_t)w->zeros);
}

/* [n, k] out of pieces of the source. */
static nb_status pack_one(nb_matrix *out, const nb_ops *ops, const nb_weights *source, int n, nb_error *err)
{
    int         count = (n + SOURCE_ROWS - 1) / SOURCE_ROWS;
    nb_weights *parts;
    NB_TRY(nb_alloc(&parts, (size_t)count, sizeof *parts, "parts of a matrix", err));
    for (int i = 0; i < count; i++) {
        parts[i] = *source;
        if (i == count - 1) parts[i].n = n - i * SOURCE_ROWS;
    }
    nb_status status = ops->pack(ops, out, parts, count, err);
    free(parts);
    return status;
}

static bool same_part(const nb_kernel_part *a, const nb_kernel_part *b)
{
    if (a->count != b->count) return false;
    for (int i = 0; i < a->count; i++)
        if (a->site[i].n != b->site[i].n || a->site[i].k != b->site[i].k) return false;
    return true;
}

/* Levels with the same pack share matrices. */
static nb_status need_matrices(nb_kernel_room *r, const nb_kernel_case *c, const nb_ops *ops, nb_error *err)
{
    nb_kernel_part part = nb_kernel_part_at(&c->part, ops->isa);
    if (r->matrices && r->form == c->form && same_part(&r->part, &part) && r->packed_by.pack == ops->pack)
        return NB_OK;
    drop_matrices(r);
    double bytes = 0;
    for (int i = 0; i < part.count; i++) bytes += form_bytes(c->form, part.site[i].n, part.site[i].k);
    double   copies = ops->isa == NB_ISA_REF ? 1 : ceil((double)r->rotation / bytes);
    uint64_t available = nb_available_memory();
    if (copies > LAYERS && bytes * LAYERS >= (double)r->rotation) copies = LAYERS;
    if (available && bytes * copies > (double)available * 0.8)
        return nb_fail(err, NB_ERR_BUDGET, "%.1f GB of weights do not fit", bytes * copies / 1e9);
    NB_TRY(nb_alloc(&r->matrices, (size_t)copies * (size_t)part.count, sizeof *r->matrices, "matrices", err));
    r->copies = (size_t)copies;
    r->part = part;
    r->form = c->form;
    r->packed_by = *ops;
    for (int i = 0; i < part.count; i++) {
        nb_weights source;
        nb_status  status = new_source(&source, c->form, part.site[i].k, err);
        for (size_t j = 0; j < r->copies && status == NB_OK; j++)
            status = pack_one(&r->matrices[j * (size_t)part.count + (size_t)i], ops, &source, part.site[i].n, err);
        free_source(&source);
        if (status != NB_OK) {
            drop_matrices(r);
            return status;
        }
    }
    return NB_OK;
}

/* ---- work -------------------------------------------------------------------------------------------------------------- */

static double gemm_products(const nb_pool *pool)
{
    return pool ? (double)nb_pool_threads(pool) * GEMM_ITEMS : GEMM_ITEMS;
}

static nb_work work_of(const nb_kernel_case *c, const nb_pool *pool)
{
    double  rows = (double)c->rows, w = c->width, all = rows * w;
    nb_attn a = { .heads = c->heads, .kv_heads = c->kv_heads, .head_dim = c->d, .kv_type = NB_BF16 };
    switch (c->op) {
    case NB_KERNEL_ATTEND: return nb_work_attend(&a, c->past, c->rows);
    case NB_KERNEL_ATTEND_FULL: return nb_work_attend_full(c->rows, c->heads, c->d);
    case NB_KERNEL_GATE: return (nb_work){ .bytes = 12 * all };
    case NB_KERNEL_ADD: return (nb_work){ .bytes = 12 * all };
    case NB_KERNEL_KV_STORE: return (nb_work){ .bytes = 12 * all }; /* K and V, f32 in and bf16 out */
    case NB_KERNEL_EMBED: return (nb_work){ .bytes = 6 * all };
    case NB_KERNEL_GRAM: return (nb_work){ .bytes = 4 * all + 16 * w * w, .floats = rows * w * (w + 1) };
    case NB_KERNEL_GEMM_F32: return (nb_work){ .floats = 2 * all * GEMM_DEPTH * gemm_products(pool) };
    case NB_KERNEL_GEMM_F64: return (nb_work){ .doubles = 2 * all * GEMM_DEPTH * gemm_products(pool) };
    default: return (nb_work){ .bytes = 8 * all };
    }
}

nb_work nb_kernel_expected(const nb_kernel_case *c, nb_isa isa)
{
    if (c->op != NB_KERNEL_MATMUL) return work_of(c, NULL);
    nb_work        sum = { 0 };
    nb_kernel_part part = nb_kernel_part_at(&c->part, isa);
    for (int i = 0; i < part.count; i++) {
        nb_matrix m = { .kind = c->form->kind, .n = part.site[i].n, .k = part.site[i].k,
                        .bytes = (size_t)form_bytes(c->form, part.site[i].n, part.site[i].k) };
        sum = nb_work_sum(sum, nb_work_matmul(&m, c->rows));
    }
    return sum;
}

/* ---- making ready ------------------------------------------------------------------------------------------------------ */

/* Pages of `turns` layers, as an engine lays them out: a page holds 32 tokens of every layer. */
static nb_status begin_pages(nb_kernel_run *r, size_t tokens, nb_error *err)
{
    const nb_kernel_case *c = r->c;
    size_t layer = 2 * nb_kv_layer_bytes(c->kv_heads, c->d, NB_BF16), pages = (tokens + NB_KV_PAGE - 1) / NB_KV_PAGE;
    size_t turns = (r->room->rotation + layer * pages - 1) / (layer * pages), bytes;
    bool prompt = c->op == NB_KERNEL_ATTEND && c->rows > 1; /* computes far longer than it reads */
    r->turns = prompt || r->ops->isa == NB_ISA_REF ? 1 : turns > LAYERS ? LAYERS : turns;
    bytes = layer * r->turns * pages;
    r->layer = layer;
    r->attn = (nb_attn){ .heads = c->heads, .kv_heads = c->kv_heads, .head_dim = c->d, .scale = 1 / sqrtf((float)c->d), .kv_type = NB_BF16 };
    r->kv = nb_calloc_aligned(bytes, 1);
    if (!r->kv) return nb_fail(err, NB_ERR_MEMORY, "no memory for %zu bytes of keys and values", bytes);
    NB_TRY(nb_alloc(&r->pages, pages, sizeof *r->pages, "pages", err));
    for (size_t i = 0; i < pages; i++) r->pages[i] = r->kv + i * layer * r->turns;
    for (size_t i = 0; i < bytes / 2; i++) {
        uint16_t h = nb_f32_to_bf16(r->room->x[i % r->room->floats]);
        memcpy(r->kv + 2 * i, &h, 2);
    }
    return NB_OK;
}

static nb_status begin_gram(nb_kernel_run *r, nb_error *err)
{
    size_t k = (size_t)r->c->width;
    NB_TRY(nb_alloc(&r->sums.h, k * k, sizeof *r->sums.h, "sums", err));
    NB_TRY(nb_alloc(&r->sums.diagonal, k, sizeof *r->sums.diagonal, "sums", err));
    NB_TRY(nb_alloc(&r->sums.sum_abs, 2 * k, sizeof *r->sums.sum_abs, "sums", err));
    NB_TRY(nb_alloc(&r->sums.max_abs, k, sizeof *r->sums.max_abs, "sums", err));
    memset(r->sums.h, 0, k * k * sizeof *r->sums.h); /* pages that were never touched would be paid for by the first call */
    r->sums.work = r->room->work;
    return NB_OK;
}

/* Real angles: a rotation that shrinks would end among numbers that processors are slow with. */
static nb_status begin_table(nb_kernel_run *r, nb_error *err)
{
    size_t n = r->c->rows * (size_t)r->c->d / 2;
    NB_TRY(nb_alloc(&r->table, 2 * n, sizeof *r->table, "rotary tables", err));
    for (size_t i = 0; i < n; i++) {
        r->table[i] = cosf((float)i);
        r->table[n + i] = sinf((float)i);
    }
    return NB_OK;
}

static nb_status begin(nb_kernel_run *r, nb_error *err)
{
    const nb_kernel_case *c = r->c;
    size_t                in, out;
    if (c->op == NB_KERNEL_MATMUL || c->op == NB_KERNEL_EMBED) NB_TRY(need_matrices(r->room, c, r->ops, err));
    if (c->op == NB_KERNEL_MATMUL) {
        r->sites = r->room->part.count;
        r->turns = r->room->copies;
        r->calls = c->rows > 16 ? 1 : r->turns;
        for (int i = 0; i < r->sites; i++) r->work[i] = nb_work_matmul(&r->room->matrices[i], c->rows);
        return NB_OK;
    }
    r->work[0] = work_of(c, r->room->pool);
    if (c->op == NB_KERNEL_ATTEND || c->op == NB_KERNEL_KV_STORE) NB_TRY(begin_pages(r, c->past + c->rows, err));
    if (c->op == NB_KERNEL_GRAM) NB_TRY(begin_gram(r, err));
    if (c->op == NB_KERNEL_ROPE) NB_TRY(begin_table(r, err));
    call_floats(c, &in, &out);
    bool compute = c->op >= NB_KERNEL_GRAM || c->op == NB_KERNEL_ATTEND_FULL;
    if (!compute && !r->kv) r->turns = r->room->floats / larger(in, out);
    r->calls = c->op >= NB_KERNEL_GEMM_F32 ? GEMM_CALLS : r->turns;
    if (r->ops->isa == NB_ISA_REF && r->calls > 4) r->calls = 4;
    r->cached = !compute && r->work[0].bytes < ROW_BYTES;
    if (r->cached && !r->kv) r->turns = 1;
    return NB_OK;
}

nb_status nb_kernel_begin(nb_kernel_run *out, const nb_kernel_case *c, const nb_ops *ops, nb_kernel_room *room, nb_error *err)
{
    *out = (nb_kernel_run){ .c = c, .ops = ops, .room = room, .sites = 1, .turns = 1, .calls = 1 };
    out->bounds[1] = c->rows;
    nb_status status = begin(out, err);
    if (out->cached) out->calls = SMALL_CALLS;
    if (status != NB_OK) nb_kernel_end(out);
    return status;
}

void nb_kernel_end(nb_kernel_run *r)
{
    free(r->kv);
    free(r->pages);
    free(r->table);
    free(r->sums.h);
    free(r->sums.diagonal);
    free(r->sums.sum_abs);
    free(r->sums.max_abs);
    *r = (nb_kernel_run){ 0 };
}

/* ---- calls ------------------------------------------------------------------------------------------------------------- */

typedef struct {
    const nb_kernel_run *r;
    const nb_gemm       *gemm;
} products;

/* Every item has its own operands and its own result. */
static void one_product(void *context, size_t item, int thread)
{
    (void)thread;
    const products      *p = context;
    const nb_kernel_room *room = p->r->room;
    size_t                m = p->r->c->rows, n = (size_t)p->r->c->width, k = GEMM_DEPTH, each = k * (m + n), at = item * each;
    if (p->r->c->op == NB_KERNEL_GEMM_F32) {
        const float *a = room->x + at;
        p->gemm->f32(room->y + item * m * n, n, a, k, a + m * k, k, m, n, k, false);
    } else {
        const double *a = (const double *)(const void *)room->x + at;
        p->gemm->f64((double *)(void *)room->y + item * m * n, n, a, k, a + m * k, k, m, n, k, false);
    }
}

static void call(nb_kernel_run *r)
{
    const nb_kernel_case *c = r->c;
    const nb_ops         *ops = r->ops;
    nb_kernel_room       *room = r->room;
    size_t                in, out, w = (size_t)c->width, q = (size_t)c->heads * (size_t)c->d, turn = r->turn++ % r->turns;
    call_floats(c, &in, &out);
    size_t  step = larger(in, out);
    float  *x = room->x + (r->kv ? 0 : turn * step), *y = room->y + (r->kv ? 0 : turn * step);
    nb_span span = { .rows = c->rows, .past = c->past, .pages = r->pages };
    if (r->kv) {
        r->attn.k_offset = turn * r->layer;
        r->attn.v_offset = r->attn.k_offset + r->layer / 2;
    }
    switch (c->op) {
    case NB_KERNEL_ATTEND: ops->attend(ops, &r->attn, &span, 1, y, q, x, q); break;
    case NB_KERNEL_ATTEND_FULL:
        ops->attend_full(ops, y, q, x, 3 * q, r->bounds, 1, c->heads, c->d, 1 / sqrtf((float)c->d));
        break;
    case NB_KERNEL_RMSNORM: ops->rmsnorm(ops, y, x, room->x, c->rows, c->width, 1e-6f); break;
    case NB_KERNEL_LAYERNORM: ops->layernorm(ops, y, x, room->x, room->x + w, c->rows, c->width, 1e-6f); break;
    case NB_KERNEL_GATE: ops->gate(ops, y, x, c->rows, c->width, NB_ACT_SILU); break;
    case NB_KERNEL_ACTIVATE: ops->activate(ops, y, c->rows * w, c->act); break;
    case NB_KERNEL_ADD: ops->add(ops, y, x, c->rows * w); break;
    case NB_KERNEL_ROPE: ops->rope(ops, y, w, c->rows, c->width / c->d, c->d, r->table, r->table + c->rows * (size_t)c->d / 2); break;
    case NB_KERNEL_KV_STORE: ops->kv_store(ops, &r->attn, &span, 1, x, x + w, 2 * w); break;
    case NB_KERNEL_GRAM: ops->gram(ops, &r->sums, x, w, c->width, r->bounds, 1, NULL); break;
    case NB_KERNEL_GEMM_F32:
    case NB_KERNEL_GEMM_F64: {
        products p = { r, nb_gemm_of(ops->isa) };
        nb_parallel(room->pool, (size_t)nb_pool_threads(room->pool) * GEMM_ITEMS, one_product, &p);
        break;
    }
    case NB_KERNEL_EMBED: {
        int32_t  ids[512];
        uint64_t state = 12345 + r->turn;
        for (size_t i = 0; i < c->rows; i++) ids[i] = (int32_t)(next(&state) % (uint64_t)room->part.site[0].n);
        ops->embed(ops, y, ids, c->rows, &room->matrices[0]);
        break;
    }
    case NB_KERNEL_MATMUL: break; /* see below */
    }
}

static void matmul_round(nb_kernel_run *r, double seconds[NB_KERNEL_SITES])
{
    nb_kernel_room *room = r->room;
    for (int s = 0; s < r->sites; s++) seconds[s] = 0;
    for (size_t i = 0; i < r->calls; i++) {
        const nb_matrix *m = room->matrices + r->turn++ % r->turns * (size_t)r->sites;
        for (int s = 0; s < r->sites; s++) {
            double from = nb_seconds();
            r->ops->matmul(r->ops, room->y, (size_t)m[s].n, room->x, (size_t)m[s].k, r->c->rows, &m[s], NULL, false);
            seconds[s] += (nb_seconds() - from) / (double)r->calls;
        }
    }
}

void nb_kernel_round(nb_kernel_run *r, double seconds[NB_KERNEL_SITES])
{
    if (r->c->op == NB_KERNEL_MATMUL) {
        matmul_round(r, seconds);
        return;
    }
    double from = nb_seconds();
    for (size_t i = 0; i < r->calls; i++) call(r);
    seconds[0] = (nb_seconds() - from) / (double)r->calls;
}
