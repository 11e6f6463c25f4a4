/* badinput_model.h - cases of damaged, lying and incomplete checkpoints: weights, config, tokenizer, side files. */
#ifndef NB_BADINPUT_MODEL_H
#define NB_BADINPUT_MODEL_H

#include "badinput.h"

#define WEIGHTS "model/model.safetensors"
#define CONFIG "model/config.json"
#define TOKENS "model/tokenizer.json"
#define INDEX "model/model.safetensors.index.json"
#define REST "model/model-00002-of-00002.safetensors"
#define FILE_NAME "@model/model.safetensors"

/* ---- weights --------------------------------------------------------------------------------------------------------- */

#define HEADER(text, ...) .says = {FILE_NAME, text}, .changes = {{REPLACE, WEIGHTS, __VA_ARGS__}}

static const bad_case weight_cases[] = {
    {"weights: empty", 5, {FILE_NAME, "bytes"}, {{RESIZE, WEIGHTS, .at = 0}}},
    {"weights: seven bytes", 5, {FILE_NAME, "bytes"}, {{RESIZE, WEIGHTS, .at = 7}}},
    {"weights: cut in the header", 5, {FILE_NAME, "header"}, {{RESIZE, WEIGHTS, .at = 5000}}},
    {"weights: cut in the data", 5, {FILE_NAME, "7986624", "cut off"}, {{RESIZE, WEIGHTS, .at = 8000000}}},
    {"weights: one byte short", 5, {FILE_NAME}, {{RESIZE, WEIGHTS, .at = -1}}},
    {"weights: one byte long", 5, {FILE_NAME}, {{GROW, WEIGHTS, .at = 1}}},
    {"weights: header of no bytes", 5, {FILE_NAME, "header"}, {{LENGTH, WEIGHTS, .at = 0}}},
    {"weights: header longer than the file", 5, {FILE_NAME, "90000000"}, {{LENGTH, WEIGHTS, .at = 90000000}}},
    {"weights: header over the limit", 5, {FILE_NAME, "100000001"}, {{LENGTH, WEIGHTS, .at = 100000001}}},
    {"weights: header of 2^63 - 1", 5, {FILE_NAME, "9223372036854775807"}, {{LENGTH, WEIGHTS, .at = INT64_MAX}}},
    {"weights: header of 2^64 - 1", 5, {FILE_NAME, "18446744073709551615"}, {{LENGTH, WEIGHTS, .at = -1}}},
    {"weights: header cut by its length", 5, {FILE_NAME, "line 1, column"}, {{LENGTH, WEIGHTS, .at = 13000}}},
    {"weights: header is an array", 5, HEADER("does not begin with '{'", "{\"__metadata__\"", "[\"__metadata__\"")},
    {"weights: trailing text in the header", 5, HEADER("line 1, column", "[17468160,17919744]}}", "[17468160,17919744]}}x")},
    {"weights: metadata holds a number", 5, HEADER("__metadata__", "{\"format\":\"pt\"}", "{\"format\":3}")},
    {"weights: a tensor twice", 5, HEADER("'model.norm.weight'", "\"model.layers.0.input_layernorm.weight\"", "\"model.norm.weight\"")},
    {"weights: offsets reversed", 5, HEADER("'model.norm.weight'", "[12333056,12333568]", "[12333568,12333056]")},
    {"weights: offsets overlap", 5, HEADER("layers.0.input_layernorm", "[524288,524800]", "[524286,524798]")},
    {"weights: a hole between tensors", 5, HEADER("layers.0.", "\"shape\":[256],\"data_offsets\":[524288,524800]", "\"shape\":[255],\"data_offsets\":[524290,524800]")},
    {"weights: offsets beyond the end", 5, HEADER("visual.patch_embed.proj.weight", "[17468160,17919744]", "[17469160,17920744]")},
    {"weights: offsets do not hold the shape", 5, HEADER("'model.norm.weight'", "[12333056,12333568]", "[12333056,12333560]")},
    {"weights: a negative offset", 5, HEADER("model.embed_tokens.weight", "[0,524288]", "[-1,524287]")},
    {"weights: a dimension of 2^64 - 1", 5, HEADER("model.embed_tokens.weight", "\"shape\":[1024,256]", "\"shape\":[18446744073709551615,256]")},
    {"weights: a shape that overflows", 5, HEADER("overflow", "\"shape\":[1024,256]", "\"shape\":[4294967296,4294967296,256]")},
    {"weights: a fractional dimension", 5, HEADER("model.embed_tokens.weight", "\"shape\":[1024,256]", "\"shape\":[1024.5,256]")},
    {"weights: a dimension that is text", 5, HEADER("model.embed_tokens.weight", "\"shape\":[1024,256]", "\"shape\":[\"1024\",256]")},
    {"weights: 10 dimensions", 5, HEADER("dimensions", "\"shape\":[1024,256]", "\"shape\":[1024,256,1,1,1,1,1,1,1,1]")},
    {"weights: an unknown type", 5, HEADER("Q4", "{\"dtype\":\"BF16\",\"shape\":[1024,256]", "{\"dtype\":\"Q4\",\"shape\":[1024,256]")},
    {"weights: a norm of integers", 5, HEADER("I16", "\"model.norm.weight\":{\"dtype\":\"BF16\"", "\"model.norm.weight\":{\"dtype\":\"I16\"")},
    {"weights: an embedding of integers", 5, HEADER("I16", "\"model.embed_tokens.weight\":{\"dtype\":\"BF16\"", "\"model.embed_tokens.weight\":{\"dtype\":\"I16\"")},
    {"weights: a linear layer of integers", 5, HEADER("layers.0.mlp.down_proj", "down_proj.weight\":{\"dtype\":\"BF16\"", "down_proj.weight\":{\"dtype\":\"U16\"")},
    {"weights: a norm of another shape", 5, HEADER("[16, 16], expected [256]", "\"model.norm.weight\":{\"dtype\":\"BF16\",\"shape\":[256]", "\"model.norm.weight\":{\"dtype\":\"BF16\",\"shape\":[16,16]")},
    {"weights: a transposed matrix", 5, HEADER("[1024, 256], expected [256, 1024]", "\"shape\":[256,1024],\"data_offsets\":[10365440", "\"shape\":[1024,256],\"data_offsets\":[10365440")},
    {"weights: a picture patch of another shape", 5, HEADER("visual.patch_embed.proj.weight", "[192,3,2,14,14]", "[192,3,1,14,28]")},
    {"weights: an unknown tensor", 5, HEADER("'model.layers.6.input_layernorm.weight'", "\"model.layers.5.input_layernorm.weight\"", "\"model.layers.6.input_layernorm.weight\"")},
    {"weights: a tensor is missing", 5, {"@model", "'visual.patch_embed.proj.weight' is missing"},
     {{REPLACE, WEIGHTS, ",\"visual.patch_embed.proj.weight\":{\"dtype\":\"BF16\",\"shape\":[192,3,2,14,14],\"data_offsets\":[17468160,17919744]}", ""},
      {RESIZE, WEIGHTS, .at = -451584}}},
    {"weights: NaN in a matrix", 5, {"@model: tensor", "layers.2.mlp.down_proj.weight"}, {{NOT_A_NUMBER, WEIGHTS, "layers.2.mlp.down_proj.weight"}}, QUANTIZE},
    {"weights: NaN in the embedding", 5, {FILE_NAME, "model.embed_tokens.weight"}, {{NOT_A_NUMBER, WEIGHTS, "model.embed_tokens.weight"}}, QUANTIZE},
    {"weights: NaN in a norm", 5, {FILE_NAME, "model.norm.weight"}, {{NOT_A_NUMBER, WEIGHTS, "model.norm.weight"}}, QUANTIZE},
    {"weights: a folder", 5, {FILE_NAME, "folder"}, {{FOLDER, WEIGHTS}}},
    {"weights: a pipe without a writer", 5, {FILE_NAME, "FIFO"}, {{PIPE, WEIGHTS}}},
    {"weights: a link to nothing", 5, {FILE_NAME}, {{LINK, WEIGHTS, "@dir/gone"}}},
    {"weights: missing", 5, {"@model", "no weights"}, {{REMOVE, WEIGHTS}}},
    {"weights: only PyTorch's", 5, {"@model", "PyTorch"}, {{REMOVE, WEIGHTS}, {TEXT, "model/pytorch_model.bin", "x"}}},
    {"weights: only GGUF", 5, {"@model", "GGUF"}, {{REMOVE, WEIGHTS}, {TEXT, "model/model-q4.gguf", "GGUF"}}},
    {"weights: only an adapter", 5, {"@model", "LoRA"}, {{REMOVE, WEIGHTS}, {TEXT, "model/adapter_model.safetensors", "x"}}},
    {"weights: shards without an index", 5, {"@model", "2 *.safetensors"}, {{REMOVE, WEIGHTS}, {TEXT, "model/model-00001-of-00002.safetensors", "x"}, {TEXT, REST, "x"}}},
    {"index: names a missing shard", 5, {"index.json", "model-00001-of-00002.safetensors"},
     {{REMOVE, WEIGHTS}, {TEXT, INDEX, "{\"weight_map\": {\"model.norm.weight\": \"model-00001-of-00002.safetensors\"}}"}}},
    {"index: leaves the folder", 5, {"index.json", "weight_map.model.norm.weight"}, {{REMOVE, WEIGHTS}, {TEXT, INDEX, "{\"weight_map\": {\"model.norm.weight\": \"../x.safetensors\"}}"}}},
    {"index: broken", 5, {"index.json: line 2, column 3"}, {{REMOVE, WEIGHTS}, {TEXT, INDEX, "{\"weight_map\":\n  }"}}},
    {"index: without a map", 5, {"index.json", "weight_map"}, {{REMOVE, WEIGHTS}, {TEXT, INDEX, "{\"metadata\": {}}"}}},
    {"index: lists what no shard holds", 5, {"model-00002-of-00002.safetensors", "model.embed_tokens.weight", "index.json does not list"},
     {{REMOVE, WEIGHTS}, {LINK, REST, "@demo/model/model.safetensors"}, {TEXT, INDEX, "{\"weight_map\": {\"model.norm.weight\": \"model-00002-of-00002.safetensors\", \"x\": \"model-00002-of-00002.safetensors\"}}"}}},
};

/* ---- config.json ----------------------------------------------------------------------------------------------------- */

#define SET(text, ...) .says = {"@model: config.json", text}, .changes = {{REPLACE, CONFIG, __VA_ARGS__}}
#define QUANTIZED(text, json) SET(text, "\"use_cache\": true", "\"quantization_config\": " json)

static const bad_case config_cases[] = {
    {"config: missing", 5, {"@model", "config.json"}, {{REMOVE, CONFIG}}},
    {"config: empty", 5, {"@model/config.json"}, {{RESIZE, CONFIG, .at = 0}}},
    {"config: an array", 5, {"@model/config.json", "object"}, {{TEXT, CONFIG, "[]"}}},
    {"config: cut", 5, {"@model/config.json: line"}, {{RESIZE, CONFIG, .at = 500}}},
    {"config: a comma is missing", 5, {"@model/config.json: line 15, column 3"}, {{REPLACE, CONFIG, "\"hidden_size\": 256,", "\"hidden_size\": 256"}}},
    {"config: NaN", 5, {"@model/config.json: line", "column"}, {{REPLACE, CONFIG, "\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": NaN"}}},
    {"config: a key twice", 5, {"@model/config.json: line 14, column", "hidden_size"}, {{REPLACE, CONFIG, "\"hidden_act\"", "\"hidden_size\": 256, \"hidden_act\""}}},
    {"config: a folder", 5, {"@model/config.json", "folder"}, {{FOLDER, CONFIG}}},
    {"config: another model", 5, SET("'qwen2_5_vl'", "\"qwen2_vl\"", "\"qwen2_5_vl\"")},
    {"config: no model_type", 5, SET("model_type is missing", "\"model_type\"", "\"model_kind\"")},
    {"config: hidden_size missing", 5, SET("hidden_size is missing", "\"hidden_size\": 256,", "")},
    {"config: hidden_size is text", 5, SET("hidden_size is a string", "\"hidden_size\": 256", "\"hidden_size\": \"256\"")},
    {"config: hidden_size negative", 5, SET("hidden_size is -256", "\"hidden_size\": 256", "\"hidden_size\": -256")},
    {"config: hidden_size half", 5, SET("hidden_size is 256.5", "\"hidden_size\": 256", "\"hidden_size\": 256.5")},
    {"config: hidden_size 1e300", 5, SET("hidden_size", "\"hidden_size\": 256", "\"hidden_size\": 1e300")},
    {"config: heads do not divide", 5, SET("num_attention_heads 6", "\"num_attention_heads\": 4", "\"num_attention_heads\": 6")},
    {"config: no heads", 5, SET("num_attention_heads is 0", "\"num_attention_heads\": 4", "\"num_attention_heads\": 0")},
    {"config: more KV heads than heads", 5, SET("num_key_value_heads 8", "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 8")},
    {"config: huge layers", 5, SET("num_hidden_layers is 4000000000", "\"num_hidden_layers\": 6", "\"num_hidden_layers\": 4000000000")},
    {"config: one layer more", 5, {"@model", "model.layers.6."}, {{REPLACE, CONFIG, "\"num_hidden_layers\": 6", "\"num_hidden_layers\": 7"}}},
    {"config: 1000 layers", 5, {"@model", "model.layers."}, {{REPLACE, CONFIG, "\"num_hidden_layers\": 6", "\"num_hidden_layers\": 1000"}}},
    {"config: one layer less", 5, {FILE_NAME, "'model.layers.5."}, {{REPLACE, CONFIG, "\"num_hidden_layers\": 6", "\"num_hidden_layers\": 5"}}},
    {"config: another vocabulary", 5, {FILE_NAME, "model.embed_tokens.weight", "[1024, 256]"}, {{REPLACE, CONFIG, "\"vocab_size\": 1024", "\"vocab_size\": 960"}}},
    {"config: vocabulary smaller than the special tokens", 5, SET("953", "\"vocab_size\": 1024", "\"vocab_size\": 900")},
    {"config: mrope_section sum", 5, SET("mrope_section sums to 34", "12,\n      12", "12,\n      14")},
    {"config: mrope_section of two", 5, SET("mrope_section must be three", "12,\n      12", "24")},
    {"config: mrope_section negative", 5, SET("mrope_section[0]", "8,\n      12,\n      12", "-8,\n      20,\n      20")},
    {"config: rope_scaling unknown", 5, SET("'llama3'", "\"type\": \"mrope\"", "\"type\": \"llama3\"")},
    {"config: rope_theta missing", 5, SET("rope_theta", "\"rope_theta\": 1000000.0,", "")},
    {"config: rms_norm_eps negative", 5, SET("rms_norm_eps", "1e-05", "-1e-05")},
    {"config: sliding window", 5, SET("use_sliding_window", "\"use_sliding_window\": false", "\"use_sliding_window\": true")},
    {"config: another activation", 5, SET("'gelu'", "\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\"")},
    {"config: untied without a head", 5, {"@model", "'lm_head.weight' is missing"}, {{REPLACE, CONFIG, "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false"}}},
    {"config: tie_word_embeddings is a number", 5, SET("tie_word_embeddings", "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": 1")},
    {"config: no vision_config", 5, SET("vision_config is missing", "\"vision_config\"", "\"vision\"")},
    {"config: vision heads do not divide", 5, SET("vision_config", "\"num_heads\": 4", "\"num_heads\": 5")},
    {"config: vision size against language size", 5, SET("vision_config.hidden_size 512", "\"hidden_size\": 256,\n    \"in_chans\"", "\"hidden_size\": 512,\n    \"in_chans\"")},
    {"config: vision patch of 0", 5, SET("vision_config.patch_size is 0", "\"patch_size\": 14,\n    \"spatial_merge", "\"patch_size\": 0,\n    \"spatial_merge")},
    {"config: vision patch against the processor", 5, {"@model", "preprocessor_config.json", "16"}, {{REPLACE, CONFIG, "\"patch_size\": 14,\n    \"spatial_merge", "\"patch_size\": 16,\n    \"spatial_merge"}}},
    {"config: 3 bits", 5, QUANTIZED("3 bits", "{\"quant_method\": \"gptq\", \"bits\": 3, \"group_size\": 128}")},
    {"config: no bits", 5, QUANTIZED("bits is missing", "{\"quant_method\": \"gptq\", \"group_size\": 128}")},
    {"config: groups of 0", 5, QUANTIZED("group_size is 0", "{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 0}")},
    {"config: groups of text", 5, QUANTIZED("group_size", "{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": \"128\"}")},
    {"config: AWQ of 8 bits", 5, QUANTIZED("8 bits", "{\"quant_method\": \"awq\", \"bits\": 8, \"group_size\": 128}")},
    {"config: AWQ in gemv", 5, QUANTIZED("'gemv'", "{\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": 128, \"version\": \"gemv\"}")},
    {"config: GPTQ in marlin", 5, QUANTIZED("'marlin'", "{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 128, \"checkpoint_format\": \"marlin\"}")},
    {"config: another quantizer", 5, QUANTIZED("'bitsandbytes'", "{\"quant_method\": \"bitsandbytes\", \"load_in_4bit\": true}")},
    {"config: compressed-tensors without groups", 5, QUANTIZED("config_groups", "{\"quant_method\": \"compressed-tensors\", \"format\": \"pack-quantized\"}")},
    {"config: quantization_config is text", 5, QUANTIZED("not an object", "\"awq\"")},
    {"config: quantized, but float weights", 5, {"@model", "no matrix is quantized"}, {{REPLACE, CONFIG, "\"use_cache\": true", "\"quantization_config\": {\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": 128}"}}},
};

/* ---- quantized checkpoints --------------------------------------------------------------------------------------------- */

#define GROUPS_OF "\"group_size\": 128"

static const bad_case quantized_cases[] = {
    {"awq: groups that do not divide", 5, {FILE_NAME, "model.layers.0.", "expected"}, {{REPLACE, CONFIG, GROUPS_OF, "\"group_size\": 100"}}, RUN, .base = "awq"},
    {"awq: groups of another size", 5, {FILE_NAME, "model.layers.0.", "expected"}, {{REPLACE, CONFIG, GROUPS_OF, "\"group_size\": 64"}}, RUN, .base = "awq"},
    {"gptq: groups of another size", 5, {FILE_NAME, "model.layers.0.", "expected"}, {{REPLACE, CONFIG, GROUPS_OF, "\"group_size\": -1"}}, RUN, .base = "gptq"},
    {"gptq: other bits", 5, {FILE_NAME, "model.layers.0.", "expected"}, {{REPLACE, CONFIG, "\"bits\": 4", "\"bits\": 8"}}, RUN, .base = "gptq"},
    {"awq: called gptq", 5, {FILE_NAME, "model.layers.0.", "expected"}, {{REPLACE, CONFIG, "\"quant_method\": \"awq\"", "\"quant_method\": \"gptq\""}, {REPLACE, CONFIG, "\"version\"", "\"note\""}}, RUN, .base = "awq"},
    {"gptq: config of the float model", 5, {"@model", "model.layers.0.", "quantization_config"}, {{LINK, CONFIG, "@demo/model/config.json"}, {REMOVE, "model/quantize_config.json"}}, RUN, .base = "gptq"},
    {"gptq: quantize_config.json broken", 5, {"@model/quantize_config.json: line 1, column 2"}, {{LINK, CONFIG, "@demo/model/config.json"}, {TEXT, "model/quantize_config.json", "{bits: 4}"}}, RUN, .base = "gptq"},
    {"gptq: a scale is not a number", 5, {FILE_NAME, "model.layers.3.mlp.up_proj.scales", "element 0"}, {{NOT_A_NUMBER, WEIGHTS, "model.layers.3.mlp.up_proj.scales"}}, RUN, .base = "gptq"},
    {"gptq: an input in no group", 5, {"@model", "model.layers.3.mlp.up_proj", "32704"}, {{NOT_A_NUMBER, WEIGHTS, "model.layers.3.mlp.up_proj.g_idx"}}, RUN, .base = "gptq"},
    {"gptq: codes of another type", 5, {FILE_NAME, "layers.0.mlp.down_proj.qweight", "F32"}, {{REPLACE, WEIGHTS, "\"model.layers.0.mlp.down_proj.qweight\":{\"dtype\":\"I32\"", "\"model.layers.0.mlp.down_proj.qweight\":{\"dtype\":\"F32\""}}, RUN, .base = "gptq"},
    {"gptq: scales of another type", 5, {FILE_NAME, "layers.0.mlp.down_proj.scales", "I16"}, {{REPLACE, WEIGHTS, "\"model.layers.0.mlp.down_proj.scales\":{\"dtype\":\"F16\"", "\"model.layers.0.mlp.down_proj.scales\":{\"dtype\":\"I16\""}}, RUN, .base = "gptq"},
    {"gptq: zeros under another name", 5, {"@model", "layers.0.mlp.down_proj"}, {{REPLACE, WEIGHTS, "model.layers.0.mlp.down_proj.qzeros", "model.layers.0.mlp.down_proj.zeros"}}, RUN, .base = "gptq"},
    {"awq: quantized again", 5, {"@model", "already quantized (awq, 4 bits)"}, .run = QUANTIZE, .base = "awq"},
    {"gptq: quantized again", 5, {"@model", "already quantized (gptq, 4 bits)"}, .run = QUANTIZE, .base = "gptq"},
};

/* ---- the tokenizer and the other files ------------------------------------------------------------------------------- */

static const bad_case side_file_cases[] = {
    {"tokenizer: missing", 5, {"@model", "no tokenizer"}, {{REMOVE, TOKENS}, {REMOVE, "model/vocab.json"}}},
    {"tokenizer: broken", 5, {"@model/tokenizer.json: line 2, column 17"}, {{REPLACE, TOKENS, "\"version\": \"1.0\"", "\"version\": 1.0.0"}}},
    {"tokenizer: empty", 5, {"@model/tokenizer.json"}, {{RESIZE, TOKENS, .at = 0}}},
    {"tokenizer: cut", 5, {"@model/tokenizer.json: line"}, {{RESIZE, TOKENS, .at = 20000}}},
    {"tokenizer: not UTF-8", 5, {"@model/tokenizer.json: line"}, {{REPLACE, TOKENS, "\"!\": 0", "\"\xFF\": 0"}}},
    {"tokenizer: a byte has no token", 5, {"@model/tokenizer.json", "0x21"}, {{REPLACE, TOKENS, "\"!\": 0", "\"!!!\": 0"}}},
    {"tokenizer: an id twice", 5, {"@model/tokenizer.json", "'\"' or its id 0"}, {{REPLACE, TOKENS, "\"\\\"\": 1,", "\"\\\"\": 0,"}}},
    {"tokenizer: a negative id", 5, {"@model/tokenizer.json", "token '!'"}, {{REPLACE, TOKENS, "\"!\": 0", "\"!\": -1"}}},
    {"tokenizer: a huge id", 5, {"@model/tokenizer.json", "token '!'"}, {{REPLACE, TOKENS, "\"!\": 0", "\"!\": 4000000000"}}},
    {"tokenizer: an id that is text", 5, {"@model/tokenizer.json", "token '!'"}, {{REPLACE, TOKENS, "\"!\": 0", "\"!\": \"0\""}}},
    {"tokenizer: merges an unknown token", 5, {"@model/tokenizer.json: merges[1]"}, {{REPLACE, TOKENS, "\"h\",\n        \"e\"", "\"h\",\n        \"xyz\""}}},
    {"tokenizer: a merge of three", 5, {"@model/tokenizer.json: merges[1]"}, {{REPLACE, TOKENS, "\"h\",\n        \"e\"", "\"h\",\n        \"e\",\n        \"e\""}}},
    {"tokenizer: another kind", 5, {"@model/tokenizer.json", "BPE"}, {{REPLACE, TOKENS, "\"type\": \"BPE\"", "\"type\": \"Unigram\""}}},
    {"tokenizer: another split", 5, {"@model/tokenizer.json", "pre_tokenizer"}, {{REPLACE, TOKENS, "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^", "[^"}}},
    {"tokenizer: no vocabulary", 5, {"@model/tokenizer.json", "vocabulary"}, {{REPLACE, TOKENS, "\"vocab\":", "\"words\":"}}},
    {"tokenizer: an added id again", 5, {"@model/tokenizer.json", "'<|video_pad|>'"}, {{REPLACE, TOKENS, "\"id\": 957", "\"id\": 956"}}},
    {"tokenizer: an empty added token", 5, {"@model/tokenizer.json", "957"}, {{REPLACE, TOKENS, "\"<|video_pad|>\"", "\"\""}}},
    {"tokenizer: larger than the model", 5, {"@model", "ids up to 2000", "1024"}, {{REPLACE, TOKENS, "\"id\": 957", "\"id\": 2000"}}},
    {"tokenizer: no token for pictures", 5, {"@model", "<|image_pad|>"}, {{REPLACE, TOKENS, "<|image_pad|>", "<|image_dap|>"}}},
    {"tokenizer: of another model", 5, {"@model", "'<|image_pad|>' the id 956", "image_token_id is 950"}, {{REPLACE, CONFIG, "\"image_token_id\": 956", "\"image_token_id\": 950"}}},
    {"merges.txt: not a pair", 5, {"@model/merges.txt", "line 3"}, {{REMOVE, TOKENS}, {REPLACE, "model/merges.txt", "h e\n", "he\n"}}},
    {"vocab.json: broken", 5, {"@model/vocab.json: line 1, column 6"}, {{REMOVE, TOKENS}, {REPLACE, "model/vocab.json", "{\"!\":0", "{\"!\":x"}}},
    {"merges.txt: missing", 5, {"@model", "merges.txt"}, {{REMOVE, TOKENS}, {REMOVE, "model/merges.txt"}}},
    /* only inspect reads a chat template: the published one is built in */
    {"tokenizer_config: broken", 5, {"@model/tokenizer_config.json: line 2, column 23"}, {{REPLACE, "model/tokenizer_config.json", "\"add_prefix_space\": false", "\"add_prefix_space\": fals"}, {REMOVE, "model/chat_template.json"}}, "inspect @model --chat-template"},
    {"chat_template: broken", 5, {"@model/chat_template.json: line 2, column 3"}, {{REPLACE, "model/chat_template.json", "  \"chat_template\":", "  chat_template:"}}, "inspect @model --chat-template"},
    {"chat_template: nowhere", 5, {"@model", "chat template"}, {{REMOVE, "model/chat_template.json"}, {REPLACE, "model/tokenizer_config.json", "\"chat_template\"", "\"template\""}}, "inspect @model --chat-template"},
    {"generation_config: broken", 5, {"@model/generation_config.json: line 14, column 1"}, {{REPLACE, "model/generation_config.json", "\"4.57.1\"\n", "\"4.57.1\",\n"}}},
    {"generation_config: temperature is text", 5, {"@model: generation_config.json", "temperature"}, {{REPLACE, "model/generation_config.json", "\"temperature\": 0.1", "\"temperature\": \"low\""}}},
    {"generation_config: end token is text", 5, {"@model: generation_config.json", "eos_token_id"}, {{REPLACE, "model/generation_config.json", "946,", "\"946\","}}},
    {"generation_config: missing", 0, .changes = {{REMOVE, "model/generation_config.json"}}, .run = RUN},
    {"preprocessor_config: broken", 5, {"@model/preprocessor_config.json: line 2, column 19"}, {{REPLACE, "model/preprocessor_config.json", "\"min_pixels\": 3136", "\"min_pixels\": "}}},
    {"preprocessor_config: pixels reversed", 5, {"@model/preprocessor_config.json", "min_pixels"}, {{REPLACE, "model/preprocessor_config.json", "12845056", "1000"}}},
    {"preprocessor_config: a mean of two", 5, {"@model/preprocessor_config.json", "image_mean"}, {{REPLACE, "model/preprocessor_config.json", "0.48145466,", ""}}},
    {"preprocessor_config: no deviation", 5, {"@model/preprocessor_config.json", "image_std[0]"}, {{REPLACE, "model/preprocessor_config.json", "0.26862954", "0"}}},
    {"preprocessor_config: missing", 0, .changes = {{REMOVE, "model/preprocessor_config.json"}},
     .run = "run @model -p Hi --image @demo/calib/images/chat-0000-0.png -n 2"},
    {"model: missing", 5, {"@dir/nothing: there is no such model directory"}, .run = "run @dir/nothing -p Hi"},
    {"model: missing, quantize", 5, {"@dir/nothing: there is no such model directory"}, .run = "quantize @dir/nothing --out @dir/out --data @demo/calib/chat.jsonl"},
    {"model: a file", 5, {"@model/config.json", "file"}, .run = "run @model/config.json -p Hi"},
    {"model: an empty folder", 5, {"@dir/empty", "no weights"}, {{FOLDER, "empty"}}, "run @dir/empty -p Hi"},
    {"model: unfinished", 5, {"@model", "unfinished"}, .model = "ck.partial"},
    {"inspect: unfinished", 5, {"@model", "unfinished"}, .model = "ck.partial", .run = "inspect @model"},
    {"inspect: missing", 5, {"@dir/nothing"}, .run = "inspect @dir/nothing"},
    {"inspect: cut weights", 5, {FILE_NAME}, {{RESIZE, WEIGHTS, .at = 100}}, "inspect @model --tensors"},
    {"bench: cut weights", 5, {FILE_NAME}, {{RESIZE, WEIGHTS, .at = 100}}, "bench @model -p 4 -n 4"},
    {"eval: cut weights", 5, {FILE_NAME}, {{RESIZE, WEIGHTS, .at = 100}}, "eval @model --data @demo/eval/chat_holdout.jsonl"},
    {"chat: cut weights", 5, {FILE_NAME}, {{RESIZE, WEIGHTS, .at = 100}}, "chat @model"},
};

#endif
