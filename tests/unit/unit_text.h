/* unit_text.h - what the tests of runtime/text share: encoding that must succeed, comparing ids, random strings. */
#ifndef NB_UNIT_TEXT_H
#define NB_UNIT_TEXT_H

#include "unit.h"

#include "runtime/io/file.h"
#include "runtime/io/json.h"
#include "runtime/text/tokenizer.h"

#define PUBLISHED "qwen2-vl-2b-instruct-awq" /* in the shared data */

static inline nb_ids encode(const nb_tokenizer *t, const char *text, size_t n, bool parse_special)
{
    nb_ids   ids = {0};
    nb_error err;
    OK(nb_tokenizer_encode(t, text, n, parse_special, &ids, &err), &err);
    return ids;
}

static inline void assert_ids(const nb_ids *got, const cJSON *want, const char *text)
{
    const cJSON *item;
    size_t       i = 0;
    cJSON_ArrayForEach(item, want)
    {
        if (i >= got->count || got->data[i] != item->valueint)
            fail_msg("'%s': id %zu is %d, expected %d", text, i, i < got->count ? got->data[i] : -1, item->valueint);
        i++;
    }
    if (i != got->count) fail_msg("'%s': %zu ids, expected %zu", text, got->count, i);
}

static inline void assert_decodes_to(const nb_tokenizer *t, const nb_ids *ids, const char *text, size_t n)
{
    nb_buf out = {0};
    nb_tokenizer_decode(t, ids->data, ids->count, false, &out);
    if (out.size != n || (n && memcmp(out.data, text, n) != 0)) fail_msg("decode gives other bytes than were encoded (%zu, %zu)", out.size, n);
    nb_buf_free(&out);
}

/* random_string of the oracle script. */
static const int32_t unit_ranges[][2] = {
    {0x20, 0x7E},     {0x61, 0x7A},       {0x09, 0x0D},       {0x80, 0x24F},      {0x300, 0x36F},    {0x370, 0x5FF},
    {0x600, 0x6FF},   {0x900, 0xDFF},     {0xF00, 0xFFF},     {0x1100, 0x11FF},   {0x1E00, 0x1FFF},  {0x2000, 0x206F},
    {0x2100, 0x214F}, {0x3000, 0x30FF},   {0x4E00, 0x9FFF},   {0xA000, 0xABFF},   {0xAC00, 0xD7A3},  {0xE000, 0xFFFF},
    {0x10000, 0x11FFF}, {0x1D100, 0x1D7FF}, {0x1F300, 0x1FAFF}, {0x20000, 0x2FFFF}};
static const char *const unit_fragments[] = {"'s", "'LL", "'Re", "'\u017f", "'m", " ", "  ", "\n", "\r\n", " \n", "\u00a0", "\u3000", "1", "23",
                                        "the", " of", "ing", "...", "\u0301", "<|im_end|>", "<|image_pad|>", "<|im", "|>"};

static inline void add_code(nb_buf *b, int32_t c)
{
    if (c >= 0x10000) nb_buf_char(b, (char)(0xF0 | c >> 18));
    if (c >= 0x10000) nb_buf_char(b, (char)(0x80 | (c >> 12 & 63)));
    if (c >= 0x800 && c < 0x10000) nb_buf_char(b, (char)(0xE0 | c >> 12));
    if (c >= 0x800) nb_buf_char(b, (char)(0x80 | (c >> 6 & 63)));
    if (c >= 0x80 && c < 0x800) nb_buf_char(b, (char)(0xC0 | c >> 6));
    nb_buf_char(b, (char)(c < 0x80 ? c : 0x80 | (c & 63)));
}

static inline void random_string(nb_buf *out, uint64_t *seed)
{
    nb_buf_clear(out);
    for (uint32_t n = 1 + unit_random(seed) % 24; n > 0; n--) {
        uint32_t pool = unit_random(seed) % (NB_COUNT(unit_ranges) + 12);
        if (pool < NB_COUNT(unit_ranges))
            add_code(out, unit_ranges[pool][0] + (int32_t)(unit_random(seed) % (uint32_t)(unit_ranges[pool][1] - unit_ranges[pool][0] + 1)));
        else
            nb_buf_str(out, unit_fragments[unit_random(seed) % NB_COUNT(unit_fragments)]);
    }
}

#endif
