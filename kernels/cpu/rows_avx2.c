/* rows_avx2.c - row-wise operations of the level avx2: rows_body.h over the vectors of vec_avx2.h. */
#include "kernels/cpu/vec_avx2.h"

#include "kernels/cpu/rows_body.h"

void nb_avx2_fill_rows(nb_ops *ops)
{
    fill_rows(ops);
}
