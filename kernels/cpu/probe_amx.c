/* probe_amx.c - probes of AMX: products of tiles of 16 rows of 64 bytes, operands and sums in the eight tile registers.
 *
 * Four tiles of sums, two of each operand: one product of a chain follows the one before it after three others, which is longer than
 * its latency.
 */
#include "kernels/cpu/probe_levels.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define AMX __attribute__((target("amx-tile,amx-bf16,amx-int8")))

enum { TILE_BYTES = 1024, ROW_BYTES = 64 };

/* CPUID leaf 7: EDX bits 22 (bf16), 24 (tiles), 25 (int8); XCR0 bits 17 and 18: the system keeps tile registers; and a process has
 * to ask for the room that their content takes when a thread is interrupted (arch_prctl(2), feature 18). */
static bool detect(void)
{
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    const uint32_t wanted = 1u << 22 | 1u << 24 | 1u << 25;
    uint32_t       a, b, c, d, low, high;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & wanted) != wanted) return false;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & 1u << 27)) return false; /* OSXSAVE: XGETBV may be asked */
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low >> 17 & 3) != 3) return false;
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

bool nb_amx_probe_there(void)
{
    static int known; /* 0: not asked; the answer does not change, so that two threads may both ask */
    int        answer = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (!answer) {
        answer = detect() ? 1 : -1;
        __atomic_store_n(&known, answer, __ATOMIC_RELAXED);
    }
    return answer > 0;
}

/* Eight tiles of 16 rows of 64 bytes. */
static void configuration(uint8_t out[64])
{
    memset(out, 0, 64);
    out[0] = 1; /* palette */
    for (int t = 0; t < 8; t++) {
        const uint16_t bytes = ROW_BYTES;
        memcpy(out + 16 + 2 * t, &bytes, 2);
        out[48 + t] = 16;
    }
}

#define TILE_PROBE(name, product, from)                                           \
    AMX uint64_t name(const nb_probe_data *data, size_t steps)                    \
    {                                                                             \
        _Alignas(64) uint8_t config[64];                                          \
        _Alignas(64) uint64_t sums[TILE_BYTES / 8];                               \
        const uint8_t *operands = (const uint8_t *)data->from;                    \
        configuration(config);                                                    \
        _tile_loadconfig(config);                                                 \
        _tile_zero(0);                                                            \
        _tile_zero(1);                                                            \
        _tile_zero(2);                                                            \
        _tile_zero(3);                                                            \
        _tile_loadd(4, operands, ROW_BYTES);                                      \
        _tile_loadd(5, operands + TILE_BYTES, ROW_BYTES);                         \
        _tile_loadd(6, operands + 2 * TILE_BYTES, ROW_BYTES);                     \
        _tile_loadd(7, operands + 3 * TILE_BYTES, ROW_BYTES);                     \
        for (size_t i = 0; i < steps; i++) {                                      \
            product(0, 4, 6);                                                     \
            product(1, 4, 7);                                                     \
            product(2, 5, 6);                                                     \
            product(3, 5, 7);                                                     \
        }                                                                         \
        uint64_t all = 0;                                                         \
        _tile_stored(0, sums, ROW_BYTES);                                         \
        all ^= sums[0];                                                           \
        _tile_stored(1, sums, ROW_BYTES);                                         \
        all ^= sums[1];                                                           \
        _tile_stored(2, sums, ROW_BYTES);                                         \
        all ^= sums[2];                                                           \
        _tile_stored(3, sums, ROW_BYTES);                                         \
        all ^= sums[3];                                                           \
        _tile_release();                                                          \
        return all;                                                               \
    }

TILE_PROBE(nb_amx_probe_bf16, _tile_dpbf16ps, bf16)
TILE_PROBE(nb_amx_probe_int8, _tile_dpbusd, bits)

_Static_assert(sizeof(((nb_probe_data *)0)->bf16) >= 4 * TILE_BYTES && sizeof(((nb_probe_data *)0)->bits) >= 4 * TILE_BYTES,
               "four tiles of operands");

#else

typedef int nb_no_amx_here; /* a file must have something */

#endif
