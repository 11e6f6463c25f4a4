/* chat.h - a conversation, and the published Qwen2-VL chat template.
 *
 * A chat is read from OpenAI-style messages in all spellings people use.  Rendering gives runs of plain text and control
 * tokens kept apart: control tokens come from the template alone, never out of somebody's text.
 */
#ifndef NB_CHAT_H
#define NB_CHAT_H

#include "runtime/io/json.h"
#include "runtime/text/tokenizer.h"

typedef enum { NB_PART_TEXT, NB_PART_IMAGE, NB_PART_VIDEO } nb_part_kind;

typedef struct {
    nb_part_kind kind;
    char        *text;    /* TEXT: the text.  IMAGE: the reference (path, file://, http(s)://, data:), or NULL: not named. */
    char       **frames;  /* VIDEO: references of its frames, or one reference to a video file; none: not named */
    int          frame_count;
    bool         is_file; /* VIDEO: frames[0] is a video file, not a list of pictures */
    int64_t      min_pixels, max_pixels, resized_height, resized_width; /* 0: not given */
    double       fps; /* VIDEO, when it is a file: how frames are taken, as in qwen-vl-utils; 0: not given */
    int64_t      nframes, min_frames, max_frames, total_pixels;
} nb_part;

typedef struct {
    char    *role;
    nb_part *parts;
    int      count;
} nb_message;

typedef struct {
    nb_message *messages;
    int         count;
    char       *tools; /* JSON array text of the tools, or NULL */
} nb_chat;

void nb_chat_free(nb_chat *chat); /* zeroes it */

/* messages: array of {role, content: string | parts | null, tool_calls?, tool_call_id?}; parts {type: text|image|image_url|
 * video|...} with or without type, image_url as string or {url}, pixel limits beside or inside; a video's fps or nframes (not both), min_frames, max_frames and total_pixels likewise.  tools: array or NULL.
 * A null member counts as missing.  Content that is null is refused, unless there are tool calls; missing content is empty.
 * Every refusal names the JSON path ("messages[2].content[0].image_url").  where: file and line for messages, or NULL.
 * Assistant tool_calls are rendered as <tool_call> blocks, role "tool" as a user turn with <tool_response>. */
nb_status nb_chat_from_json(nb_chat *out, const cJSON *messages, const cJSON *tools, const char *where, nb_error *err);
/* Append a plain text message (used by run, chat, readers). */
nb_status nb_chat_add_text(nb_chat *chat, const char *role, const char *text, nb_error *err);
nb_status nb_chat_add_part(nb_message *m, const nb_part *part, nb_error *err); /* copies */
nb_status nb_chat_add_message(nb_chat *chat, const char *role, nb_message **out, nb_error *err);

/* Rendered prompt: a list of pieces in order. */
typedef enum { NB_PIECE_TEXT, NB_PIECE_SPECIAL, NB_PIECE_IMAGE, NB_PIECE_VIDEO } nb_piece_kind;
typedef struct {
    nb_piece_kind kind;
    size_t        begin, end; /* TEXT, SPECIAL: bytes of nb_rendered.text */
    int           message, part; /* which message and part it came from; -1: the template */
    bool          answer;     /* inside an assistant message's content, or the <|im_end|> that ends it */
} nb_piece;
typedef struct {
    nb_buf    text;
    nb_piece *pieces;
    size_t    count, capacity;
} nb_rendered;
void nb_rendered_free(nb_rendered *r);

typedef struct {
    bool add_generation_prompt;
    bool add_vision_id;
} nb_template_options;
nb_status nb_chat_render(nb_rendered *out, const nb_chat *chat, const nb_template_options *options, nb_error *err);
/* Append a note when the checkpoint in `directory` has a chat template other than the published one, which is what
 * nb_chat_render renders. */
nb_status nb_template_check(const char *directory, nb_buf *notes, nb_error *err);
/* The whole prompt as one string, one pad token text per picture or video (for tests, inspect and logs). */
void nb_rendered_string(const nb_rendered *r, nb_buf *out);

#endif
