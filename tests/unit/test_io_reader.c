/* Packed files: the bytes that come out against those that went in, from gzip and zstd written by their own libraries and by
 * the command-line tools (the stored bytes below); then every way in which a packed file can be wrong. */
#include "unit.h"

#include <zlib.h>
#include <zstd.h>

#include "runtime/io/json.h"
#include "temp_files.h"

static const char *put(const char *name, const void *bytes, size_t n)
{
    nb_error    err;
    const char *path = write_file(name, "");
    OK(nb_file_write_atomic(path, bytes, n, &err), &err);
    return path;
}

/* A gzip member or a zstd frame behind what is in out. */
static void pack(nb_buf *out, bool gzip, const void *text, size_t n, int window_log)
{
    size_t bound = n + n / 100 + 1024;
    char  *packed = malloc(bound);
    size_t size = 0;
    assert_non_null(packed);
    if (gzip) {
        z_stream z = {0};
        assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, MAX_WBITS + 16, 9, Z_DEFAULT_STRATEGY), Z_OK);
        z.next_in = (Bytef *)text;
        z.avail_in = (uInt)n;
        z.next_out = (Bytef *)packed;
        z.avail_out = (uInt)bound;
        assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
        size = z.total_out;
        deflateEnd(&z);
    } else {
        ZSTD_CCtx *c = ZSTD_createCCtx();
        ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, n % 2 == 0 || n < 65536);
        ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, 0);
        if (window_log) ZSTD_CCtx_setParameter(c, ZSTD_c_windowLog, window_log);
        ZSTD_inBuffer  in = {text, n, 0}, nothing = {0};
        ZSTD_outBuffer o = {packed, bound, 0};
        ZSTD_compressStream2(c, &o, &nothing, ZSTD_e_flush); /* or the window shrinks to a size that is known */
        while (ZSTD_compressStream2(c, &o, &in, ZSTD_e_end) != 0) assert_true(o.pos < bound);
        size = o.pos;
        ZSTD_freeCCtx(c);
    }
    nb_buf_add(out, packed, size);
    free(packed);
}

/* All of the file, read in steps of `step` bytes. */
static nb_status read_all(const char *path, size_t step, nb_buf *out, nb_error *err)
{
    nb_reader *r;
    char      *piece = malloc(step);
    size_t     got = 1;
    nb_buf_clear(out);
    nb_status status = nb_reader_open(&r, path, err);
    if (status) assert_null(r);
    while (!status && got) {
        status = nb_reader_read(r, piece, step, &got, err);
        assert_true(got <= step);
        nb_buf_add(out, piece, got);
    }
    nb_error again;
    if (r && status) FAILS(nb_reader_read(r, piece, step, &got, &again), status, "earlier error", &again);
    if (r && !status) assert_int_equal(nb_reader_offset(r), nb_reader_size(r));
    nb_reader_close(r);
    free(piece);
    return status;
}

static void what_went_in_comes_out(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 5, 65535, 65536, 65537, 300001}, steps[] = {1, 7, 4096, 65536, 1 << 20};
    uint64_t            seed = 1;
    nb_buf              text = {0}, packed = {0}, got = {0};
    nb_error            err;
    for (size_t i = 0; i < NB_COUNT(sizes); i++) {
        nb_buf_clear(&text);
        nb_buf_str(&text, "");
        while (text.size < sizes[i]) nb_buf_char(&text, (char)(unit_random(&seed) % 7 ? 'a' : unit_random(&seed)));
        if (text.size >= 2) text.data[0] = '{', text.data[1] = '"'; /* no signature of a packed file */
        for (int kind = 0; kind < 4; kind++) {
            nb_buf_clear(&packed);
            nb_buf_str(&packed, "");
            if (kind == 0) nb_buf_add(&packed, text.data, text.size);
            if (kind == 1 || kind == 2) pack(&packed, kind == 1, text.data, text.size, 0);
            if (kind == 3) { /* two members and an empty one */
                pack(&packed, true, text.data, text.size / 3, 0);
                pack(&packed, true, "", 0, 0);
                pack(&packed, true, text.data + text.size / 3, text.size - text.size / 3, 0);
            }
            const char *path = put("packed", packed.data, packed.size);
            for (size_t k = 0; k < NB_COUNT(steps); k++) {
                if (steps[k] == 1 && sizes[i] > 70000) continue;
                OK(read_all(path, steps[k], &got, &err), &err);
                if (got.size != text.size || (text.size && memcmp(got.data, text.data, text.size)))
                    fail_msg("%zu bytes, kind %d, steps of %zu: %zu bytes came out", sizes[i], kind, steps[k], got.size);
            }
        }
    }
    nb_buf_free(&text);
    nb_buf_free(&packed);
    nb_buf_free(&got);
}

/* "{\"a\":1}\n{\"a\":2}\n" packed by gzip 1.12 (gzip -n) and zstd 1.5.4 (zstd --no-progress). */
static const unsigned char by_gzip[] = {
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0xab, 0x56, 0x4a, 0x54, 0xb2, 0x32, 0xac, 0xe5,
    0xaa, 0x06, 0xd1, 0x46, 0xb5, 0x5c, 0x00, 0x66, 0xc0, 0x5a, 0x19, 0x10, 0x00, 0x00, 0x00};
static const unsigned char by_zstd[] = {
    0x28, 0xb5, 0x2f, 0xfd, 0x24, 0x10, 0x81, 0x00, 0x00, 0x7b, 0x22, 0x61, 0x22, 0x3a, 0x31, 0x7d, 0x0a, 0x7b,
    0x22, 0x61, 0x22, 0x3a, 0x32, 0x7d, 0x0a, 0xee, 0xed, 0xac, 0xf2};

static void tools_files_are_read(void **state)
{
    (void)state;
    const struct { const char *name; const unsigned char *bytes; size_t n; } files[] = {
        {"gzip", by_gzip, sizeof by_gzip}, {"zstd", by_zstd, sizeof by_zstd}};
    for (size_t i = 0; i < NB_COUNT(files); i++) {
        nb_error        err;
        nb_json_stream *s;
        OK(nb_json_stream_open(&s, put("rows", files[i].bytes, files[i].n), &err), &err);
        assert_string_equal(nb_reader_packing(nb_json_stream_reader(s)), files[i].name);
        for (int row = 1; row <= 3; row++) {
            cJSON *value;
            size_t line = 0;
            OK(nb_json_stream_next(s, &value, &line, &err), &err);
            if (row == 3) assert_null(value);
            if (row == 3) break;
            assert_int_equal(nb_json_find(value, "a")->valueint, row);
            assert_int_equal(line, row);
            cJSON_Delete(value);
        }
        nb_json_stream_close(s);
    }
}

static void damage_is_said(void **state)
{
    (void)state;
    nb_buf   text = {0}, good = {0}, bad = {0}, got = {0};
    nb_error err = {0};
    uint64_t seed = 5;
    for (int i = 0; i < 100000; i++) nb_buf_char(&text, (char)('a' + unit_random(&seed) % 20));
    for (int gzip = 0; gzip < 2; gzip++) {
        const char *name = gzip ? "gzip" : "zstd";
        nb_buf_clear(&good);
        pack(&good, gzip, text.data, text.size, 0);
        for (size_t cut = 4; cut < good.size; cut += 1 + cut / 3) { /* cut short anywhere */
            const char *path = put("cut", good.data, cut);
            FAILS(read_all(path, 4096, &got, &err), NB_ERR_INPUT, "ends too early", &err);
            assert_non_null(strstr(err.text, name));
            assert_non_null(strstr(err.text, path));
        }
        for (size_t at = 4; at < good.size; at += 997) { /* a wrong byte: refused, or the same text where it does not matter */
            nb_buf_clear(&bad);
            nb_buf_add(&bad, good.data, good.size);
            bad.data[at] ^= 0x55;
            nb_status status = read_all(put("wrong", bad.data, bad.size), 4096, &got, &err);
            if (!status && (got.size != text.size || memcmp(got.data, text.data, text.size)))
                fail_msg("%s: byte %zu was changed and nobody noticed", name, at);
        }
        nb_buf_clear(&bad);
        nb_buf_add(&bad, good.data, good.size);
        nb_buf_str(&bad, "junk");
        FAILS(read_all(put("behind", bad.data, bad.size), 4096, &got, &err), NB_ERR_INPUT, "damaged", &err);
    }
    nb_buf_clear(&good);
    pack(&good, false, text.data, text.size, 28); /* a window of 256 MiB */
    FAILS(read_all(put("window", good.data, good.size), 4096, &got, &err), NB_ERR_UNSUPPORTED, "window", &err);
    FAILS(read_all("/nowhere/x.gz", 4096, &got, &err), NB_ERR_INPUT, "no such file", &err);
    nb_buf_free(&text);
    nb_buf_free(&good);
    nb_buf_free(&bad);
    nb_buf_free(&got);
}

/* 600 MiB of one letter, or of spaces, in half a megabyte: the row limit holds and memory does not grow with the claim. */
static void bombs_are_bounded(void **state)
{
    (void)state;
    size_t n = 16 << 20;
    char  *zeros = malloc(n);
    assert_non_null(zeros);
    for (int kind = 0; kind < 2; kind++) {
        nb_buf          packed = {0};
        nb_error        err = {0};
        nb_json_stream *s = NULL;
        cJSON          *row = NULL;
        pack(&packed, false, kind ? "{\"a\":1}\n" : "{\"a\":\"", kind ? 8 : 6, 0);
        memset(zeros, kind ? '\n' : 'x', n);
        for (int i = 0; i < 20; i++) pack(&packed, false, zeros, n, 0);
        assert_true(packed.size < 1 << 20);
        OK(nb_json_stream_open(&s, put("bomb", packed.data, packed.size), &err), &err);
        if (kind) OK(nb_json_stream_next(s, &row, NULL, &err), &err);
        cJSON_Delete(row);
        FAILS(nb_json_stream_next(s, &row, NULL, &err), NB_ERR_INPUT, "256 MiB", &err);
        nb_json_stream_close(s);
        nb_buf_free(&packed);
    }
    free(zeros);
}

/* ---- going on behind a bad row ------------------------------------------------------------------------------------------ */

/* What a stream gives with resume after every failure: "1 ! 3" for a row, a failure that could be passed, a row. */
static void walk(const char *text, const char *want)
{
    nb_error        err;
    nb_json_stream *s;
    nb_buf          got = {0};
    cJSON          *row;
    OK(nb_json_stream_open(&s, put("rows", text, strlen(text)), &err), &err);
    nb_buf_str(&got, "");
    for (int i = 0; i < 20; i++) {
        nb_status status = nb_json_stream_next(s, &row, NULL, &err);
        if (!status && !row) break;
        if (!status) nb_buf_printf(&got, "%d ", nb_json_find(row, "a") ? nb_json_find(row, "a")->valueint : -1);
        cJSON_Delete(row);
        if (!status) continue;
        bool more = nb_json_stream_resume(s);
        nb_buf_str(&got, more ? "! " : "lost");
        if (!more) break;
    }
    if (strcmp(got.data, want)) fail_msg("%s: '%s', expected '%s'", text, got.data, want);
    nb_json_stream_close(s);
    nb_buf_free(&got);
}

static void streams_go_on(void **state)
{
    (void)state;
    walk("{\"a\":1}\n{\"a\":2}\n", "1 2 ");
    walk("{\"a\":1}\n{\"a\":}\n{\"a\":3}\n", "1 ! 3 ");
    walk("{\"a\":}\n{\"a\":2}\n", "! 2 ");
    walk("{\"a\":1}\n{\"a\":[\n{\"a\":3}\n", "1 ! 3 ");
    walk("{\"a\":1}\n{\"a\":\"x\n{\"a\":3}\n", "1 ! 3 ");
    walk("{\"a\":1}\n{\"a\":1,\"a\":1}", "1 ! ");
    walk("{\"a\":1}\nhello\nworld\n{\"a\":3}", "1 ! ! 3 ");
    walk("[{\"a\":1},{\"a\":},{\"a\":3}]", "1 ! 3 ");
    walk("[{\"a\":1},{'a':2}]", "1 ! ");
    walk("[{\"a\":1},{\"a\":\"x\n\"},{\"a\":3}]", "1 lost");
    walk("[{\"a\":1},", "1 lost");
    walk("[{\"a\":1}] x", "lost");
    walk("{\n\"a\":1\n}\n{\n\"a\":\n}\n{\n\"a\":3\n}\n", "1 ! 3 ");
}

/* A string is passed over eight bytes at a time: what ends it or escapes it may stand at every place of the eight. */
static void strings_end_where_they_end(void **state)
{
    (void)state;
    static const char *const tails[] = {"", "\\\"", "\\\\", "\\\"]},{", "\\\\\\\"", "\xe4\xb8\xad", "\\u0022"};
    nb_buf text = {0}, want = {0};
    for (int pad = 0; pad < 40; pad++) {
        nb_buf_clear(&text);
        nb_buf_clear(&want);
        for (size_t t = 0; t < NB_COUNT(tails); t++) {
            nb_buf_printf(&text, "{\"s\":\"%.*s%s\",\"a\":%zu}\n", pad, "0123456789012345678901234567890123456789", tails[t], t);
            nb_buf_printf(&want, "%zu ", t);
        }
        walk(text.data, want.data);
    }
    nb_buf_free(&text);
    nb_buf_free(&want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_went_in_comes_out), cmocka_unit_test(tools_files_are_read), cmocka_unit_test(damage_is_said),
        cmocka_unit_test(bombs_are_bounded),      cmocka_unit_test(streams_go_on),
        cmocka_unit_test(strings_end_where_they_end),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
