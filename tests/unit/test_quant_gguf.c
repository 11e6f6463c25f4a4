/* GGUF pairs of the demo, read by a small reader of its own: the container's rules, llama.cpp's names and shapes, keys, and every tensor
 * dequantized by the definition of its blocks against what the checkpoint means. */
#include "unit.h"

#include <dirent.h>

#include "quant/export.h"
#include "quant/float_layer.h"
#include "quant/gguf_blocks.h"
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

/* ---- a reader ---------------------------------------------------------------------------------------------------------- */

typedef struct {
    char     name[64];
    uint32_t rank, type;
    uint64_t dims[4], offset;
} tensor;

typedef struct {
    nb_buf   file;
    size_t   at;
    tensor   tensors[512];
    uint64_t tensor_count, key_count;
    size_t   data;
    struct { char key[64]; uint32_t type; size_t at; } keys[64]; /* where the value begins */
} gguf;

static uint64_t number(gguf *g, size_t bytes)
{
    uint64_t v = 0;
    assert_true(g->at + bytes <= g->file.size);
    memcpy(&v, g->file.data + g->at, bytes);
    g->at += bytes;
    return v;
}

static void text(gguf *g, char *out, size_t n)
{
    uint64_t length = number(g, 8);
    assert_true(g->at + length <= g->file.size);
    if (out) snprintf(out, n, "%.*s", (int)length, g->file.data + g->at);
    g->at += length;
}

static void skip_value(gguf *g, uint32_t type)
{
    if (type == 8) {
        text(g, NULL, 0);
    } else if (type == 9) {
        uint32_t inner = (uint32_t)number(g, 4);
        for (uint64_t i = number(g, 8); i > 0; i--) skip_value(g, inner);
    } else {
        number(g, type == 7 ? 1 : 4);
    }
}

static uint64_t bytes_of(const tensor *t)
{
    static const struct { uint32_t type; uint64_t block,
                         bytes; } types[] = {{0, 1, 4}, {1, 1, 2}, {30, 1, 2}, {2, 32, 18}, {3, 32, 20}, {8, 32, 34}};
    uint64_t count = 1;
    for (uint32_t i = 0; i < t->rank; i++) count *= t->dims[i];
    for (size_t i = 0; i < NB_COUNT(types); i++)
        if (types[i].type == t->type) {
            assert_int_equal(t->dims[0] % types[i].block, 0);
            return count / types[i].block * types[i].bytes;
        }
    fail_msg("%s has type %u", t->name, t->type);
    return 0;
}

static gguf *open_gguf(const char *path)
{
    nb_error err;
    gguf    *g = calloc(1, sizeof *g);
    OK(nb_file_read(&g->file, path, 200 << 20, &err), &err);
    assert_memory_equal(g->file.data, "GGUF", 4);
    g->at = 4;
    assert_int_equal(number(g, 4), 3);
    g->tensor_count = number(g, 8);
    g->key_count = number(g, 8);
    assert_true(g->tensor_count < NB_COUNT(g->tensors) && g->key_count < NB_COUNT(g->keys));
    for (uint64_t i = 0; i < g->key_count; i++) {
        text(g, g->keys[i].key, sizeof g->keys[i].key);
        g->keys[i].type = (uint32_t)number(g, 4);
        g->keys[i].at = g->at;
        skip_value(g, g->keys[i].type);
    }
    for (uint64_t i = 0; i < g->tensor_count; i++) {
        tensor *t = &g->tensors[i];
        text(g, t->name, sizeof t->name);
        t->rank = (uint32_t)number(g, 4);
        for (uint32_t d = 0; d < t->rank; d++) t->dims[d] = number(g, 8);
        t->type = (uint32_t)number(g, 4);
        t->offset = number(g, 8);
    }
    g->data = (g->at + 31) / 32 * 32;
    uint64_t end = 0;
    for (uint64_t i = 0; i < g->tensor_count; i++) { /* without holes but for the alignment */
        assert_int_equal(g->tensors[i].offset, end);
        end = (end + bytes_of(&g->tensors[i]) + 31) / 32 * 32;
    }
    assert_int_equal(g->data + end, g->file.size);
    return g;
}

static void close_gguf(gguf *g)
{
    nb_buf_free(&g->file);
    free(g);
}

static const tensor *find(const gguf *g, const char *name)
{
    for (uint64_t i = 0; i < g->tensor_count; i++)
        if (!strcmp(g->tensors[i].name, name)) return &g->tensors[i];
    fail_msg("%s is missing", name);
    return NULL;
}

/* The value of a key: its bytes. */
static const char *value(const gguf *g, const char *key, uint32_t type)
{
    for (uint64_t i = 0; i < g->key_count; i++)
        if (!strcmp(g->keys[i].key, key)) {
            assert_int_equal(g->keys[i].type, type);
            return g->file.data + g->keys[i].at;
        }
    fail_msg("%s is missing", key);
    return NULL;
}

static uint32_t u32_of(const gguf *g, const char *key)
{
    uint32_t v;
    memcpy(&v, value(g, key, 4), 4);
    return v;
}

static float f32_of(const gguf *g, const char *key)
{
    float v;
    memcpy(&v, value(g, key, 6), 4);
    return v;
}

static void string_is(const gguf *g, const char *key, const char *want)
{
    const char *v = value(g, key, 8);
    uint64_t    n;
    memcpy(&n, v, 8);
    assert_int_equal(n, strlen(want));
    assert_memory_equal(v + 8, want, n);
}

static float half_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, 2);
    return nb_f16_to_f32(h);
}

/* Element i of a tensor, by the definition of its type. */
static float element(const gguf *g, const tensor *t, size_t i)
{
    const uint8_t *p = (const uint8_t *)g->file.data + g->data + t->offset;
    size_t         block = i / 32, j = i % 32;
    float          v;
    uint32_t       wide;
    switch (t->type) {
    case 0: memcpy(&v, p + 4 * i, 4); return v;
    case 1: return half_at(p + 2 * i);
    case 30: wide = (uint32_t)(p[2 * i] | p[2 * i + 1] << 8) << 16; memcpy(&v, &wide, 4); return v;
    case 2: p += block * 18; return (float)((p[2 + j % 16] >> (j < 16 ? 0 : 4) & 15) - 8) * half_at(p);
    case 3: p += block * 20; return (float)(p[4 + j % 16] >> (j < 16 ? 0 : 4) & 15) * half_at(p) + half_at(p + 2);
    default: p += block * 34; return (float)(int8_t)p[2 + j] * half_at(p);
    }
}

/* ---- comparing --------------------------------------------------------------------------------------------------------- */

/* within: 0 for equality, or in scales of the largest weight. */
static void same_matrix(const opened *o, const gguf *g, const char *to, const char *from, int n, int k, int part, int thirds)
{
    nb_error      err;
    nb_linear     l;
    char          name[80];
    float        *w = malloc((size_t)n * (size_t)k * sizeof *w), largest = 0;
    snprintf(name, sizeof name, "%s.weight", to);
    const tensor *t = find(g, name);
    OK(nb_linear_read(&l, o->checkpoint, &o->config.quant, from, n, k, -1, &err), &err);
    nb_weights_to_f32(w, &l.weights);
    assert_true(t->rank == 2 && t->dims[0] == (uint64_t)k && t->dims[1] == (uint64_t)(n / thirds));
    for (size_t i = 0; i < (size_t)n * (size_t)k; i++) largest = fmaxf(largest, fabsf(w[i]));
    size_t first = (size_t)(n / thirds * part) * (size_t)k;
    for (size_t i = 0; i < (size_t)(n / thirds) * (size_t)k; i++) {
        float got = element(g, t, i), want = w[first + i];
        if (t->type == 1) want = nb_f16_to_f32(nb_f32_to_f16(want));
        bool good = t->type == 3 ? fabsf(got - want) <= largest * 0x1p-9f : got == want;
        if (!good) fail_msg("%s: element %zu is %g, expected %g", name, i, (double)got, (double)want);
    }
    nb_linear_free(&l);
    free(w);
}

static void same_vector(const opened *o, const gguf *g, const char *to, const char *from, int part, int thirds)
{
    nb_error        err;
    const nb_entry *e = nb_checkpoint_find(o->checkpoint, from);
    const tensor   *t = find(g, to);
    float          *v = malloc(e->tensor->count * sizeof *v);
    OK(nb_entry_read_f32(e, v, &err), &err);
    size_t count = e->tensor->count / (size_t)thirds;
    assert_true(t->type == 0 && t->rank == 1 && t->dims[0] == count);
    for (size_t i = 0; i < count; i++) assert_true(element(g, t, i) == v[count * (size_t)part + i]);
    free(v);
}

static void check_text(const opened *o, const gguf *g)
{
    static const char *const to[NB_LINEARS] = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
    const nb_config         *c = &o->config;
    string_is(g, "general.architecture", "qwen2vl");
    string_is(g, "tokenizer.ggml.model", "gpt2");
    string_is(g, "tokenizer.ggml.pre", "qwen2");
    assert_int_equal(u32_of(g, "qwen2vl.block_count"), 6);
    assert_int_equal(u32_of(g, "qwen2vl.embedding_length"), 256);
    assert_int_equal(u32_of(g, "qwen2vl.feed_forward_length"), 1024);
    assert_int_equal(u32_of(g, "qwen2vl.attention.head_count"), 4);
    assert_int_equal(u32_of(g, "qwen2vl.attention.head_count_kv"), 2);
    assert_int_equal(u32_of(g, "qwen2vl.context_length"), 4096);
    assert_int_equal(u32_of(g, "tokenizer.ggml.eos_token_id"), 946);
    assert_int_equal(u32_of(g, "tokenizer.ggml.padding_token_id"), 944);
    assert_true(f32_of(g, "qwen2vl.rope.freq_base") == 1e6f && f32_of(g, "qwen2vl.attention.layer_norm_rms_epsilon") == 1e-5f);
    const int32_t sections[4] = {8, 12, 12, 0};
    assert_memory_equal(value(g, "qwen2vl.rope.dimension_sections", 9) + 12, sections, sizeof sections);
    same_matrix(o, g, "token_embd", "model.embed_tokens", c->vocab, c->hidden, 0, 1);
    same_vector(o, g, "output_norm.weight", "model.norm.weight", 0, 1);
    if (!c->tied) same_matrix(o, g, "output", "lm_head", c->vocab, c->hidden, 0, 1);
    for (int layer = 0; layer < c->layers; layer++) {
        nb_float_layer f;
        char           name[64], from[80];
        nb_float_layer_shape(&f, c, layer);
        for (int i = 0; i < NB_LINEARS; i++) {
            snprintf(name, sizeof name, "blk.%d.%s", layer, to[i]);
            same_matrix(o, g, name, f.name[i], f.n[i], f.k[i], 0, 1);
            if (i > NB_V) continue;
            snprintf(name, sizeof name, "blk.%d.%s.bias", layer, to[i]);
            snprintf(from, sizeof from, "%s.bias", f.name[i]);
            same_vector(o, g, name, from, 0, 1);
        }
        snprintf(name, sizeof name, "blk.%d.attn_norm.weight", layer);
        same_vector(o, g, name, f.norm_name[0], 0, 1);
        snprintf(name, sizeof name, "blk.%d.ffn_norm.weight", layer);
        same_vector(o, g, name, f.norm_name[1], 0, 1);
    }
    assert_int_equal(g->tensor_count, 2 + !c->tied + c->layers * (NB_LINEARS + 3 + 2));
}

static void check_vision(const opened *o, const gguf *g)
{
    const nb_config *c = &o->config;
    nb_error         err;
    string_is(g, "general.architecture", "clip");
    string_is(g, "clip.projector_type", "qwen2vl_merger");
    assert_int_equal(*value(g, "clip.has_vision_encoder", 7), 1);
    assert_int_equal(u32_of(g, "clip.vision.embedding_length"), 192);
    assert_int_equal(u32_of(g, "clip.vision.feed_forward_length"), 768);
    assert_int_equal(u32_of(g, "clip.vision.projection_dim"), 256);
    assert_int_equal(u32_of(g, "clip.vision.block_count"), 4);
    assert_int_equal(u32_of(g, "clip.vision.attention.head_count"), 4);
    assert_int_equal(u32_of(g, "clip.vision.patch_size"), 14);
    static const struct { const char *to, *from; int linear, part, thirds; } linears[] = {
        {"attn_q", "attn.qkv", 0, 0, 3},   {"attn_k", "attn.qkv", 0, 1, 3}, {"attn_v", "attn.qkv", 0, 2, 3},
        {"attn_out", "attn.proj", 1, 0, 1}, {"ffn_up", "mlp.fc1", 2, 0, 1},  {"ffn_down", "mlp.fc2", 3, 0, 1}};
    char to[80], from[80];
    for (int block = 0; block < c->v_depth; block++)
        for (size_t i = 0; i < NB_COUNT(linears); i++) {
            nb_outer m;
            nb_vision_linear(&m, c, block * 4 + linears[i].linear);
            snprintf(to, sizeof to, "v.blk.%d.%s", block, linears[i].to);
            same_matrix(o, g, to, m.name, m.n, m.k, linears[i].part, linears[i].thirds);
            snprintf(to, sizeof to, "v.blk.%d.%s.bias", block, linears[i].to);
            snprintf(from, sizeof from, "visual.blocks.%d.%s.bias", block, linears[i].from);
            same_vector(o, g, to, from, linears[i].part, linears[i].thirds);
        }
    same_vector(o, g, "v.blk.3.ln2.bias", "visual.blocks.3.norm2.bias", 0, 1);
    same_vector(o, g, "v.post_ln.weight", "visual.merger.ln_q.weight", 0, 1);
    same_vector(o, g, "mm.2.bias", "visual.merger.mlp.2.bias", 0, 1);
    same_matrix(o, g, "mm.0", "visual.merger.mlp.0", 768, 768, 0, 1);
    same_matrix(o, g, "mm.2", "visual.merger.mlp.2", 256, 768, 0, 1);
    const nb_entry *e = nb_checkpoint_find(o->checkpoint, "visual.patch_embed.proj.weight");
    float          *w = malloc(e->tensor->count * sizeof *w);
    OK(nb_entry_read_f32(e, w, &err), &err);
    for (int frame = 0; frame < 2; frame++) {
        const tensor *t = find(g, frame ? "v.patch_embd.weight.1" : "v.patch_embd.weight");
        assert_true(t->rank == 4 && t->dims[0] == 14 && t->dims[1] == 14 && t->dims[2] == 3 && t->dims[3] == 192);
        for (int d = 0; d < 192; d++)
            for (int ch = 0; ch < 3; ch++)
                for (int i = 0; i < 196; i++)
                    assert_true(element(g, t, (size_t)((d * 3 + ch) * 196 + i)) ==
                                nb_f16_to_f32(nb_f32_to_f16(w[((d * 3 + ch) * 2 + frame) * 196 + i])));
    }
    free(w);
    assert_int_equal(g->tensor_count, 2 + c->v_depth * 16 + 2 + 4);
}

static void check_tokens(const gguf *g)
{
    nb_error    err;
    cJSON      *tree;
    const char *v = value(g, "tokenizer.ggml.tokens", 9) + 4, *kinds = value(g, "tokenizer.ggml.token_type", 9) + 12;
    uint64_t    count, n;
    OK(nb_json_file(&tree, unit_path("tools/demo/model/tokenizer.json"), 10 << 20, &err), &err);
    const cJSON *vocabulary = nb_json_find(nb_json_find(tree, "model"),
                                           "vocab"), *added = nb_json_find(tree, "added_tokens"), *a;
    memcpy(&count, v, 8);
    assert_int_equal(count, 1024);
    v += 8;
    size_t known = 0;
    for (uint64_t i = 0; i < count; i++) {
        char    name[200];
        int32_t kind;
        memcpy(&n, v, 8);
        snprintf(name, sizeof name, "%.*s", (int)n, v + 8);
        v += 8 + n;
        memcpy(&kind, kinds + 4 * i, 4);
        const cJSON *id = cJSON_GetObjectItemCaseSensitive(vocabulary, name);
        bool         plain = id && id->valueint == (int)i, special = false;
        cJSON_ArrayForEach(a, added) special = special || (nb_json_find(a, "id")->valueint == (int)i &&
                                                           !strcmp(nb_json_find(a, "content")->valuestring, name));
        known += plain || special;
        if (kind != (special ? 3 : plain ? 1 : 5)) fail_msg("token %llu '%s' has kind %d", (unsigned long long)i, name, kind);
    }
    assert_int_equal(known, (size_t)cJSON_GetArraySize(vocabulary) + (size_t)cJSON_GetArraySize(added));
    memcpy(&n, value(g, "tokenizer.ggml.merges", 9) + 4, 8);
    assert_int_equal(n, cJSON_GetArraySize(nb_json_find(nb_json_find(tree, "model"), "merges")));
    cJSON_Delete(tree);
}

static void pairs(void **state)
{
    (void)state;
    static const struct { nb_format format; nb_grid grid; int vision, head; uint32_t type, tower; const char *file,
                         *mmproj; } cases[] = {
        {NB_FORMAT_GPTQ, {4, 128, true}, 0, 0, 2, 1, "pair/pair-Q4_0.gguf", "pair/mmproj-pair-F16.gguf"},
        {NB_FORMAT_AWQ, {4, 64, false}, 0, 0, 3, 1, "pair/pair-Q4_1.gguf", "pair/mmproj-pair-F16.gguf"},
        {NB_FORMAT_CT, {8, 0, true}, 8, 8, 8, 8, "pair/pair-Q8_0.gguf", "pair/mmproj-pair-Q8_0.gguf"},
        {NB_FORMAT_CT, {8, 32, false}, 4, 0, 1, 2, "pair/pair-F16.gguf", "pair/mmproj-pair-Q4_0.gguf"},
        {NB_FORMAT_CT, {4, 16, true}, 0, 0, 1, 1, "pair/pair-F16.gguf", "pair/mmproj-pair-F16.gguf"},
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        nb_error            err;
        nb_quantize_report  r;
        nb_export_report    x;
        nb_quantize_options o = {.model_dir = source, .out_dir = in_folder("rtn"), .method = NB_METHOD_RTN,
                                 .grid = cases[i].grid,
                                 .format = cases[i].format, .vision = cases[i].vision, .head = cases[i].head, .embeddings = cases[i].head,
                                 .modality_weights = {1, 1, 1}, .shard_size = 1000000000, .recipe_json = "{}"};
        nb_export_options   e = {.model_dir = o.out_dir, .out_dir = in_folder("pair"), .form = NB_EXPORT_GGUF,
                                 .layout = -1, .shard_size = 1};
        OK(nb_quantize(&ops, &o, NULL, NULL, &r, &err), &err);
        nb_quantize_report_free(&r);
        OK(nb_export(&e, NULL, NULL, &x, &err), &err);
        assert_true((x.zero_error > 0) == (cases[i].type == 3) && x.zero_error < 0.01);
        nb_export_report_free(&x);
        opened from = open_dir(o.out_dir);
        gguf  *text_file = open_gguf(in_folder(cases[i].file)), *tower = open_gguf(in_folder(cases[i].mmproj));
        assert_int_equal(find(text_file, "blk.2.ffn_down.weight")->type, cases[i].type);
        assert_int_equal(find(tower, "v.blk.1.ffn_up.weight")->type, cases[i].tower);
        check_text(&from, text_file);
        check_vision(&from, tower);
        check_tokens(text_file);
        close_gguf(text_file);
        close_gguf(tower);
        nb_checkpoint_close(from.checkpoint);
        assert_true(nb_file_exists(in_folder("pair/tokenizer.json")) && !nb_file_exists(in_folder("pair/model.safetensors")));
        OK(nb_remove_folder(in_folder("rtn"), &err), &err);
        OK(nb_remove_folder(in_folder("pair"), &err), &err);
    }
}

/* A float checkpoint with padding, and one without tokenizer.json. */
static void floats(void **state)
{
    (void)state;
    nb_error          err;
    nb_export_report  r;
    nb_export_options o = {.model_dir = source, .out_dir = in_folder("pair"), .form = NB_EXPORT_GGUF, .layout = -1,
                           .tp = 3, .shard_size = 1};
    OK(nb_export(&o, NULL, NULL, &r, &err), &err);
    assert_int_equal(r.padded, 1152);
    nb_export_report_free(&r);
    gguf *g = open_gguf(in_folder("pair/pair-F16.gguf"));
    assert_int_equal(u32_of(g, "qwen2vl.feed_forward_length"), 1152);
    const tensor *down = find(g, "blk.0.ffn_down.weight");
    assert_true(down->dims[0] == 1152 && down->dims[1] == 256);
    for (int i = 1024; i < 1152; i++) assert_true(element(g, down, (size_t)(255 * 1152 + i)) == 0);
    close_gguf(g);
    OK(nb_remove_folder(in_folder("pair"), &err), &err);
    nb_export_options plain = {.model_dir = source, .out_dir = in_folder("bare"), .form = NB_EXPORT_F16, .layout = -1,
                               .shard_size = 1000000000};
    OK(nb_export(&plain, NULL, NULL, &r, &err), &err);
    nb_export_report_free(&r);
    assert_int_equal(unlink(in_folder("bare/tokenizer.json")), 0);
    o.model_dir = in_folder("bare");
    FAILS(nb_export(&o, NULL, NULL, &r, &err), NB_ERR_UNSUPPORTED, "no tokenizer.json", &err);
    assert_false(nb_file_exists(in_folder("pair")) || nb_file_exists(in_folder("pair.partial")));
    OK(nb_remove_folder(in_folder("bare"), &err), &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pairs), cmocka_unit_test(floats)};
    return cmocka_run_group_tests(tests, open_all, close_all);
}
