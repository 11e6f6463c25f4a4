/* load.h - matrices from the checkpoint into the backend: a lane reads the next ones while the pool packs this one.
 *
 * What a model holds is written down as a list first, by the files that own the parts, and loaded in one way.
 */
#ifndef NB_LOAD_H
#define NB_LOAD_H

#include "runtime/model/model.h"

enum { NB_LOAD_PARTS = 3, NB_LOAD_NAME = 96 };

typedef struct nb_load nb_load;
/* Reads a part in its own way (NULL: as a linear layer). */
typedef nb_status nb_load_read(nb_linear *out, const nb_model *model, const nb_load *load, int part, nb_error *err);

/* One matrix [sum n, k] of stacked parts. */
struct nb_load {
    nb_matrix *to;
    float    **bias_d; /* of all parts, one behind the other; NULL: they must not have any */
    char       name[NB_LOAD_NAME];
    int        k, parts;
    struct {
        char prefix[NB_LOAD_NAME];
        int  n;
    } part[NB_LOAD_PARTS];
    nb_load_read *read;
};

/* A load of no parts yet; name is that of the whole. */
void nb_load_init(nb_load *l, nb_matrix *to, float **bias_d, int k, const char *name);
void nb_load_part(nb_load *l, const char *prefix, int n);

/* After a failure some of the matrices are loaded; all are for their owner to release.  Adds their sizes to *bytes. */
nb_status nb_load_all(const nb_model *model, const nb_load *list, size_t count, size_t *bytes, nb_error *err);

#endif
