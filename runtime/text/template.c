/* template.c - the published Qwen2-VL chat template, written out.
 *
 *     first message not of the role system:  <|im_start|>system\nYou are a helpful assistant.<|im_end|>\n
 *     each message:                          <|im_start|>ROLE\nCONTENT<|im_end|>\n
 *     a picture, a video in CONTENT:         [Picture N: ]<|vision_start|><|image_pad|><|vision_end|>   (Video N:, video_pad)
 *     asked to go on:                        <|im_start|>assistant\n
 *
 * N counts through the whole conversation, whatever the role.  Nothing is trimmed, escaped or put between parts.
 *
 * That template knows no tools.  Tools are told to the model in its system message, and what they returned comes back as a
 * user turn, in the Hermes form that Qwen models are trained with.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/text/chat.h"

static const char default_system[] = "You are a helpful assistant.";

static const char tools_before[] = "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
                                   "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n";
static const char tools_after[] = "</tools>\n\nFor each function call, return a json object with function name and arguments "
                                  "within <tool_call></tool_call> XML tags:\n<tool_call>\n"
                                  "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>";

typedef struct {
    nb_rendered                *out;
    const nb_template_options *options;
    nb_error                   *err;
    nb_status                   status; /* after a failure further pieces are dropped */
    int                         message, part;
    bool                        answer;
    int                         images, videos; /* so far */
} renderer;

static void add_piece(renderer *r, nb_piece_kind kind, const char *text)
{
    nb_rendered *o = r->out;
    size_t       begin = o->text.size, n = strlen(text);
    if (r->status != NB_OK || (kind == NB_PIECE_TEXT && n == 0)) return;
    if (o->count == o->capacity)
        r->status = nb_grow(&o->pieces, &o->capacity, o->count + 1, sizeof *o->pieces, "prompt", r->err);
    if (r->status != NB_OK) return;
    nb_buf_add(&o->text, text, n);
    o->pieces[o->count++] = (nb_piece){kind, begin, begin + n, r->message, r->part, r->answer};
}

static void add_media(renderer *r, bool video)
{
    char label[32];
    int  number = video ? ++r->videos : ++r->images;
    snprintf(label, sizeof label, "%s %d: ", video ? "Video" : "Picture", number);
    if (r->options->add_vision_id) add_piece(r, NB_PIECE_TEXT, label);
    add_piece(r, NB_PIECE_SPECIAL, "<|vision_start|>");
    add_piece(r, video ? NB_PIECE_VIDEO : NB_PIECE_IMAGE, "");
    add_piece(r, NB_PIECE_SPECIAL, "<|vision_end|>");
}

static void add_content(renderer *r, const nb_message *m)
{
    for (r->part = 0; r->part < m->count; r->part++) {
        const nb_part *p = &m->parts[r->part];
        if (p->kind == NB_PART_TEXT)
            add_piece(r, NB_PIECE_TEXT, p->text);
        else
            add_media(r, p->kind == NB_PART_VIDEO);
    }
    r->part = -1;
}

static void begin_turn(renderer *r, const char *role)
{
    add_piece(r, NB_PIECE_SPECIAL, "<|im_start|>");
    add_piece(r, NB_PIECE_TEXT, role);
    add_piece(r, NB_PIECE_TEXT, "\n");
}

static void end_turn(renderer *r)
{
    add_piece(r, NB_PIECE_SPECIAL, "<|im_end|>");
    r->answer = false;
    r->message = -1;
    add_piece(r, NB_PIECE_TEXT, "\n");
}

/* One tool a line, in its own key order. */
static void add_tools(renderer *r, const char *tools)
{
    cJSON *list = NULL;
    if (r->status == NB_OK) r->status = nb_json_parse(&list, tools, strlen(tools), "tools", r->err);
    if (r->status != NB_OK) return;
    const cJSON *tool;
    nb_buf       text = {0};
    nb_buf_str(&text, tools_before);
    cJSON_ArrayForEach(tool, list)
    {
        nb_json_print(&text, tool, NB_JSON_SPACED);
        nb_buf_char(&text, '\n');
    }
    nb_buf_str(&text, tools_after);
    r->status = nb_buf_status(&text, "tools", r->err);
    if (r->status == NB_OK) add_piece(r, NB_PIECE_TEXT, text.data);
    nb_buf_free(&text);
    cJSON_Delete(list);
}

static bool has_role(const nb_chat *chat, int message, const char *role)
{
    return message >= 0 && message < chat->count && strcmp(chat->messages[message].role, role) == 0;
}

/* What tools returned: one user turn for all results that follow one another. */
static void add_tool_results(renderer *r, const nb_chat *chat, int message)
{
    if (!has_role(chat, message - 1, "tool")) {
        begin_turn(r, "user");
    } else {
        add_piece(r, NB_PIECE_TEXT, "\n");
    }
    add_piece(r, NB_PIECE_TEXT, "<tool_response>\n");
    add_content(r, &chat->messages[message]);
    add_piece(r, NB_PIECE_TEXT, "\n</tool_response>");
    if (!has_role(chat, message + 1, "tool")) end_turn(r);
}

static void add_message(renderer *r, const nb_chat *chat, int message)
{
    const nb_message *m = &chat->messages[message];
    r->message = message;
    if (strcmp(m->role, "tool") == 0) {
        add_tool_results(r, chat, message);
        return;
    }
    begin_turn(r, m->role);
    r->answer = strcmp(m->role, "assistant") == 0;
    add_content(r, m);
    if (message == 0 && chat->tools && strcmp(m->role, "system") == 0) add_tools(r, chat->tools);
    end_turn(r);
}

nb_status nb_chat_render(nb_rendered *out, const nb_chat *chat, const nb_template_options *options, nb_error *err)
{
    renderer r = {.out = out, .options = options, .err = err, .status = NB_OK, .message = -1, .part = -1};
    *out = (nb_rendered){0};
    if (!has_role(chat, 0, "system")) {
        begin_turn(&r, "system");
        add_piece(&r, NB_PIECE_TEXT, default_system);
        if (chat->tools) add_tools(&r, chat->tools);
        end_turn(&r);
    }
    for (int i = 0; i < chat->count; i++) add_message(&r, chat, i);
    r.message = -1;
    if (options->add_generation_prompt) begin_turn(&r, "assistant");
    if (r.status == NB_OK) r.status = nb_buf_status(&out->text, "prompt", err);
    if (r.status != NB_OK) nb_rendered_free(out);
    return r.status;
}

void nb_rendered_free(nb_rendered *r)
{
    nb_buf_free(&r->text);
    free(r->pieces);
    *r = (nb_rendered){0};
}

void nb_rendered_string(const nb_rendered *r, nb_buf *out)
{
    for (size_t i = 0; i < r->count; i++) {
        const nb_piece *p = &r->pieces[i];
        if (p->kind == NB_PIECE_IMAGE || p->kind == NB_PIECE_VIDEO)
            nb_buf_str(out, p->kind == NB_PIECE_IMAGE ? "<|image_pad|>" : "<|video_pad|>");
        else
            nb_buf_add(out, r->text.data + p->begin, p->end - p->begin);
    }
}
