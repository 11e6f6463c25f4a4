/* data_show.c - `nibble data show`: the prompts that a data set becomes, as the model reads them.
 *
 * The pads of a picture, hundreds of the same token, are shown as one with their number and the picture's size.  What the
 * file says is printed as it is, but for control characters, which could drive a terminal.
 */
#include <stdio.h>
#include <string.h>

#include "tools/cli/output.h"
#include "tools/data.h"

/* Text with every control character but tab and line break shown as '?'. */
static void add_text(nb_buf *out, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        bool          c1 = c == 0xc2 && i + 1 < n && (unsigned char)text[i + 1] < 0xa0; /* U+0080 .. U+009F */
        if (c1) i++;
        nb_buf_char(out, c1 || (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f ? '?' : text[i]);
    }
}

static void add_media(nb_buf *out, const nb_chat *chat, const nb_data_row *row, const nb_piece *piece)
{
    const nb_part *part = &chat->messages[piece->message].parts[piece->part];
    const char    *pad = piece->kind == NB_PIECE_IMAGE ? "<|image_pad|>" : "<|video_pad|>";
    const char    *reference = part->kind == NB_PART_IMAGE ? part->text : part->frame_count ? part->frames[0] : NULL;
    char           name[160] = "no source";
    if (reference) nb_media_name(name, reference);
    nb_buf_str(out, pad);
    for (size_t i = 0; i < row->count; i++) {
        const nb_data_media *m = &row->media[i];
        if (m->message == piece->message && m->part == piece->part && m->tokens) nb_buf_printf(out, " x %zu", m->tokens);
    }
    nb_buf_str(out, " (");
    if (part->frame_count) nb_buf_printf(out, "%d frames, ", part->frame_count);
    add_text(out, name, strlen(name));
    for (size_t i = 0; i < row->count; i++) {
        const nb_data_media *m = &row->media[i];
        if (m->message == piece->message && m->part == piece->part && m->size.height)
            nb_buf_printf(out, ", %d x %d", m->size.width, m->size.height);
    }
    nb_buf_str(out, ")");
}

static void add_prompt(nb_buf *out, const nb_chat *chat, const nb_data_row *row)
{
    for (size_t i = 0; i < row->prompt.count; i++) {
        const nb_piece *p = &row->prompt.pieces[i];
        if (p->kind == NB_PIECE_IMAGE || p->kind == NB_PIECE_VIDEO)
            add_media(out, chat, row, p);
        else
            add_text(out, row->prompt.text.data + p->begin, p->end - p->begin);
    }
}

/* Not inside a UTF-8 character. */
static void cut(nb_buf *text, size_t most)
{
    size_t n = text->size;
    if (!most || n <= most) return;
    while (most > 0 && ((unsigned char)text->data[most] & 0xc0) == 0x80) most--;
    text->size = most;
    nb_buf_printf(text, " ... (%zu more bytes)", n - most);
}

void nb_data_show_row(nb_buf *out, const nb_data_job *job, const nb_chat *chat, const nb_data_row *row, const char *where, size_t most)
{
    nb_buf prompt = {0};
    add_prompt(&prompt, chat, row);
    cut(&prompt, most);
    size_t visual = row->tokens[NB_TOKEN_IMAGE] + row->tokens[NB_TOKEN_VIDEO];
    if (nb_json_wanted()) {
        nb_emit e = nb_emit_start(out, false);
        nb_emit_open(&e, NULL, '{');
        nb_emit_string(&e, "where", where);
        nb_emit_bytes(&e, "prompt", prompt.data ? prompt.data : "", prompt.size);
        if (job->tokens) nb_emit_int(&e, "visual_tokens", (int64_t)visual);
        if (job->tokens && job->tokenizer) nb_emit_int(&e, "text_tokens", (int64_t)row->tokens[NB_TOKEN_TEXT]);
        if (job->tokens && job->tokenizer) nb_emit_int(&e, "answer_tokens", (int64_t)row->answer);
        nb_emit_close(&e);
    } else {
        nb_buf_printf(out, "== %s", where);
        if (job->tokens && job->tokenizer)
            nb_buf_printf(out, ": %zu tokens of text (%zu of answers)", row->tokens[NB_TOKEN_TEXT], row->answer);
        if (job->tokens && visual) nb_buf_printf(out, "%s %zu of pictures", job->tokenizer ? "," : ":", visual);
        nb_buf_str(out, "\n");
        nb_buf_add(out, prompt.data, prompt.size);
        nb_buf_str(out, "\n");
    }
    if (prompt.failed) out->failed = true;
    nb_buf_free(&prompt);
}

nb_status nb_data_show(const nb_data_job *job, nb_error *err)
{
    nb_data_walk walk = {.job = job};
    nb_status    status = NB_OK;
    for (int64_t i = 0; !status && i < job->skip + job->rows; i++) {
        nb_chat     chat;
        nb_data_row row = {0};
        nb_buf      out = {0};
        char        where[256];
        bool        end;
        status = nb_data_next(&walk, &chat, where, &end, NULL, NULL, err);
        if (status || end) break;
        if (i >= job->skip) status = nb_data_measure(&row, job, &chat, nb_dataset_root(walk.data), where, err);
        if (!status && i == job->skip)
            nb_note("%s: read as %s", job->sources[walk.file].path, nb_data_form_name(nb_dataset_form(walk.data)));
        if (!status && i >= job->skip) nb_data_show_row(&out, job, &chat, &row, where, 0);
        if (!status && out.size) status = nb_print(&out, err);
        nb_buf_free(&out);
        nb_data_row_free(&row);
        nb_chat_free(&chat);
    }
    nb_data_walk_close(&walk);
    return status;
}
