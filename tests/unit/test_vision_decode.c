/* The decoders: Pillow's pixels for every kind of file, and damaged files that must be refused and must not crash.
 * The files are those of tests/golden/vision_formats.json and the shared test data; sanitizers make this worth most. */
#include "unit_vision.h"

static nb_status decode(nb_image *out, const nb_buf *bytes, const char *name, nb_error *err)
{
    return nb_image_decode(out, bytes->data, bytes->size, name, NULL, err);
}

static void every_kind_matches_pillow(void **state)
{
    nb_error err;
    int      n = 0;
    cJSON   *formats = unit_fixture("tests/golden/vision_formats.json");
    (void)state;
    for (const cJSON *row = formats->child; row; row = row->next, n++) {
        const char *name = unit_text(row, "name");
        nb_buf      bytes = unit_format(formats, name);
        nb_image    image;
        char        hash[65];
        for (int white = 0; white < 2; white++) {
            OK(nb_image_decode(&image, bytes.data, bytes.size, name, &(nb_decode_limits){ .white_alpha = white }, &err), &err);
            assert_int_equal(image.width, (int)unit_number(row, "width"));
            assert_int_equal(image.height, (int)unit_number(row, "height"));
            unit_image_hash(hash, &image);
            if (strcmp(hash, unit_text(row, white ? "white_sha256" : "rgb_sha256")))
                fail_msg("%s (mode %s, white %d): pixels differ from Pillow's", name, unit_text(row, "mode"), white);
            nb_image_free(&image);
        }
        nb_buf_free(&bytes);
    }
    assert_true(n >= 65);
    cJSON_Delete(formats);
}

/* Block means of an 8 x 8 grid: block i spans rows [i * h / 8, (i + 1) * h / 8). */
static void check_block_means(const nb_image *image, const cJSON *grid, const char *name)
{
    int y = 0;
    for (const cJSON *row = grid->child; row; row = row->next, y++) {
        int x = 0;
        for (const cJSON *cell = row->child; cell; cell = cell->next, x++) {
            double sum[3] = { 0 };
            int    top = y * image->height / 8, bottom = (y + 1) * image->height / 8;
            int    left = x * image->width / 8, right = (x + 1) * image->width / 8, c = 0;
            for (int i = top; i < bottom; i++)
                for (int j = left; j < right; j++)
                    for (int k = 0; k < 3; k++) sum[k] += image->rgb[((size_t)i * image->width + j) * 3 + k];
            for (const cJSON *want = cell->child; want; want = want->next, c++)
                if (!(fabs(sum[c] / ((bottom - top) * (right - left)) - want->valuedouble) <= 2))
                    fail_msg("%s: block %d,%d", name, y, x);
        }
    }
}

static void reference_file(void **state)
{
    nb_error err;
    int      equal = 0, refused = 0, n = 0;
    (void)state;
    NEEDS_DATA("images/decode_reference.json");
    cJSON *tree;
    OK(nb_json_file(&tree, unit_data("images/decode_reference.json"), 1 << 20, &err), &err);
    for (const cJSON *row = tree->child; row; row = row->next, n++) {
        nb_buf   bytes;
        nb_image image;
        char     hash[65];
        OK(nb_media_read(&bytes, unit_data(row->string), NULL, &err), &err);
        if (unit_text(row, "error")) {
            FAILS(decode(&image, &bytes, row->string, &err), NB_ERR_INPUT, row->string, &err);
            refused++;
        } else {
            OK(decode(&image, &bytes, row->string, &err), &err);
            assert_int_equal(image.width, (int)unit_number(row, "width"));
            assert_int_equal(image.height, (int)unit_number(row, "height"));
            unit_image_hash(hash, &image);
            const char *want = unit_text(row, "rgb_sha256"), *mode = unit_text(row, "mode"), *format = unit_text(row, "format");
            if (want && strcmp(format, "WEBP") && strcmp(mode, "CMYK") && strcmp(hash, want)) fail_msg("%s: hash", row->string);
            equal += want && !strcmp(hash, want);
            const cJSON *grid = cJSON_GetObjectItem(row, "rgb_grid8");
            if (grid) check_block_means(&image, grid, row->string);
            nb_image_free(&image);
        }
        nb_buf_free(&bytes);
    }
    printf("             %d files: %d with exactly the reference's pixels, %d refused\n", n, equal, refused);
    assert_true(n >= 51 && refused == 3);
    cJSON_Delete(tree);
}

/* ---- damaged files ---- */

static const char *const KINDS[] = {
    "png-2-8",    "png-6-16-interlaced", "png-3-4",    "jpeg-420",       "jpeg-progressive", "jpeg-restart", "jpeg-cmyk",
    "webp-lossy", "webp-lossless-alpha", "gif-global", "gif-interlaced", "bmp-24",           "bmp-8"
};

/* A copy of exactly n bytes, so that a sanitizer sees one byte too many. */
static void *exactly(const void *bytes, size_t n)
{
    void *copy = malloc(n ? n : 1);
    assert_non_null(copy);
    memcpy(copy, bytes, n);
    return copy;
}

static void truncated_files_are_refused(void **state)
{
    nb_error err;
    cJSON   *formats = unit_fixture("tests/golden/vision_formats.json");
    int      n = 0;
    (void)state;
    for (size_t k = 0; k < NB_COUNT(KINDS); k++) {
        nb_buf bytes = unit_format(formats, KINDS[k]);
        for (int part = 0; part <= 64; part++, n++) {
            /* the hardest case is the last byte; but a BMP may lack the last row's padding, a PNG the last checksum and
             * a GIF its end mark */
            size_t   spare = *KINDS[k] == 'b' ? 4 : *KINDS[k] == 'p' ? 5 : *KINDS[k] == 'g' ? 2 : 1;
            size_t   length = bytes.size * part / 64 < bytes.size - spare ? bytes.size * part / 64 : bytes.size - spare;
            uint8_t *copy = exactly(bytes.data, length);
            nb_image image;
            if (nb_image_decode(&image, copy, length, KINDS[k], NULL, &err) != NB_ERR_INPUT || !strstr(err.text, KINDS[k]))
                fail_msg("%s cut to %zu of %zu bytes: '%s'", KINDS[k], length, bytes.size, err.text);
            assert_null(image.rgb);
            free(copy);
        }
        nb_buf_free(&bytes);
    }
    assert_true(n > 800);
    cJSON_Delete(formats);
}

/* Any damage may be noticed or not, but decoding has to end, without touching memory that is not its own. */
static void random_damage_is_survived(void **state)
{
    nb_error err;
    cJSON   *formats = unit_fixture("tests/golden/vision_formats.json");
    uint64_t seed = 77;
    int      accepted = 0, refused = 0;
    (void)state;
    for (const cJSON *row = formats->child; row; row = row->next) {
        nb_buf bytes = unit_format(formats, unit_text(row, "name"));
        for (int round = 0; round < 60; round++) {
            uint8_t *copy = exactly(bytes.data, bytes.size);
            size_t   length = bytes.size;
            for (uint32_t hits = 1 + unit_random(&seed) % 4; hits > 0; hits--) {
                size_t at = unit_random(&seed) % (round % 2 ? length : length < 64 ? length : 64);
                copy[at] = round % 3 ? (uint8_t)unit_random(&seed) : (uint8_t)(unit_random(&seed) % 2 ? 0xff : 0);
            }
            nb_image  image;
            nb_status status =
                nb_image_decode(&image, copy, length, "damaged", &(nb_decode_limits){ .max_pixels = 1 << 22 }, &err);
            assert_true(status == NB_OK ? image.rgb != NULL : image.rgb == NULL && err.text[0]);
            status == NB_OK ? accepted++ : refused++;
            nb_image_free(&image);
            free(copy);
        }
        nb_buf_free(&bytes);
    }
    assert_true(accepted > 100 && refused > 100);
    cJSON_Delete(formats);
}

static void write_be(uint8_t *p, uint32_t v, int n)
{
    for (int i = 0; i < n; i++) p[i] = (uint8_t)(v >> 8 * (n - 1 - i));
}

/* Width and height into the header of a PNG, with a right checksum. */
static void lie_in_png(nb_buf *b, uint32_t w, uint32_t h, int depth, int colour)
{
    uint8_t *p = (uint8_t *)b->data;
    write_be(p + 16, w, 4);
    write_be(p + 20, h, 4);
    p[24] = (uint8_t)depth;
    p[25] = (uint8_t)colour;
    uint32_t crc = ~0u;
    for (int i = 12; i < 29; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    write_be(p + 29, ~crc, 4);
}
static void lie_in_jpeg(nb_buf *b, uint32_t w, uint32_t h, int precision, int components)
{
    uint8_t *p = (uint8_t *)b->data;
    size_t   i = 2;
    while (p[i + 1] < 0xc0 || p[i + 1] > 0xc2) i += 2 + ((size_t)p[i + 2] << 8 | p[i + 3]);
    p[i + 4] = (uint8_t)precision;
    write_be(p + i + 5, h, 2);
    write_be(p + i + 7, w, 2);
    p[i + 9] = (uint8_t)components;
}
static void lie_in_gif(nb_buf *b, uint32_t w, uint32_t h, int frame_too, int unused)
{
    uint8_t  le[4] = { (uint8_t)w, (uint8_t)(w >> 8), (uint8_t)h, (uint8_t)(h >> 8) };
    uint8_t *frame = (uint8_t *)b->data + 13 + 768 + 9 + 5 /* the comment, ",", left and top */;
    (void)unused;
    memcpy(b->data + 6, le, 4);
    if (frame_too) memcpy(frame, le, 4);
}
static void lie_in_bmp(nb_buf *b, uint32_t w, uint32_t h, int bits, int compression)
{
    uint8_t *p = (uint8_t *)b->data;
    for (int i = 0; i < 4; i++) p[18 + i] = (uint8_t)(w >> 8 * i), p[22 + i] = (uint8_t)(h >> 8 * i);
    p[28] = (uint8_t)bits;
    p[30] = (uint8_t)compression;
}
/* A lossless WebP: 14 bits each of width - 1 and height - 1. */
static void lie_in_webp(nb_buf *b, uint32_t w, uint32_t h, int unused, int unused_too)
{
    uint8_t *p = (uint8_t *)b->data + 21;
    uint32_t v = (w - 1) | (h - 1) << 14;
    (void)unused, (void)unused_too;
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> 8 * i);
}

static void lying_headers_are_refused(void **state)
{
    static const struct {
        const char *file;
        void (*lie)(nb_buf *b, uint32_t w, uint32_t h, int a, int c);
        uint32_t    w, h;
        int         a, c;
        nb_status   status;
        const char *text;
    } cases[] = {
        { "png-2-8", lie_in_png, 65535, 65535, 8, 2, NB_ERR_INPUT, "65535 x 65535 pixels, more than the limit" },
        { "png-2-8", lie_in_png, 0x7fffffff, 0x7fffffff, 8, 2, NB_ERR_INPUT, "damaged PNG" },
        { "png-2-8", lie_in_png, 13000, 13000, 8, 2, NB_ERR_INPUT, "cannot fit in a file of" },
        { "png-2-8", lie_in_png, 0, 5, 8, 2, NB_ERR_INPUT, "png-2-8" },
        { "png-2-8", lie_in_png, 5, 0, 8, 2, NB_ERR_INPUT, "png-2-8" },
        { "png-2-8", lie_in_png, 0x80000000, 1, 8, 2, NB_ERR_INPUT, "png-2-8" },
        { "png-2-8", lie_in_png, 19, 11, 3, 2, NB_ERR_INPUT, "damaged PNG" },
        { "png-2-8", lie_in_png, 19, 11, 8, 3, NB_ERR_INPUT, "damaged PNG" }, /* palette missing */
        { "png-2-8", lie_in_png, 19, 11, 8, 5, NB_ERR_INPUT, "damaged PNG" },
        { "png-2-8", lie_in_png, 19, 12, 8, 2, NB_ERR_INPUT, "damaged PNG" }, /* one row too few */
        { "png-2-8", lie_in_png, 19, 11, 8, 6, NB_ERR_INPUT, "damaged PNG" }, /* three quarters of the bytes */
        { "jpeg-420", lie_in_jpeg, 65500, 65500, 8, 3, NB_ERR_INPUT, "65500 x 65500 pixels, more than the limit" },
        { "jpeg-420", lie_in_jpeg, 65535, 65535, 8, 3, NB_ERR_INPUT, "damaged JPEG" }, /* above the format's own 65500 */
        { "jpeg-420", lie_in_jpeg, 13000, 13000, 8, 3, NB_ERR_INPUT, "cannot fit" },
        { "jpeg-progressive", lie_in_jpeg, 13000, 13000, 8, 3, NB_ERR_INPUT, "cannot fit" },
        { "jpeg-420", lie_in_jpeg, 0, 43, 8, 3, NB_ERR_INPUT, "damaged JPEG" },
        { "jpeg-420", lie_in_jpeg, 61, 0, 8, 3, NB_ERR_INPUT, "jpeg-420" },
        { "jpeg-420", lie_in_jpeg, 61, 430, 8, 3, NB_ERR_INPUT, "jpeg-420" },
        { "jpeg-420", lie_in_jpeg, 61, 43, 12, 3, NB_ERR_UNSUPPORTED, "precision" },
        { "jpeg-420", lie_in_jpeg, 61, 43, 8, 1, NB_ERR_INPUT, "damaged JPEG" },
        { "gif-global", lie_in_gif, 65535, 65535, 1, 0, NB_ERR_INPUT, "more than the limit" },
        { "gif-global", lie_in_gif, 65535, 65535, 0, 0, NB_ERR_INPUT, "more than the limit" },
        { "gif-global", lie_in_gif, 13000, 13000, 1, 0, NB_ERR_INPUT, "cannot fit" },
        { "gif-global", lie_in_gif, 30, 30, 1, 0, NB_ERR_INPUT, "ends too early" },
        { "gif-global", lie_in_gif, 0, 0, 1, 0, NB_ERR_INPUT, "empty" },
        { "bmp-24", lie_in_bmp, 65535, 65535, 24, 0, NB_ERR_INPUT, "65535 x 65535" },
        { "bmp-24", lie_in_bmp, 16384, 10000, 24, 0, NB_ERR_INPUT, "cannot fit" },
        { "bmp-24", lie_in_bmp, 19, 8, 24, 0, NB_ERR_INPUT, "cannot fit" },
        { "bmp-24", lie_in_bmp, 0, 7, 24, 0, NB_ERR_INPUT, "nothing to see" },
        { "bmp-24", lie_in_bmp, 0xffffffff, 7, 24, 0, NB_ERR_INPUT, "nothing to see" },
        { "bmp-24", lie_in_bmp, 19, 0x80000000, 24, 0, NB_ERR_INPUT, "19 x 2147483648" },
        { "bmp-24", lie_in_bmp, 19, 7, 17, 0, NB_ERR_UNSUPPORTED, "17 bits" },
        { "bmp-8", lie_in_bmp, 19, 7, 8, 1, NB_ERR_UNSUPPORTED, "compression 1" },
        { "webp-lossless", lie_in_webp, 16384, 16384, 0, 0, NB_ERR_INPUT, "more than the limit" },
        { "webp-lossless", lie_in_webp, 16384, 8000, 0, 0, NB_ERR_INPUT, "damaged WebP" },
    };
    nb_error err;
    cJSON   *formats = unit_fixture("tests/golden/vision_formats.json");
    (void)state;
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        nb_buf   bytes = unit_format(formats, cases[i].file);
        nb_image image;
        cases[i].lie(&bytes, cases[i].w, cases[i].h, cases[i].a, cases[i].c);
        FAILS(decode(&image, &bytes, cases[i].file, &err), cases[i].status, cases[i].text, &err);
        if (!strstr(err.text, cases[i].file)) fail_msg("'%s' does not name the file", err.text);
        assert_null(image.rgb);
        nb_buf_free(&bytes);
    }
    cJSON_Delete(formats);
}

static void not_pictures_are_refused(void **state)
{
    static const struct {
        const char *bytes;
        size_t      n;
        const char *text;
    } cases[] = {
#define BYTES(s) s, sizeof(s) - 1
        { BYTES(""), "empty" },
        { BYTES("\xff"), "not a JPEG" },
        { BYTES("\xff\xd8"), "not a JPEG" },
        { BYTES("\xff\xd8\xff"), "damaged JPEG" },
        { BYTES("\xff\xd8\xff\xd9"), "damaged JPEG" },
        { BYTES("\xff\xd8\xff\xe0 this is text"), "damaged JPEG" },
        { BYTES("\x89PNG\r\n\x1a\n"), "damaged PNG" },
        { BYTES("\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), "damaged PNG" },
        { BYTES("\x89PNG\n\x1a\n\0\0\0\0\rIHDR"), "not a JPEG" },
        { BYTES("GIF89a"), "cut short" },
        { BYTES("GIF87a\1\0\1\0\0\0\0;"), "no picture" },
        { BYTES("GIF87a\1\0\1\0\0\0\0,\0\0\0\0\1\0\1\0\0\x0c"), "code size" },
        { BYTES("GIF87a\1\0\1\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\1\7\0;"), "not in the table" },
        { BYTES("RIFF\4\0\0\0WEBP"), "damaged WebP" },
        { BYTES("RIFF\4\0\0\0WAVE"), "not a JPEG" },
        { BYTES("BM"), "damaged BMP" },
        { BYTES("BMP is a format"), "damaged BMP" },
        { BYTES("hello, world"), "no known signature" },
        { BYTES("<!DOCTYPE html><html>"), "HTML" },
        { BYTES("  \n<svg xmlns='http://www.w3.org/2000/svg'/>"), "SVG" },
        { BYTES("%PDF-1.4"), "PDF" },
        { BYTES("II*\0\10\0\0\0"), "TIFF" },
        { BYTES("\0\0\0\x18"
                "ftypheic\0\0\0\0"),
          "HEIC" },
        { BYTES("version https://git-lfs.github.com/spec/v1"), "git lfs pull" },
        { BYTES("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), "no known signature" },
#undef BYTES
    };
    nb_error err;
    (void)state;
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        nb_image image;
        void    *copy = exactly(cases[i].bytes, cases[i].n);
        FAILS(nb_image_decode(&image, copy, cases[i].n, "x.png", NULL, &err), NB_ERR_INPUT, cases[i].text, &err);
        assert_null(image.rgb);
        free(copy);
    }
}

static void limits_hold(void **state)
{
    nb_error err;
    nb_image image;
    cJSON   *formats = unit_fixture("tests/golden/vision_formats.json");
    (void)state;
    for (size_t k = 0; k < NB_COUNT(KINDS); k++) {
        nb_buf bytes = unit_format(formats, KINDS[k]);
        OK(nb_image_decode(&image, bytes.data, bytes.size, KINDS[k], NULL, &err), &err);
        nb_decode_limits limits = { .max_pixels = (int64_t)image.width * image.height };
        nb_image_free(&image);
        OK(nb_image_decode(&image, bytes.data, bytes.size, KINDS[k], &limits, &err), &err);
        nb_image_free(&image);
        limits.max_pixels--;
        FAILS(nb_image_decode(&image, bytes.data, bytes.size, KINDS[k], &limits, &err), NB_ERR_INPUT, "more than the limit of",
              &err);
        nb_buf_free(&bytes);
    }
    cJSON_Delete(formats);
}

/* A progressive JPEG whose second DC scan (one bit a block, so any number of them is well formed) comes again and again:
 * 150 are decoded, 300 refused. */
static void scan_bombs_are_refused(void **state)
{
    nb_error err;
    nb_image image;
    cJSON   *formats = unit_fixture("tests/golden/vision_formats.json");
    nb_buf   bytes = unit_format(formats, "jpeg-progressive");
    uint8_t *p = (uint8_t *)bytes.data;
    size_t   from = 0, to = 0; /* FF DA, length, components, .., Ss, Se, Ah Al */
    (void)state;
    for (size_t i = 0; i + 14 < bytes.size && !to; i++) {
        if (p[i] != 0xff || p[i + 1] == 0 || p[i + 1] == 0xff) continue;
        if (from) to = i;
        if (p[i + 1] == 0xda && p[i + 3] == 12 && p[i + 11] == 0 && p[i + 12] == 0 && p[i + 13] == 0x10) from = i;
    }
    assert_true(to > from && from > 0);
    for (int scans = 150; scans <= 300; scans += 150) {
        nb_buf bomb = { 0 };
        nb_buf_add(&bomb, p, from);
        for (int i = 0; i < scans; i++) nb_buf_add(&bomb, p + from, to - from);
        nb_buf_add(&bomb, p + to, bytes.size - to);
        if (scans == 150)
            OK(decode(&image, &bomb, "bomb", &err), &err);
        else
            FAILS(decode(&image, &bomb, "bomb", &err), NB_ERR_INPUT, "bomb: a JPEG of more than 200 scans", &err);
        nb_image_free(&image);
        nb_buf_free(&bomb);
    }
    nb_buf_free(&bytes);
    cJSON_Delete(formats);
}

/* The content decides, not the name; what follows the picture (a ZIP, say) is ignored, as Pillow does. */
static void names_do_not_matter(void **state)
{
    nb_error err;
    nb_image image;
    cJSON   *formats = unit_fixture("tests/golden/vision_formats.json");
    (void)state;
    for (size_t k = 0; k < NB_COUNT(KINDS); k++) {
        nb_buf bytes = unit_format(formats, KINDS[k]);
        nb_buf_str(&bytes, "PK\3\4<script>");
        OK(decode(&image, &bytes, "wrong.tiff", &err), &err);
        nb_image_free(&image);
        nb_buf_free(&bytes);
    }
    cJSON_Delete(formats);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_matches_pillow),
        cmocka_unit_test(reference_file),
        cmocka_unit_test(truncated_files_are_refused),
        cmocka_unit_test(random_damage_is_survived),
        cmocka_unit_test(lying_headers_are_refused),
        cmocka_unit_test(not_pictures_are_refused),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(scan_bombs_are_refused),
        cmocka_unit_test(names_do_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
