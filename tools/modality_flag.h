/* modality_flag.h - --modality-weights: "1:0.5:0.5", "text=1,image=0.5" or "auto". */
#ifndef NB_MODALITY_FLAG_H
#define NB_MODALITY_FLAG_H

#include "quant/modality.h"

#define NB_MODALITY_HELP "weight of a text, picture and video token in the statistics, as numbers in this order (V is I when left out) or " \
                         "as text=1,image=0.5; auto measures how much rounding hurts each"

/* T:I[:V], or names with '=' (those left out weigh 1), or auto: *automatic, and the weights are 1. */
nb_status nb_modality_parse(float out[NB_MODALITIES], bool *automatic, const char *text, nb_error *err);
/* The weights in the first form. */
void      nb_modality_text(char out[64], const float weights[NB_MODALITIES]);
/* What auto stands for, measured; told to the user.  The same on all ranks. */
nb_status nb_modality_auto(float out[NB_MODALITIES], const nb_ops *ops, const char *model_dir, const nb_lora *loras, size_t lora_count,
                           const nb_samples_options *data, const nb_grid *grid, nb_error *err);

#endif
