/* tsv.h - benchmark tables as VLMEvalKit stores them: tab-separated, fields quoted with '"' where needed (then they may hold
 * tabs and line breaks), a header row, fields of tens of megabytes.
 *
 * Opening scans the file once and remembers where each row starts; a row is read when asked for, so memory holds one row.
 */
#ifndef NB_TSV_H
#define NB_TSV_H

#include "runtime/io/buf.h"

typedef struct nb_tsv nb_tsv;

/* missing_as_pandas: the unquoted texts that pandas reads as missing (NA, NaN, null, ...) count as empty. */
nb_status nb_tsv_open(nb_tsv **out, const char *path, bool missing_as_pandas, nb_error *err);
void      nb_tsv_close(nb_tsv *t);
size_t    nb_tsv_rows(const nb_tsv *t);
int       nb_tsv_column(const nb_tsv *t, const char *name); /* -1: there is none */

/* Make row i current; its fields stay until the next call. */
nb_status   nb_tsv_row(nb_tsv *t, size_t i, nb_error *err);
/* A field of the current row; "" when empty, NULL when the table has no such column. */
const char *nb_tsv_get(const nb_tsv *t, const char *name);
size_t      nb_tsv_line(const nb_tsv *t, size_t i); /* 1-based line on which row i starts */
const char *nb_tsv_index(const nb_tsv *t, size_t i); /* its `index` field */
/* Where row i begins in the file; i may be the number of rows: where the last one ends. */
uint64_t    nb_tsv_offset(const nb_tsv *t, size_t i);
/* Row whose `index` field is this text; SIZE_MAX when there is none. */
size_t      nb_tsv_find(const nb_tsv *t, const char *index);

#endif
