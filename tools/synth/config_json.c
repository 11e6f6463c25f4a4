/* config_json.c - config.json as published, but for the special ids, which are the embedded tokenizer's own. */
#include "tools/synth/config_json.h"

#include <stdio.h>
#include <string.h>

#include "tools/cli/output.h"
#include "tools/synth/side_files.h"

/* ---- ids --------------------------------------------------------------------------------------------------------- */

static nb_status read_ids(nb_synth_ids *out, const cJSON *tokenizer, nb_error *err)
{
    const struct {
        const char *token;
        int        *id;
    } wanted[] = {{"<|endoftext|>", &out->end_of_text},   {"<|im_end|>", &out->im_end},
                  {"<|vision_start|>", &out->vision_start}, {"<|vision_end|>", &out->vision_end},
                  {"<|vision_pad|>", &out->vision_pad},     {"<|image_pad|>", &out->image_pad},
                  {"<|video_pad|>", &out->video_pad}};
    const char  *where = "the embedded tokenizer.json: added_tokens";
    const cJSON *token;
    for (size_t i = 0; i < NB_COUNT(wanted); i++) *wanted[i].id = -1;
    out->count = cJSON_GetArraySize(nb_json_find(nb_json_find(tokenizer, "model"), "vocab"));
    cJSON_ArrayForEach(token, nb_json_find(tokenizer, "added_tokens"))
    {
        int64_t     id = 0;
        const char *content = "";
        NB_TRY(nb_json_get_int(token, "id", 0, 1 << 26, &id, where, err));
        NB_TRY(nb_json_get_string(token, "content", &content, where, err));
        if (id >= out->count) out->count = (int)id + 1;
        for (size_t i = 0; i < NB_COUNT(wanted); i++)
            if (strcmp(wanted[i].token, content) == 0) *wanted[i].id = (int)id;
    }
    for (size_t i = 0; i < NB_COUNT(wanted); i++)
        if (*wanted[i].id < 0) return nb_fail(err, NB_ERR_INPUT, "%s: '%s' is missing", where, wanted[i].token);
    return NB_OK;
}

nb_status nb_synth_ids_read(nb_synth_ids *out, nb_error *err)
{
    const nb_side_file *file = nb_side_files, *end = file + nb_side_file_count;
    while (file < end && strcmp(file->name, "tokenizer.json") != 0) file++;
    if (file == end) return nb_fail(err, NB_ERR_INPUT, "this program was built without tokenizer.json; build it again");
    cJSON *tokenizer;
    NB_TRY(nb_json_parse(&tokenizer, (const char *)file->data, file->size, "the embedded tokenizer.json", err));
    nb_status s = read_ids(out, tokenizer, err);
    cJSON_Delete(tokenizer);
    return s;
}

/* ---- config.json ------------------------------------------------------------------------------------------------- */

static void emit_rope(nb_emit *e, const nb_synth_shape *s, bool old)
{
    char section[48];
    snprintf(section, sizeof section, "[%d, %d, %d]", s->mrope[0], s->mrope[1], s->mrope[2]);
    nb_emit_open(e, "rope_scaling", '{');
    if (!old) nb_emit_string(e, "rope_type", "default");
    nb_emit_string(e, "type", old ? "mrope" : "default");
    nb_emit_raw(e, "mrope_section", section);
    nb_emit_close(e);
}

static void emit_text(nb_emit *e, const nb_synth_shape *s, const nb_synth_ids *ids, bool old, const char *dtype)
{
    nb_emit_number(e, "attention_dropout", 0);
    nb_emit_int(e, "bos_token_id", ids->end_of_text);
    nb_emit_int(e, "eos_token_id", ids->im_end);
    nb_emit_int(e, "vision_token_id", ids->vision_pad);
    nb_emit_string(e, "hidden_act", "silu");
    nb_emit_int(e, "hidden_size", s->hidden);
    nb_emit_number(e, "initializer_range", 0.02);
    nb_emit_int(e, "intermediate_size", s->intermediate);
    nb_emit_int(e, "max_position_embeddings", s->max_positions);
    nb_emit_int(e, "max_window_layers", s->published_layers);
    nb_emit_int(e, "num_attention_heads", s->heads);
    nb_emit_int(e, "num_hidden_layers", s->layers);
    nb_emit_int(e, "num_key_value_heads", s->kv_heads);
    nb_emit_number(e, "rms_norm_eps", 1e-6);
    nb_emit_raw(e, "rope_theta", "1000000.0");
    emit_rope(e, s, old);
    nb_emit_int(e, "sliding_window", s->max_positions);
    nb_emit_bool(e, "tie_word_embeddings", s->tied);
    nb_emit_string(e, old ? "torch_dtype" : "dtype", dtype);
    nb_emit_bool(e, "use_cache", true);
    nb_emit_bool(e, "use_sliding_window", false);
    nb_emit_int(e, "vocab_size", s->vocab);
}

static void emit_vision(nb_emit *e, const nb_synth_shape *s)
{
    nb_emit_open(e, "vision_config", '{');
    nb_emit_int(e, "depth", s->v_depth);
    nb_emit_int(e, "embed_dim", s->v_dim);
    nb_emit_int(e, "hidden_size", s->hidden);
    nb_emit_int(e, "in_chans", NB_SYNTH_CHANNELS);
    nb_emit_int(e, "mlp_ratio", NB_SYNTH_MLP_RATIO);
    nb_emit_string(e, "model_type", "qwen2_vl");
    nb_emit_int(e, "num_heads", s->v_heads);
    nb_emit_int(e, "patch_size", NB_SYNTH_PATCH);
    nb_emit_int(e, "spatial_merge_size", NB_SYNTH_MERGE);
    nb_emit_int(e, "spatial_patch_size", NB_SYNTH_PATCH);
    nb_emit_int(e, "temporal_patch_size", NB_SYNTH_TEMPORAL);
    nb_emit_close(e);
}

nb_status nb_synth_config(nb_buf *out, const nb_synth_shape *s, const nb_synth_ids *ids, nb_dtype dtype, nb_layout layout,
                          nb_error *err)
{
    bool        old = layout == NB_LAYOUT_OLD;
    const char *word = dtype == NB_BF16 ? "bfloat16" : dtype == NB_F16 ? "float16" : "float32";
    nb_emit     e = nb_emit_start(out, true);
    if (ids->count > s->vocab)
        return nb_fail(err, NB_ERR_INPUT, "the embedded tokenizer has %d ids, a vocabulary of %d does not hold them",
                       ids->count, s->vocab);
    nb_emit_open(&e, NULL, '{');
    nb_emit_raw(&e, "architectures", "[\"Qwen2VLForConditionalGeneration\"]");
    nb_emit_string(&e, "model_type", "qwen2_vl");
    nb_emit_int(&e, "vision_start_token_id", ids->vision_start);
    nb_emit_int(&e, "vision_end_token_id", ids->vision_end);
    nb_emit_int(&e, "image_token_id", ids->image_pad);
    nb_emit_int(&e, "video_token_id", ids->video_pad);
    emit_text(&e, s, ids, old, word);
    emit_vision(&e, s);
    if (!old) {
        nb_emit_open(&e, "text_config", '{');
        nb_emit_string(&e, "model_type", "qwen2_vl_text");
        emit_text(&e, s, ids, old, word);
        nb_emit_close(&e);
    }
    nb_emit_string(&e, "transformers_version", old ? "4.41.2" : "4.57.1");
    nb_emit_close(&e);
    return nb_buf_status(out, "config.json", err);
}
