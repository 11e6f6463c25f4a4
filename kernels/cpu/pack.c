/* pack.c - plain arrays to panels (packed.h), in parallel over panels.
 *
 * It decides the layout (which blocks, where each starts, what the heads hold), allocates once, and fills.  It does not
 * multiply and rounds nothing.  Codes that come as words stay words: only nibbles change places, for 16 outputs in one
 * loop, which moves some GB/s a core without vector code of a level.
 */
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/packed.h"

enum { PANELS = 8 }; /* that a thread fills together */

static size_t round_up(size_t value, size_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

/* ---- layout -------------------------------------------------------------- */

/* Columns per group, [groups].  Without g_idx all but the last are full. */
static void count_columns(int32_t *count, int groups, const nb_weights *w)
{
    memset(count, 0, (size_t)groups * sizeof *count);
    for (int i = 0; i < w->k; i++) count[w->g_idx ? w->g_idx[i] : i / w->group]++;
}

/* Cut the columns of each group into blocks; with out = NULL only count them. */
static int cut_blocks(nb_block *out, const int32_t *count, int groups, int multiple, int64_t *padded_k)
{
    int     blocks = 0;
    int64_t first = 0;
    for (int g = 0; g < groups; g++) {
        for (int32_t done = 0; done < count[g]; done += NB_BLOCK) {
            int32_t left = count[g] - done, length = left < NB_BLOCK ? left : NB_BLOCK;
            int32_t padded = (int32_t)round_up((size_t)length, (size_t)multiple);
            if (out) out[blocks] = (nb_block){ (int32_t)first, length, padded, g };
            first += padded;
            blocks++;
        }
    }
    *padded_k = first;
    return blocks;
}

/* Stable sort of the columns by group; NULL stays when that moves nothing. */
static nb_status sort_columns(nb_matrix *m, const int32_t *count, int groups, const int32_t *g_idx, nb_error *err)
{
    bool sorted = true;
    for (int i = 1; g_idx && i < m->k; i++) sorted = sorted && g_idx[i - 1] <= g_idx[i];
    if (!g_idx || sorted) return NB_OK;
    int32_t *next;
    NB_TRY(nb_alloc(&m->perm, (size_t)m->k, sizeof *m->perm, "the order of the columns", err));
    NB_TRY(nb_alloc(&next, (size_t)groups, sizeof *next, "the order of the columns", err));
    for (int g = 1; g < groups; g++) next[g] = next[g - 1] + count[g - 1];
    for (int i = 0; i < m->k; i++) m->perm[next[g_idx[i]]++] = i;
    free(next);
    return NB_OK;
}

static nb_status lay_out_columns(nb_matrix *m, nb_packed *p, const nb_weights *w, nb_error *err)
{
    nb_weights whole = { .k = w->k, .group = w->k }; /* floats: one group */
    bool       ints = w->kind != NB_W_FLOAT;
    int        multiple = ints ? NB_VECTOR_INPUTS : 1;
    int32_t   *count;
    int64_t    padded_k;
    p->groups = ints ? (int)(((int64_t)w->k + w->group - 1) / w->group) : 1;
    NB_TRY(nb_alloc(&count, (size_t)p->groups, sizeof *count, "the groups of a matrix", err));
    count_columns(count, p->groups, ints ? w : &whole);
    p->blocks = cut_blocks(NULL, count, p->groups, multiple, &padded_k);
    int64_t row_bytes = ints ? 2 * padded_k + 8 * (int64_t)p->blocks : 4 * padded_k;
    nb_status status;
    if (row_bytes > NB_PREPARED_ROW_BYTES)
        status = nb_fail(err, NB_ERR_UNSUPPORTED, "pack: %d inputs in groups of %d are more than the CPU kernels take", w->k,
                         ints ? w->group : w->k);
    else
        status = nb_alloc(&p->block, (size_t)p->blocks, sizeof *p->block, "the blocks of a matrix", err);
    if (status == NB_OK) {
        cut_blocks(p->block, count, p->groups, multiple, &padded_k);
        p->padded_k = (int)padded_k;
        status = sort_columns(m, count, p->groups, ints ? w->g_idx : NULL, err);
    }
    free(count);
    return status;
}

/* False when the matrix is larger than the address space. */
static bool lay_out_bytes(nb_matrix *m, nb_packed *p)
{
    size_t heads, data;
    p->panels = (int)(((int64_t)m->n + NB_PANEL - 1) / NB_PANEL);
    switch (m->kind) {
    case NB_W_INT4: p->input_bytes = NB_PANEL / 2; break;
    case NB_W_INT8: p->input_bytes = NB_PANEL; break;
    case NB_W_FLOAT: p->input_bytes = NB_PANEL * nb_dtype_size(m->dtype); break;
    }
    if (m->kind != NB_W_FLOAT) p->head_bytes = NB_PANEL * ((p->half_scales ? 2u : 4u) + (p->has_zeros ? 1u : 0u));
    if (!nb_mul((size_t)p->groups, p->head_bytes, &heads) || !nb_mul((size_t)p->padded_k, p->input_bytes, &data) ||
        !nb_add(heads, 63, &heads))
        return false;
    p->data_offset = heads / 64 * 64;
    if (!nb_add(data, p->data_offset, &data) || !nb_add(data, 63, &data)) return false;
    p->panel_bytes = data / 64 * 64;
    return nb_mul((size_t)p->panels, p->panel_bytes, &m->bytes);
}

/* ---- filling ------------------------------------------------------------- */

typedef struct {
    const nb_matrix  *m;
    const nb_packed  *p;
    const nb_weights *parts;
    int               count;
    atomic_bool       exact;     /* so far every scale is an f16 number */
    atomic_bool       no_memory; /* a thread could not get its row buffer */
} packing;

/* Output `o` of the stacked matrix: its part, and *o becomes the row within; NULL for the padding of the last panel. */
static const nb_weights *find_part(const packing *c, int *o)
{
    for (int i = 0; i < c->count; i++) {
        if (*o < c->parts[i].n) return &c->parts[i];
        *o -= c->parts[i].n;
    }
    return NULL;
}

static bool is_f16(float f)
{
    uint32_t before, after;
    float    back = nb_f16_to_f32(nb_f32_to_f16(f));
    memcpy(&before, &f, 4);
    memcpy(&after, &back, 4);
    return before == after;
}

static void check_scales(void *context, size_t panel, int thread)
{
    (void)thread;
    packing *c = context;
    size_t   groups = (size_t)c->p->groups;
    for (int lane = 0; lane < NB_PANEL && atomic_load_explicit(&c->exact, memory_order_relaxed); lane++) {
        int               o = (int)(panel * NB_PANEL) + lane;
        const nb_weights *w = find_part(c, &o);
        bool              exact = true;
        for (size_t g = 0; w && exact && g < groups; g++) exact = is_f16(w->scales[(size_t)o * groups + g]);
        if (!exact) atomic_store_explicit(&c->exact, false, memory_order_relaxed);
    }
}

/* Lane of the heads of a panel.  w NULL: an output that does not exist. */
static void fill_head(const packing *c, uint8_t *head, int lane, const nb_weights *w, int o)
{
    const nb_packed *p = c->p;
    for (size_t g = 0; g < (size_t)p->groups; g++, head += p->head_bytes) {
        size_t  at = (size_t)o * (size_t)p->groups + g;
        float   scale = w ? w->scales[at] : 0;
        uint8_t middle = c->m->kind == NB_W_INT4 ? 8 : 128;
        uint8_t zero = !w ? 0 : w->zeros ? w->zeros[at] : middle;
        if (p->half_scales) {
            uint16_t half = nb_f32_to_f16(scale);
            memcpy(head + 2 * lane, &half, 2);
        } else {
            memcpy(head + 4 * lane, &scale, 4);
        }
        if (p->has_zeros) head[(p->half_scales ? 2 : 4) * NB_PANEL + lane] = zero;
    }
}

/* Eight codes of a row, of which `have` exist; the first code is the lowest byte. */
static uint64_t load_codes(const uint8_t *codes, int have)
{
    uint64_t v = 0;
    if (codes) memcpy(&v, codes, have < 8 ? (size_t)have : 8);
    return v;
}

/* Lane of the data of an int panel.  codes [k], already in packed column order; NULL: an output that does not exist. */
static void fill_lane(const packing *c, uint8_t *data, int lane, const uint8_t *codes)
{
    data += 4 * lane;
    for (int b = 0; b < c->p->blocks; b++) {
        const nb_block *block = &c->p->block[b];
        for (int j = 0; j < block->padded; j += NB_VECTOR_INPUTS, data += NB_VECTOR_INPUTS * c->p->input_bytes) {
            uint64_t v = load_codes(codes ? codes + j : NULL, block->length - j);
            uint32_t low = (uint32_t)v, high = (uint32_t)(v >> 32);
            if (c->m->kind == NB_W_INT4) {
                low = (low & 0x0f0f0f0f) | (high & 0x0f0f0f0f) << 4;
                memcpy(data, &low, 4);
            } else {
                memcpy(data, &low, 4);
                memcpy(data + 64, &high, 4);
            }
        }
        if (codes) codes += block->length;
    }
}

/* ---- words to vectors: nothing is taken apart but the nibbles of a word --- */

static_assert(NB_BLOCK % 8 == 0, "blocks of one group begin at whole words");

/* Whether a panel can be made of whole words: its 16 outputs are of one part, columns are in order, blocks begin at words. */
static const nb_weights *find_words(const packing *c, size_t index, int *o)
{
    *o = (int)(index * NB_PANEL);
    const nb_weights *w = find_part(c, o);
    if (!w || w->order == NB_CODES_BYTES || w->n - *o < NB_PANEL || c->m->perm) return NULL;
    if (c->p->groups > 1 && w->group % NB_VECTOR_INPUTS) return NULL;
    return w->order == NB_CODES_OUTPUTS && *o % 8 ? NULL : w;
}

/* One vector of 16 outputs: words with eight 4-bit codes in order, to the order of packed.h. */
static void put_int4(uint8_t *to, const uint32_t in[NB_PANEL])
{
    uint32_t out[NB_PANEL];
    for (int i = 0; i < NB_PANEL; i++) {
        uint32_t low = in[i] & 0xffff, high = in[i] >> 16;
        low = (low | low << 8) & 0x00ff00ff;
        high = (high | high << 8) & 0x00ff00ff;
        low = (low | low << 4) & 0x0f0f0f0f;
        high = (high | high << 4) & 0x0f0f0f0f;
        out[i] = low | high << 4;
    }
    memcpy(to, out, sizeof out);
}

/* Words of the 16 outputs from `o` on that begin at input `first`; codes behind the last input are 0. */
static void get_words(uint32_t out[NB_PANEL], const nb_weights *w, size_t o, size_t first)
{
    size_t per = w->kind == NB_W_INT4 ? 8 : 4, k = (size_t)w->k, line = (k + per - 1) / per, have = first < k ? k - first : 0;
    if (!have) {
        memset(out, 0, NB_PANEL * sizeof *out);
    } else if (w->order == NB_CODES_INPUTS) {
        memcpy(out, w->words + first / per * (size_t)w->n + o, NB_PANEL * sizeof *out);
    } else if (w->order == NB_CODES_OUTPUTS) {
        size_t octets = (size_t)w->n / 8;
        for (size_t i = 0; i < 2; i++)
            nb_codes_transpose(out + 8 * i, w->words + first * octets + o / 8 + i, octets, have < 8 ? have : 8);
    } else {
        uint32_t mask = have < per ? (1u << 32 / per * have) - 1 : UINT32_MAX; /* what fills up a row is not ours to know */
        for (size_t i = 0; i < NB_PANEL; i++) out[i] = w->words[(o + i) * line + first / per] & mask;
    }
}

static void fill_block(const packing *c, uint8_t *data, const nb_block *b, const nb_weights *w, size_t o)
{
    uint32_t words[NB_PANEL];
    data += (size_t)b->first * c->p->input_bytes;
    for (int j = 0; j < b->padded; j += NB_VECTOR_INPUTS, data += NB_VECTOR_INPUTS * c->p->input_bytes) {
        size_t first = (size_t)(b->first + j);
        get_words(words, w, o, first);
        if (w->kind == NB_W_INT4) {
            put_int4(data, words);
            continue;
        }
        memcpy(data, words, sizeof words);
        get_words(words, w, o, first + 4);
        memcpy(data + 64, words, sizeof words);
    }
}

/* Lane of the blocks of a float panel: data [k][16] of size bytes. */
static void fill_floats(const nb_block *block, uint8_t *data, int lane, const uint8_t *row, size_t size)
{
    uint8_t *to = data + ((size_t)block->first * NB_PANEL + (size_t)lane) * size;
    for (int i = 0; i < block->length; i++, to += NB_PANEL * size) {
        size_t at = ((size_t)block->first + (size_t)i) * size;
        if (!row)
            memset(to, 0, size);
        else if (size == 2)
            memcpy(to, row + at, 2);
        else
            memcpy(to, row + at, 4);
    }
}

static void fill_float_panel(const packing *c, uint8_t *panel, size_t index)
{
    size_t         size = nb_dtype_size(c->m->dtype), k = (size_t)c->m->k;
    const uint8_t *rows[NB_PANEL];
    for (int lane = 0; lane < NB_PANEL; lane++) {
        int               o = (int)(index * NB_PANEL) + lane;
        const nb_weights *w = find_part(c, &o);
        rows[lane] = w ? (const uint8_t *)w->data + (size_t)o * k * size : NULL;
    }
    for (int b = 0; b < c->p->blocks; b++) /* block by block: 16 strided lanes of a block stay in L1 */
        for (int lane = 0; lane < NB_PANEL; lane++) fill_floats(&c->p->block[b], panel, lane, rows[lane], size);
    size_t used = k * NB_PANEL * size;
    memset(panel + used, 0, c->p->panel_bytes - used);
}

/* Heads of a panel, and what is between and behind its parts. */
static void fill_frame(const packing *c, uint8_t *panel, size_t index)
{
    size_t heads = (size_t)c->p->groups * c->p->head_bytes, end = c->p->data_offset + (size_t)c->p->padded_k * c->p->input_bytes;
    memset(panel + heads, 0, c->p->data_offset - heads);
    memset(panel + end, 0, c->p->panel_bytes - end);
    for (int lane = 0; lane < NB_PANEL; lane++) {
        int               o = (int)(index * NB_PANEL) + lane;
        const nb_weights *w = find_part(c, &o);
        fill_head(c, panel, lane, w, o);
    }
}

/* Any panel, by way of bytes. */
static void fill_int_panel(packing *c, uint8_t *panel, size_t index)
{
    size_t         k = (size_t)c->m->k;
    const int32_t *perm = c->m->perm;
    uint8_t       *row = malloc(2 * k);
    if (!row) {
        atomic_store(&c->no_memory, true);
        return;
    }
    for (int lane = 0; lane < NB_PANEL; lane++) {
        int               o = (int)(index * NB_PANEL) + lane;
        const nb_weights *w = find_part(c, &o);
        const uint8_t    *codes = NULL;
        if (w && w->order == NB_CODES_BYTES) {
            codes = w->codes + (size_t)o * k;
        } else if (w) {
            nb_weights_codes(row, k, w, (size_t)o, 1, 0, k);
            codes = row;
        }
        if (codes && perm) {
            for (size_t j = 0; j < k; j++) row[k + j] = codes[perm[j]];
            codes = row + k;
        }
        fill_lane(c, panel + c->p->data_offset, lane, codes);
    }
    free(row);
}

/* PANELS panels: block by block, so that a cache line of words side by side, which belongs to eight panels, is read once. */
static void fill_panels(void *context, size_t item, int thread)
{
    (void)thread;
    packing          *c = context;
    const nb_packed  *p = c->p;
    const nb_weights *words[PANELS] = { 0 };
    int               o[PANELS];
    size_t            first = item * PANELS, count = (size_t)p->panels - first < PANELS ? (size_t)p->panels - first : PANELS;
    uint8_t          *bytes = p->bytes + first * p->panel_bytes;
    for (size_t i = 0; i < count; i++) {
        uint8_t *panel = bytes + i * p->panel_bytes;
        if (c->m->kind == NB_W_FLOAT) {
            fill_float_panel(c, panel, first + i);
            continue;
        }
        fill_frame(c, panel, first + i);
        words[i] = find_words(c, first + i, &o[i]);
        if (!words[i]) fill_int_panel(c, panel, first + i);
    }
    for (int b = 0; b < p->blocks; b++)
        for (size_t i = 0; i < count; i++)
            if (words[i]) fill_block(c, bytes + i * p->panel_bytes + p->data_offset, &p->block[b], words[i], (size_t)o[i]);
}

/* ---- pack and release ------------------------------------------------------ */

static void add_tables(nb_matrix *m)
{
    const nb_packed *p = m->storage;
    m->bytes += sizeof *p + (size_t)p->blocks * sizeof *p->block + (m->perm ? (size_t)m->k * sizeof *m->perm : 0);
}

static nb_status build(const nb_ops *ops, nb_matrix *m, const nb_weights *parts, int count, nb_error *err)
{
    nb_packed *p;
    NB_TRY(nb_alloc(&m->storage, 1, sizeof *p, "a packed matrix", err));
    p = m->storage;
    NB_TRY(lay_out_columns(m, p, &parts[0], err));

    packing call = { .m = m, .p = p, .parts = parts, .count = count };
    size_t  panels = ((size_t)m->n + NB_PANEL - 1) / NB_PANEL;
    atomic_init(&call.exact, true);
    atomic_init(&call.no_memory, false);
    if (m->kind != NB_W_FLOAT) {
        nb_parallel(ops->pool, panels, check_scales, &call);
        p->half_scales = atomic_load(&call.exact);
        for (int i = 0; i < count; i++) p->has_zeros = p->has_zeros || parts[i].zeros;
    }
    p->bytes = lay_out_bytes(m, p) ? nb_alloc_pages(m->bytes) : NULL; /* fill_panels writes every byte */
    if (!p->bytes) return nb_fail(err, NB_ERR_MEMORY, "no memory for a packed matrix [%d, %d]", m->n, m->k);
    nb_parallel(ops->pool, (panels + PANELS - 1) / PANELS, fill_panels, &call);
    if (atomic_load(&call.no_memory))
        return nb_fail(err, NB_ERR_MEMORY, "no memory to sort the columns of a matrix [%d, %d]", m->n, m->k);
    add_tables(m);
    return NB_OK;
}

nb_status nb_packed_new(const nb_ops *ops, nb_matrix *out, const nb_weights *parts, int count, nb_error *err)
{
    NB_TRY(nb_pack_check(out, parts, count, err));
    if (out->n > INT_MAX - NB_PANEL) return nb_fail(err, NB_ERR_UNSUPPORTED, "pack: %d outputs are too many", out->n);
    nb_status status = build(ops, out, parts, count, err);
    if (status != NB_OK) nb_panels_free(ops, out);
    return status;
}

/* ---- images ------------------------------------------------------------------ */

enum { HALF_SCALES = 1, HAS_ZEROS = 2, KNOWN_FLAGS = 3 };

void nb_panels_describe(nb_matrix_image *out, const nb_matrix *m)
{
    const nb_packed *p = m->storage;
    *out = (nb_matrix_image){ .kind = m->kind, .dtype = m->dtype, .n = m->n, .k = m->k, .group = m->group, .perm = m->perm,
                       .flags = (p->half_scales ? HALF_SCALES : 0u) | (p->has_zeros ? HAS_ZEROS : 0u), .table = p->block,
                       .table_bytes = (size_t)p->blocks * sizeof *p->block, .bytes = p->bytes,
                       .size = (size_t)p->panels * p->panel_bytes };
}

/* Inputs of each group, [groups], as the blocks of an image have them; false when they are not those of one matrix. */
static bool count_blocks(int32_t *count, int groups, const nb_matrix_image *from)
{
    const nb_block *block = from->table;
    int64_t         left = from->k;
    memset(count, 0, (size_t)groups * sizeof *count);
    for (size_t b = 0; b < from->table_bytes / sizeof *block; b++) {
        if (block[b].group < 0 || block[b].group >= groups || block[b].length <= 0 || block[b].length > left) return false;
        count[block[b].group] += block[b].length;
        left -= block[b].length;
    }
    return left == 0;
}

/* The order of columns that an image gives is one: each of them once. */
static nb_status copy_order(nb_matrix *m, const nb_matrix_image *from, nb_error *err)
{
    uint8_t *seen;
    bool     good = true;
    if (!from->perm) return NB_OK;
    NB_TRY(nb_alloc(&m->perm, (size_t)m->k, sizeof *m->perm, "the order of the columns", err));
    NB_TRY(nb_alloc(&seen, (size_t)m->k, 1, "the order of the columns", err));
    memcpy(m->perm, from->perm, (size_t)m->k * sizeof *m->perm);
    for (int i = 0; i < m->k && good; i++) {
        int32_t column = m->perm[i];
        good = column >= 0 && column < m->k && !seen[column];
        if (good) seen[column] = 1;
    }
    free(seen);
    return good ? NB_OK : nb_fail(err, NB_ERR_INPUT, "its columns are not each there once");
}

/* The blocks of an image must be those that its groups are cut into. */
static nb_status copy_blocks(nb_packed *p, const nb_matrix_image *from, int32_t *count, nb_error *err)
{
    bool    ints = from->kind != NB_W_FLOAT;
    int     multiple = ints ? NB_VECTOR_INPUTS : 1;
    int64_t padded_k;
    bool    good = from->table_bytes % sizeof *p->block == 0 && count_blocks(count, p->groups, from);
    p->blocks = good ? cut_blocks(NULL, count, p->groups, multiple, &padded_k) : 0;
    if (!good || (size_t)p->blocks * sizeof *p->block != from->table_bytes)
        return nb_fail(err, NB_ERR_INPUT, "its blocks of inputs do not make up its %d inputs", from->k);
    if ((ints ? 2 * padded_k + 8 * (int64_t)p->blocks : 4 * padded_k) > NB_PREPARED_ROW_BYTES)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%d inputs are more than the CPU kernels take", from->k);
    NB_TRY(nb_alloc(&p->block, (size_t)p->blocks, sizeof *p->block, "the blocks of a matrix", err));
    cut_blocks(p->block, count, p->groups, multiple, &padded_k);
    p->padded_k = (int)padded_k;
    return memcmp(p->block, from->table, from->table_bytes) == 0
               ? NB_OK
               : nb_fail(err, NB_ERR_INPUT, "its blocks of inputs are not those of its groups");
}

static nb_status attach(nb_matrix *m, const nb_matrix_image *from, nb_error *err)
{
    bool       ints = from->kind == NB_W_INT4 || from->kind == NB_W_INT8;
    nb_packed *p;
    int32_t   *count;
    if ((!ints && from->kind != NB_W_FLOAT) || from->n <= 0 || from->n > INT_MAX - NB_PANEL || from->k <= 0 ||
        from->k > NB_PREPARED_ROW_BYTES ||
        (ints ? from->group <= 0 : from->dtype != NB_F32 && from->dtype != NB_BF16 && from->dtype != NB_F16) ||
        from->flags & ~(unsigned)KNOWN_FLAGS || (!ints && (from->perm || from->flags)))
        return nb_fail(err, NB_ERR_INPUT, "it describes no matrix");
    *m = (nb_matrix){ .kind = from->kind, .dtype = from->dtype, .n = from->n, .k = from->k, .group = from->group, .borrowed = true };
    NB_TRY(nb_alloc(&m->storage, 1, sizeof *p, "a packed matrix", err));
    p = m->storage;
    p->half_scales = from->flags & HALF_SCALES;
    p->has_zeros = from->flags & HAS_ZEROS;
    p->groups = ints ? (int)(((int64_t)m->k + m->group - 1) / m->group) : 1;
    NB_TRY(nb_alloc(&count, (size_t)p->groups, sizeof *count, "the groups of a matrix", err));
    nb_status status = copy_blocks(p, from, count, err);
    free(count);
    if (status == NB_OK) status = copy_order(m, from, err);
    if (status != NB_OK) return status;
    if (!lay_out_bytes(m, p) || m->bytes != from->size || (uintptr_t)from->bytes % 64)
        return nb_fail(err, NB_ERR_INPUT, "its size is not that of a packed matrix [%d, %d]", m->n, m->k);
    p->bytes = (uint8_t *)from->bytes; /* only read */
    add_tables(m);
    return NB_OK;
}

nb_status nb_panels_attach(const nb_ops *ops, nb_matrix *out, const nb_matrix_image *from, nb_error *err)
{
    *out = (nb_matrix){ 0 };
    nb_status status = attach(out, from, err);
    if (status != NB_OK) nb_panels_free(ops, out);
    return status;
}

void nb_panels_free(const nb_ops *ops, nb_matrix *m)
{
    (void)ops;
    nb_packed *p = m->storage;
    if (p) {
        free(p->block);
        if (!m->borrowed) free(p->bytes);
        free(p);
    }
    free(m->perm);
    *m = (nb_matrix){ 0 };
}
