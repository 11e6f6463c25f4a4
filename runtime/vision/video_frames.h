/* video_frames.h - which frames of a video the model sees (qwen-vl-utils from 0.0.10), and the header of the stream of frames
 * between the helper program nibble-video and video.c.
 *
 * Shared by both sides of the pipe, so it needs nothing but the C library.
 */
#ifndef NB_VIDEO_FRAMES_H
#define NB_VIDEO_FRAMES_H

#include <stdint.h>

enum {
    NB_VIDEO_MOST_FRAMES = 4096,     /* sampled */
    NB_VIDEO_MOST_TOTAL = 1 << 24,   /* in the file: the last whole number that a float counts to */
    NB_VIDEO_MOST_SIDE = 8192,       /* pixels */
};

/* What the caller asked for; zeros: the rule's own (2 frames a second, at least 4 and at most 768). */
typedef struct {
    double  fps;
    int64_t nframes, min_frames, max_frames;
} nb_video_sampling;

/* The number of frames to take of `total` at total / seconds = video_fps; 0 when the rule gives none, or more than there are. */
int64_t nb_video_count(const nb_video_sampling *s, int64_t total, double video_fps);
/* The i-th of n >= 2 frames spread over total >= n, ascending. */
int64_t nb_video_index(int64_t total, int64_t n, int64_t i);

/* On the pipe: this header, then count frames of height * width * 3 bytes (RGB, rows top to bottom).  Both ends run on one
 * machine and come from one build: the numbers are the machine's own. */
#define NB_VIDEO_MAGIC   0x3156424eu
#define NB_VIDEO_VERSION 1u
typedef struct {
    uint32_t magic, version;
    int64_t  total;            /* frames in the file */
    uint32_t fps_num, fps_den; /* of the file; 0 / 1 when it does not say */
    uint32_t width, height, count, reserved;
} nb_video_header;

/* Exit codes of the helper, which says more on standard error in one line. */
enum {
    NB_VIDEO_EXIT_OK = 0,
    NB_VIDEO_EXIT_USAGE = 2,
    NB_VIDEO_EXIT_INPUT = 3,       /* damaged, or not a video */
    NB_VIDEO_EXIT_UNSUPPORTED = 4, /* a format, codec or size that is refused */
    NB_VIDEO_EXIT_SAMPLING = 5,    /* the wanted frames are not there */
    NB_VIDEO_EXIT_TIME = 6,
    NB_VIDEO_EXIT_SYSTEM = 7,      /* memory, pipe */
};

#endif
