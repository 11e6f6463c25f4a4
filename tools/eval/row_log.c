/* row_log.c - see row_log.h. */
#include "tools/eval/row_log.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/io/json.h"
#include "tools/cli/line_log.h"
#include "tools/cli/output.h"

struct nb_row_log {
    char *path;
    FILE *file;
};

/* ---- what was answered ------------------------------------------------------------------------------------------------- */

static int plain_name(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

nb_status nb_row_log_identify(nb_row_log_of *of, const char *folder, nb_error *err)
{
    struct dirent **entries;
    uint64_t        hash = 0xcbf29ce484222325; /* FNV-1a */
    nb_buf          text = { 0 };
    int             count = scandir(folder, &entries, plain_name, alphasort);
    if (count < 0) return nb_fail(err, NB_ERR_INPUT, "%s: cannot be listed: %m", folder);
    for (int i = 0; i < count; i++) {
        nb_buf      path = { 0 };
        struct stat about;
        nb_buf_printf(&path, "%s/%s", folder, entries[i]->d_name);
        if (path.data && stat(path.data, &about) == 0 && S_ISREG(about.st_mode))
            nb_buf_printf(&text, "%s %lld %lld.%09ld\n", entries[i]->d_name, (long long)about.st_size, (long long)about.st_mtim.tv_sec,
                          about.st_mtim.tv_nsec);
        nb_buf_free(&path);
        free(entries[i]);
    }
    free(entries);
    nb_status status = nb_buf_status(&text, folder, err);
    for (size_t i = 0; i < text.size; i++) hash = (hash ^ (unsigned char)text.data[i]) * 0x100000001b3;
    snprintf(of->checkpoint, sizeof of->checkpoint, "%016llx", (unsigned long long)hash);
    nb_buf_free(&text);
    return status;
}

/* ---- reading ------------------------------------------------------------------------------------------------------------- */

static const char *text_of(const cJSON *line, const char *key)
{
    const cJSON *v = nb_json_find(line, key);
    return cJSON_IsString(v) ? v->valuestring : "";
}

/* One line into the task, when it is about it.  of NULL: whatever made it. */
static nb_status take(const cJSON *line, const char *where, const nb_row_log_of *of, nb_task *t, bool *answered, nb_error *err)
{
    const char *index, *prediction;
    if (strcmp(text_of(line, "task"), t->name)) return NB_OK;
    NB_TRY(nb_json_get_string(line, "index", &index, where, err));
    NB_TRY(nb_json_get_string(line, "prediction", &prediction, where, err));
    if (of && strcmp(text_of(line, "checkpoint"), of->checkpoint))
        return nb_fail(err, NB_ERR_INPUT, "%s: the answer is of other files than those of %s now; write to another file", where, of->model);
    if (of && strcmp(text_of(line, "settings"), of->settings))
        return nb_fail(err, NB_ERR_INPUT, "%s: the answer was made with '%s', not with '%s'; write to another file", where,
                       text_of(line, "settings"), of->settings);
    size_t row = nb_tsv_find(t->table, index);
    if (row == SIZE_MAX) return nb_fail(err, NB_ERR_INPUT, "%s: the table of %s has no row '%s'", where, t->name, index);
    if (row >= t->rows) return NB_OK; /* beyond --limit */
    answered[row] = true;
    return nb_task_answer(t, row, prediction, err);
}

static nb_status read_lines(const char *path, const nb_row_log_of *of, nb_task *t, bool *answered, nb_error *err)
{
    nb_json_stream *stream;
    char           *model = of ? nb_strdup(of->model) : NULL; /* NULL until a line of the task says whose it is */
    NB_TRY(nb_json_stream_open(&stream, path, err));
    nb_status status = NB_OK;
    for (size_t line; status == NB_OK;) {
        cJSON *o;
        char   where[256];
        status = nb_json_stream_next(stream, &o, &line, err);
        if (status != NB_OK || !o) break;
        snprintf(where, sizeof where, "%.200s line %zu", path, line);
        if (!model && !strcmp(text_of(o, "task"), t->name)) model = nb_strdup(text_of(o, "model"));
        if (model && !strcmp(text_of(o, "model"), model)) status = take(o, where, of, t, answered, err);
        cJSON_Delete(o);
    }
    free(model);
    nb_json_stream_close(stream);
    return status;
}

nb_status nb_row_log_load(const char *path, nb_task *t, nb_error *err)
{
    bool *answered;
    NB_TRY(nb_alloc(&answered, t->rows, sizeof *answered, "rows", err));
    nb_status status = read_lines(path, NULL, t, answered, err);
    for (size_t i = 0; i < t->rows && status == NB_OK; i++)
        if (!answered[i])
            status = nb_fail(err, NB_ERR_INPUT, "%s: it has no answer to row '%s' of %s, so it cannot be the baseline", path,
                             nb_tsv_index(t->table, i), t->name);
    free(answered);
    return status;
}

nb_status nb_row_log_recall(nb_row_log *s, const nb_row_log_of *of, nb_task *t, bool *answered, nb_error *err)
{
    return read_lines(s->path, of, t, answered, err);
}

/* ---- writing ------------------------------------------------------------------------------------------------------------- */

nb_status nb_row_log_open(nb_row_log **out, const char *path, bool resume, nb_error *err)
{
    nb_row_log *s;
    *out = NULL;
    NB_TRY(nb_alloc(&s, 1, sizeof *s, "a log", err));
    s->path = nb_strdup(path);
    nb_status status = s->path ? nb_line_log_open(&s->file, path, resume, err) : nb_fail(err, NB_ERR_MEMORY, "no memory for a log");
    if (status == NB_OK)
        *out = s;
    else
        nb_row_log_close(s, NULL);
    return status;
}

nb_status nb_row_log_close(nb_row_log *s, nb_error *err)
{
    if (!s) return NB_OK;
    nb_status status = NB_OK;
    if (s->file && fseek(s->file, 0, SEEK_END) == 0 && ftell(s->file) == 0) remove(s->path);
    if (s->file && fclose(s->file) != 0 && err) status = nb_fail(err, NB_ERR_IO, "%s: cannot write: %m", s->path);
    free(s->path);
    free(s);
    return status;
}

nb_status nb_row_log_add(nb_row_log *s, const nb_row_log_of *of, nb_task *t, size_t i, nb_error *err)
{
    const char *right;
    nb_buf      line = { 0 };
    NB_TRY(nb_task_right(t, i, &right, err));
    nb_emit out = nb_emit_start(&line, false);
    nb_emit_open(&out, NULL, '{');
    nb_emit_string(&out, "model", of->model);
    nb_emit_string(&out, "checkpoint", of->checkpoint);
    nb_emit_string(&out, "settings", of->settings);
    nb_emit_string(&out, "task", t->name);
    nb_emit_string(&out, "index", nb_tsv_index(t->table, i));
    nb_emit_string(&out, "prediction", t->scores[i].prediction);
    nb_emit_string(&out, "answer", right);
    nb_emit_number(&out, "hit", t->scores[i].score);
    nb_emit_bool(&out, "undecided", t->scores[i].undecided);
    nb_emit_close(&out); /* ends the line */
    nb_status status = nb_line_log_add(s->file, s->path, &line, err);
    nb_buf_free(&line);
    return status;
}
