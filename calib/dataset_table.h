/* dataset_table.h - inside calib: a benchmark table (VLMEvalKit's TSV) as chats, one row at a time.
 *
 *     index question hint? A? B? .. Z? image? image_path? answer?
 *
 * becomes a question with its pictures in front, and an answer of the assistant where the table has one:
 *
 *     Hint: HINT          (where there is one)
 *     Question: QUESTION
 *     Options:
 *     A. ...
 *     Please select the correct answer from the options above.
 *
 * A row without options is its question alone, under its hint.  An answer that is a list of accepted ones is the first of
 * them.  Which rules a benchmark scores by is the business of tools/eval; for statistics its prompts only have to be alike.
 */
#ifndef NB_DATASET_TABLE_H
#define NB_DATASET_TABLE_H

#include "runtime/io/json.h"
#include "runtime/io/tsv.h"

typedef struct nb_table_stream nb_table_stream;

/* Is this the beginning of such a table?  Its first line has tabs and names a question. */
bool      nb_table_stream_starts(const char *bytes, size_t n);
nb_status nb_table_stream_open(nb_table_stream **out, const char *path, nb_error *err);
/* {"messages": [...]} with pictures as data: URLs or paths; *row NULL at the end.  After a failure the next call goes on with
 * the next row. */
nb_status nb_table_stream_next(nb_table_stream *s, cJSON **row, size_t *line, nb_error *err);
void      nb_table_stream_close(nb_table_stream *s);
uint64_t  nb_table_stream_offset(const nb_table_stream *s); /* of the file, for progress */
uint64_t  nb_table_stream_size(const nb_table_stream *s);

#endif
