/* cuda.h - the GPU filling of the operation table, as the program sees it: plain C, always there, with or without a GPU.
 *
 * The backend itself is a plugin, libnibble_cuda.so (plugin.h), opened on the first call by kernels/cuda_loader.c.  So a
 * package for CPUs and one for GPUs hold the same program, and a machine without driver, toolkit or device loses nothing
 * but these functions, which then say in a sentence what is missing.
 */
#ifndef NB_CUDA_H
#define NB_CUDA_H

#include "kernels/ops.h"

/* Fill the table for GPU `device` (0 is the first).  NB_ERR_UNSUPPORTED: no plugin, no driver, no device, one that is too
 * old; NB_ERR_DEVICE: the device is there and failed.  The table is zeroed after a failure.  The pool must outlive it; the
 * kernels do not use it, but the solvers above take it from the table.  Copies of the table share one state: free one. */
nb_status nb_cuda_ops_new(nb_ops *ops, int device, nb_pool *pool, nb_error *err);
/* After everything that came from the table is freed.  A zeroed table is fine. */
void      nb_cuda_ops_free(nb_ops *ops);

/* How many devices can be used, never negative.  text (n > 0 bytes): their names, one a line, or why there is none. */
int       nb_cuda_device_count(char *text, size_t n);

#endif
