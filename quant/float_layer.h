/* float_layer.h - one decoder layer in f32 arrays, between the checkpoint and the solvers. */
#ifndef NB_FLOAT_LAYER_H
#define NB_FLOAT_LAYER_H

#include "quant/plain.h"

/* The linears in the order of nb_layer_pack: those of one site stand together. */
enum { NB_Q, NB_K, NB_V, NB_O, NB_GATE, NB_UP, NB_DOWN, NB_LINEARS };
extern const int nb_site_first[NB_SITES], nb_site_count[NB_SITES];

typedef struct {
    char      name[NB_LINEARS][64];   /* model.layers.0.self_attn.q_proj */
    int       n[NB_LINEARS], k[NB_LINEARS];
    nb_linear source[NB_LINEARS];     /* as the checkpoint holds them */
    uint64_t  source_hash[NB_LINEARS]; /* xxHash64 of the weights of each, in the source's type, adapters merged */
    float    *w[NB_LINEARS];          /* [n, k]; the solvers change these.  NULL until nb_float_layer_floats */
    float    *divisor[NB_LINEARS];    /* [n] what AWQ divided the rows by; NULL: nothing */
    float    *bias[3];                /* [n] of q, k, v; values of bias_dtype */
    char      norm_name[2][64];       /* before attention, before the MLP */
    float    *norm[2];                /* [hidden]; values of norm_dtype */
    nb_dtype  bias_dtype[3], norm_dtype[2]; /* as written */
} nb_float_layer;

/* The names and shapes alone. */
void      nb_float_layer_shape(nb_float_layer *out, const nb_config *config, int layer);
/* Everything but w.  Values that are not finite are refused by name.  Norms and biases are rounded to the type they are written in,
 * so that all that follows sees what the file will hold. */
nb_status nb_float_layer_read(nb_float_layer *out, const nb_model *model, const nb_plain *plain, int layer, nb_error *err);
/* Ask the system to read the matrices of a layer into its cache; it may sleep. */
void      nb_float_layer_read_ahead(const nb_model *model, int layer);
/* w of one matrix from its source. */
nb_status nb_float_layer_floats(nb_float_layer *l, int linear, nb_pool *pool, nb_error *err);
/* The seven hashes alone, of one matrix at a time. */
nb_status nb_float_layer_hash(uint64_t hash[NB_LINEARS], const nb_model *model, int layer, nb_error *err);
void      nb_float_layer_free(nb_float_layer *l);

#endif
