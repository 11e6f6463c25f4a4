/* quant_config.h - the quantization settings of other tools, as suggestions for our flags.
 *
 * Understood: an AutoAWQ dict (w_bit, q_group_size, zero_point, version), a quantize_config.json of AutoGPTQ or GPTQModel, a
 * quantization_config block of compressed-tensors, and a config.json that holds one of them.  A flag that the user gave wins.
 */
#ifndef NB_QUANT_CONFIG_H
#define NB_QUANT_CONFIG_H

#include "tools/cli/args.h"

/* text: a file's path, or JSON itself (begins with '{').  ignored: keys that nothing was made of, ", " between them. */
nb_status nb_quant_config_apply(nb_args *args, const char *text, nb_buf *ignored, nb_error *err);

#endif
