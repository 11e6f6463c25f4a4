/* rows_neon.c - row-wise operations of the level neon: rows_body.h over the vectors of vec_neon.h. */
#include "kernels/cpu/vec_neon.h"

#include "kernels/cpu/rows_body.h"

void nb_neon_fill_rows(nb_ops *ops)
{
    fill_rows(ops);
}
