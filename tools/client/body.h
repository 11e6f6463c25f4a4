/* body.h - a conversation as the body of a chat completion. */
#ifndef NB_CLIENT_BODY_H
#define NB_CLIENT_BODY_H

#include "runtime/io/buf.h"
#include "runtime/text/chat.h"

typedef struct {
    const char *model;
    int64_t     max_tokens;
    int64_t     min_pixels, max_pixels; /* 0: the server's */
} nb_api_ask;

/* Greedy.  Pictures are addresses or data: URLs; of base64 without a type the type is told by its first bytes. */
nb_status nb_api_chat_body(nb_buf *out, const nb_chat *chat, const nb_api_ask *ask, nb_error *err);

#endif
