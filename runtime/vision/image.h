/* image.h - encoded bytes to RGB, as Pillow's convert("RGB") gives them.  EXIF orientation is not applied. */
#ifndef NB_IMAGE_H
#define NB_IMAGE_H

#include "kernels/base.h"

typedef struct {
    uint8_t *rgb; /* [height, width, 3], rows top to bottom; malloc'd */
    int      width, height;
} nb_image;

void nb_image_free(nb_image *image);

typedef struct {
    int64_t max_pixels;      /* width * height of the file; 0: 178,956,970 (where Pillow refuses) */
    bool    white_alpha;     /* RGBA composited on white instead of alpha dropped */
} nb_decode_limits;

/* JPEG, PNG, WebP, BMP, GIF (first frame), told by content.  The header is checked against the limits before pixels are
 * allocated.  name: for messages ("chart.png", "line 3: messages[0].content[1]").  limits NULL: the defaults. */
nb_status nb_image_decode(nb_image *out, const void *bytes, size_t n, const char *name, const nb_decode_limits *limits, nb_error *err);

/* Pillow's 8-bit antialiased bicubic (a = -0.5), bit for bit: horizontal pass first, uint8 in between. */
nb_status nb_image_resize(nb_image *out, const nb_image *in, int width, int height, nb_error *err);

#endif
