/* smooth.h - AWQ over one decoder layer: four scale searches, folded into the tensors that feed them. */
#ifndef NB_SMOOTH_H
#define NB_SMOOTH_H

#include "quant/awq.h"
#include "quant/float_layer.h"

/* gram [k, k] and mean_abs [k] of the four sites, taken over the float layer.  Searches all four scales first, then applies
 * them: w, norm and bias of the layer change, and gram becomes that of the scaled inputs, diag(1/s) H diag(1/s).  Norms and
 * biases stay values of their written types.  options: of each site; a site whose grid has no bits stays float and is not scaled.
 * scale: NULL at first, then [k] what the inputs of each site are divided by; the caller frees them, after a failure too. */
nb_status nb_smooth_layer(nb_float_layer *l, const nb_config *config, double *const gram[NB_SITES],
                          const float *const mean_abs[NB_SITES], const nb_awq_options options[NB_SITES], nb_pool *pool,
                          float *scale[NB_SITES], nb_awq_report report[NB_SITES], nb_error *err);

#endif
