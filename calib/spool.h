/* spool.h - hidden states of a calibration set on disk: what every sample holds before a layer (a generation), written once in
 * order and read back by sample.
 *
 * A spool dies with the process that made it, unless nb_spool_keep was called: then its owner writes down the mark of a generation
 * (journal.h) and a later process finds that generation again, whole or not at all. */
#ifndef NB_SPOOL_H
#define NB_SPOOL_H

#include "runtime/io/buf.h"

typedef struct nb_spool nb_spool;

/* What identifies a generation that is on disk, every bit of it. */
typedef struct {
    uint64_t generation, bytes, samples;
    uint64_t chunk; /* floats compressed together */
    uint64_t hash;  /* of all chunks */
} nb_spool_mark;

enum { NB_SPOOL_FORMAT = 2 /* of the files; 1 could not be found again */ };
enum { NB_SPOOL_LEVEL = 3 /* of zstd: 1 .. 19 */, NB_SPOOL_CHUNK = 1 << 18 /* floats compressed together */ };

/* The folder is made when it is missing, and locked; generations that a dead run left in it are removed.  level 0 and chunk 0
 * are the defaults above. */
nb_status nb_spool_new(nb_spool **out, const char *directory, int level, size_t chunk, nb_error *err);
/* The same, but the marked generation stays and can be read, if all of it is as it was written; otherwise *why (a sentence) says
 * what is wrong with it, and it is removed like the others.  nb_spool_samples then gives 0. */
nb_status nb_spool_recover(nb_spool **out, const char *directory, int level, size_t chunk, const nb_spool_mark *mark, nb_buf *why,
                           nb_error *err);
/* Start the next generation: samples are put in their order, and the last complete generation can be read meanwhile. */
nb_status nb_spool_start(nb_spool *s, nb_error *err);
nb_status nb_spool_put(nb_spool *s, const float *values, size_t count, nb_error *err);
/* The generation is on disk and becomes the one that is read; the one before it is removed, or, in a spool that is kept, by
 * nb_spool_settle. */
nb_status nb_spool_finish(nb_spool *s, nb_error *err);
/* From here on a generation outlives its successor until nb_spool_settle, and complete generations outlive the spool. */
void          nb_spool_keep(nb_spool *s);
void          nb_spool_settle(nb_spool *s);  /* the mark of the last generation is written down: the one before it can go */
void          nb_spool_discard(nb_spool *s); /* nothing is to outlive the spool after all */
nb_spool_mark nb_spool_marked(const nb_spool *s);                /* of the last complete generation */
size_t        nb_spool_samples(const nb_spool *s);               /* in it; 0 without one */
size_t        nb_spool_values(const nb_spool *s, size_t sample); /* floats of a sample of it */
/* The values of a sample, as many as were put.  A chunk that is not what was written is named (NB_ERR_IO). */
nb_status nb_spool_get(nb_spool *s, size_t sample, float *values, size_t count, nb_error *err);
/* Bytes of the last complete generation, and of all that were written. */
uint64_t  nb_spool_bytes(const nb_spool *s);
uint64_t  nb_spool_written(const nb_spool *s);
void      nb_spool_free(nb_spool *s); /* removes what it wrote, and the folder if it made it */

#endif
