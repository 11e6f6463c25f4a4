/* cmd_bench.c - the cross product of models, tests and depths, timed and printed in llama-bench's form. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/choice.h"
#include "tools/bench/bench.h"
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
    nb_engine_flags  engine;
    nb_strings models, pairs;
    nb_ints    prompts, generates, depths;
    int64_t    repetitions, seed;
    bool       warm_up;
    int        output;
} options;

#define AT(field) .at = offsetof(options, field)
static const nb_arg bench_args[] = {
    { .name = "models", .type = NB_ARG_STRINGS, AT(models), .positional = true, .required = true, .metavar = "MODEL",
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
      .help = "timed runs of each test" },
    { .name = "warmup", .type = NB_ARG_BOOL, AT(warm_up), .text = "true", .group = "Tests", .advanced = true, .help = "one untimed run first" },
    { .name = "seed", .type = NB_ARG_INT, AT(seed), .min = 0, .max = 9e18, .text = "0", .group = "Tests", .advanced = true,
      .help = "of the made-up tokens" },
    { .name = "output", .brief = "o", .type = NB_ARG_CHOICE, AT(output), .choices = "md|csv|json|jsonl", .text = "md", .group = "Results",
      .help = "form of the table" },
};

static const nb_arg_block blocks[] = { { bench_args, NB_COUNT(bench_args), 0 },
                                       { nb_compute_args, NB_COMPUTE_ARGS, offsetof(options, compute) },
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

static void fill_row(nb_table *t, const options *o, const nb_session *s, const char *path, const nb_bench_result *r)
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
    nb_human_bytes(cell, (double)nb_peak_memory());
    nb_table_pair(t, cell, (double)nb_peak_memory());
}

static nb_status bench_model(nb_table *t, const options *o, const test_list *l, const char *path, nb_meter *meter, size_t *done, nb_error *err)
{
    nb_session s = { 0 };
    nb_peak_memory_reset();
    nb_status status = nb_session_open(&s, &o->compute, err);
    if (status == NB_OK) status = nb_session_model(&s, path, 0, err);
    if (status == NB_OK) status = nb_session_engine(&s, &o->engine, l->longest, 1, err);
    for (size_t i = 0; i < l->count && status == NB_OK; i++) {
        nb_bench_result r;
        char            name[96];
        nb_bench_name(name, &l->tests[i]);
        nb_meter_update(meter, *done, l->count * (size_t)o->models.count, name);
        status = nb_bench_run(&r, s.engine, &l->tests[i], (int)o->repetitions, o->warm_up, (uint64_t)o->seed, nb_stop_requested, err);
        if (status != NB_OK) break;
        fill_row(t, o, &s, path, &r);
        nb_bench_result_free(&r);
        nb_meter_update(meter, ++*done, l->count * (size_t)o->models.count, name);
    }
    nb_session_close(&s);
    return status;
}

static nb_status run(nb_args *args, void *opaque, nb_error *err)
{
    const options *o = opaque;
    test_list      l = { 0 };
    nb_table      *t;
    nb_meter       meter;
    nb_buf         out = { 0 };
    size_t         done = 0;
    (void)args;
    NB_TRY(nb_table_new(&t, columns, NB_COUNT(columns), err));
    nb_status status = plan(&l, o, err);
    nb_meter_start(&meter, "bench");
    for (int i = 0; i < o->models.count && status == NB_OK; i++) status = bench_model(t, o, &l, o->models.items[i], &meter, &done, err);
    nb_meter_finish(&meter);
    if (status == NB_OK) {
        nb_table_print(t, nb_json_wanted() ? NB_TABLE_JSON : (nb_table_format)o->output, &out);
        status = nb_print(&out, err);
    }
    nb_buf_free(&out);
    nb_table_free(t);
    free(l.tests);
    return status;
}

const nb_command nb_command_bench = {
    .name = "bench",
    .summary = "measure speed and memory",
    .usage = "MODEL... [-p N] [-n N] [-pg P,N] [-d D] [flags]",
    .about = "Times prompt processing (ppN) and generation (tgN) with made-up tokens, after one untimed run, and prints mean and standard deviation "
             "in tokens a second, in the form and with the field names of llama-bench. Peak memory is the largest resident size of the process "
             "since the model was opened.",
    .examples = "  nibble bench MODEL\n"
                "  nibble bench MODEL -p 512,2048 -n 64 -d 0,4096 -r 3 -o csv\n"
                "  nibble bench MODEL -pg 1024,128 --json\n",
    .blocks = blocks,
    .options_size = sizeof(options),
    .run = run,
};
