/* The safetensors reader against files made here byte by byte: every rule of the format once broken, and the odd files
 * that are legal.  Offsets and sizes in the expectations are worked out by hand. */
#include "unit.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "runtime/io/file.h"
#include "runtime/io/safetensors.h"

static char folder[] = "/tmp/nibble-safetensors-XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[160];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* length: what the first 8 bytes say; data: that many bytes 0, 1, 2, ... */
static const char *write_tensors(const char *name, const char *header, size_t size, uint64_t length, size_t data)
{
    const char *path = in_folder(name);
    FILE       *f    = fopen(path, "wb"); /* thousands of files: without the fsync of nb_file_write_atomic */
    assert_non_null(f);
    for (int i = 0; i < 8; i++) fputc((int)(length >> 8 * i & 0xFF), f);
    fwrite(header, 1, size, f);
    for (size_t i = 0; i < data; i++) fputc((int)(i & 0xFF), f);
    assert_int_equal(fclose(f), 0);
    return path;
}

typedef struct {
    const char *header;
    size_t      size;
    size_t      data;  /* bytes behind the header */
    nb_status   status;
    const char *part;  /* of the message */
} bad_case;

#define HEADER(h, data, part) {h, sizeof(h) - 1, data, NB_ERR_INPUT, part}
/* One tensor named x with this body. */
#define BODY(body, data, part) HEADER("{\"x\":" body "}", data, part)
#define ONE(dtype, shape, offsets) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static const bad_case bad[] = {
    /* the header as text */
    HEADER(" {}", 0, "does not begin with '{'"), HEADER("\n{}", 0, "does not begin with '{'"), HEADER("[]", 0, "does not begin with '{'"),
    HEADER("\"x\"", 0, "does not begin with '{'"), HEADER("\0\0", 0, "does not begin with '{'"), HEADER("\xef\xbb\xbf{}", 0, "does not begin with '{'"),
    HEADER("{", 0, "text ends"), HEADER("{}}", 0, "nothing more"), HEADER("{}x", 0, "nothing more"), HEADER("{} {}", 0, "nothing more"),
    HEADER("{}\0", 0, "nothing more"), HEADER("{x}", 0, "expected a key"), HEADER("{\"x\"}", 0, "':' after the key"),
    HEADER("{\"\xff\":{}}", 0, "not UTF-8"), HEADER("{\"\xed\xa0\x80\":{}}", 0, "not UTF-8"), HEADER("{\"\\ud800\":{}}", 0, "surrogate"),
    HEADER("{\"x\":" ONE("U8", "[1]", "[0,1]") ",}", 1, "expected a key"), HEADER("{\"x\":" ONE("U8", "[NaN]", "[0,1]") "}", 1, "NaN"),
    /* entries */
    HEADER("{\"x\":1}", 0, "expected an object with dtype"), HEADER("{\"x\":null}", 0, "expected an object with dtype"),
    HEADER("{\"x\":[]}", 0, "expected an object with dtype"), HEADER("{\"x\":\"F32\"}", 0, "expected an object with dtype"),
    HEADER("{\"x\":{}}", 0, "'x': dtype is missing"), BODY("{\"dtype\":\"U8\",\"data_offsets\":[0,1]}", 1, "'x': shape is missing"),
    BODY("{\"dtype\":\"U8\",\"shape\":[1]}", 1, "'x': data_offsets is missing"), BODY("{\"shape\":[1],\"data_offsets\":[0,1]}", 1, "dtype is missing"),
    BODY("{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}", 1, "duplicate member 'dtype'"),
    BODY("{\"dtype\":\"U8\",\"shape\":[1],\"shape\":[1],\"data_offsets\":[0,1]}", 1, "duplicate member 'shape'"),
    BODY("{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"data_\\u006fffsets\":[0,1]}", 1, "duplicate member 'data_offsets'"),
    BODY("{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"strides\":[1]}", 1, "unknown member 'strides'"),
    /* dtype */
    BODY(ONE("F128", "[1]", "[0,16]"), 16, "unknown dtype 'F128'"), BODY(ONE("f32", "[1]", "[0,4]"), 4, "unknown dtype 'f32'"),
    BODY(ONE("", "[1]", "[0,4]"), 4, "unknown dtype ''"), BODY(ONE("F32 ", "[1]", "[0,4]"), 4, "unknown dtype"),
    BODY("{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}", 4, "expected dtype to be a string"),
    BODY("{\"dtype\":null,\"shape\":[1],\"data_offsets\":[0,4]}", 4, "expected dtype to be a string"),
    /* dimensions */
    BODY(ONE("U8", "[-1]", "[0,1]"), 1, "not negative"), BODY(ONE("U8", "[-0]", "[0,0]"), 0, "not negative"),
    BODY(ONE("U8", "[1.0]", "[0,1]"), 1, "whole number"), BODY(ONE("U8", "[1e0]", "[0,1]"), 1, "whole number"),
    BODY(ONE("U8", "[\"1\"]", "[0,1]"), 1, "whole number"), BODY(ONE("U8", "[null]", "[0,1]"), 1, "whole number"),
    BODY(ONE("U8", "[[1]]", "[0,1]"), 1, "whole number"), BODY(ONE("U8", "1", "[0,1]"), 1, "expected shape to be an array"),
    BODY(ONE("U8", "{}", "[0,1]"), 1, "expected shape to be an array"), BODY(ONE("U8", "[\"\"]", "[0,1]"), 1, "whole number"),
    BODY(ONE("U8", "[18446744073709551616]", "[0,1]"), 1, "does not fit 64 bits"),
    BODY(ONE("U8", "[18446744073709551615]", "[0,1]"), 1, "shape overflows"), BODY(ONE("U8", "[99999999999999999999999]", "[0,1]"), 1, "64 bits"),
    BODY(ONE("U8", "[4294967296,4294967296]", "[0,0]"), 0, "shape overflows"), BODY(ONE("F32", "[4611686018427387904]", "[0,0]"), 0, "shape overflows"),
    BODY(ONE("U8", "[0,9223372036854775808]", "[0,0]"), 0, "shape overflows"), BODY(ONE("U8", "[9223372036854775808,0]", "[0,0]"), 0, "shape overflows"),
    BODY(ONE("U8", "[2,9223372036854775809]", "[0,2]"), 2, "shape overflows"), /* wraps to 2 in 64 bits */
    {"{\"x\":" ONE("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]") "}", sizeof("{\"x\":" ONE("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]") "}") - 1, 1,
     NB_ERR_UNSUPPORTED, "'x' has more than 8 dimensions"},
    /* offsets of one tensor */
    BODY(ONE("U8", "[1]", "[1,0]"), 1, "reversed"), BODY(ONE("U8", "[1]", "[0,0]"), 1, "hold 0 bytes, but U8 and its shape need 1"),
    BODY(ONE("F32", "[2]", "[0,7]"), 7, "hold 7 bytes, but F32 and its shape need 8"), BODY(ONE("BF16", "[2]", "[0,3]"), 3, "need 4"),
    BODY(ONE("F16", "[2,3]", "[0,24]"), 24, "hold 24 bytes, but F16 and its shape need 12"), BODY(ONE("F32", "[]", "[0,0]"), 0, "need 4"),
    BODY(ONE("U8", "[0]", "[0,1]"), 1, "need 0"), BODY(ONE("U8", "[1]", "[-1,0]"), 1, "not negative"),
    BODY(ONE("U8", "[1]", "[0.0,1]"), 1, "whole number"), BODY(ONE("U8", "[1]", "[0,1e0]"), 1, "whole number"),
    BODY(ONE("U8", "[1]", "[0]"), 1, "two whole numbers"), BODY(ONE("U8", "[1]", "[0,1,1]"), 1, "two whole numbers"),
    BODY(ONE("U8", "[1]", "[]"), 1, "two whole numbers"), BODY(ONE("U8", "[1]", "{}"), 1, "data_offsets to be an array"),
    BODY(ONE("U8", "[1]", "[\"0\",\"1\"]"), 1, "two whole numbers"), BODY(ONE("U8", "[1]", "[0,18446744073709551616]"), 1, "64 bits"),
    BODY(ONE("U8", "[8]", "[0,8]"), 7, "which has only 7: the file is cut off"), BODY(ONE("U8", "[1]", "[18446744073709551614,18446744073709551615]"), 1, "cut off"),
    BODY(ONE("F32", "[2305843009213693951]", "[0,9223372036854775804]"), 8, "shape overflows"),
    BODY(ONE("U8", "[1000000000000]", "[0,1000000000000]"), 8, "cut off"), BODY(ONE("F4", "[3]", "[0,1]"), 1, "whole bytes"),
    BODY(ONE("F6_E2M3", "[5]", "[0,3]"), 3, "whole bytes"), BODY(ONE("F6_E3M2", "[4]", "[0,4]"), 4, "need 3"),
    /* several tensors */
    HEADER("{\"a\":" ONE("U8", "[2]", "[1,3]") "}", 3, "'a' begins at byte 1 of the data, leaving a hole after byte 0"),
    HEADER("{\"a\":" ONE("U8", "[2]", "[0,2]") ",\"b\":" ONE("U8", "[2]", "[3,5]") "}", 5, "'b' begins at byte 3 of the data, leaving a hole after byte 2"),
    HEADER("{\"a\":" ONE("U8", "[2]", "[0,2]") ",\"b\":" ONE("U8", "[2]", "[1,3]") "}", 3, "'b' begins at byte 1 of the data, overlapping"),
    HEADER("{\"a\":" ONE("U8", "[2]", "[0,2]") ",\"b\":" ONE("U8", "[2]", "[0,2]") "}", 2, "overlapping"),
    HEADER("{\"a\":" ONE("U8", "[4]", "[0,4]") ",\"b\":" ONE("U8", "[1]", "[1,2]") "}", 4, "overlapping"),
    HEADER("{\"a\":" ONE("U8", "[2]", "[0,2]") ",\"b\":" ONE("U8", "[0]", "[1,1]") "}", 2, "overlapping"),
    HEADER("{\"a\":" ONE("U8", "[2]", "[0,2]") ",\"b\":" ONE("U8", "[0]", "[3,3]") "}", 3, "leaving a hole"),
    HEADER("{\"a\":" ONE("U8", "[2]", "[0,2]") "}", 3, "1 bytes that belong to no tensor"), HEADER("{}", 1, "1 bytes that belong to no tensor"),
    HEADER("{\"__metadata__\":{}}", 4, "4 bytes that belong to no tensor"),
    HEADER("{\"a\":" ONE("U8", "[1]", "[0,1]") ",\"a\":" ONE("U8", "[1]", "[1,2]") "}", 2, "duplicate tensor 'a'"),
    HEADER("{\"a\":" ONE("U8", "[0]", "[0,0]") ",\"\\u0061\":" ONE("U8", "[0]", "[0,0]") "}", 0, "duplicate tensor 'a'"),
    /* names */
    HEADER("{\"\":" ONE("U8", "[1]", "[0,1]") "}", 1, "empty name"), HEADER("{\"a\\u0000b\":" ONE("U8", "[1]", "[0,1]") "}", 1, "NUL"),
    HEADER("{\"a\\u001b[2J\":" ONE("U8", "[1]", "[0,1]") "}", 1, "control character"), HEADER("{\"a\\n\":" ONE("U8", "[1]", "[0,1]") "}", 1, "control character"),
    HEADER("{\"a\x7f\":" ONE("U8", "[1]", "[0,1]") "}", 1, "control character"), HEADER("{\"a\\u009b2J\":" ONE("U8", "[1]", "[0,1]") "}", 1, "control character"),
    HEADER("{\"a\0\":" ONE("U8", "[1]", "[0,1]") "}", 1, "must be escaped"),
    /* metadata */
    HEADER("{\"__metadata__\":1}", 0, "'__metadata__': expected an object of strings"), HEADER("{\"__metadata__\":null}", 0, "an object of strings"),
    HEADER("{\"__metadata__\":{\"a\":1}}", 0, "'__metadata__': expected all values to be strings"), HEADER("{\"__metadata__\":{\"a\":null}}", 0, "to be strings"),
    HEADER("{\"__metadata__\":{\"a\":{\"b\":\"c\"}}}", 0, "to be strings"), HEADER("{\"__metadata__\":{\"a\":[\"b\"]}}", 0, "to be strings"),
    HEADER("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, "duplicate key 'a' in __metadata__"),
    HEADER("{\"__metadata__\":{},\"__metadata__\":{}}", 0, "duplicate key '__metadata__'"), HEADER("{\"__metadata__\":{\"a\":\"\\u0000\"}}", 0, "NUL"),
};

static void refuse(const char *what, const char *path, nb_status want, const char *part)
{
    nb_error        err = {0};
    nb_safetensors *f   = (nb_safetensors *)1;
    nb_status       s   = nb_safetensors_open(&f, path, &err);
    if (s != want || f || !strstr(err.text, part) || !strstr(err.text, path))
        fail_msg("%s: status %d, '%s', expected status %d and '%s'", what, s, err.text, want, part);
}

static void test_bad_headers(void **state)
{
    (void)state;
    assert_true(NB_COUNT(bad) >= 70);
    for (size_t i = 0; i < NB_COUNT(bad); i++) {
        const bad_case *c = &bad[i];
        char            what[160];
        snprintf(what, sizeof what, "case %zu (%.120s)", i, c->header);
        refuse(what, write_tensors("bad", c->header, c->size, c->size, c->data), c->status, c->part);
    }
}

static void test_bad_lengths(void **state)
{
    (void)state;
    nb_error err;
    for (size_t n = 0; n < 8; n++) {
        OK(nb_file_write_atomic(in_folder("short"), "\2\0\0\0\0\0\0\0", n, &err), &err);
        refuse("short", in_folder("short"), NB_ERR_INPUT, "too few for a safetensors file");
    }
    refuse("0", write_tensors("len", "", 0, 0, 0), NB_ERR_INPUT, "empty header");
    refuse("0 of 2", write_tensors("len", "{}", 2, 0, 0), NB_ERR_INPUT, "empty header");
    refuse("1 of 2", write_tensors("len", "{}", 2, 1, 0), NB_ERR_INPUT, "text ends");
    refuse("3 of 2", write_tensors("len", "{}", 2, 3, 0), NB_ERR_INPUT,
           "claims a header of 3 bytes, but has only 10: the file is cut off");
    refuse("10^8", write_tensors("len", "{}", 2, 100000000, 0), NB_ERR_INPUT, "cut off");
    refuse("10^8 + 1", write_tensors("len", "{}", 2, 100000001, 0), NB_ERR_INPUT, "more than the 100000000 allowed");
    refuse("2^32", write_tensors("len", "{}", 2, 1ull << 32, 0), NB_ERR_INPUT, "more than the 100000000 allowed");
    refuse("2^63", write_tensors("len", "{}", 2, 1ull << 63, 0), NB_ERR_INPUT, "more than the 100000000 allowed");
    refuse("2^64-8", write_tensors("len", "{}", 2, UINT64_MAX - 7, 0), NB_ERR_INPUT, "more than the 100000000 allowed");
    refuse("2^64-1", write_tensors("len", "{}", 2, UINT64_MAX, 0), NB_ERR_INPUT, "more than the 100000000 allowed");
    refuse("pickle", write_tensors("len", "archive/data.pkl", 16, 0x0808000004034b50ull, 64), NB_ERR_INPUT,
           "not a safetensors file");
}

static void test_bad_files(void **state)
{
    (void)state;
    refuse("none", in_folder("none"), NB_ERR_INPUT, "no such file");
    refuse("below a file", "/etc/passwd/model.safetensors", NB_ERR_INPUT, "no such file");
    refuse("folder", folder, NB_ERR_INPUT, "is a folder");
    refuse("/dev/zero", "/dev/zero", NB_ERR_INPUT, "is a device");
    assert_int_equal(mkfifo(in_folder("fifo"), 0600), 0);
    refuse("fifo", in_folder("fifo"), NB_ERR_INPUT, "is a FIFO"); /* and does not wait for a writer */
    assert_int_equal(symlink("loop", in_folder("loop")), 0);
    refuse("loop", in_folder("loop"), NB_ERR_INPUT, "loop");
    /* A file of 1 TB that costs nothing: zeros, and a header whose data is cut off. */
    int fd = open(in_folder("sparse"), O_RDWR | O_CREAT, 0600);
    if (ftruncate(fd, 1ll << 40) == 0) refuse("sparse", in_folder("sparse"), NB_ERR_INPUT, "empty header");
    close(fd);
    unlink(in_folder("sparse"));
}

/* What only a generated header can hold. */
static void test_large_headers(void **state)
{
    (void)state;
    nb_buf h = {0};
    nb_buf_str(&h, "{\"");
    for (int i = 0; i < 1 << 20; i++) nb_buf_char(&h, 'n');
    nb_buf_str(&h, "\":" ONE("U8", "[1]", "[0,1]") "}");
    refuse("long name", write_tensors("large", h.data, h.size, h.size, 1), NB_ERR_INPUT, "1048576 bytes, more than 4096");

    nb_buf_clear(&h);
    nb_buf_str(&h, "{\"x\":{\"dtype\":\"U8\",\"shape\":[");
    for (int i = 0; i < 10000; i++) nb_buf_str(&h, i ? ",1" : "1");
    nb_buf_str(&h, "],\"data_offsets\":[0,1]}}");
    refuse("rank", write_tensors("large", h.data, h.size, h.size, 1), NB_ERR_UNSUPPORTED, "more than 8 dimensions");

    nb_buf_clear(&h);
    for (int i = 0; i < 100000; i++) nb_buf_str(&h, "{\"a\":");
    refuse("deep", write_tensors("large", h.data, h.size, h.size, 0), NB_ERR_INPUT, "'a': unknown member 'a'");

    /* A hundred thousand claims on one byte: refused as an overlap, in moderate time. */
    nb_buf_clear(&h);
    for (int i = 0; i < 100000; i++) nb_buf_printf(&h, "%c\"t%d\":" ONE("U8", "[1]", "[0,1]"), i ? ',' : '{', i);
    nb_buf_char(&h, '}');
    double from = nb_seconds();
    refuse("one byte", write_tensors("large", h.data, h.size, h.size, 1), NB_ERR_INPUT, "overlapping");
    assert_true(nb_seconds() - from < 20);
    nb_buf_free(&h);
    unlink(in_folder("large"));
}

static void test_legal_oddities(void **state)
{
    (void)state;
    nb_error        err;
    nb_safetensors *f;
    /* Data in another order than the names; a scalar; an empty tensor; all unaligned; escapes; members in another order. */
    static const char header[] =
        "{ \"z\":{\"shape\":[3],\"data_offsets\":[0,3],\"dtype\":\"U8\"},\"__metadata__\":{\"format\":\"pt\",\"\":\"x\\u00e9\"},"
        "\"scalar\":" ONE("F32", "[]", "[3,7]") ",\"empty\":" ONE("BF16", "[0,5]", "[3,3]")
        ",\"..\":" ONE("F4", "[2,3]", "[9,12]") ",\"caf\\u00e9\":" ONE("I16", "[1,1,1,1,1,1,1,1]", "[7,9]")
        " , \"end\":" ONE("I64", "[7,0]", "[12,12]") "}   \n ";
    const char *path = write_tensors("odd", header, sizeof header - 1, sizeof header - 1, 12);
    OK(nb_safetensors_open(&f, path, &err), &err);
    assert_string_equal(nb_safetensors_path(f), path);
    assert_int_equal(nb_safetensors_count(f), 6);
    static const char *order[] = {"z", "empty", "scalar", "caf\xc3\xa9", "..", "end"};
    for (size_t i = 0; i < 6; i++) {
        assert_string_equal(nb_safetensors_at(f, i)->name, order[i]);
        assert_ptr_equal(nb_safetensors_find(f, order[i]), nb_safetensors_at(f, i));
    }
    assert_null(nb_safetensors_at(f, 6));
    assert_null(nb_safetensors_find(f, "Z"));
    assert_null(nb_safetensors_find(f, ""));
    assert_null(nb_safetensors_find(f, "__metadata__"));
    assert_string_equal(nb_safetensors_metadata(f, "format"), "pt");
    assert_string_equal(nb_safetensors_metadata(f, ""), "x\xc3\xa9");
    assert_null(nb_safetensors_metadata(f, "Format"));
    const nb_tensor *t = nb_safetensors_find(f, "scalar");
    assert_int_equal(t->rank, 0);
    assert_int_equal(t->count, 1);
    assert_int_equal(t->bytes, 4);
    assert_int_equal(t->dtype, NB_F32);
    assert_int_equal(t->offset, 8 + sizeof header - 1 + 3);
    t = nb_safetensors_find(f, "empty");
    assert_int_equal(t->count, 0);
    assert_int_equal(t->bytes, 0);
    assert_int_equal(t->shape[1], 5);
    t = nb_safetensors_find(f, "..");
    assert_int_equal(t->dtype, NB_DTYPE_OTHER);
    assert_string_equal(t->dtype_name, "F4");
    assert_int_equal(t->count, 6);
    assert_int_equal(t->bytes, 3);
    t = nb_safetensors_find(f, "caf\xc3\xa9");
    assert_int_equal(t->rank, 8);
    unsigned char data[4] = {99, 99, 99, 99};
    OK(nb_safetensors_read(f, t, data, 0, 2, &err), &err);
    assert_memory_equal(data, "\7\10\143\143", 4); /* bytes 7 and 8 of 0, 1, 2, ... */
    OK(nb_safetensors_read(f, t, data, 1, 1, &err), &err);
    assert_int_equal(data[0], 8);
    OK(nb_safetensors_read(f, t, data, 2, 0, &err), &err);
    FAILS(nb_safetensors_read(f, t, data, 1, 2, &err), NB_ERR_ARGUMENT, "has 2 bytes, asked for 2 from byte 1", &err);
    FAILS(nb_safetensors_read(f, t, data, 3, 0, &err), NB_ERR_ARGUMENT, "from byte 3", &err);
    FAILS(nb_safetensors_read(f, t, data, UINT64_MAX, 2, &err), NB_ERR_ARGUMENT, "has 2 bytes", &err);
    nb_safetensors_close(f);

    /* No tensor at all, with and without metadata. */
    OK(nb_safetensors_open(&f, write_tensors("none", "{}", 2, 2, 0), &err), &err);
    assert_int_equal(nb_safetensors_count(f), 0);
    assert_null(nb_safetensors_find(f, "x"));
    assert_null(nb_safetensors_metadata(f, "x"));
    nb_safetensors_close(f);
    OK(nb_safetensors_open(&f, write_tensors("none", "{\"__metadata__\":{}}     ", 23, 23, 0), &err), &err);
    nb_safetensors_close(f);
    nb_safetensors_close(NULL);
}

/* Every dtype with 8 elements takes as many bytes as it has bits. */
static void test_dtypes(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int         bits, type;
    } all[] = {
        {"BOOL", 8, NB_BOOL}, {"U8", 8, NB_U8}, {"I8", 8, NB_I8}, {"F8_E4M3", 8, NB_F8_E4M3}, {"F8_E5M2", 8, NB_F8_E5M2},
        {"F8_E8M0", 8, NB_DTYPE_OTHER}, {"F8_E4M3FNUZ", 8, NB_DTYPE_OTHER}, {"F8_E5M2FNUZ", 8, NB_DTYPE_OTHER},
        {"I16", 16, NB_I16}, {"U16", 16, NB_U16}, {"F16", 16, NB_F16}, {"BF16", 16, NB_BF16}, {"I32", 32, NB_I32},
        {"U32", 32, NB_U32}, {"F32", 32, NB_F32}, {"F64", 64, NB_F64}, {"I64", 64, NB_I64}, {"U64", 64, NB_U64},
        {"C64", 64, NB_DTYPE_OTHER}, {"F6_E2M3", 6, NB_DTYPE_OTHER}, {"F6_E3M2", 6, NB_DTYPE_OTHER}, {"F4", 4, NB_DTYPE_OTHER},
    };
    for (size_t i = 0; i < NB_COUNT(all); i++) {
        char h[200];
        int n = snprintf(h, sizeof h, "{\"x\":{\"dtype\":\"%s\",\"shape\":[2,4],\"data_offsets\":[0,%d]}}", all[i].name,
                         all[i].bits);
        nb_error        err;
        nb_safetensors *f;
        OK(nb_safetensors_open(&f, write_tensors("dtype", h, (size_t)n, (uint64_t)n, (size_t)all[i].bits), &err), &err);
        const nb_tensor *t = nb_safetensors_find(f, "x");
        assert_string_equal(t->dtype_name, all[i].name);
        assert_int_equal(t->dtype, all[i].type);
        assert_int_equal(t->count, 8);
        if (all[i].type != NB_DTYPE_OTHER) assert_int_equal(nb_dtype_size(t->dtype) * 8, all[i].bits);
        nb_safetensors_close(f);
    }
}

static void test_changed_while_open(void **state)
{
    (void)state;
    nb_error          err;
    nb_safetensors   *f;
    static const char header[] = "{\"a\":" ONE("U8", "[40]", "[0,40]") ",\"b\":" ONE("U8", "[40]", "[40,80]") "}";
    const char       *path     = write_tensors("live", header, sizeof header - 1, sizeof header - 1, 80);
    unsigned char     data[40];
    OK(nb_safetensors_open(&f, path, &err), &err);
    assert_int_equal(truncate(path, 8 + sizeof header - 1 + 50), 0);
    OK(nb_safetensors_read(f, nb_safetensors_find(f, "a"), data, 0, 40, &err), &err);
    FAILS(nb_safetensors_read(f, nb_safetensors_find(f, "b"), data, 0, 40, &err), NB_ERR_INPUT, "tensor 'b'", &err);
    FAILS(nb_safetensors_read(f, nb_safetensors_find(f, "b"), data, 0, 40, &err), NB_ERR_INPUT, "30 bytes short", &err);
    assert_int_equal(truncate(path, 4096), 0); /* grown: what was claimed is still there */
    OK(nb_safetensors_read(f, nb_safetensors_find(f, "b"), data, 0, 40, &err), &err);
    assert_int_equal(data[9], 49);
    nb_safetensors_close(f);
}

static void test_demo_model(void **state)
{
    (void)state;
    nb_error        err;
    nb_safetensors *f;
    OK(nb_safetensors_open(&f, unit_path("tools/demo/model/model.safetensors"), &err), &err);
    assert_int_equal(nb_safetensors_count(f), 129);
    assert_string_equal(nb_safetensors_metadata(f, "format"), "pt");
    const nb_tensor *t = nb_safetensors_find(f, "model.layers.0.mlp.down_proj.weight");
    assert_non_null(t);
    assert_int_equal(t->dtype, NB_BF16);
    assert_int_equal(t->rank, 2);
    assert_int_equal(t->shape[0], 256);
    assert_int_equal(t->shape[1], 1024);
    assert_int_equal(t->bytes, 524288);
    assert_int_equal(t->offset, 8 + 13368 + 524800); /* as Python's json reads the header */
    nb_safetensors_close(f);
}

/* Any single damaged byte of a good header gives an error or a valid file, never a crash; many tails are cut off. */
static void test_damaged_bytes(void **state)
{
    (void)state;
    static const char header[] = "{\"__metadata__\":{\"k\":\"v\"},\"aa\":" ONE("F32", "[2,3]", "[0,24]")
                                 ",\"b\":" ONE("U8", "[6]", "[24,30]") "}";
    uint64_t          seed     = 3;
    size_t            refused  = 0;
    char              copy[sizeof header];
    for (size_t i = 0; i < sizeof header - 1; i++) {
        for (int k = 0; k < 12; k++) {
            memcpy(copy, header, sizeof header);
            copy[i] = k < 6 ? "\"{},0\\"[k] : (char)unit_random(&seed);
            nb_error        err = {0};
            nb_safetensors *f;
            nb_status       s =
                nb_safetensors_open(&f, write_tensors("damaged", copy, sizeof header - 1, sizeof header - 1, 30), &err);
            if (s != NB_OK && (!err.text[0] || f)) fail_msg("byte %zu: no message", i);
            refused += s != NB_OK;
            nb_safetensors_close(f);
        }
    }
    assert_true(refused > (sizeof header - 1) * 8);
    for (size_t n = 0; n < sizeof header - 1; n++) {
        refuse("cut header", write_tensors("damaged", header, n, sizeof header - 1, 0), NB_ERR_INPUT, "cut off");
        if (n > 0) refuse("short header", write_tensors("damaged", header, n, n, 0), NB_ERR_INPUT, "");
    }
    for (size_t n = 0; n < 30; n++)
        refuse("cut data", write_tensors("damaged", header, sizeof header - 1, sizeof header - 1, n), NB_ERR_INPUT,
               "cut off");
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return nb_remove_folder(folder, NULL) == NB_OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_headers),    cmocka_unit_test(test_bad_lengths),
        cmocka_unit_test(test_bad_files),      cmocka_unit_test(test_large_headers),
        cmocka_unit_test(test_legal_oddities), cmocka_unit_test(test_dtypes),
        cmocka_unit_test(test_damaged_bytes),  cmocka_unit_test(test_changed_while_open),
        cmocka_unit_test(test_demo_model),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
