/* resize.c - which resize a level has, and the one for any machine. */
#include "kernels/resize.h"

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/resize_body.h"

static const nb_resize ref = { resize_rows, resize_columns };

const nb_resize *nb_resize_of(nb_isa isa)
{
#if defined(__aarch64__)
    (void)isa;
    return &ref;
#else
    return isa >= NB_ISA_AVX2 ? &nb_avx2_resize : &ref;
#endif
}
