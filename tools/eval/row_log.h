/* row_log.h - the log of a benchmark: one JSON line a row (model, checkpoint, settings, task, index, prediction, answer, hit,
 * undecided), written as soon as the row is answered.
 *
 * So a run that was cut short goes on from it, and a later run is compared with it question by question.
 */
#ifndef NB_ROW_LOG_H
#define NB_ROW_LOG_H

#include "tools/eval/task.h"

/* What makes two answers to a row the same work. */
typedef struct {
    const char *model;
    char        checkpoint[20]; /* stands for the files' names, sizes and times */
    const char *settings;       /* "pixels=checkpoint predict=2048 ..." */
} nb_row_log_of;

/* Fill `checkpoint` from a checkpoint's folder. */
nb_status nb_row_log_identify(nb_row_log_of *of, const char *folder, nb_error *err);

typedef struct nb_row_log nb_row_log;

/* resume: go on with a file that is there (a last line without an end is cut off); otherwise there must be none. */
nb_status nb_row_log_open(nb_row_log **out, const char *path, bool resume, nb_error *err);
/* A file without a row is removed.  NULL is fine. */
nb_status nb_row_log_close(nb_row_log *s, nb_error *err);
/* Give the task what the file already answers; answered [t->rows].  Lines of this model and task that were made with other settings
 * or another checkpoint are an error that names the line. */
nb_status nb_row_log_recall(nb_row_log *s, const nb_row_log_of *of, nb_task *t, bool *answered, nb_error *err);
/* Append row i, which is scored. */
nb_status nb_row_log_add(nb_row_log *s, const nb_row_log_of *of, nb_task *t, size_t i, nb_error *err);

/* The task as another run's log answers it, whatever its settings; every row must be there.  When the log is of several models, of
 * the first that it names. */
nb_status nb_row_log_load(const char *path, nb_task *t, nb_error *err);

#endif
