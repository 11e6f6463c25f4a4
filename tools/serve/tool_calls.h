/* tool_calls.h - calls of tools in a model's text: <tool_call>{"name": ..., "arguments": {...}}</tool_call>, found as it grows.
 *
 * Work is linear in the text.  The arguments of a call are the bytes of the text between its braces, so that what a stream sends adds
 * up to what a whole answer holds.
 */
#ifndef NB_TOOL_CALLS_H
#define NB_TOOL_CALLS_H

#include "runtime/io/buf.h"

enum { NB_MAX_TOOL_CALLS = 32 };

typedef struct {
    char   id[32];      /* call_... */
    char   name[72];
    bool   named;       /* name is complete */
    bool   complete;    /* and so are the arguments */
    size_t args, end;   /* of the text, as far as known; when `own` holds nothing */
    nb_buf own;         /* arguments that had to be written anew */
} nb_tool_call;

typedef struct {
    nb_tool_call calls[NB_MAX_TOOL_CALLS];
    int          count;
    size_t       content_end; /* text before the first call that may be shown by now */
    bool         broken;      /* something that looked like a call is none: all of the text is content */
    /* Where the search is. */
    enum { NB_TOOLS_TEXT, NB_TOOLS_HEAD, NB_TOOLS_ARGUMENTS, NB_TOOLS_TAIL, NB_TOOLS_WHOLE } phase;
    size_t       at, body;
    int          depth;
    bool         in_string, escaped;
} nb_tool_calls;

void nb_tool_calls_free(nb_tool_calls *s);
/* text [n]: all so far; last: nothing more will come. */
void nb_tool_calls_update(nb_tool_calls *s, const char *text, size_t n, bool last);
const char *nb_tool_call_arguments(const nb_tool_call *c, const char *text, size_t *n);

#endif
