/* rows_avx512.c - row-wise operations of the level avx512: rows_body.h over the vectors of vec_avx512.h. */
#include "kernels/cpu/vec_avx512.h"

#include "kernels/cpu/rows_body.h"

void nb_avx512_fill_rows(nb_ops *ops)
{
    fill_rows(ops);
}
