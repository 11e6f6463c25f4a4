/* dataset.h - rows of chat data as conversations, one at a time, in the form the user already has.
 *
 *     openai    {"messages": [{"role", "content"}], "tools"?, "images"?, "videos"?}, or the list of messages alone
 *     sharegpt  {"conversations": [{"from", "value"}], "system"?, "tools"?, "images"?, "videos"?}
 *     alpaca    {"instruction", "input"?, "output", "system"?, "history"?}
 *     swift     {"query", "response", "system"?, "history"?, "images"?} and the other spellings that ms-swift takes
 *     llava     {"image", "conversations"}: sharegpt with pictures
 *     text      {"text"}, or a plain text file: paragraphs between empty lines
 *     tsv       VLMEvalKit's benchmark tables: question, options, pictures in base64, answer (dataset_table.h)
 *
 * as JSON lines or one JSON array, plain, gzip or zstd, never held in memory whole.  LLaMA-Factory's dataset_info.json, beside
 * the file or given, renames every column and tag.  A document of the text form is one message of the assistant: text that the
 * model is to predict, so all of it counts as an answer.
 *
 * A row that cannot be used is an error that names file, line and JSON path; preference data (two answers, or a thumb) and
 * sound are refused as such.
 */
#ifndef NB_DATASET_H
#define NB_DATASET_H

#include "kernels/threads.h"
#include "runtime/io/json.h"
#include "runtime/text/chat.h"

typedef enum {
    NB_DATA_AUTO, NB_DATA_OPENAI, NB_DATA_SHAREGPT, NB_DATA_ALPACA, NB_DATA_SWIFT, NB_DATA_LLAVA, NB_DATA_TEXT,
    NB_DATA_TSV
} nb_data_form;
#define NB_DATA_FORMS "auto|openai|sharegpt|alpaca|swift|llava|text|tsv" /* in the order of nb_data_form: choices of a flag */
nb_status nb_data_form_parse(nb_data_form *out, const char *name, nb_error *err);
const char *nb_data_form_name(nb_data_form form);

/* Where rows come from: a file, or bytes in memory (the built-in set; JSON lines) that path only names. */
typedef struct {
    const char *path;
    double      weight;     /* above 0: its share in a mix (mix.h) */
    const void *bytes;      /* NULL: path is a file */
    size_t      size;
    size_t      hold;       /* so many rows at the end of a mix's order are left for a judge: it gives the others, or these alone */
    size_t      total;      /* rows, when somebody has counted them; 0: not yet */
} nb_data_source;

typedef struct {
    nb_data_form form;
    const char  *dataset_info; /* path or NULL: dataset_info.json beside the file is used when it lists the file */
    const char  *image_root;   /* NULL: the folder of the data file */
    bool         need_answer;  /* rows whose last message is not the assistant's are refused */
    bool         drop_rows;    /* nb_dataset_messages and _tools are not asked for */
    /* With a pool, rows of JSON are read ahead (256 of them or 2 MiB) and made into chats by all its threads; they come in their order all
     * the same, so nothing but the speed depends on it.  nb_dataset_next must then not be called from inside a loop of the pool. */
    nb_pool     *pool;
    /* What a caller wants to know of each chat, found out on those threads too: look fills look_size zeroed bytes, which
     * nb_dataset_seen gives with the row.  NULL: nothing.  It must not write anywhere else. */
    void       (*look)(const void *context, const nb_chat *chat, void *seen);
    const void  *look_context;
    size_t       look_size;
} nb_dataset_options;

typedef struct nb_dataset nb_dataset;
nb_status    nb_dataset_open(nb_dataset **out, const char *path, const nb_dataset_options *options, nb_error *err);
nb_status    nb_dataset_open_source(nb_dataset **out, const nb_data_source *source, const nb_dataset_options *options, nb_error *err);
void         nb_dataset_close(nb_dataset *d);
nb_data_form nb_dataset_form(const nb_dataset *d);   /* what was found; AUTO while no row could be read */
const char  *nb_dataset_root(const nb_dataset *d);   /* folder for relative media */
/* The next row; *end true after the last.  where: "FILE line N" (or "FILE row N" in a JSON array), for messages.  Documents of
 * nothing but white space are passed over. */
nb_status    nb_dataset_next(nb_dataset *d, nb_chat *out, char where[256], bool *end, nb_error *err);
/* After a failed nb_dataset_next: true when the next call goes on with the row behind the bad one, false when the rest of the
 * file cannot be read. */
bool         nb_dataset_resume(nb_dataset *d);

/* The row that nb_dataset_next gave last, as OpenAI-style messages and tools (NULL: none).  Valid until the next call. */
const cJSON *nb_dataset_messages(const nb_dataset *d);
const cJSON *nb_dataset_tools(const nb_dataset *d);
const void  *nb_dataset_seen(const nb_dataset *d);    /* what options.look found out about it */
size_t       nb_dataset_rows(const nb_dataset *d);    /* given so far, bad ones included */
size_t       nb_dataset_line(const nb_dataset *d);    /* of the last row; 0 when it could not be found */
size_t       nb_dataset_skipped(const nb_dataset *d); /* documents of white space */
uint64_t     nb_dataset_offset(const nb_dataset *d);  /* how far the file itself was read, and its size: for progress */
uint64_t     nb_dataset_size(const nb_dataset *d);
const char  *nb_dataset_packing(const nb_dataset *d); /* "gzip", "zstd", or NULL */

/* Rows of a file (documents of white space not among them), found without making conversations of them. */
nb_status    nb_dataset_count(size_t *rows, const char *path, const nb_dataset_options *options, nb_error *err);
nb_status    nb_dataset_count_source(size_t *rows, const nb_data_source *source, const nb_dataset_options *options, nb_error *err);

#endif
