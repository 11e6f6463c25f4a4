/* generate.c - steps until answers are finished. */
#include "runtime/engine/generate.h"

#include <stdlib.h>
#include <string.h>

static nb_status failure_of(const nb_stream *s, nb_error *err)
{
    const nb_error *failure = nb_stream_failure(s);
    return failure ? nb_fail(err, failure->status, "%s", failure->text) : NB_OK;
}

nb_status nb_generate(nb_engine *e, const nb_prompt *prompt, const nb_generate_options *options, nb_answer *out, nb_error *err)
{
    nb_stream *s;
    memset(out, 0, sizeof *out);
    NB_TRY(nb_stream_open(&s, e, prompt, options, err));
    nb_status status = NB_OK;
    while (status == NB_OK && !nb_stream_finished(s)) {
        size_t advanced;
        status = nb_engine_step(e, &advanced, err);
    }
    if (status == NB_OK) status = failure_of(s, err);
    if (status == NB_OK) {
        nb_stream_release(s);
        *out = *nb_stream_answer(s);
        memset(nb_stream_answer(s), 0, sizeof *out);
    }
    nb_stream_free(s);
    return status;
}

/* ---- many -------------------------------------------------------------------------------------------------------------- */

typedef struct {
    nb_engine    *engine;
    nb_stream   **streams; /* [count] NULL before its start and after its answer was handed over */
    bool         *released;
    size_t        count, next, handed; /* next prompt to start; answers handed over */
    size_t        running;
    int           parallel;
    nb_prompt_at *prompt;
    nb_answer_at *answer;
    void         *context;
    nb_prompt     waiting; /* a prompt that was built but did not fit yet */
    nb_generate_options waiting_options;
    bool          has_waiting;
} many;

static nb_status start_some(many *m, nb_error *err)
{
    while (m->next < m->count && m->running < (size_t)m->parallel) {
        if (!m->has_waiting) {
            memset(&m->waiting_options, 0, sizeof m->waiting_options);
            NB_TRY(m->prompt(m->context, m->next, &m->waiting, &m->waiting_options, err));
            m->has_waiting = true;
        }
        if (m->running > 0 && !nb_engine_fits(m->engine, nb_stream_total(&m->waiting, &m->waiting_options))) return NB_OK;
        NB_TRY(nb_stream_open(&m->streams[m->next], m->engine, &m->waiting, &m->waiting_options, err));
        nb_prompt_free(&m->waiting);
        m->has_waiting = false;
        m->next++;
        m->running++;
    }
    return NB_OK;
}

/* Free the pages of what has finished, hand over answers whose turn it is. */
static nb_status collect(many *m, nb_error *err)
{
    for (size_t i = m->handed; i < m->next; i++) {
        if (m->released[i] || !nb_stream_finished(m->streams[i])) continue;
        nb_stream_release(m->streams[i]);
        m->released[i] = true;
        m->running--;
    }
    while (m->handed < m->next && m->released[m->handed]) {
        nb_stream *s = m->streams[m->handed];
        NB_TRY(failure_of(s, err));
        NB_TRY(m->answer(m->context, m->handed, nb_stream_answer(s), err));
        nb_stream_free(s);
        m->streams[m->handed++] = NULL;
    }
    return NB_OK;
}

nb_status nb_generate_many(nb_engine *e, size_t count, int parallel, nb_prompt_at *prompt, nb_answer_at *answer, void *context,
                           nb_error *err)
{
    many m = { .engine = e, .count = count, .parallel = parallel < 1 ? 1 : parallel, .prompt = prompt, .answer = answer,
               .context = context };
    nb_status status = nb_alloc(&m.streams, count, sizeof *m.streams, "answers", err);
    if (status == NB_OK) status = nb_alloc(&m.released, count, sizeof *m.released, "answers", err);
    while (status == NB_OK && m.handed < count) {
        size_t advanced;
        status = start_some(&m, err);
        if (status == NB_OK) status = nb_engine_step(e, &advanced, err);
        if (status == NB_OK) status = collect(&m, err);
    }
    for (size_t i = m.handed; i < m.next; i++) nb_stream_free(m.streams[i]);
    if (m.has_waiting) nb_prompt_free(&m.waiting);
    free(m.streams);
    free(m.released);
    return status;
}
