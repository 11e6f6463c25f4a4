/* probe_ref.c - probes of plain C: one number at a time, a product and a sum in double, as the level ref computes.
 *
 * HIDE keeps a compiler from putting two chains into one vector register.
 */
#include <string.h>

#include "kernels/cpu/probe_levels.h"

#if defined(__x86_64__)
#define HIDE(x) __asm__("" : "+x"(x))
#elif defined(__aarch64__)
#define HIDE(x) __asm__("" : "+w"(x))
#else
#define HIDE(x) __asm__("" : "+m"(x))
#endif

/* HIDE wants names, not elements of an array, to keep them in registers. */
#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)

uint64_t nb_ref_probe_f64(const nb_probe_data *data, size_t steps)
{
#define START(c) double sum##c = data->f64[c];
#define STEP(c)  sum##c = sum##c * x[j] + y[j]; HIDE(sum##c);
#define ADD(c)   + sum##c
    const double x[2] = { data->f64[8], data->f64[9] }, y[2] = { data->f64[10], data->f64[11] };
    EACH(START)
    for (size_t i = 0; i < steps; i++)
        for (int j = 0; j < NB_PROBE_UNROLL; j++) { EACH(STEP) }
    double   all = 0 EACH(ADD);
    uint64_t bits;
    memcpy(&bits, &all, sizeof bits);
    return bits;
}

uint64_t nb_ref_probe_read(const uint8_t *first, size_t stride)
{
    uint64_t sum[NB_PROBE_STREAMS] = { 0 };
    for (size_t at = 0; at < NB_PROBE_PIECE; at += 64)
        for (size_t s = 0; s < NB_PROBE_STREAMS; s++) {
            uint64_t word[8];
            memcpy(word, first + s * stride + at, sizeof word);
            sum[s] ^= word[0] ^ word[1] ^ word[2] ^ word[3] ^ word[4] ^ word[5] ^ word[6] ^ word[7];
        }
    return sum[0] ^ sum[1] ^ sum[2] ^ sum[3];
}
