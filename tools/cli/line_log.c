/* line_log.c - see line_log.h. */
#include "tools/cli/line_log.h"

#include <errno.h>
#include <unistd.h>

/* A line that was not written to its end is not there. */
static nb_status cut_torn_line(FILE *f, const char *path, nb_error *err)
{
    long keep = fseek(f, 0, SEEK_END) == 0 ? ftell(f) : -1;
    for (bool whole = false; keep > 0 && !whole; keep -= !whole)
        whole = fseek(f, keep - 1, SEEK_SET) != 0 || fgetc(f) == '\n';
    if (keep < 0 || ferror(f) || fflush(f) != 0 || ftruncate(fileno(f), keep) != 0 || fseek(f, 0, SEEK_END) != 0)
        return nb_fail(err, NB_ERR_IO, "%s: cannot be gone on with: %m", path);
    return NB_OK;
}

nb_status nb_line_log_open(FILE **out, const char *path, bool resume, nb_error *err)
{
    nb_status status = NB_OK;
    *out = fopen(path, "wxe");
    if (!*out && errno == EEXIST && resume) {
        *out = fopen(path, "r+e");
        if (*out) status = cut_torn_line(*out, path, err);
    }
    if (!*out)
        return nb_fail(err, NB_ERR_IO, "%s: cannot be made (nothing is overwritten%s): %m", path, resume ? "" : "; --resume goes on with it");
    if (status != NB_OK) {
        fclose(*out);
        *out = NULL;
    }
    return status;
}

nb_status nb_line_log_add(FILE *f, const char *path, const nb_buf *line, nb_error *err)
{
    NB_TRY(nb_buf_status(line, path, err));
    if (fwrite(line->data, 1, line->size, f) != line->size || fflush(f) != 0) return nb_fail(err, NB_ERR_IO, "%s: cannot write: %m", path);
    return NB_OK;
}
