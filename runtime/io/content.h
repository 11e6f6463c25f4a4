/* content.h - a short number for what a large file holds, without reading all of it. */
#ifndef NB_CONTENT_H
#define NB_CONTENT_H

#include "kernels/base.h"

/* XXH64 of a whole file, and its size. */
nb_status nb_content_whole(uint64_t *hash, uint64_t *size, const char *path, nb_error *err);
/* The same of the header of a safetensors file, whose length its first 8 bytes give, and of 512 blocks of 4 KiB at equal
 * distances behind it; of all of a small file. */
nb_status nb_content_spread(uint64_t *hash, uint64_t *size, const char *path, nb_error *err);

#endif
