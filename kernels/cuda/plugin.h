/* plugin.h - what passes between the program and libnibble_cuda.so.
 *
 * One exported function, one table.  Both sides are built from the same tree, but may be installed from different ones:
 * the version and the sizes of the structures that both sides read are compared before anything is called.  Raise
 * NB_CUDA_ABI whenever the meaning of something here, in ops.h or in matrix.h changes without changing a size.
 */
#ifndef NB_CUDA_PLUGIN_H
#define NB_CUDA_PLUGIN_H

#include "kernels/ops.h"

enum { NB_CUDA_ABI = 1 };

typedef struct {
    uint32_t abi;
    uint32_t ops_size, matrix_size, error_size; /* sizeof nb_ops, nb_matrix, nb_error */
    /* as in cuda.h */
    nb_status (*ops_new)(nb_ops *ops, int device, nb_pool *pool, nb_error *err);
    void (*ops_free)(nb_ops *ops);
    int (*device_count)(char *text, size_t n);
} nb_cuda_plugin;

/* "nb_cuda_plugin_open": the table, whatever version was asked for; the caller compares.  Lasts as long as the library. */
typedef const nb_cuda_plugin *nb_cuda_plugin_open_function(void);

#endif
