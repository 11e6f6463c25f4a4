/* exchange.h - one HTTP request and its answer, as routes.c sees it; server.c moves the bytes. */
#ifndef NB_EXCHANGE_H
#define NB_EXCHANGE_H

#include <microhttpd.h>

#include "tools/serve/guard.h"
#include "tools/serve/reply.h"
#include "tools/serve/server.h"

typedef struct nb_exchange nb_exchange;

typedef struct {
    const char *path;
    const char *method;              /* "GET" (HEAD too) or "POST" */
    bool        open;                /* needs no key */
    void      (*handle)(nb_exchange *x); /* with x->body complete: fills answer, or x->call */
} nb_route;
extern const nb_route nb_routes[];
extern const size_t   nb_route_count;

struct nb_exchange {
    nb_server               *server;
    const nb_server_options *options;
    struct MHD_Connection   *connection;
    nb_peer                 *peer;
    const nb_route          *route;
    const char              *method, *rest; /* rest: what follows a path that ends in '/' */
    char                     path[256], request_id[80];
    nb_buf                   body;
    uint64_t                 dropped;       /* bytes of a body that is too long */
    double                   arrived;
    bool                     answered, is_head;

    /* The answer: ready at once ... */
    int                      status;
    const char              *content_type;
    nb_buf                   out;
    nb_api_error             error;         /* status != 0: instead of out */
    /* ... or what comes of a call. */
    const nb_served_model   *model;
    nb_call                 *call;
    nb_reply_stream          stream;
    size_t                   sent;          /* of out, while streaming */
    double                   last_sent;

    pthread_mutex_t          lock;          /* of suspended */
    bool                     suspended;
};

void nb_exchange_fail(nb_exchange *x, int status, const char *param, const char *format, ...) __attribute__((format(printf, 4, 5)));
bool nb_server_is_draining(const nb_server *s);
double nb_server_started(const nb_server *s); /* Unix time */
nb_http_counts *nb_server_http_counts(nb_server *s);
/* The model of this name; NULL name: the first. */
const nb_served_model *nb_server_model(const nb_server *s, const char *name);

#endif
