/* outer.c - rounding and writing matrices a few rows at a time: a vocabulary of floats is never in memory. */
#include "quant/outer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "quant/form.h"

enum { CHUNK = 1 << 22 /* weights in work */ };

typedef struct {
    nb_codes      *out;
    const float   *w;
    const nb_grid *grid;
} search;

static void search_row(void *context, size_t r, int thread)
{
    (void)thread;
    const search *s = context;
    nb_codes     *out = s->out;
    size_t        k = (size_t)out->k, groups = (size_t)out->groups, group = (size_t)out->group;
    for (size_t g = 0; g < groups; g++) {
        size_t       begin = g * group, count = k - begin < group ? k - begin : group;
        const float *w = s->w + r * k + begin;
        uint8_t     *codes = out->codes + r * k + begin, zero;
        float        scale;
        nb_grid_search(s->grid, w, NULL, (int)count, 2.0f, &scale, &zero);
        out->scales[r * groups + g] = scale;
        out->zeros[r * groups + g] = zero;
        for (size_t i = 0; i < count; i++) codes[i] = nb_grid_code(s->grid, w[i], scale, zero);
    }
}

nb_status nb_outer_round(nb_codes *out, const float *w, int n, int k, const nb_grid *grid, nb_pool *pool, nb_error *err)
{
    if (grid->bits == 8) return nb_rtn(out, w, n, k, grid, pool, err);
    NB_TRY(nb_codes_init(out, n, k, grid, err));
    search s = {out, w, grid};
    nb_parallel(pool, (size_t)n, search_row, &s);
    return NB_OK;
}

nb_status nb_outer_declare(nb_writer *w, const nb_choice *choice, nb_error *err)
{
    for (size_t i = 0; i < choice->outer_count; i++) {
        const nb_outer *o = &choice->outers[i];
        NB_TRY(nb_form_declare(w, o->name, NB_FORMAT_CT, &o->grid, false, o->n, o->k, err));
    }
    return NB_OK;
}

static int rows_at_a_time(const nb_outer *o)
{
    int rows = CHUNK / o->k;
    return rows < 1 ? 1 : rows < o->n ? rows : o->n;
}

/* values: room for the rows of a step */
static nb_status write_rows(nb_writer *w, const nb_entry *e, const nb_outer *o, float *values, nb_pool *pool, nb_error *err)
{
    int step = rows_at_a_time(o);
    for (int first = 0; first < o->n; first += step) {
        int      rows = o->n - first < step ? o->n - first : step;
        nb_codes codes;
        NB_TRY(nb_entry_read_rows_f32(e, (uint64_t)first, (uint64_t)rows, values, err));
        for (size_t i = 0; i < (size_t)rows * (size_t)o->k; i++)
            if (!isfinite(values[i]))
                return nb_fail(err, NB_ERR_INPUT, "%s: tensor '%s' holds %f at row %zu; such a matrix cannot be quantized",
                               nb_safetensors_path(e->file), e->tensor->name, (double)values[i], (size_t)first + i / (size_t)o->k);
        NB_TRY(nb_outer_round(&codes, values, rows, o->k, &o->grid, pool, err));
        nb_status status = nb_form_append(w, o->name, &codes, err);
        nb_codes_free(&codes);
        if (status) return status;
    }
    return nb_form_shape(w, o->name, o->n, o->k, err);
}

nb_status nb_outer_write(nb_writer *w, const nb_checkpoint *c, const nb_choice *choice, nb_pool *pool, nb_error *err)
{
    for (size_t i = 0; i < choice->outer_count; i++) {
        const nb_outer *o = &choice->outers[i];
        const nb_entry *e;
        float          *values;
        char            name[80];
        snprintf(name, sizeof name, "%s.weight", o->source);
        NB_TRY(nb_checkpoint_get(c, name, 2, (uint64_t[]){(uint64_t)o->n, (uint64_t)o->k}, &e, err));
        NB_TRY(nb_alloc(&values, (size_t)rows_at_a_time(o) * (size_t)o->k, sizeof *values, name, err));
        nb_status status = write_rows(w, e, o, values, pool, err);
        free(values);
        if (status) return status;
    }
    return NB_OK;
}

uint64_t nb_outer_bytes(const nb_choice *choice)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < choice->outer_count; i++)
        bytes += nb_form_bytes(NB_FORMAT_CT, &choice->outers[i].grid, false, choice->outers[i].n, choice->outers[i].k);
    return bytes;
}

uint64_t nb_outer_memory(const nb_choice *choice)
{
    uint64_t most = 0;
    for (size_t i = 0; i < choice->outer_count; i++) {
        const nb_outer *o = &choice->outers[i];
        uint64_t        weights = (uint64_t)rows_at_a_time(o) * (uint64_t)o->k;
        if (weights > most) most = weights;
    }
    return most * (2 * sizeof(float) + 2); /* values, their reading, codes, packed codes; scales are less */
}
