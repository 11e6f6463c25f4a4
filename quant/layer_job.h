/* layer_job.h - one decoder layer on its way through the quantizer, and the job that it belongs to. */
#ifndef NB_LAYER_JOB_H
#define NB_LAYER_JOB_H

#include "calib/stats.h"
#include "kernels/lane.h"
#include "quant/choice.h"
#include "quant/float_layer.h"
#include "quant/journal.h"
#include "quant/pipeline.h"
#include "quant/plain.h"
#include "quant/writer.h"
#include "quant/float_model.h"

typedef struct {
    const nb_ops       *ops;
    nb_quantize_options options; /* as resolved: a format that holds the grid */
    nb_progress        *progress;
    void               *context;
    nb_quantize_report *report;
    nb_float_model      source;
    nb_model           *model;   /* the source's */
    nb_samples          samples; /* empty for round to nearest and with an artifact; a share of them where there are ranks */
    size_t              tokens;  /* of all shares */
    nb_artifact        *artifact; /* statistics that were taken before; NULL: none */
    nb_choice           choice;  /* of every matrix */
    nb_samples          original; /* asymmetric calibration: the same through the original layers */
    char               *original_folder; /* of its states, when they are on disk; NULL: they never are */
    nb_plain            plain;
    nb_writer          *writer;
    nb_lane            *reader;  /* has the system read the next layer while this one is in work */
    nb_journal         *journal; /* NULL: not a job */
    uint64_t           *plain_hash; /* [shards] of the values outside the layers' matrices; NULL without a journal */
    nb_spool           *saver;   /* where hidden states that are in memory are saved now and then; NULL: nowhere */
    nb_spool           *original_saver;
    int                 finished, sites; /* layers that are on disk, and sites of the next one */
    int                 states;  /* the layer whose inputs the samples hold */
    bool                in_layer, stop; /* a stop that cannot be obeyed at once waits for the end of the layer */
    size_t              done, total; /* steps told to progress */
} nb_job;

/* Tell the world what comes next; NB_ERR_STOPPED when it wants no more. */
nb_status nb_job_step(nb_job *job, nb_error *err, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Time since start, and what was computed in it, belong to a phase. */
typedef struct {
    double wall, cpu;
} nb_moment;
nb_moment nb_moment_now(void);
void      nb_job_spent(nb_job *job, nb_phase phase, nb_moment start, double flop);

/* Announce the tensors of a layer to the writer. */
nb_status nb_layer_job_declare(nb_job *job, int layer, nb_error *err);
/* Read, measure, solve, write, and make the inputs of the next layer.  Its first job->sites sites are in the writer's folder. */
nb_status nb_layer_job_run(nb_job *job, int layer, nb_error *err);
/* Whether a layer is solved site by site and can be taken up between two of them: what the later ones need is on disk with the earlier
 * ones, or, for the scales of AWQ, is found again. */
bool      nb_layer_job_by_sites(const nb_job *job);
/* The inputs of the next layer from a layer that is already in the writer's folder, as nb_layer_job_run would have made them. */
nb_status nb_layer_job_replay(nb_job *job, int layer, nb_error *err);

#endif
