/* nibble.c - the public functions, each a few calls of the parts below. */
#include "runtime/nibble.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/engine/generate.h"

#ifndef NIBBLE_VERSION
#error "the build defines NIBBLE_VERSION"
#endif

struct nb_handle {
    nb_pool   *pool;
    nb_model  *model;
    nb_engine *engine;
    char      *media_root;
    bool       offline;
};

static int report(nb_status status, const nb_error *err, char *error, size_t size)
{
    if (size) {
        size_t n = status == NB_OK ? 0 : strlen(err->text);
        n = n < size ? n : size - 1;
        memcpy(error, err->text, n);
        error[n] = 0;
    }
    return nb_status_exit_code(status);
}

const char *nb_version(void) { return NIBBLE_VERSION; }

static nb_status open_handle(nb_handle *h, const char *directory, const nb_open_options *o, nb_error *err)
{
    nb_isa            isa;
    nb_ops            ops;
    nb_engine_options engine = { .max_tokens = o->max_tokens, .max_sequences = 1, .kv_type = NB_BF16 };
    h->offline = o->offline;
    if (o->media_root && !(h->media_root = nb_strdup(o->media_root))) return nb_fail(err, NB_ERR_MEMORY, "no memory for a path");
    NB_TRY(nb_isa_from_environment(&isa, err));
    NB_TRY(nb_pool_new(&h->pool, o->threads, err));
    nb_ops_init(&ops, isa, h->pool);
    NB_TRY(nb_model_open(&h->model, directory, &ops, 0, err));
    return nb_engine_new(&h->engine, h->model, &engine, err);
}

int nb_open(nb_handle **out, const char *directory, const nb_open_options *options, char *error, size_t error_size)
{
    static const nb_open_options defaults;
    nb_error  err = { 0 };
    nb_status status = nb_alloc(out, 1, sizeof **out, "a model handle", &err);
    if (status == NB_OK) status = open_handle(*out, directory, options ? options : &defaults, &err);
    if (status != NB_OK) {
        nb_close(*out);
        *out = NULL;
    }
    return report(status, &err, error, error_size);
}

void nb_close(nb_handle *h)
{
    if (!h) return;
    nb_engine_free(h->engine);
    nb_model_close(h->model);
    nb_pool_free(h->pool);
    free(h->media_root);
    free(h);
}

static bool pass_on(void *context, const char *text, size_t n)
{
    const nb_request *r = context;
    return r->on_text(r->context, text, n) != 0;
}

static nb_status build_prompt(nb_prompt *out, const nb_handle *h, const char *messages, const char *tools, nb_error *err)
{
    cJSON            *tree = NULL, *tool_tree = NULL;
    nb_chat           chat = { 0 };
    nb_prompt_source  source = nb_model_source(h->model);
    nb_prompt_options options = { .template_options = { .add_generation_prompt = true },
                                  .media = { .root = h->media_root, .offline = h->offline } };
    nb_status status = nb_json_parse(&tree, messages, strlen(messages), "messages", err);
    if (status == NB_OK && tools) status = nb_json_parse(&tool_tree, tools, strlen(tools), "tools", err);
    if (status == NB_OK) status = nb_chat_from_json(&chat, tree, tool_tree, NULL, err);
    if (status == NB_OK) status = nb_prompt_build(out, &chat, &source, &options, err);
    nb_chat_free(&chat);
    cJSON_Delete(tree);
    cJSON_Delete(tool_tree);
    return status;
}

static nb_sampling sampling_of(const nb_handle *h, const nb_request *r)
{
    nb_sampling s = nb_sampling_default(&h->model->generation);
    s.seed = r->seed;
    if (r->temperature >= 0) {
        s.greedy = r->temperature == 0;
        s.temperature = r->temperature > 0 ? r->temperature : 1;
        if (r->top_k > 0) s.top_k = r->top_k;
        if (r->top_p > 0) s.top_p = r->top_p;
    }
    return s;
}

int nb_ask(nb_handle *h, const char *messages_json, const nb_request *request, nb_reply *out, char *error, size_t error_size)
{
    static const nb_request defaults;
    const nb_request *r = request ? request : &defaults;
    nb_error  err = { 0 };
    nb_prompt prompt = { 0 };
    nb_answer answer = { 0 };
    memset(out, 0, sizeof *out);
    nb_generate_options o = { .sampling = sampling_of(h, r), .max_new_tokens = r->max_new_tokens ? r->max_new_tokens : 512,
                              .on_text = r->on_text ? pass_on : NULL, .context = (void *)r };
    nb_status status = build_prompt(&prompt, h, messages_json, r->tools_json, &err);
    if (status == NB_OK) status = nb_generate(h->engine, &prompt, &o, &answer, &err);
    if (status == NB_OK) {
        nb_buf_str(&answer.text, ""); /* an empty answer is an empty string, not NULL */
        status = nb_buf_status(&answer.text, "the answer", &err);
    }
    if (status == NB_OK) {
        *out = (nb_reply){ .text = answer.text.data, .prompt_tokens = answer.prompt_tokens, .answer_tokens = answer.ids.count,
                           .stopped = answer.finish == NB_FINISH_STOP };
        answer.text = (nb_buf){ 0 };
    }
    nb_answer_free(&answer);
    nb_prompt_free(&prompt);
    return report(status, &err, error, error_size);
}

void nb_reply_free(nb_reply *reply)
{
    free(reply->text);
    memset(reply, 0, sizeof *reply);
}
