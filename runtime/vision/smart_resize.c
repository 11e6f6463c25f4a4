/* smart_resize.c - the size that a picture is brought to before it is cut into patches.
 *
 * Both sides become multiples of `factor` (patch * merge), the area stays between min_pixels and max_pixels and the aspect
 * ratio about what it was.  The steps, their order and the two separate divisions are transformers' (4.57.1); all in
 * double, halves rounded to even, so that the last multiple agrees.
 */
#include "runtime/vision/preprocess.h"

#include <inttypes.h>
#include <math.h>

enum { MAX_RATIO = 200 };
/* No rule of this family asks for more; with a generous max_pixels a small file must not become terabytes. */
static const double most_pixels = 1 << 28;

nb_status nb_smart_resize(int height, int width, int factor, int64_t min_pixels, int64_t max_pixels, int *out_h, int *out_w,
                          nb_error *err)
{
    if (height < 1 || width < 1)
        return nb_fail(err, NB_ERR_INPUT, "a picture of %d x %d pixels (width x height) cannot be resized", width, height);
    if (factor < 1 || min_pixels < 1 || max_pixels < min_pixels)
        return nb_fail(err, NB_ERR_ARGUMENT,
                       "min_pixels %" PRId64 " and max_pixels %" PRId64 " (multiples of %d) leave no size for a picture",
                       min_pixels, max_pixels, factor);
    double h = height, w = width, f = factor, least = (double)min_pixels, most = (double)max_pixels;
    if (fmax(h, w) / fmin(h, w) > MAX_RATIO)
        return nb_fail(
            err, NB_ERR_INPUT,
            "the picture is %d x %d pixels (width x height), a ratio of %.4g; the model takes at most %d; crop or pad it",
            width, height, fmax(h, w) / fmin(h, w), MAX_RATIO);
    double to_h = rint(h / f) * f, to_w = rint(w / f) * f;
    if (to_h * to_w > most) {
        double beta = sqrt(h * w / most);
        to_h = floor(h / beta / f) * f;
        to_w = floor(w / beta / f) * f;
    } else if (to_h * to_w < least) {
        double beta = sqrt(least / (h * w));
        to_h = ceil(h * beta / f) * f;
        to_w = ceil(w * beta / f) * f;
    }
    to_h = fmax(f, to_h);
    to_w = fmax(f, to_w);
    if (to_h * to_w > most_pixels)
        return nb_fail(err, NB_ERR_ARGUMENT, "a picture resized to %.0f x %.0f pixels is too large; lower max_pixels", to_w,
                       to_h);
    *out_h = (int)to_h;
    *out_w = (int)to_w;
    return NB_OK;
}
