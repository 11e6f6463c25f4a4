/* safetensors.c - a strict reader: the header is judged whole before any of its numbers is used.
 *
 * The header is read token by token and not through cJSON, whose numbers are doubles and whose tree is ten times the
 * text.  What makes the rest safe is one fact, checked here: sorted by offset, the tensors cover the data exactly, with
 * no hole, no overlap and no byte left, so that every tensor's bytes are inside the file and no two claim the same. */
#include "runtime/io/safetensors.h"

#include <stdio.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/io/file.h"
#include "runtime/io/json_scan.h"

enum { MAX_HEADER = 100000000, MAX_NAME = 4096 };

typedef struct {
    char *key, *value;
} pair;

struct nb_safetensors {
    int         fd;
    char       *path;
    nb_tensor  *tensors; /* by offset in the file */
    size_t      count, capacity;
    nb_tensor **by_name;
    pair       *metadata;
    size_t      pairs, pairs_capacity;
    uint64_t    data, size; /* where the data begins; bytes of the file */
};

/* What each dtype takes in bits; a size that is not whole bytes in total is an error. */
static const struct {
    const char *name;
    nb_dtype    type;
    unsigned    bits;
} dtypes[] = {
    {"F32", NB_F32, 32}, {"BF16", NB_BF16, 16}, {"F16", NB_F16, 16}, {"F64", NB_F64, 64}, {"I8", NB_I8, 8},
    {"U8", NB_U8, 8}, {"I16", NB_I16, 16}, {"U16", NB_U16, 16}, {"I32", NB_I32, 32}, {"U32", NB_U32, 32},
    {"I64", NB_I64, 64}, {"U64", NB_U64, 64}, {"BOOL", NB_BOOL, 8}, {"F8_E4M3", NB_F8_E4M3, 8}, {"F8_E5M2", NB_F8_E5M2, 8},
    {"F8_E8M0", NB_DTYPE_OTHER, 8}, {"F8_E4M3FNUZ", NB_DTYPE_OTHER, 8}, {"F8_E5M2FNUZ", NB_DTYPE_OTHER, 8},
    {"C64", NB_DTYPE_OTHER, 64}, {"F6_E2M3", NB_DTYPE_OTHER, 6}, {"F6_E3M2", NB_DTYPE_OTHER, 6}, {"F4", NB_DTYPE_OTHER, 4},
};

/* ---- reading the header ---------------------------------------------------------------------------------------------- */

typedef struct {
    nb_safetensors *file;
    nb_json_scan    scan;
    nb_buf          name, word; /* of the current entry; of its current member */
    unsigned        bits;       /* of the current tensor's dtype */
    bool            metadata;   /* __metadata__ was seen */
} reader;

/* The next token, which must be of this kind. */
static nb_status expect(reader *r, nb_token token, const char *wanted, nb_error *err)
{
    NB_TRY(nb_json_scan_next(&r->scan, err));
    if (r->scan.token == token) return NB_OK;
    return nb_json_scan_fail(&r->scan, r->scan.start, err, "'%.200s': expected %s", r->name.data, wanted);
}

static nb_status take_string(reader *r, nb_buf *out, nb_error *err)
{
    nb_buf_clear(out);
    nb_json_scan_string(&r->scan, out);
    return nb_buf_status(out, "a safetensors header", err);
}

/* A whole number without sign, fraction or exponent. */
static nb_status take_u64(reader *r, uint64_t *out, nb_error *err)
{
    const nb_json_scan *s = &r->scan;
    uint64_t            v = 0;
    bool                whole = s->token == NB_TOKEN_NUMBER;
    for (size_t i = 0; whole && i < s->length; i++) {
        unsigned digit = (unsigned)(s->text[s->start + i] - '0');
        whole          = digit <= 9;
        if (whole && (__builtin_mul_overflow(v, (uint64_t)10, &v) || __builtin_add_overflow(v, (uint64_t)digit, &v)))
            return nb_json_scan_fail(s, s->start, err, "'%.200s': the number does not fit 64 bits", r->name.data);
    }
    if (!whole)
        return nb_json_scan_fail(s, s->start, err, "'%.200s': expected a whole number that is not negative",
                                 r->name.data);
    *out = v;
    return NB_OK;
}

static nb_status read_dtype(reader *r, nb_tensor *t, nb_error *err)
{
    NB_TRY(expect(r, NB_TOKEN_STRING, "dtype to be a string", err));
    NB_TRY(take_string(r, &r->word, err));
    for (size_t i = 0; i < NB_COUNT(dtypes); i++) {
        if (strcmp(r->word.data, dtypes[i].name) != 0) continue;
        t->dtype = dtypes[i].type;
        r->bits  = dtypes[i].bits;
        snprintf(t->dtype_name, sizeof t->dtype_name, "%s", dtypes[i].name);
        return NB_OK;
    }
    return nb_json_scan_fail(&r->scan, r->scan.start, err, "'%.200s': unknown dtype '%.40s'", r->name.data, r->word.data);
}

static nb_status read_shape(reader *r, nb_tensor *t, nb_error *err)
{
    NB_TRY(expect(r, NB_TOKEN_ARRAY, "shape to be an array", err));
    for (;;) {
        NB_TRY(nb_json_scan_next(&r->scan, err));
        if (r->scan.token == NB_TOKEN_ARRAY_END) return NB_OK;
        uint64_t dim;
        NB_TRY(take_u64(r, &dim, err));
        if (t->rank == NB_MAX_RANK)
            return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: tensor '%.200s' has more than %d dimensions", r->file->path,
                           r->name.data, NB_MAX_RANK);
        t->shape[t->rank++] = dim;
    }
}

static nb_status read_offsets(reader *r, uint64_t range[2], nb_error *err)
{
    NB_TRY(expect(r, NB_TOKEN_ARRAY, "data_offsets to be an array", err));
    for (int i = 0; i < 2; i++) {
        NB_TRY(expect(r, NB_TOKEN_NUMBER, "data_offsets to hold two whole numbers", err));
        NB_TRY(take_u64(r, &range[i], err));
    }
    return expect(r, NB_TOKEN_ARRAY_END, "data_offsets to hold two whole numbers", err);
}

/* count and bytes from shape and dtype.  A dimension of 0 counts as 1 in the overflow check, so that no product of some
 * of the dimensions can overflow later, in whatever order it is taken. */
static nb_status check_size(reader *r, nb_tensor *t, const uint64_t range[2], nb_error *err)
{
    const char *path = r->file->path, *name = r->name.data;
    uint64_t    bits = r->bits;
    bool        zero = false;
    for (int i = 0; i < t->rank; i++) {
        zero |= t->shape[i] == 0;
        if (__builtin_mul_overflow(bits, t->shape[i] ? t->shape[i] : 1, &bits))
            return nb_fail(err, NB_ERR_INPUT, "%s: tensor '%.200s': the product of its shape overflows", path, name);
    }
    if (zero) bits = 0;
    t->count = bits / r->bits;
    if (bits % 8 != 0)
        return nb_fail(err, NB_ERR_INPUT, "%s: tensor '%.200s': %llu elements of %s do not fill whole bytes", path, name,
                       (unsigned long long)t->count, t->dtype_name);
    if (range[1] < range[0])
        return nb_fail(err, NB_ERR_INPUT, "%s: tensor '%.200s': data_offsets [%llu, %llu] are reversed", path, name,
                       (unsigned long long)range[0], (unsigned long long)range[1]);
    t->bytes = range[1] - range[0];
    if (t->bytes != bits / 8)
        return nb_fail(err, NB_ERR_INPUT,
                       "%s: tensor '%.200s': data_offsets hold %llu bytes, but %s and its shape need %llu", path, name,
                       (unsigned long long)t->bytes, t->dtype_name, (unsigned long long)(bits / 8));
    if (range[1] > r->file->size - r->file->data)
        return nb_fail(err, NB_ERR_INPUT,
                       "%s: tensor '%.200s' ends at byte %llu of the data, which has only %llu: the file is cut off",
                       path, name, (unsigned long long)range[1], (unsigned long long)(r->file->size - r->file->data));
    t->offset = r->file->data + range[0];
    return NB_OK;
}

static nb_status check_name(reader *r, nb_error *err)
{
    const char *name = r->name.data;
    size_t      n    = r->name.size;
    if (n == 0) return nb_json_scan_fail(&r->scan, r->scan.start, err, "a tensor has an empty name");
    if (n > MAX_NAME)
        return nb_json_scan_fail(&r->scan, r->scan.start, err, "a tensor's name has %zu bytes, more than %d", n,
                                 MAX_NAME);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)name[i];
        if (c < 0x20 || c == 0x7F || (c == 0xC2 && (unsigned char)name[i + 1] < 0xA0))
            return nb_json_scan_fail(&r->scan, r->scan.start, err, "the tensor name '%.200s' holds a control character",
                                     name);
    }
    return NB_OK;
}

/* {"dtype": ..., "shape": [...], "data_offsets": [begin, end]} in any order. */
static nb_status read_tensor(reader *r, nb_error *err)
{
    nb_safetensors *f = r->file;
    NB_TRY(check_name(r, err));
    NB_TRY(nb_grow(&f->tensors, &f->capacity, f->count + 1, sizeof *f->tensors, "the tensors of a file", err));
    nb_tensor t = {0};
    uint64_t  range[2];
    unsigned  seen = 0;
    NB_TRY(expect(r, NB_TOKEN_OBJECT, "an object with dtype, shape and data_offsets", err));
    for (;;) {
        NB_TRY(nb_json_scan_next(&r->scan, err));
        if (r->scan.token == NB_TOKEN_OBJECT_END) break;
        NB_TRY(take_string(r, &r->word, err));
        const char *key  = r->word.data;
        unsigned    flag = !strcmp(key, "dtype") ? 1 : !strcmp(key, "shape") ? 2 : !strcmp(key, "data_offsets") ? 4 : 0;
        if (flag == 0 || seen & flag)
            return nb_json_scan_fail(&r->scan, r->scan.start, err, "'%.200s': %s member '%.40s'", r->name.data,
                                     flag ? "duplicate" : "unknown", key);
        seen |= flag;
        NB_TRY(flag == 1 ? read_dtype(r, &t, err) : flag == 2 ? read_shape(r, &t, err) : read_offsets(r, range, err));
    }
    if (seen != 7)
        return nb_json_scan_fail(&r->scan, r->scan.start, err, "'%.200s': %s is missing", r->name.data,
                                 !(seen & 1) ? "dtype" : !(seen & 2) ? "shape" : "data_offsets");
    NB_TRY(check_size(r, &t, range, err));
    t.name = nb_strdup(r->name.data);
    if (!t.name) return nb_fail(err, NB_ERR_MEMORY, "%s: no memory for the names of its tensors", f->path);
    f->tensors[f->count++] = t;
    return NB_OK;
}

static nb_status read_metadata(reader *r, nb_error *err)
{
    nb_safetensors *f = r->file;
    if (r->metadata) return nb_json_scan_fail(&r->scan, r->scan.start, err, "duplicate key '__metadata__'");
    r->metadata = true;
    NB_TRY(expect(r, NB_TOKEN_OBJECT, "an object of strings", err));
    for (;;) {
        NB_TRY(nb_json_scan_next(&r->scan, err));
        if (r->scan.token == NB_TOKEN_OBJECT_END) return NB_OK;
        NB_TRY(nb_grow(&f->metadata, &f->pairs_capacity, f->pairs + 1, sizeof *f->metadata, "the metadata of a file",
                       err));
        NB_TRY(take_string(r, &r->word, err));
        pair *p = &f->metadata[f->pairs];
        *p      = (pair){.key = nb_strdup(r->word.data)};
        f->pairs++;
        NB_TRY(expect(r, NB_TOKEN_STRING, "all values to be strings", err));
        NB_TRY(take_string(r, &r->word, err));
        p->value = nb_strdup(r->word.data);
        if (!p->key || !p->value) return nb_fail(err, NB_ERR_MEMORY, "%s: no memory for its metadata", f->path);
    }
}

static nb_status read_entries(reader *r, nb_error *err)
{
    NB_TRY(nb_json_scan_next(&r->scan, err)); /* the first byte is known to be '{' */
    for (;;) {
        NB_TRY(nb_json_scan_next(&r->scan, err));
        if (r->scan.token == NB_TOKEN_OBJECT_END) break;
        NB_TRY(take_string(r, &r->name, err));
        NB_TRY(strcmp(r->name.data, "__metadata__") ? read_tensor(r, err) : read_metadata(r, err));
    }
    return nb_json_scan_next(&r->scan, err); /* the end, or an error about what follows */
}

static nb_status read_header(nb_safetensors *f, nb_error *err)
{
    unsigned char le[8];
    uint64_t      n = 0;
    if (f->size < sizeof le)
        return nb_fail(err, NB_ERR_INPUT, "%s: has %llu bytes, too few for a safetensors file", f->path,
                       (unsigned long long)f->size);
    NB_TRY(nb_read_at(f->fd, le, sizeof le, 0, f->path, err));
    for (int i = 7; i >= 0; i--) n = n << 8 | le[i];
    if (n > MAX_HEADER)
        return nb_fail(err, NB_ERR_INPUT,
                       "%s: claims a header of %llu bytes, more than the %d allowed: not a safetensors file", f->path,
                       (unsigned long long)n, MAX_HEADER);
    if (n > f->size - sizeof le)
        return nb_fail(err, NB_ERR_INPUT, "%s: claims a header of %llu bytes, but has only %llu: the file is cut off",
                       f->path, (unsigned long long)n, (unsigned long long)f->size);
    if (n == 0) return nb_fail(err, NB_ERR_INPUT, "%s: has an empty header: not a safetensors file", f->path);
    f->data    = sizeof le + n;
    char *text = malloc((size_t)n);
    if (!text)
        return nb_fail(err, NB_ERR_MEMORY, "%s: no memory for its header of %llu bytes", f->path,
                       (unsigned long long)n);
    nb_buf label = {0}; /* what messages about the text call it */
    nb_buf_printf(&label, "%s: header", f->path);
    nb_status status = nb_buf_status(&label, "a file name", err);
    if (status == NB_OK) status = nb_read_at(f->fd, text, (size_t)n, sizeof le, f->path, err);
    if (status == NB_OK && text[0] != '{')
        status = nb_fail(err, NB_ERR_INPUT, "%s: its header does not begin with '{': not a safetensors file", f->path);
    if (status == NB_OK) {
        reader r = {.file = f};
        nb_json_scan_begin(&r.scan, text, (size_t)n, label.data);
        status = read_entries(&r, err);
        nb_buf_free(&r.name);
        nb_buf_free(&r.word);
    }
    nb_buf_free(&label);
    free(text);
    return status;
}

/* ---- the tensors together -------------------------------------------------------------------------------------------- */

static int compare_offsets(const void *a, const void *b)
{
    const nb_tensor *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1; /* empty tensors stand before the one they touch */
    return strcmp(x->name, y->name);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(nb_tensor *const *)a)->name, (*(nb_tensor *const *)b)->name);
}

static int compare_pairs(const void *a, const void *b)
{
    return strcmp(((const pair *)a)->key, ((const pair *)b)->key);
}

/* Every name once, every byte once. */
static nb_status check_layout(nb_safetensors *f, nb_error *err)
{
    if (f->pairs) qsort(f->metadata, f->pairs, sizeof *f->metadata, compare_pairs);
    for (size_t i = 1; i < f->pairs; i++)
        if (!strcmp(f->metadata[i - 1].key, f->metadata[i].key))
            return nb_fail(err, NB_ERR_INPUT, "%s: duplicate key '%.200s' in __metadata__", f->path, f->metadata[i].key);

    NB_TRY(nb_alloc(&f->by_name, f->count, sizeof *f->by_name, "the names of a file's tensors", err));
    if (f->count) qsort(f->tensors, f->count, sizeof *f->tensors, compare_offsets);
    for (size_t i = 0; i < f->count; i++) f->by_name[i] = &f->tensors[i];
    if (f->count) qsort(f->by_name, f->count, sizeof *f->by_name, compare_names);
    for (size_t i = 1; i < f->count; i++)
        if (!strcmp(f->by_name[i - 1]->name, f->by_name[i]->name))
            return nb_fail(err, NB_ERR_INPUT, "%s: duplicate tensor '%.200s'", f->path, f->by_name[i]->name);

    uint64_t end = f->data;
    for (size_t i = 0; i < f->count; i++) {
        const nb_tensor *t = &f->tensors[i];
        if (t->offset != end)
            return nb_fail(
                err, NB_ERR_INPUT,
                "%s: tensor '%.200s' begins at byte %llu of the data, %s byte %llu where the one before it ends",
                f->path, t->name, (unsigned long long)(t->offset - f->data),
                t->offset < end ? "overlapping, before" : "leaving a hole after", (unsigned long long)(end - f->data));
        end += t->bytes; /* at most the file's size: check_size compared each tensor's end with it */
    }
    if (end != f->size)
        return nb_fail(err, NB_ERR_INPUT, "%s: has %llu bytes that belong to no tensor, from byte %llu to its end",
                       f->path, (unsigned long long)(f->size - end), (unsigned long long)end);
    return NB_OK;
}

/* ---- public ---------------------------------------------------------------------------------------------------------- */

nb_status nb_safetensors_open(nb_safetensors **out, const char *path, nb_error *err)
{
    *out = NULL;
    nb_safetensors *f;
    NB_TRY(nb_alloc(&f, 1, sizeof *f, "a safetensors file", err));
    f->fd            = -1;
    f->path          = nb_strdup(path);
    nb_status status = f->path ? nb_open_regular(&f->fd, &f->size, path, err)
                               : nb_fail(err, NB_ERR_MEMORY, "%s: no memory to open it", path);
    if (status == NB_OK) status = read_header(f, err);
    if (status == NB_OK) status = check_layout(f, err);
    if (status != NB_OK) {
        nb_safetensors_close(f);
        return status;
    }
    *out = f;
    return NB_OK;
}

void nb_safetensors_close(nb_safetensors *f)
{
    if (!f) return;
    if (f->fd >= 0) close(f->fd);
    for (size_t i = 0; i < f->count; i++) free(f->tensors[i].name);
    for (size_t i = 0; i < f->pairs; i++) {
        free(f->metadata[i].key);
        free(f->metadata[i].value);
    }
    free(f->tensors);
    free(f->by_name);
    free(f->metadata);
    free(f->path);
    free(f);
}

const char *nb_safetensors_path(const nb_safetensors *f)
{
    return f->path;
}

size_t nb_safetensors_count(const nb_safetensors *f)
{
    return f->count;
}

const nb_tensor *nb_safetensors_at(const nb_safetensors *f, size_t i)
{
    return i < f->count ? &f->tensors[i] : NULL;
}

const nb_tensor *nb_safetensors_find(const nb_safetensors *f, const char *name)
{
    const nb_tensor *key = &(nb_tensor){.name = (char *)name};
    if (f->count == 0) return NULL;
    nb_tensor **found = bsearch(&key, f->by_name, f->count, sizeof *f->by_name, compare_names);
    return found ? *found : NULL;
}

const char *nb_safetensors_metadata(const nb_safetensors *f, const char *key)
{
    pair  wanted = {.key = (char *)key};
    pair *found  = f->pairs ? bsearch(&wanted, f->metadata, f->pairs, sizeof *f->metadata, compare_pairs) : NULL;
    return found ? found->value : NULL;
}

nb_status nb_safetensors_read(const nb_safetensors *f, const nb_tensor *t, void *dst, uint64_t first, uint64_t n,
                              nb_error *err)
{
    if (first > t->bytes || n > t->bytes - first || n > SIZE_MAX)
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: tensor '%.200s' has %llu bytes, asked for %llu from byte %llu",
                       f->path, t->name, (unsigned long long)t->bytes, (unsigned long long)n,
                       (unsigned long long)first);
    nb_status status = nb_read_at(f->fd, dst, (size_t)n, t->offset + first, f->path, err);
    if (status == NB_ERR_INPUT) nb_error_within(err, "tensor '%.200s'", t->name);
    return status;
}

void nb_safetensors_read_ahead(const nb_safetensors *f, const nb_tensor *t)
{
    posix_fadvise(f->fd, (off_t)t->offset, (off_t)t->bytes, POSIX_FADV_WILLNEED); /* advice: what it does not do, reading does */
}
