/* large.h - memory for pixels and patches, which a picture fills once and soon gives back. */
#ifndef NB_LARGE_H
#define NB_LARGE_H

#include <stddef.h>

/* Bytes that are not set, or NULL; released with free().  From 4 MiB on, in huge pages where the system has them: a picture of
 * 1080p has 50 MB of patches, and its first touch would stop 12,000 times in pages of 4 KiB. */
void *nb_large_alloc(size_t bytes);

#endif
