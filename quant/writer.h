/* writer.h - a checkpoint directory that is complete or absent: built in OUT.partial/, renamed last. */
#ifndef NB_WRITER_H
#define NB_WRITER_H

#include "kernels/float.h"
#include "runtime/io/checkpoint.h"

typedef struct nb_writer nb_writer;

/* Refuses an existing OUT unless force (then it is replaced at the end), and an unwritable parent.  A stale OUT.partial/ of
 * a dead run is cleared.  shard_size in bytes. */
nb_status nb_writer_new(nb_writer **out, const char *directory, uint64_t shard_size, bool force, nb_error *err);
/* The same, but what a dead run left in OUT.partial/ stays where it fits the plan: shards of the same layout. */
nb_status nb_writer_resume(nb_writer **out, const char *directory, uint64_t shard_size, bool force, nb_error *err);
/* Before anything is announced: how names are spelled in the files.  Callers use canonical names (checkpoint.h) throughout. */
void      nb_writer_layout(nb_writer *w, nb_layout layout);
/* Instead of announcing tensors: the folder holds side files alone, which nb_writer_partial's caller may write, too. */
void      nb_writer_no_tensors(nb_writer *w);
/* Announce every tensor first (name, dtype, shape): the shards and headers are planned from this. */
nb_status nb_writer_declare(nb_writer *w, const char *name, nb_dtype dtype, int rank, const uint64_t *shape, nb_error *err);
nb_status nb_writer_plan(nb_writer *w, nb_error *err); /* after the last declare; checks free disk space */
/* Then write each once, in any order; bytes must match the declared size. */
nb_status nb_writer_tensor(nb_writer *w, const char *name, const void *data, uint64_t bytes, nb_error *err);
/* ... or in pieces, each behind the last one of its tensor. */
nb_status nb_writer_append(nb_writer *w, const char *name, const void *data, uint64_t bytes, nb_error *err);
nb_status nb_writer_file(nb_writer *w, const char *name, const void *data, size_t bytes, nb_error *err);  /* side file */
nb_status nb_writer_copy(nb_writer *w, const char *from_directory, const char *name, nb_error *err);
/* Bring to disk what was written, then hash (xxHash64) the bytes there of all tensors whose names begin so, in order of names. */
nb_status nb_writer_hash(nb_writer *w, const char *prefix, uint64_t *bytes, uint64_t *hash, nb_error *err);
void      nb_writer_take(nb_writer *w, const char *prefix); /* they are whole as they stand */
const char *nb_writer_partial(const nb_writer *w);          /* the folder; opens as a checkpoint once planned */
void      nb_writer_keep(nb_writer *w);                     /* nb_writer_free leaves it */
uint64_t  nb_writer_bytes(const nb_writer *w); /* tensor bytes */
/* All tensors must have been written.  fsyncs everything, writes the index, renames. */
nb_status nb_writer_commit(nb_writer *w, nb_error *err);
void      nb_writer_free(nb_writer *w); /* without a commit: removes OUT.partial/ */

#endif
