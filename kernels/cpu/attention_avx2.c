/* attention_avx2.c - attention of the level avx2: attention_body.h over the vectors of vec_avx2.h. */
#include "kernels/cpu/vec_avx2.h"

#include "kernels/cpu/attention_body.h"

void nb_avx2_fill_attention(nb_ops *ops)
{
    fill_attention(ops);
}
