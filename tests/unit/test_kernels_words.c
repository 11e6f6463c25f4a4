/* Codes that come as words, in each of the three orders: what they mean, and that packing them gives the bytes that packing
 * the same codes one by one gives.  Shapes are chosen to reach each way through pack: whole panels of words, panels with a
 * border between parts or without all outputs, rows that end within a word, groups that do not begin at one, sorted columns. */
#include "levels.h"

#include "kernels/cpu/packed.h"

static uint64_t seed = 1;

static uint32_t next_random(void) { return unit_random(&seed); }

/* Where code (o, i) is, written down from the drawing in matrix.h and from nothing else. */
static unsigned code_at(const nb_weights *w, size_t o, size_t i)
{
    static const unsigned place[8] = { 0, 4, 1, 5, 2, 6, 3, 7 };
    unsigned bits = w->kind == NB_W_INT4 ? 4 : 8;
    size_t   per = 32 / bits, k = (size_t)w->k, n = (size_t)w->n;
    uint32_t word;
    switch (w->order) {
    case NB_CODES_ROWS: word = w->words[o * ((k + per - 1) / per) + i / per] >> bits * (i % per); break;
    case NB_CODES_INPUTS: word = w->words[i / per * n + o] >> bits * (i % per); break;
    case NB_CODES_OUTPUTS: word = w->words[i * (n / 8) + o / 8] >> 4 * place[o % 8]; break;
    default: return w->codes[o * k + i];
    }
    return word & ((1u << bits) - 1);
}

typedef struct {
    nb_weights words, bytes; /* the same matrix */
    uint32_t  *word;
    uint8_t   *byte, *zeros;
    float     *scales;
    int32_t   *g_idx;
} pair;

static void pair_new(pair *p, nb_wkind kind, nb_code_order order, int n, int k, int group, bool sorted)
{
    size_t per = kind == NB_W_INT4 ? 8 : 4, groups = ((size_t)k + (size_t)group - 1) / (size_t)group;
    size_t count = order == NB_CODES_ROWS ? (size_t)n * (((size_t)k + per - 1) / per) : (size_t)n * (size_t)k / per;
    p->word = malloc(count * sizeof *p->word);
    p->byte = malloc((size_t)n * (size_t)k);
    p->zeros = malloc((size_t)n * groups);
    p->scales = malloc((size_t)n * groups * sizeof *p->scales);
    p->g_idx = sorted ? NULL : malloc((size_t)k * sizeof *p->g_idx);
    for (size_t i = 0; i < count; i++) p->word[i] = next_random(); /* what fills up a row is random, too */
    for (size_t i = 0; i < (size_t)n * groups; i++) {
        p->zeros[i] = (uint8_t)(next_random() % (kind == NB_W_INT4 ? 16 : 256));
        p->scales[i] = (float)(1 + next_random() % 1000) / 1024;
    }
    for (int i = 0; p->g_idx && i < k; i++) p->g_idx[i] = (int32_t)((size_t)(k - 1 - i) / (size_t)group);
    p->words = (nb_weights){ .kind = kind, .n = n, .k = k, .group = group, .order = order, .words = p->word, .scales = p->scales,
                             .zeros = p->zeros, .g_idx = p->g_idx };
    for (size_t o = 0; o < (size_t)n; o++)
        for (size_t i = 0; i < (size_t)k; i++) p->byte[o * (size_t)k + i] = (uint8_t)code_at(&p->words, o, i);
    p->bytes = p->words;
    p->bytes.order = NB_CODES_BYTES;
    p->bytes.words = NULL;
    p->bytes.codes = p->byte;
}

static void pair_free(pair *p)
{
    free(p->word);
    free(p->byte);
    free(p->zeros);
    free(p->scales);
    free(p->g_idx);
}

static const struct {
    nb_wkind      kind;
    nb_code_order order;
} forms[] = { { NB_W_INT4, NB_CODES_ROWS }, { NB_W_INT4, NB_CODES_INPUTS }, { NB_W_INT4, NB_CODES_OUTPUTS },
              { NB_W_INT8, NB_CODES_ROWS }, { NB_W_INT8, NB_CODES_INPUTS } };

/* n of two parts, k, group. */
static const struct {
    int n[2], k, group;
} shapes[] = { { { 160, 16 }, 256, 128 }, { { 24, 40 }, 128, 32 }, { { 16, 8 }, 72, 24 }, { { 8, 8 }, 88, 20 }, { { 32, 16 }, 104, 104 } };

/* Any stretch of rows and inputs. */
static void test_codes(void **state)
{
    (void)state;
    for (size_t f = 0; f < NB_COUNT(forms); f++)
        for (int k = 48; k <= 56; k += forms[f].order == NB_CODES_INPUTS ? 8 : 3) {
            pair    p;
            uint8_t got[24 * 56];
            pair_new(&p, forms[f].kind, forms[f].order, 40, k, 16, true);
            for (size_t row = 0; row < 40; row += 3)
                for (size_t first = 0; first < 32; first += 8) {
                    size_t rows = 40 - row < 24 ? 40 - row : 24, count = (size_t)k - first - row % 5, ld = 56;
                    memset(got, 0xee, sizeof got);
                    nb_weights_codes(got, ld, &p.words, row, rows, first, count);
                    for (size_t r = 0; r < rows; r++)
                        for (size_t i = 0; i < ld; i++)
                            assert_int_equal(got[r * ld + i], i < count ? p.byte[(row + r) * (size_t)k + first + i] : 0xee);
                }
            pair_free(&p);
        }
}

static void expect_same_rows(const nb_ops *ops, const nb_matrix *a, const nb_matrix *b)
{
    size_t   count = (size_t)a->n * (size_t)a->k;
    int32_t *ids = malloc((size_t)a->n * sizeof *ids);
    float   *x = malloc(count * sizeof *x), *y = malloc(count * sizeof *y);
    for (int i = 0; i < a->n; i++) ids[i] = i;
    ops->embed(ops, x, ids, (size_t)a->n, a);
    ops->embed(ops, y, ids, (size_t)b->n, b);
    assert_memory_equal(x, y, count * sizeof *x);
    free(ids);
    free(x);
    free(y);
}

static void check_pack(const nb_ops *ops, const pair p[2], const char *what)
{
    nb_matrix  words, bytes;
    nb_error   err;
    nb_weights a[2] = { p[0].words, p[1].words }, b[2] = { p[0].bytes, p[1].bytes };
    OK(ops->pack(ops, &words, a, 2, &err), &err);
    OK(ops->pack(ops, &bytes, b, 2, &err), &err);
    expect_same_rows(ops, &words, &bytes);
    if (ops->isa != NB_ISA_REF) {
        const nb_packed *x = words.storage, *y = bytes.storage;
        assert_int_equal(x->panel_bytes, y->panel_bytes);
        if (memcmp(x->bytes, y->bytes, (size_t)x->panels * x->panel_bytes) != 0) fail_msg("%s, %s: other bytes", ops->name, what);
    }
    ops->release(ops, &words);
    ops->release(ops, &bytes);
}

static void pack_shapes(const nb_ops *ops)
{
    for (size_t f = 0; f < NB_COUNT(forms); f++)
        for (size_t s = 0; s < NB_COUNT(shapes); s++)
            for (int sorted = 0; sorted < 2; sorted++) {
                pair p[2];
                char what[80];
                for (int i = 0; i < 2; i++)
                    pair_new(&p[i], forms[f].kind, forms[f].order, shapes[s].n[i], shapes[s].k, shapes[s].group, sorted);
                snprintf(what, sizeof what, "form %zu, [%d + %d, %d], groups of %d, %s", f, shapes[s].n[0], shapes[s].n[1], shapes[s].k,
                         shapes[s].group, sorted ? "in order" : "sorted columns");
                check_pack(ops, p, what);
                for (int i = 0; i < 2; i++) pair_free(&p[i]);
            }
}

static void test_pack(void **state)
{
    (void)state;
    each_level(pack_shapes);
}

/* Rows that end within a word: only NB_CODES_ROWS has them. */
static void pack_odd_rows(const nb_ops *ops)
{
    for (int kind = NB_W_INT4; kind <= NB_W_INT8; kind++)
        for (int k = 121; k < 137; k++) {
            pair p[2];
            for (int i = 0; i < 2; i++) pair_new(&p[i], kind, NB_CODES_ROWS, 16 + 3 * i, k, 64, true);
            check_pack(ops, p, "odd rows");
            for (int i = 0; i < 2; i++) pair_free(&p[i]);
        }
}

static void test_odd_rows(void **state)
{
    (void)state;
    each_level(pack_odd_rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_codes), cmocka_unit_test(test_pack), cmocka_unit_test(test_odd_rows) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
