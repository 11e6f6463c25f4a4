/* tokenizer.h - byte-level BPE as Qwen2 uses it: added tokens, NFC, the Qwen2 split pattern, merges by rank.
 *
 * Opened from tokenizer.json, or vocab.json + merges.txt (+ tokenizer_config.json for the added tokens).  Read-only once
 * open and shared by any number of threads.
 */
#ifndef NB_TOKENIZER_H
#define NB_TOKENIZER_H

#include "runtime/io/buf.h"

typedef struct nb_tokenizer nb_tokenizer;

typedef struct {
    int32_t *data;
    size_t   count, capacity;
} nb_ids;
nb_status nb_ids_push(nb_ids *ids, int32_t id, nb_error *err);
void      nb_ids_free(nb_ids *ids);

nb_status nb_tokenizer_open(nb_tokenizer **out, const char *directory, nb_error *err);
void      nb_tokenizer_close(nb_tokenizer *t);

int     nb_tokenizer_size(const nb_tokenizer *t); /* 1 + the largest id */
/* Id of an added (special) token by its text, or -1. */
int32_t nb_tokenizer_special(const nb_tokenizer *t, const char *text);
bool    nb_tokenizer_is_special(const nb_tokenizer *t, int32_t id);

/* Append the ids of text.  parse_special: special tokens in the text become their ids; otherwise they are ordinary text, so
 * that what a user types can never forge a control token.  Added tokens that are not special (words that a fine-tune put
 * into the vocabulary) are always found.  Bytes that are not UTF-8 are encoded byte by byte.  After a failure *out is as
 * before. */
nb_status nb_tokenizer_encode(const nb_tokenizer *t, const char *text, size_t n, bool parse_special, nb_ids *out,
                              nb_error *err);

/* Append the bytes of the ids.  The result may be cut inside a character; nb_utf8_repair replaces ill-formed parts by
 * U+FFFD as a whole-text decode would.  Ids without a token (gaps, padding rows) give nothing. */
void nb_tokenizer_decode(const nb_tokenizer *t, const int32_t *ids, size_t n, bool skip_special, nb_buf *out);
void nb_utf8_repair(nb_buf *text); /* one U+FFFD per maximal ill-formed subpart */

/* Streaming: push ids one by one, take text that never ends inside a character. */
typedef struct {
    const nb_tokenizer *tokenizer;
    bool                skip_special;
    char                tail[8]; /* an incomplete character */
    int                 held;
} nb_detok;
void nb_detok_start(nb_detok *d, const nb_tokenizer *t, bool skip_special);
void nb_detok_push(nb_detok *d, int32_t id, nb_buf *out); /* appends what is complete */
void nb_detok_finish(nb_detok *d, nb_buf *out);           /* an incomplete rest becomes U+FFFD */

#endif
