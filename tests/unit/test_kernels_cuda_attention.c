/* test_kernels_cuda_attention.c - the tests of test_kernels_attention.c, with the CUDA kernels (emulated) in the place of the CPU levels. */
#define EMULATED_ORDERS 1 /* seconds; test_kernels_cuda_emulated.c runs both orders over smaller cases */
#include "levels_cuda.h"

#include "test_kernels_attention.c"
