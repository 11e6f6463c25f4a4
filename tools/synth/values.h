/* values.h - random weights as a function of (seed, tensor, place): any part of any tensor can be made alone, on any
 * thread, and has the same bytes. */
#ifndef NB_SYNTH_VALUES_H
#define NB_SYNTH_VALUES_H

#include "kernels/float.h"
#include "tools/synth/shapes.h"

enum { NB_SYNTH_QUANTILES = 1 << 13, NB_SYNTH_OUTLIERS = 512 };

/* What all tensors of a run share.  Large: allocate it. */
typedef struct {
    uint64_t seed;
    nb_dtype dtype;
    float    quantile[NB_SYNTH_QUANTILES]; /* ascending, mean 0, variance 1 */
} nb_synth_source;

/* What one tensor needs. */
typedef struct {
    const nb_synth_source *source;
    nb_synth_values        values;
    uint64_t               key;
    uint64_t               count, row;       /* elements in all, and of a row (1 in a vector) */
    size_t                 size;             /* bytes of an element */
    uint64_t               faint;            /* first element of the faint rows; count when there are none */
    size_t                 outliers;
    uint64_t               outlier[NB_SYNTH_OUTLIERS]; /* rows; one that occurs twice has the later gain */
    float                  gain[NB_SYNTH_OUTLIERS];
    /* mean + std z in the dtype, for ordinary and for faint rows */
    _Alignas(64) unsigned char table[2][NB_SYNTH_QUANTILES * 4];
} nb_synth_generator;

void nb_synth_source_init(nb_synth_source *source, uint64_t seed, nb_dtype dtype); /* F32, BF16 or F16 */
void nb_synth_generator_init(nb_synth_generator *g, const nb_synth_source *source, const nb_synth_tensor *tensor);
/* Elements first .. first + n - 1 in the source's dtype. */
void nb_synth_fill(const nb_synth_generator *g, uint64_t first, size_t n, void *dst);

#endif
