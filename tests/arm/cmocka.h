/* cmocka.h - as much of cmocka as the tests of kernels use, where no library of that name is compiled for the processor: the
 * cross-compiled tests of tests/long/neon.sh.  The first failed check ends the program with 1. */
#ifndef NB_ARM_CMOCKA_H
#define NB_ARM_CMOCKA_H

#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};

static jmp_buf cmocka_after_skip;

#define fail_msg(...)                                         \
    do {                                                      \
        fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);       \
        fprintf(stderr, __VA_ARGS__);                         \
        fprintf(stderr, "\n");                                \
        exit(1);                                              \
    } while (0)
#define cmocka_check(holds, text) do { if (!(holds)) fail_msg("%s", text); } while (0)

#define assert_true(a) cmocka_check(a, #a)
#define assert_false(a) cmocka_check(!(a), "not: " #a)
#define assert_null(a) cmocka_check((a) == NULL, #a " is NULL")
#define assert_non_null(a) cmocka_check((a) != NULL, #a " is not NULL")
#define assert_int_equal(a, b) cmocka_check((intmax_t)(a) == (intmax_t)(b), #a " == " #b)
#define assert_in_range(a, low, high) cmocka_check((intmax_t)(a) >= (intmax_t)(low) && (intmax_t)(a) <= (intmax_t)(high), #a " in " #low " .. " #high)
#define assert_string_equal(a, b) cmocka_check(strcmp(a, b) == 0, #a " equals " #b)
#define assert_memory_equal(a, b, n) cmocka_check(memcmp(a, b, n) == 0, #a " and " #b " have the same bytes")
#define skip() longjmp(cmocka_after_skip, 1)

#define cmocka_unit_test(function) { #function, function }
#define cmocka_run_group_tests(tests, set_up, tear_down) cmocka_run(tests, sizeof(tests) / sizeof(tests)[0], set_up, tear_down)

/* False when the test skipped itself. */
static inline int cmocka_ran(const struct CMUnitTest *test, void **state)
{
    if (setjmp(cmocka_after_skip)) return 0;
    test->run(state);
    return 1;
}

static inline int cmocka_run(const struct CMUnitTest *tests, size_t count, int set_up(void **), int tear_down(void **))
{
    void *state = NULL;
    if (set_up && set_up(&state)) fail_msg("set-up failed");
    for (size_t i = 0; i < count; i++) {
        printf("%s %s\n", cmocka_ran(&tests[i], &state) ? "ok" : "skipped", tests[i].name);
        fflush(stdout);
    }
    if (tear_down && tear_down(&state)) fail_msg("tear-down failed");
    return 0;
}

#endif
