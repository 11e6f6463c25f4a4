/* levels_cuda.h - lets a test of the CPU levels run the CUDA kernels instead, compiled for the CPU (kernels/cuda/emulate.h):
 * each_level of levels.h becomes the emulated table, with the threads of a block in ascending and in descending order. */
#ifndef NB_LEVELS_CUDA_H
#define NB_LEVELS_CUDA_H

#define each_level each_cpu_level
#include "levels.h"
#undef each_level

#include "kernels/cuda/cuda.h"

#ifndef EMULATED_ORDERS
#define EMULATED_ORDERS 2
#endif

/* The emulated plugin through the program's own loader; NIBBLE_EMULATED is its path. */
static inline nb_ops emulated_ops(nb_pool *pool)
{
    nb_error err;
    nb_ops   ops;
    setenv("NIBBLE_CUDA_PLUGIN", NIBBLE_EMULATED, 1);
    OK(nb_cuda_ops_new(&ops, 0, pool, &err), &err);
    return ops;
}

static inline void each_level(void (*body)(const nb_ops *ops))
{
    static const char *const orders[] = { "", "reverse" };
    for (size_t i = 0; i < EMULATED_ORDERS; i++) {
        nb_error err;
        nb_pool *pool;
        setenv("NIBBLE_EMULATE", orders[i], 1);
        OK(nb_pool_new(&pool, 2, &err), &err);
        nb_ops ops = emulated_ops(pool);
        body(&ops);
        OK(ops.status(&ops, &err), &err);
        nb_cuda_ops_free(&ops);
        nb_pool_free(pool);
    }
}

#endif
