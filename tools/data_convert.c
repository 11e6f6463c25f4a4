/* data_convert.c - `nibble data convert`: any form to OpenAI-style JSON lines, one conversation a line.
 *
 * Rows go out as nb_dataset made them, so tool calls stay calls and pixel limits stay where they are.  A relative picture path
 * is rewritten to be right from the new file's folder.  The new file appears under its name when it is complete.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "calib/mix.h"
#include "tools/cli/output.h"
#include "tools/cli/progress.h"
#include "tools/cli/stop.h"
#include "tools/data.h"

typedef struct {
    const nb_data_job *job;
    nb_data_walk       walk;   /* every row, or */
    nb_mix            *mix;    /* --samples of them, by the weights */
    const nb_dataset  *data;   /* that the present row is from, NULL: it could not be opened */
    int                file;
    int                fd;
    char              *partial;
    nb_buf             line;   /* written when it is large enough */
    char              *prefix; /* from the new file's folder to the present data's root; "" when they are one */
    int                prefix_file;
    size_t             rows, bad;
} converter;

/* "../data/" from one folder to another, both absolute and without links. */
static void relative_path(nb_buf *out, const char *from, const char *to)
{
    size_t same = 0, i = 0;
    for (; from[i] && from[i] == to[i]; i++)
        if (from[i] == '/') same = i + 1;
    if (!from[i] && (to[i] == '/' || !to[i])) same = i + (to[i] == '/');
    if (!to[i] && from[i] == '/') same = i + 1;
    const char *up = from + (same < strlen(from) ? same : strlen(from)), *down = to + (same < strlen(to) ? same : strlen(to));
    for (const char *p = up; *p; p++)
        if (p == up || p[-1] == '/') nb_buf_str(out, "../");
    nb_buf_str(out, down);
    if (*down) nb_buf_char(out, '/');
}

static nb_status find_prefix(converter *c, nb_error *err)
{
    if (c->prefix && c->prefix_file == c->file) return NB_OK;
    nb_buf      text = {0};
    const char *root = nb_dataset_root(c->data);
    char       *folder = nb_path_folder(c->job->out), *from = folder ? realpath(folder, NULL) : NULL, *to = realpath(root, NULL);
    nb_status   status = NB_OK;
    if (!from || !to)
        status = nb_fail(err, NB_ERR_IO, "%s: %s", from ? root : folder ? folder : "--out", strerror(errno));
    nb_buf_str(&text, "");
    if (!status) relative_path(&text, from, to);
    free(folder);
    free(from);
    free(to);
    if (!status) status = nb_buf_status(&text, "a path", err);
    if (status) {
        nb_buf_free(&text);
        return status;
    }
    free(c->prefix);
    c->prefix = text.data; /* malloc'd by the buffer */
    c->prefix_file = c->file;
    return NB_OK;
}

static bool is_relative(const char *reference)
{
    return *reference && *reference != '/' && !strstr(reference, "://") && strncmp(reference, "data:", 5) != 0;
}

static nb_status move_reference(cJSON *value, const char *prefix, nb_error *err)
{
    if (!cJSON_IsString(value) || !is_relative(value->valuestring)) return NB_OK;
    char *moved = NULL;
    bool  good = asprintf(&moved, "%s%s", prefix, value->valuestring) >= 0 && cJSON_SetValuestring(value, moved);
    free(moved);
    return good ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "no memory for a path");
}

/* A reference, an object with a url, or a list of them. */
static nb_status move_references(cJSON *value, const char *prefix, nb_error *err)
{
    cJSON *item;
    if (cJSON_IsObject(value)) return move_reference(cJSON_GetObjectItemCaseSensitive(value, "url"), prefix, err);
    if (!cJSON_IsArray(value)) return move_reference(value, prefix, err);
    cJSON_ArrayForEach(item, value) NB_TRY(move_references(item, prefix, err));
    return NB_OK;
}

static nb_status move_pictures(cJSON *messages, const char *prefix, nb_error *err)
{
    static const char *const keys[] = {"image", "image_url", "video", "video_url"};
    cJSON                   *message, *part;
    cJSON_ArrayForEach(message, messages) {
        cJSON *content = cJSON_GetObjectItemCaseSensitive(message, "content");
        if (!cJSON_IsArray(content)) continue;
        cJSON_ArrayForEach(part, content)
            for (size_t i = 0; i < NB_COUNT(keys); i++) {
                cJSON *value = cJSON_GetObjectItemCaseSensitive(part, keys[i]);
                if (value) NB_TRY(move_references(value, prefix, err));
            }
    }
    return NB_OK;
}

static nb_status flush(converter *c, nb_error *err)
{
    NB_TRY(nb_buf_status(&c->line, "a row", err));
    NB_TRY(nb_write_all(c->fd, c->line.data, c->line.size, c->partial, err));
    nb_buf_clear(&c->line);
    return NB_OK;
}

static nb_status write_row(converter *c, nb_error *err)
{
    NB_TRY(find_prefix(c, err));
    cJSON    *messages = cJSON_Duplicate(nb_dataset_messages(c->data), true);
    nb_status status = messages ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "no memory for a row");
    if (!status && *c->prefix) status = move_pictures(messages, c->prefix, err);
    if (!status) {
        nb_buf_str(&c->line, "{\"messages\": ");
        nb_json_print(&c->line, messages, NB_JSON_SPACED);
        if (nb_dataset_tools(c->data)) {
            nb_buf_str(&c->line, ", \"tools\": ");
            nb_json_print(&c->line, nb_dataset_tools(c->data), NB_JSON_SPACED);
        }
        nb_buf_str(&c->line, "}\n");
        status = c->line.size >= 1 << 20 || c->line.failed ? flush(c, err) : NB_OK;
    }
    cJSON_Delete(messages);
    c->rows++;
    return status;
}

static nb_status next_row(converter *c, nb_chat *chat, char where[256], bool *end, nb_error *err)
{
    size_t    source = (size_t)c->file;
    nb_status status = c->mix ? nb_mix_next(c->mix, chat, where, &source, end, err)
                              : nb_data_next(&c->walk, chat, where, end, NULL, NULL, err);
    if (!c->mix) {
        c->data = c->walk.data;
        c->file = c->walk.file;
        return status;
    }
    c->file = (int)source;
    c->data = nb_mix_dataset(c->mix);
    if (!status && !*end) nb_mix_took(c->mix);
    if (status && !nb_mix_resume(c->mix)) c->data = NULL; /* nothing goes on behind it */
    return status ? status : nb_stop_status(err);
}

static nb_status open_mix(converter *c, nb_error *err)
{
    nb_mix_options how = {.dataset = c->job->dataset, .samples = c->job->samples};
    return c->job->samples ? nb_mix_open(&c->mix, c->job->sources, (size_t)c->job->count, &how, err) : NB_OK;
}

static nb_status write_rows(converter *c, nb_error *err)
{
    nb_meter meter;
    bool     end = false;
    nb_meter_start(&meter, "convert");
    nb_status status = NB_OK;
    while (!status && !end) {
        nb_chat chat;
        char    where[256];
        status = next_row(c, &chat, where, &end, err);
        nb_chat_free(&chat);
        if (status && c->data && c->job->skip_bad && (status == NB_ERR_INPUT || status == NB_ERR_UNSUPPORTED)) {
            nb_warn("left out: %s", err->text);
            c->bad++;
            status = NB_OK;
            continue;
        }
        if (!status && !end) status = write_row(c, err);
        if (c->data && !end)
            nb_meter_update(&meter, (size_t)nb_dataset_offset(c->data),
                            (size_t)nb_dataset_size(c->data), c->job->sources[c->file].path);
    }
    nb_meter_finish(&meter);
    return status ? status : flush(c, err);
}

static nb_status finish(converter *c, nb_error *err)
{
    char     *folder = nb_path_folder(c->job->out);
    nb_status status = folder ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "out of memory");
    if (!status && fsync(c->fd)) status = nb_fail(err, NB_ERR_IO, "%s: %s", c->partial, strerror(errno));
    if (!status && rename(c->partial, c->job->out)) status = nb_fail(err, NB_ERR_IO, "%s: %s", c->job->out, strerror(errno));
    if (!status) status = nb_fsync_folder(folder, err);
    free(folder);
    return status;
}

static nb_status report(const converter *c, nb_error *err)
{
    nb_note("%s: %zu conversations%s", c->job->out, c->rows, c->bad ? ", bad rows left out" : "");
    if (!nb_json_wanted()) return NB_OK;
    nb_buf  out = {0};
    nb_emit e = nb_emit_start(&out, false);
    nb_emit_open(&e, NULL, '{');
    nb_emit_string(&e, "out", c->job->out);
    nb_emit_int(&e, "rows", (int64_t)c->rows);
    nb_emit_int(&e, "left_out", (int64_t)c->bad);
    nb_emit_close(&e);
    nb_status status = nb_print(&out, err);
    nb_buf_free(&out);
    return status;
}

nb_status nb_data_convert(const nb_data_job *job, nb_error *err)
{
    converter c = {.job = job, .walk = {.job = job}, .fd = -1};
    if (!job->out) return nb_fail(err, NB_ERR_ARGUMENT, "convert writes a file: give --out FILE.jsonl");
    if (!job->force && nb_file_exists(job->out))
        return nb_fail(err, NB_ERR_ARGUMENT, "--out %s exists; choose another name or give --force", job->out);
    if (nb_is_directory(job->out)) return nb_fail(err, NB_ERR_ARGUMENT, "--out %s is a folder; name a file", job->out);
    if (asprintf(&c.partial, "%s.partial", job->out) < 0) return nb_fail(err, NB_ERR_MEMORY, "out of memory");
    nb_status status = open_mix(&c, err);
    c.fd = status ? -1 : open(c.partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (!status) status = c.fd < 0 ? nb_fail(err, NB_ERR_IO, "%s: %s", c.partial, strerror(errno)) : write_rows(&c, err);
    if (!status) status = finish(&c, err);
    if (status && c.fd >= 0) unlink(c.partial);
    if (c.fd >= 0) close(c.fd);
    nb_data_walk_close(&c.walk);
    nb_mix_close(c.mix);
    nb_buf_free(&c.line);
    free(c.prefix);
    free(c.partial);
    return status ? status : report(&c, err);
}
