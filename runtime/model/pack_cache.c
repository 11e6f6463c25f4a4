/* pack_cache.c - see pack_cache.h.  Numbers are little endian, as everywhere in nibble. */
#include "runtime/model/pack_cache.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "runtime/io/content.h"
#include "runtime/io/file.h"

enum {
    FORM = 1,            /* raised when this file, or what reading a checkpoint makes of it, changes */
    HEAD = 4096,         /* bytes of the header, and what matrices are aligned to */
    PIECE = 4 << 20,     /* bytes of a matrix that are hashed by themselves */
    LONGEST_META = 1 << 28,
    NAME = 96,
    LAYOUT = 32,
};

static const char magic[8] = "nbpacks\n";

typedef struct {
    char     magic[8];
    uint32_t form, entries;
    uint64_t file_bytes, meta_bytes;
    uint64_t identity[2]; /* of the checkpoint */
    char     layout[LAYOUT];
    uint64_t meta_hash;
    uint64_t hash;        /* of the fields before it */
} header;

typedef struct {
    char     name[NAME];
    int32_t  kind, dtype, n, k, group;
    uint32_t flags;
    uint64_t perm_at, table_at, table_bytes; /* from the start of the entries; perm_at 0: none */
    uint64_t bytes_at, size;                 /* in the file */
    uint64_t hash;                           /* of the hashes of its pieces */
} entry;

static_assert(sizeof(header) == 96 && sizeof(entry) == 168, "no padding: they are what the file holds");

typedef struct {
    const char      *name; /* the loader's */
    const nb_matrix *m;
} loaded;

struct nb_pack_cache {
    nb_ops    ops;
    char     *path;
    uint64_t  identity[2];
    uint8_t  *map; /* NULL: no file, or none that fits */
    size_t    map_bytes;
    entry    *entries;   /* the whole part of the file behind the header */
    nb_matrix *matrices; /* [count]; zeroed when taken */
    size_t    count;
    loaded   *loads;
    size_t    load_count, load_capacity;
    bool      missing; /* a loaded matrix is not in the file */
};

/* ---- which checkpoint -------------------------------------------------------------------------------------------------- */

static nb_status add_shard(XXH3_state_t *state, const char *path, nb_error *err)
{
    struct stat s;
    uint64_t    facts[4];
    NB_TRY(nb_content_spread(&facts[0], &facts[1], path, err));
    if (stat(path, &s) != 0) return nb_fail(err, NB_ERR_IO, "%s: cannot find its time: %s", path, strerror(errno));
    facts[2] = (uint64_t)s.st_mtim.tv_sec; /* blocks at distances miss a value that was changed in place */
    facts[3] = (uint64_t)s.st_mtim.tv_nsec;
    XXH3_128bits_update(state, facts, sizeof facts);
    return NB_OK;
}

/* What decides about the packed numbers: the configs and the shards. */
static nb_status add_checkpoint(XXH3_state_t *state, const nb_checkpoint *c, nb_error *err)
{
    static const char *const configs[] = { "config.json", "quantize_config.json", "quant_config.json" };
    for (size_t i = 0; i < NB_COUNT(configs); i++) {
        uint64_t  facts[2] = { 0 };
        char     *path = nb_path_join(nb_checkpoint_path(c), configs[i]);
        if (!path) return nb_fail(err, NB_ERR_MEMORY, "out of memory for a path");
        nb_status status = nb_file_exists(path) ? nb_content_whole(&facts[0], &facts[1], path, err) : NB_OK;
        free(path);
        NB_TRY(status);
        XXH3_128bits_update(state, facts, sizeof facts);
    }
    for (size_t i = 0; i < nb_checkpoint_shards(c); i++) NB_TRY(add_shard(state, nb_safetensors_path(nb_checkpoint_shard(c, i)), err));
    return NB_OK;
}

static nb_status identify(uint64_t out[2], const nb_checkpoint *c, nb_error *err)
{
    for (size_t i = 0; i < nb_checkpoint_count(c); i++)
        if (nb_checkpoint_at(c, i)->edit)
            return nb_fail(err, NB_ERR_ARGUMENT, "%s: is changed by an adapter as it is read, and a pack cache keeps checkpoints as they are",
                           nb_checkpoint_path(c));
    XXH3_state_t *state = XXH3_createState();
    if (!state) return nb_fail(err, NB_ERR_MEMORY, "out of memory for a fingerprint");
    XXH3_128bits_reset(state);
    nb_status     status = add_checkpoint(state, c, err);
    XXH128_hash_t hash = XXH3_128bits_digest(state);
    out[0] = hash.low64;
    out[1] = hash.high64;
    XXH3_freeState(state);
    return status;
}

/* ---- hashes of pieces -------------------------------------------------------------------------------------------------- */

/* Matrix i has pieces first[i] .. first[i + 1] - 1 of all. */
typedef struct {
    const nb_matrix_image *image;
    size_t         *first, count;
    XXH64_hash_t   *hash; /* [pieces] */
} hashing;

static void hash_piece(void *context, size_t piece, int thread)
{
    const hashing *h = context;
    size_t         low = 0, high = h->count;
    (void)thread;
    while (high - low > 1) { /* the matrix of the piece: first[low] <= piece < first[high] */
        size_t middle = (low + high) / 2;
        *(h->first[middle] <= piece ? &low : &high) = middle;
    }
    size_t at = (piece - h->first[low]) * PIECE, left = h->image[low].size - at;
    h->hash[piece] = XXH3_64bits((const uint8_t *)h->image[low].bytes + at, left < PIECE ? left : PIECE);
}

/* Hashes of the numbers of all matrices into out [count]. */
static nb_status hash_all(uint64_t *out, const nb_matrix_image *image, size_t count, nb_pool *pool, nb_error *err)
{
    hashing   h = { .image = image, .count = count };
    nb_status status = nb_alloc(&h.first, count + 1, sizeof *h.first, "pieces to hash", err);
    if (status != NB_OK) return status;
    for (size_t i = 0; i < count; i++) h.first[i + 1] = h.first[i] + image[i].size / PIECE + (image[i].size % PIECE != 0);
    status = nb_alloc(&h.hash, h.first[count], sizeof *h.hash, "pieces to hash", err);
    if (status == NB_OK) {
        nb_parallel(pool, h.first[count], hash_piece, &h);
        for (size_t i = 0; i < count; i++)
            out[i] = XXH3_64bits(h.hash + h.first[i], (h.first[i + 1] - h.first[i]) * sizeof *h.hash);
    }
    free(h.first);
    free(h.hash);
    return status;
}

/* ---- reading ----------------------------------------------------------------------------------------------------------- */

static uint64_t hash_header(const header *h) { return XXH3_64bits(h, offsetof(header, hash)); }

static nb_status check_header(const nb_pack_cache *c, const header *h, uint64_t size, nb_error *err)
{
    if (h->form != FORM)
        return nb_fail(err, NB_ERR_INPUT, "%s: was written by %s nibble", c->path, h->form > FORM ? "a newer" : "an older");
    if (hash_header(h) != h->hash) return nb_fail(err, NB_ERR_INPUT, "%s: its header is damaged", c->path);
    if (h->file_bytes != size)
        return nb_fail(err, NB_ERR_INPUT, "%s: has %" PRIu64 " bytes, its header says %" PRIu64 ": it was cut off or added to", c->path, size,
                       h->file_bytes);
    if (strncmp(h->layout, c->ops.layout, LAYOUT) != 0)
        return nb_fail(err, NB_ERR_INPUT, "%s: holds '%.*s', and %s computes with '%s'", c->path, LAYOUT, h->layout, c->ops.name, c->ops.layout);
    if (memcmp(h->identity, c->identity, sizeof h->identity) != 0)
        return nb_fail(err, NB_ERR_INPUT, "%s: is of another checkpoint, or of this one before it changed", c->path);
    if (h->meta_bytes > LONGEST_META || h->meta_bytes > size - HEAD || h->entries > h->meta_bytes / sizeof(entry))
        return nb_fail(err, NB_ERR_INPUT, "%s: its table does not fit into it", c->path);
    return NB_OK;
}

/* Whether bytes [at, at + n) are inside, at a multiple of `unit`. */
static bool inside(uint64_t at, uint64_t n, uint64_t limit, uint64_t unit)
{
    return at % unit == 0 && at <= limit && n <= limit - at;
}

static nb_status check_entry(const nb_pack_cache *c, const header *h, const entry *e, nb_error *err)
{
    bool good = memchr(e->name, 0, NAME) && e->n > 0 && e->k > 0 && inside(e->table_at, e->table_bytes, h->meta_bytes, 4) &&
                (!e->perm_at || inside(e->perm_at, 4 * (uint64_t)e->k, h->meta_bytes, 4)) && inside(e->bytes_at, e->size, h->file_bytes, 64);
    return good ? NB_OK : nb_fail(err, NB_ERR_INPUT, "%s: entry %zu of its table points out of it", c->path, (size_t)(e - c->entries));
}

static nb_matrix_image image_of(const nb_pack_cache *c, const entry *e)
{
    const char *meta = (const char *)c->entries;
    return (nb_matrix_image){ .kind = (nb_wkind)e->kind, .dtype = (nb_dtype)e->dtype, .n = e->n, .k = e->k, .group = e->group, .flags = e->flags,
                       .perm = e->perm_at ? (const int32_t *)(meta + e->perm_at) : NULL, .table = e->table_bytes ? meta + e->table_at : NULL,
                       .table_bytes = e->table_bytes, .bytes = c->map + e->bytes_at, .size = e->size };
}

static nb_status check_numbers(const nb_pack_cache *c, const nb_matrix_image *image, nb_error *err)
{
    uint64_t *hash;
    NB_TRY(nb_alloc(&hash, c->count, sizeof *hash, "hashes", err));
    nb_status status = hash_all(hash, image, c->count, c->ops.pool, err);
    for (size_t i = 0; i < c->count && status == NB_OK; i++)
        if (hash[i] != c->entries[i].hash) status = nb_fail(err, NB_ERR_INPUT, "%s: the numbers of %s are damaged", c->path, c->entries[i].name);
    free(hash);
    return status;
}

static nb_status attach_all(nb_pack_cache *c, const header *h, nb_error *err)
{
    nb_matrix_image *image;
    for (size_t i = 0; i < h->entries; i++) NB_TRY(check_entry(c, h, &c->entries[i], err));
    NB_TRY(nb_alloc(&c->matrices, h->entries, sizeof *c->matrices, "packed matrices", err));
    NB_TRY(nb_alloc(&image, h->entries, sizeof *image, "packed matrices", err));
    c->count = h->entries;
    for (size_t i = 0; i < c->count; i++) image[i] = image_of(c, &c->entries[i]);
    nb_status status = check_numbers(c, image, err);
    for (size_t i = 0; i < c->count && status == NB_OK; i++) {
        status = c->ops.attach(&c->ops, &c->matrices[i], &image[i], err);
        if (status != NB_OK) nb_error_within(err, "%s: %s", c->path, c->entries[i].name);
    }
    free(image);
    return status;
}

static nb_status map_file(nb_pack_cache *c, int fd, uint64_t size, nb_error *err)
{
    header h;
    NB_TRY(nb_read_at(fd, &h, sizeof h, 0, c->path, err));
    NB_TRY(check_header(c, &h, size, err));
    NB_TRY(nb_alloc(&c->entries, 1, (size_t)h.meta_bytes, "the table of a pack cache", err));
    NB_TRY(nb_read_at(fd, c->entries, (size_t)h.meta_bytes, HEAD, c->path, err));
    if (XXH3_64bits(c->entries, (size_t)h.meta_bytes) != h.meta_hash) return nb_fail(err, NB_ERR_INPUT, "%s: its table is damaged", c->path);
    void *map = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) return nb_fail(err, NB_ERR_IO, "%s: cannot be mapped: %s", c->path, strerror(errno));
    c->map = map;
    c->map_bytes = (size_t)size;
    madvise(map, c->map_bytes, MADV_HUGEPAGE); /* where the file system can; and reading it ahead */
    madvise(map, c->map_bytes, MADV_WILLNEED);
    return attach_all(c, &h, err);
}

static void unmap(nb_pack_cache *c)
{
    for (size_t i = 0; i < c->count; i++) c->ops.release(&c->ops, &c->matrices[i]);
    if (c->map) munmap(c->map, c->map_bytes);
    free(c->entries);
    free(c->matrices);
    c->map = NULL;
    c->entries = NULL;
    c->matrices = NULL;
    c->count = 0;
}

/* A file that is none of ours is not to be overwritten.  One that ends before it can say is. */
static nb_status check_magic(const nb_pack_cache *c, int fd, uint64_t size, nb_error *err)
{
    char   begin[sizeof magic];
    size_t n = size < sizeof begin ? (size_t)size : sizeof begin;
    NB_TRY(nb_read_at(fd, begin, n, 0, c->path, err));
    return memcmp(begin, magic, n) == 0 ? NB_OK
                                        : nb_fail(err, NB_ERR_ARGUMENT, "%s: is no pack cache; name a file that is, or is not there yet, or a folder",
                                                  c->path);
}

static nb_status open_file(nb_pack_cache *c, nb_buf *notes, nb_error *err)
{
    int      fd;
    uint64_t size;
    nb_error why = { 0 };
    if (!nb_file_exists(c->path)) {
        char     *folder = nb_path_folder(c->path);
        nb_status status = !folder                    ? nb_fail(err, NB_ERR_MEMORY, "out of memory for a path")
                           : !nb_is_directory(folder) ? nb_fail(err, NB_ERR_ARGUMENT, "%s: there is no folder '%s' to write a pack cache into", c->path, folder)
                                                      : NB_OK;
        free(folder);
        return status;
    }
    NB_TRY(nb_open_regular(&fd, &size, c->path, err));
    nb_status status = check_magic(c, fd, size, err);
    if (status == NB_OK) {
        nb_status fits = size < HEAD ? nb_fail(&why, NB_ERR_INPUT, "%s: ends within its header", c->path) : map_file(c, fd, size, &why);
        if (fits != NB_OK) {
            unmap(c);
            nb_buf_printf(notes, "%s; it is written anew\n", why.text);
        }
    }
    close(fd);
    return status;
}

static nb_status name_file(nb_pack_cache *c, const char *path, nb_error *err)
{
    char name[80];
    snprintf(name, sizeof name, "%016" PRIx64 "-%08x.packed", c->identity[0], (unsigned)XXH3_64bits(c->ops.layout, strlen(c->ops.layout)));
    c->path = nb_is_directory(path) ? nb_path_join(path, name) : nb_strdup(path);
    return c->path ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "out of memory for a path");
}

nb_status nb_pack_cache_open(nb_pack_cache **out, const char *path, const nb_checkpoint *checkpoint, const nb_ops *ops, nb_buf *notes,
                             nb_error *err)
{
    *out = NULL;
    if (!ops->layout) return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: packs on the device, and a pack cache is of the CPU's memory", ops->name);
    NB_TRY(nb_alloc(out, 1, sizeof **out, "a pack cache", err));
    (*out)->ops = *ops;
    nb_status status = identify((*out)->identity, checkpoint, err);
    if (status == NB_OK) status = name_file(*out, path, err);
    if (status == NB_OK) status = open_file(*out, notes, err);
    if (status != NB_OK) {
        nb_pack_cache_close(*out);
        *out = NULL;
    }
    return status;
}

void nb_pack_cache_close(nb_pack_cache *c)
{
    if (!c) return;
    unmap(c);
    free(c->path);
    free(c->loads);
    free(c);
}

/* ---- what is loaded ---------------------------------------------------------------------------------------------------- */

static const entry *find(const nb_pack_cache *c, const char *name, int n, int k)
{
    for (size_t i = 0; i < c->count; i++)
        if (c->entries[i].n == n && c->entries[i].k == k && !strcmp(c->entries[i].name, name)) return &c->entries[i];
    return NULL;
}

bool nb_pack_cache_has(const nb_pack_cache *c, const char *name, int n, int k) { return find(c, name, n, k) != NULL; }

void nb_pack_cache_take(nb_pack_cache *c, const char *name, int n, int k, nb_matrix *out)
{
    const entry *e = find(c, name, n, k);
    assert(e);
    nb_matrix *m = &c->matrices[e - c->entries];
    *out = *m;
    *m = (nb_matrix){ 0 };
}

nb_status nb_pack_cache_note(nb_pack_cache *c, const char *name, const nb_matrix *m, nb_error *err)
{
    assert(strlen(name) < NAME);
    NB_TRY(nb_grow(&c->loads, &c->load_capacity, c->load_count + 1, sizeof *c->loads, "what a pack cache holds", err));
    c->loads[c->load_count++] = (loaded){ name, m };
    c->missing = c->missing || !find(c, name, m->n, m->k);
    return NB_OK;
}

/* ---- writing ----------------------------------------------------------------------------------------------------------- */

/* Everything of the file but the numbers. */
typedef struct {
    header    head;
    nb_matrix_image *image; /* [load_count] */
    uint64_t *hash;  /* [load_count] */
    char     *meta;
} draft;

static uint64_t round_up(uint64_t v, uint64_t unit) { return (v + unit - 1) / unit * unit; }

static void fill_meta(const nb_pack_cache *c, draft *d)
{
    uint64_t small = c->load_count * sizeof(entry), large = round_up(HEAD + d->head.meta_bytes, HEAD);
    for (size_t i = 0; i < c->load_count; i++) {
        const nb_matrix_image *m = &d->image[i];
        entry e = { .kind = (int32_t)m->kind, .dtype = (int32_t)m->dtype, .n = m->n, .k = m->k, .group = m->group, .flags = m->flags,
                    .perm_at = m->perm ? small : 0, .bytes_at = large, .size = m->size, .hash = d->hash[i] };
        snprintf(e.name, sizeof e.name, "%s", c->loads[i].name);
        if (m->perm) {
            memcpy(d->meta + small, m->perm, 4 * (size_t)m->k);
            small += 4 * (uint64_t)m->k;
        }
        e.table_at = small;
        e.table_bytes = m->table_bytes;
        if (m->table_bytes) memcpy(d->meta + small, m->table, m->table_bytes);
        small += round_up(m->table_bytes, 4);
        large = round_up(large + m->size, HEAD);
        memcpy(d->meta + i * sizeof e, &e, sizeof e);
    }
    d->head.file_bytes = large;
}

static nb_status make_draft(const nb_pack_cache *c, draft *d, nb_error *err)
{
    size_t n = c->load_count;
    d->head = (header){ .form = FORM, .entries = (uint32_t)n, .meta_bytes = n * sizeof(entry), .identity = { c->identity[0], c->identity[1] } };
    memcpy(d->head.magic, magic, sizeof magic);
    snprintf(d->head.layout, sizeof d->head.layout, "%s", c->ops.layout);
    NB_TRY(nb_alloc(&d->image, n, sizeof *d->image, "a pack cache", err));
    NB_TRY(nb_alloc(&d->hash, n, sizeof *d->hash, "a pack cache", err));
    for (size_t i = 0; i < n; i++) {
        c->ops.describe(&d->image[i], c->loads[i].m);
        d->head.meta_bytes += (d->image[i].perm ? 4 * (uint64_t)d->image[i].k : 0) + round_up(d->image[i].table_bytes, 4);
    }
    NB_TRY(hash_all(d->hash, d->image, n, c->ops.pool, err));
    NB_TRY(nb_alloc(&d->meta, 1, (size_t)d->head.meta_bytes, "a pack cache", err));
    fill_meta(c, d);
    d->head.meta_hash = XXH3_64bits(d->meta, (size_t)d->head.meta_bytes);
    d->head.hash = hash_header(&d->head);
    return NB_OK;
}

static nb_status pad(int fd, uint64_t *at, const char *path, nb_error *err)
{
    static const char zeros[HEAD];
    uint64_t          to = round_up(*at, HEAD);
    nb_status         status = nb_write_all(fd, zeros, (size_t)(to - *at), path, err);
    *at = to;
    return status;
}

static nb_status write_parts(const nb_pack_cache *c, const draft *d, int fd, nb_error *err)
{
    uint64_t at = sizeof d->head;
    if (fallocate(fd, 0, 0, (off_t)d->head.file_bytes) != 0 && errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL)
        return nb_fail(err, NB_ERR_IO, "%s: no room for its %" PRIu64 " bytes: %s", c->path, d->head.file_bytes, strerror(errno));
    NB_TRY(nb_write_all(fd, &d->head, sizeof d->head, c->path, err));
    NB_TRY(pad(fd, &at, c->path, err));
    NB_TRY(nb_write_all(fd, d->meta, (size_t)d->head.meta_bytes, c->path, err));
    at += d->head.meta_bytes;
    for (size_t i = 0; i < c->load_count; i++) {
        NB_TRY(pad(fd, &at, c->path, err));
        NB_TRY(nb_write_all(fd, d->image[i].bytes, d->image[i].size, c->path, err));
        at += d->image[i].size;
    }
    return pad(fd, &at, c->path, err);
}

static nb_status write_file(const nb_pack_cache *c, nb_error *err)
{
    draft       d = { 0 };
    nb_new_file file;
    nb_status   status = make_draft(c, &d, err);
    if (status == NB_OK) status = nb_new_file_open(&file, c->path, err);
    if (status == NB_OK) status = nb_new_file_close(&file, write_parts(c, &d, file.fd, err), err);
    free(d.image);
    free(d.hash);
    free(d.meta);
    return status;
}

void nb_pack_cache_save(nb_pack_cache *c, nb_buf *notes)
{
    nb_error err = { 0 };
    if (!c->missing) return;
    if (write_file(c, &err) != NB_OK) nb_buf_printf(notes, "the pack cache is not written, and the next start packs again: %s\n", err.text);
}
