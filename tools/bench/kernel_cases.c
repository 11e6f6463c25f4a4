/* kernel_cases.c - see kernel_cases.h. */
#include "tools/bench/kernel_cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = { "matmul", "attend", "attend_full", "rmsnorm", "layernorm", "gate",     "activate",
                                     "add",    "rope",   "kv_store",    "embed",   "gram",      "gemm f32", "gemm f64" };

static const nb_kernel_form forms[] = {
    { "int4 g128 sym", NB_W_INT4, NB_F32, 128, false }, { "int4 g128 asym", NB_W_INT4, NB_F32, 128, true },
    { "int4 g32 asym", NB_W_INT4, NB_F32, 32, true },   { "int8 g128 sym", NB_W_INT8, NB_F32, 128, false },
    { "int8 g128 asym", NB_W_INT8, NB_F32, 128, true }, { "bf16", NB_W_FLOAT, NB_BF16, 0, false },
    { "f32", NB_W_FLOAT, NB_F32, 0, false },
};
enum { INT8 = 3, BF16 = 5 }; /* of forms: what heads and the tower are stored as */

const char *nb_kernel_op_name(nb_kernel_op op)
{
    return names[op];
}

void nb_kernel_label(char out[160], const nb_kernel_case *c, const char *level)
{
    int n = snprintf(out, 160, "%s%s%s", names[c->op], *c->shape ? " " : "", c->shape);
    if (c->form) n += snprintf(out + n, 160 - (size_t)n, " %s %s", c->part.name, c->form->name);
    n += snprintf(out + n, 160 - (size_t)n, " rows %zu", c->rows);
    if (c->op == NB_KERNEL_ATTEND) n += snprintf(out + n, 160 - (size_t)n, " depth %zu", c->past);
    if (level) snprintf(out + n, 160 - (size_t)n, " %s", level);
}

/* ---- lists ------------------------------------------------------------------------------------------------------------- */

static nb_status add(nb_kernel_cases *l, nb_kernel_case c, nb_error *err)
{
    NB_TRY(nb_grow(&l->items, &l->capacity, l->count + 1, sizeof *l->items, "cases", err));
    l->items[l->count++] = c;
    return NB_OK;
}

static nb_status add_matmul(nb_kernel_cases *l, const char *shape, const nb_kernel_part *part, const nb_kernel_form *form, const size_t *rows,
                            size_t count, nb_error *err)
{
    for (size_t i = 0; i < count; i++)
        NB_TRY(add(l, (nb_kernel_case){ .op = NB_KERNEL_MATMUL, .shape = shape, .form = form, .part = *part, .rows = rows[i] }, err));
    return NB_OK;
}

static nb_status add_decoder(nb_kernel_cases *l, const nb_synth_shape *s, nb_error *err)
{
    static const size_t rows[] = { 1, 2, 4, 8, 16, 64, 512 }, head_rows[] = { 1, 4, 16 }, both[] = { 1, 512 };
    int            h = s->hidden, d = h / s->heads, q = s->heads * d, kv = s->kv_heads * d;
    nb_kernel_part layer = { "layer", 4, { { "qkv", q + 2 * kv, h }, { "o", h, q }, { "gate_up", 2 * s->intermediate, h }, { "down", h, s->intermediate } } };
    nb_kernel_part head = { "head", 1, { { "head", s->vocab, h } } };
    for (size_t f = 0; f < NB_COUNT(forms); f++) NB_TRY(add_matmul(l, s->name, &layer, &forms[f], rows, NB_COUNT(rows), err));
    NB_TRY(add_matmul(l, s->name, &head, &forms[INT8], head_rows, NB_COUNT(head_rows), err));
    NB_TRY(add_matmul(l, s->name, &head, &forms[BF16], head_rows, NB_COUNT(head_rows), err));
    nb_kernel_case c = { .shape = s->name, .heads = s->heads, .kv_heads = s->kv_heads, .d = d };
    for (size_t i = 0; i < NB_COUNT(both); i++) {
        nb_kernel_case e = c;
        e.op = NB_KERNEL_EMBED, e.form = &forms[BF16], e.part = head, e.rows = both[i], e.width = h;
        NB_TRY(add(l, e, err));
    }
    static const struct {
        size_t rows, past;
    } attends[] = { { 1, 0 }, { 1, 4096 }, { 1, 30720 }, { 512, 0 }, { 4096, 0 } };
    c.op = NB_KERNEL_ATTEND;
    for (size_t i = 0; i < NB_COUNT(attends); i++) {
        c.rows = attends[i].rows, c.past = attends[i].past;
        NB_TRY(add(l, c, err));
    }
    c.past = 0;
    static const nb_kernel_op row_ops[] = { NB_KERNEL_RMSNORM, NB_KERNEL_GATE, NB_KERNEL_ROPE, NB_KERNEL_KV_STORE };
    const int                 widths[] = { h, s->intermediate, q + kv, kv };
    for (size_t o = 0; o < NB_COUNT(row_ops); o++)
        for (size_t i = 0; i < NB_COUNT(both); i++) {
            c.op = row_ops[o], c.rows = both[i], c.width = widths[o];
            NB_TRY(add(l, c, err));
        }
    c.op = NB_KERNEL_ADD, c.rows = 512, c.width = h;
    NB_TRY(add(l, c, err));
    c.op = NB_KERNEL_GRAM, c.rows = 1024;
    return add(l, c, err);
}

/* The tower is the same at every size; its merger gives rows of 7b. */
static nb_status add_vision(nb_kernel_cases *l, nb_error *err)
{
    static const size_t   rows[] = { 512, 1024 }, merged[] = { 256 }, pictures[] = { 1024, 4096 };
    static const int      of_form[] = { BF16, INT8 };
    const nb_synth_shape *s = &nb_synth_shapes[NB_SYNTH_SIZES - 1];
    int                   d = s->v_dim, wide = d * NB_SYNTH_MERGE * NB_SYNTH_MERGE, inner = NB_SYNTH_MLP_RATIO * d;
    int            patch = NB_SYNTH_CHANNELS * NB_SYNTH_TEMPORAL * NB_SYNTH_PATCH * NB_SYNTH_PATCH;
    nb_kernel_part block = { "block", 4, { { "qkv", 3 * d, d }, { "proj", d, d }, { "fc1", inner, d }, { "fc2", d, inner } } };
    nb_kernel_part merger = { "merger", 2, { { "mlp.0", wide, wide }, { "mlp.2", 3584, wide } } };
    nb_kernel_part patches = { "patches", 1, { { "patch_embed", d, patch } } };
    NB_TRY(add_matmul(l, "vision", &patches, &forms[BF16], rows, NB_COUNT(rows), err));
    for (size_t f = 0; f < NB_COUNT(of_form); f++) {
        NB_TRY(add_matmul(l, "vision", &block, &forms[of_form[f]], rows, NB_COUNT(rows), err));
        NB_TRY(add_matmul(l, "vision", &merger, &forms[of_form[f]], merged, NB_COUNT(merged), err));
    }
    nb_kernel_case c = { .shape = "vision", .heads = s->v_heads, .kv_heads = s->v_heads, .d = d / s->v_heads };
    c.op = NB_KERNEL_ATTEND_FULL;
    for (size_t i = 0; i < NB_COUNT(pictures); i++) {
        c.rows = pictures[i];
        NB_TRY(add(l, c, err));
    }
    static const nb_kernel_op row_ops[] = { NB_KERNEL_LAYERNORM, NB_KERNEL_ACTIVATE, NB_KERNEL_ROPE };
    const int                 widths[] = { d, inner, 2 * d };
    for (size_t o = 0; o < NB_COUNT(row_ops); o++) {
        c.op = row_ops[o], c.rows = 1024, c.width = widths[o], c.act = NB_ACT_QUICK_GELU;
        NB_TRY(add(l, c, err));
    }
    return NB_OK;
}

static nb_status add_shape(nb_kernel_cases *l, const char *name, size_t n, nb_error *err)
{
    if (n == 6 && !strncmp(name, "vision", n)) return add_vision(l, err);
    for (int i = 0; i < NB_SYNTH_SIZES; i++)
        if (strlen(nb_synth_shapes[i].name) == n && !strncmp(name, nb_synth_shapes[i].name, n)) return add_decoder(l, &nb_synth_shapes[i], err);
    return nb_fail(err, NB_ERR_ARGUMENT, "--shapes: '%.*s' is none of tiny, 2b, 7b, 72b, vision", (int)n, name);
}

nb_status nb_kernel_cases_new(nb_kernel_cases *out, const char *shapes, nb_error *err)
{
    *out = (nb_kernel_cases){ 0 };
    nb_status status = NB_OK;
    for (bool more = true; more && status == NB_OK;) {
        size_t n = strcspn(shapes, ",");
        status = add_shape(out, shapes, n, err);
        more = shapes[n] != 0;
        shapes += n + 1;
    }
    /* One tile of a solver's product a thread: the shape of the model does not matter. */
    const nb_kernel_case products[] = { { .op = NB_KERNEL_GEMM_F32, .shape = "", .rows = NB_KERNEL_GEMM_M, .width = NB_KERNEL_GEMM_N },
                                        { .op = NB_KERNEL_GEMM_F64, .shape = "", .rows = NB_KERNEL_GEMM_M, .width = NB_KERNEL_GEMM_N } };
    for (size_t i = 0; i < NB_COUNT(products) && status == NB_OK; i++) status = add(out, products[i], err);
    if (status != NB_OK) nb_kernel_cases_free(out);
    return status;
}

void nb_kernel_cases_free(nb_kernel_cases *c)
{
    free(c->items);
    *c = (nb_kernel_cases){ 0 };
}
