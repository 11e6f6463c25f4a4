/* probe_amx.c - probes of AMX: products of tiles of 16 rows of 64 bytes, operands and sums in the eight tile registers.
 *
 * Four tiles of sums, two of each operand: one product of a chain follows the one before it after three others, which is longer than
 * its latency.
 */
#include "kernels/cpu/probe_levels.h"
#include "kernels/cpu/tiles.h"

enum { TILE_BYTES = 1024, ROW_BYTES = 64 };

/* Eight tiles of 16 rows of 64 bytes. */
static void configure(void)
{
    _Alignas(64) nb_tile_config c = { .palette = 1 };
    for (int t = 0; t < 8; t++) c.rows[t] = 16, c.row_bytes[t] = ROW_BYTES;
    tile_configure(&c);
}

#define TILE_PROBE(name, product, from)                                    \
    uint64_t name(const nb_probe_data *data, size_t steps)                 \
    {                                                                      \
        _Alignas(64) uint64_t sums[TILE_BYTES / 8];                        \
        const uint8_t *operands = (const uint8_t *)data->from;             \
        configure();                                                       \
        tile_zero(0);                                                      \
        tile_zero(1);                                                      \
        tile_zero(2);                                                      \
        tile_zero(3);                                                      \
        tile_load(4, operands, ROW_BYTES);                                 \
        tile_load(5, operands + TILE_BYTES, ROW_BYTES);                    \
        tile_load(6, operands + 2 * TILE_BYTES, ROW_BYTES);                \
        tile_load(7, operands + 3 * TILE_BYTES, ROW_BYTES);                \
        for (size_t i = 0; i < steps; i++) {                               \
            product(0, 4, 6);                                              \
            product(1, 4, 7);                                              \
            product(2, 5, 6);                                              \
            product(3, 5, 7);                                              \
        }                                                                  \
        uint64_t all = 0;                                                  \
        tile_store(0, sums, ROW_BYTES);                                    \
        all ^= sums[0];                                                    \
        tile_store(1, sums, ROW_BYTES);                                    \
        all ^= sums[0];                                                    \
        tile_store(2, sums, ROW_BYTES);                                    \
        all ^= sums[0];                                                    \
        tile_store(3, sums, ROW_BYTES);                                    \
        all ^= sums[0];                                                    \
        tile_release();                                                    \
        return all;                                                        \
    }

TILE_PROBE(nb_amx_probe_bf16, tile_bf16, bf16)
TILE_PROBE(nb_amx_probe_int8, _tile_dpbusd, bits)

_Static_assert(sizeof(((nb_probe_data *)0)->bf16) >= 4 * TILE_BYTES && sizeof(((nb_probe_data *)0)->bits) >= 4 * TILE_BYTES,
               "four tiles of operands");
