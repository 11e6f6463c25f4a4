/* writer.h - a checkpoint directory that is complete or absent: built in OUT.partial/, renamed last. */
#ifndef NB_WRITER_H
#define NB_WRITER_H

#include "kernels/float.h"
#include "runtime/io/json.h"

typedef struct nb_writer nb_writer;

/* Refuses an existing OUT unless force (then it is replaced at the end), and an unwritable parent.  A stale OUT.partial/ of
 * a dead run is cleared.  shard_size in bytes. */
nb_status nb_writer_new(nb_writer **out, const char *directory, uint64_t shard_size, bool force, nb_error *err);
/* Announce every tensor first (name, dtype, shape): the shards and headers are planned from this. */
nb_status nb_writer_declare(nb_writer *w, const char *name, nb_dtype dtype, int rank, const uint64_t *shape, nb_error *err);
nb_status nb_writer_plan(nb_writer *w, nb_error *err); /* after the last declare; checks free disk space */
/* Then write each once, in any order; bytes must match the declared size. */
nb_status nb_writer_tensor(nb_writer *w, const char *name, const void *data, uint64_t bytes, nb_error *err);
/* ... or in pieces, each behind the last one of its tensor. */
nb_status nb_writer_append(nb_writer *w, const char *name, const void *data, uint64_t bytes, nb_error *err);
nb_status nb_writer_file(nb_writer *w, const char *name, const void *data, size_t bytes, nb_error *err);  /* side file */
nb_status nb_writer_copy(nb_writer *w, const char *from_directory, const char *name, nb_error *err);
uint64_t  nb_writer_bytes(const nb_writer *w); /* tensor bytes */
/* All tensors must have been written.  fsyncs everything, writes the index, renames. */
nb_status nb_writer_commit(nb_writer *w, nb_error *err);
void      nb_writer_free(nb_writer *w); /* without a commit: removes OUT.partial/ */

#endif
