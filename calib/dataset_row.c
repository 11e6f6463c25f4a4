/* dataset_row.c - one row of a data file, in any of its spellings, as OpenAI-style messages and tools.
 *
 *     {"from": "human", "value": "<image>Who?"} + images ["a.png"]
 *  -> {"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "Who?"}]}
 *
 * The marks <image> and <video>, and parts {"type": "image"} without a source, stand for the entries of the row's lists, in
 * order; the counts must agree, or a picture would silently belong to another question.  Only where a row has a list and no
 * mark at all do its entries go in front of the first question, as ms-swift puts them.  In OpenAI-style rows a mark means
 * something only when the row has a list.  Nothing is copied that can be borrowed: contents may be megabytes of base64.
 */
#include "calib/dataset_row.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef enum { SAYS_SYSTEM, SAYS_USER, SAYS_ASSISTANT, SAYS_TOOL, SAYS_CALL, SAYS_UNKNOWN } speaker;

static const char *const role_of[] = {"system", "user", "assistant", "tool", "assistant"};

/* One list of media and how far its marks have used it up. */
typedef struct {
    const char  *mark, *type, *column; /* "<image>", "image", name of the row's list */
    const cJSON *list;                 /* array, or a single entry; NULL: the row has none */
    const cJSON *entry;                /* the next of the array's */
    size_t       count, next;
    bool         in_front;             /* no mark: all of it before the first question */
} media_list;

typedef struct {
    const nb_row_map *map;
    nb_data_form      form;
    const char       *where;
    media_list        media[2];
    bool              marks;     /* marks have a meaning in this row */
    bool              objects;   /* ms-swift: the row locates objects, which <bbox> and <ref-object> stand for */
} row_reader;

static nb_status no_memory(const row_reader *r, nb_error *err)
{
    return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", r->where);
}

/* ---- who speaks -------------------------------------------------------------------------------------------------- */

static speaker usual_speaker(const char *role)
{
    static const struct { const char *name; speaker who; } usual[] = {
        {"user", SAYS_USER}, {"human", SAYS_USER}, {"assistant", SAYS_ASSISTANT}, {"gpt", SAYS_ASSISTANT},
        {"system", SAYS_SYSTEM}, {"tool", SAYS_TOOL}, {"observation", SAYS_TOOL}, {"function_call", SAYS_CALL},
        {"bot", SAYS_ASSISTANT}, {"tool_response", SAYS_TOOL}, {"tool_call", SAYS_CALL}, /* ms-swift */
        {"developer", SAYS_SYSTEM}, {"model", SAYS_ASSISTANT}, {"chatgpt", SAYS_ASSISTANT}, {"function", SAYS_TOOL},
    };
    for (size_t i = 0; i < NB_COUNT(usual); i++)
        if (!strcasecmp(role, usual[i].name)) return usual[i].who; /* a template that got "User" would make no user of it */
    return SAYS_UNKNOWN;
}

static speaker speaker_of(const nb_row_map *map, const char *role)
{
    if (!map->info) return usual_speaker(role);
    const struct { const char *name; speaker who; } given[] = {
        {map->user, SAYS_USER}, {map->assistant, SAYS_ASSISTANT}, {map->observation, SAYS_TOOL},
        {map->function, SAYS_CALL}, {map->system_role, SAYS_SYSTEM},
    };
    for (size_t i = 0; i < NB_COUNT(given); i++)
        if (!strcmp(role, given[i].name)) return given[i].who;
    return SAYS_UNKNOWN;
}

/* ---- media lists ------------------------------------------------------------------------------------------------- */

static size_t count_marks(const char *text, const char *mark)
{
    size_t n = 0;
    for (const char *p = text; (p = strstr(p, mark)); p += strlen(mark)) n++;
    return n;
}

static nb_status find_media(row_reader *r, const cJSON *row, nb_error *err)
{
    static const struct { const char *mark, *type, *plural; } kinds[2] = {{"<image>", "image", "images"},
                                                                         {"<video>", "video", "videos"}};
    for (int i = 0; i < 2; i++) {
        media_list *m = &r->media[i];
        *m = (media_list){.mark = kinds[i].mark, .type = kinds[i].type, .column = kinds[i].plural};
        if (r->map->info) {
            const char *named = i ? r->map->videos : r->map->images;
            m->column = named ? named : m->column;
            m->list = named ? nb_json_find(row, named) : NULL;
        } else {
            m->list = nb_json_find(row, kinds[i].plural);
            if (!m->list && (m->list = nb_json_find(row, kinds[i].type))) m->column = kinds[i].type; /* LLaVA: one "image" */
        }
        if (cJSON_IsString(m->list) && !m->list->valuestring[0]) m->list = NULL; /* LLaVA's rows without a picture */
        if (m->list && !cJSON_IsArray(m->list) && !cJSON_IsString(m->list))
            return nb_fail(err, NB_ERR_INPUT, "%s: %s: expected a list of %ss", r->where, m->column, m->type);
        m->entry = cJSON_IsArray(m->list) ? m->list->child : m->list;
        m->count = !m->list ? 0 : cJSON_IsArray(m->list) ? (size_t)cJSON_GetArraySize(m->list) : 1;
    }
    const char  *sound = r->map->info ? r->map->audios : "audios";
    const cJSON *audio = sound ? nb_json_find(row, sound) : NULL;
    if (audio && (!cJSON_IsArray(audio) || cJSON_GetArraySize(audio) > 0))
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: %s: Qwen2-VL does not hear; remove the rows with sound", r->where, sound);
    bool always = r->form == NB_DATA_SHAREGPT || r->form == NB_DATA_LLAVA;
    r->marks = always || r->media[0].list || r->media[1].list;
    r->objects = !r->map->info && nb_json_find(row, "objects");
    return NB_OK;
}

static const char *content_key(const nb_row_map *map, const cJSON *message)
{
    bool from_value = nb_json_find(message, "from") || nb_json_find(message, "value");
    return map->info ? map->content : from_value ? "value" : "content";
}

static bool is_reference(const cJSON *v)
{
    return cJSON_IsString(v) && v->valuestring[0];
}

/* A part {"type": "image"} that does not say which picture, with the address under a name that is not the type's or without. */
static bool is_bare(const cJSON *part, const char *type)
{
    char         url_key[16];
    const cJSON *own = nb_json_find(part, "type");
    snprintf(url_key, sizeof url_key, "%s_url", type);
    return cJSON_IsString(own) && !strcmp(own->valuestring, type) && !nb_json_find(part, type) && !nb_json_find(part, url_key);
}

/* The address of a bare part in the form of transformers, {"type": "image", "url" or "path": ...}, or NULL: it stands for an
 * entry of the list. */
static const cJSON *own_address(const cJSON *part)
{
    const cJSON *url = nb_json_find(part, "url");
    return url ? url : nb_json_find(part, "path");
}

static size_t marks_in(const row_reader *r, const cJSON *message, const media_list *list)
{
    const cJSON *content = nb_json_find(message, content_key(r->map, message)), *part;
    size_t       n = 0;
    if (cJSON_IsString(content)) return count_marks(content->valuestring, list->mark);
    if (cJSON_IsArray(content))
        cJSON_ArrayForEach(part, content) n += is_bare(part, list->type) && !own_address(part);
    return n;
}

/* Does any part say itself which picture it is? */
static bool names_media(const row_reader *r, const cJSON *messages, const char *type)
{
    const cJSON *m, *part;
    bool         named = false;
    cJSON_ArrayForEach(m, messages) {
        const cJSON *content = nb_json_find(m, content_key(r->map, m));
        if (!cJSON_IsArray(content)) continue;
        cJSON_ArrayForEach(part, content) {
            const cJSON *own = nb_json_find(part, "type");
            named = named || nb_json_find(part, type) || (cJSON_IsString(own) && !strncmp(own->valuestring, type, strlen(type)));
        }
    }
    return named;
}

/* The marks of all messages against the entries of all lists, before anything is matched. */
static nb_status check_marks(row_reader *r, const cJSON *messages, const char *column, nb_error *err)
{
    bool placed_by_us = !r->map->info && r->form != NB_DATA_SHAREGPT && r->form != NB_DATA_LLAVA && r->form != NB_DATA_TEXT;
    for (int i = 0; i < 2 && r->marks; i++) {
        media_list  *list = &r->media[i];
        size_t       marks = 0;
        const cJSON *m;
        cJSON_ArrayForEach(m, messages) marks += marks_in(r, m, list);
        list->in_front = placed_by_us && marks == 0 && list->count && !names_media(r, messages, list->type);
        if (marks != list->count && !list->in_front)
            return nb_fail(err, NB_ERR_INPUT, "%s: %s holds %zu %s marks, but %s holds %zu entries", r->where, column, marks,
                           list->mark, list->column, list->count);
    }
    return NB_OK;
}

/* What the next mark of a list stands for: a path, or the frames of a video. */
static nb_status next_entry(row_reader *r, const cJSON **out, media_list *list, nb_error *err)
{
    size_t       index = list->next++;
    const cJSON *entry = list->entry;
    if (entry) list->entry = entry->next;
    const cJSON *path = cJSON_IsObject(entry) ? nb_json_find(entry, "path") : entry; /* ms-swift: {"path": ...} */
    if (cJSON_IsObject(entry) && !path) path = nb_json_find(entry, "url");
    bool good = is_reference(path);
    if (!good && list == &r->media[1] && cJSON_IsArray(path) && path->child) { /* a video as a list of its frames */
        const cJSON *frame;
        good = true;
        cJSON_ArrayForEach(frame, path) good = good && is_reference(frame);
    }
    *out = path;
    if (good) return NB_OK;
    if (cJSON_IsObject(entry) && nb_json_find(entry, "bytes"))
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: %s[%zu]: holds the bytes of a file and no path; write the pictures to files, or as "
                       "\"data:image/png;base64,...\"", r->where, list->column, index);
    return nb_fail(err, NB_ERR_INPUT, "%s: %s[%zu]: expected the path of a file%s", r->where, list->column, index,
                   list == &r->media[1] ? " or a list of frames" : "");
}

/* Append the part that an entry of a list stands for.  like: a bare part whose other members (pixel limits) it keeps, or NULL. */
static nb_status add_media(row_reader *r, cJSON *parts, media_list *list, const cJSON *like, nb_error *err)
{
    const cJSON *path = like ? own_address(like) : NULL, *other;
    if (!path) NB_TRY(next_entry(r, &path, list, err));
    cJSON *part = cJSON_CreateObject();
    bool   good = part && cJSON_AddStringToObject(part, "type", list->type) &&
                cJSON_AddItemReferenceToObject(part, list->type, (cJSON *)path);
    static const char *const told[] = {"type", "url", "path"};
    for (other = like ? like->child : NULL; other && good; other = other->next) {
        bool known = cJSON_IsNull(other) || !strcmp(other->string, list->type);
        for (size_t i = 0; i < NB_COUNT(told); i++) known = known || !strcmp(other->string, told[i]);
        good = known || cJSON_AddItemReferenceToObject(part, other->string, (cJSON *)other);
    }
    if (good && cJSON_AddItemToArray(parts, part)) return NB_OK;
    cJSON_Delete(part);
    return no_memory(r, err);
}

static nb_status add_text(const row_reader *r, cJSON *parts, const char *text, size_t n, nb_error *err)
{
    if (!n) return NB_OK;
    char  *copy = strndup(text, n);
    cJSON *part = cJSON_CreateObject();
    bool   good = copy && part && cJSON_AddStringToObject(part, "type", "text") &&
                cJSON_AddStringToObject(part, "text", copy) && cJSON_AddItemToArray(parts, part);
    free(copy);
    if (good) return NB_OK;
    cJSON_Delete(part);
    return no_memory(r, err);
}

/* Text with marks as an array of parts, in order; all text between marks is kept to the byte. */
static nb_status split_marks(row_reader *r, cJSON *parts, const char *text, nb_error *err)
{
    const char *at[2] = {strstr(text, r->media[0].mark), strstr(text, r->media[1].mark)};
    for (const char *p = text;;) {
        for (int i = 0; i < 2; i++)
            if (at[i] && at[i] < p) at[i] = strstr(p, r->media[i].mark);
        if (!at[0] && !at[1]) return add_text(r, parts, p, strlen(p), err);
        int which = !at[0] || (at[1] && at[1] < at[0]);
        NB_TRY(add_text(r, parts, p, (size_t)(at[which] - p), err));
        NB_TRY(add_media(r, parts, &r->media[which], NULL, err));
        p = at[which] + strlen(r->media[which].mark);
    }
}

/* ---- messages ---------------------------------------------------------------------------------------------------- */

/* Parts, with those filled in that do not name their picture in the one way that a chat is read. */
static nb_status copy_parts(row_reader *r, cJSON *parts, const cJSON *content, nb_error *err)
{
    const cJSON *part;
    cJSON_ArrayForEach(part, content) {
        media_list *list = is_bare(part, "image") ? &r->media[0] : is_bare(part, "video") ? &r->media[1] : NULL;
        if (list && (own_address(part) || list->next < list->count))
            NB_TRY(add_media(r, parts, list, part, err));
        else if (!cJSON_AddItemReferenceToArray(parts, (cJSON *)part))
            return no_memory(r, err);
    }
    return NB_OK;
}

/* Must the content be written anew, or can it be borrowed? */
static bool needs_parts(const row_reader *r, const cJSON *content)
{
    const cJSON *part;
    bool         bare = false;
    if (cJSON_IsString(content))
        return r->marks && (strstr(content->valuestring, r->media[0].mark) || strstr(content->valuestring, r->media[1].mark));
    if (cJSON_IsArray(content))
        cJSON_ArrayForEach(part, content) bare = bare || is_bare(part, "image") || is_bare(part, "video");
    return bare;
}

static nb_status refuse_grounding(const row_reader *r, const char *text, nb_error *err)
{
    const char *mark = strstr(text, "<bbox>") ? "<bbox>" : strstr(text, "<ref-object>") ? "<ref-object>" : NULL;
    if (!mark) return NB_OK;
    return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: %s stands for an entry of 'objects', which ms-swift fills in while training; "
                   "write the boxes out as the model sees them", r->where, mark);
}

/* Qwen-VL wrote paths into the text; as text the model would see them letter by letter. */
static nb_status refuse_inline(const row_reader *r, const char *text, const char *path, nb_error *err)
{
    const char *open = r->form == NB_DATA_OPENAI ? NULL : strstr(text, "<img>"), *end = open ? strstr(open, "</img>") : NULL;
    if (!end || memchr(open, '\n', (size_t)(end - open))) return NB_OK;
    return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: %s: <img>...</img> names a picture as Qwen-VL did; write <image> there and the path "
                   "into 'images'", r->where, path);
}

/* "content" of the new message: borrowed as it is, or as parts where marks are filled in. */
static nb_status add_content(row_reader *r, cJSON *message, const cJSON *content, bool question, nb_error *err)
{
    bool front = false;
    for (int i = 0; i < 2; i++) front = front || (question && r->media[i].in_front && r->media[i].next < r->media[i].count);
    if (r->objects && cJSON_IsString(content)) NB_TRY(refuse_grounding(r, content->valuestring, err));
    if (!front && !needs_parts(r, content))
        return cJSON_AddItemReferenceToObject(message, "content", (cJSON *)content) ? NB_OK : no_memory(r, err);
    cJSON *parts = cJSON_AddArrayToObject(message, "content");
    if (!parts) return no_memory(r, err);
    for (int i = 0; i < 2 && front; i++)
        while (r->media[i].in_front && r->media[i].next < r->media[i].count)
            NB_TRY(add_media(r, parts, &r->media[i], NULL, err));
    return cJSON_IsString(content) ? split_marks(r, parts, content->valuestring, err) : copy_parts(r, parts, content, err);
}

/* A function_call's text, {"name", "arguments"} or a list of them, as tool_calls. */
static nb_status add_calls(const row_reader *r, cJSON *message, const char *text, const char *path, nb_error *err)
{
    char name[400];
    snprintf(name, sizeof name, "%s: %s", r->where, path);
    cJSON *parsed = NULL;
    NB_TRY(nb_json_parse(&parsed, text, strlen(text), name, err));
    cJSON *calls = cJSON_AddArrayToObject(message, "tool_calls");
    bool   memory = calls && cJSON_AddStringToObject(message, "content", "");
    int    count = cJSON_IsArray(parsed) ? cJSON_GetArraySize(parsed) : 1;
    bool   good = count > 0;
    while (good && memory && count-- > 0) {
        cJSON *call = cJSON_IsArray(parsed) ? cJSON_DetachItemFromArray(parsed, 0) : parsed;
        if (call == parsed) parsed = NULL;
        good = cJSON_IsObject(call) && is_reference(nb_json_find(call, "name")) && cJSON_HasObjectItem(call, "arguments");
        cJSON *wrapped = cJSON_CreateObject();
        memory = wrapped && cJSON_AddStringToObject(wrapped, "type", "function") && cJSON_AddItemToArray(calls, wrapped);
        if (!memory) cJSON_Delete(wrapped);
        memory = memory && cJSON_AddItemToObject(wrapped, "function", call);
        if (!memory) cJSON_Delete(call);
    }
    cJSON_Delete(parsed);
    if (!memory) return no_memory(r, err);
    if (!good)
        return nb_fail(err, NB_ERR_INPUT, "%s: expected {\"name\": ..., \"arguments\": ...} or a list of them", name);
    return NB_OK;
}

static nb_status refuse_role(const row_reader *r, const char *path, const char *key, const char *role, nb_error *err)
{
    const nb_row_map *m = r->map;
    if (m->info)
        return nb_fail(err, NB_ERR_INPUT, "%s: %s.%s: '%.40s' is not one of %s, %s, %s, %s, %s (tags of dataset_info.json)",
                       r->where, path, key, role, m->user, m->assistant, m->observation, m->function, m->system_role);
    return nb_fail(err, NB_ERR_INPUT, "%s: %s.%s: '%.40s' is not one of human, user, gpt, assistant, system, observation, tool, "
                   "function_call", r->where, path, key, role);
}

static nb_status convert_message(row_reader *r, cJSON *out, const cJSON *m, const char *path, nb_error *err)
{
    const char  *role_key = r->map->info ? r->map->role : nb_json_find(m, "from") ? "from" : "role";
    const char  *text_key = content_key(r->map, m);
    const cJSON *role = nb_json_find(m, role_key), *content = nb_json_find(m, text_key), *other;
    if (!cJSON_IsString(role) || !role->valuestring[0])
        return nb_fail(err, NB_ERR_INPUT, "%s: %s.%s: expected who speaks, as text", r->where, path, role_key);
    speaker     who = speaker_of(r->map, role->valuestring);
    const char *name = who == SAYS_UNKNOWN ? role->valuestring : role_of[who];
    if (who == SAYS_UNKNOWN && r->form != NB_DATA_OPENAI) return refuse_role(r, path, role_key, role->valuestring, err);
    if (!cJSON_AddStringToObject(out, "role", name)) return no_memory(r, err);

    bool other_kind = r->form == NB_DATA_OPENAI || !strcmp(text_key, "content"); /* null or parts may stand there */
    if (!cJSON_IsString(content) && !(other_kind && who != SAYS_CALL && (!content || cJSON_IsArray(content))))
        return nb_fail(err, NB_ERR_INPUT, "%s: %s.%s: expected text", r->where, path, text_key);
    if (!content && !nb_json_find(m, "tool_calls"))
        return nb_fail(err, NB_ERR_INPUT, "%s: %s.%s is missing or null; an empty message is \"\"", r->where, path, text_key);
    if (who == SAYS_CALL) return add_calls(r, out, content->valuestring, path, err);
    if (cJSON_IsString(content)) NB_TRY(refuse_inline(r, content->valuestring, path, err));
    if (content) NB_TRY(add_content(r, out, content, who == SAYS_USER, err));
    cJSON_ArrayForEach(other, m) { /* tool_calls, tool_call_id, name */
        if (!strcmp(other->string, role_key) || !strcmp(other->string, text_key)) continue;
        if (!strcmp(other->string, "role") || !strcmp(other->string, "content")) continue;
        if (!cJSON_AddItemReferenceToObject(out, other->string, (cJSON *)other)) return no_memory(r, err);
    }
    return NB_OK;
}

/* "messages[3]", by hand: it is made for every message and read for bad ones only. */
static void name_message(char out[160], const char *column, int index)
{
    char   digits[12];
    size_t n = strnlen(column, 100), d = 0;
    memcpy(out, column, n);
    out[n++] = '[';
    do digits[d++] = (char)('0' + index % 10);
    while ((index /= 10) > 0);
    while (d) out[n++] = digits[--d];
    out[n++] = ']';
    out[n] = 0;
}

static nb_status convert_messages(row_reader *r, cJSON *out, const cJSON *list, const char *column, nb_error *err)
{
    int          index = 0;
    const cJSON *m;
    cJSON_ArrayForEach(m, list) {
        char path[160];
        name_message(path, column, index++);
        if (cJSON_IsArray(m))
            return nb_fail(err, NB_ERR_INPUT, "%s: %s: expected a message, found a list of them: one pair of brackets too many",
                           r->where, path);
        if (!cJSON_IsObject(m)) return nb_fail(err, NB_ERR_INPUT, "%s: %s: expected an object", r->where, path);
        cJSON *message = cJSON_CreateObject();
        if (!message || !cJSON_AddItemToArray(out, message)) {
            cJSON_Delete(message);
            return no_memory(r, err);
        }
        NB_TRY(convert_message(r, message, m, path, err));
    }
    return NB_OK;
}

/* The system column speaks first, unless the conversation brings its own system message. */
static nb_status add_system(const row_reader *r, cJSON *out, const cJSON *row, nb_error *err)
{
    const char  *column = r->map->info ? r->map->system : "system";
    const cJSON *text = column ? nb_json_find(row, column) : NULL;
    if (!text) return NB_OK;
    if (!cJSON_IsString(text)) return nb_fail(err, NB_ERR_INPUT, "%s: %s: expected text", r->where, column);
    const cJSON *first = out->child ? nb_json_find(out->child, "role") : NULL;
    if (!text->valuestring[0] || (first && !strcmp(first->valuestring, "system"))) return NB_OK;
    cJSON *message = cJSON_CreateObject();
    if (!message || !cJSON_AddStringToObject(message, "role", "system") ||
        !cJSON_AddItemReferenceToObject(message, "content", (cJSON *)text) || !cJSON_InsertItemInArray(out, 0, message)) {
        cJSON_Delete(message);
        return no_memory(r, err);
    }
    return NB_OK;
}

/* ---- tools ------------------------------------------------------------------------------------------------------- */

/* A list, or the JSON text of one.  LLaMA-Factory stores bare functions: they get their {"type": "function"} cover. */
static nb_status read_tools(const row_reader *r, cJSON **out, const cJSON *row, nb_error *err)
{
    const char  *column = r->map->info && r->form != NB_DATA_OPENAI ? r->map->tools : "tools";
    const cJSON *tools = column ? nb_json_find(row, column) : NULL;
    char         name[400];
    if (!tools || (cJSON_IsString(tools) && !tools->valuestring[strspn(tools->valuestring, " \t\r\n")])) return NB_OK;
    snprintf(name, sizeof name, "%s: %s", r->where, column);
    if (cJSON_IsString(tools))
        NB_TRY(nb_json_parse(out, tools->valuestring, strlen(tools->valuestring), name, err));
    else if (!(*out = cJSON_Duplicate(tools, true)))
        return no_memory(r, err);
    if (cJSON_IsNull(*out) || (cJSON_IsArray(*out) && !(*out)->child)) {
        cJSON_Delete(*out);
        *out = NULL;
        return NB_OK;
    }
    if (!cJSON_IsArray(*out)) return nb_fail(err, NB_ERR_INPUT, "%s: expected a list of functions", name);
    for (int i = 0; r->form != NB_DATA_OPENAI && i < cJSON_GetArraySize(*out); i++) {
        cJSON *tool = cJSON_GetArrayItem(*out, i);
        if (!cJSON_IsObject(tool)) return nb_fail(err, NB_ERR_INPUT, "%s[%d]: expected an object", name, i);
        const cJSON *type = nb_json_find(tool, "type");
        if (cJSON_IsString(type) && !strcmp(type->valuestring, "function")) continue;
        cJSON *cover = cJSON_CreateObject();
        if (!cover || !cJSON_AddStringToObject(cover, "type", "function")) {
            cJSON_Delete(cover);
            return no_memory(r, err);
        }
        tool = cJSON_DetachItemFromArray(*out, i);
        if (!cJSON_AddItemToObject(cover, "function", tool)) cJSON_Delete(tool);
        if (!cJSON_InsertItemInArray(*out, i, cover)) cJSON_Delete(cover);
        if (!nb_json_find(cJSON_GetArrayItem(*out, i), "function")) return no_memory(r, err);
    }
    return NB_OK;
}

/* ---- the row ----------------------------------------------------------------------------------------------------- */

/* Tables hold lists as text: "[{\"role\": ...}]".  *owned: what they were parsed to. */
static nb_status unpack_messages(const row_reader *r, const cJSON **list, cJSON **owned, const char *column, nb_error *err)
{
    char name[400];
    if (!cJSON_IsString(*list) || (*list)->valuestring[strspn((*list)->valuestring, " \t\r\n")] != '[') return NB_OK;
    snprintf(name, sizeof name, "%s: %s", r->where, column);
    NB_TRY(nb_json_parse(owned, (*list)->valuestring, strlen((*list)->valuestring), name, err));
    *list = *owned;
    return NB_OK;
}

/* The list of messages that the row itself holds. */
static nb_status find_messages(const row_reader *r, const cJSON **out, const char **column, nb_row *of, nb_error *err)
{
    const cJSON *row = of->row;
    static const char *const usual[] = {"messages", "conversations", "conversation"};
    if (cJSON_IsArray(row)) { /* a conversation without an object around it, as in the README of Qwen2-VL */
        *out = row;
        *column = "messages";
    } else if (r->map->info) {
        *column = r->map->messages;
        *out = nb_json_find(row, *column);
    } else {
        *column = usual[0];
        *out = NULL;
        for (size_t i = 0; i < NB_COUNT(usual); i++) {
            const cJSON *found = nb_json_find(row, usual[i]);
            if (found && *out)
                return nb_fail(err, NB_ERR_INPUT, "%s: has both '%s' and '%s'; say which in dataset_info.json", r->where, *column,
                               usual[i]);
            if (found) *out = found, *column = usual[i];
        }
    }
    if (!*out) return nb_fail(err, NB_ERR_INPUT, "%s: has no '%s'", r->where, *column);
    NB_TRY(unpack_messages(r, out, &of->turns, *column, err));
    if (!cJSON_IsArray(*out)) return nb_fail(err, NB_ERR_INPUT, "%s: %s: expected a list of messages", r->where, *column);
    if (!(*out)->child) return nb_fail(err, NB_ERR_INPUT, "%s: %s: is empty", r->where, *column);
    return NB_OK;
}

/* Does the row spread its conversation over columns?  A row that was asked for as ms-swift's may do so or not. */
static bool has_columns(const cJSON *row, nb_data_form form)
{
    const cJSON *rounds = nb_json_find(row, "conversation");
    if (form != NB_DATA_SWIFT) return form == NB_DATA_ALPACA || form == NB_DATA_TEXT;
    if (cJSON_IsArray(row) || nb_json_find(row, "messages") || nb_json_find(row, "conversations")) return false;
    return !rounds || !rounds->child || (!nb_json_find(rounds->child, "role") && !nb_json_find(rounds->child, "from"));
}

static nb_status make_messages(nb_row *out, row_reader *r, nb_error *err)
{
    const cJSON *row = out->row, *list = NULL;
    const char  *column = "the text";
    if (!cJSON_IsObject(row) && !(cJSON_IsArray(row) && r->form == NB_DATA_OPENAI))
        return nb_fail(err, NB_ERR_INPUT, "%s: expected an object with messages", r->where);
    if (!r->map->info) NB_TRY(nb_row_refuse(row, r->where, err));
    if (has_columns(row, r->form))
        NB_TRY(nb_row_turns(&out->turns, row, r->map, r->form, r->where, err));
    else
        NB_TRY(find_messages(r, &list, &column, out, err));
    if (out->turns) list = out->turns;
    NB_TRY(find_media(r, row, err));
    NB_TRY(check_marks(r, list, column, err));
    if (!(out->messages = cJSON_CreateArray())) return no_memory(r, err);
    NB_TRY(convert_messages(r, out->messages, list, column, err));
    if ((r->media[0].in_front && r->media[0].next < r->media[0].count) ||
        (r->media[1].in_front && r->media[1].next < r->media[1].count))
        return nb_fail(err, NB_ERR_INPUT, "%s: has pictures, but neither a mark for them nor a message of the user to put them in",
                       r->where);
    NB_TRY(add_system(r, out->messages, row, err));
    return read_tools(r, &out->tools, row, err);
}

void nb_row_free(nb_row *r)
{
    cJSON_Delete(r->messages); /* what borrows goes first */
    cJSON_Delete(r->tools);
    cJSON_Delete(r->turns);
    cJSON_Delete(r->row);
    memset(r, 0, sizeof *r);
}

nb_status nb_row_messages(nb_row *out, const nb_row_map *map, nb_data_form form, const char *where, nb_error *err)
{
    row_reader r = {.map = map, .form = form, .where = where};
    return make_messages(out, &r, err);
}
