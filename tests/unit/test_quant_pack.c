/* test_quant_pack.c - the published test vectors, and a round trip through unpackers written from the readers' side. */
#include "quant/pack.h"
#include "unit_quant.h"

static nb_codes codes_new(int n, int k, int bits, int group, bool sym)
{
    nb_error err;
    nb_codes c;
    OK(nb_codes_init(&c, n, k, &(nb_grid){ bits, group, sym }, &err), &err);
    uint64_t seed = (uint64_t)n * 1000 + (uint64_t)k;
    for (int i = 0; i < n * k; i++) c.codes[i] = (uint8_t)(unit_random(&seed) & ((1u << bits) - 1));
    for (int i = 0; i < n * c.groups; i++) {
        c.scales[i] = nb_f16_to_f32((uint16_t)(0x1000 + unit_random(&seed) % 0x3000));
        c.zeros[i] = sym ? (uint8_t)(1 << (bits - 1)) : (uint8_t)(1 + unit_random(&seed) % ((1u << bits) - 1));
    }
    return c;
}

static void published_vectors(void **state)
{
    (void)state;
    nb_error err;
    nb_packed p;
    nb_codes c = codes_new(8, 4, 4, 4, true);
    memset(c.codes, 0, 32);
    for (int n = 0; n < 8; n++) {
        c.codes[n * 4] = (uint8_t)n;
        c.codes[n * 4 + 1] = n == 1 ? 15 : 0;
        c.codes[n * 4 + 2] = n == 4 ? 15 : 0;
        c.codes[n * 4 + 3] = 8;
    }
    OK(nb_pack(&p, &c, NB_FORMAT_AWQ, "v", &err), &err);
    assert_int_equal(p.qweight[0], 0x75316420);
    assert_int_equal(p.qweight[1], 0x000F0000);
    assert_int_equal(p.qweight[2], 0x00000F00);
    assert_int_equal(p.qweight[3], 0x88888888);
    assert_int_equal(p.qzeros[0], 0x88888888);
    assert_null(p.g_idx);
    nb_packed_free(&p);
    nb_codes_free(&c);
    for (int bits = 4; bits <= 8; bits += 4) {
        c = codes_new(32, 32, bits, 32, true);
        for (int i = 0; i < 32; i++) c.codes[5 * 32 + i] = (uint8_t)(i % (32 / bits));
        OK(nb_pack(&p, &c, NB_FORMAT_GPTQ, "v", &err), &err);
        for (int word = 0; word < bits; word++) assert_int_equal(p.qweight[word * 32 + 5], bits == 4 ? 0x76543210 : 0x03020100);
        for (int word = 0; word < bits; word++) assert_int_equal(p.qzeros[word], bits == 4 ? 0x77777777 : 0x7F7F7F7F);
        nb_packed_free(&p);
        OK(nb_pack(&p, &c, NB_FORMAT_GPTQ_V2, "v", &err), &err);
        for (int word = 0; word < bits; word++) assert_int_equal(p.qzeros[word], bits == 4 ? 0x88888888 : 0x80808080);
        nb_packed_free(&p);
        nb_codes_free(&c);
    }
}

/* compressed-tensors: signed -8 .. -1 in a row of eight, a zero code, and zero points packed along the outputs. */
static void compressed_tensors_vectors(void **state)
{
    (void)state;
    nb_error  err;
    nb_packed p;
    nb_codes  c = codes_new(9, 16, 4, 8, false);
    for (int i = 0; i < 8; i++) {
        c.codes[i] = (uint8_t)(i - 8 + 8);
        c.codes[8 + i] = 8;
    }
    for (int r = 0; r < 9; r++) c.zeros[r * 2] = (uint8_t)r, c.zeros[r * 2 + 1] = 15;
    OK(nb_pack(&p, &c, NB_FORMAT_CT, "v", &err), &err);
    assert_int_equal(p.qweight[0], 0x76543210);
    assert_int_equal(p.qweight[1], 0x88888888);
    assert_int_equal(p.qzeros_shape[0], 2);
    assert_int_equal(p.qzeros_shape[1], 2);
    assert_int_equal(p.qzeros[0], 0x76543210);
    assert_int_equal(p.qzeros[1], 0xFFFFFFFF);
    assert_int_equal(p.qzeros[2], 8); /* the ninth output, alone in its word */
    assert_int_equal(p.qzeros[3], 15);
    assert_null(p.g_idx);
    nb_packed_free(&p);
    nb_codes_free(&c);
    c = codes_new(1, 5, 8, 0, true);
    for (int i = 0; i < 5; i++) c.codes[i] = (uint8_t)(128 + (i % 2 ? -i : i));
    OK(nb_pack(&p, &c, NB_FORMAT_CT, "v", &err), &err);
    assert_int_equal(p.qweight_shape[1], 2);
    assert_int_equal(p.qweight[0], 0x7D827F80);
    assert_int_equal(p.qweight[1], 0x84);
    nb_packed_free(&p);
    nb_codes_free(&c);
}

/* ---- readers, as a loader sees the tensors: flat words and their shapes ---- */

static unsigned awq_field(const uint32_t *words, size_t words_per_row, size_t row, size_t column)
{
    static const int lowest_bit[8] = { 0, 16, 4, 20, 8, 24, 12, 28 };
    return words[row * words_per_row + column / 8] >> lowest_bit[column % 8] & 15;
}

static unsigned stream_field(const uint32_t *first, size_t stride, size_t element, int bits)
{
    size_t bit = element * (size_t)bits;
    return first[bit / 32 * stride] >> bit % 32 & ((1u << bits) - 1);
}

static void round_trip(void **state)
{
    (void)state;
    const struct { int n, k, bits, group; bool sym; nb_format format; int order; } cases[] = {
        { 8, 32, 4, 32, true, NB_FORMAT_AWQ, 0 },      { 72, 192, 4, 64, false, NB_FORMAT_AWQ, 0 },
        { 24, 70, 4, 0, false, NB_FORMAT_AWQ, 1 },     { 32, 32, 4, 32, true, NB_FORMAT_GPTQ, 0 },
        { 96, 160, 4, 64, false, NB_FORMAT_GPTQ, 0 },  { 64, 96, 8, 32, true, NB_FORMAT_GPTQ, 2 },
        { 32, 224, 8, 0, false, NB_FORMAT_GPTQ_V2, 0 }, { 64, 192, 4, 128, false, NB_FORMAT_GPTQ_V2, 2 },
        { 32, 64, 4, 32, true, NB_FORMAT_CT, 0 },       { 18, 45, 8, 0, false, NB_FORMAT_CT, 0 },
        { 20, 52, 4, 16, false, NB_FORMAT_CT, 0 },      { 1, 1, 4, 0, true, NB_FORMAT_CT, 0 },
        { 7, 100, 8, 32, true, NB_FORMAT_CT, 2 },       { 33, 31, 4, 8, false, NB_FORMAT_CT, 2 } };
    for (size_t t = 0; t < NB_COUNT(cases); t++) {
        nb_error err;
        nb_packed p;
        nb_codes c = codes_new(cases[t].n, cases[t].k, cases[t].bits, cases[t].group, cases[t].sym);
        size_t n = (size_t)c.n, k = (size_t)c.k, groups = (size_t)c.groups, fields = 32 / (size_t)c.bits;
        bool awq = cases[t].format == NB_FORMAT_AWQ, ct = cases[t].format == NB_FORMAT_CT;
        size_t row = (k + fields - 1) / fields;
        if (cases[t].format == NB_FORMAT_GPTQ_V2) c.zeros[3] = 0; /* which v1 cannot hold */
        if (cases[t].order) {
            c.g_idx = calloc(k, sizeof *c.g_idx);
            for (size_t i = 0; i < k; i++)
                c.g_idx[i] = cases[t].order == 1 ? (int32_t)(i / (size_t)c.group) : (int32_t)((i * 7) % k) / c.group;
        }
        OK(nb_pack(&p, &c, cases[t].format, "m", &err), &err);
        assert_int_equal(p.qweight_shape[0], ct ? n : awq ? k : k / fields);
        assert_int_equal(p.qweight_shape[1], ct ? row : awq ? n / 8 : n);
        assert_int_equal(p.qzeros_shape[0], ct ? (n + fields - 1) / fields : groups);
        assert_int_equal(p.qzeros_shape[1], ct ? groups : n / fields);
        assert_int_equal(p.scales_shape[0], ct ? n : groups);
        assert_int_equal(p.scales_shape[1], ct ? groups : n);
        for (size_t r = 0; r < n; r++) {
            for (size_t i = 0; i < k; i++)
                assert_int_equal(awq  ? awq_field(p.qweight, n / 8, i, r)
                                 : ct ? stream_field(p.qweight + r * row, 1, i, c.bits)
                                      : stream_field(p.qweight + r, n, i, c.bits),
                                 c.codes[r * k + i]);
            for (size_t g = 0; g < groups; g++) {
                unsigned zero = awq  ? awq_field(p.qzeros, n / 8, g, r)
                                : ct ? stream_field(p.qzeros + g, groups, r, c.bits)
                                     : stream_field(p.qzeros + g * (n / fields), 1, r, c.bits);
                assert_int_equal(zero + (cases[t].format == NB_FORMAT_GPTQ), c.zeros[r * groups + g]);
                assert_true(nb_f16_to_f32(p.scales[ct ? r * groups + g : g * n + r]) == c.scales[r * groups + g]);
            }
        }
        if (ct) assert_true(!p.g_idx == !c.g_idx);
        for (size_t i = 0; p.g_idx && i < k; i++) assert_int_equal(p.g_idx[i], c.g_idx ? c.g_idx[i] : (int32_t)i / c.group);
        nb_packed_free(&p);
        nb_codes_free(&c);
    }
}

static void refused(nb_codes *c, nb_format format, nb_status status, const char *part)
{
    nb_error err;
    nb_packed p;
    FAILS(nb_pack(&p, c, format, "model.layers.3.mlp.up_proj", &err), status, part, &err);
    assert_non_null(strstr(err.text, "model.layers.3.mlp.up_proj"));
    assert_null(p.qweight);
    nb_codes_free(c);
}

static void refusals(void **state)
{
    (void)state;
    nb_codes c = codes_new(8, 64, 8, 32, true);
    refused(&c, NB_FORMAT_AWQ, NB_ERR_ARGUMENT, "4 bits");
    c = codes_new(12, 64, 4, 32, true);
    refused(&c, NB_FORMAT_AWQ, NB_ERR_UNSUPPORTED, "12 x 64");
    c = codes_new(8, 80, 4, 32, true);
    refused(&c, NB_FORMAT_AWQ, NB_ERR_UNSUPPORTED, "groups of 32");
    c = codes_new(8, 64, 4, 32, true);
    c.g_idx = calloc(64, sizeof *c.g_idx);
    refused(&c, NB_FORMAT_AWQ, NB_ERR_ARGUMENT, "input 32 is in group 0");
    c = codes_new(40, 64, 4, 32, true);
    refused(&c, NB_FORMAT_GPTQ, NB_ERR_UNSUPPORTED, "40 x 64");
    c = codes_new(32, 40, 4, 32, true);
    refused(&c, NB_FORMAT_GPTQ_V2, NB_ERR_UNSUPPORTED, "32 x 40");
    c = codes_new(32, 64, 4, 32, false);
    c.zeros[2 * 2 + 1] = 0;
    refused(&c, NB_FORMAT_GPTQ, NB_ERR_ARGUMENT, "output 2, group 1");
    c = codes_new(32, 64, 4, 32, true);
    c.g_idx = calloc(64, sizeof *c.g_idx);
    c.g_idx[9] = 2;
    refused(&c, NB_FORMAT_GPTQ, NB_ERR_ARGUMENT, "input 9 is in group 2");
    c = codes_new(5, 7, 4, 4, true);
    c.g_idx = calloc(7, sizeof *c.g_idx);
    c.g_idx[6] = -1;
    refused(&c, NB_FORMAT_CT, NB_ERR_ARGUMENT, "input 6 is in group -1");
    c = codes_new(32, 64, 4, 32, true);
    c.codes[64 + 7] = 16;
    refused(&c, NB_FORMAT_GPTQ, NB_ERR_ARGUMENT, "[1, 7]");
    c = codes_new(32, 64, 4, 32, true);
    c.zeros[5] = 16;
    refused(&c, NB_FORMAT_AWQ, NB_ERR_ARGUMENT, "zero point 16");
    const float scales[] = { 0.1f, NAN, INFINITY };
    for (size_t i = 0; i < NB_COUNT(scales); i++) {
        c = codes_new(32, 64, 4, 32, true);
        c.scales[5] = scales[i];
        refused(&c, NB_FORMAT_AWQ, NB_ERR_ARGUMENT, "not an f16 value");
    }
    nb_packed_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_vectors),
        cmocka_unit_test(compressed_tensors_vectors),
        cmocka_unit_test(round_trip),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
