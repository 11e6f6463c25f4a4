/* pipeline.h - quantize a checkpoint: layer by layer statistics, solve, write; then the model as it will load elsewhere. */
#ifndef NB_PIPELINE_H
#define NB_PIPELINE_H

#include "calib/artifact.h"
#include "quant/awq.h"
#include "quant/choice.h"
#include "quant/gptq.h"
#include "quant/pack.h"
#include "quant/writer.h"

typedef enum { NB_METHOD_RTN, NB_METHOD_AWQ, NB_METHOD_GPTQ, NB_METHOD_AWQ_GPTQ } nb_method; /* AWQ_GPTQ: the scales of AWQ, the rounding of GPTQ */

typedef struct {
    const char *directory;
    double      scale; /* on top of the adapter's own */
} nb_lora;

/* A checkpoint that is whole but for its name: what a judge sees.  Files that it adds (nb_writer_file) appear with the rest. */
typedef struct {
    nb_model   *original;  /* adapters merged, layers not loaded; nb_model_reload_embedding before it computes anything */
    nb_writer  *writer;    /* nb_writer_partial is the folder */
    const struct nb_quantize_report *report;
} nb_quantized;
typedef nb_status nb_quantize_finish(void *context, const nb_quantized *q, nb_error *err);

typedef struct {
    const char *model_dir, *out_dir;
    const nb_lora *loras;            /* [lora_count] adapters merged into the model, one after the other */
    size_t      lora_count;
    nb_method   method;
    nb_grid     grid;                /* of matrices that no rule names */
    nb_format   format;
    const nb_choice_rule *rules;     /* [rule_count] bits of single matrices */
    size_t      rule_count;
    uint64_t    target_bytes;        /* size of the result's tensors that bits are chosen for; 0: none */
    double      target_bpw, target_kl; /* ... or bits a weight of the layers, or a divergence from the model; 0: none */
    int         vision, head, embeddings; /* bits of the tower's linears, the head, the embedding; 0: float */
    /* AWQ */
    int         awq_points;
    bool        awq_duo, awq_clip;
    /* GPTQ */
    double      damp, damp_max;
    int         block;
    nb_act_order order;
    bool        static_groups;
    float       mse;
    bool        true_sequential;     /* o sees quantised qkv, down sees quantised gate/up */
    bool        propagate_quantized; /* the next layer's inputs come from the quantised layer */
    bool        asym;                /* asymmetric calibration: each matrix makes good what those before it have lost */
    double      asym_damp;           /* ridge of that correction, as a share of the mean diagonal */
    nb_range    range;               /* how the range of a group is found */
    int         sweeps;              /* of coordinate descent after rounding; scales are re-fitted on the way */
    float       modality_weights[3];
    nb_samples_options data;         /* neither path nor sources: only RTN, or an artifact */
    const char *const *artifacts;    /* [artifact_count] folders with the statistics of the float model, which are added up: nothing is */
    size_t      artifact_count;      /* run then, and GPTQ sees the inputs that the float model would have had */
    uint64_t    shard_size;
    bool        force;
    bool        job;                 /* keep a journal: an interrupted run goes on when it is repeated */
    bool        anew;                /* ... but not this time */
    const char *job_dir;             /* its folder; NULL: OUT.job */
    const char *command_json;        /* written into it as command.json, for whoever wants to repeat the command; or NULL */
    int         save_states;         /* hidden states in memory are written to the journal's folder every so many layers; 0: never */
    const char *recipe_json;         /* written as recipe.json */
    /* Both with the context of nb_quantize.  go_on: asked between conversations too; false stops.  tell: one line for the log. */
    bool      (*go_on)(void *context);
    void      (*tell)(void *context, const char *line);
    nb_quantize_finish *finish;      /* the last step before OUT stands; NULL: none */
    void       *finish_context;
    int         judge_samples;       /* conversations that finish runs both models over, and answers it makes with each: */
    int         judge_answers;       /* for the plan only */
} nb_quantize_options;

typedef struct {
    char   name[64];  /* model.layers.0.self_attn.q_proj */
    double loss, rtn_loss, damp, ratio;
    int    dead;
    bool   fallback;
} nb_matrix_report;

/* Where the time of a run goes.  Arithmetic is counted as its formula says it, one multiplication and one addition as two. */
typedef enum {
    NB_PHASE_DATA,    /* reading the conversations and embedding them, pictures included */
    NB_PHASE_READ,    /* a layer from the checkpoint, or waiting for it */
    NB_PHASE_FORWARD, /* f32: 2 tokens n k a matrix, and causal attention */
    NB_PHASE_GRAM,    /* f32: tokens k^2 a site, by symmetry */
    NB_PHASE_FACTOR,  /* f64: k^3 / 3 a site */
    NB_PHASE_SOLVE,   /* f32: 2 n k^2 a matrix, the second half for the loss of rounding to nearest */
    NB_PHASE_PACK,    /* matrices into the order in which they are run, and codes into that of the file */
    NB_PHASE_SPOOL,   /* waiting for hidden states */
    NB_PHASE_WRITE,   /* waiting for files to be written */
    NB_PHASES
} nb_phase;
extern const char *const nb_phase_names[NB_PHASES];

/* cpu: of all threads; what else runs on the machine changes it little, and the seconds much. */
typedef struct {
    double seconds, cpu, flop;
} nb_phase_time;

typedef struct nb_quantize_report {
    nb_matrix_report *matrices; /* [count] 7 a layer */
    size_t   count;
    float   *site_max;              /* [layers, NB_SITES] largest |x| that calibration saw; zeros for round to nearest */
    size_t   samples, tokens, too_long;
    bool     artifact;              /* statistics were there already */
    nb_source_count *sources;       /* [source_count] what each data file gave */
    size_t   source_count;
    uint64_t tokens_by_modality[3];
    float    modality_weights[3];
    uint64_t counted;               /* tokens that count in the statistics */
    double   seconds;
    nb_phase_time phases[NB_PHASES];
    uint64_t bytes_in, bytes_out;   /* tensor bytes */
    uint64_t spool_bytes;           /* of a generation of hidden states on disk; 0: they were in memory */
    uint64_t pictures, pictures_new; /* seen, videos included, and run through the vision tower: the same one is not run again */
    size_t   resumed_layers, replayed_layers; /* found finished; of these, run again for their outputs */
    float    max_input;             /* largest |x| at any site: fp16 serving overflows beyond 65504 */
    nb_buf   adapters;              /* what was merged, one line each */
    nb_buf   notes;
    nb_buf   run_notes;             /* about this run, not about the result: no part of any file */
} nb_quantize_report;
/* Whether the result has inputs in an order of its own (g_idx). */
bool nb_quantize_permutes(const nb_quantize_options *options);
/* What nb_quantize settles before it reads weights: a format that holds what is asked for, with a line for every change, ... */
nb_status nb_quantize_resolve(nb_quantize_options *options, nb_buf *notes, nb_error *err);
/* ... and the bits of every matrix of a model with this config. */
nb_status nb_quantize_choose(nb_choice *out, const nb_quantize_options *options, const nb_config *config, nb_buf *notes, nb_error *err);
void nb_quantize_report_free(nb_quantize_report *r);

/* Called as work advances: done of total steps, what is being done.  Return false to stop: NB_ERR_STOPPED, and nothing
 * left, or with a job, once something is finished, what the same request goes on from. */
typedef bool nb_progress(void *context, size_t done, size_t total, const char *what);

nb_status nb_quantize(const nb_ops *ops, const nb_quantize_options *options, nb_progress *progress, void *context,
                      nb_quantize_report *report, nb_error *err);

#endif
