/* journal.c - an append-only file of JSON lines, each with the xxHash64 of itself.
 *
 * A line is on disk before the next thing is begun, and what it speaks of was on disk before it: after any interruption the valid
 * lines at the beginning of the file are true.  Nothing here knows how to go on; that is resume.c.
 */
#include "quant/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "runtime/io/file.h"

enum { LIMIT = 256 << 20 /* bytes of a journal: a thousand layers take one megabyte */ };
#define CHECK ",\"check\":\""

typedef struct {
    char     what[64];
    uint64_t hash;
} identity;

struct nb_journal {
    char            *folder, *path;
    int              fd;
    identity        *identities;
    nb_layer_record *layers;
    uint64_t        *start;   /* [layers] byte of the line of each */
    uint64_t         size;    /* of the file */
    size_t           identity_count, identity_capacity, layer_count, layer_capacity, start_capacity;
};

static nb_status fail_errno(nb_error *err, const char *path, const char *doing)
{
    return nb_fail(err, NB_ERR_IO, "%s: %s: %s", path, doing, strerror(errno));
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static nb_status push_identity(nb_journal *j, const char *what, uint64_t hash, nb_error *err)
{
    NB_TRY(nb_grow(&j->identities, &j->identity_capacity, j->identity_count + 1, sizeof *j->identities, "a journal", err));
    identity *i = &j->identities[j->identity_count++];
    snprintf(i->what, sizeof i->what, "%s", what);
    i->hash = hash;
    return NB_OK;
}

static nb_status push_layer(nb_journal *j, const nb_layer_record *record, uint64_t start, nb_error *err)
{
    NB_TRY(nb_grow(&j->layers, &j->layer_capacity, j->layer_count + 1, sizeof *j->layers, "a journal", err));
    NB_TRY(nb_grow(&j->start, &j->start_capacity, j->layer_count + 1, sizeof *j->start, "a journal", err));
    j->layers[j->layer_count] = *record;
    j->start[j->layer_count++] = start;
    return NB_OK;
}

static bool get_hex(const cJSON *o, const char *key, uint64_t *out)
{
    const char *text = cJSON_GetStringValue(nb_json_find(o, key));
    return text && strlen(text) == 16 && sscanf(text, "%16" SCNx64, out) == 1;
}

static bool get_number(const cJSON *item, double *out)
{
    *out = cJSON_IsNumber(item) ? item->valuedouble : 0;
    return cJSON_IsNumber(item);
}

static bool get_record(const cJSON *o, nb_layer_record *r)
{
    const cJSON *matrices = nb_json_find(o, "matrices");
    double       v[6], max;
    if (!get_hex(o, "hash", &r->hash) || !get_hex(o, "bytes", &r->bytes) || cJSON_GetArraySize(matrices) != NB_LINEARS)
        return false;
    for (int site = 0; site < NB_SITES; site++) {
        if (!get_number(cJSON_GetArrayItem(nb_json_find(o, "site_max"), site), &max)) return false;
        r->site_max[site] = (float)max;
    }
    for (int i = 0; i < NB_LINEARS; i++) {
        for (int k = 0; k < 6; k++)
            if (!get_number(cJSON_GetArrayItem(cJSON_GetArrayItem(matrices, i), k), &v[k])) return false;
        r->matrices[i] = (nb_matrix_report){.loss = v[0], .rtn_loss = v[1], .damp = v[2], .ratio = v[3], .dead = (int)v[4],
                                            .fallback = v[5] != 0};
    }
    return true;
}

/* A line that says what it said when it was written is taken over; *valid is false for any other. */
static nb_status take_line(nb_journal *j, const char *line, size_t n, uint64_t start, bool *valid, nb_error *err)
{
    const size_t tail = strlen(CHECK) + 16 + 2; /* ,"check":"0123456789abcdef"} */
    char         want[17];
    nb_error     ignored;
    cJSON       *o;
    *valid = false;
    if (n <= tail || memcmp(line + n - tail, CHECK, strlen(CHECK))) return NB_OK;
    snprintf(want, sizeof want, "%016" PRIx64, (uint64_t)XXH64(line, n - tail, 0));
    if (memcmp(line + n - 18, want, 16) || nb_json_parse(&o, line, n, j->path, &ignored)) return NB_OK;
    const char *what = cJSON_GetStringValue(nb_json_find(o, "is"));
    uint64_t    hash;
    double      layer;
    nb_layer_record record = {0};
    nb_status   status = NB_OK;
    if (what && (*valid = get_hex(o, "hash", &hash)))
        status = push_identity(j, what, hash, err);
    else if (get_number(nb_json_find(o, "layer"), &layer) && (*valid = layer == (double)j->layer_count && get_record(o, &record)))
        status = push_layer(j, &record, start, err);
    cJSON_Delete(o);
    return status;
}

static nb_status cut(nb_journal *j, uint64_t size, nb_error *err)
{
    if (ftruncate(j->fd, (off_t)size) || fsync(j->fd)) return fail_errno(err, j->path, "cannot shorten it");
    j->size = size;
    return NB_OK;
}

static nb_status read_lines(nb_journal *j, nb_error *err)
{
    nb_buf text = {0};
    NB_TRY(nb_file_read(&text, j->path, LIMIT, err));
    nb_status status = NB_OK;
    bool      valid = true;
    size_t    at = 0;
    while (!status && valid && at < text.size) {
        const char *end = memchr(text.data + at, '\n', text.size - at);
        if (!end) break;
        status = take_line(j, text.data + at, (size_t)(end - text.data) - at, at, &valid, err);
        if (valid) at = (size_t)(end - text.data) + 1;
    }
    nb_buf_free(&text);
    return status ? status : cut(j, at, err);
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

static nb_status open_file(nb_journal *j, bool resume, nb_error *err)
{
    if (mkdir(j->folder, 0777) && errno != EEXIST) {
        char       *parent = nb_path_folder(j->folder);
        const char *why = strerror(errno);
        bool        there = parent && nb_is_directory(parent);
        free(parent);
        if (there) return nb_fail(err, NB_ERR_IO, "%s: cannot create it: %s", j->folder, why);
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: cannot create it: its folder does not exist; create it first", j->folder);
    }
    j->fd = open(j->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (j->fd < 0) return fail_errno(err, j->path, "cannot open it");
    if (flock(j->fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK) { /* other reasons: a file system without locks */
        close(j->fd);
        j->fd = -1; /* it is theirs: nothing of it is touched */
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: another run is at this job; wait for it or choose another output", j->path);
    }
    NB_TRY(nb_fsync_folder(j->folder, err));
    return resume ? read_lines(j, err) : cut(j, 0, err);
}

nb_status nb_journal_open(nb_journal **out, const char *out_dir, bool resume, nb_error *err)
{
    nb_journal *j;
    size_t      n = strlen(out_dir);
    while (n > 1 && out_dir[n - 1] == '/') n--;
    *out = NULL;
    NB_TRY(nb_alloc(&j, 1, sizeof *j, "a journal", err));
    j->fd = -1;
    if (asprintf(&j->folder, "%.*s.job", (int)n, out_dir) < 0) j->folder = NULL;
    j->path = j->folder ? nb_path_join(j->folder, "journal.jsonl") : NULL;
    nb_status status = j->path ? open_file(j, resume, err) : nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", out_dir);
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
        if (done || j->layer_count == 0) {
            unlink(j->path);
            rmdir(j->folder); /* stays when there is something else in it */
        }
        close(j->fd);
    }
    free(j->identities);
    free(j->layers);
    free(j->start);
    free(j->folder);
    free(j->path);
    free(j);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

/* line: an object without its closing brace. */
static nb_status write_line(nb_journal *j, nb_buf *line, nb_error *err)
{
    NB_TRY(nb_buf_status(line, "a journal", err));
    nb_buf_printf(line, CHECK "%016" PRIx64 "\"}\n", (uint64_t)XXH64(line->data, line->size, 0));
    NB_TRY(nb_buf_status(line, "a journal", err));
    NB_TRY(nb_write_all(j->fd, line->data, line->size, j->path, err));
    if (fsync(j->fd)) return fail_errno(err, j->path, "cannot bring it to disk");
    j->size += line->size;
    return NB_OK;
}

nb_status nb_journal_identity(nb_journal *j, const char *what, uint64_t hash, nb_error *err)
{
    for (size_t i = 0; i < j->identity_count; i++)
        if (!strcmp(j->identities[i].what, what))
            return j->identities[i].hash == hash ? NB_OK
                 : nb_fail(err, NB_ERR_ARGUMENT, "%s: %s changed since this job began, %zu layers ago; repeat the first command to "
                           "go on, or start anew with --no-resume", j->path, what, j->layer_count);
    if (j->layer_count)
        return nb_fail(err, NB_ERR_INPUT, "%s: does not say what %s was; start anew with --no-resume", j->path, what);
    nb_buf line = {0};
    nb_buf_str(&line, "{\"is\":");
    nb_buf_json_string(&line, what, strlen(what));
    nb_buf_printf(&line, ",\"hash\":\"%016" PRIx64 "\"", hash);
    nb_status status = write_line(j, &line, err);
    nb_buf_free(&line);
    return status ? status : push_identity(j, what, hash, err);
}

size_t nb_journal_layers(const nb_journal *j)
{
    return j->layer_count;
}

const nb_layer_record *nb_journal_layer(const nb_journal *j, size_t layer)
{
    return &j->layers[layer];
}

nb_status nb_journal_add(nb_journal *j, const nb_layer_record *record, nb_error *err)
{
    nb_buf   line = {0};
    uint64_t start = j->size;
    nb_buf_printf(&line, "{\"layer\":%zu,\"bytes\":\"%016" PRIx64 "\",\"hash\":\"%016" PRIx64 "\",\"site_max\":[", j->layer_count,
                  record->bytes, record->hash);
    for (int site = 0; site < NB_SITES; site++) {
        if (site) nb_buf_char(&line, ',');
        nb_buf_json_number(&line, record->site_max[site]);
    }
    nb_buf_str(&line, "],\"matrices\":[");
    for (int i = 0; i < NB_LINEARS; i++) {
        const nb_matrix_report *m = &record->matrices[i];
        const double            v[6] = {m->loss, m->rtn_loss, m->damp, m->ratio, m->dead, m->fallback};
        nb_buf_str(&line, i ? ",[" : "[");
        for (int k = 0; k < 6; k++) {
            if (k) nb_buf_char(&line, ',');
            nb_buf_json_number(&line, v[k]);
        }
        nb_buf_char(&line, ']');
    }
    nb_buf_char(&line, ']');
    nb_status status = write_line(j, &line, err);
    nb_buf_free(&line);
    return status ? status : push_layer(j, record, start, err);
}

nb_status nb_journal_forget(nb_journal *j, size_t layer, nb_error *err)
{
    if (layer >= j->layer_count) return NB_OK;
    j->layer_count = layer;
    return cut(j, j->start[layer], err);
}
