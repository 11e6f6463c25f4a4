/* lora_flag.h - --lora DIR[:SCALE]. */
#ifndef NB_LORA_FLAG_H
#define NB_LORA_FLAG_H

#include "quant/pipeline.h"
#include "tools/cli/args.h"

/* A folder that really has such a name with a colon is one.  *out [texts->count], freed with nb_lora_free also after a failure. */
nb_status nb_lora_parse(nb_lora **out, const nb_strings *texts, nb_error *err);
void      nb_lora_free(nb_lora *loras, int count);

#endif
