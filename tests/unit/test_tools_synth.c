/* test_tools_synth.c - synthetic checkpoints: shapes against the published ones, values against what is promised about
 * them, and the small size through the rest of the program. */
#include "unit.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "program.h"
#include "quant/writer.h"
#include "runtime/engine/engine.h"
#include "temp_files.h"
#include "tools/synth/synth.h"
#include "tools/synth/values.h"

static const char *place(const char *name)
{
    static char path[8][160];
    static int  i;
    i = (i + 1) % 8;
    if (!folder[0]) write_file("x", "");
    snprintf(path[i], sizeof path[i], "%s-%s", folder, name); /* beside the folder: nb_remove_folder knows no subfolders */
    return path[i];
}

static void drop(const char *path)
{
    nb_error err;
    OK(nb_remove_folder(path, &err), &err);
}



static nb_synth_options tiny(const char *out)
{
    return (nb_synth_options){.shape = nb_synth_shapes[0], .dtype = NB_BF16, .shard_size = 4000000000, .seed = 7, .out = out};
}

static void make(const nb_synth_options *o, int threads)
{
    nb_error        err;
    nb_pool        *pool;
    nb_synth_report report;
    OK(nb_pool_new(&pool, threads, &err), &err);
    OK(nb_synth(pool, o, NULL, NULL, &report, &err), &err);
    nb_pool_free(pool);
}

static nb_checkpoint *opened(const char *path)
{
    nb_error       err;
    nb_checkpoint *c;
    OK(nb_checkpoint_open(&c, path, &err), &err);
    return c;
}

/* A tensor as f32; free it. */
static float *tensor(const nb_checkpoint *c, const char *name, size_t *count)
{
    nb_error        err;
    const nb_entry *e = nb_checkpoint_find(c, name);
    if (!e) fail_msg("no tensor '%s'", name);
    *count = (size_t)e->tensor->count;
    float *out = malloc(*count * sizeof *out);
    OK(nb_entry_read_f32(e, out, &err), &err);
    return out;
}

/* Every tensor of a is in b with the same bytes; returns how many. */
static size_t same_values(const char *a, const char *b)
{
    nb_checkpoint *x = opened(a), *y = opened(b);
    size_t         n = nb_checkpoint_count(x);
    for (size_t i = 0; i < n; i++) {
        nb_error        err;
        const nb_entry *e = nb_checkpoint_at(x, i), *f = nb_checkpoint_find(y, e->name);
        void           *p, *q;
        if (!f || f->tensor->bytes != e->tensor->bytes) fail_msg("'%s' is not in both", e->name);
        OK(nb_entry_read(e, &p, &err), &err);
        OK(nb_entry_read(f, &q, &err), &err);
        if (memcmp(p, q, (size_t)e->tensor->bytes) != 0) fail_msg("'%s' differs", e->name);
        free(p);
        free(q);
    }
    nb_checkpoint_close(x);
    nb_checkpoint_close(y);
    return n;
}

/* ---- shapes ------------------------------------------------------------------------------------------------------ */

typedef struct {
    size_t   tensors;
    uint64_t parameters, largest;
} tally;

static nb_status count(void *context, const nb_synth_tensor *t, nb_error *err)
{
    tally   *sum = context;
    uint64_t n = 1;
    (void)err;
    for (int d = 0; d < t->rank; d++) n *= t->shape[d];
    sum->tensors++;
    sum->parameters += n;
    if (n > sum->largest) sum->largest = n;
    return NB_OK;
}

/* Counts of the published checkpoints. */
static void test_published_counts(void **state)
{
    static const struct {
        const char *name;
        size_t      tensors;
        uint64_t    parameters, largest;
    } published[] = {{"2b", 729, 2208985600, 233373696},
                     {"7b", 730, 8291375616, 544997376},
                     {"72b", 1354, 73405560320, 1245708288}};
    (void)state;
    for (size_t i = 0; i < NB_COUNT(published); i++) {
        nb_error              err;
        tally                 sum = {0};
        const nb_synth_shape *s = &nb_synth_shapes[i + 1];
        assert_string_equal(s->name, published[i].name);
        OK(nb_synth_each(s, 958, count, &sum, &err), &err);
        assert_int_equal(sum.tensors, published[i].tensors);
        assert_int_equal(sum.parameters, published[i].parameters);
        assert_int_equal(sum.largest, published[i].largest);
        assert_int_equal(s->mrope[0] + s->mrope[1] + s->mrope[2], s->hidden / s->heads / 2);
    }
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

typedef struct {
    nb_synth_source    source;
    nb_synth_generator generator;
} maker;

static maker *new_maker(uint64_t seed, nb_dtype dtype, const nb_synth_tensor *t)
{
    maker *m = nb_calloc_aligned(1, sizeof *m);
    nb_synth_source_init(&m->source, seed, dtype);
    nb_synth_generator_init(&m->generator, &m->source, t);
    return m;
}

static void test_distribution(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    nb_synth_tensor t = {.name = "t", .rank = 2, .shape = {1024, 1024}, .values = {.mean = 0.5, .std = 2}};
    maker          *m = new_maker(1, NB_F32, &t);
    float          *x = malloc(N * sizeof *x);
    double          sum[5] = {0}, near = 0;
    nb_synth_fill(&m->generator, 0, N, x);
    for (int i = 0; i < N; i++) {
        double z = (x[i] - 0.5) / 2, power = 1;
        for (int p = 0; p < 5; p++, power *= z) sum[p] += power / N;
        if (i) near += z * (x[i - 1] - 0.5) / 2 / N;
    }
    NEAR(sum[1], 0, 0.005); /* standard errors: 0.001, 0.0016, 0.003, 0.02 */
    NEAR(sum[2], 1, 0.008);
    NEAR(sum[3], 0, 0.02);
    NEAR(sum[4], 3.6, 0.5); /* a normal's is 3 */
    NEAR(near, 0, 0.005);
    free(x);
    free(m);
}

/* Pieces of any length and place give the values of the whole, in every type, with outliers and faint rows. */
static void test_pieces(void **state)
{
    static const nb_dtype dtypes[] = {NB_F32, NB_BF16, NB_F16};
    enum { ROWS = 40, ROW = 37, N = ROWS * ROW };
    nb_synth_tensor t = {.name = "t", .rank = 2, .shape = {ROWS, ROW},
                         .values = {.std = 0.02, .outliers = 0.1, .gain_min = 8, .gain_max = 30, .faint_from = 31}};
    (void)state;
    float exact[N], got[N];
    for (size_t d = 0; d < NB_COUNT(dtypes); d++) {
        maker        *m = new_maker(3, dtypes[d], &t);
        size_t        size = nb_dtype_size(dtypes[d]);
        unsigned char whole[N * 4], piece[N * 4], guard[4] = {0xa5, 0xa5, 0xa5, 0xa5};
        nb_synth_fill(&m->generator, 0, N, whole);
        uint64_t random = 5;
        for (int i = 0; i < 300; i++) {
            size_t first = unit_random(&random) % N, n = unit_random(&random) % (N - first + 1);
            memset(piece, 0xa5, sizeof piece);
            nb_synth_fill(&m->generator, first, n, piece);
            assert_memory_equal(piece, whole + first * size, n * size);
            if (n < N) assert_memory_equal(piece + n * size, guard, size); /* nothing behind it was touched */
        }
        nb_to_f32(got, whole, dtypes[d], N);
        if (d == 0) memcpy(exact, got, sizeof exact);
        for (int i = 0; i < N; i++) NEAR(got[i], exact[i], fabsf(exact[i]) / 256 + 1e-7); /* one rounding of the same value */
        free(m);
    }
}

static double rms(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return sqrt(sum / (double)n);
}

/* Which of the norm's channels stand out, as bits. */
static uint64_t large_channels(const nb_checkpoint *c, const char *name)
{
    size_t   n;
    float   *x = tensor(c, name, &n);
    uint64_t mask = 0;
    assert_int_equal(n, 64);
    for (size_t i = 0; i < n; i++) {
        if (x[i] > 4) mask |= (uint64_t)1 << i;
        else NEAR(x[i], 1, 0.6);
    }
    free(x);
    return mask;
}

static size_t large_rows(const nb_checkpoint *c, const char *name, size_t row)
{
    size_t n, large = 0;
    float *x = tensor(c, name, &n);
    double one = 1 / sqrt((double)row);
    for (size_t i = 0; i < n / row; i++) {
        double r = rms(x + i * row, row);
        if (r > 4 * one) large++;
        else NEAR(r, one, one * 0.5);
    }
    free(x);
    return large;
}

static void test_realistic(void **state)
{
    (void)state;
    nb_synth_options o = tiny(place("real"));
    make(&o, 2);
    nb_checkpoint *c = opened(o.out);
    uint64_t       channels = large_channels(c, "model.layers.0.input_layernorm.weight");
    assert_int_equal(__builtin_popcountll(channels), 1); /* 0.3 % of 64, rounded up */
    assert_int_equal(large_channels(c, "model.layers.0.post_attention_layernorm.weight"), channels);
    assert_int_equal(large_channels(c, "model.layers.1.input_layernorm.weight"), channels);
    assert_int_equal(large_rows(c, "model.layers.0.self_attn.v_proj.weight", 64), 1);
    assert_int_equal(large_rows(c, "model.layers.1.mlp.up_proj.weight", 64), 1);
    assert_int_equal(large_rows(c, "model.layers.1.mlp.gate_proj.weight", 64), 0);
    assert_int_equal(large_rows(c, "model.layers.1.mlp.down_proj.weight", 128), 0);
    size_t n;
    float *embedding = tensor(c, "model.embed_tokens.weight", &n);
    assert_int_equal(n, 1024 * 64);
    NEAR(rms(embedding, 958 * 64), 0.125, 0.005);
    NEAR(rms(embedding + 958 * 64, 66 * 64), 0.125 / 8, 0.001); /* ids without a token: small, not zero */
    free(embedding);
    nb_checkpoint_close(c);
    drop(o.out);
}

/* The bytes of seed 7, so that a change of the generator does not go unnoticed: FNV-1a 64 over all tensors by name. */
static void test_bytes_are_fixed(void **state)
{
    (void)state;
    nb_synth_options o = tiny(place("fixed"));
    make(&o, 1);
    nb_checkpoint *c = opened(o.out);
    uint64_t       hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < nb_checkpoint_count(c); i++) {
        nb_error        err;
        const nb_entry *e = nb_checkpoint_at(c, i);
        void           *data;
        OK(nb_entry_read(e, &data, &err), &err);
        for (uint64_t j = 0; j < e->tensor->bytes; j++) hash = (hash ^ ((unsigned char *)data)[j]) * 0x100000001b3u;
        free(data);
    }
    nb_checkpoint_close(c);
    drop(o.out);
    if (hash != 0x03998a3b02c03c8cu) fail_msg("the bytes of a seed changed: %016llx", (unsigned long long)hash);
}

/* ---- the directory ----------------------------------------------------------------------------------------------- */

static void test_same_values(void **state)
{
    (void)state;
    nb_synth_options one = tiny(place("one")), other = tiny(place("other"));
    nb_buf           a = {0}, b = {0};
    nb_error         err;
    char             path[200];
    make(&one, 1);

    make(&other, 2); /* threads */
    snprintf(path, sizeof path, "%s/model.safetensors", one.out);
    OK(nb_file_read(&a, path, 1 << 24, &err), &err);
    snprintf(path, sizeof path, "%s/model.safetensors", other.out);
    OK(nb_file_read(&b, path, 1 << 24, &err), &err);
    assert_int_equal(a.size, b.size);
    assert_memory_equal(a.data, b.data, a.size);
    nb_buf_free(&b);

    other.force = true;
    other.seed++;
    make(&other, 2);
    OK(nb_file_read(&b, path, 1 << 24, &err), &err);
    assert_int_equal(a.size, b.size);
    size_t differ = 0;
    for (size_t i = 0; i < a.size; i++) differ += a.data[i] != b.data[i];
    assert_true(differ > a.size / 2);
    nb_buf_free(&a);
    nb_buf_free(&b);

    other = tiny(other.out); /* layout and shards */
    other.force = true;
    other.layout = NB_LAYOUT_NEW;
    other.shard_size = 100000;
    make(&other, 2);
    assert_int_equal(same_values(one.out, other.out), 57);
    nb_checkpoint *c = opened(other.out);
    assert_int_equal(nb_checkpoint_layout(c), NB_LAYOUT_NEW);
    assert_true(nb_checkpoint_shards(c) >= 4);
    assert_non_null(nb_safetensors_find(nb_checkpoint_find(c, "model.norm.weight")->file, "model.language_model.norm.weight"));
    nb_checkpoint_close(c);
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", other.out);
    assert_true(nb_file_exists(path));

    other.shape.layers = 1; /* a prefix */
    other.shape.v_depth = 1;
    make(&other, 1);
    assert_int_equal(same_values(other.out, one.out), 57 - 12 - 12);
    drop(one.out);
    drop(other.out);
}

/* A tensor of more than one piece (4 Mi elements) is what one call makes of it. */
static void test_large_tensor(void **state)
{
    (void)state;
    enum { VOCAB = 140000, N = VOCAB * 64 };
    nb_synth_options o = tiny(place("large"));
    nb_error         err;
    void            *got;
    o.shape.vocab = VOCAB;
    make(&o, 2);
    nb_synth_tensor t = {.name = "model.embed_tokens.weight", .rank = 2, .shape = {VOCAB, 64},
                         .values = {.std = 0.125, .faint_from = 958}};
    maker          *m = new_maker(7, NB_BF16, &t);
    uint16_t       *want = malloc(N * sizeof *want);
    nb_synth_fill(&m->generator, 0, N, want);
    nb_checkpoint  *c = opened(o.out);
    const nb_entry *e = nb_checkpoint_find(c, t.name);
    assert_int_equal(e->tensor->bytes, N * sizeof *want);
    OK(nb_entry_read(e, &got, &err), &err);
    assert_memory_equal(got, want, N * sizeof *want);
    free(got);
    free(want);
    free(m);
    nb_checkpoint_close(c);
    drop(o.out);
}

/* Fields that no reader of ours takes from config.json, and the form of each layout. */
static void test_config(void **state)
{
    (void)state;
    for (int new = 0; new < 2; new++) {
        nb_synth_options o = tiny(place("config"));
        nb_error         err;
        cJSON           *tree;
        char             path[200];
        o.layout = new ? NB_LAYOUT_NEW : NB_LAYOUT_OLD;
        make(&o, 1);
        snprintf(path, sizeof path, "%s/config.json", o.out);
        OK(nb_json_file(&tree, path, 1 << 20, &err), &err);
        const cJSON *text = nb_json_find(tree, "text_config"), *from = new ? text : tree;
        assert_true((text != NULL) == new);
        assert_int_equal(nb_json_find(from, "eos_token_id")->valueint, 946);
        assert_int_equal(nb_json_find(from, "bos_token_id")->valueint, 944);
        assert_int_equal(nb_json_find(from, "vision_token_id")->valueint, 955);
        assert_int_equal(nb_json_find(from, "max_window_layers")->valueint, 2);
        assert_string_equal(nb_json_find(from, new ? "dtype" : "torch_dtype")->valuestring, "bfloat16");
        assert_string_equal(nb_json_find(nb_json_find(from, "rope_scaling"), "type")->valuestring, new ? "default" : "mrope");
        assert_string_equal(nb_json_find(tree, "architectures")->child->valuestring, "Qwen2VLForConditionalGeneration");
        cJSON_Delete(tree);
        drop(o.out);
    }
}

/* Each element of the last logits of three tokens is a number, and they differ. */
typedef struct {
    int    vocab, rows;
    double least, most;
} seen;

static nb_status look(void *context, nb_sequence *s, size_t row, float *logits, nb_error *err)
{
    seen *k = context;
    (void)s, (void)row, (void)err;
    for (int i = 0; i < k->vocab; i++) {
        assert_true(isfinite(logits[i]));
        if (k->least > logits[i]) k->least = logits[i];
        if (k->most < logits[i]) k->most = logits[i];
    }
    k->rows++;
    return NB_OK;
}

/* The program's own readers take it: config, names, shapes, forward. */
static void check_model(const nb_synth_options *o)
{
    nb_error              err;
    nb_pool              *pool;
    nb_ops                ops;
    nb_model             *m;
    nb_engine            *e;
    nb_prompt             p;
    nb_sequence          *s;
    const nb_synth_shape *w = &o->shape;
    nb_engine_options     engine = {.max_tokens = 64, .kv_type = NB_F32};
    const int32_t         ids[] = {945, 1, 500, 946, 1023};
    seen                  k = {.vocab = 1024, .least = INFINITY, .most = -INFINITY};
    size_t                advanced;
    OK(nb_pool_new(&pool, 1, &err), &err);
    nb_ops_init(&ops, NB_ISA_REF, pool);
    OK(nb_model_open(&m, o->out, &ops, 0, &err), &err);
    const nb_config *c = &m->config;
    assert_true(c->hidden == 64 && c->intermediate == 128 && c->heads == 4 && c->kv_heads == 2 && c->head_dim == 16);
    assert_true(c->layers == w->layers && c->v_depth == w->v_depth && c->vocab == 1024 && c->tied == w->tied);
    assert_true(c->v_dim == 32 && c->v_heads == 2 && c->v_inner == 128 && c->v_out == 64 && c->v_patch == 14);
    assert_true(c->mrope[0] == 2 && c->mrope[1] == 3 && c->mrope[2] == 3 && c->dtype == o->dtype && c->rope_theta == 1e6f);
    assert_true(c->vision_start == 953 && c->vision_end == 954 && c->image_pad == 956 && c->video_pad == 957);
    assert_true(m->generation.eos_count == 2 && m->generation.eos[0] == 946 && m->generation.eos[1] == 944);
    NEAR(c->rms_eps, 1e-6, 1e-12);
    OK(nb_engine_new(&e, m, &engine, &err), &err);
    OK(nb_prompt_from_ids(&p, ids, NB_COUNT(ids), c, &err), &err);
    OK(nb_sequence_new(&s, e, &p, &(nb_sequence_options){ .total = NB_COUNT(ids), .on_logits = look, .context = &k }, &err), &err);
    do OK(nb_engine_step(e, &advanced, &err), &err);
    while (advanced);
    assert_int_equal(k.rows, NB_COUNT(ids));
    assert_true(k.most - k.least > 4 && k.most - k.least < 100);
    nb_sequence_free(s);
    nb_prompt_free(&p);
    nb_engine_free(e);
    nb_model_close(m);
    nb_pool_free(pool);
}

static void test_models(void **state)
{
    static const nb_dtype dtypes[] = {NB_BF16, NB_F16, NB_F32};
    (void)state;
    for (int i = 0; i < 12; i++) { /* dtype, layout, tie */
        nb_synth_options o = tiny(place("model"));
        o.dtype = dtypes[i % 3];
        o.layout = i / 3 % 2 ? NB_LAYOUT_NEW : NB_LAYOUT_OLD;
        o.shape.tied = i / 6;
        if (i == 4) o.shape.layers = 3, o.shape.v_depth = 1, o.shard_size = 50000;
        make(&o, 2);
        nb_checkpoint *c = opened(o.out);
        assert_int_equal(nb_checkpoint_find(c, "lm_head.weight") != NULL, !o.shape.tied);
        assert_int_equal(nb_checkpoint_at(c, 0)->tensor->dtype, o.dtype);
        nb_checkpoint_close(c);
        check_model(&o);
        drop(o.out);
    }
}

static bool refuse(void *context, uint64_t done, uint64_t total, const char *name)
{
    (void)name;
    assert_true(done <= total && total == 2 * 227712);
    return --*(int *)context > 0;
}

static void test_stop(void **state)
{
    (void)state;
    nb_error         err;
    nb_pool         *pool;
    nb_synth_report  report;
    nb_synth_options o = tiny(place("stopped"));
    int              calls = 10;
    OK(nb_pool_new(&pool, 1, &err), &err);
    FAILS(nb_synth(pool, &o, refuse, &calls, &report, &err), NB_ERR_STOPPED, "stopped", &err);
    assert_int_equal(calls, 0);
    assert_false(nb_file_exists(o.out));
    assert_false(nb_file_exists(place("stopped.partial")));
    o.shape.vocab = 900;
    FAILS(nb_synth(pool, &o, NULL, NULL, &report, &err), NB_ERR_INPUT, "958 ids", &err);
    assert_false(nb_file_exists(place("stopped.partial")));
    nb_pool_free(pool);
}

/* The writer's pieces: in order they make the tensor, and neither too much nor too little passes. */
static void test_append(void **state)
{
    (void)state;
    nb_error   err;
    nb_writer *w;
    nb_buf     got = {0};
    char       path[200], data[24] = "abcdefghijklmnopqrstuvw";
    snprintf(path, sizeof path, "%s/model.safetensors", place("append"));
    OK(nb_writer_new(&w, place("append"), 1000, false, &err), &err);
    OK(nb_writer_declare(w, "a", NB_U8, 1, (const uint64_t[]){24}, &err), &err);
    OK(nb_writer_declare(w, "b", NB_U8, 1, (const uint64_t[]){24}, &err), &err);
    OK(nb_writer_plan(w, &err), &err);
    OK(nb_writer_append(w, "a", data, 10, &err), &err);
    OK(nb_writer_append(w, "b", data, 1, &err), &err);
    FAILS(nb_writer_append(w, "a", data + 10, 15, &err), NB_ERR_ARGUMENT, "15 bytes given after 10, 24 declared", &err);
    FAILS(nb_writer_tensor(w, "a", data, 24, &err), NB_ERR_ARGUMENT, "already written", &err);
    FAILS(nb_writer_append(w, "c", data, 1, &err), NB_ERR_ARGUMENT, "not declared", &err);
    OK(nb_writer_append(w, "a", data + 10, 14, &err), &err);
    FAILS(nb_writer_append(w, "a", data, 0, &err), NB_ERR_ARGUMENT, "already written", &err);
    FAILS(nb_writer_commit(w, &err), NB_ERR_ARGUMENT, "'b' was declared and never written whole", &err);
    OK(nb_writer_append(w, "b", data + 1, 23, &err), &err);
    OK(nb_writer_commit(w, &err), &err);
    nb_writer_free(w);
    OK(nb_file_read(&got, path, 1000, &err), &err);
    assert_memory_equal(got.data + got.size - 48, data, 24);
    assert_memory_equal(got.data + got.size - 24, data, 24);
    nb_buf_free(&got);
    drop(place("append"));
}

/* ---- the program ------------------------------------------------------------------------------------------------- */

static void test_program(void **state)
{
    (void)state;
    const char *model = place("program"), *again = place("again"), *quantized = place("quantized");
    char        recipe[200];
    const char *picture = unit_path("tools/demo/calib/images/chat-0000-0.png");
    ENDS(0, "synth", "tiny", "--out", model, "--seed", "5", "--layout", "new", "-t", "2");
    holds(printed[0], "228 k random weights in 57 tensors");
    ENDS(0, "inspect", model);
    holds(printed[0], "2 layers of 64, intermediate 128, 4 heads of 16, 2 KV heads");
    holds(printed[0], "new (transformers 4.52 and later)");
    if (strstr(printed[0], "missing  ")) fail_msg("a side file is missing: %s", printed[0]);
    ENDS(0, "run", model, "-p", "Hello", "-n", "8", "--temp", "0", "--ignore-eos", "--json", "-q");
    holds(printed[0], "\"completion_tokens\": 8");
    ENDS(0, "run", model, "-p", "What is this?", "--image", picture, "-n", "4", "-q");
    ENDS(0, "quantize", model, "--method", "rtn", "--group-size", "32", "--samples", "2", "--data",
            unit_path("tools/demo/calib/chat.jsonl"), "--gate", "off", "--out", quantized, "-q");
    ENDS(0, "run", quantized, "-p", "Hello", "-n", "8", "--temp", "0", "-q");
    ENDS(0, "bench", model, quantized, "-p", "16", "-n", "4", "-r", "1");
    holds(printed[0], "pp16");

    snprintf(recipe, sizeof recipe, "%s/synth.json", model); /* makes it again */
    ENDS(2, "synth", "--config", recipe);
    holds(printed[1], "exists");
    ENDS(0, "synth", "--config", recipe, "--out", again, "--json", "-q");
    holds(printed[0], "\"params\": 227712,");
    assert_int_equal(same_values(model, again), 57);
    ENDS(0, "synth", "tiny", "--out", again, "--force", "--no-tie", "--layers", "3", "--vision-layers", "1", "--dtype",
            "f16", "--shard-size", "100KB", "-q");
    ENDS(0, "inspect", again);
    holds(printed[0], "3 layers of 64");
    holds(printed[0], "separate head");
    holds(printed[0], "float16");

    ENDS(2, "synth", "3b", "--out", place("never"));
    ENDS(2, "synth", "tiny");
    ENDS(2, "synth", "tiny", "--out", place("never"), "--layers", "0");
    ENDS(2, "synth", "tiny", "--out", place("no/never"));
    assert_false(nb_file_exists(place("never")));
    drop(model);
    drop(again);
    drop(quantized);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_counts), cmocka_unit_test(test_distribution), cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_realistic),        cmocka_unit_test(test_bytes_are_fixed), cmocka_unit_test(test_same_values),
        cmocka_unit_test(test_large_tensor), cmocka_unit_test(test_config),
        cmocka_unit_test(test_models),           cmocka_unit_test(test_stop),         cmocka_unit_test(test_append),
        cmocka_unit_test(test_program),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
