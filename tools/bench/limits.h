/* limits.h - the probes of kernels/probe.h, timed: the limits of this machine, now, for one number of threads.
 *
 * Rounds of all probes take turns, so that a slow minute of the machine meets all of them.
 */
#ifndef NB_LIMITS_H
#define NB_LIMITS_H

#include "kernels/probe.h"
#include "tools/bench/rounds.h"
#include "tools/cli/progress.h"

typedef struct {
    const nb_probe *probe;
    nb_pool        *pool;  /* borrowed */
    size_t          items; /* of a round; 0: not found out yet */
    nb_rounds       rate;  /* bytes or operations a second */
} nb_limit;

typedef struct {
    nb_limit *items;
    size_t    count, capacity;
    size_t    memory, huge; /* bytes that were read, and how many of them lay in pages of 2 MB; 0: no round yet */
} nb_limits;

nb_status nb_limits_add(nb_limits *l, const nb_probe *probe, nb_pool *pool, nb_error *err); /* the machine must have it */
/* What shares are counted against: reading, by the best level of the machine, and the arithmetic of `isa`. */
nb_status nb_limits_add_level(nb_limits *l, nb_isa isa, nb_pool *pool, nb_error *err);
/* `rounds` more of each.  memory: bytes to be read (0: nb_limits_memory()).  meter may be NULL.  NB_ERR_STOPPED, NB_ERR_MEMORY,
 * NB_ERR_BUDGET when `memory` is more than half of what is available. */
nb_status nb_limits_measure(nb_limits *l, size_t memory, int rounds, nb_meter *meter, nb_error *err);
void      nb_limits_free(nb_limits *l);

/* Median rate of reading, or of the best probe of a kind that `isa` may use; NaN when none was measured. */
double nb_limits_rate(const nb_limits *l, nb_probe_kind kind, nb_isa isa);

/* 1 GiB or four times the largest cache, whatever is more, but a quarter of the available memory at most. */
size_t   nb_limits_memory(void);
uint64_t nb_available_memory(void); /* bytes; 0 where the system does not say */

#endif
