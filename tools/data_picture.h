/* data_picture.h - how large a picture of a data set is, without decoding it.
 *
 * The header and the end of the file are looked at: a file that ends as its format does, with a plausible header, counts as
 * whole.  Everything else goes to the decoder, which judges as `quantize` and `run` would, in their words.
 */
#ifndef NB_DATA_PICTURE_H
#define NB_DATA_PICTURE_H

#include "runtime/vision/media.h"

typedef struct {
    int  width, height; /* 0, 0: not looked at */
    bool decoded;       /* the decoder saw all of it */
} nb_picture;

/* deep: decode every picture, and fetch those behind http(s) (which are not looked at otherwise). */
nb_status nb_picture_look(nb_picture *out, const char *reference, const nb_media_options *media, bool deep, nb_error *err);

/* Width and height from the first bytes of a file; false when they do not tell. */
bool nb_picture_header(const uint8_t *p, size_t n, int64_t *width, int64_t *height);

#endif
