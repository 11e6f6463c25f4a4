/* dataset_table.c - see dataset_table.h. */
#include "calib/dataset_table.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/io/literal.h"
#include "runtime/io/utf8.h"

enum { INDEX_CHARACTERS = 64, HOPS = 4 };

struct nb_table_stream {
    nb_tsv *table;
    char   *path;
    size_t  next;
};

bool nb_table_stream_starts(const char *bytes, size_t n)
{
    if (n >= 3 && !memcmp(bytes, "\xef\xbb\xbf", 3)) bytes += 3, n -= 3;
    const char *end = memchr(bytes, '\n', n), *p = bytes;
    bool        tab = false, question = false;
    for (n = end ? (size_t)(end - bytes) : n; p < bytes + n;) {
        size_t length = 0, left = n - (size_t)(p - bytes);
        while (length < left && p[length] != '\t' && p[length] != '\r') length++;
        question = question || (length == 8 && !memcmp(p, "question", 8));
        tab = tab || (length < left && p[length] == '\t');
        p += length + 1;
    }
    return tab && question;
}

static const char *field(const nb_table_stream *s, const char *name)
{
    const char *v = nb_tsv_get(s->table, name);
    return v ? v : "";
}

/* ---- pictures ---------------------------------------------------------------------------------------------------- */

/* The pictures of row i: base64, a list of base64, or the index of the row that holds them; otherwise image_path, a path or
 * a list of paths.  *base64: which of them. */
static nb_status picture_list(nb_table_stream *s, size_t i, nb_list *out, bool *base64, nb_error *err)
{
    size_t first = i;
    memset(out, 0, sizeof *out);
    *base64 = true;
    for (int hops = 0;; hops++) {
        const char *cell = field(s, "image");
        if (strlen(cell) > INDEX_CHARACTERS || *cell == '[') return nb_list_parse(out, cell, err);
        if (!*cell) break;
        size_t other = nb_tsv_find(s->table, cell);
        if (other == SIZE_MAX || other == i || hops == HOPS)
            return nb_fail(err, NB_ERR_INPUT, "the image cell '%s' is not the index of a row that holds a picture", cell);
        i = other;
        NB_TRY(nb_tsv_row(s->table, i, err));
    }
    if (i != first)
        return nb_fail(err, NB_ERR_INPUT, "its picture is said to be in the row at line %zu, which has none", nb_tsv_line(s->table, i));
    *base64 = false;
    return *field(s, "image_path") ? nb_list_parse(out, field(s, "image_path"), err) : NB_OK;
}

static nb_status no_memory(const nb_table_stream *s, nb_error *err)
{
    return nb_fail(err, NB_ERR_MEMORY, "%s: no memory for a row", s->path);
}

static cJSON *add_part(cJSON *parts, const char *type, const char *text)
{
    cJSON *part = cJSON_CreateObject();
    if (part && cJSON_AddStringToObject(part, "type", type) && cJSON_AddStringToObject(part, type, text) &&
        cJSON_AddItemToArray(parts, part))
        return part;
    cJSON_Delete(part);
    return NULL;
}

static nb_status add_pictures(const nb_table_stream *s, cJSON *parts, const nb_list *pictures, bool base64, nb_error *err)
{
    nb_buf    url = {0};
    nb_status status = NB_OK;
    for (size_t p = 0; p < pictures->count && !status; p++) {
        nb_buf_clear(&url);
        nb_buf_str(&url, base64 ? "data:image;base64," : "");
        nb_buf_str(&url, pictures->items[p]);
        status = nb_buf_status(&url, "a picture", err);
        if (!status && !add_part(parts, "image", url.data)) status = no_memory(s, err);
    }
    nb_buf_free(&url);
    return status;
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

static void question(const nb_table_stream *s, nb_buf *out)
{
    bool options = false, hint = *field(s, "hint");
    for (char letter[2] = "A"; *letter <= 'Z'; letter[0]++) options = options || *field(s, letter);
    if (hint) nb_buf_printf(out, "Hint: %s\n", field(s, "hint"));
    nb_buf_str(out, hint || options ? "Question: " : "");
    nb_buf_str(out, field(s, "question"));
    if (!options) return;
    nb_buf_str(out, "\nOptions:\n");
    for (char letter[2] = "A"; *letter <= 'Z'; letter[0]++)
        if (*field(s, letter)) nb_buf_printf(out, "%s. %s\n", letter, field(s, letter));
    nb_buf_str(out, "Please select the correct answer from the options above.");
}

static nb_status add_message(const nb_table_stream *s, cJSON *messages, cJSON **out, const char *role, nb_error *err)
{
    *out = cJSON_CreateObject();
    if (*out && cJSON_AddStringToObject(*out, "role", role) && cJSON_AddItemToArray(messages, *out)) return NB_OK;
    cJSON_Delete(*out);
    return no_memory(s, err);
}

static nb_status add_answer(const nb_table_stream *s, cJSON *messages, nb_error *err)
{
    nb_list accepted;
    cJSON  *message;
    NB_TRY(nb_list_parse(&accepted, field(s, "answer"), err));
    const char *answer = accepted.count ? accepted.items[0] : "";
    nb_status   status = *answer ? add_message(s, messages, &message, "assistant", err) : NB_OK;
    if (!status && *answer && !cJSON_AddStringToObject(message, "content", answer)) status = no_memory(s, err);
    nb_list_free(&accepted);
    return status;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static nb_status check_text(const nb_table_stream *s, nb_error *err)
{
    static const char *const columns[] = {"question", "hint", "answer", "image_path"};
    char letter[2] = "A";
    for (size_t i = 0; i < NB_COUNT(columns) + 26; i++) {
        letter[0] = (char)('A' + i - NB_COUNT(columns));
        const char *name = i < NB_COUNT(columns) ? columns[i] : letter, *text = field(s, name);
        if (!nb_utf8_valid(text, strlen(text))) return nb_fail(err, NB_ERR_INPUT, "the column '%s' is not UTF-8", name);
    }
    return *field(s, "question") ? NB_OK : nb_fail(err, NB_ERR_INPUT, "the question is empty");
}

static nb_status read_row(nb_table_stream *s, cJSON *row, size_t i, nb_error *err)
{
    nb_list pictures = {0};
    nb_buf  text = {0};
    bool    base64;
    cJSON  *messages = cJSON_AddArrayToObject(row, "messages"), *user, *parts = NULL;
    if (!messages) return no_memory(s, err);
    NB_TRY(nb_tsv_row(s->table, i, err));
    nb_status status = picture_list(s, i, &pictures, &base64, err);
    if (!status) status = nb_tsv_row(s->table, i, err); /* another row may have been looked at */
    if (!status) status = check_text(s, err);
    if (!status) status = add_message(s, messages, &user, "user", err);
    if (!status && !(parts = cJSON_AddArrayToObject(user, "content"))) status = no_memory(s, err);
    if (!status) status = add_pictures(s, parts, &pictures, base64, err);
    if (!status) question(s, &text);
    if (!status) status = nb_buf_status(&text, "a question", err);
    if (!status && !add_part(parts, "text", text.data)) status = no_memory(s, err);
    if (!status) status = add_answer(s, messages, err);
    nb_buf_free(&text);
    nb_list_free(&pictures);
    return status;
}

nb_status nb_table_stream_next(nb_table_stream *s, cJSON **row, size_t *line, nb_error *err)
{
    *row = NULL;
    if (s->next == nb_tsv_rows(s->table)) return NB_OK;
    size_t i = s->next++;
    *line = nb_tsv_line(s->table, i);
    *row = cJSON_CreateObject();
    if (!*row) return no_memory(s, err);
    nb_status status = read_row(s, *row, i, err);
    if (!status) return NB_OK;
    cJSON_Delete(*row);
    *row = NULL;
    nb_error_within(err, "%s: line %zu (index %s)", s->path, *line, nb_tsv_index(s->table, i));
    return status;
}

nb_status nb_table_stream_open(nb_table_stream **out, const char *path, nb_error *err)
{
    nb_table_stream *s;
    *out = NULL;
    NB_TRY(nb_alloc(&s, 1, sizeof *s, "a table", err));
    s->path = nb_strdup(path);
    nb_status status = s->path ? nb_tsv_open(&s->table, path, true, err)
                               : nb_fail(err, NB_ERR_MEMORY, "%s: no memory to read it", path);
    if (!status && nb_tsv_column(s->table, "question") < 0)
        status = nb_fail(err, NB_ERR_INPUT, "%s: the table has no column 'question'", path);
    if (status) {
        nb_table_stream_close(s);
        return status;
    }
    *out = s;
    return NB_OK;
}

void nb_table_stream_close(nb_table_stream *s)
{
    if (!s) return;
    nb_tsv_close(s->table);
    free(s->path);
    free(s);
}

uint64_t nb_table_stream_offset(const nb_table_stream *s)
{
    return nb_tsv_offset(s->table, s->next);
}

uint64_t nb_table_stream_size(const nb_table_stream *s)
{
    return nb_tsv_offset(s->table, nb_tsv_rows(s->table));
}
