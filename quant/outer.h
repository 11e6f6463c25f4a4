/* outer.h - the matrices outside the decoder layers that get codes: linears of the vision tower, head, embedding.
 *
 * They are rounded without statistics: to 8 bits plainly, to 4 with a search of each group's range for the least squared error. */
#ifndef NB_OUTER_H
#define NB_OUTER_H

#include "quant/choice.h"
#include "quant/writer.h"

nb_status nb_outer_declare(nb_writer *w, const nb_choice *choice, nb_error *err);
nb_status nb_outer_write(nb_writer *w, const nb_checkpoint *c, const nb_choice *choice, nb_pool *pool, nb_error *err);
/* Tensor bytes of all of them. */
uint64_t  nb_outer_bytes(const nb_choice *choice);
/* Host memory that writing takes at most. */
uint64_t  nb_outer_memory(const nb_choice *choice);

/* Some rows of a matrix: w [n, k] to codes. */
nb_status nb_outer_round(nb_codes *out, const float *w, int n, int k, const nb_grid *grid, nb_pool *pool, nb_error *err);

#endif
