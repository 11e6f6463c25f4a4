/* checkpoint_index.h - the shards of a checkpoint, as its index names them. */
#ifndef NB_CHECKPOINT_INDEX_H
#define NB_CHECKPOINT_INDEX_H

#include "runtime/io/safetensors.h"

typedef struct {
    nb_safetensors **file; /* by file name */
    size_t           count;
} nb_shards;

/* Opens every shard that directory/index names and checks that index and shards agree about every tensor.
 * *out must be zeroed; after a failure it may hold some shards.  Close it in either case. */
nb_status nb_shards_open(nb_shards *out, const char *directory, const char *index, nb_error *err);
void      nb_shards_close(nb_shards *s);

#endif
