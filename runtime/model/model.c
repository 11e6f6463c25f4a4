/* model.c - opening a checkpoint directory as a model: configs, tokenizer, weights packed for the backend. */
#include "runtime/model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/model/pack_cache.h"
#include "runtime/model/parts.h"
#include "runtime/model/rope.h"
#include "runtime/model/visual.h"

/* A head that is not wanted now will be, when the result is judged. */
static nb_status check_head(const nb_model *m, nb_error *err)
{
    const uint64_t  shape[2] = { (uint64_t)m->config.vocab, (uint64_t)m->config.hidden };
    const nb_entry *e;
    return m->config.quant.method == NB_QUANT_NONE ? nb_checkpoint_get(m->checkpoint, "lm_head.weight", 2, shape, &e, err) : NB_OK;
}

/* What is in memory of what an open model holds: tables of the vocabulary, the tower, layers. */
typedef struct {
    bool embed, head, vision, layers;
} wanted;

/* A matrix of the vocabulary: embedding or head, float or codes. */
static nb_load *list_table(nb_load *out, nb_matrix *to, const nb_config *c, const char *name)
{
    nb_load_init(out, to, NULL, c->hidden, name);
    nb_load_part(out, name, c->vocab);
    return out + 1;
}

static nb_status load(nb_model *m, wanted w, nb_error *err)
{
    const nb_config *c = &m->config;
    nb_load         *list, *at;
    for (int i = 0; w.layers && i < c->layers; i++) NB_TRY(nb_layer_vectors(&m->layers[i], m, i, err));
    if (w.vision) NB_TRY(nb_vision_new(&m->vision, m, err));
    NB_TRY(nb_alloc(&list, 2 + nb_vision_loads(c) + (size_t)c->layers * NB_LAYER_LOADS, sizeof *list, "what to load", err));
    at = list;
    if (w.embed) at = list_table(at, &m->embed, c, "model.embed_tokens");
    if (w.head) at = list_table(at, &m->head, c, "lm_head");
    if (w.vision) {
        nb_vision_list(m->vision, c, at);
        at += nb_vision_loads(c);
    }
    for (int i = 0; w.layers && i < c->layers; i++, at += NB_LAYER_LOADS) nb_layer_list(&m->layers[i], c, i, at);
    nb_status status = nb_load_all(m, list, (size_t)(at - list), &m->weight_bytes, err);
    if (status == NB_OK && m->packs) nb_pack_cache_save(m->packs, &m->notes); /* names are those of the list */
    free(list);
    return status;
}

/* A tokenizer of another model would put pictures where this model sees words, and nothing would fail. */
static nb_status check_special_tokens(const nb_model *m, const char *directory, nb_error *err)
{
    const nb_config *c = &m->config;
    const struct {
        const char *text, *key;
        int32_t     id;
    } tokens[] = { { "<|vision_start|>", "vision_start_token_id", c->vision_start }, { "<|vision_end|>", "vision_end_token_id", c->vision_end },
                   { "<|image_pad|>", "image_token_id", c->image_pad },              { "<|video_pad|>", "video_token_id", c->video_pad } };
    for (size_t i = 0; i < NB_COUNT(tokens); i++) {
        int32_t id = nb_tokenizer_special(m->tokenizer, tokens[i].text);
        if (id < 0) return nb_fail(err, NB_ERR_INPUT, "%s: the tokenizer has no token '%s'", directory, tokens[i].text);
        if (id != tokens[i].id)
            return nb_fail(err, NB_ERR_INPUT, "%s: the tokenizer gives '%s' the id %d, config.json's %s is %d", directory, tokens[i].text, id,
                           tokens[i].key, tokens[i].id);
    }
    return NB_OK;
}

static nb_status open_model(nb_model *m, unsigned flags, const char *pack_cache, nb_error *err)
{
    nb_config  *c = &m->config;
    const char *directory = nb_checkpoint_path(m->checkpoint);
    NB_TRY(nb_config_open(c, directory, &m->notes, err));
    NB_TRY(nb_names_check(m->checkpoint, c, err));
    NB_TRY(nb_generation_config_open(&m->generation, directory, err));
    NB_TRY(nb_processor_open(&m->processor, directory, err));
    if (m->processor.patch != c->v_patch || m->processor.temporal != c->v_temporal || m->processor.merge != c->v_merge)
        return nb_fail(err, NB_ERR_INPUT,
                       "%s: preprocessor_config.json cuts patches of %d, %d frames, merged by %d; config.json says %d, %d, %d", directory,
                       m->processor.patch, m->processor.temporal, m->processor.merge, c->v_patch, c->v_temporal, c->v_merge);
    NB_TRY(nb_tokenizer_open(&m->tokenizer, directory, err));
    if (nb_tokenizer_size(m->tokenizer) > c->vocab)
        return nb_fail(err, NB_ERR_INPUT, "%s: the tokenizer has ids up to %d, the model's vocabulary ends at %d", directory,
                       nb_tokenizer_size(m->tokenizer) - 1, c->vocab);
    NB_TRY(check_special_tokens(m, directory, err));
    NB_TRY(nb_template_check(directory, &m->notes, err));
    NB_TRY(nb_alloc(&m->inv_freq, (size_t)c->head_dim / 2, sizeof *m->inv_freq, "frequencies", err));
    nb_rope_model_frequencies(m->inv_freq, c);
    m->rope_scale = c->yarn ? (float)c->yarn_attention : 1.0f;
    NB_TRY(nb_alloc(&m->layers, (size_t)c->layers, sizeof *m->layers, "layers", err));
    NB_TRY(nb_vector_load(&m->norm, m, "model.norm.weight", c->hidden, err));
    if (!c->tied && flags & NB_OPEN_NO_HEAD) NB_TRY(check_head(m, err));
    wanted w = { .embed = true, .head = !c->tied && !(flags & NB_OPEN_NO_HEAD), .vision = true, .layers = !(flags & NB_OPEN_NO_LAYERS) };
    if (pack_cache) NB_TRY(nb_pack_cache_open(&m->packs, pack_cache, m->checkpoint, &m->ops, &m->notes, err));
    return load(m, w, err);
}

static nb_status open_checkpoint(nb_model **out, nb_checkpoint *checkpoint, const nb_ops *ops, unsigned flags, const char *pack_cache,
                                 nb_error *err)
{
    nb_status status = nb_alloc(out, 1, sizeof **out, "model", err);
    if (status != NB_OK) {
        nb_checkpoint_close(checkpoint);
        return status;
    }
    (*out)->ops = *ops;
    (*out)->checkpoint = checkpoint;
    status = open_model(*out, flags, pack_cache, err);
    if (status != NB_OK) {
        nb_model_close(*out);
        *out = NULL;
    }
    return status;
}

nb_status nb_model_open_checkpoint(nb_model **out, nb_checkpoint *checkpoint, const nb_ops *ops, unsigned flags, nb_error *err)
{
    return open_checkpoint(out, checkpoint, ops, flags, NULL, err);
}

nb_status nb_model_open_packed(nb_model **out, const char *directory, const nb_ops *ops, const char *pack_cache, nb_error *err)
{
    nb_checkpoint *checkpoint;
    *out = NULL;
    NB_TRY(nb_checkpoint_open(&checkpoint, directory, err));
    return open_checkpoint(out, checkpoint, ops, 0, pack_cache, err);
}

nb_status nb_model_open(nb_model **out, const char *directory, const nb_ops *ops, unsigned flags, nb_error *err)
{
    nb_checkpoint *checkpoint;
    *out = NULL;
    NB_TRY(nb_checkpoint_open(&checkpoint, directory, err)); /* first: it says best that this is no checkpoint directory */
    return nb_model_open_checkpoint(out, checkpoint, ops, flags, err);
}

nb_status nb_model_reload_embedding(nb_model *m, nb_error *err)
{
    size_t    before = m->weight_bytes; /* what is back was counted when it was loaded first */
    wanted    w = { .embed = !m->embed.n, .head = !m->head.n && !m->config.tied, .vision = !m->vision };
    nb_status status = load(m, w, err);
    m->weight_bytes = before;
    if (status != NB_OK) nb_model_drop_embedding(m);
    return status;
}

void nb_model_drop_embedding(nb_model *m)
{
    nb_vision_close(&m->ops, m->vision);
    m->vision = NULL;
    m->ops.release(&m->ops, &m->embed);
    m->ops.release(&m->ops, &m->head);
}

void nb_model_close(nb_model *m)
{
    if (!m) return;
    const nb_ops *ops = &m->ops;
    for (int i = 0; m->layers && i < m->config.layers; i++) nb_layer_release(ops, &m->layers[i]);
    nb_vision_close(ops, m->vision);
    ops->release(ops, &m->embed);
    ops->release(ops, &m->head);
    ops->free(ops, m->norm);
    nb_pack_cache_close(m->packs); /* behind the matrices over its bytes */
    nb_tokenizer_close(m->tokenizer);
    nb_checkpoint_close(m->checkpoint);
    nb_buf_free(&m->notes);
    free(m->layers);
    free(m->inv_freq);
    free(m);
}

nb_prompt_source nb_model_source(const nb_model *m)
{
    return (nb_prompt_source){ .tokenizer = m->tokenizer, .processor = &m->processor, .config = &m->config };
}

/* ---- the prompt as rows ------------------------------------------------------------------------------------------------ */

static nb_status embed_ids(const nb_model *m, const int32_t *ids, size_t count, float *out, nb_error *err)
{
    const nb_ops *ops = &m->ops;
    size_t        hidden = (size_t)m->config.hidden;
    float        *rows = ops->alloc(ops, count * hidden * sizeof(float));
    if (!rows) return nb_fail(err, NB_ERR_MEMORY, "no memory to embed %zu tokens", count);
    ops->embed(ops, rows, ids, count, &m->embed);
    ops->download(ops, out, rows, count * hidden * sizeof(float));
    ops->free(ops, rows);
    return ops->status(ops, err);
}

nb_status nb_prompt_visual(const nb_model *m, const nb_prompt *p, float **out, size_t *rows, nb_error *err)
{
    const nb_ops *ops = &m->ops;
    size_t        hidden = (size_t)m->config.hidden, total = 0, at = 0;
    size_t        four = (size_t)m->config.v_merge * m->config.v_merge;
    *out = NULL;
    *rows = 0;
    for (int i = 0; i < p->media_count; i++) total += (size_t)p->media[i].t * p->media[i].h * p->media[i].w / four;
    if (total == 0) return NB_OK;
    NB_TRY(nb_alloc(out, total * hidden, sizeof **out, "visual rows", err));
    for (int i = 0; i < p->media_count; i++) {
        float    *visual;
        size_t    n;
        nb_status status = nb_vision_forward(m, &p->media[i], &visual, &n, err);
        if (status != NB_OK) {
            free(*out);
            *out = NULL;
            return status;
        }
        ops->download(ops, *out + at * hidden, visual, n * hidden * sizeof(float));
        ops->free(ops, visual);
        at += n;
    }
    *rows = total;
    return NB_OK;
}

nb_status nb_prompt_embed(const nb_model *m, const nb_prompt *p, float **out, nb_error *err)
{
    size_t hidden = (size_t)m->config.hidden, rows, next = 0;
    float *visual;
    *out = NULL;
    NB_TRY(nb_prompt_visual(m, p, &visual, &rows, err));
    nb_status status = nb_alloc(out, p->count * hidden, sizeof **out, "embedded prompt", err);
    if (status == NB_OK) status = embed_ids(m, p->ids, p->count, *out, err);
    for (size_t i = 0; status == NB_OK && i < p->count && next < rows; i++)
        if (p->modality[i] != NB_TOKEN_TEXT) memcpy(*out + i * hidden, visual + next++ * hidden, hidden * sizeof(float));
    free(visual);
    if (status != NB_OK) {
        free(*out);
        *out = NULL;
    }
    return status;
}

nb_status nb_prompt_embed_rows(const nb_model *m, const nb_prompt *p, nb_visual *const *visual, float **out, nb_error *err)
{
    size_t       hidden = (size_t)m->config.hidden, left = 0;
    const float *next = NULL;
    int          media = 0;
    NB_TRY(nb_alloc(out, p->count * hidden, sizeof **out, "embedded prompt", err));
    nb_status status = embed_ids(m, p->ids, p->count, *out, err);
    for (size_t i = 0; status == NB_OK && i < p->count; i++) {
        if (p->modality[i] == NB_TOKEN_TEXT) continue;
        while (!left && media < p->media_count) next = nb_visual_rows(visual[media++], &left);
        if (!left) break;
        memcpy(*out + i * hidden, next, hidden * sizeof(float));
        next += hidden;
        left--;
    }
    if (status != NB_OK) {
        free(*out);
        *out = NULL;
    }
    return status;
}
