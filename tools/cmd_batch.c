/* cmd_batch.c - a file of API calls answered without a server: OpenAI's batch format in and out.
 *
 * Calls go through the same service as those of `serve`, so they mean the same; as many are in flight as the engine answers side by
 * side, and answers are written in the order of the calls, each as soon as those before it are there.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/io/json.h"
#include "tools/cli/line_log.h"
#include "tools/cli/output.h"
#include "tools/cli/progress.h"
#include "tools/cli/stop.h"
#include "tools/commands.h"
#include "tools/session.h"

typedef struct {
    nb_common        common;
    nb_compute_flags compute;
    nb_weight_flags  weights;
    nb_engine_flags  engine;
    const char *model, *input, *output, *name, *local_media;
    int64_t     parallel, kv_tokens, max_model_len, min_pixels, max_pixels, media_timeout;
    uint64_t    media_max_bytes;
    bool        resume, offline;
} options;

#define AT(field) .at = offsetof(options, field)
static const nb_arg batch_args[] = {
    { .name = "model", .type = NB_ARG_STRING, AT(model), .positional = true, .required = true, .metavar = "MODEL", .help = "checkpoint directory" },
    { .name = "input", .aliases = "input-file", .brief = "i", .type = NB_ARG_STRING, AT(input), .positional = true, .required = true, .metavar = "IN.jsonl",
      .help = "one call a line: custom_id, method, url (/v1/chat/completions or /v1/completions) and body" },
    { .name = "output", .aliases = "output-file", .brief = "o", .type = NB_ARG_STRING, AT(output), .required = true, .metavar = "OUT.jsonl",
      .help = "one answer a line: custom_id, response (status_code, request_id, body), error" },
    { .name = "resume", .type = NB_ARG_BOOL, AT(resume), .help = "go on with an output that is there: calls that it answers are passed over" },
    { .name = "served-model-name", .type = NB_ARG_STRING, AT(name), .metavar = "NAME", .shown = "the folder's name", .help = "what answers call the model" },
    { .name = "concurrency", .aliases = "max-num-seqs,parallel,max-concurrency", .brief = "np", .type = NB_ARG_INT, AT(parallel), .min = 1, .max = 256,
      .text = "16", .group = "Capacity", .help = "calls answered side by side; no answer depends on it" },
    { .name = "kv-cache-tokens", .type = NB_ARG_INT, AT(kv_tokens), .min = 32, .max = 1e9, .text = "65536", .group = "Capacity",
      .help = "tokens whose keys and values are kept, over all calls; memory is taken as they come" },
    { .name = "max-model-len", .brief = "c", .aliases = "ctx-size", .type = NB_ARG_INT, AT(max_model_len), .min = 16, .max = 1e7,
      .shown = "the model's, at most --kv-cache-tokens", .group = "Capacity", .help = "tokens of a prompt and its answer together" },
    { .name = "min-pixels", .type = NB_ARG_INT, AT(min_pixels), .min = 1, .max = 1e9, .shown = "the checkpoint's", .group = "Pictures",
      .help = "pictures with fewer pixels are enlarged, unless a call says otherwise" },
    { .name = "max-pixels", .type = NB_ARG_INT, AT(max_pixels), .min = 1, .max = 1e9, .shown = "the checkpoint's", .group = "Pictures",
      .help = "pictures with more pixels are shrunk; a call can lower it, never raise it" },
    { .name = "allowed-local-media-path", .aliases = "media-path", .type = NB_ARG_STRING, AT(local_media), .metavar = "DIR", .group = "Pictures",
      .help = "file:// pictures below this folder may be used; without it none" },
    { .name = "offline", .type = NB_ARG_BOOL, AT(offline), .text = "false", .group = "Pictures", .help = "fetch no http(s) pictures" },
    { .name = "media-timeout", .type = NB_ARG_INT, AT(media_timeout), .min = 1, .max = 600, .text = "10", .metavar = "S", .group = "Pictures",
      .advanced = true, .help = "seconds for fetching a picture" },
    { .name = "media-max-bytes", .type = NB_ARG_SIZE, AT(media_max_bytes), .min = 1024, .max = 4e9, .text = "20MiB", .group = "Pictures",
      .advanced = true, .help = "size of an encoded picture at most" },
};
#undef AT

static const nb_arg_block blocks[] = { { batch_args, NB_COUNT(batch_args), 0 },
                                       { nb_compute_args, NB_COMPUTE_ARGS, offsetof(options, compute) },
                                       { nb_weight_args, NB_WEIGHT_ARGS, offsetof(options, weights) },
                                       { nb_engine_args, NB_ENGINE_ARGS, offsetof(options, engine) },
                                       { nb_common_args, NB_COMMON_ARGS, offsetof(options, common) },
                                       { NULL, 0, 0 } };

#ifdef NIBBLE_SERVE

#include "tools/serve/reply.h"
#include "tools/serve/request.h"

/* One line of the input on its way to a line of the output. */
typedef struct {
    char        *custom_id;
    nb_call     *call;     /* NULL: refused, error says why */
    nb_api_error error;
    const char  *code;     /* the line is not a call: what is wrong with it, for `error` instead of `response` */
} entry;

typedef struct {
    const options  *opt;
    nb_session      session;
    nb_metrics     *metrics;
    nb_service     *service;
    char           *name;
    nb_json_stream *input;
    FILE           *output;
    char          **known;      /* [known_count] custom_ids that the output answers, sorted */
    size_t          known_count, known_capacity;
    entry          *waiting;    /* [capacity] a ring; the first is the next to be written */
    size_t          capacity, first, count;
    size_t          written, failed, skipped;
    pthread_mutex_t lock;
    pthread_cond_t  changed;
    bool            awake;
    nb_meter        meter;
} batch;

/* ---- what is answered already ------------------------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static nb_status read_known(batch *b, nb_error *err)
{
    nb_json_stream *s;
    NB_TRY(nb_json_stream_open(&s, b->opt->output, err));
    nb_status status = NB_OK;
    for (size_t line; status == NB_OK;) {
        cJSON      *o;
        const char *id;
        char        where[256];
        status = nb_json_stream_next(s, &o, &line, err);
        if (status != NB_OK || !o) break;
        snprintf(where, sizeof where, "%.200s line %zu", b->opt->output, line);
        status = nb_json_get_string(o, "custom_id", &id, where, err);
        if (status == NB_OK) status = nb_grow(&b->known, &b->known_capacity, b->known_count + 1, sizeof *b->known, "answers", err);
        if (status == NB_OK && !(b->known[b->known_count++] = nb_strdup(id))) status = nb_fail(err, NB_ERR_MEMORY, "no memory for answers");
        cJSON_Delete(o);
    }
    nb_json_stream_close(s);
    if (status == NB_OK && b->known_count) qsort(b->known, b->known_count, sizeof *b->known, by_text);
    return status;
}

/* ---- from a line to a call ------------------------------------------------------------------------------------------------ */

static void wake(void *context)
{
    batch *b = context;
    pthread_mutex_lock(&b->lock);
    b->awake = true;
    pthread_cond_signal(&b->changed);
    pthread_mutex_unlock(&b->lock);
}

static void not_a_call(entry *e, const char *code, const char *message)
{
    e->code = code;
    nb_api_fail(&e->error, 400, "", "%s", message);
}

/* The call of a line's url and body; e->error when the service refuses it. */
static void ask(batch *b, entry *e, const cJSON *line)
{
    const cJSON    *url = nb_json_find(line, "url"), *method = nb_json_find(line, "method"), *body = nb_json_find(line, "body");
    nb_call_request request;
    nb_error        err;
    bool chat = cJSON_IsString(url) && !strcmp(url->valuestring, "/v1/chat/completions");
    if (!chat && !(cJSON_IsString(url) && !strcmp(url->valuestring, "/v1/completions"))) {
        not_a_call(e, "invalid_url", "url has to be /v1/chat/completions or /v1/completions");
        return;
    }
    if (method && !(cJSON_IsString(method) && !strcmp(method->valuestring, "POST"))) {
        not_a_call(e, "invalid_method", "method has to be POST");
        return;
    }
    if (!cJSON_IsObject(body)) {
        not_a_call(e, "invalid_body", "body has to be an object");
        return;
    }
    if (!(chat ? nb_request_chat : nb_request_completion)(&request, body, b->service, &e->error)) return;
    free(request.model);
    request.model = nb_strdup(b->name);
    request.stream = false;
    if (!request.model || nb_call_new(&e->call, &request, chat ? "chatcmpl-" : "cmpl-", &err) != NB_OK) {
        nb_call_request_free(&request);
        nb_api_fail(&e->error, 503, "", "out of memory for this call");
        return;
    }
    nb_call_listen(e->call, wake, b);
    if (nb_service_submit(b->service, e->call, &e->error)) return;
    nb_call_drop(e->call);
    e->call = NULL;
}

/* Reads lines until one becomes an entry of the ring.  *end: there are no more. */
static nb_status take_line(batch *b, bool *end, nb_error *err)
{
    for (;;) {
        cJSON      *line;
        size_t      number;
        const char *id;
        char        where[256];
        NB_TRY(nb_json_stream_next(b->input, &line, &number, err));
        *end = !line;
        if (*end) return NB_OK;
        snprintf(where, sizeof where, "%.200s line %zu", b->opt->input, number);
        nb_status status = nb_json_get_string(line, "custom_id", &id, where, err);
        if (status == NB_OK && b->known_count && bsearch(&id, b->known, b->known_count, sizeof *b->known, by_text)) {
            b->skipped++;
            cJSON_Delete(line);
            continue;
        }
        entry *e = &b->waiting[(b->first + b->count) % b->capacity];
        *e = (entry){ 0 };
        if (status == NB_OK && !(e->custom_id = nb_strdup(id))) status = nb_fail(err, NB_ERR_MEMORY, "no memory for a call");
        if (status == NB_OK) {
            b->count++;
            ask(b, e, line);
        }
        cJSON_Delete(line);
        return status;
    }
}

/* ---- from a call to a line ------------------------------------------------------------------------------------------------ */

static bool is_done(entry *e)
{
    if (!e->call) return true;
    pthread_mutex_lock(&e->call->lock);
    bool done = e->call->stage == NB_STAGE_DONE;
    if (done && e->call->error.status) e->error = e->call->error;
    pthread_mutex_unlock(&e->call->lock);
    return done;
}

static void emit_error(nb_emit *out, const entry *e)
{
    nb_emit_open(out, "error", '{');
    nb_emit_string(out, "code", e->code);
    nb_emit_string(out, "message", e->error.message);
    nb_emit_close(out);
}

static nb_status write_first(batch *b, nb_error *err)
{
    entry  *e = &b->waiting[b->first];
    nb_buf  line = { 0 }, body = { 0 };
    nb_emit out = nb_emit_start(&line, false);
    if (e->error.status) {
        nb_api_error_body(&body, &e->error);
    } else {
        nb_reply_source source = { .tokenizer = b->session.model->tokenizer, .model = b->name };
        nb_reply_whole(&body, e->call, &source);
    }
    while (body.size && body.data[body.size - 1] == '\n') body.data[--body.size] = 0;
    nb_emit_open(&out, NULL, '{');
    nb_emit_string(&out, "id", e->call ? e->call->id : NULL);
    nb_emit_string(&out, "custom_id", e->custom_id);
    if (e->code) {
        nb_emit_string(&out, "response", NULL);
        emit_error(&out, e);
    } else {
        nb_emit_open(&out, "response", '{');
        nb_emit_int(&out, "status_code", e->error.status ? e->error.status : 200);
        nb_emit_string(&out, "request_id", e->call ? e->call->id : NULL);
        nb_emit_raw(&out, "body", body.data);
        nb_emit_close(&out);
        nb_emit_string(&out, "error", NULL);
    }
    nb_emit_close(&out); /* ends the line */
    nb_status status = nb_buf_status(&body, "an answer", err);
    if (status == NB_OK) status = nb_line_log_add(b->output, b->opt->output, &line, err);
    nb_buf_free(&line);
    nb_buf_free(&body);
    b->written++;
    b->failed += e->error.status != 0;
    return status;
}

static void drop_first(batch *b)
{
    entry *e = &b->waiting[b->first];
    if (e->call) {
        nb_call_listen(e->call, NULL, NULL);
        nb_call_cancel(e->call);
        nb_call_drop(e->call);
    }
    free(e->custom_id);
    b->first = (b->first + 1) % b->capacity;
    b->count--;
}

/* Until something may have changed; a signal to stop is seen within a fifth of a second. */
static void wait_a_little(batch *b)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 200000000;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    pthread_mutex_lock(&b->lock);
    if (!b->awake) pthread_cond_timedwait(&b->changed, &b->lock, &until);
    b->awake = false;
    pthread_mutex_unlock(&b->lock);
}

/* ---- the command ---------------------------------------------------------------------------------------------------------- */

static nb_status answer_all(batch *b, nb_error *err)
{
    nb_meter_start(&b->meter, "batch");
    nb_status status = NB_OK;
    for (bool end = false; status == NB_OK && (!end || b->count);) {
        status = nb_stop_status(err);
        while (status == NB_OK && !end && b->count < b->capacity) status = take_line(b, &end, err);
        if (status != NB_OK) break;
        if (!b->count) continue;
        if (!is_done(&b->waiting[b->first])) {
            wait_a_little(b);
            continue;
        }
        status = write_first(b, err);
        drop_first(b);
        nb_meter_update(&b->meter, b->written, 0, "calls");
    }
    nb_meter_finish(&b->meter);
    if (status == NB_ERR_STOPPED) nb_note("%s holds %zu answers; --resume goes on with it", b->opt->output, b->written + b->known_count);
    return status;
}

static nb_status open_service(batch *b, nb_error *err)
{
    const options     *o = b->opt;
    nb_service_options s = { .max_model_len = (size_t)o->max_model_len, .vision_cache_bytes = (size_t)1 << 30, .max_queue = (int)b->capacity,
                             .max_images = 32, .max_videos = 4,
                             .engine = { .max_tokens = (size_t)o->kv_tokens, .chunk = (size_t)o->engine.chunk, .max_sequences = (int)o->parallel,
                                         .prefix_cache = true, .overcommit = true },
                             .limits = { .min_pixels = o->min_pixels, .max_pixels = o->max_pixels },
                             .media = { .root = o->local_media, .offline = o->offline, .max_bytes = o->media_max_bytes, .timeout_s = (int)o->media_timeout } };
    NB_TRY(nb_session_open(&b->session, &o->compute, err));
    NB_TRY(nb_session_model(&b->session, o->model, &o->weights, err));
    NB_TRY(nb_session_head(&b->session, &o->engine, err));
    s.engine.kv_type = nb_session_kv_type(&b->session, &o->engine);
    NB_TRY(nb_metrics_new(&b->metrics, b->name, err));
    return nb_service_start(&b->service, b->session.model, &s, b->metrics, err);
}

static nb_status open_all(batch *b, nb_error *err)
{
    const options *o = b->opt;
    b->capacity = 4 * (size_t)o->parallel; /* so that one long answer does not leave the others without work */
    b->name = o->name ? nb_strdup(o->name) : nb_folder_name(o->model);
    if (!b->name) return nb_fail(err, NB_ERR_MEMORY, "no memory for a name");
    NB_TRY(nb_alloc(&b->waiting, b->capacity, sizeof *b->waiting, "calls", err));
    NB_TRY(nb_json_stream_open(&b->input, o->input, err));
    NB_TRY(nb_line_log_open(&b->output, o->output, o->resume, err));
    if (o->resume) NB_TRY(read_known(b, err));
    return open_service(b, err);
}

static nb_status report(const batch *b, nb_error *err)
{
    nb_buf out = { 0 };
    if (nb_json_wanted()) {
        nb_emit e = nb_emit_start(&out, true);
        nb_emit_open(&e, NULL, '{');
        nb_emit_string(&e, "output", b->opt->output);
        nb_emit_int(&e, "answered", (int64_t)(b->written - b->failed));
        nb_emit_int(&e, "failed", (int64_t)b->failed);
        nb_emit_int(&e, "there_before", (int64_t)b->skipped);
        nb_emit_close(&e);
    } else {
        nb_buf_printf(&out, "%s: %zu calls answered, %zu failed", b->opt->output, b->written - b->failed, b->failed);
        if (b->skipped) nb_buf_printf(&out, ", %zu were there", b->skipped);
        nb_buf_str(&out, "\n");
    }
    nb_status status = nb_print(&out, err);
    nb_buf_free(&out);
    return status;
}

static nb_status run(nb_args *args, void *opaque, nb_error *err)
{
    batch b = { .opt = opaque, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
    (void)args;
    nb_status status = open_all(&b, err);
    if (status == NB_OK) status = answer_all(&b, err);
    while (b.count) drop_first(&b);
    nb_service_stop(b.service, 0);
    if (b.output && fclose(b.output) != 0 && status == NB_OK) status = nb_fail(err, NB_ERR_IO, "%s: cannot write: %m", b.opt->output);
    if (status == NB_OK) status = report(&b, err);
    nb_metrics_free(b.metrics);
    nb_session_close(&b.session);
    nb_json_stream_close(b.input);
    for (size_t i = 0; i < b.known_count; i++) free(b.known[i]);
    free(b.known);
    free(b.waiting);
    free(b.name);
    return status;
}

#else

static nb_status run(nb_args *args, void *opaque, nb_error *err)
{
    (void)args, (void)opaque;
    return nb_fail(err, NB_ERR_UNSUPPORTED, "this nibble was built without its server, whose parts `batch` needs; install libmicrohttpd-dev and "
                   "build with -DNIBBLE_SERVE=ON");
}

#endif

const nb_command nb_command_batch = {
    .name = "batch",
    .summary = "answer a file of OpenAI API calls without a server",
    .usage = "MODEL IN.jsonl -o OUT.jsonl [flags]",
    .about = "Every line of the input is a call in OpenAI's batch format, every line of the output its answer, in the same order. Calls mean what "
             "they mean to `nibble serve`; one that fails has its error in its line and stops nothing. A run that was cut short goes on with "
             "--resume.",
    .examples = "  nibble batch 2b-awq calls.jsonl -o answers.jsonl\n"
                "  nibble batch 2b-awq calls.jsonl -o answers.jsonl --resume --concurrency 32\n",
    .blocks = blocks,
    .options_size = sizeof(options),
    .run = run,
};
