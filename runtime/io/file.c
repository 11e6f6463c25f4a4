/* file.c - whole files in, whole files out.
 *
 * Written files go through a temporary name and a rename, so that a reader, a crash or a full disk never leaves half a
 * file under the real name.  A failed fsync is final: the kernel may already have dropped the dirty pages, so trying
 * again would report a success that is not on the disk.  Nothing here maps files: a mapped file that shrinks is a
 * signal, a file read with pread is an error message. */
#include "runtime/io/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { COPY_CHUNK = 1 << 20 };

/* ---- names ----------------------------------------------------------------------------------------------------------- */

bool nb_file_exists(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0;
}

bool nb_is_directory(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

char *nb_path_join(const char *a, const char *b)
{
    size_t n = strlen(a);
    if (b[0] == '/' || n == 0) return nb_strdup(b);
    char *path;
    if (asprintf(&path, a[n - 1] == '/' ? "%s%s" : "%s/%s", a, b) < 0) return NULL;
    return path;
}

char *nb_path_folder(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--; /* "a/b/" is named b, its folder is a */
    while (n > 0 && path[n - 1] != '/') n--;
    while (n > 1 && path[n - 1] == '/') n--;
    return n == 0 ? nb_strdup(".") : strndup(path, n);
}

/* ---- reading --------------------------------------------------------------------------------------------------------- */

static const char *kind_of(mode_t mode)
{
    return S_ISDIR(mode)  ? "a folder"
           : S_ISFIFO(mode) ? "a FIFO"
           : S_ISSOCK(mode) ? "a socket"
                            : "a device";
}

nb_status nb_open_regular(int *fd, uint64_t *size, const char *path, nb_error *err)
{
    *fd   = -1;
    int f = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (f < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
        return nb_fail(err, NB_ERR_INPUT, "%s: %s", path, errno == ELOOP ? strerror(errno) : "there is no such file");
    if (f < 0 && errno == ENXIO) return nb_fail(err, NB_ERR_INPUT, "%s: is a socket or a device, expected a file", path);
    if (f < 0) return nb_fail(err, NB_ERR_IO, "%s: cannot open for reading: %s", path, strerror(errno));
    struct stat s;
    if (fstat(f, &s) != 0) {
        int e = errno;
        close(f);
        return nb_fail(err, NB_ERR_IO, "%s: cannot find its size: %s", path, strerror(e));
    }
    if (!S_ISREG(s.st_mode)) {
        close(f);
        return nb_fail(err, NB_ERR_INPUT, "%s: is %s, expected a file", path, kind_of(s.st_mode));
    }
    if (size) *size = (uint64_t)s.st_size;
    *fd = f;
    return NB_OK;
}

nb_status nb_read_at(int fd, void *dst, size_t n, uint64_t offset, const char *path, nb_error *err)
{
    uint64_t end;
    if (__builtin_add_overflow(offset, (uint64_t)n, &end) || end > INT64_MAX)
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: bytes %llu + %zu are beyond what a file can hold", path,
                       (unsigned long long)offset, n);
    for (size_t done = 0; done < n;) {
        ssize_t got = pread(fd, (char *)dst + done, n - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            return nb_fail(err, NB_ERR_IO, "%s: cannot read %zu bytes at byte %llu: %s", path, n - done,
                           (unsigned long long)(offset + done), strerror(errno));
        if (got == 0)
            return nb_fail(err, NB_ERR_INPUT,
                           "%s: ends at byte %llu, %zu bytes short: it was cut off or changed while in use", path,
                           (unsigned long long)(offset + done), n - done);
        done += (size_t)got;
    }
    return NB_OK;
}

nb_status nb_file_read(nb_buf *out, const char *path, size_t limit, nb_error *err)
{
    *out = (nb_buf){0};
    int      fd;
    uint64_t size;
    NB_TRY(nb_open_regular(&fd, &size, path, err));
    nb_status status = NB_OK;
    if (size > limit)
        status = nb_fail(err, NB_ERR_INPUT, "%s: has %llu bytes, more than the %zu allowed for it", path,
                         (unsigned long long)size, limit);
    else if (size >= SIZE_MAX || !(out->data = malloc((size_t)size + 1)))
        status = nb_fail(err, NB_ERR_MEMORY, "%s: no memory for its %llu bytes", path, (unsigned long long)size);
    if (status == NB_OK) status = nb_read_at(fd, out->data, (size_t)size, 0, path, err);
    close(fd);
    if (status != NB_OK) {
        nb_buf_free(out);
        return status;
    }
    out->size       = (size_t)size;
    out->capacity   = (size_t)size + 1;
    out->data[size] = 0;
    return NB_OK;
}

/* ---- writing --------------------------------------------------------------------------------------------------------- */

nb_status nb_write_all(int fd, const void *src, size_t n, const char *path, nb_error *err)
{
    for (size_t done = 0; done < n;) {
        ssize_t put = write(fd, (const char *)src + done, n - done);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0)
            return nb_fail(err, NB_ERR_IO, "%s: cannot write %zu of %zu bytes: %s", path, n - done, n,
                           put < 0 ? strerror(errno) : "the system took none of them");
        done += (size_t)put;
    }
    return NB_OK;
}

nb_status nb_fsync_folder(const char *path, nb_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return nb_fail(err, NB_ERR_IO, "%s: cannot open the folder: %s", path, strerror(errno));
    int e = fsync(fd) == 0 ? 0 : errno;
    close(fd);
    /* Some network and FUSE file systems know no fsync of a folder and say so; any other refusal is a real one. */
    if (e != 0 && e != EINVAL && e != ENOTSUP)
        return nb_fail(err, NB_ERR_IO, "%s: cannot flush the folder to disk: %s", path, strerror(e));
    return NB_OK;
}

/* Flush and close; fd is closed whatever happens. */
static nb_status finish(int fd, const char *path, nb_error *err)
{
    int e = fsync(fd) == 0 ? 0 : errno;
    if (close(fd) != 0 && e == 0) e = errno;
    if (e != 0) return nb_fail(err, NB_ERR_IO, "%s: cannot flush to disk: %s", path, strerror(e));
    return NB_OK;
}

/* A new file beside path under a name that nobody can guess or share.  *name is malloc'd. */
static nb_status create_temporary(int *fd, char **name, const char *folder, const char *path, nb_error *err)
{
    *fd   = -1;
    *name = NULL;
    for (int attempt = 0; attempt < 16; attempt++) {
        uint64_t random;
        if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
            return nb_fail(err, NB_ERR_IO, "%s: cannot get random bytes for a temporary name: %s", path, strerror(errno));
        if (asprintf(name, "%s/.nibble-%016llx.tmp", folder, (unsigned long long)random) < 0) {
            *name = NULL;
            return nb_fail(err, NB_ERR_MEMORY, "%s: no memory for a temporary name", path);
        }
        *fd = open(*name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (*fd >= 0) return NB_OK;
        int e = errno;
        free(*name);
        *name = NULL;
        if (e != EEXIST)
            return nb_fail(err, NB_ERR_IO, "%s: cannot create a file in folder '%s': %s", path, folder, strerror(e));
    }
    return nb_fail(err, NB_ERR_IO, "%s: cannot find a free temporary name in folder '%s'", path, folder);
}

void nb_remove_temporaries(const char *folder)
{
    DIR *names = opendir(folder);
    for (struct dirent *e; names && (e = readdir(names)) != NULL;) {
        size_t n = strlen(e->d_name);
        if (n == strlen(".nibble-0123456789abcdef.tmp") && !strncmp(e->d_name, ".nibble-", 8) && !strcmp(e->d_name + n - 4, ".tmp"))
            unlinkat(dirfd(names), e->d_name, 0);
    }
    if (names) closedir(names);
}

nb_status nb_new_file_open(nb_new_file *f, const char *path, nb_error *err)
{
    *f = (nb_new_file){.fd = -1, .path = path, .folder = nb_path_folder(path)};
    if (!f->folder) return nb_fail(err, NB_ERR_MEMORY, "%s: no memory for its folder's name", path);
    nb_status status = create_temporary(&f->fd, &f->name, f->folder, path, err);
    if (status != NB_OK) free(f->folder);
    return status;
}

nb_status nb_new_file_close(nb_new_file *f, nb_status status, nb_error *err)
{
    nb_status finished = finish(f->fd, f->path, status == NB_OK ? err : NULL);
    if (status == NB_OK) status = finished;
    if (status == NB_OK && rename(f->name, f->path) != 0)
        status = nb_fail(err, NB_ERR_IO, "%s: cannot be replaced: %s", f->path, strerror(errno));
    if (status != NB_OK) unlink(f->name);
    if (status == NB_OK) status = nb_fsync_folder(f->folder, err);
    free(f->name);
    free(f->folder);
    return status;
}

nb_status nb_file_write_atomic(const char *path, const void *data, size_t n, nb_error *err)
{
    nb_new_file f;
    NB_TRY(nb_new_file_open(&f, path, err));
    return nb_new_file_close(&f, nb_write_all(f.fd, data, n, path, err), err);
}

nb_status nb_file_copy(const char *from, const char *to, nb_error *err)
{
    int      in;
    uint64_t size;
    NB_TRY(nb_open_regular(&in, &size, from, err));
    int       out    = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    nb_status status = NB_OK;
    if (out < 0) status = nb_fail(err, NB_ERR_IO, "%s: cannot be created: %s", to, strerror(errno));
    char *chunk = NULL;
    if (status == NB_OK && !(chunk = malloc(COPY_CHUNK)))
        status = nb_fail(err, NB_ERR_MEMORY, "%s: no memory to copy it", from);
    for (uint64_t at = 0; status == NB_OK && at < size;) {
        size_t n = size - at < COPY_CHUNK ? (size_t)(size - at) : COPY_CHUNK;
        status   = nb_read_at(in, chunk, n, at, from, err);
        if (status == NB_OK) status = nb_write_all(out, chunk, n, to, err);
        at += n;
    }
    free(chunk);
    close(in);
    if (out < 0) return status;
    nb_status finished = finish(out, to, status == NB_OK ? err : NULL);
    if (status == NB_OK) status = finished;
    if (status != NB_OK) unlink(to);
    return status;
}

/* One pass over the names of a folder.  First only looking, so that a folder with folders in it is left as it was;
 * then removing. */
static nb_status visit_folder(int fd, DIR *names, bool unlinking, const char *path, nb_error *err)
{
    rewinddir(names);
    for (;;) {
        errno            = 0;
        struct dirent *e = readdir(names);
        if (!e && errno != 0) return nb_fail(err, NB_ERR_IO, "%s: cannot list the folder: %s", path, strerror(errno));
        if (!e) return NB_OK;
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        struct stat s;
        if (unlinking) {
            if (unlinkat(fd, e->d_name, 0) != 0 && errno != ENOENT)
                return nb_fail(err, NB_ERR_IO, "%s/%s: cannot be removed: %s", path, e->d_name, strerror(errno));
        } else if (fstatat(fd, e->d_name, &s, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(s.st_mode)) {
            return nb_fail(err, NB_ERR_IO, "%s: not removed, because it holds the folder '%s'", path, e->d_name);
        }
    }
}

nb_status nb_remove_folder(const char *path, nb_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) return NB_OK;
    if (fd < 0) return nb_fail(err, NB_ERR_IO, "%s: is not a folder that can be removed: %s", path, strerror(errno));
    DIR *names = fdopendir(fd);
    if (!names) {
        close(fd);
        return nb_fail(err, NB_ERR_IO, "%s: cannot list the folder: %s", path, strerror(errno));
    }
    nb_status status = visit_folder(fd, names, false, path, err);
    if (status == NB_OK) status = visit_folder(fd, names, true, path, err);
    closedir(names);
    if (status == NB_OK && rmdir(path) != 0)
        status = nb_fail(err, NB_ERR_IO, "%s: cannot be removed: %s", path, strerror(errno));
    return status;
}
