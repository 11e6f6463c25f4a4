/* checkpoint.h - a checkpoint directory: one model.safetensors or shards with an index, tensor names of either layout.
 *
 * Names are canonical inside nibble, whatever the files say: `model.layers.N.*`, `model.embed_tokens.weight`,
 * `model.norm.weight`, `visual.*`, `lm_head.weight` (the published layout).  Files with `model.language_model.*` and
 * `model.visual.*` are mapped on opening; two tensors that map to one name are an error.
 */
#ifndef NB_CHECKPOINT_H
#define NB_CHECKPOINT_H

#include "runtime/io/safetensors.h"

typedef enum { NB_LAYOUT_OLD, NB_LAYOUT_NEW } nb_layout;

typedef struct {
    const char           *name; /* canonical */
    const nb_tensor      *tensor;
    const nb_safetensors *file;
} nb_entry;

typedef struct nb_checkpoint nb_checkpoint;

/* Opens and validates all headers; checks the index against the shards (missing files, tensors in the wrong shard, path
 * tricks).  Weights are not read. */
nb_status       nb_checkpoint_open(nb_checkpoint **out, const char *directory, nb_error *err);
void            nb_checkpoint_close(nb_checkpoint *c);
const char     *nb_checkpoint_path(const nb_checkpoint *c);
nb_layout       nb_checkpoint_layout(const nb_checkpoint *c);
size_t          nb_checkpoint_count(const nb_checkpoint *c);
const nb_entry *nb_checkpoint_at(const nb_checkpoint *c, size_t i); /* sorted by canonical name */
const nb_entry *nb_checkpoint_find(const nb_checkpoint *c, const char *canonical);
size_t          nb_checkpoint_shards(const nb_checkpoint *c);
const nb_safetensors *nb_checkpoint_shard(const nb_checkpoint *c, size_t i);

/* The entry must exist with this shape; the error names file, tensor, expected and found. rank <= 5. */
nb_status nb_checkpoint_get(const nb_checkpoint *c, const char *canonical, int rank, const uint64_t *shape, const nb_entry **out,
                            nb_error *err);
/* Raw bytes of the whole tensor, malloc'd. */
nb_status nb_entry_read(const nb_entry *e, void **out, nb_error *err);
/* All elements of a float tensor (F32, BF16, F16) as f32 into dst[count]. */
nb_status nb_entry_read_f32(const nb_entry *e, float *dst, nb_error *err);

#endif
