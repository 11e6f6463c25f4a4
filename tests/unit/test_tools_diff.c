/* test_tools_diff.c - diff between the demo model and copies of it that differ in one known thing, or in nothing that matters. */
#include "copies.h"
#include "kernels/float.h"
#include "program.h"
#include "runtime/model/linear.h"

static cJSON *diff(const char *a, const char *b, bool values, int code)
{
    int got = RUN("diff", a, b, "--json", values ? "--values" : "--no-values");
    if (got != code) fail_msg("diff %s %s: code %d\n%s", a, b, got, printed[0]);
    cJSON *report = printed_json();
    assert_int_equal(cJSON_IsTrue(nb_json_find(report, "same")), code == 0);
    return report;
}

static const cJSON *entry(const cJSON *report, const char *list, const char *where)
{
    const cJSON *d;
    cJSON_ArrayForEach(d, nb_json_find(report, list))
    {
        const cJSON *name = nb_json_find(d, !strcmp(list, "values") ? "matrix" : "where");
        if (!strcmp(name->valuestring, where)) return d;
    }
    return NULL;
}

/* One difference, at this place. */
static void differs_at(const char *copy, const char *where, const char *a, const char *b)
{
    cJSON       *report = diff(unit_path("tools/demo/model"), copy_path(copy, NULL), false, 1);
    const cJSON *d = entry(report, "differences", where);
    if (!d || cJSON_GetArraySize(nb_json_find(report, "differences")) != 1) fail_msg("expected one difference at %s:\n%s", where, printed[0]);
    if (a) assert_string_equal(nb_json_find(d, "a")->valuestring, a);
    if (b) assert_string_equal(nb_json_find(d, "b")->valuestring, b);
    cJSON_Delete(report);
}

static void same_as_demo(const char *copy, int notes)
{
    cJSON *report = diff(unit_path("tools/demo/model"), copy_path(copy, NULL), false, 0);
    if (cJSON_GetArraySize(nb_json_find(report, "notes")) < notes) fail_msg("expected %d notes:\n%s", notes, printed[0]);
    cJSON_Delete(report);
}

static cJSON *config(void)
{
    nb_error err;
    cJSON   *tree;
    OK(nb_json_file(&tree, unit_path("tools/demo/model/config.json"), 1 << 20, &err), &err);
    return tree;
}

static void put(const char *copy, const char *name, cJSON *tree)
{
    char *text = cJSON_Print(tree);
    make_copy(copy, false);
    replace_file(copy, name, text);
    free(text);
    cJSON_Delete(tree);
}

static void test_same(void **state)
{
    (void)state;
    const char *demo = unit_path("tools/demo/model");
    cJSON      *report = diff(demo, demo, true, 0);
    assert_int_equal(nb_json_find(report, "tensors_with_equal_values")->valueint, 129);
    cJSON_Delete(report);
    assert_int_equal(RUN("diff", demo, "/nowhere"), 5);
    assert_int_equal(RUN("diff", demo), 2);
}

static void test_config(void **state)
{
    (void)state;
    cJSON *tree = config();
    cJSON_ReplaceItemInObject(tree, "rope_theta", cJSON_CreateNumber(500000));
    put("theta", "config.json", tree);
    differs_at("theta", "rope_theta", "1000000", "500000");

    tree = config();
    cJSON_ReplaceItemInArray(cJSON_GetObjectItem(cJSON_GetObjectItem(tree, "rope_scaling"), "mrope_section"), 0, cJSON_CreateNumber(6));
    cJSON_ReplaceItemInArray(cJSON_GetObjectItem(cJSON_GetObjectItem(tree, "rope_scaling"), "mrope_section"), 1, cJSON_CreateNumber(14));
    put("sections", "config.json", tree);
    cJSON *report = diff(unit_path("tools/demo/model"), copy_path("sections", NULL), false, 1);
    assert_non_null(entry(report, "differences", "rope_scaling.mrope_section[0]"));
    assert_non_null(entry(report, "differences", "rope_scaling.mrope_section[1]"));
    assert_null(entry(report, "differences", "rope_scaling.mrope_section[2]"));
    cJSON_Delete(report);

    /* the same in other words: keys in another order, defaults left out, dtype, the dialect of transformers 5, nested text fields */
    tree = config();
    cJSON *nested = cJSON_AddObjectToObject(tree, "text_config"), *moved;
    static const char *const inside[] = {"hidden_size", "num_hidden_layers", "rope_theta", "vocab_size"};
    for (size_t i = 0; i < NB_COUNT(inside); i++) moved = cJSON_DetachItemFromObject(tree, inside[i]), cJSON_AddItemToObject(nested, inside[i], moved);
    moved = cJSON_DetachItemFromObject(tree, "torch_dtype"), cJSON_AddItemToObject(tree, "dtype", moved);
    moved = cJSON_DetachItemFromObject(tree, "model_type"), cJSON_AddItemToObject(tree, "model_type", moved);
    cJSON_DeleteItemFromObject(tree, "use_cache");
    cJSON_DeleteItemFromObject(tree, "attention_dropout");
    cJSON_ReplaceItemInObject(tree, "transformers_version", cJSON_CreateString("5.1.0"));
    moved = cJSON_DetachItemFromObject(tree, "rope_scaling");
    cJSON_DeleteItemFromObject(moved, "type");
    cJSON_AddStringToObject(moved, "rope_type", "default");
    cJSON_AddItemToObject(tree, "rope_scaling", moved);
    put("words", "config.json", tree);
    same_as_demo("words", 3); /* use_cache, attention_dropout, transformers_version */

    /* nested wins, as it does when it is loaded */
    tree = config();
    nested = cJSON_AddObjectToObject(tree, "text_config");
    cJSON_AddNumberToObject(nested, "rope_theta", 77);
    put("nested", "config.json", tree);
    differs_at("nested", "rope_theta", "1000000", "77");
}

static void test_side_files(void **state)
{
    (void)state;
    make_copy("warm", false);
    replace_file("warm", "generation_config.json", "{\"bos_token_id\":944,\"do_sample\":true,\"eos_token_id\":[944,946],\"pad_token_id\":944,\"temperature\":0.5,\"top_k\":1,"
                 "\"top_p\":0.001,\"repetition_penalty\":1.0}");
    differs_at("warm", "temperature", "0.1", "0.5"); /* the order of eos ids and a penalty of 1 mean nothing */

    make_copy("size", false);
    replace_file("size", "preprocessor_config.json", "{\"size\":{\"shortest_edge\":3136,\"longest_edge\":12845056},\"patch_size\":14,\"temporal_patch_size\":2,\"merge_size\":2,"
                 "\"image_mean\":[0.48145466,0.4578275,0.40821073],\"image_std\":[0.26862954,0.26130258,0.27577711]}");
    same_as_demo("size", 2);
    make_copy("pixels", false);
    replace_file("pixels", "preprocessor_config.json", "{\"min_pixels\":3136,\"max_pixels\":1003520,\"patch_size\":14,\"temporal_patch_size\":2,\"merge_size\":2,"
                 "\"image_mean\":[0.48145466,0.4578275,0.40821073],\"image_std\":[0.26862954,0.26130258,0.27577711]}");
    differs_at("pixels", "max_pixels", "12845056", "1003520");

    nb_error err;
    cJSON   *tree;
    OK(nb_json_file(&tree, unit_path("tools/demo/model/chat_template.json"), 1 << 20, &err), &err);
    nb_buf text = {0};
    nb_buf_printf(&text, "%s\n{# one line more #}", cJSON_GetStringValue(cJSON_GetObjectItem(tree, "chat_template")));
    make_copy("jinja", false);
    replace_file("jinja", "chat_template.jinja", cJSON_GetStringValue(cJSON_GetObjectItem(tree, "chat_template")));
    same_as_demo("jinja", 0); /* the same text from another file */
    replace_file("jinja", "chat_template.jinja", text.data);
    cJSON *report = diff(unit_path("tools/demo/model"), copy_path("jinja", NULL), false, 1);
    assert_non_null(strstr(printed[0], "\"template\""));
    cJSON_Delete(report);
    nb_buf_free(&text);
    cJSON_Delete(tree);

    make_copy("none", false);
    unlink(copy_path("none", "generation_config.json"));
    differs_at("none", "generation_config.json", "there", NULL);
}

static void test_tokenizer(void **state)
{
    (void)state;
    nb_error err;
    cJSON   *tree;
    OK(nb_json_file(&tree, unit_path("tools/demo/model/tokenizer.json"), 8 << 20, &err), &err);
    cJSON *model = cJSON_GetObjectItem(tree, "model"), *merges = cJSON_GetObjectItem(model, "merges"), *vocab = cJSON_GetObjectItem(model, "vocab");
    cJSON *third = cJSON_GetArrayItem(merges, 3), *fourth = cJSON_GetArrayItem(merges, 4), *child = third->child;
    third->child = fourth->child, fourth->child = child; /* merges 3 and 4 change places */
    cJSON_ReplaceItemInObject(cJSON_GetArrayItem(cJSON_GetObjectItem(tree, "added_tokens"), 0), "special", cJSON_CreateFalse());
    char name[64];
    snprintf(name, sizeof name, "vocab: %s", vocab->child->string);
    cJSON_SetNumberValue(vocab->child, 1023);
    put("tokens", "tokenizer.json", tree);
    cJSON *report = diff(unit_path("tools/demo/model"), copy_path("tokens", NULL), false, 1);
    if (cJSON_GetArraySize(nb_json_find(report, "differences")) != 4) fail_msg("%s", printed[0]);
    assert_non_null(entry(report, "differences", name));
    assert_non_null(entry(report, "differences", "merges: 3"));
    assert_non_null(entry(report, "differences", "merges: 4"));
    assert_non_null(entry(report, "differences", "added tokens: id 944"));
    cJSON_Delete(report);
}

static void test_values(void **state)
{
    (void)state;
    const char *demo = unit_path("tools/demo/model"), *name = "model.layers.2.mlp.up_proj";
    make_copy("value", true);
    nb_error        err;
    nb_safetensors *f;
    OK(nb_safetensors_open(&f, unit_path("tools/demo/model/model.safetensors"), &err), &err);
    const nb_tensor *t = nb_safetensors_find(f, "model.layers.2.mlp.up_proj.weight");
    uint16_t        *raw = malloc(t->bytes);
    OK(nb_safetensors_read(f, t, raw, 0, t->bytes, &err), &err);
    double sum = 0, old = nb_bf16_to_f32(raw[777]);
    for (size_t i = 0; i < t->count; i++) sum += (double)nb_bf16_to_f32(raw[i]) * nb_bf16_to_f32(raw[i]);
    poke("value", "model.layers.2.mlp.up_proj.weight", 777, nb_f32_to_bf16(2));
    poke("value", "model.norm.weight", 5, 0x7fc0); /* NaN */
    cJSON_Delete(diff(demo, copy_path("value", NULL), false, 0)); /* headers are the same */
    cJSON       *report = diff(demo, copy_path("value", NULL), true, 1);
    const cJSON *row = entry(report, "values", name);
    if (!row) row = entry(report, "values", "model.layers.2.mlp.up_proj.weight");
    assert_non_null(row);
    NEAR(nb_json_find(row, "max_abs")->valuedouble, fabs(2 - old), 1e-12);
    NEAR(nb_json_find(row, "relative")->valuedouble, fabs(2 - old) / sqrt(sum), 1e-9);
    assert_non_null(entry(report, "values", "model.norm.weight"));
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(entry(report, "values", "model.norm.weight"), "relative"))); /* not finite */
    assert_int_equal(cJSON_GetArraySize(nb_json_find(report, "values")), 2);
    assert_int_equal(nb_json_find(report, "tensors_with_equal_values")->valueint, 127);
    cJSON_Delete(report);
    free(raw);
    nb_safetensors_close(f);
}

/* What diff says of a packed matrix, against all of it at once in plain loops. */
static void test_packed_values(void **state)
{
    (void)state;
    const char *demo = unit_path("tools/demo/model"), *name = "model.layers.1.mlp.down_proj";
    char        packed[300];
    nb_error    err;
    snprintf(packed, sizeof packed, "%s", copy_path("packed", NULL));
    assert_int_equal(RUN("quantize", demo, "--method", "rtn", "--asym", "--format", "gptq_v2", "--out", packed), 0);
    nb_config       config[2];
    nb_checkpoint  *c[2];
    nb_linear       l[2];
    float          *w[2];
    nb_buf          notes = {0};
    for (int i = 0; i < 2; i++) {
        OK(nb_config_open(&config[i], i ? packed : demo, &notes, &err), &err);
        OK(nb_checkpoint_open(&c[i], i ? packed : demo, &err), &err);
        OK(nb_linear_read(&l[i], c[i], &config[i].quant, name, 256, 1024, 0, &err), &err);
        w[i] = malloc(256 * 1024 * sizeof(float));
        nb_weights_to_f32(w[i], &l[i].weights);
    }
    double error2 = 0, size2 = 0, most = 0;
    for (int i = 0; i < 256 * 1024; i++) {
        double d = (double)w[0][i] - w[1][i];
        error2 += d * d;
        size2 += (double)w[0][i] * w[0][i];
        most = fabs(d) > most ? fabs(d) : most;
    }
    cJSON       *report = diff(demo, packed, true, 1);
    const cJSON *row = entry(report, "values", name);
    assert_non_null(row);
    NEAR(nb_json_find(row, "relative")->valuedouble, sqrt(error2 / size2), 1e-9);
    NEAR(nb_json_find(row, "max_abs")->valuedouble, most, 1e-12);
    cJSON_Delete(report);
    for (int i = 0; i < 2; i++) {
        free(w[i]);
        nb_linear_free(&l[i]);
        nb_checkpoint_close(c[i]);
    }
    nb_buf_free(&notes);
}

/* The same codes in two forms are the same matrices; another seed of random weights is not. */
static void test_forms(void **state)
{
    (void)state;
    const char *demo = unit_path("tools/demo/model");
    char        awq[300], gptq[300], one[300], two[300], three[300];
    snprintf(awq, sizeof awq, "%s", copy_path("awq", NULL));
    snprintf(gptq, sizeof gptq, "%s", copy_path("gptq", NULL));
    assert_int_equal(RUN("quantize", demo, "--method", "rtn", "--sym", "--format", "awq", "--out", awq), 0);
    assert_int_equal(RUN("quantize", demo, "--method", "rtn", "--sym", "--format", "gptq", "--out", gptq), 0);
    cJSON *report = diff(awq, gptq, true, 1);
    assert_non_null(entry(report, "differences", "model.layers.0.self_attn.q_proj"));
    assert_int_equal(cJSON_GetArraySize(nb_json_find(report, "values")), 0);
    assert_int_equal(nb_json_find(report, "tensors_with_equal_values")->valueint, 129);
    cJSON_Delete(report);
    report = diff(demo, awq, true, 1);
    const cJSON *row = entry(report, "values", "model.layers.0.mlp.down_proj");
    assert_non_null(row);
    assert_true(nb_json_find(row, "relative")->valuedouble > 0.01 && nb_json_find(row, "relative")->valuedouble < 0.2);
    assert_true(nb_json_find(row, "cosine")->valuedouble > 0.98);
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(row, "codes")));
    cJSON_Delete(report);

    snprintf(one, sizeof one, "%s", copy_path("one", NULL));
    snprintf(two, sizeof two, "%s", copy_path("two", NULL));
    snprintf(three, sizeof three, "%s", copy_path("three", NULL));
    assert_int_equal(RUN("synth", "tiny", "--out", one), 0);
    assert_int_equal(RUN("synth", "tiny", "--layout", "new", "--out", two), 0);
    assert_int_equal(RUN("synth", "tiny", "--seed", "1", "--out", three), 0);
    report = diff(one, two, true, 0); /* names and config in the other layout */
    assert_non_null(entry(report, "notes", "names"));
    cJSON_Delete(report);
    report = diff(one, three, true, 1);
    assert_int_equal(cJSON_GetArraySize(nb_json_find(report, "differences")), 0);
    assert_true(cJSON_GetArraySize(nb_json_find(report, "values")) > 20);
    cJSON_Delete(report);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same),      cmocka_unit_test(test_config), cmocka_unit_test(test_side_files),
                                       cmocka_unit_test(test_tokenizer), cmocka_unit_test(test_values), cmocka_unit_test(test_forms),
                                       cmocka_unit_test(test_packed_values)};
    return cmocka_run_group_tests(tests, copies_start, copies_end);
}
