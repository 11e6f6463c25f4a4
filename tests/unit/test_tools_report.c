/* Pages and plots: hostile text, the style sheet's hash against an independent SHA-256, plots with values that cannot be drawn, and
 * thumbnails of good and broken pictures. */
#include "temp_files.h"

#include "runtime/vision/image.h"
#include "tools/report/html.h"
#include "tools/report/svg.h"
#include "tools/report/thumbnail.h"

static size_t count(const char *text, const char *part)
{
    size_t n = 0;
    for (const char *at = text; (at = strstr(at, part)) != NULL; at += strlen(part)) n++;
    return n;
}

static void plain_number(char out[32], double v)
{
    snprintf(out, 32, "%g", v);
}

/* ---- text ------------------------------------------------------------------------------------------------------------ */

static void text_is_escaped(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } cases[] = {
        { "plain", "plain" },
        { NULL, "" },
        { "<script>alert('1')</script>", "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;" },
        { "\" onload=\"x", "&quot; onload=&quot;x" },
        { "&amp;", "&amp;amp;" },
        { "a\nb\tc", "a\nb\tc" },
        { "\x01\x1b[31m\x7f\r", "\xef\xbf\xbd\xef\xbf\xbd[31m\xef\xbf\xbd\xef\xbf\xbd" },
        { "caf\xc3\xa9 \xe4\xb8\xad \xf0\x9f\x98\x80", "caf\xc3\xa9 \xe4\xb8\xad \xf0\x9f\x98\x80" },
        { "\xc3(", "\xef\xbf\xbd(" },                    /* cut in the middle */
        { "x\xe4\xb8", "x\xef\xbf\xbd" },                /* cut at the end */
        { "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" }, /* a surrogate */
        { "\xc0\xbc", "\xef\xbf\xbd\xef\xbf\xbd" },      /* an overlong '<' */
        { "a\xe2\x80\xae" "b", "a\xef\xbf\xbd" "b" },    /* would turn the direction of what follows */
        { "\xef\xbf\xbe\xc2\x85", "\xef\xbf\xbd\xef\xbf\xbd" },
    };
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        nb_buf out = { 0 };
        nb_buf_str(&out, "");
        nb_html_text(&out, cases[i].text);
        assert_string_equal(out.data, cases[i].want);
        nb_buf_free(&out);
    }
}

static void every_part_escapes(void **state)
{
    (void)state;
    const char          *evil = "</title></style></svg><img src=x onerror=alert(1)>\"'";
    const double         x[] = { 0, 1, 2 }, y[] = { 1, 4, 9 };
    const nb_svg_chart   chart = { .title = evil, .note = evil, .x = evil, .y = evil };
    const nb_svg_series  series = { evil, y };
    const nb_html_column columns[] = { { evil, false }, { evil, true } };
    nb_buf               out = { 0 };
    nb_html_begin(&out, evil);
    nb_html_section(&out, "id", evil);
    nb_html_element(&out, "p", NULL, evil);
    nb_html_printf(&out, "%s", evil);
    nb_html_table(&out, evil, columns, 2);
    nb_html_row(&out, columns, 2, (const char *const[]){ evil, evil });
    nb_html_table_end(&out);
    nb_svg_lines(&out, &chart, x, 3, &series, 1, 5, evil);
    nb_svg_scatter(&out, &chart, x, y, 3);
    nb_svg_histogram(&out, &chart, y, 3, 0, 9, 3);
    nb_svg_bars(&out, &chart, &evil, 1, &series, 1, plain_number);
    nb_html_end(&out);
    assert_null(strstr(out.data, "<img"));
    assert_int_equal(count(out.data, "</title>"), 1);
    assert_int_equal(count(out.data, "</style>"), 1);
    assert_int_equal(count(out.data, "<svg"), 4);
    assert_int_equal(count(out.data, "</svg>"), 4);
    assert_int_equal(count(out.data, "onerror=alert"), count(out.data, "&lt;img src=x onerror=alert(1)&gt;&quot;&#39;"));
    assert_int_equal(count(out.data, "<script"), 0);
    assert_int_equal(count(out.data, "style=\""), 0);
    assert_int_equal(count(out.data, "http:") + count(out.data, "https:"), 0);
    nb_buf_free(&out);
}

/* FIPS 180-4, as short as it gets. */
static void sha256(uint8_t out[32], const uint8_t *text, size_t n)
{
    uint32_t h[8], k[64];
    int      found = 0;
    for (uint32_t c = 2; found < 64; c++) { /* fractions of the roots of the first primes */
        bool prime = true;
        for (uint32_t d = 2; d * d <= c; d++) prime = prime && c % d;
        if (!prime) continue;
        long double cube = cbrtl(c), square = sqrtl(c);
        k[found] = (uint32_t)((cube - floorl(cube)) * 4294967296.0L);
        if (found < 8) h[found] = (uint32_t)((square - floorl(square)) * 4294967296.0L);
        found++;
    }
    size_t   padded = (n + 9 + 63) / 64 * 64;
    uint8_t *p = calloc(padded, 1);
    memcpy(p, text, n);
    p[n] = 0x80;
    for (int i = 0; i < 8; i++) p[padded - 1 - (size_t)i] = (uint8_t)(n * 8 >> (8 * i));
#define R(v, s) ((v) >> (s) | (v) << (32 - (s)))
    for (size_t block = 0; block < padded; block += 64) {
        uint32_t w[64], v[8];
        for (int i = 0; i < 16; i++)
            w[i] = (uint32_t)p[block + 4 * i] << 24 | (uint32_t)p[block + 4 * i + 1] << 16 | (uint32_t)p[block + 4 * i + 2] << 8 | p[block + 4 * i + 3];
        for (int i = 16; i < 64; i++)
            w[i] = (R(w[i - 2], 17) ^ R(w[i - 2], 19) ^ w[i - 2] >> 10) + w[i - 7] + (R(w[i - 15], 7) ^ R(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 16];
        memcpy(v, h, sizeof v);
        for (int i = 0; i < 64; i++) {
            uint32_t a = v[7] + (R(v[4], 6) ^ R(v[4], 11) ^ R(v[4], 25)) + ((v[4] & v[5]) ^ (~v[4] & v[6])) + k[i] + w[i];
            uint32_t b = (R(v[0], 2) ^ R(v[0], 13) ^ R(v[0], 22)) + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
            memmove(v + 1, v, 7 * sizeof *v);
            v[4] += a;
            v[0] = a + b;
        }
        for (int i = 0; i < 8; i++) h[i] += v[i];
    }
#undef R
    free(p);
    for (int i = 0; i < 32; i++) out[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}

static void style_has_its_hash(void **state)
{
    (void)state;
    uint8_t  got[32], want[32] = { 0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea }; /* "abc" */
    nb_buf   decoded = { 0 };
    nb_error err;
    sha256(got, (const uint8_t *)"abc", 3);
    assert_memory_equal(got, want, 8);
    sha256(got, (const uint8_t *)nb_html_style, strlen(nb_html_style));
    assert_memory_equal(nb_html_style_hash, "sha256-", 7);
    OK(nb_base64_decode(&decoded, nb_html_style_hash + 7, strlen(nb_html_style_hash + 7), "hash", &err), &err);
    assert_int_equal(decoded.size, 32);
    assert_memory_equal(decoded.data, got, 32);
    nb_buf_free(&decoded);
}

/* ---- plots ----------------------------------------------------------------------------------------------------------- */

static void what_cannot_be_drawn_is_left_out(void **state)
{
    (void)state;
    const double        x[] = { 0, 1, 2, 3, 4 }, y[] = { 1, NAN, INFINITY, 0, 100 }, none[] = { NAN, NAN, NAN, NAN, NAN };
    const nb_svg_chart  log_chart = { .title = "t", .x = "x", .y = "y", .log_y = true }, chart = { .title = "t", .x = "x", .y = "y" };
    const nb_svg_series both[] = { { "a", y }, { "b", none } }, nothing = { "b", none };
    nb_buf              out = { 0 };
    nb_svg_lines(&out, &log_chart, x, 5, both, 2, NAN, NULL);
    assert_int_equal(count(out.data, "<circle"), 2); /* 1 and 100: not a number, infinite and 0 on a logarithmic axis are not drawn */
    assert_int_equal(count(out.data, "class=\"limit\""), 0);
    nb_svg_lines(&out, &chart, x, 5, &nothing, 1, NAN, NULL);
    nb_svg_lines(&out, &chart, x, 0, both, 2, 3, "limit");
    nb_svg_lines(&out, &chart, x, 1, both, 1, NAN, NULL); /* one value: an axis of no length */
    nb_svg_scatter(&out, &log_chart, y, y, 5);
    nb_svg_scatter(&out, &chart, none, none, 5);
    nb_svg_histogram(&out, &log_chart, y, 5, 1e-8, 1, 8);
    nb_svg_histogram(&out, &chart, NULL, 0, 0, 0, 8);
    nb_svg_bars(&out, &chart, (const char *const[]){ "r", "s" }, 2, both, 1, plain_number);
    nb_svg_bars(&out, &chart, (const char *const[]){ "r", "s" }, 2, &nothing, 1, plain_number);
    assert_null(strstr(out.data, "nan"));
    assert_null(strstr(out.data, "inf"));
    nb_buf_free(&out);
}

/* Values where they belong: three points by hand on axes that settle to 0 .. 10 and 0 .. 4. */
static void points_are_where_they_belong(void **state)
{
    (void)state;
    const double        x[] = { 0, 5, 10 }, y[] = { 0, 4, 2 };
    const nb_svg_chart  chart = { .title = "t", .x = "x", .y = "y" };
    const nb_svg_series s = { "s", y };
    nb_buf              out = { 0 };
    nb_svg_lines(&out, &chart, x, 3, &s, 1, NAN, NULL);
    /* x: 70 .. 904; y: 294 down to 34 */
    assert_non_null(strstr(out.data, "d=\"M70.0 294.0L487.0 34.0L904.0 164.0\""));
    nb_buf_clear(&out);
    nb_svg_histogram(&out, &chart, (const double[]){ 0.5, 1.5, 1.6, -3, 99, NAN }, 6, 0, 4, 4);
    /* bins of width 1: two (0.5 and what lies below), two, none, one (what lies above) */
    assert_int_equal(count(out.data, "class=\"fill s0\""), 3);
    assert_int_equal(count(out.data, "height=\"260.0\""), 2);
    assert_int_equal(count(out.data, "height=\"130.0\""), 1);
    nb_buf_clear(&out);
    const double        a[] = { 1, 3 }, b[] = { 1, 0 };
    const nb_svg_series pieces[] = { { "a", a }, { "b", b } };
    nb_svg_bars(&out, &chart, (const char *const[]){ "r", "s" }, 2, pieces, 2, plain_number);
    /* 640 pixels for 3 */
    assert_non_null(strstr(out.data, "class=\"fill s0\" x=\"190.0\" y=\"34.0\" width=\"213.3\""));
    assert_non_null(strstr(out.data, "class=\"fill s1\" x=\"403.3\" y=\"34.0\" width=\"213.3\""));
    assert_non_null(strstr(out.data, "class=\"fill s0\" x=\"190.0\" y=\"70.0\" width=\"640.0\""));
    nb_buf_free(&out);
    NEAR(nb_svg_step(0, 10, 5), 2, 1e-12);
    NEAR(nb_svg_step(0, 0.9, 5), 0.2, 1e-12);
    NEAR(nb_svg_step(0, 30, 10), 5, 1e-12);
    NEAR(nb_svg_step(0, 7, 1), 10, 1e-12);
    NEAR(nb_svg_step(1, 1, 5), 1, 0);
    NEAR(nb_svg_step(NAN, 1, 5), 1, 0);
}

/* ---- thumbnails ------------------------------------------------------------------------------------------------------ */

static void decode_thumbnail(nb_image *out, const nb_buf *url)
{
    static const char head[] = "data:image/jpeg;base64,";
    nb_buf            bytes = { 0 };
    nb_error          err;
    assert_memory_equal(url->data, head, strlen(head));
    OK(nb_base64_decode(&bytes, url->data + strlen(head), url->size - strlen(head), "thumbnail", &err), &err);
    assert_memory_equal(bytes.data + bytes.size - 2, "\xff\xd9", 2); /* whole, and nothing behind it */
    OK(nb_image_decode(out, bytes.data, bytes.size, "thumbnail", NULL, &err), &err);
    nb_buf_free(&bytes);
}

static double mean_of(const nb_image *i, int channel)
{
    double sum = 0;
    for (size_t p = 0; p < (size_t)i->width * (size_t)i->height; p++) sum += i->rgb[3 * p + (size_t)channel];
    return sum / ((double)i->width * i->height);
}

static void thumbnails(void **state)
{
    (void)state;
    nb_error         err;
    nb_buf           url = { 0 }, file = { 0 };
    nb_image         small, large;
    nb_media_options media = { .root = unit_path("tools/demo/calib/images"), .offline = true };
    OK(nb_thumbnail(&url, "chat-0000-0.png", &media, &err), &err);
    OK(nb_file_read(&file, unit_path("tools/demo/calib/images/chat-0000-0.png"), 1 << 20, &err), &err);
    OK(nb_image_decode(&large, file.data, file.size, "x", NULL, &err), &err);
    decode_thumbnail(&small, &url);
    assert_true(small.width <= NB_THUMBNAIL_SIDE && small.height <= NB_THUMBNAIL_SIDE);
    assert_true(url.size < 20000);
    for (int c = 0; c < 3; c++) NEAR(mean_of(&small, c), mean_of(&large, c), 4);
    nb_image_free(&small);
    nb_image_free(&large);

    /* What is broken gives nothing but a reason. */
    nb_buf_clear(&url);
    FAILS(nb_thumbnail(&url, "no-such.png", &media, &err), NB_ERR_INPUT, "no-such.png", &err);
    FAILS(nb_thumbnail(&url, "http://127.0.0.1/x.png", &media, &err), NB_ERR_ARGUMENT, "", &err);
    for (size_t keep = 0; keep < file.size; keep += file.size / 23 + 1)
        if (nb_thumbnail_of(&url, file.data, keep, "cut.png", &err) == NB_OK) fail_msg("%zu of %zu bytes were a picture", keep, file.size);
    FAILS(nb_thumbnail_of(&url, "GIF89a<script>", 14, "evil.gif", &err), NB_ERR_INPUT, "evil.gif", &err);
    FAILS(nb_thumbnail(&url, write_file("drawing.png", "<svg onload=\"x()\"/>"), &media, &err), NB_ERR_INPUT, "drawing.png", &err);
    assert_int_equal(url.size, 0);
    nb_buf_free(&file);
    nb_buf_free(&url);

    /* A strip of 1 x 1000 pixels keeps one pixel of width: a binary BMP by hand, 24 bits, bottom up, rows of four bytes. */
    uint8_t  bmp[54 + 4 * 1000] = { 'B', 'M' };
    uint32_t fields[] = { sizeof bmp, 0, 54, 40, 1, 1000, 24 << 16 | 1, 0, 4000 };
    memcpy(bmp + 2, fields, sizeof fields);
    for (int i = 0; i < 1000; i++) bmp[54 + 4 * i + 2] = 200; /* red */
    OK(nb_thumbnail_of(&url, bmp, sizeof bmp, "strip.bmp", &err), &err);
    decode_thumbnail(&small, &url);
    assert_int_equal(small.width, 1);
    assert_int_equal(small.height, NB_THUMBNAIL_SIDE);
    NEAR(mean_of(&small, 0), 200, 3);
    NEAR(mean_of(&small, 2), 0, 3);
    nb_image_free(&small);
    nb_buf_free(&url);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_escaped), cmocka_unit_test(every_part_escapes), cmocka_unit_test(style_has_its_hash),
        cmocka_unit_test(what_cannot_be_drawn_is_left_out), cmocka_unit_test(points_are_where_they_belong), cmocka_unit_test(thumbnails),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
