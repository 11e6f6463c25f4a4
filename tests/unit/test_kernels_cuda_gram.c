/* test_kernels_cuda_gram.c - the tests of test_kernels_gram.c, with the CUDA kernels (emulated) in the place of the CPU levels. */
#include "levels_cuda.h"

#include "test_kernels_gram.c"
