/* linear.h - one linear layer out of a checkpoint: float, AWQ, GPTQ v1/v2 or compressed-tensors, as plain arrays. */
#ifndef NB_LINEAR_H
#define NB_LINEAR_H

#include "kernels/matrix.h"
#include "runtime/io/checkpoint.h"
#include "runtime/model/config.h"

typedef struct {
    nb_weights weights; /* points into the arrays below */
    void      *data;
    uint32_t  *words;
    uint8_t   *codes, *zeros;
    float     *scales;
    int32_t   *g_idx;
    float     *bias;    /* [n] or NULL */
} nb_linear;

/* Of the schemes that q declares, a matrix has the one that its tensors fit.
 * Read layer `prefix` ("model.layers.0.self_attn.q_proj") with n outputs and k inputs.  Quantised when the checkpoint holds
 * prefix.qweight or prefix.weight_packed, float when it holds prefix.weight; anything else is an error that says what is
 * missing.  bias_wanted: 1 must be there, 0 must not, -1 either. */
nb_status nb_linear_read(nb_linear *out, const nb_checkpoint *c, const nb_quant_config *q, const char *prefix, int n, int k,
                         int bias_wanted, nb_error *err);
/* The same with the codes left as the words of the checkpoint, for who packs them. */
nb_status nb_linear_read_words(nb_linear *out, const nb_checkpoint *c, const nb_quant_config *q, const char *prefix, int n, int k,
                               int bias_wanted, nb_error *err);
/* The bias alone, which must be there. */
nb_status nb_linear_read_bias(nb_linear *out, const nb_checkpoint *c, const char *prefix, int n, nb_error *err);
void      nb_linear_free(nb_linear *l);

#endif
