/* api_error.h - a refusal as OpenAI's clients read it: an HTTP status, and a body with message, type, param and code.
 *
 * Messages carry numbers and what to do, never paths, addresses or a library's own words: those go to the log.
 */
#ifndef NB_API_ERROR_H
#define NB_API_ERROR_H

#include "runtime/io/buf.h"

typedef struct {
    int  status;        /* 0: no error */
    int  retry_after_s; /* 429 and 503 */
    char param[96];     /* JSON path of what is wrong, or empty */
    char message[768];
} nb_api_error;

/* Fills *e and returns false, so that a check reads: return nb_api_fail(e, 400, "n", "..."). */
bool nb_api_fail(nb_api_error *e, int status, const char *param, const char *format, ...) __attribute__((format(printf, 4, 5)));
/* What a failure inside means to a client: its input 400 (media 422), too large 400, everything else 500 without details. */
bool nb_api_fail_from(nb_api_error *e, const nb_error *err, const char *param);
const char *nb_api_error_type(int status); /* "invalid_request_error" ... */
void nb_api_error_body(nb_buf *out, const nb_api_error *e); /* {"error": {...}} */

#endif
