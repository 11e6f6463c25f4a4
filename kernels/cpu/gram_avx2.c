/* gram_avx2.c - input statistics of the level avx2: gram_body.h over the vectors of vec_avx2.h. */
#include "kernels/cpu/vec_avx2.h"

enum { DOWN = 6 /* 6 x 2 sums, 2 columns and a factor in 16 registers */ };

#include "kernels/cpu/gram_body.h"

void nb_avx2_fill_gram(nb_ops *ops)
{
    fill_gram(ops);
}
