/* layer_keep.c - what each matrix of a layer is to become, and the matrices that stay float. */
#include <stdlib.h>

#include "quant/layer_work.h"

void nb_layer_pick(nb_layer_work *l)
{
    for (int i = 0; i < NB_LINEARS; i++) {
        const nb_pick *p = nb_choice_linear(&l->job->choice, l->index, i);
        l->grid[i] = p->grid;
        l->keep[i] = p->keep;
    }
}

nb_status nb_layer_keep(nb_layer_work *l, int i, nb_error *err)
{
    size_t   count = (size_t)l->f.n[i] * (size_t)l->f.k[i];
    nb_dtype type = nb_plain_dtype(&l->job->plain, l->f.source[i].weights.dtype);
    NB_TRY(nb_alloc(&l->kept[i], count, nb_dtype_size(type), l->f.name[i], err));
    nb_from_f32(l->kept[i], type, l->f.w[i], count);
    l->kept_dtype[i] = type;
    l->now[i] = (nb_linear){.weights = {.kind = NB_W_FLOAT, .n = l->f.n[i], .k = l->f.k[i], .dtype = type, .data = l->kept[i]},
                            .bias = i <= NB_V ? l->f.bias[i] : NULL};
    free(l->f.w[i]);
    l->f.w[i] = NULL;
    return NB_OK;
}
