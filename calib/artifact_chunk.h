/* artifact_chunk.h - a layer's file: chunks of 64-bit words, each compressed and checksummed, one behind the other.
 *
 *     head    chunk_head, 48 bytes, little-endian like everything here
 *     frame   zstd of the words in eight planes: all lowest bytes first, because the high bytes of neighbours repeat
 *
 * For each site and part, in order: one chunk of counts, maxima and magnitudes, then the triangle by rows.  Row i is k - i high words
 * and k - i low words, the diagonal first. */
#ifndef NB_ARTIFACT_CHUNK_H
#define NB_ARTIFACT_CHUNK_H

#include "calib/stats.h"

typedef struct {
    uint64_t hash;   /* xxHash64 of all that follows, frame included; must stay first */
    uint32_t version, layer, site, part;
    uint64_t first;  /* row of the triangle; NB_CHUNK_COLUMNS */
    uint64_t words;  /* in the frame */
    uint64_t packed; /* bytes of the frame */
} nb_chunk_head;

#define NB_CHUNK_COLUMNS UINT64_MAX

enum { NB_CHUNK_VERSION = 1 };

/* Words of the chunk that begins at row `first`, and where it ends: as many whole rows as fit half a million words, or one. */
size_t nb_chunk_rows(size_t k, size_t first, size_t *words);
/* Words of the chunk about the columns: counts by kind of token, 2 k of sum_abs, max_abs two a word. */
size_t nb_chunk_columns(size_t k);
/* Words of the largest chunk of a site. */
size_t nb_chunk_largest(size_t k);

typedef struct nb_chunks nb_chunks; /* buffers, and the file that is read or written */

nb_status nb_chunks_create(nb_chunks **out, const char *path, size_t largest, nb_error *err); /* path is replaced */
nb_status nb_chunks_open(nb_chunks **out, const char *path, size_t largest, nb_error *err);
uint64_t *nb_chunks_words(nb_chunks *c); /* [largest], to be written or just read */
/* head: where the words belong; hash and packed are filled in. */
nb_status nb_chunks_write(nb_chunks *c, nb_chunk_head head, nb_error *err);
/* The next chunk must be this one. */
nb_status nb_chunks_read(nb_chunks *c, nb_chunk_head head, nb_error *err);
nb_status nb_chunks_skip(nb_chunks *c, nb_chunk_head head, nb_error *err); /* the same without looking into the frame */
nb_status nb_chunks_end(nb_chunks *c, nb_error *err);                      /* reading: nothing may follow; writing: to disk */
uint64_t  nb_chunks_bytes(const nb_chunks *c);
void      nb_chunks_close(nb_chunks *c);

#endif
