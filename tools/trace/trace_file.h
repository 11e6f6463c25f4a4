/* trace_file.h - the tensors of one run, written as they are made into one safetensors file.
 *
 * All shapes are known before the run (they follow from the prompt), so the header is written first and each piece goes to its
 * place; nothing is kept in memory.  The file gets its name when it is complete. */
#ifndef NB_TRACE_FILE_H
#define NB_TRACE_FILE_H

#include "kernels/float.h"
#include "runtime/io/buf.h"

typedef struct nb_trace_file nb_trace_file;

/* force: replace a file that is there. */
nb_status nb_trace_file_new(nb_trace_file **out, const char *path, bool force, nb_error *err);
/* F32 or I32; rank 1 to 3.  In the order in which they are computed. */
nb_status nb_trace_file_declare(nb_trace_file *f, const char *name, nb_dtype dtype, int rank, const uint64_t *shape, nb_error *err);
/* After the last declare: pairs of __metadata__, then the header is on disk. */
nb_status nb_trace_file_begin(nb_trace_file *f, const char *const (*metadata)[2], size_t pairs, nb_error *err);
uint64_t  nb_trace_file_bytes(const nb_trace_file *f); /* of the whole file, known after begin */
/* The next bytes of a tensor, from host memory.  A name that was not declared is left out: *taken tells (may be NULL). */
nb_status nb_trace_file_add(nb_trace_file *f, const char *name, const void *data, uint64_t bytes, bool *taken, nb_error *err);
bool      nb_trace_file_has(const nb_trace_file *f, const char *name);
/* Every declared tensor must be whole. */
nb_status nb_trace_file_commit(nb_trace_file *f, nb_error *err);
void      nb_trace_file_free(nb_trace_file *f); /* without a commit nothing is left */

#endif
