/* record.h - one prompt through a model with everything that it computes written into a trace.
 *
 * Names, in the order of computation (M counts pictures, B blocks of the tower, L layers, T tokens, R rows whose logits are kept):
 *
 *     input_ids [T] and position_ids [3, T], I32
 *     visual.M.grid_thw [3] I32, visual.M.pixels [patches, 1176], visual.M.patches [patches, dim], visual.M.block.B [patches, dim],
 *         visual.M.rows [patches / 4, hidden]
 *     layer.L.input [T, hidden] (of layer 0: the embedding with the rows of pictures in place), layer.L.q and .k (rotated), .v,
 *         .attention (before o), .attn_out, .mlp_out
 *     final.input, final.norm [R, hidden], logits [R, vocab]
 */
#ifndef NB_TRACE_RECORD_H
#define NB_TRACE_RECORD_H

#include "runtime/engine/engine.h"

typedef struct {
    const int64_t *layers;  /* [layer_count] of the decoder; none: all */
    int            layer_count;
    bool           all_logits, force;
    const char    *model;   /* its directory, for the file's metadata */
} nb_trace_options;

/* *bytes: size of the file. */
nb_status nb_trace_record(nb_engine *e, const nb_prompt *prompt, const nb_trace_options *options, const char *path, uint64_t *bytes,
                          nb_error *err);

#endif
