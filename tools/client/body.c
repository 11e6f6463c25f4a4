/* body.c - see body.h. */
#include "tools/client/body.h"

#include <string.h>

#include "tools/cli/output.h"

/* Servers want to know what kind of picture base64 holds; "data:image;base64,..." leaves it open. */
static const char *picture_type(const char *base64)
{
    static const struct {
        const char *begins, *type;
    } known[] = { { "iVBOR", "image/png" }, { "/9j/", "image/jpeg" }, { "R0lG", "image/gif" }, { "UklGR", "image/webp" }, { "Qk", "image/bmp" } };
    for (size_t i = 0; i < NB_COUNT(known); i++)
        if (!strncmp(base64, known[i].begins, strlen(known[i].begins))) return known[i].type;
    return "image/png";
}

static nb_status emit_picture(nb_emit *e, const char *url, nb_error *err)
{
    static const char open_type[] = "data:image;base64,";
    nb_buf typed = { 0 };
    if (!strncmp(url, open_type, strlen(open_type))) {
        nb_buf_printf(&typed, "data:%s;base64,", picture_type(url + strlen(open_type)));
        nb_buf_str(&typed, url + strlen(open_type));
    } else {
        nb_buf_str(&typed, url);
    }
    nb_status status = nb_buf_status(&typed, "a picture", err);
    nb_emit_open(e, "image_url", '{');
    nb_emit_string(e, "url", typed.data);
    nb_emit_close(e);
    nb_buf_free(&typed);
    return status;
}

static nb_status emit_message(nb_emit *e, const nb_message *m, nb_error *err)
{
    nb_emit_open(e, NULL, '{');
    nb_emit_string(e, "role", m->role);
    nb_emit_open(e, "content", '[');
    for (int i = 0; i < m->count; i++) {
        const nb_part *p = &m->parts[i];
        if (p->kind != NB_PART_TEXT && p->kind != NB_PART_IMAGE)
            return nb_fail(err, NB_ERR_UNSUPPORTED, "only texts and pictures are sent to a server");
        nb_emit_open(e, NULL, '{');
        nb_emit_string(e, "type", p->kind == NB_PART_TEXT ? "text" : "image_url");
        if (p->kind == NB_PART_TEXT) nb_emit_string(e, "text", p->text);
        else NB_TRY(emit_picture(e, p->text, err));
        nb_emit_close(e);
    }
    nb_emit_close(e);
    nb_emit_close(e);
    return NB_OK;
}

nb_status nb_api_chat_body(nb_buf *out, const nb_chat *chat, const nb_api_ask *ask, nb_error *err)
{
    nb_emit e = nb_emit_start(out, false);
    nb_emit_open(&e, NULL, '{');
    nb_emit_string(&e, "model", ask->model);
    nb_emit_int(&e, "max_tokens", ask->max_tokens);
    nb_emit_int(&e, "temperature", 0);
    if (ask->min_pixels || ask->max_pixels) {
        nb_emit_open(&e, "mm_processor_kwargs", '{');
        if (ask->min_pixels) nb_emit_int(&e, "min_pixels", ask->min_pixels);
        if (ask->max_pixels) nb_emit_int(&e, "max_pixels", ask->max_pixels);
        nb_emit_close(&e);
    }
    nb_emit_open(&e, "messages", '[');
    for (int i = 0; i < chat->count; i++) NB_TRY(emit_message(&e, &chat->messages[i], err));
    nb_emit_close(&e);
    nb_emit_close(&e);
    return nb_buf_status(out, "a call", err);
}
