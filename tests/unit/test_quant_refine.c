/* test_quant_refine.c - range search, coordinate descent and corrected targets against their definitions in double, and what must
 * hold for any input. */
#include "quant/gptq.h"
#include "quant/range.h"
#include "quant/refine.h"
#include "quant/mend.h"
#include "unit_quant.h"

static double loss_of(const nb_codes *q, const unit_layer *l)
{
    float *w = malloc((size_t)l->n * l->k * sizeof *w);
    nb_codes_dequantize(q, w);
    double loss = unit_loss(l->w, w, l->h, l->n, l->k);
    free(w);
    return loss;
}

static int group_of(const nb_codes *q, int column)
{
    return q->g_idx ? q->g_idx[column] : column / q->group;
}

/* Loss of the group's own part in one row: e H_gg e'. */
static double group_loss(const nb_codes *q, const unit_layer *l, int row, int g)
{
    double loss = 0.0;
    for (int i = 0; i < l->k; i++)
        for (int j = 0; j < l->k; j++) {
            if (i / q->group != g || j / q->group != g) continue;
            size_t a = (size_t)row * l->k + i, b = (size_t)row * l->k + j, at = (size_t)row * q->groups + g;
            double ei = l->w[a] - (q->codes[a] - q->zeros[at]) * (double)q->scales[at];
            double ej = l->w[b] - (q->codes[b] - q->zeros[at]) * (double)q->scales[at];
            loss += ei * l->h[(size_t)i * l->k + j] * ej;
        }
    return loss;
}

static void ranges_lose_least(void **state)
{
    (void)state;
    nb_pool *pool = unit_pool(2);
    for (int trial = 0; trial < 8; trial++) {
        unit_layer l = unit_layer_make(900 + (uint64_t)trial, 70, trial % 2 ? 80 : 96, 40, NULL); /* 80: a short last group */
        nb_grid grid = { trial % 4 == 3 ? 8 : 4, 32, trial < 4 };
        nb_codes plain, q[3];
        nb_error err;
        OK(nb_rtn(&plain, l.w, l.n, l.k, &grid, pool, &err), &err);
        for (int kind = 0; kind < 3; kind++)
            OK(nb_range_round(&q[kind], l.w, l.h, l.n, l.k, &grid, (nb_range)(NB_RANGE_MSE + kind), 0.0f, pool, &err), &err);
        double sum[4] = { 0 };
        for (int r = 0; r < l.n; r++)
            for (int g = 0; g < plain.groups; g++) {
                double before = group_loss(&plain, &l, r, g), after = group_loss(&q[2], &l, r, g);
                if (!(after <= before * (1.0 + 1e-5))) fail_msg("trial %d row %d group %d: %g, plain %g", trial, r, g, after, before);
                sum[0] += before;
                for (int kind = 0; kind < 3; kind++) sum[1 + kind] += group_loss(&q[kind], &l, r, g);
            }
        if (!(sum[3] < 0.85 * sum[0] && sum[3] < 0.97 * sum[2] && sum[2] < sum[0]))
            fail_msg("trial %d: plain %g, mse %g, energy %g, block %g", trial, sum[0], sum[1], sum[2], sum[3]);
        for (int kind = 0; kind < 3; kind++) { /* each code is the nearest for the scale that was found, each scale an f16 value */
            for (int i = 0; i < l.n * l.k; i++) {
                size_t at = (size_t)(i / l.k) * q[kind].groups + i % l.k / 32;
                assert_int_equal(q[kind].codes[i], nb_grid_code(&grid, l.w[i], q[kind].scales[at], q[kind].zeros[at]));
                NEAR(nb_f16_to_f32(nb_f32_to_f16(q[kind].scales[at])), q[kind].scales[at], 0);
            }
            nb_codes_free(&q[kind]);
        }
        nb_codes_free(&plain);
        unit_layer_free(&l);
    }
    nb_pool_free(pool);
}

/* No code of the result can move by 1, and no scale by one f16 step, to a lower loss: by the definition, in double. */
static void expect_standstill(nb_codes *q, const unit_layer *l, bool sym, bool scales)
{
    float *w = malloc((size_t)l->n * l->k * sizeof *w);
    double *g = malloc((size_t)l->k * sizeof *g);
    int maxq = (1 << q->bits) - 1;
    nb_codes_dequantize(q, w);
    for (int r = 0; r < l->n; r++) {
        double row_loss = 0.0;
        for (int i = 0; i < l->k; i++) {
            g[i] = 0.0;
            for (int j = 0; j < l->k; j++)
                g[i] += l->h[(size_t)i * l->k + j] * ((double)w[(size_t)r * l->k + j] - l->w[(size_t)r * l->k + j]);
            row_loss += g[i] * ((double)w[(size_t)r * l->k + i] - l->w[(size_t)r * l->k + i]);
        }
        for (int i = 0; i < l->k; i++)
            for (int d = -1; d <= 1; d += 2) {
                int code = q->codes[(size_t)r * l->k + i] + d;
                double step = d * (double)q->scales[(size_t)r * q->groups + group_of(q, i)];
                double change = step * (2.0 * g[i] + step * l->h[(size_t)i * l->k + i]);
                if (code >= 0 && code <= maxq && change < -1e-5 * row_loss) fail_msg("row %d column %d: code %+d changes %g of %g", r, i, d, change, row_loss);
            }
        for (int group = 0; scales && group < q->groups; group++) {
            size_t at = (size_t)r * q->groups + group;
            double slope = 0.0, curve = 0.0;
            for (int i = 0; i < l->k; i++) {
                if (group_of(q, i) != group) continue;
                double ci = q->codes[(size_t)r * l->k + i] - (double)q->zeros[at];
                slope += ci * g[i];
                for (int j = 0; j < l->k; j++)
                    if (group_of(q, j) == group)
                        curve += ci * l->h[(size_t)i * l->k + j] * (q->codes[(size_t)r * l->k + j] - (double)q->zeros[at]);
            }
            for (int d = -1; d <= 1; d += 2) {
                double step = (double)nb_f16_to_f32((uint16_t)(nb_f32_to_f16(q->scales[at]) + d)) - q->scales[at];
                double change = step * (2.0 * slope + step * curve);
                if (change < -1e-4 * row_loss) fail_msg("row %d group %d: scale %+d changes %g of %g", r, group, d, change, row_loss);
            }
        }
    }
    if (sym)
        for (size_t i = 0; i < (size_t)q->n * q->groups; i++) assert_int_equal(q->zeros[i], 1 << (q->bits - 1));
    free(w);
    free(g);
}

static void nothing_is_left_to_gain(void **state)
{
    (void)state;
    nb_pool *pool = unit_pool(2);
    for (int trial = 0; trial < 8; trial++) {
        cJSON *dead = cJSON_Parse(trial == 3 ? "[0, 7, 40]" : "[]");
        unit_layer l = unit_layer_make(300 + (uint64_t)trial, 67, 80, 150, dead);
        nb_gptq_options o = { .grid = { trial == 4 ? 8 : 4, trial == 5 ? 0 : 32, trial % 2 == 0 }, .damp = 0.01, .damp_max = 1, .block = 32,
                              .order = trial == 6 || trial == 7 ? NB_ORDER_FULL : NB_ORDER_NONE };
        nb_codes q, start;
        nb_gptq_report report;
        nb_error err;
        if (trial == 1)
            OK(nb_rtn(&q, l.w, l.n, l.k, &o.grid, pool, &err), &err);
        else
            OK(nb_gptq(&q, l.w, l.h, l.n, l.k, &o, pool, &report, &err), &err);
        if (trial >= 6) assert_non_null(q.g_idx);
        OK(nb_codes_init(&start, l.n, l.k, &o.grid, &err), &err);
        memcpy(start.codes, q.codes, (size_t)l.n * l.k);
        double before = loss_of(&q, &l);
        bool scales = trial != 2;
        for (int sweeps = 1; sweeps <= 64; sweeps *= 64) {
            nb_refine_options r = { .sweeps = sweeps, .scales = scales };
            OK(nb_refine(&q, l.w, l.h, o.grid.sym, &r, pool, &err), &err);
            double after = loss_of(&q, &l);
            if (!(after <= before)) fail_msg("trial %d: %g after %d sweeps, %g before", trial, after, sweeps, before);
            before = after;
        }
        expect_standstill(&q, &l, o.grid.sym, scales);
        for (int i = 0; i < cJSON_GetArraySize(dead); i++) /* what no token touches stays as it was rounded */
            for (int r = 0; r < l.n; r++) {
                size_t at = (size_t)r * l.k + cJSON_GetArrayItem(dead, i)->valueint;
                assert_int_equal(q.codes[at], start.codes[at]);
            }
        nb_codes_free(&q);
        nb_codes_free(&start);
        cJSON_Delete(dead);
        unit_layer_free(&l);
    }
    nb_pool_free(pool);
}

/* Few weights: descent from GPTQ against the best of all codes, tried one by one. */
static void near_the_best_of_all(void **state)
{
    (void)state;
    enum { K = 5, ROWS = 20 };
    nb_pool *pool = unit_pool(1);
    unit_layer l = unit_layer_make(55, ROWS, K, 30, NULL);
    nb_gptq_options o = { .grid = { 4, 0, true }, .damp = 0.0001, .damp_max = 1, .block = 32 };
    nb_codes q;
    nb_gptq_report report;
    nb_error err;
    OK(nb_gptq(&q, l.w, l.h, ROWS, K, &o, pool, &report, &err), &err);
    nb_refine_options r = { .sweeps = 50 };
    OK(nb_refine(&q, l.w, l.h, true, &r, pool, &err), &err);
    double got = loss_of(&q, &l), best = 0.0;
    for (int row = 0; row < ROWS; row++) {
        double least = INFINITY;
        for (int all = 0; all < 1 << (4 * K); all++) {
            double loss = 0.0, e[K];
            for (int i = 0; i < K; i++) {
                e[i] = l.w[row * K + i] - ((all >> 4 * i & 15) - 8) * (double)q.scales[row];
                for (int j = 0; j < i; j++) loss += 2.0 * e[i] * e[j] * l.h[i * K + j];
                loss += e[i] * e[i] * l.h[i * K + i];
            }
            if (loss < least) least = loss;
        }
        best += least;
    }
    assert_true(got >= best * (1.0 - 1e-9));
    if (!(got < 1.35 * best)) fail_msg("loss %g, the best of all %g", got, best);
    nb_codes_free(&q);
    unit_layer_free(&l);
    nb_pool_free(pool);
}

/* V solves V (H + lambda I) = W (H + lambda I) + W D + P, and comes nearer to what the inputs once gave. */
static void targets_solve_their_equation(void **state)
{
    (void)state;
    enum { N = 70, K = 60, TOKENS = 200 };
    nb_pool *pool = unit_pool(2);
    unit_layer l = unit_layer_make(71, N, K, TOKENS, NULL);
    uint64_t seed = 5;
    double *y = malloc(sizeof(double) * TOKENS * K), *r = malloc(sizeof(double) * TOKENS * N), *h = calloc(K * K, sizeof *h);
    float *lost = calloc(K * K, sizeof *lost), *drift = calloc(N * K, sizeof *drift), *v = malloc(sizeof(float) * N * K);
    for (int i = 0; i < TOKENS * K; i++) y[i] = l.x[i] + 0.3 * unit_normal(&seed);
    for (int i = 0; i < TOKENS * N; i++) r[i] = 0.1 * unit_normal(&seed) + 0.05 * y[i / N * K];
    for (int t = 0; t < TOKENS; t++)
        for (int j = 0; j < K; j++) {
            for (int i = 0; i < K; i++) {
                h[i * K + j] += y[t * K + i] * y[t * K + j] / TOKENS;
                lost[i * K + j] += (float)((l.x[t * K + i] - y[t * K + i]) * y[t * K + j] / TOKENS);
            }
            for (int i = 0; i < N; i++) drift[i * K + j] += (float)(r[t * N + i] * y[t * K + j] / TOKENS);
        }
    for (int with = 0; with < 2; with++) {
        nb_error err;
        memcpy(v, l.w, sizeof(float) * N * K);
        OK(nb_mend(v, h, lost, with ? drift : NULL, N, K, 0.02, pool, &err), &err);
        double lambda = 0.0, before = 0.0, after = 0.0;
        for (int i = 0; i < K; i++) lambda += 0.02 * h[i * K + i] / K;
        for (int i = 0; i < N; i++)
            for (int j = 0; j < K; j++) {
                double left = lambda * ((double)v[i * K + j] - l.w[i * K + j]), right = with ? drift[i * K + j] : 0.0;
                for (int m = 0; m < K; m++) {
                    left += ((double)v[i * K + m] - l.w[i * K + m]) * h[m * K + j];
                    right += (double)l.w[i * K + m] * lost[m * K + j];
                }
                NEAR(left, right, 2e-5);
            }
        for (int t = 0; t < TOKENS; t++)
            for (int i = 0; i < N; i++) {
                double want = with ? r[t * N + i] : 0.0, a = 0.0, b = 0.0;
                for (int j = 0; j < K; j++) {
                    want += (double)l.w[i * K + j] * l.x[t * K + j];
                    a += (double)l.w[i * K + j] * y[t * K + j];
                    b += (double)v[i * K + j] * y[t * K + j];
                }
                before += (want - a) * (want - a);
                after += (want - b) * (want - b);
            }
        assert_true(after < 0.9 * before);
    }
    free(y);
    free(r);
    free(h);
    free(lost);
    free(drift);
    free(v);
    unit_layer_free(&l);
    nb_pool_free(pool);
}

static void same_bits_for_any_number_of_threads(void **state)
{
    (void)state;
    unit_layer l = unit_layer_make(17, 150, 300, 60, NULL);
    nb_grid grid = { 4, 64, false };
    nb_codes q[3];
    float *v[3], *lost = malloc(sizeof(float) * 300 * 300);
    for (int i = 0; i < 300 * 300; i++) lost[i] = (float)l.h[i] * 0.01f;
    for (int i = 0; i < 3; i++) {
        nb_error err;
        nb_pool *pool = unit_pool(1 << i);
        nb_refine_options r = { .sweeps = 4, .scales = true, .damp = 0.01 };
        OK(nb_range_round(&q[i], l.w, l.h, l.n, l.k, &grid, NB_RANGE_BLOCK, 0.0f, pool, &err), &err);
        OK(nb_refine(&q[i], l.w, l.h, false, &r, pool, &err), &err);
        unit_same_codes(&q[0], &q[i]);
        v[i] = malloc(sizeof(float) * 150 * 300);
        memcpy(v[i], l.w, sizeof(float) * 150 * 300);
        OK(nb_mend(v[i], l.h, lost, NULL, l.n, l.k, 0.01, pool, &err), &err);
        assert_memory_equal(v[0], v[i], sizeof(float) * 150 * 300);
        nb_pool_free(pool);
    }
    for (int i = 0; i < 3; i++) {
        nb_codes_free(&q[i]);
        free(v[i]);
    }
    free(lost);
    unit_layer_free(&l);
}

static void hostile_numbers(void **state)
{
    (void)state;
    enum { N = 5, K = 80 };
    nb_error err;
    nb_pool *pool = unit_pool(2);
    float w[N * K], v[N * K], lost[K * K];
    double h[K * K];
    for (int kind = 0; kind < 8; kind++)
        for (int weights = 0; weights < 5; weights++) {
            uint64_t seed = 100;
            for (int i = 0; i < N * K; i++) {
                float x = unit_normal(&seed);
                w[i] = weights == 0 ? x * 0.05f : weights == 1 ? 0.0f : weights == 2 ? 0.25f : weights == 3 ? x * 1e-30f : i % 9 ? x : 65504.0f;
            }
            for (int i = 0; i < K; i++)
                for (int j = 0; j < K; j++) {
                    double same = i == j;
                    const double by_kind[] = { 0.0, 1.0, same, same ? 1.0 : 10.0 /* indefinite */, (double)((i + 1) * (j + 1)) * 1e30,
                                               same ? 1e-300 : 0.0, i / 40 == j / 40 && i >= 40 ? 1e-30 : 0.0,
                                               i == 3 && same ? 1e60 : same ? 1e-60 : 1e90 /* nonsense */ };
                    h[i * K + j] = by_kind[kind];
                    lost[i * K + j] = (float)fmin(by_kind[kind] * 0.1, 1e30);
                }
            for (int variant = 0; variant < 8; variant++) {
                nb_grid grid = { variant & 1 ? 8 : 4, variant & 2 ? 32 : 0, variant & 4 };
                nb_refine_options r = { .sweeps = 5, .scales = true, .damp = variant & 1 ? 0.01 : 0.0 };
                nb_codes q;
                OK(nb_range_round(&q, w, h, N, K, &grid, (nb_range)(variant % 4), 0.0f, pool, &err), &err);
                OK(nb_refine(&q, w, h, grid.sym, &r, pool, &err), &err);
                int maxq = (1 << q.bits) - 1;
                for (int i = 0; i < N * K; i++) assert_true(q.codes[i] <= maxq);
                for (int i = 0; i < N * q.groups; i++) assert_true(q.scales[i] > 0.0f && q.scales[i] <= 65504.0f && q.zeros[i] <= maxq);
                nb_codes_free(&q);
            }
            memcpy(v, w, sizeof v);
            OK(nb_mend(v, h, lost, NULL, N, K, 0.01, pool, &err), &err);
            for (int i = 0; i < N * K; i++) assert_true(fabsf(v[i]) <= 65504.0f);
        }
    nb_codes q;
    nb_grid grid = { 4, 32, true };
    nb_refine_options r = { .sweeps = 1 };
    h[3 * K + 4] = NAN;
    FAILS(nb_range_round(&q, w, h, N, K, &grid, NB_RANGE_BLOCK, 0.0f, pool, &err), NB_ERR_INPUT, "Gram matrix [3, 4]", &err);
    FAILS(nb_mend(v, h, lost, NULL, N, K, 0.01, pool, &err), NB_ERR_INPUT, "Gram matrix [3, 4]", &err);
    OK(nb_rtn(&q, w, N, K, &grid, pool, &err), &err);
    FAILS(nb_refine(&q, w, h, true, &r, pool, &err), NB_ERR_INPUT, "Gram matrix [3, 4]", &err);
    h[3 * K + 4] = 0.0;
    w[2 * K + 7] = NAN;
    FAILS(nb_refine(&q, w, h, true, &r, pool, &err), NB_ERR_INPUT, "weight [2, 7]", &err);
    nb_codes_free(&q);
    FAILS(nb_range_round(&q, w, h, N, K, &grid, NB_RANGE_ENERGY, 0.0f, pool, &err), NB_ERR_INPUT, "weight [2, 7]", &err);
    assert_null(q.codes);
    w[2 * K + 7] = 0.0f;
    r.damp = -1.0;
    OK(nb_rtn(&q, w, N, K, &grid, pool, &err), &err);
    FAILS(nb_refine(&q, w, h, true, &r, pool, &err), NB_ERR_ARGUMENT, "damping -1", &err);
    nb_codes_free(&q);
    nb_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_lose_least),
        cmocka_unit_test(nothing_is_left_to_gain),
        cmocka_unit_test(near_the_best_of_all),
        cmocka_unit_test(targets_solve_their_equation),
        cmocka_unit_test(same_bits_for_any_number_of_threads),
        cmocka_unit_test(hostile_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
