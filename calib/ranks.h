/* ranks.h - several processes that share one calibration: each runs its part of the samples, and what they found is added up.
 *
 * mpirun starts them; a build without MPI, and a process that was started alone, is the only rank.  Sums of statistics are exact, so
 * any number of ranks gives the same bytes.  All ranks must make the same calls in the same order, from the main thread.  A rank that
 * fails does not return to the others: it says why and ends them all (nb_ranks_abort). */
#ifndef NB_RANKS_H
#define NB_RANKS_H

#include "calib/stats.h"

/* Once, early; NB_ERR_UNSUPPORTED when mpirun started this process and it was built without MPI. */
nb_status nb_ranks_start(nb_error *err);
void      nb_ranks_stop(void);          /* after everything went well */
void      nb_ranks_abort(int exit_code); /* ends every rank where there are several; otherwise nothing */

int       nb_ranks_count(void); /* 1 or more */
int       nb_ranks_mine(void);  /* 0 is the one that solves and writes */

/* words[n] of rank 0 becomes the sum over all ranks (modulo 2^64); what others have there is spoilt. */
nb_status nb_ranks_sum(uint64_t *words, size_t n, nb_error *err);
/* The same, and every rank gets it. */
nb_status nb_ranks_sum_for_all(uint64_t *words, size_t n, nb_error *err);
/* Everyone gets what rank 0 has. */
nb_status nb_ranks_share(void *data, size_t bytes, nb_error *err);
/* The statistics of rank 0 become those of all. */
nb_status nb_ranks_merge(nb_stats *s, nb_pool *pool, nb_error *err);

#endif
