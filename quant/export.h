/* export.h - a checkpoint in another form: codes to another packing, codes to floats, other names, other shards, padding.
 *
 * Nothing is decided anew: a code stays the code that it was, or becomes the float that it means.  What a form cannot hold is
 * refused by name; what rounds is counted and told.
 */
#ifndef NB_EXPORT_H
#define NB_EXPORT_H

#include "kernels/threads.h"
#include "quant/pack.h"
#include "runtime/io/checkpoint.h"

typedef enum {
    NB_EXPORT_SAME, /* as it is: tensors are copied byte by byte, unless something is padded */
    NB_EXPORT_AWQ, NB_EXPORT_GPTQ, NB_EXPORT_GPTQ_V2, NB_EXPORT_CT,
    NB_EXPORT_BF16, NB_EXPORT_F16, NB_EXPORT_F32,
    NB_EXPORT_GGUF, /* a pair of files for llama.cpp: the language model, and mmproj-*.gguf with the tower */
} nb_export_form;

typedef struct {
    const char    *model_dir, *out_dir;
    nb_export_form form;
    int            layout;     /* nb_layout, or -1: the source's */
    int            tp;         /* the intermediate size is padded with zeros so that this many ranks divide it; 0: not */
    uint64_t       shard_size;
    bool           force;
} nb_export_options;

typedef struct {
    size_t   coded;        /* matrices of the result that have codes */
    size_t   dequantized;  /* ... that had codes in the source and have floats now */
    uint64_t bytes_in, bytes_out;
    uint64_t rounded;      /* values that the new type does not hold exactly */
    double   worst;        /* the largest relative change among them */
    char     worst_name[128];
    double   zero_error;   /* GGUF's Q4_1: the largest error of a zero point, in scales; 0: all are exact */
    int      intermediate; /* before and after padding */
    int      padded;
    double   seconds;
    nb_buf   notes;        /* a line each */
} nb_export_report;
void nb_export_report_free(nb_export_report *r);

/* Called before each matrix or tensor; false stops: NB_ERR_STOPPED, and nothing is left. */
typedef bool nb_export_progress(void *context, size_t done, size_t total, const char *what);

nb_status nb_export(const nb_export_options *options, nb_export_progress *progress, void *context, nb_export_report *report,
                    nb_error *err);

#endif
