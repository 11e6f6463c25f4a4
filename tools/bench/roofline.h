/* roofline.h - `bench --roofline`: every probe that this machine has, on one thread and on all. */
#ifndef NB_ROOFLINE_H
#define NB_ROOFLINE_H

#include "tools/bench/levels.h"
#include "tools/bench/limits.h"
#include "tools/cli/table.h"

typedef struct {
    nb_levels levels;
    int       threads, rounds; /* threads 0: one per CPU */
    size_t    memory;          /* 0: nb_limits_memory() */
} nb_roofline_options;

/* A row for each probe and number of threads; probes that the machine lacks say so.  The caller frees *out also after a failure. */
nb_status nb_roofline(nb_table **out, const nb_roofline_options *o, nb_meter *meter, nb_error *err);

/* "80.6 GB/s", "1.01 Top/s" */
void nb_human_rate(char out[32], double rate, bool bytes);

#endif
