/* visual.h - what pictures became, shared by all who need it, and found again by content.
 *
 * The vision tower costs more than anything else that happens to a prompt, and the same picture comes back: in the next turn of
 * a chat, in several answers to one question, in every row about one document.  Rows are immutable once made and counted by
 * their holders; the cache is one more holder, and lets go of what was longest unused.  Every function may be called from any
 * thread; two threads that ask for the same new picture at the same time may both compute it, with equal results.
 */
#ifndef NB_VISUAL_H
#define NB_VISUAL_H

#include "runtime/model/model.h"

/* 128 bits of XXH3 over grid and pixels: equal for equal pictures; an accidental collision is not to be expected before 2^64 of
 * them, a forged one is another matter: the seed is drawn anew by every process. */
typedef struct {
    uint64_t low, high;
} nb_content_key;
nb_content_key nb_content_key_of(const nb_patches *media, const nb_config *config);

typedef struct nb_visual nb_visual;
const float   *nb_visual_rows(const nb_visual *v, size_t *count); /* host [*count, hidden] */
nb_content_key nb_visual_key(const nb_visual *v);
nb_visual     *nb_visual_hold(nb_visual *v); /* one more holder; NULL is fine */
void           nb_visual_drop(nb_visual *v);

typedef struct nb_visual_cache nb_visual_cache;
nb_status nb_visual_cache_new(nb_visual_cache **out, size_t max_bytes, nb_error *err);
void      nb_visual_cache_free(nb_visual_cache *c);
typedef struct {
    uint64_t queries, hits;
    size_t   bytes, count; /* held now */
} nb_visual_cache_stats;
nb_visual_cache_stats nb_visual_cache_look(nb_visual_cache *c);

/* Rows of one picture or video: from the cache (NULL: none), or from the tower of `model`, and then kept in the cache. */
nb_status nb_visual_get(nb_visual **out, const nb_model *model, const nb_patches *media, nb_visual_cache *cache, nb_error *err);

/* The rows of all media of a prompt, in order: [prompt->media_count], each with a holder; NULL when there are none. */
nb_status nb_visual_of_prompt(nb_visual ***out, const nb_model *model, const nb_prompt *prompt, nb_visual_cache *cache, nb_error *err);
/* nb_prompt_embed with rows that are at hand: [prompt->media_count], in order; NULL when there are none. */
nb_status nb_prompt_embed_rows(const nb_model *model, const nb_prompt *prompt, nb_visual *const *rows, float **out, nb_error *err);
void      nb_visual_drop_all(nb_visual **all, int count); /* and the array */

#endif
