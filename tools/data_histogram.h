/* data_histogram.h - how numbers of a stream are spread, in fixed memory: 16 steps an octave, so a quantile is right to 5 %. */
#ifndef NB_DATA_HISTOGRAM_H
#define NB_DATA_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

enum { NB_HISTOGRAM_STEP = 4, NB_HISTOGRAM_BINS = 64 << NB_HISTOGRAM_STEP };

typedef struct {
    uint64_t bins[NB_HISTOGRAM_BINS];
    uint64_t count, sum, least, most;
} nb_histogram;

/* Numbers below 16 have a bin each; above, the four bits after the leading one choose a step of its octave. */
static inline size_t nb_histogram_bin(uint64_t v)
{
    if (v < 1u << NB_HISTOGRAM_STEP) return (size_t)v;
    unsigned top = 63 - (unsigned)__builtin_clzll(v);
    return ((size_t)(top - NB_HISTOGRAM_STEP + 1) << NB_HISTOGRAM_STEP) + (size_t)(v >> (top - NB_HISTOGRAM_STEP) & 15);
}

/* The largest number of a bin. */
static inline uint64_t nb_histogram_top(size_t bin)
{
    if (bin < 1u << NB_HISTOGRAM_STEP) return bin;
    unsigned octave = (unsigned)(bin >> NB_HISTOGRAM_STEP) - 1;
    return ((16 + (uint64_t)(bin & 15) + 1) << octave) - 1;
}

static inline void nb_histogram_add(nb_histogram *h, uint64_t v)
{
    h->bins[nb_histogram_bin(v)]++;
    if (!h->count || v < h->least) h->least = v;
    if (v > h->most) h->most = v;
    h->count++;
    h->sum += v;
}

/* A number that at least `share` of all are no larger than: the top of its bin, never beyond the largest seen. */
static inline uint64_t nb_histogram_quantile(const nb_histogram *h, double share)
{
    uint64_t want = (uint64_t)(share * (double)h->count + 0.999999), seen = 0;
    for (size_t i = 0; i < NB_HISTOGRAM_BINS; i++) {
        seen += h->bins[i];
        if (seen >= want && seen) return nb_histogram_top(i) < h->most ? nb_histogram_top(i) : h->most;
    }
    return h->most;
}

#endif
