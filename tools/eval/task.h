/* task.h - one benchmark: a table, the published prompt of each row, and the published scoring (task_rules.h). */
#ifndef NB_TASK_H
#define NB_TASK_H

#include "runtime/text/chat.h"
#include "runtime/io/tsv.h"
#include "tools/eval/task_rules.h"

/* Whose rules turn an answer into a score: the harness's of the published tables, its later ones (of options), or MMMU's and MathVista's own
 * (everything else as published). */
typedef enum { NB_RULES_PUBLISHED, NB_RULES_CURRENT, NB_RULES_OFFICIAL } nb_score_rules; /* choices "2024-09|current|official" */

/* What became of one row. */
typedef struct {
    char  *prediction; /* raw text */
    double score;      /* 0 or 1; ANLS is in between */
    bool   undecided;  /* the rules found no answer in the text: counted as wrong */
    bool   prefetch;   /* MathVista: decided without the rules that replace a judge */
} nb_row_score;

typedef struct {
    char                 name[64];
    const nb_task_rules *rules;
    nb_score_rules       scoring; /* NB_RULES_PUBLISHED after opening; may be changed before the first answer */
    nb_tsv              *table;
    nb_row_score        *scores; /* [rows] */
    size_t               rows;   /* looked at: all, or the limit */
} nb_task;

/* spec: NAME:FILE.tsv.  limit 0: all rows.  Columns that the benchmark needs must be there. */
nb_status nb_task_open(nb_task *out, const char *spec, bool missing_as_pandas, size_t limit, nb_error *err);
void      nb_task_close(nb_task *t);

/* The chat of row i: pictures first, then the text.  where: "FILE line N". */
nb_status nb_task_chat(nb_task *t, size_t i, nb_chat *out, char where[256], nb_error *err);
/* Score an answer to row i (copied). */
nb_status nb_task_answer(nb_task *t, size_t i, const char *prediction, nb_error *err);
/* The row's right answer as the table has it. */
nb_status nb_task_right(nb_task *t, size_t i, const char **out, nb_error *err);

typedef struct {
    char   label[96];
    double value; /* percent */
    size_t items;
} nb_task_part;
typedef struct {
    const char   *metric;      /* "circular accuracy", "ANLS", ... */
    double        value, error; /* percent (MME: points) and its standard error */
    size_t        items, undecided;
    double       *units;       /* [items] the scores that value is the mean of, in an order that the table alone decides */
    nb_task_part *parts;       /* vanilla scores, splits, categories */
    size_t        part_count, part_capacity;
} nb_task_summary;
nb_status nb_task_summarize(nb_task_summary *out, nb_task *t, nb_error *err);
void      nb_task_summary_free(nb_task_summary *s);

#endif
