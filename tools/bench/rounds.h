/* rounds.h - timing the same thing several times on a machine that others use too.
 *
 * A round is disturbed when a thread of this process wanted to run and did not for more than NB_ROUND_LOST of its time: then what was
 * timed was somebody else's work as well.  Such a round is made again, at most NB_ROUND_REPEATS times for one thing, and after that
 * kept and counted, so that whoever reads the figure knows.
 */
#ifndef NB_ROUNDS_H
#define NB_ROUNDS_H

#include "kernels/base.h"

enum { NB_ROUNDS = 64, NB_ROUND_REPEATS = 5 };
#define NB_ROUND_LOST 0.03

/* Clocks at the beginning of a round. */
typedef struct {
    double wall, process, caller; /* seconds; processor time of the process and of the calling thread */
    double waited, stolen;        /* seconds that threads of this process waited for a processor; that a hypervisor took from all */
} nb_clocks;

nb_clocks nb_clocks_now(void);
/* Seconds since then.  *lost: the largest share of them that is missing by one of the clocks, 0 .. 1.  busy: threads that had work all
 * the time, whose processor time must add up; 0: not known, only the caller's must. */
double    nb_clocks_since(const nb_clocks *from, int busy, double *lost);

typedef struct {
    double value[NB_ROUNDS]; /* of each round, in the order of time */
    int    count, disturbed, repeated; /* disturbed: kept all the same */
} nb_rounds;

/* Keep a round's value, or say false: it was disturbed and is to be made again.  Full ones keep no more. */
bool   nb_rounds_add(nb_rounds *r, double value, double lost);
/* q-th part of the sorted values, with interpolation: 0 the smallest, 0.5 the median, 1 the largest; NaN without values. */
double nb_rounds_at(const nb_rounds *r, double q);

#endif
