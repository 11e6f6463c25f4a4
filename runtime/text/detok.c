/* detok.c - bytes of ids as well-formed text, whole or as they come.
 *
 * Streaming gives the same text as decoding the whole: a character is held back until it is complete or cannot become so.
 */
#include <string.h>

#include "runtime/text/tokenizer.h"
#include "runtime/text/code_point.h"

#define REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

void nb_utf8_repair(nb_buf *text)
{
    nb_buf fixed = {0};
    size_t copied = 0;
    for (size_t i = 0; i < text->size;) {
        int32_t code;
        int     length = nb_utf8_step(text->data + i, text->size - i, &code);
        if (code < 0) {
            nb_buf_add(&fixed, text->data + copied, i - copied);
            nb_buf_str(&fixed, REPLACEMENT);
            copied = i + (length ? (size_t)length : text->size - i); /* 0: cut off, the rest is one subpart */
        }
        i = code < 0 ? copied : i + (size_t)length;
    }
    if (!fixed.size && !fixed.failed) return;
    nb_buf_add(&fixed, text->data + copied, text->size - copied);
    bool failed = text->failed;
    nb_buf_free(text);
    *text = fixed;
    text->failed = text->failed || failed;
}

void nb_detok_start(nb_detok *d, const nb_tokenizer *t, bool skip_special)
{
    *d = (nb_detok){.tokenizer = t, .skip_special = skip_special};
}

static void push_byte(nb_detok *d, char byte, nb_buf *out)
{
    d->tail[d->held++] = byte;
    while (d->held) {
        int32_t code;
        int     length = nb_utf8_step(d->tail, (size_t)d->held, &code);
        if (length == 0) return;
        if (code < 0)
            nb_buf_str(out, REPLACEMENT);
        else
            nb_buf_add(out, d->tail, (size_t)length);
        d->held -= length;
        memmove(d->tail, d->tail + length, (size_t)d->held);
    }
}

void nb_detok_push(nb_detok *d, int32_t id, nb_buf *out)
{
    nb_buf bytes = {0};
    nb_tokenizer_decode(d->tokenizer, &id, 1, d->skip_special, &bytes);
    for (size_t i = 0; i < bytes.size; i++) push_byte(d, bytes.data[i], out);
    out->failed = out->failed || bytes.failed;
    nb_buf_free(&bytes);
}

void nb_detok_finish(nb_detok *d, nb_buf *out)
{
    if (d->held) nb_buf_str(out, REPLACEMENT);
    d->held = 0;
}
