/* access.c - see access.h. */
#include "tools/serve/access.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "runtime/vision/media.h"
#include "tools/serve/page.h"

enum { DIGEST = 32, MAX_KEY = 512 };

struct nb_access {
    const nb_server_options *options;
    bool                     loopback;
    uint8_t                (*digests)[DIGEST]; /* [api_key_count] */
};

static bool digest(uint8_t out[DIGEST], const char *text, size_t n)
{
    return EVP_Digest(text, n, out, NULL, EVP_sha256(), NULL) == 1;
}

static bool is_loopback(const char *host)
{
    return !host || !strcmp(host, "localhost") || !strncmp(host, "127.", 4) || !strcmp(host, "::1");
}

nb_status nb_access_new(nb_access **out, const nb_server_options *options, nb_error *err)
{
    NB_TRY(nb_alloc(out, 1, sizeof **out, "access rules", err));
    nb_access *a = *out;
    a->options = options;
    a->loopback = !options->unix_socket && is_loopback(options->host);
    nb_status status = nb_alloc(&a->digests, (size_t)options->api_key_count, sizeof *a->digests, "keys", err);
    for (int i = 0; i < options->api_key_count && status == NB_OK; i++)
        if (!digest(a->digests[i], options->api_keys[i], strlen(options->api_keys[i])))
            status = nb_fail(err, NB_ERR_IO, "the digest SHA-256 is not available");
    if (status != NB_OK) {
        nb_access_free(a);
        *out = NULL;
    }
    return status;
}

void nb_access_free(nb_access *a)
{
    if (!a) return;
    free(a->digests);
    free(a);
}

static bool key_is_right(const nb_access *a, const char *key, size_t n)
{
    uint8_t given[DIGEST];
    int     right = 0;
    if (n > MAX_KEY || !digest(given, key, n)) return false;
    for (int i = 0; i < a->options->api_key_count; i++) right |= CRYPTO_memcmp(given, a->digests[i], DIGEST) == 0;
    return right;
}

bool nb_access_key(const nb_access *a, struct MHD_Connection *c)
{
    const char *h = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Authorization");
    if (a->options->api_key_count == 0) return true;
    if (!h) return false;
    if (!strncasecmp(h, "Bearer ", 7)) {
        h += 7;
        h += strspn(h, " ");
        return key_is_right(a, h, strlen(h));
    }
    if (strncasecmp(h, "Basic ", 6)) return false;
    nb_buf plain = {0};
    bool   right = false;
    if (strlen(h) < MAX_KEY * 2 && nb_base64_decode(&plain, h + 6, strlen(h + 6), "Authorization", NULL) == NB_OK) {
        const char *colon = memchr(plain.data, ':', plain.size);
        right = colon && key_is_right(a, colon + 1, plain.size - (size_t)(colon + 1 - plain.data));
    }
    nb_buf_free(&plain);
    return right;
}

/* The host of "host:port", "[::1]:port" or "http://host:port". */
static void host_of(char out[256], const char *text)
{
    const char *scheme = strstr(text, "://"), *at = scheme ? scheme + 3 : text;
    size_t      n;
    if (*at == '[') {
        at++;
        n = strcspn(at, "]");
    } else {
        n = strcspn(at, ":/");
    }
    snprintf(out, 256, "%.*s", n < 255 ? (int)n : 255, at);
}

bool nb_access_host(const nb_access *a, struct MHD_Connection *c)
{
    const char *h = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Host");
    char        host[256];
    if (!a->loopback || !h) return true;
    host_of(host, h);
    return is_loopback(host) || (a->options->host && !strcasecmp(host, a->options->host));
}

static bool listed(const nb_access *a, const char *origin)
{
    for (int i = 0; i < a->options->cors_count; i++)
        if (!strcmp(a->options->cors_origins[i], "*") || !strcasecmp(a->options->cors_origins[i], origin)) return true;
    return false;
}

bool nb_access_origin(const nb_access *a, struct MHD_Connection *c)
{
    const char *origin = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Origin");
    const char *host = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Host");
    if (!origin || listed(a, origin)) return true;
    const char *scheme = strstr(origin, "://");
    return scheme && host && !strcasecmp(scheme + 3, host); /* our own page */
}

const char *nb_access_cors(const nb_access *a, struct MHD_Connection *c)
{
    const char *origin = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Origin");
    if (!origin || !listed(a, origin)) return NULL;
    return a->options->cors_count == 1 && !strcmp(a->options->cors_origins[0], "*") ? "*" : origin;
}

/* 'sha256-...' of what stands between two tags of the page, so that nothing else may run or style it. */
static void add_hash(nb_buf *out, const char *open, const char *close)
{
    const char   *page = (const char *)nb_page_html, *from = memmem(page, nb_page_size, open, strlen(open));
    const char   *to = from ? memmem(from, nb_page_size - (size_t)(from - page), close, strlen(close)) : NULL;
    uint8_t       d[DIGEST];
    unsigned char text[48];
    if (!to) return;
    from += strlen(open);
    if (!digest(d, from, (size_t)(to - from))) return;
    EVP_EncodeBlock(text, d, DIGEST);
    nb_buf_printf(out, " 'sha256-%s'", (const char *)text);
}

void nb_access_page_headers(struct MHD_Response *r)
{
    nb_buf policy = {0};
    nb_buf_str(&policy, "default-src 'none'; script-src");
    add_hash(&policy, "<script>", "</script>");
    nb_buf_str(&policy, "; style-src");
    add_hash(&policy, "<style>", "</style>");
    nb_buf_str(&policy, "; img-src 'self' data: blob:; media-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
                        "frame-ancestors 'none'");
    if (!policy.failed) MHD_add_response_header(r, "Content-Security-Policy", policy.data);
    nb_buf_free(&policy);
    MHD_add_response_header(r, "X-Frame-Options", "DENY");
    MHD_add_response_header(r, "Referrer-Policy", "no-referrer");
    MHD_add_response_header(r, "Cache-Control", "no-cache");
}
