/* gram_avx512.c - input statistics of the level avx512: gram_body.h over the vectors of vec_avx512.h. */
#include "kernels/cpu/vec_avx512.h"

enum { DOWN = 12 /* 12 x 2 sums, 2 columns and a factor in 32 registers */ };

#include "kernels/cpu/gram_body.h"

void nb_avx512_fill_gram(nb_ops *ops)
{
    fill_gram(ops);
}
