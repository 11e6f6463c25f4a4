/* api_error.c - statuses, their types, and the body. */
#include "tools/serve/api_error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tools/cli/output.h"

bool nb_api_fail(nb_api_error *e, int status, const char *param, const char *format, ...)
{
    va_list args;
    memset(e, 0, sizeof *e);
    e->status = status;
    snprintf(e->param, sizeof e->param, "%s", param ? param : "");
    va_start(args, format);
    vsnprintf(e->message, sizeof e->message, format, args);
    va_end(args);
    return false;
}

bool nb_api_fail_from(nb_api_error *e, const nb_error *err, const char *param)
{
    switch (err->status) {
    case NB_ERR_ARGUMENT:
    case NB_ERR_INPUT:
    case NB_ERR_UNSUPPORTED:
    case NB_ERR_BUDGET: return nb_api_fail(e, 400, param, "%s", err->text);
    case NB_ERR_MEMORY: return nb_api_fail(e, 503, param, "the server is out of memory for this request");
    default: return nb_api_fail(e, 500, param, "the server could not finish this request; its log says why");
    }
}

const char *nb_api_error_type(int status)
{
    switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 429: return "rate_limit_error";
    case 501: return "not_supported_error";
    case 503: return "unavailable_error";
    case 504: return "timeout_error";
    default: return status >= 500 ? "server_error" : "invalid_request_error";
    }
}

void nb_api_error_body(nb_buf *out, const nb_api_error *e)
{
    nb_emit emit = nb_emit_start(out, false);
    nb_emit_open(&emit, NULL, '{');
    nb_emit_open(&emit, "error", '{');
    nb_emit_string(&emit, "message", e->message);
    nb_emit_string(&emit, "type", nb_api_error_type(e->status));
    nb_emit_string(&emit, "param", e->param[0] ? e->param : NULL);
    nb_emit_int(&emit, "code", e->status);
    nb_emit_close(&emit);
    nb_emit_close(&emit);
}
