/* reader.h - the bytes of a data file from first to last, unpacked on the way when they are compressed.
 *
 * gzip (several members one after the other too) and zstd (frames) are told by their first bytes, never by a name.  Memory
 * is bounded whatever the file claims: gzip needs 32 KiB, and a zstd window of more than 128 MiB is refused.  How much a
 * file unpacks to is not limited here; who keeps what was read limits that.
 */
#ifndef NB_READER_H
#define NB_READER_H

#include "kernels/base.h"

typedef struct nb_reader nb_reader;

/* Regular files only.  An empty file is a plain one. */
nb_status   nb_reader_open(nb_reader **out, const char *path, nb_error *err);
/* The same for bytes in memory, which must outlive the reader; name is for messages. */
nb_status   nb_reader_open_bytes(nb_reader **out, const char *name, const void *bytes, size_t n, nb_error *err);
/* Up to n bytes; *got is 0 only at the end.  A compressed file that is cut short or damaged is NB_ERR_INPUT.  A failure is
 * final. */
nb_status   nb_reader_read(nb_reader *r, void *dst, size_t n, size_t *got, nb_error *err);
bool        nb_reader_broken(const nb_reader *r);
void        nb_reader_close(nb_reader *r);

/* How far the file itself was read, and its size: for progress. */
uint64_t    nb_reader_offset(const nb_reader *r);
uint64_t    nb_reader_size(const nb_reader *r);
const char *nb_reader_packing(const nb_reader *r); /* "gzip", "zstd", or NULL */

#endif
