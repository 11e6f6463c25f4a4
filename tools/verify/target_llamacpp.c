/* target_llamacpp.c - the GGUF pair as llama.cpp wants it: the language model in one file (general.architecture qwen2vl), the
 * tower and merger in another (clip, projector qwen2vl_merger).  Both are told by what they say of themselves, not by name. */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/file.h"
#include "runtime/io/gguf.h"
#include "tools/verify/verify.h"

static const char AGAIN[] = "convert the checkpoint to GGUF again";

typedef struct {
    const nb_gguf *file;
    const char    *name; /* of the file, without its folder */
    nb_findings   *out;
} pair_rules;

static void wrong(const pair_rules *p, const char *rule, const char *what_of, const char *todo, const char *text)
{
    char where[200];
    snprintf(where, sizeof where, "%.80s: %.100s", p->name, what_of);
    nb_found(p->out, NB_ERROR, NB_FOR_LLAMACPP, 0, rule, where, todo, "%s", text);
}

static int64_t size_of(const pair_rules *p, const char *key)
{
    nb_error why;
    int64_t  v = 0;
    if (nb_gguf_int(p->file, key, 1, 1 << 26, &v, &why) != NB_OK) wrong(p, "gguf-key", key, AGAIN, why.text);
    return v;
}

static void number_of(const pair_rules *p, const char *key)
{
    nb_error why;
    double   v;
    if (nb_gguf_number(p->file, key, &v, &why) != NB_OK) wrong(p, "gguf-key", key, AGAIN, why.text);
    else if (!(v > 0)) wrong(p, "gguf-key", key, AGAIN, "is not above 0");
}

/* A tensor of this shape, innermost first; d1 0: a vector.  plain: F32 wanted (norms and biases). */
static void tensor_of(const pair_rules *p, const char *name, int64_t d0, int64_t d1, bool plain)
{
    const nb_gguf_tensor *t = nb_gguf_tensor_find(p->file, name);
    char                  text[160];
    if (!t) {
        wrong(p, "gguf-tensor", name, AGAIN, "is not in the file");
        return;
    }
    if (d0 && (t->shape[0] != (uint64_t)d0 || (t->count / t->shape[0] != (uint64_t)(d1 ? d1 : 1)))) {
        snprintf(text, sizeof text, "is %llu x %llu, expected %lld x %lld (innermost first)", (unsigned long long)t->shape[0],
                 (unsigned long long)(t->count / t->shape[0]), (long long)d0, (long long)(d1 ? d1 : 1));
        wrong(p, "gguf-shape", name, AGAIN, text);
    }
    if (plain && t->type != NB_GGML_F32) wrong(p, "gguf-type", name, "store norms and biases as F32", "is not F32");
}

static void check_model(const pair_rules *p)
{
    static const struct {
        const char *name;
        bool        bias;
    } linears[] = {{"attn_q", true},    {"attn_k", true},  {"attn_v", true},   {"attn_output", false},
                   {"ffn_gate", false}, {"ffn_up", false}, {"ffn_down", false}};
    int64_t layers = size_of(p, "qwen2vl.block_count"), hidden = size_of(p, "qwen2vl.embedding_length"),
            inner = size_of(p, "qwen2vl.feed_forward_length"), heads = size_of(p, "qwen2vl.attention.head_count"),
            kv = size_of(p, "qwen2vl.attention.head_count_kv"), sections[4];
    nb_error why;
    size_of(p, "qwen2vl.context_length");
    number_of(p, "qwen2vl.attention.layer_norm_rms_epsilon");
    number_of(p, "qwen2vl.rope.freq_base");
    if (nb_gguf_ints(p->file, "qwen2vl.rope.dimension_sections", 4, sections, &why) != NB_OK) {
        wrong(p, "gguf-key", "qwen2vl.rope.dimension_sections", AGAIN, why.text);
    } else if (heads && sections[0] + sections[1] + sections[2] + sections[3] != hidden / heads / 2) {
        wrong(p, "gguf-key", "qwen2vl.rope.dimension_sections", AGAIN, "do not sum to half of a head");
    }
    if (!layers || !hidden || !inner || !heads || !kv) return;
    const nb_gguf_pair *tokens = nb_gguf_find(p->file, "tokenizer.ggml.tokens"),
                       *types = nb_gguf_find(p->file, "tokenizer.ggml.token_type");
    const nb_gguf_pair *merges = nb_gguf_find(p->file, "tokenizer.ggml.merges");
    if (!tokens || !tokens->array || tokens->type != NB_GGUF_STRING)
        wrong(p, "gguf-tokenizer", "tokenizer.ggml.tokens", AGAIN, "is missing or no array of strings");
    else if (types && types->count != tokens->count)
        wrong(p, "gguf-tokenizer", "tokenizer.ggml.token_type", AGAIN, "has not as many items as there are tokens");
    if (!merges || !merges->array || merges->type != NB_GGUF_STRING)
        wrong(p, "gguf-tokenizer", "tokenizer.ggml.merges", AGAIN, "is missing or no array of strings");
    if (!nb_gguf_find(p->file, "tokenizer.ggml.pre"))
        nb_found(p->out, NB_WARNING, NB_FOR_LLAMACPP, 0, "gguf-tokenizer", "tokenizer.ggml.pre", "write qwen2",
                 "is missing: another split of the text is used");
    int64_t vocab = tokens ? (int64_t)tokens->count : 0, head = hidden / heads;
    tensor_of(p, "token_embd.weight", hidden, vocab, false);
    tensor_of(p, "output_norm.weight", hidden, 0, true);
    if (nb_gguf_tensor_find(p->file, "output.weight")) tensor_of(p, "output.weight", hidden, vocab, false);
    if (layers > 1024) return;
    for (int64_t l = 0; l < layers; l++) {
        char          name[64];
        const int64_t k[] = {hidden, hidden, hidden, heads * head, hidden, hidden, inner},
                      n[] = {heads * head, kv * head, kv * head, hidden, inner, inner, hidden};
        snprintf(name, sizeof name, "blk.%lld.attn_norm.weight", (long long)l);
        tensor_of(p, name, hidden, 0, true);
        snprintf(name, sizeof name, "blk.%lld.ffn_norm.weight", (long long)l);
        tensor_of(p, name, hidden, 0, true);
        for (size_t i = 0; i < NB_COUNT(linears); i++) {
            snprintf(name, sizeof name, "blk.%lld.%s.weight", (long long)l, linears[i].name);
            tensor_of(p, name, k[i], n[i], false);
            snprintf(name, sizeof name, "blk.%lld.%s.bias", (long long)l, linears[i].name);
            if (linears[i].bias) tensor_of(p, name, n[i], 0, true);
        }
    }
}

static void check_mmproj(const pair_rules *p, int64_t text_width)
{
    static const char *const linears[] = {"attn_q", "attn_k", "attn_v", "attn_out"};
    nb_buf                   type = {0};
    nb_error                 why;
    int64_t                  layers = size_of(p, "clip.vision.block_count"), dim = size_of(p, "clip.vision.embedding_length");
    const char *key = nb_gguf_find(p->file, "clip.projector_type") ? "clip.projector_type" : "clip.vision.projector_type";
    if (nb_gguf_string(p->file, key, &type, &why) != NB_OK) wrong(p, "gguf-key", "clip.projector_type", AGAIN, why.text);
    else if (strcmp(type.data, "qwen2vl_merger")) wrong(p, "gguf-key", "clip.projector_type", AGAIN, "is not qwen2vl_merger");
    nb_buf_free(&type);
    size_of(p, "clip.vision.attention.head_count");
    size_of(p, "clip.vision.patch_size");
    if (!nb_gguf_find(p->file, "clip.vision.image_mean") || !nb_gguf_find(p->file, "clip.vision.image_std"))
        wrong(p, "gguf-key", "clip.vision.image_mean", AGAIN, "is missing, or image_std is");
    tensor_of(p, "v.patch_embd.weight", 0, 0, false);
    tensor_of(p, "v.patch_embd.weight.1", 0, 0, false);
    tensor_of(p, "v.post_ln.weight", dim, 0, true);
    tensor_of(p, "v.post_ln.bias", dim, 0, true);
    tensor_of(p, "mm.0.weight", 4 * dim, 4 * dim, false);
    tensor_of(p, "mm.0.bias", 4 * dim, 0, true);
    tensor_of(p, "mm.2.weight", text_width ? 4 * dim : 0, text_width, false);
    tensor_of(p, "mm.2.bias", text_width, 0, true);
    for (int64_t l = 0; l < layers && l < 1024 && dim; l++)
        for (size_t i = 0; i < NB_COUNT(linears); i++) {
            char name[64];
            snprintf(name, sizeof name, "v.blk.%lld.%s.weight", (long long)l, linears[i]);
            tensor_of(p, name, dim, dim, false);
            snprintf(name, sizeof name, "v.blk.%lld.%s.bias", (long long)l, linears[i]);
            tensor_of(p, name, dim, 0, true);
        }
}

/* --deep: what is stored as floats is finite.  Scales of blocks are half floats at the head of each. */
static nb_status check_values(const pair_rules *p, nb_error *err)
{
    enum { PIECE = 1 << 16 /* elements */ };
    unsigned char *raw;
    float         *values;
    NB_TRY(nb_alloc(&raw, PIECE, 4, "a piece of a tensor", err));
    nb_status status = nb_alloc(&values, PIECE, sizeof *values, "a piece of a tensor", err);
    for (size_t i = 0; i < nb_gguf_count(p->file) && status == NB_OK; i++) {
        const nb_gguf_tensor *t = nb_gguf_at(p->file, i);
        bool                  block = t->type == NB_GGML_Q4_0 || t->type == NB_GGML_Q4_1 || t->type == NB_GGML_Q8_0;
        nb_dtype              dtype = t->type == NB_GGML_F32 ? NB_F32 : t->type == NB_GGML_BF16 ? NB_BF16 : NB_F16;
        size_t step = block ? (t->type == NB_GGML_Q4_0 ? 18 : t->type == NB_GGML_Q4_1 ? 20 : 34) : nb_dtype_size(dtype);
        size_t scales = t->type == NB_GGML_Q4_1 ? 2 : 1;
        if (!block && t->type != NB_GGML_F32 && t->type != NB_GGML_F16 && t->type != NB_GGML_BF16) continue;
        uint64_t bad = 0;
        size_t   piece = (PIECE * 2 / step) * step; /* whole blocks, and at most PIECE of their scales */
        for (uint64_t at = 0; at < t->bytes && status == NB_OK; at += piece) {
            size_t n = t->bytes - at < piece ? (size_t)(t->bytes - at) : piece, count = n / step;
            status = nb_gguf_read(p->file, t, raw, at, n, err);
            if (status != NB_OK) break;
            if (block)
                for (size_t b = 0; b < count * scales; b++) {
                    uint16_t h;
                    memcpy(&h, raw + b / scales * step + b % scales * 2, sizeof h);
                    values[b] = nb_f16_to_f32(h);
                }
            else nb_to_f32(values, raw, dtype, count);
            for (size_t v = 0; v < (block ? count * scales : count); v++) bad += !isfinite(values[v]);
        }
        if (status == NB_OK && bad) wrong(p, "not-finite", t->name, AGAIN, "holds values that are NaN or infinite");
    }
    free(raw);
    free(values);
    return status;
}

static nb_status check_file(const char *directory, const char *name, bool deep, int found[2], int64_t *width, bool mmproj,
                            nb_findings *out, nb_error *err)
{
    nb_error   why = {0};
    nb_gguf   *f;
    nb_buf     architecture = {0};
    nb_status  status = NB_OK;
    pair_rules p = {.name = name, .out = out};
    char      *path = nb_path_join(directory, name);
    if (!path) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", directory);
    if (nb_gguf_open(&f, path, &why) != NB_OK) {
        if (!mmproj) wrong(&p, "gguf", "header", AGAIN, why.text);
    } else {
        p.file = f;
        if (nb_gguf_string(f, "general.architecture", &architecture, &why) != NB_OK) {
            if (!mmproj) wrong(&p, "gguf-key", "general.architecture", AGAIN, why.text);
        } else if (!strcmp(architecture.data, mmproj ? "clip" : "qwen2vl")) {
            found[mmproj]++;
            if (mmproj) check_mmproj(&p, *width);
            else check_model(&p), nb_gguf_int(f, "qwen2vl.embedding_length", 1, 1 << 26, width, &why);
            if (deep) status = check_values(&p, err);
        } else if (!mmproj && strcmp(architecture.data, "clip")) {
            wrong(&p, "gguf-key", "general.architecture", "convert it as a Qwen2-VL", "is neither qwen2vl nor clip");
        }
        nb_gguf_close(f);
    }
    nb_buf_free(&architecture);
    free(path);
    return status;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_gguf(const struct dirent *e)
{
    size_t n = strlen(e->d_name);
    return n > 5 && e->d_name[0] != '.' && !strcmp(e->d_name + n - 5, ".gguf");
}

nb_status nb_rules_llamacpp(const char *directory, bool deep, nb_findings *out, nb_error *err)
{
    struct dirent **names;
    int             count = scandir(directory, &names, is_gguf, by_name), found[2] = {0, 0};
    int64_t         width = 0;
    nb_status       status = NB_OK;
    if (count < 0) return nb_fail(err, NB_ERR_IO, "%s: cannot list it: %s", directory, strerror(errno));
    for (int mmproj = 0; mmproj < 2; mmproj++) /* the model first: the merger must give rows of its width */
        for (int i = 0; i < count && status == NB_OK; i++)
            status = check_file(directory, names[i]->d_name, deep, found, &width, mmproj, out, err);
    for (int i = 0; i < count; i++) free(names[i]);
    free(names);
    if (status != NB_OK) return status;
    static const char *const what[2] = {"language model (architecture qwen2vl)",
                                        "vision tower (architecture clip, the mmproj file)"};
    for (int i = 0; i < 2; i++) {
        if (found[i] == 0)
            nb_found(out, NB_ERROR, NB_FOR_LLAMACPP, 0, "gguf-pair", "*.gguf", "convert the checkpoint to a GGUF pair",
                     "there is no GGUF file of the %s", what[i]);
        if (found[i] > 1)
            nb_found(out, NB_WARNING, NB_FOR_LLAMACPP, 0, "gguf-pair", "*.gguf", "keep one pair in a directory",
                     "%d GGUF files are a %s", found[i], what[i]);
    }
    return NB_OK;
}
