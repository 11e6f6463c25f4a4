/* rules_shapes.c - the tensors of each linear layer against the sizes in config.json and the bits and group of its block.
 *
 *     float                weight [n, k], bias [n]
 *     AWQ GEMM             qweight [k, n/8], qzeros [k/g, n/8], scales [k/g, n]
 *     GPTQ                 qweight [k b/32, n], qzeros [ceil(k/g), n b/32], scales [ceil(k/g), n], g_idx [k]
 *     compressed-tensors   weight_packed [n, ceil(k b/32)], weight_scale [n, ceil(k/g)], weight_shape [2] = n, k,
 *                          weight_zero_point [ceil(n b/32), ceil(k/g)]
 */
#include <stdlib.h>
#include <string.h>

#include "tools/verify/verify.h"

static const char SAME[] =
    "the group, bits or sizes in config.json are not those the weights were made with: restore config.json";

typedef enum { WORDS, INDICES, FLOATS } content;

static void check(const nb_rules *r, const nb_module *m, nb_tensor_role role, content what, int rank, uint64_t d0, uint64_t d1)
{
    const nb_entry *e = m->tensor[role];
    if (!e) return;
    const nb_tensor *t = e->tensor;
    bool             floats = t->dtype == NB_F16 || t->dtype == NB_BF16 || t->dtype == NB_F32;
    if (what == FLOATS ? !floats : what == WORDS ? t->dtype != NB_I32 : t->dtype != NB_I64)
        nb_found(r->out, NB_ERROR, NB_FOR_ALL, 0, "dtype", t->name, "write the checkpoint again", "is %s, expected %s",
                 t->dtype_name,
                 what == FLOATS  ? "F16, BF16 or F32"
                 : what == WORDS ? "I32"
                                 : "I64");
    bool same = t->rank == rank && t->shape[0] == d0 && (rank < 2 || t->shape[1] == d1);
    if (same) return;
    if (rank == 1)
        nb_found(r->out, NB_ERROR, NB_FOR_ALL, 0, "shape", t->name, SAME,
                 "has %llu elements in %d dimensions, expected %llu in one", (unsigned long long)t->count, t->rank,
                 (unsigned long long)d0);
    else
        nb_found(r->out, NB_ERROR, NB_FOR_ALL, 0, "shape", t->name, SAME, "is [%llu, %llu], expected [%llu, %llu]",
                 (unsigned long long)(t->rank > 0 ? t->shape[0] : 0), (unsigned long long)(t->rank > 1 ? t->shape[1] : 0),
                 (unsigned long long)d0, (unsigned long long)d1);
}

static uint64_t over(uint64_t a, uint64_t b)
{
    return (a + b - 1) / b;
}

static void check_weight_shape(const nb_rules *r, const nb_module *m)
{
    const nb_entry *e = m->tensor[NB_T_SHAPE];
    void           *data;
    if (!e || e->tensor->dtype != NB_I64 || e->tensor->count != 2 || nb_entry_read(e, &data, NULL) != NB_OK) return;
    const int64_t *v = data;
    if (v[0] != (int64_t)m->n || v[1] != (int64_t)m->k)
        nb_found(r->out, NB_ERROR, NB_FOR_ALL, 0, "weight-shape", e->tensor->name, SAME,
                 "holds %lld, %lld, expected %llu, %llu", (long long)v[0], (long long)v[1], (unsigned long long)m->n,
                 (unsigned long long)m->k);
    free(data);
}

static void check_g_idx(const nb_rules *r, const nb_module *m)
{
    if (m->g_idx_read && !m->g_idx_in_range)
        nb_found(r->out, NB_ERROR, NB_FOR_ALL, 0, "g-idx", m->name, "write the checkpoint again",
                 "g_idx names groups that do not exist");
    if (m->stored == NB_STORED_WORDS && m->scheme.desc_act && !m->tensor[NB_T_G_IDX] && r->d->block.kind == NB_BLOCK_GPTQ)
        nb_found(r->out, NB_ERROR, NB_FOR_ALL, 0, "g-idx", m->name, "write the checkpoint again",
                 "has no g_idx, which desc_act needs");
}

static void check_quantized(const nb_rules *r, const nb_module *m)
{
    nb_scheme s = m->scheme;
    uint64_t  n = m->n, k = m->k, group = s.group > 0 ? (uint64_t)s.group : k, bits = (uint64_t)s.bits;
    if (bits != 2 && bits != 3 && bits != 4 && bits != 8) return; /* which bits a loader takes is its own rule */
    uint64_t groups = over(k, group);
    bool     awq = r->d->block.kind == NB_BLOCK_AWQ;
    if (m->stored == NB_STORED_WORDS && (n * bits % 32 || (!awq && k * bits % 32))) {
        nb_found(r->out, NB_ERROR, NB_FOR_ALL, 0, "shape", m->name, "use another form for this layer, or keep it in float",
                 "%llu x %llu cannot be packed by %llu bits into 32", (unsigned long long)n, (unsigned long long)k,
                 (unsigned long long)bits);
    } else if (m->stored == NB_STORED_WORDS) {
        check(r, m, NB_T_QWEIGHT, WORDS, 2, awq ? k : k * bits / 32, awq ? n * bits / 32 : n);
        check(r, m, NB_T_QZEROS, WORDS, 2, groups, n * bits / 32);
        check(r, m, NB_T_SCALES, FLOATS, 2, groups, n);
        if (!awq) check(r, m, NB_T_G_IDX, WORDS, 1, k, 0);
    } else {
        check(r, m, NB_T_PACKED, WORDS, 2, n, over(k * bits, 32));
        check(r, m, NB_T_SCALE, FLOATS, 2, n, groups);
        check(r, m, NB_T_SHAPE, INDICES, 1, 2, 0);
        if (!s.sym) check(r, m, NB_T_ZERO_POINT, WORDS, 2, over(n * bits, 32), groups);
        check(r, m, NB_T_CT_G_IDX, WORDS, 1, k, 0);
        check_weight_shape(r, m);
    }
    check_g_idx(r, m);
}

void nb_rules_shapes(const nb_rules *r)
{
    for (size_t i = 0; i < r->d->module_count; i++) {
        const nb_module *m = &r->d->modules[i];
        if (m->stored == NB_STORED_FLOAT) check(r, m, NB_T_WEIGHT, FLOATS, 2, m->n, m->k);
        else if (m->stored != NB_STORED_NOT && m->scheme.quantized) check_quantized(r, m);
        if (m->bias) check(r, m, NB_T_BIAS, FLOATS, 1, m->n, 0);
    }
}
