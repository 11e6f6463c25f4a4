/* artifact_flag.h - lists of artifact folders on a command line: the flag again, or a comma. */
#ifndef NB_ARTIFACT_FLAG_H
#define NB_ARTIFACT_FLAG_H

#include "tools/cli/args.h"

/* Each item of `given` cut at commas, unless a folder really has such a name.  *out [*count] is freed with nb_artifact_list_free. */
nb_status nb_artifact_list(char ***out, size_t *count, const nb_strings *given, nb_error *err);
void      nb_artifact_list_free(char **list, size_t count);

#endif
