/* The GGUF reader against files made here byte by byte: a good one, every rule once broken, and the good one cut and damaged
 * at every byte. */
#include "unit.h"

#include "runtime/io/buf.h"
#include "runtime/io/gguf.h"

static char folder[] = "/tmp/nibble-gguf-XXXXXX";

static const char *write_bytes(const void *bytes, size_t n)
{
    static char path[160];
    snprintf(path, sizeof path, "%s/x.gguf", folder);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    if (n) assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    return path;
}

static void put(nb_buf *b, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++) nb_buf_char(b, (char)(v >> 8 * i));
}

static void text(nb_buf *b, const char *s)
{
    put(b, strlen(s), 8);
    nb_buf_str(b, s);
}

static void key(nb_buf *b, const char *name, uint32_t type)
{
    text(b, name);
    put(b, type, 4);
}

static void tensor(nb_buf *b, const char *name, int rank, uint64_t d0, uint64_t d1, uint32_t type, uint64_t offset)
{
    text(b, name);
    put(b, (uint64_t)rank, 4);
    if (rank > 0) put(b, d0, 8);
    for (int i = 1; i < rank; i++) put(b, d1, 8);
    put(b, type, 4);
    put(b, offset, 8);
}

static void header(nb_buf *b, uint32_t version, uint64_t tensors, uint64_t pairs)
{
    nb_buf_str(b, "GGUF");
    put(b, version, 4);
    put(b, tensors, 8);
    put(b, pairs, 8);
}

static void data(nb_buf *b, size_t alignment, size_t n)
{
    while (b->size % alignment) nb_buf_char(b, 0);
    for (size_t i = 0; i < n; i++) nb_buf_char(b, (char)i);
}

/* Two tensors: a F32 [3] at 0 (12 bytes), b Q4_0 [64, 2] at 32 (72 bytes). */
static void good(nb_buf *b)
{
    float eps = 1e-6f;
    header(b, 3, 2, 7);
    key(b, "general.architecture", 8), text(b, "qwen2vl");
    key(b, "n", 4), put(b, 7, 4);
    key(b, "minus", 1), put(b, 0xfe, 1);
    key(b, "eps", 6), nb_buf_add(b, &eps, 4);
    key(b, "sections", 9), put(b, 5, 4), put(b, 4, 8), put(b, 16, 4), put(b, 24, 4), put(b, 24, 4), put(b, 0, 4);
    key(b, "tokens", 9), put(b, 8, 4), put(b, 3, 8), text(b, "a"), text(b, ""), text(b, "ccc");
    key(b, "yes", 7), put(b, 1, 1);
    tensor(b, "a", 1, 3, 0, 0, 0);
    tensor(b, "b", 2, 64, 2, 2, 32);
    data(b, 32, 32 + 72);
}

static void test_good(void **state)
{
    (void)state;
    nb_error err;
    nb_buf   b = {0}, s = {0};
    nb_gguf *f;
    int64_t  v, four[4];
    double   eps;
    good(&b);
    OK(nb_gguf_open(&f, write_bytes(b.data, b.size), &err), &err);
    assert_int_equal(nb_gguf_pairs(f), 7);
    assert_int_equal(nb_gguf_count(f), 2);
    assert_int_equal(nb_gguf_alignment(f), 32);
    OK(nb_gguf_string(f, "general.architecture", &s, &err), &err);
    assert_string_equal(s.data, "qwen2vl");
    OK(nb_gguf_int(f, "n", 0, 10, &v, &err), &err);
    assert_int_equal(v, 7);
    OK(nb_gguf_int(f, "minus", -5, 0, &v, &err), &err);
    assert_int_equal(v, -2);
    OK(nb_gguf_int(f, "yes", 0, 1, &v, &err), &err);
    assert_int_equal(v, 1);
    OK(nb_gguf_number(f, "eps", &eps, &err), &err);
    NEAR(eps, 1e-6, 1e-13);
    OK(nb_gguf_ints(f, "sections", 4, four, &err), &err);
    assert_int_equal(four[0], 16);
    assert_int_equal(four[2], 24);
    assert_int_equal(four[3], 0);
    assert_int_equal(nb_gguf_find(f, "tokens")->count, 3);
    assert_null(nb_gguf_find(f, "token"));
    const nb_gguf_tensor *t = nb_gguf_tensor_find(f, "b");
    assert_non_null(t);
    assert_int_equal(t->bytes, 72);
    assert_int_equal(t->count, 128);
    assert_string_equal(t->type_name, "Q4_0");
    unsigned char got[2];
    OK(nb_gguf_read(f, t, got, 70, 2, &err), &err);
    assert_int_equal(got[0], 32 + 70);
    assert_int_equal(got[1], 32 + 71);
    FAILS(nb_gguf_read(f, t, got, 71, 2, &err), NB_ERR_ARGUMENT, "72 bytes", &err);
    FAILS(nb_gguf_int(f, "n", 0, 6, &v, &err), NB_ERR_INPUT, "is 7, expected 0 to 6", &err);
    FAILS(nb_gguf_int(f, "eps", 0, 6, &v, &err), NB_ERR_INPUT, "not a whole number", &err);
    FAILS(nb_gguf_int(f, "sections", 0, 6, &v, &err), NB_ERR_INPUT, "is an array", &err);
    FAILS(nb_gguf_ints(f, "sections", 3, four, &err), NB_ERR_INPUT, "has 4 items", &err);
    FAILS(nb_gguf_string(f, "n", &s, &err), NB_ERR_INPUT, "not a string", &err);
    FAILS(nb_gguf_string(f, "nothing", &s, &err), NB_ERR_INPUT, "'nothing' is missing", &err);
    FAILS(nb_gguf_number(f, "n", &eps, &err), NB_ERR_INPUT, "floating", &err);
    nb_gguf_close(f);
    nb_buf_free(&b);
    nb_buf_free(&s);
}

static void refuse(nb_buf *b, nb_status status, const char *part)
{
    nb_error err;
    nb_gguf *f;
    FAILS(nb_gguf_open(&f, write_bytes(b->data, b->size), &err), status, part, &err);
    assert_null(f);
    nb_buf_free(b);
}

static void test_broken(void **state)
{
    (void)state;
    nb_buf b = {0};
    nb_buf_str(&b, "");
    refuse(&b, NB_ERR_INPUT, "cut off");
    nb_buf_str(&b, "GGML............................");
    refuse(&b, NB_ERR_INPUT, "not a GGUF file");
    header(&b, 1, 0, 0), refuse(&b, NB_ERR_UNSUPPORTED, "version 1");
    header(&b, 3 << 24, 0, 0), refuse(&b, NB_ERR_UNSUPPORTED, "big endian");
    header(&b, 3, 0, 1u << 30), refuse(&b, NB_ERR_INPUT, "claims 0 tensors and 1073741824 pairs");
    header(&b, 3, UINT64_MAX, 0), refuse(&b, NB_ERR_INPUT, "more than the file can hold");
    header(&b, 3, 0, 1), key(&b, "x", 13), put(&b, 0, 8), refuse(&b, NB_ERR_INPUT, "value type 13");
    header(&b, 3, 0, 1), key(&b, "x", 9), put(&b, 9, 4), put(&b, 1, 8), put(&b, 4, 4), put(&b, 0, 8);
    refuse(&b, NB_ERR_UNSUPPORTED, "array of arrays");
    header(&b, 3, 0, 1), key(&b, "x", 9), put(&b, 4, 4), put(&b, 1ull << 62, 8), refuse(&b, NB_ERR_INPUT, "items, more than");
    header(&b, 3, 0, 1), key(&b, "x", 8), put(&b, UINT64_MAX - 8, 8), refuse(&b, NB_ERR_INPUT, "cut off");
    header(&b, 3, 0, 1), key(&b, "", 4), put(&b, 0, 8), refuse(&b, NB_ERR_INPUT, "has 0 bytes");
    header(&b, 3, 0, 1), key(&b, "a\nb", 4), put(&b, 0, 8), refuse(&b, NB_ERR_INPUT, "not plain UTF-8");
    header(&b, 3, 0, 2), key(&b, "x", 4), put(&b, 0, 4), key(&b, "x", 4), put(&b, 1, 4), refuse(&b, NB_ERR_INPUT, "duplicate key 'x'");
    header(&b, 3, 0, 1), key(&b, "general.alignment", 4), put(&b, 24, 4), refuse(&b, NB_ERR_INPUT, "not a power of two");
    header(&b, 3, 0, 1), key(&b, "general.alignment", 4), put(&b, 0, 4), refuse(&b, NB_ERR_INPUT, "is 0, expected 1");
    header(&b, 3, 1, 0), tensor(&b, "a", 0, 0, 0, 0, 0), put(&b, 0, 8), refuse(&b, NB_ERR_INPUT, "has 0 dimensions");
    header(&b, 3, 1, 0), tensor(&b, "a", 5, 1, 1, 0, 0), refuse(&b, NB_ERR_INPUT, "has 5 dimensions");
    header(&b, 3, 1, 0), tensor(&b, "a", 1, 0, 0, 0, 0), refuse(&b, NB_ERR_INPUT, "dimension 0 is 0");
    header(&b, 3, 1, 0), tensor(&b, "a", 2, 1ull << 40, 1ull << 40, 0, 0), refuse(&b, NB_ERR_INPUT, "overflows");
    header(&b, 3, 1, 0), tensor(&b, "a", 2, 1ull << 32, 1ull << 31, 27, 0), refuse(&b, NB_ERR_INPUT, "its size overflows");
    header(&b, 3, 1, 0), tensor(&b, "a", 1, 32, 0, 4, 0), data(&b, 32, 64), refuse(&b, NB_ERR_UNSUPPORTED, "type 4");
    header(&b, 3, 1, 0), tensor(&b, "a", 1, 48, 0, 2, 0), data(&b, 32, 64), refuse(&b, NB_ERR_INPUT, "no whole blocks of 32");
    header(&b, 3, 1, 0), tensor(&b, "a", 1, 4, 0, 0, 32), data(&b, 32, 64), refuse(&b, NB_ERR_INPUT, "begins at byte 32 of the data, expected 0");
    header(&b, 3, 2, 0), tensor(&b, "a", 1, 4, 0, 0, 0), tensor(&b, "b", 1, 4, 0, 0, 16), data(&b, 32, 64);
    refuse(&b, NB_ERR_INPUT, "expected 32");
    header(&b, 3, 2, 0), tensor(&b, "a", 1, 4, 0, 0, 0), tensor(&b, "a", 1, 4, 0, 0, 32), data(&b, 32, 64);
    refuse(&b, NB_ERR_INPUT, "duplicate tensor 'a'");
    header(&b, 3, 1, 0), tensor(&b, "a", 1, 4, 0, 0, 0), data(&b, 32, 15), refuse(&b, NB_ERR_INPUT, "needs 16 bytes");
    header(&b, 3, 1, 0), tensor(&b, "a", 1, 4, 0, 0, 0), refuse(&b, NB_ERR_INPUT, "ends before its data");
    char name[70];
    memset(name, 'n', 64), name[64] = 0;
    header(&b, 3, 1, 0), tensor(&b, name, 1, 4, 0, 0, 0), data(&b, 32, 16), refuse(&b, NB_ERR_INPUT, "has 64 bytes");
}

/* Any cut, any flipped bit: an error or a file that reads, never a crash; cuts are always errors. */
static void test_damage(void **state)
{
    (void)state;
    nb_error err;
    nb_gguf *f;
    nb_buf   b = {0};
    good(&b);
    for (size_t n = 0; n < b.size; n++) {
        assert_int_not_equal(nb_gguf_open(&f, write_bytes(b.data, n), &err), NB_OK);
        assert_null(f);
    }
    for (size_t i = 0; i < b.size; i++)
        for (int bit = 0; bit < 8; bit += 3) {
            b.data[i] ^= (char)(1 << bit);
            if (nb_gguf_open(&f, write_bytes(b.data, b.size), &err) == NB_OK) nb_gguf_close(f);
            b.data[i] ^= (char)(1 << bit);
        }
    nb_buf_free(&b);
}

static int make(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int clean(void **state)
{
    (void)state;
    unlink(write_bytes("", 0));
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_good), cmocka_unit_test(test_broken), cmocka_unit_test(test_damage)};
    return cmocka_run_group_tests(tests, make, clean);
}
