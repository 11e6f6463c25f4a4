/* dataset.c - opening a data file, telling its form, and walking its rows.
 *
 * Reads one row at a time and keeps one: the first, which opening looks at to tell the form and to refuse an empty set.
 * It does not open pictures; whether a file is there is found out when a prompt is built from the chat.
 */
#include "calib/dataset.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "calib/dataset_row.h"
#include "runtime/io/file.h"

struct nb_dataset {
    char           *path, *root;
    nb_json_stream *stream;
    nb_row_map      map;
    nb_data_form    asked, form; /* what the caller said; what was found */
    bool            need_answer;
    bool            array;       /* rows are the items of one JSON array, not lines */
    cJSON          *first;       /* read by open, not yet given out */
    size_t          first_line;
    size_t          row;         /* rows given out */
};

static const char *const form_names[] = {"auto", "openai", "sharegpt"};

const char *nb_data_form_name(nb_data_form form)
{
    return form_names[form];
}

nb_status nb_data_form_parse(nb_data_form *out, const char *name, nb_error *err)
{
    for (size_t i = 0; i < NB_COUNT(form_names); i++) {
        if (strcmp(name, form_names[i])) continue;
        *out = (nb_data_form)i;
        return NB_OK;
    }
    return nb_fail(err, NB_ERR_ARGUMENT, "data form '%s' is not one of auto, openai, sharegpt", name);
}

/* True when the first character that is not white space opens an array. */
static bool starts_with_array(const char *path)
{
    char text[4096];
    int  fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return false;
    ssize_t n = read(fd, text, sizeof text);
    close(fd);
    ssize_t i = n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3) ? 3 : 0;
    while (i < n && strchr(" \t\r\n", text[i]) && text[i]) i++;
    return i < n && text[i] == '[';
}

/* Read the description that belongs to the file: the one given, or the one beside it when it lists the file. */
static nb_status read_map(nb_dataset *d, const char *given, nb_error *err)
{
    bool         found = false;
    nb_data_form form = NB_DATA_AUTO;
    if (given) {
        NB_TRY(nb_row_map_read(&d->map, &found, &form, given, d->path, err));
        if (!found) return nb_fail(err, NB_ERR_INPUT, "%s: no entry has '%s' as its file_name", given, d->path);
    } else if (d->asked != NB_DATA_OPENAI) {
        char *folder = nb_path_folder(d->path), *beside = folder ? nb_path_join(folder, "dataset_info.json") : NULL;
        nb_status status = NB_OK;
        if (!beside)
            status = nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", d->path);
        else if (nb_file_exists(beside))
            status = nb_row_map_read(&d->map, &found, &form, beside, d->path, err);
        free(folder);
        free(beside);
        if (status) return status;
    }
    if (found && d->asked != NB_DATA_AUTO && d->asked != form)
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: dataset_info.json says that the form is %s, not %s", d->path,
                       nb_data_form_name(form), nb_data_form_name(d->asked));
    d->form = found ? form : d->asked;
    return NB_OK;
}

void nb_dataset_close(nb_dataset *d)
{
    if (!d) return;
    if (d->stream) nb_json_stream_close(d->stream);
    nb_row_map_free(&d->map);
    cJSON_Delete(d->first);
    free(d->path);
    free(d->root);
    free(d);
}

static nb_status open_parts(nb_dataset *d, const nb_dataset_options *options, nb_error *err)
{
    d->root = options->image_root ? nb_strdup(options->image_root) : nb_path_folder(d->path);
    if (!d->root) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", d->path);
    NB_TRY(nb_json_stream_open(&d->stream, d->path, err));
    d->array = starts_with_array(d->path);
    NB_TRY(read_map(d, options->dataset_info, err));
    NB_TRY(nb_json_stream_next(d->stream, &d->first, &d->first_line, err));
    if (!d->first) return nb_fail(err, NB_ERR_INPUT, "%s: holds no rows", d->path);
    if (d->form == NB_DATA_AUTO) d->form = nb_row_form(d->first);
    return NB_OK;
}

nb_status nb_dataset_open(nb_dataset **out, const char *path, const nb_dataset_options *options, nb_error *err)
{
    *out = NULL;
    nb_dataset *d;
    NB_TRY(nb_alloc(&d, 1, sizeof *d, "a data set", err));
    d->asked = options->form;
    d->need_answer = options->need_answer;
    d->path = nb_strdup(path);
    nb_status status = d->path ? open_parts(d, options, err) : nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", path);
    if (status) {
        nb_dataset_close(d);
        return status;
    }
    *out = d;
    return NB_OK;
}

nb_data_form nb_dataset_form(const nb_dataset *d)
{
    return d->form;
}

const char *nb_dataset_root(const nb_dataset *d)
{
    return d->root;
}

/* The tail of a long path is what tells files apart. */
static void name_row(const nb_dataset *d, size_t line, char where[256])
{
    size_t      n = strlen(d->path);
    const char *path = n > 180 ? d->path + n - 180 : d->path;
    while (path > d->path && ((unsigned char)*path & 0xc0) == 0x80) path++; /* not inside a character */
    if (d->array)
        snprintf(where, 256, "%s%s row %zu (line %zu)", path > d->path ? "..." : "", path, d->row, line);
    else
        snprintf(where, 256, "%s%s line %zu", path > d->path ? "..." : "", path, line);
}

static nb_status check_answer(const nb_dataset *d, const nb_chat *chat, const char *where, nb_error *err)
{
    const char *last = chat->count ? chat->messages[chat->count - 1].role : "nobody";
    if (!d->need_answer || !strcmp(last, "assistant")) return NB_OK;
    return nb_fail(err, NB_ERR_INPUT, "%s: messages[%d]: the last message is by '%s', but an answer of the assistant is needed",
                   where, chat->count - 1, last);
}

nb_status nb_dataset_next(nb_dataset *d, nb_chat *out, char where[256], bool *end, nb_error *err)
{
    memset(out, 0, sizeof *out);
    where[0] = 0;
    cJSON *row = d->first, *messages = NULL, *tools = NULL;
    size_t line = d->first_line;
    *end = false;
    d->first = NULL;
    if (!row) NB_TRY(nb_json_stream_next(d->stream, &row, &line, err));
    if (!row) {
        *end = true;
        return NB_OK;
    }
    d->row++;
    name_row(d, line, where);
    bool told_by_row = d->asked == NB_DATA_AUTO && !d->map.info;
    nb_data_form form = told_by_row ? nb_row_form(row) : d->form;
    nb_status status = nb_row_messages(&messages, &tools, row, &d->map, form, where, err);
    if (!status) status = nb_chat_from_json(out, messages, tools, where, err);
    if (!status) status = check_answer(d, out, where, err);
    if (status) nb_chat_free(out);
    cJSON_Delete(messages); /* before the row: they borrow from it */
    cJSON_Delete(tools);
    cJSON_Delete(row);
    return status;
}
