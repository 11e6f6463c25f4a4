/* table.h - one table, four ways to print it: aligned Markdown, CSV with every field quoted, JSON, JSON lines.
 *
 * Columns are declared once, with a key for machines and a title for people; cells know their type, so that JSON gets
 * numbers and Markdown gets aligned ones.
 *
 *     nb_table *t;
 *     nb_table_new(&t, columns, NB_COUNT(columns), err);
 *     nb_table_text(t, "awq"); nb_table_int(t, 4); nb_table_number(t, 0.0123);     // fills rows cell by cell
 *     nb_table_print(t, NB_TABLE_MD, &buf);
 */
#ifndef NB_TABLE_H
#define NB_TABLE_H

#include "runtime/io/buf.h"

typedef enum { NB_TABLE_MD, NB_TABLE_CSV, NB_TABLE_JSON, NB_TABLE_JSONL } nb_table_format; /* choices "md|csv|json|jsonl" */
#define NB_TABLE_FORMATS "md|csv|json|jsonl"

typedef struct {
    const char *key;     /* "n_prompt"; NULL: people only (not in CSV and JSON) */
    const char *title;   /* "prompt"; NULL: machines only (not in Markdown) */
    int         digits;  /* decimals of numbers in Markdown; CSV and JSON always get all of them */
    bool        right;   /* alignment of text; numbers are always right-aligned */
} nb_column;

typedef struct nb_table nb_table;

nb_status nb_table_new(nb_table **out, const nb_column *columns, size_t count, nb_error *err); /* columns are borrowed */
void      nb_table_free(nb_table *t);
/* The next cell, left to right, row by row.  A failed allocation is remembered and reported by nb_table_print. */
void      nb_table_text(nb_table *t, const char *text); /* NULL: an empty cell, null in JSON */
void      nb_table_int(nb_table *t, int64_t value);
void      nb_table_number(nb_table *t, double value);   /* not finite: empty, null in JSON */
void      nb_table_bool(nb_table *t, bool value);
/* A value that people and machines read differently: "12.3 ± 0.4" and 12.3. */
void      nb_table_pair(nb_table *t, const char *text, double value);
/* JSON text (a list, an object): as it is in JSON, as text elsewhere. */
void      nb_table_json(nb_table *t, const char *json);
size_t    nb_table_rows(const nb_table *t);
/* Append to out.  JSON is one indented array, JSONL one object a line.  Control characters never reach Markdown. */
void      nb_table_print(const nb_table *t, nb_table_format format, nb_buf *out);

/* Columns a terminal needs for UTF-8 text (wide East Asian characters take two). */
int nb_text_width(const char *s);

#endif
