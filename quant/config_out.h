/* config_out.h - the small files of a quantised checkpoint: config.json with its quantization_config, and what is copied. */
#ifndef NB_CONFIG_OUT_H
#define NB_CONFIG_OUT_H

#include "quant/choice.h"
#include "quant/pack.h"
#include "quant/writer.h"

/* What a quantization_config says, whatever made the codes. */
typedef struct {
    nb_format        format;
    const nb_choice *choice;
    bool             permuted;        /* g_idx is not trivial */
    bool             static_groups, true_sequential;
    double           damp;
} nb_block_facts;

/* The block of a format, for cJSON_Delete; NULL without memory. */
cJSON *nb_config_block(const nb_block_facts *facts);
cJSON *nb_config_block_ct(const nb_block_facts *facts); /* ct_config.c */

/* Changes to the source's config.json. */
typedef struct {
    const nb_block_facts *block;        /* NULL: none, and one that is there goes */
    bool                  keep_block;   /* ... but for this: the source's stays, in whichever file it is */
    const char           *dtype;        /* "float16": what float tensors became; NULL: as it was */
    bool                  untied;       /* tie_word_embeddings false */
    int                   intermediate; /* 0: as it was */
} nb_config_edits;

/* Edits config.json of `directory` (everything else in it is kept), adds quantize_config.json for GPTQ, and copies tokenizer,
 * processor, template and generation settings. */
nb_status nb_config_out(nb_writer *w, const char *directory, const nb_config_edits *edits, nb_error *err);
/* The files that are copied where the source has them. */
extern const char *const nb_config_out_copied[];
extern const size_t      nb_config_out_copied_count;

#endif
