/* artifact_flag.c - cutting lists of folders. */
#include "tools/artifact_flag.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/io/file.h"

void nb_artifact_list_free(char **list, size_t count)
{
    for (size_t i = 0; list && i < count; i++) free(list[i]);
    free(list);
}

static nb_status add(char ***list, size_t *capacity, size_t *count, const char *text, size_t n, nb_error *err)
{
    if (n == 0) return nb_fail(err, NB_ERR_ARGUMENT, "a list of artifacts has an empty name in it");
    NB_TRY(nb_grow(list, capacity, *count + 1, sizeof **list, "artifacts", err));
    (*list)[*count] = strndup(text, n);
    if (!(*list)[*count]) return nb_fail(err, NB_ERR_MEMORY, "out of memory for the names of artifacts");
    ++*count;
    return NB_OK;
}

nb_status nb_artifact_list(char ***out, size_t *count, const nb_strings *given, nb_error *err)
{
    size_t    capacity = 0;
    nb_status status = NB_OK;
    *out = NULL;
    *count = 0;
    for (int i = 0; i < given->count && !status; i++) {
        const char *at = given->items[i];
        if (nb_is_directory(at)) {
            status = add(out, &capacity, count, at, strlen(at), err);
            continue;
        }
        for (bool more = true; more && !status;) {
            size_t n = strcspn(at, ",");
            status = add(out, &capacity, count, at, n, err);
            more = at[n] == ',';
            at += n + more;
        }
    }
    if (!status) return NB_OK;
    nb_artifact_list_free(*out, *count);
    *out = NULL;
    *count = 0;
    return status;
}
