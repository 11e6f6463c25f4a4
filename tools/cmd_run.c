/* cmd_run.c - one answer to a prompt given by flags, streamed; or the answers to a file of conversations, one JSON object a
 * line, in the order of the file.
 *
 * A file is read and checked whole before anything is computed: a mistake in its last line should cost a second, not a night.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "runtime/io/file.h"
#include "runtime/io/utf8.h"
#include "tools/cli/output.h"
#include "tools/cli/progress.h"
#include "tools/cli/stop.h"
#include "tools/commands.h"
#include "tools/session.h"

typedef struct {
    nb_common         common;
    nb_compute_flags  compute;
    nb_weight_flags   weights;
    nb_engine_flags   engine;
    nb_media_flags    media;
    nb_sampling_flags sampling;
    const char       *model, *prompt, *file, *system, *messages;
    nb_strings        images, videos;
    int64_t           parallel, context;
    bool              stats;
} options;

static const nb_arg run_args[] = {
    {.name = "model", .type = NB_ARG_STRING, .at = offsetof(options, model), .positional = true, .required = true,
     .metavar = "MODEL", .help = "checkpoint directory"},
    {.name = "prompt", .brief = "p", .type = NB_ARG_STRING, .at = offsetof(options, prompt), .metavar = "TEXT",
     .group = "One prompt", .help = "what to ask"},
    {.name = "file", .brief = "f", .aliases = "prompt-file", .type = NB_ARG_STRING, .at = offsetof(options, file),
     .metavar = "FILE", .group = "One prompt", .help = "read what to ask from a file"},
    {.name = "image", .type = NB_ARG_STRINGS, .at = offsetof(options, images), .metavar = "FILE", .group = "One prompt",
     .help = "a picture, placed before the text: a path, file://, http(s):// or data: URL"},
    {.name = "video", .type = NB_ARG_STRINGS, .at = offsetof(options, videos), .metavar = "F[,F...]",
     .group = "One prompt", .help = "a video: an mp4, mov, mkv, webm or avi file, or a comma-separated list of its frames' pictures"},
    {.name = "system", .type = NB_ARG_STRING, .at = offsetof(options, system), .metavar = "TEXT", .group = "One prompt",
     .shown = "the chat template's", .help = "system message"},
    {.name = "messages", .type = NB_ARG_STRING, .at = offsetof(options, messages), .metavar = "FILE",
     .group = "Many prompts",
     .help = "JSON lines of {\"messages\": [...], \"tools\"?, \"id\"?}; answers are JSON lines"},
    {.name = "parallel", .brief = "np", .type = NB_ARG_INT, .at = offsetof(options, parallel), .min = 1, .max = 256,
     .text = "4", .group = "Many prompts", .help = "conversations computed side by side; no answer depends on it"},
    {.name = "stats", .type = NB_ARG_BOOL, .at = offsetof(options, stats), .group = "Generation",
     .help = "print times and speeds on standard error at the end"},
    {.name = "ctx-size", .brief = "c", .aliases = "max-model-len", .type = NB_ARG_INT, .at = offsetof(options, context),
     .min = 0, .max = 1e8, .text = "0", .shown = "32768, or 16384 for each of --parallel", .group = "Generation",
     .advanced = true, .help = "tokens kept over all conversations in flight"},
};

static const nb_arg_block blocks[] = {
    {run_args, NB_COUNT(run_args), 0},
    {nb_sampling_args, NB_SAMPLING_ARGS, offsetof(options, sampling)},
    {nb_media_args, NB_MEDIA_ARGS, offsetof(options, media)},
    {nb_compute_args, NB_COMPUTE_ARGS, offsetof(options, compute)},
    {nb_weight_args, NB_WEIGHT_ARGS, offsetof(options, weights)},
    {nb_engine_args, NB_ENGINE_ARGS, offsetof(options, engine)},
    {nb_common_args, NB_COMMON_ARGS, offsetof(options, common)},
    {NULL, 0, 0}};

static void print_stats(const nb_session *s, size_t prompt_tokens, size_t tokens, double prefill_s, double decode_s)
{
    char weights[32], kv[32];
    nb_human_bytes(weights, (double)s->model->weight_bytes);
    nb_human_bytes(kv, (double)nb_engine_kv_bytes(s->engine));
    nb_note("prompt %zu tokens in %.3f s (%.1f tokens/s), answer %zu tokens, %.3f s after the first (%.1f tokens/s)",
            prompt_tokens, prefill_s, prefill_s > 0 ? (double)prompt_tokens / prefill_s : 0, tokens, decode_s,
            decode_s > 0 && tokens > 1 ? (double)(tokens - 1) / decode_s : 0);
    nb_note("weights %s, keys and values %s, model opened in %.2f s, %s on %d threads", weights, kv, s->open_s, s->ops.name,
            nb_pool_threads(s->pool));
}

/* ---- one prompt -------------------------------------------------------------------------------------------------- */

/* A name without commas that ends as video files do (the endings are those of Qwen2-VL's web demo, and .webm, .m4v). */
static bool is_video_file(const char *name)
{
    static const char *const endings[] = {".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".wmv", ".flv", ".mpeg"};
    const char              *dot = strrchr(name, '.');
    if (!dot || strchr(name, ',')) return false;
    for (size_t i = 0; i < NB_COUNT(endings); i++)
        if (!strcasecmp(dot, endings[i])) return true;
    return false;
}

/* A video file, or "a.png,b.png": the frames, of one video part. */
static nb_status add_video(nb_message *m, const char *list, nb_error *err)
{
    nb_part   part = {.kind = NB_PART_VIDEO, .is_file = is_video_file(list)};
    char     *copy = nb_strdup(list);
    char    **frames = NULL;
    size_t    capacity = 0;
    nb_status s = copy ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "out of memory for --video");
    for (char *at = copy, *name; s == NB_OK && (name = strsep(&at, ",")) != NULL;) {
        if (!*name) {
            s = nb_fail(err, NB_ERR_ARGUMENT, "--video: '%s' has an empty entry; give the frames as a.png,b.png,...", list);
            break;
        }
        s = nb_grow(&frames, &capacity, (size_t)part.frame_count + 1, sizeof *frames, "--video", err);
        if (s == NB_OK) frames[part.frame_count++] = name;
    }
    part.frames = frames;
    if (s == NB_OK) s = nb_chat_add_part(m, &part, err);
    free(frames);
    free(copy);
    return s;
}

static nb_status build_chat(nb_chat *chat, const options *opt, nb_error *err)
{
    nb_message *user;
    nb_buf      text = {0};
    if (opt->system) NB_TRY(nb_chat_add_text(chat, "system", opt->system, err));
    NB_TRY(nb_chat_add_message(chat, "user", &user, err));
    for (int i = 0; i < opt->images.count; i++) {
        nb_part part = {.kind = NB_PART_IMAGE, .text = (char *)opt->images.items[i]};
        NB_TRY(nb_chat_add_part(user, &part, err));
    }
    for (int i = 0; i < opt->videos.count; i++) NB_TRY(add_video(user, opt->videos.items[i], err));
    if (opt->file) NB_TRY(nb_file_read(&text, opt->file, 64 << 20, err));
    nb_part   part = {.kind = NB_PART_TEXT, .text = opt->file ? text.data : (char *)opt->prompt};
    nb_status s = NB_OK;
    if (text.size && memchr(text.data, 0, text.size))
        s = nb_fail(err, NB_ERR_INPUT, "%s: a prompt is text, but this file has a NUL byte", opt->file);
    else if (text.size && !nb_utf8_valid(text.data, text.size))
        s = nb_fail(err, NB_ERR_INPUT, "%s: a prompt is UTF-8 text, but this file is not", opt->file);
    else if (part.text && *part.text)
        s = nb_chat_add_part(user, &part, err);
    nb_buf_free(&text);
    return s;
}

typedef struct {
    nb_error  err;
    nb_status status;
    bool      newline; /* the text so far ends a line */
} stream;

static bool stream_text(void *context, const char *text, size_t n)
{
    stream *s = context;
    if (n) s->newline = text[n - 1] == '\n';
    s->status = nb_print_text(text, n, &s->err);
    return s->status == NB_OK && !nb_stop_requested();
}

static nb_status run_one(nb_session *s, const nb_args *args, const options *opt, nb_error *err)
{
    nb_chat             chat = {0};
    nb_prompt           prompt = {0};
    nb_answer           answer = {0};
    nb_prompt_options   prompt_options;
    nb_generate_options generate;
    stream              to = {.newline = true};
    nb_prompt_source    source = nb_model_source(s->model);
    nb_sampling_apply(&generate, &opt->sampling, args, &s->model->generation);
    generate.on_text = nb_json_wanted() ? nb_keep_going : stream_text;
    generate.context = &to;
    nb_status status = nb_media_prompt_options(&prompt_options, &opt->media, NULL, err);
    prompt_options.template_options.add_generation_prompt = true;
    if (status == NB_OK) status = build_chat(&chat, opt, err);
    if (status == NB_OK) status = nb_prompt_build(&prompt, &chat, &source, &prompt_options, err);
    if (status == NB_OK) status = nb_stop_status(err);
    if (status == NB_OK) status = nb_generate(s->engine, &prompt, &generate, &answer, err);
    if (status == NB_OK && to.status != NB_OK) status = to.status, *err = to.err;
    if (status == NB_OK && nb_json_wanted()) {
        nb_buf  out = {0};
        nb_emit e = nb_emit_start(&out, false);
        nb_emit_open(&e, NULL, '{');
        nb_emit_answer(&e, &answer);
        nb_emit_close(&e);
        status = nb_print(&out, err);
        nb_buf_free(&out);
    } else if (status == NB_OK && !to.newline) {
        status = nb_print_text("\n", 1, err);
    }
    if (status == NB_OK) nb_warn_past_trained(&answer, s->model, "the answer");
    if (status == NB_OK && opt->stats)
        print_stats(s, answer.prompt_tokens, answer.ids.count, answer.prefill_s, answer.decode_s);
    if (status == NB_OK) status = nb_stop_status(err);
    nb_answer_free(&answer);
    nb_prompt_free(&prompt);
    nb_chat_free(&chat);
    return status;
}

/* ---- many prompts ------------------------------------------------------------------------------------------------ */

typedef struct {
    nb_chat chat;
    size_t  line;
    char   *id; /* JSON text of the row's own "id", or NULL */
} row;

typedef struct {
    row    *rows;
    size_t  count, capacity;
    const options      *opt;
    nb_session         *session;
    nb_prompt_options   prompt;
    nb_generate_options generate;
    nb_meter            meter;
    bool    warned;
    size_t  built; /* the row whose prompt was made last; SIZE_MAX while one is being made */
    size_t  done, prompt_tokens, tokens;
    double  prefill_s, decode_s;
} batch;

static nb_status read_row(batch *b, const cJSON *value, size_t line, nb_error *err)
{
    char where[320];
    snprintf(where, sizeof where, "%.280s line %zu", b->opt->messages, line);
    const cJSON *messages = cJSON_IsObject(value) ? nb_json_find(value, "messages") : NULL;
    if (!messages) return nb_fail(err, NB_ERR_INPUT, "%s: not an object with \"messages\"", where);
    NB_TRY(nb_grow(&b->rows, &b->capacity, b->count + 1, sizeof *b->rows, "the conversations", err));
    row *r = &b->rows[b->count++];
    memset(r, 0, sizeof *r);
    r->line = line;
    NB_TRY(nb_chat_from_json(&r->chat, messages, nb_json_find(value, "tools"), where, err));
    if (!b->warned && r->chat.count > 0 && strcmp(r->chat.messages[r->chat.count - 1].role, "assistant") == 0) {
        nb_warn("%s ends with an assistant message; the model is asked for one more (said once)", where);
        b->warned = true;
    }
    const cJSON *id = nb_json_find(value, "id");
    if (id) {
        nb_buf text = {0};
        nb_json_print(&text, id, NB_JSON_COMPACT);
        NB_TRY(nb_buf_status(&text, "an id", err));
        r->id = text.data; /* malloc'd by the buffer */
    }
    return NB_OK;
}

static nb_status read_rows(batch *b, nb_error *err)
{
    nb_json_stream *stream_in;
    NB_TRY(nb_json_stream_open(&stream_in, b->opt->messages, err));
    nb_status s;
    cJSON    *value;
    size_t    line;
    while ((s = nb_json_stream_next(stream_in, &value, &line, err)) == NB_OK && value) {
        s = read_row(b, value, line, err);
        cJSON_Delete(value);
        if (s == NB_OK) s = nb_stop_status(err);
        if (s != NB_OK) break;
    }
    nb_json_stream_close(stream_in);
    if (s == NB_OK && b->count == 0) s = nb_fail(err, NB_ERR_INPUT, "%s: no conversation in it", b->opt->messages);
    return s;
}

static nb_status prompt_at(void *context, size_t i, nb_prompt *out, nb_generate_options *generate, nb_error *err)
{
    batch            *b = context;
    nb_prompt_source  source = nb_model_source(b->session->model);
    nb_prompt_options prompt = b->prompt;
    char              where[320];
    NB_TRY(nb_stop_status(err));
    snprintf(where, sizeof where, "%.280s line %zu", b->opt->messages, b->rows[i].line);
    prompt.where = where;
    *generate = b->generate;
    b->built = SIZE_MAX;
    NB_TRY(nb_prompt_build(out, &b->rows[i].chat, &source, &prompt, err));
    b->built = i;
    return NB_OK;
}

static nb_status answer_at(void *context, size_t i, nb_answer *answer, nb_error *err)
{
    batch    *b = context;
    nb_buf    out = {0};
    nb_emit   e = nb_emit_start(&out, false);
    nb_status s = nb_stop_status(err); /* an answer that was cut short by a signal is not a result */
    if (s != NB_OK) return s;
    nb_emit_open(&e, NULL, '{');
    nb_emit_int(&e, "line", (int64_t)b->rows[i].line);
    if (b->rows[i].id) nb_emit_raw(&e, "id", b->rows[i].id);
    nb_emit_answer(&e, answer);
    nb_emit_close(&e);
    s = nb_print(&out, err);
    nb_buf_free(&out);
    char where[320];
    snprintf(where, sizeof where, "%.280s line %zu", b->opt->messages, b->rows[i].line);
    nb_warn_past_trained(answer, b->session->model, where);
    b->prompt_tokens += answer->prompt_tokens;
    b->tokens += answer->ids.count;
    b->prefill_s += answer->prefill_s;
    b->decode_s += answer->decode_s;
    nb_meter_update(&b->meter, ++b->done, b->count, NULL);
    return s;
}

static nb_status run_many(nb_session *s, batch *b, const nb_args *args, const options *opt, nb_error *err)
{
    nb_sampling_apply(&b->generate, &opt->sampling, args, &s->model->generation);
    b->generate.on_text = nb_keep_going;
    b->session = s;
    nb_meter_start(&b->meter, "run");
    double    start = nb_seconds();
    nb_status status = nb_generate_many(s->engine, b->count, (int)opt->parallel, prompt_at, answer_at, b, err);
    double    took = nb_seconds() - start;
    nb_meter_finish(&b->meter);
    if (status == NB_ERR_BUDGET && b->built != SIZE_MAX) /* the engine does not know where a prompt comes from */
        nb_error_within(err, "%.280s line %zu", opt->messages, b->rows[b->built].line);
    if (status == NB_OK && opt->stats)
        nb_note("%zu answers in %.2f s: %zu prompt tokens, %zu answer tokens, %.1f answer tokens/s", b->count, took,
                b->prompt_tokens, b->tokens, took > 0 ? (double)b->tokens / took : 0);
    return status;
}

static void free_batch(batch *b)
{
    for (size_t i = 0; i < b->count; i++) {
        nb_chat_free(&b->rows[i].chat);
        free(b->rows[i].id);
    }
    free(b->rows);
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static nb_status check(const options *opt, nb_error *err)
{
    bool one = opt->prompt || opt->file || opt->images.count || opt->videos.count || opt->system;
    if (opt->messages && one)
        return nb_fail(err, NB_ERR_ARGUMENT,
                       "--messages brings its own prompts: leave out --prompt, --file, --image, --video and --system");
    if (opt->prompt && opt->file) return nb_fail(err, NB_ERR_ARGUMENT, "give --prompt or --file, not both");
    if (!opt->messages && !opt->prompt && !opt->file)
        return nb_fail(err, NB_ERR_ARGUMENT, "nothing to run: give -p TEXT, -f FILE or --messages FILE");
    return NB_OK;
}

static nb_status run(nb_args *args, void *opaque, nb_error *err)
{
    const options *opt = opaque;
    nb_session     s = {0};
    batch          b = {.opt = opt};
    char          *folder = NULL;
    NB_TRY(check(opt, err));
    nb_status status = NB_OK;
    if (opt->messages) {
        folder = nb_path_folder(opt->messages);
        status = folder ? nb_media_prompt_options(&b.prompt, &opt->media, folder, err)
                        : nb_fail(err, NB_ERR_MEMORY, "out of memory");
        b.prompt.template_options.add_generation_prompt = true;
        if (status == NB_OK) status = read_rows(&b, err);
    }
    int    parallel = opt->messages ? (int)opt->parallel : 1;
    size_t context = opt->context ? (size_t)opt->context : parallel > 2 ? (size_t)parallel * 16384 : 32768;
    if (status == NB_OK) status = nb_session_open(&s, &opt->compute, err);
    if (status == NB_OK) status = nb_session_model(&s, opt->model, &opt->weights, err);
    if (status == NB_OK) status = nb_session_engine(&s, &opt->engine, context, parallel, err);
    if (status == NB_OK) status = nb_stop_status(err);
    if (status == NB_OK) status = opt->messages ? run_many(&s, &b, args, opt, err) : run_one(&s, args, opt, err);
    free_batch(&b);
    free(folder);
    nb_session_close(&s);
    return status;
}

const nb_command nb_command_run = {
    .name = "run",
    .summary = "answer a prompt, with pictures or without, or a whole file of them",
    .usage = "MODEL -p TEXT [--image FILE]... | --messages FILE.jsonl [flags]",
    .about = "Asks the model one thing and streams the answer to standard output; or, with --messages, answers every "
             "conversation of a file of JSON lines, in its order, several at a time. The checkpoint may be float, AWQ, "
             "GPTQ or compressed-tensors.\n\n"
             "Sampling follows the checkpoint's generation_config.json unless flags say otherwise. Answers are the "
             "same for any number of threads and any --parallel.",
    .examples = "  nibble run MODEL -p \"Name three rivers.\" --temp 0\n"
                "  nibble run MODEL --image receipt.jpg -p \"What is the total?\" --max-pixels 1280*28*28\n"
                "  nibble run MODEL --messages questions.jsonl --image-root pictures --temp 0 > answers.jsonl\n",
    .blocks = blocks,
    .options_size = sizeof(options),
    .run = run,
};
