/* grid.h - the integer grids that the formats can hold, and rounding a matrix to them.
 *
 *     w = (code - zero) * scale        code, zero in 0 .. 2^bits - 1
 *
 * Scales are rounded to f16 before codes are chosen: a code is optimal for the scale that the file holds.
 */
#ifndef NB_GRID_H
#define NB_GRID_H

#include "kernels/base.h"
#include "kernels/threads.h"

typedef struct {
    int  bits;  /* 4 or 8 */
    int  group; /* inputs that share a scale; 0: the whole row */
    bool sym;   /* zero fixed at 2^(bits-1) */
} nb_grid;

/* How the range of a group is found: the full one; the shrunk one with the least sum |error|^p; the same weighted by diag H; the
 * ends with the least e H e' over the group (range.h). */
typedef enum { NB_RANGE_FULL, NB_RANGE_MSE, NB_RANGE_ENERGY, NB_RANGE_BLOCK } nb_range;

/* A quantised matrix in plain arrays, the solvers' output and the packers' input. */
typedef struct {
    int      n, k, group, groups, bits;
    uint8_t *codes;  /* [n, k] in the order of the original columns */
    float   *scales; /* [n, groups], each an f16 value */
    uint8_t *zeros;  /* [n, groups] */
    int32_t *g_idx;  /* [k] group of each column; NULL: k / group */
} nb_codes;

nb_status nb_grid_check(const nb_grid *grid, nb_error *err); /* NB_ERR_ARGUMENT for what is not a grid */

/* Constructor; so are nb_rtn and nb_gptq, which fill it.  group is k when the grid has 0: the whole row. */
nb_status nb_codes_init(nb_codes *c, int n, int k, const nb_grid *grid, nb_error *err);
void      nb_codes_free(nb_codes *c);
void      nb_codes_dequantize(const nb_codes *c, float *w); /* [n, k] */

/* Scale and zero of one group from its weights.  clip in (0, 1] shrinks the range (1: the full range). */
void  nb_grid_fit(const nb_grid *grid, const float *w, int count, float clip, float *scale, uint8_t *zero);
/* The same in two steps: the range [lo, hi], which holds 0 (symmetric: -hi, hi; -1, 1 for zeros), and the grid of a range. */
void  nb_grid_ends(const nb_grid *grid, const float *w, int count, float *lo, float *hi);
void  nb_grid_range(const nb_grid *grid, float lo, float hi, float *scale, uint8_t *zero);
/* Range search: the clip among 1, 0.99 .. 0.20 that minimises sum h_i |Q(w_i) - w_i|^power (h NULL: all ones). */
void  nb_grid_search(const nb_grid *grid, const float *w, const float *h, int count, float power, float *scale, uint8_t *zero);
uint8_t nb_grid_code(const nb_grid *grid, float w, float scale, uint8_t zero);

/* The whole number nearest to x in [lo, hi] (both whole, below 2^22), ties to even; lo for NaN.  Adding and subtracting
 * 1.5 * 2^23 leaves no bits for a fraction, and vectorises, which nearbyintf does not. */
static inline float nb_round_within(float x, float lo, float hi)
{
    x = x > lo ? x : lo;
    x = x < hi ? x : hi;
    return (x + 12582912.0f) - 12582912.0f;
}

/* Round to nearest: every group on its own. */
nb_status nb_rtn(nb_codes *out, const float *w, int n, int k, const nb_grid *grid, nb_pool *pool, nb_error *err);

/* tr((W - Q) H (W - Q)') summed over rows: the output error of a layer on inputs with Gram matrix H [k, k], symmetric.
 * NaN only when a few kilobytes of memory cannot be had or an argument holds one. */
double nb_gram_loss(const float *w, const float *q, const double *h, int n, int k, nb_pool *pool);

#endif
