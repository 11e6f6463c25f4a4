/* matrix.c - what the numbers in a quantized checkpoint mean, and where they lie in words.
 *
 * The definition: W[o, i] = (code - zero) * scale, one multiplication rounded once to f32 (the difference is an integer of
 * at most 9 bits, so it is exact).  Every packed layout is tested against this loop.
 */
#include "kernels/matrix.h"

#include <assert.h>
#include <string.h>

/* ---- codes out of words -------------------------------------------------- */

/* Eight 4-bit codes, one byte each. */
static uint64_t spread(uint32_t word)
{
    uint64_t v = word;
    v = (v | v << 16) & 0x0000ffff0000ffff;
    v = (v | v << 8) & 0x00ff00ff00ff00ff;
    return (v | v << 4) & 0x0f0f0f0f0f0f0f0f;
}

/* The codes of a word, of which `left` or fewer are wanted. */
static void put_word(uint8_t *out, uint32_t word, size_t per, size_t left)
{
    uint64_t v = per == 8 ? spread(word) : word;
    if (left < per)
        memcpy(out, &v, left);
    else if (per == 8)
        memcpy(out, &v, 8);
    else
        memcpy(out, &v, 4);
}

void nb_codes_transpose(uint32_t out[8], const uint32_t *words, size_t stride, size_t inputs)
{
    uint32_t x[8] = { 0 };
    for (size_t i = 0; i < inputs; i++) x[i] = words[i * stride];
    /* an 8 x 8 matrix of nibbles: its quarters change places, then the quarters of each, then theirs */
    for (int i = 0; i < 4; i++) {
        uint32_t t = (x[i] >> 16 ^ x[i + 4]) & 0x0000ffff;
        x[i + 4] ^= t;
        x[i] ^= t << 16;
    }
    for (int i = 0; i < 6; i += i == 1 ? 3 : 1) {
        uint32_t t = (x[i] >> 8 ^ x[i + 2]) & 0x00ff00ff;
        x[i + 2] ^= t;
        x[i] ^= t << 8;
    }
    for (int i = 0; i < 8; i += 2) {
        uint32_t t = (x[i] >> 4 ^ x[i + 1]) & 0x0f0f0f0f;
        x[i + 1] ^= t;
        x[i] ^= t << 4;
    }
    for (int j = 0; j < 8; j++) out[j] = x[j / 2 + j % 2 * 4]; /* field (0,4,1,5,2,6,3,7)[j] */
}

/* The eight outputs of a word for one input after the other: outputs row .. row + rows - 1 within octet row / 8. */
static void read_octet(uint8_t *out, size_t ld, const nb_weights *w, size_t row, size_t rows, size_t first, size_t count)
{
    size_t          octets = (size_t)w->n / 8, at = row % 8;
    const uint32_t *words = w->words + first * octets + row / 8;
    for (size_t i = 0; i < count; i += 8) {
        uint32_t turned[8];
        nb_codes_transpose(turned, words + i * octets, octets, count - i < 8 ? count - i : 8);
        for (size_t r = 0; r < rows; r++) put_word(out + r * ld + i, turned[at + r], 8, count - i);
    }
}

void nb_weights_codes(uint8_t *out, size_t ld, const nb_weights *w, size_t row, size_t rows, size_t first, size_t count)
{
    enum { TILE = 16 }; /* rows that are written side by side */
    size_t per = w->kind == NB_W_INT4 ? 8 : 4, k = (size_t)w->k, n = (size_t)w->n, line = (k + per - 1) / per;
    assert(first % 8 == 0);
    for (size_t r = 0, some; r < rows; r += some, out += some * ld) {
        size_t o = row + r;
        some = rows - r < TILE ? rows - r : TILE;
        switch (w->order) {
        case NB_CODES_BYTES:
            for (size_t j = 0; j < some; j++) memcpy(out + j * ld, w->codes + (o + j) * k + first, count);
            break;
        case NB_CODES_ROWS:
            for (size_t j = 0; j < some; j++)
                for (size_t i = 0; i < count; i += per) put_word(out + j * ld + i, w->words[(o + j) * line + (first + i) / per], per, count - i);
            break;
        case NB_CODES_INPUTS:
            for (size_t i = 0; i < count; i += per)
                for (size_t j = 0; j < some; j++) put_word(out + j * ld + i, w->words[(first + i) / per * n + o + j], per, count - i);
            break;
        case NB_CODES_OUTPUTS:
            if (some > 8 - o % 8) some = 8 - o % 8;
            read_octet(out, ld, w, o, some, first, count);
            break;
        }
    }
}

/* ---- what they mean ------------------------------------------------------- */

void nb_weights_to_f32(float *dst, const nb_weights *w)
{
    size_t k = (size_t)w->k;
    if (w->kind == NB_W_FLOAT) {
        nb_to_f32(dst, w->data, w->dtype, (size_t)w->n * k);
        return;
    }
    assert(w->group > 0);
    size_t groups = (k + (size_t)w->group - 1) / (size_t)w->group;
    int    middle = w->kind == NB_W_INT4 ? 8 : 128;
    for (size_t o = 0; o < (size_t)w->n; o++) {
        const float   *scales = w->scales + o * groups;
        const uint8_t *zeros = w->zeros ? w->zeros + o * groups : NULL;
        uint8_t        codes[256];
        for (size_t i = 0; i < k; i++) {
            size_t g = w->g_idx ? (size_t)w->g_idx[i] : i / (size_t)w->group, at = i % sizeof codes;
            int    zero = zeros ? zeros[g] : middle;
            if (!at) nb_weights_codes(codes, 0, w, o, 1, i, k - i < sizeof codes ? k - i : sizeof codes);
            dst[o * k + i] = (float)(codes[at] - zero) * scales[g];
        }
    }
}
