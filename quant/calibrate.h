/* calibrate.h - run the float model over conversations once and keep the statistics of all linear inputs as an artifact. */
#ifndef NB_CALIBRATE_H
#define NB_CALIBRATE_H

#include "calib/artifact.h"
#include "quant/pipeline.h"

typedef struct {
    const char        *model_dir, *out_dir;
    const nb_lora     *loras; /* [lora_count] */
    size_t             lora_count;
    nb_samples_options data;
    float              modality_weights[NB_MODALITIES];
    bool               per_modality; /* the weights are chosen by whoever quantizes */
    bool               force;
    bool               anew;         /* what an interrupted run left is not used */
} nb_calibrate_options;

typedef struct {
    nb_artifact_info info;
    size_t           too_long, taken; /* taken: layers of an interrupted run */
    uint64_t         bytes;
    double           seconds, forward_s, gram_s, write_s;
    nb_buf           adapters;       /* what was merged, one line each */
    nb_buf           notes;
} nb_calibrate_report;
void nb_calibrate_report_free(nb_calibrate_report *r);

/* An interrupted run goes on from its last whole layer when it is repeated. */
nb_status nb_calibrate(const nb_ops *ops, const nb_calibrate_options *options, nb_progress *progress, void *context,
                       nb_calibrate_report *report, nb_error *err);
/* The artifact of all conversations of several artifacts. */
nb_status nb_calibrate_merge(nb_pool *pool, const char *const *directories, size_t count, const char *out_dir, bool force,
                             nb_progress *progress, void *context, nb_calibrate_report *report, nb_error *err);

#endif
