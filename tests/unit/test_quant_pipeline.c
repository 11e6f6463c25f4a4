/* Quantizing the demo model with eight samples: what is written is what was solved, loads as a model, and is the same for any
 * number of threads; what cannot be done is refused and leaves nothing. */
#include "unit.h"

#include <dirent.h>
#include <sys/stat.h>

#include "calib/stats.h"
#include "quant/float_layer.h"
#include "quant/smooth.h"
#include "quant_folder.h"

static nb_pool *pool;
static nb_ops   ops;

static int open_all(void **state)
{
    nb_error err;
    if (make_folder(state) || nb_pool_new(&pool, 2, &err)) return -1;
    nb_ops_init(&ops, nb_isa_detect(NB_ISA_LEVELS - 1), pool);
    return 0;
}

static int close_all(void **state)
{
    nb_pool_free(pool);
    return remove_folder(state);
}

static nb_quantize_options request(nb_method method, const char *out)
{
    bool awq = method == NB_METHOD_AWQ;
    return (nb_quantize_options){
        .model_dir = source, .out_dir = in_folder(out), .method = method, .grid = {.bits = 4, .group = 64, .sym = !awq},
        .format = awq ? NB_FORMAT_AWQ : NB_FORMAT_GPTQ, .awq_points = 6, .awq_duo = true, .awq_clip = true, .damp = 0.01,
        .damp_max = 1, .block = 128, .true_sequential = true, .propagate_quantized = true, .modality_weights = {1, 1, 1},
        .data = {.path = chats, .samples = 8, .dataset = {.need_answer = true}}, .shard_size = 4000000,
        .recipe_json = "{\"a\": 1}",
    };
}

/* sum p (log p - log q) of two rows of logits. */
static double divergence(const float *p, const float *q, size_t n)
{
    double top_p = -INFINITY, top_q = -INFINITY, sum_p = 0, sum_q = 0, d = 0;
    for (size_t i = 0; i < n; i++) top_p = fmax(top_p, p[i]), top_q = fmax(top_q, q[i]);
    for (size_t i = 0; i < n; i++) sum_p += exp(p[i] - top_p), sum_q += exp(q[i] - top_q);
    for (size_t i = 0; i < n; i++)
        d += exp(p[i] - top_p) / sum_p * (p[i] - top_p - log(sum_p) - q[i] + top_q + log(sum_q));
    return d;
}

/* Divergence of the second model from the first, mean over all tokens of some other samples; more than 0.01 counts as that, or a
 * handful of tokens would outweigh all others. */
static double mean_divergence(const char *a, const char *b)
{
    nb_error    err;
    float      *all[2];
    size_t      total = 0, vocab = 0;
    const char *const dirs[2] = {a, b};
    for (int m = 0; m < 2; m++) {
        nb_model          *model;
        nb_samples         s;
        nb_scratch        *scratch;
        nb_samples_options o = {.path = chats, .samples = 40, .skip = 20};
        OK(nb_model_open(&model, dirs[m], &ops, 0, &err), &err);
        OK(nb_samples_load(&s, model, &o, &err), &err);
        OK(nb_samples_embed(&s, model, &err), &err);
        for (int l = 0; l < model->config.layers; l++) OK(nb_samples_layer(&s, model, &model->layers[l], NULL, true, &err), &err);
        size_t longest = 0, done = 0;
        vocab = (size_t)model->config.vocab;
        total = s.tokens * vocab;
        all[m] = malloc(total * sizeof(float));
        for (size_t i = 0; i < s.count; i++) longest = s.prompts[i].count > longest ? s.prompts[i].count : longest;
        OK(nb_scratch_new(&scratch, model, longest, &err), &err);
        for (size_t i = 0; i < s.count; done += s.prompts[i++].count)
            nb_head_forward(model, scratch, s.hidden[i], s.prompts[i].count, all[m] + done * vocab);
        nb_scratch_free(scratch);
        nb_samples_free(&s);
        nb_model_close(model);
    }
    double d = 0;
    for (size_t r = 0; r < total / vocab; r++) d += fmin(divergence(all[0] + r * vocab, all[1] + r * vocab, vocab), 0.01) / (double)(total / vocab);
    free(all[0]);
    free(all[1]);
    return d;
}

static void check_tensors(const char *out, bool awq)
{
    nb_error       err;
    nb_checkpoint *c;
    OK(nb_checkpoint_open(&c, in_folder(out), &err), &err);
    assert_null(nb_checkpoint_find(c, "lm_head.weight")); /* tied */
    for (size_t i = 0; i < nb_checkpoint_count(c); i++) {
        const nb_entry *e = nb_checkpoint_at(c, i);
        assert_true(e->tensor->dtype == NB_F16 || e->tensor->dtype == NB_I32);
        if (strncmp(e->name, "model.layers.", 13)) continue;
        assert_null(strstr(e->name, "proj.weight"));
        if (strstr(e->name, "o_proj") || strstr(e->name, "mlp.")) assert_null(strstr(e->name, "bias"));
    }
    /* 6 layers of 7 linears, 3 biases and 2 norms; the rest as in the source (7 + 3 + 2 tensors a layer there) */
    nb_checkpoint *s;
    OK(nb_checkpoint_open(&s, source, &err), &err);
    assert_int_equal(nb_checkpoint_count(c), nb_checkpoint_count(s) + 6 * 7 * (awq ? 2 : 3));
    nb_checkpoint_close(s);
    nb_checkpoint_close(c);
}

static void check_files(const char *out, const char *method, int bits, const char *format)
{
    nb_error err;
    char     path[1100];
    cJSON   *config, *before;
    snprintf(path, sizeof path, "%s/config.json", in_folder(out));
    OK(nb_json_file(&config, path, 100000, &err), &err);
    snprintf(path, sizeof path, "%s/config.json", source);
    OK(nb_json_file(&before, path, 100000, &err), &err);
    const cJSON *q = nb_json_find(config, "quantization_config");
    assert_non_null(q);
    assert_string_equal(nb_json_find(q, "quant_method")->valuestring, method);
    assert_int_equal(nb_json_find(q, "bits")->valueint, bits);
    if (format) assert_string_equal(nb_json_find(q, "checkpoint_format")->valuestring, format);
    assert_string_equal(nb_json_find(config, "torch_dtype")->valuestring, "float16");
    for (const cJSON *v = before->child; v; v = v->next) /* everything else is as it was */
        if (strcmp(v->string, "torch_dtype"))
            assert_true(cJSON_Compare(v, cJSON_GetObjectItemCaseSensitive(config, v->string), true));
    cJSON_Delete(config);
    cJSON_Delete(before);
    const char *const files[] = {"recipe.json", "tokenizer.json", "generation_config.json", "preprocessor_config.json",
                                 "chat_template.json", "merges.txt", "quantize_config.json"};
    for (size_t i = 0; i < NB_COUNT(files) - !format; i++) {
        snprintf(path, sizeof path, "%s/%s", in_folder(out), files[i]);
        if (!nb_file_exists(path)) fail_msg("%s is missing", path);
    }
}

/* Round to nearest needs no model run: the file must hold exactly what nb_rtn says, in each format. */
static void rtn_holds_the_codes(void **state)
{
    (void)state;
    static const struct { nb_format format; nb_grid grid; const char *method, *name; } forms[] = {
        {NB_FORMAT_GPTQ, {4, 64, true}, "gptq", "gptq"},     {NB_FORMAT_GPTQ, {8, 0, true}, "gptq", "gptq"},
        {NB_FORMAT_GPTQ_V2, {4, 128, false}, "gptq", "gptq_v2"}, {NB_FORMAT_AWQ, {4, 32, false}, "awq", NULL},
    };
    for (size_t i = 0; i < NB_COUNT(forms); i++) {
        nb_error            err;
        nb_quantize_report  r;
        nb_quantize_options o = request(NB_METHOD_RTN, "rtn");
        nb_config           config;
        nb_buf              notes = {0};
        nb_model           *model;
        nb_checkpoint      *c;
        nb_plain            plain;
        o.format = forms[i].format;
        o.grid = forms[i].grid;
        o.data.path = NULL;
        OK(nb_quantize(&ops, &o, NULL, NULL, &r, &err), &err);
        assert_int_equal(r.count, 42);
        assert_string_equal(r.matrices[41].name, "model.layers.5.mlp.down_proj");
        nb_quantize_report_free(&r);
        check_files("rtn", forms[i].method, forms[i].grid.bits, forms[i].name);
        check_tensors("rtn", forms[i].format == NB_FORMAT_AWQ);

        OK(nb_config_open(&config, o.out_dir, &notes, &err), &err);
        assert_int_equal(config.quant.group, forms[i].grid.group);
        OK(nb_checkpoint_open(&c, o.out_dir, &err), &err);
        OK(nb_model_open(&model, source, &ops, NB_OPEN_NO_LAYERS, &err), &err);
        OK(nb_plain_scan(&plain, model->checkpoint, &model->config, &err), &err);
        for (int layer = 0; layer < 6; layer += 5) {
            nb_float_layer f;
            OK(nb_float_layer_read(&f, model, &plain, layer, &err), &err);
            for (int j = 0; j < NB_LINEARS; j++) {
                nb_codes  want;
                nb_linear got;
                size_t    n = (size_t)f.n[j], k = (size_t)f.k[j];
                OK(nb_float_layer_floats(&f, j, pool, &err), &err);
                OK(nb_rtn(&want, f.w[j], f.n[j], f.k[j], &o.grid, pool, &err), &err);
                OK(nb_linear_read(&got, c, &config.quant, f.name[j], f.n[j], f.k[j], j <= NB_V, &err), &err);
                assert_memory_equal(got.codes, want.codes, n * k);
                assert_memory_equal(got.zeros, want.zeros, n * (size_t)want.groups);
                assert_memory_equal(got.scales, want.scales, n * (size_t)want.groups * sizeof(float));
                assert_null(got.g_idx);
                if (j <= NB_V) assert_memory_equal(got.bias, f.bias[j], n * sizeof(float));
                nb_codes_free(&want);
                nb_linear_free(&got);
            }
            nb_float_layer_free(&f);
        }
        nb_model_close(model);
        nb_checkpoint_close(c);
        nb_buf_free(&notes);
        drop("rtn");
    }
}

/* GPTQ and AWQ beat rounding on their own inputs, and the written model is nearer to the source. */
static void solvers_beat_rounding(void **state)
{
    (void)state;
    nb_error            err;
    nb_quantize_report  r;
    nb_quantize_options o = request(NB_METHOD_RTN, "rtn");
    OK(nb_quantize(&ops, &o, NULL, NULL, &r, &err), &err);
    nb_quantize_report_free(&r);
    double plain = mean_divergence(source, in_folder("rtn"));
    assert_true(plain > 1e-4 && plain < 0.1);
    static const struct { nb_method method; bool sequential, propagate, asym; double least; } runs[] = {
        {NB_METHOD_GPTQ, true, true, false, 1}, {NB_METHOD_GPTQ, false, true, false, 1}, {NB_METHOD_GPTQ, true, false, false, 1},
        {NB_METHOD_AWQ, false, false, false, 1}, {NB_METHOD_AWQ, false, true, false, 1},
        {NB_METHOD_GPTQ, true, true, true, 1}, {NB_METHOD_AWQ, false, true, true, 1}, /* of the one without, two and five above */
        {NB_METHOD_AWQ_GPTQ, true, true, true, 1},
    };
    double reached[NB_COUNT(runs)];
    for (size_t i = 0; i < NB_COUNT(runs); i++) {
        double loss = 0, rtn_loss = 0;
        o = request(runs[i].method, "out");
        o.true_sequential = runs[i].sequential;
        o.propagate_quantized = runs[i].propagate;
        o.data.samples = 16;
        o.asym = runs[i].asym;
        o.asym_damp = 0.01;
        o.sweeps = runs[i].method == NB_METHOD_AWQ_GPTQ ? 2 : 0;
        OK(nb_quantize(&ops, &o, NULL, NULL, &r, &err), &err);
        assert_int_equal(r.samples, 16);
        assert_int_equal(r.tokens, r.tokens_by_modality[0] + r.tokens_by_modality[1] + r.tokens_by_modality[2]);
        for (size_t j = 0; j < r.count; j++) {
            loss += r.matrices[j].loss;
            rtn_loss += r.matrices[j].rtn_loss;
            assert_false(r.matrices[j].fallback);
        }
        assert_true(loss > 0 && loss < 0.9 * rtn_loss);
        assert_true(r.max_input > 0 && r.max_input < 65504);
        nb_quantize_report_free(&r);
        check_files("out", runs[i].method == NB_METHOD_AWQ ? "awq" : "gptq", 4, runs[i].method == NB_METHOD_AWQ ? NULL : "gptq");
        check_tensors("out", runs[i].method == NB_METHOD_AWQ);
        double distance = mean_divergence(source, in_folder("out"));
        reached[i] = distance;
        if (runs[i].asym && !(distance < runs[i].least * reached[runs[i].method == NB_METHOD_AWQ ? 4 : 0]))
            fail_msg("run %zu: KL %.5f with asymmetric calibration", i, distance);
        printf("    method %d sequential %d propagate %d: loss %.4g of %.4g, KL %.5f (rtn %.5f)\n", runs[i].method,
               runs[i].sequential, runs[i].propagate, loss, rtn_loss, distance, plain);
        assert_true(distance < plain);
        drop("out");
    }
    drop("rtn");
}

typedef struct {
    nb_stats stats;
    nb_site  site;
} site_watch;

static void watch_site(void *context, nb_site site, const float *x, size_t ld, int k, const nb_sample_rows *rows)
{
    site_watch *w = context;
    (void)k;
    if (site == w->site) nb_stats_add(&w->stats, &ops, x, ld, rows);
}

/* Solve linear i of layer 1 again, from the layer given and the samples as they stand before it, and compare with the file. */
static void check_solution(int i, nb_site site, const nb_float_layer *f, const nb_linear now[NB_LINEARS], nb_samples *s,
                           const nb_model *model, const nb_model *written, const nb_quantize_options *o)
{
    nb_error        err;
    nb_layer        layer;
    site_watch      w = {.site = site};
    nb_sample_tap   tap = {.site = watch_site, .context = &w};
    nb_codes        want;
    nb_linear       got;
    nb_gptq_report  report;
    nb_gptq_options options = {.grid = o->grid, .damp = o->damp, .damp_max = o->damp_max, .block = o->block};
    OK(nb_stats_init(&w.stats, f->k[i], (const float[]){1, 2, 1}, &err), &err);
    OK(nb_layer_pack(&ops, &layer, &model->config, f->norm[0], f->norm[1], now, &err), &err);
    OK(nb_samples_layer(s, model, &layer, &tap, false, &err), &err);
    nb_layer_release(&ops, &layer);
    OK(nb_stats_finish(&w.stats, pool, &err), &err);
    OK(nb_float_layer_floats((nb_float_layer *)f, i, pool, &err), &err);
    OK(nb_gptq(&want, f->w[i], w.stats.gram, f->n[i], f->k[i], &options, pool, &report, &err), &err);
    OK(nb_linear_read(&got, written->checkpoint, &written->config.quant, f->name[i], f->n[i], f->k[i], -1, &err), &err);
    assert_memory_equal(got.codes, want.codes, (size_t)f->n[i] * (size_t)f->k[i]);
    assert_memory_equal(got.scales, want.scales, (size_t)f->n[i] * (size_t)want.groups * sizeof(float));
    nb_linear_free(&got);
    nb_codes_free(&want);
    nb_stats_free(&w.stats);
}

/* Layer 1 put together by hand from the finished file: its inputs come through layer 0 as the file holds it (or as the source
 * does), o sees quantised q, k, v exactly when the work is sequential, and pictures weigh double. */
static void each_site_is_solved_on_what_reaches_it(void **state)
{
    (void)state;
    for (int run = 0; run < 3; run++) {
        nb_error            err;
        nb_quantize_report  r;
        nb_quantize_options o = request(NB_METHOD_GPTQ, "out");
        nb_model           *model, *written;
        nb_samples          s;
        nb_plain            plain;
        nb_float_layer      f;
        nb_linear           now[NB_LINEARS], quantized[3];
        o.true_sequential = run == 0;
        o.propagate_quantized = run != 2;
        o.modality_weights[NB_TOKEN_IMAGE] = 2;
        OK(nb_quantize(&ops, &o, NULL, NULL, &r, &err), &err);
        nb_quantize_report_free(&r);
        OK(nb_model_open(&model, source, &ops, 0, &err), &err);
        OK(nb_model_open(&written, o.out_dir, &ops, 0, &err), &err);
        OK(nb_samples_load(&s, model, &o.data, &err), &err);
        OK(nb_samples_embed(&s, model, &err), &err);
        OK(nb_samples_layer(&s, model, run == 2 ? &model->layers[0] : &written->layers[0], NULL, true, &err), &err);
        OK(nb_plain_scan(&plain, model->checkpoint, &model->config, &err), &err);
        OK(nb_float_layer_read(&f, model, &plain, 1, &err), &err);
        for (int i = 0; i < NB_LINEARS; i++) {
            now[i] = (nb_linear){.weights = f.source[i].weights, .bias = i <= NB_V ? f.bias[i] : NULL};
            if (i > NB_V) continue;
            OK(nb_linear_read(&quantized[i], written->checkpoint, &written->config.quant, f.name[i], f.n[i], f.k[i], 1, &err), &err);
        }
        check_solution(NB_K, NB_SITE_QKV, &f, now, &s, model, written, &o);
        for (int i = 0; i <= NB_V && o.true_sequential; i++) now[i] = quantized[i];
        check_solution(NB_O, NB_SITE_O, &f, now, &s, model, written, &o);
        for (int i = 0; i <= NB_V; i++) nb_linear_free(&quantized[i]);
        nb_float_layer_free(&f);
        nb_samples_free(&s);
        nb_model_close(written);
        nb_model_close(model);
        drop("out");
    }
}

static uint64_t hash_folder(const char *name)
{
    uint64_t hash = 14695981039346656037u;
    DIR     *dir = opendir(in_folder(name));
    assert_non_null(dir);
    uint64_t sum = 0; /* over files, in any order */
    for (const struct dirent *e; (e = readdir(dir));) {
        char     path[1400];
        nb_buf   text;
        nb_error err;
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", in_folder(name), e->d_name);
        OK(nb_file_read(&text, path, 1 << 30, &err), &err);
        uint64_t h = hash;
        for (size_t i = 0; i < text.size; i++) h = (h ^ (uint8_t)text.data[i]) * 1099511628211u;
        for (const char *p = e->d_name; *p; p++) h = (h ^ (uint8_t)*p) * 1099511628211u;
        sum += h;
        nb_buf_free(&text);
    }
    closedir(dir);
    return sum;
}

/* Hidden states on disk, in chunks of any size, against hidden states in memory: the same files. */
static void spool_changes_nothing(void **state)
{
    (void)state;
    static const size_t chunks[] = {0, 0, 1000};
    for (int method = NB_METHOD_AWQ; method <= NB_METHOD_GPTQ; method++) {
        uint64_t hash[NB_COUNT(chunks)];
        for (size_t i = 0; i < NB_COUNT(chunks); i++) {
            nb_error            err;
            nb_quantize_report  r;
            nb_quantize_options o = request((nb_method)method, "out");
            o.awq_points = 2;
            o.propagate_quantized = o.asym = method == NB_METHOD_AWQ; /* both ways to the next layer */
            o.asym_damp = 0.01;
            o.data.spool = i ? in_folder("spool") : NULL;
            o.data.spool_chunk = chunks[i];
            OK(nb_quantize(&ops, &o, NULL, NULL, &r, &err), &err);
            nb_quantize_report_free(&r);
            hash[i] = hash_folder("out");
            drop("out");
            assert_false(nb_file_exists(in_folder("spool")));
            if (i) assert_true(hash[i] == hash[0]);
        }
    }
}

static void threads_change_nothing(void **state)
{
    (void)state;
    for (int method = NB_METHOD_RTN; method <= NB_METHOD_AWQ_GPTQ; method++) {
        uint64_t hash[2];
        for (int i = 0; i < 2; i++) {
            nb_error            err;
            nb_pool            *threads;
            nb_ops              own;
            nb_quantize_report  r;
            nb_quantize_options o = request((nb_method)method, "out");
            o.awq_points = 2;
            o.asym = method == NB_METHOD_AWQ_GPTQ;
            o.asym_damp = 0.01;
            o.range = o.asym ? NB_RANGE_ENERGY : NB_RANGE_FULL;
            o.sweeps = o.asym ? 2 : 0;
            OK(nb_pool_new(&threads, i ? 3 : 1, &err), &err);
            nb_ops_init(&own, ops.isa, threads);
            OK(nb_quantize(&own, &o, NULL, NULL, &r, &err), &err);
            nb_quantize_report_free(&r);
            hash[i] = hash_folder("out");
            nb_pool_free(threads);
            drop("out");
        }
        assert_true(hash[0] == hash[1]);
    }
}

/* Folding computes the same function: products of producer and consumer are unchanged, channel by channel. */
static void folding_is_neutral(void **state)
{
    (void)state;
    nb_error       err;
    nb_model      *model;
    nb_plain       plain;
    nb_float_layer f, g;
    OK(nb_model_open(&model, source, &ops, NB_OPEN_NO_LAYERS, &err), &err);
    const nb_config *c = &model->config;
    OK(nb_plain_scan(&plain, model->checkpoint, c, &err), &err);
    OK(nb_float_layer_read(&f, model, &plain, 2, &err), &err);
    OK(nb_float_layer_read(&g, model, &plain, 2, &err), &err);
    for (int i = 0; i < NB_LINEARS; i++) {
        OK(nb_float_layer_floats(&f, i, pool, &err), &err);
        OK(nb_float_layer_floats(&g, i, pool, &err), &err);
    }

    double  *gram[NB_SITES], kept[NB_SITES];
    float   *mean[NB_SITES];
    uint64_t seed = 3;
    for (int s = 0; s < NB_SITES; s++) { /* inputs of very different sizes, so that the scales are far from 1 */
        size_t k = (size_t)f.k[nb_site_first[s]];
        gram[s] = calloc(k * k, sizeof(double));
        mean[s] = calloc(k, sizeof(float));
        for (size_t i = 0; i < k; i++) {
            mean[s][i] = expf(2 * unit_normal(&seed));
            gram[s][i * k + i] = 1.6 * mean[s][i] * mean[s][i];
        }
        gram[s][1] = gram[s][k] = 0.3 * mean[s][0] * mean[s][1];
        kept[s] = gram[s][1];
    }
    const nb_awq_options options = {.grid = {4, 64, false}, .points = 10, .duo = true}, each[NB_SITES] = {options, options, options, options};
    nb_awq_report  reports[NB_SITES];
    float         *scales[NB_SITES] = {0};
    OK(nb_smooth_layer(&g, c, gram, (const float *const *)mean, each, pool, scales, reports, &err), &err);

    int hd = c->head_dim, group = c->heads / c->kv_heads, moved = 0;
    for (int i = 0; i < NB_LINEARS; i++)
        for (int r = 0; r < f.n[i]; r += 7)
            for (int j = 0; j < f.k[i]; j++) {
                double was = f.w[i][(size_t)r * (size_t)f.k[i] + (size_t)j], is = g.w[i][(size_t)r * (size_t)f.k[i] + (size_t)j];
                double before = 1, after = 1;
                if (i <= NB_V || i == NB_GATE || i == NB_UP) { /* columns meet the norm; rows of v and up are divided */
                    before = f.norm[i > NB_V][j];
                    after = g.norm[i > NB_V][j];
                }
                if (i == NB_UP) { /* against a column of down */
                    before *= f.w[NB_DOWN][r];
                    after *= g.w[NB_DOWN][r];
                }
                if (i == NB_V) { /* against the column of o in every head that reads this row */
                    for (int h = 0; h < group; h++) {
                        int    channel = (r / hd * group + h) * hd + r % hd;
                        double x = was * before * f.w[NB_O][channel], y = is * after * g.w[NB_O][channel];
                        NEAR(y, x, 4e-6 * fabs(x) + 1e-12);
                    }
                    continue;
                }
                if (i == NB_O || i == NB_DOWN) continue; /* done with v and up */
                NEAR(is * after, was * before, 4e-6 * fabs(was * before) + 1e-12);
                moved += fabs(is - was) > 0.05 * fabs(was);
            }
    assert_true(moved > 1000); /* the test means something */
    for (int r = 0; r < f.n[NB_V]; r++) {
        int    channel = r / hd * group * hd + r % hd;
        double x = (double)f.bias[NB_V][r] * f.w[NB_O][channel], y = (double)g.bias[NB_V][r] * g.w[NB_O][channel];
        NEAR(y, x, 1e-3 * fabs(x) + 1e-7); /* the bias rounds to f16 */
    }
    for (int i = 0; i < c->hidden; i++) /* the stored norms are f16 values */
        assert_true(nb_f16_to_f32(nb_f32_to_f16(g.norm[0][i])) == g.norm[0][i]);
    for (int s = 0; s < NB_SITES; s++) { /* H' = H / (s s'): here s = new / old column */
        int    i = nb_site_first[s];
        double s0 = (double)g.w[i][0] / f.w[i][0], s1 = (double)g.w[i][1] / f.w[i][1];
        if (s == NB_SITE_QKV || s == NB_SITE_O) NEAR(gram[s][1] * s0 * s1, kept[s], 1e-5 * fabs(kept[s]));
        free(gram[s]);
        free(mean[s]);
        free(scales[s]);
    }
    nb_float_layer_free(&f);
    nb_float_layer_free(&g);
    nb_model_close(model);
}

typedef struct { size_t calls, stop, total; } counter;

static bool count_steps(void *context, size_t done, size_t total, const char *what)
{
    counter *c = context;
    assert_int_equal(done, c->calls);
    assert_true(what[0] && done < total);
    c->total = total;
    return c->calls++ != c->stop;
}

static void stopping_leaves_nothing(void **state)
{
    (void)state;
    nb_error            err;
    nb_quantize_report  r;
    nb_quantize_options o = request(NB_METHOD_GPTQ, "out");
    counter             c = {.stop = SIZE_MAX};
    o.data.samples = 2;
    OK(nb_quantize(&ops, &o, count_steps, &c, &r, &err), &err);
    nb_quantize_report_free(&r);
    assert_int_equal(c.calls, c.total);
    assert_int_equal(c.total, 6 * 4 + 2);
    drop("out");
    for (size_t stop = 0; stop < 26; stop += 5) {
        c = (counter){.stop = stop};
        FAILS(nb_quantize(&ops, &o, count_steps, &c, &r, &err), NB_ERR_STOPPED, "stopped before", &err);
        assert_null(r.matrices);
        assert_nothing_left("out");
    }
}

/* A copy of the demo with one value of one tensor replaced. */
static void copy_with(const char *name, const char *tensor, uint64_t element, float value)
{
    nb_error    err;
    char        from[1100], to[1100];
    const char *target = in_folder(name);
    DIR        *dir = opendir(source);
    assert_int_equal(mkdir(target, 0777), 0);
    for (const struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.') continue;
        snprintf(from, sizeof from, "%.500s/%.250s", source, e->d_name);
        snprintf(to, sizeof to, "%.500s/%.250s", target, e->d_name);
        OK(nb_file_copy(from, to, &err), &err);
    }
    closedir(dir);
    nb_safetensors *st;
    snprintf(to, sizeof to, "%s/model.safetensors", target);
    OK(nb_safetensors_open(&st, to, &err), &err);
    const nb_tensor *t = nb_safetensors_find(st, tensor);
    assert_non_null(t);
    assert_int_equal(t->dtype, NB_BF16);
    uint16_t bits = nb_f32_to_bf16(value);
    FILE    *f = fopen(to, "r+b");
    fseek(f, (long)(t->offset + 2 * element), SEEK_SET);
    assert_int_equal(fwrite(&bits, 2, 1, f), 1);
    fclose(f);
    nb_safetensors_close(st);
}

static void bad_requests(void **state)
{
    (void)state;
    nb_error            err;
    nb_quantize_report  r;
    nb_quantize_options o = request(NB_METHOD_GPTQ, "out");
    o.data.path = NULL;
    FAILS(nb_quantize(&ops, &o, NULL, NULL, &r, &err), NB_ERR_ARGUMENT, "calibration data", &err);
    o = request(NB_METHOD_GPTQ, "out");
    o.grid.bits = 3;
    FAILS(nb_quantize(&ops, &o, NULL, NULL, &r, &err), NB_ERR_ARGUMENT, "3 bits", &err);
    o = request(NB_METHOD_GPTQ, "out");
    o.modality_weights[1] = NAN;
    FAILS(nb_quantize(&ops, &o, NULL, NULL, &r, &err), NB_ERR_ARGUMENT, "modality weight 1", &err);
    o = request(NB_METHOD_RTN, "out");
    o.format = NB_FORMAT_AWQ;
    o.grid.group = 96;
    FAILS(nb_quantize(&ops, &o, NULL, NULL, &r, &err), NB_ERR_UNSUPPORTED, "q_proj", &err);
    o = request(NB_METHOD_RTN, "out");
    o.model_dir = folder;
    FAILS(nb_quantize(&ops, &o, NULL, NULL, &r, &err), NB_ERR_INPUT, folder, &err); /* a folder without a model */
    o.model_dir = source;
    o.out_dir = source;
    o.force = true;
    FAILS(nb_quantize(&ops, &o, NULL, NULL, &r, &err), NB_ERR_ARGUMENT, "is the model itself", &err);
    o = request(NB_METHOD_GPTQ, "out");
    o.data.path = in_folder("no-such-file");
    FAILS(nb_quantize(&ops, &o, NULL, NULL, &r, &err), NB_ERR_INPUT, "no-such-file", &err);
    assert_nothing_left("out");

    o = request(NB_METHOD_RTN, "quantized");
    OK(nb_quantize(&ops, &o, NULL, NULL, &r, &err), &err);
    nb_quantize_report_free(&r);
    FAILS(nb_quantize(&ops, &o, NULL, NULL, &r, &err), NB_ERR_ARGUMENT, "exists", &err);
    o = request(NB_METHOD_RTN, "out");
    o.model_dir = in_folder("quantized");
    FAILS(nb_quantize(&ops, &o, NULL, NULL, &r, &err), NB_ERR_INPUT, "already quantized (gptq, 4 bits)", &err);
    assert_nothing_left("out");
    drop("quantized");
}

static void bad_values(void **state)
{
    (void)state;
    nb_error            err;
    nb_quantize_report  r;
    nb_quantize_options o = request(NB_METHOD_RTN, "out");
    o.model_dir = in_folder("bad");
    copy_with("bad", "model.layers.3.mlp.up_proj.weight", 256 * 5 + 9, NAN);
    FAILS(nb_quantize(&ops, &o, NULL, NULL, &r, &err), NB_ERR_INPUT, "'model.layers.3.mlp.up_proj.weight' holds nan at row 5, column 9",
          &err);
    assert_nothing_left("out");
    drop("bad");
    copy_with("bad", "visual.merger.ln_q.weight", 3, INFINITY);
    FAILS(nb_quantize(&ops, &o, NULL, NULL, &r, &err), NB_ERR_INPUT, "'visual.merger.ln_q.weight' holds inf at element 3", &err);
    assert_nothing_left("out");
    drop("bad");

    /* Finite weights whose products are not: the first site that sees it is named. */
    static const struct { const char *tensor, *site; } overflows[] = {
        {"model.layers.1.input_layernorm.weight", "model.layers.1.self_attn.q_proj: its inputs reach "},
        {"model.layers.1.post_attention_layernorm.weight", "model.layers.1.mlp.gate_proj: its inputs reach "},
    };
    for (size_t i = 0; i < NB_COUNT(overflows); i++)
        for (int method = 0; method < 2; method++) {
            nb_quantize_options calibrated = request(method ? NB_METHOD_GPTQ : NB_METHOD_AWQ, "out");
            calibrated.model_dir = in_folder("bad");
            calibrated.job = true;
            copy_with("bad", overflows[i].tensor, 3, 3e38f);
            FAILS(nb_quantize(&ops, &calibrated, NULL, NULL, &r, &err), NB_ERR_INPUT, overflows[i].site, &err);
            assert_nothing_left("out");
            assert_false(nb_file_exists(in_folder("out.job")));
            drop("bad");
        }

    /* Too large for float16: the file keeps bfloat16. */
    copy_with("bad", "model.norm.weight", 3, 1e5f);
    OK(nb_quantize(&ops, &o, NULL, NULL, &r, &err), &err);
    assert_non_null(strstr(r.notes.data, "'model.norm.weight' has a value above 65504"));
    nb_quantize_report_free(&r);
    nb_checkpoint *c;
    OK(nb_checkpoint_open(&c, o.out_dir, &err), &err);
    assert_int_equal(nb_checkpoint_find(c, "model.embed_tokens.weight")->tensor->dtype, NB_BF16);
    assert_int_equal(nb_checkpoint_find(c, "model.layers.0.self_attn.q_proj.bias")->tensor->dtype, NB_BF16);
    assert_int_equal(nb_checkpoint_find(c, "model.layers.0.self_attn.q_proj.scales")->tensor->dtype, NB_F16);
    nb_checkpoint_close(c);
    cJSON *config;
    char   path[1100];
    snprintf(path, sizeof path, "%s/config.json", o.out_dir);
    OK(nb_json_file(&config, path, 100000, &err), &err);
    assert_string_equal(nb_json_find(config, "torch_dtype")->valuestring, "bfloat16");
    cJSON_Delete(config);
    drop("out");
    drop("bad");

    /* Small values lose bits on the way to float16, and that is said: 1.5078125 * 2^-21 is 12.06 units of 2^-24. */
    copy_with("bad", "model.norm.weight", 3, 1.5078125f * 0x1p-21f);
    OK(nb_quantize(&ops, &o, NULL, NULL, &r, &err), &err);
    assert_non_null(strstr(r.notes.data, "largest relative change"));
    nb_quantize_report_free(&r);
    drop("out");
    drop("bad");
}

/* Requests that a format cannot hold are turned into one that can, and it is said. */
static void formats_are_resolved(void **state)
{
    (void)state;
    nb_error            err;
    nb_quantize_report  r;
    nb_quantize_options o = request(NB_METHOD_AWQ, "out");
    o.data.samples = 2;
    o.awq_points = 2;
    o.grid.bits = 8;
    OK(nb_quantize(&ops, &o, NULL, NULL, &r, &err), &err);
    assert_non_null(strstr(r.notes.data, "written in GPTQ's form"));
    nb_quantize_report_free(&r);
    check_files("out", "gptq", 8, "gptq");
    drop("out");
    o = request(NB_METHOD_RTN, "out");
    o.grid.sym = false;
    OK(nb_quantize(&ops, &o, NULL, NULL, &r, &err), &err);
    assert_non_null(strstr(r.notes.data, "gptq_v2"));
    nb_quantize_report_free(&r);
    check_files("out", "gptq", 4, "gptq_v2");
    drop("out");
    o = request(NB_METHOD_GPTQ, "out");
    o.data.samples = 2;
    o.order = NB_ORDER_FULL;
    OK(nb_quantize(&ops, &o, NULL, NULL, &r, &err), &err);
    nb_quantize_report_free(&r);
    nb_model *model; /* loads with its activation order */
    OK(nb_model_open(&model, o.out_dir, &ops, 0, &err), &err);
    assert_true(model->config.quant.desc_act);
    assert_non_null(model->layers[0].down.perm);
    nb_model_close(model);
    drop("out");
    o.format = NB_FORMAT_AWQ;
    FAILS(nb_quantize(&ops, &o, NULL, NULL, &r, &err), NB_ERR_ARGUMENT, "no g_idx", &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rtn_holds_the_codes), cmocka_unit_test(solvers_beat_rounding),
        cmocka_unit_test(each_site_is_solved_on_what_reaches_it), cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(spool_changes_nothing),
        cmocka_unit_test(folding_is_neutral),  cmocka_unit_test(stopping_leaves_nothing), cmocka_unit_test(bad_requests),
        cmocka_unit_test(bad_values),          cmocka_unit_test(formats_are_resolved),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
