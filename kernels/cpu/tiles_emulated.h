/* tiles_emulated.h - the tile registers of AMX and their instructions in plain C, for tests on machines without them.
 *
 * Written from the definition of each instruction in Intel's manual (palette 1), with its faults: where the processor raises one,
 * this says which and aborts.  Memory is touched as the processor touches it, `colsb` bytes for each row and no other, so that
 * a sanitizer sees a tile that reaches too far.
 *
 * It proves layouts, bounds and integer results.  Of tdpbf16ps it has the documented order (below); it proves nothing about speed.
 */
#ifndef NB_TILES_EMULATED_H
#define NB_TILES_EMULATED_H

#include <float.h>
#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/float.h"

enum { NB_TILES = 8, NB_TILE_ROWS_MAX = 16, NB_TILE_ROW_BYTES = 64 };

/* What ldtilecfg reads: 64 bytes. */
typedef struct {
    uint8_t  palette, start_row, reserved[14];
    uint16_t row_bytes[16]; /* "colsb"; tiles 8 to 15 do not exist in palette 1 */
    uint8_t  rows[16];
} nb_tile_config;

_Static_assert(sizeof(nb_tile_config) == 64, "as the instruction reads it");

typedef struct {
    bool           configured;
    nb_tile_config config;
    uint8_t        data[NB_TILES][NB_TILE_ROWS_MAX][NB_TILE_ROW_BYTES];
} nb_tiles;

static _Atomic long nb_tiles_configured; /* threads that hold a configuration now */
static _Atomic long nb_tiles_products;   /* products made so far, so that a test knows that tiles were used at all */

static inline void nb_tiles_fault(const char *instruction, const char *why)
{
    fprintf(stderr, "emulated tiles: %s: %s\n", instruction, why);
    abort();
}

static inline void nb_tiles_release(nb_tiles *t)
{
    if (t->configured) nb_tiles_configured--;
    memset(t, 0, sizeof *t);
}

/* Palette 0 is a release.  Every tile becomes zero. */
static inline void nb_tiles_configure(nb_tiles *t, const void *from)
{
    nb_tile_config c;
    memcpy(&c, from, sizeof c);
    if (c.palette > 1) nb_tiles_fault("ldtilecfg", "no such palette");
    nb_tiles_release(t);
    if (c.palette == 0) return;
    for (int i = 0; i < 14; i++)
        if (c.reserved[i]) nb_tiles_fault("ldtilecfg", "reserved bytes are not zero");
    for (int i = 0; i < 16; i++) {
        if (i >= NB_TILES && (c.rows[i] || c.row_bytes[i])) nb_tiles_fault("ldtilecfg", "palette 1 has eight tiles");
        if (c.rows[i] > NB_TILE_ROWS_MAX || c.row_bytes[i] > NB_TILE_ROW_BYTES) nb_tiles_fault("ldtilecfg", "a tile is too large");
        if (!c.rows[i] != !c.row_bytes[i]) nb_tiles_fault("ldtilecfg", "a tile has rows or columns, and not both");
    }
    if (c.start_row) nb_tiles_fault("ldtilecfg", "a start row is for interrupted loads, which do not happen here");
    t->configured = true;
    t->config = c;
    nb_tiles_configured++;
}

static inline void nb_tile_usable(const nb_tiles *t, int tile, const char *instruction)
{
    if (!t->configured) nb_tiles_fault(instruction, "tiles are not configured");
    if (!t->config.rows[tile]) nb_tiles_fault(instruction, "this tile is not configured");
}

static inline void nb_tile_zero(nb_tiles *t, int tile)
{
    nb_tile_usable(t, tile, "tilezero");
    memset(t->data[tile], 0, sizeof t->data[tile]);
}

static inline void nb_tile_load(nb_tiles *t, int tile, const void *from, ptrdiff_t stride)
{
    nb_tile_usable(t, tile, "tileloadd");
    memset(t->data[tile], 0, sizeof t->data[tile]);
    for (int r = 0; r < t->config.rows[tile]; r++)
        memcpy(t->data[tile][r], (const char *)from + r * stride, t->config.row_bytes[tile]);
}

static inline void nb_tile_store(const nb_tiles *t, int tile, void *to, ptrdiff_t stride)
{
    nb_tile_usable(t, tile, "tilestored");
    for (int r = 0; r < t->config.rows[tile]; r++)
        memcpy((char *)to + r * stride, t->data[tile][r], t->config.row_bytes[tile]);
}

/* C [m, n] += A [m, k] B [k, n] needs matching shapes and three different tiles; k and n are counted in dwords. */
static inline void nb_tile_shapes(const nb_tiles *t, int c, int a, int b, const char *instruction)
{
    nb_tile_usable(t, c, instruction);
    nb_tile_usable(t, a, instruction);
    nb_tile_usable(t, b, instruction);
    const nb_tile_config *s = &t->config;
    if (c == a || c == b || a == b) nb_tiles_fault(instruction, "two operands are the same tile");
    if (s->row_bytes[a] % 4 || s->row_bytes[b] % 4 || s->row_bytes[c] % 4) nb_tiles_fault(instruction, "a row is no whole dwords");
    if (s->rows[c] != s->rows[a] || s->row_bytes[a] / 4 != s->rows[b] || s->row_bytes[c] != s->row_bytes[b])
        nb_tiles_fault(instruction, "the shapes of the tiles do not match");
    nb_tiles_products++;
}

/* tdpbssd, tdpbsud, tdpbusd, tdpbuud: four products of bytes for each dword, sums modulo 2^32. */
static inline void nb_tile_bytes(nb_tiles *t, int c, int a, int b, bool signed_a, bool signed_b, const char *instruction)
{
    nb_tile_shapes(t, c, a, b, instruction);
    int dwords = t->config.row_bytes[c] / 4;
    for (int m = 0; m < t->config.rows[c]; m++)
        for (int k = 0; k < t->config.rows[b]; k++)
            for (int n = 0; n < dwords; n++) {
                uint32_t sum;
                memcpy(&sum, &t->data[c][m][4 * n], 4);
                for (int i = 0; i < 4; i++) {
                    uint8_t x = t->data[a][m][4 * k + i], y = t->data[b][k][4 * n + i];
                    sum += (uint32_t)((signed_a ? (int8_t)x : x) * (signed_b ? (int8_t)y : y));
                }
                memcpy(&t->data[c][m][4 * n], &sum, 4);
            }
}

/* A denormal, of an operand or a result, counts as a zero of its sign. */
static inline float nb_tile_flush(float f)
{
    return fabsf(f) < FLT_MIN ? copysignf(0, f) : f;
}

/* tdpbf16ps: the even and the odd products of a row of A with a column of B are two chains of fused multiply-adds from zero;
 * then C += even + odd, two roundings more. */
static inline void nb_tile_bf16(nb_tiles *t, int c, int a, int b)
{
    nb_tile_shapes(t, c, a, b, "tdpbf16ps");
    int dwords = t->config.row_bytes[c] / 4;
    for (int m = 0; m < t->config.rows[c]; m++) {
        float chain[2][NB_TILE_ROW_BYTES / 4] = { { 0 } };
        for (int k = 0; k < t->config.rows[b]; k++)
            for (int half = 0; half < 2; half++) {
                uint16_t x, y[NB_TILE_ROW_BYTES / 2];
                memcpy(&x, &t->data[a][m][4 * k + 2 * half], 2);
                memcpy(y, t->data[b][k], sizeof y);
                float factor = nb_tile_flush(nb_bf16_to_f32(x));
                for (int n = 0; n < dwords; n++)
                    chain[half][n] = nb_tile_flush(fmaf(factor, nb_tile_flush(nb_bf16_to_f32(y[2 * n + half])), chain[half][n]));
            }
        for (int n = 0; n < dwords; n++) {
            float sum;
            memcpy(&sum, &t->data[c][m][4 * n], 4);
            sum = nb_tile_flush(nb_tile_flush(sum) + nb_tile_flush(chain[0][n] + chain[1][n]));
            memcpy(&t->data[c][m][4 * n], &sum, 4);
        }
    }
}

#endif
