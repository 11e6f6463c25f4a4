/* choice.h - what becomes of each matrix: how many bits, in what groups, or float as it is.
 *
 * Servers join q, k and v, and gate and up, into one matrix each, so the members of a site are always alike: rules that say
 * otherwise are widened to the whole site, and a note tells it.
 */
#ifndef NB_CHOICE_H
#define NB_CHOICE_H

#include "quant/grid.h"
#include "runtime/io/buf.h"
#include "runtime/model/model.h"

enum { NB_GROUP_DEFAULT = -1 };

/* One --keep or --set.  pattern: PCRE2, found anywhere in the matrix's name ("model.layers.3.mlp.down_proj"). */
typedef struct {
    const char *pattern;
    bool        keep;
    int         bits;  /* unless keep */
    int         group; /* NB_GROUP_DEFAULT: as the others; 0: the whole row */
} nb_choice_rule;

typedef struct {
    nb_grid grid;
    bool    keep;  /* float; grid says nothing */
    bool    fixed; /* by a rule */
} nb_pick;

/* A matrix outside the decoder layers that gets codes: in compressed-tensors' form, symmetric. */
typedef struct {
    char    name[64];   /* visual.blocks.0.attn.qkv, lm_head, model.embed_tokens */
    char    source[64]; /* whose .weight is read: a tied head is made from the embedding */
    int     n, k;
    nb_grid grid;
} nb_outer;

typedef struct {
    nb_grid   main;    /* of matrices that no rule names; what the one-line summary of a checkpoint says */
    int       layers;
    nb_pick  *linears; /* [layers * 7], q k v o gate up down */
    nb_outer *outers;
    size_t    outer_count;
    nb_outer *spared; /* linears of the tower that a rule keeps float, though the tower gets codes; no grid */
    size_t    spared_count;
    bool      vision;  /* the tower's linears are among the outers */
    bool      untied;  /* the source's head is tied, the result's is not: it has an lm_head of its own */
    bool      mixed;   /* not all matrices of the layers are main */
} nb_choice;

typedef struct {
    nb_grid               main;
    const nb_choice_rule *rules; /* of several that match, the last one counts, and keep before set */
    size_t                rule_count;
    int                   vision, head, embeddings; /* bits, or 0: float */
} nb_choice_options;

/* NB_ERR_ARGUMENT for a pattern that is none, or that names no matrix.  Notes are lines. */
nb_status nb_choice_make(nb_choice *out, const nb_config *config, const nb_choice_options *options, nb_buf *notes, nb_error *err);
void      nb_choice_free(nb_choice *c);

const nb_pick  *nb_choice_linear(const nb_choice *c, int layer, int linear);
const nb_outer *nb_choice_outer(const nb_choice *c, const char *name); /* NULL: it stays float */
/* A number that differs between choices that differ. */
uint64_t        nb_choice_hash(const nb_choice *c);

/* The linears of the vision tower and of its merger, in order; returns their number.  i from 0. */
int nb_vision_linear_count(const nb_config *config);
/* Name and shape of one of them. */
void nb_vision_linear(nb_outer *out, const nb_config *config, int i);
/* The largest of `group`, 64 and 32 that divides k; else 0, the whole row. */
int  nb_group_dividing(int group, int k);

/* Regular expressions (Python's re.match, and PCRE) for the matrices of the layers with this pick, one for each site that has some:
 *     .*layers\.(?:0|3)\.self_attn\.(?:q|k|v|qkv)_proj$
 * which also match the joined names of vLLM.  Called for each. */
typedef nb_status nb_choice_visit(void *context, const char *pattern, nb_error *err);
nb_status nb_choice_patterns(const nb_choice *c, const nb_pick *pick, nb_choice_visit *visit, void *context, nb_error *err);
bool      nb_pick_equal(const nb_pick *a, const nb_pick *b);

#endif
