/* commands.c - the whole program but for main: find the verb, read its options, run it, print its error, pick the exit code. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "calib/ranks.h"
#include "tools/cli/output.h"
#include "tools/cli/stop.h"
#include "tools/commands.h"

#define X(name) &nb_command_##name,
const nb_command *const nb_commands[] = {NB_COMMANDS(X)};
#undef X
const size_t nb_command_count = NB_COUNT(nb_commands);

static void program_help(nb_buf *out)
{
    nb_buf_str(
        out,
        "nibble - quantize Qwen2-VL checkpoints to int4 and int8, and run them\n\nUsage: nibble COMMAND [flags]\n\nCommands:\n");
    for (size_t i = 0; i < nb_command_count; i++)
        nb_buf_printf(out, "  %-10s %s\n", nb_commands[i]->name, nb_commands[i]->summary);
    nb_buf_str(
        out,
        "\n'nibble COMMAND --help' explains one; '--help=all' shows every flag. 'nibble --version' prints the version.\n"
        "Results go to standard output, everything else to standard error; --json makes results JSON.\n"
        "\nTo begin with:\n"
        "  nibble doctor\n"
        "  nibble run MODEL -p \"What is in this picture?\" --image photo.jpg\n"
        "  nibble quantize MODEL --data chats.jsonl --out MODEL-awq\n");
}

static const nb_command *find_command(const char *name)
{
    for (size_t i = 0; i < nb_command_count; i++)
        if (strcmp(nb_commands[i]->name, name) == 0) return nb_commands[i];
    return NULL;
}

static nb_status unknown_command(const char *name, nb_error *err)
{
    const char *names[64];
    size_t      n = 0;
    for (; n < nb_command_count && n < NB_COUNT(names); n++) names[n] = nb_commands[n]->name;
    const char *near = nb_nearest(name, names, n);
    if (near) return nb_fail(err, NB_ERR_ARGUMENT, "unknown command '%s'; did you mean '%s'?", name, near);
    return nb_fail(err, NB_ERR_ARGUMENT, "unknown command '%s'; 'nibble --help' lists the commands", name);
}

static nb_status print_help(const nb_command *command, bool all, nb_error *err)
{
    nb_buf text = {0};
    if (command) nb_args_help(command, all, &text);
    else program_help(&text);
    nb_status s = nb_print(&text, err);
    nb_buf_free(&text);
    return s;
}

static nb_status print_version(nb_error *err)
{
    return nb_print_text("nibble " NIBBLE_VERSION "\n", strlen("nibble " NIBBLE_VERSION "\n"), err);
}

static nb_status run_command(const nb_command *command, int argc, char *const *argv, bool *json, nb_error *err)
{
    void    *options = NULL;
    nb_args *args = NULL;
    NB_TRY(nb_alloc(&options, 1, command->options_size, "options", err));
    nb_status s = nb_args_parse(&args, command, options, argc, argv, err);
    if (s == NB_OK) {
        switch (nb_args_wants(args)) {
        case NB_WANTS_HELP: s = print_help(command, false, err); break;
        case NB_WANTS_HELP_ALL: s = print_help(command, true, err); break;
        case NB_WANTS_VERSION: s = print_version(err); break;
        case NB_WANTS_RUN:
            *json = ((const nb_common *)options)->json;
            nb_output_setup(options);
            s = command->run(args, options, err);
            break;
        }
    }
    nb_args_free(args);
    free(options);
    return s;
}

int nb_program(int argc, char *const *argv)
{
    nb_error    err = {0};
    nb_status   s;
    bool        json = false;
    const char *verb = argc > 1 ? argv[1] : NULL;
    for (int i = 2; i < argc; i++) json = json || strcmp(argv[i], "--json") == 0; /* for errors in the arguments themselves */
    nb_stop_install();
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is an error of the write, not a death in the middle of a checkpoint */
    signal(SIGXFSZ, SIG_IGN); /* and so is a file that may not grow (ulimit -f) */

    if (!verb)
        s = nb_fail(&err, NB_ERR_ARGUMENT, "no command; 'nibble --help' lists the commands");
    else if (strcmp(verb, "--version") == 0 || strcmp(verb, "version") == 0)
        s = print_version(&err);
    else if (strcmp(verb, "--help") == 0 || strcmp(verb, "-h") == 0 || strcmp(verb, "help") == 0 ||
             strcmp(verb, "--help=all") == 0) {
        const nb_command *command = argc > 2 ? find_command(argv[2]) : NULL;
        s = argc > 2 && !command ? unknown_command(argv[2], &err) : print_help(command, false, &err);
    } else {
        const nb_command *command = find_command(verb);
        s = command ? run_command(command, argc - 2, argv + 2, &json, &err) : unknown_command(verb, &err);
    }
    if (s == NB_OK) {
        nb_ranks_stop();
        return 0;
    }
    int code = s == NB_ERR_STOPPED && nb_stop_signal() == SIGINT ? 130 : nb_status_exit_code(s);
    if (err.text[0]) nb_print_error(&err, code, json); /* without words: the command's own report says it */
    nb_ranks_abort(code);
    return code;
}
