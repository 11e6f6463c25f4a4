/* dataset_row.c - one row of a data file, in any of its spellings, as OpenAI-style messages and tools.
 *
 *     {"from": "human", "value": "<image>Who?"} + images ["a.png"]
 *  -> {"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "Who?"}]}
 *
 * The marks <image> and <video> stand for the entries of the row's lists, in order; the counts must agree, or a picture
 * would silently belong to another question.  In OpenAI-style rows a mark means something only when the row has a list.
 * Nothing is copied that can be borrowed: contents may be megabytes of base64.
 */
#include "calib/dataset_row.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum { SAYS_SYSTEM, SAYS_USER, SAYS_ASSISTANT, SAYS_TOOL, SAYS_CALL, SAYS_UNKNOWN } speaker;

static const char *const role_of[] = {"system", "user", "assistant", "tool", "assistant"};

/* One list of media and how far its marks have used it up. */
typedef struct {
    const char  *mark, *type, *column; /* "<image>", "image", name of the row's list */
    const cJSON *list;                 /* array, or a single entry; NULL: the row has none */
    size_t       count, next;
} media_list;

typedef struct {
    const nb_row_map *map;
    nb_data_form      form;
    const char       *where;
    media_list        media[2];
    bool              marks; /* marks have a meaning in this row */
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
    };
    for (size_t i = 0; i < NB_COUNT(usual); i++)
        if (!strcmp(role, usual[i].name)) return usual[i].who;
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

nb_data_form nb_row_form(const cJSON *row)
{
    if (nb_json_find(row, "conversations")) return NB_DATA_SHAREGPT;
    const cJSON *messages = nb_json_find(row, "messages"), *m;
    cJSON_ArrayForEach(m, messages) {
        const cJSON *role = nb_json_find(m, "role");
        if (nb_json_find(m, "from")) return NB_DATA_SHAREGPT;
        if (!cJSON_IsString(role)) continue;
        const char *const own[] = {"human", "gpt", "observation", "function_call"};
        for (size_t i = 0; i < NB_COUNT(own); i++)
            if (!strcmp(role->valuestring, own[i])) return NB_DATA_SHAREGPT;
    }
    return NB_DATA_OPENAI;
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
        if (m->list && !cJSON_IsArray(m->list) && !cJSON_IsString(m->list))
            return nb_fail(err, NB_ERR_INPUT, "%s: %s: expected a list of %ss", r->where, m->column, m->type);
        m->count = !m->list ? 0 : cJSON_IsArray(m->list) ? (size_t)cJSON_GetArraySize(m->list) : 1;
    }
    const char  *sound = r->map->info ? r->map->audios : "audios";
    const cJSON *audio = sound ? nb_json_find(row, sound) : NULL;
    if (audio && (!cJSON_IsArray(audio) || cJSON_GetArraySize(audio) > 0))
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: %s: Qwen2-VL does not hear; remove the rows with sound", r->where, sound);
    r->marks = r->form == NB_DATA_SHAREGPT || r->media[0].list || r->media[1].list;
    return NB_OK;
}

static const char *content_key(const nb_row_map *map, const cJSON *message)
{
    bool from_value = nb_json_find(message, "from") || nb_json_find(message, "value");
    return map->info ? map->content : from_value ? "value" : "content";
}

/* The marks of all texts against the entries of all lists, before anything is matched. */
static nb_status check_marks(const row_reader *r, const cJSON *messages, const char *column, nb_error *err)
{
    for (int i = 0; i < 2 && r->marks; i++) {
        const media_list *list = &r->media[i];
        size_t            marks = 0;
        const cJSON      *m;
        cJSON_ArrayForEach(m, messages) {
            const cJSON *text = nb_json_find(m, content_key(r->map, m));
            if (cJSON_IsString(text)) marks += count_marks(text->valuestring, list->mark);
        }
        if (marks != list->count)
            return nb_fail(err, NB_ERR_INPUT, "%s: %s holds %zu %s marks, but %s holds %zu entries", r->where, column, marks,
                           list->mark, list->column, list->count);
    }
    return NB_OK;
}

static bool is_reference(const cJSON *v)
{
    return cJSON_IsString(v) && v->valuestring[0];
}

/* Append the part that the next mark of a list stands for. */
static nb_status add_media(row_reader *r, cJSON *parts, media_list *list, nb_error *err)
{
    size_t       index = list->next++;
    const cJSON *entry = cJSON_IsArray(list->list) ? cJSON_GetArrayItem(list->list, (int)index) : list->list;
    const cJSON *path = cJSON_IsObject(entry) ? nb_json_find(entry, "path") : entry; /* ms-swift: {"path": ...} */
    bool         good = is_reference(path);
    if (!good && list == &r->media[1] && cJSON_IsArray(path) && path->child) { /* a video as a list of its frames */
        const cJSON *frame;
        good = true;
        cJSON_ArrayForEach(frame, path) good = good && is_reference(frame);
    }
    if (!good)
        return nb_fail(err, NB_ERR_INPUT, "%s: %s[%zu]: expected the path of a file%s", r->where, list->column, index,
                       list == &r->media[1] ? " or a list of frames" : "");
    cJSON *part = cJSON_CreateObject();
    if (!part || !cJSON_AddStringToObject(part, "type", list->type) ||
        !cJSON_AddItemReferenceToObject(part, list->type, (cJSON *)path) || !cJSON_AddItemToArray(parts, part)) {
        cJSON_Delete(part);
        return no_memory(r, err);
    }
    return NB_OK;
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
    for (const char *p = text;;) {
        const char *at[2] = {strstr(p, r->media[0].mark), strstr(p, r->media[1].mark)};
        if (!at[0] && !at[1]) return add_text(r, parts, p, strlen(p), err);
        int which = !at[0] || (at[1] && at[1] < at[0]);
        NB_TRY(add_text(r, parts, p, (size_t)(at[which] - p), err));
        NB_TRY(add_media(r, parts, &r->media[which], err));
        p = at[which] + strlen(r->media[which].mark);
    }
}

/* ---- messages ---------------------------------------------------------------------------------------------------- */

/* "content" of the new message: borrowed as it is, or split at its marks. */
static nb_status add_content(row_reader *r, cJSON *message, const cJSON *content, nb_error *err)
{
    bool split = r->marks && cJSON_IsString(content) &&
                 (strstr(content->valuestring, r->media[0].mark) || strstr(content->valuestring, r->media[1].mark));
    if (!split)
        return cJSON_AddItemReferenceToObject(message, "content", (cJSON *)content) ? NB_OK : no_memory(r, err);
    cJSON *parts = cJSON_AddArrayToObject(message, "content");
    return parts ? split_marks(r, parts, content->valuestring, err) : no_memory(r, err);
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
    if (!cJSON_IsString(role)) return nb_fail(err, NB_ERR_INPUT, "%s: %s.%s: expected who speaks, as text", r->where, path, role_key);
    speaker     who = speaker_of(r->map, role->valuestring);
    const char *name = who == SAYS_UNKNOWN ? role->valuestring : role_of[who];
    if (who == SAYS_UNKNOWN && r->form == NB_DATA_SHAREGPT) return refuse_role(r, path, role_key, role->valuestring, err);
    if (!cJSON_AddStringToObject(out, "role", name)) return no_memory(r, err);

    bool other_kind = r->form == NB_DATA_OPENAI || !strcmp(text_key, "content"); /* null or parts may stand there */
    if (!cJSON_IsString(content) && !(other_kind && who != SAYS_CALL && (!content || cJSON_IsArray(content))))
        return nb_fail(err, NB_ERR_INPUT, "%s: %s.%s: expected text", r->where, path, text_key);
    if (!content && !nb_json_find(m, "tool_calls"))
        return nb_fail(err, NB_ERR_INPUT, "%s: %s.%s is missing or null; an empty message is \"\"", r->where, path, text_key);
    if (who == SAYS_CALL) return add_calls(r, out, content->valuestring, path, err);
    if (content) NB_TRY(add_content(r, out, content, err));
    cJSON_ArrayForEach(other, m) { /* tool_calls, tool_call_id, name */
        if (!strcmp(other->string, role_key) || !strcmp(other->string, text_key)) continue;
        if (!strcmp(other->string, "role") || !strcmp(other->string, "content")) continue;
        if (!cJSON_AddItemReferenceToObject(out, other->string, (cJSON *)other)) return no_memory(r, err);
    }
    return NB_OK;
}

static nb_status convert_messages(row_reader *r, cJSON *out, const cJSON *list, const char *column, nb_error *err)
{
    int          index = 0;
    const cJSON *m;
    cJSON_ArrayForEach(m, list) {
        char path[160];
        snprintf(path, sizeof path, "%.100s[%d]", column, index++);
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
    const char  *column = r->map->info && r->form == NB_DATA_SHAREGPT ? r->map->tools : "tools";
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
    for (int i = 0; r->form == NB_DATA_SHAREGPT && i < cJSON_GetArraySize(*out); i++) {
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

static nb_status find_messages(const row_reader *r, const cJSON **out, const char **column, const cJSON *row, nb_error *err)
{
    const cJSON *messages = nb_json_find(row, "messages"), *conversations = nb_json_find(row, "conversations");
    *column = r->map->info ? r->map->messages : conversations ? "conversations" : "messages";
    *out = r->map->info ? nb_json_find(row, *column) : conversations ? conversations : messages;
    if (!r->map->info && messages && conversations)
        return nb_fail(err, NB_ERR_INPUT, "%s: has both 'messages' and 'conversations'; say which in dataset_info.json", r->where);
    if (!r->map->info && !*out && (nb_json_find(row, "instruction") || nb_json_find(row, "output")))
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: this is the alpaca form (instruction, input, output), which cannot be read; "
                       "store the data as messages", r->where);
    if (!*out) return nb_fail(err, NB_ERR_INPUT, "%s: has no '%s'", r->where, *column);
    if (!cJSON_IsArray(*out)) return nb_fail(err, NB_ERR_INPUT, "%s: %s: expected a list of messages", r->where, *column);
    if (!(*out)->child) return nb_fail(err, NB_ERR_INPUT, "%s: %s: is empty", r->where, *column);
    return NB_OK;
}

nb_status nb_row_messages(cJSON **messages, cJSON **tools, const cJSON *row, const nb_row_map *map, nb_data_form form,
                          const char *where, nb_error *err)
{
    *messages = *tools = NULL;
    row_reader r = {.map = map, .form = form, .where = where};
    if (!cJSON_IsObject(row)) return nb_fail(err, NB_ERR_INPUT, "%s: expected an object with messages", where);
    const cJSON *list;
    const char  *column;
    NB_TRY(find_messages(&r, &list, &column, row, err));
    NB_TRY(find_media(&r, row, err));
    NB_TRY(check_marks(&r, list, column, err));

    *messages = cJSON_CreateArray();
    nb_status status = *messages ? convert_messages(&r, *messages, list, column, err) : no_memory(&r, err);
    if (!status) status = add_system(&r, *messages, row, err);
    if (!status) status = read_tools(&r, tools, row, err);
    if (status) {
        cJSON_Delete(*messages);
        cJSON_Delete(*tools);
        *messages = *tools = NULL;
    }
    return status;
}
