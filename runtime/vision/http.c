/* http.c - one GET through libcurl, for addresses that strangers choose.
 *
 * A chat can name any URL, so: http and https only, also after a redirect; at most five redirects; every address is
 * judged when its socket is opened, that is after name resolution and for each redirect anew; no proxy (it would resolve
 * for us), no cookies, no credentials from the URL or from .netrc; a limit of bytes and a deadline for the whole
 * transfer.  Only status 200 with a body counts.  The content type is not believed or even looked at: image.c does that.
 */
#include "runtime/vision/http.h"

#ifdef NIBBLE_CURL
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <string.h>

#include <curl/curl.h>

enum { MAX_REDIRECTS = 5, MAX_CONNECT_S = 10 };

typedef struct {
    nb_buf               *out;
    const nb_http_limits *limits;
    bool                  too_long;
    char                  refused[INET6_ADDRSTRLEN]; /* the address that was not connected to; empty: none */
} transfer;

static size_t on_bytes(char *data, size_t size, size_t n, void *user)
{
    transfer *t = user;
    size_t    bytes = size * n;
    if (bytes > t->limits->max_bytes - t->out->size) {
        t->too_long = true;
        return 0;
    }
    nb_buf_add(t->out, data, bytes);
    return t->out->failed ? 0 : bytes;
}

static curl_socket_t on_open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
    transfer *t = user;
    (void)purpose;
    if (t->limits->allowed && !t->limits->allowed(&address->addr)) {
        const void *ip = address->family == AF_INET6 ? (const void *)&((struct sockaddr_in6 *)&address->addr)->sin6_addr
                                                     : (const void *)&((struct sockaddr_in *)&address->addr)->sin_addr;
        if (!inet_ntop(address->family, ip, t->refused, sizeof t->refused)) strcpy(t->refused, "unknown");
        return CURL_SOCKET_BAD;
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static void start_curl(void) { curl_global_init(CURL_GLOBAL_DEFAULT); }

static CURLcode configure(CURL *curl, const char *url, transfer *t, char *text)
{
    CURLcode code = CURLE_OK;
    long     seconds = t->limits->timeout_s;
#define SET(option, value)                                                                                                     \
    if (code == CURLE_OK) code = curl_easy_setopt(curl, option, value)
    SET(CURLOPT_ERRORBUFFER, text);
    SET(CURLOPT_URL, url);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_FOLLOWLOCATION, 1L);
    SET(CURLOPT_MAXREDIRS, (long)MAX_REDIRECTS);
    SET(CURLOPT_UNRESTRICTED_AUTH, 0L);
    SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
    SET(CURLOPT_PROXY, "");
    SET(CURLOPT_NOPROXY, "*");
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_TIMEOUT, seconds);
    SET(CURLOPT_CONNECTTIMEOUT, seconds < MAX_CONNECT_S ? seconds : MAX_CONNECT_S);
    SET(CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)t->limits->max_bytes);
    SET(CURLOPT_WRITEFUNCTION, on_bytes);
    SET(CURLOPT_WRITEDATA, t);
    SET(CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    SET(CURLOPT_OPENSOCKETDATA, t);
    SET(CURLOPT_USERAGENT, "nibble");
#undef SET
    return code;
}

static nb_status judge(CURL *curl, CURLcode code, const transfer *t, const char *name, const char *text, nb_error *err)
{
    long status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    if (code != CURLE_OK && t->refused[0])
        return nb_fail(err, NB_ERR_INPUT, "%s: refused, because it leads to %s, which is not a public address", name,
                       t->refused);
    if (t->too_long || code == CURLE_FILESIZE_EXCEEDED)
        return nb_fail(err, NB_ERR_INPUT, "%s: longer than the limit of %zu bytes", name, t->limits->max_bytes);
    if (t->out->failed) return nb_buf_status(t->out, name, err);
    switch (code) {
    case CURLE_OK: break;
    case CURLE_OPERATION_TIMEDOUT:
        return nb_fail(err, NB_ERR_IO, "%s: not received within %d seconds", name, t->limits->timeout_s);
    case CURLE_TOO_MANY_REDIRECTS: return nb_fail(err, NB_ERR_INPUT, "%s: more than %d redirects", name, MAX_REDIRECTS);
    case CURLE_UNSUPPORTED_PROTOCOL:
        return nb_fail(err, NB_ERR_INPUT, "%s: refused, because it leads to something other than http or https", name);
    case CURLE_URL_MALFORMAT: return nb_fail(err, NB_ERR_INPUT, "%s: not a valid URL", name);
    case CURLE_LOGIN_DENIED: return nb_fail(err, NB_ERR_INPUT, "%s: a URL with a user name is refused", name);
    default: return nb_fail(err, NB_ERR_IO, "%s: cannot be fetched: %s", name, text[0] ? text : curl_easy_strerror(code));
    }
    if (status != 200) return nb_fail(err, NB_ERR_INPUT, "%s: the server answered with HTTP status %ld", name, status);
    if (!t->out->size) return nb_fail(err, NB_ERR_INPUT, "%s: the server sent an empty file", name);
    return NB_OK;
}

nb_status nb_http_get(nb_buf *out, const char *url, const char *name, const nb_http_limits *limits, nb_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, start_curl);
    *out = (nb_buf){ 0 };
    CURL *curl = curl_easy_init();
    if (!curl) return nb_fail(err, NB_ERR_MEMORY, "%s: no memory for a connection", name);
    transfer t = { .out = out, .limits = limits };
    char     text[CURL_ERROR_SIZE] = "";
    CURLcode code = configure(curl, url, &t, text);
    if (code == CURLE_OK) code = curl_easy_perform(curl);
    nb_status status = judge(curl, code, &t, name, text, err);
    curl_easy_cleanup(curl);
    if (status) nb_buf_free(out);
    return status;
}

#else

nb_status nb_http_get(nb_buf *out, const char *url, const char *name, const nb_http_limits *limits, nb_error *err)
{
    (void)url;
    (void)limits;
    *out = (nb_buf){ 0 };
    return nb_fail(err, NB_ERR_UNSUPPORTED,
                   "%s: this nibble was built without http; install libcurl4-openssl-dev and build with -DNIBBLE_CURL=ON, or"
                   " download the file first",
                   name);
}

#endif
