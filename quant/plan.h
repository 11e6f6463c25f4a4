/* plan.h - what a quantization will take, from the model's config and headers alone: peak memory, disk, size of the result. */
#ifndef NB_PLAN_H
#define NB_PLAN_H

#include "quant/pipeline.h"

enum { NB_PLAN_UNKNOWN = 0 }; /* hidden states of a set whose size is not known before it was read */

/* Bytes, each at most; what is not in memory at the same time is not added up. */
typedef struct {
    uint64_t fixed;      /* program, tokenizer, small arrays, what the allocator keeps */
    uint64_t model;      /* embedding and vision tower, packed; gone once the data is embedded, and back to judge */
    uint64_t head;       /* the head, for who needs logits */
    uint64_t layer;      /* one decoder layer: as it was read, and in f32 what is so at a time */
    uint64_t packed;     /* the same in the backend's order, to be run */
    uint64_t statistics; /* the Gram matrices that are needed at a time */
    uint64_t solver;     /* work space, for the largest matrix */
    uint64_t batch;      /* activations of one batch */
    uint64_t work;       /* the most that a layer, its statistics, solver and batch take at a time */
    uint64_t pass;       /* measuring what bits cost, before the layers; 0: not asked for */
    uint64_t picture;    /* embedding one conversation, pixels included */
    uint64_t tensor;     /* the largest tensor that is copied */
    uint64_t tokens;     /* calibration tokens, or NB_PLAN_UNKNOWN */
    uint64_t hidden;     /* their states, or NB_PLAN_UNKNOWN */
    uint64_t judge;      /* peak while both models run over the held-out conversations, states on disk; 0: not asked for */
    uint64_t judge_hidden; /* their states */
    uint64_t answers;    /* peak while one model answers questions, all its layers in memory; 0: not asked for.  Not part of ram: who
                          * has less goes without */
    uint64_t ram;        /* peak with hidden states in memory, or NB_PLAN_UNKNOWN */
    uint64_t ram_spool;  /* peak with hidden states on disk: the smallest budget that works */
    uint64_t vram;       /* of these, what is on the GPU where one computes: weights that are run, activations */
    uint64_t disk_spool; /* two generations, as if nothing could be compressed, or NB_PLAN_UNKNOWN */
    uint64_t output;     /* tensors of the result */
} nb_plan;

/* Tokens are bounded by data.samples and data.seq_len (the model's longest context without one). */
nb_status nb_plan_make(nb_plan *out, const nb_quantize_options *options, int threads, nb_error *err);
/* The same for nb_calibrate with this model and data: no solver, and output is the artifact before compression. */
nb_status nb_plan_make_calibration(nb_plan *out, const nb_quantize_options *options, bool per_modality, int threads, nb_error *err);
/* Whether hidden states have to go to disk to stay within max_ram (0: no limit); NB_ERR_BUDGET when that is not enough. */
nb_status nb_plan_fit(const nb_plan *p, uint64_t max_ram, bool *spool, nb_error *err);

#endif
