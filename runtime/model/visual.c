/* visual.c - counted rows, and a list of them by last use under one lock.
 *
 * The list is searched from its newest end: a server holds a few hundred pictures, and comparing two words each is nothing
 * beside the tower.
 */
#include "runtime/model/visual.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

struct nb_visual {
    atomic_int     holders;
    nb_content_key key;
    size_t         count, hidden;
    float         *rows;          /* [count, hidden] */
    nb_visual     *older, *newer; /* in a cache */
};

struct nb_visual_cache {
    pthread_mutex_t       lock;
    size_t                max_bytes;
    nb_visual            *oldest, *newest;
    nb_visual_cache_stats stats;
};

/* ---- rows -------------------------------------------------------------------------------------------------------------- */

static XXH64_hash_t seed;

static void draw_seed(void)
{
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed) seed = (XXH64_hash_t)(nb_seconds() * 1e9);
}

nb_content_key nb_content_key_of(const nb_patches *m, const nb_config *c)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, draw_seed);
    size_t        width = (size_t)c->v_channels * (size_t)c->v_temporal * (size_t)c->v_patch * (size_t)c->v_patch;
    size_t        bytes = (size_t)m->t * (size_t)m->h * (size_t)m->w * width * sizeof(float);
    XXH128_hash_t pixels = XXH3_128bits_withSeed(m->rows, bytes, seed);
    struct {
        XXH128_hash_t pixels;
        int32_t       grid[4];
    } all = { pixels, { m->t, m->h, m->w, 0 } };
    XXH128_hash_t h = XXH3_128bits_withSeed(&all, sizeof all, seed);
    return (nb_content_key){ h.low64, h.high64 };
}

const float *nb_visual_rows(const nb_visual *v, size_t *count)
{
    *count = v->count;
    return v->rows;
}

nb_content_key nb_visual_key(const nb_visual *v) { return v->key; }

nb_visual *nb_visual_hold(nb_visual *v)
{
    if (v) atomic_fetch_add_explicit(&v->holders, 1, memory_order_relaxed);
    return v;
}

void nb_visual_drop(nb_visual *v)
{
    if (!v || atomic_fetch_sub_explicit(&v->holders, 1, memory_order_acq_rel) > 1) return;
    free(v->rows);
    free(v);
}

void nb_visual_drop_all(nb_visual **all, int count)
{
    for (int i = 0; all && i < count; i++) nb_visual_drop(all[i]);
    free(all);
}

static size_t bytes_of(const nb_visual *v) { return sizeof *v + v->count * v->hidden * sizeof(float); }

static nb_status compute(nb_visual **out, const nb_model *m, const nb_patches *media, nb_content_key key, nb_error *err)
{
    const nb_ops *ops = &m->ops;
    float        *rows_d;
    size_t        count, hidden = (size_t)m->config.hidden;
    *out = NULL;
    NB_TRY(nb_vision_forward(m, media, &rows_d, &count, err));
    nb_visual *v = calloc(1, sizeof *v);
    float     *rows = malloc(count * hidden * sizeof *rows);
    nb_status  status = NB_OK;
    if (v && rows) {
        ops->download(ops, rows, rows_d, count * hidden * sizeof *rows);
        status = ops->status(ops, err);
    } else {
        status = nb_fail(err, NB_ERR_MEMORY, "no memory for the %zu rows of a picture", count);
    }
    ops->free(ops, rows_d);
    if (status != NB_OK) {
        free(rows);
        free(v);
        return status;
    }
    atomic_init(&v->holders, 1);
    v->key = key;
    v->count = count;
    v->hidden = hidden;
    v->rows = rows;
    *out = v;
    return NB_OK;
}

/* ---- the cache; the lock is held ---------------------------------------------------------------------------------------- */

static void unlink_visual(nb_visual_cache *c, nb_visual *v)
{
    *(v->older ? &v->older->newer : &c->oldest) = v->newer;
    *(v->newer ? &v->newer->older : &c->newest) = v->older;
    v->older = v->newer = NULL;
}

static void link_newest(nb_visual_cache *c, nb_visual *v)
{
    v->older = c->newest;
    *(c->newest ? &c->newest->newer : &c->oldest) = v;
    c->newest = v;
}

static nb_visual *find(nb_visual_cache *c, nb_content_key key)
{
    for (nb_visual *v = c->newest; v; v = v->older)
        if (v->key.low == key.low && v->key.high == key.high) return v;
    return NULL;
}

static void insert(nb_visual_cache *c, nb_visual *v)
{
    if (bytes_of(v) > c->max_bytes || find(c, v->key)) return;
    while (c->oldest && c->stats.bytes + bytes_of(v) > c->max_bytes) {
        nb_visual *gone = c->oldest;
        unlink_visual(c, gone);
        c->stats.bytes -= bytes_of(gone);
        c->stats.count--;
        nb_visual_drop(gone);
    }
    link_newest(c, nb_visual_hold(v));
    c->stats.bytes += bytes_of(v);
    c->stats.count++;
}

nb_status nb_visual_cache_new(nb_visual_cache **out, size_t max_bytes, nb_error *err)
{
    NB_TRY(nb_alloc(out, 1, sizeof **out, "the picture cache", err));
    (*out)->max_bytes = max_bytes;
    pthread_mutex_init(&(*out)->lock, NULL);
    return NB_OK;
}

void nb_visual_cache_free(nb_visual_cache *c)
{
    if (!c) return;
    while (c->oldest) {
        nb_visual *v = c->oldest;
        unlink_visual(c, v);
        nb_visual_drop(v);
    }
    pthread_mutex_destroy(&c->lock);
    free(c);
}

nb_visual_cache_stats nb_visual_cache_look(nb_visual_cache *c)
{
    pthread_mutex_lock(&c->lock);
    nb_visual_cache_stats s = c->stats;
    pthread_mutex_unlock(&c->lock);
    return s;
}

/* ---- getting ------------------------------------------------------------------------------------------------------------ */

nb_status nb_visual_get(nb_visual **out, const nb_model *model, const nb_patches *media, nb_visual_cache *cache, nb_error *err)
{
    nb_content_key key = nb_content_key_of(media, &model->config);
    *out = NULL;
    if (cache) {
        pthread_mutex_lock(&cache->lock);
        nb_visual *v = find(cache, key);
        cache->stats.queries++;
        if (v) {
            cache->stats.hits++;
            unlink_visual(cache, v);
            link_newest(cache, v);
            *out = nb_visual_hold(v);
        }
        pthread_mutex_unlock(&cache->lock);
        if (*out) return NB_OK;
    }
    NB_TRY(compute(out, model, media, key, err));
    if (cache) {
        pthread_mutex_lock(&cache->lock);
        insert(cache, *out);
        pthread_mutex_unlock(&cache->lock);
    }
    return NB_OK;
}

nb_status nb_visual_of_prompt(nb_visual ***out, const nb_model *model, const nb_prompt *prompt, nb_visual_cache *cache, nb_error *err)
{
    *out = NULL;
    if (prompt->media_count == 0) return NB_OK;
    NB_TRY(nb_alloc(out, (size_t)prompt->media_count, sizeof **out, "pictures", err));
    for (int i = 0; i < prompt->media_count; i++) {
        nb_status status = nb_visual_get(&(*out)[i], model, &prompt->media[i], cache, err);
        if (status == NB_OK) continue;
        nb_visual_drop_all(*out, prompt->media_count);
        *out = NULL;
        return status;
    }
    return NB_OK;
}
