/* kernels.h - `bench --kernels`: every operation of the table by itself, beside the limits that were probed in the same run. */
#ifndef NB_KERNELS_H
#define NB_KERNELS_H

#include "tools/bench/kernel_cases.h"
#include "tools/bench/levels.h"
#include "tools/bench/limits.h"
#include "tools/cli/table.h"

typedef struct {
    nb_levels   levels;
    int         threads, rounds; /* threads 0: one per CPU; rounds: of a case, at most */
    size_t      memory;          /* of the reading probe, 0: nb_limits_memory(); a quarter of it is what calls take turns over */
    double      seconds;         /* for all cases, beside the probes; what is not reached by then is left out and says so */
    const char *shapes, *filter; /* filter: POSIX extended expression, found anywhere in the label of a case; NULL: all */
    bool        sites;           /* a row for each matrix too */
} nb_kernels_options;

/* The caller frees *out also after a failure. */
nb_status nb_kernels(nb_table **out, const nb_kernels_options *o, nb_meter *meter, nb_error *err);

#endif
