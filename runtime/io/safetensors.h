/* safetensors.h - strict reader of one safetensors file.
 *
 *     offset  size
 *          0     8  N, little endian, at most 100,000,000
 *          8     N  JSON object { name: {dtype, shape, data_offsets: [begin, end)} , "__metadata__": {string: string} }
 *      8 + N        data, without holes or overlaps, ending exactly at the end of the file
 *
 * Everything is validated before anything is allocated by a size from the file.  Data is read with pread: a file that
 * shrinks while in use is an error, not a signal.
 */
#ifndef NB_SAFETENSORS_H
#define NB_SAFETENSORS_H

#include "kernels/float.h"
#include "runtime/io/json.h"

enum { NB_MAX_RANK = 8 };

typedef struct {
    char    *name;
    nb_dtype dtype;
    char     dtype_name[12];
    int      rank;
    uint64_t shape[NB_MAX_RANK];
    uint64_t count;         /* elements */
    uint64_t offset, bytes; /* in the file */
} nb_tensor;

typedef struct nb_safetensors nb_safetensors;

nb_status        nb_safetensors_open(nb_safetensors **out, const char *path, nb_error *err);
void             nb_safetensors_close(nb_safetensors *f); /* NULL is fine */
const char      *nb_safetensors_path(const nb_safetensors *f);
size_t           nb_safetensors_count(const nb_safetensors *f);
const nb_tensor *nb_safetensors_at(const nb_safetensors *f, size_t i);              /* in file order of data */
const nb_tensor *nb_safetensors_find(const nb_safetensors *f, const char *name);    /* NULL if absent */
const char      *nb_safetensors_metadata(const nb_safetensors *f, const char *key); /* NULL if absent */
/* Read bytes [first, first + n) of a tensor's data. */
nb_status nb_safetensors_read(const nb_safetensors *f, const nb_tensor *t, void *dst, uint64_t first, uint64_t n, nb_error *err);
/* Ask the system to read a tensor's data into its cache. */
void      nb_safetensors_read_ahead(const nb_safetensors *f, const nb_tensor *t);

#endif
