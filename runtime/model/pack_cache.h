/* pack_cache.h - the packed matrices of a checkpoint in a file, which the next start maps instead of packing them again.
 *
 * The file belongs to one checkpoint and one layout (nb_ops.layout).  Processes that map the same file share its pages.  What
 * a file holds is checked before it is used, every byte of it, by hashes and by the backend; one that does not fit is named in
 * `notes` and written anew.  Only a file that is no pack cache at all is refused, so that a slip does not cost a checkpoint.
 *
 *     offset  bytes
 *          0   4096  header: sizes, layout, identity of the checkpoint, hashes (pack_cache.c has the fields)
 *       4096      M  entries, then the small tables that they point to
 *        ...         numbers of each matrix, from a multiple of 4096 on
 *
 * A file is replaced by rename and never written in place: a process that has mapped it goes on with the old one.  Whoever cuts
 * it short in place, while it is mapped, stops the processes that use it (SIGBUS).
 */
#ifndef NB_PACK_CACHE_H
#define NB_PACK_CACHE_H

#include "runtime/model/model.h"

/* path: the file, which need not be there, or a folder, in which each checkpoint and layout has a file of its own.  *out is empty
 * when there is no file that fits. */
nb_status nb_pack_cache_open(nb_pack_cache **out, const char *path, const nb_checkpoint *checkpoint, const nb_ops *ops, nb_buf *notes,
                             nb_error *err);
/* Whether the file has this matrix [n, k].  Any thread. */
bool      nb_pack_cache_has(const nb_pack_cache *c, const char *name, int n, int k);
/* That matrix, which it must have, over the mapped bytes: release it before the cache is closed. */
void      nb_pack_cache_take(nb_pack_cache *c, const char *name, int n, int k, nb_matrix *out);
/* Every matrix that is loaded, taken or packed, for nb_pack_cache_save; it and its name stay where they are until then. */
nb_status nb_pack_cache_note(nb_pack_cache *c, const char *name, const nb_matrix *m, nb_error *err);
/* Write the file when a matrix was not in it.  That it cannot be written is said in `notes`. */
void      nb_pack_cache_save(nb_pack_cache *c, nb_buf *notes);
void      nb_pack_cache_close(nb_pack_cache *c); /* NULL is fine */

#endif
