/* call.h - one API call: what was asked, how far it is, and what has come of it so far.
 *
 * A call is made by a connection, prepared and answered by the service's threads, and read by the connection again.  It has two
 * holders, the connection and the service; what both touch is behind its lock.  Whenever there is something new to read, `wake` is
 * called (from any thread, without the lock).
 */
#ifndef NB_CALL_H
#define NB_CALL_H

#include <pthread.h>
#include <stdatomic.h>

#include "runtime/engine/stream.h"
#include "tools/serve/api_error.h"
#include "tools/serve/tool_calls.h"

enum { NB_CALL_MAX_CHOICES = 8, NB_CALL_MAX_STOPS = 16 };

typedef enum { NB_CALL_CHAT, NB_CALL_COMPLETION } nb_call_kind;

/* What was asked, checked and with the defaults filled in.  Owns everything. */
typedef struct {
    nb_call_kind        kind;
    char               *model;          /* as the client calls it */
    nb_chat             chat;           /* CHAT */
    nb_ids              ids;            /* COMPLETION: the prompt's tokens */
    nb_prompt_options   prompt;         /* media rules are the service's */
    nb_generate_options generate;       /* without callbacks; stop strings and biases below */
    char               *stops[NB_CALL_MAX_STOPS];
    int32_t             stop_ids[NB_CALL_MAX_STOPS];
    nb_token_bias      *bias;
    int64_t             max_tokens;     /* -1: what fits */
    int                 n;
    bool                stream, include_usage, continuous_usage, echo, has_seed, return_token_ids;
    cJSON              *form;           /* what the answer must be: {"json": schema | true}, {"object": true}, {"regex": "..."},
                                         * {"choice": [...]} or {"tools": [{name, parameters}], "single": bool}; NULL: anything */
    bool                tools;          /* calls are looked for in the answer */
    bool                named_tool;     /* and a certain one is asked for: finish_reason stays "stop" */
    int                 images, videos; /* parts of these kinds */
    nb_buf              ignored;        /* fields that were not understood, comma separated */
} nb_call_request;
void nb_call_request_free(nb_call_request *r);

typedef struct {
    int32_t          id;
    nb_token_logprob chosen, top[NB_TOP_LOGPROBS];
    int              count;
} nb_call_token;

typedef struct {
    nb_buf         text;      /* all of it so far */
    nb_call_token *tokens;    /* [token_count] all so far, when log probabilities or ids are asked for */
    size_t         token_count, token_capacity;
    size_t         completion_tokens, drafted, accepted;
    double         last_token; /* nb_seconds */
    bool           finished;
    nb_finish      finish;
    int            stop_string;
    int32_t        stop_token;
} nb_call_choice;

typedef enum { NB_STAGE_QUEUED, NB_STAGE_PREPARING, NB_STAGE_WAITING, NB_STAGE_RUNNING, NB_STAGE_DONE } nb_call_stage;

typedef struct nb_call nb_call;
struct nb_call {
    nb_call_request request;
    char            id[48];          /* chatcmpl-... */
    int64_t         created;         /* Unix time */
    pthread_mutex_t wake_lock;
    void          (*wake)(void *context); /* NULL: nobody listens */
    void           *wake_context;
    atomic_bool     cancelled;
    atomic_int      holders;

    pthread_mutex_t lock;
    nb_call_stage   stage;
    nb_api_error    error;           /* of the whole call */
    nb_call_choice  choices[NB_CALL_MAX_CHOICES];
    size_t          prompt_tokens, cached_tokens, image_tokens, video_tokens;
    nb_ids          prompt_ids;      /* when the client wants them */
    double          arrived, prepared, started, first_token, last_token, ended; /* nb_seconds; 0: not yet */
    double          fetch_s, encode_s; /* media: read, decoded and resized; the vision tower */

    /* The service's own. */
    nb_prompt       prompt;
    nb_visual     **visual;
    nb_stream      *streams[NB_CALL_MAX_CHOICES];
    nb_grammar     *grammars[NB_CALL_MAX_CHOICES];
    nb_call        *next;
};

nb_status nb_call_new(nb_call **out, nb_call_request *request /* taken over */, const char *id_prefix, nb_error *err);
nb_call  *nb_call_hold(nb_call *c);
void      nb_call_drop(nb_call *c);
void      nb_call_cancel(nb_call *c);
void      nb_call_wake(nb_call *c);
void      nb_call_listen(nb_call *c, void (*wake)(void *context), void *context); /* NULL: no more; returns when no wake is under way */

#endif
