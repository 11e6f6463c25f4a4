/* data_script.c - see data_script.h.  Almost all text is ASCII or of few blocks: ASCII is counted eight bytes at a time. */
#include "tools/data_script.h"

#include <stdbool.h>
#include <string.h>

#include "kernels/base.h"

const char *nb_script_name(nb_script s)
{
    static const char *const names[] = {
#define X(name, text) text,
        NB_SCRIPT_MAP(X)
#undef X
    };
    return s < NB_SCRIPTS ? names[s] : "none";
}

static const struct {
    uint32_t  first, last;
    nb_script script;
} ranges[] = {
    {0x41, 0x5a, NB_SCRIPT_LATIN}, {0x61, 0x7a, NB_SCRIPT_LATIN}, {0xaa, 0xaa, NB_SCRIPT_LATIN}, {0xba, 0xba, NB_SCRIPT_LATIN},
    {0xc0, 0xd6, NB_SCRIPT_LATIN}, {0xd8, 0xf6, NB_SCRIPT_LATIN}, {0xf8, 0x2b8, NB_SCRIPT_LATIN},
    {0x370, 0x37d, NB_SCRIPT_GREEK}, {0x37f, 0x37f, NB_SCRIPT_GREEK}, {0x384, 0x386, NB_SCRIPT_GREEK}, {0x388, 0x3ff, NB_SCRIPT_GREEK},
    {0x400, 0x52f, NB_SCRIPT_CYRILLIC}, {0x531, 0x588, NB_SCRIPT_ARMENIAN}, {0x591, 0x5f4, NB_SCRIPT_HEBREW},
    {0x610, 0x61a, NB_SCRIPT_ARABIC}, {0x620, 0x63f, NB_SCRIPT_ARABIC}, {0x641, 0x65f, NB_SCRIPT_ARABIC}, {0x66e, 0x6ff, NB_SCRIPT_ARABIC},
    {0x700, 0x74f, NB_SCRIPT_OTHER}, {0x750, 0x77f, NB_SCRIPT_ARABIC}, {0x780, 0x86f, NB_SCRIPT_OTHER}, {0x870, 0x8ff, NB_SCRIPT_ARABIC},
    {0x900, 0x963, NB_SCRIPT_DEVANAGARI}, {0x971, 0x97f, NB_SCRIPT_DEVANAGARI}, {0x980, 0x9e5, NB_SCRIPT_BENGALI}, {0x9f0, 0x9ff, NB_SCRIPT_BENGALI},
    {0xa00, 0xa65, NB_SCRIPT_GURMUKHI}, {0xa70, 0xa7f, NB_SCRIPT_GURMUKHI}, {0xa80, 0xae5, NB_SCRIPT_GUJARATI}, {0xaf0, 0xaff, NB_SCRIPT_GUJARATI},
    {0xb00, 0xb65, NB_SCRIPT_ORIYA}, {0xb70, 0xb7f, NB_SCRIPT_ORIYA}, {0xb80, 0xbe5, NB_SCRIPT_TAMIL}, {0xbf0, 0xbff, NB_SCRIPT_TAMIL},
    {0xc00, 0xc65, NB_SCRIPT_TELUGU}, {0xc70, 0xc7f, NB_SCRIPT_TELUGU}, {0xc80, 0xce5, NB_SCRIPT_KANNADA}, {0xcf0, 0xcff, NB_SCRIPT_KANNADA},
    {0xd00, 0xd65, NB_SCRIPT_MALAYALAM}, {0xd70, 0xd7f, NB_SCRIPT_MALAYALAM}, {0xd80, 0xde5, NB_SCRIPT_SINHALA}, {0xdf0, 0xdff, NB_SCRIPT_SINHALA},
    {0xe01, 0xe3a, NB_SCRIPT_THAI}, {0xe40, 0xe4e, NB_SCRIPT_THAI}, {0xe80, 0xecf, NB_SCRIPT_LAO}, {0xedc, 0xedf, NB_SCRIPT_LAO},
    {0xf00, 0xfff, NB_SCRIPT_TIBETAN}, {0x1000, 0x103f, NB_SCRIPT_MYANMAR}, {0x104a, 0x109f, NB_SCRIPT_MYANMAR}, {0x10a0, 0x10ff, NB_SCRIPT_GEORGIAN},
    {0x1100, 0x11ff, NB_SCRIPT_HANGUL}, {0x1200, 0x139f, NB_SCRIPT_ETHIOPIC}, {0x13a0, 0x177f, NB_SCRIPT_OTHER}, {0x1780, 0x17df, NB_SCRIPT_KHMER},
    {0x1800, 0x18af, NB_SCRIPT_MONGOLIAN}, {0x18b0, 0x19df, NB_SCRIPT_OTHER}, {0x19e0, 0x19ff, NB_SCRIPT_KHMER}, {0x1a00, 0x1c7f, NB_SCRIPT_OTHER},
    {0x1c80, 0x1c8f, NB_SCRIPT_CYRILLIC}, {0x1c90, 0x1cbf, NB_SCRIPT_GEORGIAN}, {0x1cc0, 0x1ccf, NB_SCRIPT_OTHER}, {0x1d00, 0x1dbf, NB_SCRIPT_LATIN},
    {0x1e00, 0x1eff, NB_SCRIPT_LATIN}, {0x1f00, 0x1fff, NB_SCRIPT_GREEK}, {0x2c00, 0x2c5f, NB_SCRIPT_OTHER}, {0x2c60, 0x2c7f, NB_SCRIPT_LATIN},
    {0x2d00, 0x2d2f, NB_SCRIPT_GEORGIAN}, {0x2d80, 0x2ddf, NB_SCRIPT_ETHIOPIC}, {0x2de0, 0x2dff, NB_SCRIPT_CYRILLIC}, {0x2e80, 0x2fdf, NB_SCRIPT_HAN},
    {0x3005, 0x3007, NB_SCRIPT_HAN}, {0x3021, 0x3029, NB_SCRIPT_HAN}, {0x3041, 0x309f, NB_SCRIPT_KANA}, {0x30a1, 0x30fa, NB_SCRIPT_KANA},
    {0x30fc, 0x30ff, NB_SCRIPT_KANA}, {0x3105, 0x312f, NB_SCRIPT_OTHER}, {0x3131, 0x318f, NB_SCRIPT_HANGUL}, {0x31f0, 0x31ff, NB_SCRIPT_KANA},
    {0x3400, 0x4dbf, NB_SCRIPT_HAN}, {0x4e00, 0x9fff, NB_SCRIPT_HAN}, {0xa000, 0xa63f, NB_SCRIPT_OTHER}, {0xa640, 0xa69f, NB_SCRIPT_CYRILLIC},
    {0xa722, 0xa7ff, NB_SCRIPT_LATIN}, {0xa8e0, 0xa8ff, NB_SCRIPT_DEVANAGARI}, {0xa960, 0xa97f, NB_SCRIPT_HANGUL}, {0xaa60, 0xaa7f, NB_SCRIPT_MYANMAR},
    {0xab00, 0xab2f, NB_SCRIPT_ETHIOPIC}, {0xab30, 0xab6f, NB_SCRIPT_LATIN}, {0xac00, 0xd7ff, NB_SCRIPT_HANGUL}, {0xf900, 0xfaff, NB_SCRIPT_HAN},
    {0xfb00, 0xfb06, NB_SCRIPT_LATIN}, {0xfb13, 0xfb17, NB_SCRIPT_ARMENIAN}, {0xfb1d, 0xfb4f, NB_SCRIPT_HEBREW}, {0xfb50, 0xfdff, NB_SCRIPT_ARABIC},
    {0xfe70, 0xfefc, NB_SCRIPT_ARABIC}, {0xff21, 0xff3a, NB_SCRIPT_LATIN}, {0xff41, 0xff5a, NB_SCRIPT_LATIN}, {0xff66, 0xff9f, NB_SCRIPT_KANA},
    {0xffa0, 0xffdc, NB_SCRIPT_HANGUL}, {0x10000, 0x1093f, NB_SCRIPT_OTHER}, {0x1b000, 0x1b16f, NB_SCRIPT_KANA}, {0x20000, 0x3ffff, NB_SCRIPT_HAN},
};

nb_script nb_script_of(uint32_t c)
{
    size_t low = 0, high = NB_COUNT(ranges);
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > ranges[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < NB_COUNT(ranges) && c >= ranges[low].first ? ranges[low].script : NB_SCRIPTS;
}

/* Letters among eight bytes that are all ASCII: with 0x20 set they are 'a' to 'z', which an addition shows in the top bit. */
static unsigned ascii_letters(uint64_t x)
{
    const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
    uint64_t       lower = x | ones * 0x20;
    uint64_t       letters = (lower + ones * (0x80 - 'a')) & ~(lower + ones * (0x7f - 'z')) & high;
    return (unsigned)((letters >> 7) * ones >> 56); /* the sum of the bytes */
}

void nb_script_add(nb_script_count *count, const char *text)
{
    const unsigned char *p = (const unsigned char *)text, *end = p + strlen(text);
    while (p < end) {
        uint64_t x;
        if (end - p >= 8 && (memcpy(&x, p, 8), !(x & 0x8080808080808080u))) {
            count->characters[NB_SCRIPT_LATIN] += ascii_letters(x);
            p += 8;
            continue;
        }
        uint32_t c = *p++;
        int      more = c < 0xc0 ? 0 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3; /* valid UTF-8, as all texts of a chat */
        if (more) c &= 0x3fu >> more;
        while (more-- > 0 && p < end) c = c << 6 | (*p++ & 0x3f);
        nb_script s = nb_script_of(c);
        if (s < NB_SCRIPTS) count->characters[s]++;
    }
}

nb_script nb_script_main(const nb_script_count *c)
{
    nb_script best = NB_SCRIPTS;
    for (int i = 0; i < NB_SCRIPTS; i++)
        if (c->characters[i] && (best == NB_SCRIPTS || c->characters[i] > c->characters[best])) best = (nb_script)i;
    if (best == NB_SCRIPT_HAN && c->characters[NB_SCRIPT_KANA] >= c->characters[NB_SCRIPT_HAN] / 10 + 1) return NB_SCRIPT_KANA;
    return best;
}
