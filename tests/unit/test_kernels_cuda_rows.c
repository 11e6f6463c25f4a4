/* test_kernels_cuda_rows.c - the tests of test_kernels_rows.c, with the CUDA kernels (emulated) in the place of the CPU levels. */
#include "levels_cuda.h"

#include "test_kernels_rows.c"
