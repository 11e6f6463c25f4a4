/* threads.c - a pool of pthreads that is cheap to start: a decode step of a small model runs ~50 loops of ~20 us each.
 *
 * A loop is open or closed.  A worker that wants to help raises `active`, and only then looks whether the loop is open;
 * the caller closes the loop when the items have run out, and only then waits until `active` is zero.  Both orders are
 * sequentially consistent, so a worker either is waited for or touches nothing.  The caller never waits for a worker
 * that has not come: one that the system has not woken in time, or has descheduled, simply misses the loop.
 *
 * Waiting is spinning for some tens of microseconds and then sleeping in the kernel on the word that is waited for
 * (futex(2)): the next loop usually comes at once, and an idle program must not burn its cores.
 *
 * Nothing here decides what an item is; see threads.h for why results do not depend on the number of threads.
 */
#include "kernels/threads.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_THREADS = 1024, SPINS = 1000 /* of 40 to 140 cycles each */ };

typedef struct {
    nb_pool  *pool;
    int       index;
    pthread_t thread;
} worker;

struct nb_pool {
    int     threads, started; /* including the caller's; workers created so far */
    int     spins;
    worker *workers;          /* [threads - 1] */

    nb_body *body; /* the loop; written while it is closed and nobody is active */
    void    *context;
    size_t   items;

    /* Each on its own cache line: workers poll the first, everybody writes the second, helpers write the third. */
    _Alignas(64) atomic_uint   epoch;    /* counts loops; workers sleep on it */
    atomic_uint                sleepers; /* workers asleep, or about to be */
    atomic_bool                open, quit, busy;
    _Alignas(64) atomic_size_t next;     /* item to hand out */
    _Alignas(64) atomic_uint   active;   /* workers inside; the caller sleeps on it */
    atomic_bool                caller_sleeps;
};

static _Thread_local bool inside_body;

/* ---- waiting ------------------------------------------------------------- */

static void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    sched_yield();
#endif
}

/* Sleep unless *word has changed from `seen`; may return early. */
static void futex_wait(atomic_uint *word, unsigned seen)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake(atomic_uint *word, int count)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

/* ---- the loop ------------------------------------------------------------ */

static void run_items(nb_pool *pool, int thread)
{
    inside_body = true;
    for (;;) {
        size_t item = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (item >= pool->items) break;
        pool->body(pool->context, item, thread);
    }
    inside_body = false;
}

static void help(nb_pool *pool, int thread)
{
    atomic_fetch_add(&pool->active, 1);
    if (atomic_load(&pool->open)) run_items(pool, thread);
    if (atomic_fetch_sub(&pool->active, 1) == 1 && atomic_load(&pool->caller_sleeps)) futex_wake(&pool->active, 1);
}

static void *worker_main(void *argument)
{
    worker  *self = argument;
    nb_pool *pool = self->pool;
    unsigned seen = 0;
    while (!atomic_load(&pool->quit)) {
        unsigned now = atomic_load(&pool->epoch);
        for (int i = 0; now == seen && i < pool->spins; i++) {
            cpu_relax();
            now = atomic_load_explicit(&pool->epoch, memory_order_acquire);
        }
        if (now == seen) {
            atomic_fetch_add(&pool->sleepers, 1); /* before the kernel compares: the caller raises epoch, then looks */
            futex_wait(&pool->epoch, seen);
            atomic_fetch_sub(&pool->sleepers, 1);
            continue;
        }
        seen = now;
        help(pool, self->index);
    }
    return NULL;
}

static void announce(nb_pool *pool, size_t helpers)
{
    atomic_fetch_add(&pool->epoch, 1);
    if (atomic_load(&pool->sleepers)) futex_wake(&pool->epoch, helpers < INT_MAX ? (int)helpers : INT_MAX);
}

static void wait_for_helpers(nb_pool *pool)
{
    unsigned active = atomic_load(&pool->active);
    for (int i = 0; active && i < pool->spins; i++) {
        cpu_relax();
        active = atomic_load(&pool->active);
    }
    if (!active) return;
    atomic_store(&pool->caller_sleeps, true); /* before the kernel compares: helpers lower active, then look */
    while ((active = atomic_load(&pool->active)) != 0) futex_wait(&pool->active, active);
    atomic_store(&pool->caller_sleeps, false);
}

void nb_parallel(nb_pool *pool, size_t items, nb_body *body, void *context)
{
    assert(!inside_body && "nb_parallel called from inside a body");
    if (items <= 1 || pool->threads == 1) {
        inside_body = true;
        for (size_t i = 0; i < items; i++) body(context, i, 0);
        inside_body = false;
        return;
    }
    bool was_busy = atomic_exchange(&pool->busy, true);
    assert(!was_busy && "two threads use one pool at the same time");
    (void)was_busy;
    pool->body = body;
    pool->context = context;
    pool->items = items;
    atomic_store(&pool->next, 0);
    atomic_store(&pool->open, true);
    announce(pool, items - 1);
    run_items(pool, 0);
    atomic_store(&pool->open, false);
    wait_for_helpers(pool);
    atomic_store(&pool->busy, false);
}

/* ---- the pool ------------------------------------------------------------ */

static int allowed_cpus(void)
{
    for (size_t cpus = 1024; cpus <= 65536; cpus *= 2) { /* the kernel's mask may be larger than cpu_set_t */
        cpu_set_t *set = CPU_ALLOC(cpus);
        if (!set) break;
        size_t size = CPU_ALLOC_SIZE(cpus);
        int    failed = sched_getaffinity(0, size, set), count = failed ? 0 : CPU_COUNT_S(size, set);
        CPU_FREE(set);
        if (count > 0) return count;
        if (errno != EINVAL) break;
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 && online < INT_MAX ? (int)online : 1;
}

/* Workers take no signals: they are the business of the thread that the program waits in. */
static nb_status start_workers(nb_pool *pool, nb_error *err)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failure = 0;
    for (int i = 0; i < pool->threads - 1 && !failure; i++) {
        worker *w = &pool->workers[i];
        w->pool = pool;
        w->index = i + 1;
        failure = pthread_create(&w->thread, NULL, worker_main, w);
        if (!failure) pool->started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failure)
        return nb_fail(err, NB_ERR_IO, "cannot start thread %d of %d: %s; ask for fewer threads", pool->started + 2,
                       pool->threads, strerror(failure));
    return NB_OK;
}

nb_status nb_pool_new(nb_pool **out, int threads, nb_error *err)
{
    *out = NULL;
    if (threads < 0 || threads > MAX_THREADS)
        return nb_fail(err, NB_ERR_ARGUMENT, "the number of threads must be between 0 (automatic) and %d, not %d",
                       MAX_THREADS, threads);
    int cpus = allowed_cpus();
    if (threads == 0) threads = cpus < MAX_THREADS ? cpus : MAX_THREADS;
    nb_pool *pool = nb_calloc_aligned(1, sizeof *pool);
    if (!pool) return nb_fail(err, NB_ERR_MEMORY, "no memory for a pool of %d threads", threads);
    pool->threads = threads;
    pool->spins = threads <= cpus ? SPINS : 0; /* with more threads than CPUs, spinning keeps the others from working */
    nb_status status = nb_alloc(&pool->workers, (size_t)threads - 1, sizeof *pool->workers, "the pool's threads", err);
    if (status == NB_OK) status = start_workers(pool, err);
    if (status != NB_OK) {
        nb_pool_free(pool);
        return status;
    }
    *out = pool;
    return NB_OK;
}

void nb_pool_free(nb_pool *pool)
{
    if (!pool) return;
    atomic_store(&pool->quit, true);
    atomic_fetch_add(&pool->epoch, 1);
    futex_wake(&pool->epoch, INT_MAX);
    for (int i = 0; i < pool->started; i++) pthread_join(pool->workers[i].thread, NULL);
    free(pool->workers);
    free(pool);
}

int nb_pool_threads(const nb_pool *pool)
{
    return pool->threads;
}
