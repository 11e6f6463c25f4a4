/* spool.h - hidden states of a calibration set on disk: what every sample holds before a layer (a generation), written once in
 * order and read back by sample. */
#ifndef NB_SPOOL_H
#define NB_SPOOL_H

#include "kernels/base.h"

typedef struct nb_spool nb_spool;

enum { NB_SPOOL_LEVEL = 3 /* of zstd: 1 .. 19 */, NB_SPOOL_CHUNK = 1 << 18 /* floats compressed together */ };

/* The folder is made when it is missing, and locked; generations that a dead run left in it are removed.  level 0 and chunk 0
 * are the defaults above. */
nb_status nb_spool_new(nb_spool **out, const char *directory, int level, size_t chunk, nb_error *err);
/* Start the next generation: samples are put in their order, and the last complete generation can be read meanwhile. */
nb_status nb_spool_start(nb_spool *s, nb_error *err);
nb_status nb_spool_put(nb_spool *s, const float *values, size_t count, nb_error *err);
/* The generation is on disk and becomes the one that is read; the one before it is removed. */
nb_status nb_spool_finish(nb_spool *s, nb_error *err);
/* The values of a sample, as many as were put.  A chunk that is not what was written is named (NB_ERR_IO). */
nb_status nb_spool_get(nb_spool *s, size_t sample, float *values, size_t count, nb_error *err);
/* Bytes of the last complete generation, and of all that were written. */
uint64_t  nb_spool_bytes(const nb_spool *s);
uint64_t  nb_spool_written(const nb_spool *s);
void      nb_spool_free(nb_spool *s); /* removes what it wrote, and the folder if it made it */

#endif
