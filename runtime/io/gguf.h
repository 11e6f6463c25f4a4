/* gguf.h - strict reader of the header of a GGUF file, as llama.cpp loads it.
 *
 *     "GGUF", u32 version (2 or 3), u64 tensors, u64 pairs
 *     pairs:    string key, u32 type, value         string: u64 bytes, text      array: u32 type, u64 items, items
 *     tensors:  string name, u32 dimensions, u64 each (innermost first), u32 type, u64 offset in the data
 *     data:     from the next multiple of general.alignment (32), tensors in the order of the list, each padded to it
 *
 * Little endian.  Everything is validated before anything is allocated by a number from the file: counts are bounded by the
 * bytes that are left.  Values stay in the file until they are asked for, so that a vocabulary costs no memory.  Nothing is
 * dequantized here.
 */
#ifndef NB_GGUF_H
#define NB_GGUF_H

#include "runtime/io/buf.h"

/* The numbers of the format. */
typedef enum {
    NB_GGUF_U8, NB_GGUF_I8, NB_GGUF_U16, NB_GGUF_I16, NB_GGUF_U32, NB_GGUF_I32, NB_GGUF_F32, NB_GGUF_BOOL, NB_GGUF_STRING,
    NB_GGUF_ARRAY, NB_GGUF_U64, NB_GGUF_I64, NB_GGUF_F64, NB_GGUF_VALUE_TYPES
} nb_gguf_type;

/* Tensor types that nibble may meet; others are known by size only (nb_gguf_layout). */
enum { NB_GGML_F32 = 0, NB_GGML_F16 = 1, NB_GGML_Q4_0 = 2, NB_GGML_Q4_1 = 3, NB_GGML_Q8_0 = 8, NB_GGML_BF16 = 30 };

typedef struct {
    char        *key;
    nb_gguf_type type;   /* of the value, or of the items of an array */
    bool         array;
    uint64_t     count;  /* items; 1 when it is no array */
    uint64_t     offset; /* of the first item in the file */
} nb_gguf_pair;

enum { NB_GGUF_RANK = 4 };

typedef struct {
    char       *name;
    uint32_t    type;
    const char *type_name;           /* "Q4_0" */
    int         rank;
    uint64_t    shape[NB_GGUF_RANK]; /* innermost first; 1 behind rank */
    uint64_t    count;               /* elements */
    uint64_t    offset, bytes;       /* in the file */
} nb_gguf_tensor;

typedef struct nb_gguf nb_gguf;

nb_status             nb_gguf_open(nb_gguf **out, const char *path, nb_error *err);
void                  nb_gguf_close(nb_gguf *f); /* NULL is fine */
uint32_t              nb_gguf_alignment(const nb_gguf *f);

size_t                nb_gguf_pairs(const nb_gguf *f);
const nb_gguf_pair   *nb_gguf_pair_at(const nb_gguf *f, size_t i);      /* in file order */
const nb_gguf_pair   *nb_gguf_find(const nb_gguf *f, const char *key);  /* NULL if absent */
/* Values.  Missing, of another kind or out of range is NB_ERR_INPUT.  int: any integer type, or bool.  ints: an array of
 * exactly n.  string: into out, which is cleared first. */
nb_status             nb_gguf_int(const nb_gguf *f, const char *key, int64_t min, int64_t max, int64_t *out, nb_error *err);
nb_status             nb_gguf_ints(const nb_gguf *f, const char *key, size_t n, int64_t *out, nb_error *err);
nb_status             nb_gguf_number(const nb_gguf *f, const char *key, double *out, nb_error *err); /* F32 or F64, finite */
nb_status             nb_gguf_string(const nb_gguf *f, const char *key, nb_buf *out, nb_error *err);

size_t                nb_gguf_count(const nb_gguf *f);
const nb_gguf_tensor *nb_gguf_at(const nb_gguf *f, size_t i);               /* in file order */
const nb_gguf_tensor *nb_gguf_tensor_find(const nb_gguf *f, const char *name);
/* Bytes [first, first + n) of a tensor's data. */
nb_status             nb_gguf_read(const nb_gguf *f, const nb_gguf_tensor *t, void *dst, uint64_t first, uint64_t n, nb_error *err);

/* Elements and bytes of a block of a tensor type, and its name; false for a type that is not known. */
bool                  nb_gguf_layout(uint32_t type, uint32_t *elements, uint32_t *bytes, const char **name);

#endif
