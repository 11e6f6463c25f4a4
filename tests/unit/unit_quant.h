/* unit_quant.h - what the tests of the solvers share: the inputs of tests/oracle/quant_oracle.py, made again from a seed, and
 * its fixtures. */
#ifndef NB_UNIT_QUANT_H
#define NB_UNIT_QUANT_H

#include <cjson/cJSON.h>

#include "kernels/float.h"
#include "kernels/threads.h"
#include "quant/grid.h"
#include "unit.h"

typedef struct {
    int     n, k, tokens;
    float  *w;        /* [n, k] */
    double *x;        /* [tokens, k] */
    double *h;        /* [k, k] sum over tokens of x x' */
    float  *mean_abs; /* [k] */
} unit_layer;

static inline void unit_layer_free(unit_layer *l)
{
    free(l->w);
    free(l->x);
    free(l->h);
    free(l->mean_abs);
    *l = (unit_layer){ 0 };
}

/* make_inputs of the oracle; dead: JSON array of channels, or NULL. */
static inline unit_layer unit_layer_make(uint64_t seed, int n, int k, int tokens, const cJSON *dead)
{
    unit_layer l = { .n = n, .k = k, .tokens = tokens, .w = calloc((size_t)n * k, sizeof(float)),
                     .x = calloc((size_t)tokens * k, sizeof(double)), .h = calloc((size_t)k * k, sizeof(double)),
                     .mean_abs = calloc((size_t)k, sizeof(float)) };
    for (int i = 0; i < n * k; i++) l.w[i] = unit_normal(&seed) * 0.05f;
    for (int t = 0; t < tokens; t++) {
        double common = unit_normal(&seed), previous = 0.0;
        for (int c = 0; c < k; c++) {
            previous = 0.6 * previous + unit_normal(&seed) + 0.5 * common;
            l.x[(size_t)t * k + c] = previous * (c % 17 == 5 ? 8.0 : 1.0 + c % 3 * 0.25);
        }
    }
    const cJSON *channel;
    cJSON_ArrayForEach(channel, dead) for (int t = 0; t < tokens; t++) l.x[(size_t)t * k + channel->valueint] = 0.0;
    for (int t = 0; t < tokens; t++)
        for (int i = 0; i < k; i++) {
            double v = l.x[(size_t)t * k + i];
            l.mean_abs[i] += (float)(fabs(v) / tokens);
            for (int j = 0; j < k; j++) l.h[(size_t)i * k + j] += v * l.x[(size_t)t * k + j];
        }
    return l;
}

static inline cJSON *unit_fixture(const char *relative)
{
    FILE *f = fopen(unit_path(relative), "rb");
    if (!f) fail_msg("cannot open %s", unit_path(relative));
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    char *text = calloc((size_t)size + 1, 1);
    assert_int_equal(fread(text, 1, (size_t)size, f), size);
    fclose(f);
    cJSON *tree = cJSON_Parse(text);
    free(text);
    assert_non_null(tree);
    return tree;
}

static inline double unit_number(const cJSON *o, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(o, key);
    if (!cJSON_IsNumber(item)) fail_msg("fixture has no number '%s'", key);
    return item->valuedouble;
}

static inline bool unit_true(const cJSON *o, const char *key)
{
    return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(o, key));
}

/* The i-th number of `digits` hexadecimal digits in a string of them. */
static inline unsigned unit_hex(const cJSON *o, const char *key, size_t i, size_t digits)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, key));
    char part[9] = { 0 };
    if (!text || strlen(text) < (i + 1) * digits) fail_msg("fixture string '%s' is too short", key);
    memcpy(part, text + i * digits, digits);
    return (unsigned)strtoul(part, NULL, 16);
}

/* d H d' summed over rows by its definition. */
static inline double unit_loss(const float *w, const float *q, const double *h, int n, int k)
{
    double loss = 0.0;
    for (int r = 0; r < n; r++)
        for (int i = 0; i < k; i++)
            for (int j = 0; j < k; j++) {
                size_t a = (size_t)r * k + i, b = (size_t)r * k + j;
                loss += ((double)w[a] - q[a]) * h[(size_t)i * k + j] * ((double)w[b] - q[b]);
            }
    return loss;
}

static inline nb_pool *unit_pool(int threads)
{
    nb_error err;
    nb_pool *pool;
    OK(nb_pool_new(&pool, threads, &err), &err);
    return pool;
}

/* Two quantised matrices are the same, bit by bit. */
static inline void unit_same_codes(const nb_codes *a, const nb_codes *b)
{
    assert_int_equal(a->groups, b->groups);
    assert_memory_equal(a->codes, b->codes, (size_t)a->n * a->k);
    assert_memory_equal(a->scales, b->scales, (size_t)a->n * a->groups * sizeof(float));
    assert_memory_equal(a->zeros, b->zeros, (size_t)a->n * a->groups);
    assert_true(!a->g_idx == !b->g_idx);
    if (a->g_idx) assert_memory_equal(a->g_idx, b->g_idx, (size_t)a->k * sizeof(int32_t));
}

#endif
