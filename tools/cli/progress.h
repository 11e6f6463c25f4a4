/* progress.h - how far a long command is, on stderr: a bar on a terminal, seldom lines elsewhere, JSON objects on request. */
#ifndef NB_PROGRESS_H
#define NB_PROGRESS_H

#include "kernels/base.h"

/* In the order of --progress auto|bar|plain|json|none.  AUTO: a bar on a terminal, plain lines otherwise; -q: none. */
typedef enum { NB_PROGRESS_AUTO, NB_PROGRESS_BAR, NB_PROGRESS_PLAIN, NB_PROGRESS_JSON, NB_PROGRESS_NONE } nb_progress_mode;

void nb_progress_setup(nb_progress_mode mode, bool quiet); /* by nb_output_setup */

typedef struct {
    char   task[32];
    double start, last; /* seconds of the monotonic clock: the beginning, and when something was last drawn */
    size_t done, total;
    bool   finished;    /* the last step was drawn */
} nb_meter;

void nb_meter_start(nb_meter *m, const char *task); /* "quantize" */
/* Cheap: draws at most ten times a second (bar, json) or every 10 s and at the end (plain).  total 0: unknown.
 * what: what is being done now, or NULL. */
void nb_meter_update(nb_meter *m, size_t done, size_t total, const char *what);
void nb_meter_finish(nb_meter *m); /* clears the bar, so that results do not run into it; harmless when nothing was drawn */
void nb_meter_clear(void);         /* the same for whoever is about to print; the next update draws again */

/* One line of the meter, for tests: what PLAIN or JSON would print. */
void nb_meter_line(const nb_meter *m, nb_progress_mode mode, double now, const char *what, char *out, size_t n);

#endif
