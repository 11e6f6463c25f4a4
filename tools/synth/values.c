/* values.c - one multiply-and-shift hash gives four weights, each by one look-up in a table of quantiles.
 *
 * Element i of a tensor is table[16-bit field i % 4 of hash(key + i / 4)], and the table holds equally likely values
 * that already are in the file's type: so the work per weight is a shift, a mask, a load and a store, some GB/s per
 * core, and the disk is what one waits for.  The table is 16 KiB of 16-bit values and stays in the first-level cache.
 *
 * The quantiles are Tukey's lambda distribution with lambda = 1/16,
 *     Q(p) = p^(1/16) - (1 - p)^(1/16),
 * a bell with tails slightly heavier than a normal's, as trained weights have.  It needs square roots only, which IEEE
 * 754 rounds exactly: a seed gives the same bytes on every machine, whatever its C library.
 */
#include "tools/synth/values.h"

#include <math.h>
#include <string.h>

static const float faint_gain = 0.125f;

/* Number n of the generator that begins at key. */
static inline uint64_t hash_at(uint64_t key, uint64_t n)
{
    return nb_mix64(key + (n + 1) * NB_RANDOM_STEP);
}

static uint64_t key_of(uint64_t seed, const char *name)
{
    uint64_t key = nb_mix64(seed + NB_RANDOM_STEP);
    for (; *name; name++) key = nb_mix64(key ^ (unsigned char)*name) + NB_RANDOM_STEP;
    return key;
}

static double unit_interval(uint64_t hash)
{
    return (double)(hash >> 11) * 0x1p-53;
}

static double root16(double p)
{
    return sqrt(sqrt(sqrt(sqrt(p))));
}

void nb_synth_source_init(nb_synth_source *source, uint64_t seed, nb_dtype dtype)
{
    double squares = 0;
    source->seed = seed;
    source->dtype = dtype;
    for (int pass = 0; pass < 2; pass++) { /* the variance, then the values; the mean is 0 by symmetry */
        for (int i = 0; i < NB_SYNTH_QUANTILES; i++) {
            double p = (i + 0.5) / NB_SYNTH_QUANTILES, q = root16(p) - root16(1 - p);
            if (pass == 0) squares += q * q;
            else source->quantile[i] = (float)(q / sqrt(squares / NB_SYNTH_QUANTILES));
        }
    }
}

/* Which rows stand out, and by how much.  Channels of the residual stream are the same for every tensor of this length,
 * their gains are the tensor's own. */
static void choose_outliers(nb_synth_generator *g, uint64_t rows)
{
    const nb_synth_values *v = &g->values;
    uint64_t gains = nb_mix64(g->key ^ 1), places = v->channels ? key_of(g->source->seed, "channels") ^ rows : nb_mix64(g->key ^ 2);
    if (v->outliers <= 0 || rows == 0) return;
    g->outliers = (size_t)ceil(v->outliers * (double)rows);
    if (g->outliers > NB_SYNTH_OUTLIERS) g->outliers = NB_SYNTH_OUTLIERS;
    for (size_t i = 0; i < g->outliers; i++) {
        g->outlier[i] = hash_at(places, i) % rows;
        g->gain[i] = (float)(v->gain_min + (v->gain_max - v->gain_min) * unit_interval(hash_at(gains, i)));
    }
}

void nb_synth_generator_init(nb_synth_generator *g, const nb_synth_source *source, const nb_synth_tensor *tensor)
{
    float values[NB_SYNTH_QUANTILES];
    memset(g, 0, sizeof *g);
    g->source = source;
    g->values = tensor->values;
    g->key = key_of(source->seed, tensor->name);
    g->size = nb_dtype_size(source->dtype);
    g->row = g->count = 1;
    for (int d = 0; d < tensor->rank; d++) {
        g->count *= tensor->shape[d];
        if (d > 0) g->row *= tensor->shape[d];
    }
    g->faint = tensor->values.faint_from ? tensor->values.faint_from * g->row : g->count;
    choose_outliers(g, tensor->shape[0]);
    for (int faint = 0; faint < 2; faint++) {
        for (int i = 0; i < NB_SYNTH_QUANTILES; i++)
            values[i] = (faint ? faint_gain : 1.0f) * ((float)g->values.mean + (float)g->values.std * source->quantile[i]);
        nb_from_f32(g->table[faint], source->dtype, values, NB_SYNTH_QUANTILES);
    }
}

/* Place in the table of element i. */
static inline size_t place_at(uint64_t key, uint64_t i)
{
    return hash_at(key, i / 4) >> i % 4 * 16 & (NB_SYNTH_QUANTILES - 1);
}

/* The same, without computing a hash four times.  TYPE is as wide as an element. */
#define FILL(TYPE)                                                                                  \
    do {                                                                                            \
        TYPE       *out = dst;                                                                      \
        const TYPE *values = (const TYPE *)table;                                                   \
        for (; n && first % 4; n--) *out++ = values[place_at(key, first++)];                        \
        for (uint64_t block = first / 4; n >= 4; block++, first += 4, n -= 4, out += 4) {           \
            uint64_t h = hash_at(key, block);                                                       \
            out[0] = values[h & (NB_SYNTH_QUANTILES - 1)];                                          \
            out[1] = values[h >> 16 & (NB_SYNTH_QUANTILES - 1)];                                    \
            out[2] = values[h >> 32 & (NB_SYNTH_QUANTILES - 1)];                                    \
            out[3] = values[h >> 48 & (NB_SYNTH_QUANTILES - 1)];                                    \
        }                                                                                           \
        for (; n; n--) *out++ = values[place_at(key, first++)];                                     \
    } while (0)

static void fill_run(uint64_t key, size_t size, const void *table, uint64_t first, size_t n, void *dst)
{
    if (size == 2) FILL(uint16_t);
    else FILL(uint32_t);
}

/* Elements of a row with a gain, first .. end - 1. */
static void fill_outlier(const nb_synth_generator *g, float gain, uint64_t first, uint64_t end, unsigned char *dst)
{
    float values[256];
    while (first < end) {
        size_t n = end - first < NB_COUNT(values) ? (size_t)(end - first) : NB_COUNT(values);
        for (size_t i = 0; i < n; i++)
            values[i] = gain * ((float)g->values.mean +
                                (float)g->values.std * g->source->quantile[place_at(g->key, first + i)]);
        nb_from_f32(dst, g->source->dtype, values, n);
        first += n;
        dst += n * g->size;
    }
}

void nb_synth_fill(const nb_synth_generator *g, uint64_t first, size_t n, void *dst)
{
    unsigned char *out = dst;
    uint64_t       end = first + n;
    size_t         plain = first >= g->faint ? 0 : g->faint - first < n ? (size_t)(g->faint - first) : n;
    fill_run(g->key, g->size, g->table[0], first, plain, out);
    fill_run(g->key, g->size, g->table[1], first + plain, n - plain, out + plain * g->size);
    for (size_t i = 0; i < g->outliers; i++) {
        uint64_t from = g->outlier[i] * g->row, to = from + g->row;
        if (from < first) from = first;
        if (to > end) to = end;
        if (from < to) fill_outlier(g, g->gain[i], from, to, out + (from - first) * g->size);
    }
}
