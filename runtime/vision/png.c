/* png.c - PNG through libspng, with Pillow's conversions.
 *
 * The library hands over the samples as the file has them and this file expands them, because Pillow's convert("RGB")
 * is none of the library's output formats: 16-bit grey is clipped at 255 rather than scaled, 16-bit colour keeps its
 * high byte, transparency (tRNS or an alpha channel) is ignored, and an index past the palette is black.  The composite
 * on white applies where Pillow's mode is RGBA: colour with alpha, and 16-bit grey with alpha; not 8-bit grey with alpha.
 */
#include "runtime/vision/decoders.h"

#include <stdlib.h>
#include <string.h>

#include <spng.h>

enum { MAX_CHUNK = 16 << 20, MAX_CHUNKS_KEPT = 64 << 20 }; /* text, profiles: bytes after decompression */

typedef struct {
    spng_ctx         *png;
    struct spng_ihdr  head;
    struct spng_plte  palette;
    uint8_t          *raw; /* one row of samples; the whole picture when interlaced */
    size_t            stride;
    const nb_encoded *in;
    nb_error         *err;
} png_reader;

static nb_status spng_failed(const png_reader *r, int code)
{
    const char *name = r->in->name;
    switch (code) {
    case SPNG_EMEM: return nb_fail(r->err, NB_ERR_MEMORY, "%s: no memory to decode this PNG", name);
    case SPNG_IO_EOF:
    case SPNG_EOF: return nb_fail(r->err, NB_ERR_INPUT, "%s: damaged PNG: the file is cut short at %zu bytes", name, r->in->n);
    case SPNG_ECHUNK_LIMITS:
        return nb_fail(r->err, NB_ERR_INPUT, "%s: this PNG carries more than %d MiB of text or profiles", name,
                       MAX_CHUNK >> 20);
    default: return nb_fail(r->err, NB_ERR_INPUT, "%s: damaged PNG: %s", name, spng_strerror(code));
    }
}

/* Sample x of a row whose samples have 1, 2, 4 or 8 bits. */
static unsigned sample(const uint8_t *row, unsigned depth, uint32_t x)
{
    if (depth == 8) return row[x];
    unsigned per_byte = 8 / depth, shift = (per_byte - 1 - x % per_byte) * depth;
    return (row[x / per_byte] >> shift) & ((1u << depth) - 1);
}

static void expand_grey(const png_reader *r, uint8_t *rgb, const uint8_t *row)
{
    unsigned depth = r->head.bit_depth, scale = depth < 8 ? 255 / ((1u << depth) - 1) : 1;
    for (uint32_t x = 0; x < r->head.width; x++, rgb += 3) {
        uint8_t v;
        if (depth == 16)
            v = row[2 * x] ? 255 : row[2 * x + 1];
        else
            v = (uint8_t)(sample(row, depth, x) * scale);
        rgb[0] = rgb[1] = rgb[2] = v;
    }
}

static void expand_palette(const png_reader *r, uint8_t *rgb, const uint8_t *row)
{
    for (uint32_t x = 0; x < r->head.width; x++, rgb += 3) {
        const struct spng_plte_entry *e = &r->palette.entries[sample(row, r->head.bit_depth, x)];
        rgb[0] = e->red, rgb[1] = e->green, rgb[2] = e->blue;
    }
}

/* Grey with alpha, RGB, RGBA of 8 or 16 bits; of 16 bits the high byte comes first and is kept. */
static void expand_channels(const png_reader *r, uint8_t *rgb, const uint8_t *row)
{
    bool   grey = r->head.color_type == SPNG_COLOR_TYPE_GRAYSCALE_ALPHA;
    bool   alpha = grey || r->head.color_type == SPNG_COLOR_TYPE_TRUECOLOR_ALPHA;
    bool   white = r->in->white_alpha && alpha && !(grey && r->head.bit_depth == 8);
    size_t bytes = r->head.bit_depth / 8, channels = (grey ? 1 : 3) + alpha;
    for (uint32_t x = 0; x < r->head.width; x++, rgb += 3, row += channels * bytes) {
        uint8_t rgba[4] = { row[0], row[grey ? 0 : bytes], row[grey ? 0 : 2 * bytes],
                            alpha ? row[(channels - 1) * bytes] : 255 };
        nb_drop_alpha(rgb, rgba, white);
    }
}

static void expand(const png_reader *r, uint8_t *rgb, const uint8_t *row)
{
    switch (r->head.color_type) {
    case SPNG_COLOR_TYPE_GRAYSCALE: expand_grey(r, rgb, row); break;
    case SPNG_COLOR_TYPE_INDEXED: expand_palette(r, rgb, row); break;
    default: expand_channels(r, rgb, row);
    }
}

static nb_status read_rows(png_reader *r, nb_image *out)
{
    bool   interlaced = r->head.interlace_method != SPNG_INTERLACE_NONE;
    size_t line = (size_t)out->width * 3;
    NB_TRY(nb_alloc(&r->raw, interlaced ? (size_t)out->height : 1, r->stride, "the samples of a PNG", r->err));
    int code = spng_decode_image(r->png, NULL, 0, SPNG_FMT_RAW, SPNG_DECODE_PROGRESSIVE);
    while (code == SPNG_OK) {
        struct spng_row_info info;
        if ((code = spng_get_row_info(r->png, &info)) != SPNG_OK) break;
        uint8_t *row = r->raw + (interlaced ? (size_t)info.row_num * r->stride : 0);
        code = spng_decode_row(r->png, row, r->stride);
        if (!interlaced && (code == SPNG_OK || code == SPNG_EOI)) expand(r, out->rgb + info.row_num * line, row);
    }
    if (code != SPNG_EOI) return spng_failed(r, code);
    for (int y = 0; interlaced && y < out->height; y++) expand(r, out->rgb + (size_t)y * line, r->raw + (size_t)y * r->stride);
    return NB_OK;
}

static nb_status read_png(png_reader *r, nb_image *out)
{
    r->png = spng_ctx_new(0);
    if (!r->png) return spng_failed(r, SPNG_EMEM);
    spng_set_chunk_limits(r->png, MAX_CHUNK, MAX_CHUNKS_KEPT);
    int code = spng_set_png_buffer(r->png, r->in->bytes, r->in->n);
    if (code == SPNG_OK) code = spng_get_ihdr(r->png, &r->head);
    if (code != SPNG_OK) return spng_failed(r, code);

    static const uint8_t channels[7] = { 1, 0, 3, 1, 2, 0, 4 };
    uint64_t             row_bits = (uint64_t)r->head.width * r->head.bit_depth * channels[r->head.color_type];
    r->stride = (size_t)((row_bits + 7) / 8);
    /* Deflate's densest code is 1032 bytes from one. */
    NB_TRY(nb_image_claim(out, r->in, r->head.width, r->head.height, r->stride * (uint64_t)r->head.height / 1032, r->err));

    code = spng_get_plte(r->png, &r->palette); /* reads on to the pixels */
    if (code != SPNG_OK && !(code == SPNG_ECHUNKAVAIL && r->head.color_type != SPNG_COLOR_TYPE_INDEXED))
        return spng_failed(r, code == SPNG_ECHUNKAVAIL ? SPNG_ENOPLTE : code);
    NB_TRY(read_rows(r, out));
    code = spng_decode_chunks(r->png); /* to the end: a file that stops before it is cut short */
    return code == SPNG_IO_EOF || code == SPNG_EOF ? spng_failed(r, code) : NB_OK;
}

nb_status nb_decode_png(nb_image *out, const nb_encoded *in, nb_error *err)
{
    png_reader *r;
    NB_TRY(nb_alloc(&r, 1, sizeof *r, "the PNG decoder", err));
    r->in = in;
    r->err = err;
    nb_status status = read_png(r, out);
    spng_ctx_free(r->png);
    free(r->raw);
    free(r);
    return status;
}
