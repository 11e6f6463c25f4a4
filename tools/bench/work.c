/* work.c - see work.h. */
#include "tools/bench/work.h"

nb_work nb_work_sum(nb_work a, nb_work b)
{
    return (nb_work){ a.bytes + b.bytes, a.ints + b.ints, a.floats + b.floats, a.doubles + b.doubles };
}

nb_work nb_work_matmul(const nb_matrix *m, size_t rows)
{
    double  n = m->n, k = m->k, operations = 2 * (double)rows * n * k;
    nb_work w = { .bytes = (double)m->bytes + 4 * (double)rows * (n + k) };
    if (m->kind == NB_W_FLOAT)
        w.floats = operations;
    else
        w.ints = operations;
    return w;
}

/* Keys and values of a token in one layer, with the scales of int8 pages. */
static double kv_bytes(int kv_heads, int d, nb_dtype type)
{
    return 2.0 * (double)nb_kv_layer_bytes(kv_heads, d, type) / NB_KV_PAGE;
}

/* Tokens that the rows see, summed: past + 1, past + 2, ... */
static double seen(size_t past, size_t rows)
{
    return (double)rows * (double)past + (double)rows * ((double)rows + 1) / 2;
}

nb_work nb_work_attend(const nb_attn *a, size_t past, size_t rows)
{
    double width = (double)a->heads * a->head_dim;
    return (nb_work){ .bytes = (double)(past + rows) * kv_bytes(a->kv_heads, a->head_dim, a->kv_type) + 8 * (double)rows * width,
                      .floats = 4 * width * seen(past, rows) };
}

nb_work nb_work_attend_full(size_t rows, int heads, int d)
{
    double width = (double)heads * d;
    return (nb_work){ .bytes = 16 * (double)rows * width, .floats = 4 * width * (double)rows * (double)rows };
}

/* ---- models ------------------------------------------------------------------------------------------------------------ */

static nb_work weights_only(const nb_matrix *m, size_t rows)
{
    nb_work w = nb_work_matmul(m, rows);
    w.bytes = (double)m->bytes;
    return w;
}

nb_work nb_work_model(const nb_model *model, nb_dtype kv, size_t past, size_t rows, size_t head_rows)
{
    const nb_config *c = &model->config;
    nb_work          all = { 0 };
    for (int i = 0; i < c->layers; i++) {
        const nb_layer  *l = &model->layers[i];
        const nb_matrix *matrices[] = { &l->qkv, &l->o, &l->gate_up, &l->down };
        for (size_t j = 0; j < NB_COUNT(matrices); j++) all = nb_work_sum(all, weights_only(matrices[j], rows));
    }
    all = nb_work_sum(all, weights_only(nb_model_head(model), head_rows));
    all.floats += 4.0 * c->layers * c->heads * c->head_dim * seen(past, rows);
    all.bytes += (double)c->layers * kv_bytes(c->kv_heads, c->head_dim, kv) * (double)(past + rows);
    return all;
}

double nb_work_token_bytes(const nb_model *model, nb_dtype kv, size_t past, size_t count)
{
    double first = nb_work_model(model, kv, past, 1, 1).bytes, last = nb_work_model(model, kv, past + count - 1, 1, 1).bytes;
    return (first + last) / 2; /* every token adds the same */
}

/* ---- limits ------------------------------------------------------------------------------------------------------------ */

nb_rates nb_rates_of(const nb_limits *l, nb_isa isa)
{
    nb_rates r = { .read = nb_limits_rate(l, NB_PROBE_READ, isa), .doubles = nb_limits_rate(l, NB_PROBE_F64, isa) };
    r.ints = isa == NB_ISA_REF ? r.doubles : nb_limits_rate(l, NB_PROBE_DOT16, isa);
    r.floats = isa == NB_ISA_REF ? r.doubles : nb_limits_rate(l, NB_PROBE_F32, isa);
    return r;
}

static double seconds(double amount, double rate)
{
    return amount > 0 ? amount / rate : 0;
}

double nb_work_compute_seconds(const nb_work *w, const nb_rates *r)
{
    return seconds(w->ints, r->ints) + seconds(w->floats, r->floats) + seconds(w->doubles, r->doubles);
}

double nb_work_read_seconds(const nb_work *w, const nb_rates *r)
{
    return seconds(w->bytes, r->read);
}
