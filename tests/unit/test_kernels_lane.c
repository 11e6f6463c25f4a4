/* test_kernels_lane.c - jobs of a lane run in order and one at a time, failures are kept, and nothing is lost at the end. */
#include "kernels/lane.h"
#include "unit.h"

#include <stdatomic.h>
#include <unistd.h>

typedef struct {
    size_t     seen[64], count; /* written by the lane alone */
    atomic_int inside;
    size_t     fails_at;
} log_book;

static nb_status note(void *context, size_t item, nb_error *err)
{
    log_book *b = context;
    assert_int_equal(atomic_fetch_add(&b->inside, 1), 0);
    if (item % 7 == 0) usleep(500);
    b->seen[b->count++] = item;
    atomic_fetch_sub(&b->inside, 1);
    return item == b->fails_at ? nb_fail(err, NB_ERR_IO, "item %zu is cursed", item) : NB_OK;
}

static void jobs_run_in_order(void **state)
{
    (void)state;
    nb_error err;
    nb_lane *lane;
    log_book book = { .fails_at = 1000 };
    OK(nb_lane_new(&lane, &err), &err);
    OK(nb_lane_wait(lane, 0, &err), &err); /* nothing was given */
    size_t third = 0;
    for (size_t i = 0; i < 40; i++) {
        size_t ticket = nb_lane_give(lane, note, &book, i);
        if (i == 3) third = ticket;
    }
    OK(nb_lane_wait(lane, third, &err), &err);
    nb_lane_free(lane); /* waits for the rest */
    assert_int_equal(book.count, 40);
    for (size_t i = 0; i < 40; i++) assert_int_equal(book.seen[i], i);
    nb_lane_free(NULL);
}

static void the_first_failure_stays(void **state)
{
    (void)state;
    nb_error err;
    nb_lane *lane;
    log_book book = { .fails_at = 5 };
    OK(nb_lane_new(&lane, &err), &err);
    size_t last = 0;
    for (size_t i = 0; i < 20; i++) last = nb_lane_give(lane, note, &book, i);
    for (int again = 0; again < 2; again++) FAILS(nb_lane_wait(lane, last, &err), NB_ERR_IO, "item 5 is cursed", &err);
    nb_lane_free(lane);
    assert_int_equal(book.count, 6); /* none after it */
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(jobs_run_in_order), cmocka_unit_test(the_first_failure_stays) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
