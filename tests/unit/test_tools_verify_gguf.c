/* test_tools_verify_gguf.c - a GGUF pair made here byte by byte passes verify for llama.cpp; broken ones do not. */
#include "unit.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "program.h"
#include "runtime/io/buf.h"
#include "temp_files.h"

enum { HIDDEN = 64, INNER = 96, VOCAB = 8, DIM = 32 };

typedef struct {
    nb_buf   pairs, infos;
    uint64_t pair_count, tensor_count, at;
    const char *leave_out; /* a key or tensor that is not written */
    const char *nan;       /* a tensor whose data are NaN */
    const char *wide;      /* a tensor that gets one element more */
    nb_buf   data;
} gguf;

static void put(nb_buf *b, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++) nb_buf_char(b, (char)(v >> 8 * i));
}

static bool key(gguf *g, const char *name, uint32_t type)
{
    if (g->leave_out && !strcmp(g->leave_out, name)) return false;
    put(&g->pairs, strlen(name), 8);
    nb_buf_str(&g->pairs, name);
    put(&g->pairs, type, 4);
    g->pair_count++;
    return true;
}

static void number(gguf *g, const char *name, uint32_t v)
{
    if (key(g, name, 4)) put(&g->pairs, v, 4);
}

static void real(gguf *g, const char *name, float v)
{
    if (key(g, name, 6)) nb_buf_add(&g->pairs, &v, 4);
}

static void string(gguf *g, const char *name, const char *v)
{
    if (!key(g, name, 8)) return;
    put(&g->pairs, strlen(v), 8);
    nb_buf_str(&g->pairs, v);
}

static void array(gguf *g, const char *name, uint32_t type, const uint32_t *items, uint64_t n) /* items NULL: n strings "t" */
{
    if (!key(g, name, 9)) return;
    put(&g->pairs, type, 4);
    put(&g->pairs, n, 8);
    for (uint64_t i = 0; i < n; i++) {
        if (items) put(&g->pairs, items[i], 4);
        else put(&g->pairs, 1, 8), nb_buf_char(&g->pairs, 't');
    }
}

/* Type 0 (F32), 1 (F16) or 2 (Q4_0), innermost first; d1 0: a vector. */
static void tensor(gguf *g, const char *name, uint64_t d0, uint64_t d1, uint32_t type)
{
    if (g->leave_out && !strcmp(g->leave_out, name)) return;
    bool   wide = g->wide && !strcmp(g->wide, name);
    size_t rank = d1 ? 2 : 1;
    if (wide) d0 += type == 2 ? 32 : 1;
    uint64_t count = d0 * (d1 ? d1 : 1), bytes = type == 0 ? 4 * count : type == 1 ? 2 * count : count / 32 * 18;
    put(&g->infos, strlen(name), 8);
    nb_buf_str(&g->infos, name);
    put(&g->infos, rank, 4);
    put(&g->infos, d0, 8);
    if (d1) put(&g->infos, d1, 8);
    put(&g->infos, type, 4);
    put(&g->infos, g->at, 8);
    g->tensor_count++;
    for (uint64_t i = 0; i < bytes; i++) nb_buf_char(&g->data, g->nan && !strcmp(g->nan, name) ? (char)0xff : 0);
    for (g->at += bytes; g->at % 32; g->at++) nb_buf_char(&g->data, 0);
}

static void finish(gguf *g, const char *file)
{
    nb_buf b = {0};
    char   path[200];
    nb_buf_str(&b, "GGUF");
    put(&b, 3, 4);
    put(&b, g->tensor_count, 8);
    put(&b, g->pair_count, 8);
    nb_buf_add(&b, g->pairs.data, g->pairs.size);
    nb_buf_add(&b, g->infos.data, g->infos.size);
    while (b.size % 32) nb_buf_char(&b, 0);
    nb_buf_add(&b, g->data.data, g->data.size);
    write_file("x", "");
    snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(b.data, 1, b.size, f), b.size);
    fclose(f);
    nb_buf_free(&b);
    nb_buf_free(&g->pairs);
    nb_buf_free(&g->infos);
    nb_buf_free(&g->data);
}

static void model(const char *leave_out, const char *nan, const char *wide)
{
    gguf g = {.leave_out = leave_out, .nan = nan, .wide = wide};
    string(&g, "general.architecture", "qwen2vl");
    number(&g, "qwen2vl.block_count", 1);
    number(&g, "qwen2vl.context_length", 128);
    number(&g, "qwen2vl.embedding_length", HIDDEN);
    number(&g, "qwen2vl.feed_forward_length", INNER);
    number(&g, "qwen2vl.attention.head_count", 2);
    number(&g, "qwen2vl.attention.head_count_kv", 1);
    real(&g, "qwen2vl.attention.layer_norm_rms_epsilon", 1e-6f);
    real(&g, "qwen2vl.rope.freq_base", 1e6f);
    array(&g, "qwen2vl.rope.dimension_sections", 5, (uint32_t[]){4, 6, 6, 0}, 4);
    string(&g, "tokenizer.ggml.model", "gpt2");
    string(&g, "tokenizer.ggml.pre", "qwen2");
    array(&g, "tokenizer.ggml.tokens", 8, NULL, VOCAB);
    array(&g, "tokenizer.ggml.merges", 8, NULL, 2);
    array(&g, "tokenizer.ggml.token_type", 5, (uint32_t[VOCAB]){0}, VOCAB);
    tensor(&g, "token_embd.weight", HIDDEN, VOCAB, 1);
    tensor(&g, "output_norm.weight", HIDDEN, 0, 0);
    tensor(&g, "blk.0.attn_norm.weight", HIDDEN, 0, 0);
    tensor(&g, "blk.0.ffn_norm.weight", HIDDEN, 0, 0);
    tensor(&g, "blk.0.attn_q.weight", HIDDEN, HIDDEN, 2);
    tensor(&g, "blk.0.attn_q.bias", HIDDEN, 0, 0);
    tensor(&g, "blk.0.attn_k.weight", HIDDEN, 32, 2);
    tensor(&g, "blk.0.attn_k.bias", 32, 0, 0);
    tensor(&g, "blk.0.attn_v.weight", HIDDEN, 32, 2);
    tensor(&g, "blk.0.attn_v.bias", 32, 0, 0);
    tensor(&g, "blk.0.attn_output.weight", HIDDEN, HIDDEN, 2);
    tensor(&g, "blk.0.ffn_gate.weight", HIDDEN, INNER, 2);
    tensor(&g, "blk.0.ffn_up.weight", HIDDEN, INNER, 2);
    tensor(&g, "blk.0.ffn_down.weight", INNER, HIDDEN, 2);
    finish(&g, "m.gguf");
}

static void mmproj(const char *leave_out, const char *nan, const char *wide)
{
    gguf g = {.leave_out = leave_out, .nan = nan, .wide = wide};
    string(&g, "general.architecture", "clip");
    string(&g, "clip.projector_type", "qwen2vl_merger");
    number(&g, "clip.vision.block_count", 1);
    number(&g, "clip.vision.embedding_length", DIM);
    number(&g, "clip.vision.attention.head_count", 2);
    number(&g, "clip.vision.patch_size", 14);
    array(&g, "clip.vision.image_mean", 5, (uint32_t[]){0, 0, 0}, 3);
    array(&g, "clip.vision.image_std", 5, (uint32_t[]){1, 1, 1}, 3);
    tensor(&g, "v.patch_embd.weight", 14, 14 * 3 * DIM, 0);
    tensor(&g, "v.patch_embd.weight.1", 14, 14 * 3 * DIM, 0);
    tensor(&g, "v.post_ln.weight", DIM, 0, 0);
    tensor(&g, "v.post_ln.bias", DIM, 0, 0);
    tensor(&g, "mm.0.weight", 4 * DIM, 4 * DIM, 1);
    tensor(&g, "mm.0.bias", 4 * DIM, 0, 0);
    tensor(&g, "mm.2.weight", 4 * DIM, HIDDEN, 1);
    tensor(&g, "mm.2.bias", HIDDEN, 0, 0);
    static const char *const parts[] = {"attn_q", "attn_k", "attn_v", "attn_out"};
    for (int i = 0; i < 4; i++) {
        char name[64];
        snprintf(name, sizeof name, "v.blk.0.%s.weight", parts[i]);
        tensor(&g, name, DIM, DIM, 1);
        snprintf(name, sizeof name, "v.blk.0.%s.bias", parts[i]);
        tensor(&g, name, DIM, 0, 0);
    }
    finish(&g, "mmproj.gguf");
}

static int verify(bool deep)
{
    return RUN("verify", folder, deep ? "--deep" : "--no-deep", "--target", "llama.cpp");
}

static void test_pair(void **state)
{
    (void)state;
    model(NULL, NULL, NULL);
    mmproj(NULL, NULL, NULL);
    if (verify(true) != 0) fail_msg("%s", printed[0]);
}

static void test_broken_pairs(void **state)
{
    (void)state;
    static const struct {
        bool        tower;
        const char *leave_out, *nan, *wide, *part;
    } cases[] = {
        {false, "general.architecture", 0, 0, "general.architecture"}, {false, "qwen2vl.block_count", 0, 0, "block_count"},
        {false, "qwen2vl.rope.dimension_sections", 0, 0, "dimension_sections"}, {false, "qwen2vl.rope.freq_base", 0, 0, "freq_base"},
        {false, "tokenizer.ggml.tokens", 0, 0, "ggml.tokens"}, {false, "tokenizer.ggml.merges", 0, 0, "ggml.merges"},
        {false, "blk.0.attn_k.bias", 0, 0, "attn_k.bias"}, {false, "output_norm.weight", 0, 0, "output_norm"},
        {false, 0, 0, "blk.0.ffn_down.weight", "ffn_down"}, {false, 0, 0, "token_embd.weight", "token_embd"},
        {false, 0, "blk.0.attn_norm.weight", 0, "attn_norm"}, {false, 0, "blk.0.attn_q.weight", 0, "attn_q.weight"},
        {true, "clip.projector_type", 0, 0, "projector_type"}, {true, "v.patch_embd.weight.1", 0, 0, "patch_embd.weight.1"},
        {true, "clip.vision.image_mean", 0, 0, "image_mean"}, {true, 0, 0, "mm.2.weight", "mm.2.weight"},
        {true, "v.blk.0.attn_out.weight", 0, 0, "attn_out.weight"}, {true, 0, "mm.0.weight", 0, "mm.0.weight"},
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        bool t = cases[i].tower;
        model(t ? NULL : cases[i].leave_out, t ? NULL : cases[i].nan, t ? NULL : cases[i].wide);
        mmproj(t ? cases[i].leave_out : NULL, t ? cases[i].nan : NULL, t ? cases[i].wide : NULL);
        int code = verify(true);
        if (code != 3 || !strstr(printed[0], cases[i].part)) fail_msg("case %zu (%s): code %d\n%s", i, cases[i].part, code, printed[0]);
        if (cases[i].nan) assert_int_equal(verify(false), 0); /* values are read by --deep only */
    }
    char path[200];
    model(NULL, NULL, NULL);
    snprintf(path, sizeof path, "%s/mmproj.gguf", folder);
    unlink(path);
    assert_int_equal(verify(false), 3);
    assert_non_null(strstr(printed[0], "vision tower"));
    mmproj(NULL, NULL, NULL);
    snprintf(path, sizeof path, "%s/m.gguf", folder);
    assert_int_equal(truncate(path, 3000), 0);
    assert_int_equal(verify(false), 3);
    assert_non_null(strstr(printed[0], "cut off"));
}

/* The pair that the program itself writes. */
static void test_written_pair(void **state)
{
    (void)state;
    char source[] = "/tmp/nibble-verify-gptq-XXXXXX", out[64];
    assert_non_null(mkdtemp(source));
    snprintf(out, sizeof out, "%s-gguf", source);
    ENDS(0, "quantize", unit_path("tools/demo/model"), "--method", "rtn", "--sym", "--format", "gptq", "--out", source, "-q", "--force");
    ENDS(0, "export", source, out, "--format", "gguf", "-q");
    char kept[64];
    memcpy(kept, folder, sizeof kept);
    snprintf(folder, sizeof folder, "%s", out);
    int code = verify(true);
    if (code) fail_msg("%s", printed[0]);
    memcpy(folder, kept, sizeof kept);
    assert_int_equal(nb_remove_folder(out, NULL), NB_OK);
    assert_int_equal(nb_remove_folder(source, NULL), NB_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pair), cmocka_unit_test(test_broken_pairs), cmocka_unit_test(test_written_pair)};
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
