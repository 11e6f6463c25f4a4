/* config_out.h - the small files of a quantised checkpoint: config.json with its quantization_config, and what is copied. */
#ifndef NB_CONFIG_OUT_H
#define NB_CONFIG_OUT_H

#include "quant/pipeline.h"
#include "quant/writer.h"

/* Edits the source's config.json (everything else in it is kept), adds quantize_config.json for GPTQ and recipe.json, and
 * copies tokenizer, processor, template and generation settings.  f16: float tensors were written as float16. */
nb_status nb_config_out(nb_writer *w, const nb_quantize_options *options, bool f16, nb_error *err);

#endif
