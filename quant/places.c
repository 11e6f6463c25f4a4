/* places.c - see places.h. */
#include "quant/places.h"

#include <string.h>
#include <sys/stat.h>

#include "runtime/io/buf.h"

static bool same_folder(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* The model may stand neither where the result will be nor where it is written until then: a leftover there is removed. */
nb_status nb_places_check(const char *model_dir, const char *out_dir, nb_error *err)
{
    nb_buf partial = {0};
    nb_buf_str(&partial, out_dir);
    while (partial.size > 1 && partial.data[partial.size - 1] == '/') partial.size--;
    nb_buf_str(&partial, ".partial");
    nb_status status = nb_buf_status(&partial, "a path", err);
    if (!status && (same_folder(model_dir, out_dir) || same_folder(model_dir, partial.data)))
        status = nb_fail(err, NB_ERR_ARGUMENT, "%s: is the model itself, or written at its place; choose another output", out_dir);
    nb_buf_free(&partial);
    return status;
}
