/* media.c - where a picture in a chat comes from.
 *
 * The forms and their precedence are qwen-vl-utils': http(s), file://, data:image..base64, and everything else is a path.
 * Which of them a caller may use is the caller's policy (a server offers no paths); limits on size and time are kept here.
 */
#include "runtime/vision/media.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "runtime/vision/address.h"
#include "runtime/vision/http.h"
#include "runtime/vision/media_cache.h"

enum { DEFAULT_BYTES = 64 << 20, DEFAULT_SECONDS = 30, NAME_SIZE = 160 };

static bool starts(const char *text, const char *with) { return strncasecmp(text, with, strlen(with)) == 0; }

static bool is_http(const char *reference) { return starts(reference, "http://") || starts(reference, "https://"); }

/* Length of the scheme in "scheme://...", 0 when there is none. */
static int scheme_length(const char *reference)
{
    size_t n = strspn(reference, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-");
    return n > 1 && n < 32 && !strncmp(reference + n, "://", 3) ? (int)n : 0;
}

/* The first n bytes, or the end of a longer text: of a path the end says most. */
static void shorten(char out[NAME_SIZE], const char *text, size_t n)
{
    if (n < NAME_SIZE) {
        memcpy(out, text, n);
        out[n] = 0;
        return;
    }
    const char *tail = text + n - (NAME_SIZE - 4);
    while ((*tail & 0xc0) == 0x80) tail++; /* not inside a UTF-8 character */
    snprintf(out, NAME_SIZE, "...%.*s", (int)(text + n - tail), tail);
}

void nb_media_name(char out[160], const char *reference)
{
    if (starts(reference, "data:"))
        snprintf(out, NAME_SIZE, "data URL (%zu characters)", strlen(reference));
    else if (is_http(reference)) /* what follows '?' may be a secret */
        shorten(out, reference, strcspn(reference, "?#"));
    else if (starts(reference, "file://"))
        shorten(out, reference + 7, strlen(reference + 7));
    else
        shorten(out, reference, strlen(reference));
}

static nb_status read_data_url(nb_buf *out, const char *reference, const char *name, size_t max_bytes, nb_error *err)
{
    const char *text = strstr(reference, "base64,");
    if (!starts(reference, "data:image") || !text)
        return nb_fail(err, NB_ERR_INPUT, "%s: not of the form data:image/TYPE;base64,TEXT", name);
    text += 7;
    size_t n = strlen(text);
    if (n / 4 > max_bytes / 3 + 1) return nb_fail(err, NB_ERR_INPUT, "%s: longer than the limit of %zu bytes", name, max_bytes);
    NB_TRY(nb_base64_decode(out, text, n, name, err));
    if (out->size > 0 && out->size <= max_bytes) return NB_OK;
    nb_status status = out->size ? nb_fail(err, NB_ERR_INPUT, "%s: longer than the limit of %zu bytes", name, max_bytes)
                                 : nb_fail(err, NB_ERR_INPUT, "%s: holds no bytes", name);
    nb_buf_free(out);
    return status;
}

static nb_status read_path(nb_buf *out, const char *path, const char *root, size_t max_bytes, nb_error *err)
{
    if (!*path) return nb_fail(err, NB_ERR_INPUT, "the path of a picture is empty");
    if (!root) return nb_file_read(out, path, max_bytes, err);
    char *joined = nb_path_join(root, path);
    if (!joined) return nb_fail(err, NB_ERR_MEMORY, "no memory for a path of %zu bytes", strlen(path));
    nb_status status = nb_file_read(out, joined, max_bytes, err);
    free(joined);
    return status;
}

static nb_status read_http(nb_buf *out, const char *url, const char *name, const nb_media_options *o, nb_error *err)
{
    if (o->cache && nb_media_cache_get(out, o->cache, url, o->max_bytes)) return NB_OK;
    if (o->offline && o->cache)
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: is not in the media cache (%s), and offline nothing is fetched; run once without "
                       "--offline, or name a local file", name, o->cache);
    if (o->offline) return nb_fail(err, NB_ERR_ARGUMENT, "%s: http(s) pictures are refused here (offline)", name);
    nb_http_limits limits = { .max_bytes = o->max_bytes, .timeout_s = o->timeout_s };
    if (!o->allow_private) limits.allowed = nb_address_is_public;
    NB_TRY(nb_http_get(out, url, name, &limits, err));
    if (o->cache) nb_media_cache_put(o->cache, o->cache_bytes, url, out->data, out->size);
    return NB_OK;
}

nb_status nb_media_read(nb_buf *out, const char *reference, const nb_media_options *options, nb_error *err)
{
    nb_media_options o = options ? *options : (nb_media_options){ 0 };
    if (!o.max_bytes) o.max_bytes = DEFAULT_BYTES;
    if (o.timeout_s < 1) o.timeout_s = DEFAULT_SECONDS;
    char name[NAME_SIZE];
    nb_media_name(name, reference);
    *out = (nb_buf){ 0 };
    if (is_http(reference)) return read_http(out, reference, name, &o, err);
    if (starts(reference, "data:")) return read_data_url(out, reference, name, o.max_bytes, err);
    if (starts(reference, "file://")) return read_path(out, reference + 7, o.root, o.max_bytes, err);
    int scheme = scheme_length(reference);
    if (scheme)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: '%.*s://' is not supported; use http(s)://, file://, data: or a path",
                       name, scheme, reference);
    return read_path(out, reference, o.root, o.max_bytes, err);
}
