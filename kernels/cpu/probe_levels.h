/* probe_levels.h - the probes of each level, one file a level; see ../probe.h for what they do. */
#ifndef NB_PROBE_LEVELS_H
#define NB_PROBE_LEVELS_H

#include "kernels/probe.h"

/* Operations in one step of a compute probe: chains, times multiplications and additions in an instruction, times instructions. */
enum {
    NB_REF_CHAINS = 8,
    NB_AVX2_CHAINS = 10,   /* and four operands in 16 registers; 8 chains hide a latency of 4 at two a cycle */
    NB_AVX512_CHAINS = 16, /* and four operands in 32 */
    NB_PROBE_UNROLL = 2,   /* instructions of a chain in a step, each with other operands */
    NB_AMX_CHAINS = 4,     /* tiles of sums; two tiles each of both operands make eight */
};

uint64_t nb_ref_probe_read(const uint8_t *first, size_t stride);
uint64_t nb_ref_probe_f64(const nb_probe_data *data, size_t steps);

uint64_t nb_avx2_probe_read(const uint8_t *first, size_t stride);
uint64_t nb_avx2_probe_f32(const nb_probe_data *data, size_t steps);
uint64_t nb_avx2_probe_f64(const nb_probe_data *data, size_t steps);
uint64_t nb_avx2_probe_dot16(const nb_probe_data *data, size_t steps);

uint64_t nb_avx512_probe_read(const uint8_t *first, size_t stride);
uint64_t nb_avx512_probe_f32(const nb_probe_data *data, size_t steps);
uint64_t nb_avx512_probe_f64(const nb_probe_data *data, size_t steps);
uint64_t nb_avx512_probe_dot16(const nb_probe_data *data, size_t steps);
uint64_t nb_avx512_probe_dot8(const nb_probe_data *data, size_t steps);

uint64_t nb_amx_probe_bf16(const nb_probe_data *data, size_t steps);
uint64_t nb_amx_probe_int8(const nb_probe_data *data, size_t steps);

#endif
