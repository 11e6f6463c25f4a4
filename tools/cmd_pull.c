/* cmd_pull.c - fetch a model repository from a hub into a folder, file by file, checked and resumable. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "runtime/io/file.h"
#include "tools/cli/output.h"
#include "tools/cli/progress.h"
#include "tools/cli/stop.h"
#include "tools/commands.h"
#include "tools/hub/http.h"
#include "tools/hub/hub.h"

typedef struct {
    nb_common   common;
    const char *repo, *out, *revision, *endpoint, *token;
    int         hub;
    int64_t     retries;
    double      wait;
    nb_strings  include, exclude;
    bool        offline, force;
} options;

#define AT(field) .at = offsetof(options, field)
static const nb_arg pull_args[] = {
    {.name = "repo", .type = NB_ARG_STRING, AT(repo), .positional = true, .required = true, .metavar = "REPO",
     .help = "repository, as OWNER/NAME"},
    {.name = "out", .brief = "o", .aliases = "local-dir,output,output-dir", .type = NB_ARG_STRING, AT(out), .metavar = "DIR",
     .shown = "NAME", .group = "Download", .help = "folder to fetch into; what is there already is kept and checked"},
    {.name = "revision", .type = NB_ARG_STRING, AT(revision), .metavar = "REV", .shown = "main, or master on modelscope",
     .group = "Download", .help = "branch, tag or commit"},
    {.name = "include", .aliases = "allow-patterns", .type = NB_ARG_STRINGS, AT(include), .metavar = "GLOB", .group = "Download",
     .help = "fetch only files that match; '*' also crosses '/'"},
    {.name = "exclude", .aliases = "ignore-patterns", .type = NB_ARG_STRINGS, AT(exclude), .metavar = "GLOB", .group = "Download",
     .help = "leave out files that match"},
    {.name = "force", .aliases = "overwrite,force-download", .type = NB_ARG_BOOL, AT(force), .group = "Download",
     .help = "replace files that differ from the hub's"},
    {.name = "hub", .type = NB_ARG_CHOICE, AT(hub), .choices = "hf|modelscope", .text = "hf", .group = "Hub",
     .help = "which hub's interface to speak"},
    {.name = "endpoint", .type = NB_ARG_STRING, AT(endpoint), .metavar = "URL", .shown = "the hub's own, or HF_ENDPOINT",
     .group = "Hub", .help = "address of a mirror"},
    {.name = "token", .aliases = "hf-token", .type = NB_ARG_STRING, AT(token), .metavar = "TOKEN", .shown = "HF_TOKEN, for hf",
     .group = "Hub", .transient = true, .help = "for private and gated repositories; sent to the hub's own host only"},
    {.name = "retries", .type = NB_ARG_INT, AT(retries), .min = 0, .max = 1000, .text = "5", .group = "Hub", .advanced = true,
     .help = "tries after a failure, counted anew whenever something arrived"},
    {.name = "retry-wait", .type = NB_ARG_NUMBER, AT(wait), .min = 0, .max = 60, .text = "1", .metavar = "S", .group = "Hub",
     .advanced = true, .help = "seconds before the first of them; doubles each time"},
    {.name = "offline", .type = NB_ARG_BOOL, AT(offline), .group = "Hub", .transient = true,
     .help = "refuse: nothing may be fetched"},
};
#undef AT

static const nb_arg_block blocks[] = {
    {pull_args, NB_COUNT(pull_args), 0},
    {nb_common_args, NB_COMMON_ARGS, offsetof(options, common)},
    {NULL, 0, 0}};

#ifdef NIBBLE_CURL

enum { ROOM = 1 << 20 }; /* left on the disk for folders and the like */

static const char *const endpoints[] = {"https://huggingface.co", "https://modelscope.cn"};

/* ---- what was asked for ------------------------------------------------------------------------------------------ */

static bool is_name(const char *s, size_t n)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._";
    if (n == 0 || n > 96 || s[0] == '.' || s[0] == '-') return false;
    for (size_t i = 0; i < n; i++)
        if (!s[i] || !strchr(plain, s[i]) || (i && s[i] == '.' && s[i - 1] == '.')) return false;
    return true;
}

static nb_status check_repo(const char *repo, nb_error *err)
{
    const char *slash = strchr(repo, '/');
    bool        good = slash ? is_name(repo, (size_t)(slash - repo)) && is_name(slash + 1, strlen(slash + 1))
                             : is_name(repo, strlen(repo));
    return good ? NB_OK : nb_fail(err, NB_ERR_ARGUMENT, "'%s' is not a repository; write OWNER/NAME", repo);
}

static bool is_visible(const char *s, size_t max)
{
    size_t n = strlen(s);
    for (size_t i = 0; i < n; i++)
        if (s[i] <= 32 || s[i] >= 127) return false;
    return n > 0 && n <= max;
}

/* The address, without slashes at its end; malloc'd. */
static nb_status settle_endpoint(char **out, const options *opt, nb_error *err)
{
    const char *text = opt->endpoint, *what = "--endpoint", *mirror = getenv("HF_ENDPOINT");
    if (!text && opt->hub == NB_HUB_HF && mirror && *mirror) text = mirror, what = "HF_ENDPOINT";
    if (!text) text = endpoints[opt->hub];
    bool http = !strncmp(text, "http://", 7), https = !strncmp(text, "https://", 8);
    if (!(http || https) || !is_visible(text, 500) || strpbrk(text, "?#@\"<>\\") || !text[http ? 7 : 8])
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: '%s' is not the address of a hub, such as %s", what, text, endpoints[opt->hub]);
    *out = nb_strdup(text);
    if (!*out) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", what);
    for (size_t n = strlen(*out); n && (*out)[n - 1] == '/'; n--) (*out)[n - 1] = 0;
    return NB_OK;
}

static nb_status settle_token(const char **out, const options *opt, const char *endpoint, nb_error *err)
{
    const char *token = opt->token, *what = "--token";
    if (!token && opt->hub == NB_HUB_HF) token = getenv("HF_TOKEN"), what = "HF_TOKEN";
    *out = NULL;
    if (!token || !*token) return NB_OK;
    if (!is_visible(token, 1000)) return nb_fail(err, NB_ERR_ARGUMENT, "%s: holds characters that no token has", what);
    if (!nb_http_is_private(endpoint))
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: refused, because %s is not https and others could read it; leave the token "
                       "out (%s)", what, endpoint, opt->token ? "no --token" : "unset HF_TOKEN");
    *out = token;
    return NB_OK;
}

static nb_status settle(nb_hub *hub, char **endpoint, const char **directory, const options *opt, nb_error *err)
{
    const char *slash = strrchr(opt->repo, '/');
    NB_TRY(check_repo(opt->repo, err));
    *directory = opt->out ? opt->out : slash ? slash + 1 : opt->repo;
    *hub = (nb_hub){.kind = (nb_hub_kind)opt->hub, .repo = opt->repo, .retries = (int)opt->retries, .wait_s = opt->wait};
    hub->revision = opt->revision ? opt->revision : opt->hub == NB_HUB_HF ? "main" : "master";
    if (!is_visible(hub->revision, 200)) return nb_fail(err, NB_ERR_ARGUMENT, "--revision: '%s' is not a revision", hub->revision);
    if (nb_file_exists(*directory) && !nb_is_directory(*directory))
        return nb_fail(err, NB_ERR_ARGUMENT, "--out %s is a file", *directory);
    NB_TRY(settle_endpoint(endpoint, opt, err));
    hub->endpoint = *endpoint;
    return settle_token(&hub->token, opt, *endpoint, err);
}

/* ---- the job ----------------------------------------------------------------------------------------------------- */

typedef struct {
    nb_hub             hub;
    nb_hub_connection *connection;
    nb_hub_list        list;
    nb_hub_state      *states;   /* [list.count] as found */
    const char        *directory;
    uint64_t           total, left, fetched; /* bytes: of all, to fetch, fetched */
    uint64_t           unit;     /* bytes that the meter counts as one */
    double             start;    /* of fetching */
    nb_meter           meter;
} job;

static size_t units(const job *j, uint64_t bytes)
{
    return (size_t)((bytes + j->unit - 1) / j->unit);
}

static bool on_tick(void *context, const char *name, uint64_t more)
{
    job   *j = context;
    char   what[400], speed[32];
    double seconds = nb_seconds() - j->start;
    j->fetched += more;
    if (name && j->left) {
        nb_human_bytes(speed, seconds > 0 ? (double)j->fetched / seconds : 0);
        snprintf(what, sizeof what, "%s/s, %.300s", speed, name);
        nb_meter_update(&j->meter, units(j, j->fetched), units(j, j->left), what);
    }
    return !nb_stop_requested();
}

/* What is there, what is missing, and whether it may be written and fits. */
static nb_status plan(job *j, bool force, nb_error *err)
{
    struct statvfs fs;
    size_t         missing = 0;
    NB_TRY(nb_alloc(&j->states, j->list.count, sizeof *j->states, "the state of files", err));
    for (size_t i = 0; i < j->list.count; i++) {
        const nb_hub_file *f = &j->list.files[i];
        uint64_t           have;
        NB_TRY(nb_hub_look(&j->states[i], &have, f, j->directory, on_tick, j, err));
        if (j->states[i] == NB_HUB_DIFFERENT && !force)
            return nb_fail(err, NB_ERR_ARGUMENT, "%s/%s differs from the hub's file; give --force to replace it, or another --out",
                           j->directory, f->name);
        if (__builtin_add_overflow(j->total, f->size, &j->total))
            return nb_fail(err, NB_ERR_INPUT, "%s: its sizes are beyond measure", j->hub.repo);
        if (j->states[i] != NB_HUB_COMPLETE) j->left += f->size - have, missing++;
    }
    char all[32], left[32], space[32];
    nb_human_bytes(all, (double)j->total);
    nb_human_bytes(left, (double)j->left);
    nb_note("%s (%s): %zu files, %s; %zu to fetch, %s, into %s", j->hub.repo, j->list.commit[0] ? j->list.commit : j->hub.revision,
            j->list.count, all, missing, left, j->directory);
    if (statvfs(j->directory, &fs) != 0)
        return nb_fail(err, NB_ERR_IO, "%s: cannot ask for its free space: %s", j->directory, strerror(errno));
    double room = (double)fs.f_bavail * (double)fs.f_frsize;
    nb_human_bytes(space, room);
    if (j->left && (double)j->left + ROOM > room)
        return nb_fail(err, NB_ERR_BUDGET, "%s: %s are needed and %s are free on its disk", j->directory, left, space);
    return NB_OK;
}

static nb_status list_files(job *j, const options *opt, nb_error *err)
{
    NB_TRY(nb_hub_list_files(&j->list, j->connection, err));
    size_t all = j->list.count;
    nb_hub_list_filter(&j->list, opt->include.items, opt->include.count, opt->exclude.items, opt->exclude.count);
    if (j->list.count == 0)
        return nb_fail(err, all ? NB_ERR_ARGUMENT : NB_ERR_INPUT, all ? "%s: none of its files is left by --include and --exclude"
                                                                      : "%s: has no files", j->hub.repo);
    for (size_t i = 0; i < j->list.count; i++)
        if (j->list.files[i].kind == NB_DIGEST_NONE)
            nb_warn("%s: the hub publishes no digest; only its size is checked", j->list.files[i].name);
    return NB_OK;
}

static nb_status fetch_all(job *j, nb_error *err)
{
    nb_status s = NB_OK;
    j->start = nb_seconds();
    j->unit = j->left < 10000000 ? 1000 : 1000000;
    nb_meter_start(&j->meter, j->unit == 1000 ? "pull, kB" : "pull, MB");
    for (size_t i = 0; i < j->list.count && s == NB_OK; i++)
        if (j->states[i] != NB_HUB_COMPLETE) s = nb_hub_fetch(j->connection, &j->list, &j->list.files[i], j->directory, err);
    nb_meter_finish(&j->meter);
    return s;
}

static nb_status print_report(const job *j, nb_error *err)
{
    static const char *const kinds[] = {"size", "sha256", "git"};
    nb_buf out = {0};
    double seconds = nb_seconds() - j->start;
    if (nb_json_wanted()) {
        nb_emit e = nb_emit_start(&out, true);
        nb_emit_open(&e, NULL, '{');
        nb_emit_string(&e, "repo", j->hub.repo);
        nb_emit_string(&e, "revision", j->hub.revision);
        nb_emit_string(&e, "commit", j->list.commit[0] ? j->list.commit : NULL);
        nb_emit_string(&e, "out", j->directory);
        nb_emit_int(&e, "bytes", (int64_t)j->total);
        nb_emit_int(&e, "bytes_fetched", (int64_t)j->fetched);
        nb_emit_number(&e, "seconds", seconds);
        nb_emit_open(&e, "files", '[');
        for (size_t i = 0; i < j->list.count; i++) {
            const nb_hub_file *f = &j->list.files[i];
            nb_emit_open(&e, NULL, '{');
            nb_emit_string(&e, "name", f->name);
            nb_emit_int(&e, "bytes", (int64_t)f->size);
            nb_emit_string(&e, "checked_by", kinds[f->kind]);
            nb_emit_string(&e, "digest", f->digest[0] ? f->digest : NULL);
            nb_emit_bool(&e, "fetched", j->states[i] != NB_HUB_COMPLETE);
            nb_emit_close(&e);
        }
        nb_emit_close(&e);
        nb_emit_close(&e);
    } else {
        char   all[32], fetched[32], time[32];
        size_t new = 0;
        for (size_t i = 0; i < j->list.count; i++) new += j->states[i] != NB_HUB_COMPLETE;
        nb_human_bytes(all, (double)j->total);
        nb_human_bytes(fetched, (double)j->fetched);
        nb_human_time(time, seconds);
        nb_buf_printf(&out, "%s: %zu files, %s, complete and checked; %zu fetched (%s in %s)\n", j->directory, j->list.count,
                      all, new, fetched, time);
    }
    nb_status s = nb_print(&out, err);
    nb_buf_free(&out);
    return s;
}

static nb_status pull(job *j, const options *opt, nb_error *err)
{
    NB_TRY(nb_hub_connect(&j->connection, &j->hub, on_tick, j, err));
    NB_TRY(list_files(j, opt, err));
    if (mkdir(j->directory, 0777) != 0 && errno != EEXIST)
        return nb_fail(err, NB_ERR_IO, "%s: cannot make the folder: %s", j->directory, strerror(errno));
    NB_TRY(plan(j, opt->force, err));
    NB_TRY(fetch_all(j, err));
    return print_report(j, err);
}

static nb_status run(nb_args *args, void *opaque, nb_error *err)
{
    const options *opt = opaque;
    job            j = {0};
    char          *endpoint = NULL;
    (void)args;
    nb_status s = settle(&j.hub, &endpoint, &j.directory, opt, err);
    if (s == NB_OK && opt->offline)
        s = nb_fail(err, NB_ERR_ARGUMENT, "%s cannot be fetched with --offline", opt->repo);
    if (s == NB_OK) s = pull(&j, opt, err);
    nb_hub_disconnect(j.connection);
    nb_hub_list_free(&j.list);
    free(j.states);
    free(endpoint);
    return s;
}

#else

static nb_status run(nb_args *args, void *opaque, nb_error *err)
{
    const options *opt = opaque;
    (void)args;
    return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: this nibble was built without http; install libcurl4-openssl-dev and libssl-dev "
                   "and build with -DNIBBLE_CURL=ON", opt->repo);
}

#endif

const nb_command nb_command_pull = {
    .name = "pull",
    .summary = "fetch a checkpoint from a hub, checked and resumable",
    .usage = "REPO [--out DIR] [flags]",
    .about = "Lists the repository, says how much there is to fetch and whether it fits the disk, and fetches file by file. What "
             "arrived stays: the same command goes on where an interrupted one ended, and checks what is complete. A file gets its "
             "name when its size and digest are those that the hub published.",
    .examples = "  nibble pull Qwen/Qwen2-VL-2B-Instruct\n"
                "  nibble pull OWNER/NAME --revision v1 --include '*.safetensors' --include '*.json' --out model\n"
                "  nibble pull OWNER/NAME --hub modelscope\n",
    .blocks = blocks,
    .options_size = sizeof(options),
    .run = run,
};
