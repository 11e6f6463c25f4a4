/* form.c - see form.h. */
#include "tools/serve/form.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_FORM_CHOICES = 4096 };

static bool set_form(nb_call_request *r, const char *key, const cJSON *value, const char *field, nb_api_error *error)
{
    if (r->form) return nb_api_fail(error, 400, field, "%s: another form is asked for already", field);
    r->form = cJSON_CreateObject();
    cJSON *copy = value ? cJSON_Duplicate(value, true) : cJSON_CreateTrue();
    if (r->form && copy && cJSON_AddItemToObject(r->form, key, copy)) return true;
    cJSON_Delete(copy);
    return nb_api_fail(error, 503, "", "the server is out of memory for this request");
}

/* ---- response_format and the guided_ family ------------------------------------------------------------------------------- */

static bool read_response_format(nb_call_request *r, const cJSON *f, nb_api_error *error)
{
    const cJSON *type = cJSON_IsObject(f) ? nb_json_find(f, "type") : NULL, *holder, *schema;
    if (!f) return true;
    if (!cJSON_IsString(type)) return nb_api_fail(error, 400, "response_format", "response_format needs a type: text, json_object or json_schema");
    if (!strcmp(type->valuestring, "text")) return true;
    if (!strcmp(type->valuestring, "json_object")) {
        schema = nb_json_find(f, "schema"); /* as llama-server takes it */
        return schema ? set_form(r, "json", schema, "response_format", error) : set_form(r, "object", NULL, "response_format", error);
    }
    if (strcmp(type->valuestring, "json_schema"))
        return nb_api_fail(error, 400, "response_format.type", "response_format.type has to be text, json_object or json_schema");
    holder = nb_json_find(f, "json_schema");
    schema = cJSON_IsObject(holder) ? nb_json_find(holder, "schema") : NULL;
    if (!schema && !cJSON_IsObject(holder)) schema = nb_json_find(f, "schema");
    if (!schema) return nb_api_fail(error, 400, "response_format.json_schema", "response_format.json_schema needs a schema");
    return set_form(r, "json", schema, "response_format", error);
}

/* guided_json may be a schema or its text. */
static bool read_guided(nb_call_request *r, const cJSON *o, const char *const names[3], nb_api_error *error)
{
    static const char *const keys[3] = {"json", "regex", "choice"};
    for (int i = 0; i < 3; i++) {
        const cJSON *v = nb_json_find(o, names[i]);
        cJSON       *parsed = NULL;
        nb_error     err;
        if (!v) continue;
        if (i == 0 && cJSON_IsString(v)) {
            if (nb_json_parse(&parsed, v->valuestring, strlen(v->valuestring), names[i], &err) != NB_OK)
                return nb_api_fail(error, 400, names[i], "%s", err.text);
            v = parsed;
        }
        if ((i == 1 && !cJSON_IsString(v)) || (i == 2 && !cJSON_IsArray(v)))
            return nb_api_fail(error, 400, names[i], i == 1 ? "%s has to be a text" : "%s has to be an array of texts", names[i]);
        bool ok = set_form(r, keys[i], v, names[i], error);
        cJSON_Delete(parsed);
        if (!ok) return false;
    }
    return true;
}

/* ---- tools ---------------------------------------------------------------------------------------------------------------- */

static const cJSON *function_of(const cJSON *tool)
{
    const cJSON *f = cJSON_IsObject(tool) ? nb_json_find(tool, "function") : NULL;
    return cJSON_IsObject(f) ? f : NULL;
}

static bool check_tools(const cJSON *tools, nb_api_error *error)
{
    for (const cJSON *t = tools->child; t; t = t->next) {
        const cJSON *f = function_of(t), *name = f ? nb_json_find(f, "name") : NULL, *parameters = f ? nb_json_find(f, "parameters") : NULL;
        size_t       n = cJSON_IsString(name) ? strlen(name->valuestring) : 0;
        if (n == 0 || n > 64 ||
            strspn(name->valuestring, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != n)
            return nb_api_fail(error, 400, "tools", "a tool is {\"type\": \"function\", \"function\": {\"name\": ...}} with a name of 1 to 64 letters, "
                               "digits, _ and -");
        if (parameters && !cJSON_IsObject(parameters)) return nb_api_fail(error, 400, "tools", "the parameters of a tool have to be a JSON schema");
    }
    return true;
}

/* The form of calls of all tools, or of the one named. */
static bool force_tools(nb_call_request *r, const cJSON *tools, const char *only, bool single, nb_api_error *error)
{
    cJSON *list = cJSON_CreateArray();
    bool   ok = list != NULL;
    int    count = 0;
    for (const cJSON *t = tools->child; t && ok; t = t->next) {
        const cJSON *name = nb_json_find(function_of(t), "name");
        if (only && strcmp(name->valuestring, only)) continue;
        cJSON *copy = cJSON_Duplicate(function_of(t), true);
        ok = copy && cJSON_AddItemToArray(list, copy);
        count++;
    }
    if (ok && count == 0) {
        cJSON_Delete(list);
        return nb_api_fail(error, 400, "tool_choice", "tool_choice names the tool '%.64s', which tools does not have", only);
    }
    ok = ok && set_form(r, "tools", list, "tool_choice", error);
    if (ok && single) ok = cJSON_AddTrueToObject(r->form, "single") != NULL;
    cJSON_Delete(list);
    if (!ok && !error->status) nb_api_fail(error, 503, "", "the server is out of memory for this request");
    return ok;
}

static bool read_tools(nb_call_request *r, const cJSON *body, bool *hide_tools, nb_api_error *error)
{
    const cJSON *tools = nb_json_find(body, "tools"), *choice = nb_json_find(body, "tool_choice"), *parallel = nb_json_find(body, "parallel_tool_calls");
    *hide_tools = false;
    if (!tools) {
        if (choice && !(cJSON_IsString(choice) && (!strcmp(choice->valuestring, "none") || !strcmp(choice->valuestring, "auto"))))
            return nb_api_fail(error, 400, "tool_choice", "tool_choice is only for requests with tools");
        return true;
    }
    if (parallel && !cJSON_IsBool(parallel)) return nb_api_fail(error, 400, "parallel_tool_calls", "parallel_tool_calls has to be true or false");
    if (!check_tools(tools, error)) return false;
    r->tools = true;
    if (!choice || (cJSON_IsString(choice) && !strcmp(choice->valuestring, "auto"))) return true;
    if (cJSON_IsString(choice) && !strcmp(choice->valuestring, "none")) {
        r->tools = false;
        *hide_tools = true;
        return true;
    }
    if (cJSON_IsString(choice) && !strcmp(choice->valuestring, "required"))
        return force_tools(r, tools, NULL, cJSON_IsFalse(parallel), error);
    const cJSON *name = cJSON_IsObject(choice) && function_of(choice) ? nb_json_find(function_of(choice), "name") : NULL;
    if (!cJSON_IsString(name))
        return nb_api_fail(error, 400, "tool_choice", "tool_choice has to be none, auto, required or {\"type\": \"function\", \"function\": {\"name\": ...}}");
    r->named_tool = true;
    return force_tools(r, tools, name->valuestring, true, error);
}

bool nb_form_read(nb_call_request *r, const cJSON *body, bool *hide_tools, nb_api_error *error)
{
    static const char *const guided[] = {"guided_json", "guided_regex", "guided_choice"}, *const structured[] = {"json", "regex", "choice"};
    const cJSON *s = nb_json_find(body, "structured_outputs");
    if (s && !cJSON_IsObject(s)) return nb_api_fail(error, 400, "structured_outputs", "structured_outputs has to be an object");
    return read_response_format(r, nb_json_find(body, "response_format"), error) && read_guided(r, body, guided, error) &&
           (!s || read_guided(r, s, structured, error)) && read_tools(r, body, hide_tools, error);
}

/* ---- grammars ------------------------------------------------------------------------------------------------------------- */

static nb_status choice_grammar(nb_grammar **out, const cJSON *list, const nb_token_trie *trie, nb_error *err)
{
    const char **texts;
    int          n = 0;
    *out = NULL;
    if (cJSON_GetArraySize(list) > MAX_FORM_CHOICES) return nb_fail(err, NB_ERR_INPUT, "a choice of more than %d texts", MAX_FORM_CHOICES);
    NB_TRY(nb_alloc(&texts, (size_t)cJSON_GetArraySize(list), sizeof *texts, "a choice", err));
    nb_status status = NB_OK;
    for (const cJSON *c = list->child; c && status == NB_OK; c = c->next) {
        if (!cJSON_IsString(c)) status = nb_fail(err, NB_ERR_INPUT, "a choice has to be an array of texts");
        else texts[n++] = c->valuestring;
    }
    if (status == NB_OK) status = nb_grammar_choice(out, texts, n, trie, err);
    free(texts);
    return status;
}

static nb_status tools_grammar(nb_grammar **out, const cJSON *form, const nb_token_trie *trie, nb_error *err)
{
    const char  *names[NB_FORM_TOOLS];
    const cJSON *schemas[NB_FORM_TOOLS];
    int          n = 0;
    for (const cJSON *t = cJSON_GetObjectItemCaseSensitive(form, "tools")->child; t && n < NB_FORM_TOOLS; t = t->next, n++) {
        names[n] = nb_json_find(t, "name")->valuestring;
        schemas[n] = nb_json_find(t, "parameters");
        if (schemas[n] && !schemas[n]->child) schemas[n] = NULL; /* {}: anything */
    }
    return nb_grammar_tools(out, names, schemas, n, cJSON_GetObjectItemCaseSensitive(form, "single") != NULL, trie, err);
}

nb_status nb_form_grammar(nb_grammar **out, const cJSON *form, const nb_token_trie *trie, nb_error *err)
{
    const cJSON *v;
    if ((v = cJSON_GetObjectItemCaseSensitive(form, "json")) != NULL) return nb_grammar_json_schema(out, v, trie, err);
    if ((v = cJSON_GetObjectItemCaseSensitive(form, "regex")) != NULL) return nb_grammar_regex(out, v->valuestring, trie, err);
    if ((v = cJSON_GetObjectItemCaseSensitive(form, "choice")) != NULL) return choice_grammar(out, v, trie, err);
    if (cJSON_GetObjectItemCaseSensitive(form, "tools")) return tools_grammar(out, form, trie, err);
    return nb_grammar_json_object(out, trie, err);
}
