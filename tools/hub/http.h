/* http.h - one GET to a hub: its redirects, its token, its range, its body in pieces. */
#ifndef NB_HUB_HTTP_H
#define NB_HUB_HTTP_H

#include "kernels/base.h"

typedef struct nb_http nb_http;

typedef struct {
    const char *url, *name; /* name: for messages */
    const char *token;      /* sent to url's own origin only; NULL: none */
    uint64_t    from;       /* ask for the bytes from here on */
    uint64_t    limit;      /* most bytes that the whole file may have */
    /* data is bytes at .. at + n of the file.  at is 0 at first when the server ignored `from`.  False: an error of the sink. */
    bool      (*write)(void *context, uint64_t at, const void *data, size_t n);
    bool      (*go_on)(void *context); /* asked at least once a second */
    void       *context;
} nb_http_request;

typedef struct {
    long   status;  /* of the last answer; 0: none came */
    bool   again;   /* the failure may pass */
    bool   stopped; /* go_on or write said no */
    double wait_s;  /* the server's own wish before the next try; 0: none */
} nb_http_answer;

nb_status nb_http_new(nb_http **out, nb_error *err);
void      nb_http_free(nb_http *h);
nb_status nb_http_get_pieces(nb_http *h, const nb_http_request *r, nb_http_answer *answer, nb_error *err);
/* True for https, and for http to this machine itself: where a token may be sent. */
bool      nb_http_is_private(const char *url);

#endif
