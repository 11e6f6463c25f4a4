/* prompt.h - a chat to what the model reads: token ids, three positions a token, patches, and what each token is. */
#ifndef NB_PROMPT_H
#define NB_PROMPT_H

#include "runtime/model/config.h"
#include "runtime/text/chat.h"
#include "runtime/vision/media.h"
#include "runtime/vision/preprocess.h"
#include "runtime/vision/video.h"

typedef enum { NB_TOKEN_TEXT, NB_TOKEN_IMAGE, NB_TOKEN_VIDEO } nb_modality;

typedef struct {
    int32_t    *ids;        /* [count] */
    int32_t    *position;   /* [3, count]: T, H, W */
    uint8_t    *modality;   /* [count] nb_modality */
    uint8_t    *answer;     /* [count] 1 where the token belongs to an assistant answer (its closing <|im_end|> included) */
    size_t      count;
    int32_t     rope_delta; /* position of the token after the last = count + rope_delta */
    nb_patches *media;      /* in order of appearance */
    uint8_t    *media_kind; /* [media_count] nb_modality */
    int         media_count;
} nb_prompt;
void nb_prompt_free(nb_prompt *p);

typedef struct {
    const nb_tokenizer *tokenizer;
    const nb_processor *processor;
    const nb_config    *config;
} nb_prompt_source;

typedef struct {
    nb_template_options template_options;
    nb_media_options    media;
    nb_pixel_limits     limits;        /* defaults for items that give none */
    bool                parse_special; /* in message text: off unless asked */
    const char         *where;         /* "line 3 of chat.jsonl" for messages, or NULL */
} nb_prompt_options;

nb_status nb_prompt_build(nb_prompt *out, const nb_chat *chat, const nb_prompt_source *source, const nb_prompt_options *options,
                          nb_error *err);
/* How the frames of a part that is a video file are taken and resized, before the processor's own limits. */
nb_video_limits nb_prompt_video_limits(const nb_part *part, const nb_pixel_limits *defaults, const nb_processor *processor);
/* Text alone, already as ids (perplexity over a file, benches). */
nb_status nb_prompt_from_ids(nb_prompt *out, const int32_t *ids, size_t count, const nb_config *config, nb_error *err);
/* M-RoPE positions (transformers 4.x get_rope_index) for ids with pads already expanded; grids in order of appearance. */
nb_status nb_positions(int32_t *position, int32_t *rope_delta, const int32_t *ids, size_t count, const nb_patches *media,
                       int media_count, const nb_config *config, nb_error *err);

#endif
