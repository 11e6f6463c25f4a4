/* export_source.c - matrices of a checkpoint one at a time, as codes or as values. */
#include "quant/export_source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/float_layer.h"

/* ---- opening ----------------------------------------------------------------------------------------------------------- */

static bool has(const nb_source *s, const char *name, const char *suffix)
{
    char full[128];
    snprintf(full, sizeof full, "%s.%s", name, suffix);
    return nb_checkpoint_find(s->checkpoint, full) != NULL;
}

static void add_item(nb_source *s, const char *name, int n, int k, int layer)
{
    nb_item *item = &s->items[s->count++];
    *item = (nb_item){.n = n, .k = k, .rows = n, .columns = k, .layer = layer};
    snprintf(item->name, sizeof item->name, "%s", name);
    item->coded = has(s, name, "qweight") || has(s, name, "weight_packed");
    s->coded += item->coded;
}

static nb_status list_items(nb_source *s, nb_error *err)
{
    const nb_config *c = &s->config;
    int              tower = nb_vision_linear_count(c);
    NB_TRY(nb_alloc(&s->items, (size_t)c->layers * NB_LINEARS + (size_t)tower + 2, sizeof *s->items, "matrices", err));
    for (int layer = 0; layer < c->layers; layer++) {
        nb_float_layer f;
        nb_float_layer_shape(&f, c, layer);
        for (int i = 0; i < NB_LINEARS; i++) add_item(s, f.name[i], f.n[i], f.k[i], layer);
    }
    for (int i = 0; i < tower; i++) {
        nb_outer o;
        nb_vision_linear(&o, c, i);
        add_item(s, o.name, o.n, o.k, -1);
    }
    add_item(s, "model.embed_tokens", c->vocab, c->hidden, -1);
    if (!c->tied) add_item(s, "lm_head", c->vocab, c->hidden, -1);
    return NB_OK;
}

nb_status nb_source_open(nb_source *out, const char *directory, nb_error *err)
{
    memset(out, 0, sizeof *out);
    NB_TRY(nb_checkpoint_open(&out->checkpoint, directory, err)); /* first: it says best that this is no checkpoint */
    nb_status status = nb_config_open(&out->config, directory, &out->notes, err);
    if (!status) status = list_items(out, err);
    if (status) nb_source_close(out);
    return status;
}

void nb_source_close(nb_source *s)
{
    nb_checkpoint_close(s->checkpoint);
    nb_buf_free(&s->notes);
    free(s->items);
    memset(s, 0, sizeof *s);
}

static nb_status read_item(nb_linear *out, const nb_source *s, const nb_item *item, nb_error *err)
{
    return nb_linear_read(out, s->checkpoint, &s->config.quant, item->name, item->n, item->k, -1, err);
}

/* The group as config.json has it: one that covers a whole row may be called 0 there, or by its size. */
static int declared_group(const nb_quant_config *q, int group, int k)
{
    bool named = q->group == group || group != k;
    for (int i = 0; i < q->more_count; i++) named = named || q->more[i].group == group;
    return named ? group : 0;
}

nb_status nb_source_look(const nb_source *s, nb_item *item, nb_error *err)
{
    nb_linear l;
    NB_TRY(read_item(&l, s, item, err));
    const nb_weights *w = &l.weights;
    if (w->kind != NB_W_FLOAT) {
        uint8_t middle = w->kind == NB_W_INT4 ? 8 : 128;
        size_t  groups = ((size_t)w->k + (size_t)w->group - 1) / (size_t)w->group;
        item->grid = (nb_grid){.bits = w->kind == NB_W_INT4 ? 4 : 8,
                               .group = declared_group(&s->config.quant, w->group, w->k), .sym = true};
        for (size_t i = 0; i < (size_t)w->n * groups; i++) {
            item->grid.sym = item->grid.sym && w->zeros[i] == middle;
            item->zero_zero = item->zero_zero || w->zeros[i] == 0;
        }
        item->permuted = w->g_idx != NULL;
    }
    nb_linear_free(&l);
    return NB_OK;
}

bool nb_source_is_matrix(const nb_source *s, const char *tensor)
{
    const char *dot = strrchr(tensor, '.');
    if (!dot || !strcmp(dot, ".bias")) return false;
    size_t n = (size_t)(dot - tensor);
    for (size_t i = 0; i < s->count; i++)
        if (strlen(s->items[i].name) == n && !memcmp(s->items[i].name, tensor, n)) return true;
    return false;
}

/* ---- what made it ------------------------------------------------------------------------------------------------------ */

static bool same_size(const nb_grid *a, const nb_grid *b)
{
    return a->bits == b->bits && a->group == b->group;
}

/* Whether all matrices of the layers with this size of grid have their zero points in the middle. */
static bool all_symmetric(const nb_source *s, const nb_grid *grid)
{
    for (size_t i = 0; i < s->count; i++)
        if (s->items[i].coded && s->items[i].layer >= 0 && same_size(&s->items[i].grid, grid) &&
            !s->items[i].grid.sym) return false;
    return true;
}

static const nb_grid *commonest(const nb_source *s)
{
    const nb_grid *best = NULL;
    size_t         most = 0;
    for (size_t i = 0; i < s->count; i++) {
        size_t count = 0;
        if (!s->items[i].coded || s->items[i].layer < 0) continue;
        for (size_t j = 0; j < s->count; j++)
            count += s->items[j].coded && s->items[j].layer >= 0 && same_size(&s->items[i].grid, &s->items[j].grid);
        if (count > most) best = &s->items[i].grid;
        if (count > most) most = count;
    }
    return best;
}

static void add_outer(nb_choice *c, const nb_item *item)
{
    nb_outer o = {.n = item->rows, .k = item->columns, .grid = item->grid};
    bool     tower = !strncmp(item->name, "visual.", 7);
    snprintf(o.name, sizeof o.name, "%s", item->name);
    snprintf(o.source, sizeof o.source, "%s", item->name);
    if (item->coded) c->outers[c->outer_count++] = o;
    if (!item->coded && tower) c->spared[c->spared_count++] = o;
    c->vision = c->vision || (tower && item->coded);
}

nb_status nb_source_choice(nb_choice *out, const nb_source *s, nb_error *err)
{
    const nb_grid *main = commonest(s);
    memset(out, 0, sizeof *out);
    out->layers = s->config.layers;
    if (main) out->main = *main;
    out->main.sym = all_symmetric(s, &out->main);
    nb_status status = nb_alloc(&out->linears, (size_t)out->layers * NB_LINEARS, sizeof *out->linears, "matrices", err);
    if (!status) status = nb_alloc(&out->outers, s->count, sizeof *out->outers, "matrices", err);
    if (!status) status = nb_alloc(&out->spared, s->count, sizeof *out->spared, "matrices", err);
    if (status) {
        nb_choice_free(out);
        return status;
    }
    const nb_pick usual = {.grid = out->main};
    for (size_t i = 0; i < s->count; i++) {
        const nb_item *item = &s->items[i];
        if (item->layer < 0) {
            add_outer(out, item);
            continue;
        }
        nb_pick *pick = &out->linears[i];
        *pick = (nb_pick){.keep = !item->coded, .grid = item->grid};
        if (item->coded) pick->grid.sym = all_symmetric(s, &item->grid);
        out->mixed = out->mixed || !nb_pick_equal(pick, &usual);
    }
    if (!out->vision) out->spared_count = 0;
    return NB_OK;
}

/* ---- codes ------------------------------------------------------------------------------------------------------------- */

/* Rows and columns that mean zero: the code of the zero point, at scale 1.  A short last group is filled up first. */
static nb_status pad_codes(nb_codes *out, const nb_codes *c, const nb_item *item, nb_error *err)
{
    nb_grid grid = {.bits = c->bits, .group = item->grid.group};
    NB_TRY(nb_codes_init(out, item->rows, item->columns, &grid, err));
    uint8_t middle = (uint8_t)(1 << (c->bits - 1));
    for (int r = 0; r < out->n; r++)
        for (int g = 0; g < out->groups; g++) {
            size_t at = (size_t)r * (size_t)out->groups + (size_t)g, from = (size_t)r * (size_t)c->groups + (size_t)g;
            bool   old = r < c->n && g < c->groups;
            out->scales[at] = old ? c->scales[from] : 1.0f;
            out->zeros[at] = old ? c->zeros[from] : middle;
        }
    for (int r = 0; r < out->n; r++)
        for (int i = 0; i < out->k; i++)
            out->codes[(size_t)r * (size_t)out->k + (size_t)i] =
                r < c->n && i < c->k ? c->codes[(size_t)r * (size_t)c->k + (size_t)i]
                                     : out->zeros[(size_t)r * (size_t)out->groups + (size_t)(i / out->group)];
    if (!c->g_idx) return NB_OK;
    nb_status status = nb_alloc(&out->g_idx, (size_t)out->k, sizeof *out->g_idx, "g_idx", err);
    for (int i = 0; i < out->k && !status; i++) out->g_idx[i] = i < c->k ? c->g_idx[i] : i / out->group;
    if (status) nb_codes_free(out);
    return status;
}

nb_status nb_source_codes(nb_codes *out, const nb_source *s, const nb_item *item, nb_error *err)
{
    nb_linear l;
    memset(out, 0, sizeof *out);
    NB_TRY(read_item(&l, s, item, err));
    const nb_weights *w = &l.weights;
    nb_codes          c = {.n = w->n, .k = w->k, .group = w->group, .bits = w->kind == NB_W_INT4 ? 4 : 8, .codes = l.codes,
                           .scales = l.scales, .zeros = l.zeros, .g_idx = l.g_idx};
    c.groups = (c.k + c.group - 1) / c.group;
    nb_status status = NB_OK;
    if (item->rows == item->n && item->columns == item->k) {
        *out = c; /* the arrays change hands */
        l.codes = l.zeros = NULL;
        l.scales = NULL;
        l.g_idx = NULL;
    } else {
        status = pad_codes(out, &c, item, err);
    }
    nb_linear_free(&l);
    return status;
}

/* ---- values ------------------------------------------------------------------------------------------------------------ */

struct nb_rows {
    const nb_source *source;
    const nb_item   *item;
    const nb_entry  *entry; /* of a float matrix, read row by row */
    nb_linear        linear; /* of one with codes */
    float           *narrow; /* rows before padding */
    size_t           narrow_size;
};

nb_status nb_rows_open(nb_rows **out, const nb_source *s, const nb_item *item, nb_error *err)
{
    char name[80];
    NB_TRY(nb_alloc(out, 1, sizeof **out, "rows of a matrix", err));
    nb_rows *r = *out;
    *r = (nb_rows){.source = s, .item = item};
    snprintf(name, sizeof name, "%s.weight", item->name);
    nb_status status = item->coded ? read_item(&r->linear, s, item, err)
                                   : nb_checkpoint_get(s->checkpoint, name, 2, (uint64_t[]){(uint64_t)item->n, (uint64_t)item->k},
                                                       &r->entry, err);
    if (status) {
        free(r);
        *out = NULL;
    }
    return status;
}

void nb_rows_close(nb_rows *r)
{
    if (!r) return;
    nb_linear_free(&r->linear);
    free(r->narrow);
    free(r);
}

/* Existing rows first .. first + count as [count, k]. */
static nb_status read_narrow(nb_rows *r, int first, int count, float *values, nb_error *err)
{
    if (r->entry) return nb_entry_read_rows_f32(r->entry, (uint64_t)first, (uint64_t)count, values, err);
    nb_weights part = r->linear.weights;
    size_t     groups = ((size_t)part.k + (size_t)part.group - 1) / (size_t)part.group;
    part.n = count;
    part.codes += (size_t)first * (size_t)part.k;
    part.scales += (size_t)first * groups;
    part.zeros += (size_t)first * groups;
    nb_weights_to_f32(values, &part);
    return NB_OK;
}

nb_status nb_rows_read(nb_rows *r, int first, int count, float *values, nb_error *err)
{
    const nb_item *item = r->item;
    size_t         k = (size_t)item->k, columns = (size_t)item->columns;
    int            there = first >= item->n ? 0 : item->n - first < count ? item->n - first : count;
    if (columns == k && there == count) return read_narrow(r, first, count, values, err);
    NB_TRY(nb_grow(&r->narrow, &r->narrow_size, (size_t)there * k + 1, sizeof *r->narrow, "rows of a matrix", err));
    if (there) NB_TRY(read_narrow(r, first, there, r->narrow, err));
    memset(values, 0, (size_t)count * columns * sizeof *values);
    for (int i = 0; i < there; i++) memcpy(values + (size_t)i * columns, r->narrow + (size_t)i * k, k * sizeof *values);
    return NB_OK;
}
