/* data_row.c - walking the rows of several files, and what one row would cost: see data.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli/stop.h"
#include "tools/data.h"

void nb_data_row_free(nb_data_row *r)
{
    free(r->media);
    nb_rendered_free(&r->prompt);
    memset(r, 0, sizeof *r);
}

/* ---- media ------------------------------------------------------------------------------------------------------------- */

static nb_status visual_tokens(nb_data_media *m, const nb_data_job *job, const nb_part *part, nb_error *err)
{
    const nb_processor *p = &job->processor;
    int                 h = m->size.height, w = m->size.width, side = p->patch * p->merge;
    if (!h) return NB_OK;
    int64_t least = part->min_pixels ? part->min_pixels : job->limits.min_pixels ? job->limits.min_pixels : p->min_pixels;
    int64_t most = part->max_pixels ? part->max_pixels : job->limits.max_pixels;
    if (part->resized_height && part->resized_width) h = (int)part->resized_height, w = (int)part->resized_width;
    int natural_h = 0, natural_w = 0;
    NB_TRY(nb_smart_resize(h, w, side, 1, INT64_MAX, &natural_h, &natural_w, err));
    m->natural = (int64_t)natural_h * natural_w;
    NB_TRY(nb_smart_resize(h, w, side, least, most, &h, &w, err));
    size_t pairs = m->frames ? ((size_t)m->frames + (size_t)p->temporal - 1) / (size_t)p->temporal : 1;
    m->tokens = pairs * (size_t)(h / side) * (size_t)(w / side);
    return NB_OK;
}

/* A video file does not say how many of its frames the rule takes until it is read. */
static nb_status look_at_video(nb_data_media *m, const nb_data_job *job, const nb_media_options *media, const nb_part *part,
                               nb_error *err)
{
    const nb_processor *p = &job->processor;
    nb_video            video;
    int                 side = p->patch * p->merge, h, w;
    nb_video_limits     limits = nb_prompt_video_limits(part, &job->limits, p);
    NB_TRY(nb_video_read(&video, part->frames[0], media, &limits, err));
    m->frames = video.count;
    m->size = (nb_picture){.width = video.width, .height = video.height, .decoded = true};
    nb_status status = nb_smart_resize(video.height, video.width, side, 1, INT64_MAX, &h, &w, err);
    m->natural = (int64_t)h * w;
    if (!status) status = nb_smart_resize(video.frames[0].height, video.frames[0].width, side, p->min_pixels, p->max_pixels, &h, &w, err);
    m->tokens = ((size_t)m->frames + (size_t)p->temporal - 1) / (size_t)p->temporal * (size_t)(h / side) * (size_t)(w / side);
    nb_video_free(&video);
    return status;
}

/* Every frame of a video is looked at; all are brought to the size of the first. */
static nb_status look_at(nb_data_media *m, const nb_data_job *job, const nb_media_options *media, const nb_part *part,
                         nb_error *err)
{
    bool video = part->kind == NB_PART_VIDEO;
    if (video && part->is_file) return look_at_video(m, job, media, part, err);
    if (video && part->frame_count < 1) return nb_fail(err, NB_ERR_INPUT, "a video without frames");
    if (!video && !part->text)
        return nb_fail(err, NB_ERR_INPUT, "a picture without a source: give its path or URL in \"image\" or \"image_url\"");
    m->frames = part->frame_count;
    if (!video) NB_TRY(nb_picture_look(&m->size, part->text, media, job->deep, err));
    for (int i = 0; i < part->frame_count; i++) {
        nb_picture frame;
        NB_TRY(nb_picture_look(&frame, part->frames[i], media, job->deep, err));
        if (!i) m->size = frame;
    }
    return visual_tokens(m, job, part, err);
}

static nb_status measure_media(nb_data_row *out, const nb_data_job *job, const nb_chat *chat, const char *root, const char *where,
                               nb_error *err)
{
    nb_media_options media = job->media;
    if (!media.root) media.root = root;
    for (int i = 0; i < chat->count; i++)
        for (int j = 0; j < chat->messages[i].count; j++) {
            const nb_part *part = &chat->messages[i].parts[j];
            if (part->kind == NB_PART_TEXT) continue;
            NB_TRY(nb_grow(&out->media, &out->capacity, out->count + 1, sizeof *out->media, "pictures", err));
            nb_data_media *m = &out->media[out->count++];
            *m = (nb_data_media){.message = i, .part = j};
            nb_status status = look_at(m, job, &media, part, err);
            if (status) {
                nb_error_within(err, "messages[%d].content[%d]", i, j);
                return nb_error_within(err, "%s", where);
            }
            out->tokens[part->kind == NB_PART_IMAGE ? NB_TOKEN_IMAGE : NB_TOKEN_VIDEO] += m->tokens;
        }
    return NB_OK;
}

/* ---- text -------------------------------------------------------------------------------------------------------------- */

/* Pieces first .. last are tokenised as one run, as nb_prompt_build does; a token belongs to the answer in which it ends. */
static nb_status measure_run(nb_data_row *out, const nb_tokenizer *t, size_t first, size_t last, nb_ids *ids, nb_error *err)
{
    const nb_rendered *r = &out->prompt;
    size_t             begin = r->pieces[first].begin, end = r->pieces[last].end, at = begin, piece = first;
    bool               any = false;
    ids->count = 0;
    NB_TRY(nb_tokenizer_encode(t, r->text.data + begin, end - begin, false, ids, err));
    out->tokens[NB_TOKEN_TEXT] += ids->count;
    for (size_t i = first; i <= last; i++) any = any || r->pieces[i].answer;
    nb_buf bytes = {0};
    for (size_t i = 0; i < ids->count && any; i++) {
        nb_buf_clear(&bytes);
        nb_tokenizer_decode(t, &ids->data[i], 1, false, &bytes);
        at += bytes.size;
        while (piece < last && at > r->pieces[piece].end) piece++;
        out->answer += r->pieces[piece].answer;
    }
    nb_status status = nb_buf_status(&bytes, "tokens", err);
    nb_buf_free(&bytes);
    return status;
}

static nb_status measure_text(nb_data_row *out, const nb_tokenizer *t, nb_error *err)
{
    const nb_rendered *r = &out->prompt;
    nb_ids             ids = {0};
    nb_status          status = NB_OK;
    for (size_t i = 0; i < r->count && !status; i++) {
        if (r->pieces[i].kind == NB_PIECE_SPECIAL) {
            out->tokens[NB_TOKEN_TEXT]++;
            out->answer += r->pieces[i].answer;
        } else if (r->pieces[i].kind == NB_PIECE_TEXT) {
            size_t last = i;
            while (last + 1 < r->count && r->pieces[last + 1].kind == NB_PIECE_TEXT) last++;
            status = measure_run(out, t, i, last, &ids, err);
            i = last;
        }
    }
    nb_ids_free(&ids);
    return status;
}

nb_status nb_data_measure(nb_data_row *out, const nb_data_job *job, const nb_chat *chat, const char *root, const char *where,
                          nb_error *err)
{
    nb_template_options plain = {0};
    memset(out, 0, sizeof *out);
    nb_status status = nb_chat_render(&out->prompt, chat, &plain, err);
    if (!status && job->tokens) status = measure_media(out, job, chat, root, where, err);
    if (!status && job->tokens && job->tokenizer) status = measure_text(out, job->tokenizer, err);
    if (status) nb_data_row_free(out);
    out->failed = status != NB_OK;
    return status;
}

/* ---- the walk ---------------------------------------------------------------------------------------------------------- */

static bool is_bad_row(nb_status status)
{
    return status == NB_ERR_INPUT || status == NB_ERR_UNSUPPORTED;
}

static void next_file(nb_data_walk *w, nb_data_closing *closing, void *context)
{
    if (closing) closing(context, w);
    nb_dataset_close(w->data);
    w->data = NULL;
    w->lost = false;
    w->file++;
}

nb_status nb_data_next(nb_data_walk *w, nb_chat *chat, char where[256], bool *end, nb_data_closing *closing, void *context,
                       nb_error *err)
{
    memset(chat, 0, sizeof *chat);
    where[0] = 0;
    for (*end = false;; next_file(w, closing, context)) {
        NB_TRY(nb_stop_status(err));
        *end = w->file >= w->job->count;
        if (*end) return NB_OK;
        if (!w->data) NB_TRY(nb_dataset_open_source(&w->data, &w->job->sources[w->file], &w->job->dataset, err));
        bool rest = false;
        if (!w->lost) {
            nb_status status = nb_dataset_next(w->data, chat, where, &rest, err);
            if (is_bad_row(status)) w->lost = !nb_dataset_resume(w->data);
            if (status || !rest) return status;
        }
    }
}

void nb_data_walk_close(nb_data_walk *w)
{
    nb_dataset_close(w->data);
    w->data = NULL;
}

double nb_data_progress(const nb_data_walk *w)
{
    return w->data ? (double)nb_dataset_offset(w->data) : 0;
}
