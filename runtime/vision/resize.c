/* resize.c - Pillow's antialiased bicubic on 8-bit RGB, bit for bit.
 *
 * Separable: each axis is a table of windows, one per output place, with integer weights of 22 fractional bits made from
 * doubles as Pillow makes them (the weights of a window are not renormalised after rounding).  Rows first; their result is
 * clipped to 8 bits, which is part of the definition, then columns.  An axis that keeps its size is skipped.  The passes are
 * kernels/resize.h's; here is what they do.
 *
 * Weights are at most 1.14 * 2^22 and their absolute sum below 1.5 * 2^22, so a sum over 8-bit pixels plus the rounding
 * half fits a signed 32-bit integer.
 */
#include "runtime/vision/image.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/resize.h"
#include "runtime/vision/large.h"

enum { MAX_PIXELS = 1 << 28 };

static void axis_free(nb_axis *a)
{
    free(a->first);
    free(a->count);
    free(a->weight);
}

/* Keys' cubic with a = -0.5, in Pillow's order of operations. */
static double cubic(double x)
{
    const double a = -0.5;
    if (x < 0) x = -x;
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

static nb_status axis_init(nb_axis *a, int in, int out, nb_error *err)
{
    double  scale = (double)in / out, stretch = scale < 1 ? 1 : scale, support = 2 * stretch, inverse = 1 / stretch;
    double *w = NULL;
    *a = (nb_axis){ .out = out, .taps = (int)ceil(support) * 2 + 1 };
    nb_status status = nb_alloc(&a->first, (size_t)out, sizeof *a->first, "resize windows", err);
    if (!status) status = nb_alloc(&a->count, (size_t)out, sizeof *a->count, "resize windows", err);
    if (!status) status = nb_alloc(&w, (size_t)a->taps, sizeof *w, "resize weights", err);
    if (!status) {
        size_t n;
        if (!nb_mul((size_t)out, (size_t)a->taps, &n))
            status = nb_fail(err, NB_ERR_MEMORY, "no memory to resize from %d to %d pixels", in, out);
        else
            status = nb_alloc(&a->weight, n, sizeof *a->weight, "resize weights", err);
    }
    for (int i = 0; !status && i < out; i++) {
        double centre = (i + 0.5) * scale, sum = 0;
        int    lo = (int)(centre - support + 0.5), hi = (int)(centre + support + 0.5);
        if (lo < 0) lo = 0;
        if (hi > in) hi = in;
        for (int j = lo; j < hi; j++) sum += w[j - lo] = cubic((j - centre + 0.5) * inverse);
        for (int j = lo; j < hi; j++) {
            double v = (sum != 0 ? w[j - lo] / sum : w[j - lo]) * (1 << NB_RESIZE_FRACTION);
            a->weight[(size_t)i * a->taps + (j - lo)] = (int32_t)(v < 0 ? v - 0.5 : v + 0.5);
        }
        a->first[i] = lo;
        a->count[i] = hi - lo;
    }
    free(w);
    return status;
}

static nb_status new_pixels(uint8_t **out, int width, int height, nb_error *err)
{
    size_t n;
    if (!nb_mul((size_t)width, (size_t)height, &n) || !nb_mul(n, 3, &n) || !(*out = nb_large_alloc(n)))
        return nb_fail(err, NB_ERR_MEMORY, "no memory for a picture of %d x %d pixels", width, height);
    return NB_OK;
}

nb_status nb_image_resize(nb_image *out, const nb_image *in, int width, int height, nb_error *err)
{
    *out = (nb_image){ 0 };
    if (width < 1 || height < 1)
        return nb_fail(err, NB_ERR_ARGUMENT, "a picture cannot be resized to %d x %d pixels", width, height);
    if (width > MAX_PIXELS / height)
        return nb_fail(err, NB_ERR_ARGUMENT, "%d x %d pixels are too large a size to resize a picture to", width, height);
    const nb_resize *passes = nb_resize_of(nb_isa_best());
    uint8_t         *wide = NULL, *pixels = NULL; /* wide: [in->height, width, 3] */
    nb_axis          x = { 0 }, y = { 0 };
    nb_status        status = NB_OK;
    if (width != in->width) {
        status = axis_init(&x, in->width, width, err);
        if (!status) status = new_pixels(&wide, width, in->height, err);
        if (!status) passes->rows(wide, in->rgb, (size_t)in->height, (size_t)in->width, &x);
    }
    const uint8_t *src = wide ? wide : in->rgb;
    if (!status && height != in->height) {
        status = axis_init(&y, in->height, height, err);
        if (!status) status = new_pixels(&pixels, width, height, err);
        if (!status) passes->columns(pixels, src, (size_t)width * 3, &y);
    } else if (!status && wide) {
        pixels = wide;
        wide = NULL;
    } else if (!status) {
        status = new_pixels(&pixels, width, height, err);
        if (!status) memcpy(pixels, in->rgb, (size_t)width * height * 3);
    }
    axis_free(&x);
    axis_free(&y);
    free(wide);
    if (!status) *out = (nb_image){ .rgb = pixels, .width = width, .height = height };
    return status;
}
