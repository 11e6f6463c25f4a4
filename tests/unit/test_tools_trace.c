/* test_tools_trace.c - traces of the demo model against what transformers computed (tests/golden), against copies of the model that are
 * broken in one place, and against a run that nobody watches. */
#include "copies.h"
#include "golden.h"
#include "program.h"
#include "runtime/engine/engine.h"

#define PROMPTS unit_path("tests/golden/prompts.jsonl")

static int trace(const char *model, const char *row, const char *out, const char *extra)
{
    return RUN("trace", model, "--messages", PROMPTS, "--image-root", unit_path("tests/golden"), "--row", row, "--out", out, "--force",
               extra ? extra : "--no-all-logits");
}

/* {"agree": ..., "first": {"tensor": ...}} */
static cJSON *compare(const char *a, const char *b, const char *tolerance, int code)
{
    int got = RUN("trace", "--compare", a, b, "--tol", tolerance, "--json");
    if (got != code) fail_msg("compare %s %s: code %d\n%s", a, b, got, printed[0]);
    return printed_json();
}

static int compared(const cJSON *report)
{
    const cJSON *t;
    int          n = 0;
    cJSON_ArrayForEach(t, nb_json_find(report, "tensors")) n += strncmp(nb_json_find(t, "verdict")->valuestring, "only", 4) != 0;
    return n;
}

/* Stored by tests/interop/trace_reference.py: one layer, the tower and the end, in float16. */
static void test_reference(void **state)
{
    (void)state;
    char mine[300];
    snprintf(mine, sizeof mine, "%s", copy_path("three.safetensors", NULL));
    assert_int_equal(trace(unit_path("tools/demo/model"), "3", mine, "--all-logits"), 0);
    cJSON *report = compare(unit_path("tests/golden/trace.safetensors"), mine, "0.001", 0);
    assert_int_equal(compared(report), 2 + 4 + 4 + 7 + 3); /* ids, positions; grid, pixels, patches, rows; blocks; layer 3; the end */
    cJSON_Delete(report);
    /* the last row alone is found in the whole */
    assert_int_equal(trace(unit_path("tools/demo/model"), "3", mine, NULL), 0);
    report = compare(unit_path("tests/golden/trace.safetensors"), mine, "0.001", 0);
    assert_int_equal(compared(report), 20);
    cJSON_Delete(report);
    report = compare(unit_path("tests/golden/trace.safetensors"), mine, "0.0000001", 1); /* float16 is not float32 */
    cJSON_Delete(report);
}

/* The stored hidden states of the golden prompts: hidden.N enters layer N, the last one comes out of the norm. */
static void test_golden(void **state)
{
    (void)state;
    golden   g;
    nb_error err;
    golden_open(&g);
    for (int prompt = 0; prompt < 4; prompt++) {
        char            row[8], name[32];
        nb_safetensors *f;
        snprintf(row, sizeof row, "%d", prompt + 1);
        assert_int_equal(trace(unit_path("tools/demo/model"), row, copy_path("golden.safetensors", NULL), "--all-logits"), 0);
        OK(nb_safetensors_open(&f, copy_path("golden.safetensors", NULL), &err), &err);
        for (int layer = 0; layer <= 7; layer++) {
            size_t n;
            snprintf(name, sizeof name, layer == 7 ? "logits" : "hidden.%d", layer);
            float *want = golden_tensor(&g, prompt, name, &n);
            assert_non_null(want);
            snprintf(name, sizeof name, layer == 7 ? "logits" : layer == 6 ? "final.norm" : "layer.%d.input", layer);
            const nb_tensor *t = nb_safetensors_find(f, name);
            assert_non_null(t);
            assert_int_equal(t->count, n);
            float *got = malloc(t->bytes);
            OK(nb_safetensors_read(f, t, got, 0, t->bytes, &err), &err);
            NEAR(unit_rms(got, want, n), 0, 1e-4);
            free(got);
            free(want);
        }
        nb_safetensors_close(f);
    }
    golden_close(&g);
}

/* A weight that is wrong in one place is found where it first shows. */
static void test_broken_weights(void **state)
{
    (void)state;
    static const struct {
        const char *tensor;
        size_t      element;
        const char *first;
    } cases[] = {
        {"model.layers.3.mlp.down_proj.weight", 7, "layer.3.mlp_out"},
        {"model.layers.2.self_attn.k_proj.bias", 3, "layer.2.k"},
        {"model.layers.4.self_attn.v_proj.weight", 5, "layer.4.v"},
        {"model.layers.1.self_attn.o_proj.weight", 11, "layer.1.attn_out"},
        {"model.layers.0.input_layernorm.weight", 9, "layer.0.q"},
        {"model.layers.5.post_attention_layernorm.weight", 9, "layer.5.mlp_out"},
        {"visual.blocks.1.mlp.fc2.bias", 20, "visual.0.block.1"},
        {"visual.patch_embed.proj.weight", 30, "visual.0.patches"},
        {"visual.merger.mlp.2.bias", 4, "visual.0.rows"},
        {"model.norm.weight", 8, "final.norm"},
    };
    char good[300], bad[300];
    snprintf(good, sizeof good, "%s", copy_path("good.safetensors", NULL));
    snprintf(bad, sizeof bad, "%s", copy_path("bad.safetensors", NULL));
    assert_int_equal(trace(unit_path("tools/demo/model"), "1", good, NULL), 0);
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        make_copy("broken", true);
        poke("broken", cases[i].tensor, cases[i].element, 0x4180); /* 16 */
        assert_int_equal(trace(copy_path("broken", NULL), "1", bad, NULL), 0);
        cJSON      *report = compare(good, bad, "0.001", 1);
        const char *first = nb_json_find(nb_json_find(report, "first"), "tensor")->valuestring;
        if (strcmp(first, cases[i].first)) fail_msg("%s: first at %s, expected %s", cases[i].tensor, first, cases[i].first);
        cJSON_Delete(report);
        OK(nb_remove_folder(copy_path("broken", NULL), NULL), &(nb_error){0});
    }
    /* a NaN is a difference, and the first one */
    make_copy("broken", true);
    poke("broken", "model.layers.2.input_layernorm.weight", 0, 0x7fc0);
    assert_int_equal(trace(copy_path("broken", NULL), "1", bad, NULL), 0);
    cJSON *report = compare(good, bad, "1000", 1);
    assert_string_equal(nb_json_find(nb_json_find(report, "first"), "tensor")->valuestring, "layer.2.q");
    cJSON_Delete(report);
}

static nb_status keep(void *context, nb_sequence *s, size_t row, float *logits, nb_error *err)
{
    (void)s, (void)row, (void)err;
    memcpy(context, logits, 1024 * sizeof *logits);
    return NB_OK;
}

/* Watching changes no bit, and neither does the way in which the prompt is cut. */
static void test_watching(void **state)
{
    (void)state;
    golden    g;
    nb_error  err;
    nb_pool  *pool;
    nb_ops    ops;
    nb_model *model;
    nb_isa    isa;
    nb_prompt p;
    float     plain[1024], watched[1024];
    char      one[300], two[300];
    OK(nb_pool_new(&pool, 2, &err), &err);
    OK(nb_isa_from_environment(&isa, &err), &err);
    nb_ops_init(&ops, isa, pool);
    OK(nb_model_open(&model, GOLDEN_MODEL, &ops, 0, &err), &err);
    assert_int_equal(model->config.vocab, 1024);
    golden_open(&g);
    golden_prompt(&g, 0, model, &p);
    nb_engine          *e;
    nb_sequence        *s;
    size_t              advanced;
    nb_engine_options   options = {.max_tokens = 256, .kv_type = NB_F32};
    nb_sequence_options so = {.total = p.count, .logits_from = p.count - 1, .on_logits = keep, .context = plain};
    OK(nb_engine_new(&e, model, &options, &err), &err);
    OK(nb_sequence_new(&s, e, &p, &so, &err), &err);
    do OK(nb_engine_step(e, &advanced, &err), &err);
    while (advanced);
    nb_sequence_free(s);
    nb_engine_free(e);
    snprintf(one, sizeof one, "%s", copy_path("one.safetensors", NULL));
    snprintf(two, sizeof two, "%s", copy_path("two.safetensors", NULL));
    assert_int_equal(trace(GOLDEN_MODEL, "1", one, NULL), 0);
    assert_int_equal(trace(GOLDEN_MODEL, "1", two, "--prefill-chunk=13"), 0);
    nb_safetensors *f;
    OK(nb_safetensors_open(&f, one, &err), &err);
    OK(nb_safetensors_read(f, nb_safetensors_find(f, "logits"), watched, 0, sizeof watched, &err), &err);
    assert_memory_equal(plain, watched, sizeof plain);
    nb_safetensors_close(f);
    nb_buf a = {0}, b = {0};
    OK(nb_file_read(&a, one, 64 << 20, &err), &err);
    OK(nb_file_read(&b, two, 64 << 20, &err), &err);
    assert_int_equal(a.size, b.size);
    assert_memory_equal(a.data, b.data, a.size);
    nb_buf_free(&a);
    nb_buf_free(&b);
    nb_prompt_free(&p);
    golden_close(&g);
    nb_model_close(model);
    nb_pool_free(pool);
}

static void test_use(void **state)
{
    (void)state;
    const char *demo = unit_path("tools/demo/model");
    char        out[300];
    snprintf(out, sizeof out, "%s", copy_path("use.safetensors", NULL));
    assert_int_equal(RUN("trace", demo, "-p", "Hi", "--out", out, "--layers", "0,5"), 0);
    assert_int_equal(RUN("trace", demo, "-p", "Hi", "--out", out), 2); /* it is there */
    nb_error        err;
    nb_safetensors *f;
    OK(nb_safetensors_open(&f, out, &err), &err);
    assert_non_null(nb_safetensors_find(f, "layer.5.q"));
    assert_null(nb_safetensors_find(f, "layer.4.q"));
    assert_null(nb_safetensors_find(f, "visual.0.rows"));
    assert_string_equal(nb_safetensors_metadata(f, "format"), "pt");
    nb_safetensors_close(f);
    assert_int_equal(RUN("trace", demo, "-p", "Hi", "--out", out, "--force", "--layers", "6"), 2);
    assert_int_equal(RUN("trace", demo, "-p", "Hi"), 2);
    assert_int_equal(RUN("trace", demo, "--out", out), 2);
    assert_int_equal(RUN("trace", demo, "--messages", PROMPTS, "--row", "41", "--out", copy_path("no.safetensors", NULL)), 5);
    assert_false(nb_file_exists(copy_path("no.safetensors", NULL)));
    assert_int_equal(RUN("trace", "--compare", out), 2);
    assert_int_equal(RUN("trace", "--compare", out, "/nowhere"), 5);
    assert_int_equal(RUN("trace", "--compare", out, unit_path("tools/demo/model/model.safetensors")), 5); /* nothing in common */
    /* another prompt: the ids part first */
    char other[300];
    snprintf(other, sizeof other, "%s", copy_path("other.safetensors", NULL));
    assert_int_equal(RUN("trace", demo, "-p", "Ho", "--out", other), 0);
    cJSON *report = compare(out, other, "0.001", 1);
    assert_string_equal(nb_json_find(nb_json_find(report, "first"), "tensor")->valuestring, "input_ids");
    cJSON_Delete(report);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_reference), cmocka_unit_test(test_golden), cmocka_unit_test(test_broken_weights),
                                       cmocka_unit_test(test_watching), cmocka_unit_test(test_use)};
    return cmocka_run_group_tests(tests, copies_start, copies_end);
}
