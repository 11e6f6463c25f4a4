/* kernel_run.h - one case of kernel_cases.h, made ready and called.
 *
 * Calls take turns over places that together are larger than the caches, so that what a decoder reads from memory is read from
 * memory here: copies of a layer's matrices, layers of a KV cache, stretches of activations.  Cases of one row whose data is small stay
 * in the cache, as they do in a decoder.
 */
#ifndef NB_KERNEL_RUN_H
#define NB_KERNEL_RUN_H

#include "tools/bench/kernel_cases.h"
#include "tools/bench/work.h"

/* Memory that all cases share. */
typedef struct {
    nb_pool *pool;
    size_t   rotation; /* bytes that calls take turns over, about */
    float   *x, *y;    /* [floats] random */
    size_t   floats;
    float   *work;     /* of gram */
    /* the matrices that were packed last, and for whom */
    nb_matrix             *matrices; /* [copies, part.count] */
    size_t                 copies;
    nb_kernel_part         part;
    const nb_kernel_form  *form;
    nb_ops                 packed_by;
} nb_kernel_room;

/* Room for the cases [count]; rotation: see above. */
nb_status nb_kernel_room_new(nb_kernel_room *out, nb_pool *pool, size_t rotation, const nb_kernel_case *cases, size_t count, nb_error *err);
void      nb_kernel_room_free(nb_kernel_room *r);

typedef struct {
    const nb_kernel_case *c;
    const nb_ops         *ops;
    nb_kernel_room       *room;
    size_t                turns;   /* places */
    size_t                calls;   /* in a round; the time of a call is the round's through this (matmul: of one copy) */
    bool                  cached;  /* what it touches stays in the caches */
    nb_work               work[NB_KERNEL_SITES]; /* of a call; matmul: of each matrix */
    int                   sites;
    /* attention */
    nb_attn               attn;
    uint8_t              *kv;
    void                **pages;
    size_t                layer;   /* bytes of a layer in a page */
    float                *table;   /* rope: cos, sin [rows, d / 2] */
    size_t                bounds[2];
    /* gram */
    nb_gram_sums          sums;
    size_t                turn;    /* of the next call */
} nb_kernel_run;

/* NB_ERR_BUDGET when memory does not suffice. */
nb_status nb_kernel_begin(nb_kernel_run *out, const nb_kernel_case *c, const nb_ops *ops, nb_kernel_room *room, nb_error *err);
/* Seconds of a call (matmul: of each matrix) in one round. */
void      nb_kernel_round(nb_kernel_run *r, double seconds[NB_KERNEL_SITES]);
void      nb_kernel_end(nb_kernel_run *r);

/* At ref, where a product takes a thousand times as long, matrices have so many outputs at most. */
enum { NB_KERNEL_REF_OUTPUTS = 64 };
/* The matrices as they are measured at a level. */
nb_kernel_part nb_kernel_part_at(const nb_kernel_part *part, nb_isa isa);
/* What a call does, before anything is made ready: of matmul, all matrices, their bytes by the form alone. */
nb_work nb_kernel_expected(const nb_kernel_case *c, nb_isa isa);

#endif
