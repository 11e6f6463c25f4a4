/* nibble_video.c - the program nibble-video: a video file on standard input to sampled RGB frames on standard output.
 *
 *     nibble-video [fps=F] [nframes=N] [min_frames=N] [max_frames=N] [max_pixels=N] [seconds=N]  < FILE
 *
 * Demuxers and decoders meet hostile bytes, so this process gives up everything that it does not need before it looks at the
 * first one (cage.h): it has an open file and two pipes, opens nothing, starts nothing, and its memory and time are limited.
 * The container is told by its first bytes and only mov/mp4, matroska/webm and avi are ever read: a playlist is not a video here.
 *
 * The file is read twice: packets are counted, then decoded in order up to the last frame that is wanted.  At most a few
 * frames are in memory.  Messages are this program's own; what the libraries say about the input is not passed on.  Rotation
 * marks are ignored, as in the readers that the rule comes from.  Colours follow the marks of the file; without them BT.601.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/imgutils.h>
#include <libswscale/swscale.h>

#include "runtime/vision/video_frames.h"
#include "tools/video/cage.h"

enum {
    IO_BUFFER = 1 << 16,
    MOST_STREAMS = 32,
    PROBE_BYTES = 5 << 20,
    /* Packets without a frame may stand at the end of old AVI files; a frame or two may so be missing at the end, and the last
     * frame stands in for them. */
    FRAMES_SHORT = 2,
};

static const char codecs[] = "h264,hevc,vp8,vp9,av1,libdav1d,mpeg4,mjpeg";

typedef struct {
    nb_video_sampling sampling;
    int64_t           max_pixels, seconds;
} request;

typedef struct {
    int64_t position, size; /* of standard input */
} file;

/* All that is alive; the process ends instead of freeing when something goes wrong. */
typedef struct {
    request            want;
    file               in;
    AVFormatContext   *format;
    AVCodecContext    *decoder;
    struct SwsContext *scale;
    AVPacket          *packet;
    AVFrame           *frame;
    int                stream, pixel_format; /* of every frame: that of the first */
    uint8_t           *rgb;                  /* [height, stride] */
    int                stride;
    nb_video_header    header;
    int64_t            sent, decoded;
} video;

static void stop(int code, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));
static void stop(int code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    _exit(code);
}

static void out_of_time(int number)
{
    static const char text[] = "decoding took longer than allowed\n";
    (void)number;
    ssize_t ignored = write(2, text, sizeof text - 1);
    (void)ignored;
    _exit(NB_VIDEO_EXIT_TIME);
}

/* ---- the request ---------------------------------------------------------------------------------------------------- */

static int64_t whole(const char *key, const char *value, int64_t max)
{
    char *end;
    errno = 0;
    long long n = strtoll(value, &end, 10);
    if (errno || *end || end == value || n < 1 || n > max)
        stop(NB_VIDEO_EXIT_USAGE, "%s must be a whole number from 1 to %lld", key, (long long)max);
    return n;
}

static request read_request(int argc, char **argv)
{
    request r = {.max_pixels = (int64_t)NB_VIDEO_MOST_SIDE * NB_VIDEO_MOST_SIDE / 2, .seconds = 300};
    for (int i = 1; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (!value) stop(NB_VIDEO_EXIT_USAGE, "usage: nibble-video [KEY=NUMBER]... < FILE; it is started by nibble");
        *value++ = 0;
        const char *key = argv[i];
        if (!strcmp(key, "fps")) {
            char *end;
            r.sampling.fps = strtod(value, &end);
            if (*end || end == value || !(r.sampling.fps > 0 && r.sampling.fps <= 1000))
                stop(NB_VIDEO_EXIT_USAGE, "fps must be a number above 0, up to 1000");
        } else if (!strcmp(key, "nframes")) {
            r.sampling.nframes = whole(key, value, NB_VIDEO_MOST_FRAMES);
        } else if (!strcmp(key, "min_frames")) {
            r.sampling.min_frames = whole(key, value, NB_VIDEO_MOST_FRAMES);
        } else if (!strcmp(key, "max_frames")) {
            r.sampling.max_frames = whole(key, value, NB_VIDEO_MOST_FRAMES);
        } else if (!strcmp(key, "max_pixels")) {
            r.max_pixels = whole(key, value, (int64_t)NB_VIDEO_MOST_SIDE * NB_VIDEO_MOST_SIDE);
        } else if (!strcmp(key, "seconds")) {
            r.seconds = whole(key, value, 86400);
        } else {
            stop(NB_VIDEO_EXIT_USAGE, "no setting is called '%.40s'", key);
        }
    }
    if (r.sampling.fps > 0 && r.sampling.nframes) stop(NB_VIDEO_EXIT_USAGE, "give fps or nframes, not both");
    return r;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

static int read_bytes(void *opaque, uint8_t *to, int n)
{
    file   *in = opaque;
    ssize_t got;
    do got = pread(0, to, (size_t)n, in->position);
    while (got < 0 && errno == EINTR);
    if (got < 0) return AVERROR(EIO);
    if (got == 0) return AVERROR_EOF;
    in->position += got;
    return (int)got;
}

/* Places beyond the end are refused: that is how a demuxer learns that the file was cut. */
static int64_t seek_bytes(void *opaque, int64_t offset, int whence)
{
    file *in = opaque;
    if (whence & AVSEEK_SIZE) return in->size;
    whence &= ~AVSEEK_FORCE;
    int64_t from = whence == SEEK_CUR ? in->position : whence == SEEK_END ? in->size : 0, to;
    if (__builtin_add_overflow(from, offset, &to) || to < 0 || to > in->size) return AVERROR(EINVAL);
    return in->position = to;
}

static int open_nothing(AVFormatContext *f, AVIOContext **out, const char *url, int flags, AVDictionary **options)
{
    (void)f, (void)url, (void)flags, (void)options;
    *out = NULL;
    return AVERROR(EPERM);
}

static const char *container(const uint8_t head[12])
{
    static const char *const boxes[] = {"ftyp", "moov", "mdat", "free", "skip", "wide", "pnot"};
    if (!memcmp(head, "RIFF", 4) && (!memcmp(head + 8, "AVI ", 4) || !memcmp(head + 8, "AVIX", 4))) return "avi";
    if (!memcmp(head, "\x1a\x45\xdf\xa3", 4)) return "matroska";
    for (size_t i = 0; i < sizeof boxes / sizeof boxes[0]; i++)
        if (!memcmp(head + 4, boxes[i], 4)) return "mov";
    return NULL;
}

static void open_container(video *v)
{
    struct stat s;
    uint8_t     head[12] = {0};
    if (fstat(0, &s) != 0 || !S_ISREG(s.st_mode)) stop(NB_VIDEO_EXIT_USAGE, "standard input must be a file");
    v->in.size = s.st_size;
    if (pread(0, head, sizeof head, 0) != sizeof head) stop(NB_VIDEO_EXIT_INPUT, "too short for a video");
    const char          *name = container(head);
    const AVInputFormat *input = name ? av_find_input_format(name) : NULL;
    if (!input) stop(NB_VIDEO_EXIT_UNSUPPORTED, "not a video of the kinds mp4, mov, mkv, webm and avi");

    uint8_t *buffer = av_malloc(IO_BUFFER);
    v->format = avformat_alloc_context();
    AVIOContext *io = buffer ? avio_alloc_context(buffer, IO_BUFFER, 0, &v->in, read_bytes, NULL, seek_bytes) : NULL;
    if (!v->format || !io) stop(NB_VIDEO_EXIT_SYSTEM, "out of memory");
    v->format->pb = io;
    v->format->flags |= AVFMT_FLAG_CUSTOM_IO;
    v->format->io_open = open_nothing;
    v->format->probesize = PROBE_BYTES;
    v->format->max_analyze_duration = 5 * AV_TIME_BASE;
    v->format->max_streams = MOST_STREAMS;
    v->format->protocol_whitelist = av_strdup("");
    v->format->format_whitelist = av_strdup("mov,mp4,matroska,webm,avi");
    v->format->codec_whitelist = av_strdup(codecs);
    if (!v->format->protocol_whitelist || !v->format->format_whitelist || !v->format->codec_whitelist)
        stop(NB_VIDEO_EXIT_SYSTEM, "out of memory");
    if (avformat_open_input(&v->format, NULL, input, NULL) < 0)
        stop(NB_VIDEO_EXIT_INPUT, "damaged: its %s structure cannot be read", name);
}

static void choose_stream(video *v)
{
    for (unsigned i = 0; i < v->format->nb_streams; i++)
        if (v->format->streams[i]->codecpar->codec_type != AVMEDIA_TYPE_VIDEO) v->format->streams[i]->discard = AVDISCARD_ALL;
    if (avformat_find_stream_info(v->format, NULL) < 0) stop(NB_VIDEO_EXIT_INPUT, "damaged: its streams cannot be read");
    v->stream = av_find_best_stream(v->format, AVMEDIA_TYPE_VIDEO, -1, -1, NULL, 0);
    if (v->stream < 0 || v->format->streams[v->stream]->disposition & AV_DISPOSITION_ATTACHED_PIC)
        stop(NB_VIDEO_EXIT_INPUT, "has no pictures in it");
    for (unsigned i = 0; i < v->format->nb_streams; i++)
        if ((int)i != v->stream) v->format->streams[i]->discard = AVDISCARD_ALL;
}

static bool allowed(const char *name)
{
    size_t n = strlen(name);
    for (const char *p = codecs; p; p = strchr(p, ',')) {
        p += *p == ',';
        if (!strncmp(p, name, n) && (p[n] == ',' || !p[n])) return true;
    }
    return false;
}

static void open_decoder(video *v)
{
    const AVCodecParameters *p = v->format->streams[v->stream]->codecpar;
    const AVCodec           *codec = avcodec_find_decoder(p->codec_id);
    if (!codec || !allowed(codec->name))
        stop(NB_VIDEO_EXIT_UNSUPPORTED, "codec %.40s is not one of H.264, HEVC, VP8, VP9, AV1, MPEG-4 and MJPEG",
             avcodec_get_name(p->codec_id));
    if (p->width < 1 || p->height < 1) stop(NB_VIDEO_EXIT_INPUT, "damaged: it does not say how large its frames are");
    if (p->width > NB_VIDEO_MOST_SIDE || p->height > NB_VIDEO_MOST_SIDE || (int64_t)p->width * p->height > v->want.max_pixels)
        stop(NB_VIDEO_EXIT_UNSUPPORTED, "frames of %d x %d pixels are larger than allowed", p->width, p->height);
    v->decoder = avcodec_alloc_context3(codec);
    v->packet = av_packet_alloc();
    v->frame = av_frame_alloc();
    if (!v->decoder || !v->packet || !v->frame) stop(NB_VIDEO_EXIT_SYSTEM, "out of memory");
    if (avcodec_parameters_to_context(v->decoder, p) < 0) stop(NB_VIDEO_EXIT_SYSTEM, "out of memory");
    v->decoder->thread_count = 1; /* flat memory, no new threads */
    v->decoder->max_pixels = v->want.max_pixels;
    v->decoder->pkt_timebase = v->format->streams[v->stream]->time_base;
    if (avcodec_open2(v->decoder, codec, NULL) < 0) stop(NB_VIDEO_EXIT_INPUT, "damaged: its decoder refuses the settings");
}

/* ---- counting ---------------------------------------------------------------------------------------------------- */

/* Does a packet show a frame?  Not when an edit list cuts it, and VP8 keeps invisible frames in packets of their own. */
static bool shows(const video *v, const AVPacket *p)
{
    if (p->flags & AV_PKT_FLAG_DISCARD || p->size == 0) return false;
    return v->decoder->codec_id != AV_CODEC_ID_VP8 || p->data[0] & 0x10;
}

/* The next packet of our stream into v->packet; false at the end. */
static bool next_packet(video *v)
{
    for (int code;;) {
        code = av_read_frame(v->format, v->packet);
        if (code == AVERROR_EOF) return false;
        if (code < 0 || v->packet->flags & AV_PKT_FLAG_CORRUPT)
            stop(NB_VIDEO_EXIT_INPUT, "damaged or cut off after frame %lld", (long long)(v->decoded ? v->decoded : v->header.total));
        if (v->packet->stream_index == v->stream) return true;
        av_packet_unref(v->packet);
    }
}

static void count_frames(video *v)
{
    const AVStream *s = v->format->streams[v->stream];
    int64_t         packets = 0, promised = s->nb_frames;
    while (next_packet(v)) {
        packets++;
        v->header.total += shows(v, v->packet);
        av_packet_unref(v->packet);
        if (packets > NB_VIDEO_MOST_TOTAL) stop(NB_VIDEO_EXIT_UNSUPPORTED, "more than %d frames", NB_VIDEO_MOST_TOTAL);
    }
    if (!packets) stop(NB_VIDEO_EXIT_INPUT, "has no frames");
    /* An AVI header's count is written last, or never; edit lists of an mp4 lower it before the first packet. */
    bool avi = !strcmp(v->format->iformat->name, "avi");
    if (avi && promised > packets)
        stop(NB_VIDEO_EXIT_INPUT, "damaged or cut off: of %lld frames it holds %lld", (long long)promised, (long long)packets);
    AVRational fps = s->avg_frame_rate.num > 0 && s->avg_frame_rate.den > 0 ? s->avg_frame_rate : s->r_frame_rate;
    bool       known = fps.num > 0 && fps.den > 0;
    v->header.fps_num = known ? (uint32_t)fps.num : 0;
    v->header.fps_den = known ? (uint32_t)fps.den : 1;
    if (!known && !v->want.sampling.nframes)
        stop(NB_VIDEO_EXIT_SAMPLING, "does not say how many frames it shows a second; give nframes");
    double  rate = known ? av_q2d(fps) : 0;
    int64_t n = nb_video_count(&v->want.sampling, v->header.total, rate);
    if (!n)
        stop(NB_VIDEO_EXIT_SAMPLING, "holds %lld frames at %.4g a second, of which the rule takes none, or more than there are",
             (long long)v->header.total, rate);
    v->header.count = (uint32_t)n;
    /* Back to the start: to the first packet, whatever its time. */
    if (av_seek_frame(v->format, v->stream, s->start_time != AV_NOPTS_VALUE && s->start_time < 0 ? s->start_time : 0,
                      AVSEEK_FLAG_BACKWARD) < 0 &&
        avformat_seek_file(v->format, v->stream, INT64_MIN, 0, INT64_MAX, 0) < 0)
        stop(NB_VIDEO_EXIT_INPUT, "damaged: it cannot be read a second time");
}

/* ---- frames out -------------------------------------------------------------------------------------------------- */

static void write_all(const void *data, size_t n)
{
    for (const uint8_t *p = data; n;) {
        ssize_t put = write(1, p, n);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) stop(NB_VIDEO_EXIT_SYSTEM, "the frames cannot be passed on");
        p += put;
        n -= (size_t)put;
    }
}

/* swscale knows the old full-range formats by another name. */
static enum AVPixelFormat plain_format(enum AVPixelFormat f, bool *full)
{
    static const struct {
        enum AVPixelFormat old, plain;
    } names[] = {{AV_PIX_FMT_YUVJ420P, AV_PIX_FMT_YUV420P}, {AV_PIX_FMT_YUVJ422P, AV_PIX_FMT_YUV422P},
                 {AV_PIX_FMT_YUVJ444P, AV_PIX_FMT_YUV444P}, {AV_PIX_FMT_YUVJ440P, AV_PIX_FMT_YUV440P},
                 {AV_PIX_FMT_YUVJ411P, AV_PIX_FMT_YUV411P}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (f == names[i].old) {
            *full = true;
            return names[i].plain;
        }
    return f;
}

static void start_output(video *v, const AVFrame *f)
{
    bool full = f->color_range == AVCOL_RANGE_JPEG;
    int  width = f->width, height = f->height;
    if (width < 1 || height < 1 || width > NB_VIDEO_MOST_SIDE || height > NB_VIDEO_MOST_SIDE ||
        (int64_t)width * height > v->want.max_pixels)
        stop(NB_VIDEO_EXIT_UNSUPPORTED, "frames of %d x %d pixels are larger than allowed", width, height);
    enum AVPixelFormat from = plain_format(f->format, &full);
    v->scale = sws_getContext(width, height, from, width, height, AV_PIX_FMT_RGB24, SWS_BILINEAR, NULL, NULL, NULL);
    if (!v->scale) stop(NB_VIDEO_EXIT_UNSUPPORTED, "its pixel format cannot be brought to RGB");
    int matrix = f->colorspace == AVCOL_SPC_UNSPECIFIED || f->colorspace == AVCOL_SPC_RGB ? SWS_CS_ITU601 : (int)f->colorspace;
    sws_setColorspaceDetails(v->scale, sws_getCoefficients(matrix), full, sws_getCoefficients(SWS_CS_DEFAULT), 1, 0, 1 << 16,
                             1 << 16);
    /* swscale's vector code wants aligned rows, and may write whole vectors at the end of one. */
    v->stride = (width * 3 + 127) / 64 * 64;
    v->rgb = av_malloc((size_t)v->stride * (size_t)height);
    if (!v->rgb) stop(NB_VIDEO_EXIT_SYSTEM, "out of memory");
    v->header.magic = NB_VIDEO_MAGIC;
    v->header.version = NB_VIDEO_VERSION;
    v->header.width = (uint32_t)width;
    v->header.height = (uint32_t)height;
    v->pixel_format = f->format;
    write_all(&v->header, sizeof v->header);
}

static void send_frame(video *v)
{
    write_all(v->rgb, (size_t)v->header.width * v->header.height * 3);
    v->sent++;
}

/* The next frame in the order of showing; sent when it is wanted, and kept when it may have to stand in for missing ones. */
static void take_frame(video *v)
{
    const AVFrame *f = v->frame;
    int64_t        number = v->decoded++;
    if (number == 0) start_output(v, f);
    if (f->width != (int)v->header.width || f->height != (int)v->header.height || f->format != v->pixel_format)
        stop(NB_VIDEO_EXIT_UNSUPPORTED, "frame %lld has another size or format than the first", (long long)number);
    bool near_end = number + 1 + FRAMES_SHORT >= v->header.total;
    bool wanted = v->sent < v->header.count && nb_video_index(v->header.total, v->header.count, v->sent) <= number;
    if (!wanted && !near_end) return;
    uint8_t *planes[4] = {v->rgb};
    int      strides[4] = {v->stride};
    if (sws_scale(v->scale, (const uint8_t *const *)f->data, f->linesize, 0, f->height, planes, strides) != f->height)
        stop(NB_VIDEO_EXIT_INPUT, "damaged: frame %lld cannot be brought to RGB", (long long)number);
    size_t row = (size_t)v->header.width * 3;
    for (size_t y = 1; y < v->header.height; y++) memmove(v->rgb + y * row, v->rgb + y * (size_t)v->stride, row);
    while (v->sent < v->header.count && nb_video_index(v->header.total, v->header.count, v->sent) <= number) send_frame(v);
}

/* Decode one packet, or with NULL what is left inside. */
static void decode(video *v, const AVPacket *packet)
{
    if (avcodec_send_packet(v->decoder, packet) < 0)
        stop(NB_VIDEO_EXIT_INPUT, "damaged: what follows frame %lld cannot be decoded", (long long)v->decoded);
    while (v->sent < v->header.count) {
        int code = avcodec_receive_frame(v->decoder, v->frame);
        if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) return;
        if (code < 0) stop(NB_VIDEO_EXIT_INPUT, "damaged: frame %lld cannot be decoded", (long long)v->decoded);
        take_frame(v);
        av_frame_unref(v->frame);
    }
}

static void send_frames(video *v)
{
    while (v->sent < v->header.count && next_packet(v)) {
        if (v->packet->size) decode(v, v->packet); /* an empty packet repeats a frame in AVI, and would end the decoder */
        av_packet_unref(v->packet);
    }
    if (v->sent < v->header.count) decode(v, NULL);
    if (v->decoded && v->decoded + FRAMES_SHORT >= v->header.total)
        while (v->sent < v->header.count) send_frame(v);
    if (v->sent < v->header.count)
        stop(NB_VIDEO_EXIT_INPUT, "damaged: of %lld frames only %lld can be decoded", (long long)v->header.total,
             (long long)v->decoded);
}

int main(int argc, char **argv)
{
    video v = {.want = read_request(argc, argv)};
    if (!nb_enter_cage(v.want.seconds, out_of_time)) stop(NB_VIDEO_EXIT_SYSTEM, "the limits for reading a video cannot be set");
    av_log_set_level(AV_LOG_QUIET);
    open_container(&v);
    choose_stream(&v);
    open_decoder(&v);
    count_frames(&v);
    send_frames(&v);
    sws_freeContext(v.scale);
    av_free(v.rgb);
    av_frame_free(&v.frame);
    av_packet_free(&v.packet);
    avcodec_free_context(&v.decoder);
    AVIOContext *io = v.format->pb;
    avformat_close_input(&v.format);
    av_freep(&io->buffer);
    avio_context_free(&io);
    return NB_VIDEO_EXIT_OK;
}
