/* limits.c - see limits.h. */
#include "tools/bench/limits.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/cli/stop.h"

#define ROUND_SECONDS 0.03 /* of a compute probe: far longer than waking a thread, far shorter than a change of the weather */
enum { FIRST_ITEMS = 16 /* a thread; the round that finds out how many fill ROUND_SECONDS */ };

nb_status nb_limits_add(nb_limits *l, const nb_probe *probe, nb_pool *pool, nb_error *err)
{
    for (size_t i = 0; i < l->count; i++)
        if (l->items[i].probe == probe && l->items[i].pool == pool) return NB_OK;
    NB_TRY(nb_grow(&l->items, &l->capacity, l->count + 1, sizeof *l->items, "probes", err));
    l->items[l->count++] = (nb_limit){ .probe = probe, .pool = pool };
    return NB_OK;
}

static nb_isa level_of(nb_probe_kind kind, nb_isa isa)
{
    return kind == NB_PROBE_READ ? nb_isa_detect(NB_ISA_LEVELS - 1) : isa; /* memory does not know who asks */
}

nb_status nb_limits_add_level(nb_limits *l, nb_isa isa, nb_pool *pool, nb_error *err)
{
    static const nb_probe_kind kinds[] = { NB_PROBE_READ, NB_PROBE_F32, NB_PROBE_F64, NB_PROBE_DOT16 };
    for (size_t i = 0; i < NB_COUNT(kinds); i++) {
        const nb_probe *p = nb_probe_of(kinds[i], level_of(kinds[i], isa));
        if (p) NB_TRY(nb_limits_add(l, p, pool, err));
    }
    return NB_OK;
}

void nb_limits_free(nb_limits *l)
{
    free(l->items);
    memset(l, 0, sizeof *l);
}

double nb_limits_rate(const nb_limits *l, nb_probe_kind kind, nb_isa isa)
{
    const nb_probe *p = nb_probe_of(kind, level_of(kind, isa));
    for (size_t i = 0; p && i < l->count; i++)
        if (l->items[i].probe == p) return nb_rounds_at(&l->items[i].rate, 0.5);
    return NAN;
}

/* ---- memory ------------------------------------------------------------------------------------------------------------ */

/* "KEY:   N kB" of a file of /proc, in bytes. */
static uint64_t proc_bytes(const char *path, const char *key)
{
    char               line[256];
    unsigned long long kib = 0;
    size_t             n = strlen(key);
    FILE              *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, key, n) && sscanf(line + n, ": %llu kB", &kib) == 1) break;
    if (f) fclose(f);
    return (uint64_t)kib * 1024;
}

/* The one number of a file; 0 for none ("max"). */
static uint64_t file_number(const char *path)
{
    unsigned long long value = 0;
    FILE              *f = fopen(path, "re");
    if (f && fscanf(f, "%llu", &value) != 1) value = 0;
    if (f) fclose(f);
    return value;
}

uint64_t nb_available_memory(void)
{
    uint64_t available = proc_bytes("/proc/meminfo", "MemAvailable");
    uint64_t limit = file_number("/sys/fs/cgroup/memory.max"), used = file_number("/sys/fs/cgroup/memory.current"); /* of a container */
    uint64_t left = limit > used ? limit - used : 1;
    return limit && (!available || left < available) ? left : available;
}

size_t nb_limits_memory(void)
{
    long     cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    uint64_t want = 1ull << 30, available = nb_available_memory();
    if (cache > 0 && 4 * (uint64_t)cache > want) want = 4 * (uint64_t)cache;
    if (available && want > available / 4) want = available / 4;
    if (want < 16u << 20) want = 16u << 20;
    return (size_t)want;
}

/* ---- rounds ------------------------------------------------------------------------------------------------------------ */

static void find_items(nb_limit *t, const nb_probe_memory *m)
{
    int threads = nb_pool_threads(t->pool);
    if (t->probe->read) {
        t->items = (size_t)((double)m->size / t->probe->work);
        return;
    }
    size_t few = (size_t)FIRST_ITEMS * (size_t)threads;
    nb_probe_run(t->probe, t->pool, m, few); /* wakes threads, and the unit where it sleeps */
    double from = nb_seconds();
    nb_probe_run(t->probe, t->pool, m, few);
    double took = nb_seconds() - from;
    t->items = took > 0 ? (size_t)((double)few * ROUND_SECONDS / took) + 1 : few;
}

static nb_status one_round(nb_limit *t, const nb_probe_memory *m, nb_error *err)
{
    double lost, seconds, work;
    do {
        NB_TRY(nb_stop_status(err));
        if (!t->items) find_items(t, m);
        nb_clocks from = nb_clocks_now();
        work = nb_probe_run(t->probe, t->pool, m, t->items);
        seconds = nb_clocks_since(&from, nb_pool_threads(t->pool), &lost);
    } while (!nb_rounds_add(&t->rate, work / seconds, lost));
    return NB_OK;
}

static nb_status all_rounds(nb_limits *l, const nb_probe_memory *m, int rounds, nb_meter *meter, nb_error *err)
{
    size_t total = (size_t)rounds * l->count, done = 0;
    for (int r = 0; r < rounds; r++)
        for (size_t i = 0; i < l->count; i++) {
            NB_TRY(one_round(&l->items[i], m, err));
            if (meter) nb_meter_update(meter, ++done, total, l->items[i].probe->name);
        }
    return NB_OK;
}

nb_status nb_limits_measure(nb_limits *l, size_t memory, int rounds, nb_meter *meter, nb_error *err)
{
    nb_probe_memory *m;
    bool             reads = false;
    int              most = 0;
    uint64_t         available = nb_available_memory(), huge = proc_bytes("/proc/self/smaps_rollup", "AnonHugePages");
    if (!l->count) return NB_OK;
    for (size_t i = 0; i < l->count; i++) {
        reads = reads || l->items[i].probe->read;
        if (nb_pool_threads(l->items[i].pool) > nb_pool_threads(l->items[most].pool)) most = (int)i;
    }
    if (memory && reads && available && memory > available / 2)
        return nb_fail(err, NB_ERR_BUDGET, "%zu MB to be read are more than half of the %llu MB of memory that are available; ask for less",
                       memory >> 20, (unsigned long long)available >> 20);
    NB_TRY(nb_probe_memory_new(&m, l->items[most].pool, !reads ? 0 : memory ? memory : nb_limits_memory(), err));
    uint64_t now = proc_bytes("/proc/self/smaps_rollup", "AnonHugePages");
    l->memory = m->size;
    l->huge = now > huge ? (size_t)(now - huge) : 0;
    if (l->huge > l->memory) l->huge = l->memory;
    nb_status status = all_rounds(l, m, rounds, meter, err);
    nb_probe_memory_free(m);
    return status;
}
