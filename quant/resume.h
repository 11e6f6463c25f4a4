/* resume.h - going on with a job that was interrupted: what must be the same, and which layers need not be solved again. */
#ifndef NB_RESUME_H
#define NB_RESUME_H

#include "quant/layer_job.h"

/* All do nothing for a job without a journal.  Before anything is written: the same model and options as before. */
nb_status nb_resume_check_model(nb_job *job, nb_error *err);
/* Once the samples are there: the same ones as before. */
nb_status nb_resume_check_data(nb_job *job, nb_error *err);
/* Take over the layers that are whole on disk, and make the inputs of the next one, *first. */
nb_status nb_resume_layers(nb_job *job, int *first, nb_error *err);
/* A layer was written: bring it to disk and write it down. */
nb_status nb_resume_record(nb_job *job, int layer, nb_error *err);

#endif
