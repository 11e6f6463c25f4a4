/* target.h - bits of every site chosen for a size, a number of bits a weight or a divergence that was asked for. */
#ifndef NB_TARGET_H
#define NB_TARGET_H

#include "quant/layer_job.h"

bool nb_target_wanted(const nb_quantize_options *options);
/* Conversations that the pass looks at, at most. */
enum { NB_TARGET_SAMPLES = 16 };

/* Runs some of the data through the float model (and, for a divergence, through a rounded one beside it), measures what each site's
 * bits cost, and raises picks of job->choice that no rule has fixed.  Before anything is announced to the writer. */
nb_status nb_target_settle(nb_job *job, nb_error *err);

#endif
