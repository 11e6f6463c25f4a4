/* synth.h - a checkpoint directory of a published shape with random weights.
 *
 * It is complete: weights, config.json, and the demo's tokenizer, template and processor settings, so that everything
 * that runs on a real checkpoint runs on it; what it answers is noise.  A tensor depends on the seed and its name
 * alone: a model with fewer layers is the beginning of the whole one, and layouts, shards and threads change no value.
 */
#ifndef NB_SYNTH_H
#define NB_SYNTH_H

#include "kernels/float.h"
#include "kernels/threads.h"
#include "runtime/io/checkpoint.h"
#include "tools/synth/shapes.h"

typedef struct {
    nb_synth_shape shape;
    nb_dtype       dtype;      /* F32, BF16, F16 */
    nb_layout      layout;     /* of the tensors' names and of config.json */
    uint64_t       seed, shard_size;
    const char    *out;
    bool           force;      /* replace an existing directory */
    const char    *recipe;     /* text of synth.json, or NULL for none */
} nb_synth_options;

typedef struct {
    size_t   tensors;
    uint64_t parameters, bytes;
} nb_synth_report;

/* Called from the caller's thread after each piece; tensor: the one just written, or NULL.  false stops, and then
 * nothing is left at out. */
typedef bool nb_synth_progress(void *context, uint64_t done, uint64_t total, const char *tensor);

nb_status nb_synth(nb_pool *pool, const nb_synth_options *options, nb_synth_progress *progress, void *context,
                   nb_synth_report *report, nb_error *err);

#endif
