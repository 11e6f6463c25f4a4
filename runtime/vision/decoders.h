/* decoders.h - what the decoders of this folder share.  Nothing outside runtime/vision includes it. */
#ifndef NB_DECODERS_H
#define NB_DECODERS_H

#include "runtime/vision/image.h"

/* An encoded picture and the rules it is decoded under. */
typedef struct {
    const uint8_t *bytes;
    size_t         n;
    const char    *name; /* for messages */
    int64_t        max_pixels;
    bool           white_alpha;
} nb_encoded;

/* The one gate between a header and memory: refuses empty sides, more pixels than allowed, and files so short that even
 * the densest encoding of that many pixels could not fit (least_bytes; 0: not known).  Then allocates out->rgb. */
nb_status nb_image_claim(nb_image *out, const nb_encoded *in, int64_t width, int64_t height, uint64_t least_bytes,
                         nb_error *err);

/* Each expects *out zeroed; after a failure *out may hold pixels, which nb_image_decode frees. */
nb_status nb_decode_jpeg(nb_image *out, const nb_encoded *in, nb_error *err);
nb_status nb_decode_png(nb_image *out, const nb_encoded *in, nb_error *err);
nb_status nb_decode_gif(nb_image *out, const nb_encoded *in, nb_error *err);
nb_status nb_decode_webp(nb_image *out, const nb_encoded *in, nb_error *err);
nb_status nb_decode_bmp(nb_image *out, const nb_encoded *in, nb_error *err);

/* a * b / 255 rounded, for a, b in 0..255, as Pillow computes it. */
static inline uint32_t nb_mul255(uint32_t a, uint32_t b)
{
    uint32_t t = a * b + 128;
    return ((t >> 8) + t) >> 8;
}

/* One channel pasted on white with coverage alpha: (255 * (255 - alpha) + v * alpha) / 255, rounded once. */
static inline uint8_t nb_on_white(uint32_t v, uint32_t alpha)
{
    uint32_t t = 255 * (255 - alpha) + v * alpha + 128;
    return (uint8_t)(((t >> 8) + t) >> 8);
}

/* One RGBA pixel to RGB. */
static inline void nb_drop_alpha(uint8_t *rgb, const uint8_t *rgba, bool white_alpha)
{
    for (int c = 0; c < 3; c++) rgb[c] = white_alpha ? nb_on_white(rgba[c], rgba[3]) : rgba[c];
}

#endif
