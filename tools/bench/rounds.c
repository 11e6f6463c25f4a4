/* rounds.c - see rounds.h. */
#include "tools/bench/rounds.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double clock_seconds(clockid_t clock)
{
    struct timespec t;
    return clock_gettime(clock, &t) == 0 ? (double)t.tv_sec + 1e-9 * (double)t.tv_nsec : 0;
}

/* Second number of /proc/self/task/ID/schedstat, summed: nanoseconds in a queue.  0 where the system does not say. */
static double waited_seconds(void)
{
    double         sum = 0;
    struct dirent *e;
    DIR           *d = opendir("/proc/self/task");
    while (d && (e = readdir(d)) != NULL) {
        char               path[300];
        unsigned long long ran, waited;
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/proc/self/task/%s/schedstat", e->d_name);
        FILE *f = fopen(path, "re");
        if (f && fscanf(f, "%llu %llu", &ran, &waited) == 2) sum += (double)waited * 1e-9;
        if (f) fclose(f);
    }
    if (d) closedir(d);
    return sum;
}

/* Eighth number of the first line of /proc/stat, in ticks of all CPUs. */
static double stolen_seconds(void)
{
    unsigned long long stolen = 0;
    long               ticks = sysconf(_SC_CLK_TCK);
    FILE              *f = fopen("/proc/stat", "re");
    if (f && fscanf(f, "cpu %*u %*u %*u %*u %*u %*u %*u %llu", &stolen) != 1) stolen = 0;
    if (f) fclose(f);
    return ticks > 0 ? (double)stolen / (double)ticks : 0;
}

nb_clocks nb_clocks_now(void)
{
    nb_clocks m = { .waited = waited_seconds(), .stolen = stolen_seconds() };
    m.process = clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
    m.caller = clock_seconds(CLOCK_THREAD_CPUTIME_ID);
    m.wall = nb_seconds();
    return m;
}

double nb_clocks_since(const nb_clocks *from, int busy, double *lost)
{
    double wall = nb_seconds() - from->wall;
    double caller = clock_seconds(CLOCK_THREAD_CPUTIME_ID) - from->caller;
    double process = clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - from->process;
    double shared = wall * (busy > 0 ? busy : 1);
    double missing[] = { 1 - caller / wall, busy > 0 ? 1 - process / shared : 0, (waited_seconds() - from->waited) / shared,
                         (stolen_seconds() - from->stolen) / shared };
    *lost = 0;
    for (size_t i = 0; i < NB_COUNT(missing); i++)
        if (missing[i] > *lost) *lost = missing[i] < 1 ? missing[i] : 1;
    return wall;
}

bool nb_rounds_add(nb_rounds *r, double value, double lost)
{
    bool disturbed = lost > NB_ROUND_LOST;
    if (disturbed && r->repeated < NB_ROUND_REPEATS) {
        r->repeated++;
        return false;
    }
    if (r->count == NB_ROUNDS) return true;
    r->value[r->count++] = value;
    r->disturbed += disturbed;
    return true;
}

static int ascending(const void *a, const void *b)
{
    double x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

double nb_rounds_at(const nb_rounds *r, double q)
{
    double sorted[NB_ROUNDS];
    if (!r->count) return NAN;
    memcpy(sorted, r->value, (size_t)r->count * sizeof *sorted);
    qsort(sorted, (size_t)r->count, sizeof *sorted, ascending);
    double place = q * (r->count - 1);
    int    low = (int)place, high = low + 1 < r->count ? low + 1 : low;
    return sorted[low] + (place - low) * (sorted[high] - sorted[low]);
}
