/* prompt.c - a chat to token ids, positions and patches: render, tokenise, read the media, expand the pads. */
#include "runtime/model/prompt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void nb_prompt_free(nb_prompt *p)
{
    free(p->ids);
    free(p->position);
    free(p->modality);
    free(p->answer);
    for (int i = 0; i < p->media_count; i++) nb_patches_free(&p->media[i]);
    free(p->media);
    free(p->media_kind);
    memset(p, 0, sizeof *p);
}

/* ---- media ------------------------------------------------------------------------------------------------------------- */

static nb_status read_image(nb_image *out, const char *reference, const nb_prompt_options *o, nb_error *err)
{
    nb_buf bytes = { 0 };
    char   name[160];
    nb_media_name(name, reference);
    nb_status status = nb_media_read(&bytes, reference, &o->media, err);
    if (status == NB_OK) status = nb_image_decode(out, (const uint8_t *)bytes.data, bytes.size, name, NULL, err);
    nb_buf_free(&bytes);
    return status;
}

static nb_pixel_limits limits_of(const nb_part *part, const nb_pixel_limits *defaults)
{
    nb_pixel_limits l = *defaults;
    if (part->min_pixels) l.min_pixels = part->min_pixels;
    if (part->max_pixels) l.max_pixels = part->max_pixels;
    if (part->resized_height && part->resized_width) {
        l.resized_height = part->resized_height;
        l.resized_width = part->resized_width;
    }
    return l;
}

nb_video_limits nb_prompt_video_limits(const nb_part *part, const nb_pixel_limits *defaults, const nb_processor *processor)
{
    nb_pixel_limits l = limits_of(part, defaults);
    return (nb_video_limits){
        .sampling = {.fps = part->fps, .nframes = part->nframes, .min_frames = part->min_frames, .max_frames = part->max_frames},
        .min_pixels = l.min_pixels,
        .max_pixels = l.max_pixels,
        .total_pixels = part->total_pixels,
        .resized_height = l.resized_height,
        .resized_width = l.resized_width,
        .factor = processor->patch * processor->merge,
    };
}

/* The published reader brings frames to its own limits; then the processor applies its. */
static nb_status read_video(nb_patches *out, const nb_part *part, const nb_prompt_source *source, const nb_prompt_options *o,
                            nb_error *err)
{
    nb_video        video;
    nb_video_limits limits = nb_prompt_video_limits(part, &o->limits, source->processor);
    NB_TRY(nb_video_read(&video, part->frames[0], &o->media, &limits, err));
    nb_status status = nb_preprocess(out, video.frames, video.count, source->processor, NULL, err);
    if (status != NB_OK) {
        char name[160];
        nb_media_name(name, part->frames[0]);
        nb_error_within(err, "%s", name);
    }
    nb_video_free(&video);
    return status;
}

static nb_status read_media(nb_patches *out, const nb_part *part, const nb_prompt_source *source, const nb_prompt_options *o,
                            nb_error *err)
{
    bool video = part->kind == NB_PART_VIDEO;
    if (video && part->is_file) return read_video(out, part, source, o, err);
    if (!video && !part->text)
        return nb_fail(err, NB_ERR_INPUT, "a picture without a source: give its path or URL in \"image\" or \"image_url\"");
    int       count = video ? part->frame_count : 1;
    nb_image *frames = NULL;
    if (count < 1) return nb_fail(err, NB_ERR_INPUT, "a video without frames");
    NB_TRY(nb_alloc(&frames, (size_t)count, sizeof *frames, "video frames", err));
    nb_status status = NB_OK;
    for (int i = 0; i < count && status == NB_OK; i++)
        status = read_image(&frames[i], video ? part->frames[i] : part->text, o, err);
    nb_pixel_limits limits = limits_of(part, &o->limits);
    if (status == NB_OK) {
        status = nb_preprocess(out, frames, count, source->processor, &limits, err);
        if (status != NB_OK) { /* it sees pixels and no names */
            char name[160];
            nb_media_name(name, video ? part->frames[0] : part->text);
            nb_error_within(err, "%s", name);
        }
    }
    for (int i = 0; i < count; i++) nb_image_free(&frames[i]);
    free(frames);
    return status;
}

/* ---- tokens ------------------------------------------------------------------------------------------------------------ */

/* The growing token arrays; ids, modality and answer move together. */
typedef struct {
    nb_ids   ids;
    uint8_t *modality, *answer;
    size_t   modality_capacity, answer_capacity;
} tokens;

static nb_status mark(tokens *t, size_t from, nb_modality modality, bool answer, nb_error *err)
{
    NB_TRY(nb_grow(&t->modality, &t->modality_capacity, t->ids.count, 1, "tokens", err));
    NB_TRY(nb_grow(&t->answer, &t->answer_capacity, t->ids.count, 1, "tokens", err));
    for (size_t i = from; i < t->ids.count; i++) {
        t->modality[i] = (uint8_t)modality;
        t->answer[i] = answer;
    }
    return NB_OK;
}

static nb_status push_pads(tokens *t, int32_t pad, size_t n, nb_modality modality, nb_error *err)
{
    size_t from = t->ids.count;
    for (size_t i = 0; i < n; i++) NB_TRY(nb_ids_push(&t->ids, pad, err));
    return mark(t, from, modality, false, err);
}

/* Text pieces that follow one another are tokenised as one run, as the whole string would be; where an answer begins inside
 * a run, its first token is the first that ends after the border. */
static nb_status push_text(tokens *t, const nb_prompt_source *s, const nb_rendered *r, size_t first, size_t last, bool parse_special,
                           nb_error *err)
{
    const char *text = r->text.data;
    size_t      begin = r->pieces[first].begin, end = r->pieces[last].end, from = t->ids.count;
    NB_TRY(nb_tokenizer_encode(s->tokenizer, text + begin, end - begin, parse_special, &t->ids, err));
    NB_TRY(mark(t, from, NB_TOKEN_TEXT, false, err));
    bool any = false;
    for (size_t i = first; i <= last; i++) any = any || r->pieces[i].answer;
    if (!any) return NB_OK;
    nb_buf bytes = { 0 };
    size_t at = begin, piece = first;
    for (size_t i = from; i < t->ids.count; i++) {
        nb_buf_clear(&bytes);
        nb_tokenizer_decode(s->tokenizer, &t->ids.data[i], 1, false, &bytes);
        at += bytes.size;
        while (piece < last && at > r->pieces[piece].end) piece++;
        t->answer[i] = r->pieces[piece].answer;
    }
    nb_status status = nb_buf_status(&bytes, "tokens", err);
    nb_buf_free(&bytes);
    return status;
}

typedef struct {
    const nb_chat           *chat;
    const nb_prompt_source  *source;
    const nb_prompt_options *options;
    nb_rendered              rendered;
    tokens                   t;
    nb_prompt               *out;
} build;

static nb_status push_special(build *b, const nb_piece *p, nb_error *err)
{
    char   name[64];
    size_t n = p->end - p->begin;
    if (n >= sizeof name) return nb_fail(err, NB_ERR_INPUT, "a control token of %zu bytes", n);
    memcpy(name, b->rendered.text.data + p->begin, n);
    name[n] = 0;
    int32_t id = nb_tokenizer_special(b->source->tokenizer, name);
    if (id < 0) return nb_fail(err, NB_ERR_INPUT, "the tokenizer has no token '%s', which the chat template needs", name);
    if (id >= b->source->config->vocab)
        return nb_fail(err, NB_ERR_INPUT, "token '%s' has id %d, the model's vocabulary ends at %d", name, id, b->source->config->vocab);
    size_t from = b->t.ids.count;
    NB_TRY(nb_ids_push(&b->t.ids, id, err));
    return mark(&b->t, from, NB_TOKEN_TEXT, p->answer, err);
}

static nb_status push_media(build *b, const nb_piece *p, nb_error *err)
{
    const nb_part   *part = &b->chat->messages[p->message].parts[p->part];
    const nb_config *c = b->source->config;
    nb_patches      *m = &b->out->media[b->out->media_count];
    nb_modality      kind = p->kind == NB_PIECE_IMAGE ? NB_TOKEN_IMAGE : NB_TOKEN_VIDEO;
    nb_status        status = read_media(m, part, b->source, b->options, err);
    if (status != NB_OK) return nb_error_within(err, "messages[%d].content[%d]", p->message, p->part);
    b->out->media_kind[b->out->media_count++] = (uint8_t)kind;
    size_t pads = (size_t)m->t * m->h * m->w / ((size_t)c->v_merge * c->v_merge);
    return push_pads(&b->t, kind == NB_TOKEN_IMAGE ? c->image_pad : c->video_pad, pads, kind, err);
}

static nb_status check_ids(const nb_ids *ids, const nb_config *c, nb_error *err)
{
    for (size_t i = 0; i < ids->count; i++)
        if (ids->data[i] < 0 || ids->data[i] >= c->vocab)
            return nb_fail(err, NB_ERR_INPUT, "the tokenizer gives id %d, the model's vocabulary ends at %d", ids->data[i], c->vocab);
    return NB_OK;
}

static nb_status build_prompt(build *b, nb_error *err)
{
    nb_rendered *r = &b->rendered;
    NB_TRY(nb_chat_render(r, b->chat, &b->options->template_options, err));
    size_t media = 0;
    for (size_t i = 0; i < r->count; i++) media += r->pieces[i].kind == NB_PIECE_IMAGE || r->pieces[i].kind == NB_PIECE_VIDEO;
    NB_TRY(nb_alloc(&b->out->media, media, sizeof *b->out->media, "pictures", err));
    NB_TRY(nb_alloc(&b->out->media_kind, media, 1, "pictures", err));
    for (size_t i = 0; i < r->count; i++) {
        if (r->pieces[i].kind == NB_PIECE_SPECIAL) {
            NB_TRY(push_special(b, &r->pieces[i], err));
        } else if (r->pieces[i].kind == NB_PIECE_TEXT) {
            size_t last = i;
            while (last + 1 < r->count && r->pieces[last + 1].kind == NB_PIECE_TEXT) last++;
            NB_TRY(push_text(&b->t, b->source, r, i, last, b->options->parse_special, err));
            i = last;
        } else {
            NB_TRY(push_media(b, &r->pieces[i], err));
        }
    }
    return check_ids(&b->t.ids, b->source->config, err);
}

/* Move the token arrays into the prompt and compute its positions. */
static nb_status finish_prompt(nb_prompt *out, tokens *t, const nb_config *config, nb_error *err)
{
    out->ids = t->ids.data;
    out->count = t->ids.count;
    out->modality = t->modality;
    out->answer = t->answer;
    memset(t, 0, sizeof *t);
    if (out->count == 0) return nb_fail(err, NB_ERR_INPUT, "an empty prompt");
    if (out->count > INT32_MAX / 4) return nb_fail(err, NB_ERR_BUDGET, "a prompt of %zu tokens", out->count);
    NB_TRY(nb_alloc(&out->position, 3 * out->count, sizeof *out->position, "positions", err));
    return nb_positions(out->position, &out->rope_delta, out->ids, out->count, out->media, out->media_count, config, err);
}

static void tokens_free(tokens *t)
{
    nb_ids_free(&t->ids);
    free(t->modality);
    free(t->answer);
}

nb_status nb_prompt_build(nb_prompt *out, const nb_chat *chat, const nb_prompt_source *source, const nb_prompt_options *options,
                          nb_error *err)
{
    build b = { .chat = chat, .source = source, .options = options, .out = out };
    memset(out, 0, sizeof *out);
    nb_status status = build_prompt(&b, err);
    if (status == NB_OK) status = finish_prompt(out, &b.t, source->config, err);
    nb_rendered_free(&b.rendered);
    tokens_free(&b.t);
    if (status != NB_OK) {
        if (options->where) nb_error_within(err, "%s", options->where);
        nb_prompt_free(out);
    }
    return status;
}

nb_status nb_prompt_from_ids(nb_prompt *out, const int32_t *ids, size_t count, const nb_config *config, nb_error *err)
{
    tokens t = { 0 };
    memset(out, 0, sizeof *out);
    nb_status status = NB_OK;
    for (size_t i = 0; i < count && status == NB_OK; i++) status = nb_ids_push(&t.ids, ids[i], err);
    if (status == NB_OK) status = mark(&t, 0, NB_TOKEN_TEXT, false, err);
    if (status == NB_OK) status = check_ids(&t.ids, config, err);
    if (status == NB_OK) status = finish_prompt(out, &t, config, err);
    tokens_free(&t);
    if (status != NB_OK) nb_prompt_free(out);
    return status;
}
