/* resize_avx2.c - resize.h for AVX2 and above: 8 lanes of 32 bits. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/resize_body.h"

const nb_resize nb_avx2_resize = { resize_rows, resize_columns };
