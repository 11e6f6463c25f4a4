/* pack_rows.c - read single rows (outputs) back out of panels: the embedding table.
 *
 * A row is one lane of its panel, so every number costs its own cache line; that is fine for the few rows of a prompt,
 * and a table that is also the output layer exists once.  The numbers are exactly those of nb_weights_to_f32.
 */
#include <string.h>

#include "kernels/cpu/packed.h"

/* Scale of group g of a lane, and its zero point. */
static float read_head(const nb_matrix *m, size_t panel, int g, size_t lane, int *zero)
{
    const nb_packed *p = m->storage;
    const uint8_t   *head = nb_packed_head(p, panel, g);
    *zero = m->kind == NB_W_INT4 ? 8 : 128;
    if (p->has_zeros) *zero = head[(p->half_scales ? 2 : 4) * NB_PANEL + lane];
    float    scale;
    uint16_t half;
    if (!p->half_scales) {
        memcpy(&scale, head + 4 * lane, 4);
        return scale;
    }
    memcpy(&half, head + 2 * lane, 2);
    return nb_f16_to_f32(half);
}

/* Code of input i of a block (see the drawing in packed.h). */
static int read_code(nb_wkind kind, const uint8_t *data, size_t lane, size_t i)
{
    size_t vector = i / NB_VECTOR_INPUTS, in = i % NB_VECTOR_INPUTS;
    if (kind == NB_W_INT8) return data[(2 * vector + in / 4) * 64 + 4 * lane + in % 4];
    uint8_t byte = data[vector * 64 + 4 * lane + in % 4];
    return in < 4 ? byte & 15 : byte >> 4;
}

static void read_ints(float *y, const nb_matrix *m, const nb_block *b, size_t panel, size_t lane, const int32_t *columns)
{
    int            zero;
    float          scale = read_head(m, panel, b->group, lane, &zero);
    const uint8_t *data = nb_packed_data(m->storage, panel, b);
    for (size_t i = 0; i < (size_t)b->length; i++) {
        float value = (float)(read_code(m->kind, data, lane, i) - zero) * scale;
        y[columns ? (size_t)columns[i] : i] = value;
    }
}

static void read_floats(float *y, const nb_matrix *m, const nb_block *b, size_t panel, size_t lane)
{
    size_t         size = nb_dtype_size(m->dtype);
    const uint8_t *data = nb_packed_data(m->storage, panel, b) + lane * size;
    for (size_t i = 0; i < (size_t)b->length; i++, data += NB_PANEL * size) nb_to_f32(&y[i], data, m->dtype, 1);
}

typedef struct {
    float           *y;
    const int32_t   *ids;
    const nb_matrix *w;
} embed_call;

static void embed_row(void *context, size_t r, int thread)
{
    (void)thread;
    const embed_call *c = context;
    const nb_packed  *p = c->w->storage;
    assert(c->ids[r] >= 0 && c->ids[r] < c->w->n);
    size_t panel = (size_t)c->ids[r] / NB_PANEL, lane = (size_t)c->ids[r] % NB_PANEL, column = 0;
    float *y = c->y + r * (size_t)c->w->k;
    for (int b = 0; b < p->blocks; column += (size_t)p->block[b++].length) {
        if (c->w->kind == NB_W_FLOAT)
            read_floats(y + column, c->w, &p->block[b], panel, lane);
        else if (c->w->perm)
            read_ints(y, c->w, &p->block[b], panel, lane, c->w->perm + column);
        else
            read_ints(y + column, c->w, &p->block[b], panel, lane, NULL);
    }
}

void nb_packed_embed(const nb_ops *ops, float *y, const int32_t *ids, size_t rows, const nb_matrix *w)
{
    embed_call call = { .y = y, .ids = ids, .w = w };
    nb_parallel(ops->pool, rows, embed_row, &call);
}
