/* vocabulary.c - checks a vocabulary while building the tables that encode and decode read.
 *
 * Tokens are spelled in the GPT-2 alphabet, where each byte has a printable character: 0x21-0x7E, 0xA1-0xAC and 0xAE-0xFF
 * stand for themselves, the other 68 bytes, in order, are U+0100, U+0101, ...  After opening only bytes and ids are left.
 */
#include "runtime/text/vocabulary.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/text/normalize.h"
#include "runtime/text/code_point.h"

/* The byte that a character of the alphabet stands for, or -1. */
static int byte_of(int32_t code)
{
    if ((code >= 0x21 && code <= 0x7E) || (code >= 0xA1 && code <= 0xAC) || (code >= 0xAE && code <= 0xFF)) return code;
    if (code < 0x100 || code >= 0x100 + 68) return -1;
    int k = code - 0x100;
    return k < 0x21 ? k : k < 0x21 + 34 ? 0x7F + (k - 0x21) : 0xAD;
}

/* Append what a token spells.  One with characters outside the alphabet can never be produced by merges; it stands for
 * its own text. */
static void spell(nb_buf *out, const char *text, size_t n)
{
    size_t start = out->size;
    for (size_t i = 0; i < n;) {
        int32_t code;
        int     length = nb_utf8_step(text + i, n - i, &code), byte = length > 0 ? byte_of(code) : -1;
        if (byte < 0) {
            if (!out->failed) out->size = start;
            nb_buf_add(out, text, n);
            return;
        }
        nb_buf_char(out, (char)byte);
        i += (size_t)length;
    }
}

/* How much of a hostile name a message shows, cut between characters. */
static int shown(const char *text, size_t n)
{
    if (n <= 48) return (int)n;
    n = 48;
    while (n && ((unsigned char)text[n] & 0xC0) == 0x80) n--;
    return (int)n;
}

static uint64_t hash_step(uint64_t hash, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) hash = (hash ^ (uint8_t)text[i]) * 0x100000001B3u;
    return hash;
}

/* The slot of the name left + right, or the free one where it belongs. */
static nb_name *find_name(const nb_builder *b, const char *left, size_t n, const char *right, size_t m)
{
    uint64_t hash = hash_step(hash_step(0xCBF29CE484222325u, left, n), right, m) * 0x9E3779B97F4A7C15u;
    size_t   mask = ((size_t)1 << b->bits) - 1;
    for (size_t i = (size_t)(hash >> (64 - b->bits));; i = (i + 1) & mask) {
        nb_name *slot = &b->names[i];
        if (!slot->text) return slot;
        if (slot->length == n + m && memcmp(slot->text, left, n) == 0 && memcmp(slot->text + n, right, m) == 0) return slot;
    }
}

static nb_status check_id(const nb_builder *b, const cJSON *item, nb_error *err)
{
    if (cJSON_IsNumber(item) && item->valuedouble >= 0 && item->valuedouble < NB_ID_LIMIT &&
        item->valuedouble == (double)(int32_t)item->valuedouble)
        return NB_OK;
    return nb_fail(err, NB_ERR_INPUT, "%s: token '%.*s' needs a whole number from 0 to %d as its id", b->file,
                   shown(item->string, strlen(item->string)), item->string, NB_ID_LIMIT - 1);
}

static nb_status store(nb_builder *b, int32_t id, nb_entry_kind kind, const char *text, size_t n, nb_error *err)
{
    nb_tokenizer *t = b->tokenizer;
    size_t        begin = t->bytes.size;
    if (kind == NB_ENTRY_PLAIN)
        spell(&t->bytes, text, n);
    else
        nb_buf_add(&t->bytes, text, n);
    NB_TRY(nb_buf_status(&t->bytes, "vocabulary", err));
    if (t->bytes.size > UINT32_MAX)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: the vocabulary is larger than 4 GiB", b->file);
    t->tokens[id] = (nb_entry){(uint32_t)begin, (uint32_t)(t->bytes.size - begin), (uint8_t)kind};
    return NB_OK;
}

nb_status nb_builder_vocabulary(nb_builder *b, const cJSON *vocabulary, int64_t largest_added, nb_error *err)
{
    nb_tokenizer *t = b->tokenizer;
    size_t        count = 0;
    int           size = 0;
    const cJSON  *item;
    if (!cJSON_IsObject(vocabulary))
        return nb_fail(err, NB_ERR_INPUT, "%s: the vocabulary is not an object of token: id", b->file);
    if (largest_added >= NB_ID_LIMIT)
        return nb_fail(err, NB_ERR_INPUT, "%s: added token id %lld is larger than %d", b->file, (long long)largest_added,
                       NB_ID_LIMIT - 1);
    if (largest_added >= 0) size = (int)largest_added + 1;
    cJSON_ArrayForEach(item, vocabulary)
    {
        NB_TRY(check_id(b, item, err));
        if (item->valueint >= size) size = item->valueint + 1;
        count++;
    }
    t->size = size;
    NB_TRY(nb_alloc(&t->tokens, (size_t)size, sizeof *t->tokens, "vocabulary", err));
    b->bits = 4;
    while ((size_t)1 << b->bits < 2 * count) b->bits++;
    NB_TRY(nb_alloc(&b->names, (size_t)1 << b->bits, sizeof *b->names, "vocabulary", err));
    for (int i = 0; i < 256; i++) t->merges.byte_id[i] = -1;
    cJSON_ArrayForEach(item, vocabulary)
    {
        size_t   n = strlen(item->string);
        nb_name *name = find_name(b, item->string, n, "", 0);
        if (name->text || t->tokens[item->valueint].kind != NB_ENTRY_HOLE)
            return nb_fail(err, NB_ERR_INPUT, "%s: token '%.*s' or its id %d is in the vocabulary twice", b->file,
                           shown(item->string, n), item->string, item->valueint);
        *name = (nb_name){item->string, (uint32_t)n, item->valueint};
        NB_TRY(store(b, item->valueint, NB_ENTRY_PLAIN, item->string, n, err));
        int32_t code;
        if (n && nb_utf8_step(item->string, n, &code) == (int)n && byte_of(code) >= 0)
            t->merges.byte_id[byte_of(code)] = item->valueint;
    }
    for (int i = 0; i < 256; i++)
        if (t->merges.byte_id[i] < 0)
            return nb_fail(err, NB_ERR_INPUT, "%s: the vocabulary has no token for the byte 0x%02X, so some text could not be "
                                              "encoded", b->file, (unsigned)i);
    return NB_OK;
}

nb_status nb_builder_add(nb_builder *b, const char *text, int64_t id, bool special, bool normalized, nb_error *err)
{
    nb_tokenizer *t = b->tokenizer;
    size_t        n = strlen(text);
    if (id < 0 || id >= t->size)
        return nb_fail(err, NB_ERR_INPUT, "%s: added token '%.*s' has the id %lld", b->file, shown(text, n), text,
                       (long long)id);
    if (n == 0) return nb_fail(err, NB_ERR_INPUT, "%s: the added token with id %lld is empty", b->file, (long long)id);
    if (n > NB_ADDED_LIMIT)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: added token '%.*s...' is longer than %d bytes", b->file, shown(text, n),
                       text, NB_ADDED_LIMIT);
    nb_name *name = find_name(b, text, n, "", 0);
    if (name->text && name->id != id)
        return nb_fail(err, NB_ERR_INPUT, "%s: added token '%.*s' has the id %lld, but the vocabulary gives it %d", b->file,
                       shown(text, n), text, (long long)id, name->id);
    if (t->tokens[id].kind != NB_ENTRY_HOLE && !(name->text && t->tokens[id].kind == NB_ENTRY_PLAIN))
        return nb_fail(err, NB_ERR_INPUT, "%s: added token '%.*s' has the id %lld, which another token has too", b->file,
                       shown(text, n), text, (long long)id);
    NB_TRY(store(b, (int32_t)id, special ? NB_ENTRY_SPECIAL : NB_ENTRY_ADDED, text, n, err));
    if (t->added_count == b->added_capacity)
        NB_TRY(nb_grow(&t->added, &b->added_capacity, t->added_count + 1, sizeof *t->added, "added tokens", err));
    nb_added *a = &t->added[t->added_count++];
    *a = (nb_added){t->tokens[id].begin, t->tokens[id].length, (int32_t)id, special, normalized};
    if (normalized) { /* it meets text in NFC, so it is looked for in NFC */
        a->begin = (uint32_t)t->bytes.size;
        NB_TRY(nb_nfc(&t->bytes, text, n, err));
        a->length = (uint32_t)(t->bytes.size - a->begin);
    }
    return NB_OK;
}

nb_status nb_builder_merge(nb_builder *b, const char *left, size_t left_length, const char *right, size_t right_length,
                           nb_error *err)
{
    const nb_name *l = find_name(b, left, left_length, "", 0), *r = find_name(b, right, right_length, "", 0);
    const nb_name *both = find_name(b, left, left_length, right, right_length);
    const char    *wrong = !left_length || !right_length ? "an empty piece"
                           : !l->text                    ? "a left piece that is not in the vocabulary"
                           : !r->text                    ? "a right piece that is not in the vocabulary"
                           : !both->text                 ? "pieces whose union is not in the vocabulary"
                                                         : NULL;
    if (!wrong && !nb_merges_add(&b->tokenizer->merges, l->id, r->id, (uint32_t)b->merge_count, both->id))
        wrong = "a pair that an earlier merge names too";
    if (wrong)
        return nb_fail(err, NB_ERR_INPUT, "%s: merges[%zu] ('%.*s' + '%.*s') has %s", b->file, b->merge_count,
                       shown(left, left_length), left, shown(right, right_length), right, wrong);
    b->merge_count++;
    return NB_OK;
}

/* qsort has no argument for it; opening is the only writer, and each thread has its own. */
static _Thread_local const char *sort_bytes;

static int by_bytes(const void *x, const void *y)
{
    const nb_added *a = x, *b = y;
    size_t          n = a->length < b->length ? a->length : b->length;
    int             c = memcmp(sort_bytes + a->begin, sort_bytes + b->begin, n);
    return c ? c : (a->length > b->length) - (a->length < b->length);
}

nb_status nb_builder_finish(nb_builder *b, nb_error *err)
{
    nb_tokenizer *t = b->tokenizer;
    sort_bytes = t->bytes.data;
    if (t->added_count) qsort(t->added, t->added_count, sizeof *t->added, by_bytes);
    for (size_t i = 0; i < t->added_count; i++) {
        const nb_added *a = &t->added[i];
        if (i && by_bytes(a - 1, a) == 0)
            return nb_fail(err, NB_ERR_INPUT, "%s: the added tokens %d and %d have the same text", b->file, a[-1].id, a->id);
        t->any[a->normalized][a->special] = true;
        t->starts[(uint8_t)t->bytes.data[a->begin]] = true;
    }
    return NB_OK;
}

void nb_builder_free(nb_builder *b)
{
    free(b->names);
    b->names = NULL;
}
