/* video.c - the parent's side of nibble-video: start it, read its frames under limits, and end it whatever happens.
 *
 * The helper is trusted no more than the file it reads: sizes it reports are checked before memory is taken, it is killed at
 * the deadline, and its message is shown as text in one line.  Each frame is brought to the size of the rule when it arrives,
 * so that memory holds small frames and one large one.  The resize is Pillow's 8-bit bicubic, as for pictures; the published
 * reader resizes video frames in float, which differs by a level or two here and there.
 */
#include "runtime/vision/video.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/vision/preprocess.h"

enum { DEFAULT_SECONDS = 300, NAME_SIZE = 160, SAID_SIZE = 400, MOST_ARGUMENTS = 8 };
static const int64_t most_pixels = (int64_t)NB_VIDEO_MOST_SIDE * NB_VIDEO_MOST_SIDE / 2;      /* of a frame of the file */
static const int64_t most_bytes = INT64_C(4) << 30; /* of all frames, as read and resized */

void nb_video_free(nb_video *v)
{
    for (int i = 0; i < v->count; i++) nb_image_free(&v->frames[i]);
    free(v->frames);
    *v = (nb_video){0};
}

void nb_video_pixels(const nb_video_limits *l, int count, int64_t *min, int64_t *max)
{
    const int64_t published_min = 128 * 784, published_max = 768 * 784;
    const double  total = l->total_pixels ? (double)l->total_pixels : 128000 * 784 * 0.9;
    *min = l->min_pixels ? l->min_pixels : published_min;
    double computed = fmax(fmin((double)published_max, total / count * 2), trunc((double)*min * 1.05));
    if (l->max_pixels) computed = fmin((double)l->max_pixels, computed);
    *max = (int64_t)computed;
    if (*min > *max) *min = *max; /* a request for less than the published least */
}

/* ---- the program ------------------------------------------------------------------------------------------------- */

static bool runnable(const char *path) { return access(path, X_OK) == 0; }

/* $NIBBLE_VIDEO_HELPER, else beside the running program, else ../libexec/nibble of it. */
static nb_status find_helper(char out[4096], const char *name, nb_error *err)
{
    static const char *const places[] = {"/nibble-video", "/../libexec/nibble/nibble-video"};
    const char              *told = getenv("NIBBLE_VIDEO_HELPER");
    if (told && *told) {
        if (snprintf(out, 4096, "%s", told) < 4096 && runnable(out)) return NB_OK;
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: a video file, and NIBBLE_VIDEO_HELPER names no program: '%.200s'", name, told);
    }
    char    self[4000];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    char   *slash = n > 0 ? memrchr(self, '/', (size_t)n) : NULL;
    for (size_t i = 0; slash && i < NB_COUNT(places); i++) {
        snprintf(out, 4096, "%.*s%s", (int)(slash - self), self, places[i]);
        if (runnable(out)) return NB_OK;
    }
    return nb_fail(err, NB_ERR_UNSUPPORTED,
                   "%s: video files are read by the program nibble-video, which is not installed beside this one: build nibble "
                   "with the FFmpeg libraries (NIBBLE_VIDEO), or name it in NIBBLE_VIDEO_HELPER, or give the video as a list of "
                   "pictures", name);
}

typedef struct {
    char text[MOST_ARGUMENTS][48];
    char *list[MOST_ARGUMENTS + 1];
    int   count;
} arguments;

static void add_argument(arguments *a, const char *key, int64_t value)
{
    if (value) snprintf(a->text[a->count++], sizeof a->text[0], "%s=%lld", key, (long long)value);
}

static arguments make_arguments(const nb_video_sampling *s, int seconds)
{
    arguments a = {.count = 1, .text = {"nibble-video"}};
    if (s->fps > 0) snprintf(a.text[a.count++], sizeof a.text[0], "fps=%.17g", s->fps);
    add_argument(&a, "nframes", s->nframes);
    add_argument(&a, "min_frames", s->min_frames);
    add_argument(&a, "max_frames", s->max_frames);
    add_argument(&a, "max_pixels", most_pixels);
    add_argument(&a, "seconds", seconds);
    return a;
}

typedef struct {
    const char *name; /* of the video, for messages */
    pid_t       pid;  /* 0: none */
    int         out, said_fd; /* pipes from its standard output and error; -1: closed */
    double      deadline;
    int         seconds;
    char        said[SAID_SIZE];
    size_t      said_size;
} helper;

static void close_pair(int pair[2])
{
    if (pair[0] >= 0) close(pair[0]);
    if (pair[1] >= 0) close(pair[1]);
}

/* The child has its three descriptors and no others, default signals, and no environment but where its libraries are. */
static int spawn(helper *h, const char *program, arguments *a, int in, int out, int said)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t          attributes;
    sigset_t                   none, all;
    char                       libraries[4200], *environment[3] = {"LC_ALL=C"};
    const char                *path = getenv("LD_LIBRARY_PATH");
    if (path && snprintf(libraries, sizeof libraries, "LD_LIBRARY_PATH=%s", path) < (int)sizeof libraries) environment[1] = libraries;
    for (int i = 0; i < a->count; i++) a->list[i] = a->text[i];
    a->list[a->count] = NULL;
    sigemptyset(&none);
    sigfillset(&all);
    int code = posix_spawn_file_actions_init(&files);
    if (code) return code;
    code = posix_spawnattr_init(&attributes);
    if (code) {
        posix_spawn_file_actions_destroy(&files);
        return code;
    }
    /* Its own process group: an interrupt at the terminal is this program's to handle. */
    code = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    if (!code) code = posix_spawnattr_setsigmask(&attributes, &none);
    if (!code) code = posix_spawnattr_setsigdefault(&attributes, &all);
    if (!code) code = posix_spawn_file_actions_adddup2(&files, in, 0);
    if (!code) code = posix_spawn_file_actions_adddup2(&files, out, 1);
    if (!code) code = posix_spawn_file_actions_adddup2(&files, said, 2);
    if (!code) code = posix_spawn_file_actions_addclosefrom_np(&files, 3);
    if (!code) code = posix_spawn(&h->pid, program, &files, &attributes, a->list, environment);
    if (code) h->pid = 0;
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    return code;
}

/* A descriptor above 2, so that no dup2 in the child overwrites another's source. */
static int above_standard(int fd)
{
    if (fd < 0 || fd > 2) return fd;
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    close(fd);
    return moved;
}

static nb_status start(helper *h, const char *program, const nb_video_sampling *sampling, int in, nb_error *err)
{
    int       out[2] = {-1, -1}, said[2] = {-1, -1}, code = 0;
    arguments a = make_arguments(sampling, h->seconds);
    if (pipe2(out, O_CLOEXEC) != 0 || pipe2(said, O_CLOEXEC) != 0) code = errno;
    for (int i = 0; i < 2 && !code; i++) {
        out[i] = above_standard(out[i]);
        said[i] = above_standard(said[i]);
        if (out[i] < 0 || said[i] < 0) code = EMFILE;
    }
    if (!code && (fcntl(out[0], F_SETFL, O_NONBLOCK) != 0 || fcntl(said[0], F_SETFL, O_NONBLOCK) != 0)) code = errno;
    if (!code) code = spawn(h, program, &a, in, out[1], said[1]);
    if (code) {
        close_pair(out);
        close_pair(said);
        return nb_fail(err, NB_ERR_IO, "%s: the program '%.200s' cannot be started: %s", h->name, program, strerror(code));
    }
    close(out[1]);
    close(said[1]);
    h->out = out[0];
    h->said_fd = said[0];
    return NB_OK;
}

/* Kill what still runs, and wait for it; the wait status, or -1 when there is no process. */
static int finish(helper *h, bool kill_it)
{
    int code = -1;
    if (h->out >= 0) close(h->out);
    if (h->said_fd >= 0) close(h->said_fd);
    h->out = h->said_fd = -1;
    if (!h->pid) return -1;
    if (kill_it) kill(-h->pid, SIGKILL); /* its process group */
    pid_t done;
    do done = waitpid(h->pid, &code, 0);
    while (done < 0 && errno == EINTR);
    h->pid = 0;
    return done < 0 ? -1 : code;
}

static nb_status too_slow(const helper *h, nb_error *err)
{
    return nb_fail(err, NB_ERR_INPUT, "%s: reading the video took longer than the %d seconds allowed for it", h->name, h->seconds);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* Keep the start of what it says, drop the rest; closes at the end. */
static void read_said(helper *h)
{
    char    rest[1024];
    ssize_t n = read(h->said_fd, rest, sizeof rest);
    if (n > 0) {
        size_t keep = (size_t)n < SAID_SIZE - 1 - h->said_size ? (size_t)n : SAID_SIZE - 1 - h->said_size;
        memcpy(h->said + h->said_size, rest, keep);
        h->said_size += keep;
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        close(h->said_fd);
        h->said_fd = -1;
    }
}

/* Fill n bytes from the helper's output; *got < n: it ended before. */
static nb_status read_output(helper *h, void *to, size_t n, size_t *got, nb_error *err)
{
    *got = 0;
    while (*got < n) {
        double left = h->deadline - nb_seconds();
        if (left <= 0) return too_slow(h, err);
        struct pollfd fds[2] = {{.fd = h->out, .events = POLLIN}, {.fd = h->said_fd, .events = POLLIN}};
        int           ready = poll(fds, 2, (int)(fmin(left, 3600) * 1000) + 1);
        if (ready < 0 && errno != EINTR) return nb_fail(err, NB_ERR_IO, "%s: poll: %s", h->name, strerror(errno));
        if (ready <= 0) continue;
        if (fds[1].revents) read_said(h);
        if (!fds[0].revents) continue;
        ssize_t r = read(h->out, (char *)to + *got, n - *got);
        if (r == 0) return NB_OK;
        if (r > 0) *got += (size_t)r;
        if (r < 0 && errno != EAGAIN && errno != EINTR)
            return nb_fail(err, NB_ERR_IO, "%s: the helper's output cannot be read: %s", h->name, strerror(errno));
    }
    return NB_OK;
}

/* The output ended early or the helper failed: its exit code says what kind of failure, its message which. */
static nb_status explain(helper *h, nb_error *err)
{
    while (h->said_fd >= 0) { /* it has closed its output: the rest of its message comes at once, or it is stuck */
        struct pollfd fd = {.fd = h->said_fd, .events = POLLIN};
        if (nb_seconds() > h->deadline || poll(&fd, 1, 1000) <= 0) break;
        read_said(h);
    }
    bool stuck = h->said_fd >= 0;
    int  code = finish(h, stuck);
    h->said[strcspn(h->said, "\n")] = 0;
    const char *said = *h->said ? h->said : "it gives no reason";
    if (code >= 0 && WIFEXITED(code)) switch (WEXITSTATUS(code)) {
        case NB_VIDEO_EXIT_INPUT:
        case NB_VIDEO_EXIT_TIME: return nb_fail(err, NB_ERR_INPUT, "%s: the video cannot be read: %s", h->name, said);
        case NB_VIDEO_EXIT_UNSUPPORTED: return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: the video cannot be read: %s", h->name, said);
        case NB_VIDEO_EXIT_SAMPLING: return nb_fail(err, NB_ERR_INPUT, "%s: the video %s", h->name, said);
        default: return nb_fail(err, NB_ERR_IO, "%s: nibble-video failed (exit code %d): %s", h->name, WEXITSTATUS(code), said);
        }
    if (code >= 0 && WIFSIGNALED(code) && !stuck)
        return nb_fail(err, NB_ERR_INPUT, "%s: nibble-video died of signal %d on it: %s", h->name, WTERMSIG(code), said);
    return nb_fail(err, NB_ERR_IO, "%s: nibble-video did not end as it should: %s", h->name, said);
}

static nb_status check_header(const nb_video_header *d, const helper *h, nb_error *err)
{
    bool good = d->magic == NB_VIDEO_MAGIC && d->version == NB_VIDEO_VERSION && d->width >= 1 && d->height >= 1 &&
                d->width <= NB_VIDEO_MOST_SIDE && d->height <= NB_VIDEO_MOST_SIDE &&
                (int64_t)d->width * d->height <= most_pixels && d->count >= 2 && d->count <= NB_VIDEO_MOST_FRAMES &&
                d->total >= d->count && d->total <= NB_VIDEO_MOST_TOTAL && d->fps_den;
    return good ? NB_OK
                : nb_fail(err, NB_ERR_IO, "%s: nibble-video answers with a header that makes no sense; is it of another version?",
                          h->name);
}

static nb_status target_size(const nb_video_limits *l, const nb_video_header *d, int *h, int *w, nb_error *err)
{
    int64_t min, max;
    int     in_h = (int)d->height, in_w = (int)d->width;
    nb_video_pixels(l, (int)d->count, &min, &max);
    if (l->resized_height && l->resized_width) { /* as for pictures: the picture's limits apply */
        if (l->resized_height > INT32_MAX || l->resized_width > INT32_MAX || l->resized_height < 1 || l->resized_width < 1)
            return nb_fail(err, NB_ERR_ARGUMENT, "resized_height and resized_width must be numbers of pixels");
        in_h = (int)l->resized_height;
        in_w = (int)l->resized_width;
        min = 4 * 784;
        max = 16384 * 784;
    }
    return nb_smart_resize(in_h, in_w, l->factor, min, max, h, w, err);
}

static nb_status read_frames(nb_video *out, helper *h, const nb_video_limits *limits, nb_error *err)
{
    nb_video_header d;
    size_t          got;
    int             height, width;
    NB_TRY(read_output(h, &d, sizeof d, &got, err));
    if (got < sizeof d) return explain(h, err);
    NB_TRY(check_header(&d, h, err));
    nb_status status = target_size(limits, &d, &height, &width, err);
    if (status != NB_OK) return nb_error_within(err, "%s", h->name);
    if ((int64_t)height * width > most_bytes / 3 / d.count)
        return nb_fail(err, NB_ERR_BUDGET, "%s: %u frames of %d x %d pixels are too much; lower max_frames or max_pixels", h->name,
                       d.count, width, height);
    NB_TRY(nb_alloc(&out->frames, d.count, sizeof *out->frames, "video frames", err));
    out->total = d.total;
    out->fps = (double)d.fps_num / d.fps_den;
    out->width = (int)d.width;
    out->height = (int)d.height;
    nb_image raw = {.width = out->width, .height = out->height};
    size_t   n = (size_t)d.width * d.height * 3;
    status = nb_alloc(&raw.rgb, n, 1, "a video frame", err);
    while (status == NB_OK && out->count < (int)d.count) {
        status = read_output(h, raw.rgb, n, &got, err);
        if (status == NB_OK && got < n) status = explain(h, err);
        if (status == NB_OK) status = nb_image_resize(&out->frames[out->count], &raw, width, height, err);
        out->count += status == NB_OK;
    }
    nb_image_free(&raw);
    if (status != NB_OK) return status;
    char more;
    NB_TRY(read_output(h, &more, 1, &got, err));
    if (got) return nb_fail(err, NB_ERR_IO, "%s: nibble-video sends more than it announced", h->name);
    /* All frames are here; a helper that then fails, or will not end, has nothing more to say. */
    finish(h, true);
    return NB_OK;
}

static nb_status open_file(int *fd, const char *reference, const char *name, const char *root, nb_error *err)
{
    const char *path = strncasecmp(reference, "file://", 7) ? reference : reference + 7;
    size_t      scheme = strspn(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-");
    *fd = -1;
    if (!strncasecmp(path, "data:", 5) || (scheme > 1 && !strncmp(path + scheme, "://", 3)))
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: a video must be a file here; download it first and give its path", name);
    if (!*path) return nb_fail(err, NB_ERR_INPUT, "the path of a video is empty");
    char *joined = root ? nb_path_join(root, path) : nb_strdup(path);
    if (!joined) return nb_fail(err, NB_ERR_MEMORY, "no memory for a path of %zu bytes", strlen(path));
    nb_status status = nb_open_regular(fd, NULL, joined, err);
    free(joined);
    if (status == NB_OK && (*fd = above_standard(*fd)) < 0) status = nb_fail(err, NB_ERR_IO, "%s: too many open files", name);
    return status;
}

nb_status nb_video_read(nb_video *out, const char *reference, const nb_media_options *media, const nb_video_limits *limits,
                        nb_error *err)
{
    char   name[NAME_SIZE], program[4096];
    int    fd;
    helper h = {.name = name, .out = -1, .said_fd = -1, .seconds = media && media->timeout_s > 0 ? media->timeout_s : DEFAULT_SECONDS};
    *out = (nb_video){0};
    nb_media_name(name, reference);
    NB_TRY(open_file(&fd, reference, name, media ? media->root : NULL, err));
    h.deadline = nb_seconds() + h.seconds;
    nb_status status = find_helper(program, name, err);
    if (status == NB_OK) status = start(&h, program, &limits->sampling, fd, err);
    close(fd);
    if (status == NB_OK) status = read_frames(out, &h, limits, err);
    finish(&h, true);
    if (status != NB_OK) nb_video_free(out);
    return status;
}
