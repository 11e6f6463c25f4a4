/* probe_body.h - the probes of a level on vectors; included once by probe_avx2.c and probe_avx512.c, which define CHAINS, LEVEL(name)
 * and for each prefix s (f32), d (f64), i (integers) the vector, how many numbers it holds (s and d), load, store, and what is
 * measured: s_fma, d_fma, i_dot16 (i_dot8).
 *
 * HIDE(x) makes a register's content unknown to the compiler at no cost, so that no product of constant operands is computed once
 * and kept.
 */
#include <string.h>

#include "kernels/cpu/probe_levels.h"

#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define HIDE(x) __asm__("" : "+v"(x))

/* Any bytes to one number. */
static inline uint64_t fold(const void *bytes, size_t count)
{
    uint64_t all = 0, word;
    for (size_t i = 0; i + 8 <= count; i += 8) {
        memcpy(&word, (const uint8_t *)bytes + i, 8);
        all = all * 31 + word;
    }
    return all;
}

/* sum = sum * x + y: bounded for |x| < 1, and with two pairs of operands in turn never at rest. */
#define MULTIPLY_ADD(name, V, from)                                                                                 \
    uint64_t LEVEL(name)(const nb_probe_data *data, size_t steps)                                                   \
    {                                                                                                               \
        enum { LANES = V##_lanes };                                                                                 \
        V##_vector sum[CHAINS], x[2], y[2];                                                                         \
        UNROLL for (int c = 0; c < CHAINS; c++) sum[c] = V##_load(data->from + c * LANES);                           \
        for (int j = 0; j < 2; j++) {                                                                               \
            x[j] = V##_load(data->from + (CHAINS + j) * LANES);                                                     \
            y[j] = V##_load(data->from + (CHAINS + 2 + j) * LANES);                                                 \
        }                                                                                                           \
        for (size_t i = 0; i < steps; i++)                                                                          \
            UNROLL for (int j = 0; j < NB_PROBE_UNROLL; j++)                                                        \
                UNROLL for (int c = 0; c < CHAINS; c++) sum[c] = V##_fma(sum[c], x[j], y[j]);                        \
        uint64_t all = 0;                                                                                           \
        for (int c = 0; c < CHAINS; c++) all ^= fold(&sum[c], sizeof sum[c]);                                       \
        return all;                                                                                                 \
    }

/* sum += x * y in the way of an integer instruction; sums wrap around. */
#define DOT(name, dot)                                                                                              \
    uint64_t LEVEL(name)(const nb_probe_data *data, size_t steps)                                                   \
    {                                                                                                               \
        enum { BYTES = sizeof(i_vector) };                                                                          \
        i_vector sum[CHAINS], x[2], y[2];                                                                           \
        UNROLL for (int c = 0; c < CHAINS; c++) sum[c] = i_load(data->bits + c * BYTES);                             \
        for (int j = 0; j < 2; j++) {                                                                               \
            x[j] = i_load(data->bits + (CHAINS + j) * BYTES);                                                       \
            y[j] = i_load(data->bits + (CHAINS + 2 + j) * BYTES);                                                   \
        }                                                                                                           \
        for (size_t i = 0; i < steps; i++)                                                                          \
            UNROLL for (int j = 0; j < NB_PROBE_UNROLL; j++)                                                        \
                UNROLL for (int c = 0; c < CHAINS; c++) {                                                           \
                    HIDE(x[j]);                                                                                     \
                    sum[c] = dot(sum[c], x[j], y[j]);                                                               \
                }                                                                                                   \
        uint64_t all = 0;                                                                                           \
        for (int c = 0; c < CHAINS; c++) all ^= fold(&sum[c], sizeof sum[c]);                                       \
        return all;                                                                                                 \
    }

MULTIPLY_ADD(f32, s, f32)
MULTIPLY_ADD(f64, d, f64)
DOT(dot16, i_dot16)

/* A line of each stream at a time, so that the hardware sees NB_PROBE_STREAMS sequences that it can follow. */
uint64_t LEVEL(read)(const uint8_t *first, size_t stride)
{
    enum { BYTES = sizeof(i_vector), LINE = 64 };
    i_vector sum[NB_PROBE_STREAMS][LINE / BYTES];
    memset(sum, 0, sizeof sum);
    for (size_t at = 0; at < NB_PROBE_PIECE; at += LINE)
        UNROLL for (int s = 0; s < NB_PROBE_STREAMS; s++) {
            const uint8_t *p = first + (size_t)s * stride + at;
            UNROLL for (int v = 0; v < LINE / BYTES; v++) sum[s][v] = i_xor(sum[s][v], i_load(p + v * BYTES));
        }
    return fold(sum, sizeof sum);
}
