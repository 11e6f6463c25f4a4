/* test_kernels_gemm.c - the solvers' products at every level against sums in long double, at odd sizes; nothing is written beside
 * the result, a row does not depend on its company, and the vector levels agree to the bit. */
#include "kernels/gemm.h"
#include "levels.h"

static double some(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 40) / (1 << 24) - 0.5;
}

static const size_t shapes[][3] = { { 1, 1, 1 }, { 5, 17, 3 }, { 12, 32, 256 }, { 13, 33, 257 }, { 48, 128, 100 }, { 7, 31, 600 }, { 3, 20, 0 } };

/* One type: panels are filled by their definition in gemm.h; deep is more than k. */
#define CHECK(name, type, call, panel, epsilon)                                                                              \
    static void name(const nb_gemm *g, size_t m, size_t n, size_t k, bool subtract)                                          \
    {                                                                                                                        \
        size_t   width = g->panel, whole = (n + width - 1) / width * width, deep = k + 2, lda = k + 3, ldc = n + 5;           \
        uint64_t seed = m * 31 + n * 7 + k;                                                                                  \
        type    *a = malloc((m * lda + 1) * sizeof *a), *b = calloc(whole * deep, sizeof *b), *c = malloc(m * ldc * sizeof *c); \
        type    *was = malloc(m * ldc * sizeof *c);                                                                          \
        for (size_t i = 0; i < m * lda; i++) a[i] = (type)some(&seed);                                                       \
        for (size_t i = 0; i < deep; i++)                                                                                    \
            for (size_t j = 0; j < n; j++) b[j / width * width * deep + i * width + j % width] = (type)some(&seed);           \
        for (size_t i = 0; i < m * ldc; i++) was[i] = c[i] = (type)some(&seed);                                              \
        g->call(c, ldc, a, lda, b, deep, m, n, k, subtract);                                                                 \
        for (size_t r = 0; r < m; r++)                                                                                       \
            for (size_t j = 0; j < ldc; j++) {                                                                               \
                long double sum = 0;                                                                                         \
                for (size_t i = 0; i < k && j < n; i++)                                                                      \
                    sum += (long double)a[r * lda + i] * b[j / width * width * deep + i * width + j % width];                 \
                long double want = j >= n ? was[r * ldc + j] : subtract ? was[r * ldc + j] - sum : sum;                      \
                NEAR((double)c[r * ldc + j], (double)want, j >= n ? 0 : (epsilon) * (double)(k + 2));                         \
            }                                                                                                                \
        type *alone = malloc(ldc * sizeof *c); /* the last row on its own: the same bits */                                   \
        memcpy(alone, was + (m - 1) * ldc, ldc * sizeof *c);                                                                 \
        g->call(alone, ldc, a + (m - 1) * lda, lda, b, deep, 1, n, k, subtract);                                             \
        assert_memory_equal(alone, c + (m - 1) * ldc, n * sizeof *c);                                                        \
        free(a), free(b), free(c), free(was), free(alone);                                                                   \
    }
CHECK(check32, float, f32, width32, 1e-7)
CHECK(check64, double, f64, width64, 2e-16)

static void products(const nb_ops *ops)
{
    const nb_gemm *g = nb_gemm_of(ops->isa);
    for (size_t s = 0; s < NB_COUNT(shapes); s++)
        for (int subtract = 0; subtract < 2; subtract++) {
            check32(g, shapes[s][0], shapes[s][1], shapes[s][2], subtract);
            check64(g, shapes[s][0], shapes[s][1], shapes[s][2], subtract);
        }
    float    columns[3 * NB_GIVE_ROWS + 1], was[3 * NB_GIVE_ROWS + 1], e[NB_GIVE_ROWS], u[3] = { 0.5f, -2, 0.25f };
    uint64_t seed = 5;
    for (size_t i = 0; i <= 3 * NB_GIVE_ROWS; i++) was[i] = columns[i] = (float)some(&seed);
    for (size_t i = 0; i < NB_GIVE_ROWS; i++) e[i] = (float)some(&seed);
    g->give(columns, e, u, 3);
    for (size_t i = 0; i < 3 * NB_GIVE_ROWS; i++) NEAR(columns[i], (double)was[i] - (double)u[i / NB_GIVE_ROWS] * e[i % NB_GIVE_ROWS], 1e-7);
    NEAR(columns[3 * NB_GIVE_ROWS], was[3 * NB_GIVE_ROWS], 0);
}

static void every_level(void **state)
{
    (void)state;
    each_level(products);
}

/* a b' with nb_gemm_panels64, at all vector levels that the machine has. */
static void levels_agree(void **state)
{
    (void)state;
    enum { M = 29, N = 37, K = 300 };
    static double a[M * K], b[N * K], panels[(N + 16) * K], c[NB_ISA_LEVELS][M * N];
    uint64_t      seed = 9;
    int           levels = 0;
    for (size_t i = 0; i < M * K; i++) a[i] = some(&seed);
    for (size_t i = 0; i < N * K; i++) b[i] = some(&seed);
    for (nb_isa isa = NB_ISA_REF + 1; isa < NB_ISA_LEVELS; isa++) {
        if (nb_isa_detect(isa) != isa) continue;
        const nb_gemm *g = nb_gemm_of(isa);
        nb_gemm_panels64(panels, b, K, N, K, g->width64);
        g->f64(c[levels], N, a, K, panels, K, M, N, K, false);
        assert_memory_equal(c[0], c[levels], sizeof c[0]);
        levels++;
    }
    if (levels == 0) skip();
    double sum = 0;
    for (int i = 0; i < K; i++) sum += a[5 * K + i] * b[36 * K + i];
    NEAR(c[0][5 * N + 36], sum, 1e-13);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(every_level), cmocka_unit_test(levels_agree) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
