/* dataset_text.h - inside calib: the paragraphs of a plain text file, one at a time.
 *
 * A paragraph ends at an empty line (white space counts as nothing), so a wiki dump or a book gives samples of a natural
 * length and a file without empty lines is one document.  Line ends become '\n'; what else stands in a paragraph is kept.
 */
#ifndef NB_DATASET_TEXT_H
#define NB_DATASET_TEXT_H

#include "runtime/io/reader.h"
#include "runtime/io/buf.h"

typedef struct nb_text_stream nb_text_stream;

/* True for the names of plain text, packed or not: .txt, .text, .md. */
bool      nb_text_stream_named(const char *path);
nb_status nb_text_stream_open(nb_text_stream **out, const char *path, nb_error *err);
/* *out: the text, valid until the next call, or NULL at the end.  line: on which it begins, 1-based.  Text that is not UTF-8,
 * holds a NUL or is longer than 256 MiB is refused; the next call goes on behind it. */
nb_status nb_text_stream_next(nb_text_stream *s, const char **out, size_t *line, nb_error *err);
void      nb_text_stream_close(nb_text_stream *s);
const nb_reader *nb_text_stream_reader(const nb_text_stream *s);

#endif
