/* weights.c - the tensors of two checkpoints by their canonical names, and, when asked, what their matrices mean.
 *
 * Linear layers are compared as wholes: a matrix that is float here and packed there is one difference of form, not ten of tensors.
 * Values are compared as f32 [n, k]: W[o, i] = (code - zero) scale, whatever the form.  One matrix's
 * codes and one piece of rows are in memory at a time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/scan.h"
#include "runtime/model/linear.h"
#include "tools/cli/stop.h"
#include "tools/compare/diff.h"

enum { PIECE = 1 << 16 /* elements of a matrix at a time */ };

typedef struct {
    nb_description  d;
    nb_quant_config quant; /* nibble's own reading of the config, for --values */
} side;

/* ---- forms ------------------------------------------------------------------------------------------------------------------- */

static void form_of(char out[40], const side *s, const nb_module *m)
{
    nb_scheme q;
    if (m->stored == NB_STORED_NOT) snprintf(out, 40, "none");
    else if (m->stored == NB_STORED_FLOAT) snprintf(out, 40, "%s", m->tensor[NB_T_WEIGHT]->tensor->dtype_name);
    else if (!nb_scheme_stored(&q, m)) snprintf(out, 40, "unreadable");
    else if (q.group) snprintf(out, 40, "%.18s %d bits, groups of %lld", s->d.block.method, q.bits, (long long)q.group);
    else snprintf(out, 40, "%.18s %d bits, whole rows", s->d.block.method, q.bits);
}

static void shape_of(char out[80], const nb_tensor *t)
{
    int used = snprintf(out, 80, "%s [", t->dtype_name);
    for (int i = 0; i < t->rank && used < 60; i++)
        used += snprintf(out + used, 80 - (size_t)used, "%s%llu", i ? ", " : "", (unsigned long long)t->shape[i]);
    snprintf(out + used, 80 - (size_t)used, "]");
}

static bool same_shape(const nb_tensor *a, const nb_tensor *b)
{
    return a->rank == b->rank && !memcmp(a->shape, b->shape, (size_t)a->rank * sizeof *a->shape);
}

static void compare_headers(nb_diff *d, const nb_entry *a, const nb_entry *b, const char *name)
{
    char left[80], right[80];
    if (a) shape_of(left, a->tensor);
    if (b) shape_of(right, b->tensor);
    if (!a || !b || a->tensor->dtype != b->tensor->dtype || !same_shape(a->tensor, b->tensor))
        nb_diff_add(d, "tensors", name, a ? left : NULL, b ? right : NULL, NULL);
}

/* ---- values ------------------------------------------------------------------------------------------------------------------ */

static nb_status add_row(nb_diff *d, const char *name, const char *a, const char *b, const nb_contrast *c, int64_t codes,
                         nb_error *err)
{
    if (c->differing == 0 && codes <= 0) {
        d->same_values++;
        return NB_OK;
    }
    NB_TRY(nb_grow(&d->rows, &d->row_capacity, d->row_count + 1, sizeof *d->rows, "differences", err));
    nb_value_row *r = &d->rows[d->row_count++];
    *r = (nb_value_row){.name = nb_strdup(name),
                        .relative = nb_contrast_relative(c),
                        .max_abs = c->not_finite ? 1.0 / 0.0 : c->max_abs,
                        .cosine = nb_contrast_cosine(c),
                        .codes = codes,
                        .count = c->count};
    snprintf(r->a, sizeof r->a, "%s", a);
    snprintf(r->b, sizeof r->b, "%s", b);
    d->differing++;
    return r->name ? NB_OK : nb_fail(err, NB_ERR_MEMORY, "out of memory for differences");
}

static bool is_float(const nb_entry *e)
{
    return e->tensor->dtype == NB_F16 || e->tensor->dtype == NB_BF16 || e->tensor->dtype == NB_F32;
}

/* A tensor that is no matrix, or one of another element type (g_idx and the like, in float pieces of at most 2^24). */
static nb_status compare_tensors(nb_diff *d, const nb_entry *a, const nb_entry *b, nb_error *err)
{
    if (!is_float(a) || !is_float(b) || !same_shape(a->tensor, b->tensor)) return NB_OK;
    uint64_t rows = nb_entry_rows(a), row = nb_entry_row_size(a), step = row >= PIECE ? 1 : PIECE / (row ? row : 1);
    if (rows == 0 || row == 0) return NB_OK;
    if (step > rows) step = rows;
    float      *x, *y = NULL;
    nb_contrast c;
    nb_contrast_start(&c);
    NB_TRY(nb_alloc(&x, (size_t)(step * row), sizeof *x, a->name, err));
    nb_status s = nb_alloc(&y, (size_t)(step * row), sizeof *y, a->name, err);
    for (uint64_t at = 0; at < rows && s == NB_OK; at += step) {
        uint64_t n = rows - at < step ? rows - at : step;
        s = nb_entry_read_rows_f32(a, at, n, x, err);
        if (s == NB_OK) s = nb_entry_read_rows_f32(b, at, n, y, err);
        if (s == NB_OK) nb_contrast_add(&c, x, y, (size_t)(n * row));
    }
    free(x);
    free(y);
    return s == NB_OK ? add_row(d, a->name, a->tensor->dtype_name, b->tensor->dtype_name, &c, -1, err) : s;
}

/* Rows first .. first + n of a matrix: a window on what was read of it. */
static nb_weights window(const nb_weights *w, int first, int n)
{
    nb_weights v = *w;
    int        groups = w->kind == NB_W_FLOAT ? 0 : (w->k + w->group - 1) / w->group;
    v.n = n;
    if (v.data) v.data = (const char *)v.data + (size_t)first * (size_t)w->k * nb_dtype_size(w->dtype);
    if (v.codes) v.codes += (size_t)first * (size_t)w->k;
    if (v.scales) v.scales += (size_t)first * (size_t)groups;
    if (v.zeros) v.zeros += (size_t)first * (size_t)groups;
    return v;
}

static nb_status contrast_matrices(nb_contrast *c, int64_t *codes, const nb_weights *a, const nb_weights *b, nb_error *err)
{
    int    step = a->k >= PIECE ? 1 : PIECE / a->k;
    float *x, *y = NULL;
    nb_contrast_start(c);
    *codes = a->kind != NB_W_FLOAT && a->kind == b->kind && a->group == b->group ? 0 : -1;
    if (step > a->n) step = a->n;
    NB_TRY(nb_alloc(&x, (size_t)step * (size_t)a->k, sizeof *x, "rows of a matrix", err));
    nb_status s = nb_alloc(&y, (size_t)step * (size_t)a->k, sizeof *y, "rows of a matrix", err);
    for (int at = 0; at < a->n && s == NB_OK; at += step) {
        int        n = a->n - at < step ? a->n - at : step;
        nb_weights one = window(a, at, n), two = window(b, at, n);
        nb_weights_to_f32(x, &one);
        nb_weights_to_f32(y, &two);
        nb_contrast_add(c, x, y, (size_t)n * (size_t)a->k);
        for (size_t i = 0; *codes >= 0 && i < (size_t)n * (size_t)a->k; i++) *codes += one.codes[i] != two.codes[i];
    }
    free(x);
    free(y);
    return s;
}

static nb_status compare_matrices(nb_diff *d, const side *a, const side *b, const nb_module *x, const nb_module *y,
                                  nb_error *err)
{
    nb_linear   one = {0}, two = {0};
    nb_contrast c;
    int64_t     codes;
    char        left[40], right[40];
    form_of(left, a, x);
    form_of(right, b, y);
    if (x->stored == NB_STORED_NOT || y->stored == NB_STORED_NOT || x->n != y->n || x->k != y->k || x->n > INT32_MAX ||
        x->k > INT32_MAX)
        return NB_OK;
    if (x->stored == NB_STORED_FLOAT && y->stored == NB_STORED_FLOAT)
        return compare_tensors(d, x->tensor[NB_T_WEIGHT], y->tensor[NB_T_WEIGHT], err);
    nb_status s = nb_linear_read(&one, a->d.checkpoint, &a->quant, x->name, (int)x->n, (int)x->k, -1, err);
    if (s == NB_OK) s = nb_linear_read(&two, b->d.checkpoint, &b->quant, y->name, (int)y->n, (int)y->k, -1, err);
    if (s == NB_OK) s = contrast_matrices(&c, &codes, &one.weights, &two.weights, err);
    if (s == NB_OK) s = add_row(d, x->name, left, right, &c, codes, err);
    nb_linear_free(&one);
    nb_linear_free(&two);
    return s;
}

/* ---- modules ------------------------------------------------------------------------------------------------------------------ */

static const nb_module *module_named(const nb_description *d, const char *name)
{
    for (size_t i = 0; i < d->module_count; i++)
        if (!strcmp(d->modules[i].name, name)) return &d->modules[i];
    return NULL;
}

/* Whether a tensor is part of a linear layer's weight (its bias is compared by itself). */
static bool of_module(const nb_entry *e)
{
    static const char *const endings[] = {".qweight",       ".qzeros",       ".scales",       ".g_idx",
                                          ".weight_packed", ".weight_scale", ".weight_shape", ".weight_zero_point",
                                          ".weight_g_idx"};
    size_t                   n = strlen(e->name);
    for (size_t i = 0; i < NB_COUNT(endings); i++) {
        size_t m = strlen(endings[i]);
        if (n > m && !strcmp(e->name + n - m, endings[i])) return true;
    }
    return false;
}

static nb_status compare_modules(nb_diff *d, const side *a, const side *b, bool values, nb_error *err)
{
    for (size_t i = 0; i < a->d.module_count; i++) {
        const nb_module *x = &a->d.modules[i], *y = i < b->d.module_count && !strcmp(b->d.modules[i].name, x->name)
                                                        ? &b->d.modules[i]
                                                        : module_named(&b->d, x->name);
        char             left[40], right[40];
        NB_TRY(nb_stop_status(err));
        if (!y) continue; /* its tensors are told one by one */
        form_of(left, a, x);
        form_of(right, b, y);
        bool packed = x->stored >= NB_STORED_WORDS || y->stored >= NB_STORED_WORDS;
        if (packed && strcmp(left, right)) nb_diff_add(d, "tensors", x->name, left, right, NULL);
        else if (packed && (x->n != y->n || x->k != y->k))
            nb_diff_add(d, "tensors", x->name, "another size", "another size", NULL);
        else if (packed) /* of one form: its tensors should look alike */
            for (int r = 0; r < NB_T_COUNT; r++) {
                char name[NB_MODULE + 24];
                snprintf(name, sizeof name, "%s.%s", x->name, nb_tensor_roles[r]);
                if (r != NB_T_BIAS && (x->tensor[r] || y->tensor[r])) compare_headers(d, x->tensor[r], y->tensor[r], name);
            }
        if (values && (packed || x->stored == NB_STORED_FLOAT)) NB_TRY(compare_matrices(d, a, b, x, y, err));
    }
    return NB_OK;
}

static bool weight_of_packed(const nb_description *a, const nb_description *b, const nb_entry *e)
{
    char   name[NB_MODULE];
    size_t n = strlen(e->name);
    if (n < 8 || n - 7 >= sizeof name || strcmp(e->name + n - 7, ".weight")) return false;
    snprintf(name, sizeof name, "%.*s", (int)(n - 7), e->name);
    const nb_module *x = module_named(a, name), *y = module_named(b, name);
    return (x && x->stored >= NB_STORED_WORDS) || (y && y->stored >= NB_STORED_WORDS);
}

/* Everything that is no packed matrix, by one walk down both sorted lists. */
static nb_status compare_rest(nb_diff *d, const side *a, const side *b, bool values, nb_error *err)
{
    size_t i = 0, j = 0;
    while (i < nb_checkpoint_count(a->d.checkpoint) || j < nb_checkpoint_count(b->d.checkpoint)) {
        const nb_entry *x = nb_checkpoint_at(a->d.checkpoint, i), *y = nb_checkpoint_at(b->d.checkpoint, j);
        int             order = !x ? 1 : !y ? -1 : strcmp(x->name, y->name);
        const nb_entry *left = order <= 0 ? x : NULL, *right = order >= 0 ? y : NULL, *any = left ? left : right;
        i += order <= 0;
        j += order >= 0;
        if (of_module(any) || weight_of_packed(&a->d, &b->d, any)) continue;
        compare_headers(d, left, right, any->name);
        size_t n = strlen(any->name);
        bool   matrix = n > 7 && !strcmp(any->name + n - 7, ".weight");
        if (matrix) { /* linear layers were compared as modules */
            char name[NB_MODULE];
            snprintf(name, sizeof name, "%.*s", (int)(n - 7 < sizeof name ? n - 7 : sizeof name - 1), any->name);
            matrix = module_named(&a->d, name) && module_named(&b->d, name);
        }
        if (values && left && right && !matrix) NB_TRY(compare_tensors(d, left, right, err));
    }
    return NB_OK;
}

static nb_status open_side(side *s, const char *directory, bool values, nb_error *err)
{
    nb_findings findings = {0};
    bool        usable;
    NB_TRY(nb_describe(&s->d, directory, &findings, &usable, err));
    nb_status status =
        usable ? NB_OK
               : nb_fail(err, NB_ERR_INPUT, "%s: %s", directory, findings.count ? findings.items[0].what : "cannot be read");
    nb_findings_free(&findings);
    if (status == NB_OK && values && s->d.any_quantized) {
        nb_config config;
        nb_buf    notes = {0};
        status = nb_config_open(&config, directory, &notes, err);
        if (status == NB_OK) s->quant = config.quant;
        nb_buf_free(&notes);
    }
    return status;
}

nb_status nb_diff_weights(nb_diff *d, const char *a, const char *b, bool values, nb_error *err)
{
    side      one = {0}, two = {0};
    nb_status s = open_side(&one, a, values, err);
    if (s == NB_OK) s = open_side(&two, b, values, err);
    if (s == NB_OK && one.d.names_new != two.d.names_new)
        nb_diff_add(d, "tensors", "names", one.d.names_new ? "model.language_model.*" : "model.layers.*",
                    two.d.names_new ? "model.language_model.*" : "model.layers.*", "two layouts of the same names");
    if (s == NB_OK) s = compare_modules(d, &one, &two, values, err);
    if (s == NB_OK) s = compare_rest(d, &one, &two, values, err);
    nb_description_free(&one.d);
    nb_description_free(&two.d);
    return s;
}
