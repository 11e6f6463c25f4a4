/* gram_neon.c - input statistics of the level neon: gram_body.h over the vectors of vec_neon.h. */
#include "kernels/cpu/vec_neon.h"

enum { DOWN = 6 /* 6 x 2 sums, 2 columns and a factor, of two registers each but the last, in 32 */ };

#include "kernels/cpu/gram_body.h"

void nb_neon_fill_gram(nb_ops *ops)
{
    fill_gram(ops);
}
