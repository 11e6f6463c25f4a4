/* allocate.c - a greedy knapsack.  Steps are compared by score for a byte; of equal ones the first site wins, so that the result is the
 * same everywhere.  A step that does not fit is passed over for a smaller one. */
#include "quant/allocate.h"

uint64_t nb_allocated_bytes(const nb_site_cost *sites, size_t count)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++) bytes += sites[i].bytes[sites[i].level];
    return bytes;
}

double nb_allocated_score(const nb_site_cost *sites, size_t count)
{
    double score = 0;
    for (size_t i = 0; i < count; i++) score += sites[i].score[sites[i].level];
    return score;
}

/* The step with the best rate that adds at most `room` bytes. */
static bool best_step(const nb_site_cost *sites, size_t count, uint64_t room, size_t *site, int *level)
{
    double best = 0;
    bool   found = false;
    for (size_t i = 0; i < count; i++) {
        const nb_site_cost *s = &sites[i];
        for (int to = s->level + 1; to < NB_LEVELS && !s->fixed; to++) {
            double gain = s->score[s->level] - s->score[to];
            if (s->bytes[to] <= s->bytes[s->level] || !(gain > 0)) continue;
            uint64_t more = s->bytes[to] - s->bytes[s->level];
            double   rate = gain / (double)more;
            if (more > room || !(rate > best)) continue;
            best = rate;
            *site = i;
            *level = to;
            found = true;
        }
    }
    return found;
}

bool nb_allocate_bytes(nb_site_cost *sites, size_t count, uint64_t budget)
{
    uint64_t used = nb_allocated_bytes(sites, count);
    size_t   site;
    int      level;
    if (used > budget) return false;
    while (best_step(sites, count, budget - used, &site, &level)) {
        used += sites[site].bytes[level] - sites[site].bytes[sites[site].level];
        sites[site].level = level;
    }
    return true;
}

bool nb_allocate_score(nb_site_cost *sites, size_t count, double goal)
{
    size_t site;
    int    level;
    while (!(nb_allocated_score(sites, count) <= goal)) {
        if (!best_step(sites, count, UINT64_MAX, &site, &level)) return false;
        sites[site].level = level;
    }
    return true;
}
