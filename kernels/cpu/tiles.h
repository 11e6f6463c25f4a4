/* tiles.h - the tile instructions of AMX by one set of names: the processor's own, or, where NB_EMULATE_TILES is defined, those of
 * tiles_emulated.h, so that one source is built twice and tests run it on machines without AMX.
 *
 * Tiles are numerals 0 to 7: they are part of an instruction.  A thread configures tiles before it uses them and releases them
 * before it leaves: a configuration that stays makes every switch of threads save 8 KB.
 *
 * gcc's tileloadd and ldtilecfg do not say that they read memory, so that stores to what they read may be moved behind them
 * or dropped; hence the fences, which cost no instruction.
 */
#ifndef NB_TILES_H
#define NB_TILES_H

#ifdef NB_EMULATE_TILES

#include "kernels/cpu/tiles_emulated.h"

static _Thread_local nb_tiles this_threads_tiles;

#define tile_configure(config)       nb_tiles_configure(&this_threads_tiles, config)
#define tile_release()               nb_tiles_release(&this_threads_tiles)
#define tile_zero(tile)              nb_tile_zero(&this_threads_tiles, tile)
#define tile_load(tile, from, bytes) nb_tile_load(&this_threads_tiles, tile, from, (ptrdiff_t)(bytes))
#define tile_store(tile, to, bytes)  nb_tile_store(&this_threads_tiles, tile, to, (ptrdiff_t)(bytes))
#define tile_signed_unsigned(c, a, b) nb_tile_bytes(&this_threads_tiles, c, a, b, true, false, "tdpbsud")
#define tile_bf16(c, a, b)           nb_tile_bf16(&this_threads_tiles, c, a, b)

#else

#include <immintrin.h>
#include <stdint.h>

/* What ldtilecfg reads: 64 bytes. */
typedef struct {
    uint8_t  palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t  rows[16];
} nb_tile_config;

#define TILE_FENCE() __asm__ volatile("" ::: "memory")

#define tile_configure(config) do { TILE_FENCE(); _tile_loadconfig(config); } while (0)
#define tile_release()         _tile_release()
#define tile_zero(tile)        _tile_zero(tile)
/* Rows of a tile lie `bytes` apart. */
#define tile_load(tile, from, bytes) do { TILE_FENCE(); _tile_loadd(tile, from, bytes); } while (0)
#define tile_store(tile, to, bytes)  do { _tile_stored(tile, to, bytes); TILE_FENCE(); } while (0)
/* C i32 [16, 16] += A s8 [16, 64] B u8 [64, 16], four inputs a dword in both */
#define tile_signed_unsigned(c, a, b) _tile_dpbsud(c, a, b)
/* C f32 [16, 16] += A bf16 [16, 32] B bf16 [32, 16], two inputs a dword in both; denormals count as zero */
#define tile_bf16(c, a, b) _tile_dpbf16ps(c, a, b)

#endif
#endif
