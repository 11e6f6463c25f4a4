/* service.c - queues between three kinds of threads, and the loop around the engine.
 *
 *     submit -> light or media queue -> preparer: prompt, tower -> ready queue -> engine thread: streams, steps -> done
 *
 * The engine thread takes ready calls in the order of priority and arrival, and the first of them waits until its pages are free: one
 * that is large does not starve behind many that are small.
 */
#include "tools/serve/service.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "tools/cli/output.h"
#include "tools/serve/prepare.h"

enum { DRAFT_CALLS = 2 /* guessing ahead pays while the batch is small */, MAX_RUNNING = 256 };

typedef struct {
    nb_call *first, **last;
    int      count;
} call_list;

/* What a stream's callbacks get: one pointer for a call and which of its answers. */
typedef struct {
    nb_call    *call;
    nb_metrics *metrics;
    int         choice;
} target;

typedef struct {
    nb_service *service;
    call_list   queue;
    pthread_cond_t wake;
    pthread_t   thread;
    bool        started;
    bool        busy; /* preparing a call */
} preparer;

struct nb_service {
    const nb_model    *model;
    nb_service_options options;
    nb_metrics        *metrics;
    nb_engine         *engine;
    nb_prepare         prepare;

    pthread_mutex_t    lock; /* of everything below */
    pthread_cond_t     engine_wake, idle;
    preparer           light, media;
    call_list          ready;
    int                calls;      /* accepted and not done */
    int                running_count, waiting_count;
    bool               stopping, dead;
    atomic_bool        abandoned;  /* the time to drain is over */
    nb_engine_stats    stats;      /* as of the last step */
    pthread_t          engine_thread;
    bool               engine_started;

    /* The engine thread's own. */
    call_list          waiting;
    nb_call           *running[MAX_RUNNING];
    target             targets[MAX_RUNNING][NB_CALL_MAX_CHOICES];
    int                running_now;
};

static void list_init(call_list *l)
{
    l->first = NULL;
    l->last = &l->first;
    l->count = 0;
}

static void list_push(call_list *l, nb_call *c)
{
    c->next = NULL;
    *l->last = c;
    l->last = &c->next;
    l->count++;
}

static nb_call *list_pop(call_list *l)
{
    nb_call *c = l->first;
    if (!c) return NULL;
    l->first = c->next;
    if (!l->first) l->last = &l->first;
    l->count--;
    return c;
}

/* Behind all that are at least as important. */
static void list_enter(call_list *l, nb_call *c)
{
    nb_call **at = &l->first;
    while (*at && (*at)->request.generate.priority >= c->request.generate.priority) at = &(*at)->next;
    c->next = *at;
    *at = c;
    if (!c->next) l->last = &c->next;
    l->count++;
}

/* ---- the end of a call --------------------------------------------------------------------------------------------------- */

static void observe_end(nb_service *s, nb_call *c)
{
    nb_metrics *m = s->metrics;
    size_t      generated = 0;
    nb_outcome  outcome = NB_OUTCOME_STOP;
    for (int i = 0; i < c->request.n; i++) {
        generated += c->choices[i].completion_tokens;
        if (c->choices[i].finish == NB_FINISH_LENGTH) outcome = NB_OUTCOME_LENGTH;
        nb_metrics_count(m, NB_COUNT_DRAFTED, c->choices[i].drafted);
        nb_metrics_count(m, NB_COUNT_DRAFT_ACCEPTED, c->choices[i].accepted);
    }
    nb_metrics_count(m, NB_COUNT_GENERATION_TOKENS, generated);
    if (atomic_load(&c->cancelled)) outcome = NB_OUTCOME_ABORT;
    else if (c->error.status) outcome = NB_OUTCOME_ERROR;
    nb_metrics_outcome(m, outcome);
    if (outcome >= NB_OUTCOME_ABORT) return;
    nb_metrics_observe(m, NB_HIST_E2E, c->ended - c->arrived);
    nb_metrics_observe(m, NB_HIST_QUEUE, c->started - c->prepared);
    nb_metrics_observe(m, NB_HIST_PROMPT_TOKENS, (double)c->prompt_tokens);
    nb_metrics_observe(m, NB_HIST_GENERATION_TOKENS, (double)generated);
    nb_metrics_observe(m, NB_HIST_INFERENCE, c->ended - c->started);
    nb_metrics_observe(m, NB_HIST_N, c->request.n);
    nb_metrics_observe(m, NB_HIST_MAX_TOKENS, (double)c->request.generate.max_new_tokens);
    if (c->first_token == 0) return;
    nb_metrics_observe(m, NB_HIST_PREFILL, c->first_token - c->started);
    nb_metrics_observe(m, NB_HIST_DECODE, c->last_token - c->first_token);
    if (generated > 1) nb_metrics_observe(m, NB_HIST_TPOT, (c->last_token - c->first_token) / (double)(generated - 1));
}

/* What others see of the engine; its own thread alone calls this. */
static void publish(nb_service *s)
{
    pthread_mutex_lock(&s->lock);
    s->stats = nb_engine_look(s->engine);
    s->running_count = s->running_now;
    s->waiting_count = s->waiting.count;
    pthread_mutex_unlock(&s->lock);
}

/* The service lets go of a call, in whatever stage it is.  Not under the lock. */
static void finish_call(nb_service *s, nb_call *c)
{
    for (int i = 0; i < NB_CALL_MAX_CHOICES; i++) {
        nb_stream_free(c->streams[i]);
        nb_grammar_free(c->grammars[i]);
        c->streams[i] = NULL;
        c->grammars[i] = NULL;
    }
    nb_visual_drop_all(c->visual, c->prompt.media_count);
    c->visual = NULL;
    nb_prompt_free(&c->prompt);
    if (pthread_equal(pthread_self(), s->engine_thread)) publish(s); /* who hears of the end finds the figures right */
    pthread_mutex_lock(&c->lock);
    if (c->stage != NB_STAGE_DONE) {
        c->stage = NB_STAGE_DONE;
        c->ended = nb_seconds();
    }
    pthread_mutex_unlock(&c->lock);
    observe_end(s, c);
    nb_call_wake(c);
    nb_call_drop(c);
    pthread_mutex_lock(&s->lock);
    if (--s->calls == 0) pthread_cond_broadcast(&s->idle);
    pthread_mutex_unlock(&s->lock);
}

static void fail_call(nb_service *s, nb_call *c, const nb_api_error *error)
{
    pthread_mutex_lock(&c->lock);
    if (c->stage != NB_STAGE_DONE) {
        c->error = *error;
        c->stage = NB_STAGE_DONE;
        c->ended = nb_seconds();
    }
    pthread_mutex_unlock(&c->lock);
    finish_call(s, c);
}

/* What is true of a call in any stage: nobody waits for it any more, or it took too long. */
static bool has_ended(const nb_service *s, nb_call *c, nb_api_error *error)
{
    double limit = s->options.request_timeout_s;
    error->status = 0;
    if (atomic_load(&c->cancelled)) return true;
    if (atomic_load(&s->abandoned)) return nb_api_fail(error, 503, "", "the server is shutting down"), true;
    if (limit <= 0 || nb_seconds() - c->arrived < limit) return false;
    nb_api_fail(error, 504, "", "the request took longer than %.0f seconds; ask for fewer tokens or smaller pictures", limit);
    return true;
}

static bool drop_if_ended(nb_service *s, nb_call *c)
{
    nb_api_error error;
    if (!has_ended(s, c, &error)) return false;
    if (error.status) fail_call(s, c, &error);
    else finish_call(s, c);
    return true;
}

/* ---- preparing ----------------------------------------------------------------------------------------------------------- */

static void set_stage(nb_call *c, nb_call_stage stage)
{
    pthread_mutex_lock(&c->lock);
    if (c->stage != NB_STAGE_DONE) c->stage = stage;
    pthread_mutex_unlock(&c->lock);
}

static void *preparer_main(void *argument)
{
    preparer   *p = argument;
    nb_service *s = p->service;
    for (;;) {
        pthread_mutex_lock(&s->lock);
        while (!p->queue.first && !s->stopping) pthread_cond_wait(&p->wake, &s->lock);
        nb_call *c = list_pop(&p->queue);
        p->busy = c != NULL;
        pthread_mutex_unlock(&s->lock);
        if (!c) return NULL; /* stopping, and nothing left */
        nb_api_error error = {0};
        set_stage(c, NB_STAGE_PREPARING);
        bool gone = has_ended(s, c, &error);
        if (!gone && nb_prepare_call(&s->prepare, c, &error)) {
            set_stage(c, NB_STAGE_WAITING);
            nb_metrics_count(s->metrics, NB_COUNT_PROMPT_TOKENS, c->prompt_tokens);
            if (c->request.images + c->request.videos) {
                nb_metrics_observe(s->metrics, NB_HIST_FETCH, c->fetch_s);
                nb_metrics_observe(s->metrics, NB_HIST_VISION, c->encode_s);
            }
            pthread_mutex_lock(&s->lock);
            p->busy = false;
            list_push(&s->ready, c);
            pthread_cond_signal(&s->engine_wake);
            pthread_mutex_unlock(&s->lock);
            continue;
        }
        pthread_mutex_lock(&s->lock);
        p->busy = false;
        pthread_mutex_unlock(&s->lock);
        if (error.status) fail_call(s, c, &error);
        else finish_call(s, c);
    }
}

/* ---- the engine ---------------------------------------------------------------------------------------------------------- */

static void on_token(void *context, int32_t id, const nb_logprobs *logprobs)
{
    const target   *t = context;
    nb_call        *c = t->call;
    nb_call_choice *choice = &c->choices[t->choice];
    double          now = nb_seconds();
    if (c->first_token == 0) nb_metrics_observe(t->metrics, NB_HIST_TTFT, now - c->arrived);
    else if (choice->completion_tokens) nb_metrics_observe(t->metrics, NB_HIST_ITL, now - choice->last_token);
    pthread_mutex_lock(&c->lock);
    choice->completion_tokens++;
    choice->last_token = now;
    if (c->first_token == 0) c->first_token = now;
    c->last_token = now;
    if (logprobs || c->request.return_token_ids) {
        nb_call_token token = {.id = id};
        if (logprobs) {
            token.chosen = logprobs->chosen;
            token.count = logprobs->count;
            memcpy(token.top, logprobs->top, sizeof token.top);
        }
        /* Without memory for it the list of tokens is shorter; the text is whole. */
        if (nb_grow(&choice->tokens, &choice->token_capacity, choice->token_count + 1, sizeof token, "tokens", NULL) == NB_OK)
            choice->tokens[choice->token_count++] = token;
    }
    pthread_mutex_unlock(&c->lock);
}

static bool on_text(void *context, const char *text, size_t n)
{
    const target *t = context;
    pthread_mutex_lock(&t->call->lock);
    nb_buf_add(&t->call->choices[t->choice].text, text, n);
    pthread_mutex_unlock(&t->call->lock);
    return true;
}

static bool open_choice(nb_service *s, nb_call *c, int slot, int choice, nb_api_error *error)
{
    nb_generate_options o = c->request.generate;
    nb_error            err;
    s->targets[slot][choice] = (target){c, s->metrics, choice};
    o.sampling.seed += (uint64_t)choice;
    o.visual = c->visual;
    o.grammar = c->grammars[choice];
    o.draft = s->running_now <= DRAFT_CALLS && c->request.n == 1 ? s->options.draft : 0;
    o.on_token = on_token;
    o.on_text = on_text;
    o.context = &s->targets[slot][choice];
    if (nb_stream_open(&c->streams[choice], s->engine, &c->prompt, &o, &err) == NB_OK) return true;
    return nb_api_fail_from(error, &err, "");
}

/* A place in the batch and, for its prompt, pages: with nobody running it gets what there is. */
static bool has_room(const nb_service *s, const nb_call *c)
{
    nb_engine_stats e = nb_engine_look(s->engine);
    size_t          pages = (c->prompt.count + NB_KV_PAGE) / NB_KV_PAGE;
    if (s->running_now == MAX_RUNNING) return false;
    if (s->running_now == 0) return true;
    return e.sequences + (size_t)c->request.n <= (size_t)s->options.engine.max_sequences && pages <= e.pages.max - e.pages.held &&
           (s->options.engine.overcommit || nb_engine_fits(s->engine, nb_stream_total(&c->prompt, &c->request.generate)));
}

static void admit(nb_service *s)
{
    while (s->waiting.first) {
        nb_call *c = s->waiting.first;
        if (!has_room(s, c)) return;
        list_pop(&s->waiting);
        nb_api_error error = {0};
        pthread_mutex_lock(&c->lock);
        c->started = nb_seconds();
        c->stage = NB_STAGE_RUNNING;
        pthread_mutex_unlock(&c->lock);
        int slot = 0;
        while (s->running[slot]) slot++;
        if (!open_choice(s, c, slot, 0, &error)) {
            fail_call(s, c, &error);
            continue;
        }
        s->running[slot] = c;
        s->running_now++;
    }
}

static void drop_ended_waiting(nb_service *s)
{
    call_list keep;
    list_init(&keep);
    for (nb_call *c; (c = list_pop(&s->waiting)) != NULL;)
        if (!drop_if_ended(s, c)) list_push(&keep, c);
    s->waiting = keep;
    if (!keep.first) list_init(&s->waiting);
}

/* Take over what a finished stream has; true when it failed. */
static bool close_choice(nb_call *c, int i, nb_api_error *error)
{
    nb_stream       *stream = c->streams[i];
    const nb_error  *failure = nb_stream_failure(stream);
    if (failure) {
        nb_warn("%s: %s", c->id, failure->text);
        return !nb_api_fail_from(error, &(nb_error){.status = NB_ERR_IO}, "");
    }
    nb_stream_release(stream);
    const nb_answer *a = nb_stream_answer(stream);
    pthread_mutex_lock(&c->lock);
    nb_call_choice *choice = &c->choices[i];
    choice->finished = true;
    choice->finish = a->finish;
    choice->stop_string = a->stop_string;
    choice->stop_token = a->stop_token;
    choice->drafted = a->drafted;
    choice->accepted = a->accepted;
    if (a->found_tokens > c->cached_tokens) c->cached_tokens = a->found_tokens;
    pthread_mutex_unlock(&c->lock);
    nb_stream_free(stream);
    c->streams[i] = NULL;
    return false;
}

/* After a step: what ended, what may begin (further answers to a prompt, once its pages are there), what is not wanted any more. */
static void look_after(nb_service *s, int slot)
{
    nb_call     *c = s->running[slot];
    nb_api_error error = {0};
    bool         failed = has_ended(s, c, &error), open = false;
    for (int i = 0; i < c->request.n && !failed; i++) {
        bool first_is_there = c->choices[0].completion_tokens > 0 || c->choices[0].finished;
        if (!c->streams[i] && !c->choices[i].finished && first_is_there &&
            nb_engine_fits(s->engine, nb_stream_total(&c->prompt, &c->request.generate)))
            failed = !open_choice(s, c, slot, i, &error);
        if (c->streams[i] && nb_stream_finished(c->streams[i])) failed = close_choice(c, i, &error);
        open |= !c->choices[i].finished;
    }
    if (!failed && open) {
        nb_call_wake(c);
        return;
    }
    s->running[slot] = NULL;
    s->running_now--;
    if (error.status) fail_call(s, c, &error);
    else finish_call(s, c);
}

static void fail_all_running(nb_service *s, const nb_error *err)
{
    nb_warn("the engine failed: %s", err->text);
    for (int i = 0; i < MAX_RUNNING; i++) {
        nb_api_error error;
        if (!s->running[i]) continue;
        nb_api_fail_from(&error, &(nb_error){.status = NB_ERR_IO}, "");
        fail_call(s, s->running[i], &error);
        s->running[i] = NULL;
        s->running_now--;
    }
    if (err->status != NB_ERR_DEVICE) return;
    pthread_mutex_lock(&s->lock);
    s->dead = true;
    pthread_mutex_unlock(&s->lock);
}

/* Wait until there is something to do, take what is ready; false at the end. */
static bool take_ready(nb_service *s)
{
    publish(s);
    pthread_mutex_lock(&s->lock);
    while (!s->ready.first && !s->running_now && !s->waiting.first && !(s->stopping && s->calls == 0))
        pthread_cond_wait(&s->engine_wake, &s->lock);
    for (nb_call *c; (c = list_pop(&s->ready)) != NULL;) list_enter(&s->waiting, c);
    bool more = s->running_now || s->waiting.first || !s->stopping || s->calls;
    pthread_mutex_unlock(&s->lock);
    return more;
}

static void *engine_main(void *argument)
{
    nb_service *s = argument;
    nb_error    err;
    while (take_ready(s)) {
        size_t rows = 0;
        drop_ended_waiting(s);
        admit(s);
        if (!s->running_now) continue;
        nb_prepare_lock(&s->prepare);
        nb_status status = nb_engine_step(s->engine, &rows, &err);
        nb_prepare_unlock(&s->prepare);
        if (status != NB_OK) {
            fail_all_running(s, &err);
            continue;
        }
        if (rows) nb_metrics_observe(s->metrics, NB_HIST_STEP_TOKENS, (double)rows);
        for (int i = 0; i < MAX_RUNNING; i++)
            if (s->running[i]) look_after(s, i);
    }
    return NULL;
}

/* ---- the service --------------------------------------------------------------------------------------------------------- */

static nb_status start_threads(nb_service *s, nb_error *err)
{
    preparer *both[] = {&s->light, &s->media};
    for (int i = 0; i < 2; i++) {
        both[i]->service = s;
        if (pthread_create(&both[i]->thread, NULL, preparer_main, both[i]))
            return nb_fail(err, NB_ERR_IO, "the system gives no more threads");
        both[i]->started = true;
    }
    if (pthread_create(&s->engine_thread, NULL, engine_main, s)) return nb_fail(err, NB_ERR_IO, "the system gives no more threads");
    s->engine_started = true;
    return NB_OK;
}

nb_status nb_service_start(nb_service **out, const nb_model *model, const nb_service_options *options, nb_metrics *metrics, nb_error *err)
{
    NB_TRY(nb_alloc(out, 1, sizeof **out, "the service", err));
    nb_service *s = *out;
    s->model = model;
    s->options = *options;
    s->metrics = metrics;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->engine_wake, NULL);
    pthread_cond_init(&s->idle, NULL);
    pthread_cond_init(&s->light.wake, NULL);
    pthread_cond_init(&s->media.wake, NULL);
    list_init(&s->light.queue);
    list_init(&s->media.queue);
    list_init(&s->ready);
    list_init(&s->waiting);
    nb_status status = nb_engine_new(&s->engine, model, &s->options.engine, err);
    if (status == NB_OK) {
        size_t most = nb_engine_capacity(s->engine), own = (size_t)model->config.max_positions;
        if (s->options.max_model_len == 0) s->options.max_model_len = own;
        if (s->options.max_model_len > most) s->options.max_model_len = most;
        status = nb_prepare_init(&s->prepare, model, &s->options, err);
    }
    if (status == NB_OK) status = start_threads(s, err);
    if (status != NB_OK) {
        nb_service_stop(s, 0);
        *out = NULL;
    }
    return status;
}

static void wait_until(nb_service *s, double seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)seconds;
    while (s->calls)
        if (pthread_cond_timedwait(&s->idle, &s->lock, &until)) return;
}

void nb_service_stop(nb_service *s, double drain_s)
{
    if (!s) return;
    pthread_mutex_lock(&s->lock);
    s->stopping = true;
    if (s->engine_started && drain_s > 0) wait_until(s, drain_s);
    atomic_store(&s->abandoned, true);
    pthread_cond_broadcast(&s->light.wake);
    pthread_cond_broadcast(&s->media.wake);
    pthread_cond_broadcast(&s->engine_wake);
    if (s->engine_started)
        while (s->calls) {
            pthread_cond_broadcast(&s->engine_wake);
            wait_until(s, 1);
        }
    pthread_cond_broadcast(&s->engine_wake);
    pthread_mutex_unlock(&s->lock);
    if (s->light.started) pthread_join(s->light.thread, NULL);
    if (s->media.started) pthread_join(s->media.thread, NULL);
    if (s->engine_started) pthread_join(s->engine_thread, NULL);
    nb_prepare_free(&s->prepare);
    nb_engine_free(s->engine);
    pthread_cond_destroy(&s->engine_wake);
    pthread_cond_destroy(&s->idle);
    pthread_cond_destroy(&s->light.wake);
    pthread_cond_destroy(&s->media.wake);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

const nb_model *nb_service_model(const nb_service *s) { return s->model; }
const nb_service_options *nb_service_settings(const nb_service *s) { return &s->options; }

bool nb_service_healthy(nb_service *s)
{
    pthread_mutex_lock(&s->lock);
    bool healthy = !s->dead && !s->stopping;
    pthread_mutex_unlock(&s->lock);
    return healthy;
}

bool nb_service_submit(nb_service *s, nb_call *call, nb_api_error *error)
{
    bool      media = call->request.images + call->request.videos > 0;
    preparer *p = media ? &s->media : &s->light;
    pthread_mutex_lock(&s->lock);
    if (s->stopping || s->dead)
        nb_api_fail(error, 503, "", s->dead ? "the engine failed; the server has to be restarted" : "the server is shutting down");
    else if (s->calls >= s->options.max_queue)
        nb_api_fail(error, 503, "", "%d requests are waiting or running, and no more than %d are taken; try again later", s->calls,
                    s->options.max_queue);
    if (error->status) {
        error->retry_after_s = 1 + s->calls / 8;
        pthread_mutex_unlock(&s->lock);
        nb_metrics_count(s->metrics, NB_COUNT_REJECTED, 1);
        return false;
    }
    s->calls++;
    list_push(&p->queue, nb_call_hold(call));
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&s->lock);
    nb_metrics_count(s->metrics, NB_COUNT_ACCEPTED, 1);
    return true;
}

nb_service_load nb_service_look(nb_service *s)
{
    pthread_mutex_lock(&s->lock);
    nb_service_load l = {.queued = s->light.queue.count + s->media.queue.count,
                         .preparing = s->light.busy + s->media.busy, .waiting = s->waiting_count + s->ready.count,
                         .running = s->running_count, .engine = s->stats};
    pthread_mutex_unlock(&s->lock);
    l.vision = nb_visual_cache_look(s->prepare.cache);
    return l;
}
