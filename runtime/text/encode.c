/* encode.c - text to ids, and ids back to bytes.
 *
 * Added tokens are cut out first, what is left is brought into NFC, split into pieces and merged inside each.
 */
#include <stdlib.h>
#include <string.h>

#include "runtime/text/normalize.h"
#include "runtime/text/split.h"
#include "runtime/text/vocabulary.h"

nb_status nb_ids_push(nb_ids *ids, int32_t id, nb_error *err)
{
    if (ids->count == ids->capacity)
        NB_TRY(nb_grow(&ids->data, &ids->capacity, ids->count + 1, sizeof *ids->data, "token ids", err));
    ids->data[ids->count++] = id;
    return NB_OK;
}

void nb_ids_free(nb_ids *ids)
{
    free(ids->data);
    *ids = (nb_ids){0};
}

int nb_tokenizer_size(const nb_tokenizer *t)
{
    return t->size;
}

int32_t nb_tokenizer_special(const nb_tokenizer *t, const char *text)
{
    size_t n = strlen(text);
    for (size_t i = 0; i < t->added_count; i++) {
        const nb_entry *k = &t->tokens[t->added[i].id];
        if (k->length == n && memcmp(t->bytes.data + k->begin, text, n) == 0) return t->added[i].id;
    }
    return -1;
}

bool nb_tokenizer_is_special(const nb_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->size && t->tokens[id].kind == NB_ENTRY_SPECIAL;
}

/* Which added tokens are looked for. */
typedef struct {
    bool normalized, special; /* special: those too, not only the ordinary ones */
} wanted;

/* The longest added token that text[0..n) begins with, or NULL.  The tokens are ordered by their bytes, so those that share
 * a prefix with the text are a range, which each byte narrows. */
static const nb_added *added_at(const nb_tokenizer *t, const char *text, size_t n, wanted want)
{
    const nb_added *best = NULL;
    size_t          low = 0, high = t->added_count;
    for (size_t depth = 0; low < high; depth++) {
        const nb_added *first = &t->added[low];
        if (first->length == depth) { /* it ends here, so it stands before all that go on */
            if (first->normalized == want.normalized && (want.special || !first->special)) best = first;
            low++;
        }
        if (depth == n) break;
        uint8_t byte = (uint8_t)text[depth];
        size_t  end[2];
        for (int side = 0; side < 2; side++) { /* first token whose byte is >= byte, then > byte */
            size_t from = low, to = high;
            while (from < to) {
                size_t  middle = from + (to - from) / 2;
                uint8_t have = (uint8_t)t->bytes.data[t->added[middle].begin + depth];
                if (side ? have <= byte : have < byte)
                    from = middle + 1;
                else
                    to = middle;
            }
            end[side] = from;
        }
        low = end[0];
        high = end[1];
    }
    return best;
}

/* Where the next added token in text[at..n) begins; n when there is none.  *found is it. */
static size_t next_added(const nb_tokenizer *t, const char *text, size_t at, size_t n, wanted want,
                         const nb_added **found)
{
    *found = NULL;
    if (!t->any[want.normalized][0] && !(want.special && t->any[want.normalized][1])) return n;
    for (; at < n; at++)
        if (t->starts[(uint8_t)text[at]] && (*found = added_at(t, text + at, n - at, want))) return at;
    return n;
}

typedef struct {
    const nb_tokenizer *tokenizer;
    bool                special;
    nb_bpe_work        *work;
    nb_buf              normalized;
    nb_ids             *out;
} encoder;

/* Text without added tokens, in NFC. */
static nb_status encode_pieces(encoder *e, const char *text, size_t n, nb_error *err)
{
    for (size_t i = 0; i < n;) {
        size_t length = nb_split_next(text + i, n - i);
        NB_TRY(nb_bpe_encode(&e->tokenizer->merges, e->work, text + i, length, e->out, err));
        i += length;
    }
    return NB_OK;
}

/* Text between the added tokens that are looked for in the raw text. */
static nb_status encode_stretch(encoder *e, const char *text, size_t n, nb_error *err)
{
    if (!nb_nfc_quick_check(text, n)) {
        nb_buf_clear(&e->normalized);
        NB_TRY(nb_nfc(&e->normalized, text, n, err));
        text = e->normalized.data;
        n = e->normalized.size;
    }
    for (size_t i = 0; i < n;) {
        const nb_added *found;
        size_t          end = next_added(e->tokenizer, text, i, n, (wanted){true, e->special}, &found);
        NB_TRY(encode_pieces(e, text + i, end - i, err));
        if (found) NB_TRY(nb_ids_push(e->out, found->id, err));
        i = end + (found ? found->length : 0);
    }
    return NB_OK;
}

static nb_status encode_all(encoder *e, const char *text, size_t n, nb_error *err)
{
    for (size_t i = 0; i < n;) {
        const nb_added *found;
        size_t          end = next_added(e->tokenizer, text, i, n, (wanted){false, e->special}, &found);
        NB_TRY(encode_stretch(e, text + i, end - i, err));
        if (found) NB_TRY(nb_ids_push(e->out, found->id, err));
        i = end + (found ? found->length : 0);
    }
    return NB_OK;
}

nb_status nb_tokenizer_encode(const nb_tokenizer *t, const char *text, size_t n, bool parse_special, nb_ids *out,
                              nb_error *err)
{
    if (n > (size_t)INT32_MAX / 4) /* places in a piece are 32 bits, and NFC can triple a text */
        return nb_fail(err, NB_ERR_ARGUMENT, "a text of %zu bytes is too long to encode at once", n);
    encoder e = {.tokenizer = t, .special = parse_special, .out = out};
    size_t  before = out->count;
    NB_TRY(nb_bpe_work_new(&e.work, n, err));
    nb_status status = encode_all(&e, text, n, err);
    if (status != NB_OK) out->count = before;
    nb_bpe_work_free(e.work);
    nb_buf_free(&e.normalized);
    return status;
}

void nb_tokenizer_decode(const nb_tokenizer *t, const int32_t *ids, size_t n, bool skip_special, nb_buf *out)
{
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= t->size) continue;
        const nb_entry *k = &t->tokens[ids[i]];
        if (k->kind == NB_ENTRY_HOLE || (skip_special && k->kind == NB_ENTRY_SPECIAL)) continue;
        nb_buf_add(out, t->bytes.data + k->begin, k->length);
    }
}
