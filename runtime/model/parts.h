/* parts.h - what the files of this folder share and nobody else sees. */
#ifndef NB_PARTS_H
#define NB_PARTS_H

#include "runtime/model/model.h"

/* A vector of n floats from the checkpoint, in backend memory. */
nb_status nb_vector_load(float **out_d, const nb_model *model, const char *name, int n, nb_error *err);
/* Host floats to new backend memory. */
nb_status nb_vector_upload(float **out_d, const nb_ops *ops, const float *values, size_t n, const char *what, nb_error *err);
/* One linear layer packed on its own, with its bias (NULL: it must not have one). */
nb_status nb_matrix_load(nb_matrix *out, float **bias_d, const nb_model *model, const char *prefix, int n, int k, nb_error *err);

nb_status nb_vision_open(nb_vision **out, nb_model *model, nb_error *err);
void      nb_vision_close(const nb_ops *ops, nb_vision *v);
size_t    nb_vision_bytes(const nb_vision *v);

#endif
