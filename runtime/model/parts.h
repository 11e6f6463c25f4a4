/* parts.h - what the files of this folder share and nobody else sees. */
#ifndef NB_PARTS_H
#define NB_PARTS_H

#include "runtime/model/load.h"

/* A vector of n floats from the checkpoint, in backend memory. */
nb_status nb_vector_load(float **out_d, const nb_model *model, const char *name, int n, nb_error *err);
/* Host floats to new backend memory. */
nb_status nb_vector_upload(float **out_d, const nb_ops *ops, const float *values, size_t n, const char *what, nb_error *err);
/* The tower without its matrices: what is left zeroed is loaded by the nb_vision_loads(config) loads that nb_vision_list writes. */
nb_status nb_vision_new(nb_vision **out, nb_model *model, nb_error *err);
size_t    nb_vision_loads(const nb_config *config);
void      nb_vision_list(nb_vision *v, const nb_config *config, nb_load *out);
void      nb_vision_close(const nb_ops *ops, nb_vision *v);

/* The same for a decoder layer; nb_layer_vectors loads its norms. */
enum { NB_LAYER_LOADS = 4 };
nb_status nb_layer_vectors(nb_layer *out, const nb_model *model, int layer, nb_error *err);
void      nb_layer_list(nb_layer *out, const nb_config *config, int layer, nb_load list[NB_LAYER_LOADS]);

#endif
