/* attention_neon.c - attention of the level neon: attention_body.h over the vectors of vec_neon.h. */
#include "kernels/cpu/vec_neon.h"

#include "kernels/cpu/attention_body.h"

void nb_neon_fill_attention(nb_ops *ops)
{
    fill_attention(ops);
}
