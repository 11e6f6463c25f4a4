/* kernel_cases.h - which operations `bench --kernels` times: every entry of the table that computes, on the shapes of published models. */
#ifndef NB_KERNEL_CASES_H
#define NB_KERNEL_CASES_H

#include "kernels/ops.h"
#include "tools/synth/shapes.h"

typedef enum {
    NB_KERNEL_MATMUL,
    NB_KERNEL_ATTEND,
    NB_KERNEL_ATTEND_FULL,
    NB_KERNEL_RMSNORM,
    NB_KERNEL_LAYERNORM,
    NB_KERNEL_GATE,
    NB_KERNEL_ACTIVATE,
    NB_KERNEL_ADD,
    NB_KERNEL_ROPE,
    NB_KERNEL_KV_STORE,
    NB_KERNEL_EMBED,
    NB_KERNEL_GRAM,
    NB_KERNEL_GEMM_F32,
    NB_KERNEL_GEMM_F64,
} nb_kernel_op;

/* How weights are stored. */
typedef struct {
    const char *name; /* "int4 g128 sym" */
    nb_wkind    kind;
    nb_dtype    dtype; /* of FLOAT */
    int         group;
    bool        zeros;
} nb_kernel_form;

/* Matrices that are used one after another: those of a decoder layer, of a block of the tower, or a single one. */
enum { NB_KERNEL_SITES = 4 };
typedef struct {
    const char *name; /* "layer" */
    int         count;
    struct {
        const char *name; /* "gate_up" */
        int         n, k;
    } site[NB_KERNEL_SITES];
} nb_kernel_part;

typedef struct {
    nb_kernel_op          op;
    const char           *shape; /* "7b", "vision"; "" for what has none */
    const nb_kernel_form *form;  /* MATMUL, EMBED; else NULL */
    nb_kernel_part        part;  /* MATMUL, EMBED */
    size_t                rows, past;
    int                   heads, kv_heads, d; /* attention, rope, kv_store */
    int                   width;              /* of a row of the others: numbers of the result (gram: k) */
    nb_act                act;
} nb_kernel_case;

typedef struct {
    nb_kernel_case *items;
    size_t          count, capacity;
} nb_kernel_cases;

/* A solver's product has so many rows and columns. */
enum { NB_KERNEL_GEMM_M = 192, NB_KERNEL_GEMM_N = 256, NB_KERNEL_GEMM_SIDES = NB_KERNEL_GEMM_M + NB_KERNEL_GEMM_N };

/* shapes: names of nb_synth_shapes and "vision", comma separated.  Cases that share matrices follow each other.  NB_ERR_ARGUMENT. */
nb_status   nb_kernel_cases_new(nb_kernel_cases *out, const char *shapes, nb_error *err);
void        nb_kernel_cases_free(nb_kernel_cases *c);
const char *nb_kernel_op_name(nb_kernel_op op);
/* "matmul 7b layer int4 g128 sym rows 8", "attend 7b rows 1 depth 4096": what --filter is matched with, with " avx512" behind it. */
void        nb_kernel_label(char out[160], const nb_kernel_case *c, const char *level);

#endif
