/* pages.h - the KV pages of an engine: who holds which, and which of them can be found again by what is in them.
 *
 * A page holds keys and values of NB_KV_PAGE tokens over all layers.  A full page whose content depends on nothing but a known
 * chain of tokens (and pictures) gets a key; while somebody holds it, or until its memory is wanted, another sequence with the
 * same beginning can hold it too instead of computing it.  Pages are written only before they have a key.
 */
#ifndef NB_PAGES_H
#define NB_PAGES_H

#include "kernels/ops.h"

/* 128 bits over everything that a page's content depends on, the pages before it included. */
typedef struct {
    uint64_t low, high;
} nb_page_key;

typedef struct nb_page nb_page;
typedef struct nb_pages nb_pages;

nb_status nb_pages_new(nb_pages **out, const nb_ops *ops, size_t page_bytes, size_t max_pages, nb_error *err);
void      nb_pages_free(nb_pages *p); /* nothing may be held */

/* A page to write into, with one holder.  Takes unused memory first, then new memory, then the keyed page that was longest
 * without a holder.  NULL when all pages are held, or the backend has no memory and nothing can be evicted. */
nb_page *nb_pages_take(nb_pages *p);
/* The page with this key, with one more holder; NULL when it is not there. */
nb_page *nb_pages_find(nb_pages *p, nb_page_key key);
/* From now on nobody writes into it.  Does nothing when the key is taken (two sequences computed the same at once). */
void     nb_pages_name(nb_pages *p, nb_page *page, nb_page_key key);
void     nb_pages_drop(nb_pages *p, nb_page *page);
void    *nb_page_data(const nb_page *page); /* backend memory */
bool     nb_page_named(const nb_page *page);

typedef struct {
    size_t max, held, cached, committed; /* pages: limit, with a holder, only findable, with memory */
    bool   refused;                      /* the backend had no memory for a page when it was last asked */
} nb_pages_stats;
nb_pages_stats nb_pages_look(const nb_pages *p);
void           nb_pages_forget(nb_pages *p); /* every key without a holder */

#endif
