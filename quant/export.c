/* export.c - the order of an export: look at every matrix, refuse what the new form cannot hold, then write one matrix at a time.
 *
 * Two ways.  Without a change of form or size, tensors are copied byte by byte under new names into new shards.  Otherwise codes are
 * unpacked and packed again, or become values; floats take the type that the form wants, which is float16 beside codes.
 */
#include "quant/export.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/config_out.h"
#include "quant/export_job.h"
#include "quant/form.h"
#include "quant/places.h"
#include "runtime/io/file.h"

void nb_export_report_free(nb_export_report *r)
{
    nb_buf_free(&r->notes);
    memset(r, 0, sizeof *r);
}

nb_status nb_export_step(nb_export_job *job, const char *what, nb_error *err)
{
    if (!job->progress || job->progress(job->context, job->done++, job->total, what)) return NB_OK;
    return nb_fail(err, NB_ERR_STOPPED, "stopped before %s; nothing was left at '%s'", what, job->options.out_dir);
}

/* ---- what the form holds ----------------------------------------------------------------------------------------------- */

static bool to_codes(nb_export_form form)
{
    return form == NB_EXPORT_AWQ || form == NB_EXPORT_GPTQ || form == NB_EXPORT_GPTQ_V2 || form == NB_EXPORT_CT;
}

static nb_format format_of(nb_export_form form)
{
    return form == NB_EXPORT_AWQ ? NB_FORMAT_AWQ : form == NB_EXPORT_CT ? NB_FORMAT_CT : form == NB_EXPORT_GPTQ ? NB_FORMAT_GPTQ
                                                                                                                : NB_FORMAT_GPTQ_V2;
}

/* The form of the source, for an export that only pads. */
static nb_export_form own_form(const nb_config *c)
{
    switch (c->quant.method) {
    case NB_QUANT_AWQ: return NB_EXPORT_AWQ;
    case NB_QUANT_GPTQ: return c->quant.v2 ? NB_EXPORT_GPTQ_V2 : NB_EXPORT_GPTQ;
    case NB_QUANT_CT: return NB_EXPORT_CT;
    case NB_QUANT_NONE: break;
    }
    return c->dtype == NB_BF16 ? NB_EXPORT_BF16 : c->dtype == NB_F16 ? NB_EXPORT_F16 : NB_EXPORT_F32;
}

static nb_status check_awq(const nb_item *x, const nb_grid *main, nb_error *err)
{
    if (x->grid.bits != 4)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "'%s' has %d bits, AWQ files hold 4: use gptq or compressed-tensors",
                       x->name, x->grid.bits);
    if (x->permuted)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "'%s': its inputs are ordered across groups (g_idx), which AWQ files "
                       "cannot say: use gptq "
                       "or compressed-tensors, or dequantize to bf16", x->name);
    if (x->grid.group != main->group || x->grid.group == 0)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "'%s': AWQ files have one group size for all matrices, and not the whole "
                       "row: use gptq or "
                       "compressed-tensors", x->name);
    if (x->rows % 8 || x->columns % x->grid.group)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "'%s': AWQ needs outputs in multiples of 8 and inputs in multiples of the "
                       "group %d, not %d x %d",
                       x->name, x->grid.group, x->rows, x->columns);
    return NB_OK;
}

static nb_status check_gptq(const nb_item *x, nb_export_form form, nb_error *err)
{
    if (x->rows % 32 || x->columns % 32)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "'%s': GPTQ needs outputs and inputs in multiples of 32, not %d x %d: use "
                       "compressed-tensors",
                       x->name, x->rows, x->columns);
    if (form == NB_EXPORT_GPTQ && x->zero_zero)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "'%s' has a zero point of 0, which GPTQ v1 cannot hold (it stores the zero "
                       "point minus one): "
                       "use gptq_v2 or compressed-tensors", x->name);
    return NB_OK;
}

static nb_status check_items(nb_export_job *job, nb_error *err)
{
    const nb_source *s = &job->source;
    for (size_t i = 0; i < s->count; i++) {
        const nb_item *x = &s->items[i];
        if (!x->coded) continue;
        if (x->layer < 0 && job->form != NB_EXPORT_CT)
            return nb_fail(err, NB_ERR_UNSUPPORTED, "'%s' has codes, which only compressed-tensors has outside the decoder "
                           "layers: use it, "
                           "or dequantize to bf16", x->name);
        if (x->layer < 0 && (!x->grid.sym || x->permuted))
            return nb_fail(err, NB_ERR_UNSUPPORTED, "'%s' has zero points or an order of its own, which is not written "
                           "outside the decoder "
                           "layers: dequantize to bf16", x->name);
        if (job->form == NB_EXPORT_AWQ) NB_TRY(check_awq(x, &job->choice.main, err));
        if (job->form == NB_EXPORT_GPTQ || job->form == NB_EXPORT_GPTQ_V2) NB_TRY(check_gptq(x, job->form, err));
        job->permuted = job->permuted || x->permuted;
    }
    return NB_OK;
}

static void tell_codes(nb_export_job *job)
{
    nb_buf *notes = &job->report->notes;
    bool    gptq = job->form == NB_EXPORT_GPTQ || job->form == NB_EXPORT_GPTQ_V2;
    if (gptq && !job->choice.main.sym)
        nb_buf_printf(notes, "zero points differ (asymmetric): vLLM refuses such %s files, %s; awq and compressed-tensors "
                      "load there\n",
                      job->form == NB_EXPORT_GPTQ ? "gptq" : "gptq_v2",
                      job->form == NB_EXPORT_GPTQ ? "and so does GPTQModel; nibble reads them" : "GPTQModel and nibble read them");
    if (gptq && job->choice.mixed)
        nb_buf_str(notes, "bits of single matrices are written as GPTQModel's 'dynamic': GPTQModel, vLLM and nibble read "
                   "it, transformers does not\n");
    if (job->form == NB_EXPORT_CT && job->permuted)
        nb_buf_str(notes, "a g_idx is written (actorder 'group'): vLLM and compressed-tensors 0.12 read it, 0.19 and later "
                   "refuse it\n");
}

/* ---- padding ----------------------------------------------------------------------------------------------------------- */

static int gcd(int a, int b)
{
    return b ? gcd(b, a % b) : a;
}

/* Ranks split the inputs of down_proj on whole groups and on Marlin's tiles of 128, and the outputs of gate and up with them. */
static nb_status pad(nb_export_job *job, nb_error *err)
{
    nb_source *s = &job->source;
    int        tp = job->options.tp, inner = s->config.intermediate, group = 1;
    job->report->intermediate = job->report->padded = inner;
    if (!tp) return NB_OK;
    for (size_t i = 0; i < s->count; i++)
        if (s->items[i].coded && s->items[i].layer >= 0 && s->items[i].grid.group)
            group = group / gcd(group, s->items[i].grid.group) * s->items[i].grid.group;
    int64_t unit = (int64_t)tp * (group / gcd(group, 128) * 128), padded = (inner + unit - 1) / unit * unit;
    if (padded > 1 << 20)
        return nb_fail(err, NB_ERR_ARGUMENT, "padding for %d ranks gives an intermediate size of %lld, which is beyond "
                       "reason", tp,
                       (long long)padded);
    job->report->padded = (int)padded;
    for (size_t i = 0; i < s->count; i++) {
        nb_item *x = &s->items[i];
        if (x->layer < 0) continue;
        if (strstr(x->name, ".down_proj")) x->columns = (int)padded;
        if (strstr(x->name, ".gate_proj") || strstr(x->name, ".up_proj")) x->rows = (int)padded;
    }
    const nb_config *c = &s->config;
    int o_inputs = c->heads * c->head_dim;
    if (c->heads % tp || (c->kv_heads % tp && tp % c->kv_heads))
        nb_buf_printf(&job->report->notes, "%d heads and %d key heads do not divide among %d ranks, which no padding "
                      "changes\n", c->heads,
                      c->kv_heads, tp);
    else if (o_inputs % (tp * group))
        nb_buf_printf(&job->report->notes, "o_proj's %d inputs are not a multiple of %d ranks times groups of %d, which "
                      "this padding does not "
                      "change: a smaller group would\n", o_inputs, tp, group);
    return NB_OK;
}

/* ---- writing ----------------------------------------------------------------------------------------------------------- */

enum { CHUNK = 1 << 22 /* values in work */ };

/* Values to their new type, counting those that it does not hold. */
nb_status nb_export_convert(nb_export_job *job, void *out, nb_dtype to, const float *values, size_t count,
                            const char *name, nb_error *err)
{
    nb_export_report *r = job->report;
    nb_from_f32(out, to, values, count);
    if (to == NB_F32) return NB_OK;
    for (size_t i = 0; i < count; i++) {
        float back;
        nb_to_f32(&back, (const char *)out + i * nb_dtype_size(to), to, 1);
        if (back == values[i]) continue;
        if (!isfinite(back) || !isfinite(values[i]))
            return nb_fail(err, NB_ERR_UNSUPPORTED, "'%s' holds %g, which this type cannot: export to bf16 or f32", name,
                           (double)values[i]);
        double change = fabs((double)back - values[i]) / fabs((double)values[i]);
        r->rounded++;
        if (change > r->worst) snprintf(r->worst_name, sizeof r->worst_name, "%s", name);
        if (change > r->worst) r->worst = change;
    }
    return NB_OK;
}

static nb_dtype float_type(const nb_export_job *job, nb_dtype source)
{
    switch (job->form) {
    case NB_EXPORT_BF16: return NB_BF16;
    case NB_EXPORT_F16: return NB_F16;
    case NB_EXPORT_F32: return NB_F32;
    default: return nb_plain_dtype(&job->plain, source);
    }
}

/* The type in which an item's values are written: what codes become beside codes is float16. */
static nb_dtype item_type(const nb_export_job *job, const nb_item *x)
{
    char name[80];
    snprintf(name, sizeof name, "%s.weight", x->name);
    const nb_entry *e = nb_checkpoint_find(job->source.checkpoint, name);
    return float_type(job, e ? e->tensor->dtype : NB_F16);
}

static bool writes_codes(const nb_export_job *job, const nb_item *x)
{
    return x->coded && to_codes(job->form);
}

/* The grid of an item as the result declares it. */
static const nb_grid *item_grid(const nb_export_job *job, size_t i)
{
    const nb_item *x = &job->source.items[i];
    return x->layer >= 0 ? &job->choice.linears[i].grid : &x->grid;
}

/* An order of inputs is announced for all matrices of the layers or for none. */
static bool has_order(const nb_export_job *job, const nb_item *x)
{
    return job->permuted && x->layer >= 0;
}

static bool is_float(nb_dtype type)
{
    return type == NB_F32 || type == NB_BF16 || type == NB_F16;
}

/* A tensor that is no matrix: norms, biases, the patch embedding. */
static bool is_other(const nb_export_job *job, const nb_entry *e)
{
    return !nb_plain_dropped(&job->source.config, e->name) && !nb_source_is_matrix(&job->source, e->name);
}

static nb_status declare(nb_export_job *job, nb_error *err)
{
    const nb_source *s = &job->source;
    for (size_t i = 0; i < nb_checkpoint_count(s->checkpoint); i++) {
        const nb_entry  *e = nb_checkpoint_at(s->checkpoint, i);
        const nb_tensor *t = e->tensor;
        if (!is_other(job, e)) continue;
        NB_TRY(nb_writer_declare(job->writer, e->name, is_float(t->dtype) ? float_type(job, t->dtype) : t->dtype, t->rank,
                                 t->shape, err));
    }
    for (size_t i = 0; i < s->count; i++) {
        const nb_item *x = &s->items[i];
        char           name[80];
        if (writes_codes(job, x)) {
            NB_TRY(nb_form_declare(job->writer, x->name, format_of(job->form), item_grid(job, i), has_order(job, x), x->rows,
                                   x->columns, err));
            job->report->coded++;
            continue;
        }
        snprintf(name, sizeof name, "%s.weight", x->name);
        NB_TRY(nb_writer_declare(job->writer, name, item_type(job, x), 2,
                                 (uint64_t[]){(uint64_t)x->rows, (uint64_t)x->columns}, err));
        job->report->dequantized += x->coded;
    }
    return nb_writer_plan(job->writer, err);
}

static nb_status write_codes(nb_export_job *job, size_t i, nb_error *err)
{
    const nb_item *x = &job->source.items[i];
    nb_codes       codes;
    NB_TRY(nb_source_codes(&codes, &job->source, x, err));
    nb_status status = nb_form_write(job->writer, x->name, format_of(job->form), item_grid(job, i), has_order(job, x), &codes,
                                     err);
    nb_codes_free(&codes);
    return status;
}

static nb_status write_values(nb_export_job *job, const nb_item *x, nb_error *err)
{
    int      step = CHUNK / x->columns > 0 ? CHUNK / x->columns : 1;
    nb_dtype type = item_type(job, x);
    float   *values = NULL;
    void    *out = NULL;
    nb_rows *rows;
    char     name[80];
    if (step > x->rows) step = x->rows;
    snprintf(name, sizeof name, "%s.weight", x->name);
    NB_TRY(nb_rows_open(&rows, &job->source, x, err));
    nb_status status = nb_alloc(&values, (size_t)step * (size_t)x->columns, sizeof *values, name, err);
    if (!status) status = nb_alloc(&out, (size_t)step * (size_t)x->columns, nb_dtype_size(type), name, err);
    for (int first = 0; first < x->rows && !status; first += step) {
        int    count = x->rows - first < step ? x->rows - first : step;
        size_t elements = (size_t)count * (size_t)x->columns;
        status = nb_rows_read(rows, first, count, values, err);
        if (!status) status = nb_export_convert(job, out, type, values, elements, name, err);
        if (!status) status = nb_writer_append(job->writer, name, out, elements * nb_dtype_size(type), err);
    }
    free(values);
    free(out);
    nb_rows_close(rows);
    return status;
}

static nb_status write_other(nb_export_job *job, const nb_entry *e, nb_error *err)
{
    const nb_tensor *t = e->tensor;
    nb_dtype         type = is_float(t->dtype) ? float_type(job, t->dtype) : t->dtype;
    float           *values = NULL;
    void            *out = NULL;
    if (type == t->dtype) {
        NB_TRY(nb_entry_read(e, &out, err));
        nb_status copied = nb_writer_tensor(job->writer, e->name, out, t->bytes, err);
        free(out);
        return copied;
    }
    nb_status status = nb_alloc(&values, t->count, sizeof *values, e->name, err);
    if (!status) status = nb_alloc(&out, t->count, nb_dtype_size(type), e->name, err);
    if (!status) status = nb_entry_read_f32(e, values, err);
    if (!status) status = nb_export_convert(job, out, type, values, t->count, e->name, err);
    if (!status) status = nb_writer_tensor(job->writer, e->name, out, t->count * nb_dtype_size(type), err);
    free(values);
    free(out);
    return status;
}

static nb_status write_tensors(nb_export_job *job, nb_error *err)
{
    const nb_source *s = &job->source;
    for (size_t i = 0; i < nb_checkpoint_count(s->checkpoint); i++)
        if (is_other(job, nb_checkpoint_at(s->checkpoint, i))) NB_TRY(write_other(job, nb_checkpoint_at(s->checkpoint, i), err));
    for (size_t i = 0; i < s->count; i++) {
        NB_TRY(nb_export_step(job, s->items[i].name, err));
        NB_TRY(writes_codes(job, &s->items[i]) ? write_codes(job, i, err) : write_values(job, &s->items[i], err));
    }
    return NB_OK;
}

/* ---- side files -------------------------------------------------------------------------------------------------------- */

static const char *dtype_word(const nb_export_job *job)
{
    if (to_codes(job->form)) return job->plain.f16 ? "float16" : NULL;
    return job->form == NB_EXPORT_BF16 ? "bfloat16" : job->form == NB_EXPORT_F16 ? "float16" : "float32";
}

nb_status nb_export_papers(nb_export_job *job, nb_error *err)
{
    static const char *const papers[] = {"recipe.json", "report.json", "report.html", "README.md", "LICENSE"};
    for (size_t i = 0; i < NB_COUNT(papers); i++) {
        char *path = nb_path_join(job->options.model_dir, papers[i]);
        if (!path) return nb_fail(err, NB_ERR_MEMORY, "out of memory for a path");
        nb_status status = nb_file_exists(path) ? nb_writer_copy(job->writer, job->options.model_dir, papers[i], err) : NB_OK;
        free(path);
        if (status) return status;
    }
    return NB_OK;
}

static nb_status write_files(nb_export_job *job, nb_error *err)
{
    const nb_block_facts  block = {.format = format_of(job->form), .choice = &job->choice, .permuted = job->permuted};
    const nb_config_edits edits = {.block = to_codes(job->form) ? &block : NULL, .dtype = dtype_word(job),
                                   .intermediate = job->options.tp ? job->report->padded : 0};
    NB_TRY(nb_config_out(job->writer, job->options.model_dir, &edits, err));
    return nb_export_papers(job, err);
}

/* ---- the two ways ------------------------------------------------------------------------------------------------------ */

/* Tensors as they are. */
static nb_status copy(nb_export_job *job, nb_error *err)
{
    const nb_checkpoint *c = job->source.checkpoint;
    const nb_config_edits as_it_was = {.keep_block = true};
    for (size_t i = 0; i < nb_checkpoint_count(c); i++) {
        const nb_entry *e = nb_checkpoint_at(c, i);
        NB_TRY(nb_writer_declare(job->writer, e->name, e->tensor->dtype, e->tensor->rank, e->tensor->shape, err));
    }
    NB_TRY(nb_writer_plan(job->writer, err));
    job->total = nb_checkpoint_count(c);
    for (size_t i = 0; i < nb_checkpoint_count(c); i++) {
        const nb_entry *e = nb_checkpoint_at(c, i);
        void           *data;
        NB_TRY(nb_export_step(job, e->name, err));
        NB_TRY(nb_entry_read(e, &data, err));
        nb_status status = nb_writer_tensor(job->writer, e->name, data, e->tensor->bytes, err);
        free(data);
        if (status) return status;
    }
    job->report->coded = job->source.coded;
    NB_TRY(nb_config_out(job->writer, job->options.model_dir, &as_it_was, err));
    return nb_export_papers(job, err);
}

/* What float16 cannot hold keeps every float in its type, as for quantize. */
static nb_status look_at_floats(nb_export_job *job, nb_error *err)
{
    const nb_source *s = &job->source;
    job->plain = (nb_plain){.f16 = true};
    for (size_t i = 0; i < nb_checkpoint_count(s->checkpoint); i++) {
        const nb_entry *e = nb_checkpoint_at(s->checkpoint, i);
        bool            matrix = nb_source_is_matrix(s, e->name) && strcmp(strrchr(e->name, '.'), ".weight");
        if (is_float(e->tensor->dtype) && !matrix && !nb_plain_dropped(&s->config, e->name)) NB_TRY(nb_plain_look(&job->plain, e, err));
    }
    nb_plain_notes(&job->plain, &job->report->notes);
    return NB_OK;
}

static nb_status repack(nb_export_job *job, nb_error *err)
{
    job->total = job->source.count;
    if (to_codes(job->form) && !job->source.coded)
        return nb_fail(err, NB_ERR_ARGUMENT, "%s: is a float checkpoint; 'nibble quantize' makes codes, export only packs "
                       "them anew",
                       job->options.model_dir);
    if (to_codes(job->form)) {
        NB_TRY(check_items(job, err));
        tell_codes(job);
        NB_TRY(look_at_floats(job, err));
    }
    NB_TRY(declare(job, err));
    NB_TRY(write_tensors(job, err));
    return write_files(job, err);
}

static nb_status run(nb_export_job *job, nb_error *err)
{
    const nb_export_options *o = &job->options;
    NB_TRY(nb_places_check(o->model_dir, o->out_dir, err));
    NB_TRY(nb_writer_new(&job->writer, o->out_dir, o->shard_size, o->force, err));
    NB_TRY(nb_source_open(&job->source, o->model_dir, err));
    nb_source *s = &job->source;
    nb_buf_add(&job->report->notes, s->notes.data, s->notes.size);
    nb_writer_layout(job->writer, o->layout < 0 ? nb_checkpoint_layout(s->checkpoint) : (nb_layout)o->layout);
    for (size_t i = 0; i < nb_checkpoint_count(s->checkpoint); i++)
        job->report->bytes_in += nb_checkpoint_at(s->checkpoint, i)->tensor->bytes;
    bool same = o->form == NB_EXPORT_SAME || o->form == own_form(&s->config);
    job->form = o->form == NB_EXPORT_SAME ? own_form(&s->config) : o->form;
    job->report->intermediate = job->report->padded = s->config.intermediate;
    if (same && !o->tp) {
        NB_TRY(copy(job, err));
    } else {
        for (size_t i = 0; i < s->count; i++)
            if (s->items[i].coded) NB_TRY(nb_source_look(s, &s->items[i], err));
        NB_TRY(pad(job, err));
        NB_TRY(nb_source_choice(&job->choice, s, err));
        NB_TRY(job->form == NB_EXPORT_GGUF ? nb_export_gguf(job, err) : repack(job, err));
    }
    NB_TRY(nb_buf_status(&job->report->notes, "notes", err));
    NB_TRY(nb_writer_commit(job->writer, err));
    if (job->form != NB_EXPORT_GGUF) job->report->bytes_out = nb_writer_bytes(job->writer);
    return NB_OK;
}

nb_status nb_export(const nb_export_options *options, nb_export_progress *progress, void *context, nb_export_report *report,
                    nb_error *err)
{
    double        start = nb_seconds();
    nb_export_job job = {.options = *options, .progress = progress, .context = context, .report = report};
    memset(report, 0, sizeof *report);
    nb_status status = run(&job, err);
    nb_writer_free(job.writer);
    nb_choice_free(&job.choice);
    nb_source_close(&job.source);
    report->seconds = nb_seconds() - start;
    if (status) nb_export_report_free(report);
    return status;
}
