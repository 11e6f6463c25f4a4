/* test_kernels_base.c - errors, allocation, and the conversions between number formats against independent definitions. */
#include "kernels/float.h"
#include "unit.h"

/* ---- errors ------------------------------------------------------------------ */

static void error_text_is_safe(void **state)
{
    (void)state;
    nb_error err;
    assert_int_equal(nb_fail(&err, NB_ERR_INPUT, "tensor '%s'", "a\x1b[2J\n\x7f\tb"), NB_ERR_INPUT);
    assert_string_equal(err.text, "tensor 'a?[2J???b'");
    nb_fail(&err, NB_ERR_IO, "%s", "Gr\xc3\xb6\xc3\x9f" "e \xe2\x82\xac \xf0\x9f\x98\x80");
    assert_string_equal(err.text, "Gr\xc3\xb6\xc3\x9f" "e \xe2\x82\xac \xf0\x9f\x98\x80");
    nb_fail(&err, NB_ERR_IO, "%s", "\xc2\x9b" "31m"); /* U+009B starts a command in some terminals */
    assert_string_equal(err.text, "?31m");
    nb_fail(&err, NB_ERR_IO, "%s", "\xff\xc0\x80|\xed\xa0\x80|\xf4\x90\x80\x80|\xe2\x82"); /* no UTF-8 */
    assert_string_equal(err.text, "???|???|????|??");
    assert_int_equal(nb_fail(NULL, NB_ERR_MEMORY, "x"), NB_ERR_MEMORY);
}

/* Text longer than the buffer ends at a whole character, wherever the cut falls. */
static void error_text_is_cut_between_characters(void **state)
{
    (void)state;
    nb_error err;
    for (int shift = 0; shift < 4; shift++) {
        char longer[1200] = "";
        memset(longer, 'a', (size_t)shift);
        while (strlen(longer) < 1000) strcat(longer, "\xe2\x82\xac");
        nb_fail(&err, NB_ERR_INPUT, "%s", longer);
        size_t n = strlen(err.text);
        assert_int_equal((n - (size_t)shift) % 3, 0);
        assert_in_range(n, sizeof err.text - 4, sizeof err.text - 1);
        assert_memory_equal(err.text, longer, n);
    }
}

static void context_goes_in_front(void **state)
{
    (void)state;
    nb_error err;
    nb_fail(&err, NB_ERR_INPUT, "bad shape");
    assert_int_equal(nb_error_within(&err, "file %d", 7), NB_ERR_INPUT);
    assert_string_equal(err.text, "file 7: bad shape");
    char longer[1000];
    memset(longer, 'x', 999);
    longer[999] = 0;
    nb_error_within(&err, "%s", longer); /* what happened survives, the context is cut */
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    assert_string_equal(err.text + strlen(err.text) - 19, ": file 7: bad shape");
    nb_error_within(&err, "%s", "no room left");
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    assert_int_equal(nb_status_exit_code(NB_ERR_GATE), 3);
    assert_string_equal(nb_status_text(NB_ERR_MEMORY), "out of memory");
}

/* ---- memory ------------------------------------------------------------------- */

static void sizes_are_checked(void **state)
{
    (void)state;
    size_t out = 5;
    assert_false(nb_mul(SIZE_MAX / 2, 3, &out));
    assert_false(nb_add(SIZE_MAX, 1, &out));
    assert_int_equal(out, 5);
    assert_true(nb_mul(6, 7, &out));
    assert_int_equal(out, 42);
    assert_null(nb_calloc_aligned(SIZE_MAX / 2, 4));
    assert_null(nb_calloc_aligned(SIZE_MAX - 10, 1));
    unsigned char *p = nb_calloc_aligned(0, 4);
    assert_non_null(p);
    free(p);
    p = nb_calloc_aligned(3, 33);
    assert_int_equal((uintptr_t)p % 64, 0);
    for (int i = 0; i < 99; i++) assert_int_equal(p[i], 0);
    free(p);

    nb_error err;
    int     *a = (int *)1;
    FAILS(nb_alloc(&a, SIZE_MAX / 2, 4, "the things", &err), NB_ERR_MEMORY, "the things", &err);
    assert_null(a);
    OK(nb_alloc(&a, 0, 4, "nothing", &err), &err);
    assert_non_null(a);
    free(a);
    a = NULL;
    size_t capacity = 0;
    for (int i = 0; i < 1000; i++) {
        OK(nb_grow(&a, &capacity, (size_t)i + 1, sizeof *a, "numbers", &err), &err);
        a[i] = i;
    }
    for (int i = 0; i < 1000; i++) assert_int_equal(a[i], i);
    FAILS(nb_grow(&a, &capacity, SIZE_MAX / 2, sizeof *a, "numbers", &err), NB_ERR_MEMORY, "numbers", &err);
    assert_int_equal(a[999], 999); /* still there */
    free(a);
}

/* ---- numbers -------------------------------------------------------------------- */

/* The definition, by arithmetic: sign * 2^(e - 15) * (1 + f / 1024), or 2^-14 * f / 1024 */
static double f16_value(uint16_t h)
{
    int    e = h >> 10 & 31, f = h & 1023;
    double m = e == 31 ? (f ? NAN : INFINITY) : e ? ldexp(1024 + f, e - 25) : ldexp(f, -24);
    return h & 0x8000 ? -m : m;
}

static void f16_to_f32_is_exact(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        double want = f16_value((uint16_t)h);
        float  got = nb_f16_to_f32((uint16_t)h);
        if (isnan(want))
            assert_true(isnan(got));
        else if (!((double)got == want && !signbit(got) == !(h & 0x8000)))
            fail_msg("f16 %04x is %.9g, expected %.9g", h, got, want);
    }
}

/* Every f16 comes back, and so do the numbers around it: the nearest of two neighbours wins, and the even one of a tie. */
static void f32_to_f16_is_nearest_even(void **state)
{
    (void)state;
    for (uint32_t sign = 0; sign <= 0x8000; sign += 0x8000) {
        for (uint32_t h = 0; h < 0x7c00; h++) {
            uint16_t low = (uint16_t)(h | sign), high = (uint16_t)(low + 1);
            double   a = f16_value(low), b = h == 0x7bff ? (sign ? -65536.0 : 65536.0) : f16_value(high);
            float    middle = (float)((a + b) / 2); /* exact in f32 */
            float    below = nextafterf(middle, (float)a), above = nextafterf(middle, (float)b);
            uint16_t even = h & 1 ? high : low;
            if (nb_f32_to_f16((float)a) != low || nb_f32_to_f16(below) != low || nb_f32_to_f16(above) != high ||
                nb_f32_to_f16(middle) != even)
                fail_msg("rounding near f16 %04x: %04x %04x %04x %04x", low, nb_f32_to_f16((float)a), nb_f32_to_f16(below),
                         nb_f32_to_f16(middle), nb_f32_to_f16(above));
        }
    }
    assert_int_equal(nb_f32_to_f16(1e10f), 0x7c00);
    assert_int_equal(nb_f32_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(nb_f32_to_f16(1e-30f), 0);
    assert_int_equal(nb_f32_to_f16(-1e-45f), 0x8000);
    uint32_t nans[] = { 0x7f800001u, 0x7fc00000u, 0xffffffffu, 0xff800001u, 0x7f802000u };
    for (size_t i = 0; i < NB_COUNT(nans); i++) {
        float f;
        memcpy(&f, &nans[i], 4);
        assert_true(isnan(f16_value(nb_f32_to_f16(f))));
        assert_true(isnan(nb_bf16_to_f32(nb_f32_to_bf16(f))));
    }
}

static void bf16_is_nearest_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7f80; h++) { /* positive finite; h + 1 may be infinity */
        uint32_t low = h << 16;
        float    f;
        struct { uint32_t bits; uint16_t want; } cases[] = {
            { low, (uint16_t)h }, { low + 0x7fff, (uint16_t)h }, { low + 0x8000, (uint16_t)(h + (h & 1)) },
            { low + 0x8001, (uint16_t)(h + 1) } };
        for (size_t i = 0; i < NB_COUNT(cases); i++) {
            memcpy(&f, &cases[i].bits, 4);
            assert_int_equal(nb_f32_to_bf16(f), cases[i].want);
            assert_int_equal(nb_f32_to_bf16(-f), cases[i].want | 0x8000);
        }
        memcpy(&f, &low, 4);
        assert_true(nb_bf16_to_f32((uint16_t)h) == f);
    }
    assert_int_equal(nb_f32_to_bf16(INFINITY), 0x7f80);
}

static void arrays_convert_unaligned(void **state)
{
    (void)state;
    const float    values[] = { 1.5f, -2, 65504, 0, -0.25f };
    const nb_dtype types[] = { NB_F32, NB_BF16, NB_F16 };
    for (size_t i = 0; i < NB_COUNT(types); i++) {
        unsigned char store[1 + 5 * 4], back[3 + 5 * 4];
        memset(store, 0xaa, sizeof store);
        nb_from_f32(store + 1, types[i], values, 5);
        nb_to_f32((float *)(void *)(back + 3), store + 1, types[i], 5);
        float got[5];
        memcpy(got, back + 3, sizeof got);
        for (int j = 0; j < 5; j++) NEAR(got[j], values[j], types[i] == NB_BF16 && j == 2 ? 32 : 0);
        nb_from_f32(store, types[i], NULL, 0);
        nb_to_f32(NULL, NULL, types[i], 0);
    }
    assert_int_equal(nb_dtype_size(NB_F64), 8);
    assert_int_equal(nb_dtype_size(NB_F8_E4M3), 1);
    assert_int_equal(nb_dtype_size(NB_DTYPE_OTHER), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_text_is_safe),
        cmocka_unit_test(error_text_is_cut_between_characters),
        cmocka_unit_test(context_goes_in_front),
        cmocka_unit_test(sizes_are_checked),
        cmocka_unit_test(f16_to_f32_is_exact),
        cmocka_unit_test(f32_to_f16_is_nearest_even),
        cmocka_unit_test(bf16_is_nearest_even),
        cmocka_unit_test(arrays_convert_unaligned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
