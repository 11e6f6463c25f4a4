/* dataset.c - opening a data file, telling its form, and walking its rows.
 *
 * Rows are read in batches: of one, or with a pool of many.  The texts of a batch are cut out of the file one after the other,
 * and parsed and made into chats side by side.  The first row that can be read decides the form of the file: until then
 * batches are of one, so that a row's meaning never depends on its company.  It does not open pictures; whether a file is
 * there is found out when a prompt is built from the chat.
 */
#include "calib/dataset.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "calib/dataset_row.h"
#include "calib/dataset_table.h"
#include "calib/dataset_text.h"
#include "runtime/io/file.h"

struct nb_dataset {
    char           *path, *root;
    const void     *bytes;       /* NULL: path is a file */
    size_t          size;
    nb_json_stream *json;        /* one of the three is open */
    nb_text_stream *text_stream;
    nb_table_stream *table;
    nb_row_map      map;
    nb_data_form    asked, form; /* what the caller said; what was found */
    bool            need_answer;
    bool            drop_rows;
    bool            only_count;  /* rows are not made into chats */
    bool            stream_failed; /* the last failure was of the file, not of the meaning of a row */
    nb_pool        *pool;
    void          (*look)(const void *context, const nb_chat *chat, void *seen);
    const void     *look_context;
    size_t          look_size;
    struct row_ahead *ahead;     /* [batch] of which `count` are filled and `at` were given out; the last of them stays */
    char           *seen;        /* [batch, look_size] */
    size_t          batch, count, at;
    nb_buf          text;        /* of the batch */
    size_t          rows, skipped;
};

enum { AHEAD_ROWS = 256, AHEAD_BYTES = 2 << 20 };

/* A row that was read and not given out yet. */
typedef struct row_ahead {
    nb_json_span span;     /* its text, while it is not parsed */
    bool         unparsed, blank, stream_failed;
    nb_status    read;     /* of reading and parsing it */
    nb_status    status;   /* ... and of making a chat of it */
    nb_data_form form;
    size_t       line;
    nb_row       row;
    nb_chat      chat;
    char         where[256];
    nb_error     err;      /* what read or status was about */
} row_ahead;

static const char *const form_names[] = {"auto", "openai", "sharegpt", "alpaca", "swift", "llava", "text", "tsv"};

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
    return nb_fail(err, NB_ERR_ARGUMENT, "data form '%s' is not one of auto, openai, sharegpt, alpaca, swift, llava, text, tsv",
                   name);
}

/* ---- what kind of file it is ---------------------------------------------------------------------------------------------- */

static bool ends_with(const char *path, const char *tail)
{
    size_t n = strlen(path), m = strlen(tail);
    return n >= m && !strcasecmp(path + n - m, tail);
}

/* The first bytes, unpacked; *start: the first of them that is neither white space nor a byte order mark, 0 when there is none. */
static nb_status peek(char bytes[4096], size_t *n, char *start, const char *path, nb_error *err)
{
    nb_reader *reader;
    NB_TRY(nb_reader_open(&reader, path, err));
    nb_status status = nb_reader_read(reader, bytes, 4096, n, err);
    nb_reader_close(reader);
    size_t i = *n >= 3 && !memcmp(bytes, "\xef\xbb\xbf", 3) ? 3 : 0;
    while (!status && i < *n && bytes[i] && strchr(" \t\r\n", bytes[i])) i++;
    *start = !status && i < *n ? bytes[i] : 0;
    return status;
}

/* What data sets also come in and is not read here. */
static nb_status refuse_kind(const char *path, const char *bytes, size_t n, nb_error *err)
{
    if (n >= 4 && !memcmp(bytes, "PAR1", 4))
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: is a Parquet file; write its rows as JSON lines first (datasets: to_json)",
                       path);
    if (n >= 6 && !memcmp(bytes, "ARROW1", 6))
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: is an Arrow file; write its rows as JSON lines first (datasets: to_json)",
                       path);
    if (ends_with(path, ".tsv") || ends_with(path, ".csv"))
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: is a table, but not a benchmark's (tab-separated, with columns 'index' and "
                       "'question'); other data is needed as JSON lines, such as {\"query\": ..., \"response\": ..., "
                       "\"images\": [...]}", path);
    return NB_OK;
}

/* Some keep JSON lines under the name of a text file: as text they would calibrate on braces. */
static bool holds_json(const char *path)
{
    nb_json_stream *stream;
    cJSON          *row = NULL;
    if (nb_json_stream_open(&stream, path, NULL)) return false;
    bool good = !nb_json_stream_next(stream, &row, NULL, NULL) && cJSON_IsObject(row);
    cJSON_Delete(row);
    nb_json_stream_close(stream);
    return good;
}

/* A table's rows are looked up by their place, so it cannot be packed: if it is, its first bytes, unpacked, are not those of
 * the file. */
static nb_status open_table(nb_dataset *d, const char *bytes, size_t n, nb_error *err)
{
    int       fd;
    uint64_t  size;
    char      first[16] = {0};
    size_t    look = n < sizeof first ? n : sizeof first;
    NB_TRY(nb_open_regular(&fd, &size, d->path, err));
    nb_status status = size < look ? nb_fail(err, NB_ERR_INPUT, "%s: changed while it was read", d->path)
                                   : nb_read_at(fd, first, look, 0, d->path, err);
    close(fd);
    if (!status && memcmp(first, bytes, look))
        status = nb_fail(err, NB_ERR_UNSUPPORTED, "%s: is a packed benchmark table; unpack it first", d->path);
    return status ? status : nb_table_stream_open(&d->table, d->path, err);
}

static nb_status open_stream(nb_dataset *d, nb_error *err)
{
    if (d->bytes) return nb_json_stream_open_bytes(&d->json, d->path, d->bytes, d->size, err);
    char   bytes[4096], start;
    size_t n;
    NB_TRY(peek(bytes, &n, &start, d->path, err));
    bool table = start && nb_table_stream_starts(bytes, n);
    if (d->asked == NB_DATA_TSV || (d->asked == NB_DATA_AUTO && table)) return open_table(d, bytes, n, err);
    bool bracket = start == '{' || start == '[', named = nb_text_stream_named(d->path);
    bool text = d->asked == NB_DATA_TEXT ? named || !bracket : d->asked == NB_DATA_AUTO && named;
    if (text && !(bracket && holds_json(d->path))) return nb_text_stream_open(&d->text_stream, d->path, err);
    NB_TRY(refuse_kind(d->path, bytes, n, err));
    return nb_json_stream_open(&d->json, d->path, err);
}

/* Read the description that belongs to the file: the one given, or the one beside it when it lists the file and the form is
 * not one that LLaMA-Factory does not have. */
static nb_status read_map(nb_dataset *d, const char *given, nb_error *err)
{
    if (d->bytes) return NB_OK;
    bool         found = false, own = d->asked == NB_DATA_AUTO || d->asked == NB_DATA_SHAREGPT || d->asked == NB_DATA_ALPACA;
    nb_data_form form = NB_DATA_AUTO;
    if (given) {
        NB_TRY(nb_row_map_read(&d->map, &found, &form, given, d->path, err));
        if (!found) return nb_fail(err, NB_ERR_INPUT, "%s: no entry has '%s' as its file_name", given, d->path);
    } else if (own) {
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
    if (!d->text_stream && !d->table) return NB_OK;
    nb_row_map_free(&d->map); /* paragraphs have no columns, and those of a table have their own names */
    d->form = d->text_stream ? NB_DATA_TEXT : NB_DATA_TSV;
    return NB_OK;
}

/* ---- rows ------------------------------------------------------------------------------------------------------------------ */

/* A paragraph as {"text": ...}. */
static nb_status read_paragraph(nb_dataset *d, row_ahead *r, bool *end)
{
    const char *paragraph;
    NB_TRY(nb_text_stream_next(d->text_stream, &paragraph, &r->line, &r->err));
    *end = !paragraph;
    if (*end) return NB_OK;
    r->row.row = cJSON_CreateObject();
    if (r->row.row && cJSON_AddStringToObject(r->row.row, "text", paragraph)) return NB_OK;
    nb_row_free(&r->row);
    return nb_fail(&r->err, NB_ERR_MEMORY, "%s: out of memory", d->path);
}

static nb_status parse_text(const nb_dataset *d, row_ahead *r)
{
    return nb_json_parse_at(&r->row.row, d->text.data + r->span.begin, r->span.size, d->path, r->span.line, r->span.column,
                            &r->err);
}

/* The next row of the file: its text, or for what is not JSON the row itself. */
static nb_status read_row(nb_dataset *d, row_ahead *r, bool *end)
{
    if (d->table) {
        nb_status status = nb_table_stream_next(d->table, &r->row.row, &r->line, &r->err);
        *end = !status && !r->row.row;
        return status;
    }
    r->stream_failed = true; /* until it is known better */
    if (d->text_stream) NB_TRY(read_paragraph(d, r, end));
    if (d->json) {
        NB_TRY(nb_json_stream_take(d->json, &d->text, &r->span, end, &r->err));
        r->line = r->span.line;
        r->unparsed = !*end;
    }
    if (d->json && !*end && nb_json_stream_is_pretty(d->json)) { /* only a parser knows where the next one begins */
        r->unparsed = false;
        nb_status status = parse_text(d, r);
        if (status) nb_json_stream_refuse(d->json);
        NB_TRY(status);
    }
    r->stream_failed = false;
    return NB_OK;
}

/* The form of the first row that can be read is that of the file. */
static nb_data_form form_of_row(nb_dataset *d, const cJSON *row)
{
    if (d->table) return NB_DATA_OPENAI; /* its rows are made so */
    if (d->map.info || d->asked != NB_DATA_AUTO || d->text_stream) return d->form;
    nb_data_form own = nb_row_form(row);
    if (d->form == NB_DATA_AUTO) d->form = own; /* in a batch of one */
    return nb_row_forms_mix(own, d->form) ? own : d->form;
}

static void drop(row_ahead *r)
{
    nb_row_free(&r->row);
    nb_chat_free(&r->chat);
}

void nb_dataset_close(nb_dataset *d)
{
    if (!d) return;
    for (size_t i = 0; i < d->count; i++) drop(&d->ahead[i]);
    nb_json_stream_close(d->json);
    nb_text_stream_close(d->text_stream);
    nb_table_stream_close(d->table);
    nb_row_map_free(&d->map);
    nb_buf_free(&d->text);
    free(d->ahead);
    free(d->seen);
    free(d->path);
    free(d->root);
    free(d);
}

/* The tail of a long path is what tells files apart.  number: of the row in the file. */
static void name_row(const nb_dataset *d, row_ahead *r, size_t number)
{
    size_t      n = strlen(d->path);
    const char *path = n > 180 ? d->path + n - 180 : d->path;
    while (path > d->path && ((unsigned char)*path & 0xc0) == 0x80) path++; /* not inside a character */
    if (d->json && nb_json_stream_is_array(d->json))
        snprintf(r->where, sizeof r->where, "%s%s row %zu (line %zu)", path > d->path ? "..." : "", path, number, r->line);
    else
        snprintf(r->where, sizeof r->where, "%s%s line %zu", path > d->path ? "..." : "", path, r->line);
}

static nb_status check_answer(const nb_dataset *d, const nb_chat *chat, const char *where, nb_error *err)
{
    const char *last = chat->count ? chat->messages[chat->count - 1].role : "nobody";
    if (!d->need_answer || !strcmp(last, "assistant")) return NB_OK;
    return nb_fail(err, NB_ERR_INPUT, "%s: messages[%d]: the last message is by '%s', but an answer of the assistant is needed",
                   where, chat->count - 1, last);
}

/* What remains to be done for a row that was read, on any thread. */
static void make_row(void *context, size_t item, int thread)
{
    nb_dataset *d = context;
    row_ahead  *r = &d->ahead[item];
    (void)thread;
    if (r->unparsed) r->read = parse_text(d, r);
    if (r->read) return;
    name_row(d, r, d->rows + item + 1);
    r->form = form_of_row(d, r->row.row);
    r->blank = r->form == NB_DATA_TEXT && nb_row_is_blank(r->row.row, &d->map);
    if (r->blank || d->only_count) return;
    r->status = nb_row_messages(&r->row, &d->map, r->form, r->where, &r->err);
    if (!r->status) r->status = nb_chat_from_json(&r->chat, r->row.messages, r->row.tools, r->where, &r->err);
    if (!r->status) r->status = check_answer(d, &r->chat, r->where, &r->err);
    if (r->status)
        nb_chat_free(&r->chat);
    else if (d->look)
        d->look(d->look_context, &r->chat, d->seen + item * d->look_size);
    if (d->drop_rows) nb_row_free(&r->row);
}

/* The next batch of at most `most` rows; none at the end.  A failure of the file ends a batch, since what follows depends on
 * whether the caller goes on. */
static void fill(nb_dataset *d, size_t most)
{
    bool end = false;
    for (size_t i = 0; i < d->count; i++) drop(&d->ahead[i]);
    nb_buf_clear(&d->text);
    d->count = d->at = 0;
    while (d->count < most && d->text.size < AHEAD_BYTES) {
        row_ahead *r = &d->ahead[d->count];
        memset(r, 0, offsetof(row_ahead, where));
        r->where[0] = r->err.text[0] = 0;
        r->read = read_row(d, r, &end);
        if (!r->read && end) break;
        d->count++;
        if (r->read) break;
    }
    if (d->seen) memset(d->seen, 0, d->count * d->look_size);
    if (d->count > 1)
        nb_parallel(d->pool, d->count, make_row, d);
    else if (d->count)
        make_row(d, 0, 0);
}

static nb_status open_parts(nb_dataset *d, const nb_dataset_options *options, nb_error *err)
{
    d->root = options->image_root ? nb_strdup(options->image_root) : nb_path_folder(d->path);
    if (!d->root) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", d->path);
    NB_TRY(open_stream(d, err));
    NB_TRY(read_map(d, options->dataset_info, err));
    d->batch = d->pool && d->json ? AHEAD_ROWS : 1; /* paragraphs and tables are read faster than they are used */
    NB_TRY(nb_alloc(&d->ahead, d->batch, sizeof *d->ahead, "rows", err));
    if (d->look) NB_TRY(nb_alloc(&d->seen, d->batch, d->look_size, "rows", err));
    fill(d, 1);
    if (!d->count) return nb_fail(err, NB_ERR_INPUT, "%s: holds no rows", d->path);
    const row_ahead *first = &d->ahead[0];
    if (!first->read || first->read == NB_ERR_INPUT) return NB_OK; /* nb_dataset_next says it, and rows may follow that are good */
    return nb_fail(err, first->read, "%s", first->err.text);
}

nb_status nb_dataset_open_source(nb_dataset **out, const nb_data_source *source, const nb_dataset_options *options, nb_error *err)
{
    *out = NULL;
    nb_dataset *d;
    NB_TRY(nb_alloc(&d, 1, sizeof *d, "a data set", err));
    d->asked = source->bytes ? NB_DATA_AUTO : options->form;
    d->need_answer = options->need_answer;
    d->bytes = source->bytes;
    d->size = source->size;
    d->pool = options->pool;
    d->drop_rows = options->drop_rows;
    d->look = options->look;
    d->look_context = options->look_context;
    d->look_size = options->look_size;
    d->path = nb_strdup(source->path);
    nb_status status = d->path ? open_parts(d, options, err) : nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", source->path);
    if (status) {
        nb_dataset_close(d);
        return status;
    }
    *out = d;
    return NB_OK;
}

nb_status nb_dataset_open(nb_dataset **out, const char *path, const nb_dataset_options *options, nb_error *err)
{
    return nb_dataset_open_source(out, &(nb_data_source){.path = path}, options, err);
}

/* The next row that is not blank; *out NULL at the end. */
static void take_row(nb_dataset *d, row_ahead **out)
{
    *out = NULL;
    for (;;) {
        if (d->at == d->count) fill(d, d->form == NB_DATA_AUTO ? 1 : d->batch);
        if (!d->count) return;
        if (d->at) drop(&d->ahead[d->at - 1]);
        row_ahead *r = &d->ahead[d->at++];
        d->rows++;
        d->stream_failed = r->stream_failed;
        if (r->read || !r->blank) {
            *out = r;
            return;
        }
        d->skipped++;
    }
}

nb_status nb_dataset_next(nb_dataset *d, nb_chat *out, char where[256], bool *end, nb_error *err)
{
    row_ahead *r;
    memset(out, 0, sizeof *out);
    where[0] = 0;
    take_row(d, &r);
    *end = !r;
    if (!r) return NB_OK;
    memcpy(where, r->where, sizeof r->where);
    if (r->read || r->status) return nb_fail(err, r->read ? r->read : r->status, "%s", r->err.text);
    *out = r->chat;
    memset(&r->chat, 0, sizeof r->chat);
    return NB_OK;
}

static const nb_reader *reader_of(const nb_dataset *d)
{
    return d->table ? NULL : d->json ? nb_json_stream_reader(d->json) : nb_text_stream_reader(d->text_stream);
}

bool nb_dataset_resume(nb_dataset *d)
{
    if (!d->stream_failed) return true;
    return !nb_reader_broken(reader_of(d)) && (!d->json || nb_json_stream_resume(d->json));
}

/* ---- questions ------------------------------------------------------------------------------------------------------------- */

nb_status nb_dataset_count_source(size_t *rows, const nb_data_source *source, const nb_dataset_options *options, nb_error *err)
{
    nb_dataset *d;
    *rows = 0;
    NB_TRY(nb_dataset_open_source(&d, source, options, err));
    nb_status  status = NB_OK;
    row_ahead *r;
    d->only_count = true;
    for (take_row(d, &r); r && !status; take_row(d, &r)) {
        status = r->read ? nb_fail(err, r->read, "%s", r->err.text) : NB_OK;
        ++*rows;
    }
    nb_dataset_close(d);
    return status;
}

nb_status nb_dataset_count(size_t *rows, const char *path, const nb_dataset_options *options, nb_error *err)
{
    return nb_dataset_count_source(rows, &(nb_data_source){.path = path}, options, err);
}

nb_data_form nb_dataset_form(const nb_dataset *d)
{
    return d->form;
}

const char *nb_dataset_root(const nb_dataset *d)
{
    return d->root;
}

/* The one that was given out last. */
static const row_ahead *last_row(const nb_dataset *d)
{
    return &d->ahead[d->at ? d->at - 1 : 0];
}

const cJSON *nb_dataset_messages(const nb_dataset *d)
{
    return last_row(d)->row.messages;
}

const cJSON *nb_dataset_tools(const nb_dataset *d)
{
    return last_row(d)->row.tools;
}

const void *nb_dataset_seen(const nb_dataset *d)
{
    return d->seen ? d->seen + (size_t)(last_row(d) - d->ahead) * d->look_size : NULL;
}

size_t nb_dataset_rows(const nb_dataset *d)
{
    return d->rows;
}

size_t nb_dataset_line(const nb_dataset *d)
{
    return d->rows ? last_row(d)->line : 0;
}

size_t nb_dataset_skipped(const nb_dataset *d)
{
    return d->skipped;
}

uint64_t nb_dataset_offset(const nb_dataset *d)
{
    return d->table ? nb_table_stream_offset(d->table) : nb_reader_offset(reader_of(d));
}

uint64_t nb_dataset_size(const nb_dataset *d)
{
    return d->table ? nb_table_stream_size(d->table) : nb_reader_size(reader_of(d));
}

const char *nb_dataset_packing(const nb_dataset *d)
{
    return d->table ? NULL : nb_reader_packing(reader_of(d));
}
