/* probe.h - the limits that kernels are measured against: how fast memory is read, and how many multiplications a unit makes.
 *
 * A probe does one thing and nothing else, on random numbers: loads of a buffer that no cache holds, or one instruction on
 * registers, in as many independent chains as hide its latency.  What it reaches is what an operation of that kind could reach at
 * most.  Probes count and do not measure: the caller takes the time (tools/bench/limits.h).
 *
 * What it is not: an operation of nb_ops.  Nothing that computes answers calls it.
 */
#ifndef NB_PROBE_H
#define NB_PROBE_H

#include "kernels/ops.h"

typedef enum {
    NB_PROBE_READ,      /* bytes read from memory, in NB_PROBE_STREAMS streams a thread */
    NB_PROBE_F32,       /* f32 multiply-add: matmul of floats, attention, gram, the f32 products of gemm.h */
    NB_PROBE_F64,       /* f64 multiply-add: the f64 products of gemm.h, all products of ref */
    NB_PROBE_DOT16,     /* pairs of 16-bit numbers into 32-bit sums: matmul of int4 and int8 */
    NB_PROBE_DOT8,      /* four 8-bit numbers into 32-bit sums */
    NB_PROBE_TILE_BF16, /* tiles of bf16 into f32 sums */
    NB_PROBE_TILE_INT8, /* tiles of 8-bit numbers into 32-bit sums */
    NB_PROBE_KINDS
} nb_probe_kind;

enum { NB_PROBE_STREAMS = 4, NB_PROBE_PIECE = 512 * 1024 /* bytes of a stream in one item */, NB_PROBE_STEPS = 2048 /* in one item */ };

/* Random operands: numbers in [-1, 1), and bits. */
typedef struct {
    _Alignas(64) float    f32[512];
    _Alignas(64) double   f64[256];
    _Alignas(64) uint8_t  bits[4096];
    _Alignas(64) uint16_t bf16[2048];
} nb_probe_data;

typedef struct {
    nb_probe_kind kind;
    const char   *name, *level, *instruction; /* "f32 multiply-add", "avx512", "vfmadd zmm" */
    nb_isa        isa;   /* the lowest level whose operations are compared with it; NB_ISA_LEVELS: none is */
    double        work;  /* of an item: bytes, or operations (a multiplication and an addition are two) */
    bool        (*there)(void); /* NULL: wherever `isa` is */
    /* An item: NB_PROBE_PIECE bytes of each of the streams, `stride` bytes apart; or `steps` steps.  The result depends on all of it,
     * so that none of it can be left out. */
    uint64_t    (*read)(const uint8_t *first, size_t stride);
    uint64_t    (*compute)(const nb_probe_data *data, size_t steps);
} nb_probe;

/* All probes of this build, by kind, within a kind by ascending level. */
size_t          nb_probe_count(void);
const nb_probe *nb_probe_at(size_t i);
bool            nb_probe_there(const nb_probe *p); /* the CPU has the instruction, and the system keeps its registers */
/* The best of a kind that operations of `isa` may use; NULL when there is none. */
const nb_probe *nb_probe_of(nb_probe_kind kind, nb_isa isa);

/* Memory to be read: random bytes, in pages of 2 MB where the system gives them. */
typedef struct {
    uint8_t      *bytes;
    size_t        size;     /* a multiple of what an item reads; 0: nothing can be read */
    nb_probe_data data;
    size_t        reserved; /* of the mapping */
} nb_probe_memory;
/* size is rounded down to whole items.  NB_ERR_ARGUMENT for less than one, NB_ERR_MEMORY.  size 0: operands only. */
nb_status nb_probe_memory_new(nb_probe_memory **out, nb_pool *pool, size_t size, nb_error *err);
void      nb_probe_memory_free(nb_probe_memory *m); /* NULL is fine */

/* Do `items` items with all threads of the pool (READ: item i modulo those of the memory, in ascending order); the work done. */
double nb_probe_run(const nb_probe *p, nb_pool *pool, const nb_probe_memory *m, size_t items);

#endif
