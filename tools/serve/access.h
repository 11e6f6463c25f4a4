/* access.h - who may ask: API keys, the Host header, origins of web pages. */
#ifndef NB_ACCESS_H
#define NB_ACCESS_H

#include <microhttpd.h>

#include "tools/serve/server.h"

typedef struct nb_access nb_access;
nb_status nb_access_new(nb_access **out, const nb_server_options *options, nb_error *err); /* borrows the options */
void      nb_access_free(nb_access *a);

/* A right key: "Authorization: Bearer KEY", or Basic with the key as password, which is how a browser asks for it.  Every key is
 * compared, by digest and in constant time. */
bool nb_access_key(const nb_access *a, struct MHD_Connection *c);
/* On a loopback address only its own names are served: a page that lets its host name resolve to 127.0.0.1 gets nothing. */
bool nb_access_host(const nb_access *a, struct MHD_Connection *c);
/* False for a request that another web site's page makes, unless its origin is allowed. */
bool nb_access_origin(const nb_access *a, struct MHD_Connection *c);
/* What Access-Control-Allow-Origin has to say; NULL: nothing. */
const char *nb_access_cors(const nb_access *a, struct MHD_Connection *c);
/* The headers of the page at "/": nothing from elsewhere, nowhere in a frame. */
void nb_access_page_headers(struct MHD_Response *r);

#endif
