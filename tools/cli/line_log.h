/* line_log.h - a file of results that grows line by line, so that a run that was cut short can go on from it. */
#ifndef NB_LINE_LOG_H
#define NB_LINE_LOG_H

#include <stdio.h>

#include "runtime/io/buf.h"

/* resume: go on with a file that is there (a last line without an end is cut off); otherwise there must be none: nothing is
 * overwritten. */
nb_status nb_line_log_open(FILE **out, const char *path, bool resume, nb_error *err);
/* The line, which ends with '\n', is with the system when this returns. */
nb_status nb_line_log_add(FILE *f, const char *path, const nb_buf *line, nb_error *err);

#endif
