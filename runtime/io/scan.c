/* scan.c - the loops of scan.h.  A NaN never passes for a small number: it is counted apart and makes every figure say so. */
#include "runtime/io/scan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 18 /* elements read at a time */ };

void nb_scan_start(nb_scan *s)
{
    *s = (nb_scan){.least = INFINITY};
}

void nb_scan_add(nb_scan *s, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double v = x[i], size = fabs(v);
        if (!isfinite(v)) {
            if (s->not_finite++ == 0) s->first_not_finite = s->count + i;
            continue;
        }
        if (size == 0) s->zeros++;
        else if (size < s->least) s->least = size;
        if (v < 0) s->negative++;
        if (size > s->most) s->most = size;
    }
    s->count += n;
}

nb_status nb_scan_entry(nb_scan *out, const nb_entry *e, nb_error *err)
{
    nb_scan_start(out);
    uint64_t rows = nb_entry_rows(e), row = nb_entry_row_size(e);
    if (rows == 0 || row == 0) return NB_OK;
    uint64_t step = row >= PIECE ? 1 : PIECE / row;
    if (step > rows) step = rows;
    float *piece;
    size_t size;
    if (!nb_mul((size_t)step, (size_t)row, &size)) return nb_fail(err, NB_ERR_MEMORY, "%s: a row is too large", e->name);
    NB_TRY(nb_alloc(&piece, size, sizeof *piece, e->name, err));
    nb_status status = NB_OK;
    for (uint64_t at = 0; at < rows && status == NB_OK; at += step) {
        uint64_t n = rows - at < step ? rows - at : step;
        status = nb_entry_read_rows_f32(e, at, n, piece, err);
        if (status == NB_OK) nb_scan_add(out, piece, (size_t)(n * row));
    }
    free(piece);
    return status;
}

void nb_contrast_start(nb_contrast *c)
{
    *c = (nb_contrast){0};
}

void nb_contrast_add(nb_contrast *c, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double x = a[i], y = b[i];
        if (!isfinite(x) || !isfinite(y)) {
            if (memcmp(&a[i], &b[i], sizeof *a) == 0) continue;
            if (c->differing++ == 0) c->first = c->count + i;
            if (c->not_finite++ == 0) c->worst = c->count + i;
            continue;
        }
        double d = fabs(x - y);
        if (x != y && c->differing++ == 0) c->first = c->count + i;
        if (d > c->max_abs) {
            c->max_abs = d;
            if (!c->not_finite) c->worst = c->count + i;
        }
        if (fabs(x) > c->max_a) c->max_a = fabs(x);
        c->error2 += d * d;
        c->a2 += x * x;
        c->b2 += y * y;
        c->ab += x * y;
    }
    c->count += n;
}

double nb_contrast_relative(const nb_contrast *c)
{
    if (c->not_finite) return INFINITY;
    return c->error2 == 0 ? 0 : c->a2 == 0 ? INFINITY : sqrt(c->error2 / c->a2);
}

double nb_contrast_cosine(const nb_contrast *c)
{
    if (c->not_finite) return NAN;
    if (c->a2 == 0 || c->b2 == 0) return c->a2 == c->b2 ? 1 : 0;
    double cosine = c->ab / sqrt(c->a2) / sqrt(c->b2);
    return cosine > 1 ? 1 : cosine < -1 ? -1 : cosine;
}
