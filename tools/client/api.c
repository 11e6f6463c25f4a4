/* api.c - see api.h; HTTP by libcurl. */
#include "tools/client/api.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/io/file.h"
#include "tools/cli/output.h"
#include "tools/cli/stop.h"

enum { REPLY_LIMIT = 256 << 20, TIMEOUT_S = 600, MAX_WAIT_S = 60, CONNECT_S = 30 };

nb_status nb_api_key(char **out, const char *key_file, nb_error *err)
{
    const char *key = getenv("OPENAI_API_KEY");
    nb_buf      text = { 0 };
    *out = NULL;
    if (key_file) {
        NB_TRY(nb_file_read(&text, key_file, 1 << 16, err));
        key = text.data ? text.data + strspn(text.data, " \t\r\n") : "";
        if (!*key) {
            nb_buf_free(&text);
            return nb_fail(err, NB_ERR_INPUT, "%s: it holds no key", key_file);
        }
    }
    bool there = key && *key;
    if (there) *out = strndup(key, strcspn(key, " \t\r\n"));
    nb_buf_free(&text); /* where the key may lie */
    return there && !*out ? nb_fail(err, NB_ERR_MEMORY, "no memory for a key") : NB_OK;
}

const char *nb_api_text(const cJSON *reply)
{
    const cJSON *choice = cJSON_GetArrayItem(nb_json_find(reply, "choices"), 0);
    const cJSON *text = nb_json_find(nb_json_find(choice, "message"), "content");
    if (choice && !text) text = nb_json_find(choice, "text");
    return cJSON_IsString(text) ? text->valuestring : NULL;
}

/* ---- one call -------------------------------------------------------------------------------------------------------------- */

struct nb_api_connection {
    const nb_api      *api;
    CURL              *curl;
    struct curl_slist *headers;
    char               why[CURL_ERROR_SIZE];
};

static size_t take(char *bytes, size_t one, size_t n, void *context)
{
    nb_buf *out = context;
    (void)one;
    if (out->size + n > REPLY_LIMIT) return 0;
    nb_buf_add(out, bytes, n);
    return out->failed ? 0 : n;
}

static int watch(void *context, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    (void)context, (void)a, (void)b, (void)c, (void)d;
    return nb_stop_requested();
}

static void start_curl(void) { curl_global_init(CURL_GLOBAL_DEFAULT); }

static bool add_header(nb_api_connection *c, const char *text)
{
    struct curl_slist *more = text ? curl_slist_append(c->headers, text) : NULL;
    if (more) c->headers = more;
    return more != NULL;
}

nb_status nb_api_connect(nb_api_connection **out, const nb_api *api, nb_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    nb_api_connection    *c;
    nb_buf                bearer = { 0 };
    pthread_once(&once, start_curl);
    NB_TRY(nb_alloc(out, 1, sizeof **out, "a connection", err));
    c = *out;
    c->api = api;
    c->curl = curl_easy_init();
    bool good = c->curl && add_header(c, "Content-Type: application/json") && add_header(c, "Expect:");
    if (good && api->key) {
        nb_buf_printf(&bearer, "Authorization: Bearer %s", api->key);
        good = add_header(c, bearer.failed ? NULL : bearer.data);
    }
    nb_buf_free(&bearer);
    if (!good) {
        nb_api_close(c);
        *out = NULL;
        return nb_fail(err, NB_ERR_MEMORY, "no memory for a connection");
    }
    curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, c->headers);
    curl_easy_setopt(c->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c->curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c->curl, CURLOPT_XFERINFOFUNCTION, watch);
    curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(c->curl, CURLOPT_ERRORBUFFER, c->why);
    curl_easy_setopt(c->curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    curl_easy_setopt(c->curl, CURLOPT_TIMEOUT_MS, (long)(1000 * (api->timeout_s > 0 ? api->timeout_s : TIMEOUT_S)));
    return NB_OK;
}

void nb_api_close(nb_api_connection *c)
{
    if (!c) return;
    curl_easy_cleanup(c->curl);
    curl_slist_free_all(c->headers);
    free(c);
}

/* The API's root is the address, with /v1 once. */
static nb_status full_url(nb_buf *out, const nb_api *api, const char *path, nb_error *err)
{
    size_t n = strlen(api->url);
    while (n && api->url[n - 1] == '/') n--;
    bool versioned = n >= 3 && !strncmp(api->url + n - 3, "/v1", 3);
    nb_buf_printf(out, "%.*s%s%s", (int)n, api->url, versioned ? "" : "/v1", path);
    return nb_buf_status(out, "an address", err);
}

/* What the server says of a refusal: its message, or the beginning of whatever it sent. */
static nb_status refused(const char *url, long code, const nb_buf *body, nb_error *err)
{
    cJSON      *o = NULL;
    nb_error    ignored;
    const char *said = body->data ? body->data : "";
    nb_status   status = code == 400 || code == 404 || code == 413 || code == 422 ? NB_ERR_INPUT : NB_ERR_IO;
    if (body->size && nb_json_parse(&o, body->data, body->size, url, &ignored) == NB_OK) {
        const cJSON *e = nb_json_find(o, "error"), *message = cJSON_IsObject(e) ? nb_json_find(e, "message") : e;
        if (!message) message = nb_json_find(o, "message"); /* as some servers put it */
        if (!message) message = nb_json_find(o, "detail");
        if (cJSON_IsString(message)) said = message->valuestring;
    }
    nb_fail(err, status, "%s: %ld: %.400s", url, code, said);
    cJSON_Delete(o);
    return status;
}

typedef struct {
    nb_status status;
    bool      again; /* it may work later */
    double    wish;  /* seconds that the server asks to wait */
} outcome;

static outcome try_once(nb_api_connection *c, const char *url, const nb_buf *body, cJSON **reply, nb_error *err)
{
    nb_buf     text = { 0 };
    long       code = 0;
    curl_off_t wait = 0;
    outcome    o = { 0 };
    c->why[0] = 0;
    curl_easy_setopt(c->curl, CURLOPT_URL, url);
    curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, body->data);
    curl_easy_setopt(c->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body->size);
    curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, &text);
    CURLcode done = curl_easy_perform(c->curl);
    curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &code);
    curl_easy_getinfo(c->curl, CURLINFO_RETRY_AFTER, &wait);
    if (done != CURLE_OK) {
        o.status = nb_stop_status(err);
        if (o.status == NB_OK) {
            o.status = nb_fail(err, NB_ERR_IO, "%s: %s", url, c->why[0] ? c->why : curl_easy_strerror(done));
            o.again = done != CURLE_WRITE_ERROR && done != CURLE_UNSUPPORTED_PROTOCOL && done != CURLE_URL_MALFORMAT;
        }
    } else if (code != 200) {
        o = (outcome){ refused(url, code, &text, err), code == 429 || code >= 500, (double)wait };
    } else {
        o.status = nb_json_parse(reply, text.data ? text.data : "", text.size, url, err);
    }
    nb_buf_free(&text);
    return o;
}

static bool wait_for(double seconds)
{
    for (double end = nb_seconds() + seconds; nb_seconds() < end && !nb_stop_requested();) usleep(20000);
    return !nb_stop_requested();
}

nb_status nb_api_post(nb_api_connection *c, const char *path, const nb_buf *body, cJSON **reply, nb_error *err)
{
    nb_buf url = { 0 };
    double wait = c->api->wait_s > 0 ? c->api->wait_s : 0.5;
    *reply = NULL;
    NB_TRY(nb_buf_status(body, "a call", err));
    NB_TRY(full_url(&url, c->api, path, err));
    outcome o = try_once(c, url.data, body, reply, err);
    for (int i = 0; i < c->api->retries && o.status != NB_OK && o.again; i++) {
        double pause = o.wish > wait ? o.wish : wait;
        if (pause > MAX_WAIT_S) pause = MAX_WAIT_S;
        nb_detail("%s; trying again in %.3g s", err->text, pause);
        if (!wait_for(pause)) {
            o.status = nb_stop_status(err);
            break;
        }
        wait *= 2;
        o = try_once(c, url.data, body, reply, err);
    }
    nb_buf_free(&url);
    return o.status;
}

/* ---- many ------------------------------------------------------------------------------------------------------------------- */

typedef struct {
    const nb_api    *api;
    const char      *path;
    size_t           count, window;
    nb_api_body_at  *body;
    nb_api_reply_at *reply;
    void            *context;
    pthread_mutex_t  lock;
    pthread_cond_t   room;
    size_t           next, given;  /* calls begun; replies given */
    cJSON          **replies;      /* [window] by index modulo window */
    nb_status        status;       /* the first failure */
    nb_error         err;
} crowd;

/* Under the lock: replies in order, as far as they are there. */
static void give(crowd *c)
{
    while (c->status == NB_OK && c->given < c->next && c->replies[c->given % c->window]) {
        cJSON **r = &c->replies[c->given % c->window];
        c->status = c->reply(c->context, c->given, *r, &c->err);
        cJSON_Delete(*r);
        *r = NULL;
        c->given++;
    }
    pthread_cond_broadcast(&c->room);
}

static void *one_of_many(void *context)
{
    crowd             *c = context;
    nb_api_connection *connection = NULL;
    nb_error           err;
    nb_status          status = nb_api_connect(&connection, c->api, &err);
    pthread_mutex_lock(&c->lock);
    while (status == NB_OK && c->status == NB_OK && c->next < c->count) {
        if (c->next >= c->given + c->window) {
            pthread_cond_wait(&c->room, &c->lock);
            continue;
        }
        size_t i = c->next++;
        nb_buf body = { 0 };
        cJSON *reply = NULL;
        status = c->body(c->context, i, &body, &err);
        pthread_mutex_unlock(&c->lock);
        if (status == NB_OK) status = nb_api_post(connection, c->path, &body, &reply, &err);
        nb_buf_free(&body);
        pthread_mutex_lock(&c->lock);
        c->replies[i % c->window] = reply;
        if (status == NB_OK) give(c);
    }
    if (status != NB_OK && c->status == NB_OK) {
        c->status = status;
        c->err = err;
    }
    pthread_cond_broadcast(&c->room);
    pthread_mutex_unlock(&c->lock);
    nb_api_close(connection);
    return NULL;
}

nb_status nb_api_many(const nb_api *api, const char *path, size_t count, int parallel, nb_api_body_at *body, nb_api_reply_at *reply,
                      void *context, nb_error *err)
{
    crowd      c = { .api = api, .path = path, .count = count, .window = 4 * (size_t)parallel, .body = body, .reply = reply,
                     .context = context, .lock = PTHREAD_MUTEX_INITIALIZER, .room = PTHREAD_COND_INITIALIZER };
    pthread_t *threads;
    int        started = 0;
    NB_TRY(nb_alloc(&threads, (size_t)parallel, sizeof *threads, "calls", err));
    nb_status status = nb_alloc(&c.replies, c.window, sizeof *c.replies, "calls", err);
    while (status == NB_OK && started < parallel && pthread_create(&threads[started], NULL, one_of_many, &c) == 0) started++;
    if (status == NB_OK && !started) status = nb_fail(err, NB_ERR_MEMORY, "no thread for calls");
    for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
    for (size_t i = 0; c.replies && i < c.window; i++) cJSON_Delete(c.replies[i]);
    free(c.replies);
    free(threads);
    if (status == NB_OK && c.status != NB_OK) {
        *err = c.err;
        status = c.status;
    }
    return status;
}
