/* benchmark.c - see benchmark.h. */
#include "tools/eval/benchmark.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/engine/generate.h"
#include "tools/cli/output.h"
#include "tools/cli/progress.h"
#include "tools/cli/stop.h"
#include "tools/client/body.h"

typedef struct {
    const nb_benchmark  *b;
    const nb_row_log_of *of;
    nb_session          *s;
    nb_task             *task;
    nb_prompt_options    prompt;
    nb_meter             meter;
    size_t              *todo;       /* rows that no log answers */
    size_t               count;
    char                 built[256]; /* where the prompt made last came from; empty while one is being made */
    size_t               cut;        /* answers that reached --predict */
} questions;

/* The rows to ask: all, but those that the log has. */
static nb_status choose_rows(questions *q, nb_error *err)
{
    bool *answered;
    NB_TRY(nb_alloc(&answered, q->task->rows, sizeof *answered, "rows", err));
    nb_status status = nb_alloc(&q->todo, q->task->rows, sizeof *q->todo, "rows", err);
    if (status == NB_OK && q->b->resume) status = nb_row_log_recall(q->b->log, q->of, q->task, answered, err);
    for (size_t i = 0; i < q->task->rows && status == NB_OK; i++)
        if (!answered[i]) q->todo[q->count++] = i;
    free(answered);
    if (status == NB_OK && q->count < q->task->rows)
        nb_note("%s: %zu of %zu rows of %s are taken from %s", q->of->model, q->task->rows - q->count, q->task->rows, q->task->name, q->b->log_path);
    return status;
}

static nb_status answered(questions *q, size_t i, const char *text, bool cut, nb_error *err)
{
    NB_TRY(nb_stop_status(err));
    NB_TRY(nb_task_answer(q->task, q->todo[i], text, err));
    if (q->b->log) NB_TRY(nb_row_log_add(q->b->log, q->of, q->task, q->todo[i], err));
    q->cut += cut;
    nb_meter_update(&q->meter, q->task->rows - q->count + i + 1, q->task->rows, q->task->name);
    return NB_OK;
}

/* ---- here ---------------------------------------------------------------------------------------------------------------- */

static nb_status prompt_at(void *context, size_t i, nb_prompt *out, nb_generate_options *generate, nb_error *err)
{
    questions        *q = context;
    nb_chat           chat;
    char              where[256];
    nb_prompt_source  source = nb_model_source(q->s->model);
    nb_prompt_options how = q->prompt;
    NB_TRY(nb_stop_status(err));
    q->built[0] = 0;
    NB_TRY(nb_task_chat(q->task, q->todo[i], &chat, where, err));
    how.where = where;
    *generate = (nb_generate_options){ .sampling = { .greedy = true, .temperature = 1, .top_p = 1, .repetition_penalty = 1 },
                                       .max_new_tokens = q->b->predict, .on_text = nb_keep_going };
    nb_status status = nb_prompt_build(out, &chat, &source, &how, err);
    if (status == NB_OK) memcpy(q->built, where, sizeof where);
    nb_chat_free(&chat);
    return status;
}

static nb_status answer_at(void *context, size_t i, nb_answer *answer, nb_error *err)
{
    return answered(context, i, answer->text.data ? answer->text.data : "", answer->finish == NB_FINISH_LENGTH, err);
}

static nb_status ask_here(questions *q, nb_error *err)
{
    q->prompt.template_options.add_generation_prompt = true;
    nb_status status = nb_generate_many(q->s->engine, q->count, q->b->parallel, prompt_at, answer_at, q, err);
    if (status == NB_ERR_BUDGET && q->built[0]) nb_error_within(err, "%s", q->built); /* the engine does not know where a prompt comes from */
    return status;
}

/* ---- at a server ----------------------------------------------------------------------------------------------------------- */

#ifdef NIBBLE_CURL

static nb_status body_at(void *context, size_t i, nb_buf *body, nb_error *err)
{
    questions *q = context;
    nb_chat    chat;
    char       where[256];
    nb_api_ask ask = { .model = q->of->model, .max_tokens = q->b->predict, .min_pixels = q->prompt.limits.min_pixels,
                       .max_pixels = q->prompt.limits.max_pixels };
    NB_TRY(nb_stop_status(err));
    NB_TRY(nb_task_chat(q->task, q->todo[i], &chat, where, err));
    nb_status status = nb_api_chat_body(body, &chat, &ask, err);
    nb_chat_free(&chat);
    return status;
}

static nb_status reply_at(void *context, size_t i, const cJSON *reply, nb_error *err)
{
    questions   *q = context;
    const char  *text = nb_api_text(reply);
    const cJSON *finish = nb_json_find(cJSON_GetArrayItem(nb_json_find(reply, "choices"), 0), "finish_reason");
    if (!text && !cJSON_IsString(finish))
        return nb_fail(err, NB_ERR_INPUT, "%s: row %s: the server's reply has no answer in choices[0].message.content", q->task->name,
                       nb_tsv_index(q->task->table, q->todo[i]));
    return answered(q, i, text ? text : "", cJSON_IsString(finish) && !strcmp(finish->valuestring, "length"), err);
}

static nb_status ask_server(questions *q, const nb_api *api, nb_error *err)
{
    return nb_api_many(api, "/chat/completions", q->count, q->b->parallel, body_at, reply_at, q, err);
}

#else

static nb_status ask_server(questions *q, const nb_api *api, nb_error *err)
{
    (void)q, (void)api;
    return nb_fail(err, NB_ERR_UNSUPPORTED, "this nibble was built without libcurl, which --url needs");
}

#endif

/* ---- a benchmark ----------------------------------------------------------------------------------------------------------- */

nb_status nb_benchmark_run(const nb_benchmark *b, const char *spec, nb_session *s, const nb_api *api, const nb_row_log_of *of, nb_eval_row *row,
                           nb_error *err)
{
    nb_task   task;
    questions q = { .b = b, .of = of, .s = s, .task = &task };
    NB_TRY(nb_task_open(&task, spec, b->missing_as_pandas, b->limit, err));
    task.scoring = b->scoring;
    nb_status status = nb_media_prompt_options(&q.prompt, b->media, NULL, err);
    nb_meter_start(&q.meter, task.name);
    if (status == NB_OK) status = choose_rows(&q, err);
    if (status == NB_OK) status = api ? ask_server(&q, api, err) : ask_here(&q, err);
    nb_meter_finish(&q.meter);
    if (status == NB_OK && q.cut) nb_warn("%s: %zu answers were cut at %d tokens", task.name, q.cut, b->predict);
    if (status == NB_OK) status = nb_eval_row_add_task(row, &task, err);
    free(q.todo);
    nb_task_close(&task);
    return status;
}

nb_status nb_benchmark_load(const nb_benchmark *b, const char *spec, const char *log, nb_eval_row *row, nb_error *err)
{
    nb_task task;
    NB_TRY(nb_task_open(&task, spec, b->missing_as_pandas, b->limit, err));
    task.scoring = b->scoring;
    nb_status status = nb_row_log_load(log, &task, err);
    if (status == NB_OK) status = nb_eval_row_add_task(row, &task, err);
    nb_task_close(&task);
    return status;
}
