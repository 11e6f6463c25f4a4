/* Adapters merged while a checkpoint is read: the values of tests/oracle/lora_oracle.py to the bit, small cases computed by hand,
 * a quantized model that is the same as that of a merged checkpoint, and adapters that must be refused. */
#include "unit.h"

#include <sys/stat.h>

#include "quant/writer.h"
#include "quant_folder.h"
#include "runtime/io/adapter.h"
#include "runtime/io/adapter_config.h"

static uint64_t fnv(const void *data, size_t n)
{
    const unsigned char *c = data;
    uint64_t             h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ c[i]) * 0x100000001b3u;
    return h;
}

/* ---- small files ----------------------------------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    int         rank;
    uint64_t    shape[5];
    float       first, step; /* values first, first + step, ... */
    nb_dtype    dtype;       /* F32 unless said otherwise */
} small;

static float small_value(const small *t, size_t i)
{
    return t->first + t->step * (float)i;
}

static void write_safetensors(const char *path, const small *tensors, size_t count)
{
    nb_buf header = {0}, data = {0};
    nb_buf_char(&header, '{');
    for (size_t i = 0; i < count; i++) {
        const small *t = &tensors[i];
        size_t       n = 1, begin = data.size;
        nb_buf_printf(&header, "%s\"%s\": {\"dtype\": \"%s\", \"shape\": [", i ? ", " : "", t->name,
                      t->dtype == NB_F32 ? "F32" : t->dtype == NB_BF16 ? "BF16" : "I32");
        for (int d = 0; d < t->rank; d++) {
            nb_buf_printf(&header, "%s%llu", d ? ", " : "", (unsigned long long)t->shape[d]);
            n *= t->shape[d];
        }
        for (size_t j = 0; j < n; j++) {
            float v = small_value(t, j);
            char  raw[4];
            nb_from_f32(raw, t->dtype == NB_BF16 ? NB_BF16 : NB_F32, &v, 1);
            nb_buf_add(&data, raw, nb_dtype_size(t->dtype));
        }
        nb_buf_printf(&header, "], \"data_offsets\": [%zu, %zu]}", begin, data.size);
    }
    nb_buf_char(&header, '}');
    uint64_t n = header.size;
    FILE    *f = fopen(path, "wb");
    assert_non_null(f);
    fwrite(&n, 8, 1, f);
    fwrite(header.data, 1, header.size, f);
    if (data.size) fwrite(data.data, 1, data.size, f);
    fclose(f);
    nb_buf_free(&header);
    nb_buf_free(&data);
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static const small small_base[] = {
    {"lm_head.weight", 2, {8, 4}, 1, 0.25f, NB_F32},
    {"model.language_model.embed_tokens.weight", 2, {8, 4}, -1, 0.5f, NB_F32},
    {"model.language_model.layers.0.self_attn.q_proj.weight", 2, {6, 4}, 2, -0.125f, NB_F32},
    {"model.language_model.layers.0.self_attn.q_proj.bias", 1, {6}, 3, 1, NB_F32},
    {"model.language_model.layers.0.mlp.up_proj.qweight", 2, {4, 4}, 0, 0, NB_I32},
    {"model.visual.patch_embed.proj.weight", 5, {3, 2, 1, 2, 2}, 0, 0.5f, NB_BF16},
};
#define Q "base_model.model.model.layers.0.self_attn.q_proj"

static nb_checkpoint *open_small_base(void)
{
    nb_checkpoint *c;
    nb_error       err;
    mkdir(in_folder("base"), 0700);
    write_safetensors(in_folder("base/model.safetensors"), small_base, NB_COUNT(small_base));
    OK(nb_checkpoint_open(&c, in_folder("base"), &err), &err);
    return c;
}

static void write_adapter(const char *config, const small *tensors, size_t count)
{
    mkdir(in_folder("adapter"), 0700);
    write_text(in_folder("adapter/adapter_config.json"), config);
    write_safetensors(in_folder("adapter/adapter_model.safetensors"), tensors, count);
}

static void drop_small(void)
{
    nb_remove_folder(in_folder("adapter"), NULL);
    nb_remove_folder(in_folder("base"), NULL);
}

/* The small base with one adapter, as far as it goes. */
static nb_status try_adapter(nb_checkpoint **base, nb_adapters **all, bool tied, double factor, nb_buf *notes, nb_error *err)
{
    nb_buf summary = {0};
    *base = open_small_base();
    OK(nb_adapters_new(all, *base, tied, err), err);
    nb_status status = nb_adapters_add(*all, in_folder("adapter"), factor, &summary, notes, err);
    assert_true(status != NB_OK || (summary.size && summary.data[summary.size - 1] == '\n'));
    nb_buf_free(&summary);
    return status;
}

static void close_small(nb_checkpoint *base, nb_adapters *all)
{
    nb_checkpoint_close(base);
    nb_adapters_free(all);
    drop_small();
}

static float *values_of(const nb_checkpoint *c, const char *name, size_t *count)
{
    nb_error        err;
    const nb_entry *e = nb_checkpoint_find(c, name);
    assert_non_null(e);
    float *v = malloc(e->tensor->count * sizeof *v);
    OK(nb_entry_read_f32(e, v, &err), &err);
    *count = e->tensor->count;
    return v;
}

#define CONFIG "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 3"

/* ---- by hand --------------------------------------------------------------------------------------------------------- */

static void test_by_hand(void **state)
{
    (void)state;
    static const small tensors[] = {
        {Q ".lora_A.default.weight", 2, {2, 4}, 0.5f, 0.25f, NB_F32},
        {Q ".lora_B.default.weight", 2, {6, 2}, -1, 0.5f, NB_F32},
        {Q ".lora_B.bias", 1, {6}, 1, 2, NB_F32},
        {"base_model.model.lm_head.modules_to_save.weight", 2, {8, 4}, 100, -1, NB_BF16},
        {"base_model.model.model.embed_tokens.lora_embedding_A", 2, {2, 8}, 1, 0.5f, NB_F32},
        {"base_model.model.model.embed_tokens.lora_embedding_B", 2, {4, 2}, -2, 0.25f, NB_F32},
        {"visual.patch_embed.proj.lora_A.weight", 5, {2, 2, 1, 2, 2}, 1, 1, NB_F32},
        {"visual.patch_embed.proj.lora_B.weight", 5, {3, 2, 1, 1, 1}, 1, 1, NB_F32},
    };
    const double   factors[] = {1, 0.5};
    nb_error       err;
    nb_checkpoint *base;
    nb_adapters   *all;
    size_t         n;
    for (size_t f = 0; f < NB_COUNT(factors); f++) {
        double scale = factors[f] * 1.5; /* alpha 3, rank 2 */
        nb_buf notes = {0};
        write_adapter(CONFIG "}", tensors, NB_COUNT(tensors));
        OK(try_adapter(&base, &all, false, factors[f], &notes, &err), &err);
        assert_int_equal(notes.size, 0);
        float *v = values_of(base, "model.layers.0.self_attn.q_proj.weight", &n);
        for (size_t i = 0; i < 6; i++)
            for (size_t j = 0; j < 4; j++) {
                double delta = 0;
                for (size_t r = 0; r < 2; r++)
                    delta += small_value(&tensors[1], i * 2 + r) * small_value(&tensors[0], r * 4 + j);
                NEAR(v[i * 4 + j], small_value(&small_base[2], i * 4 + j) + scale * delta, 0);
            }
        free(v);
        v = values_of(base, "model.layers.0.self_attn.q_proj.bias", &n);
        for (size_t i = 0; i < 6; i++) NEAR(v[i], 3 + (double)i + scale * (1 + 2 * (double)i), 0);
        free(v);
        v = values_of(base, "lm_head.weight", &n);
        for (size_t i = 0; i < 32; i++) {
            double old = small_value(&small_base[0], i);
            NEAR(v[i], old + factors[f] * (100 - (double)i - old), 0);
        }
        free(v);
        v = values_of(base, "model.embed_tokens.weight", &n);
        for (size_t i = 0; i < 8; i++)
            for (size_t j = 0; j < 4; j++) {
                double delta = 0;
                for (size_t r = 0; r < 2; r++)
                    delta += small_value(&tensors[5], j * 2 + r) * small_value(&tensors[4], r * 8 + i);
                NEAR(v[i * 4 + j], small_value(&small_base[1], i * 4 + j) + scale * delta, 0);
            }
        free(v);
        v = values_of(base, "visual.patch_embed.proj.weight", &n); /* bf16: rounded once */
        for (size_t i = 0; i < 3; i++)
            for (size_t j = 0; j < 8; j++) {
                double delta = (1 + 2 * (double)i) * (1 + (double)j) + (2 + 2 * (double)i) * (9 + (double)j);
                float  w = (float)((double)(i * 8 + j) * 0.5 + scale * delta);
                NEAR(v[i * 8 + j], nb_bf16_to_f32(nb_f32_to_bf16(w)), 0);
            }
        /* the same by other ways of reading */
        const nb_entry *e = nb_checkpoint_find(base, "visual.patch_embed.proj.weight");
        void           *raw;
        float           rows[16];
        OK(nb_entry_read(e, &raw, &err), &err);
        for (size_t i = 0; i < 24; i++) NEAR(nb_bf16_to_f32(((uint16_t *)raw)[i]), v[i], 0);
        OK(nb_entry_read_rows_f32(e, 1, 2, rows, &err), &err);
        assert_memory_equal(rows, v + 8, sizeof rows);
        free(raw);
        free(v);
        nb_buf_free(&notes);
        close_small(base, all);
    }
}

/* |W'| of each row is the magnitude, and W' points where W + scale B A does. */
static void test_dora_by_hand(void **state)
{
    (void)state;
    static const small tensors[] = {{Q ".lora_A.weight", 2, {2, 4}, 0.5f, 0.25f, NB_F32},
                                    {Q ".lora_B.weight", 2, {6, 2}, -1, 0.5f, NB_F32},
                                    {Q ".lora_magnitude_vector.default.weight", 1, {6}, 1, 1, NB_F32}};
    nb_error       err;
    nb_checkpoint *base;
    nb_adapters   *all;
    size_t         n;
    nb_buf         notes = {0};
    write_adapter(CONFIG ", \"use_dora\": true, \"use_rslora\": true}", tensors, 3);
    OK(try_adapter(&base, &all, false, 1, &notes, &err), &err);
    float *v = values_of(base, "model.layers.0.self_attn.q_proj.weight", &n);
    for (size_t i = 0; i < 6; i++) {
        double dot = 0, length = 0, norm = 0;
        for (size_t j = 0; j < 4; j++) {
            double w = small_value(&small_base[2], i * 4 + j);
            for (size_t r = 0; r < 2; r++)
                w += 3 / sqrt(2) * small_value(&tensors[1], i * 2 + r) * small_value(&tensors[0], r * 4 + j);
            dot += w * v[i * 4 + j];
            length += (double)v[i * 4 + j] * v[i * 4 + j];
            norm += w * w;
        }
        NEAR(sqrt(length), 1 + (double)i, 1e-6);
        NEAR(dot / sqrt(length * norm), 1, 1e-12);
    }
    free(v);
    close_small(base, all);
    FAILS(try_adapter(&base, &all, false, 0.5, &notes, &err), NB_ERR_INPUT, "no such adapter", &err);
    close_small(base, all);
    write_adapter(CONFIG ", \"use_dora\": true}", tensors, 3);
    FAILS(try_adapter(&base, &all, false, 0.5, &notes, &err), NB_ERR_ARGUMENT, "cannot be scaled", &err);
    close_small(base, all);
    nb_buf_free(&notes);
}

static void test_patterns(void **state)
{
    (void)state;
    nb_error          err;
    nb_adapter_config c;
    mkdir(in_folder("adapter"), 0700);
    write_text(in_folder("adapter/adapter_config.json"),
               "{\"peft_type\": \"LORA\", \"r\": 8, \"lora_alpha\": 16, \"rank_pattern\": {\"q_proj\": 4, "
               "\"model.layers.1.mlp.up_proj\": 3}, \"alpha_pattern\": "
               "{\"^model\\\\.layers\\\\.\\\\d+\\\\.mlp\\\\.(?:up|down)_proj\": 1, "
               "\"layers.[02].self_attn.k_proj\": 2, \".*k_proj\": 3, \"o_proj|v_proj\": 4, \"proj\": 5}}");
    OK(nb_adapter_config_open(&c, in_folder("adapter"), &err), &err);
    NEAR(nb_adapter_rank(&c, "model.layers.0.self_attn.q_proj"), 4, 0);
    NEAR(nb_adapter_rank(&c, "q_proj"), 4, 0);
    NEAR(nb_adapter_rank(&c, "model.layers.0.self_attn.faq_proj"), 8, 0); /* only at a dot */
    NEAR(nb_adapter_rank(&c, "model.layers.1.mlp.up_proj"), 3, 0);
    NEAR(nb_adapter_rank(&c, "model.layers.11.mlp.up_proj"), 8, 0);
    NEAR(nb_adapter_alpha(&c, "model.layers.11.mlp.up_proj"), 1, 0);
    NEAR(nb_adapter_alpha(&c, "x.model.layers.11.mlp.up_proj"), 16, 0); /* ^ holds, as in Python */
    NEAR(nb_adapter_alpha(&c, "model.layers.2.self_attn.k_proj"), 2, 0);
    NEAR(nb_adapter_alpha(&c, "model.layers.1.self_attn.k_proj"), 3, 0); /* the first that matches */
    NEAR(nb_adapter_alpha(&c, "model.layers.1.self_attn.v_proj"), 4, 0);
    NEAR(nb_adapter_alpha(&c, "patch_embed.proj"), 5, 0);
    NEAR(nb_adapter_alpha(&c, "model.layers.1.self_attn.q_proj"), 16, 0);
    nb_adapter_config_free(&c);
    drop_small();
}

/* ---- the oracle ------------------------------------------------------------------------------------------------------ */

static void test_oracle(void **state)
{
    (void)state;
    nb_error     err;
    cJSON       *cases;
    const cJSON *one, *use, *want;
    int          seen = 0;
    OK(nb_json_file(&cases, unit_path("tests/golden/lora/expected.json"), 1 << 20, &err), &err);
    cJSON_ArrayForEach(one, cases)
    {
        nb_checkpoint *base;
        nb_adapters   *all;
        nb_buf         notes = {0}, summary = {0};
        size_t         edits = 0;
        OK(nb_checkpoint_open(&base, unit_path("tools/demo/model"), &err), &err);
        OK(nb_adapters_new(&all, base, true, &err), &err);
        bool plain = false;
        cJSON_ArrayForEach(use, nb_json_find(one, "adapters"))
        {
            char dir[64];
            snprintf(dir, sizeof dir, "tests/golden/lora/%s", nb_json_find(use, "name")->valuestring);
            OK(nb_adapters_add(all, unit_path(dir), nb_json_find(use, "scale")->valuedouble, &summary, &notes, &err), &err);
            plain = plain || !strcmp(nb_json_find(use, "name")->valuestring, "plain");
        }
        assert_true(!plain || strstr(notes.data, "which is also the head of this base"));
        assert_true(plain || !notes.size);
        assert_true(!plain || strstr(summary.data, "8 matrices of rank 2 to 4, 4 whole tensors"));
        cJSON_ArrayForEach(want, nb_json_find(one, "tensors"))
        {
            const nb_entry *e = nb_checkpoint_find(base, want->string);
            void           *raw;
            assert_non_null(e);
            OK(nb_entry_read(e, &raw, &err), &err);
            uint64_t got = fnv(raw, e->tensor->bytes);
            free(raw);
            if (got != strtoull(want->valuestring, NULL, 16)) fail_msg("%s differs from the oracle", want->string);
            seen++;
        }
        for (size_t i = 0; i < nb_checkpoint_count(base); i++) edits += nb_checkpoint_at(base, i)->edit != NULL;
        assert_int_equal(edits, cJSON_GetArraySize(nb_json_find(one, "tensors"))); /* and nothing else changes */
        nb_checkpoint_close(base);
        nb_adapters_free(all);
        nb_buf_free(&notes);
        nb_buf_free(&summary);
    }
    cJSON_Delete(cases);
    assert_int_equal(seen, 12 + 12 + 12 + 4 + 14 + 14);
}

/* ---- the whole job --------------------------------------------------------------------------------------------------- */

/* The demo model with both adapters merged, as a checkpoint of its own. */
static void write_merged(const char *directory, const nb_lora *loras, size_t count)
{
    static const char *const files[] = {"config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt",
                                        "chat_template.json", "preprocessor_config.json", "generation_config.json",
                                        "special_tokens_map.json"};
    nb_error       err;
    nb_checkpoint *c;
    nb_adapters   *all;
    nb_writer     *w;
    nb_buf         text = {0};
    OK(nb_checkpoint_open(&c, unit_path("tools/demo/model"), &err), &err);
    OK(nb_adapters_new(&all, c, true, &err), &err);
    for (size_t i = 0; i < count; i++) OK(nb_adapters_add(all, loras[i].directory, loras[i].scale, &text, &text, &err), &err);
    OK(nb_writer_new(&w, directory, 1u << 30, false, &err), &err);
    for (size_t i = 0; i < nb_checkpoint_count(c); i++) {
        const nb_entry *e = nb_checkpoint_at(c, i);
        OK(nb_writer_declare(w, e->name, e->tensor->dtype, e->tensor->rank, e->tensor->shape, &err), &err);
    }
    OK(nb_writer_plan(w, &err), &err);
    for (size_t i = 0; i < nb_checkpoint_count(c); i++) {
        const nb_entry *e = nb_checkpoint_at(c, i);
        void           *raw;
        OK(nb_entry_read(e, &raw, &err), &err);
        OK(nb_writer_tensor(w, e->name, raw, e->tensor->bytes, &err), &err);
        free(raw);
    }
    for (size_t i = 0; i < NB_COUNT(files); i++) OK(nb_writer_copy(w, unit_path("tools/demo/model"), files[i], &err), &err);
    OK(nb_writer_commit(w, &err), &err);
    nb_writer_free(w);
    nb_checkpoint_close(c);
    nb_adapters_free(all);
    nb_buf_free(&text);
}

static uint64_t file_hash(const char *path)
{
    nb_error err;
    nb_buf   b = {0};
    OK(nb_file_read(&b, path, 1u << 30, &err), &err);
    uint64_t h = fnv(b.data, b.size);
    nb_buf_free(&b);
    return h;
}

static void test_quantize(void **state)
{
    (void)state;
    nb_error err;
    nb_pool *pool;
    nb_ops   ops;
    char     plain[1024], dora[1024];
    snprintf(plain, sizeof plain, "%s", unit_path("tests/golden/lora/plain"));
    snprintf(dora, sizeof dora, "%s", unit_path("tests/golden/lora/dora"));
    const nb_lora loras[] = {{plain, 0.5}, {dora, 1}};
    OK(nb_pool_new(&pool, 2, &err), &err);
    nb_ops_init(&ops, nb_isa_detect(NB_ISA_LEVELS - 1), pool);
    write_merged(in_folder("merged"), loras, 2);
    uint64_t hash[3];
    for (int i = 0; i < 3; i++) { /* on the fly, from the merged checkpoint, and the base alone */
        nb_quantize_report  report;
        nb_quantize_options o = {
            .model_dir = i == 1 ? in_folder("merged") : unit_path("tools/demo/model"), .out_dir = in_folder("out"),
            .method = NB_METHOD_AWQ, .grid = {.bits = 4, .group = 64}, .format = NB_FORMAT_AWQ, .awq_points = 4,
            .modality_weights = {1, 1, 1}, .data = {.path = chats, .samples = 4, .dataset = {.need_answer = true}},
            .shard_size = 1u << 30, .loras = loras, .lora_count = i == 0 ? 2 : 0};
        OK(nb_quantize(&ops, &o, NULL, NULL, &report, &err), &err);
        hash[i] = file_hash(in_folder("out/model.safetensors"));
        if (i == 0) assert_non_null(strstr(report.adapters.data, "4 matrices of rank 2, DoRA\n"));
        else assert_int_equal(report.adapters.size, 0);
        nb_quantize_report_free(&report);
        assert_int_equal(nb_remove_folder(in_folder("out"), NULL), NB_OK);
    }
    assert_true(hash[0] == hash[1]);
    assert_true(hash[0] != hash[2]);
    /* a refused adapter leaves nothing */
    nb_quantize_report  report;
    nb_quantize_options o = {.model_dir = unit_path("tools/demo/model"), .out_dir = in_folder("out"), .method = NB_METHOD_RTN,
                             .grid = {.bits = 4, .group = 64}, .format = NB_FORMAT_AWQ, .modality_weights = {1, 1, 1},
                             .shard_size = 1u << 30, .loras = (nb_lora[]){{in_folder("nowhere"), 1}}, .lora_count = 1};
    FAILS(nb_quantize(&ops, &o, NULL, NULL, &report, &err), NB_ERR_INPUT, "no such adapter directory", &err);
    assert_false(nb_file_exists(in_folder("out")));
    assert_false(nb_file_exists(in_folder("out.partial")));
    nb_remove_folder(in_folder("merged"), NULL);
    nb_pool_free(pool);
}

/* ---- refused --------------------------------------------------------------------------------------------------------- */

typedef struct {
    const char *config;
    small       tensors[4];
    nb_status   status;
    const char *message;
    bool        tied;
} bad;

#define A  {Q ".lora_A.weight", 2, {2, 4}, 1, 1, NB_F32}
#define B  {Q ".lora_B.weight", 2, {6, 2}, 1, 1, NB_F32}
#define LM "base_model.model.lm_head."

static const bad refused[] = {
    {CONFIG, {A, B}, NB_ERR_INPUT, "adapter_config.json", false},
    {"[]", {A, B}, NB_ERR_INPUT, "expected an object", false},
    {"{\"r\": 2, \"lora_alpha\": 3}", {A, B}, NB_ERR_INPUT, "peft_type", false},
    {"{\"peft_type\": \"ADALORA\", \"r\": 2, \"lora_alpha\": 3}", {A, B}, NB_ERR_UNSUPPORTED, "only LORA", false},
    {"{\"peft_type\": \"LORA\", \"r\": 0, \"lora_alpha\": 3}", {A, B}, NB_ERR_INPUT, "r is 0", false},
    {"{\"peft_type\": \"LORA\", \"r\": 2}", {A, B}, NB_ERR_INPUT, "lora_alpha", false},
    {CONFIG ", \"fan_in_fan_out\": true}", {A, B}, NB_ERR_UNSUPPORTED, "fan_in_fan_out", false},
    {CONFIG ", \"bias\": \"some\"}", {A, B}, NB_ERR_INPUT, "bias is 'some'", false},
    {CONFIG ", \"init_lora_weights\": \"pissa_niter_4\"}", {A, B}, NB_ERR_UNSUPPORTED, "changed the base's weights", false},
    {CONFIG ", \"layer_replication\": [[0, 4]]}", {A, B}, NB_ERR_UNSUPPORTED, "layer_replication", false},
    {CONFIG ", \"alpha_pattern\": {\"(?<=x)q\": 1}}", {A, B}, NB_ERR_UNSUPPORTED, "regular expression", false},
    {CONFIG ", \"alpha_pattern\": {\"a*?\": 1}}", {A, B}, NB_ERR_UNSUPPORTED, "regular expression", false},
    {CONFIG ", \"alpha_pattern\": {\"(a\": 1}}", {A, B}, NB_ERR_UNSUPPORTED, "regular expression", false},
    {CONFIG ", \"alpha_pattern\": {\"a{1,9999}{1,9999}\": 1}}", {A, B}, NB_ERR_UNSUPPORTED, "regular expression", false},
    {CONFIG ", \"rank_pattern\": {\"q_proj\": \"4\"}}", {A, B}, NB_ERR_INPUT, "'q_proj' is not a number", false},
    {CONFIG ", \"rank_pattern\": {\"q_proj\": 4}}", {A, B}, NB_ERR_INPUT, "has rank 2, adapter_config.json says 4", false},
    {CONFIG ", \"use_dora\": true}", {A, B}, NB_ERR_INPUT, "has no lora_magnitude_vector", false},
    {CONFIG "}", {A, B, {Q ".lora_magnitude_vector", 1, {6}, 1, 1, NB_F32}}, NB_ERR_INPUT, "does not say use_dora", false},
    {CONFIG ", \"use_dora\": true}", {A, B, {Q ".lora_magnitude_vector", 1, {5}, 1, 1, NB_F32}}, NB_ERR_INPUT,
     "lora_magnitude_vector' [5] does not fit the base's 'model.layers.0.self_attn.q_proj.weight' [6, 4]", false},
    {CONFIG "}", {A}, NB_ERR_INPUT, "lora_A.weight' has no lora_B", false},
    {CONFIG "}", {B}, NB_ERR_INPUT, "lora_B.weight' has no lora_A", false},
    {CONFIG "}", {{0}}, NB_ERR_INPUT, "holds no tensor", false},
    {CONFIG "}", {A, {Q ".lora_B.weight", 2, {7, 2}, 1, 1, NB_F32}}, NB_ERR_INPUT,
     "[2, 4] and '" Q ".lora_B.weight' [7, 2] do not fit the base's 'model.layers.0.self_attn.q_proj.weight' [6, 4]", false},
    {CONFIG "}", {{Q ".lora_A.weight", 2, {2, 5}, 1, 1, NB_F32}, B}, NB_ERR_INPUT, "belongs to another base model", false},
    {CONFIG "}", {{Q ".lora_A.weight", 2, {2, 4}, 1, 1, NB_F32}, {Q ".lora_B.weight", 2, {6, 3}, 1, 1, NB_F32}}, NB_ERR_INPUT,
     "do not fit", false},
    {CONFIG "}", {{Q ".lora_A.weight", 1, {8}, 1, 1, NB_F32}, B}, NB_ERR_INPUT, "do not fit", false},
    {CONFIG "}", {{Q ".lora_A.weight", 2, {0, 4}, 1, 1, NB_F32}, {Q ".lora_B.weight", 2, {6, 0}, 1, 1, NB_F32}}, NB_ERR_INPUT,
     "do not fit", false},
    {CONFIG "}", {{Q ".lora_A.weight", 2, {2, 4}, NAN, 1, NB_F32}, B}, NB_ERR_INPUT, "this adapter is broken", false},
    {CONFIG "}", {A, {Q ".lora_B.weight", 2, {6, 2}, INFINITY, 0, NB_BF16}}, NB_ERR_INPUT, "holds inf at element 0", false},
    {CONFIG "}", {A, {Q ".lora_B.weight", 2, {6, 2}, 0, 0, NB_I32}}, NB_ERR_UNSUPPORTED, "is I32", false},
    {CONFIG "}", {A, B, {"model.layers.0.self_attn.q_proj.lora_A.weight", 2, {2, 4}, 1, 1, NB_F32}}, NB_ERR_INPUT,
     "are the same part of", false},
    {CONFIG "}", {A, B, {"base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight", 2, {2, 4}, 1, 1, NB_F32}},
     NB_ERR_INPUT, "are the same part of", false},
    {CONFIG "}", {A, B, {Q ".lora_E", 1, {2}, 1, 1, NB_F32}}, NB_ERR_INPUT, "lora_E' is nothing that a LoRA adapter holds", false},
    {CONFIG "}", {A, B, {"base_model.prompt_encoder", 1, {2}, 1, 1, NB_F32}}, NB_ERR_INPUT, "is nothing that", false},
    {CONFIG "}", {{"base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight", 2, {2, 4}, 1, 1, NB_F32}}, NB_ERR_INPUT,
     "changes 'model.layers.9.self_attn.q_proj.weight', which the base does not have", false},
    {CONFIG "}", {{"base_model.model.model.layers.0.mlp.up_proj.lora_A.weight", 2, {2, 4}, 1, 1, NB_F32}}, NB_ERR_INPUT,
     "already quantized in the base", false},
    {CONFIG "}", {{LM "weight", 2, {9, 4}, 1, 1, NB_F32}}, NB_ERR_INPUT,
     "[9, 4] does not fit the base's 'lm_head.weight' [8, 4]", false},
    {CONFIG "}", {{LM "weight", 2, {8, 4}, NAN, 1, NB_F32}}, NB_ERR_INPUT, "this adapter is broken", false},
    {CONFIG "}", {{LM "weight", 2, {8, 4}, 1, 1, NB_F32}}, NB_ERR_UNSUPPORTED, "shares with its embedding", true},
    {CONFIG "}", {{LM "lora_A.weight", 2, {2, 4}, 1, 1, NB_F32}, {LM "lora_B.weight", 2, {8, 2}, 1, 1, NB_F32}},
     NB_ERR_UNSUPPORTED, "shares with its embedding", true},
    /* the base's own embedding */
    {CONFIG "}", {{LM "weight", 2, {8, 4}, -1, 0.5f, NB_F32}}, NB_ERR_INPUT, "changes nothing", true},
    {CONFIG ", \"use_dora\": true}", {{"base_model.model.model.embed_tokens.lora_embedding_A", 2, {2, 8}, 1, 1, NB_F32},
     {"base_model.model.model.embed_tokens.lora_embedding_B", 2, {4, 2}, 1, 1, NB_F32}}, NB_ERR_UNSUPPORTED,
     "DoRA on an embedding", false},
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < NB_COUNT(refused); i++) {
        const bad     *b = &refused[i];
        nb_error       err = {0};
        nb_checkpoint *base;
        nb_adapters   *all;
        size_t         count = 0;
        nb_buf         notes = {0};
        while (count < 4 && b->tensors[count].name) count++;
        write_adapter(b->config, b->tensors, count);
        nb_status status = try_adapter(&base, &all, b->tied, 1, &notes, &err);
        if (status != b->status || !strstr(err.text, b->message) || !strstr(err.text, "adapter"))
            fail_msg("case %zu: status %d (expected %d), text '%s' (expected to hold '%s')", i, status, b->status, err.text,
                     b->message);
        nb_buf_free(&notes);
        close_small(base, all);
    }
    nb_error       err;
    nb_checkpoint *base;
    nb_adapters   *all;
    nb_buf         notes = {0};
    mkdir(in_folder("adapter"), 0700);
    write_text(in_folder("adapter/adapter_config.json"), CONFIG "}");
    FAILS(try_adapter(&base, &all, false, 1, &notes, &err), NB_ERR_INPUT, "adapter_model.safetensors", &err);
    close_small(base, all);
    mkdir(in_folder("adapter"), 0700);
    write_text(in_folder("adapter/adapter_config.json"), CONFIG "}");
    write_text(in_folder("adapter/adapter_model.bin"), "x");
    FAILS(try_adapter(&base, &all, false, 1, &notes, &err), NB_ERR_UNSUPPORTED, "safe_serialization", &err);
    close_small(base, all);
    nb_buf_free(&notes);
}

/* A tied head that PEFT saved next to a saved embedding is a copy of it and no reason to refuse. */
static void test_saved_twice(void **state)
{
    (void)state;
    static const small tensors[] = {{"base_model.model.lm_head.weight", 2, {8, 4}, 7, 1, NB_F32},
                                    {"base_model.model.model.embed_tokens.weight", 2, {8, 4}, 7, 1, NB_F32}};
    nb_error       err;
    nb_checkpoint *base;
    nb_adapters   *all;
    nb_buf         notes = {0};
    size_t         n;
    write_adapter(CONFIG "}", tensors, 2);
    OK(try_adapter(&base, &all, true, 1, &notes, &err), &err);
    assert_non_null(strstr(notes.data, "both change"));
    float *v = values_of(base, "model.embed_tokens.weight", &n);
    for (size_t i = 0; i < n; i++) NEAR(v[i], 7 + (double)i, 0);
    assert_null(nb_checkpoint_find(base, "lm_head.weight")->edit);
    free(v);
    nb_buf_free(&notes);
    close_small(base, all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),  cmocka_unit_test(test_dora_by_hand), cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_oracle),   cmocka_unit_test(test_refused),      cmocka_unit_test(test_saved_twice),
        cmocka_unit_test(test_quantize),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
