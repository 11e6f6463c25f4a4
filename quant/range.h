/* range.h - scale and zero of every group by search: round to nearest, with the ranges that lose least. */
#ifndef NB_RANGE_H
#define NB_RANGE_H

#include "quant/grid.h"

enum { NB_RANGE_WIDEST = 1024 }; /* columns of a group that BLOCK is for; wider ones are searched as ENERGY */

/* Nearest codes for w [n, k] after a search of each group's range.  With e = W - Q over the group:
 *     FULL     none, as nb_rtn
 *     MSE      least sum |e|^power
 *     ENERGY   least sum h_ii |e_i|^power, h [k, k] symmetric, its upper triangle read
 *     BLOCK    least e H_gg e', H_gg the group's block of h; a group that no token touches is not searched
 * power 0 means 2.4 for MSE and 2 for ENERGY.  Never worse than nb_rtn by the measure.  Refuses what nb_gptq refuses. */
nb_status nb_range_round(nb_codes *out, const float *w, const double *h, int n, int k, const nb_grid *grid, nb_range range,
                         float power, nb_pool *pool, nb_error *err);

#endif
