/* plan_time.c - arithmetic counted by formula, divided by a measured rate and by the share of it that each phase reaches.
 *
 * The shares are those of results/calibration.md.  What depends on the data alone (decoding pictures, the vision tower) is not
 * counted: it is seconds for a text set and not known before the pictures are seen.  Nor is the judge.
 */
#include "quant/plan_time.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/gemm.h"
#include "quant/float_layer.h"
#include "runtime/io/file.h"

enum { ROWS = 48, COLUMNS = 128, DEPTH = 512, REPEATS = 64, DISK_BYTES = 8 << 20 };
static const double FORWARD_FLOAT = 0.8, FORWARD_INT = 1.3, GRAM = 0.55, FACTOR = 0.75, SOLVE = 0.5, AWQ_SOLVE = 0.3;

/* ---- the machine ------------------------------------------------------------------------------------------------------- */

typedef struct {
    const nb_gemm *gemm;
    float         *a32, *b32, *c32; /* c: [threads, ROWS, COLUMNS] */
    double        *a64, *b64, *c64;
    bool           wide;
} probe;

static void multiply(void *context, size_t item, int thread)
{
    (void)item;
    const probe *p = context;
    size_t       at = (size_t)thread * ROWS * COLUMNS;
    if (p->wide)
        p->gemm->f64(p->c64 + at, COLUMNS, p->a64, DEPTH, p->b64, DEPTH, ROWS, COLUMNS, DEPTH, false);
    else
        p->gemm->f32(p->c32 + at, COLUMNS, p->a32, DEPTH, p->b32, DEPTH, ROWS, COLUMNS, DEPTH, false);
}

static double rate(probe *p, bool wide, nb_pool *pool)
{
    double best = 0;
    p->wide = wide;
    for (int round = 0; round < 3; round++) {
        double start = nb_seconds();
        nb_parallel(pool, REPEATS, multiply, p);
        best = fmax(best, 2.0 * ROWS * COLUMNS * DEPTH * REPEATS / (nb_seconds() - start));
    }
    return best;
}

static double disk_rate(const char *path)
{
    char  *folder = nb_path_folder(path), *data = calloc(1, DISK_BYTES);
    double seconds = 0;
    int    fd = folder && data ? open(folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600) : -1;
    for (size_t i = 0; fd >= 0 && i < DISK_BYTES; i += 512) data[i] = (char)(i >> 9); /* not a hole */
    if (fd >= 0) {
        double start = nb_seconds();
        if (write(fd, data, DISK_BYTES) == DISK_BYTES && fdatasync(fd) == 0) seconds = nb_seconds() - start;
        close(fd);
    }
    free(folder);
    free(data);
    return seconds > 0 ? DISK_BYTES / seconds : 0;
}

nb_status nb_machine_probe(nb_machine *out, nb_pool *pool, const char *path, nb_error *err)
{
    size_t    c = (size_t)nb_pool_threads(pool) * ROWS * COLUMNS;
    probe     p = {.gemm = nb_gemm_of(nb_isa_best())};
    nb_status status = nb_alloc(&p.a32, ROWS * DEPTH, sizeof(float), "a measurement", err);
    memset(out, 0, sizeof *out);
    if (!status) status = nb_alloc(&p.b32, COLUMNS * DEPTH, sizeof(float), "a measurement", err);
    if (!status) status = nb_alloc(&p.c32, c, sizeof(float), "a measurement", err);
    if (!status) status = nb_alloc(&p.a64, ROWS * DEPTH, sizeof(double), "a measurement", err);
    if (!status) status = nb_alloc(&p.b64, COLUMNS * DEPTH, sizeof(double), "a measurement", err);
    if (!status) status = nb_alloc(&p.c64, c, sizeof(double), "a measurement", err);
    if (!status) *out = (nb_machine){.f32 = rate(&p, false, pool), .f64 = rate(&p, true, pool), .disk = disk_rate(path)};
    free(p.a32);
    free(p.b32);
    free(p.c32);
    free(p.a64);
    free(p.b64);
    free(p.c64);
    return status;
}

/* ---- the work ---------------------------------------------------------------------------------------------------------- */

/* Multiply-adds of one token in all passes of a layer, times two: linears that are float, and those that are solved already. */
static void forward_work(double *floats, double *ints, const nb_quantize_options *o, const nb_float_layer *f)
{
    double flop[NB_LINEARS], all = 0;
    bool   smooth = o->method == NB_METHOD_AWQ_GPTQ, sequential = smooth || o->asym || (o->method == NB_METHOD_GPTQ && o->true_sequential);
    for (int i = 0; i < NB_LINEARS; i++) all += flop[i] = 2.0 * f->n[i] * f->k[i];
    *floats = *ints = 0;
    for (int site = 1; site < NB_SITES && sequential; site++) /* each site's pass runs all that is before it */
        for (int i = 0; i < nb_site_first[site]; i++) *ints += flop[i];
    if (!sequential || smooth) *floats = all - (o->propagate_quantized ? flop[NB_DOWN] : 0);
    if (o->asym) *floats += *ints + all; /* the original stream goes beside */
    if (o->propagate_quantized)
        *ints += all;
    else if (sequential)
        *floats += all;
}

/* AWQ's candidates on a sample of rows (awq.c), its losses in double, and ten clips of each group. */
static double awq_work(const nb_quantize_options *o, const nb_float_layer *f)
{
    double work = 0;
    for (int site = 0; site < NB_SITES; site++) {
        int    first = nb_site_first[site];
        double k = f->k[first], rows = 0, group = o->grid.group > 0 ? o->grid.group : k;
        for (int i = first; i < first + nb_site_count[site]; i++) rows += f->n[i];
        work += (o->awq_duo ? 2 : 1) * o->awq_points * fmin(rows * k * k, 8589934592.0) + 4 * 3 * rows * k * k;
        if (o->awq_clip) work += 10 * 2 * rows * k * group;
    }
    return work;
}

nb_status nb_plan_time(double seconds[NB_PHASES], const nb_quantize_options *o, const nb_machine *m, uint64_t tokens, nb_error *err)
{
    nb_config      config;
    nb_float_layer f;
    nb_buf         notes = {0};
    double         weights = 0, floats, ints, factor = 0, solve = 0, gram = 0;
    memset(seconds, 0, NB_PHASES * sizeof *seconds);
    nb_status status = nb_config_open(&config, o->model_dir, &notes, err);
    nb_buf_free(&notes);
    if (status) return status;
    nb_float_layer_shape(&f, &config, 0);
    double layers = config.layers, count = (double)tokens;
    forward_work(&floats, &ints, o, &f);
    for (int site = 0; site < NB_SITES; site++) {
        double k = f.k[nb_site_first[site]];
        gram += k * k;
        factor += k * k * k / 3;
    }
    for (int i = 0; i < NB_LINEARS; i++) {
        weights += (double)f.n[i] * f.k[i];
        solve += 2.0 * f.n[i] * f.k[i] * f.k[i];
    }
    if (o->method != NB_METHOD_RTN) {
        seconds[NB_PHASE_FORWARD] = layers * count * (floats / FORWARD_FLOAT + ints / FORWARD_INT) / m->f32;
        seconds[NB_PHASE_GRAM] = layers * count * (o->asym ? 3 : o->method == NB_METHOD_AWQ_GPTQ ? 2 : 1) * gram / (GRAM * m->f32);
    }
    bool gptq = o->method == NB_METHOD_GPTQ || o->method == NB_METHOD_AWQ_GPTQ, awq = o->method == NB_METHOD_AWQ || o->method == NB_METHOD_AWQ_GPTQ;
    if (gptq) seconds[NB_PHASE_FACTOR] = layers * (o->asym ? 2 : 1) * factor / (FACTOR * m->f64);
    if (gptq) seconds[NB_PHASE_SOLVE] = layers * (1 + o->sweeps) * solve / (SOLVE * m->f32); /* a sweep of refinement is another solution */
    if (awq) seconds[NB_PHASE_SOLVE] += layers * awq_work(o, &f) / (AWQ_SOLVE * m->f32);
    if (m->disk > 0) seconds[NB_PHASE_WRITE] = layers * weights * o->grid.bits / 8 / m->disk;
    return NB_OK;
}
