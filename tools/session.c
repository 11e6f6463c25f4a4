/* session.c - opening what a command needs, in one order, with one way to close it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"
#include "runtime/io/file.h"
#include "tools/cli/output.h"
#include "tools/cli/stop.h"
#include "tools/session.h"

enum { DEVICE_AUTO, DEVICE_CPU, DEVICE_CUDA };
enum { PIXELS_CHECKPOINT, PIXELS_PUBLISHED };

const nb_arg nb_compute_args[NB_COMPUTE_ARGS] = {
    {.name = "threads", .brief = "t", .type = NB_ARG_INT, .at = offsetof(nb_compute_flags, threads), .min = 0,
     .max = 1024, .text = "0", .shown = "one per CPU", .group = "Machine", .transient = true,
     .help = "threads to compute with; results do not depend on it"},
    {.name = "device", .type = NB_ARG_CHOICE, .at = offsetof(nb_compute_flags, device), .choices = "auto|cpu|cuda",
     .text = "auto", .group = "Machine", .advanced = true, .transient = true, .help = "where to compute"},
};

const nb_arg nb_weight_args[NB_WEIGHT_ARGS] = {
    {.name = "pack-cache", .type = NB_ARG_STRING, .at = offsetof(nb_weight_flags, pack_cache), .metavar = "FILE|DIR",
     .group = "Machine", .advanced = true, .transient = true,
     .help = "keep the weights as this machine computes with them in FILE, or in one file per checkpoint in DIR; the next start "
             "maps it, and processes share its memory"},
};

const nb_arg nb_engine_args[NB_ENGINE_ARGS] = {
    {.name = "kv-cache-dtype", .brief = "ctk", .aliases = "cache-type,cache-type-k,cache-type-v", .type = NB_ARG_CHOICE,
     .at = offsetof(nb_engine_flags, kv_cache_dtype), .choices = "auto|f32|bf16|int8", .text = "auto", .group = "Machine",
     .advanced = true, .help = "how keys and values are kept; auto is f32 for an f32 checkpoint, else bf16; int8 takes about half of bf16's "
                               "memory and changes answers a little"},
    {.name = "prefill-chunk", .brief = "ub", .aliases = "ubatch-size", .type = NB_ARG_INT,
     .at = offsetof(nb_engine_flags, chunk), .min = 1, .max = 65536, .text = "512", .group = "Machine",
     .advanced = true, .help = "prompt tokens computed in one step"},
    {.name = "lm-head", .type = NB_ARG_CHOICE, .at = offsetof(nb_engine_flags, lm_head), .choices = "keep|int8", .text = "keep",
     .group = "Machine", .advanced = true, .help = "int8 rounds a head of floats when the model is opened: half of its bytes for each token "
                                                    "generated, for a little accuracy"},
};

const nb_arg nb_media_args[NB_MEDIA_ARGS] = {
    {.name = "min-pixels", .type = NB_ARG_INT, .at = offsetof(nb_media_flags, min_pixels), .min = 1, .max = 1e9,
     .shown = "the checkpoint's", .group = "Pictures",
     .help = "pictures with fewer pixels are enlarged; 784 make one token"},
    {.name = "max-pixels", .type = NB_ARG_INT, .at = offsetof(nb_media_flags, max_pixels), .min = 1, .max = 1e9,
     .shown = "the checkpoint's", .group = "Pictures",
     .help = "pictures with more pixels are shrunk; 1280*28*28 is 1280 tokens"},
    {.name = "pixels", .type = NB_ARG_CHOICE, .at = offsetof(nb_media_flags, pixels), .choices = "checkpoint|published",
     .text = "checkpoint", .group = "Pictures", .advanced = true,
     .help = "both limits at once; published is the setting of the published scores, 1280*784 to 16384*784"},
    {.name = "image-root", .aliases = "media-dir,image-folder", .type = NB_ARG_STRING,
     .at = offsetof(nb_media_flags, image_root), .metavar = "DIR",
     .shown = "the folder of the data file, else the working directory", .group = "Pictures", .advanced = true,
     .help = "folder that relative picture paths start from"},
    {.name = "offline", .type = NB_ARG_BOOL, .at = offsetof(nb_media_flags, offline), .text = "false",
     .group = "Pictures", .advanced = true, .help = "http(s) pictures come from the media cache or are refused, nothing is fetched"},
    {.name = "media-cache", .type = NB_ARG_STRING, .at = offsetof(nb_media_flags, media_cache), .metavar = "DIR|none",
     .shown = "nibble/media in $XDG_CACHE_HOME or ~/.cache", .group = "Pictures", .advanced = true, .transient = true,
     .help = "where fetched http(s) pictures are kept, by the hash of their bytes"},
    {.name = "media-cache-size", .type = NB_ARG_SIZE, .at = offsetof(nb_media_flags, media_cache_size), .min = 1, .max = 9e15,
     .text = "4G", .group = "Pictures", .advanced = true, .transient = true,
     .help = "most that the media cache may hold; what was not used for the longest time goes first"},
};

const nb_arg nb_sampling_args[NB_SAMPLING_ARGS] = {
    {.name = "predict", .brief = "n", .aliases = "n-predict,max-tokens,max-new-tokens", .type = NB_ARG_INT,
     .at = offsetof(nb_sampling_flags, predict), .min = 1, .max = 1e6, .text = "2048", .group = "Generation",
     .help = "tokens of an answer at most"},
    {.name = "temp", .aliases = "temperature", .type = NB_ARG_NUMBER, .at = offsetof(nb_sampling_flags, temp), .min = 0,
     .max = 100, .shown = "the checkpoint's", .group = "Generation",
     .help = "temperature; 0 always takes the likeliest token"},
    {.name = "top-p", .type = NB_ARG_NUMBER, .at = offsetof(nb_sampling_flags, top_p), .min = 1e-6, .max = 1,
     .shown = "the checkpoint's", .group = "Generation",
     .help = "draw from the likeliest tokens that reach this probability; 1 is off"},
    {.name = "top-k", .type = NB_ARG_INT, .at = offsetof(nb_sampling_flags, top_k), .min = 0, .max = 1e6,
     .shown = "the checkpoint's", .group = "Generation", .help = "draw from the K likeliest tokens; 0 is off"},
    {.name = "repeat-penalty", .aliases = "repetition-penalty", .type = NB_ARG_NUMBER,
     .at = offsetof(nb_sampling_flags, repeat_penalty), .min = 0.01, .max = 100, .shown = "the checkpoint's",
     .group = "Generation", .advanced = true, .help = "above 1 makes tokens that were seen less likely"},
    {.name = "seed", .type = NB_ARG_INT, .at = offsetof(nb_sampling_flags, seed), .min = 0, .max = 9e18, .text = "0",
     .group = "Generation", .help = "of the draws: the same seed gives the same answer"},
    {.name = "stop", .type = NB_ARG_STRINGS, .at = offsetof(nb_sampling_flags, stop), .group = "Generation",
     .advanced = true, .help = "text that ends the answer and is not part of it"},
    {.name = "ignore-eos", .type = NB_ARG_BOOL, .at = offsetof(nb_sampling_flags, ignore_eos), .text = "false",
     .group = "Generation", .advanced = true, .help = "go on after the end token, up to -n"},
};

nb_status nb_weight_check(const nb_weight_flags *flags, size_t models, nb_error *err)
{
    if (!flags->pack_cache || models < 2 || nb_is_directory(flags->pack_cache)) return NB_OK;
    return nb_fail(err, NB_ERR_ARGUMENT, "--pack-cache %s: a file is of one model, and there are %zu: name a folder that is there",
                   flags->pack_cache, models);
}

void nb_sampling_apply(nb_generate_options *out, const nb_sampling_flags *flags, const nb_args *args,
                       const nb_generation_config *checkpoint)
{
    memset(out, 0, sizeof *out);
    out->sampling = nb_sampling_default(checkpoint);
    out->sampling.seed = (uint64_t)flags->seed;
    if (nb_args_given(args, "temp")) {
        out->sampling.greedy = flags->temp == 0;
        out->sampling.temperature = flags->temp > 0 ? flags->temp : 1;
    }
    if (nb_args_given(args, "top-p")) out->sampling.top_p = flags->top_p;
    if (nb_args_given(args, "top-k")) out->sampling.top_k = (int)flags->top_k;
    if (nb_args_given(args, "repeat-penalty")) out->sampling.repetition_penalty = flags->repeat_penalty;
    out->max_new_tokens = (int)flags->predict;
    out->ignore_eos = flags->ignore_eos;
    out->stop = flags->stop.items;
    out->stop_count = flags->stop.count;
}

bool nb_keep_going(void *context, const char *text, size_t n)
{
    (void)context, (void)text, (void)n;
    return !nb_stop_requested();
}

void nb_warn_past_trained(const nb_answer *a, const nb_model *model, const char *what)
{
    if (a->past_trained)
        nb_warn("%s: %zu tokens are more than the model's max_position_embeddings of %d: its quality there is not assured", what,
                a->prompt_tokens + a->ids.count, model->config.max_positions);
}

const char *nb_finish_name(nb_finish f)
{
    return f == NB_FINISH_STOP ? "stop" : f == NB_FINISH_LENGTH ? "length" : "cancelled";
}

void nb_emit_answer(nb_emit *e, const nb_answer *a)
{
    nb_emit_bytes(e, "text", a->text.data ? a->text.data : "", a->text.size);
    nb_emit_string(e, "finish_reason", nb_finish_name(a->finish));
    nb_emit_int(e, "prompt_tokens", (int64_t)a->prompt_tokens);
    nb_emit_int(e, "completion_tokens", (int64_t)a->ids.count);
    nb_emit_number(e, "prompt_ms", a->prefill_s * 1000);
    nb_emit_number(e, "predicted_ms", a->decode_s * 1000);
}

nb_status nb_media_limits(nb_pixel_limits *out, const nb_media_flags *flags, nb_error *err)
{
    bool published = flags->pixels == PIXELS_PUBLISHED;
    *out = (nb_pixel_limits){0};
    out->min_pixels = flags->min_pixels ? flags->min_pixels : published ? 1280 * 784 : 0;
    out->max_pixels = flags->max_pixels ? flags->max_pixels : published ? 16384 * 784 : 0;
    if (out->min_pixels && out->max_pixels && out->min_pixels > out->max_pixels)
        return nb_fail(err, NB_ERR_ARGUMENT, "--min-pixels %lld is more than --max-pixels %lld", (long long)out->min_pixels,
                       (long long)out->max_pixels);
    return NB_OK;
}

/* The folder that --media-cache names, or the usual one; NULL: none. */
static const char *media_cache(const nb_media_flags *flags)
{
    static char usual[4096]; /* the environment does not change while the program runs */
    const char *named = flags->media_cache, *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int         n = 0;
    if (named) return strcmp(named, "none") && *named ? named : NULL;
    if (xdg && *xdg == '/') n = snprintf(usual, sizeof usual, "%s/nibble/media", xdg); /* a relative one is to be ignored */
    else if (home && *home == '/') n = snprintf(usual, sizeof usual, "%s/.cache/nibble/media", home);
    return n > 0 && (size_t)n < sizeof usual ? usual : NULL;
}

nb_status nb_media_prompt_options(nb_prompt_options *out, const nb_media_flags *flags, const char *folder, nb_error *err)
{
    memset(out, 0, sizeof *out);
    out->media.root = flags->image_root ? flags->image_root : folder;
    out->media.offline = flags->offline;
    out->media.cache = media_cache(flags);
    out->media.cache_bytes = flags->media_cache_size;
    return nb_media_limits(&out->limits, flags, err);
}

nb_status nb_session_open(nb_session *s, const nb_compute_flags *flags, nb_error *err)
{
    nb_isa isa;
    memset(s, 0, sizeof *s);
    NB_TRY(nb_isa_from_environment(&isa, err));
    NB_TRY(nb_pool_new(&s->pool, (int)flags->threads, err));
    if (flags->device == DEVICE_CUDA)
        NB_TRY(nb_cuda_ops_new(&s->ops, 0, s->pool, err));
    else
        nb_ops_init(&s->ops, isa, s->pool);
    nb_detail("computing with %s on %d threads", s->ops.name, nb_pool_threads(s->pool));
    return NB_OK;
}

nb_status nb_session_model(nb_session *s, const char *directory, const nb_weight_flags *flags, nb_error *err)
{
    double start = nb_seconds();
    NB_TRY(nb_model_open_packed(&s->model, directory, &s->ops, flags ? flags->pack_cache : NULL, err));
    s->open_s = nb_seconds() - start;
    char bytes[32], took[32];
    nb_human_bytes(bytes, (double)s->model->weight_bytes);
    nb_human_time(took, s->open_s);
    nb_warn_lines(s->model->notes.data, "");
    nb_detail("%s: %s of weights in memory after %s", directory, bytes, took);
    return NB_OK;
}

nb_dtype nb_kv_auto(const nb_model *model)
{
    return model->config.dtype == NB_F32 ? NB_F32 : NB_BF16;
}

nb_dtype nb_session_kv_type(const nb_session *s, const nb_engine_flags *flags)
{
    switch ((nb_kv_choice)flags->kv_cache_dtype) {
    case NB_KV_F32: return NB_F32;
    case NB_KV_BF16: return NB_BF16;
    case NB_KV_INT8: return NB_I8;
    default: return nb_kv_auto(s->model);
    }
}

const char *nb_kv_name(nb_dtype type)
{
    return type == NB_F32 ? "f32" : type == NB_I8 ? "int8" : "bf16";
}

nb_status nb_session_head(nb_session *s, const nb_engine_flags *flags, nb_error *err)
{
    return flags->lm_head ? nb_model_head_int8(s->model, err) : NB_OK;
}

nb_status nb_session_engine(nb_session *s, const nb_engine_flags *flags, size_t max_tokens, int max_sequences, nb_error *err)
{
    nb_engine_options options = {.max_tokens = max_tokens, .chunk = (size_t)flags->chunk, .max_sequences = max_sequences,
                                 .kv_type = nb_session_kv_type(s, flags)};
    NB_TRY(nb_session_head(s, flags, err));
    return nb_engine_new(&s->engine, s->model, &options, err);
}

void nb_session_close(nb_session *s)
{
    nb_engine_free(s->engine);
    nb_model_close(s->model);
    nb_cuda_ops_free(&s->ops);
    nb_pool_free(s->pool);
    memset(s, 0, sizeof *s);
}

char *nb_folder_name(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    size_t from = n;
    while (from > 0 && path[from - 1] != '/') from--;
    return strndup(path + from, n - from);
}
