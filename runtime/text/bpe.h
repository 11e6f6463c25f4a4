/* bpe.h - the merge table, and merging the bytes of one piece. */
#ifndef NB_BPE_H
#define NB_BPE_H

#include "runtime/text/tokenizer.h"

/* Open addressing, at most half full.  Read-only once built. */
typedef struct {
    uint64_t pair; /* left id << 32 | right id; NB_BPE_FREE: an empty slot */
    uint32_t rank; /* lower merges first; NB_BPE_MAX_RANK at most */
    int32_t  merged;
} nb_merge;
#define NB_BPE_FREE     UINT64_MAX
#define NB_BPE_MAX_RANK (UINT32_MAX - 1)

typedef struct {
    nb_merge *slots;
    unsigned  bits; /* 1 << bits slots */
    int32_t   byte_id[256];
} nb_merges;

/* Room for `count` merges. */
nb_status nb_merges_init(nb_merges *m, size_t count, nb_error *err);
void      nb_merges_free(nb_merges *m);
/* False when the pair is there already. */
bool      nb_merges_add(nb_merges *m, int32_t left, int32_t right, uint32_t rank, int32_t merged);

/* What one call of encode works with; one per thread, zero to start. */
typedef struct nb_bpe_work nb_bpe_work;
/* text_bytes: how much text is to come, which decides whether remembering pieces pays. */
nb_status nb_bpe_work_new(nb_bpe_work **out, size_t text_bytes, nb_error *err);
void      nb_bpe_work_free(nb_bpe_work *w);

/* Append the ids of one piece; n < 2^31. */
nb_status nb_bpe_encode(const nb_merges *m, nb_bpe_work *w, const char *piece, size_t n, nb_ids *out, nb_error *err);

#endif
