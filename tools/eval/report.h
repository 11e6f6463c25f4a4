/* report.h - the results of an evaluation: one row a model, as a table for people and with everything for machines. */
#ifndef NB_EVAL_REPORT_H
#define NB_EVAL_REPORT_H

#include "tools/cli/output.h"
#include "tools/cli/table.h"
#include "tools/eval/divergence.h"
#include "tools/eval/paired.h"
#include "tools/eval/task.h"

typedef struct {
    char            name[64];
    nb_task_summary summary;
    nb_paired       paired; /* with the baseline; no items: none */
} nb_eval_task;

typedef struct {
    const char   *model;
    char          form[32];       /* "bf16", "awq int4 g128" */
    uint64_t      tensor_bytes;   /* of the checkpoint */
    bool          has_reference;
    nb_divergence chats, text;
    nb_eval_task *tasks;
    size_t        task_count, task_capacity;
} nb_eval_row;

nb_status nb_eval_row_open(nb_eval_row *row, const char *name, const nb_model *model, nb_error *err);
nb_status nb_eval_row_add_task(nb_eval_row *row, nb_task *task, nb_error *err);
/* Fill `paired` of the tasks that both have with the same questions. */
nb_status nb_eval_row_compare(nb_eval_row *row, const nb_eval_row *baseline, nb_error *err);
void      nb_eval_row_free(nb_eval_row *row);

typedef struct {
    const char *pixels, *rules, *ref, *data, *text, *baseline /* NULL: none */;
} nb_eval_settings;

/* json: the full report as one object; otherwise the tables in `format`. */
nb_status nb_eval_report(nb_buf *out, const nb_eval_row *rows, size_t count, const nb_eval_settings *settings, nb_table_format format,
                         bool json, nb_error *err);

/* An object of every part ("all", "all_text", ..., "answer_visual") under key. */
nb_status nb_emit_divergence(nb_emit *e, const char *key, const nb_divergence *d, bool has_reference, nb_error *err);

/* "bf16", "f16", "awq int4 g128 asym", ...: what a model's decoder is made of. */
void nb_model_form(char out[32], const nb_config *config);

#endif
