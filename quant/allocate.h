/* allocate.h - spending bytes where they help most.  Sees only numbers: for each site a score (the error that its bits cause) and a size
 * at three levels. */
#ifndef NB_ALLOCATE_H
#define NB_ALLOCATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NB_LEVEL_MAIN, NB_LEVEL_INT8, NB_LEVEL_FLOAT, NB_LEVELS };

typedef struct {
    double   score[NB_LEVELS]; /* falls with the level */
    uint64_t bytes[NB_LEVELS]; /* rises */
    bool     fixed;            /* stays where it is */
    int      level;            /* in: where it starts; out */
} nb_site_cost;

/* Raise levels, each time where the score falls most for a byte, as long as the sum of bytes stays within budget.  false: it is more
 * to begin with. */
bool     nb_allocate_bytes(nb_site_cost *sites, size_t count, uint64_t budget);
/* The same until the sum of scores is at most goal; false: it never is. */
bool     nb_allocate_score(nb_site_cost *sites, size_t count, double goal);
uint64_t nb_allocated_bytes(const nb_site_cost *sites, size_t count);
double   nb_allocated_score(const nb_site_cost *sites, size_t count);

#endif
