/* matmul_amx.c - matmul with the tile registers of AMX: int4 and int8 for many rows, bf16 for any number.
 *
 * A tile is 16 rows of 64 bytes.  C [16 rows, 16 outputs] += A [16 rows, K] B [K, 16 outputs] is one instruction; a panel of
 * packed.h is as wide as a tile, so that column n of B and C is lane n of the panel.
 *
 * Ints.  The arithmetic of matmul_body.h, to the last bit: the activations of a block are the same 16-bit fixed-point numbers, split
 * into two signed bytes (a = 256 high + low), codes are unsigned bytes, and 256 sum(high q) + sum(low q) is the exact int32 sum
 * of the other levels, in whatever order tiles add it.  What follows (zero point, scales, one FMA a block) is done in the order
 * of matmul_body.h.  So a call of few rows, where tiles would be mostly empty, is given to the avx512 level, and nobody can tell.
 *
 *   low, high in [-128, 127]      |sum(low q)|, |sum(high q)| <= 128 * 128 * 255 < 2^22.1      256 times that < 2^31
 *
 * bf16.  Weights are taken as they are, an activation as the sum of two bf16, x = high + low + rest, products are added in f32.
 * Tiles round in an order of their own, so the bits differ from the other levels'; hence every call of this level with bf16 weights
 * comes here, also that of one row, for a row must not depend on its company.  How far y may be off, k inputs:
 *
 *   rest       high is x rounded to 8 bits, low the rest of that rounded to 8 bits: |rest| <= 2^-17 |x|.  Where rounding would
 *              give infinity high is cut off instead: the same bound.
 *   roundings  a product passes at most 32 sums inside an instruction, whatever their order, 2 * SEGMENT_FLOATS / 32 = 32
 *              sums of products of tiles and ceil(k / SEGMENT_FLOATS) sums of segments; |high| + |low| <= (1 + 2^-7) |x|
 *   denormals  of operands count as zero, and so do results of an addition, of which there are 2 k + 4 ceil(k / 32) <= 3 k + 6
 *
 *   |y - sum w x| <= (2^-17 + 1.01 (64 + ceil(k / 512)) 2^-24) sum |w x| + 2^-126 (sum |w| + sum |x| + 3 k + 6)
 *
 *   that is 1.2e-5 for k = 4096 and 2.0e-5 for the longest k that pack takes.  An infinity or a NaN is high, with low = 0,
 *   so that it gives what it gives at the other levels, save that a weight which is denormal counts as zero and one which is
 *   infinite gives NaN.
 *
 * Order of work.  The rows of a pass are cut into chunks whose prepared activations fit the second-level cache, an item is a chunk
 * times some pairs of panels.  The weights of a pair are unpacked a segment at a time (32 KB of B tiles, in the first-level cache)
 * and all rows of the chunk use them from there: tiles are fed at full rate when one side comes from the first level and the other
 * from the second.  Sums of a product are stored, and while tiles make the next product, vectors bring the last one to its totals.
 *
 *   prepared   strips of 16 rows (the last may be lower); strip:   [step][low, high or high, low][row][bytes of a step]
 *              then, for ints, scale f32 [block][row], zero pair i32 [block][row]
 *   B tiles    [step][panel of the pair][dword of inputs][16 outputs]
 *
 * A step is what one product takes: 32 inputs of floats; of ints a block, or half of it where blocks are longer than 64.  A last step
 * that is not full has activations of zero.
 */
#include <immintrin.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/packed.h"
#include "kernels/cpu/tiles.h"

enum {
    STRIP = 16,                    /* rows of a tile */
    PAIR = 2 * NB_PANEL,           /* outputs of a pair of panels */
    FEW_ROWS = 16,                 /* ints: fewer rows are not worth a tile */
    CHUNK_ROWS = 128,              /* at most */
    CHUNK_BYTES = 1200 * 1024,     /* prepared activations of a chunk: of 2 MB of second-level cache */
    STEP_FLOATS = 32,              /* inputs of a product of bf16 */
    SEGMENT_INTS = 1024,           /* inputs whose B tiles are 32 KB */
    SEGMENT_FLOATS = 512,
    SEGMENT_BYTES = 32 * 1024,
    PASS_BYTES = 4 << 20,          /* prepared activations at a time, as at the other levels */
    PREFETCH = 2048,               /* bytes ahead of what is unpacked */
    ITEM_NS = 6000,                /* shortest item; items of a long call are longer */
    LONG_CALL_ITEMS = 128,
    SERIAL_ELEMENTS = 32 * 1024,   /* activations that are prepared in less time than it takes to wake a thread */
};

static_assert(SEGMENT_INTS * PAIR <= SEGMENT_BYTES && SEGMENT_FLOATS * PAIR * 2 <= SEGMENT_BYTES, "a segment has room");
static_assert((int)SEGMENT_INTS >= (int)NB_BLOCK, "a segment holds a block");

/* Tiles by number.  C: [plane or strip][panel]. */
#define C00 0
#define C01 1
#define C10 2
#define C11 3
#define A0 4
#define A1 5
#define B0 6
#define B1 7

typedef struct {
    const nb_matrix *m;
    const nb_packed *w;
    float           *y;
    const float     *x, *bias;
    size_t           ldy, ldx;
    bool             ints, add;
    size_t           rows;       /* of this pass; x and y point to its first */
    size_t           chunk_rows; /* a multiple of two strips */
    size_t           step;       /* inputs */
    size_t           step_bytes; /* of one row in one plane */
    size_t           row_bytes;  /* prepared */
    size_t           value_bytes; /* of that, without scales and zero pairs */
    uint8_t         *prepared;
    size_t           pairs;      /* of panels */
    size_t           item_pairs; /* in one item */
} job;

/* Rows of a chunk with up to two strips that are multiplied together, and where their prepared form begins. */
typedef struct {
    size_t         rows;
    const uint8_t *values;
    const float   *scale;     /* ints: [block][row] */
    const int32_t *zero_pair; /* ints: [block][row] */
} strip;

static size_t block_steps(const job *j, const nb_block *b)
{
    return ((size_t)b->padded + j->step - 1) / j->step;
}

static strip find_strip(const job *j, size_t row)
{
    strip s = { .rows = j->rows - row < STRIP ? j->rows - row : STRIP, .values = j->prepared + row * j->row_bytes };
    s.scale = (const float *)(const void *)(s.values + s.rows * j->value_bytes);
    s.zero_pair = (const int32_t *)(const void *)(s.scale + s.rows * (size_t)j->w->blocks);
    return s;
}

/* ---- preparing activations ------------------------------------------------- */

/* a [NB_BLOCK] in the order 0 2 1 3 of each four to its low and high bytes in plain order. */
static void split_bytes(const int16_t *a, int8_t *low, int8_t *high)
{
    for (int i = 0; i < NB_BLOCK; i += 32) {
        __m512i v = _mm512_loadu_si512(a + i);
        v = _mm512_shufflehi_epi16(_mm512_shufflelo_epi16(v, _MM_SHUFFLE(3, 1, 2, 0)), _MM_SHUFFLE(3, 1, 2, 0));
        _mm256_storeu_si256((void *)(low + i), _mm512_cvtepi16_epi8(v));
        v = _mm512_srai_epi16(_mm512_add_epi16(v, _mm512_set1_epi16(128)), 8);
        _mm256_storeu_si256((void *)(high + i), _mm512_cvtepi16_epi8(v));
    }
}

static void prepare_ints(const job *j, size_t first)
{
    const int32_t *perm = j->m->perm;
    strip          s = find_strip(j, first);
    uint8_t       *to = j->prepared + first * j->row_bytes;
    float         *scale = (float *)(void *)(to + s.rows * j->value_bytes);
    int32_t       *zero_pair = (int32_t *)(void *)(scale + s.rows * (size_t)j->w->blocks);
    size_t         column = 0, plane = s.rows * j->step_bytes;
    for (int index = 0; index < j->w->blocks; index++) {
        const nb_block *b = &j->w->block[index];
        size_t          steps = block_steps(j, b);
        for (size_t r = 0; r < s.rows; r++) {
            const float          *x = j->x + (first + r) * j->ldx;
            _Alignas(64) float   block[NB_BLOCK] = { 0 };
            _Alignas(64) int16_t a[NB_BLOCK];
            _Alignas(64) int8_t  low[NB_BLOCK], high[NB_BLOCK];
            if (perm)
                for (int i = 0; i < b->length; i++) block[i] = x[perm[column + (size_t)i]];
            else
                memcpy(block, x + column, (size_t)b->length * sizeof *x);
            nb_avx512_quantize_block(block, a, scale++, zero_pair++);
            split_bytes(a, low, high);
            for (size_t i = 0; i < steps; i++) {
                memcpy(to + 2 * i * plane + r * j->step_bytes, low + i * j->step, j->step_bytes);
                memcpy(to + (2 * i + 1) * plane + r * j->step_bytes, high + i * j->step, j->step_bytes);
            }
        }
        to += 2 * steps * plane;
        column += (size_t)b->length;
    }
}

/* 16 activations as high + low, in the high halves of dwords; what lies in the low halves is to be dropped. */
static void split_floats(__m512 x, __m512i *high, __m512i *low)
{
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000), one = _mm512_set1_epi32(1), half = _mm512_set1_epi32(0x7fff);
    __m512i   u = _mm512_castps_si512(x), magnitude = _mm512_and_si512(u, _mm512_set1_epi32(0x7fffffff));
    __mmask16 cut = _mm512_cmpgt_epi32_mask(magnitude, _mm512_set1_epi32(0x7f7f7fff)); /* would become infinite, or is not finite */
    __mmask16 finite = _mm512_cmplt_epi32_mask(magnitude, _mm512_set1_epi32(0x7f800000));
    __mmask16 nan = _mm512_cmpgt_epi32_mask(magnitude, _mm512_set1_epi32(0x7f800000));
    __m512i   even = _mm512_add_epi32(half, _mm512_and_si512(_mm512_srli_epi32(u, 16), one));
    __m512i   h = _mm512_and_si512(_mm512_mask_add_epi32(u, (__mmask16)~cut, u, even), upper);
    *high = _mm512_mask_or_epi32(h, nan, h, _mm512_set1_epi32(0x00400000));
    __m512i rest = _mm512_castps_si512(_mm512_maskz_sub_ps(finite, x, _mm512_castsi512_ps(h)));
    even = _mm512_add_epi32(half, _mm512_and_si512(_mm512_srli_epi32(rest, 16), one));
    *low = _mm512_add_epi32(rest, even);
}

/* 32 bf16 from the high halves of 32 dwords. */
static void store_high_halves(void *to, __m512i a, __m512i b)
{
    _mm256_storeu_si256(to, _mm512_cvtepi32_epi16(_mm512_srli_epi32(a, 16)));
    _mm256_storeu_si256((__m256i *)to + 1, _mm512_cvtepi32_epi16(_mm512_srli_epi32(b, 16)));
}

static __mmask16 first_lanes(size_t n)
{
    return (__mmask16)(n >= 16 ? 0xffff : (1u << n) - 1);
}

static void prepare_floats(const job *j, size_t first)
{
    strip    s = find_strip(j, first);
    uint8_t *to = j->prepared + first * j->row_bytes;
    size_t   k = (size_t)j->m->k, plane = s.rows * j->step_bytes;
    for (size_t i = 0; i < k; i += STEP_FLOATS, to += 2 * plane)
        for (size_t r = 0; r < s.rows; r++) {
            const float *x = j->x + (first + r) * j->ldx + i;
            size_t       left = k - i;
            __m512i      high[2], low[2];
            split_floats(_mm512_maskz_loadu_ps(first_lanes(left), x), &high[0], &low[0]);
            split_floats(_mm512_maskz_loadu_ps(first_lanes(left > 16 ? left - 16 : 0), x + 16), &high[1], &low[1]);
            store_high_halves(to + r * j->step_bytes, high[0], high[1]);
            store_high_halves(to + plane + r * j->step_bytes, low[0], low[1]);
        }
}

static void prepare_strip(void *context, size_t item, int thread)
{
    (void)thread;
    const job *j = context;
    if (j->ints)
        prepare_ints(j, item * STRIP);
    else
        prepare_floats(j, item * STRIP);
}

/* ---- unpacking weights ------------------------------------------------------ */

/* A block of one panel to B tiles, `between` bytes from a step to the next: each four inputs of 16 outputs are a row of 64 bytes.
 * Rows behind the end of the block meet activations of zero; they are zeroed so that a tile is never read unwritten. */
static void unpack_block(const job *j, const nb_block *b, size_t panel, uint8_t *to, size_t between)
{
    const __m512i  nibble = _mm512_set1_epi8(15);
    const uint8_t *data = nb_packed_data(j->w, panel, b);
    for (size_t i = 0; i < (size_t)b->padded; i += j->step, to += between) {
        size_t   left = (size_t)b->padded - i, have = left < j->step ? left : j->step;
        uint8_t *row = to;
        for (size_t v = 0; v < have; v += NB_VECTOR_INPUTS, row += 128) {
            __builtin_prefetch(data + PREFETCH);
            __m512i first = _mm512_loadu_si512(data), second;
            if (j->m->kind == NB_W_INT4) {
                second = _mm512_and_si512(_mm512_srli_epi16(first, 4), nibble);
                first = _mm512_and_si512(first, nibble);
                data += 64;
            } else {
                second = _mm512_loadu_si512(data + 64);
                data += 128;
            }
            _mm512_store_si512(row, first);
            _mm512_store_si512(row + 64, second);
        }
        memset(row, 0, (j->step - have) * NB_PANEL);
    }
}

/* Inputs first .. first+count-1 of one panel of bf16 to B tiles: each two inputs are a row of 16 pairs.  Missing inputs are zero. */
static void unpack_floats(const job *j, size_t panel, size_t first, size_t count, uint8_t *to, size_t between)
{
    static const uint16_t pairs[32] = { 0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31 };
    const __m512i  order = _mm512_loadu_si512(pairs);
    const uint8_t *data = j->w->bytes + panel * j->w->panel_bytes + j->w->data_offset + first * 2 * NB_PANEL;
    for (size_t i = 0; i < count; i += STEP_FLOATS, to += between)
        for (size_t pair = 0; pair < STEP_FLOATS / 2; pair++, data += 64) {
            size_t    at = i + 2 * pair;
            __mmask32 have = at + 1 < count ? 0xffffffff : at < count ? 0xffff : 0;
            __builtin_prefetch(data + PREFETCH);
            _mm512_store_si512(to + pair * 64, _mm512_permutexvar_epi16(order, _mm512_maskz_loadu_epi16(have, data)));
        }
}

/* ---- products of tiles ------------------------------------------------------- */

/* What the next pair of panels has in memory goes to the second-level cache meanwhile: one line of each panel for each product,
 * since more would take the places that loads of tiles wait in. */
typedef struct {
    const uint8_t *at, *end; /* in the first panel of the pair; at the end nothing is left to do */
    size_t         panel_bytes;
} ahead;

static inline void fetch_ahead(ahead *a)
{
    if (a->at >= a->end) return;
    _mm_prefetch((const char *)a->at, _MM_HINT_T1);
    _mm_prefetch((const char *)a->at + a->panel_bytes, _MM_HINT_T1);
    a->at += 64;
}

/* Shapes that the tiles of this thread have now. */
typedef struct {
    size_t top, bottom;
} heights;

/* C00, C01 and A0 have `top` rows, C10, C11 and A1 `bottom` (0: they are not there). */
static void configure(const job *j, heights *now, size_t top, size_t bottom)
{
    if (now->top == top && now->bottom == bottom) return;
    _Alignas(64) nb_tile_config c = { .palette = 1 };
    static const uint8_t tiles[2][3] = { { C00, C01, A0 }, { C10, C11, A1 } };
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 3; i++) {
            size_t rows = half ? bottom : top;
            c.rows[tiles[half][i]] = (uint8_t)rows;
            c.row_bytes[tiles[half][i]] = (uint16_t)(!rows ? 0 : i < 2 ? 64 : j->step_bytes);
        }
    c.rows[B0] = c.rows[B1] = (uint8_t)(j->step_bytes / 4);
    c.row_bytes[B0] = c.row_bytes[B1] = 64;
    tile_configure(&c);
    *now = (heights){ top, bottom };
}

/* The low and the high plane of a strip times a pair of panels. */
static void multiply_ints(const uint8_t *a, size_t plane, size_t row_bytes, const uint8_t *b, size_t tile_bytes, size_t steps,
                          ahead *next)
{
    tile_zero(C00);
    tile_zero(C01);
    tile_zero(C10);
    tile_zero(C11);
    for (size_t i = 0; i < steps; i++, a += 2 * plane, b += 2 * tile_bytes) {
        tile_load(A0, a, row_bytes);
        tile_load(B0, b, 64);
        tile_signed_unsigned(C00, A0, B0);
        tile_load(B1, b + tile_bytes, 64);
        tile_signed_unsigned(C01, A0, B1);
        tile_load(A1, a + plane, row_bytes);
        tile_signed_unsigned(C10, A1, B0);
        tile_signed_unsigned(C11, A1, B1);
        fetch_ahead(next);
    }
}

/* One strip or two (the second may be lower), high and low, times a pair of panels. */
static void multiply_floats(const uint8_t *top, size_t top_plane, const uint8_t *bottom, size_t bottom_plane, const uint8_t *b,
                            size_t steps, ahead *next)
{
    const size_t tile_bytes = STEP_FLOATS * NB_PANEL * 2;
    tile_zero(C00);
    tile_zero(C01);
    if (!bottom) {
        for (size_t i = 0; i < steps; i++, top += 2 * top_plane, b += 2 * tile_bytes) {
            tile_load(B0, b, 64);
            tile_load(B1, b + tile_bytes, 64);
            tile_load(A0, top, 64);
            tile_bf16(C00, A0, B0);
            tile_bf16(C01, A0, B1);
            tile_load(A0, top + top_plane, 64);
            tile_bf16(C00, A0, B0);
            tile_bf16(C01, A0, B1);
            fetch_ahead(next);
        }
        return;
    }
    tile_zero(C10);
    tile_zero(C11);
    for (size_t i = 0; i < steps; i++, top += 2 * top_plane, bottom += 2 * bottom_plane, b += 2 * tile_bytes) {
        tile_load(A0, top, 64);
        tile_load(B0, b, 64);
        tile_bf16(C00, A0, B0);
        tile_load(B1, b + tile_bytes, 64);
        tile_bf16(C01, A0, B1);
        tile_load(A1, bottom, 64);
        tile_bf16(C10, A1, B0);
        tile_bf16(C11, A1, B1);
        fetch_ahead(next);
        tile_load(A0, top + top_plane, 64);
        tile_bf16(C00, A0, B0);
        tile_bf16(C01, A0, B1);
        tile_load(A1, bottom + bottom_plane, 64);
        tile_bf16(C10, A1, B0);
        tile_bf16(C11, A1, B1);
        fetch_ahead(next);
    }
}

/* ---- from products to totals --------------------------------------------------- */

/* The sums of C tiles in memory: [plane or strip][panel][row][output], 32-bit. */
typedef int32_t sums[2][2][STRIP][NB_PANEL];

typedef float totals[PAIR];

/* Sums that wait to be added to the totals of their rows; rows = 0: none. */
typedef struct {
    size_t         rows;
    sums          *of;
    totals        *to;
    const uint8_t *head[2];   /* ints: of the group, in each panel */
    const float   *scale;     /* ints: [rows] */
    const int32_t *zero_pair; /* ints: [rows] */
} waiting;

/* As matmul_body.h ends a block. */
static void add_ints(const job *j, waiting *w)
{
    const size_t  scale_bytes = (j->w->half_scales ? 2 : 4) * NB_PANEL;
    const int32_t middle = j->m->kind == NB_W_INT4 ? 8 : 128;
    for (int p = 0; w->rows && p < 2; p++) {
        __m512  scale = j->w->half_scales ? _mm512_cvtph_ps(_mm256_loadu_si256((const void *)w->head[p])) : _mm512_loadu_ps(w->head[p]);
        __m512i z = _mm512_set1_epi32(middle);
        if (j->w->has_zeros) z = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(w->head[p] + scale_bytes)));
        z = _mm512_or_si512(z, _mm512_slli_epi32(z, 23)); /* pairs (z, 128 z) */
        for (size_t r = 0; r < w->rows; r++) {
            __m512i low = _mm512_load_si512((*w->of)[0][p][r]), high = _mm512_load_si512((*w->of)[1][p][r]);
            __m512i sum = _mm512_add_epi32(low, _mm512_slli_epi32(high, 8));
            sum = _mm512_dpwssd_epi32(sum, z, _mm512_set1_epi32(w->zero_pair[r]));
            float *total = &w->to[r][p * NB_PANEL];
            __m512 factor = _mm512_mul_ps(scale, _mm512_set1_ps(w->scale[r]));
            _mm512_store_ps(total, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), factor, _mm512_load_ps(total)));
        }
    }
    w->rows = 0;
}

static void add_floats(waiting *w)
{
    for (size_t r = 0; r < w->rows; r++)
        for (int p = 0; p < 2; p++) {
            float *total = &w->to[r][p * NB_PANEL];
            _mm512_store_ps(total, _mm512_add_ps(_mm512_load_ps(total), _mm512_load_ps((*w->of)[r / STRIP][p][r % STRIP])));
        }
    w->rows = 0;
}

static void store_sums(sums *to, bool bottom)
{
    tile_store(C00, (*to)[0][0], 64);
    tile_store(C01, (*to)[0][1], 64);
    if (!bottom) return;
    tile_store(C10, (*to)[1][0], 64);
    tile_store(C11, (*to)[1][1], 64);
}

/* ---- a chunk of rows times pairs of panels --------------------------------------- */

typedef struct {
    _Alignas(64) totals  total[CHUNK_ROWS];
    _Alignas(64) uint8_t weights[SEGMENT_BYTES]; /* B tiles */
    _Alignas(64) sums    product[2];             /* one is made while the other waits */
} space;

/* The panels of a pair; the last pair may lack its second, and has its first twice. */
typedef struct {
    size_t panel[2];
    int    count;
} pair;

static pair find_pair(const job *j, size_t index)
{
    bool whole = 2 * index + 1 < (size_t)j->w->panels;
    return (pair){ { 2 * index, 2 * index + whole }, 1 + whole };
}

static void pair_of_ints(const job *j, size_t first, size_t rows, const pair *p, space *s, heights *now, ahead *next)
{
    const nb_packed *w = j->w;
    const size_t     tile_bytes = j->step * NB_PANEL;
    waiting          wait = { 0 };
    size_t           made = 0, step = 0; /* products so far; steps before the segment */
    for (int begin = 0, end; begin < w->blocks; begin = end) {
        size_t steps = 0;
        for (end = begin; end < w->blocks && (steps + block_steps(j, &w->block[end])) * j->step <= SEGMENT_INTS; end++) {
            for (int i = 0; i < 2; i++)
                unpack_block(j, &w->block[end], p->panel[i], s->weights + (2 * steps + (size_t)i) * tile_bytes, 2 * tile_bytes);
            steps += block_steps(j, &w->block[end]);
        }
        for (size_t row = 0; row < rows; row += STRIP) {
            strip          a = find_strip(j, first + row);
            size_t         plane = a.rows * j->step_bytes;
            const uint8_t *values = a.values + 2 * step * plane, *weights = s->weights;
            configure(j, now, a.rows, a.rows);
            for (int b = begin; b < end; b++, made++) {
                size_t n = block_steps(j, &w->block[b]);
                multiply_ints(values, plane, j->step_bytes, weights, tile_bytes, n, next);
                add_ints(j, &wait);
                store_sums(&s->product[made % 2], true);
                wait = (waiting){ .rows = a.rows, .of = &s->product[made % 2], .to = &s->total[row],
                                  .scale = a.scale + (size_t)b * a.rows, .zero_pair = a.zero_pair + (size_t)b * a.rows };
                for (int i = 0; i < 2; i++) wait.head[i] = nb_packed_head(w, p->panel[i], w->block[b].group);
                values += 2 * n * plane;
                weights += 2 * n * tile_bytes;
            }
        }
        step += steps;
    }
    add_ints(j, &wait);
}

static void pair_of_floats(const job *j, size_t first, size_t rows, const pair *p, space *s, heights *now, ahead *next)
{
    const size_t k = (size_t)j->m->k, tile_bytes = STEP_FLOATS * NB_PANEL * 2;
    waiting      wait = { 0 };
    size_t       made = 0;
    for (size_t begin = 0; begin < k; begin += SEGMENT_FLOATS) {
        size_t count = k - begin < SEGMENT_FLOATS ? k - begin : SEGMENT_FLOATS;
        size_t steps = (count + STEP_FLOATS - 1) / STEP_FLOATS;
        for (int i = 0; i < 2; i++)
            unpack_floats(j, p->panel[i], begin, count, s->weights + (size_t)i * tile_bytes, 2 * tile_bytes);
        for (size_t row = 0; row < rows; row += 2 * STRIP, made++) {
            strip  top = find_strip(j, first + row), bottom = { 0 };
            if (row + STRIP < rows) bottom = find_strip(j, first + row + STRIP);
            size_t top_plane = top.rows * j->step_bytes, bottom_plane = bottom.rows * j->step_bytes;
            size_t before = 2 * (begin / STEP_FLOATS);
            configure(j, now, top.rows, bottom.rows);
            multiply_floats(top.values + before * top_plane, top_plane,
                            bottom.rows ? bottom.values + before * bottom_plane : NULL, bottom_plane, s->weights, steps, next);
            add_floats(&wait);
            store_sums(&s->product[made % 2], bottom.rows > 0);
            wait = (waiting){ .rows = top.rows + bottom.rows, .of = &s->product[made % 2], .to = &s->total[row] };
        }
    }
    add_floats(&wait);
}

/* y = total + bias (+ y) for rows of a chunk and a pair of panels. */
static void finish(const job *j, size_t first, size_t rows, const pair *p, const totals *total)
{
    for (int i = 0; i < p->count; i++) {
        size_t    output = p->panel[i] * NB_PANEL;
        __mmask16 have = first_lanes((size_t)j->m->n - output);
        __m512    bias = j->bias ? _mm512_maskz_loadu_ps(have, j->bias + output) : _mm512_setzero_ps();
        for (size_t r = 0; r < rows; r++) {
            float *y = j->y + (first + r) * j->ldy + output;
            __m512 v = _mm512_load_ps(&total[r][i * NB_PANEL]);
            if (j->bias) v = _mm512_add_ps(v, bias);
            if (j->add) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(have, y));
            _mm512_mask_storeu_ps(y, have, v);
        }
    }
}

static size_t items_per_chunk(const job *j)
{
    return (j->pairs + j->item_pairs - 1) / j->item_pairs;
}

static void multiply_item(void *context, size_t item, int thread)
{
    (void)thread;
    const job *j = context;
    space      s;
    heights    now = { 0 };
    size_t     first = item / items_per_chunk(j) * j->chunk_rows;
    size_t     rows = j->rows - first < j->chunk_rows ? j->rows - first : j->chunk_rows;
    size_t     index = item % items_per_chunk(j) * j->item_pairs, end = index + j->item_pairs;
    if (end > j->pairs) end = j->pairs;
    for (; index < end; index++) {
        pair  p = find_pair(j, index), following = find_pair(j, index + 1 < end ? index + 1 : index);
        ahead next = { .panel_bytes = (following.panel[1] - following.panel[0]) * j->w->panel_bytes };
        next.at = nb_packed_head(j->w, following.panel[0], 0);
        next.end = index + 1 < end ? next.at + j->w->panel_bytes : next.at;
        memset(s.total, 0, rows * sizeof *s.total);
        if (j->ints)
            pair_of_ints(j, first, rows, &p, &s, &now, &next);
        else
            pair_of_floats(j, first, rows, &p, &s, &now, &next);
        finish(j, first, rows, &p, s.total);
    }
    tile_release();
}

/* ---- the call ----------------------------------------------------------------------- */

/* Pairs in an item, from the shape alone: items long enough to be worth handing out, and of equal length.  The rates are those of
 * an ordinary core, 16 bytes of weights and 256 products per nanosecond. */
static size_t choose_item_pairs(const job *j)
{
    size_t rows = j->rows < j->chunk_rows ? j->rows : j->chunk_rows;
    size_t stream = 2 * j->w->panel_bytes / 16, multiply = rows * (size_t)j->m->k * PAIR / 256;
    size_t pair_ns = (stream > multiply ? stream : multiply) + 1, item_ns = pair_ns * j->pairs / LONG_CALL_ITEMS;
    size_t wanted = (item_ns > ITEM_NS ? item_ns : ITEM_NS) / pair_ns + 1, items = (j->pairs + wanted - 1) / wanted;
    return (j->pairs + items - 1) / items;
}

static void run_pass(const nb_ops *ops, job *j)
{
    size_t strips = (j->rows + STRIP - 1) / STRIP, chunks = (j->rows + j->chunk_rows - 1) / j->chunk_rows;
    if (j->rows * (size_t)j->m->k <= SERIAL_ELEMENTS)
        for (size_t s = 0; s < strips; s++) prepare_strip(j, s, 0);
    else
        nb_parallel(ops->pool, strips, prepare_strip, j);
    j->item_pairs = choose_item_pairs(j);
    nb_parallel(ops->pool, chunks * items_per_chunk(j), multiply_item, j);
}

/* How activations are cut into steps, and the size of their prepared form. */
static void lay_out(job *j)
{
    size_t steps = 0, longest = 0;
    if (!j->ints) {
        steps = ((size_t)j->m->k + STEP_FLOATS - 1) / STEP_FLOATS;
        j->step = STEP_FLOATS;
        j->step_bytes = 2 * STEP_FLOATS;
    } else {
        for (int b = 0; b < j->w->blocks; b++)
            if ((size_t)j->w->block[b].padded > longest) longest = (size_t)j->w->block[b].padded;
        j->step = longest <= 64 ? longest : (longest / 2 + 7) / 8 * 8; /* a multiple of 8: whole vectors of packed.h */
        j->step_bytes = j->step;
        for (int b = 0; b < j->w->blocks; b++) steps += block_steps(j, &j->w->block[b]);
    }
    j->value_bytes = 2 * steps * j->step_bytes;
    j->row_bytes = j->value_bytes + (j->ints ? 8 * (size_t)j->w->blocks : 0);
    j->chunk_rows = CHUNK_BYTES / j->row_bytes / (2 * STRIP) * (2 * STRIP);
    if (j->chunk_rows > CHUNK_ROWS) j->chunk_rows = CHUNK_ROWS;
    if (j->chunk_rows < 2 * STRIP) j->chunk_rows = 2 * STRIP;
}

/* Where prepared activations live is decided as at the other levels (matmul_body.h): on the stack when they fit, else on the heap;
 * a heap without room makes ints go the way of few rows, and floats go on in passes that fit the stack. */
static void matmul(const nb_ops *ops, float *y, size_t ldy, const float *x, size_t ldx, size_t rows, const nb_matrix *m,
                   const float *bias, bool add)
{
    bool ints = m->kind != NB_W_FLOAT;
    if (ints ? rows < FEW_ROWS : m->dtype != NB_BF16) {
        nb_avx512_matmul(ops, y, ldy, x, ldx, rows, m, bias, add);
        return;
    }
    _Alignas(64) uint8_t on_stack[NB_PREPARED_ROW_BYTES + 4 * STEP_FLOATS]; /* of floats at least a row: its last step is filled up */
    uint8_t             *on_heap = NULL;
    const nb_packed     *w = m->storage;
    job j = { .m = m, .w = w, .bias = bias, .ldy = ldy, .ldx = ldx, .ints = ints, .add = add,
              .prepared = on_stack, .pairs = ((size_t)w->panels + 1) / 2 };
    lay_out(&j);
    size_t pass = PASS_BYTES / j.row_bytes / j.chunk_rows * j.chunk_rows;
    if (pass < j.chunk_rows) pass = j.chunk_rows;
    if (pass > rows) pass = rows;
    if (pass * j.row_bytes > sizeof on_stack) {
        on_heap = aligned_alloc(64, (pass * j.row_bytes + 63) / 64 * 64);
        if (on_heap) {
            j.prepared = on_heap;
        } else if (ints) {
            nb_avx512_matmul(ops, y, ldy, x, ldx, rows, m, bias, add);
            return;
        } else {
            pass = sizeof on_stack / j.row_bytes;
        }
    }
    for (size_t first = 0; first < rows; first += pass) {
        j.rows = rows - first < pass ? rows - first : pass;
        j.x = x + first * ldx;
        j.y = y + first * ldy;
        run_pass(ops, &j);
    }
    free(on_heap);
}

void nb_amx_fill_matmul(nb_ops *ops)
{
    ops->matmul = matmul;
}
