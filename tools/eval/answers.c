/* answers.c - see answers.h. */
#include "tools/eval/answers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli/stop.h"
#include "tools/report/thumbnail.h"
#include "tools/session.h"

nb_status nb_answers_init(nb_answers *a, size_t wanted, const nb_model *model, const nb_prompt_options *prompt, nb_error *err)
{
    *a = (nb_answers){ .wanted = wanted, .model = model, .prompt = *prompt };
    a->prompt.template_options.add_generation_prompt = true;
    return nb_alloc(&a->questions, wanted, sizeof *a->questions, "questions", err);
}

/* ---- questions ------------------------------------------------------------------------------------------------------- */

static void add_text(nb_buf *out, const nb_message *m)
{
    for (int i = 0; i < m->count; i++) {
        if (m->parts[i].kind == NB_PART_TEXT) nb_buf_str(out, m->parts[i].text ? m->parts[i].text : "");
        else nb_buf_str(out, m->parts[i].kind == NB_PART_IMAGE ? "[picture] " : "[video] ");
    }
}

/* The system's message is the same everywhere and says nothing about the answers. */
static char *question_text(const nb_chat *chat, nb_error *err)
{
    nb_buf b = { 0 };
    for (int i = 0; i < chat->count; i++) {
        const nb_message *m = &chat->messages[i];
        if (!strcmp(m->role, "system")) continue;
        if (b.size) nb_buf_char(&b, '\n');
        nb_buf_printf(&b, "%s: ", m->role);
        add_text(&b, m);
    }
    nb_buf_str(&b, "");
    if (nb_buf_status(&b, "a question", err)) nb_buf_free(&b);
    return b.data;
}

/* What a thumbnail cannot be made of is shown without one: the model has seen it all the same. */
static void take_picture(nb_question *q, const char *reference, const nb_media_options *media)
{
    nb_buf   url = { 0 };
    nb_error ignored;
    int      at = q->pictures++;
    if (at >= NB_ANSWER_PICTURES || !reference) return;
    if (nb_thumbnail(&url, reference, media, &ignored) == NB_OK) q->picture[at] = url.data;
    else nb_buf_free(&url);
}

static void take_pictures(nb_question *q, const nb_chat *chat, const nb_media_options *media)
{
    for (int i = 0; i < chat->count; i++)
        for (int k = 0; k < chat->messages[i].count; k++) {
            const nb_part *p = &chat->messages[i].parts[k];
            if (p->kind == NB_PART_IMAGE) take_picture(q, p->text, media);
            if (p->kind == NB_PART_VIDEO) take_picture(q, p->is_file || !p->frame_count ? NULL : p->frames[0], media);
        }
}

static void question_free(nb_question *q)
{
    free(q->question);
    free(q->expected);
    for (int k = 0; k < 2; k++) free(q->answer[k]);
    for (int k = 0; k < NB_ANSWER_PICTURES; k++) free(q->picture[k]);
    nb_prompt_free(&q->prompt);
    memset(q, 0, sizeof *q);
}

void nb_answers_free(nb_answers *a)
{
    for (size_t i = 0; i < a->count; i++) question_free(&a->questions[i]);
    free(a->questions);
    memset(a, 0, sizeof *a);
}

/* asked: the row's messages but the last. */
static nb_status ask(nb_question *q, const nb_answers *a, const nb_chat *asked, const nb_message *expected, const char *root, const char *where,
                     nb_error *err)
{
    nb_prompt_source  source = nb_model_source(a->model);
    nb_prompt_options how = a->prompt;
    nb_buf            text = { 0 };
    how.where = where;
    if (!how.media.root) how.media.root = root;
    NB_TRY(nb_prompt_build(&q->prompt, asked, &source, &how, err));
    snprintf(q->where, sizeof q->where, "%s", where);
    q->question = question_text(asked, err);
    if (!q->question) return NB_ERR_MEMORY;
    add_text(&text, expected);
    nb_buf_str(&text, "");
    q->expected = text.data;
    NB_TRY(nb_buf_status(&text, "an answer", err));
    take_pictures(q, asked, &how.media);
    return NB_OK;
}

nb_status nb_answers_seen(void *answers, const nb_chat *chat, const nb_prompt *prompt, const char *root, const char *where, nb_error *err)
{
    nb_answers *a = answers;
    nb_chat     asked = *chat; /* a view */
    (void)prompt;
    if (a->count == a->wanted || chat->count < 2 || strcmp(chat->messages[chat->count - 1].role, "assistant")) return NB_OK;
    asked.count--;
    nb_status status = ask(&a->questions[a->count], a, &asked, &chat->messages[asked.count], root, where, err);
    if (status) question_free(&a->questions[a->count]);
    else a->count++;
    return status == NB_ERR_INPUT || status == NB_ERR_UNSUPPORTED ? NB_OK : status; /* one that cannot be asked is not */
}

/* ---- answers --------------------------------------------------------------------------------------------------------- */

static nb_status answer(nb_question *q, int which, nb_engine *engine, nb_error *err)
{
    nb_answer           got;
    nb_generate_options how = { .sampling = { .greedy = true, .temperature = 1, .top_p = 1, .repetition_penalty = 1 },
                                .max_new_tokens = NB_ANSWER_TOKENS, .on_text = nb_keep_going };
    nb_status status = nb_generate(engine, &q->prompt, &how, &got, err);
    if (!status && got.finish == NB_FINISH_CANCELLED) status = nb_stop_status(err);
    if (!status) {
        q->cut[which] = got.finish == NB_FINISH_LENGTH;
        q->answer[which] = nb_strdup(got.text.data ? got.text.data : "");
        if (!q->answer[which]) status = nb_fail(err, NB_ERR_MEMORY, "out of memory for an answer");
    }
    if (!status && which == 1) {
        q->same = q->answer[0] && !strcmp(q->answer[0], q->answer[1]);
        nb_prompt_free(&q->prompt);
    }
    nb_answer_free(&got);
    return status;
}

static nb_status answer_all(nb_answers *a, int which, nb_model *model, bool (*step)(void *, size_t, size_t, const char *), void *context,
                            nb_error *err)
{
    size_t     longest = 0;
    nb_engine *engine;
    for (size_t i = 0; i < a->count; i++)
        if (a->questions[i].prompt.count > longest) longest = a->questions[i].prompt.count;
    nb_engine_options options = { .max_tokens = longest + NB_ANSWER_TOKENS + NB_KV_PAGE, .max_sequences = 1, .kv_type = nb_kv_auto(model) };
    NB_TRY(nb_engine_new(&engine, model, &options, err));
    nb_status status = NB_OK;
    for (size_t i = 0; i < a->count && !status; i++) {
        char what[64];
        snprintf(what, sizeof what, "answer %zu of %zu, %s", i + 1, a->count, which ? "quantized" : "original");
        if (step && !step(context, (size_t)which * a->count + i, 2 * a->count, what))
            status = nb_fail(err, NB_ERR_STOPPED, "stopped before judging was done, at %s", what);
        if (!status) status = answer(&a->questions[i], which, engine, err);
    }
    nb_engine_free(engine);
    return status;
}

nb_status nb_answers_generate(nb_answers *a, int which, nb_model *model, bool (*step)(void *, size_t, size_t, const char *), void *context,
                              nb_error *err)
{
    nb_status status = NB_OK;
    if (a->count == 0) return NB_OK;
    for (int i = 0; i < model->config.layers && !status; i++) status = nb_model_load_layer(model, i, &model->layers[i], err);
    if (!status) status = answer_all(a, which, model, step, context, err);
    for (int i = 0; i < model->config.layers; i++) nb_layer_release(&model->ops, &model->layers[i]);
    return status;
}
