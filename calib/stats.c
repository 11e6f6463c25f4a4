/* stats.c - sums over tokens, in the backend's gram kernel; here only the weights of the tokens, carrying and finishing.
 *
 * A matrix is worked on by rows and, where it is mirrored, by squares, so that no pass walks down a column.
 */
#include "calib/stats.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    BATCH = 8 * NB_GRAM_ROWS, /* rows whose weights are on the stack at a time */
    SIDE = 64,                /* of the squares that are mirrored */
};

nb_status nb_stats_init(nb_stats *s, int k, const float weights[NB_MODALITIES], nb_error *err)
{
    memset(s, 0, sizeof *s);
    size_t n = (size_t)k, square;
    bool   fits = nb_mul(n, n, &square);
    s->k = k;
    s->gram = fits ? nb_calloc_aligned(square, sizeof *s->gram) : NULL;
    s->sums = (nb_gram_sums){.h = (int64_t *)s->gram, .diagonal = nb_calloc_aligned(n, sizeof(int64_t)),
                             .sum_abs = nb_calloc_aligned(2 * n, sizeof(int64_t)), .max_abs = nb_calloc_aligned(n, sizeof(float)),
                             .work = nb_calloc_aligned(nb_gram_work(n), sizeof(float))};
    s->max_abs = s->sums.max_abs;
    memcpy(s->weights, weights, sizeof s->weights);
    if (s->gram && s->sums.diagonal && s->sums.sum_abs && s->sums.max_abs && s->sums.work) return NB_OK;
    nb_stats_free(s);
    return nb_fail(err, NB_ERR_MEMORY, "out of memory for the statistics of %d inputs (%.1f GB)", k, 8e-9 * k * k);
}

void nb_stats_free(nb_stats *s)
{
    free(s->gram);
    free(s->sums.diagonal);
    free(s->sums.sum_abs);
    free(s->sums.max_abs);
    free(s->sums.work);
    memset(s, 0, sizeof *s);
}

void nb_stats_reset(nb_stats *s, const float weights[NB_MODALITIES])
{
    size_t k = (size_t)s->k;
    memset(s->sums.h, 0, k * k * sizeof *s->sums.h);
    memset(s->sums.diagonal, 0, k * sizeof *s->sums.diagonal);
    memset(s->sums.sum_abs, 0, 2 * k * sizeof *s->sums.sum_abs);
    memset(s->max_abs, 0, k * sizeof *s->max_abs);
    memset(s->tokens, 0, sizeof s->tokens);
    memcpy(s->weights, weights, sizeof s->weights);
    s->weight = 0;
    s->pieces = 0;
}

/* ---- adding ------------------------------------------------------------------------------------------------------------ */

static void count_piece(nb_stats *s, nb_pool *pool)
{
    if (++s->pieces > NB_GRAM_PIECES) {
        nb_stats_carry(s, pool);
        s->pieces = 1;
    }
}

/* Samples are cut between pieces only, so that the pieces are those of the whole sample. */
void nb_stats_add(nb_stats *s, const nb_ops *ops, const float *x, size_t ld, const nb_sample_rows *rows)
{
    const float w[NB_TOKEN_KINDS] = {s->weights[0], s->weights[1], s->weights[2], 0};
    size_t sample = 0, row = 0; /* the next row, and whose it is */
    while (sample < rows->count) {
        float  weight[BATCH];
        size_t bounds[BATCH + 1], count = 0, first = row;
        bool   plain = true;
        bounds[0] = 0;
        while (sample < rows->count && count < BATCH) {
            size_t end = rows->bounds[sample + 1], n = end - row < NB_GRAM_ROWS ? end - row : NB_GRAM_ROWS;
            if (row + n - first > BATCH) break;
            if (n) bounds[++count] = row + n - first; /* a piece is a sample of its own to the kernel */
            for (row += n; n > 0; n--) {
                uint8_t m = rows->modality[row - n];
                assert(m < NB_TOKEN_KINDS);
                plain = plain && w[m] == 1;
                weight[row - n - first] = w[m];
                s->tokens[m]++;
            }
            if (row == end) sample++;
            count_piece(s, ops->pool);
        }
        ops->gram(ops, &s->sums, x + first * ld, ld, s->k, bounds, count, plain ? NULL : weight);
    }
}

static void carry_row(void *context, size_t i, int thread)
{
    (void)thread;
    nb_stats *s = context;
    size_t    k = (size_t)s->k;
    int64_t  *h = s->sums.h + i * k + i, *low = s->sums.h + (k - 1 - i) * k;
    nb_fixed_carry(h, &s->sums.diagonal[i]);
    for (size_t j = 0; j + i + 1 < k; j++) nb_fixed_carry(&h[j + 1], &low[j]);
    nb_fixed_carry(&s->sums.sum_abs[i], &s->sums.sum_abs[k + i]);
    if (s->sums.h[i * k + i] >= (int64_t)1 << 62) s->max_abs[i] = nb_gram_mark(s->max_abs[i], INFINITY); /* before it can wrap */
}

void nb_stats_carry(nb_stats *s, nb_pool *pool)
{
    nb_parallel(pool, (size_t)s->k, carry_row, s);
    s->pieces = 0;
}

typedef struct {
    nb_stats       *to;
    const nb_stats *from;
} merging;

static void merge_row(void *context, size_t i, int thread)
{
    (void)thread;
    const merging      *m = context;
    size_t              k = (size_t)m->to->k;
    nb_gram_sums       *a = &m->to->sums;
    const nb_gram_sums *b = &m->from->sums;
    for (size_t j = 0; j < k; j++) a->h[i * k + j] = nb_fixed_sum(a->h[i * k + j], b->h[i * k + j]);
    a->diagonal[i] = nb_fixed_sum(a->diagonal[i], b->diagonal[i]);
    for (int word = 0; word < 2; word++) a->sum_abs[(size_t)word * k + i] = nb_fixed_sum(a->sum_abs[(size_t)word * k + i], b->sum_abs[(size_t)word * k + i]);
    a->max_abs[i] = isnan(a->max_abs[i]) ? a->max_abs[i] : nb_gram_larger(a->max_abs[i], b->max_abs[i]);
}

void nb_stats_merge(nb_stats *s, nb_stats *other, nb_pool *pool)
{
    merging m = {s, other};
    assert(s->k == other->k && !memcmp(s->weights, other->weights, sizeof s->weights));
    nb_stats_carry(s, pool);
    nb_stats_carry(other, pool);
    nb_parallel(pool, (size_t)s->k, merge_row, &m);
    nb_stats_carry(s, pool);
    for (int i = 0; i < NB_TOKEN_KINDS; i++) s->tokens[i] += other->tokens[i];
}

/* *high, *low += weight times a value of any size that the words hold. */
static void add_scaled(int64_t *high, int64_t *low, int64_t from_high, int64_t from_low, double weight)
{
    double value = nb_fixed_value(from_high, from_low) * weight * 0x1p4, whole = floor(value);
    bool   fits = fabs(whole) < 0x1p61; /* what does not is marked when it is carried, on the diagonal */
    *high = nb_fixed_sum(*high, fits ? (int64_t)whole : (int64_t)1 << 61);
    *low = nb_fixed_sum(*low, (int64_t)rint((value - whole) * 0x1p52));
}

typedef struct {
    nb_stats       *to;
    const nb_stats *from;
    double          weight;
} scaled_merging;

static void merge_scaled_row(void *context, size_t i, int thread)
{
    (void)thread;
    const scaled_merging *m = context;
    size_t                k = (size_t)m->to->k, n = k - i;
    nb_gram_sums         *a = &m->to->sums;
    const nb_gram_sums   *b = &m->from->sums;
    int64_t              *high = a->h + i * k + i, *low = a->h + (n - 1) * k;
    const int64_t        *from_high = b->h + i * k + i, *from_low = b->h + (n - 1) * k;
    add_scaled(high, &a->diagonal[i], from_high[0], b->diagonal[i], m->weight);
    for (size_t j = 1; j < n; j++) add_scaled(&high[j], &low[j - 1], from_high[j], from_low[j - 1], m->weight);
    add_scaled(&a->sum_abs[i], &a->sum_abs[k + i], b->sum_abs[i], b->sum_abs[k + i], m->weight);
    if (!isnan(a->max_abs[i])) a->max_abs[i] = nb_gram_larger(a->max_abs[i], b->max_abs[i]);
}

void nb_stats_merge_weighted(nb_stats *s, const nb_stats *part, double weight, nb_pool *pool)
{
    scaled_merging m = {s, part, weight};
    assert(s->k == part->k);
    nb_parallel(pool, (size_t)s->k, merge_scaled_row, &m);
    nb_stats_carry(s, pool);
    for (int i = 0; i < NB_TOKEN_KINDS; i++) s->tokens[i] += part->tokens[i];
}

/* ---- finishing --------------------------------------------------------------------------------------------------------- */

/* The means of row i of the triangle, in the place of its high words. */
static void finish_row(void *context, size_t i, int thread)
{
    (void)thread;
    nb_stats *s = context;
    size_t    k = (size_t)s->k;
    int64_t  *h = s->sums.h + i * k + i, *low = s->sums.h + (k - 1 - i) * k;
    for (size_t j = 0; i + j < k; j++) {
        double sum = nb_fixed_value(h[j], j ? low[j - 1] : s->sums.diagonal[i]), mean = s->weight > 0 ? sum / s->weight : 0;
        memcpy(&h[j], &mean, sizeof mean);
    }
}

/* A row of squares below the diagonal. */
static void mirror_squares(void *context, size_t item, int thread)
{
    (void)thread;
    const nb_stats *s = context;
    size_t          k = (size_t)s->k, top = item * SIDE, bottom = top + SIDE < k ? top + SIDE : k;
    for (size_t left = 0; left <= top; left += SIDE)
        for (size_t i = top; i < bottom; i++)
            for (size_t j = left; j < left + SIDE && j < i; j++) s->gram[i * k + j] = s->gram[j * k + i];
}

nb_status nb_stats_check(const nb_stats *s, nb_error *err)
{
    for (int i = 0; i < s->k; i++) {
        if (isnan(s->max_abs[i])) return nb_fail(err, NB_ERR_INPUT, "input %d is not a number for some token", i);
        if (isinf(s->max_abs[i]))
            return nb_fail(err, NB_ERR_INPUT, "input %d is too large for exact statistics: the squares of %d tokens exceed 2^45", i,
                           NB_GRAM_ROWS);
    }
    return NB_OK;
}

nb_status nb_stats_finish(nb_stats *s, nb_pool *pool, nb_error *err)
{
    size_t k = (size_t)s->k;
    nb_stats_carry(s, pool);
    s->weight = 0;
    for (int i = 0; i < NB_MODALITIES; i++) s->weight += (double)s->tokens[i] * (double)s->weights[i];
    NB_TRY(nb_stats_check(s, err));
    nb_parallel(pool, k, finish_row, s);
    nb_parallel(pool, (k + SIDE - 1) / SIDE, mirror_squares, s);
    return NB_OK;
}

void nb_stats_mean_abs(const nb_stats *s, float *out)
{
    size_t k = (size_t)s->k;
    for (size_t i = 0; i < k; i++)
        out[i] = s->weight > 0 ? (float)(nb_fixed_value(s->sums.sum_abs[i], s->sums.sum_abs[k + i]) / s->weight) : 0;
}

float nb_stats_max(const nb_stats *s)
{
    float max = 0;
    for (int i = 0; i < s->k; i++) {
        if (isnan(s->max_abs[i])) return NAN; /* nothing may hide it */
        if (s->max_abs[i] > max) max = s->max_abs[i];
    }
    return max;
}
