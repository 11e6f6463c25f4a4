/* sequence.h - what engine.c and sequence.c share: the records of an engine and of one sequence in it.  Private to this folder. */
#ifndef NB_SEQUENCE_H
#define NB_SEQUENCE_H

#include "runtime/engine/engine.h"

struct nb_engine {
    const nb_model   *model;
    nb_engine_options options;
    size_t            page_bytes, layer_bytes; /* of one page over all layers; K and V of one layer */
    size_t            max_pages, reserved;
    nb_pages         *pages;
    nb_sequence     **sequences;               /* by priority, then in order of creation */
    size_t            count;
    nb_scratch       *scratch;
    float            *x;                       /* backend [chunk, hidden] */
    float            *logits;                  /* backend [HEAD_ROWS, vocab] */
    float            *host_logits;             /* [HEAD_ROWS, vocab] */
    int32_t          *ids, *position;          /* [chunk], [3, chunk] */
    nb_span          *spans;                   /* [max_sequences] */
    nb_sequence     **owners;                  /* [max_sequences] */
    nb_engine_stats   stats;
    uint64_t          seed;                    /* of page keys: nobody outside can know which tokens would collide */
};

struct nb_sequence {
    nb_engine    *engine;
    nb_sequence_options options;
    int32_t      *ids, *position; /* [total] known tokens; [3, prompt] */
    int32_t      *visual_row;     /* [prompt] which of all visual rows stands in its place; -1: text; NULL: all text */
    nb_visual   **visual;         /* [media_count] */
    int           media_count;
    size_t        prompt, known, done, total;
    size_t        handed;         /* rows below had their logits handed out, or are not wanted */
    size_t        found;
    int32_t       rope_delta;
    nb_page     **held;           /* [page_limit] */
    void        **pages;          /* [page_limit] their data, for the kernels */
    nb_page_key  *keys;           /* [page_limit], the first key_count known; NULL without a prefix cache */
    size_t        page_count, page_limit, key_count;
    size_t        settled;        /* pages that are full and were given their key, or found */
    bool          in_step, started, failed;
    nb_error      failure;
};

static inline size_t nb_pages_for(size_t tokens) { return (tokens + NB_KV_PAGE - 1) / NB_KV_PAGE; }

static inline int32_t nb_sequence_position(const nb_sequence *s, int axis, size_t t)
{
    return t < s->prompt ? s->position[axis * s->prompt + t] : (int32_t)t + s->rope_delta;
}

/* The visual rows in the places of tokens t .. t + *run - 1, neighbours in memory; NULL: these *run tokens are text.  *run is at
 * least 1 and at most `most`. */
const float *nb_sequence_visual(const nb_sequence *s, size_t t, size_t most, size_t *run);
/* Hold pages that were computed by others, from the first token not done on. */
void nb_sequence_adopt(nb_sequence *s);
/* After a step: give keys to pages that are full, let go of what is not needed any more. */
void nb_sequence_settle(nb_sequence *s);
/* Let go of all pages: everything known has to be computed again, or found. */
void nb_sequence_rewind(nb_sequence *s);

#endif
