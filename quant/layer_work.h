/* layer_work.h - one decoder layer while it is worked on, and the stages that layer_job.c puts in order: watching what comes into
 * its linears (layer_watch.c), solving them (layer_solve.c), writing them (layer_write.c). */
#ifndef NB_LAYER_WORK_H
#define NB_LAYER_WORK_H

#include "quant/layer_job.h"

typedef struct {
    nb_job        *job;
    int            index;
    nb_float_layer f;
    nb_grid        grid[NB_LINEARS];  /* what each matrix is rounded to */
    bool           keep[NB_LINEARS];  /* ... or not at all: it stays float */
    void          *kept[NB_LINEARS];  /* [n, k] such a matrix as it will be written */
    nb_dtype       kept_dtype[NB_LINEARS];
    nb_linear      now[NB_LINEARS];   /* the layer as it is: float, and codes once solved; borrows all its arrays */
    nb_codes       codes[NB_LINEARS];
    nb_linear      taken[NB_LINEARS]; /* of sites that an earlier run solved, read back */
    nb_stats       stats[NB_SITES];   /* k = 0: not wanted in the pass */
    nb_gptq_factor *factor;           /* of the site that is being solved; NULL: not needed, or not yet */
    bool           keep_source;       /* the float layer is run again after it was solved */
    float         *scale[NB_SITES];   /* [k] what AWQ divided the inputs of a site by; NULL: nothing */
    nb_layer       original;          /* packed, when it is run beside or after the one that is changed */
} nb_layer_work;

nb_matrix_report *nb_layer_matrix(nb_layer_work *l, int linear);

/* Pack the given linears and run them over all samples.  sites: fill the statistics of those that want them among the first so many
 * (0: none); keep: the outputs become the samples' states, otherwise the pass ends with the last of these sites. */
nb_status nb_layer_run(nb_layer_work *l, const nb_linear linears[NB_LINEARS], int sites, bool keep, nb_error *err);
/* Statistics of sites first .. last of the layer as it is now, finished. */
nb_status nb_layer_watch(nb_layer_work *l, nb_site first, nb_site last, bool keep, nb_error *err);

/* What each matrix of this layer is to become. */
void nb_layer_pick(nb_layer_work *l);
/* A matrix that stays float takes the values of the type it is written in; from here on the layer runs with those. */
nb_status nb_layer_keep(nb_layer_work *l, int linear, nb_error *err);
/* Close the statistics of a site after a pass over all samples. */
nb_status nb_layer_finish_stats(nb_layer_work *l, nb_site site, nb_error *err);
/* Statistics of a site from the quantized stream, beside the original one; then the float matrices of the site become the targets
 * that make good what was lost before them (layer_pair.c). */
nb_status nb_layer_watch_pair(nb_layer_work *l, nb_site site, nb_error *err);

/* Tell the world that a site comes next. */
nb_status nb_layer_step(nb_layer_work *l, nb_site site, nb_error *err);
/* AWQ before rounding: what plain rounding would lose, then the scales, folded into the layer's floats. */
nb_status nb_layer_smooth(nb_layer_work *l, nb_error *err);
/* Codes for the matrices of a site; from here on the layer runs with them.  The site's statistics are freed. */
nb_status nb_layer_solve(nb_layer_work *l, nb_site site, nb_error *err);

/* The tensors of the matrices of a solved site, and last the norms, to the writer. */
nb_status nb_layer_write_site(nb_layer_work *l, nb_site site, nb_error *err);
nb_status nb_layer_write_norms(nb_layer_work *l, nb_error *err);

#endif
