/* attention_few.h - products of a few queries with a block of tokens, straight from its page.  Part of attention_body.h.
 *
 * When a block serves no more queries than a register tile has rows (a decoded token: the heads that share a KV head), bringing
 * it to f32 in memory costs as much as the products.  Here keys are transposed in registers and used at once, and values are
 * converted where they are loaded.  Every score and every output is the chain of FMAs of vec_tile.h: the bits are the same. */
#ifndef NB_ATTENTION_FEW_H
#define NB_ATTENTION_FEW_H

/* Elements in a lane of what load_few reads: pairs of bf16, quads of codes.  0: of f32 pages there is no such form. */
static size_t elements_of_lane(const token_source *from)
{
    return !from->a || from->a->kv_type == NB_F32 ? 0 : from->a->kv_type == NB_BF16 ? 2 : 4;
}

static bool queries_are_few(const work *w, const token_source *from)
{
    size_t each = elements_of_lane(from);
    return each && w->queries <= TILE_ROWS && w->d % (each * LANES) == 0;
}

static inline __attribute__((always_inline)) vf load_few(const char *p, size_t each)
{
    return each == 2 ? vf_load_pairs((const uint16_t *)(const void *)p) : vf_load_quads((const int8_t *)p);
}

static inline __attribute__((always_inline)) vf element_of_lane(vf a, size_t each, int i)
{
    return each == 4 ? vf_of_quads(a, i) : i ? vf_second_of_pairs(a) : vf_first_of_pairs(a);
}

/* w->s [rows, BLOCK] = Q K' with n keys, the rest 0; rows and each are constants where this is inlined. */
static inline __attribute__((always_inline)) void scores_of(work *w, rows_at keys, size_t n, const rows_at next[2], size_t rows,
                                                            size_t each)
{
    for (size_t t = 0; t < BLOCK; t += LANES) {
        vf sum[TILE_ROWS];
#pragma GCC unroll 8
        for (size_t q = 0; q < rows; q++) sum[q] = vf_set(0.0f);
        for (size_t j = 0; j < w->d; j += each * LANES) {
            const float *query = w->q + j;
            size_t       byte = j * (4 / each), width = w->width;
            vf           r[LANES];
#pragma GCC unroll 16
            for (size_t i = 0; i < LANES; i++) {
                r[i] = t + i < n ? load_few(keys.p + (t + i) * keys.stride + byte, each) : vf_set(0.0f);
                if (next[0].p) {
                    vf_prefetch(next[0].p + (t + i) * next[0].stride + byte);
                    vf_prefetch(next[1].p + (t + i) * next[1].stride + byte);
                }
            }
            vf_transpose(r);
#pragma GCC unroll 16
            for (size_t i = 0; i < LANES; i++)
#pragma GCC unroll 4
                for (size_t e = 0; e < each; e++) {
                    vf key = element_of_lane(r[i], each, (int)e);
#pragma GCC unroll 8
                    for (size_t q = 0; q < rows; q++) sum[q] = vf_fma(vf_set(query[q * width + i * each + e]), key, sum[q]);
                }
        }
#pragma GCC unroll 8
        for (size_t q = 0; q < rows; q++) vf_store(w->s + q * BLOCK + t, sum[q]);
    }
}

/* o [rows, width] += P [rows, n] V [n, width], P in rows of BLOCK */
static inline __attribute__((always_inline)) void values_of(const work *w, float *o, const float *p, rows_at values, size_t n,
                                                            size_t rows, size_t each)
{
    size_t width = w->width;
    for (size_t column = 0; column < width; column += 2 * LANES) {
        vf sum[TILE_ROWS][2];
#pragma GCC unroll 8
        for (size_t q = 0; q < rows; q++) {
            sum[q][0] = vf_load(o + q * width + column);
            sum[q][1] = vf_load(o + q * width + column + LANES);
        }
        const char *from = values.p + column * (4 / each);
        for (size_t t = 0; t < n; t++, from += values.stride) {
            vf first = each == 2 ? load_bf16(from, 0, LANES) : load_i8(from, 0, LANES);
            vf second = each == 2 ? load_bf16(from, LANES, LANES) : load_i8(from, LANES, LANES);
#pragma GCC unroll 8
            for (size_t q = 0; q < rows; q++) {
                vf weight = vf_set(p[q * BLOCK + t]);
                sum[q][0] = vf_fma(weight, first, sum[q][0]);
                sum[q][1] = vf_fma(weight, second, sum[q][1]);
            }
        }
#pragma GCC unroll 8
        for (size_t q = 0; q < rows; q++) {
            vf_store(o + q * width + column, sum[q][0]);
            vf_store(o + q * width + column + LANES, sum[q][1]);
        }
    }
}

/* call(rows, each) with both as constants */
#define NB_FEW_EACH(rows, call)      \
    do {                             \
        if (each == 2) call(rows, 2);\
        else call(rows, 4);          \
    } while (0)
#if NB_TILE_ROWS > 6
#define NB_FEW_MORE(call)                  \
    case 7: NB_FEW_EACH(7, call); break;   \
    case 8: NB_FEW_EACH(8, call); break;
#else
#define NB_FEW_MORE(call)
#endif
#define NB_FEW(call)                       \
    switch (rows) {                        \
    case 1: NB_FEW_EACH(1, call); break;   \
    case 2: NB_FEW_EACH(2, call); break;   \
    case 3: NB_FEW_EACH(3, call); break;   \
    case 4: NB_FEW_EACH(4, call); break;   \
    case 5: NB_FEW_EACH(5, call); break;   \
    case 6: NB_FEW_EACH(6, call); break;   \
        NB_FEW_MORE(call)                  \
    }

/* Scores of all queries of w with tokens token .. token+n-1.  `more`: as for load_block. */
static void scores_few(work *w, const token_source *from, size_t token, size_t n, bool more)
{
    const nb_attn *a = from->a;
    size_t         each = elements_of_lane(from), rows = w->queries, size = nb_kv_element(a->kv_type);
    rows_at        keys = rows_of_page(from, a->k_offset, token, size), next[2] = { { NULL, 0 }, { NULL, 0 } };
    if (more) {
        next[0] = rows_of_page(from, a->k_offset, token + BLOCK, size);
        next[1] = rows_of_page(from, a->v_offset, token + BLOCK, size);
    }
    if (w->scaled) load_block_scales(w, from, token, n);
#define NB_SCORES(rows, each) scores_of(w, keys, n, next, rows, each)
    NB_FEW(NB_SCORES)
#undef NB_SCORES
}

/* Add to o what the first n tokens from `token` on give to `rows` queries whose weights are p. */
static void values_few(const work *w, float *o, const float *p, size_t rows, const token_source *from, size_t token, size_t n)
{
    size_t  each = elements_of_lane(from);
    rows_at values = rows_of_page(from, from->a->v_offset, token, nb_kv_element(from->a->kv_type));
#define NB_VALUES(rows, each) values_of(w, o, p, values, n, rows, each)
    NB_FEW(NB_VALUES)
#undef NB_VALUES
}

#undef NB_FEW
#undef NB_FEW_MORE
#undef NB_FEW_EACH

#endif
