/* attention_avx512.c - attention of the level avx512: attention_body.h over the vectors of vec_avx512.h. */
#include "kernels/cpu/vec_avx512.h"

#include "kernels/cpu/attention_body.h"

void nb_avx512_fill_attention(nb_ops *ops)
{
    fill_attention(ops);
}
