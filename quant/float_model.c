/* float_model.c - opening a float model for work on its layers. */
#include "quant/float_model.h"

#include <string.h>

/* From here on the checkpoint reads as if it had been merged. */
static nb_status merge_adapters(nb_float_model *s, nb_checkpoint *checkpoint, const char *directory, const nb_lora *loras, size_t count,
                                nb_buf *merged, nb_buf *notes, nb_error *err)
{
    nb_config config;
    nb_buf    again = {0}; /* notes that opening the model makes too */
    if (count == 0) return NB_OK;
    nb_status status = nb_config_open(&config, directory, &again, err);
    nb_buf_free(&again);
    if (!status) status = nb_adapters_new(&s->adapters, checkpoint, config.tied, err);
    for (size_t i = 0; i < count && !status; i++)
        status = nb_adapters_add(s->adapters, loras[i].directory, loras[i].scale, merged, notes, err);
    return status ? status : nb_buf_status(merged, "the report", err);
}

static nb_status open_source(nb_float_model *s, const nb_ops *ops, const char *directory, const nb_lora *loras, size_t count, nb_buf *merged,
                             nb_buf *notes, nb_error *err)
{
    nb_checkpoint *checkpoint;
    NB_TRY(nb_checkpoint_open(&checkpoint, directory, err));
    nb_status status = merge_adapters(s, checkpoint, directory, loras, count, merged, notes, err);
    if (status) {
        nb_checkpoint_close(checkpoint);
        return status;
    }
    NB_TRY(nb_model_open_checkpoint(&s->model, checkpoint, ops, NB_OPEN_NO_LAYERS | NB_OPEN_NO_HEAD, err));
    const nb_config *c = &s->model->config;
    if (c->quant.method != NB_QUANT_NONE)
        return nb_fail(err, NB_ERR_INPUT, "%s: is already quantized (%s, %d bits); give the float checkpoint it was made from", directory,
                       c->quant.method == NB_QUANT_AWQ ? "awq" : c->quant.method == NB_QUANT_GPTQ ? "gptq" : "compressed-tensors", c->quant.bits);
    nb_buf_add(notes, s->model->notes.data, s->model->notes.size);
    return NB_OK;
}

nb_status nb_float_model_open(nb_float_model *out, const nb_ops *ops, const char *directory, const nb_lora *loras, size_t lora_count,
                         nb_buf *merged, nb_buf *notes, nb_error *err)
{
    memset(out, 0, sizeof *out);
    return open_source(out, ops, directory, loras, lora_count, merged, notes, err);
}

void nb_float_model_close(nb_float_model *s)
{
    nb_model_close(s->model);
    nb_adapters_free(s->adapters);
    memset(s, 0, sizeof *s);
}
