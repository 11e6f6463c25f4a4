/* Exports of the demo: whatever the form, a matrix means the same numbers; there and back gives the same bytes; what a form cannot
 * hold is refused and leaves nothing; padding adds zeros and nothing else. */
#include "unit.h"

#include "quant/export.h"
#include "quant/float_layer.h"
#include "quant_folder.h"

static nb_pool *pool;
static nb_ops   ops;

/* The checkpoints that exports start from. */
enum { AWQ, GPTQ, GPTQ_V2, ORDERED, CT8, CT_ASYM, MIXED, TOWER, SOURCES };
static const char *const names[SOURCES] = {"awq", "gptq", "gptq_v2", "ordered", "ct8", "ct_asym", "mixed", "tower"};

static const nb_choice_rule mixed_rules[] = {{.pattern = "layers\\.[15]\\.mlp\\.down_proj", .bits = 8, .group = 64},
                                             {.pattern = "layers\\.1\\.self_attn\\.k", .keep = true}};

static nb_status make_source(int which, nb_error *err)
{
    static const struct { nb_format format; nb_grid grid; } forms[SOURCES] = {
        [AWQ] = {NB_FORMAT_AWQ, {4, 8, false}}, /* groups of one sign: zero points of 0 */
        [GPTQ] = {NB_FORMAT_GPTQ, {4, 128, true}},    [GPTQ_V2] = {NB_FORMAT_GPTQ_V2, {8, 0, false}},
        [ORDERED] = {NB_FORMAT_GPTQ, {4, 64, true}},  [CT8] = {NB_FORMAT_CT, {8, 32, true}},
        [CT_ASYM] = {NB_FORMAT_CT, {4, 0, false}},
        [MIXED] = {NB_FORMAT_CT, {4, 128, false}},    [TOWER] = {NB_FORMAT_CT, {4, 64, true}},
    };
    nb_quantize_options o = {
        .model_dir = source, .out_dir = in_folder(names[which]), .method = which == ORDERED ? NB_METHOD_GPTQ : NB_METHOD_RTN,
        .grid = forms[which].grid, .format = forms[which].format, .damp = 0.01, .damp_max = 1, .block = 128, .order = NB_ORDER_FULL,
        .modality_weights = {1, 1, 1}, .data = {.path = chats, .samples = 2,
                                                .dataset = {.need_answer = true}}, .shard_size = 1000000000,
        .recipe_json = "{\"a\": 1}",
    };
    nb_quantize_report r;
    if (which == MIXED) o.rules = mixed_rules, o.rule_count = NB_COUNT(mixed_rules);
    if (which == TOWER) o.vision = 8, o.head = 8, o.embeddings = 8;
    NB_TRY(nb_quantize(&ops, &o, NULL, NULL, &r, err));
    nb_quantize_report_free(&r);
    return NB_OK;
}

static int open_all(void **state)
{
    nb_error err;
    if (make_folder(state) || nb_pool_new(&pool, 2, &err)) return -1;
    nb_ops_init(&ops, nb_isa_detect(NB_ISA_LEVELS - 1), pool);
    for (int i = 0; i < SOURCES; i++)
        if (make_source(i, &err)) {
            fprintf(stderr, "%s: %s\n", names[i], err.text);
            return -1;
        }
    return 0;
}

static int close_all(void **state)
{
    nb_pool_free(pool);
    for (int i = 0; i < SOURCES; i++) nb_remove_folder(in_folder(names[i]), NULL);
    return remove_folder(state);
}

static nb_status export(const char *from, const char *to, nb_export_form form, nb_export_report *r, nb_error *err)
{
    const nb_export_options o = {.model_dir = from, .out_dir = in_folder(to), .form = form, .layout = -1,
                                 .shard_size = 1000000000};
    return nb_export(&o, NULL, NULL, r, err);
}

/* ---- meaning ----------------------------------------------------------------------------------------------------------- */

static float *values_of(const opened *o, const char *name, int n, int k)
{
    nb_error  err;
    nb_linear l;
    OK(nb_linear_read(&l, o->checkpoint, &o->config.quant, name, n, k, -1, &err), &err);
    float *w = malloc((size_t)n * (size_t)k * sizeof *w);
    nb_weights_to_f32(w, &l.weights);
    nb_linear_free(&l);
    return w;
}

static int matrix_count(const nb_config *c)
{
    return c->layers * NB_LINEARS + nb_vision_linear_count(c) + 1 + !c->tied;
}

static void matrix_at(nb_outer *out, const nb_config *c, int i)
{
    int inner = c->layers * NB_LINEARS, tower = nb_vision_linear_count(c);
    memset(out, 0, sizeof *out);
    if (i < inner) {
        nb_float_layer f;
        nb_float_layer_shape(&f, c, i / NB_LINEARS);
        snprintf(out->name, sizeof out->name, "%s", f.name[i % NB_LINEARS]);
        out->n = f.n[i % NB_LINEARS];
        out->k = f.k[i % NB_LINEARS];
    } else if (i < inner + tower) {
        nb_vision_linear(out, c, i - inner);
    } else {
        snprintf(out->name, sizeof out->name, "%s", i == inner + tower ? "model.embed_tokens" : "lm_head");
        out->n = c->vocab;
        out->k = c->hidden;
    }
}

static float rounded_to(float v, nb_dtype type)
{
    float    back;
    uint32_t bits = 0;
    nb_from_f32(&bits, type, &v, 1);
    nb_to_f32(&back, &bits, type, 1);
    return back;
}

/* Every matrix of b is that of a, rounded to a type (F32: not at all); the number of values that rounding changed. */
static size_t same_meaning(const char *a, const char *b, nb_dtype type)
{
    opened x = open_dir(a), y = open_dir(b);
    size_t changed = 0;
    for (int i = 0; i < matrix_count(&x.config); i++) {
        nb_outer m;
        matrix_at(&m, &x.config, i);
        float *v = values_of(&x, m.name, m.n, m.k), *w = values_of(&y, m.name, m.n, m.k);
        for (size_t j = 0; j < (size_t)m.n * (size_t)m.k; j++) {
            float want = rounded_to(v[j], type);
            changed += want != v[j];
            if (!(w[j] == want)) fail_msg("%s: element %zu is %g, expected %g", m.name, j, (double)w[j], (double)want);
        }
        free(v);
        free(w);
    }
    nb_checkpoint_close(x.checkpoint);
    nb_checkpoint_close(y.checkpoint);
    return changed;
}

static void opens(const char *path)
{
    nb_error  err;
    nb_model *model;
    OK(nb_model_open(&model, path, &ops, 0, &err), &err);
    nb_model_close(model);
}

/* Whether some zero point of a checkpoint is 0. */
static bool has_zero_of_0(const char *path)
{
    opened o = open_dir(path);
    bool   found = false;
    for (int i = 0; i < o.config.layers * NB_LINEARS; i++) {
        nb_error  err;
        nb_outer  m;
        nb_linear l;
        matrix_at(&m, &o.config, i);
        OK(nb_linear_read(&l, o.checkpoint, &o.config.quant, m.name, m.n, m.k, -1, &err), &err);
        for (int j = 0; l.zeros && j < m.n * ((m.k + l.weights.group - 1) / l.weights.group); j++) found = found || l.zeros[j] == 0;
        nb_linear_free(&l);
    }
    nb_checkpoint_close(o.checkpoint);
    return found;
}

/* From every source to every form: the same numbers, or a refusal that says why. */
static void every_form(void **state)
{
    (void)state;
    static const struct { nb_export_form form; const char *refused[SOURCES]; } forms[] = {
        {NB_EXPORT_AWQ, {[GPTQ_V2] = "has 8 bits, AWQ files hold 4", [ORDERED] = "ordered across groups (g_idx)", [CT8] = "has 8 bits",
                         [CT_ASYM] = "not the whole row", [MIXED] = "has 8 bits", [TOWER] = "only compressed-tensors has outside the decoder layers"}},
        {NB_EXPORT_GPTQ, {[TOWER] = "outside the decoder layers"}},
        {NB_EXPORT_GPTQ_V2, {[TOWER] = "outside the decoder layers"}},
        {NB_EXPORT_CT, {NULL}},
    };
    int zeros_seen = 0;
    for (size_t f = 0; f < NB_COUNT(forms); f++)
        for (int s = 0; s < SOURCES; s++) {
            nb_error         err = {0};
            nb_export_report r;
            nb_status        status = export(in_folder(names[s]), "out", forms[f].form, &r, &err);
            const char      *refused = forms[f].refused[s];
            if (forms[f].form == NB_EXPORT_GPTQ && !refused && has_zero_of_0(in_folder(names[s])))
                refused = "zero point of 0, which GPTQ v1 cannot hold", zeros_seen++;
            if (status == NB_ERR_UNSUPPORTED && refused && strstr(err.text, refused)) {
                assert_false(nb_file_exists(in_folder("out")) || nb_file_exists(in_folder("out.partial")));
                continue;
            }
            if (status || refused)
                fail_msg("%s to form %d: status %d, '%s'", names[s], forms[f].form, status, err.text);
            assert_int_equal(r.rounded, 0);
            assert_int_equal(r.dequantized, 0);
            nb_export_report_free(&r);
            assert_int_equal(same_meaning(in_folder(names[s]), in_folder("out"), NB_F32), 0);
            opens(in_folder("out"));
            assert_true(nb_file_exists(in_folder("out/recipe.json")));
            assert_true(nb_file_exists(in_folder("out/tokenizer.json")));
            drop("out");
        }
    assert_true(zeros_seen > 0);
}

static void same_file(const char *a, const char *b)
{
    nb_error err;
    nb_buf   x = {0}, y = {0};
    OK(nb_file_read(&x, a, 100 << 20, &err), &err);
    OK(nb_file_read(&y, b, 100 << 20, &err), &err);
    if (x.size != y.size || memcmp(x.data, y.data, x.size)) fail_msg("%s and %s differ", a, b);
    nb_buf_free(&x);
    nb_buf_free(&y);
}

static void there_and_back(void **state)
{
    (void)state;
    static const struct { int source; nb_export_form there, back; } trips[] = {
        {GPTQ, NB_EXPORT_AWQ, NB_EXPORT_GPTQ},   {GPTQ, NB_EXPORT_CT, NB_EXPORT_GPTQ},      {GPTQ, NB_EXPORT_GPTQ_V2, NB_EXPORT_GPTQ},
        {AWQ, NB_EXPORT_GPTQ_V2, NB_EXPORT_AWQ}, {AWQ, NB_EXPORT_CT, NB_EXPORT_AWQ},        {GPTQ_V2, NB_EXPORT_CT, NB_EXPORT_GPTQ_V2},
        {ORDERED, NB_EXPORT_CT, NB_EXPORT_GPTQ}, {CT8, NB_EXPORT_GPTQ, NB_EXPORT_CT},       {CT_ASYM, NB_EXPORT_GPTQ_V2, NB_EXPORT_CT},
        {MIXED, NB_EXPORT_GPTQ_V2, NB_EXPORT_CT}, {TOWER, NB_EXPORT_SAME, NB_EXPORT_CT},
    };
    for (size_t i = 0; i < NB_COUNT(trips); i++) {
        nb_error         err;
        nb_export_report r;
        char             first[1100];
        OK(export(in_folder(names[trips[i].source]), "there", trips[i].there, &r, &err), &err);
        nb_export_report_free(&r);
        OK(export(in_folder("there"), "back", trips[i].back, &r, &err), &err);
        nb_export_report_free(&r);
        snprintf(first, sizeof first, "%s/model.safetensors", in_folder(names[trips[i].source]));
        same_file(first, in_folder("back/model.safetensors"));
        drop("there");
        drop("back");
    }
}

/* Codes to floats: exact in f32, counted in bf16. */
static void floats(void **state)
{
    (void)state;
    for (int s = 0; s < SOURCES; s++) {
        nb_error         err;
        nb_export_report r;
        OK(export(in_folder(names[s]), "f32", NB_EXPORT_F32, &r, &err), &err);
        assert_true(r.rounded == 0 && r.coded == 0 && r.dequantized > 0);
        nb_export_report_free(&r);
        assert_int_equal(same_meaning(in_folder(names[s]), in_folder("f32"), NB_F32), 0);
        OK(export(in_folder(names[s]), "bf16", NB_EXPORT_BF16, &r, &err), &err);
        assert_true(r.worst > 0 && r.worst <= 0x1p-8);
        size_t matrices = same_meaning(in_folder(names[s]), in_folder("bf16"), NB_BF16);
        assert_true(matrices > 0 && r.rounded >= matrices); /* norms and biases are counted, too */
        nb_export_report_free(&r);
        opened o = open_dir(in_folder("bf16"));
        assert_true(o.config.quant.method == NB_QUANT_NONE && o.config.dtype == NB_BF16);
        nb_checkpoint_close(o.checkpoint);
        assert_false(nb_file_exists(in_folder("bf16/quantize_config.json")));
        opens(in_folder("bf16"));
        drop("f32");
        drop("bf16");
    }
}

/* A padded matrix: what was there in its corner, zeros elsewhere. */
static void check_padded(const float *was, const float *is, int n, int k, int rows, int columns, const char *name)
{
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++) {
            float want = r < n && c < k ? was[(size_t)r * (size_t)k + (size_t)c] : 0;
            if (!(is[(size_t)r * (size_t)columns + (size_t)c] == want)) fail_msg("%s [%d, %d]", name, r, c);
        }
}

static void padding(void **state)
{
    (void)state;
    static const struct { int source, tp, padded; } cases[] = {
        {GPTQ, 3, 1152}, {AWQ, 5, 1280}, {ORDERED, 12, 1536}, {CT8, 2, 1024}, {CT_ASYM, 7, 1792}, {MIXED, 3, 1152}, {TOWER, 16, 2048}, {-1, 3, 1152},
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        nb_error          err;
        nb_export_report  r;
        const char       *from = cases[i].source < 0 ? source : in_folder(names[cases[i].source]);
        nb_export_options o = {.model_dir = from, .out_dir = in_folder("padded"), .layout = NB_LAYOUT_NEW,
                               .tp = cases[i].tp, .shard_size = 3000000};
        OK(nb_export(&o, NULL, NULL, &r, &err), &err);
        assert_int_equal(r.padded, cases[i].padded);
        assert_int_equal(r.intermediate, 1024);
        nb_export_report_free(&r);
        opened x = open_dir(from), y = open_dir(in_folder("padded"));
        assert_int_equal(y.config.intermediate, cases[i].padded);
        assert_int_equal(nb_checkpoint_layout(y.checkpoint), NB_LAYOUT_NEW);
        assert_true(nb_checkpoint_shards(y.checkpoint) > 1);
        for (int m = 0; m < matrix_count(&x.config); m++) {
            nb_outer was, is;
            matrix_at(&was, &x.config, m);
            matrix_at(&is, &y.config, m);
            float *v = values_of(&x, was.name, was.n, was.k), *w = values_of(&y, is.name, is.n, is.k);
            check_padded(v, w, was.n, was.k, is.n, is.k, is.name);
            free(v);
            free(w);
        }
        nb_checkpoint_close(x.checkpoint);
        nb_checkpoint_close(y.checkpoint);
        opens(in_folder("padded"));
        drop("padded");
    }
}

/* New names and small shards, and back: the bytes of the source. */
static void names_and_shards(void **state)
{
    (void)state;
    for (int s = -1; s < SOURCES; s++) {
        nb_error          err;
        nb_export_report  r;
        char              first[1100];
        const char       *from = s < 0 ? source : in_folder(names[s]);
        nb_export_options o = {.model_dir = from, .out_dir = in_folder("new"), .layout = NB_LAYOUT_NEW, .shard_size = 700000};
        OK(nb_export(&o, NULL, NULL, &r, &err), &err);
        nb_export_report_free(&r);
        opened y = open_dir(in_folder("new"));
        assert_int_equal(nb_checkpoint_layout(y.checkpoint), NB_LAYOUT_NEW);
        for (size_t i = 0; i < nb_checkpoint_count(y.checkpoint); i++) {
            const char *name = nb_checkpoint_at(y.checkpoint, i)->tensor->name; /* as the file spells it */
            bool        good = !strncmp(name, "model.language_model.",
                                        21) || !strncmp(name, "model.visual.", 13) || !strncmp(name, "lm_head.", 8);
            if (!good) fail_msg("%s", name);
        }
        nb_checkpoint_close(y.checkpoint);
        o = (nb_export_options){.model_dir = in_folder("new"), .out_dir = in_folder("old"), .layout = NB_LAYOUT_OLD,
                                .shard_size = 1000000000};
        OK(nb_export(&o, NULL, NULL, &r, &err), &err);
        nb_export_report_free(&r);
        if (s >= 0) { /* the demo's own file was written by another program */
            snprintf(first, sizeof first, "%s/model.safetensors", from);
            same_file(first, in_folder("old/model.safetensors"));
            snprintf(first, sizeof first, "%s/config.json", from);
            same_file(first, in_folder("old/config.json"));
        }
        drop("new");
        drop("old");
    }
}

static bool stop_at_once(void *context, size_t done, size_t total, const char *what)
{
    (void)context, (void)total, (void)what;
    return done < 3;
}

static void refusals(void **state)
{
    (void)state;
    nb_error          err;
    nb_export_report  r;
    nb_export_options o = {.model_dir = source, .out_dir = in_folder("no"), .form = NB_EXPORT_AWQ, .layout = -1,
                           .shard_size = 1000000000};
    FAILS(nb_export(&o, NULL, NULL, &r, &err), NB_ERR_ARGUMENT, "float checkpoint", &err);
    o.model_dir = in_folder("nowhere");
    FAILS(nb_export(&o, NULL, NULL, &r, &err), NB_ERR_INPUT, "nowhere", &err);
    o.model_dir = o.out_dir = in_folder("gptq");
    o.force = true;
    FAILS(nb_export(&o, NULL, NULL, &r, &err), NB_ERR_ARGUMENT, "is the model itself", &err);
    o.out_dir = in_folder("awq");
    o.force = false;
    FAILS(nb_export(&o, NULL, NULL, &r, &err), NB_ERR_ARGUMENT, "exists", &err);
    o.out_dir = in_folder("no");
    o.form = NB_EXPORT_BF16;
    FAILS(nb_export(&o, stop_at_once, NULL, &r, &err), NB_ERR_STOPPED, "nothing was left", &err);
    assert_false(nb_file_exists(in_folder("no")) || nb_file_exists(in_folder("no.partial")));
    assert_null(r.notes.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form), cmocka_unit_test(there_and_back),   cmocka_unit_test(floats),
        cmocka_unit_test(padding),    cmocka_unit_test(names_and_shards), cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
