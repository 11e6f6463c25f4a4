/* awq.c - the search for AWQ's scale per input channel.
 *
 * Every candidate s is judged by the loss it was made for, L(s) = tr(dW H dW') with dW = W - Q(W s) / s, of all the matrices
 * that share the input.  The candidates differ from AutoAWQ's in three ways: s = 1 is one of them, both families (with and
 * without the weight statistic) are tried, and r = 1 is.  Clipping is another file's idea (awq_clip.c).
 *
 * Cost.  A loss takes rows * k^2 / 2 multiply-adds.  Forty of them on all rows of a 7B model's layer would take longer than
 * everything else together, and the rows agree on which channels matter: when the work passes SEARCH_WORK, rows at a fixed
 * stride stand for all.  f32 is enough to compare candidates; the two losses reported are in double.
 */
#include "quant/awq.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/float.h"
#include "quant/linalg.h"

enum { ROW_TILE = 64, COLUMN_TILE = 256, MIN_ROWS = 256 };
static const double SEARCH_WORK = 8589934592.0; /* rows * k^2: 2^13 rows at 1024 inputs, 668 at 3584 */

typedef struct {
    const nb_awq_options *options;
    const float *const   *consumers;
    const int            *rows;
    int                   count, k, total; /* total: rows of all consumers */
    const double         *h;
    nb_pool              *pool;
    /* candidates */
    float  *x, *weight; /* [k] statistics; x is 0 on dead channels */
    float  *s, *best;   /* [k] */
    /* sample */
    int     sampled;
    float  *w;          /* [sampled, k] */
    float  *error;      /* [sampled, k] W - Q(W s) / s */
    float  *h32;        /* [k, k] H / max diag H */
    double *partial;    /* [tiles], or [tiles, k] for the weight statistic */
    float  *group;      /* [threads, k] one group of W s */
    /* one whole consumer, for the final losses */
    const float *whole; /* [whole_rows, k] */
    int     whole_rows;
    float  *rounded;    /* [whole_rows, k] Q(W s) / s */
} search;

static const float *row_of(const search *a, int row)
{
    int i = 0;
    while (row >= a->rows[i]) row -= a->rows[i++];
    return a->consumers[i] + (size_t)row * a->k;
}

static int tiles_of(int rows)
{
    return (rows + ROW_TILE - 1) / ROW_TILE;
}

static int group_size(const search *a)
{
    return a->options->grid.group > 0 && a->options->grid.group < a->k ? a->options->grid.group : a->k;
}

/* ---- statistics ------------------------------------------------------------------------------------------------------ */

/* |w| over the largest of its group, summed over a tile of rows. */
static void sum_magnitudes(void *context, size_t item, int thread)
{
    (void)thread;
    const search *a = context;
    int first = (int)item * ROW_TILE, last = first + ROW_TILE < a->total ? first + ROW_TILE : a->total;
    double *sum = a->partial + item * (size_t)a->k;
    for (int r = first; r < last; r++) {
        const float *w = row_of(a, r);
        for (int begin = 0; begin < a->k; begin += group_size(a)) {
            int end = begin + group_size(a) < a->k ? begin + group_size(a) : a->k;
            float largest = 0.0f;
            for (int c = begin; c < end; c++) largest = fmaxf(largest, fabsf(w[c]));
            if (largest > 0.0f)
                for (int c = begin; c < end; c++) sum[c] += fabsf(w[c]) / largest;
        }
    }
}

/* Replace each value by the mean over its tied channels. */
static nb_status average_tied(float *values, const int32_t *tie, int k, nb_error *err)
{
    double *sum;
    int *members;
    NB_TRY(nb_alloc(&sum, (size_t)k, sizeof *sum, "AWQ tied channels", err));
    nb_status status = nb_alloc(&members, (size_t)k, sizeof *members, "AWQ tied channels", err);
    if (status == NB_OK) {
        for (int c = 0; c < k; c++) sum[tie[c]] += values[c], members[tie[c]]++;
        for (int c = 0; c < k; c++) values[c] = (float)(sum[tie[c]] / members[tie[c]]);
    }
    free(sum);
    free(members);
    return status;
}

/* x relative to its mean, and both statistics with a floor: 1e-4 keeps powers of quiet channels finite, as AutoAWQ does. */
static nb_status prepare_statistics(search *a, const float *mean_abs, const int32_t *tie, nb_error *err)
{
    size_t k = (size_t)a->k, tiles = (size_t)tiles_of(a->total);
    NB_TRY(nb_alloc(&a->partial, tiles * k, sizeof *a->partial, "AWQ weight statistic", err));
    nb_parallel(a->pool, tiles, sum_magnitudes, a);
    for (int c = 0; c < a->k; c++) {
        double sum = 0.0;
        for (size_t t = 0; t < tiles; t++) sum += a->partial[t * k + (size_t)c];
        a->weight[c] = (float)(sum / a->total);
        a->x[c] = mean_abs[c];
    }
    if (tie) {
        NB_TRY(average_tied(a->x, tie, a->k, err));
        NB_TRY(average_tied(a->weight, tie, a->k, err));
    }
    double mean = 0.0;
    int live = 0;
    for (int c = 0; c < a->k; c++)
        if (a->x[c] > 0.0f) mean += a->x[c], live++;
    for (int c = 0; c < a->k; c++) {
        if (a->x[c] > 0.0f) a->x[c] = (float)fmax(a->x[c] / (mean / live), 1e-4);
        a->weight[c] = fmaxf(a->weight[c], 1e-4f);
    }
    return NB_OK;
}

/* s = x^r / w^q over live channels, centred so that largest * smallest = 1.  The limits keep the producer, which is divided
 * by s and stored in f16 or bf16, among normal numbers. */
static void make_candidate(search *a, float r, float q)
{
    float smallest = INFINITY, largest = 0.0f;
    for (int c = 0; c < a->k; c++) {
        if (a->x[c] == 0.0f) continue;
        a->s[c] = powf(a->x[c], r) / powf(a->weight[c], q);
        smallest = fminf(smallest, a->s[c]);
        largest = fmaxf(largest, a->s[c]);
    }
    for (int c = 0; c < a->k; c++) {
        float s = a->x[c] == 0.0f ? 1.0f : a->s[c] / sqrtf(largest * smallest);
        a->s[c] = nb_f16_to_f32(nb_f32_to_f16(fminf(fmaxf(s, 1.0f / 256), 256.0f)));
    }
}

/* ---- loss of a candidate --------------------------------------------------------------------------------------------- */

/* out = Q(w s) / s for one row; group: scratch [k]. */
static void round_scaled(const search *a, const float *w, float *group, float *out)
{
    const nb_grid *grid = &a->options->grid;
    float maxq = (float)((1 << grid->bits) - 1);
    for (int begin = 0; begin < a->k; begin += group_size(a)) {
        int count = a->k - begin < group_size(a) ? a->k - begin : group_size(a);
        const float *s = a->s + begin;
        float scale;
        uint8_t zero;
        for (int i = 0; i < count; i++) group[i] = w[begin + i] * s[i];
        nb_grid_fit(grid, group, count, 1.0f, &scale, &zero);
        for (int i = 0; i < count; i++)
            out[begin + i] = nb_round_within(group[i] / scale, (float)-zero, maxq - (float)zero) * scale / s[i];
    }
}

/* As in nb_gram_loss, symmetry halves the work: d_c . (H_cc d_c + 2 sum_{b < c} H_bc d_b), with b < c one product. */
static void sample_tile(void *context, size_t item, int thread)
{
    const search *a = context;
    int k = a->k, first = (int)item * ROW_TILE, rows = a->sampled - first < ROW_TILE ? a->sampled - first : ROW_TILE;
    float product[ROW_TILE * COLUMN_TILE], *error = a->error + (size_t)first * k;
    double loss = 0.0;
    for (int r = 0; r < rows; r++) {
        const float *w = a->w + (size_t)(first + r) * k;
        float *e = error + (size_t)r * k;
        round_scaled(a, w, a->group + (size_t)thread * k, e);
        for (int c = 0; c < k; c++) e[c] = w[c] - e[c];
    }
    for (int c = 0; c < k; c += COLUMN_TILE) {
        int count = k - c < COLUMN_TILE ? k - c : COLUMN_TILE;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, count, count, 1.0f, error + c, k,
                    a->h32 + (size_t)c * k + c, k, 0.0f, product, COLUMN_TILE);
        if (c > 0)
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, count, c, 2.0f, error, k, a->h32 + c, k, 1.0f,
                        product, COLUMN_TILE);
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < count; i++) loss += (double)error[(size_t)r * k + c + i] * product[r * COLUMN_TILE + i];
    }
    a->partial[item] = loss;
}

static double sample_loss(search *a)
{
    int tiles = tiles_of(a->sampled);
    nb_parallel_blas(a->pool, (size_t)tiles, sample_tile, a);
    double loss = 0.0;
    for (int t = 0; t < tiles; t++) loss += a->partial[t];
    return loss;
}

static void round_whole_tile(void *context, size_t item, int thread)
{
    const search *a = context;
    int first = (int)item * ROW_TILE, last = first + ROW_TILE < a->whole_rows ? first + ROW_TILE : a->whole_rows;
    for (int r = first; r < last; r++)
        round_scaled(a, a->whole + (size_t)r * a->k, a->group + (size_t)thread * a->k, a->rounded + (size_t)r * a->k);
}

/* The loss of a->s over all rows of all consumers, in double. */
static nb_status whole_loss(search *a, double *loss, nb_error *err)
{
    *loss = 0.0;
    for (int i = 0; i < a->count; i++) {
        a->whole = a->consumers[i];
        a->whole_rows = a->rows[i];
        nb_parallel(a->pool, (size_t)tiles_of(a->whole_rows), round_whole_tile, a);
        *loss += nb_gram_loss(a->whole, a->rounded, a->h, a->whole_rows, a->k, a->pool);
    }
    return isnan(*loss) ? nb_fail(err, NB_ERR_MEMORY, "AWQ: no memory for the loss of %d rows", a->total) : NB_OK;
}

/* ---- search ---------------------------------------------------------------------------------------------------------- */

static nb_status prepare_sample(search *a, nb_error *err)
{
    size_t k = (size_t)a->k;
    double room = SEARCH_WORK / ((double)a->k * a->k);
    a->sampled = a->total;
    if (a->sampled > MIN_ROWS && a->sampled > room) a->sampled = room > MIN_ROWS ? (int)room : MIN_ROWS;
    NB_TRY(nb_alloc(&a->w, (size_t)a->sampled * k, sizeof *a->w, "AWQ sample of weights", err));
    NB_TRY(nb_alloc(&a->error, (size_t)a->sampled * k, sizeof *a->error, "AWQ rounding errors", err));
    NB_TRY(nb_alloc(&a->h32, k * k, sizeof *a->h32, "AWQ Gram matrix", err));
    for (int r = 0; r < a->sampled; r++)
        memcpy(a->w + (size_t)r * k, row_of(a, (int)((int64_t)r * a->total / a->sampled)), k * sizeof *a->w);
    double largest = 0.0;
    for (size_t c = 0; c < k; c++) largest = fmax(largest, a->h[c * k + c]);
    for (size_t i = 0; i < k * k; i++) a->h32[i] = largest > 0.0 ? (float)(a->h[i] / largest) : 0.0f;
    return NB_OK;
}

static nb_status allocate(search *a, float *s, nb_error *err)
{
    size_t k = (size_t)a->k;
    int widest = 0;
    for (int i = 0; i < a->count; i++) widest = a->rows[i] > widest ? a->rows[i] : widest;
    a->s = s;
    NB_TRY(nb_alloc(&a->x, k, sizeof *a->x, "AWQ input statistic", err));
    NB_TRY(nb_alloc(&a->weight, k, sizeof *a->weight, "AWQ weight statistic", err));
    NB_TRY(nb_alloc(&a->best, k, sizeof *a->best, "AWQ scales", err));
    NB_TRY(nb_alloc(&a->rounded, (size_t)widest * k, sizeof *a->rounded, "AWQ rounded weights", err));
    return nb_alloc(&a->group, (size_t)nb_pool_threads(a->pool) * k, sizeof *a->group, "AWQ groups", err);
}

static void try_candidate(search *a, float r, float q, double *least, nb_awq_report *report)
{
    make_candidate(a, r, q);
    double loss = sample_loss(a);
    if (!(loss < *least)) return;
    *least = loss;
    report->ratio = r;
    memcpy(a->best, a->s, (size_t)a->k * sizeof *a->s);
}

static nb_status run_search(search *a, float *s, const float *mean_abs, const int32_t *tie, nb_awq_report *report,
                            nb_error *err)
{
    int points = a->options->points;
    NB_TRY(allocate(a, s, err));
    NB_TRY(prepare_statistics(a, mean_abs, tie, err));
    NB_TRY(prepare_sample(a, err));
    for (int c = 0; c < a->k; c++) s[c] = a->best[c] = 1.0f;
    NB_TRY(whole_loss(a, &report->plain_loss, err));
    double least = sample_loss(a);
    for (int i = 1; i <= points; i++) try_candidate(a, (float)i / (float)points, 0.0f, &least, report);
    if (a->options->duo) /* r = 1 is in the family above */
        for (int i = 0; i < points; i++)
            try_candidate(a, (float)i / (float)points, 1.0f - (float)i / (float)points, &least, report);
    report->loss = report->plain_loss;
    if (report->ratio >= 0.0) {
        memcpy(s, a->best, (size_t)a->k * sizeof *s);
        NB_TRY(whole_loss(a, &report->loss, err));
    }
    if (report->loss >= report->plain_loss) {
        for (int c = 0; c < a->k; c++) s[c] = 1.0f;
        report->loss = report->plain_loss;
        report->ratio = -1.0;
    }
    return NB_OK;
}

static nb_status check_arguments(const search *a, const float *mean_abs, const int32_t *tie, nb_error *err)
{
    NB_TRY(nb_grid_check(&a->options->grid, err));
    if (a->options->points <= 0 || a->options->points > 1000)
        return nb_fail(err, NB_ERR_ARGUMENT, "AWQ: %d ratios cannot be tried: use 20", a->options->points);
    if (a->count <= 0 || a->k <= 0) return nb_fail(err, NB_ERR_ARGUMENT, "AWQ: there is no matrix to scale");
    for (int c = 0; c < a->k; c++) {
        if (!(mean_abs[c] >= 0.0f) || !isfinite(mean_abs[c]))
            return nb_fail(err, NB_ERR_INPUT, "AWQ: the mean |input| of channel %d is %g: an input of this layer overflowed or "
                           "is NaN; check the checkpoint and the calibration data", c, (double)mean_abs[c]);
        if (tie && (tie[c] < 0 || tie[c] >= a->k))
            return nb_fail(err, NB_ERR_ARGUMENT, "AWQ: channel %d is tied to channel %d of %d", c, (int)tie[c], a->k);
    }
    NB_TRY(nb_check_gram(a->h, a->k, a->pool, err));
    for (int i = 0; i < a->count; i++) {
        if (a->rows[i] <= 0) return nb_fail(err, NB_ERR_ARGUMENT, "AWQ: matrix %d has %d rows", i, a->rows[i]);
        if (nb_check_weights(a->consumers[i], a->rows[i], a->k, err) != NB_OK)
            return nb_error_within(err, "matrix %d of the %d that share an input", i + 1, a->count);
    }
    return NB_OK;
}

nb_status nb_awq_search(float *s, const float *const *consumers, const int *rows, int count, int k, const double *h,
                        const float *mean_abs, const int32_t *tie, const nb_awq_options *options, nb_pool *pool,
                        nb_awq_report *report, nb_error *err)
{
    search a = { .options = options, .consumers = consumers, .rows = rows, .count = count, .k = k, .h = h, .pool = pool };
    *report = (nb_awq_report){ .ratio = -1.0 };
    NB_TRY(check_arguments(&a, mean_abs, tie, err));
    for (int i = 0; i < count; i++)
        if (__builtin_add_overflow(a.total, rows[i], &a.total))
            return nb_fail(err, NB_ERR_ARGUMENT, "AWQ: the matrices that share an input have more than 2^31 rows");
    nb_status status = run_search(&a, s, mean_abs, tie, report, err);
    free(a.x);
    free(a.weight);
    free(a.best);
    free(a.w);
    free(a.error);
    free(a.h32);
    free(a.partial);
    free(a.group);
    free(a.rounded);
    return status;
}
