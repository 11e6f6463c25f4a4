/* rules_deep.c - --deep: every value is read once, a piece at a time.
 *
 * What no loader checks and every loader suffers from: numbers that are not finite, scales that vanish or do not fit float16
 * where the loader casts to it, zero points that some kernels read and others assume, and fields behind the last weight of a
 * row that are not empty.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/scan.h"
#include "runtime/model/linear.h"
#include "tools/cli/stop.h"
#include "tools/verify/verify.h"

static const char   AGAIN[] = "quantize again, or take the tensor from another copy of the checkpoint";
static const double F16_MOST = 65504, F16_LEAST = 0x1p-25; /* smaller ones round to zero */

static bool is_float(const nb_tensor *t)
{
    return t->dtype == NB_F16 || t->dtype == NB_BF16 || t->dtype == NB_F32;
}

static bool is_scale(const char *name)
{
    size_t n = strlen(name);
    return (n > 7 && !strcmp(name + n - 7, ".scales")) || (n > 13 && !strcmp(name + n - 13, ".weight_scale"));
}

static void judge_floats(const nb_rules *r, const nb_entry *e, const nb_scan *s)
{
    const char *name = e->tensor->name;
    bool        scale = is_scale(e->name), half = !strcmp(r->d->dtype, "float16") && e->tensor->dtype != NB_F16;
    if (s->not_finite)
        nb_found(r->out, NB_ERROR, NB_FOR_ALL, 0, "not-finite", name, AGAIN,
                 "%llu of its %llu values are NaN or infinite, the first at element %llu", (unsigned long long)s->not_finite,
                 (unsigned long long)s->count, (unsigned long long)s->first_not_finite);
    if (scale && s->zeros)
        nb_found(r->out, NB_ERROR, NB_FOR_ALL, 0, "scale-zero", name, AGAIN,
                 "%llu of its %llu scales are zero: their groups are erased", (unsigned long long)s->zeros,
                 (unsigned long long)s->count);
    if (scale && s->negative)
        nb_found(r->out, NB_WARNING, NB_FOR_ALL, 0, "scale-negative", name, "quantize without a full-range symmetric grid",
                 "%llu of its scales are negative, which not every kernel was tested with", (unsigned long long)s->negative);
    if (!half) return;
    for (int t = NB_FOR_VLLM; t <= NB_FOR_TRANSFORMERS; t++) {
        if (s->most > F16_MOST)
            nb_found(r->out, NB_ERROR, (nb_target)t, 0, "f16-range", name,
                     "set torch_dtype to bfloat16 where the format allows it, or clip the tensor",
                     "holds %g, which becomes infinite in the float16 that config.json asks for", s->most);
        if (scale && s->least <= F16_LEAST)
            nb_found(r->out, NB_ERROR, (nb_target)t, 0, "f16-range", name, AGAIN,
                     "holds a scale of %g, which becomes zero in the float16 that config.json asks for", s->least);
    }
}

/* ---- packed integers ----------------------------------------------------------------------------------------------------- */

static unsigned field(const uint32_t *words, uint64_t i, int bits) /* bits divides 32 */
{
    unsigned per = 32u / (unsigned)bits;
    return words[i / per] >> (i % per * (unsigned)bits) & ((1u << bits) - 1);
}

/* qzeros: the order of the fields in a word does not matter here. */
static nb_status check_qzeros(const nb_rules *r, const nb_module *m, nb_error *err)
{
    const nb_block *b = &r->d->block;
    const nb_entry *e = m->tensor[NB_T_QZEROS];
    nb_scheme       s = m->scheme;
    void           *data;
    bool            awq = b->kind == NB_BLOCK_AWQ;
    if (!e || e->tensor->dtype != NB_I32 || (s.bits != 2 && s.bits != 4 && s.bits != 8)) return NB_OK;
    NB_TRY(nb_entry_read(e, &data, err));
    unsigned all = (1u << s.bits) - 1, middle = 1u << (s.bits - 1), stored = awq || b->v2 ? middle : middle - 1;
    uint64_t fields = e->tensor->count * (32u / (unsigned)s.bits), off = 0, wrapped = 0;
    for (uint64_t i = 0; i < fields; i++) {
        unsigned z = field(data, i, s.bits);
        off += z != stored;
        wrapped += z == all;
    }
    free(data);
    bool centred = awq ? b->has_zero_point && !b->zero_point : s.sym;
    if (centred && off)
        nb_found(r->out, NB_ERROR, NB_FOR_ALL, 0, "zeros", e->tensor->name,
                 "declare the checkpoint asymmetric, or quantize it symmetrically",
                 "%llu of its %llu zero points are not the middle that config.json promises: kernels that read them and "
                 "kernels that do not give different weights",
                 (unsigned long long)off, (unsigned long long)fields);
    else if (b->kind == NB_BLOCK_GPTQ && !b->v2 && wrapped)
        nb_found(r->out, NB_ERROR, NB_FOR_ALL, 0, "zeros", e->tensor->name, "write the checkpoint as gptq_v2",
                 "%llu of its zero points are stored as %u, which v1 loaders read as %u or as 0", (unsigned long long)wrapped,
                 all, all + 1);
    return NB_OK;
}

/* Fields behind the last input of each row (compressed-tensors), a piece of rows at a time. */
static nb_status check_padding(const nb_rules *r, const nb_module *m, nb_error *err)
{
    const nb_entry *e = m->tensor[NB_T_PACKED];
    int             bits = m->scheme.bits;
    if (!e || e->tensor->dtype != NB_I32 || e->tensor->rank != 2 || (bits != 4 && bits != 8) || m->k * (uint64_t)bits % 32 == 0)
        return NB_OK;
    uint64_t row = e->tensor->shape[1], rows = e->tensor->shape[0], dirty = 0, per = 32u / (unsigned)bits;
    if (row * per < m->k) return NB_OK; /* another shape: said already */
    uint32_t *words;
    NB_TRY(nb_alloc(&words, (size_t)row, sizeof *words, e->name, err));
    nb_status status = NB_OK;
    for (uint64_t i = 0; i < rows && status == NB_OK; i++) {
        status = nb_safetensors_read(e->file, e->tensor, words, i * row * 4, row * 4, err);
        for (uint64_t j = m->k; j < row * per && status == NB_OK; j++) dirty += field(words, j, bits) != 0;
    }
    free(words);
    if (dirty)
        nb_found(r->out, NB_WARNING, NB_FOR_ALL, 0, "padding", e->tensor->name, "write zeros there",
                 "%llu fields behind the last input of their rows are not empty", (unsigned long long)dirty);
    return status;
}

/* nibble's own reader has the last word about a layer that the rules above let pass. */
static nb_status check_reading(const nb_rules *r, const nb_quant_config *q, const nb_module *m, nb_error *err)
{
    nb_linear linear;
    nb_error  why = {0};
    if (m->n > INT32_MAX || m->k > INT32_MAX) return NB_OK;
    nb_status status = nb_linear_read(&linear, r->d->checkpoint, q, m->name, (int)m->n, (int)m->k, -1, &why);
    if (status == NB_OK) nb_linear_free(&linear);
    if (status == NB_ERR_MEMORY) *err = why;
    if (status == NB_ERR_MEMORY) return status;
    if (status != NB_OK && !nb_findings_errors(r->out, NB_FOR_NIBBLE, 0))
        nb_found(r->out, NB_ERROR, NB_FOR_NIBBLE, 0, "reading", m->name, "as the message says", "%s", why.text);
    return NB_OK;
}

/* ---- the tied head ------------------------------------------------------------------------------------------------------- */

static nb_status check_tied(const nb_rules *r, nb_error *err)
{
    const nb_entry *head = nb_checkpoint_find(r->d->checkpoint, "lm_head.weight"),
                   *embed = nb_checkpoint_find(r->d->checkpoint, "model.embed_tokens.weight");
    if (!r->d->tied || !head || !embed || !is_float(head->tensor) || !is_float(embed->tensor) ||
        head->tensor->count != embed->tensor->count || nb_entry_rows(head) != nb_entry_rows(embed))
        return NB_OK;
    size_t      row = (size_t)nb_entry_row_size(head);
    float      *a;
    nb_contrast c;
    nb_contrast_start(&c);
    NB_TRY(nb_alloc(&a, 2 * row, sizeof *a, "two rows", err));
    nb_status status = NB_OK;
    for (uint64_t i = 0; i < nb_entry_rows(head) && status == NB_OK; i++) {
        status = nb_entry_read_rows_f32(embed, i, 1, a, err);
        if (status == NB_OK) status = nb_entry_read_rows_f32(head, i, 1, a + row, err);
        if (status == NB_OK) nb_contrast_add(&c, a, a + row, row);
    }
    free(a);
    if (status == NB_OK && c.differing)
        nb_found(r->out, NB_ERROR, NB_FOR_ALL, 0, "tied-head", head->tensor->name,
                 "set tie_word_embeddings to false, or remove lm_head.weight",
                 "differs from the embedding in %llu values although config.json ties them: loaders differ in which they use",
                 (unsigned long long)c.differing);
    return status;
}

nb_status nb_rules_deep(const nb_rules *r, bool *stop, nb_error *err)
{
    const nb_description *d = r->d;
    nb_config             config;
    nb_buf                notes = {0};
    bool                  readable = nb_config_open(&config, d->path, &notes, NULL) == NB_OK;
    nb_buf_free(&notes);
    *stop = false;
    for (size_t i = 0; i < nb_checkpoint_count(d->checkpoint); i++) {
        const nb_entry *e = nb_checkpoint_at(d->checkpoint, i);
        nb_scan         s;
        if ((*stop = nb_stop_requested())) return NB_OK;
        if (!is_float(e->tensor)) continue;
        NB_TRY(nb_scan_entry(&s, e, err));
        judge_floats(r, e, &s);
    }
    for (size_t i = 0; i < d->module_count; i++) {
        const nb_module *m = &d->modules[i];
        if ((*stop = nb_stop_requested())) return NB_OK;
        if (m->stored < NB_STORED_WORDS || !m->scheme.quantized) continue;
        NB_TRY(check_qzeros(r, m, err));
        NB_TRY(check_padding(r, m, err));
        if (readable) NB_TRY(check_reading(r, &config.quant, m, err));
    }
    return check_tied(r, err);
}
