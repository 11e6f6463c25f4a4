/* adapter.c - checking an adapter against its base, and computing the rows of merged tensors.
 *
 * The parts of one target (A, B, magnitude, a whole tensor) are brought together by sorting, then become one or two changes at
 * the end of the target's chain.  Sums are made in double, so that neither their order nor the number of rows that are asked
 * for at a time can show in the result. */
#include "runtime/io/adapter.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/adapter_config.h"
#include "runtime/io/adapter_names.h"
#include "runtime/io/file.h"

typedef struct change change;

/* Either low rank (left, right) or whole (source). */
struct change {
    change   *next;      /* on the same target, applied after this one */
    int       rank;
    double    scale;     /* of left * right; or how far to go from W to the whole tensor */
    float    *left;      /* [rows, rank] */
    float    *right;     /* [rank, row] */
    float    *magnitude; /* [rows], DoRA; or NULL */
    nb_entry  source;    /* the adapter's own tensor, read when it is needed */
};

struct nb_adapters {
    nb_checkpoint   *base;
    bool             tied;
    change         **chains; /* [chain_count] one a tensor of the base */
    size_t           chain_count;
    nb_safetensors **files;
    size_t           file_count, file_capacity;
};

/* One tensor of an adapter. */
typedef struct {
    nb_adapter_name  name;
    const nb_tensor *tensor;
} piece;

/* An adapter being added. */
typedef struct {
    nb_adapters          *all;
    const char           *directory;
    double                factor;
    nb_adapter_config     config;
    const nb_safetensors *file;
    piece                *pieces;
    size_t                count;
    size_t                low, whole, idle; /* changes made; of the low-rank ones, those whose B is zero */
    int                   least, most;      /* ranks */
    nb_buf               *notes;
} adding;

nb_status nb_adapters_new(nb_adapters **out, nb_checkpoint *base, bool tied, nb_error *err)
{
    NB_TRY(nb_alloc(out, 1, sizeof **out, "adapters", err));
    (*out)->base = base;
    (*out)->tied = tied;
    (*out)->chain_count = nb_checkpoint_count(base);
    nb_status status = nb_alloc(&(*out)->chains, (*out)->chain_count, sizeof *(*out)->chains, "adapters", err);
    if (status) {
        free(*out);
        *out = NULL;
    }
    return status;
}

static void free_change(change *c)
{
    if (!c) return;
    free(c->left);
    free(c->right);
    free(c->magnitude);
    free(c);
}

void nb_adapters_free(nb_adapters *a)
{
    if (!a) return;
    for (size_t i = 0; i < a->chain_count; i++)
        for (change *c = a->chains[i], *next; c; c = next) {
            next = c->next;
            free_change(c);
        }
    for (size_t i = 0; i < a->file_count; i++) nb_safetensors_close(a->files[i]);
    free(a->files);
    free(a->chains);
    free(a);
}

/* ---- merging --------------------------------------------------------------------------------------------------------- */

/* sum [row] = left [rank] * right [rank, row].  Blocks of a fixed width keep their sums in registers. */
static void multiply_row(double *sum, const float *left, const float *right, int rank, size_t row)
{
    enum { WIDTH = 16 };
    size_t at = 0;
    for (; at + WIDTH <= row; at += WIDTH) {
        double block[WIDTH] = {0};
        for (int r = 0; r < rank; r++)
            for (int i = 0; i < WIDTH; i++) block[i] += (double)left[r] * (double)right[(size_t)r * row + at + (size_t)i];
        memcpy(sum + at, block, sizeof block);
    }
    for (; at < row; at++) {
        sum[at] = 0;
        for (int r = 0; r < rank; r++) sum[at] += (double)left[r] * (double)right[(size_t)r * row + at];
    }
}

static nb_status merge_low(const change *c, const nb_entry *e, uint64_t first, uint64_t rows, float *values, double *sum,
                           nb_error *err)
{
    size_t row = (size_t)nb_entry_row_size(e);
    for (uint64_t i = 0; i < rows; i++) {
        float *w = values + i * row;
        double norm = 0, factor = 1;
        multiply_row(sum, c->left + (first + i) * (uint64_t)c->rank, c->right, c->rank, row);
        for (size_t j = 0; j < row; j++) sum[j] = (double)w[j] + c->scale * sum[j];
        if (c->magnitude) {
            for (size_t j = 0; j < row; j++) norm += sum[j] * sum[j];
            if (!(norm > 0))
                return nb_fail(err, NB_ERR_INPUT, "%s: row %llu of '%s' is zero; DoRA cannot give it a length",
                               nb_safetensors_path(e->file), (unsigned long long)(first + i), e->name);
            factor = (double)c->magnitude[first + i] / sqrt(norm);
        }
        for (size_t j = 0; j < row; j++) w[j] = (float)(factor * sum[j]);
    }
    return NB_OK;
}

static nb_status merge_whole(const change *c, uint64_t first, uint64_t rows, float *values, nb_error *err)
{
    uint64_t n = rows * nb_entry_row_size(&c->source);
    float   *own;
    if (c->scale == 1) return nb_entry_read_rows_f32(&c->source, first, rows, values, err);
    NB_TRY(nb_alloc(&own, (size_t)n, sizeof *own, "rows of an adapter", err));
    nb_status status = nb_entry_read_rows_f32(&c->source, first, rows, own, err);
    for (uint64_t i = 0; i < n && !status; i++)
        values[i] = (float)((double)values[i] + c->scale * ((double)own[i] - (double)values[i]));
    free(own);
    return status;
}

/* The edit of a tensor: its chain of changes. */
static nb_status merge(void *context, const nb_entry *e, uint64_t first, uint64_t rows, float *values, nb_error *err)
{
    double   *sum;
    nb_status status = NB_OK;
    NB_TRY(nb_alloc(&sum, (size_t)nb_entry_row_size(e), sizeof *sum, "a row of a tensor", err));
    for (const change *c = context; c && !status; c = c->next)
        status = c->left ? merge_low(c, e, first, rows, values, sum, err) : merge_whole(c, first, rows, values, err);
    free(sum);
    return status;
}

/* ---- checking -------------------------------------------------------------------------------------------------------- */

static void print_shape(nb_buf *out, const nb_tensor *t)
{
    nb_buf_char(out, '[');
    for (int i = 0; i < t->rank; i++) nb_buf_printf(out, i ? ", %llu" : "%llu", (unsigned long long)t->shape[i]);
    nb_buf_char(out, ']');
}

/* a and b (NULL: only a) are not of the shapes that e needs. */
static nb_status shape_error(const adding *x, const piece *a, const piece *b, const nb_entry *e, nb_error *err)
{
    nb_buf found = {0}, wanted = {0};
    nb_buf_printf(&found, "'%.200s' ", a->tensor->name);
    print_shape(&found, a->tensor);
    if (b) {
        nb_buf_printf(&found, " and '%.200s' ", b->tensor->name);
        print_shape(&found, b->tensor);
    }
    print_shape(&wanted, e->tensor);
    nb_status status = nb_buf_status(&found, "a message", err);
    if (!status) status = nb_buf_status(&wanted, "a message", err);
    if (!status)
        status = nb_fail(err, NB_ERR_INPUT, "%s: %s do%s not fit the base's '%s' %s; this adapter belongs to another base model",
                         x->directory, found.data, b ? "" : "es", e->name, wanted.data);
    nb_buf_free(&found);
    nb_buf_free(&wanted);
    return status;
}

static nb_status name_error(const adding *x, const piece *p, const char *why, nb_error *err)
{
    return nb_fail(err, NB_ERR_INPUT, "%s: tensor '%.200s' %s", x->directory, p->tensor->name, why);
}

/* The values of a small tensor in f32, malloc'd; none may be NaN or infinite. */
static nb_status read_small(const adding *x, const nb_tensor *t, float **out, nb_error *err)
{
    nb_entry e = {.name = t->name, .tensor = t, .file = x->file};
    NB_TRY(nb_alloc(out, (size_t)t->count, sizeof **out, "a tensor of an adapter", err));
    nb_status status = nb_entry_read_f32(&e, *out, err);
    for (size_t i = 0; i < t->count && !status; i++)
        if (!isfinite((*out)[i]))
            status = nb_fail(err, NB_ERR_INPUT, "%s: tensor '%.200s' holds %f at element %zu; this adapter is broken", x->directory,
                             t->name, (double)(*out)[i], i);
    if (status) {
        free(*out);
        *out = NULL;
    }
    return status;
}

/* Walk a large tensor: finite values only, and when other is given whether both hold the same. */
static nb_status look_through(const adding *x, const nb_entry *e, const nb_entry *other, bool *same, nb_error *err)
{
    enum { CHUNK = 1 << 16 };
    uint64_t rows = nb_entry_rows(e), row = nb_entry_row_size(e), step = row > 0 && row < CHUNK ? CHUNK / row : 1;
    float   *values[2] = {0};
    if (same) *same = true;
    if (row == 0) return NB_OK;
    if (step > rows) step = rows;
    nb_status status = nb_alloc(&values[0], (size_t)(step * row), sizeof(float), "rows of an adapter", err);
    if (!status && other) status = nb_alloc(&values[1], (size_t)(step * row), sizeof(float), "rows of an adapter", err);
    for (uint64_t first = 0; first < rows && !status; first += step) {
        uint64_t some = rows - first < step ? rows - first : step;
        status = nb_entry_read_rows_f32(e, first, some, values[0], err);
        if (!status && other) status = nb_entry_read_rows_f32(other, first, some, values[1], err);
        for (uint64_t i = 0; i < some * row && !status; i++) {
            if (!isfinite(values[0][i]))
                status = nb_fail(err, NB_ERR_INPUT, "%s: tensor '%.200s' holds %f at element %llu; this adapter is broken",
                                 x->directory, e->tensor->name, (double)values[0][i], (unsigned long long)(first * row + i));
            else if (other && values[0][i] != values[1][i]) *same = false;
        }
    }
    free(values[0]);
    free(values[1]);
    return status;
}

static bool same_shape(const nb_tensor *a, const nb_tensor *b)
{
    return a->rank == b->rank && !memcmp(a->shape, b->shape, (size_t)a->rank * sizeof *a->shape);
}

/* ---- making changes -------------------------------------------------------------------------------------------------- */

/* The change belongs to the chain from here on, also after a failure. */
static nb_status append(adding *x, const nb_entry *e, change *c, nb_error *err)
{
    change **chain = &x->all->chains[e - nb_checkpoint_at(x->all->base, 0)], **at = chain;
    while (*at) at = &(*at)->next;
    *at = c;
    return nb_checkpoint_edit(x->all->base, e->name, merge, *chain, err);
}

/* [a, b] -> [b, a] */
static nb_status transpose(float **m, size_t a, size_t b, nb_error *err)
{
    float *turned;
    NB_TRY(nb_alloc(&turned, a * b, sizeof *turned, "a tensor of an adapter", err));
    for (size_t i = 0; i < a; i++)
        for (size_t j = 0; j < b; j++) turned[j * a + i] = (*m)[i * b + j];
    free(*m);
    *m = turned;
    return NB_OK;
}

/* A [rank, rest of W's shape], B [rows of W, rank]; of a convolution both with trailing dimensions as W has them. */
static bool fits_linear(const nb_tensor *a, const nb_tensor *b, const nb_tensor *w)
{
    bool fits = w->rank >= 2 && a->rank == w->rank && b->rank == w->rank;
    fits = fits && b->shape[0] == w->shape[0] && b->shape[1] == a->shape[0];
    for (int i = 1; i < w->rank && fits; i++) fits = a->shape[i] == w->shape[i] && (i == 1 || b->shape[i] == 1);
    return fits;
}

/* Embeddings are stored the other way round: A [rank, rows of W], B [columns of W, rank], W' = W + scale (B A)'. */
static bool fits_embedding(const nb_tensor *a, const nb_tensor *b, const nb_tensor *w)
{
    return w->rank == 2 && a->rank == 2 && b->rank == 2 && a->shape[1] == w->shape[0] && b->shape[0] == w->shape[1] &&
           b->shape[1] == a->shape[0];
}

static nb_status check_rank(const adding *x, const piece *a, nb_error *err)
{
    double rank = nb_adapter_rank(&x->config, a->name.module);
    if ((double)a->tensor->shape[0] == rank) return NB_OK;
    return nb_fail(err, NB_ERR_INPUT, "%s: tensor '%.200s' has rank %llu, adapter_config.json says %g; they do not belong together",
                   x->directory, a->tensor->name, (unsigned long long)a->tensor->shape[0], rank);
}

static double scale_of(const adding *x, const piece *a)
{
    double rank = (double)a->tensor->shape[0], alpha = nb_adapter_alpha(&x->config, a->name.module);
    return x->factor * alpha / (x->config.rslora ? sqrt(rank) : rank);
}

static nb_status fill_low(adding *x, change *c, const nb_entry *e, const piece *a, const piece *b, const piece *magnitude,
                          nb_error *err)
{
    bool   embedding = a->name.part == NB_PART_EMBED_A;
    size_t rank = (size_t)a->tensor->shape[0];
    c->rank = (int)rank;
    c->scale = scale_of(x, a);
    NB_TRY(read_small(x, a->tensor, embedding ? &c->left : &c->right, err));
    NB_TRY(read_small(x, b->tensor, embedding ? &c->right : &c->left, err));
    const float *of_b = embedding ? c->right : c->left;
    bool         idle = true;
    for (size_t i = 0; i < b->tensor->count && idle; i++) idle = of_b[i] == 0;
    x->idle += idle && !magnitude;
    if (embedding) {
        NB_TRY(transpose(&c->left, rank, (size_t)e->tensor->shape[0], err));
        NB_TRY(transpose(&c->right, (size_t)e->tensor->shape[1], rank, err));
    }
    if (magnitude) NB_TRY(read_small(x, magnitude->tensor, &c->magnitude, err));
    x->low++;
    if (x->least == 0 || c->rank < x->least) x->least = c->rank;
    if (c->rank > x->most) x->most = c->rank;
    return NB_OK;
}

static nb_status add_low(adding *x, const nb_entry *e, const piece *a, const piece *b, const piece *magnitude, nb_error *err)
{
    bool    embedding = a->name.part == NB_PART_EMBED_A;
    bool    fits = (embedding ? fits_embedding : fits_linear)(a->tensor, b->tensor, e->tensor);
    change *c;
    if (!fits || a->tensor->count == 0 || b->tensor->count == 0) return shape_error(x, a, b, e, err);
    NB_TRY(check_rank(x, a, err));
    if (magnitude && !x->config.dora)
        return name_error(x, magnitude, "is of DoRA, but adapter_config.json does not say use_dora", err);
    if (x->config.dora && embedding)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: tensor '%.200s': DoRA on an embedding is not supported; merge this adapter "
                       "with PEFT", x->directory, a->tensor->name);
    if (x->config.dora && !magnitude) return name_error(x, a, "is of DoRA and has no lora_magnitude_vector", err);
    if (magnitude && magnitude->tensor->count != e->tensor->shape[0]) return shape_error(x, magnitude, NULL, e, err);
    NB_TRY(nb_alloc(&c, 1, sizeof *c, "a change", err));
    nb_status status = fill_low(x, c, e, a, b, magnitude, err);
    if (status) {
        free_change(c);
        return status;
    }
    return append(x, e, c, err);
}

/* lora_B.bias [n] with the scale of its B A: the low-rank form with a one. */
static nb_status add_bias(adding *x, const nb_entry *e, const piece *p, nb_error *err)
{
    change *c;
    double  rank = nb_adapter_rank(&x->config, p->name.module), alpha = nb_adapter_alpha(&x->config, p->name.module);
    if (!same_shape(p->tensor, e->tensor) || e->tensor->rank != 1) return shape_error(x, p, NULL, e, err);
    NB_TRY(nb_alloc(&c, 1, sizeof *c, "a change", err));
    c->rank = 1;
    c->scale = x->factor * alpha / (x->config.rslora ? sqrt(rank) : rank);
    nb_status status = read_small(x, p->tensor, &c->left, err);
    if (!status) status = nb_alloc(&c->right, 1, sizeof *c->right, "a change", err);
    if (status) {
        free_change(c);
        return status;
    }
    c->right[0] = 1;
    x->whole++;
    return append(x, e, c, err);
}

static nb_status add_whole(adding *x, const nb_entry *e, const piece *p, nb_error *err)
{
    change *c;
    if (!same_shape(p->tensor, e->tensor)) return shape_error(x, p, NULL, e, err);
    NB_TRY(nb_alloc(&c, 1, sizeof *c, "a change", err));
    c->scale = x->factor;
    c->source = (nb_entry){.name = e->name, .tensor = p->tensor, .file = x->file};
    nb_status status = look_through(x, &c->source, NULL, NULL, err);
    if (status) {
        free_change(c);
        return status;
    }
    x->whole++;
    return append(x, e, c, err);
}

/* ---- putting together ------------------------------------------------------------------------------------------------ */

static int compare_pieces(const void *a, const void *b)
{
    const piece *p = a, *q = b;
    int          c = strcmp(p->name.target, q->name.target);
    return c ? c : (int)p->name.part - (int)q->name.part;
}

/* A tied head has no weights of its own.  PEFT saves it all the same next to a saved embedding; that copy is passed over. */
static nb_status check_tied_head(const adding *x, const piece *p, nb_error *err)
{
    const char     *embed = "model.embed_tokens.weight";
    const nb_entry *e = nb_checkpoint_find(x->all->base, embed);
    nb_entry        head = {.name = p->name.target, .tensor = p->tensor, .file = x->file}, other = e ? *e : head;
    bool            same = false;
    for (size_t i = 0; i < x->count; i++)
        if (x->pieces[i].name.part == NB_PART_WHOLE && !strcmp(x->pieces[i].name.target, embed))
            other = (nb_entry){.name = embed, .tensor = x->pieces[i].tensor, .file = x->file};
    other.edit = NULL;
    if (p->name.part == NB_PART_WHOLE && same_shape(p->tensor, other.tensor)) NB_TRY(look_through(x, &head, &other, &same, err));
    if (same) return NB_OK;
    return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: tensor '%.200s' changes the head, which this base shares with its embedding "
                   "(tie_word_embeddings); give the head weights of its own in the base, or merge the adapter with PEFT",
                   x->directory, p->tensor->name);
}

/* The pieces of one target. */
static nb_status add_target(adding *x, const piece *pieces, size_t count, nb_error *err)
{
    const piece *by_part[NB_PART_ADD + 1] = {0};
    const char  *target = pieces[0].name.target;
    char         packed[NB_ADAPTER_NAME + 16];
    for (size_t i = 0; i < count; i++) {
        if (by_part[pieces[i].name.part])
            return nb_fail(err, NB_ERR_INPUT, "%s: tensors '%.200s' and '%.200s' are the same part of '%s'", x->directory,
                           by_part[pieces[i].name.part]->tensor->name, pieces[i].tensor->name, target);
        by_part[pieces[i].name.part] = &pieces[i];
    }
    if (x->all->tied && !strcmp(target, "lm_head.weight")) return check_tied_head(x, &pieces[count - 1], err);
    const nb_entry *e = nb_checkpoint_find(x->all->base, target);
    if (!e) {
        size_t n = strlen(target) - strlen(strrchr(target, '.'));
        snprintf(packed, sizeof packed, "%.*s.qweight", (int)n, target);
        bool quantized = nb_checkpoint_find(x->all->base, packed);
        const char *why = quantized ? "which is already quantized in the base; give the float checkpoint"
                                    : "which the base does not have";
        return nb_fail(err, NB_ERR_INPUT, "%s: tensor '%.200s' changes '%s', %s (%s)", x->directory, pieces[0].tensor->name,
                       target, why, nb_checkpoint_path(x->all->base));
    }
    if (x->all->tied && !strcmp(target, "model.embed_tokens.weight"))
        nb_buf_printf(x->notes, "%s: changes the embedding, which is also the head of this base: both change\n", x->directory);
    const piece *const *p = by_part;
    if (p[NB_PART_WHOLE]) NB_TRY(add_whole(x, e, p[NB_PART_WHOLE], err));
    for (int part = NB_PART_A; part <= NB_PART_EMBED_A; part += NB_PART_EMBED_A - NB_PART_A) {
        const piece *a = p[part], *b = p[part + 1];
        if (!a && !b) continue;
        if (!a || !b) return name_error(x, a ? a : b, a ? "has no lora_B" : "has no lora_A", err);
        NB_TRY(add_low(x, e, a, b, p[NB_PART_MAGNITUDE], err));
    }
    if (p[NB_PART_MAGNITUDE] && !p[NB_PART_A]) return name_error(x, p[NB_PART_MAGNITUDE], "has no lora_A and lora_B", err);
    return p[NB_PART_ADD] ? add_bias(x, e, p[NB_PART_ADD], err) : NB_OK;
}

static nb_status add_all(adding *x, nb_error *err)
{
    size_t n = nb_safetensors_count(x->file);
    if (n == 0) return nb_fail(err, NB_ERR_INPUT, "%s: the adapter holds no tensor", x->directory);
    NB_TRY(nb_alloc(&x->pieces, n, sizeof *x->pieces, "the tensors of an adapter", err));
    for (; x->count < n; x->count++) {
        piece *p = &x->pieces[x->count];
        p->tensor = nb_safetensors_at(x->file, x->count);
        if (!nb_adapter_name_parse(&p->name, p->tensor->name))
            return name_error(x, p, "is nothing that a LoRA adapter holds", err);
    }
    qsort(x->pieces, n, sizeof *x->pieces, compare_pieces);
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && !strcmp(x->pieces[i].name.target, x->pieces[end].name.target);) end++;
        NB_TRY(add_target(x, x->pieces + i, end - i, err));
    }
    if (x->low + x->whole == 0) return nb_fail(err, NB_ERR_INPUT, "%s: the adapter changes nothing", x->directory);
    return NB_OK;
}

/* ---- opening --------------------------------------------------------------------------------------------------------- */

static nb_status open_weights(adding *x, nb_error *err)
{
    nb_adapters *all = x->all;
    char        *path = nb_path_join(x->directory, "adapter_model.safetensors");
    char        *old = nb_path_join(x->directory, "adapter_model.bin");
    nb_status    status = path && old ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "%s: no memory for a path", x->directory);
    if (!status && !nb_file_exists(path) && nb_file_exists(old))
        status = nb_fail(err, NB_ERR_UNSUPPORTED, "%s: has only PyTorch weights (adapter_model.bin): save the adapter with "
                         "safe_serialization=True", x->directory);
    if (!status) status = nb_grow(&all->files, &all->file_capacity, all->file_count + 1, sizeof *all->files, "adapters", err);
    if (!status) status = nb_safetensors_open(&all->files[all->file_count], path, err);
    if (!status) x->file = all->files[all->file_count++];
    free(path);
    free(old);
    return status;
}

static void summarize(const adding *x, nb_buf *summary)
{
    nb_buf_printf(summary, "%s: ", x->directory);
    if (x->low) {
        nb_buf_printf(summary, "%zu matri%s of rank %d", x->low, x->low == 1 ? "x" : "ces", x->least);
        if (x->most > x->least) nb_buf_printf(summary, " to %d", x->most);
        if (x->config.dora) nb_buf_str(summary, ", DoRA");
    }
    if (x->whole) nb_buf_printf(summary, "%s%zu whole tensor%s", x->low ? ", " : "", x->whole, x->whole == 1 ? "" : "s");
    if (x->factor != 1) nb_buf_printf(summary, ", scaled by %g", x->factor);
    nb_buf_char(summary, '\n');
    if (x->idle == x->low && x->low > 0)
        nb_buf_printf(x->notes, "%s: all lora_B are zero: an adapter that was never trained\n", x->directory);
}

nb_status nb_adapters_add(nb_adapters *a, const char *directory, double factor, nb_buf *summary, nb_buf *notes, nb_error *err)
{
    adding x = {.all = a, .directory = directory, .factor = factor, .notes = notes};
    if (!isfinite(factor)) return nb_fail(err, NB_ERR_ARGUMENT, "%s: a scale of %g makes no sense", directory, factor);
    if (!nb_is_directory(directory))
        return nb_fail(err, NB_ERR_INPUT, "%s: there is no such adapter directory (adapter_config.json, adapter_model.safetensors)",
                       directory);
    NB_TRY(nb_adapter_config_open(&x.config, directory, err));
    nb_status status = NB_OK;
    if (x.config.dora && factor != 1)
        status = nb_fail(err, NB_ERR_ARGUMENT, "%s: a DoRA adapter cannot be scaled; leave out the scale", directory);
    if (!status) status = open_weights(&x, err);
    if (!status) status = add_all(&x, err);
    if (!status) summarize(&x, summary);
    free(x.pieces);
    nb_adapter_config_free(&x.config);
    return status;
}
