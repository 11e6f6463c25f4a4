/* load.c - two matrices at most are in host memory as the checkpoint has them: one that is packed, one that is read. */
#include "runtime/model/load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/lane.h"
#include "runtime/model/pack_cache.h"
#include "runtime/model/parts.h"

enum { AHEAD = 2 };

typedef struct {
    const nb_model *model;
    const nb_load  *list;
    nb_linear       slots[AHEAD][NB_LOAD_PARTS];
} loading;

void nb_load_init(nb_load *l, nb_matrix *to, float **bias_d, int k, const char *name)
{
    *l = (nb_load){ .to = to, .bias_d = bias_d, .k = k };
    snprintf(l->name, sizeof l->name, "%s", name);
}

void nb_load_part(nb_load *l, const char *prefix, int n)
{
    snprintf(l->part[l->parts].prefix, sizeof l->part[0].prefix, "%s", prefix);
    l->part[l->parts++].n = n;
}

static void free_slot(nb_linear slot[NB_LOAD_PARTS])
{
    for (int p = 0; p < NB_LOAD_PARTS; p++) nb_linear_free(&slot[p]);
}

static int outputs(const nb_load *l)
{
    int n = 0;
    for (int p = 0; p < l->parts; p++) n += l->part[p].n;
    return n;
}

/* Whether the pack cache has it; then only its bias is read. */
static bool is_kept(const nb_model *m, const nb_load *l) { return m->packs && nb_pack_cache_has(m->packs, l->name, outputs(l), l->k); }

/* ---- on the lane ------------------------------------------------------------------------------------------------------- */

static nb_status read_one(void *context, size_t i, nb_error *err)
{
    loading        *c = context;
    const nb_load  *l = &c->list[i];
    const nb_model *m = c->model;
    nb_linear      *slot = c->slots[i % AHEAD];
    bool            kept = is_kept(m, l);
    for (int p = 0; p < l->parts; p++) {
        if (kept && l->bias_d)
            NB_TRY(nb_linear_read_bias(&slot[p], m->checkpoint, l->part[p].prefix, l->part[p].n, err));
        if (kept) continue;
        if (l->read)
            NB_TRY(l->read(&slot[p], m, l, p, err));
        else
            NB_TRY(nb_linear_read_words(&slot[p], m->checkpoint, &m->config.quant, l->part[p].prefix, l->part[p].n, l->k, l->bias_d ? 1 : 0, err));
    }
    return NB_OK;
}

/* ---- beside it --------------------------------------------------------------------------------------------------------- */

static nb_status upload_bias(const nb_model *m, const nb_load *l, const nb_linear *slot, nb_error *err)
{
    size_t n = (size_t)outputs(l), at = 0;
    float *bias;
    NB_TRY(nb_alloc(&bias, n, sizeof *bias, l->name, err));
    for (int p = 0; p < l->parts; at += (size_t)l->part[p++].n) memcpy(bias + at, slot[p].bias, (size_t)l->part[p].n * sizeof *bias);
    nb_status status = nb_vector_upload(l->bias_d, &m->ops, bias, n, l->name, err);
    free(bias);
    return status;
}

static nb_status pack_one(const nb_model *m, const nb_load *l, const nb_linear *slot, nb_error *err)
{
    nb_weights parts[NB_LOAD_PARTS];
    for (int p = 0; p < l->parts; p++) parts[p] = slot[p].weights;
    nb_status status = m->ops.pack(&m->ops, l->to, parts, l->parts, err);
    if (status != NB_OK) nb_error_within(err, "%s", l->name);
    return status;
}

static nb_status finish_one(const nb_model *m, const nb_load *l, const nb_linear *slot, nb_error *err)
{
    if (is_kept(m, l))
        nb_pack_cache_take(m->packs, l->name, outputs(l), l->k, l->to);
    else
        NB_TRY(pack_one(m, l, slot, err));
    if (m->packs) NB_TRY(nb_pack_cache_note(m->packs, l->name, l->to, err));
    return l->bias_d ? upload_bias(m, l, slot, err) : NB_OK;
}

static nb_status load_all(loading *c, nb_lane *lane, size_t count, size_t *bytes, nb_error *err)
{
    size_t tickets[AHEAD];
    for (size_t i = 0; i < count && i < AHEAD; i++) tickets[i] = nb_lane_give(lane, read_one, c, i);
    for (size_t i = 0; i < count; i++) {
        nb_linear *slot = c->slots[i % AHEAD];
        NB_TRY(nb_lane_wait(lane, tickets[i % AHEAD], err));
        NB_TRY(finish_one(c->model, &c->list[i], slot, err));
        *bytes += c->list[i].to->bytes;
        free_slot(slot);
        if (i + AHEAD < count) tickets[i % AHEAD] = nb_lane_give(lane, read_one, c, i + AHEAD);
    }
    return NB_OK;
}

nb_status nb_load_all(const nb_model *model, const nb_load *list, size_t count, size_t *bytes, nb_error *err)
{
    loading  c = { .model = model, .list = list };
    nb_lane *lane;
    NB_TRY(nb_lane_new(&lane, err));
    nb_status status = load_all(&c, lane, count, bytes, err);
    nb_lane_free(lane); /* after a failure it may still read */
    for (int i = 0; i < AHEAD; i++) free_slot(c.slots[i]);
    return status;
}
