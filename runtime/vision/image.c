/* image.c - which decoder reads these bytes, and the limits that all of them share.
 *
 * A picture is told by its first bytes, never by its name or by the type that a web server claims.  The header is judged
 * before any memory is taken: a file of a hundred bytes can claim 65535 x 65535 pixels.  Nothing here knows a format
 * beyond its signature, and EXIF orientation is not looked at.
 */
#include "runtime/vision/decoders.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/vision/large.h"

enum { PILLOW_MAX_PIXELS = 178956970 }; /* twice Pillow's MAX_IMAGE_PIXELS: where it raises instead of warning */

void nb_image_free(nb_image *image)
{
    if (!image) return;
    free(image->rgb);
    *image = (nb_image){ 0 };
}

nb_status nb_image_claim(nb_image *out, const nb_encoded *in, int64_t width, int64_t height, uint64_t least_bytes,
                         nb_error *err)
{
    if (width < 1 || height < 1)
        return nb_fail(err, NB_ERR_INPUT, "%s: the picture is %" PRId64 " x %" PRId64 " pixels, so there is nothing to see",
                       in->name, width, height);
    if (width > INT32_MAX || height > INT32_MAX || width > in->max_pixels / height)
        return nb_fail(err, NB_ERR_INPUT,
                       "%s: the picture is %" PRId64 " x %" PRId64 " pixels, more than the limit of %" PRId64
                       " pixels; shrink it first",
                       in->name, width, height, in->max_pixels);
    if (in->n < least_bytes)
        return nb_fail(err, NB_ERR_INPUT,
                       "%s: the header promises %" PRId64 " x %" PRId64 " pixels, which cannot fit in a file of %zu bytes;"
                       " it is cut short or damaged",
                       in->name, width, height, in->n);
    size_t bytes;
    if (!nb_mul((size_t)width, (size_t)height, &bytes) || !nb_mul(bytes, 3, &bytes) || !(out->rgb = nb_large_alloc(bytes)))
        return nb_fail(err, NB_ERR_MEMORY, "%s: no memory for %" PRId64 " x %" PRId64 " pixels", in->name, width, height);
    out->width = (int)width;
    out->height = (int)height;
    return NB_OK;
}

typedef nb_status decoder(nb_image *out, const nb_encoded *in, nb_error *err);

static bool starts(const nb_encoded *in, const char *signature, size_t n)
{
    return in->n >= n && memcmp(in->bytes, signature, n) == 0;
}

static decoder *sniff(const nb_encoded *in)
{
    if (starts(in, "\xff\xd8\xff", 3)) return nb_decode_jpeg;
    if (starts(in, "\x89PNG\r\n\x1a\n", 8)) return nb_decode_png;
    if (starts(in, "GIF87a", 6) || starts(in, "GIF89a", 6)) return nb_decode_gif;
    if (starts(in, "RIFF", 4) && in->n >= 12 && memcmp(in->bytes + 8, "WEBP", 4) == 0) return nb_decode_webp;
    if (starts(in, "BM", 2)) return nb_decode_bmp;
    return NULL;
}

/* What a file that is no picture seems to be, for the message. */
static const char *guess(const nb_encoded *in)
{
    if (starts(in, "%PDF", 4)) return "it looks like a PDF";
    if (starts(in, "II*\0", 4) || starts(in, "MM\0*", 4)) return "it looks like a TIFF";
    if (in->n >= 12 && memcmp(in->bytes + 4, "ftyp", 4) == 0) return "it looks like a video, HEIC or AVIF";
    if (starts(in, "version https://git-lfs", 23)) return "it is a Git LFS pointer: run git lfs pull";
    size_t i = 0;
    while (i < in->n && strchr(" \t\r\n", in->bytes[i] ? in->bytes[i] : 'x')) i++;
    if (i < in->n && in->bytes[i] == '<') return "it looks like HTML, XML or SVG text";
    return "its first bytes are no known signature";
}

nb_status nb_image_decode(nb_image *out, const void *bytes, size_t n, const char *name, const nb_decode_limits *limits,
                          nb_error *err)
{
    nb_encoded in = { .bytes = bytes, .n = n, .name = name ? name : "picture", .max_pixels = PILLOW_MAX_PIXELS };
    if (limits) {
        if (limits->max_pixels > 0) in.max_pixels = limits->max_pixels;
        in.white_alpha = limits->white_alpha;
    }
    *out = (nb_image){ 0 };
    if (!n) return nb_fail(err, NB_ERR_INPUT, "%s: empty, so not a picture", in.name);
    decoder *decode = sniff(&in);
    if (!decode) return nb_fail(err, NB_ERR_INPUT, "%s: not a JPEG, PNG, WebP, BMP or GIF picture (%s)", in.name, guess(&in));
    nb_status status = decode(out, &in, err);
    if (status != NB_OK) nb_image_free(out);
    return status;
}
