/* cmd_chat.c - a conversation on the terminal, or from a pipe: a line in, an answer streamed out.
 *
 * The conversation is kept as messages and read anew by the model each turn; nothing of an answer that failed or was cut by
 * Ctrl-C enters it except what was shown.  On a pipe there are no prompts, and the first error ends the command.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/cli/output.h"
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
    const char       *model, *system;
    int64_t           context;
} options;

static const nb_arg chat_args[] = {
    {.name = "model", .type = NB_ARG_STRING, .at = offsetof(options, model), .positional = true, .required = true,
     .metavar = "MODEL", .help = "checkpoint directory"},
    {.name = "system", .type = NB_ARG_STRING, .at = offsetof(options, system), .metavar = "TEXT",
     .group = "Conversation", .shown = "the chat template's", .help = "system message"},
    {.name = "ctx-size", .brief = "c", .aliases = "max-model-len", .type = NB_ARG_INT, .at = offsetof(options, context),
     .min = 0, .max = 1e8, .text = "0", .shown = "32768", .group = "Conversation", .advanced = true,
     .help = "tokens that the conversation may have"},
};

static const nb_arg_block blocks[] = {
    {chat_args, NB_COUNT(chat_args), 0},
    {nb_sampling_args, NB_SAMPLING_ARGS, offsetof(options, sampling)},
    {nb_media_args, NB_MEDIA_ARGS, offsetof(options, media)},
    {nb_compute_args, NB_COMPUTE_ARGS, offsetof(options, compute)},
    {nb_weight_args, NB_WEIGHT_ARGS, offsetof(options, weights)},
    {nb_engine_args, NB_ENGINE_ARGS, offsetof(options, engine)},
    {nb_common_args, NB_COMMON_ARGS, offsetof(options, common)},
    {NULL, 0, 0}};

typedef struct {
    const options *opt;
    const nb_args *args;
    nb_session     session;
    nb_chat        chat;
    char          *system;
    char         **images; /* for the next turn */
    size_t         image_count, image_capacity;
    bool           terminal;
    /* of the last answer */
    size_t prompt_tokens, tokens;
    double prefill_s, decode_s;
} talk;

/* ---- the conversation -------------------------------------------------------------------------------------------- */

/* Forget all messages; a system message stands first again. */
static nb_status start_over(talk *t, nb_error *err)
{
    nb_chat_free(&t->chat);
    return t->system ? nb_chat_add_text(&t->chat, "system", t->system, err) : NB_OK;
}

static void drop_images(talk *t)
{
    for (size_t i = 0; i < t->image_count; i++) free(t->images[i]);
    t->image_count = 0;
}

/* Take the last message away, through the one function that knows how messages are freed. */
static void drop_last_message(nb_chat *chat)
{
    nb_chat last = {0};
    last.messages = malloc(sizeof *last.messages);
    if (!last.messages) return;
    last.messages[0] = chat->messages[--chat->count];
    last.count = 1;
    nb_chat_free(&last);
}

static nb_status add_turn(talk *t, const char *text, nb_error *err)
{
    nb_message *m;
    NB_TRY(nb_chat_add_message(&t->chat, "user", &m, err));
    nb_status s = NB_OK;
    for (size_t i = 0; i < t->image_count && s == NB_OK; i++) {
        nb_part picture = {.kind = NB_PART_IMAGE, .text = t->images[i]};
        s = nb_chat_add_part(m, &picture, err);
    }
    nb_part words = {.kind = NB_PART_TEXT, .text = (char *)text};
    if (s == NB_OK) s = nb_chat_add_part(m, &words, err);
    if (s != NB_OK) drop_last_message(&t->chat);
    return s;
}

typedef struct {
    nb_status status;
    nb_error  err;
    nb_buf    shown;
} stream;

static bool stream_text(void *context, const char *text, size_t n)
{
    stream *s = context;
    nb_buf_add(&s->shown, text, n);
    s->status = nb_json_wanted() ? NB_OK : nb_print_text(text, n, &s->err);
    return s->status == NB_OK && !nb_stop_requested();
}

/* The end of a streamed line, or the whole answer as one JSON object. */
static nb_status end_answer(const nb_answer *a, nb_error *err)
{
    if (!nb_json_wanted()) return nb_print_text("\n", 1, err);
    nb_buf  out = {0};
    nb_emit e = nb_emit_start(&out, false);
    nb_emit_open(&e, NULL, '{');
    nb_emit_answer(&e, a);
    nb_emit_close(&e);
    nb_status s = nb_print(&out, err);
    nb_buf_free(&out);
    return s;
}

/* Answer the conversation as it stands and append the answer to it. */
static nb_status answer(talk *t, nb_error *err)
{
    nb_prompt           prompt = {0};
    nb_answer           a = {0};
    nb_prompt_options   prompt_options;
    nb_generate_options generate;
    stream              to = {0};
    nb_prompt_source    source = nb_model_source(t->session.model);
    nb_sampling_apply(&generate, &t->opt->sampling, t->args, &t->session.model->generation);
    generate.on_text = stream_text;
    generate.context = &to;
    nb_status s = nb_media_prompt_options(&prompt_options, &t->opt->media, NULL, err);
    prompt_options.template_options.add_generation_prompt = true;
    if (s == NB_OK) s = nb_prompt_build(&prompt, &t->chat, &source, &prompt_options, err);
    if (s == NB_OK) s = nb_generate(t->session.engine, &prompt, &generate, &a, err);
    if (s == NB_OK) nb_warn_past_trained(&a, t->session.model, "the conversation");
    if (s == NB_OK && to.status != NB_OK) s = to.status, *err = to.err;
    if (s == NB_OK) {
        t->prompt_tokens = a.prompt_tokens;
        t->tokens = a.ids.count;
        t->prefill_s = a.prefill_s;
        t->decode_s = a.decode_s;
        s = end_answer(&a, err);
    }
    if (s == NB_OK) s = nb_buf_status(&to.shown, "the answer", err);
    if (s == NB_OK) s = nb_chat_add_text(&t->chat, "assistant", to.shown.data ? to.shown.data : "", err);
    nb_buf_free(&to.shown);
    nb_answer_free(&a);
    nb_prompt_free(&prompt);
    return s;
}

static nb_status turn(talk *t, const char *text, nb_error *err)
{
    NB_TRY(add_turn(t, text, err));
    nb_status s = answer(t, err);
    if (s != NB_OK) drop_last_message(&t->chat);
    drop_images(t);
    if (t->terminal && nb_stop_signal() == SIGINT) nb_stop_reset(); /* Ctrl-C ended the answer; the conversation goes on */
    return s;
}

/* ---- commands ---------------------------------------------------------------------------------------------------- */

static nb_status add_image(talk *t, const char *path, nb_error *err)
{
    if (!*path) return nb_fail(err, NB_ERR_ARGUMENT, "/image needs a path or URL");
    NB_TRY(nb_grow(&t->images, &t->image_capacity, t->image_count + 1, sizeof *t->images, "pictures", err));
    char *copy = nb_strdup(path);
    if (!copy) return nb_fail(err, NB_ERR_MEMORY, "out of memory");
    t->images[t->image_count++] = copy;
    nb_note("%zu picture%s with the next message", t->image_count, t->image_count == 1 ? "" : "s");
    return NB_OK;
}

static nb_status set_system(talk *t, const char *text, nb_error *err)
{
    char *copy = *text ? nb_strdup(text) : NULL;
    if (*text && !copy) return nb_fail(err, NB_ERR_MEMORY, "out of memory");
    free(t->system);
    t->system = copy;
    nb_note("the conversation begins anew with %s system message", copy ? "this" : "the default");
    return start_over(t, err);
}

static void show_stats(const talk *t)
{
    char kv[32];
    nb_human_bytes(kv, (double)nb_engine_kv_bytes(t->session.engine));
    nb_note(
        "last answer: %zu prompt tokens in %.2f s, %zu tokens in %.2f s after the first (%.1f tokens/s); keys and values %s",
        t->prompt_tokens, t->prefill_s, t->tokens, t->decode_s,
        t->decode_s > 0 && t->tokens > 1 ? (double)(t->tokens - 1) / t->decode_s : 0.0, kv);
}

/* Does line begin with this command?  Its argument starts at *rest. */
static bool is(const char *line, const char *name, const char **rest)
{
    size_t n = strlen(name);
    if (strncmp(line, name, n) != 0 || (line[n] && line[n] != ' ')) return false;
    *rest = line + n + strspn(line + n, " ");
    return true;
}

static nb_status command(talk *t, const char *line, bool *quit, nb_error *err)
{
    const char *rest;
    if (is(line, "/quit", &rest) || is(line, "/exit", &rest)) return *quit = true, NB_OK;
    if (is(line, "/image", &rest)) return add_image(t, rest, err);
    if (is(line, "/system", &rest)) return set_system(t, rest, err);
    if (is(line, "/stats", &rest)) return show_stats(t), NB_OK;
    if (is(line, "/reset", &rest)) {
        drop_images(t);
        nb_note("the conversation begins anew");
        return start_over(t, err);
    }
    if (is(line, "/help", &rest)) {
        nb_note("/image PATH adds a picture to the next message; /system TEXT sets the system message and begins anew; "
                "/reset begins anew; /stats tells the speed of the last answer; /quit (or end of input) ends; "
                "a message that begins with '/' is written with '//'");
        return NB_OK;
    }
    static const char *const names[] = {"/quit", "/exit", "/image", "/system", "/stats", "/reset", "/help"};
    char word[32];
    snprintf(word, sizeof word, "%.*s", (int)strcspn(line, " "), line);
    const char *near = nb_nearest(word, names, NB_COUNT(names));
    return nb_fail(err, NB_ERR_ARGUMENT, "unknown command '%s'; %s%s", word,
                   near ? "did you mean " : "/help lists the commands", near ? near : "");
}

/* ---- the loop ---------------------------------------------------------------------------------------------------- */

static nb_status handle(talk *t, char *line, bool *quit, nb_error *err)
{
    line[strcspn(line, "\r\n")] = 0;
    if (!line[strspn(line, " \t")]) return NB_OK;
    if (line[0] == '/' && line[1] == '/') return turn(t, line + 1, err);
    if (line[0] == '/') return command(t, line, quit, err);
    return turn(t, line, err);
}

static nb_status converse(talk *t, nb_error *err)
{
    char     *line = NULL;
    size_t    capacity = 0;
    bool      quit = false;
    nb_status s = NB_OK;
    while (!quit && s == NB_OK) {
        if (t->terminal) s = nb_print_text("> ", 2, err);
        if (s != NB_OK) break;
        errno = 0;
        if (getline(&line, &capacity, stdin) < 0) {
            s = nb_stop_status(err);
            if (s == NB_OK && ferror(stdin)) s = nb_fail(err, NB_ERR_IO, "standard input: %s", strerror(errno));
            break;
        }
        s = handle(t, line, &quit, err);
        if (s == NB_OK) s = nb_stop_status(err);
        else if (t->terminal && s != NB_ERR_IO && s != NB_ERR_STOPPED && s != NB_ERR_DEVICE) {
            nb_warn("%s", err->text); /* the conversation goes on without this turn */
            s = NB_OK;
        }
    }
    free(line);
    return s;
}

static nb_status run(nb_args *args, void *opaque, nb_error *err)
{
    const options *opt = opaque;
    talk           t = {.opt = opt, .args = args};
    t.terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    if (opt->system && !(t.system = nb_strdup(opt->system))) return nb_fail(err, NB_ERR_MEMORY, "out of memory");
    nb_status s = nb_session_open(&t.session, &opt->compute, err);
    if (s == NB_OK) s = nb_session_model(&t.session, opt->model, &opt->weights, err);
    if (s == NB_OK) s = nb_session_engine(&t.session, &opt->engine, opt->context ? (size_t)opt->context : 32768, 1, err);
    if (s == NB_OK) s = start_over(&t, err);
    if (s == NB_OK && t.terminal) nb_note("ready; /help lists the commands, Ctrl-C stops an answer, Ctrl-D ends");
    if (s == NB_OK) s = converse(&t, err);
    drop_images(&t);
    free(t.images);
    free(t.system);
    nb_chat_free(&t.chat);
    nb_session_close(&t.session);
    return s;
}

const nb_command nb_command_chat = {
    .name = "chat",
    .summary = "talk with a checkpoint on the terminal, pictures included",
    .usage = "MODEL [flags]",
    .about = "Reads a message a line and streams the answers. Lines that begin with '/' are commands: /image PATH adds "
             "a picture to the next message, /system TEXT sets the system message, /reset begins anew, /stats tells "
             "the speed, /help lists them, /quit ends. Input may come from a pipe; then only answers are printed and "
             "the first error ends it.",
    .examples = "  nibble chat MODEL\n"
                "  nibble chat MODEL --system \"Answer in one word.\" --temp 0\n"
                "  printf '/image cat.png\\nWhat is this?\\nWhat colour is it?\\n' | nibble chat MODEL\n",
    .blocks = blocks,
    .options_size = sizeof(options),
    .run = run,
};
