/* gguf.c - one pass over the header, front to back, through a small window; what it says is checked against the file as it is
 * read.  The rules beyond the format's own are llama.cpp's: no nested arrays, names of at most 63 bytes, tensors laid out in
 * the order of their list without holes. */
#include "runtime/io/gguf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/io/file.h"
#include "runtime/io/utf8.h"

enum { WINDOW = 1 << 16, MAX_KEY = 65535, MAX_NAME = 63, MAX_STRING = 16 << 20, MAX_PAIRS = 1 << 16 };

struct nb_gguf {
    char           *path;
    int             fd;
    uint64_t        size, data;
    uint32_t        alignment;
    nb_gguf_pair   *pairs;
    nb_gguf_tensor *tensors;
    const void    **by_key, **by_name; /* sorted */
    size_t          pair_count, count;
};

static const uint8_t value_bytes[NB_GGUF_VALUE_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

bool nb_gguf_layout(uint32_t type, uint32_t *elements, uint32_t *bytes, const char **name)
{
    static const struct {
        uint32_t    type, elements, bytes;
        const char *name;
    } types[] = {
        {0, 1, 4, "F32"},       {1, 1, 2, "F16"},       {2, 32, 18, "Q4_0"},    {3, 32, 20, "Q4_1"},    {6, 32, 22, "Q5_0"},
        {7, 32, 24, "Q5_1"},    {8, 32, 34, "Q8_0"},    {9, 32, 36, "Q8_1"},    {10, 256, 84, "Q2_K"},  {11, 256, 110, "Q3_K"},
        {12, 256, 144, "Q4_K"}, {13, 256, 176, "Q5_K"}, {14, 256, 210, "Q6_K"}, {15, 256, 292, "Q8_K"}, {24, 1, 1, "I8"},
        {25, 1, 2, "I16"},      {26, 1, 4, "I32"},      {27, 1, 8, "I64"},      {28, 1, 8, "F64"},      {30, 1, 2, "BF16"},
    };
    for (size_t i = 0; i < NB_COUNT(types); i++)
        if (types[i].type == type) {
            *elements = types[i].elements;
            *bytes = types[i].bytes;
            *name = types[i].name;
            return true;
        }
    return false;
}

/* ---- the header as a stream -------------------------------------------------------------------------------------------- */

typedef struct {
    nb_gguf       *file;
    uint64_t       at;    /* of the next byte */
    uint64_t       start; /* of the window in the file */
    size_t         held;
    unsigned char *window;
} cursor;

static nb_status cut_off(const cursor *c, nb_error *err)
{
    return nb_fail(err, NB_ERR_INPUT, "%s: ends inside its header at byte %llu: the file is cut off", c->file->path,
                   (unsigned long long)c->at);
}

static nb_status take(cursor *c, void *out, size_t n, nb_error *err)
{
    unsigned char *dst = out;
    if (n > c->file->size - c->at) return cut_off(c, err);
    while (n) {
        if (c->at < c->start || c->at >= c->start + c->held) {
            uint64_t left = c->file->size - c->at;
            c->start = c->at;
            c->held = 0;
            size_t want = left < WINDOW ? (size_t)left : WINDOW;
            NB_TRY(nb_read_at(c->file->fd, c->window, want, c->at, c->file->path, err));
            c->held = want;
        }
        size_t from = (size_t)(c->at - c->start), piece = c->held - from < n ? c->held - from : n;
        memcpy(dst, c->window + from, piece);
        dst += piece;
        c->at += piece;
        n -= piece;
    }
    return NB_OK;
}

static uint64_t little(const unsigned char *b, size_t n)
{
    uint64_t v = 0;
    while (n--) v = v << 8 | b[n];
    return v;
}

static nb_status take_u64(cursor *c, uint64_t *out, nb_error *err)
{
    unsigned char b[8];
    NB_TRY(take(c, b, sizeof b, err));
    *out = little(b, sizeof b);
    return NB_OK;
}

static nb_status take_u32(cursor *c, uint32_t *out, nb_error *err)
{
    unsigned char b[4];
    NB_TRY(take(c, b, sizeof b, err));
    *out = (uint32_t)little(b, sizeof b);
    return NB_OK;
}

static nb_status skip(cursor *c, uint64_t n, nb_error *err)
{
    if (n > c->file->size - c->at) return cut_off(c, err);
    c->at += n;
    return NB_OK;
}

/* A key or name: UTF-8 without control characters, malloc'd. */
static nb_status take_name(cursor *c, char **out, size_t limit, const char *what, nb_error *err)
{
    uint64_t n, at = c->at;
    NB_TRY(take_u64(c, &n, err));
    if (n == 0 || n > limit)
        return nb_fail(err, NB_ERR_INPUT, "%s: the %s at byte %llu has %llu bytes, expected 1 to %zu", c->file->path, what,
                       (unsigned long long)at, (unsigned long long)n, limit);
    NB_TRY(nb_alloc(out, (size_t)n + 1, 1, what, err));
    NB_TRY(take(c, *out, (size_t)n, err));
    bool plain = nb_utf8_valid(*out, (size_t)n);
    for (size_t i = 0; i < n; i++) plain = plain && (unsigned char)(*out)[i] >= 0x20 && (*out)[i] != 0x7f;
    if (!plain)
        return nb_fail(err, NB_ERR_INPUT, "%s: the %s at byte %llu is not plain UTF-8 text", c->file->path, what,
                       (unsigned long long)at);
    return NB_OK;
}

static nb_status skip_string(cursor *c, nb_error *err)
{
    uint64_t n;
    NB_TRY(take_u64(c, &n, err));
    return skip(c, n, err);
}

static nb_status read_pair(cursor *c, nb_gguf_pair *p, nb_error *err)
{
    uint32_t type;
    NB_TRY(take_name(c, &p->key, MAX_KEY, "key", err));
    NB_TRY(take_u32(c, &type, err));
    p->count = 1;
    if (type == NB_GGUF_ARRAY) {
        p->array = true;
        NB_TRY(take_u32(c, &type, err));
        NB_TRY(take_u64(c, &p->count, err));
        if (type == NB_GGUF_ARRAY)
            return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: '%.200s' is an array of arrays, which llama.cpp does not read either",
                           c->file->path, p->key);
    }
    if (type >= NB_GGUF_VALUE_TYPES)
        return nb_fail(err, NB_ERR_INPUT, "%s: '%.200s' has the value type %u; 0 to 12 are known", c->file->path, p->key, type);
    p->type = (nb_gguf_type)type;
    p->offset = c->at;
    uint64_t each = type == NB_GGUF_STRING ? 8 : value_bytes[type];
    if (p->count > (c->file->size - c->at) / each)
        return nb_fail(err, NB_ERR_INPUT, "%s: '%.200s' claims %llu items, more than the rest of the file holds", c->file->path,
                       p->key, (unsigned long long)p->count);
    if (type != NB_GGUF_STRING) return skip(c, p->count * each, err);
    for (uint64_t i = 0; i < p->count; i++) NB_TRY(skip_string(c, err));
    return NB_OK;
}

static nb_status read_tensor(cursor *c, nb_gguf_tensor *t, nb_error *err)
{
    uint32_t rank, block, block_bytes;
    NB_TRY(take_name(c, &t->name, MAX_NAME, "tensor name", err));
    NB_TRY(take_u32(c, &rank, err));
    if (rank == 0 || rank > NB_GGUF_RANK)
        return nb_fail(err, NB_ERR_INPUT, "%s: tensor '%s' has %u dimensions, expected 1 to %d", c->file->path, t->name, rank,
                       NB_GGUF_RANK);
    t->rank = (int)rank;
    t->count = 1;
    for (int i = 0; i < NB_GGUF_RANK; i++) {
        t->shape[i] = 1;
        if (i < t->rank) NB_TRY(take_u64(c, &t->shape[i], err));
        if (t->shape[i] == 0 || t->shape[i] > INT64_MAX || __builtin_mul_overflow(t->count, t->shape[i], &t->count))
            return nb_fail(err, NB_ERR_INPUT, "%s: tensor '%s': dimension %d is %llu, or the product of its shape overflows",
                           c->file->path, t->name, i, (unsigned long long)t->shape[i]);
    }
    NB_TRY(take_u32(c, &t->type, err));
    NB_TRY(take_u64(c, &t->offset, err));
    if (!nb_gguf_layout(t->type, &block, &block_bytes, &t->type_name))
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: tensor '%s' has the type %u, whose size is not known here", c->file->path,
                       t->name, t->type);
    if (t->shape[0] % block)
        return nb_fail(err, NB_ERR_INPUT, "%s: tensor '%s': rows of %llu are no whole blocks of %u, as %s needs", c->file->path,
                       t->name, (unsigned long long)t->shape[0], block, t->type_name);
    if (__builtin_mul_overflow(t->count / block, (uint64_t)block_bytes, &t->bytes))
        return nb_fail(err, NB_ERR_INPUT, "%s: tensor '%s': its size overflows", c->file->path, t->name);
    return NB_OK;
}

/* ---- the parts together ------------------------------------------------------------------------------------------------ */

static int compare_pairs(const void *a, const void *b)
{
    return strcmp((*(const nb_gguf_pair *const *)a)->key, (*(const nb_gguf_pair *const *)b)->key);
}

static int compare_tensors(const void *a, const void *b)
{
    return strcmp((*(const nb_gguf_tensor *const *)a)->name, (*(const nb_gguf_tensor *const *)b)->name);
}

static nb_status sort_names(nb_gguf *f, nb_error *err)
{
    NB_TRY(nb_alloc(&f->by_key, f->pair_count, sizeof *f->by_key, "the keys of a GGUF file", err));
    NB_TRY(nb_alloc(&f->by_name, f->count, sizeof *f->by_name, "the names of a GGUF file", err));
    for (size_t i = 0; i < f->pair_count; i++) f->by_key[i] = &f->pairs[i];
    for (size_t i = 0; i < f->count; i++) f->by_name[i] = &f->tensors[i];
    if (f->pair_count) qsort(f->by_key, f->pair_count, sizeof *f->by_key, compare_pairs);
    if (f->count) qsort(f->by_name, f->count, sizeof *f->by_name, compare_tensors);
    for (size_t i = 1; i < f->pair_count; i++)
        if (compare_pairs(&f->by_key[i - 1], &f->by_key[i]) == 0)
            return nb_fail(err, NB_ERR_INPUT, "%s: duplicate key '%.200s'", f->path, ((const nb_gguf_pair *)f->by_key[i])->key);
    for (size_t i = 1; i < f->count; i++)
        if (compare_tensors(&f->by_name[i - 1], &f->by_name[i]) == 0)
            return nb_fail(err, NB_ERR_INPUT, "%s: duplicate tensor '%s'", f->path,
                           ((const nb_gguf_tensor *)f->by_name[i])->name);
    return NB_OK;
}

/* Tensors one behind the other, each padded; the last one's padding may be missing. */
static nb_status check_layout(nb_gguf *f, uint64_t header_end, nb_error *err)
{
    int64_t alignment = 32;
    if (nb_gguf_find(f, "general.alignment")) NB_TRY(nb_gguf_int(f, "general.alignment", 1, 1 << 20, &alignment, err));
    if (alignment & (alignment - 1))
        return nb_fail(err, NB_ERR_INPUT, "%s: general.alignment %lld is not a power of two", f->path, (long long)alignment);
    f->alignment = (uint32_t)alignment;
    uint64_t mask = (uint64_t)alignment - 1, next = 0;
    f->data = (header_end + mask) & ~mask;
    if (f->count && f->data > f->size)
        return nb_fail(err, NB_ERR_INPUT, "%s: ends before its data: the file is cut off", f->path);
    for (size_t i = 0; i < f->count; i++) {
        nb_gguf_tensor *t = &f->tensors[i];
        if (t->offset != next)
            return nb_fail(err, NB_ERR_INPUT,
                           "%s: tensor '%s' begins at byte %llu of the data, expected %llu (tensors lie in "
                           "the order of their list)",
                           f->path, t->name, (unsigned long long)t->offset, (unsigned long long)next);
        if (t->offset > f->size - f->data || t->bytes > f->size - f->data - t->offset)
            return nb_fail(err, NB_ERR_INPUT,
                           "%s: tensor '%s' needs %llu bytes from byte %llu of the data, which has %llu: the "
                           "file is cut off",
                           f->path, t->name, (unsigned long long)t->bytes, (unsigned long long)t->offset,
                           (unsigned long long)(f->size - f->data));
        next = (t->offset + t->bytes + mask) & ~mask;
        t->offset += f->data;
    }
    return NB_OK;
}

static nb_status read_header(cursor *c, nb_error *err)
{
    nb_gguf      *f = c->file;
    unsigned char magic[4];
    uint32_t      version;
    uint64_t      tensors, pairs;
    NB_TRY(take(c, magic, sizeof magic, err));
    if (memcmp(magic, "GGUF", 4)) return nb_fail(err, NB_ERR_INPUT, "%s: does not begin with GGUF: not a GGUF file", f->path);
    NB_TRY(take_u32(c, &version, err));
    if (version != 2 && version != 3)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: GGUF version %u%s; 2 and 3 are read", f->path, version,
                       version && (version & 0xffff) == 0 ? " (big endian)" : "");
    NB_TRY(take_u64(c, &tensors, err));
    NB_TRY(take_u64(c, &pairs, err));
    if (pairs > MAX_PAIRS || pairs > (f->size - c->at) / 13 || tensors > (f->size - c->at) / 33) /* the smallest of each */
        return nb_fail(err, NB_ERR_INPUT, "%s: claims %llu tensors and %llu pairs, more than the file can hold", f->path,
                       (unsigned long long)tensors, (unsigned long long)pairs);
    NB_TRY(nb_alloc(&f->pairs, (size_t)pairs, sizeof *f->pairs, "the pairs of a GGUF file", err));
    for (uint64_t i = 0; i < pairs; i++) NB_TRY(read_pair(c, &f->pairs[f->pair_count++], err));
    NB_TRY(nb_alloc(&f->tensors, (size_t)tensors, sizeof *f->tensors, "the tensors of a GGUF file", err));
    for (uint64_t i = 0; i < tensors; i++) NB_TRY(read_tensor(c, &f->tensors[f->count++], err));
    NB_TRY(sort_names(f, err));
    return check_layout(f, c->at, err);
}

/* ---- public ------------------------------------------------------------------------------------------------------------ */

nb_status nb_gguf_open(nb_gguf **out, const char *path, nb_error *err)
{
    *out = NULL;
    nb_gguf *f;
    cursor   c = {0};
    NB_TRY(nb_alloc(&f, 1, sizeof *f, "a GGUF file", err));
    f->fd = -1;
    f->path = nb_strdup(path);
    c.file = f;
    nb_status status =
        f->path ? nb_open_regular(&f->fd, &f->size, path, err) : nb_fail(err, NB_ERR_MEMORY, "%s: no memory to open it", path);
    if (status == NB_OK) status = nb_alloc(&c.window, WINDOW, 1, "a piece of a GGUF file", err);
    if (status == NB_OK) status = read_header(&c, err);
    free(c.window);
    if (status != NB_OK) {
        nb_gguf_close(f);
        return status;
    }
    *out = f;
    return NB_OK;
}

void nb_gguf_close(nb_gguf *f)
{
    if (!f) return;
    if (f->fd >= 0) close(f->fd);
    for (size_t i = 0; i < f->pair_count; i++) free(f->pairs[i].key);
    for (size_t i = 0; i < f->count; i++) free(f->tensors[i].name);
    free(f->pairs);
    free(f->tensors);
    free(f->by_key);
    free(f->by_name);
    free(f->path);
    free(f);
}

uint32_t nb_gguf_alignment(const nb_gguf *f)
{
    return f->alignment;
}

size_t nb_gguf_pairs(const nb_gguf *f)
{
    return f->pair_count;
}

const nb_gguf_pair *nb_gguf_pair_at(const nb_gguf *f, size_t i)
{
    return i < f->pair_count ? &f->pairs[i] : NULL;
}

const nb_gguf_pair *nb_gguf_find(const nb_gguf *f, const char *key)
{
    const nb_gguf_pair *wanted = &(nb_gguf_pair){.key = (char *)key};
    const void **found = f->pair_count ? bsearch(&wanted, f->by_key, f->pair_count, sizeof *f->by_key, compare_pairs) : NULL;
    return found ? *found : NULL;
}

size_t nb_gguf_count(const nb_gguf *f)
{
    return f->count;
}

const nb_gguf_tensor *nb_gguf_at(const nb_gguf *f, size_t i)
{
    return i < f->count ? &f->tensors[i] : NULL;
}

const nb_gguf_tensor *nb_gguf_tensor_find(const nb_gguf *f, const char *name)
{
    const nb_gguf_tensor *wanted = &(nb_gguf_tensor){.name = (char *)name};
    const void          **found = f->count ? bsearch(&wanted, f->by_name, f->count, sizeof *f->by_name, compare_tensors) : NULL;
    return found ? *found : NULL;
}

nb_status nb_gguf_read(const nb_gguf *f, const nb_gguf_tensor *t, void *dst, uint64_t first, uint64_t n, nb_error *err)
{
    if (first > t->bytes || n > t->bytes - first || n > SIZE_MAX)
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: tensor '%s' has %llu bytes, asked for %llu from byte %llu", f->path, t->name,
                       (unsigned long long)t->bytes, (unsigned long long)n, (unsigned long long)first);
    return nb_read_at(f->fd, dst, (size_t)n, t->offset + first, f->path, err);
}

static nb_status find_value(const nb_gguf_pair **out, const nb_gguf *f, const char *key, bool array, nb_error *err)
{
    *out = nb_gguf_find(f, key);
    if (!*out) return nb_fail(err, NB_ERR_INPUT, "%s: '%s' is missing", f->path, key);
    if ((*out)->array != array)
        return nb_fail(err, NB_ERR_INPUT, "%s: '%s' %s an array", f->path, key, array ? "is not" : "is");
    return NB_OK;
}

/* Item i of a pair of an integer type.  Unsigned values beyond INT64_MAX are refused. */
static nb_status read_int(const nb_gguf *f, const nb_gguf_pair *p, uint64_t i, int64_t *out, nb_error *err)
{
    unsigned char b[8];
    size_t        n = value_bytes[p->type];
    if (p->type == NB_GGUF_F32 || p->type == NB_GGUF_F64 || p->type == NB_GGUF_STRING)
        return nb_fail(err, NB_ERR_INPUT, "%s: '%s' is not a whole number", f->path, p->key);
    NB_TRY(nb_read_at(f->fd, b, n, p->offset + i * n, f->path, err));
    uint64_t v = little(b, n);
    bool     is_signed = p->type == NB_GGUF_I8 || p->type == NB_GGUF_I16 || p->type == NB_GGUF_I32;
    if (is_signed && v >> (8 * n - 1)) v |= ~0ull << (8 * n); /* n <= 4 */
    if (p->type == NB_GGUF_U64 && v > INT64_MAX) return nb_fail(err, NB_ERR_INPUT, "%s: '%s' is too large", f->path, p->key);
    *out = (int64_t)v;
    return NB_OK;
}

nb_status nb_gguf_int(const nb_gguf *f, const char *key, int64_t min, int64_t max, int64_t *out, nb_error *err)
{
    const nb_gguf_pair *p;
    int64_t             v;
    NB_TRY(find_value(&p, f, key, false, err));
    NB_TRY(read_int(f, p, 0, &v, err));
    if (v < min || v > max)
        return nb_fail(err, NB_ERR_INPUT, "%s: '%s' is %lld, expected %lld to %lld", f->path, key, (long long)v, (long long)min,
                       (long long)max);
    *out = v;
    return NB_OK;
}

nb_status nb_gguf_ints(const nb_gguf *f, const char *key, size_t n, int64_t *out, nb_error *err)
{
    const nb_gguf_pair *p;
    NB_TRY(find_value(&p, f, key, true, err));
    if (p->count != n)
        return nb_fail(err, NB_ERR_INPUT, "%s: '%s' has %llu items, expected %zu", f->path, key, (unsigned long long)p->count,
                       n);
    for (size_t i = 0; i < n; i++) NB_TRY(read_int(f, p, i, &out[i], err));
    return NB_OK;
}

nb_status nb_gguf_number(const nb_gguf *f, const char *key, double *out, nb_error *err)
{
    const nb_gguf_pair *p;
    unsigned char       b[8];
    NB_TRY(find_value(&p, f, key, false, err));
    if (p->type != NB_GGUF_F32 && p->type != NB_GGUF_F64)
        return nb_fail(err, NB_ERR_INPUT, "%s: '%s' is not a floating-point number", f->path, key);
    NB_TRY(nb_read_at(f->fd, b, value_bytes[p->type], p->offset, f->path, err));
    uint64_t bits = little(b, value_bytes[p->type]);
    uint32_t low = (uint32_t)bits;
    float    single;
    memcpy(&single, &low, sizeof single);
    memcpy(out, &bits, sizeof *out);
    if (p->type == NB_GGUF_F32) *out = single;
    if (!isfinite(*out)) return nb_fail(err, NB_ERR_INPUT, "%s: '%s' is not finite", f->path, key);
    return NB_OK;
}

nb_status nb_gguf_string(const nb_gguf *f, const char *key, nb_buf *out, nb_error *err)
{
    const nb_gguf_pair *p;
    unsigned char       b[8];
    char               *text;
    nb_buf_clear(out);
    NB_TRY(find_value(&p, f, key, false, err));
    if (p->type != NB_GGUF_STRING) return nb_fail(err, NB_ERR_INPUT, "%s: '%s' is not a string", f->path, key);
    NB_TRY(nb_read_at(f->fd, b, sizeof b, p->offset, f->path, err));
    uint64_t n = little(b, sizeof b);
    if (n > MAX_STRING)
        return nb_fail(err, NB_ERR_INPUT, "%s: '%s' has %llu bytes, at most %d are read", f->path, key, (unsigned long long)n,
                       MAX_STRING);
    NB_TRY(nb_alloc(&text, (size_t)n + 1, 1, key, err));
    nb_status status = nb_read_at(f->fd, text, (size_t)n, p->offset + 8, f->path, err);
    if (status == NB_OK) {
        nb_buf_add(out, text, (size_t)n);
        nb_buf_str(out, "");
        status = nb_buf_status(out, key, err);
    }
    free(text);
    return status;
}
