/* request.h - the JSON of a chat or text completion to a checked nb_call_request; every refusal is a 400 that names the field. */
#ifndef NB_REQUEST_H
#define NB_REQUEST_H

#include "tools/serve/service.h"

/* Fields that are not known are listed in out->ignored, never refused.  out is zeroed on failure. */
bool nb_request_chat(nb_call_request *out, const cJSON *body, nb_service *service, nb_api_error *error);
bool nb_request_completion(nb_call_request *out, const cJSON *body, nb_service *service, nb_api_error *error);
/* The chat of a body with messages and tools, as nb_request_chat reads it (for /apply-template and token counts). */
bool nb_request_messages(nb_call_request *out, const cJSON *body, nb_service *service, nb_api_error *error);

#endif
