/* test_model_head.c - a head that was rounded to int8 when the model was opened: each element within half a step of the
 * checkpoint's, the embedding as it was, logits those of the rounded elements, and codes left alone. */
#include "unit.h"

#include "runtime/model/model.h"

static nb_pool *pool;

static nb_model *open_at(nb_isa isa, const char *directory)
{
    nb_error  err;
    nb_ops    ops;
    nb_model *m;
    nb_ops_init(&ops, isa, pool);
    OK(nb_model_open(&m, directory, &ops, 0, &err), &err);
    return m;
}

static void elements(void **state)
{
    (void)state;
    nb_error  err;
    nb_model *m = open_at(NB_ISA_REF, unit_path("tools/demo/model"));
    size_t    k = (size_t)m->config.hidden, n = (size_t)m->config.vocab;
    float    *was = malloc(n * k * 4), *now = malloc(n * k * 4), *embed = malloc(n * k * 4);
    int32_t  *ids = malloc(n * 4);
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)i;
    m->ops.embed(&m->ops, was, ids, n, m->config.tied ? &m->embed : &m->head);
    size_t before = m->weight_bytes;
    OK(nb_model_head_int8(m, &err), &err);
    assert_int_equal(m->head.kind, NB_W_INT8);
    assert_int_equal(m->head.group, 128);
    if (m->config.tied) assert_int_equal(m->weight_bytes, before + m->head.bytes);
    m->ops.embed(&m->ops, now, ids, n, &m->head);
    m->ops.embed(&m->ops, embed, ids, n, &m->embed);
    if (m->config.tied) assert_memory_equal(was, embed, n * k * 4);
    size_t changed = 0;
    for (size_t row = 0; row < n; row++)
        for (size_t first = 0; first < k; first += 128) {
            double top = 0;
            for (size_t i = first; i < first + 128 && i < k; i++) top = fmax(top, fabs((double)was[row * k + i]));
            for (size_t i = first; i < first + 128 && i < k; i++) {
                NEAR(now[row * k + i], was[row * k + i], top / 127 * 0.5 * 1.001);
                changed += now[row * k + i] != was[row * k + i];
            }
        }
    assert_true(changed > n * k / 2);
    OK(nb_model_head_int8(m, &err), &err); /* again: nothing is left to round */
    assert_int_equal(m->head.kind, NB_W_INT8);
    nb_model_close(m);
    free(was), free(now), free(embed), free(ids);
}

static void keep_norm(void *context, nb_see_point point, int index, const float *x, size_t ld, size_t rows, int width)
{
    (void)index;
    for (size_t r = 0; r < rows && point == NB_SEE_NORM; r++)
        memcpy((float *)context + r * (size_t)width, x + r * ld, (size_t)width * sizeof *x);
}

static void logits(void **state)
{
    (void)state;
    nb_error    err;
    nb_model   *m = open_at(nb_isa_detect(NB_ISA_LEVELS - 1), unit_path("tools/demo/model"));
    nb_scratch *s;
    enum { ROWS = 3 };
    size_t   k = (size_t)m->config.hidden, n = (size_t)m->config.vocab;
    float   *x = malloc(ROWS * k * 4), *was = malloc(ROWS * n * 4), *now = malloc(ROWS * n * 4);
    float   *w = malloc(n * k * 4);
    int32_t *ids = malloc(n * 4);
    uint64_t seed = 1;
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)i;
    for (size_t i = 0; i < ROWS * k; i++) x[i] = (float)unit_normal(&seed);
    OK(nb_scratch_new(&s, m, ROWS, &err), &err);
    nb_head_forward(m, s, x, ROWS, was);
    OK(nb_model_head_int8(m, &err), &err);
    m->ops.embed(&m->ops, w, ids, n, &m->head);
    nb_scratch_watch(s, keep_norm, x);
    nb_head_forward(m, s, x, ROWS, now);
    assert_memory_not_equal(was, now, ROWS * n * 4);
    for (size_t r = 0; r < ROWS; r++) /* now x holds the normed rows */
        for (size_t v = 0; v < n; v++) {
            double sum = 0, size = 0;
            for (size_t i = 0; i < k; i++) {
                sum += (double)x[r * k + i] * w[v * k + i];
                size += fabs((double)x[r * k + i] * w[v * k + i]);
            }
            NEAR(now[r * n + v], sum, 1e-4 * size);
        }
    free(w), free(ids);
    nb_scratch_free(s);
    nb_model_close(m);
    free(x), free(was), free(now);
}

static int set_up(void **state)
{
    (void)state;
    return nb_pool_new(&pool, 2, NULL) != NB_OK;
}
static int tear_down(void **state)
{
    (void)state;
    nb_pool_free(pool);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(elements), cmocka_unit_test(logits) };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
