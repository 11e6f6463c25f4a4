/* modality.h - how much rounding hurts the tokens of each modality, measured, as weights for calibration (--modality-weights auto). */
#ifndef NB_MODALITY_H
#define NB_MODALITY_H

#include "quant/float_model.h"

enum { NB_MODALITY_SAMPLES = 8 /* conversations that are measured, at most */ };

typedef struct {
    float    weights[NB_MODALITIES]; /* the mean over the measured tokens is 1; a modality without tokens has 1 */
    double   error[NB_MODALITIES];   /* r below; NaN without tokens */
    uint64_t tokens[NB_MODALITIES];
} nb_modality_report;

/* For modality m, the relative output error of round-to-nearest on `grid`, averaged over the layers' four input sites s:
 *
 *     r_m = mean_s ( sum_{t in m} |dW_s x_t|^2 / sum_{t in m} |W_s x_t|^2 ),   dW = W - Q(W),   weights ~ r_m
 *
 * x_t are the inputs in the float model.  data: as for a quantization; of its samples the first NB_MODALITY_SAMPLES are used. */
nb_status nb_modality_measure(nb_modality_report *out, const nb_ops *ops, const char *model_dir, const nb_lora *loras, size_t lora_count,
                              const nb_samples_options *data, const nb_grid *grid, nb_error *err);

#endif
