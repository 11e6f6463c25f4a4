/* output.c - the only functions of the program that print. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tools/cli/output.h"
#include "tools/cli/progress.h"

/* What the flags of the running command ask for; written once, before the command starts. */
static struct {
    bool verbose, quiet, json;
} wanted;

static bool reader_gone; /* standard output is a pipe that somebody closed, such as `| head` */

void nb_output_setup(const nb_common *common)
{
    wanted.verbose = common->verbose;
    wanted.quiet = common->quiet;
    wanted.json = common->json;
    nb_progress_setup((nb_progress_mode)common->progress, common->quiet);
}

void nb_output_for_rank(nb_common *common, int rank)
{
    if (rank == 0) return;
    common->verbose = false;
    common->quiet = true;
    common->progress = NB_PROGRESS_NONE;
    nb_output_setup(common);
}

bool nb_verbose(void)
{
    return wanted.verbose;
}

bool nb_json_wanted(void)
{
    return wanted.json;
}

/* One line; control characters of file names and answers never reach the terminal. */
static void __attribute__((format(printf, 2, 0))) say(const char *lead, const char *format, va_list list)
{
    char line[2048];
    vsnprintf(line, sizeof line, format, list);
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < 32 || *c == 127) *c = '?';
    nb_meter_clear();
    fprintf(stderr, "nibble: %s%s\n", lead, line);
}

void nb_note(const char *format, ...)
{
    if (wanted.quiet) return;
    va_list list;
    va_start(list, format);
    say("", format, list);
    va_end(list);
}

void nb_detail(const char *format, ...)
{
    if (!wanted.verbose) return;
    va_list list;
    va_start(list, format);
    say("", format, list);
    va_end(list);
}

void nb_warn(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    say("warning: ", format, list);
    va_end(list);
}

void nb_warn_lines(const char *text, const char *prefix)
{
    while (text && *text) {
        size_t n = strcspn(text, "\n");
        if (n) nb_warn("%s%.*s", prefix, (int)n, text);
        text += n + (text[n] == '\n');
    }
}

nb_status nb_print_text(const char *text, size_t n, nb_error *err)
{
    if ((n == 0 || fwrite(text, 1, n, stdout) == n) && fflush(stdout) == 0) return NB_OK;
    reader_gone = errno == EPIPE;
    return nb_fail(err, NB_ERR_IO, "standard output: %s", strerror(errno));
}

nb_status nb_print(const nb_buf *text, nb_error *err)
{
    NB_TRY(nb_buf_status(text, "the result", err));
    nb_meter_clear();
    return nb_print_text(text->data, text->size, err);
}

void nb_print_error(const nb_error *err, int exit_code, bool json)
{
    nb_meter_clear();
    if (reader_gone) return; /* who closed the pipe knows */
    fprintf(stderr, "nibble: error: %s\n", err->text);
    if (!json) return;
    nb_buf  out = {0};
    nb_emit e = nb_emit_start(&out, false);
    nb_emit_open(&e, NULL, '{');
    nb_emit_open(&e, "error", '{');
    nb_emit_string(&e, "message", err->text);
    nb_emit_string(&e, "kind", nb_status_text(err->status));
    nb_emit_int(&e, "exit_code", exit_code);
    nb_emit_close(&e);
    nb_emit_close(&e);
    nb_print(&out, NULL);
    nb_buf_free(&out);
}

/* ---- numbers for people ------------------------------------------------------------------------------------------ */

static void scaled(char out[32], double v, const char *const units[5])
{
    int u = 0;
    while (u < 4 && fabs(v) >= 999.5) v /= 1000, u++;
    snprintf(out, 32, u == 0 ? "%.0f%s" : fabs(v) < 9.995 ? "%.2f%s" : fabs(v) < 99.95 ? "%.1f%s" : "%.0f%s", v, units[u]);
}

void nb_human_bytes(char out[32], double bytes)
{
    static const char *const units[5] = {" B", " kB", " MB", " GB", " TB"};
    scaled(out, bytes, units);
}

void nb_human_count(char out[32], double count)
{
    static const char *const units[5] = {"", " k", " M", " B", " T"};
    scaled(out, count, units);
}

void nb_human_time(char out[32], double seconds)
{
    if (!(seconds >= 0) || seconds > 1e9) snprintf(out, 32, "?");
    else if (seconds < 0.9995) snprintf(out, 32, "%.0f ms", seconds * 1000);
    else if (seconds < 9.995) snprintf(out, 32, "%.2f s", seconds);
    else if (seconds < 59.5) snprintf(out, 32, "%.0f s", seconds);
    else if (seconds < 3599.5) snprintf(out, 32, "%d min %02d s", (int)(seconds + 0.5) / 60, (int)(seconds + 0.5) % 60);
    else snprintf(out, 32, "%d h %02d min", (int)(seconds / 60 + 0.5) / 60, (int)(seconds / 60 + 0.5) % 60);
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

nb_emit nb_emit_start(nb_buf *buf, bool indent)
{
    nb_emit e = {.buf = buf, .indent = indent};
    e.empty[0] = true;
    return e;
}

/* What stands before a value: comma, line break, key. */
static void before(nb_emit *e, const char *key)
{
    if (!e->empty[e->depth]) nb_buf_str(e->buf, e->indent || e->depth == 0 ? "," : ", ");
    if (e->indent && e->depth) nb_buf_printf(e->buf, "\n%*s", 2 * e->depth, "");
    e->empty[e->depth] = false;
    if (!key) return;
    nb_buf_json_string(e->buf, key, strlen(key));
    nb_buf_str(e->buf, ": ");
}

void nb_emit_open(nb_emit *e, const char *key, char bracket)
{
    before(e, key);
    nb_buf_char(e->buf, bracket);
    if (e->depth + 1 >= (int)sizeof e->close) { /* deeper than any report of ours: a bug, but not one to crash on */
        e->buf->failed = true;
        return;
    }
    e->depth++;
    e->close[e->depth] = bracket == '{' ? '}' : ']';
    e->empty[e->depth] = true;
}

void nb_emit_close(nb_emit *e)
{
    if (e->depth == 0) return;
    if (e->indent && !e->empty[e->depth]) nb_buf_printf(e->buf, "\n%*s", 2 * (e->depth - 1), "");
    nb_buf_char(e->buf, e->close[e->depth]);
    e->depth--;
    if (e->depth == 0) nb_buf_char(e->buf, '\n'), e->empty[0] = true;
}

void nb_emit_bytes(nb_emit *e, const char *key, const char *text, size_t n)
{
    before(e, key);
    nb_buf_json_string(e->buf, text, n);
}

void nb_emit_string(nb_emit *e, const char *key, const char *text)
{
    if (!text) {
        nb_emit_raw(e, key, "null");
        return;
    }
    nb_emit_bytes(e, key, text, strlen(text));
}

void nb_emit_int(nb_emit *e, const char *key, int64_t value)
{
    before(e, key);
    nb_buf_printf(e->buf, "%" PRId64, value);
}

void nb_emit_number(nb_emit *e, const char *key, double value)
{
    before(e, key);
    nb_buf_json_number(e->buf, value);
}

void nb_emit_bool(nb_emit *e, const char *key, bool value)
{
    nb_emit_raw(e, key, value ? "true" : "false");
}

void nb_emit_raw(nb_emit *e, const char *key, const char *json)
{
    before(e, key);
    nb_buf_str(e->buf, json);
}
