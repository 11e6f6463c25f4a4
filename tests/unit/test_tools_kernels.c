/* test_tools_kernels.c - counts of bytes and operations against counts by hand, shares, the list of cases, and what `bench --kernels`
 * and `bench MODEL` print; never how fast anything is. */
#include "program.h"

#include "tools/bench/kernel_cases.h"
#include "tools/bench/kernel_run.h"
#include "tools/bench/work.h"

/* ---- counts ------------------------------------------------------------------------------------------------------------- */

static nb_matrix matrix(nb_wkind kind, int n, int k)
{
    size_t count = (size_t)n * (size_t)k;
    return (nb_matrix){ .kind = kind, .dtype = NB_BF16, .n = n, .k = k, .bytes = kind == NB_W_INT4 ? count / 2 : kind == NB_W_INT8 ? count : 2 * count };
}

static nb_layer layer(nb_wkind kind, int h, int inner, int q, int kv)
{
    return (nb_layer){ .qkv = matrix(kind, q + 2 * kv, h), .o = matrix(kind, h, q), .gate_up = matrix(kind, 2 * inner, h), .down = matrix(kind, h, inner) };
}

/* qkv 4608 x 3584 = 16,515,072; o 3584 x 3584 = 12,845,056; gate_up 37,888 x 3584 = 135,790,592; down 3584 x 18,944 = 67,895,296:
 * 233,046,016 a layer, 6,525,288,448 in 28; head 152,064 x 3584 = 544,997,376. */
static void test_7b(void **state)
{
    (void)state;
    nb_layer layers[28];
    nb_model m = { .layers = layers, .head = matrix(NB_W_FLOAT, 152064, 3584) };
    m.config = (nb_config){ .hidden = 3584, .intermediate = 18944, .layers = 28, .heads = 28, .kv_heads = 4, .head_dim = 128, .vocab = 152064 };
    for (int i = 0; i < 28; i++) layers[i] = layer(NB_W_INT4, 3584, 18944, 3584, 512);
    nb_work w = nb_work_model(&m, NB_BF16, 0, 512, 1);
    NEAR(w.ints, 6681895370752.0, 0); /* 2 x 512 x 6,525,288,448 */
    /* head 2 x 544,997,376; attention 4 x 28 layers x 3584 x 131,328 pairs of tokens */
    NEAR(w.floats, 1089994752.0 + 52716109824.0, 0);
    NEAR(w.doubles, 0, 0);
    /* half a byte a weight, a head of bf16, 57,344 bytes of KV a token, 64.5 tokens on the average */
    NEAR(nb_work_token_bytes(&m, NB_BF16, 0, 128), 3262644224.0 + 1089994752.0 + 57344 * 64.5, 0);
    NEAR(nb_work_token_bytes(&m, NB_F32, 30720, 1), 3262644224.0 + 1089994752.0 + 2 * 57344 * 30721.0, 0);
    for (int i = 0; i < 14; i++) layers[i].qkv = matrix(NB_W_FLOAT, 4608, 3584); /* kept in float: their operations are floats */
    nb_work kept = nb_work_model(&m, NB_BF16, 0, 512, 1);
    NEAR(w.ints - kept.ints, 2.0 * 512 * 14 * 16515072, 0);
    NEAR(kept.floats - w.floats, 2.0 * 512 * 14 * 16515072, 0);
}

/* qkv 512 x 256, o 256 x 256, gate_up 2048 x 256, down 256 x 1024: 983,040 a layer, 5,898,240 in 6; the tied head 1024 x 256 = 262,144. */
static void test_demo(void **state)
{
    (void)state;
    nb_layer layers[6];
    nb_model m = { .layers = layers, .embed = matrix(NB_W_FLOAT, 1024, 256) };
    m.config = (nb_config){ .hidden = 256, .intermediate = 1024, .layers = 6, .heads = 4, .kv_heads = 2, .head_dim = 64, .vocab = 1024, .tied = true };
    for (int i = 0; i < 6; i++) layers[i] = layer(NB_W_FLOAT, 256, 1024, 256, 128);
    nb_work w = nb_work_model(&m, NB_BF16, 50, 100, 100);
    /* rows see 51 .. 150 tokens: 10,050 pairs */
    NEAR(w.floats, 1179648000.0 + 52428800.0 + 4.0 * 6 * 256 * 10050, 0);
    NEAR(w.ints, 0, 0);
    NEAR(nb_work_token_bytes(&m, NB_BF16, 31, 1), 12320768.0 + 32 * 3072, 0);
    /* int8 pages: 2 x 2 heads x (64 codes and a scale of 2 bytes) x 6 layers */
    NEAR(nb_work_token_bytes(&m, NB_I8, 31, 1), 12320768.0 + 32 * 1584, 0);
    m.head = matrix(NB_W_INT8, 1024, 256); /* --lm-head int8: the tied model then has a head of its own, and that is read */
    NEAR(nb_work_token_bytes(&m, NB_BF16, 31, 1), 12320768.0 - 262144 + 32 * 3072, 0);
    w = nb_work_model(&m, NB_BF16, 50, 100, 100);
    NEAR(w.ints, 52428800.0, 0);
}

static void test_parts(void **state)
{
    (void)state;
    nb_matrix m = matrix(NB_W_INT8, 48, 40);
    nb_work   w = nb_work_matmul(&m, 3);
    NEAR(w.bytes, 48 * 40 + 4 * 3 * (48 + 40), 0);
    NEAR(w.ints, 2 * 3 * 48 * 40, 0);
    nb_attn a = { .heads = 28, .kv_heads = 4, .head_dim = 128, .kv_type = NB_BF16 };
    w = nb_work_attend(&a, 4096, 1);
    NEAR(w.bytes, 4097 * 2048.0 + 8 * 3584, 0); /* 2 x 4 x 128 x 2 bytes a token; a query and a result */
    NEAR(w.floats, 4.0 * 3584 * 4097, 0);
    w = nb_work_attend_full(1024, 16, 80);
    NEAR(w.floats, 4.0 * 1280 * 1024 * 1024, 0);
    NEAR(w.bytes, 4.0 * 1024 * 4 * 1280, 0); /* q k v in, result out */
    w = nb_work_sum((nb_work){ 1, 2, 3, 4 }, (nb_work){ 10, 20, 30, 40 });
    NEAR(w.bytes + w.ints / 2 + w.floats / 3 + w.doubles / 4, 44, 0);
}

static void test_shares(void **state)
{
    (void)state;
    nb_work  w = { .bytes = 3e9, .ints = 4e12, .floats = 1e12 };
    nb_rates r = { .read = 6e10, .ints = 1e12, .floats = 5e11, .doubles = NAN };
    NEAR(nb_work_read_seconds(&w, &r), 0.05, 1e-15);
    NEAR(nb_work_compute_seconds(&w, &r), 6, 1e-12);
    w.doubles = 1;
    assert_true(isnan(nb_work_compute_seconds(&w, &r))); /* a limit that was not measured */
}

/* ---- cases -------------------------------------------------------------------------------------------------------------- */

static const nb_kernel_case *find(const nb_kernel_cases *l, const char *want)
{
    for (size_t i = 0; i < l->count; i++) {
        char label[160];
        nb_kernel_label(label, &l->items[i], "avx2");
        if (!strcmp(label, want)) return &l->items[i];
    }
    fail_msg("no case '%s'", want);
    return NULL;
}

static void test_cases(void **state)
{
    (void)state;
    nb_error        err;
    nb_kernel_cases l;
    OK(nb_kernel_cases_new(&l, "2b,7b,vision", &err), &err);
    const nb_kernel_case *c = find(&l, "matmul 7b layer int4 g128 sym rows 8 avx2");
    assert_int_equal(c->part.count, 4);
    assert_true(c->part.site[0].n == 4608 && c->part.site[2].n == 37888 && c->part.site[3].k == 18944);
    NEAR(nb_kernel_expected(c, NB_ISA_REF + 1).ints, 2.0 * 8 * 233046016, 0);
    /* codes, f16 scales a group of 128, rows in and out: 3 x 3584 + 18,944 inputs, 2 x 3584 + 4608 + 37,888 outputs */
    NEAR(nb_kernel_expected(c, NB_ISA_REF + 1).bytes, 233046016 / 2.0 + 2 * 233046016 / 128.0 + 4.0 * 8 * (29696 + 49664), 0);
    assert_int_equal(nb_kernel_part_at(&c->part, NB_ISA_REF).site[2].n, NB_KERNEL_REF_OUTPUTS);
    assert_true(find(&l, "matmul 2b layer int4 g32 asym rows 512 avx2")->part.site[0].n == 2048);
    assert_true(find(&l, "matmul 7b head bf16 rows 1 avx2")->part.site[0].n == 152064);
    c = find(&l, "attend 7b rows 1 depth 30720 avx2");
    assert_true(c->heads == 28 && c->kv_heads == 4 && c->d == 128);
    assert_true(find(&l, "attend_full vision rows 4096 avx2")->d == 80);
    assert_true(find(&l, "matmul vision block bf16 rows 1024 avx2")->part.site[2].n == 5120);
    static const char *const others[] = { "rmsnorm 7b rows 1 avx2", "layernorm vision rows 1024 avx2", "gate 2b rows 512 avx2",
                                          "activate vision rows 1024 avx2", "rope 7b rows 512 avx2", "kv_store 7b rows 1 avx2",
                                          "embed 2b head bf16 rows 512 avx2", "gram 7b rows 1024 avx2", "add 7b rows 512 avx2",
                                          "matmul 2b layer f32 rows 16 avx2", "matmul 7b layer int8 g128 asym rows 64 avx2",
                                          "attend 2b rows 4096 depth 0 avx2", "gemm f32 rows 192 avx2", "gemm f64 rows 192 avx2" };
    for (size_t i = 0; i < NB_COUNT(others); i++) find(&l, others[i]);
    nb_kernel_cases_free(&l);
    FAILS(nb_kernel_cases_new(&l, "7b,9b", &err), NB_ERR_ARGUMENT, "'9b' is none of", &err);
    FAILS(nb_kernel_cases_new(&l, "", &err), NB_ERR_ARGUMENT, "'' is none of", &err);
}

/* ---- the program -------------------------------------------------------------------------------------------------------- */

static double field(const cJSON *row, const char *name)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(row, name);
    if (!v) fail_msg("no field %s", name);
    return cJSON_IsNumber(v) ? v->valuedouble : NAN;
}

static const char *word(const cJSON *row, const char *name)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(row, name);
    if (!v || !cJSON_IsString(v)) fail_msg("no text %s", name);
    return v->valuestring;
}

static void test_program(void **state)
{
    (void)state;
    ENDS(0, "bench", "--kernels", "--shapes", "tiny", "--memory", "16M", "-r", "1", "-t", "2", "--seconds", "60", "--sites", "-o", "json");
    cJSON *rows = printed_json(), *row;
    int    measured = 0, checked = 0, count = cJSON_GetArraySize(rows);
    cJSON_ArrayForEach(row, rows) {
        double ns = field(row, "median_ns"), percent = field(row, "percent");
        if (field(row, "rounds") == 0) { /* whatever was too slow says so */
            holds(word(row, "note"), "left out");
            assert_true(isnan(ns) && isnan(percent));
            continue;
        }
        measured++;
        assert_true(ns > 0 && field(row, "min_ns") <= ns && field(row, "max_ns") >= ns);
        assert_true(isnan(percent) ? !strcmp(word(row, "bound"), "call") : percent > 0);
        if (field(row, "bytes") > 0) NEAR(field(row, "bytes_per_s") * ns / 1e9 / field(row, "bytes"), 1, 1e-9);
        if (!strcmp(word(row, "part"), "layer.gate_up") && strcmp(word(row, "level"), "ref")) {
            assert_true(field(row, "n") == 256 && field(row, "k") == 64);
            NEAR(field(row, "ops"), 2 * field(row, "rows") * 256 * 64, 0);
            checked++;
        }
        if (!strcmp(word(row, "op"), "attend") && field(row, "depth") == 4096) NEAR(field(row, "ops"), 4 * 64 * 4097, 0);
        if (!strcmp(word(row, "op"), "gram")) NEAR(field(row, "ops"), 1024.0 * 64 * 65, 0);
    }
    assert_true(measured > 0);
    if (nb_isa_detect(NB_ISA_REF + 1) == NB_ISA_REF + 1) assert_true(checked > 0);
    cJSON_Delete(rows);
    assert_true(count > 100);
#define SOME "bench", "--kernels", "--shapes", "tiny,vision", "--memory", "16M", "-r", "1", "-t", "1", "--isa", "ref"
    ENDS(0, SOME, "--filter", "^rmsnorm.* rows 1 |f64", "-o", "csv");
    holds(printed[0], "\"op\",\"shape\",\"part\",\"weights\",\"level\",\"n_threads\",\"rows\",\"depth\",\"n\",\"k\",\"median_ns\"");
    holds(printed[0], "\n\"rmsnorm\",\"tiny\",\"\",\"\",\"ref\",\"1\",\"1\",");
    holds(printed[0], "\n\"gemm f64\",\"\",\"\",\"\",\"ref\",\"1\",\"192\",");
    lacks(printed[0], "gemm f32");
    lacks(printed[0], "matmul");
    ENDS(0, SOME, "--filter", "kv_store|rope tiny", "-o", "jsonl");
    int lines = 0;
    for (char *line = printed[0], *end; (end = strchr(line, '\n')) != NULL; line = end + 1, lines++) {
        nb_error err;
        OK(nb_json_parse(&row, line, (size_t)(end - line), "a line", &err), &err);
        cJSON_Delete(row);
    }
    assert_int_equal(lines, 4);
    ENDS(0, SOME, "--filter", "layernorm");
    holds(printed[0], "| layernorm | vision |");
    ENDS(2, SOME, "--filter", "nothing like this");
    holds(printed[1], "no case is left");
    ENDS(2, SOME, "--filter", "(");
    holds(printed[1], "is not a regular expression");
    ENDS(2, "bench", "--kernels", "--shapes", "9b");
    holds(printed[1], "'9b' is none of");
    ENDS(2, "bench", "--kernels", "--roofline");
    holds(printed[1], "ask for one");
    ENDS(2, "bench", "--kernels", "somewhere");
    holds(printed[1], "--kernels measures the machine");
    ENDS(2, "bench", "--roofline", "--filter", "x");
    holds(printed[1], "--filter is for --kernels");
}

/* Rows of models: counts are exact, shares are where they belong. */
static void test_models(void **state)
{
    (void)state;
    const char *demo = unit_path("tools/demo/model");
    ENDS(0, "bench", demo, "-p", "8", "-n", "4", "-pg", "8,4", "-d", "0,16", "-r", "1", "-t", "2", "-o", "json");
    cJSON *rows = printed_json(), *row;
    assert_int_equal(cJSON_GetArraySize(rows), 6);
    cJSON_ArrayForEach(row, rows) {
        bool   behind = field(row, "n_depth") == 16, pp = field(row, "n_gen") == 0, tg = field(row, "n_prompt") == 0;
        double bytes = field(row, "token_bytes"), operations = field(row, "prompt_ops");
        assert_true(field(row, "probe_read") > 0 && field(row, "probe_floats") > 0 && field(row, "probe_ints") > 0);
        if (pp) /* 2 x 8 x 5,898,240; the head for one row, or for all behind a context; 36 pairs of tokens, or 36 + 8 x 16 */
            NEAR(operations, 94371840.0 + 524288.0 * (behind ? 8 : 1) + 6144.0 * (behind ? 164 : 36), 0);
        if (tg) { /* 12,320,768 of weights and a little for tables; 2.5 tokens of 3072 bytes on the average, and the context */
            double kv = 3072 * (2.5 + (behind ? 16 : 0));
            assert_true(bytes >= 12320768 + kv && bytes < 12320768 * 1.01 + kv);
            NEAR(field(row, "read_percent"), 100 * bytes * field(row, "avg_ts") / field(row, "probe_read"), 1e-6 * field(row, "read_percent"));
        }
        assert_true(isnan(bytes) == !tg && isnan(field(row, "read_percent")) == !tg);
        assert_true(isnan(operations) == !pp && isnan(field(row, "peak_percent")) == !pp);
        if (pp)
            NEAR(field(row, "peak_percent"), 100 * operations / field(row, "probe_floats") / (field(row, "avg_ns") / 1e9), 1e-3 * field(row, "peak_percent"));
    }
    cJSON_Delete(rows);
    ENDS(0, "bench", demo, "-p", "8", "-n", "0", "-r", "1", "-t", "1", "--no-probe", "-o", "csv");
    holds(printed[0], "\"peak_rss_bytes\",\"token_bytes\",\"read_percent\",\"prompt_ops\",\"peak_percent\",\"probe_read\",\"probe_ints\",\"probe_floats\"");
    holds(printed[0], ",\"\",\"\",\"95117312\",\"\",\"\",\"\",\"\"\n");
    ENDS(0, "bench", demo, "-p", "8", "-n", "4", "-r", "1", "-t", "1", "--no-probe");
    holds(printed[0], "| % of reading | % of peak |");
    ENDS(2, "bench", demo, "--seconds", "5");
    holds(printed[1], "--seconds is for --kernels");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_7b),    cmocka_unit_test(test_demo),    cmocka_unit_test(test_parts), cmocka_unit_test(test_shares),
        cmocka_unit_test(test_cases), cmocka_unit_test(test_program), cmocka_unit_test(test_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
