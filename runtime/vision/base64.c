/* base64.c - strict base64: the standard alphabet, white space skipped, padding optional but right where it stands.
 *
 * Python's decoder drops characters that do not belong, so that half of a picture can pass as a whole one; here the
 * first such character is named.
 */
#include "runtime/vision/media.h"

enum { SPACE = 64, PAD = 65, BAD = 66 };

static uint8_t meaning(unsigned char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    switch (c) {
    case '+': return 62;
    case '/': return 63;
    case '=': return PAD;
    case ' ':
    case '\t':
    case '\r':
    case '\n': return SPACE;
    default: return BAD;
    }
}

/* Appends the bytes; the caller clears out on failure. */
static nb_status decode(nb_buf *out, const char *text, size_t n, const char *name, nb_error *err)
{
    uint8_t  chunk[768];
    size_t   filled = 0, digits = 0, pads = 0;
    uint32_t group = 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t v = meaning((unsigned char)text[i]);
        if (v == SPACE) continue;
        if (v == PAD) {
            pads++;
            continue;
        }
        if (v == BAD)
            return nb_fail(err, NB_ERR_INPUT, "%s: character %zu of the base64 text (code %u) does not belong there", name,
                           i + 1, (unsigned char)text[i]);
        if (pads) return nb_fail(err, NB_ERR_INPUT, "%s: base64 text goes on after its '=' at character %zu", name, i + 1);
        group = group << 6 | v;
        if (++digits % 4) continue;
        chunk[filled++] = (uint8_t)(group >> 16);
        chunk[filled++] = (uint8_t)(group >> 8);
        chunk[filled++] = (uint8_t)group;
        if (filled == sizeof chunk) nb_buf_add(out, chunk, filled), filled = 0;
    }
    unsigned rest = digits % 4; /* 2 digits leave one byte, 3 leave two */
    if (rest == 1 || (pads && (!rest || rest + pads != 4)))
        return nb_fail(err, NB_ERR_INPUT, "%s: the base64 text is cut short or wrongly padded (%zu digits, %zu '=')", name,
                       digits, pads);
    if (rest && (group & ((1u << (rest == 2 ? 4 : 2)) - 1)))
        return nb_fail(err, NB_ERR_INPUT, "%s: the last digit of the base64 text has bits left over, so it is damaged", name);
    if (rest) chunk[filled++] = (uint8_t)(group >> (rest == 2 ? 4 : 10));
    if (rest == 3) chunk[filled++] = (uint8_t)(group >> 2);
    if (filled) nb_buf_add(out, chunk, filled);
    return nb_buf_status(out, name, err);
}

nb_status nb_base64_decode(nb_buf *out, const char *text, size_t n, const char *name, nb_error *err)
{
    *out = (nb_buf){ 0 };
    nb_status status = decode(out, text, n, name, err);
    if (status) nb_buf_free(out);
    return status;
}
