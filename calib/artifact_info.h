/* artifact_info.h - artifact.json, for the files of the artifact. */
#ifndef NB_ARTIFACT_INFO_H
#define NB_ARTIFACT_INFO_H

#include "calib/artifact.h"
#include "calib/artifact_chunk.h"

void      nb_artifact_info_print(nb_buf *out, const nb_artifact_info *info);
nb_status nb_artifact_info_read(nb_artifact_info *out, const char *directory, nb_error *err);
/* Of a layer in a folder; malloc'd, NULL on no memory. */
char     *nb_artifact_layer_path(const char *directory, int layer);
size_t    nb_artifact_largest(const nb_artifact_info *info); /* words of a chunk */

#endif
