/* config_json.h - config.json of a synthetic checkpoint. */
#ifndef NB_SYNTH_CONFIG_JSON_H
#define NB_SYNTH_CONFIG_JSON_H

#include "kernels/float.h"
#include "runtime/io/checkpoint.h"
#include "tools/synth/shapes.h"

/* Ids of the embedded tokenizer. */
typedef struct {
    int end_of_text, im_end, vision_start, vision_end, vision_pad, image_pad, video_pad;
    int count; /* the largest id and one */
} nb_synth_ids;

nb_status nb_synth_ids_read(nb_synth_ids *out, nb_error *err);
/* OLD: the form of the published files.  NEW: that of transformers 4.57, with the language model's fields in
 * text_config too. */
nb_status nb_synth_config(nb_buf *out, const nb_synth_shape *shape, const nb_synth_ids *ids, nb_dtype dtype, nb_layout layout,
                          nb_error *err);

#endif
