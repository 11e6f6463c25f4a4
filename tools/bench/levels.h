/* levels.h - --isa: which levels of the operation table a measurement goes through. */
#ifndef NB_BENCH_LEVELS_H
#define NB_BENCH_LEVELS_H

#include "kernels/ops.h"

typedef struct {
    bool has[NB_ISA_LEVELS + 1]; /* the last: instructions that no level uses */
} nb_levels;

/* text NULL: all that the machine has, up to NIBBLE_ISA.  Else names, comma separated: each must be known and there.
 * NB_ERR_ARGUMENT, NB_ERR_UNSUPPORTED. */
nb_status nb_levels_parse(nb_levels *out, const char *text, nb_error *err);

#endif
