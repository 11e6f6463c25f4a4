/* video.h - frames out of a video file, through the separate program nibble-video.
 *
 * Containers and codecs are read by libraries that see much hostile input, so they run in a process of their own that is
 * given an open file and a pipe and nothing else.  Without that program everything but video files works.
 */
#ifndef NB_VIDEO_H
#define NB_VIDEO_H

#include "runtime/vision/image.h"
#include "runtime/vision/media.h"
#include "runtime/vision/video_frames.h"

typedef struct {
    nb_video_sampling sampling;
    /* Of one frame after resizing; zeros: the published 128*784 .. min(768*784, total_pixels / frames * 2), where max_pixels
     * lowers the upper one.  resized_height and resized_width (both) replace the frames' own size in the rule. */
    int64_t min_pixels, max_pixels, total_pixels, resized_height, resized_width;
    int     factor; /* sides become multiples of this: patch * merge */
} nb_video_limits;

typedef struct {
    nb_image *frames; /* [count], all of one size */
    int       count;
    int64_t   total;          /* frames in the file */
    double    fps;            /* of the file; 0: it does not say */
    int       width, height;  /* of the file */
} nb_video;

void nb_video_free(nb_video *v); /* zeroes it */

/* What a frame may measure, in pixels: [min, max]. */
void nb_video_pixels(const nb_video_limits *l, int count, int64_t *min, int64_t *max);

/* reference: a path or file:// URL; media: its root and time limit (NULL: the defaults; for a video, 0 means 300 seconds).
 * NB_ERR_UNSUPPORTED when the helper is not installed, or refuses the format. */
nb_status nb_video_read(nb_video *out, const char *reference, const nb_media_options *media, const nb_video_limits *limits,
                        nb_error *err);

#endif
