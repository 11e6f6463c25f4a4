/* shapes.h - the published sizes, and for each of them every tensor: name, shape, and what its values look like. */
#ifndef NB_SYNTH_SHAPES_H
#define NB_SYNTH_SHAPES_H

#include "kernels/base.h"

typedef struct {
    const char *name; /* "2b" */
    int  hidden, intermediate, layers, heads, kv_heads, vocab, max_positions;
    int  published_layers; /* max_window_layers of config.json, whatever `layers` was changed to */
    int  mrope[3];         /* sum = half of a head */
    bool tied;
    int  v_depth, v_dim, v_heads;
} nb_synth_shape;

enum { NB_SYNTH_SIZES = 4, NB_SYNTH_RANK = 5, NB_SYNTH_NAME = 96 };
/* The same in all sizes. */
enum { NB_SYNTH_PATCH = 14, NB_SYNTH_MERGE = 2, NB_SYNTH_TEMPORAL = 2, NB_SYNTH_CHANNELS = 3, NB_SYNTH_MLP_RATIO = 4 };
extern const nb_synth_shape nb_synth_shapes[NB_SYNTH_SIZES]; /* tiny, 2b, 7b, 72b: the order of --help */

/* Values of a tensor: (mean + std z) gain, z of mean 0 and variance 1.  gain is 1 but for a few rows (elements of a
 * vector), which take one from gain_min to gain_max. */
typedef struct {
    double   mean, std;
    double   outliers;           /* share of the rows with a gain; above 0 it is one row at least */
    double   gain_min, gain_max;
    bool     channels;           /* the same rows in every such tensor of this length: channels of the residual stream */
    uint64_t faint_from;         /* rows from here on are ids without a token; 0: none */
} nb_synth_values;

typedef struct {
    char            name[NB_SYNTH_NAME]; /* canonical, that is the published layout */
    int             rank;
    uint64_t        shape[NB_SYNTH_RANK];
    nb_synth_values values;
} nb_synth_tensor;

/* Call visit for each tensor in the order of a state dict; the first failure ends it.  tokens: ids the tokenizer knows. */
typedef nb_status nb_synth_visit(void *context, const nb_synth_tensor *tensor, nb_error *err);
nb_status         nb_synth_each(const nb_synth_shape *shape, int tokens, nb_synth_visit *visit, void *context, nb_error *err);

#endif
