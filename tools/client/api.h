/* api.h - calls to a running OpenAI-compatible server: nibble's, vLLM's, SGLang's, llama-server's, or one far away.
 *
 * What fails for now (no connection, 429, 5xx) is tried again with growing pauses; what is refused is an error with the server's own
 * words.  Redirects are not followed, so a key goes to the server that was named and nowhere else.
 */
#ifndef NB_CLIENT_API_H
#define NB_CLIENT_API_H

#include "runtime/io/json.h"

typedef struct {
    const char *url;        /* http://host:port, with or without /v1 behind it */
    const char *key;        /* sent as a bearer token; NULL: none */
    double      timeout_s;  /* of one try; 0: 600 */
    int         retries;    /* after the first try; below 0: none */
    double      wait_s;     /* before the second try, twice as much before each further one; 0: 0.5 */
} nb_api;

/* The key in the file's first line, else OPENAI_API_KEY, else NULL; malloc'd. */
nb_status nb_api_key(char **out, const char *key_file, nb_error *err);

/* A connection, which keeps what can be kept from call to call; for one thread at a time. */
typedef struct nb_api_connection nb_api_connection;
nb_status nb_api_connect(nb_api_connection **out, const nb_api *api, nb_error *err); /* *api is borrowed */
void      nb_api_close(nb_api_connection *c);
/* path: "/chat/completions".  *reply: the JSON of a 200.  A stop signal ends it with NB_ERR_STOPPED. */
nb_status nb_api_post(nb_api_connection *c, const char *path, const nb_buf *body, cJSON **reply, nb_error *err);

/* `count` calls, at most `parallel` at a time; bodies are asked for in order, replies are given in order, one at a time. */
typedef nb_status nb_api_body_at(void *context, size_t i, nb_buf *body, nb_error *err);
typedef nb_status nb_api_reply_at(void *context, size_t i, const cJSON *reply, nb_error *err);
nb_status nb_api_many(const nb_api *api, const char *path, size_t count, int parallel, nb_api_body_at *body, nb_api_reply_at *reply,
                      void *context, nb_error *err);

/* The text of the first choice of a chat completion; NULL: there is none. */
const char *nb_api_text(const cJSON *reply);

#endif
