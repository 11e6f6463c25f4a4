/* unit.h - what every unit test includes: cmocka, checks that a NaN cannot pass, and where files are. */
#ifndef NB_UNIT_H
#define NB_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base.h"

/* A call that must succeed; prints the error text otherwise. */
#define OK(call, err)                                                  \
    do {                                                               \
        (err)->text[0] = 0;                                            \
        nb_status unit_status = (call);                                \
        if (unit_status != NB_OK)                                      \
            fail_msg("%s: %s", #call, (err)->text);                    \
    } while (0)

/* A call that must fail with this status and a text that holds `part`. */
#define FAILS(call, want, part, err)                                                                         \
    do {                                                                                                     \
        (err)->text[0] = 0;                                                                                  \
        nb_status unit_status = (call);                                                                      \
        if (unit_status != (want) || !strstr((err)->text, part))                                             \
            fail_msg("%s: status %d (expected %d), text '%s' (expected to hold '%s')", #call, unit_status,   \
                     want, (err)->text, part);                                                               \
    } while (0)

/* Written so that a NaN on either side is a disagreement. */
#define NEAR(got, want, within)                                                                              \
    do {                                                                                                     \
        double unit_got = (got), unit_want = (want);                                                         \
        if (!(fabs(unit_got - unit_want) <= (within)))                                                       \
            fail_msg("%s = %.9g, expected %.9g within %g", #got, unit_got, unit_want, (double)(within));     \
    } while (0)

/* Relative RMS distance of two arrays: |a - b| / |b|; NaN when either holds one. */
static inline double unit_rms(const float *got, const float *want, size_t n)
{
    double d = 0, w = 0;
    for (size_t i = 0; i < n; i++) {
        d += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        w += (double)want[i] * want[i];
    }
    return w > 0 ? sqrt(d / w) : d > 0 ? INFINITY : d;
}

/* A small deterministic generator. */
static inline uint32_t unit_random(uint64_t *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(*state >> 33);
}
static inline float unit_uniform(uint64_t *state) /* [-1, 1) */
{
    return (float)unit_random(state) / 1073741824.0f - 1.0f;
}
static inline float unit_normal(uint64_t *state)
{
    float s = 0;
    for (int i = 0; i < 12; i++) s += unit_uniform(state);
    return s * 0.5f;
}

/* Path of a file in the source tree / of the shared test data (NIBBLE_TEST_DATA, or ../shared/data beside the source).
 * The returned buffer is static and lasts four calls. */
static inline const char *unit_path(const char *relative)
{
    static char path[4][1024];
    static int  i;
    i = (i + 1) % 4;
    snprintf(path[i], sizeof path[i], "%s/%s", NIBBLE_SOURCE, relative);
    return path[i];
}
static inline const char *unit_data(const char *relative)
{
    static char path[4][1024];
    static int  i;
    const char *root = getenv("NIBBLE_TEST_DATA");
    i = (i + 1) % 4;
    if (root)
        snprintf(path[i], sizeof path[i], "%s/%s", root, relative);
    else
        snprintf(path[i], sizeof path[i], "%s/../shared/data/%s", NIBBLE_SOURCE, relative);
    return path[i];
}
/* Skip a test loudly when a file of the shared test data is not here. */
#define NEEDS_DATA(relative)                                                                            \
    do {                                                                                                \
        if (access(unit_data(relative), R_OK) != 0) {                                                   \
            fprintf(stderr, "SKIP %s: test data '%s' is not here (set NIBBLE_TEST_DATA)\n", __func__, relative); \
            skip();                                                                                     \
        }                                                                                               \
    } while (0)

#endif
