/* test_kernels_threads.c - every item runs exactly once, in many short loops, for any number of threads. */
#include "kernels/threads.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "unit.h"

enum { ITEMS = 1000 };

typedef struct {
    atomic_int count[ITEMS];
    double     result[ITEMS];
    int        threads;
    atomic_int wrong;
} record;

static void count_item(void *context, size_t item, int thread)
{
    record *r = context;
    if (thread < 0 || thread >= r->threads) atomic_fetch_add(&r->wrong, 1);
    atomic_fetch_add(&r->count[item], 1);
    r->result[item] = sqrt((double)item) / 3; /* plain memory: the end of the loop must make it visible */
}

static void every_item_once(void **state)
{
    (void)state;
    nb_error err;
    for (int threads = 1; threads <= 4; threads *= 2) {
        nb_pool *pool;
        OK(nb_pool_new(&pool, threads, &err), &err);
        assert_int_equal(nb_pool_threads(pool), threads);
        const size_t sizes[] = { 0, 1, 2, 3, 5, 64, ITEMS };
        for (size_t s = 0; s < NB_COUNT(sizes); s++) {
            record r = { .threads = threads };
            nb_parallel(pool, sizes[s], count_item, &r);
            for (size_t i = 0; i < ITEMS; i++) {
                assert_int_equal(atomic_load(&r.count[i]), i < sizes[s]);
                NEAR(r.result[i], i < sizes[s] ? sqrt((double)i) / 3 : 0, 0);
            }
            assert_int_equal(atomic_load(&r.wrong), 0);
        }
        nb_pool_free(pool);
    }
}

/* Items that sleep: the workers get their share, and still hold the last items when the caller has run out of them. */
static void slow_item(void *context, size_t item, int thread)
{
    usleep(thread == 0 ? 200 : 3000);
    count_item(context, item, thread);
    ((record *)context)->result[item] = thread;
}

static void the_end_is_waited_for(void **state)
{
    (void)state;
    nb_error err;
    nb_pool *pool;
    OK(nb_pool_new(&pool, 3, &err), &err);
    bool helped = false;
    for (int loop = 0; loop < 10; loop++) {
        record r = { .threads = 3 };
        nb_parallel(pool, 40, slow_item, &r);
        for (size_t i = 0; i < 40; i++) {
            assert_int_equal(atomic_load(&r.count[i]), 1);
            helped |= r.result[i] > 0;
        }
        assert_int_equal(atomic_load(&r.wrong), 0);
    }
    assert_true(helped);
    nb_pool_free(pool);
}

typedef struct {
    long total;
    long part[8];
} sums;

static void add_item(void *context, size_t item, int thread)
{
    (void)thread;
    ((sums *)context)->part[item] += (long)item + 1;
}

/* Many loops in a row, some after a pause in which the workers fall asleep. */
static void many_loops(void **state)
{
    (void)state;
    nb_error err;
    for (int threads = 1; threads <= 4; threads *= 2) {
        nb_pool *pool;
        OK(nb_pool_new(&pool, threads, &err), &err);
        sums   s = { 0 };
        double busy = 0;
        enum { LOOPS = 5000 };
        for (int i = 0; i < LOOPS; i++) {
            double start = nb_seconds();
            nb_parallel(pool, 8, add_item, &s);
            busy += nb_seconds() - start;
            if (i % 1000 == 0) usleep(2000);
        }
        for (int i = 0; i < 8; i++) s.total += s.part[i];
        assert_int_equal(s.total, 36 * LOOPS);
        printf("%d threads: %.2f us per loop of 8 tiny items\n", threads, 1e6 * busy / LOOPS);
        nb_pool_free(pool);
    }
}

static atomic_size_t last_item;
static atomic_int    out_of_order;

static void check_order(void *context, size_t item, int thread)
{
    (void)context;
    (void)thread;
    if (item < atomic_exchange(&last_item, item)) atomic_fetch_add(&out_of_order, 1);
}

static void ascending_on_one_thread(void **state)
{
    (void)state;
    nb_error err;
    nb_pool *pool;
    OK(nb_pool_new(&pool, 1, &err), &err);
    nb_parallel(pool, ITEMS, check_order, NULL);
    assert_int_equal(atomic_load(&out_of_order), 0);
    nb_pool_free(pool);
}

static nb_pool *nesting_pool;

static void nest(void *context, size_t item, int thread)
{
    (void)item;
    (void)thread;
    nb_parallel(nesting_pool, 1, count_item, context);
}

/* Nesting is a bug of ours at any number of items and threads: it must not work by luck. */
static void nesting_is_caught(void **state)
{
    (void)state;
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        nb_error err;
        record   r = { .threads = 1 };
        if (!freopen("/dev/null", "w", stderr)) _exit(9);
        signal(SIGABRT, SIG_DFL);
        if (nb_pool_new(&nesting_pool, 1, &err) != NB_OK) _exit(9);
        nb_parallel(nesting_pool, 1, nest, &r);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void odd_requests(void **state)
{
    (void)state;
    nb_error err;
    nb_pool *pool = (nb_pool *)1;
    FAILS(nb_pool_new(&pool, -1, &err), NB_ERR_ARGUMENT, "threads", &err);
    assert_null(pool);
    FAILS(nb_pool_new(&pool, 1000000, &err), NB_ERR_ARGUMENT, "1000000", &err);
    OK(nb_pool_new(&pool, 0, &err), &err);
    assert_in_range(nb_pool_threads(pool), 1, 1024);
    nb_pool_free(pool);
    nb_pool_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_once), cmocka_unit_test(the_end_is_waited_for), cmocka_unit_test(many_loops),
        cmocka_unit_test(ascending_on_one_thread),
        cmocka_unit_test(nesting_is_caught), cmocka_unit_test(odd_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
