/* mix.h - rows of several data sources, each with its share of the number that is wanted.
 *
 * Of `samples` rows, source i gets samples * w_i / (w_1 + ... + w_n): rounded down, and what is left over goes one each to the
 * largest remainders, the earlier source first when they are equal.  A source that runs out of usable rows leaves its
 * shortfall to the others that have rows left, by the same rule.  So the shares of the rows are exact to one row while every
 * source has enough, and the number wanted is reached whenever all of them together have it.  samples 0: every row of
 * every source, whatever the weights.
 *
 * Rows come source by source, in the order given, in the order of the file; a shortfall's rows come after them.  With shuffle,
 * rows are drawn without repetition (splitmix64, partial Fisher-Yates over row numbers) and a row that was not used is
 * replaced by the next one drawn; rows that are held back (nb_data_source.hold) are the last of the file, or of the draw; the first source draws from seed itself, the others from a number made of seed and their place.
 */
#ifndef NB_MIX_H
#define NB_MIX_H

#include "calib/dataset.h"

typedef struct {
    nb_dataset_options dataset;
    size_t   samples; /* rows that are wanted; 0: all */
    size_t   skip;    /* rows passed over at the beginning of each source */
    bool     shuffle;
    bool     held;    /* the last `hold` rows of each source's order alone; otherwise all but these */
    uint64_t seed;
} nb_mix_options;

typedef struct nb_mix nb_mix;

/* sources must outlive the mix.  A weight that is not a number above 0 is refused. */
nb_status nb_mix_open(nb_mix **out, const nb_data_source *sources, size_t count, const nb_mix_options *options, nb_error *err);
void      nb_mix_close(nb_mix *m);
/* The next row to look at and whose it is; *end true when there are enough or there is no more. */
nb_status nb_mix_next(nb_mix *m, nb_chat *chat, char where[256], size_t *source, bool *end, nb_error *err);
/* The row that nb_mix_next gave last was used: it counts towards its source's share.  One that is not (too long) does not. */
void      nb_mix_took(nb_mix *m);
/* After a failed nb_mix_next, as nb_dataset_resume: false when the rest of the source cannot be read, or it was not opened. */
bool      nb_mix_resume(nb_mix *m);
/* The set that the last row came from: for its folder, and its row as messages. */
const nb_dataset *nb_mix_dataset(const nb_mix *m);

/* The shares alone: take[i] of samples for the sources that can give (all of them when able is NULL). */
void      nb_mix_shares(size_t *take, size_t samples, const nb_data_source *sources, const bool *able, size_t count);

#endif
