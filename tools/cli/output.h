/* output.h - who may write where: results go to stdout, everything else to stderr.
 *
 * These are the only functions of the program that print.  Results are buffered whole and written once, so that a reader
 * of a pipe never sees half a report of a command that failed; a stream of text (run, chat) is flushed as it comes.
 */
#ifndef NB_OUTPUT_H
#define NB_OUTPUT_H

#include "runtime/io/buf.h"
#include "tools/cli/args.h"

/* Called once by main before the command runs. */
void nb_output_setup(const nb_common *common);
/* Of several processes that do one job together, those with rank > 0 keep quiet. */
void nb_output_for_rank(nb_common *common, int rank);
bool nb_verbose(void);
bool nb_json_wanted(void); /* --json */

/* stderr, one line, "nibble: " in front.  note: unless -q.  detail: with -v only.  warn: always ("nibble: warning: "). */
void nb_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
void nb_detail(const char *format, ...) __attribute__((format(printf, 1, 2)));
void nb_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Each line of a text ("notes" of a model) as a warning. */
void nb_warn_lines(const char *text, const char *prefix);

/* stdout; a closed pipe or full disk is NB_ERR_IO, and NB_ERR_MEMORY comes from a buffer that failed. */
nb_status nb_print(const nb_buf *text, nb_error *err);
nb_status nb_print_text(const char *text, size_t n, nb_error *err); /* written and flushed at once */

/* "nibble: error: ..." on stderr and, with json, {"error": {...}} on stdout.  exit_code is what the process will return. */
void nb_print_error(const nb_error *err, int exit_code, bool json);

/* Numbers for people: "1.54 GB" (decimal, as files are listed), "1.2 s". */
void nb_human_bytes(char out[32], double bytes);
void nb_human_count(char out[32], double count); /* 1.54 B, 8.3 M */
void nb_human_time(char out[32], double seconds);

/* ---- JSON written as it goes; failures stay in the buffer -------------------------------------------------------- */

typedef struct {
    nb_buf *buf;
    int     depth;
    bool    indent;     /* two spaces a level, or one line */
    bool    empty[16];  /* nothing was written at this depth yet */
    char    close[16];
} nb_emit;

nb_emit nb_emit_start(nb_buf *buf, bool indent);
/* key NULL: inside an array, or the outermost value.  bracket '{' or '['. */
void nb_emit_open(nb_emit *e, const char *key, char bracket);
void nb_emit_close(nb_emit *e);
void nb_emit_string(nb_emit *e, const char *key, const char *text); /* NULL text: null */
void nb_emit_bytes(nb_emit *e, const char *key, const char *text, size_t n);
void nb_emit_int(nb_emit *e, const char *key, int64_t value);
void nb_emit_number(nb_emit *e, const char *key, double value); /* null when not finite */
void nb_emit_bool(nb_emit *e, const char *key, bool value);
void nb_emit_raw(nb_emit *e, const char *key, const char *json);

#endif
