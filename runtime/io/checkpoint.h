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

typedef struct nb_entry nb_entry;

/* Changes what is read of a tensor.  values [rows, row] are its rows first .. first + rows as f32; afterwards they are rounded
 * once to the tensor's type, so that every reader sees the same. */
typedef nb_status nb_edit(void *context, const nb_entry *e, uint64_t first, uint64_t rows, float *values, nb_error *err);

struct nb_entry {
    const char           *name; /* canonical */
    const nb_tensor      *tensor;
    const nb_safetensors *file;
    nb_edit              *edit; /* NULL: the values are those of the file */
    void                 *edit_context;
};

typedef struct nb_checkpoint nb_checkpoint;

/* Opens and validates all headers; checks the index against the shards (missing files, tensors in the wrong shard, path
 * tricks).  Weights are not read. */
nb_status       nb_checkpoint_open(nb_checkpoint **out, const char *directory, nb_error *err);
/* The same for whoever is writing it: a name that ends with .partial is no error, and tensors may not be there yet. */
nb_status       nb_checkpoint_open_unfinished(nb_checkpoint **out, const char *directory, nb_error *err);
void            nb_checkpoint_close(nb_checkpoint *c);
const char     *nb_checkpoint_path(const nb_checkpoint *c);
nb_layout       nb_checkpoint_layout(const nb_checkpoint *c);
size_t          nb_checkpoint_count(const nb_checkpoint *c);
const nb_entry *nb_checkpoint_at(const nb_checkpoint *c, size_t i); /* sorted by canonical name */
const nb_entry *nb_checkpoint_find(const nb_checkpoint *c, const char *canonical);
size_t          nb_checkpoint_shards(const nb_checkpoint *c);
const nb_safetensors *nb_checkpoint_shard(const nb_checkpoint *c, size_t i);

/* The canonical form of a name that a file gave a tensor; false when it does not fit into out [n]. */
bool            nb_checkpoint_canonical(char *out, size_t n, const char *name);
/* Let fn edit a float tensor whenever it is read from now on; it replaces an earlier edit. */
nb_status       nb_checkpoint_edit(nb_checkpoint *c, const char *canonical, nb_edit *fn, void *context, nb_error *err);

/* The entry must exist with this shape; the error names file, tensor, expected and found. rank <= 5. */
nb_status nb_checkpoint_get(const nb_checkpoint *c, const char *canonical, int rank, const uint64_t *shape, const nb_entry **out,
                            nb_error *err);
/* A row is what one step of the first dimension holds; a vector has rows of one element. */
uint64_t        nb_entry_rows(const nb_entry *e);
uint64_t        nb_entry_row_size(const nb_entry *e); /* elements */

/* Raw bytes of the whole tensor, malloc'd. */
nb_status nb_entry_read(const nb_entry *e, void **out, nb_error *err);
/* Ask the system to have the bytes at hand soon; it may sleep, and it cannot fail. */
void      nb_entry_read_ahead(const nb_entry *e);
/* All elements of a float tensor (F32, BF16, F16) as f32 into dst[count]. */
nb_status nb_entry_read_f32(const nb_entry *e, float *dst, nb_error *err);
/* The same for rows first .. first + rows, which must exist; dst [rows, row]. */
nb_status nb_entry_read_rows_f32(const nb_entry *e, uint64_t first, uint64_t rows, float *dst, nb_error *err);

#endif
