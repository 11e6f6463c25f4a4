/* normalize.h - canonical composition (NFC) of text that may hold bytes that are not UTF-8. */
#ifndef NB_NORMALIZE_H
#define NB_NORMALIZE_H

#include "runtime/io/buf.h"

/* True when nb_nfc would surely change nothing; a false answer may be wrong, so that it can be quick. */
bool      nb_nfc_quick_check(const char *text, size_t n);
/* Append the NFC of text.  Bytes that are not UTF-8 pass through and stand between characters like an inert one. */
nb_status nb_nfc(nb_buf *out, const char *text, size_t n, nb_error *err);

#endif
