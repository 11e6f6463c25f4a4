/* Measured modality weights against their definition, written out in double over inputs that a tap sees. */
#include "unit.h"

#include "quant/float_layer.h"
#include "quant/grid.h"
#include "quant/modality.h"
#include "quant/plain.h"

static nb_pool     *pool;
static nb_ops       ops;
static const nb_grid grid = {.bits = 4, .group = 128};

typedef struct {
    const nb_float_layer *f;
    double                sums[2][NB_SITES][NB_MODALITIES];
} seen;

static double squared_output(const float *w, int n, int k, const float *x)
{
    double sum = 0;
    for (int r = 0; r < n; r++) {
        double y = 0;
        for (int i = 0; i < k; i++) y += (double)w[(size_t)r * (size_t)k + (size_t)i] * (double)x[i];
        sum += y * y;
    }
    return sum;
}

static void watch(void *context, nb_site site, const float *x, size_t ld, int k, const nb_sample_rows *rows)
{
    seen *s = context;
    for (int i = nb_site_first[site]; i < nb_site_first[site] + nb_site_count[site]; i++) {
        nb_error     err;
        nb_codes     codes;
        int          n = s->f->n[i];
        size_t       count = (size_t)n * (size_t)k;
        float       *w = s->f->w[i], *d = malloc(count * sizeof *d);
        OK(nb_rtn(&codes, w, n, k, &grid, pool, &err), &err);
        nb_codes_dequantize(&codes, d);
        for (size_t j = 0; j < count; j++) d[j] = w[j] - d[j];
        for (size_t r = 0; r < rows->bounds[rows->count]; r++) {
            s->sums[0][site][rows->modality[r]] += squared_output(w, n, k, x + r * ld);
            s->sums[1][site][rows->modality[r]] += squared_output(d, n, k, x + r * ld);
        }
        nb_codes_free(&codes);
        free(d);
    }
}

static void weights_are_what_they_claim(void **state)
{
    (void)state;
    char               model[1024], chats[1024];
    nb_error           err;
    nb_modality_report r;
    nb_float_model          source;
    nb_samples         samples;
    nb_plain           plain;
    nb_buf             notes = {0};
    double             sums[NB_MODALITIES] = {0};
    snprintf(model, sizeof model, "%s", unit_path("tools/demo/model"));
    snprintf(chats, sizeof chats, "%s", unit_path("tools/demo/calib/chat.jsonl"));
    nb_samples_options data = {.path = chats, .samples = 2, .dataset = {.need_answer = true}};
    OK(nb_modality_measure(&r, &ops, model, NULL, 0, &data, &grid, &err), &err);
    OK(nb_float_model_open(&source, &ops, model, NULL, 0, &notes, &notes, &err), &err);
    OK(nb_plain_scan(&plain, source.model->checkpoint, &source.model->config, &err), &err);
    data.embed = true;
    OK(nb_samples_load(&samples, source.model, &data, &err), &err);
    OK(nb_samples_embed(&samples, source.model, &err), &err);
    int layers = source.model->config.layers;
    for (int i = 0; i < layers; i++) {
        nb_float_layer f;
        nb_layer       packed;
        nb_linear      linears[NB_LINEARS];
        seen           s = {.f = &f};
        nb_sample_tap  tap = {.site = watch, .context = &s};
        OK(nb_float_layer_read(&f, source.model, &plain, i, &err), &err);
        for (int j = 0; j < NB_LINEARS; j++) OK(nb_float_layer_floats(&f, j, ops.pool, &err), &err);
        for (int j = 0; j < NB_LINEARS; j++) linears[j] = (nb_linear){.weights = f.source[j].weights, .bias = j <= NB_V ? f.bias[j] : NULL};
        OK(nb_layer_pack(&ops, &packed, &source.model->config, f.norm[0], f.norm[1], linears, &err), &err);
        OK(nb_samples_layer(&samples, source.model, &packed, &tap, true, &err), &err);
        nb_layer_release(&ops, &packed);
        nb_float_layer_free(&f);
        for (int site = 0; site < NB_SITES; site++)
            for (int m = 0; m < NB_MODALITIES; m++)
                if (s.sums[0][site][m] > 0) sums[m] += s.sums[1][site][m] / s.sums[0][site][m] / (NB_SITES * layers);
    }
    double all = 0, mean = 0;
    for (int m = 0; m < NB_MODALITIES; m++) {
        assert_int_equal(r.tokens[m], samples.by_modality[m]);
        if (!r.tokens[m]) {
            assert_true(isnan(r.error[m]) && r.weights[m] == 1);
            continue;
        }
        NEAR(r.error[m], sums[m], 1e-3 * sums[m]);
        mean += (double)r.tokens[m] * sums[m], all += (double)r.tokens[m];
    }
    assert_true(r.tokens[0] && r.tokens[1] && mean > 0);
    for (int m = 0; m < NB_MODALITIES; m++)
        if (r.tokens[m]) NEAR(r.weights[m], sums[m] * all / mean, 2e-3);
    nb_samples_free(&samples);
    nb_float_model_close(&source);
    nb_buf_free(&notes);
}

int main(void)
{
    nb_error err;
    if (nb_pool_new(&pool, 2, &err)) return 1;
    nb_ops_init(&ops, nb_isa_detect(NB_ISA_LEVELS - 1), pool);
    const struct CMUnitTest tests[] = {cmocka_unit_test(weights_are_what_they_claim)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    nb_pool_free(pool);
    return failed;
}
