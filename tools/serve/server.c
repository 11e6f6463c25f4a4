/* server.c - libmicrohttpd's connections to exchanges: who may, how much, how long, and waking an answer that was waited for.
 *
 * An exchange that waits for its call is suspended and costs nothing.  Whoever suspends looks once more afterwards whether there is
 * something to send, so that a wake-up just before is not lost.
 */
#include "tools/serve/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "tools/cli/output.h"
#include "tools/serve/access.h"
#include "tools/serve/exchange.h"

enum { MAX_BODY = 64 << 20, MAX_CONNECTIONS = 1024, BEAT_S = 15, BODY_BYTES_PER_S = 64 << 10, STREAM_BLOCK = 64 << 10 };

struct nb_server {
    nb_server_options  options;
    struct MHD_Daemon *daemon;
    nb_guard          *guard;
    nb_access         *access;
    nb_http_counts    *counts;
    int                socket, port;
    double             started;
    atomic_bool        draining;
};

bool   nb_server_is_draining(const nb_server *s) { return atomic_load(&s->draining); }
double nb_server_started(const nb_server *s) { return s->started; }
int    nb_server_port(const nb_server *s) { return s->port; }
void   nb_server_draining(nb_server *s) { atomic_store(&s->draining, true); }
nb_http_counts *nb_server_http_counts(nb_server *s) { return s->counts; }

const nb_served_model *nb_server_model(const nb_server *s, const char *name)
{
    for (int i = 0; i < s->options.model_count; i++)
        for (int k = 0; k < s->options.models[i].name_count; k++)
            if (!name || !strcmp(s->options.models[i].names[k], name)) return &s->options.models[i];
    return NULL;
}

void nb_exchange_fail(nb_exchange *x, int status, const char *param, const char *format, ...)
{
    char    text[768];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    nb_api_fail(&x->error, status, param, "%s", text);
}

/* ---- answers ------------------------------------------------------------------------------------------------------------- */

static void add_headers(nb_exchange *x, struct MHD_Response *r, int status)
{
    char        retry[16];
    const char *origin = nb_access_cors(x->server->access, x->connection);
    MHD_add_response_header(r, "X-Request-Id", x->request_id);
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    if (x->error.retry_after_s) {
        snprintf(retry, sizeof retry, "%d", x->error.retry_after_s);
        MHD_add_response_header(r, "Retry-After", retry);
    }
    if (status == 401)
        MHD_add_response_header(r, "WWW-Authenticate", strcmp(x->path, "/") ? "Bearer" : "Basic realm=\"nibble\", charset=\"UTF-8\"");
    if (x->call && x->call->request.ignored.size) MHD_add_response_header(r, "X-Nibble-Ignored", x->call->request.ignored.data);
    if (!origin) return;
    MHD_add_response_header(r, "Access-Control-Allow-Origin", origin);
    MHD_add_response_header(r, "Vary", "Origin");
}

static enum MHD_Result queue(nb_exchange *x, int status, struct MHD_Response *r)
{
    x->answered = true;
    x->status = status;
    enum MHD_Result result = MHD_queue_response(x->connection, (unsigned)status, r);
    MHD_destroy_response(r);
    return result;
}

static enum MHD_Result answer_bytes(nb_exchange *x, int status, const char *type, nb_buf *body)
{
    if (body->failed) return MHD_NO;
    struct MHD_Response *r = MHD_create_response_from_buffer(body->size, body->data ? body->data : "", MHD_RESPMEM_MUST_COPY);
    if (!r) return MHD_NO;
    nb_guard_deadline(x->server->guard, x->peer, 30 + (double)body->size / BODY_BYTES_PER_S);
    if (body->size) MHD_add_response_header(r, "Content-Type", type);
    if (!strncmp(type, "text/html", 9)) nb_access_page_headers(r);
    add_headers(x, r, status);
    return queue(x, status, r);
}

static enum MHD_Result answer_error(nb_exchange *x)
{
    nb_buf body = {0};
    nb_api_error_body(&body, &x->error);
    enum MHD_Result result = answer_bytes(x, x->error.status, "application/json", &body);
    nb_buf_free(&body);
    return result;
}

/* ---- waiting for a call -------------------------------------------------------------------------------------------------- */

static void wake(void *context)
{
    nb_exchange *x = context;
    pthread_mutex_lock(&x->lock);
    if (x->suspended) {
        x->suspended = false;
        MHD_resume_connection(x->connection);
    }
    pthread_mutex_unlock(&x->lock);
}

/* Suspend unless `ready` says that there is something to do by now. */
static void suspend_unless(nb_exchange *x, bool (*ready)(nb_exchange *x))
{
    pthread_mutex_lock(&x->lock);
    x->suspended = true;
    MHD_suspend_connection(x->connection);
    pthread_mutex_unlock(&x->lock);
    if (ready(x)) wake(x);
}

static bool can_answer(nb_exchange *x)
{
    nb_call *c = x->call;
    pthread_mutex_lock(&c->lock);
    bool ready = c->stage == NB_STAGE_DONE || (c->request.stream && c->stage >= NB_STAGE_WAITING);
    pthread_mutex_unlock(&c->lock);
    return ready;
}

static nb_reply_source source_of(const nb_exchange *x)
{
    return (nb_reply_source){.tokenizer = nb_service_model(x->model->service)->tokenizer, .model = x->call->request.model,
                             .fingerprint = x->model->fingerprint};
}

/* More events into x->out, when all before are sent. */
static bool fill_events(nb_exchange *x)
{
    nb_reply_source source = source_of(x);
    if (x->sent < x->out.size || x->stream.finished) return true;
    nb_buf_clear(&x->out);
    x->sent = 0;
    nb_reply_next(&x->out, x->call, &x->stream, &source);
    if (x->out.size == 0 && nb_seconds() - x->last_sent > BEAT_S) nb_buf_str(&x->out, ": keep-alive\n\n");
    if (x->stream.finished) nb_guard_deadline(x->server->guard, x->peer, 30);
    return x->out.size > 0;
}

static ssize_t read_events(void *context, uint64_t position, char *to, size_t most)
{
    nb_exchange *x = context;
    (void)position;
    if (x->sent == x->out.size && x->stream.finished) return MHD_CONTENT_READER_END_OF_STREAM;
    if (!fill_events(x)) {
        suspend_unless(x, fill_events);
        return 0;
    }
    if (x->out.failed) return MHD_CONTENT_READER_END_WITH_ERROR;
    size_t n = x->out.size - x->sent < most ? x->out.size - x->sent : most;
    memcpy(to, x->out.data + x->sent, n);
    x->sent += n;
    x->last_sent = nb_seconds();
    return (ssize_t)n;
}

static enum MHD_Result answer_events(nb_exchange *x)
{
    struct MHD_Response *r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, read_events, x, NULL);
    if (!r) return MHD_NO;
    x->last_sent = nb_seconds();
    MHD_add_response_header(r, "Content-Type", "text/event-stream; charset=utf-8");
    MHD_add_response_header(r, "Cache-Control", "no-cache");
    MHD_add_response_header(r, "X-Accel-Buffering", "no");
    add_headers(x, r, 200);
    return queue(x, 200, r);
}

static enum MHD_Result answer_call(nb_exchange *x)
{
    nb_call *c = x->call;
    if (!can_answer(x)) {
        suspend_unless(x, can_answer);
        return MHD_YES;
    }
    pthread_mutex_lock(&c->lock);
    bool done = c->stage == NB_STAGE_DONE;
    if (done) x->error = c->error;
    if (done && !x->error.status && atomic_load(&c->cancelled)) nb_api_fail(&x->error, 503, "", "the request was cancelled");
    pthread_mutex_unlock(&c->lock);
    if (done && x->error.status) return answer_error(x);
    if (c->request.stream) return answer_events(x);
    nb_reply_source source = source_of(x);
    nb_reply_whole(&x->out, c, &source);
    return answer_bytes(x, 200, "application/json", &x->out);
}

/* ---- requests ------------------------------------------------------------------------------------------------------------ */

static const char *header(const nb_exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, name);
}

/* The client's id when it is harmless, else one of ours. */
static void choose_request_id(nb_exchange *x)
{
    static atomic_ullong next;
    const char *given = header(x, "X-Request-Id");
    size_t      n = given ? strlen(given) : 0;
    if (n && n < sizeof x->request_id &&
        strspn(given, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:") == n)
        memcpy(x->request_id, given, n + 1);
    else
        snprintf(x->request_id, sizeof x->request_id, "req-%llx-%llx", (unsigned long long)x->server->started,
                 (unsigned long long)atomic_fetch_add(&next, 1));
}

static bool path_matches(nb_exchange *x, const nb_route *r)
{
    size_t n = strlen(r->path);
    if (!strcmp(x->path, r->path)) return true;
    if (n < 2 || r->path[n - 1] != '/' || strncmp(x->path, r->path, n)) return false;
    x->rest = x->path + n;
    return true;
}

static bool find_route(nb_exchange *x, const char *url)
{
    const char *prefix = x->options->root_path;
    size_t      n = prefix ? strlen(prefix) : 0;
    bool        path_known = false;
    if (n && (strncmp(url, prefix, n) || (url[n] && url[n] != '/'))) return nb_exchange_fail(x, 404, "", "there is nothing at this path"), false;
    snprintf(x->path, sizeof x->path, "%s", url[n] ? url + n : "/");
    for (size_t i = 0; i < nb_route_count; i++) {
        const nb_route *r = &nb_routes[i];
        if (strlen(url) - n >= sizeof x->path || !path_matches(x, r)) continue;
        path_known = true;
        x->is_head = !strcmp(x->method, "HEAD") && !strcmp(r->method, "GET");
        if (!x->is_head && strcmp(x->method, r->method)) continue;
        x->route = r;
        return true;
    }
    if (path_known) nb_exchange_fail(x, 405, "", "this path does not take %.16s", x->method);
    else nb_exchange_fail(x, 404, "", "there is nothing at this path; the API is under /v1");
    return false;
}

/* What the headers say about a body, before it is read. */
static bool check_body_headers(nb_exchange *x)
{
    const char *length = header(x, "Content-Length"), *type = header(x, "Content-Type"), *encoding = header(x, "Content-Encoding");
    if (encoding && strcasecmp(encoding, "identity"))
        return nb_exchange_fail(x, 415, "", "compressed request bodies are not taken"), false;
    if (strcmp(x->method, "POST")) {
        if (length && strcmp(length, "0")) return nb_exchange_fail(x, 400, "", "a %.16s request has no body", x->method), false;
        return true;
    }
    if (length && strtoull(length, NULL, 10) > x->options->max_body)
        return nb_exchange_fail(x, 413, "", "the body has %.20s bytes; at most %zu are taken", length, x->options->max_body), false;
    if (type && strncasecmp(type, "application/json", 16))
        return nb_exchange_fail(x, 415, "", "the body has to be application/json"), false;
    if (!type && header(x, "Origin")) return nb_exchange_fail(x, 415, "", "the body has to be application/json"), false;
    nb_guard_deadline(x->server->guard, x->peer,
                      x->options->body_timeout_s + (length ? (double)strtoull(length, NULL, 10) : (double)x->options->max_body) / (4 << 20));
    return true;
}

static enum MHD_Result answer_preflight(nb_exchange *x)
{
    const char *origin = nb_access_cors(x->server->access, x->connection);
    if (!origin) return nb_exchange_fail(x, 403, "", "this origin is not allowed; see --cors-origins"), answer_error(x);
    struct MHD_Response *r = MHD_create_response_from_buffer(0, "", MHD_RESPMEM_PERSISTENT);
    if (!r) return MHD_NO;
    MHD_add_response_header(r, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
    MHD_add_response_header(r, "Access-Control-Allow-Headers", "Authorization, Content-Type, X-Request-Id");
    MHD_add_response_header(r, "Access-Control-Max-Age", "600");
    add_headers(x, r, 204);
    return queue(x, 204, r);
}

static enum MHD_Result begin(nb_exchange *x, const char *url)
{
    x->arrived = nb_seconds();
    choose_request_id(x);
    nb_guard_watch(x->server->guard, x->peer, x);
    if (!nb_access_host(x->server->access, x->connection))
        return nb_exchange_fail(x, 403, "", "this host name is not served here"), answer_error(x);
    if (!strcmp(x->method, "OPTIONS")) return answer_preflight(x);
    bool known = find_route(x, url);
    if (!(known && x->route->open) && !nb_access_key(x->server->access, x->connection))
        return nb_exchange_fail(x, 401, "", "a valid API key is needed: Authorization: Bearer KEY"), answer_error(x);
    if (!nb_access_origin(x->server->access, x->connection))
        return nb_exchange_fail(x, 403, "", "requests from other web sites are not taken; see --cors-origins"), answer_error(x);
    if (!known || !check_body_headers(x)) return answer_error(x);
    return MHD_YES;
}

static enum MHD_Result take_body(nb_exchange *x, const char *data, size_t *size)
{
    if (x->answered) return *size = 0, MHD_YES;
    if (x->body.size + *size > x->options->max_body) {
        x->dropped += *size;
        if (x->dropped > 4 * (uint64_t)x->options->max_body) return MHD_NO;
    } else if (!x->dropped) {
        nb_buf_add(&x->body, data, *size);
    }
    *size = 0;
    return x->body.failed ? MHD_NO : MHD_YES;
}

static enum MHD_Result on_request(void *server, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *data, size_t *size, void **context)
{
    nb_exchange *x = *context;
    (void)version;
    if (!x) {
        const union MHD_ConnectionInfo *peer = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
        x = calloc(1, sizeof *x);
        if (!x) return MHD_NO;
        *context = x;
        pthread_mutex_init(&x->lock, NULL);
        x->server = server;
        x->options = &x->server->options;
        x->connection = connection;
        x->peer = peer ? peer->socket_context : NULL;
        x->method = method;
        return begin(x, url);
    }
    if (*size) return take_body(x, data, size);
    if (x->answered) return MHD_YES;
    if (x->call) return answer_call(x);
    nb_guard_deadline(x->server->guard, x->peer, 0);
    if (x->dropped) {
        nb_exchange_fail(x, 413, "", "the body is longer than the %zu bytes that are taken", x->options->max_body);
        return answer_error(x);
    }
    x->status = 200;
    x->content_type = "application/json";
    x->route->handle(x);
    if (x->error.status) return answer_error(x);
    if (!x->call) return answer_bytes(x, x->status, x->content_type, &x->out);
    nb_buf_free(&x->body); /* pictures are large */
    nb_call_listen(x->call, wake, x);
    return answer_call(x);
}

static void log_request(const nb_exchange *x, double seconds)
{
    nb_buf  line = {0};
    nb_emit e = nb_emit_start(&line, false);
    nb_emit_open(&e, NULL, '{');
    nb_emit_int(&e, "time", (int64_t)time(NULL));
    nb_emit_string(&e, "request_id", x->request_id);
    nb_emit_string(&e, "method", x->method);
    nb_emit_string(&e, "path", x->route ? x->route->path : "");
    nb_emit_int(&e, "status", x->status);
    nb_emit_number(&e, "ms", (double)(int64_t)(seconds * 1e4) / 10);
    if (x->call) {
        nb_call *c = x->call;
        size_t   tokens = 0;
        pthread_mutex_lock(&c->lock);
        for (int i = 0; i < c->request.n; i++) tokens += c->choices[i].completion_tokens;
        nb_emit_string(&e, "id", c->id);
        nb_emit_int(&e, "prompt_tokens", (int64_t)c->prompt_tokens);
        nb_emit_int(&e, "cached_tokens", (int64_t)c->cached_tokens);
        nb_emit_int(&e, "completion_tokens", (int64_t)tokens);
        nb_emit_bool(&e, "aborted", atomic_load(&c->cancelled));
        pthread_mutex_unlock(&c->lock);
    }
    nb_emit_close(&e);
    if (!line.failed) fputs(line.data, stderr);
    nb_buf_free(&line);
}

static void on_completed(void *server, struct MHD_Connection *connection, void **context, enum MHD_RequestTerminationCode how)
{
    nb_exchange *x = *context;
    nb_server   *s = server;
    (void)connection, (void)how;
    if (!x) return;
    nb_guard_watch(s->guard, x->peer, NULL);
    nb_guard_deadline(s->guard, x->peer, s->options.idle_timeout_s);
    if (x->call) {
        nb_call_listen(x->call, NULL, NULL);
        pthread_mutex_lock(&x->call->lock);
        if (x->call->stage != NB_STAGE_DONE) nb_call_cancel(x->call);
        pthread_mutex_unlock(&x->call->lock);
    }
    double seconds = nb_seconds() - x->arrived;
    nb_http_counts_add(s->counts, x->route ? x->route->path : "other", x->route ? x->route->method : "other", x->status, seconds);
    if (s->options.log_requests) log_request(x, seconds);
    nb_call_drop(x->call);
    nb_reply_stream_free(&x->stream);
    nb_buf_free(&x->body);
    nb_buf_free(&x->out);
    pthread_mutex_destroy(&x->lock);
    free(x);
    *context = NULL;
}

/* ---- connections --------------------------------------------------------------------------------------------------------- */

static void on_connection(void *server, struct MHD_Connection *connection, void **context, enum MHD_ConnectionNotificationCode what)
{
    nb_server *s = server;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        *context = info ? nb_guard_add(s->guard, info->connect_fd, s->options.header_timeout_s) : NULL;
    } else {
        nb_guard_remove(s->guard, *context);
        *context = NULL;
    }
}

/* Under the guard's lock. */
static void on_gone(void *subject)
{
    nb_exchange *x = subject;
    pthread_mutex_lock(&x->lock);
    bool waits = x->suspended;
    pthread_mutex_unlock(&x->lock);
    if (!waits || !x->call) return;
    nb_call_cancel(x->call);
    wake(x);
}

static void on_tick(void *subject)
{
    nb_exchange *x = subject;
    if (x->answered && x->call && x->call->request.stream && nb_seconds() - x->last_sent > BEAT_S) wake(x);
}

/* ---- life ---------------------------------------------------------------------------------------------------------------- */

static nb_status listen_unix(nb_server *s, nb_error *err)
{
    const char        *path = s->options.unix_socket;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct stat        st;
    if (strlen(path) >= sizeof a.sun_path) return nb_fail(err, NB_ERR_ARGUMENT, "--uds %s: longer than a socket's name can be", path);
    strcpy(a.sun_path, path);
    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode)) unlink(path); /* of a server that is gone */
    s->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->socket < 0 || bind(s->socket, (struct sockaddr *)&a, sizeof a) || listen(s->socket, 128))
        return nb_fail(err, NB_ERR_IO, "--uds %s: %s", path, strerror(errno));
    return NB_OK;
}

static nb_status listen_tcp(nb_server *s, nb_error *err)
{
    char             port[16];
    struct addrinfo  hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list;
    const char      *host = s->options.host ? s->options.host : "127.0.0.1";
    struct sockaddr_storage bound;
    socklen_t        size = sizeof bound;
    int              one = 1;
    snprintf(port, sizeof port, "%d", s->options.port);
    int code = getaddrinfo(host, port, &hints, &list);
    if (code) return nb_fail(err, NB_ERR_ARGUMENT, "--host %s: %s", host, gai_strerror(code));
    s->socket = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->socket >= 0) setsockopt(s->socket, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    bool ok = s->socket >= 0 && bind(s->socket, list->ai_addr, list->ai_addrlen) == 0 && listen(s->socket, 511) == 0 &&
              getsockname(s->socket, (struct sockaddr *)&bound, &size) == 0;
    freeaddrinfo(list);
    if (!ok) return nb_fail(err, NB_ERR_IO, "%s port %d: %s; choose another --port", host, s->options.port, strerror(errno));
    s->port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port : ((struct sockaddr_in *)&bound)->sin_port);
    return NB_OK;
}

static void quiet(void *context, const char *format, va_list args)
{
    (void)context, (void)format, (void)args; /* what a peer did wrong is no news */
}

static nb_status start_daemon(nb_server *s, nb_error *err)
{
    const nb_server_options *o = &s->options;
    unsigned flags = MHD_USE_AUTO_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | (o->tls_key ? MHD_USE_TLS : 0);
    struct MHD_OptionItem tls[] = {{MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)o->tls_key}, {MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)o->tls_cert},
                                   {MHD_OPTION_HTTPS_PRIORITIES, 0, "NORMAL:-VERS-TLS1.0:-VERS-TLS1.1"}, {MHD_OPTION_END, 0, NULL}};
    struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};
    if (o->tls_key && MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "--ssl-keyfile: this libmicrohttpd was built without TLS; put nginx in front");
    s->daemon = MHD_start_daemon(flags, 0, NULL, NULL, on_request, s, MHD_OPTION_EXTERNAL_LOGGER, quiet, NULL, MHD_OPTION_LISTEN_SOCKET,
                                 s->socket, MHD_OPTION_CONNECTION_LIMIT, (unsigned)o->max_connections, MHD_OPTION_CONNECTION_TIMEOUT,
                                 (unsigned)o->idle_timeout_s + 600, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)(32 << 10),
                                 MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_NOTIFY_COMPLETED, on_completed, s,
                                 MHD_OPTION_NOTIFY_CONNECTION, on_connection, s, MHD_OPTION_ARRAY, o->tls_key ? tls : none, MHD_OPTION_END);
    return s->daemon ? NB_OK : nb_fail(err, NB_ERR_IO, "the HTTP server cannot start%s", o->tls_key ? "; is the key for this certificate?" : "");
}

nb_status nb_server_start(nb_server **out, const nb_server_options *options, nb_error *err)
{
    NB_TRY(nb_alloc(out, 1, sizeof **out, "the server", err));
    nb_server *s = *out;
    s->options = *options;
    s->socket = -1;
    s->started = (double)time(NULL);
    if (!s->options.max_body) s->options.max_body = MAX_BODY;
    if (!s->options.max_connections) s->options.max_connections = MAX_CONNECTIONS;
    if (!s->options.header_timeout_s) s->options.header_timeout_s = 10;
    if (!s->options.body_timeout_s) s->options.body_timeout_s = 30;
    if (!s->options.idle_timeout_s) s->options.idle_timeout_s = 65;
    nb_status status = nb_http_counts_new(&s->counts, err);
    if (status == NB_OK) status = nb_access_new(&s->access, &s->options, err);
    if (status == NB_OK) status = nb_guard_new(&s->guard, on_gone, on_tick, err);
    if (status == NB_OK) status = s->options.unix_socket ? listen_unix(s, err) : listen_tcp(s, err);
    if (status == NB_OK) status = start_daemon(s, err);
    if (status != NB_OK) {
        nb_server_stop(s);
        *out = NULL;
    }
    return status;
}

void nb_server_stop(nb_server *s)
{
    if (!s) return;
    if (s->daemon) MHD_stop_daemon(s->daemon); /* closes the socket too */
    else if (s->socket >= 0) close(s->socket);
    if (s->options.unix_socket) unlink(s->options.unix_socket);
    nb_guard_free(s->guard);
    nb_access_free(s->access);
    nb_http_counts_free(s->counts);
    free(s);
}
