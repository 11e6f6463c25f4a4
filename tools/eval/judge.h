/* judge.h - a whole comparison of two models on held-out conversations, a layer at a time.
 *
 * Both models stand in memory without their decoder layers (NB_OPEN_NO_LAYERS).  Each layer of each is read, run over the hidden
 * states of all conversations, and dropped; then the two heads run side by side, a few rows at a time, into divergence.h.  So a
 * judge needs little more memory than the quantizer did, whatever the size of the model, and reads every weight once.  A row of
 * the forward pass depends on nothing but its own conversation, so the figures are those of `nibble eval` on the same rows, bit
 * for bit.
 */
#ifndef NB_JUDGE_H
#define NB_JUDGE_H

#include "calib/samples.h"
#include "tools/eval/divergence.h"

typedef struct {
    nb_divergence divergence;
    size_t        too_long, bad; /* conversations left out by data.seq_len, and those that could not be read */
    char          first_bad[256];
    uint64_t      by_modality[3]; /* tokens */
    float        *residual;      /* [layers] largest |x| of the quantized model's hidden states behind each layer */
    int           layers;
} nb_judgement;
void nb_judgement_free(nb_judgement *j);

/* Called before each of `total` steps; false stops: NB_ERR_STOPPED. */
typedef bool nb_judge_step(void *context, size_t done, size_t total, const char *what);

/* data: which conversations, as for calibration (data.spool: hidden states go to disk, in folders in it; kv_type is set
 * here; data.seen hears of each once).  The models' layers are left as they were found: unloaded. */
nb_status nb_judge(nb_judgement *out, nb_model *original, nb_model *quantized, const nb_samples_options *data, nb_judge_step *step,
                   void *context, nb_error *err);

#endif
