/* Video files: which frames the rule takes, what the helper program gives for videos of several formats (against PyAV), what
 * it refuses, and that a helper that misbehaves cannot hurt the program that started it. */
#include "unit_vision.h"

#include <jpeglib.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "runtime/vision/video.h"
#include "temp_files.h"

/* ---- the rule ---------------------------------------------------------------------------------------------------- */

static void counts(void **state)
{
    (void)state;
    static const struct {
        int64_t           total;
        double            fps;
        nb_video_sampling s;
        int64_t           want;
    } cases[] = { /* the request: fps, nframes, min_frames, max_frames */
        {243, 25, {0, 0, 0, 0}, 18},                                 /* 243 / 25 * 2 = 19.44 */
        {270, 359 / 12.0, {0, 0, 0, 0}, 18},                         /* 18.05 */
        {100, 25, {1, 0, 0, 0}, 4},                           /* 4 exactly */
        {100, 25, {0.5, 0, 0, 0}, 4},                         /* 2, but at least 4 */
        {100, 25, {0.5, 0, 1, 0}, 2},        /* the least is rounded up to 2 */
        {100, 25, {0.5, 0, 5, 0}, 6},
        {3, 25, {0, 0, 0, 0}, 2},                                    /* at least 4, but there are 3: 2 */
        {2, 25, {0, 0, 0, 0}, 2},
        {1, 25, {0, 0, 0, 0}, 0},
        {100000, 25, {0, 0, 0, 0}, 768},
        {100000, 25, {0, 0, 0, 33}, 32},
        {100000, 25, {0, 0, 0, 1}, 0},
        {100000, 25, {0, 0, 0, 1000}, 1000},
        {100, 25, {0, 5, 0, 0}, 4},                       /* 2.5 rounds to 2 */
        {100, 25, {0, 7, 0, 0}, 8},                       /* 3.5 rounds to 4 */
        {100, 0, {0, 8, 0, 0}, 8},
        {6, 25, {0, 7, 0, 0}, 0},                         /* more than there are */
        {100, 25, {0, 1, 0, 0}, 0},
        {100, 0, {0, 0, 0, 0}, 0},
        {100000, 10, {1000, 0, 0, 4096}, 4096},
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++)
        if (nb_video_count(&cases[i].s, cases[i].total, cases[i].fps) != cases[i].want)
            fail_msg("case %zu: %lld", i, (long long)nb_video_count(&cases[i].s, cases[i].total, cases[i].fps));
}

static void places(void **state)
{
    (void)state;
    static const struct {
        int total, n, want[20];
    } cases[] = { /* torch.linspace(0, total - 1, n).round() */
        {8, 4, {0, 2, 5, 7}},
        {100, 8, {0, 14, 28, 42, 57, 71, 85, 99}},
        {5, 2, {0, 4}},
        {2, 2, {0, 1}},
        {7, 5, {0, 2, 3, 4, 6}}, /* 1.5 and 4.5: halves go to the even side */
        {17, 14, {0, 1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 16}},
        {301, 20, {0, 16, 32, 47, 63, 79, 95, 111, 126, 142, 158, 174, 189, 205, 221, 237, 253, 268, 284, 300}},
    };
    for (size_t c = 0; c < NB_COUNT(cases); c++)
        for (int i = 0; i < cases[c].n; i++)
            if (nb_video_index(cases[c].total, cases[c].n, i) != cases[c].want[i])
                fail_msg("%d of %d, %d: %lld", cases[c].n, cases[c].total, i,
                         (long long)nb_video_index(cases[c].total, cases[c].n, i));
    int64_t sum = 0; /* the pair for which exact arithmetic gives 23545 at 602 */
    for (int i = 0; i < 768; i++) sum += nb_video_index(30000, 768, i);
    assert_int_equal(nb_video_index(30000, 768, 602), 23546);
    assert_int_equal(sum, 11519617);
    assert_int_equal(nb_video_index(10415, 768, 709), 9627);  /* 9626 when counted from the start */
    assert_int_equal(nb_video_index(12549, 768, 635), 10389); /* 10388 when product and difference are both rounded */
    for (int total = 2; total < 200; total++)
        for (int n = 2; n <= total; n += 2)
            for (int i = 0; i < n; i++) {
                int64_t at = nb_video_index(total, n, i);
                assert_true(at >= 0 && at < total && (i == 0 || at > nb_video_index(total, n, i - 1)));
            }
}

static void pixel_limits(void **state)
{
    (void)state;
    int64_t min, max;
    nb_video_pixels(&(nb_video_limits){0}, 4, &min, &max);
    assert_int_equal(min, 100352);
    assert_int_equal(max, 602112);
    nb_video_pixels(&(nb_video_limits){0}, 768, &min, &max); /* 90316800 / 768 * 2 = 235200 */
    assert_int_equal(max, 235200);
    nb_video_pixels(&(nb_video_limits){.total_pixels = 1000}, 2, &min, &max); /* 100352 * 1.05 = 105369.6 */
    assert_int_equal(max, 105369);
    nb_video_pixels(&(nb_video_limits){.max_pixels = 200704, .min_pixels = 3136}, 4, &min, &max);
    assert_int_equal(min, 3136);
    assert_int_equal(max, 200704);
    nb_video_pixels(&(nb_video_limits){.max_pixels = 50176}, 4, &min, &max);
    assert_int_equal(min, 50176);
    assert_int_equal(max, 50176);
    nb_video_pixels(&(nb_video_limits){.max_pixels = 900000}, 4, &min, &max);
    assert_int_equal(max, 602112);
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static const nb_video_limits raw = {.min_pixels = 784, .factor = 28}; /* frames whose sides are multiples of 28 stay as they are */

static const char *write_bytes(const char *name, const void *data, size_t n)
{
    const char *path = write_file(name, "");
    FILE       *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
    return path;
}

static const char *script(const char *body)
{
    char text[1024];
    snprintf(text, sizeof text, "#!/bin/sh\n%s\n", body);
    const char *path = write_file("helper.sh", text);
    assert_int_equal(chmod(path, 0700), 0);
    return path;
}

static void use(const char *helper) { assert_int_equal(setenv("NIBBLE_VIDEO_HELPER", helper, 1), 0); }

static void use_real(void)
{
#ifdef NIBBLE_VIDEO_PROGRAM
    use(NIBBLE_VIDEO_PROGRAM);
#else
    fprintf(stderr, "SKIP nibble-video was not built: FFmpeg's libraries are not here\n");
    skip();
#endif
}

typedef struct {
    uint8_t *data;
    size_t   n;
} bytes;

static void put(bytes *b, const void *p, size_t n)
{
    b->data = realloc(b->data, b->n + n);
    assert_non_null(b->data);
    memcpy(b->data + b->n, p, n);
    b->n += n;
}
static void put4(bytes *b, uint32_t v)
{
    const uint8_t le[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    put(b, le, 4);
}
static void put_name(bytes *b, const char *name) { put(b, name, 4); }

static uint8_t shade(int frame, int channel) { return (uint8_t)((frame * (channel == 0 ? 20 : channel == 1 ? 37 : 53) + 30) % 256); }

/* One grey-free flat picture as JPEG. */
static void put_jpeg(bytes *b, int width, int height, int frame)
{
    struct jpeg_compress_struct c;
    struct jpeg_error_mgr       e;
    unsigned char              *out = NULL;
    unsigned long               n = 0;
    uint8_t                    *row = malloc((size_t)width * 3);
    assert_non_null(row);
    for (int x = 0; x < width * 3; x++) row[x] = shade(frame, x % 3);
    c.err = jpeg_std_error(&e);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &out, &n);
    c.image_width = (JDIMENSION)width;
    c.image_height = (JDIMENSION)height;
    c.input_components = 3;
    c.in_color_space = JCS_RGB;
    jpeg_set_defaults(&c);
    jpeg_set_quality(&c, 95, TRUE);
    jpeg_start_compress(&c, TRUE);
    for (int y = 0; y < height; y++) jpeg_write_scanlines(&c, &row, 1);
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    free(row);
    put_name(b, "00dc");
    put4(b, (uint32_t)n);
    put(b, out, n);
    if (n & 1) put(b, "", 1);
    free(out);
}

/* An AVI file of flat pictures at `rate` a second: RIFF { hdrl { avih, strl { strh, strf } }, movi }, no index.
 * promised: the count in its headers; codec: "MJPG". */
static bytes make_avi(int width, int height, int frames, int promised, int rate, const char *codec)
{
    bytes movi = {0}, all = {0};
    for (int i = 0; i < frames; i++) put_jpeg(&movi, width, height, i);
    put_name(&all, "RIFF"), put4(&all, (uint32_t)(4 + 8 + 192 + 12 + movi.n)), put_name(&all, "AVI ");
    put_name(&all, "LIST"), put4(&all, 192), put_name(&all, "hdrl");
    put_name(&all, "avih"), put4(&all, 56);
    const uint32_t avih[14] = {1000000u / (unsigned)rate, 0, 0, 0, (unsigned)promised, 0, 1, 0, (unsigned)width, (unsigned)height};
    for (int i = 0; i < 14; i++) put4(&all, avih[i]);
    put_name(&all, "LIST"), put4(&all, 116), put_name(&all, "strl");
    put_name(&all, "strh"), put4(&all, 56), put_name(&all, "vids"), put_name(&all, codec);
    const uint32_t strh[12] = {0, 0, 0, 1, (unsigned)rate, 0, (unsigned)promised, 0, 0xffffffffu, 0, 0, 0};
    for (int i = 0; i < 12; i++) put4(&all, strh[i]);
    put_name(&all, "strf"), put4(&all, 40);
    put4(&all, 40), put4(&all, (unsigned)width), put4(&all, (unsigned)height), put4(&all, 1u | 24u << 16), put_name(&all, codec);
    for (int i = 0; i < 5; i++) put4(&all, 0);
    put_name(&all, "LIST"), put4(&all, (uint32_t)(4 + movi.n)), put_name(&all, "movi");
    if (movi.n) put(&all, movi.data, movi.n);
    free(movi.data);
    return all;
}

static const char *avi_file(int width, int height, int frames, int promised, int rate, const char *codec)
{
    bytes       b = make_avi(width, height, frames, promised, rate, codec);
    const char *path = write_bytes("made.avi", b.data, b.n);
    free(b.data);
    return path;
}

static void is_shade(const nb_image *image, int frame)
{
    const uint8_t *p = image->rgb + ((size_t)image->height / 2 * image->width + image->width / 2) * 3;
    for (int c = 0; c < 3; c++) NEAR(p[c], shade(frame, c), 4);
}

static void own_avi(void **state)
{
    (void)state;
    use_real();
    nb_error    err;
    nb_video    v;
    const char *path = avi_file(84, 56, 10, 10, 5, "MJPG");
    OK(nb_video_read(&v, path, NULL, &raw, &err), &err);
    static const int want[] = {0, 3, 6, 9}; /* 10 frames in 2 seconds: 4 of them */
    assert_int_equal(v.count, 4);
    assert_int_equal(v.total, 10);
    NEAR(v.fps, 5, 1e-6);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(v.frames[i].width, 84);
        assert_int_equal(v.frames[i].height, 56);
        is_shade(&v.frames[i], want[i]);
    }
    nb_video_free(&v);
    nb_video_limits all = raw;
    all.sampling.nframes = 10;
    OK(nb_video_read(&v, path, NULL, &all, &err), &err);
    assert_int_equal(v.count, 10);
    for (int i = 0; i < 10; i++) is_shade(&v.frames[i], i);
    nb_video_free(&v);
    all.sampling.nframes = 12;
    FAILS(nb_video_read(&v, path, NULL, &all, &err), NB_ERR_INPUT, "10 frames", &err);
    assert_null(v.frames);
    /* The published least size of a video's frame; the name as a URL, and below a root. */
    char url[200];
    snprintf(url, sizeof url, "file://%s", path);
    OK(nb_video_read(&v, url, NULL, &(nb_video_limits){.factor = 28}, &err), &err);
    assert_true((int64_t)v.frames[0].width * v.frames[0].height >= 100352);
    assert_int_equal(v.frames[0].width % 28, 0);
    assert_int_equal(v.frames[3].height, v.frames[0].height);
    assert_int_equal(v.width, 84);
    nb_video_free(&v);
    OK(nb_video_read(&v, "made.avi", &(nb_media_options){.root = folder}, &raw, &err), &err);
    nb_video_free(&v);
    nb_video_limits sized = raw;
    sized.resized_height = 280, sized.resized_width = 140;
    OK(nb_video_read(&v, path, NULL, &sized, &err), &err);
    assert_int_equal(v.frames[0].height, 280);
    assert_int_equal(v.frames[0].width, 140);
    nb_video_free(&v);
    path = avi_file(98, 54, 4, 4, 5, "MJPG"); /* rows of 294 bytes */
    OK(nb_video_read(&v, path, NULL, &raw, &err), &err);
    for (int i = 0; i < v.count; i++) is_shade(&v.frames[i], i);
    nb_video_free(&v);
}

/* Every format against PyAV's frames. */
static void formats(void **state)
{
    (void)state;
    use_real();
    cJSON *rows = unit_fixture("tests/golden/vision_video.json");
    int    seen = 0;
    for (const cJSON *row = rows->child; row; row = row->next, seen++) {
        nb_error        err;
        nb_video        v;
        nb_video_limits l = raw;
        const char     *name = unit_text(row, "name");
        nb_buf          file = unit_format(rows, name);
        const char     *path = write_bytes(name, file.data, file.size);
        l.sampling.fps = unit_number(row, "wanted_fps");
        OK(nb_video_read(&v, path, NULL, &l, &err), &err);
        const cJSON *frames = cJSON_GetObjectItemCaseSensitive(row, "frames");
        assert_int_equal(v.total, (int)unit_number(row, "total"));
        NEAR(v.fps, unit_number(row, "fps"), 1e-9);
        assert_int_equal(v.count, cJSON_GetArraySize(frames));
        for (int i = 0; i < v.count; i++) {
            const nb_image *f = &v.frames[i];
            assert_int_equal(f->width, (int)unit_number(row, "width"));
            assert_int_equal(f->height, (int)unit_number(row, "height"));
            for (int q = 0; q < 4; q++)
                for (int c = 0; c < 3; c++) {
                    double sum = 0;
                    for (int y = q / 2 * f->height / 2; y < (q / 2 + 1) * f->height / 2; y++)
                        for (int x = q % 2 * f->width / 2; x < (q % 2 + 1) * f->width / 2; x++)
                            sum += f->rgb[((size_t)y * f->width + x) * 3 + c];
                    double want = cJSON_GetArrayItem(cJSON_GetArrayItem(cJSON_GetArrayItem(frames, i), q), c)->valuedouble;
                    double got = sum / ((double)f->width * f->height / 4);
                    if (!(fabs(got - want) < 0.05)) fail_msg("%s frame %d quarter %d: %g, not %g", name, i, q, got, want);
                }
        }
        nb_video_free(&v);
        nb_buf_free(&file);
    }
    assert_int_equal(seen, 6);
    cJSON_Delete(rows);
}

/* Wherever a file is cut, it is refused or (only where the container does not say how long it is) read up to there; the helper
 * never dies of a signal. */
static void cut_files(void **state)
{
    (void)state;
    use_real();
    cJSON *rows = unit_fixture("tests/golden/vision_video.json");
    for (const cJSON *row = rows->child; row; row = row->next) {
        const char *name = unit_text(row, "name");
        bool        counted = strcmp(name, "fragments.mp4") && !strstr(name, ".webm");
        nb_buf      file = unit_format(rows, name);
        for (size_t part = 0; part < 16; part++) {
            nb_error    err;
            nb_video    v;
            const char *path = write_bytes("cut", file.data, file.size * part / 16);
            nb_status   status = nb_video_read(&v, path, NULL, &raw, &err);
            if (status == NB_OK ? counted : (status != NB_ERR_INPUT && status != NB_ERR_UNSUPPORTED))
                fail_msg("%s cut at %zu/16: status %d, %s", name, part, status, status ? err.text : "");
            if (status && strstr(err.text, "signal")) fail_msg("%s cut at %zu/16: %s", name, part, err.text);
            nb_video_free(&v);
        }
        nb_buf_free(&file);
    }
    cJSON_Delete(rows);
}

static void damaged_files(void **state)
{
    (void)state;
    use_real();
    cJSON   *rows = unit_fixture("tests/golden/vision_video.json");
    uint64_t seed = 5;
    for (const cJSON *row = rows->child; row; row = row->next) {
        nb_buf file = unit_format(rows, unit_text(row, "name"));
        for (int round = 0; round < 12; round++) {
            nb_error err;
            nb_video v;
            bytes    b = {0};
            put(&b, file.data, file.size);
            for (int i = 0; i < 1 + round; i++) b.data[12 + unit_random(&seed) % (b.n - 12)] ^= (uint8_t)(1u << unit_random(&seed) % 8);
            nb_status status = nb_video_read(&v, write_bytes("flipped", b.data, b.n), &(nb_media_options){.timeout_s = 20}, &raw, &err);
            if (status && (strstr(err.text, "signal") || status == NB_ERR_IO))
                fail_msg("%s round %d: %s", unit_text(row, "name"), round, err.text);
            nb_video_free(&v);
            free(b.data);
        }
        nb_buf_free(&file);
    }
    cJSON_Delete(rows);
}

static void refusals(void **state)
{
    (void)state;
    use_real();
    nb_error err;
    nb_video v;
#define REFUSED(path, status, part) FAILS(nb_video_read(&v, path, NULL, &raw, &err), status, part, &err)
    REFUSED(write_file("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"),
            NB_ERR_UNSUPPORTED, "list.m3u8: the video cannot be read: not a video of the kinds");
    REFUSED(write_file("list.mp4", "ffconcat version 1.0\nfile '/etc/passwd'\n"), NB_ERR_UNSUPPORTED, "not a video");
    REFUSED(write_file("clip.mp4", "    ftypisom is not enough of a video to be one"), NB_ERR_INPUT, "clip.mp4: the video cannot be read: damaged");
    REFUSED(write_file("clip.avi", "RIFF    AVI LIST and so on and so on and so on"), NB_ERR_INPUT, "no pictures");
    REFUSED(write_file("clip.mkv", "\x1a\x45\xdf\xa3 and so on and so on and so on"), NB_ERR_INPUT, "damaged");
    REFUSED(write_file("short.avi", "RIFF"), NB_ERR_INPUT, "too short");
    REFUSED(write_file("empty.avi", ""), NB_ERR_INPUT, "too short");
    REFUSED(avi_file(84, 56, 0, 0, 5, "MJPG"), NB_ERR_INPUT, "made.avi");
    REFUSED(avi_file(84, 56, 0, 9, 5, "MJPG"), NB_ERR_INPUT, "made.avi");
    REFUSED(avi_file(84, 56, 5, 900, 5, "MJPG"), NB_ERR_INPUT, "of 900 frames it holds 5");
    REFUSED(avi_file(84, 56, 1, 1, 5, "MJPG"), NB_ERR_INPUT, "1 frames");
    REFUSED(avi_file(84, 56, 5, 5, 5, "DIV3"), NB_ERR_UNSUPPORTED, "codec msmpeg4v3 is not one of");
    REFUSED(avi_file(8200, 56, 2, 2, 5, "MJPG"), NB_ERR_UNSUPPORTED, "8200 x 56");
    REFUSED(avi_file(16, 4000, 4, 4, 5, "MJPG"), NB_ERR_INPUT, "ratio"); /* 250: not a picture for the model */
    REFUSED("/tmp/nibble-no-such-video.mp4", NB_ERR_INPUT, "there is no such file");
    REFUSED(folder, NB_ERR_INPUT, "expected a file");
    REFUSED("", NB_ERR_INPUT, "empty");
    REFUSED("https://example.invalid/a.mp4?key=secret", NB_ERR_UNSUPPORTED, "https://example.invalid/a.mp4: a video must be a file");
    REFUSED("data:video/mp4;base64,AAAA", NB_ERR_UNSUPPORTED, "data URL");
    REFUSED("rtsp://example.invalid/a", NB_ERR_UNSUPPORTED, "must be a file");
    char link[160];
    snprintf(link, sizeof link, "%s/pipe", folder);
    assert_int_equal(mkfifo(link, 0600), 0);
    REFUSED(link, NB_ERR_INPUT, "expected a file");
    nb_video_limits large = raw;
    large.resized_height = large.resized_width = INT64_C(1) << 40;
    FAILS(nb_video_read(&v, avi_file(84, 56, 4, 4, 5, "MJPG"), NULL, &large, &err), NB_ERR_ARGUMENT, "resized_height", &err);
}

/* ---- helpers that misbehave -------------------------------------------------------------------------------------- */

/* printf octal of a header: magic and version, total 9, 5 fps, 28 x 28, count 2. */
#define HEADER "printf 'NBV1\\1\\0\\0\\0\\11\\0\\0\\0\\0\\0\\0\\0\\5\\0\\0\\0\\1\\0\\0\\0\\34\\0\\0\\0\\34\\0\\0\\0\\2\\0\\0\\0\\0\\0\\0\\0'; "

static void bad_helpers(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        nb_status   status;
        const char *part;
    } cases[] = {
        {"exec /bin/sleep 60", NB_ERR_INPUT, "longer than the 1 seconds"},
        {"/bin/sleep 60 & echo forked >&2; exit 3", NB_ERR_INPUT, "longer than the 1 seconds"},
        {HEADER "exec /bin/sleep 60", NB_ERR_INPUT, "longer than the 1 seconds"},
        {"exec >&-; exec /bin/sleep 60", NB_ERR_IO, "did not end as it should"},
        {"printf 'NBV1 and more text than a header has, which is 40 bytes'", NB_ERR_IO, "makes no sense"},
        {"printf NBV1", NB_ERR_IO, "exit code 0"},
        {HEADER, NB_ERR_IO, "exit code 0"},
        {HEADER "head -c 4000 /dev/zero", NB_ERR_IO, "exit code 0"},
        {HEADER "head -c 4705 /dev/zero", NB_ERR_IO, "more than it announced"},
        {HEADER "head -c 3000 /dev/zero; echo cut >&2; exit 3", NB_ERR_INPUT, "clip.mp4: the video cannot be read: cut"},
        {"head -c 300000 /dev/zero | tr '\\0' x >&2; exit 4", NB_ERR_UNSUPPORTED, "clip.mp4: the video cannot be read: xxx"},
        {"printf 'a\\033[31mb\\n c' >&2; exit 3", NB_ERR_INPUT, "read: a?[31mb"},
        {"echo no frames >&2; exit 5", NB_ERR_INPUT, "the video no frames"},
        {"kill -11 $$", NB_ERR_INPUT, "died of signal 11"},
        {"exit 7", NB_ERR_IO, "exit code 7"},
    };
    char clip[160];
    snprintf(clip, sizeof clip, "%s", write_file("clip.mp4", "any"));
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        nb_error err;
        nb_video v;
        use(script(cases[i].body));
        double    from = nb_seconds();
        nb_status status = nb_video_read(&v, clip, &(nb_media_options){.timeout_s = 1}, &raw, &err);
        if (status != cases[i].status || !strstr(err.text, cases[i].part))
            fail_msg("case %zu: status %d, %s", i, status, status ? err.text : "");
        if (!(nb_seconds() - from < 5)) fail_msg("case %zu took %g s", i, nb_seconds() - from);
        assert_null(v.frames);
        assert_int_equal(v.count, 0);
    }
    nb_error err;
    nb_video v;
    use(script(HEADER "head -c 4704 /dev/zero"));
    OK(nb_video_read(&v, clip, NULL, &raw, &err), &err);
    assert_int_equal(v.count, 2);
    assert_int_equal(v.total, 9);
    nb_video_free(&v);
    use("/nonexistent/helper");
    FAILS(nb_video_read(&v, clip, NULL, &raw, &err), NB_ERR_UNSUPPORTED, "NIBBLE_VIDEO_HELPER names no program", &err);
    use("");
    char beside[4096] = "";
    assert_true(readlink("/proc/self/exe", beside, sizeof beside - 20) > 0);
    strcpy(strrchr(beside, '/'), "/nibble-video");
    if (access(beside, X_OK) != 0)
        FAILS(nb_video_read(&v, clip, NULL, &raw, &err), NB_ERR_UNSUPPORTED, "NIBBLE_VIDEO", &err);
}

/* ---- memory, and real videos ------------------------------------------------------------------------------------- */

static void helper_memory(void **state)
{
    (void)state;
    use_real();
    nb_error        err;
    nb_video        v;
    nb_video_limits l = {.factor = 28, .sampling.nframes = 240, .max_pixels = 28 * 28 * 16, .min_pixels = 784};
    OK(nb_video_read(&v, avi_file(1280, 720, 240, 240, 24, "MJPG"), NULL, &l, &err), &err); /* 664 MB of frames */
    assert_int_equal(v.count, 240);
    for (int i = 0; i < 240; i += 13) is_shade(&v.frames[i], i);
    nb_video_free(&v);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    struct rusage u;
    assert_int_equal(getrusage(RUSAGE_CHILDREN, &u), 0);
    assert_true(u.ru_maxrss < 300 * 1024);
#endif
}

static void real_videos(void **state)
{
    (void)state;
    NEEDS_DATA("llamafactory/mllm_demo_data/1.mp4");
    use_real();
    static const struct {
        const char *file;
        int         total, width, height;
        double      fps, mean[3]; /* of the first frame, by PyAV */
    } videos[] = {{"1.mp4", 243, 640, 360, 25, {121.176, 103.415, 92.784}},
                  {"2.avi", 270, 320, 240, 359 / 12.0, {142.143, 120.046, 92.661}}};
    for (size_t i = 0; i < NB_COUNT(videos); i++) {
        char     name[80];
        nb_error err;
        nb_video v;
        snprintf(name, sizeof name, "llamafactory/mllm_demo_data/%s", videos[i].file);
        OK(nb_video_read(&v, unit_data(name), NULL, &(nb_video_limits){.factor = 28}, &err), &err);
        assert_int_equal(v.total, videos[i].total);
        assert_int_equal(v.count, 18);
        assert_int_equal(v.width, videos[i].width);
        assert_int_equal(v.height, videos[i].height);
        NEAR(v.fps, videos[i].fps, 1e-9);
        for (int c = 0; c < 3; c++) { /* resizing keeps the mean */
            double sum = 0;
            size_t n = (size_t)v.frames[0].width * v.frames[0].height;
            for (size_t p = 0; p < n; p++) sum += v.frames[0].rgb[p * 3 + c];
            NEAR(sum / (double)n, videos[i].mean[c], 0.4);
        }
        nb_video_free(&v);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts),        cmocka_unit_test(places),      cmocka_unit_test(pixel_limits),
        cmocka_unit_test(own_avi),       cmocka_unit_test(formats),     cmocka_unit_test(cut_files),
        cmocka_unit_test(damaged_files), cmocka_unit_test(refusals),    cmocka_unit_test(bad_helpers),
        cmocka_unit_test(helper_memory), cmocka_unit_test(real_videos),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
