/* sums.c - SHA256SUMS as sha256sum(1) writes and checks it: one "digest  name" a line, files of this directory only.
 *
 * Written whole and renamed into place; the list is sorted, so that the same files give the same bytes. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/io/file.h"
#include "tools/cli/stop.h"
#include "tools/verify/verify.h"
#ifdef NIBBLE_CURL
#include "tools/hub/digest.h"
#endif

#define SUMS "SHA256SUMS"
enum { SUMS_LIMIT = 4 << 20 };

#ifdef NIBBLE_CURL
static bool go_on(void *context, const char *text, uint64_t n)
{
    (void)context, (void)text, (void)n;
    return !nb_stop_requested();
}

static nb_status digest(char out[65], const char *directory, const char *name, nb_error *err)
{
    uint64_t size;
    int      fd;
    char    *path = nb_path_join(directory, name);
    if (!path) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", directory);
    nb_status status = nb_open_regular(&fd, &size, path, err);
    if (status == NB_OK) status = nb_digest_file(out, fd, size, NB_DIGEST_SHA256, path, go_on, NULL, err);
    if (fd >= 0) close(fd);
    free(path);
    return status;
}
#else
static nb_status digest(char out[65], const char *directory, const char *name, nb_error *err)
{
    out[0] = 0;
    return nb_fail(err, NB_ERR_UNSUPPORTED, "%s/%s: this build has no SHA-256 (NIBBLE_CURL, which brings OpenSSL, is off)",
                   directory, name);
}
#endif

/* ---- checking ------------------------------------------------------------------------------------------------------------ */

/* One line, cut in place: 64 hexadecimal digits, two characters, a name without a folder. */
static bool split_line(char *line, char **name)
{
    size_t n = strlen(line);
    if (n && line[n - 1] == '\r') line[--n] = 0;
    if (n < 67 || strspn(line, "0123456789abcdefABCDEF") != 64 || line[64] != ' ') return false;
    line[64] = 0;
    *name = line + 66;
    for (char *c = line; *c; c++)
        if (*c >= 'A' && *c <= 'F') *c = (char)(*c + 32);
    return !strchr(*name, '/') && strcmp(*name, "..") && strcmp(*name, ".");
}

static nb_status check_line(const char *directory, char *line, int number, nb_findings *out, nb_error *err)
{
    char     got[65], where[64], *name;
    nb_error why = {0};
    if (!*line) return NB_OK;
    if (!split_line(line, &name)) {
        snprintf(where, sizeof where, SUMS ": line %d", number);
        nb_found(out, NB_ERROR, NB_FOR_ALL, 0, "sums", where, "write the list again with --write-sums",
                 "is not a digest and the name of a file here");
        return NB_OK;
    }
    nb_status status = digest(got, directory, name, &why);
    if (status == NB_ERR_STOPPED || status == NB_ERR_MEMORY || status == NB_ERR_UNSUPPORTED) {
        *err = why;
        return status;
    }
    if (status != NB_OK) nb_found(out, NB_ERROR, NB_FOR_ALL, 0, "sums", name, "download the file again", "%s", why.text);
    else if (strcmp(got, line))
        nb_found(out, NB_ERROR, NB_FOR_ALL, 0, "sums", name,
                 "download the file again, or list it anew with --write-sums if it was changed on purpose",
                 "has the SHA-256 %.16s..., " SUMS " says %.16s...", got, line);
    return NB_OK;
}

nb_status nb_sums_check(const char *directory, nb_findings *out, nb_error *err)
{
    nb_buf text = {0};
    char  *path = nb_path_join(directory, SUMS);
    if (!path) return nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", directory);
    nb_status status = nb_file_exists(path) ? nb_file_read(&text, path, SUMS_LIMIT, err) : NB_OK;
    int       number = 0;
    for (char *at = text.data, *line; status == NB_OK && at && (line = strsep(&at, "\n"));)
        status = check_line(directory, line, ++number, out, err);
    if (status == NB_ERR_UNSUPPORTED) {
        nb_found(out, NB_WARNING, NB_FOR_ALL, 0, "sums", SUMS, "check it with sha256sum -c", "%s", err->text);
        status = NB_OK;
    }
    nb_buf_free(&text);
    free(path);
    return status;
}

/* ---- writing ------------------------------------------------------------------------------------------------------------- */

static int listed(const struct dirent *e)
{
    return e->d_name[0] != '.' && strcmp(e->d_name, SUMS);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

nb_status nb_sums_write(const char *directory, size_t *files, nb_error *err)
{
    struct dirent **names;
    nb_buf          text = {0};
    nb_status       status = NB_OK;
    int             count = scandir(directory, &names, listed, by_name);
    *files = 0;
    if (count < 0) return nb_fail(err, NB_ERR_IO, "%s: cannot list it: %s", directory, strerror(errno));
    for (int i = 0; i < count && status == NB_OK; i++) {
        char        hex[65];
        struct stat st;
        char       *path = nb_path_join(directory, names[i]->d_name);
        bool        regular = path && stat(path, &st) == 0 && S_ISREG(st.st_mode);
        free(path);
        if (!regular) continue;
        if (strpbrk(names[i]->d_name, "\n\\")) {
            status = nb_fail(err, NB_ERR_INPUT, "%s/%s: a name with a line end or backslash cannot be listed; rename it",
                             directory, names[i]->d_name);
            break;
        }
        status = digest(hex, directory, names[i]->d_name, err);
        if (status == NB_OK) nb_buf_printf(&text, "%s  %s\n", hex, names[i]->d_name);
        *files += status == NB_OK;
    }
    for (int i = 0; i < count; i++) free(names[i]);
    free(names);
    char *path = nb_path_join(directory, SUMS);
    if (status == NB_OK && !path) status = nb_fail(err, NB_ERR_MEMORY, "%s: out of memory", directory);
    if (status == NB_OK) status = nb_buf_status(&text, SUMS, err);
    if (status == NB_OK) status = nb_file_write_atomic(path, text.data ? text.data : "", text.size, err);
    nb_buf_free(&text);
    free(path);
    return status;
}
