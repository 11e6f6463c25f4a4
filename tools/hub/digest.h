/* digest.h - the digests that hubs publish for files. */
#ifndef NB_HUB_DIGEST_H
#define NB_HUB_DIGEST_H

#include "tools/hub/hub.h"

/* Lower-case hex of an open file's first `size` bytes into out; NB_ERR_STOPPED when tick (may be NULL) says no. */
nb_status nb_digest_file(char out[65], int fd, uint64_t size, nb_digest_kind kind, const char *path, nb_hub_tick *tick,
                         void *context, nb_error *err);

#endif
