/* file.h - reading whole files with a limit, and writing files that are complete or absent. */
#ifndef NB_FILE_H
#define NB_FILE_H

#include "runtime/io/buf.h"

/* Open for reading, close-on-exec, without ever waiting: only a regular file (or a link to one) is accepted, so that a FIFO
 * or a device named in a hostile index cannot hang the program.  *fd is -1 after a failure; size may be NULL. */
nb_status nb_open_regular(int *fd, uint64_t *size, const char *path, nb_error *err);
/* Read a regular file (not a FIFO, device or directory) of at most `limit` bytes.  out->data is NUL-terminated. */
nb_status nb_file_read(nb_buf *out, const char *path, size_t limit, nb_error *err);
bool      nb_file_exists(const char *path);
bool      nb_is_directory(const char *path);
/* Join with one '/'; an absolute b replaces a.  malloc'd; NULL on no memory. */
char     *nb_path_join(const char *a, const char *b);
/* The folder of a path ("." when it has none).  malloc'd. */
char     *nb_path_folder(const char *path);

/* A file that is written piece by piece (nb_write_all to fd) and then stands at path whole, or not at all: a unique temporary
 * name in the same folder, fsync, rename over path, fsync of the folder. */
typedef struct {
    int         fd;
    char       *name, *folder; /* the temporary name */
    const char *path;          /* the caller's */
} nb_new_file;
nb_status nb_new_file_open(nb_new_file *f, const char *path, nb_error *err);
/* status: how the writing went.  Unless that and all of the rest is well the temporary file is removed, and what stood at path
 * is untouched (or, when only the last fsync failed, replaced whole).  Returns the first failure. */
nb_status nb_new_file_close(nb_new_file *f, nb_status status, nb_error *err);

/* Remove the temporary files that writers in this folder left when they were killed.  Only for a folder in which nobody else writes. */
void nb_remove_temporaries(const char *folder);
/* Write to a unique temporary name in the same folder, fsync, rename over path, fsync the folder.  On any failure the
 * temporary file is gone and what stood at path is untouched (or, when only the last fsync failed, replaced whole). */
nb_status nb_file_write_atomic(const char *path, const void *data, size_t n, nb_error *err);
/* Copy a regular file, fsync'ed.  The destination must not exist. */
nb_status nb_file_copy(const char *from, const char *to, nb_error *err);
nb_status nb_fsync_folder(const char *path, nb_error *err);
/* Remove a folder and the plain files in it (no recursion into folders).  Missing is fine. */
nb_status nb_remove_folder(const char *path, nb_error *err);
/* pread/pwrite all of it, EINTR and short transfers handled.  `path` is for the message. */
nb_status nb_read_at(int fd, void *dst, size_t n, uint64_t offset, const char *path, nb_error *err);
nb_status nb_write_all(int fd, const void *src, size_t n, const char *path, nb_error *err);

#endif
