/* gptq_factor.h - what gptq.c hands to gptq_solve.c. */
#ifndef NB_GPTQ_FACTOR_H
#define NB_GPTQ_FACTOR_H

#include "quant/gptq.h"
#include "quant/linalg.h"

struct nb_gptq_factor {
    nb_gptq_options options;
    int      k, groups;
    double  *h;             /* [k, k], borrowed: H above the diagonal and on it, L below */
    nb_lower lower;         /* L, with J (H / unit + lambda I) J = L L' */
    double   unit, lambda, damp;
    int      dead;
    bool     found;         /* L exists */
    int32_t *order;         /* [k] the column at each step */
    int32_t *group_of;      /* [k] the group of each step's column */
    bool     has_g_idx;     /* groups are not those of the columns in the order of the model */
    int      width, blocks; /* steps of the widest block */
    int     *end;           /* [blocks] */
    float   *inverse;       /* [k, width] row i: row i of R_bb^-1, from the first step of its block on */
    float   *pivot;         /* [k] R_ii */
};

/* R = J L J, upper triangular: H / unit + lambda I = R R' in the order of the steps. */
static inline double nb_gptq_r(const nb_gptq_factor *f, int i, int j)
{
    return *nb_lower_at(&f->lower, f->k - 1 - i, f->k - 1 - j);
}

#endif
