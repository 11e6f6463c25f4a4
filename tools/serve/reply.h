/* reply.h - what a call came to, in OpenAI's forms: one object at the end, or server-sent events on the way. */
#ifndef NB_REPLY_H
#define NB_REPLY_H

#include "tools/serve/call.h"

typedef struct {
    const nb_tokenizer *tokenizer; /* for log probabilities: tokens as text and bytes */
    const char         *model;     /* the name to answer with */
    const char         *fingerprint;
} nb_reply_source;

/* The whole answer of a call that is done without an error. */
void nb_reply_whole(nb_buf *out, const nb_call *c, const nb_reply_source *source);

/* How far a stream of events is. */
typedef struct {
    struct {
        size_t text, tokens; /* of the choice, already sent */
        bool   began, ended;
        nb_tool_calls tools;            /* found so far, when they are looked for */
        size_t arguments;               /* of the last call, sent */
        int    calls;                   /* whose names were sent */
    } choices[NB_CALL_MAX_CHOICES];
    bool finished; /* [DONE] was written */
} nb_reply_stream;
void nb_reply_stream_free(nb_reply_stream *s);
/* Append the events for all that is new; takes the call's lock.  s->finished at the end. */
void nb_reply_next(nb_buf *out, nb_call *c, nb_reply_stream *s, const nb_reply_source *source);

#endif
