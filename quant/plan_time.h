/* plan_time.h - how long a quantization will take, from its shapes and a glance at the machine. */
#ifndef NB_PLAN_TIME_H
#define NB_PLAN_TIME_H

#include "quant/plan.h"

typedef struct {
    double f32, f64; /* FLOP/s of all threads together in products */
    double disk;     /* bytes/s written and brought to disk; 0: unknown */
} nb_machine;

/* Some hundredths of a second of products, and 8 MB written beside `path` and removed again. */
nb_status nb_machine_probe(nb_machine *out, nb_pool *pool, const char *path, nb_error *err);
/* Seconds by phase for so many tokens; an estimate, and within a factor of two on a machine with nothing else to do. */
nb_status nb_plan_time(double seconds[NB_PHASES], const nb_quantize_options *options, const nb_machine *m, uint64_t tokens, nb_error *err);

#endif
