/* stb.c - BMP through stb_image, fenced in.
 *
 * stb_image is easy to feed and not made for hostile files: it takes the size from the header at its word and returns
 * black for pixels that are not in the file.  So the header is read here first, every byte that it promises must be
 * present, and nothing but the BMP reader is compiled in (GIF: gif.c; the rest have libraries of their own).  Run-length
 * encoded files, which it cannot read, are refused by name.  16-bit files may differ from Pillow by one level.
 */
#include "runtime/vision/decoders.h"

#ifdef NIBBLE_STB
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_BMP
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_NO_FAILURE_STRINGS
#define STBI_MAX_DIMENSIONS 16384
#define STBI_ASSERT(x) ((void)0) /* input is never asserted; each one is followed by a check */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wshadow"
#include <stb/stb_image.h>
#pragma GCC diagnostic pop

typedef struct {
    int64_t  size, width, height, bits, compression; /* size: of the header */
    uint64_t pixels_at;
    bool     alpha;
} bmp_header;

static uint32_t u16(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }
static uint32_t u32(const uint8_t *p) { return u16(p) | u16(p + 2) << 16; }

static nb_status read_header(bmp_header *h, const nb_encoded *in, nb_error *err)
{
    const uint8_t *p = in->bytes;
    uint32_t       size = in->n >= 26 ? u32(p + 14) : 0;
    *h = (bmp_header){ .size = size, .pixels_at = in->n >= 26 ? u32(p + 10) : 0 };
    if (in->n < 26 || (size != 12 && in->n < (size_t)14 + (size < 124 ? size : 124)))
        return nb_fail(err, NB_ERR_INPUT, "%s: damaged BMP: the file is cut short at %zu bytes, inside its header", in->name,
                       in->n);
    if (size != 12 && size != 40 && size != 56 && size != 108 && size != 124)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: BMP headers of %" PRIu32 " bytes are not supported; save it as PNG",
                       in->name, size);
    if (size == 12) {
        h->width = u16(p + 18), h->height = u16(p + 20), h->bits = u16(p + 24);
    } else {
        h->width = (int32_t)u32(p + 18), h->height = llabs((int32_t)u32(p + 22)); /* negative height: rows go down */
        h->bits = u16(p + 28), h->compression = u32(p + 30);
        h->alpha = size >= 56 && h->bits == 32 && h->compression == 3 && u32(p + 66);
    }
    return NB_OK;
}

nb_status nb_decode_bmp(nb_image *out, const nb_encoded *in, nb_error *err)
{
    bmp_header h;
    NB_TRY(read_header(&h, in, err));
    bool plain =
        h.compression == 0 && (h.bits == 1 || h.bits == 4 || h.bits == 8 || h.bits == 16 || h.bits == 24 || h.bits == 32);
    bool masks = h.compression == 3 && (h.bits == 16 || h.bits == 32) && h.size != 56; /* stb misreads those of 56 */
    if (!plain && !masks)
        return nb_fail(err, NB_ERR_UNSUPPORTED,
                       "%s: BMP of %" PRId64 " bits with compression %" PRId64 " and a header of %" PRId64
                       " bytes is not supported; save it as PNG",
                       in->name, h.bits, h.compression, h.size);
    if (h.width > STBI_MAX_DIMENSIONS || h.height > STBI_MAX_DIMENSIONS)
        return nb_fail(err, NB_ERR_INPUT, "%s: a BMP of %" PRId64 " x %" PRId64 " pixels is refused: the longest side is %d",
                       in->name, h.width, h.height, STBI_MAX_DIMENSIONS);
    /* The sides are at most 2^14, so none of this can overflow.  The last row's padding may be missing. */
    uint64_t row = h.width > 0 ? ((uint64_t)h.width * h.bits + 31) / 32 * 4 : 0;
    uint64_t need = h.height > 0 ? h.pixels_at + row * (h.height - 1) + (row ? ((uint64_t)h.width * h.bits + 7) / 8 : 0) : 0;
    NB_TRY(nb_image_claim(out, in, h.width, h.height, need, err));
    if (in->n > INT32_MAX) return nb_fail(err, NB_ERR_INPUT, "%s: a BMP of %zu bytes is too large", in->name, in->n);

    int      w = 0, ht = 0, channels = 0, want = h.alpha ? 4 : 3;
    stbi_uc *pixels = stbi_load_from_memory(in->bytes, (int)in->n, &w, &ht, &channels, want);
    if (!pixels || w != out->width || ht != out->height) {
        free(pixels);
        return nb_fail(err, NB_ERR_INPUT, "%s: damaged BMP: its header and palette contradict each other", in->name);
    }
    size_t count = (size_t)w * ht;
    if (h.alpha)
        for (size_t i = 0; i < count; i++) nb_drop_alpha(out->rgb + 3 * i, pixels + 4 * i, in->white_alpha);
    else
        memcpy(out->rgb, pixels, 3 * count);
    free(pixels);
    return NB_OK;
}

#else

nb_status nb_decode_bmp(nb_image *out, const nb_encoded *in, nb_error *err)
{
    (void)out;
    return nb_fail(err, NB_ERR_UNSUPPORTED,
                   "%s: this nibble was built without BMP; install libstb-dev and build with -DNIBBLE_STB=ON", in->name);
}

#endif
