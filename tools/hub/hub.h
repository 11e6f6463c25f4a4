/* hub.h - a model repository on a hub: which files it has, and getting them one by one.
 *
 * Nothing that a hub says is believed: names may only lead below the output folder, sizes bound what is written, and a file
 * gets its name when its bytes have the digest that the listing promised.  The token goes to the hub's own host and to no other.
 */
#ifndef NB_HUB_H
#define NB_HUB_H

#include "runtime/io/buf.h"

typedef enum { NB_HUB_HF, NB_HUB_MODELSCOPE } nb_hub_kind;

typedef struct {
    nb_hub_kind kind;
    const char *endpoint;       /* "https://host", without a slash at the end */
    const char *repo, *revision;
    const char *token;          /* NULL: none */
    int         retries;        /* in a row without a byte of progress */
    double      wait_s;         /* before the first retry; doubles up to 60 s */
} nb_hub;

/* Digests that hubs publish: of the bytes, or git's object id (SHA-1 of "blob SIZE\0" and the bytes). */
typedef enum { NB_DIGEST_NONE, NB_DIGEST_SHA256, NB_DIGEST_GIT } nb_digest_kind;

typedef struct {
    char          *name;        /* relative, with '/' only between plain parts */
    uint64_t       size;
    nb_digest_kind kind;
    char           digest[65];  /* lower-case hex */
} nb_hub_file;

typedef struct {
    char         commit[65];    /* what the revision stands for now; empty when the hub does not tell */
    nb_hub_file *files;         /* [count], in the hub's order */
    size_t       count, hidden; /* hidden: names with a part that begins with '.', left out */
} nb_hub_list;

/* Told while bytes come in or are checked: how many more.  False stops with NB_ERR_STOPPED. */
typedef bool nb_hub_tick(void *context, const char *name, uint64_t more);

typedef struct nb_hub_connection nb_hub_connection;
nb_status nb_hub_connect(nb_hub_connection **out, const nb_hub *hub, nb_hub_tick *tick, void *context, nb_error *err);
void      nb_hub_disconnect(nb_hub_connection *c);

nb_status nb_hub_list_files(nb_hub_list *out, nb_hub_connection *c, nb_error *err);
/* The same from the hub's answer; split off so that hostile answers can be tested. */
nb_status nb_hub_list_parse(nb_hub_list *out, nb_hub_kind kind, const char *json, size_t n, const char *where, nb_error *err);
/* Keeps files that match one of include (none: all) and none of exclude; shell patterns whose '*' also crosses '/'. */
void      nb_hub_list_filter(nb_hub_list *list, const char *const *include, int includes, const char *const *exclude, int excludes);
void      nb_hub_list_free(nb_hub_list *list);

/* What stands in the output folder already. */
typedef enum { NB_HUB_ABSENT, NB_HUB_PARTIAL, NB_HUB_COMPLETE, NB_HUB_DIFFERENT } nb_hub_state;
/* have: bytes that need not be fetched again.  Reads a file of the right size to check its digest. */
nb_status nb_hub_look(nb_hub_state *out, uint64_t *have, const nb_hub_file *f, const char *directory, nb_hub_tick *tick,
                      void *context, nb_error *err);
/* Fetch into directory/NAME.part, resuming what is there, check it, and give it its name. */
nb_status nb_hub_fetch(nb_hub_connection *c, const nb_hub_list *list, const nb_hub_file *f, const char *directory, nb_error *err);

/* Refuses a name that could lead out of a folder, drive a terminal or collide with a partial file. */
nb_status nb_hub_check_name(const char *name, const char *where, nb_error *err);

#endif
