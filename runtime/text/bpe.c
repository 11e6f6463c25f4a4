/* bpe.c - byte-pair merging: of all neighbours that may merge, the pair of lowest rank does, the leftmost first.
 *
 * Two ways to the same answer.  Short pieces (nearly all) scan an array for the lowest rank after each merge.  Long ones
 * keep the symbols in a linked list and the pairs in a heap, so that a megabyte of letters takes n log n.  Heap entries of
 * pairs that a neighbour's merge has destroyed stay in it, and are recognised when they come up: the rank that their left
 * symbol now has is another one.
 *
 * Text repeats itself: a small direct-mapped table, private to one call, remembers what pieces became.
 */
#include "runtime/text/bpe.h"

#include <stdlib.h>
#include <string.h>

enum { SHORT_PIECE = 32, CACHE_BITS = 12, CACHED_BYTES = 24, CACHED_IDS = 8 };
#define NO_RANK UINT32_MAX

typedef struct {
    uint8_t bytes, count; /* bytes 0: empty */
    char    text[CACHED_BYTES];
    int32_t ids[CACHED_IDS];
} cached;

/* A symbol of a long piece; rank and merged describe the pair that it forms with the next one. */
typedef struct {
    int32_t  id, previous, next; /* neighbours; -1 at the ends */
    uint32_t rank;
    int32_t  merged;
} symbol;

struct nb_bpe_work {
    cached   *cache; /* [1 << CACHE_BITS], or NULL */
    symbol   *symbols;
    uint64_t *heap; /* rank << 32 | index of the left symbol: ordered by rank, then by place */
    size_t    symbol_capacity, heap_capacity, heap_count;
};

static size_t slot_of(const nb_merges *m, uint64_t pair)
{
    return (size_t)((pair ^ pair >> 29) * 0x9E3779B97F4A7C15u >> (64 - m->bits));
}

nb_status nb_merges_init(nb_merges *m, size_t count, nb_error *err)
{
    m->bits = 4;
    while ((size_t)1 << m->bits < 2 * count) m->bits++;
    NB_TRY(nb_alloc(&m->slots, (size_t)1 << m->bits, sizeof *m->slots, "merges", err));
    for (size_t i = 0; i < (size_t)1 << m->bits; i++) m->slots[i].pair = NB_BPE_FREE;
    return NB_OK;
}

void nb_merges_free(nb_merges *m)
{
    free(m->slots);
    m->slots = NULL;
}

/* The slot of the pair, or the free one where it belongs. */
static nb_merge *find(const nb_merges *m, int32_t left, int32_t right)
{
    uint64_t pair = (uint64_t)left << 32 | (uint32_t)right;
    size_t   mask = ((size_t)1 << m->bits) - 1;
    for (size_t i = slot_of(m, pair);; i = (i + 1) & mask)
        if (m->slots[i].pair == pair || m->slots[i].pair == NB_BPE_FREE) return &m->slots[i];
}

bool nb_merges_add(nb_merges *m, int32_t left, int32_t right, uint32_t rank, int32_t merged)
{
    nb_merge *slot = find(m, left, right);
    if (slot->pair != NB_BPE_FREE) return false;
    *slot = (nb_merge){(uint64_t)left << 32 | (uint32_t)right, rank, merged};
    return true;
}

nb_status nb_bpe_work_new(nb_bpe_work **out, size_t text_bytes, nb_error *err)
{
    NB_TRY(nb_alloc(out, 1, sizeof **out, "tokenizer scratch", err));
    if (text_bytes >= 2048) (*out)->cache = calloc((size_t)1 << CACHE_BITS, sizeof *(*out)->cache); /* without it: slower */
    return NB_OK;
}

void nb_bpe_work_free(nb_bpe_work *w)
{
    if (!w) return;
    free(w->cache);
    free(w->symbols);
    free(w->heap);
    free(w);
}

/* Merges ids[0..n) in place, 1 <= n <= SHORT_PIECE; returns how many are left. */
static size_t merge_short(const nb_merges *m, int32_t *ids, size_t n)
{
    uint32_t rank[SHORT_PIECE];
    int32_t  merged[SHORT_PIECE];
    for (size_t i = 0; i < n; i++) {
        const nb_merge *p = i + 1 < n ? find(m, ids[i], ids[i + 1]) : NULL;
        rank[i] = p && p->pair != NB_BPE_FREE ? p->rank : NO_RANK;
        merged[i] = p ? p->merged : 0;
    }
    for (;;) {
        size_t best = 0;
        for (size_t i = 1; i < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == NO_RANK) return n;
        ids[best] = merged[best];
        n--;
        for (size_t i = best + 1; i < n; i++) {
            ids[i] = ids[i + 1];
            rank[i] = rank[i + 1];
            merged[i] = merged[i + 1];
        }
        for (size_t i = best ? best - 1 : 0; i <= best; i++) { /* the two pairs that the new symbol is in */
            const nb_merge *p = i + 1 < n ? find(m, ids[i], ids[i + 1]) : NULL;
            rank[i] = p && p->pair != NB_BPE_FREE ? p->rank : NO_RANK;
            merged[i] = p ? p->merged : 0;
        }
    }
}

static void sift_down(uint64_t *heap, size_t count, size_t i)
{
    uint64_t value = heap[i];
    for (size_t child; (child = 2 * i + 1) < count; i = child) {
        if (child + 1 < count && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= value) break;
        heap[i] = heap[child];
    }
    heap[i] = value;
}

static nb_status heap_push(nb_bpe_work *w, uint64_t value, nb_error *err)
{
    if (w->heap_count == w->heap_capacity)
        NB_TRY(nb_grow(&w->heap, &w->heap_capacity, w->heap_count + 1, sizeof *w->heap, "tokenizer scratch", err));
    size_t i = w->heap_count++;
    while (i && w->heap[(i - 1) / 2] > value) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = value;
    return NB_OK;
}

/* Look up the pair that symbol i begins; true when it may merge. */
static bool rank_pair(const nb_merges *m, symbol *symbols, int32_t i)
{
    symbol *s = &symbols[i];
    s->rank = NO_RANK;
    if (s->next < 0) return false;
    const nb_merge *p = find(m, s->id, symbols[s->next].id);
    if (p->pair == NB_BPE_FREE) return false;
    s->rank = p->rank;
    s->merged = p->merged;
    return true;
}

static nb_status merge_long(const nb_merges *m, nb_bpe_work *w, const char *piece, size_t n, nb_ids *out, nb_error *err)
{
    if (n > w->symbol_capacity)
        NB_TRY(nb_grow(&w->symbols, &w->symbol_capacity, n, sizeof *w->symbols, "tokenizer scratch", err));
    if (n > w->heap_capacity) NB_TRY(nb_grow(&w->heap, &w->heap_capacity, n, sizeof *w->heap, "tokenizer scratch", err));
    symbol *s = w->symbols;
    int32_t count = (int32_t)n;
    for (int32_t i = 0; i < count; i++)
        s[i] = (symbol){m->byte_id[(uint8_t)piece[i]], i - 1, i + 1 < count ? i + 1 : -1, NO_RANK, 0};
    w->heap_count = 0;
    for (int32_t i = 0; i < count; i++)
        if (rank_pair(m, s, i)) w->heap[w->heap_count++] = (uint64_t)s[i].rank << 32 | (uint32_t)i;
    for (size_t i = w->heap_count / 2; i-- > 0;) sift_down(w->heap, w->heap_count, i);

    while (w->heap_count) {
        uint64_t top = w->heap[0];
        w->heap[0] = w->heap[--w->heap_count];
        if (w->heap_count) sift_down(w->heap, w->heap_count, 0);
        int32_t left = (int32_t)(top & 0xFFFFFFFFu);
        if (s[left].rank != top >> 32) continue; /* that pair is gone */
        int32_t right = s[left].next;
        s[left].id = s[left].merged;
        s[left].next = s[right].next;
        s[right].rank = NO_RANK;
        if (s[right].next >= 0) s[s[right].next].previous = left;
        for (int32_t i = s[left].previous >= 0 ? s[left].previous : left;; i = left) {
            if (rank_pair(m, s, i)) NB_TRY(heap_push(w, (uint64_t)s[i].rank << 32 | (uint32_t)i, err));
            if (i == left) break;
        }
    }
    for (int32_t i = 0; i >= 0; i = s[i].next) NB_TRY(nb_ids_push(out, s[i].id, err));
    return NB_OK;
}

static cached *cache_slot(nb_bpe_work *w, const char *piece, size_t n)
{
    uint64_t hash = n;
    for (size_t i = 0; i < n; i++) hash = (hash ^ (uint8_t)piece[i]) * 0x100000001B3u;
    return &w->cache[(hash * 0x9E3779B97F4A7C15u) >> (64 - CACHE_BITS)];
}

nb_status nb_bpe_encode(const nb_merges *m, nb_bpe_work *w, const char *piece, size_t n, nb_ids *out, nb_error *err)
{
    if (n > SHORT_PIECE) return merge_long(m, w, piece, n, out, err);
    int32_t ids[SHORT_PIECE];
    size_t  count = 0;
    cached *c = w->cache && n > 1 && n <= CACHED_BYTES ? cache_slot(w, piece, n) : NULL;
    if (c && c->bytes == n && memcmp(c->text, piece, n) == 0) {
        for (size_t i = 0; i < c->count; i++) NB_TRY(nb_ids_push(out, c->ids[i], err));
        return NB_OK;
    }
    for (size_t i = 0; i < n; i++) ids[i] = m->byte_id[(uint8_t)piece[i]];
    count = merge_short(m, ids, n);
    if (c && count <= CACHED_IDS) {
        c->bytes = (uint8_t)n;
        c->count = (uint8_t)count;
        memcpy(c->text, piece, n);
        memcpy(c->ids, ids, count * sizeof *ids);
    }
    for (size_t i = 0; i < count; i++) NB_TRY(nb_ids_push(out, ids[i], err));
    return NB_OK;
}
