/* float_model.h - the float model that is quantized or calibrated: its checkpoint, adapters merged as it is read, no layer loaded. */
#ifndef NB_FLOAT_MODEL_H
#define NB_FLOAT_MODEL_H

#include "quant/pipeline.h"
#include "runtime/io/adapter.h"

typedef struct {
    nb_model    *model;
    nb_adapters *adapters; /* whose edits the model's checkpoint has; NULL: none */
} nb_float_model;

/* A quantized checkpoint is refused.  merged: a line for each adapter; notes: what opening has to say. */
nb_status nb_float_model_open(nb_float_model *out, const nb_ops *ops, const char *directory, const nb_lora *loras, size_t lora_count,
                         nb_buf *merged, nb_buf *notes, nb_error *err);
void      nb_float_model_close(nb_float_model *s); /* a zeroed or half-open one is fine */

#endif
