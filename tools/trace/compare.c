/* compare.c - rows are tokens (or patches): a tensor differs when one of them does.  The relative error of a row is measured against
 * the larger of its own size and the tensor's mean row, so that a row of almost nothing is not the first to "differ". */
#include "tools/trace/compare.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The place of a name in the computation: media, layers, final; within each by part. */
static uint64_t place_of(const char *name)
{
    static const char *const        visual[] = {"grid_thw", "pixels", "patches", "block", "rows"},
                             *const layer[] = {"input", "q", "k", "v", "attention", "attn_out", "mlp_out"},
                             *const last[] = {"final.input", "final.norm", "logits"};
    unsigned                        index, block = 0;
    int                             used = 0;
    if (!strcmp(name, "input_ids")) return 0;
    if (!strcmp(name, "position_ids")) return 1;
    if (sscanf(name, "visual.%9u.%n", &index, &used) == 1 && used) {
        for (uint64_t i = 0; i < NB_COUNT(visual); i++) {
            size_t n = strlen(visual[i]);
            if (strncmp(name + used, visual[i], n)) continue;
            if (i == 3) sscanf(name + used, "block.%9u", &block);
            return 1ull << 56 | (uint64_t)index << 32 | i << 24 | (block & 0xffffff);
        }
    }
    if (sscanf(name, "layer.%9u.%n", &index, &used) == 1 && used)
        for (uint64_t i = 0; i < NB_COUNT(layer); i++)
            if (!strcmp(name + used, layer[i])) return 2ull << 56 | (uint64_t)index << 8 | i;
    for (uint64_t i = 0; i < NB_COUNT(last); i++)
        if (!strcmp(name, last[i])) return 3ull << 56 | i;
    return 4ull << 56;
}

typedef struct {
    uint64_t         place;
    const nb_tensor *a, *b; /* either may be NULL */
} paired;

static int by_place(const void *x, const void *y)
{
    const paired *a = x, *b = y;
    if (a->place != b->place) return a->place < b->place ? -1 : 1;
    return strcmp((a->a ? a->a : a->b)->name, (b->a ? b->a : b->b)->name);
}

static bool comparable(const nb_tensor *t)
{
    return (t->dtype == NB_F32 || t->dtype == NB_F16 || t->dtype == NB_BF16 || t->dtype == NB_I32 || t->dtype == NB_I64) &&
           t->rank >= 1;
}

/* Row `row` of a tensor as f32; whole numbers up to 2^24 are exact. */
static nb_status read_row(const nb_safetensors *f, const nb_tensor *t, uint64_t row, uint64_t width, void *raw, float *out,
                          nb_error *err)
{
    size_t size = nb_dtype_size(t->dtype);
    NB_TRY(nb_safetensors_read(f, t, raw, row * width * size, width * size, err));
    if (t->dtype == NB_I32 || t->dtype == NB_I64)
        for (uint64_t i = 0; i < width; i++) {
            int64_t v = 0;
            int32_t narrow;
            if (t->dtype == NB_I64) memcpy(&v, (char *)raw + 8 * i, 8);
            else memcpy(&narrow, (char *)raw + 4 * i, 4), v = narrow;
            out[i] = (float)v;
        }
    else nb_to_f32(out, raw, t->dtype, (size_t)width);
    return NB_OK;
}

typedef struct {
    const nb_safetensors *a, *b;
    double                tolerance;
    float                *x, *y;
    void                 *raw;
} sides;

static void shape_of(const nb_tensor *t, uint64_t *rows, uint64_t *width)
{
    *rows = t->rank > 1 ? t->shape[0] : 1;
    *width = *rows ? t->count / *rows : 0;
}

static nb_status read_both(const sides *s, const paired *p, const uint64_t skip[2], uint64_t row, uint64_t width, nb_error *err)
{
    NB_TRY(read_row(s->a, p->a, skip[0] + row, width, s->raw, s->x, err));
    return read_row(s->b, p->b, skip[1] + row, width, s->raw, s->y, err);
}

/* mean: the square of the mean row's size. */
static nb_status find_first(const sides *s, const paired *p, const uint64_t skip[2], double mean, nb_trace_row *r,
                            nb_error *err)
{
    bool whole = p->a->dtype == NB_I32 || p->a->dtype == NB_I64;
    for (uint64_t i = 0; i < r->rows; i++) {
        nb_contrast row;
        nb_contrast_start(&row);
        NB_TRY(read_both(s, p, skip, i, r->width, err));
        nb_contrast_add(&row, s->x, s->y, (size_t)r->width);
        double size = row.a2 > mean ? row.a2 : mean;
        double relative = row.not_finite ? INFINITY : row.error2 == 0 ? 0 : size == 0 ? INFINITY : sqrt(row.error2 / size);
        if (whole ? row.differing == 0 : relative <= s->tolerance) continue;
        r->differs = true;
        r->first = i;
        r->first_abs = row.not_finite ? INFINITY : row.max_abs;
        r->first_relative = relative;
        return NB_OK;
    }
    return NB_OK;
}

static nb_status contrast(const sides *s, const paired *p, const uint64_t skip[2], nb_trace_row *r, nb_error *err)
{
    nb_contrast all;
    nb_contrast_start(&all);
    for (uint64_t i = 0; i < r->rows; i++) {
        NB_TRY(read_both(s, p, skip, i, r->width, err));
        nb_contrast_add(&all, s->x, s->y, (size_t)r->width);
    }
    r->max_abs = all.not_finite ? INFINITY : all.max_abs;
    r->relative = nb_contrast_relative(&all);
    r->cosine = nb_contrast_cosine(&all);
    r->token = r->width ? all.worst / r->width : 0;
    if (all.differing) NB_TRY(find_first(s, p, skip, r->rows ? all.a2 / (double)r->rows : 0, r, err));
    r->verdict = r->differs ? "DIFFERS" : all.differing ? "close" : "same";
    return NB_OK;
}

static nb_status compare_one(const sides *s, const paired *p, nb_trace_row *r, nb_error *err)
{
    const nb_tensor *any = p->a ? p->a : p->b;
    snprintf(r->name, sizeof r->name, "%.95s", any->name);
    shape_of(any, &r->rows, &r->width);
    if (!p->a || !p->b) {
        r->verdict = p->a ? "only in A" : "only in B";
        return NB_OK;
    }
    uint64_t rows, width, skip[2] = {0, 0};
    shape_of(p->b, &rows, &width);
    bool tail = !strncmp(any->name, "final.", 6) || !strcmp(any->name, "logits"); /* one file may hold the last rows only */
    if (!comparable(p->a) || !comparable(p->b) || width != r->width || (rows != r->rows && !tail)) {
        r->verdict = "SHAPE";
        r->compared = r->differs = true;
        r->max_abs = r->relative = r->first_abs = r->first_relative = INFINITY;
        r->cosine = NAN;
        return NB_OK;
    }
    if (rows < r->rows) skip[0] = r->rows - rows, r->rows = rows;
    else skip[1] = rows - r->rows;
    r->compared = true;
    return contrast(s, p, skip, r, err);
}

static nb_status pair_up(const nb_safetensors *a, const nb_safetensors *b, paired **out, size_t *count, nb_error *err)
{
    *count = 0;
    NB_TRY(nb_alloc(out, nb_safetensors_count(a) + nb_safetensors_count(b), sizeof **out, "tensors to compare", err));
    for (size_t i = 0; i < nb_safetensors_count(a); i++) {
        const nb_tensor *t = nb_safetensors_at(a, i);
        (*out)[(*count)++] = (paired){place_of(t->name), t, nb_safetensors_find(b, t->name)};
    }
    for (size_t i = 0; i < nb_safetensors_count(b); i++) {
        const nb_tensor *t = nb_safetensors_at(b, i);
        if (!nb_safetensors_find(a, t->name)) (*out)[(*count)++] = (paired){place_of(t->name), NULL, t};
    }
    qsort(*out, *count, sizeof **out, by_place);
    return NB_OK;
}

static nb_status compare_all(nb_trace_comparison *out, sides *s, nb_error *err)
{
    paired   *pairs = NULL;
    size_t    widest = 1, count;
    nb_status status = pair_up(s->a, s->b, &pairs, &count, err);
    for (size_t i = 0; i < count && status == NB_OK; i++) {
        uint64_t rows, width;
        shape_of(pairs[i].a ? pairs[i].a : pairs[i].b, &rows, &width);
        if (width > widest) widest = (size_t)width;
    }
    if (status == NB_OK) status = nb_alloc(&s->x, widest, sizeof *s->x, "a row", err);
    if (status == NB_OK) status = nb_alloc(&s->y, widest, sizeof *s->y, "a row", err);
    if (status == NB_OK) status = nb_alloc(&s->raw, widest, 8, "a row", err);
    if (status == NB_OK) status = nb_alloc(&out->rows, count, sizeof *out->rows, "a comparison", err);
    for (size_t i = 0; i < count && status == NB_OK; i++) status = compare_one(s, &pairs[i], &out->rows[out->count++], err);
    out->parting = out->count;
    for (size_t i = out->count; i-- > 0;)
        if (out->rows[i].differs) out->parting = i;
    free(pairs);
    free(s->x);
    free(s->y);
    free(s->raw);
    return status;
}

nb_status nb_trace_compare(nb_trace_comparison *out, const char *a, const char *b, double tolerance, nb_error *err)
{
    nb_safetensors *one = NULL, *two = NULL;
    sides           s = {.tolerance = tolerance};
    *out = (nb_trace_comparison){0};
    nb_status status = nb_safetensors_open(&one, a, err);
    if (status == NB_OK) status = nb_safetensors_open(&two, b, err);
    s.a = one, s.b = two;
    if (status == NB_OK) status = compare_all(out, &s, err);
    bool any = false;
    for (size_t i = 0; i < out->count; i++) any = any || out->rows[i].compared;
    if (status == NB_OK && !any)
        status = nb_fail(err, NB_ERR_INPUT, "%s and %s have no tensor in common: are both traces?", a, b);
    nb_safetensors_close(one);
    nb_safetensors_close(two);
    if (status != NB_OK) nb_trace_comparison_free(out);
    return status;
}

void nb_trace_comparison_free(nb_trace_comparison *c)
{
    free(c->rows);
    *c = (nb_trace_comparison){0};
}
