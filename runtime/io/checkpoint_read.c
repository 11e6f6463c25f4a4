/* checkpoint_read.c - the values of a checkpoint's tensors: as the file has them, or as an edit (an adapter that is merged on
 * the fly) makes them.
 *
 * An edit sees whole rows in f32.  What it leaves is rounded once to the tensor's own type before anyone gets it, so raw and
 * f32 readers agree to the bit, and the merged model is the one that a merged checkpoint would hold. */
#include <assert.h>
#include <stdlib.h>

#include "runtime/io/checkpoint.h"

enum { CHUNK = 1 << 16 }; /* elements converted at a time, so that a large tensor is not held twice */

uint64_t nb_entry_rows(const nb_entry *e)
{
    return e->tensor->rank ? e->tensor->shape[0] : 1;
}

uint64_t nb_entry_row_size(const nb_entry *e)
{
    uint64_t rows = nb_entry_rows(e);
    return rows ? e->tensor->count / rows : 0;
}

/* Elements first .. first + n of the file. */
static nb_status read_values(const nb_entry *e, uint64_t first, uint64_t n, float *dst, nb_error *err)
{
    const nb_tensor *t = e->tensor;
    if (t->dtype == NB_F32) return nb_safetensors_read(e->file, t, dst, first * sizeof *dst, n * sizeof *dst, err);
    if (t->dtype != NB_BF16 && t->dtype != NB_F16)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: tensor '%.200s' is %s, expected F32, BF16 or F16",
                       nb_safetensors_path(e->file), t->name, t->dtype_name);
    uint16_t *half;
    NB_TRY(nb_alloc(&half, n < CHUNK ? (size_t)n : CHUNK, sizeof *half, "a piece of a tensor", err));
    nb_status status = NB_OK;
    for (uint64_t at = 0; status == NB_OK && at < n;) {
        size_t some = n - at < CHUNK ? (size_t)(n - at) : CHUNK;
        status      = nb_safetensors_read(e->file, t, half, (first + at) * sizeof *half, some * sizeof *half, err);
        if (status == NB_OK) nb_to_f32(dst + at, half, t->dtype, some);
        at += some;
    }
    free(half);
    return status;
}

static void round_values(float *values, uint64_t n, nb_dtype type)
{
    uint16_t half[1024];
    if (type == NB_F32) return;
    for (uint64_t at = 0; at < n; at += NB_COUNT(half)) {
        size_t some = n - at < NB_COUNT(half) ? (size_t)(n - at) : NB_COUNT(half);
        nb_from_f32(half, type, values + at, some);
        nb_to_f32(values + at, half, type, some);
    }
}

nb_status nb_entry_read_rows_f32(const nb_entry *e, uint64_t first, uint64_t rows, float *dst, nb_error *err)
{
    uint64_t row = nb_entry_row_size(e);
    assert(first <= nb_entry_rows(e) && rows <= nb_entry_rows(e) - first);
    NB_TRY(read_values(e, first * row, rows * row, dst, err));
    if (!e->edit || rows * row == 0) return NB_OK;
    NB_TRY(e->edit(e->edit_context, e, first, rows, dst, err));
    round_values(dst, rows * row, e->tensor->dtype);
    return NB_OK;
}

nb_status nb_entry_read_f32(const nb_entry *e, float *dst, nb_error *err)
{
    return nb_entry_read_rows_f32(e, 0, nb_entry_rows(e), dst, err);
}

static nb_status read_edited(const nb_entry *e, char *bytes, nb_error *err)
{
    uint64_t rows = nb_entry_rows(e), row = nb_entry_row_size(e), step = row > 0 && row < CHUNK ? CHUNK / row : 1;
    size_t   size = nb_dtype_size(e->tensor->dtype);
    float   *values;
    if (step > rows) step = rows;
    NB_TRY(nb_alloc(&values, (size_t)(step * row), sizeof *values, "rows of a tensor", err));
    nb_status status = NB_OK;
    for (uint64_t first = 0; status == NB_OK && first < rows; first += step) {
        uint64_t some = rows - first < step ? rows - first : step;
        status        = nb_entry_read_rows_f32(e, first, some, values, err);
        if (status == NB_OK) nb_from_f32(bytes + first * row * size, e->tensor->dtype, values, (size_t)(some * row));
    }
    free(values);
    return status;
}

nb_status nb_entry_read(const nb_entry *e, void **out, nb_error *err)
{
    const nb_tensor *t = e->tensor;
    *out               = NULL;
    void *bytes        = t->bytes < SIZE_MAX ? nb_alloc_pages((size_t)t->bytes) : NULL;
    if (!bytes)
        return nb_fail(err, NB_ERR_MEMORY, "%s: no memory for the %llu bytes of tensor '%.200s'",
                       nb_safetensors_path(e->file), (unsigned long long)t->bytes, t->name);
    nb_status status = e->edit && t->count ? read_edited(e, bytes, err) : nb_safetensors_read(e->file, t, bytes, 0, t->bytes, err);
    if (status != NB_OK) {
        free(bytes);
        return status;
    }
    *out = bytes;
    return NB_OK;
}

void nb_entry_read_ahead(const nb_entry *e)
{
    nb_safetensors_read_ahead(e->file, e->tensor);
}
