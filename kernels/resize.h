/* resize.h - weighted windows of 8-bit RGB pixels along one axis, in integers: the two passes of a resize, on the calling thread.
 *
 * Output place i is clip((2^21 + sum_j weight[i taps + j] pixel[first[i] + j]) >> 22), j < count[i], for each channel; clip is to
 * 0..255.  The sum must fit 32 bits with a sign: the absolute weights of a place sum to less than 2^31 / 255 - 2^21 / 255.
 * Integers: every level gives the same bytes. */
#ifndef NB_RESIZE_H
#define NB_RESIZE_H

#include "kernels/ops.h"

enum { NB_RESIZE_FRACTION = 22 };

typedef struct {
    int      out, taps;     /* places; weights kept for each */
    int     *first, *count; /* [out]: places are in ascending order, first[i] <= first[i + 1] and so are their ends; count[i] <= taps */
    int32_t *weight;        /* [out, taps] */
} nb_axis;

typedef struct {
    /* [rows, in, 3] to [rows, a->out, 3] */
    void (*rows)(uint8_t *to, const uint8_t *from, size_t rows, size_t in, const nb_axis *a);
    /* [in, line] to [a->out, line], line in bytes */
    void (*columns)(uint8_t *to, const uint8_t *from, size_t line, const nb_axis *a);
} nb_resize;

/* For the level; it lives forever. */
const nb_resize *nb_resize_of(nb_isa isa);

#endif
