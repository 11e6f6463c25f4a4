/* gif.c - the first frame of a GIF.
 *
 * Own code, where stb_image was the candidate: that reports a file that stops in the middle as a success, paints
 * transparent pixels black where Pillow keeps their palette colour, and has memory errors open in its GIF part.  The
 * first frame needs one LZW table and no animation at all.
 *
 * Pillow's rules: the canvas grows to hold the frame, what the frame does not cover is the transparent index or else
 * index 0, transparency itself is ignored, and without any colour table an index is a grey level.
 */
#include "runtime/vision/decoders.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_CODES = 4096, NO_CODE = -1 };

typedef struct {
    const nb_encoded *in;
    nb_error         *err;
    size_t            at; /* next byte of the file */
    /* the frame */
    int     left, top, width, height; /* inside the canvas */
    bool    interlaced;
    int     background; /* index of what is not covered */
    uint8_t palette[256][3];
    /* bits not yet used, and bytes left in the current data block */
    uint32_t bits;
    int      bit_count;
    unsigned block_left;
    /* LZW: a code stands for the string of its prefix code and one more index */
    int16_t prefix[MAX_CODES];
    uint8_t suffix[MAX_CODES], stack[MAX_CODES];
} gif_reader;

static nb_status cut_short(const gif_reader *g)
{
    return nb_fail(g->err, NB_ERR_INPUT, "%s: damaged GIF: the file is cut short at %zu bytes", g->in->name, g->in->n);
}

static nb_status damaged(const gif_reader *g, const char *what)
{
    return nb_fail(g->err, NB_ERR_INPUT, "%s: damaged GIF: %s before byte %zu", g->in->name, what, g->at);
}

/* The next n bytes of the file, or NULL. */
static const uint8_t *take(gif_reader *g, size_t n)
{
    if (n > g->in->n - g->at) return NULL;
    const uint8_t *p = g->in->bytes + g->at;
    g->at += n;
    return p;
}

static int word(const uint8_t *p) { return p[0] | p[1] << 8; }

static nb_status read_palette(gif_reader *g, int flags)
{
    size_t         n = (size_t)2 << (flags & 7);
    const uint8_t *p = take(g, 3 * n);
    if (!p) return cut_short(g);
    memset(g->palette, 0, sizeof g->palette);
    memcpy(g->palette, p, 3 * n);
    return NB_OK;
}

/* The blocks of an extension; of the graphic control one the transparent index is kept. */
static nb_status skip_extension(gif_reader *g)
{
    const uint8_t *label = take(g, 1);
    for (bool first = true;; first = false) {
        const uint8_t *n = label ? take(g, 1) : NULL, *block = n ? take(g, *n) : NULL;
        if (!block) return cut_short(g);
        if (!*n) return NB_OK;
        if (first && *label == 0xf9 && *n >= 4 && (block[0] & 1)) g->background = block[3];
    }
}

/* Everything up to the pixels of the first frame; *screen_w, *screen_h become the canvas. */
static nb_status read_header(gif_reader *g, int64_t *canvas_w, int64_t *canvas_h)
{
    const uint8_t *p = take(g, 13);
    if (!p) return cut_short(g);
    *canvas_w = word(p + 6);
    *canvas_h = word(p + 8);
    for (int i = 0; i < 256; i++) memset(g->palette[i], i, 3);
    if (p[10] & 0x80) NB_TRY(read_palette(g, p[10]));
    for (;;) {
        p = take(g, 1);
        if (!p) return cut_short(g);
        if (*p == ';') return damaged(g, "there is no picture in it");
        if (*p == '!') NB_TRY(skip_extension(g));
        if (*p == ',') break;
    }
    p = take(g, 9);
    if (!p) return cut_short(g);
    g->left = word(p), g->top = word(p + 2), g->width = word(p + 4), g->height = word(p + 6);
    g->interlaced = p[8] & 0x40;
    if (p[8] & 0x80) NB_TRY(read_palette(g, p[8]));
    if (!g->width || !g->height) return damaged(g, "the first frame is empty");
    if (*canvas_w < g->left + g->width) *canvas_w = g->left + g->width;
    if (*canvas_h < g->top + g->height) *canvas_h = g->top + g->height;
    return NB_OK;
}

/* The next code of `size` bits, least significant bit first, across data blocks; NO_CODE when the file or data ends. */
static int next_code(gif_reader *g, int size)
{
    while (g->bit_count < size) {
        const uint8_t *p;
        if (!g->block_left) {
            if (!(p = take(g, 1)) || !*p) return NO_CODE;
            g->block_left = *p;
        }
        if (!(p = take(g, 1))) return NO_CODE;
        g->block_left--;
        g->bits |= (uint32_t)*p << g->bit_count;
        g->bit_count += 8;
    }
    int code = (int)(g->bits & ((1u << size) - 1));
    g->bits >>= size;
    g->bit_count -= size;
    return code;
}

/* Where the frame's n-th stored row belongs: interlaced files store rows 0, 8, ..; 4, 12, ..; 2, 6, ..; 1, 3, .. */
static int row_place(const gif_reader *g, int n)
{
    static const int first[4] = { 0, 4, 2, 1 }, step[4] = { 8, 8, 4, 2 };
    if (!g->interlaced) return n;
    for (int pass = 0;; pass++) {
        int rows = g->height > first[pass] ? (g->height - first[pass] + step[pass] - 1) / step[pass] : 0;
        if (n < rows) return first[pass] + n * step[pass];
        n -= rows;
    }
}

typedef struct {
    nb_image *image;
    int       x, rows;
    uint8_t  *row; /* of the current one, at the frame's left edge */
} pen;

static void put(gif_reader *g, pen *to, uint8_t index)
{
    if (to->rows == g->height) return; /* surplus indices are ignored */
    if (!to->x) to->row = to->image->rgb + ((size_t)(g->top + row_place(g, to->rows)) * to->image->width + g->left) * 3;
    memcpy(to->row + 3 * (size_t)to->x, g->palette[index], 3);
    if (++to->x == g->width) to->x = 0, to->rows++;
}

static nb_status read_pixels(gif_reader *g, nb_image *out)
{
    const uint8_t *p = take(g, 1);
    if (!p) return cut_short(g);
    int root = *p;
    if (root < 1 || root > 8) return damaged(g, "the code size is out of range");
    int     clear = 1 << root, size = root + 1, count = clear + 2, last = NO_CODE;
    uint8_t first = 0; /* the first index of the last string */
    pen     to = { .image = out };
    while (to.rows < g->height) {
        int code = next_code(g, size);
        if (code == NO_CODE) return g->at >= g->in->n ? cut_short(g) : damaged(g, "the picture data ends too early");
        if (code == clear + 1) return damaged(g, "the picture ends too early");
        if (code == clear) {
            size = root + 1, count = clear + 2, last = NO_CODE;
            continue;
        }
        if (code > count || (code == count && last == NO_CODE) || (last == NO_CODE && code > clear))
            return damaged(g, "a code that is not in the table");
        int depth = 0, c = code;
        if (code == count) g->stack[depth++] = first, c = last; /* the string about to be added */
        while (c >= clear) g->stack[depth++] = g->suffix[c], c = g->prefix[c];
        first = (uint8_t)c;
        put(g, &to, first);
        while (depth) put(g, &to, g->stack[--depth]);
        if (last != NO_CODE && count < MAX_CODES) {
            g->prefix[count] = (int16_t)last;
            g->suffix[count] = first;
            if (++count == 1 << size && size < 12) size++;
        }
        last = code;
    }
    return NB_OK;
}

static nb_status read_gif(gif_reader *g, nb_image *out)
{
    int64_t w = 0, h = 0;
    NB_TRY(read_header(g, &w, &h));
    /* An index of the densest file costs 12 bits for a string of 4096. */
    NB_TRY(nb_image_claim(out, g->in, w, h, (uint64_t)g->width * g->height / 4096, g->err));
    bool covered = g->width == w && g->height == h;
    for (size_t i = 0; !covered && i < (size_t)(w * h); i++) memcpy(out->rgb + 3 * i, g->palette[g->background], 3);
    NB_TRY(read_pixels(g, out));
    /* The picture is whole, but a file that stops before its last data block is still cut short. */
    size_t rest = g->block_left;
    for (;;) {
        if (!take(g, rest)) return cut_short(g);
        const uint8_t *n = take(g, 1);
        if (!n) return cut_short(g);
        if (!(rest = *n)) return NB_OK;
    }
}

nb_status nb_decode_gif(nb_image *out, const nb_encoded *in, nb_error *err)
{
    gif_reader *g;
    NB_TRY(nb_alloc(&g, 1, sizeof *g, "the GIF decoder", err));
    g->in = in;
    g->err = err;
    nb_status status = read_gif(g, out);
    free(g);
    return status;
}
