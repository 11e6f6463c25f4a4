/* journal.c - an append-only file of lines (journal_text.h), and who may write it.
 *
 * A line is on disk before the next thing is begun, and what it speaks of was on disk before it: after any interruption the valid
 * lines at the beginning of the file are true.  Facts wait in memory for the first such line: without it there is nothing that they
 * would protect.  Nothing here knows how to go on; that is resume.c.
 */
#include "quant/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "quant/journal_text.h"
#include "runtime/io/file.h"

enum { LIMIT = 256 << 20 /* bytes of a journal: a thousand layers take a few megabytes */, OWNER = 200 };

struct nb_journal {
    char           *folder, *path, *owner, *command; /* the folder, and the files in it */
    int             fd;
    bool            unread;  /* what it says is not known: it stays as it is */
    nb_journal_text text;
    nb_buf          pending; /* lines that go to disk with the next one */
    uint64_t        size;    /* of the file */
};

static nb_status fail_errno(nb_error *err, const char *path, const char *doing)
{
    return nb_fail(err, NB_ERR_IO, "%s: %s: %s", path, doing, strerror(errno));
}

static void now(char out[32])
{
    time_t    seconds = time(NULL);
    struct tm parts;
    gmtime_r(&seconds, &parts);
    strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &parts);
}

/* ---- the lock ---------------------------------------------------------------------------------------------------- */

/* Who wrote the lock file; "somebody" when nobody did. */
static void read_owner(char out[OWNER], const char *path)
{
    nb_buf   text = {0};
    nb_error ignored;
    snprintf(out, OWNER, "somebody");
    if (nb_file_read(&text, path, OWNER - 1, &ignored) == NB_OK && text.size)
        snprintf(out, OWNER, "%.*s", (int)strcspn(text.data, "\n"), text.data);
    nb_buf_free(&text);
}

/* For the eyes of others only: it need not reach the disk, and nothing fails without it. */
static void write_owner(const char *path)
{
    char host[80] = "this machine", since[32], text[OWNER];
    now(since);
    gethostname(host, sizeof host - 1);
    int n = snprintf(text, sizeof text, "pid %ld on %s, since %s\n", (long)getpid(), host, since);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0) return;
    nb_error ignored;
    nb_write_all(fd, text, (size_t)n, path, &ignored);
    close(fd);
}

static bool still_there(int fd, const char *path)
{
    struct stat mine, named;
    return fstat(fd, &mine) == 0 && stat(path, &named) == 0 && mine.st_ino == named.st_ino && mine.st_dev == named.st_dev;
}

/* Open the journal and lock it; one that its owner removed meanwhile is opened again. */
static nb_status lock_file(nb_journal *j, nb_error *err)
{
    for (int attempt = 0; attempt < 100; attempt++) {
        char owner[OWNER];
        j->fd = open(j->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (j->fd < 0) return fail_errno(err, j->path, "cannot open it");
        bool taken = flock(j->fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK; /* other reasons: a file system without locks */
        if (!taken && still_there(j->fd, j->path)) return NB_OK;
        close(j->fd);
        j->fd = -1; /* it is theirs: nothing of it is touched */
        if (!taken) continue;
        read_owner(owner, j->owner);
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: another run is at this job (%s); wait for it or choose another output", j->folder,
                       owner);
    }
    return nb_fail(err, NB_ERR_IO, "%s: is removed as often as it is made", j->path);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* *size: up to where it is valid. */
static nb_status read_lines(nb_journal_text *t, const char *path, uint64_t *size, nb_error *err)
{
    nb_buf text = {0};
    NB_TRY(nb_file_read(&text, path, LIMIT, err));
    nb_status status = NB_OK;
    bool      valid = true;
    size_t    at = 0;
    int       format = NB_JOURNAL_FORMAT;
    if (text.size && sscanf(text.data, "{\"journal\":%9d,", &format) == 1 && format != NB_JOURNAL_FORMAT)
        status = nb_fail(err, NB_ERR_UNSUPPORTED, "%s: is a journal of format %d, and this nibble knows %d; go on with the nibble that "
                         "began the job, or start anew with --no-resume", path, format, NB_JOURNAL_FORMAT);
    while (!status && valid && at < text.size) {
        const char *end = memchr(text.data + at, '\n', text.size - at);
        if (!end) break;
        status = nb_journal_take(t, text.data + at, (size_t)(end - text.data) - at, at, &valid, err);
        if (valid) at = (size_t)(end - text.data) + 1;
    }
    nb_buf_free(&text);
    *size = at;
    return status;
}

static nb_status cut(nb_journal *j, uint64_t size, nb_error *err)
{
    struct stat st;
    j->size = size;
    if (fstat(j->fd, &st) == 0 && (uint64_t)st.st_size == size) return NB_OK;
    if (ftruncate(j->fd, (off_t)size) || fsync(j->fd)) return fail_errno(err, j->path, "cannot shorten it");
    return NB_OK;
}

static nb_status make_folder(const nb_journal *j, nb_error *err)
{
    if (mkdir(j->folder, 0777) == 0 || errno == EEXIST) return NB_OK;
    char       *parent = nb_path_folder(j->folder);
    const char *why = strerror(errno);
    bool        there = parent && nb_is_directory(parent);
    free(parent);
    if (there) return nb_fail(err, NB_ERR_IO, "%s: cannot create it: %s", j->folder, why);
    return nb_fail(err, NB_ERR_ARGUMENT, "%s: cannot create it: its folder does not exist; create it first", j->folder);
}

static void take_info(nb_journal_info *out, const nb_journal_text *t)
{
    *out = (nb_journal_info){.layers = t->layer_count, .sites = t->site_count, .states = t->states.layer, .has_states = t->has_states,
                             .committing = t->committing, .partial = {t->partial[0], t->partial[1]}};
    snprintf(out->begun, sizeof out->begun, "%s", t->begun);
}

static nb_status open_journal(nb_journal *j, const char *out_dir, bool resume, nb_error *err)
{
    nb_journal_info info;
    uint64_t        size = 0;
    NB_TRY(make_folder(j, err));
    NB_TRY(lock_file(j, err));
    write_owner(j->owner);
    NB_TRY(nb_fsync_folder(j->folder, err));
    j->unread = resume;
    if (resume) NB_TRY(read_lines(&j->text, j->path, &size, err));
    j->unread = false;
    take_info(&info, &j->text);
    if (!nb_journal_holds(j) || nb_journal_is_result(&info, out_dir)) {
        nb_journal_text_free(&j->text);
        size = 0;
        now(j->text.begun);
        nb_journal_put_head(&j->pending, j->text.begun);
    }
    return cut(j, size, err);
}

nb_status nb_journal_open(nb_journal **out, const char *folder, const char *out_dir, bool resume, nb_error *err)
{
    nb_journal *j;
    *out = NULL;
    NB_TRY(nb_alloc(&j, 1, sizeof *j, "a journal", err));
    j->fd = -1;
    j->folder = nb_strdup(folder);
    j->path = nb_path_join(folder, "journal.jsonl");
    j->owner = nb_path_join(folder, "lock");
    j->command = nb_path_join(folder, "command.json");
    bool      ready = j->folder && j->path && j->owner && j->command;
    nb_status status = ready ? open_journal(j, out_dir, resume, err) : nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", folder);
    if (status)
        nb_journal_close(j, false);
    else
        *out = j;
    return status;
}

void nb_journal_close(nb_journal *j, bool done)
{
    if (!j) return;
    if (j->fd >= 0) {
        unlink(j->owner);
        if (done || !(nb_journal_holds(j) || j->unread)) {
            if (unlink(j->path) == 0) unlink(j->command); /* without a journal there is no job, with one it needs its command */
            nb_remove_temporaries(j->folder);             /* of runs that were killed while they wrote one of the two */
        }
        rmdir(j->folder); /* stays when there is something else in it */
        close(j->fd);
    }
    nb_journal_text_free(&j->text);
    nb_buf_free(&j->pending);
    free(j->folder);
    free(j->path);
    free(j->owner);
    free(j->command);
    free(j);
}

nb_status nb_journal_remove(const char *folder, nb_error *err)
{
    static const char *const inner[] = {"original", "judge-original", "judge-quantized"};
    nb_status                status = NB_OK;
    for (size_t i = 0; i < NB_COUNT(inner) && !status; i++) {
        char *path = nb_path_join(folder, inner[i]);
        status = path ? nb_remove_folder(path, err) : nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", folder);
        free(path);
    }
    return status ? status : nb_remove_folder(folder, err);
}

nb_status nb_journal_look(nb_journal_info *out, const char *folder, nb_error *err)
{
    nb_journal_text text = {0};
    uint64_t        size;
    char           *path = nb_path_join(folder, "journal.jsonl"), *owner = nb_path_join(folder, "lock");
    memset(out, 0, sizeof *out);
    nb_status status = path && owner ? read_lines(&text, path, &size, err) : nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", folder);
    if (!status) {
        take_info(out, &text);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK) read_owner(out->owner, owner);
        if (fd >= 0) close(fd);
    }
    nb_journal_text_free(&text);
    free(path);
    free(owner);
    return status;
}

bool nb_journal_is_result(const nb_journal_info *info, const char *path)
{
    struct stat st;
    return info->committing && stat(path, &st) == 0 && (uint64_t)st.st_dev == info->partial[0] && (uint64_t)st.st_ino == info->partial[1];
}

/* ---- what it says ------------------------------------------------------------------------------------------------- */

const char *nb_journal_folder(const nb_journal *j)
{
    return j->folder;
}

bool nb_journal_holds(const nb_journal *j)
{
    return j->text.layer_count || j->text.site_count || j->text.has_states;
}

size_t nb_journal_layers(const nb_journal *j)
{
    return j->text.layer_count;
}

const nb_layer_record *nb_journal_layer(const nb_journal *j, size_t layer)
{
    return &j->text.layers[layer];
}

int nb_journal_sites(const nb_journal *j)
{
    return j->text.site_count;
}

const nb_layer_record *nb_journal_site(const nb_journal *j, int site)
{
    return &j->text.sites[site];
}

const nb_states_record *nb_journal_states(const nb_journal *j)
{
    return j->text.has_states ? &j->text.states : NULL;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

/* Everything that is pending, and then it is on disk. */
static nb_status flush(nb_journal *j, nb_error *err)
{
    NB_TRY(nb_buf_status(&j->pending, "a journal", err));
    NB_TRY(nb_write_all(j->fd, j->pending.data, j->pending.size, j->path, err));
    if (fsync(j->fd)) return fail_errno(err, j->path, "cannot bring it to disk");
    j->size += j->pending.size;
    nb_buf_clear(&j->pending);
    return NB_OK;
}

nb_status nb_journal_command(nb_journal *j, const char *text, nb_error *err)
{
    return nb_file_write_atomic(j->command, text, strlen(text), err);
}

static void done_so_far(const nb_journal *j, char out[80])
{
    size_t layers = j->text.layer_count;
    int    sites = j->text.site_count;
    if (layers || !sites) snprintf(out, 80, "%zu layer%s ago", layers, layers == 1 ? "" : "s");
    else snprintf(out, 80, "%d of %d steps of a layer ago", sites, NB_SITES);
}

static bool is_option(const char *what)
{
    return !strncmp(what, "--", 2);
}

nb_status nb_journal_fact(nb_journal *j, const char *what, const char *value, nb_error *err)
{
    nb_journal_text *t = &j->text;
    char             ago[80];
    done_so_far(j, ago);
    for (size_t i = 0; i < t->said_count; i++) {
        nb_journal_said *s = &t->said[i];
        if (strcmp(s->what, what)) continue;
        s->seen = true;
        if (!strcmp(s->value, value)) return NB_OK;
        if (is_option(what))
            return nb_fail(err, NB_ERR_ARGUMENT, "%s is %s, and was %s when the job in %s began, %s; give it as it was, or start anew with "
                           "--no-resume", what, value, s->value, j->folder, ago);
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: changed since the job in %s began, %s; put it back, or start anew with --no-resume",
                       what, j->folder, ago);
    }
    if (nb_journal_holds(j)) {
        if (is_option(what))
            return nb_fail(err, NB_ERR_ARGUMENT, "%s is %s, and was not given when the job in %s began, %s; leave it out, or start anew "
                           "with --no-resume", what, value, j->folder, ago);
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: was not there when the job in %s began, %s; remove it, or start anew with "
                       "--no-resume", what, j->folder, ago);
    }
    NB_TRY(nb_journal_push_said(t, what, value, err));
    t->said[t->said_count - 1].seen = true;
    nb_journal_put_said(&j->pending, what, value);
    return nb_buf_status(&j->pending, "a journal", err);
}

nb_status nb_journal_options_done(nb_journal *j, nb_error *err)
{
    char ago[80];
    done_so_far(j, ago);
    for (size_t i = 0; i < j->text.said_count; i++) {
        const nb_journal_said *s = &j->text.said[i];
        if (is_option(s->what) && !s->seen)
            return nb_fail(err, NB_ERR_ARGUMENT, "%s was %s when the job in %s began, %s, and is not given now; give it as it was, or start "
                           "anew with --no-resume", s->what, s->value, j->folder, ago);
    }
    return NB_OK;
}

nb_status nb_journal_add_layer(nb_journal *j, const nb_layer_record *record, nb_error *err)
{
    uint64_t start = j->size + j->pending.size;
    nb_journal_put_layer(&j->pending, record, j->text.layer_count, -1);
    NB_TRY(flush(j, err));
    return nb_journal_push_layer(&j->text, record, start, err);
}

nb_status nb_journal_add_site(nb_journal *j, const nb_layer_record *record, nb_error *err)
{
    uint64_t start = j->size + j->pending.size;
    nb_journal_put_layer(&j->pending, record, j->text.layer_count, j->text.site_count);
    NB_TRY(flush(j, err));
    nb_journal_push_site(&j->text, record, start);
    return NB_OK;
}

nb_status nb_journal_add_states(nb_journal *j, const nb_states_record *record, nb_error *err)
{
    nb_journal_put_states(&j->pending, record);
    NB_TRY(flush(j, err));
    j->text.states = *record;
    j->text.has_states = true;
    return NB_OK;
}

nb_status nb_journal_forget(nb_journal *j, size_t layer, int sites, nb_error *err)
{
    nb_journal_text *t = &j->text;
    if (t->has_states && t->states.layer > layer) t->has_states = false;
    if (layer < t->layer_count) {
        t->layer_count = layer;
        t->site_count = 0;
        return cut(j, t->start[layer], err);
    }
    if (sites >= t->site_count) return NB_OK;
    t->site_count = sites;
    return cut(j, t->site_start[sites], err);
}

nb_status nb_journal_committing(nb_journal *j, const char *partial, nb_error *err)
{
    struct stat st;
    if (stat(partial, &st)) return fail_errno(err, partial, "is gone");
    nb_journal_put_committing(&j->pending, (const uint64_t[]){(uint64_t)st.st_dev, (uint64_t)st.st_ino});
    return flush(j, err);
}
