/* http.h - one GET under limits. */
#ifndef NB_HTTP_H
#define NB_HTTP_H

#include <sys/socket.h>

#include "runtime/io/buf.h"

typedef struct {
    size_t max_bytes;
    int    timeout_s;
    bool (*allowed)(const struct sockaddr *address); /* asked before each connection is opened; NULL: all are */
} nb_http_limits;

/* name: for messages. */
nb_status nb_http_get(nb_buf *out, const char *url, const char *name, const nb_http_limits *limits, nb_error *err);

#endif
