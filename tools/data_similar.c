/* data_similar.c - see data_similar.h.
 *
 * A signature is 64 bytes: byte i comes from the least hash of all runs whose hash falls into bin i.  Two rows agree in a byte
 * with a probability of their Jaccard index (and 1/256 by chance).  16 bands of 4 bytes lead to rows that may be alike: each
 * band of a row points, in a table, to the last row that had the same four bytes there.  A pointer is only a hint, since
 * whole signatures are compared, so tables need no deletion and an old row is simply overwritten.
 */
#include "tools/data_similar.h"

#include <stdlib.h>
#include <string.h>

enum { BINS = 64, BANDS = 16, SLOTS = NB_SIMILAR_ROWS, FEW = 8 };

typedef nb_similar_sketch entry;

struct nb_similar {
    entry    *rows;  /* [NB_SIMILAR_ROWS] a ring */
    uint32_t *slots; /* [BANDS, SLOTS] number of a row + 1; 0: none */
    size_t    count;
    uint8_t   kind[256]; /* of a byte: what read_text does with it */
};

enum { SPACE, WORD, ALONE }; /* ALONE: begins a character of three or four bytes, which is a word of its own */

/* The set as it grows: the last two words, and the least hash of each bin. */
typedef struct {
    uint64_t before, last, words, salt;
    uint32_t least[BINS];
    int      count, runs;
} sketch;

static inline void add_word(sketch *k, uint64_t word)
{
    uint64_t run = k->salt + word + (k->last << 21 | k->last >> 43) + (k->before << 42 | k->before >> 22); /* hashes already */
    run = (run ^ run >> 32) * 0xd6e8feb86659fd93u;
    run ^= run >> 32;
    uint32_t value = (uint32_t)run, bin = (uint32_t)(run >> 58);
    if (value < k->least[bin]) k->least[bin] = value;
    k->words = (k->words << 7 | k->words >> 57) * 0x9e3779b97f4a7c15u + word;
    k->before = k->last;
    k->last = word;
    k->runs++;
}

static const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;

/* The top bits of those of eight bytes that are ASCII in [first, last]: additions below 0x80 carry nothing over. */
static uint64_t within(uint64_t x, unsigned first, unsigned last)
{
    uint64_t seven = x & ~high;
    return (seven + ones * (0x80 - first)) & ~(seven + ones * (0x7f - last)) & ~x & high;
}

static uint64_t lower_case(uint64_t x)
{
    return x | within(x, 'A', 'Z') >> 2; /* 0x80 >> 2 is what lower case adds */
}

static uint64_t hash_step(uint64_t h, uint64_t eight)
{
    h = (h ^ lower_case(eight)) * 0x9fb21c651e98df25u;
    return h ^ h >> 29;
}

enum { HASH_SEED = 0x2325 };

/* A word is hashed eight bytes at a time, the last ones filled up with zeros, which no text holds. */
static uint64_t hash_word(const unsigned char *p, size_t n)
{
    uint64_t h = HASH_SEED;
    for (;; p += 8, n -= 8) {
        uint64_t x = 0;
        memcpy(&x, p, n < 8 ? n : 8);
        h = hash_step(h, x);
        if (n <= 8) return h;
    }
}

/* The next word of fewer than eight letters and digits, or the gap before it, when the next eight bytes are ASCII: without a
 * branch a byte.  Returns how far it went; 0: look byte by byte. */
static size_t read_short(sketch *k, const unsigned char *p)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    uint64_t x;
    memcpy(&x, p, 8);
    if (x & high) return 0;
    uint64_t word = within(x | ones * 0x20, 'a', 'z') | within(x, '0', '9'), gap = ~word & high;
    if (!word) return 8;
    if (!(word & 0x80)) return (size_t)__builtin_ctzll(word) >> 3;
    if (!gap) return 0;
    unsigned bits = (unsigned)__builtin_ctzll(gap) & ~7u;
    add_word(k, hash_step(HASH_SEED, x & (((uint64_t)1 << bits) - 1)));
    return (bits >> 3) + 1;
#else
    (void)k, (void)p;
    return 0;
#endif
}

static void read_text(const nb_similar *s, sketch *k, const char *text)
{
    const unsigned char *p = (const unsigned char *)text, *end = p + strlen(text);
    while (p < end) {
        size_t n = end - p >= 8 ? read_short(k, p) : 0;
        p += n;
        if (n) continue;
        const unsigned char *begin = p;
        if (s->kind[*p++] == SPACE) continue;
        while (s->kind[*p] == WORD) p++; /* the NUL at the end is none */
        add_word(k, hash_word(begin, (size_t)(p - begin)));
    }
}

static void read_chat(const nb_similar *s, sketch *k, const nb_chat *chat)
{
    memset(k, 0, sizeof *k);
    memset(k->least, 0xff, sizeof k->least);
    for (int i = 0; i < chat->count; i++)
        for (int j = 0; j < chat->messages[i].count; j++) {
            const nb_part *p = &chat->messages[i].parts[j];
            const char    *reference = p->kind == NB_PART_IMAGE ? p->text : NULL;
            for (int f = reference ? -1 : 0; f < p->frame_count; f++, reference = NULL) {
                if (f >= 0) reference = p->frames[f];
                for (const char *c = reference; *c; c++) k->salt = (k->salt ^ (unsigned char)*c) * 0x100000001b3u;
                k->salt = nb_mix64(k->salt + 1);
            }
        }
    k->words = k->salt;
    for (int i = 0; i < chat->count; i++) {
        if (!strcmp(chat->messages[i].role, "system")) continue; /* the same in every row */
        for (int j = 0; j < chat->messages[i].count; j++)
            if (chat->messages[i].parts[j].kind == NB_PART_TEXT) read_text(s, k, chat->messages[i].parts[j].text);
        add_word(k, (unsigned char)chat->messages[i].role[0]); /* who said it */
    }
}

/* Empty bins borrow from the next that is not, changed by the distance: short texts still have full signatures. */
static void finish(entry *e, const sketch *k)
{
    for (int i = 0; i < BINS; i++) {
        int d = 0;
        while (d < BINS && k->least[(i + d) % BINS] == UINT32_MAX) d++;
        e->signature[i] = (uint8_t)(nb_mix64(k->least[(i + d) % BINS] + ((uint64_t)d << 40)) >> 56);
    }
    e->words = k->words;
    e->runs = k->runs;
}

static uint32_t *slot_of(const nb_similar *s, const entry *e, int band)
{
    uint32_t four;
    memcpy(&four, e->signature + band * (BINS / BANDS), sizeof four);
    return &s->slots[(size_t)band * SLOTS + (size_t)(nb_mix64(four) % SLOTS)];
}

void nb_similar_look(const nb_similar *s, nb_similar_sketch *out, const nb_chat *chat)
{
    sketch k;
    *out = (nb_similar_sketch){0};
    read_chat(s, &k, chat);
    finish(out, &k);
}

nb_similar_match nb_similar_add(nb_similar *s, const nb_chat *chat, int file, size_t line)
{
    nb_similar_sketch made;
    nb_similar_look(s, &made, chat);
    return nb_similar_add_sketch(s, &made, file, line);
}

nb_similar_match nb_similar_add_sketch(nb_similar *s, const nb_similar_sketch *made, int file, size_t line)
{
    nb_similar_match best = {.file = -1};
    uint32_t        *slots[BANDS], earlier[BANDS];
    entry            e = *made;
    e.file = file;
    e.line = line;
    uint32_t number = (uint32_t)(s->count++ % NB_SIMILAR_ROWS);
    /* Slots and rows lie all over 40 MB: all are asked for before the first is needed. */
    for (int band = 0; band < BANDS; band++) __builtin_prefetch(slots[band] = slot_of(s, &e, band), 1);
    for (int band = 0; band < BANDS; band++) {
        earlier[band] = *slots[band];
        *slots[band] = number + 1;
        if (!earlier[band]) continue;
        __builtin_prefetch(&s->rows[earlier[band] - 1]);
        __builtin_prefetch((const char *)&s->rows[earlier[band]] - 1);
    }
    for (int band = 0; band < BANDS && !best.exact; band++) {
        if (!earlier[band]) continue;
        const entry *other = &s->rows[earlier[band] - 1];
        int          same = 0;
        for (int i = 0; i < BINS; i++) same += other->signature[i] == e.signature[i];
        double share = (same / (double)BINS - 1 / 256.0) / (1 - 1 / 256.0);
        bool   exact = other->words == e.words;
        if (exact || (share >= 0.8 && share > best.share && e.runs >= FEW))
            best = (nb_similar_match){other->file, other->line, exact, exact ? 1 : share};
    }
    s->rows[number] = e;
    return best;
}

nb_status nb_similar_new(nb_similar **out, nb_error *err)
{
    *out = NULL;
    nb_similar *s;
    NB_TRY(nb_alloc(&s, 1, sizeof *s, "the search for similar rows", err));
    nb_status status = nb_alloc(&s->rows, NB_SIMILAR_ROWS, sizeof *s->rows, "the search for similar rows", err);
    if (!status) status = nb_alloc(&s->slots, (size_t)BANDS * SLOTS, sizeof *s->slots, "the search for similar rows", err);
    if (status) {
        nb_similar_free(s);
        return status;
    }
    for (int c = 1; c < 256; c++) {
        bool upper = c >= 'A' && c <= 'Z', letter = upper || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        s->kind[c] = c >= 0xe0 ? ALONE : letter || c >= 0x80 ? WORD : SPACE;
    }
    *out = s;
    return NB_OK;
}

void nb_similar_free(nb_similar *s)
{
    if (!s) return;
    free(s->rows);
    free(s->slots);
    free(s);
}
