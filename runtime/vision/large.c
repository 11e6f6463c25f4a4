/* large.c - large.h by aligned_alloc and madvise. */
#include "runtime/vision/large.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { HUGE = 2 << 20 };

void *nb_large_alloc(size_t bytes)
{
    if (bytes < 2 * HUGE || bytes > SIZE_MAX - HUGE) return malloc(bytes ? bytes : 1);
    bytes = (bytes + HUGE - 1) / HUGE * HUGE;
    void *p = aligned_alloc(HUGE, bytes);
    if (p) (void)madvise(p, bytes, MADV_HUGEPAGE); /* only a wish */
    return p;
}
