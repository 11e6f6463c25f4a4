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

typedef struct {
    uint8_t  signature[BINS];
    uint64_t words; /* hash of all of them in order: equal for equal texts */
    size_t   line;
    int      file;
    int      runs;  /* in the set, repetitions counted; few make a poor estimate */
} entry;

struct nb_similar {
    entry    *rows;  /* [NB_SIMILAR_ROWS] a ring */
    uint32_t *slots; /* [BANDS, SLOTS] number of a row + 1; 0: none */
    size_t    count;
    uint8_t   kind[256]; /* of a byte: what read_text does with it */
    uint8_t   lower[256];
};

enum { SPACE, WORD, ALONE }; /* ALONE: begins a character of three or four bytes, which is a word of its own */

/* The set as it grows: the last two words, and the least hash of each bin. */
typedef struct {
    uint64_t before, last, words, salt;
    uint32_t least[BINS];
    int      count, runs;
} sketch;

/* The finaliser of splitmix64. */
static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void add_word(sketch *k, uint64_t word)
{
    uint64_t run = mix(k->salt + word + k->last * 0x9e3779b97f4a7c15u + k->before * 0xd6e8feb86659fd93u);
    uint32_t value = (uint32_t)run, bin = (uint32_t)(run >> 58);
    if (value < k->least[bin]) k->least[bin] = value;
    k->words = (k->words << 7 | k->words >> 57) * 0x9e3779b97f4a7c15u + word;
    k->before = k->last;
    k->last = word;
    k->runs++;
}

static void read_text(const nb_similar *s, sketch *k, const char *text)
{
    const uint64_t seed = 0xcbf29ce484222325u;
    uint64_t       word = seed;
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (s->kind[*p] == WORD) {
            word = (word ^ s->lower[*p]) * 0x100000001b3u;
            continue;
        }
        if (word != seed) add_word(k, word);
        word = s->kind[*p] == ALONE ? (seed ^ *p) * 0x100000001b3u : seed;
    }
    if (word != seed) add_word(k, word);
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
                k->salt = mix(k->salt + 1);
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
        e->signature[i] = (uint8_t)(mix(k->least[(i + d) % BINS] + ((uint64_t)d << 40)) >> 56);
    }
    e->words = k->words;
    e->runs = k->runs;
}

static uint32_t *slot_of(const nb_similar *s, const entry *e, int band)
{
    uint32_t four;
    memcpy(&four, e->signature + band * (BINS / BANDS), sizeof four);
    return &s->slots[(size_t)band * SLOTS + (size_t)(mix(four) % SLOTS)];
}

nb_similar_match nb_similar_add(nb_similar *s, const nb_chat *chat, int file, size_t line)
{
    nb_similar_match best = {.file = -1};
    sketch           k;
    entry            e = {.file = file, .line = line};
    read_chat(s, &k, chat);
    finish(&e, &k);
    uint32_t number = (uint32_t)(s->count++ % NB_SIMILAR_ROWS);
    for (int band = 0; band < BANDS; band++) {
        uint32_t    *slot = slot_of(s, &e, band);
        const entry *other = *slot ? &s->rows[*slot - 1] : NULL;
        *slot = number + 1;
        if (!other || best.exact) continue;
        int same = 0;
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
        s->lower[c] = (uint8_t)(upper ? c + 32 : c);
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
