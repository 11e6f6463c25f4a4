/* server.h - HTTP in front of services: connections, routes, keys, deadlines. */
#ifndef NB_SERVER_H
#define NB_SERVER_H

#include "tools/serve/service.h"

typedef struct {
    const char *const *names; /* [name_count] what clients call it; the first is what answers say */
    int         name_count;
    nb_service *service;
    nb_metrics *metrics;
    char        fingerprint[40];
} nb_served_model;

typedef struct {
    const char *host;          /* NULL: 127.0.0.1 */
    int         port;          /* 0: any free one */
    const char *unix_socket;   /* path; instead of host and port */
    const char *tls_key, *tls_cert; /* PEM texts; NULL: plain HTTP */
    const char *const *api_keys;    /* [api_key_count]; none: open */
    int         api_key_count;
    const char *const *cors_origins; /* [cors_count] exact origins, or one "*" */
    int         cors_count;
    const char *root_path;     /* prefix of all routes, or NULL */
    bool        metrics, metrics_vllm, webui, log_requests, slots;
    size_t      max_body;      /* bytes; 0: 64 MiB */
    int         max_connections; /* 0: 1024 */
    int         header_timeout_s, body_timeout_s, idle_timeout_s; /* 0: 10, 30, 65 */
    nb_served_model *models;   /* [model_count]; must outlive the server */
    int         model_count;
} nb_server_options;

typedef struct nb_server nb_server;
nb_status nb_server_start(nb_server **out, const nb_server_options *options, nb_error *err);
int       nb_server_port(const nb_server *s);
/* /ready and /health say no from now on; connections go on. */
void      nb_server_draining(nb_server *s);
void      nb_server_stop(nb_server *s); /* frees it; services must have stopped or be stopped after it */

#endif
