/* gguf_file.h - writing one GGUF file: magic, version 3, key-value pairs, tensor infos, then data in the order of announcement, each
 * tensor at a multiple of 32 bytes.
 *
 *     key ... key, tensor ... tensor | begin | data ... data | end
 *
 * Failures to append are kept and told by begin. */
#ifndef NB_GGUF_FILE_H
#define NB_GGUF_FILE_H

#include "kernels/base.h"
#include "runtime/io/buf.h"

typedef enum { NB_GGUF_F32 = 0, NB_GGUF_F16 = 1, NB_GGUF_Q4_0 = 2, NB_GGUF_Q4_1 = 3, NB_GGUF_Q8_0 = 8, NB_GGUF_BF16 = 30 } nb_gguf_type;

typedef struct nb_gguf_out nb_gguf_out;

nb_status nb_gguf_out_new(nb_gguf_out **out, nb_error *err);
void      nb_gguf_out_free(nb_gguf_out *g); /* an unfinished file stays: its folder is the caller's */

void nb_gguf_out_u32(nb_gguf_out *g, const char *key, uint32_t value);
void nb_gguf_out_f32(nb_gguf_out *g, const char *key, float value);
void nb_gguf_out_bool(nb_gguf_out *g, const char *key, bool value);
void nb_gguf_out_string(nb_gguf_out *g, const char *key, const char *text, size_t n);
void nb_gguf_out_i32s(nb_gguf_out *g, const char *key, const int32_t *values, size_t count);
void nb_gguf_out_f32s(nb_gguf_out *g, const char *key, const float *values, size_t count);
/* An array of strings: announce how many, then give each, before anything else. */
void nb_gguf_out_strings(nb_gguf_out *g, const char *key, size_t count);
void nb_gguf_out_next_string(nb_gguf_out *g, const char *text, size_t n);

/* Innermost dimension first: a matrix [n, k] is {k, n}. */
nb_status nb_gguf_out_tensor(nb_gguf_out *g, const char *name, nb_gguf_type type, int rank, const uint64_t *dims, nb_error *err);
/* Bytes of a row of k values; 0 when the type cannot hold such a row. */
uint64_t  nb_gguf_out_row_bytes(nb_gguf_type type, uint64_t k);
uint64_t  nb_gguf_out_bytes(const nb_gguf_out *g); /* of all tensors */

nb_status nb_gguf_out_begin(nb_gguf_out *g, const char *path, nb_error *err);
nb_status nb_gguf_out_data(nb_gguf_out *g, const void *data, uint64_t bytes, nb_error *err); /* of the tensors, one after the other */
nb_status nb_gguf_out_end(nb_gguf_out *g, nb_error *err); /* everything is on disk */

#endif
