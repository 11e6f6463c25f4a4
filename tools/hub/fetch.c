/* fetch.c - getting the list and the files, again and again where the network fails.
 *
 * A file grows as NAME.part, under a lock, each byte at its own place, so that what is there can always be resumed.  It gets its
 * name when size and digest are right.  If a resumed file turns out wrong, the old piece may have been of another version: it is
 * fetched once more from the beginning.  A wrong file that came whole is removed and reported. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/io/file.h"
#include "tools/cli/output.h"
#include "tools/hub/digest.h"
#include "tools/hub/http.h"
#include "tools/hub/hub.h"

enum { MAX_LISTING = 64 << 20, MAX_WAIT_S = 60, MAX_SERVER_WAIT_S = 300 };

struct nb_hub_connection {
    nb_hub       hub;
    nb_http     *http;
    nb_hub_tick *tick;
    void        *context;
};

nb_status nb_hub_connect(nb_hub_connection **out, const nb_hub *hub, nb_hub_tick *tick, void *context, nb_error *err)
{
    NB_TRY(nb_alloc(out, 1, sizeof **out, "a connection", err));
    **out = (nb_hub_connection){.hub = *hub, .tick = tick, .context = context};
    nb_status status = nb_http_new(&(*out)->http, err);
    if (status) {
        nb_hub_disconnect(*out);
        *out = NULL;
    }
    return status;
}

void nb_hub_disconnect(nb_hub_connection *c)
{
    if (!c) return;
    nb_http_free(c->http);
    free(c);
}

/* ---- addresses ------------------------------------------------------------------------------------------------------- */

/* Percent-encoded; keep: characters besides letters, digits and "-._~" that stay. */
static void add_escaped(nb_buf *url, const char *text, const char *keep)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    for (; *text; text++)
        if (strchr(plain, *text) || strchr(keep, *text)) nb_buf_char(url, *text);
        else nb_buf_printf(url, "%%%02X", (unsigned char)*text);
}

static nb_status list_url(nb_buf *url, const nb_hub *h, nb_error *err)
{
    bool hf = h->kind == NB_HUB_HF;
    nb_buf_printf(url, "%s%s", h->endpoint, hf ? "/api/models/" : "/api/v1/models/");
    add_escaped(url, h->repo, "/");
    nb_buf_str(url, hf ? "/revision/" : "/repo/files?Revision=");
    add_escaped(url, h->revision, "");
    nb_buf_str(url, hf ? "?blobs=true" : "&Recursive=true");
    return nb_buf_status(url, "a URL", err);
}

/* Of the commit that was listed, where it is known: a branch may move while files are fetched. */
static nb_status file_url(nb_buf *url, const nb_hub *h, const nb_hub_list *list, const nb_hub_file *f, nb_error *err)
{
    const char *revision = list->commit[0] ? list->commit : h->revision;
    bool        hf = h->kind == NB_HUB_HF;
    nb_buf_printf(url, "%s%s", h->endpoint, hf ? "/" : "/api/v1/models/");
    add_escaped(url, h->repo, "/");
    nb_buf_str(url, hf ? "/resolve/" : "/repo?Revision=");
    add_escaped(url, revision, "");
    nb_buf_str(url, hf ? "/" : "&FilePath=");
    add_escaped(url, f->name, hf ? "/" : "");
    return nb_buf_status(url, "a URL", err);
}

/* ---- trying again ---------------------------------------------------------------------------------------------------- */

/* Wait before try number `tries` (from 1); false when stopped. */
static bool wait_before(const nb_hub_connection *c, int tries, double wish, const nb_error *why)
{
    double wait = c->hub.wait_s;
    for (int i = 1; i < tries && wait < MAX_WAIT_S; i++) wait *= 2;
    if (wait > MAX_WAIT_S) wait = MAX_WAIT_S;
    if (wish > wait) wait = wish < MAX_SERVER_WAIT_S ? wish : MAX_SERVER_WAIT_S;
    nb_note("%s; trying again in %.3g s (%d of %d)", why->text, wait, tries, c->hub.retries);
    for (double end = nb_seconds() + wait, left; (left = end - nb_seconds()) > 0;) {
        if (!c->tick(c->context, NULL, 0)) return false;
        usleep((useconds_t)(1e6 * (left < 0.1 ? left : 0.1)));
    }
    return true;
}

static nb_status stopped(const char *name, nb_error *err)
{
    return nb_fail(err, NB_ERR_STOPPED, "%s: stopped; the same command goes on where it was", name);
}

/* ---- the list -------------------------------------------------------------------------------------------------------- */

typedef struct {
    nb_buf                   *out;
    const nb_hub_connection *c;
} list_sink;

static bool write_list(void *context, uint64_t at, const void *data, size_t n)
{
    list_sink *s = context;
    if (at == 0) nb_buf_clear(s->out);
    nb_buf_add(s->out, data, n);
    return !s->out->failed;
}

static bool go_on_list(void *context)
{
    list_sink *s = context;
    return s->c->tick(s->c->context, NULL, 0);
}

nb_status nb_hub_list_files(nb_hub_list *out, nb_hub_connection *c, nb_error *err)
{
    nb_buf          url = {0}, body = {0};
    list_sink       sink = {.out = &body, .c = c};
    nb_http_answer  answer = {0};
    nb_status       status = list_url(&url, &c->hub, err);
    nb_http_request r = {.url = url.data, .name = c->hub.repo, .token = c->hub.token, .limit = MAX_LISTING, .write = write_list,
                         .go_on = go_on_list, .context = &sink};
    *out = (nb_hub_list){0};
    for (int tries = 0; !status; tries++) {
        nb_error why = {0};
        status = nb_http_get_pieces(c->http, &r, &answer, &why);
        if (!status) break;
        bool again = answer.again && tries < c->hub.retries;
        if (again && wait_before(c, tries + 1, answer.wait_s, &why)) status = NB_OK;
        else if (again || (answer.stopped && !body.failed)) status = stopped(c->hub.repo, err);
        else status = nb_fail(err, status, "%s", why.text);
    }
    if (!status) status = nb_buf_status(&body, "a list of files", err);
    if (!status) status = nb_hub_list_parse(out, c->hub.kind, body.data ? body.data : "", body.size, c->hub.repo, err);
    nb_buf_free(&url);
    nb_buf_free(&body);
    return status;
}

/* ---- what is there --------------------------------------------------------------------------------------------------- */

static nb_status path_of(char **out, const char *directory, const char *name, const char *end, nb_error *err)
{
    nb_buf b = {0};
    nb_buf_printf(&b, "%s/%s%s", directory, name, end);
    *out = b.data;
    return nb_buf_status(&b, "a path", err);
}

nb_status nb_hub_look(nb_hub_state *out, uint64_t *have, const nb_hub_file *f, const char *directory, nb_hub_tick *tick,
                      void *context, nb_error *err)
{
    char       *path = NULL, *part = NULL, digest[65];
    struct stat st;
    nb_status   status = path_of(&path, directory, f->name, "", err);
    if (!status) status = path_of(&part, directory, f->name, ".part", err);
    *out = NB_HUB_ABSENT;
    *have = 0;
    if (!status && stat(path, &st) == 0) {
        *out = NB_HUB_DIFFERENT;
        if (S_ISREG(st.st_mode) && (uint64_t)st.st_size == f->size) {
            int fd = -1;
            status = f->kind == NB_DIGEST_NONE ? NB_OK : nb_open_regular(&fd, NULL, path, err);
            if (!status && fd >= 0) status = nb_digest_file(digest, fd, f->size, f->kind, path, tick, context, err);
            if (!status && (fd < 0 || !strcmp(digest, f->digest))) *out = NB_HUB_COMPLETE, *have = f->size;
            if (fd >= 0) close(fd);
        }
    } else if (!status && lstat(part, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size <= f->size) {
        *out = NB_HUB_PARTIAL;
        *have = (uint64_t)st.st_size;
    }
    free(path);
    free(part);
    return status;
}

/* ---- a file ---------------------------------------------------------------------------------------------------------- */

typedef struct {
    nb_hub_connection *c;
    const nb_hub_file *f;
    const char        *part; /* its path */
    int                fd;
    uint64_t           size; /* of the partial file */
    nb_error           failure;
    bool               failed;
} file_sink;

static bool cut(file_sink *s, uint64_t size)
{
    s->size = size;
    if (ftruncate(s->fd, (off_t)size) == 0) return true;
    s->failed = true;
    nb_fail(&s->failure, NB_ERR_IO, "%s: cannot be shortened: %s", s->part, strerror(errno));
    return false;
}

static bool write_file(void *context, uint64_t at, const void *data, size_t n)
{
    file_sink *s = context;
    if (at < s->size && !cut(s, at)) return false; /* the server began anew */
    if (lseek(s->fd, (off_t)at, SEEK_SET) < 0 || nb_write_all(s->fd, data, n, s->part, &s->failure) != NB_OK) {
        if (!s->failure.text[0]) nb_fail(&s->failure, NB_ERR_IO, "%s: cannot be written: %s", s->part, strerror(errno));
        s->failed = true;
        return false;
    }
    s->size = at + n;
    return s->c->tick(s->c->context, s->f->name, n);
}

static bool go_on_file(void *context)
{
    file_sink *s = context;
    return s->c->tick(s->c->context, s->f->name, 0);
}

/* Fetch until the partial file has its size. */
static nb_status fill(file_sink *s, const char *url, nb_error *err)
{
    nb_hub_connection *c = s->c;
    uint64_t           best = s->size; /* the longest that it ever was */
    for (int tries = 0; s->size < s->f->size;) {
        nb_error        why = {0};
        nb_http_answer  answer;
        nb_http_request r = {.url = url, .name = s->f->name, .token = c->hub.token, .from = s->size, .limit = s->f->size,
                             .write = write_file, .go_on = go_on_file, .context = s};
        nb_status       status = nb_http_get_pieces(c->http, &r, &answer, &why);
        if (s->failed) return nb_fail(err, s->failure.status, "%s", s->failure.text);
        if (answer.stopped) return stopped(s->f->name, err);
        if (!status && s->size == s->f->size) return NB_OK;
        if (answer.status == 416 && r.from && cut(s, 0)) answer.again = true; /* what is there is of no use to this server */
        if (!status) {
            answer.again = true;
            nb_fail(&why, NB_ERR_IO, "%s: the server ended at byte %llu of %llu", s->f->name, (unsigned long long)s->size,
                    (unsigned long long)s->f->size);
        }
        if (s->size > best) tries = 0, best = s->size;
        if (!answer.again || tries == c->hub.retries) return nb_fail(err, why.status, "%s", why.text);
        if (!wait_before(c, ++tries, answer.wait_s, &why)) return stopped(s->f->name, err);
    }
    return NB_OK;
}

static nb_status fetch_checked(file_sink *s, const char *url, nb_error *err)
{
    char digest[65];
    for (bool resumed = s->size > 0;; resumed = false) {
        NB_TRY(fill(s, url, err));
        if (s->f->kind == NB_DIGEST_NONE) return NB_OK;
        nb_status status = nb_digest_file(digest, s->fd, s->f->size, s->f->kind, s->part, s->c->tick, s->c->context, err);
        if (status == NB_ERR_STOPPED) return stopped(s->f->name, err);
        if (status || !strcmp(digest, s->f->digest)) return status;
        if (!resumed) break;
        nb_note("%s: what was there of it does not belong to this version; fetching all of it", s->f->name);
        if (!cut(s, 0)) return nb_fail(err, s->failure.status, "%s", s->failure.text);
    }
    unlink(s->part);
    return nb_fail(err, NB_ERR_INPUT, "%s: removed, because its %s is %s and the hub's list says %s", s->f->name,
                   s->f->kind == NB_DIGEST_SHA256 ? "SHA-256" : "git id", digest, s->f->digest);
}

/* Folders of a name below the output folder. */
static nb_status make_folders(const char *directory, const char *name, nb_error *err)
{
    char     *path;
    nb_status status = path_of(&path, directory, name, "", err);
    char     *slash = path ? strchr(path + strlen(directory) + 1, '/') : NULL;
    for (; slash && !status; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        if (mkdir(path, 0777) != 0 && errno != EEXIST)
            status = nb_fail(err, NB_ERR_IO, "%s: cannot make the folder: %s", path, strerror(errno));
        *slash = '/';
    }
    free(path);
    return status;
}

/* On the disk under its own name. */
static nb_status finish(int fd, const char *part, const char *path, nb_error *err)
{
    char *folder = nb_path_folder(path);
    if (!folder) return nb_fail(err, NB_ERR_MEMORY, "%s: no memory for a path", path);
    nb_status status = NB_OK;
    if (fsync(fd) != 0) status = nb_fail(err, NB_ERR_IO, "%s: not written to the disk: %s", part, strerror(errno));
    else if (rename(part, path) == 0) status = nb_fsync_folder(folder, err);
    else status = nb_fail(err, NB_ERR_IO, "%s: cannot be given its name: %s", part, strerror(errno));
    free(folder);
    return status;
}

static nb_status open_part(file_sink *s, nb_error *err)
{
    struct stat st;
    s->fd = open(s->part, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
    if (s->fd < 0 || fstat(s->fd, &st) != 0)
        return nb_fail(err, NB_ERR_IO, "%s: cannot be opened for writing: %s", s->part, strerror(errno));
    if (!S_ISREG(st.st_mode)) return nb_fail(err, NB_ERR_IO, "%s: is in the way and no file", s->part);
    if (flock(s->fd, LOCK_EX | LOCK_NB) != 0) return nb_fail(err, NB_ERR_IO, "%s: another program is fetching it", s->part);
    s->size = (uint64_t)st.st_size;
    if (s->size > s->f->size && !cut(s, 0)) return nb_fail(err, s->failure.status, "%s", s->failure.text);
    return NB_OK;
}

nb_status nb_hub_fetch(nb_hub_connection *c, const nb_hub_list *list, const nb_hub_file *f, const char *directory, nb_error *err)
{
    nb_buf    url = {0};
    char     *part = NULL, *path = NULL;
    nb_status status = path_of(&path, directory, f->name, "", err);
    if (!status) status = path_of(&part, directory, f->name, ".part", err);
    if (!status) status = make_folders(directory, f->name, err);
    if (!status) status = file_url(&url, &c->hub, list, f, err);
    file_sink sink = {.c = c, .f = f, .part = part, .fd = -1};
    if (!status) status = open_part(&sink, err);
    if (!status) status = fetch_checked(&sink, url.data, err);
    if (!status) status = finish(sink.fd, part, path, err);
    if (sink.fd >= 0) close(sink.fd);
    free(part);
    free(path);
    nb_buf_free(&url);
    return status;
}
