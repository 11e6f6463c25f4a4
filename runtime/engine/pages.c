/* pages.c - page records, a hash table of the keyed ones, and two lists: empty pages and keyed pages without a holder. */
#include "runtime/engine/pages.h"

#include <stdlib.h>

struct nb_page {
    void       *data;   /* NULL: no memory yet */
    bool        owner;  /* what begins at data is to be freed: the page, or a slab that begins with it */
    size_t      holders;
    bool        named;
    nb_page_key key;
    nb_page    *next;            /* in its bucket */
    nb_page    *older, *newer;   /* in a list */
};

typedef struct {
    nb_page *oldest, *newest;
} page_list;

struct nb_pages {
    const nb_ops *ops;
    size_t        page_bytes, buckets; /* a power of two */
    nb_page      *records;             /* [max] */
    nb_page     **table;               /* [buckets] */
    page_list     empty, cached;       /* memory without content; keyed without a holder, by last use */
    size_t        used;                /* records ever taken */
    char         *slab;                /* memory for the next slab_left pages */
    size_t        slab_left;
    nb_pages_stats stats;
};

static void list_remove(page_list *l, nb_page *p)
{
    *(p->older ? &p->older->newer : &l->oldest) = p->newer;
    *(p->newer ? &p->newer->older : &l->newest) = p->older;
    p->older = p->newer = NULL;
}

static void list_add(page_list *l, nb_page *p)
{
    p->older = l->newest;
    *(l->newest ? &l->newest->newer : &l->oldest) = p;
    l->newest = p;
}

static nb_page **bucket(const nb_pages *p, nb_page_key key) { return &p->table[key.low & (p->buckets - 1)]; }

static nb_page *lookup(const nb_pages *p, nb_page_key key)
{
    nb_page *at = *bucket(p, key);
    while (at && (at->key.low != key.low || at->key.high != key.high)) at = at->next;
    return at;
}

static void unname(nb_pages *p, nb_page *page)
{
    nb_page **at = bucket(p, page->key);
    while (*at != page) at = &(*at)->next;
    *at = page->next;
    page->next = NULL;
    page->named = false;
}

nb_status nb_pages_new(nb_pages **out, const nb_ops *ops, size_t page_bytes, size_t max_pages, nb_error *err)
{
    NB_TRY(nb_alloc(out, 1, sizeof **out, "KV pages", err));
    nb_pages *p = *out;
    p->ops = ops;
    p->page_bytes = page_bytes;
    p->stats.max = max_pages;
    p->buckets = 64;
    while (p->buckets < max_pages) p->buckets *= 2;
    nb_status status = nb_alloc(&p->records, max_pages, sizeof *p->records, "KV pages", err);
    if (status == NB_OK) status = nb_alloc(&p->table, p->buckets, sizeof *p->table, "KV pages", err);
    if (status != NB_OK) {
        nb_pages_free(p);
        *out = NULL;
    }
    return status;
}

void nb_pages_free(nb_pages *p)
{
    if (!p) return;
    for (size_t i = 0; p->records && i < p->used; i++)
        if (p->records[i].owner) p->ops->free(p->ops, p->records[i].data);
    free(p->records);
    free(p->table);
    free(p);
}

static nb_page *evict(nb_pages *p)
{
    nb_page *page = p->cached.oldest;
    if (!page) return NULL;
    list_remove(&p->cached, page);
    p->stats.cached--;
    unname(p, page);
    return page;
}

enum { SLAB_BYTES = 1 << 24 };

/* Pages get memory together: attention reads a long context faster from large pieces (a backend gives them 2 MB pages of the
 * system).  Not more than a quarter of what is there already. */
static bool take_slab(nb_pages *p)
{
    size_t pages = SLAB_BYTES / p->page_bytes, quarter = p->used / 4, left = p->stats.max - p->used;
    pages = pages < quarter ? pages : quarter;
    pages = pages < left ? pages : left;
    p->slab = pages > 1 ? p->ops->alloc(p->ops, pages * p->page_bytes) : NULL;
    if (!p->slab) {
        pages = 1;
        p->slab = p->ops->alloc(p->ops, p->page_bytes);
    }
    p->stats.refused = p->slab == NULL;
    if (p->slab) p->slab_left = pages;
    p->stats.committed += p->slab_left;
    return p->slab != NULL;
}

static nb_page *fresh(nb_pages *p)
{
    if (p->used == p->stats.max) return NULL;
    bool owner = p->slab_left == 0;
    if (owner && !take_slab(p)) return NULL;
    nb_page *page = &p->records[p->used++];
    page->data = p->slab;
    page->owner = owner;
    p->slab += p->page_bytes;
    p->slab_left--;
    return page;
}

nb_page *nb_pages_take(nb_pages *p)
{
    nb_page *page = p->empty.oldest;
    if (page) list_remove(&p->empty, page);
    if (!page) page = fresh(p);
    if (!page) page = evict(p);
    if (!page) return NULL;
    page->holders = 1;
    p->stats.held++;
    return page;
}

nb_page *nb_pages_find(nb_pages *p, nb_page_key key)
{
    nb_page *page = lookup(p, key);
    if (!page) return NULL;
    if (page->holders++ == 0) {
        list_remove(&p->cached, page);
        p->stats.cached--;
        p->stats.held++;
    }
    return page;
}

void nb_pages_name(nb_pages *p, nb_page *page, nb_page_key key)
{
    if (page->named || lookup(p, key)) return;
    page->key = key;
    page->named = true;
    page->next = *bucket(p, key);
    *bucket(p, key) = page;
}

void nb_pages_drop(nb_pages *p, nb_page *page)
{
    if (--page->holders) return;
    p->stats.held--;
    if (page->named) p->stats.cached++;
    list_add(page->named ? &p->cached : &p->empty, page);
}

void *nb_page_data(const nb_page *page) { return page->data; }
bool  nb_page_named(const nb_page *page) { return page->named; }

nb_pages_stats nb_pages_look(const nb_pages *p) { return p->stats; }

void nb_pages_forget(nb_pages *p)
{
    nb_page *page;
    while ((page = evict(p)) != NULL) list_add(&p->empty, page);
}
