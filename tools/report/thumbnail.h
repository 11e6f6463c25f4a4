/* thumbnail.h - a small picture that fits into a page: decoded as the model's are, shrunk, and written as a data: URL. */
#ifndef NB_THUMBNAIL_H
#define NB_THUMBNAIL_H

#include "runtime/vision/media.h"

enum { NB_THUMBNAIL_SIDE = 160 /* pixels of the longer side at most */ };

/* Append "data:image/jpeg;base64,..." (a few kilobytes).  What cannot be read or decoded is an error that says why, and nothing is
 * appended. */
nb_status nb_thumbnail(nb_buf *out, const char *reference, const nb_media_options *media, nb_error *err);
/* The same from bytes of a picture file. */
nb_status nb_thumbnail_of(nb_buf *out, const void *bytes, size_t n, const char *name, nb_error *err);

#endif
