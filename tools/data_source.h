/* data_source.h - what --data FILE[:weight] means, for `quantize` and `data` alike. */
#ifndef NB_DATA_SOURCE_H
#define NB_DATA_SOURCE_H

#include "calib/dataset.h"
#include "tools/cli/args.h"

typedef struct {
    nb_data_source *items; /* [count] */
    size_t          count;
    bool            weighted; /* a weight was written */
} nb_data_sources;

/* Append the sources that these words name.  "FILE:2" has weight 2 and "FILE" weight 1; a file whose name really ends in ":2"
 * is that file.  flag: for messages. */
nb_status nb_data_sources_add(nb_data_sources *out, const nb_strings *words, const char *flag, nb_error *err);
/* ... and the chats inside the program (builtin/builtin.h), with weight 1. */
nb_status nb_data_sources_add_builtin(nb_data_sources *out, nb_error *err);
void      nb_data_sources_free(nb_data_sources *s); /* zeroes it */
/* Weights share out a number of rows, so there must be one. */
nb_status nb_data_sources_check(const nb_data_sources *s, int64_t samples, nb_error *err);

#endif
