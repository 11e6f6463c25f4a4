/* resize_body.h - the two passes of resize.h in plain C whose loops of constant length the compiler turns into vectors; compiled once
 * per level.
 *
 * Along rows the places have windows of their own, so DEEP rows are worked on side by side: their pixels are turned into
 * [pixel, channel][DEEP rows], a stretch of at most STRETCH pixels at a time, and what comes out is turned back.
 */
#ifndef NB_RESIZE_BODY_H
#define NB_RESIZE_BODY_H

#include "kernels/resize.h"

enum { DEEP = 16, STRETCH = 256, BLOCK = 48, HALF = 1 << (NB_RESIZE_FRACTION - 1) };

static inline uint8_t clip(int32_t sum)
{
    int32_t v = sum >> NB_RESIZE_FRACTION;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

/* Places begin .. end-1 of one row. */
static void places(uint8_t *to, const uint8_t *from, const nb_axis *a, int begin, int end)
{
    for (int x = begin; x < end; x++) {
        const int32_t *w = a->weight + (size_t)x * a->taps;
        const uint8_t *p = from + (size_t)a->first[x] * 3;
        int32_t        r = HALF, g = r, b = r;
        for (int j = 0; j < a->count[x]; j++, p += 3) {
            r += w[j] * p[0];
            g += w[j] * p[1];
            b += w[j] * p[2];
        }
        to[3 * x] = clip(r), to[3 * x + 1] = clip(g), to[3 * x + 2] = clip(b);
    }
}

/* One place of DEEP rows. */
static inline void deep_place(uint8_t (*to)[DEEP], const uint8_t (*from)[DEEP], const int32_t *w, int count)
{
    int32_t r[DEEP], g[DEEP], b[DEEP];
    for (int i = 0; i < DEEP; i++) r[i] = g[i] = b[i] = HALF;
    for (int j = 0; j < count; j++, from += 3) {
        for (int i = 0; i < DEEP; i++) r[i] += w[j] * from[0][i];
        for (int i = 0; i < DEEP; i++) g[i] += w[j] * from[1][i];
        for (int i = 0; i < DEEP; i++) b[i] += w[j] * from[2][i];
    }
    for (int i = 0; i < DEEP; i++) to[0][i] = clip(r[i]);
    for (int i = 0; i < DEEP; i++) to[1][i] = clip(g[i]);
    for (int i = 0; i < DEEP; i++) to[2][i] = clip(b[i]);
}

/* As many places from begin on as read at most STRETCH pixels and are at most STRETCH: where they end. */
static int stretch_of(const nb_axis *a, int begin)
{
    int end = begin;
    while (end < a->out && end - begin < STRETCH && a->first[end] + a->count[end] - a->first[begin] <= STRETCH) end++;
    return end;
}

static void deep_rows(uint8_t *to, const uint8_t *from, size_t in, const nb_axis *a)
{
    uint8_t pixels[3 * STRETCH][DEEP], made[3 * STRETCH][DEEP];
    size_t  out = 3 * (size_t)a->out;
    for (int begin = 0, end; begin < a->out; begin = end) {
        end = stretch_of(a, begin);
        if (end == begin) { /* a window is longer than a stretch */
            end = begin + 1;
            for (int r = 0; r < DEEP; r++) places(to + (size_t)r * out, from + (size_t)r * 3 * in, a, begin, end);
            continue;
        }
        size_t first = 3 * (size_t)a->first[begin], n = 3 * (size_t)(a->first[end - 1] + a->count[end - 1]) - first;
        for (size_t r = 0; r < DEEP; r++)
            for (size_t i = 0; i < n; i++) pixels[i][r] = from[r * 3 * in + first + i];
        for (int x = begin; x < end; x++)
            deep_place(made + 3 * (x - begin), (const uint8_t(*)[DEEP])(pixels + 3 * (size_t)a->first[x] - first),
                       a->weight + (size_t)x * a->taps, a->count[x]);
        n = 3 * (size_t)(end - begin);
        for (size_t r = 0; r < DEEP; r++)
            for (size_t i = 0; i < n; i++) to[r * out + 3 * (size_t)begin + i] = made[i][r];
    }
}

static void resize_rows(uint8_t *to, const uint8_t *from, size_t rows, size_t in, const nb_axis *a)
{
    for (; rows >= DEEP; rows -= DEEP, to += (size_t)DEEP * 3 * a->out, from += DEEP * 3 * in) deep_rows(to, from, in, a);
    for (; rows > 0; rows--, to += 3 * (size_t)a->out, from += 3 * in) places(to, from, a, 0, a->out);
}

/* A block of columns stays in registers for all rows of its window. */
static void resize_columns(uint8_t *to, const uint8_t *from, size_t line, const nb_axis *a)
{
    for (int y = 0; y < a->out; y++, to += line) {
        const int32_t *w = a->weight + (size_t)y * a->taps;
        const uint8_t *top = from + (size_t)a->first[y] * line;
        size_t         x = 0;
        for (; x + BLOCK <= line; x += BLOCK) {
            int32_t sum[BLOCK];
            for (int i = 0; i < BLOCK; i++) sum[i] = HALF;
            for (int j = 0; j < a->count[y]; j++) {
                const uint8_t *p = top + (size_t)j * line + x;
                for (int i = 0; i < BLOCK; i++) sum[i] += w[j] * p[i];
            }
            for (int i = 0; i < BLOCK; i++) to[x + i] = clip(sum[i]);
        }
        for (; x < line; x++) {
            int32_t sum = HALF;
            for (int j = 0; j < a->count[y]; j++) sum += w[j] * top[(size_t)j * line + x];
            to[x] = clip(sum);
        }
    }
}

#endif
