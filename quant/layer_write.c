/* layer_write.c - the tensors of a decoder layer as the format has them: announced to the writer, later filled. */
#include <stdio.h>
#include <stdlib.h>

#include "quant/layer_work.h"

static nb_status declare(nb_writer *w, const char *prefix, const char *suffix, nb_dtype dtype, size_t rows, size_t columns,
                         nb_error *err)
{
    char           name[128];
    const uint64_t shape[2] = {rows, columns};
    snprintf(name, sizeof name, "%s%s", prefix, suffix);
    return nb_writer_declare(w, name, dtype, columns ? 2 : 1, shape, err);
}

static nb_status declare_linear(nb_job *job, const nb_float_layer *f, int i, nb_error *err)
{
    const nb_quantize_options *o = &job->options;
    size_t n = (size_t)f->n[i], k = (size_t)f->k[i], group = o->grid.group ? (size_t)o->grid.group : k;
    size_t groups = (k + group - 1) / group, fields = 32 / (size_t)o->grid.bits;
    bool   awq = o->format == NB_FORMAT_AWQ;
    NB_TRY(declare(job->writer, f->name[i], ".qweight", NB_I32, awq ? k : k / fields, awq ? n / fields : n, err));
    NB_TRY(declare(job->writer, f->name[i], ".qzeros", NB_I32, groups, n / fields, err));
    NB_TRY(declare(job->writer, f->name[i], ".scales", NB_F16, groups, n, err));
    return awq ? NB_OK : declare(job->writer, f->name[i], ".g_idx", NB_I32, k, 0, err);
}

static nb_status declare_vector(nb_job *job, const char *name, nb_error *err)
{
    const nb_entry *e = nb_checkpoint_find(job->model->checkpoint, name);
    if (!e)
        return nb_fail(err, NB_ERR_INPUT, "%s: tensor '%s' is missing", nb_checkpoint_path(job->model->checkpoint), name);
    const nb_tensor *t = e->tensor;
    return nb_writer_declare(job->writer, name, nb_plain_dtype(&job->plain, t->dtype), t->rank, t->shape, err);
}

nb_status nb_layer_job_declare(nb_job *job, int layer, nb_error *err)
{
    nb_float_layer f;
    nb_float_layer_shape(&f, &job->model->config, layer);
    for (int i = 0; i < 2; i++) NB_TRY(declare_vector(job, f.norm_name[i], err));
    for (int i = 0; i < NB_LINEARS; i++) {
        char bias[80];
        NB_TRY(declare_linear(job, &f, i, err));
        snprintf(bias, sizeof bias, "%s.bias", f.name[i]);
        if (i <= NB_V) NB_TRY(declare_vector(job, bias, err));
    }
    return NB_OK;
}

static nb_status write_part(nb_job *job, const char *prefix, const char *suffix, const void *data, size_t bytes, nb_error *err)
{
    char name[128];
    snprintf(name, sizeof name, "%s%s", prefix, suffix);
    return nb_writer_tensor(job->writer, name, data, bytes, err);
}

static nb_status write_codes(nb_job *job, const char *name, const nb_codes *c, nb_error *err)
{
    nb_packed p;
    NB_TRY(nb_pack(&p, c, job->options.format, name, err));
    nb_status status = write_part(job, name, ".qweight", p.qweight, p.qweight_shape[0] * p.qweight_shape[1] * 4, err);
    if (!status) status = write_part(job, name, ".qzeros", p.qzeros, p.qzeros_shape[0] * p.qzeros_shape[1] * 4, err);
    if (!status) status = write_part(job, name, ".scales", p.scales, p.scales_shape[0] * p.scales_shape[1] * 2, err);
    if (!status && p.g_idx) status = write_part(job, name, ".g_idx", p.g_idx, (size_t)c->k * 4, err);
    nb_packed_free(&p);
    return status;
}

static nb_status write_vector(nb_job *job, const char *prefix, const char *suffix, const float *values, int n, nb_dtype dtype,
                              nb_error *err)
{
    size_t bytes = (size_t)n * nb_dtype_size(dtype);
    void  *data;
    NB_TRY(nb_alloc(&data, 1, bytes, prefix, err));
    nb_from_f32(data, dtype, values, (size_t)n);
    nb_status status = write_part(job, prefix, suffix, data, bytes, err);
    free(data);
    return status;
}

nb_status nb_layer_write(nb_layer_work *l, nb_error *err)
{
    nb_moment start = nb_moment_now();
    for (int i = 0; i < 2; i++)
        NB_TRY(write_vector(l->job, l->f.norm_name[i], "", l->f.norm[i], l->job->model->config.hidden, l->f.norm_dtype[i], err));
    for (int i = 0; i < NB_LINEARS; i++) {
        NB_TRY(write_codes(l->job, l->f.name[i], &l->codes[i], err));
        if (i <= NB_V) NB_TRY(write_vector(l->job, l->f.name[i], ".bias", l->f.bias[i], l->f.n[i], l->f.bias_dtype[i], err));
    }
    nb_job_spent(l->job, NB_PHASE_WRITE, start, 0);
    return NB_OK;
}
