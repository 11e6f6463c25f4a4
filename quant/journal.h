/* journal.h - what a long job has finished, in OUT.job/journal.jsonl: one line for each thing that must not change, and one for each
 * layer whose tensors are on disk. */
#ifndef NB_JOURNAL_H
#define NB_JOURNAL_H

#include "quant/float_layer.h"
#include "quant/pipeline.h"

typedef struct nb_journal nb_journal;

typedef struct {
    uint64_t         bytes, hash; /* of the layer's tensors as written (nb_writer_hash) */
    float            site_max[NB_SITES];
    nb_matrix_report matrices[NB_LINEARS]; /* without names */
} nb_layer_record;

/* Makes OUT.job when it is missing and locks it.  Lines after the first damaged one are dropped; without resume all are. */
nb_status nb_journal_open(nb_journal **out, const char *out_dir, bool resume, nb_error *err);
/* Something that the result depends on: written down the first time, and refused by name when it is another one now. */
nb_status nb_journal_identity(nb_journal *j, const char *what, uint64_t hash, nb_error *err);
size_t    nb_journal_layers(const nb_journal *j); /* finished, from the first on */
const nb_layer_record *nb_journal_layer(const nb_journal *j, size_t layer);
/* The next layer is finished; its tensors must be on disk already. */
nb_status nb_journal_add(nb_journal *j, const nb_layer_record *record, nb_error *err);
/* Layers from this one on are not finished after all. */
nb_status nb_journal_forget(nb_journal *j, size_t layer, nb_error *err);
/* Removes it when the job is done or has nothing to go on from. */
void      nb_journal_close(nb_journal *j, bool done);

#endif
