/* http_client.h - as little of an HTTP client as tests of a server need: raw bytes out, a status and a body back. */
#ifndef NB_HTTP_CLIENT_H
#define NB_HTTP_CLIENT_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include "runtime/io/json.h"
#include "unit.h"

static int http_port;

static inline int http_connect(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)http_port)};
    int                fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    inet_pton(AF_INET, "127.0.0.1", &a.sin_addr);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

static inline void http_send(int fd, const void *bytes, size_t n)
{
    for (size_t at = 0; at < n;) {
        ssize_t k = send(fd, (const char *)bytes + at, n - at, MSG_NOSIGNAL);
        if (k <= 0) return; /* the server has heard enough */
        at += (size_t)k;
    }
}

/* Everything until the server closes, or nothing comes for `seconds`. */
static inline nb_buf http_read_all(int fd, double seconds)
{
    nb_buf out = {0};
    char   part[16384];
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, (int)(seconds * 1000)) <= 0) break;
        ssize_t k = recv(fd, part, sizeof part, 0);
        if (k <= 0) break;
        nb_buf_add(&out, part, (size_t)k);
    }
    return out;
}

typedef struct {
    int    status; /* 0: none came */
    nb_buf head, body;
} http_answer;

static inline void http_answer_free(http_answer *a)
{
    nb_buf_free(&a->head);
    nb_buf_free(&a->body);
}

/* Undo chunked transfer. */
static inline void http_unchunk(nb_buf *body)
{
    nb_buf out = {0};
    for (char *at = body->data; at && *at;) {
        char  *end;
        size_t n = strtoul(at, &end, 16);
        if (end == at || n == 0 || (size_t)(end - body->data) + 2 + n > body->size) break;
        nb_buf_add(&out, end + 2, n);
        at = end + 2 + n + 2;
    }
    nb_buf_free(body);
    *body = out;
}

static inline http_answer http_split(nb_buf *all)
{
    http_answer a = {0};
    const char *end = all->data ? strstr(all->data, "\r\n\r\n") : NULL;
    if (all->data && !strncmp(all->data, "HTTP/1.", 7)) a.status = atoi(all->data + 9);
    if (end) {
        nb_buf_add(&a.head, all->data, (size_t)(end - all->data));
        nb_buf_add(&a.body, end + 4, all->size - (size_t)(end + 4 - all->data));
        if (strcasestr(a.head.data, "transfer-encoding: chunked")) http_unchunk(&a.body);
    }
    nb_buf_free(all);
    return a;
}

/* One request with Connection: close; headers: further lines, each with CR LF, or "". */
static inline http_answer http_ask(const char *method, const char *path, const char *headers, const char *body)
{
    nb_buf request = {0};
    int    fd = http_connect();
    nb_buf_printf(&request, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s", method, path, headers);
    if (body) nb_buf_printf(&request, "Content-Type: application/json\r\nContent-Length: %zu\r\n", strlen(body));
    nb_buf_str(&request, "\r\n");
    if (body) nb_buf_str(&request, body);
    http_send(fd, request.data, request.size);
    nb_buf_free(&request);
    nb_buf all = http_read_all(fd, 60);
    close(fd);
    return http_split(&all);
}

static inline int http_status(const char *method, const char *path, const char *headers, const char *body)
{
    http_answer a = http_ask(method, path, headers, body);
    int         status = a.status;
    http_answer_free(&a);
    return status;
}

static inline cJSON *http_json(const http_answer *a)
{
    nb_error err;
    cJSON   *o;
    OK(nb_json_parse(&o, a->body.data ? a->body.data : "", a->body.size, "an answer", &err), &err);
    return o;
}

#endif
