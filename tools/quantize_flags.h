/* quantize_flags.h - what `nibble quantize` was asked for, and its pages: the report and the plan. */
#ifndef NB_QUANTIZE_FLAGS_H
#define NB_QUANTIZE_FLAGS_H

#include "quant/plan.h"
#include "tools/cli/table.h"
#include "tools/data_source.h"
#include "tools/session.h"

typedef struct {
    nb_common        common;
    nb_compute_flags compute;
    nb_media_flags   media;
    const char *model, *out, *quant_config;
    int         method, bits, format, act_order, range, propagate, data_format, loss_on;
    int64_t     effort, refine, group, grid, block, samples, skip, seq_len, seed;
    double      damp, damp_max, mse, asym_damp;
    bool        sym, duo, clip, static_groups, true_sequential, asym_calib, shuffle, builtin_data, force, dry_run, no_resume;
    const char *dataset_info, *modality_weights;
    nb_strings  data, lora, keep, set, artifact;
    nb_data_sources sources; /* what data names */
    char      **artifacts;     /* [artifact_count] what artifact names */
    size_t      artifact_count;
    float       weights[3];    /* what modality_weights says */
    bool        auto_weights;
    int         vision, lm_head, embeddings;
    uint64_t    shard_size, max_ram, max_vram, target_size;
    double      target_bpw, target_kl;
    const char *spool, *job;
    int64_t     spool_zstd, save_states;
    const char *holdout, *holdout_data, *gate, *base_model;
    int64_t     answers;
    bool        judge;
} nb_quantize_flags;

/* The rows of `nibble quantize`, for `nibble plan` too. */
extern const nb_arg_block nb_quantize_blocks[];
/* Run it, or with dry_run print its plan. */
nb_status nb_quantize_command(nb_args *args, nb_quantize_flags *opt, nb_error *err);

/* What the choices of --method, --format, --act-order and --bits mean, in their order. */
extern const nb_method    nb_quantize_methods[];
extern const nb_format    nb_quantize_formats[];
extern const nb_act_order nb_quantize_orders[];
extern const int          nb_quantize_bits[];
extern const int          nb_quantize_vision[], nb_quantize_head[]; /* bits, 0: float; the embedding's are the head's */

/* --keep and --set as rules [*count], in the order of each; free with nb_quantize_free_rules. */
nb_status nb_quantize_rules(nb_choice_rule **out, size_t *count, const nb_strings *keep, const nb_strings *set, nb_error *err);
void      nb_quantize_free_rules(nb_choice_rule *rules, size_t count);

/* How the solvers did beside rounding to nearest, over the matrices that have both figures. */
typedef struct {
    double mean;        /* geometric mean of loss / rtn_loss; NaN: nothing was compared */
    double worst;
    size_t worst_index, compared, fallbacks, dead;
} nb_solver_quality;
nb_solver_quality nb_quantize_quality(const nb_quantize_report *r);
/* Every matrix as an array of objects (or a table for people). */
nb_status nb_quantize_matrices(nb_table **out, const nb_quantize_report *r, bool awq, nb_error *err);

/* Warnings to stderr, the report as text or JSON to stdout. */
/* On stderr, before a run: memory, disk, size of the result, and roughly how long. */
nb_status nb_quantize_note_plan(const nb_plan *p, const nb_quantize_options *q, nb_pool *pool, nb_error *err);
struct nb_proof;
nb_status nb_quantize_print_report(const nb_quantize_report *r, const struct nb_proof *proof, nb_error *err);
nb_status nb_quantize_print_plan(const nb_plan *p, bool spool, const nb_quantize_flags *opt, nb_error *err);

#endif
