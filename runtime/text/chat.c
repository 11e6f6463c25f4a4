/* chat.c - messages from JSON, in every spelling people use, and building them by hand.
 *
 * Nothing is dropped in silence: a part that the template would print as nothing, or a value of the wrong type, is refused
 * with its JSON path.  A null member counts as missing, since data-set libraries fill absent columns with null.  What a
 * reference points to is not looked at here.
 */
#include "runtime/text/chat.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void part_free(nb_part *p)
{
    free(p->text);
    for (int i = 0; i < p->frame_count; i++) free(p->frames[i]);
    free(p->frames);
    *p = (nb_part){0};
}

void nb_chat_free(nb_chat *chat)
{
    for (int i = 0; i < chat->count; i++) {
        nb_message *m = &chat->messages[i];
        for (int k = 0; k < m->count; k++) part_free(&m->parts[k]);
        free(m->parts);
        free(m->role);
    }
    free(chat->messages);
    free(chat->tools);
    *chat = (nb_chat){0};
}

static nb_status no_memory(nb_error *err)
{
    return nb_fail(err, NB_ERR_MEMORY, "out of memory for a conversation");
}

/* Room for one more at the end of *array.  Nobody stores its capacity: it is the next power of two, so it is full when the
 * count is one. */
static nb_status one_more(void *array_pointer, int count, size_t size, nb_error *err)
{
    size_t capacity = (size_t)count;
    if (count == INT32_MAX) return no_memory(err);
    if (count & (count - 1)) return NB_OK;
    return nb_grow(array_pointer, &capacity, count ? 2 * capacity : 1, size, "conversation", err);
}

nb_status nb_chat_add_message(nb_chat *chat, const char *role, nb_message **out, nb_error *err)
{
    NB_TRY(one_more(&chat->messages, chat->count, sizeof *chat->messages, err));
    nb_message *m = &chat->messages[chat->count];
    *m = (nb_message){.role = nb_strdup(role)};
    if (!m->role) return no_memory(err);
    chat->count++;
    *out = m;
    return NB_OK;
}

static nb_status copy_part(nb_part *to, const nb_part *from, nb_error *err)
{
    to->text = nb_strdup(from->text);
    if (from->text && !to->text) return no_memory(err);
    if (from->frame_count) NB_TRY(nb_alloc(&to->frames, (size_t)from->frame_count, sizeof *to->frames, "conversation", err));
    for (; to->frame_count < from->frame_count; to->frame_count++)
        if (!(to->frames[to->frame_count] = nb_strdup(from->frames[to->frame_count]))) return no_memory(err);
    return NB_OK;
}

nb_status nb_chat_add_part(nb_message *m, const nb_part *part, nb_error *err)
{
    nb_part copy = *part;
    copy.text = NULL;
    copy.frames = NULL;
    copy.frame_count = 0;
    nb_status status = one_more(&m->parts, m->count, sizeof *m->parts, err);
    if (status == NB_OK) status = copy_part(&copy, part, err);
    if (status != NB_OK)
        part_free(&copy);
    else
        m->parts[m->count++] = copy;
    return status;
}

static nb_status add_text_part(nb_message *m, const char *text, nb_error *err)
{
    nb_part part = {.kind = NB_PART_TEXT, .text = (char *)text};
    return nb_chat_add_part(m, &part, err);
}

nb_status nb_chat_add_text(nb_chat *chat, const char *role, const char *text, nb_error *err)
{
    nb_message *m;
    NB_TRY(nb_chat_add_message(chat, role, &m, err));
    return add_text_part(m, text, err);
}

/* ---- from JSON.  where: the place so far, as "chat.jsonl line 3: messages[2].content[0]" */

typedef struct {
    char text[512];
} place;

static place at(const place *parent, const char *format, ...) __attribute__((format(printf, 2, 3)));
static place at(const place *parent, const char *format, ...)
{
    place   p = *parent;
    size_t  n = strlen(p.text);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(p.text + n, sizeof p.text - n, format, arguments);
    va_end(arguments);
    return p;
}

/* "FILE" in front of the path, when the caller has one. */
static place start(const char *where, const char *what)
{
    place p;
    snprintf(p.text, sizeof p.text, "%.300s%s%s", where ? where : "", where ? ": " : "", what);
    return p;
}

/* How frames are taken from a video file. */
static nb_status sampling(nb_part *part, const cJSON *object, const place *where, nb_error *err)
{
    const struct {
        const char *key;
        int64_t     max, *value;
    } counts[] = {{"nframes", 4096, &part->nframes}, {"min_frames", 4096, &part->min_frames},
                  {"max_frames", 4096, &part->max_frames}, {"total_pixels", INT64_C(1) << 40, &part->total_pixels}};
    for (size_t i = 0; i < NB_COUNT(counts); i++)
        NB_TRY(nb_json_opt_int(object, counts[i].key, 1, counts[i].max, counts[i].value, where->text, err));
    NB_TRY(nb_json_opt_number(object, "fps", 1e-6, 1000, &part->fps, where->text, err));
    if (part->fps > 0 && part->nframes)
        return nb_fail(err, NB_ERR_INPUT, "%s has both 'fps' and 'nframes'; give one of them", where->text);
    return NB_OK;
}

static nb_status pixel_limits(nb_part *part, const cJSON *object, const place *where, nb_error *err)
{
    const struct {
        const char *key;
        int64_t    *value;
    } limits[] = {{"min_pixels", &part->min_pixels}, {"max_pixels", &part->max_pixels},
                  {"resized_height", &part->resized_height}, {"resized_width", &part->resized_width}};
    for (size_t i = 0; i < NB_COUNT(limits); i++)
        NB_TRY(nb_json_opt_int(object, limits[i].key, 1, INT32_MAX, limits[i].value, where->text, err));
    return part->kind == NB_PART_VIDEO ? sampling(part, object, where, err) : NB_OK;
}

/* A reference: a string, or an object {url} that may hold pixel limits as well.  *reference stays NULL for NULL. */
static nb_status read_reference(const char **reference, nb_part *part, const cJSON *value, const place *where,
                                nb_error *err)
{
    if (!value) return NB_OK;
    if (cJSON_IsObject(value)) {
        NB_TRY(pixel_limits(part, value, where, err));
        return nb_json_get_string(value, "url", reference, where->text, err);
    }
    if (!cJSON_IsString(value))
        return nb_fail(err, NB_ERR_INPUT, "%s is neither a string (path, file://, http(s):// or data: URL) nor an object "
                                          "with 'url'", where->text);
    *reference = value->valuestring;
    return NB_OK;
}

/* Frames of a video as a list of pictures. */
static nb_status read_frames(nb_part *part, const cJSON *list, const char ***frames, const place *where, nb_error *err)
{
    const cJSON *item;
    int          n = cJSON_GetArraySize(list);
    if (n == 0) return nb_fail(err, NB_ERR_INPUT, "%s is a list without frames", where->text);
    NB_TRY(nb_alloc(frames, (size_t)n, sizeof **frames, "video frames", err));
    cJSON_ArrayForEach(item, list)
    {
        place here = at(where, "[%d]", part->frame_count);
        if (cJSON_IsNull(item)) return nb_fail(err, NB_ERR_INPUT, "%s is null", here.text);
        NB_TRY(read_reference(&(*frames)[part->frame_count], part, item, &here, err));
        part->frame_count++;
    }
    return NB_OK;
}

/* part points into the JSON here; nb_chat_add_part copies. */
static nb_status add_image(nb_message *m, const cJSON *object, const place *where, nb_error *err)
{
    const char  *key = nb_json_find(object, "image") ? "image" : "image_url", *reference = NULL;
    nb_part      part = {.kind = NB_PART_IMAGE};
    place        here = at(where, ".%s", key);
    NB_TRY(pixel_limits(&part, object, where, err));
    NB_TRY(read_reference(&reference, &part, nb_json_find(object, key), &here, err));
    part.text = (char *)reference;
    return nb_chat_add_part(m, &part, err);
}

static nb_status add_video(nb_message *m, const cJSON *object, const place *where, nb_error *err)
{
    const char  *key = nb_json_find(object, "video") ? "video" : "video_url", *file = NULL, **frames = NULL;
    const cJSON *value = nb_json_find(object, key);
    nb_part      part = {.kind = NB_PART_VIDEO};
    place        here = at(where, ".%s", key);
    NB_TRY(pixel_limits(&part, object, where, err));
    nb_status status;
    if (cJSON_IsArray(value)) {
        status = read_frames(&part, value, &frames, &here, err);
        part.frames = (char **)frames;
    } else {
        status = read_reference(&file, &part, value, &here, err);
        part.frames = (char **)&file;
        part.frame_count = file ? 1 : 0;
        part.is_file = file != NULL;
    }
    if (status == NB_OK) status = nb_chat_add_part(m, &part, err);
    free(frames);
    return status;
}

/* The template's rules in its order: a picture by type or key, then a video, then text. */
static nb_status add_part(nb_message *m, const cJSON *part, const place *where, nb_error *err)
{
    if (cJSON_IsString(part)) return add_text_part(m, part->valuestring, err);
    if (!cJSON_IsObject(part)) return nb_fail(err, NB_ERR_INPUT, "%s is neither an object nor a string", where->text);
    const char *type = "";
    NB_TRY(nb_json_opt_string(part, "type", &type, where->text, err));
    if (strcmp(type, "image") == 0 || nb_json_find(part, "image") || nb_json_find(part, "image_url"))
        return add_image(m, part, where, err);
    if (strcmp(type, "video") == 0 || nb_json_find(part, "video") || nb_json_find(part, "video_url"))
        return add_video(m, part, where, err);
    const char *text = NULL;
    NB_TRY(nb_json_opt_string(part, "text", &text, where->text, err));
    if (text) return add_text_part(m, text, err);
    return nb_fail(err, NB_ERR_INPUT, "%s (type '%.40s') has none of 'text', 'image', 'image_url' and 'video'", where->text,
                   type);
}

/* One call as {"name", "arguments"}, maybe inside "function"; the arguments as an object or as a string that holds JSON. */
static nb_status print_call(nb_buf *out, const cJSON *call, const place *where, nb_error *err)
{
    const cJSON *function = nb_json_find(call, "function");
    const char  *name;
    place        here = function ? at(where, ".function") : *where;
    if (!function) function = call;
    NB_TRY(nb_json_get_string(function, "name", &name, here.text, err));
    const cJSON *arguments = nb_json_find(function, "arguments");
    cJSON       *parsed = NULL;
    nb_buf_str(out, "<tool_call>\n{\"name\": ");
    nb_buf_json_string(out, name, strlen(name));
    nb_buf_str(out, ", \"arguments\": ");
    if (cJSON_IsString(arguments) && *arguments->valuestring) {
        nb_error ignored; /* what a model once wrote need not be JSON: then it is passed on as it is */
        if (nb_json_parse(&parsed, arguments->valuestring, strlen(arguments->valuestring), here.text, &ignored) == NB_OK)
            nb_json_print(out, parsed, NB_JSON_SPACED);
        else
            nb_buf_str(out, arguments->valuestring);
        cJSON_Delete(parsed);
    } else if (cJSON_IsObject(arguments)) {
        nb_json_print(out, arguments, NB_JSON_SPACED);
    } else if (!arguments || cJSON_IsString(arguments)) {
        nb_buf_str(out, "{}");
    } else {
        return nb_fail(err, NB_ERR_INPUT, "%s.arguments is neither an object nor a string", here.text);
    }
    nb_buf_str(out, "}\n</tool_call>");
    return NB_OK;
}

/* The calls as text at the end of the message, each on a line of its own. */
static nb_status add_calls(nb_message *m, const cJSON *calls, bool after_text, const place *where, nb_error *err)
{
    nb_buf       text = {0};
    nb_status    status = NB_OK;
    int          index = 0;
    const cJSON *call;
    cJSON_ArrayForEach(call, calls)
    {
        place here = at(where, ".tool_calls[%d]", index);
        if (after_text || index) nb_buf_char(&text, '\n');
        index++;
        if (status == NB_OK) status = print_call(&text, call, &here, err);
    }
    if (status == NB_OK) status = nb_buf_status(&text, "tool calls", err);
    if (status == NB_OK) status = add_text_part(m, text.data, err);
    nb_buf_free(&text);
    return status;
}

static nb_status add_message(nb_chat *chat, const cJSON *message, const place *where, nb_error *err)
{
    const char *role;
    nb_message *m;
    if (!cJSON_IsObject(message))
        return nb_fail(err, NB_ERR_INPUT, "%s is not an object with 'role' and 'content'", where->text);
    NB_TRY(nb_json_get_string(message, "role", &role, where->text, err));
    NB_TRY(nb_chat_add_message(chat, role, &m, err));

    const cJSON *calls = nb_json_find(message, "tool_calls"), *part;
    const cJSON *content = cJSON_GetObjectItemCaseSensitive(message, "content"); /* null is told from missing */
    if (calls && !cJSON_IsArray(calls)) return nb_fail(err, NB_ERR_INPUT, "%s.tool_calls is not an array", where->text);
    if (calls && !calls->child) calls = NULL;
    if (calls && strcmp(role, "assistant") != 0)
        return nb_fail(err, NB_ERR_INPUT, "%s.tool_calls: only a message of the role 'assistant' can have them", where->text);
    bool filled = false;
    if (cJSON_IsNull(content)) {
        if (!calls) return nb_fail(err, NB_ERR_INPUT, "%s.content is null; an empty message is \"\"", where->text);
    } else if (cJSON_IsString(content)) {
        filled = *content->valuestring != 0;
        NB_TRY(add_text_part(m, content->valuestring, err));
    } else if (cJSON_IsArray(content)) {
        int index = 0;
        cJSON_ArrayForEach(part, content)
        {
            place here = at(where, ".content[%d]", index++);
            NB_TRY(add_part(m, part, &here, err));
            const nb_part *last = &m->parts[m->count - 1];
            filled = filled || last->kind != NB_PART_TEXT || *last->text;
        }
    } else if (content) {
        return nb_fail(err, NB_ERR_INPUT, "%s.content is neither a string nor an array of parts", where->text);
    }
    return calls ? add_calls(m, calls, filled, where, err) : NB_OK;
}

static nb_status read_tools(nb_chat *chat, const cJSON *tools, const char *where, nb_error *err)
{
    place        path = start(where, "tools");
    const cJSON *tool;
    int          index = 0;
    nb_buf       text = {0};
    if (!cJSON_IsArray(tools)) return nb_fail(err, NB_ERR_INPUT, "%s is not an array", path.text);
    cJSON_ArrayForEach(tool, tools)
    {
        if (!cJSON_IsObject(tool)) return nb_fail(err, NB_ERR_INPUT, "%s[%d] is not an object", path.text, index);
        index++;
    }
    if (!index) return NB_OK;
    nb_json_print(&text, tools, NB_JSON_SPACED);
    nb_status status = nb_buf_status(&text, "tools", err);
    if (status == NB_OK) chat->tools = text.data;
    return status;
}

nb_status nb_chat_from_json(nb_chat *out, const cJSON *messages, const cJSON *tools, const char *where, nb_error *err)
{
    place        path = start(where, "messages");
    const cJSON *message;
    int          index = 0;
    nb_status    status = NB_OK;
    *out = (nb_chat){0};
    if (!cJSON_IsArray(messages) || !messages->child)
        return nb_fail(err, NB_ERR_INPUT, "%s is not an array of at least one message", path.text);
    cJSON_ArrayForEach(message, messages)
    {
        place here = at(&path, "[%d]", index++);
        if (status == NB_OK) status = add_message(out, message, &here, err);
    }
    if (status == NB_OK && tools && !cJSON_IsNull(tools)) status = read_tools(out, tools, where, err);
    if (status != NB_OK) nb_chat_free(out);
    return status;
}
