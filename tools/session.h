/* session.h - what commands that run a model share: the flags, and one object that opens pool, operations, model and engine
 * in this order and closes them in the opposite one. */
#ifndef NB_SESSION_H
#define NB_SESSION_H

#include "runtime/engine/generate.h"
#include "tools/cli/args.h"
#include "tools/cli/output.h"

/* -t/--threads, --device */
typedef struct {
    int64_t threads; /* 0: one per CPU */
    int     device;  /* auto, cpu, cuda */
} nb_compute_flags;
enum { NB_COMPUTE_ARGS = 2 };
extern const nb_arg nb_compute_args[NB_COMPUTE_ARGS];

/* --pack-cache */
typedef struct {
    const char *pack_cache; /* NULL: none */
} nb_weight_flags;
enum { NB_WEIGHT_ARGS = 1 };
extern const nb_arg nb_weight_args[NB_WEIGHT_ARGS];
/* A file is of one model: with more of them a folder is needed. */
nb_status nb_weight_check(const nb_weight_flags *flags, size_t models, nb_error *err);

/* --kv-cache-dtype, --prefill-chunk, --lm-head */
typedef enum { NB_KV_AUTO, NB_KV_F32, NB_KV_BF16, NB_KV_INT8 } nb_kv_choice;
typedef struct {
    int     kv_cache_dtype; /* nb_kv_choice */
    int64_t chunk;
    int     lm_head;        /* keep, int8 */
} nb_engine_flags;
enum { NB_ENGINE_ARGS = 3 };
extern const nb_arg nb_engine_args[NB_ENGINE_ARGS];

/* --min-pixels, --max-pixels, --pixels published, --image-root, --offline, --media-cache, --media-cache-size */
typedef struct {
    int64_t     min_pixels, max_pixels;
    int         pixels; /* checkpoint, published */
    const char *image_root;
    bool        offline;
    const char *media_cache; /* NULL: nibble/media in the user's cache folder; "none": no cache */
    uint64_t    media_cache_size;
} nb_media_flags;
enum { NB_MEDIA_ARGS = 7 };
extern const nb_arg nb_media_args[NB_MEDIA_ARGS];

/* The limits that the flags ask for: explicit numbers, else the published setting, else zeros (the checkpoint's own).  A minimum
 * above the maximum is refused. */
nb_status nb_media_limits(nb_pixel_limits *out, const nb_media_flags *flags, nb_error *err);
/* Options for nb_prompt_build: limits and media; folder is where relative references start unless --image-root says otherwise
 * (NULL: the working directory).  It must outlive the options. */
nb_status nb_media_prompt_options(nb_prompt_options *out, const nb_media_flags *flags, const char *folder, nb_error *err);

/* --temp, --top-p, --top-k, --repeat-penalty, -n, --seed, --stop, --ignore-eos */
typedef struct {
    double     temp, top_p, repeat_penalty;
    int64_t    top_k, predict, seed;
    nb_strings stop;
    bool       ignore_eos;
} nb_sampling_flags;
enum { NB_SAMPLING_ARGS = 8 };
extern const nb_arg nb_sampling_args[NB_SAMPLING_ARGS];

/* What the flags ask for, on top of the checkpoint's generation_config.json.  --temp decides between greedy (0) and drawing;
 * without it the checkpoint does.  out->on_text and its context stay NULL; out->stop points into the flags. */
void nb_sampling_apply(nb_generate_options *out, const nb_sampling_flags *flags, const nb_args *args,
                            const nb_generation_config *checkpoint);
/* on_text of answers that nobody watches: go on until a signal asks to stop. */
bool        nb_keep_going(void *context, const char *text, size_t n);
/* Warn when an answer went beyond the positions that the model was made for.  what: "the answer", "FILE line 3". */
void        nb_warn_past_trained(const nb_answer *a, const nb_model *model, const char *what);
const char *nb_finish_name(nb_finish f); /* "stop", "length", "cancelled" */
/* text, finish_reason, prompt_tokens, completion_tokens, prompt_ms, predicted_ms into an open object. */
void        nb_emit_answer(nb_emit *e, const nb_answer *a);

typedef struct {
    nb_pool   *pool;
    nb_ops     ops;
    nb_model  *model;  /* NULL until nb_session_model */
    nb_engine *engine; /* NULL until nb_session_engine */
    double     open_s; /* time to open the model */
} nb_session;

/* Pool and operation table (NIBBLE_ISA lowers the level).  device cuda is refused in a build without the GPU backend. */
nb_status nb_session_open(nb_session *s, const nb_compute_flags *flags, nb_error *err);
/* Open a checkpoint directory; its notes are printed as warnings.  flags NULL: no pack cache. */
nb_status nb_session_model(nb_session *s, const char *directory, const nb_weight_flags *flags, nb_error *err);
nb_dtype  nb_session_kv_type(const nb_session *s, const nb_engine_flags *flags); /* what --kv-cache-dtype comes to */
/* What --lm-head asks for; nb_session_engine does it too. */
nb_status nb_session_head(nb_session *s, const nb_engine_flags *flags, nb_error *err);
/* max_tokens, max_sequences: 0 for the engine's own. */
nb_status nb_session_engine(nb_session *s, const nb_engine_flags *flags, size_t max_tokens, int max_sequences, nb_error *err);
/* What --kv-cache-dtype auto means: f32 for an f32 checkpoint, else bf16. */
nb_dtype  nb_kv_auto(const nb_model *model);
const char *nb_kv_name(nb_dtype type); /* "f32", "bf16", "int8" */
void      nb_session_close(nb_session *s); /* a zeroed or half-open one is fine */

/* The last part of a path, as the name of what lies there; malloc'd, NULL without memory. */
char *nb_folder_name(const char *path);

#endif
