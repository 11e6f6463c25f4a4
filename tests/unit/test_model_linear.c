/* Linear layers out of every published form against stored float32 matrices, bit for bit, and what a reader must refuse.
 * The fixture is made by tests/oracle/tiny_quantized.py, which packs by itself and never sees this reader. */
#include "unit.h"

#include "runtime/io/safetensors.h"
#include "runtime/model/linear.h"

#define FIXTURE "tests/golden/tiny_quantized"

static nb_checkpoint *checkpoint;

static const nb_quant_config no_config;
#define AWQ(group_size)             { .method = NB_QUANT_AWQ, .bits = 4, .group = group_size }
#define GPTQ(width, group_size, vv) { .method = NB_QUANT_GPTQ, .bits = width, .group = group_size, .v2 = vv }
#define CT(width, group_size, even) { .method = NB_QUANT_CT, .bits = width, .group = group_size, .sym = even }

/* Which rows hold g_idx that permutes: only those may keep it, since a kernel pays for it. */
static const struct {
    const char     *prefix;
    int             n, k;
    nb_quant_config q;
    bool            permuted, bias;
} layers[] = {
    { "awq_g32", 24, 96, AWQ(32), false, true },
    { "awq_row_bf16", 16, 64, AWQ(0), false, false },
    { "gptq4_sym", 16, 96, GPTQ(4, 32, false), false, false },
    { "gptq4_asym", 24, 64, GPTQ(4, 32, false), false, false },
    { "gptq4_v2", 16, 96, GPTQ(4, 32, true), false, false },
    { "gptq4_row", 16, 64, GPTQ(4, 0, false), false, false },
    { "gptq4_act", 16, 96, GPTQ(4, 32, false), true, false },
    { "gptq4_short", 16, 96, GPTQ(4, 64, false), false, false },
    { "gptq8_sym", 16, 96, GPTQ(8, 32, false), false, false },
    { "gptq8_asym", 16, 64, GPTQ(8, 32, false), false, false },
    { "gptq8_v2_row", 24, 64, GPTQ(8, 0, true), false, false },
    { "gptq8_v2_act", 16, 96, GPTQ(8, 32, true), true, false },
    { "ct4_sym", 16, 96, CT(4, 32, true), false, false },
    { "ct4_asym", 20, 96, CT(4, 32, false), false, false },
    { "ct4_channel", 12, 52, CT(4, 0, true), false, false },
    { "ct8_sym", 16, 96, CT(8, 32, true), false, false },
    { "ct8_asym_channel", 18, 45, CT(8, 0, false), false, false },
    { "ct8_f32", 16, 64, CT(8, 32, true), false, false },
    { "float_bf16", 8, 24, { 0 }, false, false },
    { "float_f16", 8, 24, { 0 }, false, false },
    { "float_f32", 8, 24, { 0 }, false, false },
};

/* Bits, not values: -0 from a negative scale is not +0. */
static void same_bits(const nb_safetensors *expected, const char *name, const float *got, size_t count)
{
    nb_error         err;
    const nb_tensor *t = nb_safetensors_find(expected, name);
    if (!t) fail_msg("the fixture expects nothing of '%s'", name);
    assert_int_equal(t->dtype, NB_F32);
    assert_int_equal(t->count, count);
    float *want = malloc(t->bytes);
    OK(nb_safetensors_read(expected, t, want, 0, t->bytes, &err), &err);
    for (size_t i = 0; i < count; i++)
        if (memcmp(&got[i], &want[i], sizeof *want) != 0) fail_msg("%s: element %zu is %a, expected %a", name, i, got[i], want[i]);
    free(want);
}

static void test_meaning(void **state)
{
    (void)state;
    nb_error        err;
    nb_safetensors *expected;
    OK(nb_safetensors_open(&expected, unit_path(FIXTURE "/expected.safetensors"), &err), &err);
    for (size_t i = 0; i < NB_COUNT(layers); i++) {
        nb_linear l;
        int       n = layers[i].n, k = layers[i].k;
        OK(nb_linear_read(&l, checkpoint, &layers[i].q, layers[i].prefix, n, k, layers[i].bias, &err), &err);
        assert_int_equal(l.weights.n, n);
        assert_int_equal(l.weights.k, k);
        float *w = malloc((size_t)n * k * sizeof *w);
        nb_weights_to_f32(w, &l.weights);
        same_bits(expected, layers[i].prefix, w, (size_t)n * k);
        free(w);
        if (layers[i].permuted != (l.weights.g_idx != NULL))
            fail_msg("%s: g_idx is %s", layers[i].prefix, l.weights.g_idx ? "kept, though it does not permute" : "lost");
        if (layers[i].bias) {
            char name[64];
            snprintf(name, sizeof name, "%s.bias", layers[i].prefix);
            assert_non_null(l.bias);
            same_bits(expected, name, l.bias, (size_t)n);
        } else {
            assert_null(l.bias);
        }
        nb_linear_free(&l);
    }
    /* Every matrix that the fixture explains was read above; the one more tensor is a bias. */
    assert_int_equal(nb_safetensors_count(expected), NB_COUNT(layers) + 1);
    nb_safetensors_close(expected);
}

/* A failure says why, naming the layer, and leaves nothing allocated. */
static void refuse(const char *prefix, const nb_quant_config *q, int n, int k, int bias, nb_status want, const char *part)
{
    nb_error  err = { 0 };
    nb_linear l, empty;
    memset(&l, 0xA5, sizeof l);
    memset(&empty, 0, sizeof empty);
    nb_status s = nb_linear_read(&l, checkpoint, q, prefix, n, k, bias, &err);
    if (s != want || !strstr(err.text, part) || !strstr(err.text, prefix))
        fail_msg("%s: status %d, '%s', expected status %d, '%s' and the name", prefix, s, err.text, want, part);
    assert_memory_equal(&l, &empty, sizeof l);
}

static void test_broken(void **state)
{
    (void)state;
    static const nb_quant_config awq = AWQ(32), gptq = GPTQ(4, 32, false), ct = CT(4, 32, true),
                                 ct_uneven = CT(4, 32, false),
                                 gptq_ordered = { .method = NB_QUANT_GPTQ, .bits = 4, .group = 32, .desc_act = true };
    static const struct {
        const char            *prefix;
        const nb_quant_config *q;
        int                    n, k, bias;
        nb_status              want;
        const char            *part;
    } cases[] = {
        { "broken_no_qzeros", &gptq, 16, 96, 0, NB_ERR_INPUT, "qzeros' is missing" },
        { "broken_no_scales", &awq, 24, 96, 1, NB_ERR_INPUT, "scales' is missing" },
        { "broken_short_qweight", &gptq, 16, 96, 0, NB_ERR_INPUT, "has shape [11, 16], expected [12, 16]" },
        { "broken_short_qzeros", &awq, 24, 96, 1, NB_ERR_INPUT, "has shape [2, 3], expected [3, 3]" },
        { "broken_turned_scales", &gptq, 16, 96, 0, NB_ERR_INPUT, "has shape [16, 3], expected [3, 16]" },
        { "broken_g_idx_above", &gptq, 16, 96, 0, NB_ERR_INPUT, "element 95 is 3, there are 3 groups" },
        { "broken_g_idx_below", &gptq, 16, 96, 0, NB_ERR_INPUT, "element 0 is -1" },
        { "broken_g_idx_short", &gptq, 16, 96, 0, NB_ERR_INPUT, "has shape [95], expected [96]" },
        { "broken_g_idx_wide", &gptq, 16, 96, 0, NB_ERR_INPUT, "is I64, expected I32" },
        { "broken_float_qweight", &gptq, 16, 96, 0, NB_ERR_INPUT, "is F32, expected I32" },
        { "broken_whole_scales", &gptq, 16, 96, 0, NB_ERR_UNSUPPORTED, "is I32, expected F32, BF16 or F16" },
        { "broken_infinite_scale", &gptq, 16, 96, 0, NB_ERR_INPUT, "not finite at element 5" },
        { "broken_nan_scale", &ct, 20, 96, 0, NB_ERR_INPUT, "not finite at element 59" },
        { "broken_nan_bias", &awq, 24, 96, 1, NB_ERR_INPUT, "not finite at element 23" },
        { "broken_short_bias", &awq, 24, 96, 1, NB_ERR_INPUT, "has shape [23], expected [24]" },
        { "broken_no_packed_shape", &ct, 20, 96, 0, NB_ERR_INPUT, "weight_shape' is missing" },
        { "broken_lying_shape", &ct, 20, 96, 0, NB_ERR_INPUT, "says 20 x 95, expected 20 x 96" },
        { "broken_narrow_shape", &ct, 20, 96, 0, NB_ERR_INPUT, "is I32, expected I64" },
        { "broken_short_packed", &ct, 20, 96, 0, NB_ERR_INPUT, "has shape [20, 11], expected [20, 12]" },
        { "broken_short_zero_point", &ct, 20, 96, 0, NB_ERR_INPUT, "has shape [2, 3], expected [3, 3]" },
        { "broken_no_ct_scale", &ct, 20, 96, 0, NB_ERR_INPUT, "weight_scale' is missing" },
        { "broken_whole_weight", &no_config, 8, 24, 0, NB_ERR_INPUT, "is I32, expected F32, BF16 or F16" },
        { "awq_g32", &awq, 24, 96, 0, NB_ERR_INPUT, "has no bias" },
        { "gptq4_sym", &gptq, 16, 96, 1, NB_ERR_INPUT, "bias' is missing" },
        { "awq_g32", &awq, 20, 96, 1, NB_ERR_INPUT, "20 outputs cannot be packed by eights" },
        { "gptq4_sym", &gptq, 16, 92, 0, NB_ERR_INPUT, "16 x 92 cannot be packed" },
        { "gptq4_sym", &no_config, 16, 96, 0, NB_ERR_INPUT, "no quantization_config" },
        { "ct4_sym", &ct_uneven, 16, 96, 0, NB_ERR_INPUT, "no ct4_sym.weight_zero_point" },
        { "gptq4_asym", &gptq_ordered, 24, 64, 0, NB_ERR_INPUT, "no gptq4_asym.g_idx" },
        { "absent", &gptq, 16, 96, 0, NB_ERR_INPUT, "weight' is missing" },
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++)
        refuse(cases[i].prefix, cases[i].q, cases[i].n, cases[i].k, cases[i].bias, cases[i].want, cases[i].part);
}

/* A config.json that disagrees with the file about a size is an error for every form, never a read past an end. */
static void test_other_sizes(void **state)
{
    (void)state;
    for (size_t i = 0; i < NB_COUNT(layers); i++) {
        refuse(layers[i].prefix, &layers[i].q, 2 * layers[i].n, layers[i].k, -1, NB_ERR_INPUT, "expected");
        refuse(layers[i].prefix, &layers[i].q, layers[i].n, 2 * layers[i].k, -1, NB_ERR_INPUT, "expected");
        nb_quant_config other = layers[i].q;
        if (other.method == NB_QUANT_NONE) continue;
        other.group = other.group ? other.group / 2 : 32; /* other numbers of groups */
        refuse(layers[i].prefix, &other, layers[i].n, layers[i].k, -1, NB_ERR_INPUT, "expected");
        if (other.method == NB_QUANT_AWQ) continue;
        other = layers[i].q;
        other.bits = 12 - other.bits;
        refuse(layers[i].prefix, &other, layers[i].n, layers[i].k, -1, NB_ERR_INPUT, "expected");
    }
}

static int open_fixture(void **state)
{
    (void)state;
    nb_error err = { 0 };
    if (nb_checkpoint_open(&checkpoint, unit_path(FIXTURE), &err) == NB_OK) return 0;
    fprintf(stderr, "%s\n", err.text);
    return 1;
}

static int close_fixture(void **state)
{
    (void)state;
    nb_checkpoint_close(checkpoint);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_meaning), cmocka_unit_test(test_broken), cmocka_unit_test(test_other_sizes) };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
