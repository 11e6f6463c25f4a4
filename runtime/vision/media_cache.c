/* media_cache.c - see media_cache.h.  The index is the file system: there is no list that could be damaged, and the time of
 * last use is the object's own time stamp. */
#include "runtime/vision/media_cache.h"

#ifdef NIBBLE_CURL
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "runtime/io/file.h"

enum { DIGEST = 64, RECORD = 128, STALE_S = 24 * 3600 };

typedef struct {
    char            name[DIGEST + 1];
    uint64_t        size;
    struct timespec used;
} object;

static bool sha256(char out[DIGEST + 1], const void *bytes, size_t n)
{
    unsigned char raw[EVP_MAX_MD_SIZE];
    unsigned      size = 0;
    if (EVP_Digest(bytes, n, raw, &size, EVP_sha256(), NULL) != 1 || size != DIGEST / 2) return false;
    for (unsigned i = 0; i < size; i++) snprintf(out + 2 * i, 3, "%02x", raw[i]);
    return true;
}

/* What follows '#' is not part of what is asked for. */
static bool url_digest(char out[DIGEST + 1], const char *url)
{
    return sha256(out, url, strcspn(url, "#"));
}

static bool is_digest(const char *name)
{
    return strlen(name) == DIGEST && strspn(name, "0123456789abcdef") == DIGEST;
}

/* FOLDER/kind/name, malloc'd; NULL on no memory. */
static char *path_of(const char *folder, const char *kind, const char *name)
{
    char *path;
    return asprintf(&path, "%s/%s/%s", folder, kind, name) < 0 ? NULL : path;
}

static bool read_record(char digest[DIGEST + 1], uint64_t *size, const char *folder, const char *address)
{
    nb_buf             text = {0};
    char              *path = path_of(folder, "address", address);
    unsigned long long bytes = 0;
    bool good = path && nb_file_read(&text, path, RECORD, NULL) == NB_OK &&
                sscanf(text.data, "%64[0-9a-f] %llu", digest, &bytes) == 2 && strlen(digest) == DIGEST;
    *size = bytes;
    nb_buf_free(&text);
    free(path);
    return good;
}

bool nb_media_cache_get(nb_buf *out, const char *folder, const char *url, size_t max_bytes)
{
    char     address[DIGEST + 1], digest[DIGEST + 1], found[DIGEST + 1];
    uint64_t size;
    *out = (nb_buf){0};
    if (!url_digest(address, url) || !read_record(digest, &size, folder, address) || size > max_bytes) return false;
    char *path = path_of(folder, "sha256", digest);
    bool  read = path && nb_file_read(out, path, max_bytes, NULL) == NB_OK, good = read && out->size == size && size &&
                 sha256(found, out->data, out->size) && !strcmp(found, digest);
    if (good) utimensat(AT_FDCWD, path, NULL, 0);
    if (read && !good) unlink(path); /* damaged: the next fetch writes it anew */
    if (!good) nb_buf_free(out);
    free(path);
    return good;
}

/* ---- keeping ----------------------------------------------------------------------------------------------------- */

/* The folder and those above it. */
static bool make_folder(const char *path)
{
    char *copy = nb_strdup(path);
    bool  good = copy != NULL;
    for (char *p = copy ? copy + 1 : NULL; good && p; p = p ? p + 1 : NULL) {
        p = strchr(p, '/');
        if (p) *p = 0;
        good = mkdir(copy, 0777) == 0 || errno == EEXIST;
        if (p) *p = '/';
    }
    free(copy);
    return good;
}

static int older(const void *a, const void *b)
{
    const object *x = a, *y = b;
    if (x->used.tv_sec != y->used.tv_sec) return x->used.tv_sec < y->used.tv_sec ? -1 : 1;
    if (x->used.tv_nsec != y->used.tv_nsec) return x->used.tv_nsec < y->used.tv_nsec ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* All objects; files that a dead program left half written are removed when they are a day old. */
static bool list_objects(object **out, size_t *count, const char *folder)
{
    size_t capacity = 0;
    char  *path = path_of(folder, "sha256", ".");
    DIR   *d = path ? opendir(path) : NULL;
    bool   good = d != NULL;
    *out = NULL;
    *count = 0;
    for (struct dirent *e; good && (e = readdir(d));) {
        struct stat st;
        if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode)) continue;
        if (!is_digest(e->d_name)) {
            if (time(NULL) - st.st_mtim.tv_sec > STALE_S) unlinkat(dirfd(d), e->d_name, 0);
            continue;
        }
        good = nb_grow(out, &capacity, *count + 1, sizeof **out, "cached media", NULL) == NB_OK;
        if (!good) break;
        object *o = &(*out)[(*count)++];
        *o = (object){.size = (uint64_t)st.st_size, .used = st.st_mtim};
        memcpy(o->name, e->d_name, DIGEST + 1);
    }
    if (d) closedir(d);
    free(path);
    return good;
}

/* Addresses whose object is gone. */
static void forget_addresses(const char *folder)
{
    char *path = path_of(folder, "address", ".");
    DIR  *d = path ? opendir(path) : NULL;
    for (struct dirent *e; d && (e = readdir(d));) {
        char     digest[DIGEST + 1];
        uint64_t size;
        if (!is_digest(e->d_name)) continue;
        char *kept = read_record(digest, &size, folder, e->d_name) ? path_of(folder, "sha256", digest) : NULL;
        if (!kept || access(kept, F_OK)) unlinkat(dirfd(d), e->d_name, 0);
        free(kept);
    }
    if (d) closedir(d);
    free(path);
}

/* The least recently used objects go until a tenth of the limit is free, so that not every fetch has to look for more. */
static void evict(const char *folder, uint64_t limit, const char *newest)
{
    object  *objects;
    size_t   count;
    uint64_t total = 0;
    if (list_objects(&objects, &count, folder)) {
        for (size_t i = 0; i < count; i++) total += objects[i].size;
        bool any = total > limit;
        if (any) qsort(objects, count, sizeof *objects, older);
        for (size_t i = 0; any && i < count && total > limit - limit / 10; i++) {
            char *path = strcmp(objects[i].name, newest) ? path_of(folder, "sha256", objects[i].name) : NULL;
            if (path && unlink(path) == 0) total -= objects[i].size;
            free(path);
        }
        if (any) forget_addresses(folder);
    }
    free(objects);
}

void nb_media_cache_put(const char *folder, uint64_t limit, const char *url, const void *bytes, size_t n)
{
    char address[DIGEST + 1], digest[DIGEST + 1], record[RECORD];
    if (!limit) limit = NB_MEDIA_CACHE_BYTES;
    if (!n || n > limit || !url_digest(address, url) || !sha256(digest, bytes, n)) return;
    char *object_path = path_of(folder, "sha256", digest), *record_path = path_of(folder, "address", address);
    char *folders[2] = {object_path ? nb_path_folder(object_path) : NULL, record_path ? nb_path_folder(record_path) : NULL};
    int   length = snprintf(record, sizeof record, "%s %zu\n", digest, n);
    bool  good = folders[0] && folders[1] && make_folder(folders[0]) && make_folder(folders[1]) &&
                nb_file_write_atomic(object_path, bytes, n, NULL) == NB_OK;
    if (good) {
        evict(folder, limit, digest);
        nb_file_write_atomic(record_path, record, (size_t)length, NULL);
    }
    for (int i = 0; i < 2; i++) free(folders[i]);
    free(object_path);
    free(record_path);
}

#else

bool nb_media_cache_get(nb_buf *out, const char *folder, const char *url, size_t max_bytes)
{
    (void)folder, (void)url, (void)max_bytes;
    *out = (nb_buf){0};
    return false;
}

void nb_media_cache_put(const char *folder, uint64_t limit, const char *url, const void *bytes, size_t n)
{
    (void)folder, (void)limit, (void)url, (void)bytes, (void)n;
}

#endif
