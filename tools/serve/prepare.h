/* prepare.h - from a request to a prompt that the engine can take: media fetched under the server's rules, tokens counted, pictures
 * through the tower. */
#ifndef NB_PREPARE_H
#define NB_PREPARE_H

#include "tools/serve/service.h"

typedef struct {
    const nb_service_options *options;
    nb_model                  view;   /* the model with another pool, for the tower beside the engine */
    nb_pool                  *pool;
    nb_visual_cache          *cache;
    nb_token_trie            *trie;
    bool                      shares_device; /* one stream for both: they take turns */
    pthread_mutex_t           device;
} nb_prepare;

nb_status nb_prepare_init(nb_prepare *p, const nb_model *model, const nb_service_options *options, nb_error *err);
void      nb_prepare_free(nb_prepare *p); /* a zeroed one is fine */
/* Fills call->prompt, call->visual and the counts.  false: *error says why; with status 0 the call was cancelled meanwhile. */
bool      nb_prepare_call(nb_prepare *p, nb_call *call, nb_api_error *error);
/* Around whatever uses the device, when there is one. */
void      nb_prepare_lock(nb_prepare *p);
void      nb_prepare_unlock(nb_prepare *p);

#endif
