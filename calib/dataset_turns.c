/* dataset_turns.c - rows whose conversation is spread over columns, as a list of turns: alpaca, query and response, documents.
 *
 *     {"instruction": "Add", "input": "1 2", "output": "3", "history": [["Hi", "Hello"]]}
 *  -> user "Hi", assistant "Hello", user "Add\n1 2", assistant "3"
 *
 * That is LLaMA-Factory's meaning: instruction and input are joined by a line break, the history comes first, an output that
 * is null or that dataset_info.json does not name is no answer.  Texts are borrowed from the row, all but the joined one.  The
 * system column and the media lists are read by dataset_row.c, as for every form.
 */
#include "calib/dataset_row.h"

#include <stdlib.h>
#include <string.h>

/* The columns of one row, by their names in the file; NULL: there is no such column. */
typedef struct {
    const char *prompt, *query, *response, *history;
} pair_columns;

typedef struct {
    const cJSON *row;
    cJSON       *turns;
    const char  *where;
} turn_writer;

static nb_status no_memory(const turn_writer *w, nb_error *err)
{
    return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", w->where);
}

static nb_status add_turn(turn_writer *w, const char *role, const cJSON *text, nb_error *err)
{
    cJSON *turn = cJSON_CreateObject();
    if (turn && cJSON_AddStringToObject(turn, "role", role) &&
        cJSON_AddItemReferenceToObject(turn, "content", (cJSON *)text) && cJSON_AddItemToArray(w->turns, turn))
        return NB_OK;
    cJSON_Delete(turn);
    return no_memory(w, err);
}

/* A column's text; NULL when the column has no name, or the row does not have it, or has null there. */
static nb_status column_text(const cJSON **out, const turn_writer *w, const char *name, nb_error *err)
{
    *out = name ? nb_json_find(w->row, name) : NULL;
    if (!*out || cJSON_IsString(*out)) return NB_OK;
    return nb_fail(err, NB_ERR_INPUT, "%s: %s: expected text", w->where, name);
}

static nb_status add_history(turn_writer *w, const char *name, nb_error *err)
{
    const cJSON *history = name ? nb_json_find(w->row, name) : NULL, *pair;
    int          index = 0;
    if (!history) return NB_OK;
    if (!cJSON_IsArray(history)) return nb_fail(err, NB_ERR_INPUT, "%s: %s: expected a list of pairs", w->where, name);
    cJSON_ArrayForEach(pair, history) {
        const cJSON *asked = cJSON_IsArray(pair) ? pair->child : NULL, *said = asked ? asked->next : NULL;
        if (!cJSON_IsString(asked) || !cJSON_IsString(said) || said->next)
            return nb_fail(err, NB_ERR_INPUT, "%s: %s[%d]: expected a pair of texts, what was asked and what was answered",
                           w->where, name, index);
        NB_TRY(add_turn(w, "user", asked, err));
        NB_TRY(add_turn(w, "assistant", said, err));
        index++;
    }
    return NB_OK;
}

/* "prompt\nquery", or the one of them that is not empty. */
static nb_status add_question(turn_writer *w, const cJSON *prompt, const cJSON *query, nb_error *err)
{
    bool first = prompt && prompt->valuestring[0], second = query && query->valuestring[0];
    if (!first || !second) return add_turn(w, "user", second || !prompt ? query : prompt, err);
    size_t n = strlen(prompt->valuestring), m = strlen(query->valuestring);
    char  *joined = malloc(n + 1 + m + 1);
    cJSON *turn = cJSON_CreateObject();
    if (joined) {
        memcpy(joined, prompt->valuestring, n);
        joined[n] = '\n';
        memcpy(joined + n + 1, query->valuestring, m + 1);
    }
    bool good = joined && turn && cJSON_AddStringToObject(turn, "role", "user") &&
                cJSON_AddStringToObject(turn, "content", joined) && cJSON_AddItemToArray(w->turns, turn);
    free(joined);
    if (good) return NB_OK;
    cJSON_Delete(turn);
    return no_memory(w, err);
}

static nb_status add_pair(turn_writer *w, const pair_columns *c, nb_error *err)
{
    const cJSON *prompt, *query, *response;
    NB_TRY(add_history(w, c->history, err));
    NB_TRY(column_text(&prompt, w, c->prompt, err));
    NB_TRY(column_text(&query, w, c->query, err));
    NB_TRY(column_text(&response, w, c->response, err));
    if (!prompt && !query)
        return nb_fail(err, NB_ERR_INPUT, "%s: has no '%s'", w->where, c->prompt ? c->prompt : c->query ? c->query : "prompt");
    /* null says that there is no answer; a column that is not there at all was misspelled more likely */
    if (c->response && !cJSON_GetObjectItemCaseSensitive(w->row, c->response))
        return nb_fail(err, NB_ERR_INPUT, "%s: has no '%s'", w->where, c->response);
    NB_TRY(add_question(w, prompt, query, err));
    return response ? add_turn(w, "assistant", response, err) : NB_OK;
}

static const char *first_of(const cJSON *row, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (nb_json_find(row, names[i])) return names[i];
    return NULL;
}

static const char *const asked[] = {"query", "prompt", "question"}, *const answered[] = {"response", "completion", "answer"};
static const char *const user_keys[] = {"human", "user"}, *const assistant_keys[] = {"assistant", "gpt", "bot"};

/* ms-swift: "conversation": [{"human": ..., "assistant": ...}]. */
static nb_status add_rounds(turn_writer *w, const cJSON *rounds, nb_error *err)
{
    const cJSON *round;
    int          index = 0;
    cJSON_ArrayForEach(round, rounds) {
        const char  *user = first_of(round, user_keys, NB_COUNT(user_keys));
        const char  *assistant = first_of(round, assistant_keys, NB_COUNT(assistant_keys));
        const cJSON *said[2] = {user ? nb_json_find(round, user) : NULL, assistant ? nb_json_find(round, assistant) : NULL};
        if (!cJSON_IsString(said[0]) || !cJSON_IsString(said[1]))
            return nb_fail(err, NB_ERR_INPUT, "%s: conversation[%d]: expected {\"human\": TEXT, \"assistant\": TEXT}", w->where,
                           index);
        NB_TRY(add_turn(w, "user", said[0], err));
        NB_TRY(add_turn(w, "assistant", said[1], err));
        index++;
    }
    return index ? NB_OK : nb_fail(err, NB_ERR_INPUT, "%s: conversation: is empty", w->where);
}

static nb_status add_swift(turn_writer *w, nb_error *err)
{
    const cJSON *rounds = nb_json_find(w->row, "conversation");
    if (cJSON_IsArray(rounds)) return add_rounds(w, rounds, err);
    pair_columns columns = {.history = "history", .prompt = first_of(w->row, asked, NB_COUNT(asked)),
                            .response = first_of(w->row, answered, NB_COUNT(answered))};
    if (!columns.prompt) columns.prompt = "query";
    if (!columns.response) columns.response = "response";
    return add_pair(w, &columns, err);
}

static const char *document_column(const nb_row_map *map)
{
    return map->info ? map->prompt : "text";
}

static nb_status add_document(turn_writer *w, const char *column, nb_error *err)
{
    const cJSON *text;
    NB_TRY(column_text(&text, w, column, err));
    return text ? add_turn(w, "assistant", text, err) : nb_fail(err, NB_ERR_INPUT, "%s: has no '%s'", w->where, column);
}

nb_status nb_row_turns(cJSON **turns, const cJSON *row, const nb_row_map *map, nb_data_form form, const char *where,
                       nb_error *err)
{
    turn_writer  w = {.row = row, .turns = cJSON_CreateArray(), .where = where};
    pair_columns alpaca = {"instruction", "input", "output", "history"};
    if (map->info) alpaca = (pair_columns){map->prompt, map->query, map->response, map->history};
    nb_status status = !w.turns                  ? no_memory(&w, err)
                       : form == NB_DATA_TEXT   ? add_document(&w, document_column(map), err)
                       : form == NB_DATA_ALPACA ? add_pair(&w, &alpaca, err)
                                                : add_swift(&w, err);
    if (status) cJSON_Delete(w.turns);
    *turns = status ? NULL : w.turns;
    return status;
}

/* ---- what a row is ------------------------------------------------------------------------------------------------------ */

/* Roles that only sharegpt files use. */
static bool speaks_sharegpt(const cJSON *messages)
{
    static const char *const own[] = {"human", "gpt", "observation", "function_call"};
    const cJSON             *m;
    cJSON_ArrayForEach(m, messages) {
        const cJSON *role = nb_json_find(m, "role");
        if (nb_json_find(m, "from")) return true;
        for (size_t i = 0; i < NB_COUNT(own) && cJSON_IsString(role); i++)
            if (!strcmp(role->valuestring, own[i])) return true;
    }
    return false;
}

nb_data_form nb_row_form(const cJSON *row)
{
    const cJSON *rounds = nb_json_find(row, "conversation");
    if (nb_json_find(row, "conversations"))
        return nb_json_find(row, "image") || nb_json_find(row, "video") ? NB_DATA_LLAVA : NB_DATA_SHAREGPT;
    if (nb_json_find(row, "messages")) return speaks_sharegpt(nb_json_find(row, "messages")) ? NB_DATA_SHAREGPT : NB_DATA_OPENAI;
    if (cJSON_IsArray(rounds) && first_of(rounds->child, user_keys, NB_COUNT(user_keys))) return NB_DATA_SWIFT;
    if (rounds) return speaks_sharegpt(rounds) ? NB_DATA_SHAREGPT : NB_DATA_OPENAI;
    if (nb_json_find(row, "instruction") || (nb_json_find(row, "input") && nb_json_find(row, "output"))) return NB_DATA_ALPACA;
    bool question = first_of(row, asked, NB_COUNT(asked)), answer = first_of(row, answered, NB_COUNT(answered));
    if (nb_json_find(row, "query") || (question && answer)) return NB_DATA_SWIFT;
    if (nb_json_find(row, "text")) return NB_DATA_TEXT;
    return NB_DATA_OPENAI;
}

bool nb_row_forms_mix(nb_data_form a, nb_data_form b)
{
    const unsigned lists = 1u << NB_DATA_OPENAI | 1u << NB_DATA_SHAREGPT | 1u << NB_DATA_LLAVA;
    return a == b || ((lists >> a & 1) && (lists >> b & 1));
}

bool nb_row_is_blank(const cJSON *row, const nb_row_map *map)
{
    const cJSON *text = nb_json_find(row, document_column(map));
    return cJSON_IsString(text) && !text->valuestring[strspn(text->valuestring, " \t\r\n\f\v")];
}

/* Preference data has two answers a row, or a thumb up or down: there is no one conversation to run. */
nb_status nb_row_refuse(const cJSON *row, const char *where, nb_error *err)
{
    static const char *const two_answers[] = {"rejected", "rejected_response", "rejected_messages"};
    const char *key = first_of(row, two_answers, NB_COUNT(two_answers));
    if (!key && cJSON_IsBool(nb_json_find(row, "kto_tag"))) key = "kto_tag";
    if (!key && cJSON_IsBool(nb_json_find(row, "label"))) key = "label";
    if (key)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: %s: this is preference data (ranking or KTO); give supervised conversations",
                       where, key);
    if (nb_json_find(row, "role") && nb_json_find(row, "content"))
        return nb_fail(err, NB_ERR_INPUT, "%s: is a single message; a file is a list of conversations, so put brackets around "
                       "each conversation or write {\"messages\": [...]}", where);
    return NB_OK;
}
