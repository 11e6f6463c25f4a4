/* layer_write.c - the tensors of a decoder layer as the format has them: announced to the writer, later filled. */
#include <stdio.h>
#include <stdlib.h>

#include "quant/form.h"
#include "quant/layer_work.h"

/* A tensor of the source that is written in its place, converted or not. */
static nb_status declare_plain(nb_job *job, const char *name, nb_error *err)
{
    const nb_entry *e = nb_checkpoint_find(job->model->checkpoint, name);
    if (!e)
        return nb_fail(err, NB_ERR_INPUT, "%s: tensor '%s' is missing", nb_checkpoint_path(job->model->checkpoint), name);
    const nb_tensor *t = e->tensor;
    return nb_writer_declare(job->writer, name, nb_plain_dtype(&job->plain, t->dtype), t->rank, t->shape, err);
}

static nb_status declare_linear(nb_job *job, const nb_float_layer *f, int layer, int i, nb_error *err)
{
    const nb_pick *pick = nb_choice_linear(&job->choice, layer, i);
    char           name[80];
    if (!pick->keep)
        return nb_form_declare(job->writer, f->name[i], job->options.format, &pick->grid, nb_quantize_permutes(&job->options), f->n[i],
                               f->k[i], err);
    snprintf(name, sizeof name, "%s.weight", f->name[i]);
    return declare_plain(job, name, err);
}

nb_status nb_layer_job_declare(nb_job *job, int layer, nb_error *err)
{
    nb_float_layer f;
    nb_float_layer_shape(&f, &job->model->config, layer);
    for (int i = 0; i < 2; i++) NB_TRY(declare_plain(job, f.norm_name[i], err));
    for (int i = 0; i < NB_LINEARS; i++) {
        char bias[80];
        NB_TRY(declare_linear(job, &f, layer, i, err));
        snprintf(bias, sizeof bias, "%s.bias", f.name[i]);
        if (i <= NB_V) NB_TRY(declare_plain(job, bias, err));
    }
    return NB_OK;
}

static nb_status write_part(nb_job *job, const char *prefix, const char *suffix, const void *data, size_t bytes, nb_error *err)
{
    char name[128];
    snprintf(name, sizeof name, "%s%s", prefix, suffix);
    return nb_writer_tensor(job->writer, name, data, bytes, err);
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

static nb_status write_linear(nb_layer_work *l, int i, nb_error *err)
{
    const nb_quantize_options *o = &l->job->options;
    if (l->keep[i])
        return write_part(l->job, l->f.name[i], ".weight", l->kept[i],
                          (size_t)l->f.n[i] * (size_t)l->f.k[i] * nb_dtype_size(l->kept_dtype[i]), err);
    return nb_form_write(l->job->writer, l->f.name[i], o->format, &l->grid[i], nb_quantize_permutes(o), &l->codes[i], err);
}

nb_status nb_layer_write_norms(nb_layer_work *l, nb_error *err)
{
    nb_moment start = nb_moment_now();
    if (!l->job->writer) return NB_OK; /* another rank writes */
    for (int i = 0; i < 2; i++)
        NB_TRY(write_vector(l->job, l->f.norm_name[i], "", l->f.norm[i], l->job->model->config.hidden, l->f.norm_dtype[i], err));
    nb_job_spent(l->job, NB_PHASE_WRITE, start, 0);
    return NB_OK;
}

nb_status nb_layer_write_site(nb_layer_work *l, nb_site site, nb_error *err)
{
    nb_moment start = nb_moment_now();
    if (!l->job->writer) return NB_OK; /* another rank writes */
    for (int i = nb_site_first[site]; i < nb_site_first[site] + nb_site_count[site]; i++) {
        NB_TRY(write_linear(l, i, err));
        if (i <= NB_V) NB_TRY(write_vector(l->job, l->f.name[i], ".bias", l->f.bias[i], l->f.n[i], l->f.bias_dtype[i], err));
    }
    nb_job_spent(l->job, NB_PHASE_WRITE, start, 0);
    return NB_OK;
}
