/* bench.h - how fast a model runs: prompt processing and generation, as llama-bench counts them.
 *
 *   ppN        N prompt tokens from an empty context
 *   tgN        N tokens generated one by one
 *   ppN+tgM    both after one another, (N + M) / time
 *   ... @ dD   the same after a context of D tokens
 *
 * Token ids are made up (seeded), no sampling is done, the logits of every generated token are computed.  One untimed run
 * warms up; then each repetition is timed on its own.
 */
#ifndef NB_BENCH_H
#define NB_BENCH_H

#include "runtime/engine/engine.h"

typedef struct {
    size_t prompt, generate, depth;
} nb_bench_test;

typedef struct {
    nb_bench_test test;
    char          name[96];
    int           repetitions;
    double       *seconds;          /* [repetitions] */
    double        avg_ts, stddev_ts; /* tokens a second */
    double        avg_s, stddev_s;
    char          when[32];         /* UTC, ISO 8601 */
} nb_bench_result;
void nb_bench_result_free(nb_bench_result *r);

/* stop: polled between steps; true ends with NB_ERR_STOPPED. */
nb_status nb_bench_run(nb_bench_result *out, nb_engine *e, const nb_bench_test *test, int repetitions, bool warm_up, uint64_t seed,
                       bool (*stop)(void), nb_error *err);
void      nb_bench_name(char out[96], const nb_bench_test *test);

/* Largest resident size of this process since its start or the last reset, bytes (VmHWM); 0 where the system does not say.
 * A reset gives freed memory back to the system first; it does nothing where /proc is not writable. */
uint64_t  nb_peak_memory(void);
void      nb_peak_memory_reset(void);

#endif
