/* video_frames.c - the published rule for the frames of a video: how many, and which.
 *
 * The count is smart_nframes in double, as Python computes it.  The places are torch.linspace in float, counted from the
 * nearer end with one rounding, and rounded half to even: exact arithmetic disagrees for 30000 frames of which 768 are taken.
 */
#include "runtime/vision/video_frames.h"

#include <math.h>

static double even_below(double n) { return floor(n / 2) * 2; }

int64_t nb_video_count(const nb_video_sampling *s, int64_t total, double video_fps)
{
    double n, most = (double)total;
    if (s->nframes) {
        n = rint((double)s->nframes / 2) * 2;
    } else {
        if (!(video_fps > 0)) return 0;
        double min = ceil((s->min_frames ? (double)s->min_frames : 4) / 2) * 2;
        double max = even_below(s->max_frames ? (double)s->max_frames : fmin(768, most));
        n = most / video_fps * (s->fps > 0 ? s->fps : 2);
        n = even_below(fmin(fmin(fmax(n, min), max), most));
    }
    return n >= 2 && n <= most && n <= NB_VIDEO_MOST_FRAMES ? (int64_t)n : 0;
}

int64_t nb_video_index(int64_t total, int64_t n, int64_t i)
{
    float last = (float)(total - 1), step = last / (float)(n - 1);
    float at = i < n / 2 ? step * (float)i : fmaf(-step, (float)(n - 1 - i), last);
    return (int64_t)rintf(at);
}
