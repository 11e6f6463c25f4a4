/* paired.h - two checkpoints on the same questions: is the difference more than chance?
 *
 * Both answer every question, so what both get right or wrong says nothing: the questions on which they differ do.  McNemar's exact
 * test asks how often a fair coin would split them this unevenly; the interval is a percentile bootstrap over questions.
 */
#ifndef NB_PAIRED_H
#define NB_PAIRED_H

#include "kernels/base.h"

typedef struct {
    size_t items;           /* questions */
    size_t lost, gained;    /* scored lower, and higher, than the baseline did; ANLS counts any difference */
    double p;               /* two-sided, of a split of lost + gained at least this uneven; 1 when they never differ */
    double difference;      /* of the mean scores, in percentage points: below 0 is worse than the baseline */
    double low, high;       /* 95 % of it */
} nb_paired;

/* baseline, other [n]: scores 0 .. 1 of the same questions in the same order.  The same input gives the same interval. */
nb_status nb_paired_compare(nb_paired *out, const double *baseline, const double *other, size_t n, nb_error *err);

#endif
