/* cmd_resume.c - `nibble resume`: repeat the command that a job folder holds, or say how far the job is.
 *
 * Going on is not done here: the same command goes on by itself, so this is that command, started in the folder where it was started
 * first, as quantize's own --config.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "quant/journal.h"
#include "runtime/io/file.h"
#include "tools/cli/output.h"
#include "tools/commands.h"
#include "tools/quantize_flags.h"

typedef struct {
    nb_common   common;
    const char *job, *max_ram, *spool, *threads, *device;
    bool        status;
} options;

#define AT(field) .at = offsetof(options, field)
static const nb_arg resume_args[] = {
    {.name = "job", .type = NB_ARG_STRING, AT(job), .positional = true, .required = true, .metavar = "JOB",
     .help = "the --out that was given, its DIR.job or DIR.partial, or the folder that --job named"},
    {.name = "status", .type = NB_ARG_BOOL, AT(status), .help = "only say how far the job is, and who works on it"},
    {.name = "max-ram", .type = NB_ARG_STRING, AT(max_ram), .metavar = "SIZE", .shown = "as before", .group = "Resources",
     .help = "memory to stay within from here on"},
    {.name = "spool", .type = NB_ARG_STRING, AT(spool), .metavar = "DIR", .shown = "as before", .group = "Resources",
     .help = "keep hidden states there from here on"},
    {.name = "threads", .brief = "t", .type = NB_ARG_STRING, AT(threads), .metavar = "N", .shown = "as before", .group = "Machine",
     .help = "threads to compute with; results do not depend on it"},
    {.name = "device", .type = NB_ARG_STRING, AT(device), .metavar = "auto|cpu|cuda", .shown = "as before", .group = "Machine",
     .help = "where to compute; a job ends where it began"},
};
#undef AT

static const nb_arg_block blocks[] = {
    {resume_args, NB_COUNT(resume_args), 0}, {nb_common_args, NB_COMMON_ARGS, offsetof(options, common)}, {NULL, 0, 0}};

/* ---- which job --------------------------------------------------------------------------------------------------------- */

static bool holds_journal(const char *folder)
{
    char *path = nb_path_join(folder, "journal.jsonl");
    bool  there = path && nb_file_exists(path);
    free(path);
    return there;
}

/* Length of a name without slashes at its end, .partial and .job. */
static size_t stem_of(const char *name)
{
    static const char *const suffixes[] = {".partial", ".job"};
    size_t                   n = strlen(name);
    while (n > 1 && name[n - 1] == '/') n--;
    for (size_t i = 0; i < NB_COUNT(suffixes); i++) {
        size_t m = strlen(suffixes[i]);
        if (n > m && !strncmp(name + n - m, suffixes[i], m)) return n - m;
    }
    return n;
}

/* *out: the absolute path of the job folder, malloc'd; NULL, with NB_OK, when the job had been removed but for its folder. */
static nb_status find_job(char **out, const char *name, nb_error *err)
{
    int   stem = (int)stem_of(name);
    char *beside = NULL, *result = strndup(name, (size_t)stem);
    *out = NULL;
    if (!result || asprintf(&beside, "%.*s.job", stem, name) < 0) {
        free(result);
        return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", name);
    }
    nb_status s = NB_OK;
    if (holds_journal(name))
        *out = realpath(name, NULL);
    else if (holds_journal(beside))
        *out = realpath(beside, NULL);
    else if (nb_is_directory(result) && nb_is_directory(beside))
        s = nb_journal_remove(beside, err);
    else
        s = nb_fail(err, NB_ERR_INPUT, "%s: there is no job to resume (no journal.jsonl in it, nor in %s)", name, beside);
    if (s == NB_OK && !*out) nb_note("%s was complete; what its job had left is removed", result);
    free(beside);
    free(result);
    return s;
}

typedef struct {
    cJSON *command;     /* command.json */
    char  *path, *out;  /* of command.json; the result's, absolute */
    const char *folder; /* where it was started, in command */
} job;

static void job_free(job *j)
{
    cJSON_Delete(j->command);
    free(j->path);
    free(j->out);
}

/* The command would look for its job in the same folder as we did: nobody moved it. */
static nb_status check_place(const job *j, const char *elsewhere, const char *folder, nb_error *err)
{
    char  *place = NULL, *real = NULL;
    size_t n = strlen(j->out);
    while (n > 1 && j->out[n - 1] == '/') n--;
    if (elsewhere) place = nb_path_join(j->folder, elsewhere);
    else if (asprintf(&place, "%.*s.job", (int)n, j->out) < 0) place = NULL;
    if (!place) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", folder);
    real = realpath(place, NULL);
    nb_status s = real && !strcmp(real, folder) ? NB_OK
                : nb_fail(err, NB_ERR_INPUT, "%s: this job was begun as %s; move it and its .partial folder back there", folder, place);
    free(place);
    free(real);
    return s;
}

static nb_status read_command(job *j, const char *folder, nb_error *err)
{
    enum { LIMIT = 16 << 20 };
    const char *out;
    j->path = nb_path_join(folder, "command.json");
    if (!j->path) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", folder);
    NB_TRY(nb_json_file(&j->command, j->path, LIMIT, err));
    NB_TRY(nb_json_get_string(j->command, "_folder", &j->folder, j->path, err));
    const cJSON *flags = nb_json_find(j->command, "quantize");
    if (!cJSON_IsObject(flags)) return nb_fail(err, NB_ERR_INPUT, "%s: quantize is not an object", j->path);
    NB_TRY(nb_json_get_string(flags, "out", &out, j->path, err));
    j->out = nb_path_join(j->folder, out);
    return j->out ? check_place(j, cJSON_GetStringValue(nb_json_find(flags, "job")), folder, err)
                  : nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", folder);
}

/* ---- how far it is ----------------------------------------------------------------------------------------------------- */

static nb_status print_status(const char *folder, const job *j, const nb_journal_info *info, nb_error *err)
{
    nb_buf out = {0};
    bool   done = nb_journal_is_result(info, j->out);
    if (nb_json_wanted()) {
        nb_emit e = nb_emit_start(&out, true);
        nb_emit_open(&e, NULL, '{');
        nb_emit_string(&e, "job", folder);
        nb_emit_string(&e, "out", j->out);
        nb_emit_string(&e, "begun", info->begun);
        nb_emit_string(&e, "running", info->owner[0] ? info->owner : NULL);
        nb_emit_bool(&e, "complete", done);
        nb_emit_int(&e, "layers", (int64_t)info->layers);
        nb_emit_int(&e, "steps_of_next", info->sites);
        if (info->has_states) nb_emit_int(&e, "states_of_layer", (int64_t)info->states);
        nb_emit_close(&e);
    } else {
        nb_buf_printf(&out, "%s: %s, begun %s\n", j->out, done ? "complete" : info->owner[0] ? "being worked on" : "interrupted",
                      info->begun[0] ? info->begun : "a moment ago");
        if (info->owner[0]) nb_buf_printf(&out, "  by        %s\n", info->owner);
        nb_buf_printf(&out, "  finished  %zu layers", info->layers);
        if (info->sites) nb_buf_printf(&out, " and %d of the 4 steps of the next", info->sites);
        nb_buf_char(&out, '\n');
        if (info->has_states) nb_buf_printf(&out, "  on disk   the inputs of layer %zu\n", info->states + 1);
    }
    nb_status s = nb_print(&out, err);
    nb_buf_free(&out);
    return s;
}

/* ---- going on ---------------------------------------------------------------------------------------------------------- */

/* What a kill between the renaming of the result and the end left. */
static nb_status finish(const char *folder, const job *j, nb_error *err)
{
    char *partial = NULL;
    if (asprintf(&partial, "%s.partial", j->out) < 0) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", folder);
    nb_status s = nb_remove_folder(partial, err); /* an old result that this one replaced */
    if (s == NB_OK) s = nb_journal_remove(folder, err);
    free(partial);
    if (s == NB_OK) nb_note("%s was complete; what its job had left is removed", j->out);
    return s;
}

static nb_status go_on(const options *opt, const job *j, nb_error *err)
{
    const struct { const char *flag, *value; } changed[] = {
        {"--max-ram", opt->max_ram}, {"--spool", opt->spool}, {"--threads", opt->threads}, {"--device", opt->device}};
    char    *words[2 + 2 * NB_COUNT(changed)];
    int      count = 0;
    void    *flags = NULL;
    nb_args *args = NULL;
    words[count++] = (char *)"--config";
    words[count++] = j->path;
    for (size_t i = 0; i < NB_COUNT(changed); i++)
        if (changed[i].value) {
            words[count++] = (char *)changed[i].flag;
            words[count++] = (char *)changed[i].value;
        }
    if (chdir(j->folder))
        return nb_fail(err, NB_ERR_INPUT, "%s: the folder where the job was begun, '%s', cannot be entered; its files are looked for "
                       "there", j->path, j->folder);
    NB_TRY(nb_alloc(&flags, 1, nb_command_quantize.options_size, "options", err));
    nb_status s = nb_args_parse(&args, &nb_command_quantize, flags, count, words, err);
    if (s == NB_OK) {
        ((nb_quantize_flags *)flags)->common = opt->common; /* of this call; they change no result */
        s = nb_quantize_command(args, flags, err);
    }
    nb_args_free(args);
    free(flags);
    return s;
}

static nb_status run(nb_args *args, void *opaque, nb_error *err)
{
    const options  *opt = opaque;
    char           *folder;
    job             j = {0};
    nb_journal_info info;
    (void)args;
    NB_TRY(find_job(&folder, opt->job, err));
    if (!folder) return NB_OK;
    nb_status s = nb_journal_look(&info, folder, err);
    if (s == NB_OK) s = read_command(&j, folder, err);
    if (s == NB_OK && opt->status) s = print_status(folder, &j, &info, err);
    else if (s == NB_OK && nb_journal_is_result(&info, j.out)) s = finish(folder, &j, err);
    else if (s == NB_OK) s = go_on(opt, &j, err);
    job_free(&j);
    free(folder);
    return s;
}

const nb_command nb_command_resume = {
    .name = "resume",
    .summary = "go on with an interrupted quantization",
    .usage = "JOB [--status] [flags]",
    .about = "Repeats the command that began the job, in the folder where it was begun, and so goes on from what is finished: layers, steps "
             "of a layer, and hidden states that are on disk. The result has the bytes of an uninterrupted run.\n\n"
             "Options, files and weights are compared with those of the beginning by their content; one that changed is refused by name.",
    .examples = "  nibble resume 2b-awq\n"
                "  nibble resume 2b-awq --status\n"
                "  nibble resume 2b-awq.job --max-ram 8G\n",
    .blocks = blocks,
    .options_size = sizeof(options),
    .run = run,
};
