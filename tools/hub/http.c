/* http.c - one GET through libcurl.
 *
 * Redirects are followed here and not by libcurl, because a rule has to hold that is easier shown than configured: the token is
 * sent as long as scheme, host and port are those of the first address, and never again after another one was seen.  From https
 * a redirect may not lead back to http.  The body is handed on only when the answer is 200, or 206 for exactly the range that
 * was asked for. */
#include "tools/hub/http.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>

enum { MAX_REDIRECTS = 5, CONNECT_S = 30, STALL_S = 60 };

struct nb_http {
    CURL *curl; /* keeps its connections from one request to the next */
};

typedef struct {
    CURL                  *curl;
    const nb_http_request *r;
    uint64_t               at;         /* where the next byte belongs */
    bool                   begun;      /* at is known */
    bool                   has_range;
    uint64_t               range_from; /* of Content-Range */
    bool                   too_long, wrong_range, sink_failed, stopped;
} transfer;

static void start_curl(void) { curl_global_init(CURL_GLOBAL_DEFAULT); }

nb_status nb_http_new(nb_http **out, nb_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, start_curl);
    NB_TRY(nb_alloc(out, 1, sizeof **out, "a connection", err));
    (*out)->curl = curl_easy_init();
    if ((*out)->curl) return NB_OK;
    nb_http_free(*out);
    *out = NULL;
    return nb_fail(err, NB_ERR_MEMORY, "no memory for a connection");
}

void nb_http_free(nb_http *h)
{
    if (!h) return;
    if (h->curl) curl_easy_cleanup(h->curl);
    free(h);
}

/* ---- addresses ------------------------------------------------------------------------------------------------------- */

/* "https host port"; false when it is no address. */
static bool origin_of(char out[300], const char *url)
{
    CURLU *u = curl_url();
    char  *scheme = NULL, *host = NULL, *port = NULL;
    bool   good = u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
                curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
                curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
                curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK && strlen(host) < 256;
    if (good) snprintf(out, 300, "%.8s %s %.8s", scheme, host, port);
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(u);
    return good;
}

bool nb_http_is_private(const char *url)
{
    static const char *const here[] = {"http 127.0.0.1 ", "http localhost ", "http [::1] "};
    char origin[300];
    if (!origin_of(origin, url)) return false;
    for (size_t i = 0; i < NB_COUNT(here); i++)
        if (!strncasecmp(origin, here[i], strlen(here[i]))) return true;
    return !strncasecmp(origin, "https ", 6);
}

/* ---- callbacks ------------------------------------------------------------------------------------------------------- */

static size_t on_header(char *data, size_t size, size_t n, void *user)
{
    static const char key[] = "content-range:";
    transfer *t = user;
    char      line[200];
    size_t    bytes = size * n;
    if (bytes > sizeof key && bytes < sizeof line && !strncasecmp(data, key, sizeof key - 1)) {
        unsigned long long from;
        snprintf(line, sizeof line, "%.*s", (int)bytes, data);
        t->has_range = sscanf(line + sizeof key - 1, " bytes %llu-", &from) == 1;
        if (t->has_range) t->range_from = from;
    }
    return bytes;
}

static size_t on_body(char *data, size_t size, size_t n, void *user)
{
    transfer *t = user;
    size_t    bytes = size * n;
    long      status = 0;
    curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200 && status != 206) return bytes; /* the page of an error or a redirect */
    if (!t->begun) {
        t->begun = true;
        t->at = status == 206 ? t->r->from : 0;
        t->wrong_range = status == 206 && (!t->has_range || t->range_from != t->r->from);
        if (t->wrong_range) return 0;
    }
    if (t->at > t->r->limit || bytes > t->r->limit - t->at) {
        t->too_long = true;
        return 0;
    }
    if (!t->r->write(t->r->context, t->at, data, bytes)) {
        t->sink_failed = true;
        return 0;
    }
    t->at += bytes;
    return bytes;
}

static int on_tick(void *user, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    transfer *t = user;
    (void)a, (void)b, (void)c, (void)d;
    t->stopped = t->stopped || !t->r->go_on(t->r->context);
    return t->stopped;
}

/* ---- the request ----------------------------------------------------------------------------------------------------- */

static CURLcode configure(transfer *t, const char *url, struct curl_slist *headers, char *text)
{
    CURL    *curl = t->curl;
    CURLcode code = CURLE_OK;
    char     range[40];
    curl_easy_reset(curl);
    snprintf(range, sizeof range, "%llu-", (unsigned long long)t->r->from);
#define SET(option, value)                                                                                                     \
    if (code == CURLE_OK) code = curl_easy_setopt(curl, option, value)
    SET(CURLOPT_ERRORBUFFER, text);
    SET(CURLOPT_URL, url);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    SET(CURLOPT_LOW_SPEED_LIMIT, 1L);
    SET(CURLOPT_LOW_SPEED_TIME, (long)STALL_S);
    SET(CURLOPT_HTTPHEADER, headers);
    if (t->r->from) SET(CURLOPT_RANGE, range);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, t);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, t);
    SET(CURLOPT_NOPROGRESS, 0L);
    SET(CURLOPT_XFERINFOFUNCTION, on_tick);
    SET(CURLOPT_XFERINFODATA, t);
    SET(CURLOPT_USERAGENT, "nibble");
#undef SET
    return code;
}

static nb_status judge(const transfer *t, CURLcode code, const char *text, nb_http_answer *a, nb_error *err)
{
    const char *name = t->r->name;
    a->stopped = t->stopped || t->sink_failed;
    if (a->stopped) return nb_fail(err, NB_ERR_STOPPED, "%s: stopped", name);
    if (t->too_long)
        return nb_fail(err, NB_ERR_INPUT, "%s: the server sends more than the %llu bytes that were announced", name,
                       (unsigned long long)t->r->limit);
    if (t->wrong_range) return nb_fail(err, NB_ERR_INPUT, "%s: the server answered with another range than was asked for", name);
    switch (code) {
    case CURLE_OK: break;
    case CURLE_UNSUPPORTED_PROTOCOL: return nb_fail(err, NB_ERR_INPUT, "%s: leads to something other than http or https", name);
    case CURLE_URL_MALFORMAT: return nb_fail(err, NB_ERR_INPUT, "%s: leads to something that is not a URL", name);
    case CURLE_LOGIN_DENIED: return nb_fail(err, NB_ERR_INPUT, "%s: leads to a URL with a user name, which is refused", name);
    case CURLE_PEER_FAILED_VERIFICATION:
        return nb_fail(err, NB_ERR_IO, "%s: the server's certificate is not trusted: %s", name, text);
    case CURLE_OUT_OF_MEMORY: return nb_fail(err, NB_ERR_MEMORY, "%s: no memory to fetch it", name);
    default:
        a->again = true;
        return nb_fail(err, NB_ERR_IO, "%s: %s", name, text[0] ? text : curl_easy_strerror(code));
    }
    long s = a->status;
    if (s == 200 || s == 206) return NB_OK;
    if (s == 401 || s == 403)
        return nb_fail(err, NB_ERR_INPUT, "%s: the hub refuses access (HTTP status %ld): the name may be wrong, or the "
                       "repository needs a token (--token or HF_TOKEN) whose owner accepted its conditions", name, s);
    if (s == 404)
        return nb_fail(err, NB_ERR_INPUT, "%s: the hub has no such repository, revision or file (HTTP status 404)", name);
    a->again = s == 408 || s == 425 || s == 429 || (s >= 500 && s <= 599);
    return nb_fail(err, NB_ERR_IO, "%s: the server answered with HTTP status %ld", name, s);
}

static nb_status perform(transfer *t, const char *url, const char *token, nb_http_answer *a, nb_error *err)
{
    char               text[CURL_ERROR_SIZE] = "", authorization[1100];
    struct curl_slist *headers = NULL;
    curl_off_t         wait = 0;
    if (token) {
        snprintf(authorization, sizeof authorization, "Authorization: Bearer %s", token);
        headers = curl_slist_append(NULL, authorization);
        if (!headers) return nb_fail(err, NB_ERR_MEMORY, "%s: no memory to fetch it", t->r->name);
    }
    CURLcode code = configure(t, url, headers, text);
    if (code == CURLE_OK) code = curl_easy_perform(t->curl);
    curl_slist_free_all(headers);
    curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &a->status);
    if (curl_easy_getinfo(t->curl, CURLINFO_RETRY_AFTER, &wait) == CURLE_OK && wait > 0) a->wait_s = (double)wait;
    if (code == CURLE_OK && a->status >= 300 && a->status <= 399) return NB_OK;
    return judge(t, code, text, a, err);
}

nb_status nb_http_get_pieces(nb_http *h, const nb_http_request *r, nb_http_answer *a, nb_error *err)
{
    char first[300], origin[300], *url = nb_strdup(r->url);
    bool trusted = r->token != NULL;
    *a = (nb_http_answer){0};
    if (!url) return nb_fail(err, NB_ERR_MEMORY, "%s: no memory to fetch it", r->name);
    nb_status status = origin_of(first, url) ? NB_OK : nb_fail(err, NB_ERR_INPUT, "%s: '%s' is not a URL", r->name, url);
    for (int hops = 0; !status; hops++) {
        transfer t = {.curl = h->curl, .r = r};
        char    *next = NULL;
        status = perform(&t, url, trusted ? r->token : NULL, a, err);
        if (status || a->status < 300 || a->status > 399) break;
        if (curl_easy_getinfo(h->curl, CURLINFO_REDIRECT_URL, &next) != CURLE_OK || !next || !origin_of(origin, next))
            status = nb_fail(err, NB_ERR_INPUT, "%s: the server redirects (HTTP status %ld) to no http address", r->name,
                             a->status);
        else if (hops == MAX_REDIRECTS)
            status = nb_fail(err, NB_ERR_INPUT, "%s: more than %d redirects", r->name, MAX_REDIRECTS);
        else if (!strncasecmp(first, "https ", 6) && strncasecmp(origin, "https ", 6))
            status = nb_fail(err, NB_ERR_INPUT, "%s: refused, because it leads from https to something else", r->name);
        if (status) break;
        trusted = trusted && !strcasecmp(first, origin);
        free(url);
        url = nb_strdup(next);
        if (!url) status = nb_fail(err, NB_ERR_MEMORY, "%s: no memory to fetch it", r->name);
    }
    free(url);
    return status;
}
