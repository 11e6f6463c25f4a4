/* cmd_bench.c - the cross product of models, tests and depths, timed and printed in llama-bench's form; and without a model, what the
 * machine could do (tools/bench/roofline.h) and each operation by itself (kernels.h). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/choice.h"
#include "tools/bench/bench.h"
#include "tools/bench/kernels.h"
#include "tools/bench/roofline.h"
#include "tools/bench/work.h"
#include "tools/cli/output.h"
#include "tools/cli/progress.h"
#include "tools/cli/stop.h"
#include "tools/cli/table.h"
#include "tools/commands.h"
#include "tools/eval/report.h"
#include "tools/session.h"

typedef struct {
    nb_common        common;
    nb_compute_flags compute;
    nb_weight_flags  weights;
    nb_engine_flags  engine;
    nb_strings models, pairs;
    nb_ints    prompts, generates, depths;
    int64_t    repetitions, seed;
    bool       warm_up, probe, roofline, kernels, sites;
    uint64_t   memory;
    double     seconds;
    const char *isa, *shapes, *filter;
    int        output;
} options;

#define AT(field) .at = offsetof(options, field)
static const nb_arg bench_args[] = {
    { .name = "models", .type = NB_ARG_STRINGS, AT(models), .positional = true, .metavar = "MODEL",
      .help = "checkpoint directories" },
    { .name = "n-prompt", .brief = "p", .type = NB_ARG_INTS, AT(prompts), .min = 0, .max = 1e7, .metavar = "N,...", .group = "Tests", .shown = "512",
      .help = "prompt tokens processed (ppN); 0 leaves the test out" },
    { .name = "n-gen", .brief = "n", .type = NB_ARG_INTS, AT(generates), .min = 0, .max = 1e7, .metavar = "N,...", .group = "Tests", .shown = "128",
      .help = "tokens generated (tgN); 0 leaves the test out" },
    { .name = "pg", .brief = "pg", .type = NB_ARG_STRINGS, AT(pairs), .metavar = "P,N", .group = "Tests",
      .help = "a prompt of P tokens and N generated ones in one test; may be repeated" },
    { .name = "n-depth", .brief = "d", .type = NB_ARG_INTS, AT(depths), .min = 0, .max = 1e7, .metavar = "D,...", .group = "Tests", .shown = "0",
      .help = "tokens of context that are there before the test starts" },
    { .name = "repetitions", .brief = "r", .type = NB_ARG_INT, AT(repetitions), .min = 1, .max = 1000, .text = "5", .group = "Tests",
      .help = "timed runs of each test, rounds of each probe and (at most) of each operation" },
    { .name = "warmup", .type = NB_ARG_BOOL, AT(warm_up), .text = "true", .group = "Tests", .advanced = true, .help = "one untimed run first" },
    { .name = "probe", .type = NB_ARG_BOOL, AT(probe), .text = "true", .group = "Tests", .advanced = true,
      .help = "measure the machine's limits before and after, for the two columns of percents" },
    { .name = "seed", .type = NB_ARG_INT, AT(seed), .min = 0, .max = 9e18, .text = "0", .group = "Tests", .advanced = true,
      .help = "of the made-up tokens" },
    { .name = "roofline", .type = NB_ARG_BOOL, AT(roofline), .text = "false", .group = "The machine",
      .help = "no MODEL: how fast memory is read and how much each unit multiplies, on one thread and on all" },
    { .name = "kernels", .type = NB_ARG_BOOL, AT(kernels), .text = "false", .group = "The machine",
      .help = "no MODEL: every operation of the table by itself, and its percents of those limits" },
    { .name = "shapes", .type = NB_ARG_STRING, AT(shapes), .text = "2b,7b,vision", .metavar = "NAME,...", .group = "The machine",
      .help = "--kernels: whose shapes; tiny, 2b, 7b, 72b are decoders, vision is the tower" },
    { .name = "filter", .type = NB_ARG_STRING, AT(filter), .metavar = "RE", .group = "The machine",
      .help = "--kernels: cases whose label has this, as in 'matmul 7b layer int4 g128 sym rows 8 avx512', 'attend 7b rows 1 depth 4096 avx2'" },
    { .name = "sites", .type = NB_ARG_BOOL, AT(sites), .text = "false", .group = "The machine",
      .help = "--kernels: a row for each matrix of a layer or block, too" },
    { .name = "seconds", .type = NB_ARG_NUMBER, AT(seconds), .min = 0.1, .max = 1e6, .text = "60", .group = "The machine",
      .help = "--kernels: time for all cases, beside the probes; those that are not reached are left out and say so" },
    { .name = "isa", .type = NB_ARG_STRING, AT(isa), .metavar = "LEVEL,...", .shown = "all up to NIBBLE_ISA", .group = "The machine",
      .help = "levels to measure without a model: ref, avx2, avx512" },
    { .name = "memory", .type = NB_ARG_SIZE, AT(memory), .min = 16 << 20, .max = 1e15, .metavar = "SIZE", .shown = "1G, or 4 times the largest cache",
      .group = "The machine", .help = "bytes that the reading probe goes through; --kernels: calls take turns over a quarter of it, 256M at most" },
    { .name = "output", .brief = "o", .type = NB_ARG_CHOICE, AT(output), .choices = "md|csv|json|jsonl", .text = "md", .group = "Results",
      .help = "form of the table" },
};

static const nb_arg_block blocks[] = { { bench_args, NB_COUNT(bench_args), 0 },
                                       { nb_compute_args, NB_COMPUTE_ARGS, offsetof(options, compute) },
                                       { nb_weight_args, NB_WEIGHT_ARGS, offsetof(options, weights) },
                                       { nb_engine_args, NB_ENGINE_ARGS, offsetof(options, engine) },
                                       { nb_common_args, NB_COMMON_ARGS, offsetof(options, common) },
                                       { NULL, 0, 0 } };

/* key NULL: people only; title NULL: machines only */
static const nb_column columns[] = {
    { .key = "model_filename", .title = "model" },
    { .key = "model_type", .title = "form" },
    { .key = NULL, .title = "size", .right = true },
    { .key = "model_size" },
    { .key = NULL, .title = "params", .right = true },
    { .key = "model_n_params" },
    { .key = "build_version" },
    { .key = "backends", .title = "backend" },
    { .key = "n_threads", .title = "threads" },
    { .key = "n_batch" },
    { .key = "n_ubatch" },
    { .key = "type_k" },
    { .key = "type_v" },
    { .key = "n_prompt" },
    { .key = "n_gen" },
    { .key = "n_depth" },
    { .key = "test_time" },
    { .key = "avg_ns" },
    { .key = "stddev_ns" },
    { .key = "test", .title = "test", .right = true },
    { .key = "avg_ts", .title = "t/s", .digits = 2 },
    { .key = "stddev_ts" },
    { .key = "samples_ns" },
    { .key = "samples_ts" },
    { .key = "weight_bytes" },
    { .key = "kv_bytes" },
    { .key = "peak_rss_bytes", .title = "peak memory", .right = true },
    { .key = "token_bytes" },
    { .key = "read_percent", .title = "% of reading", .digits = 1 },
    { .key = "prompt_ops" },
    { .key = "peak_percent", .title = "% of peak", .digits = 1 },
    { .key = "probe_read" },
    { .key = "probe_ints" },
    { .key = "probe_floats" },
};

typedef struct {
    nb_bench_test *tests;
    size_t         count, capacity;
    size_t         longest; /* tokens of the longest context */
} test_list;

static nb_status add_test(test_list *l, size_t prompt, size_t generate, size_t depth, nb_error *err)
{
    if (prompt + generate == 0) return NB_OK;
    NB_TRY(nb_grow(&l->tests, &l->capacity, l->count + 1, sizeof *l->tests, "tests", err));
    l->tests[l->count++] = (nb_bench_test){ prompt, generate, depth };
    if (prompt + generate + depth > l->longest) l->longest = prompt + generate + depth;
    return NB_OK;
}

static nb_status plan(test_list *l, const options *o, nb_error *err)
{
    static int64_t zero = 0, pp = 512, tg = 128;
    bool    only_pairs = o->pairs.count && !o->prompts.count && !o->generates.count;
    nb_ints depths = o->depths.count ? o->depths : (nb_ints){ &zero, 1 };
    nb_ints prompts = o->prompts.count ? o->prompts : (nb_ints){ &pp, only_pairs ? 0 : 1 };
    nb_ints generates = o->generates.count ? o->generates : (nb_ints){ &tg, only_pairs ? 0 : 1 };
    for (int d = 0; d < depths.count; d++) {
        size_t depth = (size_t)depths.items[d];
        for (int i = 0; i < prompts.count; i++) NB_TRY(add_test(l, (size_t)prompts.items[i], 0, depth, err));
        for (int i = 0; i < generates.count; i++) NB_TRY(add_test(l, 0, (size_t)generates.items[i], depth, err));
        for (int i = 0; i < o->pairs.count; i++) {
            nb_ints   pair = { 0 };
            nb_status status = nb_parse_ints(&pair, o->pairs.items[i], 0, 1e7, "--pg", err);
            if (status == NB_OK && pair.count != 2) status = nb_fail(err, NB_ERR_ARGUMENT, "--pg: '%s' is not P,N", o->pairs.items[i]);
            if (status == NB_OK) status = add_test(l, (size_t)pair.items[0], (size_t)pair.items[1], depth, err);
            free(pair.items);
            if (status != NB_OK) return status;
        }
    }
    return l->count ? NB_OK : nb_fail(err, NB_ERR_ARGUMENT, "no test is left: -p and -n are both 0");
}

/* Weights of the tower: codes count as what they stand for. */
static uint64_t vision_params(const nb_model *model)
{
    uint64_t params = 0;
    for (size_t i = 0; i < nb_checkpoint_count(model->checkpoint); i++) {
        const nb_entry *e = nb_checkpoint_at(model->checkpoint, i);
        if (!strncmp(e->name, "visual.", 7) && !strstr(e->name, ".weight_")) params += e->tensor->count;
    }
    for (int i = 0; i < nb_vision_linear_count(&model->config); i++) {
        nb_outer linear;
        char     name[80];
        nb_vision_linear(&linear, &model->config, i);
        snprintf(name, sizeof name, "%s.weight_packed", linear.name);
        if (nb_checkpoint_find(model->checkpoint, name)) params += (uint64_t)linear.n * (uint64_t)linear.k;
    }
    return params;
}

static void fill_row(nb_table *t, const options *o, const nb_session *s, const char *path, const nb_bench_result *r, uint64_t peak)
{
    uint64_t bytes = 0, params = 0;
    char     form[32], cell[64];
    nb_buf   samples = { 0 };
    for (size_t i = 0; i < nb_checkpoint_count(s->model->checkpoint); i++) {
        const nb_tensor *tensor = nb_checkpoint_at(s->model->checkpoint, i)->tensor;
        bytes += tensor->bytes;
        params += tensor->dtype == NB_I32 ? 0 : tensor->count;
    }
    const nb_config *c = &s->model->config;
    if (c->quant.method != NB_QUANT_NONE) { /* codes are not elements: count what they stand for */
        params = (uint64_t)c->vocab * (uint64_t)c->hidden * (c->tied ? 1 : 2);
        uint64_t q = (uint64_t)c->heads * c->head_dim, kv = (uint64_t)c->kv_heads * c->head_dim, h = (uint64_t)c->hidden, m = (uint64_t)c->intermediate;
        params += (uint64_t)c->layers * (h * (2 * q + 2 * kv) + 3 * h * m);
        params += vision_params(s->model);
    }
    nb_model_form(form, c);
    nb_table_text(t, path);
    nb_table_text(t, form);
    nb_human_bytes(cell, (double)bytes);
    nb_table_text(t, cell);
    nb_table_int(t, (int64_t)bytes);
    nb_human_count(cell, (double)params);
    nb_table_text(t, cell);
    nb_table_int(t, (int64_t)params);
    nb_table_text(t, NIBBLE_VERSION);
    nb_table_text(t, s->ops.name);
    nb_table_int(t, nb_pool_threads(s->pool));
    nb_table_int(t, o->engine.chunk);
    nb_table_int(t, o->engine.chunk);
    const char *kv = nb_kv_name(nb_engine_kv_type(s->engine));
    nb_table_text(t, kv);
    nb_table_text(t, kv);
    nb_table_int(t, (int64_t)r->test.prompt);
    nb_table_int(t, (int64_t)r->test.generate);
    nb_table_int(t, (int64_t)r->test.depth);
    nb_table_text(t, r->when);
    nb_table_int(t, (int64_t)(r->avg_s * 1e9));
    nb_table_int(t, (int64_t)(r->stddev_s * 1e9));
    nb_table_text(t, r->name);
    snprintf(cell, sizeof cell, "%.2f ± %.2f", r->avg_ts, r->stddev_ts);
    nb_table_pair(t, cell, r->avg_ts);
    nb_table_number(t, r->stddev_ts);
    for (int i = 0; i < r->repetitions; i++) nb_buf_printf(&samples, "%s%.0f", i ? ", " : "[", r->seconds[i] * 1e9);
    nb_buf_char(&samples, ']');
    nb_table_json(t, samples.failed ? "null" : samples.data);
    nb_buf_clear(&samples);
    for (int i = 0; i < r->repetitions; i++)
        nb_buf_printf(&samples, "%s%.2f", i ? ", " : "[", (double)(r->test.prompt + r->test.generate) / r->seconds[i]);
    nb_buf_char(&samples, ']');
    nb_table_json(t, samples.failed ? "null" : samples.data);
    nb_buf_free(&samples);
    nb_table_int(t, (int64_t)s->model->weight_bytes);
    nb_table_int(t, (int64_t)nb_engine_kv_bytes(s->engine));
    nb_human_bytes(cell, (double)peak);
    nb_table_pair(t, cell, (double)peak);
}

/* ---- shares of the machine's limits ------------------------------------------------------------------------------------ */

enum { PROBE_ROUNDS = 3 /* before, and again after */ };

/* A test that was run, and what is left to be known until the limits were measured for the second time. */
typedef struct {
    nb_bench_result result;
    double          token_bytes; /* of a tg test, else 0 */
    nb_work         prompt;      /* of a pp test, else nothing */
    uint64_t        peak;        /* resident bytes */
} measured;

static void count_work(measured *m, const nb_session *s)
{
    const nb_bench_test *t = &m->result.test;
    nb_dtype             kv = nb_engine_kv_type(s->engine);
    if (!t->prompt) m->token_bytes = nb_work_token_bytes(s->model, kv, t->depth, t->generate);
    /* From an empty context the logits of the last row are asked for, behind a context those of all. */
    if (!t->generate) m->prompt = nb_work_model(s->model, kv, t->depth, t->prompt, t->depth ? t->prompt : 1);
}

static void fill_shares(nb_table *t, const measured *m, const nb_rates *r)
{
    double operations = m->prompt.ints + m->prompt.floats;
    nb_table_number(t, m->token_bytes > 0 ? m->token_bytes : NAN);
    nb_table_number(t, m->token_bytes > 0 ? 100 * m->token_bytes * m->result.avg_ts / r->read : NAN);
    nb_table_number(t, operations > 0 ? operations : NAN);
    nb_table_number(t, operations > 0 ? 100 * nb_work_compute_seconds(&m->prompt, r) / m->result.avg_s : NAN);
    nb_table_number(t, r->read);
    nb_table_number(t, r->ints);
    nb_table_number(t, r->floats);
}

static nb_status run_tests(measured *results, const options *o, const test_list *l, nb_session *s, nb_meter *meter, size_t *done, nb_error *err)
{
    for (size_t i = 0; i < l->count; i++) {
        char name[96];
        nb_bench_name(name, &l->tests[i]);
        nb_meter_update(meter, *done, l->count * (size_t)o->models.count, name);
        NB_TRY(nb_bench_run(&results[i].result, s->engine, &l->tests[i], (int)o->repetitions, o->warm_up, (uint64_t)o->seed, nb_stop_requested, err));
        results[i].peak = nb_peak_memory();
        count_work(&results[i], s);
        nb_meter_update(meter, ++*done, l->count * (size_t)o->models.count, name);
    }
    return NB_OK;
}

/* What is wrong with a checkpoint's files is said before time is spent on probes. */
static nb_status look_at(const char *path, nb_error *err)
{
    nb_checkpoint *c;
    NB_TRY(nb_checkpoint_open(&c, path, err));
    nb_checkpoint_close(c);
    return NB_OK;
}

/* The limits before, the tests, the limits after; a probe's memory is given back before the model is opened. */
static nb_status bench_opened(nb_table *t, const options *o, const test_list *l, nb_session *s, measured *results, nb_limits *limits,
                              const char *path, nb_meter *meter, size_t *done, nb_error *err)
{
    if (o->probe) NB_TRY(look_at(path, err));
    if (o->probe && s->ops.isa < NB_ISA_LEVELS) NB_TRY(nb_limits_add_level(limits, s->ops.isa, s->pool, err));
    NB_TRY(nb_limits_measure(limits, 0, PROBE_ROUNDS, NULL, err));
    nb_peak_memory_reset();
    NB_TRY(nb_session_model(s, path, &o->weights, err));
    NB_TRY(nb_session_engine(s, &o->engine, l->longest, 1, err));
    NB_TRY(run_tests(results, o, l, s, meter, done, err));
    NB_TRY(nb_limits_measure(limits, 0, PROBE_ROUNDS, NULL, err));
    nb_rates rates = nb_rates_of(limits, s->ops.isa);
    for (size_t i = 0; i < l->count; i++) {
        fill_row(t, o, s, path, &results[i].result, results[i].peak);
        fill_shares(t, &results[i], &rates);
    }
    return NB_OK;
}

static nb_status bench_model(nb_table *t, const options *o, const test_list *l, const char *path, nb_meter *meter, size_t *done, nb_error *err)
{
    nb_session s = { 0 };
    nb_limits  limits = { 0 };
    measured  *results;
    NB_TRY(nb_alloc(&results, l->count, sizeof *results, "results", err));
    nb_status status = nb_session_open(&s, &o->compute, err);
    if (status == NB_OK) status = bench_opened(t, o, l, &s, results, &limits, path, meter, done, err);
    for (size_t i = 0; i < l->count; i++) nb_bench_result_free(&results[i].result);
    free(results);
    nb_limits_free(&limits);
    nb_session_close(&s);
    return status;
}

static nb_status bench_models(nb_table **t, const options *o, nb_meter *meter, nb_error *err)
{
    test_list l = { 0 };
    size_t    done = 0;
    NB_TRY(nb_table_new(t, columns, NB_COUNT(columns), err));
    nb_status status = plan(&l, o, err);
    for (int i = 0; i < o->models.count && status == NB_OK; i++) status = bench_model(*t, o, &l, o->models.items[i], meter, &done, err);
    free(l.tests);
    return status;
}

/* NIBBLE_ISA would be --isa's environment name, but there it is the highest level, and here a list. */
static nb_status chosen_levels(nb_levels *out, const options *o, const nb_args *args, nb_error *err)
{
    return nb_levels_parse(out, nb_args_source(args, "isa") == NB_FROM_ENVIRONMENT ? NULL : o->isa, err);
}

static nb_status bench_roofline(nb_table **t, const options *o, const nb_args *args, nb_meter *meter, nb_error *err)
{
    nb_roofline_options r = { .threads = (int)o->compute.threads, .rounds = (int)o->repetitions, .memory = (size_t)o->memory };
    if (o->repetitions > NB_ROUNDS) return nb_fail(err, NB_ERR_ARGUMENT, "-r: %d rounds at most", NB_ROUNDS);
    NB_TRY(chosen_levels(&r.levels, o, args, err));
    return nb_roofline(t, &r, meter, err);
}

static nb_status bench_kernels(nb_table **t, const options *o, const nb_args *args, nb_meter *meter, nb_error *err)
{
    nb_kernels_options k = { .threads = (int)o->compute.threads, .rounds = (int)o->repetitions, .memory = (size_t)o->memory,
                             .seconds = o->seconds, .shapes = o->shapes, .filter = o->filter, .sites = o->sites };
    if (o->repetitions > NB_ROUNDS) return nb_fail(err, NB_ERR_ARGUMENT, "-r: %d rounds at most", NB_ROUNDS);
    NB_TRY(chosen_levels(&k.levels, o, args, err));
    return nb_kernels(t, &k, meter, err);
}

/* Which of the measurements is wanted, and that nothing was given that it would not look at. */
static nb_status check(const options *o, const nb_args *args, nb_error *err)
{
    static const struct {
        const char *name;
        bool        kernels_only;
    } machine[] = { { "isa", false }, { "memory", false }, { "shapes", true }, { "filter", true }, { "sites", true }, { "seconds", true } };
    bool alone = o->roofline || o->kernels;
    if (o->roofline && o->kernels) return nb_fail(err, NB_ERR_ARGUMENT, "--roofline and --kernels are two measurements: ask for one");
    if (alone && o->models.count)
        return nb_fail(err, NB_ERR_ARGUMENT, "--%s measures the machine and takes no MODEL ('%s')", o->roofline ? "roofline" : "kernels",
                       o->models.items[0]);
    if (!alone && !o->models.count)
        return nb_fail(err, NB_ERR_ARGUMENT, "no MODEL; give checkpoint directories, or --roofline or --kernels for the machine alone");
    for (size_t i = 0; i < NB_COUNT(machine); i++)
        if (nb_args_source(args, machine[i].name) == NB_FROM_FLAG && !(machine[i].kernels_only ? o->kernels : alone))
            return nb_fail(err, NB_ERR_ARGUMENT, "--%s is for %s--kernels%s", machine[i].name, machine[i].kernels_only ? "" : "--roofline and ",
                           strcmp(machine[i].name, "isa") ? "" : "; NIBBLE_ISA chooses the level of a MODEL");
    return NB_OK;
}

static nb_status run(nb_args *args, void *opaque, nb_error *err)
{
    const options *o = opaque;
    nb_table      *t = NULL;
    nb_meter       meter;
    nb_buf         out = { 0 };
    NB_TRY(check(o, args, err));
    NB_TRY(nb_weight_check(&o->weights, (size_t)o->models.count, err));
    nb_meter_start(&meter, "bench");
    nb_status status = o->roofline ? bench_roofline(&t, o, args, &meter, err)
                       : o->kernels ? bench_kernels(&t, o, args, &meter, err)
                                    : bench_models(&t, o, &meter, err);
    nb_meter_finish(&meter);
    if (status == NB_OK) {
        nb_table_print(t, nb_json_wanted() ? NB_TABLE_JSON : (nb_table_format)o->output, &out);
        status = nb_print(&out, err);
    }
    nb_buf_free(&out);
    nb_table_free(t);
    return status;
}

const nb_command nb_command_bench = {
    .name = "bench",
    .summary = "measure speed and memory",
    .usage = "MODEL... [-p N] [-n N] [-pg P,N] [-d D] [flags]\n       nibble bench --roofline | --kernels [-t N] [flags]",
    .about = "Times prompt processing (ppN) and generation (tgN) with made-up tokens, after one untimed run, and prints mean and standard deviation "
             "in tokens a second, in the form and with the field names of llama-bench. Peak memory is the largest resident size of the process "
             "since the model was opened.\n\n"
             "Two columns compare with the machine, whose limits are measured before and after (--no-probe: not). % of reading, for tgN: bytes of "
             "weights, keys and values that a token needs (token_bytes), times tokens a second, over the rate of reading memory (probe_read); a "
             "model that fits into the caches can exceed 100, and so can one whose memory lies better than the probe's did. % of peak, for ppN: the time that the prompt's operations (prompt_ops) take at the "
             "peak of the level's instructions (probe_ints for products of int4 and int8 weights, probe_floats for everything else), over "
             "the time they took. In CSV and JSON: read_percent, peak_percent, the fields named here, bytes and operations a second.\n\n"
             "--roofline times probes on random numbers instead: reading memory that no cache holds, and the multiplications of each level, on one "
             "thread and on -t. Rounds of all probes take turns; shown are the median, the least and the most of -r. A round in which another "
             "process took the CPU is made again a few times, and then kept and said to be disturbed. An operation is a multiplication or an "
             "addition.\n\n"
             "--kernels times each operation of the table at each level. A part (layer, head, block) is its matrices one after another; weights, "
             "keys and values, and activations of many rows come from memory, because calls take turns over 256 MB or more. % is the least time, "
             "that of the bytes at the rate of reading or that of the operations at the peak of their instructions, whichever is longer (bound), "
             "over the measured one; rates are probed before and after. What stays in the caches has none (bound: call). At the level ref, "
             "matrices have 64 outputs at most. gemm is the product of the solvers, one on each thread.",
    .examples = "  nibble bench MODEL -p 512,2048 -n 64 -d 0,4096 -r 3 -o csv\n"
                "  nibble bench MODEL -pg 1024,128 --json\n"
                "  nibble bench --roofline -t 2\n"
                "  nibble bench --kernels --shapes 7b --filter 'int4 g128 sym.*avx' -o csv\n",
    .blocks = blocks,
    .options_size = sizeof(options),
    .run = run,
};
