/* media.h - from a reference in a chat (path, file://, http(s)://, data:) to bytes, under limits. */
#ifndef NB_MEDIA_H
#define NB_MEDIA_H

#include "runtime/io/file.h"

typedef struct {
    const char *root;      /* relative paths are relative to this folder; NULL: the working directory */
    bool        offline;   /* http(s) comes from the cache or is refused */
    const char *cache;     /* folder of the cache for http(s) (media_cache.h); NULL: none */
    uint64_t    cache_bytes; /* most that it may hold; 0: its default */
    size_t      max_bytes; /* 0: 64 MiB */
    int         timeout_s; /* 0: 30 */
    bool        allow_private; /* http(s) to loopback and private addresses (tests) */
} nb_media_options;

/* data:image/png;base64,... (also data:image;base64,), file://PATH (no percent-decoding), http(s)://, else a path.
 * name: how to call it in messages; long data URLs are never echoed. */
nb_status nb_media_read(nb_buf *out, const char *reference, const nb_media_options *options, nb_error *err);
/* A short printable name for a reference: the path, or "data URL (1234 characters)". */
void      nb_media_name(char out[160], const char *reference);
/* Strict base64 (white space skipped, padding optional). */
nb_status nb_base64_decode(nb_buf *out, const char *text, size_t n, const char *name, nb_error *err);

#endif
