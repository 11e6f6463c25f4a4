/* shim.c - a library for LD_PRELOAD that counts the calls which change files under a folder, and lets one of them go wrong.
 *
 *     FAULT_UNDER=DIR     the folder; calls on other paths pass uncounted
 *     FAULT_LOG=FILE      append "N call path" for each call (FILE is outside DIR)
 *     FAULT_AT=N          the call that goes wrong, counted from 1; without it none does
 *     FAULT_HOW=kill      the process is killed before the call
 *               torn      it is killed after the call, a write after its first half
 *               enospc    the call fails as on a full disk, and so do all later ones that need room
 *               edquot    the same for a user's share of the disk
 *               eio       the call fails once
 *               short     a write writes half and says so; other calls pass
 *
 * Counted are open for writing (openat), write, pwrite, fsync, fdatasync, fallocate, ftruncate, rename, mkdir, unlink (rmdir), and
 * close of what was opened for writing.  It stands between the program and libc: what libc calls by itself (stdio) is not seen.
 */
#undef _FORTIFY_SOURCE /* its inline open and write would be these */

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHOWN __attribute__((visibility("default")))
#define REAL(name) ((typeof(&name))real(#name))

enum { FILES = 4096 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char           *names[FILES]; /* path of each descriptor that was opened for writing under the folder */
static char            under[PATH_MAX], log_path[PATH_MAX], how[16];
static long            at, count;
static bool            ready, full; /* full: the disk stays so */

static void *real(const char *name)
{
    void *f = dlsym(RTLD_NEXT, name);
    if (!f) abort();
    return f;
}

static void start(void)
{
    if (ready) return;
    ready = true;
    const char *folder = getenv("FAULT_UNDER"), *log = getenv("FAULT_LOG"), *n = getenv("FAULT_AT"), *kind = getenv("FAULT_HOW");
    if (!folder || !realpath(folder, under)) under[0] = 0;
    snprintf(log_path, sizeof log_path, "%s", log ? log : "");
    snprintf(how, sizeof how, "%s", kind ? kind : "");
    at = n ? atol(n) : 0;
}

/* The absolute path of something that may not exist, in out; false when it is not under the folder. */
static bool inside(char out[PATH_MAX], const char *path)
{
    char folder[PATH_MAX], copy[PATH_MAX];
    start();
    if (!under[0]) return false;
    snprintf(copy, sizeof copy, "%s", path);
    size_t n = strlen(copy);
    while (n > 1 && copy[n - 1] == '/') copy[--n] = 0;
    char *slash = strrchr(copy, '/'), *name = slash ? slash + 1 : copy;
    if (slash) *slash = 0;
    if (!realpath(slash ? (*copy ? copy : "/") : ".", folder)) return false;
    snprintf(out, PATH_MAX, "%.2000s/%.2000s", folder, name);
    n = strlen(under);
    return !strncmp(out, under, n) && out[n] == '/';
}

static bool inside_at(char out[PATH_MAX], int folder, const char *path)
{
    char link[64], base[PATH_MAX], joined[PATH_MAX];
    if (folder == AT_FDCWD || path[0] == '/') return inside(out, path);
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t n = readlink(link, base, sizeof base - 1);
    if (n < 0) return false;
    base[n] = 0;
    snprintf(joined, sizeof joined, "%.2000s/%.2000s", base, path);
    return inside(out, joined);
}

/* What becomes of a call. */
typedef enum { PASS, FAIL, HALF, AFTER } fate;

/* Count a call; needs: it takes room on the disk.  errno is set for FAIL. */
static fate next(const char *call, const char *path, bool needs)
{
    pthread_mutex_lock(&lock);
    long n = ++count;
    if (log_path[0]) {
        char line[PATH_MAX + 64];
        int  size = snprintf(line, sizeof line, "%ld %s %s\n", n, call, path + strlen(under) + 1);
        int  fd = REAL(open)(log_path, O_WRONLY | O_APPEND | O_CREAT, 0666);
        if (fd >= 0 && REAL(write)(fd, line, (size_t)size) != size) abort();
        if (fd >= 0) REAL(close)(fd);
    }
    bool room = !strcmp(how, "enospc") || !strcmp(how, "edquot"), hit = n == at;
    fate result = PASS;
    if (hit && !strcmp(how, "kill")) raise(SIGKILL);
    if (hit && !strcmp(how, "torn")) result = AFTER;
    if (hit && !strcmp(how, "short")) result = HALF;
    if (hit && !strcmp(how, "eio")) result = FAIL, errno = EIO;
    if (hit && room) full = true;
    if (full && room && needs) {
        result = FAIL;
        errno = how[1] == 'n' ? ENOSPC : EDQUOT;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

/* The result of a call that was made, or death. */
static int done(fate f, int result)
{
    if (f == AFTER) raise(SIGKILL);
    return result;
}

static const char *name_of(int fd)
{
    return fd >= 0 && fd < FILES ? names[fd] : NULL;
}

static void remember(int fd, const char *path)
{
    if (fd < 0 || fd >= FILES) return;
    free(names[fd]);
    names[fd] = path ? strdup(path) : NULL;
}

/* ---- calls ----------------------------------------------------------------------------------------------------------- */

static int open_any(int folder, const char *path, int flags, mode_t mode)
{
    char full_path[PATH_MAX];
    bool writes = (flags & O_ACCMODE) != O_RDONLY && !(flags & O_DIRECTORY);
    bool ours = writes && inside_at(full_path, folder, path);
    fate f = ours ? next("openat", full_path, flags & O_CREAT && faccessat(folder, path, F_OK, 0)) : PASS;
    if (f == FAIL) return -1;
    int fd = done(f, REAL(openat)(folder, path, flags, mode));
    remember(fd, ours ? full_path : NULL);
    return fd;
}

#define MODE(flags)                                        \
    mode_t  mode = 0;                                      \
    va_list args;                                          \
    va_start(args, flags);                                 \
    if ((flags) & (O_CREAT | O_TMPFILE)) mode = va_arg(args, mode_t); \
    va_end(args)

SHOWN int open(const char *path, int flags, ...) { MODE(flags); return open_any(AT_FDCWD, path, flags, mode); }
SHOWN int open64(const char *path, int flags, ...) { MODE(flags); return open_any(AT_FDCWD, path, flags, mode); }
SHOWN int openat(int folder, const char *path, int flags, ...) { MODE(flags); return open_any(folder, path, flags, mode); }
SHOWN int openat64(int folder, const char *path, int flags, ...) { MODE(flags); return open_any(folder, path, flags, mode); }
SHOWN int __open_2(const char *path, int flags);
SHOWN int __open_2(const char *path, int flags) { return open_any(AT_FDCWD, path, flags, 0); }
SHOWN int __openat_2(int folder, const char *path, int flags);
SHOWN int __openat_2(int folder, const char *path, int flags) { return open_any(folder, path, flags, 0); }

SHOWN ssize_t write(int fd, const void *data, size_t n)
{
    const char *name = name_of(fd);
    fate        f = name ? next("write", name, true) : PASS;
    if (f == FAIL) return -1;
    ssize_t put = REAL(write)(fd, data, f == PASS || n < 2 ? n : n / 2);
    if (f == AFTER) raise(SIGKILL);
    return put;
}

static ssize_t pwrite_any(int fd, const void *data, size_t n, off_t offset)
{
    const char *name = name_of(fd);
    fate        f = name ? next("pwrite", name, true) : PASS;
    if (f == FAIL) return -1;
    ssize_t put = REAL(pwrite)(fd, data, f == PASS || n < 2 ? n : n / 2, offset);
    if (f == AFTER) raise(SIGKILL);
    return put;
}

SHOWN ssize_t pwrite(int fd, const void *data, size_t n, off_t offset) { return pwrite_any(fd, data, n, offset); }
SHOWN ssize_t pwrite64(int fd, const void *data, size_t n, off_t offset) { return pwrite_any(fd, data, n, offset); }

/* Folders are synced through descriptors that were opened for reading. */
static bool sync_name(char out[PATH_MAX], int fd)
{
    char        link[64], path[PATH_MAX];
    const char *name = name_of(fd);
    if (name) {
        snprintf(out, PATH_MAX, "%s", name);
        return true;
    }
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return false;
    path[n] = 0;
    start();
    if (under[0] && !strcmp(path, under)) {
        snprintf(out, PATH_MAX, "%.4000s/.", path);
        return true;
    }
    return inside(out, path);
}

SHOWN int fsync(int fd)
{
    char path[PATH_MAX];
    fate f = sync_name(path, fd) ? next("fsync", path, false) : PASS;
    return f == FAIL ? -1 : done(f, REAL(fsync)(fd));
}

SHOWN int fdatasync(int fd)
{
    char path[PATH_MAX];
    fate f = sync_name(path, fd) ? next("fdatasync", path, false) : PASS;
    return f == FAIL ? -1 : done(f, REAL(fdatasync)(fd));
}

SHOWN int ftruncate(int fd, off_t size)
{
    const char *name = name_of(fd);
    fate        f = name ? next("ftruncate", name, false) : PASS;
    return f == FAIL ? -1 : done(f, REAL(ftruncate)(fd, size));
}

SHOWN int fallocate(int fd, int mode, off_t from, off_t size)
{
    const char *name = name_of(fd);
    fate        f = name ? next("fallocate", name, true) : PASS;
    return f == FAIL ? -1 : done(f, REAL(fallocate)(fd, mode, from, size));
}

SHOWN int close(int fd)
{
    const char *name = name_of(fd);
    fate        f = name ? next("close", name, false) : PASS;
    if (name) remember(fd, NULL);
    int result = done(f, REAL(close)(fd)); /* it is closed whatever is said */
    if (f != FAIL) return result;
    errno = EIO;
    return -1;
}

SHOWN int rename(const char *from, const char *to)
{
    char path[PATH_MAX];
    fate f = inside(path, to) ? next("rename", path, false) : PASS;
    return f == FAIL ? -1 : done(f, REAL(rename)(from, to));
}

SHOWN int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
    char path[PATH_MAX];
    fate f = inside_at(path, to_folder, to) ? next("rename", path, false) : PASS;
    return f == FAIL ? -1 : done(f, REAL(renameat2)(from_folder, from, to_folder, to, flags));
}

SHOWN int mkdir(const char *name, mode_t mode)
{
    char path[PATH_MAX];
    fate f = inside(path, name) ? next("mkdir", path, true) : PASS;
    return f == FAIL ? -1 : done(f, REAL(mkdir)(name, mode));
}

SHOWN int unlink(const char *name)
{
    char path[PATH_MAX];
    fate f = inside(path, name) ? next("unlink", path, false) : PASS;
    return f == FAIL ? -1 : done(f, REAL(unlink)(name));
}

SHOWN int unlinkat(int folder, const char *name, int flags)
{
    char path[PATH_MAX];
    fate f = inside_at(path, folder, name) ? next("unlink", path, false) : PASS;
    return f == FAIL ? -1 : done(f, REAL(unlinkat)(folder, name, flags));
}

SHOWN int rmdir(const char *name)
{
    char path[PATH_MAX];
    fate f = inside(path, name) ? next("unlink", path, false) : PASS;
    return f == FAIL ? -1 : done(f, REAL(rmdir)(name));
}
