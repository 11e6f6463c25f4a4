/* resume.h - going on with a job that was interrupted: what must be the same, what need not be done again, and what is written down
 * for the next time. */
#ifndef NB_RESUME_H
#define NB_RESUME_H

#include "quant/layer_job.h"

/* All do nothing for a job without a journal. */
nb_status nb_resume_open(nb_job *job, nb_error *err);
/* Before anything is written: the same options, files and headers as before. */
nb_status nb_resume_check_model(nb_job *job, nb_error *err);
/* A watcher for nb_plain_scan_with, and then: the same values as before. */
nb_plain_watcher nb_resume_look; /* context: the job */
nb_status nb_resume_check_plain(nb_job *job, nb_error *err);
/* Once the bits of every matrix are chosen: the same. */
nb_status nb_resume_check_choice(nb_job *job, nb_error *err);
/* Which layers and sites are whole on disk, and made from what the model still holds: job->finished, job->sites. */
nb_status nb_resume_find(nb_job *job, nb_error *err);
/* The samples, with hidden states from disk where they are: job->states.  Instead of nb_samples_load and nb_samples_embed, and, for
 * asymmetric calibration, of nb_samples_twin.  Without states when all layers are finished. */
nb_status nb_resume_load(nb_job *job, nb_error *err);
/* No layer will need the hidden states any more. */
void      nb_resume_drop_states(nb_job *job);
/* What the data is, from its hash; with an artifact, from what that was made of. */
nb_status nb_resume_check_data(const nb_job *job, nb_error *err);
/* Run the finished layers that the hidden states have not seen. */
nb_status nb_resume_replay(nb_job *job, nb_error *err);
/* A layer that was found unfinished is read: are its matrices those that its finished sites were made from? */
nb_status nb_resume_same_source(nb_job *job, int layer, const uint64_t source[NB_LINEARS], nb_error *err);
/* What was reported of the sites of this layer that an earlier run finished: finding AWQ's scales again reports anew. */
void      nb_resume_report_sites(nb_job *job);
/* A site or a layer was written: bring it to disk and write it down, and perhaps the hidden states. */
nb_status nb_resume_record_site(nb_job *job, int layer, int site, const uint64_t source[NB_LINEARS], nb_error *err);
nb_status nb_resume_record_layer(nb_job *job, int layer, const uint64_t source[NB_LINEARS], nb_error *err);
/* All is written and about to get its name. */
nb_status nb_resume_committing(nb_job *job, nb_error *err);
/* Frees the samples too.  keep: what there is stays for the next run. */
void      nb_resume_close(nb_job *job, bool keep);

#endif
