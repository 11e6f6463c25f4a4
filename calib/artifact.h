/* artifact.h - the statistics of a model over a data set as a directory: made once, read by any number of quantizations, added up.
 *
 *     artifact.json    format and version, model, data, weights, arithmetic, counts
 *     layer-0000.stats one file a decoder layer: the exact sums of its four sites (stats.h), compressed and checksummed
 *
 * Everything in it is a sum over samples, and the sums are exact: artifacts of parts of a data set, added in any order, are the
 * artifact of the whole, to the byte.  So nothing in it tells how the data was cut: no paths, no numbers of rows.
 */
#ifndef NB_ARTIFACT_H
#define NB_ARTIFACT_H

#include "calib/samples.h"

typedef struct {
    uint64_t model;                 /* nb_artifact_model */
    uint64_t data;                  /* sum of the samples' hashes */
    int      layers, k[NB_SITES];
    bool     per_modality;          /* sums are kept apart by modality, each token with weight 1 */
    float    weights[NB_MODALITIES]; /* of a token in the sums; all 1 when they are apart */
    char     arithmetic[32];        /* names of the levels that made the sums: "avx512", "avx2+avx512" */
    uint64_t samples, tokens[NB_TOKEN_KINDS]; /* that count, by modality; and those that do not (--loss-on) */
} nb_artifact_info;

static inline int nb_artifact_parts(const nb_artifact_info *info)
{
    return info->per_modality ? NB_MODALITIES : 1;
}

/* What tells two models apart: config.json, and of each tensor the name, type, shape and some rows as they are read, adapters
 * merged.  It does not depend on how the tensors lie in files. */
nb_status nb_artifact_model(uint64_t *out, const nb_checkpoint *c, nb_error *err);
/* Bytes of the layer files before compression, and so at most. */
uint64_t  nb_artifact_bytes(const nb_artifact_info *info);
/* The information about two together.  What keeps them apart is NB_ERR_INPUT and says which: another model, other weights, the same
 * data twice.  names: what to call them. */
nb_status nb_artifact_join(nb_artifact_info *a, const nb_artifact_info *b, const char *a_name, const char *b_name, nb_error *err);

/* ---- reading: one artifact, or several as one ----------------------------------------------------------------------- */

typedef struct nb_artifact nb_artifact;

/* A newer version, another format and what is missing are refused by name; layer files are checked as they are read. */
nb_status nb_artifact_open(nb_artifact **out, const char *const *directories, size_t count, nb_error *err);
void      nb_artifact_close(nb_artifact *a);
const nb_artifact_info *nb_artifact_about(const nb_artifact *a);
/* The sums of a site on top of *s, which has its k; part: a modality, or 0.  A damaged chunk is named. */
nb_status nb_artifact_add(const nb_artifact *a, nb_stats *s, int layer, nb_site site, int part, nb_pool *pool, nb_error *err);

/* ---- writing -------------------------------------------------------------------------------------------------------- */

typedef struct nb_artifact_writer nb_artifact_writer;

/* Works in DIR.partial, which is locked; DIR must not exist, unless force.  Layers that an interrupted run of the same information
 * left there count as written when they are whole; any other leftover is removed. */
nb_status nb_artifact_create(nb_artifact_writer **out, const char *directory, const nb_artifact_info *info, bool force, bool anew,
                             nb_error *err);
bool      nb_artifact_has(const nb_artifact_writer *w, int layer);
/* All sites of a layer: stats[site * parts + part], carried.  On disk, whole, when this returns. */
nb_status nb_artifact_put(nb_artifact_writer *w, int layer, nb_stats *stats, nb_pool *pool, nb_error *err);
/* All layers are there: DIR appears. */
nb_status nb_artifact_commit(nb_artifact_writer *w, nb_error *err);
uint64_t  nb_artifact_written(const nb_artifact_writer *w); /* bytes of the layer files */
/* Without a commit DIR.partial stays for the next run, unless it holds no layer. */
void      nb_artifact_writer_free(nb_artifact_writer *w);

#endif
