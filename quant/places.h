/* places.h - where a result may be made. */
#ifndef NB_PLACES_H
#define NB_PLACES_H

#include "kernels/base.h"

/* Refuses an output that is the model itself, or that is written where the model stands. */
nb_status nb_places_check(const char *model_dir, const char *out_dir, nb_error *err);

#endif
