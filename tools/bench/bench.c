/* bench.c - see bench.h. */
#include "tools/bench/bench.h"

#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void nb_bench_result_free(nb_bench_result *r)
{
    free(r->seconds);
    memset(r, 0, sizeof *r);
}

void nb_bench_name(char out[96], const nb_bench_test *t)
{
    char depth[40] = "";
    if (t->depth) snprintf(depth, sizeof depth, " @ d%zu", t->depth);
    if (t->prompt && t->generate)
        snprintf(out, 96, "pp%zu+tg%zu%s", t->prompt, t->generate, depth);
    else
        snprintf(out, 96, "%s%zu%s", t->prompt ? "pp" : "tg", t->prompt ? t->prompt : t->generate, depth);
}

/* ---- one run ----------------------------------------------------------------------------------------------------------- */

typedef struct {
    nb_engine   *engine;
    nb_sequence *sequence;
    uint64_t     state;
    bool       (*stop)(void);
} runner;

static int32_t next_id(runner *r)
{
    r->state = r->state * 6364136223846793005ull + 1442695040888963407ull;
    return (int32_t)((r->state >> 33) % (uint64_t)nb_engine_model(r->engine)->config.vocab);
}

static nb_status ignore_logits(void *context, nb_sequence *s, size_t row, float *logits, nb_error *err)
{
    (void)context, (void)s, (void)row, (void)logits, (void)err;
    return NB_OK;
}

static nb_status drain(runner *r, nb_error *err)
{
    size_t advanced;
    do {
        if (r->stop && r->stop()) return nb_fail(err, NB_ERR_STOPPED, "stopped before the measurement was complete");
        NB_TRY(nb_engine_step(r->engine, &advanced, err));
    } while (advanced);
    return NB_OK;
}

/* A sequence that starts with `count` made-up tokens; pads and the like would need pictures, so plain ids only. */
static nb_status start(runner *r, size_t count, size_t total, nb_error *err)
{
    nb_prompt        prompt;
    int32_t         *ids;
    const nb_config *c = &nb_engine_model(r->engine)->config;
    NB_TRY(nb_alloc(&ids, count, sizeof *ids, "made-up tokens", err));
    for (size_t i = 0; i < count; i++) ids[i] = next_id(r);
    nb_status status = nb_prompt_from_ids(&prompt, ids, count, c, err);
    free(ids);
    if (status != NB_OK) return status;
    const nb_sequence_options options = {.total = total, .logits_from = count - 1, .on_logits = ignore_logits};
    status = nb_sequence_new(&r->sequence, r->engine, &prompt, &options, err);
    nb_prompt_free(&prompt);
    return status;
}

static nb_status push_and_run(runner *r, size_t count, nb_error *err)
{
    for (size_t i = 0; i < count; i++) NB_TRY(nb_sequence_push(r->sequence, next_id(r), err));
    return drain(r, err);
}

static nb_status timed(runner *r, const nb_bench_test *t, double *seconds, nb_error *err)
{
    size_t total = t->depth + t->prompt + t->generate, generated = 0;
    double from;
    if (t->depth) {
        NB_TRY(start(r, t->depth, total, err));
        NB_TRY(drain(r, err));
        from = nb_seconds();
        if (t->prompt) NB_TRY(push_and_run(r, t->prompt, err));
    } else {
        NB_TRY(start(r, t->prompt ? t->prompt : 1, total, err));
        from = nb_seconds();
        NB_TRY(drain(r, err));
        generated = t->prompt ? 0 : 1; /* the first of the generated tokens was the whole context */
    }
    for (; generated < t->generate; generated++) NB_TRY(push_and_run(r, 1, err));
    *seconds = nb_seconds() - from;
    return NB_OK;
}

static nb_status once(nb_engine *e, const nb_bench_test *t, uint64_t seed, bool (*stop)(void), double *seconds, nb_error *err)
{
    runner    r = { .engine = e, .state = seed, .stop = stop };
    nb_status status = timed(&r, t, seconds, err);
    nb_sequence_free(r.sequence);
    return status;
}

static void statistics(nb_bench_result *r)
{
    double tokens = (double)(r->test.prompt + r->test.generate), n = r->repetitions, ts = 0, s = 0, ts2 = 0, s2 = 0;
    for (int i = 0; i < r->repetitions; i++) {
        s += r->seconds[i] / n;
        ts += tokens / r->seconds[i] / n;
    }
    for (int i = 0; i < r->repetitions; i++) {
        s2 += (r->seconds[i] - s) * (r->seconds[i] - s);
        ts2 += (tokens / r->seconds[i] - ts) * (tokens / r->seconds[i] - ts);
    }
    r->avg_s = s;
    r->avg_ts = ts;
    r->stddev_s = n > 1 ? sqrt(s2 / (n - 1)) : 0;
    r->stddev_ts = n > 1 ? sqrt(ts2 / (n - 1)) : 0;
}

nb_status nb_bench_run(nb_bench_result *out, nb_engine *e, const nb_bench_test *test, int repetitions, bool warm_up, uint64_t seed,
                       bool (*stop)(void), nb_error *err)
{
    double    ignored;
    time_t    now = time(NULL);
    struct tm utc;
    *out = (nb_bench_result){ .test = *test, .repetitions = repetitions };
    nb_bench_name(out->name, test);
    strftime(out->when, sizeof out->when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    nb_status status = nb_alloc(&out->seconds, (size_t)repetitions, sizeof *out->seconds, "timings", err);
    if (status == NB_OK && warm_up) status = once(e, test, seed, stop, &ignored, err);
    for (int i = 0; i < repetitions && status == NB_OK; i++) status = once(e, test, seed + (uint64_t)i, stop, &out->seconds[i], err);
    if (status == NB_OK)
        statistics(out);
    else
        nb_bench_result_free(out);
    return status;
}

uint64_t nb_peak_memory(void)
{
    char     line[256];
    unsigned long long kib = 0;
    FILE    *f = fopen("/proc/self/status", "re");
    if (!f) return 0;
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %llu kB", &kib) == 1) break;
    fclose(f);
    return (uint64_t)kib * 1024;
}

void nb_peak_memory_reset(void)
{
    malloc_trim(0);
    FILE *f = fopen("/proc/self/clear_refs", "we");
    if (!f) return;
    fputs("5", f); /* proc(5): reset the peak resident set size */
    fclose(f);
}
