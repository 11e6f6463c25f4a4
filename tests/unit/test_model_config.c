/* test_model_config.c - config.json in the layouts that exist, the published files, quantization blocks of every form, and
 * generation_config.json. */
#include "runtime/model/config.h"
#include "temp_files.h"

#define TEXT                                                                                                                        \
    "\"hidden_size\": 64, \"intermediate_size\": 128, \"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"num_key_value_heads\": 2," \
    "\"vocab_size\": 1000, \"max_position_embeddings\": 4096, \"rms_norm_eps\": 1e-6, \"rope_theta\": 1000000.0,"
#define IDS "\"vision_start_token_id\": 1, \"vision_end_token_id\": 2, \"image_token_id\": 3, \"video_token_id\": 4"
#define ROPE   "\"rope_scaling\": {\"type\": \"mrope\", \"mrope_section\": [2, 3, 3]},"
#define VISION "\"vision_config\": {\"hidden_size\": 64}, \"model_type\": \"qwen2_vl\","

static nb_buf notes;

static nb_status open_text(nb_config *c, const char *text, nb_error *err)
{
    write_file("config.json", text);
    nb_buf_clear(&notes);
    return nb_config_open(c, folder, &notes, err);
}

#define CT_GROUPS(weights) \
    "{\"quant_method\": \"compressed-tensors\", \"format\": \"pack-quantized\", \"config_groups\": {\"a\": {\"weights\": {" weights "}}}}"

static void test_layouts(void **state)
{
    (void)state;
    nb_error  err;
    nb_config c;
    OK(open_text(&c, "{" TEXT ROPE VISION IDS "}", &err), &err);
    assert_int_equal(c.head_dim, 16);
    assert_int_equal(c.v_depth, 32); /* the class defaults */
    assert_int_equal(c.v_dim, 1280);
    assert_int_equal(c.v_inner, 5120);
    assert_int_equal(c.v_head_dim, 80);
    assert_false(c.tied);
    assert_int_equal(c.quant.method, NB_QUANT_NONE);
    /* nested text_config wins over the top level; transformers 5 names */
    OK(open_text(&c, "{\"hidden_size\": 99, " VISION IDS ", \"tie_word_embeddings\": true, \"dtype\": \"float16\", \"text_config\": {" TEXT
                     "\"rope_parameters\": {\"rope_theta\": 10000.0, \"rope_type\": \"default\", \"mrope_section\": [2, 3, 3]}}}",
                 &err),
       &err);
    assert_int_equal(c.hidden, 64);
    assert_true(c.tied);
    assert_int_equal(c.dtype, NB_F16);
    NEAR(c.rope_theta, 1e6, 0); /* the plain field is there and counts */
    /* YaRN: the factor of the dict, with a note where other versions would read another */
    OK(open_text(&c, "{" TEXT VISION IDS ", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4, \"mrope_section\": [2, 3, 3],"
                     "\"original_max_position_embeddings\": 2048}}",
                 &err),
       &err);
    assert_true(c.yarn);
    NEAR(c.yarn_attention, 0.1 * log(4) + 1, 1e-12);
    assert_non_null(strstr(notes.data, "would take max_position_embeddings / original_max_position_embeddings = 2"));
}

static void test_published(void **state)
{
    (void)state;
    NEEDS_DATA("qwen2-vl-2b-instruct-awq/config.json");
    nb_error             err;
    nb_config            c;
    nb_generation_config g;
    nb_buf_clear(&notes);
    OK(nb_config_open(&c, unit_data("qwen2-vl-2b-instruct-awq"), &notes, &err), &err);
    assert_int_equal(c.hidden, 1536);
    assert_int_equal(c.layers, 28);
    assert_int_equal(c.mrope[1], 24);
    assert_int_equal(c.v_depth, 32);
    assert_int_equal(c.quant.method, NB_QUANT_AWQ);
    assert_int_equal(c.quant.bits, 4);
    assert_int_equal(c.quant.group, 128);
    assert_int_equal(c.image_pad, 151655);
    assert_true(c.tied);
    OK(nb_config_open(&c, unit_data("qwen2-vl-2b-instruct"), &notes, &err), &err);
    assert_int_equal(c.quant.method, NB_QUANT_NONE);
    OK(nb_generation_config_open(&g, unit_data("qwen2-vl-2b-instruct-awq"), &err), &err);
    assert_int_equal(g.eos_count, 2);
    assert_int_equal(g.top_k, 1);
    NEAR(g.temperature, 0.01, 1e-12);
}

static void test_quantization(void **state)
{
    (void)state;
    nb_error  err;
    nb_config c;
    char      text[2048];
    struct {
        const char     *block;
        struct { nb_quant_method method; int bits, group; bool sym, desc_act, v2; } want;
        nb_status       status;
        const char     *part;
    } cases[] = {
        { "{\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": 128, \"zero_point\": true, \"version\": \"gemm\"}",
          { NB_QUANT_AWQ, 4, 128, false, false, false }, NB_OK, "" },
        { "{\"quant_method\": \"awq\", \"w_bit\": 4, \"q_group_size\": 64, \"version\": \"GEMM\"}", { NB_QUANT_AWQ, 4, 64, false, false, false }, NB_OK, "" },
        { "{\"quant_method\": \"gptq\", \"bits\": 8, \"group_size\": -1, \"sym\": true, \"desc_act\": true}",
          { NB_QUANT_GPTQ, 8, 0, true, true, false }, NB_OK, "" },
        { "{\"bits\": 4, \"group_size\": 32, \"sym\": false, \"checkpoint_format\": \"gptq_v2\"}", { NB_QUANT_GPTQ, 4, 32, false, false, true }, NB_OK, "" },
        { "{\"quant_method\": \"compressed-tensors\", \"format\": \"pack-quantized\", \"config_groups\": {\"group_0\": {\"targets\": [\"Linear\"],"
          "\"weights\": {\"num_bits\": 8, \"type\": \"int\", \"symmetric\": true, \"strategy\": \"channel\"}}}}",
          { NB_QUANT_CT, 8, 0, true, false, false }, NB_OK, "" },
        { "{\"quant_method\": \"compressed-tensors\", \"format\": \"pack-quantized\", \"config_groups\": {}}", { 0 }, NB_ERR_INPUT, "config_groups" },
        { CT_GROUPS("\"num_bits\": 8, \"type\": \"float\""), { 0 }, NB_ERR_UNSUPPORTED, "type 'float'" },
        { CT_GROUPS("\"num_bits\": 3, \"group_size\": 32"), { 0 }, NB_ERR_UNSUPPORTED, "3 bits" },
        { CT_GROUPS("\"num_bits\": 4, \"strategy\": \"block\""), { 0 }, NB_ERR_UNSUPPORTED, "block" },
        { "{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 128, \"dynamic\": []}", { 0 }, NB_ERR_INPUT, "dynamic is not an object" },
        { "{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 128, \"dynamic\": {\"+:x\": 3}}", { 0 }, NB_ERR_INPUT, "dynamic['+:x']" },
        { "{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 128, \"dynamic\": {\"x\": {\"bits\": 2}}}", { 0 }, NB_ERR_UNSUPPORTED, "2 bits" },
        { "{\"quant_method\": \"gptq\", \"bits\": 3, \"group_size\": 128}", { 0 }, NB_ERR_UNSUPPORTED, "3 bits" },
        { "{\"quant_method\": \"awq\", \"bits\": 8, \"group_size\": 128}", { 0 }, NB_ERR_INPUT, "AWQ with 8 bits" },
        { "{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 0}", { 0 }, NB_ERR_INPUT, "group_size is 0" },
        { "{\"quant_method\": \"gptq\", \"bits\": 4}", { 0 }, NB_ERR_INPUT, "group_size is missing" },
        { "{\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": 128, \"version\": \"gemv\"}", { 0 }, NB_ERR_UNSUPPORTED, "gemv" },
        { "{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 128, \"checkpoint_format\": \"marlin\"}", { 0 }, NB_ERR_UNSUPPORTED, "marlin" },
        { "{\"quant_method\": \"bitsandbytes\", \"bits\": 4, \"group_size\": 128}", { 0 }, NB_ERR_UNSUPPORTED, "bitsandbytes" },
        { "{\"quant_method\": \"compressed-tensors\", \"format\": \"int-quantized\"}", { 0 }, NB_ERR_UNSUPPORTED, "int-quantized" },
        { "[4]", { 0 }, NB_ERR_INPUT, "not an object" },
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        snprintf(text, sizeof text, "{" TEXT ROPE VISION IDS ", \"quantization_config\": %s}", cases[i].block);
        if (cases[i].status != NB_OK) {
            FAILS(open_text(&c, text, &err), cases[i].status, cases[i].part, &err);
            continue;
        }
        OK(open_text(&c, text, &err), &err);
        assert_int_equal(c.quant.method, cases[i].want.method);
        assert_int_equal(c.quant.bits, cases[i].want.bits);
        assert_int_equal(c.quant.group, cases[i].want.group);
        assert_int_equal(c.quant.sym, cases[i].want.sym);
        assert_int_equal(c.quant.desc_act, cases[i].want.desc_act);
        assert_int_equal(c.quant.v2, cases[i].want.v2);
    }
    /* beside config.json, as the oldest files have it */
    write_file("quant_config.json", "{\"zero_point\": true, \"q_group_size\": 128, \"w_bit\": 4, \"version\": \"GEMM\"}");
    OK(open_text(&c, "{" TEXT ROPE VISION IDS "}", &err), &err);
    assert_int_equal(c.quant.method, NB_QUANT_AWQ);
    char path[256];
    snprintf(path, sizeof path, "%s/quant_config.json", folder);
    unlink(path);
}

/* Schemes beside the main one: each once, with what a rule leaves out taken from the main one. */
static void test_mixed_quantization(void **state)
{
    (void)state;
    nb_error    err;
    nb_config   c;
    char        text[4096];
    const char *gptq = "{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 128, \"sym\": true, \"dynamic\": {\"-:a\": {}, "
                       "\"+:b\": {\"bits\": 8, \"group_size\": 32}, \"c\": {\"bits\": 8}, \"d\": {\"group_size\": 32, \"bits\": 8}, "
                       "\"e\": {\"desc_act\": true, \"sym\": false, \"group_size\": -1}, \"f\": {}}}";
    snprintf(text, sizeof text, "{" TEXT ROPE VISION IDS ", \"quantization_config\": %s}", gptq);
    OK(open_text(&c, text, &err), &err);
    assert_int_equal(c.quant.bits, 4);
    assert_int_equal(c.quant.more_count, 3);
    assert_true(c.quant.more[0].bits == 8 && c.quant.more[0].group == 32 && c.quant.more[0].sym && !c.quant.more[0].desc_act);
    assert_true(c.quant.more[1].bits == 8 && c.quant.more[1].group == 128);
    assert_true(c.quant.more[2].bits == 4 && c.quant.more[2].group == 0 && !c.quant.more[2].sym && c.quant.more[2].desc_act);
    snprintf(text, sizeof text, "{" TEXT ROPE VISION IDS ", \"quantization_config\": %s}",
             CT_GROUPS("\"num_bits\": 4, \"group_size\": 64, \"symmetric\": false, \"actorder\": \"group\"}}, \"b\": {\"weights\": "
                       "{\"num_bits\": 8, \"strategy\": \"channel\", \"actorder\": \"static\""));
    OK(open_text(&c, text, &err), &err);
    assert_true(c.quant.method == NB_QUANT_CT && c.quant.bits == 4 && c.quant.group == 64 && !c.quant.sym && c.quant.desc_act);
    assert_int_equal(c.quant.more_count, 1);
    assert_true(c.quant.more[0].bits == 8 && c.quant.more[0].group == 0 && c.quant.more[0].sym && !c.quant.more[0].desc_act);
    int used = snprintf(text, sizeof text, "{" TEXT ROPE VISION IDS ", \"quantization_config\": {\"quant_method\": \"gptq\", \"bits\": 4, "
                        "\"group_size\": 1, \"dynamic\": {\"x\": {}");
    for (int i = 0; i <= NB_QUANT_SCHEMES; i++)
        used += snprintf(text + used, sizeof text - (size_t)used, ", \"x%d\": {\"group_size\": %d}", i, i + 2);
    snprintf(text + used, sizeof text - (size_t)used, "}}}");
    FAILS(open_text(&c, text, &err), NB_ERR_UNSUPPORTED, "more than 16 schemes", &err);
}

static void test_refusals(void **state)
{
    (void)state;
    nb_error  err;
    nb_config c;
    struct {
        const char *text;
        nb_status   status;
        const char *part;
    } cases[] = {
        { "{", NB_ERR_INPUT, "line 1" },
        { "{}", NB_ERR_INPUT, "model_type" },
        { "{\"model_type\": \"llama\"}", NB_ERR_UNSUPPORTED, "llama" },
        { "{\"model_type\": \"qwen2_vl\"}", NB_ERR_INPUT, "hidden_size" },
        { "{" TEXT VISION IDS "}", NB_ERR_INPUT, "rope_scaling is missing" },
        { "{" TEXT VISION IDS ", \"rope_scaling\": {\"type\": \"mrope\", \"mrope_section\": [2, 3, 4]}}", NB_ERR_INPUT, "sums to 9" },
        { "{" TEXT VISION IDS ", \"rope_scaling\": {\"type\": \"linear\", \"mrope_section\": [2, 3, 3]}}", NB_ERR_UNSUPPORTED, "linear" },
        { "{" TEXT ROPE IDS ", \"model_type\": \"qwen2_vl\"}", NB_ERR_INPUT, "vision_config" },
        { "{" TEXT ROPE IDS ", \"model_type\": \"qwen2_vl\", \"vision_config\": {\"hidden_size\": 65}}", NB_ERR_INPUT, "hidden_size 65" },
        { "{" TEXT ROPE VISION "\"vision_start_token_id\": 1}", NB_ERR_INPUT, "vision_end_token_id" },
        { "{" TEXT ROPE VISION IDS ", \"use_sliding_window\": true}", NB_ERR_UNSUPPORTED, "sliding" },
        { "{" TEXT ROPE VISION IDS ", \"hidden_act\": \"gelu\"}", NB_ERR_UNSUPPORTED, "gelu" },
        { "{" TEXT ROPE VISION IDS ", \"head_dim\": 15}", NB_ERR_INPUT, "heads of 15" },
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) FAILS(open_text(&c, cases[i].text, &err), cases[i].status, cases[i].part, &err);
    FAILS(nb_config_open(&c, "/nowhere", &notes, &err), NB_ERR_INPUT, "no config.json", &err);
}

static void test_generation(void **state)
{
    (void)state;
    nb_error             err;
    nb_generation_config g;
    write_file("config.json", "{\"eos_token_id\": 7}");
    OK(nb_generation_config_open(&g, folder, &err), &err); /* no file: greedy, config.json's end token */
    assert_false(g.do_sample);
    assert_int_equal(g.eos_count, 1);
    assert_int_equal(g.eos[0], 7);
    write_file("generation_config.json", "{\"do_sample\": true, \"top_k\": 1, \"top_p\": 0.001, \"temperature\": 0.1, "
                                         "\"repetition_penalty\": 1.05, \"eos_token_id\": [5, 6]}");
    OK(nb_generation_config_open(&g, folder, &err), &err);
    assert_true(g.do_sample);
    NEAR(g.repetition_penalty, 1.05, 1e-12);
    assert_int_equal(g.eos[1], 6);
    write_file("generation_config.json", "{\"eos_token_id\": \"x\"}");
    FAILS(nb_generation_config_open(&g, folder, &err), NB_ERR_INPUT, "eos_token_id", &err);
    write_file("generation_config.json", "{\"temperature\": -1}");
    FAILS(nb_generation_config_open(&g, folder, &err), NB_ERR_INPUT, "temperature", &err);
}

static int finish(void **state)
{
    nb_buf_free(&notes);
    return clean_up(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_layouts), cmocka_unit_test(test_published), cmocka_unit_test(test_quantization),
                                        cmocka_unit_test(test_mixed_quantization), cmocka_unit_test(test_refusals), cmocka_unit_test(test_generation) };
    return cmocka_run_group_tests(tests, NULL, finish);
}
