/* media_rules.h - which pictures and videos of a chat the server takes: how many, from where, how large. */
#ifndef NB_MEDIA_RULES_H
#define NB_MEDIA_RULES_H

#include "tools/serve/service.h"

/* Counts media, refuses references of a kind that is not allowed before anything is opened, and caps every part's pixel limits by the
 * server's maximum, which always wins. */
bool nb_media_rules_apply(nb_call_request *r, const nb_service_options *settings, const nb_model *model, nb_api_error *error);

#endif
