/* media_rules.c - see media_rules.h. */
#include "tools/serve/media_rules.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static bool starts(const char *text, const char *with) { return !strncasecmp(text, with, strlen(with)); }

static bool check_reference(const char *reference, const nb_service_options *o, const char *where, nb_api_error *error)
{
    if (!reference || !*reference) return nb_api_fail(error, 400, where, "%s: a picture or video without a source", where);
    if (starts(reference, "data:")) return true;
    if (starts(reference, "http://") || starts(reference, "https://"))
        return !o->media.offline ||
               nb_api_fail(error, 400, where, "%s: this server fetches no URLs (offline); send the picture as a data: URL", where);
    if (!o->media.root)
        return nb_api_fail(error, 400, where, "%s: local files are not served; send the picture as a data: or http(s) URL, or start the server "
                           "with --allowed-local-media-path", where);
    if (!starts(reference, "file://"))
        return nb_api_fail(error, 400, where, "%s: local files are written as file:// URLs", where);
    return true;
}

/* Limits of a part: the server's maximum wins over everything. */
static void cap(nb_part *p, int64_t most)
{
    if (p->max_pixels > most) p->max_pixels = most;
    if (p->min_pixels > most) p->min_pixels = most;
    if (p->resized_height > 0 && p->resized_width > 0 && p->resized_height > most / p->resized_width) p->resized_height = p->resized_width = 0;
}

bool nb_media_rules_apply(nb_call_request *r, const nb_service_options *o, const nb_model *model, nb_api_error *error)
{
    int64_t most = o->limits.max_pixels ? o->limits.max_pixels : model->processor.max_pixels;
    r->images = r->videos = 0;
    for (int m = 0; m < r->chat.count; m++)
        for (int i = 0; i < r->chat.messages[m].count; i++) {
            nb_part *p = &r->chat.messages[m].parts[i];
            char     where[64];
            if (p->kind == NB_PART_TEXT) continue;
            snprintf(where, sizeof where, "messages[%d].content[%d]", m, i);
            cap(p, most);
            if (p->kind == NB_PART_IMAGE) {
                r->images++;
                if (!check_reference(p->text, o, where, error)) return false;
                continue;
            }
            r->videos++;
            for (int f = 0; f < p->frame_count; f++)
                if (!check_reference(p->frames[f], o, where, error)) return false;
        }
    if (r->images > o->max_images)
        return nb_api_fail(error, 400, "messages", "%d images in one request; at most %d are taken", r->images, o->max_images);
    if (r->videos > o->max_videos)
        return nb_api_fail(error, 400, "messages", "%d videos in one request; at most %d are taken", r->videos, o->max_videos);
    r->prompt.media = o->media;
    return true;
}
