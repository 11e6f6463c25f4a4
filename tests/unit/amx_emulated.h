/* amx_emulated.h - the amx level over emulated tiles (kernels/cpu/tiles_emulated.h), for machines that have AVX-512. */
#ifndef NB_AMX_EMULATED_H
#define NB_AMX_EMULATED_H

#include "kernels/ops.h"

/* What can be made wrong, to see that a test notices. */
typedef enum {
    EMULATED_CORRECT,
    EMULATED_NO_HEAP,       /* no memory for prepared activations: not wrong, another way */
    EMULATED_UNSIGNED_ROWS, /* tdpbuud in the place of tdpbsud */
    EMULATED_SIGNED_CODES,  /* tdpbssd in the place of tdpbsud */
    EMULATED_LOST_PRODUCTS, /* bf16: the last C tile stays zero */
    EMULATED_LOST_STORE,    /* the third C tile is not stored: sums of an earlier product are taken again */
    EMULATED_NO_RELEASE,
} emulated_faults;

extern emulated_faults emulated_fault; /* not while a product is running */

/* Over a table of the avx512 level. */
void emulated_amx_fill_matmul(nb_ops *ops);
long emulated_products(void);   /* products of tiles since the program began */
long emulated_configured(void); /* threads that hold a tile configuration now */

static inline void emulated_amx_init(nb_ops *ops, nb_pool *pool)
{
    nb_ops_init(ops, NB_ISA_AVX512, pool);
    emulated_amx_fill_matmul(ops);
    ops->isa = NB_ISA_AMX;
    ops->name = "amx, emulated tiles";
}

#endif
