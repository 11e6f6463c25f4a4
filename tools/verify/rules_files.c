/* rules_files.c - what every loader needs: the tensors of a Qwen2-VL and no others, the files beside the weights. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/file.h"
#include "runtime/text/tokenizer.h"
#include "tools/verify/verify.h"

static const char AGAIN[] = "write or download the checkpoint again; a tensor cannot be made up";

/* ---- tensors that must be there ---------------------------------------------------------------------------------------- */

typedef struct {
    const nb_rules *r;
    bool           *used; /* [tensors of the checkpoint], in their order */
} names;

static void use(names *s, const nb_entry *e)
{
    if (e) s->used[e - nb_checkpoint_at(s->r->d->checkpoint, 0)] = true;
}

static void need(names *s, const char *name, int rank, const uint64_t *shape)
{
    const nb_entry *e = nb_checkpoint_find(s->r->d->checkpoint, name);
    if (!e) {
        nb_found(s->r->out, NB_ERROR, NB_FOR_ALL, 0, "missing", name, AGAIN, "is not in the checkpoint");
        return;
    }
    use(s, e);
    bool same = e->tensor->rank == rank;
    for (int i = 0; i < rank && same; i++) same = e->tensor->shape[i] == shape[i];
    if (!same)
        nb_found(s->r->out, NB_ERROR, NB_FOR_ALL, 0, "shape", e->tensor->name,
                 "config.json and the weights are of different models: bring them together",
                 "has another shape than config.json says (%llu in the first of its %d dimensions, expected %llu of %d)",
                 (unsigned long long)(e->tensor->rank ? e->tensor->shape[0] : 0), e->tensor->rank, (unsigned long long)shape[0],
                 rank);
    else if (e->tensor->dtype != NB_F32 && e->tensor->dtype != NB_BF16 && e->tensor->dtype != NB_F16)
        nb_found(s->r->out, NB_ERROR, NB_FOR_ALL, 0, "dtype", e->tensor->name, AGAIN, "is %s, expected F16, BF16 or F32",
                 e->tensor->dtype_name);
}

static void need_vector(names *s, const char *name, int64_t n)
{
    need(s, name, 1, (uint64_t[]){(uint64_t)n});
}

static void need_all(names *s)
{
    static const char *const norms[] = {"norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"};
    const nb_description    *d = s->r->d;
    char                     name[NB_MODULE];
    need_vector(s, "model.norm.weight", d->hidden);
    for (int i = 0; i < d->layers; i++) {
        snprintf(name, sizeof name, "model.layers.%d.input_layernorm.weight", i);
        need_vector(s, name, d->hidden);
        snprintf(name, sizeof name, "model.layers.%d.post_attention_layernorm.weight", i);
        need_vector(s, name, d->hidden);
    }
    need(s, "visual.patch_embed.proj.weight", 5,
         (uint64_t[]){(uint64_t)d->v_dim, (uint64_t)d->v_channels, (uint64_t)d->v_temporal, (uint64_t)d->v_patch,
                      (uint64_t)d->v_patch});
    need_vector(s, "visual.merger.ln_q.weight", d->v_dim);
    need_vector(s, "visual.merger.ln_q.bias", d->v_dim);
    for (int i = 0; i < d->v_depth; i++)
        for (size_t j = 0; j < NB_COUNT(norms); j++) {
            snprintf(name, sizeof name, "visual.blocks.%d.%s", i, norms[j]);
            need_vector(s, name, d->v_dim);
        }
}

/* Which tensors a module of this form consists of. */
static bool belongs(const nb_description *d, const nb_module *m, nb_tensor_role role)
{
    switch (m->stored) {
    case NB_STORED_FLOAT: return role == NB_T_WEIGHT || (role == NB_T_BIAS && m->bias);
    case NB_STORED_WORDS:
        return role == NB_T_QWEIGHT || role == NB_T_QZEROS || role == NB_T_SCALES || (role == NB_T_BIAS && m->bias) ||
               (role == NB_T_G_IDX && d->block.kind != NB_BLOCK_AWQ);
    case NB_STORED_PACKED:
        return role == NB_T_PACKED || role == NB_T_SCALE || role == NB_T_SHAPE || role == NB_T_CT_G_IDX ||
               (role == NB_T_BIAS && m->bias) || (role == NB_T_ZERO_POINT && !m->scheme.sym);
    default: return false;
    }
}

/* A bias that the architecture does not have, and tensors of another form beside a module's own. */
static void extra_of_module(names *s, const nb_module *m, nb_tensor_role role)
{
    const nb_entry   *e = m->tensor[role];
    static const char REMOVE[] = "remove it from the file";
    use(s, e);
    if (role == NB_T_BIAS) {
        for (int t = NB_FOR_VLLM; t <= NB_FOR_TRANSFORMERS; t++)
            nb_found(s->r->out, NB_WARNING, (nb_target)t, 0, "extra-bias", e->tensor->name, REMOVE,
                     "this layer has no bias: it is left out");
        nb_found(s->r->out, NB_ERROR, NB_FOR_NIBBLE, 0, "extra-bias", e->tensor->name, REMOVE,
                 "this layer of a Qwen2-VL has no bias");
        return;
    }
    for (int t = NB_FOR_VLLM; t <= NB_FOR_SGLANG; t++)
        nb_found(s->r->out, NB_ERROR, (nb_target)t, 0, "extra-tensor", e->tensor->name, REMOVE,
                 "stands beside the tensors of another form: the loader has no parameter of this name (KeyError)");
    nb_found(s->r->out, NB_WARNING, NB_FOR_TRANSFORMERS, 0, "extra-tensor", e->tensor->name, REMOVE,
             "is reported as unexpected and left out");
}

static void check_module(names *s, const nb_module *m)
{
    const nb_description *d = s->r->d;
    nb_findings          *out = s->r->out;
    bool                  head = m->part == NB_PART_HEAD;
    if (m->stored == NB_STORED_NOT) {
        if (!head || !d->tied)
            nb_found(out, NB_ERROR, NB_FOR_ALL, 0, "missing", m->name, AGAIN,
                     head ? "has no weight, and config.json does not tie it to the embedding"
                          : "has no weight, qweight or weight_packed");
    } else {
        static const nb_tensor_role words[] = {NB_T_QZEROS, NB_T_SCALES}, packed[] = {NB_T_SCALE};
        const nb_tensor_role       *needed = m->stored == NB_STORED_WORDS ? words : packed;
        size_t                      count = m->stored == NB_STORED_WORDS ? 2 : m->stored == NB_STORED_PACKED ? 1 : 0;
        for (size_t i = 0; i < count; i++)
            if (!m->tensor[needed[i]])
                nb_found(out, NB_ERROR, NB_FOR_ALL, 0, "missing", m->name, AGAIN, "has no %s", nb_tensor_roles[needed[i]]);
        if (m->stored == NB_STORED_PACKED && m->scheme.quantized && !m->scheme.sym && !m->tensor[NB_T_ZERO_POINT])
            nb_found(out, NB_ERROR, NB_FOR_ALL, 0, "missing", m->name, AGAIN,
                     "is asymmetric in config.json, but has no weight_zero_point");
    }
    if (m->bias && m->stored != NB_STORED_NOT && !m->tensor[NB_T_BIAS])
        nb_found(out, NB_ERROR, NB_FOR_ALL, 0, "missing", m->name, AGAIN, "has no bias");
    for (int role = 0; role < NB_T_COUNT; role++) {
        if (!m->tensor[role]) continue;
        if (belongs(d, m, (nb_tensor_role)role)) use(s, m->tensor[role]);
        else extra_of_module(s, m, (nb_tensor_role)role);
    }
}

static void check_unknown(const names *s)
{
    const nb_checkpoint *c = s->r->d->checkpoint;
    for (size_t i = 0; i < nb_checkpoint_count(c); i++) {
        const char *name = nb_checkpoint_at(c, i)->tensor->name;
        if (s->used[i] || strstr(name, "rotary_emb.inv_freq") || strstr(name, "rotary_pos_emb.inv_freq")) continue;
        static const char REMOVE[] = "remove it, or correct num_hidden_layers or depth in config.json";
        for (int t = NB_FOR_VLLM; t <= NB_FOR_TRANSFORMERS; t++)
            nb_found(s->r->out, t == NB_FOR_TRANSFORMERS ? NB_WARNING : NB_ERROR, (nb_target)t, 0, "unknown", name, REMOVE,
                     t == NB_FOR_TRANSFORMERS ? "is no tensor of this model: reported as unexpected and left out"
                                              : "is no tensor of this model: the loader stops at it");
    }
}

static nb_status check_names(const nb_rules *r, nb_error *err)
{
    names s = {.r = r};
    NB_TRY(nb_alloc(&s.used, nb_checkpoint_count(r->d->checkpoint), sizeof *s.used, "the tensors of a checkpoint", err));
    need_all(&s);
    for (size_t i = 0; i < r->d->module_count; i++) check_module(&s, &r->d->modules[i]);
    check_unknown(&s);
    free(s.used);
    return NB_OK;
}

/* ---- the head, and block against weights ------------------------------------------------------------------------------- */

static void check_head(const nb_rules *r)
{
    const nb_description *d = r->d;
    const nb_module      *head = &d->modules[d->module_count - 1];
    if (d->tied && head->stored != NB_STORED_NOT)
        nb_found(r->out, NB_NOTE, NB_FOR_ALL, 0, "tied-head", "lm_head.weight",
                 "leave it out: every loader uses the embedding (--deep compares the two)",
                 "is stored although config.json ties it to the embedding");
    if (head->stored == NB_STORED_WORDS && !d->block.lm_head)
        nb_found(r->out, NB_ERROR, NB_FOR_ALL, 0, "head-quantized", head->name,
                 "set lm_head: true in the quantization config, or keep the head in float",
                 "is quantized, but %s does not say lm_head", d->block.where);
}

static void check_block(const nb_rules *r)
{
    const nb_description *d = r->d;
    const nb_block       *b = &d->block;
    if (b->kind != NB_BLOCK_NONE && !d->any_quantized)
        nb_found(r->out, NB_ERROR, NB_FOR_ALL, 0, "block", b->where, "take config.json and weights of the same checkpoint",
                 "announces %s, but no matrix is quantized", b->method);
    if (b->kind == NB_BLOCK_NONE && d->any_quantized)
        nb_found(r->out, NB_ERROR, NB_FOR_ALL, 0, "block", "config.json: quantization_config",
                 "restore it from the writer of the checkpoint", "is missing, but matrices are quantized");
    for (size_t i = 0; i < d->module_count; i++) {
        const nb_module *m = &d->modules[i];
        bool             words = m->stored == NB_STORED_WORDS, packed = m->stored == NB_STORED_PACKED;
        if ((words && b->kind == NB_BLOCK_CT) || (packed && (b->kind == NB_BLOCK_AWQ || b->kind == NB_BLOCK_GPTQ)))
            nb_found(r->out, NB_ERROR, NB_FOR_ALL, 0, "block", m->name, "take config.json and weights of the same checkpoint",
                     "is stored as %s, which is not what %s means", words ? "qweight" : "weight_packed", b->method);
        else if ((words || packed) && b->kind != NB_BLOCK_NONE && m->part == NB_PART_DECODER && !m->scheme.quantized)
            nb_found(r->out, NB_ERROR, NB_FOR_ALL, 0, "block", m->name, "let the config's targets or patterns cover it",
                     "is quantized, but nothing in %s covers it", b->where);
    }
    if (b->in_text)
        for (int t = NB_FOR_TRANSFORMERS; t <= NB_FOR_NIBBLE; t += NB_FOR_NIBBLE - NB_FOR_TRANSFORMERS)
            nb_found(r->out, NB_ERROR, (nb_target)t, 0, "block-place", b->where, "move it to the top level of config.json",
                     "is looked for at the top level only");
    if (b->json && d->beside && b->json != d->beside && b->kind != NB_BLOCK_CT) {
        static const char *const keys[] = {"bits", "group_size", "sym", "desc_act", "checkpoint_format", "zero_point"};
        for (size_t i = 0; i < NB_COUNT(keys); i++) {
            const cJSON *one = nb_json_find(b->json, keys[i]), *two = nb_json_find(d->beside, keys[i]);
            if (one && two && !cJSON_Compare(one, two, true))
                nb_found(r->out, NB_ERROR, NB_FOR_TRANSFORMERS, 0, "two-blocks", d->beside_name,
                         "make the two equal, or remove this file",
                         "%s differs from config.json's, and GPTQModel reads this file first", keys[i]);
        }
    }
}

/* ---- files ------------------------------------------------------------------------------------------------------------- */

static bool has(const nb_description *d, const char *name)
{
    char *path = nb_path_join(d->path, name);
    bool  there = path && nb_file_exists(path);
    free(path);
    return there;
}

/* *.safetensors that are no shard of this checkpoint. */
static nb_status check_strays(const nb_rules *r, nb_error *err)
{
    const nb_checkpoint *c = r->d->checkpoint;
    bool                 index = has(r->d, "model.safetensors.index.json");
    DIR                 *dir = opendir(r->d->path);
    if (!dir) return nb_fail(err, NB_ERR_IO, "%s: cannot list it: %s", r->d->path, strerror(errno));
    for (const struct dirent *e; (e = readdir(dir));) {
        size_t n = strlen(e->d_name);
        bool   shard = false;
        if (n < 12 || strcmp(e->d_name + n - 12, ".safetensors") || e->d_name[0] == '.') continue;
        for (size_t i = 0; i < nb_checkpoint_shards(c) && !shard; i++) {
            const char *path = nb_safetensors_path(nb_checkpoint_shard(c, i)), *slash = strrchr(path, '/');
            shard = !strcmp(slash ? slash + 1 : path, e->d_name);
        }
        if (shard) continue;
        bool model = !strcmp(e->d_name, "model.safetensors") || !strncmp(e->d_name, "model-", 6);
        for (int t = NB_FOR_VLLM; t <= NB_FOR_SGLANG; t++)
            nb_found(r->out, index || !model ? NB_WARNING : NB_ERROR, (nb_target)t, 0, "stray-file", e->d_name,
                     "remove the file", "is no part of this checkpoint, but the loader reads every *.safetensors %s",
                     index ? "that the index does not exclude" : "of a directory without an index");
    }
    closedir(dir);
    if (index && has(r->d, "model.safetensors"))
        nb_found(r->out, NB_WARNING, NB_FOR_ALL, 0, "stray-file", "model.safetensors.index.json",
                 "keep model.safetensors or the shards, not both",
                 "stands beside model.safetensors: loaders differ in which they read");
    return NB_OK;
}

static void check_side_files(const nb_rules *r)
{
    const nb_description *d = r->d;
    bool                  slow = has(d, "vocab.json") && has(d, "merges.txt");
    static const char     COPY[] = "copy it from the original model";
    if (!has(d, "tokenizer.json") && !slow)
        nb_found(r->out, NB_ERROR, NB_FOR_ALL, 0, "side-file", "tokenizer.json", COPY,
                 "is missing, and vocab.json and merges.txt do not replace it");
    if (!has(d, "tokenizer_config.json"))
        nb_found(r->out, NB_WARNING, NB_FOR_ALL, 0, "side-file", "tokenizer_config.json", COPY,
                 "is missing: special tokens and the chat template may be lost");
    if (!has(d, "preprocessor_config.json"))
        for (int t = NB_FOR_VLLM; t <= NB_FOR_TRANSFORMERS; t++)
            nb_found(r->out, has(d, "processor_config.json") ? NB_WARNING : NB_ERROR, (nb_target)t, 0, "side-file",
                     "preprocessor_config.json", COPY,
                     has(d, "processor_config.json")
                         ? "is missing: transformers before 5 does not find it in processor_config.json"
                         : "is missing: the picture processor cannot be made");
    bool template = has(d, "chat_template.json") || has(d, "chat_template.jinja");
    cJSON *tokenizer = NULL;
    char  *path = nb_path_join(d->path, "tokenizer_config.json");
    if (path && has(d, "tokenizer_config.json")) {
        nb_error why = {0};
        if (nb_json_file(&tokenizer, path, 64 << 20, &why) != NB_OK)
            nb_found(r->out, NB_ERROR, NB_FOR_ALL, 0, "side-file", "tokenizer_config.json", COPY, "%s", why.text);
        template = template || (tokenizer && nb_json_find(tokenizer, "chat_template"));
    }
    cJSON_Delete(tokenizer);
    free(path);
    if (!template)
        for (int t = NB_FOR_VLLM; t <= NB_FOR_TRANSFORMERS; t++)
            nb_found(r->out, NB_ERROR, (nb_target)t, 0, "chat-template", "chat_template.json", COPY,
                     "is missing, and so is tokenizer_config.json: chat_template: chats are refused");
    if (!has(d, "generation_config.json"))
        nb_found(r->out, NB_WARNING, NB_FOR_ALL, 0, "side-file", "generation_config.json", COPY,
                 "is missing: sampling then follows each loader's own defaults");
}

/* The tokenizer must give the placeholders the ids that config.json names. */
static void check_special_ids(const nb_rules *r)
{
    static const struct {
        const char *text, *key;
    } tokens[] = {{"<|vision_start|>", "vision_start_token_id"},
                  {"<|vision_end|>", "vision_end_token_id"},
                  {"<|image_pad|>", "image_token_id"},
                  {"<|video_pad|>", "video_token_id"}};
    nb_error      why = {0};
    nb_tokenizer *t;
    if (!has(r->d, "tokenizer.json") && !has(r->d, "vocab.json")) return;
    if (nb_tokenizer_open(&t, r->d->path, &why) != NB_OK) {
        nb_found(r->out, NB_ERROR, NB_FOR_ALL, 0, "tokenizer", "tokenizer.json",
                 "copy the tokenizer's files from the original model", "%s", why.text);
        return;
    }
    if (nb_tokenizer_size(t) > r->d->vocab)
        nb_found(r->out, NB_ERROR, NB_FOR_ALL, 0, "tokenizer", "config.json: vocab_size",
                 "take config.json and tokenizer of the same model", "is %lld, but the tokenizer has ids up to %d",
                 (long long)r->d->vocab, nb_tokenizer_size(t) - 1);
    for (size_t i = 0; i < NB_COUNT(tokens); i++) {
        char         where[64];
        const cJSON *v = nb_json_find(r->d->config, tokens[i].key);
        int32_t      id = nb_tokenizer_special(t, tokens[i].text);
        snprintf(where, sizeof where, "config.json: %s", tokens[i].key);
        if (!cJSON_IsNumber(v) || v->valuedouble != id)
            nb_found(r->out, NB_ERROR, NB_FOR_ALL, 0, "special-ids", where, "take config.json and tokenizer of the same model",
                     "is not the id %d that the tokenizer gives '%s'", id, tokens[i].text);
    }
    nb_tokenizer_close(t);
}

nb_status nb_rules_files(const nb_rules *r, nb_error *err)
{
    NB_TRY(check_names(r, err));
    check_head(r);
    check_block(r);
    NB_TRY(check_strays(r, err));
    check_side_files(r);
    check_special_ids(r);
    return NB_OK;
}
