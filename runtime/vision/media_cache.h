/* media_cache.h - fetched media kept on disk, so that a data set of addresses is fetched once and can then be used offline.
 *
 *     DIR/sha256/<SHA-256 of the bytes>    the bytes; two addresses of one picture share it
 *     DIR/address/<SHA-256 of the URL>     "SHA-256 of the bytes, size": which object an address gave
 *
 * Files appear whole or not at all, and what is read is hashed again, so a damaged object is a miss and never a picture.  The
 * objects together stay below a limit: those that were not used for the longest time go first.  Several programs may use
 * one folder at a time.  The cache never fails a fetch: what cannot be kept is simply not kept.
 */
#ifndef NB_MEDIA_CACHE_H
#define NB_MEDIA_CACHE_H

#include "runtime/io/buf.h"

#define NB_MEDIA_CACHE_BYTES ((uint64_t)4 << 30) /* the limit unless another is given */

/* The bytes that this address gave, whole and unchanged, or false.  More than max_bytes counts as not there. */
bool nb_media_cache_get(nb_buf *out, const char *folder, const char *url, size_t max_bytes);
/* Keep them, and remove the oldest objects beyond `limit` bytes (0: the default).  An object larger than the limit is not kept. */
void nb_media_cache_put(const char *folder, uint64_t limit, const char *url, const void *bytes, size_t n);

#endif
