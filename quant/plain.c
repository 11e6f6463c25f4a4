/* plain.c - scanning, converting and copying the tensors that stay float.
 *
 * bf16 to f16 is exact in f16's normal range (7 fraction bits into 10); below 2^-14 bits fall away one by one, and what was
 * below 2^-25 becomes zero.  That is harmless next to values of ordinary size, but it is counted and told.
 */
#include "quant/plain.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 1 << 18 }; /* elements converted at a time */

static bool is_float(nb_dtype type)
{
    return type == NB_F32 || type == NB_BF16 || type == NB_F16;
}

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

static bool in_layer(const char *name)
{
    return !strncmp(name, "model.layers.", 13);
}

bool nb_plain_dropped(const nb_config *config, const char *name)
{
    return (config->tied && !strcmp(name, "lm_head.weight")) || ends_with(name, ".inv_freq");
}

bool nb_plain_skips(const nb_config *config, const char *name)
{
    static const char *const linears[] = {"q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight",
                                          "gate_proj.weight", "up_proj.weight", "down_proj.weight"};
    if (nb_plain_dropped(config, name)) return true;
    for (size_t i = 0; i < NB_COUNT(linears) && in_layer(name); i++)
        if (ends_with(name, linears[i])) return true;
    return false;
}

nb_dtype nb_plain_dtype(const nb_plain *p, nb_dtype source)
{
    return p->f16 && is_float(source) ? NB_F16 : source;
}

static void look_at(nb_plain *p, const float *x, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (x[i] == 0) continue;
        float  y = nb_f16_to_f32(nb_f32_to_f16(x[i]));
        double change = fabs((double)y - x[i]) / fabs((double)x[i]);
        if (!isfinite(y)) {
            if (p->f16) snprintf(p->overflow_name, sizeof p->overflow_name, "%s", name);
            p->f16 = false;
        } else if (change > 0x1.01p-11) { /* more than half a unit in the last place: a subnormal */
            p->lossy++;
            p->lost += y == 0;
            if (change > p->worst) {
                p->worst = change;
                snprintf(p->worst_name, sizeof p->worst_name, "%s", name);
            }
        }
    }
}

/* Look at all values of a tensor, and show them to a watcher. */
static nb_status scan_tensor(nb_plain *p, const nb_entry *e, nb_plain_watcher *watch, void *context, nb_error *err)
{
    uint64_t rows = nb_entry_rows(e), row = nb_entry_row_size(e);
    if (row == 0) return NB_OK;
    uint64_t step = row < CHUNK ? CHUNK / row : 1;
    float   *values;
    if (step > rows) step = rows;
    NB_TRY(nb_alloc(&values, (size_t)(step * row), sizeof *values, "a chunk of a tensor", err));
    nb_status status = NB_OK;
    for (uint64_t first = 0; first < rows && !status; first += step) {
        uint64_t some = rows - first < step ? rows - first : step;
        size_t   n = (size_t)(some * row);
        status = nb_entry_read_rows_f32(e, first, some, values, err);
        for (size_t i = 0; i < n && !status; i++)
            if (!isfinite(values[i]))
                status = nb_fail(err, NB_ERR_INPUT, "%s: tensor '%s' holds %f at element %llu%s; a model with such a weight "
                                 "cannot be quantized", nb_safetensors_path(e->file), e->tensor->name, (double)values[i],
                                 (unsigned long long)(first * row + i), e->edit ? " after the adapters" : "");
        if (!status) look_at(p, values, n, e->name);
        if (!status && watch) watch(context, e, values, n);
    }
    free(values);
    return status;
}

nb_status nb_plain_look(nb_plain *p, const nb_entry *e, nb_error *err)
{
    return scan_tensor(p, e, NULL, NULL, err);
}

nb_status nb_plain_scan_with(nb_plain *out, const nb_checkpoint *c, const nb_config *config, nb_plain_watcher *watch,
                             void *context, nb_error *err)
{
    *out = (nb_plain){.f16 = true};
    for (size_t i = 0; i < nb_checkpoint_count(c); i++) {
        const nb_entry *e = nb_checkpoint_at(c, i);
        if (!nb_plain_skips(config, e->name) && is_float(e->tensor->dtype)) NB_TRY(scan_tensor(out, e, watch, context, err));
    }
    return NB_OK;
}

nb_status nb_plain_scan(nb_plain *out, const nb_checkpoint *c, const nb_config *config, nb_error *err)
{
    return nb_plain_scan_with(out, c, config, NULL, NULL, err);
}

/* Whether a tensor is written as it is, but for its type. */
static bool is_copied(const nb_config *config, const nb_choice *choice, const char *name)
{
    char   prefix[64];
    size_t n = strlen(name), tail = strlen(".weight");
    if (in_layer(name) || nb_plain_skips(config, name)) return false;
    if (n < tail || n - tail >= sizeof prefix || strcmp(name + n - tail, ".weight")) return true;
    snprintf(prefix, sizeof prefix, "%.*s", (int)(n - tail), name);
    return !nb_choice_outer(choice, prefix);
}

/* The head that the result has and the source does not: float, as its codes are written elsewhere. */
static bool copies_head(const nb_choice *choice, const char *name)
{
    return choice->untied && !strcmp(name, "model.embed_tokens.weight") && !nb_choice_outer(choice, "lm_head");
}

nb_status nb_plain_declare(const nb_plain *p, nb_writer *w, const nb_checkpoint *c, const nb_config *config, const nb_choice *choice,
                           nb_error *err)
{
    for (size_t i = 0; i < nb_checkpoint_count(c); i++) {
        const nb_entry  *e = nb_checkpoint_at(c, i);
        const nb_tensor *t = e->tensor;
        nb_dtype         to = nb_plain_dtype(p, t->dtype);
        if (is_copied(config, choice, e->name)) NB_TRY(nb_writer_declare(w, e->name, to, t->rank, t->shape, err));
        if (copies_head(choice, e->name)) NB_TRY(nb_writer_declare(w, "lm_head.weight", to, t->rank, t->shape, err));
    }
    return NB_OK;
}

/* Elements from one type to another in the same memory; the new type is not the larger one. */
static nb_status convert(char *data, uint64_t count, nb_dtype from, nb_dtype to, nb_error *err)
{
    size_t a = nb_dtype_size(from), b = nb_dtype_size(to);
    float *values;
    if (from == to) return NB_OK;
    NB_TRY(nb_alloc(&values, CHUNK, sizeof *values, "a chunk of a tensor", err));
    for (uint64_t first = 0; first < count; first += CHUNK) {
        size_t n = count - first < CHUNK ? (size_t)(count - first) : CHUNK;
        nb_to_f32(values, data + first * a, from, n);
        nb_from_f32(data + first * b, to, values, n);
    }
    free(values);
    return NB_OK;
}

nb_status nb_plain_write(const nb_plain *p, nb_writer *w, const nb_checkpoint *c, const nb_config *config, const nb_choice *choice,
                         nb_error *err)
{
    for (size_t i = 0; i < nb_checkpoint_count(c); i++) {
        const nb_entry *e = nb_checkpoint_at(c, i);
        bool            copied = is_copied(config, choice, e->name), head = copies_head(choice, e->name);
        nb_dtype        to = nb_plain_dtype(p, e->tensor->dtype);
        uint64_t        bytes = e->tensor->count * nb_dtype_size(to);
        void           *data;
        if (!copied && !head) continue;
        NB_TRY(nb_entry_read(e, &data, err));
        nb_status status = convert(data, e->tensor->count, e->tensor->dtype, to, err);
        if (!status && copied) status = nb_writer_tensor(w, e->name, data, bytes, err);
        if (!status && head) status = nb_writer_tensor(w, "lm_head.weight", data, bytes, err);
        free(data);
        if (status) return status;
    }
    return NB_OK;
}

void nb_plain_notes(const nb_plain *p, nb_buf *notes)
{
    if (!p->f16)
        nb_buf_printf(notes, "'%s' has a value above 65504, which float16 cannot hold: float tensors keep their source type\n",
                      p->overflow_name);
    else if (p->lossy)
        nb_buf_printf(notes, "%llu unquantized values below float16's normal range (6.1e-05) lost bits (%llu became 0); the "
                      "largest relative change is %.3g, in '%s'\n", (unsigned long long)p->lossy, (unsigned long long)p->lost,
                      p->worst, p->worst_name);
}
