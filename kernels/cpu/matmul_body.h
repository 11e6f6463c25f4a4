/* matmul_body.h - matmul of the vector levels: included once by matmul_avx2.c, matmul_avx512.c and matmul_neon.c, which define
 * the vector types and the primitives used here, and ROW_TILES.
 *
 * All of them do the same arithmetic in the same order, and their results are equal to the last bit.  So is what amx does with ints
 * (matmul_amx.c), by quantize_block of avx512 and in the order of int_tile and finish: what changes here changes there.
 *
 * Ints.  Activations become 16-bit fixed point, per row and block of at most 128 inputs (A16):
 *
 *     scale = max |x| / 32639      a = round(x / scale)      sum over the block of (q - z) a   exact, in int32
 *     y += (weight scale * activation scale) * sum           one FMA for each block, in ascending order
 *
 *   The step of a is 1/32639 of the largest |x| of the block, and that is at most sqrt(128) times the RMS, so the
 *   rounding of a costs at most sqrt(128) / (32639 sqrt(12)) = 1.0e-4 of the norm of x, however large an outlier is; for
 *   a Gaussian block (largest 2.5 RMS) 2e-5.  32639 = 127 * 257, so that a also splits into two signed bytes.
 *   Where |sum| can reach 2^24 the conversion to f32 rounds it: another 6e-8.
 *   A block that holds an infinity or a NaN makes the row NaN; one whose largest |x| is below 2^-100 counts as zero.
 *
 *   The zero point is one more pair of inputs: with S the sum of a (at most 128 * 32639 in magnitude) and
 *   S = low + 128 high, 0 <= low < 128, both halves fit into 16 bits and
 *     -z S = z * (-low) + (128 z) * (-high)
 *   is what the pairwise product gives for weights (z, 128 z) and activations (-low, -high).
 *
 * Floats.  Weight (exact in f32) times f32 activation, FMAs over a block from zero, blocks added in ascending order.
 *
 * So every output has one order of operations whatever the shape of the call: a row gets the same bits alone or among
 * others, and from any number of threads.
 *
 * Tiles.  A tile of R rows times P panels keeps its sums in registers through a block.  Activations are first copied into
 * the order in which tiles read them, once for each call, so that a tile needs one pointer (and no stride that could
 * alias in L1):
 *
 *     rows are cut into chunks of CHUNK_ROWS; chunk:  [block][tile][input (ints: pair of inputs)][row of the tile]
 *                                                     then, for ints, scale f32 [block][row], zero pair i32 [block][row]
 *
 * A work item is a chunk times some groups of GROUP panels.  Few rows: the four panels of a group are four memory
 * streams, read once.  Many rows: a block of the group (32 KB or less) is used by all tiles of the chunk while it is in
 * L1 or L2, and so are the activations of the chunk from one group to the next.
 */
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/packed.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum {
    GROUP = 4,                   /* panels */
    CHUNK_ROWS = 96,             /* a multiple of the tallest tile */
    WIDEN_ROWS = 16,             /* from here on 16-bit weights are converted once per chunk, not once per tile */
    PREFETCH = 2048,             /* bytes ahead in each panel; measured best of 0, 1, 2, 4 and 8 KB (0: a third slower) */
    PASS_BYTES = 4 << 20,        /* prepared activations at a time: a part of L3 */
    ITEM_NS = 6000,              /* shortest item, far above the microsecond that handing it out costs */
    LONG_CALL_ITEMS = 128,       /* a long call has longer items: consecutive groups of one thread are prefetched */
    SERIAL_ELEMENTS = 32 * 1024, /* activations that are prepared in less time than it takes to wake a thread */
};

static_assert(CHUNK_ROWS % MAX_ROWS == 0, "only the end of a chunk has lower tiles");

/* The tallest tile that `left` rows fill. */
#define PICK(R, P, ...) if (left >= R) return R;
static size_t tile_rows(size_t left)
{
    ROW_TILES(PICK, )
    return 0;
}
#undef PICK

typedef struct {
    const nb_matrix *m;
    const nb_packed *w;
    float           *y;
    const float     *x, *bias;
    size_t           ldy, ldx;
    bool             add;
    size_t           rows;        /* of this pass; x and y point to its first */
    size_t           row_bytes;   /* prepared */
    uint8_t         *prepared;
    size_t           groups;      /* of panels */
    size_t           item_groups; /* in one item */
} job;

/* Where a chunk is, and the parts of its prepared activations. */
typedef struct {
    size_t   first, rows;
    uint8_t *values;
    float   *scale;
    int32_t *zero_pair;
} chunk;

static size_t value_bytes(const nb_matrix *m)
{
    return m->kind == NB_W_FLOAT ? 4 : 2;
}

static size_t prepared_row_bytes(const nb_matrix *m)
{
    const nb_packed *w = m->storage;
    return value_bytes(m) * (size_t)w->padded_k + (m->kind == NB_W_FLOAT ? 0 : 8 * (size_t)w->blocks);
}

static chunk find_chunk(const job *j, size_t index)
{
    chunk c = { .first = index * CHUNK_ROWS };
    c.rows = j->rows - c.first < CHUNK_ROWS ? j->rows - c.first : CHUNK_ROWS;
    c.values = j->prepared + c.first * j->row_bytes;
    c.scale = (float *)(void *)(c.values + c.rows * (size_t)j->w->padded_k * value_bytes(j->m));
    c.zero_pair = (int32_t *)(void *)(c.scale + c.rows * (size_t)j->w->blocks);
    return c;
}

/* Values of a tile that begins at row `first` of the chunk. */
static void *tile_values(const job *j, const chunk *c, const nb_block *b, size_t first)
{
    return c->values + ((size_t)b->first * c->rows + first * (size_t)b->padded) * value_bytes(j->m);
}

/* ---- preparing activations ------------------------------------------------- */

/* x [NB_BLOCK], zeros behind its end, to a [NB_BLOCK] in the order 0 2 1 3 of each four (the pairs of packed.h). */
static void quantize_block(const float *x, int16_t *a, float *scale, int32_t *zero_pair)
{
    int32_t maximum = i_max_magnitude(x, NB_BLOCK);
    float   largest;
    memcpy(&largest, &maximum, 4);
    bool finite = maximum < 0x7f800000, zero = finite && largest < 0x1p-100f;
    *scale = zero ? 0 : finite ? largest / 32639.0f : nb_bf16_to_f32(0x7fc0);
    lanes   factor = f_set1(32639.0f / largest);
    vectors sum = i_zero();
    for (int i = 0; i < NB_BLOCK; i += NB_PANEL) {
        vectors v = finite && !zero ? i_round(f_mul(f_load(x + i), factor)) : i_zero();
        sum = i_add(sum, v);
        i_store_pairs(a + i, v);
    }
    int32_t total = i_sum(sum), low = total & 127, high = (total - low) / 128;
    *zero_pair = (int32_t)((uint32_t)(-low & 0xffff) | (uint32_t)-high << 16);
}

static void prepare_ints(const job *j, const chunk *c, size_t first, size_t tile)
{
    const int32_t *perm = j->m->perm;
    size_t         column = 0;
    for (int index = 0; index < j->w->blocks; index++) {
        const nb_block *b = &j->w->block[index];
        int32_t        *to = tile_values(j, c, b, first);
        for (size_t r = 0; r < tile; r++) {
            const float          *x = j->x + (c->first + first + r) * j->ldx;
            _Alignas(64) float   block[NB_BLOCK] = { 0 };
            _Alignas(64) int16_t a[NB_BLOCK];
            if (perm)
                for (int i = 0; i < b->length; i++) block[i] = x[perm[column + (size_t)i]];
            else
                memcpy(block, x + column, (size_t)b->length * sizeof *x);
            size_t at = (size_t)index * c->rows + first + r;
            quantize_block(block, a, &c->scale[at], &c->zero_pair[at]);
            for (size_t pair = 0; pair < (size_t)b->padded / 2; pair++) memcpy(&to[pair * tile + r], &a[2 * pair], 4);
        }
        column += (size_t)b->length;
    }
}

static void prepare_floats(const job *j, const chunk *c, size_t first, size_t tile)
{
    for (int index = 0; index < j->w->blocks; index++) {
        const nb_block *b = &j->w->block[index];
        float          *to = tile_values(j, c, b, first);
        for (size_t r = 0; r < tile; r++) {
            const float *x = j->x + (c->first + first + r) * j->ldx + b->first;
            for (size_t i = 0; i < (size_t)b->length; i++) to[i * tile + r] = x[i];
        }
    }
}

/* One item is as many rows as the tallest tile has: the next whole tile, or the lower ones at the end of a chunk. */
static void prepare_rows(void *context, size_t item, int thread)
{
    (void)thread;
    const job *j = context;
    size_t     tallest = tile_rows(SIZE_MAX), row = item * tallest;
    chunk      c = find_chunk(j, row / CHUNK_ROWS);
    size_t     first = row - c.first, end = first + tallest < c.rows ? first + tallest : c.rows;
    for (size_t tile; first < end; first += tile) {
        tile = tile_rows(c.rows - first);
        if (j->m->kind == NB_W_FLOAT)
            prepare_floats(j, &c, first, tile);
        else
            prepare_ints(j, &c, first, tile);
    }
}

/* ---- one block of a tile --------------------------------------------------- */

/* The sums of a chunk over one group of panels: [row][lane of the group]. */
typedef float totals[GROUP * NB_PANEL];

/* What a kernel reads: one block of a group of panels, and the activations of one tile. */
typedef struct {
    const uint8_t *data; /* of the first panel */
    size_t         stride; /* bytes to the next panel's */
    int            length; /* inputs; padded for ints */
    const void    *values;
    const uint8_t *head; /* ints: of the first panel; panels are head_stride apart */
    size_t         head_stride;
    bool           half_scales, has_zeros;
    const float   *scale;
    const int32_t *zero_pair;
    size_t         ahead;  /* from a byte to the one to prefetch with it */
    totals        *total;
} tile_args;

ALWAYS_INLINE lanes load_weights(const uint8_t *data, nb_dtype type)
{
    return type == NB_BF16 ? f_from_bf16(data) : type == NB_F16 ? f_from_f16(data) : f_load((const float *)(const void *)data);
}

/* R rows times P panels from panel p of the group on.  R, P and type are constants wherever this is inlined. */
ALWAYS_INLINE void float_tile(const int R, const int P, const int p0, const nb_dtype type, const tile_args *t)
{
    const size_t   step = NB_PANEL * (type == NB_F32 ? 4 : 2);
    const uint8_t *data = t->data + (size_t)p0 * t->stride;
    const float   *x = t->values;
    lanes          sum[MAX_ROWS][GROUP];
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int p = 0; p < P; p++) sum[r][p] = f_zero();
    for (int i = 0; i < t->length; i++, data += step, x += R) {
        lanes w[GROUP];
        UNROLL for (int p = 0; p < P; p++) {
            if (R < MAX_ROWS) __builtin_prefetch(data + (size_t)p * t->stride + t->ahead);
            w[p] = load_weights(data + (size_t)p * t->stride, type);
        }
        UNROLL for (int r = 0; r < R; r++) {
            lanes a = f_set1(x[r]);
            UNROLL for (int p = 0; p < P; p++) sum[r][p] = f_fma(a, w[p], sum[r][p]);
        }
    }
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int p = 0; p < P; p++) {
            float *total = &t->total[r][(p0 + p) * NB_PANEL];
            f_store(total, f_add(f_load(total), sum[r][p]));
        }
}

/* The same for ints; `four`: 4-bit codes, otherwise 8. */
ALWAYS_INLINE void int_tile(const int R, const int P, const int p0, const bool four, const tile_args *t)
{
    const int      vectors_per_step = four ? 1 : 2, pairs_per_vector = four ? 4 : 2;
    const bool     split = SPLIT_SUMS && R * P <= 4; /* two chains for each sum where few would not hide the latency */
    const uint8_t *data = t->data + (size_t)p0 * t->stride, *head = t->head + (size_t)p0 * t->head_stride;
    const int32_t *a = t->values;
    const size_t   scale_bytes = (t->half_scales ? 2 : 4) * NB_PANEL;
    vectors        sum[MAX_ROWS][GROUP], odd[MAX_ROWS][GROUP];
    UNROLL for (int p = 0; p < P; p++) {
        vectors zero = t->has_zeros ? i_zero_points(head + (size_t)p * t->head_stride + scale_bytes)
                                    : i_set1(four ? 8 | 8 << 23 : 128 | 128 << 23);
        UNROLL for (int r = 0; r < R; r++) {
            sum[r][p] = i_dot(i_zero(), zero, i_set1(t->zero_pair[r]));
            odd[r][p] = i_zero();
        }
    }
    for (int i = 0; i < t->length; i += NB_VECTOR_INPUTS)
        UNROLL for (int v = 0; v < vectors_per_step; v++, data += 64) {
            vectors codes[GROUP];
            UNROLL for (int p = 0; p < P; p++) {
                if (R < MAX_ROWS) __builtin_prefetch(data + (size_t)p * t->stride + t->ahead);
                codes[p] = i_load_codes(data + (size_t)p * t->stride);
            }
            UNROLL for (int q = 0; q < pairs_per_vector; q++, a += R) {
                vectors w[GROUP];
                UNROLL for (int p = 0; p < P; p++) w[p] = four ? i_nibble_pairs(codes[p], q) : i_byte_pairs(codes[p], q);
                UNROLL for (int r = 0; r < R; r++) {
                    vectors pair = i_set1(a[r]);
                    UNROLL for (int p = 0; p < P; p++) {
                        vectors *to = split && q % 2 ? &odd[r][p] : &sum[r][p];
                        *to = i_dot(*to, w[p], pair);
                    }
                }
            }
        }
    UNROLL for (int p = 0; p < P; p++) {
        const uint8_t *h = head + (size_t)p * t->head_stride;
        lanes          scale = t->half_scales ? f_from_f16(h) : f_load((const float *)(const void *)h);
        UNROLL for (int r = 0; r < R; r++) {
            float  *total = &t->total[r][(p0 + p) * NB_PANEL];
            vectors whole = split ? i_add(sum[r][p], odd[r][p]) : sum[r][p];
            f_store(total, f_fma(i_to_f(whole), f_mul(scale, f_set1(t->scale[r])), f_load(total)));
        }
    }
}

/* One case per height: as many panels at a time as the registers hold, the rest of the group one by one. */
#define TILE(R, P, kernel, constant)                                           \
    case R: {                                                                  \
        int p = 0;                                                             \
        for (; p + (P) <= panels; p += (P)) kernel(R, P, p, constant, t);      \
        if ((P) > 1)                                                           \
            for (; p < panels; p++) kernel(R, 1, p, constant, t);              \
        break;                                                                 \
    }

#define TILE_FUNCTION(name, kernel, constant)                                  \
    static void name(size_t rows, int panels, const tile_args *t)              \
    {                                                                          \
        switch (rows) { ROW_TILES(TILE, kernel, constant) }                    \
    }
TILE_FUNCTION(tile_f32, float_tile, NB_F32)
TILE_FUNCTION(tile_bf16, float_tile, NB_BF16)
TILE_FUNCTION(tile_f16, float_tile, NB_F16)
TILE_FUNCTION(tile_int4, int_tile, true)
TILE_FUNCTION(tile_int8, int_tile, false)

typedef void tile_function(size_t rows, int panels, const tile_args *t);

static tile_function *find_tile_function(const nb_matrix *m)
{
    if (m->kind == NB_W_INT4) return tile_int4;
    if (m->kind == NB_W_INT8) return tile_int8;
    return m->dtype == NB_BF16 ? tile_bf16 : m->dtype == NB_F16 ? tile_f16 : tile_f32;
}

/* ---- a chunk of rows times groups of panels --------------------------------- */

/* One block of 16-bit panels as f32: wide [panel][NB_BLOCK][16]. */
static void widen(float *wide, const tile_args *t, int panels, nb_dtype type)
{
    for (int p = 0; p < panels; p++) {
        const uint8_t *data = t->data + (size_t)p * t->stride;
        float         *to = wide + p * NB_BLOCK * NB_PANEL;
        for (int i = 0; i < t->length; i++, data += 2 * NB_PANEL, to += NB_PANEL) f_store(to, load_weights(data, type));
    }
}

/* y = total + bias (+ y) for the rows of a chunk and one panel. */
static void finish(const job *j, const chunk *c, const totals *total, size_t panel, int p)
{
    size_t output = panel * NB_PANEL, n = (size_t)j->m->n;
    for (size_t r = 0; r < c->rows; r++) {
        const float *sum = &total[r][p * NB_PANEL];
        float       *y = j->y + (c->first + r) * j->ldy + output;
        if (output + NB_PANEL <= n) {
            lanes v = f_load(sum);
            if (j->bias) v = f_add(v, f_load(j->bias + output));
            if (j->add) v = f_add(v, f_load(y));
            f_store(y, v);
            continue;
        }
        for (size_t i = 0; output + i < n; i++) {
            float v = sum[i];
            if (j->bias) v += j->bias[output + i];
            if (j->add) v += y[i];
            y[i] = v;
        }
    }
}

static void multiply_group(const job *j, const chunk *c, size_t group)
{
    _Alignas(64) totals total[CHUNK_ROWS];
    _Alignas(64) float  wide[GROUP * NB_BLOCK * NB_PANEL];
    const nb_packed    *w = j->w;
    size_t              panel = group * GROUP;
    int                 panels = (size_t)w->panels - panel < GROUP ? (int)((size_t)w->panels - panel) : GROUP;
    bool ints = j->m->kind != NB_W_FLOAT, convert = !ints && j->m->dtype != NB_F32 && c->rows >= WIDEN_ROWS;
    tile_function *multiply = convert ? tile_f32 : find_tile_function(j->m);

    memset(total, 0, c->rows * sizeof *total);
    for (int index = 0; index < w->blocks; index++) {
        const nb_block *b = &w->block[index];
        tile_args t = { .data = nb_packed_data(w, panel, b), .stride = w->panel_bytes, .length = b->padded,
                        .head = nb_packed_head(w, panel, b->group), .head_stride = w->panel_bytes,
                        .half_scales = w->half_scales, .has_zeros = w->has_zeros };
        /* Behind the end of a panel the same distance leads into the panel's successor in the next group. */
        size_t offset = (size_t)(t.data - nb_packed_head(w, panel, 0)) + PREFETCH;
        t.ahead = PREFETCH + (offset < w->panel_bytes ? 0 : (GROUP - 1) * w->panel_bytes);
        if (convert) {
            widen(wide, &t, panels, j->m->dtype);
            t.data = (const uint8_t *)wide;
            t.stride = NB_BLOCK * NB_PANEL * sizeof *wide;
        }
        for (size_t first = 0, tile; first < c->rows; first += tile) {
            tile = tile_rows(c->rows - first);
            t.values = tile_values(j, c, b, first);
            if (ints) {
                t.scale = &c->scale[(size_t)index * c->rows + first];
                t.zero_pair = &c->zero_pair[(size_t)index * c->rows + first];
            }
            t.total = &total[first];
            multiply(tile, panels, &t);
        }
    }
    for (int p = 0; p < panels; p++) finish(j, c, total, panel + (size_t)p, p);
}

static size_t items_per_chunk(const job *j)
{
    return (j->groups + j->item_groups - 1) / j->item_groups;
}

static void multiply_item(void *context, size_t item, int thread)
{
    (void)thread;
    const job *j = context;
    chunk      c = find_chunk(j, item / items_per_chunk(j));
    size_t     group = item % items_per_chunk(j) * j->item_groups, end = group + j->item_groups;
    for (; group < end && group < j->groups; group++) multiply_group(j, &c, group);
}

/* ---- the call --------------------------------------------------------------- */

/* Groups in an item, from the shape alone: items long enough to be worth handing out, and of equal length.  The rates
 * are those of an ordinary core, 16 bytes of weights and 64 products per nanosecond. */
static size_t choose_item_groups(const job *j)
{
    size_t rows = j->rows < CHUNK_ROWS ? j->rows : CHUNK_ROWS;
    size_t stream = GROUP * j->w->panel_bytes / 16, multiply = rows * (size_t)j->m->k * GROUP * NB_PANEL / 64;
    size_t group_ns = (stream > multiply ? stream : multiply) + 1, item_ns = group_ns * j->groups / LONG_CALL_ITEMS;
    size_t wanted = (item_ns > ITEM_NS ? item_ns : ITEM_NS) / group_ns + 1, items = (j->groups + wanted - 1) / wanted;
    return (j->groups + items - 1) / items;
}

static void run_pass(const nb_ops *ops, job *j)
{
    size_t tallest = tile_rows(SIZE_MAX), slabs = (j->rows + tallest - 1) / tallest;
    if (j->rows * (size_t)j->m->k <= SERIAL_ELEMENTS)
        for (size_t s = 0; s < slabs; s++) prepare_rows(j, s, 0);
    else
        nb_parallel(ops->pool, slabs, prepare_rows, j);
    size_t chunks = (j->rows + CHUNK_ROWS - 1) / CHUNK_ROWS;
    j->item_groups = choose_item_groups(j);
    nb_parallel(ops->pool, chunks * items_per_chunk(j), multiply_item, j);
}

/* Prepared activations live on the stack when they fit, as they do in decoding: no allocation, nothing to own.  Larger
 * calls ask the heap for up to PASS_BYTES and, if it has none, go on in passes that fit the stack; pack has refused
 * matrices of which not even one row does.  How rows are divided into passes changes no result. */
static void matmul(const nb_ops *ops, float *y, size_t ldy, const float *x, size_t ldx, size_t rows, const nb_matrix *m,
                   const float *bias, bool add)
{
    _Alignas(64) uint8_t on_stack[NB_PREPARED_ROW_BYTES];
    uint8_t             *on_heap = NULL;
    const nb_packed     *w = m->storage;
    size_t               row_bytes = prepared_row_bytes(m), pass = PASS_BYTES / row_bytes;
    if (pass > rows) pass = rows;
    if (pass * row_bytes > sizeof on_stack) on_heap = aligned_alloc(64, (pass * row_bytes + 63) / 64 * 64);
    if (!on_heap && pass > sizeof on_stack / row_bytes) pass = sizeof on_stack / row_bytes;
    job j = { .m = m, .w = w, .bias = bias, .ldy = ldy, .ldx = ldx, .add = add, .row_bytes = row_bytes,
              .prepared = on_heap ? on_heap : on_stack, .groups = ((size_t)w->panels + GROUP - 1) / GROUP };
    for (size_t first = 0; first < rows; first += pass) {
        j.rows = rows - first < pass ? rows - first : pass;
        j.x = x + first * ldx;
        j.y = y + first * ldy;
        run_pass(ops, &j);
    }
    free(on_heap);
}

static void fill(nb_ops *ops)
{
    ops->pack = nb_packed_new;
    ops->release = nb_panels_free;
    ops->layout = NB_PANELS_LAYOUT;
    ops->describe = nb_panels_describe;
    ops->attach = nb_panels_attach;
    ops->embed = nb_packed_embed;
    ops->matmul = matmul;
}
