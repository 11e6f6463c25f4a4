/* quantize_flags.h - what `nibble quantize` was asked for, and its pages: the report and the plan. */
#ifndef NB_QUANTIZE_FLAGS_H
#define NB_QUANTIZE_FLAGS_H

#include "quant/plan.h"
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
    nb_strings  data, lora, keep, set;
    nb_data_sources sources; /* what data names */
    int         vision, lm_head, embeddings;
    uint64_t    shard_size, max_ram, target_size;
    double      target_bpw, target_kl;
    const char *spool;
    int64_t     spool_zstd;
} nb_quantize_flags;

/* What the choices of --method, --format, --act-order and --bits mean, in their order. */
extern const nb_method    nb_quantize_methods[];
extern const nb_format    nb_quantize_formats[];
extern const nb_act_order nb_quantize_orders[];
extern const int          nb_quantize_bits[];
extern const int          nb_quantize_vision[], nb_quantize_head[]; /* bits, 0: float; the embedding's are the head's */

/* --keep and --set as rules [*count], in the order of each; free with nb_quantize_free_rules. */
nb_status nb_quantize_rules(nb_choice_rule **out, size_t *count, const nb_strings *keep, const nb_strings *set, nb_error *err);
void      nb_quantize_free_rules(nb_choice_rule *rules, size_t count);

/* Warnings to stderr, the report as text or JSON to stdout. */
nb_status nb_quantize_print_report(const nb_quantize_report *r, const nb_quantize_flags *opt, const nb_args *args, const char *recipe,
                                   nb_error *err);
nb_status nb_quantize_print_plan(const nb_plan *p, bool spool, const nb_quantize_flags *opt, nb_error *err);

#endif
