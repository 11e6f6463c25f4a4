/* export_job.h - an export under way: what its files share. */
#ifndef NB_EXPORT_JOB_H
#define NB_EXPORT_JOB_H

#include "quant/export.h"
#include "quant/export_source.h"
#include "quant/plain.h"
#include "quant/writer.h"

typedef struct {
    nb_export_options   options;
    nb_export_progress *progress;
    void               *context;
    nb_export_report   *report;
    nb_writer          *writer;
    nb_source           source;
    nb_export_form      form;     /* not SAME */
    nb_choice           choice;   /* of the result's matrices */
    bool                permuted; /* some matrix of the layers has a g_idx */
    nb_plain            plain;    /* of float tensors beside codes */
    size_t              done, total;
} nb_export_job;

/* Tell the world what comes next; NB_ERR_STOPPED when it wants no more. */
nb_status nb_export_step(nb_export_job *job, const char *what, nb_error *err);
/* Values to a float type; what rounds is counted in the report, what becomes infinite is refused. */
nb_status nb_export_convert(nb_export_job *job, void *out, nb_dtype to, const float *values, size_t count, const char *name, nb_error *err);
/* Recipe, report and whatever else the source's maker left beside the model. */
nb_status nb_export_papers(nb_export_job *job, nb_error *err);
/* The pair of files for llama.cpp. */
nb_status nb_export_gguf(nb_export_job *job, nb_error *err);

#endif
